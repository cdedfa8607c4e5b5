/* SPDX-License-Identifier: Apache-2.0 */
/* The devices that need nothing behind them: null, zero, full, random, urandom, kmsg (major 1). */
#include <string.h>
#include <sys/random.h>
#include <sys/sysmacros.h>

#include "vfs/internal.h"

#define MEM_MAJOR 1

static ssize_t null_read(struct kiocb *io, struct iov_iter *to)
{
	return 0;
}

static ssize_t null_write(struct kiocb *io, struct iov_iter *from)
{
	size_t n = from->count;

	iov_advance(from, n);
	return (ssize_t)n;
}

static ssize_t zero_read(struct kiocb *io, struct iov_iter *to)
{
	size_t want = to->count, n = iov_zero(to, want);

	return n || !want ? (ssize_t)n : -EFAULT;
}

static ssize_t full_write(struct kiocb *io, struct iov_iter *from)
{
	return from->count ? -ENOSPC : 0;
}

/* These have a position that means nothing; seeking succeeds and leaves it at 0. */
static int64_t null_llseek(struct file *file, int64_t offset, int whence)
{
	file->pos = 0;
	return 0;
}

static int zero_mmap(struct file *file, bool shared, unsigned int prot)
{
	return 1;
}

static ssize_t random_read(struct kiocb *io, struct iov_iter *to)
{
	unsigned char buf[1024];
	size_t want = to->count, done = 0;

	while (done < want) {
		size_t n = MIN(sizeof(buf), want - done), copied;
		ssize_t got = getrandom(buf, n, 0);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			return done ? (ssize_t)done : -EIO;
		}
		copied = iov_copy_to(to, buf, (size_t)got);
		done += copied;
		if (copied < (size_t)got)
			break;
		if (io->ctx && io->ctx->interrupted && io->ctx->interrupted(io->ctx))
			break;
	}
	explicit_bzero(buf, sizeof(buf));
	return done || !want ? (ssize_t)done : -EFAULT;
}

static int64_t random_llseek(struct file *file, int64_t offset, int whence)
{
	return 0;
}

/* Nothing has ever been logged in here. */
static ssize_t kmsg_read(struct kiocb *io, struct iov_iter *to)
{
	return -EAGAIN;
}

static ssize_t kmsg_write(struct kiocb *io, struct iov_iter *from)
{
	char line[256];
	size_t want = from->count, n = iov_copy_from(from, line, MIN(want, sizeof(line) - 1));

	if (want && !n)
		return -EFAULT;
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	log_debug("kmsg: %s", line);
	iov_advance(from, from->count);
	return (ssize_t)want;
}

static uint32_t kmsg_poll(struct file *file)
{
	return EPOLLOUT | EPOLLWRNORM;
}

static const struct file_ops null_ops = {
	.read = null_read, .write = null_write, .llseek = null_llseek};
static const struct file_ops zero_ops = {
	.read = zero_read, .write = null_write, .llseek = null_llseek, .mmap = zero_mmap};
static const struct file_ops full_ops = {
	.read = zero_read, .write = full_write, .llseek = null_llseek};
static const struct file_ops random_ops = {
	.read = random_read, .write = null_write, .llseek = random_llseek};
static const struct file_ops kmsg_ops = {.read = kmsg_read, .write = kmsg_write, .poll = kmsg_poll};

static int memdev_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	static const struct file_ops *const ops[] = {
		[3] = &null_ops,   [5] = &zero_ops,   [7] = &full_ops,
		[8] = &random_ops, [9] = &random_ops, [11] = &kmsg_ops,
	};
	unsigned int min = minor(inode->rdev);

	if (min >= ARRAY_SIZE(ops) || !ops[min])
		return -ENXIO;
	file->ops = ops[min];
	return 0;
}

static struct chrdev memdev = {
	.major = MEM_MAJOR, .minor = 0, .nminors = 12, .name = "mem", .open = memdev_open};

void memdev_register(void)
{
	chrdev_register(&memdev);
}
