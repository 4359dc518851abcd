"""Problem families over dictionaries, tuples, matrices and small classes."""

from variation import Draft, family


def table(v, least=2, most=3, low=1, high=30):
    return {word: v.number(low, high) for word in v.words(least, most)}


def tables(v, count=5, **bounds):
    return [(table(v, **bounds),) for _ in range(count)]


@family(2)
def count_items(v):
    what, argument, draw = v.pick(
        ("letters of a string", "s", lambda: "".join(v.pick("a", "b", "c", "x") for _ in range(v.number(2, 5)))),
        ("elements of a list", "items", lambda: [v.number(1, 3) for _ in range(v.number(2, 5))]),
    )
    return Draft(
        [f"count the {what} in a dictionary", f"return a dictionary with how often each of the {what} occurs"],
        ["count_items", "frequencies", "count_all", "tally_items"],
        f"def NAME({argument}):\n    counts = {{}}\n    for x in {argument}:\n        counts[x] = counts.get(x, 0) + 1\n    return counts",
        [(draw(),) for _ in range(6)],
    )


@family(2)
def extreme_key(v):
    function, word = v.pick(("max", "largest"), ("min", "smallest"))
    return Draft(
        [f"find the key with the {word} value in a dictionary", f"return the key of the {word} value of a dictionary"],
        [f"key_of_{function}", f"{word}_key", "best_key"],
        f"def NAME(d):\n    return {function}(d, key=d.get)",
        tables(v),
    )


@family(2)
def table_total(v):
    words, code = v.pick(
        ("sum of the values", "sum(d.values())"),
        ("largest value", "max(d.values())"),
        ("smallest value", "min(d.values())"),
        ("number of keys", "len(d)"),
    )
    return Draft(
        [f"find the {words} of a dictionary", f"return the {words} in the given dictionary"],
        ["table_total", "dict_value", "summarize", "dict_total"],
        f"def NAME(d):\n    return {code}",
        tables(v) + [({"a": 1},)],
    )


@family(2)
def sorted_keys(v):
    words, code = v.pick(
        ("the sorted keys", "sorted(d)"),
        ("the sorted values", "sorted(d.values())"),
        ("the keys sorted by value", "sorted(d, key=d.get)"),
        ("the keys as a list", "list(d)"),
    )
    return Draft(
        [f"return {words} of a dictionary", f"get {words} from the given dictionary"],
        ["dict_list", "sorted_part", "dict_order", "ordered"],
        f"def NAME(d):\n    return {code}",
        tables(v, least=3) + [({},)],
    )


@family(1)
def invert_table(v):
    return Draft(
        ["swap the keys and values of a dictionary", "invert a dictionary"],
        ["invert", "swap_dict", "invert_dict"],
        "def NAME(d):\n    return {value: key for key, value in d.items()}",
        [({w: n for w, n in zip(v.words(2, 3), v.sample(range(20), 3))},) for _ in range(5)] + [({},)],
    )


@family(1)
def filter_table(v):
    k = v.number(4, 25)
    op, words = v.pick((">", "greater than"), ("<", "less than"), (">=", "at least"))
    draw = lambda: {w: k + d for w, d in zip(v.words(3, 3), v.sample([-3, -2, -1, 0, 1, 2, 4], 3))}
    if v.random() < 0.5:
        return Draft(
            [
                f"keep the entries of a dictionary whose value is {words} {k}",
                f"return the part of a dictionary with values {words} {k}",
            ],
            ["filter_dict", "keep_entries", "select_entries"],
            f"def NAME(d):\n    return {{key: value for key, value in d.items() if value {op} {k}}}",
            [(draw(),) for _ in range(5)] + [({},)],
        )
    return Draft(
        [f"return the keys of a dictionary whose value is {words} {k}", f"list the keys with values {words} {k}"],
        ["filter_keys", "keys_with", "select_keys"],
        f"def NAME(d):\n    return [key for key, value in d.items() if value {op} {k}]",
        [(draw(),) for _ in range(5)] + [({},)],
    )


