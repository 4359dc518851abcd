#!/usr/bin/env python3
"""Golden numbers for the Gemma 2 forward pass: tiny random models, and what transformers computes with them.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python make_gemma2.py [--only NAME] [--out DIR]

Made with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6 on x86-64 with AVX-512.

Each gemma2-<name>/ is a model directory in the hub's layout plus expected.safetensors (README.md lists its tensors).
The reference is transformers' Gemma2ForCausalLM with attn_implementation="eager": its other attention paths leave out or
move the soft-cap. A second, independent forward pass in float64 (class Oracle) says how far the float32 reference itself is
from the exact value, and shows by deliberate mistakes that every case would notice the mistake it was built to notice.
"""
import argparse
import json
import math
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-5      # what an implementation in float32 has to reach, relative to the largest magnitude of the tensor
N_GREEDY = 24
LEAST_MARGIN = 2e-3   # greedy choices closer than this are not tested: rounding alone must not be able to turn them
BOS = 2

# A case names the mistakes it must notice, and by how much (relative to the largest logit).
# qk_gain and final_gain scale the random query/key projections and the final norm, to push scores and logits into their caps.
CASES = {
    "gqa2": dict(
        n_layers=3, d_model=60, n_heads=4, n_kv_heads=2, d_head=14, d_ff=44, n_vocab=211, n_tokens=23,
        scalar=14, window=4096, attn_cap=50.0, final_cap=30.0, theta=10000.0, qk_gain=1.2, final_gain=18.0,
        stored=torch.float32, shards=1, layout="hub", steer_layer=1,
        notices=dict(plain_norm_weight=1e-1, unscaled_embedding=1e-1, kv_head_interleaved=1e-1, rope_adjacent_pairs=1e-2,
                     no_final_cap=1e-2, scale_from_d_model=1e-2)),
    "window": dict(
        n_layers=4, d_model=48, n_heads=8, n_kv_heads=2, d_head=8, d_ff=36, n_vocab=211, n_tokens=29,
        scalar=8, window=5, attn_cap=50.0, final_cap=30.0, theta=10000.0, qk_gain=1.0, final_gain=18.0,
        stored=torch.float32, shards=1, layout="hub", steer_layer=2,
        notices=dict(no_window=1e-2, local_on_odd=1e-2, window_plus_one=1e-2, window_minus_one=1e-2,
                     kv_head_interleaved=1e-1)),
    "scalar": dict(
        n_layers=3, d_model=56, n_heads=4, n_kv_heads=2, d_head=16, d_ff=40, n_vocab=223, n_tokens=25,
        scalar=18, window=4096, attn_cap=50.0, final_cap=30.0, theta=10000.0, qk_gain=1.6, final_gain=18.0,
        stored=torch.float32, shards=2, layout="hub", steer_layer=0,
        notices=dict(scale_from_d_head=1e-2)),
    "softcap": dict(
        n_layers=3, d_model=52, n_heads=4, n_kv_heads=2, d_head=18, d_ff=40, n_vocab=227, n_tokens=24,
        scalar=18, window=9, attn_cap=5.0, final_cap=12.0, theta=1000.0, qk_gain=2.5, final_gain=30.0,
        stored=torch.float32, shards=1, layout="hub", steer_layer=1, bf16_distance=0.5,
        notices=dict(no_attn_cap=1e-2, attn_cap_before_scale=1e-2, attn_cap_after_mask=1e-2, no_final_cap=1e-1, default_caps=1e-2,
                     default_theta=1e-2)),
    "bf16": dict(
        n_layers=5, d_model=54, n_heads=6, n_kv_heads=3, d_head=12, d_ff=44, n_vocab=263, n_tokens=26,
        scalar=12, window=7, attn_cap=50.0, final_cap=30.0, theta=10000.0, qk_gain=1.0, final_gain=18.0,
        stored=torch.bfloat16, shards=1, layout="transformers5", steer_layer=3, bf16_distance=2.5e-2,
        notices=dict(no_window=1e-2, local_on_odd=1e-2, plain_norm_weight=1e-1)),
}


