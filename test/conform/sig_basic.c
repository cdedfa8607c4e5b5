/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers, masks, default actions, interruption and restart, alternate stacks. */
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/socket.h>

#include "test/conform/conform.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static volatile uintptr_t nowhere = 16;
static volatile sig_atomic_t count, seen_sig, seen_code, seen_pid, seen_uid, seen_value;
static volatile sig_atomic_t order[64], order_len;

static void on_count(int sig)
{
	seen_sig = sig;
	count++;
}

static void on_info(int sig, siginfo_t *info, void *uc UNUSED)
{
	seen_sig = sig;
	seen_code = info->si_code;
	seen_pid = info->si_pid;
	seen_uid = info->si_uid;
	seen_value = info->si_value.sival_int;
	count++;
}

static void on_order(int sig)
{
	if (order_len < 64)
		order[order_len++] = sig;
}

TEST(handler_runs_before_kill_returns)
{
	on_signal(SIGUSR1, on_count);
	CHECK_OK(kill(getpid(), SIGUSR1));
	CHECK_EQ(count, 1);
	CHECK_EQ(seen_sig, SIGUSR1);
}

TEST(info_of_kill)
{
	on_siginfo(SIGUSR1, on_info, 0);
	CHECK_OK(kill(getpid(), SIGUSR1));
	CHECK_EQ(seen_code, SI_USER);
	CHECK_EQ(seen_pid, getpid());
	CHECK_EQ(seen_uid, getuid());
}

TEST(info_of_tgkill)
{
	on_siginfo(SIGUSR1, on_info, 0);
	CHECK_OK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1));
	CHECK_EQ(seen_code, SI_TKILL);
	CHECK_EQ(seen_pid, getpid());
	CHECK_OK(syscall(SYS_tkill, syscall(SYS_gettid), SIGUSR1));
	CHECK_EQ(count, 2);
}

TEST(info_of_sigqueue)
{
	union sigval v = { .sival_int = 4711 };

	on_siginfo(SIGUSR1, on_info, 0);
	CHECK_OK(sigqueue(getpid(), SIGUSR1, v));
	CHECK_EQ(seen_code, SI_QUEUE);
	CHECK_EQ(seen_value, 4711);
	CHECK_EQ(seen_pid, getpid());
}

TEST(info_from_another_process)
{
	pid_t pid;

	on_siginfo(SIGUSR1, on_info, 0);
	pid = FORK();
	if (!pid)
		_exit(kill(getppid(), SIGUSR1) ? 1 : 0);
	EVENTUALLY(count == 1);
	CHECK_EQ(seen_pid, pid);
	JOIN(pid);
}

TEST(kill_errors)
{
	CHECK_ERRNO(kill(getpid(), 65), EINVAL);
	CHECK_ERRNO(kill(getpid(), -1), EINVAL);
	CHECK_ERRNO(kill(0x3fffffff, 0), ESRCH);
	CHECK_ERRNO(kill(-0x3fffffff, 0), ESRCH);
	CHECK_ERRNO(syscall(SYS_tgkill, getpid(), -1, 0), EINVAL);
	CHECK_ERRNO(syscall(SYS_tgkill, getpid(), 0x3fffffff, 0), ESRCH);
	CHECK_ERRNO(syscall(SYS_tgkill, getppid(), syscall(SYS_gettid), 0), ESRCH);
	CHECK_OK(kill(getpid(), 0));
}

TEST(sigqueue_code_is_checked)
{
	siginfo_t info = { .si_code = SI_USER };
	pid_t parent = getppid();

	info.si_signo = SIGUSR1;
	CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, parent, SIGUSR1, &info), EPERM);
	CHECK_OK(syscall(SYS_rt_sigqueueinfo, getpid(), 0, &info));
}

TEST(sigaction_errors)
{
	struct sigaction sa = { .sa_handler = on_count };

	CHECK_ERRNO(sigaction(SIGKILL, &sa, NULL), EINVAL);
	CHECK_ERRNO(sigaction(SIGSTOP, &sa, NULL), EINVAL);
	CHECK_ERRNO(sigaction(65, &sa, NULL), EINVAL);
	CHECK_ERRNO(sigaction(0, &sa, NULL), EINVAL);
	CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4L), EINVAL);
	CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, 8L, NULL, 8L), EFAULT);
}

