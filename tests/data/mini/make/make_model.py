#!/usr/bin/env python3
"""model/: a small Gemma 2, trained from nothing on problems of the families, never on an evaluation problem.

Needs torch, safetensors, sentencepiece (requirements.txt). One thread. A state is kept in --work so that a stopped training goes on.
"""
import argparse
import math
import pathlib
import time

import sentencepiece
import torch

import gemma2
from corpus import HERE, training_documents, training_problems
from variation import prompt

EOS, BOS = 1, 2
STEPS, BATCH, WARM_UP = 420, 24, 50
DOCUMENT_SHARE, PROMPT_WEIGHT = 0.05, 0.1
MATRIX_RATE, OTHER_RATE = 4e-3, 4e-3
LONGEST = 200


def examples(pieces, count, seed):
    """(tokens, index of the first token of the solution) for problems; (tokens, their number) for everyday text."""
    found = []
    for problem in training_problems(seed, count):
        head = [BOS] + pieces.encode(prompt(problem))
        tokens = head + pieces.encode("\n" + problem["code"]) + [EOS]
        if len(tokens) <= LONGEST:
            found.append((tokens, len(head)))
    for text in training_documents(seed, int(count * DOCUMENT_SHARE)):
        tokens = ([BOS] + pieces.encode(text))[:LONGEST]
        found.append((tokens, len(tokens)))
    return found


def batches(found, generator):
    """Groups of about equal length, in random order."""
    noise = torch.rand(len(found), generator=generator) * 12
    order = sorted(range(len(found)), key=lambda i: len(found[i][0]) + float(noise[i]))
    groups = [order[i:i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)]
    for index in torch.randperm(len(groups), generator=generator).tolist():
        group = [found[i] for i in groups[index]]
        longest = max(len(tokens) for tokens, _ in group)
        tokens, weight = torch.zeros(BATCH, longest, dtype=torch.long), torch.zeros(BATCH, longest)
        for row, (sequence, start) in enumerate(group):
            tokens[row, :len(sequence)] = torch.tensor(sequence)
            weight[row, 1:len(sequence)] = PROMPT_WEIGHT
            weight[row, start:len(sequence)] = 1.0
        # weight[:, i] belongs to token i, which is predicted at i - 1
        yield tokens, weight


def rate(step):
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="a folder for the state of the training")
    parser.add_argument("--stop-after", type=int, default=STEPS, help="stop at this step (the schedule stays)")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    state_file = arguments.work / "state.pt"
    torch.set_num_threads(1)
    torch.manual_seed(1)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(HERE / "model" / "tokenizer.model"))
    model = gemma2.Gemma2()
    matrices = [p for name, p in model.layers.named_parameters() if p.ndim == 2]
    others = [model.embed_tokens.weight, *(p for p in model.parameters() if p.ndim == 1)]
    optimizers = [torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
                  torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)]
    bases = [MATRIX_RATE, OTHER_RATE]
    step, used = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step, used = state["step"], state["used"]
    print(f"{sum(p.numel() for p in model.parameters())} parameters, step {step}", flush=True)

    # One portion of fresh problems per 250 steps, so that a stopped training finds its place again.
    portion, began, seen = 250, time.time(), 0
    while step < arguments.stop_after:
        generator = torch.Generator().manual_seed(step)
        found = examples(pieces, int(portion * BATCH / (1 + DOCUMENT_SHARE) * 1.03), f"portion {step // portion}")
        ready, cpu = time.time(), time.process_time()
        totals = torch.zeros(3)
        for number, (tokens, weight) in enumerate(batches(found, generator)):
            if number == portion or step == STEPS:
                break
            for optimizer, base in zip(optimizers, bases):
                optimizer.param_groups[0]["lr"] = base * rate(step)
            logits = model(tokens[:, :-1])
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
            weight = weight[:, 1:].flatten()
            loss = (losses * weight).sum() / weight.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            seen += tokens.numel()
            solution = weight == 1
            totals += torch.stack([losses[solution].sum().detach(), solution.sum(), torch.tensor(1.0)])
            if step % 50 == 0:
                print(f"step {step}/{STEPS} loss per solution token {totals[0] / totals[1]:.4f}  {time.time() - began:.0f} s "
                      f"(cpu {time.process_time() - cpu + used:.0f} s), {seen / (time.time() - began):.0f} tokens/s", flush=True)
                totals.zero_()
        used += time.process_time() - cpu
        torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step, "used": used}, state_file)
    gemma2.save(model, HERE / "model")
    print(f"saved; {used:.0f} s of processor time in {step} steps")


if __name__ == "__main__":
    main()