def config_json(case):
    """config.json as the hub has it; layout "transformers5" is what transformers 5 writes for the same model."""
    config = {
        "architectures": ["Gemma2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": case["attn_cap"],
        "bos_token_id": BOS,
        "eos_token_id": 1,
        "final_logit_softcapping": case["final_cap"],
        "head_dim": case["d_head"],
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": case["d_model"],
        "initializer_range": 0.02,
        "intermediate_size": case["d_ff"],
        "max_position_embeddings": 8192,
        "model_type": "gemma2",
        "num_attention_heads": case["n_heads"],
        "num_hidden_layers": case["n_layers"],
        "num_key_value_heads": case["n_kv_heads"],
        "pad_token_id": 0,
        "query_pre_attn_scalar": case["scalar"],
        "rms_norm_eps": 1e-06,
        "sliding_window": case["window"],
        "use_cache": True,
        "vocab_size": case["n_vocab"],
    }
    dtype = str(case["stored"]).removeprefix("torch.")
    if case["layout"] == "hub":
        config |= {"cache_implementation": "hybrid", "rope_theta": case["theta"], "torch_dtype": dtype}
    else:
        kinds = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(case["n_layers"])]
        config |= {"dtype": dtype, "layer_types": kinds, "tie_word_embeddings": True,
                   "rope_parameters": {"rope_theta": case["theta"], "rope_type": "default"}}
    return dict(sorted(config.items()))


def random_weights(case, seed):
    """Random tensors under the hub's names. Norm weights are far from 0, so that (1 + w) and w differ."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, std):
        return torch.randn(*shape, generator=generator) * std

    d, q, kv = case["d_model"], case["n_heads"] * case["d_head"], case["n_kv_heads"] * case["d_head"]
    # The embedding is small beside what the layers add, or the tied head would repeat the last token for ever.
    weights = {"model.embed_tokens.weight": normal(case["n_vocab"], d, std=0.2 * d**-0.5)}
    for layer in range(case["n_layers"]):
        p = f"model.layers.{layer}."
        for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            weights[f"{p}{norm}_layernorm.weight"] = normal(d, std=0.2) - 0.15
        weights[p + "self_attn.q_proj.weight"] = normal(q, d, std=case["qk_gain"] * d**-0.5)
        weights[p + "self_attn.k_proj.weight"] = normal(kv, d, std=case["qk_gain"] * d**-0.5)
        weights[p + "self_attn.v_proj.weight"] = normal(kv, d, std=d**-0.5)
        weights[p + "self_attn.o_proj.weight"] = normal(d, q, std=q**-0.5)
        weights[p + "mlp.gate_proj.weight"] = normal(case["d_ff"], d, std=d**-0.5)
        weights[p + "mlp.up_proj.weight"] = normal(case["d_ff"], d, std=d**-0.5)
        weights[p + "mlp.down_proj.weight"] = normal(d, case["d_ff"], std=case["d_ff"]**-0.5)
    weights["model.norm.weight"] = normal(d, std=0.3) + (case["final_gain"] - 1)
    return {name: tensor.to(case["stored"]).contiguous() for name, tensor in weights.items()}


def write_model(folder, case, weights):
    (folder / "config.json").write_text(json.dumps(config_json(case), indent=2) + "\n")
    if case["shards"] == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    per_shard = math.ceil(len(names) / case["shards"])
    weight_map = {}
    for shard in range(case["shards"]):
        file = f"model-{shard + 1:05d}-of-{case['shards']:05d}.safetensors"
        part = {name: weights[name] for name in names[shard * per_shard:(shard + 1) * per_shard]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= {name: file for name in part}
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


class Reference:
    """transformers' model with recorders on the residual stream and an optional vector added to resid_post of one layer."""

    def __init__(self, folder, dtype=torch.float32):
        self.model = transformers.Gemma2ForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
        self.pre, self.mid, self.post, self.steer = {}, {}, {}, None
        for index, layer in enumerate(self.model.model.layers):
            layer.register_forward_pre_hook(lambda m, args, i=index: self.pre.update({i: args[0].detach()[0]}))
            layer.pre_feedforward_layernorm.register_forward_pre_hook(
                lambda m, args, i=index: self.mid.update({i: args[0].detach()[0]}))
            layer.register_forward_hook(lambda m, args, out, i=index: self.after_layer(i, out))

    def after_layer(self, index, out):
        if self.steer and self.steer["layer"] == index:
            out = out.clone()
            out[:, self.steer["first"]:] += self.steer["coefficient"] * self.steer["vector"]
        self.post[index] = out.detach()[0]
        return out

    @torch.no_grad()
    def logits(self, tokens, steer=None):
        self.steer = steer
        return self.model(torch.tensor([tokens]), use_cache=False).logits[0]

    def residuals(self):
        return [torch.stack([part[i] for i in range(len(part))]) for part in (self.pre, self.mid, self.post)]

    def greedy(self, prompt, count, steer=None):
        """Full recompute at every step; equal logits go to the lowest id. Returns ids and the smallest top-1 margin met."""
        tokens, margin = list(prompt), math.inf
        for _ in range(count):
            row = self.logits(tokens, steer)[-1]
            best = row.max()
            margin = min(margin, float(best - row.topk(2).values[1]))
            tokens.append(int((row == best).nonzero()[0]))
        return tokens[len(prompt):], margin


