/* SPDX-License-Identifier: Apache-2.0 */
/* UDP over loopback: datagrams, names, errors that come back, several receivers. */
#include "test/conform/inet.h"

#include <linux/errqueue.h>
#include <netinet/udp.h>

static char buf[70000];

static int recv_now(int fd)
{
	return recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
}

TEST(boundaries)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");

	CHECK_EQ(send_to(a, "one", "127.0.0.1", port_of(b)), 3);
	CHECK_EQ(send_to(a, "", "127.0.0.1", port_of(b)), 0);
	CHECK_EQ(send_to(a, "three", "127.0.0.1", port_of(b)), 5);
	CHECK_EQ(recv(b, buf, 16, 0), 3);
	CHECK_EQ(recv(b, buf, 16, 0), 0);
	CHECK_EQ(recv(b, buf, 2, 0), 2);
	CHECK_ERRNO(recv_now(b), EAGAIN);
}

TEST(sender_name)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");
	union addr from;
	socklen_t len = sizeof(from);

	CHECK_EQ(send_to(a, "x", "127.0.0.1", port_of(b)), 1);
	CHECK_EQ(recvfrom(b, buf, 8, 0, &from.sa, &len), 1);
	CHECK_EQ(len, sizeof(from.in));
	CHECK_EQ(from.sa.sa_family, AF_INET);
	CHECK_EQ(ntohs(from.in.sin_port), port_of(a));
	CHECK_EQ(from.in.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
}

TEST(sender_name_of_ipv6)
{
	int a = udp("::1"), b = udp("::1");
	union addr from;
	socklen_t len = sizeof(from);

	CHECK_EQ(send_to(a, "x", "::1", port_of(b)), 1);
	CHECK_EQ(recvfrom(b, buf, 8, 0, &from.sa, &len), 1);
	CHECK_EQ(len, sizeof(from.in6));
	CHECK_EQ(ntohs(from.in6.sin6_port), port_of(a));
	CHECK_EQ(from.in6.sin6_scope_id, 0);
}

TEST(sendto_binds)
{
	int a = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0)), b = udp("127.0.0.1");

	CHECK_EQ(port_of(a), 0);
	CHECK_EQ(send_to(a, "x", "127.0.0.1", port_of(b)), 1);
	CHECK(port_of(a) != 0);
	CHECK_STR(ip_of(a, false), "0.0.0.0");
	CHECK_EQ(recv(b, buf, 8, 0), 1);
}

TEST(trunc)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");
	struct iovec iov = { buf, 3 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	CHECK_EQ(send_to(a, "hello", "127.0.0.1", port_of(b)), 5);
	CHECK_EQ(send_to(a, "hello", "127.0.0.1", port_of(b)), 5);
	CHECK_EQ(recv(b, buf, 2, MSG_TRUNC), 5);
	CHECK_EQ(recvmsg(b, &m, 0), 3);
	CHECK_EQ(m.msg_flags, MSG_TRUNC);
}

TEST(peek)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");

	CHECK_EQ(send_to(a, "hello", "127.0.0.1", port_of(b)), 5);
	CHECK_EQ(recv(b, buf, 2, MSG_PEEK), 2);
	CHECK_EQ(recv(b, buf, 2, MSG_PEEK | MSG_TRUNC), 5);
	CHECK_EQ(recv(b, buf, 9, 0), 5);
	CHECK_ERRNO(recv_now(b), EAGAIN);
}

TEST(fionread_is_the_next_datagram)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1"), n = -1;

	CHECK_OK(ioctl(b, FIONREAD, &n));
	CHECK_EQ(n, 0);
	CHECK_EQ(send_to(a, "hello", "127.0.0.1", port_of(b)), 5);
	CHECK_EQ(send_to(a, "hi", "127.0.0.1", port_of(b)), 2);
	CHECK_OK(ioctl(b, FIONREAD, &n));
	CHECK_EQ(n, 5);
	CHECK_OK(ioctl(a, TIOCOUTQ, &n));
	CHECK_EQ(n, 0);
}

