"""Problem families over strings: methods, comprehensions, loops, `import re`."""

from variation import Draft, family


def texts(v, *more):
    return [(value,) for value in (v.word(), v.word(), v.phrase(2, 3), v.phrase(2, 3), *more)]


@family(4)
def reverse_text(v):
    return Draft(
        ["reverse a string", "return the given string backwards", "turn a string around"],
        ["reverse", "reverse_string", "backwards", "flip"],
        "def NAME(s):\n    return s[::-1]",
        texts(v, "", "a", "ab"),
    )


@family(2)
def change_case(v):
    method, word = v.pick(
        ("upper", "upper case"),
        ("lower", "lower case"),
        ("title", "title case"),
        ("swapcase", "swapped case"),
        ("capitalize", "capitalized form"),
    )
    return Draft(
        [f"convert a string to {word}", f"return the given string in {word}", f"change the letters of a string to {word}"],
        [f"to_{method}", "change_case", f"make_{method}", "convert_text"],
        f"def NAME(s):\n    return s.{method}()",
        [(v.mixed_case(),), (v.mixed_case(),), (v.mixed_case() + " " + v.mixed_case(),), ("aB cD",), ("",)],
    )


def with_letter(v, letter):
    word = v.word()
    place = v.number(0, len(word))
    return word[:place] + letter * v.number(1, 2) + word[place:]


@family(4)
def count_letter(v):
    c = v.letter()
    return Draft(
        [
            f"count the letter '{c}' in a string",
            f"find how often '{c}' occurs in a string",
            f"return the number of '{c}' in the given string",
        ],
        ["count_letter", f"count_{c}", "occurrences", "how_often"],
        f"def NAME(s):\n    return s.count('{c}')",
        [(with_letter(v, c),), (with_letter(v, c) + c,), (v.word(),), ("",), (c * 3,), (c.upper() + v.word(),)],
    )


@family(2)
def replace_letter(v):
    a, b = v.sample("aeinorstl", 2)
    return Draft(
        [f"replace every '{a}' with '{b}' in a string", f"change all '{a}' to '{b}' in the given string"],
        ["replace_letter", f"replace_{a}", "change_letter", "swap_in"],
        f"def NAME(s):\n    return s.replace('{a}', '{b}')",
        [(with_letter(v, a),), (a + v.word() + a,), (v.word(),), ("",), (v.phrase(2, 2) + a,)],
    )


@family(2)
def remove_letter(v):
    c = v.pick("a", "e", "i", "o", "r", "n", "t", " ", "-")
    what = {" ": "spaces", "-": "dashes"}.get(c, f"'{c}' letters")
    return Draft(
        [f"remove all {what} from a string", f"return the given string without {what}", f"delete the {what} of a string"],
        ["remove_letter", "strip_letter", "delete_all", "without"],
        f"def NAME(s):\n    return s.replace('{c}', '')",
        [(with_letter(v, c),), (c + v.word() + c,), (v.word(),), ("",), (v.word() + c + v.word(),)],
    )


@family(2)
def remove_vowels(v):
    return Draft(
        ["remove all vowels from a string", "return the given string without vowels", "drop the vowels of a string"],
        ["remove_vowels", "no_vowels", "drop_vowels", "consonants"],
        "def NAME(s):\n    return ''.join(c for c in s if c not in 'aeiou')",
        texts(v, "", "aeiou", "xyz"),
    )


@family(2)
def count_vowels(v):
    return Draft(
        ["count the vowels in a string", "find how many vowels a string has", "return the number of vowels in the given string"],
        ["count_vowels", "vowels", "vowel_count", "number_of_vowels"],
        "def NAME(s):\n    return sum(1 for c in s if c in 'aeiou')",
        texts(v, "", "aeiou", "xyz"),
    )


@family(2)
def palindrome(v):
    return Draft(
        [
            "check if a string is a palindrome",
            "check whether a string reads the same backwards",
            "tell if a string equals its reverse",
        ],
        ["is_palindrome", "palindrome", "same_backwards", "check_palindrome"],
        "def NAME(s):\n    return s == s[::-1]",
        [("level",), ("noon",), (v.word(),), (v.pick("kayak", "civic", "radar"),), ("",), ("ab",), ("abca",)],
    )


