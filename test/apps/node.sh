#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Node.js: a JIT, a thread pool, worker threads, children, streams, a server on a unix socket.
# timeout: 240
BOX_LIMIT=60
. "$(dirname "$0")/app.sh"
app compute "832040 267914296" node -e 'function f(n) { return n < 2 ? n : f(n - 1) + f(n - 2) }
	let a = 0n, b = 1n; for (let i = 0; i < 42; i++) [a, b] = [b, a + b]; console.log(f(30), String(a))'
app files "3 5 20000 true" node -e 'const fs = require("fs"), p = fs.mkdtempSync("/tmp/n-")
	for (const n of ["a", "b", "c"]) fs.writeFileSync(p + "/" + n, "caf\u00e9")
	const big = Buffer.alloc(20000, 7)
	fs.promises.writeFile(p + "/big", big).then(() => fs.promises.readFile(p + "/big")).then(got =>
		console.log(fs.readdirSync(p).length - 1, fs.readFileSync(p + "/b").length, got.length, got.equals(big)))'
app child "0 hello 3 SIGTERM" node -e 'const { spawnSync, spawn } = require("child_process")
	const a = spawnSync("sh", ["-c", "echo hello; exit 3"])
	const c = spawn("sleep", ["100"])
	c.on("exit", (code, sig) => console.log(spawnSync("true").status, String(a.stdout).trim(), a.status, sig))
	c.kill()'
app workers "4950 4950 4950" node -e 'const { Worker, isMainThread, parentPort, workerData } = require("worker_threads")
	const src = "const { parentPort } = require(\"worker_threads\"); let s = 0; for (let i = 0; i < 100; i++) s += i; parentPort.postMessage(s)"
	Promise.all([0, 1, 2].map(() => new Promise(r => new Worker(src, { eval: true }).on("message", r)))).then(v => console.log(...v))'
app unix_server "200 pong 5" node -e 'const http = require("http")
	const s = http.createServer((q, r) => { let b = ""; q.on("data", d => b += d); q.on("end", () => r.end("pong " + b.length)) })
	s.listen("/tmp/node.sock", () => { const q = http.request({ socketPath: "/tmp/node.sock", method: "POST" }, r => {
		let b = ""; r.on("data", d => b += d); r.on("end", () => { console.log(r.statusCode, b); s.close() }) }); q.end("hello") })'
app http_server "200 pong 5 lo" node -e 'const http = require("http"), os = require("os")
	const s = http.createServer((q, r) => { let b = ""; q.on("data", d => b += d); q.on("end", () => r.end("pong " + b.length)) })
	s.listen(0, () => { const q = http.request({ port: s.address().port, method: "POST" }, r => {
		let b = ""; r.on("data", d => b += d); r.on("end", () => { console.log(r.statusCode, b, Object.keys(os.networkInterfaces()).find(n => n == "lo")); s.close() }) }); q.end("hello") })'
app udp "hi 127.0.0.1" node -e 'const d = require("dgram"), a = d.createSocket("udp4"), b = d.createSocket("udp4")
	b.on("message", (m, from) => { console.log(String(m), from.address); a.close(); b.close() })
	b.bind(0, "127.0.0.1", () => a.send("hi", b.address().port, "127.0.0.1"))'
app hash_zlib "sha 2c26b46b68ff true" node -e 'const c = require("crypto"), z = require("zlib")
	z.gzip(Buffer.alloc(100000, "x"), (e, d) => console.log("sha", c.createHash("sha256").update("foo").digest("hex").slice(0, 12), z.gunzipSync(d).length === 100000))'
app timers "tick tick tick done" node -e 'let n = 0, out = []; const t = setInterval(() => { out.push("tick"); if (++n == 3) { clearInterval(t); console.log(...out, "done") } }, 5)'
finish