TEST(needs_a_destination)
{
	int a = udp("127.0.0.1");
	union addr x = a4("127.0.0.1", 0);

	CHECK_ERRNO(send(a, "x", 1, 0), EDESTADDRREQ);
	CHECK_ERRNO(write(a, "x", 1), EDESTADDRREQ);
	CHECK_ERRNO(sendto(a, "x", 1, 0, &x.sa, sizeof(x.in)), EINVAL);
	CHECK_ERRNO(sendto(a, "x", 1, 0, &x.sa, 8), EINVAL);
	x = a4("127.0.0.1", 9);
	x.sa.sa_family = AF_UNIX;
	CHECK_ERRNO(sendto(a, "x", 1, 0, &x.sa, sizeof(x.in)), EAFNOSUPPORT);
}

TEST(destination_without_a_family)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");
	union addr x = a4("127.0.0.1", port_of(b));

	x.sa.sa_family = AF_UNSPEC;
	CHECK_EQ(sendto(a, "x", 1, 0, &x.sa, sizeof(x.in)), 1);
	CHECK_EQ(recv(b, buf, 8, 0), 1);
}

TEST(too_long)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1"), c = udp("::1"), d = udp("::1");
	union addr x = a4("127.0.0.1", port_of(b)), y = a6("::1", port_of(d));

	CHECK_EQ(sendto(a, buf, 65507, 0, &x.sa, sizeof(x.in)), 65507);
	CHECK_EQ(recv(b, buf, sizeof(buf), 0), 65507);
	CHECK_ERRNO(sendto(a, buf, 65508, 0, &x.sa, sizeof(x.in)), EMSGSIZE);
	CHECK_ERRNO(sendto(a, buf, 70000, 0, &x.sa, sizeof(x.in)), EMSGSIZE);
	CHECK_EQ(sendto(c, buf, 65527, 0, &y.sa, sizeof(y.in6)), 65527);
	CHECK_ERRNO(sendto(c, buf, 65528, 0, &y.sa, sizeof(y.in6)), EMSGSIZE);
}

TEST(connected)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1"), c = udp("127.0.0.1");

	CHECK_OK(connect_to(a, "127.0.0.1", port_of(b)));
	CHECK_EQ(write(a, "hi", 2), 2);
	CHECK_EQ(read(b, buf, 8), 2);
	CHECK_STR(ip_of(a, true), "127.0.0.1");
	/* Only the peer's datagrams come in. */
	CHECK_EQ(send_to(c, "no", "127.0.0.1", port_of(a)), 2);
	CHECK_EQ(send_to(b, "yes", "127.0.0.1", port_of(a)), 3);
	CHECK_EQ(read(a, buf, 8), 3);
	CHECK_ERRNO(recv_now(a), EAGAIN);
	/* Another destination for once. */
	CHECK_EQ(send_to(a, "once", "127.0.0.1", port_of(c)), 4);
	CHECK_EQ(read(c, buf, 8), 4);
}

TEST(connect_again_and_undo)
{
	int a = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0)), b = udp("127.0.0.1"), c = udp("127.0.0.1");
	union addr u = { .sa.sa_family = AF_UNSPEC };
	socklen_t len = sizeof(u);

	CHECK_OK(connect_to(a, "127.0.0.1", port_of(b)));
	CHECK_STR(ip_of(a, false), "127.0.0.1");
	CHECK_OK(connect_to(a, "127.0.0.1", port_of(c)));
	CHECK_EQ(write(a, "x", 1), 1);
	CHECK_EQ(read(c, buf, 8), 1);
	CHECK_OK(connect(a, &u.sa, sizeof(u.sa)));
	CHECK_ERRNO(getpeername(a, &u.sa, &len), ENOTCONN);
	CHECK_ERRNO(write(a, "x", 1), EDESTADDRREQ);
	CHECK_STR(ip_of(a, false), "0.0.0.0");
}

TEST(disconnect_keeps_what_was_bound)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1"), port = port_of(a);
	union addr u = { .sa.sa_family = AF_UNSPEC };

	CHECK_OK(close(a));
	a = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
	CHECK_OK(bind_to(a, "127.0.0.1", port));
	CHECK_OK(connect_to(a, "127.0.0.1", port_of(b)));
	CHECK_OK(connect(a, &u.sa, sizeof(u.sa)));
	CHECK_EQ(port_of(a), port);
	CHECK_STR(ip_of(a, false), "127.0.0.1");
}

