# forward, generate, doctor, bench from the command line: results, exit codes, and one clear line for each mistake.
set -u
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
checks=0 failures=0
fail() { failures=$((failures + 1)); echo "failed: $*" >&2; }
check() { checks=$((checks + 1)); "$@" || fail "$*"; }

# refuses STATUS PATTERN command...: that exit status, nothing on stdout, one line on stderr that matches.
refuses() {
    local status=$1 pattern=$2; shift 2
    checks=$((checks + 1))
    "$@" >"$dir/out" 2>"$dir/err" </dev/null; local got=$?
    [ $got = "$status" ] || fail "exit $got, expected $status: $* : $(cat "$dir/err")"
    [ "$(wc -l <"$dir/err")" = 1 ] || fail "not one line on stderr: $*: $(cat "$dir/err")"
    grep -qE -- "$pattern" "$dir/err" || fail "stderr of $*: $(cat "$dir/err"), expected $pattern"
    [ -s "$dir/out" ] && fail "output in spite of failure: $*"
}

cat >"$dir/tiny.json" <<'J'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 3, "hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300, "sliding_window": 7, "query_pre_attn_scalar": 16, "max_position_embeddings": 256,
 "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
J
m=$dir/model
check "$PVA_MPI" synth --like "$dir/tiny.json" --out "$m" --quiet

# generate: the same bytes for every batch size, and for sampling under one seed
for i in 1 2 3 4 5 6 7; do echo "{\"id\": \"p$i\", \"ids\": [2, $((10 * i)), $((3 * i)), 7, $((20 + i))]}"; done >"$dir/prompts.jsonl"
gen() { "$PVA_MPI" generate --quiet --model "$m" --prompts "$dir/prompts.jsonl" --max-new-tokens 20 "$@"; }
for t in 0 0.9; do
    check gen --temperature $t --batch-size 1 --samples 2 >"$dir/a" 
    check gen --temperature $t --batch-size 5 --samples 2 >"$dir/b"
    check gen --temperature $t --batch-size 16 --samples 2 --threads 1 >"$dir/c"
    check cmp "$dir/a" "$dir/b"; check cmp "$dir/a" "$dir/c"
    check test "$(wc -l <"$dir/a")" = 14
done
check gen --temperature 0.9 --seed 1 >"$dir/a"
check gen --temperature 0.9 --seed 2 >"$dir/b"
checks=$((checks + 1)); cmp -s "$dir/a" "$dir/b" && fail "two seeds gave the same texts"
check gen --dtype f32 --isa c >"$dir/a"
check python3 - "$dir/a" <<'P'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert [o["id"] for o in lines] == [f"p{i}" for i in range(1, 8)]
assert all(o["finish"] in ("limit", "eos") and len(o["ids"]) <= 20 for o in lines)
P

# forward: shapes, and resid_post[L] is resid_pre[L+1] bit for bit
check "$PVA_MPI" forward --quiet --model "$m" --tokens 2,5,6,7,8 --out "$dir/f.h5"
if command -v h5dump >/dev/null; then
    h5dump -H "$dir/f.h5" >"$dir/h"
    for d in '"logits"' '5, 300' '3, 5, 48' '"tokens"' H5T_STD_I32LE; do check grep -q -- "$d" "$dir/h"; done
    h5dump -y -w 0 -d '/resid_post[0,0,0;1,1,1;1,5,48]' "$dir/f.h5" | sed -n '/DATA {/,/}/p' >"$dir/post"
    h5dump -y -w 0 -d '/resid_pre[1,0,0;1,1,1;1,5,48]' "$dir/f.h5" | sed -n '/DATA {/,/}/p' >"$dir/pre"
    check cmp "$dir/post" "$dir/pre"
    check test -s "$dir/pre"
else
    echo "SKIP h5dump is not installed"
fi
refuses 5 'exists; --overwrite' "$PVA_MPI" forward --quiet --model "$m" --tokens 2,5 --out "$dir/f.h5"
check "$PVA_MPI" forward --quiet --overwrite --model "$m" --tokens 2,5 --out "$dir/f.h5"
check test ! -e "$dir/f.h5.partial"

