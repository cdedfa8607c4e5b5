#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""All of the server's tests, or those that match a pattern."""
import sys

import harness
import t_admin  # noqa: F401
import t_config  # noqa: F401
import t_http  # noqa: F401
import t_kinds  # noqa: F401
import t_pool  # noqa: F401

harness.run(sys.argv[1] if len(sys.argv) > 1 else None)
