#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The SVM lane: runs programs in an emulated machine whose CPU has AMD's virtualization, under
# Debian's kernel with its own kvm-amd, so that /dev/kvm there has hardware semantics: nested paging,
# SYSCALL that enters ring 0 at LSTAR. No privileges needed. Timings mean nothing.
#
#   run.sh [-m MEGABYTES] [-t SECONDS] [-c CPUS] [-f FILE[:PATH]]... [--] COMMAND [ARG...]
#
# FILEs are put into the guest at PATH (default: /test/ and their name), programs with the libraries
# they need, directories whole. COMMAND is run there by busybox sh in /test, as root, with /proc,
# /sys, /dev and /tmp. Its output is printed. Exit status: COMMAND's; 77 with a reason if something
# needed is missing here; 125 if the machine did not get to the end.
set -eu

mem=1024
limit=900
cpus=2
cache=${KVMSBOX_TEST_CACHE:-$HOME/.cache/kvmsbox-test}/svm
marker=SVM-LANE

skip() {
	echo "SKIP svm lane: $1"
	exit 77
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
root=$work/root
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/test" "$root/modules"

# Copies $1 to $2 in the guest, and what its dynamic loader would look for.
put() {
	mkdir -p "$root$(dirname "$2")"
	cp -aL "$1" "$root$2"
	[ -f "$1" ] || return 0
	{ ldd "$1" 2>/dev/null || true; } | grep -o '/[^ ]*' | while read -r lib; do
		[ -e "$root$lib" ] && continue
		mkdir -p "$root$(dirname "$lib")"
		cp -L "$lib" "$root$lib"
	done
}

while [ $# -gt 0 ]; do
	case $1 in
	-m) mem=$2; shift 2 ;;
	-t) limit=$2; shift 2 ;;
	-c) cpus=$2; shift 2 ;;
	-f)
		case $2 in
		*:*) put "${2%%:*}" "${2#*:}" ;;
		*) put "$2" "/test/$(basename "$2")" ;;
		esac
		shift 2
		;;
	--) shift; break ;;
	-*) echo "run.sh: unknown option $1" >&2; exit 125 ;;
	*) break ;;
	esac
done
[ $# -gt 0 ] || { echo "run.sh: no command" >&2; exit 125; }

qemu=$(command -v qemu-system-x86_64) || skip "qemu-system-x86_64 is not installed (package qemu-system-x86)"
busybox=$(command -v busybox) || skip "busybox is not installed (package busybox-static)"
if ldd "$busybox" >/dev/null 2>&1; then
	skip "busybox is not static (package busybox-static)"
fi
command -v cpio >/dev/null || skip "cpio is not installed"

# Debian's kernel, downloaded and unpacked once; never installed.
fetch_kernel() {
	pkg=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*-cloud-amd64\)$/\1/p' | head -n 1)
	[ -n "$pkg" ] || skip "apt knows no linux-image-cloud-amd64"
	mkdir -p "$cache"
	tmp=$(mktemp -d "$cache/unpack.XXXXXX")
	if ! (cd "$tmp" && apt-get download "$pkg" >/dev/null 2>&1 && dpkg -x ./*.deb root); then
		rm -rf "$tmp"
		skip "can't download $pkg"
	fi
	rm -f "$tmp"/*.deb
	# Another run may have been faster.
	mv -T "$tmp/root" "$cache/kernel" 2>/dev/null || true
	rm -rf "$tmp"
}
[ -d "$cache/kernel" ] || fetch_kernel
vmlinuz=$(ls "$cache"/kernel/boot/vmlinuz-* | head -n 1)

for m in irqbypass kvm kvm-amd; do
	f=$(find "$cache/kernel/lib/modules" -name "$m.ko*" | head -n 1)
	case $f in
	*.xz) xz -dc "$f" >"$root/modules/$m.ko" ;;
	*.zst) zstd -qdc "$f" >"$root/modules/$m.ko" ;;
	*.ko) cp "$f" "$root/modules/$m.ko" ;;
	*) echo "run.sh: no module $m in $cache/kernel" >&2; exit 125 ;;
	esac
done

# The command as a script of its own, each argument quoted.
{
	echo 'cd /test'
	for arg; do
		printf "'%s' " "$(printf '%s' "$arg" | sed "s/'/'\\\\''/g")"
	done
	echo
} >"$root/command"

cp "$busybox" "$root/bin/busybox"
cat >"$root/init" <<EOF
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
ip link set lo up
for m in irqbypass kvm kvm-amd; do
	insmod /modules/\$m.ko || echo "can't load \$m"
done
echo "$marker begin"
sh /command
echo "$marker status=\$?"
sync
poweroff -f
EOF
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"

# One thread for all emulated CPUs: with one each, QEMU 7.2 loses guests (triple faults, a machine that
# hangs) once several of its CPUs are in SVM guests.
timeout "$limit" "$qemu" -accel tcg,thread=single -cpu max,svm=on -smp "$cpus" -m "$mem" \
	-nographic -no-reboot -kernel "$vmlinuz" -initrd "$work/initrd.gz" \
	-append "console=ttyS0 panic=-1 nokaslr mitigations=off quiet" </dev/null |
	stdbuf -o0 tr -d '\r' | tee "$work/log" |
	sed -u -e "/$marker begin/,/$marker status/!d" -e "/$marker/d" || true

end=$(sed -n "s/.*$marker status=\([0-9]*\).*/\1/p" "$work/log" | head -n 1)
if [ -z "$end" ]; then
	echo "run.sh: the machine did not get to the end within $limit s" >&2
	exit 125
fi
exit "$end"
