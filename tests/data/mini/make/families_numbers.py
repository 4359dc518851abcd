"""Problem families over numbers: arithmetic, conditions, loops, recursion, `import math`."""

from variation import Draft, family


def singles(*values):
    return [(value,) for value in values]


@family(4)
def add_constant(v):
    k = v.number(2, 99)
    return Draft(
        [f"add {k} to a number", f"increase a number by {k}", f"return the given number plus {k}"],
        [f"add_{k}", "increase", "add_number", "plus"],
        f"def NAME(n):\n    return n + {k}",
        singles(0, -v.number(1, 9), v.number(3, 40), v.number(41, 200), -k),
    )


@family(4)
def subtract_constant(v):
    k = v.number(2, 99)
    return Draft(
        [f"subtract {k} from a number", f"decrease a number by {k}", f"return the given number minus {k}"],
        [f"subtract_{k}", "decrease", "minus", "reduce_number"],
        f"def NAME(n):\n    return n - {k}",
        singles(0, v.number(3, 40), v.number(41, 200), k),
    )


@family(4)
def multiply_constant(v):
    k = v.number(2, 30)
    return Draft(
        [f"multiply a number by {k}", f"return {k} times the given number", f"scale a number by {k}"],
        [f"times_{k}", "multiply", "scale", "product_of"],
        f"def NAME(n):\n    return n * {k}",
        singles(0, 1, v.number(2, 9), v.number(10, 40), -v.number(2, 9)),
    )


@family(2)
def linear(v):
    a, b = v.number(2, 12), v.number(1, 40)
    return Draft(
        [
            f"multiply a number by {a} and then add {b}",
            f"return {a} times the given number plus {b}",
            f"compute {a} * n + {b} for a given n",
        ],
        ["linear", "scale_and_add", "line_value", "transform"],
        f"def NAME(n):\n    return n * {a} + {b}",
        singles(0, 1, v.number(2, 9), v.number(10, 30), -v.number(2, 9)),
    )


@family(2)
def square_minus(v):
    k = v.number(2, 60)
    return Draft(
        [
            f"return the square of a number minus {k}",
            f"square a number and subtract {k}",
            f"compute the square of n and take away {k}",
        ],
        ["square_minus", "square_less", "reduced_square"],
        f"def NAME(n):\n    return n * n - {k}",
        singles(0, 1, v.number(2, 9), v.number(10, 15), -v.number(2, 9)),
    )


@family(2)
def remainder(v):
    k = v.number(3, 20)
    return Draft(
        [
            f"find the remainder of a number divided by {k}",
            f"return a number modulo {k}",
            f"compute what is left when a number is divided by {k}",
        ],
        [f"mod_{k}", "remainder", "left_over", "modulo"],
        f"def NAME(n):\n    return n % {k}",
        singles(0, k, k - 1, k + 1, v.number(20, 90), v.number(91, 200)),
    )


@family(2)
def power_constant(v):
    k = v.number(2, 6)
    return Draft(
        [
            f"raise a number to the power {k}",
            f"return the given number to the power of {k}",
            f"compute the {k}th power of a number",
        ],
        [f"power_{k}", "power", "raise_number", "nth_power"],
        f"def NAME(n):\n    return n ** {k}",
        singles(0, 1, 2, 3, v.number(4, 6), -2, -3),
    )


@family(2)
def average_two(v):
    return Draft(
        [
            "find the average of two numbers",
            "return the mean of two given numbers",
            "compute the number halfway between two numbers",
        ],
        ["average", "mean_of_two", "middle", "average_two"],
        "def NAME(a, b):\n    return (a + b) / 2",
        [(v.number(1, 20), v.number(1, 20)), (v.number(20, 60), v.number(1, 9)), (0, v.number(1, 9)), (v.number(-9, -1), 3)],
    )