@family(1)
def change_values(v):
    k = v.number(2, 20)
    op, words = v.pick(("+", f"add {k} to"), ("*", f"multiply by {k}"), ("-", f"subtract {k} from"))
    ask = f"{words} all values of a dictionary" if op != "*" else f"multiply all values of a dictionary by {k}"
    return Draft(
        [ask, f"return a dictionary after the step: {ask}"],
        ["change_values", "update_values", "change_dict"],
        f"def NAME(d):\n    return {{key: value {op} {k} for key, value in d.items()}}",
        tables(v) + [({},)],
    )


@family(1)
def lookup_default(v):
    k = v.pick(0, -1, v.number(2, 99))

    def call(hit):
        d = table(v)
        return d, v.choice(sorted(d)) if hit else v.word() + "s"

    return Draft(
        [
            f"get the value of a key from a dictionary or {k} if it is missing",
            f"look up a key in a dictionary and return {k} when it is not there",
        ],
        ["lookup", "get_value", "find_value"],
        f"def NAME(d, key):\n    return d.get(key, {k})",
        [call(True), call(False), call(True), call(False)],
    )


@family(0.5)
def merge_tables(v):
    def two():
        a, b, c = v.words(3, 3)
        return {a: v.number(1, 9), b: v.number(1, 9)}, {b: v.number(1, 9), c: v.number(1, 9)}

    return Draft(
        ["merge two dictionaries and add the values of common keys", "add two dictionaries of counts"],
        ["merge_dicts", "add_dicts", "merge_counts"],
        "def NAME(a, b):\n    result = dict(a)\n    for key in b:\n        result[key] = result.get(key, 0) + b[key]\n    return result",
        [two() for _ in range(5)] + [({}, {"x": 2}), ({"y": 1}, {})],
    )


