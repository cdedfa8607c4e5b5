/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP over loopback: connections. There is no protocol: each end has a queue of what it has
 * received, and its state is what TCP's would be after all segments and their acknowledgements have
 * arrived.
 *
 *	CLOSE ──listen──▶ LISTEN
 *	CLOSE ──connect──▶ SYN_SENT ──the listener has room──▶ ESTABLISHED
 *	ESTABLISHED ──shutdown or close──▶ FIN_WAIT2 ──the peer's──▶ CLOSE (its port in TIME_WAIT)
 *	ESTABLISHED ──the peer's──▶ CLOSE_WAIT ──shutdown or close──▶ CLOSE
 *	any ──reset──▶ CLOSE with sk.err
 *
 * connect makes the server's end, too, and puts it on the listener's queue. If that is full the
 * connecting socket waits on the listener's synq; accept, which makes room, completes it. The two
 * ends hold each other until each is closed; an end whose file is gone stays as what its peer
 * sends to, and that is answered by a reset.
 *
 * Nobody holds two ends' locks: an end is told of the other's doings after that has let go of its
 * own. Whether bytes or an end of stream come in is decided under the receiver's lock. A listener's
 * and a connecting socket's lock are held together under the handshake lock only.
 */
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"
#include "sentry/syscalls.h"

#define TCP_SNDBUF_FRESH 16384	 /* net.ipv4.tcp_wmem[1] */
#define TCP_SNDBUF_LO	 2626560 /* what Linux gives a connection over loopback */
#define TCP_RCVBUF	 131072	 /* net.ipv4.tcp_rmem[1] */
#define SYN_SECONDS	 127	 /* until ETIMEDOUT: tcp_syn_retries 6 */

OBJTYPE(tcp_type, "tcp_sock")

static const struct sock_ops tcp_ops;

static struct mutex handshake = {.m = PTHREAD_MUTEX_INITIALIZER,
#ifdef LOCK_DEBUG
				 .rank = LOCK_STREAM
#endif
};

struct tcp_sock *tcp_alloc(struct net_ns *net, int family)
{
	struct tcp_sock *ts = kzalloc(sizeof(*ts));

	if (!ts)
		return NULL;
	if (inet_sock_init(&ts->inet, &tcp_ops, net, family, SOCK_STREAM, IPPROTO_TCP)) {
		kfree(ts);
		return NULL;
	}
	ts->inet.sk.sndbuf = TCP_SNDBUF_FRESH;
	ts->inet.sk.rcvbuf = TCP_RCVBUF;
	atomic_store(&ts->state, TCP_CLOSE);
	list_init(&ts->rxq);
	list_init(&ts->acceptq);
	list_init(&ts->synq);
	list_init(&ts->queue_node);
	ts->keepidle = 7200;
	ts->keepintvl = 75;
	ts->keepcnt = 9;
	ts->quickack = true;
	strcpy(ts->congestion, "cubic");
	objtype_inc(&tcp_type);
	return ts;
}

static void tcp_free(struct sock *sk)
{
	struct tcp_sock *ts = tcp_of(sk);

	tcp_drop_queue(ts);
	inet_sock_fini(&ts->inet);
	objtype_dec(&tcp_type);
	kfree(ts);
}

int tcp_create(struct task *t, int family, struct sock **out)
{
	struct tcp_sock *ts = tcp_alloc(t->net, family);

	if (!ts)
		return -ENOMEM;
	ts->inet.bind->uid = t->vfs.cred->fsuid;
	*out = &ts->inet.sk;
	return 0;
}

static int state_of(const struct tcp_sock *ts)
{
	return atomic_load(&((struct tcp_sock *)(uintptr_t)ts)->state);
}

static bool is_connected(int state)
{
	return state == TCP_ESTABLISHED || state == TCP_FIN_WAIT2 || state == TCP_CLOSE_WAIT;
}

void tcp_state_wake(struct tcp_sock *ts)
{
	waitq_wake(&ts->inet.sk.wq, EV_ALL);
}

/* ---- ends ---- */

