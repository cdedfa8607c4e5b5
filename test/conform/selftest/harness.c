/* SPDX-License-Identifier: Apache-2.0 */
/* Tests that fail on purpose, one for each way to fail: does the harness notice? See run.sh. */
#include <pthread.h>

#include "test/conform/conform.h"

TEST(passes)
{
	CHECK_EQ(1 + 1, 2);
}

TEST(check_fails)
{
	CHECK(1 == 2);
}

TEST(eq_fails)
{
	CHECK_EQ(1, 2);
}

TEST(str_fails)
{
	CHECK_STR("a", "b");
}

TEST(ok_fails)
{
	CHECK_OK(close(-1));
}

TEST(errno_unexpected_success)
{
	CHECK_ERRNO(getpid(), EINVAL);
}

TEST(errno_wrong)
{
	CHECK_ERRNO(close(-1), EINVAL);
}

TEST(zero_fails)
{
	CHECK_ZERO(EBUSY);
}

TEST(crashes)
{
	raise(SIGSEGV);
}

TEST(exits)
{
	_exit(3);
}

TEST(hangs)
{
	for (;;)
		pause();
}

TEST(hangs_with_everything_blocked)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	for (;;)
		;
}

TEST(fails_in_a_child_nobody_asks)
{
	pid_t pid = FORK();

	if (!pid)
		CHECK(1 == 2);
	waitpid(pid, NULL, 0);
}

static void *fail_in_thread(void *arg UNUSED)
{
	CHECK(1 == 2);
	return NULL;
}

TEST(fails_in_a_thread)
{
	pthread_t t;

	CHECK_ZERO(pthread_create(&t, NULL, fail_in_thread, NULL));
	pthread_join(t, NULL);
}

TEST(child_has_wrong_status)
{
	pid_t pid = FORK();

	if (!pid)
		_exit(5);
	JOIN(pid);
}

TEST(skips)
{
	SKIP("on purpose");
}

TEST(leaves_a_child_behind)
{
	if (!FORK()) {
		for (;;)
			pause();
	}
}
