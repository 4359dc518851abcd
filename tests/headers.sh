#!/usr/bin/env bash
# Every public header compiles alone, as C11 and as C++17, and all of them under nvcc where there is one.
set -u
source_dir=${PVA_TEST_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d "${TMPDIR:-/tmp}/headers.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT

# The compilers that built the tree, else the usual ones.
cached() { sed -n "s/^CMAKE_$1_COMPILER:[A-Z]*=//p" "${PVA_TEST_BINARY:-.}/CMakeCache.txt" 2>/dev/null | head -1; }
cc=$(cached C) cxx=$(cached CXX)
cc=${cc:-${CC:-cc}} cxx=${cxx:-${CXX:-c++}}

as_c() { "$cc" -std=c11 -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$1" -x c "$2"; }
as_cxx() { "$cxx" -std=c++17 -Wall -Wextra -Werror -fsyntax-only -I"$1" -x c++ "$2"; }

failures=0
fault() {
    echo "$*"
    failures=$((failures + 1))
}

n=0
for header in "$source_dir"/include/pva/*.h; do
    name=pva/${header##*/}
    # Twice: a second inclusion must change nothing.
    printf '#include "%s"\n#include "%s"\nextern int no_empty_unit;\n' "$name" "$name" >"$work/alone.c"
    as_c "$source_dir/include" "$work/alone.c" || fault "$name does not compile alone as C11"
    as_cxx "$source_dir/include" "$work/alone.c" || fault "$name does not compile alone as C++17"
    printf '#include "%s"\n' "$name" >>"$work/all.cu"
    n=$((n + 1))
done
[ $n -gt 0 ] || fault "no headers in $source_dir/include/pva"

nvcc=$(command -v nvcc || true)
[ -n "$nvcc" ] || { [ -x /usr/local/cuda/bin/nvcc ] && nvcc=/usr/local/cuda/bin/nvcc; }
if [ -n "$nvcc" ]; then
    echo '__global__ void kernel(float *x) { x[0] = 1; }' >>"$work/all.cu"
    "$nvcc" -std=c++17 -I"$source_dir/include" -c "$work/all.cu" -o "$work/all.o" || fault "the headers do not compile under nvcc"
else
    echo "SKIP the headers under nvcc: no nvcc here"
fi

# The checks above must be able to fail.
mkdir "$work/pva"
echo 'size_t planted(void);' >"$work/pva/planted.h"
echo '#include "pva/planted.h"' >"$work/planted.c"
if as_c "$work" "$work/planted.c" 2>/dev/null; then fault "a header that misses an include was accepted as C11"; fi
printf '#include <stdint.h>\nenum e { A };\nstatic inline enum e planted(void) { return 0; }\n' >"$work/pva/planted.h"
as_c "$work" "$work/planted.c" || fault "a good C header was refused"
if as_cxx "$work" "$work/planted.c" 2>/dev/null; then fault "a header that C++ refuses was accepted as C++17"; fi

echo "headers: $n headers, $failures failures"
[ $failures = 0 ]
