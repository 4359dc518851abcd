#!/usr/bin/env bash
# Every line of twin_X.teeth breaks a kernel in one place; twin_X must notice. The broken source is built for the CPU and put before the right
# one. A line: FILE TO BUILD@FILE TO BREAK@OLD TEXT@NEW TEXT, where \n stands for a line's end.
#   twin_teeth.sh [X]    only those of twin_X
set -u
source_dir=${PVA_TEST_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
binary_dir=${PVA_TEST_BINARY:-$source_dir/build}
work=$(mktemp -d "${TMPDIR:-/tmp}/teeth.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
cxx=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$binary_dir/CMakeCache.txt" 2>/dev/null | head -1)
cxx=${cxx:-${CXX:-c++}}

# run_twin TWIN BUILD DIR: builds DIR/BUILD and runs the twin with it; the twin's exit status, its output in DIR/log. 125: does not compile.
run_twin() {
    local language=(-x c++ -std=c++17)
    case $2 in *.c) language=(-x c -std=gnu11) ;; esac
    "$cxx" "${language[@]}" -O0 -fPIC -shared -w -ffp-contract=off -I"$3" -I"$source_dir/include" -I"$source_dir/tests/simt" "$3/$2" -o "$3/broken.so" >"$3/log" 2>&1 || return 125
    timeout 120 env PVA_CHECK_BRIEF=1 LD_PRELOAD="$3/broken.so" ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 "$binary_dir/tests/twin_$1" >"$3/log" 2>&1
}

# check_line TWIN@BUILD@BREAK@OLD@NEW, or TWIN@BUILD: the source as it is, which must pass.
check_line() {
    local twin build break old new dir status
    IFS='@' read -r twin build break old new <<<"$1"
    dir=$(mktemp -d "$work/XXXXXX")
    cp "$source_dir"/kernels/*.cu "$source_dir"/kernels/*.cuh "$source_dir"/kernels/*.h "$source_dir"/kernels/*.c "$dir"
    if [ -n "$break" ] && ! OLD=$old NEW=$new python3 -c '
import os, sys
text = open(sys.argv[1]).read()
old, new = (os.environ[name].replace("\\n", "\n") for name in ("OLD", "NEW"))
if old not in text: sys.exit(1)
open(sys.argv[1], "w").write(text.replace(old, new))' "$dir/$break"; then
        echo "twin_$twin.teeth: $break does not hold: $old"
        return 1
    fi
    run_twin "$twin" "$build" "$dir"
    status=$?
    if [ -z "$break" ] && [ $status != 0 ]; then
        echo "twin_$twin fails with $build as it is:"
        head -5 "$dir/log"
        return 1
    elif [ -n "$break" ] && [ $status = 0 ]; then
        echo "twin_$twin did not notice in $break: \"$old\" became \"$new\""
        return 1
    # It noticed for the reason meant: a check, a fence or a misaligned access, and not a compiler or a loader.
    elif [ -n "$break" ] && { [ $status = 125 ] || ! grep -qE 'failed|, expected|: status [0-9]+: |ERROR: AddressSanitizer|runtime error' "$dir/log"; }; then
        echo "twin_$twin came to no verdict on \"$new\" in $break (status $status):"
        head -5 "$dir/log"
        return 1
    fi
    rm -rf "$dir"
}

lines() {
    local file twin
    for file in "$source_dir"/tests/twin_${1:-*}.teeth; do
        twin=$(basename "$file" .teeth)
        twin=${twin#twin_}
        grep -v '^#' "$file" | cut -d@ -f1 | sort -u | sed "s/^/$twin@/"
        grep -v '^#' "$file" | sed "s/^/$twin@/"
    done
}

export -f run_twin check_line
export source_dir binary_dir work cxx
n=$(lines "${1:-}" | grep -c '@.*@.*@')
lines "${1:-}" | tr '\n' '\0' | xargs -0 -P 2 -n 1 bash -c 'check_line "$1"' check >"$work/faults" 2>&1
status=$?
cat "$work/faults"
echo "twin_teeth: $n broken kernels, $([ $status = 0 ] && echo all noticed || echo not all noticed)"
[ "$n" -gt 0 ] && [ $status = 0 ]
