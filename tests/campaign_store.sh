# Kills a writing job at random moments - one rank, all ranks, mpirun - and resumes it, again and again: every file must open, every slot
# whose commit had returned must be there with its content, none is computed twice, and a file that gets finished is byte for byte the one of a
# job that was never disturbed. PVA_KILLS: how many (10; the campaign proper: 300). PVA_SEED: another sequence of moments.
set -u
writer=$PVA_TEST_BINARY/tests/store_writer
mpirun=${PVA_MPIRUN:-mpirun}
kills_wanted=${PVA_KILLS:-10}
RANDOM=${PVA_SEED:-1}
slots=240
work=$(mktemp -d "$PWD/campaign_store.XXXXXX") || exit 99
shm=$(mktemp -d /dev/shm/campaign_store.XXXXXX 2> /dev/null || mktemp -d "$work/shm.XXXXXX")
# Segments and session directories of killed jobs land in $shm and go with it.
export TMPDIR=$shm OMPI_MCA_btl_vader_backing_directory=$shm
trap 'grep -v Killed "$work/noise"; rm -rf "$work" "$shm"' EXIT
exec 2> "$work/noise" # the shell tells of every killed job
file=$work/run/results.h5 log=$work/log/commits
mkdir "$work/run" "$work/log"

started=0 kills=0 finished=0 restored=0 unopenable=0 bad=0 different=0 refused=0 damaged=0 snapshots=0
one=0 all=0 launcher=0 in_creation=0 ranks= kind= stuck=0
sizes=(3 3 3 2 1)

"$writer" write "$work/reference.h5" --slots $slots && "$writer" check "$work/reference.h5" --slots $slots > /dev/null || exit 99

# What the file says against what the logs say.
inspect() {
    if [ ! -e "$file" ]; then
        ls "$log".* > /dev/null 2>&1 && { echo "no file, but commits were logged"; bad=$((bad + 1)); }
        in_creation=$((in_creation + 1))
        return
    fi
    timeout 60 "$writer" check "$file" --slots $slots --log "$log" > "$work/checked" 2>&1
    case $? in
    0) ;;
    1) bad=$((bad + 1)); echo "kill $kills ($kind): $(cat "$work/checked")" ;;
    *) unopenable=$((unopenable + 1)); echo "kill $kills ($kind): $(cat "$work/checked")" ;;
    esac
    local path count
    while read -r path count; do
        [ -n "$path" ] || continue
        snapshots=$((snapshots + 1))
        timeout 60 "$writer" check "$path" --slots $slots > "$work/checked" 2>&1 && continue
        [ -e "$path" ] && { bad=$((bad + 1)); echo "snapshot $count: $(cat "$work/checked")"; } # else a rank that is still alive replaced it by newer ones
    done <<< "$("$writer" list "$file")"
}

finish() { # a complete file against the undisturbed one
    finished=$((finished + 1))
    ls "$work/run" "$work/run/checkpoints" 2> /dev/null | grep -E '\.partial|\.lock' && { echo "left behind by a finished job"; bad=$((bad + 1)); }
    cmp "$file" "$work/reference.h5" || different=$((different + 1))
    "$writer" check "$file" --slots $slots --log "$log" > "$work/checked" || { bad=$((bad + 1)); cat "$work/checked"; }
    rm -rf "$work/run" "$work/log"
    mkdir "$work/run" "$work/log"
}

# Starts a job of $1 ranks in the background; $job is mpirun's process.
start() {
    local from=()
    if [ -e "$file" ] && [ $((RANDOM % 12)) -eq 0 ]; then # sometimes from a snapshot: what came after it is gone on purpose
        local newest rank
        for ((i = 0; i < 100; i++)); do kill -0 $ranks 2> /dev/null && sleep 0.05 || break; done # the last job's ranks still log
        newest=$("$writer" list "$file" | tail -1 | cut -d' ' -f1)
        [ -n "$newest" ] && from=(--from "$newest") && rm -f "$log".* && restored=$((restored + 1))
    fi
    "$mpirun" -n "$1" "$writer" write "$file" --slots $slots --nap 4000 --checkpoint-every 20 --snapshot-every 60 --log "$log" "${from[@]}" \
        > "$work/out" 2> "$work/err" &
    job=$!
    started=$((started + 1))
}

while [ $kills -lt "$kills_wanted" ]; do
    start ${sizes[RANDOM % 5]}
    limit=$((RANDOM % 1300)) # milliseconds; an undisturbed job takes about 1200
    for ((i = 0; i < limit; i += 20)); do
        kill -0 $job 2> /dev/null || break
        sleep 0.02
    done
    ranks=$(pgrep -P $job | tr '\n' ' ')
    victims=
    case $((RANDOM % 3)) in
    0) set -- $ranks; [ $# -gt 0 ] && shift $((RANDOM % $#)) && victims=$1 && kind=one ;;
    1) victims=$ranks kind=all ;;
    2) victims=$job kind=launcher ;;
    esac
    if [ -n "$victims" ] && kill -0 $job 2> /dev/null && kill -KILL $victims 2> /dev/null; then
        kills=$((kills + 1))
        eval "$kind=\$(($kind + 1))"
    fi
    # Some mpiruns never end when their ranks were killed (a deadlock when PMIx 4.2 shuts down): after 8 seconds it goes too.
    for ((i = 0; i < 400; i++)); do kill -0 $job 2> /dev/null && sleep 0.02 || break; done
    kill -KILL $job 2> /dev/null && stuck=$((stuck + 1))
    wait $job
    code=$?
    grep -q '^damaged' "$work/out" && damaged=$((damaged + 1)) && cat "$work/out"
    grep -q 'another job' "$work/err" && refused=$((refused + 1)) && cat "$work/err"
    # Ranks whose mpirun was killed may still be writing here: the file must hold now as well, and the next job waits for them.
    if [ $code -eq 0 ]; then finish; else inspect; fi
done
start 3
wait $job || { echo "the last job failed: $(cat "$work/err")"; bad=$((bad + 1)); }
finish

echo "campaign_store: $kills kills (one rank $one, all ranks $all, mpirun $launcher) in $started jobs, $in_creation before the file was there;" \
    "$finished files finished, $restored restorations, $snapshots snapshots checked, $stuck mpiruns stuck"
echo "campaign_store: unopenable $unopenable, lost/wrong/doubled $bad, damaged slots $damaged, refused starts $refused, finished files that differ $different"
[ $((unopenable + bad + damaged + refused + different)) -eq 0 ]
