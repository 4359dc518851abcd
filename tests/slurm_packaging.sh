#!/usr/bin/env bash
# What lies around the programs for those who install them: the job scripts in an installed tree, the modulefile, completion, manual pages, recipes. Tools
# that are not here are named, and what they would check is left out.
set -u
source=${PVA_TEST_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
build=${PVA_TEST_BINARY:?the build directory}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
checks=0 failures=0
fail() { failures=$((failures + 1)); echo "failed: $*"; }
check() { checks=$((checks + 1)); "$@" || fail "$*"; }
expect() { # WHAT ACTUAL WANTED
    checks=$((checks + 1))
    [ "$2" = "$3" ] || fail "$1: \"$2\", expected \"$3\""
}
have() { command -v "$1" >/dev/null || { echo "SKIP what $1 would check: it is not installed"; return 1; }; }

# --- The scripts -----------------------------------------------------------------------------------------------------------------------------------------
for script in "$source"/slurm/*.sh "$source"/slurm/site.env "$source"/slurm/packaging/*.bash "$source"/tests/slurm_*; do check bash -n "$script"; done
if have shellcheck; then
    # SC2015 SC2034 SC2153 SC2154: variables that are set in one file and read in another, and "a && b || c" meant as it is.
    check shellcheck -S warning -s bash -x -P "$source/slurm" -P "$source/tests" -e SC2015,SC2034,SC2153,SC2154,SC1091 "$source"/slurm/*.sh "$source"/slurm/site.env \
        "$source"/slurm/packaging/completion.bash "$source"/tests/slurm_*.sh "$source"/tests/slurm_lib.bash
    check shellcheck -S warning -s sh "$source/slurm/packaging/man.sh"
fi
# Each phase's script is the same but for what is said here.
for phase in phase1 pile phase2 phase3 steer report run; do
    check grep -q "^run_phase $phase " "$source/slurm/$phase.sh"
    check grep -q "^#SBATCH --signal=B:USR1@" "$source/slurm/$phase.sh"
    check test -x "$source/slurm/$phase.sh"
    [ $phase = run ] || expect "$phase.sh without its name" "$(grep -v '^#' "$source/slurm/$phase.sh" | sed "s/$phase/PHASE/g; s/${phase^^}_OPTIONS/OPTIONS/" | md5sum)" \
        "$(grep -v '^#' "$source/slurm/phase1.sh" | sed 's/phase1/PHASE/g; s/PHASE1_OPTIONS/OPTIONS/' | md5sum)"
done
# Every setting of site.env is read by a script, and explained in its line or above.
for name in $(sed -nE 's/^([A-Z_0-9]+)=.*/\1/p' "$source/slurm/site.env"); do
    [ "$(cat "$source"/slurm/*.sh "$source/slurm/site.env" | grep -cE "\\$\{?$name\b")" -ge 2 ] || fail "site.env: nothing reads $name"
done

# --- Resources by the model's size: what sbatch would be told, without a cluster ---------------------------------------------------------------------------
request() { # SETTINGS... -- PHASE
    (
        here=$source/slurm
        . "$here/common.sh"
        while [ "$1" != -- ]; do export "${1?}"; shift; done
        export HOME=/nowhere
        load_site
        resources "$2"
        printf '%s ' "${options[@]}"
    )
}
has() { # WORDS in the last request
    local word
    for word; do
        checks=$((checks + 1))
        [[ " $got" == *" $word "* ]] || fail "no $word in: $got"
    done
}
got=$(request MODEL_SIZE=2b -- phase1); has --nodes=1 --ntasks-per-node=1 --gres=gpu:1 --mem=14G --time=03:00:00
got=$(request MODEL_SIZE=9b -- steer); has --nodes=1 --ntasks-per-node=4 --gres=gpu:4 --mem=39G --time=24:00:00 --cpus-per-task=8
got=$(request MODEL_SIZE=9b RANKS=8 -- phase1); has --nodes=2 --ntasks-per-node=4 --gres=gpu:4
got=$(request MODEL_SIZE=9b RANKS=8 GPUS_PER_NODE=8 GPU_TYPE=h100 -- phase1); has --nodes=1 --ntasks-per-node=8 --gres=gpu:h100:8
got=$(request MODEL_SIZE=9b RANKS=2 GPU_REQUEST=gpus-per-task -- phase1); has --ntasks-per-node=2 --gpus-per-task=1 --gres=none
got=$(request MODEL_SIZE=2b GPUS_PER_NODE=0 RANKS=6 RANKS_PER_NODE=2 -- phase3); has --nodes=3 --ntasks-per-node=2 --gres=none
got=$(request MODEL_SIZE=9b TIME_LIMIT=00:30:00 MEM_PER_NODE=0 'EXTRA_SBATCH=--exclusive --comment="a b"' -- pile); has --time=00:30:00 --mem=0 --exclusive '--comment=a b'
got=$(request -- report); has --ntasks-per-node=1 --mem=8G --time=01:00:00
got=$(request RANKS=5 -- phase1 2>&1); expect "ranks that do not fill their nodes" $? 2
for limit in 5 5:00 00:05:00 0-00:05; do got=$(request TIME_LIMIT=$limit -- phase1 2>&1); expect "the limit $limit" $? 2; done
for limit in 6 05:01 08:00:00 1-0 UNLIMITED; do got=$(request TIME_LIMIT=$limit -- phase1 2>&1); expect "the limit $limit" $? 0; done
got=$(request LAUNCHER=aprun -- phase1 2>&1); expect "an unknown launcher" $? 2
got=$(request MODEL_SIZE=7b -- phase1 2>&1); expect "an unknown size" $? 2

# --- rank.sh: its own GPU, its own directory ------------------------------------------------------------------------------------------------------------------
rank() { env -u SLURM_LOCALID -u OMPI_COMM_WORLD_LOCAL_RANK -u CUDA_VISIBLE_DEVICES TMPDIR="$dir" "$@" "$source/slurm/rank.sh" bash -c 'echo "${CUDA_VISIBLE_DEVICES:-none} $TMPDIR"' 2>&1; }
expect "all GPUs visible" "$(rank CUDA_VISIBLE_DEVICES=4,5,6,7 SLURM_LOCALID=2)" "6 $dir"
expect "one GPU visible" "$(rank CUDA_VISIBLE_DEVICES=0 SLURM_LOCALID=3)" "0 $dir"
expect "names of GPUs" "$(rank CUDA_VISIBLE_DEVICES=GPU-a,GPU-b SLURM_LOCALID=1)" "GPU-b $dir"
expect "under mpirun" "$(rank CUDA_VISIBLE_DEVICES=0,1 SLURM_LOCALID=0 OMPI_COMM_WORLD_LOCAL_RANK=1)" "1 $dir"
expect "no GPU" "$(rank SLURM_LOCALID=1)" "none $dir"
checks=$((checks + 1)); [[ $(rank CUDA_VISIBLE_DEVICES=0,1 SLURM_LOCALID=2) == *'shares GPU 0'*"0 $dir" ]] || fail "a shared GPU is not told of"
expect "a scratch directory that is made" "$(rank RANK_SCRATCH="$dir/new/place")" "none $dir/new/place"

# --- An installed tree ----------------------------------------------------------------------------------------------------------------------------------------
cmake --install "$build" --prefix "$dir/prefix" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
scripts=$dir/prefix/share/pva-mpi/slurm
for name in site.env common.sh README.md autoencoders.txt $(cd "$source/slurm" && echo ./*.sh); do check test -r "$scripts/$name"; done
(
    here=$scripts
    . "$here/common.sh"
    PVA_PROGRAM=''
    find_program PVA_PROGRAM pva-mpi && echo "$PVA_PROGRAM"
) >"$dir/found"
expect "the program beside installed scripts" "$(cat "$dir/found")" "$(readlink -f "$dir/prefix/bin/pva-mpi")"
program=$dir/prefix/bin/pva-mpi
commands=$("$program" --help | sed -nE 's/^  ([a-z0-9-]+) +.*/\1/p')
for command in $commands; do check test -s "$dir/prefix/share/man/man1/pva-mpi-$command.1"; done
check grep -q '^\.B \\-\\-problems FILE' "$dir/prefix/share/man/man1/pva-mpi-phase1.1"
if have man && man -l --help >/dev/null 2>&1; then
    MANROFFOPT=-ww man --warnings -l "$dir/prefix/share/man/man1/pva-mpi-phase1.1" >"$dir/page" 2>"$dir/warnings" </dev/null
    expect "warnings of a manual page" "$(cat "$dir/warnings")" ''
    check grep -q -- '--problems FILE' "$dir/page"
fi

# --- Completion ------------------------------------------------------------------------------------------------------------------------------------------------
. "$dir/prefix/share/bash-completion/completions/pva-mpi"
complete_words() { # words...: what completes the last
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _pva_mpi
    printf '%s\n' "${COMPREPLY[@]}" | sort | paste -sd' '
}
expect "completion of a command" "$(complete_words "$program" pha | cut -d' ' -f1)" phase1
for command in $commands; do expect "completion of $command" "$(complete_words "$program" "$command")" "$command"; done
expect "completion of an option" "$(complete_words "$program" phase1 --prob)" --problems
expect "completion of a flag" "$(complete_words "$program" phase1 --no-dr)" --no-dry-run
expect "completion of a choice" "$(complete_words "$program" phase1 --backend c)" 'cpu cuda'
expect "completion of a choice whose help is long" "$(complete_words "$program" phase1 --hook resid_p)" 'resid_post resid_pre'
mkdir -p "$dir/here/model"
: >"$dir/here/file"
expect "completion of a directory" "$(complete_words "$program" phase1 --model "$dir/here/")" "$dir/here/model"
expect "completion of a number" "$(complete_words "$program" phase1 --seed '')" ''

# --- The modulefile ---------------------------------------------------------------------------------------------------------------------------------------------
file=$(echo "$dir"/prefix/share/modulefiles/pva-mpi/*)
if have tclsh; then
    cat >"$dir/lint.tcl" <<'END'
set ModulesCurrentModulefile [lindex $argv 0]
foreach name {module-whatis conflict} { proc $name {args} {} }
foreach name {prepend-path setenv} { proc $name {variable value} "puts \"$name \$variable \$value\"" }
source $ModulesCurrentModulefile
ModulesHelp
END
    tclsh "$dir/lint.tcl" "$file" >"$dir/module" 2>"$dir/help" || fail "the modulefile: $(cat "$dir/help")"
    check grep -qx "prepend-path PATH $dir/prefix/bin" "$dir/module"
    check grep -qx "prepend-path MANPATH $dir/prefix/share/man" "$dir/module"
fi
if have modulecmd && [ -x "$(command -v modulecmd)" ]; then
    check test "$(MODULEPATH=$dir/prefix/share/modulefiles modulecmd bash load pva-mpi 2>&1 | grep -c "$dir/prefix/bin")" -ge 1
fi

# --- Recipes: they must name what the build asks for ----------------------------------------------------------------------------------------------------------
# Bytecode beside the source would dirty the tree.
check python3 - "$source/slurm/packaging/package.py" "$source/CMakeLists.txt" <<'END'
import re, sys, types
calls, module = [], types.ModuleType("spack.package")
for name in ("license", "version", "variant", "depends_on"):
    setattr(module, name, lambda *a, _name=name, **k: calls.append((_name, a, k)))
class CMakePackage:
    def define(self, key, value): return f"-D{key}={value}"
module.CMakePackage = CMakePackage
sys.modules["spack"], sys.modules["spack.package"] = types.ModuleType("spack"), module
scope = {}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), scope)
depends = {re.split(r"[@+]", a[0])[0] for n, a, k in calls if n == "depends_on"}
spack_name = {"yaml-0.1": "libyaml", "zlib": "zlib-api"}
wanted = re.search(r"set\(PVA_MODULES ([^)]*)\)", open(sys.argv[2]).read()).group(1).split()
missing = [m for m in wanted if spack_name.get(m, m) not in depends] + [m for m in ("mpi", "hdf5", "gsl", "cmake", "python") if m not in depends]
assert not missing, missing
class Spec(dict):
    def satisfies(self, what): return what == "+cuda"
package = scope["PvaMpi"]()
package.spec = Spec(hdf5=types.SimpleNamespace(prefix="/h"))
assert package.cmake_args() == ["-DPVA_CUDA=ON", "-DHDF5_ROOT=/h"], package.cmake_args()
END
check grep -q '^Bootstrap: ' "$source/slurm/packaging/pva-mpi.def"
echo "slurm_packaging: $checks checks, $failures failed"
[ $failures = 0 ]
