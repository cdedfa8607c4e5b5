/* SPDX-License-Identifier: Apache-2.0 */
/* AF_INET and AF_INET6: making sockets, addresses, routes (there is one: loopback), bind(2). */
#include "sentry/socket_inet.h"

#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"

const struct in6_addr inet_any4 = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}}};
const struct in6_addr inet_any6 = {{{0}}};
const struct in6_addr inet_lo4 = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}}};
const struct in6_addr inet_lo6 = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}};

#define SIN6_LEN_MIN 24 /* without sin6_scope_id: RFC 2133's */

/* ---- addresses ---- */

bool inet_is4(const struct in6_addr *ip)
{
	return !memcmp(ip, &inet_any4, 12);
}

static bool same_ip(const struct in6_addr *a, const struct in6_addr *b)
{
	return !memcmp(a, b, sizeof(*a));
}

bool inet_is_any(const struct in6_addr *ip)
{
	return same_ip(ip, &inet_any4) || same_ip(ip, &inet_any6);
}

bool inet_is_loopback(const struct in6_addr *ip)
{
	if (inet_is4(ip))
		return ip->s6_addr[12] == 127 && !inet_is_broadcast(ip);
	return same_ip(ip, &inet_lo6);
}

bool inet_is_multicast(const struct in6_addr *ip)
{
	return inet_is4(ip) ? (ip->s6_addr[12] & 0xf0) == 0xe0 : ip->s6_addr[0] == 0xff;
}

bool inet_is_broadcast(const struct in6_addr *ip)
{
	static const uint8_t all[4] = {255, 255, 255, 255}, lo[4] = {127, 255, 255, 255};

	return inet_is4(ip) &&
	       (!memcmp(ip->s6_addr + 12, all, 4) || !memcmp(ip->s6_addr + 12, lo, 4));
}

static void from_sin(const struct sockaddr_in *sin, struct inet_addr *out)
{
	out->ip = inet_any4;
	memcpy(out->ip.s6_addr + 12, &sin->sin_addr, 4);
	out->port = ntohs(sin->sin_port);
}

int inet_addr_parse(const struct inet_sock *is, const struct sockaddr_storage *ss, int len,
		    struct inet_addr *out)
{
	const struct sockaddr_in6 *sin6 = (const void *)ss;

	if (is->sk.family == AF_INET6) {
		if (ss->ss_family == AF_INET && is->sk.type == SOCK_DGRAM) {
			if (is->v6only)
				return is->peer.port ? -EAFNOSUPPORT : -ENETUNREACH;
		} else {
			if (len < SIN6_LEN_MIN)
				return -EINVAL;
			if (ss->ss_family != AF_INET6)
				return -EAFNOSUPPORT;
			out->ip = sin6->sin6_addr;
			out->port = ntohs(sin6->sin6_port);
			return 0;
		}
	}
	if (len < (int)sizeof(struct sockaddr_in))
		return -EINVAL;
	if (ss->ss_family != AF_INET)
		return -EAFNOSUPPORT;
	from_sin((const void *)ss, out);
	return 0;
}

int inet_addr_show(const struct inet_sock *is, const struct inet_addr *addr,
		   struct sockaddr_storage *ss)
{
	struct sockaddr_in6 *sin6 = (void *)ss;
	struct sockaddr_in *sin = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (is->sk.family == AF_INET6) {
		sin6->sin6_family = AF_INET6;
		sin6->sin6_port = htons(addr->port);
		sin6->sin6_addr = addr->ip;
		return sizeof(*sin6);
	}
	sin->sin_family = AF_INET;
	sin->sin_port = htons(addr->port);
	memcpy(&sin->sin_addr, addr->ip.s6_addr + 12, 4);
	return sizeof(*sin);
}

/* ---- routes ---- */

