/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An I/O iterator: where the bytes of a read go to or the bytes of a write come from, application
 * memory or the sentry's, as one cursor. File operations see only this.
 */
#ifndef SENTRY_LIB_IOV_H
#define SENTRY_LIB_IOV_H

#include <sys/uio.h>

#include "sentry/lib/usermem.h"

#define IOV_INLINE   8
#define IOV_MAX_SEGS 1024

struct iov_seg {
	uint64_t base; /* uaddr_t, or a host pointer when um is NULL */
	size_t len;
};

struct iov_iter {
	struct usermem *um;   /* NULL: segments are host memory */
	struct iov_seg *segs; /* inl, or an arena block that iov_fini frees */
	unsigned int nsegs, seg;
	size_t off;   /* into segs[seg] */
	size_t count; /* bytes left */
	bool faulted; /* a copy stopped at an unmapped address */
	struct iov_seg inl[IOV_INLINE];
};

/* One buffer of the sentry's. */
void iov_init_kernel(struct iov_iter *it, const void *buf, size_t len);
/* One buffer of the application's. */
void iov_init_user(struct iov_iter *it, struct usermem *um, uaddr_t buf, size_t len);
/*
 * An array of struct iovec of the application's, copied in and checked as readv(2) says.
 * Returns 0, -EFAULT, -EINVAL (count or total over SSIZE_MAX) or -ENOMEM.
 */
int iov_init_user_vec(struct iov_iter *it, struct usermem *um, uaddr_t vec, size_t n) __must_check;
void iov_fini(struct iov_iter *it);

/*
 * Copy up to @len bytes and move the cursor on. Return the bytes copied; fewer than asked for with
 * bytes left in the iterator means a fault (it->faulted), which is -EFAULT when nothing was copied.
 */
size_t iov_copy_to(struct iov_iter *it, const void *src, size_t len);
size_t iov_copy_from(struct iov_iter *it, void *dst, size_t len);
size_t iov_zero(struct iov_iter *it, size_t len);
/* Moves the cursor without copying; iov_revert goes back. */
void iov_advance(struct iov_iter *it, size_t len);
void iov_revert(struct iov_iter *it, size_t len);
/* Limits what is left to @len bytes. */
void iov_truncate(struct iov_iter *it, size_t len);

#endif
