#!/usr/bin/env python3
"""saes/: a JumpReLU sparse autoencoder for resid_post of every layer, in GemmaScope's layout. Needs torch and the trained model.

    z = x W_enc + b_enc,   a = z [z > threshold],   x' = a W_dec + b_dec

trained on E|x - x'|^2 + weight E|a|_0 with the straight-through estimators of Rajamanoharan et al. (2024): the step at the threshold
has a rectangular kernel of width BANDWIDTH as its derivative. The weight of the second term follows the wanted L0. Inputs are scaled to
a mean square of one per dimension and the factor is folded into the saved weights. BOS is left out. Every fourth token is the last one
of a prompt, the position that the toolkit captures; L0 and the unexplained variance are measured on fresh text of both kinds.
"""
import argparse
import io
import shutil
import zipfile

import numpy
import sentencepiece
import torch

import gemma2
from corpus import HERE, training_documents, training_problems
from make_model import BOS, EOS, LONGEST
from variation import prompt

WIDTH, WANTED_L0, BANDWIDTH = 1024, 12, 0.05
TOKENS, STEPS, BATCH, RATE = 200_000, 5000, 512, 2e-3


def activations(model, pieces, seed, n_tokens):
    """resid_post of every layer at tokens of problems, solutions and everyday text: (any position, last prompt tokens), each [layers, n, d]."""
    count = n_tokens // 60
    sequences = [([BOS] + pieces.encode(text), None) for text in training_documents(seed, count // 20)]
    for problem in training_problems(seed, count):
        head = [BOS] + pieces.encode(prompt(problem))
        sequences.append((head + pieces.encode("\n" + problem["code"]) + [EOS], len(head) - 1))
    sequences = sorted(((tokens[:LONGEST], end) for tokens, end in sequences), key=lambda s: len(s[0]))
    anywhere, ends = [], []
    generator = torch.Generator().manual_seed(len(sequences))
    with torch.no_grad():
        for first in range(0, len(sequences), 32):
            group = sequences[first:first + 32]
            tokens = torch.zeros(len(group), max(len(t) for t, _ in group), dtype=torch.long)
            for row, (sequence, _) in enumerate(group):
                tokens[row, :len(sequence)] = torch.tensor(sequence)
            found = torch.stack(model.residuals(tokens))
            for row, (sequence, end) in enumerate(group):
                kept = 1 + torch.randperm(len(sequence) - 1, generator=generator)[:45]
                anywhere.append(found[:, row, kept])
                if end is not None and end < len(sequence):
                    ends.append(found[:, row, end:end + 1])
    return torch.cat(anywhere, 1), torch.cat(ends, 1)


class Step(torch.autograd.Function):
    """[z > threshold], with the kernel's derivative to the threshold alone."""

    @staticmethod
    def forward(context, z, threshold):
        context.save_for_backward(z, threshold)
        return (z > threshold).float()

    @staticmethod
    def backward(context, gradient):
        z, threshold = context.saved_tensors
        near = ((z - threshold).abs() < BANDWIDTH / 2).float() / BANDWIDTH
        return None, -(near * gradient).sum(0)


class Jump(torch.autograd.Function):
    @staticmethod
    def forward(context, z, threshold):
        context.save_for_backward(z, threshold)
        return z * (z > threshold)

    @staticmethod
    def backward(context, gradient):
        z, threshold = context.saved_tensors
        near = ((z - threshold).abs() < BANDWIDTH / 2).float() / BANDWIDTH
        return gradient * (z > threshold), -(threshold * near * gradient).sum(0)


def train(x, seed):
    """x [n, d], mean square one per dimension. Returns W_enc, b_enc, threshold, W_dec, b_dec."""
    generator = torch.Generator().manual_seed(seed)
    n, d = x.shape
    w_dec = torch.nn.functional.normalize(torch.randn(WIDTH, d, generator=generator), dim=1)
    w_enc, b_dec = w_dec.T.clone(), x.mean(0)
    b_enc = -b_dec @ w_enc
    log_threshold = torch.full((WIDTH,), -1.6)
    parameters = [p.requires_grad_() for p in (w_enc, b_enc, log_threshold, w_dec, b_dec)]
    optimizer = torch.optim.Adam(parameters, lr=RATE, betas=(0.0, 0.999))
    weight = 0.01
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 200, (STEPS - step) / (0.3 * STEPS))
        rows = x[torch.randint(n, (BATCH,), generator=generator)]
        threshold = log_threshold.exp()
        z = rows @ w_enc + b_enc
        error = (Jump.apply(z, threshold) @ w_dec + b_dec - rows).square().sum(1).mean()
        l0 = Step.apply(z, threshold).sum(1).mean()
        (error + weight * l0).backward()
        with torch.no_grad():  # a decoder's length is not to be changed by its gradient
            w_dec.grad -= (w_dec.grad * w_dec).sum(1, keepdim=True) * w_dec
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            w_dec /= w_dec.norm(dim=1, keepdim=True)
        if step >= 500:
            weight *= 1.005 if l0.item() > WANTED_L0 else 1 / 1.005
    return [p.detach() for p in (w_enc, b_enc, log_threshold.exp(), w_dec, b_dec)]


def quality(parameters, x):
    """Mean L0, and the fraction of the variance that stays unexplained."""
    w_enc, b_enc, threshold, w_dec, b_dec = parameters
    z = x @ w_enc + b_enc
    a = z * (z > threshold)
    lost = (x - a @ w_dec - b_dec).square().sum() / (x - x.mean(0)).square().sum()
    return (a > 0).sum(1).float().mean().item(), lost.item(), (a > 0).any(0).float().mean().item()


def save(path, arrays):
    """numpy's uncompressed archive, with a fixed date, so that equal weights give equal bytes."""
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            numpy.lib.format.write_array(content, numpy.ascontiguousarray(array.numpy().astype("<f4")))
            archive.writestr(zipfile.ZipInfo(name + ".npy"), content.getvalue())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(HERE / "model" / "tokenizer.model"))
    model = gemma2.load(HERE / "model")
    anywhere, ends = activations(model, pieces, "autoencoder", TOKENS)
    fresh, fresh_ends = activations(model, pieces, "autoencoder check", TOKENS // 20)
    shutil.rmtree(HERE / "saes", ignore_errors=True)
    print(f"{anywhere.shape[1]} tokens and {ends.shape[1]} ends of prompts")
    print("layer  L0 any  L0 end  unexplained any  unexplained end  latents alive")
    for layer in range(anywhere.shape[0]):
        rows = anywhere[layer]
        repeats = max(1, rows.shape[0] // 3 // ends.shape[1])
        x = torch.cat([rows, ends[layer].repeat(repeats, 1)])
        scale = x.square().mean().sqrt()
        found = train(x / scale, layer)
        any_l0, any_lost, alive = quality(found, fresh[layer] / scale)
        end_l0, end_lost, _ = quality(found, fresh_ends[layer] / scale)
        w_enc, b_enc, threshold, w_dec, b_dec = found
        # z, a and x' scale with x: the matrices stay as they are, biases and thresholds take the factor.
        save(HERE / "saes" / f"layer_{layer}" / "width_1k" / f"average_l0_{round(any_l0)}" / "params.npz",
             {"W_enc": w_enc, "b_enc": b_enc * scale, "threshold": threshold * scale, "W_dec": w_dec, "b_dec": b_dec * scale})
        print(f"{layer:5}  {any_l0:6.1f}  {end_l0:6.1f}  {any_lost:15.3f}  {end_lost:15.3f}  {alive:13.2f}", flush=True)


if __name__ == "__main__":
    main()