@family(2)
def rectangle(v):
    calls = [(v.number(1, 12), v.number(2, 20)) for _ in range(4)] + [(1, 1), (0, 5)]
    if v.random() < 0.5:
        return Draft(
            [
                "find the area of a rectangle",
                "compute the area of a rectangle from its two sides",
                "return the area of a field with a given length and width",
            ],
            ["rectangle_area", "area", "find_area", "field_area"],
            "def NAME(a, b):\n    return a * b",
            calls,
        )
    return Draft(
        [
            "find the perimeter of a rectangle",
            "compute the perimeter of a rectangle from its two sides",
            "return the length of the fence around a rectangle",
        ],
        ["rectangle_perimeter", "perimeter", "find_perimeter", "fence_length"],
        "def NAME(a, b):\n    return 2 * (a + b)",
        calls,
    )


@family(2)
def box_measure(v):
    calls = [(v.number(1, 9), v.number(1, 9), v.number(1, 9)) for _ in range(4)] + [(1, 1, 1)]
    if v.random() < 0.5:
        return Draft(
            ["find the volume of a box", "compute the volume of a cuboid from its three sides", "return how much a box holds"],
            ["box_volume", "volume", "find_volume", "cuboid_volume"],
            "def NAME(a, b, c):\n    return a * b * c",
            calls,
        )
    return Draft(
        ["find the surface area of a box", "compute the surface area of a cuboid from its three sides"],
        ["box_surface", "surface_area", "find_surface", "cuboid_surface"],
        "def NAME(a, b, c):\n    return 2 * (a * b + b * c + a * c)",
        calls,
    )


@family(2)
def unit_conversion(v):
    big, small, factor = v.pick(
        ("weeks", "days", 7),
        ("hours", "minutes", 60),
        ("minutes", "seconds", 60),
        ("days", "hours", 24),
        ("feet", "inches", 12),
        ("years", "months", 12),
        ("meters", "centimeters", 100),
        ("dozens", "eggs", 12),
    )
    return Draft(
        [
            f"convert {big} to {small}",
            f"return the number of {small} in a given number of {big}",
            f"compute how many {small} are in some {big}",
        ],
        [f"{big}_to_{small}", f"convert_{big}", f"{small}_in_{big}"],
        f"def NAME(n):\n    return n * {factor}",
        singles(0, 1, v.number(2, 9), v.number(10, 30)),
    )


@family(1)
def hypotenuse(v):
    triple = lambda: (lambda a, b, m: (a * m, b * m))(*v.pick((3, 4), (5, 12), (8, 15), (7, 24), (20, 21)), v.number(1, 4))
    return Draft(
        [
            "find the hypotenuse of a right triangle",
            "compute the longest side of a right triangle from the two short sides",
            "return the distance from the origin to the point with the given coordinates",
        ],
        ["hypotenuse", "longest_side", "distance", "find_hypotenuse"],
        "import math\ndef NAME(a, b):\n    return math.sqrt(a * a + b * b)",
        [triple() for _ in range(5)] + [(0, 1)],
    )


@family(1)
def common_divisor(v):
    pair = lambda: (lambda g: (g * v.number(1, 9), g * v.number(1, 9)))(v.number(2, 12))
    return Draft(
        [
            "find the greatest common divisor of two numbers",
            "return the largest number that divides both given numbers",
            "compute the gcd of two integers",
        ],
        ["gcd", "find_gcd", "common_divisor", "largest_divisor"],
        "import math\ndef NAME(a, b):\n    return math.gcd(a, b)",
        [pair() for _ in range(5)] + [(v.number(2, 20), 1)],
    )


@family(1)
def integer_root(v):
    return Draft(
        [
            "find the integer square root of a number",
            "return the largest whole number whose square is not above the given number",
            "compute the square root of a number rounded down",
        ],
        ["integer_root", "whole_root", "floor_sqrt", "root_down"],
        "import math\ndef NAME(n):\n    return math.isqrt(n)",
        singles(0, 1, (r := v.number(3, 15)) * r, r * r - 1, r * r + v.number(1, 6), v.number(2, 8)),
    )


@family(1)
def boxes_needed(v):
    k = v.number(3, 15)
    return Draft(
        [
            f"find how many boxes are needed when each box holds {k} items",
            f"divide a number by {k} and round the result up",
            f"return how many trips a bus with {k} seats must make",
        ],
        ["boxes_needed", "round_up_division", "trips", "count_boxes"],
        f"import math\ndef NAME(n):\n    return math.ceil(n / {k})",
        singles(0, 1, k, k + 1, 2 * k, 2 * k - 1, v.number(20, 60)),
    )


