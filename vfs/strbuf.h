/* SPDX-License-Identifier: Apache-2.0 */
/* A growing string in the arena, for texts that the vfs hands out (mount tables, options). */
#ifndef VFS_STRBUF_H
#define VFS_STRBUF_H

#include "sentry/lib/types.h"

struct strbuf {
	char *s; /* terminated, or NULL while empty */
	size_t len, cap;
	bool failed; /* out of memory: strbuf_finish gives NULL */
};

void strbuf_add(struct strbuf *b, const char *s, size_t len);
void strbuf_printf(struct strbuf *b, const char *fmt, ...) __printf_fmt(2, 3);
/* @s with space, tab, newline, backslash and '#' as octal, like /proc/mounts. */
void strbuf_add_escaped(struct strbuf *b, const char *s);
/* The kmalloc'd string ("" at least), or NULL when memory ran out. The buffer is empty again. */
char *strbuf_finish(struct strbuf *b);

#endif
