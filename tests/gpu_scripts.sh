# The scripts for a machine with a GPU, as far as one without can tell: they say that there is none, and the measuring one, run dry on the CPU with the mini
# model, fills every row of its table.
set -u
export PVA_TEST_SOURCE=${PVA_TEST_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
dir=$(mktemp -d "${TMPDIR:-/tmp}/gpu_scripts.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
. "$PVA_TEST_SOURCE/tests/checks.inc"
gpu=$PVA_TEST_SOURCE/tests/gpu
if ! command -v nvidia-smi >/dev/null && ! ls /dev/nvidia[0-9]* >/dev/null 2>&1; then
    for script in measure run-all; do
        checks=$((checks + 1)); bash "$gpu/$script.sh" --build "$PVA_TEST_BINARY" >"$dir/said" 2>&1; [ $? = 77 ] || fail "$script.sh without a GPU must exit 77"
        check grep -q '^SKIP no GPU' "$dir/said"
    done
fi
mkdir "$dir/out"
check env OUT="$dir/out" bash "$gpu/measure.sh" --dry --build "$PVA_TEST_BINARY" --python /usr/bin/python3 >"$dir/said" 2>&1
table=$dir/out/measured.md
check test "$(grep -c '^| ' "$table")" -ge 20
check grep -q 'A dry run on the CPU' "$table"
check sh -c '! grep -q FAILED "$1"' sh "$table"
# A row that found nothing in its command's output would have a gap.
check sh -c '! grep -v "not measured" "$1" | grep -E "\| +(%|GB/s|tokens/s|problems|,|;|:)|[^0-9.] ms|\| *\|"' sh "$table"
for row in '2B decode, batch 1, context' '2B, batch 1: a direction per sequence' '2B, batch 8: every layer captured' '2B decode, batch 1, without graphs' \
    '2B prompts, 1 x' 'process start to first token, warm' 'phase 1 as a whole' 'encoding, 487 rows' '9B decode, batch 8'; do
    check grep -q "^| $row.*[0-9]" "$table"
done

[ $failures = 0 ] || cat "$dir/said"
echo "gpu_scripts: $checks checks, $failures failed"
exit $((failures > 0))