int inet_route(const struct inet_sock *is, struct in6_addr *dst, struct in6_addr *src)
{
	bool chosen = !inet_is_any(src), v4;

	if (!atomic_load(&is->net->inet->lo_up))
		return -ENETUNREACH;
	if (inet_is_any(dst)) {
		if (inet_is4(dst) || inet_is4(&is->rcv))
			*dst = chosen && inet_is4(src) ? *src : inet_lo4;
		else
			*dst = inet_lo6;
	}
	v4 = inet_is4(dst);
	if (is->sk.family == AF_INET6) {
		if (v4 && (is->v6only || (chosen && !inet_is4(src))))
			return -ENETUNREACH;
		if (!v4 && inet_is4(&is->rcv))
			return -ENETUNREACH;
	}
	if (inet_is_loopback(dst)) {
		if (!chosen)
			*src = v4 ? inet_lo4 : inet_lo6;
		return 0;
	}
	if (inet_is_multicast(dst) || inet_is_broadcast(dst)) {
		int oif = inet_is_multicast(dst) ? (v4 ? is->mcast_if : is->mcast_if6) : 0;

		/* The interface must be told, unless it is the broadcast address of ours. */
		if (oif != INET_LO && is->device != INET_LO && !(chosen && inet_is_loopback(src)) &&
		    !(v4 && dst->s6_addr[12] == 127))
			return -ENETUNREACH;
		if (!chosen || !inet_is_loopback(src))
			*src = v4 ? inet_lo4 : inet_lo6;
		return 0;
	}
	return -ENETUNREACH;
}

void inet_count(struct net_ns *net, size_t bytes)
{
	atomic_fetch_add_explicit(&net->inet->packets, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&net->inet->bytes, bytes, memory_order_relaxed);
}

/* ---- bind ---- */

/* The address of bind(2). 0, -EINVAL, -EAFNOSUPPORT. */
static int bind_parse(const struct inet_sock *is, const struct sockaddr_storage *ss, int len,
		      struct inet_addr *out)
{
	const struct sockaddr_in *sin = (const void *)ss;
	int err;

	if (is->sk.family == AF_INET6) {
		if (len < SIN6_LEN_MIN)
			return -EINVAL;
		if (ss->ss_family != AF_INET6)
			return -EAFNOSUPPORT;
		err = inet_addr_parse(is, ss, len, out);
		if (!err && inet_is4(&out->ip) && is->v6only)
			err = -EINVAL;
		return err;
	}
	if (len < (int)sizeof(*sin))
		return -EINVAL;
	if (ss->ss_family != AF_INET &&
	    (ss->ss_family != AF_UNSPEC || sin->sin_addr.s_addr != INADDR_ANY))
		return -EAFNOSUPPORT;
	from_sin(sin, out);
	return 0;
}

/* Is @ip one that can be bound to? */
static int bind_check(const struct inet_sock *is, const struct in6_addr *ip)
{
	if (inet_is_any(ip) || inet_is_multicast(ip) || inet_is_loopback(ip) ||
	    inet_is_broadcast(ip) || is->freebind || is->transparent)
		return 0;
	/* Link-local addresses need an interface, and ours has none. */
	if (ip->s6_addr[0] == 0xfe && (ip->s6_addr[1] & 0xc0) == 0x80)
		return -EINVAL;
	return -EADDRNOTAVAIL;
}

static bool in_use(struct inet_sock *is)
{
	if (is->hashed)
		return true;
	return is->sk.type == SOCK_STREAM && atomic_load(&tcp_of(&is->sk)->state) != TCP_CLOSE;
}

int inet_bind_addr(struct task *t, struct sock *sk, const struct sockaddr_storage *ss, int len)
{
	struct inet_sock *is = inet_of(sk);
	struct inet_addr addr;
	int err = bind_parse(is, ss, len, &addr);

	if (!err)
		err = bind_check(is, &addr.ip);
	if (err)
		return err;
	if (addr.port && addr.port < INET_PORT_ROOT && !task_capable(t, CAP_NET_BIND_SERVICE))
		return -EACCES;
	mutex_lock(&sk->lock);
	if (in_use(is)) {
		err = -EINVAL;
		goto out_unlock;
	}
	is->rcv = is->local.ip = addr.ip;
	if (inet_is_multicast(&addr.ip) || inet_is_broadcast(&addr.ip))
		is->local.ip = inet_is4(&addr.ip) ? inet_any4 : inet_any6;
	is->bind->uid = t->vfs.cred->fsuid;
	if (addr.port || !is->no_port) {
		err = inet_port_get(is, addr.port);
		if (err) {
			is->rcv = is->local.ip = sk->family == AF_INET ? inet_any4 : inet_any6;
			goto out_unlock;
		}
	}
	is->addr_locked = !inet_is_any(&addr.ip);
	is->port_locked = addr.port;
out_unlock:
	mutex_unlock(&sk->lock);
	return err;
}

