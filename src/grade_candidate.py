"""The process that runs the program. It holds nothing worth stealing: no test, no expected value, no verdict.

The sandbox is complete before the first byte of the program arrives. From then on nothing said here is believed: the
evaluator reads values, never verdicts.
"""

import gc
import importlib
import os
import sys
import types

PRELUDE = """
import sys, os, math, cmath, re, copy, time, random, string, operator, itertools, functools, collections, heapq, bisect, array
import statistics, decimal, fractions, datetime, calendar, json, hashlib, textwrap, typing, enum, dataclasses
from typing import *
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from functools import reduce, lru_cache, partial, cmp_to_key
from itertools import accumulate, chain, combinations, count, cycle, groupby, permutations, product
from heapq import heapify, heappop, heappush, nlargest, nsmallest
from math import ceil, comb, factorial, floor, gcd, inf, isclose, log, pi, sqrt
"""


class Candidate(Peer):
    def __init__(self, channel):
        Peer.__init__(self)
        self.channel = channel
        self.program = types.ModuleType("program")
        sys.modules["program"] = sys.modules["__main__"] = self.program

    def read(self, n):
        data = os.read(self.channel, n)
        while len(data) < n:
            more = os.read(self.channel, n - len(data))
            if not more:
                os._exit(0)
            data += more
        return data

    def write(self, data):
        flush()  # what the program printed arrives before its answer
        while data:
            data = data[os.write(self.channel, data):]

    def module(self, name):
        return importlib.import_module(name)

    def reference(self, module, name):
        return getattr(importlib.import_module(module), name)

    def op_run(self, source, preload):
        source = bytes.fromhex(source)
        try:
            code = compile(source, "program.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, LookupError, UnicodeError) as e:
            return ["syntax", "%s (line %s)" % (getattr(e, "msg", None) or e, getattr(e, "lineno", None) or 0)]
        if not set(code.co_names) - {"__doc__", "__annotations__"} and is_empty(source):
            return ["no-code", "the program is only comments"]
        space = self.program.__dict__
        if preload:
            exec(PRELUDE, space)
        exec(code, space)
        return ["run", ""]

    def op_names(self, names):
        space, found = self.program.__dict__, []
        for name in names:
            if name in space:
                found.append([name, self.encode(space[name])])
        return [found]

    def op_imports(self, statements):
        for statement in statements:
            try:
                exec(statement, self.program.__dict__)
            except ImportError:
                pass
        return []


def is_empty(source):
    """Nothing but comments, strings and pass."""
    body = compile(source, "program.py", "exec", 0x400, True).body  # PyCF_ONLY_AST
    return all(type(n).__name__ == "Pass" or type(n).__name__ == "Expr" and type(n.value).__name__ == "Constant" for n in body)


def flush():
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except BaseException:
            pass


def candidate(channel):
    """Serves the evaluator until it hangs up or kills. Never returns."""
    gc.enable()
    sys.argv = ["program.py"]
    peer = Candidate(channel)
    peer.send(["ready"])
    while True:
        try:
            peer.serve(peer.receive())
        except BaseException:
            os._exit(1)
