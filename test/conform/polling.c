/* SPDX-License-Identifier: Apache-2.0 */
/* poll, select, epoll and timerfd. */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "test/conform/conform.h"

static int p[2];

static short poll1(int fd, short events, int timeout)
{
	struct pollfd pfd = { fd, events, 0x7fff };
	int n = CHECK_OK(poll(&pfd, 1, timeout));

	CHECK_EQ(n, pfd.revents != 0);
	return pfd.revents;
}

TEST(poll_pipe)
{
	CHECK_OK(pipe(p));
	CHECK_EQ(poll1(p[0], POLLIN, 0), 0);
	CHECK_EQ(poll1(p[1], POLLOUT, 0), POLLOUT);
	CHECK_EQ(write(p[1], "x", 1), 1);
	CHECK_EQ(poll1(p[0], POLLIN | POLLRDNORM, 0), POLLIN | POLLRDNORM);
	CHECK_EQ(poll1(p[0], 0, 0), 0);
}

TEST(poll_hangup_and_error)
{
	CHECK_OK(pipe(p));
	CHECK_EQ(write(p[1], "x", 1), 1);
	CHECK_OK(close(p[1]));
	CHECK_EQ(poll1(p[0], POLLIN, 0), POLLIN | POLLHUP);
	CHECK_EQ(poll1(p[0], 0, 0), POLLHUP);
	CHECK_OK(pipe(p));
	CHECK_OK(close(p[0]));
	CHECK_EQ(poll1(p[1], POLLOUT, 0), POLLOUT | POLLERR);
}

TEST(poll_full_pipe)
{
	static char buf[65536];

	CHECK_OK(pipe(p));
	CHECK_EQ(write(p[1], buf, sizeof(buf)), sizeof(buf));
	CHECK_EQ(poll1(p[1], POLLOUT, 0), 0);
	CHECK_EQ(read(p[0], buf, 4096), 4096);
	CHECK_EQ(poll1(p[1], POLLOUT, 0), POLLOUT);
}

TEST(poll_bad_and_negative_descriptors)
{
	struct pollfd pfd[2] = { { 190, POLLIN, 0 }, { -5, POLLIN, 77 } };

	CHECK_EQ(poll(pfd, 2, -1), 1);
	CHECK_EQ(pfd[0].revents, POLLNVAL);
	CHECK_EQ(pfd[1].revents, 0);
}

TEST(poll_regular_file_is_ready)
{
	PUT_FILE("f", "");
	CHECK_EQ(poll1(CHECK_OK(open("f", O_RDWR)), POLLIN | POLLOUT, 0), POLLIN | POLLOUT);
}

TEST(poll_timeout)
{
	int64_t start = now_ms();

	CHECK_EQ(poll(NULL, 0, 60), 0);
	CHECK(now_ms() - start >= 59);
}

TEST(poll_wakes)
{
	pid_t pid;

	CHECK_OK(pipe(p));
	pid = FORK();
	if (!pid) {
		msleep(30);
		CHECK_EQ(write(p[1], "x", 1), 1);
		_exit(0);
	}
	CHECK_EQ(poll1(p[0], POLLIN, -1), POLLIN);
	JOIN(pid);
}

TEST(poll_errors)
{
	struct timespec ts = { 0, 1000000000 };

	CHECK_ERRNO(poll((struct pollfd *)8, 1, 0), EFAULT);
	CHECK_ERRNO(syscall(SYS_poll, NULL, 1 << 30, 0), EINVAL);
	CHECK_ERRNO(ppoll(NULL, 0, &ts, NULL), EINVAL);
	CHECK_ERRNO(syscall(SYS_ppoll, NULL, 0, NULL, &ts, 4L), EINVAL);
}

