/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP over loopback: the bytes. A sender copies into pieces without a lock and puts them on the
 * receiver's queue. What is queued within the receiver's window counts as received and
 * acknowledged, the rest as still with the sender: it may have sk.sndbuf of that.
 *
 * One byte may be urgent (MSG_OOB): it is in the queue like any other, and is skipped there and
 * kept aside unless SO_OOBINLINE. Source: tcp.c and tcp_input.c of Linux.
 */
#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <time.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"

#define PIECE_MAX 65536u /* of one write */
#define PIECE_MIN 2048u	 /* room in a piece, for small writes to go on in */

static int state_of(const struct tcp_sock *ts)
{
	return atomic_load(&((struct tcp_sock *)(uintptr_t)ts)->state);
}

void tcp_drop_queue(struct tcp_sock *ts)
{
	while (!list_empty(&ts->rxq)) {
		struct tcp_piece *p = list_first_entry(&ts->rxq, struct tcp_piece, node);

		list_del(&p->node);
		kfree(p);
	}
	atomic_store(&ts->rx_bytes, 0);
}

/* ---- room ---- */

/* What @ts has sent that @peer's window has no room for. */
static size_t unsent(struct tcp_sock *ts, struct tcp_sock *peer)
{
	size_t queued = atomic_load(&peer->rx_bytes), window = (size_t)peer->inet.sk.rcvbuf;
	size_t n = queued > window ? queued - window : 0;

	atomic_store_explicit(&ts->unsent_hint, n, memory_order_relaxed);
	return n;
}

/* Linux's sk_stream_is_writeable: a third of the buffer is free. */
static bool has_room(struct tcp_sock *ts, struct tcp_sock *peer)
{
	return unsent(ts, peer) * 3 <= (size_t)ts->inet.sk.sndbuf * 2;
}

static size_t room(struct tcp_sock *ts, struct tcp_sock *peer)
{
	size_t n = unsent(ts, peer), window = (size_t)peer->inet.sk.rcvbuf;
	size_t queued = atomic_load(&peer->rx_bytes), limit = (size_t)ts->inet.sk.sndbuf;

	if (queued < window)
		return window - queued + limit;
	return n < limit ? limit - n : 0;
}

/* Its peer, with a reference, or NULL. */
static struct tcp_sock *peer_get(struct tcp_sock *ts)
{
	struct tcp_sock *peer;

	mutex_lock(&ts->inet.sk.lock);
	peer = ts->peer ? tcp_get(ts->peer) : NULL;
	mutex_unlock(&ts->inet.sk.lock);
	return peer;
}

size_t tcp_unsent(struct tcp_sock *ts)
{
	struct tcp_sock *peer = peer_get(ts);
	size_t n = 0;

	if (peer) {
		n = unsent(ts, peer);
		tcp_put(peer);
	}
	return n;
}

/* Bytes have been taken off @ts's queue: the sender may go on. No locks held. */
static void tell_room(struct tcp_sock *ts)
{
	struct tcp_sock *peer = peer_get(ts);

	if (!peer)
		return;
	if (atomic_load(&peer->nospace) && has_room(peer, ts) &&
	    atomic_exchange(&peer->nospace, false))
		waitq_wake(&peer->inet.sk.wq, EV_OUT);
	tcp_put(peer);
}

/* ---- sending ---- */

/* Urgent data has come to the file's owner. */
struct urgent_news {
	int owner_type;
	pid_t owner;
};

/* Puts bytes of @p behind the last piece if it has room. sk.lock held. */
static bool merge_locked(struct tcp_sock *to, struct tcp_piece *p)
{
	struct tcp_piece *last;

	if (list_empty(&to->rxq))
		return false;
	last = list_last_entry(&to->rxq, struct tcp_piece, node);
	if (last->room - last->len < p->len)
		return false;
	memcpy(last->data + last->len, p->data, p->len);
	last->len += p->len;
	return true;
}

/*
 * @p (consumed) to @to's queue. 0; -ECONNRESET: it won't be received, and that is a reset;
 * -EPIPE: behind the end of stream. @oob: the last byte is urgent.
 */
