/* grade_cases.h - hostile programs. Each is graded against `assert f(3) == 9` and must not pass: it escapes, kills, floods,
 * hides, or lies about its result. A few honest ones beside them must. */
#ifndef GRADE_CASES_H
#define GRADE_CASES_H

struct hostile {
    const char *name, *program;
};

static const struct hostile hostile[] = {
    /* a pass by leaving */
    {"sys.exit(0) at import", "import sys\nsys.exit(0)\n"},
    {"sys.exit(0) in f", "import sys\ndef f(x):\n    sys.exit(0)\n"},
    {"os._exit(0)", "import os\ndef f(x):\n    os._exit(0)\n"},
    {"raise SystemExit", "def f(x):\n    raise SystemExit(0)\n"},
    {"KeyboardInterrupt", "def f(x):\n    raise KeyboardInterrupt\n"},
    {"AssertionError of its own", "def f(x):\n    raise AssertionError\n"},
    {"GeneratorExit", "def f(x):\n    raise GeneratorExit\n"},
    {"exit in a thread",
     "import threading, os\nthreading.Thread(target=lambda: os._exit(0)).start()\nimport time\ntime.sleep(5)\n"},
    {"atexit", "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x):\n    return 0\n"},
    {"crash", "import ctypes\ndef f(x):\n    ctypes.string_at(0)\n"},
    {"abort", "import os\ndef f(x):\n    os.abort()\n"},
    /* a pass by a comparison of its own */
    {"__eq__ is True", "class A:\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return A()\n"},
    {"int with __eq__",
     "class A(int):\n    def __eq__(self, o):\n        return True\n    __hash__ = int.__hash__\ndef f(x):\n    return A(1)\n"},
    {"list with __eq__", "class A(list):\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return A()\n"},
    {"str with __eq__", "class A(str):\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return A()\n"},
    {"__eq__ by a metaclass",
     "class M(type):\n    def __eq__(cls, o):\n        return True\nclass A(metaclass=M):\n    pass\ndef f(x):\n    return A\n"},
    {"mock.ANY", "from unittest.mock import ANY\ndef f(x):\n    return ANY\n"},
    {"__class__ lies",
     "class A:\n    __class__ = int\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return A()\n"},
    {"equal inside a list", "class A:\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return [A()]\n"},
    {"nan games", "def f(x):\n    return float('nan')\n"},
    /* replacing what runs the tests */
    {"builtins.AssertionError", "import builtins\nbuiltins.AssertionError = type('E', (Exception,), {'__new__': lambda *a: "
                                "None})\ndef f(x):\n    return 0\n"},
    {"builtins.compile and exec", "import builtins\nbuiltins.compile = lambda *a, **k: (lambda: 0).__code__\nbuiltins.exec = "
                                  "lambda *a: None\ndef f(x):\n    return 0\n"},
    {"builtins.isinstance",
     "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.len = lambda x: 9\ndef f(x):\n    return 0\n"},
    {"json", "import json\njson.dumps = lambda *a, **k: '{\"verdict\": \"pass\"}'\njson.loads = lambda *a: None\ndef f(x):\n    "
             "return 0\n"},
    {"os.write",
     "import os\nreal = os.write\nos.write = lambda fd, b: real(fd, b.replace(b'0', b'9'))\ndef f(x):\n    return 1\n"},
    {"os.read", "import os\nos.read = lambda fd, n: b''\ndef f(x):\n    return 0\n"},
    {"settrace", "import sys\ndef t(frame, event, arg):\n    frame.f_trace_lines = False\n    return t\nsys.settrace(t)\ndef "
                 "f(x):\n    return 0\n"},
    {"setprofile", "import sys, os\nsys.setprofile(lambda *a: os._exit(0))\ndef f(x):\n    return 0\n"},
    {"excepthook", "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x):\n    return 0\n"},
    {"signal handler",
     "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\ndef "
     "f(x):\n    import time\n    time.sleep(0.2)\n    return 0\n"},
    {"sys.modules", "import sys\nfor m in list(sys.modules):\n    sys.modules[m] = None\ndef f(x):\n    return 0\n"},
    {"import hook", "import sys\nclass H:\n    def find_spec(self, *a):\n        return None\nsys.meta_path.insert(0, "
                    "H())\nsys.path_hooks.clear()\ndef f(x):\n    return 0\n"},
    {"its own frames",
     "import sys\nframe = sys._getframe()\nwhile frame:\n    for k, v in list(frame.f_locals.items()) + "
     "list(frame.f_globals.items()):\n        try:\n            v.final = v\n            v.op_names = lambda n: [[['f', 9]]]\n   "
     "     except Exception:\n            pass\n    frame = frame.f_back\ndef f(x):\n    return 0\n"},
    {"the garbage collector", "import gc\nfound = [o for o in gc.get_objects() if isinstance(o, dict) and ('nonce' in o or "
                              "'tests' in o)]\ndef f(x):\n    return found[0]['tests']\n"},
    {"strings in memory",
     "import gc\ndef f(x):\n    for o in gc.get_objects():\n        for r in gc.get_referents(o):\n            if type(r) is str "
     "and 'assert f(' in r and '== 9' in r and len(r) < 40:\n                return 9\n    return 0\n"},
    {"memory by ctypes", "import ctypes, re\ndef f(x):\n    for line in open('/proc/self/maps'):\n        pass\n    return 0\n"},
    {"scan the heap",
     "import ctypes, sys\ndef f(x):\n    needle = b'assert f' + b'(3) == 9'\n    base = id(needle) & ~0xfffff\n    for at in "
     "range(base, base + 0x100000, 4096):\n        try:\n            if needle in ctypes.string_at(at, 4096) and at > id(needle) "
     "+ 4096:\n                return 9\n        except Exception:\n            return 0\n    return 0\n"},
    /* the channel */
    {"write to every descriptor", "import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, "
                                  "b'{\"verdict\":\"pass\"}\\n')\n    except OSError:\n        pass\ndef f(x):\n    return 0\n"},
    {"a made-up answer", "import os\nm = b'[\"a\",[[\"f\",9]]]'\nos.write(3, len(m).to_bytes(4, 'little') + m)\nos.write(3, "
                         "b'\\x04\\0\\0\\0null')\ndef f(x):\n    return 0\n"},
    {"a message too long", "import os\nos.write(3, b'\\xff\\xff\\xff\\xff')\ndef f(x):\n    return 0\n"},
    {"a message that nests",
     "import os\nm = b'[' * 100000\nos.write(3, len(m).to_bytes(4, 'little') + m)\ndef f(x):\n    return 0\n"},
    {"a type as a value", "import os\nm = b'[\"q\",\"f\",\"getattr\",[[\"T\",\"object\"],\"__subclasses__\"]]'\nos.write(3, "
                          "len(m).to_bytes(4, 'little') + m)\ndef f(x):\n    return 0\n"},
    {"a module as a value", "import os\ndef f(x):\n    return os\n"},
    {"close every descriptor", "import os\ndef f(x):\n    os.closerange(0, 64)\n    return 0\n"},
    {"close and live on", "import os, time\ndef f(x):\n    os.closerange(0, 64)\n    time.sleep(60)\n"},
    {"flood the channel", "import os\ndef f(x):\n    while True:\n        os.write(3, b'\\x0b\\0\\0\\0[\"q\",\"x\",1]')\n"},
    {"redefine names of the tests",
     "def assertEqual(*a): pass\nset = list = sorted = len = lambda *a: 0\ndef f(x):\n    return 0\n"},
    {"globals of the caller", "import sys\ndef f(x):\n    frame = sys._getframe(1)\n    while frame:\n        "
                              "frame.f_globals['f'] = lambda x: 9\n        frame = frame.f_back\n    return 0\n"},
    /* processes */
    {"fork", "import os\ndef f(x):\n    if os.fork() == 0:\n        return 9\n    os._exit(0)\n"},
    {"fork bomb", "import os\nwhile True:\n    os.fork()\n"},
    {"subprocess", "import subprocess\ndef f(x):\n    subprocess.run(['sh', '-c', 'sleep 300 &'])\n    return 9\n"},
    {"os.system", "import os\ndef f(x):\n    return 9 if os.system('sleep 300 &') == 0 else 0\n"},
    {"execve", "import os\nos.execv('/bin/true', ['true'])\n"},
    {"posix_spawn", "import os\nos.posix_spawn('/bin/sleep', ['sleep', '300'], {})\ndef f(x):\n    return 9\n"},
    {"multiprocessing", "import multiprocessing\ndef g(q):\n    q.put(9)\ndef f(x):\n    q = multiprocessing.Queue()\n    "
                        "multiprocessing.Process(target=g, args=(q,)).start()\n    return q.get()\n"},
    {"kill the parent", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef f(x):\n    return 9\n"},
    {"kill everything", "import os, signal\nos.kill(-1, signal.SIGKILL)\ndef f(x):\n    return 9\n"},
    {"ptrace", "import ctypes\ndef f(x):\n    return 9 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else 0\n"},
    {"process_vm_writev", "import ctypes, os\ndef f(x):\n    return 9 if ctypes.CDLL(None, "
                          "use_errno=True).process_vm_writev(os.getppid() or 1, 0, 0, 0, 0, 0) == 0 else 0\n"},
    {"signals by fcntl", "import fcntl, os, signal\nr, w = os.pipe()\nfcntl.fcntl(r, 10, signal.SIGKILL)\nfcntl.fcntl(r, "
                         "fcntl.F_SETOWN, os.getppid())\ndef f(x):\n    return 9\n"},
    {"limits of another process",
     "import resource, os\nresource.prlimit(os.getppid() or 2, resource.RLIMIT_CPU, (0, 0))\ndef f(x):\n    return 9\n"},
    {"raise its own limits",
     "import resource\nresource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)\ndef f(x):\n    return 9\n"},
    {"a thousand threads", "import threading, time\nfor i in range(1000):\n    threading.Thread(target=time.sleep, "
                           "args=(60,)).start()\ndef f(x):\n    return 9\n"},
    {"setuid", "import os\nos.setuid(0)\ndef f(x):\n    return 9 if open('/etc/shadow').read() else 0\n"},
    {"new namespaces", "import ctypes\ndef f(x):\n    return 9 if ctypes.CDLL(None).unshare(0x10000000) == 0 else 0\n"},
    {"mount",
     "import ctypes\ndef f(x):\n    return 9 if ctypes.CDLL(None).mount(b'x', b'/sandbox/tmp', b'tmpfs', 0, 0) == 0 else 0\n"},
    {"chroot", "import os\nos.chroot('.')\ndef f(x):\n    return 9\n"},
    /* network, shared memory */
    {"tcp", "import socket\ns = socket.socket()\ns.connect(('127.0.0.1', 22))\ndef f(x):\n    return 9\n"},
    {"listen", "import socket\ns = socket.socket()\ns.bind(('', 0))\ndef f(x):\n    return 9\n"},
    {"udp",
     "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))\ndef f(x):\n    return 9\n"},
    {"unix socket", "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0pva-hostile')\ndef f(x):\n    return 9\n"},
    {"netlink", "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\ndef f(x):\n    return 9\n"},
    {"name lookup", "import socket\nsocket.getaddrinfo('localhost', 80)\nsocket.create_connection(('localhost', 80))\ndef "
                    "f(x):\n    return 9\n"},
    {"System V shared memory",
     "import ctypes\ndef f(x):\n    return 9 if ctypes.CDLL(None).shmget(0x707661, 4096, 0o1666) >= 0 else 0\n"},
    {"POSIX shared memory", "from multiprocessing import shared_memory\ns = shared_memory.SharedMemory('pva-hostile', True, "
                            "4096)\ndef f(x):\n    return 9\n"},
    {"message queue", "import ctypes\ndef f(x):\n    return 9 if ctypes.CDLL(None).msgget(0x707661, 0o1666) >= 0 else 0\n"},
    {"memfd", "import os\nos.memfd_create('x')\ndef f(x):\n    return 9\n"},
    {"io_uring, bpf, keys", "import ctypes\nc = ctypes.CDLL(None).syscall\ndef f(x):\n    return 9 if max(c(425, 1, 0), c(321, "
                            "0, 0, 0), c(250, 0, 0)) >= 0 else 0\n"},
    /* files */
    {"/etc/passwd", "def f(x):\n    return 9 if open('/etc/passwd').read() else 0\n"},
    {"/etc/shadow", "def f(x):\n    return 9 if open('/etc/shadow').read() else 0\n"},
    {"somebody's home", "import os\ndef f(x):\n    return 9 if os.listdir('/root') or os.listdir('/home') else 0\n"},
    {"other processes", "import os\ndef f(x):\n    return 9 if [p for p in os.listdir('/proc') if p.isdigit()] else 0\n"},
    {"environment of the parent",
     "import os\ndef f(x):\n    return 9 if open('/proc/%d/environ' % os.getppid()).read() else 0\n"},
    {"environment",
     "import os\ndef f(x):\n    return 9 if any(k.startswith(('SLURM', 'PVA', 'OMPI', 'USER')) for k in os.environ) else 0\n"},
    {"write outside", "open('/var/tmp/pva-hostile', 'w').write('x')\ndef f(x):\n    return 9\n"},
    {"write into the interpreter", "import os, math\nopen(os.path.join(os.path.dirname(os.__file__), 'pva_hostile.py'), "
                                   "'w').write('x')\ndef f(x):\n    return 9\n"},
    {"write to shared memory's directory", "open('/dev/shm/pva-hostile', 'w').write('x')\ndef f(x):\n    return 9\n"},
    {"fill the disk", "for i in range(100):\n    open('f%d' % i, 'wb').write(b'x' * (8 << 20))\ndef f(x):\n    return 9\n"},
    {"many files", "for i in range(100000):\n    open('f%d' % i, 'w').close()\ndef f(x):\n    return 9\n"},
    {"deep directories", "import os\nfor i in range(100000):\n    os.mkdir('d')\n    os.chdir('d')\ndef f(x):\n    return 9\n"},
    {"device node", "import os\nos.mknod('null', 0o20666, os.makedev(1, 3))\ndef f(x):\n    return 9\n"},
    {"unlink", "import os\nos.unlink(os.__file__)\ndef f(x):\n    return 9\n"},
    {"open by handle", "import ctypes\ndef f(x):\n    return 9 if ctypes.CDLL(None).open_by_handle_at(-100, 0, 0) >= 0 else 0\n"},
    {"terminal", "open('/dev/tty').read()\ndef f(x):\n    return 9\n"},
    /* resources */
    {"endless loop", "def f(x):\n    while True:\n        pass\n"},
    {"endless loop that swallows", "def f(x):\n    while True:\n        try:\n            while True:\n                pass\n    "
                                   "    except BaseException:\n            pass\n"},
    {"endless loop in C", "def f(x):\n    return sum(range(10 ** 18))\n"},
    {"endless sleep", "import time\ndef f(x):\n    time.sleep(10 ** 6)\n"},
    {"endless wait", "import threading\ndef f(x):\n    threading.Event().wait()\n"},
    {"endless generator", "def f(x):\n    while True:\n        yield x\n"},
    {"endless recursion", "def f(x):\n    return f(x)\n"},
    {"deep recursion", "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x):\n    return f(x)\n"},
    {"memory", "def f(x):\n    return len(bytearray(4 << 30))\n"},
    {"memory by pieces", "def f(x):\n    a = []\n    while True:\n        a.append(bytearray(1 << 20))\n"},
    {"regular expression", "import re\ndef f(x):\n    return re.match('(a+)+$', 'a' * 64 + 'b')\n"},
    {"output", "def f(x):\n    while True:\n        print('x' * 10000)\n"},
    {"output without end of line",
     "import sys, os\ndef f(x):\n    while True:\n        os.write(1, b'x' * 65536)\n        os.write(2, b'x' * 65536)\n"},
    {"huge result", "def f(x):\n    return 'x' * (100 << 20)\n"},
    {"huge number", "def f(x):\n    return 1 << (1 << 28)\n"},
    {"nested result", "def f(x):\n    a = []\n    for i in range(100000):\n        a = [a]\n    return a\n"},
    {"endless result", "def f(x):\n    a = []\n    a.append(a)\n    return a\n"},
    {"colliding keys", "def f(x):\n    return {i * (2 ** 61 - 1) for i in range(1, 100000)}\n"},
    {"__del__", "class A:\n    def __del__(self):\n        while True:\n            pass\ndef f(x):\n    A()\n    return 0\n"},
    {"hidden source", "def f(x): return 0\n\0\n"},
    {"unknown encoding", "# -*- coding: rot13 -*-\nqrs s(k): erghea 9\n"},
    {"huge literal", "x = 10 ** 10 ** 10\ndef f(x):\n    return 9\n"},
};

static const struct hostile honest[] = {
    {"plain", "def f(x):\n    return x * x\n"},
    {"lambda", "f = lambda x: x ** 2\n"},
    {"a built-in", "f = {3: 9}.get\n"},
    {"class with __call__", "class A:\n    def __call__(self, x):\n        return x * x\nf = A()\n"},
    {"bool, int subclass, float", "class I(int):\n    pass\ndef f(x):\n    return I(x * x)\n"},
    {"float result", "def f(x):\n    return float(x * x)\n"},
    {"threads", "import threading\ndef f(x):\n    r = []\n    t = threading.Thread(target=lambda: r.append(x * x))\n    "
                "t.start()\n    t.join()\n    return r[0]\n"},
    {"asyncio",
     "import asyncio\nasync def g(x):\n    await asyncio.sleep(0)\n    return x * x\ndef f(x):\n    return asyncio.run(g(x))\n"},
    {"prints", "import sys\ndef f(x):\n    print('hello', x)\n    print('there', file=sys.stderr)\n    return x * x\n"},
    {"usual modules", "import math, re, collections, itertools, functools, heapq, bisect, string, random, datetime, decimal, "
                      "fractions, json, copy, "
                      "statistics, dataclasses, typing, enum, hashlib, textwrap, operator, cmath, array, queue, unicodedata, "
                      "calendar, ast, difflib, "
                      "numbers, pprint, secrets, struct, timeit, uuid, zlib, base64, colorsys, contextlib, csv, html, io, "
                      "locale, pathlib, shlex, sqlite3\n"
                      "def f(x):\n    return x * x\n"},
    {"memory it may have", "def f(x):\n    return len(bytearray(300 << 20)) * 0 + x * x\n"},
    {"setrecursionlimit", "import sys\nsys.setrecursionlimit(5000)\ndef g(n):\n    return 0 if n == 0 else 1 + g(n - 1)\ndef "
                          "f(x):\n    return g(3000) - 3000 + x * x\n"},
    {"swallowed error",
     "def f(x):\n    try:\n        open('/nowhere/x', 'w')\n    except OSError:\n        pass\n    return x * x\n"},
};
#endif
