/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipes and FIFOs.
 *
 * A pipe is a ring of slots, each with a page that is filled from the back and emptied from the
 * front; `head` counts slots ever begun and `tail` slots ever emptied, so head - tail are in use. A
 * write goes on in the last slot's page unless either is a packet (O_DIRECT). Up to PIPE_BUF bytes
 * are written in one piece or not at all.
 *
 * An unnamed pipe and an open FIFO look alike: inode->fifo is the pipe as long as any file of it is
 * open, `files` counts those (under the inode's lock), and opening /proc/self/fd/N of an unnamed
 * pipe works as for a FIFO. readers and writers count ends; r_counter and w_counter count the opens
 * of each kind, so that an open that waits for the other side sees one that has come and gone.
 * file->pos, which a stream doesn't need, holds the w_counter at open: a reader that has never had
 * a writer sees no hang-up. Source: pipe(7), fifo(7).
 */
#include "sentry/pipe.h"

#include <asm/ioctls.h>
#include <limits.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/objects.h"

#define PIPE_SLOTS    16u
#define PIPE_MAX_USER (1u << 20) /* /proc/sys/fs/pipe-max-size */
#define PIPE_SPARES   2

struct pipe_slot {
	uint8_t *page;
	uint32_t off, len;
	bool packet;
};

struct pipe {
	struct mutex lock; /* LOCK_STREAM: all but files */
	struct waitq wq;
	struct pipe_slot *slots;
	unsigned int nslots, head, tail;
	unsigned int readers, writers, r_counter, w_counter;
	unsigned int files; /* under the inode's lock */
	bool unnamed;	    /* made by pipe(2): opening it again through /proc never waits; const */
	uint8_t *spare[PIPE_SPARES];
	void (*on_empty)(bool asks); /* or NULL; const once it is in use */
};

OBJTYPE(pipe_type, "pipe")

#define PIPE_ALL_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM | EPOLLERR | EPOLLHUP)

static struct pipe *pipe_alloc(void)
{
	struct pipe *p = kzalloc(sizeof(*p));

	if (!p)
		return NULL;
	p->nslots = PIPE_SLOTS;
	p->slots = kcalloc(p->nslots, sizeof(*p->slots));
	if (!p->slots) {
		kfree(p);
		return NULL;
	}
	mutex_init(&p->lock, LOCK_STREAM);
	waitq_init(&p->wq);
	objtype_inc(&pipe_type);
	return p;
}

static void pipe_free(struct pipe *p)
{
	for (; p->tail != p->head; p->tail++)
		kfree(p->slots[p->tail % p->nslots].page);
	for (size_t i = 0; i < PIPE_SPARES; i++)
		kfree(p->spare[i]);
	kfree(p->slots);
	waitq_fini(&p->wq);
	mutex_fini(&p->lock);
	objtype_dec(&pipe_type);
	kfree(p);
}

/* ---- the ring; lock held ---- */

static struct pipe_slot *slot_at(struct pipe *p, unsigned int i)
{
	return &p->slots[i & (p->nslots - 1)];
}

static unsigned int slots_used(const struct pipe *p)
{
	return p->head - p->tail;
}

static uint8_t *page_get(struct pipe *p)
{
	for (size_t i = 0; i < PIPE_SPARES; i++) {
		uint8_t *page = p->spare[i];

		if (page) {
			p->spare[i] = NULL;
			return page;
		}
	}
	return kmalloc(PAGE_SIZE);
}

static void page_put(struct pipe *p, uint8_t *page)
{
	for (size_t i = 0; i < PIPE_SPARES; i++) {
		if (!p->spare[i]) {
			p->spare[i] = page;
			return;
		}
	}
	kfree(page);
}

static void slot_drop(struct pipe *p)
{
	struct pipe_slot *s = slot_at(p, p->tail);

	page_put(p, s->page);
	s->page = NULL;
	p->tail++;
}

/* Room behind what the last page holds. */
static size_t merge_room(struct pipe *p, bool packet)
{
	struct pipe_slot *s;

	if (packet || p->head == p->tail)
		return 0;
	s = slot_at(p, p->head - 1);
	return s->packet ? 0 : PAGE_SIZE - s->off - s->len;
}

static size_t ring_room(struct pipe *p, bool packet)
{
	if (slots_used(p) >= p->nslots)
		return slots_used(p) == p->nslots ? merge_room(p, packet) : 0;
	return merge_room(p, packet) + (size_t)(p->nslots - slots_used(p)) * PAGE_SIZE;
}

static size_t ring_bytes(struct pipe *p)
{
	size_t n = 0;

	for (unsigned int i = p->tail; i != p->head; i++)
		n += slot_at(p, i)->len;
	return n;
}

/* A new slot at the end. False: no memory. */
static bool slot_add(struct pipe *p, bool packet)
{
	struct pipe_slot *s = slot_at(p, p->head);

	s->page = page_get(p);
	if (!s->page)
		return false;
	s->off = s->len = 0;
	s->packet = packet;
	p->head++;
	return true;
}

/* Gives the ring @n slots, a power of two and at least those in use. */
static int ring_resize(struct pipe *p, unsigned int n)
{
	struct pipe_slot *slots = kcalloc(n, sizeof(*slots));
	unsigned int used = slots_used(p);

	if (!slots)
		return -ENOMEM;
	for (unsigned int i = 0; i < used; i++)
		slots[i] = *slot_at(p, p->tail + i);
	kfree(p->slots);
	p->slots = slots;
	p->nslots = n;
	p->tail = 0;
	p->head = used;
	return 0;
}

/* Copies what is there to @to, at most a packet. The bytes, or -EFAULT. */
static ssize_t ring_read(struct pipe *p, struct iov_iter *to)
{
	ssize_t done = 0;

	while (p->tail != p->head && to->count) {
		struct pipe_slot *s = slot_at(p, p->tail);
		size_t want = MIN((size_t)s->len, to->count);
		size_t n = iov_copy_to(to, s->page + s->off, want);
		bool packet = s->packet;

		done += (ssize_t)n;
		s->off += (uint32_t)n;
		s->len -= (uint32_t)n;
		if (n < want)
			return done ? done : -EFAULT;
		/* What doesn't fit of a packet is lost. */
		if (!s->len || packet)
			slot_drop(p);
		if (packet)
			break;
	}
	return done;
}

/* Takes what fits from @from. The bytes, -EFAULT or -ENOMEM. */
static ssize_t ring_write(struct pipe *p, struct iov_iter *from, bool packet)
{
	ssize_t done = 0;

	while (from->count) {
		struct pipe_slot *s;
		size_t want, n;

		if (!merge_room(p, packet)) {
			if (slots_used(p) >= p->nslots)
				break;
			if (!slot_add(p, packet))
				return done ? done : -ENOMEM;
		}
		s = slot_at(p, p->head - 1);
		want = MIN(PAGE_SIZE - s->off - s->len, from->count);
		n = iov_copy_from(from, s->page + s->off + s->len, want);
		s->len += (uint32_t)n;
		done += (ssize_t)n;
		if (!s->len) {
			page_put(p, s->page);
			s->page = NULL;
			p->head--;
		}
		if (n < want)
			return done ? done : -EFAULT;
	}
	return done;
}

/* ---- file operations ---- */

static ssize_t pipe_read(struct kiocb *io, struct iov_iter *to)
{
	struct pipe *p = io->file->private;
	unsigned int tail;
	ssize_t n = 0;
	bool freed;

	if (!to->count)
		return 0;
	mutex_lock(&p->lock);
	tail = p->tail;
	if (p->tail != p->head)
		n = ring_read(p, to);
	else if (p->writers)
		n = -EAGAIN;
	freed = p->tail != tail;
	mutex_unlock(&p->lock);
	if (freed)
		waitq_wake(&p->wq, EPOLLOUT | EPOLLWRNORM);
	if (n == -EAGAIN && p->on_empty)
		p->on_empty(false);
	return n;
}

static ssize_t pipe_write(struct kiocb *io, struct iov_iter *from)
{
	struct pipe *p = io->file->private;
	bool packet = io->file->flags & O_DIRECT;
	ssize_t n = -EPIPE;
	size_t room;

	if (!from->count)
		return 0;
	mutex_lock(&p->lock);
	if (p->readers) {
		room = ring_room(p, packet);
		if (!room || (from->count <= PIPE_BUF && room < from->count))
			n = -EAGAIN;
		else
			n = ring_write(p, from, packet);
	}
	mutex_unlock(&p->lock);
	if (n > 0)
		waitq_wake(&p->wq, EPOLLIN | EPOLLRDNORM);
	return n;
}

static uint32_t pipe_poll(struct file *file)
{
	struct pipe *p = file->private;
	uint32_t ev = 0;

	mutex_lock(&p->lock);
	if (file->readable) {
		if (p->head != p->tail)
			ev |= EPOLLIN | EPOLLRDNORM;
		if (!p->writers && file->pos != p->w_counter)
			ev |= EPOLLHUP;
	}
	if (file->writable) {
		if (slots_used(p) < p->nslots)
			ev |= EPOLLOUT | EPOLLWRNORM;
		if (!p->readers)
			ev |= EPOLLERR;
	}
	mutex_unlock(&p->lock);
	if (file->readable && !(ev & (EPOLLIN | EPOLLHUP)) && p->on_empty)
		p->on_empty(true);
	return ev;
}

void pipe_on_empty(struct pipe *p, void (*on_empty)(bool asks))
{
	p->on_empty = on_empty;
}

static struct waitq *pipe_pollq(struct file *file)
{
	return &((struct pipe *)file->private)->wq;
}

static long pipe_ioctl(const struct vfs_ctx *ctx, struct file *file, unsigned int cmd,
		       unsigned long arg)
{
	struct pipe *p = file->private;
	int bytes;

	if (cmd != FIONREAD)
		return -ENOTTY;
	mutex_lock(&p->lock);
	bytes = (int)ring_bytes(p);
	mutex_unlock(&p->lock);
	return copy_to_user(ctx->um, arg, &bytes, sizeof(bytes));
}

static void pipe_release(struct file *file)
{
	struct inode *inode = file->inode;
	struct pipe *p = file->private;
	bool last;

	mutex_lock(&p->lock);
	p->readers -= file->readable;
	p->writers -= file->writable;
	mutex_unlock(&p->lock);
	waitq_wake(&p->wq, PIPE_ALL_EVENTS);
	write_lock(&inode->lock);
	last = --p->files == 0;
	if (last)
		inode->fifo = NULL;
	write_unlock(&inode->lock);
	if (last)
		pipe_free(p);
}

static const struct file_ops pipe_ops = {
	.read = pipe_read,
	.write = pipe_write,
	.ioctl = pipe_ioctl,
	.poll = pipe_poll,
	.pollq = pipe_pollq,
	.release = pipe_release,
};

struct pipe *pipe_of(struct file *file)
{
	return file->ops == &pipe_ops ? file->private : NULL;
}

struct waitq *pipe_waitq(struct pipe *p)
{
	return &p->wq;
}

int pipe_create(struct task *t, unsigned int flags, struct file **rd, struct file **wr)
{
	struct cred *cred = t ? t->vfs.cred : NULL;
	struct pipe *p = pipe_alloc();
	struct file *r, *w;

	if (!p)
		return -ENOMEM;
	r = file_alloc_anon("pipe:[%lu]", S_IFIFO | 0600, &pipe_ops, p, O_RDONLY | flags, cred);
	if (IS_ERR(r)) {
		pipe_free(p);
		return (int)PTR_ERR(r);
	}
	p->readers = p->files = p->r_counter = p->w_counter = 1;
	p->unnamed = true;
	r->inode->fifo = p;
	w = file_alloc(&r->path, &pipe_ops, O_WRONLY | flags, cred);
	if (!w) {
		file_put(r);
		return -ENOMEM;
	}
	w->private = p;
	p->writers = 1;
	p->files = 2;
	*rd = r;
	*wr = w;
	return 0;
}

/* ---- FIFOs ---- */

struct fifo_wait {
	struct pipe *p;
	bool for_writer;
	unsigned int seen;
};

static bool fifo_other_side(void *arg)
{
	struct fifo_wait *fw = arg;
	struct pipe *p = fw->p;
	bool ready;

	mutex_lock(&p->lock);
	ready = fw->for_writer ? p->writers || p->w_counter != fw->seen
			       : p->readers || p->r_counter != fw->seen;
	mutex_unlock(&p->lock);
	return ready;
}

/* The FIFO's pipe with one more file, made if need be. */
static struct pipe *fifo_pipe(struct inode *inode)
{
	struct pipe *p;

	write_lock(&inode->lock);
	p = inode->fifo;
	if (!p) {
		p = pipe_alloc();
		inode->fifo = p;
	}
	if (p)
		p->files++;
	write_unlock(&inode->lock);
	return p;
}

int fifo_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	bool nonblock = file->flags & O_NONBLOCK;
	struct pipe *p = fifo_pipe(inode);
	struct fifo_wait fw;
	bool alone;
	int err = 0;

	if (!p)
		return -ENOMEM;
	fw.p = p;
	file->private = p;
	file->pos = 0;
	mutex_lock(&p->lock);
	if (file->writable && !file->readable && nonblock && !p->readers && !p->unnamed) {
		/* pipe_release undoes the count. */
		p->writers++;
		mutex_unlock(&p->lock);
		pipe_release(file);
		return -ENXIO;
	}
	fw.for_writer = file->readable;
	fw.seen = file->readable ? p->w_counter : p->r_counter;
	/* Now: who is there may have done all it wanted and be gone before we look again. */
	alone = file->readable ? !p->writers : !p->readers;
	if (file->readable) {
		p->readers++;
		p->r_counter++;
		if (!file->writable && nonblock && !p->writers)
			file->pos = p->w_counter;
	}
	if (file->writable) {
		p->writers++;
		p->w_counter++;
	}
	mutex_unlock(&p->lock);
	waitq_wake(&p->wq, PIPE_ALL_EVENTS);
	if (!nonblock && !p->unnamed && !(file->readable && file->writable)) {
		if (alone && !fifo_other_side(&fw))
			err = ctx->wait ? ctx->wait(ctx, &p->wq, PIPE_ALL_EVENTS, fifo_other_side,
						    &fw)
					: -EAGAIN;
	}
	if (err)
		pipe_release(file);
	else
		file->ops = &pipe_ops;
	return err;
}

