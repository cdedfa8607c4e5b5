/* SPDX-License-Identifier: Apache-2.0 */
/* What a request's target means, and who may ask for it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "tools/kvmsbox-serve/client.h"
#include "tools/kvmsbox-serve/request.h"

#define MAX_ADMIN_BODY (1 << 20)

void reply_error(struct client *c, unsigned int status, const char *code, uint64_t retry_ns,
		 const char *fmt, ...)
{
	char message[1024], retry[24];
	struct buf body = {0};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	buf_printf(&body, "{\"error\":\"%s\",\"message\":", code);
	buf_json(&body, message, strlen(message));
	buf_str(&body, "}\n");
	client_begin(c, status);
	client_field(c, "Content-Type", "application/json");
	client_field(c, "X-Kvmsbox-Error", code);
	if (status == 401)
		client_field(c, "WWW-Authenticate", "Bearer realm=\"kvmsbox\"");
	if (status == 405)
		client_field(c, "Allow", "GET, HEAD");
	if (retry_ns) {
		snprintf(retry, sizeof(retry), "%llu",
			 (unsigned long long)((retry_ns + SEC - 1) / SEC));
		client_field(c, "Retry-After", retry);
	}
	client_head_end(c, (int64_t)body.len);
	client_data(c, buf_data(&body), body.len);
	client_end(c);
	buf_fini(&body);
}

const char *bearer_token(const struct http_head *h)
{
	size_t n;
	const char *value = http_head_find(h, "authorization", &n);

	if (n != 1 || strncasecmp(value, "bearer ", 7))
		return NULL;
	value += 7;
	return value + strspn(value, " ");
}

/* The path of the target, without scheme and host if it has some. False: it has none. */
static bool split_target(const struct http_head *h, struct http_parser_url *u)
{
	http_parser_url_init(u);
	return !http_parser_parse_url(buf_data(&h->text), h->url_len, 0, u) &&
	       u->field_set & (1 << UF_PATH);
}

static bool is_read(const struct client *c)
{
	return c->reader.parser.method == HTTP_GET || c->reader.parser.method == HTTP_HEAD;
}

static int reply_health(struct client *c)
{
	if (!is_read(c))
		reply_error(c, 405, "method", 0, "GET or HEAD");
	else if (server.stopping)
		reply_error(c, 503, "stopping", SEC, "the server is stopping");
	else
		client_reply(c, 200, "text/plain", "ok\n", 3);
	return 0;
}

/*
 * Whose token it is decides what exists: without a good one there is nothing to see (401), and a
 * function of somebody else is answered like one that isn't there (404).
 */
static struct function *authorize(struct client *c, const char *name, size_t n)
{
	const struct http_head *h = &c->reader.head;
	const char *token = bearer_token(h);
	struct tenant *t = token ? tenant_by_token(token, strlen(token)) : NULL;
	char copy[MAX_NAME + 1];
	struct function *f = NULL;

	if (!t) {
		reply_error(c, 401, "unauthorized", 0, "%s",
			    token ? "no tenant has this token"
				  : "want Authorization: Bearer TOKEN");
		return NULL;
	}
	if (t->config->disabled) {
		reply_error(c, 403, "forbidden", 0, "this tenant is disabled");
		return NULL;
	}
	if (n <= MAX_NAME) {
		memcpy(copy, name, n);
		copy[n] = 0;
		f = function_find(copy);
	}
	if (!f || f->tenant != t) {
		reply_error(c, 404, "not-found", 0, "no such function");
		return NULL;
	}
	return f;
}

static int route_function(struct client *c, const char *rest, size_t n, const char *query)
{
	const char *slash = memchr(rest, '/', n);
	size_t name_len = slash ? (size_t)(slash - rest) : n;
	struct function *f;

	if (server.stopping) {
		reply_error(c, 503, "stopping", SEC, "the server is stopping");
		return 0;
	}
	f = authorize(c, rest, name_len);
	if (!f)
		return 0;
	return request_new(c, f, slash ?: "/", slash ? n - name_len : 1, query);
}

static bool strip(const char **path, size_t *n, const char *prefix)
{
	size_t len = strlen(prefix);

	if (*n < len || memcmp(*path, prefix, len))
		return false;
	*path += len;
	*n -= len;
	return true;
}

int route_head(struct client *c)
{
	const struct http_head *h = &c->reader.head;
	struct http_parser_url u;
	const char *text = buf_data(&h->text), *path, *query = NULL;
	size_t n, hosts;

	http_head_find(h, "host", &hosts);
	if (c->reader.parser.http_major != 1)
		return 505;
	if (hosts > 1 || (!hosts && c->reader.parser.http_minor >= 1))
		return 400;
	if (c->reader.parser.method == HTTP_CONNECT)
		return 405;
	if (!split_target(h, &u))
		return 400;
	path = text + u.field_data[UF_PATH].off;
	n = u.field_data[UF_PATH].len;
	if (u.field_set & (1 << UF_QUERY))
		query = text + u.field_data[UF_QUERY].off;
	if (n == 8 && !memcmp(path, "/healthz", 8))
		return reply_health(c);
	if (c->listener->admin) {
		c->route = ROUTE_ADMIN;
		client_continue(c);
		return 0;
	}
	if (strip(&path, &n, "/f/") || strip(&path, &n, "/function/"))
		return route_function(c, path, n, query);
	reply_error(c, 404, "not-found", 0, "want /f/NAME or /healthz");
	return 0;
}

int route_body(struct client *c, const char *data, size_t n)
{
	if (c->route == ROUTE_FUNCTION)
		return c->req ? request_body(c->req, data, n) : 0;
	if (c->body.len + n > MAX_ADMIN_BODY)
		return 413;
	buf_append(&c->body, data, n);
	return c->body.failed ? 500 : 0;
}

void route_end(struct client *c)
{
	if (c->route == ROUTE_FUNCTION && c->req)
		request_body_end(c->req);
	else if (c->route == ROUTE_ADMIN)
		admin_request(c);
}
