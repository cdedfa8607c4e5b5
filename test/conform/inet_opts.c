/* SPDX-License-Identifier: Apache-2.0 */
/* Options of internet sockets. */
#include <linux/tcp.h>
#define _NETINET_TCP_H 1
#include "test/conform/inet.h"

#define TCP_STATE_ESTABLISHED 1
#define TCP_STATE_CLOSE	      7
#define TCP_STATE_CLOSE_WAIT  8
#define TCP_STATE_LISTEN      10

TEST(what_it_is)
{
	int t = tcp("127.0.0.1"), u = CHECK_OK(socket(AF_INET6, SOCK_DGRAM, 0));

	CHECK_EQ(get_int(t, SOL_SOCKET, SO_DOMAIN), AF_INET);
	CHECK_EQ(get_int(t, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
	CHECK_EQ(get_int(t, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
	CHECK_EQ(get_int(u, SOL_SOCKET, SO_DOMAIN), AF_INET6);
	CHECK_EQ(get_int(u, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
	CHECK_EQ(get_int(u, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDP);
}

TEST(buffers_are_doubled)
{
	int t = tcp("127.0.0.1");

	CHECK_OK(set_int(t, SOL_SOCKET, SO_SNDBUF, 10000));
	CHECK_EQ(get_int(t, SOL_SOCKET, SO_SNDBUF), 20000);
	CHECK_OK(set_int(t, SOL_SOCKET, SO_RCVBUF, 10000));
	CHECK_EQ(get_int(t, SOL_SOCKET, SO_RCVBUF), 20000);
	CHECK_OK(set_int(t, SOL_SOCKET, SO_RCVBUF, 1));
	CHECK_EQ(get_int(t, SOL_SOCKET, SO_RCVBUF), 2304);
	CHECK_OK(set_int(t, SOL_SOCKET, SO_SNDBUF, 1));
	CHECK_EQ(get_int(t, SOL_SOCKET, SO_SNDBUF), 4608);
}

TEST(buffers_at_first)
{
	CHECK_EQ(get_int(tcp("127.0.0.1"), SOL_SOCKET, SO_SNDBUF), 16384);
	CHECK_EQ(get_int(tcp("127.0.0.1"), SOL_SOCKET, SO_RCVBUF), 131072);
	CHECK_EQ(get_int(udp("127.0.0.1"), SOL_SOCKET, SO_RCVBUF), 212992);
	tcp_pair();
	CHECK(get_int(s[0], SOL_SOCKET, SO_SNDBUF) > 100000);
}

TEST(flags)
{
	static const int names[] = { SO_REUSEADDR, SO_REUSEPORT, SO_KEEPALIVE, SO_BROADCAST,
				     SO_OOBINLINE, SO_TIMESTAMP };
	int t = tcp("127.0.0.1");

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CHECK_EQ(get_int(t, SOL_SOCKET, names[i]), 0);
		CHECK_OK(set_int(t, SOL_SOCKET, names[i], 7));
		CHECK_EQ(get_int(t, SOL_SOCKET, names[i]), 1);
		CHECK_OK(set_int(t, SOL_SOCKET, names[i], 0));
		CHECK_EQ(get_int(t, SOL_SOCKET, names[i]), 0);
	}
}

TEST(wrong_levels_and_names)
{
	int t = tcp("127.0.0.1"), u = udp("127.0.0.1"), v = 1;
	socklen_t len = sizeof(v);

	CHECK_ERRNO(set_int(t, SOL_SOCKET, 9999, 1), ENOPROTOOPT);
	CHECK_ERRNO(set_int(t, IPPROTO_TCP, 9999, 1), ENOPROTOOPT);
	CHECK_ERRNO(set_int(t, IPPROTO_IP, 9999, 1), ENOPROTOOPT);
	CHECK_ERRNO(set_int(t, 9999, 1, 1), ENOPROTOOPT);
	CHECK_ERRNO(set_int(u, IPPROTO_TCP, TCP_NODELAY, 1), ENOPROTOOPT);
	CHECK_ERRNO(set_int(t, IPPROTO_IPV6, IPV6_V6ONLY, 1), ENOPROTOOPT);
	CHECK_ERRNO(getsockopt(t, IPPROTO_TCP, 9999, &v, &len), ENOPROTOOPT);
	len = -1;
	CHECK_ERRNO(getsockopt(t, IPPROTO_TCP, TCP_NODELAY, &v, &len), EINVAL);
	CHECK_ERRNO(setsockopt(t, IPPROTO_TCP, TCP_NODELAY, &v, 2), EINVAL);
	CHECK_ERRNO(setsockopt(t, IPPROTO_TCP, TCP_NODELAY, (void *)8, 4), EFAULT);
}

TEST(tcp_flags)
{
	static const int names[] = { TCP_NODELAY, TCP_CORK, TCP_QUICKACK };
	int t = tcp("127.0.0.1");

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CHECK_OK(set_int(t, IPPROTO_TCP, names[i], 1));
		CHECK_EQ(get_int(t, IPPROTO_TCP, names[i]), 1);
	}
	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_NODELAY, 0));
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_NODELAY), 0);
}

TEST(tcp_keepalive)
{
	int t = tcp("127.0.0.1");

	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_KEEPIDLE), 7200);
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_KEEPINTVL), 75);
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_KEEPCNT), 9);
	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_KEEPIDLE, 10));
	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_KEEPINTVL, 3));
	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_KEEPCNT, 2));
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_KEEPIDLE), 10);
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_KEEPINTVL), 3);
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_KEEPCNT), 2);
	CHECK_ERRNO(set_int(t, IPPROTO_TCP, TCP_KEEPIDLE, 0), EINVAL);
	CHECK_ERRNO(set_int(t, IPPROTO_TCP, TCP_KEEPCNT, 128), EINVAL);
	CHECK_ERRNO(set_int(t, IPPROTO_TCP, TCP_KEEPINTVL, 40000), EINVAL);
}