/* The connection is over for @ts. sk.lock held. */
static void done_locked(struct tcp_sock *ts, bool time_wait)
{
	atomic_store(&ts->state, TCP_CLOSE);
	ts->shutdown = 3;
	if (time_wait)
		inet_port_time_wait(&ts->inet);
	else if (!ts->inet.port_locked || ts->dead)
		inet_port_put(&ts->inet);
}

void tcp_reset(struct tcp_sock *ts)
{
	struct tcp_sock *waited_for = NULL;
	int state;

	mutex_lock(&ts->inet.sk.lock);
	state = state_of(ts);
	if (state == TCP_SYN_SENT) {
		waited_for = ts->waits_on;
		ts->waits_on = NULL;
	}
	if (state != TCP_CLOSE && state != TCP_LISTEN) {
		ts->inet.sk.err = state == TCP_SYN_SENT	    ? ECONNREFUSED
				  : state == TCP_CLOSE_WAIT ? EPIPE
							    : ECONNRESET;
		done_locked(ts, false);
	}
	mutex_unlock(&ts->inet.sk.lock);
	tcp_put(waited_for);
	tcp_state_wake(ts);
}

/* The peer's end of stream has come. */
static void fin_received(struct tcp_sock *ts)
{
	mutex_lock(&ts->inet.sk.lock);
	ts->fin = true;
	ts->shutdown |= 1;
	if (state_of(ts) == TCP_ESTABLISHED)
		atomic_store(&ts->state, TCP_CLOSE_WAIT);
	else if (state_of(ts) == TCP_FIN_WAIT2)
		done_locked(ts, true);
	mutex_unlock(&ts->inet.sk.lock);
	tcp_state_wake(ts);
}

/*
 * Sends the end of stream, unless it has been. sk.lock held. Returns the peer to be told
 * (reference), or NULL.
 */
static struct tcp_sock *fin_locked(struct tcp_sock *ts)
{
	ts->shutdown |= 2;
	if (state_of(ts) == TCP_ESTABLISHED)
		atomic_store(&ts->state, TCP_FIN_WAIT2);
	else if (state_of(ts) == TCP_CLOSE_WAIT)
		done_locked(ts, false);
	else
		return NULL;
	return ts->peer ? tcp_get(ts->peer) : NULL;
}

static void tell_fin(struct tcp_sock *peer)
{
	if (!peer)
		return;
	fin_received(peer);
	tcp_put(peer);
}

static void tell_reset(struct tcp_sock *peer)
{
	if (!peer)
		return;
	tcp_reset(peer);
	tcp_put(peer);
}

/* Stops listening; what hasn't been accepted goes to @orphans. sk.lock held. */
static void unlisten_locked(struct tcp_sock *ts, struct list_head *orphans)
{
	list_init(orphans);
	if (state_of(ts) != TCP_LISTEN)
		return;
	atomic_store(&ts->state, TCP_CLOSE);
	ts->accept_fn = NULL;
	list_splice_tail(&ts->acceptq, orphans);
	atomic_store(&ts->npending, 0);
	inet_port_unlisten(&ts->inet);
	if (!ts->inet.port_locked || ts->dead)
		inet_port_put(&ts->inet);
}

/* @ts no longer listens: nobody will accept @orphans, nor who waits for room. No locks held. */
static void refuse_all(struct tcp_sock *ts, struct list_head *orphans)
{
	while (!list_empty(orphans)) {
		struct tcp_sock *end = list_first_entry(orphans, struct tcp_sock, queue_node);

		list_del(&end->queue_node);
		tcp_close(end, true);
		tcp_put(end);
	}
	for (;;) {
		struct tcp_sock *c = NULL;

		mutex_lock(&ts->inet.sk.lock);
		if (state_of(ts) != TCP_LISTEN && !list_empty(&ts->synq)) {
			c = list_first_entry(&ts->synq, struct tcp_sock, queue_node);
			list_del(&c->queue_node);
		}
		mutex_unlock(&ts->inet.sk.lock);
		if (!c)
			return;
		tcp_reset(c);
		tcp_put(c);
	}
}

