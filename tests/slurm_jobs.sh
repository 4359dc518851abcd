#!/usr/bin/env bash
# The job scripts under a real SLURM of three nodes, what goes right: phase 1 across nodes for a plain user, one GPU per rank however it was asked for,
# the chain of the pipeline, arrays, two users on one node. How jobs are stopped is in slurm_stops.sh.
# shellcheck source=slurm_lib.bash
. "$(dirname "$0")/slurm_lib.bash"

# --- Phase 1 on three nodes, by a user who is not root ---------------------------------------------------------------------------------------------
reference plain --end 29
RUN=$dir/home/nobody/run submit nobody phase1.sh --end 29 --max-tokens 260
first=$job
# --- Meanwhile: sbatch itself, from another directory, without an environment
other=$(as daemon env RUN="$dir/home/daemon/run" SITE_ENV="$SITE_ENV" sbatch --parsable --gres=none --mem=400M --cpus-per-task=1 --export=RUN,SITE_ENV,PATH "$dir/slurm/phase1.sh" --end 29 --max-tokens 260)
done_in_order "$first" 60
done_in_order "$other" 60
same "$dir/plain/phase1.h5" "$dir/home/nobody/run/phase1.h5"
same "$dir/plain/phase1.h5" "$dir/home/daemon/run/phase1.h5"
check grep -q '3 ranks x 1 CPUs on n\[1-3\]' "$dir/home/nobody/run/logs/slurm-pva-phase1-$first.out"
check grep -q '1 ranks x 1 CPUs' "$dir/home/daemon/pva-phase1-$other.out"
expect "owner of the result" "$(stat -c %U "$dir/home/nobody/run/phase1.h5")" nobody
check python3 - "$dir/home/nobody/run/manifest.json" "$first" <<'END'
import json, sys
start, = json.load(open(sys.argv[1]))["starts"]
assert start["slurm"]["SLURM_JOB_ID"] == sys.argv[2] and start["ranks"] == 3, start
END

# --- Two users' jobs on one node, at the same time ---------------------------------------------------------------------------------------------------
pair=()
for user in nobody daemon; do
    SLOW=20000 RANKS=1 RUN=$dir/home/$user/shared EXTRA_SBATCH=--nodelist=n1 submit $user phase1.sh --end 29 --max-tokens 260
    pair+=("$job")
done

# --- One GPU per rank -----------------------------------------------------------------------------------------------------------------------------------
# A program that tells what it was given. Its log has a line per rank.
cat >"$dir/bin/teller" <<'END'
#!/bin/bash
case " $* " in *' --show-config '*) echo '# run: unset'; echo 'threads: 0'; exit ;; esac
echo "rank ${SLURM_PROCID:-?}${OMPI_COMM_WORLD_RANK:+ mpi $OMPI_COMM_WORLD_RANK} node $SLURMD_NODENAME gpu ${CUDA_VISIBLE_DEVICES:-none} tmp $TMPDIR threads $OMP_NUM_THREADS: $*"
END
chmod 755 "$dir/bin/teller"
export PROGRAM=$dir/bin/teller
gpus_of() { # JOB: "node:gpu" of each rank, sorted
    sed -nE 's/^rank .* node (n[0-9]) gpu ([0-9a-z,]+) .*/\1:\2/p' "$(field "$1" StdOut)" | sort | paste -sd' '
}
names=() jobs=()
for form in gres gpus-per-node gpus-per-task; do
    GPU_REQUEST=$form RANKS=4 RANKS_PER_NODE=2 RUN=$dir/home/nobody/gpu submit nobody phase1.sh
    names+=("$form") jobs+=("$job")
done
LAUNCHER=mpirun MPIRUN='mpirun -n %ranks --map-by ppr:%per_node:node --bind-to none' RANKS=4 RANKS_PER_NODE=2 RUN=$dir/home/nobody/gpu submit nobody phase1.sh
names+=(mpirun) jobs+=("$job")
# More GPUs than tasks: the script starts a rank for each.
more=$(as nobody env RUN="$dir/home/nobody/gpu" sbatch --parsable --nodes=2 --ntasks-per-node=1 --cpus-per-task=2 --gres=gpu:2 --mem=400M "$dir/slurm/phase1.sh")
names+=('one task, two GPUs') jobs+=("$more")
RUN=$dir/home/nobody/gpu GPUS_PER_NODE=0 submit nobody report.sh
without=$job
for i in "${!jobs[@]}"; do
    done_in_order "${jobs[i]}" 90
    nodes=$(scontrol show hostnames "$(field "${jobs[i]}" NodeList)" | paste -sd' ')
    wanted=$(for node in $nodes; do echo "$node:0 $node:1"; done | paste -sd' ')
    expect "GPUs of the ranks, ${names[i]}" "$(gpus_of "${jobs[i]}")" "$wanted"
done
done_in_order "$without" 60
check grep -q 'gpu none ' "$(field "$without" StdOut)"
check grep -qE "tmp $dir/cluster/tmp/n[123] threads 1: phase1 --run $dir/home/nobody/gpu --threads 1\$" "$(field "${jobs[0]}" StdOut)"