TEST(tcp_numbers)
{
	int t = tcp("127.0.0.1");

	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_USER_TIMEOUT, 12345));
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_USER_TIMEOUT), 12345);
	CHECK_ERRNO(set_int(t, IPPROTO_TCP, TCP_USER_TIMEOUT, -1), EINVAL);
	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_SYNCNT, 3));
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_SYNCNT), 3);
	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1));
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_DEFER_ACCEPT), 1);
	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_DEFER_ACCEPT, 2));
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_DEFER_ACCEPT), 3);
	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_LINGER2, 30));
	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_LINGER2), 30);
}

TEST(tcp_maxseg)
{
	int t = tcp("127.0.0.1");

	CHECK_EQ(get_int(t, IPPROTO_TCP, TCP_MAXSEG), 536);
	CHECK_ERRNO(set_int(t, IPPROTO_TCP, TCP_MAXSEG, 10), EINVAL);
	CHECK_OK(set_int(t, IPPROTO_TCP, TCP_MAXSEG, 1000));
	tcp_pair();
	CHECK(get_int(s[0], IPPROTO_TCP, TCP_MAXSEG) > 1400);
}

TEST(tcp_congestion)
{
	int t = tcp("127.0.0.1");
	char name[16] = "";
	socklen_t len = sizeof(name);

	CHECK_OK(setsockopt(t, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	CHECK_OK(getsockopt(t, IPPROTO_TCP, TCP_CONGESTION, name, &len));
	CHECK_STR(name, "reno");
	CHECK_EQ(len, 16);
	CHECK_ERRNO(setsockopt(t, IPPROTO_TCP, TCP_CONGESTION, "nonesuch", 8), ENOENT);
}

static int state(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	memset(&info, 0xee, sizeof(info));
	CHECK_OK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
	CHECK(len >= 104);
	return info.tcpi_state;
}

TEST(tcp_info_state)
{
	CHECK_EQ(state(tcp("127.0.0.1")), TCP_STATE_CLOSE);
	CHECK_EQ(state(listener("127.0.0.1")), TCP_STATE_LISTEN);
	tcp_pair();
	CHECK_EQ(state(s[0]), TCP_STATE_ESTABLISHED);
	CHECK_OK(shutdown(s[1], SHUT_WR));
	EVENTUALLY(state(s[0]) == TCP_STATE_CLOSE_WAIT);
	CHECK_OK(close(s[1]));
	CHECK_OK(shutdown(s[0], SHUT_WR));
	EVENTUALLY(state(s[0]) == TCP_STATE_CLOSE);
}

TEST(tcp_info_bytes)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	char buf[100];

	tcp_pair();
	CHECK_EQ(write(s[0], buf, 100), 100);
	CHECK_EQ(recv(s[1], buf, 100, MSG_WAITALL), 100);
	CHECK_OK(getsockopt(s[1], IPPROTO_TCP, TCP_INFO, &info, &len));
	CHECK_EQ(info.tcpi_bytes_received, 100);
	CHECK(info.tcpi_snd_mss > 1000);
	CHECK(info.tcpi_rtt < 1000000);
}

TEST(tcp_info_short)
{
	struct tcp_info info;
	socklen_t len = 1;

	tcp_pair();
	memset(&info, 0xee, sizeof(info));
	CHECK_OK(getsockopt(s[0], IPPROTO_TCP, TCP_INFO, &info, &len));
	CHECK_EQ(len, 1);
	CHECK_EQ(info.tcpi_state, TCP_STATE_ESTABLISHED);
	CHECK_EQ(info.tcpi_ca_state, 0xee);
}

TEST(ip_tos_and_ttl)
{
	int t = tcp("127.0.0.1"), u = udp("127.0.0.1");
	unsigned char byte;
	socklen_t len = 1;

	CHECK_EQ(get_int(t, IPPROTO_IP, IP_TTL), 64);
	CHECK_OK(set_int(t, IPPROTO_IP, IP_TTL, 10));
	CHECK_EQ(get_int(t, IPPROTO_IP, IP_TTL), 10);
	CHECK_OK(set_int(t, IPPROTO_IP, IP_TTL, -1));
	CHECK_EQ(get_int(t, IPPROTO_IP, IP_TTL), 64);
	CHECK_ERRNO(set_int(t, IPPROTO_IP, IP_TTL, 0), EINVAL);
	CHECK_ERRNO(set_int(t, IPPROTO_IP, IP_TTL, 256), EINVAL);
	CHECK_OK(set_int(t, IPPROTO_IP, IP_TOS, 0x13));
	CHECK_EQ(get_int(t, IPPROTO_IP, IP_TOS), 0x10);
	CHECK_OK(set_int(u, IPPROTO_IP, IP_TOS, 0x12));
	CHECK_EQ(get_int(u, IPPROTO_IP, IP_TOS), 0x12);
	byte = 0x20;
	CHECK_OK(setsockopt(u, IPPROTO_IP, IP_TOS, &byte, 1));
	CHECK_OK(getsockopt(u, IPPROTO_IP, IP_TOS, &byte, &len));
	CHECK_EQ(byte, 0x20);
	CHECK_EQ(len, 1);
}

TEST(ip_flags)
{
	static const int names[] = { IP_RECVERR, IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_FREEBIND };
	int u = udp("127.0.0.1");

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CHECK_EQ(get_int(u, IPPROTO_IP, names[i]), 0);
		CHECK_OK(set_int(u, IPPROTO_IP, names[i], 1));
		CHECK_EQ(get_int(u, IPPROTO_IP, names[i]), 1);
	}
	CHECK_EQ(get_int(u, IPPROTO_IP, IP_MULTICAST_LOOP), 1);
	CHECK_EQ(get_int(u, IPPROTO_IP, IP_MULTICAST_TTL), 1);
	CHECK_OK(set_int(u, IPPROTO_IP, IP_MULTICAST_TTL, 5));
	CHECK_EQ(get_int(u, IPPROTO_IP, IP_MULTICAST_TTL), 5);
	CHECK_ERRNO(set_int(u, IPPROTO_IP, IP_MULTICAST_TTL, 256), EINVAL);
}

