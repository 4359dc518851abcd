# Whatever is wrong with the file, the disk or the directory: one line that says what and where, the right exit code, nothing half-made
# under a final name, and once the cause is gone the same command goes on.
set -u
writer=$PVA_TEST_BINARY/tests/store_writer
fault=$PVA_TEST_BINARY/tests/libstore_fault.so
mpirun=${PVA_MPIRUN:-mpirun}
work=$(mktemp -d "$PWD/fail_store.XXXXXX") || exit 99
shm=$(mktemp -d /dev/shm/fail_store.XXXXXX 2> /dev/null || mktemp -d "$work/shm.XXXXXX")
trap 'rm -rf "$work" "$shm"' EXIT
export TMPDIR=$shm OMPI_MCA_btl_vader_backing_directory=$shm # what broken jobs leave goes with them
cases=0 failed=0
fail() { echo "failed: $*"; failed=$((failed + 1)); }

# expect CODE PART COMMAND...: exits with CODE, and stderr is one line of ours that contains PART (mpirun adds its own about exit codes).
expect() {
    local code=$1 part=$2 got lines
    shift 2
    cases=$((cases + 1))
    timeout 60 "$@" > "$work/out" 2> "$work/err"
    got=$?
    lines=$(grep -c '^store_writer: ' "$work/err")
    [ "$got" -eq "$code" ] || fail "$*: exit $got, expected $code: $(head -3 "$work/err")"
    if [ "$code" -eq 0 ]; then return; fi
    [ "$lines" -eq 1 ] || fail "$*: $lines lines, expected 1: $(cat "$work/err")"
    grep '^store_writer: ' "$work/err" | grep -qF -- "$part" || fail "$*: \"$(head -1 "$work/err")\" does not contain \"$part\""
    grep -qE 'Segmentation|\*\*\* |HDF5-DIAG|Aborted' "$work/err" && fail "$*: $(head -5 "$work/err")"
}
leaves_nothing() { # of a file that could not be made
    for f in "$1" "$1.partial" "$1.lock" "$1.replaced"; do [ ! -e "$f" ] || fail "$f was left behind"; done
}
run() { timeout 60 "$writer" "$@" > "$work/out" 2> "$work/err" || fail "$*: exit $?: $(head -2 "$work/err")"; }
expect_with() { # CODE PART FAULTS FILE COMMAND...
    expect "$1" "$2" env LD_PRELOAD="$fault" STORE_FAULT="$3" STORE_FAULT_FILE="$4" "${@:5}"
}
expect_with3() {
    expect "$1" "$2" "$mpirun" -n 3 env LD_PRELOAD="$fault" STORE_FAULT="$3" STORE_FAULT_FILE="$4" "${@:5}"
}

# ---- files that are not what they should be ----
good=$work/good.h5
run write "$good" --stop-after 5
bytes=$(stat -c %s "$good")
echo "not at all" > "$work/text.h5"
: > "$work/empty.h5"
mkdir "$work/directory.h5"
head -c $((bytes - 1)) "$good" > "$work/short1.h5"
head -c $((bytes / 2)) "$good" > "$work/short2.h5"
head -c 1000 "$good" > "$work/short3.h5"
head -c 20 "$good" > "$work/short4.h5"
{ head -c 60 "$good"; head -c 400 /dev/zero; tail -c +461 "$good"; } > "$work/hole.h5" # the root group overwritten
ln -s nowhere "$work/dangling.h5"
expect 3 "is not an HDF5 file" "$writer" write "$work/text.h5"
expect 3 "is empty" "$writer" write "$work/empty.h5"
expect 4 "directory" "$writer" write "$work/directory.h5"
expect 3 "truncated" "$writer" write "$work/short1.h5"
expect 3 "truncated" "$writer" write "$work/short2.h5"
expect 3 "truncated" "$writer" check "$work/short3.h5"
expect 3 "cannot be opened" "$writer" check "$work/short4.h5"
expect 3 "cannot be opened" "$writer" check "$work/hole.h5"
expect 4 "No such file" "$writer" write "$work/dangling.h5"
expect 3 "No such file" "$writer" check "$work/none.h5"
expect 3 "schema is \"pva-test\", expected \"pva-other\"" "$writer" write "$good" --name pva-other
expect 3 "schema_version is 3, this program uses 4" "$writer" write "$good" --version 4
expect 3 "/resid_post has another type, expected float64" "$writer" write "$good" --type 6
run write "$work/less.h5" --hide 3 --stop-after 1
expect 3 "dataset /seconds is missing" "$writer" write "$work/less.h5"
expect 3 "/resid_post is [40, 3, 2304], expected [40, 4, 2304]" "$writer" write "$good" --layers 4
run write "$work/damaged.h5" --slots 24 --snapshot-every 24
printf 'x' | dd of="$work/damaged.h5" bs=1 seek=100 conv=notrunc 2> /dev/null
expect 3 "--resume $work/checkpoints/damaged-00024.h5" "$writer" write "$work/damaged.h5" --slots 24
expect 3 "this program uses 4" "$writer" write "$work/damaged.h5" --slots 24 --version 4 --from "$work/checkpoints/damaged-00024.h5"
expect 0 "" "$writer" write "$work/damaged.h5" --slots 24 --from "$work/checkpoints/damaged-00024.h5"
expect 0 "" "$writer" check "$work/damaged.h5" --slots 24

