# phase1 end to end on a small random model: the same bytes whatever the ranks and the batch, after signals and kills; refusals that say why.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
mini=$source/tests/data/mini
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export OMPI_MCA_btl_vader_backing_directory=$dir # what killed jobs leave goes with it
. "$source/tests/checks.inc"
datasets="state checksum n_prompt n_new tokens finish n_text text n_program program verdict failed_test exception prompt_sha256 resid task_id part difficulty"
same() { # every dataset of two files, bit for bit
    local d
    for d in $datasets; do
        checks=$((checks + 1))
        h5diff "$1" "$2" "/$d" >"$dir/diff" 2>&1 || fail "$1 and $2 differ in $d: $(head -3 "$dir/diff")"
    done
}
command -v h5diff >/dev/null || { echo "SKIP h5diff is not installed"; exit 77; }

m=$mini/model
p=$mini/problems.jsonl
if [ ! -e "$m/config.json" ]; then
    echo "SKIP the mini model is not there: random weights instead"
    cat >"$dir/tiny.json" <<'J'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 3, "hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "sliding_window": 32, "query_pre_attn_scalar": 16, "max_position_embeddings": 512,
 "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
J
    m=$dir/model
    "$PVA_MPI" synth --like "$dir/tiny.json" --out "$m" --tokenizer "$source/tests/data/tiny-tokenizer/tokenizer.model" --quiet || exit 1
fi
args="--model $m --problems $p --end 29 --max-tokens 260 --threads 1 --quiet"
run() { # NAME RANKS extra...
    local name=$1 ranks=$2; shift 2
    timeout 200 mpirun -n "$ranks" "$PVA_MPI" phase1 --run "$dir/$name" $args "$@"
}

check run one 1
for r in "two 2 --batch-size 5" "three 3 --batch-size 1" "four 3 --batch-size 16 --grade-jobs 2"; do
    set -- $r
    check run "$@"
    same "$dir/one/phase1.h5" "$dir/$1/phase1.h5"
done
check timeout 200 "$PVA_MPI" phase1 --run "$dir/alone" $args   # without a launcher
same "$dir/one/phase1.h5" "$dir/alone/phase1.h5"
check test -s "$dir/one/manifest.json" -a -s "$dir/one/config-phase1.yaml" -a -s "$dir/one/logs/phase1-rank0.log"

# status and export
check "$PVA_MPI" status "$dir/one" >"$dir/status"
check grep -q '30 of 30 problems, complete' "$dir/status"
check "$PVA_MPI" export "$dir/one" >/dev/null
check python3 - "$dir/one/exports" "$p" <<'P'
import csv, json, sys
samples = [json.loads(line) for line in open(sys.argv[1] + "/samples.jsonl")]
results = [json.loads(line) for line in open(sys.argv[1] + "/results.jsonl")]
rows = list(csv.DictReader(open(sys.argv[1] + "/results.csv")))
ids = [str(json.loads(line)["task_id"]) for line in open(sys.argv[2])][:30]
assert [r["task_id"] for r in results] == ids == [r["task_id"] for r in rows]
assert [s["solution"] for s in samples] == [r["program"] for r in results]
assert all(r["completion"].find(r["program"].strip()) >= 0 for r in results)
P

# many positions of the residual stream: the same bytes again, the file says how many are filled, and all ways agree with each other
few="--end 5 --batch-size"
check run all1 1 --positions all $few 1
check run all3 3 --positions all $few 5
check run generated 2 --positions generated $few 3
check run latest 1 --positions last-generated $few 3
check run half 1 --positions generated --resid-dtype bf16 $few 3
datasets="$datasets n_positions" same "$dir/all1/phase1.h5" "$dir/all3/phase1.h5"
for f in one all1 generated latest half; do
    for d in resid n_prompt n_new; do h5dump -d /$d -b FILE -o "$dir/$f.$d" "$dir/$f/phase1.h5" >/dev/null || fail "h5dump $f $d"; done