TEST(ip_freebind)
{
	int t = tcp("127.0.0.1");

	CHECK_OK(set_int(t, IPPROTO_IP, IP_FREEBIND, 1));
	CHECK_OK(bind_to(t, "192.0.2.77", 0));
	CHECK_STR(ip_of(t, false), "192.0.2.77");
}

TEST(ip_mtu)
{
	int u = udp("127.0.0.1"), v;
	socklen_t len = sizeof(v);

	CHECK_ERRNO(getsockopt(u, IPPROTO_IP, IP_MTU, &v, &len), ENOTCONN);
	CHECK_OK(connect_to(u, "127.0.0.1", 9));
	CHECK_EQ(get_int(u, IPPROTO_IP, IP_MTU), 65535);
}

TEST(ipv6_numbers)
{
	int u = CHECK_OK(socket(AF_INET6, SOCK_DGRAM, 0));

	CHECK_EQ(get_int(u, IPPROTO_IPV6, IPV6_V6ONLY), 0);
	CHECK_OK(set_int(u, IPPROTO_IPV6, IPV6_V6ONLY, 1));
	CHECK_EQ(get_int(u, IPPROTO_IPV6, IPV6_V6ONLY), 1);
	CHECK_EQ(get_int(u, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 64);
	CHECK_OK(set_int(u, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 5));
	CHECK_EQ(get_int(u, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 5);
	CHECK_ERRNO(set_int(u, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 256), EINVAL);
	CHECK_EQ(get_int(u, IPPROTO_IPV6, IPV6_MULTICAST_HOPS), 1);
	CHECK_EQ(get_int(u, IPPROTO_IPV6, IPV6_MULTICAST_LOOP), 1);
	CHECK_OK(set_int(u, IPPROTO_IPV6, IPV6_TCLASS, 0x40));
	CHECK_EQ(get_int(u, IPPROTO_IPV6, IPV6_TCLASS), 0x40);
	CHECK_ERRNO(set_int(u, IPPROTO_IPV6, IPV6_TCLASS, 300), EINVAL);
	CHECK_OK(set_int(u, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
	CHECK_EQ(get_int(u, IPPROTO_IPV6, IPV6_RECVPKTINFO), 1);
	/* The options of IPv4 are there, too. */
	CHECK_OK(set_int(u, IPPROTO_IP, IP_TTL, 9));
	CHECK_EQ(get_int(u, IPPROTO_IP, IP_TTL), 9);
}

TEST(bind_to_device)
{
	int t = tcp("127.0.0.1");
	char name[IFNAMSIZ] = "?";
	socklen_t len = sizeof(name);

	CHECK_OK(getsockopt(t, SOL_SOCKET, SO_BINDTODEVICE, name, &len));
	CHECK_EQ(len, 0);
	CHECK_OK(setsockopt(t, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	len = sizeof(name);
	CHECK_OK(getsockopt(t, SOL_SOCKET, SO_BINDTODEVICE, name, &len));
	CHECK_EQ(len, 3);
	CHECK_STR(name, "lo");
	CHECK_ERRNO(setsockopt(t, SOL_SOCKET, SO_BINDTODEVICE, "nonesuch0", 10), ENODEV);
}

TEST(error_and_acceptconn_are_read_only)
{
	int t = tcp("127.0.0.1");

	CHECK_ERRNO(set_int(t, SOL_SOCKET, SO_ERROR, 1), ENOPROTOOPT);
	CHECK_ERRNO(set_int(t, SOL_SOCKET, SO_ACCEPTCONN, 1), ENOPROTOOPT);
	CHECK_ERRNO(set_int(t, SOL_SOCKET, SO_TYPE, 1), ENOPROTOOPT);
}

TEST(timeouts)
{
	int t = tcp("127.0.0.1");
	struct timeval tv = { 1, 500000 };
	socklen_t len = sizeof(tv);

	CHECK_OK(setsockopt(t, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	memset(&tv, 0, sizeof(tv));
	CHECK_OK(getsockopt(t, SOL_SOCKET, SO_RCVTIMEO, &tv, &len));
	CHECK_EQ(tv.tv_sec, 1);
	CHECK(tv.tv_usec >= 500000);
	tv.tv_usec = 1000000;
	CHECK_ERRNO(setsockopt(t, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), EDOM);
	CHECK_ERRNO(setsockopt(t, SOL_SOCKET, SO_RCVTIMEO, &tv, 4), EINVAL);
}

TEST(peercred_of_a_connection)
{
	struct ucred uc;
	socklen_t len = sizeof(uc);

	tcp_pair();
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &uc, &len));
	CHECK_EQ(uc.pid, 0);
	CHECK_EQ(uc.uid, (uid_t)-1);
}

TEST(forced_buffers_need_a_capability)
{
	int t = tcp("127.0.0.1");

	NEED_ROOT();
	CHECK_OK(set_int(t, SOL_SOCKET, SO_RCVBUFFORCE, 5000000));
	CHECK_EQ(get_int(t, SOL_SOCKET, SO_RCVBUF), 10000000);
	BECOME_NOBODY();
	CHECK_ERRNO(set_int(t, SOL_SOCKET, SO_RCVBUFFORCE, 5000000), EPERM);
	CHECK_ERRNO(set_int(t, SOL_SOCKET, SO_MARK, 1), EPERM);
}
