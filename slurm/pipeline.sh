#!/bin/bash
# Submits the whole study as a chain of jobs: phase1, pile, phase2, phase3, steer, report. Each waits until the one before has succeeded
# (afterok); when one fails for good, those behind it are cancelled. A job that meets its time limit goes back into the queue, and the chain waits.
usage() {
    cat <<'END'
usage: slurm/pipeline.sh [--dry-run] [--from PHASE] [--to PHASE] [--after JOBID]

  --dry-run      print the sbatch commands and submit nothing
  --from PHASE   start with this phase; what it reads must be in the run directory, or come from the job of --after
  --to PHASE     end with this phase
  --after JOBID  the first job waits for this one

Phases, in order: phase1 pile phase2 phase3 steer report. Everything else is in slurm/site.env.
END
}
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=common.sh
. "$here/common.sh"

dry='' from=phase1 to=report previous=''
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry=1 ;;
    --from | --to | --after)
        [ $# -gt 1 ] || die 2 "$1 needs a value"
        case $1 in --from) from=$2 ;; --to) to=$2 ;; *) previous=$2 ;; esac
        shift
        ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
chain=() on=''
for phase in phase1 pile phase2 phase3 steer report; do
    [ "$phase" = "$from" ] && on=1
    [ -n "$on" ] && chain+=("$phase")
    [ "$phase" = "$to" ] && on=''
done
[ "${chain[0]:-}" = "$from" ] && [ "${chain[-1]}" = "$to" ] || die 2 "--from $from --to $to: the phases are phase1 pile phase2 phase3 steer report, in this order"

load_site
missing=$(missing_inputs "${chain[@]}")
[ -n "$previous" ] || case $from in
phase2 | phase3 | steer | report)
    [ -r "$RUN_DIR/phase1.h5" ] || missing+=$'\n'"the result of phase1: $RUN_DIR/phase1.h5"
    ;;
esac
missing=${missing#$'\n'}
if [ -n "$missing" ]; then
    [ -n "$dry" ] || die 3 "nothing was submitted, missing are:"$'\n'"$missing"$'\n'"(slurm/fetch.sh downloads, slurm/preflight.sh checks more)"
    say "missing, so that without --dry-run this is refused:"$'\n'"$missing"
fi
name=pva:$(readlink -m "$RUN_DIR")
if [ -z "$dry" ]; then
    command -v sbatch >/dev/null || die 4 "there is no sbatch here: this belongs on a login node of a SLURM cluster"
    # The comment tells a run's jobs apart. Two chains for one run would only wait for, and refuse, each other.
    queued=$(squeue -h -u "$(id -un)" -o '%A %k' 2>/dev/null | awk -v name="$name" '$2 == name { print $1 }' | paste -sd' ')
    [ -z "$queued" ] || [ -n "$previous" ] || die 5 "jobs for $RUN_DIR are in the queue already ($queued): scancel them, wait, or chain with --after"
    mkdir -p "$RUN_DIR/logs" || die 4 "$RUN_DIR/logs cannot be made"
fi

submitted=()
for phase in "${chain[@]}"; do
    resources "$phase"
    command=(sbatch --parsable --output="$(log_pattern)" --comment="$name" "${options[@]}")
    [ -n "$previous" ] && command+=(--dependency="afterok:$previous" --kill-on-invalid-dep=yes)
    command+=("$here/$phase.sh")
    if [ -n "$dry" ]; then
        printf '%q ' "${command[@]}"
        echo
        previous="<$phase>"
        continue
    fi
    if ! answer=$(JOB_SCRIPTS=$here "${command[@]}"); then
        [ ${#submitted[@]} = 0 ] || scancel "${submitted[@]}"
        die 4 "sbatch refused $phase (see above); nothing stays in the queue. The command was: ${command[*]}"
    fi
    previous=${answer%%;*} # with several clusters, "job;cluster"
    submitted+=("$previous")
    printf '%-8s job %s  %s\n' "$phase" "$previous" "$([ "$phase" = report ] && echo '1 rank' || echo "$ranks rank(s) on $nodes node(s)")"
done
[ -n "$dry" ] || cat <<END
logs     $RUN_DIR/logs/
watch    squeue -u $(id -un);  $PVA_PROGRAM status $RUN_DIR
cancel   scancel ${submitted[*]}
END
