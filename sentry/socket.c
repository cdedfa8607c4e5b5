/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets: what all families share. */
#include "sentry/socket.h"

#include <asm/ioctls.h>
#include <asm/socket.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/netdev.h"
#include "sentry/syscalls.h"
#include "sentry/timespec.h"

#ifndef SO_RCVTIMEO_NEW
#define SO_RCVTIMEO_NEW 66
#define SO_SNDTIMEO_NEW 67
#endif
#define SOCK_MIN_RCVBUF 2304
#define SOCK_MIN_SNDBUF 4608

static const struct sock_family *const families[] = {&unix_family, &inet_family, &inet6_family,
						     &netlink_family};

static const struct file_ops sock_file_ops;

const struct sock_family *sock_family_find(int family)
{
	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		if (families[i]->family == family)
			return families[i];
	return NULL;
}

void sock_init(struct sock *sk, const struct sock_ops *ops, int family, int type, int protocol)
{
	refcount_init(&sk->refs, 1);
	sk->ops = ops;
	sk->family = family;
	sk->type = type;
	sk->protocol = protocol;
	sk->sndbuf = sk->rcvbuf = SOCK_BUF_DEFAULT;
	sk->rcvlowat = 1;
	waitq_init(&sk->wq);
	mutex_init(&sk->lock, LOCK_STREAM);
}

void sock_fini(struct sock *sk)
{
	waitq_fini(&sk->wq);
	mutex_fini(&sk->lock);
}

struct sock *sock_get(struct sock *sk)
{
	refcount_get(&sk->refs);
	return sk;
}

void sock_put(struct sock *sk)
{
	if (sk && refcount_put(&sk->refs))
		sk->ops->free(sk);
}

struct sock *sock_of(const struct file *file)
{
	return file->ops == &sock_file_ops ? file->private : NULL;
}

struct file *sock_file(struct task *t, struct sock *sk, unsigned int flags)
{
	struct file *file = file_alloc_anon("socket:[%lu]", S_IFSOCK | 0777, &sock_file_ops, sk,
					    O_RDWR | flags, t->vfs.cred);

	if (IS_ERR(file)) {
		sk->ops->release(sk);
		sock_put(sk);
	} else {
		sk->ino = file->inode->ino;
		sk->file = file;
	}
	return file;
}

int sock_take_error(struct sock *sk)
{
	int err;

	mutex_lock(&sk->lock);
	err = sk->err;
	sk->err = 0;
	mutex_unlock(&sk->lock);
	return -err;
}

void sock_signal_owner(int owner_type, pid_t owner, int signo)
{
	siginfo_t info = {.si_signo = signo, .si_code = SI_KERNEL};
	struct kernel *k = the_kernel;
	struct pid *pid;

	if (!owner || !k)
		return;
	mutex_lock(&k->tasklist);
	pid = pid_find_locked(k->root_pid_ns, owner);
	if (pid && owner_type == F_OWNER_PGRP)
		signal_send_pgrp_locked(pid, &info);
	else if (pid && pid->tg)
		(void)!signal_send_group_tasklist(pid->tg, &info);
	mutex_unlock(&k->tasklist);
}

bool sock_deadline(struct task *t, struct sock *sk, bool send, struct timespec *deadline)
{
	struct timeval tv;
	struct timespec ts;

	mutex_lock(&sk->lock);
	tv = send ? sk->sndtimeo : sk->rcvtimeo;
	mutex_unlock(&sk->lock);
	if (!tv.tv_sec && !tv.tv_usec)
		return false;
	ts = (struct timespec){.tv_sec = tv.tv_sec, .tv_nsec = tv.tv_usec * 1000};
	task_deadline(t, deadline, &ts);
	return true;
}

/* ---- waiting ---- */

struct sock_op {
	struct task *t;
	struct sock *sk;
	struct sock_msg *msg;
};

static ssize_t send_once(struct sock_op *op)
{
	return op->sk->ops->sendmsg(op->t, op->sk, op->msg);
}

