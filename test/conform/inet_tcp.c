/* SPDX-License-Identifier: Apache-2.0 */
/* TCP over loopback: names, connecting, bytes, ends. */
#include "test/conform/inet.h"

static char big[1 << 20];

TEST(socket_arguments)
{
	CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
	CHECK_ERRNO(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
	CHECK_ERRNO(socket(AF_INET6, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
	CHECK_ERRNO(socket(AF_INET, SOCK_RDM, 0), ESOCKTNOSUPPORT);
	CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, -1), EINVAL);
	CHECK_OK(socket(AF_INET, SOCK_STREAM, IPPROTO_TCP));
	CHECK_OK(socket(AF_INET6, SOCK_DGRAM, IPPROTO_UDP));
	CHECK_EQ(fcntl(CHECK_OK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), F_GETFD),
		 FD_CLOEXEC);
	CHECK(fcntl(CHECK_OK(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0)), F_GETFL) &
	      O_NONBLOCK);
}

TEST(raw_needs_a_capability)
{
	NEED_ROOT();
	BECOME_NOBODY();
	CHECK_ERRNO(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
}

TEST(socketpair_is_not_for_inet)
{
	CHECK_ERRNO(socketpair(AF_INET, SOCK_STREAM, 0, s), EOPNOTSUPP);
}

TEST(connect_accept_and_names)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1"), a;
	union addr peer;
	socklen_t len = sizeof(peer);

	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	a = CHECK_OK(accept(l, &peer.sa, &len));
	CHECK_EQ(len, sizeof(peer.in));
	CHECK_EQ(peer.sa.sa_family, AF_INET);
	CHECK_EQ(ntohs(peer.in.sin_port), port_of(c));
	CHECK_EQ(peer.in.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	CHECK_EQ(port_of(a), port_of(l));
	CHECK_STR(ip_of(a, true), "127.0.0.1");
	CHECK_STR(ip_of(c, true), "127.0.0.1");
	CHECK_STR(ip_of(c, false), "127.0.0.1");
	CHECK(port_of(c) >= 1024);
}

TEST(names_of_ipv6)
{
	int l = listener("::1"), c = tcp("::1"), a;
	union addr peer;
	socklen_t len = sizeof(peer);

	CHECK_OK(connect_to(c, "::1", port_of(l)));
	a = CHECK_OK(accept(l, &peer.sa, &len));
	CHECK_EQ(len, sizeof(peer.in6));
	CHECK_EQ(peer.sa.sa_family, AF_INET6);
	CHECK_EQ(ntohs(peer.in6.sin6_port), port_of(c));
	CHECK_EQ(peer.in6.sin6_scope_id, 0);
	CHECK_STR(ip_of(a, false), "::1");
	CHECK_STR(ip_of(a, true), "::1");
}

TEST(names_before_and_without)
{
	int c = tcp("127.0.0.1"), d = tcp("::1");
	union addr a;
	socklen_t len = sizeof(a);

	CHECK_EQ(port_of(c), 0);
	CHECK_STR(ip_of(c, false), "0.0.0.0");
	CHECK_STR(ip_of(d, false), "::");
	CHECK_ERRNO(getpeername(c, &a.sa, &len), ENOTCONN);
	CHECK_OK(bind_to(c, "0.0.0.0", 0));
	CHECK(port_of(c) != 0);
	CHECK_STR(ip_of(c, false), "0.0.0.0");
	CHECK_ERRNO(getpeername(c, &a.sa, &len), ENOTCONN);
}

TEST(name_is_cut_to_the_room)
{
	int c = tcp("127.0.0.1");
	union addr a;
	socklen_t len = 4;

	memset(&a, 0xee, sizeof(a));
	CHECK_OK(bind_to(c, "127.0.0.1", 0));
	CHECK_OK(getsockname(c, &a.sa, &len));
	CHECK_EQ(len, sizeof(a.in));
	CHECK_EQ(a.in.sin_addr.s_addr, 0xeeeeeeee);
}

TEST(bytes_both_ways)
{
	char buf[16];

	tcp_pair();
	CHECK_EQ(write(s[0], "hel", 3), 3);
	CHECK_EQ(write(s[0], "lo", 2), 2);
	CHECK_EQ(recv(s[1], buf, 5, MSG_WAITALL), 5);
	CHECK(!memcmp(buf, "hello", 5));
	CHECK_EQ(write(s[1], "back", 4), 4);
	CHECK_EQ(read(s[0], buf, 2), 2);
	CHECK_EQ(read(s[0], buf, 16), 2);
	CHECK_ERRNO(recv(s[0], buf, 16, MSG_DONTWAIT), EAGAIN);
}

TEST(bytes_over_ipv6)
{
	char buf[16];

	tcp_pair_on("::1");
	CHECK_EQ(write(s[0], "six", 3), 3);
	CHECK_EQ(read(s[1], buf, 16), 3);
}

TEST(recvfrom_gives_no_name)
{
	union addr a;
	socklen_t len = sizeof(a);
	char c;

	tcp_pair();
	CHECK_EQ(write(s[0], "x", 1), 1);
	CHECK_EQ(recvfrom(s[1], &c, 1, 0, &a.sa, &len), 1);
	CHECK_EQ(len, 0);
}

TEST(sendto_ignores_the_name_of_a_connection)
{
	char c;

	tcp_pair();
	CHECK_EQ(send_to(s[0], "x", "127.0.0.9", 9), 1);
	CHECK_EQ(read(s[1], &c, 1), 1);
}

TEST(whole_loopback_network)
{
	int l = tcp("127.0.0.1"), c = tcp("127.0.0.1");

	CHECK_OK(bind_to(l, "127.1.2.3", 0));
	CHECK_OK(listen(l, 1));
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), ECONNREFUSED);
	CHECK_OK(connect_to(c, "127.1.2.3", port_of(l)));
	CHECK_STR(ip_of(c, true), "127.1.2.3");
	CHECK_STR(ip_of(c, false), "127.0.0.1");
}

TEST(any_address_listens_everywhere)
{
	int l = listener("0.0.0.0"), c = tcp("127.0.0.1"), a;

	CHECK_OK(connect_to(c, "127.5.5.5", port_of(l)));
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_STR(ip_of(a, false), "127.5.5.5");
	CHECK_STR(ip_of(l, false), "0.0.0.0");
}

TEST(connect_to_any_is_loopback)
{
	int l = listener("0.0.0.0"), c = tcp("127.0.0.1"), l6 = listener("::1"), c6 = tcp("::1");

	CHECK_OK(connect_to(c, "0.0.0.0", port_of(l)));
	CHECK_STR(ip_of(c, true), "127.0.0.1");
	CHECK_OK(connect_to(c6, "::", port_of(l6)));
	CHECK_STR(ip_of(c6, true), "::1");
}

TEST(bind_source_then_connect)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1"), a;
	union addr peer;
	socklen_t len = sizeof(peer);

	CHECK_OK(bind_to(c, "127.0.0.77", 0));
	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	a = CHECK_OK(accept(l, &peer.sa, &len));
	CHECK_STR(ip_of(a, true), "127.0.0.77");
	CHECK_STR(ip_of(c, false), "127.0.0.77");
}

