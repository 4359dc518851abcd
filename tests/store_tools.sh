# The store's files as others see them: h5ls and h5dump, h5py, and a reader's own checksums; finished, as a snapshot, and while a job writes.
set -u
writer=$PVA_TEST_BINARY/tests/store_writer
work=$(mktemp -d ./store_tools.XXXXXX) || exit 99
trap 'rm -rf "$work"' EXIT
failed=0 ran=0
fail() { echo "failed: $*"; failed=$((failed + 1)); }

timeout 60 "$writer" write "$work/f32.h5" --slots 24 --snapshot-every 10 || exit 99
timeout 60 "$writer" write "$work/bf16.h5" --slots 20 --type 7 || exit 99
timeout 60 "$writer" write "$work/part.h5" --slots 20 --stop-after 8 || exit 99
timeout 60 "$writer" write "$work/busy.h5" --slots 20 --pause 60000 &
busy=$!
for i in $(seq 200); do [ -e "$work/busy.h5" ] && break; sleep 0.05; done

# A check that the names, shapes and types a stranger sees are the schema's.
if command -v h5ls > /dev/null && command -v h5dump > /dev/null; then
    ran=$((ran + 1))
    for file in f32 bf16 busy; do
        list=$(timeout 30 h5ls "$work/$file.h5") || fail "h5ls $file"
        for name in checksum d_model layer n_generated problem prompt resid_post score seconds sign state text token tokens verdict; do
            grep -q "^$name  *Dataset {" <<< "$list" || fail "h5ls $file shows no $name"
        done
    done
    grep -q '^resid_post  *Dataset {24, 3, 2304}' <<< "$(timeout 30 h5ls "$work/f32.h5")" || fail "h5ls: shape of resid_post"
    text=$(timeout 60 h5dump -d /state -d /problem -d /seconds "$work/part.h5") || fail "h5dump of part"
    grep -q '(0): 1, 1, 1, 1, 1, 2, 1, 1, 0, 0' <<< "$text" || fail "h5dump: states"
    for attribute in DIMENSION_LIST units long_name flag_values flag_meanings; do
        grep -q "ATTRIBUTE \"$attribute\"" <<< "$text" || fail "h5dump: attribute $attribute"
    done
    header=$(timeout 60 h5dump -A "$work/bf16.h5") || fail "h5dump -A"
    for attribute in Conventions title source history schema schema_version model_sha256; do
        grep -q "ATTRIBUTE \"$attribute\"" <<< "$header" || fail "h5dump: root attribute $attribute"
    done
    timeout 60 h5dump "$work/checkpoints/f32-00010.h5" > "$work/dump" || fail "h5dump of a snapshot"
    # Variable-length types: none, but for what dimension scales are made of.
    timeout 30 h5dump -H "$work/f32.h5" | grep -B1 -A1 'H5T_VLEN\|H5T_VARIABLE' | grep -v 'DIMENSION_LIST\|H5T_REFERENCE\|DATASPACE\|^--' | grep -q . &&
        fail "a variable-length type"
else
    echo "SKIP h5ls and h5dump: hdf5-tools are not installed"
fi

python=
for p in ${PVA_PYTHON:-} python3 /usr/bin/python3; do
    "$p" -c 'import h5py' 2> /dev/null && python=$p && break
done
if [ -n "$python" ]; then
    ran=$((ran + 1))
    cat > "$work/read.py" << 'EOF'
import struct, sys, zlib
import h5py, numpy as np

def stored_bytes(f, name, i):
    d = f[name]
    if d.id.get_type().get_size() == 2:  # bfloat16: h5py widens it, and a NaN may come out as another NaN
        n = d[0].size
        return np.fromfile(f.filename, "<u2", n, offset=d.id.get_offset() + 2 * n * int(i)).tobytes()
    return d[i:i + 1].tobytes()

def check(path, committed):
    f = h5py.File(path, "r")
    states = f["state"][:]
    assert (states != 0).sum() == committed, (path, states)
    meanings = f["state"].attrs["flag_meanings"].decode().split()
    assert meanings == ["empty", "done", "too_long"] and list(f["state"].attrs["flag_values"]) == [0, 1, 2]
    order = f["checksum"].attrs["fields"].decode().split()
    for i in np.flatnonzero(states):
        crc = 0
        for name in order:
            crc = zlib.crc32(stored_bytes(f, name, i), crc)
        assert zlib.crc32(bytes([states[i]]), crc) == f["checksum"][i], (path, i)
    for name, d in f.items():
        assert d.chunks is None and d.compression is None, name
        if not h5py.h5ds.is_scale(d.id):
            for dim, size in zip(d.dims, d.shape):
                assert len(dim) == 1 and dim[0].shape == (size,), (path, name)
        assert "long_name" in d.attrs and ("units" in d.attrs or d.dtype.kind == "S"), name
    assert list(f["resid_post"].dims[1][0][:]) == [0, 6, 25]
    assert f.attrs["schema_version"] == 3 and f.attrs["schema"] == b"pva-test"
    return f

work = sys.argv[1]
check(work + "/f32.h5", 24)
check(work + "/part.h5", 8)
check(work + "/busy.h5", 20)
check(work + "/checkpoints/f32-00010.h5", 10)
f = check(work + "/bf16.h5", 20)
values = f["resid_post"][...]
assert values.dtype == np.float32, values.dtype
raw = np.fromfile(work + "/bf16.h5", "<u2", values.size, offset=f["resid_post"].id.get_offset())
bits, expected = values.reshape(-1).view(np.uint32), raw.astype(np.uint32) << 16
is_nan = np.isnan(expected.view(np.float32))
assert (bits[~is_nan] == expected[~is_nan]).all() and np.isnan(values.reshape(-1)[is_nan]).all() and not is_nan.all()
print("h5py", h5py.__version__, "reads all of it")
EOF
    timeout 60 "$python" "$work/read.py" "$work" || fail "h5py"
else
    echo "SKIP h5py: no python3 has it (Debian: python3-h5py; or PVA_PYTHON=interpreter)"
fi

kill -0 "$busy" 2> /dev/null || fail "the writing job ended before the readers had looked at its file"
kill "$busy" 2> /dev/null
wait "$busy" 2> /dev/null
[ "$ran" -gt 0 ] || exit 77
echo "store_tools: $failed failed"
[ "$failed" -eq 0 ]
