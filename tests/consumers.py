"""consumers.sh's checks: test_table's files, read by pyarrow, DuckDB and Python's own csv and json."""
import csv
import importlib
import json
import math
import sys

folder = sys.argv[1]
TEXTS = ["plain", 'a,"b"\nc', "caf\u00e9 \u20ac \U0001f30d", "cut ??", ""]
SHORT = {
    "flag": [True, False, True, True, False],
    "small": [0, -1, 2147483647, -2147483648, 7],
    "large": [0, -1, 2**63 - 1, -(2**63), 1234567890123],
    "real": [0.1, math.nan, math.inf, -1.7976931348623157e308, 5e-324],
    "text, quoted": TEXTS,
}
MANY = 150000


def equal(a, b):
    return len(a) == len(b) and all(x == y or (x != x and y != y) for x, y in zip(a, b))


def check(found, kind):
    for name, wanted in SHORT.items():
        assert equal(found[name], wanted), (kind, name, found[name])


def check_long(found, kind):
    assert found["number"] == [i * i for i in range(MANY)], kind
    assert found["root"] == [math.sqrt(i) for i in range(MANY)], kind
    assert found["odd"] == [bool(i & 1) for i in range(MANY)], kind
    assert found["name"] == [TEXTS[0 if i % 4 == 3 else i % 4] for i in range(MANY)], kind


def with_pyarrow(module):
    from pyarrow import parquet
    for name, test in (("short", check), ("long", check_long)):
        file = parquet.ParquetFile(f"{folder}/{name}.parquet")
        test(file.read().to_pydict(), "pyarrow")
    assert file.num_row_groups == 3 and file.metadata.num_rows == MANY


def with_duckdb(module):
    for name, test in (("short", check), ("long", check_long)):
        found = module.sql(f"select * from '{folder}/{name}.parquet'")
        rows = found.fetchall()
        test({column: [row[i] for row in rows] for i, column in enumerate(found.columns)}, "duckdb")
    assert module.sql(f"select count(*) from '{folder}/long.csv'").fetchall()[0][0] == MANY


def with_json(module):
    rows = [module.loads(line) for line in open(f"{folder}/short.jsonl")]
    for name, wanted in SHORT.items():
        wanted = [None if isinstance(x, float) and not math.isfinite(x) else x for x in wanted]
        assert [row[name] for row in rows] == wanted, name


def with_csv(module):
    with open(f"{folder}/short.csv", newline="") as file:
        rows = list(module.DictReader(file))
    assert [row["text, quoted"] for row in rows] == TEXTS
    assert [float(row["real"] or "nan") for row in rows][2:] == SHORT["real"][2:] and rows[1]["real"] == ""
    assert [int(row["large"]) for row in rows] == SHORT["large"]


for name, test in (("json", with_json), ("csv", with_csv), ("pyarrow", with_pyarrow), ("duckdb", with_duckdb)):
    try:
        module = importlib.import_module(name)
    except ImportError:
        print(f"SKIP {name}: not installed")
        continue
    test(module)
    print(f"{name} reads it")
