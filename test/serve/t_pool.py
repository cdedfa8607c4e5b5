# SPDX-License-Identifier: Apache-2.0
"""Queues, fairness, deadlines, instances that misbehave, reload, drain, shutdown."""
import random

from harness import *

SLEEP = ["sh", "-c", "sleep $(cat)"]


def error(a, status, code):
    same((a.status, a.field("X-Kvmsbox-Error")), (status, code))


@test
def starts_and_snapshot():
    """pool: one cold start, further ones from the snapshot; the pool grows with the queue"""
    with Server({"f": function(SLEEP, env={"DOUBLE_START_MS": "300"})}) as s:
        answers = together(*[lambda: s.ask("/f/f", b"0.5") for _ in range(6)])
        same([a.status for a in answers], [200] * 6)
        f = s.function("f")
        same(f["starts_cold"], 1)
        check(3 <= f["starts_warm"] <= 6, "%d restored" % f["starts_warm"])
        same(f["snapshot"], True)
        starts = [e["start"] for e in s.events("request")]
        same(starts.count("cold"), 1)


@test
def learns():
    """pool: who has learned is asked for a better snapshot; copies of the first one are replaced"""
    f = function(SLEEP, env={"DOUBLE": "learns"}, instances={"min": 3, "max": 3})
    with Server({"f": f}) as s:
        def pids():
            return {i["pid"]: i["state"] for i in s.get("/admin/instances")}

        def all_ready():
            return list(pids().values()) == ["ready"] * 3

        s.wait(all_ready, "three of them")
        before = set(pids())
        # Copies are doubles, too, and say that they have learned: nobody asks them.
        together(*[lambda: s.ask("/f/f", b"0.2") for _ in range(9)])
        s.wait(lambda: all_ready() and len(before & set(pids())) <= 1, "two others and the first one")
        f = s.function("f")
        same((f["starts_cold"], f["starts_warm"]), (1, 4))
        after = set(pids())
        together(*[lambda: s.ask("/f/f", b"0.2") for _ in range(9)])
        s.wait(all_ready, "ready again")
        same(set(pids()), after)