static int deliver(struct tcp_sock *to, struct tcp_piece *p, bool oob, struct urgent_news *news)
{
	bool merged = false, reset = false;
	size_t len = p->len;
	int err = 0;

	news->owner = 0;
	mutex_lock(&to->inet.sk.lock);
	if (to->fin) {
		err = -EPIPE;
	} else if (to->dead || state_of(to) == TCP_CLOSE) {
		err = -ECONNRESET;
	} else if (state_of(to) == TCP_FIN_WAIT2 && (to->shutdown & 1)) {
		/* Shut down in both directions: this is nobody's any more. */
		err = -ECONNRESET;
		reset = true;
	} else {
		if (oob) {
			to->urg_seq = to->read_seq + atomic_load(&to->rx_bytes) + len - 1;
			to->urg_byte = p->data[len - 1];
			to->urg = URGENT_VALID;
			if (to->inet.sk.file) {
				news->owner_type = to->inet.sk.file->owner_type;
				news->owner = to->inet.sk.file->owner;
			}
		}
		merged = merge_locked(to, p);
		if (!merged)
			list_add_tail(&p->node, &to->rxq);
		atomic_fetch_add(&to->rx_bytes, len);
		atomic_fetch_add(&to->bytes_in, len);
		atomic_fetch_add(&to->segs_in, 1);
	}
	mutex_unlock(&to->inet.sk.lock);
	if (err || merged)
		kfree(p);
	if (reset)
		tcp_reset(to);
	if (!err)
		waitq_wake(&to->inet.sk.wq, oob ? EV_IN | EPOLLPRI : EV_IN);
	return err;
}

/* May @ts send? Its peer with a reference, or ERR_PTR. */
static struct tcp_sock *send_begin(struct tcp_sock *ts)
{
	struct sock *sk = &ts->inet.sk;
	struct tcp_sock *peer = NULL;
	int err = 0, state;

	mutex_lock(&sk->lock);
	state = state_of(ts);
	if (state == TCP_SYN_SENT && !sk->err && !(ts->shutdown & 2)) {
		err = -EAGAIN;
	} else if (sk->err) {
		err = -sk->err;
		sk->err = 0;
	} else if ((state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT) || (ts->shutdown & 2)) {
		err = -EPIPE;
	} else {
		peer = ts->peer ? tcp_get(ts->peer) : NULL;
	}
	mutex_unlock(&sk->lock);
	if (!peer && !err)
		err = -EPIPE;
	return err ? ERR_PTR(err) : peer;
}

static struct tcp_piece *piece_make(struct sock_msg *msg, size_t n)
{
	size_t space = MAX(n, n < PIECE_MIN / 2 ? (size_t)PIECE_MIN : n);
	struct tcp_piece *p = kmalloc(sizeof(*p) + space);

	if (!p)
		return ERR_PTR(-ENOMEM);
	list_init(&p->node);
	p->off = 0;
	p->room = space;
	p->len = iov_copy_from(&msg->iter, p->data, n);
	if (!p->len) {
		kfree(p);
		return ERR_PTR(-EFAULT);
	}
	return p;
}

/* Sends one piece of what is left. Bytes or -errno. */
static ssize_t send_piece(struct tcp_sock *ts, struct tcp_sock *peer, struct sock_msg *msg)
{
	size_t n = room(ts, peer);
	struct urgent_news news;
	struct tcp_piece *p;
	bool oob;
	int err;

	if (!n) {
		/* Asked for again after the wish is on record: the receiver may have been quick. */
		atomic_store(&ts->nospace, true);
		n = room(ts, peer);
		if (!n || !has_room(ts, peer))
			return -EAGAIN;
		atomic_store(&ts->nospace, false);
	}
	n = MIN(n, msg->iter.count);
	p = piece_make(msg, MIN(n, (size_t)PIECE_MAX));
	if (IS_ERR(p))
		return PTR_ERR(p);
	n = p->len;
	oob = (msg->flags & MSG_OOB) && !msg->iter.count;
	err = deliver(peer, p, oob, &news);
	if (news.owner)
		sock_signal_owner(news.owner_type, news.owner, SIGURG);
	if (err == -EPIPE) {
		iov_revert(&msg->iter, n);
		return err;
	}
	atomic_fetch_add(&ts->bytes_out, n);
	atomic_fetch_add(&ts->segs_out, 1);
	inet_count(ts->inet.net, n + 66);
	/* It was sent; what came back shows in the next call. */
	if (err == -ECONNRESET)
		tcp_reset(ts);
	return (ssize_t)n;
}

