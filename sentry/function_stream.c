/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streams of http and lambda functions: connections on the sandbox's own loopback whose other
 * end is the sentry, and beyond it the server.
 *
 * http: the server opens them to the program's port. The snapshot point is where the program
 * listens and all its threads sleep.
 *
 * lambda: the sentry owns the port of the runtime interface, and passes on each connection that the
 * program makes. The snapshot point is where the program asks for its first invocation: that much
 * of the connection is held back, as part of the frozen state, and told to the server when a
 * request has begun.
 *
 * All of it is kernel state and goes back with everything else. The loop's thread is the only one
 * here, but for accept and the waiters, which only ring.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sentry/function_internal.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"
#include "sentry/namespace.h"
#include "sentry/socket_inet.h"

#define LAMBDA_PORT 9001
#define NEXT	    "GET /2018-06-01/runtime/invocation/next"
#define MAX_STREAMS 256

struct fn_stream {
	struct list_head node;
	uint32_t id;
	struct inet_stream *s; /* NULL: not connected yet */
	uint16_t port;
	struct waiter w;
	bool told;	  /* the server knows of it */
	bool read_closed; /* the program has sent its last, and the server knows */
	bool want_close;  /* the server has, once out is empty */
	bool write_closed;
	uint32_t window; /* bytes that may go to the server */
	uint8_t *out;	 /* on its way to the program: FN_STREAM_WINDOW bytes of room */
	size_t out_at, out_len;
	size_t head_len; /* lambda: read and held back */
	uint8_t head[256];
};

static struct {
	struct kernel *kernel;
	struct net_ns *net;
	unsigned int kind, port;
	struct list_head streams; /* the loop's */
	unsigned int nr;
	struct mutex lock;	/* LOCK_OBJECT: fresh */
	struct list_head fresh; /* accepted and not yet seen by the loop */
	struct inet_listener *listener;
	struct waiter listening;
	uint32_t next_id;
} st;

static bool on_event(struct waiter *w, uint32_t events)
{
	function_ring();
	return true;
}

static struct fn_stream *stream_alloc(void)
{
	struct fn_stream *f = kzalloc(sizeof(*f));

	if (!f)
		return NULL;
	f->out = kmalloc(FN_STREAM_WINDOW);
	if (!f->out) {
		kfree(f);
		return NULL;
	}
	list_init(&f->w.node);
	f->w.mask = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
	f->w.fn = on_event;
	f->window = FN_STREAM_WINDOW;
	return f;
}

static void stream_free(struct fn_stream *f, bool reset)
{
	if (f->s) {
		waitq_remove(&f->w);
		if (reset)
			inet_stream_abort(f->s);
		else
			inet_stream_close(f->s);
	}
	kfree(f->out);
	kfree(f);
}

static void stream_drop(struct fn_stream *f, bool reset)
{
	list_del(&f->node);
	st.nr--;
	stream_free(f, reset);
}

static void stream_connected(struct fn_stream *f, struct inet_stream *s)
{
	f->s = s;
	waitq_add(inet_stream_waitq(s), &f->w);
}

/* By the thread that connects. */
static void accepted(struct inet_stream *s, void *arg)
{
	struct fn_stream *f = stream_alloc();

	(void)arg;
	if (!f) {
		inet_stream_abort(s);
		return;
	}
	stream_connected(f, s);
	mutex_lock(&st.lock);
	list_add_tail(&f->node, &st.fresh);
	mutex_unlock(&st.lock);
	function_ring();
}

int streams_prepare(struct kernel *k, unsigned int kind, unsigned int port)
{
	st.kernel = k;
	st.net = k->root_net;
	st.kind = kind;
	st.port = kind == FN_LAMBDA && !port ? LAMBDA_PORT : port;
	st.next_id = 1;
	list_init(&st.streams);
	list_init(&st.fresh);
	mutex_init(&st.lock, LOCK_OBJECT);
	if (kind == FN_LAMBDA)
		return inet_stream_listen(st.net, (uint16_t)st.port, accepted, NULL, &st.listener);
	list_init(&st.listening.node);
	st.listening.mask = EPOLLIN;
	st.listening.fn = on_event;
	waitq_add(inet_port_wait(st.net), &st.listening);
	return 0;
}

