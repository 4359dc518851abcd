# Ends phase 1 at random moments - SIGKILL to one rank, to all, to mpirun; SIGTERM, SIGINT, SIGUSR1 to the ranks - and resumes it with other numbers
# of ranks, again and again. Every file must open, every record whose commit was logged must be there with the undisturbed run's content, none is
# computed twice, a stop takes at most 10 seconds and says 75, and a finished file equals the undisturbed one. PVA_KILLS: how many kills (3; the
# campaign proper: 300). PVA_SEED: another sequence of moments.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
mpirun=${PVA_MPIRUN:-mpirun}
kills_wanted=${PVA_KILLS:-3}
RANDOM=${PVA_SEED:-1}
unset PVA_KILLS PVA_SEED # not pva-mpi's
work=$(mktemp -d "$PWD/campaign_phase1.XXXXXX") || exit 99
shm=$(mktemp -d /dev/shm/campaign_phase1.XXXXXX 2> /dev/null || mktemp -d "$work/shm.XXXXXX")
export TMPDIR=$shm OMPI_MCA_btl_vader_backing_directory=$shm # what killed jobs leave goes with it
trap 'grep -v -e Killed -e "^$" "$work/noise"; rm -rf "$work" "$shm"' EXIT
exec 2> "$work/noise" # the shell tells of every killed job
m=$source/tests/data/mini/model p=$source/tests/data/mini/problems.jsonl
if [ ! -e "$m/model.safetensors" ]; then
    echo "SKIP the mini model is not there"
    exit 77
fi
args="--model $m --problems $p --end 119 --max-tokens 400 --threads 1 --batch-size 4 --checkpoint-every 20 --autosave-every 40 --positions last-generated --quiet"
run=$work/run
datasets="state checksum n_prompt n_new tokens finish n_text text n_program program verdict failed_test exception prompt_sha256 resid task_id part difficulty"

started=0 kills=0 stops=0 finished=0 unopenable=0 lost=0 different=0 refused=0 damaged=0 slow=0 wrong_code=0 doubled=0 stuck=0 restored=0 slowest=0 ranks=
one=0 all=0 launcher=0 early=0
sizes=(3 3 2 1) kinds=(one TERM all USR1 launcher INT)

"$PVA_MPI" phase1 --run "$work/reference" $args > /dev/null && "$PVA_MPI" export "$work/reference" --format jsonl > /dev/null || { cat "$work/noise"; exit 99; }
reference=$work/reference/exports/results.jsonl
began=$(date +%s%N)
"$mpirun" -n 3 "$PVA_MPI" phase1 --run "$work/timed" $args > /dev/null
duration=$((($(date +%s%N) - began) / 1000000)) # milliseconds an undisturbed job takes now
rm -rf "$work/timed"

bad() { echo "$1 $2 ($kind): $3"; }
logged() { cat "$run"/logs/phase1-rank*.log 2> /dev/null | sed -nE 's/^.* debug rank [0-9]+: ([^ ]+): .*tokens$/\1/p' | sort; }

# What the file says against the logs and the undisturbed run.
inspect() {
    local copies list lines
    logged > "$work/logged" # before the file is read: ranks whose mpirun was killed may still be at work
    copies=$(uniq -d "$work/logged")
    [ -z "$copies" ] || { doubled=$((doubled + 1)); bad job $started "computed twice: $copies"; }
    if [ ! -e "$run/phase1.h5" ]; then
        [ ! -s "$work/logged" ] || { lost=$((lost + 1)); bad job $started "no file, but commits were logged"; }
        early=$((early + 1))
        return
    fi
    if ! timeout 60 "$PVA_MPI" export "$run" --format jsonl > /dev/null 2> "$work/checked"; then
        unopenable=$((unopenable + 1))
        bad job $started "$(cat "$work/checked")"
        return
    fi
    lines=$(grep -vxFf "$reference" "$run/exports/results.jsonl")
    [ -z "$lines" ] || { different=$((different + 1)); bad job $started "other content: $(cut -c 1-60 <<< "$lines" | head -3)"; }
    list=$(sed -E 's/^\{"task_id":"([^"]*)".*/\1/' "$run/exports/results.jsonl" | sort)
    lines=$(comm -23 "$work/logged" <(echo "$list"))
    [ -z "$lines" ] || { lost=$((lost + 1)); bad job $started "committed and not there: $lines"; }
}

finish() { # a complete run against the undisturbed one
    local d
    finished=$((finished + 1))
    ls -A "$run" "$run/checkpoints" 2> /dev/null | grep -E '\.partial|h5\.lock' && { lost=$((lost + 1)); echo "left behind by a finished job"; }
    inspect
    cmp -s "$run/exports/results.jsonl" "$reference" || { different=$((different + 1)); bad run $finished "results differ"; }
    if command -v h5diff > /dev/null; then
        for d in $datasets; do
            h5diff "$run/phase1.h5" "$work/reference/phase1.h5" "/$d" > /dev/null || { different=$((different + 1)); bad run $finished "/$d differs"; }
        done
    fi
    rm -rf "$run"
}