/*
 * One send that waits for room: on the socket's own queue and, if the family names another socket,
 * on that one's.
 */
static ssize_t send_wait(struct sock_op *op, const struct timespec *deadline)
{
	struct sock_msg *msg = op->msg;
	struct task *t = op->t;
	struct task_waiter own;
	ssize_t n;

	task_waiter_init(&own, t, EPOLLOUT | EPOLLERR | EPOLLHUP);
	task_block_prepare(t);
	waitq_add(&op->sk->wq, &own.w);
	for (;;) {
		struct task_waiter other;
		struct sock *peer;
		int err;

		n = send_once(op);
		peer = msg->wait_for;
		msg->wait_for = NULL;
		if (n != -EAGAIN) {
			sock_put(peer);
			break;
		}
		if (peer) {
			/* Its room may have come before we are on its queue: try once more. */
			task_waiter_init(&other, t, EPOLLOUT | EPOLLERR | EPOLLHUP);
			waitq_add(&peer->wq, &other.w);
			n = send_once(op);
			sock_put(msg->wait_for);
			msg->wait_for = NULL;
		}
		err = n == -EAGAIN ? task_block(t, CLOCK_MONOTONIC, deadline) : 0;
		if (peer)
			waitq_remove(&other.w);
		sock_put(peer);
		if (n != -EAGAIN)
			break;
		if (err) {
			n = err == -ETIMEDOUT ? -EAGAIN : deadline ? -EINTR : err;
			break;
		}
		task_block_prepare(t);
	}
	waitq_remove(&own.w);
	return n;
}

static bool was_interrupted(ssize_t n)
{
	return n == -ERESTARTSYS || n == -EINTR;
}

ssize_t sock_send(struct task *t, struct sock *sk, struct sock_msg *msg, bool nonblock)
{
	struct sock_op op = {.t = t, .sk = sk, .msg = msg};
	struct timespec deadline;
	bool timed = sock_deadline(t, sk, true, &deadline);
	ssize_t done = (ssize_t)task_call_done(t), n;

	iov_advance(&msg->iter, (size_t)done);
	nonblock |= !!(msg->flags & MSG_DONTWAIT);
	for (;;) {
		n = send_once(&op);
		sock_put(msg->wait_for);
		msg->wait_for = NULL;
		if (n == -EAGAIN && !nonblock)
			n = send_wait(&op, timed ? &deadline : NULL);
		if (n <= 0)
			break;
		done += n;
		if (sk->type != SOCK_STREAM || !msg->iter.count || nonblock)
			break;
	}
	if (was_interrupted(n) && done && !msg->scm.fds && task_call_resume(t, (size_t)done))
		return -ERESTARTNOINTR;
	return done ? done : n;
}

static long recv_once(void *arg)
{
	struct sock_op *op = arg;

	return op->sk->ops->recvmsg(op->t, op->sk, op->msg);
}

ssize_t sock_msg_store(struct sock_msg *msg, const void *data, size_t len)
{
	size_t want = MIN(len, msg->iter.count);

	if (iov_copy_to(&msg->iter, data, want) != want)
		return -EFAULT;
	if (len > want)
		msg->out_flags |= MSG_TRUNC;
	return (ssize_t)(msg->flags & MSG_TRUNC ? len : want);
}

