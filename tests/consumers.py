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


VECTOR = [1.5, -2.0, 0.25, 3e38, -0.0, 1e-40]


def with_numpy(module):
    wanted = module.array(VECTOR, dtype="<f4")
    one, two = module.load(f"{folder}/one.npy"), module.load(f"{folder}/two.npy")
    assert one.tobytes() == wanted.tobytes() and two.tobytes() == wanted.tobytes() and two.shape == (2, 3)


def with_gguf(module):
    """What llama.cpp's loader asks of a control vector."""
    file = module.GGUFReader(f"{folder}/vector.gguf")
    assert file.fields["general.architecture"].contents() == "controlvector"
    assert file.fields["controlvector.model_hint"].contents() == "gemma2"
    assert file.fields["controlvector.layer_count"].contents() == 26
    (tensor,) = file.tensors
    assert tensor.name == "direction.19" and list(tensor.shape) == [6] and tensor.tensor_type.name == "F32"
    assert [float(x) for x in tensor.data] == [float(x) for x in importlib.import_module("numpy").array(VECTOR, dtype="<f4")]


for name, test in (("json", with_json), ("csv", with_csv), ("pyarrow", with_pyarrow), ("duckdb", with_duckdb),
                   ("numpy", with_numpy), ("gguf", with_gguf)):
    try:
        module = importlib.import_module(name)
    except ImportError:
        print(f"SKIP {name}: not installed")
        continue
    test(module)
    print(f"{name} reads it")