TEST(refused_when_connected)
{
	int a = udp("127.0.0.1"), port = port_of(udp("127.0.0.1")), gone;

	gone = udp("127.0.0.1");
	port = port_of(gone);
	CHECK_OK(close(gone));
	CHECK_OK(connect_to(a, "127.0.0.1", port));
	CHECK_EQ(write(a, "x", 1), 1);
	EVENTUALLY(events(a) & POLLERR);
	CHECK_ERRNO(write(a, "x", 1), ECONNREFUSED);
	CHECK_EQ(write(a, "x", 1), 1);
	EVENTUALLY(events(a) & POLLERR);
	CHECK_ERRNO(recv_now(a), ECONNREFUSED);
	CHECK_ERRNO(recv_now(a), EAGAIN);
	CHECK_EQ(write(a, "x", 1), 1);
	EVENTUALLY(events(a) & POLLERR);
	CHECK_EQ(get_int(a, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	CHECK_EQ(get_int(a, SOL_SOCKET, SO_ERROR), 0);
}

TEST(refused_wakes_a_receiver)
{
	int a = udp("127.0.0.1"), gone = udp("127.0.0.1"), port = port_of(gone);
	pid_t pid;

	CHECK_OK(close(gone));
	CHECK_OK(connect_to(a, "127.0.0.1", port));
	pid = FORK();
	if (!pid) {
		msleep(30);
		CHECK_EQ(write(a, "x", 1), 1);
		_exit(0);
	}
	CHECK_ERRNO(recv(a, buf, 8, 0), ECONNREFUSED);
	JOIN(pid);
}

TEST(not_refused_when_not_connected)
{
	int a = udp("127.0.0.1"), gone = udp("127.0.0.1"), port = port_of(gone);

	CHECK_OK(close(gone));
	CHECK_EQ(send_to(a, "x", "127.0.0.1", port), 1);
	msleep(20);
	CHECK_EQ(send_to(a, "x", "127.0.0.1", port), 1);
	CHECK_ERRNO(recv_now(a), EAGAIN);
}

TEST(error_queue)
{
	int a = udp("127.0.0.1"), gone = udp("127.0.0.1"), port = port_of(gone);
	char control[256], data[8];
	union addr name;
	struct iovec iov = { data, 8 };
	struct msghdr m = { .msg_name = &name, .msg_namelen = sizeof(name), .msg_iov = &iov,
			    .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct sock_extended_err ee;
	struct cmsghdr *h;

	CHECK_OK(close(gone));
	CHECK_OK(set_int(a, IPPROTO_IP, IP_RECVERR, 1));
	CHECK_ERRNO(recvmsg(a, &m, MSG_ERRQUEUE), EAGAIN);
	CHECK_EQ(send_to(a, "lost", "127.0.0.1", port), 4);
	EVENTUALLY(events(a) & POLLERR);
	m.msg_controllen = sizeof(control);
	CHECK_EQ(recvmsg(a, &m, MSG_ERRQUEUE), 4);
	CHECK(!memcmp(data, "lost", 4));
	CHECK(m.msg_flags & MSG_ERRQUEUE);
	CHECK_EQ(ntohs(name.in.sin_port), port);
	h = CMSG_FIRSTHDR(&m);
	CHECK(h);
	CHECK_EQ(h->cmsg_level, IPPROTO_IP);
	CHECK_EQ(h->cmsg_type, IP_RECVERR);
	memcpy(&ee, CMSG_DATA(h), sizeof(ee));
	CHECK_EQ(ee.ee_errno, ECONNREFUSED);
	CHECK_EQ(ee.ee_origin, SO_EE_ORIGIN_ICMP);
	CHECK_EQ(ee.ee_type, 3);
	CHECK_EQ(ee.ee_code, 3);
	CHECK(!(events(a) & POLLERR));
}

TEST(full_queue_drops)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1"), got = 0;
	union addr to = a4("127.0.0.1", port_of(b));

	CHECK_OK(set_int(b, SOL_SOCKET, SO_RCVBUF, 20000));
	for (int i = 0; i < 200; i++) {
		memcpy(buf, &i, sizeof(i));
		CHECK_EQ(sendto(a, buf, 1000, 0, &to.sa, sizeof(to.in)), 1000);
	}
	while (recv_now(b) == 1000) {
		int i;

		memcpy(&i, buf, sizeof(i));
		CHECK_EQ(i, got);
		got++;
	}
	CHECK(got > 5 && got < 100);
	CHECK_EQ(sendto(a, buf, 1000, 0, &to.sa, sizeof(to.in)), 1000);
	CHECK_EQ(recv(b, buf, 2000, 0), 1000);
}

TEST(no_way_out)
{
	int a;

	own_network();
	a = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
	CHECK_ERRNO(send_to(a, "x", "192.0.2.1", 53), ENETUNREACH);
	CHECK_ERRNO(connect_to(a, "192.0.2.1", 53), ENETUNREACH);
	CHECK_ERRNO(send_to(a, "x", "224.0.0.251", 5353), ENETUNREACH);
	a = CHECK_OK(socket(AF_INET6, SOCK_DGRAM, 0));
	CHECK_ERRNO(connect_to(a, "2001:db8::1", 53), ENETUNREACH);
}

TEST(send_to_any_is_loopback)
{
	int a = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0)), b = udp("127.0.0.1");

	CHECK_EQ(send_to(a, "x", "0.0.0.0", port_of(b)), 1);
	CHECK_EQ(recv(b, buf, 8, 0), 1);
}