unsigned int streams_port(void)
{
	return st.port;
}

/* Without a port given it is the first that the program listens on. */
static bool find_port(void)
{
	struct inet_listening l;

	if (st.port)
		return !inet_port_listening(st.net, (uint16_t)st.port);
	if (!inet_listeners(st.net, 0, &l, 1))
		return false;
	st.port = l.port;
	return true;
}

static bool asks_for_next(const struct fn_stream *f)
{
	return f->head_len >= sizeof(NEXT) - 1 && !memcmp(f->head, NEXT, sizeof(NEXT) - 1);
}

bool streams_at_point(void)
{
	struct fn_stream *f;

	if (st.kind == FN_HTTP)
		return find_port();
	list_for_each_entry (f, &st.streams, node) {
		if (!f->told && asks_for_next(f))
			return true;
	}
	return false;
}

/* ---- from the server ---- */

static struct fn_stream *find(uint32_t id)
{
	struct fn_stream *f;

	list_for_each_entry (f, &st.streams, node) {
		if (f->id == id)
			return f;
	}
	return NULL;
}

static bool open_stream(const struct fn_msg *m)
{
	struct fn_stream *f;

	if (st.nr == MAX_STREAMS || m->stream.id & 1 || find(m->stream.id))
		return false;
	f = stream_alloc();
	if (!f)
		return false;
	f->id = m->stream.id;
	f->port = m->stream.port ? m->stream.port : (uint16_t)st.port;
	f->told = true;
	list_add_tail(&f->node, &st.streams);
	st.nr++;
	return true;
}

static bool take_data(struct fn_stream *f, const struct fn_msg *m, const uint8_t *data)
{
	if (m->len > FN_STREAM_WINDOW - f->out_len || f->want_close)
		return false;
	if (f->out_at) {
		memmove(f->out, f->out + f->out_at, f->out_len);
		f->out_at = 0;
	}
	memcpy(f->out + f->out_len, data, m->len);
	f->out_len += m->len;
	f->want_close = m->flags & FN_END_OF_DATA;
	return true;
}

bool streams_message(const struct fn_msg *m, const uint8_t *data)
{
	struct fn_stream *f;

	if (m->type == FN_OPEN)
		return open_stream(m);
	f = find(m->stream.id);
	/* One that has just ended from this side: the server doesn't know yet. */
	if (!f)
		return true;
	switch (m->type) {
	case FN_DATA:
		return take_data(f, m, data);
	case FN_WINDOW:
		if (m->stream.window > FN_STREAM_WINDOW - f->window)
			return false;
		f->window += m->stream.window;
		return true;
	case FN_CLOSE:
		stream_drop(f, m->flags & FN_RESET);
		return true;
	}
	return false;
}

/* ---- moving ---- */

static bool tell(const struct fn_stream *f, unsigned int type, uint32_t flags, const void *data,
		 size_t len)
{
	struct fn_msg m = {.type = type, .flags = flags, .stream.id = f->id};

	m.stream.port = f->port;
	return function_send(&m, data, len);
}

/* Gone, and not by the server's will. */
static bool lost(struct fn_stream *f, bool reset)
{
	bool ok = !f->told || tell(f, FN_CLOSE, reset ? FN_RESET : 0, NULL, 0);

	stream_drop(f, reset);
	return ok;
}

/* True: it is connected, or there is no hurry. */
static bool connect_stream(struct fn_stream *f, bool *refused)
{
	struct inet_stream *s;
	int err = inet_stream_connect(st.net, f->port, &s);

	*refused = err && err != -EAGAIN;
	if (!err)
		stream_connected(f, s);
	return !err;
}

