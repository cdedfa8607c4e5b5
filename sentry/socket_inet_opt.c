/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of internet sockets, ip(7), ipv6(7), tcp(7), udp(7). Most are an integer or a flag of the
 * socket: a row in the table. What steers a protocol that isn't there (TCP_QUICKACK,
 * IP_MTU_DISCOVER, …) is kept and told.
 */
#include <asm/socket.h>
#include <limits.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
/* linux/tcp.h has what netinet/tcp.h hasn't; of the two only one can be. */
#define _NETINET_TCP_H 1
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING
};
#include "sentry/socket_inet_int.h"
#include "sentry/syscalls.h"

#define UDPLITE_SEND_CSCOV 10
#define UDPLITE_RECV_CSCOV 11

#ifndef IP_MULTICAST_ALL
#define IP_MULTICAST_ALL 49
#endif
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum kind { FLAG, NUM };
enum proto { ANY, TCP, UDP };

struct option_row {
	int level, name;
	enum kind kind;
	enum proto proto;
	size_t offset;
	int min, max; /* of NUM */
};

#define I(field) offsetof(struct inet_sock, field)
#define T(field) offsetof(struct tcp_sock, field)
#define U(field) offsetof(struct udp_sock, field)

static const struct option_row rows[] = {
	{IPPROTO_IP, IP_RECVTTL, FLAG, ANY, I(recvttl), 0, 0},
	{IPPROTO_IP, IP_RECVTOS, FLAG, ANY, I(recvtos), 0, 0},
	{IPPROTO_IP, IP_PKTINFO, FLAG, ANY, I(pktinfo), 0, 0},
	{IPPROTO_IP, IP_RECVERR, FLAG, ANY, I(recverr), 0, 0},
	{IPPROTO_IP, IP_RECVORIGDSTADDR, FLAG, ANY, I(recvdst), 0, 0},
	{IPPROTO_IP, IP_FREEBIND, FLAG, ANY, I(freebind), 0, 0},
	{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, FLAG, ANY, I(no_port), 0, 0},
	{IPPROTO_IP, IP_MULTICAST_LOOP, FLAG, ANY, I(mcast_loop), 0, 0},
	{IPPROTO_IP, IP_MULTICAST_ALL, FLAG, ANY, I(mcast_all), 0, 0},
	{IPPROTO_IP, IP_MTU_DISCOVER, NUM, ANY, I(mtu_discover), 0, 5},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO, FLAG, ANY, I(pktinfo6), 0, 0},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, FLAG, ANY, I(recvhops), 0, 0},
	{IPPROTO_IPV6, IPV6_RECVTCLASS, FLAG, ANY, I(recvtclass), 0, 0},
	{IPPROTO_IPV6, IPV6_RECVERR, FLAG, ANY, I(recverr6), 0, 0},
	{IPPROTO_IPV6, IPV6_MULTICAST_LOOP, FLAG, ANY, I(mcast_loop6), 0, 0},
	{IPPROTO_IPV6, IPV6_MULTICAST_ALL, FLAG, ANY, I(mcast_all6), 0, 0},
	{IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, FLAG, ANY, I(autoflowlabel), 0, 0},
	{IPPROTO_IPV6, IPV6_FREEBIND, FLAG, ANY, I(freebind), 0, 0},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER, NUM, ANY, I(mtu_discover6), 0, 5},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS, NUM, ANY, I(hops), -1, 255},
	{IPPROTO_IPV6, IPV6_TCLASS, NUM, ANY, I(tclass), -1, 255},
	{IPPROTO_IPV6, IPV6_MULTICAST_HOPS, NUM, UDP, I(mcast_hops), -1, 255},
	{IPPROTO_IPV6, IPV6_MULTICAST_IF, NUM, UDP, I(mcast_if6), 0, INET_LO},
	{IPPROTO_TCP, TCP_NODELAY, FLAG, TCP, T(nodelay), 0, 0},
	{IPPROTO_TCP, TCP_CORK, FLAG, TCP, T(cork), 0, 0},
	{IPPROTO_TCP, TCP_QUICKACK, FLAG, TCP, T(quickack), 0, 0},
	{IPPROTO_TCP, TCP_KEEPIDLE, NUM, TCP, T(keepidle), 1, 32767},
	{IPPROTO_TCP, TCP_KEEPINTVL, NUM, TCP, T(keepintvl), 1, 32767},
	{IPPROTO_TCP, TCP_KEEPCNT, NUM, TCP, T(keepcnt), 1, 127},
	{IPPROTO_TCP, TCP_SYNCNT, NUM, TCP, T(syncnt), 1, 127},
	{IPPROTO_TCP, TCP_LINGER2, NUM, TCP, T(linger2), INT_MIN, INT_MAX},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, NUM, TCP, T(user_timeout), 0, INT_MAX},
	{IPPROTO_TCP, TCP_NOTSENT_LOWAT, NUM, TCP, T(notsent_lowat), INT_MIN, INT_MAX},
	{IPPROTO_TCP, TCP_WINDOW_CLAMP, NUM, TCP, T(window_clamp), 0, INT_MAX},
	{IPPROTO_TCP, TCP_FASTOPEN, NUM, TCP, T(fastopen), 0, INT_MAX},
	{IPPROTO_UDPLITE, UDPLITE_SEND_CSCOV, NUM, UDP, U(send_cover), 0, 65535},
	{IPPROTO_UDPLITE, UDPLITE_RECV_CSCOV, NUM, UDP, U(recv_cover), 0, 65535},
	{SOL_SOCKET, SO_TIMESTAMPNS, FLAG, ANY, I(timestampns), 0, 0},
	{SOL_SOCKET, SO_RXQ_OVFL, FLAG, ANY, I(rxq_ovfl), 0, 0},
	{SOL_SOCKET, SO_INCOMING_CPU, NUM, ANY, I(incoming_cpu), INT_MIN, INT_MAX},
};