TEST(dual_stack)
{
	int a = udp("127.0.0.1"), b = udp("::"), c;
	union addr from;
	socklen_t len = sizeof(from);
	char text[64];

	CHECK_EQ(send_to(a, "x", "127.0.0.1", port_of(b)), 1);
	CHECK_EQ(recvfrom(b, buf, 8, 0, &from.sa, &len), 1);
	CHECK_EQ(from.sa.sa_family, AF_INET6);
	CHECK_STR(inet_ntop(AF_INET6, &from.in6.sin6_addr, text, sizeof(text)), "::ffff:127.0.0.1");
	CHECK_EQ(sendto(b, "back", 4, 0, &from.sa, len), 4);
	CHECK_EQ(recv(a, buf, 8, 0), 4);
	c = udp("::1");
	CHECK_EQ(send_to(c, "y", "::1", port_of(b)), 1);
	CHECK_EQ(recv(b, buf, 8, 0), 1);
}

TEST(ipv4_name_for_an_ipv6_socket)
{
	int a = CHECK_OK(socket(AF_INET6, SOCK_DGRAM, 0)), b = udp("127.0.0.1");

	CHECK_EQ(send_to(a, "x", "127.0.0.1", port_of(b)), 1);
	CHECK_EQ(recv(b, buf, 8, 0), 1);
}

