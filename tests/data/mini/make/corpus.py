"""The material the tokenizer, the model and the autoencoders are trained on. It never contains an evaluation problem."""

import json
import pathlib

import families_harder  # noqa: F401 (each registers its families)
import families_lists  # noqa: F401
import families_numbers  # noqa: F401
import families_tables  # noqa: F401
import families_text  # noqa: F401
from everyday import document
from variation import FAMILIES, Variation, any_three, build

HERE = pathlib.Path(__file__).resolve().parent.parent


def key(problem):
    """Two problems with equal wording and equal tests are the same problem; so are two with equal tests and equal code."""
    return problem["text"], tuple(problem["test_list"])


def evaluation_problems():
    with open(HERE / "problems.jsonl") as file:
        return [json.loads(line) for line in file]


def training_problems(seed, count):
    """Problems in the proportions of the families' weights, without any whose tests or whose (text, code) are held out."""
    held_out = evaluation_problems()
    tests = {tuple(problem["test_list"]) for problem in held_out}
    pairs = {(problem["text"], problem["code"]) for problem in held_out}
    v = Variation(f"training {seed}")
    names, weights = list(FAMILIES), [weight for _, weight in FAMILIES.values()]
    while count > 0:
        problem = build(v.choices(names, weights)[0], v, any_three)
        if tuple(problem["test_list"]) in tests or (problem["text"], problem["code"]) in pairs:
            continue
        count -= 1
        yield problem


def training_documents(seed, count):
    v = Variation(f"everyday {seed}")
    return [document(v) for _ in range(count)]