static bool is_tcp(const struct sock *sk)
{
	return sk->type == SOCK_STREAM;
}

static const struct option_row *row_find(const struct sock *sk, int level, int name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct option_row *r = &rows[i];

		if (r->level != level || r->name != name)
			continue;
		return r->proto == ANY || (r->proto == TCP) == is_tcp(sk) ? r : NULL;
	}
	return NULL;
}

static void *row_field(struct sock *sk, const struct option_row *r)
{
	/* The protocols' sockets begin with the common part. */
	return (char *)inet_of(sk) + r->offset;
}

/* The levels a socket has. */
static bool has_level(const struct sock *sk, int level)
{
	switch (level) {
	case SOL_SOCKET:
	case IPPROTO_IP:
		return true;
	case IPPROTO_IPV6:
		return sk->family == AF_INET6;
	case IPPROTO_TCP:
		return is_tcp(sk);
	case IPPROTO_UDP:
		return !is_tcp(sk);
	case IPPROTO_UDPLITE:
		return sk->protocol == IPPROTO_UDPLITE;
	}
	return false;
}

/* ---- setting ---- */

/* An integer, or, at level IP, a byte. 0 or -errno. */
static int get_value(struct task *t, int level, uaddr_t val, int len, int *value)
{
	uint8_t byte = 0;

	if (len >= (int)sizeof(*value))
		return copy_in(t, value, val, sizeof(*value));
	if (level != IPPROTO_IP)
		return -EINVAL;
	if (len && copy_in(t, &byte, val, 1))
		return -EFAULT;
	*value = byte;
	return 0;
}

static int set_row(struct sock *sk, const struct option_row *r, int value)
{
	if (r->kind == NUM && (value < r->min || value > r->max))
		return r->name == IPV6_MULTICAST_IF && r->level == IPPROTO_IPV6 ? -ENODEV : -EINVAL;
	/* All of it, or at least the header. */
	if (r->level == IPPROTO_UDPLITE && value && value < 8)
		value = 8;
	mutex_lock(&sk->lock);
	if (r->kind == FLAG)
		*(bool *)row_field(sk, r) = value;
	else
		*(int *)row_field(sk, r) = value;
	mutex_unlock(&sk->lock);
	return 0;
}

