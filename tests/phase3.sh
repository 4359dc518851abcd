# phase3 and the whole pipeline on the mini model: the same bytes for any ranks and after a stop, figures that follow from the files, refusals that say why.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
mini=$source/tests/data/mini
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
. "$source/tests/checks.inc"
[ -d "$mini/saes" ] || { echo "SKIP the mini autoencoders are not there"; exit 77; }
command -v h5diff >/dev/null || { echo "SKIP h5diff is not installed"; exit 77; }

common="--model $mini/model --problems $mini/problems.jsonl --threads 1 --quiet"
sizes="--end 59 --limit 8 --set phase1.max-tokens=260 --set phase2.permutations=50 --set steer.controls=1 --set steer.coefficients=0,0.5"
three="--temperatures 0,1 --samples 2 --replicates 200 --limit 8"
pipeline() { # RANKS extra...
    local ranks=$1; shift
    timeout 500 mpirun -n "$ranks" "$PVA_MPI" run --run "$dir/all" $common --sae "$mini/saes" $sizes --set phase3.temperatures=0,1 --set phase3.samples=2 \
        --set phase3.replicates=200 "$@"
}

# everything, and then nothing: each phase is complete
check pipeline 3 >"$dir/table"
for w in 'prediction on' 'probe at L' 'T 1 ' 'placebo    coefficient 0: 0 flips, 8 of 8 completions the same'; do check grep -q "$w" "$dir/table"; done
for f in phase1.h5 phase2.h5 phase3.h5 phase3-summary.json steer.h5 steer-summary.json exports/phase3-scores.csv exports/phase3-predictors.csv report.html; do
    check test -s "$dir/all/$f"
done
check pipeline 2 --dry-run >"$dir/plan"
check test "$(grep -c complete "$dir/plan")" = 4 # phase1, phase2, phase3, steer
check grep -q 'pile .*left out' "$dir/plan"

# another number of ranks, and a stop on the way: the same
phase3() { # NAME RANKS extra...
    local name=$1 ranks=$2; shift 2
    timeout 300 mpirun -n "$ranks" "$PVA_MPI" phase3 --run "$dir/$name" $three --threads 1 --quiet "$@" >"$dir/table"
}
mkdir "$dir/again"
cp -r "$dir/all/phase1.h5" "$dir/all/phase1-diagnostics.h5" "$dir/all/phase2.h5" "$dir/all/config-phase1.yaml" "$dir/again"
for f in "$dir"/all/phase2-*.h5; do [ -e "$f" ] && cp "$f" "$dir/again"; done
timeout 300 mpirun -n 2 "$PVA_MPI" phase3 --run "$dir/again" $three --threads 1 --quiet --grace 0 >/dev/null 2>"$dir/err" &
job=$!
for i in $(seq 1500); do [ -e "$dir/again/.lock" ] && break; sleep 0.02; done
launcher=$(pgrep -P $job | head -1)
[ -n "$launcher" ] && kill -TERM $(pgrep -P "$launcher") 2>/dev/null
wait $job; status=$?
checks=$((checks + 1))
case $status in 0 | 75) ;; *) fail "exit $status after TERM: $(cat "$dir/err")" ;; esac
check phase3 again 1
for d in state checksum n_new tokens finish text program verdict item_temperature item_sample; do
    check h5diff "$dir/all/phase3.h5" "$dir/again/phase3.h5" "/$d"
done
check cmp "$dir/all/phase3-summary.json" "$dir/again/phase3-summary.json"
check phase3 again 1 --json
check cmp "$dir/table" <(cat "$dir/again/phase3-summary.json" && echo)