/* Takes @ts, which waited for @to, off its queue. No locks held. Consumes the reference @to. */
static void stop_waiting(struct tcp_sock *ts, struct tcp_sock *to)
{
	bool was_on;

	if (!to)
		return;
	mutex_lock(&to->inet.sk.lock);
	was_on = !list_empty(&ts->queue_node);
	list_del(&ts->queue_node);
	mutex_unlock(&to->inet.sk.lock);
	if (was_on)
		tcp_put(ts);
	tcp_put(to);
}

void tcp_close(struct tcp_sock *ts, bool abort)
{
	struct tcp_sock *peer, *told = NULL, *waits_on;
	struct list_head orphans;
	bool reset;

	mutex_lock(&ts->inet.sk.lock);
	ts->dead = true;
	ts->inet.sk.file = NULL;
	reset = abort || atomic_load(&ts->rx_bytes) ||
		(ts->inet.sk.linger.l_onoff && !ts->inet.sk.linger.l_linger);
	unlisten_locked(ts, &orphans);
	waits_on = ts->waits_on;
	ts->waits_on = NULL;
	peer = ts->peer;
	ts->peer = NULL;
	if (is_connected(state_of(ts)) && reset) {
		done_locked(ts, false);
		told = peer ? tcp_get(peer) : NULL;
	} else if (is_connected(state_of(ts))) {
		ts->peer = peer;
		told = fin_locked(ts);
		ts->peer = NULL;
		/* Waiting for the peer's, as in TIME_WAIT: only the port is left of us. */
		if (state_of(ts) == TCP_FIN_WAIT2)
			done_locked(ts, true);
	} else {
		atomic_store(&ts->state, TCP_CLOSE);
	}
	ts->shutdown = 3;
	inet_port_put(&ts->inet);
	tcp_drop_queue(ts);
	mutex_unlock(&ts->inet.sk.lock);
	stop_waiting(ts, waits_on);
	if (reset)
		tell_reset(told);
	else
		tell_fin(told);
	tcp_put(peer);
	refuse_all(ts, &orphans);
	tcp_state_wake(ts);
}

static void tcp_release(struct sock *sk)
{
	tcp_close(tcp_of(sk), false);
}

/* Undoes whatever it is: connect(2) with AF_UNSPEC, shutdown(2) of a listener. No locks held. */
static void disconnect(struct tcp_sock *ts)
{
	struct tcp_sock *peer, *waits_on;
	struct list_head orphans;
	bool reset;
	int state;

	mutex_lock(&ts->inet.sk.lock);
	state = state_of(ts);
	unlisten_locked(ts, &orphans);
	reset = is_connected(state);
	if (reset || state == TCP_SYN_SENT)
		ts->inet.sk.err = ECONNRESET;
	waits_on = ts->waits_on;
	ts->waits_on = NULL;
	peer = ts->peer;
	ts->peer = NULL;
	if (state != TCP_LISTEN)
		done_locked(ts, false);
	ts->shutdown = 0;
	ts->fin = false;
	ts->urg = URGENT_NONE;
	tcp_drop_queue(ts);
	memset(&ts->inet.peer, 0, sizeof(ts->inet.peer));
	ts->inet.peer.ip = ts->inet.sk.family == AF_INET ? inet_any4 : inet_any6;
	if (!ts->inet.addr_locked)
		ts->inet.rcv = ts->inet.local.ip = ts->inet.peer.ip;
	if (!ts->inet.hashed)
		ts->inet.local.port = 0;
	inet_port_update(&ts->inet);
	mutex_unlock(&ts->inet.sk.lock);
	stop_waiting(ts, waits_on);
	if (peer && reset)
		tcp_reset(peer);
	tcp_put(peer);
	refuse_all(ts, &orphans);
	tcp_state_wake(ts);
}

int tcp_shutdown(struct sock *sk, int how)
{
	struct tcp_sock *ts = tcp_of(sk), *told = NULL;
	bool undo = false;
	int err = 0;

	mutex_lock(&sk->lock);
	if (ts->conn == SOCKET_CONNECTING) {
		int state = state_of(ts);

		ts->conn = state == TCP_SYN_SENT || state == TCP_CLOSE ? SOCKET_DISCONNECTING
								       : SOCKET_CONNECTED;
	}
	switch (state_of(ts)) {
	case TCP_LISTEN:
		undo = how != SHUT_WR;
		break;
	case TCP_SYN_SENT:
		undo = true;
		break;
	case TCP_CLOSE:
		err = -ENOTCONN;
		ts->shutdown |= (unsigned int)how + 1;
		break;
	default:
		ts->shutdown |= ((unsigned int)how + 1) & 1;
		if (how != SHUT_RD)
			told = fin_locked(ts);
	}
	if (undo)
		ts->conn = SOCKET_UNCONNECTED;
	mutex_unlock(&sk->lock);
	if (undo)
		disconnect(ts);
	tell_fin(told);
	tcp_state_wake(ts);
	return err;
}

