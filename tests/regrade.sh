# regrade: the same verdicts when nothing changed, others when the rule changed, the original untouched, any number of ranks, after kills; refusals.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
writer=$PVA_TEST_BINARY/tests/phase1_writer
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export OMPI_MCA_btl_vader_backing_directory=$dir # what killed jobs leave goes with it
. "$source/tests/checks.inc"
command -v h5diff >/dev/null || { echo "SKIP h5diff is not installed"; exit 77; }
all="state checksum n_prompt n_new tokens finish n_text text n_program program verdict failed_test exception prompt_sha256 resid task_id part difficulty layer"
same() { # FILE FILE dataset...
    local a=$1 b=$2 d; shift 2
    for d; do
        checks=$((checks + 1))
        h5diff "$a" "$b" "/$d" >"$dir/diff" 2>&1 || fail "$a and $b differ in $d: $(head -3 "$dir/diff")"
    done
}

# A run of 12 problems; then its completions are replaced by programs whose verdicts are known.
cat >"$dir/tiny.json" <<'J'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
 "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 512, "sliding_window": 32, "query_pre_attn_scalar": 16, "max_position_embeddings": 512,
 "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
J
m=$dir/model p=$dir/problems.jsonl run=$dir/run
head -12 "$source/tests/data/mini/problems.jsonl" >"$p"
"$PVA_MPI" synth --like "$dir/tiny.json" --out "$m" --tokenizer "$source/tests/data/tiny-tokenizer/tokenizer.model" --quiet || exit 1
"$PVA_MPI" phase1 --run "$run" --model "$m" --problems "$p" --max-tokens 400 --threads 1 --quiet || exit 1
python3 - "$p" "$dir" <<'P' || exit 1
import json, re, sys
for i, line in enumerate(open(sys.argv[1])):
    problem = json.loads(line)
    code = problem["code"]
    text = [code + "\n",                              # the reference
            "x = 1 +\n",                              # nothing complete
            "import math\n\n" + code + "\nprint(1)\n", # an import that first-function drops
            "value = 3\n\n" + code + "\n\nThat is it.\n",
            code + "\n\n\ndef %s(*a):\n    return ['wrong']\n" % re.search(r"assert \(?(\w+)", problem["test_list"][0])[1],
            "def other():\n    return 1\n"][i % 6]
    open(f"{sys.argv[2]}/text{i}", "w").write(text)
P
for i in $(seq 0 11); do check "$writer" "$run" "$i" text "$dir/text$i"; done
cp -r "$run" "$dir/kept"

refuses 2 'name one run' "$PVA_MPI" regrade --out "$dir/x"
refuses 2 '[-]-out' "$PVA_MPI" regrade "$run"
refuses 3 'no such run' "$PVA_MPI" regrade "$dir/nothing" --out "$dir/x"
mkdir "$dir/hollow"; refuses 3 'there is no phase 1 here; run pva-mpi phase1 first' "$PVA_MPI" regrade "$dir/hollow" --out "$dir/x"
refuses 5 'exists already' "$PVA_MPI" regrade "$run" --out "$run"
refuses 5 'exists already' "$PVA_MPI" regrade "$run" --out "$m"
refuses 4 'Not a directory' "$PVA_MPI" regrade "$run" --out "$p"
cp -r "$run" "$dir/part"; check "$writer" "$dir/part" 4 empty
refuses 3 'not finished: 1 of 12' "$PVA_MPI" regrade "$dir/part" --out "$dir/x"
head -11 "$p" >"$dir/fewer.jsonl"
refuses 5 'not the problem file' "$PVA_MPI" regrade "$run" --out "$dir/x" --problems "$dir/fewer.jsonl"
refuses 3 'gone.jsonl' "$PVA_MPI" regrade "$run" --out "$dir/x" --problems "$dir/gone.jsonl"
refuses 5 'not the prompt template' "$PVA_MPI" regrade "$run" --out "$dir/x" --prompt-template docstring
refuses 4 'python|interpreter' "$PVA_MPI" regrade "$run" --out "$dir/x" --python "$dir/none"
refuses 2 'extraction' "$PVA_MPI" regrade "$run" --out "$dir/x" --extraction other
check test ! -e "$dir/x"

