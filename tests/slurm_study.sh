#!/usr/bin/env bash
# The whole study with the mini model, submitted by pipeline.sh to a real SLURM: three ranks on three nodes, stopped once on the way; and the same without
# SLURM on one rank. Same bytes.
# shellcheck source=slurm_lib.bash
. "$(dirname "$0")/slurm_lib.bash"
mini=$source/tests/data/mini
if [ ! -r "$mini/model/model.safetensors" ]; then echo "SKIP the study: the mini model is not there"; exit 77; fi
for phase in phase1 pile phase2 phase3 steer report; do
    "$PVA_MPI" --help | grep -q "^  $phase " || { echo "SKIP the study: this pva-mpi has no $phase"; exit 77; }
done
cp -r "$mini/model" "$dir/mini-model" && cp -r "$mini/saes" "$dir/mini-saes" && chmod -R a+rX "$dir/mini-model" "$dir/mini-saes"
phase1='--end 119 --max-tokens 300' pile='--documents 200' phase2='--permutations 200' phase3='--temperatures 0,1 --samples 1 --replicates 100'
steer='--controls 1 --coefficients -1:1:1'
cat >>"$dir/site.env" <<END
MODEL_DIR=$dir/mini-model SAE_DIR=$dir/mini-saes
PHASE1_OPTIONS='$phase1' PILE_OPTIONS='$pile' PHASE2_OPTIONS='$phase2' PHASE3_OPTIONS='$phase3' STEER_OPTIONS='$steer'
END

RUN=$dir/home/nobody/study
export RUN
SLOW=3000 as nobody "$dir/slurm/pipeline.sh" >"$dir/out" 2>&1
expect "exit of pipeline.sh" $? 0
mapfile -t chain < <(sed -nE 's/^[a-z0-9]+ +job ([0-9]+) .*/\1/p' "$dir/out")
expect "jobs of the chain" ${#chain[@]} 6
# Phase 1 is told that its time is over, as SLURM does it; the others wait until it has come back.
wait_records "$RUN" 10 60 && as nobody scancel --batch --signal=USR1 "${chain[0]}"

# all phases in one job, which is stopped somewhere behind phase 1
sets=$(for phase in phase1 pile phase2 phase3 steer; do
    # shellcheck disable=SC2086 # words
    set -- ${!phase}
    while [ $# -gt 0 ]; do [ "$1" = --end ] || echo "--set $phase.${1#--}=$2"; shift 2; done
done | paste -sd' ')
RUN=$dir/home/nobody/one RUN_OPTIONS="--end 119 $sets" submit nobody run.sh
one=$job
wait_records "$dir/home/nobody/one" 120 120 && as nobody scancel --batch --signal=USR1 "$one"

# the same on one rank, meanwhile
alone() { # PHASE options...
    local phase=$1
    shift
    "$PVA_MPI" "$phase" --run "$dir/alone" --threads 1 --quiet "$@" >"$dir/alone.log" 2>&1 || fail "$phase without SLURM: $(tail -n 3 "$dir/alone.log")"
}
model=(--model "$dir/mini-model") saes=(--sae "$dir/mini-saes") problems=(--problems "$dir/problems.jsonl")
# shellcheck disable=SC2086 # options are words
{
    alone phase1 "${model[@]}" "${problems[@]}" $phase1
    alone pile "${model[@]}" "${saes[@]}" --pile "$dir/pile.jsonl" $pile
    alone phase2 "${saes[@]}" $phase2
    alone phase3 "${model[@]}" "${problems[@]}" $phase3
    alone steer "${model[@]}" "${problems[@]}" $steer
}

done_in_order "${chain[5]}" 300
expect "states of the chain" "$(for j in "${chain[@]}"; do state "$j"; done | sort | uniq -c | xargs)" '6 COMPLETED'
expect "restarts of phase 1" "$(field "${chain[0]}" Restarts)" 1
check test -s "$RUN/report.html"
done_in_order "$one" 200
check test -s "$dir/home/nobody/one/report.html"
same "$dir/alone/phase1.h5" "$RUN/phase1.h5"
same "$dir/alone/phase1.h5" "$dir/home/nobody/one/phase1.h5"
for file in pile phase2 phase2-selection phase3 steer; do
    # every dataset of the file; which ranks computed what, and when, is in the manifest alone
    for d in $(h5ls -r "$dir/alone/$file.h5" | awk '/ Dataset / { print $1 }'); do
        checks=$((checks + 1))
        h5diff "$dir/alone/$file.h5" "$RUN/$file.h5" "$d" >"$dir/diff" 2>&1 || fail "$file.h5 differs in $d: $(head -n 3 "$dir/diff")"
        h5diff "$dir/alone/$file.h5" "$dir/home/nobody/one/$file.h5" "$d" >"$dir/diff" 2>&1 || fail "$file.h5 of run.sh differs in $d: $(head -n 3 "$dir/diff")"
    done
done
check python3 - "$RUN/manifest.json" <<'END'
import json, sys
starts = json.load(open(sys.argv[1]))["starts"]
phases = [s["phase"] for s in starts if s["phase"] != "report"]
assert phases == ["phase1", "phase1", "pile", "phase2", "phase3", "steer"], phases
assert [s["slurm"].get("SLURM_RESTART_COUNT") for s in starts][:2] == [None, "1"], starts
assert all(s["slurm"]["SLURM_JOB_NUM_NODES"] == "3" and s["ranks"] == 3 for s in starts if s["phase"] != "report"), starts
END
summary slurm_study
