/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lambda: the server is AWS Lambda's Runtime API. The program's connections to it are the streams
 * that the sandbox opens; on each it may ask for the next invocation, which waits until there is
 * one, and say what came of it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sentry/lib/clock.h"
#include "tools/kvmsbox-serve/client.h"
#include "tools/kvmsbox-serve/instance.h"
#include "tools/kvmsbox-serve/lambda_event.h"
#include "tools/kvmsbox-serve/pool.h"
#include "tools/kvmsbox-serve/random.h"
#include "tools/kvmsbox-serve/request.h"

#define API	  "/2018-06-01/runtime/"
#define MAX_CONNS 64
#define MAX_HEAD  131072
#define MAX_INIT  65536 /* bytes of an initialization error */

/* stream.data: one connection to the Runtime API. */
struct runtime_conn {
	struct stream *stream;
	struct instance *instance;
	struct http_reader reader;
	struct buf in, body, out;
	bool waits; /* for the next invocation */
	bool answering, keep_alive, too_big;
};

static struct runtime_conn *conn_of(struct http_reader *r)
{
	return container_of(r, struct runtime_conn, reader);
}

static void conn_free(struct runtime_conn *c)
{
	stream_free(c->stream);
	http_reader_fini(&c->reader);
	buf_fini(&c->in);
	buf_fini(&c->body);
	buf_fini(&c->out);
	free(c);
}

static void conn_push(struct runtime_conn *c)
{
	size_t n;

	if (!c->out.len)
		return;
	n = stream_send(c->instance, c->stream, buf_data(&c->out), c->out.len, false);
	buf_consume(&c->out, n);
	if (!c->out.len) {
		buf_clear(&c->out);
		if (!c->keep_alive)
			stream_send(c->instance, c->stream, NULL, 0, true);
	}
}

static void conn_reply(struct runtime_conn *c, unsigned int status, const char *fields,
		       const char *body, size_t n)
{
	c->answering = false;
	c->waits = false;
	buf_printf(&c->out,
		   "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: "
		   "%zu\r\n%s%s\r\n",
		   status, http_reason(status), n, fields,
		   c->keep_alive ? "" : "Connection: close\r\n");
	buf_append(&c->out, body, n);
	conn_push(c);
}

static void conn_error(struct runtime_conn *c, unsigned int status, const char *type)
{
	char text[160];

	snprintf(text, sizeof(text), "{\"errorType\":\"%s\",\"errorMessage\":\"%s\"}", type,
		 http_reason(status));
	conn_reply(c, status, "", text, strlen(text));
}

static void trace_id(const struct request *r, char *text, size_t size)
{
	const char *given = http_head_find(r->head, "x-amzn-trace-id", NULL);
	unsigned char b[12] = {0};

	if (given && strlen(given) < size) {
		snprintf(text, size, "%s", given);
		return;
	}
	if (!random_bytes(b, sizeof(b)))
		memcpy(b, &r->number, sizeof(r->number));
	snprintf(text, size,
		 "Root=1-%08llx-%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x;Sampled=0",
		 (unsigned long long)time(NULL), b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
		 b[8], b[9], b[10], b[11]);
}

/* The invocation that @c waits for. */
static void deliver(struct runtime_conn *c, struct request *r)
{
	struct instance *i = c->instance;
	struct buf event = {0};
	char fields[1024], trace[256];
	struct timespec ts;
	uint64_t now = monotonic_ns(), left = r->deadline > now ? r->deadline - now : 0;

	clock_gettime(CLOCK_REALTIME, &ts);
	trace_id(r, trace, sizeof(trace));
	snprintf(fields, sizeof(fields),
		 "Lambda-Runtime-Aws-Request-Id: %s\r\nLambda-Runtime-Deadline-Ms: %llu\r\n"
		 "Lambda-Runtime-Invoked-Function-Arn: "
		 "arn:aws:lambda:local:000000000000:function:%s\r\nLambda-Runtime-Trace-Id: %s\r\n",
		 r->id,
		 (unsigned long long)ts.tv_sec * 1000 + (unsigned long long)ts.tv_nsec / 1000000 +
			 left / MSEC,
		 i->config->name, trace);
	if (i->config->payload == PAYLOAD_APIGW2) {
		if (lambda_event_apigw2(r, &event)) {
			buf_fini(&event);
			response_fail(r, 500, OUT_BAD_REQUEST, "event", "the event can't be made");
			instance_finish(i, true);
			return;
		}
		conn_reply(c, 200, fields, buf_data(&event), event.len);
		buf_fini(&event);
	} else if (r->body.len) {
		conn_reply(c, 200, fields, buf_data(&r->body), r->body.len);
	} else {
		/* There is no event without a value. */
		conn_reply(c, 200, fields, "null", 4);
	}
	i->delivered = true;
}

