#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kvmsbox serve with real sandboxes. usage: sandboxes.py KVMSBOX PLATFORM DIR SECONDS REQUESTS (see
sandboxes.sh)"""
import http.client
import json
import os
import random
import signal
import socket
import string
import subprocess
import sys
import threading
import time

kvmsbox, platform, work = sys.argv[1:4]
seconds = float(sys.argv[4])
isolated = int(sys.argv[5])  # requests for each kind at least
minutes = float(sys.argv[6]) if len(sys.argv) > 6 else 0  # of soak instead of all else
counts = {"ok": 0, "not ok": 0}
TOKENS = {"alice": "alice-token-0123456789", "bob": "bob-token-0123456789ab"}


def check(name, good, *details):
    word = "ok" if good else "not ok"
    counts[word] += 1
    print(word, name, flush=True)
    if not good:
        for d in details:
            print("   ", repr(d)[:400], flush=True)


def function(name, kind, tenant="alice", **more):
    f = {"tenant": tenant, "image": work + "/image.tar", "command": ["/bin/" + name], "kind": kind,
         "platform": platform, "instances": {"min": 1, "max": 3}}
    if kind == "http":
        f["port"] = 8080
    f.update(more)
    return f


FUNCTIONS = {
    "echo": function("echo", "stdio"),
    "count": function("count", "stdio"),
    "web": function("web", "http"),
    "kept": function("web", "http", isolation="none", instances={"min": 1, "max": 1}),
    "five": function("web", "http", isolation="n:5", instances={"min": 1, "max": 1}),
    "lambda": function("lambda", "lambda"),
    "scribble": function("scribble", "stdio"),
    "light-stdio": function("scribble", "stdio", command=["/bin/scribble", "light"]),
    "light-http": function("scribble-http", "http", command=["/bin/scribble-http", "light"]),
    "light-lambda": function("scribble-lambda", "lambda", command=["/bin/scribble-lambda", "light"]),
    "crash": function("crash", "stdio"),
    "spin": function("spin", "stdio", limits={"time": "300ms"}),
    "bobs": function("echo", "stdio", tenant="bob"),
}


class Server:
    def __init__(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.config = work + "/serve.json"
        with open(self.config, "w") as f:
            json.dump({"listen": [f"127.0.0.1:{self.port}"],
                       "tenants": {n: {"token": t} for n, t in TOKENS.items()},
                       "functions": FUNCTIONS}, f)
        self.start()

    def start(self):
        self.log = open(work + "/serve.log", "ab")
        self.proc = subprocess.Popen([kvmsbox, "serve", "--config", self.config], stdout=self.log,
                                     stderr=self.log, start_new_session=True)

    def call(self, name, body=b"", tenant="alice", timeout=60):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request("POST", "/f/" + name, body, {"Authorization": "Bearer " + TOKENS[tenant]})
            r = c.getresponse()
            return r.status, r.read()
        finally:
            c.close()

    def wait(self, name="echo", limit=60):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                if self.call(name, b"up?")[0] == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.02)
        return False

    def sandboxes(self):
        """Processes that are sandboxes of this server (their stubs are theirs)."""
        found = []
        for p in os.listdir("/proc"):
            if not p.isdigit():
                continue
            try:
                with open(f"/proc/{p}/stat") as f:
                    ppid = int(f.read().rsplit(")", 1)[1].split()[1])
                with open(f"/proc/{p}/cmdline", "rb") as f:
                    args = f.read().split(b"\0")
            except OSError:
                continue
            if b"--channel" in args and (ppid == self.proc.pid or ppid == 1):
                found.append(int(p))
        return found

    @staticmethod
    def locked(pid):
        """Has the process given up its rights? None: it is gone."""
        try:
            with open(f"/proc/{pid}/status") as f:
                fields = dict(line.split(":", 1) for line in f)
        except OSError:
            return None
        return [fields[k].strip() for k in ("Seccomp", "NoNewPrivs")] == ["2", "1"] and \
            not int(fields["CapEff"], 16)

    def stop(self):
        self.proc.terminate()
        try:
            return self.proc.wait(30)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            return "killed"


def load(server, name, how, expect=None, tenant="alice", body="x", rate=None):
    out = f"{work}/load-{name}.json"
    args = [kvmsbox, "load", "--token", TOKENS[tenant], "-c", "3", "-d", f"{how}s", "-b", body,
            "--json", out, "--max-errors", "1000000000"]
    if expect:
        args += ["--expect", expect]
    if rate:
        args += ["--rate", str(rate)]
    args.append(f"http://127.0.0.1:{server.port}/f/{name}")
    subprocess.run(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=how + 60,
                   check=False)
    with open(out) as f:
        return json.load(f)


def secret():
    return "".join(random.choice(string.ascii_letters) for _ in range(16))


def test_kinds(s):
    check("it comes up", s.wait())
    check("stdio", s.call("echo", b"abc") == (200, b"abc"))
    got = [s.call("count", b"")[1] for _ in range(6)]
    check("each request is the first: stdio", got == [b"1\n"] * 6, got)
    got = [s.call("web", b"q")[1] for _ in range(6)]
    check("http", got == [b"1 q"] * 6, got)
    got = [s.call("lambda", b'{"a":1}')[1] for _ in range(6)]
    check("lambda", got == [b'{"n":1,"event":{"a":1}}'] * 6, got)
    got = [s.call("kept", b"q")[1] for _ in range(4)]
    check("isolation none", got == [b"1 q", b"2 q", b"3 q", b"4 q"], got)
    got = [s.call("five", b"q")[1] for _ in range(12)]
    want = [b"%d q" % (i % 5 + 1) for i in range(12)]
    check("isolation n:5", got == want, got)
    got = [s.call("crash", b"")[0] for _ in range(3)]
    check("a crash is a 5xx", all(500 <= g < 600 for g in got), got)
    got = [s.call("spin", b"")[0] for _ in range(2)]
    check("a loop is a 504", got == [504, 504], got)
    # Those that wait to become one included; one that has just been started is not yet.
    end = time.monotonic() + 10
    while time.monotonic() < end and any(s.locked(p) is False for p in s.sandboxes()):
        time.sleep(0.05)
    got = [(p, s.locked(p)) for p in s.sandboxes()]
    check("every sandbox is locked down", len(got) > 4 and
          not [g for g in got if g[1] is False], got)
    big = os.urandom(2 << 20)
    got = s.call("echo", big)
    check("2 MiB there and back", got == (200, big), got[0], len(got[1]))
    check("another tenant's function isn't there", s.call("bobs", b"", "alice")[0] in (403, 404))
    check("its own is", s.call("bobs", b"hi", "bob") == (200, b"hi"))


def isolation(s, name, kind, least):
    """Scribbles, each with a secret of its own, several at a time."""
    bad = []
    done = [0]
    end = time.monotonic() + seconds

    def one():
        while (time.monotonic() < end or done[0] < least) and not bad:
            # Ways to end are chosen by the last letter; these give status 0.
            word = secret() + random.choice("dhlp")
            body = f'"{word}"' if kind == "lambda" else word
            got = s.call(name, body.encode())
            if got != (200, f"clean {word}\n".encode()):
                bad.append(got)
            done[0] += 1
    threads = [threading.Thread(target=one) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(seconds + least * 0.2 + 120)
    check(f"{name}: no trace of another request ({done[0]} requests)", not bad and done[0] > 3, *bad)


def test_isolation(s):
    isolation(s, "scribble", "stdio", 0)
    for kind in ("stdio", "http", "lambda"):
        isolation(s, "light-" + kind, kind, isolated)


def test_load(s):
    for name, body, expect in (("echo", "hello", "hello"), ("web", "q", "1 q"),
                               ("lambda", '{"k":2}', '{"n":1,"event":{"k":2}}')):
        report = load(s, name, seconds, expect, body=body)
        check(f"load on {name}: {report['requests']} requests", report["good"] and
              not report["errors"], report["errors_by_kind"], report["statuses"])


def test_chaos(s):
    """Sandboxes are killed under load: every request has an answer, and it goes on."""
    stop = threading.Event()
    killed = [0]

    def killer():
        while not stop.is_set():
            found = s.sandboxes()
            if found:
                try:
                    os.kill(random.choice(found), signal.SIGKILL)
                    killed[0] += 1
                except ProcessLookupError:
                    pass
            stop.wait(0.15)
    answers = {}
    lost = []
    lock = threading.Lock()

    def caller():
        while not stop.is_set():
            try:
                status, body = s.call("echo", b"chaos")
            except OSError as e:
                lost.append(repr(e))
                continue
            with lock:
                answers[status] = answers.get(status, 0) + 1
            if status == 200 and body != b"chaos":
                lost.append(body)
    threads = [threading.Thread(target=killer)] + [threading.Thread(target=caller) for _ in range(3)]
    for t in threads:
        t.start()
    time.sleep(seconds * 2)
    stop.set()
    for t in threads:
        t.join(90)
    check(f"{killed[0]} sandboxes killed: every request has an answer", killed[0] and not lost, *lost)
    check("which is a result or a 5xx", set(answers) <= {200, 500, 502, 503, 504} and
          answers.get(200), answers)
    check("and it goes on", s.wait("echo", 20))


def test_server_killed(s):
    before = s.sandboxes()
    s.proc.send_signal(signal.SIGKILL)
    s.proc.wait()
    end = time.monotonic() + 10
    while time.monotonic() < end and s.sandboxes():
        time.sleep(0.05)
    check(f"the server is killed: none of {len(before)} sandboxes is left", before and
          not s.sandboxes(), before, s.sandboxes())
    began = time.monotonic()
    s.start()
    check("started again it serves", s.wait("echo", 30))
    print(f"# {time.monotonic() - began:.2f} s from start to the first answer")
    check("it ends when told to", s.stop() == 0)
    check("and leaves nothing", not s.sandboxes(), s.sandboxes())


def family(root):
    """The process, and all that come from it."""
    children = {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{p}/stat") as f:
                ppid = int(f.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(ppid, []).append(int(p))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def weigh(s):
    """KiB: the server, all of its processes together, the host's shared memory; its descriptors."""
    def pss(pid):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except (OSError, StopIteration):
            return 0
    with open("/proc/meminfo") as f:
        shmem = next(int(line.split()[1]) for line in f if line.startswith("Shmem:"))
    return (pss(s.proc.pid), sum(pss(p) for p in family(s.proc.pid)), shmem,
            len(os.listdir(f"/proc/{s.proc.pid}/fd")))