TEST(select_sets)
{
	struct timeval tv = { 0, 0 };
	fd_set r, w;

	CHECK_OK(pipe(p));
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(p[0], &r);
	FD_SET(p[1], &w);
	CHECK_EQ(select(p[1] + 1, &r, &w, NULL, &tv), 1);
	CHECK(!FD_ISSET(p[0], &r));
	CHECK(FD_ISSET(p[1], &w));
	CHECK_EQ(write(p[1], "x", 1), 1);
	FD_SET(p[0], &r);
	CHECK_EQ(select(p[1] + 1, &r, &w, NULL, NULL), 2);
}

TEST(select_eof_is_readable)
{
	fd_set r;

	CHECK_OK(pipe(p));
	CHECK_OK(close(p[1]));
	FD_ZERO(&r);
	FD_SET(p[0], &r);
	CHECK_EQ(select(p[0] + 1, &r, NULL, NULL, NULL), 1);
}

TEST(select_timeout_is_updated)
{
	struct timeval tv = { 0, 50000 };
	int64_t start = now_ms();

	CHECK_EQ(select(0, NULL, NULL, NULL, &tv), 0);
	CHECK(now_ms() - start >= 49);
	CHECK_EQ(tv.tv_sec + tv.tv_usec, 0);
}

TEST(select_errors)
{
	struct timeval tv = { -1, 0 };
	fd_set r;

	FD_ZERO(&r);
	FD_SET(190, &r);
	CHECK_ERRNO(select(191, &r, NULL, NULL, NULL), EBADF);
	CHECK_ERRNO(select(-1, NULL, NULL, NULL, NULL), EINVAL);
	CHECK_ERRNO(select(0, NULL, NULL, NULL, &tv), EINVAL);
}

static volatile sig_atomic_t count;

static void on_count(int sig UNUSED)
{
	count++;
}

TEST(pselect_mask_is_atomic)
{
	struct timespec ts = { 5, 0 };
	sigset_t none, after;

	on_signal(SIGUSR1, on_count);
	BLOCK(SIGUSR1);
	CHECK_OK(raise(SIGUSR1));
	sigemptyset(&none);
	CHECK_ERRNO(pselect(0, NULL, NULL, NULL, &ts, &none), EINTR);
	CHECK_EQ(count, 1);
	CHECK_OK(sigprocmask(SIG_BLOCK, NULL, &after));
	CHECK(sigismember(&after, SIGUSR1));
}

static int ep;

static void add(int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = { events, { .u64 = data } };

	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

/* The events of the only ready descriptor, 0 if none is. */
static uint32_t ready(uint64_t data)
{
	struct epoll_event e[4];
	int n = CHECK_OK(epoll_wait(ep, e, 4, 0));

	if (!n)
		return 0;
	CHECK_EQ(n, 1);
	CHECK_EQ(e[0].data.u64, data);
	return e[0].events;
}

static void start(void)
{
	ep = CHECK_OK(epoll_create1(EPOLL_CLOEXEC));
	CHECK_OK(pipe2(p, O_NONBLOCK));
}

TEST(epoll_level_triggered)
{
	char c;

	start();
	add(p[0], EPOLLIN, 0x1122334455667788);
	CHECK_EQ(ready(0), 0);
	CHECK_EQ(write(p[1], "x", 1), 1);
	CHECK_EQ(ready(0x1122334455667788), EPOLLIN);
	CHECK_EQ(ready(0x1122334455667788), EPOLLIN);
	CHECK_EQ(read(p[0], &c, 1), 1);
	CHECK_EQ(ready(0), 0);
}

TEST(epoll_edge_triggered)
{
	char c;

	start();
	add(p[0], EPOLLIN | EPOLLET, 5);
	CHECK_EQ(write(p[1], "xy", 2), 2);
	CHECK_EQ(ready(5), EPOLLIN);
	CHECK_EQ(ready(5), 0);
	CHECK_EQ(write(p[1], "z", 1), 1);
	CHECK_EQ(ready(5), EPOLLIN);
	CHECK_EQ(read(p[0], &c, 1), 1);
	CHECK_EQ(ready(5), 0);	/* data is left, but nothing new came */
}

TEST(epoll_oneshot)
{
	struct epoll_event e = { EPOLLIN | EPOLLONESHOT, { .u64 = 8 } };

	start();
	add(p[0], EPOLLIN | EPOLLONESHOT, 7);
	CHECK_EQ(write(p[1], "x", 1), 1);
	CHECK_EQ(ready(7), EPOLLIN);
	CHECK_EQ(ready(7), 0);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e));
	CHECK_EQ(ready(8), EPOLLIN);
}