/* Brings together a request and a connection that waits for one. */
static void try_deliver(struct instance *i)
{
	struct request *r = i->req;
	struct stream *s;

	if (i->state != INST_BUSY || !r || i->delivered || !r->body_done)
		return;
	list_for_each_entry (s, &i->streams, node) {
		struct runtime_conn *c = s->data;

		if (c->waits) {
			deliver(c, r);
			return;
		}
	}
}

static void lambda_invoke(struct instance *i, struct request *r)
{
	i->delivered = false;
	instance_invoke(i, r, NULL, 0, 0);
	try_deliver(i);
}

static void lambda_body(struct instance *i, struct request *r)
{
	try_deliver(i);
}

static void lambda_drained(struct instance *i, struct request *r)
{
}

static void lambda_writable(struct instance *i)
{
	struct stream *s;

	list_for_each_entry (s, &i->streams, node)
		conn_push(s->data);
}

/* The request whose identifier the path names, or NULL: it has been answered, or never was. */
static struct request *named_request(struct runtime_conn *c, const char *id, size_t n)
{
	struct request *r = c->instance->req;

	return r && c->instance->delivered && strlen(r->id) == n && !memcmp(r->id, id, n) ? r
											  : NULL;
}

static void got_response(struct runtime_conn *c, struct request *r)
{
	if (c->instance->config->payload == PAYLOAD_APIGW2) {
		lambda_answer_apigw2(r, buf_data(&c->body), c->body.len);
		return;
	}
	response_begin(r, 200);
	response_field(r, "Content-Type",
		       http_head_find(&c->reader.head, "content-type", NULL) ?: "application/json");
	response_head_end(r, (int64_t)c->body.len);
	response_data(r, buf_data(&c->body), c->body.len);
	response_end(r, OUT_OK);
}

static void got_error(struct runtime_conn *c, struct request *r)
{
	response_begin(r, 502);
	response_field(r, "Content-Type", "application/json");
	response_field(r, "X-Kvmsbox-Error", "function-error");
	response_field(r, "X-Amz-Function-Error", "Unhandled");
	response_head_end(r, (int64_t)c->body.len);
	response_data(r, buf_data(&c->body), c->body.len);
	response_end(r, OUT_FUNCTION_ERROR);
}

static void finish_invocation(struct runtime_conn *c, const char *id, size_t n, bool error)
{
	struct instance *i = c->instance;
	struct request *r = named_request(c, id, n);

	if (!r) {
		conn_error(c, 400, "InvalidRequestID");
		return;
	}
	if (c->too_big) {
		response_too_much(r, i->config);
		conn_error(c, 413, "RequestEntityTooLarge");
	} else {
		if (error)
			got_error(c, r);
		else
			got_response(c, r);
		conn_reply(c, 202, "", "{\"status\":\"OK\"}", 15);
	}
	instance_finish(i, false);
}

static void init_error(struct runtime_conn *c)
{
	struct instance *i = c->instance;
	char why[400];

	snprintf(why, sizeof(why), "its initialization failed: %.*s", (int)MIN(c->body.len, 300U),
		 c->body.len ? buf_data(&c->body) : "");
	for (char *s = why; *s; s++) {
		if ((unsigned char)*s < 0x20)
			*s = ' ';
	}
	conn_reply(c, 202, "", "{\"status\":\"OK\"}", 15);
	if (i->state == INST_STARTING || i->state == INST_SNAPSHOT)
		pool_start_failed(i, why);
	else if (i->req)
		response_fail(i->req, 502, OUT_FUNCTION_ERROR, "function-error", "%s", why);
	instance_end(i);
}

static void runtime_request(struct runtime_conn *c)
{
	const struct http_head *h = &c->reader.head;
	const char *path = buf_data(&h->text), *id, *verb;
	bool post = c->reader.parser.method == HTTP_POST;
	size_t n = h->url_len, prefix = strlen(API);

	if (n > prefix && !memcmp(path, API, prefix)) {
		path += prefix;
		n -= prefix;
		if (!post && n == 15 && !memcmp(path, "invocation/next", 15)) {
			c->waits = true;
			try_deliver(c->instance);
			return;
		}
		if (post && n == 10 && !memcmp(path, "init/error", 10)) {
			init_error(c);
			return;
		}
		id = path + 11;
		verb = n > 11 ? memchr(id, '/', n - 11) : NULL;
		if (post && verb && !memcmp(path, "invocation/", 11)) {
			size_t left = n - (size_t)(verb - path);

			if (left == 9 && !memcmp(verb, "/response", 9)) {
				finish_invocation(c, id, (size_t)(verb - id), false);
				return;
			}
			if (left == 6 && !memcmp(verb, "/error", 6)) {
				finish_invocation(c, id, (size_t)(verb - id), true);
				return;
			}
		}
	}
	conn_error(c, 404, "NotFound");
}

