# slurm_lib.bash - what the SLURM tests share: a cluster in $dir, a small model, ways to submit as some user and to wait. Sourced.
# shellcheck disable=SC2034,SC2154
set -u
source=${PVA_TEST_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
PVA_MPI=${PVA_MPI:-$source/build/pva-mpi}
build=${PVA_TEST_BINARY:-$source/build}
checks=0 failures=0
fail() { failures=$((failures + 1)); echo "failed: $*"; }
check() { checks=$((checks + 1)); "$@" || fail "$*"; }
expect() { # WHAT ACTUAL WANTED
    checks=$((checks + 1))
    [ "$2" = "$3" ] || fail "$1: \"$2\", expected \"$3\""
}

command -v h5diff >/dev/null || { echo "SKIP h5diff is not installed"; exit 77; }
# Short, because sockets lie in it; open to every user, because they submit from it.
dir=$(mktemp -d /tmp/pva-slurm.XXXXXX) || exit 1
chmod 755 "$dir"
finish() {
    bash "$source/tests/slurm_cluster.sh" stop "$dir/cluster" >/dev/null 2>&1
    rm -rf "$dir"
    rm -f /dev/shm/vader_segment.*."$$".*
}
trap finish EXIT
# A user that may not see where the build lies gets his own copy of everything.
mkdir "$dir/bin" && cp "$PVA_MPI" "$build/tests/libstore_fault.so" "$dir/bin/" && cp -r "$source/slurm" "$dir/slurm" && cp "$source/tests/data/mini/problems.jsonl" "$source/tests/data/mini/pile.jsonl" "$dir/" || exit 1
cat >"$dir/tiny.json" <<'END'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 3, "hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "sliding_window": 32, "query_pre_attn_scalar": 16, "max_position_embeddings": 512,
 "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
END
"$PVA_MPI" synth --like "$dir/tiny.json" --out "$dir/model" --tokenizer "$source/tests/data/tiny-tokenizer/tokenizer.model" --quiet || exit 1
mkdir -p "$dir/sae/layer_0/width_16k/average_l0_1" && : >"$dir/sae/layer_0/width_16k/average_l0_1/params.npz"
# The real program, which SLOW makes wait at each write of a result: a long job that leaves the processors to others.
cat >"$dir/bin/slow" <<END
#!/bin/bash
case " \$* " in *' --show-config '*) SLOW= ;; esac
[ -n "\${SLOW:-}" ] && export STORE_FAULT_FILE=phase1.h5 STORE_FAULT_NAP=\$SLOW LD_PRELOAD=$dir/bin/libstore_fault.so
exec $dir/bin/pva-mpi "\$@"
END
cat >"$dir/site.env" <<END
. $dir/slurm/site.env
PVA_PROGRAM=\${PROGRAM:-$dir/bin/slow} SPD_PROGRAM=$dir/bin/spd-run
MODEL_DIR=$dir/model SAE_DIR=$dir/sae PROBLEMS=$dir/problems.jsonl PILE=$dir/pile.jsonl RUN_DIR=\${RUN:-$dir/run}
GPUS_PER_NODE=2 CPUS_PER_RANK=1 MEM_PER_NODE=400M MEM_REPORT=400M
END
chmod 755 "$dir/bin"/*
chmod -R a+rX "$dir"
started=$(bash "$source/tests/slurm_cluster.sh" start "$dir/cluster" 3 4)
status=$?
[ $status = 0 ] || { echo "$started"; exit $status; }
eval "$started"
export SITE_ENV=$dir/site.env RANKS=3 RANKS_PER_NODE=1
# Root may start ranks with mpirun, and these nodes share two processors.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# as USER command...: with a home and a PATH that any user can read.
as() {
    local user=$1
    shift
    [ -d "$dir/home/$user" ] || { mkdir -p "$dir/home/$user" && chown "$user" "$dir/home/$user"; }
    (cd "$dir/home/$user" && HOME=$dir/home/$user USER=$user PATH=/usr/bin:/bin:/usr/sbin:/sbin exec setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@")
}
# submit USER SCRIPT...: sets job. Variables before it reach the job.
submit() {
    local user=$1 script=$2 answer
    shift 2
    answer=$(as "$user" "$dir/slurm/$script" "$@" 2>"$dir/stderr") || { fail "$script was not submitted: $(cat "$dir/stderr")"; job=0; return 1; }
    job=$(grep -oE '[0-9]+$' <<<"$answer" | tail -n 1)
}
field() { scontrol show job "$1" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1; }
state() { field "$1" JobState; }
# wait_for JOB STATES SECONDS: one of a|b|c
wait_for() {
    local k now=''
    for ((k = 0; k < $3 * 5; k++)); do
        now=$(state "$1")
        [[ $now =~ ^($2)$ ]] && return 0
        sleep 0.2
    done
    fail "job $1 is $now after $3 s, expected $2; its log: $(tail -n 20 "$(field "$1" StdOut)" 2>/dev/null)"
    return 1
}
finished='COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|PREEMPTED|OUT_OF_MEMORY'
done_in_order() { # JOB SECONDS
    checks=$((checks + 1))
    wait_for "$1" "$finished" "$2" || return 1
    [ "$(state "$1")" = COMPLETED ] || fail "job $1 ended as $(state "$1"): $(cat "$(field "$1" StdOut)" 2>/dev/null)"
}
# wait_records RUN N SECONDS: until N problems are stored
wait_records() {
    local k
    for ((k = 0; k < $3 * 4; k++)); do
        [ "$("$PVA_MPI" status "$1" 2>/dev/null | sed -n 's/^phase1 *\([0-9]*\) of.*/\1/p')" -ge "$2" ] 2>/dev/null && return 0
        sleep 0.25
    done
    fail "$1 has no $2 records after $3 s"
}
datasets="state checksum n_prompt n_new tokens finish n_text text n_program program verdict failed_test exception prompt_sha256 resid task_id part difficulty"
same() { # every dataset of two files, bit for bit
    local d
    for d in $datasets; do
        checks=$((checks + 1))
        h5diff "$1" "$2" "/$d" >"$dir/diff" 2>&1 || fail "$1 and $2 differ in $d: $(head -3 "$dir/diff")"
    done
}
reference() { # NAME options...: a run without SLURM
    local name=$1
    shift
    "$PVA_MPI" phase1 --run "$dir/$name" --model "$dir/model" --problems "$dir/problems.jsonl" --max-tokens 260 --threads 1 --quiet "$@" || fail "the reference"
}
summary() {
    echo "$1: $checks checks, $failures failed, $SECONDS s"
    [ $failures = 0 ]
}
