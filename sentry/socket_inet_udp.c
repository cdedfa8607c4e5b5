/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP over loopback. A datagram goes onto the receiver's queue at once, or is lost if that is full.
 * To a port that nobody has, the port-unreachable message comes back at once: as sk.err of a
 * connected socket, and into the error queue of one with IP_RECVERR.
 */
#include <asm/ioctls.h>
#include <linux/sockios.h>
#include <netinet/udp.h>
#include <string.h>
#include <time.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"

#define UDP_MAX4   65507u /* 65535 without the headers */
#define UDP_MAX6   65527u
#define ERRORS_MAX 64

OBJTYPE(udp_type, "udp_sock")

static const struct sock_ops udp_ops;

int udp_create(struct task *t, int family, int protocol, struct sock **out)
{
	struct udp_sock *us = kzalloc(sizeof(*us));

	if (!us)
		return -ENOMEM;
	if (inet_sock_init(&us->inet, &udp_ops, t->net, family, SOCK_DGRAM, protocol)) {
		kfree(us);
		return -ENOMEM;
	}
	us->inet.bind->uid = t->vfs.cred->fsuid;
	list_init(&us->rxq);
	objtype_inc(&udp_type);
	*out = &us->inet.sk;
	return 0;
}

static void drop_queue(struct udp_sock *us)
{
	while (!list_empty(&us->rxq)) {
		struct udp_packet *p = list_first_entry(&us->rxq, struct udp_packet, node);

		list_del(&p->node);
		kfree(p);
	}
	us->rx_charge = 0;
}

static void udp_free(struct sock *sk)
{
	struct udp_sock *us = udp_of(sk);

	drop_queue(us);
	kfree(us->cork);
	inet_sock_fini(&us->inet);
	objtype_dec(&udp_type);
	kfree(us);
}

static void udp_release(struct sock *sk)
{
	struct udp_sock *us = udp_of(sk);

	mutex_lock(&sk->lock);
	us->dead = true;
	sk->file = NULL;
	us->shutdown = 3;
	inet_port_put(&us->inet);
	drop_queue(us);
	mutex_unlock(&sk->lock);
	waitq_wake(&sk->wq, EV_ALL);
}

/* ---- connecting ---- */

static int udp_disconnect(struct udp_sock *us)
{
	struct inet_sock *is = &us->inet;

	mutex_lock(&is->sk.lock);
	memset(&is->peer, 0, sizeof(is->peer));
	is->peer.ip = is->sk.family == AF_INET ? inet_any4 : inet_any6;
	if (!is->addr_locked)
		is->rcv = is->local.ip = is->peer.ip;
	if (is->port_locked) {
		inet_port_update(is);
	} else {
		inet_port_put(is);
		is->local.port = 0;
	}
	mutex_unlock(&is->sk.lock);
	return 0;
}

static int udp_connect(struct task *t, struct sock *sk, const struct sockaddr_storage *ss, int len,
		       bool nonblock)
{
	struct udp_sock *us = udp_of(sk);
	struct inet_sock *is = &us->inet;
	struct inet_addr to;
	struct in6_addr src;
	int err;

	if (ss->ss_family == AF_UNSPEC)
		return udp_disconnect(us);
	err = inet_addr_parse(is, ss, len, &to);
	if (err)
		return err;
	mutex_lock(&sk->lock);
	src = is->local.ip;
	/* Connected before: its address was chosen for that. */
	if (is->peer.port && !is->addr_locked)
		src = sk->family == AF_INET ? inet_any4 : inet_any6;
	err = inet_route(is, &to.ip, &src);
	if (!err && inet_is_broadcast(&to.ip) && !sk->broadcast)
		err = -EACCES;
	if (!err && !is->hashed)
		err = inet_port_get(is, 0);
	if (!err) {
		is->local.ip = src;
		if (!is->addr_locked)
			is->rcv = src;
		is->peer = to;
		inet_port_update(is);
	}
	mutex_unlock(&sk->lock);
	return err == -EADDRINUSE ? -EAGAIN : err;
}

/* ---- sending ---- */

/* What a message is to be: where, from where, how long. */
struct outgoing {
	struct inet_addr to, from;
	bool connected; /* to the socket's own peer */
	int ttl, tos;
};