static int on_head(struct http_reader *r, bool *no_body)
{
	struct runtime_conn *c = conn_of(r);

	c->keep_alive = http_should_keep_alive(&r->parser);
	c->too_big = false;
	c->answering = true;
	buf_clear(&c->body);
	if (http_head_has_token(&r->head, "expect", "100-continue")) {
		buf_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
		conn_push(c);
	}
	return 0;
}

static int on_body(struct http_reader *r, const char *data, size_t n)
{
	struct runtime_conn *c = conn_of(r);

	if (c->body.len + n > MAX(c->instance->config->limits.output, (uint64_t)MAX_INIT))
		c->too_big = true;
	if (!c->too_big)
		buf_append(&c->body, data, n);
	return c->body.failed ? 500 : 0;
}

static int on_end(struct http_reader *r)
{
	return 0;
}

static const struct http_reader_ops reader_ops = {.head = on_head, .body = on_body, .end = on_end};

/* One request after the other: the next one isn't looked at before this one is answered. */
static void conn_parse(struct instance *i, uint32_t id)
{
	struct stream *s;
	struct runtime_conn *c;
	size_t used;
	int status;

	/* A request may end the instance or its streams: look the connection up each time. */
	while ((s = stream_find(i, id)) && (c = s->data)->in.len) {
		if (c->answering && !c->reader.begun)
			return;
		status = http_reader_feed(&c->reader, buf_data(&c->in), c->in.len, &used);
		buf_consume(&c->in, MIN(used, c->in.len));
		if (status) {
			c->keep_alive = false;
			conn_error(c, (unsigned int)status, "BadRequest");
			buf_clear(&c->in);
			return;
		}
		if (c->answering && !c->reader.begun)
			runtime_request(c);
	}
}

static int accept_conn(struct instance *i, const struct fn_msg *m)
{
	struct stream *s = stream_find(i, m->stream.id);
	struct fn_msg refuse = {.type = FN_CLOSE, .flags = FN_RESET};
	struct runtime_conn *c;

	if (!(m->stream.id & 1))
		return -EPROTO;
	if (s)
		conn_free(s->data);
	c = i->nstreams < MAX_CONNS ? calloc(1, sizeof(*c)) : NULL;
	s = c ? stream_accept(i, m->stream.id) : NULL;
	if (!s) {
		free(c);
		refuse.stream.id = m->stream.id;
		instance_send(i, &refuse, NULL, 0, NULL);
		return 0;
	}
	s->data = c;
	c->stream = s;
	c->instance = i;
	c->keep_alive = true;
	http_reader_init(&c->reader, HTTP_REQUEST, &reader_ops, MAX_HEAD, 1024);
	return 0;
}

static int conn_data(struct instance *i, struct stream *s, const struct fn_msg *m, const char *data)
{
	struct runtime_conn *c = s->data;
	uint32_t id = s->id;

	if (stream_receive(s, m))
		return -EPROTO;
	/* Behind a request that waits there is at most the next one's beginning. */
	buf_append(&c->in, data, m->len);
	if (c->in.failed || c->in.len > 2 * FN_STREAM_WINDOW)
		return -EPROTO;
	stream_consumed(i, s, m->len);
	conn_parse(i, id);
	s = stream_find(i, id);
	if (s && s->got_end) {
		stream_close(i, s);
		/* stream_close() freed the stream, not what hangs on it. */
		http_reader_fini(&c->reader);
		buf_fini(&c->in);
		buf_fini(&c->body);
		buf_fini(&c->out);
		free(c);
	}
	return 0;
}

static int lambda_message(struct instance *i, const struct fn_msg *m, const char *data)
{
	struct stream *s;

	if (m->type == FN_STDOUT)
		return -EPROTO;
	if (m->type == FN_OPEN)
		return accept_conn(i, m);
	s = stream_find(i, m->stream.id);
	if (!s)
		return 0;
	switch (m->type) {
	case FN_DATA:
		return conn_data(i, s, m, data);
	case FN_WINDOW:
		if (m->stream.window > FN_STREAM_WINDOW - s->credit)
			return -EPROTO;
		s->credit += m->stream.window;
		conn_push(s->data);
		return 0;
	default:
		conn_free(s->data);
		return 0;
	}
}

static void lambda_done(struct instance *i, struct request *r, const struct fn_msg *m,
			const char *data)
{
	kind_http.done(i, r, m, data);
}

static void lambda_reset(struct instance *i, bool all)
{
	struct stream *s, *tmp;

	i->delivered = false;
	if (!all)
		return;
	list_for_each_entry_safe (s, tmp, &i->streams, node)
		conn_free(s->data);
}

const struct kind_ops kind_lambda = {
	.invoke = lambda_invoke,
	.body = lambda_body,
	.drained = lambda_drained,
	.message = lambda_message,
	.done = lambda_done,
	.writable = lambda_writable,
	.reset = lambda_reset,
};
