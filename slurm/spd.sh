#!/bin/bash
# Decomposition experiments, one per task of a job array, on CPUs. A task that meets its time limit is requeued and resumes.
#   slurm/spd.sh [--at-most N] [WHAT...] [-- options of spd-run]              on a login node: submits itself
#   slurm/spd.sh [--at-most N] --sweep GRID.yaml [KEY...] [-- options]        a task for each point of a grid, as spd-run --sweep counts them
#   sbatch --array=0-7 slurm/spd.sh [WHAT...] [-- options of spd-run]         submits with the resources below
# WHAT: an experiment's key (tms_5-2) or a configuration file; none: every registered experiment. --at-most N: tasks that run at the same time.
# --list FILE instead of WHAT: each line the arguments of one spd-run ("-e tms_5-2 --job-suffix lr1 ..."); empty lines and those that start with # do not
# count. --gpu: a GPU for each task.
#SBATCH --job-name=spd
#SBATCH --output=spd-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00

# SLURM runs a copy of this script, so it asks where the original lies.
here=$(dirname "$(readlink -f "$0")")
[ -r "$here/common.sh" ] || here=${JOB_SCRIPTS:-$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/spd\.sh.*|\1|p')}
if [ ! -r "$here/common.sh" ]; then
    echo "spd.sh: common.sh is not in ${here:-?}: export JOB_SCRIPTS=/the/clone/slurm" >&2
    exit 3
fi
# shellcheck source=common.sh
. "$here/common.sh"

arguments=("$@") at_most='' list='' sweep='' gpu='' what=() rest=()
while [ $# -gt 0 ]; do
    case $1 in
    --at-most | --list | --sweep)
        [ $# -gt 1 ] || die 2 "$1 needs a value"
        case $1 in --list) list=$2 ;; --sweep) sweep=$2 ;; *) at_most=$2 ;; esac
        shift
        ;;
    --gpu) gpu=1 ;;
    --help | -h) sed -n '2,/^#SBATCH/{/^#SBATCH/d;s/^# \{0,1\}//p}' "$here/spd.sh"; exit 0 ;;
    --) shift; rest=("$@"); break ;;
    -*) die 2 "$1: options of spd-run follow --" ;;
    *) what+=("$1") ;;
    esac
    shift
done
case $at_most in *[!0-9]* | 0) die 2 "--at-most $at_most: a whole number from 1 on" ;; esac
load_site
kept='' logs=${SPD_LOGS:-$HOME/slurm_logs}
if [ -n "$sweep" ]; then
    [ -z "$list" ] && [ -z "${SLURM_JOB_ID:-}" ] || die 2 "--sweep is for the login node, and without --list"
    load_modules
    find_program SPD_PROGRAM spd-run || die 3 "not submitted: ${SPD_PROGRAM:-spd-run} is not there or not executable: ./bootstrap build, or set SPD_PROGRAM in site.env"
    keys=$(IFS=,; echo "${what[*]}")
    # The grid as it is now: it may be edited while tasks wait.
    mkdir -p "$logs" && grid=$(mktemp "$logs/grid-XXXXXX.yaml") || die 4 "$logs cannot be written"
    cp "$sweep" "$grid" || die 3 "not submitted: $sweep cannot be read"
    list=$(mktemp) && "$SPD_PROGRAM" ${keys:+-e "$keys"} --sweep "$grid" --list >"$list" || die 3 "not submitted: spd-run does not take the grid (see above)"
    what=() arguments=(--list "$list" ${gpu:+--gpu} ${rest[0]:+-- "${rest[@]}"})
fi
lines=()
if [ -n "$list" ]; then
    [ ${#what[@]} = 0 ] || die 2 "either --list or ${what[0]}"
    [ -r "$list" ] || die 3 "$list cannot be read"
    mapfile -t lines < <(grep -vE '^[[:space:]]*(#|$)' "$list")
    [ ${#lines[@]} -gt 0 ] || die 3 "$list: no line with the arguments of an spd-run"
else
    [ ${#what[@]} -gt 0 ] || what=(tms_5-2 tms_5-2-id tms_40-10 tms_40-10-id resid_mlp1 resid_mlp2 resid_mlp3)
    for one in "${what[@]}"; do
        # A file is read by the job, perhaps from another directory.
        case $one in *.yaml | *.yml) lines+=("$(printf %q "$(readlink -m "$one")")") ;; *) lines+=("-e $(printf %q "$one")") ;; esac
    done
fi

if [ -z "${SLURM_JOB_ID:-}" ]; then
    command -v sbatch >/dev/null || die 4 "there is no sbatch here: this belongs on a login node of a SLURM cluster"
    find_program SPD_PROGRAM spd-run || die 3 "not submitted: ${SPD_PROGRAM:-spd-run} is not there or not executable: ./bootstrap build, or set SPD_PROGRAM in site.env"
    [ -n "$gpu" ] || GPUS_PER_NODE=0
    RANKS=1 RANKS_PER_NODE=1 MODEL_DIR='' MODEL_SIZE=2b MEM_PER_NODE=${MEM_PER_NODE:-16G} TIME_LIMIT=${TIME_LIMIT:-04:00:00}
    resources spd
    mkdir -p "$logs" || die 4 "$logs cannot be made"
    # Likewise the list.
    if [ -n "$list" ]; then
        kept=$(mktemp "$logs/list-XXXXXX") && cp "$list" "$kept" || die 4 "$list cannot be copied to $logs"
        [ -z "$sweep" ] || rm -f "$list"
        for ((i = 0; i < ${#arguments[@]}; i++)); do [ "${arguments[i]}" = --list ] && arguments[i + 1]=$kept; done
    fi
    command=(sbatch --array="0-$((${#lines[@]} - 1))${at_most:+%$at_most}" --output="$logs/slurm-%A_%a.out" "${options[@]}" --job-name=spd "$here/spd.sh" "${arguments[@]}")
    say "${command[*]}"
    JOB_SCRIPTS=$here exec "${command[@]}"
fi

task=${SLURM_ARRAY_TASK_ID:-}
if [ -z "$task" ]; then
    [ ${#lines[@]} = 1 ] || die 2 "${#lines[@]} experiments and no job array: sbatch --array=0-$((${#lines[@]} - 1)) slurm/spd.sh ..."
    task=0
fi
[ "$task" -lt ${#lines[@]} ] || die 2 "task $task, but there are ${#lines[@]} experiments (--array=0-$((${#lines[@]} - 1)))"
in_job
load_modules
find_program SPD_PROGRAM spd-run || die 3 "${SPD_PROGRAM:-spd-run} is not there or not executable on $(hostname -s): set SPD_PROGRAM in site.env"
cd "${SPD_DIR:-$PWD}" || die 4 "SPD_DIR=$SPD_DIR: not a directory that can be entered"
# A line may end with a remark, so the bracket stands on the next.
eval "words=(${lines[task]}
)"
# shellcheck disable=SC2154 # words: just made
run_program "$SPD_PROGRAM" "${words[@]}" "${rest[@]}"