TEST(the_most_specific_receives)
{
	int any = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0)), one, con, a = udp("127.0.0.1"), port;

	CHECK_OK(set_int(any, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_OK(bind_to(any, "0.0.0.0", 0));
	port = port_of(any);
	one = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
	CHECK_OK(set_int(one, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_OK(bind_to(one, "127.0.0.1", port));
	CHECK_EQ(send_to(a, "x", "127.0.0.1", port), 1);
	CHECK_EQ(recv_now(one), 1);
	CHECK_EQ(send_to(a, "x", "127.0.0.2", port), 1);
	CHECK_EQ(recv_now(any), 1);
	con = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
	CHECK_OK(set_int(con, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_OK(bind_to(con, "127.0.0.1", port));
	CHECK_OK(connect_to(con, "127.0.0.1", port_of(a)));
	CHECK_EQ(send_to(a, "x", "127.0.0.1", port), 1);
	CHECK_EQ(recv_now(con), 1);
	CHECK_ERRNO(recv_now(one), EAGAIN);
}

TEST(bind_conflicts)
{
	int a = udp("127.0.0.1"), b = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));

	CHECK_ERRNO(bind_to(b, "127.0.0.1", port_of(a)), EADDRINUSE);
	CHECK_ERRNO(bind_to(b, "0.0.0.0", port_of(a)), EADDRINUSE);
	CHECK_OK(set_int(b, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_ERRNO(bind_to(b, "127.0.0.1", port_of(a)), EADDRINUSE);
	CHECK_OK(set_int(a, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_OK(bind_to(b, "127.0.0.1", port_of(a)));
}

TEST(ports_are_not_those_of_tcp)
{
	int a = udp("127.0.0.1"), b = tcp("127.0.0.1");

	CHECK_OK(set_int(b, SOL_SOCKET, SO_REUSEADDR, 1));
	if (bind_to(b, "127.0.0.1", port_of(a)) < 0)
		CHECK_EQ(errno, EADDRINUSE);	/* somebody else's */
	else
		CHECK_EQ(port_of(a), port_of(b));
}

TEST(reuseport_spreads)
{
	int r[2], n[2] = { 0, 0 }, port = 0;

	for (int i = 0; i < 2; i++) {
		r[i] = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
		CHECK_OK(set_int(r[i], SOL_SOCKET, SO_REUSEPORT, 1));
		CHECK_OK(bind_to(r[i], "127.0.0.1", port));
		port = port_of(r[i]);
	}
	for (int i = 0; i < 64; i++)
		CHECK_EQ(send_to(CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0)), "x", "127.0.0.1", port),
			 1);
	for (int i = 0; i < 2; i++)
		while (recv_now(r[i]) == 1)
			n[i]++;
	CHECK_EQ(n[0] + n[1], 64);
	CHECK(n[0] > 5 && n[1] > 5);
}

TEST(broadcast_needs_permission)
{
	int a = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0)), b[2], port = 0;

	CHECK_ERRNO(send_to(a, "x", "127.255.255.255", 9), EACCES);
	CHECK_ERRNO(connect_to(a, "127.255.255.255", 9), EACCES);
	CHECK_OK(set_int(a, SOL_SOCKET, SO_BROADCAST, 1));
	for (int i = 0; i < 2; i++) {
		b[i] = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
		CHECK_OK(set_int(b[i], SOL_SOCKET, SO_REUSEADDR, 1));
		CHECK_OK(bind_to(b[i], "0.0.0.0", port));
		port = port_of(b[i]);
	}
	CHECK_EQ(send_to(a, "all", "127.255.255.255", port), 3);
	CHECK_EQ(recv(b[0], buf, 8, 0), 3);
	CHECK_EQ(recv(b[1], buf, 8, 0), 3);
}

TEST(multicast)
{
	int a = udp("127.0.0.1"), b[2], port = 0;
	struct ip_mreqn m = { .imr_ifindex = 1 };
	struct in_addr lo = { htonl(INADDR_LOOPBACK) };

	inet_pton(AF_INET, "239.1.2.3", &m.imr_multiaddr);
	CHECK_OK(setsockopt(a, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof(lo)));
	for (int i = 0; i < 2; i++) {
		b[i] = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
		CHECK_OK(set_int(b[i], SOL_SOCKET, SO_REUSEADDR, 1));
		CHECK_OK(bind_to(b[i], "0.0.0.0", port));
		port = port_of(b[i]);
		CHECK_OK(setsockopt(b[i], IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)));
	}
	CHECK_ERRNO(setsockopt(b[0], IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)), EADDRINUSE);
	CHECK_EQ(send_to(a, "group", "239.1.2.3", port), 5);
	CHECK_EQ(recv(b[0], buf, 8, 0), 5);
	CHECK_EQ(recv(b[1], buf, 8, 0), 5);
	CHECK_OK(setsockopt(b[0], IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof(m)));
	CHECK_ERRNO(setsockopt(b[0], IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof(m)), EADDRNOTAVAIL);
	CHECK_OK(set_int(b[0], IPPROTO_IP, IP_MULTICAST_ALL, 0));
	CHECK_EQ(send_to(a, "group", "239.1.2.3", port), 5);
	CHECK_EQ(recv(b[1], buf, 8, 0), 5);
	CHECK_ERRNO(recv_now(b[0]), EAGAIN);
}

TEST(multicast_errors)
{
	int a = udp("127.0.0.1");
	struct ip_mreqn m = { .imr_ifindex = 1 };

	inet_pton(AF_INET, "127.0.0.1", &m.imr_multiaddr);
	CHECK_ERRNO(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)), EINVAL);
	inet_pton(AF_INET, "239.1.2.3", &m.imr_multiaddr);
	CHECK_ERRNO(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, 4), EINVAL);
	m.imr_ifindex = 4711;
	CHECK_ERRNO(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)), ENODEV);
	CHECK_ERRNO(setsockopt(tcp("127.0.0.1"), IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)),
		    EPROTO);
}

/* Receives a message with control data; the first of level and type, or NULL. */
static struct cmsghdr *recv_control(int fd, int level, int type)
{
	static char control[512];
	struct iovec iov = { buf, 64 };
	static struct msghdr m;

