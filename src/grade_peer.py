"""Values and calls between two processes: the evaluator, which holds the tests, and the candidate, which runs the program.

A message is four bytes of length and JSON. Plain data travels by value and is rebuilt exactly (a float keeps every bit, a tuple
stays a tuple); an instance of a subclass travels as the value of its built-in base. Anything else stays where it lives, and the
other side gets a Remote that forwards calls, attributes and operators. The reader never executes what it reads.
"""

import array
import builtins
import collections
import datetime
import decimal
import fractions
import json
import operator
import sys
import time

ENCODE = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode
DECODE = json.JSONDecoder().decode
LARGEST = 64 << 20  # bytes of one message
EXACT = 1 << 53
PLAIN = (type(None), bool, int, float, str)

TYPES = {t.__name__: t for t in (bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict, range,
                                 object, type, slice, type(None))}
TYPE_NAMES = {t: name for name, t in TYPES.items()}
EXCEPTIONS = {name: e for name, e in vars(builtins).items() if isinstance(e, type) and issubclass(e, BaseException)}

# What a Remote can be asked for beyond a call. The names are looked up on the side that owns the object.
FUNCTIONS = {name: getattr(operator, name) for name in (
    "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift eq ne lt le gt ge neg pos invert index "
    "contains getitem setitem delitem").split()}
FUNCTIONS.update({f.__name__: f for f in (abs, bool, complex, divmod, float, format, getattr, setattr, delattr, int, isinstance,
                                          issubclass, iter, len, next, repr, reversed, round, str)})
BINARY = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "truediv", "floordiv": "floordiv", "mod": "mod", "pow": "pow",
          "matmul": "matmul", "and": "and_", "or": "or_", "xor": "xor", "lshift": "lshift", "rshift": "rshift", "divmod": "divmod"}
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")


class Closed(BaseException):
    """The other side is gone."""


class Malformed(Exception):
    """The other side sent what no honest peer sends."""


class Remote:
    """An object that lives on the other side."""

    __slots__ = ("_peer", "_id", "_label", "_own", "_ahead", "_chunk")

    def __init__(self, peer, ident, label, own):
        put = object.__setattr__
        put(self, "_peer", peer)
        put(self, "_id", ident)
        put(self, "_label", label)
        put(self, "_own", own)  # its class brings its own comparison
        put(self, "_ahead", None)
        put(self, "_chunk", 1)

    def __call__(self, *args, **kwargs):
        return self._peer.call(self, args, kwargs)

    def __getattr__(self, name):
        return self._peer.ask("getattr", self, name)

    def __setattr__(self, name, value):
        self._peer.ask("setattr", self, name, value)

    def __delattr__(self, name):
        self._peer.ask("delattr", self, name)

    def __next__(self):
        # Items come in growing batches, as far as the owner can make them within a millisecond.
        if not self._ahead:
            batch, end = self._peer.take(self, self._chunk)
            ahead = collections.deque(batch)
            if end:
                ahead.append(end)
            object.__setattr__(self, "_ahead", ahead)
            object.__setattr__(self, "_chunk", min(1024, 2 * self._chunk))
        item = self._ahead[0]
        if isinstance(item, End):
            raise item.error
        return self._ahead.popleft()

    def __hash__(self):
        return hash((Remote, self._id))

    def __contains__(self, item):
        return self._peer.ask("contains", self, item)

    def __getitem__(self, key):
        return self._peer.ask("getitem", self, key)

    def __setitem__(self, key, value):
        self._peer.ask("setitem", self, key, value)

    def __delitem__(self, key):
        self._peer.ask("delitem", self, key)

    def __enter__(self):
        return self._peer.ask("getattr", self, "__enter__")()

    def __exit__(self, kind, error, trace):
        return self._peer.ask("getattr", self, "__exit__")(None, None, None)

    def __instancecheck__(self, item):
        return isinstance(item, Remote) and self._peer.ask("isinstance", item, self)

    def __format__(self, spec):
        return self._peer.ask("format", self, spec)

    def __round__(self, *digits):
        return self._peer.ask("round", self, *digits)


class End:
    """What ends a batch of an iterator's items: StopIteration or what its code raised."""

    def __init__(self, error):
        self.error = error


