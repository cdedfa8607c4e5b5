/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers and what they are told, masks, pending signals, default actions. */
#include "test/conform/conform.h"

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