	m = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = sizeof(control) };
	CHECK_OK(recvmsg(fd, &m, 0));
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
		if (h->cmsg_level == level && h->cmsg_type == type)
			return h;
	return NULL;
}

TEST(pktinfo)
{
	int a = udp("127.0.0.1"), b = udp("0.0.0.0");
	struct in_pktinfo pi;
	struct cmsghdr *h;

	CHECK_OK(set_int(b, IPPROTO_IP, IP_PKTINFO, 1));
	CHECK_EQ(send_to(a, "x", "127.0.0.9", port_of(b)), 1);
	h = recv_control(b, IPPROTO_IP, IP_PKTINFO);
	CHECK(h);
	CHECK_EQ(h->cmsg_len, CMSG_LEN(sizeof(pi)));
	memcpy(&pi, CMSG_DATA(h), sizeof(pi));
	CHECK_EQ(pi.ipi_ifindex, 1);
	CHECK_EQ(pi.ipi_addr.s_addr, inet_addr("127.0.0.9"));
	CHECK_EQ(pi.ipi_spec_dst.s_addr, inet_addr("127.0.0.9"));
}

TEST(pktinfo_of_ipv6)
{
	int a = udp("::1"), b = udp("::");
	struct in6_pktinfo pi;
	struct cmsghdr *h;

	CHECK_OK(set_int(b, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
	CHECK_EQ(send_to(a, "x", "::1", port_of(b)), 1);
	h = recv_control(b, IPPROTO_IPV6, IPV6_PKTINFO);
	CHECK(h);
	memcpy(&pi, CMSG_DATA(h), sizeof(pi));
	CHECK_EQ(pi.ipi6_ifindex, 1);
	CHECK(IN6_IS_ADDR_LOOPBACK(&pi.ipi6_addr));
}

TEST(pktinfo_sets_the_source)
{
	int a = CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0)), b = udp("127.0.0.1");
	union {
		char buf[CMSG_SPACE(sizeof(struct in_pktinfo))];
		struct cmsghdr h;
	} u;
	struct in_pktinfo pi = { .ipi_spec_dst.s_addr = inet_addr("127.0.0.66") };
	union addr to = a4("127.0.0.1", port_of(b)), from;
	socklen_t len = sizeof(from);
	struct iovec iov = { "x", 1 };
	struct msghdr m = { .msg_name = &to, .msg_namelen = sizeof(to.in), .msg_iov = &iov,
			    .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u) };

	memset(&u, 0, sizeof(u));
	u.h.cmsg_level = IPPROTO_IP;
	u.h.cmsg_type = IP_PKTINFO;
	u.h.cmsg_len = CMSG_LEN(sizeof(pi));
	memcpy(CMSG_DATA(&u.h), &pi, sizeof(pi));
	CHECK_EQ(sendmsg(a, &m, 0), 1);
	CHECK_EQ(recvfrom(b, buf, 8, 0, &from.sa, &len), 1);
	CHECK_EQ(from.in.sin_addr.s_addr, inet_addr("127.0.0.66"));
	u.h.cmsg_type = 4711;
	CHECK_ERRNO(sendmsg(a, &m, 0), EINVAL);
}

TEST(ttl_and_tos_arrive)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1"), ttl;
	struct cmsghdr *h;

	CHECK_OK(set_int(b, IPPROTO_IP, IP_RECVTTL, 1));
	CHECK_OK(set_int(b, IPPROTO_IP, IP_RECVTOS, 1));
	CHECK_EQ(send_to(a, "x", "127.0.0.1", port_of(b)), 1);
	h = recv_control(b, IPPROTO_IP, IP_TTL);
	CHECK(h);
	memcpy(&ttl, CMSG_DATA(h), sizeof(ttl));
	CHECK_EQ(ttl, 64);
	CHECK_OK(set_int(a, IPPROTO_IP, IP_TTL, 7));
	CHECK_OK(set_int(a, IPPROTO_IP, IP_TOS, 0x10));
	CHECK_EQ(send_to(a, "x", "127.0.0.1", port_of(b)), 1);
	h = recv_control(b, IPPROTO_IP, IP_TOS);
	CHECK(h);
	CHECK_EQ(*CMSG_DATA(h), 0x10);
}

