/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_UNIX: messages in queues. The sender makes a buffer, copies the bytes in without any lock and
 * puts it on the receiver's queue; the receiver takes it off or eats it up bit by bit. A sender is
 * charged for what hasn't been read, and woken as that falls; datagram receivers also limit how
 * many messages wait.
 */
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket_unix.h"

#define STREAM_CHUNK	32768u
#define BUF_OVERHEAD	256u /* charged beside the bytes */
#define MAX_DGRAM_QUEUE 512u /* /proc/sys/net/unix/max_dgram_qlen of a usual system */

#define EV_IN  (EPOLLIN | EPOLLRDNORM | EPOLLRDBAND)
#define EV_OUT (EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)

struct mutex unix_topology = {.m = PTHREAD_MUTEX_INITIALIZER,
#ifdef LOCK_DEBUG
			      .rank = LOCK_STREAM
#endif
};

bool unix_writable(const struct unix_sock *u)
{
	return atomic_load(&u->wmem) * 4 <= (size_t)u->sk.sndbuf;
}

bool unix_queue_full(struct unix_sock *u)
{
	return u->rx_msgs >= MAX_DGRAM_QUEUE;
}

/* ---- buffers ---- */

static struct unix_buf *buf_alloc(struct unix_sock *from, size_t len)
{
	struct unix_buf *b = kmalloc(sizeof(*b) + len);

	if (!b)
		return NULL;
	memset(b, 0, sizeof(*b));
	list_init(&b->node);
	b->from = unix_get(from);
	b->len = len;
	b->charge = len + BUF_OVERHEAD;
	atomic_fetch_add(&from->wmem, b->charge);
	return b;
}

/* What has been read no longer counts against the sender. */
static void buf_uncharge(struct unix_buf *b)
{
	if (!b->charge)
		return;
	atomic_fetch_sub(&b->from->wmem, b->charge);
	b->charge = 0;
	waitq_wake(&b->from->sk.wq, EV_OUT);
}

void unix_buf_free(struct unix_buf *b)
{
	buf_uncharge(b);
	unix_put(b->from);
	unix_addr_put(b->addr);
	scm_release(&b->scm);
	kfree(b);
}

void unix_wake_senders(struct unix_sock *u)
{
	struct unix_sock *s;

	waitq_wake(&u->sk.wq, EV_OUT);
	mutex_lock(&unix_topology);
	list_for_each_entry (s, &u->senders, sender_node)
		waitq_wake(&s->sk.wq, EV_OUT);
	mutex_unlock(&unix_topology);
}

/* ---- sending ---- */

/* Gives @b what goes along: files, credentials if either side wants them. */
static int buf_attach(struct task *t, struct unix_buf *b, struct unix_sock *to, struct scm *scm)
{
	int err;

	if (scm->fds) {
		err = scm_fds_attach(scm->fds);
		if (err)
			return err;
		b->scm.fds = scm->fds;
		scm->fds = NULL;
	}
	if (scm->have_cred) {
		b->scm.have_cred = true;
		b->scm.cred = scm->cred;
		if (b->scm.cred.pid)
			pid_get(b->scm.cred.pid);
	} else if (t && (b->from->sk.passcred || to->sk.passcred)) {
		b->scm.have_cred = true;
		scm_cred_self(t, &b->scm.cred);
	}
	return 0;
}

/* The files of a message that could not be sent go back to the caller. */
static void buf_give_back(struct unix_buf *b, struct scm *scm)
{
	if (b->scm.fds) {
		scm_fds_detach(b->scm.fds);
		scm->fds = b->scm.fds;
		b->scm.fds = NULL;
	}
	unix_buf_free(b);
}

static void enqueue_locked(struct unix_sock *to, struct unix_buf *b)
{
	list_add_tail(&b->node, &to->queue);
	to->rx_bytes += b->len;
	to->rx_msgs++;
}

/* Where a connected socket sends to: a reference, or ERR_PTR. */
static struct unix_sock *connected_peer(struct unix_sock *u, int not_connected)
{
	struct unix_sock *peer;

