/* SPDX-License-Identifier: Apache-2.0 */
/* Realtime signals, sigwaitinfo and sigtimedwait, signalfd. */
#include <pthread.h>
#include <sys/signalfd.h>

#include "test/conform/conform.h"

static volatile int values[64], nvalues;

static void on_value(int sig, siginfo_t *info, void *uc UNUSED)
{
	if (nvalues < 64)
		values[nvalues++] = sig * 1000 + info->si_value.sival_int;
}

static void queue(int sig, int v)
{
	union sigval value = { .sival_int = v };

	CHECK_OK(sigqueue(getpid(), sig, value));
}

static sigset_t block_range(int lo, int hi)
{
	sigset_t set;

	sigemptyset(&set);
	for (int s = lo; s <= hi; s++)
		sigaddset(&set, s);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	return set;
}

TEST(realtime_signals_queue_in_order)
{
	sigset_t set = block_range(40, 40);

	on_siginfo(40, on_value, 0);
	for (int i = 0; i < 10; i++)
		queue(40, i);
	CHECK_OK(sigprocmask(SIG_UNBLOCK, &set, NULL));
	CHECK_EQ(nvalues, 10);
	for (int i = 0; i < 10; i++)
		CHECK_EQ(values[i], 40000 + i);
}

TEST(lower_numbers_first)
{
	sigset_t set = block_range(40, 43);
	siginfo_t info;

	queue(43, 1);
	queue(41, 2);
	queue(40, 3);
	queue(41, 4);
	CHECK_EQ(sigwaitinfo(&set, &info), 40);
	CHECK_EQ(info.si_value.sival_int, 3);
	CHECK_EQ(sigwaitinfo(&set, &info), 41);
	CHECK_EQ(info.si_value.sival_int, 2);
	CHECK_EQ(sigwaitinfo(&set, &info), 41);
	CHECK_EQ(info.si_value.sival_int, 4);
	CHECK_EQ(sigwaitinfo(&set, &info), 43);
}

TEST(standard_before_realtime)
{
	sigset_t set = block_range(40, 40);

	sigaddset(&set, SIGTERM);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	queue(40, 1);
	CHECK_OK(raise(SIGTERM));
	CHECK_EQ(sigwaitinfo(&set, NULL), SIGTERM);
	CHECK_EQ(sigwaitinfo(&set, NULL), 40);
}

TEST(many_queued)
{
	sigset_t set = block_range(50, 50);
	siginfo_t info;

	for (int i = 0; i < 500; i++)
		queue(50, i);
	for (int i = 0; i < 500; i++) {
		CHECK_EQ(sigwaitinfo(&set, &info), 50);
		CHECK_EQ(info.si_value.sival_int, i);
	}
	CHECK_ERRNO(sigtimedwait(&set, NULL, &(struct timespec){ 0, 0 }), EAGAIN);
}

TEST(standard_queue_keeps_first_value)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1);
	siginfo_t info;

	queue(SIGUSR1, 1);
	queue(SIGUSR1, 2);
	CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
	CHECK_EQ(info.si_value.sival_int, 1);
	CHECK_ERRNO(sigtimedwait(&set, NULL, &(struct timespec){ 0, 0 }), EAGAIN);
}

TEST(realtime_handler_masks_itself)
{
	on_siginfo(SIGRTMIN + 1, on_value, 0);
	queue(SIGRTMIN + 1, 7);
	CHECK_EQ(nvalues, 1);
	CHECK_EQ(values[0], (SIGRTMIN + 1) * 1000 + 7);
}

TEST(sigwaitinfo_fields)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1);
	siginfo_t info;

	CHECK_OK(kill(getpid(), SIGUSR1));
	CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
	CHECK_EQ(info.si_signo, SIGUSR1);
	CHECK_EQ(info.si_code, SI_USER);
	CHECK_EQ(info.si_pid, getpid());
	CHECK_EQ(info.si_errno, 0);
}

TEST(sigwaitinfo_blocks_until_sent)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1);
	siginfo_t info;
	pid_t pid = FORK();

	if (!pid) {
		msleep(50);
		_exit(kill(getppid(), SIGUSR1) ? 1 : 0);
	}
	CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR1);
	CHECK_EQ(info.si_pid, pid);
	JOIN(pid);
}

