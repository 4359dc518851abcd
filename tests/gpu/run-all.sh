#!/usr/bin/env bash
# Everything that only a GPU can show, in one call of less than 8 minutes; a table at the end. Exit 0: all passed or had nothing to run on,
# 1: something failed, 77: no GPU here.
#   tests/gpu/run-all.sh                 builds into build-gpu for the card that is here, then checks
#   tests/gpu/run-all.sh --build DIR     checks with what lies in DIR, built elsewhere: nothing is compiled (LD_LIBRARY_PATH is kept)
#   tests/gpu/run-all.sh --sanitize-only / --no-sanitize / --bench-model DIR / --seconds N
# Without CMake, MPI or HDF5 the kernels and their twins are still built and run, by nvcc and cc alone.
set -u
export LC_ALL=C
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
build=$source_dir/build-gpu prebuilt='' sanitize=1 only_sanitize='' bench_model='' budget=465
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$(cd "$2" && pwd) || exit 2; prebuilt=1; shift ;;
    --no-sanitize) sanitize='' ;;
    --sanitize-only) only_sanitize=1 ;;
    --bench-model) bench_model=$2; shift ;;
    --seconds) budget=$2; shift ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
began=$SECONDS
work=$(mktemp -d "${TMPDIR:-/tmp}/gpu.XXXXXX") || exit 2
logs=${OUT:-$work}
trap 'rm -rf "$work"' EXIT
rows=() failures=0
left() { echo $((budget - (SECONDS - began))); }

row() { # STATUS SECONDS NAME DETAIL
    rows+=("$(printf '%-4s %5ss  %-34s %s' "$1" "$2" "$3" "$4")")
    echo "${rows[-1]}"
    [ "$1" = FAIL ] && failures=$((failures + 1))
    return 0
}

# step NAME SECONDS COMMAND...: at most so long, and never beyond the budget. Its last line is the detail. Exit 77 is a skip.
step() {
    local name=$1 limit=$2 from=$SECONDS status log detail
    shift 2
    log=$logs/$(tr -c 'a-zA-Z0-9\n' _ <<<"$name").log
    if [ "$(left)" -lt 15 ]; then row SKIP 0 "$name" "no time left"; return; fi
    [ "$limit" -gt "$(left)" ] && limit=$(left)
    timeout -k 5 "$limit" "$@" >"$log" 2>&1 </dev/null
    status=$?
    detail=$(grep -v '^$' "$log" | tail -1 | cut -c1-110)
    case $status in
    0) row pass $((SECONDS - from)) "$name" "$detail" ;;
    77) row SKIP $((SECONDS - from)) "$name" "$detail" ;;
    124 | 137) row FAIL $((SECONDS - from)) "$name" "not done after $limit s" ;;
    *) row FAIL $((SECONDS - from)) "$name" "exit $status: $detail"; tail -15 "$log" | sed 's/^/    /' ;;
    esac
    return 0
}

# --- Is there a card? -----------------------------------------------------------------------------------------------------
no_gpu() { echo "SKIP no GPU: $1"; exit 77; }
PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin
if command -v nvidia-smi >/dev/null; then
    card=$(nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader 2>&1 | head -1)
    case $card in *,*) ;; *) no_gpu "nvidia-smi says: $card" ;; esac
    capability=$(sed 's/.*, *//; s/[^0-9]//g' <<<"$card")
elif ls /dev/nvidia[0-9]* >/dev/null 2>&1; then
    card="a card without nvidia-smi" capability=''
else
    no_gpu "no nvidia-smi and no /dev/nvidia0"
fi
row info 0 card "$card"
row info 0 machine "$(date -u +%Y-%m-%dT%H:%MZ), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
row info 0 source "$(git -C "$source_dir" describe --always --dirty 2>/dev/null || echo 'no git')"
command -v nvcc >/dev/null && row info 0 nvcc "$(nvcc --version | sed -n 's/.*release //p')"

