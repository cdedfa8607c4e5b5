#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Checks every #include "…" of the tree against tools/layers.tbl: a file includes its own row of the
# table or a lower one, nothing that is denied to it, only files that exist, and its own header
# (or its folder's internal.h, which includes it) first.
#
#	tools/check-layers.sh [DIR]		check the tree at DIR (default: this one)
#	tools/check-layers.sh --self-test	plant bad includes in a scratch tree; each must be found
#
# The last line is "N passed, N failed, N skipped" (one per file, or one per planted fault).
set -u
here=$(cd "$(dirname "$0")" && pwd)
table=$here/layers.tbl

check_tree() {
	cd "$1" || return 2
	find arch platform vfs loader sentry tools -type f -name '*.[chS]' 2>/dev/null | sort |
	awk -v table="$table" '
	function starts(s, prefix) { return prefix == "*" || substr(s, 1, length(prefix)) == prefix }
	function row(path,	i, best, r) {
		best = -1; r = -1
		for (i = 1; i <= nlayer; i++)
			if (starts(path, lpre[i]) && length(lpre[i]) > best) {
				best = length(lpre[i]); r = lrow[i]
			}
		return r
	}
	function allowed(from, to,	i) {
		for (i = 1; i <= nallow; i++)
			if (starts(from, afrom[i]) && starts(to, ato[i])) { aused[i] = 1; return 1 }
		return 0
	}
	function denied(from, to,	i) {
		for (i = 1; i <= ndeny; i++)
			if (starts(from, dfrom[i]) && starts(to, dto[i]) && !starts(from, dto[i]))
				return dwhy[i]
		return ""
	}
	function complain(where, text) { print "not ok " where ": " text; bad = 1 }
	function exists(path,	l, r) {
		if (path in known) return known[path]
		r = (getline l < path) >= 0
		close(path)
		return known[path] = r
	}
	# What an include means: from the root, from arch/CPU/, or beside the file.
	function resolve(file, inc,	dir) {
		if (exists(inc)) return inc
		dir = file; sub(/[^\/]*$/, "", dir)
		if (file ~ /^arch\// && exists(dir inc)) return dir inc
		for (i = 1; i <= narch; i++)
			if (exists(arch[i] inc)) return arch[i] inc
		return ""
	}
	function check_file(file,	line, inc, to, n, r, t, why, own, first) {
		r = row(file); bad = 0; n = 0; first = ""
		if (r < 0) complain(file, "is in no layer of the table")
		while ((getline line < file) > 0) {
			n++
			if (line !~ /^[ \t]*#[ \t]*include[ \t]*"/) continue
			inc = line; sub(/^[^"]*"/, "", inc); sub(/".*/, "", inc)
			to = resolve(file, inc)
			if (first == "") first = to
			if (to == "") {
				if (inc !~ /\.(so|tbl)$/ && inc ~ /\.(h|c|def)$/)
					complain(file ":" n, "includes \"" inc "\", which is not there from the root")
				continue
			}
			if (allowed(file, to)) continue
			t = row(to)
			if (t < 0) complain(file ":" n, "includes \"" inc "\", which is in no layer")
			else if (t > r) complain(file ":" n, "row " r " includes \"" inc "\" of row " t)
			else if ((why = denied(file, to)) != "")
				complain(file ":" n, "must not include \"" inc "\": " why)
		}
		close(file)
		if (file ~ /\.c$/) {
			own = file; sub(/\.c$/, ".h", own)
			inner = file; sub(/[^\/]*$/, "internal.h", inner)
			if (exists(own) && first != own && first != inner)
				complain(file, "must include its own header first")
		}
		if (bad) failed++; else passed++
	}
	BEGIN {
		while ((getline line < table) > 0) {
			sub(/#.*/, "", line)
			n = split(line, w, /[ \t]+/)
			if (w[1] == "layer") { lpre[++nlayer] = w[2]; lrow[nlayer] = w[3] }
			else if (w[1] == "deny" || w[1] == "allow") {
				why = w[4]
				for (i = 5; i <= n; i++) why = why " " w[i]
				if (why == "") { print "not ok " table ": no reason: " line; failed++ }
				if (w[1] == "deny") { dfrom[++ndeny] = w[2]; dto[ndeny] = w[3]; dwhy[ndeny] = why }
				else { afrom[++nallow] = w[2]; ato[nallow] = w[3] }
			} else if (n && w[1] != "") { print "not ok " table ": " line; failed++ }
		}
	}
	{ files[NR] = $0; if (match($0, /^arch\/[^\/]*\//)) { a = substr($0, 1, RLENGTH); if (!(a in seen)) { seen[a] = 1; arch[++narch] = a } } }
	END {
		if (!nlayer) { print "not ok " table ": no table"; failed++ }
		for (k = 1; k <= NR; k++) check_file(files[k])
		if (!passed) { print "not ok: no file was checked"; failed++ }
		printf "%d passed, %d failed, 0 skipped\n", passed, failed
		exit failed != 0
	}'
}

# Plants one fault: a file with one include line. Prints ok when the checker names it.
plant() {
	file=$1 line=$2 want=$3
	rm -rf "$scratch/t"
	mkdir -p "$scratch/t"
	(cd "$scratch/t" && mkdir -p arch/x86_64 platform/kvm vfs/procfs loader sentry/lib sentry/mm \
		sentry/syscalls tools/kvmsbox
	for h in arch/x86_64/arch.h platform/platform.h vfs/vfs.h vfs/procfs/procfs.h loader/elf.h \
		sentry/lib/list.h sentry/mm/mm.h sentry/task.h sentry/syscalls/fileio.h; do
		echo '/* empty */' >$h
	done
	printf '%s\n' "$line" >"$file")
	out=$(check_tree "$scratch/t")
	st=$?
	if [ "$want" = good ] && [ $st -eq 0 ] || { [ "$want" = bad ] && [ $st -eq 1 ] &&
		printf '%s' "$out" | grep -q "^not ok $file"; }; then
		echo "ok $want: $file: $line"
		passed=$((passed + 1))
	else
		echo "not ok $want: $file: $line"
		failed=$((failed + 1))
	fi
}

self_test() {
	scratch=$(mktemp -d) || exit 2
	trap 'rm -rf "$scratch"' EXIT
	passed=0 failed=0
	plant sentry/lib/x.c '#include "sentry/task.h"' bad
	plant sentry/lib/x.c '#include "arch.h"' bad
	plant arch/x86_64/x.c '#include "platform/platform.h"' bad
	plant platform/kvm/x.c '#include "sentry/task.h"' bad
	plant platform/kvm/x.c '#include "vfs/vfs.h"' bad
	plant vfs/x.c '#include "platform/platform.h"' bad
	plant vfs/x.c '#include "arch.h"' bad
	plant vfs/x.c '#include "vfs/procfs/procfs.h"' bad
	plant sentry/mm/x.c '#include "loader/elf.h"' bad
	plant loader/x.c '#include "sentry/task.h"' bad
	plant sentry/x.c '#include "sentry/syscalls/fileio.h"' bad
	plant sentry/x.c '	#  include "sentry/syscalls/fileio.h"' bad
	plant tools/kvmsbox/x.c '#include "sentry/syscalls/fileio.h"' bad
	plant sentry/x.c '#include "sentry/nowhere.h"' bad
	plant loader/elf.c '#include "sentry/lib/list.h"' bad
	plant sentry/lib/x.c '#include "sentry/lib/list.h"' good
	plant platform/kvm/x.c '#include "arch.h"' good
	plant vfs/procfs/x.c '#include "sentry/task.h"' good
	plant sentry/boot.c '#include "vfs/procfs/procfs.h"' good
	plant loader/elf.c '#include "loader/elf.h"' good
	echo "$passed passed, $failed failed, 0 skipped"
	[ $failed -eq 0 ]
}

case ${1:-} in
--self-test) self_test ;;
-*) echo "usage: check-layers.sh [--self-test | DIR]" >&2; exit 2 ;;
*) check_tree "${1:-$here/..}" ;;
esac
