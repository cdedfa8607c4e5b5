/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-load/response.h"

#include <stdlib.h>
#include <string.h>

bool pattern_init(struct pattern *p, const char *text)
{
	size_t k = 0;

	p->text = text;
	p->len = strlen(text);
	p->fall = calloc(p->len + 1, sizeof(*p->fall));
	if (!p->fall)
		return false;
	for (size_t i = 1; i < p->len; i++) {
		while (k && text[i] != text[k])
			k = p->fall[k];
		if (text[i] == text[k])
			k++;
		p->fall[i + 1] = k;
	}
	return true;
}

void pattern_fini(struct pattern *p)
{
	free(p->fall);
	p->fall = NULL;
}

static void pattern_search(struct response *r, const char *data, size_t n)
{
	const struct pattern *p = r->pattern;
	size_t k = r->matched;

	for (size_t i = 0; i < n && !r->found; i++) {
		while (k && data[i] != p->text[k])
			k = p->fall[k];
		if (data[i] == p->text[k])
			k++;
		r->found = k == p->len;
	}
	r->matched = k;
}

static int on_message_begin(http_parser *parser)
{
	struct response *r = parser->data;

	r->extra = r->complete;
	return r->complete;
}

static int on_headers_complete(http_parser *parser)
{
	struct response *r = parser->data;

	if (parser->status_code == 101)
		r->switched = true;
	/* 1 says that no body follows. */
	return r->switched ? -1 : r->to_head;
}

static int on_body(http_parser *parser, const char *data, size_t n)
{
	struct response *r = parser->data;

	if (!r->found)
		pattern_search(r, data, n);
	return 0;
}

static int on_message_complete(http_parser *parser)
{
	struct response *r = parser->data;

	/* 100 Continue and its like: the answer itself is still to come. */
	if (parser->status_code / 100 == 1)
		return 0;
	r->complete = true;
	r->keep_alive = http_should_keep_alive(parser);
	return 0;
}

static const http_parser_settings settings = {
	.on_message_begin = on_message_begin,
	.on_headers_complete = on_headers_complete,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

void response_begin(struct response *r, const struct pattern *pattern, bool to_head)
{
	http_parser_init(&r->parser, HTTP_RESPONSE);
	r->parser.data = r;
	r->pattern = pattern;
	r->matched = 0;
	r->found = !pattern || !pattern->len;
	r->to_head = to_head;
	r->begun = r->complete = r->keep_alive = r->extra = r->switched = false;
}

enum response_state response_feed(struct response *r, const char *data, size_t n)
{
	size_t used = http_parser_execute(&r->parser, &settings, data, n);

	if (r->complete && !r->extra && used == n)
		return RESPONSE_DONE;
	if (r->complete) {
		r->extra = true;
		return RESPONSE_BAD;
	}
	if (!n)
		return RESPONSE_SHORT;
	r->begun = true;
	return used == n && HTTP_PARSER_ERRNO(&r->parser) == HPE_OK ? RESPONSE_MORE : RESPONSE_BAD;
}

const char *response_why(const struct response *r)
{
	if (r->extra)
		return "something came behind the answer";
	if (r->switched)
		return "the server switched to another protocol";
	return http_errno_description(HTTP_PARSER_ERRNO(&r->parser));
}