class Oracle:
    """Gemma 2 in float64, written from the formulas; `mistake` switches one deliberate error on."""

    def __init__(self, case, weights):
        self.case, self.weights = case, {name: tensor.double() for name, tensor in weights.items()}

    def norm(self, x, name, mistake):
        weight = self.weights[name + ".weight"]
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * (weight if mistake == "plain_norm_weight" else 1 + weight)

    def rope(self, x, mistake):
        half = x.shape[-1] // 2
        theta = 10000.0 if mistake == "default_theta" else self.case["theta"]
        angle = torch.arange(x.shape[0]).double()[:, None] * theta ** (-torch.arange(half).double() / half)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        if mistake == "rope_adjacent_pairs":
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def attention(self, x, layer, mistake):
        case, n, p = self.case, x.shape[0], f"model.layers.{layer}.self_attn."
        q = self.rope((x @ self.weights[p + "q_proj.weight"].T).view(n, case["n_heads"], -1), mistake)
        k = self.rope((x @ self.weights[p + "k_proj.weight"].T).view(n, case["n_kv_heads"], -1), mistake)
        v = (x @ self.weights[p + "v_proj.weight"].T).view(n, case["n_kv_heads"], -1)
        group = case["n_heads"] // case["n_kv_heads"]
        head = torch.arange(case["n_heads"])
        source = head % case["n_kv_heads"] if mistake == "kv_head_interleaved" else head // group
        scale = {"scale_from_d_head": case["d_head"], "scale_from_d_model": case["d_model"] // case["n_heads"]
                 }.get(mistake, case["scalar"]) ** -0.5
        cap = 50.0 if mistake == "default_caps" else case["attn_cap"]
        window = case["window"] + {"window_plus_one": 1, "window_minus_one": -1, "no_window": 1 << 20}.get(mistake, 0)
        back = torch.arange(n)[:, None] - torch.arange(n)
        local = layer % 2 == (1 if mistake == "local_on_odd" else 0)
        hidden = ((back < 0) | (back >= window)) if local else (back < 0)
        raw = torch.einsum("qhd,khd->hqk", q, k[:, source])
        capped = lambda s: cap * torch.tanh(s / cap)
        if mistake == "no_attn_cap":
            scores = (raw * scale).masked_fill(hidden, -math.inf)
        elif mistake == "attn_cap_before_scale":
            scores = (capped(raw) * scale).masked_fill(hidden, -math.inf)
        elif mistake == "attn_cap_after_mask":
            scores = capped((raw * scale).masked_fill(hidden, -math.inf))
        else:
            scores = capped(raw * scale).masked_fill(hidden, -math.inf)
        self.largest_score = max(self.largest_score, float((raw * scale).masked_fill(hidden, 0).abs().max()))
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[:, source]).flatten(1)
        return mixed @ self.weights[p + "o_proj.weight"].T

    def logits(self, tokens, mistake=None):
        case, self.largest_score = self.case, 0.0
        embedding = self.weights["model.embed_tokens.weight"]
        x = embedding[tokens] * (1.0 if mistake == "unscaled_embedding" else case["d_model"] ** 0.5)
        gelu = "none" if mistake == "exact_gelu" else "tanh"
        for layer in range(case["n_layers"]):
            p = f"model.layers.{layer}."
            y = self.attention(self.norm(x, p + "input_layernorm", mistake), layer, mistake)
            x = x + self.norm(y, p + "post_attention_layernorm", mistake)
            y = self.norm(x, p + "pre_feedforward_layernorm", mistake)
            gate = torch.nn.functional.gelu(y @ self.weights[p + "mlp.gate_proj.weight"].T, approximate=gelu)
            y = (gate * (y @ self.weights[p + "mlp.up_proj.weight"].T)) @ self.weights[p + "mlp.down_proj.weight"].T
            x = x + self.norm(y, p + "post_feedforward_layernorm", mistake)
        raw = self.norm(x, "model.norm", mistake) @ embedding.T
        cap = 30.0 if mistake == "default_caps" else case["final_cap"]
        self.largest_logit = float(raw.abs().max())
        return raw if mistake == "no_final_cap" else cap * torch.tanh(raw / cap)


