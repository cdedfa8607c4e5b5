# SPDX-License-Identifier: Apache-2.0
"""Runs a command on a terminal of its own and does to it what a script says.

usage: terminal.py SECONDS COMMAND… <SCRIPT

Lines of SCRIPT: "wait REGEX" for output, "send TEXT" (with \\r, \\x03 …), "size ROWS COLUMNS", "kill
SIGNAL", "close" (the terminal hangs up), "stty" (prints whether it is raw now). Prints the output,
and in the end "status N" (128+N: by signal N). SECONDS later everything is over: "timeout" is
printed, and the exit status is 1.
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

end = time.monotonic() + float(sys.argv[1])
pid, fd = pty.fork()
if pid == 0:
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    finally:
        os._exit(127)
seen = b""
new = b""
open_ = True


def pump(seconds):
    """Takes what comes; False when there is nothing more to come."""
    global seen, new
    if not select.select([fd], [], [], seconds)[0]:
        return True
    try:
        data = os.read(fd, 65536)
    except OSError:
        data = b""
    seen += data
    new += data
    return bool(data)


def late():
    print(seen.decode(errors="replace").replace("\r", ""))
    print("timeout")
    os.kill(pid, signal.SIGKILL)
    sys.exit(1)


for line in sys.stdin:
    word, _, rest = line.rstrip("\n").partition(" ")
    if word == "wait":
        regex = re.compile(rest.encode())
        more = True
        while not (m := regex.search(new)):
            if not more or time.monotonic() > end:
                late()
            more = pump(0.1)
        new = new[m.end():]
    elif word == "send":
        os.write(fd, rest.encode().decode("unicode_escape").encode("latin-1"))
    elif word == "size":
        rows, columns = map(int, rest.split())
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    elif word == "kill":
        os.kill(pid, getattr(signal, "SIG" + rest))
    elif word == "close":
        os.close(fd)
        open_ = False
    elif word == "stty":
        print("raw" if not termios.tcgetattr(fd)[3] & termios.ICANON else "cooked")
    elif word == "sleep":
        time.sleep(float(rest))
while open_ and pump(0.1):
    if time.monotonic() > end:
        late()
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        while select.select([fd], [], [], 0.05)[0] and pump(0):
            pass
        break
else:
    done = 0
while not done:
    done, status = os.waitpid(pid, os.WNOHANG)
    if time.monotonic() > end:
        late()
    time.sleep(0.01)
print(seen.decode(errors="replace").replace("\r", ""))
print("status", 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
