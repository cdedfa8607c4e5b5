#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Does the benchmark see what it should? A kvmsbox that is slow by design must look slow, a doctored
# baseline must be noticed, reports must be complete and well-formed, bad input must end in one line.
#
#	tools/bench/selftest.sh		(BUILD, KVMSBOX as for the other tests)
. "$(dirname "$0")/../../test/lib.sh"
bench=$BUILD/kvmsbox-bench
dir=$(mktemp -d "${TMPDIR:-/tmp}/bench-selftest.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
run() { timeout 300 "$bench" --kvmsbox "$KVMSBOX" "$@" </dev/null; }
leftovers() { find "${TMPDIR:-/tmp}" /dev/shm -maxdepth 1 -name 'kvmsbox-bench.*' | sort; }
# check NAME CONDITION…: what the condition says goes to the log if it is false.
check() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then pass "$name"; else fail "$name" "$out"; fi
}
# json FILE EXPRESSION: a Python expression of d, the parsed file, and its rows by name.
json() {
	python3 - "$@" <<'EOF'
import json, sys
d = json.load(open(sys.argv[1]))
r = {x["name"]: x["results"] for x in d["rows"]} if isinstance(d["rows"], list) else d["rows"]
ok = eval(sys.argv[2])
if not ok:
    print(sys.argv[2], json.dumps(r)[:600])
sys.exit(not ok)
EOF
}
# one_line NAME STATUS TEXT ARGUMENT…
one_line() {
	local name=$1 want=$2 text=$3 st=0
	shift 3
	run "$@" >"$dir/out" 2>"$dir/err" || st=$?
	if [ "$st" = "$want" ] && [ "$(wc -l <"$dir/err")" = 1 ] && grep -q -- "$text" "$dir/err" &&
		[ ! -s "$dir/out" ]; then
		pass "$name"
	else
		fail "$name" "status $st, wanted $want" "$(cat "$dir/err")" "$(head -n 3 "$dir/out")"
	fi
}

before=$(leftovers)

one_line "unknown option" 2 "unknown option --bogus" --bogus
one_line "unknown row" 2 "no row matches nothing" --rows nothing
one_line "unknown column" 2 "no column nothing" --columns nothing
one_line "option without its value" 2 "wants a value" --rounds
one_line "rounds that are no number" 2 "wants a number" --rounds many
one_line "rounds of zero" 2 "wants a number" --rounds 0
one_line "copies that are none" 2 "wants a number" --copies 0
one_line "an argument too many" 2 "unexpected argument" getppid
one_line "no kvmsbox" 2 "not installed" --kvmsbox "$dir/none" --columns ptrace
one_line "no guest programs" 2 "can't read" --guest "$dir/none" --rows getppid --columns native
one_line "a baseline that isn't there" 2 "can't read the baseline" --baseline "$dir/none" \
	--rows getppid --columns native
# --help and --list say what there is and succeed.
for o in --help --list; do
	check "$o" bash -c "'$bench' $o >'$dir/out' && [ \$(wc -l <'$dir/out') -gt 15 ]"
done

# A kvmsbox that takes 60 ms more for every start: slower when starting, not inside.
printf '#!/bin/sh\nsleep 0.06\nexec "%s" "$@"\n' "$KVMSBOX" >"$dir/slow"
chmod +x "$dir/slow"
st=0
run --column "slow=@$dir/slow --platform ptrace" --columns native,ptrace,slow --rounds 3 --ms 20 \
	--rows start-true,getppid,exits-getppid,exits-clock,pss-idle,run-rate --json "$dir/a.json" --html "$dir/a.html" \
	--write-baseline "$dir/base.json" >"$dir/table" 2>"$dir/err" || st=$?
check "a run succeeds" [ "$st" = 0 ]
check "nothing on standard error of a run" [ ! -s "$dir/err" ]
check "a slow start is seen as slow" json "$dir/a.json" \
	'r["start-true"]["slow"]["median"] - r["start-true"]["ptrace"]["median"] > 50e6'
