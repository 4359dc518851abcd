# Disks that are full, read-only or dying under phase 1: one line that says what and where, exit 4, and once the cause is gone the same command ends
# with the undisturbed result.
set -u
source=${PVA_TEST_SOURCE:-$(dirname "$0")/..}
fault=$PVA_TEST_BINARY/tests/libstore_fault.so
mpirun=${PVA_MPIRUN:-mpirun}
dir=$(mktemp -d) || exit 1
trap 'umount "$dir/disk" 2>/dev/null; rm -rf "$dir"' EXIT
export OMPI_MCA_btl_vader_backing_directory=$dir # what killed jobs leave goes with it
checks=0 failures=0
fail() { failures=$((failures + 1)); echo "failed: $*" >&2; }
check() { checks=$((checks + 1)); "$@" || fail "$*"; }
refuses() { # STATUS PATTERN command... (mpirun adds lines of its own)
    local status=$1 pattern=$2; shift 2
    checks=$((checks + 1))
    "$@" >"$dir/out" 2>"$dir/err" </dev/null; local got=$?
    [ $got = "$status" ] || fail "exit $got, expected $status: $*: $(cat "$dir/err")"
    [ "$(grep '^pva-mpi:' "$dir/err" | grep -vc '^pva-mpi: \(a snapshot\|the log\)')" = 1 ] || fail "not one line on stderr: $*: $(cat "$dir/err")"
    grep -qE -- "$pattern" "$dir/err" || fail "stderr of $*: $(cat "$dir/err"), expected $pattern"
    grep -qE 'Segmentation|\*\*\* |HDF5-DIAG|Aborted' "$dir/err" && fail "$*: $(head -5 "$dir/err")"
}
cat >"$dir/tiny.json" <<'J'
{"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
 "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 512, "sliding_window": 32, "query_pre_attn_scalar": 16, "max_position_embeddings": 512,
 "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
J
m=$dir/model
"$PVA_MPI" synth --like "$dir/tiny.json" --out "$m" --tokenizer "$source/tests/data/tiny-tokenizer/tokenizer.model" --quiet || exit 1
args="--model $m --problems $source/tests/data/mini/problems.jsonl --end 39 --max-tokens 400 --threads 1 --batch-size 4 --checkpoint-every 5 --autosave-every 10 --quiet"
"$PVA_MPI" phase1 --run "$dir/reference" $args || exit 1
equals() { # RUN: complete, and what the undisturbed run has
    "$PVA_MPI" export "$1" --format jsonl >/dev/null || { fail "export $1"; return; }
    "$PVA_MPI" export "$dir/reference" --format jsonl >/dev/null
    check cmp "$1/exports/results.jsonl" "$dir/reference/exports/results.jsonl"
    command -v h5diff >/dev/null || return
    for d in state checksum tokens text program verdict resid; do check h5diff "$1/phase1.h5" "$dir/reference/phase1.h5" "/$d"; done
}
resumes() { # RUN
    check timeout 100 "$mpirun" -n 2 "$PVA_MPI" phase1 --run "$1" $args
    equals "$1"
}

# ---- disks that fail while records are written ----
if [ -e "$fault" ] && ! ldd "$PVA_MPI" | grep -q libasan; then
    eio=5 enospc=28 erofs=30 edquot=122
    with() { # FAULTS FILE RUN RANKS
        timeout 100 "$mpirun" -n "$4" env LD_PRELOAD="$fault" STORE_FAULT="$1" STORE_FAULT_FILE="$2" "$PVA_MPI" phase1 --run "$3" $args
    }
    refuses 4 'phase1.h5.*(cannot be allocated|cannot be written).*No space left on device' with fallocate:$enospc:-1:0 phase1.h5 "$dir/a" 2
    check test ! -e "$dir/a/phase1.h5" -a ! -e "$dir/a/phase1.h5.partial"
    resumes "$dir/a"
    refuses 4 'phase1.h5.*No space left on device' with pwrite:$enospc:-1:60 phase1.h5 "$dir/b" 2
    check "$PVA_MPI" status "$dir/b" >/dev/null
    refuses 4 'phase1-diagnostics.h5.*Disk quota exceeded' with pwrite:$edquot:1:8 diagnostics.h5 "$dir/b" 3
    refuses 4 'rank 1 .*phase1.h5.*Input/output error' with pwrite:$eio:1:8 phase1.h5 "$dir/b" 3
    resumes "$dir/b"
    refuses 4 'cannot be synced: Input/output error' with fdatasync:$eio:-1:0 phase1.h5 "$dir/c" 2
    refuses 4 'phase1.h5.*Read-only file system' with pwrite:$erofs:-1:25 phase1.h5 "$dir/c" 1
    resumes "$dir/c"
    # Snapshots that cannot be written are warnings, one after the other; the run goes on. (Some seconds, so with a larger model: rank 0 looks once a second.)
    checks=$((checks + 1))
    timeout 300 env LD_PRELOAD="$fault" STORE_FAULT="copy:$enospc:-1:0" STORE_FAULT_FILE=phase1-0 "$PVA_MPI" phase1 --run "$dir/d" ${args/"$m"/"$source/tests/data/mini/model"} --end 359 --batch-size 1 \
        2>"$dir/err" || fail "a failed snapshot stopped the run: $(cat "$dir/err")"
    check test "$(grep -c 'a snapshot could not be written' "$dir/d/logs/phase1-rank0.log")" -ge 1
    check grep -q '360 of 360 problems, complete' <("$PVA_MPI" status "$dir/d")
else
    echo "SKIP disks that fail: no way to pretend here"
fi

# ---- a disk that is full, and one that is read-only ----
mkdir "$dir/disk"
if mount -t tmpfs -o size=6m none "$dir/disk" 2>/dev/null; then
    head -c 8M /dev/zero >"$dir/disk/ballast" 2>/dev/null
    refuses 4 'No space left on device|has .* GB free' timeout 100 "$mpirun" -n 2 "$PVA_MPI" phase1 --run "$dir/disk/run" $args
    rm "$dir/disk/ballast"
    check timeout 100 "$PVA_MPI" phase1 --run "$dir/disk/run" $args --autosave-keep 1
    # Full after the file is there: records have their place, and what has none says so.
    rm -rf "$dir/disk/run/checkpoints" "$dir/disk/run/manifest.json"; mkdir "$dir/disk/run/checkpoints"
    head -c 8M /dev/zero >"$dir/disk/ballast" 2>/dev/null
    refuses 4 'No space left on device' "$mpirun" -n 2 "$PVA_MPI" phase1 --run "$dir/disk/run" $args
    rm "$dir/disk/ballast"
    resumes "$dir/disk/run"
    mount -o remount,ro "$dir/disk"
    refuses 4 'Read-only file system' "$mpirun" -n 2 "$PVA_MPI" phase1 --run "$dir/disk/run" $args
    refuses 4 'Read-only file system' "$PVA_MPI" phase1 --run "$dir/disk/other" $args
    refuses 4 'Read-only file system' "$PVA_MPI" regrade "$dir/reference" --out "$dir/disk/regraded"
    check "$PVA_MPI" status "$dir/disk/run" >/dev/null
    umount "$dir/disk"
else
    echo "SKIP a full and a read-only disk: no mount allowed here"
fi
# ---- a directory that is not ours ----
if [ "$(id -u)" -ne 0 ]; then
    mkdir "$dir/closed"; chmod 555 "$dir/closed"
    refuses 4 'Permission denied' "$PVA_MPI" phase1 --run "$dir/closed/run" $args
    chmod 755 "$dir/closed"
fi
echo nothing >"$dir/file"
refuses 4 'Not a directory' "$PVA_MPI" phase1 --run "$dir/file/run" $args
if (ulimit -f 500; exec "$PVA_TEST_BINARY/tests/mpi_par") >/dev/null 2>&1; then # Open MPI 5 makes larger files of its own when it starts
    refuses 4 'File too large' bash -c "ulimit -f 500; exec '$PVA_MPI' phase1 --run '$dir/limit' $args"
    resumes "$dir/limit"
else
    echo "SKIP a limit on the size of files: MPI itself does not start below it"
fi
echo "fail_phase1: $checks checks, $failures failed"
exit $((failures > 0))
