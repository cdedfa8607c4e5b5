/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection's states: TLS -> HEAD -> BODY -> WAIT -> HEAD …, and at the end FLUSH -> LINGER ->
 * CLOSED. A response may be complete before the request is (an error, mostly): then the rest is
 * read and dropped if it is little, else the connection ends.
 *
 * Time limits, one timer: a head must be complete within timeouts.header of its first byte; a body
 * must come at MIN_RATE after the first timeouts.body; a response must be taken, timeouts.write
 * without progress end it; between requests timeouts.idle passes.
 */
#include "tools/kvmsbox-serve/client.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/kvmsbox-serve/request.h"

#define READ_SIZE   65536
#define BODY_HIGH   262144 /* bytes of a body that wait to be passed on */
#define MAX_DISCARD 65536
#define MAX_LINGER  (1 << 20)
#define LINGER_TIME (2 * SEC)
#define MIN_RATE    1000 /* bytes a second, of a body */

static struct list_head clients = LIST_HEAD_INIT(clients);

static struct client *client_of(struct http_reader *r)
{
	return container_of(r, struct client, reader);
}

/* Reads or writes: a count, 0 at the end, -EAGAIN, or another -errno. */
static ssize_t tls_result(struct client *c, int ret)
{
	switch (SSL_get_error(c->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		c->tls_wants_write = true;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		return -EPROTO;
	}
}

static ssize_t conn_read(struct client *c, void *data, size_t n)
{
	ssize_t got;

	if (c->ssl) {
		ERR_clear_error();
		got = SSL_read(c->ssl, data, (int)n);
		return got > 0 ? got : tls_result(c, (int)got);
	}
	do
		got = recv(c->watch.fd, data, n, 0);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

static ssize_t conn_write(struct client *c, const void *data, size_t n)
{
	ssize_t put;

	if (c->ssl) {
		ERR_clear_error();
		put = SSL_write(c->ssl, data, (int)MIN(n, (size_t)1 << 30));
		return put > 0 ? put : tls_result(c, (int)put);
	}
	do
		put = send(c->watch.fd, data, n, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	return put < 0 ? -errno : put;
}

static void client_free(struct work *w)
{
	struct client *c = container_of(w, struct client, free_work);

	work_del(&c->flush_work);
	work_del(&c->resume_work);
	http_reader_fini(&c->reader);
	buf_fini(&c->in);
	buf_fini(&c->out);
	buf_fini(&c->body);
	free(c);
}

static void client_close(struct client *c)
{
	int fd = c->watch.fd;

	if (c->phase == CLIENT_CLOSED)
		return;
	c->phase = CLIENT_CLOSED;
	timer_del(&c->timer);
	watch_del(&c->watch);
	list_del(&c->node);
	if (c->req)
		request_client_gone(c->req);
	if (c->ssl) {
		SSL_shutdown(c->ssl);
		SSL_free(c->ssl);
		c->ssl = NULL;
		ERR_clear_error();
	}
	close(fd);
	server.connections--;
	work_add(&c->free_work);
}

static bool wants_input(const struct client *c)
{
	switch (c->phase) {
	case CLIENT_TLS:
	case CLIENT_HEAD:
	case CLIENT_LINGER:
		return true;
	case CLIENT_BODY:
		return !c->req || c->req->body.len < BODY_HIGH || request_wants_all(c->req);
	default:
		return false;
	}
}

static void arm_timer(struct client *c)
{
	uint64_t when = UINT64_MAX;

	switch (c->phase) {
	case CLIENT_TLS:
		when = c->phase_since + server.config->timeouts.header;
		break;
	case CLIENT_HEAD:
		when = c->phase_since + (c->reader.begun || c->in.len
						 ? server.config->timeouts.header
						 : server.config->timeouts.idle);
		break;
	case CLIENT_BODY:
		if (wants_input(c))
			when = c->phase_since + server.config->timeouts.body +
			       c->body_bytes * SEC / MIN_RATE;
		break;
	case CLIENT_LINGER:
		when = c->phase_since + LINGER_TIME;
		break;
	default:
		break;
	}
	if (c->out.len)
		when = MIN(when, c->wrote_at + server.config->timeouts.write);
	if (when == UINT64_MAX)
		timer_del(&c->timer);
	else if (!c->timer.slot || c->timer.when != when)
		timer_set(&c->timer, when);
}

static void set_events(struct client *c)
{
	uint32_t events = EPOLLRDHUP;

	if (c->phase == CLIENT_CLOSED)
		return;
	/* While a request is answered hardly anything comes: two system calls less for it. */
	if (wants_input(c) || (c->phase == CLIENT_WAIT && !c->early))
		events |= EPOLLIN;
	/* Once it has half-closed and only writing is left, that would be said for ever. */
	if (c->phase == CLIENT_FLUSH)
		events &= ~(uint32_t)EPOLLRDHUP;
	if (c->out.len || c->tls_wants_write)
		events |= EPOLLOUT;
	watch_set(&c->watch, events);
	arm_timer(c);
}

static void set_phase(struct client *c, enum client_phase phase)
{
	c->phase = phase;
	c->phase_since = loop_now();
}

/* Everything is written: the end, or wait for what the peer sends. */
static void flushed(struct client *c)
{
	if (c->phase != CLIENT_FLUSH)
		return;
	if (c->ssl)
		SSL_shutdown(c->ssl);
	shutdown(c->watch.fd, SHUT_WR);
	set_phase(c, CLIENT_LINGER);
	c->body_bytes = 0;
}

static void client_flush(struct client *c)
{
	ssize_t n = 0;

	if (c->phase == CLIENT_CLOSED)
		return;
	if (c->out.failed) {
		client_close(c);
		return;
	}
	while (c->out.len) {
		n = conn_write(c, buf_data(&c->out), c->out.len);
		if (n <= 0)
			break;
		buf_consume(&c->out, (size_t)n);
		c->wrote_at = loop_now();
	}
	if (n < 0 && n != -EAGAIN) {
		client_close(c);
		return;
	}
	if (!c->out.len) {
		buf_clear(&c->out);
		flushed(c);
	}
	if (c->req && c->out.len < BODY_HIGH / 2)
		request_drained(c->req);
	set_events(c);
}

static void flush_soon(struct work *w)
{
	client_flush(container_of(w, struct client, flush_work));
}

static void output(struct client *c)
{
	if (c->phase == CLIENT_CLOSED)
		return;
	/* The time for writing begins with the first byte that waits. */
	if (list_empty(&c->flush_work.node) && !(c->watch.events & EPOLLOUT))
		c->wrote_at = loop_now();
	work_add(&c->flush_work);
}

size_t client_pending(const struct client *c)
{
	return c->out.len;
}

static const char *http_date(void)
{
	static char text[40];
	static time_t last;
	time_t now = time(NULL);
	struct tm tm;

	if (now != last) {
		gmtime_r(&now, &tm);
		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		last = now;
	}
	return text;
}

void client_begin(struct client *c, unsigned int status)
{
	c->continue_wanted = false;
	buf_printf(&c->out, "HTTP/1.1 %u %s\r\nDate: %s\r\n", status, http_reason(status),
		   http_date());
	if (status >= 400 && status < 500 && status / 100 < ARRAY_SIZE(server.http_errors) &&
	    !c->req)
		server.http_errors[status / 100]++;
}

void client_field(struct client *c, const char *name, const char *value)
{
	buf_printf(&c->out, "%s: %s\r\n", name, value);
}

void client_head_end(struct client *c, int64_t length)
{
	bool http10 = c->reader.parser.http_major == 1 && c->reader.parser.http_minor == 0;

	c->chunked = c->close_delimited = false;
	c->left = 0;
	if (length >= 0) {
		c->left = (uint64_t)length;
		buf_printf(&c->out, "Content-Length: %lld\r\n", (long long)length);
	} else if (c->head_only || length == NO_BODY) {
		/* What a GET would have got isn't known, and needn't be said. */
	} else if (http10) {
		c->close_delimited = true;
		c->keep_alive = false;
	} else {
		c->chunked = true;
		buf_str(&c->out, "Transfer-Encoding: chunked\r\n");
	}
	if (server.stopping)
		c->keep_alive = false;
	if (!c->keep_alive)
		buf_str(&c->out, "Connection: close\r\n");
	else if (http10)
		buf_str(&c->out, "Connection: keep-alive\r\n");
	buf_str(&c->out, "\r\n");
	output(c);
}

void client_data(struct client *c, const void *data, size_t n)
{
	if (!n || c->head_only)
		return;
	if (c->chunked) {
		buf_printf(&c->out, "%zx\r\n", n);
	} else if (!c->close_delimited) {
		n = MIN(n, c->left);
		c->left -= n;
	}
	buf_append(&c->out, data, n);
	if (c->chunked)
		buf_str(&c->out, "\r\n");
	output(c);
}

/* Waits for the next request. */
static void next_request(struct client *c)
{
	c->route = ROUTE_DISCARD;
	c->responded = c->early = false;
	c->body_bytes = 0;
	set_phase(c, CLIENT_HEAD);
	list_move_tail(&c->node, &clients);
	work_add(&c->resume_work);
}

void client_end(struct client *c)
{
	if (c->phase == CLIENT_CLOSED)
		return;
	c->req = NULL;
	if (!c->close_delimited && !c->chunked && !c->head_only && c->left) {
		client_abort(c);
		return;
	}
	if (c->chunked)
		buf_str(&c->out, "0\r\n\r\n");
	c->responded = true;
	buf_clear(&c->body);
	output(c);
	if (!c->keep_alive)
		set_phase(c, CLIENT_FLUSH);
	else if (c->phase == CLIENT_WAIT)
		next_request(c);
	else
		c->route = ROUTE_DISCARD;
}

void client_reply(struct client *c, unsigned int status, const char *type, const void *body,
		  size_t n)
{
	client_begin(c, status);
	if (type)
		client_field(c, "Content-Type", type);
	client_head_end(c, (int64_t)n);
	client_data(c, body, n);
	if (c->head_only)
		c->left = 0;
	client_end(c);
}

void client_abort(struct client *c)
{
	struct linger reset = {.l_onoff = 1};

	if (c->phase == CLIENT_CLOSED)
		return;
	c->req = NULL;
	/* Without a length the end is the connection's: only a reset tells it from a good one. */
	if (c->close_delimited)
		setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	client_close(c);
}

void client_continue(struct client *c)
{
	if (!c->continue_wanted)
		return;
	c->continue_wanted = false;
	buf_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
	output(c);
}

/* An error that leaves the connection useless. */
static void refuse(struct client *c, int status)
{
	static const char *const codes[] = {[8] = "timeout",
					    [13] = "body-too-large",
					    [14] = "uri-too-long",
					    [31] = "header-too-large"};
	const char *code = "bad-request";

	if (c->phase == CLIENT_CLOSED || c->phase == CLIENT_FLUSH || c->phase == CLIENT_LINGER)
		return;
	if (c->req && c->req->response_begun) {
		request_client_gone(c->req);
		client_abort(c);
		return;
	}
	if (c->req)
		request_client_error(c->req, (unsigned int)status);
	c->req = NULL;
	c->keep_alive = false;
	if (status > 400 && (size_t)status - 400 < ARRAY_SIZE(codes) && codes[status - 400])
		code = codes[status - 400];
	if (c->responded)
		set_phase(c, CLIENT_FLUSH);
	else
		reply_error(c, (unsigned int)status, code, 0, "%s",
			    http_reason((unsigned int)status));
}

static int on_head(struct http_reader *r, bool *no_body)
{
	struct client *c = client_of(r);
	const char *expect = http_head_find(&r->head, "expect", NULL);
	int status;

	c->keep_alive = http_should_keep_alive(&r->parser);
	c->head_only = r->parser.method == HTTP_HEAD;
	c->responded = false;
	c->body_bytes = 0;
	set_phase(c, CLIENT_BODY);
	c->continue_wanted = expect && r->parser.http_minor >= 1;
	if (expect && strcasecmp(expect, "100-continue"))
		return 417;
	status = route_head(c);
	if (status || c->phase == CLIENT_CLOSED)
		return status ?: HTTP_READ_STOP;
	/* Already refused: a short rest is read, a long one isn't. */
	if (c->responded &&
	    (c->continue_wanted || (r->parser.flags & F_CHUNKED) ||
	     (r->parser.content_length != UINT64_MAX && r->parser.content_length > MAX_DISCARD)))
		set_phase(c, CLIENT_FLUSH);
	return c->phase == CLIENT_FLUSH ? HTTP_READ_STOP : 0;
}

static int on_body(struct http_reader *r, const char *data, size_t n)
{
	struct client *c = client_of(r);
	int status = 0;

	c->body_bytes += n;
	if (c->route != ROUTE_DISCARD)
		status = route_body(c, data, n);
	else if (c->body_bytes > MAX_DISCARD)
		return HTTP_READ_STOP;
	return status ?: c->phase == CLIENT_CLOSED ? HTTP_READ_STOP : 0;
}

static int on_end(struct http_reader *r)
{
	struct client *c = client_of(r);

	if (c->phase == CLIENT_FLUSH)
		return 0;
	c->continue_wanted = false;
	if (c->responded) {
		next_request(c);
		return 0;
	}
	set_phase(c, CLIENT_WAIT);
	route_end(c);
	return c->phase == CLIENT_CLOSED ? HTTP_READ_STOP : 0;
}

static const struct http_reader_ops reader_ops = {.head = on_head, .body = on_body, .end = on_end};

/* Gives the parser bytes as far as they are wanted; returns how many it took. */
static size_t parse_bytes(struct client *c, const char *data, size_t n)
{
	size_t done = 0, used;
	int status;

	while (done < n &&
	       (c->phase == CLIENT_HEAD || (c->phase == CLIENT_BODY && wants_input(c)))) {
		if (c->phase == CLIENT_HEAD && !c->reader.begun)
			c->phase_since = loop_now();
		status = http_reader_feed(&c->reader, data + done, n - done, &used);
		done += MIN(used, n - done);
		if (c->phase == CLIENT_CLOSED)
			break;
		if (status == HTTP_READ_STOP) {
			if (c->phase == CLIENT_BODY && c->responded)
				set_phase(c, CLIENT_FLUSH);
			break;
		}
		if (status) {
			refuse(c, status);
			break;
		}
	}
	return done;
}

/* What was read before and not wanted then. */
static void parse(struct client *c)
{
	buf_consume(&c->in, parse_bytes(c, buf_data(&c->in), c->in.len));
	if (!c->in.len)
		buf_fini(&c->in);
}

static void resume(struct work *w)
{
	struct client *c = container_of(w, struct client, resume_work);

	if (c->phase == CLIENT_CLOSED)
		return;
	parse(c);
	/* Bytes that TLS has taken from the socket aren't said by epoll. */
	if (c->phase != CLIENT_CLOSED && c->ssl && wants_input(c) && SSL_pending(c->ssl))
		c->watch.ready(&c->watch, EPOLLIN);
	else
		set_events(c);
}

void client_resume(struct client *c)
{
	if (c->phase != CLIENT_BODY)
		return;
	/* The time it stood still for us isn't the client's. */
	c->phase_since = loop_now();
	c->body_bytes = 0;
	work_add(&c->resume_work);
}

static void read_lingering(struct client *c)
{
	char data[16384];
	ssize_t n = 0;

	for (int i = 0; i < 16 && (n = recv(c->watch.fd, data, sizeof(data), 0)) > 0; i++)
		c->body_bytes += (size_t)n;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || c->body_bytes > MAX_LINGER)
		client_close(c);
}

static void read_more(struct client *c)
{
	/* Of all connections: hardly ever does one leave something in it. */
	static char bytes[READ_SIZE];
	ssize_t n = 0;
	size_t used;

	for (int i = 0; i < 4 && wants_input(c) && c->phase != CLIENT_LINGER; i++) {
		n = conn_read(c, bytes, sizeof(bytes));
		if (n <= 0)
			break;
		used = c->in.len ? 0 : parse_bytes(c, bytes, (size_t)n);
		buf_append(&c->in, bytes + used, (size_t)n - used);
		if (c->in.len)
			parse(c);
		if (c->in.failed)
			client_close(c);
		if (c->phase == CLIENT_CLOSED || (size_t)n < READ_SIZE / 4)
			break;
	}
	if (c->phase == CLIENT_CLOSED)
		return;
	/* It closed, in the middle of a request or after the last one; or it failed. */
	if ((n == 0 && wants_input(c) && c->phase != CLIENT_LINGER) || (n < 0 && n != -EAGAIN))
		client_close(c);
}

static bool handshake(struct client *c)
{
	int ret;

	ERR_clear_error();
	ret = SSL_accept(c->ssl);
	if (ret == 1) {
		set_phase(c, CLIENT_HEAD);
		return true;
	}
	if (tls_result(c, ret) != -EAGAIN)
		client_close(c);
	return false;
}

static void client_ready(struct watch *w, uint32_t events)
{
	struct client *c = container_of(w, struct client, watch);

	c->tls_wants_write = false;
	if (events & EPOLLIN && c->phase == CLIENT_WAIT)
		c->early = true;
	if (c->phase == CLIENT_TLS && !handshake(c)) {
		if (c->phase != CLIENT_CLOSED)
			set_events(c);
		return;
	}
	if (events & EPOLLOUT && c->out.len)
		client_flush(c);
	if (c->phase == CLIENT_LINGER)
		read_lingering(c);
	else if (events & (EPOLLIN | EPOLLRDHUP) && wants_input(c))
		read_more(c);
	if (c->phase == CLIENT_CLOSED)
		return;
	/* What was answered at once is on its way before the end is noticed. */
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		if (c->out.len)
			client_flush(c);
		if (c->phase == CLIENT_FLUSH || c->phase == CLIENT_LINGER) {
			if (events & (EPOLLHUP | EPOLLERR))
				client_close(c);
		} else if (c->phase == CLIENT_WAIT || !wants_input(c) ||
			   events & (EPOLLHUP | EPOLLERR)) {
			client_close(c);
		}
	}
	set_events(c);
}

static void client_timeout(struct timer *t)
{
	struct client *c = container_of(t, struct client, timer);

	if (c->out.len && loop_now() >= c->wrote_at + server.config->timeouts.write)
		client_close(c);
	else if ((c->phase == CLIENT_HEAD && (c->reader.begun || c->in.len)) ||
		 (c->phase == CLIENT_BODY && !c->responded))
		refuse(c, 408);
	else
		client_close(c);
	set_events(c);
}

/* Makes room: the connection that has waited longest for a request goes. */
static bool close_idle_one(void)
{
	struct client *c;

	list_for_each_entry (c, &clients, node) {
		if (c->phase == CLIENT_HEAD && !c->reader.begun && !c->out.len && !c->in.len) {
			client_close(c);
			return true;
		}
	}
	return false;
}

void client_accepted(struct listener *l, int fd, const char *peer)
{
	static const char full[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
				   "Retry-After: 1\r\nConnection: close\r\n\r\n";
	struct client *c;

	server.accepted++;
	if (!l->admin && server.connections >= server.config->limits.connections &&
	    !close_idle_one()) {
		server.refused++;
		if (!l->tls)
			send(fd, full, sizeof(full) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(fd);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return;
	}
	c->listener = l;
	c->watch = (struct watch){.ready = client_ready, .fd = -1};
	c->timer.fire = client_timeout;
	work_init(&c->flush_work, flush_soon);
	work_init(&c->resume_work, resume);
	work_init(&c->free_work, client_free);
	snprintf(c->peer, sizeof(c->peer), "%s", peer);
	http_reader_init(&c->reader, HTTP_REQUEST, &reader_ops, server.config->limits.header,
			 server.config->limits.uri);
	if (l->tls) {
		c->ssl = SSL_new(l->tls);
		if (!c->ssl || !SSL_set_fd(c->ssl, fd))
			goto out_free;
	}
	if (watch_add(&c->watch, fd, EPOLLIN | EPOLLRDHUP))
		goto out_free;
	list_add_tail(&c->node, &clients);
	server.connections++;
	set_phase(c, c->ssl ? CLIENT_TLS : CLIENT_HEAD);
	set_events(c);
	/* The request is often there already. */
	client_ready(&c->watch, EPOLLIN);
	return;
out_free:
	SSL_free(c->ssl);
	close(fd);
	free(c);
}

void clients_close(bool all)
{
	struct client *c, *tmp;

	list_for_each_entry_safe (c, tmp, &clients, node) {
		if (all || ((c->phase == CLIENT_HEAD || c->phase == CLIENT_TLS) &&
			    !c->reader.begun && !c->in.len && !c->out.len))
			client_close(c);
	}
}

unsigned int clients_busy(void)
{
	unsigned int n = 0;
	struct client *c;

	list_for_each_entry (c, &clients, node)
		n += c->phase == CLIENT_BODY || c->phase == CLIENT_WAIT || c->out.len > 0;
	return n;
}
