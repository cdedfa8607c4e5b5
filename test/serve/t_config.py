# SPDX-License-Identifier: Apache-2.0
"""What the server says about configurations, without serving."""
from harness import *

GOOD = {"listen": "127.0.0.1:0", "tenants": {"acme": {"token": TOKEN}},
        "functions": {"f": function(["cat"])}}


def changed(path, value):
    c = json.loads(json.dumps(GOOD))
    at = c
    for key in path[:-1]:
        at = at.setdefault(key, {})
    at[path[-1]] = value
    if value is None:
        del at[path[-1]]
    return json.dumps(c)


def run_check(text, *args):
    path = tempfile.mkdtemp(dir=SCRATCH) + "/c.json"
    with open(path, "w") as f:
        f.write(text)
    p = subprocess.run([SERVE, "--check", "--config", path, *args], capture_output=True, text=True,
                       timeout=TIMEOUT)
    return p.returncode, p.stdout + p.stderr


def bad(name, text, regex):
    def f():
        status, said = run_check(text)
        same(status, 125, said)
        matches(regex, said)
        check(all(l.startswith("kvmsbox: serve: ") for l in said.splitlines()), said)
    f.__name__ = f.__doc__ = "config: " + name
    test(f)


@test
def config_good():
    """config: a good one passes --check"""
    status, said = run_check(json.dumps(GOOD))
    same(status, 0, said)
    matches("1 tenants, 1 functions", said)


@test
def config_example():
    """config: the example in tools/ passes --check"""
    path = HERE + "/../../tools/kvmsbox-serve/example.json"
    text = open(path).read().replace("/etc/kvmsbox/functions.d", SCRATCH)
    for name in ("acme", "globex", "admin"):
        token = "%s/%s.token" % (SCRATCH, name)
        with open(token, "w") as f:
            f.write(name + "-token-0123456789abcdef\n")
        text = text.replace("/etc/kvmsbox/%s.token" % name, token)
    status, said = run_check(text)
    same(status, 0, said)


@test
def config_command_line():
    """config: bad command lines are one line each"""
    for args, regex in (([], "no configuration"), (["--nonsense"], "unknown option"),
                        (["--config"], "no value"), (["-c", "/nonexistent"], "No such file"),
                        (["-c", "/dev/null"], "regular file"), (["-c", "/tmp", "x"], "unexpected")):
        p = subprocess.run([SERVE] + args, capture_output=True, text=True, timeout=TIMEOUT)
        same(p.returncode, 125, str(args) + p.stderr)
        same(len(p.stderr.splitlines()), 1, p.stderr)
        matches(regex, p.stderr)


@test
def config_manifest_checked():
    """config: --check looks at manifests, too"""
    d = tempfile.mkdtemp(dir=SCRATCH)
    with open(d + "/broken.json", "w") as f:
        f.write('{"tenant": "acme", "image": "x", "kind": "stdio", "colour": 1}')
    status, said = run_check(changed(["manifests"], d))
    same(status, 125)
    matches(r"broken\.json: /colour: no such key", said)


@test
def config_all_errors():
    """config: several mistakes are several lines"""
    c = json.loads(json.dumps(GOOD))
    c["functions"]["f"]["kind"] = "x"
    c["functions"]["f"]["port"] = 99999
    c["limits"] = {"connections": 0}
    status, said = run_check(json.dumps(c))
    same(len(said.splitlines()), 3, said)


@test
def config_address_in_use():
    """config: an address in use is said"""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen()
    path = SCRATCH + "/inuse.json"
    with open(path, "w") as f:
        f.write(changed(["listen"], "127.0.0.1:%d" % s.getsockname()[1]))
    p = subprocess.run([SERVE, "-c", path], capture_output=True, text=True, timeout=TIMEOUT,
                       env=dict(os.environ, KVMSBOX_SELF=DOUBLE))
    same(p.returncode, 125)
    matches("listen 127.0.0.1.*Address already in use", p.stderr)
    s.close()


