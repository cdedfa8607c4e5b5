#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The command line as its users see it: statuses, streams, signals, every option, and bad input, which
# ends in one line on stderr and the documented status and leaves nothing behind.
#
#	test/cli/run.sh ptrace|systrap|kvm [NAME-PATTERN]
. "$(dirname "$0")/../lib.sh"
platform=${1:-ptrace}
pattern=${2:-}
if [ "$platform" = kvm ]; then
	why=$(kvm_missing)
	[ -z "$why" ] || { skip "cli on kvm" "$why"; finish; }
fi
need_kvmsbox
busybox_tar=$("$ROOT/test/images.sh" busybox) || { fail "make the BusyBox image"; finish; }
export TMPDIR=$SCRATCH/tmp
mkdir "$TMPDIR" "$SCRATCH/vol"
chmod 755 "$SCRATCH" "$SCRATCH/vol"
cache=$SCRATCH/cache
image=$SCRATCH/cli.tar

# The image: BusyBox and programs that can't run.
make_image() {
	local d=$SCRATCH/image
	mkdir -p "$d/bad" "$d/bad/dir" "$d/closed"
	cp "$busybox_tar" "$image"
	printf '#!/bad/loop\n' >"$d/bad/loop"
	printf '#!/bad/loop2\n' >"$d/bad/loop1"
	printf '#!/bad/loop1\n' >"$d/bad/loop2"
	printf '#!/no/such/interpreter\n' >"$d/bad/script-nointerp"
	printf '#!/bin/busybox sh\necho script "$@"\n' >"$d/bad/good-script"
	printf 'just text\n' >"$d/bad/text"
	: >"$d/bad/empty"
	head -c 40 "$(command -v busybox)" >"$d/bad/short-elf"
	head -c 3000 "$(command -v busybox)" >"$d/bad/truncated-elf"
	# e_machine is the 16 bits at offset 18: 183 is AArch64.
	cp "$(command -v busybox)" "$d/bad/arm"
	printf '\267\000' | dd of="$d/bad/arm" bs=1 seek=18 conv=notrunc status=none
	# 32-bit: EI_CLASS, the byte at offset 4.
	cp "$(command -v busybox)" "$d/bad/elf32"
	printf '\001' | dd of="$d/bad/elf32" bs=1 seek=4 conv=notrunc status=none
	echo 'int main(void) { return 0; }' >"$SCRATCH/m.c"
	gcc -o "$d/bad/elf-nointerp" "$SCRATCH/m.c" -Wl,--dynamic-linker=/no/such/ld.so
	chmod 755 "$d"/bad/*
	cp "$d/bad/good-script" "$d/bad/not-executable"
	chmod 644 "$d/bad/not-executable"
	chmod 700 "$d/closed"
	tar -C "$d" --owner=0 --group=0 -rf "$image" bad closed
}
make_image

# box OPTION… -- CMD…: in the test's image.
box() {
	local o=()
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		o+=("$1")
		shift
	done
	shift
	timeout -k 5 "${LIMIT:-30}" "$KVMSBOX" exec --platform="$platform" --cache "$cache" \
		${o[@]+"${o[@]}"} "$image" -- "$@"
}
wants() { [ -z "$pattern" ] || [[ $1 == *$pattern* ]]; }
# gives NAME WANT OPTION… -- CMD…: stdout and stderr as wanted, status 0.
gives() {
	local name=$1 want=$2 got st
	shift 2
	wants "$name" || return 0
	got=$(box "$@" 2>&1 </dev/null)
	st=$?
	if [ $st -ne 0 ]; then fail "$name" "exit status $st" "$got"; else expect "$name" "$want" "$got"; fi
}
# status NAME WANT OPTION… -- CMD…
status() {
	local name=$1 want=$2 got st
	shift 2
	wants "$name" || return 0
	got=$(box "$@" 2>&1 </dev/null)
	st=$?
	if [ $st -eq "$want" ]; then pass "$name"; else fail "$name" "exit status $st, not $want" "$got"; fi
}
leftovers() {
	{ ls -A "$TMPDIR"; ls -A /tmp | grep -i kvmsbox | grep -v '^kvmsbox-test\.'; } | sort
	[ ! -d "$cache" ] || find "$cache" -type f | sort
	ps -o pid=,comm= --ppid $$ | grep -i kvmsbox
}
# bad NAME STATUS REGEX CMD…: one line on stderr that matches, the status, and nothing left.
bad() {
	local name=$1 want=$2 regex=$3 st before err lines
	shift 3
	wants "$name" || return 0
	before=$(leftovers)
	LIMIT=${LIMIT:-30}
	"$@" >"$SCRATCH/stdout" 2>"$SCRATCH/stderr" </dev/null
	st=$?
	err=$(cat "$SCRATCH/stderr")
	lines=$(wc -l <"$SCRATCH/stderr")
	if [ $st -ne "$want" ]; then
		fail "$name" "exit status $st, not $want" "$err"
	elif [ "$lines" -ne 1 ]; then
		fail "$name" "$lines lines on stderr, not 1" "$err"
	elif ! grep -Eqi -- "$regex" <<<"$err"; then
		fail "$name" "want a match of: $regex" "$err"
	elif [ -s "$SCRATCH/stdout" ]; then
		fail "$name" "something on stdout" "$(head -c 200 "$SCRATCH/stdout")"
	elif [ "$before" != "$(leftovers)" ]; then
		fail "$name" "left behind:" "$(diff <(echo "$before") <(leftovers))"
	else
		pass "$name"
	fi
}
ex() { timeout -k 5 "${LIMIT:-30}" "$KVMSBOX" exec --platform="$platform" --cache "$cache" "$@"; }

# The import itself, so that the rest measures the rest.
box -- true >"$SCRATCH/first" 2>&1 </dev/null || echo "# true: status $? $(head -n 2 "$SCRATCH/first")"

# --- statuses
status exit_0 0 -- true
status exit_1 1 -- false
status exit_42 42 -- sh -c 'exit 42'
status exit_255 255 -- sh -c 'exit 255'
status exit_256_wraps 0 -- sh -c 'exit 256'
status killed_by_term 143 -- sh -c 'kill -TERM $$'
status killed_by_kill 137 -- sh -c 'kill -KILL $$'
status killed_by_segv 139 -- sh -c 'kill -SEGV $$'
status background_left 7 -- sh -c 'sleep 100 & exit 7'
status script_args 0 -- /bad/good-script a b
gives script_output "script a b" -- /bad/good-script a b
gives path_lookup "found" -- echo found
bad not_found 127 'nosuchprogram' box -- nosuchprogram
bad not_found_path 127 '/bin/nosuchprogram' box -- /bin/nosuchprogram
bad not_a_directory 127 '/etc/motd/x' box -- /etc/motd/x
bad not_executable 126 '/bad/not-executable.*ermission' box -- /bad/not-executable
bad is_directory 126 '/bad/dir' box -- /bad/dir
bad wrong_arch 126 '/bad/arm' box -- /bad/arm
bad elf32 126 '/bad/elf32' box -- /bad/elf32
bad short_elf 126 '/bad/short-elf' box -- /bad/short-elf
bad truncated_elf 126 '/bad/truncated-elf' box -- /bad/truncated-elf
bad text_file 126 '/bad/text' box -- /bad/text
bad empty_file 126 '/bad/empty' box -- /bad/empty
bad interp_loop 126 '/bad/loop' box -- /bad/loop
bad interp_loop2 126 '/bad/loop1' box -- /bad/loop1
bad script_nointerp 127 '/bad/script-nointerp' box -- /bad/script-nointerp
bad elf_nointerp 127 '/bad/elf-nointerp' box -- /bad/elf-nointerp
status exec_inside_nointerp 127 -- sh -c '/bad/elf-nointerp'

# --- streams
if wants streams; then
	expect stdin_pipe "HELLO" "$(echo hello | box -- tr a-z A-Z 2>&1)"
	echo from a file >"$SCRATCH/in"
	expect stdin_file "from a file" "$(box -- cat <"$SCRATCH/in" 2>&1)"
	expect stdin_seek "file" "$({ head -c 7 >/dev/null; box -- cat; } < <(tail -c +1 "$SCRATCH/in") 2>&1 | tail -c 5)"
	box -- sh -c 'echo out; echo err >&2' >"$SCRATCH/o" 2>"$SCRATCH/e" </dev/null
	expect stdout_stderr "out err" "$(cat "$SCRATCH/o") $(cat "$SCRATCH/e")"
	echo first >"$SCRATCH/o"
	box -- echo second >>"$SCRATCH/o" </dev/null
	expect stdout_append "first second" "$(paste -sd' ' "$SCRATCH/o")"
	want=$(head -c 50000000 /dev/zero | tr '\0' x | sha256sum)
	expect streams_50MB "$want" "$(head -c 50000000 /dev/zero | tr '\0' x | LIMIT=60 box -- cat 2>&1 | sha256sum)"
	expect stdout_closed_early "y" "$(box -- yes 2>/dev/null </dev/null | head -n 1)"
	box -- yes </dev/null 2>/dev/null | head -n 1 >/dev/null
	expect sigpipe_status "141 0" "${PIPESTATUS[*]}"
	box -- sh -c 'read x; echo $?' <&- >"$SCRATCH/o" 2>/dev/null
	expect stdin_closed 1 "$(cat "$SCRATCH/o")"
	box -- true >&- 2>&- </dev/null
	expect stdout_closed_true 0 $?
	expect not_a_tty "not a tty" "$(box -- tty 2>&1 </dev/null)"
	expect_match tty_option '^/dev/pts/[0-9]+' "$(box --tty -- tty 2>&1 </dev/null)"
fi

# --- signals
send_signal() {
	local name=$1 sig=$2 want=$3 script=$4 pid st
	wants "$name" || return 0
	: >"$SCRATCH/o"
	"$KVMSBOX" exec --platform="$platform" --cache "$cache" "$image" -- sh -c "$script" \
		>"$SCRATCH/o" 2>&1 </dev/null &
	pid=$!
	for _ in $(seq 100); do
		grep -q ready "$SCRATCH/o" && break
		sleep 0.05
	done
	kill -"$sig" $pid
	( sleep 10; kill -KILL $pid 2>/dev/null ) &
	local watchdog=$!
	wait $pid
	st=$?
	kill $watchdog 2>/dev/null
	wait $watchdog 2>/dev/null
	expect "$name" "$want" "$(grep -v ready "$SCRATCH/o" | paste -sd' ') $st"
}
send_signal signal_term_default TERM " 143" 'echo ready; exec sleep 20'
send_signal signal_int_default INT " 130" 'trap - INT; echo ready; exec sleep 20'
send_signal signal_term_handler TERM "got 5" 'trap "echo got; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
send_signal signal_hup_handler HUP "hup 6" 'trap "echo hup; exit 6" HUP; echo ready; while :; do sleep 0.1; done'
send_signal signal_usr1_handler USR1 "usr1 7" 'trap "echo usr1; exit 7" USR1; echo ready; while :; do sleep 0.1; done'
send_signal signal_quit QUIT " 131" 'trap - QUIT; echo ready; exec sleep 20'

# --- options
gives env "v w  x=y" --env A=v -e B=w --env C= -e D=x=y -- sh -c 'echo $A $B "$C" $D'
if wants env_pass; then expect env_pass "secret" "$(PASSME=secret box -e PASSME -- sh -c 'echo $PASSME' 2>&1)"; fi
gives env_clean "" -- sh -c 'echo $HOSTLEAK$KVMSBOX'
gives cwd "/etc" --cwd /etc -- pwd
gives cwd_relative_exec "script" --cwd /bad -- ./good-script
gives cwd_unreadable "ok" --user 1000 --cwd /closed -- echo ok
bad cwd_missing 125 '/no/such/dir.*No such file' box --cwd /no/such/dir -- true
bad cwd_file 125 '/etc/motd.*[Nn]ot a directory' box --cwd /etc/motd -- true
bad cwd_relative 125 'absolute' box --cwd etc -- true
gives user_name "1000 1000" --user user -- sh -c 'echo $(id -u) $(id -g)'
gives user_number "1234 0" --user 1234 -- sh -c 'echo $(id -u) $(id -g)'
gives user_group "1000 1001" --user user:extra -- sh -c 'echo $(id -u) $(id -g)'
gives user_numbers "7 8" --user 7:8 -- sh -c 'echo $(id -u) $(id -g)'
gives user_is_limited "denied" --user user -- sh -c 'cat /closed/x 2>/dev/null || ls /closed >/dev/null 2>&1 || echo denied'
bad user_unknown 125 'nobodyhere' box --user nobodyhere -- true
bad group_unknown 125 'nogrouphere' box --user user:nogrouphere -- true
gives hostname "box1" --hostname box1 -- hostname
bad hostname_long 125 'hostname' box --hostname "$(printf 'x%.0s' {1..65})" -- true
gives umask_default "0022" -- sh -c umask
gives umask_option "0077 600" --umask 077 -- sh -c 'echo $(umask) $(touch /tmp/f; stat -c %a /tmp/f)'
bad umask_bad 125 'umask' box --umask 9 -- true
gives rootfs_writable "x" -- sh -c 'echo x >/etc/new && cat /etc/new'
gives rootfs_not_kept "gone" -- sh -c 'cat /etc/new 2>/dev/null || echo gone'
gives read_only "ro ro shm" --read-only -- sh -c 'touch /etc/x 2>/dev/null || echo -n "ro "; rm /etc/motd 2>/dev/null || echo -n "ro "; touch /dev/shm/x && echo shm'
gives memory_enough "ok" --memory 64M -- sh -c 'head -c 8388608 /dev/zero | tail -c 1 >/dev/null && echo ok'
if wants memory_kill; then
	out=$(LIMIT=60 box --memory 48M -- sh -c 'tail /dev/zero; echo st $?; echo alive' 2>&1 </dev/null | tr -d "\\0"; exit "${PIPESTATUS[0]}")
	st=$?
	expect_match memory_kill_or_enomem 'st (137|1|2|12|139)$|emory' "$out"
	expect_match memory_kill_message '[Mm]emory' "$out"
	expect_match memory_kill_others_live 'alive' "$out (status $st)"
fi
if wants memory_tmpfs; then
	expect_match memory_tmpfs 'No space|annot allocate|alive|emory' "$(LIMIT=60 box --memory 32M -- sh -c 'dd if=/dev/zero of=/tmp/f bs=1M count=100 2>&1; echo alive' 2>&1 </dev/null)"
fi
bad memory_bad 125 '--memory' box --memory lots -- true
gives pids_limit_enough "5" --pids-limit 20 -- sh -c 'for i in 1 2 3 4 5; do sleep 0.1 & done; wait; echo 5'
if wants pids_limit; then
	expect_match pids_limit_hit "can't fork|annot fork|Resource temporarily" "$(box --pids-limit 6 -- sh -c 'for i in $(seq 12); do sleep 1 & done; wait' 2>&1 </dev/null)"
fi
if wants timeout; then
	start=$(date +%s%N)
	box --timeout 0.7 -- sleep 20 >/dev/null 2>&1 </dev/null
	st=$?
	took=$((($(date +%s%N) - start) / 1000000))
	expect timeout_status 124 $st
	if [ $took -ge 650 ] && [ $took -le 4000 ]; then pass timeout_time; else fail timeout_time "$took ms"; fi
fi
status timeout_not_reached 3 --timeout 20 -- sh -c 'exit 3'
bad timeout_bad 125 'timeout' box --timeout 0 -- true
status timeout_ignoring_term 124 --timeout 0.7 -- sh -c 'trap "" TERM INT HUP; while :; do sleep 1; done'
if wants dump_dtb; then
	box --dump-dtb "$SCRATCH/d.dtb" --hostname dtbhost -- echo dtbarg >"$SCRATCH/o" 2>&1 </dev/null
	expect dump_dtb_status 0 $?
	if command -v dtc >/dev/null; then
		dts=$(dtc -I dtb -O dts "$SCRATCH/d.dtb" 2>/dev/null)
		expect_match dump_dtb_readable '/dts-v1/' "$dts"
		expect_match dump_dtb_args 'dtbarg' "$dts"
		expect_match dump_dtb_hostname 'dtbhost' "$dts"
	else
		skip dump_dtb_readable "dtc is not installed"
	fi
	bad dump_dtb_unwritable 125 '--dump-dtb.*No such' box --dump-dtb /no/such/dir/x -- true
fi
if wants strace; then
	box "--strace=$SCRATCH/trace" -- sh -c 'cat /etc/motd; :' >"$SCRATCH/o" 2>&1 </dev/null
	expect strace_output "a file of the image" "$(cat "$SCRATCH/o")"
	expect_match strace_execve 'execve\("[^"]+", \["cat"' "$(grep -a execve "$SCRATCH/trace" | head -n 3)"
	expect_match strace_open 'open(at)?\(.*"/etc/motd".* = [0-9]' "$(grep -a motd "$SCRATCH/trace" | head -n 3)"
	expect_match strace_enoent 'ENOENT' "$(box --strace -- cat /nosuch 2>&1 </dev/null)"
	bad strace_unwritable 125 '--strace' box --strace=/no/such/dir/x -- true
fi
if wants stats; then
	out=$(box --stats -- sh -c 'cat /etc/motd >/dev/null' 2>&1 </dev/null)
	expect_match stats_calls 'execve|openat|write' "$out"
	expect_match stats_faults '[Ff]ault' "$out"
fi
if wants help; then
	for c in exec image syscalls doctor; do
		out=$("$KVMSBOX" $c --help 2>&1)
		expect "help_$c" "0 yes" "$? $(grep -q "^usage: kvmsbox $c" <<<"$out" && echo yes)"
	done
	expect_match help_main 'usage' "$("$KVMSBOX" --help)"
	expect_match syscalls_table 'openat' "$("$KVMSBOX" syscalls)"
	expect_match doctor '[Pp]trace' "$("$KVMSBOX" doctor 2>&1)"
	bad no_image 125 'no image' "$KVMSBOX" exec
fi
bad unknown_option 125 'unknown option --frobnicate' "$KVMSBOX" exec --frobnicate "$image" -- true
bad unknown_short 125 'unknown option' "$KVMSBOX" exec -Z "$image" -- true
bad option_needs_value 125 'cwd.*value' "$KVMSBOX" exec --cwd
bad unknown_platform 125 'platform.*xen' "$KVMSBOX" exec --platform=xen "$image" -- true
bad unknown_command 125 'unknown command' "$KVMSBOX" frobnicate
bad log_level_bad 125 'log-level' box --log-level loud -- true
bad env_bad 125 'env' box --env =x -- true

# --- volumes
if wants volume; then
	echo host >"$SCRATCH/vol/file"
	echo secret >"$SCRATCH/secret"
	chmod 644 "$SCRATCH/secret"
	ln -sf ../secret "$SCRATCH/vol/up"
	ln -sf "$SCRATCH/secret" "$SCRATCH/vol/absolute"
	ln -sf /etc/passwd "$SCRATCH/vol/passwd"
	ln -sf .. "$SCRATCH/vol/parent"
	mkdir -p "$SCRATCH/vol/sub"
	v=$SCRATCH/vol:/v
	gives volume_read "host" -v "$v" -- cat /v/file
	gives volume_write "ok" -v "$v" -- sh -c 'echo inside >/v/new && mkdir /v/sub/d && mv /v/new /v/sub/d/new && echo ok'
	expect volume_written "inside" "$(cat "$SCRATCH/vol/sub/d/new" 2>&1)"
	gives volume_ro "ro ro host" -v "$v:ro" -- sh -c 'touch /v/x 2>/dev/null || echo -n "ro "; rm /v/file 2>/dev/null || echo -n "ro "; cat /v/file'
	expect volume_ro_untouched "host" "$(cat "$SCRATCH/vol/file")$(ls "$SCRATCH/vol" | grep -x x)"
	gives volume_file "secret" -v "$SCRATCH/secret:/etc/one:ro" -- cat /etc/one
	gives volume_escape_link "blocked" -v "$v" -- sh -c 'cat /v/up 2>/dev/null || echo blocked'
	gives volume_escape_absolute "blocked" -v "$v" -- sh -c 'cat /v/absolute 2>/dev/null || echo blocked'
	gives volume_link_is_guests "root:x:0:0:root:/root:/bin/sh" -v "$v" -- sh -c 'head -n 1 /v/passwd'
	gives volume_escape_dotdot "blocked" -v "$v" -- sh -c 'cat /v/../secret 2>/dev/null || cat /v/sub/../../secret 2>/dev/null || echo blocked'
	gives volume_escape_parent "blocked" -v "$v" -- sh -c 'cat /v/parent/secret 2>/dev/null || echo blocked'
	gives volume_dotdot_is_root "bin" -v "$v" -- sh -c 'cd /v/sub && cd ../.. && ls -d bin'
	gives volume_escape_created_link "blocked" -v "$v" -- sh -c 'ln -s ../../../../../../../../etc/hostname /v/mine; ln -s ../secret /v/mine2; cat /v/mine2 2>/dev/null || echo blocked; rm /v/mine /v/mine2'
	if wants volume_race; then
		# A rename on the host between lookup and open must not open the way out.
		mkdir -p "$SCRATCH/vol/a/b" "$SCRATCH/out"
		echo inner >"$SCRATCH/vol/a/b/secret"
		( end=$((SECONDS + 4)); while [ $SECONDS -lt $end ]; do mv "$SCRATCH/vol/a/b" "$SCRATCH/out/b" && mv "$SCRATCH/out/b" "$SCRATCH/vol/a/b"; done ) 2>/dev/null &
		mover=$!
		out=$(box -v "$v" -- sh -c 'until cd /v/a/b 2>/dev/null; do :; done; for i in $(seq 400); do cat ../../../secret ../../secret /v/a/b/../../../secret 2>/dev/null; done; echo done' 2>&1 </dev/null)
		wait $mover
		expect volume_race "done" "$out"
	fi
	bad volume_missing 125 '/no/such/host/dir.*No such' box -v /no/such/host/dir:/v -- true
	bad volume_syntax 125 'volume' box -v justone -- true
	bad volume_mode 125 'volume.*"?rx' box -v "$v:rx" -- true
fi

# --- images
bad image_missing 125 'nosuch.tar.*No such file' ex "$SCRATCH/nosuch.tar" -- true
echo "this is not a tar" >"$SCRATCH/text.tar"
bad image_not_a_tar 125 'text.tar' ex "$SCRATCH/text.tar" -- true
: >"$SCRATCH/empty.tar"
bad image_empty 125 'empty.tar' ex "$SCRATCH/empty.tar" -- true
head -c 1000000 /dev/urandom >"$SCRATCH/random.tar"
bad image_random 125 'random.tar' ex "$SCRATCH/random.tar" -- true
head -c 1000000 "$busybox_tar" >"$SCRATCH/truncated.tar"
bad image_truncated 125 'truncated.tar' ex "$SCRATCH/truncated.tar" -- true
gzip -c "$busybox_tar" | head -c 500000 >"$SCRATCH/truncated.tar.gz"
bad image_truncated_gz 125 'truncated.tar.gz' ex "$SCRATCH/truncated.tar.gz" -- true
bad image_directory 125 "$SCRATCH" ex "$SCRATCH/vol" -- true
bad image_max_bytes 125 'image-max-bytes|larger|limit' ex --image-max-bytes 100K "$busybox_tar" -- true
bad image_max_entries 125 'image-max-entries|entries|limit' ex --image-max-entries 5 "$busybox_tar" -- true
if wants image_compressed; then
	for z in gzip bzip2 xz zstd; do
		command -v $z >/dev/null || { skip "image_$z" "$z is not installed"; continue; }
		$z -c "$busybox_tar" >"$SCRATCH/image.tar.$z"
		expect "image_$z" "a file of the image" "$(ex "$SCRATCH/image.tar.$z" -- cat /etc/motd 2>&1 </dev/null)"
		rm "$SCRATCH/image.tar.$z"
	done
fi
if wants image_changed; then
	cp "$busybox_tar" "$SCRATCH/change.tar"
	ex "$SCRATCH/change.tar" -- true >/dev/null 2>&1 </dev/null
	mkdir -p "$SCRATCH/ch/etc"
	echo changed >"$SCRATCH/ch/etc/motd"
	tar -C "$SCRATCH/ch" --owner=0 --group=0 -rf "$SCRATCH/change.tar" etc/motd
	expect image_changed "changed" "$(ex "$SCRATCH/change.tar" -- cat /etc/motd 2>&1 </dev/null)"
fi
if wants arg; then
	long=$(head -c 140000 /dev/zero | tr '\0' x)	# longer than MAX_ARG_STRLEN: the host refuses it too
	args=()
	for _ in $(seq 18); do args+=("${long:0:120000}"); done
	# The host's own limit is above ours: 1.9 MiB of arguments pass here, the list inside is too long
	# when the environment is added.
	ulimit -s unlimited 2>/dev/null || ulimit -s "$(ulimit -Hs)"
	bad args_too_long 126 'rgument list too long' ex "$image" -- echo ${args[@]+"${args[@]}"} "${args[@]}" "${args[@]}" "${args[@]}" "${args[@]}"
	gives args_many "3000" -- sh -c 'echo $#' sh $(seq 3000)
	ulimit -s 8192
fi

# --- the machine
if wants machine; then
	if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
		no_kvm() {
			unshare -m sh -c '
				if [ -e /dev/kvm ]; then
					mkdir -p "$1/dev" && mount -t tmpfs none "$1/dev" && mount --bind /dev "$1/dev" &&
					mount -t tmpfs none /dev &&
					for n in null zero full random urandom tty; do
						: >/dev/$n && mount --bind "$1/dev/$n" /dev/$n
					done
					mkdir /dev/shm && mount -t tmpfs none /dev/shm
				fi
				shift; exec "$@"' sh "$SCRATCH" "$@"
		}
		bad machine_no_kvm 125 '/dev/kvm' no_kvm timeout 30 "$KVMSBOX" exec --platform=kvm --cache "$cache" "$image" -- true
		expect machine_auto_falls_back "ok 0" "$(no_kvm timeout 30 "$KVMSBOX" exec --cache "$cache" "$image" -- echo ok 2>&1) $?"
		full() {
			unshare -m sh -c 'mkdir -p "$1/full" && mount -t tmpfs -o size=600k none "$1/full" && shift &&
				"$@"; st=$?; n=$(find "$0/full" -type f -size +0 | wc -l); [ "$n" = 0 ] || echo "left $n files" >&2; exit $st' "$SCRATCH" "$SCRATCH" "$@"
		}
		bad machine_disk_full 125 'No space left|space' full timeout 30 "$KVMSBOX" exec --platform="$platform" --cache "$SCRATCH/full/cache" "$busybox_tar" -- true
		readonly_cache() {
			unshare -m sh -c 'mkdir -p "$1/roc" && mount -t tmpfs -o ro none "$1/roc" && shift && exec "$@"' sh "$SCRATCH" "$@"
		}
		bad machine_cache_read_only 125 'roc/cache.*Read-only' readonly_cache timeout 30 "$KVMSBOX" exec --platform="$platform" --cache "$SCRATCH/roc/cache" "$image" -- true
	else
		skip machine "needs root and a mount namespace"
	fi
	: >"$SCRATCH/afile"
	bad cache_is_a_file 125 'afile' timeout 30 "$KVMSBOX" exec --platform="$platform" --cache "$SCRATCH/afile" "$image" -- true
	if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
		mkdir -m 755 "$SCRATCH/rootcache"
		chmod 644 "$image"
		bad cache_not_writable 125 'rootcache.*ermission' setpriv --reuid=65534 --regid=65534 --clear-groups timeout 30 "$KVMSBOX" exec --platform=ptrace --cache "$SCRATCH/rootcache" "$image" -- true
		if [ "$platform" != kvm ]; then
			mkdir -m 777 "$SCRATCH/usercache"
			expect unprivileged_run "0" "$(setpriv --reuid=65534 --regid=65534 --clear-groups timeout 30 "$KVMSBOX" exec --platform="$platform" --cache "$SCRATCH/usercache" "$image" -- id -u 2>&1 </dev/null)"
		fi
	fi
	if out=$(python3 "$ROOT/test/cli/subreaper.py" 0 timeout 30 "$KVMSBOX" exec --platform="$platform" --cache "$cache" "$image" -- sh -c 'sleep 100 & sleep 100 & (sleep 100 &) ; exit 0' 2>&1); then
		pass no_process_left
	else
		fail no_process_left "$out"
	fi
	if wants machine_corrupt; then
		c2=$SCRATCH/cache2
		timeout 60 "$KVMSBOX" exec --platform="$platform" --cache "$c2" "$busybox_tar" -- true >/dev/null 2>&1
		big=$(find "$c2" -type f -size +100k | head -n 1)
		if [ -n "$big" ]; then
			chmod u+w "$big"
			truncate -s 200000 "$big"
			expect cache_truncated_rebuilt "a file of the image" "$(timeout 60 "$KVMSBOX" exec --platform="$platform" --cache "$c2" "$busybox_tar" -- cat /etc/motd 2>&1 </dev/null)"
			big=$(find "$c2" -type f -size +100k | head -n 1)
			chmod u+w "$big"
			dd if=/dev/urandom of="$big" bs=4096 count=2 conv=notrunc status=none
			expect cache_overwritten_rebuilt "a file of the image" "$(timeout 60 "$KVMSBOX" exec --platform="$platform" --cache "$c2" "$busybox_tar" -- cat /etc/motd 2>&1 </dev/null)"
		else
			fail machine_corrupt "no cache file found under $c2"
		fi
	fi
fi

# --- kvmsbox image
if wants image_command; then
	k() { timeout 60 "$KVMSBOX" image "$@" 2>&1 </dev/null; }
	c3=$SCRATCH/cache3
	out=$(k import --cache "$c3" "$busybox_tar")
	expect image_import 0 $?
	expect_match image_ls 'busybox' "$(k ls --cache "$c3")"
	expect_match image_inspect '[0-9a-f]{16}' "$(k inspect --cache "$c3" "$busybox_tar")"
	out=$(k rm --cache "$c3" "$busybox_tar")
	expect image_rm 0 $?
	expect image_rm_gone 0 "$(find "$c3" -type f -size +100k | wc -l)"
	bad image_rm_missing 125 'nosuch' timeout 30 "$KVMSBOX" image rm --cache "$c3" nosuch.tar
	bad image_unknown 125 'frob' timeout 30 "$KVMSBOX" image frob
fi
finish