done
for f in all1 generated half; do h5dump -d /n_positions -b NATIVE -o "$dir/$f.n_positions" "$dir/$f/phase1.h5" >/dev/null || fail "h5dump $f n_positions"; done
check python3 - "$dir" <<'P'
import struct, sys
def read(name, code="i"):
    data = open(sys.argv[1] + "/" + name, "rb").read()
    return struct.unpack("<%d%s" % (len(data) // struct.calcsize(code), code), data)
n_prompt, n_new = read("all1.n_prompt"), read("all1.n_new")
def rows(name, width, n):  # [problem][position] -> values of all layers
    data = open(sys.argv[1] + "/" + name + ".resid", "rb").read()
    if name == "half":  # bfloat16: the upper halves of float32
        data = b"".join(b"\0\0" + data[i:i + 2] for i in range(0, len(data), 2))
    size = len(data) // 6
    return [[data[i * size + p * width:i * size + (p + 1) * width] for p in range(size // width)] for i in range(n)]
n = 6
last = open(sys.argv[1] + "/one.resid", "rb").read()
width = len(last) // 30
every, some, half = rows("all1", width, n), rows("generated", width, n), rows("half", width, n)
latest = rows("latest", width, n)
filled, filled_some = read("all1.n_positions"), read("generated.n_positions")
assert len(filled) == n and read("half.n_positions") == filled_some
zero = bytes(width)
for i in range(n):
    assert n_prompt[i] + n_new[i] - 1 <= filled[i] <= n_prompt[i] + n_new[i] and n_new[i] > 0, (i, filled[i])
    assert filled_some[i] == filled[i] - n_prompt[i]
    assert all(r != zero for r in every[i][:filled[i]]) and all(r == zero for r in every[i][filled[i]:])
    assert every[i][n_prompt[i] - 1] == last[i * width:(i + 1) * width]
    assert latest[i] == [every[i][filled[i] - 1]]
    assert some[i][:filled_some[i]] == every[i][n_prompt[i]:filled[i]] and all(r == zero for r in some[i][filled_some[i]:])
    assert len(some[i]) == 260 - min(n_prompt)
    for a, b in zip(some[i], half[i]):
        assert all(abs(x - y) <= abs(x) * 2 ** -8 for x, y in zip(*(struct.unpack("<%df" % (width // 4), r) for r in (a, b))))
P
refuses 5 'resid_position' "$PVA_MPI" phase1 --run "$dir/all1" $args --end 5 --positions generated
check "$PVA_MPI" phase1 --model "$m" --problems "$p" --positions all --max-tokens 260 --dry-run >"$dir/plan"
check grep -q '^capture .* all, up to 260 positions: ' "$dir/plan"
# few problems are shared among the ranks, not taken by the first
check timeout 100 mpirun -n 3 "$PVA_MPI" phase1 --model "$m" --problems "$p" --end 6 --dry-run >"$dir/plan"
check grep -q '^batch  *3 sequences' "$dir/plan"
# a disk that cannot hold it: nothing is computed, nothing is left but the directory that was there
mkdir "$dir/small"
if mount -t tmpfs -o size=1m none "$dir/small" 2>/dev/null; then
    refuses 4 'need .* GB, its disk has 0.001 GB free' "$PVA_MPI" phase1 --run "$dir/small/run" $args --positions all
    refuses 4 'need .* GB, its disk has 0.001 GB free' "$PVA_MPI" phase1 --run "$dir/small/run" $args --positions all --dry-run
    check test -z "$(ls "$dir/small")"
    umount "$dir/small"
else
    echo "SKIP a disk too small: no mount allowed here"
fi

# running it again changes nothing and is quick
cp "$dir/one/phase1.h5" "$dir/before.h5"
check run one 2
same "$dir/before.h5" "$dir/one/phase1.h5"

# await_handlers MPIRUN RANKS: until that many ranks catch SIGTERM; before that they are not ours yet.
await_handlers() {
    local i rank n caught
    for i in $(seq 300); do
        n=0
        for rank in $(pgrep -P "$1" pva-mpi); do
            caught=$(sed -n 's/^SigCgt:\s*//p' "/proc/$rank/status" 2>/dev/null)
            [ -n "$caught" ] && [ $((0x$caught & 0x4000)) -ne 0 ] && n=$((n + 1))
        done
        [ $n -ge "$2" ] || ! kill -0 "$1" 2>/dev/null && return
        sleep 0.02
    done
}
# signals at random moments, then resumed with another number of ranks until complete
n=0
for signal in TERM INT USR1; do
    rm -rf "$dir/stopped"
    for try in 1 2 3; do
        mpirun -n $((1 + try % 3)) "$PVA_MPI" phase1 --run "$dir/stopped" $args --grace 1 2>"$dir/err" &
        job=$!
        # As a scheduler does it: to the processes of the job, once they are there. (An mpirun that is about to end dies of what it is sent.)
        await_handlers $job $((1 + try % 3))
        sleep "0.$((RANDOM % 6))"
        pkill -$signal -P $job
        wait $job; status=$?
        checks=$((checks + 1))
        case $status in 0) break ;; 75) n=$((n + 1)) ;; *) fail "exit $status after $signal: $(cat "$dir/err")" ;; esac
    done
    check run stopped 2
    same "$dir/one/phase1.h5" "$dir/stopped/phase1.h5"
done
echo "stopped and resumed $n times"

# kills
rm -rf "$dir/killed"
for try in 1 2 3; do
    timeout 200 mpirun -n 3 "$PVA_MPI" phase1 --run "$dir/killed" $args >/dev/null 2>&1 &
    job=$!
    sleep "1.$((RANDOM % 9))"
    pkill -KILL -f "phase1 --run $dir/killed"
    wait $job 2>/dev/null
done
check run killed 3
same "$dir/one/phase1.h5" "$dir/killed/phase1.h5"

# what does not fit together is refused, by name
refuses 5 'temperature' "$PVA_MPI" phase1 --run "$dir/one" $args --temperature 0.5
refuses 5 'prompt_template' "$PVA_MPI" phase1 --run "$dir/one" $args --prompt-template docstring
refuses 5 'seed' "$PVA_MPI" phase1 --run "$dir/one" $args --seed 7
refuses 2 'problems 0 to' "$PVA_MPI" phase1 --run "$dir/x" --model "$m" --problems "$p" --end 100000
refuses 2 'host-memory' "$PVA_MPI" phase1 --run "$dir/x" $args --host-memory 100K
refuses 3 'nowhere' "$PVA_MPI" phase1 --run "$dir/x" --model "$m" --problems "$dir/nowhere.jsonl"
refuses 2 'run' "$PVA_MPI" phase1 --model "$m" --problems "$p"
refuses 3 'neither pva' "$PVA_MPI" phase1 --run "$dir/x" $args --prompt-template "$dir/none"
check test ! -e "$dir/x/phase1.h5"
check "$PVA_MPI" phase1 --model "$m" --problems "$p" --dry-run >"$dir/plan"
for w in model device problems prompts batch capture sandbox 'to write'; do check grep -q "^$w" "$dir/plan"; done
"$PVA_MPI" status "$dir/nothing" >/dev/null 2>&1; check test $? = 3

echo "phase1: $checks checks, $failures failed"
exit $((failures > 0))
