/* SPDX-License-Identifier: Apache-2.0 */
/* Readiness of internet sockets for poll, select and epoll, edge-triggered too; splice and sendfile. */
#include <sys/select.h>
#include <sys/sendfile.h>

#include "test/conform/inet.h"

static char big[1 << 18];
static int ep;

static void watch(int fd, uint32_t mask)
{
	struct epoll_event e = { .events = mask, .data.fd = fd };

	ep = CHECK_OK(epoll_create1(0));
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

/* What epoll says within @ms; 0: nothing. */
static uint32_t next_event(int ms)
{
	struct epoll_event e;

	return CHECK_OK(epoll_wait(ep, &e, 1, ms)) ? e.events : 0;
}

static long fill(int fd)
{
	long total = 0;

	nonblock(fd);
	for (int quiet = 0; quiet < 3;) {
		ssize_t n = write(fd, big, 65536);

		if (n > 0) {
			total += n;
			quiet = 0;
		} else {
			CHECK_EQ(errno, EAGAIN);
			quiet++;
			msleep(10);
		}
	}
	return total;
}

static void drain(int fd, long n)
{
	while (n > 0)
		n -= CHECK_OK(read(fd, big, sizeof(big)));
}

TEST(poll_new_socket)
{
	CHECK_EQ(events(tcp("127.0.0.1")), POLLOUT | POLLHUP);
	CHECK_EQ(events(CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0))), POLLOUT);
}

TEST(poll_listener)
{
	int l = listener("127.0.0.1");

	CHECK_EQ(events(l), 0);
	CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
	CHECK_EQ(events_wait(l, POLLIN), POLLIN);
	CHECK_OK(accept(l, NULL, NULL));
	CHECK_EQ(events(l), 0);
}

TEST(poll_connection)
{
	char c;

	tcp_pair();
	CHECK_EQ(events(s[0]), POLLOUT);
	CHECK_EQ(write(s[1], "x", 1), 1);
	CHECK_EQ(events_wait(s[0], POLLIN), POLLIN | POLLOUT);
	CHECK_EQ(read(s[0], &c, 1), 1);
	CHECK_EQ(events(s[0]), POLLOUT);
}

TEST(poll_after_shutdown_by_the_peer)
{
	tcp_pair();
	CHECK_OK(shutdown(s[1], SHUT_WR));
	CHECK_EQ(events_wait(s[0], POLLIN), POLLIN | POLLOUT | POLLRDHUP);
	CHECK_EQ(events(s[1]), POLLOUT);
}

TEST(poll_after_shutdown_of_reading)
{
	tcp_pair();
	CHECK_OK(shutdown(s[0], SHUT_RD));
	CHECK_EQ(events(s[0]), POLLIN | POLLOUT | POLLRDHUP);
	CHECK_EQ(events(s[1]), POLLOUT);
}

