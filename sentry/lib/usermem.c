/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/lib/usermem.h"

#include <errno.h>
#include <string.h>

ssize_t strncpy_from_user(struct usermem *um, char *dst, uaddr_t src, size_t size)
{
	size_t done = 0;

	/* By pieces that end at page ends: what lies behind the string may not be mapped. */
	while (done < size) {
		size_t n = MIN(size - done, PAGE_SIZE - ((src + done) & ~PAGE_MASK));
		size_t got = um->ops->copy_in(um, dst + done, src + done, MIN(n, 256UL));
		const char *nul = memchr(dst + done, 0, got);

		if (nul)
			return nul - dst;
		if (got < MIN(n, 256UL))
			return -EFAULT;
		done += got;
	}
	return -ENAMETOOLONG;
}
