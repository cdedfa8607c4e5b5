# SPDX-License-Identifier: Apache-2.0
"""Starts servers, speaks HTTP to them byte by byte, counts what passed."""
import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
SERVE = os.environ["KVMSBOX_SERVE"]
DOUBLE = os.environ["SERVE_DOUBLE"]
SCRATCH = tempfile.mkdtemp(prefix="serve.", dir=os.environ.get("SCRATCH", "/tmp"))
TOKEN = "acme-token-0123456789"
OTHER = "other-token-0123456789"
ADMIN = "admin-token-0123456789"
TIMEOUT = 20
APP = ["python3", HERE + "/app.py"]
RUNTIME = ["python3", HERE + "/runtime.py"]

passed = failed = skipped = 0
tests = []
started = []


def end_all(*_):
    """Nothing outlives the tests, however they end."""
    for p in started:
        if p.poll() is None:
            p.kill()
    os._exit(3)


signal.signal(signal.SIGTERM, end_all)
signal.signal(signal.SIGINT, end_all)


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def test(f):
    tests.append(f)
    return f


def same(got, want, what=""):
    if got != want:
        raise Failure("%swant: %r\ngot:  %r" % (what and what + ": ", want, got))


def check(ok, what):
    if not ok:
        raise Failure(what)


def matches(regex, text):
    if not re.search(regex, text):
        raise Failure("want a match of: %s\ngot:  %s" % (regex, text[:600]))


def function(command, kind="stdio", tenant="acme", **more):
    f = {"tenant": tenant, "image": "x.tar", "kind": kind}
    if command:
        f["command"] = command
    f.update(more)
    return f


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def __repr__(self):
        return "%d %r %r" % (self.status, self.fields, self.body[:200])

    def field(self, name):
        for n, v in self.fields:
            if n.lower() == name.lower():
                return v
        return None


class Raw:
    """A connection on which the test says every byte itself."""

    def __init__(self, server, port=None, tls=None, timeout=TIMEOUT):
        if tls:
            plain = socket.create_connection(("127.0.0.1", port), timeout)
            self.s = tls.wrap_socket(plain, server_hostname="localhost")
        elif port is None and server.unix:
            self.s = socket.socket(socket.AF_UNIX)
            self.s.settimeout(timeout)
            self.s.connect(server.unix)
        else:
            self.s = socket.create_connection(("127.0.0.1", port or server.port), timeout)
        self.buf = b""

    def send(self, data):
        self.s.sendall(data if isinstance(data, bytes) else data.encode())

    def fill(self):
        data = self.s.recv(65536)
        self.buf += data
        return data

    def line(self):
        while b"\n" not in self.buf:
            if not self.fill():
                raise Failure("the connection ended in a line: %r" % self.buf[:200])
        line, self.buf = self.buf.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")

    def exactly(self, n):
        while len(self.buf) < n:
            if not self.fill():
                raise Failure("the connection ended %d bytes early" % (n - len(self.buf)))
        data, self.buf = self.buf[:n], self.buf[n:]
        return data

    def rest(self):
        while True:
            try:
                if not self.fill():
                    break
            except (ConnectionResetError, ssl.SSLError):
                break
        data, self.buf = self.buf, b""
        return data

    def answer(self, head=False):
        status = int(self.line().split()[1])
        fields = []
        while True:
            line = self.line()
            if not line:
                break
            name, value = line.split(":", 1)
            fields.append((name, value.strip()))
        if status < 200:
            return Answer(status, fields, b"")
        a = Answer(status, fields, b"")
        if head or status in (204, 304):
            return a
        if a.field("Transfer-Encoding") == "chunked":
            while True:
                n = int(self.line(), 16)
                a.body += self.exactly(n)
                self.line()
                if not n:
                    break
        elif a.field("Content-Length") is not None:
            a.body = self.exactly(int(a.field("Content-Length")))
        else:
            a.body = self.rest()
        return a

    def closed(self):
        """Has the server closed, with nothing more to say?"""
        return self.rest() == b""

    def close(self):
        self.s.close()