TEST(poll_after_both_shutdowns)
{
	tcp_pair();
	CHECK_OK(shutdown(s[1], SHUT_WR));
	CHECK_OK(shutdown(s[0], SHUT_WR));
	CHECK_EQ(events_wait(s[0], POLLHUP), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
	CHECK_EQ(events_wait(s[1], POLLHUP), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
}

TEST(poll_after_close)
{
	tcp_pair();
	CHECK_OK(close(s[1]));
	CHECK_EQ(events_wait(s[0], POLLIN), POLLIN | POLLOUT | POLLRDHUP);
	CHECK_EQ(write(s[0], "x", 1), 1);
	CHECK_EQ(events_wait(s[0], POLLERR),
		 POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
	CHECK_EQ(get_int(s[0], SOL_SOCKET, SO_ERROR), EPIPE);
	CHECK_EQ(events(s[0]), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
}

TEST(poll_after_reset)
{
	struct linger lg = { 1, 0 };

	tcp_pair();
	CHECK_OK(setsockopt(s[1], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	CHECK_OK(close(s[1]));
	CHECK_EQ(events_wait(s[0], POLLERR),
		 POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
	CHECK_EQ(get_int(s[0], SOL_SOCKET, SO_ERROR), ECONNRESET);
}

TEST(poll_waits_for_data)
{
	pid_t pid;

	tcp_pair();
	pid = FORK();
	if (!pid) {
		msleep(50);
		CHECK_EQ(write(s[1], "x", 1), 1);
		msleep(100);
		_exit(0);
	}
	CHECK(events_wait(s[0], POLLIN) & POLLIN);
	JOIN(pid);
}

TEST(poll_waits_for_room)
{
	long n;
	pid_t pid;

	tcp_pair();
	n = fill(s[0]);
	CHECK_EQ(events(s[0]), 0);
	pid = FORK();
	if (!pid) {
		msleep(50);
		drain(s[1], n);
		_exit(0);
	}
	CHECK_EQ(events_wait(s[0], POLLOUT), POLLOUT);
	JOIN(pid);
}

TEST(poll_udp_error)
{
	int a = udp("127.0.0.1"), gone = udp("127.0.0.1"), port = port_of(gone);

	CHECK_OK(close(gone));
	CHECK_OK(connect_to(a, "127.0.0.1", port));
	CHECK_EQ(write(a, "x", 1), 1);
	CHECK_EQ(events_wait(a, POLLERR), POLLOUT | POLLERR);
}

TEST(select_sets)
{
	fd_set r, w, e;
	struct timeval tv = { 5, 0 };

	tcp_pair();
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&e);
	FD_SET(s[0], &r);
	FD_SET(s[0], &w);
	FD_SET(s[0], &e);
	CHECK_EQ(select(s[1] + 1, &r, &w, &e, &tv), 1);
	CHECK(FD_ISSET(s[0], &w) && !FD_ISSET(s[0], &r));
	CHECK_EQ(send(s[1], "!", 1, MSG_OOB), 1);
	FD_ZERO(&r);
	FD_SET(s[0], &e);
	CHECK_EQ(select(s[1] + 1, &r, NULL, &e, &tv), 1);
	CHECK(FD_ISSET(s[0], &e));
}

TEST(epoll_level)
{
	char c;

	tcp_pair();
	watch(s[0], EPOLLIN | EPOLLRDHUP);
	CHECK_EQ(next_event(0), 0);
	CHECK_EQ(write(s[1], "ab", 2), 2);
	CHECK_EQ(next_event(1000), EPOLLIN);
	CHECK_EQ(next_event(0), EPOLLIN);
	CHECK_EQ(read(s[0], &c, 1), 1);
	CHECK_EQ(next_event(0), EPOLLIN);
	CHECK_EQ(read(s[0], &c, 1), 1);
	CHECK_EQ(next_event(0), 0);
	CHECK_OK(shutdown(s[1], SHUT_WR));
	CHECK_EQ(next_event(1000), EPOLLIN | EPOLLRDHUP);
}

TEST(epoll_edge_per_arrival)
{
	tcp_pair();
	watch(s[0], EPOLLIN | EPOLLET);
	CHECK_EQ(write(s[1], "a", 1), 1);
	CHECK_EQ(next_event(1000), EPOLLIN);
	CHECK_EQ(next_event(20), 0);
	CHECK_EQ(write(s[1], "b", 1), 1);
	CHECK_EQ(next_event(1000), EPOLLIN);
	CHECK_EQ(next_event(20), 0);
}

TEST(epoll_edge_of_room)
{
	long n;

	tcp_pair();
	watch(s[0], EPOLLOUT | EPOLLET);
	CHECK_EQ(next_event(0), EPOLLOUT);
	CHECK_EQ(next_event(0), 0);
	/* Nothing happens as long as there is room. */
	CHECK_EQ(write(s[0], "x", 1), 1);
	drain(s[1], 1);
	CHECK_EQ(next_event(20), 0);
	n = fill(s[0]);
	CHECK_EQ(next_event(0), 0);
	drain(s[1], n);
	CHECK_EQ(next_event(1000), EPOLLOUT);
}

TEST(epoll_edge_of_both_directions)
{
	tcp_pair();
	watch(s[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	CHECK_EQ(next_event(0), EPOLLOUT);
	CHECK_EQ(write(s[1], "x", 1), 1);
	CHECK_EQ(next_event(1000), EPOLLIN | EPOLLOUT);
	CHECK_EQ(next_event(20), 0);
	CHECK_OK(close(s[1]));
	CHECK_EQ(next_event(1000), EPOLLIN | EPOLLOUT | EPOLLRDHUP);
	CHECK_EQ(next_event(20), 0);
}

TEST(epoll_reset)
{
	struct linger lg = { 1, 0 };

	tcp_pair();
	watch(s[0], EPOLLET);
	CHECK_OK(setsockopt(s[1], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	CHECK_OK(close(s[1]));
	CHECK_EQ(next_event(1000), EPOLLERR | EPOLLHUP);
}

TEST(epoll_connect)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1");

	nonblock(c);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EINPROGRESS);
	watch(c, EPOLLOUT | EPOLLET);
	CHECK_EQ(next_event(1000), EPOLLOUT);
}

TEST(epoll_connect_refused)
{
	int c = tcp("127.0.0.1");

	nonblock(c);
	watch(c, EPOLLOUT | EPOLLET);
	CHECK_EQ(next_event(0), EPOLLOUT | EPOLLHUP);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", free_port()), EINPROGRESS);
	CHECK_EQ(next_event(1000), EPOLLOUT | EPOLLERR | EPOLLHUP);
}

TEST(epoll_listener_edge)
{
	int l = listener("127.0.0.1");

	watch(l, EPOLLIN | EPOLLET);
	CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
	CHECK_EQ(next_event(1000), EPOLLIN);
	CHECK_EQ(next_event(20), 0);
	CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
	CHECK_EQ(next_event(1000), EPOLLIN);
}

TEST(epoll_oneshot)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT };

	tcp_pair();
	watch(s[0], EPOLLIN | EPOLLONESHOT);
	CHECK_EQ(write(s[1], "a", 1), 1);
	CHECK_EQ(next_event(1000), EPOLLIN);
	CHECK_EQ(next_event(0), 0);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_MOD, s[0], &e));
	CHECK_EQ(next_event(1000), EPOLLIN);
}

TEST(epoll_udp_edge)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");

	watch(b, EPOLLIN | EPOLLET);
	CHECK_EQ(send_to(a, "1", "127.0.0.1", port_of(b)), 1);
	CHECK_EQ(next_event(1000), EPOLLIN);
	CHECK_EQ(next_event(20), 0);
	CHECK_EQ(send_to(a, "2", "127.0.0.1", port_of(b)), 1);
	CHECK_EQ(next_event(1000), EPOLLIN);
}

TEST(epoll_urgent)
{
	tcp_pair();
	watch(s[0], EPOLLPRI | EPOLLET);
	CHECK_EQ(send(s[1], "!", 1, MSG_OOB), 1);
	CHECK_EQ(next_event(1000), EPOLLPRI);
}

/* An echo server with one epoll set and two clients, all non-blocking. */
TEST(epoll_server)
{
	int l = listener("127.0.0.1"), done = 0;
	pid_t pid = FORK();
	char buf[100];

	if (!pid) {
		for (int i = 0; i < 2; i++) {
			int c = tcp("127.0.0.1");

			CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
			for (int k = 0; k < 200; k++) {
				CHECK_EQ(write(c, "ping", 4), 4);
				CHECK_EQ(recv(c, buf, 4, MSG_WAITALL), 4);
			}
			CHECK_OK(close(c));
		}
		_exit(0);
	}
	nonblock(l);
	watch(l, EPOLLIN);
	while (done < 2) {
		struct epoll_event e;

		CHECK_EQ(epoll_wait(ep, &e, 1, 5000), 1);
		if (e.data.fd == l) {
			int a = CHECK_OK(accept4(l, NULL, NULL, SOCK_NONBLOCK));

			e.events = EPOLLIN | EPOLLET;
			e.data.fd = a;
			CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, a, &e));
			continue;
		}
		for (;;) {
			ssize_t n = read(e.data.fd, buf, sizeof(buf));

			if (n > 0) {
				CHECK_EQ(write(e.data.fd, buf, n), n);
				continue;
			}
			if (n == 0) {
				done++;
				CHECK_OK(close(e.data.fd));
			} else {
				CHECK_EQ(errno, EAGAIN);
			}
			break;
		}
	}
	JOIN(pid);
}

TEST(sendfile_into_a_connection)
{
	char buf[64];
	off_t off = 2;
	int f;

	PUT_FILE("data", "0123456789");
	f = CHECK_OK(open("data", O_RDONLY));
	tcp_pair();
	CHECK_EQ(sendfile(s[0], f, &off, 5), 5);
	CHECK_EQ(off, 7);
	CHECK_EQ(recv(s[1], buf, 5, MSG_WAITALL), 5);
	CHECK(!memcmp(buf, "23456", 5));
	CHECK_OK(shutdown(s[0], SHUT_WR));
	CHECK_ERRNO(sendfile(f, s[0], NULL, 5), EBADF);
}

TEST(sendfile_of_much)
{
	int f = CHECK_OK(open("data", O_RDWR | O_CREAT, 0600)), total = 0, n;
	off_t off = 0;
	pid_t pid;

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i % 253);
	for (int i = 0; i < 16; i++)
		CHECK_EQ(write(f, big, sizeof(big)), sizeof(big));
	tcp_pair();
	pid = FORK();
	if (!pid) {
		CHECK_OK(close(s[1]));
		while (off < 16L * (long)sizeof(big))
			CHECK_OK(sendfile(s[0], f, &off, 16 * sizeof(big) - off));
		_exit(0);
	}
	CHECK_OK(close(s[0]));
	while ((n = CHECK_OK(read(s[1], big, 4096))) > 0) {
		for (int i = 0; i < n; i++)
			if (big[i] != (char)((total + i) % (1 << 18) % 253))
				FAIL("byte %d is wrong", total + i);
		total += n;
	}
	CHECK_EQ(total, 16 << 18);
	JOIN(pid);
}

