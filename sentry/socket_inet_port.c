/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: who has which, what conflicts, who is found by one. A namespace has a table of places by
 * port for TCP and one for UDP, and a table of those TCP listens on.
 *
 *	bind, listen, connect, sendto ──▶ in the table ──close──▶ gone, or TIME_WAIT
 *
 * Every end of a connection has a place, so that a port stays taken while connections of a server
 * that has ended are left. One that ended a connection first leaves its place in TIME_WAIT, which
 * expires when somebody looks. Rules: inet_csk_bind_conflict, udp_lib_lport_inuse and
 * inet_rcv_saddr_equal of Linux.
 */
#include <string.h>
#include <sys/random.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/clock.h"
#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"
#include "vfs/vfs.h"

struct inet_ports *inet_ports_alloc(bool lo_up)
{
	struct inet_ports *p = kzalloc(sizeof(*p));

	if (!p)
		return NULL;
	for (size_t i = 0; i < INET_HASH; i++) {
		for (size_t k = 0; k < INET_NPROTO; k++)
			list_init(&p->bound[k][i]);
		list_init(&p->listening[i]);
	}
	list_init(&p->time_wait);
	waitq_init(&p->listen_wq);
	atomic_store(&p->lo_up, lo_up);
	if (getrandom(&p->random, sizeof(p->random), GRND_NONBLOCK) != sizeof(p->random) ||
	    !p->random)
		p->random = monotonic_ns() | 1;
	return p;
}

/* net->lock held, or nobody else is left. */
static void time_wait_drop(struct inet_ports *p, struct inet_bind *b)
{
	list_del(&b->node);
	list_del(&b->tw_node);
	p->ntime_wait--;
	kfree(b);
}

void inet_ports_free(struct inet_ports *p)
{
	if (!p)
		return;
	while (!list_empty(&p->time_wait))
		time_wait_drop(p, list_first_entry(&p->time_wait, struct inet_bind, tw_node));
	waitq_fini(&p->listen_wq);
	kfree(p);
}

enum inet_proto inet_proto_of(const struct inet_sock *is)
{
	if (is->sk.type == SOCK_STREAM)
		return INET_TCP;
	return is->sk.protocol == IPPROTO_UDPLITE ? INET_UDPLITE : INET_UDP;
}

/* ---- all below: net->lock held ---- */

static struct list_head *bucket(struct inet_ports *p, enum inet_proto proto, uint16_t port)
{
	return &p->bound[proto][port % INET_HASH];
}

static uint32_t next_random(struct inet_ports *p)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 7;
	p->random ^= p->random << 17;
	return (uint32_t)(p->random >> 16);
}

static void expire(struct inet_ports *p)
{
	uint64_t now = monotonic_ns();

	while (!list_empty(&p->time_wait)) {
		struct inet_bind *b = list_first_entry(&p->time_wait, struct inet_bind, tw_node);

		if (b->expires > now && p->ntime_wait <= INET_TW_MAX)
			break;
		time_wait_drop(p, b);
	}
}

static bool bind_reuse(const struct inet_bind *b)
{
	return b->owner ? b->owner->sk.reuseaddr : b->reuse;
}

static bool bind_reuseport(const struct inet_bind *b)
{
	return b->owner ? b->owner->sk.reuseport : b->reuseport;
}