def median(v):
    return sorted(v)[len(v) // 2]


def test_soak(s):
    """Every kind at a steady rate, and crashes, for long: memory is flat."""
    kinds = (("echo", "hello", "hello"), ("web", "q", "1 q"), ("five", "q", " q"),
             ("lambda", '{"k":2}', '{"n":1,"event":{"k":2}}'), ("crash", "x", None))
    reports, samples = {}, []

    def one(name, body, expect):
        reports[name] = load(s, name, int(minutes * 60), expect, body=body,
                             rate=2 if name == "crash" else 60)
    threads = [threading.Thread(target=one, args=k) for k in kinds]
    began = time.monotonic()
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        time.sleep(min(15, minutes * 60 / 40))
        samples.append(weigh(s))
        if len(samples) % 20 == 0:
            print(f"# {(time.monotonic() - began) / 60:.0f} min: {samples[-1]}", flush=True)
    for name, r in reports.items():
        if name != "crash":
            check(f"soak, {name}: {r['requests']} requests", r["good"] and not r["errors"],
                  r["errors_by_kind"], r["statuses"])
    # The pools have their sizes after a fifth of the time.
    samples = samples[len(samples) // 5:-2]
    early, late = samples[:len(samples) // 3], samples[-(len(samples) // 3):]
    for i, (what, slack) in enumerate((("the server's memory, KiB", 1024),
                                       ("all of its processes' memory, KiB", 16384),
                                       ("shared memory on the host, KiB", 32768),
                                       ("the server's descriptors", 16))):
        a, b = median([v[i] for v in early]), median([v[i] for v in late])
        check(f"flat: {what} {a} -> {b}", b <= a * 1.05 + slack)


def main():
    s = Server()
    tests = (test_kinds, test_isolation, test_load, test_chaos, test_server_killed)
    try:
        for t in (test_kinds, test_soak) if minutes else tests:
            try:
                t(s)
            except Exception as e:  # pylint: disable=broad-except
                check(f"{t.__name__} gets to its end", False, type(e).__name__, e)
    finally:
        if s.proc.poll() is None:
            s.proc.kill()
    if counts["not ok"]:
        with open(work + "/serve.log", errors="replace") as log:
            for line in [l for l in log if '"outcome":"ok"' not in l][-60:]:
                print("#", line.rstrip()[:400])
    print(f"{counts['ok']} passed, {counts['not ok']} failed, 0 skipped")
    return counts["not ok"] != 0


signal.alarm(14000)
sys.exit(main())
