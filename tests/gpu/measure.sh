#!/usr/bin/env bash
# Measures everything of the speed table on the GPU that is here, in one call of less than 8 minutes, and writes it as a table ($OUT/measured.md when
# OUT is set, and standard output). Every figure stands beside its limit, measured in the same run. Exit 0: measured, whatever the gates say;
# 1: something could not be measured; 77: no GPU here.
#   tests/gpu/measure.sh [--build DIR]     with DIR/pva-mpi (default build-gpu; built there when missing)
#   --problems FILE                        MBPP, for phase 1 and the peers; default: tests/data/mini/problems.jsonl
#   --model DIR                            instead of random weights in Gemma 2 2B's shape; --large-model DIR likewise, 9B
#   --python PATH                          one that has torch and transformers, for the peers; default python3
#   --seconds N                            for all of it; what does not fit is named
#   --dry                                  the same rows on the CPU with the mini model: whether the script works, no figure worth keeping
set -u
export LC_ALL=C
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
mini=$source_dir/tests/data/mini
build=$source_dir/build-gpu problems=$mini/problems.jsonl model='' large='' python=python3 budget=465 dry='' backend=cuda
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2; shift ;;
    --problems) problems=$2; shift ;;
    --model) model=$2; shift ;;
    --large-model) large=$2; shift ;;
    --python) python=$2; shift ;;
    --seconds) budget=$2; shift ;;
    --dry) dry=1 backend=cpu ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_ess_singleton_isolated=1
work=$(mktemp -d "${TMPDIR:-/tmp}/measure.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
out=${OUT:-$work}
table=$out/measured.md
began=$SECONDS failures=0
left() { echo $((budget - (SECONDS - began))); }

# --- What is here ---------------------------------------------------------------------------------------------------------
card=none
if [ -z "$dry" ]; then
    architecture='80-real;90-real;90-virtual'
    if command -v nvidia-smi >/dev/null; then
        card=$(nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader 2>&1 | head -1)
        case $card in *,*) ;; *) echo "SKIP no GPU: nvidia-smi says: $card"; exit 77 ;; esac
        architecture=$(sed 's/.*, *//; s/[^0-9]//g' <<<"$card")-real
    elif ls /dev/nvidia[0-9]* >/dev/null 2>&1; then
        card="a card without nvidia-smi"
    else
        echo "SKIP no GPU: no nvidia-smi and no /dev/nvidia0"
        exit 77
    fi
    if ! [ -x "$build/pva-mpi" ]; then
        { cmake -S "$source_dir" -B "$build" -DCMAKE_BUILD_TYPE=Release -DPVA_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$architecture" &&
            cmake --build "$build" -j "$(nproc)" --target pva-mpi cuda; } >"$out/build.log" 2>&1 || { tail -20 "$out/build.log"; exit 1; }
    fi
fi
pva=$build/pva-mpi
[ -x "$pva" ] || { echo "no $pva"; exit 2; }
{
    echo "$(date -u +%Y-%m-%d), $card, $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1); $(git -C "$source_dir" describe --always --dirty 2>/dev/null)"
    [ -n "$dry" ] && echo "A dry run on the CPU with the mini model: the figures mean nothing."
    printf '\n| what | figure | limit in the same run | ratio | gate |\n|---|---|---|---|---|\n'
} >"$table"

row() { echo "| $1 | $2 | ${3:--} | ${4:--} | ${5:--} |" | tee -a "$table"; }

# measure NAME SECONDS COMMAND...: its output in $work/said, also kept. Fails when it fails or there is no time for it.
measure() {
    local name=$1 limit=$2 status log
    shift 2
    log=$out/$(tr -c 'a-zA-Z0-9\n' _ <<<"$name").log
    if [ "$(left)" -lt 20 ]; then row "$name" "not measured: no time left"; return 1; fi
    [ "$limit" -gt "$(left)" ] && limit=$(left)
    timeout -k 5 "$limit" bash -c '"$@"' measure "$@" >"$log" 2>&1 </dev/null
    status=$?
    cp "$log" "$work/said" 2>/dev/null
    [ $status = 0 ] && return 0
    if [ $status = 77 ]; then row "$name" "not measured: $(tail -1 "$log")"; return 1; fi
    failures=$((failures + 1))
    row "$name" "FAILED, $([ $status = 124 ] && echo "not done after $limit s" || echo "exit $status: $(grep -v '^$' "$log" | tail -1 | cut -c1-100)")"
    return 1
}
said() { sed -nE "s/$1/\\1/p" "$work/said" | head -1; } # the first group of an expression that fits a whole line

