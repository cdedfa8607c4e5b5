/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stdio: the body is the program's standard input, its standard output the response. Output is
 * held back up to HELD bytes, so that the exit status can still decide the response's; what is
 * longer is passed on while it comes, and a failure then breaks the connection off.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tools/kvmsbox-serve/client.h"
#include "tools/kvmsbox-serve/instance.h"
#include "tools/kvmsbox-serve/request.h"

#define HELD	 131072
#define CGI_HEAD 16384
#define HIGH	 262144

struct stdio_state {
	struct buf out;
	uint64_t got;
	bool sent_end, streaming;
};

static void stdio_body(struct instance *i, struct request *r)
{
	struct stdio_state *s = i->data;
	struct fn_msg m = {.type = FN_BODY};
	size_t n;

	while (s && !i->nout && !s->sent_end && (r->body.len || r->body_done)) {
		n = MIN(r->body.len, (size_t)FN_DATA_MAX);
		s->sent_end = r->body_done && n == r->body.len;
		m.flags = s->sent_end ? FN_END_OF_DATA : 0;
		instance_send(i, &m, buf_data(&r->body), n, NULL);
		/* Sending may have ended it all. */
		if (i->req != r)
			return;
		buf_consume(&r->body, n);
	}
	request_body_taken(r);
}

static void stdio_invoke(struct instance *i, struct request *r)
{
	struct stdio_state *s = calloc(1, sizeof(*s));
	size_t n = MIN(r->body.len, (size_t)FN_DATA_MAX);

	if (!s) {
		instance_kill(i, "out of memory");
		return;
	}
	i->data = s;
	s->sent_end = r->body_done && n == r->body.len;
	instance_invoke(i, r, buf_data(&r->body), n, s->sent_end ? FN_END_OF_DATA : 0);
	if (i->req != r)
		return;
	buf_consume(&r->body, n);
	stdio_body(i, r);
}

/* The length of a CGI header block with its empty line, or 0: it isn't complete. */
static size_t cgi_head_length(const char *s, size_t n)
{
	for (size_t k = 0; k + 1 < n; k++) {
		if (s[k] != '\n')
			continue;
		if (s[k + 1] == '\n')
			return k + 2;
		if (k + 2 < n && s[k + 1] == '\r' && s[k + 2] == '\n')
			return k + 3;
	}
	return 0;
}

static bool is_field_name(const char *s, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		if ((s[k] < 'a' || s[k] > 'z') && (s[k] < 'A' || s[k] > 'Z') &&
		    (s[k] < '0' || s[k] > '9') && s[k] != '-' && s[k] != '_')
			return false;
	}
	return n;
}

/* Takes one line apart in place. False: it is no field. */
static bool split_field(char *line, char **value)
{
	char *colon = strchr(line, ':');

	if (!colon || !is_field_name(line, (size_t)(colon - line)))
		return false;
	*colon++ = 0;
	*value = colon + strspn(colon, " \t");
	for (const char *s = *value; *s; s++) {
		if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
			return false;
	}
	return true;
}

static bool is_ours(const char *name)
{
	static const char *const names[] = {"content-length", "transfer-encoding", "connection",
					    "status",	      "x-request-id",	   "date",
					    "keep-alive",     "upgrade",	   "trailer"};

	for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
		if (!strcasecmp(name, names[k]))
			return true;
	}
	return false;
}

/* Each line of the block @text (changed in place) that is no frame of the message goes to @emit. */
static bool cgi_fields(char *text, unsigned int *status, struct request *r)
{
	char *line, *save = NULL, *value;

	for (line = strtok_r(text, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save)) {
		if (!split_field(line, &value))
			return false;
		if (!strcasecmp(line, "status"))
			*status = (unsigned int)strtoul(value, NULL, 10);
		else if (r && !is_ours(line))
			response_field(r, line, value);
	}
	return *status >= 200 && *status < 600;
}

/* Begins the response with what a CGI program said first. False: that was no header block. */
static bool begin_cgi(struct request *r, struct buf *out)
{
	size_t n = cgi_head_length(buf_data(out), out->len);
	unsigned int status = 200;
	char *first = n ? strndup(buf_data(out), n) : NULL;
	char *second = n ? strndup(buf_data(out), n) : NULL;
	bool ok = first && second && strlen(first) == n && cgi_fields(first, &status, NULL);

	if (ok) {
		response_begin(r, status);
		cgi_fields(second, &status, r);
		buf_consume(out, n);
	}
	free(first);
	free(second);
	return ok;
}

