#!/usr/bin/env bash
# The tree keeps its drawing: who may include whom, what lies at the top, how long a file may be, no unfinished words.
#   rooms.sh            checks the source tree, then checks itself: each planted violation must be found
#   rooms.sh --tree DIR checks DIR alone, all of it
set -u
export LC_ALL=C

top_level='src mpi kernels slurm include tests analysis CMakeLists.txt CMakePresets.json README.md LICENSE bootstrap .ci .clang-format .gitignore'
longest=900
# Written with gaps, so that this file does not find itself.
unfinished='to''do|fix''me|not imple''mented|place''holder|st''ub'

is_checkout() { # is the current directory the top of one?
    [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$(pwd -P)" ]
}

# Files below the current directory: those git knows (with "new": also those it would take), or all but builds without git.
files() {
    if is_checkout; then
        if [ "${1:-}" = new ]; then git ls-files --cached --others --exclude-standard; else git ls-files; fi
    else
        find . -mindepth 1 \( -name .git -o -name 'build*' -type d -o -name __pycache__ \) -prune -o -type f -print | sed 's|^\./||'
    fi
}

check_top_level() {
    local name
    for name in $(files | cut -d/ -f1 | sort -u); do
        case " $top_level " in
        *" $name "*) ;;
        *) echo "$name: is not part of the top level ($top_level)" ;;
        esac
        if [ -d "$name" ] && [ "$name" != .ci ] && ! grep -q "^    $name/ " README.md; then
            echo "$name: README.md draws no such room"
        fi
    done
}

