# SPDX-License-Identifier: Apache-2.0
"""HTTP as clients see it: framing, limits, time-outs, malformed input, TLS, who may what."""
from harness import *

FUNCTIONS = {
    "cat": function(["cat"]),
    "secret": function(["cat"], tenant="other"),
    "app": function(APP, kind="http", isolation="none"),
    "small": function(["cat"], limits={"body": 1000}),
}
shared = []


def server():
    if not shared:
        shared.append(Server(FUNCTIONS, limits={"header": 4096, "uri": 512},
                             timeouts={"header": 0.5, "body": 0.5, "write": 1, "idle": 1}))
    return shared[0]


@test
def auth_missing():
    """auth: without a token there is nothing to see: 401 for what exists and what doesn't"""
    s = server()
    for path in ("/f/cat", "/f/nonesuch", "/f/secret", "/function/cat"):
        a = s.ask(path, token=None)
        same(a.status, 401, path)
        matches("Bearer", a.field("WWW-Authenticate"))


@test
def auth_wrong():
    """auth: wrong, cut, longer, empty and repeated tokens are refused"""
    s = server()
    for value in ("Bearer " + TOKEN[:-1], "Bearer " + TOKEN + "x", "Bearer ", "Bearer", TOKEN,
                  "Basic " + TOKEN, "Bearer " + "x" * 2000):
        same(s.ask("/f/cat", b"", token=None, fields={"Authorization": value}).status, 401, value[:40])
    r = Raw(s)
    r.send(head("/f/cat", Content_Length="0").replace("\r\n\r\n", "\r\nAuthorization: Bearer x\r\n\r\n"))
    same(r.answer().status, 401)


@test
def auth_other_tenant():
    """auth: another tenant's function looks like none"""
    s = server()
    there, none = s.ask("/f/secret", b"x"), s.ask("/f/nonesuch", b"x")
    same((there.status, there.body), (404, none.body))
    same(none.status, 404)
    same(s.ask("/f/secret", b"x", token=OTHER).body, b"x")


@test
def auth_disabled():
    """auth: a disabled tenant gets 403"""
    with Server({"cat": function(["cat"])},
                tenants={"acme": {"token": TOKEN, "disabled": True}}) as s:
        same(s.ask("/f/cat", b"x").status, 403)


@test
def auth_token_kinds():
    """auth: tokens from a file, as a hash, several of them"""
    import hashlib
    path = SCRATCH + "/token"
    with open(path, "w") as f:
        f.write("from-a-file-0123456789\n")
    tenant = {"token_file": path, "tokens": [TOKEN, "second-0123456789abc"],
              "token_sha256": [hashlib.sha256(b"hashed-0123456789").hexdigest()]}
    with Server({"cat": function(["cat"])}, tenants={"acme": tenant}) as s:
        for t in ("from-a-file-0123456789", TOKEN, "second-0123456789abc", "hashed-0123456789"):
            same(s.ask("/f/cat", b"x", token=t).status, 200, t)


@test
def routes():
    """routes: /f/NAME and /function/NAME, /healthz, anything else is 404"""
    s = server()
    same(s.ask("/function/cat", b"x").body, b"x")
    same(s.ask("/f/cat/with/path?and=query", b"x").body, b"x")
    same(s.ask("/healthz", token=None).body, b"ok\n")
    same(s.ask("/healthz", b"", token=None).status, 405)
    for path in ("/", "/f", "/f/", "/metrics", "/admin/functions", "/F/cat", "/f/../healthz"):
        same(s.ask(path).status, 404, path)
    r = Raw(s)
    r.send("POST http://elsewhere/f/cat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
           "Content-Length: 2\r\n\r\nhi" % TOKEN)
    same(r.answer().body, b"hi")


@test
def request_ids():
    """request ids: a harmless one is kept, any other replaced, all are different"""
    s = server()
    same(s.ask("/f/cat", b"", fields={"X-Request-Id": "abc-1.2_3"}).field("X-Request-Id"), "abc-1.2_3")
    ids = {s.ask("/f/cat", b"", fields={"X-Request-Id": v}).field("X-Request-Id")
           for v in ("a b", "x" * 65, '"', "")}
    same(len(ids), 4)
    check(all(re.fullmatch("[0-9a-f]{32}", i) for i in ids), str(ids))