TEST(dual_stack)
{
	int l = listener("::"), c = tcp("127.0.0.1"), c6 = tcp("::1"), a;
	union addr peer;
	socklen_t len = sizeof(peer);

	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	a = CHECK_OK(accept(l, &peer.sa, &len));
	CHECK_EQ(len, sizeof(peer.in6));
	CHECK_STR(ip_of(a, true), "::ffff:127.0.0.1");
	CHECK_STR(ip_of(a, false), "::ffff:127.0.0.1");
	CHECK_OK(connect_to(c6, "::1", port_of(l)));
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_STR(ip_of(a, true), "::1");
}

TEST(v6only_hears_no_ipv4)
{
	int l = tcp("::1"), c = tcp("127.0.0.1");

	CHECK_OK(set_int(l, IPPROTO_IPV6, IPV6_V6ONLY, 1));
	CHECK_OK(bind_to(l, "::", 0));
	CHECK_OK(listen(l, 1));
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), ECONNREFUSED);
	CHECK_OK(connect_to(tcp("::1"), "::1", port_of(l)));
}

TEST(v6_socket_to_mapped_address)
{
	int l = listener("127.0.0.1"), c = tcp("::1"), a;

	CHECK_OK(connect_to(c, "::ffff:127.0.0.1", port_of(l)));
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_STR(ip_of(c, false), "::ffff:127.0.0.1");
	CHECK_STR(ip_of(a, true), "127.0.0.1");
	c = tcp("::1");
	CHECK_OK(set_int(c, IPPROTO_IPV6, IPV6_V6ONLY, 1));
	CHECK_ERRNO(connect_to(c, "::ffff:127.0.0.1", port_of(l)), ENETUNREACH);
}

TEST(bind_mapped_address)
{
	int l = tcp("::1"), c = tcp("127.0.0.1");

	CHECK_OK(bind_to(l, "::ffff:127.0.0.1", 0));
	CHECK_OK(listen(l, 1));
	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	CHECK_ERRNO(connect_to(tcp("::1"), "::1", port_of(l)), ECONNREFUSED);
	l = tcp("::1");
	CHECK_OK(set_int(l, IPPROTO_IPV6, IPV6_V6ONLY, 1));
	CHECK_ERRNO(bind_to(l, "::ffff:127.0.0.1", 0), EINVAL);
}

TEST(v6only_is_settled_by_bind)
{
	int l = tcp("::1");

	CHECK_OK(bind_to(l, "::1", 0));
	CHECK_ERRNO(set_int(l, IPPROTO_IPV6, IPV6_V6ONLY, 1), EINVAL);
}

TEST(bind_errors)
{
	int f = tcp("127.0.0.1"), g = tcp("::1");
	union addr a = a4("127.0.0.1", 0);

	CHECK_ERRNO(bind(f, &a.sa, sizeof(a.in) - 1), EINVAL);
	a.sa.sa_family = AF_INET6;
	CHECK_ERRNO(bind(f, &a.sa, sizeof(a.in)), EAFNOSUPPORT);
	a.sa.sa_family = AF_UNSPEC;
	CHECK_ERRNO(bind(f, &a.sa, sizeof(a.in)), EAFNOSUPPORT);
	a = a4("127.0.0.1", 0);
	CHECK_ERRNO(bind(g, &a.sa, sizeof(a.in6)), EAFNOSUPPORT);
	CHECK_ERRNO(bind(g, &a.sa, sizeof(a.in)), EINVAL);
	CHECK_ERRNO(bind_to(f, "192.0.2.1", 0), EADDRNOTAVAIL);
	CHECK_ERRNO(bind_to(g, "2001:db8::1", 0), EADDRNOTAVAIL);
	CHECK_OK(bind_to(f, "127.0.0.1", 0));
	CHECK_ERRNO(bind_to(f, "127.0.0.1", 0), EINVAL);
	CHECK_ERRNO(bind(0, &a.sa, sizeof(a.in)), ENOTSOCK);
}

TEST(bind_any_without_a_family)
{
	int f = tcp("127.0.0.1");
	union addr a = a4("0.0.0.0", 0);

	a.sa.sa_family = AF_UNSPEC;
	CHECK_OK(bind(f, &a.sa, sizeof(a.in)));
	CHECK(port_of(f));
}

TEST(bind_conflicts)
{
	int f = tcp("127.0.0.1"), g = tcp("127.0.0.1"), port;

	CHECK_OK(bind_to(f, "127.0.0.1", 0));
	port = port_of(f);
	CHECK_ERRNO(bind_to(g, "127.0.0.1", port), EADDRINUSE);
	CHECK_ERRNO(bind_to(g, "0.0.0.0", port), EADDRINUSE);
	CHECK_OK(bind_to(g, "127.0.0.2", port));
	CHECK_ERRNO(bind_to(tcp("::1"), "::", port), EADDRINUSE);
	CHECK_OK(bind_to(tcp("::1"), "::1", port));
	CHECK_ERRNO(bind_to(tcp("::1"), "::ffff:127.0.0.1", port), EADDRINUSE);
	CHECK_OK(close(f));
	CHECK_OK(bind_to(tcp("127.0.0.1"), "127.0.0.1", port));
}

TEST(bind_conflicts_of_any)
{
	int f = tcp("127.0.0.1"), g = tcp("::1"), port;

	CHECK_OK(bind_to(f, "0.0.0.0", 0));
	port = port_of(f);
	CHECK_ERRNO(bind_to(tcp("127.0.0.1"), "127.0.0.1", port), EADDRINUSE);
	CHECK_ERRNO(bind_to(g, "::", port), EADDRINUSE);
	CHECK_OK(set_int(g, IPPROTO_IPV6, IPV6_V6ONLY, 1));
	CHECK_OK(bind_to(g, "::", port));
}

TEST(dual_stack_any_excludes_ipv4)
{
	int f = tcp("::1"), port;

	CHECK_OK(bind_to(f, "::", 0));
	port = port_of(f);
	CHECK_ERRNO(bind_to(tcp("127.0.0.1"), "127.0.0.1", port), EADDRINUSE);
	CHECK_ERRNO(bind_to(tcp("127.0.0.1"), "0.0.0.0", port), EADDRINUSE);
	CHECK_ERRNO(bind_to(tcp("::1"), "::1", port), EADDRINUSE);
}

