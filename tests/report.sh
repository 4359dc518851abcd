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
        if tag == "img": self.said += " " + a.get("alt", "") + " "
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

# In a real browser, 390 and 1200 wide: nothing is wider than the screen, every picture is drawn. The page is looked at inside another one, which says what came out.
cat >"$dir/browser.py" <<'P'
import html, re, subprocess, sys
browser, page, folder = sys.argv[1:]
text = open(page, encoding="utf-8").read()
with open(folder + "/frame.html", "w", encoding="utf-8") as f:
    f.write("<!doctype html><meta charset=utf-8><title>frames</title>")
    for width in (390, 1200): f.write(f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(text)}"></iframe>')
    f.write("""<p id=found></p><script>addEventListener("load", () => {
        const look = f => { const d = f.contentDocument; return [f.clientWidth, d.documentElement.scrollWidth, d.images.length, [...d.images].filter(i => !i.naturalWidth).length].join(",") }
        found.textContent = [...document.querySelectorAll("iframe")].map(look).join(" ") })</script>""")
r = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile", "--enable-logging=stderr", "--dump-dom", f"file://{folder}/frame.html"],
                   capture_output=True, text=True, timeout=120)
found = re.search('<p id="found">([^<]*)', r.stdout).group(1)
said = [line for line in r.stderr.split("\n") if "CONSOLE" in line]
print("browser:", found, *said, sep="\n")
sizes = [[int(x) for x in one.split(",")] for one in found.split()]
sys.exit(bool(said) or [s[0] for s in sizes] != [390, 1200] or any(wide > width or n < 10 or undrawn for width, wide, n, undrawn in sizes))
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
[ $have = 0 ] || have=14
check python3 "$dir/page.py" "$run/report.html" "solutions latents prediction steering provenance" "" $have
check test ! -e "$run/report.html.partial"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
if [ -n "$browser" ] && [ $have != 0 ]; then check python3 "$dir/browser.py" "$browser" "$run/report.html" "$dir"; else echo "SKIP the browser: no chromium or no gnuplot"; fi

before=$(stat -c %Y.%s "$run/report.html")
rm -f "$run"/report/*.csv
pva report "$run" --figures-only
check test "$(stat -c %Y.%s "$run/report.html")" = "$before"
check test -s "$run/report/roc.csv"
# the band beside the dose-response: two coefficients that push and the one that does not
check test "$(grep -c '^"controls, corrected",' "$run/report/dose-correct.csv")" = 3
check grep -q "least to the most of 4 control arms" "$run/report.html"

# Exports of the whole study.
pva export "$run" --format jsonl,csv,parquet,safetensors --direction 4:93
for f in direction-4x93.npy direction-4x93.gguf samples.jsonl results.jsonl results.csv results.parquet activations.safetensors latents.csv latents.parquet steering.jsonl steering.parquet steer-arms.csv; do check test -s "$run/exports/$f"; done

# Of a phase that has begun, that it has; without what only some pictures need, that they are missing.
part=$dir/part
cp -r "$run" "$part"
rm "$part/phase2-selection.h5" "$part/phase3-summary.json" "$part/steer-summary.json" "$part/phase1-diagnostics.h5"
pva report "$part"
check test "$(grep -o "Begun and not finished; the same command goes on: pva-mpi [a-z0-9]*" "$part/report.html" | grep -o "[a-z0-9]*$" | tr '\n' ' ')" = "phase2 phase3 steer "
check grep -q "No times: phase1-diagnostics.h5 is missing" "$part/report.html"
cp "$run/phase3-summary.json" "$run/steer-summary.json" "$run/phase2-selection.h5" "$part"
head -n 15 "$run/exports/phase3-scores.csv" >"$part/exports/phase3-scores.csv"
rm "$part/steer.h5"
pva report "$part"
check grep -q "No curves: exports/phase3-scores.csv" "$part/report.html"
check grep -q "No programs to show: steer.h5 is missing" "$part/report.html"
for f in phase1.h5 phase2.h5 phase1-diagnostics.h5 steer.h5; do
    cp "$run/$f" "$part/$f"
    truncate -s 5000 "$part/$f"
    "$PVA_MPI" report "$part" >/dev/null 2>"$dir/err"
    check test $? = 3
    check test "$(grep -c "part/$f: cannot be opened" "$dir/err") $(wc -l <"$dir/err")" = "1 1"
    cp "$run/$f" "$part/$f"
done
echo '{}' >"$part/steer-summary.json"
"$PVA_MPI" report "$part" >/dev/null 2>"$dir/err"
check test $? = 3
check grep -q 'steer-summary.json: expected an object with an array "sides"' "$dir/err"

# Problems that nothing solves: one class, nothing to separate, and no picture that pretends to.
head -20 "$mini/problems.jsonl" | sed 's/"test_list": \["/"test_list": ["assert False", "/' >"$dir/never.jsonl"
pva phase1 --run "$dir/never" --model "$mini/model" --problems "$dir/never.jsonl" --max-tokens 200 --threads 1
pva phase2 --run "$dir/never" --sae "$mini/saes" --permutations 100
pva report "$dir/never"
check python3 "$dir/page.py" "$dir/never/report.html" "solutions latents prediction steering provenance" "prediction steering" $((have < 2 ? have : 2))
check grep -q "there is nothing to separate" "$dir/never/report.html"

# A damaged summary is named, and the page that was there stays.
echo '{"predictors": [' >"$run/phase3-summary.json"
"$PVA_MPI" report "$run" >/dev/null 2>"$dir/err"
check test $? = 3
check grep -q "phase3-summary.json: line" "$dir/err"
check test "$(stat -c %Y.%s "$run/report.html")" = "$before"

echo "report: $checks checks, $failures failed"
[ $failures = 0 ]
