"""The same work by this program and by its peers, on the same machine, one after the other: figures of both and their ratio.

    python tests/bench/peers.py generate --model DIR --problems FILE [--new-tokens 128] [--batches 16,64,128] [--seconds 150]
    python tests/bench/peers.py sae      [--d 2304 --latents 16384]
    python tests/bench/peers.py matmul   [--d 2304 --ff 9216]

generate: HF transformers' generate (bfloat16, greedy, left-padded batches in the order of the prompts, the fastest of its attention implementations), at
batch 16 and at the fastest of --batches, against `pva-mpi generate` with the same token ids, at the same batch sizes. Loading is counted for neither. As many
prompts as fit in the time; the largest batch first, so that it has one. New tokens are counted, whatever ends them.
sae: load an autoencoder's file from the page cache and encode, in torch float32 without and with TF32, against `pva-mpi bench sae`.
matmul: torch's bfloat16 product at Gemma 2 2B's largest shape: what `bench prefill` calls "the product alone", by cuBLAS.

On the GPU when torch sees one, else on the CPU (to try it at a tiny shape). Exit 77 without torch, or without transformers for generate.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

try:
    import torch
except ImportError:
    print("SKIP no torch")
    sys.exit(77)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def synchronize():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def timed(work):
    synchronize()
    start = time.perf_counter()
    result = work()
    synchronize()
    return time.perf_counter() - start, result


def pva(args, *command, stdin=None):
    """Runs pva-mpi; returns its standard output and error."""
    done = subprocess.run([args.pva, *command], input=stdin, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"peers.py: {' '.join([args.pva, *command])}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout, done.stderr


def device_line():
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; torch {torch.__version__}")


# ---- generate ----


def read_prompts(args):
    texts = []
    with open(args.problems) as lines:
        for line in lines:
            problem = json.loads(line)
            texts.append(f"{problem.get('text') or problem.get('prompt')}\n\n" + "\n".join(problem.get("test_list", [])) + "\n\n")
    given = "".join(json.dumps({"text": text}) + "\n" for text in texts[: args.prompts])
    out, _ = pva(args, "tokenize", "--model", args.model, "--bos", stdin=given)
    return [json.loads(line)["ids"] for line in out.splitlines()]


def peer_batch(model, prompts, new_tokens, pad):
    """One batch through transformers: seconds, new tokens."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=DEVICE)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=DEVICE)
    seconds, out = timed(lambda: model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, pad_token_id=pad))
    new = out[:, longest:]
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    count = 0
    for row in new.tolist():
        count += next((i for i, token in enumerate(row) if token in ends), len(row))
    return seconds, count


def peer_rate(model, prompts, batch, new_tokens, pad, until):
    seconds = tokens = used = 0
    for at in range(0, len(prompts), batch):
        if at and time.monotonic() > until:
            break
        some = prompts[at : at + batch]
        took, new = peer_batch(model, some, new_tokens, pad)
        seconds, tokens, used = seconds + took, tokens + new, used + len(some)
    return tokens / seconds, used


def own_rate(args, prompts, batch, name):
    with open(name, "w") as file:
        for ids in prompts:
            file.write(json.dumps({"ids": ids}) + "\n")
    _, err = pva(args, "generate", "--model", args.model, "--backend", args.backend, "--prompts", name, "--temperature", "0", "--batch-size", str(batch),
                 "--max-new-tokens", str(args.new_tokens))
    return float(re.search(r"decode ([0-9.]+) tokens/s", err).group(1))


def open_peer(args, attention):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16, attn_implementation=attention)
    return model.to(DEVICE).eval()