TEST(splice_from_and_to)
{
	char buf[16];
	int p[2];

	CHECK_OK(pipe(p));
	tcp_pair();
	CHECK_EQ(write(p[1], "through", 7), 7);
	CHECK_EQ(splice(p[0], NULL, s[0], NULL, 7, 0), 7);
	events_wait(s[1], POLLIN);
	CHECK_EQ(splice(s[1], NULL, p[1], NULL, 100, 0), 7);
	CHECK_EQ(read(p[0], buf, 16), 7);
	CHECK(!memcmp(buf, "through", 7));
	nonblock(s[1]);
	CHECK_ERRNO(splice(s[1], NULL, p[1], NULL, 100, 0), EAGAIN);
}

TEST(fd_link_and_lseek)
{
	char link[64], path[64];
	struct stat st;
	ssize_t n;

	tcp_pair();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s[0]);
	n = CHECK_OK(readlink(path, link, sizeof(link) - 1));
	link[n] = 0;
	CHECK_OK(fstat(s[0], &st));
	CHECK(S_ISSOCK(st.st_mode));
	snprintf(path, sizeof(path), "socket:[%lu]", (unsigned long)st.st_ino);
	CHECK_STR(link, path);
	CHECK_ERRNO(lseek(s[0], 0, SEEK_SET), ESPIPE);
	CHECK_ERRNO(pread(s[0], path, 1, 0), ESPIPE);
}

TEST(nonblocking_ioctl)
{
	int on = 1;
	char c;

	tcp_pair();
	CHECK_OK(ioctl(s[0], FIONBIO, &on));
	CHECK_ERRNO(read(s[0], &c, 1), EAGAIN);
	CHECK(fcntl(s[0], F_GETFL) & O_NONBLOCK);
}