check "fewer runs per second count as dearer" json "$dir/a.json" \
	'r["run-rate"]["slow"]["median"] < r["run-rate"]["ptrace"]["median"] and r["run-rate"]["slow"]["to_ptrace"]["median"] > 1.3'
check "what isn't slower isn't seen as slower" json "$dir/a.json" \
	'0.5 < r["getppid"]["slow"]["to_ptrace"]["median"] < 2'
check "native is the cheapest" json "$dir/a.json" \
	'all(r[n][c]["to_native"]["median"] > 1.5 for n in ("start-true", "getppid") for c in ("ptrace", "slow"))'
# On a loaded machine the warden moves a thread now and then, which is a stray one.
check "one exit per call" json "$dir/a.json" 'abs(r["exits-getppid"]["ptrace"]["median"] - 1) < 0.02'
check "all values are kept" json "$dir/a.json" \
	'all(len(v["values"]) == 3 and v["q1"] <= v["median"] <= v["q3"] for v in r["getppid"].values())'
check "the machine is described" json "$dir/a.json" \
	'all(d["facts"].get(k) for k in ("CPU", "kernel", "KVM", "memory", "date", "kvmsbox"))'
check "rows without native have no ratio" json "$dir/a.json" \
	'"native" not in r["exits-getppid"] and "to_native" not in r["exits-getppid"]["ptrace"]'
check "the table fits 100 columns" python3 -c \
	'import sys; long = [l for l in open(sys.argv[1]) if len(l) > 101]; print(*long); sys.exit(bool(long))' \
	"$dir/table"
for row in start-true getppid exits-getppid exits-clock pss-idle run-rate; do
	check "row $row is in the table and the report" bash -c \
		"grep -q '^  $row' '$dir/table' && grep -q '<td title=[^>]*>$row</td>' '$dir/a.html'"
done
cat >"$dir/page.py" <<'EOF'
import html.parser, re, sys
text = open(sys.argv[1]).read()
class P(html.parser.HTMLParser):
    void = {"meta", "line"}
    stack, svgs = [], 0
    def handle_starttag(self, tag, attrs):
        self.svgs += tag == "svg"
        if tag not in self.void:
            self.stack.append(tag)
    def handle_startendtag(self, tag, attrs): pass
    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1] == tag, (tag, self.stack)
        self.stack.pop()
p = P()
p.feed(text)
assert p.svgs >= int(sys.argv[2]), p.svgs
assert not p.stack, p.stack
assert not re.search(r"(src|href)=|https?://|@import|url\(", text), "loads something"
assert "nan" not in text.lower() and "inf'" not in text
EOF
check "the report is well-formed, has charts, loads nothing" python3 "$dir/page.py" "$dir/a.html" 3

# JSON to stdout is nothing but JSON.
run --columns native --rows getppid,clock_gettime --rounds 1 --ms 10 --json - >"$dir/b.json" 2>/dev/null
check "--json - parses" json "$dir/b.json" 'len(d["rows"]) == 2'

# Against baselines. The doctored one says everything once cost a third.
cmp() {
	run --columns native,ptrace --rounds 3 --ms 20 --rows "$1" --baseline "$2" ${3:+"$3"} >"$dir/cmp" 2>&1
}
python3 - "$dir" <<'EOF'
import json, sys
d = json.load(open(sys.argv[1] + "/base.json"))
for row in d["rows"].values():
    row.pop("slow", None)
json.dump(d, open(sys.argv[1] + "/same.json", "w"))
wide = json.loads(json.dumps(d))
for row in wide["rows"].values():
    for c in row.values():
        c["q1"], c["median"], c["q3"] = c["q1"] / 3, c["median"] / 3, c["q3"] / 3
json.dump(wide, open(sys.argv[1] + "/third.json", "w"))
for row in wide["rows"].values():
    for c in row.values():
        c["q3"] = c["q3"] * 1000