@family(2)
def first_letters(v):
    k = v.number(2, 5)
    end, part = v.pick(("first", f"s[:{k}]"), ("last", f"s[-{k}:]"))
    if v.random() < 0.4:
        part, ask = {"first": f"s[{k}:]", "last": f"s[:-{k}]"}[end], [
            f"remove the {end} {k} characters of a string",
            f"drop the {end} {k} letters of a string",
        ]
    else:
        ask = [f"return the {end} {k} characters of a string", f"get the {end} {k} letters of a string"]
    return Draft(
        ask,
        [f"{end}_{k}", f"{end}_part", "part_of", "cut"],
        f"def NAME(s):\n    return {part}",
        texts(v, v.word() + v.word(), "abcdefg"),
    )


@family(2)
def repeat_text(v):
    k = v.number(2, 5)
    return Draft(
        [f"repeat a string {k} times", f"return {k} copies of a string in a row", f"write a string {k} times one after another"],
        ["repeat", f"repeat_{k}", "copies", "repeat_string"],
        f"def NAME(s):\n    return s * {k}",
        texts(v, "", "a", "ab"),
    )


@family(2)
def wrap_text(v):
    a, b = v.pick(("<", ">"), ("[", "]"), ("(", ")"), ("*", "*"), ("hello ", "!"), ("no ", "."), ("--", "--"))
    if a == b:
        ask = [f"put '{a}' before and after a string", f"surround a string with '{a}'"]
    else:
        ask = [f"put '{a}' before and '{b}' after a string", f"surround a string with '{a}' and '{b}'"]
    return Draft(ask, ["wrap", "surround", "decorate", "frame"], f"def NAME(s):\n    return '{a}' + s + '{b}'", texts(v, "", "a"))


@family(2)
def edge_check(v):
    c = v.letter()
    method, word = v.pick(("startswith", "starts"), ("endswith", "ends"))
    good = lambda: c + v.word() if method == "startswith" else v.word() + c
    other = lambda: v.word() + c if method == "startswith" else c + v.word()
    return Draft(
        [f"check if a string {word} with '{c}'", f"tell whether the given string {word} with the letter '{c}'"],
        [f"{word}_with", f"{word}_with_{c}", "check_edge", "has_edge"],
        f"def NAME(s):\n    return s.{method}('{c}')",
        [(good(),), (good(),), (other(),), (v.word(),), (c,), ("",)],
    )


@family(2)
def word_count(v):
    return Draft(
        ["count the words in a string", "find how many words a sentence has", "return the number of words in the given text"],
        ["count_words", "word_count", "number_of_words", "words_in"],
        "def NAME(s):\n    return len(s.split())",
        [(v.phrase(2, 3),), (v.phrase(4, 5),), (v.word(),), ("",), (v.word() + "  " + v.word(),)],
    )


@family(2)
def extreme_word(v):
    which, word = v.pick(("max", "longest"), ("min", "shortest"))
    source, call = v.pick(("a sentence", "s.split()"), ("a list of words", "words"))
    argument = "s" if call.startswith("s.") else "words"
    draw = lambda: (lambda w: " ".join(w) if argument == "s" else w)(sorted(v.words(3, 4), key=lambda _: v.random()))
    return Draft(
        [f"find the {word} word in {source}", f"return the {word} word of {source}"],
        [f"{word}_word", f"find_{word}", f"{word}_of"],
        f"def NAME({argument}):\n    return {which}({call}, key=len)",
        [(draw(),) for _ in range(6)],
    )


@family(2)
def reverse_words(v):
    if v.random() < 0.5:
        return Draft(
            ["reverse the order of the words in a sentence", "put the words of a sentence in reverse order"],
            ["reverse_words", "words_backwards", "reorder"],
            "def NAME(s):\n    return ' '.join(s.split()[::-1])",
            [(v.phrase(2, 3),), (v.phrase(3, 4),), (v.word(),), ("",), (v.phrase(2, 4),)],
        )
    return Draft(
        ["reverse each word of a sentence", "turn around every word of a sentence but keep their order"],
        ["reverse_each", "flip_words", "each_backwards"],
        "def NAME(s):\n    return ' '.join(w[::-1] for w in s.split())",
        [(v.phrase(2, 2),), (v.phrase(2, 3),), (v.word(),), ("",), (v.phrase(2, 3),)],
    )


