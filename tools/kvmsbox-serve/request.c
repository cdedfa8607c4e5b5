/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/request.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/kvmsbox-serve/client.h"
#include "tools/kvmsbox-serve/instance.h"
#include "tools/kvmsbox-serve/pool.h"
#include "tools/kvmsbox-serve/random.h"

/* A longer body is passed on while it comes; a shorter one is complete before that. */
#define BODY_WHOLE 131072

static uint64_t numbers;

static bool is_good_id(const char *s)
{
	size_t n = s ? strlen(s) : 0;

	return n && n <= 64 &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

/* The client's own, if it is harmless; else one that can't be guessed. */
static void choose_id(struct request *r)
{
	const char *given = http_head_find(r->head, "x-request-id", NULL);
	unsigned char bytes[16];

	if (is_good_id(given)) {
		snprintf(r->id, sizeof(r->id), "%s", given);
		return;
	}
	if (!random_bytes(bytes, sizeof(bytes)))
		memcpy(bytes, &r->number, sizeof(r->number));
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(r->id + 2 * i, 3, "%02x", bytes[i]);
}

static uint64_t max_body(const struct request *r)
{
	return MIN(r->function->config->limits.body, server.config->limits.body);
}

static void log_request(struct request *r, enum outcome outcome)
{
	const struct instance *i = r->instance;
	uint64_t now = loop_now();
	struct log_line l;

	if (!log_begin(&l, LOG_INFO, "request"))
		return;
	log_str(&l, "request_id", r->id);
	log_str(&l, "tenant", r->function->tenant->config->name);
	log_str(&l, "function", r->function->config->name);
	log_str(&l, "method", http_method_str(r->method));
	log_str(&l, "path", r->path);
	if (r->client)
		log_str(&l, "peer", r->client->peer);
	log_str(&l, "outcome", outcome_names[outcome]);
	log_uint(&l, "status", r->status);
	log_ms(&l, "ms", now - r->arrived);
	if (r->started) {
		log_ms(&l, "queue_ms", r->started - r->arrived);
		log_str(&l, "start", r->cold ? "cold" : r->fresh ? "restored" : "warm");
	}
	if (i)
		log_uint(&l, "instance", i->number);
	log_uint(&l, "bytes_in", r->body_bytes);
	log_uint(&l, "bytes_out", r->out_bytes);
	log_end(&l);
}

/* The one end. */
static void request_end(struct request *r, enum outcome outcome)
{
	struct function_stats *st = &r->function->stats;
	struct function *f = r->function;
	uint64_t now = loop_now();

	timer_del(&r->timer);
	log_request(r, outcome);
	f->tenant->outcomes[outcome]++;
	st->outcomes[outcome]++;
	st->bytes_in += r->body_bytes;
	st->bytes_out += r->out_bytes;
	if (r->started) {
		histogram_add(&st->latency, now - r->arrived);
		histogram_add(&st->run, now - r->started);
		recent_add(&st->recent, now, now - r->arrived);
	}
	request_leave(r);
	if (r->client)
		r->client->req = NULL;
	if (r->instance && r->instance->req == r)
		r->instance->req = NULL;
	buf_fini(&r->body);
	free(r->target);
	free(r);
	pool_kick();
	function_put_if_unused(f);
}

static void deadline_over(struct timer *t)
{
	struct request *r = container_of(t, struct request, timer);
	struct instance *i = r->instance;

	/* Only what has been admitted has a deadline: reading it has the client's own limits. */
	response_fail(r, 504, OUT_TIMEOUT, "timeout", "not done within %llu ms%s",
		      (unsigned long long)(r->function->config->limits.time / MSEC),
		      i ? "" : ", all of them in the queue");
	if (i)
		instance_finish(i, true);
}

static int refuse_early(struct client *c, struct function *f)
{
	uint64_t wait = f->retry_at > loop_now() ? f->retry_at - loop_now() : 0;
	enum outcome outcome = OUT_OVERLOADED;

	if (f->draining) {
		reply_error(c, 503, "draining", SEC, "this function is being taken out of service");
	} else if (pool_is_failing(f)) {
		reply_error(c, 503, "start-failed", wait, "the function doesn't start: %s",
			    f->failure ?: "unknown");
	} else if (f->reading >= f->config->limits.queue + f->config->limits.concurrency) {
		/* Their bodies take memory before they are in any queue. */
		reply_error(c, 429, "queue-full", SEC,
			    "too many requests of this function are being read");
		outcome = OUT_LIMITED;
	} else {
		return 0;
	}
	f->stats.outcomes[outcome]++;
	f->tenant->outcomes[outcome]++;
	return 1;
}

static char *copy_target(struct request *r, const char *path, size_t n, const char *query)
{
	/* The query ends where the target does, or where a fragment begins. */
	size_t q = query ? strcspn(query, "#") : 0;
	char *copy = malloc(n + q + 3);

	if (!copy)
		return NULL;
	memcpy(copy, path, n);
	copy[n] = 0;
	r->path = copy;
	if (query) {
		memcpy(copy + n + 1, query, q);
		copy[n + 1 + q] = 0;
		r->query = copy + n + 1;
	}
	return copy;
}

int request_new(struct client *c, struct function *f, const char *path, size_t path_len,
		const char *query)
{
	uint64_t length = c->reader.parser.content_length;
	struct request *r;

	if (refuse_early(c, f))
		return 0;
	r = calloc(1, sizeof(*r));
	if (!r)
		return 500;
	list_init(&r->node);
	r->client = c;
	r->head = &c->reader.head;
	r->function = f;
	r->method = (enum http_method)c->reader.parser.method;
	r->number = ++numbers;
	r->arrived = loop_now();
	r->timer.fire = deadline_over;
	choose_id(r);
	r->target = copy_target(r, path, path_len, query);
	if (!r->target) {
		free(r);
		return 500;
	}
	if (!(c->reader.parser.flags & F_CHUNKED) && length != UINT64_MAX)
		r->length = length;
	f->reading++;
	c->req = r;
	c->route = ROUTE_FUNCTION;
	if (r->length > max_body(r)) {
		c->keep_alive = false;
		response_fail(r, 413, OUT_BAD_REQUEST, "body-too-large",
			      "a body of this function has at most %llu bytes",
			      (unsigned long long)max_body(r));
		return 0;
	}
	client_continue(c);
	return 0;
}

bool request_wants_all(const struct request *r)
{
	return r->function->config->kind == FN_LAMBDA;
}

int request_body(struct request *r, const char *data, size_t n)
{
	r->body_bytes += n;
	if (r->body_bytes > max_body(r))
		return 413;
	buf_append(&r->body, data, n);
	if (r->body.failed)
		return 503;
	if (r->state == REQ_READING && r->body.len >= BODY_WHOLE && !request_wants_all(r))
		request_queue(r);
	else if (r->state == REQ_RUNNING && r->instance->kind->body)
		r->instance->kind->body(r->instance, r);
	return 0;
}

void request_body_end(struct request *r)
{
	r->body_done = true;
	if (r->state == REQ_READING)
		request_queue(r);
	else if (r->state == REQ_RUNNING && r->instance->kind->body)
		r->instance->kind->body(r->instance, r);
}

void request_body_taken(struct request *r)
{
	if (!r->body_done && r->client && r->body.len < BODY_WHOLE)
		client_resume(r->client);
}

void request_client_gone(struct request *r)
{
	struct instance *i = r->instance;

	r->status = r->status ?: 499;
	r->client->req = NULL;
	request_end(r, OUT_CANCELLED);
	if (i)
		instance_finish(i, true);
}

void request_client_error(struct request *r, unsigned int status)
{
	struct instance *i = r->instance;

	r->status = status;
	r->client->req = NULL;
	request_end(r, OUT_BAD_REQUEST);
	if (i)
		instance_finish(i, true);
}

void request_drained(struct request *r)
{
	if (r->state == REQ_RUNNING)
		r->instance->kind->drained(r->instance, r);
}

size_t response_pending(const struct request *r)
{
	return client_pending(r->client);
}

void response_begin(struct request *r, unsigned int status)
{
	r->status = status;
	r->response_begun = true;
	client_begin(r->client, status);
	client_field(r->client, "X-Request-Id", r->id);
}

void response_field(struct request *r, const char *name, const char *value)
{
	client_field(r->client, name, value);
}

void response_head_end(struct request *r, int64_t length)
{
	client_head_end(r->client, length);
}

void response_data(struct request *r, const void *data, size_t n)
{
	r->out_bytes += n;
	client_data(r->client, data, n);
}

void response_end(struct request *r, enum outcome outcome)
{
	struct client *c = r->client;

	request_end(r, outcome);
	client_end(c);
}

void response_fail(struct request *r, unsigned int status, enum outcome outcome, const char *code,
		   const char *fmt, ...)
{
	struct client *c = r->client;
	struct buf body = {0};
	char message[1024], retry[24];
	va_list ap;

	if (r->response_begun) {
		request_end(r, outcome);
		client_abort(c);
		return;
	}
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	buf_printf(&body, "{\"error\":\"%s\",\"message\":", code);
	buf_json(&body, message, strlen(message));
	buf_printf(&body, ",\"request_id\":\"%s\"}\n", r->id);
	response_begin(r, status);
	response_field(r, "Content-Type", "application/json");
	response_field(r, "X-Kvmsbox-Error", code);
	if (status == 429 || status == 503) {
		uint64_t now = loop_now(), at = r->function->retry_at;

		snprintf(retry, sizeof(retry), "%llu",
			 at > now ? (unsigned long long)((at - now + SEC - 1) / SEC) : 1ULL);
		response_field(r, "Retry-After", retry);
	}
	response_head_end(r, (int64_t)body.len);
	response_data(r, buf_data(&body), body.len);
	buf_fini(&body);
	response_end(r, outcome);
}

void response_too_much(struct request *r, const struct function_config *fc)
{
	response_fail(r, 502, OUT_OUTPUT, "too-much-output", "more than %llu bytes of output",
		      (unsigned long long)fc->limits.output);
}

bool response_limited(struct request *r, const struct function_config *fc, uint32_t flags)
{
	if (flags & FN_TIMED_OUT)
		response_fail(r, 504, OUT_TIMEOUT, "timeout", "not done within %llu ms",
			      (unsigned long long)(fc->limits.time / MSEC));
	else if (flags & FN_OUT_OF_MEM)
		response_fail(r, 502, OUT_MEMORY, "out-of-memory",
			      "the function used more than %llu bytes of memory",
			      (unsigned long long)fc->limits.memory);
	return flags & (FN_TIMED_OUT | FN_OUT_OF_MEM);
}