json.dump(wide, open(sys.argv[1] + "/noisy.json", "w"))
d["facts"]["CPU"] = "a slide rule"
json.dump(d, open(sys.argv[1] + "/other.json", "w"))
EOF
# The same thresholds, with room for a noisy machine: rows that are counts.
check "counts equal to the baseline pass" cmp exits-getppid "$dir/same.json"
check "the closing line counts them" grep -qx "1 passed, 0 failed, 0 skipped" "$dir/cmp"
cmp exits-getppid,getppid "$dir/third.json"
check "a ratio three times the baseline's fails" [ $? = 1 ]
check "and is named" grep -q "^not ok getppid ptrace: ratio was .* (+" "$dir/cmp"
check "so is a count" grep -q "^not ok exits-getppid ptrace: value was 0.3[0-9]*, is [01]." "$dir/cmp"
check "worse but within the spread passes" cmp getppid "$dir/noisy.json"
check "another machine's baseline is not compared with" cmp getppid "$dir/other.json"
check "and says so" grep -q "^skip all: the baseline is of another machine: CPU was 'a slide rule'" "$dir/cmp"
check "unless asked to" cmp exits-getppid "$dir/other.json" --any-machine
check "then it compares" grep -qx "1 passed, 0 failed, 0 skipped" "$dir/cmp"

# A kvmsbox that fails is a failure, not a missing value.
printf '#!/bin/sh\ncase "$*" in *micro*) echo "broken on purpose" >&2; exit 3 ;; esac\nexec "%s" "$@"\n' \
	"$KVMSBOX" >"$dir/broken"
chmod +x "$dir/broken"
st=0
timeout 100 "$bench" --kvmsbox "$dir/broken" --columns native,ptrace --rounds 2 --ms 10 --rows getppid \
	>"$dir/out" 2>&1 </dev/null || st=$?
check "a failing kvmsbox makes status 1" [ "$st" = 1 ]
check "with its last words" grep -q "^failed getppid on ptrace: .*status 3: broken on purpose" "$dir/out"
# One that never works leaves as a column, with the reason.
printf '#!/bin/sh\necho "never works" >&2\nexit 125\n' >"$dir/broken"
timeout 100 "$bench" --kvmsbox "$dir/broken" --columns native,ptrace --rounds 1 --ms 10 --rows getppid \
	>"$dir/out" 2>&1 </dev/null
check "a column that can't run says why" grep -q "^skipped column ptrace: .*never works" "$dir/out"

# Functions: behind a server, alone, and copied; slow to start is slow to copy and no slower to ask.
st=0
run --column "slow=@$dir/slow --platform ptrace" --columns native,ptrace,slow --rounds 1 --ms 10 \
	--rows 'fn-cgi,fn-hello*,fn-p99,fn-reset*,fn-clone*' --json "$dir/f.json" --html "$dir/f.html" \
	>"$dir/table" 2>"$dir/err" || st=$?
check "functions are measured" bash -c "[ $st = 0 ] && [ ! -s '$dir/err' ] || { cat '$dir/err' '$dir/table'; exit 1; }"
check "every row of theirs has every column" json "$dir/f.json" \
	'len(r) == 9 and all(set(c) == {"native", "ptrace", "slow"} and all(v.get("n") for v in c.values()) for c in r.values())'
check "the median isn't above the 99th percentile" json "$dir/f.json" \
	'all(r["fn-hello-p50"][c]["median"] <= r["fn-hello-p99"][c]["median"] and r["fn-p99"][c]["median"] >= 1 for c in r["fn-p99"])'
check "a reset is part of its request's cycle" json "$dir/f.json" \
	'all(r["fn-reset"][c]["median"] < r["fn-reset-run"][c]["median"] for c in ("ptrace", "slow"))'
check "a copy of a slow start is slow" json "$dir/f.json" 'r["fn-clone"]["slow"]["median"] > 60e6'
check "a blank that is there already is not" json "$dir/f.json" \
	'r["fn-clone-blank"]["slow"]["median"] < r["fn-clone"]["slow"]["median"]'