def _operators():
    def unary(function):
        return lambda self: self._peer.ask(function, self)

    def binary(function):
        return lambda self, other: self._peer.ask(function, self, other)

    def reflected(function):
        return lambda self, other: self._peer.ask(function, other, self)

    def compare(function):
        return lambda self, other: self._peer.compare(function, self, other)

    for name, function in BINARY.items():
        setattr(Remote, "__%s__" % name, binary(function))
        setattr(Remote, "__r%s__" % name, reflected(function))
    for name in COMPARE:
        setattr(Remote, "__%s__" % name, compare(name))
    for name in "neg pos invert index abs bool len int float complex iter reversed repr str".split():
        setattr(Remote, "__%s__" % name, unary(name))


_operators()


class Peer:
    """One end. Subclasses say how bytes move (`read`, `write`) and what may be lent (`lend`)."""

    def __init__(self):
        self.lent = {}
        self.calls = 0

    # Values

    def encode(self, x):
        t = type(x)
        if x is None or t is bool or t is str or t is float:
            return x
        if t is int:
            return x if -EXACT < x < EXACT else ["i", "%x" % x]
        pack = PACK.get(t)
        if pack:
            return pack(self, x)
        if t is Remote and x._peer is self:
            return ["h", x._id]
        for base in type.__dict__["__mro__"].__get__(t):
            if base in BASES:
                return self.encode(BASES[base](x))
        if t is type(sys):
            return ["m", x.__name__]
        return self.lend(x)

    def decode(self, w):
        if type(w) is not list:
            return w
        return UNPACK[w[0]](self, w)

    def lend(self, x):
        """A reference to x for the other side."""
        ident = len(self.lent) + 1
        self.lent[ident] = x
        t = type(x)
        own = any(getattr(t, "__%s__" % name, None) is not getattr(object, "__%s__" % name) for name in COMPARE)
        return ["o", ident, t.__name__[:80], own]

    def borrow(self, ident, label, own):
        return Remote(self, int(ident), str(label), bool(own))

    def module(self, name):
        raise Malformed("a module as a value")

    def reference(self, module, name):
        raise Malformed("a function as a value")

    # Messages

    def send(self, message):
        data = ENCODE(message).encode()
        if len(data) > LARGEST:
            raise MemoryError("a value of %d bytes between program and tests" % len(data))
        self.write(len(data).to_bytes(4, "little") + data)

    def receive(self):
        n = int.from_bytes(self.read(4), "little")
        if n > LARGEST:
            raise Malformed("a message of %d bytes" % n)
        try:
            return DECODE(self.read(n).decode())
        except (ValueError, RecursionError):
            raise Malformed("a message that is not JSON")

    def request(self, op, *rest):
        """Sends one request and waits for its answer, serving what the other side asks for meanwhile."""
        self.calls += 1
        self.send(["q", op, *rest])
        while True:
            message = self.receive()
            if message[0] == "q":
                self.serve(message)
            elif message[0] == "x":
                raise self.error(message[1])
            else:
                return message

    def ask(self, function, *args):
        return self.decode(self.request("f", function, [self.encode(a) for a in args])[1])

    def call(self, target, args, kwargs):
        wire = [self.encode(a) for a in args]
        answer = self.request("call", self.encode(target), wire, [[k, self.encode(v)] for k, v in kwargs.items()])
        for i, w in answer[2]:  # arguments that the callee changed in place
            update(args[i], self.decode(w))
        return self.decode(answer[1])

    def take(self, target, n):
        answer = self.request("take", self.encode(target), n)
        items = [self.decode(w) for w in answer[1]]
        return items, (End(self.error(answer[2])) if answer[2] else None)

    def compare(self, function, x, other):
        return self.ask(function, x, other)

    def serve(self, message):
        try:
            answer = getattr(self, "op_" + message[1])(*message[2:])
            answer = ["a", *answer]
        except Closed:
            raise
        except BaseException as e:
            answer = ["x", self.describe(e)]
        try:
            self.send(answer)
        except (RecursionError, MemoryError) as e:
            self.send(["x", self.describe(e)])

    def op_f(self, function, args):
        return [self.encode(FUNCTIONS[function](*[self.decode(a) for a in args]))]

    def op_call(self, target, args, kwargs):
        values = [self.decode(a) for a in args]
        result = self.decode(target)(*values, **{k: self.decode(v) for k, v in kwargs})
        changed = []
        for i, value in enumerate(values):
            if type(value) in (list, dict, set, bytearray):
                w = self.encode(value)
                if w != args[i]:
                    changed.append([i, w])
        return [self.encode(result), changed]

    def op_take(self, target, n):
        iterator, items, error = self.decode(target), [], None
        end = time.monotonic() + 0.001
        try:
            while len(items) < n:
                items.append(self.encode(next(iterator)))
                if time.monotonic() > end:
                    break
        except BaseException as e:
            error = self.describe(e)
        return [items, error]

    # Exceptions travel by the name of their type, the nearest built-in class and a text.

    def describe(self, e):
        t = type(e)
        try:
            text = str(e)[:300]
        except BaseException:
            text = ""
        base = next((b.__name__ for b in t.__mro__ if EXCEPTIONS.get(b.__name__) is b), "BaseException")
        line, trace = 0, e.__traceback__
        while trace:
            if trace.tb_frame.f_code.co_filename == "program.py":
                line = trace.tb_lineno
            trace = trace.tb_next
        number = e.errno if isinstance(e, OSError) and isinstance(e.errno, int) else 0
        args = list(e.args) if type(e.args) is tuple and all(type(a) in PLAIN for a in e.args) else [text]
        return [t.__name__[:80], base, text, number, line, args]

    def error(self, info):
        name, base, text, number, line, args = info
        try:
            kind = EXCEPTIONS[base] if name == base else type(name, (EXCEPTIONS[base],), {})
            e = kind(*args)
        except (TypeError, ValueError, KeyError):  # a class that wants other arguments
            e = RuntimeError(text)
        e.pva_origin = (str(name), str(text), int(number), int(line))
        return e


