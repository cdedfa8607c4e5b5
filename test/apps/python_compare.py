# SPDX-License-Identifier: Apache-2.0
"""Judges what a module of python3's suite did inside by what it did natively and by what is listed.

usage: python_compare.py MODULE PLATFORM EXPECTED NATIVE INSIDE

NATIVE and INSIDE were written by python_record.py. EXPECTED has lines

    NAME[@PLATFORM] | MESSAGE | REASON

NAME and MESSAGE being shell patterns (an empty MESSAGE matches any). Such a test may fail inside, or be
skipped there only; it counts as skipped. Nothing else may differ from the native run:

    fails, hangs, isn't reached    a failure, unless it does the same natively: then a skip
    is skipped by itself           counted in the comment line; a failure if it runs natively
    is listed and passes           a failure (the list is to be shortened), unless it is listed for its
                                   message only, or for a name with a wildcard: then one must still match

Prints "skip …" and "not ok …" lines, a comment line with the numbers, and as the last line
"N passed, N failed, N skipped". NATIVE may be "-": then nothing is known of it, and for the native run
itself only failures count.
"""
import fnmatch
import re
import sys

BAD = ("fail", "error", "hang")


def load(path):
    results = {}
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            what, _, rest = line.rstrip("\n").partition(" ")
            name, _, message = rest.partition("\t")
            if what == "start":
                results.setdefault(name, ("hang", "doesn't end"))
            elif results.get(name, ("",))[0] not in BAD[:2]:
                results[name] = (what, message)
    return results


def load_expected(path, module, platform):
    entries = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            if not line.strip() or line.startswith("#"):
                continue
            name, message, reason = (x.strip() for x in line.split("|", 2))
            name, _, only = name.partition("@")
            if (only and only != platform) or not fnmatch.fnmatchcase(module, name.split(".")[0]):
                continue
            entries.append({"name": name, "message": message, "reason": reason, "used": False})
    return entries


def main():
    module, platform, expected_path, native_path, inside_path = sys.argv[1:]
    inside = load(inside_path)
    native = load(native_path) if native_path != "-" else {}
    expected = load_expected(expected_path, module, platform) if platform != "native" else []
    passed = failed = skipped = own = 0

    def find(name, message):
        for e in expected:
            if fnmatch.fnmatchcase(name, e["name"]) and (
                    not e["message"] or fnmatch.fnmatchcase(message, e["message"])):
                e["used"] = True
                return e["reason"]
        return None

    lost = [n for n in native if n not in inside and native[n][0] == "ok"]
    for name, (what, message) in sorted(inside.items()):
        there = native.get(name, ("unknown", ""))[0]
        differs = what in BAD or (what == "skip" and there == "ok")
        if what == "skip" and not differs:
            own += 1
        elif not differs:
            exact = [e for e in expected if e["name"] == name and not e["message"]]
            if exact:
                exact[0]["used"] = True
                print(f"not ok {name}: is listed ({exact[0]['reason']}) but passes")
                failed += 1
            else:
                passed += 1
        elif reason := find(name, message):
            print(f"skip {name}: {reason}")
            skipped += 1
        elif there in BAD:
            print(f"skip {name}: fails natively too: {message}")
            skipped += 1
        else:
            print(f"not ok {name}: {what}: {message}")
            failed += 1
    for name in lost:
        if reason := find(name, "isn't reached") or find(name, "doesn't end"):
            print(f"skip {name}: {reason}")
            skipped += 1
        else:
            print(f"not ok {name}: isn't reached")
            failed += 1
    for e in expected:
        wild = re.search(r"[*?\[]", e["name"])
        # A pattern for all modules says nothing about this one.
        if not e["used"] and not (wild and re.search(r"[*?\[]", e["name"].split(".")[0])):
            print(f"not ok {e['name']} | {e['message']}: is listed but nothing matches")
            failed += 1
    print(f"# {module}: {passed} ok, {failed} not ok, {skipped} listed or failing natively, {own} skipped by themselves")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


main()
