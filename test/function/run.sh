#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Functions in sandboxes, without a server: snapshot points, resets, restored copies, isolation.
#
#	test/function/run.sh PLATFORM [REQUESTS]
. "$(dirname "$0")/../lib.sh"
platform=${1:?platform}
requests=${2:-80}
here=$ROOT/test/function
work=$SCRATCH/function
mkdir -p "$work/root"
busybox=$("$ROOT/test/images.sh" busybox) || exit 2
tar xf "$busybox" -C "$work/root" || exit 2
cc="${CC:-gcc} -D_GNU_SOURCE -O1 -g -Wall -Wno-maybe-uninitialized -static -pthread"
$cc -o "$work/root/bin/functions" "$here/functions.c" || exit 2
$cc -o "$work/root/bin/scribble" "$here/scribble.c" || exit 2
for f in echo count spin sleep flood crash eat breed no-read poll epoll stderr steps ignore orphan \
	threads child timer http random; do
	ln -f "$work/root/bin/functions" "$work/root/bin/$f" || exit 2
done
tar cf "$work/image.tar" -C "$work/root" . || exit 2
exec python3 "$here/driver.py" "$KVMSBOX" "$platform" "$work/image.tar" "$requests"
