#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Functions in sandboxes, without a server: snapshot points, resets, restored copies, isolation.
#
#	test/function/run.sh PLATFORM [REQUESTS]
. "$(dirname "$0")/../lib.sh"
. "$ROOT/test/function/image.sh"
make_function_image "$SCRATCH/function" || { fail "make the image"; finish; }
python3 "$ROOT/test/function/driver.py" "$KVMSBOX" "${1:?platform}" "$SCRATCH/function/image.tar" "${2:-80}"