TEST(epoll_hup_is_always_reported)
{
	start();
	add(p[0], 0, 1);
	CHECK_OK(close(p[1]));
	CHECK_EQ(ready(1), EPOLLHUP);
}

TEST(epoll_mod_and_del)
{
	struct epoll_event e = { EPOLLOUT, { .u64 = 2 } };

	start();
	add(p[1], EPOLLIN, 1);
	CHECK_EQ(ready(0), 0);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_MOD, p[1], &e));
	CHECK_EQ(ready(2), EPOLLOUT);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_DEL, p[1], NULL));
	CHECK_EQ(ready(0), 0);
}

TEST(epoll_close_removes)
{
	int d;

	start();
	CHECK_EQ(write(p[1], "x", 1), 1);
	add(p[0], EPOLLIN, 3);
	d = CHECK_OK(dup(p[0]));
	CHECK_OK(close(p[0]));
	CHECK_EQ(ready(3), EPOLLIN);	/* the open file lives on in the duplicate */
	CHECK_OK(close(d));
	CHECK_EQ(ready(3), 0);
}

TEST(epoll_same_file_twice_by_dup)
{
	struct epoll_event e[4];
	int d;

	start();
	d = CHECK_OK(dup(p[0]));
	add(p[0], EPOLLIN, 1);
	add(d, EPOLLIN, 2);
	CHECK_EQ(write(p[1], "x", 1), 1);
	CHECK_EQ(epoll_wait(ep, e, 4, 0), 2);
	CHECK_EQ(e[0].data.u64 + e[1].data.u64, 3);
}

TEST(epoll_nested)
{
	struct epoll_event e = { EPOLLIN, { .u64 = 9 } };
	int outer;

	start();
	add(p[0], EPOLLIN, 1);
	outer = CHECK_OK(epoll_create1(0));
	CHECK_OK(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &e));
	CHECK_EQ(epoll_wait(outer, &e, 1, 0), 0);
	CHECK_EQ(poll1(outer, POLLIN, 0), 0);
	CHECK_EQ(write(p[1], "x", 1), 1);
	CHECK_EQ(epoll_wait(outer, &e, 1, -1), 1);
	CHECK_EQ(e.data.u64, 9);
	CHECK_EQ(poll1(outer, POLLIN, 0), POLLIN);
}

TEST(epoll_loops_are_refused)
{
	struct epoll_event e = { EPOLLIN, { .u64 = 0 } };
	int other;

	start();
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &e), EINVAL);
	other = CHECK_OK(epoll_create1(0));
	CHECK_OK(epoll_ctl(other, EPOLL_CTL_ADD, ep, &e));
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, other, &e), ELOOP);
}

TEST(epoll_ctl_errors)
{
	struct epoll_event e = { EPOLLIN, { .u64 = 0 } };
	int file = CHECK_OK(open("f", O_CREAT | O_RDWR, 0644));

	start();
	add(p[0], EPOLLIN, 0);
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e), EEXIST);
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_MOD, p[1], &e), ENOENT);
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_DEL, p[1], &e), ENOENT);
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, file, &e), EPERM);
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, 190, &e), EBADF);
	CHECK_ERRNO(epoll_ctl(p[0], EPOLL_CTL_ADD, p[1], &e), EINVAL);
	CHECK_ERRNO(epoll_ctl(ep, 77, p[0], &e), EINVAL);
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, p[1], (struct epoll_event *)8), EFAULT);
	CHECK_ERRNO(epoll_create1(0x1234), EINVAL);
	CHECK_ERRNO(syscall(SYS_epoll_create, 0), EINVAL);
}

