#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the two builds of the sentry. usage: compare.py structures|constants|known BUILD

structures: size and members' offsets of each structure, by the debugging information of
BUILD/kvmsbox (musl) and BUILD/libkvmsbox.a (glibc). constants: the value of each object-like
macro of a system's header that the sources name. known: is what is listed below as different
still so?"""
import glob
import re
import subprocess
import sys
import tempfile

what, build = sys.argv[1:3]

# Structures that may differ: those of which only the kernel's part is copied, or that stay inside.
STRUCTURES = {
    "rusage": "RUSAGE_SIZE of it is copied", "sysinfo": "SYSINFO_SIZE of it is copied",
    "thread_group": "holds struct rusage", "wait_result": "holds struct rusage",
    "msghdr": "for the host's calls only, of the libc itself", "cmsghdr": "the same; struct cmsg",
    "scratch": "holds struct cmsghdr",
}
# The same layout under other names.
NAMES = {"in6_addr", "sigaction", "sigevent", "stat", "termios", "timex"}
# Macros that may: both ways are right, or nobody gives them to a program.
CONSTANTS = {"LC_ALL_MASK", "O_LARGEFILE", "SIGRTMIN"}


def structures(path):
    """{name: {(size, ((member, offset), …))}}"""
    out, stack, where = {}, [], None
    text = subprocess.run(["readelf", "--debug-dump=info", "-W", path], capture_output=True,
                          text=True, errors="replace", check=False).stdout
    for line in text.splitlines():
        m = re.search(r"<([0-9a-f]+)><[0-9a-f]+>: Abbrev Number: \d+ \(DW_TAG_(\w+)\)", line)
        if m or line.startswith("  Compilation Unit"):
            depth = int(m[1], 16) if m else 0
            while stack and stack[-1]["depth"] >= depth:
                s = stack.pop()
                if s["name"] and s["size"] is not None:
                    members = tuple(map(tuple, s["members"]))
                    out.setdefault(s["name"], set()).add((s["size"], members))
            where = None
            if m and m[2] in ("structure_type", "union_type"):
                stack.append({"depth": depth, "name": None, "size": None, "members": []})
                where = "struct"
            elif m and m[2] == "member" and stack and stack[-1]["depth"] == depth - 1:
                stack[-1]["members"].append([None, 0])
                where = "member"
            continue
        if not where:
            continue
        m = re.search(r"DW_AT_(name|byte_size|data_member_location)\s*:\s*(.*)", line)
        if not m:
            continue
        word = m[2].split()[-1]
        if m[1] == "name" and where == "struct":
            stack[-1]["name"] = word
        elif m[1] == "name":
            stack[-1]["members"][-1][0] = word
        elif m[1] == "byte_size" and where == "struct":
            stack[-1]["size"] = int(word, 0)
        elif m[1] == "data_member_location" and where == "member":
            stack[-1]["members"][-1][1] = int(word, 0)
    return out


def compare_structures():
    musl, glibc = structures(build + "/kvmsbox"), structures(build + "/libkvmsbox.a")
    both = [n for n in musl.keys() & glibc.keys() if not n.startswith(("_", "pthread"))]
    if len(both) < 300:
        sys.exit(f"only {len(both)} structures are in both builds: are they built with -g?")
    bad = []
    for n in both:
        if musl[n] & glibc[n] or n in STRUCTURES:
            continue
        sizes = [{size for size, _ in v[n]} for v in (musl, glibc)]
        if sizes[0] == sizes[1] and n in NAMES:
            continue
        bad.append(f"struct {n}: musl {sorted(musl[n])[:1]}, glibc {sorted(glibc[n])[:1]}")
    return len(both), bad, [n for n in STRUCTURES if n not in musl or musl[n] & glibc.get(n, set())]


def values(compiler, ids, includes, scratch):
    """The values of those that are macros and integers."""
    skip = set()
    while True:
        body = includes + ["#include <stdio.h>", "int main(void)", "{"] + [
            f'\n#ifdef {i}\nprintf("{i} %lld\\n", (long long)({i}));\n#endif' for i in ids
            if i not in skip] + ["}", ""]
        text = "\n".join(body)
        with open(scratch + "/t.c", "w") as f:
            f.write(text)
        r = subprocess.run(compiler + ["-w", "-fmax-errors=0", "-D_GNU_SOURCE",
                                       "-D_FILE_OFFSET_BITS=64", "-o", scratch + "/t",
                                       scratch + "/t.c"],
                           capture_output=True, text=True, check=False)
        if r.returncode == 0:
            r = subprocess.run([scratch + "/t"], capture_output=True, text=True, check=True)
            return dict(line.split() for line in r.stdout.splitlines())
        lines, more = text.split("\n"), set()
        for m in re.finditer(r"/t\.c:(\d+):\d+: (?:error|note)", r.stderr):
            named = re.match(r'printf\("(\w+) ', lines[int(m[1]) - 1])
            if named:
                more.add(named[1])
        if not more - skip:
            sys.exit(r.stderr[:600])
        skip |= more


def compare_constants():
    sources = [f for d in ("sentry", "platform", "vfs", "loader", "arch", "tools/kvmsbox")
               for f in glob.glob(d + "/**/*.[ch]", recursive=True)]
    text = "\n".join(open(f).read() for f in sources)
    # These define what others of them do, too, or are no libc's.
    ours = re.compile(r"archive|openssl|zlib|seccomp|xxhash|jansson|libfdt|netinet|rseq|"
                      r"linux/(tcp|udp|un|in)")
    includes = [i for i in sorted(set(re.findall(r"#include <[^>]*>", text))) if not ours.search(i)]
    ids = [i for i in sorted(set(re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", text)))
           if not i.startswith(("XATTR_", "ELFMAG", "PTHREAD_", "PAGE_"))]
    musl_gcc = ["musl-gcc", "-isystem", build + "/musl/include", "-include", "sentry/lib/musl.h",
                "-I."]
    with tempfile.TemporaryDirectory() as scratch:
        musl = values(musl_gcc, ids, includes, scratch)
        glibc = values(["gcc"], ids, includes, scratch)
    both = musl.keys() & glibc.keys()
    if len(both) < 500:
        sys.exit(f"only {len(both)} constants are in both libcs' headers")
    bad = [f"{i}: musl {musl[i]}, glibc {glibc[i]}" for i in sorted(both)
           if musl[i] != glibc[i] and i not in CONSTANTS]
    return len(both), bad, [i for i in CONSTANTS if musl.get(i) == glibc.get(i)]


if what == "known":
    left = compare_structures()[2] + compare_constants()[2]
    if left:
        sys.exit("no longer different, strike them out: " + ", ".join(left))
    print(f"{len(STRUCTURES) + len(CONSTANTS)} differences are as listed")
else:
    n, differ, _ = compare_structures() if what == "structures" else compare_constants()
    if differ:
        sys.exit("\n".join(differ))
    print(f"{n} are alike")