# ---- files of another run ----
expect 5 'model_sha256 is "model-a" in the file and "model-b" here' "$writer" write "$good" --model model-b
expect 5 "the number of slots (problem) is 40 in the file and 50 here" "$writer" write "$good" --slots 50
expect 5 "problem[0] is 0 in the file and 3 here" "$writer" write "$good" --first-task 3
expect 5 'prompt[0] is "prompt-a number 0" in the file and "other number 0" here' "$writer" write "$good" --prompt other
expect 5 "would be overwritten" "$writer" write "$good" --fresh
expect 5 "rank 0" "$mpirun" -n 3 "$writer" write "$good" --model model-b
expect 5 "model_sha256" "$writer" write "$work/new.h5" --from "$good" --model model-b
leaves_nothing "$work/new.h5"
expect 0 "" "$writer" write "$good"

# ---- directories ----
expect 4 "No such file or directory" "$writer" write "$work/no/where.h5"
expect 4 "Not a directory" "$writer" write "$work/text.h5/x.h5"
as_user=()
chmod 755 "$work"
if [ "$(id -u)" -eq 0 ]; then command -v setpriv > /dev/null && as_user=(setpriv --reuid 65534 --regid 65534 --clear-groups); fi
if [ "$(id -u)" -ne 0 ] || { [ ${#as_user[@]} -gt 0 ] && "${as_user[@]}" test -x "$writer" -a -x "$work"; }; then
    mkdir "$work/readonly"
    chmod 555 "$work/readonly"
    expect 4 "Permission denied" "${as_user[@]}" env TMPDIR=/tmp OMPI_MCA_btl_vader_backing_directory=/dev/shm "$writer" write "$work/readonly/x.h5"
    leaves_nothing "$work/readonly/x.h5"
    expect 4 "Permission denied" "${as_user[@]}" env TMPDIR=/tmp OMPI_MCA_btl_vader_backing_directory=/dev/shm "$writer" write "$good"
else
    echo "SKIP directories without permission: running as root, and another user cannot reach this directory"
fi

# ---- limits, quotas, disks that die, at every moment ----
# Open MPI 5 makes larger files of its own when it starts.
if (ulimit -f 500; exec "$PVA_TEST_BINARY/tests/mpi_par") >/dev/null 2>&1; then
    expect 4 "File too large (see ulimit -f)" bash -c "ulimit -f 500; exec '$writer' write '$work/limit.h5'"
    leaves_nothing "$work/limit.h5"
    expect 0 "" "$writer" write "$work/limit.h5"
    cp "$good" "$work/grown.h5"
    expect 4 "File too large" bash -c "ulimit -f 500; exec '$writer' write '$work/grown.h5' --replace"
    expect 0 "" "$writer" check "$work/grown.h5" # the old one is still there
else
    echo "SKIP a limit on the size of files: MPI itself does not start below it"
fi

if [ -e "$fault" ] && ! ldd "$writer" | grep -q libasan; then
    eio=5 enospc=28 erofs=30 enotsup=95 estale=116 edquot=122 enolck=37 exdev=18 eperm=1
    expect_with 4 "No space left on device" fallocate:$enospc:0:0 a.h5 "$writer" write "$work/a.h5"
    leaves_nothing "$work/a.h5"
    expect_with 4 "Disk quota exceeded" fallocate:$enotsup:0:0,pwrite:$edquot:0:2 a.h5 "$writer" write "$work/a.h5"
    leaves_nothing "$work/a.h5"
    for after in 1 3; do # while the file is being made
        expect_with 4 "cannot be written: Input/output error" pwrite:$eio:0:$after a.h5 "$writer" write "$work/a.h5"
        leaves_nothing "$work/a.h5"
    done
    expect_with 4 "Disk quota exceeded" fsync:$edquot:0:0 a.h5 "$writer" write "$work/a.h5"
    leaves_nothing "$work/a.h5"
    expect_with 0 "" fallocate:$enotsup:0:0 a.h5 "$writer" write "$work/a.h5" --stop-after 3
    for after in 0 7 8 9; do # while slots are written: data, checksum, state
        expect_with 4 "No space left on device" pwrite:$enospc:0:$((after + 1)) a.h5 "$writer" write "$work/a.h5"
        expect 0 "" "$writer" check "$work/a.h5"
    done
    expect_with 4 "Stale file handle" pwrite:$estale:0:20 a.h5 "$writer" write "$work/a.h5"
    expect 0 "" "$writer" check "$work/a.h5"
    expect 0 "" "$writer" write "$work/a.h5"
    expect 0 "" "$writer" check "$work/a.h5"
    # One rank of three: the others are not held up, and nothing of theirs is lost.
    expect_with3 4 "rank 1" pwrite:$eio:1:20 b.h5 "$writer" write "$work/b.h5" --slots 60
    timeout 60 "$writer" check "$work/b.h5" > "$work/out" || fail "check after one rank's disk died"
    grep -q 'committed 4[0-9] of 60' "$work/out" || fail "two of three ranks were to finish: $(cat "$work/out")"
    # Every rank, then the sync: what is not known to be on disk does not count.
    expect_with3 4 "Read-only file system" pwrite:$erofs:-1:30 b.h5 "$writer" write "$work/b.h5" --slots 60
    expect_with3 4 "cannot be synced: Input/output error" fdatasync:$eio:-1:0 c.h5 "$writer" write "$work/c.h5" --slots 60
    timeout 60 "$writer" check "$work/c.h5" > "$work/out" || fail "check after a failed sync"
    grep -q 'committed 0 of 60' "$work/out" || fail "unsynced slots were to be emptied: $(cat "$work/out")"
    expect 0 "" "$mpirun" -n 2 "$writer" write "$work/c.h5" --slots 60
    expect 0 "" "$writer" check "$work/c.h5" --slots 60
    # File systems that cannot do everything.
    expect_with 0 "" lock:$enolck:-1:0 d.h5 "$writer" write "$work/d.h5"
    expect_with 4 "no byte-range locks" range:$enolck:-1:0 e.h5 env PVA_STORE_RANGE_LOCKS=1 "$writer" write "$work/e.h5"
    expect_with 0 "" copy:$exdev:-1:0,link:$eperm:-1:0 fail_store "$writer" write "$work/d.h5" --slots 24 --snapshot-every 24 --replace
    expect 0 "" "$writer" check "$work/checkpoints/d-00024.h5" --slots 24
    # A snapshot that fails is a warning, leaves nothing and stops nobody.
    rm -rf "$work/checkpoints"
    expect_with 0 "" copy:$enospc:-1:1 s-00 "$writer" write "$work/s.h5" --slots 24 --snapshot-every 10 --nap 5000
    grep -q 'warning: .*s-00010.h5: the snapshot cannot be written: No space left' "$work/err" || fail "no warning of a failed snapshot: $(cat "$work/err")"
    [ -z "$(ls "$work/checkpoints")" ] || fail "a failed snapshot left $(ls "$work/checkpoints")"
    expect 0 "" "$writer" check "$work/s.h5" --slots 24
else
    echo "SKIP disks that die: the preloaded library does not go with the sanitizers"
fi

# ---- a disk that is really full ----
if unshare -rm true 2> /dev/null && unshare -rm mount -t tmpfs -o size=1m none "$shm" 2> /dev/null; then
    cat > "$work/full.sh" << 'EOF'
writer=$1 work=$2 mkdir=$work/disk
mkdir -p "$work/disk" && mount -t tmpfs -o size=3m none "$work/disk" || exit 70
cd "$work/disk" || exit 70
code() { timeout 60 "${@:3}" > out 2> ../err; got=$?; [ $got -eq "$1" ] && { [ -z "$2" ] || grep -q "$2" ../err; } || { echo "failed: $*: exit $got: $(head -2 ../err)"; exit 1; }; }
code 4 'cannot be allocated: No space left on device (0.00[23] GB free)' "$writer" write big.h5 --slots 200
[ "$(ls)" = out ] || { echo "failed: left behind: $(ls)"; exit 1; }
code 0 '' "$writer" write small.h5 --stop-after 20              # 1.2 of 3 MB
head -c 3000000 /dev/zero > filler 2> /dev/null                   # the rest
code 0 '' "$writer" write small.h5 --stop-after 10               # its slots are allocated
code 4 'No space left on device' "$writer" write other.h5
code 0 'warning: .*No space left on device' "$writer" write small.h5 --snapshot-every 5 --nap 5000
ls checkpoints/* > /dev/null 2>&1 && { echo "failed: $(ls checkpoints) on a full disk"; exit 1; }
rm filler
code 0 '' "$writer" check small.h5
code 0 '' "$writer" write other.h5
code 0 '' "$writer" check other.h5
EOF
    cases=$((cases + 8))
    timeout 120 unshare -rm bash "$work/full.sh" "$writer" "$work" || fail "on a full disk"
    cat > "$work/readonly.sh" << 'EOF'
mkdir -p "$2/ro" && mount -t tmpfs -o size=8m none "$2/ro" && "$1" write "$2/ro/x.h5" --stop-after 5 && mount -o remount,ro "$2/ro" || exit 70
timeout 60 "$1" write "$2/ro/x.h5" 2> "$2/err"; [ $? -eq 4 ] && grep -q 'Read-only file system' "$2/err" || { cat "$2/err"; exit 1; }
timeout 60 "$1" check "$2/ro/x.h5" > /dev/null
EOF
    cases=$((cases + 2))
    timeout 60 unshare -rm bash "$work/readonly.sh" "$writer" "$work" || fail "on a read-only file system"
else
    echo "SKIP full and read-only file systems: no right to mount one here"
fi

echo "fail_store: $cases cases, $failed failed"
[ "$failed" -eq 0 ]
