#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Talks to sandboxes that serve functions as a server does (sentry/fnchan.h), and checks them.

    driver.py KVMSBOX PLATFORM IMAGE REQUESTS

IMAGE is made by run.sh; REQUESTS is how many requests the isolation test makes.
"""
import array
import os
import random
import re
import signal
import socket
import string
import struct
import subprocess
import sys
import threading
import time

HDR = struct.Struct("<IIII80s")
INVOKE, BODY, FINISH, CANCEL, SNAPSHOT = 1, 2, 3, 4, 5
READY, IMAGE, FAILED, STDOUT, STDERR, DONE = 64, 65, 66, 67, 68, 69
OPEN, DATA, CLOSE, WINDOW = 128, 129, 130, 131
END, KEEP, RESET, CANCELLED, TIMED_OUT, OUT_OF_MEM, TOO_MUCH = 1, 2, 4, 8, 16, 32, 64
LIMIT = 60  # seconds for anything

kvmsbox, platform, image = sys.argv[1:4]
requests = int(sys.argv[4])
counts = {"ok": 0, "not ok": 0}


def check(name, good, *details):
    word = "ok" if good else "not ok"
    counts[word] += 1
    print(word, name, flush=True)
    if not good:
        for d in details:
            print("   ", repr(d)[:400], flush=True)


class Gone(Exception):
    pass


class Failed(Exception):
    pass


class Sandbox:
    """One sandbox and this end of its channel."""

    def __init__(self, args, fds=()):
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(LIMIT)
        self.errors = b""
        args = [a.replace("@CHANNEL", str(theirs.fileno())) for a in args]
        self.proc = subprocess.Popen([kvmsbox] + args, pass_fds=(theirs.fileno(),) + tuple(fds))
        theirs.close()
        self.ready = self.wait_ready()

    def recv(self):
        data, anc, _, _ = self.sock.recvmsg(HDR.size + 65536, 256)
        if not data:
            raise Gone(self.proc.wait(LIMIT))
        kind, flags, _, _, union = HDR.unpack(data[:HDR.size])
        return kind, flags, union, data[HDR.size:], anc

    def send(self, kind, flags=0, data=b"", union=b""):
        self.sock.send(HDR.pack(kind, flags, len(data), 0, union) + data)

    def wait_ready(self):
        while True:
            kind, _, union, data, _ = self.recv()
            if kind == READY:
                return dict(zip(("version", "kind", "pid", "port", "took", "resident", "dirtied",
                                 "requests"), struct.unpack("<IIIIQQQQ", union[:48])))
            if kind == FAILED:
                raise Failed(data.decode())
            if kind == STDERR:
                self.errors += data

    def begin(self, body=b"", deadline=LIMIT, most=0, flags=END):
        self.out = b""
        self.send(INVOKE, flags, body[:65536],
                  struct.pack("<QQQ32s", 1, int(deadline * 1e9), most, b""))

    def finish(self):
        """Up to the end of the request: (status, flags, output)."""
        while True:
            kind, flags, union, data, _ = self.recv()
            if kind in (STDOUT, DONE):
                self.out += data
            if kind == STDERR:
                self.errors += data
            if kind == DONE:
                status = struct.unpack("<i", union[:4])[0]
                self.ready = self.wait_ready()
                return status, flags, self.out

    def request(self, body=b"", **more):
        pieces = [body[i:i + 65536] for i in range(0, len(body), 65536)] or [b""]
        self.begin(pieces[0], flags=END if len(pieces) == 1 else 0, **more)
        if len(pieces) > 1:
            # Output has to be taken meanwhile: the program may wait for that.
            def push():
                for n, p in enumerate(pieces[1:], 2):
                    self.send(BODY, END if n == len(pieces) else 0, p)
            t = threading.Thread(target=push)
            t.start()
            result = self.finish()
            t.join(LIMIT)
            return result
        return self.finish()

    def snapshot(self):
        self.send(SNAPSHOT)
        while True:
            kind, _, _, _, anc = self.recv()
            if kind == IMAGE:
                return array.array("i", anc[0][2])[0]

    def close(self):
        self.sock.close()
        try:
            return self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            return "did not end"


def start(name, kind="stdio", options=()):
    return Sandbox(["exec", "--platform", platform, "--channel", "@CHANNEL", "--function", kind,
                    *options, image, "--", "/bin/" + name])


def clone(fd):
    return Sandbox(["restore", "--channel", "@CHANNEL", "--image-fd", str(fd)], [fd])


def test_stdio():
    s = start("echo")
    check("ready says what it is", s.ready["version"] == 1 and s.ready["kind"] == 1 and
          s.ready["pid"] == s.proc.pid, s.ready)
    # A number that is closed twice is, in between, something else's.
    own = [os.readlink(f"/proc/{p}/fd/{i}") for i in range(3) for p in (os.getpid(), s.proc.pid)]
    check("the process's own standard streams are left alone", own[::2] == own[1::2], own)
    check("a body comes back", s.request(b"hello") == (0, 0, b"hello"))
    check("an empty one", s.request(b"") == (0, 0, b""))
    big = os.urandom(3 << 20)
    status, flags, out = s.request(big)
    check("3 MiB", (status, flags) == (0, 0) and out == big, status, flags, len(out))
    check("many", all(s.request(b"%d" % i) == (0, 0, b"%d" % i) for i in range(50)))
    check("it ends with its channel", s.close() == 0)
    s = start("count")
    check("each request is the first", [s.request(b"x")[2] for _ in range(10)] == [b"1\n"] * 10)
    s.close()
    for name in "poll", "epoll":
        s = start(name)
        check("input that is waited for with " + name,
              [s.request(b"abc") for _ in range(5)] == [(0, 0, b"abc")] * 5)
        s.close()
    s = start("stderr")
    check("stderr before the snapshot", s.errors == b"before\n", s.errors)
    s.errors = b""
    check("stdout", s.request(b"it") == (0, 0, b"out\n"))
    check("stderr of the request", s.errors == b"during it\n", s.errors)
    s.close()
    s = start("steps")
    s.begin(b"")
    began = time.monotonic()
    first = s.recv()
    check("output comes while it is made", first[0] == STDOUT and first[3].startswith(b"step 0") and
          b"step 3" not in first[3] and time.monotonic() - began < 5, first)
    s.out = first[3]
    check("all of it", s.finish()[2] == b"step 0\nstep 1\nstep 2\nstep 3\n")
    s.close()
    s = start("ignore")
    check("a body that isn't wanted", s.request(b"q" * 300000) == (0, 0, b"q\n"))
    check("and again", s.request(b"w" * 10) == (0, 0, b"w\n"))
    s.close()
    s = start("orphan")
    check("children that are left are ended",
          [s.request() for _ in range(5)] == [(0, 0, b"parent\n")] * 5)
    s.close()


def test_structure():
    for name, want in (("threads", b"4 400000\n"), ("child", b"bcd"), ("timer", b"ticked\n")):
        s = start(name)
        got = [s.request(b"abc") for _ in range(5)]
        check("a snapshot with " + name, got == [(0, 0, want)] * 5, got)
        fd = s.snapshot()
        c = clone(fd)
        got = [c.request(b"abc") for _ in range(3)]
        check("restored, too: " + name, got == [(0, 0, want)] * 3, got)
        c.close()
        s.close()
        os.close(fd)


def test_pages():
    """Memory that a copy shares with the snapshot until it is changed, in one way or another."""
    s = start("pages")
    untaught = s.snapshot()
    got = [s.request(b"x") for _ in range(4)]
    check("pages of before the snapshot", got == [(0, 0, b"ok\n")] * 4, got)
    taught = s.snapshot()
    for what, fd in (("untaught", untaught), ("taught", taught)):
        c, d = clone(fd), clone(fd)
        got = [x.request(b"x") for x in (c, c, d, c, d)]
        check("in copies: " + what, got == [(0, 0, b"ok\n")] * 5, got)
        # Its own snapshot is the one it came from.
        fd2 = c.snapshot()
        e = clone(fd2)
        check("and a copy's copy", e.request(b"x") == (0, 0, b"ok\n"))
        for x in (c, d, e):
            x.close()
        os.close(fd2)
        os.close(fd)
    s.close()


def test_unmapped():
    """What a program unmaps at its end is there for the next request, ready to be written to."""
    s = start("unmap")
    got = [int(s.request(b"x")[2]) for _ in range(4)]
    check("few faults in what is unmapped at the end", max(got[2:]) <= 10, got)
    fd = s.snapshot()
    c = clone(fd)
    got = [int(c.request(b"x")[2]) for _ in range(4)]
    check("also in copies", max(got[1:]) <= 10, got)
    for x in c, s:
        x.close()
    os.close(fd)


def test_bad():
    try:
        start("no-read").close()
        check("one that doesn't read fails", False)
    except Failed as e:
        check("one that doesn't read fails", "status 4 before it read its input" in str(e), e)
    s = start("spin")
    for i in range(3):
        began = time.monotonic()
        status, flags, _ = s.request(b"", deadline=0.3)
        check("a loop is ended by its deadline", flags & TIMED_OUT and
              0.25 < time.monotonic() - began < 20, status, flags)
    s.begin(b"")
    time.sleep(0.1)
    s.send(CANCEL)
    check("or cancelled", s.finish()[1] & CANCELLED)
    s.close()
    s = start("sleep")
    check("so is a wait", s.request(b"", deadline=0.3)[1] & TIMED_OUT)
    s.close()
    s = start("flood")
    for i in range(2):
        status, flags, out = s.request(b"", most=1000000)
        check("output has a limit", flags & TOO_MUCH and len(out) == 1000000, flags, len(out))
    s.close()
    s = start("crash")
    got = [s.request(b"")[:2] for _ in range(5)]
    check("a crash is a status", got == [(139, 0)] * 5, got)
    s.close()
    s = start("eat", options=["--memory", "64M"])
    for i in range(2):
        status, flags, _ = s.request(b"")
        check("memory has a limit", status == 137 and flags & OUT_OF_MEM, status, flags)
    s.close()
    s = start("breed", options=["--pids-limit", "50"])
    for i in range(2):
        status, flags, out = s.request(b"")
        check("processes have a limit", status == 0 and
              re.match(rb"Resource temporarily unavailable after 4\d", out), status, flags, out)
    s.close()


def test_second():
    """From the second request on another thread runs them, and one more minds those that last."""
    s = start("steps")
    s.request()
    for _ in range(2):
        s.begin(b"")
        first = s.recv()
        s.out = first[3]
        check("output comes while it is made, later requests' too", first[0] == STDOUT and
              first[3].startswith(b"step 0") and b"step 3" not in first[3], first)
        check("up to its end", s.finish()[::2] == (0, b"step 0\nstep 1\nstep 2\nstep 3\n"), s.out)
    s.close()
    s = start("sleep")
    got = [s.request(b"", deadline=d)[1] for d in (0.3, 0.3, 0.01, 0.1, 0.001, 0.06)]
    check("waits are ended, whatever their deadline", all(f & TIMED_OUT for f in got), got)
    s.begin(b"")
    time.sleep(0.02)
    s.send(CANCEL)
    check("or cancelled", s.finish()[1] & CANCELLED)
    s.begin(b"")
    s.send(CANCEL)
    check("at once, too", s.finish()[1] & CANCELLED)
    s.close()
    for wait in (0, 0.05):
        s = start("spin")
        s.request(b"", deadline=0.1)
        s.begin(b"")
        time.sleep(wait)
        check("it ends with its channel, in a request", s.close() == 0)
    s = start("echo")
    bad = []
    for i in range(300):
        body = b"%d" % i if i % 7 else os.urandom(random.choice((70000, 200000)))
        got = s.request(body)
        if got != (0, 0, body):
            bad.append((i, len(body), got))
        if i % 3 == 0:
            time.sleep(random.random() * 0.006)
    check("requests of all sizes at all times", not bad, *bad)
    s.close()


def words_differ(rows, column, what):
    values = [r[column] for r in rows]
    check(what, len(set(values)) == len(values), values)


def test_entropy():
    s = start("random")
    fd = s.snapshot()
    clones = [clone(fd) for _ in range(2)]
    rows = []
    for sandbox in [s] + clones:
        for _ in range(3):
            rows.append(sandbox.request(b"")[2].split())
    check("answers", all(len(r) == 4 for r in rows), rows)
    words_differ(rows, 0, "getrandom differs")
    words_differ(rows, 3, "AT_RANDOM of a new program differs")
    now = time.time()
    check("CLOCK_REALTIME is true", all(abs(float(r[1]) - now) < 30 for r in rows), rows, now)
    mono = time.clock_gettime(time.CLOCK_MONOTONIC)
    check("CLOCK_MONOTONIC goes on", all(abs(float(r[2]) - mono) < 30 for r in rows), rows, mono)
    for sandbox in [s] + clones:
        sandbox.close()


def exchange(s, stream, text, flags=0):
    """Sends @text on a stream and returns what comes before the program waits again."""
    s.send(DATA, flags, text, struct.pack("<I", stream))
    got = b""
    while b"\n" not in got:
        kind, f, union, data, _ = s.recv()
        if kind == DATA:
            got += data
        if kind in (CLOSE, DONE):
            return kind, got
    return DATA, got


def http(s, lines, flags=0):
    s.begin(flags=flags)
    s.send(OPEN, 0, b"", struct.pack("<IH", 2, 0))
    return [exchange(s, 2, line)[1] for line in lines]


def end_http(s):
    s.send(FINISH)
    return s.finish()


def test_http():
    s = start("http", "http")
    check("the port is found", s.ready["port"] == 8080, s.ready)
    for i in range(4):
        got = http(s, [b"a\n", b"b\n"])
        check("a connection", got == [b"1 a\n", b"2 b\n"] and end_http(s)[:2] == (0, 0), got)
    got = http(s, [b"a\n"], flags=KEEP)
    end_http(s)
    more = http(s, [b"b\n"], flags=KEEP)
    end_http(s)
    check("kept as it is, if so asked", (got, more) == ([b"1 a\n"], [b"2 b\n"]), got, more)
    http(s, [b"c\n"])
    end_http(s)
    got = http(s, [b"a\n"])
    end_http(s)
    check("and set back again", got == [b"1 a\n"], got)
    s.begin(flags=0)
    s.send(OPEN, 0, b"", struct.pack("<IH", 2, 0))
    s.send(DATA, 0, b"crash\n", struct.pack("<I", 2))
    check("a crash", s.finish()[0] == 134)
    check("costs one request", http(s, [b"a\n"]) == [b"1 a\n"])
    end_http(s)
    s.begin(flags=0)
    s.send(OPEN, 0, b"", struct.pack("<IH", 2, 81))
    kind = s.recv()
    check("a port where nobody listens", kind[0] == CLOSE and kind[1] & RESET, kind)
    end_http(s)
    fd = s.snapshot()
    c = clone(fd)
    check("restored", http(c, [b"a\n"]) == [b"1 a\n"] and end_http(c)[0] == 0)
    c.close()
    s.close()


def secret():
    return "".join(random.choice(string.ascii_letters) for _ in range(12)).encode()


def scribbles(s, n, what):
    bad = []
    for i in range(n):
        word = secret()
        status, flags, out = s.request(word)
        if out != b"clean " + word + b"\n" or flags:
            bad.append((i, status, flags, out))
            break
    check(what, not bad, *bad)


def memory_has(pid, word):
    """Is @word in the memory of the process or its children (its stubs)?"""
    pids = [pid] + [int(p) for p in
                    open(f"/proc/{pid}/task/{pid}/children").read().split()]
    for p in pids:
        with open(f"/proc/{p}/maps") as maps, open(f"/proc/{p}/mem", "rb", 0) as mem:
            for line in maps:
                m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
                if not m or "[v" in line:
                    continue
                start, end = (int(x, 16) for x in m.groups())
                if end - start > 1 << 30:
                    continue
                try:
                    mem.seek(start)
                    if word in mem.read(end - start):
                        return line
                except OSError:
                    pass
    return None


def test_isolation():
    s = start("scribble")
    scribbles(s, max(requests // 4, 1), "nothing of earlier requests is found")
    fd = s.snapshot()
    clones = [clone(fd) for _ in range(2)]
    for i, c in enumerate(clones):
        scribbles(c, max(requests // 4, 1), f"nor in copy {i + 1}")
    a, b = start("echo"), start("echo")
    mark = b"tenant-A-" + secret()
    a.request(mark * 100)
    found = memory_has(b.proc.pid, mark)
    check("what one tenant's sandbox was told isn't in another's memory", not found, found)
    # The sanitizers keep copies.
    if "/san/" not in kvmsbox:
        found = memory_has(a.proc.pid, mark)
        check("nor in its own after the request", not found, found)
    for x in [a, b, s] + clones:
        x.close()


def main():
    tests = [test_stdio, test_structure, test_pages, test_unmapped, test_bad, test_second,
             test_entropy, test_http, test_isolation]
    for t in tests:
        try:
            t()
        except Exception as e:  # pylint: disable=broad-except
            check(f"{t.__name__} gets to its end", False, type(e).__name__, e)
    print(f"{counts['ok']} passed, {counts['not ok']} failed, 0 skipped")
    return counts["not ok"] != 0


signal.alarm(1500)
sys.exit(main())
