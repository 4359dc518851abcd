# steer on a model in which one direction decides by construction: outcomes as computed by hand, p values as scipy's, the same bytes for any ranks and after
# kills, refusals that say why; generate --steer.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
. "$source/tests/checks.inc"
datasets="state checksum n_new tokens finish n_text text n_program program verdict failed_test exception similarity task_id arm_name arm_coefficient arm_raw item_problem item_arm"
same() { # the stores and the summary of two runs
    local d f
    for f in steer-tuning.h5 steer.h5 steer-dose.h5; do
        for d in $datasets; do
            checks=$((checks + 1))
            h5diff "$dir/$1/$f" "$dir/$2/$f" "/$d" >"$dir/diff" 2>&1 || fail "$f of $1 and $2 differ in $d: $(head -3 "$dir/diff")"
        done
    done
    check cmp "$dir/$1/steer-summary.json" "$dir/$2/steer-summary.json"
    check cmp "$dir/$1/exports/steer-arms.csv" "$dir/$2/exports/steer-arms.csv"
}
command -v h5diff >/dev/null || { echo "SKIP h5diff is not installed"; exit 77; }

check python3 "$source/tests/planted_model.py" "$PVA_MPI" "$source/tests/data/tiny-tokenizer" "$dir" 70 >/dev/null
check "$PVA_MPI" phase1 --run "$dir/base" --model "$dir/model" --problems "$dir/problems.jsonl" --max-tokens 300 --threads 1 --quiet
check "$PVA_MPI" export "$dir/base" >/dev/null
flag="--vector $dir/flag.npy --layer 0 --coefficient-units raw"
args="$flag --coefficients=-20,0,5,20 --controls 2 --threads 1 --quiet"
fresh() { rm -rf "$dir/$1"; cp -r "$dir/base" "$dir/$1"; rm -f "$dir/$1/.lock"; }
steer() { # NAME RANKS extra...
    local name=$1 ranks=$2; shift 2
    timeout 300 mpirun -n "$ranks" "$PVA_MPI" steer --run "$dir/$name" $args "$@" >"$dir/table"
}

fresh one
check steer one 1
check grep -q "placebo    coefficient 0: 0 flips, 28 of 28 completions the same" "$dir/table"
check grep -q "correction 7/12" "$dir/table"
check grep -q "^dose-response beside controls, 7 problems" "$dir/table"
# What the construction gives, counted from the problems' kinds; what scipy makes of it, from the golden numbers.
check python3 - "$dir" "$source/tests/golden/steering.json" <<'P'
import json, sys
run, golden = sys.argv[1], json.load(open(sys.argv[2]))
kind = {}
for line in open(run + "/problems.jsonl"):
    p = json.loads(line)
    kind[str(p["task_id"])] = p["text"].split(": ")[1].rstrip(".")
records = [json.loads(line) for line in open(run + "/base/exports/results.jsonl")]
assert all((r["verdict"] == "pass") == (kind[r["task_id"]] in ("abs", "both")) for r in records)
s = json.load(open(run + "/one/steer-summary.json"))

def close(a, b):
    assert abs(a - b) <= 1e-9 * abs(b), (a, b)

def counts(part, flips):
    kinds = [kind[r["task_id"]] for r in records if r["part"] == part]
    failing = sum(k in ("int", "neither") for k in kinds)
    return (kinds.count("int") if flips else 0, failing, kinds.count("abs") if flips else 0, len(kinds) - failing)

for stage, part in (("tuning", "tuning"), ("validation", "validation"), ("dose", "tuning")):
    for arm in s[stage]["arms"]:
        flips = arm["arm"] == "treated" and arm["coefficient"] == 20
        got = (arm["correction"]["k"], arm["correction"]["n"], arm["corruption"]["k"], arm["corruption"]["n"])
        assert got == counts(part, flips), (stage, arm["arm"], arm["coefficient"], got, counts(part, flips))
        # "\nf=abs" and "\nf=int" share 3 of 6 tokens.
        close(arm["similarity"]["all"], 0.5 if flips else 1)
        assert arm["same"] == (0 if flips else arm["problems"])