def update(target, value):
    """Makes `target` equal to `value` in place."""
    if type(target) is not type(value):
        raise Malformed("an argument that changed its type")
    if type(target) in (list, bytearray):
        target[:] = value
    else:
        target.clear()
        target.update(value)


def _flat(peer, pairs):
    out = []
    for k, v in pairs:
        out.append(peer.encode(k))
        out.append(peer.encode(v))
    return out


def _pairs(peer, w):
    it = iter(w)
    return [(peer.decode(k), peer.decode(v)) for k, v in zip(it, it)]


def _row(tag):
    return lambda p, x: [tag, *[p.encode(v) for v in x]]


def _moment(p, x):
    z = x.tzinfo if not isinstance(x, datetime.date) or isinstance(x, datetime.datetime) else None
    if z is not None and type(z) is not datetime.timezone:
        return p.lend(x)
    offset = None if z is None else p.encode(z.utcoffset(None))
    if type(x) is datetime.datetime:
        return ["dt", [x.year, x.month, x.day, x.hour, x.minute, x.second, x.microsecond], offset, x.fold]
    if type(x) is datetime.time:
        return ["tm", [x.hour, x.minute, x.second, x.microsecond], offset, x.fold]
    return ["da", [x.year, x.month, x.day]]


def _zone(p, offset):
    return None if offset is None else datetime.timezone(p.decode(offset))