# --- Models ---------------------------------------------------------------------------------------------------------------
# Random weights with the mini model's tokenizer: the shape decides about speed.
make_model() { "$pva" synth --quiet --like "$1" --out "$2" && cp "$mini/model/tokenizer.model" "$2"; }
export -f make_model
export pva mini backend dry work problems
if [ -n "$dry" ]; then
    model=${model:-$mini/model} large=${large:-$mini/model}
    short=8 prompt=32 long=48 new=4 batches='1 4 8' end=5 most=200 peers='--prompts 6 --new-tokens 4 --batches 16 --seconds 20' repeats=1 rows=(--d 64 --latents 512)
else
    short=64 prompt=512 long=2048 new=128 batches='1 16 128' end='' most=600 peers="--new-tokens 128 --batches 16,64,128 --seconds 60" repeats=5 rows=()
    if [ -z "$model" ]; then
        model=$work/2b
        measure '2B shape, random weights' 90 make_model gemma-2-2b "$model" || exit 1
    fi
fi

export batches most end

# --- Decoding, prompts ----------------------------------------------------------------------------------------------------
decode() { # NAME GATE_1 MODEL BATCH options...
    local name=$1 gate=$2 of=$3 batch=$4
    shift 4
    measure "$name" 60 "$pva" bench generate --model "$of" --backend $backend --new-tokens $short --prompt-tokens $prompt --batch-size "$batch" "$@" || return
    row "$name" "$(said '.*context [0-9]+: (.*) tokens\/s$') tokens/s" "$(said '.*; memory (.*) GB\/s: .*') GB/s; $(said '.* a pass: (.*) GB\/s; memory.*') GB/s used" "$(said '.*GB\/s: ([0-9.]+) % of it') %" "$gate"
}
hooks() { row "$1: a direction per sequence" "$(said 'a direction per sequence: (.*) % of a pass;.*') %" '' '' '<= 2 %'; row "$1: every layer captured" "$(said '.*layers captured: (.*) %$') %" '' '' '<= 5 %'; }
for batch in $batches; do
    gate=$([ "$batch" = 1 ] && echo '>= 75 %' || { [ "$batch" = "${batches##* }" ] && echo '>= 70 %' || echo -; })
    decode "2B decode, batch $batch, context $prompt" "$gate" "$model" "$batch" --hooks && hooks "2B, batch $batch"
done
PVA_CUDA_GRAPHS=off decode '2B decode, batch 1, without graphs' - "$model" 1
prefill() { # NAME MODEL TOKENS BATCH
    measure "$1" 60 "$pva" bench prefill --model "$2" --backend $backend --prompt-tokens "$3" --batch-size "$4" --repeats $repeats || return
    row "$1" "$(said '.* ms, (.*) tokens\/s$') tokens/s, $(said '([0-9.]+) GFLOP\/s in matrix products.*') GFLOP/s" "$(said '.*the product alone, (.*): [0-9.]+ % of it')" "$(said '.*: ([0-9.]+) % of it') %" '>= 60 %'
}
prefill "2B prompts, 1 x $long" "$model" $long 1
prefill "2B prompts, 16 x $prompt" "$model" $prompt 16

