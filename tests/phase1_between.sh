# A job that dies between a problem's two commits, to the diagnostics and to the results: whichever rank gets the problem next writes both.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
mini=$source/tests/data/mini
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export OMPI_MCA_btl_vader_backing_directory=$dir # what killed jobs leave goes with it
failures=0
fail() { failures=$((failures + 1)); echo "failed: $*"; }
command -v h5diff >/dev/null || { echo "SKIP h5diff is not installed"; exit 77; }
cat >"$dir/tiny.json" <<'J'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 3, "hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "sliding_window": 32, "query_pre_attn_scalar": 16, "max_position_embeddings": 512,
 "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
J
"$PVA_MPI" synth --like "$dir/tiny.json" --out "$dir/model" --tokenizer "$source/tests/data/tiny-tokenizer/tokenizer.model" --quiet || exit 1
args="--model $dir/model --problems $mini/problems.jsonl --end 29 --max-tokens 260 --threads 1 --quiet"
run() { # NAME RANKS
    # shellcheck disable=SC2086 # options are words
    timeout 100 mpirun -n "$2" "$PVA_MPI" phase1 --run "$dir/$1" $args
}
run plain 1 || fail "the reference"
# The results are written slowly, so that a kill finds most ranks between the two.
STORE_FAULT_NAP=30000 STORE_FAULT_FILE=/phase1.h5 LD_PRELOAD=$PVA_TEST_BINARY/tests/libstore_fault.so run torn 3 >/dev/null 2>&1 &
job=$!
for k in $(seq 200); do
    n=$("$PVA_MPI" status "$dir/torn" 2>/dev/null | sed -n 's/^phase1 *\([0-9]*\) of.*/\1/p')
    [ "${n:-0}" -ge 6 ] && break
    sleep 0.1
done
pkill -KILL -f "phase1 --run $dir/torn"
wait $job 2>/dev/null
"$PVA_MPI" status "$dir/torn" | grep -q '30 of 30' && fail "the job was complete before it was killed"
run torn 3 2>"$dir/err" || fail "the resumed job: $(cat "$dir/err")"
h5diff "$dir/plain/phase1.h5" "$dir/torn/phase1.h5" /checksum >"$dir/diff" 2>&1 || fail "$(head -n 3 "$dir/diff")"
echo "phase1_between: $failures failed"
[ $failures = 0 ]
