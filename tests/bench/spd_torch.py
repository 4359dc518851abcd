"""spd-run beside a minimal PyTorch loop over the same computation: time per training step, or the losses of both.

    python tests/bench/spd_torch.py build/spd-run time KEY [THREADS] [ROUNDS]
    python tests/bench/spd_torch.py build/spd-run losses KEY STEPS [THREADS]

The loop is the method written down afresh in the most direct PyTorch, with what a step needs and nothing else: no logging, no evaluation, no terms with
coefficient 0. It takes the target's weights from spd-run and draws everything else itself. `time`: both run in turn, ROUNDS times; wall and processor time
per step, and the ratio of the medians. `losses`: each starts from an initialisation of its own and trains STEPS steps; their losses beside each other.
"""
import json
import math
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import torch

# per key: components, gate's width, importance coefficient, exponent, batch, learning rate, cosine; steps of torch and of spd-run in a round
SETTINGS = {
    "tms_5-2": (20, 16, 3e-3, 1, 4096, 1e-3, True, 100, 1000),
    "tms_5-2-id": (20, 16, 3e-3, 1, 4096, 1e-3, True, 50, 500),
    "tms_40-10": (200, 16, 1e-4, 2, 4096, 1e-3, True, 4, 50),
    "tms_40-10-id": (200, 16, 1e-4, 2, 4096, 1e-3, True, 4, 50),
    "resid_mlp1": (100, 16, 1e-5, 2, 2048, 2e-3, False, 8, 100),
    "resid_mlp2": (400, 16, 1e-5, 2, 2048, 1e-3, False, 2, 10),
    "resid_mlp3": (500, 128, 5e-6, 2, 2048, 1e-3, False, 1, 3),
}
LARGEST = 8 << 20  # gate activations of one module in memory at once: a batch is computed in parts, which leaves the gradient as it is