class Server:
    def __init__(self, functions, double=True, unix=False, manifests=False, env=None, **config):
        self.dir = tempfile.mkdtemp(dir=SCRATCH)
        self.path = self.dir + "/config.json"
        self.unix = self.dir + "/s" if unix else None
        self.config = {
            "listen": "unix:" + self.unix if unix else "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0", "token": ADMIN},
            "kvmsbox": DOUBLE,
            "log": {"level": "debug"},
            "tenants": {"acme": {"token": TOKEN}, "other": {"token": OTHER}},
            "functions": functions,
            "timeouts": {"drain": 5},
            "limits": {"memory": "4G", "memory_reserve": 0, "concurrency": 64},
        }
        if manifests:
            os.mkdir(self.dir + "/manifests")
            self.config["manifests"] = self.dir + "/manifests"
        for key, value in config.items():
            if isinstance(value, dict) and key in ("limits", "timeouts"):
                self.config[key].update(value)
            else:
                self.config[key] = value
        self.write()
        self.spawn(env)
        self.event("ready")
        self.port = self.ports[0] if self.ports else None

    def spawn(self, env=None):
        self.log, self.ports, self.admin_port, self.seen = [], [], None, threading.Condition()
        self.p = subprocess.Popen([SERVE, "--config", self.path], stderr=subprocess.PIPE,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  env=dict(os.environ, **(env or {})))
        started.append(self.p)
        threading.Thread(target=self.read_log, daemon=True).start()

    def write(self):
        with open(self.path + ".tmp", "w") as f:
            json.dump(self.config, f)
        os.rename(self.path + ".tmp", self.path)

    def manifest(self, name, value):
        path = "%s/manifests/%s.json" % (self.dir, name)
        if value is None:
            os.unlink(path)
            return
        with open(path + ".tmp", "w") as f:
            f.write(value if isinstance(value, str) else json.dumps(value))
        os.rename(path + ".tmp", path)

    def read_log(self):
        for line in self.p.stderr:
            try:
                e = json.loads(line)
            except ValueError:
                e = {"event": "raw", "message": line.decode("utf-8", "replace")}
            with self.seen:
                if e["event"] == "listening" and "port" in e:
                    if e["for"] == "admin":
                        self.admin_port = int(e["port"])
                    else:
                        self.ports.append(int(e["port"]))
                self.log.append(e)
                self.seen.notify_all()
        with self.seen:
            self.log.append({"event": "eof"})
            self.seen.notify_all()

    def event(self, name, timeout=TIMEOUT, **fields):
        """Waits for a line of the log."""
        end = time.monotonic() + timeout
        at = 0
        with self.seen:
            while True:
                for e in self.log[at:]:
                    if e["event"] == name and all(e.get(k) == v for k, v in fields.items()):
                        return e
                    if e["event"] == "eof":
                        raise Failure("the server ended before %s %r: %r" %
                                      (name, fields, self.log[-4:]))
                at = len(self.log)
                if not self.seen.wait(max(0, end - time.monotonic())) and time.monotonic() >= end:
                    raise Failure("no %s %r in the log: %r" % (name, fields, self.log[-4:]))

    def events(self, name):
        with self.seen:
            return [e for e in self.log if e["event"] == name]

    def ask(self, path, body=None, method=None, token=TOKEN, fields=(), timeout=TIMEOUT, port=None):
        c = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        try:
            h = dict(fields)
            if token:
                h.setdefault("Authorization", "Bearer " + token)
            c.request(method or ("POST" if body is not None else "GET"), path, body, h)
            r = c.getresponse()
            return Answer(r.status, r.getheaders(), r.read())
        finally:
            c.close()

    def admin(self, path, body=None, method=None, token=ADMIN):
        if isinstance(body, dict):
            body = json.dumps(body)
        return self.ask(path, body, method, token, port=self.admin_port)

    def get(self, path):
        return json.loads(self.admin(path).body)

    def function(self, name):
        return self.get("/admin/functions/" + name)

    def metric(self, line):
        for l in self.admin("/metrics").body.decode().splitlines():
            if l.startswith(line + " "):
                return float(l.split()[-1])
        raise Failure("no metric " + line)

    def wait(self, ready, what, timeout=TIMEOUT):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            v = ready()
            if v:
                return v
            time.sleep(0.02)
        raise Failure("never came: " + what)

    def children(self):
        """Processes of this server, and theirs."""
        found, all_ = [self.p.pid], {}
        for d in os.listdir("/proc"):
            if d.isdigit():
                try:
                    stat = open("/proc/%s/stat" % d).read()
                except OSError:
                    continue
                all_[int(d)] = int(stat.rsplit(")", 1)[1].split()[1])
        for p in found:
            found += [k for k, parent in all_.items() if parent == p and k not in found]
        return found[1:]

    def stop(self, sig=signal.SIGTERM, timeout=TIMEOUT):
        """Ends the server; returns its status. It has to leave no process."""
        children = self.children()
        if self.p.poll() is None:
            self.p.send_signal(sig)
        try:
            status = self.p.wait(timeout)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
            raise Failure("the server doesn't end")
        end = time.monotonic() + 5
        while children and time.monotonic() < end:
            children = [c for c in children if alive(c)]
            time.sleep(0.01)
        check(not children, "the server left processes: %r" % [describe(c) for c in children])
        return status

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            same(self.stop(), 0, "the server's status")
        else:
            for e in self.events("raw")[:30]:
                print("# " + e["message"].rstrip())
            self.p.kill()
            self.p.wait()