@family(2)
def join_words(v):
    sep, name = v.pick(
        (", ", "commas and spaces"), ("-", "dashes"), ("_", "underscores"), (" ", "spaces"), ("/", "slashes"), (".", "dots")
    )
    return Draft(
        [f"join a list of words with {name}", f"combine the strings of a list with {name} between them"],
        ["join_words", "join_list", "combine", "glue"],
        f"def NAME(words):\n    return '{sep}'.join(words)",
        [(v.words(2, 3),), (v.words(3, 4),), ([v.word()],), ([],)],
    )


@family(2)
def split_text(v):
    sep, name = v.pick((",", "commas"), ("-", "dashes"), (";", "semicolons"), ("/", "slashes"), (":", "colons"))
    return Draft(
        [f"split a string at {name}", f"return the parts of a string that are separated by {name}"],
        ["split_text", "parts", "split_at", "cut_parts"],
        f"def NAME(s):\n    return s.split('{sep}')",
        [(sep.join(v.words(2, 3)),), (sep.join(v.words(3, 4)),), (v.word(),), (v.word() + " " + v.word() + sep + v.word(),)],
    )


@family(1)
def count_case(v):
    method, word = v.pick(
        ("isupper", "upper case letters"), ("islower", "lower case letters"), ("isdigit", "digits"), ("isspace", "spaces")
    )
    draw = lambda: v.mixed_case() + v.pick("", " ", str(v.number(1, 99)), " " + str(v.number(1, 9)))
    return Draft(
        [f"count the {word} in a string", f"find how many {word} a string has"],
        ["count_kind", f"count_{method[2:]}", f"{method[2:]}_count"],
        f"def NAME(s):\n    return sum(1 for c in s if c.{method}())",
        [(draw(),) for _ in range(4)] + [("aB 1",), ("Ab 22 C",)],
    )


@family(1)
def find_numbers(v):
    draw = lambda: v.word() + str(v.number(1, 99)) + v.pick("", " ") + v.word() + v.pick("", str(v.number(1, 20)))
    if v.random() < 0.5:
        return Draft(
            ["find all numbers in a string", "return the list of the numbers that occur in a text"],
            ["find_numbers", "numbers_in", "extract_numbers"],
            "import re\ndef NAME(s):\n    return [int(d) for d in re.findall('[0-9]+', s)]",
            [(draw(),) for _ in range(4)] + [(v.word(),)],
        )
    return Draft(
        ["remove all digits from a string", "return the text without its digits"],
        ["remove_digits", "no_digits", "drop_digits"],
        "import re\ndef NAME(s):\n    return re.sub('[0-9]', '', s)",
        [(draw(),) for _ in range(4)] + [(v.word(),), ("12",)],
    )


@family(1)
def replace_spaces(v):
    c = v.pick("_", "-", "+", "*", ".")
    return Draft(
        [f"replace every run of spaces with '{c}' in a string", f"put one '{c}' in place of any number of spaces in a text"],
        ["replace_spaces", "join_parts", "fill_spaces"],
        f"import re\ndef NAME(s):\n    return re.sub(' +', '{c}', s)",
        [(v.phrase(2, 3),), (v.word() + "  " + v.word(),), (v.word(),), (v.word() + " " + v.word() + "   " + v.word(),)],
    )


@family(2)
def anagram(v):
    def shuffled(word):
        letters = list(word)
        v.shuffle(letters)
        return "".join(letters)

    a, b, c = v.words(3, 3)
    return Draft(
        [
            "check if two strings are anagrams",
            "check whether two strings have the same letters",
            "tell if two words use the same letters",
        ],
        ["is_anagram", "anagram", "same_letters", "check_anagram"],
        "def NAME(a, b):\n    return sorted(a) == sorted(b)",
        [(a, shuffled(a)), (b, shuffled(b)), (a, b), (c, c + "s"), ("aab", "abb")],
    )


@family(1)
def initials(v):
    upper = v.random() < 0.5
    return Draft(
        [
            (
                f"return the first letters of all words in {'upper' if upper else 'lower'} case"
                if v.random() < 0.5
                else f"build the {'upper' if upper else 'lower'} case acronym of a sentence"
            )
        ],
        ["initials", "acronym", "first_letters"],
        "def NAME(s):\n    return ''.join(w[0] for w in s.split())" + (".upper()" if upper else ".lower()"),
        [(v.phrase(2, 3),), (v.phrase(3, 4),), (v.word(),), (v.phrase(2, 3).title(),), ("",)],
    )


