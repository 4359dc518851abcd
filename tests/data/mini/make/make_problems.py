#!/usr/bin/env python3
"""problems.jsonl: the evaluation problems, in MBPP's format. Needs radon for the difficulty printed at the end.

Two per family at least. Of the cases a family offers, the three tests are those that together refute the most mutants of the
reference (a constant changed by one, a comparison or an operator exchanged, a condition negated), so that a program that is
wrong at an edge fails. Every reference is run against its tests.
"""

import ast
import collections
import copy
import json
import sys

from radon.complexity import cc_visit

from corpus import HERE
from variation import FAMILIES, Variation, build

COUNT = 360
FIRST_ID = 1

EXCHANGE = {
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Mod: ast.FloorDiv,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
CALLS = {
    "max": "min",
    "min": "max",
    "sum": "max",
    "any": "all",
    "all": "any",
    "sorted": "list",
    "upper": "lower",
    "lower": "upper",
}


def mutants(code):
    """Programs that differ from the reference in one place."""
    tree = ast.parse(code)
    places = list(ast.walk(tree))
    for index, node in enumerate(places):
        changes = []
        if isinstance(node, ast.Constant) and type(node.value) is int:
            changes = [lambda n: setattr(n, "value", n.value + 1), lambda n: setattr(n, "value", n.value - 1)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
            changes = [lambda n: setattr(n, "value", n.value[1:])]
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in EXCHANGE:
            changes = [lambda n: n.ops.__setitem__(0, EXCHANGE[type(n.ops[0])]())]
        elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in EXCHANGE:
            changes = [lambda n: setattr(n, "op", EXCHANGE[type(n.op)]())]
        elif isinstance(node, ast.Name) and node.id in CALLS:
            changes = [lambda n: setattr(n, "id", CALLS[n.id])]
        elif isinstance(node, ast.Attribute) and node.attr in CALLS:
            changes = [lambda n: setattr(n, "attr", CALLS[n.attr])]
        for change in changes:
            other = copy.deepcopy(tree)
            change(list(ast.walk(other))[index])
            yield ast.unparse(ast.fix_missing_locations(other))


LIMIT = 20000  # lines a mutant may run: some never end


def values(code, calls):
    """What a mutant gives for each call; an exception or a runaway loop is a value too."""
    result, left = [], 0

    def tick(frame, event, argument):
        nonlocal left
        left -= 1
        if left < 0:
            raise TimeoutError
        return tick

    for call in calls:
        left = LIMIT
        sys.settrace(tick)
        try:
            space = {}
            exec(code, space)
            result.append(repr(eval(call, space)))
        except BaseException as error:
            result.append(type(error).__name__)
        finally:
            sys.settrace(None)
    return result


def sharpest_three(v, code, cases):
    calls, right = [call for call, _ in cases], [repr(value) for _, value in cases]
    refuted = [set() for _ in cases]
    for number, mutant in enumerate(mutants(code)):
        for index, value in enumerate(values(mutant, calls)):
            if value != right[index]:
                refuted[index].add(number)
    order, chosen = v.sample(range(len(cases)), len(cases)), []
    while len(chosen) < 3:
        covered = set().union(*(refuted[index] for index in chosen))
        best = max(
            (i for i in order if i not in chosen),
            key=lambda i: (len(refuted[i] - covered), right[i] not in [right[j] for j in chosen]),
        )
        chosen.append(best)
    return [cases[index] for index in sorted(chosen)]


def check(problem):
    space = {}
    exec(problem["code"], space)
    for test in problem["test_list"]:
        exec(test, space)


def complexity(code):
    return max(block.complexity for block in cc_visit(code))


def harder():
    """Families with a complexity of 4 and more: they get a second place in every round."""
    return [name for name in FAMILIES if complexity(FAMILIES[name][0](Variation(name)).code) >= 4]


def main():
    v, problems, texts = Variation("evaluation"), [], set()
    order = []
    while len(problems) < COUNT:
        order = order or v.sample(list(FAMILIES) + harder(), len(FAMILIES) + len(harder()))
        name = order.pop()
        for _ in range(20):
            problem = build(name, v, sharpest_three)
            if problem["text"] not in texts:
                break
        check(problem)
        texts.add(problem["text"])
        problems.append(problem)
    bins = collections.Counter()
    with open(HERE / "problems.jsonl", "w") as file:
        for number, problem in enumerate(problems):
            branches = complexity(problem["code"])
            bins["1" if branches == 1 else "2-3" if branches <= 3 else ">=4"] += 1
            row = {
                "text": problem["text"],
                "code": problem["code"],
                "task_id": FIRST_ID + number,
                "test_setup_code": "",
                "test_list": problem["test_list"],
                "challenge_test_list": [],
            }
            file.write(json.dumps(row) + "\n")
    used = len({problem["family"] for problem in problems})
    print(f"problems.jsonl: {len(problems)} problems of {used} families, {len(texts)} different texts, complexity {dict(bins)}")


if __name__ == "__main__":
    main()
