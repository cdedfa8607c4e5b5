/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of internet sockets share: loopback addresses, ephemeral ports, connected pairs. */
#ifndef TEST_CONFORM_INET_H
#define TEST_CONFORM_INET_H

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "test/conform/conform.h"

union addr {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_storage ss;
};

static union addr UNUSED a4(const char *ip, int port)
{
	union addr a;

	memset(&a, 0, sizeof(a));
	a.in.sin_family = AF_INET;
	a.in.sin_port = htons(port);
	inet_pton(AF_INET, ip, &a.in.sin_addr);
	return a;
}

static union addr UNUSED a6(const char *ip, int port)
{
	union addr a;

	memset(&a, 0, sizeof(a));
	a.in6.sin6_family = AF_INET6;
	a.in6.sin6_port = htons(port);
	inet_pton(AF_INET6, ip, &a.in6.sin6_addr);
	return a;
}

/* An address by its look: with a colon it is IPv6. */
static union addr UNUSED at(const char *ip, int port)
{
	return strchr(ip, ':') ? a6(ip, port) : a4(ip, port);
}

static socklen_t UNUSED alen(const union addr *a)
{
	return a->sa.sa_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in);
}

static int UNUSED bind_to(int fd, const char *ip, int port)
{
	union addr a = at(ip, port);

	return bind(fd, &a.sa, alen(&a));
}

static int UNUSED connect_to(int fd, const char *ip, int port)
{
	union addr a = at(ip, port);

	return connect(fd, &a.sa, alen(&a));
}

static ssize_t UNUSED send_to(int fd, const char *text, const char *ip, int port)
{
	union addr a = at(ip, port);

	return sendto(fd, text, strlen(text), 0, &a.sa, alen(&a));
}

static int UNUSED port_of(int fd)
{
	union addr a;
	socklen_t len = sizeof(a);

	CHECK_OK(getsockname(fd, &a.sa, &len));
	return ntohs(a.sa.sa_family == AF_INET6 ? a.in6.sin6_port : a.in.sin_port);
}

/* "127.0.0.1" or "::1" of a name. */
static const char UNUSED *ip_of(int fd, bool peer)
{
	static char text[2][INET6_ADDRSTRLEN];
	union addr a;
	socklen_t len = sizeof(a);

	CHECK_OK((peer ? getpeername : getsockname)(fd, &a.sa, &len));
	if (a.sa.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &a.in6.sin6_addr, text[peer], sizeof(text[0]));
	else
		inet_ntop(AF_INET, &a.in.sin_addr, text[peer], sizeof(text[0]));
	return text[peer];
}

static int UNUSED family_of(const char *ip)
{
	return strchr(ip, ':') ? AF_INET6 : AF_INET;
}

static int UNUSED tcp(const char *ip)
{
	return CHECK_OK(socket(family_of(ip), SOCK_STREAM, 0));
}

static int UNUSED udp(const char *ip)
{
	int fd = CHECK_OK(socket(family_of(ip), SOCK_DGRAM, 0));

	CHECK_OK(bind_to(fd, ip, 0));
	return fd;
}

static int UNUSED listener(const char *ip)
{
	int fd = tcp(ip);

	CHECK_OK(bind_to(fd, ip, 0));
	CHECK_OK(listen(fd, 8));
	return fd;
}

static int s[2]; /* a connected pair: s[0] connected, s[1] was accepted */

static void UNUSED tcp_pair_on(const char *ip)
{
	int l = listener(ip);

	s[0] = tcp(ip);
	CHECK_OK(connect_to(s[0], ip, port_of(l)));
	s[1] = CHECK_OK(accept(l, NULL, NULL));
	CHECK_OK(close(l));
}

static void UNUSED tcp_pair(void)
{
	tcp_pair_on("127.0.0.1");
}

static void UNUSED nonblock(int fd)
{
	CHECK_OK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
}

/* A port that nobody has, for now. */
static int UNUSED free_port(void)
{
	int fd = tcp("127.0.0.1"), port;

	CHECK_OK(bind_to(fd, "127.0.0.1", 0));
	port = port_of(fd);
	CHECK_OK(close(fd));
	return port;
}

static int UNUSED get_int(int fd, int level, int name)
{
	int v = 0;
	socklen_t len = sizeof(v);

	CHECK_OK(getsockopt(fd, level, name, &v, &len));
	return v;
}

static int UNUSED set_int(int fd, int level, int name, int v)
{
	return setsockopt(fd, level, name, &v, sizeof(v));
}

/* What poll(2) says at once. */
static int UNUSED events(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP };

	CHECK_OK(poll(&p, 1, 0));
	return p.revents;
}

/* The same, but waits for any of @want. */
static int UNUSED events_wait(int fd, int want)
{
	struct pollfd p = { .fd = fd, .events = want };

	CHECK_EQ(poll(&p, 1, 5000), 1);
	return events(fd);
}

/* A network namespace of our own, where every port is free and nothing but loopback is there. */
static void UNUSED own_network(void)
{
	struct ifreq ifr;
	int fd;

	NEED_ROOT();
	if (unshare(CLONE_NEWNET))
		SKIP("no network namespaces");
	fd = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
	memset(&ifr, 0, sizeof(ifr));
	strcpy(ifr.ifr_name, "lo");
	CHECK_OK(ioctl(fd, SIOCGIFFLAGS, &ifr));
	ifr.ifr_flags |= IFF_UP;
	CHECK_OK(ioctl(fd, SIOCSIFFLAGS, &ifr));
	CHECK_OK(close(fd));
}

#endif
