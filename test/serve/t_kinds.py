# SPDX-License-Identifier: Apache-2.0
"""The three kinds of functions."""
from harness import *

FUNCTIONS = {
    "cat": function(["cat"], content_type="text/plain"),
    "fail": function(["sh", "-c", "echo partial; exit 3"]),
    "failsilent": function(["sh", "-c", "exit 4"]),
    "signal": function(["sh", "-c", "kill -TERM $$"]),
    "big": function(["sh", "-c", "head -c 3000000 /dev/zero"]),
    "bigfail": function(["sh", "-c", "head -c 3000000 /dev/zero; exit 5"]),
    "much": function(["sh", "-c", "head -c 300000 /dev/zero"], limits={"output": 100000}),
    "endless": function(["cat", "/dev/zero"], limits={"output": "2M"}),
    "noread": function(["true"]),
    "stderr": function(["sh", "-c", "echo one >&2; printf two >&2; echo ' lines' >&2; echo out"]),
    "noisy": function(["sh", "-c", "seq 3000 >&2"]),
    "empty": function(["true"]),
    "cgi": function(["sh", "-c", r"cat"], cgi=True),
    "app": function(APP, kind="http", limits={"output": "64M"}),
    "kept": function(APP, kind="http", isolation="none", instances={"max": 1}),
    "three": function(APP, kind="http", isolation="n:3", instances={"max": 1}),
    "many": function(APP, kind="http", isolation="none", instances={"max": 6}),
    "appsmall": function(APP, kind="http", isolation="none", limits={"output": 1000}),
    "raw": function(RUNTIME, kind="lambda"),
    "rawkept": function(RUNTIME, kind="lambda", isolation="none", instances={"max": 1}),
    "api": function(RUNTIME, kind="lambda", isolation="none", payload="apigw2"),
    "initerr": function(RUNTIME, kind="lambda", env={"RUNTIME": "init-error"}),
    "lambdasmall": function(RUNTIME, kind="lambda", isolation="none", limits={"output": 1000}),
}
shared = []


def server():
    if not shared:
        shared.append(Server(FUNCTIONS))
    return shared[0]


def error(a, status, code):
    same((a.status, a.field("X-Kvmsbox-Error")), (status, code))


@test
def stdio_echo():
    """stdio: bodies of all sizes come back"""
    s = server()
    for n in (0, 1, 65535, 65536, 65537, 131072, 500000, 5000000):
        data = os.urandom(n)
        a = s.ask("/f/cat", data)
        same((a.status, len(a.body), a.body == data), (200, n, True), n)
        same(a.field("Content-Type"), "text/plain")


@test
def stdio_chunked_big():
    """stdio: a long chunked body is passed on while it comes"""
    r = Raw(server())
    r.send(head("/f/cat", "POST", Transfer_Encoding="chunked"))
    data = os.urandom(40000)
    got = []
    t = threading.Thread(target=lambda: got.append(r.answer().body))
    t.start()
    for _ in range(50):
        r.send(b"%x\r\n" % len(data) + data + b"\r\n")
    r.send(b"0\r\n\r\n")
    t.join(TIMEOUT)
    same(got and got[0] == data * 50, True)


@test
def stdio_status():
    """stdio: exit statuses"""
    s = server()
    a = s.ask("/f/fail", b"")
    error(a, 502, "exit-status")
    same((a.field("X-Kvmsbox-Exit-Status"), a.body), ("3", b"partial\n"))
    a = s.ask("/f/failsilent", b"")
    same((a.status, a.field("X-Kvmsbox-Exit-Status")), (502, "4"))
    same(json.loads(a.body)["status"], 4)
    same(s.ask("/f/signal", b"").field("X-Kvmsbox-Exit-Status"), "143")
    a = s.ask("/f/cat", b"")
    same((a.status, a.field("X-Kvmsbox-Exit-Status"), a.body), (200, "0", b""))


@test
def stdio_streams():
    """stdio: long output is streamed; a late failure breaks the connection"""
    s = server()
    a = s.ask("/f/big", b"")
    same((a.status, len(a.body), a.field("Transfer-Encoding")), (200, 3000000, "chunked"))
    try:
        a = s.ask("/f/bigfail", b"")
        raise Failure("a failed function's answer looks whole: %r" % a)
    except (http.client.IncompleteRead, ConnectionResetError):
        pass