# --- The chain -----------------------------------------------------------------------------------------------------------------------------------------
# Phases that write down when they ran; phase3 fails when asked to.
cat >"$dir/bin/chain" <<'END'
#!/bin/bash
case " $* " in *' --show-config '*) echo '# run: unset'; exit ;; esac
[ "${SLURM_PROCID:-0}" = 0 ] || exit 0
# When the others have ended: those that had not srun would end by a signal, and report its number, which is the higher.
[ "$1" = "${BREAK:-}" ] && { sleep 1; exit 3; }
echo "$1" >>"$3/order"
END
chmod 755 "$dir/bin/chain"
export PROGRAM=$dir/bin/chain
export RUN=$dir/home/nobody/chain
as nobody "$dir/slurm/pipeline.sh" --dry-run >"$dir/plan" 2>&1
expect "the plan's jobs" "$(grep -c '^sbatch' "$dir/plan")" 6
expect "dependencies in the plan" "$(grep -c -- '--dependency=afterok:' "$dir/plan")" 5
check test ! -e "$RUN"
# refusals: nothing is submitted
mv "$dir/pile.jsonl" "$dir/pile.away"
as nobody "$dir/slurm/pipeline.sh" >"$dir/out" 2>&1; expect "exit without the text" $? 3
check grep -q "general text: $dir/pile.jsonl" "$dir/out"
mv "$dir/pile.away" "$dir/pile.jsonl"
as nobody "$dir/slurm/pipeline.sh" --from phase2 >"$dir/out" 2>&1; expect "exit without phase 1's result" $? 3
sed -i 's/MEM_REPORT=400M/MEM_REPORT=900G/' "$dir/site.env"
as nobody "$dir/slurm/pipeline.sh" >"$dir/out" 2>&1; expect "exit when SLURM refuses the last job" $? 4
sed -i 's/MEM_REPORT=900G/MEM_REPORT=400M/' "$dir/site.env"
sleep 1
expect "jobs left by a refused chain" "$(squeue -h -n pva-phase1,pva-pile,pva-phase2,pva-phase3,pva-steer,pva-report -t PENDING -o %A | wc -l)" 0
rm -rf "$RUN"
as nobody "$dir/slurm/pipeline.sh" >"$dir/out" 2>&1; expect "exit of pipeline.sh" $? 0
mapfile -t chain < <(sed -nE 's/^[a-z0-9]+ +job ([0-9]+) .*/\1/p' "$dir/out")
expect "jobs of the chain" ${#chain[@]} 6
as nobody "$dir/slurm/pipeline.sh" >"$dir/out" 2>&1; expect "exit of a second chain for one run" $? 5
done_in_order "${chain[5]}" 120
expect "the order of the phases" "$(paste -sd' ' "$RUN/order")" 'phase1 pile phase2 phase3 steer report'
# a phase that fails takes those behind it along
export RUN=$dir/home/nobody/broken
BREAK=phase2 as nobody "$dir/slurm/pipeline.sh" >"$dir/out" 2>&1
mapfile -t chain < <(sed -nE 's/^[a-z0-9]+ +job ([0-9]+) .*/\1/p' "$dir/out")
wait_for "${chain[5]}" "$finished" 60
expect "states after a failure" "$(for j in "${chain[@]}"; do state "$j"; done | paste -sd' ')" 'COMPLETED COMPLETED FAILED CANCELLED CANCELLED CANCELLED'
expect "exit code of the failed phase" "$(field "${chain[2]}" ExitCode)" 3:0
expect "the phases that ran" "$(paste -sd' ' "$RUN/order")" 'phase1 pile'

# --- Arrays ----------------------------------------------------------------------------------------------------------------------------------------------
cat >"$dir/bin/spd-run" <<'END'
#!/bin/bash
case " $* " in *' --list '*) for i in 1 2; do echo "-e $2 --config '$4' --index $i # run $i"; done; exit ;; esac
echo "task $SLURM_ARRAY_TASK_ID gpu ${CUDA_VISIBLE_DEVICES:-none}:$(printf ' <%s>' "$@")"
END
chmod 755 "$dir/bin/spd-run"
export CPUS_PER_RANK=1
submit nobody spd.sh --gpu --at-most 2 tms_5-2 resid_mlp1 ss_emb -- --seed 7
array=$job
printf '%s\n' '# a grid' '-e tms_5-2 --job-suffix "a b"' '' '-e tms_5-2 --job-suffix c' >"$dir/grid"
chmod 644 "$dir/grid"
submit nobody spd.sh --list "$dir/grid"
grid=$job
echo 'global: {}' >"$dir/grid.yaml"
submit nobody spd.sh --sweep "$dir/grid.yaml" a b -- --seed 3
sweep=$job
as nobody "$dir/slurm/spd.sh" --list "$dir/none" >"$dir/out" 2>&1; expect "exit for a list that is not there" $? 3
for k in $(seq 300); do
    [ -z "$(squeue -h -j "$array,$grid,$sweep" 2>/dev/null)" ] && break
    sleep 0.2
