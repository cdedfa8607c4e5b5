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

#endif
