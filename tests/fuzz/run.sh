#!/usr/bin/env bash
# Fuzzes every parser: builds fuzz_*.c with clang, libFuzzer, ASan and UBSan, and runs each from its corpus. PVA_FUZZ_SECONDS: of each (1800).
# PVA_FUZZ_BUILD: where, kept between calls with what was found (default: fuzz-build here). An input that breaks one is named, and the exit is 1.
set -u
source=$(cd "$(dirname "$0")/../.." && pwd)
build=${PVA_FUZZ_BUILD:-$PWD/fuzz-build}
seconds=${PVA_FUZZ_SECONDS:-1800}
command -v clang++ >/dev/null || { echo "SKIP the fuzz targets need clang"; exit 77; }
targets=()
for file in "$source"/tests/fuzz/fuzz_*.c; do targets+=("$(basename "$file" .c)"); done
mkdir -p "$build/found"
{ cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DPVA_FUZZ=ON -DPVA_CUDA=OFF &&
    cmake --build "$build" -j 2 --target "${targets[@]}"; } >"$build/log" 2>&1 || { grep -E 'error|Error' "$build/log" | head -5; echo "the build failed: $build/log"; exit 1; }
broken=0
for target in "${targets[@]}"; do
    subject=${target#fuzz_}
    mkdir -p "$build/found/$subject"
    "$build/tests/$target" -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$build/$subject-" "$build/found/$subject" "$source/tests/fuzz/corpus/$subject" \
        >"$build/$subject.log" 2>&1
    status=$?
    echo "$subject: $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$subject.log") inputs in $seconds s, $(find "$build/found/$subject" -type f | wc -l) kept"
    [ $status = 0 ] && continue
    broken=$((broken + 1))
    grep -E 'ERROR|runtime error|Test unit written' "$build/$subject.log" | head -4
done
echo "fuzz: ${#targets[@]} parsers, $broken broken"
[ $broken = 0 ]