check_includes() {
    files new | grep -E '^(include|src|kernels|analysis|mpi)/.*\.(c|h|cc|cu|cuh)$' | tr '\n' '\0' |
        xargs -0 -r grep -HnE '^[[:space:]]*#[[:space:]]*include' /dev/null | awk '
        function fault(why) { printf "%s:%s: %s %s: %s\n", file, line, "includes", header, why }
        function exists(path,   text, status) { status = (getline text < path); close(path); return status >= 0 }
        BEGIN {
            n = split("assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg " \
                      "stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype", name, " ")
            for (i = 1; i <= n; i++) standard[name[i] ".h"] = 1
            mpi = "^mpi(_|\\.h)"; hdf5 = "^(hdf5|H5)"; cuda = "^(cuda|cublas|cudnn|cusparse|curand|nccl|nvrtc|nvtx|nvml)"; gsl = "^gsl/"
            not_for["include"] = "only C headers and pva/*.h"
            banned["src"] = mpi "|" hdf5 "|" cuda "|" gsl;    not_for["src"] = "src knows no MPI, HDF5, CUDA or GSL"
            banned["kernels"] = mpi "|" hdf5 "|" gsl;         not_for["kernels"] = "kernels know no MPI, HDF5 or GSL"
            banned["analysis"] = mpi "|" cuda;                not_for["analysis"] = "analysis knows no MPI or CUDA"
            banned["mpi"] = cuda;                             not_for["mpi"] = "mpi asks the backend registry, not CUDA"
        }
        {
            split($0, part, ":"); file = part[1]; line = part[2]
            room = file; sub("/.*", "", room)
            here = file; sub("/[^/]*$", "/", here)
            text = $0; sub(/^[^#]*#[ \t]*include[ \t]*/, "", text)
            close_with = substr(text, 1, 1) == "<" ? ">" : "\""
            header = substr(text, 2); n = index(header, close_with)
            if (text !~ /^[<"]/ || n == 0) { header = text; fault("the name of a file is expected"); next }
            header = substr(header, 1, n - 1)
            if (header ~ /(^|\/)\.\.(\/|$)/ || header ~ /^\//) { fault("leaves the room"); next }
            if (header ~ /^pva\//) { if (!exists("include/" header)) fault("there is no such public header"); next }
            if (close_with == "\"") {
                if (room == "include") fault(not_for[room])
                else if (!exists(here header) && !exists(room "/" header)) fault("is not in " room "/: only pva/*.h is shared between rooms")
                next
            }
            if (room == "include") { if (!(header in standard)) fault(not_for[room]) }
            else if (header ~ banned[room]) fault(not_for[room])
            if (room == "analysis" && header ~ hdf5 && !(file in reader)) {
                reader[file] = 1
                if (++readers > 1) fault("one file of analysis reads HDF5, this is another")
            }
        }'
}

check_length() {
    files new | grep -E '\.(c|h|cc|cu|cuh)$' | tr '\n' '\0' | xargs -0 -r wc -l /dev/null |
        awk -v longest="$longest" '$2 != "total" && $1 > longest { print $2 ": " $1 " lines, the limit is " longest }'
}

check_words() {
    files new | grep -E '(\.(c|h|cc|cu|cuh|sh)|^bootstrap|^\.ci/run)$' | tr '\n' '\0' |
        xargs -0 -r grep -HniE "$unfinished" /dev/null | sed 's/$/   (an unfinished word)/'
}

check_tree() (
    cd "$1" || exit 2
    found=$([ "${2:-}" = inside ] || check_top_level; check_includes; check_length; check_words)
    [ -z "$found" ] && exit 0
    printf '%s\n' "$found"
    exit 1
)

if [ "${1:-}" = --tree ]; then
    check_tree "$2"
    exit
fi

source_dir=${PVA_TEST_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
failures=0
scope=all
if ! (cd "$source_dir" && is_checkout); then
    echo "SKIP the top level: this is no git checkout, so what lies there may be anyone's"
    scope=inside
fi
if ! check_tree "$source_dir" $scope; then failures=1; fi

# The self-test, on a copy without git.
copy=$(mktemp -d "${TMPDIR:-/tmp}/rooms.XXXXXX") || exit 2
trap 'rm -rf "$copy"' EXIT
# shellcheck disable=SC2086 # a list of names
(cd "$source_dir" && files new | grep -E "^($(tr ' ' '|' <<<"$top_level" | sed 's/\./\\./g'))(/|\$)" | tr '\n' '\0' | tar -cf - --null -T - --ignore-failed-read 2>/dev/null) | tar -xf - -C "$copy"
n_planted=0

# expect_found WHAT FILE...: the check must fail with WHAT; then the files are removed.
expect_found() {
    local what=$1 output
    shift
    n_planted=$((n_planted + 1))
    if output=$(check_tree "$copy") || ! grep -qF -- "$what" <<<"$output"; then
        echo "a planted violation was not found: $* should give \"$what\", got: ${output:-nothing}"
        failures=$((failures + 1))
    fi
    (cd "$copy" && rm -f -- "$@")
}
# plant FILE TEXT WHAT
plant() {
    mkdir -p "$copy/$(dirname "$1")"
    printf '%b\n' "$2" >"$copy/$1"
    expect_found "$3" "$1"
}

if [ $failures = 0 ] && ! check_tree "$copy"; then
    echo "the copy differs from the tree: nothing was planted yet"
    failures=1
fi
plant include/pva/planted.h '#include <mpi.h>' 'planted.h:1: includes mpi.h: only C headers'
plant include/pva/planted.h '#include <stdio.h>\n#include <unistd.h>' 'planted.h:2: includes unistd.h'
plant include/pva/planted.h '#include "planted_private.h"' 'includes planted_private.h'
plant include/pva/planted.h '#include "pva/absent.h"' 'there is no such public header'
plant src/planted.c '#include <mpi.h>' 'planted.c:1: includes mpi.h: src knows no MPI'
plant src/planted.c ' #  include<hdf5.h> // here' 'includes hdf5.h'
plant src/planted.c '#include <cuda_runtime.h>' 'includes cuda_runtime.h'
plant src/planted.c '#include <gsl/gsl_cdf.h>' 'includes gsl/gsl_cdf.h'
plant src/planted.c '#include "../mpi/par.h"' 'leaves the room'
plant src/planted.cc '#include "planted_nowhere.h"' 'is not in src/'
plant src/spd/planted.c '#include <H5public.h>' 'includes H5public.h'
plant src/planted.c '#include PLANTED' 'the name of a file is expected'
plant kernels/planted.cu '#include <hdf5.h>' 'kernels know no MPI'
plant kernels/planted.cu '#include <mpi.h>' 'kernels know no MPI'
plant kernels/planted.cu '#include "options_private.h"' 'is not in kernels/'
plant analysis/planted.c '#include <mpi.h>' 'analysis knows no MPI'
plant analysis/planted.c '#include <cublas_v2.h>' 'analysis knows no MPI'
plant mpi/planted.c '#include <cuda_runtime_api.h>' 'mpi asks the backend registry'
plant mpi/planted.c '#include "options_private.h"' 'is not in mpi/'
plant planted.txt 'x' 'planted.txt: is not part of the top level'
plant planted/file 'x' 'planted: is not part of the top level'
kept=$(cat "$copy/README.md")
sed '/^    src\//d' <<<"$kept" >"$copy/README.md"
expect_found 'src: README.md draws no such room' README.md
printf '%s\n' "$kept" >"$copy/README.md"
plant tests/planted.c "$(seq 901)" 'tests/planted.c: 901 lines'
for word in TO'DO' fix'me' 'Not imple''mented' place'holder' st'ub'; do
    plant src/planted.c "/* $word */" "src/planted.c:1:/* $word */"
    plant tests/planted.sh "# $word" "tests/planted.sh:1:# $word"
done
mkdir -p "$copy/analysis"
for i in 1 2 3; do echo '#include <hdf5.h>' >"$copy/analysis/planted_$i.c"; done
expect_found 'one file of analysis reads HDF5' analysis/planted_1.c analysis/planted_2.c analysis/planted_3.c
if git --version >/dev/null 2>&1; then
    git -C "$copy" init -q && git -C "$copy" add -A
    plant mpi/planted.cuh '#include <cuda.h>' 'mpi asks the backend registry' # not added yet, but found
    echo x >"$copy/planted.txt" && git -C "$copy" add planted.txt
    expect_found 'planted.txt: is not part of the top level' planted.txt
fi
echo "rooms: the tree and $n_planted planted violations, $failures failures"
[ $failures = 0 ]