@test
def keep_alive():
    """keep-alive: many requests on one connection, with and without bodies"""
    s = server()
    r = Raw(s)
    for i in range(20):
        data = "x" * (i * 37)
        r.send(head("/f/app/echo", "POST", Content_Length=len(data)) + data)
        a = r.answer()
        same((a.status, a.body), (200, data.encode()))
        r.send(head("/f/nonesuch"))
        same(r.answer().status, 404)
    r.send(head("/f/app/echo", "POST", Content_Length=0, Connection="close"))
    a = r.answer()
    same(a.field("Connection"), "close")
    check(r.closed(), "the connection stays open")


@test
def pipelined():
    """pipelining: answers come in order"""
    r = Raw(server())
    r.send("".join(head("/f/app/echo", "POST", Content_Length=2) + "%02d" % i for i in range(12)))
    same([r.answer().body for _ in range(12)], [b"%02d" % i for i in range(12)])


@test
def http10():
    """HTTP/1.0: closes, keeps alive if asked, is never sent chunks"""
    s = server()
    r = Raw(s)
    r.send(head("/f/app/echo", "POST", version="1.0", Content_Length=2) + "hi")
    a = r.answer()
    same((a.status, a.body), (200, b"hi"))
    check(r.closed(), "open after HTTP/1.0")
    r = Raw(s)
    for _ in range(2):
        r.send(head("/f/app/echo", "POST", version="1.0", Content_Length=2, Connection="keep-alive") + "hi")
        same(r.answer().body, b"hi")
    r.send(head("/f/app/chunked?3", version="1.0"))
    a = r.answer()
    same(a.field("Transfer-Encoding"), None)
    same(a.body, b"abcd0abcd1abcd2")


@test
def chunked_body():
    """chunked requests, byte by byte, with extensions and trailers"""
    r = Raw(server())
    text = head("/f/cat", "POST", Transfer_Encoding="chunked") + \
        "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
    for c in text:
        r.send(c)
    same(r.answer().body, b"hello world")


@test
def continue_100():
    """Expect: 100-continue is answered before the body, and not after a refusal"""
    s = server()
    r = Raw(s)
    r.send(head("/f/cat", "POST", Content_Length=5, Expect="100-continue"))
    same(r.answer().status, 100)
    r.send("hello")
    same(r.answer().body, b"hello")
    r.send(head("/f/cat", "POST", token="wrong", Content_Length=5, Expect="100-continue"))
    same(r.answer().status, 401)
    check(r.closed(), "open, with a body that may or may not come")
    r = Raw(s)
    r.send(head("/f/cat", "POST", Content_Length=5, Expect="the moon"))
    same(r.answer().status, 417)


@test
def too_large():
    """413: a body over the function's limit, announced or not"""
    s = server()
    a = s.ask("/f/small", b"x" * 1000)
    same(a.status, 200)
    a = s.ask("/f/small", b"x" * 1001)
    same((a.status, a.field("X-Kvmsbox-Error")), (413, "body-too-large"))
    r = Raw(s)
    r.send(head("/f/small", "POST", Transfer_Encoding="chunked") + "3e8\r\n" + "x" * 1000 + "\r\n")
    r.send("1\r\nx\r\n0\r\n\r\n")
    same(r.answer().status, 413)
    check(r.closed(), "open after 413")
    r = Raw(s)
    r.send(head("/f/small", "POST", Content_Length=10 ** 15))
    same(r.answer().status, 413)


@test
def too_long():
    """414 and 431: a long target, long and many headers"""
    s = server()
    r = Raw(s)
    r.send(head("/f/cat/" + "x" * 600))
    same(r.answer().status, 414)
    r = Raw(s)
    r.send(head("/f/cat", X_Long="y" * 5000))
    same(r.answer().status, 431)
    r = Raw(s)
    r.send("GET /f/cat HTTP/1.1\r\nHost: x\r\n" + "A: b\r\n" * 400 + "\r\n")
    same(r.answer().status, 431)