done
logs=$dir/home/nobody/slurm_logs
expect "the array" "$(sed -n 's/^\(task [0-9] gpu [0-9a-z]*:.*\)/\1/p' "$logs"/slurm-"$array"_*.out | sed 's/gpu [01]/gpu/' | paste -sd';')" \
    'task 0 gpu: <-e> <tms_5-2> <--seed> <7>;task 1 gpu: <-e> <resid_mlp1> <--seed> <7>;task 2 gpu: <-e> <ss_emb> <--seed> <7>'
expect "the grid" "$(sed -n 's/^\(task [0-9] gpu [0-9a-z]*:.*\)/\1/p' "$logs"/slurm-"$grid"_*.out | paste -sd';')" \
    'task 0 gpu none: <-e> <tms_5-2> <--job-suffix> <a b>;task 1 gpu none: <-e> <tms_5-2> <--job-suffix> <c>'
kept=$(echo "$logs"/grid-*.yaml)
check cmp "$dir/grid.yaml" "$kept"
expect "the sweep" "$(sed -n 's/^\(task [0-9] gpu [0-9a-z]*:.*\)/\1/p' "$logs"/slurm-"$sweep"_*.out | paste -sd';')" \
    "task 0 gpu none: <-e> <a,b> <--config> <$kept> <--index> <1> <--seed> <3>;task 1 gpu none: <-e> <a,b> <--config> <$kept> <--index> <2> <--seed> <3>"

# --- Before the first submission ----------------------------------------------------------------------------------------------------------------------
unset PROGRAM
for j in "${pair[@]}"; do done_in_order "$j" 60; done # they read the model that is damaged below
preflight() { # STATUS PATTERN SETTINGS...
    local status=$1 pattern=$2 got
    shift 2
    checks=$((checks + 1))
    as nobody env RUN="$dir/home/nobody/new" "$@" "$dir/slurm/preflight.sh" >"$dir/out" 2>&1
    got=$?
    [ $got = "$status" ] || fail "preflight.sh with $*: exit $got, expected $status: $(cat "$dir/out")"
    grep -qE -- "$pattern" "$dir/out" || fail "preflight.sh with $*: $(cat "$dir/out"), expected $pattern"
}
preflight 0 '^ready: ' A=1
expect "checks that failed" "$(grep -c '^FAIL' "$dir/out")" 0
check grep -q '^ok    phase1 would be taken' "$dir/out"
preflight 1 '^FAIL  partition nowhere does not exist' SBATCH_PARTITION=nowhere
preflight 1 '^FAIL  phase1 asks for 2-00:00:00, the limit of main is 1-00:00:00' TIME_LIMIT=2-00:00:00
preflight 1 '^FAIL  phase1 would be refused: ' EXTRA_SBATCH=--nodelist=n9
preflight 1 '^FAIL  srun --mpi=list has no pmi9' SRUN_MPI=pmi9
preflight 1 '^FAIL  pva-mpi: .*not there' PROGRAM="$dir/bin/none"
mv "$dir/model/tokenizer.model" "$dir/away"
preflight 1 '^FAIL  missing: the model: .*/tokenizer.model' A=1
mv "$dir/away" "$dir/model/tokenizer.model"
sed -i 's/GPUS_PER_NODE=2/GPUS_PER_NODE=3/' "$dir/site.env"
preflight 1 '^FAIL  GPUs: GPUS_PER_NODE=3, but a node of main has at most 2' A=1
sed -i 's/GPUS_PER_NODE=3/GPUS_PER_NODE=2/' "$dir/site.env"
(cd "$dir/model" && sha256sum config.json model.safetensors >SHA256SUMS && chmod a+r SHA256SUMS)
as nobody env RUN="$dir/home/nobody/new" "$dir/slurm/preflight.sh" --hash --on-node >"$dir/out" 2>&1; expect "exit of preflight.sh --hash --on-node" $? 0
check grep -q "^ok    hash: 2 files of $dir/model are whole" "$dir/out"
check grep -q '^ok    doctor on a compute node' "$dir/out"
printf x | dd of="$dir/model/model.safetensors" bs=1 seek=9000 conv=notrunc status=none
as nobody env RUN="$dir/home/nobody/new" "$dir/slurm/preflight.sh" --hash >"$dir/out" 2>&1; expect "exit of preflight.sh for damaged weights" $? 1
check grep -q '^FAIL  hash: ' "$dir/out"

# --- The two users' jobs, which ran beside all this
expect "nodes of the two users" "$(field "${pair[0]}" NodeList) $(field "${pair[1]}" NodeList)" 'n1 n1'
check test "$(field "${pair[1]}" StartTime)" '<' "$(field "${pair[0]}" EndTime)"
same "$dir/plain/phase1.h5" "$dir/home/nobody/shared/phase1.h5"
same "$dir/plain/phase1.h5" "$dir/home/daemon/shared/phase1.h5"
summary slurm_jobs
