/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http: the request is forwarded to the program's port over one stream, and its response back. One
 * connection a request, HTTP/1.1; what is about a connection stays on its side of the server.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tools/kvmsbox-serve/client.h"
#include "tools/kvmsbox-serve/instance.h"
#include "tools/kvmsbox-serve/request.h"

#define PIECE	 65536
#define HIGH	 262144
#define MAX_HEAD 131072

struct http_state {
	struct instance *instance;
	struct stream *stream;
	struct http_reader reader;
	struct buf out; /* of the request: encoded, not sent */
	bool chunked, encoded_end, interim, answered;
	uint64_t got;
};

static struct http_state *state_of(struct http_reader *r)
{
	return container_of(r, struct http_state, reader);
}

static void http_reset(struct instance *i, bool all)
{
	struct http_state *s = i->data;

	if (!s)
		return;
	if (s->stream)
		stream_free(s->stream);
	http_reader_fini(&s->reader);
	buf_fini(&s->out);
	free(s);
	i->data = NULL;
}

/* The request has been answered; the sandbox is told that it is over. */
static void finish(struct instance *i, bool cancel)
{
	struct http_state *s = i->data;

	if (i->state != INST_BUSY)
		return;
	if (s && s->stream) {
		stream_close(i, s->stream);
		s->stream = NULL;
	}
	instance_finish(i, cancel);
}

static void fail(struct instance *i, const char *why)
{
	if (i->req)
		response_fail(i->req, 502, OUT_BAD_RESPONSE, "bad-response", "%s", why);
	finish(i, true);
}

static void encode_body(struct http_state *s, struct request *r)
{
	size_t n = r->body.len;

	if (s->chunked && n) {
		buf_printf(&s->out, "%zx\r\n", n);
		buf_append(&s->out, buf_data(&r->body), n);
		buf_str(&s->out, "\r\n");
	} else {
		buf_append(&s->out, buf_data(&r->body), n);
	}
	buf_consume(&r->body, n);
	if (r->body_done && !s->encoded_end) {
		s->encoded_end = true;
		if (s->chunked)
			buf_str(&s->out, "0\r\n\r\n");
	}
}

static void push(struct instance *i, struct request *r)
{
	struct http_state *s = i->data;
	size_t before;

	if (!s || !s->stream)
		return;
	do {
		if (s->out.len < PIECE)
			encode_body(s, r);
		before = s->out.len;
		if (before)
			buf_consume(&s->out,
				    stream_send(i, s->stream, buf_data(&s->out), before, false));
		if (i->req != r)
			return;
	} while (s->out.len < before && (s->out.len || r->body.len));
	if (s->out.failed)
		fail(i, "out of memory");
	else if (s->out.len < PIECE)
		request_body_taken(r);
}

static bool is_forwarded(const struct http_head *h, const char *name)
{
	static const char *const not [] = {"authorization",    "host",	       "content-length",
					   "expect",	       "x-request-id", "x-forwarded-for",
					   "x-forwarded-proto"};

	for (size_t k = 0; k < ARRAY_SIZE(not ); k++) {
		if (!strcasecmp(name, not [k]))
			return false;
	}
	return !http_field_is_hop_by_hop(h, name);
}

static void encode_head(struct http_state *s, struct request *r)
{
	const struct http_head *h = r->head;
	const char *host = http_head_find(h, "host", NULL);
	bool sent = r->body.len || !r->body_done;

	buf_printf(&s->out, "%s %s%s%s HTTP/1.1\r\nHost: %s\r\n", http_method_str(r->method),
		   r->path, r->query ? "?" : "", r->query ?: "", host ?: "localhost");
	for (size_t k = 0; k < h->nfields; k++) {
		if (is_forwarded(h, http_field_name(h, k)))
			buf_printf(&s->out, "%s: %s\r\n", http_field_name(h, k),
				   http_field_value(h, k));
	}
	buf_printf(&s->out, "X-Request-Id: %s\r\nX-Forwarded-For: %s\r\nX-Forwarded-Proto: %s\r\n",
		   r->id, r->client->peer, r->client->ssl ? "https" : "http");
	if (!r->body_done && (r->client->reader.parser.flags & F_CHUNKED)) {
		s->chunked = true;
		buf_str(&s->out, "Transfer-Encoding: chunked\r\n");
	} else if (!r->body_done) {
		buf_printf(&s->out, "Content-Length: %llu\r\n", (unsigned long long)r->length);
	} else if (sent || r->method == HTTP_POST || r->method == HTTP_PUT ||
		   r->method == HTTP_PATCH) {
		buf_printf(&s->out, "Content-Length: %zu\r\n", r->body.len);
	}
	buf_str(&s->out, "Connection: close\r\n\r\n");
}

static bool has_no_body(const struct request *r, unsigned int status)
{
	return r->method == HTTP_HEAD || status == 204 || status == 304;
}

