/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest harness: TEST(name) { CHECK(…); } and UNIT_MAIN(). One process, tests in order. */
#ifndef TEST_UNIT_UNIT_H
#define TEST_UNIT_UNIT_H

#include <stdio.h>
#include <stdlib.h>

struct unit_test {
	const char *name;
	void (*fn)(void);
	struct unit_test *next;
};
static struct unit_test *unit_first, **unit_last = &unit_first;
static int unit_failed_now;

#define TEST(nm)                                                                                   \
	static void test_##nm(void);                                                               \
	static struct unit_test unit_##nm = {#nm, test_##nm, NULL};                                \
	__attribute__((constructor)) static void register_##nm(void)                               \
	{                                                                                          \
		*unit_last = &unit_##nm;                                                           \
		unit_last = &unit_##nm.next;                                                       \
	}                                                                                          \
	static void test_##nm(void)
#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("# %s:%d: %s\n", __FILE__, __LINE__, #cond);                        \
			unit_failed_now = 1;                                                       \
			return;                                                                    \
		}                                                                                  \
	} while (0)

static inline int unit_run(void)
{
	int passed = 0, failed = 0;

	for (struct unit_test *t = unit_first; t; t = t->next) {
		unit_failed_now = 0;
		t->fn();
		printf("%sok %s\n", unit_failed_now ? "not " : "", t->name);
		fflush(stdout);
		failed += unit_failed_now;
		passed += !unit_failed_now;
	}
	printf("%d passed, %d failed, 0 skipped\n", passed, failed);
	return failed != 0;
}

#endif
