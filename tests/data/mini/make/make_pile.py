#!/usr/bin/env python3
"""pile.jsonl: general text for the Pile filter. Needs Python alone."""

import json
import pathlib

from everyday import document
from variation import Variation

COUNT = 1500
out = pathlib.Path(__file__).resolve().parent.parent / "pile.jsonl"
v, seen = Variation("pile"), set()
while len(seen) < COUNT:
    seen.add(document(v))
with open(out, "w") as file:
    for text in sorted(seen, key=lambda text: Variation(text).random()):
        file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
print(f"{out.name}: {COUNT} documents, {out.stat().st_size / 1000:.0f} kB")