/* struct in_addr, ip_mreq or ip_mreqn, as far as it goes. */
static int get_mreq(struct task *t, uaddr_t val, int len, bool in_addr_ok, struct ip_mreqn *m)
{
	memset(m, 0, sizeof(*m));
	if (len >= (int)sizeof(*m))
		return copy_in(t, m, val, sizeof(*m));
	if (len >= (int)sizeof(struct ip_mreq))
		return copy_in(t, m, val, sizeof(struct ip_mreq));
	if (in_addr_ok && len >= (int)sizeof(struct in_addr))
		return copy_in(t, &m->imr_address, val, sizeof(struct in_addr));
	return -EINVAL;
}

/* The interface that @m names, 0: none. -ENODEV, -EADDRNOTAVAIL. */
static int mreq_device(const struct ip_mreqn *m)
{
	struct inet_addr a = {.ip = inet_any4};

	if (m->imr_ifindex)
		return m->imr_ifindex == INET_LO ? INET_LO : -ENODEV;
	if (!m->imr_address.s_addr)
		return 0;
	memcpy(a.ip.s6_addr + 12, &m->imr_address, 4);
	return inet_is_loopback(&a.ip) ? INET_LO : -EADDRNOTAVAIL;
}

static int mcast_change(struct inet_sock *is, const struct in6_addr *group, bool join)
{
	struct inet_mcast *m, *found = NULL, *fresh = NULL;
	int err = 0;

	if (join) {
		fresh = kzalloc(sizeof(*fresh));
		if (!fresh)
			return -ENOMEM;
		list_init(&fresh->node);
		fresh->group = *group;
	}
	mutex_lock(&is->net->lock);
	list_for_each_entry (m, &is->mcast, node)
		if (!memcmp(&m->group, group, sizeof(*group)))
			found = m;
	if (join && found) {
		err = -EADDRINUSE;
	} else if (join) {
		list_add_tail(&fresh->node, &is->mcast);
		fresh = NULL;
	} else if (found) {
		list_del(&found->node);
	} else {
		err = -EADDRNOTAVAIL;
	}
	mutex_unlock(&is->net->lock);
	kfree(fresh);
	if (!join)
		kfree(found);
	return err;
}

static long set_membership(struct task *t, struct sock *sk, bool join, uaddr_t val, int len)
{
	struct in6_addr group = inet_any4;
	struct ip_mreqn m;
	int err, dev;

	if (is_tcp(sk))
		return -EPROTO;
	err = get_mreq(t, val, len, false, &m);
	if (err)
		return err;
	memcpy(group.s6_addr + 12, &m.imr_multiaddr, 4);
	if (!inet_is_multicast(&group))
		return -EINVAL;
	dev = mreq_device(&m);
	/* There is no route to a group that would choose an interface. */
	if (dev <= 0 && join)
		return -ENODEV;
	return mcast_change(inet_of(sk), &group, join);
}

static long set_membership6(struct task *t, struct sock *sk, bool join, uaddr_t val, int len)
{
	struct ipv6_mreq m;

	if (len < (int)sizeof(m))
		return -EINVAL;
	if (is_tcp(sk))
		return -EPROTO;
	if (copy_in(t, &m, val, sizeof(m)))
		return -EFAULT;
	if (inet_is4(&m.ipv6mr_multiaddr) || !inet_is_multicast(&m.ipv6mr_multiaddr))
		return -EINVAL;
	if (join && m.ipv6mr_interface != INET_LO)
		return -ENODEV;
	return mcast_change(inet_of(sk), &m.ipv6mr_multiaddr, join);
}

