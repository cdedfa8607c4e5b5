/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP 16384

void buf_fini(struct buf *b)
{
	free(b->mem);
	memset(b, 0, sizeof(*b));
}

void buf_clear(struct buf *b)
{
	b->head = b->len = 0;
	if (b->cap > KEEP)
		buf_fini(b);
}

char *buf_room(struct buf *b, size_t n)
{
	size_t cap;
	char *mem;

	if (b->failed)
		return NULL;
	if (b->head && b->head + b->len + n > b->cap) {
		memmove(b->mem, b->mem + b->head, b->len);
		b->head = 0;
	}
	if (b->len + n > b->cap) {
		for (cap = b->cap ? b->cap : 1024; cap < b->len + n; cap *= 2)
			;
		mem = realloc(b->mem, cap);
		if (!mem) {
			b->failed = true;
			return NULL;
		}
		b->mem = mem;
		b->cap = cap;
	}
	return b->mem + b->head + b->len;
}

void buf_append(struct buf *b, const void *data, size_t n)
{
	char *to;

	if (!n)
		return;
	to = buf_room(b, n);
	if (!to)
		return;
	memcpy(to, data, n);
	b->len += n;
}

void buf_str(struct buf *b, const char *s)
{
	buf_append(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	char *to;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	to = buf_room(b, (size_t)n + 1);
	if (!to)
		return;
	va_start(ap, fmt);
	vsnprintf(to, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

/* Length of the well-formed UTF-8 sequence at @s, or 0. */
static size_t utf8_len(const unsigned char *s, size_t n)
{
	size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (!len || len > n || s[0] > 0xf4)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

void buf_json(struct buf *b, const char *str, size_t n)
{
	const unsigned char *s = (const unsigned char *)str;

	buf_append(b, "\"", 1);
	for (size_t i = 0, len; i < n; i += len) {
		len = utf8_len(s + i, n - i);
		if (!len) {
			buf_str(b, "\\ufffd");
			len = 1;
		} else if (s[i] == '"' || s[i] == '\\') {
			buf_printf(b, "\\%c", s[i]);
		} else if (s[i] == '\n') {
			buf_str(b, "\\n");
		} else if (s[i] < 0x20 || s[i] == 0x7f) {
			buf_printf(b, "\\u%04x", s[i]);
		} else {
			buf_append(b, s + i, len);
		}
	}
	buf_append(b, "\"", 1);
}
