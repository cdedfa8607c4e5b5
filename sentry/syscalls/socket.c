/* SPDX-License-Identifier: Apache-2.0 */
/* The socket calls: addresses and messages in and out of the program's memory. */
#include "sentry/socket.h"

#include <string.h>

#include "sentry/lib/err.h"
#include "sentry/syscalls/fileio.h"

#define SOCK_TYPE_MASK_X 0xf
#define MMSG_MAX	 1024

/* ---- descriptors and addresses ---- */

/* The socket at @fd: a file reference, or ERR_PTR(-EBADF, -ENOTSOCK). */
static struct file *sock_fd(struct task *t, int fd, struct sock **sk)
{
	struct file *file = fd_get(t->files, fd);

	if (!file)
		return ERR_PTR(-EBADF);
	*sk = sock_of(file);
	if (!*sk) {
		file_put(file);
		return ERR_PTR(-ENOTSOCK);
	}
	return file;
}

static int addr_in(struct task *t, uaddr_t uaddr, int len, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	if (len < 0 || len > (int)sizeof(*ss))
		return -EINVAL;
	return copy_in(t, ss, uaddr, (size_t)len);
}

/* Stores an address of @len bytes in the room *@ulen says, and its real length there. */
static int addr_out(struct task *t, const struct sockaddr_storage *ss, int len, uaddr_t uaddr,
		    uaddr_t ulen)
{
	int room;

	if (copy_in(t, &room, ulen, sizeof(room)))
		return -EFAULT;
	if (room < 0)
		return -EINVAL;
	room = MIN(room, len);
	if (copy_out(t, uaddr, ss, (size_t)MIN(room, (int)sizeof(*ss))))
		return -EFAULT;
	return copy_out(t, ulen, &len, sizeof(len));
}