TEST(sigaction_returns_old)
{
	struct sigaction sa = { .sa_handler = on_count, .sa_flags = SA_RESTART }, old;

	CHECK_OK(sigaction(SIGUSR1, &sa, &old));
	CHECK(old.sa_handler == SIG_DFL);
	CHECK_OK(sigaction(SIGUSR1, NULL, &old));
	CHECK(old.sa_handler == on_count);
	CHECK(old.sa_flags & SA_RESTART);
}

TEST(mask_blocks_and_unblock_delivers)
{
	on_signal(SIGUSR1, on_count);
	BLOCK(SIGUSR1);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(count, 0);
	UNBLOCK(SIGUSR1);
	CHECK_EQ(count, 1);
}

TEST(standard_signals_do_not_queue)
{
	on_signal(SIGUSR1, on_count);
	BLOCK(SIGUSR1);
	for (int i = 0; i < 5; i++)
		CHECK_OK(kill(getpid(), SIGUSR1));
	UNBLOCK(SIGUSR1);
	CHECK_EQ(count, 1);
}

TEST(pending_set)
{
	sigset_t set;

	BLOCK(SIGUSR1);
	BLOCK(SIGUSR2);
	CHECK_OK(raise(SIGUSR2));
	CHECK_OK(sigpending(&set));
	CHECK(!sigismember(&set, SIGUSR1));
	CHECK(sigismember(&set, SIGUSR2));
}

TEST(ignoring_discards_pending)
{
	BLOCK(SIGUSR1);
	CHECK_OK(raise(SIGUSR1));
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR1, SIG_DFL);
	UNBLOCK(SIGUSR1);
}

TEST(kill_and_stop_cannot_be_blocked)
{
	sigset_t all, got;

	sigfillset(&all);
	CHECK_OK(sigprocmask(SIG_SETMASK, &all, NULL));
	CHECK_OK(sigprocmask(SIG_SETMASK, NULL, &got));
	CHECK(!sigismember(&got, SIGKILL));
	CHECK(!sigismember(&got, SIGSTOP));
	CHECK(sigismember(&got, SIGTERM));
}

TEST(sigprocmask_errors)
{
	sigset_t set;

	sigemptyset(&set);
	CHECK_ERRNO(sigprocmask(77, &set, NULL), EINVAL);
	CHECK_OK(sigprocmask(77, NULL, &set));
	CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8L, NULL, 8L), EFAULT);
	CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 16L), EINVAL);
}

static sigset_t mask_in_handler;

static void on_mask(int sig UNUSED)
{
	sigprocmask(SIG_BLOCK, NULL, &mask_in_handler);
	count++;
}

TEST(handler_mask)
{
	struct sigaction sa = { .sa_handler = on_mask };
	sigset_t after;

	sigaddset(&sa.sa_mask, SIGUSR2);
	CHECK_OK(sigaction(SIGUSR1, &sa, NULL));
	CHECK_OK(raise(SIGUSR1));
	CHECK(sigismember(&mask_in_handler, SIGUSR1));
	CHECK(sigismember(&mask_in_handler, SIGUSR2));
	CHECK(!sigismember(&mask_in_handler, SIGTERM));
	CHECK_OK(sigprocmask(SIG_BLOCK, NULL, &after));
	CHECK(!sigismember(&after, SIGUSR1));
	CHECK(!sigismember(&after, SIGUSR2));
}

static void on_nested(int sig)
{
	on_order(sig);
	if (sig == SIGUSR1)
		raise(SIGUSR2);
	on_order(-sig);
}

TEST(nested_handlers)
{
	on_signal(SIGUSR1, on_nested);
	on_signal(SIGUSR2, on_nested);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(order_len, 4);
	CHECK_EQ(order[1], SIGUSR2);
	CHECK_EQ(order[2], -SIGUSR2);
	CHECK_EQ(order[3], -SIGUSR1);
}

static void on_recursive(int sig)
{
	on_order(sig);
	if (++count < 3)
		raise(sig);
	on_order(-sig);
}