TEST(sigtimedwait_times_out)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1);
	int64_t start = now_ms();

	CHECK_ERRNO(sigtimedwait(&set, NULL, &(struct timespec){ 0, 50000000 }), EAGAIN);
	CHECK(now_ms() - start >= 49);
	CHECK_ERRNO(sigtimedwait(&set, NULL, &(struct timespec){ 0, -1 }), EINVAL);
	CHECK_ERRNO(sigtimedwait(&set, NULL, &(struct timespec){ 0, 1000000000 }), EINVAL);
}

static void on_nothing(int sig UNUSED)
{
}

TEST(sigwaitinfo_eintr)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1);

	on_signal_flags(SIGALRM, on_nothing, SA_RESTART);
	TICK_START();
	CHECK_ERRNO(sigwaitinfo(&set, NULL), EINTR);
}

TEST(sigwait_takes_from_pending)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1), pending;
	int sig;

	CHECK_OK(raise(SIGUSR1));
	CHECK_ZERO(sigwait(&set, &sig));
	CHECK_EQ(sig, SIGUSR1);
	CHECK_OK(sigpending(&pending));
	CHECK(!sigismember(&pending, SIGUSR1));
}

static void *waiter(void *arg)
{
	sigset_t set = sigset_of(SIGUSR2);
	int sig = 0;

	sigwait(&set, &sig);
	*(volatile int *)arg = sig;
	return NULL;
}

TEST(sigwait_in_thread_gets_process_signal)
{
	volatile int got = 0;
	pthread_t t;

	block_range(SIGUSR2, SIGUSR2);
	CHECK_ZERO(pthread_create(&t, NULL, waiter, (void *)&got));
	msleep(20);
	CHECK_OK(kill(getpid(), SIGUSR2));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_EQ(got, SIGUSR2);
}

TEST(thread_directed_is_private)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1), pending;
	volatile int got = 0;
	pthread_t t;

	block_range(SIGUSR2, SIGUSR2);
	CHECK_ZERO(pthread_create(&t, NULL, waiter, (void *)&got));
	CHECK_OK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR2));
	msleep(20);
	CHECK_EQ(got, 0);
	CHECK_OK(sigpending(&pending));
	CHECK(sigismember(&pending, SIGUSR2));
	CHECK_ZERO(pthread_kill(t, SIGUSR2));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_EQ(got, SIGUSR2);
	CHECK(!sigismember(&set, SIGUSR2));
}

TEST(thread_signal_before_process_signal)
{
	sigset_t set = block_range(40, 40);
	siginfo_t info;

	queue(40, 1);
	CHECK_OK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), 40));
	/* The raw call: the C library turns SI_TKILL into SI_USER. */
	CHECK_EQ(syscall(SYS_rt_sigtimedwait, &set, &info, NULL, 8L), 40);
	CHECK_EQ(info.si_code, SI_TKILL);
	CHECK_EQ(syscall(SYS_rt_sigtimedwait, &set, &info, NULL, 8L), 40);
	CHECK_EQ(info.si_code, SI_QUEUE);
}

TEST(signalfd_read)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1);
	struct signalfd_siginfo si[3];
	int fd = CHECK_OK(signalfd(-1, &set, SFD_CLOEXEC));

	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_OK(kill(getpid(), SIGUSR1));
	CHECK_EQ(read(fd, si, sizeof(si)), 128);
	CHECK_EQ(si[0].ssi_signo, SIGUSR1);
	CHECK_EQ(si[0].ssi_code, SI_USER);
	CHECK_EQ(si[0].ssi_pid, getpid());
	CHECK_EQ(si[0].ssi_uid, getuid());
}

TEST(signalfd_several_at_once)
{
	sigset_t set = block_range(40, 42);
	struct signalfd_siginfo si[4];
	int fd = CHECK_OK(signalfd(-1, &set, 0));

	queue(42, 10);
	queue(40, 11);
	queue(40, 12);
	CHECK_EQ(read(fd, si, sizeof(si)), 3 * 128);
	CHECK_EQ(si[0].ssi_signo, 40);
	CHECK_EQ(si[0].ssi_int, 11);
	CHECK_EQ(si[1].ssi_int, 12);
	CHECK_EQ(si[2].ssi_signo, 42);
}

TEST(signalfd_nonblock)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1);
	struct signalfd_siginfo si;
	int fd = CHECK_OK(signalfd(-1, &set, SFD_NONBLOCK));

	CHECK_ERRNO(read(fd, &si, sizeof(si)), EAGAIN);
	CHECK_OK(raise(SIGUSR1));
	CHECK_ERRNO(read(fd, &si, 100), EINVAL);
	CHECK_EQ(read(fd, &si, sizeof(si)), sizeof(si));
}

