"""Problem families whose solutions branch more: chains of conditions, nested loops, several returns."""

from variation import Draft, family


@family(1)
def four_grades(v):
    top = v.number(70, 95)
    middle, low = top - v.number(8, 20), top - v.number(25, 50)
    a, b, c, d = v.pick(("A", "B", "C", "D"), ("gold", "silver", "bronze", "none"), ("first", "second", "third", "last"))
    return Draft(
        [
            f"return '{a}' for a score of at least {top}, '{b}' from {middle}, '{c}' from {low} and '{d}' below",
            f"grade a score as '{a}' from {top}, '{b}' from {middle}, '{c}' from {low}, else '{d}'",
        ],
        ["four_grades", "grade_letter", "rank_of", "place"],
        f"def NAME(score):\n    if score >= {top}:\n        return '{a}'\n    elif score >= {middle}:\n        return '{b}'\n"
        f"    elif score >= {low}:\n        return '{c}'\n    return '{d}'",
        [(x,) for x in (top, top - 1, middle, middle - 1, low, low - 1, v.number(0, 15))],
    )


@family(1)
def shipping_cost(v):
    a, b, c = v.number(2, 9), v.number(12, 25), v.number(40, 60)
    x, y, z, w = sorted(v.sample(range(2, 60), 4))
    return Draft(
        [
            f"find the cost of a parcel: {x} below {a} kilograms, {y} below {b}, {z} below {c} and {w} otherwise",
            f"return {x} for weights below {a}, {y} below {b}, {z} below {c} and else {w}",
        ],
        ["shipping_cost", "parcel_cost", "postage", "cost_of"],
        f"def NAME(weight):\n    if weight < {a}:\n        return {x}\n    elif weight < {b}:\n        return {y}\n"
        f"    elif weight < {c}:\n        return {z}\n    return {w}",
        [(n,) for n in (1, a - 1, a, b - 1, b, c - 1, c, c + 20)],
    )


@family(1)
def bubble_sort(v):
    op, words = v.pick((">", "ascending"), ("<", "descending"))
    return Draft(
        [f"sort a list in {words} order with bubble sort", f"put a list in {words} order by swapping neighbours"],
        ["bubble_sort", "swap_sort", "sort_by_swaps"],
        "def NAME(numbers):\n    for i in range(len(numbers)):\n        for j in range(len(numbers) - 1 - i):\n"
        f"            if numbers[j] {op} numbers[j + 1]:\n                numbers[j], numbers[j + 1] = numbers[j + 1], numbers[j]\n    return numbers",
        v.lists(5, high=30) + [([],), ([2, 1],)],
    )


@family(1)
def binary_search(v):
    def call(hit):
        numbers = sorted(v.sample(range(30), v.number(3, 5)))
        return numbers, v.choice(numbers) if hit else v.choice([n for n in range(30) if n not in numbers])

    return Draft(
        [
            "find the index of a number in a sorted list with binary search or return -1",
            "search a sorted list by halving it, -1 if the number is missing",
        ],
        ["binary_search", "search_sorted", "find_index"],
        "def NAME(numbers, x):\n    low = 0\n    high = len(numbers) - 1\n    while low <= high:\n        middle = (low + high) // 2\n"
        "        if numbers[middle] == x:\n            return middle\n        elif numbers[middle] < x:\n            low = middle + 1\n"
        "        else:\n            high = middle - 1\n    return -1",
        [call(True), call(True), call(True), call(False), call(False), ([], 3)],
    )


@family(1)
def merge_sorted(v):
    draw = lambda: (sorted(v.ints(1, 20, 1, 3)), sorted(v.ints(1, 20, 1, 3)))
    return Draft(
        ["merge two sorted lists into one sorted list", "combine two lists in ascending order into one such list"],
        ["merge_sorted", "merge", "merge_lists"],
        "def NAME(a, b):\n    result = []\n    while a and b:\n        if a[0] <= b[0]:\n            result.append(a.pop(0))\n"
        "        else:\n            result.append(b.pop(0))\n    return result + a + b",
        [draw() for _ in range(5)] + [([], [1]), ([2], [])],
    )


@family(1)
def rock_paper(v):
    return Draft(
        [
            "decide a game of rock, paper and scissors and return 'first', 'second' or 'draw'",
            "tell who wins rock, paper, scissors: 'first', 'second' or 'draw'",
        ],
        ["rock_paper", "winner", "who_wins"],
        "def NAME(a, b):\n    if a == b:\n        return 'draw'\n    if (a, b) in [('rock', 'scissors'), ('paper', 'rock'), ('scissors', 'paper')]:\n"
        "        return 'first'\n    return 'second'",
        [(a, b) for a in ("rock", "paper", "scissors") for b in ("rock", "paper", "scissors")],
    )


@family(1)
def days_in_month(v):
    return Draft(
        [
            "find the number of days in a month of a year without leap day",
            "return how many days the month with the given number has",
        ],
        ["days_in_month", "month_days", "month_length"],
        "def NAME(month):\n    if month == 2:\n        return 28\n    if month in [4, 6, 9, 11]:\n        return 30\n    return 31",
        [(n,) for n in range(1, 13)],
    )


