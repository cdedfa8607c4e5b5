/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host descriptors that are passed in: stdin, stdout, stderr. The description behind one is shared
 * with whoever started us, so its O_NONBLOCK stays as it is; instead we look at readiness first,
 * and read and write no more than can be done at once: RWF_NOWAIT where the host has it, else a
 * poll and a bite that fits (a pipe that polls writable has room for PIPE_BUF).
 *
 * The state is the inode's, so that opening /proc/self/fd/1 works as for any pipe or terminal; the
 * host descriptor goes with the inode.
 */
#include <asm/ioctls.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vfs/hostfs.h"
#include "vfs/rootfs.h"

#define BOUNCE 16384u /* on the stack of the calling thread */

struct hostfile {
	int index; /* hostfd */
	mode_t type;
	bool readable, writable; /* what the host descriptor allows */
	struct mutex lock;	 /* LOCK_OBJECT: watched */
	bool watched;
	struct waitq wq;
};

long (*hostfile_tty_hook)(const struct vfs_ctx *ctx, struct file *file, unsigned int cmd,
			  unsigned long arg);

static struct hostfile *hostfile_of(struct file *file)
{
	return file->inode->private;
}

static int hostfile_fd(struct file *file)
{
	return hostfd_get(hostfile_of(file)->index);
}

static bool ready(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, 0) > 0;
}

/* One read that doesn't wait. */
static ssize_t read_now(struct hostfile *h, char *buf, size_t len)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	int fd = hostfd_get(h->index);
	ssize_t n;

	if (h->type != S_IFREG) {
		n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
		if (n >= 0 || errno != EOPNOTSUPP)
			return n < 0 ? host_error(errno) : n;
		if (!ready(fd, POLLIN))
			return -EAGAIN;
	}
	n = read(fd, buf, len);
	return n < 0 ? host_error(errno) : n;
}

static ssize_t write_now(struct hostfile *h, const char *buf, size_t len)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
	int fd = hostfd_get(h->index);
	ssize_t n;

	if (h->type != S_IFREG) {
		n = pwritev2(fd, &iov, 1, -1, RWF_NOWAIT);
		if (n >= 0 || errno != EOPNOTSUPP)
			return n < 0 ? host_error(errno) : n;
		if (!ready(fd, POLLOUT))
			return -EAGAIN;
		len = MIN(len, (size_t)PIPE_BUF);
	}
	n = write(fd, buf, len);
	return n < 0 ? host_error(errno) : n;
}

static ssize_t hostfile_read(struct kiocb *io, struct iov_iter *to)
{
	struct hostfile *h = hostfile_of(io->file);
	size_t len = MIN(to->count, BOUNCE), copied;
	char buf[BOUNCE];
	ssize_t n;

	if (!to->count)
		return 0;
	if (io->flags & IOCB_POSITIONED) {
		n = pread(hostfd_get(h->index), buf, len, (off_t)io->pos);
		n = n < 0 ? host_error(errno) : n;
	} else {
		n = read_now(h, buf, len);
	}
	if (n > 0) {
		copied = iov_copy_to(to, buf, (size_t)n);
		/* What a stream gave can't be put back: the bytes before the fault count. */
		n = copied ? (ssize_t)copied : -EFAULT;
		if (copied)
			io->pos += copied;
	}
	return n;
}

static ssize_t hostfile_write(struct kiocb *io, struct iov_iter *from)
{
	struct hostfile *h = hostfile_of(io->file);
	size_t done = 0, len = MIN(from->count, BOUNCE);
	char buf[BOUNCE];
	ssize_t n = 0;

	while (from->count) {
		size_t got = iov_copy_from(from, buf, len);

		if (!got) {
			n = -EFAULT;
			break;
		}
		if (io->flags & IOCB_POSITIONED) {
			n = pwrite(hostfd_get(h->index), buf, got, (off_t)io->pos);
			n = n < 0 ? host_error(errno) : n;
		} else {
			n = write_now(h, buf, got);
		}
		if (n < 0)
			break;
		done += (size_t)n;
		io->pos += (size_t)n;
		if ((size_t)n < got)
			iov_revert(from, got - (size_t)n);
	}
	return done ? (ssize_t)done : n;
}

static int64_t hostfile_llseek(struct file *file, int64_t offset, int whence)
{
	off_t pos = lseek(hostfile_fd(file), offset, whence);

	if (pos < 0)
		return host_error(errno);
	file->pos = (uint64_t)pos;
	return pos;
}

static uint32_t hostfile_poll(struct file *file)
{
	struct hostfile *h = hostfile_of(file);

	if (h->type == S_IFREG)
		return EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM;
	return hostfd_poll(h->index,
			   EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM | EPOLLPRI | EPOLLRDHUP);
}

static struct waitq *hostfile_pollq(struct file *file)
{
	struct hostfile *h = hostfile_of(file);
	bool watched;

	if (h->type == S_IFREG)
		return NULL;
	mutex_lock(&h->lock);
	if (!h->watched)
		h->watched = !hostfd_watch(h->index, &h->wq);
	watched = h->watched;
	mutex_unlock(&h->lock);
	return watched ? &h->wq : NULL;
}

/* What is passed to the host's terminal: nothing that involves processes, which aren't the host's.
 */
struct tty_ioctl {
	unsigned int cmd;
	unsigned short in, out; /* bytes read from and written to the argument */
};
#define TERMIOS_SIZE 36 /* the kernel's struct termios */