	mutex_lock(&u->sk.lock);
	if (u->shut_wr)
		peer = ERR_PTR(-EPIPE);
	else if (!u->peer)
		peer = ERR_PTR(not_connected);
	else
		peer = unix_get(u->peer);
	mutex_unlock(&u->sk.lock);
	return peer;
}

/* Bytes for one piece, copied in. */
static struct unix_buf *stream_piece(struct unix_sock *u, struct sock_msg *msg)
{
	size_t len = MIN(msg->iter.count, (size_t)STREAM_CHUNK), got;
	struct unix_buf *b;

	len = MIN(len, (size_t)u->sk.sndbuf / 2);
	if (atomic_load(&u->wmem) >= (size_t)u->sk.sndbuf)
		return ERR_PTR(-EAGAIN);
	b = buf_alloc(u, len);
	if (!b)
		return ERR_PTR(-ENOMEM);
	got = iov_copy_from(&msg->iter, b->data, len);
	if (!got) {
		unix_buf_free(b);
		return ERR_PTR(-EFAULT);
	}
	b->len = got;
	return b;
}

static ssize_t send_stream(struct task *t, struct unix_sock *u, struct sock_msg *msg)
{
	struct unix_sock *peer;
	ssize_t done = 0;
	int err = 0;

	if (msg->namelen)
		return u->state == UNIX_CONNECTED ? -EISCONN : -EOPNOTSUPP;
	peer = connected_peer(u, -ENOTCONN);
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	while (msg->iter.count && !err) {
		struct unix_buf *b = stream_piece(u, msg);

		if (IS_ERR(b)) {
			err = (int)PTR_ERR(b);
			break;
		}
		err = buf_attach(t, b, peer, &msg->scm);
		if (!err) {
			mutex_lock(&peer->sk.lock);
			if (peer->dead || peer->shut_rd)
				err = -EPIPE;
			else
				enqueue_locked(peer, b);
			mutex_unlock(&peer->sk.lock);
		}
		if (err) {
			buf_give_back(b, &msg->scm);
			break;
		}
		done += (ssize_t)b->len;
		waitq_wake(&peer->sk.wq, EV_IN);
	}
	unix_put(peer);
	return done ? done : err;
}

/* A datagram's destination with a reference. */
static struct unix_sock *dgram_dest(struct task *t, struct unix_sock *u, struct sock_msg *msg)
{
	if (msg->namelen && u->sk.type == SOCK_SEQPACKET)
		return ERR_PTR(u->state == UNIX_CONNECTED ? -EISCONN : -EOPNOTSUPP);
	if (!msg->namelen)
		return connected_peer(u, -ENOTCONN);
	if (u->shut_wr)
		return ERR_PTR(-EPIPE);
	return unix_find(t, &msg->name, msg->namelen, u->sk.type);
}

/* A connection whose other end is gone is undone. */
static void forget_peer(struct unix_sock *u, struct unix_sock *peer)
{
	bool ours;

	mutex_lock(&unix_topology);
	mutex_lock_nested(&u->sk.lock);
	ours = u->peer == peer;
	if (ours) {
		u->peer = NULL;
		u->state = UNIX_NEW;
		list_del(&u->sender_node);
	}
	mutex_unlock(&u->sk.lock);
	mutex_unlock(&unix_topology);
	if (ours)
		unix_put(peer);
}

static int deliver_dgram(struct unix_sock *u, struct unix_sock *to, struct unix_buf *b)
{
	bool seq = u->sk.type == SOCK_SEQPACKET;
	int err = 0;

	mutex_lock(&to->sk.lock);
	if (to->dead)
		err = seq ? -EPIPE : -ECONNREFUSED;
	else if (to->shut_rd)
		err = -EPIPE;
	else if (!seq && to->peer && to->peer != u && to != u)
		err = -EPERM;
	else if (to != u && unix_queue_full(to))
		err = -EAGAIN;
	else
		enqueue_locked(to, b);
	mutex_unlock(&to->sk.lock);
	return err;
}