static int split_type(int type, int *flags)
{
	*flags = type & ~SOCK_TYPE_MASK_X;
	if (*flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
		return -EINVAL;
	return type & SOCK_TYPE_MASK_X;
}

static long install_sock(struct task *t, struct sock *sk, int flags)
{
	return fd_install_new(t, sock_file(t, sk, (unsigned int)flags & O_NONBLOCK),
			      flags & SOCK_CLOEXEC);
}

long sys_socket(struct task *t, const uint64_t *a)
{
	const struct sock_family *f;
	struct sock *sk;
	int flags, type = split_type((int)a[1], &flags), err;

	if (type < 0)
		return type;
	f = sock_family_find((int)a[0]);
	if (!f)
		return -EAFNOSUPPORT;
	err = f->create(t, type, (int)a[2], &sk);
	return err ? err : install_sock(t, sk, flags);
}

long sys_socketpair(struct task *t, const uint64_t *a)
{
	const struct sock_family *f;
	int flags, type = split_type((int)a[1], &flags), err, fds[2];
	struct sock *sk[2];

	if (type < 0)
		return type;
	f = sock_family_find((int)a[0]);
	if (!f)
		return -EAFNOSUPPORT;
	if (!f->pair)
		return -EOPNOTSUPP;
	err = f->pair(t, type, (int)a[2], &sk[0], &sk[1]);
	if (err)
		return err;
	fds[0] = (int)install_sock(t, sk[0], flags);
	if (fds[0] < 0) {
		sk[1]->ops->release(sk[1]);
		sock_put(sk[1]);
		return fds[0];
	}
	fds[1] = (int)install_sock(t, sk[1], flags);
	err = fds[1] < 0 ? fds[1] : copy_out(t, a[3], fds, sizeof(fds));
	if (!err)
		return 0;
	fd_close(&t->vfs, t->files, (unsigned int)fds[0]);
	if (fds[1] >= 0)
		fd_close(&t->vfs, t->files, (unsigned int)fds[1]);
	return err;
}

long sys_bind(struct task *t, const uint64_t *a)
{
	struct sockaddr_storage ss;
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = addr_in(t, a[1], (int)a[2], &ss);
	if (!ret)
		ret = (int)a[2] < (int)sizeof(ss.ss_family) ? -EINVAL
							    : sk->ops->bind(t, sk, &ss, (int)a[2]);
	file_put(file);
	return ret;
}

long sys_listen(struct task *t, const uint64_t *a)
{
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = sk->ops->listen(t, sk, (int)a[1]);
	file_put(file);
	return ret;
}

long sys_connect(struct task *t, const uint64_t *a)
{
	struct sockaddr_storage ss;
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = addr_in(t, a[1], (int)a[2], &ss);
	if (!ret)
		ret = (int)a[2] < (int)sizeof(ss.ss_family)
			      ? -EINVAL
			      : sk->ops->connect(t, sk, &ss, (int)a[2], file->flags & O_NONBLOCK);
	file_put(file);
	return ret;
}

struct accept_op {
	struct sock *sk, *got;
};

static long accept_once(void *arg)
{
	struct accept_op *op = arg;
	struct sock *sk = op->sk->ops->accept(op->sk);

	if (IS_ERR(sk))
		return PTR_ERR(sk);
	op->got = sk;
	return 0;
}

static long do_accept(struct task *t, const uint64_t *a, int flags)
{
	struct sockaddr_storage ss;
	struct timespec deadline;
	struct accept_op op;
	struct file *file, *made;
	bool timed;
	long ret;
	int len;

	if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
		return -EINVAL;
	file = sock_fd(t, (int)a[0], &op.sk);
	if (IS_ERR(file))
		return PTR_ERR(file);
	timed = sock_deadline(t, op.sk, false, &deadline);
	ret = task_retry(t, &op.sk->wq, EPOLLIN | EPOLLHUP | EPOLLERR, file->flags & O_NONBLOCK,
			 timed ? &deadline : NULL, accept_once, &op);
	if (ret == -ERESTARTSYS && timed)
		ret = -EINTR;
	file_put(file);
	if (ret)
		return ret;
	len = op.got->ops->getname(op.got, &ss, true);
	made = sock_file(t, op.got, (unsigned int)flags & O_NONBLOCK);
	if (IS_ERR(made))
		return PTR_ERR(made);
	if (a[1]) {
		/* A peer that is gone again has no name; then TCP's connection isn't given. */
		if (len < 0 && op.got->family != AF_UNIX) {
			file_put(made);
			return -ECONNABORTED;
		}
		if (len < 0) {
			ss.ss_family = (sa_family_t)AF_UNIX;
			len = sizeof(ss.ss_family);
		}
		ret = addr_out(t, &ss, len, a[1], a[2]);
		if (ret) {
			file_put(made);
			return ret;
		}
	}
	return fd_install_new(t, made, flags & SOCK_CLOEXEC);
}

long sys_accept(struct task *t, const uint64_t *a)
{
	return do_accept(t, a, 0);
}

long sys_accept4(struct task *t, const uint64_t *a)
{
	return do_accept(t, a, (int)a[3]);
}

static long get_name(struct task *t, const uint64_t *a, bool peer)
{
	struct sockaddr_storage ss;
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	int len;

	if (IS_ERR(file))
		return PTR_ERR(file);
	len = sk->ops->getname(sk, &ss, peer);
	file_put(file);
	return len < 0 ? len : addr_out(t, &ss, len, a[1], a[2]);
}

long sys_getsockname(struct task *t, const uint64_t *a)
{
	return get_name(t, a, false);
}

long sys_getpeername(struct task *t, const uint64_t *a)
{
	return get_name(t, a, true);
}

long sys_shutdown(struct task *t, const uint64_t *a)
{
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = (unsigned int)a[1] > SHUT_RDWR ? -EINVAL : sk->ops->shutdown(sk, (int)a[1]);
	file_put(file);
	return ret;
}

long sys_setsockopt(struct task *t, const uint64_t *a)
{
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = sock_setsockopt(t, sk, (int)a[1], (int)a[2], a[3], (int)a[4]);
	file_put(file);
	return ret;
}

long sys_getsockopt(struct task *t, const uint64_t *a)
{
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = sock_getsockopt(t, sk, (int)a[1], (int)a[2], a[3], a[4]);
	file_put(file);
	return ret;
}

/* ---- messages ---- */

static ssize_t send_and_signal(struct task *t, struct file *file, struct sock *sk,
			       struct sock_msg *msg)
{
	ssize_t n = sock_send(t, sk, msg, file->flags & O_NONBLOCK);

	if (n == -EPIPE && !(msg->flags & MSG_NOSIGNAL) && sk->type != SOCK_DGRAM)
		fileio_sigpipe(t);
	return n;
}

long sys_sendto(struct task *t, const uint64_t *a)
{
	struct sock_msg msg = {.flags = (unsigned int)a[3]};
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret = 0;

	if (IS_ERR(file))
		return PTR_ERR(file);
	iov_init_user(&msg.iter, t->vfs.um, a[1], a[2]);
	if (a[4]) {
		msg.namelen = (int)a[5];
		ret = addr_in(t, a[4], msg.namelen, &msg.name);
	}
	if (!ret)
		ret = send_and_signal(t, file, sk, &msg);
	scm_release(&msg.scm);
	file_put(file);
	return ret;
}

long sys_recvfrom(struct task *t, const uint64_t *a)
{
	struct sock_msg msg = {.flags = (unsigned int)a[3]};
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	iov_init_user(&msg.iter, t->vfs.um, a[1], a[2]);
	ret = sock_recv(t, sk, &msg, file->flags & O_NONBLOCK);
	if (ret >= 0 && a[4] && addr_out(t, &msg.name, msg.namelen, a[4], a[5]))
		ret = -EFAULT;
	scm_release(&msg.scm);
	file_put(file);
	return ret;
}

struct kmsghdr { /* of the kernel's ABI */
	uint64_t name;
	int namelen, pad;
	uint64_t iov, iovlen;
	uint64_t control, controllen;
	unsigned int flags;
};

/* Copies a header in and makes an iterator of its vector. 0 or -errno; iov_fini is the caller's. */
static int msghdr_in(struct task *t, uaddr_t umsg, struct kmsghdr *h, struct sock_msg *msg)
{
	int err;

	if (copy_in(t, h, umsg, sizeof(*h)))
		return -EFAULT;
	if (h->namelen < 0)
		return -EINVAL;
	h->namelen = MIN(h->namelen, (int)sizeof(msg->name));
	if (h->iovlen > IOV_MAX_SEGS)
		return -EMSGSIZE;
	err = iov_init_user_vec(&msg->iter, t->vfs.um, h->iov, h->iovlen);
	return err;
}

static long send_one(struct task *t, struct file *file, struct sock *sk, uaddr_t umsg,
		     unsigned int flags)
{
	struct sock_msg msg = {.flags = flags};
	struct kmsghdr h;
	long ret = msghdr_in(t, umsg, &h, &msg);

	if (ret)
		return ret;
	if (h.name && h.namelen) {
		msg.namelen = h.namelen;
		ret = addr_in(t, h.name, msg.namelen, &msg.name);
	}
	if (!ret && h.control && h.controllen)
		ret = h.controllen > INT32_MAX ? -ENOBUFS
					       : scm_parse(t, sk, h.control, h.controllen, &msg);
	if (!ret)
		ret = send_and_signal(t, file, sk, &msg);
	scm_release(&msg.scm);
	iov_fini(&msg.iter);
	return ret;
}

long sys_sendmsg(struct task *t, const uint64_t *a)
{
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = send_one(t, file, sk, a[1], (unsigned int)a[2]);
	file_put(file);
	return ret;
}

/* Stores what a received message changes in its header. */
static int msghdr_out(struct task *t, uaddr_t umsg, struct kmsghdr *h, struct sock_msg *msg,
		      size_t control)
{
	unsigned int flags = msg->out_flags | (msg->flags & MSG_CMSG_CLOEXEC);
	uint64_t used = control;

	if (h->name) {
		/* h->namelen has been cut to what fits in msg->name. */
		int n = MIN(h->namelen, msg->namelen);

		if (copy_out(t, h->name, &msg->name, (size_t)n))
			return -EFAULT;
		if (copy_out(t, umsg + offsetof(struct kmsghdr, namelen), &msg->namelen,
			     sizeof(msg->namelen)))
			return -EFAULT;
	}
	if (copy_out(t, umsg + offsetof(struct kmsghdr, flags), &flags, sizeof(flags)))
		return -EFAULT;
	return copy_out(t, umsg + offsetof(struct kmsghdr, controllen), &used, sizeof(used));
}

static long recv_one(struct task *t, struct file *file, struct sock *sk, uaddr_t umsg,
		     unsigned int flags)
{
	struct sock_msg msg = {.flags = flags};
	struct kmsghdr h;
	size_t control;
	long ret = msghdr_in(t, umsg, &h, &msg);

	if (ret)
		return ret;
	ret = sock_recv(t, sk, &msg, file->flags & O_NONBLOCK);
	if (ret >= 0) {
		control = scm_deliver(t, sk, &msg, h.control, h.controllen);
		if (msghdr_out(t, umsg, &h, &msg, control))
			ret = -EFAULT;
	}
	scm_release(&msg.scm);
	iov_fini(&msg.iter);
	return ret;
}

long sys_recvmsg(struct task *t, const uint64_t *a)
{
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = recv_one(t, file, sk, a[1], (unsigned int)a[2]);
	file_put(file);
	return ret;
}

#define MMSGHDR_SIZE 64 /* struct msghdr (56) and its count, padded */
_Static_assert(sizeof(struct kmsghdr) == 56, "msghdr of x86-64");

/* Stores how long message @i was. */
static int mmsg_count(struct task *t, uaddr_t vec, unsigned int i, long n)
{
	unsigned int count = (unsigned int)n;

	return copy_out(t, vec + (uint64_t)i * MMSGHDR_SIZE + sizeof(struct kmsghdr), &count,
			sizeof(count));
}

long sys_sendmmsg(struct task *t, const uint64_t *a)
{
	unsigned int i = 0, n = MIN((unsigned int)a[2], (unsigned int)MMSG_MAX);
	struct sock *sk;
	struct file *file = sock_fd(t, (int)a[0], &sk);
	long ret = 0;

	if (IS_ERR(file))
		return PTR_ERR(file);
	for (; i < n; i++) {
		ret = send_one(t, file, sk, a[1] + (uint64_t)i * MMSGHDR_SIZE, (unsigned int)a[3]);
		if (ret >= 0 && mmsg_count(t, a[1], i, ret))
			ret = -EFAULT;
		if (ret < 0)
			break;
	}
	file_put(file);
	return i ? i : ret;
}

long sys_recvmmsg(struct task *t, const uint64_t *a)
{
	unsigned int i = 0, n = MIN((unsigned int)a[2], (unsigned int)MMSG_MAX);
	unsigned int flags = (unsigned int)a[3];
	struct timespec limit, deadline, now;
	struct sock *sk;
	struct file *file;
	long ret = 0;

	if (a[4]) {
		ret = user_timespec(t, a[4], &limit);
		if (ret)
			return ret;
		deadline_after(&deadline, &limit);
	}
	file = sock_fd(t, (int)a[0], &sk);
	if (IS_ERR(file))
		return PTR_ERR(file);
	for (; i < n; i++) {
		ret = recv_one(t, file, sk, a[1] + (uint64_t)i * MMSGHDR_SIZE,
			       flags & ~(unsigned int)MSG_WAITFORONE);
		if (ret >= 0 && mmsg_count(t, a[1], i, ret))
			ret = -EFAULT;
		if (ret < 0)
			break;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		/* As recvmmsg(2) says of itself, only looked at after each message. */
		if (a[4]) {
			now = monotonic_now();
			if (now.tv_sec > deadline.tv_sec ||
			    (now.tv_sec == deadline.tv_sec && now.tv_nsec >= deadline.tv_nsec)) {
				i++;
				break;
			}
		}
	}
	file_put(file);
	return i ? i : ret;
}
