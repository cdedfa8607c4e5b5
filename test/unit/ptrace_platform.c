/* SPDX-License-Identifier: Apache-2.0 */
/* The ptrace platform by itself: stub_platform.h, and a jump into the stub's code. */
#define PLATFORM_UNDER_TEST ptrace_platform
#define PRECISE		    false
#define MORE_TESTS	    {"jump", test_jump, false},

static void test_jump(void);

#include "test/unit/stub_platform.h"

#include "platform/ptrace/internal.h"

/* It is the application's own affair. */
static void test_jump(void)
{
	struct context *ctx;
	struct space s;

	begin();
	space_init(&s);
	ctx = new_context();
	expect_exception(ctx, &s, stub_entry(), ARCH_EXC_BP, stub_entry() + 1);
	type->ctx_destroy(ctx);
	space_fini(&s);
	end();
}