static long set_mcast_if(struct task *t, struct sock *sk, uaddr_t val, int len)
{
	struct ip_mreqn m;
	int err, dev;

	if (is_tcp(sk))
		return -EINVAL;
	err = get_mreq(t, val, len, true, &m);
	if (err)
		return err;
	dev = mreq_device(&m);
	if (dev < 0)
		return -EADDRNOTAVAIL;
	inet_of(sk)->mcast_if = dev;
	return 0;
}

static long set_ip(struct task *t, struct sock *sk, int name, uaddr_t val, int len)
{
	struct inet_sock *is = inet_of(sk);
	int value, err;

	switch (name) {
	case IP_ADD_MEMBERSHIP:
	case IP_DROP_MEMBERSHIP:
		return set_membership(t, sk, name == IP_ADD_MEMBERSHIP, val, len);
	case IP_MULTICAST_IF:
		return set_mcast_if(t, sk, val, len);
	}
	err = get_value(t, IPPROTO_IP, val, len, &value);
	if (err)
		return err;
	switch (name) {
	case IP_TOS:
		/* TCP has the bits of ECN for itself. */
		is->tos = is_tcp(sk) ? (value & 0xfc) | (is->tos & 3) : value & 0xff;
		return 0;
	case IP_TTL:
		if (!len || (value != -1 && (value < 1 || value > 255)))
			return -EINVAL;
		is->ttl = value;
		return 0;
	case IP_MULTICAST_TTL:
		if (is_tcp(sk) || !len || value < -1 || value > 255)
			return -EINVAL;
		is->mcast_ttl = value < 0 ? 1 : value;
		return 0;
	case IP_TRANSPARENT:
		if (value && !task_capable(t, CAP_NET_ADMIN) && !task_capable(t, CAP_NET_RAW))
			return -EPERM;
		is->transparent = value;
		return 0;
	case IP_RECVOPTS:
	case IP_RETOPTS:
		return 0;
	}
	return -ENOPROTOOPT;
}

static long set_ip6(struct task *t, struct sock *sk, int name, uaddr_t val, int len)
{
	struct inet_sock *is = inet_of(sk);
	int value, err = 0;

	if (name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP)
		return set_membership6(t, sk, name == IPV6_JOIN_GROUP, val, len);
	if (name != IPV6_V6ONLY && name != IPV6_TRANSPARENT && name != IPV6_DONTFRAG &&
	    name != IPV6_UNICAST_IF)
		return -ENOPROTOOPT;
	err = get_value(t, IPPROTO_IPV6, val, len, &value);
	if (err)
		return err;
	if (name == IPV6_TRANSPARENT && value && !task_capable(t, CAP_NET_ADMIN) &&
	    !task_capable(t, CAP_NET_RAW))
		return -EPERM;
	mutex_lock(&sk->lock);
	if (name == IPV6_V6ONLY) {
		if (is->hashed)
			err = -EINVAL;
		else
			is->v6only = value;
	} else if (name == IPV6_TRANSPARENT) {
		is->transparent = value;
	} else if (name == IPV6_DONTFRAG) {
		is->nodefrag = value;
	}
	mutex_unlock(&sk->lock);
	return err;
}

/* Seconds as a number of retransmissions with a doubling time between them, and back. */
static int seconds_to_tries(int seconds)
{
	int tries = 0, wait = 1, period = 1;

	if (seconds <= 0)
		return 0;
	for (tries = 1; seconds > period && tries < 255; tries++) {
		wait = MIN(wait << 1, 120);
		period += wait;
	}
	return tries;
}

static int tries_to_seconds(int tries)
{
	int wait = 1, period = tries > 0 ? 1 : 0;

	while (tries > 0 && --tries) {
		wait = MIN(wait << 1, 120);
		period += wait;
	}
	return period;
}

static long set_congestion(struct task *t, struct tcp_sock *ts, uaddr_t val, int len)
{
	char name[16] = "";

	if (len < 1)
		return -EINVAL;
	if (copy_in(t, name, val, (size_t)MIN(len, 15)))
		return -EFAULT;
	if (strcmp(name, "cubic") && strcmp(name, "reno"))
		return -ENOENT;
	memcpy(ts->congestion, name, sizeof(name));
	return 0;
}

