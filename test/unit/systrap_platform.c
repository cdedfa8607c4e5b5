/* SPDX-License-Identifier: Apache-2.0 */
/* The systrap platform by itself: stub_platform.h, and what hostile code may try. */
#define PLATFORM_UNDER_TEST systrap_platform
#define PRECISE		    true
#define MORE_TESTS

#include "test/unit/stub_platform.h"
