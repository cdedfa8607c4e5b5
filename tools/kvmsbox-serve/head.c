/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/head.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_FIELDS 256

static struct http_reader *reader_of(http_parser *p)
{
	return p->data;
}

/* Ends reading with @status (0: goes on). What http_parser's callbacks return. */
static int end_with(struct http_reader *r, int status)
{
	if (status)
		r->status = status;
	return status ? -1 : 0;
}

static void head_clear(struct http_head *h)
{
	buf_clear(&h->text);
	h->nfields = 0;
	h->url = h->url_len = 0;
}

static int on_begin(http_parser *p)
{
	struct http_reader *r = reader_of(p);

	head_clear(&r->head);
	r->head_bytes = 0;
	r->in_value = r->in_trailer = false;
	r->begun = true;
	return 0;
}

static int on_url(http_parser *p, const char *at, size_t n)
{
	struct http_reader *r = reader_of(p);

	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)at[i] <= 0x20 || at[i] == 0x7f)
			return end_with(r, 400);
	}
	if (r->head.url_len + n > r->max_url)
		return end_with(r, 414);
	buf_append(&r->head.text, at, n);
	r->head.url_len += (uint32_t)n;
	return 0;
}

/* Where the text goes on, behind a NUL that ends what was there. */
static uint32_t head_terminate(struct http_head *h)
{
	buf_append(&h->text, "", 1);
	return (uint32_t)h->text.len;
}

static struct http_field *field_add(struct http_head *h)
{
	size_t room = h->room ? 2 * h->room : 32;
	struct http_field *grown;

	if (h->nfields == h->room) {
		grown = realloc(h->fields, room * sizeof(*grown));
		if (!grown) {
			h->text.failed = true;
			return NULL;
		}
		h->fields = grown;
		h->room = room;
	}
	h->fields[h->nfields] = (struct http_field){.name = head_terminate(h)};
	return &h->fields[h->nfields++];
}

static bool is_token(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if ((s[i] < 'a' || s[i] > 'z') && (s[i] < 'A' || s[i] > 'Z') &&
		    (s[i] < '0' || s[i] > '9') && (!s[i] || !strchr("!#$%&'*+-.^_`|~", s[i])))
			return false;
	}
	return true;
}

/* Trailers are read and dropped. */
static int count_head(struct http_reader *r, size_t n)
{
	r->head_bytes += n;
	return r->head_bytes > r->max_head ? end_with(r, 431) : 0;
}

static int on_field(http_parser *p, const char *at, size_t n)
{
	struct http_reader *r = reader_of(p);
	struct http_head *h = &r->head;
	struct http_field *f;

	if (!is_token(at, n))
		return end_with(r, 400);
	if (count_head(r, n))
		return -1;
	if (r->in_trailer)
		return 0;
	if (r->in_value || !h->nfields) {
		if (h->nfields == MAX_FIELDS)
			return end_with(r, 431);
		if (!field_add(h))
			return end_with(r, 500);
	}
	r->in_value = false;
	f = &h->fields[h->nfields - 1];
	buf_append(&h->text, at, n);
	f->name_len += (uint32_t)n;
	return 0;
}

static int on_value(http_parser *p, const char *at, size_t n)
{
	struct http_reader *r = reader_of(p);
	struct http_head *h = &r->head;
	struct http_field *f;

	for (size_t i = 0; i < n; i++) {
		if (((unsigned char)at[i] < 0x20 && at[i] != '\t') || at[i] == 0x7f)
			return end_with(r, 400);
	}
	if (count_head(r, n))
		return -1;
	if (r->in_trailer)
		return 0;
	f = &h->fields[h->nfields - 1];
	if (!r->in_value)
		f->value = head_terminate(h);
	r->in_value = true;
	buf_append(&h->text, at, n);
	f->value_len += (uint32_t)n;
	return 0;
}

static int on_head(http_parser *p)
{
	struct http_reader *r = reader_of(p);
	bool no_body = false;
	int status;

	/* A field without a value never got its offset. */
	head_terminate(&r->head);
	for (size_t i = 0; i < r->head.nfields; i++) {
		struct http_field *f = &r->head.fields[i];

		if (!f->name_len)
			return end_with(r, 400);
		if (!f->value_len)
			f->value = (uint32_t)r->head.text.len - 1;
	}
	if (r->head.text.failed)
		return end_with(r, 500);
	r->in_trailer = true;
	/* There are no upgrades here: what follows is the body that the head names. */
	p->upgrade = 0;
	status = r->ops->head(r, &no_body);
	if (status)
		return end_with(r, status);
	return no_body ? 1 : 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
	struct http_reader *r = reader_of(p);

	return end_with(r, r->ops->body(r, at, n));
}

