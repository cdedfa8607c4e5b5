/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVE_RANDOM_H
#define SERVE_RANDOM_H

#include "sentry/lib/types.h"

/* From the kernel, fetched a page at a time; each byte is given out once. False: it has none. */
bool random_bytes(void *to, size_t n) __must_check;

#endif
