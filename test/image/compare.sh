#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# compare.sh WALK TAR IMAGE: prints how the image differs from the tar; nothing if it doesn't.
set -u
here=$(dirname "$0")
want=$(python3 "$here/manifest.py" tar "$2") || exit 2
got=$(python3 "$here/manifest.py" image "$1" "$3") || exit 2
# What no member describes has attributes that we choose: the root, implied directories.
implied=$(printf '%s\n' "$want" | sed -n 's/ implied$//p')
normal() {
	awk -v implied="$implied" 'BEGIN { n = split(implied, a, "\n"); for (i = 1; i <= n; i++) skip[a[i]] = 1 }
		$2 == "implied" || $1 in skip { next } { print }'
}
rooted=$(printf '%s\n' "$want" | grep -c '^/ ')
diff <(printf '%s\n' "$want" | normal) \
	<(printf '%s\n' "$got" | normal | if [ "$rooted" = 0 ]; then grep -v '^/ '; else cat; fi)
