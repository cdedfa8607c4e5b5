/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages of datagrams, ip(7), ipv6(7): in as parameters, out as options ask for them. */
#include <asm/socket.h>
#include <string.h>
#include <time.h>
/* Needs struct timespec. */
#include <linux/errqueue.h>

#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"
#include "sentry/syscalls.h"

static int parse_int(struct task *t, uaddr_t data, size_t len, int *value, bool byte_ok)
{
	uint8_t byte;

	if (len == sizeof(*value))
		return copy_in(t, value, data, sizeof(*value));
	if (!byte_ok || len != 1)
		return -EINVAL;
	if (copy_in(t, &byte, data, 1))
		return -EFAULT;
	*value = byte;
	return 0;
}

static int parse_pktinfo(struct task *t, struct sock_ipinfo *ip, uaddr_t data, size_t len)
{
	struct in_pktinfo pi;

	if (len != sizeof(pi))
		return -EINVAL;
	if (copy_in(t, &pi, data, sizeof(pi)))
		return -EFAULT;
	ip->have_addr = true;
	ip->ifindex = pi.ipi_ifindex;
	ip->addr = inet_any4;
	memcpy(ip->addr.s6_addr + 12, &pi.ipi_spec_dst, 4);
	return 0;
}

static int parse_pktinfo6(struct task *t, struct sock_ipinfo *ip, uaddr_t data, size_t len)
{
	struct in6_pktinfo pi;

	if (len < sizeof(pi))
		return -EINVAL;
	if (copy_in(t, &pi, data, sizeof(pi)))
		return -EFAULT;
	ip->have_addr = true;
	ip->ifindex = (int)pi.ipi6_ifindex;
	ip->addr = pi.ipi6_addr;
	return 0;
}

int inet_parse_cmsg(struct task *t, struct sock *sk, struct sock_msg *msg, int level, int type,
		    uaddr_t data, size_t len)
{
	struct sock_ipinfo *ip = &msg->ip;
	int err = -EINVAL;

	if (level != IPPROTO_IP && !(level == IPPROTO_IPV6 && sk->family == AF_INET6))
		return 0;
	if (sk->type == SOCK_STREAM)
		return 0;
	if (level == IPPROTO_IP && type == IP_PKTINFO)
		return parse_pktinfo(t, ip, data, len);
	if (level == IPPROTO_IPV6 && type == IPV6_PKTINFO)
		return parse_pktinfo6(t, ip, data, len);
	if ((level == IPPROTO_IP && type == IP_TTL) ||
	    (level == IPPROTO_IPV6 && type == IPV6_HOPLIMIT)) {
		err = parse_int(t, data, len, &ip->ttl, false);
		if (!err && (ip->ttl < (level == IPPROTO_IP ? 1 : -1) || ip->ttl > 255))
			err = -EINVAL;
		ip->have_ttl = !err && ip->ttl >= 0;
	} else if ((level == IPPROTO_IP && type == IP_TOS) ||
		   (level == IPPROTO_IPV6 && type == IPV6_TCLASS)) {
		err = parse_int(t, data, len, &ip->tos, level == IPPROTO_IP);
		if (!err && (ip->tos < -1 || ip->tos > 255))
			err = -EINVAL;
		ip->have_tos = !err && ip->tos >= 0;
	}
	return err;
}

static void put_error(struct task *t, struct sock *sk, struct sock_ipinfo *ip,
		      struct control_out *c)
{
	bool v4 = inet_is4(&ip->offender);
	struct {
		struct sock_extended_err ee;
		union {
			struct sockaddr_in sin;
			struct sockaddr_in6 sin6;
		} from;
	} m;