@family(0.5)
def group_items(v):
    words, key, draw = v.pick(
        ("words by their length", "len(x)", lambda: v.words(3, 4)),
        ("words by their first letter", "x[0]", lambda: v.words(3, 4)),
        ("numbers by their last digit", "x % 10", lambda: v.ints(1, 25, 3, 4)),
    )
    return Draft(
        [f"group {words} in a dictionary", f"return a dictionary that groups a list of {words}"],
        ["group", "group_items", "group_by"],
        f"def NAME(items):\n    groups = {{}}\n    for x in items:\n        groups.setdefault({key}, []).append(x)\n    return groups",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(1)
def words_to_table(v):
    words, value = v.pick(
        ("its length", "len(w)"),
        ("its first letter", "w[0]"),
        ("its last letter", "w[-1]"),
        ("its reverse", "w[::-1]"),
        ("its upper case form", "w.upper()"),
    )
    return Draft(
        [f"map each word of a list to {words} in a dictionary", f"build a dictionary from every word to {words}"],
        ["word_table", "map_words", "words_dict"],
        f"def NAME(words):\n    return {{w: {value} for w in words}}",
        [(v.words(2, 3),) for _ in range(5)] + [([],)],
    )


@family(1)
def pairs_to_table(v):
    def two():
        n = v.number(2, 3)
        return v.words(n, n), v.ints(1, 20, n, n)

    return Draft(
        ["build a dictionary from a list of keys and a list of values", "combine two lists into a dictionary"],
        ["make_dict", "lists_to_dict", "zip_dict"],
        "def NAME(keys, values):\n    return dict(zip(keys, values))",
        [two() for _ in range(4)] + [([], [])],
    )


@family(1)
def tuple_work(v):
    argument, words, code = v.pick(
        ("pair", "swap the two elements of a pair", "(pair[1], pair[0])"),
        ("pair", "add the two elements of a pair", "pair[0] + pair[1]"),
        ("pair", "multiply the two elements of a pair", "pair[0] * pair[1]"),
        ("pair", "repeat a pair twice in one tuple", "pair + pair"),
        ("pair", "convert a pair to a list", "list(pair)"),
    )
    return Draft(
        [words, f"return the result: {words}"],
        ["pair_work", "use_pair", "handle_pair", "from_pair"],
        f"def NAME(pair):\n    return {code}",
        [((v.number(1, 30), v.number(1, 30)),) for _ in range(5)] + [((0, 7),)],
    )


def matrix(v, rows=None, columns=None):
    rows, columns = rows or v.number(1, 3), columns or v.number(2, 3)
    return [[v.number(0, 9) for _ in range(columns)] for _ in range(rows)]


@family(1)
def transpose(v):
    return Draft(
        ["transpose a matrix", "swap the rows and columns of a matrix"],
        ["transpose", "swap_matrix", "flip_matrix"],
        "def NAME(matrix):\n    return [list(row) for row in zip(*matrix)]",
        [(matrix(v),) for _ in range(5)],
    )


@family(1)
def row_values(v):
    words, code = v.pick(
        ("sum", "sum(row)"),
        ("maximum", "max(row)"),
        ("minimum", "min(row)"),
        ("first element", "row[0]"),
        ("last element", "row[-1]"),
    )
    return Draft(
        [f"find the {words} of each row of a matrix", f"return a list with the {words} of every row"],
        ["row_values", "each_row", f"row_{words.split()[0]}"],
        f"def NAME(matrix):\n    return [{code} for row in matrix]",
        [(matrix(v),) for _ in range(5)],
    )


@family(0.5)
def diagonal_sum(v):
    words, index = v.pick(("main diagonal", "i"), ("other diagonal", "-1 - i"))
    square = lambda n: matrix(v, n, n)
    return Draft(
        [f"find the sum of the {words} of a square matrix", f"add up the {words} of a matrix"],
        ["diagonal_sum", "diagonal", "sum_diagonal"],
        f"def NAME(matrix):\n    return sum(matrix[i][{index}] for i in range(len(matrix)))",
        [(square(n),) for n in (2, 2, 3, 3, 1)],
    )


@family(0.5)
def column_sums(v):
    return Draft(
        ["find the sums of the columns of a matrix", "add up every column of a matrix"],
        ["column_sums", "sum_columns", "columns_total"],
        "def NAME(matrix):\n    return [sum(row[i] for row in matrix) for i in range(len(matrix[0]))]",
        [(matrix(v),) for _ in range(5)],
    )


@family(0.5)
def counter_class(v):
    k = v.number(2, 20)
    noun, method, op = v.pick(
        ("counter", "add", "+"),
        ("score", "raise_by", "+"),
        ("lamp", "dim", "-"),
        ("account", "pay", "-"),
        ("machine", "grow", "*"),
    )
    words = {"+": "adds its argument to", "-": "subtracts its argument from", "*": "multiplies its argument with"}[op]
    return Draft(
        [
            f"create a class for a {noun} whose method {method} {words} the start value",
            f"build a {noun} class with a method {method} that {words} the start value",
        ],
        [noun, f"my_{noun}", f"small_{noun}"],
        f"class NAME:\n    def __init__(self, start):\n        self.value = start\n\n    def {method}(self, n):\n        self.value = self.value {op} n\n        return self.value",
        [(v.number(1, 30), v.number(1, 20)) for _ in range(5)] + [(0, k), (k, 0)],
        "NAME({0})." + method + "({1})",
    )


@family(0.5)
def shape_class(v):
    noun, method, code = v.pick(
        ("rectangle", "area", "self.a * self.b"),
        ("rectangle", "perimeter", "2 * (self.a + self.b)"),
        ("pair", "total", "self.a + self.b"),
        ("pair", "largest", "max(self.a, self.b)"),
        ("interval", "length", "self.b - self.a"),
    )
    return Draft(
        [
            f"create a class for a {noun} of two numbers with a method {method}",
            f"build a {noun} class that takes two numbers and has a method {method}",
        ],
        [noun, f"my_{noun}", f"{noun}_class"],
        f"class NAME:\n    def __init__(self, a, b):\n        self.a = a\n        self.b = b\n\n    def {method}(self):\n        return {code}",
        [(v.number(1, 9), v.number(10, 20)) for _ in range(5)] + [(3, 3)],
        "NAME({0}, {1})." + method + "()",
    )


@family(0.5)
def nested_sum(v):
    return Draft(
        ["find the sum of a nested list of any depth", "add up the numbers of lists inside lists with recursion"],
        ["deep_sum", "nested_total", "sum_deep"],
        "def NAME(items):\n    total = 0\n    for x in items:\n        if isinstance(x, list):\n            total += NAME(x)\n        else:\n            total += x\n    return total",
        [
            ([v.number(1, 9), [v.number(1, 9), v.number(1, 9)]],),
            ([[v.number(1, 9)], [v.number(1, 9), [v.number(1, 9)]]],),
            (v.ints(),),
            ([],),
            ([[[4]]],),
        ],
    )