TEST(reuseaddr_lets_bind_but_not_listen)
{
	int f = tcp("127.0.0.1"), g = tcp("127.0.0.1"), port;

	CHECK_OK(set_int(f, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_OK(set_int(g, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_OK(bind_to(f, "127.0.0.1", 0));
	port = port_of(f);
	CHECK_OK(bind_to(g, "127.0.0.1", port));
	CHECK_OK(listen(f, 1));
	CHECK_ERRNO(listen(g, 1), EADDRINUSE);
	g = tcp("127.0.0.1");
	CHECK_OK(set_int(g, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_ERRNO(bind_to(g, "127.0.0.1", port), EADDRINUSE);
}

TEST(reuseaddr_needs_both)
{
	int f = tcp("127.0.0.1"), g = tcp("127.0.0.1");

	CHECK_OK(bind_to(f, "127.0.0.1", 0));
	CHECK_OK(set_int(g, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_ERRNO(bind_to(g, "127.0.0.1", port_of(f)), EADDRINUSE);
}

TEST(reuseport_shares_a_listener)
{
	int l[2], n[2] = { 0, 0 }, port = 0;

	for (int i = 0; i < 2; i++) {
		l[i] = tcp("127.0.0.1");
		CHECK_OK(set_int(l[i], SOL_SOCKET, SO_REUSEPORT, 1));
		CHECK_OK(bind_to(l[i], "127.0.0.1", port));
		port = port_of(l[i]);
		CHECK_OK(listen(l[i], 128));
		nonblock(l[i]);
	}
	for (int i = 0; i < 64; i++)
		CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port));
	for (int i = 0; i < 2; i++)
		while (accept(l[i], NULL, NULL) >= 0)
			n[i]++;
	CHECK_EQ(n[0] + n[1], 64);
	CHECK(n[0] > 5 && n[1] > 5);
}

TEST(reuseport_needs_both_and_the_same_user)
{
	int f = tcp("127.0.0.1"), g = tcp("127.0.0.1"), port;
	pid_t pid;

	CHECK_OK(bind_to(f, "127.0.0.1", 0));
	CHECK_OK(set_int(g, SOL_SOCKET, SO_REUSEPORT, 1));
	CHECK_ERRNO(bind_to(g, "127.0.0.1", port_of(f)), EADDRINUSE);
	CHECK_OK(bind_to(g, "127.0.0.1", 0));
	port = port_of(g);
	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		int h;

		BECOME_NOBODY();
		h = tcp("127.0.0.1");
		CHECK_OK(set_int(h, SOL_SOCKET, SO_REUSEPORT, 1));
		CHECK_ERRNO(bind_to(h, "127.0.0.1", port), EADDRINUSE);
		_exit(0);
	}
	JOIN(pid);
}

TEST(privileged_ports)
{
	int f;

	own_network();
	CHECK_OK(bind_to(tcp("127.0.0.1"), "127.0.0.1", 80));
	BECOME_NOBODY();
	f = tcp("127.0.0.1");
	CHECK_ERRNO(bind_to(f, "127.0.0.1", 81), EACCES);
	CHECK_ERRNO(bind_to(f, "127.0.0.1", 1023), EACCES);
	CHECK_OK(bind_to(f, "127.0.0.1", 1024));
}

TEST(ephemeral_ports_are_in_range)
{
	int lo, hi;
	char buf[64];

	CHECK(get_file("/proc/sys/net/ipv4/ip_local_port_range", buf, sizeof(buf)) > 0);
	CHECK_EQ(sscanf(buf, "%d %d", &lo, &hi), 2);
	for (int i = 0; i < 20; i++) {
		int f = tcp("127.0.0.1");

		CHECK_OK(bind_to(f, "127.0.0.1", 0));
		CHECK(port_of(f) >= lo && port_of(f) <= hi);
	}
}

TEST(listen_binds)
{
	int l = tcp("127.0.0.1");

	CHECK_OK(listen(l, 1));
	CHECK(port_of(l) != 0);
	CHECK_STR(ip_of(l, false), "0.0.0.0");
	CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
}

TEST(listen_twice_changes_the_backlog)
{
	int l = listener("127.0.0.1");

	CHECK_OK(listen(l, 100));
	CHECK_EQ(get_int(l, SOL_SOCKET, SO_ACCEPTCONN), 1);
	CHECK_EQ(get_int(tcp("127.0.0.1"), SOL_SOCKET, SO_ACCEPTCONN), 0);
}

TEST(listen_on_a_connection)
{
	tcp_pair();
	CHECK_ERRNO(listen(s[0], 1), EINVAL);
	CHECK_ERRNO(accept(s[0], NULL, NULL), EINVAL);
	CHECK_ERRNO(accept(tcp("127.0.0.1"), NULL, NULL), EINVAL);
}

TEST(accept_without_a_connection)
{
	int l = listener("127.0.0.1");

	nonblock(l);
	CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
	CHECK_ERRNO(accept4(l, NULL, NULL, 0x1234), EINVAL);
}

TEST(accept4_flags)
{
	int l = listener("127.0.0.1"), a;

	CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
	CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
	a = CHECK_OK(accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
	CHECK(fcntl(a, F_GETFL) & O_NONBLOCK);
	CHECK_EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
	nonblock(l);
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK(!(fcntl(a, F_GETFL) & O_NONBLOCK));
}

TEST(accept_waits)
{
	int l = listener("127.0.0.1"), a;
	pid_t pid = FORK();

	if (!pid) {
		msleep(50);
		CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
		msleep(50);
		_exit(0);
	}
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_STR(ip_of(a, true), "127.0.0.1");
	JOIN(pid);
}

static void nothing(int sig UNUSED)
{
}

TEST(accept_is_interrupted)
{
	int l = listener("127.0.0.1");

	on_signal(SIGALRM, nothing);
	TICK_START();
	CHECK_ERRNO(accept(l, NULL, NULL), EINTR);
	TICK_STOP();
}

TEST(accept_restarts)
{
	int l = listener("127.0.0.1");
	pid_t pid;

	on_signal_flags(SIGALRM, nothing, SA_RESTART);
	pid = FORK();
	if (!pid) {
		msleep(100);
		CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
		_exit(0);
	}
	TICK_START();
	CHECK_OK(accept(l, NULL, NULL));
	TICK_STOP();
	JOIN(pid);
}

TEST(accepted_inherits)
{
	int l = listener("127.0.0.1"), a;

	CHECK_OK(set_int(l, IPPROTO_TCP, TCP_NODELAY, 1));
	CHECK_OK(set_int(l, SOL_SOCKET, SO_KEEPALIVE, 1));
	CHECK_OK(set_int(l, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_EQ(get_int(a, IPPROTO_TCP, TCP_NODELAY), 1);
	CHECK_EQ(get_int(a, SOL_SOCKET, SO_KEEPALIVE), 1);
	CHECK_EQ(get_int(a, SOL_SOCKET, SO_REUSEADDR), 1);
	CHECK_EQ(get_int(a, SOL_SOCKET, SO_ACCEPTCONN), 0);
}

TEST(connection_refused)
{
	int c = tcp("127.0.0.1"), port = free_port();

	CHECK_ERRNO(connect_to(c, "127.0.0.1", port), ECONNREFUSED);
	CHECK_EQ(get_int(c, SOL_SOCKET, SO_ERROR), 0);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port), ECONNREFUSED);
	CHECK_ERRNO(connect_to(tcp("::1"), "::1", port), ECONNREFUSED);
	CHECK_ERRNO(connect_to(tcp("127.0.0.1"), "127.0.0.1", 0), ECONNREFUSED);
}

TEST(bound_but_not_listening_refuses)
{
	int f = tcp("127.0.0.1");

	CHECK_OK(bind_to(f, "127.0.0.1", 0));
	CHECK_ERRNO(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(f)), ECONNREFUSED);
}

TEST(refused_then_connected)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1");

	CHECK_ERRNO(connect_to(c, "127.0.0.1", free_port()), ECONNREFUSED);
	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EISCONN);
}

TEST(connect_errors)
{
	int c = tcp("127.0.0.1"), d = tcp("::1"), l = listener("127.0.0.1");
	union addr a = a4("127.0.0.1", port_of(l));

	CHECK_ERRNO(connect(c, &a.sa, 8), EINVAL);
	a.sa.sa_family = AF_UNIX;
	CHECK_ERRNO(connect(c, &a.sa, sizeof(a.in)), EAFNOSUPPORT);
	a.sa.sa_family = AF_INET;
	CHECK_ERRNO(connect(d, &a.sa, sizeof(a.in)), EINVAL);
	CHECK_ERRNO(connect(d, &a.sa, sizeof(a.in6)), EAFNOSUPPORT);
	CHECK_ERRNO(connect(l, &a.sa, sizeof(a.in)), EISCONN);
	CHECK_ERRNO(connect(c, NULL, sizeof(a.in)), EFAULT);
	CHECK_ERRNO(connect_to(c, "127.255.255.255", port_of(l)), ENETUNREACH);
}

TEST(no_way_out)
{
	own_network();
	CHECK_ERRNO(connect_to(tcp("127.0.0.1"), "192.0.2.1", 80), ENETUNREACH);
	CHECK_ERRNO(connect_to(tcp("::1"), "2001:db8::1", 80), ENETUNREACH);
	CHECK_ERRNO(connect_to(tcp("::1"), "::ffff:192.0.2.1", 80), ENETUNREACH);
	CHECK_ERRNO(connect_to(tcp("127.0.0.1"), "224.0.0.1", 80), ENETUNREACH);
}

TEST(nonblocking_connect)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1");
	char x;

	nonblock(c);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EINPROGRESS);
	CHECK_EQ(events_wait(c, POLLOUT), POLLOUT);
	CHECK_EQ(get_int(c, SOL_SOCKET, SO_ERROR), 0);
	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EISCONN);
	CHECK_ERRNO(read(c, &x, 1), EAGAIN);
}