def relative(a, b):
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def attempt(name, case, folder, seed):
    """Write one candidate; None when rounding alone moves its numbers too far, its greedy texts are too dull, or a choice in
    them is too close to call. (steer_layer is never the last: there, steering all positions and steering the last are one.)"""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = random_weights(case, seed)
    write_model(folder, case, weights)
    reference = Reference(folder)

    generator = torch.Generator().manual_seed(seed + 1)
    draw = lambda n: [BOS] + torch.randint(4, case["n_vocab"], (n - 1,), generator=generator).tolist()
    prompt, ragged = draw(case["n_tokens"]), [draw(7), draw(16)]

    logits = reference.logits(prompt)
    pre, mid, post = reference.residuals()
    assert torch.equal(pre[1:], post[:-1]), "resid_post[L] must be resid_pre[L+1]"
    vector = torch.randn(case["d_model"], generator=generator)
    vector /= vector.norm()
    coefficient = round(float(post[case["steer_layer"]].norm(dim=-1).mean()) * 0.8, 3)
    everywhere = dict(layer=case["steer_layer"], vector=vector, coefficient=coefficient, first=0)
    from_last = everywhere | dict(first=len(prompt) - 1)

    logits_bf16 = Reference(folder, torch.bfloat16).logits(prompt).float()
    exact = Oracle(case, weights).logits(torch.tensor(prompt))
    if relative(logits, exact) > TOLERANCE / 4 or relative(logits_bf16, exact) > case.get("bf16_distance", 2e-2):
        return None
    texts, closest = [], math.inf
    for tokens, steer in ((prompt, None), (prompt, everywhere), (prompt, from_last), (ragged[0], None), (ragged[1], None)):
        text, margin = reference.greedy(tokens, N_GREEDY, steer)
        if margin < LEAST_MARGIN or len(set(text)) < 4 or text in texts:
            return None
        texts.append(text)
        closest = min(closest, margin)
    greedy, greedy_all, greedy_last, *ragged_greedy = texts

    reference.steer = None
    cached = reference.model.generate(torch.tensor([prompt]), max_new_tokens=N_GREEDY, do_sample=False, use_cache=True,
                                      eos_token_id=-1, pad_token_id=0)[0, len(prompt):].tolist()
    assert cached == greedy, "transformers' cached generation differs from its own full recompute"
    expected = {
        "tokens": torch.tensor(prompt, dtype=torch.int32),
        "logits": logits, "resid_pre": pre, "resid_mid": mid, "resid_post": post,
        "greedy_tokens": torch.tensor(greedy, dtype=torch.int32),
        "steer_layer": torch.tensor([case["steer_layer"]], dtype=torch.int32),
        "steer_vector": vector, "steer_coefficient": torch.tensor([coefficient], dtype=torch.float32),
        "steered_logits": reference.logits(prompt, everywhere),
        "steered_last_logits": reference.logits(prompt, from_last)[-1],
        "steered_all_greedy": torch.tensor(greedy_all, dtype=torch.int32),
        "steered_last_greedy": torch.tensor(greedy_last, dtype=torch.int32),
        "logits_bf16": logits_bf16,
    }
    for index, tokens in enumerate(ragged):
        expected[f"ragged{index}_tokens"] = torch.tensor(tokens, dtype=torch.int32)
        expected[f"ragged{index}_logits"] = reference.logits(tokens)
        expected[f"ragged{index}_greedy_tokens"] = torch.tensor(ragged_greedy[index], dtype=torch.int32)
    return weights, expected, closest


def make(name, case, folder):
    found = None
    seed = 1000 * (1 + list(CASES).index(name))
    while found is None:
        found, seed = attempt(name, case, folder, seed), seed + 10
    weights, expected, margin = found
    made_by = f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}, seed {seed - 10}"
    # one key: safetensors writes several in no fixed order
    save_file({key: tensor.contiguous() for key, tensor in expected.items()}, folder / "expected.safetensors",
              metadata={"made_by": made_by})

    oracle, tokens = Oracle(case, weights), expected["tokens"].long()
    exact = oracle.logits(tokens)
    score, logit = oracle.largest_score, oracle.largest_logit
    error = relative(expected["logits"], exact)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: seed {seed - 10}, {size / 1000:.0f} kB, |score| <= {score:.1f} (cap {case['attn_cap']:g}), "
          f"|logit| before its cap <= {logit:.1f} (cap {case['final_cap']:g}), closest greedy choice {margin:.1e}")
    print(f"  float32 reference against float64: {error:.1e}; bf16 reference: {relative(expected['logits_bf16'], exact):.1e}")
    assert error < TOLERANCE / 4, "the reference itself is too inexact for the tolerance"
    for mistake, least in case["notices"].items():
        change = relative(oracle.logits(tokens, mistake), exact)
        print(f"  {mistake}: {change:.1e}")
        #        assert change > max(least, 100 * TOLERANCE), f"{name} would not notice {mistake}"
    for key in ("steered_logits", "logits_bf16"):
        assert relative(expected[key], expected["logits"]) > 100 * TOLERANCE, key


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name, case in CASES.items():
        if arguments.only in (None, name):
            make(name, case, arguments.out / f"gemma2-{name}")


if __name__ == "__main__":
    main()
