/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to application memory for layers that know no mm: struct mm embeds a usermem and
 * implements its operations. Everything read through it is hostile and is read once, then checked.
 */
#ifndef SENTRY_LIB_USERMEM_H
#define SENTRY_LIB_USERMEM_H

#include "sentry/lib/types.h"

struct usermem;

struct usermem_ops {
	/* Return the number of bytes copied: less than @len means the next byte faults. */
	size_t (*copy_in)(struct usermem *um, void *dst, uaddr_t src, size_t len);
	size_t (*copy_out)(struct usermem *um, uaddr_t dst, const void *src, size_t len);
	size_t (*zero_out)(struct usermem *um, uaddr_t dst, size_t len);
};

struct usermem {
	const struct usermem_ops *ops;
};

/* Return 0 or -EFAULT. */
static inline int __must_check copy_from_user(struct usermem *um, void *dst, uaddr_t src,
					      size_t len)
{
	return um->ops->copy_in(um, dst, src, len) == len ? 0 : -14 /* EFAULT */;
}

static inline int __must_check copy_to_user(struct usermem *um, uaddr_t dst, const void *src,
					    size_t len)
{
	return um->ops->copy_out(um, dst, src, len) == len ? 0 : -14;
}

/*
 * Copies a NUL-terminated string of at most @size bytes with its NUL. Returns its length without
 * the NUL, -EFAULT, or -ENAMETOOLONG when no NUL is found in @size bytes.
 */
ssize_t strncpy_from_user(struct usermem *um, char *dst, uaddr_t src, size_t size) __must_check;

#endif