# what the known programs must give; the model's own completions had been graded before
check "$PVA_MPI" regrade "$run" --out "$dir/one" >"$dir/table"
h5dump -y -w 0 -d /verdict "$dir/one/phase1.h5" | sed -n '/DATA {/,/}/p' | tr -d ' \n' >"$dir/verdicts"
check grep -q '^DATA{0,7,0,0,1,2,0,7,0,0,1,2}' "$dir/verdicts"
check grep -q '^12 records: ' "$dir/table"
check grep -q '6 pass now' "$dir/table"
same "$run/phase1.h5" "$dir/one/phase1.h5" n_prompt n_new tokens finish n_text text prompt_sha256 resid task_id part difficulty layer index state
check test "$(h5dump -a /extraction "$dir/one/phase1.h5" | grep -c '"program"')" = 1
check test "$(h5dump -a /regraded_from "$dir/one/phase1.h5" | grep -c "\"$(realpath "$run")\"")" = 1
check grep -q '"regrade"' "$dir/one/manifest.json"

# ranks and jobs change nothing; nor does doing it twice, or again on what it wrote
check timeout 100 mpirun -n 3 "$PVA_MPI" regrade "$run" --out "$dir/three" --grade-jobs 2 >/dev/null
same "$dir/one/phase1.h5" "$dir/three/phase1.h5" $all
cp "$dir/one/phase1.h5" "$dir/one.h5"
check "$PVA_MPI" regrade "$run" --out "$dir/one" >"$dir/again"
check cmp "$dir/table" "$dir/again"
check cmp "$dir/one.h5" "$dir/one/phase1.h5"
check "$PVA_MPI" regrade --run "$dir/one" --out "$dir/chain" >"$dir/again"
check grep -q '^12 records: 0 verdicts changed (0 pass now, 0 pass no longer), 0 programs changed' "$dir/again"
same "$dir/one/phase1.h5" "$dir/chain/phase1.h5" $all

# another rule: an import before the function is lost, and the new file says so
check "$PVA_MPI" regrade "$dir/one" --out "$dir/first" --extraction first-function --preload-imports >"$dir/table"
check test "$(h5dump -a /extraction "$dir/first/phase1.h5" | grep -c '"first-function"')" = 1
check test "$(h5dump -a /preload_imports "$dir/first/phase1.h5" | grep -c '(0): 1')" = 1
check grep -qE '^old . new ' "$dir/table"
check grep -qE '^no-code ' "$dir/table"
check grep -qE ', [1-9][0-9]* programs changed' "$dir/table"
refuses 5 'extraction is "first-function" in the file' "$PVA_MPI" regrade "$dir/one" --out "$dir/first"
check grep -q 'extraction: "first-function"' "$dir/first/config-phase1.yaml"
check "$PVA_MPI" export "$dir/first" >/dev/null
check "$PVA_MPI" status "$dir/first" >/dev/null

# killed and stopped at random moments, then gone on with
for try in 1 2 3; do
    timeout 100 mpirun -n 2 "$PVA_MPI" regrade "$run" --out "$dir/killed" >/dev/null 2>"$dir/err" &
    job=$!
    sleep "0.$((RANDOM % 9 + 1))"
    case $try in 1 | 2) pkill -KILL -P $(pgrep -P $job | head -1) 2>/dev/null ;; 3) kill -USR1 $(pgrep -P $job | head -1) 2>/dev/null ;; esac
    wait $job 2>/dev/null
done
check timeout 100 "$PVA_MPI" regrade "$run" --out "$dir/killed" >/dev/null
same "$dir/one/phase1.h5" "$dir/killed/phase1.h5" $all

check diff -r "$run" "$dir/kept" # only read
echo "regrade: $checks checks, $failures failed"
exit $((failures > 0))
