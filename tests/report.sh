#!/usr/bin/env bash
# The report of a small study with the mini model: complete, well-formed, self-contained, and honest about phases that are missing.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
mini=$source/tests/data/mini
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
. "$source/tests/checks.inc"
pva() { "$PVA_MPI" "$@" --quiet >"$dir/out" 2>"$dir/err" </dev/null || fail "exit $?: $*: $(cat "$dir/err")"; }
run=$dir/study

# Sections, balanced tags, no number that is none, nothing loaded from elsewhere, every picture described, every link to a file that is there.
cat >"$dir/page.py" <<'P'
import html.parser, os, re, sys
page, wanted, missing = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
text = open(page, encoding="utf-8").read()
class Reader(html.parser.HTMLParser):
    void = {"meta", "img", "link", "br"}
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.problems, self.pictures, self.said = [], [], [], 0, ""
    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag not in self.void: self.open.append(tag)
        if "id" in a: self.ids.append(a["id"])
        if tag == "script": self.problems.append("a script")
        if tag == "img":
            self.pictures += 1
            if len(a.get("alt", "")) < 20: self.problems.append("a picture without a description")
            if not a["src"].startswith("data:image/svg+xml;base64,"): self.problems.append("a picture from elsewhere")
        if tag == "a" and not a["href"].startswith(("#", "https://www.neuronpedia.org/")):
            if not os.path.exists(os.path.join(os.path.dirname(page), a["href"])): self.problems.append("a dead link: " + a["href"])
    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag: self.problems.append("unbalanced " + tag)
    def handle_data(self, data):
        if "style" not in self.open: self.said += data
r = Reader()
r.feed(text)
if r.open: r.problems.append("never closed: " + " ".join(r.open))
if len(set(r.ids)) != len(r.ids): r.problems.append("an id twice")
for name in wanted:
    if name not in r.ids: r.problems.append("no section " + name)
if len(re.findall("Not run yet", r.said)) != len(missing): r.problems.append("expected to be missing: " + str(missing))
for word in (r"\bnan\b", r"\binf\b", r"\(null\)", r"%[a-z]\b"):
    if re.search(word, r.said): r.problems.append("says " + word)
if "<nav" in text and r.pictures < int(sys.argv[4]): r.problems.append(f"{r.pictures} pictures")
print("\n".join(r.problems))
sys.exit(bool(r.problems))
P

check test ! -e "$run"
"$PVA_MPI" report "$run" >/dev/null 2>"$dir/err"
check test $? = 3
check grep -q "run pva-mpi phase1" "$dir/err"

pva phase1 --run "$run" --model "$mini/model" --problems "$mini/problems.jsonl" --end 99 --max-tokens 200 --threads 1
pva report "$run"
have=2; command -v gnuplot >/dev/null || have=0
check python3 "$dir/page.py" "$run/report.html" "solutions latents prediction steering provenance" "latents prediction steering" $have

pva pile --run "$run" --model "$mini/model" --sae "$mini/saes" --pile "$mini/pile.jsonl" --threads 1
pva phase2 --run "$run" --sae "$mini/saes" --permutations 200
pva phase3 --run "$run" --threads 1 --temperatures 0,1 --samples 1 --limit 20 --replicates 100
pva steer --run "$run" --threads 1 --limit 10 --controls 2 --coefficients -0.4,0,0.4
start=$(date +%s)
pva report "$run"
check test $(($(date +%s) - start)) -lt 10
[ $have = 0 ] || have=10
check python3 "$dir/page.py" "$run/report.html" "solutions latents prediction steering provenance" "" $have
check test ! -e "$run/report.html.partial"

before=$(stat -c %Y.%s "$run/report.html")
rm -f "$run"/report/*.csv
pva report "$run" --figures-only
check test "$(stat -c %Y.%s "$run/report.html")" = "$before"
check test -s "$run/report/roc.csv"

# Exports of the whole study.
pva export "$run" --format jsonl,csv,parquet,safetensors --direction 4:93
for f in direction-4x93.npy direction-4x93.gguf samples.jsonl results.jsonl results.csv results.parquet activations.safetensors latents.csv latents.parquet steering.jsonl steering.parquet steer-arms.csv; do check test -s "$run/exports/$f"; done

# A damaged summary is named, and the page that was there stays.
echo '{"predictors": [' >"$run/phase3-summary.json"
"$PVA_MPI" report "$run" >/dev/null 2>"$dir/err"
check test $? = 3
check grep -q "phase3-summary.json: line" "$dir/err"
check test "$(stat -c %Y.%s "$run/report.html")" = "$before"

echo "report: $checks checks, $failures failed"
[ $failures = 0 ]
