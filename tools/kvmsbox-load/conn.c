/* SPDX-License-Identifier: Apache-2.0 */
/* One connection and the request on it: from opening to the answer's last byte. */
#include "tools/kvmsbox-load/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#define EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
#define READ   (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)

void conn_close(struct conn *c)
{
	net_close(&c->net);
	c->state = CONN_CLOSED;
}

void conn_idle(struct engine *e, struct conn *c)
{
	if (list_empty(&e->idle))
		e->idle_since = monotonic_ns();
	list_move_tail(&c->place, &e->idle);
}

static void conn_rest(struct engine *e, struct conn *c)
{
	c->rested = monotonic_ns() + REST_NS;
	list_move_tail(&c->place, &e->resting);
}

void request_end(struct engine *e, struct conn *c, enum load_error error, const char *why)
{
	count_end(e, c->due, error, why);
	list_del(&c->busy);
	e->in_flight--;
	/* Without a schedule nothing else would keep it from trying as fast as it can. */
	if (error == LOAD_CONNECT || error == LOAD_TLS)
		conn_rest(e, c);
	else
		conn_idle(e, c);
}

/* The connection is of no more use, and neither is the request on it. */
static void conn_failed(struct engine *e, struct conn *c, enum load_error error, int err)
{
	char why[NET_WHY_MAX];

	net_why(&c->net, err, why);
	conn_close(c);
	request_end(e, c, error, why);
}

static void answer_complete(struct engine *e, struct conn *c)
{
	const struct request_text *text = &e->texts[c->url];
	int status = response_status(&c->response);
	enum load_error error = LOAD_OK;
	char why[NET_WHY_MAX] = "";

	if (status >= MAX_STATUS || !e->o->good[status]) {
		error = LOAD_STATUS;
		snprintf(why, sizeof(why), "%d %s", status,
			 http_status_str((enum http_status)status));
	} else if (!c->response.found) {
		error = LOAD_EXPECT;
		snprintf(why, sizeof(why), "\"%.100s\" isn't in the body", e->o->expect);
	}
	if (measured(e, c->due) && status < MAX_STATUS)
		e->r->statuses[status]++;
	if (!e->o->keepalive || !c->response.keep_alive ||
	    c->sent < text->len + e->o->http.body_len)
		conn_close(c);
	request_end(e, c, error, why);
}

/* @n bytes came, 0 being the end of the stream. Returns false if the request has ended. */
static bool request_input(struct engine *e, struct conn *c, const char *data, size_t n)
{
	char why[NET_WHY_MAX];

	if (measured(e, c->due))
		e->r->bytes_in += n;
	switch (response_feed(&c->response, data, n)) {
	case RESPONSE_MORE:
		return true;
	case RESPONSE_DONE:
		answer_complete(e, c);
		return false;
	case RESPONSE_SHORT:
		conn_close(c);
		request_end(e, c, LOAD_CLOSED,
			    c->response.begun ? "in the middle of the answer"
					      : "without an answer");
		return false;
	case RESPONSE_BAD:
		snprintf(why, sizeof(why), "%s", response_why(&c->response));
		conn_close(c);
		request_end(e, c, LOAD_PROTOCOL, why);
		return false;
	}
	return false;
}

/* Something may have come on an idle connection: the end, or what nobody asked for. */
static void idle_input(struct engine *e, struct conn *c)
{
	/* A TLS session ticket is no data: OpenSSL keeps it and says -EAGAIN. */
	if (net_recv(&c->net, e->buffer, BUFFER_SIZE) != -EAGAIN)
		conn_close(c);
}

static void conn_input(struct engine *e, struct conn *c, uint32_t events)
{
	ssize_t n;

	do {
		n = net_recv(&c->net, e->buffer, BUFFER_SIZE);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			conn_failed(e, c, LOAD_CLOSED, (int)n);
			return;
		}
		if (!request_input(e, c, e->buffer, (size_t)n))
			return;
		/* A short read has emptied the socket, but if its end was there it is still. */
	} while (n == BUFFER_SIZE || c->net.ssl || (events & (EPOLLRDHUP | EPOLLHUP)));
}

