#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make demo: an image tar made of BusyBox, and a command run from it in a sandbox.
set -eu
kvmsbox=${1:-build/kvmsbox}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
image=build/busybox.tar
if [ ! -f "$image" ]; then
	mkdir -p "$dir/bin" "$dir/etc" "$dir/root" "$dir/tmp"
	cp /bin/busybox "$dir/bin/busybox"
	for a in $(/bin/busybox --list); do
		[ "$a" = busybox ] || ln "$dir/bin/busybox" "$dir/bin/$a" 2>/dev/null || :
	done
	echo 'root:x:0:0:root:/root:/bin/sh' > "$dir/etc/passwd"
	echo 'root:x:0:' > "$dir/etc/group"
	tar -C "$dir" --owner=0 --group=0 -cf "$image.tmp" .
	mv "$image.tmp" "$image"
fi
$kvmsbox doctor --brief
echo "\$ kvmsbox exec $image uname -a"
$kvmsbox exec "$image" uname -a
echo "\$ kvmsbox exec $image sh -c 'id; ps; df -h /; echo hello from inside | tr a-z A-Z'"
$kvmsbox exec "$image" sh -c 'id; ps; df -h /; echo hello from inside | tr a-z A-Z'