/* ---- sizes and splicing ---- */

long pipe_size(struct pipe *p)
{
	long size;

	mutex_lock(&p->lock);
	size = (long)(p->nslots * PAGE_SIZE);
	mutex_unlock(&p->lock);
	return size;
}

long pipe_set_size(struct pipe *p, unsigned long size, bool privileged)
{
	unsigned int n = 1;
	long ret;

	if (size > 1u << 31)
		return -EINVAL;
	while (n * PAGE_SIZE < size)
		n *= 2;
	mutex_lock(&p->lock);
	if (n > p->nslots && n * PAGE_SIZE > PIPE_MAX_USER && !privileged)
		ret = -EPERM;
	else if (n < slots_used(p))
		ret = -EBUSY;
	else
		ret = ring_resize(p, n);
	if (!ret)
		ret = (long)(n * PAGE_SIZE);
	mutex_unlock(&p->lock);
	if (ret > 0)
		waitq_wake(&p->wq, EPOLLOUT | EPOLLWRNORM);
	return ret;
}

ssize_t pipe_take(struct pipe *p, void *buf, size_t len)
{
	struct iov_iter it;
	ssize_t n = 0;

	iov_init_kernel(&it, buf, len);
	mutex_lock(&p->lock);
	if (p->head != p->tail)
		n = ring_read(p, &it);
	else if (p->writers)
		n = -EAGAIN;
	mutex_unlock(&p->lock);
	if (n > 0)
		waitq_wake(&p->wq, EPOLLOUT | EPOLLWRNORM);
	return n;
}