# --- Building -------------------------------------------------------------------------------------------------------------
architectures=${capability:+$capability-real}
architectures=${architectures:-80-real;90-real;90-virtual}
with_cmake() {
    local generator=()
    command -v ninja >/dev/null && generator=(-G Ninja)
    cmake -S "$source_dir" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DPVA_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$architectures" &&
        cmake --build "$build" -j "$(nproc)" --target gpu_checks && echo "CMake, for $architectures"
}
# The twins need the CPU backend and little else: what compiles of src/ goes into an archive, the linker takes what it wants.
without_cmake() {
    local nvcc_flags=(-std=c++17 -O3 --fmad=false -I"$source_dir/include" -Xcompiler=-fPIC) c_flags file left_out=''
    c_flags=(-std=gnu11 -O2 -fopenmp -ffp-contract=off -fno-math-errno -w -D_GNU_SOURCE '-DPVA_VERSION="twins"'
             -I"$source_dir/include" -I"$source_dir/src" -I"$source_dir/kernels" -I"$source_dir/tests")
    [ -n "$capability" ] && nvcc_flags+=(-gencode "arch=compute_$capability,code=sm_$capability")
    command -v nvcc >/dev/null && command -v cc >/dev/null || { echo "no nvcc or no cc"; return 77; }
    local cuda
    cuda=$(cd "$(dirname "$(readlink -f "$(command -v nvcc)")")/.." && pwd)
    mkdir -p "$build/tests" "$build/objects" && cd "$build/objects" || return 1
    printf '%s\0' "$source_dir"/kernels/*.cu | xargs -0 -P "$(nproc)" -I{} sh -c 'f=$1; shift; nvcc "$@" -c "$f" -o "$(basename "$f").o"' nvcc {} "${nvcc_flags[@]}" || return 1
    printf '%s\0' "$source_dir"/src/*.c "$source_dir"/src/spd/*.c | xargs -0 -P "$(nproc)" -I{} sh -c 'f=$1; shift; cc "$@" -c "$f" 2>/dev/null || true' cc {} "${c_flags[@]}"
    rm -f core.a kernels.a
    ar rcs kernels.a ./*.cu.o
    for file in "$source_dir"/kernels/*.c; do
        cc "${c_flags[@]}" -I"$cuda/include" -c "$file" && ar rcs kernels.a "$(basename "$file" .c).o" || return 1
    done
    for file in "$source_dir"/src/*.c "$source_dir"/src/spd/*.c; do
        file=$(basename "$file" .c).o
        [ -f "$file" ] && ar rcs core.a "$file"
    done
    for file in "$source_dir"/tests/twin_*.c; do
        file=$(basename "$file" .c)
        cc "${c_flags[@]}" -I"$cuda/include" -c "$source_dir/tests/$file.c" || return 1
        # One that wants more of core than could be compiled here is left out, by name.
        c++ -fopenmp "$file.o" kernels.a core.a -L"$cuda/lib64" -L"$cuda/targets/x86_64-linux/lib" -lcudart_static -ldl -lrt -lpthread -lm \
            -o "../tests/${file}_gpu" || left_out="$left_out $file"
    done
    echo "nvcc and cc alone, so the kernels and their twins only${left_out:+; without$left_out}"
}
export -f with_cmake without_cmake
export source_dir build architectures capability work
if [ -n "$prebuilt" ]; then
    row info 0 build "$build, as it is"
elif command -v cmake >/dev/null && command -v mpicc >/dev/null; then
    step build 240 bash -c with_cmake
else
    step build 240 bash -c without_cmake
fi

# --- The kernels against their twins, twin_golden (the whole graph against transformers) among them -------------------------
pva=$build/pva-mpi
export PVA_TEST_SOURCE=$source_dir PVA_TEST_BINARY=$build PVA_MPI=$pva
twins=()
for twin in "$build"/tests/twin_*_gpu; do [ -x "$twin" ] && twins+=("$twin"); done
[ ${#twins[@]} -gt 0 ] || row FAIL 0 twins "none in $build/tests"
cd "$source_dir" || exit 2
if [ -z "$only_sanitize" ]; then
    for twin in "${twins[@]}"; do step "$(basename "$twin" _gpu)" 90 bash -c '"$1" || { s=$?; [ $s = 77 ] && exit 1 || exit $s; }' skipping_is_failing "$twin"; done
fi

# --- The program, on the card and on the CPU -------------------------------------------------------------------------------
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
mini=$source_dir/tests/data/mini
model=$mini/model problems=$mini/problems.jsonl
export pva model problems work

generated() { # FILE options...: the completions of some problems' texts, without what depends on time
    local out=$1
    shift
    "$pva" generate --quiet --model "$model" --prompts "$work/prompts.jsonl" --max-new-tokens 48 "$@" >"$out"
}
prompts() {
    python3 -c '
import json, sys
for i, line in zip(range(24), open(sys.argv[1])):
    p = json.loads(line)
    print(json.dumps({"id": str(i), "prompt": p.get("text") or p.get("prompt")}))' "$problems" >"$work/prompts.jsonl"
}
greedy() {
    prompts && generated "$work/cpu" --backend cpu --dtype f32 --temperature 0 && generated "$work/cuda" --backend cuda --dtype f32 --temperature 0 || return 1
    cmp "$work/cpu" "$work/cuda" && echo "$(wc -l <"$work/cpu") greedy completions are the CPU's"
}
batches() {
    local n
    prompts || return 1
    for n in 1 5 16; do generated "$work/batch$n" --backend cuda --temperature 0.8 --seed 3 --batch-size $n || return 1; done
    for n in 5 16; do cmp "$work/batch1" "$work/batch$n" || return 1; done
    echo "batches of 1, 5 and 16: the same bytes"
}
on_card() { # NAME RANKS PHASE options...
    local name=$1 ranks=$2 phase=$3
    shift 3
    # An option that every phase with a backend understands, by the environment, as phase 2's table is its own.
    PVA_ALLOW_SHARED_GPU=yes timeout 150 mpirun -n "$ranks" "$pva" "$phase" --run "$work/$name" --backend cuda --threads 1 --quiet "$@"
}
phase1() { # NAME RANKS options...
    local name=$1 ranks=$2
    shift 2
    on_card "$name" "$ranks" phase1 --model "$model" --problems "$problems" --end 119 --max-tokens 260 "$@"
}
same() { # FILE: every dataset of it in the runs one and NAME
    local file=$1 name=$2 d
    for d in $(h5ls -r "$work/one/$file" | awk '/ Dataset / { print $1 }'); do
        h5diff "$work/one/$file" "$work/$name/$file" "$d" >/dev/null || { echo "$file: one rank and $name differ in $d"; return 1; }
    done
}
has_tools() { command -v mpirun >/dev/null && command -v h5diff >/dev/null && command -v h5ls >/dev/null || { echo "no mpirun, h5diff or h5ls here"; return 77; }; }
ranks() {
    has_tools || return
    phase1 one 1 && phase1 three 3 --batch-size 5 && same phase1.h5 three && echo "phase 1 on 1 and 3 ranks sharing the card: the same bytes"
}
resumed() {
    has_tools || return
    local try job
    for try in 1 2 3; do
        phase1 killed $((1 + try % 3)) >/dev/null 2>&1 &
        job=$!
        sleep "2.$((RANDOM % 9))"
        pkill -KILL -f "phase1 --run $work/killed"
        wait $job
    done
    phase1 killed 3 && same phase1.h5 killed && echo "killed three times and resumed: the same bytes"
}
study() {
    has_tools || return
    local name file ranks=1
    for name in one three; do
        [ $name = three ] && ranks=3
        on_card $name "$ranks" pile --model "$model" --sae "$mini/saes" --pile "$mini/pile.jsonl" && on_card $name "$ranks" phase2 --sae "$mini/saes" --permutations 2000 &&
            on_card $name "$ranks" phase3 --limit 12 && on_card $name "$ranks" steer --limit 6 || return 1
    done
    for file in pile.h5 phase2.h5 phase3.h5 steer.h5; do same $file three || return 1; done
    "$pva" report "$work/three" --quiet && test -s "$work/three/report.html" && echo "all phases on 1 and 3 ranks sharing the card: the same bytes"
}
bench() {
    local shape=$bench_model
    if [ -z "$shape" ]; then
        shape=$work/shape-2b
        cat >"$work/2b.json" <<'J'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 26, "hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8,
 "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000, "sliding_window": 4096, "query_pre_attn_scalar": 256, "max_position_embeddings": 8192,
 "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
J
        "$pva" synth --quiet --like "$work/2b.json" --out "$shape" || return 1
    fi
    "$pva" bench generate --model "$shape" --backend cuda --new-tokens 64 --prompt-tokens 512 &&
        "$pva" bench prefill --model "$shape" --backend cuda --prompt-tokens 2048 &&
        "$pva" bench generate --model "$shape" --backend cuda --new-tokens 64 --prompt-tokens 512 --batch-size 128
}
export -f generated prompts greedy batches on_card phase1 same has_tools ranks resumed study bench
export bench_model mini

if [ -n "$only_sanitize" ]; then
    :
elif ! [ -x "$pva" ]; then
    row SKIP 0 program "no pva-mpi in $build"
elif ! "$pva" --help >/dev/null 2>&1; then
    row SKIP 0 program "pva-mpi does not start: $(ldd "$pva" 2>/dev/null | grep -c 'not found') libraries are missing"
elif ! "$pva" generate --backend cuda --model "$model" --prompt x --max-new-tokens 1 --quiet >"$work/first" 2>&1; then
    row FAIL 0 program "$(tail -1 "$work/first")"
else
    step 'greedy as on the CPU, f32' 60 bash -c greedy
    step 'batch sizes' 60 bash -c batches
    step '1 and 3 ranks on one card' 120 bash -c ranks
    step 'killed and resumed' 90 bash -c resumed
    step 'the whole study' 150 bash -c study
    step 'bench, 2B shape' 120 bash -c bench
    [ -s "$logs/bench__2B_shape.log" ] && sed 's/^/    /' "$logs/bench__2B_shape.log"
fi

# --- Under compute-sanitizer, with the time that is left -------------------------------------------------------------------
if [ -z "$sanitize" ]; then
    row SKIP 0 compute-sanitizer "not asked for"
elif ! command -v compute-sanitizer >/dev/null; then
    row SKIP 0 compute-sanitizer "not installed here"
else
    for tool in memcheck racecheck; do
        for twin in "${twins[@]}"; do
            step "$tool $(basename "$twin" _gpu)" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$twin"
        done
    done
fi

echo
printf '%s\n' "${rows[@]}" | tee "$logs/table.txt"
echo "$((SECONDS - began)) s, $failures failed"
[ $failures = 0 ]
