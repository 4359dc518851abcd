#!/usr/bin/env bash
# Every way a job ends early, under a real SLURM of three nodes: each must come back, or stay down, as it should, and the result must be the bytes of a run
# that nothing disturbed. The program waits at each write (SLOW), so that there is something to interrupt.
# shellcheck source=slurm_lib.bash
. "$(dirname "$0")/slurm_lib.bash"
home=$dir/home/nobody
restarts() { field "$1" Restarts; }
log_of() { cat "$(field "$1" StdOut)"; }

reference whole --end 299
reference part --end 119

# --- The time limit, met in mid-phase: the job goes back into the queue by itself and resumes. It takes a minute, the rest goes on beside it. -----------
SLOW=16000 RANKS=2 TIME_LIMIT=1 STOP_BEFORE_END=55 EXTRA_SBATCH='--nodelist=n[1-2]' RUN=$home/limit submit nobody phase1.sh --end 299 --max-tokens 260
limit=$job

# --- Preemption: a job of a higher partition takes the node --------------------------------------------------------------------------------------------
SLOW=20000 RANKS_PER_NODE=3 EXTRA_SBATCH='--partition=low --nodelist=n1' RUN=$home/preempted submit nobody phase1.sh --end 119 --max-tokens 260
preempted=$job
wait_records "$home/preempted" 10 60
urgent=$(as daemon sbatch --parsable --partition=main --nodelist=n1 --ntasks=3 --mem=100M --output=/dev/null --wrap 'sleep 2')

# --- scancel ---------------------------------------------------------------------------------------------------------------------------------------------
SLOW=20000 RANKS_PER_NODE=3 EXTRA_SBATCH='--nodelist=n2' RUN=$home/cancelled submit nobody phase1.sh --end 119 --max-tokens 260
cancelled=$job
wait_records "$home/cancelled" 10 60
as nobody scancel "$cancelled"
wait_for "$cancelled" "$finished" 30
expect "state after scancel" "$(state "$cancelled")" CANCELLED
# The ranks stop in order, and the script does not requeue what a person has cancelled.
for k in $(seq 50); do log_of "$cancelled" | grep -q ' ended with ' && break; sleep 0.2; done
check grep -q 'asked to stop by SIG' "$home/cancelled/logs/phase1-rank0.log"
expect "restarts after scancel" "$(restarts "$cancelled")" 0
expect "a cancelled job in the queue" "$(squeue -h -j "$cancelled" -t PENDING,RUNNING -o %A 2>/dev/null)" ''
n=$("$PVA_MPI" status "$home/cancelled" | sed -n 's/^phase1 *\([0-9]*\) of.*/\1/p')
check test "$n" -ge 10 -a "$n" -lt 120
RANKS=1 RUN=$home/cancelled submit nobody phase1.sh --end 119 --max-tokens 260
done_in_order "$job" 60
check grep -q 'resuming: [0-9]* of 120' "$(field "$job" StdOut)"
same "$dir/part/phase1.h5" "$home/cancelled/phase1.h5"

# --- A person stops the ranks alone: the job ends with 75 and stays down -----------------------------------------------------------------------------------
SLOW=20000 RANKS=2 EXTRA_SBATCH='--nodelist=n[2-3]' RUN=$home/asked submit nobody phase1.sh --end 119 --max-tokens 260
asked=$job
# --- The time limit again, but it has been requeued often enough
SLOW=20000 RANKS=2 MOST_REQUEUES=0 EXTRA_SBATCH='--nodelist=n[2-3]' RUN=$home/often submit nobody phase1.sh --end 119 --max-tokens 260
often=$job
wait_records "$home/asked" 6 60
as nobody scancel --signal=USR1 "$asked"
wait_records "$home/often" 6 60
as nobody scancel --batch --signal=USR1 "$often" # what SLURM itself does before the limit
for j in $asked $often; do
    wait_for "$j" "$finished" 40
    expect "state of a job that was asked to stop" "$(state "$j") $(field "$j" ExitCode) $(restarts "$j")" 'FAILED 75:0 0'
