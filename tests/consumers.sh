#!/usr/bin/env bash
# What is written is read by the programs it is for: tables and vectors of the unit tests, then everything a run holds and exports. Each consumer that is not
# installed is skipped by name; PVA_TEST_PYTHON names a Python that has them:
#   pip install pyarrow duckdb numpy safetensors gguf h5py matplotlib evalplus
# consumers.sh RUN reads a run that is there instead of making a small one.
set -eu
mini=$PVA_TEST_SOURCE/tests/data/mini
for python in "${PVA_TEST_PYTHON:-}" python3 /usr/bin/python3; do
    if [ -n "$python" ] && "$python" -c 'import h5py' 2>/dev/null; then break; fi
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HOME=$scratch # for the readers' caches
"$PVA_TEST_BINARY/tests/test_table" "$scratch"
"$PVA_TEST_BINARY/tests/test_vector_write" "$scratch"
"$python" "$PVA_TEST_SOURCE/tests/consumers.py" "$scratch"

run=${1:-$scratch/run}
pva() { "$PVA_MPI" "$@" --quiet >"$scratch/out" || { cat "$scratch/out"; exit 1; }; }
small="--model $mini/model --problems $mini/problems.jsonl --end 39 --max-tokens 200 --threads 1"
# shellcheck disable=SC2086 # words
pva phase1 --run "$scratch/bf16" $small --resid-dtype bf16
if [ $# = 0 ]; then
    # shellcheck disable=SC2086
    pva phase1 --run "$run" $small
    pva phase2 --run "$run" --sae "$mini/saes" --permutations 100
    pva phase3 --run "$run" --threads 1 --temperatures 0 --samples 1 --limit 5 --replicates 100
    pva steer --run "$run" --threads 1 --limit 4 --controls 1 --coefficients -0.4,0,0.4
fi
pva export --run "$run" --format jsonl,csv,parquet,safetensors --direction 3:7
"$python" "$PVA_TEST_SOURCE/tests/consumers_run.py" "$run" "$scratch/bf16" "$mini/problems.jsonl" "$PVA_TEST_SOURCE/analysis/notebook.md" "$scratch"