MALFORMED = [
    b"\r\n\r\n\r\nnonsense\r\n\r\n", b"GET\r\n\r\n", b"GET /f/cat\r\n\r\n", b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA : c\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x7f\r\n\r\n", b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() +
    b"\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"POST /f/cat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() +
    b"\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET http:///f/cat HTTP/1.1\r\nHost: x\r\n\r\n", b"GET //f/cat HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /f/%00 HTTP/1.1\r\nHost: x\r\n\r\n", b"A" * 100000,
]


@test
def malformed():
    """malformed requests: each an error and a closed connection, or a proper refusal"""
    s = server()
    for text in MALFORMED:
        r = Raw(s)
        try:
            r.send(text)
            r.s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        said = r.rest()
        check(said == b"" or re.match(rb"HTTP/1\.1 4\d\d |HTTP/1\.1 505 ", said),
              "%r got %r" % (text[:80], said[:120]))
        check(said.count(b"HTTP/1.1 2") == 0, "%r was taken: %r" % (text[:80], said[:80]))
        r.close()
    same(s.ask("/f/cat", b"fine").body, b"fine")


@test
def fuzzed():
    """2000 requests with random bytes changed, cut, doubled: the server goes on"""
    import random
    rnd = random.Random(7)
    s = server()
    seeds = MALFORMED + [(head("/f/cat", "POST", Content_Length=5) + "hello").encode(),
                         (head("/f/app/echo", "POST", Transfer_Encoding="chunked") +
                          "5\r\nhello\r\n0\r\n\r\n").encode(), head("/healthz").encode()]
    for i in range(2000):
        text = bytearray(rnd.choice(seeds)[:2000])
        for _ in range(rnd.randrange(1, 6)):
            at = rnd.randrange(len(text) + 1)
            what = rnd.randrange(4)
            if what == 0 and at < len(text):
                text[at] = rnd.randrange(256)
            elif what == 1:
                del text[at:at + rnd.randrange(20)]
            elif what == 2:
                text[at:at] = text[at:at + rnd.randrange(40)]
            else:
                text[at:at] = bytes(rnd.choice(b"\r\n :;,\0\x80") for _ in range(rnd.randrange(4)))
        r = Raw(s)
        try:
            r.send(bytes(text))
            r.s.shutdown(socket.SHUT_WR)
            if i % 8 == 0:
                r.rest()
        except OSError:
            pass
        r.close()
    same(s.ask("/f/cat", b"fine").body, b"fine")
    s.wait(lambda: s.get("/admin/status")["running"] == 0, "all requests end")


@test
def slow_head():
    """slow clients: a head that doesn't come is answered 408"""
    r = Raw(server())
    for c in "GET /f/ca":
        r.send(c)
        time.sleep(0.02)
    begun = time.monotonic()
    same(r.answer().status, 408)
    check(time.monotonic() - begun < 3, "late")
    check(r.closed(), "open after 408")


@test
def slow_drip():
    """slow clients: a head that drips isn't given more time for it"""
    r = Raw(server())
    begun = time.monotonic()
    try:
        for c in head("/f/cat") * 3:
            r.send(c)
            time.sleep(0.05)
            if time.monotonic() - begun > 5:
                break
    except OSError:
        pass
    check(time.monotonic() - begun < 4, "dripped for %.1f s" % (time.monotonic() - begun))


@test
def slow_body():
    """slow clients: a body that doesn't come is answered 408, and takes no instance"""
    s = server()
    r = Raw(s)
    r.send(head("/f/cat", "POST", Content_Length=100) + "some")
    time.sleep(0.1)
    same(s.function("cat")["running"], 0)
    same(r.answer().status, 408)
    check(r.closed(), "open after 408")


@test
def slow_reader():
    """slow clients: one that doesn't take its answer loses it, and the instance is free again"""
    s = server()
    r = Raw(s)
    r.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    r.send(head("/f/app/big?50000000"))
    time.sleep(0.2)
    s.wait(lambda: s.function("app")["running"] == 0, "the request ends", 8)
    check(s.function("app")["outcomes"].get("cancelled"), "not counted as cancelled")


@test
def idle_connection():
    """an idle connection is closed without a word"""
    r = Raw(server())
    begun = time.monotonic()
    check(r.closed(), "something was said")
    check(0.5 < time.monotonic() - begun < 5, "after %.1f s" % (time.monotonic() - begun))