/* ---- connecting ---- */

/* The server's end of @c's connection to @to. NULL: no memory. Locks of @to and @c held. */
static struct tcp_sock *make_end(struct tcp_sock *to, struct tcp_sock *c)
{
	struct tcp_sock *end = tcp_alloc(to->inet.net, to->inet.sk.family);
	struct sock *from = &to->inet.sk;

	if (!end)
		return NULL;
	/* What accept(2)'s socket inherits. */
	end->inet.sk.sndbuf = from->sndbuf;
	end->inet.sk.rcvbuf = from->rcvbuf;
	end->inet.sk.bufs_set = from->bufs_set;
	end->inet.sk.reuseaddr = from->reuseaddr;
	end->inet.sk.reuseport = from->reuseport;
	end->inet.sk.keepalive = from->keepalive;
	end->inet.sk.oobinline = from->oobinline;
	end->inet.sk.priority = from->priority;
	end->inet.sk.rcvlowat = from->rcvlowat;
	end->inet.sk.linger = from->linger;
	end->inet.sk.rcvtimeo = from->rcvtimeo;
	end->inet.sk.sndtimeo = from->sndtimeo;
	end->inet.v6only = to->inet.v6only;
	end->inet.ttl = to->inet.ttl;
	end->inet.tos = to->inet.tos;
	end->inet.hops = to->inet.hops;
	end->inet.tclass = to->inet.tclass;
	end->inet.device = to->inet.device;
	end->inet.mark = to->inet.mark;
	end->nodelay = to->nodelay;
	end->keepidle = to->keepidle;
	end->keepintvl = to->keepintvl;
	end->keepcnt = to->keepcnt;
	end->user_timeout = to->user_timeout;
	end->maxseg = to->maxseg;
	end->linger2 = to->linger2;
	end->notsent_lowat = to->notsent_lowat;
	memcpy(end->congestion, to->congestion, sizeof(end->congestion));
	end->inet.local = c->inet.peer;
	end->inet.peer = c->inet.local;
	end->inet.rcv = end->inet.local.ip;
	end->conn = SOCKET_CONNECTED;
	inet_port_inherit(&end->inet, &to->inet);
	return end;
}

static void grow_sndbuf(struct tcp_sock *ts)
{
	if (!(ts->inet.sk.bufs_set & SOCK_SNDBUF_SET))
		ts->inet.sk.sndbuf = TCP_SNDBUF_LO;
}

/*
 * Connects @c, which is in TCP_SYN_SENT, to @to, which listens. Locks of both held. 0, -ENOMEM.
 * @end gets the server's end with a reference; what to do with it is the caller's.
 */
static int establish_locked(struct tcp_sock *to, struct tcp_sock *c, struct tcp_sock **end)
{
	struct tcp_sock *e = make_end(to, c);

	if (!e)
		return -ENOMEM;
	grow_sndbuf(e);
	grow_sndbuf(c);
	e->peer = tcp_get(c);
	c->peer = tcp_get(e);
	atomic_store(&e->state, TCP_ESTABLISHED);
	atomic_store(&c->state, TCP_ESTABLISHED);
	inet_count(c->inet.net, 74);
	inet_count(c->inet.net, 74);
	inet_count(c->inet.net, 66);
	*end = e;
	return 0;
}

/*
 * Offers @c to @to: established (0), queued until there is room (0), -ECONNREFUSED or -ENOMEM. No
 * locks held.
 */