TEST(hop_limit_and_class_arrive)
{
	int a = udp("::1"), b = udp("::1"), v;
	struct cmsghdr *h;

	CHECK_OK(set_int(b, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
	CHECK_OK(set_int(b, IPPROTO_IPV6, IPV6_RECVTCLASS, 1));
	CHECK_OK(set_int(a, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9));
	CHECK_OK(set_int(a, IPPROTO_IPV6, IPV6_TCLASS, 0x20));
	CHECK_EQ(send_to(a, "x", "::1", port_of(b)), 1);
	CHECK_EQ(send_to(a, "x", "::1", port_of(b)), 1);
	h = recv_control(b, IPPROTO_IPV6, IPV6_HOPLIMIT);
	CHECK(h);
	memcpy(&v, CMSG_DATA(h), sizeof(v));
	CHECK_EQ(v, 9);
	h = recv_control(b, IPPROTO_IPV6, IPV6_TCLASS);
	CHECK(h);
	memcpy(&v, CMSG_DATA(h), sizeof(v));
	CHECK_EQ(v, 0x20);
}

TEST(timestamp)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");
	struct timeval tv, now;
	struct cmsghdr *h;

	CHECK_OK(set_int(b, SOL_SOCKET, SO_TIMESTAMP, 1));
	CHECK_EQ(send_to(a, "x", "127.0.0.1", port_of(b)), 1);
	h = recv_control(b, SOL_SOCKET, SO_TIMESTAMP);
	CHECK(h);
	CHECK_EQ(h->cmsg_len, CMSG_LEN(sizeof(tv)));
	memcpy(&tv, CMSG_DATA(h), sizeof(tv));
	CHECK_OK(gettimeofday(&now, NULL));
	CHECK(llabs((long long)now.tv_sec - tv.tv_sec) < 5);
}

TEST(control_truncated)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");
	char control[CMSG_LEN(4)];
	struct iovec iov = { buf, 64 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control) };

	CHECK_OK(set_int(b, IPPROTO_IP, IP_PKTINFO, 1));
	CHECK_EQ(send_to(a, "x", "127.0.0.1", port_of(b)), 1);
	CHECK_EQ(recvmsg(b, &m, 0), 1);
	CHECK(m.msg_flags & MSG_CTRUNC);
	CHECK_EQ(m.msg_controllen, sizeof(control));
}

TEST(sendmmsg_and_recvmmsg)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");
	char in[4][8];
	struct iovec out[3] = { { "a", 1 }, { "bb", 2 }, { "ccc", 3 } }, iov[4];
	struct mmsghdr m[4];

	CHECK_OK(connect_to(a, "127.0.0.1", port_of(b)));
	memset(m, 0, sizeof(m));
	for (int i = 0; i < 3; i++) {
		m[i].msg_hdr.msg_iov = &out[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	CHECK_EQ(sendmmsg(a, m, 3, 0), 3);
	CHECK_EQ(m[2].msg_len, 3);
	memset(m, 0, sizeof(m));
	for (int i = 0; i < 4; i++) {
		iov[i] = (struct iovec){ in[i], 8 };
		m[i].msg_hdr.msg_iov = &iov[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	CHECK_EQ(recvmmsg(b, m, 4, MSG_WAITFORONE, NULL), 3);
	CHECK_EQ(m[0].msg_len, 1);
	CHECK_EQ(m[2].msg_len, 3);
	CHECK_ERRNO(recvmmsg(b, m, 4, MSG_DONTWAIT, NULL), EAGAIN);
}

TEST(cork)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");

	CHECK_OK(connect_to(a, "127.0.0.1", port_of(b)));
	CHECK_EQ(send(a, "one", 3, MSG_MORE), 3);
	CHECK_ERRNO(recv_now(b), EAGAIN);
	CHECK_EQ(send(a, "two", 3, 0), 3);
	CHECK_EQ(recv(b, buf, 16, 0), 6);
	CHECK(!memcmp(buf, "onetwo", 6));
	CHECK_OK(set_int(a, IPPROTO_UDP, UDP_CORK, 1));
	CHECK_EQ(write(a, "x", 1), 1);
	CHECK_EQ(write(a, "y", 1), 1);
	CHECK_ERRNO(recv_now(b), EAGAIN);
	CHECK_OK(set_int(a, IPPROTO_UDP, UDP_CORK, 0));
	CHECK_EQ(recv(b, buf, 16, 0), 2);
}

TEST(vectors)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");
	char x[2], y[8];
	struct iovec out[2] = { { "ab", 2 }, { "cde", 3 } }, in[2] = { { x, 2 }, { y, 8 } };

	CHECK_OK(connect_to(a, "127.0.0.1", port_of(b)));
	CHECK_EQ(writev(a, out, 2), 5);
	CHECK_EQ(readv(b, in, 2), 5);
	CHECK(!memcmp(y, "cde", 3));
}

TEST(shutdown)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");

	CHECK_ERRNO(shutdown(a, SHUT_RDWR), ENOTCONN);
	a = udp("127.0.0.1");
	CHECK_OK(connect_to(a, "127.0.0.1", port_of(b)));
	CHECK_OK(shutdown(a, SHUT_WR));
	CHECK_ERRNO(write(a, "x", 1), EPIPE);
	CHECK_OK(shutdown(a, SHUT_RD));
	CHECK_EQ(recv(a, buf, 8, 0), 0);
	CHECK(events(a) & POLLHUP);
}

