"""Small JumpReLU autoencoders in every layout that is read, and what they give: python3 make_sae.py sae
Formulas as in GemmaScope's tutorial (JumpReLUSAE.encode, .decode), in float64. Needs numpy and safetensors (requirements.txt)."""
import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

out = pathlib.Path(sys.argv[1])
out.mkdir(exist_ok=True)
d, m, n = 24, 131, 13
rng = np.random.default_rng(20240801)
f = np.float32
w_enc = rng.normal(0, 1, (d, m)).astype(f)
w_dec = rng.normal(0, 1, (m, d)).astype(f)
w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
b_enc = rng.normal(0, 0.3, m).astype(f)
b_dec = rng.normal(0, 0.3, d).astype(f)
threshold = rng.uniform(3, 9, m).astype(f)
x = rng.normal(0, 1, (n, d)).astype(f)
x[7] *= 20  # as the first position of a sequence: many latents
x[11] = 0
w_enc[:, [5, 70, 71, 130]] = 0  # z is b_enc alone:
b_enc[5] = threshold[5]  # equal to its threshold: not active
b_enc[70] = threshold[70] * f(1 + 5e-4)  # near, active
b_enc[71] = threshold[71] * f(1 - 5e-4)  # near, not active
b_enc[130] = threshold[130] * f(2)  # always active

arrays = dict(W_enc=w_enc, W_dec=w_dec, b_enc=b_enc, b_dec=b_dec, threshold=threshold)
np.savez(out / "stored.npz", **arrays)
np.savez_compressed(out / "deflated.npz", **arrays)
np.savez(out / "fortran.npz", **{k: np.asfortranarray(v) for k, v in arrays.items()})
np.savez(out / "wide.npz", **{k.lower(): v.astype(np.float64) for k, v in arrays.items()})
(out / "saelens").mkdir(exist_ok=True)
save_file(arrays, out / "saelens" / "sae_weights.safetensors")
(out / "saelens" / "cfg.json").write_text(json.dumps(dict(architecture="jumprelu", d_in=d, d_sae=m, apply_b_dec_to_input=False, normalize_activations="none")))

z = x.astype(np.float64) @ w_enc.astype(np.float64) + b_enc
a = np.where(z > threshold, z, 0)
reconstruction = a @ w_dec.astype(np.float64) + b_dec
residual = ((x - reconstruction) ** 2).sum(0).sum()
fvu = residual / ((x - x.astype(np.float64).mean(0)) ** 2).sum()
near = np.abs(z - threshold) < 1e-3 * threshold
np.savez(out / "expected.npz", x=x, z=z, threshold=threshold, reconstruction=reconstruction, w_dec=w_dec, fvu=np.array([fvu]), l0=np.array([(a > 0).sum(1).mean()]),
         n_near=np.array([near.sum()], dtype=np.int32))

# What a .npy may look like.
np.save(out / "vector_f2.npy", rng.normal(0, 1, 9).astype(np.float16))
np.save(out / "vector_f8.npy", np.arange(5) / 3)
np.save(out / "matrix_fortran.npy", np.asfortranarray(np.arange(24, dtype=f).reshape(2, 3, 4)))
with open(out / "version3.npy", "wb") as file:
    np.lib.format.write_array(file, np.arange(6, dtype=f).reshape(2, 3), version=(3, 0))
with open(out / "version2.npy", "wb") as file:
    np.lib.format.write_array(file, np.arange(6, dtype=f).reshape(2, 3), version=(2, 0))
np.save(out / "integers.npy", np.arange(4, dtype=np.int64))
print("mean L0", (a > 0).sum(1).mean(), "near", near.sum(), "closest |z-t|/t besides the made ones",
      np.sort((np.abs(z - threshold) / threshold)[:, [j for j in range(m) if j not in (5, 70, 71)]].ravel())[:3])