/* Towards the program. *@gone: it doesn't read any more. False: the server is gone. */
static bool push(struct fn_stream *f, bool *gone)
{
	struct fn_msg m = {.type = FN_WINDOW, .stream.id = f->id};
	ssize_t n = 0;

	while (f->out_len) {
		n = inet_stream_send(f->s, f->out + f->out_at, f->out_len);
		if (n <= 0)
			break;
		f->out_at += (size_t)n;
		f->out_len -= (size_t)n;
		m.stream.window += (uint32_t)n;
	}
	if (f->out_len && n != -EAGAIN)
		*gone = true;
	if (!f->out_len && f->want_close && !f->write_closed) {
		f->write_closed = true;
		(void)!inet_stream_shutdown(f->s, SHUT_WR);
	}
	return !m.stream.window || function_send(&m, NULL, 0);
}

/* Towards the server. *@reset: the connection was. False: the server is gone. */
static bool pull(struct fn_stream *f, bool *reset)
{
	while (f->window && !f->read_closed) {
		size_t most = MIN((size_t)f->window, (size_t)FN_DATA_MAX);
		ssize_t n = inet_stream_recv(f->s, function_buffer(), most);

		if (n == -EAGAIN)
			return true;
		if (n < 0) {
			*reset = true;
			return true;
		}
		f->read_closed = !n;
		f->window -= (uint32_t)n;
		if (!tell(f, FN_DATA, n ? 0 : FN_END_OF_DATA, function_buffer(), (size_t)n))
			return false;
	}
	return true;
}

/* What a runtime says first, as far as it tells what it wants. */
static void read_head(struct fn_stream *f)
{
	ssize_t n;

	while (f->head_len < sizeof(f->head)) {
		n = inet_stream_recv(f->s, f->head + f->head_len, sizeof(f->head) - f->head_len);
		if (n <= 0)
			break;
		f->head_len += (size_t)n;
	}
}

static bool may_become_next(const struct fn_stream *f)
{
	size_t n = MIN(f->head_len, sizeof(NEXT) - 1);

	return !memcmp(f->head, NEXT, n);
}

/* A connection of the runtime's that the server doesn't know of. */
static bool introduce(struct fn_stream *f, bool booting)
{
	read_head(f);
	if (booting && may_become_next(f))
		return true;
	f->told = true;
	if (!tell(f, FN_OPEN, 0, NULL, 0))
		return false;
	f->window -= (uint32_t)f->head_len;
	return !f->head_len || tell(f, FN_DATA, 0, f->head, f->head_len);
}

/* False: the server is gone. */
static bool work(struct fn_stream *f, bool booting)
{
	bool gone = false, refused = false;

	if (!f->s && !connect_stream(f, &refused))
		return refused ? lost(f, true) : true;
	if (!f->told && !introduce(f, booting))
		return false;
	if (!f->told)
		return true;
	if (!push(f, &gone) || !pull(f, &gone))
		return false;
	if (gone)
		return lost(f, true);
	return f->read_closed && f->write_closed ? lost(f, false) : true;
}

void streams_end_request(void)
{
	struct fn_stream *f, *next;

	list_for_each_entry_safe (f, next, &st.streams, node) {
		if (!(f->id & 1))
			stream_drop(f, false);
	}
}

static void take_fresh(void)
{
	struct fn_stream *f, *next;

	mutex_lock(&st.lock);
	list_for_each_entry_safe (f, next, &st.fresh, node) {
		list_del(&f->node);
		f->id = st.next_id;
		st.next_id += 2;
		list_add_tail(&f->node, &st.streams);
		st.nr++;
	}
	mutex_unlock(&st.lock);
}

bool streams_work(bool booting)
{
	struct fn_stream *f, *next;

	take_fresh();
	list_for_each_entry_safe (f, next, &st.streams, node) {
		if (!work(f, booting))
			return false;
	}
	return true;
}