static bool begin(struct instance *i, struct request *r, struct stdio_state *s, unsigned int status)
{
	const struct function_config *fc = i->config;

	if (fc->cgi && status == 200)
		return begin_cgi(r, &s->out);
	response_begin(r, status);
	response_field(r, "Content-Type", fc->content_type ?: "application/octet-stream");
	return true;
}

static void bad_cgi(struct request *r)
{
	response_fail(r, 502, OUT_BAD_RESPONSE, "bad-response",
		      "the function's output doesn't begin with a CGI header block");
}

static void stream_output(struct instance *i, struct request *r)
{
	struct stdio_state *s = i->data;

	if (!s->streaming) {
		if (s->out.len <= HELD)
			return;
		if (!begin(i, r, s, 200)) {
			bad_cgi(r);
			instance_finish(i, true);
			return;
		}
		response_head_end(r, LENGTH_UNKNOWN);
		s->streaming = true;
	}
	response_data(r, buf_data(&s->out), s->out.len);
	buf_clear(&s->out);
	if (response_pending(r) > HIGH)
		instance_pause(i, true);
}

static void stdio_drained(struct instance *i, struct request *r)
{
	instance_pause(i, false);
}

static int stdio_message(struct instance *i, const struct fn_msg *m, const char *data)
{
	struct stdio_state *s = i->data;
	struct request *r = i->req;

	if (m->type != FN_STDOUT || (i->state != INST_BUSY && i->state != INST_FINISHING))
		return -1;
	if (!r || !s)
		return 0;
	s->got += m->len;
	buf_append(&s->out, data, m->len);
	if (s->got > i->config->limits.output || s->out.failed) {
		response_too_much(r, i->config);
		instance_finish(i, true);
		return 0;
	}
	stream_output(i, r);
	return 0;
}

/* What became of it, if that wasn't a status. True: it has been answered. */
static bool answer_failure(struct instance *i, struct request *r, const struct fn_msg *m)
{
	if (response_limited(r, i->config, m->flags))
		return true;
	if (m->flags & FN_TOO_MUCH)
		response_too_much(r, i->config);
	else if (m->flags & FN_CANCELLED)
		response_fail(r, 502, OUT_CRASHED, "cancelled", "the function was cancelled");
	else
		return false;
	return true;
}

static void answer_status(struct instance *i, struct request *r, struct stdio_state *s, int status)
{
	char text[16];

	if (status && (s->streaming || !s->out.len)) {
		/* Without output of its own, or too late for a status. */
		if (s->streaming) {
			response_fail(r, 502, OUT_FUNCTION_ERROR, "exit-status", "status %d",
				      status);
			return;
		}
		buf_printf(&s->out, "{\"error\":\"exit-status\",\"status\":%d}\n", status);
	}
	if (!s->streaming && !begin(i, r, s, status ? 502 : 200)) {
		bad_cgi(r);
		return;
	}
	if (!s->streaming) {
		snprintf(text, sizeof(text), "%d", status);
		response_field(r, "X-Kvmsbox-Exit-Status", text);
		if (status)
			response_field(r, "X-Kvmsbox-Error", "exit-status");
		response_head_end(r, (int64_t)s->out.len);
	}
	response_data(r, buf_data(&s->out), s->out.len);
	response_end(r, status ? OUT_FUNCTION_ERROR : OUT_OK);
}

static void stdio_done(struct instance *i, struct request *r, const struct fn_msg *m,
		       const char *data)
{
	struct stdio_state *s = i->data;

	if (answer_failure(i, r, m))
		return;
	s->got += m->len;
	buf_append(&s->out, data, m->len);
	if (s->out.failed || s->got > i->config->limits.output)
		response_fail(r, 502, OUT_OUTPUT, "too-much-output", "too much output");
	else
		answer_status(i, r, s, m->done.status);
}

static void stdio_reset(struct instance *i, bool all)
{
	struct stdio_state *s = i->data;

	if (!s)
		return;
	buf_fini(&s->out);
	free(s);
	i->data = NULL;
}

const struct kind_ops kind_stdio = {
	.invoke = stdio_invoke,
	.body = stdio_body,
	.drained = stdio_drained,
	.message = stdio_message,
	.done = stdio_done,
	.reset = stdio_reset,
};