static long set_tcp(struct task *t, struct sock *sk, int name, uaddr_t val, int len)
{
	struct tcp_sock *ts = tcp_of(sk);
	int value;

	if (name == TCP_CONGESTION)
		return set_congestion(t, ts, val, len);
	if (name == TCP_ULP)
		return -ENOENT;
	if (len < (int)sizeof(value))
		return -EINVAL;
	if (copy_in(t, &value, val, sizeof(value)))
		return -EFAULT;
	switch (name) {
	case TCP_MAXSEG:
		if (value && (value < 88 || value > 32767))
			return -EINVAL;
		ts->maxseg = value;
		return 0;
	case TCP_DEFER_ACCEPT:
		ts->defer_accept = seconds_to_tries(value);
		return 0;
	case TCP_REPAIR:
		return task_capable(t, CAP_NET_ADMIN) ? -ENOPROTOOPT : -EPERM;
	}
	return -ENOPROTOOPT;
}

static long set_device(struct task *t, struct sock *sk, uaddr_t val, int len)
{
	char name[16] = "";

	if (inet_of(sk)->device && !task_capable(t, CAP_NET_RAW))
		return -EPERM;
	if (copy_in(t, name, val, (size_t)MIN(len, 15)))
		return -EFAULT;
	if (name[0] && strcmp(name, "lo"))
		return -ENODEV;
	inet_of(sk)->device = name[0] ? INET_LO : 0;
	return 0;
}

static long set_socket(struct task *t, struct sock *sk, int name, uaddr_t val, int len)
{
	int value;

	if (name == SO_BINDTODEVICE)
		return set_device(t, sk, val, len);
	if (name != SO_MARK && name != SO_BINDTOIFINDEX)
		return -ENOIOCTLCMD;
	if (len < (int)sizeof(value))
		return -EINVAL;
	if (copy_in(t, &value, val, sizeof(value)))
		return -EFAULT;
	if (name == SO_BINDTOIFINDEX) {
		if (value && value != INET_LO)
			return value < 0 ? -EINVAL : -ENODEV;
		inet_of(sk)->device = value;
		return 0;
	}
	if (!task_capable(t, CAP_NET_ADMIN) && !task_capable(t, CAP_NET_RAW))
		return -EPERM;
	inet_of(sk)->mark = value;
	return 0;
}

long inet_setsockopt(struct task *t, struct sock *sk, int level, int name, uaddr_t val, int len)
{
	const struct option_row *r;
	int value, err;

	if (!has_level(sk, level))
		return -ENOPROTOOPT;
	r = row_find(sk, level, name);
	if (r) {
		err = get_value(t, level, val, len, &value);
		return err ? err : set_row(sk, r, value);
	}
	switch (level) {
	case SOL_SOCKET:
		return set_socket(t, sk, name, val, len);
	case IPPROTO_IP:
		return set_ip(t, sk, name, val, len);
	case IPPROTO_IPV6:
		return set_ip6(t, sk, name, val, len);
	case IPPROTO_TCP:
		return set_tcp(t, sk, name, val, len);
	}
	if (name != UDP_CORK)
		return -ENOPROTOOPT;
	err = get_value(t, level, val, len, &value);
	if (!err)
		udp_set_cork(udp_of(sk), value);
	return err;
}

/* ---- getting ---- */

