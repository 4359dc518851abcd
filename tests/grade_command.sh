# pva-mpi grade from the command line: verdicts in order, resuming, refusals, and the 974 references.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
fail() { echo "failed: $*"; failures=$((failures + 1)); }
# want STATUS TEXT COMMAND...: the status, and TEXT in what it says.
want() {
    local status=$1 text=$2 got out
    shift 2
    out=$(timeout 120 "$@" 2>&1)
    got=$?
    [ $got -eq "$status" ] || fail "$* gave $got, expected $status: $out"
    case $out in *"$text"*) ;; *) fail "$*: \"$text\" is not in: $out" ;; esac
}
grade=("$PVA_MPI" grade --problems p.jsonl --jobs 2)
verdicts() { grep -o '"verdict":"[^"]*"' "$1" | cut -d'"' -f4 | tr '\n' ' '; }

cat > p.jsonl <<'END'
{"task_id": 1, "text": "square", "code": "def f(x):\n    return x * x\n", "test_list": ["assert f(3) == 9", "assert f(0) == 0"], "challenge_test_list": ["assert f(True) is True"]}
{"task_id": "HumanEval/1", "prompt": "def g(x):\n    \"\"\"Add one.\"\"\"\n", "entry_point": "g", "canonical_solution": "    return x + 1\n", "test": "def check(candidate):\n    assert candidate(1) == 2\n"}
END
cat > s.jsonl <<'END'
{"task_id": "Mbpp/1", "completion": "def f(x):\n    return x * x\n\nprint(f(2))\n"}
{"task_id": 1, "completion": "def f(x):\n    return x + x\n"}
{"task_id": "1", "completion": "Sure! Here it is.\n"}
{"task_id": "1", "solution": "f = lambda x: x * x\nprint('seen')\n"}
{"task_id": "1", "solution": "def f(x:\n"}
{"task_id": "1", "solution": "import os\nos.fork()\n"}
{"task_id": "1", "solution": "def f(x): return y\n"}
{"task_id": "HumanEval/1", "completion": "    return x + 1\n\nprint(g(1))\n"}
{"task_id": "HumanEval/1", "solution": "def g(x): return x\n"}
{"task_id": "1", "solution": "while True: pass\n"}
END
expected="pass assertion no-code pass syntax sandbox exception pass assertion timeout "

want 0 "10 samples, 3 pass" "${grade[@]}" --samples s.jsonl --out r.jsonl --cpu-seconds 0.5
[ "$(verdicts r.jsonl)" = "$expected" ] || fail "verdicts: $(verdicts r.jsonl)"
grep -q '"task_id":"Mbpp/1"' r.jsonl || fail "the task id is not kept as given"
sed -n 4p r.jsonl | grep -q '"stdout":"seen\\n"' || fail "stdout is not kept"
sed -n 2p r.jsonl | grep -q '"failed_test":0' || fail "the failing test is not named"

# Again: nothing to do. Torn: the rest is graded, the same bytes of verdicts come back.
want 0 "all graded before" "${grade[@]}" --samples s.jsonl --out r.jsonl
head -c 900 r.jsonl > torn.jsonl
want 0 "10 samples, 3 pass" "${grade[@]}" --samples s.jsonl --out torn.jsonl --cpu-seconds 0.5
[ "$(verdicts torn.jsonl)" = "$expected" ] || fail "verdicts after resuming: $(verdicts torn.jsonl)"
want 0 "10 samples" "${grade[@]}" --samples s.jsonl --out torn.jsonl --cpu-seconds 0.5 --overwrite
[ "$(wc -l < torn.jsonl)" -eq 10 ] || fail "--overwrite"
head -3 s.jsonl | tac > other.jsonl
want 5 "r.jsonl:1: not the verdict on this sample" "${grade[@]}" --samples other.jsonl --out r.jsonl

# Refusals; nothing is left under the output's name.
want 2 "problems" "$PVA_MPI" grade --samples s.jsonl --out n.jsonl
want 3 "nowhere.jsonl" "${grade[@]}" --samples nowhere.jsonl --out n.jsonl
printf '{"task_id": 1, "solution": ""}\n\n{"task_id": 1\n' > bad.jsonl
want 3 "bad.jsonl:3: not a JSON object" "${grade[@]}" --samples bad.jsonl --out n.jsonl
printf '{"task_id": 99, "solution": ""}\n' > bad.jsonl
want 3 'bad.jsonl:1: task_id "99" is not among the problems' "${grade[@]}" --samples bad.jsonl --out n.jsonl
printf '{"task_id": 1}\n' > bad.jsonl
want 3 'bad.jsonl:1: neither "solution" nor "completion"' "${grade[@]}" --samples bad.jsonl --out n.jsonl
: > bad.jsonl
want 3 "no sample in the file" "${grade[@]}" --samples bad.jsonl --out n.jsonl
want 4 "/nowhere/python" "${grade[@]}" --samples s.jsonl --out n2.jsonl --python /nowhere/python
want 4 "cannot write" "${grade[@]}" --samples s.jsonl --out /nowhere/r.jsonl
want 2 "weak" "${grade[@]}" --samples s.jsonl --out n.jsonl --require-sandbox weak
[ ! -e n.jsonl ] || fail "bad input left n.jsonl"
for i in 1 2 3; do head -1 s.jsonl; done > same.jsonl
want 0 "3 samples, 0 pass (0.0 %), 3 assertion" "${grade[@]}" --samples same.jsonl --out c.jsonl --challenge-tests --calibrate
[ "$(verdicts c.jsonl)" = "assertion assertion assertion " ] || fail "challenge tests: $(verdicts c.jsonl)"

# Stopped half-way: 75, and the same command goes on.
for i in $(seq 400); do echo '{"task_id": "1", "solution": "import time\ntime.sleep(0.02)\ndef f(x): return x * x\n"}'; done > long.jsonl
"$PVA_MPI" grade --problems p.jsonl --samples long.jsonl --out l.jsonl --jobs 2 > /dev/null 2> stop.txt &
pid=$!
for i in $(seq 200); do [ -s l.jsonl ] && break; sleep 0.05; done
want 5 "another process is writing it" "${grade[@]}" --samples long.jsonl --out l.jsonl
kill -TERM $pid
wait $pid
status=$?
[ $status -eq 75 ] || fail "stopped with $status: $(cat stop.txt)"
grep -q "run the same command to go on" stop.txt || fail "what stopping says: $(cat stop.txt)"
done_lines=$(wc -l < l.jsonl)
[ "$done_lines" -gt 0 ] && [ "$done_lines" -lt 400 ] || fail "$done_lines lines when stopped"
want 0 "400 samples, 400 pass" "${grade[@]}" --samples long.jsonl --out l.jsonl
[ "$(wc -l < l.jsonl)" -eq 400 ] || fail "$(wc -l < l.jsonl) lines at the end"

# Every reference of MBPP passes.
data=${PVA_TEST_SHARED:-/nowhere}/data/mbpp.jsonl
if [ -r "$data" ] && command -v python3 > /dev/null; then
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    p = json.loads(line)
    print(json.dumps({"task_id": p["task_id"], "solution": p["code"]}))' "$data" > references.jsonl
    want 0 "974 samples, 974 pass (100.0 %)" "$PVA_MPI" grade --problems "$data" --samples references.jsonl --out references.out --jobs 2
    grep -v '"verdict":"pass"' references.out | head -5
else
    echo "SKIP the 974 references: no $data, or no python3"
fi
[ $failures -eq 0 ] && echo "grade_command: all as expected"
exit $((failures > 0))
