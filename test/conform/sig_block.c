/* SPDX-License-Identifier: Apache-2.0 */
/* What a signal does to a call that blocks: EINTR, restart, partial results, the swapped masks. */
#include <linux/futex.h>
#include <sys/socket.h>

#include "test/conform/conform.h"

static volatile sig_atomic_t count;

static void on_count(int sig UNUSED)
{
	count++;
}

static sigset_t mask_in_handler;

static void on_mask(int sig UNUSED)
{
	sigprocmask(SIG_BLOCK, NULL, &mask_in_handler);
	count++;
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
	CHECK(sigismember(&mask_in_handler, SIGTERM));	/* it ran under the new mask */
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