kinds = [a["arm"] for a in s["validation"]["arms"]]
assert kinds == ["treated", "zero", "flipped", "random", "random"], kinds
# the controls along the grid: the first of the validation's own, at every coefficient but 0
dose = [(a["arm"], a["direction"], a["coefficient"]) for a in s["dose"]["arms"]]
random = [a["direction"] for a in s["validation"]["arms"] if a["arm"] == "random"]
assert dose == [("random", d, c) for c in (-20, 5, 20) for d in random], dose
points = {p["coefficient"]: p for p in s["sides"][0]["dose_response"]}
assert sorted(points) == [-20, 0, 5, 20] and [points[c]["controls"] for c in (-20, 0, 5, 20)] == [2, 0, 2, 2]
for c, p in points.items():
    k, failing, lost, passing = counts("tuning", c == 20)
    assert (p["correction"]["rate"]["k"], p["correction"]["rate"]["n"], p["corruption"]["rate"]["k"], p["corruption"]["rate"]["n"]) == (k, failing, lost, passing), (c, p)
    if c: # no random direction flips anything
        assert p["correction"]["controls"]["n"] == 2 * failing and p["correction"]["controls"]["most"] == p["corruption"]["controls"]["most"] == 0
        assert p["degenerate"] == {"rate": 0, "controls": {"least": 0, "most": 0}}, p["degenerate"]
side, = s["sides"]
assert side["coefficient"] == 20 and side["placebo"] == {"flips": 0, "same": 28, "problems": 28}
for name, row in (("correction", golden["effects"][5]), ("corruption", golden["effects"][6])):
    e = side[name]
    assert (e["rate"]["k"], e["rate"]["n"], e["controls"]["k"], e["controls"]["n"]) == (row["k"], row["n"], row["control_k"], row["control_n"])
    close(e["controls"]["p_binomial"], row["p_binomial"])
    close(e["controls"]["p_fisher"], row["p_fisher"])
    close(e["controls"]["p_rank"], 1 / 3)
    close(e["rate"]["interval"][0], row["low"])
    close(e["rate"]["interval"][1], row["high"])
    close(e["controls"]["difference"][0], row["difference_low"])
    close(e["controls"]["difference"][1], row["difference_high"])
treated = s["validation"]["arms"][0]
pair = golden["pairs"][0]
assert (pair["gained"], pair["lost"]) == (7, 14)
close(treated["mcnemar"]["p"], pair["p"])
close(treated["mcnemar"]["mid_p"], pair["mid_p"])
# Holm over two hypotheses
p = sorted((side[n]["controls"]["p_binomial"], side[n]["holm"]) for n in ("correction", "corruption"))
close(p[0][1], 2 * p[0][0])
close(p[1][1], max(2 * p[0][0], p[1][0]))
assert treated["verdicts"] == {"pass": {"pass": 2, "assertion": 14}, "assertion": {"pass": 7, "assertion": 5}}
P

for r in "two 2 --batch-size 5" "three 3 --batch-size 1"; do
    set -- $r
    fresh "$1"
    check steer "$@"
    same one "$1"
done
# again: nothing to do, nothing changes
cp "$dir/one/steer.h5" "$dir/before.h5"
check steer one 2
check h5diff "$dir/before.h5" "$dir/one/steer.h5" /checksum
check steer one 1 --json
check cmp "$dir/table" <(cat "$dir/one/steer-summary.json" && echo)

# stopped, killed, resumed with other numbers of ranks
ranks_of() { local m; m=$(pgrep -P "$1" | head -1); [ -n "$m" ] && pgrep -P "$m"; } # of `timeout mpirun`: only what this script started
await() { # NAME: until the job is past its start, where a signal ends it as it ends anything
    for i in $(seq 1500); do [ -e "$dir/$1/.lock" ] && return; sleep 0.02; done
}
fresh stopped
for try in 1 2; do
    rm -f "$dir/stopped/.lock"
    timeout 300 mpirun -n $((1 + try)) "$PVA_MPI" steer --run "$dir/stopped" $args --grace 1 >/dev/null 2>"$dir/err" &
    job=$!
    await stopped
    sleep "0.$((RANDOM % 9))"
    kill -TERM $(ranks_of $job) 2>/dev/null
    wait $job; status=$?
    checks=$((checks + 1))
    case $status in 0 | 75) ;; *) fail "exit $status after TERM: $(cat "$dir/err")" ;; esac
done
for try in 1 2; do
    rm -f "$dir/stopped/.lock"
    timeout 300 mpirun -n 3 "$PVA_MPI" steer --run "$dir/stopped" $args >/dev/null 2>&1 &
    job=$!
    await stopped
    sleep "$((RANDOM % 3)).$((RANDOM % 9))"
    kill -KILL $(ranks_of $job) 2>/dev/null
    wait $job 2>/dev/null
done
check steer stopped 2
same one stopped