ssize_t sock_recv(struct task *t, struct sock *sk, struct sock_msg *msg, bool nonblock)
{
	struct sock_op op = {.t = t, .sk = sk, .msg = msg};
	struct timespec deadline;
	bool timed = sock_deadline(t, sk, false, &deadline);
	ssize_t done = (ssize_t)task_call_done(t), want = 0, n;

	/* How much a stream waits for: all, or SO_RCVLOWAT. */
	if (sk->type == SOCK_STREAM && !(msg->flags & (MSG_PEEK | MSG_OOB)))
		want = (ssize_t)((msg->flags & MSG_WAITALL)
					 ? msg->iter.count
					 : MIN(msg->iter.count, (size_t)sk->rcvlowat));
	iov_advance(&msg->iter, (size_t)done);
	nonblock |= !!(msg->flags & MSG_DONTWAIT);
	for (;;) {
		n = recv_once(&op);
		if (n == -EAGAIN && !nonblock && !(msg->flags & (MSG_OOB | MSG_ERRQUEUE))) {
			n = task_retry(t, &sk->wq, EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP,
				       false, timed ? &deadline : NULL, recv_once, &op);
			if (n == -ERESTARTSYS && timed)
				n = -EINTR;
		}
		if (n <= 0)
			break;
		done += n;
		/* Descriptors end a read. */
		if (done >= want || msg->scm.fds || (msg->out_flags & MSG_OOB))
			break;
	}
	if (was_interrupted(n) && done && task_call_resume(t, (size_t)done))
		return -ERESTARTNOINTR;
	return done ? done : n;
}

/* ---- the file ---- */

static ssize_t sock_file_read(struct kiocb *io, struct iov_iter *to)
{
	struct sock *sk = io->file->private;
	struct sock_msg msg = {.iter = *to, .flags = MSG_DONTWAIT};
	struct task *t = io->ctx ? task_of(io->ctx) : NULL;
	size_t before = to->count;
	ssize_t n;

	/* Unlike recv(2), which waits for something to read nothing of. */
	if (!to->count && sk->type == SOCK_STREAM)
		return 0;
	/* The copy's segments must be its own if they are inline. */
	if (to->segs == to->inl)
		msg.iter.segs = msg.iter.inl;
	n = sk->ops->recvmsg(t, sk, &msg);
	iov_advance(to, before - msg.iter.count);
	scm_release(&msg.scm);
	return n;
}

static ssize_t sock_file_write(struct kiocb *io, struct iov_iter *from)
{
	struct sock *sk = io->file->private;
	struct sock_msg msg = {.iter = *from, .flags = MSG_DONTWAIT};
	struct task *t = io->ctx ? task_of(io->ctx) : NULL;
	size_t before = from->count;
	ssize_t n;

	if (from->segs == from->inl)
		msg.iter.segs = msg.iter.inl;
	n = sk->ops->sendmsg(t, sk, &msg);
	iov_advance(from, before - msg.iter.count);
	sock_put(msg.wait_for);
	scm_release(&msg.scm);
	return n;
}

static uint32_t sock_file_poll(struct file *file)
{
	struct sock *sk = file->private;

	return sk->ops->poll(sk);
}

static struct waitq *sock_file_pollq(struct file *file)
{
	return &((struct sock *)file->private)->wq;
}

static long sock_file_ioctl(const struct vfs_ctx *ctx, struct file *file, unsigned int cmd,
			    unsigned long arg)
{
	struct sock *sk = file->private;

	long ret = sk->ops->ioctl ? sk->ops->ioctl(ctx, sk, cmd, arg) : -ENOTTY;

	/* Those about interfaces work on every socket. */
	return ret == -ENOTTY ? netdev_ioctl(ctx, cmd, arg) : ret;
}

static void sock_file_release(struct file *file)
{
	struct sock *sk = file->private;

	sk->ops->release(sk);
	sock_put(sk);
}

static const struct file_ops sock_file_ops = {
	.read = sock_file_read,
	.write = sock_file_write,
	.ioctl = sock_file_ioctl,
	.poll = sock_file_poll,
	.pollq = sock_file_pollq,
	.release = sock_file_release,
};

/* ---- options ---- */

static bool *flag_option(struct sock *sk, int name)
{
	switch (name) {
	case SO_PASSCRED:
		return &sk->passcred;
	case SO_REUSEADDR:
		return &sk->reuseaddr;
	case SO_REUSEPORT:
		return &sk->reuseport;
	case SO_KEEPALIVE:
		return &sk->keepalive;
	case SO_BROADCAST:
		return &sk->broadcast;
	case SO_OOBINLINE:
		return &sk->oobinline;
	case SO_TIMESTAMP:
		return &sk->timestamp;
	}
	return NULL;
}