TEST(epoll_wait_errors)
{
	struct epoll_event e;

	start();
	CHECK_ERRNO(epoll_wait(ep, &e, 0, 0), EINVAL);
	CHECK_ERRNO(epoll_wait(ep, &e, -1, 0), EINVAL);
	CHECK_ERRNO(epoll_wait(p[0], &e, 1, 0), EINVAL);
	CHECK_ERRNO(epoll_wait(190, &e, 1, 0), EBADF);
	add(p[1], EPOLLOUT, 0);
	CHECK_ERRNO(epoll_wait(ep, (struct epoll_event *)8, 1, 0), EFAULT);
}

TEST(epoll_maxevents_is_fair)
{
	struct epoll_event e;
	int efd[3], seen = 0;

	start();
	for (int i = 0; i < 3; i++) {
		efd[i] = CHECK_OK(eventfd(1, 0));
		add(efd[i], EPOLLIN, i);
	}
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(epoll_wait(ep, &e, 1, 0), 1);
		seen |= 1 << e.data.u64;
	}
	CHECK_EQ(seen, 7);
}

TEST(epoll_wait_times_out_and_wakes)
{
	struct epoll_event e;
	int64_t t = now_ms();
	pid_t pid;

	start();
	add(p[0], EPOLLIN, 0);
	CHECK_EQ(epoll_wait(ep, &e, 1, 40), 0);
	CHECK(now_ms() - t >= 39);
	pid = FORK();
	if (!pid) {
		msleep(30);
		CHECK_EQ(write(p[1], "x", 1), 1);
		_exit(0);
	}
	CHECK_EQ(epoll_wait(ep, &e, 1, -1), 1);
	JOIN(pid);
}

static void *wait_epoll(void *arg)
{
	struct epoll_event e;
	uint64_t v;

	epoll_wait(ep, &e, 1, -1);
	if (read(*(int *)arg, &v, 8) == 8)
		__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

TEST(epoll_several_waiters_each_event_once)
{
	pthread_t t[3];
	uint64_t one = 1;
	int efd;

	start();
	efd = CHECK_OK(eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK));
	add(efd, EPOLLIN, 0);
	for (int i = 0; i < 3; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, wait_epoll, &efd));
	for (int i = 0; i < 50 && count < 3; i++) {
		CHECK_EQ(write(efd, &one, 8), 8);
		msleep(20);
	}
	for (int i = 0; i < 3; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
	CHECK(count >= 1);
}

TEST(epoll_exclusive_flag)
{
	struct epoll_event e = { EPOLLIN | EPOLLEXCLUSIVE, { .u64 = 4 } };

	start();
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e));
	CHECK_EQ(write(p[1], "x", 1), 1);
	CHECK_EQ(ready(4), EPOLLIN);
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e), EINVAL);
	e.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT;
	CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, p[1], &e), EINVAL);
}

TEST(epoll_rdhup)
{
	int s[2];

	start();
	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	add(s[0], EPOLLIN | EPOLLRDHUP, 1);
	CHECK_OK(shutdown(s[1], SHUT_WR));
	CHECK_EQ(ready(1), EPOLLIN | EPOLLRDHUP);
	CHECK_OK(close(s[1]));
	CHECK_EQ(ready(1), EPOLLIN | EPOLLRDHUP | EPOLLHUP);
}

TEST(epoll_pwait2)
{
	struct timespec ts = { 0, 20000000 };
	struct epoll_event e;
	int64_t t = now_ms();

	start();
	add(p[0], EPOLLIN, 0);
	CHECK_EQ(syscall(SYS_epoll_pwait2, ep, &e, 1, &ts, NULL, 0L), 0);
	CHECK(now_ms() - t >= 19);
}

