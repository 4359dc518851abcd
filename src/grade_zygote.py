"""The fork server: a warm interpreter that never sees a program or a test, only descriptors.

Each slot has an evaluator, which stays, and for each job a candidate of its own, cloned from this process into fresh
namespaces. A job arrives as a descriptor; it goes unread to the evaluator, together with its ends of the candidate's
channel and output. `setup` (JSON from the owner) holds the sandbox as lists of system calls, worked out and tried
once in C; here they are only carried out, in order, and a failure ends the process.
"""

import _signal
import array
import ctypes
import gc
import json
import os
import random
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback

CONTROL, CHANNEL = 3, 3
DESCRIPTORS = 512  # more than this process ever opens
PATIENCE = 2.0  # seconds that a candidate may live on after it closed its channel


class Calls:
    """Prepared system calls. An argument is a number, {"text": s}, {"hex": bytes}, {"filter": a BPF program} or a name such as
    "candidate_uid", whose number `values` knows now or will know later."""

    def __init__(self, steps, values):
        self.keep = []
        self.steps = [(name, number, [self.argument(a, values) for a in args] + [0] * (6 - len(args))) for name, number, args in steps]

    def argument(self, a, values):
        if not isinstance(a, dict):
            return values.get(a, a)
        if "filter" in a:
            code = bytes.fromhex(a["filter"])
            return self.buffer(struct.pack("@HP", len(code) // 8, self.buffer(code)))  # struct sock_fprog
        return self.buffer(a["text"].encode() + b"\0" if "text" in a else bytes.fromhex(a["hex"]))

    def buffer(self, data):
        b = ctypes.create_string_buffer(data, len(data))
        self.keep.append(b)
        return ctypes.addressof(b)

    def run(self, values):
        for name, number, args in self.steps:
            result = SYSCALL(number, *[values[a] if type(a) is str else a for a in args])
            if result < 0:
                raise OSError(ctypes.get_errno(), "sandbox: %s: %s" % (name, os.strerror(ctypes.get_errno())))
            values["result"] = result


class Slot:
    """An evaluator and the candidate it is busy with."""

    def __init__(self, number, setup):
        uid = setup["values"]["uid"] + 2 * number
        known = dict(setup["values"], candidate_uid=uid + 1, evaluator_uid=uid + 2)
        self.calls = {name: Calls(steps, known) for name, steps in setup["calls"].items()}
        self.evaluator = self.candidate = 0
        self.link = self.job = self.ended = None
        self.asked = False  # the evaluator waits for the candidate's end
        self.late = self.lingered = False
        self.retiring = False
        self.left = 0.0  # seconds until the evaluator has taken too long; or, once asked, until the candidate has


class Zygote:
    def __init__(self, setup):
        self.setup = setup
        self.control = socket.socket(fileno=CONTROL)
        self.slots = [Slot(i, setup) for i in range(setup["n_slots"])]
        self.free = self.slots[::-1]
        self.waiting = []
        self.links = {}  # descriptor of a link -> its slot
        self.limits = {}
        self.null = os.open("/dev/null", os.O_RDONLY)
        self.poll = select.poll()

    def limit(self, what, value):
        """The address of a struct rlimit, not above what this process has. It need live only until the next job."""
        most = resource.getrlimit(what)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        self.limits[what] = ctypes.create_string_buffer(struct.pack("@QQ", value, value), 16)
        return ctypes.addressof(self.limits[what])

    def say(self, **message):
        self.control.send(json.dumps(message).encode())

    def loop(self):
        self.wake, self.alarm = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self.alarm, False)
        _signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.alarm)
        self.poll.register(CONTROL, select.POLLIN)
        self.poll.register(self.wake, select.POLLIN)
        before = time.monotonic()
        while True:
            for fd, _ in self.poll.poll(250):
                if fd == CONTROL:
                    if not self.accept():
                        return self.end()
                elif fd == self.wake:
                    os.read(self.wake, 4096)
                elif fd in self.links:
                    self.listen(self.links[fd])
            self.reap()
            now = time.monotonic()
            self.watch(min(now - before, 2.0))
            before = now
            while self.waiting and self.free:
                self.start(self.waiting.pop(0), self.free.pop())

    def end(self):
        """The owner hung up."""
        for slot in self.slots:
            for pid in (slot.candidate, slot.evaluator):
                if pid:
                    os.kill(pid, signal.SIGKILL)
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            pass

    def accept(self):
        data, extra, _, _ = self.control.recvmsg(65536, socket.CMSG_SPACE(4))
        if not data:
            return False
        job = json.loads(data)
        job["fd"] = struct.unpack("i", extra[0][2][:4])[0]
        self.waiting.append(job)
        return True

    def start(self, job, slot):
        if not slot.evaluator:
            self.hire(slot)
        mine, other = socket.socketpair()
        out, out_w = os.pipe()
        err, err_w = os.pipe()
        self.talk = other.fileno()
        values = {"null": self.null, "out": out_w, "err": err_w, "channel": self.talk, "cpu": self.limit(resource.RLIMIT_CPU, int(job["cpu"]) + 2),
                  "threads": self.limit(resource.RLIMIT_NPROC, job["processes"])}
        pid = SYSCALL(self.setup["clone"], self.setup["clone_flags"], 0, 0, 0, 0, 0)
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                slot.calls["candidate"].run(values)
                self.talk = CHANNEL
                os.closerange(CHANNEL + 1, DESCRIPTORS)
                slot.calls["candidate_seal"].run(values)
                candidate(CHANNEL)
            except BaseException as e:
                data = json.dumps(["failed", str(e)]).encode()
                os.write(self.talk, len(data).to_bytes(4, "little") + data)
            os._exit(9)
        fds = [job.pop("fd"), mine.fileno(), out, err]
        slot.job, slot.candidate, slot.ended, slot.asked, slot.late, slot.lingered = job["job"], pid, None, False, False, False
        slot.left = job["deadline"]
        if pid < 0:
            slot.candidate, slot.ended = 0, (256 * 9, 0.0, 0, False)  # the evaluator will find the channel closed
        job["pid"] = pid
        try:
            slot.link.sendmsg([json.dumps(job).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        except OSError:
            pass  # the evaluator has just died: reap() will tell
        for fd in fds[:1] + fds[2:] + [out_w, err_w]:
            os.close(fd)
        mine.close()
        other.close()

    def listen(self, slot):
        """The evaluator asks for its candidate's end: b"kill" at once, b"wait" when it ends by itself. b"done" frees
        the slot, b"last" too, but with a new evaluator."""
        try:
            word = slot.link.recv(16)
        except OSError:
            word = b""
        if word == b"done":
            slot.job = None
            self.free.append(slot)
        elif word == b"last":
            slot.job = None
            slot.retiring = True
        elif word:
            slot.asked = True
            slot.left = PATIENCE
            if slot.candidate and word == b"kill":
                os.kill(slot.candidate, signal.SIGKILL)
                self.bury(slot, *os.wait4(slot.candidate, 0)[1:])
            self.answer(slot)
        else:
            self.poll.unregister(slot.link)  # its end is reap()'s business
            del self.links[slot.link.fileno()]

    def answer(self, slot):
        if slot.asked and slot.ended:
            slot.asked = False
            try:
                slot.link.send(json.dumps(slot.ended).encode())
            except OSError:
                pass

    def bury(self, slot, status, usage):
        slot.candidate = 0
        slot.ended = (status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, slot.lingered)

    def reap(self):
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for slot in self.slots:
                if pid == slot.candidate:
                    self.bury(slot, status, usage)
                    self.answer(slot)
                elif pid == slot.evaluator:
                    self.dismiss(slot, status)

    def dismiss(self, slot, status):
        """The evaluator has ended: of old age, or with a job in its hands."""
        if slot.link.fileno() in self.links:
            self.poll.unregister(slot.link)
            del self.links[slot.link.fileno()]
        slot.link.close()
        slot.evaluator = 0
        if slot.candidate:
            os.kill(slot.candidate, signal.SIGKILL)
            self.bury(slot, *os.wait4(slot.candidate, 0)[1:])
        if slot.job is not None:
            self.say(job=slot.job, status=status, late=slot.late)
        if slot.job is not None or slot.retiring:
            slot.job, slot.retiring = None, False
            self.free.append(slot)

    def watch(self, elapsed):
        for slot in self.slots:
            if slot.job is None:
                continue
            slot.left -= elapsed
            if slot.left > 0:
                continue
            if slot.asked and slot.candidate:
                slot.lingered = True
                os.kill(slot.candidate, signal.SIGKILL)
            elif not slot.late:
                slot.late = True
                os.kill(slot.evaluator, signal.SIGKILL)

    def hire(self, slot):
        slot.link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        slot.evaluator = os.fork()
        if slot.evaluator == 0:
            try:
                signal.set_wakeup_fd(-1)
                os.dup2(other.fileno(), CONTROL)
                os.closerange(CONTROL + 1, DESCRIPTORS)
                link = socket.socket(fileno=CONTROL)
                slot.calls["evaluator"].run({})
                evaluator(link)
            except BaseException:
                traceback.print_exc()
                os._exit(9)
            os._exit(0)
        other.close()
        self.links[slot.link.fileno()] = slot
        self.poll.register(slot.link, select.POLLIN)


def warm(names):
    for name in names:
        try:
            __import__(name)
        except Exception:
            pass  # this interpreter was built without it


def main(setup):
    global SYSCALL
    SYSCALL = ctypes.PyDLL(None, use_errno=True).syscall
    SYSCALL.restype = ctypes.c_long
    SYSCALL.argtypes = [ctypes.c_long] * 7
    warm(setup["modules"])
    os.register_at_fork = register
    random.seed(0)  # the same program, the same verdict
    sys.path = [p for p in sys.path if p]
    zygote = Zygote(setup)
    gc.collect()
    gc.freeze()
    gc.disable()
    zygote.say(hello=sys.version.split()[0], executable=sys.executable)
    zygote.loop()