static bool same_ip(const struct in6_addr *a, const struct in6_addr *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static bool is_any6(const struct in6_addr *ip)
{
	return same_ip(ip, &inet_any6);
}

/* Is there an address that both receive for? */
static bool overlap(const struct in6_addr *a, bool a_v6only, const struct in6_addr *b,
		    bool b_v6only)
{
	bool a4 = inet_is4(a), b4 = inet_is4(b);

	if (a4 && b4)
		return same_ip(a, b) || inet_is_any(a) || inet_is_any(b);
	if (is_any6(a) && is_any6(b))
		return true;
	if (is_any6(b))
		return !(b_v6only && a4);
	if (is_any6(a))
		return !(a_v6only && b4);
	return same_ip(a, b);
}

/* May @is not be where @b is? @chosen: the port is ours to choose, so another would do. */
static bool in_the_way(const struct inet_sock *is, const struct inet_bind *b, bool chosen)
{
	bool reuse = is->sk.reuseaddr && bind_reuse(b);
	bool reuseport =
		is->sk.reuseport && bind_reuseport(b) && (!b->owner || b->uid == is->bind->uid);

	if (inet_proto_of(is) != INET_TCP) {
		if (reuse || reuseport)
			return false;
	} else if (reuse && !b->listening) {
		if (!chosen)
			return false;
	} else if (reuseport) {
		return false;
	}
	return overlap(&is->rcv, is->v6only, &b->local.ip, b->v6only);
}

static bool conflicts(struct inet_sock *is, uint16_t port, bool chosen)
{
	struct inet_bind *b;

	list_for_each_entry (b, bucket(is->net->inet, inet_proto_of(is), port), node)
		if (b->local.port == port && b->owner != is && in_the_way(is, b, chosen))
			return true;
	return false;
}

static void fill(struct inet_sock *is, uint16_t port)
{
	is->bind->local.ip = is->rcv;
	is->bind->local.port = port;
	is->bind->peer = is->peer;
	is->bind->v6only = is->v6only;
}

static void insert(struct inet_sock *is, uint16_t port)
{
	struct inet_bind *b = is->bind;

	fill(is, port);
	b->owner = is;
	list_add(&b->node, bucket(is->net->inet, inet_proto_of(is), port));
	is->hashed = true;
	is->local.port = port;
}

/* A place to begin looking for a free port, and the next one. */
static uint16_t port_at(uint32_t start, uint32_t i)
{
	return (uint16_t)(INET_PORT_MIN + (start + i) % (INET_PORT_MAX - INET_PORT_MIN + 1));
}

/* ---- giving and taking ---- */

int inet_port_get(struct inet_sock *is, uint16_t port)
{
	struct inet_ports *p = is->net->inet;
	int err = 0;

	mutex_lock(&is->net->lock);
	expire(p);
	is->bind->for_connect = false;
	if (port) {
		if (conflicts(is, port, false))
			err = -EADDRINUSE;
	} else {
		uint32_t start = next_random(p), i = 0;

		err = -EADDRINUSE;
		for (; err && i <= INET_PORT_MAX - INET_PORT_MIN; i++) {
			port = port_at(start, i);
			err = conflicts(is, port, true) ? -EADDRINUSE : 0;
		}
	}
	if (!err)
		insert(is, port);
	mutex_unlock(&is->net->lock);
	return err;
}

/*
 * Can @is connect from @port? Others that connect share it, as long as the connections differ; one
 * in TIME_WAIT gives way if @reuse. @own: the port is bound to @is already.
 */
static bool connect_fits(struct inet_sock *is, uint16_t port, bool own, bool reuse)
{
	struct inet_bind *b, *same = NULL;

	list_for_each_entry (b, bucket(is->net->inet, INET_TCP, port), node) {
		if (b->local.port != port || b->owner == is)
			continue;
		if (!own && !b->for_connect)
			return false;
		if (!same_ip(&b->local.ip, &is->local.ip) || b->peer.port != is->peer.port ||
		    !same_ip(&b->peer.ip, &is->peer.ip))
			continue;
		if (b->owner || !reuse)
			return false;
		same = b;
	}
	if (same)
		time_wait_drop(is->net->inet, same);
	return true;
}

int inet_port_get_connect(struct inet_sock *is)
{
	struct inet_ports *p = is->net->inet;
	int err = -EADDRNOTAVAIL;

	mutex_lock(&is->net->lock);
	expire(p);
	if (is->hashed) {
		if (connect_fits(is, is->local.port, true, true)) {
			fill(is, is->local.port);
			err = 0;
		}
		goto out_unlock;
	}
	for (int pass = 0; err && pass < 2; pass++) {
		uint32_t start = next_random(p);

		for (uint32_t i = 0; err && i <= INET_PORT_MAX - INET_PORT_MIN; i++) {
			uint16_t port = port_at(start, i);

			if (!connect_fits(is, port, false, pass))
				continue;
			is->bind->for_connect = true;
			insert(is, port);
			err = 0;
		}
	}
out_unlock:
	mutex_unlock(&is->net->lock);
	return err;
}

void inet_port_update(struct inet_sock *is)
{
	mutex_lock(&is->net->lock);
	if (is->hashed)
		fill(is, is->bind->local.port);
	mutex_unlock(&is->net->lock);
}

/* net->lock held. */
static void take_out(struct inet_sock *is)
{
	list_del(&is->bind->node);
	list_del(&is->bind->listen_node);
	is->bind->listening = false;
	is->hashed = false;
}

void inet_port_put(struct inet_sock *is)
{
	mutex_lock(&is->net->lock);
	if (is->hashed)
		take_out(is);
	mutex_unlock(&is->net->lock);
}

void inet_port_time_wait(struct inet_sock *is)
{
	struct inet_ports *p = is->net->inet;
	struct inet_bind *b, *fresh = kzalloc(sizeof(*fresh));

	mutex_lock(&is->net->lock);
	b = is->bind;
	if (is->hashed && fresh) {
		b->reuse = is->sk.reuseaddr;
		b->reuseport = is->sk.reuseport;
		b->expires = monotonic_ns() + INET_TW_SECONDS * 1000000000ULL;
		b->owner = NULL;
		is->hashed = false;
		list_add_tail(&b->tw_node, &p->time_wait);
		p->ntime_wait++;
		/* The socket may be bound again. */
		list_init(&fresh->node);
		list_init(&fresh->listen_node);
		list_init(&fresh->tw_node);
		fresh->uid = b->uid;
		is->bind = fresh;
		fresh = NULL;
		expire(p);
	} else if (is->hashed) {
		take_out(is);
	}
	mutex_unlock(&is->net->lock);
	kfree(fresh);
}

void inet_port_inherit(struct inet_sock *is, const struct inet_sock *from)
{
	mutex_lock(&is->net->lock);
	insert(is, from->local.port);
	is->bind->uid = from->bind->uid;
	mutex_unlock(&is->net->lock);
}

int inet_port_listen(struct inet_sock *is)
{
	struct inet_ports *p = is->net->inet;
	int err = 0;

	mutex_lock(&is->net->lock);
	if (conflicts(is, is->local.port, false)) {
		err = -EADDRINUSE;
	} else {
		is->bind->listening = true;
		list_add(&is->bind->listen_node, &p->listening[is->local.port % INET_HASH]);
	}
	mutex_unlock(&is->net->lock);
	return err;
}

void inet_port_unlisten(struct inet_sock *is)
{
	mutex_lock(&is->net->lock);
	list_del(&is->bind->listen_node);
	is->bind->listening = false;
	mutex_unlock(&is->net->lock);
}

/* ---- finding ---- */

/* Spreads connections and datagrams over a group with SO_REUSEPORT: by both addresses. */
static uint32_t pair_hash(const struct inet_addr *a, const struct inet_addr *b)
{
	uint32_t h = 2166136261u ^ a->port ^ ((uint32_t)b->port << 16);

	for (size_t i = 0; i < sizeof(a->ip); i++) {
		h = (h ^ a->ip.s6_addr[i]) * 16777619u;
		h = (h ^ b->ip.s6_addr[i]) * 16777619u;
	}
	h ^= h >> 15;
	h *= 0x2c1b3c6du;
	return h ^ (h >> 13);
}

/* How well @b suits a packet to @dst: 0 not at all. */
static int score_local(const struct inet_bind *b, const struct inet_addr *dst)
{
	bool dst4 = inet_is4(&dst->ip);
	bool any = inet_is_any(&b->local.ip);

	if (b->local.port != dst->port || !b->owner)
		return 0;
	if (!any)
		return same_ip(&b->local.ip, &dst->ip) ? 6 : 0;
	if (inet_is4(&b->local.ip))
		return dst4 ? 2 : 0;
	return dst4 && b->v6only ? 0 : 1;
}

/* A reference, unless it is being freed. */
static struct inet_sock *owner_get(struct inet_bind *b)
{
	return refcount_get_unless_zero(&b->owner->sk.refs) ? b->owner : NULL;
}

typedef int score_fn(const struct inet_bind *b, const struct inet_addr *dst,
		     const struct inet_addr *src);

static int score_listener(const struct inet_bind *b, const struct inet_addr *dst,
			  const struct inet_addr *src)
{
	return score_local(b, dst);
}

static int score_udp(const struct inet_bind *b, const struct inet_addr *dst,
		     const struct inet_addr *src)
{
	int score = score_local(b, dst);

	if (!score || !b->peer.port)
		return score;
	return b->peer.port == src->port && same_ip(&b->peer.ip, &src->ip) ? score + 8 : 0;
}

static struct inet_bind *entry_of(struct list_head *pos, bool listening)
{
	return listening ? list_entry(pos, struct inet_bind, listen_node)
			 : list_entry(pos, struct inet_bind, node);
}

/* The best in @head; one of several by SO_REUSEPORT. */
static struct inet_sock *find_best(struct list_head *head, bool listening, score_fn *score,
				   const struct inet_addr *dst, const struct inet_addr *src)
{
	struct inet_bind *best = NULL;
	struct list_head *pos;
	int best_score = 0;
	unsigned int n = 0;

	list_for_each (pos, head) {
		struct inet_bind *b = entry_of(pos, listening);
		int s = score(b, dst, src);

		if (s > best_score) {
			best = b;
			best_score = s;
			n = 1;
		} else if (s && s == best_score && bind_reuseport(b) && bind_reuseport(best)) {
			n++;
		}
	}
	if (!best)
		return NULL;
	if (n > 1 && !best->peer.port) {
		unsigned int want = pair_hash(dst, src) % n;

		list_for_each (pos, head) {
			struct inet_bind *b = entry_of(pos, listening);

			if (score(b, dst, src) == best_score && bind_reuseport(b) && !want--) {
				best = b;
				break;
			}
		}
	}
	return owner_get(best);
}

struct inet_sock *inet_find_listener(struct net_ns *net, const struct inet_addr *dst,
				     const struct inet_addr *src)
{
	struct inet_sock *is;

	mutex_lock(&net->lock);
	is = find_best(&net->inet->listening[dst->port % INET_HASH], true, score_listener, dst,
		       src);
	mutex_unlock(&net->lock);
	return is;
}

struct inet_sock *inet_find_udp(struct net_ns *net, enum inet_proto proto,
				const struct inet_addr *dst, const struct inet_addr *src)
{
	struct inet_sock *is;

	mutex_lock(&net->lock);
	is = find_best(bucket(net->inet, proto, dst->port), false, score_udp, dst, src);
	mutex_unlock(&net->lock);
	return is;
}

bool inet_mcast_member(const struct inet_sock *is, const struct in6_addr *group)
{
	struct inet_mcast *m;

	if (inet_is4(group) ? is->mcast_all : is->mcast_all6)
		return true;
	list_for_each_entry (m, &is->mcast, node)
		if (same_ip(&m->group, group))
			return true;
	return false;
}

/* Somebody in the namespace has joined @group: else nothing of it comes in. */
static bool anybody_joined(struct inet_ports *p, const struct in6_addr *group)
{
	struct inet_mcast *m;
	struct inet_bind *b;

	for (size_t i = 0; i < INET_HASH * 2; i++) {
		enum inet_proto proto = i < INET_HASH ? INET_UDP : INET_UDPLITE;

		list_for_each_entry (b, &p->bound[proto][i % INET_HASH], node) {
			if (!b->owner)
				continue;
			list_for_each_entry (m, &b->owner->mcast, node)
				if (same_ip(&m->group, group))
					return true;
		}
	}
	return false;
}

struct inet_sock *inet_find_udp_nth(struct net_ns *net, enum inet_proto proto,
				    const struct inet_addr *dst, const struct inet_addr *src,
				    unsigned int n)
{
	bool mcast = inet_is_multicast(&dst->ip);
	struct inet_sock *is = NULL;
	struct inet_bind *b;

	mutex_lock(&net->lock);
	if (mcast && !anybody_joined(net->inet, &dst->ip))
		goto out_unlock;
	list_for_each_entry (b, bucket(net->inet, proto, dst->port), node) {
		if (!score_udp(b, dst, src) || (mcast && !inet_mcast_member(b->owner, &dst->ip)))
			continue;
		if (n--)
			continue;
		is = owner_get(b);
		break;
	}
out_unlock:
	mutex_unlock(&net->lock);
	return is;
}

/* ---- listing ---- */

static size_t count_bound(struct inet_ports *p, enum inet_proto proto)
{
	struct inet_bind *b;
	size_t n = 0;

	for (size_t i = 0; i < INET_HASH; i++)
		list_for_each_entry (b, &p->bound[proto][i], node)
			n++;
	return n;
}

/* What there is to say of @b; its owner is there. */
static void row_fill(struct inet_row *r, const struct inet_bind *b, enum inet_proto proto)
{
	struct inet_sock *is = b->owner;

	memset(r, 0, sizeof(*r));
	r->local = b->local;
	r->peer = b->peer;
	r->uid = b->uid;
	r->family = inet_is4(&b->local.ip) ? AF_INET : AF_INET6;
	r->state = TCP_TIME_WAIT;
	if (!is)
		return;
	r->family = is->sk.family;
	r->refs = refcount_read(&is->sk.refs) + 1;
	r->ino = is->sk.ino;
	if (proto == INET_TCP) {
		struct tcp_sock *ts = tcp_of(&is->sk);

		r->state = atomic_load(&ts->state);
		r->rx = r->state == TCP_LISTEN ? ts->npending : atomic_load(&ts->rx_bytes);
		r->backlog = ts->backlog;
		r->tx = r->state == TCP_LISTEN ? 0 : atomic_load(&ts->unsent_hint);
	} else {
		struct udp_sock *us = udp_of(&is->sk);

		r->state = b->peer.port ? TCP_ESTABLISHED : TCP_CLOSE;
		r->rx = us->rx_charge;
		r->drops = us->drops;
	}
}

struct inet_row *inet_rows(struct net_ns *net, enum inet_proto proto, size_t *n)
{
	struct inet_row *rows;
	struct inet_bind *b;
	size_t max, k = 0;

	mutex_lock(&net->lock);
	expire(net->inet);
	max = count_bound(net->inet, proto);
	rows = kcalloc(max + 1, sizeof(*rows));
	for (size_t i = 0; rows && i < INET_HASH; i++)
		list_for_each_entry (b, &net->inet->bound[proto][i], node)
			row_fill(&rows[k++], b, proto);
	mutex_unlock(&net->lock);
	*n = k;
	return rows ? rows : ERR_PTR(-ENOMEM);
}
