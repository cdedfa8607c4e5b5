/* SPDX-License-Identifier: Apache-2.0 */
/* Alternate stacks, jumps out of handlers, and signals with several threads. */
#include <pthread.h>
#include <setjmp.h>

#include "test/conform/conform.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static volatile sig_atomic_t count;

static void on_count(int sig UNUSED)
{
	count++;
}

static stack_t alt;
static volatile char *handler_sp;
static volatile int altflags;

static void on_alt(int sig UNUSED)
{
	char here;
	stack_t now;

	handler_sp = (volatile char *)(uintptr_t)&here;
	sigaltstack(NULL, &now);
	altflags = now.ss_flags;
	count++;
}

static bool on_alt_stack(void)
{
	return handler_sp >= (char *)alt.ss_sp && handler_sp < (char *)alt.ss_sp + alt.ss_size;
}

static void set_alt(int flags)
{
	alt = (stack_t){ .ss_sp = calloc(1, 65536), .ss_size = 65536, .ss_flags = flags };
	CHECK_OK(sigaltstack(&alt, NULL));
}

TEST(sigaltstack_is_used)
{
	set_alt(0);
	on_signal_flags(SIGUSR1, on_alt, SA_ONSTACK);
	CHECK_OK(raise(SIGUSR1));
	CHECK(on_alt_stack());
	CHECK_EQ(altflags, SS_ONSTACK);
}

TEST(sigaltstack_only_with_flag)
{
	set_alt(0);
	on_signal(SIGUSR1, on_alt);
	CHECK_OK(raise(SIGUSR1));
	CHECK(!on_alt_stack());
	CHECK_EQ(altflags, 0);
}

TEST(sigaltstack_disable)
{
	stack_t off = { .ss_flags = SS_DISABLE }, now;

	set_alt(0);
	CHECK_OK(sigaltstack(&off, &now));
	CHECK(now.ss_sp == alt.ss_sp);
	CHECK_OK(sigaltstack(NULL, &now));
	CHECK_EQ(now.ss_flags, SS_DISABLE);
	on_signal_flags(SIGUSR1, on_alt, SA_ONSTACK);
	CHECK_OK(raise(SIGUSR1));
	CHECK(!on_alt_stack());
}

TEST(sigaltstack_errors)
{
	stack_t ss = { .ss_sp = calloc(1, 65536), .ss_size = 100 };

	CHECK_ERRNO(sigaltstack(&ss, NULL), ENOMEM);
	ss.ss_size = 65536;
	ss.ss_flags = 0x1234;
	CHECK_ERRNO(sigaltstack(&ss, NULL), EINVAL);
	CHECK_ERRNO(syscall(SYS_sigaltstack, 8L, NULL), EFAULT);
}

static volatile int alt_errno;

static void on_alt_change(int sig UNUSED)
{
	stack_t off = { .ss_flags = SS_DISABLE };

	alt_errno = sigaltstack(&off, NULL) < 0 ? errno : 0;
}

TEST(sigaltstack_busy)
{
	set_alt(0);
	on_signal_flags(SIGUSR1, on_alt_change, SA_ONSTACK);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(alt_errno, EPERM);
}

TEST(sigaltstack_autodisarm)
{
	stack_t now;

	set_alt(SS_AUTODISARM);
	on_signal_flags(SIGUSR1, on_alt, SA_ONSTACK);
	CHECK_OK(raise(SIGUSR1));
	CHECK(on_alt_stack());
	CHECK(altflags & SS_DISABLE);
	CHECK_OK(sigaltstack(NULL, &now));
	CHECK(now.ss_sp == alt.ss_sp);
	CHECK_EQ(now.ss_flags, (int)SS_AUTODISARM);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(count, 2);
}

TEST(sigaltstack_is_inherited_by_fork)
{
	pid_t pid;

	set_alt(0);
	on_signal_flags(SIGUSR1, on_alt, SA_ONSTACK);
	pid = FORK();
	if (!pid) {
		CHECK_OK(raise(SIGUSR1));
		_exit(on_alt_stack() ? 0 : 1);
	}
	JOIN(pid);
}

