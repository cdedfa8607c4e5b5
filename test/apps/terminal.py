# SPDX-License-Identifier: Apache-2.0
"""Drives a shell command through a pseudoterminal of 31x97, step by step.

usage: terminal.py STEP… -- SHELL-COMMAND

  expect:REGEX  read until what came since the last match contains it
  send:TEXT     write (Python escapes)
  wait:SECONDS  let the program get going
  resize:RxC    change the window's size
  status:N      the command must end with this status

Prints what failed and the screen's last bytes, exit status 1, if a step doesn't come true in time.
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

LIMIT = float(os.environ.get("PTY_TIMEOUT", "15"))


def main():
    at = sys.argv.index("--")
    steps, command = sys.argv[1:at], sys.argv[at + 1]
    pid, fd = pty.fork()
    if pid == 0:
        time.sleep(0.1)
        os.execvp("bash", ["bash", "-c", command])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    seen = b""
    everything = b""

    def fail(why):
        print(why)
        print(repr(everything[-700:]))
        os.kill(pid, signal.SIGKILL)
        sys.exit(1)

    def read_some(timeout):
        nonlocal seen, everything
        if not select.select([fd], [], [], timeout)[0]:
            return True
        try:
            data = os.read(fd, 65536)
        except OSError:
            data = b""
        seen += data
        everything += data
        return bool(data)

    for step in steps:
        kind, _, arg = step.partition(":")
        end = time.monotonic() + LIMIT
        if kind == "expect":
            regex = re.compile(arg.encode(), re.S)
            while not (m := regex.search(seen)):
                if time.monotonic() > end:
                    fail(f"no {arg!r} within {LIMIT} s")
                if not read_some(0.2):
                    m = regex.search(seen)
                    if not m:
                        fail(f"the terminal closed before {arg!r}")
                    break
            seen = seen[m.end():]
        elif kind == "send":
            os.write(fd, arg.encode().decode("unicode_escape").encode("latin-1"))
        elif kind == "wait":
            end = time.monotonic() + float(arg)
            while time.monotonic() < end:
                if not read_some(0.05):
                    break
        elif kind == "resize":
            rows, cols = map(int, arg.split("x"))
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
            time.sleep(0.3)
        elif kind == "status":
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    break
                if time.monotonic() > end:
                    fail("the command doesn't end")
                read_some(0.1)
            got = os.waitstatus_to_exitcode(status)
            if got != int(arg):
                print(f"status {got}, not {arg}")
                print(repr(everything[-700:]))
                sys.exit(1)
            return
    os.kill(pid, signal.SIGKILL)


main()