@test
def max_connections():
    """connections: over the limit idle ones make room, else 503"""
    with Server({"app": function(APP, kind="http", isolation="none")}, limits={"connections": 3}) as s:
        idle = [Raw(s) for _ in range(3)]
        time.sleep(0.1)
        same(s.ask("/f/app/count").status, 200)
        for i in idle:
            i.close()
        busy = [Raw(s) for _ in range(3)]
        for b in busy:
            b.send(head("/f/app/sleep?1"))
        time.sleep(0.3)
        r = Raw(s)
        a = r.answer()
        same((a.status, a.field("Retry-After")), (503, "1"))
        for b in busy:
            same(b.answer().status, 200)


def certificate():
    d = tempfile.mkdtemp(dir=SCRATCH)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout",
                    d + "/key.pem", "-out", d + "/cert.pem"], check=True, capture_output=True)
    return d


@test
def tls():
    """TLS: requests large and small, keep-alive, plain text refused, old versions refused"""
    d = certificate()
    with Server({"app": function(APP, kind="http", isolation="none")}, timeouts={"header": 1},
                listen=[{"address": "127.0.0.1:0", "tls": {"cert": d + "/cert.pem", "key": d + "/key.pem"}}]) as s:
        ctx = ssl.create_default_context(cafile=d + "/cert.pem")
        ctx.set_alpn_protocols(["h2", "http/1.1"])
        r = Raw(s, s.port, ctx)
        same(r.s.selected_alpn_protocol(), "http/1.1")
        data = os.urandom(300000)
        for _ in range(3):
            r.send(head("/f/app/echo", "POST", Content_Length=len(data)).encode() + data)
            same(r.answer().body == data, True)
        r.send(head("/f/app/big?5000000"))
        same(len(r.answer().body), 5000000)
        r.send(head("/f/app/show"))
        matches("X-Forwarded-Proto: https", r.answer().body.decode())
        plain = Raw(s)
        plain.send(head("/f/app/count"))
        check(b"200" not in plain.rest(), "answered without TLS")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        import warnings
        warnings.simplefilter("ignore")
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        try:
            Raw(s, s.port, old)
            raise Failure("TLS 1.1 was accepted")
        except (ssl.SSLError, ConnectionResetError):
            pass
        silent = Raw(s)
        check(silent.closed(), "a handshake that doesn't begin")


@test
def tls_reload():
    """TLS: a new certificate is served after SIGHUP, and a bad one isn't taken"""
    d, new = certificate(), certificate()
    with Server({"cat": function(["cat"])}, listen={"address": "127.0.0.1:0", "tls": {
            "cert": d + "/cert.pem", "key": d + "/key.pem"}}) as s:
        def serial():
            return ssl.get_server_certificate(("127.0.0.1", s.port))
        before = serial()
        for f in ("cert.pem", "key.pem"):
            os.rename("%s/%s" % (new, f), "%s/%s" % (d, f))
        s.p.send_signal(signal.SIGHUP)
        s.event("reload")
        check(serial() != before, "still the old certificate")
        now = serial()
        open(d + "/cert.pem", "w").close()
        s.p.send_signal(signal.SIGHUP)
        s.wait(lambda: len(s.events("manifest")) > 0, "an error in the log")
        same(serial(), now)


@test
def unix_socket():
    """a Unix socket: serves, has its mode, goes with the server, replaces a dead one"""
    s = Server({"cat": function(["cat"])}, unix=True)
    same(os.stat(s.unix).st_mode & 0o777, 0o660)
    r = Raw(s)
    r.send(head("/f/cat", "POST", Content_Length=2) + "hi")
    same(r.answer().body, b"hi")
    path = s.unix
    same(s.stop(signal.SIGKILL), -9)
    check(os.path.exists(path), "no stale socket to test with")
    s.spawn()
    s.event("ready")
    r = Raw(s)
    r.send(head("/f/cat", "POST", Content_Length=2) + "hi")
    same(r.answer().body, b"hi")
    same(s.stop(), 0)
    check(not os.path.exists(path), "the socket is still there")


@test
def zz_shared_ends():
    """the server of these tests ends cleanly and leaves nothing"""
    same(server().stop(), 0)
    raw = server().events("raw")
    check(not raw, str(raw[:5]))