static ssize_t send_dgram(struct task *t, struct unix_sock *u, struct sock_msg *msg)
{
	size_t len = msg->iter.count;
	struct unix_sock *to;
	struct unix_buf *b;
	int err;

	if (len > (size_t)u->sk.sndbuf - 32)
		return -EMSGSIZE;
	if (u->sk.passcred && !u->addr && t) {
		err = unix_autobind(t, u);
		if (err)
			return err;
	}
	to = dgram_dest(t, u, msg);
	if (IS_ERR(to))
		return PTR_ERR(to);
	err = -EAGAIN;
	if (atomic_load(&u->wmem) >= (size_t)u->sk.sndbuf)
		goto out_put;
	err = -ENOMEM;
	b = buf_alloc(u, len);
	if (!b)
		goto out_put;
	if (u->addr)
		b->addr = unix_addr_get(u->addr);
	err = -EFAULT;
	if (iov_copy_from(&msg->iter, b->data, len) == len) {
		err = buf_attach(t, b, to, &msg->scm);
		if (!err)
			err = deliver_dgram(u, to, b);
	}
	if (err) {
		iov_revert(&msg->iter, len - msg->iter.count);
		buf_give_back(b, &msg->scm);
		if (err == -EAGAIN)
			msg->wait_for = &unix_get(to)->sk;
		else if (err == -ECONNREFUSED && !msg->namelen)
			forget_peer(u, to);
		goto out_put;
	}
	waitq_wake(&to->sk.wq, EV_IN);
	err = 0;
out_put:
	unix_put(to);
	return err ? err : (ssize_t)len;
}

ssize_t unix_sendmsg(struct task *t, struct sock *sk, struct sock_msg *msg)
{
	struct unix_sock *u = unix_of(sk);

	if (msg->flags & MSG_OOB)
		return -EOPNOTSUPP;
	if (sk->type == SOCK_STREAM)
		return send_stream(t, u, msg);
	if (sk->type == SOCK_SEQPACKET && u->state != UNIX_CONNECTED)
		return -ENOTCONN;
	return send_dgram(t, u, msg);
}

/* ---- receiving ---- */

/* What there is to say when no bytes are queued: 0 end of file, or -errno. Lock held. */
static int nothing_queued(struct unix_sock *u)
{
	int err = u->sk.err;

	if (err) {
		u->sk.err = 0;
		return -err;
	}
	if (u->shut_rd)
		return 0;
	if (u->sk.type == SOCK_STREAM && u->state != UNIX_CONNECTED)
		return -EINVAL;
	if (u->sk.type == SOCK_SEQPACKET && u->state != UNIX_CONNECTED)
		return -ENOTCONN;
	return -EAGAIN;
}

static void fill_name(struct sock_msg *msg, const struct unix_addr *addr)
{
	if (addr) {
		memcpy(&msg->name, &addr->sun, (size_t)MIN(addr->len, (int)sizeof(addr->sun)));
		msg->namelen = addr->len;
	} else {
		msg->namelen = 0;
	}
}

/* Hands @b's companions over, copies of them for MSG_PEEK. 0 or -ENOMEM. Lock held. */
static int take_scm(struct unix_buf *b, struct sock_msg *msg, struct scm_fds **detach)
{
	*detach = NULL;
	if (b->scm.have_cred && !msg->scm.have_cred) {
		msg->scm.have_cred = true;
		msg->scm.cred = b->scm.cred;
		if (msg->scm.cred.pid)
			pid_get(msg->scm.cred.pid);
	}
	if (!b->scm.fds)
		return 0;
	if (msg->flags & MSG_PEEK) {
		msg->scm.fds = scm_fds_copy(b->scm.fds);
		return msg->scm.fds ? 0 : -ENOMEM;
	}
	*detach = msg->scm.fds = b->scm.fds;
	b->scm.fds = NULL;
	return 0;
}

static void dequeue_locked(struct unix_sock *u, struct unix_buf *b)
{
	list_del(&b->node);
	u->rx_bytes -= b->len - b->off;
	u->rx_msgs--;
}