static int on_head(struct http_reader *reader, bool *no_body)
{
	struct http_state *s = state_of(reader);
	struct request *r = s->instance->req;
	const struct http_head *h = &reader->head;
	unsigned int status = reader->parser.status_code;
	int64_t length = LENGTH_UNKNOWN;

	s->interim = status < 200;
	if (status < 100 || status == 101 || status > 999)
		return 502;
	if (s->interim)
		return 0;
	response_begin(r, status);
	for (size_t k = 0; k < h->nfields; k++) {
		const char *name = http_field_name(h, k);

		if (strcasecmp(name, "content-length") && strcasecmp(name, "date") &&
		    strcasecmp(name, "x-request-id") && !http_field_is_hop_by_hop(h, name))
			response_field(r, name, http_field_value(h, k));
	}
	if (!(reader->parser.flags & F_CHUNKED) && reader->parser.content_length != UINT64_MAX)
		length = (int64_t)reader->parser.content_length;
	*no_body = has_no_body(r, status);
	if (*no_body && r->method != HTTP_HEAD)
		length = NO_BODY;
	response_head_end(r, length);
	return 0;
}

static int on_body(struct http_reader *reader, const char *data, size_t n)
{
	struct http_state *s = state_of(reader);

	s->got += n;
	if (s->got > s->instance->config->limits.output) {
		response_too_much(s->instance->req, s->instance->config);
		return HTTP_READ_STOP;
	}
	response_data(s->instance->req, data, n);
	return s->instance->req ? 0 : HTTP_READ_STOP;
}

static int on_end(struct http_reader *reader)
{
	struct http_state *s = state_of(reader);
	struct request *r = s->instance->req;

	if (s->interim)
		return 0;
	s->answered = true;
	response_end(r, r->status >= 500 ? OUT_FUNCTION_ERROR : OUT_OK);
	return HTTP_READ_STOP;
}

static const struct http_reader_ops reader_ops = {.head = on_head, .body = on_body, .end = on_end};

static void http_invoke(struct instance *i, struct request *r)
{
	struct http_state *s = calloc(1, sizeof(*s));

	if (!s) {
		instance_kill(i, "out of memory");
		return;
	}
	i->data = s;
	s->instance = i;
	http_reader_init(&s->reader, HTTP_RESPONSE, &reader_ops, MAX_HEAD, 0);
	instance_invoke(i, r, NULL, 0, 0);
	if (i->req != r)
		return;
	s->stream = stream_open(i, i->config->port ? (uint16_t)i->config->port : i->port);
	if (!s->stream || i->req != r) {
		instance_kill(i, "out of memory");
		return;
	}
	encode_head(s, r);
	push(i, r);
}

/* Bytes that the client has taken, or that wait for it within bounds. */
static void acknowledge(struct instance *i, struct request *r)
{
	struct http_state *s = i->data;

	if (s && s->stream && s->stream->unacked > s->stream->consumed &&
	    response_pending(r) < HIGH)
		stream_consumed(i, s->stream, s->stream->unacked - s->stream->consumed);
}

static void http_drained(struct instance *i, struct request *r)
{
	acknowledge(i, r);
}

static void feed(struct instance *i, const char *data, size_t n)
{
	struct http_state *s = i->data;
	size_t used;
	int status = 0;

	while (n && !status && i->req) {
		status = http_reader_feed(&s->reader, data, n, &used);
		data += MIN(used, n);
		n -= MIN(used, n);
	}
	if (!status && i->req && s->stream->got_end)
		status = http_reader_eof(&s->reader);
	if (!i->req) {
		finish(i, !s->answered);
	} else if (status) {
		fail(i, "the function's answer isn't HTTP");
	} else if (s->stream->got_end) {
		fail(i, "the function closed the connection without an answer");
	} else {
		acknowledge(i, i->req);
	}
}

static int http_message(struct instance *i, const struct fn_msg *m, const char *data)
{
	struct http_state *s = i->data;

	if (m->type == FN_STDOUT || m->type == FN_OPEN)
		return -EPROTO;
	/* Of a stream that has been closed from here. */
	if (!s || !s->stream || m->stream.id != s->stream->id || !i->req)
		return 0;
	switch (m->type) {
	case FN_DATA:
		if (stream_receive(s->stream, m))
			return -EPROTO;
		feed(i, data, m->len);
		return 0;
	case FN_WINDOW:
		if (m->stream.window > FN_STREAM_WINDOW - s->stream->credit)
			return -EPROTO;
		s->stream->credit += m->stream.window;
		push(i, i->req);
		return 0;
	default:
		if (m->flags & FN_RESET) {
			fail(i, "the function refused or reset the connection");
			return 0;
		}
		s->stream->got_end = true;
		feed(i, NULL, 0);
		return 0;
	}
}

static void http_done(struct instance *i, struct request *r, const struct fn_msg *m,
		      const char *data)
{
	if (!response_limited(r, i->config, m->flags))
		response_fail(r, 502, OUT_CRASHED, "crashed",
			      "the function ended with status %d before it answered",
			      m->done.status);
}

const struct kind_ops kind_http = {
	.invoke = http_invoke,
	.body = push,
	.drained = http_drained,
	.message = http_message,
	.done = http_done,
	.reset = http_reset,
};