TEST(nonblocking_connect_refused)
{
	int c = tcp("127.0.0.1"), port = free_port();

	nonblock(c);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port), EINPROGRESS);
	CHECK_EQ(events_wait(c, POLLOUT), POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
	CHECK_EQ(get_int(c, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	CHECK_EQ(get_int(c, SOL_SOCKET, SO_ERROR), 0);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port), ECONNABORTED);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port), EINPROGRESS);
}

TEST(nonblocking_connect_refused_told_by_connect)
{
	int c = tcp("127.0.0.1"), port = free_port();

	nonblock(c);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port), EINPROGRESS);
	events_wait(c, POLLOUT);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port), ECONNREFUSED);
	CHECK_EQ(get_int(c, SOL_SOCKET, SO_ERROR), 0);
}

TEST(nonblocking_connect_refused_told_by_read)
{
	int c = tcp("127.0.0.1");
	char x;

	nonblock(c);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", free_port()), EINPROGRESS);
	events_wait(c, POLLOUT);
	CHECK_ERRNO(read(c, &x, 1), ECONNREFUSED);
	CHECK_EQ(read(c, &x, 1), 0);
	signal(SIGPIPE, SIG_IGN);
	CHECK_ERRNO(write(c, &x, 1), EPIPE);
}

/* Fills a listener's backlog of @n and returns it. */
static int full_listener(int n)
{
	int l = tcp("127.0.0.1");

	CHECK_OK(bind_to(l, "127.0.0.1", 0));
	CHECK_OK(listen(l, n));
	for (int i = 0; i <= n; i++)
		CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
	return l;
}

TEST(backlog_is_one_more_than_asked_for)
{
	int l = full_listener(2), c = tcp("127.0.0.1");

	nonblock(c);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EINPROGRESS);
	msleep(30);
	CHECK_EQ(events(c), 0);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EALREADY);
	CHECK_ERRNO(write(c, "x", 1), EAGAIN);
	CHECK_OK(accept(l, NULL, NULL));
	CHECK_EQ(events_wait(c, POLLOUT), POLLOUT);
	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
}

TEST(connect_waits_for_the_backlog)
{
	int l = full_listener(0);
	pid_t pid = FORK();

	if (!pid) {
		CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
		_exit(0);
	}
	msleep(50);
	CHECK_OK(accept(l, NULL, NULL));
	CHECK_OK(accept(l, NULL, NULL));
	JOIN(pid);
}

TEST(connect_is_interrupted_and_goes_on)
{
	int l = full_listener(0), c = tcp("127.0.0.1");

	on_signal(SIGALRM, nothing);
	TICK_START();
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EINTR);
	TICK_STOP();
	CHECK_OK(accept(l, NULL, NULL));
	CHECK_EQ(events_wait(c, POLLOUT), POLLOUT);
	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
}

TEST(connect_with_a_time_limit)
{
	int l = full_listener(0), c = tcp("127.0.0.1");
	struct timeval tv = { .tv_usec = 50000 };

	CHECK_OK(setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EINPROGRESS);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EALREADY);
}

TEST(close_while_connecting)
{
	int l = full_listener(0), c = tcp("127.0.0.1");

	nonblock(c);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EINPROGRESS);
	CHECK_OK(close(c));
	CHECK_OK(accept(l, NULL, NULL));
	nonblock(l);
	CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
}

TEST(shutdown_while_connecting)
{
	int l = full_listener(0), c = tcp("127.0.0.1");

	nonblock(c);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), EINPROGRESS);
	CHECK_OK(shutdown(c, SHUT_RDWR));
	CHECK(events(c) & POLLHUP);
}

TEST(listener_closes_on_those_in_its_queue)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1");
	char x;

	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	CHECK_EQ(write(c, "x", 1), 1);
	CHECK_OK(close(l));
	CHECK_ERRNO(read(c, &x, 1), ECONNRESET);
	CHECK_EQ(read(c, &x, 1), 0);
}

TEST(connection_closed_before_accept)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1"), a, port;
	union addr peer;
	socklen_t len = sizeof(peer);
	char buf[8];

	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	port = port_of(c);
	CHECK_EQ(write(c, "bye", 3), 3);
	CHECK_OK(close(c));
	a = CHECK_OK(accept(l, &peer.sa, &len));
	CHECK_EQ(ntohs(peer.in.sin_port), port);
	CHECK_EQ(read(a, buf, 8), 3);
	CHECK_EQ(read(a, buf, 8), 0);
}