TEST(same_signal_waits_for_handler_end)
{
	on_signal(SIGUSR1, on_recursive);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(order_len, 6);
	CHECK_EQ(order[0], SIGUSR1);
	CHECK_EQ(order[1], -SIGUSR1);
	CHECK_EQ(order[2], SIGUSR1);
}

TEST(sa_nodefer_nests)
{
	on_signal_flags(SIGUSR1, on_recursive, SA_NODEFER);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(order_len, 6);
	CHECK_EQ(order[1], SIGUSR1);
	CHECK_EQ(order[2], SIGUSR1);
	CHECK_EQ(order[3], -SIGUSR1);
}

TEST(sa_resethand)
{
	struct sigaction now;

	on_signal_flags(SIGUSR1, on_count, SA_RESETHAND);
	CHECK_OK(raise(SIGUSR1));
	CHECK_EQ(count, 1);
	CHECK_OK(sigaction(SIGUSR1, NULL, &now));
	CHECK(now.sa_handler == SIG_DFL);
}

TEST(several_pending_run_by_number)
{
	BLOCK(SIGUSR1);
	BLOCK(SIGUSR2);
	BLOCK(SIGHUP);
	on_signal(SIGUSR1, on_order);
	on_signal(SIGUSR2, on_order);
	on_signal(SIGHUP, on_order);
	CHECK_OK(raise(SIGUSR2));
	CHECK_OK(raise(SIGUSR1));
	CHECK_OK(raise(SIGHUP));
	sigset_t none;

	sigemptyset(&none);
	CHECK_OK(sigprocmask(SIG_SETMASK, &none, NULL));
	/* All frames are pushed at once; the last pushed (the highest number) runs first. */
	CHECK_EQ(order_len, 3);
	CHECK(order[0] + order[1] + order[2] == SIGUSR1 + SIGUSR2 + SIGHUP);
}

TEST(default_terminates)
{
	static const int sigs[] = { SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS,
				    SIGFPE, SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM,
				    SIGSTKFLT, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGPWR,
				    SIGSYS, 34, 64 };

	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++) {
		pid_t pid = FORK();

		if (!pid) {
			kill(getpid(), sigs[i]);
			_exit(0);
		}
		CHECK_SIGNALED(pid, sigs[i]);
	}
}

TEST(default_ignores)
{
	static const int sigs[] = { SIGCHLD, SIGURG, SIGWINCH, SIGCONT };

	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		CHECK_OK(raise(sigs[i]));
}

TEST(default_stops)
{
	static const int sigs[] = { SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU };

	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++) {
		pid_t pid = FORK();
		int status;

		if (!pid) {
			kill(getpid(), sigs[i]);
			_exit(0);
		}
		CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
		CHECK(WIFSTOPPED(status));
		CHECK_EQ(WSTOPSIG(status), sigs[i]);
		CHECK_OK(kill(pid, SIGCONT));
		JOIN(pid);
	}
}

TEST(orphaned_group_ignores_tty_stops)
{
	pid_t pid = FORK();

	if (!pid) {
		setsid();
		kill(getpid(), SIGTSTP);
		kill(getpid(), SIGTTIN);
		_exit(0);
	}
	JOIN(pid);
}

TEST(sigcont_handler_runs)
{
	pid_t pid = FORK();
	int status;

	if (!pid) {
		on_signal(SIGCONT, on_count);
		kill(getpid(), SIGSTOP);
		_exit(count == 1 ? 0 : 1);
	}
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK_OK(kill(pid, SIGCONT));
	JOIN(pid);
}

TEST(cont_discards_stop_and_reverse)
{
	sigset_t set;

	BLOCK(SIGTSTP);
	BLOCK(SIGCONT);
	CHECK_OK(raise(SIGTSTP));
	CHECK_OK(raise(SIGCONT));
	CHECK_OK(sigpending(&set));
	CHECK(!sigismember(&set, SIGTSTP));
	CHECK_OK(raise(SIGTSTP));
	CHECK_OK(sigpending(&set));
	CHECK(sigismember(&set, SIGTSTP));
	CHECK(!sigismember(&set, SIGCONT));
	signal(SIGTSTP, SIG_IGN);
}