TEST(timerfd_once)
{
	struct itimerspec its = { { 0, 0 }, { 0, 30000000 } };
	int fd = CHECK_OK(timerfd_create(CLOCK_MONOTONIC, 0));
	int64_t t = now_ms();
	uint64_t n;

	CHECK_OK(timerfd_settime(fd, 0, &its, NULL));
	CHECK_EQ(read(fd, &n, 8), 8);
	CHECK_EQ(n, 1);
	CHECK(now_ms() - t >= 29);
	CHECK_OK(timerfd_gettime(fd, &its));
	CHECK_EQ(its.it_value.tv_sec + its.it_value.tv_nsec, 0);
}

TEST(timerfd_periodic)
{
	struct itimerspec its = { { 0, 10000000 }, { 0, 10000000 } };
	int fd = CHECK_OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	uint64_t n;

	CHECK_OK(timerfd_settime(fd, 0, &its, NULL));
	msleep(100);
	CHECK_EQ(read(fd, &n, 8), 8);
	CHECK(n >= 9);
	CHECK_OK(timerfd_gettime(fd, &its));
	CHECK_EQ(its.it_interval.tv_nsec, 10000000);
}

TEST(timerfd_disarm_and_old_value)
{
	struct itimerspec its = { { 3, 0 }, { 100, 0 } }, zero = { { 0, 0 }, { 0, 0 } }, old;
	int fd = CHECK_OK(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC));
	uint64_t n;

	CHECK_OK(timerfd_settime(fd, 0, &its, NULL));
	CHECK_OK(timerfd_settime(fd, 0, &zero, &old));
	CHECK(old.it_value.tv_sec >= 98);
	CHECK_EQ(old.it_interval.tv_sec, 3);
	CHECK_ERRNO(read(fd, &n, 8), EAGAIN);
	CHECK_EQ(poll1(fd, POLLIN, 0), 0);
}

TEST(timerfd_absolute)
{
	struct itimerspec its = { { 0, 0 }, { 0, 0 } };
	int fd = CHECK_OK(timerfd_create(CLOCK_MONOTONIC, 0));
	uint64_t n;

	CHECK_OK(clock_gettime(CLOCK_MONOTONIC, &its.it_value));
	its.it_value.tv_sec--;
	CHECK_OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL));
	CHECK_EQ(read(fd, &n, 8), 8);
	CHECK_EQ(n, 1);
}

TEST(timerfd_poll_and_epoll)
{
	struct itimerspec its = { { 0, 0 }, { 0, 20000000 } };
	int fd = CHECK_OK(timerfd_create(CLOCK_MONOTONIC, 0));
	struct epoll_event e;

	start();
	add(fd, EPOLLIN, 6);
	CHECK_OK(timerfd_settime(fd, 0, &its, NULL));
	CHECK_EQ(epoll_wait(ep, &e, 1, -1), 1);
	CHECK_EQ(e.data.u64, 6);
	CHECK_EQ(poll1(fd, POLLIN, -1), POLLIN);
}

TEST(timerfd_errors)
{
	struct itimerspec its = { { 0, 0 }, { 0, 1000000000 } };
	int fd = CHECK_OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	uint64_t n;

	CHECK_ERRNO(timerfd_create(99, 0), EINVAL);
	CHECK_ERRNO(timerfd_create(CLOCK_MONOTONIC, 0x1234), EINVAL);
	CHECK_ERRNO(timerfd_settime(fd, 0, &its, NULL), EINVAL);
	its.it_value.tv_nsec = 1;
	CHECK_ERRNO(timerfd_settime(fd, 0x40, &its, NULL), EINVAL);
	CHECK_ERRNO(timerfd_settime(p[0], 0, &its, NULL), EINVAL);
	CHECK_ERRNO(timerfd_settime(190, 0, &its, NULL), EBADF);
	CHECK_ERRNO(read(fd, &n, 4), EINVAL);
	CHECK_ERRNO(write(fd, &n, 8), EINVAL);
}