	memset(&m, 0, sizeof(m));
	m.ee.ee_errno = (uint32_t)ip->err;
	m.ee.ee_origin = v4 ? SO_EE_ORIGIN_ICMP : SO_EE_ORIGIN_ICMP6;
	m.ee.ee_type = v4 ? 3 : 1; /* destination unreachable */
	m.ee.ee_code = v4 ? 3 : 4; /* port */
	if (sk->family == AF_INET) {
		m.from.sin.sin_family = AF_INET;
		memcpy(&m.from.sin.sin_addr, ip->offender.s6_addr + 12, 4);
	} else {
		m.from.sin6.sin6_family = AF_INET6;
		m.from.sin6.sin6_addr = ip->offender;
	}
	if (sk->family == AF_INET)
		control_put(t, c, IPPROTO_IP, IP_RECVERR, &m, sizeof(m.ee) + sizeof(m.from.sin));
	else
		control_put(t, c, IPPROTO_IPV6, IPV6_RECVERR, &m, sizeof(m));
}

static void put_ip(struct task *t, struct inet_sock *is, struct sock_ipinfo *ip,
		   struct control_out *c)
{
	struct in_pktinfo pi = {.ipi_ifindex = ip->ifindex};
	uint8_t tos = (uint8_t)ip->tos;

	memcpy(&pi.ipi_addr, ip->addr.s6_addr + 12, 4);
	memcpy(&pi.ipi_spec_dst, ip->addr.s6_addr + 12, 4);
	if (is->pktinfo)
		control_put(t, c, IPPROTO_IP, IP_PKTINFO, &pi, sizeof(pi));
	if (is->recvttl)
		control_put(t, c, IPPROTO_IP, IP_TTL, &ip->ttl, sizeof(ip->ttl));
	if (is->recvtos)
		control_put(t, c, IPPROTO_IP, IP_TOS, &tos, sizeof(tos));
	if (is->recvdst) {
		struct sockaddr_in sin = {.sin_family = AF_INET,
					  .sin_port = htons(is->local.port),
					  .sin_addr = pi.ipi_addr};

		control_put(t, c, IPPROTO_IP, IP_ORIGDSTADDR, &sin, sizeof(sin));
	}
}

static void put_ip6(struct task *t, struct inet_sock *is, struct sock_ipinfo *ip,
		    struct control_out *c)
{
	struct in6_pktinfo pi = {.ipi6_addr = ip->addr, .ipi6_ifindex = (unsigned int)ip->ifindex};

	if (is->pktinfo6)
		control_put(t, c, IPPROTO_IPV6, IPV6_PKTINFO, &pi, sizeof(pi));
	if (is->recvhops)
		control_put(t, c, IPPROTO_IPV6, IPV6_HOPLIMIT, &ip->ttl, sizeof(ip->ttl));
	if (is->recvtclass)
		control_put(t, c, IPPROTO_IPV6, IPV6_TCLASS, &ip->tos, sizeof(ip->tos));
}

void inet_put_cmsgs(struct task *t, struct sock *sk, struct sock_msg *msg, struct control_out *c)
{
	struct inet_sock *is = inet_of(sk);
	struct sock_ipinfo *ip = &msg->ip;

	if (ip->err) {
		put_error(t, sk, ip, c);
		return;
	}
	if (ip->have_stamp && is->timestampns) {
		control_put(t, c, SOL_SOCKET, SO_TIMESTAMPNS, &ip->stamp, sizeof(ip->stamp));
	} else if (ip->have_stamp && sk->timestamp) {
		struct timeval tv = {.tv_sec = ip->stamp.tv_sec,
				     .tv_usec = ip->stamp.tv_nsec / 1000};

		control_put(t, c, SOL_SOCKET, SO_TIMESTAMP, &tv, sizeof(tv));
	}
	if (ip->have_addr && is->rxq_ovfl && ip->drops)
		control_put(t, c, SOL_SOCKET, SO_RXQ_OVFL, &ip->drops, sizeof(ip->drops));
	if (!ip->have_addr)
		return;
	if (inet_is4(&ip->addr))
		put_ip(t, is, ip, c);
	if (sk->family == AF_INET6)
		put_ip6(t, is, ip, c);
}