TEST(sigpipe)
{
	int fd[2];
	pid_t pid;

	CHECK_OK(pipe(fd));
	CHECK_OK(close(fd[0]));
	pid = FORK();
	if (!pid) {
		CHECK_OK(write(fd[1], "x", 1));
		_exit(0);
	}
	CHECK_SIGNALED(pid, SIGPIPE);
	on_signal(SIGPIPE, on_count);
	CHECK_ERRNO(write(fd[1], "x", 1), EPIPE);
	CHECK_EQ(count, 1);
}

TEST(eintr_read)
{
	int fd[2];
	char c;

	CHECK_OK(pipe(fd));
	on_signal(SIGALRM, on_count);
	TICK_START();
	CHECK_ERRNO(read(fd[0], &c, 1), EINTR);
}

/* The handler's third run makes the awaited thing happen. */
static int wake_fd;

static void on_wake(int sig UNUSED)
{
	if (++count == 3 && write(wake_fd, "x", 1) != 1)
		_exit(3);
}

TEST(restart_read)
{
	int fd[2];
	char c;

	CHECK_OK(pipe(fd));
	wake_fd = fd[1];
	on_signal_flags(SIGALRM, on_wake, SA_RESTART);
	TICK_START();
	CHECK_EQ(read(fd[0], &c, 1), 1);
	CHECK(count >= 3);
}

TEST(restart_socket_read)
{
	int fd[2];
	char c;

	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	wake_fd = fd[1];
	on_signal_flags(SIGALRM, on_wake, SA_RESTART);
	TICK_START();
	CHECK_EQ(recv(fd[0], &c, 1, 0), 1);
}

TEST(eintr_socket_accept)
{
	int fd = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));

	CHECK_OK(bind(fd, (struct sockaddr *)&(struct sockaddr){ AF_UNIX, { 0 } },
		      sizeof(sa_family_t)));
	CHECK_OK(listen(fd, 5));
	on_signal(SIGALRM, on_count);
	TICK_START();
	CHECK_ERRNO(accept(fd, NULL, NULL), EINTR);
}

TEST(eintr_write_full_pipe)
{
	int fd[2];
	static char buf[65536 + 1];

	CHECK_OK(pipe2(fd, O_NONBLOCK));
	while (write(fd[1], buf, 4096) > 0)
		;
	CHECK_OK(fcntl(fd[1], F_SETFL, 0));
	on_signal(SIGALRM, on_count);
	TICK_START();
	CHECK_ERRNO(write(fd[1], buf, 1), EINTR);
}

TEST(partial_write_is_returned)
{
	int fd[2], size;
	char *buf = calloc(1, 1 << 20);

	CHECK_OK(pipe(fd));
	size = CHECK_OK(fcntl(fd[1], F_GETPIPE_SZ));
	on_signal_flags(SIGALRM, on_count, SA_RESTART);
	TICK_START();
	CHECK_EQ(write(fd[1], buf, 1 << 20), size);
}

TEST(poll_is_never_restarted)
{
	struct pollfd p;
	int fd[2];

	CHECK_OK(pipe(fd));
	p = (struct pollfd){ fd[0], POLLIN, 0 };
	on_signal_flags(SIGALRM, on_count, SA_RESTART);
	TICK_START();
	CHECK_ERRNO(poll(&p, 1, -1), EINTR);
	CHECK_ERRNO(pause(), EINTR);
}

TEST(nanosleep_eintr_gives_rest)
{
	struct timespec ts = { 1000, 0 }, rem = { 0, 0 };

	on_signal_flags(SIGALRM, on_count, SA_RESTART);
	TICK_START();
	CHECK_ERRNO(nanosleep(&ts, &rem), EINTR);
	CHECK(rem.tv_sec > 900 && rem.tv_sec < 1000);
}

TEST(clock_nanosleep_abs_eintr)
{
	struct timespec ts, rem = { 77, 77 };

	CHECK_OK(clock_gettime(CLOCK_MONOTONIC, &ts));
	ts.tv_sec += 1000;
	on_signal(SIGALRM, on_count);
	TICK_START();
	CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, &rem), EINTR);
	CHECK_EQ(rem.tv_sec, 77);
}