# --- The first token ------------------------------------------------------------------------------------------------------
first_token() {
    local from now
    from=$(date +%s%N)
    "$pva" generate --model "$model" --backend $backend --prompt 'def f' --max-new-tokens 1 --quiet || return
    now=$(date +%s%N)
    echo "seconds $(((now - from) / 1000000)) ms"
}
forget() { local file; for file in "$model"/*.safetensors; do sync "$file"; dd if="$file" iflag=nocache count=0 status=none 2>/dev/null; done; first_token; }
export -f first_token forget
export model
measure 'process start to first token, file not in the page cache' 90 forget && row 'process start to first token, file not in the page cache' "$(said 'seconds (.*)')"
measure 'process start to first token, warm' 60 first_token && row 'process start to first token, warm' "$(said 'seconds (.*)')"

# --- Phase 1 as a whole, and how busy the device is meanwhile --------------------------------------------------------------
phase1() {
    local watcher='' from
    if command -v nvidia-smi >/dev/null && [ -z "$dry" ]; then
        nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits -lms 200 >"$work/busy" 2>/dev/null &
        watcher=$!
    fi
    from=$SECONDS
    "$pva" phase1 --run "$work/run" --model "$model" --problems "$problems" --backend $backend --batch-size "${batches##* }" --max-tokens $most ${end:+--end $end}
    local status=$?
    [ -n "$watcher" ] && kill "$watcher"
    echo "wall $((SECONDS - from)) s"
    return $status
}
export -f phase1
if measure 'phase 1 as a whole, 2B shape' 120 phase1; then
    tokens=$(said '.*; ([0-9]+) new tokens;.*') seconds=$(said '.* new tokens; ([0-9.]+) s on .*')
    busy=$(awk '{ s += $1; n++ } END { if (n) printf "%.0f %%", s / n }' "$work/busy" 2>/dev/null)
    row 'phase 1 as a whole, 2B shape, 1 rank' "$(said '.*phase1: ([0-9]+) of.*') problems, $tokens new tokens, $seconds s: $(awk "BEGIN { printf \"%.1f\", $tokens / $seconds }") tokens/s" "GPU busy ${busy:-unknown}"
fi

# --- Autoencoders and peers -----------------------------------------------------------------------------------------------
encoder=()
[ -n "$dry" ] && encoder=(--sae "$(ls -d "$mini"/saes/layer_0/width_1k/*)/params.npz")
if measure 'encoding, [2304, 16384]' 60 "$pva" bench sae --backend $backend --repeats 3 "${encoder[@]}"; then
    row 'encoding, 487 rows, page cache' "$(said ' *487 rows, from page cache: *([0-9.]+ ms),.*')" "$(said ' *487 rows, from page cache:.*limit *(.*): [0-9]+ % of it')" "$(said ' *487 rows, from page cache:.*: ([0-9]+) % of it') %" '>= 80 %'
fi
peer() { # NAME SECONDS what options...
    local name=$1 limit=$2
    shift 2
    measure "$name" "$limit" "$python" "$source_dir/tests/bench/peers.py" "$@" --pva "$pva" --backend $backend || return 1
    grep -E "^(batch|best|[0-9]+ rows|torch)" "$work/said" | while IFS= read -r line; do row "$name" "$line" '' '' "$([[ $line == best* ]] && echo '>= 10')"; done
}
peer "torch's product" 40 matmul "${rows[@]:0:2}" --repeats $repeats
peer 'encoding, torch' 60 sae "${rows[@]}" --repeats $repeats
# shellcheck disable=SC2086
peer 'generate, transformers' 150 generate --model "$model" --problems "$problems" $peers

# --- The larger shape -----------------------------------------------------------------------------------------------------
if [ -z "$large" ]; then
    rm -rf "$work/2b" "$work/run"
    large=$work/9b
    measure '9B shape, random weights' 120 make_model gemma-2-9b "$large" || large=''
fi
if [ -n "$large" ]; then
    decode "9B decode, batch 1, context $prompt" '>= 85 %' "$large" 1
    decode "9B decode, batch ${batches##* }, context $prompt" '>= 70 %' "$large" "${batches##* }"
    prefill "9B prompts, 1 x $long" "$large" $long 1
fi

echo
cat "$table"
echo "$((SECONDS - began)) s, $failures failed"
[ $failures = 0 ]