TEST(connection_reset_before_accept)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1"), a, port;
	struct linger lg = { 1, 0 };
	union addr peer;
	socklen_t len = sizeof(peer);
	char x;

	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	port = port_of(c);
	CHECK_OK(setsockopt(c, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	CHECK_OK(close(c));
	a = CHECK_OK(accept(l, &peer.sa, &len));
	CHECK_EQ(ntohs(peer.in.sin_port), port);
	CHECK_ERRNO(read(a, &x, 1), ECONNRESET);
	CHECK_ERRNO(getpeername(a, &peer.sa, &len), ENOTCONN);
}

TEST(connect_to_itself)
{
	int c = tcp("127.0.0.1");
	char buf[8];

	CHECK_OK(bind_to(c, "127.0.0.1", 0));
	CHECK_OK(connect_to(c, "127.0.0.1", port_of(c)));
	CHECK_EQ(write(c, "echo", 4), 4);
	CHECK_EQ(read(c, buf, 8), 4);
	CHECK_STR(ip_of(c, true), "127.0.0.1");
	CHECK_OK(shutdown(c, SHUT_WR));
	CHECK_EQ(read(c, buf, 8), 0);
}

TEST(disconnect)
{
	union addr u = { .sa.sa_family = AF_UNSPEC }, a;
	socklen_t len = sizeof(a);
	int l = listener("127.0.0.1");
	char x;

	tcp_pair();
	CHECK_OK(connect(s[0], &u.sa, sizeof(u.sa)));
	CHECK_ERRNO(getpeername(s[0], &a.sa, &len), ENOTCONN);
	CHECK_ERRNO(read(s[1], &x, 1), ECONNRESET);
	CHECK_EQ(get_int(s[0], SOL_SOCKET, SO_ERROR), ECONNRESET);
	CHECK_OK(connect_to(s[0], "127.0.0.1", port_of(l)));
}

TEST(disconnect_a_listener)
{
	union addr u = { .sa.sa_family = AF_UNSPEC };
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1"), port = port_of(l);

	CHECK_OK(connect(l, &u.sa, sizeof(u.sa)));
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port), ECONNREFUSED);
	CHECK_ERRNO(accept(l, NULL, NULL), EINVAL);
}

TEST(shutdown_of_a_listener)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1");
	pid_t pid;

	pid = FORK();
	if (!pid) {
		CHECK_ERRNO(accept(l, NULL, NULL), EINVAL);
		_exit(0);
	}
	msleep(50);
	CHECK_OK(shutdown(l, SHUT_RDWR));
	JOIN(pid);
	CHECK_ERRNO(connect_to(c, "127.0.0.1", port_of(l)), ECONNREFUSED);
	CHECK_OK(listen(l, 1));
	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
}

TEST(shutdown_write)
{
	char buf[8];

	tcp_pair();
	CHECK_EQ(write(s[0], "end", 3), 3);
	CHECK_OK(shutdown(s[0], SHUT_WR));
	CHECK_EQ(read(s[1], buf, 8), 3);
	CHECK_EQ(read(s[1], buf, 8), 0);
	CHECK_EQ(write(s[1], "more", 4), 4);
	CHECK_EQ(read(s[0], buf, 8), 4);
	signal(SIGPIPE, SIG_IGN);
	CHECK_ERRNO(write(s[0], "x", 1), EPIPE);
	CHECK_OK(shutdown(s[0], SHUT_WR));
}

TEST(shutdown_read)
{
	char buf[8];

	tcp_pair();
	CHECK_OK(shutdown(s[0], SHUT_RD));
	CHECK_EQ(read(s[0], buf, 8), 0);
	CHECK_EQ(write(s[1], "late", 4), 4);
	EVENTUALLY(recv(s[0], buf, 8, MSG_DONTWAIT) == 4);
	CHECK_EQ(read(s[0], buf, 8), 0);
	CHECK_EQ(write(s[0], "ok", 2), 2);
	CHECK_EQ(read(s[1], buf, 8), 2);
}

TEST(shutdown_both_resets_who_sends_more)
{
	char x;

	tcp_pair();
	CHECK_OK(shutdown(s[0], SHUT_RDWR));
	CHECK_EQ(read(s[1], &x, 1), 0);
	CHECK_EQ(write(s[1], "x", 1), 1);
	signal(SIGPIPE, SIG_IGN);
	EVENTUALLY(events(s[1]) & POLLERR);
	CHECK_ERRNO(write(s[1], "x", 1), EPIPE);
}

TEST(shutdown_errors)
{
	union addr a;
	socklen_t len = sizeof(a);
	int c = tcp("127.0.0.1");

	CHECK_ERRNO(shutdown(c, SHUT_WR), ENOTCONN);
	CHECK_ERRNO(shutdown(c, 3), EINVAL);
	tcp_pair();
	CHECK_OK(shutdown(s[0], SHUT_WR));
	CHECK_OK(shutdown(s[1], SHUT_WR));
	EVENTUALLY(getpeername(s[0], &a.sa, &len) < 0);
	CHECK_ERRNO(getpeername(s[0], &a.sa, &len), ENOTCONN);
	CHECK_ERRNO(shutdown(s[0], SHUT_WR), ENOTCONN);
}

TEST(read_wakes_on_shutdown)
{
	pid_t pid;
	char x;

	tcp_pair();
	pid = FORK();
	if (!pid) {
		CHECK_EQ(read(s[1], &x, 1), 0);
		_exit(0);
	}
	msleep(30);
	CHECK_OK(shutdown(s[1], SHUT_RD));
	JOIN(pid);
}

TEST(peer_closes)
{
	char buf[8];

	tcp_pair();
	CHECK_EQ(write(s[0], "bye", 3), 3);
	CHECK_OK(close(s[0]));
	CHECK_EQ(read(s[1], buf, 8), 3);
	CHECK_EQ(read(s[1], buf, 8), 0);
	CHECK_EQ(write(s[1], "x", 1), 1);
	EVENTUALLY(events(s[1]) & POLLERR);
	signal(SIGPIPE, SIG_IGN);
	CHECK_ERRNO(write(s[1], "x", 1), EPIPE);
	CHECK_EQ(read(s[1], buf, 8), 0);
}

TEST(error_after_the_peer_closed)
{
	tcp_pair();
	CHECK_OK(close(s[0]));
	CHECK_EQ(write(s[1], "x", 1), 1);
	EVENTUALLY(events(s[1]) & POLLERR);
	CHECK_EQ(get_int(s[1], SOL_SOCKET, SO_ERROR), EPIPE);
	CHECK_EQ(get_int(s[1], SOL_SOCKET, SO_ERROR), 0);
}

TEST(close_with_unread_data_resets)
{
	char buf[8];

	tcp_pair();
	CHECK_EQ(write(s[0], "unread", 6), 6);
	events_wait(s[1], POLLIN);
	CHECK_OK(close(s[1]));
	CHECK_ERRNO(read(s[0], buf, 8), ECONNRESET);
	CHECK_EQ(read(s[0], buf, 8), 0);
	signal(SIGPIPE, SIG_IGN);
	CHECK_ERRNO(write(s[0], "x", 1), EPIPE);
}

TEST(linger_zero_resets)
{
	struct linger lg = { 1, 0 };
	char x;

	tcp_pair();
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	CHECK_OK(close(s[0]));
	CHECK_ERRNO(write(s[1], "x", 1), ECONNRESET);
	signal(SIGPIPE, SIG_IGN);
	CHECK_ERRNO(write(s[1], "x", 1), EPIPE);
	CHECK_EQ(read(s[1], &x, 1), 0);
}

