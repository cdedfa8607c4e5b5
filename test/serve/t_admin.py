# SPDX-License-Identifier: Apache-2.0
"""The admin listener: API, metrics, status page; the log."""
import shutil

from harness import *

shared = []


def server():
    if not shared:
        shared.append(Server({"cat": function(["cat"]), "fail": function(["false"]),
                              "quiet": function(["cat"], tenant="other")}))
        for _ in range(5):
            shared[0].ask("/f/cat", b"x")
        shared[0].ask("/f/fail", b"")
    return shared[0]


@test
def admin_auth():
    """admin: no token 401, a wrong or a tenant's one 403; the page itself is open"""
    s = server()
    for path in ("/metrics", "/admin/functions", "/admin/status", "/admin/instances", "/nowhere"):
        same(s.admin(path, token=None).status, 401, path)
        same(s.admin(path, token=TOKEN).status, 403, path)
    same(s.admin("/", token=None).status, 200)
    same(s.admin("/healthz", token=None).status, 200)
    same(s.ask("/f/cat", b"", port=s.admin_port).status, 403)
    same(s.ask("/f/cat", b"", token=ADMIN).status, 401)


@test
def admin_lists():
    """admin: functions, instances, tenants, status"""
    s = server()
    same([f["name"] for f in s.get("/admin/functions")], ["cat", "fail", "quiet"])
    f = s.function("cat")
    same((f["requests"], f["outcomes"], f["tenant"], f["kind"]), (5, {"ok": 5}, "acme", "stdio"))
    check(0 < f["p50_ms"] <= f["p90_ms"] <= f["p99_ms"] < 10000, repr(f))
    i = s.get("/admin/instances")
    check(all(os.path.exists("/proc/%d" % x["pid"]) for x in i), "a pid that isn't")
    same({t["name"]: t["requests"] for t in s.get("/admin/tenants")}, {"acme": 6, "other": 0})
    st = s.get("/admin/status")
    check(st["memory_total"] > st["memory_available"] > 0 and st["budget"] > 0, repr(st))
    same(s.admin("/admin/functions/nonesuch").status, 404)
    same(s.admin("/admin/status", b"", "POST").status, 405)


@test
def admin_functions():
    """admin: load, replace, drain, resume and remove a function"""
    s = server()
    f = dict(function(["echo", "hello"]), name="posted")
    same(s.admin("/admin/functions", f).status, 201)
    same(s.ask("/f/posted", b"").body, b"hello\n")
    f["command"] = ["echo", "again"]
    same(s.admin("/admin/functions", f).status, 200)
    same(s.ask("/f/posted", b"").body, b"again\n")
    a = s.admin("/admin/functions", dict(f, kind="x", colour=1))
    same(a.status, 400)
    matches("/colour: no such key", json.loads(a.body)["message"])
    same(s.admin("/admin/functions", "{").status, 400)
    same(s.admin("/admin/functions", dict(function(["x"]))).status, 400)
    same(s.admin("/admin/functions/posted/drain", b"", "POST").status, 202)
    a = s.ask("/f/posted", b"")
    same((a.status, a.field("X-Kvmsbox-Error")), (503, "draining"))
    s.wait(lambda: not [i for i in s.get("/admin/instances") if i["function"] == "posted"], "its instances end")
    same(s.admin("/admin/functions/posted/resume", b"", "POST").status, 200)
    same(s.ask("/f/posted", b"").body, b"again\n")
    same(s.admin("/admin/functions/posted", None, "DELETE").status, 204)
    same(s.ask("/f/posted", b"").status, 404)
    same(s.admin("/admin/functions/posted", None, "DELETE").status, 404)
    same(s.admin("/admin/functions", "x" * (2 << 20)).status, 413)
    same(s.admin("/admin/reload", b"", "POST").status, 200)


@test
def admin_drain_running():
    """admin: what runs when a function is drained or removed is answered"""
    with Server({"f": function(["sh", "-c", "sleep 0.5; echo done"])}) as s:
        for method, path in (("POST", "/drain"), ("DELETE", "")):
            s.admin("/admin/functions/f/resume", b"", "POST")
            got = []
            t = threading.Thread(target=lambda: got.append(s.ask("/f/f", b"")))
            t.start()
            s.wait(lambda: s.function("f")["running"] == 1, "it runs")
            check(s.admin("/admin/functions/f" + path, b"", method).status in (202, 204), path)
            t.join()
            same((got[0].status, got[0].body), (200, b"done\n"))