# mistakes
refuses 2 'no command "foward"' "$PVA_MPI" foward
refuses 2 'give --text TEXT or --tokens LIST' "$PVA_MPI" forward --model "$m" --out "$dir/x.h5"
refuses 2 '[-]-out' "$PVA_MPI" forward --model "$m" --tokens 2
refuses 2 '300 is outside the vocabulary of 300' "$PVA_MPI" forward --model "$m" --tokens 2,300 --out "$dir/x.h5"
refuses 2 'no token id' "$PVA_MPI" forward --model "$m" --tokens 2,,3 --out "$dir/x.h5"
refuses 3 'tokenizer.model' "$PVA_MPI" forward --model "$m" --text hello --out "$dir/x.h5"
refuses 4 'cannot be created' "$PVA_MPI" forward --model "$m" --tokens 2 --out "$dir/nowhere/x.h5"
refuses 2 'give --prompt TEXT or --prompts FILE' "$PVA_MPI" generate --model "$m"
refuses 2 '[-]-model' "$PVA_MPI" generate --prompt x
refuses 3 'nowhere' "$PVA_MPI" generate --model "$dir/nowhere" --prompts "$dir/prompts.jsonl"
refuses 2 'did you mean' "$PVA_MPI" generate --modle "$m" --prompt x
refuses 2 'bf16' "$PVA_MPI" generate --model "$m" --dtype fp16 --prompts "$dir/prompts.jsonl"
refuses 2 'temperature' "$PVA_MPI" generate --model "$m" --temperature -1 --prompts "$dir/prompts.jsonl"
refuses 4 'no CUDA|CUDA' "$PVA_MPI" generate --model "$m" --backend cuda --prompts "$dir/prompts.jsonl"
echo '{"ids": [2, 3]}
{"ids": [2, 300]}' >"$dir/bad.jsonl"
refuses 3 'bad.jsonl:2: ids\[1\]' "$PVA_MPI" generate --model "$m" --prompts "$dir/bad.jsonl"
echo '{"ids": [2, 3]' >"$dir/bad.jsonl"
refuses 3 'bad.jsonl:1: ' "$PVA_MPI" generate --model "$m" --prompts "$dir/bad.jsonl"
: >"$dir/bad.jsonl"
refuses 3 'no prompts' "$PVA_MPI" generate --model "$m" --prompts "$dir/bad.jsonl"
echo "{\"ids\": [2$(printf ',5%.0s' $(seq 300))]}" >"$dir/bad.jsonl"
refuses 3 'the model takes 256' "$PVA_MPI" generate --model "$m" --prompts "$dir/bad.jsonl"
refuses 2 'say what to measure' "$PVA_MPI" bench --model "$m" everything
cp -r "$m" "$dir/cut"; truncate -s -1 "$dir/cut/model.safetensors"
refuses 3 'model.safetensors' "$PVA_MPI" generate --model "$dir/cut" --prompts "$dir/prompts.jsonl"
check test ! -e "$dir/x.h5" -a ! -e "$dir/x.h5.partial"
"$PVA_MPI" generate --quiet --model "$m" --prompts "$dir/prompts.jsonl" >/dev/full 2>"$dir/err"; status=$?
check test $status = 4

# doctor and bench run
check "$PVA_MPI" doctor --model "$m" >"$dir/doctor"
for w in host mpi hdf5 backend matmul gpu model; do check grep -qE "^(ok|-) +$w " "$dir/doctor"; done
checks=$((checks + 1)); "$PVA_MPI" doctor --model "$dir/cut" >"$dir/doctor"; [ $? = 1 ] || fail "doctor with a damaged model must exit 1"
check "$PVA_MPI" test-gpu >/dev/null
head -5 "$PVA_TEST_SOURCE/tests/data/mini/problems.jsonl" >"$dir/problems.jsonl"
check timeout 100 mpirun -n 3 "$PVA_MPI" doctor --run "$dir" --problems "$dir/problems.jsonl" >"$dir/doctor"
for w in store sandbox python 'problems +5 problems \(MBPP\), 1[0-9] tests' 'backend +rank 2 on' 'mpi .* 3 ranks on 1 node'; do check grep -qE "^ok +$w|^ok +.*$w" "$dir/doctor"; done
check "$PVA_MPI" doctor --json --run "$dir" --problems "$dir/problems.jsonl" >"$dir/json"
echo nothing >"$dir/bad.jsonl"
for o in "--problems $dir/bad.jsonl" "--run $dir/nowhere" "--python $dir/none" "--backend cuda" "--model $dir/nowhere"; do
    checks=$((checks + 1)); "$PVA_MPI" doctor --json $o >"$dir/json.fail"; [ $? = 1 ] || fail "doctor $o must exit 1"
    check python3 - "$dir/json" "$dir/json.fail" "$o" <<'P'
import json, sys
good, bad = json.load(open(sys.argv[1])), json.load(open(sys.argv[2]))
assert good["ok"] and {c["check"] for c in good["checks"]} >= {"host", "backend", "matmul", "mpi", "hdf5", "store", "sandbox", "python", "problems"}
assert all(c["status"] in ("ok", "absent") for c in good["checks"])
failed = [c["check"] for c in bad["checks"] if c["status"] == "fail"]
expected = {"--problems": "problems", "--run": "store", "--python": "sandbox", "--backend": "backend", "--model": "model"}[sys.argv[3].split()[0]]
assert not bad["ok"] and expected in failed and bad["failures"] == len(failed), bad
P
done
# Colours on a terminal alone, and not for those who set NO_COLOR.
cat >"$dir/terminal.py" <<'P'
import os, pty, sys
out = b""
def read(fd):
    global out
    some = os.read(fd, 4096)
    out += some
    return some
