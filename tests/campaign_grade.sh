# Many programs in a row leak nothing: descriptors, processes, memory, files. 400 programs with the other tests; 10,000 in the full
# campaign (PVA_KILLS set).
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
n=400
[ -n "${PVA_KILLS:-}" ] && n=10000
echo '{"task_id": 1, "text": "", "code": "", "test_list": ["assert f(3) == 9"]}' > p.jsonl
awk -v n=$n 'BEGIN { for (i = 0; i < n; i++)
    if (i % 50 == 7) print "{\"task_id\": 1, \"solution\": \"import os\\nopen(\\\"t\\\", \\\"w\\\").write(\\\"x\\\" * 100000)\\nos._exit(1)\"}"
    else if (i % 50 == 9) print "{\"task_id\": 1, \"solution\": \"def f(x): return bytearray(1 << 33)\"}"
    else if (i >= n - 12) print "{\"task_id\": 1, \"solution\": \"import time\\ntime.sleep(0.4)\\ndef f(x): return x * x\"}" # time to look
    else print "{\"task_id\": 1, \"solution\": \"def f(x): return x * x\"}" }' > s.jsonl
before=$(ls /tmp /var/tmp /dev/shm | sort | cksum)
"$PVA_MPI" grade --problems p.jsonl --samples s.jsonl --out r.jsonl --jobs 2 > summary.txt 2> errors.txt &
pid=$!
children() { for s in /proc/[0-9]*/status; do grep -q "^PPid:[[:space:]]*$1\$" "$s" 2> /dev/null && basename "$(dirname "$s")"; done; }
measure() { # descriptors and resident kilobytes of the program and its servers
    local fds=0 kb=0 p
    for p in $pid $(children $pid); do
        fds=$((fds + $(ls "/proc/$p/fd" 2> /dev/null | wc -l)))
        kb=$((kb + $(awk '/VmRSS/ { print $2 }' "/proc/$p/status" 2> /dev/null || echo 0)))
    done
    echo "$fds $kb"
}
at() { while kill -0 $pid 2> /dev/null && [ "$(cat r.jsonl 2> /dev/null | wc -l)" -lt "$1" ]; do sleep 0.05; done; }
at $((n / 10))
read -r fds0 kb0 <<< "$(measure)"
at $((n * 8 / 10))
read -r fds1 kb1 <<< "$(measure)"
wait $pid || { cat errors.txt; exit 1; }
cat summary.txt
echo "descriptors $fds0 -> $fds1, resident $kb0 -> $kb1 kB over $((n * 7 / 10)) programs"
failures=0
fail() { echo "failed: $*"; failures=$((failures + 1)); }
[ "$(grep -c '"verdict":"pass"' r.jsonl)" -eq $((n - 2 * n / 50)) ] || fail "$(grep -c '"verdict":"pass"' r.jsonl) passes"
# What is in flight differs by a few descriptors per job; lines of results that wait differ by little memory.
[ "$fds1" -gt 0 ] || fail "the run ended before it was measured"
[ "$fds1" -le $((fds0 + 24)) ] || fail "descriptors grew from $fds0 to $fds1"
[ "$kb1" -le $((kb0 + 6000)) ] || fail "memory grew from $kb0 to $kb1 kB"
[ "$(ls /tmp /var/tmp /dev/shm | sort | cksum)" = "$before" ] || echo "SKIP files left behind: others use the temporary directories as well"
exit $((failures > 0))