# Starts a job of $1 ranks in the background; $job is mpirun's process.
start() {
    local from=() newest rank
    newest=$(ls "$run"/checkpoints/phase1-*.h5 2> /dev/null | tail -1)
    if [ -n "$newest" ] && [ $((RANDOM % 8)) -eq 0 ]; then # sometimes from a snapshot: what came after it is gone on purpose
        for ((i = 0; i < 200; i++)); do alive_any $ranks && sleep 0.05 || break; done # the last job's ranks still log
        newest=$(ls "$run"/checkpoints/phase1-*.h5 | tail -1)
        from=(--resume "$newest") restored=$((restored + 1))
        rm -f "$run"/logs/*
    fi
    "$mpirun" -n "$1" "$PVA_MPI" phase1 --run "$run" $args "${from[@]}" > "$work/out" 2> "$work/err" &
    job=$!
    started=$((started + 1))
}
alive_any() { kill -0 "$@" 2> /dev/null; }
alive() { kill -0 "$1" 2> /dev/null; }

# Ranks that have come as far as catching signals: before that they are not ours yet.
await_handlers() {
    local i rank n caught
    for ((i = 0; i < 200; i++)); do
        alive $job || return
        ranks=$(pgrep -P $job | tr '\n' ' ') n=0
        for rank in $ranks; do
            caught=$(sed -n 's/^SigCgt:\s*//p' /proc/$rank/status 2> /dev/null)
            [ -n "$caught" ] && [ $((0x$caught & 0x4000)) -ne 0 ] && [ "$(cat /proc/$rank/comm)" = pva-mpi ] && n=$((n + 1))
        done
        [ $n -ge "$1" ] && return
        sleep 0.02
    done
}

turn=0
while [ $kills -lt "$kills_wanted" ] || [ $stops -lt $((kills_wanted / 2)) -a $started -lt $((4 * kills_wanted)) ]; do
    kind=${kinds[turn % 6]} size=${sizes[RANDOM % 4]}
    turn=$((turn + 1))
    start $size
    limit=$((RANDOM % duration))
    for ((i = 0; i < limit; i += 20)); do
        alive $job || break
        sleep 0.02
    done
    case $kind in TERM | INT | USR1) await_handlers $size ;; esac
    ranks=$(pgrep -P $job | tr '\n' ' ') victims= signal=KILL stopping=0
    case $kind in
    one) set -- $ranks; [ $# -gt 0 ] && shift $((RANDOM % $#)) && victims=$1 ;;
    all) victims=$ranks ;;
    launcher) victims=$job ;;
    *) victims=$ranks signal=$kind; [ $((RANDOM % 3)) -eq 0 ] && victims=${ranks%% *} ;; # all, or one that tells the others
    esac
    sent=$(date +%s%N)
    if [ -n "$victims" ] && alive $job && kill -$signal $victims 2> /dev/null; then
        if [ $signal = KILL ]; then kills=$((kills + 1)); eval "$kind=\$(($kind + 1))"; else stops=$((stops + 1)) stopping=1; fi
    fi
    if [ $stopping = 1 ]; then
        for ((i = 0; i < 1500; i++)); do alive $job && sleep 0.02 || break; done
        took=$((($(date +%s%N) - sent) / 1000000))
        [ $took -gt $slowest ] && slowest=$took
        [ $took -gt 10000 ] && { slow=$((slow + 1)); bad job $started "needed $took ms to stop"; }
    else
        # Some mpiruns never end when their ranks were killed (a deadlock when PMIx 4.2 shuts down): after 8 seconds it goes too.
        [ -n "$victims" ] && for ((i = 0; i < 400; i++)); do alive $job && sleep 0.02 || break; done
    fi
    alive $job && [ -n "$victims" ] && { kill -KILL $job 2> /dev/null; stuck=$((stuck + 1)); }
    wait $job
    code=$?
    [ $stopping = 1 ] && case $code in 0 | 75) ;; *) wrong_code=$((wrong_code + 1)); bad job $started "exit $code: $(grep -v '^-*$' "$work/err" | head -3)" ;; esac
    # Whatever happened to it before, a job never ends by itself with an error.
    [ $stopping = 0 ] && case $code in 2 | 3 | 5 | 70 | 134 | 139) wrong_code=$((wrong_code + 1)); bad job $started "exit $code: $(grep '^pva-mpi' "$work/err" | head -3)" ;; esac
    grep -q 'damaged' "$work/err" && { damaged=$((damaged + 1)); cat "$work/err"; }
    grep -q 'another job' "$work/err" && { refused=$((refused + 1)); cat "$work/err"; }
    # Ranks whose mpirun was killed may still be writing: the file must hold now as well, and the next job waits for them.
    if [ $code -eq 0 ]; then finish; else inspect; fi
done
kind=last
start 3
wait $job || { wrong_code=$((wrong_code + 1)); echo "the last job failed: $(cat "$work/err")"; }
finish

echo "campaign_phase1: $kills kills (one rank $one, all ranks $all, mpirun $launcher) and $stops stops (the slowest $slowest ms) in $started jobs of" \
    "$duration ms, $early before the file was there; $finished runs finished, $restored restored from a snapshot, $stuck mpiruns stuck"
echo "campaign_phase1: unopenable $unopenable, lost $lost, computed twice $doubled, content that differs $different, damaged $damaged, refused starts $refused," \
    "stops over 10 s $slow, wrong exit codes $wrong_code"
[ $((unopenable + lost + doubled + different + damaged + refused + slow + wrong_code)) -eq 0 ]
