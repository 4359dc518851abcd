"""What the problem families share: random material, the shape of a problem, its wording and its tests.

A family is a function that takes a Variation (a seeded source of material) and returns a Draft. Everything a family may vary
(constants, wording, names, inputs) comes from the Variation, so a seed fixes the problem.
"""

import dataclasses
import random

WORDS = """apple river stone candle window garden silver paper forest bridge planet yellow tiger cloud music pencil market
winter summer orange basket button rocket castle dragon flower guitar hammer island jacket kitten lemon mirror needle ocean
pepper rabbit saddle table uncle valley wagon zebra anchor bottle camera dinner engine finger ginger helmet insect jungle
kettle ladder magnet noise onion pocket queen ribbon sugar ticket violet wolf bread chair drum eagle fruit glass horse
level radar noon civic kayak moon sun tree bird fish hat pen cup dog cat""".split()

OPENERS = [
    "Write a function to {}.",
    "Write a python function to {}.",
    "Create a function to {}.",
    "Define a function to {}.",
    "Implement a function to {}.",
    "Write a function that can {}.",
    "Complete a function to {}.",
    "We need a function to {}.",
]


@dataclasses.dataclass
class Draft:
    ask: list  # wordings, each an infinitive phrase
    names: list  # names the function may have
    code: str  # the reference solution; NAME stands for the function's name
    calls: list  # tuples of arguments, more than three, edge cases among them
    check: str = ""  # how a test calls it when not NAME(arguments): {0} {1} ... are the arguments


class Variation(random.Random):
    def pick(self, *options):
        return self.choice(options)

    def number(self, low, high):
        return self.randint(low, high)

    def ints(self, low=0, high=20, least=3, most=5):
        return [self.randint(low, high) for _ in range(self.randint(least, most))]

    def around(self, k, spread=6):
        """A list in which k itself and its neighbours are likely: where a wrong comparison shows."""
        values = [k] + [k + self.randint(-spread, spread) for _ in range(self.randint(2, 4))]
        self.shuffle(values)
        return values

    def lists(self, count=4, **bounds):
        return [(self.ints(**bounds),) for _ in range(count)]

    def word(self):
        return self.choice(WORDS)

    def words(self, least=2, most=4):
        return self.sample(WORDS, self.randint(least, most))

    def letter(self):
        return self.choice("abcdefghiklmnoprstuw")

    def phrase(self, least=2, most=4):
        return " ".join(self.words(least, most))

    def mixed_case(self):
        return "".join(c.upper() if self.random() < 0.4 else c for c in self.word())


FAMILIES = {}  # name -> (function, weight in the training mix)


def family(weight=2.0):
    """Weights: 4 common, 2 usual, 0.5 rare. Evaluation problems are spread evenly over the families instead."""

    def register(function):
        FAMILIES[function.__name__] = (function, weight)
        return function

    return register


def call_text(name, arguments, check=""):
    inside = [repr(argument) for argument in arguments]
    return check.replace("NAME", name).format(*inside) if check else f"{name}({', '.join(inside)})"


def run(code, call):
    """The value the reference gives; the code here is our own."""
    space = {}
    exec(code, space)
    return eval(call, space)


def build(family_name, v, choose):
    """One problem of a family. choose(v, code, cases) picks three of the (call, value) cases."""
    draft = FAMILIES[family_name][0](v)
    name = v.choice(draft.names) if v.random() < 0.85 else "_".join(v.sample(WORDS, 2))
    if draft.code.startswith("class NAME"):
        name = "".join(part.capitalize() for part in name.split("_"))
    code = draft.code.replace("NAME", name)
    calls = list(dict.fromkeys(call_text(name, arguments, draft.check) for arguments in draft.calls))
    cases = [(call, run(code, call)) for call in calls]
    return {
        "family": family_name,
        "text": v.choice(OPENERS).format(v.choice(draft.ask)),
        "code": code,
        "test_list": [f"assert {call} == {value!r}" for call, value in choose(v, code, cases)],
    }


def any_three(v, code, cases):
    """Three cases at random that do not all give the same value (when the family has any that differ)."""
    for _ in range(6):
        chosen = v.sample(cases, 3)
        if len({repr(value) for _, value in chosen}) > 1:
            break
    return chosen


def prompt(problem):
    return problem["text"] + "\n\n" + "\n".join(problem["test_list"]) + "\n\n# Solution:"
