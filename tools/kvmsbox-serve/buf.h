/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue of bytes. Memory that runs out sets failed, which stays: whoever sends from the buffer
 * looks at it once, instead of every append being looked at.
 */
#ifndef SERVE_BUF_H
#define SERVE_BUF_H

#include "sentry/lib/types.h"

struct buf {
	char *mem;
	size_t head, len, cap; /* bytes [head, head + len) of cap */
	bool failed;
};

void buf_fini(struct buf *b);
/* Forgets the contents; large memory is given back. */
void buf_clear(struct buf *b);
/* Room for @n more bytes at the end: where they go (count them with buf_added), or NULL. */
char *buf_room(struct buf *b, size_t n);
void buf_append(struct buf *b, const void *data, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) __printf_fmt(2, 3);
/* @s as a JSON string, with its quotes; invalid UTF-8 becomes U+FFFD. */
void buf_json(struct buf *b, const char *s, size_t n);

static inline const char *buf_data(const struct buf *b)
{
	return b->mem + b->head;
}

static inline void buf_added(struct buf *b, size_t n)
{
	b->len += n;
}

static inline void buf_consume(struct buf *b, size_t n)
{
	b->head += n;
	b->len -= n;
	if (!b->len)
		b->head = 0;
}

#endif