@family(1)
def best_stretch(v):
    return Draft(
        ["find the largest sum of neighbouring elements of a list", "return the maximum subarray sum of a list"],
        ["max_subarray", "best_stretch", "largest_stretch"],
        "def NAME(numbers):\n    best = numbers[0]\n    total = 0\n    for n in numbers:\n        total = max(total + n, n)\n        best = max(best, total)\n    return best",
        v.lists(5, low=-9, high=9) + [([-3, -1],), ([5],)],
    )


@family(1)
def inversions(v):
    op, words = v.pick((">", "larger"), ("<", "smaller"), ("==", "equal"))
    return Draft(
        [
            (
                f"count the pairs in a list in which the earlier element is {words}"
                if op != "=="
                else "count the pairs of equal elements in a list"
            )
        ],
        ["count_pairs", "inversions", f"{words}_pairs"],
        "def NAME(numbers):\n    count = 0\n    for i in range(len(numbers)):\n        for j in range(i + 1, len(numbers)):\n"
        f"            if numbers[i] {op} numbers[j]:\n                count += 1\n    return count",
        v.lists(5, low=1, high=6) + [([],), ([1, 2],), ([2, 1],), ([3, 3],)],
    )


@family(1)
def good_password(v):
    k = v.number(4, 9)
    draw = lambda: v.mixed_case() + v.pick("", str(v.number(1, 99)))
    return Draft(
        [
            f"check if a password has at least {k} characters, a digit and an upper case letter",
            f"accept a password with {k} or more characters, one digit and one capital letter",
        ],
        ["good_password", "check_password", "accept"],
        f"def NAME(s):\n    if len(s) < {k}:\n        return False\n    if not any(c.isdigit() for c in s):\n        return False\n    return any(c.isupper() for c in s)",
        [(draw(),) for _ in range(4)] + [("A1" + "b" * (k - 2),), ("A1" + "b" * (k - 3),), ("a1" + "b" * k,), ("Ab" * k,)],
    )


@family(1)
def median(v):
    return Draft(
        ["find the median of a list of numbers", "return the middle value of a list, or the mean of the two middle values"],
        ["median", "middle_value", "find_median"],
        "def NAME(numbers):\n    numbers = sorted(numbers)\n    middle = len(numbers) // 2\n    if len(numbers) % 2 == 1:\n        return numbers[middle]\n"
        "    return (numbers[middle - 1] + numbers[middle]) / 2",
        v.lists(6, high=40, least=1, most=5),
    )


@family(1)
def drop_repeats(v):
    draw = lambda: [x for _ in range(3) for x in [v.number(1, 4)] * v.number(1, 2)]
    return Draft(
        ["remove an element of a list if it equals the one before it", "drop repeated neighbours from a list"],
        ["drop_repeats", "remove_neighbours", "no_repeats"],
        "def NAME(numbers):\n    result = []\n    for n in numbers:\n        if not result or result[-1] != n:\n            result.append(n)\n    return result",
        [(draw(),) for _ in range(5)] + [([],), ([1, 1, 1],)],
    )


@family(1)
def compare_totals(v):
    a, b, c = v.pick(("first", "second", "equal"), ("left", "right", "same"), ("A", "B", "tie"))
    draw = lambda: (v.ints(1, 9, 2, 3), v.ints(1, 9, 2, 3))
    return Draft(
        [
            f"compare the sums of two lists and return '{a}', '{b}' or '{c}'",
            f"tell which of two lists has the larger sum: '{a}', '{b}' or '{c}'",
        ],
        ["compare_sums", "larger_list", "heavier"],
        f"def NAME(x, y):\n    if sum(x) > sum(y):\n        return '{a}'\n    elif sum(x) < sum(y):\n        return '{b}'\n    return '{c}'",
        [draw() for _ in range(4)] + [([2, 3], [4, 1]), ([], [1]), ([5], [])],
    )


@family(1)
def count_three_ways(v):
    k = v.number(5, 25)
    return Draft(
        [
            f"count how many numbers of a list are below, equal to and above {k}",
            f"return three counts for a list: numbers less than {k}, equal to {k} and greater",
        ],
        ["three_counts", "count_sides", "below_equal_above"],
        f"def NAME(numbers):\n    low = same = high = 0\n    for n in numbers:\n        if n < {k}:\n            low += 1\n        elif n == {k}:\n            same += 1\n"
        "        else:\n            high += 1\n    return low, same, high",
        [(v.around(k),) for _ in range(5)] + [([],)],
    )


@family(1)
def first_matching(v):
    k = v.number(3, 30)
    op, words = v.pick((">", "greater than"), ("<", "less than"))
    return Draft(
        [
            f"find the first number of a list that is {words} {k}, or -1",
            f"return the first list element {words} {k} and -1 if there is none",
        ],
        ["first_matching", "find_first", "first_one"],
        f"def NAME(numbers):\n    for n in numbers:\n        if n {op} {k}:\n            return n\n    return -1",
        [(v.around(k),) for _ in range(5)] + [([],), ([k],)],
    )


@family(1)
def until_limit(v):
    k = v.number(20, 90)
    return Draft(
        [
            f"count how many times a number must be doubled to reach {k} or more",
            f"find the number of doublings until a number is at least {k}",
        ],
        ["doublings", "count_doublings", "until_limit"],
        f"def NAME(n):\n    count = 0\n    while n < {k}:\n        n = n * 2\n        count += 1\n    return count",
        [(x,) for x in (1, 2, 3, k, k - 1, v.number(4, 19), k // 2, (k + 1) // 2)],
    )