@family(4)
def divisible(v):
    k = v.number(2, 20)
    return Draft(
        [
            f"check if a number is divisible by {k}",
            f"check whether a number is a multiple of {k}",
            f"tell if {k} divides a number",
        ],
        [f"divisible_by_{k}", "is_divisible", "is_multiple", "check_divisible"],
        f"def NAME(n):\n    return n % {k} == 0",
        singles(0, k, k + 1, k * v.number(2, 6), k * v.number(2, 6) - 1, v.number(1, 60)),
    )


@family(2)
def within_range(v):
    low = v.number(1, 30)
    high = low + v.number(3, 30)
    return Draft(
        [
            f"check if a number is between {low} and {high}",
            f"check whether a number lies in the range from {low} to {high}",
            f"tell if a number is at least {low} and at most {high}",
        ],
        ["in_range", "is_between", "within", "check_range"],
        f"def NAME(n):\n    return {low} <= n <= {high}",
        singles(low, low - 1, high, high + 1, (low + high) // 2),
    )


@family(2)
def absolute_difference(v):
    return Draft(
        [
            "find the absolute difference of two numbers",
            "return how far apart two numbers are",
            "compute the distance between two numbers",
        ],
        ["difference", "absolute_difference", "distance_between", "gap"],
        "def NAME(a, b):\n    return abs(a - b)",
        [(v.number(1, 20), v.number(21, 50)), (v.number(30, 60), v.number(1, 20)), (5, 5), (-v.number(1, 9), v.number(1, 9))],
    )


@family(2)
def extreme_of_three(v):
    which, word = v.pick(("max", "largest"), ("min", "smallest"), ("max", "maximum"), ("min", "minimum"))
    triple = lambda: tuple(v.sample(range(1, 60), 3))
    return Draft(
        [
            f"find the {word} of three numbers",
            f"return the {word} among three given numbers",
            f"get the {word} value of three values",
        ],
        [f"{word}_of_three", f"{which}_three", f"find_{word}", f"{word}_number"],
        f"def NAME(a, b, c):\n    return {which}(a, b, c)",
        [triple() for _ in range(5)],
    )


@family(2)
def clamp(v):
    low = v.number(0, 20)
    high = low + v.number(5, 40)
    return Draft(
        [
            f"limit a number to the range from {low} to {high}",
            f"clamp a number between {low} and {high}",
            f"keep a number between {low} and {high} by cutting it off",
        ],
        ["clamp", "limit", "keep_in_range", "cut_off"],
        f"def NAME(n):\n    if n < {low}:\n        return {low}\n    if n > {high}:\n        return {high}\n    return n",
        singles(low - v.number(1, 9), high + v.number(1, 9), (low + high) // 2, high, low, low + 1),
    )


@family(2)
def sign_word(v):
    a, b, c = v.pick(
        ("positive", "negative", "zero"), ("up", "down", "flat"), ("profit", "loss", "even"), ("warm", "cold", "freezing")
    )
    return Draft(
        [
            f"return '{a}' for numbers above 0, '{b}' for numbers below 0 and '{c}' otherwise",
            f"tell if a number is '{a}', '{b}' or '{c}' by its sign",
        ],
        ["sign_word", "sign_name", "describe", "classify"],
        f"def NAME(n):\n    if n > 0:\n        return '{a}'\n    elif n < 0:\n        return '{b}'\n    return '{c}'",
        singles(0, v.number(1, 9), -v.number(1, 9), 1, -1),
    )


@family(2)
def parity_word(v):
    a, b = v.pick(("even", "odd"), ("left", "right"), ("yes", "no"), ("red", "blue"))
    return Draft(
        [f"return '{a}' if a number is even and '{b}' if it is odd", f"give '{a}' for even numbers and '{b}' for odd numbers"],
        ["parity", "even_or_odd", "side", "parity_word"],
        f"def NAME(n):\n    if n % 2 == 0:\n        return '{a}'\n    return '{b}'",
        singles(0, 1, v.number(2, 40), v.number(41, 90), -3),
    )


@family(1)
def three_grades(v):
    high = v.number(60, 95)
    low = high - v.number(10, 40)
    a, b, c = v.pick(("high", "middle", "low"), ("gold", "silver", "bronze"), ("good", "fair", "poor"), ("A", "B", "C"))
    return Draft(
        [
            f"return '{a}' for a score of at least {high}, '{b}' for at least {low} and '{c}' otherwise",
            f"grade a score with '{a}' from {high}, '{b}' from {low} and '{c}' below",
        ],
        ["grade", "rank_score", "medal", "level_of"],
        f"def NAME(score):\n    if score >= {high}:\n        return '{a}'\n    if score >= {low}:\n        return '{b}'\n    return '{c}'",
        singles(high, high - 1, low, low - 1, high + 3, v.number(1, 9)),
    )


@family(1)
def fizz_word(v):
    a, b = v.sample([2, 3, 4, 5, 7], 2)
    x, y = v.pick(("fizz", "buzz"), ("tick", "tock"), ("ping", "pong"), ("hip", "hop"))
    return Draft(
        [
            f"return '{x}{y}' for multiples of {a} and {b}, '{x}' for multiples of {a}, '{y}' for multiples of {b} and else the number",
            f"play a counting game with '{x}' for multiples of {a}, '{y}' for multiples of {b} and '{x}{y}' for both",
        ],
        ["fizz", "counting_game", "say", "game_word"],
        f"def NAME(n):\n    if n % {a} == 0 and n % {b} == 0:\n        return '{x}{y}'\n    if n % {a} == 0:\n        return '{x}'\n"
        f"    if n % {b} == 0:\n        return '{y}'\n    return n",
        singles(a * b, a, b, a * b * 2, a * b + 1, a * b - 1, 1),
    )


@family(2)
def digit_sum(v):
    return Draft(
        [
            "find the sum of the digits of a number",
            "add up all digits of a number",
            "return the total of the digits of an integer",
        ],
        ["digit_sum", "sum_digits", "add_digits", "digits_total"],
        "def NAME(n):\n    return sum(int(d) for d in str(n))",
        singles(0, v.number(1, 9), v.number(10, 99), v.number(100, 999), v.number(1000, 9999)),
    )


@family(2)
def digit_count(v):
    return Draft(
        ["count the digits of a number", "return how many digits a number has", "find the length of a number in digits"],
        ["count_digits", "digit_count", "number_length", "digits_of"],
        "def NAME(n):\n    return len(str(n))",
        singles(0, v.number(1, 9), v.number(10, 99), v.number(100, 999), v.number(1000, 99999)),
    )


@family(1)
def digit_product(v):
    return Draft(
        ["find the product of the digits of a number", "multiply all digits of a number"],
        ["digit_product", "multiply_digits", "product_digits"],
        "def NAME(n):\n    result = 1\n    for d in str(n):\n        result *= int(d)\n    return result",
        singles(v.number(1, 9), v.number(11, 99), v.number(111, 999), 10, 205),
    )


@family(1)
def reverse_number(v):
    return Draft(
        ["reverse the digits of a number", "return the number with its digits in reverse order"],
        ["reverse_number", "reverse_digits", "flip_number"],
        "def NAME(n):\n    return int(str(n)[::-1])",
        singles(v.number(1, 9), v.number(12, 98), v.number(123, 987), v.number(1, 9) * 10, v.number(1000, 9999)),
    )


@family(2)
def factorial(v):
    if v.random() < 0.5:
        return Draft(
            [
                "find the factorial of a number",
                "compute the factorial of a given number",
                "return the product of the numbers from 1 to n",
            ],
            ["factorial", "fact", "find_factorial", "product_to"],
            "def NAME(n):\n    result = 1\n    for i in range(2, n + 1):\n        result *= i\n    return result",
            singles(0, 1, 3, 4, 5, 6, 7),
        )
    return Draft(
        ["find the factorial of a number recursively", "compute the factorial of a given number with recursion"],
        ["factorial", "fact", "factorial_rec", "recursive_factorial"],
        "def NAME(n):\n    if n <= 1:\n        return 1\n    return n * NAME(n - 1)",
        singles(0, 1, 3, 4, 5, 6, 7),
    )


@family(1)
def fibonacci(v):
    if v.random() < 0.5:
        return Draft(
            [
                "find the nth fibonacci number",
                "return the fibonacci number at a given index",
                "compute the nth term of the fibonacci sequence",
            ],
            ["fibonacci", "fib", "find_fib", "nth_fib"],
            "def NAME(n):\n    a, b = 0, 1\n    for i in range(n):\n        a, b = b, a + b\n    return a",
            singles(0, 1, 2, 5, 7, 8, 10, 12),
        )
    return Draft(
        ["find the nth fibonacci number recursively", "compute the nth term of the fibonacci sequence with recursion"],
        ["fibonacci", "fib", "fib_rec", "recursive_fib"],
        "def NAME(n):\n    if n < 2:\n        return n\n    return NAME(n - 1) + NAME(n - 2)",
        singles(0, 1, 2, 5, 7, 8, 10, 12),
    )


@family(1)
def is_prime(v):
    return Draft(
        [
            "check if a number is prime",
            "check whether a number is a prime number",
            "tell if a number has no divisors but 1 and itself",
        ],
        ["is_prime", "check_prime", "prime", "test_prime"],
        "def NAME(n):\n    if n < 2:\n        return False\n    for i in range(2, n):\n        if n % i == 0:\n            return False\n    return True",
        singles(1, 2, v.pick(3, 5, 7, 11, 13), v.pick(17, 19, 23, 29, 31), v.pick(9, 25, 49), v.number(2, 15) * 2, 0),
    )


@family(2)
def sum_multiples(v):
    k = v.number(2, 12)
    return Draft(
        [f"find the sum of all multiples of {k} below n", f"add up the numbers below n that are divisible by {k}"],
        ["sum_multiples", f"sum_multiples_{k}", "multiples_total"],
        f"def NAME(n):\n    return sum(i for i in range(n) if i % {k} == 0)",
        singles(0, k, k + 1, 2 * k + 1, 3 * k, v.number(20, 40)),
    )


@family(2)
def sum_to(v):
    what, term = v.pick(("numbers", "i"), ("squares", "i * i"), ("cubes", "i ** 3"), ("doubles", "2 * i"))
    return Draft(
        [
            f"find the sum of the {what} from 1 to n",
            f"add up the {what} of the first n numbers",
            f"return the total of the first n {what}",
        ],
        [f"sum_{what}", f"total_{what}", f"add_{what}"],
        f"def NAME(n):\n    return sum({term} for i in range(1, n + 1))",
        singles(0, 1, 2, 3, v.number(4, 6), v.number(7, 9)),
    )


@family(0.5)
def collatz_steps(v):
    return Draft(
        [
            "count the steps of the collatz sequence until it reaches 1",
            "find how often to halve or take 3n+1 until a number becomes 1",
        ],
        ["collatz", "collatz_steps", "count_steps"],
        "def NAME(n):\n    steps = 0\n    while n != 1:\n        if n % 2 == 0:\n            n = n // 2\n        else:\n            n = 3 * n + 1\n"
        "        steps += 1\n    return steps",
        singles(1, 2, 3, 5, 6, 7, 9, 12, 16),
    )


@family(1)
def is_power(v):
    k = v.number(2, 7)
    return Draft(
        [f"check if a number is a power of {k}", f"check whether a number can be written as a power of {k}"],
        [f"is_power_of_{k}", "is_power", "check_power"],
        f"def NAME(n):\n    while n > 1 and n % {k} == 0:\n        n = n // {k}\n    return n == 1",
        singles(1, k, k * k, k**3, k + 1, 2 * k + 1, k * (k + 1), 0),
    )


@family(1)
def divisors(v):
    if v.random() < 0.5:
        return Draft(
            ["count the divisors of a number", "find how many numbers divide a given number"],
            ["count_divisors", "divisor_count", "how_many_divisors"],
            "def NAME(n):\n    count = 0\n    for i in range(1, n + 1):\n        if n % i == 0:\n            count += 1\n    return count",
            singles(1, 2, v.number(3, 9), v.number(10, 20), v.number(21, 36)),
        )
    return Draft(
        ["find all divisors of a number", "list the numbers that divide a given number"],
        ["divisors", "find_divisors", "list_divisors"],
        "def NAME(n):\n    return [i for i in range(1, n + 1) if n % i == 0]",
        singles(1, 2, v.number(3, 9), v.number(10, 20), v.number(21, 36)),
    )


@family(0.5)
def leap_year(v):
    return Draft(
        ["check if a year is a leap year", "check whether a year has 366 days"],
        ["is_leap", "leap_year", "check_leap"],
        "def NAME(year):\n    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)",
        singles(1900, 2000, 4 * v.number(500, 520) + 4, 4 * v.number(480, 510) + 1, 2100, 1600),
    )


@family(1)
def discount(v):
    limit, off = v.number(20, 90), v.number(2, 15)
    return Draft(
        [f"subtract {off} from a price if it is above {limit}", f"give a discount of {off} on prices above {limit}"],
        ["discount", "final_price", "price_after", "reduce_price"],
        f"def NAME(price):\n    if price > {limit}:\n        return price - {off}\n    return price",
        singles(limit, limit + 1, limit - 1, limit + v.number(5, 40), v.number(1, 15)),
    )


@family(0.5)
def triangle_kind(v):
    a, b, c = v.pick(("equilateral", "isosceles", "scalene"), ("all", "two", "none"))
    return Draft(
        [
            f"return '{a}' if three sides are equal, '{b}' if two are equal and '{c}' otherwise",
            f"name the kind of a triangle as '{a}', '{b}' or '{c}' from its sides",
        ],
        ["triangle_kind", "triangle_type", "kind_of_triangle"],
        f"def NAME(a, b, c):\n    if a == b == c:\n        return '{a}'\n    if a == b or b == c or a == c:\n        return '{b}'\n    return '{c}'",
        [(4, 4, 4), (3, 3, 5), (5, 3, 3), (3, 5, 3), (3, 4, 5), (6, 7, 8)],
    )


@family(0.5)
def digital_root(v):
    return Draft(
        ["add the digits of a number again and again until one digit is left", "find the digital root of a number"],
        ["digital_root", "one_digit", "repeated_digit_sum"],
        "def NAME(n):\n    while n > 9:\n        n = sum(int(d) for d in str(n))\n    return n",
        singles(0, 9, 10, v.number(11, 99), v.number(100, 999), 199),
    )


@family(0.5)
def to_base(v):
    k = v.number(3, 9)
    return Draft(
        [f"write a number in base {k} as a string", f"convert a number to base {k}"],
        [f"base_{k}", "to_base", "convert_base"],
        f"def NAME(n):\n    if n == 0:\n        return '0'\n    digits = ''\n    while n > 0:\n        digits = str(n % {k}) + digits\n        n = n // {k}\n    return digits",
        singles(0, 1, k, k - 1, k * k, v.number(10, 60), v.number(61, 99)),
    )


@family(1)
def to_binary(v):
    return Draft(
        ["convert a number to a binary string", "return the binary digits of a number as a string"],
        ["to_binary", "binary", "binary_string"],
        "def NAME(n):\n    return bin(n)[2:]",
        singles(0, 1, 2, v.number(3, 15), v.number(16, 63)),
    )


@family(0.5)
def nth_prime(v):
    return Draft(
        ["find the nth prime number", "return the prime number at a given place in the list of primes"],
        ["nth_prime", "find_nth_prime", "prime_at"],
        "def is_prime(n):\n    for i in range(2, n):\n        if n % i == 0:\n            return False\n    return n > 1\n\n"
        "def NAME(n):\n    number = 1\n    while n > 0:\n        number += 1\n        if is_prime(number):\n            n -= 1\n    return number",
        singles(1, 2, 3, 4, 5, 6, 8, 10),
    )


@family(0.5)
def digit_power_sum(v):
    return Draft(
        [
            "check if a number equals the sum of its digits raised to the number of digits",
            "check whether a number is an armstrong number",
        ],
        ["is_armstrong", "armstrong", "check_armstrong"],
        "def NAME(n):\n    digits = str(n)\n    return n == sum(int(d) ** len(digits) for d in digits)",
        singles(153, 370, 371, 9, 10, 154, 407, 1634, v.number(100, 999)),
    )