/* The destination. sk.lock held. 0 or -errno. */
static int aim_locked(struct udp_sock *us, struct sock_msg *msg, struct outgoing *o)
{
	struct inet_sock *is = &us->inet;
	int err;

	o->connected = false;
	if (msg->namelen && msg->name.ss_family == AF_UNSPEC && is->sk.family == AF_INET &&
	    msg->namelen >= (int)sizeof(struct sockaddr_in)) {
		/* Old programs leave the family out. */
		msg->name.ss_family = AF_INET;
	}
	if (msg->namelen && !(is->sk.family == AF_INET6 && msg->name.ss_family == AF_UNSPEC)) {
		err = inet_addr_parse(is, &msg->name, msg->namelen, &o->to);
		if (err)
			return err;
		if (!o->to.port)
			return -EINVAL;
	} else {
		if (!is->peer.port)
			return -EDESTADDRREQ;
		o->to = is->peer;
		o->connected = true;
	}
	o->from.ip = is->local.ip;
	if (msg->namelen && is->peer.port && !is->addr_locked)
		o->from.ip = is->sk.family == AF_INET ? inet_any4 : inet_any6;
	if (msg->ip.have_addr && !inet_is_any(&msg->ip.addr))
		o->from.ip = msg->ip.addr;
	if (msg->ip.ifindex && msg->ip.ifindex != INET_LO)
		return -ENODEV;
	err = inet_route(is, &o->to.ip, &o->from.ip);
	if (err)
		return err;
	if (inet_is_broadcast(&o->to.ip) && !is->sk.broadcast)
		return -EACCES;
	if (!is->hashed) {
		err = inet_port_get(is, 0);
		if (err)
			return -EAGAIN;
	}
	o->from.port = is->local.port;
	if (inet_is4(&o->to.ip)) {
		o->ttl = inet_is_multicast(&o->to.ip) ? is->mcast_ttl : is->ttl;
		o->tos = is->tos;
	} else {
		o->ttl = inet_is_multicast(&o->to.ip) ? is->mcast_hops : is->hops;
		o->tos = is->tclass < 0 ? 0 : is->tclass;
	}
	if (o->ttl < 0)
		o->ttl = INET_TTL;
	if (msg->ip.have_ttl)
		o->ttl = msg->ip.ttl;
	if (msg->ip.have_tos)
		o->tos = msg->ip.tos;
	return 0;
}

/* A port-unreachable message for @p. sk.lock not held. */
static void refused(struct udp_sock *us, const struct udp_packet *p, bool connected)
{
	struct inet_sock *is = &us->inet;
	bool v4 = inet_is4(&p->to.ip), recverr = v4 ? is->recverr : is->recverr6, told = false;
	struct inet_error *e = NULL;

	if (recverr) {
		e = kmalloc(sizeof(*e) + p->len);
		if (e) {
			list_init(&e->node);
			e->dest = p->to;
			e->err = ECONNREFUSED;
			e->len = p->len;
			memcpy(e->data, p->data, p->len);
		}
	}
	mutex_lock(&is->sk.lock);
	if (e) {
		struct list_head *pos;
		int n = 0;

		list_for_each (pos, &is->errors)
			n++;
		if (n < ERRORS_MAX) {
			list_add_tail(&e->node, &is->errors);
			e = NULL;
		}
	}
	if (recverr || (connected && is->peer.port)) {
		is->sk.err = ECONNREFUSED;
		told = true;
	}
	mutex_unlock(&is->sk.lock);
	kfree(e);
	if (told)
		waitq_wake(&is->sk.wq, EPOLLERR);
}

/* Queues @p (consumed) at @us; it is lost if there is no room. */
static void receive(struct udp_sock *us, struct udp_packet *p)
{
	bool ok = false;

	mutex_lock(&us->inet.sk.lock);
	if (us->dead) {
		/* Closed since it was found. */
	} else if (us->rx_charge + p->charge > (size_t)us->inet.sk.rcvbuf) {
		us->drops++;
	} else {
		us->rx_charge += p->charge;
		list_add_tail(&p->node, &us->rxq);
		ok = true;
	}
	mutex_unlock(&us->inet.sk.lock);
	if (ok)
		waitq_wake(&us->inet.sk.wq, EV_IN);
	else
		kfree(p);
}

/* To everybody who gets a multicast or broadcast datagram. */
static void spread(struct udp_sock *us, struct udp_packet *p)
{
	for (unsigned int n = 0;; n++) {
		struct inet_sock *to = inet_find_udp_nth(us->inet.net, inet_proto_of(&us->inet),
							 &p->to, &p->from, n);
		struct udp_packet *copy;

		if (!to)
			break;
		copy = kmemdup(p, sizeof(*p) + p->len);
		if (copy) {
			list_init(&copy->node);
			receive(udp_of(&to->sk), copy);
		}
		sock_put(&to->sk);
	}
	kfree(p);
}

/* @p is consumed. */
static void transmit(struct udp_sock *us, struct udp_packet *p, bool connected)
{
	struct inet_sock *to;

	inet_count(us->inet.net, p->len + 42);
	if (inet_is_multicast(&p->to.ip) || inet_is_broadcast(&p->to.ip)) {
		spread(us, p);
		return;
	}
	to = inet_find_udp(us->inet.net, inet_proto_of(&us->inet), &p->to, &p->from);
	if (to) {
		receive(udp_of(&to->sk), p);
		sock_put(&to->sk);
		return;
	}
	refused(us, p, connected);
	kfree(p);
}

