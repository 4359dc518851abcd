# spd-run from the command line: a short decomposition that must come out perfect; the same bytes for every number of threads and ranks and after being
# stopped; logs that TensorBoard's format allows; one clear line for each mistake.
set -u
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
checks=0 failures=0
fail() { failures=$((failures + 1)); echo "failed: $*" >&2; }
check() { checks=$((checks + 1)); "$@" || fail "$*"; }
# refuses STATUS PATTERN command...: that exit status and one line on stderr that matches.
refuses() {
    local status=$1 pattern=$2; shift 2
    checks=$((checks + 1))
    "$@" >"$dir/out" 2>"$dir/err" </dev/null; local got=$?
    [ $got = "$status" ] || fail "exit $got, expected $status: $*: $(cat "$dir/err")"
    [ "$(wc -l <"$dir/err")" = 1 ] || fail "not one line on stderr: $*: $(cat "$dir/err")"
    grep -qE -- "$pattern" "$dir/err" || fail "stderr of $*: $(cat "$dir/err"), expected $pattern"
}
spd() { "$SPD_RUN" --quiet --out "$dir/runs" "$@"; }
# The files that no two ways of running may tell apart.
same() {
    local file
    for file in metrics.jsonl checkpoint.safetensors final_config.yaml target.safetensors $(cd "$1" && ls model_*.safetensors figures/*_*[0-9].csv); do
        check cmp "$1/$file" "$2/$file"
    done
}

# The settings of tms_5-2 with a quarter of the batch and of the steps: seed 0 is one that such a short run suffices for, and its result is the same everywhere.
cat >"$dir/short.yaml" <<'Y'
C: 20
gate_type: mlp
gate_hidden_dims: [16]
sigmoid_type: leaky_hard
target_module_patterns: [linear1, linear2]
stochastic_recon_coeff: 1.0
stochastic_recon_layerwise_coeff: 1.0
importance_minimality_coeff: 3.0e-3
pnorm: 1.0
output_loss_type: mse
batch_size: 1024
eval_batch_size: 1024
steps: 10_000
lr: 1.0e-3
lr_schedule: cosine
train_log_freq: 100
eval_freq: 1000
n_eval_steps: 1
slow_eval_freq: 5000
ci_alive_threshold: 0.1
n_examples_until_dead: 4096000
eval_metrics:
  - {classname: CIHistograms}
  - {classname: ComponentActivationDensity}
  - {classname: PermutedCIPlots}
  - {classname: UVPlots}
  - {classname: IdentityCIError, extra_init_kwargs: {identity_ci: [{layer_pattern: "linear*", n_features: 5}]}}
  - {classname: CI_L0}
pretrained_model_class: TMSModel
pretrained_model_path: recipe:tms_5-2
task_config: {task_name: tms, feature_probability: 0.05}
Y
check spd "$dir/short.yaml" --threads 1
r=$dir/runs/spd-short
check python3 - "$r" <<'P'
import json, sys
o = json.load(open(sys.argv[1] + "/result.json"))
assert o["ci_error"] == 0 and o["ci_error_0p2"] == 0, o
assert o["mmcs"] >= 0.9999 and 0.97 <= o["ml2r"] <= 1.04, o
assert o["faithfulness"] < 1e-6 and 0 < o["stochastic_recon"] < 4e-4, o
lines = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")]
assert [x["step"] for x in lines if "train/loss/total" in x] == list(range(0, 10001, 100))
assert lines[-1]["target_solution_error/total"] == 0 and "l0_0.1/linear1" in lines[-1]
assert abs(lines[50]["train/misc/lr"] - 1e-3) < 1e-3
P
# Heat maps and arrows are drawn without gnuplot: two importance matrices, U and V of two modules, the features.
check test "$(grep -o 'data:image/svg' "$r/report.html" | wc -l)" -ge 9
check python3 - "$r" <<'P'
import base64, re, struct, sys, zlib
rows = [[float(x) for x in line.split(",")] for line in open(sys.argv[1] + "/figures/causal_importances_linear1_10000.csv")]
png = base64.b64decode(re.search("base64,([^\"]*)", open(sys.argv[1] + "/figures/causal_importances_linear1.svg").read())[1])
at, parts = 8, {}
while at < len(png):
    n, = struct.unpack(">I", png[at:at + 4])
    body = png[at + 4:at + 8 + n]
    assert struct.unpack(">I", png[at + 8 + n:at + 12 + n])[0] == zlib.crc32(body)
    parts[body[:4]], at = body[4:], at + 12 + n
width, height = struct.unpack(">II", parts[b"IHDR"][:8])
assert (height, width) == (len(rows), len(rows[0])) == (5, 20)
raw = zlib.decompress(parts[b"IDAT"])
for i in range(height):
    for j in range(width): # a perfect result: the diagonal is dark, the rest is light
        assert (raw[i * (1 + 3 * width) + 1 + 3 * j] < 30) == (rows[i][j] > 0.9) == (i == j), (i, j)
P

# Every record of the event file: lengths, both checksums, and the numbers of metrics.jsonl in it.
check python3 - "$r" <<'P'
import json, struct, sys
table = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
    table.append(n)
def masked(data):
    c = 0xffffffff
    for b in data:
        c = table[(c ^ b) & 255] ^ c >> 8
    c ^= 0xffffffff
    return ((c >> 15 | c << 17) + 0xa282ead8) & 0xffffffff
def varint(b, i):
    value = shift = 0
    while True:
        value |= (b[i] & 127) << shift
        shift += 7
        i += 1
        if b[i - 1] < 128:
            return value, i
def fields(b):
    i = 0
    while i < len(b):
        key, i = varint(b, i)
        if key & 7 == 0:
            value, i = varint(b, i)
        elif key & 7 == 1:
            value, i = struct.unpack("<d", b[i:i + 8])[0], i + 8
        elif key & 7 == 5:
            value, i = struct.unpack("<f", b[i:i + 4])[0], i + 4
        else:
            n, i = varint(b, i)
            value, i = b[i:i + n], i + n
        yield key >> 3, value
data = open(sys.argv[1] + "/events.out.tfevents.0.spd-run", "rb").read()
seen, i, first = {}, 0, True
while i < len(data):
    n, = struct.unpack("<Q", data[i:i + 8])
    assert struct.unpack("<I", data[i + 8:i + 12])[0] == masked(data[i:i + 8])
    body = data[i + 12:i + 12 + n]
    assert struct.unpack("<I", data[i + 12 + n:i + 16 + n])[0] == masked(body)
    i += 16 + n
    event = dict(fields(body))
    if first:
        assert event[3] == b"brain.Event:2"
        first = False
        continue
    value = dict(fields(dict(fields(event[5]))[1]))
    seen[value[1].decode(), event.get(2, 0)] = value[2]
expected = 0
for line in open(sys.argv[1] + "/metrics.jsonl"):
    o = json.loads(line)
    step = o.pop("step")
    for key, x in o.items():
        tag = key if key.startswith("train/") else "eval/" + key
        assert abs(seen[tag, step] - x) <= 1e-6 * abs(x) + 1e-30, (tag, step)
        expected += 1
assert expected == len(seen) and expected > 1000
P

# Threads, ranks, instruction sets, a stop in the middle: the same bytes.
runs() { mkdir -p "$dir/$1/targets" && cp -r "$dir/runs/targets/." "$dir/$1/targets/"; }
for way in one two ranks stopped; do runs $way; done
few="--steps 700 --seed 3"
name=spd-short-seed-3-steps-700
# shellcheck disable=SC2086 # words
{
check "$SPD_RUN" --quiet --out "$dir/one" "$dir/short.yaml" $few --threads 1
check "$SPD_RUN" --quiet --out "$dir/two" "$dir/short.yaml" $few --threads 2
same "$dir/one/$name" "$dir/two/$name"
check timeout 300 mpirun -n 2 "$SPD_RUN" --quiet --out "$dir/ranks" "$dir/short.yaml" $few --threads 1
same "$dir/one/$name" "$dir/ranks/$name"
"$SPD_RUN" --quiet --out "$dir/stopped" "$dir/short.yaml" $few --threads 1 2>"$dir/err" &
pid=$!
for _ in $(seq 400); do
    grep -q '"step": 100,' "$dir/stopped/$name/metrics.jsonl" 2>/dev/null && break
    sleep 0.01
done
kill -TERM $pid; wait $pid; status=$?
# The log reaches the file in blocks: a run that was quicker than that has ended by itself.
check test $status = 75 -o $status = 0
[ $status = 75 ] && check grep -q 'stopped before step' "$dir/err"
check "$SPD_RUN" --quiet --out "$dir/stopped" "$dir/short.yaml" $few --threads 1
same "$dir/one/$name" "$dir/stopped/$name"
check "$SPD_RUN" --quiet --out "$dir/stopped" "$dir/short.yaml" $few --threads 1 # finished: nothing is added
same "$dir/one/$name" "$dir/stopped/$name"
mkdir "$dir/other"
sed 's/^lr: .*/lr: 2.0e-3/' "$dir/short.yaml" >"$dir/other/short.yaml"
refuses 5 'was written with another lr' "$SPD_RUN" --quiet --out "$dir/stopped" "$dir/other/short.yaml" $few --threads 1
}

# A grid: global values first, the experiment's win, every combination, names
cat >"$dir/grid.yaml" <<'Y'
global:
  seed: {values: [0, 1]}
  lr: {values: [1.0e-3]}
tms_5-2:
  lr: {values: [0.001, 0.002]}
  task_config:
    feature_probability: {values: [0.05, 0.1]}
Y
spd -e tms_5-2 --sweep "$dir/grid.yaml" --list >"$dir/out"
check test "$(wc -l <"$dir/out")" = 8
check grep -q "index 7 # tms_5-2-seed-1_lr-0.002_task_config.feature_probability-0.1$" "$dir/out"
spd -e tms_5-2,tms_5-2-id --sweep "$dir/grid.yaml" --list >"$dir/out"
check test "$(wc -l <"$dir/out")" = 10
check test "$(spd --list | wc -l)" = 7
refuses 2 'runs 0 to 7' "$SPD_RUN" -e tms_5-2 --sweep "$dir/grid.yaml" --index 8
refuses 3 'no_such' "$SPD_RUN" -e tms_5-2 --list --sweep <(printf 'global:\n  no_such: {values: [1]}\n')
refuses 3 'at least one value' "$SPD_RUN" -e tms_5-2 --list --sweep <(printf 'global:\n  seed: {values: []}\n')
refuses 3 'varies anything' "$SPD_RUN" -e tms_5-2 --list --sweep <(printf 'tms_40-10:\n  seed: {values: [1]}\n')

# Mistakes
refuses 2 'no experiment "tms_5"; there are tms_5-2, ' "$SPD_RUN" -e tms_5
refuses 2 'no target "x"; there are' "$SPD_RUN" target x
if [ ! -e /dev/nvidia0 ]; then refuses 4 '^spd-run: --no-cpu: .*(no GPU|no CUDA backend)' "$SPD_RUN" -e tms_5-2 --no-cpu --out "$dir/runs"; fi
refuses 2 'dp 2, but there is 1 rank' "$SPD_RUN" -e tms_5-2 --dp 2 --out "$dir/runs"
wrong() { # PATTERN sed-script: a change that must be refused
    sed "$2" "$dir/short.yaml" >"$dir/wrong.yaml"
    refuses 3 "$1" "$SPD_RUN" --quiet --out "$dir/runs" "$dir/wrong.yaml"
}
wrong 'wrong.yaml:13: stepps: there is no such setting' 's/^steps:/stepps:/'
wrong 'wrong.yaml:14: steps: a whole number' 's/^lr: .*/steps: x/;s/^steps: 10_000/lr: 1.0e-3/'
wrong 'lr: is missing' '/^lr:/d'
wrong 'twice' 's/^lr_schedule:.*/lr: 1.0/'
wrong 'lr_schedule: "cosin": expected one of' 's/cosine/cosin/'
wrong 'multiple of eval_freq' 's/^eval_freq:.*/eval_freq: 999/'
wrong 'no module of the target matches "linear3"' 's/linear2/linear3/'
wrong 'n_features says 6' 's/n_features: 5/n_features: 6/'
wrong 'expected one of CI_L0' 's/UVPlots/UVPlot/'
wrong 'not valid YAML' 's/^C: 20/C: [20/'
wrong 'does not fit the target' 's/recipe:tms_5-2/recipe:resid_mlp1/;/IdentityCIError/d' 
wrong 'No such file' "s|recipe:tms_5-2|$dir/nowhere|"
check spd "$dir/short.yaml" --help >"$dir/out"
check grep -q 'resid_mlp3' "$dir/out"

# Older names are understood, and said
sed 's/^n_mask_samples.*//;s/^stochastic_recon_coeff/random_mask_recon_coeff/;$a image_freq: 5' "$dir/short.yaml" >"$dir/older.yaml"
check "$SPD_RUN" --out "$dir/runs" --steps 2 "$dir/older.yaml" --no-create_report >"$dir/out" 2>"$dir/err"
check grep -q 'random_mask_recon_coeff is now called stochastic_recon_coeff' "$dir/err"
check grep -q 'image_freq is no longer used' "$dir/err"

echo "spd: $checks checks, $failures failures"
[ $failures = 0 ]