int pipe_unget(struct pipe *p, const void *buf, size_t len)
{
	const uint8_t *from = buf;
	int err = 0;

	mutex_lock(&p->lock);
	while (len && !err) {
		size_t n = len % PAGE_SIZE ? len % PAGE_SIZE : PAGE_SIZE;
		struct pipe_slot *s;

		if (slots_used(p) >= p->nslots)
			err = ring_resize(p, p->nslots * 2);
		if (err)
			break;
		s = slot_at(p, p->tail - 1);
		s->page = page_get(p);
		if (!s->page) {
			err = -ENOMEM;
			break;
		}
		p->tail--;
		*s = (struct pipe_slot){.page = s->page, .len = (uint32_t)n};
		len -= n;
		memcpy(s->page, from + len, n);
	}
	mutex_unlock(&p->lock);
	waitq_wake(&p->wq, EPOLLIN | EPOLLRDNORM);
	return err;
}

ssize_t pipe_peek(struct pipe *p, size_t skip, void *buf, size_t len)
{
	size_t done = 0;
	ssize_t ret;

	mutex_lock(&p->lock);
	for (unsigned int i = p->tail; i != p->head && done < len; i++) {
		struct pipe_slot *s = slot_at(p, i);
		size_t from = MIN(skip, (size_t)s->len), n = MIN(s->len - from, len - done);

		memcpy((uint8_t *)buf + done, s->page + s->off + from, n);
		skip -= from;
		done += n;
	}
	ret = (ssize_t)done;
	if (!done && p->head == p->tail && p->writers)
		ret = -EAGAIN;
	mutex_unlock(&p->lock);
	return ret;
}

ssize_t pipe_room(struct pipe *p)
{
	ssize_t room = -EPIPE;

	mutex_lock(&p->lock);
	if (p->readers) {
		room = (ssize_t)ring_room(p, false);
		if (!room)
			room = -EAGAIN;
	}
	mutex_unlock(&p->lock);
	return room;
}

int pipe_put(struct pipe *p, const void *buf, size_t len)
{
	struct iov_iter it;
	int err = 0;

	iov_init_kernel(&it, buf, len);
	mutex_lock(&p->lock);
	if (!p->readers)
		err = -EPIPE;
	while (!err && it.count) {
		ssize_t n = ring_write(p, &it, false);

		if (n < 0)
			err = (int)n;
		else if (it.count)
			err = ring_resize(p, p->nslots * 2);
	}
	mutex_unlock(&p->lock);
	waitq_wake(&p->wq, EPOLLIN | EPOLLRDNORM);
	return err;
}
