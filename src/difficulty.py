# Reads one JSON string (a program's source) per line, writes its difficulty, or -1 when it does not parse.
#
# Difficulty is McCabe's cyclomatic complexity as radon counts it: a function starts at 1; every if, conditional expression, loop, loop's
# else, except clause, try's else, assert, comprehension, comprehension's condition, case other than the wildcard, and every
# further operand of and/or adds 1; what functions or classes inside it hold is not its own. A program's difficulty is that of its
# most complex function or method, or of its top level where it has none.
import ast, json, sys

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def own(node):
    if isinstance(node, (ast.If, ast.IfExp, ast.Assert)):
        return 1
    if isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
        return 1 + bool(node.orelse)
    if isinstance(node, (ast.Try, getattr(ast, "TryStar", ast.Try))):
        return len(node.handlers) + bool(node.orelse)
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, getattr(ast, "Match", ())):
        return max(0, len(node.cases) - any(getattr(case.pattern, "pattern", False) is None for case in node.cases))
    return 0


def points(node):
    inner = (child for child in ast.iter_child_nodes(node) if not isinstance(child, FUNCTIONS + (ast.ClassDef,)))
    return own(node) + sum(points(child) for child in inner)


def difficulty(source):
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return -1
    functions = [node for node in tree.body if isinstance(node, FUNCTIONS)]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            functions += [child for child in node.body if isinstance(child, FUNCTIONS)]
    return max((1 + points(node) for node in functions), default=1 + points(tree))


for line in sys.stdin:
    print(difficulty(json.loads(line)), flush=True)