@test
def stdio_head():
    """stdio: HEAD has a head and nothing else"""
    r = Raw(server())
    r.send(head("/f/cat", "HEAD"))
    same(r.answer(head=True).status, 200)
    r.send(head("/f/cat", "POST", Content_Length=2) + "ok")
    same(r.answer().body, b"ok")


@test
def stdio_too_much():
    """stdio: too much output, before and behind the point of streaming"""
    s = server()
    error(s.ask("/f/much", b""), 502, "too-much-output")
    try:
        s.ask("/f/endless", b"")
        raise Failure("endless output ended")
    except (http.client.IncompleteRead, ConnectionResetError):
        pass
    s.wait(lambda: s.function("endless")["outcomes"].get("too_much_output"), "the outcome")


@test
def stdio_unread_body():
    """stdio: a program that doesn't read its input"""
    s = server()
    same(s.ask("/f/noread", b"x" * 3000000).status, 200)
    same(s.ask("/f/cat", b"x").body, b"x")


@test
def stdio_stderr():
    """stdio: lines of stderr are logged with their request"""
    s = server()
    a = s.ask("/f/stderr", b"", fields={"X-Request-Id": "the-stderr-one"})
    same(a.body, b"out\n")
    for line in ("one", "two lines"):
        e = s.event("stderr", line=line)
        same((e["function"], e["tenant"], e["request_id"]), ("stderr", "acme", "the-stderr-one"))


@test
def stdio_noisy():
    """stdio: a flood of stderr is cut, and said to be"""
    s = server()
    same(s.ask("/f/noisy", b"").status, 200)
    s.wait(lambda: any("lines dropped" in e.get("message", "") for e in s.events("stderr")), "the drop")
    n = sum(e.get("function") == "noisy" for e in s.events("stderr"))
    check(900 < n < 2500, "%d lines" % n)


@test
def cgi():
    """cgi: status and fields; frames are ours; no block is an error"""
    s = server()
    a = s.ask("/f/cgi", b"Status: 418 Teapot\r\nContent-Type: text/x\r\nX-A: b\r\nContent-Length: 999\r\n\r\nbody")
    same((a.status, a.body, a.field("Content-Type"), a.field("X-A")), (418, b"body", "text/x", "b"))
    same(a.field("Content-Length"), "4")
    same(s.ask("/f/cgi", b"Content-Type: a/b\n\nunix").body, b"unix")
    for text in (b"", b"no block", b"Bad Name: x\n\nbody", b"Status: 99\n\n", b"Status: x\n\n", b"A: b\x01\n\n"):
        error(s.ask("/f/cgi", text), 502, "bad-response")


@test
def http_methods():
    """http: methods, path, query and fields arrive; connections' own don't"""
    s = server()
    for m in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        a = s.ask("/f/kept/show?a=1&b=%20", None, m, fields={
            "X-Mine": "yes", "Connection": "X-Hop", "X-Hop": "no", "TE": "trailers", "Upgrade": "h2c",
            "X-Forwarded-For": "6.6.6.6", "Proxy-Authorization": "x"})
        text = a.body.decode()
        same(text.splitlines()[0], m + " /show?a=1&b=%20")
        matches("X-Mine: yes", text)
        for no in ("X-Hop", "TE:", "Upgrade", "Authorization", TOKEN, "6.6.6.6"):
            check(no not in text, "%s arrived: %s" % (no, text))
        matches(r"X-Forwarded-For: 127\.0\.0\.1", text)
        matches("X-Request-Id: [0-9a-f]{32}", text)
    matches("^GET / ", s.ask("/f/kept").body.decode() and "GET / ")
    a = s.ask("/f/kept/nowhere")
    same((a.status, a.body, a.field("X-Private")), (404, b"the function's own 404", None))


@test
def http_statuses():
    """http: statuses and responses without bodies"""
    s = server()
    for status in (200, 201, 301, 400, 404, 418, 500, 503):
        a = s.ask("/f/kept/status?%d" % status)
        same((a.status, a.field("X-App")), (status, "yes"))
    r = Raw(s)
    for path, status in (("nocontent", 204), ("notmodified", 304)):
        r.send(head("/f/kept/" + path))
        a = r.answer()
        same((a.status, a.field("Content-Length"), a.field("Transfer-Encoding")), (status, None, None))
    r.send(head("/f/kept/echo", "HEAD"))
    same(r.answer(head=True).field("Content-Length"), "0")
    r.send(head("/f/kept/status?200", "HEAD"))
    same(r.answer(head=True).field("Content-Length"), "7")
    r.send(head("/f/kept/early"))
    same(r.answer().body, b"later")


