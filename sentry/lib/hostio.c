/* SPDX-License-Identifier: Apache-2.0 */
/* See hostio.h. */
#include "sentry/lib/hostio.h"

#include <errno.h>
#include <unistd.h>

int pwrite_all(int fd, const void *buf, size_t n, uint64_t offset)
{
	const uint8_t *p = buf;

	while (n) {
		ssize_t done = pwrite(fd, p, n, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		p += done;
		n -= (size_t)done;
		offset += (uint64_t)done;
	}
	return 0;
}
