# SPDX-License-Identifier: Apache-2.0
"""Runs a command, kills it at a chosen time, and tells what it left running.

usage: subreaper.py SECONDS COMMAND…

Every orphan of the command comes to this process (PR_SET_CHILD_SUBREAPER). After SECONDS (0: when it
ends by itself) the command gets SIGKILL; its descendants then have 3 seconds to end. Prints
"left PID NAME" for each that didn't and kills it; exit status 1 then, otherwise 0.
"""
import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def children():
    found = []
    for tid in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{tid}/children") as f:
            found += map(int, f.read().split())
    return found


def name(pid):
    try:
        with open(f"/proc/{pid}/comm") as f:
            comm = f.read().strip()
        with open(f"/proc/{pid}/stat") as f:
            return comm + " " + f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def reap():
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return


libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
    sys.exit(2)
wait = float(sys.argv[1])
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, start_new_session=True)
try:
    child.wait(wait or 60)
except subprocess.TimeoutExpired:
    child.kill()
    child.wait()
end = time.monotonic() + 3
while time.monotonic() < end:
    reap()
    if not children():
        sys.exit(0)
    time.sleep(0.01)
for pid in children():
    print("left", pid, name(pid))
    os.kill(pid, signal.SIGKILL)
sys.exit(1)