@family(0.5)
def caesar(v):
    k = v.number(1, 12)
    return Draft(
        [f"shift every letter of a word by {k} in the alphabet", f"encrypt a word with a shift of {k}"],
        ["shift_letters", "caesar", "encrypt"],
        f"def NAME(s):\n    return ''.join(chr((ord(c) - 97 + {k}) % 26 + 97) for c in s)",
        [(v.word(),), (v.word(),), ("abc",), ("xyz",), ("",)],
    )


@family(0.5)
def run_lengths(v):
    draw = lambda: "".join(c * v.number(1, 3) for c in v.sample("abcdxyz", v.number(2, 3)))
    return Draft(
        ["write each run of equal letters as the letter and its length", "compress a string by counting repeated letters"],
        ["compress", "run_lengths", "encode_runs"],
        "def NAME(s):\n    result = ''\n    i = 0\n    while i < len(s):\n        j = i\n        while j < len(s) and s[j] == s[i]:\n            j += 1\n"
        "        result += s[i] + str(j - i)\n        i = j\n    return result",
        [(draw(),) for _ in range(5)] + [("",), ("a",)],
    )


@family(0.5)
def balanced(v):
    a, b = v.pick("()", "[]", "{}", "<>")
    good = [a + b, a + a + b + b, a + b + a + b, a + a + b + a + b + b]
    bad = [b + a, a + a + b, a + b + b, a + b + b + a, a]
    return Draft(
        [f"check if the '{a}' and '{b}' in a string are balanced", f"check whether every '{a}' has its '{b}' in a string"],
        ["is_balanced", "balanced", "check_pairs"],
        f"def NAME(s):\n    depth = 0\n    for c in s:\n        if c == '{a}':\n            depth += 1\n        elif c == '{b}':\n            depth -= 1\n"
        "        if depth < 0:\n            return False\n    return depth == 0",
        [(x,) for x in good + bad + [""]],
    )


@family(1)
def every_nth_letter(v):
    k = v.number(2, 4)
    return Draft(
        [
            (
                f"return every {k}th character of a string"
                if v.random() < 0.5
                else f"take only each {k}th letter of a string, starting with the first"
            )
        ],
        ["every_nth", f"every_{k}", "skip_letters"],
        f"def NAME(s):\n    return s[::{k}]",
        texts(v, "", "abcdefg", "ab"),
    )


@family(1)
def double_letters(v):
    k = v.pick(2, 3)
    return Draft(
        [f"write every letter of a string {k} times", f"repeat each character of a string {k} times"],
        ["double_letters", "stretch", "repeat_each"],
        f"def NAME(s):\n    return ''.join(c * {k} for c in s)",
        [(v.word(),), (v.word(),), ("ab",), ("",), ("a",)],
    )


@family(1)
def words_longer(v):
    k = v.number(3, 6)
    return Draft(
        [
            f"find the words of a sentence that are longer than {k} letters",
            f"return all words with more than {k} letters from a text",
        ],
        ["long_words", f"longer_than_{k}", "words_over"],
        f"def NAME(s):\n    return [w for w in s.split() if len(w) > {k}]",
        [(v.phrase(3, 4),) for _ in range(5)] + [("",)],
    )


@family(0.5)
def most_common_letter(v):
    return Draft(
        ["find the most common letter of a word", "return the letter that occurs most often in a string"],
        ["most_common", "common_letter", "top_letter"],
        "def NAME(s):\n    return max(sorted(set(s)), key=s.count)",
        [(with_letter(v, v.letter()) + v.letter(),) for _ in range(4)] + [("abab",), ("cbbc",), ("a",)],
    )


@family(1)
def same_ends(v):
    same = lambda: (lambda c: c + v.word() + c)(v.letter())
    return Draft(
        [
            "check if a string starts and ends with the same letter",
            "tell whether the first and the last character of a string are equal",
        ],
        ["same_ends", "equal_ends", "check_ends"],
        "def NAME(s):\n    return s[0] == s[-1]",
        [(same(),), (same(),), (v.word(),), (v.word(),), ("a",), ("ab",)],
    )
