# encode and pile as a user meets them: results against a calculation of our own, the same bytes whatever the ranks and the batch, resuming, refusals that say why.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
mini=$source/tests/data/mini
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export OMPI_MCA_btl_vader_backing_directory=$dir # what killed jobs leave goes with it
. "$source/tests/checks.inc"
for tool in h5diff h5dump python3; do
    command -v $tool >/dev/null || { echo "SKIP $tool is not installed"; exit 77; }
done
pva=$PVA_MPI
m=$mini/model
make_saes() { python3 "$source/tests/sae_files.py" "$@" || exit 1; }
make_saes "$dir/saes" 112 6 300
pile="--model $m --sae $dir/saes --pile $mini/pile.jsonl --documents 150 --threads 1 --quiet"

# --- pile: ranks, batches, an interruption ---
run() { # NAME RANKS extra...
    local name=$1 ranks=$2; shift 2
    timeout 200 mpirun -n "$ranks" "$pva" pile --run "$dir/$name" $pile "$@"
}
same() { # every dataset of two files, bit for bit
    local file=$3 d
    for d in $4; do
        checks=$((checks + 1))
        h5diff "$1/$file" "$2/$file" "/$d" >"$dir/diff" 2>&1 || fail "$1 and $2 differ in $file:/$d: $(head -3 "$dir/diff")"
    done
}
rates="state checksum n_fired sum mean_l0 label_l0 unexplained n_near sae_sha256 layer"
documents="state checksum n_tokens position resid layer index"
check run one 1
for r in "two 2 --batch-size 5" "three 3 --batch-size 1"; do
    set -- $r
    check run "$@"
    same "$dir/one" "$dir/$1" pile.h5 "$rates"
    same "$dir/one" "$dir/$1" pile-activations.h5 "$documents"
done
"$pva" pile --run "$dir/stopped" $pile --batch-size 1 & job=$!
for i in $(seq 100); do
    [ -e "$dir/stopped/pile-activations.h5" ] && h5dump -d state "$dir/stopped/pile-activations.h5" 2>/dev/null | grep -q '): .*1' && break
    sleep 0.05
done
kill -KILL $job 2>/dev/null; wait $job 2>/dev/null
check run stopped 2
same "$dir/one" "$dir/stopped" pile.h5 "$rates"
same "$dir/one" "$dir/stopped" pile-activations.h5 "$documents"
check grep -q '"pile"' "$dir/one/manifest.json"

check grep -q '^pile  *6 of 6 layers, complete' <("$pva" status "$dir/one")

# A finished run is not computed again, and needs no activations for that; another seed is another run.
mv "$dir/one/pile-activations.h5" "$dir/kept.h5"
check run one 2
check test ! -e "$dir/one/pile-activations.h5"
mv "$dir/kept.h5" "$dir/one/pile-activations.h5"
refuses 5 'seed' "$pva" pile --run "$dir/one" $pile --seed 7
# BOS is never the position; some position is not the first after it.
check python3 - "$dir/one" <<'P'
import subprocess, sys
out = subprocess.run(["h5dump", "-y", "-d", "position", sys.argv[1] + "/pile-activations.h5"], capture_output=True, text=True).stdout
v = [int(t) for t in out[out.index("DATA {") + 6:out.index("}", out.index("DATA {"))].replace(",", " ").split()]
assert len(v) == 150 and min(v) >= 1 and len(set(v)) > 10, v
P

# --- encode: the rates again, from the stored activations, layer by layer ---
for l in 0 5; do
    check "$pva" encode --sae "$dir/saes" --layer $l --activations "$dir/one/pile-activations.h5:/resid" --out "$dir/e$l.h5" --quiet
done
check "$pva" encode --sae "$dir/saes/layer_5/width_300/average_l0_20" --layer 5 --activations "$dir/one/pile-activations.h5:/resid" --out "$dir/file.h5" --threads 2 --isa c --quiet
check h5diff "$dir/e5.h5" "$dir/file.h5"
check python3 - "$dir" <<'P'
# The formula in double precision, from the files' bytes.
import array, re, struct, subprocess, sys, zipfile
from collections import Counter
root = sys.argv[1]
def dump(file, name, more=()):
    out = subprocess.run(["h5dump", "-y", "-w", "0", "-m", "%.9g", "-d", name, *more, file], capture_output=True, text=True).stdout
    text = out[out.index("DATA {") + 6:]
    return [float(t) for t in re.split(r"[,\s]+", text[:text.index("}")].strip())]