# one side only; ablation of a direction that nothing uses; other positions
fresh other
check steer other 2 --correction-only --limit 6
check python3 -c "
import json, sys
s = json.load(open('$dir/other/steer-summary.json'))
assert s['validation']['passing'] == 0 and s['validation']['problems'] == s['validation']['failing'] > 0
assert s['sides'][0]['corruption']['rate']['n'] == 0 and s['sides'][0]['corruption']['controls']['p_binomial'] is None"
fresh other
check steer other 2 --mode ablate --limit 4
check python3 -c "
import json
s = json.load(open('$dir/other/steer-summary.json'))
assert all(a['correction']['k'] == a['corruption']['k'] == 0 and a['same'] == a['problems'] for a in s['validation']['arms']), s"
fresh other
check steer other 2 --steer-positions last --limit 12 --dose-controls 0
check test ! -e "$dir/other/steer-dose.h5"
check python3 -c "
import json
s = json.load(open('$dir/other/steer-summary.json'))
assert 'dose' not in s and all(p['controls'] == 0 for p in s['sides'][0]['dose_response'])"
check grep -q "given     treated  flag.npy at L0 *+20" "$dir/table"
# the generated tokens' own positions: "=" is one, so the branch is taken
fresh other
check steer other 2 --steer-positions generated --limit 12
check python3 -c "
import json
s = json.load(open('$dir/other/steer-summary.json'))
assert s['sides'][0]['correction']['rate']['k'] > 0 and s['sides'][0]['coefficient'] == 20"

check "$PVA_MPI" steer --run "$dir/base" $args --dry-run >"$dir/plan"
check grep -q '^dose  *no controls' <("$PVA_MPI" steer --run "$dir/base" $flag --coefficients=-20,0,5,20 --controls 0 --threads 1 --quiet --dry-run)
for w in mode candidate tuning validation dose batch 'to do' 'to write' sandbox; do check grep -q "^$w" "$dir/plan"; done

# generate
program() { "$PVA_MPI" generate --model "$dir/model" --prompt '# Solution:' --quiet "$@" | python3 -c "import json, sys; print(json.loads(sys.stdin.readline())['text'].strip())"; }
check test "$(program)" = f=abs
check test "$(program --steer "layer=0,vector=$dir/flag.npy,coefficient=12")" = f=int # the construction's limit is 11.49
check test "$(program --steer "layer=0,vector=$dir/flag.npy,coefficient=11")" = f=abs
check test "$(program --steer "layer=0,vector=$dir/flag.npy,coefficient=20,sign=-1")" = f=abs
check test "$(program --steer "layer=0,vector=$dir/flag.npy,coefficient=2,units=norm,scale=10,positions=last")" = f=int
check test "$(program --steer "layer=0,vector=$dir/flag.npy,mode=ablate")" = f=abs

# refusals
s="$PVA_MPI steer --threads 1 --quiet"
refuses 2 'run' $s $flag
refuses 3 'no phase 1 here' $s --run "$dir/nowhere" $flag
refuses 3 'phase2' $s --run "$dir/base"
refuses 3 'has 527 numbers, expected d_model = 528' $s --run "$dir/base" --vector "$dir/short.npy" --layer 0 --coefficient-units raw
refuses 3 'length 0' $s --run "$dir/base" --vector "$dir/zero.npy" --layer 0 --coefficient-units raw
refuses 3 'finite' $s --run "$dir/base" --vector "$dir/nan.npy" --layer 0 --coefficient-units raw
refuses 2 'layers 0 to 1' $s --run "$dir/base" --vector "$dir/flag.npy" --layer 2
refuses 2 'needs --layer' $s --run "$dir/base" --vector "$dir/flag.npy"
refuses 2 'needs --sae' $s --run "$dir/base" --latent 0:3
refuses 2 'LAYER:LATENT' $s --run "$dir/base" --latent 03
refuses 2 'LOW:HIGH:STEP' $s --run "$dir/base" $flag --coefficients 1,x
refuses 2 'STEP above 0' $s --run "$dir/base" $flag --coefficients 0:1:0
refuses 2 'all of them are 0' $s --run "$dir/base" $flag --coefficients 0
refuses 2 'leave nothing' $s --run "$dir/base" $flag --correction-only --corruption-only
refuses 2 'not both' $s --run "$dir/base" $flag --latent 0:1
refuses 5 'arm_coefficient|coefficient' $s --run "$dir/one" $flag --coefficients=-20,0,5,21 --controls 2
# one class only: every problem of the tuning split passes
fresh single
grep -E 'abs\.|both\.' "$dir/problems.jsonl" >"$dir/passing.jsonl"
check "$PVA_MPI" phase1 --run "$dir/passing" --model "$dir/model" --problems "$dir/passing.jsonl" --max-tokens 300 --threads 1 --quiet --end 29
refuses 3 'no failing problem' $s --run "$dir/passing" $flag --correction-only

echo "steer: $checks checks, $failures failed"
exit $((failures > 0))
