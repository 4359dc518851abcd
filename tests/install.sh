#!/usr/bin/env bash
# What `cmake --install` leaves can be used: a program of a few lines is built through pkg-config and through find_package, from
# a tree that was moved after it was installed.
set -u
build=${PVA_TEST_BINARY:?the build directory}
if grep -q '^PVA_SANITIZE:BOOL=ON' "$build/CMakeCache.txt"; then
    echo "SKIP the installed package: sanitized libraries need their consumer's flags"
    exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/install.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
failures=0
fault() {
    echo "$*"
    failures=$((failures + 1))
}
cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt" | head -1; }

cmake --install "$build" --prefix "$work/first" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
mv "$work/first" "$work/prefix"
cd "$work" || exit 2
for path in bin/pva-mpi include/pva/options.h; do
    [ -f "prefix/$path" ] || fault "$path was not installed"
done
for name in libpva-core.a libpva-par.a pva.pc pva-config.cmake pva-config-version.cmake LICENSE README.md; do
    [ -n "$(find prefix -name "$name")" ] || fault "$name was not installed"
done
[ -x prefix/bin/pva-mpi ] || fault "bin/pva-mpi has no run bit"
# A CUDA module that was built is installed, and the installed program finds it: it may miss a GPU, but not the module.
if [ -f "$build/libpva-cuda.so" ]; then
    prefix/bin/pva-mpi doctor --backend cuda 2>&1 | grep -E '^[^ ]+ +(backend|gpu)' >gpu
    [ -s gpu ] && ! grep -q 'libpva-cuda' gpu || fault "the installed program does not find its CUDA module: $(cat gpu)"
fi
# The two directories may stand in a library's debug information, but in nothing that is read when it is used.
grep -rIl -e "$(cached CMAKE_HOME_DIRECTORY)" -e "$work/first" prefix >found && fault "the build's own paths were installed: $(cat found)"

cat >consumer.c <<'END'
#include <pva/options.h>
#include <pva/rng.h>

static const struct pva_option table[] = {{"layers", PVA_OPT_INT, "N", "26", "layers", NULL, 1, 99}, {NULL, PVA_OPT_INT, NULL, NULL, NULL, NULL, 0, 0}};

int main(int argc, char **argv) {
    const struct pva_option *const tables[] = {table, NULL};
    struct pva_options *o;
    struct pva_error err = {0};
    if (pva_options_parse("consumer", tables, argc, argv, &o, &err)) return err.code;
    uint32_t w[4] = {0, 0, 0, 0};
    pva_philox(w, w, w);
    printf("%d layers, %08x\n", (int)pva_options_int(o, "layers"), (unsigned)w[0]);
    pva_options_free(&o);
    return 0;
}
END
expect_output() {
    local output
    output=$("$2" --layers 42) || fault "$1: the program failed"
    [ "$output" = "42 layers, 6627e8d5" ] || fault "$1: the program said \"$output\""
}

pc=$(dirname "$(find "$work/prefix" -name pva.pc)")
flags=$(PKG_CONFIG_PATH=$pc${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH} pkg-config --cflags --libs pva) || fault "pkg-config does not know pva"
# shellcheck disable=SC2086 # flags are words
if "$(cached CMAKE_C_COMPILER)" consumer.c $flags -o by_pkg_config; then
    expect_output pkg-config ./by_pkg_config
else
    fault "pkg-config: the consumer was not built with: $flags"
fi

mkdir consumer
mv consumer.c consumer/
cat >consumer/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
find_package(pva 0.1 REQUIRED COMPONENTS par)
add_executable(with_core consumer.c)
target_link_libraries(with_core PRIVATE pva::core)
add_executable(with_par consumer.c)
target_link_libraries(with_par PRIVATE pva::par)
END
if cmake -S consumer -B consumer/build -G "$(cached CMAKE_GENERATOR)" -DCMAKE_C_COMPILER="$(cached CMAKE_C_COMPILER)" \
    -DCMAKE_PREFIX_PATH="$work/prefix" >log 2>&1 && cmake --build consumer/build >>log 2>&1; then
    expect_output "find_package, pva::core" consumer/build/with_core
    expect_output "find_package, pva::par" consumer/build/with_par
else
    cat log
    fault "find_package: the consumer was not built"
fi
echo "install: $failures failures"
[ $failures = 0 ]