static long set_timeout(struct task *t, struct sock *sk, bool send, uaddr_t val, int len)
{
	struct timeval tv;

	if (len < (int)sizeof(tv))
		return -EINVAL;
	if (copy_in(t, &tv, val, sizeof(tv)))
		return -EFAULT;
	if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
		return -EDOM;
	if (tv.tv_sec < 0)
		tv = (struct timeval){.tv_usec = 1};
	mutex_lock(&sk->lock);
	*(send ? &sk->sndtimeo : &sk->rcvtimeo) = tv;
	mutex_unlock(&sk->lock);
	return 0;
}

static long set_linger(struct task *t, struct sock *sk, uaddr_t val, int len)
{
	struct linger l;

	if (len < (int)sizeof(l))
		return -EINVAL;
	if (copy_in(t, &l, val, sizeof(l)))
		return -EFAULT;
	mutex_lock(&sk->lock);
	sk->linger = l;
	mutex_unlock(&sk->lock);
	return 0;
}

/* The kernel doubles what is asked for, to pay for its own overhead: socket(7). */
static int buffer_size(int value, bool force, int min)
{
	if (!force)
		value = MIN(value, SOCK_BUF_DEFAULT);
	value = MIN(value, INT_MAX / 2);
	return MAX(value * 2, min);
}

static long set_int(struct task *t, struct sock *sk, int name, int value)
{
	bool *flag = flag_option(sk, name);
	long ret = 0;

	mutex_lock(&sk->lock);
	if (flag) {
		*flag = value;
		goto out_unlock;
	}
	switch (name) {
	case SO_SNDBUF:
	case SO_SNDBUFFORCE:
	case SO_RCVBUF:
	case SO_RCVBUFFORCE:
		if ((name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE) &&
		    !task_capable(t, CAP_NET_ADMIN)) {
			ret = -EPERM;
			break;
		}
		value = buffer_size(value, name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE,
				    name == SO_SNDBUF || name == SO_SNDBUFFORCE ? SOCK_MIN_SNDBUF
										: SOCK_MIN_RCVBUF);
		if (name == SO_SNDBUF || name == SO_SNDBUFFORCE)
			sk->sndbuf = value;
		else
			sk->rcvbuf = value;
		sk->bufs_set |= name == SO_SNDBUF || name == SO_SNDBUFFORCE ? SOCK_SNDBUF_SET
									    : SOCK_RCVBUF_SET;
		break;
	case SO_PRIORITY:
		if ((value < 0 || value > 6) && !task_capable(t, CAP_NET_ADMIN))
			ret = -EPERM;
		else
			sk->priority = value;
		break;
	case SO_RCVLOWAT:
		sk->rcvlowat = value > 0 ? value : value < 0 ? INT_MAX : 1;
		break;
	case SO_DEBUG:
		ret = value && !task_capable(t, CAP_NET_ADMIN) ? -EACCES : 0;
		break;
	case SO_DONTROUTE:
	case SO_NO_CHECK:
		break;
	default:
		ret = -ENOPROTOOPT;
	}
out_unlock:
	mutex_unlock(&sk->lock);
	if (name == SO_SNDBUF || name == SO_SNDBUFFORCE)
		waitq_wake(&sk->wq, EPOLLOUT);
	return ret;
}

long sock_setsockopt(struct task *t, struct sock *sk, int level, int name, uaddr_t val, int len)
{
	int value;

	if (len < 0)
		return -EINVAL;
	if (sk->ops->setsockopt) {
		long ret = sk->ops->setsockopt(t, sk, level, name, val, len);

		if (ret != -ENOIOCTLCMD)
			return ret;
	}
	if (level != SOL_SOCKET)
		return sk->family == AF_UNIX ? -EOPNOTSUPP : -ENOPROTOOPT;
	if (name == SO_RCVTIMEO || name == SO_RCVTIMEO_NEW)
		return set_timeout(t, sk, false, val, len);
	if (name == SO_SNDTIMEO || name == SO_SNDTIMEO_NEW)
		return set_timeout(t, sk, true, val, len);
	if (name == SO_LINGER)
		return set_linger(t, sk, val, len);
	if (len < (int)sizeof(value))
		return -EINVAL;
	if (copy_in(t, &value, val, sizeof(value)))
		return -EFAULT;
	return set_int(t, sk, name, value);
}