ssize_t tcp_sendmsg(struct task *t, struct sock *sk, struct sock_msg *msg)
{
	struct tcp_sock *ts = tcp_of(sk), *peer;
	ssize_t done = 0, n = 0;

	if ((msg->flags & MSG_FASTOPEN) && !atomic_load(&ts->state))
		return -EOPNOTSUPP;
	peer = send_begin(ts);
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	while (msg->iter.count) {
		n = send_piece(ts, peer, msg);
		if (n < 0)
			break;
		done += n;
		if (state_of(ts) == TCP_CLOSE)
			break;
	}
	tcp_put(peer);
	return done ? done : n;
}

/* ---- receiving ---- */

/* Bytes that can be read before the urgent one, in the way it is not to be read. sk.lock held. */
static bool at_urgent(const struct tcp_sock *ts)
{
	return ts->urg != URGENT_NONE && ts->urg_seq == ts->read_seq;
}

/* @n bytes have been read. sk.lock held. */
static void consume_locked(struct tcp_sock *ts, size_t n)
{
	atomic_fetch_sub(&ts->rx_bytes, n);
	ts->read_seq += n;
	while (n) {
		struct tcp_piece *p = list_first_entry(&ts->rxq, struct tcp_piece, node);
		size_t k = MIN(n, p->len - p->off);

		p->off += k;
		n -= k;
		if (p->off == p->len) {
			list_del(&p->node);
			kfree(p);
		}
	}
	if (ts->urg != URGENT_NONE && ts->read_seq > ts->urg_seq)
		ts->urg = URGENT_NONE;
}

/*
 * Copies up to @want bytes from @skip bytes into the queue on; with @msg NULL semantics of
 * MSG_TRUNC they are only counted. Returns how many. sk.lock held.
 */
static size_t copy_locked(struct tcp_sock *ts, struct sock_msg *msg, size_t skip, size_t want)
{
	struct tcp_piece *p;
	size_t done = 0;

	list_for_each_entry (p, &ts->rxq, node) {
		size_t have = p->len - p->off, n;

		if (skip >= have) {
			skip -= have;
			continue;
		}
		n = MIN(have - skip, want - done);
		if (msg->flags & MSG_TRUNC)
			iov_advance(&msg->iter, n);
		else if (iov_copy_to(&msg->iter, p->data + p->off + skip, n) < n)
			return done;
		done += n;
		skip = 0;
		if (done == want)
			break;
	}
	return done;
}

/* Reads up to the urgent byte, which is stepped over. sk.lock held. */
static ssize_t read_locked(struct tcp_sock *ts, struct sock_msg *msg)
{
	bool inline_oob = ts->inet.sk.oobinline, peek = msg->flags & MSG_PEEK;
	size_t have = atomic_load(&ts->rx_bytes), skip = 0, want, n;
	bool urgent = ts->urg != URGENT_NONE && ts->urg_seq >= ts->read_seq &&
		      ts->urg_seq - ts->read_seq < have;

	if (urgent && at_urgent(ts)) {
		if (!inline_oob) {
			skip = 1;
			if (!peek)
				consume_locked(ts, 1);
			have--;
		}
	} else if (urgent) {
		have = ts->urg_seq - ts->read_seq;
	}
	want = MIN(have, msg->iter.count);
	if (!want)
		return 0;
	n = copy_locked(ts, msg, peek ? skip : 0, want);
	if (!n)
		return -EFAULT;
	if (!peek)
		consume_locked(ts, n);
	return (ssize_t)n;
}

/* When there is nothing to read: 0 at the end, or -errno. sk.lock held. */
static int nothing_locked(struct tcp_sock *ts)
{
	struct sock *sk = &ts->inet.sk;

	if (ts->fin)
		return 0;
	if (sk->err) {
		int err = -sk->err;

		sk->err = 0;
		return err;
	}
	if (ts->shutdown & 1)
		return 0;
	return state_of(ts) == TCP_CLOSE ? -ENOTCONN : -EAGAIN;
}

static ssize_t recv_urgent(struct tcp_sock *ts, struct sock_msg *msg)
{
	ssize_t ret = 1;

	if (ts->inet.sk.oobinline || ts->urg == URGENT_NONE || ts->urg == URGENT_READ)
		return -EINVAL;
	if (state_of(ts) == TCP_CLOSE && !ts->fin)
		return -ENOTCONN;
	msg->out_flags |= MSG_OOB;
	if (!msg->iter.count) {
		msg->out_flags |= MSG_TRUNC;
		ret = 0;
	} else if (!(msg->flags & MSG_TRUNC) && iov_copy_to(&msg->iter, &ts->urg_byte, 1) != 1) {
		return -EFAULT;
	}
	if (!(msg->flags & MSG_PEEK))
		ts->urg = URGENT_READ;
	return ret;
}