TEST(data_before_a_reset_is_readable)
{
	struct linger lg = { 1, 0 };
	char buf[8];

	tcp_pair();
	CHECK_EQ(write(s[0], "last", 4), 4);
	events_wait(s[1], POLLIN);
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	CHECK_OK(close(s[0]));
	CHECK_EQ(read(s[1], buf, 8), 4);
	CHECK_ERRNO(read(s[1], buf, 8), ECONNRESET);
}

TEST(linger_waits_for_nothing_when_all_is_received)
{
	struct linger lg = { 1, 5 }, got;
	socklen_t len = sizeof(got);
	int64_t t0 = now_ms();
	char x;

	tcp_pair();
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_LINGER, &got, &len));
	CHECK_EQ(got.l_linger, 5);
	CHECK_EQ(write(s[0], "x", 1), 1);
	CHECK_OK(close(s[0]));
	CHECK(now_ms() - t0 < 3000);
	CHECK_EQ(read(s[1], &x, 1), 1);
}

TEST(epipe_and_sigpipe)
{
	pid_t pid;

	tcp_pair();
	CHECK_OK(shutdown(s[0], SHUT_WR));
	CHECK_ERRNO(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	pid = FORK();
	if (!pid) {
		send(s[0], "x", 1, 0);
		_exit(0);
	}
	CHECK_SIGNALED(pid, SIGPIPE);
	pid = FORK();
	if (!pid) {
		if (write(s[0], "x", 1) < 0)
			_exit(0);
	}
	CHECK_SIGNALED(pid, SIGPIPE);
}

TEST(never_connected)
{
	int c = tcp("127.0.0.1"), l = listener("127.0.0.1");
	char x;

	CHECK_ERRNO(recv(c, &x, 1, 0), ENOTCONN);
	CHECK_ERRNO(read(l, &x, 1), ENOTCONN);
	CHECK_ERRNO(send(c, "x", 1, MSG_NOSIGNAL), EPIPE);
	CHECK_ERRNO(send(l, "x", 1, MSG_NOSIGNAL), EPIPE);
}

TEST(peek)
{
	char buf[8];

	tcp_pair();
	CHECK_EQ(write(s[0], "peek", 4), 4);
	CHECK_EQ(recv(s[1], buf, 2, MSG_PEEK), 2);
	CHECK_EQ(recv(s[1], buf, 8, MSG_PEEK), 4);
	CHECK_EQ(recv(s[1], buf, 8, 0), 4);
	CHECK(!memcmp(buf, "peek", 4));
}

TEST(trunc_discards)
{
	char buf[8] = "keep";

	tcp_pair();
	CHECK_EQ(write(s[0], "12345", 5), 5);
	events_wait(s[1], POLLIN);
	CHECK_EQ(recv(s[1], buf, 3, MSG_TRUNC), 3);
	CHECK(!memcmp(buf, "keep", 4));
	CHECK_EQ(recv(s[1], buf, 8, 0), 2);
	CHECK(!memcmp(buf, "45", 2));
}

TEST(waitall)
{
	char buf[8];
	pid_t pid;

	tcp_pair();
	pid = FORK();
	if (!pid) {
		CHECK_EQ(write(s[0], "abc", 3), 3);
		msleep(30);
		CHECK_EQ(write(s[0], "defgh", 5), 5);
		_exit(0);
	}
	CHECK_EQ(recv(s[1], buf, 8, MSG_WAITALL), 8);
	CHECK(!memcmp(buf, "abcdefgh", 8));
	JOIN(pid);
}

TEST(waitall_ends_with_the_stream)
{
	char buf[8];

	tcp_pair();
	CHECK_EQ(write(s[0], "abc", 3), 3);
	CHECK_OK(close(s[0]));
	CHECK_EQ(recv(s[1], buf, 8, MSG_WAITALL), 3);
}

TEST(rcvlowat)
{
	char buf[8];
	pid_t pid;

	tcp_pair();
	CHECK_OK(set_int(s[1], SOL_SOCKET, SO_RCVLOWAT, 4));
	CHECK_EQ(write(s[0], "ab", 2), 2);
	msleep(20);
	CHECK(!(events(s[1]) & POLLIN));
	CHECK_EQ(recv(s[1], buf, 8, MSG_DONTWAIT), 2);
	pid = FORK();
	if (!pid) {
		msleep(30);
		CHECK_EQ(write(s[0], "ab", 2), 2);
		msleep(30);
		CHECK_EQ(write(s[0], "cd", 2), 2);
		_exit(0);
	}
	CHECK_EQ(recv(s[1], buf, 8, 0), 4);
	JOIN(pid);
}

TEST(vectors)
{
	char a[3], b[5];
	struct iovec out[2] = { { "abc", 3 }, { "defgh", 5 } }, in[2] = { { a, 3 }, { b, 5 } };

	tcp_pair();
	CHECK_EQ(writev(s[0], out, 2), 8);
	events_wait(s[1], POLLIN);
	CHECK_EQ(readv(s[1], in, 2), 8);
	CHECK(!memcmp(b, "defgh", 5));
}

TEST(sendmsg_and_recvmsg)
{
	char a[8];
	struct iovec iov = { a, 8 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	tcp_pair();
	memcpy(a, "12345678", 8);
	CHECK_EQ(sendmsg(s[0], &m, 0), 8);
	events_wait(s[1], POLLIN);
	CHECK_EQ(recvmsg(s[1], &m, 0), 8);
	CHECK_EQ(m.msg_flags, 0);
	CHECK_EQ(m.msg_controllen, 0);
}

TEST(cork_and_more)
{
	char buf[16];

	tcp_pair();
	CHECK_EQ(send(s[0], "one", 3, MSG_MORE), 3);
	CHECK_EQ(send(s[0], "two", 3, 0), 3);
	CHECK_EQ(recv(s[1], buf, 6, MSG_WAITALL), 6);
	CHECK_OK(set_int(s[0], IPPROTO_TCP, TCP_CORK, 1));
	CHECK_EQ(write(s[0], "a", 1), 1);
	CHECK_EQ(write(s[0], "b", 1), 1);
	CHECK_OK(set_int(s[0], IPPROTO_TCP, TCP_CORK, 0));
	CHECK_EQ(recv(s[1], buf, 2, MSG_WAITALL), 2);
}

TEST(zero_bytes)
{
	char x;

	tcp_pair();
	CHECK_EQ(send(s[0], "", 0, 0), 0);
	CHECK_ERRNO(recv(s[1], &x, 1, MSG_DONTWAIT), EAGAIN);
	CHECK_EQ(read(s[1], &x, 0), 0);
}

TEST(bad_buffers)
{
	char x;

	tcp_pair();
	CHECK_ERRNO(write(s[0], (void *)8, 10), EFAULT);
	CHECK_EQ(write(s[0], "x", 1), 1);
	events_wait(s[1], POLLIN);
	CHECK_ERRNO(recv(s[1], (void *)8, 1, 0), EFAULT);
	CHECK_EQ(recv(s[1], &x, 1, 0), 1);
}

TEST(large_transfer)
{
	int total = 0, n;
	pid_t pid;

	tcp_pair();
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i % 251);
	pid = FORK();
	if (!pid) {
		for (int i = 0; i < 8; i++)
			CHECK_EQ(write(s[0], big, sizeof(big)), sizeof(big));
		_exit(0);
	}
	CHECK_OK(close(s[0]));
	while ((n = CHECK_OK(read(s[1], big, 70001))) > 0) {
		for (int i = 0; i < n; i++)
			if (big[i] != (char)((total + i) % (1 << 20) % 251))
				FAIL("byte %d is wrong", total + i);
		total += n;
	}
	CHECK_EQ(total, 8 << 20);
	JOIN(pid);
}

TEST(many_small_writes)
{
	int total = 0, n;

	tcp_pair();
	for (int i = 0; i < 5000; i++)
		CHECK_EQ(write(s[0], "0123456789", 10), 10);
	CHECK_OK(close(s[0]));
	while ((n = CHECK_OK(read(s[1], big, 777))) > 0) {
		for (int i = 0; i < n; i++)
			if (big[i] != '0' + (total + i) % 10)
				FAIL("byte %d is wrong", total + i);
		total += n;
	}
	CHECK_EQ(total, 50000);
}

/* Fills the pair's buffers from s[0]; the bytes. */
static long fill(void)
{
	long total = 0;
	ssize_t n;

	nonblock(s[0]);
	for (int quiet = 0; quiet < 3;) {
		n = write(s[0], big, 65536);
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

TEST(buffers_fill_up)
{
	long total;

	tcp_pair();
	total = fill();
	CHECK(total > 100000);
	CHECK(!(events(s[0]) & POLLOUT));
	for (long n = 0; n < total;)
		n += CHECK_OK(read(s[1], big, sizeof(big)));
	CHECK_EQ(events_wait(s[0], POLLOUT), POLLOUT);
}

TEST(small_buffers)
{
	int l = tcp("127.0.0.1");
	long total;

	CHECK_OK(set_int(l, SOL_SOCKET, SO_RCVBUF, 4096));
	CHECK_OK(bind_to(l, "127.0.0.1", 0));
	CHECK_OK(listen(l, 1));
	s[0] = tcp("127.0.0.1");
	CHECK_OK(set_int(s[0], SOL_SOCKET, SO_SNDBUF, 4096));
	CHECK_OK(connect_to(s[0], "127.0.0.1", port_of(l)));
	s[1] = CHECK_OK(accept(l, NULL, NULL));
	total = fill();
	CHECK(total > 1000 && total < 600000);
}

TEST(blocked_write_goes_on)
{
	long total;
	pid_t pid;

	tcp_pair();
	total = fill();
	pid = FORK();
	if (!pid) {
		CHECK_OK(fcntl(s[0], F_SETFL, 0));
		CHECK_EQ(write(s[0], big, 500000), 500000);
		_exit(0);
	}
	msleep(30);
	for (long n = 0; n < total + 500000;)
		n += CHECK_OK(read(s[1], big, sizeof(big)));
	JOIN(pid);
}

TEST(blocked_write_times_out)
{
	struct timeval tv = { .tv_usec = 50000 };

	tcp_pair();
	fill();
	CHECK_OK(fcntl(s[0], F_SETFL, 0));
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
	CHECK_ERRNO(write(s[0], "x", 1), EAGAIN);
}

/* Buffers may grow while somebody waits. */
static ssize_t write_to_the_end(void)
{
	ssize_t n;

	while ((n = write(s[0], "x", 1)) == 1)
		;
	return n;
}

TEST(blocked_write_meets_a_reset)
{
	pid_t pid;

	tcp_pair();
	fill();
	signal(SIGPIPE, SIG_IGN);
	pid = FORK();
	if (!pid) {
		CHECK_OK(close(s[1]));
		CHECK_OK(fcntl(s[0], F_SETFL, 0));
		CHECK_ERRNO(write_to_the_end(), ECONNRESET);
		_exit(0);
	}
	msleep(50);
	CHECK_OK(close(s[1]));
	JOIN(pid);
}

TEST(read_times_out)
{
	struct timeval tv = { .tv_usec = 50000 };
	char x;

	tcp_pair();
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	CHECK_ERRNO(read(s[0], &x, 1), EAGAIN);
	CHECK_ERRNO(recv(s[0], &x, 1, 0), EAGAIN);
}

TEST(read_is_interrupted)
{
	char x;

	tcp_pair();
	on_signal(SIGALRM, nothing);
	TICK_START();
	CHECK_ERRNO(recv(s[0], &x, 1, 0), EINTR);
	CHECK_ERRNO(read(s[0], &x, 1), EINTR);
	TICK_STOP();
}

TEST(fionread_and_outq)
{
	int n;

	tcp_pair();
	CHECK_EQ(write(s[0], "12345", 5), 5);
	events_wait(s[1], POLLIN);
	CHECK_OK(ioctl(s[1], FIONREAD, &n));
	CHECK_EQ(n, 5);
	CHECK_OK(ioctl(s[0], TIOCOUTQ, &n));
	CHECK_EQ(n, 0);
	fill();
	CHECK_OK(ioctl(s[0], TIOCOUTQ, &n));
	CHECK(n > 0);
	CHECK_ERRNO(ioctl(listener("127.0.0.1"), FIONREAD, &n), EINVAL);
}

static volatile sig_atomic_t urgent;

static void on_urgent(int sig UNUSED)
{
	urgent++;
}

TEST(urgent_byte)
{
	char buf[8];
	int n;

	tcp_pair();
	CHECK_EQ(send(s[0], "abc", 3, 0), 3);
	CHECK_EQ(send(s[0], "D", 1, MSG_OOB), 1);
	CHECK_EQ(send(s[0], "ef", 2, 0), 2);
	CHECK(events_wait(s[1], POLLPRI) & POLLPRI);
	CHECK_OK(ioctl(s[1], SIOCATMARK, &n));
	CHECK_EQ(n, 0);
	CHECK_EQ(read(s[1], buf, 8), 3);
	CHECK_OK(ioctl(s[1], SIOCATMARK, &n));
	CHECK_EQ(n, 1);
	CHECK_EQ(recv(s[1], buf, 8, MSG_OOB), 1);
	CHECK_EQ(buf[0], 'D');
	CHECK_ERRNO(recv(s[1], buf, 8, MSG_OOB), EINVAL);
	CHECK(!(events(s[1]) & POLLPRI));
	EVENTUALLY(recv(s[1], buf, 8, MSG_DONTWAIT) == 2);
	CHECK(!memcmp(buf, "ef", 2));
}

TEST(urgent_byte_inline)
{
	char buf[8];

	tcp_pair();
	CHECK_OK(set_int(s[1], SOL_SOCKET, SO_OOBINLINE, 1));
	CHECK_EQ(send(s[0], "abC", 3, MSG_OOB), 3);
	events_wait(s[1], POLLPRI);
	CHECK_ERRNO(recv(s[1], buf, 8, MSG_OOB), EINVAL);
	CHECK_EQ(read(s[1], buf, 8), 2);
	CHECK_EQ(read(s[1], buf, 8), 1);
	CHECK_EQ(buf[0], 'C');
}

TEST(no_urgent_byte)
{
	char x;

	tcp_pair();
	CHECK_ERRNO(recv(s[1], &x, 1, MSG_OOB), EINVAL);
}

TEST(sigurg)
{
	tcp_pair();
	on_signal(SIGURG, on_urgent);
	CHECK_OK(fcntl(s[1], F_SETOWN, getpid()));
	CHECK_EQ(send(s[0], "!", 1, MSG_OOB), 1);
	EVENTUALLY(urgent == 1);
}

TEST(time_wait_keeps_the_port)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1"), a, port = port_of(l), f;
	char x;

	CHECK_OK(connect_to(c, "127.0.0.1", port));
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_OK(close(a));
	CHECK_EQ(read(c, &x, 1), 0);
	CHECK_OK(close(c));
	CHECK_OK(close(l));
	f = tcp("127.0.0.1");
	CHECK_ERRNO(bind_to(f, "127.0.0.1", port), EADDRINUSE);
	/* The closed ones hadn't the option, so it doesn't help. */
	CHECK_OK(set_int(f, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_ERRNO(bind_to(f, "127.0.0.1", port), EADDRINUSE);
}

TEST(time_wait_and_reuseaddr)
{
	int l = tcp("127.0.0.1"), c = tcp("127.0.0.1"), a, port, f;
	char x;

	CHECK_OK(set_int(l, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_OK(bind_to(l, "127.0.0.1", 0));
	CHECK_OK(listen(l, 1));
	port = port_of(l);
	CHECK_OK(connect_to(c, "127.0.0.1", port));
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_OK(close(a));
	CHECK_EQ(read(c, &x, 1), 0);
	CHECK_OK(close(c));
	CHECK_OK(close(l));
	f = tcp("127.0.0.1");
	CHECK_ERRNO(bind_to(f, "127.0.0.1", port), EADDRINUSE);
	CHECK_OK(set_int(f, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_OK(bind_to(f, "127.0.0.1", port));
	CHECK_OK(listen(f, 1));
	CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port));
}

TEST(who_closes_second_leaves_no_trace)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1"), a, port = port_of(l);
	char x;

	CHECK_OK(connect_to(c, "127.0.0.1", port));
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_OK(close(c));
	CHECK_EQ(read(a, &x, 1), 0);
	CHECK_OK(close(a));
	CHECK_OK(close(l));
	CHECK_OK(bind_to(tcp("127.0.0.1"), "127.0.0.1", port));
}

TEST(connection_keeps_the_port)
{
	int l = listener("127.0.0.1"), c = tcp("127.0.0.1"), a, port = port_of(l);

	CHECK_OK(connect_to(c, "127.0.0.1", port));
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_OK(close(l));
	CHECK_ERRNO(bind_to(tcp("127.0.0.1"), "127.0.0.1", port), EADDRINUSE);
	CHECK_EQ(write(c, "x", 1), 1);
	(void)a;
}

TEST(many_connections)
{
	int l = tcp("127.0.0.1"), c[100], a;
	char x;

	CHECK_OK(bind_to(l, "127.0.0.1", 0));
	CHECK_OK(listen(l, 128));
	for (int i = 0; i < 60; i++) {
		c[i] = tcp("127.0.0.1");
		CHECK_OK(connect_to(c[i], "127.0.0.1", port_of(l)));
		x = (char)i;
		CHECK_EQ(write(c[i], &x, 1), 1);
	}
	for (int i = 0; i < 60; i++) {
		a = CHECK_OK(accept(l, NULL, NULL));
		CHECK_EQ(read(a, &x, 1), 1);
		CHECK_EQ(x, i);
		CHECK_OK(close(a));
	}
}

TEST(a_thousand_connections_one_after_the_other)
{
	int l = listener("127.0.0.1"), c, a;

	for (int i = 0; i < 1000; i++) {
		c = tcp("127.0.0.1");
		CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
		a = CHECK_OK(accept(l, NULL, NULL));
		CHECK_OK(close(c));
		CHECK_OK(close(a));
	}
}

TEST(namespaces_have_ports_of_their_own)
{
	int l = listener("127.0.0.1"), port = port_of(l);

	own_network();
	CHECK_ERRNO(connect_to(tcp("127.0.0.1"), "127.0.0.1", port), ECONNREFUSED);
	CHECK_OK(bind_to(tcp("127.0.0.1"), "127.0.0.1", port));
	/* A socket stays where it was made. */
	CHECK_OK(set_int(l, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK_EQ(port_of(l), port);
}

TEST(new_namespace_is_down)
{
	NEED_ROOT();
	if (unshare(CLONE_NEWNET))
		SKIP("no network namespaces");
	CHECK_ERRNO(connect_to(tcp("127.0.0.1"), "127.0.0.1", 1), ENETUNREACH);
	CHECK_OK(bind_to(tcp("127.0.0.1"), "0.0.0.0", 0));
}

TEST(inherited_over_fork)
{
	int l = listener("127.0.0.1"), a;
	pid_t pid = FORK();
	char x;

	if (!pid) {
		int c = tcp("127.0.0.1");

		CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
		CHECK_EQ(write(c, "x", 1), 1);
		_exit(0);
	}
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_EQ(read(a, &x, 1), 1);
	CHECK_EQ(read(a, &x, 1), 0);
	JOIN(pid);
}

TEST(killed_process_ends_its_connections)
{
	int l = listener("127.0.0.1"), a;
	pid_t pid = FORK();
	char x;

	if (!pid) {
		CHECK_OK(connect_to(tcp("127.0.0.1"), "127.0.0.1", port_of(l)));
		pause();
	}
	a = CHECK_OK(accept(l, NULL, NULL));
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(read(a, &x, 1), 0);
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(bind_address_no_port)
{
	int c = tcp("127.0.0.1"), l = listener("127.0.0.1");

	CHECK_OK(set_int(c, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, 1));
	CHECK_OK(bind_to(c, "127.0.0.3", 0));
	CHECK_EQ(port_of(c), 0);
	CHECK_OK(connect_to(c, "127.0.0.1", port_of(l)));
	CHECK_STR(ip_of(c, false), "127.0.0.3");
	CHECK(port_of(c));
}

TEST(passes_over_unix_sockets)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr h;
	} u;
	struct iovec iov = { "x", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf,
			    .msg_controllen = sizeof(u.buf) };
	int p[2], got;
	char c;

	tcp_pair();
	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	u.h.cmsg_level = SOL_SOCKET;
	u.h.cmsg_type = SCM_RIGHTS;
	u.h.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&u.h), &s[1], sizeof(int));
	CHECK_EQ(sendmsg(p[0], &m, 0), 1);
	CHECK_OK(close(s[1]));
	CHECK_EQ(write(s[0], "y", 1), 1);
	iov.iov_base = &c;
	m.msg_controllen = sizeof(u.buf);
	CHECK_EQ(recvmsg(p[1], &m, 0), 1);
	memcpy(&got, CMSG_DATA(&u.h), sizeof(int));
	CHECK_EQ(read(got, &c, 1), 1);
	CHECK_EQ(c, 'y');
}