@test
def http_bodies():
    """http: bodies both ways, chunked and not, small and large"""
    s = server()
    for n in (0, 1, 65536, 262144, 300000, 3000000):
        data = os.urandom(n)
        same(s.ask("/f/kept/echo", data).body == data, True, n)
    r = Raw(s)
    data = os.urandom(50000)
    got = []
    t = threading.Thread(target=lambda: got.append(r.answer().body))
    t.start()
    r.send(head("/f/kept/echo", "POST", Transfer_Encoding="chunked"))
    for _ in range(40):
        r.send(b"%x\r\n" % len(data) + data + b"\r\n")
    r.send(b"0\r\n\r\n")
    t.join(TIMEOUT)
    same(got and got[0] == data * 40, True)
    same(s.ask("/f/kept/chunked?1000").body, b"".join(b"abcd%d" % (i % 10) for i in range(1000)))
    same(s.ask("/f/kept/untilclose").body, b"until the end")
    same(len(s.ask("/f/kept/big?30000000").body), 30000000)


@test
def http_slow_big():
    """http: a reader slower than the function is waited for, within a window"""
    s = server()
    r = Raw(s)
    r.send(head("/f/kept/big?32000000"))
    got = []
    while sum(map(len, got)) < 32000000:
        got.append(r.s.recv(1 << 20))
        check(got[-1], "the end came early")
        time.sleep(0.004)
    check(b"".join(got).endswith(bytes(range(256)) * 125000), "the bytes differ")


@test
def http_failures():
    """http: answers that are none"""
    s = server()
    for path in ("garbage", "nothing", "inject", "switch", "reset"):
        error(s.ask("/f/kept/" + path), 502, "bad-response")
    try:
        s.ask("/f/kept/short")
        raise Failure("a short answer passed for a whole one")
    except (http.client.IncompleteRead, ConnectionResetError):
        pass
    same(s.ask("/f/kept/two").body, b"ok")
    same(s.ask("/f/kept/noread", b"x" * 2000000).body, b"didn't look")
    same(s.ask("/f/kept/echo", b"x").body, b"x")
    a = s.ask("/f/kept/exit?7")
    check(a.status == 502 and a.field("X-Kvmsbox-Error") in ("crashed", "bad-response"), repr(a))
    same(s.ask("/f/kept/echo", b"x").body, b"x")
    error(s.ask("/f/appsmall/status?200", None), 200, None)
    try:
        a = s.ask("/f/appsmall/big?5000")
        raise Failure("limits.output isn't kept: %r" % a)
    except (http.client.IncompleteRead, ConnectionResetError):
        pass


@test
def http_isolation():
    """isolation: request, n:3 and none"""
    s = server()
    same([s.ask("/f/app/count").body for _ in range(3)], [b"1"] * 3)
    same([s.ask("/f/three/count").body for _ in range(7)], [b"1", b"2", b"3", b"1", b"2", b"3", b"1"])
    n = [int(s.ask("/f/kept/count").body) for _ in range(3)]
    same(n, list(range(n[0], n[0] + 3)))


@test
def http_parallel():
    """http: fifty at once, each with its own body"""
    s = server()
    bodies = [os.urandom(2000 + 997 * i) for i in range(50)]
    for got, want in zip(together(*[lambda b=b: s.ask("/f/many/echo", b, timeout=50) for b in bodies]), bodies):
        same((got.status, got.body == want), (200, True))


@test
def http_stderr():
    """http: stderr is logged"""
    s = server()
    s.ask("/f/kept/say?hello-from-app")
    s.event("stderr", line="hello-from-app", function="kept")


def invoke(s, name, event):
    return s.ask("/f/" + name, json.dumps(event).encode())


@test
def lambda_raw():
    """lambda: events in, results out, isolated from one another"""
    s = server()
    for event in ({"a": [1, "ü"]}, [1, 2], "text", 7, None, {}):
        a = invoke(s, "raw", event)
        same((a.status, json.loads(a.body)), (200, event))
        same(a.field("Content-Type"), "application/json")
    same(json.loads(s.ask("/f/raw").body), None)
    same([invoke(s, "raw", {"do": "count"}).body for _ in range(3)], [b"1"] * 3)
    n = [int(invoke(s, "rawkept", {"do": "count"}).body) for _ in range(4)]
    same(n, [1, 2, 3, 4])


