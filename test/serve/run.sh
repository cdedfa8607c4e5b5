#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kvmsbox serve, against a double of the sandbox (double.c) that runs functions natively: everything
# about the server itself, nothing about sandboxes.
#
#	test/serve/run.sh [PATTERN]
#
# KVMSBOX_SERVE is the server (BUILD/kvmsbox-serve), SERVE_TIMES=1 says how long each test took.
. "$(dirname "$0")/../lib.sh"
export SCRATCH
export KVMSBOX_SERVE=${KVMSBOX_SERVE:-$BUILD/kvmsbox-serve}
export SERVE_DOUBLE=$SCRATCH/double
[ -x "$KVMSBOX_SERVE" ] || { fail "$KVMSBOX_SERVE is not built"; finish; }
if ! said=$(gcc -O1 -std=gnu11 -D_GNU_SOURCE -I"$ROOT" -Wall -Wextra -Werror -Wno-unused-parameter \
	-o "$SERVE_DOUBLE" "$ROOT/test/serve/double.c" 2>&1); then
	fail "build the double" "$said"
	finish
fi
timeout -k 10 "${SERVE_SECONDS:-600}" python3 "$ROOT/test/serve/tests.py" ${1+"$1"}