os.environ["TERM"] = "xterm"
for no, wanted in ((None, True), ("1", False), ("", True)):
    os.environ.pop("NO_COLOR", None)
    if no is not None: os.environ["NO_COLOR"] = no
    out = b""
    pty.spawn(sys.argv[1:], read)
    assert b"sandbox" in out and (b"\033[32mok" in out) == wanted and (b"\033" in out) == wanted, (no, out)
P
check python3 "$dir/terminal.py" "$PVA_MPI" doctor --run "$dir" >"$dir/out"
"$PVA_MPI" doctor --run "$dir" >"$dir/out"
check test "$(grep -c "$(printf '\033')" "$dir/out")" = 0
sae=$PVA_TEST_SOURCE/tests/golden/sae/stored.npz # 131 latents that read 24 values
sed 's/"hidden_size": 48/"hidden_size": 24/' "$dir/tiny.json" >"$dir/narrow.json"
check "$PVA_MPI" synth --like "$dir/narrow.json" --out "$dir/narrow" --quiet
for l in 0 1 2; do mkdir -p "$dir/saes/layer_$l/width_1k/average_l0_7"; cp "$sae" "$dir/saes/layer_$l/width_1k/average_l0_7/params.npz"; done
check "$PVA_MPI" doctor --run "$dir" --sae "$sae" >"$dir/doctor"
check grep -qE '^ok +sae +.*: 131 latents' "$dir/doctor"
check "$PVA_MPI" doctor --run "$dir" --sae "$dir/saes" --model "$dir/narrow" >"$dir/doctor"
check grep -qE '^ok +sae +3 layers have one, of 131 latents' "$dir/doctor"
rm -r "$dir/saes/layer_1"
check "$PVA_MPI" doctor --run "$dir" --sae "$dir/saes" --model "$dir/narrow" --layers 0,2 >"$dir/doctor"
checks=$((checks + 1)); "$PVA_MPI" doctor --run "$dir" --sae "$dir/saes" --model "$dir/narrow" >"$dir/doctor"; [ $? = 1 ] || fail "doctor with a missing autoencoder must exit 1"
check grep -qE '^FAIL +sae +.*layer 1' "$dir/doctor"
"$PVA_MPI" doctor --run "$dir" --sae "$dir/saes" --model "$m" --layers 0 >"$dir/doctor"
check grep -qE '^FAIL +sae +.*reads 24 values, the model.* has 48' "$dir/doctor"
check test "$(ls "$dir" | grep -c '^store-')" = 0
check "$PVA_MPI" bench generate --model "$m" --prompt-tokens 8 --new-tokens 4 >"$dir/bench"
check grep -q 'memory read' "$dir/bench"
check "$PVA_MPI" bench generate --model "$m" --prompt-tokens 8 --new-tokens 4 --batch-size 3 --hooks >"$dir/bench"
check grep -qE '^a direction per sequence: [-+][0-9.]+ % of a pass; all [0-9]+ layers captured: [-+][0-9.]+ %$' "$dir/bench"
check "$PVA_MPI" bench prefill --model "$m" --prompt-tokens 32 --repeats 1 >"$dir/bench"
check grep -q 'GFLOP/s' "$dir/bench"
# 26 layers; the weights of Gemma 2 2B in bfloat16 are 5.23 GB, a token's keys and values 106,496 bytes
check "$PVA_MPI" bench count --model gemma-2-2b --prompt-tokens 999 >"$dir/bench"
check grep -q '^decode step: 216 kernels (8 a layer, 8 outside), 3 copies' "$dir/bench"
check grep -q 'weights 5.229 GB, keys and values 0.106 GB' "$dir/bench"
check "$PVA_MPI" bench count --model "$m" >"$dir/bench"
check timeout 100 mpirun -n 2 "$PVA_MPI" bench store --run "$dir" --records 64 --repeats 2 >"$dir/bench"
check grep -qE 'raw pwrite [0-9]+ MB/s: [0-9.]+ % of it' "$dir/bench"
refuses 4 'nowhere' "$PVA_MPI" bench store --run "$dir/nowhere" --records 4
check "$PVA_MPI" generate --model "$m" --batch-size 3 --show-config >"$dir/config.yaml"
check "$PVA_MPI" generate --config "$dir/config.yaml" --show-config >"$dir/again.yaml"
check cmp "$dir/config.yaml" "$dir/again.yaml"

echo "commands: $checks checks, $failures failed"
exit $((failures > 0))