static int offer(struct tcp_sock *to, struct tcp_sock *c)
{
	void (*fn)(struct inet_stream * s, void *arg) = NULL;
	struct tcp_sock *end = NULL;
	void *arg = NULL;
	int err = 0;

	mutex_lock(&handshake);
	mutex_lock_nested(&to->inet.sk.lock);
	mutex_lock_nested(&c->inet.sk.lock);
	if (state_of(to) != TCP_LISTEN || to->dead) {
		err = -ECONNREFUSED;
	} else if (state_of(c) != TCP_SYN_SENT) {
		/* Closed or shut down by another thread meanwhile. */
		err = -ECONNABORTED;
	} else if (!to->accept_fn && atomic_load(&to->npending) > to->backlog) {
		list_add_tail(&tcp_get(c)->queue_node, &to->synq);
		c->waits_on = tcp_get(to);
	} else {
		err = establish_locked(to, c, &end);
		fn = to->accept_fn;
		arg = to->accept_arg;
		if (!err && !fn) {
			list_add_tail(&end->queue_node, &to->acceptq);
			atomic_fetch_add(&to->npending, 1);
		}
	}
	mutex_unlock(&c->inet.sk.lock);
	mutex_unlock(&to->inet.sk.lock);
	mutex_unlock(&handshake);
	if (!end)
		return err;
	if (fn)
		fn((struct inet_stream *)end, arg);
	else
		waitq_wake(&to->inet.sk.wq, EV_IN);
	return 0;
}

/* Connects a socket to itself: both SYNs cross. */
static bool connect_to_self(struct tcp_sock *ts)
{
	bool self;

	mutex_lock(&ts->inet.sk.lock);
	self = state_of(ts) == TCP_SYN_SENT && ts->inet.peer.port == ts->inet.local.port &&
	       !memcmp(&ts->inet.peer.ip, &ts->inet.local.ip, sizeof(ts->inet.peer.ip));
	if (self) {
		ts->peer = tcp_get(ts);
		grow_sndbuf(ts);
		atomic_store(&ts->state, TCP_ESTABLISHED);
	}
	mutex_unlock(&ts->inet.sk.lock);
	return self;
}

/* Forgets where it wanted to. sk.lock held. */
static void connect_failed_locked(struct tcp_sock *ts)
{
	struct inet_sock *is = &ts->inet;

	atomic_store(&ts->state, TCP_CLOSE);
	memset(&is->peer, 0, sizeof(is->peer));
	is->peer.ip = is->sk.family == AF_INET ? inet_any4 : inet_any6;
	if (!is->addr_locked)
		is->rcv = is->local.ip = is->peer.ip;
	if (!is->port_locked) {
		inet_port_put(is);
		is->local.port = 0;
	}
	inet_port_update(is);
}

/* Names both ends: a route, a port. sk.lock held. */
static int name_locked(struct tcp_sock *ts, const struct inet_addr *dst)
{
	struct inet_sock *is = &ts->inet;
	struct in6_addr src = is->local.ip;
	struct inet_addr to = *dst;
	int err;

	err = inet_route(is, &to.ip, &src);
	if (!err && (inet_is_multicast(&to.ip) || inet_is_broadcast(&to.ip)))
		err = -ENETUNREACH;
	if (err)
		return err;
	is->local.ip = is->rcv = src;
	is->peer = to;
	err = inet_port_get_connect(is);
	if (err)
		return err;
	atomic_store(&ts->state, TCP_SYN_SENT);
	ts->shutdown = 0;
	ts->fin = false;
	ts->urg = URGENT_NONE;
	return 0;
}

int tcp_start_connect(struct tcp_sock *ts, const struct inet_addr *dst)
{
	struct inet_addr to, from;
	struct inet_sock *found;
	int err;

	mutex_lock(&ts->inet.sk.lock);
	err = name_locked(ts, dst);
	if (err) {
		connect_failed_locked(ts);
		mutex_unlock(&ts->inet.sk.lock);
		return err;
	}
	to = ts->inet.peer;
	from = ts->inet.local;
	mutex_unlock(&ts->inet.sk.lock);

	found = to.port ? inet_find_listener(ts->inet.net, &to, &from) : NULL;
	if (found) {
		err = offer(tcp_of(&found->sk), ts);
		sock_put(&found->sk);
	} else if (!connect_to_self(ts)) {
		err = -ECONNREFUSED;
	}
	if (err == -ECONNREFUSED)
		tcp_reset(ts);
	else if (err == -ENOMEM)
		disconnect(ts);
	tcp_state_wake(ts);
	return err == -ENOMEM ? err : 0;
}