@test
def min_instances():
    """pool: instances.min start at once, come back after a death, and serve warm"""
    with Server({"f": function(["cat"], instances={"min": 3})}) as s:
        s.wait(lambda: s.function("f")["instances"]["ready"] == 3, "three ready")
        s.ask("/f/f", b"x")
        same(s.event("request")["start"] in ("cold", "restored"), True)
        victim = s.get("/admin/instances")[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        s.event("instance_died")
        s.wait(lambda: s.function("f")["instances"]["ready"] == 3, "three again")
        check(victim not in [i["pid"] for i in s.get("/admin/instances")], "the dead one is listed")


@test
def max_instances():
    """pool: never more than instances.max, and than the server's limit"""
    f = {"a": function(SLEEP, instances={"max": 2}), "b": function(SLEEP)}
    with Server(f, limits={"instances": 4}) as s:
        most = []

        def watch():
            while len(most) < 400 and not over:
                n = s.get("/admin/instances")
                most.append((sum(i["function"] == "a" and i["state"] != "ending" for i in n),
                             sum(i["state"] != "ending" for i in n)))
                time.sleep(0.01)
        over = []
        t = threading.Thread(target=watch)
        t.start()
        answers = together(*[lambda n=n: s.ask("/f/" + n, b"0.15") for n in "abababababab"])
        over.append(1)
        t.join()
        same([a.status for a in answers], [200] * 12)
        check(max(m[0] for m in most) <= 2, "a had %d" % max(m[0] for m in most))
        check(max(m[1] for m in most) <= 4, "all had %d" % max(m[1] for m in most))


@test
def idle_shed():
    """pool: idle instances end, down to min"""
    with Server({"f": function(SLEEP, instances={"min": 1, "idle": "300ms"})}) as s:
        together(*[lambda: s.ask("/f/f", b"0.3") for _ in range(4)])
        s.wait(lambda: s.function("f")["instances"]["ready"] == 1 and
               len(s.get("/admin/instances")) == 1, "one left", 5)
        time.sleep(0.6)
        same(s.function("f")["instances"]["ready"], 1)


@test
def memory_pressure():
    """pool: over the memory budget the coldest instance makes way; without room it is 503"""
    env = {"DOUBLE_RESIDENT": str(40 << 20)}
    f = {n: function(["cat"], env=env, limits={"memory": "64M"}) for n in "abc"}
    f["slow"] = function(SLEEP, env=env, limits={"memory": "64M"})
    with Server(f, limits={"memory": "110M"}) as s:
        for n in "abcabc":
            same(s.ask("/f/" + n, b"x").body, b"x")
            time.sleep(0.05)
        check(s.get("/admin/status")["memory"] <= 110 << 20, "over the budget")
        e = s.events("instance_shed")
        check(e and e[0]["function"] == "a", repr(e[:2]))
        s.wait(lambda: s.get("/admin/status")["running"] == 0, "idle")
        busy = threading.Thread(target=lambda: together(*[lambda: s.ask("/f/slow", b"2.5") for _ in range(2)]))
        busy.start()
        s.wait(lambda: s.get("/admin/status")["running"] == 2, "two busy", 5)
        a = s.ask("/f/a", b"x")
        error(a, 503, "no-room")
        check(int(a.field("Retry-After")) >= 1, "no Retry-After")
        busy.join()
        same(s.ask("/f/a", b"x").status, 200)


@test
def queue_limits():
    """queues: a function's and a tenant's are bounded: 429; the server's: 503"""
    f = {"f": function(SLEEP, instances={"max": 1}, limits={"queue": 2}),
         "g": function(SLEEP, instances={"max": 1}), "h": function(SLEEP, tenant="other", instances={"max": 1})}
    tenants = {"acme": {"token": TOKEN, "queue": 3}, "other": {"token": OTHER}}
    with Server(f, tenants=tenants, limits={"queue": 5}) as s:
        same([s.ask("/f/" + n, b"0", token=t).status for n, t in (("f", TOKEN), ("g", TOKEN), ("h", OTHER))], [200] * 3)
        got = {}

        def ask(name, key, token=TOKEN):
            got.setdefault(key, []).append(s.ask("/f/" + name, b"0.8", token=token))
        threads = []

        def start(n, *args):
            for _ in range(n):
                threads.append(threading.Thread(target=ask, args=args))
                threads[-1].start()
                time.sleep(0.03)
        start(3, "f", "f")
        start(2, "g", "g")
        error(s.ask("/f/f", b"0"), 429, "queue-full")
        a = s.ask("/f/g", b"0")
        error(a, 429, "queue-full")
        matches("tenant's queue", a.body.decode())
        check(a.field("Retry-After"), "no Retry-After")
        start(3, "h", "h", OTHER)
        error(s.ask("/f/h", b"0", token=OTHER), 503, "overloaded")
        for t in threads:
            t.join()
        same(sorted(a.status for k in got for a in got[k]), [200] * 8)
        same(s.function("f")["outcomes"]["limited"], 1)


@test
def reading_limit():
    """queues: requests whose bodies are still coming are bounded, too"""
    with Server({"f": function(["cat"], limits={"queue": 2, "concurrency": 1})}) as s:
        slow = [Raw(s) for _ in range(3)]
        for r in slow:
            r.send(head("/f/f", "POST", Content_Length=5) + "sl")
        time.sleep(0.2)
        error(s.ask("/f/f", b"x"), 429, "queue-full")
        for r in slow:
            r.send("ow!")
            same(r.answer().body, b"slow!")
        same(s.ask("/f/f", b"x").body, b"x")


def compete(weights, clients, bodies, seconds=4):
    """Two tenants that always have requests waiting: how much time their requests ran, and how many."""
    tokens = {"acme": TOKEN, "other": OTHER}
    tenants = {t: {"token": tokens[t], "weight": w, "concurrency": 64} for t, w in weights.items()}
    f = {t: function(SLEEP, tenant=t, instances={"min": 5, "max": 6}) for t in tokens}
    with Server(f, tenants=tenants, limits={"concurrency": 2}) as s:
        s.wait(lambda: all(x["instances"]["ready"] >= 5 for x in s.get("/admin/functions")), "warm")
        end = time.monotonic() + seconds

        def loop(t):
            while time.monotonic() < end:
                s.ask("/f/" + t, bodies[t], token=tokens[t])
        together(*[lambda t=t: loop(t) for t in tokens for _ in range(clients[t])])
        ran, n = {"acme": 0, "other": 0}, {"acme": 0, "other": 0}
        for e in s.events("request"):
            ran[e["tenant"]] += e["ms"] - e["queue_ms"]
            n[e["tenant"]] += 1
        return ran["acme"] / ran["other"], n["acme"] / n["other"], (ran, n)


@test
def fairness_greedy():
    """fairness: twenty clients of one tenant don't push six of another aside"""
    time_, _, what = compete({"acme": 1, "other": 1}, {"acme": 20, "other": 6}, {"acme": b"0.1", "other": b"0.1"})
    check(0.6 < time_ < 1.7, repr(what))


@test
def fairness_weight():
    """fairness: weight 3 gets three times as much"""
    time_, _, what = compete({"acme": 3, "other": 1}, {"acme": 10, "other": 10}, {"acme": b"0.1", "other": b"0.1"})
    check(2 < time_ < 4.4, repr(what))


@test
def fairness_long():
    """fairness: it is time that is shared, not requests"""
    time_, n, what = compete({"acme": 1, "other": 1}, {"acme": 8, "other": 8}, {"acme": b"0.4", "other": b"0.05"})
    check(0.5 < time_ < 2 and n < 0.8, repr(what))


@test
def tenant_concurrency():
    """limits: a tenant's and a function's concurrency"""
    f = {"f": function(SLEEP, limits={"concurrency": 2}), "g": function(SLEEP)}
    with Server(f, tenants={"acme": {"token": TOKEN, "concurrency": 3}}) as s:
        most = []

        def watch():
            for _ in range(60):
                st = s.get("/admin/status")
                most.append((st["running"], max(x["running"] for x in st["functions"] if x["name"] == "f")))
                time.sleep(0.01)
        t = threading.Thread(target=watch)
        t.start()
        together(*[lambda n=n: s.ask("/f/" + n, b"0.1") for n in "fgfgfgfgfgfg"])
        t.join()
        same((max(m[0] for m in most), max(m[1] for m in most)), (3, 2))


@test
def deadline_running():
    """deadlines: a request that runs too long is 504, and its instance is used again"""
    with Server({"f": function(SLEEP, limits={"time": "1s"}, instances={"max": 1})}) as s:
        same(s.ask("/f/f", b"0").status, 200)
        begun = time.monotonic()
        error(s.ask("/f/f", b"9"), 504, "timeout")
        check(time.monotonic() - begun < 4, "late")
        same(s.ask("/f/f", b"0").status, 200)
        same(s.function("f")["starts_cold"] + s.function("f")["starts_warm"], 1)


@test
def deadline_queued():
    """deadlines: time in the queue counts"""
    with Server({"f": function(SLEEP, limits={"time": "600ms"}, instances={"max": 1})}) as s:
        same(s.ask("/f/f", b"0").status, 200)
        begun = time.monotonic()
        a = together(lambda: s.ask("/f/f", b"0.4"), lambda: s.ask("/f/f", b"0.4"))
        same(sorted(x.status for x in a), [200, 504])
        check(time.monotonic() - begun < 1.5, "late")


@test
def deadline_kill():
    """deadlines: an instance that doesn't answer FN_CANCEL is killed"""
    with Server({"f": function(SLEEP, limits={"time": "200ms"}, env={"DOUBLE": "ignore-cancel"})},
                timeouts={"kill": "200ms"}) as s:
        error(s.ask("/f/f", b"9"), 504, "timeout")
        s.event("instance_killed", function="f")
        same(s.ask("/f/f", b"0").status, 200)


@test
def client_leaves():
    """a client that leaves cancels its request, queued or running"""
    with Server({"f": function(SLEEP, instances={"max": 1})}) as s:
        same(s.ask("/f/f", b"0").status, 200)
        a, b = Raw(s), Raw(s)
        for r in (a, b):
            r.send(head("/f/f", "POST", Content_Length=1) + "9")
            time.sleep(0.15)
        same((s.function("f")["running"], s.function("f")["queued"]), (1, 1))
        b.close()
        s.wait(lambda: s.function("f")["queued"] == 0, "out of the queue", 3)
        a.close()
        s.wait(lambda: s.function("f")["running"] == 0, "cancelled", 3)
        same(s.ask("/f/f", b"0").status, 200)
        same(s.function("f")["outcomes"]["cancelled"], 2)


def misbehaves(name, whim, answer, again=None, **more):
    def f():
        with Server({"f": function(["cat"], env={"DOUBLE": whim}, **more)},
                    timeouts={"kill": "300ms"}) as s:
            a = s.ask("/f/f", b"x", timeout=10)
            check((a.status, a.field("X-Kvmsbox-Error")) in answer, repr(a))
            same(s.ask("/healthz").status, 200)
            a = s.ask("/f/f", b"x", timeout=10)
            check((a.status, a.field("X-Kvmsbox-Error")) in (again or answer), repr(a))
    f.__name__ = "misbehaves_" + whim
    f.__doc__ = "instances: " + name
    test(f)


misbehaves("one that dies costs its own request", "die", [(502, "crashed")])
misbehaves("an unknown message", "garbage", [(502, "crashed"), (200, None)])
misbehaves("a message of the wrong size", "short", [(502, "crashed")])
misbehaves("no reset", "no-reset", [(200, None)], limits={"start": "300ms"})
misbehaves("no snapshot: cold starts", "no-snapshot", [(200, None)])
misbehaves("a snapshot without seals", "unsealed", [(200, None), (502, "start-failed")],
           [(200, None), (502, "start-failed"), (503, "start-failed")])
misbehaves("a crash while starting", "crash-start", [(502, "start-failed")],
           [(502, "start-failed"), (503, "start-failed")])
misbehaves("FN_FAILED", "fail-start", [(502, "start-failed")],
           [(502, "start-failed"), (503, "start-failed")])
misbehaves("a start that doesn't end", "hang-start", [(502, "start-failed")],
           [(502, "start-failed"), (503, "start-failed")], limits={"start": "300ms"})


@test
def start_reason():
    """instances: why a start failed is told, and the next ones wait longer and longer"""
    with Server({"f": function(["cat"], image="missing.tar", instances={"min": 1})}) as s:
        s.event("start_failed", function="f", why="kvmsbox: image missing.tar: No such file or directory")
        a = s.ask("/f/f", b"")
        check(a.status in (502, 503), repr(a))
        matches("missing.tar: No such file", a.body.decode())
        check(a.status == 502 or int(a.field("Retry-After")) >= 1, "no Retry-After")
        time.sleep(1.6)
        n = len(s.events("start_failed"))
        check(2 <= n <= 5, "%d starts" % n)
        same(s.function("f")["state"] in ("failing", "active", "cold"), True)


@test
def restore_fails():
    """instances: a snapshot from which nothing starts is given up"""
    with Server({"f": function(SLEEP, env={"DOUBLE": "restore-fails"})}) as s:
        answers = together(*[lambda: s.ask("/f/f", b"0.3") for _ in range(3)])
        same([a.status for a in answers], [200] * 3)


@test
def blanks():
    """instances: blank processes are kept in stock and used"""
    with Server({"f": function(SLEEP)}, blanks=2) as s:
        s.wait(lambda: s.get("/admin/status")["blanks"] == 2, "two blanks")
        together(*[lambda: s.ask("/f/f", b"0.4") for _ in range(4)])
        check(s.metric("kvmsbox_blank_starts_total") >= 1, "no blank was used")
        s.wait(lambda: s.get("/admin/status")["blanks"] == 2, "two blanks again")


@test
def blanks_of_platforms():
    """instances: blanks are for the platforms of the functions that there are"""
    def platforms(s):
        found = []
        used = [i["pid"] for i in s.get("/admin/instances")]
        for p in s.children():
            if p in used:
                continue
            try:
                with open(f"/proc/{p}/cmdline", "rb") as f:
                    args = f.read().decode().split("\0")
            except OSError:
                continue  # it has just ended
            if "--blank" in args:
                found.append(args[args.index("--platform") + 1])
        return sorted(found)

    f = {"a": function(SLEEP), "b": function(SLEEP, platform="ptrace")}
    with Server(f, blanks=4) as s:
        s.wait(lambda: platforms(s) == ["auto", "auto", "ptrace", "ptrace"], "two of each")
        together(*[lambda: s.ask("/f/b", b"0.4") for _ in range(4)])
        check(s.metric("kvmsbox_blank_starts_total") >= 1, "no blank was used")
        s.wait(lambda: platforms(s) == ["auto", "auto", "ptrace", "ptrace"], "two of each again")
        same(s.admin("/admin/functions/b", None, "DELETE").status, 204)
        s.wait(lambda: platforms(s) == ["auto"] * 4, "all for the function that is left")


@test
def kill_under_load():
    """kill -9 of instances under load: each costs at most its own request"""
    f = {"cat": function(["sh", "-c", "sleep 0.02; cat"], instances={"min": 4, "max": 6}),
         "app": function(APP, kind="http", isolation="none", instances={"min": 2, "max": 3})}
    with Server(f) as s:
        s.wait(lambda: s.function("app")["instances"]["ready"] == 2, "warm")
        answers, kills, end = [], [], time.monotonic() + 5

        def load(path):
            while time.monotonic() < end:
                data = os.urandom(3000)
                try:
                    a = s.ask(path, data)
                    answers.append((a.status, a.body == data, a.field("X-Kvmsbox-Error"), a.body[:150] if a.status != 200 else b""))
                except (http.client.HTTPException, OSError) as e:
                    answers.append((repr(e), False, None, b""))

        def murder():
            while time.monotonic() < end:
                time.sleep(0.15)
                pids = [i["pid"] for i in s.get("/admin/instances") if i["state"] in ("ready", "busy", "resetting")]
                if pids:
                    try:
                        os.kill(random.choice(pids), signal.SIGKILL)
                        kills.append(1)
                    except ProcessLookupError:
                        pass
        together(*[lambda: load("/f/cat")] * 4, *[lambda: load("/f/app/echo")] * 3, murder)
        bad = [a for a in answers if a[:2] != (200, True)]
        check(len(kills) > 10 and len(answers) > 50, "%d kills, %d answers" % (len(kills), len(answers)))
        check(len(bad) <= len(kills), "%d bad answers for %d kills: %r" % (len(bad), len(kills), bad[:5]))
        kinds = {(b[0], b[2]) for b in bad}
        check(all(k == (502, "crashed") or "IncompleteRead" in str(k[0]) for k in kinds), repr(kinds))
        same(s.ask("/f/cat", b"after").body, b"after")
        same(s.get("/admin/status")["running"], 0)


@test
def reload_config():
    """SIGHUP: functions and tenants change, running requests end as they began"""
    with Server({"f": function(["sh", "-c", "sleep 0.6; echo old"]), "gone": function(["cat"])}) as s:
        s.ask("/f/f", b"")
        s.ask("/f/gone", b"")
        result = []
        t = threading.Thread(target=lambda: result.append(s.ask("/f/f", b"")))
        t.start()
        s.wait(lambda: s.function("f")["running"] == 1, "it runs")
        s.config["functions"] = {"f": function(["sh", "-c", "echo new"]), "g": function(["cat"], tenant="third")}
        s.config["tenants"]["third"] = {"token": "third-token-0123456789"}
        del s.config["tenants"]["other"]
        s.write()
        s.p.send_signal(signal.SIGHUP)
        s.event("reload")
        same(s.ask("/f/f", b"").body, b"new\n")
        t.join()
        same(result[0].body, b"old\n")
        same(s.ask("/f/gone", b"").status, 404)
        same(s.ask("/f/g", b"x", token="third-token-0123456789").body, b"x")
        same(s.ask("/f/g", b"x", token=OTHER).status, 401)
        s.wait(lambda: all(i["current"] for i in s.get("/admin/instances")), "old instances end")


@test
def reload_bad():
    """SIGHUP: a bad file changes nothing and is said"""
    with Server({"f": function(["cat"])}) as s:
        s.config["functions"]["f"]["kind"] = "nonsense"
        s.write()
        s.p.send_signal(signal.SIGHUP)
        matches("/functions/f/kind", s.event("manifest")["message"])
        same(s.ask("/f/f", b"x").body, b"x")


@test
def manifests():
    """manifests: come, change, break, go, without a signal"""
    with Server({"fixed": function(["cat"])}, manifests=True) as s:
        s.manifest("m", function(["echo", "one"]))
        s.event("function_added", function="m")
        same(s.ask("/f/m", b"").body, b"one\n")
        s.manifest("m", function(["echo", "two"]))
        s.event("function_changed", function="m")
        same(s.ask("/f/m", b"").body, b"two\n")
        for text, regex in (("{", "not JSON"), (function(["x"], kind="y"), "/kind"),
                            (function(["x"], tenant="nobody"), "nobody"), (function(["x"], name="z"), "/name")):
            s.manifest("m", text)
            s.wait(lambda: any(re.search(regex, e["message"]) for e in s.events("manifest")), regex)
            same(s.ask("/f/m", b"").body, b"two\n")
        same(s.metric("kvmsbox_manifest_problems"), 1)
        s.manifest("fixed", function(["echo", "usurped"]))
        s.wait(lambda: any("rename one" in e["message"] for e in s.events("manifest")), "the clash")
        same(s.ask("/f/fixed", b"x").body, b"x")
        s.manifest("fixed", None)
        s.manifest("m", None)
        s.event("function_removed", function="m")
        same(s.ask("/f/m", b"").status, 404)
        s.wait(lambda: s.metric("kvmsbox_manifest_problems") == 0, "no problems")


@test
def shutdown_drains():
    """SIGTERM: what runs and waits is answered, new connections are refused, nothing is left"""
    s = Server({"f": function(SLEEP, instances={"max": 1})})
    same(s.ask("/f/f", b"0").status, 200)
    results = []
    threads = [threading.Thread(target=lambda: results.append(s.ask("/f/f", b"0.4").status)) for _ in range(2)]
    for t in threads:
        t.start()
    idle = Raw(s)
    s.wait(lambda: s.function("f")["queued"] == 1, "one waits")
    same(s.stop(), 0)
    for t in threads:
        t.join()
    same(results, [200, 200])
    check(idle.closed(), "the idle connection")
    s.event("stopped")


@test
def shutdown_deadline():
    """SIGTERM: what isn't done by timeouts.drain is given up; a second one is at once"""
    for twice in (False, True):
        s = Server({"f": function(SLEEP)}, timeouts={"drain": "30s" if twice else "300ms"})
        r = Raw(s)
        r.send(head("/f/f", "POST", Content_Length=2) + "20")
        s.wait(lambda: s.function("f")["running"] == 1, "it runs")
        begun = time.monotonic()
        if twice:
            s.p.send_signal(signal.SIGTERM)
            s.event("stopping")
        same(s.stop(), 0)
        check(time.monotonic() - begun < 4, "it took %.1f s" % (time.monotonic() - begun))
        check(r.closed(), "something was said")


@test
def killed_server():
    """kill -9 of the server leaves no sandbox"""
    s = Server({"f": function(SLEEP, instances={"min": 2}), "app": function(APP, kind="http", instances={"min": 1})})
    s.wait(lambda: len([i for i in s.get("/admin/instances") if i["state"] == "ready"]) == 3, "three ready")
    r = Raw(s)
    r.send(head("/f/f", "POST", Content_Length=2) + "20")
    s.wait(lambda: s.function("f")["running"] == 1, "it runs")
    same(s.stop(signal.SIGKILL), -9)