def generate(args):
    try:
        import transformers
    except ImportError:
        print("SKIP no transformers")
        return 77
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    prompts = read_prompts(args)
    batches = sorted({16, *map(int, args.batches.split(","))})
    pad = 0
    device_line()
    print(f"transformers {transformers.__version__}, {args.model}, {len(prompts)} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens, "
          f"{args.new_tokens} new tokens, greedy, bfloat16")
    until = time.monotonic() + args.seconds
    model, attention = None, {}
    with torch.inference_mode():
        for name in ("eager", "sdpa", "flash_attention_2"):
            try:
                model = None  # frees the one before
                model = open_peer(args, name)
                peer_batch(model, prompts[:16], 4, pad)  # warms up
                seconds, new = peer_batch(model, prompts[:16], min(args.new_tokens, 32), pad)
                attention[name] = new / seconds
            except (ImportError, ValueError, RuntimeError) as why:
                print(f"  {name}: {str(why).splitlines()[0][:90]}")
        best = max(attention, key=attention.get)
        print("attention: " + ", ".join(f"{name} {rate:.1f} tokens/s" for name, rate in attention.items()) + f"; {best} it is")
        model = None
        model = open_peer(args, best)
        peer_batch(model, prompts[:2], 4, pad)
        peer, used = {}, {}
        for batch in reversed(batches):
            if len(prompts) < batch and peer:
                continue
            try:
                peer[batch], used[batch] = peer_rate(model, prompts, batch, args.new_tokens, pad, until - args.seconds / 2 if batch != 16 else until)
            except torch.cuda.OutOfMemoryError:
                print(f"  batch {batch}: out of memory")
        model = None
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        own = {batch: own_rate(args, prompts, batch, os.path.join(folder, "prompts.jsonl")) for batch in batches}
    for batch in batches:
        if batch in peer:
            print(f"batch {batch}: pva-mpi {own[batch]:.1f} tokens/s; transformers {peer[batch]:.1f} ({used[batch]} prompts): ratio {own[batch] / peer[batch]:.1f}")
        else:
            print(f"batch {batch}: pva-mpi {own[batch]:.1f} tokens/s")
    fastest = max(peer, key=peer.get)
    print(f"best of each against its batch 16 and its best ({fastest}): ratio {max(own.values()) / peer[16]:.1f} and {max(own.values()) / peer[fastest]:.1f}")
    return 0


# ---- encoding ----


def sae(args):
    from safetensors.torch import load_file, save_file

    device_line()
    torch.manual_seed(1)
    rows = (1, 16, 487)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "sae_weights.safetensors")
        d, m = args.d, args.latents
        save_file({"W_enc": (torch.rand(d, m) - 0.5) * (12 / d) ** 0.5, "W_dec": torch.zeros(m, d), "b_enc": torch.zeros(m), "b_dec": torch.zeros(d),
                   "threshold": torch.full((m,), 2.75)}, path)
        x = torch.randn(max(rows), d)

        def encode(n):
            weights = load_file(path)
            w, b, threshold = (weights[name].to(DEVICE) for name in ("W_enc", "b_enc", "threshold"))
            z = x[:n].to(DEVICE) @ w + b
            active = torch.where(z > threshold, z, torch.zeros_like(z)).to_sparse_csr()
            return active.values().cpu(), active.col_indices().cpu(), active.crow_indices().cpu()

        times = {}
        for tf32 in (False, True) if DEVICE == "cuda" else (False,):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            for n in rows:
                encode(n)
                times[n, tf32] = statistics.median(timed(lambda: encode(n))[0] for _ in range(args.repeats))
        out, _ = pva(args, "bench", "sae", "--sae", path, "--backend", args.backend, "--repeats", str(args.repeats))
    for n in rows:
        own = float(re.search(rf"^ *{n} rows, from page cache: +([0-9.]+) ms", out, re.M).group(1))
        line = f"{n} rows: pva-mpi {own:.1f} ms; torch float32 {1e3 * times[n, False]:.1f} ms: ratio {1e3 * times[n, False] / own:.2f}"
        if DEVICE == "cuda":
            line += f"; with TF32 {1e3 * times[n, True]:.1f} ms: ratio {1e3 * times[n, True] / own:.2f}"
        print(line)
    return 0


# ---- the product ----


def matmul(args):
    device_line()
    w = torch.randn(args.ff, args.d, device=DEVICE, dtype=torch.bfloat16)
    for n in (512, 4096):
        x = torch.randn(n, args.d, device=DEVICE, dtype=torch.bfloat16)
        many = 20 if DEVICE == "cuda" else 1
        rates = []
        for _ in range(args.repeats + 1):
            seconds, _ = timed(lambda: [x @ w.T for _ in range(many)])
            rates.append(many * 2 * n * args.d * args.ff / seconds)
        print(f"torch bfloat16 product, {n} rows of {args.d} by {args.ff}: {statistics.median(rates[1:]) / 1e9:.1f} GFLOP/s")
    return 0


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("generate", "sae", "matmul"))
    parser.add_argument("--pva", default=os.path.join(here, "..", "..", "build", "pva-mpi"))
    parser.add_argument("--backend", default="cuda" if DEVICE == "cuda" else "cpu")
    parser.add_argument("--model")
    parser.add_argument("--problems", default=os.path.join(here, "..", "data", "mini", "problems.jsonl"))
    parser.add_argument("--prompts", type=int, default=974)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--batches", default="16,64,128")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--d", type=int, default=2304)
    parser.add_argument("--latents", type=int, default=16384)
    parser.add_argument("--ff", type=int, default=9216)
    args = parser.parse_args()
    if args.what == "generate" and not args.model:
        parser.error("generate needs --model")
    return {"generate": generate, "sae": sae, "matmul": matmul}[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
