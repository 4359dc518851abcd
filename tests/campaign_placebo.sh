# Coefficient 0 through the same path as every other coefficient: no verdict flips and no token changes. In full: on more than 300 validation problems.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
mini=$source/tests/data/mini
[ -e "$mini/model/config.json" ] && [ -d "$mini/saes" ] || { echo "SKIP the mini model is not there"; exit 77; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=60
[ "${PVA_KILLS:-0}" -gt 0 ] && n=780
unset PVA_KILLS # no option of any command
# More problems than the file has: the same ones, asked politely, are other prompts.
python3 - "$mini/problems.jsonl" "$dir/problems.jsonl" $n <<'P' || exit 1
import json, sys
problems = [json.loads(line) for line in open(sys.argv[1])]
with open(sys.argv[2], "w") as out:
    for i in range(int(sys.argv[3])):
        p = dict(problems[i % len(problems)])
        p["task_id"], p["text"] = i + 1, ["", "Please: ", "Kindly "][i // len(problems)] + p["text"]
        out.write(json.dumps(p) + "\n")
P
timeout 3000 mpirun -n 3 "$PVA_MPI" phase1 --run "$dir/run" --model "$mini/model" --problems "$dir/problems.jsonl" --max-tokens 260 --threads 1 --quiet || exit 1
timeout 3000 mpirun -n 2 "$PVA_MPI" steer --run "$dir/run" --latent 3:7 --sae "$mini/saes" --coefficients 0.3 --controls 0 --threads 1 --quiet || exit 1
python3 - "$dir/run/steer-summary.json" $n <<'P'
import glob, json, os, re, sys
s = json.load(open(sys.argv[1]))
logs = glob.glob(os.path.dirname(sys.argv[1]) + "/logs/steer-rank*.log")
shared = [float(re.findall(r"shared; ([0-9.]+) % of", open(log).read())[-1]) for log in logs] # tuning has one arm, validation three
print("shared:", shared)
assert len(shared) == 2 and min(shared) > 5, "the arms of a problem have its prompt in common below the steered layer"
side, = s["sides"]
placebo = side["placebo"]
print("placebo:", placebo, "steered:", side["correction"]["rate"], side["corruption"]["rate"])
assert placebo["problems"] >= 0.4 * int(sys.argv[2]) - 4
assert placebo["flips"] == 0 and placebo["same"] == placebo["problems"]
treated = s["validation"]["arms"][0]
assert treated["same"] < treated["problems"], "the same path does change something when the coefficient is not 0"
P
