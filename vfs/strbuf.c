/* SPDX-License-Identifier: Apache-2.0 */
/* Growing strings; a failed allocation is remembered and reported once, at the end. */
#include "vfs/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sentry/lib/arena.h"

static bool strbuf_grow(struct strbuf *b, size_t more)
{
	size_t cap = b->cap ? b->cap : 128;
	char *s;

	if (b->failed)
		return false;
	if (b->len + more + 1 <= b->cap)
		return true;
	while (cap < b->len + more + 1)
		cap *= 2;
	s = krealloc(b->s, cap);
	if (!s) {
		b->failed = true;
		return false;
	}
	b->s = s;
	b->cap = cap;
	return true;
}

void strbuf_add(struct strbuf *b, const char *s, size_t len)
{
	if (!strbuf_grow(b, len))
		return;
	memcpy(b->s + b->len, s, len);
	b->len += len;
	b->s[b->len] = '\0';
}

void strbuf_printf(struct strbuf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !strbuf_grow(b, (size_t)n))
		return;
	va_start(ap, fmt);
	vsnprintf(b->s + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

void strbuf_add_escaped(struct strbuf *b, const char *s)
{
	for (; *s; s++) {
		if (strchr(" \t\n\\#", *s))
			strbuf_printf(b, "\\%03o", (unsigned char)*s);
		else
			strbuf_add(b, s, 1);
	}
}

char *strbuf_finish(struct strbuf *b)
{
	char *s;

	if (!b->s)
		strbuf_add(b, "", 0);
	s = b->failed ? NULL : b->s;
	if (b->failed)
		kfree(b->s);
	*b = (struct strbuf){0};
	return s;
}
