#!/usr/bin/env python3
"""model/tokenizer.model: a SentencePiece tokenizer with Gemma 2's conventions. Needs sentencepiece.

Ids pad 0, eos 1, bos 2, unk 3; byte fallback; text is taken as it is (no normalisation, no dummy prefix, spaces kept); digits stand
alone; runs of spaces are pieces; line ends are pieces of their own.
"""
import io

import sentencepiece

from corpus import HERE, training_documents, training_problems
from variation import prompt

VOCABULARY = 1280
PROBLEMS, DOCUMENTS = 12000, 1500

lines = []
for problem in training_problems("tokenizer", PROBLEMS):
    lines += prompt(problem).split("\n") + problem["code"].split("\n")
for document in training_documents("tokenizer", DOCUMENTS):
    lines += document.split("\n")

model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(line for line in lines if line), model_writer=model, model_type="bpe", vocab_size=VOCABULARY,
    byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
    split_digits=True, allow_whitespace_only_pieces=True, split_by_unicode_script=True, character_coverage=1.0,
    user_defined_symbols=["\n", "\n\n"], pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
    unk_piece="<unk>", num_threads=2, minloglevel=2)
folder = HERE / "model"
folder.mkdir(exist_ok=True)
(folder / "tokenizer.model").write_bytes(model.getvalue())

pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
for text in ["def f(n):\n    return n + 12\n\n", "  two  spaces ", "\tTab, café, \u4f60\r\n", "a" * 50, "\n\n\n"]:
    assert pieces.decode(pieces.encode(text)) == text, text
assert pieces.encode("f(12)") == pieces.encode("f(") + pieces.encode("1") + pieces.encode("2") + pieces.encode(")")
sizes = sorted(len(pieces.encode(prompt(p))) + len(pieces.encode("\n" + p["code"])) + 2 for p in training_problems("check", 500))
print(f"tokenizer.model: {pieces.vocab_size()} pieces, {len(model.getvalue()) / 1000:.0f} kB; a problem with its solution takes "
      f"{sizes[len(sizes) // 2]} tokens (median), {sizes[-1]} (most of 500)")
