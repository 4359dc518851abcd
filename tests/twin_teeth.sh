#!/usr/bin/env bash
# Each line breaks one kernel in one place; its twin must notice. The broken source is built for the CPU and put before the right one.
set -u
source_dir=${PVA_TEST_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
binary_dir=${PVA_TEST_BINARY:-$source_dir/build}
work=$(mktemp -d "${TMPDIR:-/tmp}/teeth.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
cxx=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$binary_dir/CMakeCache.txt" 2>/dev/null | head -1)
cxx=${cxx:-${CXX:-c++}}
only=${1:-}

# twin @ file to build @ file to break @ what is replaced, everywhere it stands @ by what
mutations() {
    cat <<'END'
norm@cuda_norm.cu@cuda_norm.cu@1.0f + w.y@w.y
norm@cuda_norm.cu@cuda_norm.cu@sum / (float)d + eps@sum / (float)(d + 1) + eps
norm@cuda_norm.cu@cuda_norm.cu@if (i < d) sum = sum_squares@if (i < d && e < 1) sum = sum_squares
norm@cuda_norm.cu@cuda_norm.cu@int64_t i = rest; i < d; i += step) sum =@int64_t i = rest; i < d - 4; i += step) sum =
norm@cuda_norm.cu@cuda_norm.cu@w = w_next;@
norm@cuda_norm.cu@cuda_reduce.cuh@&& d % 4 == 0@
norm@cuda_norm.cu@cuda_reduce.cuh@left > 3 ? p[3]@left >= 3 ? p[3]
norm@cuda_norm.cu@cuda_reduce.cuh@__syncthreads(); /* before `shared` is used again */@
norm@cuda_norm.cu@cuda_reduce.cuh@if (lane == 0) shared[warp] = v;@if (lane == 0 && warp != 2) shared[warp] = v;
END
}

# run_twin TWIN BUILD DIR: builds DIR/BUILD and runs the twin with it; the twin's exit status, its output in DIR/log. 125: does not compile.
run_twin() {
    "$cxx" -std=c++17 -O1 -fPIC -shared -w -ffp-contract=off -I"$source_dir/include" -I"$source_dir/tests/simt" -x c++ "$3/$2" -o "$3/broken.so" >"$3/log" 2>&1 || return 125
    timeout 120 env LD_PRELOAD="$3/broken.so" ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 "$binary_dir/tests/twin_$1" >"$3/log" 2>&1
}

check_mutation() { # twin build break old new
    local dir=$work/$n status
    mkdir "$dir" && cp "$source_dir"/kernels/*.cu "$source_dir"/kernels/*.cuh "$source_dir"/kernels/*.h "$dir"
    # A source that is not broken passes this way.
    if [ -z "${tried[$2]:-}" ]; then
        tried[$2]=1
        run_twin "$1" "$2" "$dir" || { echo "twin_$1 fails with $2 as it is:"; head -5 "$dir/log"; return 1; }
    fi
    if ! OLD=$4 NEW=$5 python3 -c '
import os, sys
text = open(sys.argv[1]).read()
if os.environ["OLD"] not in text: sys.exit(1)
open(sys.argv[1], "w").write(text.replace(os.environ["OLD"], os.environ["NEW"]))' "$dir/$3"; then
        echo "$3 no longer holds: $4"
        return 1
    fi
    run_twin "$1" "$2" "$dir"
    status=$?
    if [ $status = 0 ]; then
        echo "twin_$1 did not notice in $3: \"$4\" became \"$5\""
        return 1
    fi
    # For the reason meant: a check, a fence or a misaligned access, and not a compiler or a loader.
    if [ $status = 125 ] || ! grep -qE 'failed|, expected|ERROR: AddressSanitizer|runtime error' "$dir/log"; then
        echo "twin_$1 came to no verdict on \"$5\" in $3 (status $status):"
        head -5 "$dir/log"
        return 1
    fi
    rm -rf "$dir"
}

declare -A tried
n=0 failures=0
while IFS='@' read -r twin build break old new; do
    [ -n "$only" ] && [ "$only" != "$twin" ] && continue
    check_mutation "$twin" "$build" "$break" "$old" "$new" || failures=$((failures + 1))
    n=$((n + 1))
done < <(mutations)
echo "twin_teeth: $n broken kernels, $failures unnoticed"
[ "$n" -gt 0 ] && [ $failures = 0 ]