def describe(pid):
    """What a process is, for messages."""
    try:
        with open("/proc/%d/cmdline" % pid) as f, open("/proc/%d/stat" % pid) as st:
            return pid, f.read().split("\0"), st.read().rsplit(")", 1)[1].split()[:2]
    except OSError:
        return pid, "gone"


def alive(pid):
    try:
        return open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def together(*calls):
    """Runs calls at once; their results in order."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return [f.result() for f in [pool.submit(c) for c in calls]]


def head(path, method="GET", token=TOKEN, version="1.1", **fields):
    lines = ["%s %s HTTP/%s" % (method, path, version), "Host: test"]
    if token:
        lines.append("Authorization: Bearer " + token)
    lines += ["%s: %s" % (k.replace("_", "-"), v) for k, v in fields.items()]
    return "\r\n".join(lines) + "\r\n\r\n"


def run_one(f, limit):
    """In a thread, so that a test that hangs is only that."""
    global passed, failed, skipped
    name = f.__doc__ or f.__name__
    result = []

    def body():
        try:
            f()
            result.append(None)
        except Skip as e:
            result.append(e)
        except Exception as e:
            result.append(e if isinstance(e, Failure) else Failure(
                "%s: %s\n%s" % (type(e).__name__, e, traceback.format_exc()[-700:])))

    t = threading.Thread(target=body, daemon=True)
    begun = time.monotonic()
    t.start()
    t.join(limit)
    e = result[0] if result else Failure("no end within %d s" % limit)
    if e is None:
        passed += 1
        print("ok %s" % name)
    elif isinstance(e, Skip):
        skipped += 1
        print("skip %s: %s" % (name, e))
    else:
        failed += 1
        print("not ok %s" % name)
        for line in str(e).splitlines()[:16]:
            print("    " + line[:300])
    if os.environ.get("SERVE_TIMES"):
        print("# %.2f s" % (time.monotonic() - begun))
    sys.stdout.flush()


def run(pattern):
    for f in tests:
        if not pattern or re.search(pattern, f.__name__ + " " + (f.__doc__ or "")):
            run_one(f, getattr(f, "limit", 60))
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.stdout.flush()
    for p in started:
        if p.poll() is None:
            p.kill()
    os._exit(1 if failed or not passed + skipped else 0)
