# replay: equal when nothing was changed, whatever batch and ranks the run had; names what differs; refusals.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
writer=$PVA_TEST_BINARY/tests/phase1_writer
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export OMPI_MCA_btl_vader_backing_directory=$dir # what killed jobs leave goes with it
export TMPDIR=$dir
. "$source/tests/checks.inc"
cat >"$dir/tiny.json" <<'J'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
 "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 512, "sliding_window": 32, "query_pre_attn_scalar": 16, "max_position_embeddings": 512,
 "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
J
m=$dir/model p=$source/tests/data/mini/problems.jsonl run=$dir/run
"$PVA_MPI" synth --like "$dir/tiny.json" --out "$m" --tokenizer "$source/tests/data/tiny-tokenizer/tokenizer.model" --quiet || exit 1
cp -r "$m" "$dir/other"; printf '\1' | dd of="$dir/other/model.safetensors" bs=1 seek=40000 conv=notrunc 2>/dev/null
phase1() { timeout 100 mpirun -n 2 "$PVA_MPI" phase1 --model "$m" --problems "$p" --start 3 --end 10 --threads 1 --quiet "$@"; }
check phase1 --run "$run" --temperature 0.7 --max-tokens 260 --positions generated --resid-dtype bf16
check phase1 --run "$dir/greedy" --batch-size 3   # --max-tokens as the model allows
check timeout 100 "$PVA_MPI" phase1 --model "$m" --problems "$p" --start 3 --end 4 --threads 1 --quiet --run "$dir/every" --positions all
check phase1 --run "$dir/short" --max-tokens 100  # some prompts do not fit

ids=$(sed -n '4,11p' "$p" | python3 -c 'import json, sys
for line in sys.stdin: print(json.loads(line)["task_id"])')
set -- $ids
for id in $2 $5 $8; do
    check "$PVA_MPI" replay "$run" --task "$id" >"$dir/out"
    check grep -q '^equal in every byte' "$dir/out"
done
check "$PVA_MPI" replay --run "$dir/greedy" --task "Mbpp/$2" --threads 2 >"$dir/out"
for w in state n_prompt tokens resid completion program verdict; do check grep -q "^$w" "$dir/out"; done
for id in $1 $4 $7; do check "$PVA_MPI" replay "$dir/short" --task "$id" >"$dir/out.$id"; done
check grep -q 'state  *prompt-too-long' "$dir"/out.*
check "$PVA_MPI" replay "$dir/every" --task "$1" >"$dir/out"
check grep -q '^n_positions' "$dir/out"
mv "$m" "$dir/moved"
refuses 3 'model' "$PVA_MPI" replay "$run" --task "$1"
check "$PVA_MPI" replay "$run" --task "$1" --model "$dir/moved" >/dev/null
mv "$dir/moved" "$m"

# one flipped bit of each kind is found and named
set -- $ids; third=$3
for f in "tokens 420" "resid 777" "verdict 0" "n_new 0" "finish 0" "program 5000" "exception 0" "prompt_sha256 9" "failed_test 2"; do
    set -- $f
    rm -rf "$dir/changed"; cp -r "$run" "$dir/changed"
    check "$writer" "$dir/changed" 2 "$1" "$2"
    refuses 1 "differs from what is stored in: $1\$" "$PVA_MPI" replay "$dir/changed" --task "$third"
    check grep -qE "^$1 .*(DIFFERS|!)|^$1: DIFFERS" "$dir/out"
done
echo 'def f(): pass' >"$dir/text"
check "$writer" "$dir/changed" 3 text "$dir/text"
set -- $ids
refuses 1 'differs from what is stored in: n_text, text$' "$PVA_MPI" replay "$dir/changed" --task "$4"
check "$PVA_MPI" replay "$dir/changed" --task "$5" >/dev/null # the others are as they were

refuses 2 'name one run' "$PVA_MPI" replay --task 1
refuses 2 '[-]-task' "$PVA_MPI" replay "$run"
refuses 3 'no such run' "$PVA_MPI" replay "$dir/nothing" --task 1
refuses 3 'no such record; its 8 task ids' "$PVA_MPI" replay "$run" --task nothing
refuses 5 'the model' "$PVA_MPI" replay "$run" --task "$1" --model "$dir/other"
head -12 "$p" >"$dir/problems.jsonl"
refuses 5 'the problem file' "$PVA_MPI" replay "$run" --task "$1" --problems "$dir/problems.jsonl"
timeout 60 mpirun -n 2 "$PVA_MPI" replay "$run" --task "$1" >/dev/null 2>"$dir/err"; check test $? = 2
check grep -q 'the work of one process' "$dir/err"
check "$writer" "$dir/changed" 5 empty
refuses 3 'not finished' "$PVA_MPI" replay "$dir/changed" --task "$6"
check test -z "$(ls -d "$dir"/pva-replay-* 2>/dev/null)"
echo "replay: $checks checks, $failures failed"
exit $((failures > 0))