FN = ["functions", "f"]
bad("not JSON", '{"listen": ', r":1:\d+: not JSON")
bad("a key twice", '{"listen": "127.0.0.1:0", "listen": "127.0.0.1:1"}', "duplicate")
bad("not an object", "[]", r": /: want an object, not an array")
bad("no listen", changed(["listen"], None), '"listen" is missing')
bad("no tenants", changed(["tenants"], None), '"tenants" is missing')
bad("unknown key", changed(["lisen"], 1), r"/lisen: no such key: want one of listen, admin")
bad("unknown key of a function", changed(FN + ["memory"], "1G"), r"/functions/f/memory: no such key")
bad("unknown key of limits", changed(FN + ["limits"], {"mem": 1}), r"/functions/f/limits/mem: no such")
bad("address without port", changed(["listen"], "localhost"), "want HOST:PORT")
bad("address with a bad port", changed(["listen"], "127.0.0.1:99999"), "want HOST:PORT")
bad("relative socket", changed(["listen"], "unix:s"), "want HOST:PORT")
bad("no address", changed(["listen"], []), "/listen: want one address or more")
bad("tls without key", changed(["listen"], {"address": "127.0.0.1:0", "tls": {"cert": "/x"}}),
    '/listen/tls: "key" is missing')
bad("tenant without token", changed(["tenants", "acme"], {}), "/tenants/acme: no token")
bad("short token", changed(["tenants", "acme", "token"], "short"), "/tenants/acme/token: want 16 or more")
bad("token with a space", changed(["tenants", "acme", "token"], "a b" * 10), "token: want 16 or more")
bad("bad hash", changed(["tenants", "acme", "token_sha256"], "abc"), "want 64 digits")
bad("missing token file", changed(["tenants", "acme", "token_file"], "/nonexistent"), "No such file")
bad("the same token twice", changed(["tenants", "b"], {"token": TOKEN}), "have the same token")
bad("tenant's bad name", changed(["tenants", "A b"], {"token": OTHER}), "/tenants/A b: want a name")
bad("weight 0", changed(["tenants", "acme", "weight"], 0), "whole number from 1 to 1000")
bad("admin without token", changed(["admin"], {"listen": "127.0.0.1:0"}), "/admin: no token")
bad("log level", changed(["log"], {"level": "loud"}), "/log/level: want error, warn")
bad("manifests missing", changed(["manifests"], "/nonexistent"), "/manifests: .*No such file")
bad("kvmsbox missing", changed(["kvmsbox"], "/nonexistent"), "/kvmsbox: .*No such file")
bad("function of no tenant", changed(FN + ["tenant"], "nobody"), 'no tenant "nobody"')
bad("function without kind", changed(FN + ["kind"], None), '/functions/f: "kind" is missing')
bad("unknown kind", changed(FN + ["kind"], "grpc"), '/functions/f/kind: want "stdio"')
bad("function without image", changed(FN + ["image"], None), '"image" is missing')
bad("an option as image", changed(FN + ["image"], "--privileged"), "/image: want a path")
bad("command no array", changed(FN + ["command"], "cat"), "/command: want an array")
bad("command with a number", changed(FN + ["command"], ["cat", 1]), "element 1: want a string")
bad("isolation of stdio", changed(FN + ["isolation"], "none"), "/isolation: a stdio function's program ends")
bad("isolation's spelling", changed(FN + ["isolation"], "n:0"), 'want "request", "n:NUMBER"')
bad("port of stdio", changed(FN + ["port"], 80), "/port: only functions of kind http")
bad("payload of stdio", changed(FN + ["payload"], "raw"), "/payload: only functions of kind lambda")
bad("platform", changed(FN + ["platform"], "xen"), "/platform: want auto, kvm")
bad("relative cwd", changed(FN + ["cwd"], "tmp"), "/cwd: want an absolute path")
bad("memory as a word", changed(FN + ["limits"], {"memory": "lots"}), '/limits/memory: want bytes, or a size')
bad("time 0", changed(FN + ["limits"], {"time": 0}), "/limits/time: want a time from 0.01")
bad("time as a word", changed(FN + ["limits"], {"time": "soon"}), "want seconds, or a time like")
bad("min over max", changed(FN + ["instances"], {"min": 5, "max": 2}), "/instances/min: 5 is more than max")
bad("env no object", changed(FN + ["env"], ["A=1"]), "/env: want an object")
bad("env's name", changed(FN + ["env"], {"A=B": "1"}), "want a name without =")
bad("function's bad name", changed(["functions", "Ä"], function(["cat"])), "want up to 64 of a-z")
bad("content type", changed(FN + ["content_type"], "a\nb"), "/content_type: want printable")
bad("name twice", changed(FN + ["name"], "g"), '/name: "g", but')