static void fill_info(struct tcp_sock *ts, struct tcp_info *info)
{
	size_t pending = tcp_unsent(ts);

	memset(info, 0, sizeof(*info));
	mutex_lock(&ts->inet.sk.lock);
	info->tcpi_state = (uint8_t)atomic_load(&ts->state);
	info->tcpi_rto = 201000;
	info->tcpi_ato = 40000;
	info->tcpi_snd_mss = info->tcpi_advmss = INET_MSS;
	info->tcpi_rcv_mss = 536;
	info->tcpi_pmtu = INET_LO_MTU - 1;
	info->tcpi_snd_ssthresh = 0x7fffffff;
	info->tcpi_rcv_ssthresh = info->tcpi_rcv_space = (uint32_t)ts->inet.sk.rcvbuf / 2;
	info->tcpi_snd_cwnd = 10;
	info->tcpi_reordering = 3;
	if (info->tcpi_state == TCP_LISTEN) {
		info->tcpi_unacked = atomic_load(&ts->npending);
		info->tcpi_sacked = ts->backlog;
	} else if (info->tcpi_state != TCP_CLOSE && info->tcpi_state != TCP_SYN_SENT) {
		info->tcpi_options = 7; /* time stamps, SACK, window scaling */
		info->tcpi_snd_wscale = info->tcpi_rcv_wscale = 7;
		info->tcpi_rtt = 30;
		info->tcpi_rttvar = 15;
		info->tcpi_min_rtt = 10;
		info->tcpi_notsent_bytes = (uint32_t)pending;
		info->tcpi_bytes_sent = atomic_load(&ts->bytes_out);
		info->tcpi_bytes_acked =
			info->tcpi_bytes_sent - MIN(info->tcpi_bytes_sent, pending);
		info->tcpi_bytes_received = atomic_load(&ts->bytes_in);
		info->tcpi_segs_out = (uint32_t)atomic_load(&ts->segs_out);
		info->tcpi_segs_in = (uint32_t)atomic_load(&ts->segs_in);
		info->tcpi_data_segs_out = info->tcpi_segs_out;
		info->tcpi_data_segs_in = info->tcpi_segs_in;
	}
	mutex_unlock(&ts->inet.sk.lock);
}

union option {
	int value;
	uint64_t number;
	char text[16];
	struct in_addr in_addr;
	struct tcp_info info;
	struct sockaddr_storage name;
};

static int get_mtu(struct inet_sock *is, int most)
{
	return is->peer.port ? MIN(INET_LO_MTU, most) : -ENOTCONN;
}

/* Each fills @o; its size or -errno. */
static int get_ip(struct sock *sk, int name, union option *o)
{
	struct inet_sock *is = inet_of(sk);

	switch (name) {
	case IP_TOS:
		o->value = is->tos;
		break;
	case IP_TTL:
		o->value = is->ttl < 0 ? INET_TTL : is->ttl;
		break;
	case IP_MULTICAST_TTL:
		o->value = is->mcast_ttl;
		break;
	case IP_TRANSPARENT:
		o->value = is->transparent;
		break;
	case IP_MTU:
		o->value = get_mtu(is, 0xffff); /* as long as a packet can be */
		return o->value < 0 ? o->value : (int)sizeof(o->value);
	case IP_MULTICAST_IF:
		o->in_addr.s_addr = INADDR_ANY;
		break;
	case IP_OPTIONS:
		return 0;
	case IP_RECVOPTS:
	case IP_RETOPTS:
	case IP_HDRINCL:
		o->value = 0;
		break;
	default:
		return -ENOPROTOOPT;
	}
	return sizeof(o->value);
}

static int get_ip6(struct sock *sk, int name, union option *o)
{
	struct inet_sock *is = inet_of(sk);

	switch (name) {
	case IPV6_V6ONLY:
		o->value = is->v6only;
		break;
	case IPV6_TRANSPARENT:
		o->value = is->transparent;
		break;
	case IPV6_DONTFRAG:
		o->value = is->nodefrag;
		break;
	case IPV6_UNICAST_IF:
		o->value = 0;
		break;
	case IPV6_MTU:
		o->value = get_mtu(is, INET_LO_MTU);
		return o->value < 0 ? o->value : (int)sizeof(o->value);
	default:
		return -ENOPROTOOPT;
	}
	return sizeof(o->value);
}