static const struct tty_ioctl tty_ioctls[] = {
	{TCGETS, 0, TERMIOS_SIZE},  {TCSETS, TERMIOS_SIZE, 0}, {TCSETSW, TERMIOS_SIZE, 0},
	{TCSETSF, TERMIOS_SIZE, 0}, {TIOCGWINSZ, 0, 8},	       {TIOCSWINSZ, 8, 0},
	{FIONREAD, 0, 4},	    {TIOCOUTQ, 0, 4},
};
static const unsigned int tty_ioctls_plain[] = {TCSBRK, TCXONC, TCFLSH, TCSBRKP};

static long hostfile_ioctl(const struct vfs_ctx *ctx, struct file *file, unsigned int cmd,
			   unsigned long arg)
{
	int fd = hostfile_fd(file);
	char buf[64] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(tty_ioctls); i++) {
		const struct tty_ioctl *t = &tty_ioctls[i];

		if (t->cmd != cmd)
			continue;
		if (t->in && copy_from_user(ctx->um, buf, arg, t->in))
			return -EFAULT;
		if (ioctl(fd, cmd, buf))
			return errno == ENOTTY ? -ENOTTY : host_error(errno);
		return t->out ? copy_to_user(ctx->um, arg, buf, t->out) : 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(tty_ioctls_plain); i++) {
		if (tty_ioctls_plain[i] != cmd)
			continue;
		if (ioctl(fd, cmd, (int)arg))
			return errno == ENOTTY ? -ENOTTY : host_error(errno);
		return 0;
	}
	if (hostfile_tty_hook && hostfile_of(file)->type == S_IFCHR && isatty(fd))
		return hostfile_tty_hook(ctx, file, cmd, arg);
	return -ENOTTY;
}

static int hostfile_fsync(struct file *file, bool datasync)
{
	if (fsync(hostfile_fd(file)))
		return errno == EINVAL || errno == EROFS ? -EINVAL : host_error(errno);
	return 0;
}

#define HOSTFILE_OPS                                                                               \
	.read = hostfile_read, .write = hostfile_write, .poll = hostfile_poll,                     \
	.pollq = hostfile_pollq, .ioctl = hostfile_ioctl, .fsync = hostfile_fsync

static const struct file_ops hostfile_stream_ops = {HOSTFILE_OPS};
static const struct file_ops hostfile_regular_ops = {HOSTFILE_OPS, .llseek = hostfile_llseek};

static int hostfile_getattr(struct inode *inode)
{
	struct hostfile *h = inode->private;
	struct stat st;

	if (fstat(hostfd_get(h->index), &st))
		return host_error(errno);
	inode_set_size(inode, (uint64_t)st.st_size);
	inode->blocks = (uint64_t)st.st_blocks;
	inode->atime = st.st_atim;
	inode->mtime = st.st_mtim;
	inode->ctime = st.st_ctim;
	return 0;
}

static void hostfile_evict(struct inode *inode)
{
	struct hostfile *h = inode->private;

	hostfd_close(h->index); /* ends the watch */
	waitq_fini(&h->wq);
	mutex_fini(&h->lock);
	kfree(h);
}

static int hostfile_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	struct hostfile *h = inode->private;

	if ((file->readable && !h->readable) || (file->writable && !h->writable))
		return -EACCES;
	file->ops = h->type == S_IFREG ? &hostfile_regular_ops : &hostfile_stream_ops;
	return 0;
}

static const struct inode_ops hostfile_inode_ops = {
	.getattr = hostfile_getattr,
	.open = hostfile_open,
	.evict = hostfile_evict,
};

static const char *hostfile_name(mode_t type, bool tty)
{
	switch (type) {
	case S_IFIFO:
		return "pipe:[%lu]";
	case S_IFSOCK:
		return "socket:[%lu]";
	case S_IFREG:
		return "host:[%lu]";
	default:
		return tty ? "/dev/console" : "host:[%lu]";
	}
}

/* What @h's descriptor can do. 0 or -errno. */
static int hostfile_look(struct hostfile *h, struct stat *st)
{
	int fd = hostfd_get(h->index), mode = fcntl(fd, F_GETFL);

	if (mode < 0 || fstat(fd, st))
		return -EBADF;
	h->type = st->st_mode & S_IFMT;
	h->readable = (mode & O_ACCMODE) != O_WRONLY;
	h->writable = (mode & O_ACCMODE) != O_RDONLY;
	return 0;
}

struct hostfile *hostfile_state(struct file *file)
{
	return hostfile_of(file);
}

int hostfile_reopened(struct hostfile *h)
{
	struct stat st;
	int err = hostfile_look(h, &st);

	if (!err && h->watched)
		h->watched = h->type != S_IFREG && !hostfd_watch(h->index, &h->wq);
	return err;
}

struct file *hostfile_alloc(int hostfd, unsigned int flags, struct cred *cred)
{
	struct hostfile *h = kzalloc(sizeof(*h));
	struct file *file;
	struct stat st;
	mode_t type;
	int err;

	if (!h)
		return ERR_PTR(-ENOMEM);
	h->index = hostfd;
	err = hostfile_look(h, &st);
	if (err) {
		kfree(h);
		return ERR_PTR(err);
	}
	type = h->type;
	mutex_init(&h->lock, LOCK_OBJECT);
	waitq_init(&h->wq);
	/* A terminal keeps its number, so that isatty's callers see a device. */
	file = file_alloc_anon(hostfile_name(type, isatty(hostfd_get(hostfd))), type | 0620,
			       type == S_IFREG ? &hostfile_regular_ops : &hostfile_stream_ops, NULL,
			       flags, cred);
	if (IS_ERR(file)) {
		waitq_fini(&h->wq);
		mutex_fini(&h->lock);
		kfree(h);
		return file;
	}
	file->inode->ops = &hostfile_inode_ops;
	file->inode->private = h;
	file->inode->rdev = st.st_rdev;
	hostfile_getattr(file->inode);
	return file;
}
