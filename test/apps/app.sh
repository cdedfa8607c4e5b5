# SPDX-License-Identifier: Apache-2.0
# What the application tests share: `box CMD…` runs a command in the Debian image on $PLATFORM.
#
# One command may take BOX_LIMIT seconds (60).
#
# Every script is called with the platform: native (the same tree under chroot, writes going to a
# memory overlay: the proof that the test itself is right), ptrace or kvm. Its header may hold the lines
# "# timeout: SECONDS" and "# long" (only when named, or in the long selection).
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
PLATFORM=${1:?usage: $0 native|ptrace|systrap|kvm}
HERE=$ROOT/test/apps
BOX_OPTS=()

if [ "$PLATFORM" = native ]; then
	TREE=$("$ROOT/test/images.sh" debian-tree) || exit 1
	box() {
		local e=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin) v=
		set -- -- "$@"
		for o in ${BOX_OPTS[@]+"${BOX_OPTS[@]}"}; do
			case $o in
			--env=*) e+=("${o#--env=}") ;;
			--volume=*) v=${o#--volume=} ;;
			esac
		done
		shift
		unshare -m sh -c '
			tree=$1 vol=$2; shift 2
			mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w /mnt/r && echo used >/mnt/f &&
			mount -t overlay -o "lowerdir=$tree,upperdir=/mnt/u,workdir=/mnt/w" none /mnt/r &&
			mount -t proc none /mnt/r/proc && mount --rbind /dev /mnt/r/dev &&
			mount -t tmpfs none /mnt/r/tmp || exit 125
			ulimit -S -n 1024
			[ -e /mnt/r/etc/hosts ] || echo 127.0.0.1 localhost >/mnt/r/etc/hosts
			if [ -n "$vol" ]; then
				vol=${vol%:ro}; mkdir -p "/mnt/r${vol#*:}"
				mount --bind "${vol%%:*}" "/mnt/r${vol#*:}"
			fi
			# Tests that set the clock must not set that of the host.
			exec setpriv --bounding-set -sys_time chroot /mnt/r env -i "$@"' sh "$TREE" "$v" "${e[@]}" "$@"
	}
else
	need_kvmsbox
	IMAGE=$("$ROOT/test/images.sh" debian) || { fail "make the Debian image"; finish; }
	box() {
		timeout --foreground -k 5 "${BOX_LIMIT:-60}" "$KVMSBOX" exec --platform="$PLATFORM" --cache "$TEST_CACHE/cache" \
			${BOX_OPTS[@]+"${BOX_OPTS[@]}"} "$IMAGE" -- "$@"
	}
fi

# app NAME WANT CMD…: output (both streams) and status 0, as expected.
app() {
	local name=$1 want=$2 got st
	shift 2
	got=$(box "$@" 2>&1 </dev/null)
	st=$?
	if [ $st -ne 0 ]; then
		fail "$name" "exit status $st" "$got"
	else
		expect "$name" "$want" "$got"
	fi
}
