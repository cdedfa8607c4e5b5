# SPDX-License-Identifier: Apache-2.0
# make_function_image DIR: the image of test/function's programs as DIR/image.tar (bash; lib.sh is read).
# shellcheck shell=bash
make_function_image() {
	local here=$ROOT/test/function cc busybox f
	cc="${CC:-gcc} -D_GNU_SOURCE -O1 -g -Wall -Wno-maybe-uninitialized -static -pthread -I$ROOT/test/function"
	busybox=$("$ROOT/test/images.sh" busybox) || return 1
	mkdir -p "$1/root" && tar xf "$busybox" -C "$1/root" || return 1
	$cc -o "$1/root/bin/functions" "$here/functions.c" || return 1
	$cc -o "$1/root/bin/pages" "$here/pages.c" || return 1
	$cc -o "$1/root/bin/scribble" "$here/scribble.c" || return 1
	for f in http lambda; do ln -f "$1/root/bin/scribble" "$1/root/bin/scribble-$f" || return 1; done
	for f in echo count spin sleep flood crash eat breed no-read poll epoll stderr steps ignore orphan \
		threads child timer http web lambda random unmap; do
		ln -f "$1/root/bin/functions" "$1/root/bin/$f" || return 1
	done
	tar cf "$1/image.tar" -C "$1/root" .
}
