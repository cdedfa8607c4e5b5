#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# python3: threads, subprocess, multiprocessing by fork, asyncio, mmap, and its big modules.
# timeout: 180
. "$(dirname "$0")/app.sh"

app threads "8 800000" python3 -c '
import threading
n = 0
lock = threading.Lock()
def run():
    global n
    for _ in range(100000):
        with lock:
            n += 1
ts = [threading.Thread(target=run) for _ in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
print(len(ts), n)'
app queue "499500" python3 -c '
import queue, threading
q, r = queue.Queue(10), queue.Queue()
def work():
    while (i := q.get()) is not None:
        r.put(i)
ts = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in ts]
[q.put(i) for i in range(1000)]; [q.put(None) for _ in ts]; [t.join() for t in ts]
print(sum(r.get() for _ in range(1000)))'
app subprocess "b'HELLO' 3 -15 timeout" python3 -c '
import subprocess, signal
a = subprocess.run(["tr", "a-z", "A-Z"], input=b"hello", stdout=subprocess.PIPE).stdout
b = subprocess.run("exit 3", shell=True).returncode
p = subprocess.Popen(["sleep", "100"]); p.terminate()
try:
    subprocess.run(["sleep", "100"], timeout=0.3); c = "no timeout"
except subprocess.TimeoutExpired:
    c = "timeout"
print(a, b, p.wait(), c)'
app multiprocessing "285 [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]" python3 -c '
import multiprocessing as mp
def square(x):
    return x * x
if __name__ == "__main__":
    mp.set_start_method("fork")
    with mp.Pool(4) as pool:
        r = pool.map(square, range(10))
    print(sum(r), r)'
app shared_memory "4000" python3 -c '
import multiprocessing as mp
def add(v):
    for _ in range(1000):
        with v.get_lock():
            v.value += 1
v = mp.Value("i", 0)
ps = [mp.Process(target=add, args=(v,)) for _ in range(4)]
[p.start() for p in ps]; [p.join() for p in ps]
print(v.value)'
app asyncio "['a', 'b', 'c'] out" python3 -c '
import asyncio
async def one(x, t):
    await asyncio.sleep(t)
    return x
async def main():
    r = await asyncio.gather(one("a", .2), one("b", .1), one("c", 0))
    p = await asyncio.create_subprocess_exec("echo", "out", stdout=-1)
    print(r, (await p.communicate())[0].decode().strip())
asyncio.run(main())'
app unix_server "b'pong ping'" python3 -c '
import socket, threading
s = socket.socket(socket.AF_UNIX); s.bind("/tmp/sock"); s.listen()
def serve():
    c, _ = s.accept(); c.sendall(b"pong " + c.recv(100)); c.close()
t = threading.Thread(target=serve); t.start()
c = socket.socket(socket.AF_UNIX); c.connect("/tmp/sock"); c.sendall(b"ping")
print(c.recv(100)); t.join()'
app http_server "200 True 404 127.0.0.1" python3 -c '
import http.server, threading, urllib.error, urllib.request
class H(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("localhost", 0), H)
threading.Thread(target=s.serve_forever, daemon=True).start()
url = "http://localhost:%d/etc/" % s.server_port
with urllib.request.urlopen(url + "passwd") as r:
    a, b = r.status, b"root" in r.read()
try:
    urllib.request.urlopen(url + "nonesuch")
except urllib.error.HTTPError as e:
    c = e.code
print(a, b, c, s.server_address[0]); s.shutdown()'
app http_server_program "True" sh -c 'cd /etc; python3 -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 & p=$!
python3 -c "
import time, urllib.request
for i in range(200):
    try:
        print(b\"root\" in urllib.request.urlopen(\"http://127.0.0.1:8123/passwd\").read()); break
    except OSError:
        time.sleep(0.05)
"; kill $p'
app sockets "[b'tcp', b'udp'] ['lo']" python3 -c '
import asyncio, socket
async def main():
    got = []
    async def serve(r, w):
        w.write(await r.read()); await w.drain(); w.close()
    srv = await asyncio.start_server(serve, "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*srv.sockets[0].getsockname())
    w.write(b"tcp"); w.write_eof(); got.append(await r.read()); w.close(); srv.close()
    a = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); a.bind(("::1", 0))
    a.sendto(b"udp", a.getsockname()); got.append(a.recv(9))
    print(got, [n for i, n in socket.if_nameindex() if n == "lo"])
asyncio.run(main())'
app mmap_file "b'Hello'" python3 -c '
import mmap
f = open("/tmp/m", "w+b"); f.write(b"hello" * 1000); f.flush()
m = mmap.mmap(f.fileno(), 0); m[0:1] = b"H"; m.flush(); m.close()
print(open("/tmp/m", "rb").read(5))'
app signals "[14, 10] KeyboardInterrupt" python3 -c '
import signal, os, time
got = []
signal.signal(signal.SIGALRM, lambda n, f: got.append(n)); signal.signal(signal.SIGUSR1, lambda n, f: got.append(n))
signal.setitimer(signal.ITIMER_REAL, 0.2)
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGUSR1)
try:
    os.kill(os.getpid(), signal.SIGINT); time.sleep(1); k = ""
except KeyboardInterrupt:
    k = "KeyboardInterrupt"
print(got, k)'
app deep_recursion "50000" python3 -c '
import sys, threading
sys.setrecursionlimit(10**6); threading.stack_size(512 << 20)
def f(n): return 0 if n == 0 else 1 + f(n - 1)
def g(): print(f(50000))
t = threading.Thread(target=g); t.start(); t.join()'
app memory "300 MB ok" python3 -c '
b = bytearray(300 << 20); b[::4096] = b"x" * (300 << 8)
print(b.count(b"x") // 256, "MB ok")'
finish
