#!/usr/bin/env bash
# What is exported is read by the programs it is for. Each that is not installed is skipped by name; PVA_TEST_PYTHON names a Python that has them
# (pip install pyarrow duckdb numpy safetensors gguf evalplus h5py).
set -eu
python=${PVA_TEST_PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$PVA_TEST_BINARY/tests/test_table" "$scratch"
"$PVA_TEST_BINARY/tests/test_vector_write" "$scratch"
"$python" "$PVA_TEST_SOURCE/tests/consumers.py" "$scratch"