static sigjmp_buf jump;

static void on_jump(int sig UNUSED)
{
	count++;
	siglongjmp(jump, 5);
}

TEST(siglongjmp_restores_mask)
{
	sigset_t set;
	int r;

	on_signal(SIGUSR1, on_jump);
	r = sigsetjmp(jump, 1);
	if (!r) {
		raise(SIGUSR1);
		FAIL("raise returned");
	}
	CHECK_EQ(r, 5);
	CHECK_OK(sigprocmask(SIG_BLOCK, NULL, &set));
	CHECK(!sigismember(&set, SIGUSR1));
	if (!sigsetjmp(jump, 1))
		raise(SIGUSR1);
	CHECK_EQ(count, 2);
}

TEST(longjmp_off_the_alternate_stack)
{
	set_alt(0);
	on_signal_flags(SIGUSR1, on_jump, SA_ONSTACK);
	for (volatile int i = 0; i < 5; i++)
		if (!sigsetjmp(jump, 1))
			raise(SIGUSR1);
	CHECK_EQ(count, 5);
}

static void *signal_target(void *arg)
{
	sigset_t set = sigset_of(SIGUSR1);

	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	*(volatile pid_t *)arg = syscall(SYS_gettid);
	while (!count)
		msleep(2);
	return NULL;
}

static volatile pid_t handler_tid;

static void on_tid(int sig UNUSED)
{
	handler_tid = syscall(SYS_gettid);
	count++;
}

TEST(process_signal_goes_to_a_willing_thread)
{
	volatile pid_t tid = 0;
	pthread_t t;

	on_signal(SIGUSR1, on_tid);
	BLOCK(SIGUSR1);
	CHECK_ZERO(pthread_create(&t, NULL, signal_target, (void *)&tid));
	EVENTUALLY(tid);
	CHECK_OK(kill(getpid(), SIGUSR1));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_EQ(handler_tid, tid);
}

TEST(thread_mask_is_inherited)
{
	volatile pid_t tid = 0;
	pthread_t t;

	on_signal(SIGUSR1, on_tid);
	CHECK_ZERO(pthread_create(&t, NULL, signal_target, (void *)&tid));
	EVENTUALLY(tid);
	CHECK_OK(syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_EQ(handler_tid, tid);
}

static void *block_forever(void *arg UNUSED)
{
	for (;;)
		pause();
	return NULL;
}

TEST(fatal_signal_in_thread_kills_all)
{
	pid_t pid = FORK();

	if (!pid) {
		pthread_t t;

		CHECK_ZERO(pthread_create(&t, NULL, block_forever, NULL));
		CHECK_ZERO(pthread_kill(t, SIGTERM));
		for (;;)
			pause();
	}
	CHECK_SIGNALED(pid, SIGTERM);
}

TEST(stop_stops_every_thread)
{
	volatile int *n = (volatile int *)CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
							MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t pid = FORK();
	int status, a;

	if (!pid) {
		pthread_t t;

		CHECK_ZERO(pthread_create(&t, NULL, block_forever, NULL));
		for (;;)
			(*n)++;
	}
	EVENTUALLY(*n > 0);
	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	a = *n;
	msleep(30);
	CHECK_EQ(*n, a);
	CHECK_OK(kill(pid, SIGCONT));
	EVENTUALLY(*n != a);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(handler_without_stack_kills)
{
	pid_t pid = FORK();

	if (!pid) {
		on_signal(SIGUSR1, on_count);
		asm volatile("mov $16, %%rsp\n\t"
			     "mov %0, %%eax\n\t"
			     "mov %1, %%edi\n\t"
			     "mov %2, %%esi\n\t"
			     "syscall\n\t"
			     "ud2"
			     :: "i"(SYS_kill), "r"(getpid()), "i"(SIGUSR1)
			     : "rax", "rdi", "rsi", "rcx", "r11", "memory");
	}
	CHECK_SIGNALED(pid, SIGSEGV);
}