PACK = {
    list: _row("l"), tuple: _row("t"), set: _row("s"), frozenset: _row("fs"),
    dict: lambda p, x: ["d", *_flat(p, x.items())],
    collections.Counter: lambda p, x: ["C", *_flat(p, dict.items(x))],
    collections.OrderedDict: lambda p, x: ["O", *_flat(p, x.items())],
    collections.defaultdict: lambda p, x: ["dd", *_flat(p, x.items())],
    collections.deque: lambda p, x: ["dq", x.maxlen, *[p.encode(v) for v in x]],
    type({}.keys()): lambda p, x: ["dk", *[p.encode(v) for v in x]],
    type({}.items()): lambda p, x: ["di", *_flat(p, x)],
    complex: lambda p, x: ["c", x.real, x.imag],
    bytes: lambda p, x: ["b", x.hex()],
    bytearray: lambda p, x: ["ba", x.hex()],
    range: lambda p, x: ["r", p.encode(x.start), p.encode(x.stop), p.encode(x.step)],
    array.array: lambda p, x: ["a", x.typecode, *[p.encode(v) for v in x]],
    decimal.Decimal: lambda p, x: ["D", str(x)],
    fractions.Fraction: lambda p, x: ["F", p.encode(x.numerator), p.encode(x.denominator)],
    datetime.timedelta: lambda p, x: ["td", x.days, x.seconds, x.microseconds],
    datetime.datetime: _moment, datetime.date: _moment, datetime.time: _moment,
    slice: lambda p, x: ["sl", p.encode(x.start), p.encode(x.stop), p.encode(x.step)],
    type(Ellipsis): lambda p, x: ["..."],
    type(NotImplemented): lambda p, x: ["!"],
    type: lambda p, x: ["T", TYPE_NAMES[x]] if x in TYPE_NAMES else p.lend(x),
}

# Subclasses are read through their base, so that a method they override has no say.
BASES = {
    str: lambda x: str.__str__(x), int: lambda x: int.__int__(x), float: lambda x: float.__float__(x),
    complex: lambda x: complex(complex.real.__get__(x), complex.imag.__get__(x)),
    bytes: lambda x: bytes.__getitem__(x, slice(None)), bytearray: lambda x: bytearray(bytearray.__getitem__(x, slice(None))),
    list: lambda x: list(list.__iter__(x)), tuple: lambda x: tuple(tuple.__iter__(x)), set: lambda x: set(set.__iter__(x)),
    frozenset: lambda x: frozenset(frozenset.__iter__(x)), dict: lambda x: dict(dict.items(x)),
}

UNPACK = {
    "i": lambda p, w: int(w[1], 16),
    "l": lambda p, w: [p.decode(v) for v in w[1:]],
    "t": lambda p, w: tuple([p.decode(v) for v in w[1:]]),
    "s": lambda p, w: {p.decode(v) for v in w[1:]},
    "fs": lambda p, w: frozenset([p.decode(v) for v in w[1:]]),
    "d": lambda p, w: dict(_pairs(p, w[1:])),
    "C": lambda p, w: collections.Counter(dict(_pairs(p, w[1:]))),
    "O": lambda p, w: collections.OrderedDict(_pairs(p, w[1:])),
    "dd": lambda p, w: collections.defaultdict(None, _pairs(p, w[1:])),
    "dq": lambda p, w: collections.deque([p.decode(v) for v in w[2:]], w[1]),
    "dk": lambda p, w: dict.fromkeys([p.decode(v) for v in w[1:]]).keys(),
    "di": lambda p, w: dict(_pairs(p, w[1:])).items(),
    "c": lambda p, w: complex(w[1], w[2]),
    "b": lambda p, w: bytes.fromhex(w[1]),
    "ba": lambda p, w: bytearray.fromhex(w[1]),
    "r": lambda p, w: range(*[p.decode(v) for v in w[1:]]),
    "a": lambda p, w: array.array(w[1], [p.decode(v) for v in w[2:]]),
    "D": lambda p, w: decimal.Decimal(w[1]),
    "F": lambda p, w: fractions.Fraction(p.decode(w[1]), p.decode(w[2])),
    "td": lambda p, w: datetime.timedelta(w[1], w[2], w[3]),
    "dt": lambda p, w: datetime.datetime(*w[1], tzinfo=_zone(p, w[2]), fold=w[3]),
    "tm": lambda p, w: datetime.time(*w[1], tzinfo=_zone(p, w[2]), fold=w[3]),
    "da": lambda p, w: datetime.date(*w[1]),
    "sl": lambda p, w: slice(*[p.decode(v) for v in w[1:]]),
    "...": lambda p, w: Ellipsis,
    "!": lambda p, w: NotImplemented,
    "T": lambda p, w: TYPES[w[1]],
    "m": lambda p, w: p.module(w[1]),
    "g": lambda p, w: p.reference(w[1], w[2]),
    "h": lambda p, w: p.lent[w[1]],
    "o": lambda p, w: p.borrow(w[1], w[2], w[3]),
}
