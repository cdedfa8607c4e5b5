/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/lib/iov.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "sentry/lib/arena.h"

/* Linux's MAX_RW_COUNT: more than this is never transferred by one call. */
#define MAX_RW_COUNT (INT_MAX & PAGE_MASK)

static void init_one(struct iov_iter *it, struct usermem *um, uint64_t base, size_t len)
{
	it->um = um;
	it->segs = it->inl;
	it->nsegs = 1;
	it->seg = 0;
	it->off = 0;
	it->count = len;
	it->faulted = false;
	it->inl[0].base = base;
	it->inl[0].len = len;
}

void iov_init_kernel(struct iov_iter *it, const void *buf, size_t len)
{
	init_one(it, NULL, (uint64_t)(uintptr_t)buf, len);
}

void iov_init_user(struct iov_iter *it, struct usermem *um, uaddr_t buf, size_t len)
{
	init_one(it, um, buf, MIN(len, (size_t)MAX_RW_COUNT));
}

int iov_init_user_vec(struct iov_iter *it, struct usermem *um, uaddr_t vec, size_t n)
{
	size_t total = 0;

	init_one(it, um, 0, 0);
	it->nsegs = 0;
	if (n > IOV_MAX_SEGS)
		return -EINVAL;
	if (n > IOV_INLINE) {
		it->segs = kmalloc(n * sizeof(*it->segs));
		if (!it->segs) {
			it->segs = it->inl;
			return -ENOMEM;
		}
	}
	/* struct iovec and struct iov_seg are laid out alike. */
	_Static_assert(sizeof(struct iov_seg) == sizeof(struct iovec), "iov_seg is iovec");
	if (n && copy_from_user(um, it->segs, vec, n * sizeof(*it->segs))) {
		iov_fini(it);
		return -EFAULT;
	}
	it->nsegs = (unsigned int)n;
	for (size_t i = 0; i < n; i++) {
		if ((ssize_t)it->segs[i].len < 0) {
			iov_fini(it);
			return -EINVAL;
		}
		it->segs[i].len = MIN(it->segs[i].len, MAX_RW_COUNT - total);
		total += it->segs[i].len;
	}
	it->count = total;
	return 0;
}

void iov_fini(struct iov_iter *it)
{
	if (it->segs != it->inl)
		kfree(it->segs);
	it->segs = it->inl;
	it->nsegs = 0;
	it->count = 0;
}

enum copy_kind { COPY_TO, COPY_FROM, COPY_ZERO, COPY_NONE };

static size_t copy_piece(struct iov_iter *it, enum copy_kind kind, uint64_t base, uint8_t *buf,
			 size_t n)
{
	void *host = (void *)(uintptr_t)base;

	if (kind == COPY_NONE)
		return n;
	if (it->um) {
		const struct usermem_ops *ops = it->um->ops;

		if (kind == COPY_TO)
			return ops->copy_out(it->um, base, buf, n);
		if (kind == COPY_FROM)
			return ops->copy_in(it->um, buf, base, n);
		return ops->zero_out(it->um, base, n);
	}
	if (kind == COPY_TO)
		memcpy(host, buf, n);
	else if (kind == COPY_FROM)
		memcpy(buf, host, n);
	else
		memset(host, 0, n);
	return n;
}

static size_t iov_move(struct iov_iter *it, enum copy_kind kind, uint8_t *buf, size_t len)
{
	size_t done = 0;

	len = MIN(len, it->count);
	while (done < len) {
		struct iov_seg *s = &it->segs[it->seg];
		size_t n = MIN(len - done, s->len - it->off), got;

		if (!n) {
			it->seg++;
			it->off = 0;
			continue;
		}
		got = copy_piece(it, kind, s->base + it->off, buf ? buf + done : NULL, n);
		it->off += got;
		it->count -= got;
		done += got;
		if (got < n) {
			it->faulted = true;
			break;
		}
	}
	return done;
}

size_t iov_copy_to(struct iov_iter *it, const void *src, size_t len)
{
	return iov_move(it, COPY_TO, (uint8_t *)(uintptr_t)src, len);
}

size_t iov_copy_from(struct iov_iter *it, void *dst, size_t len)
{
	return iov_move(it, COPY_FROM, dst, len);
}

size_t iov_zero(struct iov_iter *it, size_t len)
{
	return iov_move(it, COPY_ZERO, NULL, len);
}

void iov_advance(struct iov_iter *it, size_t len)
{
	iov_move(it, COPY_NONE, NULL, len);
}

void iov_revert(struct iov_iter *it, size_t len)
{
	it->count += len;
	while (len > it->off) {
		len -= it->off;
		it->seg--;
		it->off = it->segs[it->seg].len;
	}
	it->off -= len;
}

void iov_truncate(struct iov_iter *it, size_t len)
{
	it->count = MIN(it->count, len);
}
