"""Problem families over lists: filters, maps, sums of both, sorting, slicing, nested lists."""

from variation import Draft, family


@family(4)
def aggregate(v):
    function, word = v.pick(("sum", "sum"), ("max", "largest number"), ("min", "smallest number"), ("len", "number of elements"))
    return Draft(
        [f"find the {word} of a list", f"return the {word} in the given list", f"compute the {word} of a list of numbers"],
        [f"list_{function}", f"find_{function}", f"get_{function}", f"{function}_of_list"],
        f"def NAME(numbers):\n    return {function}(numbers)",
        v.lists(4) + [([v.number(1, 9)],), ([-3, -1, -8],)],
    )


@family(2)
def list_product(v):
    return Draft(
        [
            "multiply all numbers in a list",
            "find the product of a list of numbers",
            "return the product of all elements of a list",
        ],
        ["multiply_list", "list_product", "product", "multiply_all"],
        "def NAME(numbers):\n    result = 1\n    for n in numbers:\n        result *= n\n    return result",
        v.lists(4, high=9) + [([],), ([0, 4],), ([5],)],
    )


COMPARISONS = [(">", "greater than"), ("<", "less than"), (">=", "at least"), ("<=", "at most"), (">", "above"), ("<", "below")]


def condition(v):
    """A test on one number: (expression in n, words, inputs that sit around its edge)."""
    kind = v.number(0, 3)
    if kind <= 1:
        k = v.number(2, 40)
        op, words = v.choice(COMPARISONS)
        return f"n {op} {k}", f"{words} {k}", lambda: v.around(k)
    if kind == 2:
        k = v.number(3, 9)
        return f"n % {k} == 0", f"divisible by {k}", lambda: [k * v.number(1, 5), *v.ints(1, 40, 2, 3), k * v.number(1, 5)]
    rest, word = v.pick((0, "even"), (1, "odd"))
    return f"n % 2 == {rest}", word, lambda: v.ints(1, 40, 4, 5)


