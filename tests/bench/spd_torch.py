"""Time per training step of tms_5-2: spd-run beside a minimal PyTorch loop over the same computation.

    python tests/bench/spd_torch.py build/spd-run [THREADS] [ROUNDS]

The loop below is the method written down afresh in the most direct PyTorch, with what a step needs and nothing else: no logging, no
evaluation. Both run in turn, ROUNDS times; wall and processor time per step are printed, and the ratio of the medians.
"""
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import torch

F, H, C, N, BATCH, STEPS = 5, 2, 20, 16, 4096, 100


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
    def __init__(self, d_in, d_out):
        super().__init__()
        self.V = torch.nn.Parameter(torch.randn(d_in, C))
        self.U = torch.nn.Parameter(torch.randn(C, d_out))
        self.W0 = torch.nn.Parameter(torch.randn(C, N) * 2**0.5)
        self.b0 = torch.nn.Parameter(torch.zeros(C, N))
        self.W1 = torch.nn.Parameter(torch.randn(C, N) / N**0.5)
        self.b1 = torch.nn.Parameter(torch.zeros(C))

    def importances(self, x):
        h = x @ self.V
        z = torch.nn.functional.gelu(h[..., None] * self.W0 + self.b0)
        raw = (z * self.W1).sum(-1) + self.b1
        upper = torch.where(raw > 1, 1 + 0.01 * (raw - 1), raw.clamp(min=0))
        return LowerLeaky.apply(raw), upper

    def forward(self, x, g):
        mask = g + (1 - g) * torch.rand_like(g)
        return ((x @ self.V) * mask) @ self.U


def make():
    torch.manual_seed(0)
    W = torch.randn(F, H)
    bias = torch.zeros(F)
    parts = torch.nn.ModuleList([Part(F, H), Part(H, F)])
    optimiser = torch.optim.AdamW(parts.parameters(), lr=1e-3, weight_decay=0)

    def step():
        x = torch.rand(BATCH, F) * (torch.rand(BATCH, F) < 0.05)
        with torch.no_grad():
            hidden = x @ W
            target = torch.relu(hidden @ W.T + bias)
        (g1, u1), (g2, u2) = parts[0].importances(x), parts[1].importances(hidden)
        both = torch.relu(parts[1](parts[0](x, g1), g2) + bias)
        first = torch.relu(parts[0](x, g1) @ W.T + bias)
        second = torch.relu(parts[1](hidden, g2) + bias)
        faithfulness = (((parts[0].V @ parts[0].U - W) ** 2).sum() + ((parts[1].V @ parts[1].U - W.T) ** 2).sum()) / (2 * F * H)
        loss = faithfulness + ((both - target) ** 2).mean() + (((first - target) ** 2).mean() + ((second - target) ** 2).mean()) / 2
        loss = loss + 3e-3 * ((u1 + 1e-12).sum(-1) + (u2 + 1e-12).sum(-1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def main():
    program, threads, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1, int(sys.argv[3]) if len(sys.argv) > 3 else 5
    torch.set_num_threads(threads)
    step = make()
    for _ in range(20):
        step()
    ours, theirs = [], []
    config = f"""
C: {C}
gate_type: mlp
gate_hidden_dims: [{N}]
target_module_patterns: [linear1, linear2]
stochastic_recon_coeff: 1.0
stochastic_recon_layerwise_coeff: 1.0
importance_minimality_coeff: 3.0e-3
pnorm: 1.0
output_loss_type: mse
batch_size: {BATCH}
eval_batch_size: 8
steps: %d
lr: 1.0e-3
train_log_freq: 1000000
eval_freq: 1000000
n_eval_steps: 1
slow_eval_freq: 1000000
n_examples_until_dead: 1
pretrained_model_class: TMSModel
pretrained_model_path: recipe:tms_5-2
task_config: {{task_name: tms, feature_probability: 0.05}}
"""
    with tempfile.TemporaryDirectory() as directory:

        def run(steps):
            path = os.path.join(directory, f"bench{steps}.yaml")
            with open(path, "w") as f:
                f.write(config % steps)
            used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run([program, path, "--quiet", "--out", directory, "--threads", str(threads), "--resume", "never", "--no-create-report"], check=True)
            ended, now = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            return ended - began, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime

        run(1)  # trains the target
        for _ in range(rounds):
            short, long = run(100), run(1100)  # the difference leaves out starting and ending
            ours.append([(b - a) / 1000 for a, b in zip(short, long)])
            began, used = time.perf_counter(), time.process_time()
            for _ in range(STEPS):
                step()
            theirs.append([(time.perf_counter() - began) / STEPS, (time.process_time() - used) / STEPS])
    print(f"torch {torch.__version__}, {threads} thread(s), {rounds} rounds in turn; ms per step of tms_5-2, median (smallest to largest)")
    for k, kind in enumerate(("wall", "processor")):
        a, b = [1e3 * x[k] for x in ours], [1e3 * x[k] for x in theirs]
        print(f"{kind:10} spd-run {statistics.median(a):7.3f} ({min(a):.3f} to {max(a):.3f})   torch {statistics.median(b):7.3f} ({min(b):.3f} to {max(b):.3f})   "
              f"ratio {statistics.median(b) / statistics.median(a):.1f}")


main()