done
check grep -q 'stopped; to resume, submit the same again' "$(field "$asked" StdOut)"
check grep -q 'it stays down' "$(field "$often" StdOut)"

# --- A rank dies: the job fails at once, the next one resumes ----------------------------------------------------------------------------------------------
SLOW=20000 RANKS=2 EXTRA_SBATCH='--nodelist=n[2-3]' RUN=$home/crashed submit nobody phase1.sh --end 119 --max-tokens 260
crashed=$job
wait_records "$home/crashed" 6 60
victim=$(pgrep -u nobody -f "^$dir/bin/pva-mpi phase1 .*--run $home/crashed" | head -n 1)
check kill -KILL "$victim"
wait_for "$crashed" "$finished" 40
expect "state after a rank was killed" "$(state "$crashed")" FAILED
# with the weights broadcast to the nodes first
mkdir -m 1777 "$dir/scratch"
STAGE_WEIGHTS=yes SCRATCH=$dir/scratch RANKS=1 RUN=$home/crashed submit nobody phase1.sh --end 119 --max-tokens 260
done_in_order "$job" 60
same "$dir/part/phase1.h5" "$home/crashed/phase1.h5"
check grep -q "weights: broadcast to $dir/scratch/pva-weights-$job" "$(field "$job" StdOut)"
check grep -q -- "--model $dir/scratch/pva-weights-$job" "$(field "$job" StdOut)"
expect "weights left in the scratch directory" "$(ls "$dir/scratch")" ''

# --- A node dies (the jobs on the others go on) -----------------------------------------------------------------------------------------------------------------------------------------------
SLOW=20000 RANKS=2 EXTRA_SBATCH=--nodelist=n3 RUN=$home/node submit nobody phase1.sh --end 119 --max-tokens 260
node=$job
wait_records "$home/node" 6 60
# Its daemon, its step managers and their ranks, all at once.
kill -KILL "$(cat "$dir/cluster/pids/slurmd.n3")"
for p in $(pgrep -x slurmstepd); do
    if grep -qz '^SLURMD_NODENAME=n3$' "/proc/$p/environ" 2>/dev/null || [ "$(tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -c ' n3\b')" = 1 ]; then kill -KILL "$p"; fi
done
for p in $(pgrep -u nobody -f "^$dir/bin/pva-mpi phase1 .*--run $home/node"); do
    grep -qz '^SLURMD_NODENAME=n3$' "/proc/$p/environ" 2>/dev/null && kill -KILL "$p"
done
scontrol update NodeName=n3 State=DOWN Reason=test
wait_for "$node" PENDING 30 # it wants n3, so it waits until
# the node comes back
env SLURM_CONF="$SLURM_CONF" slurmd -N n3 >/dev/null 2>&1
scontrol update NodeName=n3 State=RESUME 2>/dev/null
done_in_order "$node" 120
check test "$(restarts "$node")" -ge 1
same "$dir/part/phase1.h5" "$home/node/phase1.h5"

# --- Preemption's end
done_in_order "$urgent" 60
done_in_order "$preempted" 120
check test "$(restarts "$preempted")" -ge 1
same "$dir/part/phase1.h5" "$home/preempted/phase1.h5"

# --- The time limit's end: at least one restart, recorded in the manifest; one log file holds all starts ------------------------------------------------------
done_in_order "$limit" 240
check test "$(restarts "$limit")" -ge 1
same "$dir/whole/phase1.h5" "$home/limit/phase1.h5"
check grep -q 'the time limit is near: requeued' "$(field "$limit" StdOut)"
check grep -q "job $limit, start 2:" "$(field "$limit" StdOut)"
check python3 - "$home/limit/manifest.json" "$(restarts "$limit")" <<'END'
import json, sys
starts = json.load(open(sys.argv[1]))["starts"]
assert [int(s["slurm"].get("SLURM_RESTART_COUNT", 0)) for s in starts] == list(range(int(sys.argv[2]) + 1)), starts
END

summary slurm_stops