def read_target(directory):
    with open(directory + "/target.safetensors", "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        head, body = json.loads(f.read(n)), f.read()
    return {
        name: torch.frombuffer(bytearray(body[slice(*x["data_offsets"])]), dtype=torch.float32).reshape(x["shape"])
        for name, x in head.items()
        if name != "__metadata__"
    }


class LowerLeaky(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where(x <= 0, 0.01 * g, torch.where(x <= 1, g, 0.0))


class Part(torch.nn.Module):
    """The components of one matrix W [d_in, d_out], and their gates."""

    def __init__(self, W, C, width):
        super().__init__()
        V = torch.nn.functional.normalize(torch.randn(W.shape[0], C), dim=0)
        U = torch.nn.functional.normalize(torch.randn(C, W.shape[1]), dim=1)
        self.W = W
        self.V = torch.nn.Parameter(V)
        self.U = torch.nn.Parameter(U * ((V.T @ W) * U).sum(1, keepdim=True))
        self.W0 = torch.nn.Parameter(torch.randn(C, width) * 2**0.5)
        self.b0 = torch.nn.Parameter(torch.zeros(C, width))
        self.W1 = torch.nn.Parameter(torch.randn(C, width) / width**0.5)
        self.b1 = torch.nn.Parameter(torch.zeros(C))

    def importances(self, x):
        h = x @ self.V
        z = torch.nn.functional.gelu(h[..., None] * self.W0 + self.b0)
        raw = (z * self.W1).sum(-1) + self.b1
        return LowerLeaky.apply(raw), torch.where(raw > 1, 1 + 0.01 * (raw - 1), raw.clamp(min=0))

    def forward(self, x, g):
        mask = g + (1 - g) * torch.rand_like(g)
        return ((x @ self.V) * mask) @ self.U


def make(key, directory):
    C, width, coefficient, p, batch, rate, cosine, *_ = SETTINGS[key]
    torch.manual_seed(0)
    target, residual = read_target(directory), key.startswith("resid")
    names = [n[: -len(".weight")] for n in target if n.endswith(".weight")]
    # in the order of the computation
    names.sort(key=lambda n: n if residual else ("linear1", "hidden_layers.0", "linear2").index(n))
    if residual:
        names = [f"layers.{i}.mlp_{side}" for i in range(len(names) // 2) for side in ("in", "out")]
    parts = {n: Part(target[n + ".weight"].T.contiguous(), C, width) for n in names}
    if not residual:  # tied: two parameters over one storage, each with moments of its own
        first, last = parts["linear1"], parts["linear2"]
        last.V, last.U = torch.nn.Parameter(first.U.data.T), torch.nn.Parameter(first.V.data.T)
    n_weights = sum(x.W.numel() for x in parts.values())
    optimiser = torch.optim.AdamW([q for x in parts.values() for q in x.parameters()], lr=rate, weight_decay=0)

    def layer(name, x, masks, seen):
        if seen is not None:
            seen[name] = x
        return parts[name](x, masks[name]) if name in masks else x @ parts[name].W

    def network(x, masks, seen=None):
        if not residual:
            for name in names:
                x = layer(name, x, masks, seen)
            return torch.relu(x + target["linear2.bias"])
        stream = x @ target["W_E"]
        for i in range(0, len(names), 2):
            stream = stream + layer(names[i + 1], torch.relu(layer(names[i], stream, masks, seen)), masks, seen)
        return stream @ target["W_U"]

    n_features = target["W_E"].shape[0] if residual else target["linear2.bias"].shape[0]

    def step(scale=1.0):
        if residual:
            x = (2 * torch.rand(batch, n_features) - 1) * (torch.rand(batch, n_features) < 0.01)
        else:
            x = torch.rand(batch, n_features) * (torch.rand(batch, n_features) < 0.05)
        optimiser.zero_grad()
        for group in optimiser.param_groups:
            group["lr"] = rate * scale
        faithfulness = sum(((y.V @ y.U - y.W) ** 2).sum() for y in parts.values()) / n_weights
        faithfulness.backward()
        sums = [faithfulness.item(), 0.0, 0.0, 0.0]
        for part in x.split(max(1, LARGEST // (C * width))):
            seen = {}
            with torch.no_grad():
                wanted = network(part, {}, seen)
            gates = {n: parts[n].importances(seen[n]) for n in names}
            lower = {n: g for n, (g, _) in gates.items()}
            share = len(part) / batch
            recon = ((network(part, lower) - wanted) ** 2).mean() * share
            layerwise = sum(((network(part, {n: lower[n]}) - wanted) ** 2).mean() for n in names) / len(names) * share
            importance = sum(((u + 1e-12) ** p).sum(-1).mean() for _, u in gates.values()) * share
            (recon + layerwise + coefficient * importance).backward()
            for i, v in enumerate((recon, layerwise, importance)):
                sums[i + 1] += v.item()
        optimiser.step()
        return sums

    step.cosine = cosine
    return step


def run(program, directory, key, threads, **settings):
    """spd-run by the registered settings, with some replaced: a grid with one value for each."""
    grid = os.path.join(directory, "grid.yaml")
    settings = {"eval_freq": 10**9, "slow_eval_freq": 10**9, "n_eval_steps": 1, "eval_batch_size": 8, **settings}
    with open(grid, "w") as f:
        f.write("global:\n" + "".join(f"  {k}: {{values: [{v}]}}\n" for k, v in settings.items()))
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [program, "-e", key, "--sweep", grid, "--quiet", "--out", directory, "--threads", str(threads), "--resume", "never", "--no-create-report"]
    subprocess.run(command, check=True)
    ended, now = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended - began, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def compare_times(program, key, threads, rounds, directory):
    n_torch, n_ours = SETTINGS[key][-2:]
    run(program, directory, key, threads, steps=1, train_log_freq=10**9)  # trains the target
    step = make(key, f"{directory}/targets/{key}-seed0")
    for _ in range(2):
        step()
    ours, theirs = [], []
    for _ in range(rounds):
        # the difference leaves out starting and ending
        short, long = (run(program, directory, key, threads, steps=1 + n, train_log_freq=10**9) for n in (0, n_ours))
        ours.append([(b - a) / n_ours for a, b in zip(short, long)])
        began, used = time.perf_counter(), time.process_time()
        for _ in range(n_torch):
            step()
        theirs.append([(time.perf_counter() - began) / n_torch, (time.process_time() - used) / n_torch])
    print(f"torch {torch.__version__}, {threads} thread(s), {rounds} rounds in turn; ms per step of {key}, median (smallest to largest)")
    for k, kind in enumerate(("wall", "processor")):
        a, b = [1e3 * x[k] for x in ours], [1e3 * x[k] for x in theirs]
        print(f"{kind:10} spd-run {statistics.median(a):7.3f} ({min(a):.3f} to {max(a):.3f})   torch {statistics.median(b):7.3f} ({min(b):.3f} to {max(b):.3f})   "
              f"ratio {statistics.median(b) / statistics.median(a):.1f}", flush=True)


def compare_losses(program, key, steps, threads, directory):
    names = ["faithfulness", "stochastic_recon", "stochastic_recon_layerwise", "importance_minimality"]
    shown = [n for n in (0, 10, 30, 100, 200, 300, 500, 1000, 2000, 3000, 5000, 10000) if n < steps] + [steps]
    used = run(program, directory, key, threads, steps=steps, train_log_freq=math.gcd(*shown))[1]
    ours = {}
    for entry in os.scandir(directory):
        if entry.name.startswith("spd-"):
            for line in open(entry.path + "/metrics.jsonl"):
                o = json.loads(line)
                if "train/loss/total" in o:
                    ours[o["step"]] = [o["train/loss/" + n] for n in names]
    step, began = make(key, f"{directory}/targets/{key}-seed0"), time.process_time()
    print(f"{key}, {steps} steps; spd-run took {used:.0f} s of processor time with its target\n{'step':>6}  " + "".join(f"{n:>42}" for n in names))
    for n in range(steps + 1):
        theirs = step(math.cos(0.5 * math.pi * n / (steps - 1)) if step.cosine else 1.0)
        if n in shown:
            pairs = "".join(f"{f'{a:.3g} / {b:.3g}':>42}" for a, b in zip(ours[n], theirs))
            print(f"{n:6}  {pairs}  (spd-run / torch, {time.process_time() - began:.0f} s)", flush=True)


def main():
    program, what, key = sys.argv[1:4]
    numbers = [int(x) for x in sys.argv[4:]]
    with tempfile.TemporaryDirectory() as directory:
        if what == "time":
            threads, rounds = (numbers + [1, 5][len(numbers):])[:2]
            torch.set_num_threads(threads)
            compare_times(program, key, threads, rounds, directory)
        else:
            steps, threads = (numbers + [1])[:2]
            torch.set_num_threads(threads)
            compare_losses(program, key, steps, threads, directory)


main()