/* Sends what the socket takes. Returns false if the request has ended. */
static bool conn_output(struct engine *e, struct conn *c)
{
	const struct request_text *text = &e->texts[c->url];
	const struct http_options *http = &e->o->http;
	size_t total = text->len + http->body_len;
	struct iovec iov[2];
	ssize_t n;
	int i;

	while (c->sent < total) {
		i = 0;
		if (c->sent < text->len)
			iov[i++] = (struct iovec){text->head + c->sent, text->len - c->sent};
		if (http->body_len)
			iov[i++] = (struct iovec){
				http->body + (c->sent > text->len ? c->sent - text->len : 0),
				MIN(http->body_len, total - c->sent)};
		n = net_send(&c->net, iov, i);
		if (n == -EAGAIN)
			return true;
		if (n < 0) {
			/* It may have answered before it stopped reading. */
			if (n == -EPIPE || n == -ECONNRESET)
				conn_input(e, c, EPOLLRDHUP);
			if (!list_empty(&c->busy))
				conn_failed(e, c, LOAD_CLOSED, (int)n);
			return false;
		}
		c->sent += (size_t)n;
		if (measured(e, c->due))
			e->r->bytes_out += (size_t)n;
	}
	return true;
}

/* The connection is there, as far as TCP is concerned. Returns 0 or -errno; -EAGAIN: not ready. */
static int conn_handshake(struct engine *e, struct conn *c)
{
	int err;

	c->state = CONN_HANDSHAKE;
	err = net_handshake(&c->net);
	if (err)
		return err;
	c->state = CONN_OPEN;
	e->r->connections++;
	return 0;
}

int conn_open(struct engine *e, struct conn *c)
{
	struct epoll_event ev = {.events = EVENTS, .data.ptr = c};
	int err = net_open(&c->net, &e->server);

	if (err && err != -EINPROGRESS)
		return err == -EAGAIN ? -EBUSY : err;
	if (epoll_ctl(e->epoll, EPOLL_CTL_ADD, c->net.fd, &ev))
		return -errno;
	if (!err)
		return conn_handshake(e, c);
	c->state = CONN_CONNECTING;
	return -EAGAIN;
}

int conn_advance(struct engine *e, struct conn *c)
{
	int err = c->state == CONN_CONNECTING ? net_connected(&c->net) : 0;

	return err ?: conn_handshake(e, c);
}

/* After conn_open or conn_advance said @err, with a request. Returns false if it isn't open. */
static bool conn_ready(struct engine *e, struct conn *c, int err)
{
	if (!err)
		return true;
	if (err == -EBUSY)
		conn_rest(e, c); /* a Unix socket's queue is full: it isn't told when it has room */
	else if (err != -EAGAIN)
		conn_failed(e, c, c->state == CONN_HANDSHAKE ? LOAD_TLS : LOAD_CONNECT, err);
	return false;
}

void request_start(struct engine *e, struct conn *c)
{
	if (c->state == CONN_CLOSED && !conn_ready(e, c, conn_open(e, c)))
		return;
	conn_output(e, c);
}

void request_begin(struct engine *e, struct conn *c, uint64_t due, uint64_t now)
{
	c->due = due;
	c->deadline = now + e->o->http.timeout_ns;
	c->url = e->number % e->o->nurls;
	c->sent = 0;
	response_begin(&c->response, e->o->expect ? &e->pattern : NULL,
		       !strcmp(http_method(&e->o->http), "HEAD"));
	count_begun(e, due);
	list_del(&c->place);
	list_add_tail(&c->busy, &e->busy);
	e->in_flight++;
	request_start(e, c);
}

void conn_event(struct engine *e, struct conn *c, uint32_t events)
{
	if (c->state == CONN_CLOSED)
		return;
	if (list_empty(&c->busy)) {
		if (events & READ)
			idle_input(e, c);
		return;
	}
	if (c->state != CONN_OPEN && !conn_ready(e, c, conn_advance(e, c)))
		return;
	if (conn_output(e, c) && (events & READ))
		conn_input(e, c, events);
	/* The answer was whole, and the end behind it isn't told again. */
	if (list_empty(&c->busy) && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		conn_close(c);
}