/* What connect(2) says now. -EAGAIN: it goes on. */
static long connect_result(void *arg)
{
	struct tcp_sock *ts = arg;
	long ret = 0;

	mutex_lock(&ts->inet.sk.lock);
	if (state_of(ts) == TCP_SYN_SENT) {
		ret = -EAGAIN;
	} else if (state_of(ts) == TCP_CLOSE) {
		ret = ts->inet.sk.err ? -ts->inet.sk.err : -ECONNABORTED;
		ts->inet.sk.err = 0;
		ts->conn = SOCKET_UNCONNECTED;
	} else {
		ts->conn = SOCKET_CONNECTED;
	}
	mutex_unlock(&ts->inet.sk.lock);
	if (ret && ret != -EAGAIN) {
		disconnect(ts);
		sock_take_error(&ts->inet.sk);
	}
	return ret;
}

/* Waits for a connection in progress. @first: this call began it. */
static int connect_wait(struct task *t, struct tcp_sock *ts, bool first)
{
	const struct timespec limit = {.tv_sec = SYN_SECONDS};
	struct timespec deadline;
	bool timed = sock_deadline(t, &ts->inet.sk, true, &deadline);
	long ret;

	if (!timed)
		deadline_after(&deadline, &limit);
	ret = task_retry(t, &ts->inet.sk.wq, EPOLLOUT | EPOLLERR | EPOLLHUP, false, &deadline,
			 connect_result, ts);
	if (ret == -EAGAIN && !timed) {
		disconnect(ts);
		sock_take_error(&ts->inet.sk);
		mutex_lock(&ts->inet.sk.lock);
		ts->conn = SOCKET_UNCONNECTED;
		mutex_unlock(&ts->inet.sk.lock);
		return -ETIMEDOUT;
	}
	if (ret == -EAGAIN)
		return first ? -EINPROGRESS : -EALREADY;
	return ret == -ERESTARTSYS && timed ? -EINTR : (int)ret;
}

static int tcp_connect(struct task *t, struct sock *sk, const struct sockaddr_storage *ss, int len,
		       bool nonblock)
{
	struct tcp_sock *ts = tcp_of(sk);
	struct inet_addr dst;
	int err = 0;
	bool start = false;

	if (ss->ss_family == AF_UNSPEC) {
		disconnect(ts);
		mutex_lock(&sk->lock);
		ts->conn = SOCKET_UNCONNECTED;
		mutex_unlock(&sk->lock);
		return 0;
	}
	mutex_lock(&sk->lock);
	switch (ts->conn) {
	case SOCKET_CONNECTED:
		err = -EISCONN;
		break;
	case SOCKET_DISCONNECTING:
		err = -EINVAL;
		break;
	case SOCKET_CONNECTING:
		if (state_of(ts) == TCP_SYN_SENT && nonblock)
			err = -EALREADY;
		break;
	default:
		start = true;
		if (state_of(ts) != TCP_CLOSE)
			err = -EISCONN;
		else
			err = inet_addr_parse(&ts->inet, ss, len, &dst);
		if (!err)
			ts->conn = SOCKET_CONNECTING;
	}
	mutex_unlock(&sk->lock);
	if (err)
		return err;
	if (start) {
		ts->inet.bind->uid = t->vfs.cred->fsuid;
		err = tcp_start_connect(ts, &dst);
		if (err) {
			mutex_lock(&sk->lock);
			ts->conn = SOCKET_UNCONNECTED;
			mutex_unlock(&sk->lock);
			return err;
		}
		/* On loopback, too, Linux has done no more than send when it returns. */
		if (nonblock)
			return -EINPROGRESS;
	}
	return connect_wait(t, ts, start);
}

/* ---- listening ---- */