static int on_end(http_parser *p)
{
	struct http_reader *r = reader_of(p);
	int status = r->ops->end(r);

	r->begun = false;
	if (status)
		return end_with(r, status);
	r->paused = true;
	http_parser_pause(p, 1);
	return 0;
}

void http_reader_init(struct http_reader *r, enum http_parser_type type,
		      const struct http_reader_ops *ops, size_t max_head, size_t max_url)
{
	memset(r, 0, sizeof(*r));
	http_parser_init(&r->parser, type);
	r->parser.data = r;
	r->ops = ops;
	r->max_head = max_head;
	r->max_url = max_url;
}

void http_reader_fini(struct http_reader *r)
{
	buf_fini(&r->head.text);
	free(r->head.fields);
	r->head.fields = NULL;
	r->head.nfields = r->head.room = 0;
}

static const http_parser_settings settings = {
	.on_message_begin = on_begin,
	.on_url = on_url,
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_headers_complete = on_head,
	.on_body = on_body,
	.on_message_complete = on_end,
};

static int reader_error(struct http_reader *r)
{
	enum http_errno e = HTTP_PARSER_ERRNO(&r->parser);

	if (r->status)
		return r->status;
	if (e == HPE_OK || e == HPE_PAUSED)
		return 0;
	return e == HPE_HEADER_OVERFLOW ? 431 : 400;
}

int http_reader_feed(struct http_reader *r, const char *data, size_t n, size_t *used)
{
	*used = 0;
	if (r->status)
		return r->status;
	if (r->paused) {
		http_parser_pause(&r->parser, 0);
		r->paused = false;
	}
	if (!n)
		return 0;
	*used = http_parser_execute(&r->parser, &settings, data, n);
	return reader_error(r);
}

int http_reader_eof(struct http_reader *r)
{
	if (r->status)
		return r->status;
	if (r->paused)
		return 0;
	http_parser_execute(&r->parser, &settings, NULL, 0);
	return reader_error(r);
}

const char *http_field_name(const struct http_head *h, size_t i)
{
	return buf_data(&h->text) + h->fields[i].name;
}

const char *http_field_value(const struct http_head *h, size_t i)
{
	return buf_data(&h->text) + h->fields[i].value;
}

const char *http_head_find(const struct http_head *h, const char *name, size_t *count)
{
	const char *found = NULL;
	size_t n = 0;

	for (size_t i = 0; i < h->nfields; i++) {
		if (strcasecmp(http_field_name(h, i), name))
			continue;
		if (!n++)
			found = http_field_value(h, i);
	}
	if (count)
		*count = n;
	return found;
}

static bool list_has_token(const char *s, const char *token)
{
	size_t len = strlen(token), n;

	while (*s) {
		s += strspn(s, " \t,");
		n = strcspn(s, " \t,;");
		if (n == len && !strncasecmp(s, token, n))
			return true;
		s += strcspn(s, ",");
	}
	return false;
}

bool http_head_has_token(const struct http_head *h, const char *name, const char *token)
{
	for (size_t i = 0; i < h->nfields; i++) {
		if (!strcasecmp(http_field_name(h, i), name) &&
		    list_has_token(http_field_value(h, i), token))
			return true;
	}
	return false;
}

bool http_field_is_hop_by_hop(const struct http_head *h, const char *name)
{
	static const char *const names[] = {"connection",
					    "keep-alive",
					    "proxy-authenticate",
					    "proxy-authorization",
					    "proxy-connection",
					    "te",
					    "trailer",
					    "transfer-encoding",
					    "upgrade"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcasecmp(name, names[i]))
			return true;
	}
	return http_head_has_token(h, "connection", name);
}

const char *http_reason(unsigned int status)
{
	switch (status) {
#define XX(num, name, string)                                                                      \
	case num:                                                                                  \
		return #string;
		HTTP_STATUS_MAP(XX)
#undef XX
	}
	return "Unknown";
}
