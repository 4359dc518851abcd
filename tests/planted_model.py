"""A model in which one direction decides, by construction, which program is written; and problems for which either program is right.

usage: planted_model.py PVA_MPI TOKENIZER_DIR OUT N

Tokens, a constant C and a flag F are orthogonal dimensions of the residual stream. Attention is zero. Layer 0 is a table current token -> next token, so that
after the prompt comes "\nf=abs". Layer 1 has one unit: where the next token would be "a" and the stream holds more of F than half of C, it writes "i" over
it; from "i" the table goes on to "nt". Nothing writes F: only steering can. So `\nf=abs` becomes `\nf=int` exactly where the stream after layer 0 gets
more than FLIP along F, and nothing else, not a random direction and not minus F, changes anything.

Problem number i has the tests that pass with KINDS[i % 7]: abs alone, int alone, both or neither.
"""
import json
import math
import os
import shutil
import struct
import subprocess
import sys

KINDS = ["abs", "int", "abs", "both", "int", "neither", "abs"]
TESTS = {
    "abs": ["assert f(-3) == 3", "assert f(-4) == 4", "assert f(5) == 5"],
    "int": ["assert f(2.5) == 2", "assert f(-2.5) == -2", "assert f(7) == 7"],
    "both": ["assert f(4) == 4", "assert f(0) == 0", "assert f(9) == 9"],
    "neither": ["assert f(1) == 8", "assert f(2) == 9", "assert f(3) == 7"],
}
D, FF, VOCAB, C, F = 528, 16, 512, 512, 513


def tokens_of(pva_mpi, directory, texts):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    out = subprocess.run([pva_mpi, "tokenize", "--model", directory], input=lines, capture_output=True, text=True, check=True).stdout
    return [json.loads(line)["ids"] for line in out.splitlines()]


def matrix(rows, columns, entries):
    values = [0.0] * (rows * columns)
    for row, column, value in entries:
        values[row * columns + column] += value
    return (rows, columns), values


def layer(n, gate, up, down, post):
    p = f"model.layers.{n}."
    vector = lambda value: ((D,), [value] * D)
    return {
        p + "self_attn.q_proj.weight": matrix(64, D, []), p + "self_attn.k_proj.weight": matrix(32, D, []),
        p + "self_attn.v_proj.weight": matrix(32, D, []), p + "self_attn.o_proj.weight": matrix(D, 64, []),
        p + "mlp.gate_proj.weight": matrix(FF, D, gate), p + "mlp.up_proj.weight": matrix(FF, D, up), p + "mlp.down_proj.weight": matrix(D, FF, down),
        p + "input_layernorm.weight": vector(0.0), p + "post_attention_layernorm.weight": vector(0.0),
        p + "pre_feedforward_layernorm.weight": vector(0.0), p + "post_feedforward_layernorm.weight": vector(post),
    }


def main():
    pva_mpi, tokenizer, out, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    os.makedirs(out + "/model", exist_ok=True)
    shutil.copy(tokenizer + "/tokenizer.model", out + "/model/tokenizer.model")
    letters = list("\nf=absint")
    ids = tokens_of(pva_mpi, out + "/model", ["assert f(1) == 8\n\n# Solution:"] + letters)
    assert all(len(one) == 1 for one in ids[1:]), "a character is not one token"
    of = {letter: one[0] for letter, one in zip(letters, ids[1:])}
    chain = [ids[0][-1]] + [of[x] for x in "\nf=abs"] + [1]
    table = list(zip(chain, chain[1:])) + [(of["i"], of["n"]), (of["n"], of["t"]), (of["t"], 1)]
    assert len({a for a, _ in table}) == len(table) <= FF, "a token comes twice"
    tensors = {"model.embed_tokens.weight": matrix(VOCAB, D, [(t, t, 1.0) for t in range(VOCAB)] + [(t, C, 1.0) for t in range(VOCAB)]),
               "model.norm.weight": ((D,), [0.0] * D)}
    tensors.update(layer(0, [(k, a, 1.0) for k, (a, _) in enumerate(table)], [(k, a, 1.0) for k, (a, _) in enumerate(table)],
                         [(b, k, 1.0) for k, (_, b) in enumerate(table)], 3.0))
    tensors.update(layer(1, [(0, F, 16.0), (0, C, -8.0)], [(0, of["a"], 1.0)], [(of["i"], 0, 1.0)], 9.0))
    header, data, at = {}, [], 0
    for name, (shape, values) in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(out + "/model/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    with open(out + "/model/config.json", "w") as f:
        json.dump({"architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 2, "hidden_size": D, "intermediate_size": FF, "num_attention_heads": 4,
                   "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCAB, "sliding_window": 64, "query_pre_attn_scalar": 16, "max_position_embeddings": 512,
                   "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}, f)
    with open(out + "/problems.jsonl", "w") as f:
        for i in range(count):
            f.write(json.dumps({"task_id": i + 1, "text": f"Problem {i + 1}: {KINDS[i % 7]}.", "code": "f = abs", "test_setup_code": "", "test_list": TESTS[KINDS[i % 7]],
                                "challenge_test_list": []}) + "\n")
    flag = [0.0] * D
    flag[F] = 3.0
    for name, values in (("flag", flag), ("short", flag[:-1]), ("zero", [0.0] * D), ("nan", [math.nan] * D)):
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(values)},), }}"
        head += " " * (-(len(head) + 11) % 64) + "\n"
        with open(f"{out}/{name}.npy", "wb") as f:
            f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + struct.pack(f"<{len(values)}f", *values))
    print("FLIP above", 0.5 * math.sqrt(D))


main()