static struct udp_packet *packet_make(struct sock_msg *msg, const struct outgoing *o)
{
	size_t len = msg->iter.count;
	struct udp_packet *p = kmalloc(sizeof(*p) + len);

	if (!p)
		return ERR_PTR(-ENOMEM);
	memset(p, 0, sizeof(*p));
	list_init(&p->node);
	p->from = o->from;
	p->to = o->to;
	p->ttl = o->ttl;
	p->tos = o->tos;
	p->len = len;
	/* About what Linux charges: a buffer with room for headers, and what describes it. */
	p->charge = ALIGN_UP(len + 384, (size_t)256) + 256;
	clock_gettime(CLOCK_REALTIME, &p->stamp);
	if (iov_copy_from(&msg->iter, p->data, len) < len) {
		kfree(p);
		return ERR_PTR(-EFAULT);
	}
	return p;
}

/* Joins @more (consumed) to what is corked. sk.lock held. 0 or -errno. */
static int cork_locked(struct udp_sock *us, struct udp_packet *more)
{
	size_t have = us->cork ? us->cork->len : 0;
	struct udp_packet *all;

	if (!us->cork) {
		us->cork = more;
		return 0;
	}
	if (have + more->len > (inet_is4(&us->cork->to.ip) ? UDP_MAX4 : UDP_MAX6)) {
		kfree(more);
		return -EMSGSIZE;
	}
	all = krealloc(us->cork, sizeof(*all) + have + more->len);
	if (!all) {
		kfree(more);
		return -ENOMEM;
	}
	list_init(&all->node);
	memcpy(all->data + have, more->data, more->len);
	all->len += more->len;
	all->charge += more->len;
	us->cork = all;
	kfree(more);
	return 0;
}

static ssize_t udp_sendmsg(struct task *t, struct sock *sk, struct sock_msg *msg)
{
	struct udp_sock *us = udp_of(sk);
	size_t len = msg->iter.count;
	struct udp_packet *p = NULL;
	struct outgoing o;
	bool corked = false;
	int err;

	if (len > 0xffff)
		return -EMSGSIZE;
	if (msg->flags & MSG_OOB)
		return -EOPNOTSUPP;
	mutex_lock(&sk->lock);
	err = aim_locked(us, msg, &o);
	if (!err && us->inet.sk.err) {
		err = -us->inet.sk.err;
		us->inet.sk.err = 0;
	}
	if (!err && (us->shutdown & 2))
		err = -EPIPE;
	if (!err && len > (inet_is4(&o.to.ip) ? UDP_MAX4 : UDP_MAX6))
		err = -EMSGSIZE;
	mutex_unlock(&sk->lock);
	if (err)
		return err;
	p = packet_make(msg, &o);
	if (IS_ERR(p))
		return PTR_ERR(p);
	mutex_lock(&sk->lock);
	if (us->cork || us->cork_option || (msg->flags & MSG_MORE)) {
		err = cork_locked(us, p);
		p = NULL;
		corked = us->cork_option || (msg->flags & MSG_MORE);
		if (!err && !corked) {
			p = us->cork;
			us->cork = NULL;
		}
	}
	mutex_unlock(&sk->lock);
	if (err)
		return err;
	if (p)
		transmit(us, p, o.connected);
	return (ssize_t)len;
}

void udp_set_cork(struct udp_sock *us, bool on)
{
	struct udp_packet *p = NULL;

	mutex_lock(&us->inet.sk.lock);
	us->cork_option = on;
	if (!on) {
		p = us->cork;
		us->cork = NULL;
	}
	mutex_unlock(&us->inet.sk.lock);
	if (p)
		transmit(us, p, us->inet.peer.port);
}

/* ---- receiving ---- */

/* MSG_ERRQUEUE: what came back, with the bytes that were sent. */
static ssize_t recv_error(struct udp_sock *us, struct sock_msg *msg)
{
	struct inet_sock *is = &us->inet;
	struct inet_error *e = NULL;
	ssize_t n;

	mutex_lock(&is->sk.lock);
	if (!list_empty(&is->errors)) {
		e = list_first_entry(&is->errors, struct inet_error, node);
		list_del(&e->node);
	}
	/* The next one shows as an error again. */
	is->sk.err = list_empty(&is->errors) ? 0 : ECONNREFUSED;
	mutex_unlock(&is->sk.lock);
	if (!e)
		return -EAGAIN;
	n = (ssize_t)iov_copy_to(&msg->iter, e->data, MIN(e->len, msg->iter.count));
	if ((size_t)n < e->len)
		msg->out_flags |= MSG_TRUNC;
	msg->out_flags |= MSG_ERRQUEUE;
	msg->namelen = inet_addr_show(is, &e->dest, &msg->name);
	msg->ip.err = e->err;
	msg->ip.offender = e->dest.ip;
	kfree(e);
	return n;
}

