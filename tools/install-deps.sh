#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages a set needs and that are missing, and says which.
# usage: tools/install-deps.sh build|test|svm|bench…
set -eu

build="gcc make musl-tools libc6-dev linux-libc-dev libarchive-dev libxxhash-dev libfdt-dev libseccomp-dev
	libjansson-dev libssl-dev zlib1g-dev libhttp-parser-dev libcurl4-openssl-dev"
test="clang clang-format cppcheck libclang-rt-14-dev busybox-static erofs-utils device-tree-compiler python3 zstd xz-utils
	bzip2 gzip debootstrap strace util-linux procps tmux cpio attr file openssl
	chromium"
svm="qemu-system-x86 busybox-static cpio"
demo="busybox-static"
bench="bubblewrap crun proot runsc"

want=
for set in "$@"; do
	eval "want=\"\$want \${$set}\""
done
missing=
for p in $want; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' ||
		missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
	echo "missing Debian packages; as root, run: apt-get install$missing" >&2
	exit 1
fi
echo "installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 || {
	apt-get update >/dev/null
	apt-get install -y --no-install-recommends $missing >/dev/null
}
