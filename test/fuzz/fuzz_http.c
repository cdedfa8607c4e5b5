/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP as kvmsbox-serve reads it: the first byte says whether requests or responses, the second how
 * the bytes are cut; the rest is read whole and cut, and must mean the same. What passes has no byte
 * in its head that could end a line when it is written again.
 */
#include <stdlib.h>
#include <string.h>

#include "tools/kvmsbox-serve/head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
	struct http_reader reader;
	struct buf told; /* heads and bodies, one behind the other */
	int status;
};

static void check_text(const char *s, size_t n)
{
	if (strlen(s) != n)
		__builtin_trap();
	for (size_t i = 0; i < n; i++) {
		if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
			__builtin_trap();
	}
}

static int on_head(struct http_reader *r, bool *no_body)
{
	struct result *res = container_of(r, struct result, reader);
	const struct http_head *h = &r->head;

	if (h->url_len > 200)
		__builtin_trap();
	buf_append(&res->told, buf_data(&h->text), h->text.len);
	for (size_t i = 0; i < h->nfields; i++) {
		check_text(http_field_name(h, i), h->fields[i].name_len);
		check_text(http_field_value(h, i), h->fields[i].value_len);
		if (!h->fields[i].name_len || strpbrk(http_field_name(h, i), " \t:"))
			__builtin_trap();
		if (http_head_find(h, http_field_name(h, i), NULL) == NULL)
			__builtin_trap();
		http_field_is_hop_by_hop(h, http_field_name(h, i));
	}
	if (r->parser.flags & F_CHUNKED && r->parser.flags & F_CONTENTLENGTH)
		__builtin_trap();
	buf_printf(&res->told, "|%llu|%u|", (unsigned long long)r->parser.content_length,
		   r->parser.flags & F_CHUNKED);
	return 0;
}

static int on_body(struct http_reader *r, const char *data, size_t n)
{
	buf_append(&container_of(r, struct result, reader)->told, data, n);
	return 0;
}

static int on_end(struct http_reader *r)
{
	buf_str(&container_of(r, struct result, reader)->told, "|end|");
	return 0;
}

static const struct http_reader_ops ops = {.head = on_head, .body = on_body, .end = on_end};

static void read_all(struct result *res, enum http_parser_type type, const char *data, size_t n,
		     size_t cut)
{
	size_t at = 0, used, piece;

	memset(res, 0, sizeof(*res));
	http_reader_init(&res->reader, type, &ops, 2000, 200);
	while (at < n && !res->status) {
		/* In memory of its own, so that ASan sees its end. */
		char *copy;

		piece = MIN(n - at, cut);
		copy = malloc(piece);
		memcpy(copy, data + at, piece);
		res->status = http_reader_feed(&res->reader, copy, piece, &used);
		free(copy);
		if (!res->status && !used)
			__builtin_trap();
		at += used;
	}
	if (!res->status)
		res->status = http_reader_eof(&res->reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct result whole, cut;
	enum http_parser_type type;

	if (size < 2)
		return 0;
	type = data[0] & 1 ? HTTP_REQUEST : HTTP_RESPONSE;
	read_all(&whole, type, (const char *)data + 2, size - 2, size);
	read_all(&cut, type, (const char *)data + 2, size - 2, 1 + data[1] % 16);
	if (!whole.status != !cut.status)
		__builtin_trap();
	if (!whole.status && (whole.told.len != cut.told.len ||
			      (whole.told.len && memcmp(buf_data(&whole.told), buf_data(&cut.told),
							whole.told.len))))
		__builtin_trap();
	http_reader_fini(&whole.reader);
	http_reader_fini(&cut.reader);
	buf_fini(&whole.told);
	buf_fini(&cut.told);
	return 0;
}