/* What there is to say of @p beside its bytes. */
static void describe(struct udp_sock *us, struct sock_msg *msg, const struct udp_packet *p)
{
	msg->namelen = inet_addr_show(&us->inet, &p->from, &msg->name);
	msg->ip.have_addr = msg->ip.have_ttl = msg->ip.have_tos = msg->ip.have_stamp = true;
	msg->ip.addr = p->to.ip;
	msg->ip.ifindex = INET_LO;
	msg->ip.ttl = p->ttl;
	msg->ip.tos = p->tos;
	msg->ip.stamp = p->stamp;
	msg->ip.drops = us->drops;
}

static ssize_t udp_recvmsg(struct task *t, struct sock *sk, struct sock_msg *msg)
{
	struct udp_sock *us = udp_of(sk);
	bool peek = msg->flags & MSG_PEEK;
	struct udp_packet *p;
	ssize_t ret;

	if (msg->flags & MSG_ERRQUEUE)
		return recv_error(us, msg);
	if (msg->flags & MSG_OOB)
		return -EOPNOTSUPP;
	mutex_lock(&sk->lock);
	if (sk->err) {
		ret = -sk->err;
		sk->err = 0;
		goto out_unlock;
	}
	if (list_empty(&us->rxq)) {
		ret = us->shutdown & 1 ? 0 : -EAGAIN;
		goto out_unlock;
	}
	p = list_first_entry(&us->rxq, struct udp_packet, node);
	ret = sock_msg_store(msg, p->data, p->len);
	if (ret >= 0)
		describe(us, msg, p);
	if (!peek) {
		list_del(&p->node);
		us->rx_charge -= p->charge;
		kfree(p);
	}
out_unlock:
	mutex_unlock(&sk->lock);
	return ret;
}

/* ---- the rest of the operations ---- */

static int udp_listen(struct task *t, struct sock *sk, int backlog)
{
	return -EOPNOTSUPP;
}

static struct sock *udp_accept(struct sock *sk)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static int udp_shutdown(struct sock *sk, int how)
{
	struct udp_sock *us = udp_of(sk);
	int err;

	mutex_lock(&sk->lock);
	err = us->inet.peer.port ? 0 : -ENOTCONN;
	us->shutdown |= (unsigned int)how + 1;
	mutex_unlock(&sk->lock);
	waitq_wake(&sk->wq, EV_ALL);
	return err;
}

static uint32_t udp_poll(struct sock *sk)
{
	struct udp_sock *us = udp_of(sk);
	uint32_t ev = EV_OUT;

	mutex_lock(&sk->lock);
	if (sk->err || !list_empty(&us->inet.errors))
		ev |= EPOLLERR;
	if (us->shutdown & 1)
		ev |= EPOLLRDHUP | EV_IN;
	if (us->shutdown == 3)
		ev |= EPOLLHUP;
	if (!list_empty(&us->rxq))
		ev |= EV_IN;
	mutex_unlock(&sk->lock);
	return ev;
}

static long udp_ioctl(const struct vfs_ctx *ctx, struct sock *sk, unsigned int cmd,
		      unsigned long arg)
{
	struct udp_sock *us = udp_of(sk);
	int value = 0;

	switch (cmd) {
	case SIOCINQ:
		mutex_lock(&sk->lock);
		if (!list_empty(&us->rxq))
			value = (int)list_first_entry(&us->rxq, struct udp_packet, node)->len;
		mutex_unlock(&sk->lock);
		break;
	case SIOCOUTQ:
		break;
	default:
		return -ENOTTY;
	}
	return copy_to_user(ctx->um, arg, &value, sizeof(value));
}

static const struct sock_ops udp_ops = {
	.bind = inet_bind_addr,
	.connect = udp_connect,
	.listen = udp_listen,
	.accept = udp_accept,
	.getname = inet_getname,
	.sendmsg = udp_sendmsg,
	.recvmsg = udp_recvmsg,
	.shutdown = udp_shutdown,
	.peercred = inet_peercred,
	.ioctl = udp_ioctl,
	.poll = udp_poll,
	.setsockopt = inet_setsockopt,
	.getsockopt = inet_getsockopt,
	.put_cmsgs = inet_put_cmsgs,
	.parse_cmsg = inet_parse_cmsg,
	.release = udp_release,
	.free = udp_free,
};