@test
def lambda_fields():
    """lambda: an invocation's fields"""
    s = server()
    a = s.ask("/f/rawkept", b'{"do": "fields"}', fields={"X-Request-Id": "my-id", "X-Amzn-Trace-Id": "Root=1-2-3"})
    f = json.loads(a.body)
    same(f["Lambda-Runtime-Aws-Request-Id"], "my-id")
    same(f["Lambda-Runtime-Trace-Id"], "Root=1-2-3")
    matches("^arn:aws:lambda:.*:function:rawkept$", f["Lambda-Runtime-Invoked-Function-Arn"])
    left = int(f["Lambda-Runtime-Deadline-Ms"]) / 1000 - time.time()
    check(25 < left < 31, "deadline in %.1f s" % left)
    matches("^Root=1-[0-9a-f]{8}-[0-9a-f]{24}", json.loads(invoke(s, "rawkept", {"do": "fields"}).body)
            ["Lambda-Runtime-Trace-Id"])


@test
def lambda_errors():
    """lambda: errors of the function, of its start, of its manners"""
    s = server()
    for name in ("raw", "rawkept"):
        a = invoke(s, name, {"do": "fail"})
        error(a, 502, "function-error")
        same(json.loads(a.body)["errorMessage"], "told to fail")
        same(a.field("X-Amz-Function-Error"), "Unhandled")
        error(invoke(s, name, {"do": "exit"}), 502, "crashed")
        same(invoke(s, name, [1]).body, b"[1]")
    a = invoke(s, "initerr", {})
    same(a.status, 502)
    matches("no configuration", a.body.decode())
    same(invoke(s, "rawkept", {"do": "badid"}).body, b"400")
    same(invoke(s, "rawkept", {"do": "badpath"}).body, b"404")


@test
def lambda_big():
    """lambda: large events and results, and results that are too large"""
    s = server()
    event = {"text": "y" * 4000000}
    same(json.loads(invoke(s, "rawkept", event).body), event)
    same(len(invoke(s, "rawkept", {"do": "big", "size": 3000000}).body), 3000002)
    error(invoke(s, "lambdasmall", {"do": "big", "size": 100000}), 502, "too-much-output")
    same(invoke(s, "lambdasmall", [5]).body, b"[5]")


@test
def lambda_api():
    """lambda: API Gateway's payload format"""
    s = server()
    a = s.ask("/f/api/some/path?a=1&a=2&b=%C3%BC+x", b"hello", fields={"Cookie": "c=1; d=2", "X-Up": "Yes"})
    e = json.loads(a.body)
    same((e["version"], e["rawPath"], e["rawQueryString"], e["body"], e["isBase64Encoded"]),
         ("2.0", "/some/path", "a=1&a=2&b=%C3%BC+x", "hello", False))
    same(e["queryStringParameters"], {"a": "1,2", "b": "ü x"})
    same(e["cookies"], ["c=1", "d=2"])
    same((e["headers"]["x-up"], "authorization" in e["headers"]), ("Yes", False))
    same(e["requestContext"]["http"]["method"], "POST")
    e = json.loads(s.ask("/f/api/x", b"\xff\x00\x01").body)
    same((e["isBase64Encoded"], e["body"]), (True, "/wAB"))
    check("body" not in json.loads(s.ask("/f/api/x").body), "a body where there was none")
    a = s.ask("/f/api/binary")
    same((a.status, a.body, a.field("Content-Type")), (201, b"\0\1\2\xff", "application/x-binary"))
    same([v for n, v in a.fields if n == "Set-Cookie"], ["a=1", "b=2"])
    same(a.field("X-Evil"), None)
    error(s.ask("/f/api/badstatus"), 502, "bad-response")


@test
def lambda_parallel():
    """lambda: thirty at once"""
    s = server()
    for i, a in enumerate(together(*[lambda i=i: invoke(s, "raw", [i]) for i in range(30)])):
        same(json.loads(a.body), [i])


@test
def kinds_end():
    """the server of these tests ends cleanly and leaves nothing"""
    same(server().stop(), 0)
    raw = server().events("raw")
    check(not raw, str(raw[:5]))
    killed = [e for e in server().events("instance_killed")]
    check(not killed, str(killed[:3]))