TEST(nanosleep_continues_over_stop)
{
	int64_t start = now_ms();
	pid_t pid = FORK();

	/* Without a handler a stop and continue must not end the sleep early. */
	if (!pid) {
		struct timespec ts = { 0, 300000000 };

		CHECK_OK(nanosleep(&ts, NULL));
		_exit(now_ms() - start >= 300 ? 0 : 1);
	}
	msleep(50);
	CHECK_OK(kill(pid, SIGSTOP));
	msleep(50);
	CHECK_OK(kill(pid, SIGCONT));
	JOIN(pid);
}

TEST(read_continues_over_ignored_and_stop)
{
	int fd[2];
	pid_t pid;
	char c;

	CHECK_OK(pipe(fd));
	pid = FORK();
	if (!pid) {
		signal(SIGUSR1, SIG_IGN);
		CHECK_EQ(read(fd[0], &c, 1), 1);
		_exit(0);
	}
	msleep(50);
	CHECK_OK(kill(pid, SIGWINCH));
	CHECK_OK(kill(pid, SIGUSR1));
	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_OK(kill(pid, SIGCONT));
	msleep(20);
	CHECK_EQ(write(fd[1], "x", 1), 1);
	JOIN(pid);
}

TEST(futex_wait_eintr)
{
	uint32_t word = 0;

	on_signal(SIGALRM, on_count);
	TICK_START();
	CHECK_ERRNO(syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0), EINTR);
}

TEST(futex_wait_restarts_without_timeout)
{
	volatile uint32_t *word = (uint32_t *)CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
							    MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t pid = FORK();
	long r;

	if (!pid) {
		msleep(200);
		*word = 1;
		syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
		_exit(0);
	}
	on_signal_flags(SIGALRM, on_count, SA_RESTART);
	TICK_START();
	r = syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
	CHECK(r == 0 || errno == EAGAIN);
	CHECK_EQ(*word, 1);
	JOIN(pid);
}

TEST(sigsuspend_swaps_mask)
{
	sigset_t set, after;

	on_signal(SIGUSR1, on_mask);
	BLOCK(SIGUSR1);
	CHECK_OK(raise(SIGUSR1));
	sigfillset(&set);
	sigdelset(&set, SIGUSR1);
	CHECK_ERRNO(sigsuspend(&set), EINTR);
	CHECK_EQ(count, 1);
	CHECK(sigismember(&mask_in_handler, SIGTERM));	/* the handler runs under the new mask */
	CHECK_OK(sigprocmask(SIG_BLOCK, NULL, &after));
	CHECK(sigismember(&after, SIGUSR1));
	CHECK(!sigismember(&after, SIGTERM));
}

TEST(pause_returns_after_handler)
{
	on_signal(SIGALRM, on_count);
	TICK_START();
	CHECK_ERRNO(pause(), EINTR);
	CHECK(count >= 1);
}

TEST(ppoll_unblocks_atomically)
{
	struct timespec ts = { 5, 0 };
	sigset_t none;

	on_signal(SIGUSR1, on_count);
	BLOCK(SIGUSR1);
	CHECK_OK(raise(SIGUSR1));
	sigemptyset(&none);
	CHECK_ERRNO(ppoll(NULL, 0, &ts, &none), EINTR);
	CHECK_EQ(count, 1);
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

TEST(busy_loop_is_interrupted)
{
	on_signal(SIGALRM, on_count);
	TICK_START();
	while (count < 3)
		;
}

TEST(kill_ends_a_busy_loop)
{
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		GATE_OPEN(&g);
		for (volatile long i = 0;; i++)
			;
	}
	GATE_WAIT(&g);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(abort_beats_handler)
{
	pid_t pid = FORK();

	if (!pid) {
		on_signal(SIGABRT, on_count);
		abort();
	}
	CHECK_SIGNALED(pid, SIGABRT);
}

TEST(fault_while_blocked_kills)
{
	pid_t pid = FORK();

	if (!pid) {
		on_signal(SIGSEGV, on_count);
		BLOCK(SIGSEGV);
		*(volatile char *)nowhere = 1;
		_exit(0);
	}
	CHECK_SIGNALED(pid, SIGSEGV);
}

TEST(fault_while_ignored_kills)
{
	pid_t pid = FORK();

	if (!pid) {
		signal(SIGSEGV, SIG_IGN);
		*(volatile char *)nowhere = 1;
		_exit(0);
	}
	CHECK_SIGNALED(pid, SIGSEGV);
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
