# phase2 end to end: exactly the planted latents are found, the same bytes whatever the ranks, after stops and kills; clear lines for what cannot be.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
writer=$PVA_TEST_BINARY/tests/phase2_writer
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export OMPI_MCA_btl_vader_backing_directory=$dir # what killed jobs leave goes with it
. "$source/tests/checks.inc"
same() { # RUN RUN: every dataset of both files, bit for bit
    local f d
    for f in phase2.h5 phase2-selection.h5; do
        for d in $(h5ls "$1/$f" | cut -d' ' -f1); do
            checks=$((checks + 1))
            h5diff "$1/$f" "$2/$f" "/$d" >"$dir/diff" 2>&1 || fail "$1 and $2 differ in $f, $d: $(head -3 "$dir/diff")"
        done
    done
}
command -v h5diff >/dev/null || { echo "SKIP h5diff is not installed"; exit 77; }
make() { check "$writer" make "$dir/$1" "$dir/sae" "${2:-}"; }
phase2() { # NAME RANKS extra...
    local name=$1 ranks=$2; shift 2
    timeout 100 mpirun -n "$ranks" "$PVA_MPI" phase2 --run "$dir/$name" --sae "$dir/sae" --threads 1 --permutations 2000 "$@"
}

make one
for name in two three alone killed stopped; do cp -r "$dir/one" "$dir/$name"; done
check phase2 one 1 >"$dir/tables" 2>"$dir/summary"
says "$dir/summary" '4 of 4 layers computed, 256 latents'
says "$dir/tables" '100 problems: 40 pass, 60 fail; validation 79: 26 pass, 53 fail'
says "$dir/tables" 'this run has no pile.h5'
says "$dir/tables" '^  1 +2 +5 +0.950 +0.083 +\+0.867'
check "$writer" check "$dir/one"
check phase2 two 2 --quiet
check phase2 three 3 --quiet
check timeout 100 "$PVA_MPI" phase2 --run "$dir/alone" --sae "$dir/sae" --permutations 2000 --quiet   # without a launcher, with all threads
for name in two three alone; do same "$dir/one" "$dir/$name"; check cmp "$dir/one/exports/latents.csv" "$dir/$name/exports/latents.csv"; done
check test -s "$dir/three/manifest.json" -a -s "$dir/three/config-phase2.yaml" -a -e "$dir/three/logs/phase2-rank2.log"
check python3 - "$dir/one/exports" <<'P'
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1] + "/latents.csv")))
assert len(rows) == 256
found = {(int(r["layer"]), int(r["latent"])) for r in rows if float(r["familywise_p"]) < 0.05}
assert found == {(2, 5), (0, 11)}, found
assert all(float(r["familywise_p"]) >= 1 / 2001 and float(r["separation_low"]) <= float(r["separation"]) <= float(r["separation_high"]) for r in rows)
assert all(abs(float(r["f_correct"]) - float(r["f_incorrect"]) - float(r["separation"])) < 1e-8 for r in rows)
top = list(csv.DictReader(open(sys.argv[1] + "/top-latents.csv")))
lists = ["correct-separation", "incorrect-separation", "correct-t", "incorrect-t"]
assert [(r["list"], int(r["place"])) for r in top] == [(l, i) for l in lists for i in range(1, 11)]
for l in lists[:2]:
    sign = 1 if l[0] == "c" else -1
    want = sorted(rows, key=lambda r: (-sign * float(r["separation"]), int(r["layer"]), int(r["latent"])))[:10]
    # nine digits tie what the full values do not: compare as sets of scores
    assert [round(float(r["separation"]), 7) for r in top if r["list"] == l] == [round(float(r["separation"]), 7) for r in want]
P

# again: nothing to do; another seed: the selection alone; another top: likewise
cp "$dir/one/phase2-selection.h5" "$dir/before.h5"
check phase2 one 2 >/dev/null 2>"$dir/summary"
says "$dir/summary" '0 of 4 layers computed, 256 latents, selection unchanged'
check phase2 one 3 --seed 7 --json >"$dir/json" 2>"$dir/summary"
says "$dir/summary" '0 of 4 layers computed, 256 latents; perm'
check python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); t = d["lists"]["incorrect-t"][0]; assert d["seed"] == 7 and (t["layer"], t["latent"]) == (0, 11)' "$dir/json"
checks=$((checks + 1)); h5diff "$dir/one/phase2-selection.h5" "$dir/before.h5" /familywise_p >/dev/null && fail "another seed gave the same p values"
check phase2 one 2 --quiet
same "$dir/one" "$dir/two"
check phase2 one 1 --statistic separation --top 300 --no-csv --quiet
check phase2 one 1 --quiet
same "$dir/one" "$dir/two"

# a stop while permuting, heard within a second; a kill at any moment
mpirun -n 2 "$PVA_MPI" phase2 --run "$dir/stopped" --sae "$dir/sae" --threads 1 --permutations 1000000000 2>"$dir/err" &
job=$!
sleep 3
kill -USR1 $job
wait $job; status=$?
checks=$((checks + 1)); [ $status = 75 ] || fail "exit $status after USR1: $(cat "$dir/err")"
says "$dir/err" 'stopped while permuting'
"$writer" check "$dir/stopped" >/dev/null 2>"$dir/err"
says "$dir/err" 'phase 2 is not finished here; run pva-mpi phase2'
check phase2 stopped 3 --quiet
same "$dir/one" "$dir/stopped"
for pause in 0.05 0.1 0.15 0.2 0.3; do
    "$PVA_MPI" phase2 --run "$dir/killed" --sae "$dir/sae" --threads 1 --permutations 200000 >/dev/null 2>&1 &
    job=$!
    sleep $pause
    kill -KILL $job 2>/dev/null
    wait $job 2>/dev/null
