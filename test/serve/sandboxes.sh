#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kvmsbox serve with real sandboxes: every kind, isolation under load, and what happens when sandboxes
# or the server are killed.
#
#	test/serve/sandboxes.sh PLATFORM [SECONDS [REQUESTS [MINUTES]]]
#
# SECONDS is how long each of the loads lasts, REQUESTS how many the isolation test makes of each kind.
# With MINUTES it is a soak instead: every kind at a steady rate for so long, with memory looked at.
. "$(dirname "$0")/../lib.sh"
. "$ROOT/test/function/image.sh"
make_function_image "$SCRATCH/function" || { fail "make the image"; finish; }
python3 "$ROOT/test/serve/sandboxes.py" "$KVMSBOX" "${1:?platform}" "$SCRATCH/function" "${2:-3}" "${3:-0}" "${4:-0}"
