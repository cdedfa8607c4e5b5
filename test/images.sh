#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the images that the tests run, once, and prints the file's name.
#
#	test/images.sh busybox		a tar of BusyBox (static), a few accounts, /tmp
#	test/images.sh debian		a tar of Debian bookworm with what the application tests need
#	test/images.sh debian-tree	the directory that the Debian tar was made of
#
# They live in $KVMSBOX_TEST_CACHE (default ~/.cache/kvmsbox-test) and are made again when this file
# is newer. Debian is made by debootstrap as root, from the mirror of the host's own apt sources;
# KVMSBOX_TEST_ROOTFS names a ready tree to use instead.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${KVMSBOX_TEST_CACHE:-$HOME/.cache/kvmsbox-test}
packages=python3,gcc,libc6-dev,make,perl,git,sqlite3,coreutils,vim-tiny,xz-utils,procps,nodejs,libpython3.11-testsuite
mkdir -p "$cache"
tmp=
cleanup() { [ -z "$tmp" ] || rm -rf "$tmp"; }
trap cleanup EXIT
trap 'exit 130' INT TERM

die() {
	echo "images.sh: $*" >&2
	exit 1
}

# Only one maker at a time; the others wait and find the image made.
lock() {
	exec 9>"$cache/$1.lock"
	flock -w 3600 9 || die "another process has been making the $1 image for an hour"
}

fresh() { [ -e "$1" ] && [ "$1" -nt "$here/images.sh" ]; }

make_busybox() {
	local out=$cache/busybox.tar a bb
	lock busybox
	if ! fresh "$out"; then
		bb=$(command -v busybox) || die "busybox is missing: install busybox-static"
		! ldd "$bb" >/dev/null 2>&1 || die "$bb is not static: install busybox-static"
		tmp=$(mktemp -d "$cache/busybox.XXXXXX")
		chmod 755 "$tmp"
		mkdir -p "$tmp"/{bin,etc,root,tmp,dev,proc,sys,mnt,var/tmp,home/user}
		chmod 1777 "$tmp/tmp" "$tmp/var/tmp"
		chmod 700 "$tmp/root"
		cp "$bb" "$tmp/bin/busybox"
		for a in $("$bb" --list); do
			[ "$a" = busybox ] || ln "$tmp/bin/busybox" "$tmp/bin/$a" 2>/dev/null || :
		done
		printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n' >"$tmp/etc/passwd"
		printf 'root:x:0:\nuser:x:1000:\nextra:x:1001:user\n' >"$tmp/etc/group"
		echo 'a file of the image' >"$tmp/etc/motd"
		mkdir -m 700 "$tmp/root/closed"
		tar -C "$tmp" --sort=name --owner=0 --group=0 --numeric-owner -cf "$out.$$" .
		mv "$out.$$" "$out"
	fi
	echo "$out"
}

# The mirror that this host's own apt uses; empty means debootstrap's default.
host_mirror() {
	cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' |
		grep -v security | head -n 1
	awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) { print $i; break } }' \
		/etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | grep -v security | head -n 1
}

make_tree() {
	local tree=$cache/debian-rootfs mirror args=()
	if [ -n "${KVMSBOX_TEST_ROOTFS:-}" ]; then
		[ -x "$KVMSBOX_TEST_ROOTFS/usr/bin/python3" ] ||
			die "KVMSBOX_TEST_ROOTFS=$KVMSBOX_TEST_ROOTFS is no tree with python3"
		tree=$KVMSBOX_TEST_ROOTFS
	elif [ "$(cat "$tree/.made-by-images.sh" 2>/dev/null)" != "$packages" ]; then
		command -v debootstrap >/dev/null || [ -x /usr/sbin/debootstrap ] ||
			die "debootstrap is missing: run tools/install-deps.sh test"
		[ "$(id -u)" = 0 ] || die "debootstrap needs root (or set KVMSBOX_TEST_ROOTFS)"
		rm -rf "$tree"
		mirror=$(host_mirror | head -n 1)
		[ -z "$mirror" ] || args=("$mirror")
		tmp=$(mktemp -d "$cache/debian.XXXXXX")
		chmod 755 "$tmp"
		echo "images.sh: making the Debian image (a few minutes, once)" >&2
		PATH=$PATH:/usr/sbin debootstrap --variant=minbase --include="$packages" bookworm "$tmp" \
			${args[@]+"${args[@]}"} >"$cache/debootstrap.log" 2>&1 ||
			die "debootstrap failed: $(tail -n 1 "$cache/debootstrap.log") (see $cache/debootstrap.log)"
		rm -rf "$tmp"/var/cache/apt/archives/*.deb "$tmp"/var/lib/apt/lists/*
		# No host's or mirror's name stays in the image.
		: >"$tmp/etc/apt/sources.list"
		: >"$tmp/etc/resolv.conf"
		echo kvmsbox >"$tmp/etc/hostname"
		echo "$packages" >"$tmp/.made-by-images.sh"
		mv "$tmp" "$tree"
		tmp=
	fi
	echo "$tree"
}

make_debian() {
	local out=$cache/debian.tar tree
	lock debian
	tree=$(make_tree)
	if ! fresh "$out" || [ "$(cat "$out.tree" 2>/dev/null)" != "$tree" ]; then
		# What the host's copy and the sandbox must agree on is the tree; /dev, /proc, /sys are not.
		tar -C "$tree" --sort=name --numeric-owner --xattrs --one-file-system \
			--exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -cf "$out.$$" .
		mv "$out.$$" "$out"
		echo "$tree" >"$out.tree"
	fi
	echo "$out"
}

case ${1:-} in
busybox) make_busybox ;;
debian) make_debian ;;
debian-tree) lock debian; make_tree ;;
*) die "usage: images.sh busybox|debian|debian-tree" ;;
esac