union option {
	int value;
	struct timeval tv;
	struct linger linger;
	struct ucred ucred;
};

static int get_int(struct sock *sk, int name, int *value)
{
	bool *flag = flag_option(sk, name);

	if (flag) {
		*value = *flag;
		return 0;
	}
	switch (name) {
	case SO_TYPE:
		*value = sk->type;
		return 0;
	case SO_PROTOCOL:
		*value = sk->protocol;
		return 0;
	case SO_DOMAIN:
		*value = sk->family;
		return 0;
	case SO_ERROR:
		*value = sk->err;
		sk->err = 0;
		return 0;
	case SO_SNDBUF:
		*value = sk->sndbuf;
		return 0;
	case SO_RCVBUF:
		*value = sk->rcvbuf;
		return 0;
	case SO_PRIORITY:
		*value = sk->priority;
		return 0;
	case SO_RCVLOWAT:
		*value = sk->rcvlowat;
		return 0;
	case SO_SNDLOWAT:
		*value = 1;
		return 0;
	case SO_DEBUG:
	case SO_DONTROUTE:
	case SO_NO_CHECK:
		*value = 0;
		return 0;
	}
	return -ENOPROTOOPT;
}

/* Fills @opt; its size or -errno. */
static int get_option(struct task *t, struct sock *sk, int name, union option *opt)
{
	struct scm_cred cred;
	int err;

	switch (name) {
	case SO_PEERCRED:
		if (!sk->ops->peercred)
			return -ENOPROTOOPT;
		sk->ops->peercred(sk, &cred);
		opt->ucred.pid = cred.pid ? pid_nr(cred.pid, task_pid_ns(t)) : 0;
		opt->ucred.uid = cred.uid;
		opt->ucred.gid = cred.gid;
		pid_put(cred.pid);
		return sizeof(opt->ucred);
	case SO_ACCEPTCONN:
		opt->value = sk->ops->listening && sk->ops->listening(sk);
		return sizeof(opt->value);
	}
	mutex_lock(&sk->lock);
	switch (name) {
	case SO_RCVTIMEO:
	case SO_RCVTIMEO_NEW:
		opt->tv = sk->rcvtimeo;
		err = sizeof(opt->tv);
		break;
	case SO_SNDTIMEO:
	case SO_SNDTIMEO_NEW:
		opt->tv = sk->sndtimeo;
		err = sizeof(opt->tv);
		break;
	case SO_LINGER:
		opt->linger = sk->linger;
		err = sizeof(opt->linger);
		break;
	default:
		err = get_int(sk, name, &opt->value);
		if (!err)
			err = sizeof(opt->value);
	}
	mutex_unlock(&sk->lock);
	return err;
}

long sock_getsockopt(struct task *t, struct sock *sk, int level, int name, uaddr_t val,
		     uaddr_t ulen)
{
	union option opt;
	int len, size;

	if (copy_in(t, &len, ulen, sizeof(len)))
		return -EFAULT;
	if (len < 0)
		return -EINVAL;
	if (sk->ops->getsockopt) {
		long ret = sk->ops->getsockopt(t, sk, level, name, val, ulen);

		if (ret != -ENOIOCTLCMD)
			return ret;
	}
	if (level != SOL_SOCKET)
		return sk->family == AF_UNIX ? -EOPNOTSUPP : -ENOPROTOOPT;
	memset(&opt, 0, sizeof(opt));
	size = get_option(t, sk, name, &opt);
	if (size < 0)
		return size;
	len = MIN(len, size);
	if (copy_out(t, val, &opt, (size_t)len))
		return -EFAULT;
	return copy_out(t, ulen, &len, sizeof(len));
}