@test
def metrics_format():
    """metrics: Prometheus' format, every sample of a declared metric, histograms that add up"""
    s = server()
    a = s.admin("/metrics")
    matches("text/plain; version=0.0.4", a.field("Content-Type"))
    types, samples = {}, {}
    for line in a.body.decode().splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            check(name not in types, "declared twice: " + name)
            types[name] = kind
        elif not line.startswith("# HELP "):
            m = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? ([0-9.e+-]+)', line)
            check(m, "no sample: " + line)
            base = re.sub("_(bucket|sum|count)$", "", m.group(1))
            check(m.group(1) in types or types.get(base) == "histogram", "undeclared: " + line)
            check(m.group(1) + (m.group(2) or "") not in samples, "twice: " + line)
            samples[m.group(1) + (m.group(2) or "")] = float(m.group(3))
    same(samples['kvmsbox_requests_total{tenant="acme",function="cat",outcome="ok"}'], 5)
    same(samples['kvmsbox_requests_total{tenant="acme",function="fail",outcome="function_error"}'], 1)
    same(samples['kvmsbox_request_seconds_bucket{function="cat",le="+Inf"}'], 5)
    same(samples['kvmsbox_request_seconds_count{function="cat"}'], 5)
    check(samples['kvmsbox_request_seconds_sum{function="cat"}'] > 0, "no sum")
    buckets = [v for k, v in samples.items() if k.startswith('kvmsbox_request_seconds_bucket{function="cat"')]
    same(buckets, sorted(buckets))
    check(samples['kvmsbox_starts_cold_total{function="cat"}'] == 1, "cold starts")
    check(samples['kvmsbox_resets_total{function="cat"}'] >= 4, "resets")


@test
def log_lines():
    """log: a request's line has everything; nothing but JSON; no token ever"""
    s = server()
    s.ask("/f/cat?secret=1", b"abc", fields={"X-Request-Id": "log-test"})
    e = s.event("request", request_id="log-test")
    same((e["tenant"], e["function"], e["method"], e["path"], e["status"], e["outcome"], e["bytes_in"],
          e["bytes_out"], e["peer"]), ("acme", "cat", "POST", "/", 200, "ok", 3, 3, "127.0.0.1"))
    check(e["ms"] >= e["queue_ms"] >= 0, repr(e))
    text = json.dumps(s.log)
    for t in (TOKEN, OTHER, ADMIN):
        check(t not in text, "a token in the log")
    check(not s.events("raw"), "a line that is no JSON: %r" % s.events("raw")[:2])


@test
def log_file():
    """log: to a file, which is opened anew at SIGHUP"""
    d = tempfile.mkdtemp(dir=SCRATCH)
    path = d + "/log"
    c = {"listen": "unix:" + d + "/s", "tenants": {"acme": {"token": TOKEN}}, "kvmsbox": DOUBLE,
         "log": {"file": path}}
    with open(d + "/c.json", "w") as f:
        json.dump(c, f)
    p = subprocess.Popen([SERVE, "-c", d + "/c.json"])
    started.append(p)
    try:
        end = time.monotonic() + 5
        while not (os.path.exists(path) and '"ready"' in open(path).read()) and time.monotonic() < end:
            time.sleep(0.02)
        os.rename(path, path + ".1")
        p.send_signal(signal.SIGHUP)
        while not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.02)
        p.terminate()
        same(p.wait(5), 0)
        matches('"stopped"', open(path).read())
    finally:
        p.kill()


def browser():
    for b in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(b):
            return b
    raise Skip("no chromium")


@test
def status_page():
    """status page: figures arrive in a browser, and nothing is fetched from elsewhere"""
    b = browser()
    s = server()
    p = subprocess.run([b, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=" + SCRATCH + "/chrome",
                        "--virtual-time-budget=4000", "--dump-dom",
                        "http://127.0.0.1:%d/#token=%s" % (s.admin_port, ADMIN)],
                       capture_output=True, text=True, timeout=50)
    dom = p.stdout
    for regex in ('data-function="cat"', 'data-tenant="other"', 'id="state"[^>]*>live<'):
        matches(regex, dom)
    row = re.search(r'data-function="cat".*?</(?:tr|section|article)>', dom, re.S).group(0)
    matches(r'data-key="requests"[^>]*>\s*[1-9]', row)
    matches(r'data-key="p99"[^>]*>\s*[\d.]+', row)
    check("http://" not in s.admin("/", token=None).body.decode().replace("http://www.w3.org", ""), "a URL in the page")


status_page.limit = 90


@test
def admin_ends():
    """the server of these tests ends cleanly and leaves nothing"""
    same(server().stop(), 0)
