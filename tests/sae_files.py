"""Small random autoencoders for the scripts, in GemmaScope's layout; the standard library alone.
sae_files.py DIR d_model n_layers n_latents [width [l0...]]: DIR/layer_N/width_W/average_l0_X/params.npz, stored as numpy.savez does."""
import array
import random
import struct
import sys
import zipfile


def npy(values, shape):
    head = ("{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }" % ", ".join(map(str, shape))).encode()
    head += b" " * ((-len(head) - 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + array.array("f", values).tobytes()


def write(path, d, m, seed, damage=None):
    rng = random.Random(seed)
    arrays = {
        "W_dec": ([rng.gauss(0, d**-0.5) for _ in range(m * d)], (m, d)),
        "W_enc": ([rng.gauss(0, 1) for _ in range(d * m)], (d, m)),
        "b_dec": ([rng.gauss(0, 0.1) for _ in range(d)], (d,)),
        "b_enc": ([rng.gauss(0, 1) for _ in range(m)], (m,)),
        "threshold": ([rng.uniform(1, 60) for _ in range(m)], (m,)),
    }
    if damage == "nan":
        arrays["W_enc"][0][d * m // 2 + 5] = float("nan")
    if damage == "missing":
        del arrays["threshold"]
    with zipfile.ZipFile(path, "w") as z:
        for name, (values, shape) in arrays.items():
            with z.open(name + ".npy", "w", force_zip64=True) as f:
                f.write(npy(values, shape))


if __name__ == "__main__":
    import pathlib

    root, d, layers, m = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:5])
    width = sys.argv[5] if len(sys.argv) > 5 else str(m)
    for layer in range(layers):
        for l0 in sys.argv[6:] or ["20"]:
            folder = root / f"layer_{layer}" / f"width_{width}" / f"average_l0_{l0}"
            folder.mkdir(parents=True)
            write(folder / "params.npz", d, m, layer * 1000 + int(l0))
