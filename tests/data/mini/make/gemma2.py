"""Gemma 2 in PyTorch, small enough to read, for training and for collecting activations. Tensor names are the hub's."""
import json
import math
import pathlib

import torch
from safetensors.torch import load_file, save_file
from torch import nn

SHAPE = dict(n_vocab=1280, n_layers=6, d_model=112, n_heads=4, n_kv_heads=2, d_head=32, d_ff=560, window=40, scalar=28,
             attn_cap=50.0, final_cap=30.0, theta=10000.0, eps=1e-6)


def config_json(shape):
    return dict(sorted({
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "attn_logit_softcapping": shape["attn_cap"], "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
        "final_logit_softcapping": shape["final_cap"], "head_dim": shape["d_head"], "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": shape["d_model"], "initializer_range": 0.02,
        "intermediate_size": shape["d_ff"], "max_position_embeddings": 8192, "model_type": "gemma2",
        "num_attention_heads": shape["n_heads"], "num_hidden_layers": shape["n_layers"],
        "num_key_value_heads": shape["n_kv_heads"], "pad_token_id": 0, "query_pre_attn_scalar": shape["scalar"],
        "rms_norm_eps": shape["eps"], "rope_theta": shape["theta"], "sliding_window": shape["window"],
        "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": shape["n_vocab"]}.items()))


class Norm(nn.Module):
    def __init__(self, d, eps, start):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.full((d,), start)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        d, head = shape["d_model"], shape["d_head"]
        self.q_proj = nn.Linear(d, shape["n_heads"] * head, bias=False)
        self.k_proj = nn.Linear(d, shape["n_kv_heads"] * head, bias=False)
        self.v_proj = nn.Linear(d, shape["n_kv_heads"] * head, bias=False)
        self.o_proj = nn.Linear(shape["n_heads"] * head, d, bias=False)
        self.shape = shape

    def forward(self, x, rope, hidden):
        shape, (batch, n, _) = self.shape, x.shape

        def heads(y, count):
            y = y.view(batch, n, count, -1).transpose(1, 2)
            a, b = y.chunk(2, -1)
            return y * rope[0] + torch.cat((-b, a), -1) * rope[1]

        q, k = heads(self.q_proj(x), shape["n_heads"]), heads(self.k_proj(x), shape["n_kv_heads"])
        v = self.v_proj(x).view(batch, n, shape["n_kv_heads"], -1).transpose(1, 2)
        group = shape["n_heads"] // shape["n_kv_heads"]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = (q * (shape["scalar"] ** -0.5 / shape["attn_cap"])) @ k.transpose(-1, -2)
        scores = (shape["attn_cap"] * torch.tanh(scores)).masked_fill(hidden, -math.inf)
        return self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, d, d_ff):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(d, d_ff, bias=False), nn.Linear(d, d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, d, bias=False)

    def forward(self, x):
        return self.down_proj(nn.functional.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        d, eps = shape["d_model"], shape["eps"]
        self.input_layernorm, self.pre_feedforward_layernorm = Norm(d, eps, 0.0), Norm(d, eps, 0.0)
        self.post_attention_layernorm, self.post_feedforward_layernorm = Norm(d, eps, -0.6), Norm(d, eps, -0.6)
        self.self_attn, self.mlp = Attention(shape), Mlp(d, shape["d_ff"])

    def forward(self, x, rope, hidden):
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), rope, hidden))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Gemma2(nn.Module):
    def __init__(self, shape=SHAPE):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape["n_vocab"], shape["d_model"])
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape["n_layers"]))
        self.norm = Norm(shape["d_model"], shape["eps"], 0.0)
        for name, parameter in self.named_parameters():
            if "norm" not in name:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)

    def residuals(self, tokens):
        """tokens [batch, n] -> resid_post of every layer, each [batch, n, d_model]. Padding stands at the end, where
        causality hides it."""
        shape, n = self.shape, tokens.shape[1]
        half = shape["d_head"] // 2
        angle = torch.arange(n)[:, None] * shape["theta"] ** (-torch.arange(half) / half)
        angle = torch.cat((angle, angle), -1)
        rope = angle.cos(), angle.sin()
        back = torch.arange(n)[:, None] - torch.arange(n)
        everything, local = back < 0, (back < 0) | (back >= shape["window"])
        x, found = self.embed_tokens(tokens) * shape["d_model"] ** 0.5, []
        for index, layer in enumerate(self.layers):
            x = layer(x, rope, everything if index % 2 else local)
            found.append(x)
        return found

    def head(self, x):
        cap = self.shape["final_cap"]
        return cap * torch.tanh(self.norm(x) @ self.embed_tokens.weight.T / cap)

    def forward(self, tokens):
        return self.head(self.residuals(tokens)[-1])


def save(model, folder):
    """The hub's layout, in bfloat16."""
    folder = pathlib.Path(folder)
    weights = {"model." + name: tensor.detach().bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_json(model.shape), indent=2) + "\n")


def load(folder):
    model = Gemma2()
    weights = load_file(pathlib.Path(folder) / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): tensor.float() for name, tensor in weights.items()})
    return model.eval()