ssize_t tcp_recvmsg(struct task *t, struct sock *sk, struct sock_msg *msg)
{
	struct tcp_sock *ts = tcp_of(sk);
	bool freed = false;
	ssize_t n;

	msg->namelen = 0;
	if (msg->flags & MSG_ERRQUEUE)
		return -EAGAIN;
	mutex_lock(&sk->lock);
	if (state_of(ts) == TCP_LISTEN) {
		n = -ENOTCONN;
	} else if (msg->flags & MSG_OOB) {
		n = recv_urgent(ts, msg);
	} else {
		n = 0;
		if (atomic_load(&ts->rx_bytes)) {
			n = read_locked(ts, msg);
			freed = !(msg->flags & MSG_PEEK);
		}
		/* Nothing is asked for and something is there: done. */
		if (!n && (msg->iter.count || !atomic_load(&ts->rx_bytes)))
			n = nothing_locked(ts);
	}
	mutex_unlock(&sk->lock);
	if (freed)
		tell_room(ts);
	return n;
}

/* ---- readiness ---- */

uint32_t tcp_poll(struct sock *sk)
{
	struct tcp_sock *ts = tcp_of(sk), *peer = NULL;
	bool sendable, shut_wr;
	uint32_t ev = 0;
	size_t target;
	int state;

	mutex_lock(&sk->lock);
	state = state_of(ts);
	if (state == TCP_LISTEN) {
		ev = list_empty(&ts->acceptq) ? 0 : EV_IN;
		mutex_unlock(&sk->lock);
		return ev;
	}
	if (ts->shutdown == 3 || state == TCP_CLOSE)
		ev |= EPOLLHUP;
	if (ts->shutdown & 1)
		ev |= EV_IN | EPOLLRDHUP;
	sendable = state != TCP_SYN_SENT;
	shut_wr = ts->shutdown & 2;
	if (sendable) {
		target = (size_t)sk->rcvlowat;
		if (at_urgent(ts) && !sk->oobinline)
			target++;
		if (atomic_load(&ts->rx_bytes) >= target)
			ev |= EV_IN;
		if (ts->urg == URGENT_VALID)
			ev |= EPOLLPRI;
		peer = ts->peer && !shut_wr ? tcp_get(ts->peer) : NULL;
	}
	if (sk->err)
		ev |= EPOLLERR;
	mutex_unlock(&sk->lock);
	if (sendable && peer && !has_room(ts, peer)) {
		atomic_store(&ts->nospace, true);
		sendable = has_room(ts, peer);
	}
	tcp_put(peer);
	return sendable ? ev | EPOLLOUT | EPOLLWRNORM : ev;
}

/* FIONREAD: up to the urgent byte. sk.lock held. */
static int readable_bytes(const struct tcp_sock *ts)
{
	size_t n = atomic_load(&((struct tcp_sock *)(uintptr_t)ts)->rx_bytes);

	if (!ts->inet.sk.oobinline && ts->urg != URGENT_NONE && ts->urg_seq >= ts->read_seq &&
	    ts->urg_seq - ts->read_seq < n)
		n = ts->urg_seq - ts->read_seq;
	return (int)n;
}

long tcp_ioctl(const struct vfs_ctx *ctx, struct sock *sk, unsigned int cmd, unsigned long arg)
{
	struct tcp_sock *ts = tcp_of(sk);
	bool listening;
	int value = 0;

	mutex_lock(&sk->lock);
	listening = state_of(ts) == TCP_LISTEN;
	if (cmd == SIOCINQ)
		value = readable_bytes(ts);
	else if (cmd == SIOCATMARK)
		value = at_urgent(ts);
	mutex_unlock(&sk->lock);
	switch (cmd) {
	case SIOCOUTQ:
	case SIOCOUTQNSD:
		value = (int)tcp_unsent(ts);
		break;
	case SIOCINQ:
	case SIOCATMARK:
		break;
	default:
		return -ENOTTY;
	}
	if (listening && cmd != SIOCATMARK)
		return -EINVAL;
	return copy_to_user(ctx->um, arg, &value, sizeof(value));
}