def arrays(path):
    with zipfile.ZipFile(path) as z:
        for name in z.namelist():
            b = z.read(name)
            yield name[:-4], array.array("f", b[10 + struct.unpack("<H", b[8:10])[0]:])
d, m, layers = 112, 300, 6
for position, layer in enumerate((0, 5)):
    sae = dict(arrays(f"{root}/saes/layer_{layer}/width_300/average_l0_20/params.npz"))
    rows = 12
    x = dump(f"{root}/one/pile-activations.h5", "resid", ["-s", f"0,{layer},0", "-c", f"{rows},1,{d}"])
    columns = [sae["W_enc"][j::m] for j in range(m)]
    indptr, indices, data = (dump(f"{root}/e{layer}.h5", n) for n in ("indptr", "indices", "data"))
    assert dump(f"{root}/e{layer}.h5", "n_latents") == [m] and len(indptr) == 151
    for i in range(rows):
        row = x[i * d:(i + 1) * d]
        first, last = int(indptr[i]), int(indptr[i + 1])
        got = dict(zip(map(int, indices[first:last]), data[first:last]))
        for j in range(m):
            z = sum(a * b for a, b in zip(row, columns[j])) + sae["b_enc"][j]
            t = sae["threshold"][j]
            if abs(z - t) < 1e-5 * t: continue
            assert (j in got) == (z > t), (layer, i, j, z, t)
            if z > t: assert abs(got[j] - z) <= 1e-5 * max(abs(z), 20), (layer, i, j, z, got[j])
    fired = dump(f"{root}/one/pile.h5", "n_fired", ["-s", f"{layer},0", "-c", f"1,{m}"])
    count = Counter(map(int, indices))
    assert [count[j] for j in range(m)] == [int(v) for v in fired], layer
P

# --- refusals ---
a="--activations $dir/one/pile-activations.h5:/resid --out $dir/never.h5"
refuses 3 'd_model 24, these have 112' "$pva" encode --sae "$source/tests/golden/sae/stored.npz" --layer 2 $a
refuses 2 'say which with --layer' "$pva" encode --sae "$dir/saes" $a
refuses 3 'layer 9 has no autoencoder' "$pva" encode --sae "$dir/saes" --layer 9 $a
refuses 3 'no such dataset' "$pva" encode --sae "$dir/saes" --layer 1 --activations "$dir/one/pile.h5:/nothing" --out "$dir/never.h5"
refuses 5 'overwrite' "$pva" encode --sae "$dir/saes" --layer 0 --activations "$dir/one/pile-activations.h5:/resid" --out "$dir/e0.h5"
mkdir "$dir/bad"
npz=$dir/saes/layer_1/width_300/average_l0_20/params.npz
head -c 200000 "$npz" >"$dir/bad/truncated.npz"
python3 - "$source/tests" "$dir/bad" <<'P'
import sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import sae_files
sae_files.write(sys.argv[2] + "/nan.npz", 112, 300, 1, "nan")
sae_files.write(sys.argv[2] + "/missing.npz", 112, 300, 1, "missing")
P
refuses 3 'truncated.npz: .*is truncated' "$pva" encode --sae "$dir/bad/truncated.npz" --layer 1 $a
refuses 3 'nan.npz: latent [0-9]+ of W_enc is not finite' "$pva" encode --sae "$dir/bad/nan.npz" --layer 1 $a
refuses 3 'missing.npz: has no array threshold' "$pva" encode --sae "$dir/bad/missing.npz" --layer 1 $a
check test ! -e "$dir/never.h5" -a ! -e "$dir/never.h5.partial"
rm -r "$dir/saes/layer_4"
refuses 3 'layer 4 has no autoencoder' "$pva" pile --run "$dir/gap" $pile
check "$pva" pile --run "$dir/gap" $pile --layers 0-3,5
make_saes "$dir/saes" 112 2 200 wide 2>/dev/null
refuses 2 'several widths.* 300, wide' "$pva" pile --run "$dir/wide" $pile --layers 0,1
echo '{"text": 5}' >"$dir/bad.jsonl"
refuses 3 'bad.jsonl:1: has no "text"' "$pva" pile --run "$dir/text" $pile --layers 0 --width 300 --pile "$dir/bad.jsonl"
printf 'One two three.\nfour\n\n\nFive six seven eight.\n' >"$dir/plain.txt"
check "$pva" pile --run "$dir/plain" $pile --layers 0 --width 300 --pile "$dir/plain.txt" --documents 0
check test "$(h5dump -a n_documents "$dir/plain/pile.h5" | grep -o '(0): .*')" = "(0): 2"

echo "sae: $checks checks, $failures failures"
[ $failures = 0 ]
