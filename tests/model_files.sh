# tokenize and synth from the command line: what they write, exit codes, one clear line for each mistake.
set -u
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
checks=0 failures=0
fail() { failures=$((failures + 1)); echo "failed: $*" >&2; }
check() { checks=$((checks + 1)); "$@" || fail "$*"; }

# refuses STATUS PATTERN command...: that exit status, and one line on stderr that matches. What is on stdout stays in $dir/out.
refuses() {
    local status=$1 pattern=$2; shift 2
    checks=$((checks + 1))
    "$@" >"$dir/out" 2>"$dir/err"; local got=$?
    [ $got = "$status" ] || fail "exit $got, expected $status: $* : $(cat "$dir/err")"
    [ "$(wc -l <"$dir/err")" = 1 ] || fail "not one line on stderr: $*: $(cat "$dir/err")"
    grep -qE -- "$pattern" "$dir/err" || fail "stderr of $*: $(cat "$dir/err"), expected $pattern"
}
tiny=$PVA_TEST_SOURCE/tests/data/tiny-tokenizer

# tokenize: the vectors, from a file and from stdin, there and back
python3 - "$tiny/vectors.jsonl" "$dir" <<'P'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
for name, key, rows in (("ids", "ids", lines), ("bos", "ids", [{"ids": [2] + o["ids"]} for o in lines])):
    open(f"{sys.argv[2]}/{name}", "w").writelines(json.dumps({key: o[key]}) + "\n" for o in rows)
open(f"{sys.argv[2]}/text", "w").writelines(json.dumps({"text": o["decoded"]}) + "\n" for o in lines)
P
check "$PVA_MPI" tokenize --model "$tiny" --in "$tiny/vectors.jsonl" >"$dir/a"
check cmp "$dir/a" "$dir/ids"
check "$PVA_MPI" tokenize --model "$tiny/tokenizer.model" <"$tiny/vectors.jsonl" >"$dir/a"
check cmp "$dir/a" "$dir/ids"
check "$PVA_MPI" tokenize --model "$tiny" --bos --in "$tiny/vectors.jsonl" >"$dir/a"
check cmp "$dir/a" "$dir/bos"
for f in ids bos; do # control tokens give no text
    check "$PVA_MPI" tokenize --model "$tiny" --decode --in "$dir/$f" >"$dir/a"
    check python3 -c 'import json, sys; a, b = ([json.loads(l) for l in open(f)] for f in sys.argv[1:]); sys.exit(a != b)' "$dir/a" "$dir/text"
done
check "$PVA_MPI" tokenize --model "$tiny" </dev/null >"$dir/a"
check test ! -s "$dir/a"

printf '{"text": "a"}\n{"text": 3}\n{"text": "b"}\n' >"$dir/bad.jsonl"
refuses 3 'bad.jsonl: line 2: expected' "$PVA_MPI" tokenize --model "$tiny" --in "$dir/bad.jsonl"
check test "$(wc -l <"$dir/out")" = 1
refuses 3 'standard input: line 2: ' "$PVA_MPI" tokenize --model "$tiny" <"$dir/bad.jsonl"
refuses 3 'line 1: token 1 is 512, expected 0 to 511' "$PVA_MPI" tokenize --model "$tiny" --decode < <(echo '{"ids": [5, 512]}')
refuses 2 '[-]-model' "$PVA_MPI" tokenize
refuses 3 'nowhere' "$PVA_MPI" tokenize --model "$dir/nowhere"
refuses 3 'not a SentencePiece model' "$PVA_MPI" tokenize --model "$dir/bad.jsonl"
refuses 3 'tokenizer.model: cannot open' "$PVA_MPI" tokenize --model "$dir"
refuses 3 'nowhere: cannot open' "$PVA_MPI" tokenize --model "$tiny" --in "$dir/nowhere"
[ -e /dev/full ] && { checks=$((checks + 1)); "$PVA_MPI" tokenize --model "$tiny" --in "$dir/ids" --decode >/dev/full 2>"$dir/err"; [ $? = 4 ] || fail "full disk"; }

# synth: the same bytes for the same seed, whatever the threads; other bytes for another; a model that tools of the field can read
cat >"$dir/shape.json" <<'J'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}
J
synth() { OMP_NUM_THREADS=$1 "$PVA_MPI" synth --like "$dir/shape.json" --out "$dir/$2" "${@:3}" 2>"$dir/err" || cat "$dir/err" >&2; }
check synth 1 one --seed 5 --tokenizer "$tiny"
check synth 3 three --seed 5 --tokenizer "$tiny/tokenizer.model"
check synth 2 other --seed 6
check synth 2 shards --seed 5 --shard-size 60K --dtype f32
check diff -r "$dir/one" "$dir/three"
checks=$((checks + 1)); cmp -s "$dir/one/model.safetensors" "$dir/other/model.safetensors" && fail "two seeds gave the same weights"
check test "$(cd "$dir/one" && echo *)" = "config.json generation_config.json model.safetensors tokenizer.model"
check test "$(ls "$dir"/shards/model-0*-of-0*.safetensors | wc -l)" -gt 2
check python3 - "$dir" <<'P'
import glob, json, os, struct, sys
def tensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    assert header.pop("__metadata__") == {"format": "pt"}
    return header
one = tensors(sys.argv[1] + "/one/model.safetensors")
index = json.load(open(sys.argv[1] + "/shards/model.safetensors.index.json"))
many = {name: os.path.basename(p) for p in glob.glob(sys.argv[1] + "/shards/model-*") for name in tensors(p)}
assert many == index["weight_map"] and set(many) == set(one) and len(one) == 24
assert all(t["dtype"] == "BF16" for t in one.values())
assert one["model.layers.1.mlp.up_proj.weight"]["shape"] == [96, 64]
assert index["metadata"]["total_size"] == 2 * sum(t["data_offsets"][1] - t["data_offsets"][0] for t in one.values())
assert json.load(open(sys.argv[1] + "/shards/config.json"))["torch_dtype"] == "float32"
P
refuses 5 'one: exists and is not an empty directory' "$PVA_MPI" synth --like "$dir/shape.json" --out "$dir/one"
refuses 2 'unknown model shape gemma-9' "$PVA_MPI" synth --like gemma-9 --out "$dir/x"
refuses 3 'nowhere.json: cannot open' "$PVA_MPI" synth --like "$dir/nowhere.json" --out "$dir/x"
refuses 2 '[-]-out' "$PVA_MPI" synth --like gemma-2-2b
refuses 2 '[-]-like' "$PVA_MPI" synth --out "$dir/x"
refuses 2 'bf16' "$PVA_MPI" synth --like "$dir/shape.json" --out "$dir/x" --dtype f16
refuses 3 'not a SentencePiece model' "$PVA_MPI" synth --like "$dir/shape.json" --out "$dir/x" --tokenizer "$dir/bad.jsonl"
refuses 4 'cannot make the directory' "$PVA_MPI" synth --like "$dir/shape.json" --out "$dir/no/where"
check test ! -e "$dir/x" -a ! -e "$dir/x.partial"

echo "model_files: $checks checks, $failures failed"
[ $failures = 0 ]
