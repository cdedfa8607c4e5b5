/* SPDX-License-Identifier: Apache-2.0 */
/* Input and output on host descriptors that is done whole or not at all. */
#ifndef SENTRY_LIB_HOSTIO_H
#define SENTRY_LIB_HOSTIO_H

#include "sentry/lib/types.h"

/*
 * Writes all @n bytes of @buf to @fd from @offset on, whatever signals and short writes come
 * between. 0, -EIO when the host writes nothing and says no reason, or -errno; some may then be
 * written. May block.
 */
int pwrite_all(int fd, const void *buf, size_t n, uint64_t offset) __must_check;
/*
 * Reads all @n bytes at @offset of @fd into @buf. 0, @early when the file ends before, or -errno;
 * some may then have been read. May block.
 */
int pread_all(int fd, void *buf, size_t n, uint64_t offset, int early) __must_check;

#endif