done
check phase2 killed 3 --quiet
same "$dir/one" "$dir/killed"

# general text
make pile pile
check phase2 pile 2 >"$dir/tables" 2>/dev/null
says "$dir/tables" '168 fire on less than 2 % of 400 documents and stay, 88 are dropped'
says "$dir/tables" '0.5 % +0 +none +none'
says "$dir/tables" '10.0 % +256 +2:5'
check "$writer" check "$dir/pile" pile
refuses 3 'measured at resid_post' phase2 pile 2 --sae-alignment original --resume never --quiet

# the original's pairing: layer L reads what is captured after L - 1
refuses 5 'sae_alignment' phase2 two 2 --sae-alignment original --quiet
check phase2 two 2 --sae-alignment original --resume never >"$dir/tables" 2>"$dir/summary"
says "$dir/tables" '3 layers x 64: 192; autoencoder L reads resid_post.L-1. .original'
says "$dir/summary" 'one block before'
check test -e "$dir/two/phase2.h5.replaced"
refuses 2 'layers 0.*resid_post.-1.' phase2 three 1 --sae-alignment original --layers 0 --quiet

# data without contrast: a stated result
make class one-class
check phase2 class 2 >"$dir/tables" 2>/dev/null
says "$dir/tables" '0 pass, 100 fail'
says "$dir/tables" 'one class is empty'
says "$dir/tables" 'correct-separation: no latent'
check python3 -c 'import csv, sys; assert {r["familywise_p"] for r in csv.DictReader(open(sys.argv[1]))} == {"1"}' "$dir/class/exports/latents.csv"
make zero zero
check phase2 zero 1 >"$dir/tables" 2>/dev/null
says "$dir/tables" '0 latents fire on some problems'
says "$dir/tables" 'incorrect-t: no latent'

# what cannot be
make unfinished unfinished
refuses 3 'has 151 of 201 records; run pva-mpi phase1' phase2 unfinished 2
make nan nan
refuses 3 'task 620 has a value at layer 1 that is not finite' phase2 nan 2
refuses 3 'there is no such run' phase2 nowhere 2
mkdir "$dir/empty"
refuses 3 'no phase 1 here' phase2 empty 1
refuses 2 'sae' "$PVA_MPI" phase2 --run "$dir/three"
refuses 2 'layers' phase2 three 1 --layers 9
refuses 5 'layer' phase2 three 1 --layers 0-2 --quiet
mv "$dir/sae/layer_3" "$dir/sae/away"
cp -r "$dir/three" "$dir/fewer" && rm "$dir/fewer"/phase2*
refuses 3 'layer 3' phase2 fewer 2
check phase2 fewer 2 --layers 0-2 --quiet
cp -r "$dir/sae/layer_0" "$dir/sae/layer_3"
refuses 5 'sae_sha256' phase2 three 2 --quiet
python3 "$source/tests/sae_files.py" "$dir/other" 16 4 64
refuses 3 'd_model is 16, phase 1 captured 24' "$PVA_MPI" phase2 --run "$dir/fewer" --sae "$dir/other"
head -c 4000 "$dir/sae/away/width_64/average_l0_13/params.npz" >"$dir/sae/layer_3/width_64/average_l0_10/params.npz"
refuses 3 'params.npz' phase2 three 2
check "$PVA_MPI" phase2 --run "$dir/fewer" --sae "$dir/sae" --layers 1-2 --dry-run >"$dir/plan"
for w in device selection validation pairing layers inference memory 'to write'; do says "$dir/plan" "^$w"; done

# from a model on: phase1, pile, phase2 on three ranks
cat >"$dir/tiny.json" <<'J'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "sliding_window": 32, "query_pre_attn_scalar": 16, "max_position_embeddings": 512,
 "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
J
m=$dir/model
check "$PVA_MPI" synth --like "$dir/tiny.json" --out "$m" --tokenizer "$source/tests/data/tiny-tokenizer/tokenizer.model" --quiet
python3 "$source/tests/sae_files.py" "$dir/small" 48 2 96
check timeout 200 mpirun -n 3 "$PVA_MPI" phase1 --run "$dir/whole" --model "$m" --problems "$source/tests/data/mini/problems.jsonl" --end 29 --max-tokens 200 --threads 1 --quiet
head -40 "$source/tests/data/mini/pile.jsonl" >"$dir/pile.jsonl"
check timeout 200 mpirun -n 3 "$PVA_MPI" pile --run "$dir/whole" --model "$m" --sae "$dir/small" --pile "$dir/pile.jsonl" --threads 1 --quiet
check timeout 200 mpirun -n 3 "$PVA_MPI" phase2 --run "$dir/whole" --sae "$dir/small" --threads 1 >"$dir/tables" 2>"$dir/summary"
says "$dir/tables" 'of 40 documents'
says "$dir/summary" '2 of 2 layers computed, 192 latents'

echo "phase2: $checks checks, $failures failed"
exit $((failures > 0))