int inet_getname(struct sock *sk, struct sockaddr_storage *ss, bool peer)
{
	struct inet_sock *is = inet_of(sk);
	struct inet_addr addr;
	int err = 0;

	mutex_lock(&sk->lock);
	addr = is->local;
	/* What multicast and broadcast are received by is still its name. */
	if (!peer && inet_is_any(&addr.ip) && !inet_is_any(&is->rcv))
		addr.ip = is->rcv;
	if (peer) {
		addr = is->peer;
		if (!addr.port)
			err = -ENOTCONN;
		else if (sk->type == SOCK_STREAM && sk->file) {
			int state = atomic_load(&tcp_of(sk)->state);

			if (state == TCP_CLOSE || state == TCP_SYN_SENT)
				err = -ENOTCONN;
		}
	}
	mutex_unlock(&sk->lock);
	return err ? err : inet_addr_show(is, &addr, ss);
}

void inet_peercred(struct sock *sk, struct scm_cred *cred)
{
	*cred = (struct scm_cred){.uid = (uid_t)-1, .gid = (gid_t)-1};
}

/* ---- making sockets ---- */

int inet_sock_init(struct inet_sock *is, const struct sock_ops *ops, struct net_ns *net, int family,
		   int type, int protocol)
{
	is->bind = kzalloc(sizeof(*is->bind));
	if (!is->bind)
		return -ENOMEM;
	list_init(&is->bind->node);
	list_init(&is->bind->listen_node);
	list_init(&is->bind->tw_node);
	sock_init(&is->sk, ops, family, type, protocol);
	is->net = net_ns_get(net);
	is->local.ip = is->rcv = family == AF_INET ? inet_any4 : inet_any6;
	is->peer.ip = is->local.ip;
	is->ttl = is->hops = is->tclass = -1;
	is->mcast_ttl = is->mcast_hops = 1;
	is->mcast_loop = is->mcast_loop6 = is->mcast_all = is->mcast_all6 = true;
	is->mtu_discover = is->mtu_discover6 = 1; /* IP_PMTUDISC_WANT */
	is->autoflowlabel = true;
	is->incoming_cpu = -1;
	list_init(&is->mcast);
	list_init(&is->errors);
	atomic_fetch_add(&net->inet->nsocks[inet_proto_of(is)], 1);
	return 0;
}

void inet_sock_fini(struct inet_sock *is)
{
	inet_port_put(is);
	while (!list_empty(&is->mcast)) {
		struct inet_mcast *m = list_first_entry(&is->mcast, struct inet_mcast, node);

		list_del(&m->node);
		kfree(m);
	}
	while (!list_empty(&is->errors)) {
		struct inet_error *e = list_first_entry(&is->errors, struct inet_error, node);

		list_del(&e->node);
		kfree(e);
	}
	atomic_fetch_sub(&is->net->inet->nsocks[inet_proto_of(is)], 1);
	kfree(is->bind);
	net_ns_put(is->net);
	sock_fini(&is->sk);
}

/* What socket(2) answers: inet_create of Linux. */
static int create(struct task *t, int family, int type, int protocol, struct sock **out)
{
	if (protocol < 0 || protocol >= IPPROTO_MAX)
		return -EINVAL;
	if (type == SOCK_STREAM) {
		if (protocol && protocol != IPPROTO_TCP)
			return -EPROTONOSUPPORT;
		return tcp_create(t, family, out);
	}
	if (type == SOCK_DGRAM) {
		if (protocol && protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE)
			return -EPROTONOSUPPORT;
		return udp_create(t, family, protocol ?: IPPROTO_UDP, out);
	}
	if (type == SOCK_RAW) {
		if (!protocol)
			return -EPROTONOSUPPORT;
		return task_capable(t, CAP_NET_RAW) ? -EPROTONOSUPPORT : -EPERM;
	}
	return -ESOCKTNOSUPPORT;
}

static int inet_create(struct task *t, int type, int protocol, struct sock **out)
{
	return create(t, AF_INET, type, protocol, out);
}

static int inet6_create(struct task *t, int type, int protocol, struct sock **out)
{
	return create(t, AF_INET6, type, protocol, out);
}

const struct sock_family inet_family = {.family = AF_INET, .create = inet_create};
const struct sock_family inet6_family = {.family = AF_INET6, .create = inet6_create};
