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

int pread_all(int fd, void *buf, size_t n, uint64_t offset, int early)
{
	uint8_t *p = buf;

	while (n) {
		ssize_t got = pread(fd, p, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : early;
		p += got;
		n -= (size_t)got;
		offset += (uint64_t)got;
	}
	return 0;
}