static int get_tcp(struct sock *sk, int name, union option *o)
{
	struct tcp_sock *ts = tcp_of(sk);

	switch (name) {
	case TCP_MAXSEG: {
		int state = atomic_load(&ts->state);

		o->value = state == TCP_CLOSE || state == TCP_LISTEN
				   ? (ts->maxseg ? ts->maxseg : 536)
				   : INET_MSS;
		break;
	}
	case TCP_DEFER_ACCEPT:
		o->value = tries_to_seconds(ts->defer_accept);
		break;
	case TCP_CONGESTION:
		memcpy(o->text, ts->congestion, sizeof(o->text));
		return sizeof(o->text);
	case TCP_INFO:
		fill_info(ts, &o->info);
		return sizeof(o->info);
	case TCP_ULP:
		return 0;
	case TCP_FASTOPEN_CONNECT:
	case TCP_REPAIR:
		o->value = 0;
		break;
	default:
		return -ENOPROTOOPT;
	}
	return sizeof(o->value);
}

static int get_socket(struct sock *sk, int name, union option *o)
{
	struct inet_sock *is = inet_of(sk);

	switch (name) {
	case SO_BINDTODEVICE:
		if (!is->device)
			return 0;
		strcpy(o->text, "lo");
		return 3;
	case SO_BINDTOIFINDEX:
		o->value = is->device;
		break;
	case SO_MARK:
		o->value = is->mark;
		break;
	case SO_COOKIE:
		o->number = sk->ino;
		return sizeof(o->number);
	case SO_PEERNAME:
		return inet_getname(sk, &o->name, true);
	default:
		return -ENOIOCTLCMD;
	}
	return sizeof(o->value);
}

/* What isn't set is told as what applies. */
static int default_value(const struct option_row *r, int value)
{
	if (r->level == IPPROTO_IPV6 && r->name == IPV6_UNICAST_HOPS && value < 0)
		return INET_TTL;
	if (r->level == IPPROTO_IPV6 && r->name == IPV6_TCLASS && value < 0)
		return 0;
	if (r->level == IPPROTO_TCP && r->name == TCP_SYNCNT && !value)
		return 6;
	if (r->level == IPPROTO_TCP && r->name == TCP_LINGER2 && value <= 0)
		return value ? -1 : 60;
	return value;
}

static int get_option(struct sock *sk, int level, int name, union option *o)
{
	const struct option_row *r = row_find(sk, level, name);

	if (r) {
		mutex_lock(&sk->lock);
		o->value = r->kind == FLAG ? *(bool *)row_field(sk, r)
					   : default_value(r, *(int *)row_field(sk, r));
		mutex_unlock(&sk->lock);
		return sizeof(o->value);
	}
	switch (level) {
	case SOL_SOCKET:
		return get_socket(sk, name, o);
	case IPPROTO_IP:
		return get_ip(sk, name, o);
	case IPPROTO_IPV6:
		return get_ip6(sk, name, o);
	case IPPROTO_TCP:
		return get_tcp(sk, name, o);
	}
	if (name != UDP_CORK)
		return -ENOPROTOOPT;
	o->value = udp_of(sk)->cork_option;
	return sizeof(o->value);
}

long inet_getsockopt(struct task *t, struct sock *sk, int level, int name, uaddr_t val,
		     uaddr_t ulen)
{
	union option o;
	int len, size;

	if (!has_level(sk, level))
		return -ENOPROTOOPT;
	memset(&o, 0, sizeof(o));
	if (copy_in(t, &len, ulen, sizeof(len)))
		return -EFAULT;
	if (len < 0)
		return -EINVAL;
	size = get_option(sk, level, name, &o);
	if (size < 0)
		return size;
	if (level == IPPROTO_IP && size == sizeof(o.value) && len > 0 && len < size &&
	    o.value >= 0 && o.value <= 255)
		len = 1;
	len = MIN(len, size);
	if (copy_out(t, val, &o, (size_t)len))
		return -EFAULT;
	return copy_out(t, ulen, &len, sizeof(len));
}