@family(4)
def filter_numbers(v):
    test, words, draw = condition(v)
    return Draft(
        [
            f"keep the numbers of a list that are {words}",
            f"find all numbers in a list that are {words}",
            f"return the list elements that are {words}",
        ],
        ["filter_numbers", "keep", "select", "pick_numbers"],
        f"def NAME(numbers):\n    return [n for n in numbers if {test}]",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(2)
def drop_numbers(v):
    test, words, draw = condition(v)
    return Draft(
        [f"remove the numbers of a list that are {words}", f"drop all list elements that are {words}"],
        ["remove_numbers", "drop_numbers", "discard", "without_numbers"],
        f"def NAME(numbers):\n    return [n for n in numbers if not {test}]",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(4)
def count_matching(v):
    test, words, draw = condition(v)
    return Draft(
        [f"count the numbers in a list that are {words}", f"find how many numbers of a list are {words}"],
        ["count_numbers", "count_matching", "how_many", "tally"],
        f"def NAME(numbers):\n    return sum(1 for n in numbers if {test})",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(2)
def sum_matching(v):
    test, words, draw = condition(v)
    return Draft(
        [f"find the sum of the numbers in a list that are {words}", f"add up the list elements that are {words}"],
        ["sum_matching", "sum_selected", "add_selected", "total_of"],
        f"def NAME(numbers):\n    return sum(n for n in numbers if {test})",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(1)
def any_all_matching(v):
    test, words, draw = condition(v)
    function, word, other = v.pick(("all", "all numbers", "are"), ("any", "any number", "is"))
    some = [draw() for _ in range(5)]
    fits = [[n for n in numbers if eval(test)] for numbers in some[:2]]
    misses = [[n for n in numbers if not eval(test)] for numbers in some[2:4]]
    return Draft(
        [f"check if {word} in a list {other} {words}", f"tell whether {word} of the given list {other} {words}"],
        [f"{function}_match", f"check_{function}", f"{function}_of_them"],
        f"def NAME(numbers):\n    return {function}({test} for n in numbers)",
        [(numbers,) for numbers in some + fits + misses] + [([],)],
    )


def mapping(v):
    """A value made of one number: (expression in n, words)."""
    k = v.number(2, 30)
    return v.pick(
        (f"n + {k}", f"{k} added", f"add {k} to"),
        (f"n * {k}", f"multiplied by {k}", f"multiply by {k}"),
        (f"n - {k}", f"{k} subtracted", f"subtract {k} from"),
        ("n * n", "squared", "square"),
        ("n ** 3", "cubed", "cube"),
        ("-n", "negated", "negate"),
        ("2 * n", "doubled", "double"),
    )


@family(4)
def map_numbers(v):
    expression, done, todo = mapping(v)
    verb = (
        f"multiply every number of a list by {todo.split()[-1]}"
        if todo.startswith("multiply")
        else f"{todo} every number of a list"
    )
    return Draft(
        [verb, f"return a list with every number {done}", f"return the given numbers {done}"],
        ["map_numbers", "change_all", "apply", "transform_list"],
        f"def NAME(numbers):\n    return [{expression} for n in numbers]",
        v.lists(4, high=15) + [([],), ([0, 1],)],
    )


@family(1)
def sum_mapped(v):
    expression, done, _ = mapping(v)
    return Draft(
        [f"find the sum of all list elements {done}", f"add up the numbers of a list, each {done}"],
        ["sum_changed", "sum_mapped", "total_changed"],
        f"def NAME(numbers):\n    return sum({expression} for n in numbers)",
        v.lists(4, high=12) + [([],), ([0, 1],)],
    )


@family(1)
def map_matching(v):
    test, words, draw = condition(v)
    expression, done, _ = mapping(v)
    return Draft(
        [
            f"return the numbers of a list that are {words}, each {done}",
            f"keep the list elements that are {words} and return them {done}",
        ],
        ["map_matching", "change_selected", "filter_and_change"],
        f"def NAME(numbers):\n    return [{expression} for n in numbers if {test}]",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(0.5)
def extreme_matching(v):
    test, words, draw = condition(v)
    function, word = v.pick(("max", "largest"), ("min", "smallest"))
    return Draft(
        [
            f"find the {word} number of a list that is {words}, or 0 if there is none",
            f"return the {word} list element that is {words} and 0 without one",
        ],
        [f"{word}_matching", f"{word}_selected", f"find_{word}_one"],
        f"def NAME(numbers):\n    return {function}([n for n in numbers if {test}], default=0)",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(1)
def replace_matching(v):
    test, words, draw = condition(v)
    k = v.pick(0, 1, -1, v.number(2, 50))
    return Draft(
        [f"replace the numbers of a list that are {words} with {k}", f"put {k} in place of every list element that is {words}"],
        ["replace_numbers", "replace_selected", "overwrite"],
        f"def NAME(numbers):\n    return [{k} if {test} else n for n in numbers]",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(4)
def sort_list(v):
    words, call = v.pick(
        ("in ascending order", "sorted(numbers)"),
        ("in descending order", "sorted(numbers, reverse=True)"),
        ("by absolute value", "sorted(numbers, key=abs)"),
        ("from the largest to the smallest", "sorted(numbers, reverse=True)"),
    )
    low = -20 if "abs" in call else 0
    return Draft(
        [
            f"sort a list of numbers {words}",
            f"return the given numbers sorted {words}",
            f"put the numbers of a list in order, {words}",
        ],
        ["sort_numbers", "sort_list", "order", "sorted_numbers"],
        f"def NAME(numbers):\n    return {call}",
        v.lists(4, low=low, high=30) + [([],), ([2, 1],)],
    )


@family(1)
def sort_words(v):
    words, call = v.pick(
        ("by length", "sorted(words, key=len)"),
        ("alphabetically", "sorted(words)"),
        ("by their last letter", "sorted(words, key=lambda w: w[-1])"),
        ("in reverse alphabetical order", "sorted(words, reverse=True)"),
        ("from long to short", "sorted(words, key=len, reverse=True)"),
    )
    return Draft(
        [f"sort a list of words {words}", f"return the given words sorted {words}"],
        ["sort_words", "order_words", "arrange"],
        f"def NAME(words):\n    return {call}",
        [(v.words(3, 4),) for _ in range(5)] + [([],)],
    )


@family(1)
def sort_pairs(v):
    i, word = v.pick((0, "first"), (1, "second"))
    tail, how = v.pick(("", ""), (", reverse=True", " in descending order"))
    draw = lambda: [(a, b) for a, b in zip(v.sample(range(20), 3), v.sample(range(20), 3))]
    return Draft(
        [f"sort a list of pairs by the {word} element{how}", f"order pairs{how} by their {word} value"],
        ["sort_pairs", "order_pairs", "sort_by_element"],
        f"def NAME(pairs):\n    return sorted(pairs, key=lambda p: p[{i}]{tail})",
        [(draw(),) for _ in range(5)],
    )


@family(2)
def kth_element(v):
    k = v.number(2, 4)
    name = {2: "second", 3: "third", 4: "fourth"}[k]
    word, call = v.pick(("largest", f"sorted(numbers)[-{k}]"), ("smallest", f"sorted(numbers)[{k - 1}]"))
    return Draft(
        [f"find the {name} {word} number of a list", f"return the {name} {word} element in the given list"],
        [f"{name}_{word}", f"find_{name}", f"kth_{word}"],
        f"def NAME(numbers):\n    return {call}",
        [(v.sample(range(1, 60), v.number(4, 6)),) for _ in range(5)],
    )


@family(2)
def list_part(v):
    k = v.number(1, 4)
    words, part = v.pick(
        (f"the first {k} elements", f"[:{k}]"),
        (f"the last {k} elements", f"[-{k}:]"),
        (f"all but the first {k} elements", f"[{k}:]"),
        (f"all but the last {k} elements", f"[:-{k}]"),
        ("the elements in reverse order", "[::-1]"),
        (f"every {k + 1}th element", f"[::{k + 1}]"),
    )
    return Draft(
        [f"return {words} of a list", f"get {words} of the given list", f"take {words} from a list"],
        ["list_part", "take", "part_of_list", "slice_list"],
        f"def NAME(numbers):\n    return numbers{part}",
        v.lists(4, least=5, most=6),
    )


@family(2)
def end_elements(v):
    words, value = v.pick(
        ("sum of the first and the last element", "numbers[0] + numbers[-1]"),
        ("first and the last element as a pair", "(numbers[0], numbers[-1])"),
        ("difference of the largest and the smallest number", "max(numbers) - min(numbers)"),
        ("sum of the largest and the smallest number", "max(numbers) + min(numbers)"),
        ("product of the first and the last element", "numbers[0] * numbers[-1]"),
    )
    return Draft(
        [f"find the {words} of a list", f"return the {words} in the given list"],
        ["end_elements", "combine_ends", "list_ends", "spread"],
        f"def NAME(numbers):\n    return {value}",
        v.lists(5, low=1, high=30) + [([v.number(1, 9)],)],
    )


@family(2)
def unique_elements(v):
    draw = lambda: [v.number(1, 5) for _ in range(v.number(4, 6))]
    if v.random() < 0.5:
        return Draft(
            ["remove duplicates from a list and sort it", "return the sorted distinct elements of a list"],
            ["unique", "distinct", "unique_sorted"],
            "def NAME(numbers):\n    return sorted(set(numbers))",
            [(draw(),) for _ in range(5)] + [([],)],
        )
    return Draft(
        ["remove duplicates from a list but keep the order", "return the distinct elements of a list in their first order"],
        ["unique", "distinct", "remove_duplicates"],
        "def NAME(numbers):\n    result = []\n    for n in numbers:\n        if n not in result:\n            result.append(n)\n    return result",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(1)
def rotate_list(v):
    k = v.number(1, 3)
    way, code = v.pick(("left", f"numbers[{k}:] + numbers[:{k}]"), ("right", f"numbers[-{k}:] + numbers[:-{k}]"))
    return Draft(
        [f"rotate a list by {k} to the {way}", f"move the elements of a list {k} places to the {way} in a circle"],
        ["rotate", f"rotate_{way}", "shift_list"],
        f"def NAME(numbers):\n    return {code}",
        v.lists(5, least=4, most=6),
    )


@family(2)
def index_of_extreme(v):
    function, word = v.pick(("max", "largest"), ("min", "smallest"))
    return Draft(
        [f"find the index of the {word} number in a list", f"return the position of the {word} element of a list"],
        [f"index_of_{function}", f"{word}_index", f"where_{function}"],
        f"def NAME(numbers):\n    return numbers.index({function}(numbers))",
        v.lists(5, high=40) + [([7],), ([4, 9, 9],), ([2, 2, 5],)],
    )


@family(1)
def chunk_list(v):
    k = v.number(2, 3)
    return Draft(
        [f"split a list into parts of {k} elements", f"cut a list into chunks of length {k}"],
        ["chunks", "split_list", "make_parts"],
        f"def NAME(numbers):\n    return [numbers[i:i + {k}] for i in range(0, len(numbers), {k})]",
        v.lists(4, least=3, most=6) + [([],), ([1],)],
    )


@family(2)
def combine_lists(v):
    op, words = v.pick(("+", "sums"), ("*", "products"), ("-", "differences"))

    def two():
        n = v.number(2, 4)
        return v.ints(0, 15, n, n), v.ints(0, 15, n, n)

    return Draft(
        [
            f"find the element-wise {words} of two lists",
            f"return the list of the {words} of elements at the same place in two lists",
        ],
        ["combine_lists", f"list_{words}", "elementwise"],
        f"def NAME(a, b):\n    return [x {op} y for x, y in zip(a, b)]",
        [two() for _ in range(5)] + [([], []), ([1, 2], [3])],
    )


@family(2)
def set_operation(v):
    words, code = v.pick(
        ("common elements", "sorted(set(a) & set(b))"),
        ("elements found in either list", "sorted(set(a) | set(b))"),
        ("elements found in only one list", "sorted(set(a) ^ set(b))"),
        ("elements of the first list that are not in the second", "sorted(set(a) - set(b))"),
    )
    draw = lambda: (v.sample(range(9), v.number(2, 4)), v.sample(range(9), v.number(2, 4)))
    return Draft(
        [
            (
                f"find the {words} of two lists in sorted order"
                if "list" not in words
                else f"find the {words} in sorted order for two lists"
            ),
            f"return a sorted list of the {words}, given two lists",
        ],
        ["compare_lists", "set_operation", "two_lists", "match_lists"],
        f"def NAME(a, b):\n    return {code}",
        [draw() for _ in range(6)] + [([], [1])],
    )


@family(1)
def flatten(v):
    draw = lambda: [v.ints(0, 9, 1, 3) for _ in range(v.number(2, 3))]
    if v.random() < 0.5:
        return Draft(
            ["flatten a list of lists", "return all elements of nested lists in one list"],
            ["flatten", "flatten_list", "one_list"],
            "def NAME(lists):\n    return [n for part in lists for n in part]",
            [(draw(),) for _ in range(5)] + [([],), ([[], [3]],)],
        )
    return Draft(
        ["find the sum of all numbers in a list of lists", "add up the elements of nested lists"],
        ["nested_sum", "sum_nested", "total_nested"],
        "def NAME(lists):\n    return sum(sum(part) for part in lists)",
        [(draw(),) for _ in range(5)] + [([],), ([[], [3]],)],
    )


@family(1)
def running_total(v):
    op, word = v.pick(("+", "sums"), ("*", "products"))
    start = 0 if op == "+" else 1
    return Draft(
        [f"return the running {word} of a list", f"find the cumulative {word} of a list of numbers"],
        [f"running_{word}", "cumulative", "accumulate"],
        f"def NAME(numbers):\n    result = []\n    total = {start}\n    for n in numbers:\n        total {op}= n\n        result.append(total)\n    return result",
        v.lists(4, low=1, high=9) + [([],), ([5],)],
    )


@family(2)
def count_value(v):
    k = v.number(0, 9)
    draw = lambda: [v.pick(k, v.number(0, 9)) for _ in range(v.number(3, 5))]
    return Draft(
        [f"count how often {k} occurs in a list", f"find the number of times {k} is in the given list"],
        ["count_value", f"count_{k}", "times_in_list", "occurrences_of"],
        f"def NAME(numbers):\n    return numbers.count({k})",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(1)
def neighbour_differences(v):
    op, word = v.pick(("-", "differences"), ("+", "sums"), ("*", "products"))
    return Draft(
        [
            f"find the {word} of neighbouring elements of a list",
            f"return the list of the {word} of each element and the one before it",
        ],
        [f"neighbour_{word}", f"adjacent_{word}", "pairwise"],
        f"def NAME(numbers):\n    return [numbers[i] {op} numbers[i - 1] for i in range(1, len(numbers))]",
        v.lists(5, high=15) + [([4],)],
    )


@family(1)
def is_sorted(v):
    words, op = v.pick(
        ("in ascending order", "<="), ("in descending order", ">="), ("strictly increasing", "<"), ("strictly decreasing", ">")
    )
    up = sorted(v.sample(range(30), 4), reverse=">" in op)
    return Draft(
        [f"check if a list is {words}", f"tell whether the numbers of a list are {words}"],
        ["is_sorted", "check_order", "in_order"],
        f"def NAME(numbers):\n    for i in range(1, len(numbers)):\n        if not numbers[i - 1] {op} numbers[i]:\n            return False\n    return True",
        [(up,), (up[::-1],), ([1, 1, 2][:: -1 if ">" in op else 1],), (v.ints(),), ([],), (up[:2] + up[:1],)],
    )


@family(0.5)
def pairs_with_sum(v):
    k = v.number(6, 16)
    draw = lambda: [x for a in v.sample(range(1, k), 2) for x in (a, k - a)] + [v.number(1, 9)]
    return Draft(
        [f"count the pairs of list elements whose sum is {k}", f"find how many pairs in a list add up to {k}"],
        ["count_pairs", "pairs_with_sum", "sum_pairs"],
        f"def NAME(numbers):\n    count = 0\n    for i in range(len(numbers)):\n        for j in range(i + 1, len(numbers)):\n"
        f"            if numbers[i] + numbers[j] == {k}:\n                count += 1\n    return count",
        [(draw(),) for _ in range(4)] + [(v.ints(),), ([],), ([k // 2, k - k // 2],)],
    )


@family(0.5)
def longest_run(v):
    draw = lambda: [x for _ in range(v.number(2, 3)) for x in [v.number(1, 3)] * v.number(1, 3)]
    return Draft(
        [
            "find the length of the longest run of equal elements in a list",
            "return how often an element repeats in a row at most",
        ],
        ["longest_run", "max_run", "equal_in_a_row"],
        "def NAME(numbers):\n    best = 0\n    run = 0\n    for i in range(len(numbers)):\n        if i > 0 and numbers[i] == numbers[i - 1]:\n            run += 1\n"
        "        else:\n            run = 1\n        best = max(best, run)\n    return best",
        [(draw(),) for _ in range(5)] + [([],), ([4],)],
    )


@family(0.5)
def split_by_condition(v):
    test, words, draw = condition(v)
    return Draft(
        [
            f"split a list into the numbers that are {words} and the others",
            f"return two lists, the numbers that are {words} and the rest",
        ],
        ["split_numbers", "partition", "two_groups"],
        f"def NAME(numbers):\n    yes = []\n    no = []\n    for n in numbers:\n        if {test}:\n            yes.append(n)\n        else:\n            no.append(n)\n    return yes, no",
        [(draw(),) for _ in range(5)] + [([],)],
    )


@family(1)
def helper_count(v):
    name, words, body = v.pick(
        ("is_square", "square numbers", "return math.isqrt(n) ** 2 == n"),
        ("is_even", "even numbers", "return n % 2 == 0"),
        ("has_two_digits", "numbers with two digits", "return 10 <= n <= 99"),
        ("is_small", "numbers below 10", "return n < 10"),
        ("ends_in_five", "numbers that end in 5", "return n % 10 == 5"),
    )
    head = "import math\n" if "math" in body else ""
    what, code = v.pick(("count", f"sum(1 for n in numbers if {name}(n))"), ("list", f"[n for n in numbers if {name}(n)]"))
    draw = lambda: [v.pick(4, 9, 16, 25, 5, 15, 10, 99, v.number(1, 120)) for _ in range(v.number(3, 5))]
    return Draft(
        [f"{what} the {words} in a list with a helper function", f"use a helper function to {what} the {words} of a list"],
        [f"{what}_{name[3:] if name.startswith('is_') else name}", f"{what}_with_helper", f"{what}_them"],
        f"{head}def {name}(n):\n    {body}\n\ndef NAME(numbers):\n    return {code}",
        [(draw(),) for _ in range(5)] + [([],)],
    )
