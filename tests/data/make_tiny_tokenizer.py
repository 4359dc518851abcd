#!/usr/bin/env python3
"""Makes tests/data/tiny-tokenizer/: a SentencePiece model of 512 pieces with the settings of Gemma's (byte pairs, byte fallback,
identity normalisation, no dummy prefix, spaces kept, digits split, pad 0, eos 1, bos 2, unk 3), trained on the sentences generated
below, and vectors.jsonl, which the SentencePiece package itself encoded.

Made with Python 3.11 and sentencepiece==0.1.97:   python3 make_tiny_tokenizer.py
Another version of the package may learn other pieces; the tests only need model and vectors to come from the same run.
"""
import io
import itertools
import json
import os

import sentencepiece

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny-tokenizer")

VERBS = ["find", "count", "remove", "sort", "reverse", "check", "sum", "merge"]
THINGS = ["the numbers", "all words", "the largest element", "duplicate characters", "the even digits", "every vowel"]
PLACES = ["in a list", "of a string", "in the given tuple", "of a matrix", "from a dictionary"]
NAMES = ["values", "text", "items", "matrix", "n", "k"]


def sentences():
    for verb, thing, place in itertools.product(VERBS, THINGS, PLACES):
        yield f"Write a function to {verb} {thing} {place}."
    for verb, a, b in itertools.product(VERBS, NAMES, NAMES):
        yield f"def {verb}_{a}({a}, {b}=None):"
        yield f"    return [x for x in {a} if x != {b}]"
        yield f"        assert {verb}_{a}([1, 2, 3], {len(b)}) == {{'{b}': True}}"
    for a in NAMES:
        yield f"    for i in range(len({a})):"
        yield f"        if {a}[i] % 2 == 0 and {a}[i] > 10:"
        yield f"            result.append({a}[i])"
        yield f"    while {a}: {a} = {a}[1:]"
        yield f"import math; from collections import {a}"


TEXTS = [
    "", " ", "  ", "\n", "\t", "\r\n", "a", "Write a function to find the numbers in a list.",
    "def sort_items(items, n=None):\n    return [x for x in items if x != n]\n", "    leading and trailing    ",
    "1234567890", "3.14159 + 2**10 == 1027.14159", "tabs\tand\r\nline ends\n\n\n", "na\u00efve caf\u00e9 \u00fcber",
    "\u4f60\u597d\uff0c\u4e16\u754c", "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467", "<bos>text<eos><pad><unk>",
    "<start_of_turn>user\nhello<end_of_turn>\n", "<0x41><0x0A>", "zero\u0000byte", "e\u0301 is not \u00e9", "\ufeffmark",
    "\u200bzero width\u00a0space", "x" * 300, " " * 40 + "deep", "\u2581", "a\u2581b", "\uffff\U0010ffff", "\u007f\u0001",
    "assert find_numbers([1, 2, 3], 4) == {'n': True}",
]


def main():
    os.makedirs(HERE, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(sentences())), model_writer=model, model_type="bpe", vocab_size=512, byte_fallback=True,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, character_coverage=1.0, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>",
        eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>", num_threads=1, minloglevel=2,
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\t"])
    with open(os.path.join(HERE, "tokenizer.model"), "wb") as f:
        f.write(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    with open(os.path.join(HERE, "vectors.jsonl"), "w", encoding="utf-8", newline="\n") as f:
        for text in TEXTS:
            ids = processor.encode(text)
            f.write(json.dumps({"text": text, "ids": ids, "decoded": processor.decode(ids)}) + "\n")


if __name__ == "__main__":
    main()