# the summary's areas from the scores in the CSV, by counting pairs
check python3 - "$dir/all" <<'P'
import csv, json, sys
s = json.load(open(sys.argv[1] + "/phase3-summary.json"))
rows = [r for r in csv.DictReader(open(sys.argv[1] + "/exports/phase3-scores.csv")) if r["part"] == "validation"][:8]
assert len(rows) == s["validation"] == 8
for p in s["predictors"]:
    positive = lambda r: (r["passed"] in ("1", "true")) == (p["label"] == "passed")
    up = [float(r[p["predictor"]]) for r in rows if positive(r)]
    down = [float(r[p["predictor"]]) for r in rows if not positive(r)]
    m = p["validation"]
    assert m["n"] == 8 and m["positive"] == len(up)
    if not up or not down:
        assert m["one_class"] and m["auroc"] is None
        continue
    area = sum((a > b) + (a == b) / 2 for a in up for b in down) / (len(up) * len(down))
    assert abs(m["auroc"] - area) < 1e-12, (p["predictor"], m["auroc"], area)
    assert abs(m["f1_always_positive"] - 2 * len(up) / (len(up) + len(rows))) < 1e-12
    bins = p["difficulty"]
    assert sum(b["n"] for b in bins) == 8
    assert all((b["auroc"] is None) == b["one_class"] for b in bins)
zero = s["temperatures"][0]
assert zero["temperature"] == 0 and zero["samples"] == 1 and zero["passed"] == sum(r["passed"] in ("1", "true") for r in rows)
one = s["temperatures"][1]
assert [k["k"] for k in one["pass_at_k"]] == [1, 2] and abs(one["pass_at_k"][0]["rate"] - one["passed"] / 16) < 1e-12
P

# gated steering reaches the problems above the threshold, and no others
latent=$(head -1 "$dir/all/exports/phase3-scores.csv" | cut -d, -f5) # the first predictor; the threshold leaves one problem of each part
threshold=$(python3 - "$dir/all/exports/phase3-scores.csv" "$latent" <<'P'
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1])))
best = [sorted((float(r[sys.argv[2]]) for r in rows if r["part"] == part), reverse=True) for part in ("tuning", "validation")]
print(min(max(b[:8]) for b in best) * 0.9 - 1e-3)
P
)
check timeout 300 mpirun -n 2 "$PVA_MPI" steer --run "$dir/all" --mode gated --gate "$(echo "$latent" | tr -d L | tr - :)" --gate-threshold="$threshold" --controls 0 \
    --coefficients 0.5 --resume never --threads 1 --quiet >/dev/null
check python3 - "$dir/all" <<'P'
import csv, json, sys
s = json.load(open(sys.argv[1] + "/steer-summary.json"))
gate = s["gate"]
name = f"L{gate['layer']}-{gate['latent']}"
for part in ("tuning", "validation"):
    rows = [r for r in csv.DictReader(open(sys.argv[1] + "/exports/phase3-scores.csv")) if r["part"] == part]
    opened = sum(float(r[name]) > gate["threshold"] for r in rows)
    assert 0 < opened, part
    assert s[part]["problems"] == len(rows) and s[part]["steered"] == opened, (part, s[part]["steered"], opened)
    for arm in s[part]["arms"]:
        assert arm["same"] >= len(rows) - opened and arm["problems"] == len(rows)
P

check "$PVA_MPI" phase3 --run "$dir/all" $three --threads 1 --quiet --dry-run >"$dir/plan"
for w in predictor problems probe samples batch 'to do' 'to write' sandbox; do check grep -q "^$w" "$dir/plan"; done

s="$PVA_MPI phase3 --threads 1 --quiet"
refuses 2 'run' $s
refuses 3 'no phase 1 here' $s --run "$dir/nowhere"
refuses 2 'temperatures' $s --run "$dir/all" --temperatures 0,x
refuses 2 'twice' $s --run "$dir/all" --temperatures 0,0
refuses 3 'latents 0 to 1023' $s --run "$dir/all" --latent 3:4096
refuses 3 'layers 0 to 5' $s --run "$dir/all" --latent 6:1
refuses 5 'slots|sample' $s --run "$dir/all" $three --samples 3
rm "$dir/again"/phase2*.h5
refuses 3 'phase2' $s --run "$dir/again"
refuses 2 'needs --sae' $s --run "$dir/again" --latent 3:7
refuses 2 'PHASE.OPTION=VALUE' "$PVA_MPI" run --run "$dir/all" $common --set phase9.x=1
refuses 2 'nonsense' "$PVA_MPI" run --run "$dir/new" $common --sae "$mini/saes" --set phase1.nonsense=1

echo "phase3: $checks checks, $failures failed"
exit $((failures > 0))
