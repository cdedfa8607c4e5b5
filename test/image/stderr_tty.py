#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""stderr_tty.py OUT COMMAND…: runs COMMAND with a terminal as its stderr, and writes what it got to OUT."""
import os
import pty
import subprocess
import sys

master, slave = pty.openpty()
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stderr=slave)
os.close(slave)
with open(sys.argv[1], 'wb') as out:
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:  # EIO: nobody has the other side any more
            break
        if not data:
            break
        out.write(data)
sys.exit(child.wait())
