"""The process that holds the tests and gives the verdict. The program never runs here.

A test's source is executed with the names that the program defines bound to Remotes, so `assert f(3) == 9` sends 3 to the
candidate, receives plain data and compares it here. A pass therefore means that the values were right, whatever else the
candidate's process did to itself.
"""

import ast
import builtins
import errno
import gc
import json
import os
import random
import reprlib
import resource
import select
import signal
import socket
import struct
import sys
import time
import types

KEPT = 2048  # bytes of stdout and of stderr that the record keeps
TICK = 0.1  # seconds between looks at the candidate's clock
JOBS = 500  # of one evaluator
STRETCHED = 200000  # KiB resident


class Verdict(BaseException):
    """Ends the evaluation: no test can catch it and go on to pass, because `Evaluator.final` keeps it."""

    def __init__(self, verdict, kind="", detail=""):
        BaseException.__init__(self, verdict)
        self.verdict, self.kind, self.detail = verdict, kind, detail


class Evaluator(Peer):
    def __init__(self, link, channel, out, err, limits):
        Peer.__init__(self)
        self.link, self.channel, self.limits = link, channel, limits
        self.pipes = {out: bytearray(), err: bytearray()}
        self.open = {out, err}
        self.poll = select.poll()
        self.buffer = bytearray()
        self.final = None
        self.fetching = False
        self.last = None
        self.wall = self.cpu = self.idle = 0.0
        self.status = None
        self.now = time.monotonic()
        self.started = self.now
        for fd in (channel, out, err):
            os.set_blocking(fd, False)
            self.poll.register(fd, select.POLLIN)

    # Time. The clock advances by at most four ticks per look, so that a suspended job does not run out of time while it sleeps.

    def tick(self):
        now = time.monotonic()
        step, self.now = min(now - self.now, 4 * TICK), now
        self.wall += step
        try:
            cpu = time.clock_gettime((~self.limits["pid"] << 3) | 2)
        except OSError:
            cpu = self.cpu  # it has just ended
        self.idle = 0.0 if cpu - self.cpu > 0.002 * step else self.idle + step
        self.cpu = cpu
        if cpu > self.limits["cpu"]:
            self.stop("timeout", "", "more than %g s of CPU time" % self.limits["cpu"])
        if self.idle > self.limits["idle"]:
            self.stop("timeout", "", "asleep for %g s" % self.limits["idle"])
        if self.wall > self.limits["wall"]:
            self.stop("timeout", "", "more than %g s of wall time" % self.limits["wall"])

    def stop(self, verdict, kind="", detail=""):
        if self.final is None:
            self.final = Verdict(verdict, kind, detail)
        raise self.final

    # Bytes

    def wait(self, events):
        """Waits until the channel is ready for `events` (or closed), emptying the output pipes meanwhile."""
        self.poll.modify(self.channel, events)
        while True:
            ready = self.poll.poll(1000 * TICK)
            if time.monotonic() - self.now > TICK:
                self.tick()
            found = False
            for fd, _ in ready:
                if fd == self.channel:
                    found = True
                else:
                    self.drain(fd)
            if found:
                return

    def drain(self, fd):
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        kept = self.pipes[fd]
        kept += data[:KEPT - len(kept)]
        if not data and fd in self.open:
            self.open.remove(fd)
            self.poll.unregister(fd)
        return bool(data)

    def read(self, n):
        while len(self.buffer) < n:
            self.wait(select.POLLIN)
            try:
                data = os.read(self.channel, 1 << 20)
            except (BlockingIOError, ConnectionResetError):
                data = None
            if data == b"":
                self.ended()
            self.buffer += data or b""
        data = bytes(self.buffer[:n])
        del self.buffer[:n]
        return data

    def write(self, data):
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.channel, view):]
            except BlockingIOError:
                self.wait(select.POLLOUT)
            except (BrokenPipeError, ConnectionResetError):
                self.ended()

    def receive(self):
        message = Peer.receive(self)
        if time.monotonic() - self.now > TICK:
            self.tick()
        return message

    def ended(self):
        """The candidate hung up. Its exit status tells how it failed; there is no status that passes."""
        self.reap(b"wait")
        if self.lingered:
            self.stop("sandbox", "", "it closed the channel to its tests and lived on")
        if os.WIFEXITED(self.status):
            self.stop("exception", "SystemExit", "the process ended with status %d during its tests" % os.WEXITSTATUS(self.status))
        number = os.WTERMSIG(self.status)
        name = signal.Signals(number).name if number in list(signal.Signals) else "signal %d" % number
        if number == signal.SIGXCPU or number == signal.SIGKILL and self.used >= 0.98 * self.limits["cpu"]:
            self.stop("timeout", "", "more than %g s of CPU time" % self.limits["cpu"])
        if number == signal.SIGKILL:
            self.stop("memory", "", "killed by the system")
        if number == signal.SIGSYS:
            self.stop("sandbox", name, "a forbidden call")
        self.stop("exception", name, "the interpreter crashed")

    def reap(self, word):
        """Has the candidate killed, or waits until it has ended by itself."""
        if self.status is None:
            self.link.send(word)
            self.status, self.used, self.peak, self.lingered = json.loads(self.link.recv(4096))

    # What the candidate may do here: call what it was lent, and read values. Nothing else is reachable.

    def lend(self, x):
        if isinstance(x, (types.BuiltinFunctionType, type)) and getattr(sys.modules.get(x.__module__), x.__name__, None) is x:
            return ["g", x.__module__, x.__name__]
        home = self.space["__name__"]
        if not (isinstance(x, (types.FunctionType, types.MethodType, type)) and x.__module__ == home or type(x).__module__ == home
                or hasattr(type(x), "__next__") and type(x).__module__ in ("builtins", "itertools")):
            self.stop("error", "", "the tests pass a %s to the program, which the grader cannot do" % type(x).__name__)
        return Peer.lend(self, x)

    def lent_object(self, w):
        if w[0] != "h":
            raise Malformed("a request for what was not lent")
        return self.lent[w[1]]

    def op_f(self, function, args):
        target = self.lent_object(args[0])
        own = type(target).__module__ == self.space["__name__"]
        if function == "getattr" or function == "setattr":
            if not own or args[1].startswith("_"):
                raise AttributeError(args[1])
        elif function not in ("iter", "next", "len", "getitem", "contains", "bool", "repr", "str") + COMPARE:
            raise Malformed("a request for %s" % function)
        return Peer.op_f(self, function, args)

    def op_call(self, target, args, kwargs):
        self.lent_object(target)
        return Peer.op_call(self, target, args, kwargs)

    def op_take(self, target, n):
        self.lent_object(target)
        return Peer.op_take(self, target, 1)

    def module(self, name):
        if not self.fetching or name not in sys.modules or name == "__main__":
            raise Malformed("a module as a value")
        return sys.modules[name]

    def call(self, target, args, kwargs):
        self.last = Peer.call(self, target, args, kwargs)
        return self.last

    def compare(self, function, x, other):
        """An object of the program's own class may compare itself with another such object, never with the expected value."""
        if isinstance(other, Remote):
            return self.ask(function, x, other)
        if x._own:
            self.stop("sandbox", x._label, "the result is an object of class %s that brings its own comparison" % x._label)
        return NotImplemented

    # Names

    def prepare(self, job):
        self.space = {"__name__": "tests", "__builtins__": builtins}
        self.bound = {}  # names injected from the program, with what was injected
        self.reference, self.entry = job["reference"], job["entry_point"]
        self.defined = self.imported = None  # worked out when a test needs it

    def study_reference(self):
        """What the reference binds at top level: `defined` names, and `imported` ones with where they come from."""
        self.defined, self.imported = set(), {}
        try:
            body = ast.parse(self.reference).body
        except (SyntaxError, ValueError, RecursionError):
            return
        for node in body:
            if isinstance(node, ast.Import):
                for a in node.names:
                    self.imported[a.asname or a.name.split(".")[0]] = (a.name, None, bool(a.asname))
            elif isinstance(node, ast.ImportFrom):
                for a in node.names:
                    self.imported[a.asname or a.name] = (node.module, a.name, True)
            elif hasattr(node, "name"):
                self.defined.add(node.name)
            else:
                self.defined.update(n.id for t in getattr(node, "targets", []) for n in ast.walk(t) if isinstance(n, ast.Name))

    def inject(self, code):
        """Binds the names that `code` mentions and the program defines. A built-in name stays the built-in, and a name that the
        reference imports stays that import, unless the reference itself defines the name: the program cannot redefine `set` or
        `math` under a test."""
        wanted = set()
        collect(code, wanted)
        own = {n for n, v in self.space.items() if n not in self.bound or self.bound[n] is not v}
        wanted -= own
        if self.defined is None and (any(hasattr(builtins, n) for n in wanted) or "import" in self.reference):
            self.study_reference()
        if self.defined is not None:
            wanted = {n for n in wanted if n in self.defined or n == self.entry or not hasattr(builtins, n)}
        for name in [n for n, v in self.bound.items() if self.space.get(n) is v]:
            del self.space[name]
        self.bound = {}
        if not wanted:
            return
        self.fetching = True
        try:
            for name, w in self.request("names", sorted(wanted))[1]:
                if self.imported and name in self.imported and name not in self.defined:
                    module, attribute, leaf = self.imported[name]
                    value = __import__(module, fromlist=["x"] if leaf else [])
                    value = getattr(value, attribute) if attribute else value
                else:
                    value = self.decode(w)
                if name in wanted:
                    self.space[name] = self.bound[name] = value
        finally:
            self.fetching = False

    def execute(self, source, filename):
        try:
            code = compile(source, filename, "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError) as e:
            self.stop("error", type(e).__name__, "the problem's %s is not Python: %s" % (filename, e))
        self.inject(code)
        exec(code, self.space)

    def mirror_imports(self, source):
        """Imports of the tests are visible to the program as well, as if both were one module."""
        try:
            nodes = [n for n in ast.parse(source).body if isinstance(n, (ast.Import, ast.ImportFrom))]
        except (SyntaxError, ValueError):
            return  # execute() says so
        statements = []
        for n in nodes:
            names = ", ".join(a.name + (" as " + a.asname if a.asname else "") for a in n.names)
            statements.append("from %s%s import %s" % ("." * n.level, n.module or "", names) if isinstance(n, ast.ImportFrom)
                              else "import " + names)
        if statements:
            self.request("imports", statements)

    # The evaluation

    def run(self, job):
        """Returns (verdict, kind, detail, index of the failing test or -1)."""
        self.index, self.line = -1, 0
        try:
            greeting = self.receive()
            if greeting != ["ready"]:
                self.stop("error", "", str(greeting[-1]))
            self.prepare(job)
            stage, detail = self.request("run", job["program"], job["preload"])[1:3]
            if stage != "run":
                self.stop("syntax" if stage == "syntax" else "no-code", "SyntaxError" if stage == "syntax" else "", str(detail))
            if job["kind"] == "humaneval":
                self.human_eval(job)
            else:
                self.mbpp(job)
        except Verdict:
            pass
        except BaseException as e:
            self.failed(e)
        if self.final is None:
            self.final = Verdict("pass")
            self.index = -1
        return self.final.verdict, self.final.kind, self.final.detail, self.index

    def mbpp(self, job):
        if job["setup"].strip():
            self.mirror_imports(job["setup"])
            self.execute(job["setup"], "setup")
        for self.index, test in enumerate(job["tests"]):
            self.execute(test, "test")
            if self.final:
                return

    def human_eval(self, job):
        """The prompt's helpers are trusted text and stay here; only the entry point is the program's."""
        self.mirror_imports(job["prompt"])
        self.execute(job["prompt"], "prompt")
        self.space.pop(self.entry, None)
        self.mirror_imports(job["tests"][0])
        self.lines = sorted(n.lineno for n in ast.walk(ast.parse(job["tests"][0])) if isinstance(n, ast.Assert))
        self.execute(job["tests"][0], "test")
        self.execute("check(%s)" % self.entry, "call")

    def failed(self, e):
        """The verdict that an exception means."""
        if self.final:
            return
        frame = e.__traceback__
        while frame:
            if frame.tb_frame.f_code.co_filename == "test":
                self.line = frame.tb_lineno
            frame = frame.tb_next
        lines = getattr(self, "lines", None)
        if lines:
            self.index = max(0, sum(line <= self.line for line in lines) - 1)
        origin = getattr(e, "pva_origin", None)
        name, text, number, line = origin or (type(e).__name__, str(e)[:300], 0, 0)
        where = " (program line %d)" % line if line else ""
        detail = "%s: %s%s" % (name, text, where)
        if isinstance(e, MemoryError):
            self.final = Verdict("memory", "", detail)
        elif origin and number in (errno.EPERM, errno.EACCES):
            self.final = Verdict("sandbox", name, detail)
        elif isinstance(e, AssertionError) and not origin:
            shown = reprlib.repr(self.last) if not isinstance(self.last, Remote) else "an object of class " + self.last._label
            self.final = Verdict("assertion", "AssertionError", "the program's last answer was " + shown + (", " + text if text else ""))
        elif isinstance(e, (Malformed, ValueError, TypeError, KeyError, IndexError)) and not origin and in_peer(e):
            self.final = Verdict("sandbox", name, "a message that no honest program sends: " + detail)
        else:
            self.final = Verdict("exception", name, detail)


def in_peer(e):
    trace = e.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename == "grade_peer.py"


def collect(code, names):
    names.update(code.co_names)
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            collect(c, names)


def evaluate(link, order, job_socket, channel, out, err):
    """One job from its socket to its verdict. The candidate was split off before any of this was in memory."""
    data = bytearray()
    while True:
        piece = os.read(job_socket, 1 << 20)
        if not piece:
            break
        data += piece
    job = json.loads(bytes(data))
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(time.process_time() + order["cpu"]) + 60
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    random.seed(0)
    session = Evaluator(link, channel, out, err, order)
    verdict, kind, detail, index = session.run(job)
    session.reap(b"kill")
    for fd in (out, err):
        while session.drain(fd):
            pass
    record = {
        "nonce": job["nonce"], "verdict": verdict, "kind": kind[:80], "detail": detail[:1000], "index": index,
        "cpu": session.used, "wall": time.monotonic() - session.started, "peak": session.peak,
        "stdout": session.pipes[out].decode("utf-8", "replace"), "stderr": session.pipes[err].decode("utf-8", "replace"),
    }
    text = json.dumps(record).encode() + b"\n"
    while text:
        text = text[os.write(job_socket, text):]
    return verdict


def evaluator(link):
    """Job after job. It retires after a while, and at once when a program stretched it."""
    gc.enable()
    for n in range(1, JOBS + 1):
        data, extra, _, _ = link.recvmsg(4096, socket.CMSG_SPACE(16))
        if not data:
            return
        fds = struct.unpack("4i", extra[0][2][:16])
        verdict = evaluate(link, json.loads(data), *fds)
        for fd in fds:
            os.close(fd)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if verdict in ("error", "memory", "sandbox", "timeout") or peak > STRETCHED or n == JOBS:
            link.send(b"last")
            return
        link.send(b"done")