TEST(wrong_calls)
{
	int a = udp("127.0.0.1");

	CHECK_ERRNO(listen(a, 1), EOPNOTSUPP);
	CHECK_ERRNO(accept(a, NULL, NULL), EOPNOTSUPP);
	CHECK_ERRNO(send(a, "x", 1, MSG_OOB), EOPNOTSUPP);
	CHECK_ERRNO(send_to(a, "x", "127.0.0.1", 0), EINVAL);
	CHECK_EQ(get_int(a, SOL_SOCKET, SO_ACCEPTCONN), 0);
}

TEST(receive_waits_and_times_out)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");
	struct timeval tv = { .tv_usec = 50000 };
	pid_t pid = FORK();

	if (!pid) {
		msleep(30);
		CHECK_EQ(send_to(a, "x", "127.0.0.1", port_of(b)), 1);
		_exit(0);
	}
	CHECK_EQ(recv(b, buf, 8, 0), 1);
	JOIN(pid);
	CHECK_OK(setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	CHECK_ERRNO(recv(b, buf, 8, 0), EAGAIN);
}

TEST(readiness)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");

	CHECK_EQ(events(b), POLLOUT);
	CHECK_EQ(send_to(a, "", "127.0.0.1", port_of(b)), 0);
	CHECK_EQ(events(b), POLLIN | POLLOUT);
	CHECK_EQ(recv(b, buf, 8, 0), 0);
	CHECK_EQ(events(b), POLLOUT);
}

TEST(bad_buffer_loses_the_datagram)
{
	int a = udp("127.0.0.1"), b = udp("127.0.0.1");

	CHECK_EQ(send_to(a, "abc", "127.0.0.1", port_of(b)), 3);
	CHECK_ERRNO(recv(b, (void *)8, 3, 0), EFAULT);
	CHECK_ERRNO(recv_now(b), EAGAIN);
}

TEST(udplite)
{
	int a = CHECK_OK(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE)), b = udp("127.0.0.1"), c;

	CHECK_EQ(get_int(a, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDPLITE);
	/* Ports of its own. */
	CHECK_OK(bind_to(a, "127.0.0.1", port_of(b)));
	c = CHECK_OK(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));
	CHECK_EQ(send_to(c, "lite", "127.0.0.1", port_of(a)), 4);
	CHECK_EQ(recv(a, buf, 8, 0), 4);
	CHECK_ERRNO(recv_now(b), EAGAIN);
	CHECK_OK(set_int(c, IPPROTO_UDPLITE, 10 /* UDPLITE_SEND_CSCOV */, 20));
	CHECK_EQ(get_int(c, IPPROTO_UDPLITE, 10), 20);
	CHECK_ERRNO(set_int(b, IPPROTO_UDPLITE, 10, 20), ENOPROTOOPT);
}

TEST(to_itself)
{
	int a = udp("127.0.0.1");

	CHECK_OK(connect_to(a, "127.0.0.1", port_of(a)));
	CHECK_EQ(write(a, "me", 2), 2);
	CHECK_EQ(read(a, buf, 8), 2);
}