int tcp_listen_start(struct tcp_sock *ts, int backlog, uid_t uid)
{
	int err = 0;

	mutex_lock(&ts->inet.sk.lock);
	if (ts->conn != SOCKET_UNCONNECTED ||
	    (state_of(ts) != TCP_CLOSE && state_of(ts) != TCP_LISTEN)) {
		err = -EINVAL;
		goto out_unlock;
	}
	if (state_of(ts) == TCP_CLOSE) {
		if (!ts->inet.hashed) {
			ts->inet.bind->uid = uid;
			err = inet_port_get(&ts->inet, 0);
		}
		if (!err)
			err = inet_port_listen(&ts->inet);
		if (err) {
			if (!ts->inet.port_locked)
				inet_port_put(&ts->inet);
			goto out_unlock;
		}
		ts->shutdown = 0;
		atomic_store(&ts->state, TCP_LISTEN);
	}
	ts->backlog = MIN((unsigned int)backlog, INET_SOMAXCONN);
out_unlock:
	mutex_unlock(&ts->inet.sk.lock);
	if (!err)
		waitq_wake(&ts->inet.net->inet->listen_wq, EPOLLIN);
	return err;
}

static int tcp_listen(struct task *t, struct sock *sk, int backlog)
{
	return tcp_listen_start(tcp_of(sk), backlog, t->vfs.cred->fsuid);
}

/* Completes the connections that have waited for room. */
static void serve_waiting(struct tcp_sock *ts)
{
	for (;;) {
		struct tcp_sock *c = NULL, *end = NULL, *to = NULL;

		mutex_lock(&handshake);
		mutex_lock_nested(&ts->inet.sk.lock);
		if (state_of(ts) == TCP_LISTEN && !list_empty(&ts->synq) &&
		    atomic_load(&ts->npending) <= ts->backlog) {
			c = list_first_entry(&ts->synq, struct tcp_sock, queue_node);
			list_del(&c->queue_node);
			mutex_lock_nested(&c->inet.sk.lock);
			to = c->waits_on;
			c->waits_on = NULL;
			if (state_of(c) == TCP_SYN_SENT && !establish_locked(ts, c, &end)) {
				list_add_tail(&end->queue_node, &ts->acceptq);
				atomic_fetch_add(&ts->npending, 1);
			}
			mutex_unlock(&c->inet.sk.lock);
		}
		mutex_unlock(&ts->inet.sk.lock);
		mutex_unlock(&handshake);
		if (!c)
			return;
		if (!end)
			tcp_reset(c);
		else
			waitq_wake(&ts->inet.sk.wq, EV_IN);
		tcp_state_wake(c);
		tcp_put(c);
		tcp_put(to);
	}
}

static struct sock *tcp_accept(struct sock *sk)
{
	struct tcp_sock *ts = tcp_of(sk), *end = NULL;
	int err = -EAGAIN;

	mutex_lock(&sk->lock);
	if (state_of(ts) != TCP_LISTEN) {
		err = -EINVAL;
	} else if (!list_empty(&ts->acceptq)) {
		end = list_first_entry(&ts->acceptq, struct tcp_sock, queue_node);
		list_del(&end->queue_node);
		atomic_fetch_sub(&ts->npending, 1);
	}
	mutex_unlock(&sk->lock);
	if (!end)
		return ERR_PTR(err);
	serve_waiting(ts);
	waitq_wake(&ts->inet.net->inet->listen_wq, EPOLLIN);
	return &end->inet.sk;
}

static bool tcp_listening(struct sock *sk)
{
	return state_of(tcp_of(sk)) == TCP_LISTEN;
}

static const struct sock_ops tcp_ops = {
	.bind = inet_bind_addr,
	.connect = tcp_connect,
	.listen = tcp_listen,
	.accept = tcp_accept,
	.getname = inet_getname,
	.sendmsg = tcp_sendmsg,
	.recvmsg = tcp_recvmsg,
	.shutdown = tcp_shutdown,
	.peercred = inet_peercred,
	.listening = tcp_listening,
	.ioctl = tcp_ioctl,
	.poll = tcp_poll,
	.setsockopt = inet_setsockopt,
	.getsockopt = inet_getsockopt,
	.put_cmsgs = inet_put_cmsgs,
	.parse_cmsg = inet_parse_cmsg,
	.release = tcp_release,
	.free = tcp_free,
};
