/* SPDX-License-Identifier: Apache-2.0 */
/* What a page holds. */
#ifndef SENTRY_LIB_PAGE_H
#define SENTRY_LIB_PAGE_H

#include <string.h>

#include "sentry/lib/types.h"

/* @page: PAGE_SIZE bytes, aligned to 8. Most that aren't zero show it at one of their ends. */
static inline bool page_is_zero(const void *page)
{
	const uint64_t *p = page;

	return !p[0] && !p[PAGE_SIZE / 8 - 1] && !memcmp(p, p + 1, PAGE_SIZE - 8);
}

#endif
