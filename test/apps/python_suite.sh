#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# python3 -m test of what leans on the kernel, compared test by test with a native run (python_compare.py);
# what may differ is in python-expected.txt.
#
#	python_suite.sh PLATFORM		all; the last line counts tests
#	python_suite.sh PLATFORM MODULE DIR	runs one module: DIR/results, DIR/log
#
# Environment: PYTHON_SUITE="test_os test_io", only these; PYTHON_KEEP=DIR, keeps results and logs in
# DIR/PLATFORM/MODULE; PYTHON_NATIVE=DIR, where the native results are kept (default in the test cache).
#
# timeout: 14400
# long
export BOX_LIMIT=${BOX_LIMIT:-1500}
. "$(dirname "$0")/app.sh"
if [ $# -eq 3 ]; then
	cp "$HERE/python_record.py" "$3/record.py"
	BOX_OPTS=("--volume=$3:/out" --env=HOME=/tmp --env=LC_ALL=C.UTF-8)
	cmd=(python3 /out/record.py /out/results --timeout $((BOX_LIMIT - 20)) -v "$2")
	[ "$PLATFORM" = native ] || while read -r name; do
		cmd+=(--ignore "*.$name")
	done < <(awk -F ' *[|] *' -v m="$2." -v p="@$PLATFORM" 'index($1, m) == 1 && $2 == "doesn\47t end" {
		only = $1; sub(/^[^@]*/, "", only); sub(/@.*/, "", $1); if (only == "" || only == p) print $1 }' "$HERE/python-expected.txt")
	if [ "$2" = test_ioctl ]; then
		# Wants a controlling terminal.
		BOX_OPTS+=(--tty)
		export -f box
		script -qefc "$(declare -p BOX_OPTS BOX_LIMIT PLATFORM; declare -p KVMSBOX TEST_CACHE IMAGE TREE 2>/dev/null); $(declare -f box)
			box ${cmd[*]@Q}" "$3/log" >/dev/null 2>&1 </dev/null
	else
		box "${cmd[@]}" >"$3/log" 2>&1 </dev/null
	fi
	exit
fi

suite=${PYTHON_SUITE:-test_os test_subprocess test_threading test_signal test_mmap
	test_posix test_io test_fcntl test_select test_poll test_epoll test_pty test_tempfile test_shutil
	test_glob test_pathlib test_time test_resource test_multiprocessing_fork test_concurrent_futures
	test_asyncio test_zipfile test_tarfile test_file test_fileio test_largefile test_stat
	test_pwd test_grp test_getpass test_cmd_line test_faulthandler test_memoryview test_openpty
	test_fork1 test_wait3 test_wait4 test_thread test_sched test_popen test_posixpath test_ioctl
	test_mailbox test_dbm test_shelve
	test_socket test_selectors test_httpservers test_urllib2_localnet test_xmlrpc test_ftplib test_smtplib
	test_poplib test_ssl}
keep=${PYTHON_KEEP:-$SCRATCH/python}
native=${PYTHON_NATIVE:-$TEST_CACHE/python-native}
tree=$("$ROOT/test/images.sh" debian-tree) || { fail "the Debian tree"; finish; }

# run PLATFORM MODULE DIR: sets status; DIR/results is made anew.
run() {
	rm -rf "$3"
	mkdir -p "$3"
	timeout -k 10 $((BOX_LIMIT + 60)) bash "$0" "$1" "$2" "$3"
	status=$?
}

for module in $suite; do
	start=$SECONDS
	base=$native/$module
	# Without root there is no native run to compare with; then every listed difference still counts.
	if [ "$PLATFORM" != native ] && [ ! "$base/results" -nt "$tree/.made-by-images.sh" ] && [ "$(id -u)" = 0 ]; then
		run native "$module" "$base.$$"
		rm -rf "$base" && mv "$base.$$" "$base"
	fi
	[ -s "$base/results" ] && base=$base/results || base=-
	[ "$PLATFORM" != native ] || base=-
	dir=$keep/$PLATFORM/$module
	run "$PLATFORM" "$module" "$dir"
	if [ ! -s "$dir/results" ]; then
		if grep -qa "^$module skipped" "$dir/log"; then
			skip "$module" "$(grep -am 1 "^$module skipped" "$dir/log")"
			continue
		fi
		fail "$module: nothing ran, status $status" "$(tail -n 5 "$dir/log")"
		continue
	fi
	python3 "$HERE/python_compare.py" "$module" "$PLATFORM" "$HERE/python-expected.txt" "$base" "$dir/results" >"$SCRATCH/compared"
	grep -aE '^(not ok|skip|#) ' "$SCRATCH/compared"
	if [[ $(tail -n 1 "$SCRATCH/compared") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
		passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
		skipped=$((skipped + BASH_REMATCH[3]))
	else
		fail "$module: can't be compared" "$(tail -n 3 "$SCRATCH/compared")"
	fi
	# Nothing bad in a test and yet not well: something outside of them, as a descriptor that leaks.
	if [ "$status" -ne 0 ] && ! grep -qaE '^(fail|error) ' "$dir/results" && grep -qa '^ok ' "$dir/results"; then
		fail "$module: status $status" "$(tail -n 5 "$dir/log")"
	fi
	echo "# $module: $((SECONDS - start)) s"
done
finish