static ssize_t recv_dgram(struct unix_sock *u, struct sock_msg *msg)
{
	bool peek = msg->flags & MSG_PEEK, was_full;
	struct scm_fds *detach = NULL;
	struct unix_buf *b;
	ssize_t ret;

	mutex_lock(&u->sk.lock);
	if (list_empty(&u->queue)) {
		ret = nothing_queued(u);
		mutex_unlock(&u->sk.lock);
		return ret;
	}
	was_full = unix_queue_full(u);
	b = list_first_entry(&u->queue, struct unix_buf, node);
	fill_name(msg, b->addr);
	ret = sock_msg_store(msg, b->data, b->len);
	if (ret >= 0 && take_scm(b, msg, &detach))
		ret = -ENOMEM;
	/* A message that can't be stored is lost, as on Linux. */
	if (!peek)
		dequeue_locked(u, b);
	mutex_unlock(&u->sk.lock);
	if (detach)
		scm_fds_detach(detach);
	if (!peek) {
		unix_buf_free(b);
		if (was_full)
			unix_wake_senders(u);
	}
	return ret;
}

/* Do two pieces of a stream belong to one read? */
static bool same_sender(struct unix_sock *u, const struct sock_msg *msg, const struct unix_buf *b)
{
	if (msg->scm.fds)
		return false;
	if (!u->sk.passcred)
		return true;
	return msg->scm.have_cred == b->scm.have_cred && msg->scm.cred.pid == b->scm.cred.pid &&
	       msg->scm.cred.uid == b->scm.cred.uid && msg->scm.cred.gid == b->scm.cred.gid;
}

/* Copies what is queued; consumed pieces go to @eaten, taken files to @detach. Lock held. */
static ssize_t recv_stream_locked(struct unix_sock *u, struct sock_msg *msg,
				  struct list_head *eaten, struct scm_fds **detach)
{
	bool peek = msg->flags & MSG_PEEK, first = true;
	struct unix_buf *b, *tmp;
	ssize_t done = 0;

	list_for_each_entry_safe (b, tmp, &u->queue, node) {
		size_t want = MIN(b->len - b->off, msg->iter.count), n;

		if (!msg->iter.count || (!first && !same_sender(u, msg, b)))
			break;
		n = iov_copy_to(&msg->iter, b->data + b->off, want);
		if (n < want && !n)
			return done ? done : -EFAULT;
		if (first)
			fill_name(msg, b->addr);
		done += (ssize_t)n;
		if ((first || b->scm.fds) && take_scm(b, msg, detach))
			return -ENOMEM;
		first = false;
		if (!peek) {
			b->off += n;
			u->rx_bytes -= n;
			if (b->off == b->len) {
				list_del(&b->node);
				u->rx_msgs--;
				list_add_tail(&b->node, eaten);
			}
		}
		if (n < want || msg->scm.fds)
			break;
	}
	return done;
}

static ssize_t recv_stream(struct unix_sock *u, struct sock_msg *msg)
{
	struct list_head eaten = LIST_HEAD_INIT(eaten);
	struct scm_fds *detach = NULL;
	ssize_t n;

	mutex_lock(&u->sk.lock);
	if (u->state != UNIX_CONNECTED) {
		n = -EINVAL;
	} else if (!msg->iter.count) {
		n = 0;
	} else if (list_empty(&u->queue)) {
		n = nothing_queued(u);
	} else {
		n = recv_stream_locked(u, msg, &eaten, &detach);
	}
	mutex_unlock(&u->sk.lock);
	if (detach)
		scm_fds_detach(detach);
	while (!list_empty(&eaten)) {
		struct unix_buf *b = list_first_entry(&eaten, struct unix_buf, node);

		list_del(&b->node);
		unix_buf_free(b);
	}
	return n;
}

ssize_t unix_recvmsg(struct task *t, struct sock *sk, struct sock_msg *msg)
{
	struct unix_sock *u = unix_of(sk);

	if (msg->flags & MSG_OOB)
		return sk->type == SOCK_STREAM ? -EINVAL : -EOPNOTSUPP;
	return sk->type == SOCK_STREAM ? recv_stream(u, msg) : recv_dgram(u, msg);
}