check "a sandbox per request is slower than a function" json "$dir/f.json" \
	'all(r["fn-cgi"][c]["median"] < r["fn-hello"][c]["median"] for c in ("ptrace", "slow"))'
check "targets are in JSON, with a verdict" json "$dir/f.json" \
	'len(d["targets"]) == 14 and all(t["met"] == (t["median"] <= t["most"]) for t in d["targets"])'
check "in the table, and the report" bash -c \
	"grep -Eq '^  (met|missed) +fn-clone-blank on ptrace: .*, want 100% at most' '$dir/table' && grep -q '<td>fn-reset, ptrace</td>' '$dir/f.html'"
check "which is well-formed, too, and has a chart" python3 "$dir/page.py" "$dir/f.html" 1

# What kvmsbox load writes is believed to the letter, or not at all.
cat >"$dir/loads" <<EOF
#!/bin/bash
if [ "\$1" = load ]; then
	while [ "\$1" != --json ]; do shift; done
	cp "$dir/load.json" "\$2"
	exit
fi
exec "$KVMSBOX" "\$@"
EOF
chmod +x "$dir/loads"
# loads NAME JSON STATUS TEXT
loads() {
	local st=0
	echo "$2" >"$dir/load.json"
	timeout 100 "$bench" --kvmsbox "$dir/loads" --columns ptrace --rounds 1 --ms 10 --rows fn-hello,fn-p99 \
		--json "$dir/l.json" >"$dir/out" 2>&1 </dev/null || st=$?
	check "$1" bash -c "[ $st = $3 ] && grep -q -- '$4' '$dir/out' || { echo status $st; cat '$dir/out'; exit 1; }"
}
loads "a load's results" '{"requests": 9, "errors": 0, "per_second": 1234.5, "latency_ns": {"p50": 200, "p99": 700}}' \
	0 fn-hello
check "are the row's, number by number" json "$dir/l.json" \
	'r["fn-hello"]["ptrace"]["median"] == 1234.5 and r["fn-p99"]["ptrace"]["median"] == 3.5'
loads "no JSON" '{"requests": ' 1 "^failed fn-hello on ptrace: what kvmsbox load wrote is no JSON"
loads "no latencies" '{"requests": 9, "errors": 0, "per_second": 12.5}' 1 "^failed fn-hello on ptrace: .* no rate or latencies"
loads "percentiles upside down" '{"errors": 0, "per_second": 1, "latency_ns": {"p50": 9, "p99": 8}}' 1 \
	"no rate or latencies"
loads "failed requests" \
	'{"requests": 9, "errors": 2, "per_second": 5, "errors_by_kind": {"status": {"count": 2, "first": "it said 502"}}}' \
	1 "^failed fn-hello on ptrace: 2 of 9 requests failed: it said 502"
# A sandbox that dies is a failure with its last words.
printf '#!/bin/sh\ncase "$*" in *channel*) echo "broken on purpose" >&2; exit 3 ;; esac\nexec "%s" "$@"\n' \
	"$KVMSBOX" >"$dir/broken"
timeout 100 "$bench" --kvmsbox "$dir/broken" --columns ptrace --rounds 1 --ms 10 --rows fn-reset,fn-clone \
	>"$dir/out" 2>&1 </dev/null
check "a function that can't start says why" \
	grep -q "^failed fn-clone on ptrace: the sandbox ended: broken on purpose" "$dir/out"

# Interrupted: gone at once, nothing left.
"$bench" --kvmsbox "$KVMSBOX" --rows start-true --rounds 60 >"$dir/out" 2>&1 </dev/null &
pid=$!
for _ in $(seq 100); do
	[ "$(leftovers)" = "$before" ] || break
	sleep 0.05
done
sleep 1
kill -TERM "$pid"
st=0
wait "$pid" || st=$?
check "an interrupted run says so, with status 2" bash -c \
	"[ $st = 2 ] && grep -q interrupted '$dir/out' || { echo status $st; cat '$dir/out'; exit 1; }"
check "nothing is left in the scratch places" [ "$(leftovers)" = "$before" ]
finish