TEST(signalfd_poll)
{
	sigset_t set = block_range(SIGUSR1, SIGUSR1);
	struct pollfd p = { CHECK_OK(signalfd(-1, &set, 0)), POLLIN, 0 };
	pid_t pid;

	CHECK_EQ(poll(&p, 1, 0), 0);
	pid = FORK();
	if (!pid) {
		msleep(30);
		_exit(kill(getppid(), SIGUSR1) ? 1 : 0);
	}
	CHECK_EQ(poll(&p, 1, -1), 1);
	CHECK_EQ(p.revents, POLLIN);
	JOIN(pid);
}

TEST(signalfd_change_mask)
{
	sigset_t set = block_range(40, 41), other = sigset_of(41);
	struct signalfd_siginfo si;
	int fd = CHECK_OK(signalfd(-1, &set, SFD_NONBLOCK));

	CHECK_EQ(signalfd(fd, &other, 0), fd);
	queue(40, 0);
	CHECK_ERRNO(read(fd, &si, sizeof(si)), EAGAIN);
	queue(41, 0);
	CHECK_EQ(read(fd, &si, sizeof(si)), sizeof(si));
	CHECK_EQ(si.ssi_signo, 41);
}

TEST(signalfd_errors)
{
	sigset_t set = sigset_of(SIGUSR1);

	CHECK_ERRNO(signalfd(-1, &set, 0x1234), EINVAL);
	CHECK_ERRNO(signalfd(0, &set, 0), EINVAL);
	CHECK_ERRNO(signalfd(190, &set, 0), EBADF);
	CHECK_ERRNO(syscall(SYS_signalfd4, -1, &set, 4L, 0), EINVAL);
	CHECK_ERRNO(syscall(SYS_signalfd4, -1, 8L, 8L, 0), EFAULT);
	CHECK_ERRNO(write(CHECK_OK(signalfd(-1, &set, 0)), "12345678", 8), EINVAL);
}

TEST(signalfd_sigchld)
{
	sigset_t set = block_range(SIGCHLD, SIGCHLD);
	struct signalfd_siginfo si;
	int fd = CHECK_OK(signalfd(-1, &set, 0));
	pid_t pid = FORK();

	if (!pid)
		_exit(33);
	CHECK_EQ(read(fd, &si, sizeof(si)), sizeof(si));
	CHECK_EQ(si.ssi_signo, SIGCHLD);
	CHECK_EQ(si.ssi_code, CLD_EXITED);
	CHECK_EQ(si.ssi_pid, pid);
	CHECK_EQ(si.ssi_status, 33);
	CHECK_EXIT(pid, 33);
}

TEST(sigchld_does_not_queue)
{
	sigset_t set = block_range(SIGCHLD, SIGCHLD);
	pid_t a = FORK(), b;
	siginfo_t info;

	if (!a)
		_exit(0);
	CHECK_OK(waitid(P_PID, a, &info, WEXITED | WNOWAIT));
	b = FORK();
	if (!b)
		_exit(0);
	CHECK_OK(waitid(P_PID, b, &info, WEXITED | WNOWAIT));
	CHECK_EQ(sigwaitinfo(&set, &info), SIGCHLD);
	CHECK_EQ(info.si_pid, a);
	CHECK_ERRNO(sigtimedwait(&set, NULL, &(struct timespec){ 0, 0 }), EAGAIN);
	JOIN(a);
	JOIN(b);
}

TEST(proc_status_masks)
{
	char buf[4096];

	for (int sig = 1; sig <= SIGRTMAX; sig++)
		signal(sig, SIG_DFL);
	block_range(SIGUSR2, SIGUSR2);
	signal(SIGHUP, SIG_IGN);
	on_siginfo(SIGUSR1, on_value, 0);
	CHECK_OK(kill(getpid(), SIGUSR2));
	CHECK(get_file("/proc/self/status", buf, sizeof(buf)) > 0);
	CHECK(strstr(buf, "\nShdPnd:\t0000000000000800\n"));
	CHECK(strstr(buf, "\nSigBlk:\t0000000000000800\n"));
	CHECK(strstr(buf, "\nSigIgn:\t0000000000000001\n"));
	CHECK(strstr(buf, "\nSigCgt:\t0000000000000200\n"));
}
