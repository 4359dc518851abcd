"""General text for the Pile filter: short documents about everyday subjects, made from templates, with some that look like
code, tables, logs and numbers, because general text has those too."""

import json

PEOPLE = "Anna Ben Clara David Emma Felix Greta Henry Ida Jonas Karin Leo Mara Nils Olga Paul Rosa Simon Tina Victor".split()
PLACES = """the market|the station|the library|the old harbour|the park|the school|the bakery|the town hall|a small village|the lake
the garden|the kitchen|the museum|the workshop|the river bank|the café|the hospital|the office""".replace(
    "\n", "|"
).split(
    "|"
)
FOODS = "soup bread cheese rice apples onions carrots fish pasta tomatoes beans pancakes tea coffee salad potatoes honey".split()
TOOLS = "a hammer|a bicycle|an umbrella|a lamp|a ladder|a camera|a radio|a saw|a kettle|a map|a rope|a bucket".split("|")
WEATHER = "sunny cloudy windy rainy cold foggy mild stormy".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
FEELINGS = "happy tired curious surprised calm nervous proud hungry patient bored".split()
ANIMALS = "dog cat horse owl goat swan hedgehog rabbit fox pigeon".split()
COLOURS = "red green blue grey white brown yellow black".split()


def sentence(v):
    person, other = v.sample(PEOPLE, 2)
    return v.pick(
        lambda: f"On {v.choice(DAYS)} {person} went to {v.choice(PLACES)} and met {other}, who looked {v.choice(FEELINGS)}.",
        lambda: f"{person} bought {v.number(2, 12)} kilograms of {v.choice(FOODS)} because the price had fallen to {v.number(1, 9)} coins.",
        lambda: f"It was {v.choice(WEATHER)} in {v.choice(MONTHS)}, and nobody wanted to leave {v.choice(PLACES)}.",
        lambda: f'"Have you seen my {v.choice(COLOURS)} {v.choice(TOOLS).split()[-1]}?" asked {person}.',
        lambda: f'"I will be there at {v.number(1, 12)} o\'clock," said {other} and closed the door.',
        lambda: f"The {v.choice(COLOURS)} {v.choice(ANIMALS)} slept under the table while {person} was cooking {v.choice(FOODS)}.",
        lambda: f"After {v.number(2, 50)} minutes the bus from {v.choice(PLACES)} arrived, and {person} felt {v.choice(FEELINGS)}.",
        lambda: f"To repair the roof you need {v.choice(TOOLS)}, some patience and a {v.choice(WEATHER)} day.",
        lambda: f"In {v.number(1850, 2020)} the people of the town built a bridge near {v.choice(PLACES)}.",
        lambda: f"Most {v.choice(ANIMALS)}s are {v.choice(FEELINGS)} in the morning, but this one never was.",
        lambda: f"{person} and {other} have known each other for {v.number(2, 40)} years.",
        lambda: f"First wash the {v.choice(FOODS)}, then cut them, and let everything cook for {v.number(5, 90)} minutes.",
        lambda: f"Nobody could explain why the {v.choice(TOOLS).split()[-1]} had been left in {v.choice(PLACES)}.",
        lambda: f"If the weather stays {v.choice(WEATHER)}, we shall walk along the river; otherwise we read at home.",
    )()


def paragraph(v):
    return " ".join(sentence(v) for _ in range(v.number(2, 6)))


def letter(v):
    a, b = v.sample(PEOPLE, 2)
    return f"Dear {a},\n\n{paragraph(v)}\n\n{sentence(v)}\nKind regards,\n{b}\n"


def recipe(v):
    lines = [f"- {v.number(1, 500)} g {food}" for food in v.sample(FOODS, v.number(3, 5))]
    return f"{v.choice(FOODS).title()} with {v.choice(FOODS)}\n\n" + "\n".join(lines) + f"\n\n{sentence(v)}\n"


def timetable(v):
    lines = [
        f"{v.number(5, 22):02d}:{v.number(0, 59):02d}  {v.choice(DAYS)[:3]}  {v.choice(PLACES)}" for _ in range(v.number(4, 9))
    ]
    return "\n".join(lines) + "\n"


def numbers(v):
    lines = [", ".join(str(v.number(0, 9999)) for _ in range(v.number(4, 7))) for _ in range(v.number(3, 7))]
    return "\n".join(lines) + "\n"


def table(v):
    lines = ["date,place,amount,price"]
    for _ in range(v.number(4, 8)):
        lines.append(
            f"{v.number(2001, 2024)}-{v.number(1, 12):02d}-{v.number(1, 28):02d},{v.choice(FOODS)},{v.number(1, 99)},{v.number(1, 99)}.{v.number(10, 99)}"
        )
    return "\n".join(lines) + "\n"


def record(v):
    return (
        json.dumps(
            {
                "name": v.choice(PEOPLE),
                "age": v.number(3, 90),
                "likes": v.sample(FOODS, 2),
                "home": v.choice(PLACES),
                "active": v.pick(True, False),
            },
            indent=v.pick(None, 2),
        )
        + "\n"
    )


def log(v):
    lines = []
    for i in range(v.number(4, 8)):
        level = v.pick("INFO", "WARNING", "ERROR", "DEBUG")
        lines.append(
            f"{v.number(0, 23):02d}:{v.number(0, 59):02d}:{v.number(0, 59):02d} {level} {v.choice(TOOLS).split()[-1]}[{v.number(100, 9999)}]: "
            f"{v.pick('started', 'stopped', 'no answer', 'took ' + str(v.number(2, 900)) + ' ms', 'value is ' + str(v.number(0, 99)))}"
        )
    return "\n".join(lines) + "\n"


def code(v):
    a, b, c = v.sample("count total index price weight size level name left right step value".split(), 3)
    n, m = v.number(1, 99), v.number(1, 99)
    return v.pick(
        f'for (int i = 0; i < {n}; i++) {{\n    {a} += {b}[i] * {m};\n}}\nprintf("%d\\n", {a});\n',
        f"def {a}_{b}({c}, limit={n}):\n    if {c} > limit:\n        raise ValueError('{c} is too large')\n    return {c} + {m}\n",
        f"SELECT {a}, {b} FROM orders WHERE {c} > {n} ORDER BY {a} LIMIT {m};\n",
        f"function {a}({b}) {{\n  const {c} = {b}.map(x => x + {n});\n  return {c}.filter(x => x % {m} === 0);\n}}\n",
        f"import os\nimport sys\n\n{a} = [{n}, {m}]\nwith open('{b}.txt') as f:\n    for line in f:\n        {a}.append(int(line))\nprint(sum({a}))\n",
        f'<ul class="{a}">\n  <li id="{b}">{n}</li>\n  <li>{m}</li>\n</ul>\n',
        f"$ ls -l {a}/\n$ grep -n {b} {c}.log | head -n {n}\n$ cd .. && make -j {m}\n",
        f"class {a.title()}:\n    def __init__(self, {b}):\n        self.{b} = {b}\n        self.{c} = {n}\n\n    def change(self):\n        self.{c} -= {m}\n",
    )


KINDS = [paragraph] * 8 + [letter] * 2 + [recipe, timetable, numbers, table, record, log] + [code] * 3


def document(v):
    return v.choice(KINDS)(v)
