/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sentry's own ends of connections (sentry/socket_inet.h): connecting to a program's listener,
 * owning a port, bytes, ends, readiness, who listens, and that nothing is left at the end.
 */
#include <netinet/tcp.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"
#include "test/unit/unit.h"

static struct net_ns *net;

/* A socket as a program would have it, listening on a free port: its port is *@port. */
static struct tcp_sock *server(int family, int backlog, uint16_t *port)
{
	struct tcp_sock *ts = tcp_alloc(net, family);

	if (!ts || tcp_listen_start(ts, backlog, 1000))
		abort();
	*port = ts->inet.local.port;
	return ts;
}

static void server_close(struct tcp_sock *ts)
{
	tcp_close(ts, false);
	tcp_put(ts);
}

static struct inet_stream *accepted(struct tcp_sock *ts)
{
	struct sock *sk = ts->inet.sk.ops->accept(&ts->inet.sk);

	return IS_ERR(sk) ? NULL : (struct inet_stream *)tcp_of(sk);
}

/* How often a queue was woken, and for what. */
struct counter {
	struct waiter w;
	int n;
	uint32_t events;
};

static bool count(struct waiter *w, uint32_t events)
{
	struct counter *c = container_of(w, struct counter, w);

	c->n++;
	c->events |= events;
	return true;
}

static void counter_on(struct counter *c, struct waitq *wq, uint32_t mask)
{
	memset(c, 0, sizeof(*c));
	list_init(&c->w.node);
	c->w.mask = mask;
	c->w.fn = count;
	waitq_add(wq, &c->w);
}

TEST(connect_to_a_listener)
{
	struct inet_stream *s, *t;
	struct tcp_sock *l;
	uint16_t port;
	char buf[8];

	l = server(AF_INET, 4, &port);
	CHECK(!inet_stream_connect(net, port, &s));
	t = accepted(l);
	CHECK(t);
	CHECK(inet_stream_recv(s, buf, 8) == -EAGAIN);
	CHECK(inet_stream_send(s, "hello", 5) == 5);
	CHECK(inet_stream_recv(t, buf, 8) == 5 && !memcmp(buf, "hello", 5));
	CHECK(inet_stream_send(t, "yes", 3) == 3);
	CHECK(inet_stream_poll(s) == (EV_IN | EPOLLOUT | EPOLLWRNORM));
	CHECK(inet_stream_recv(s, buf, 2) == 2);
	CHECK(inet_stream_recv(s, buf, 8) == 1);
	inet_stream_close(s);
	CHECK(inet_stream_recv(t, buf, 8) == 0);
	inet_stream_close(t);
	server_close(l);
}

TEST(connect_to_ipv6)
{
	struct inet_stream *s, *t;
	struct tcp_sock *l = tcp_alloc(net, AF_INET6);

	CHECK(l);
	l->inet.v6only = true;
	CHECK(!tcp_listen_start(l, 1, 0));
	CHECK(!inet_stream_connect(net, l->inet.local.port, &s));
	t = accepted(l);
	CHECK(t);
	inet_stream_close(t);
	inet_stream_close(s);
	server_close(l);
}

TEST(nobody_listens)
{
	struct inet_stream *s = NULL;
	struct tcp_sock *l;
	uint16_t port;

	l = server(AF_INET, 1, &port);
	CHECK(!inet_port_listening(net, port));
	server_close(l);
	CHECK(inet_port_listening(net, port) == -ENOENT);
	CHECK(inet_stream_connect(net, port, &s) == -ECONNREFUSED);
	CHECK(!s);
}

TEST(down_is_unreachable)
{
	struct net_ns *down = net_ns_alloc(false);
	struct inet_stream *s;

	CHECK(!IS_ERR(down));
	CHECK(inet_stream_connect(down, 80, &s) == -ENETUNREACH);
	net_ns_put(down);
}

TEST(full_backlog)
{
	struct inet_stream *s, *t, *u;
	struct counter c;
	struct tcp_sock *l;
	uint16_t port;

	l = server(AF_INET, 0, &port);
	CHECK(!inet_stream_connect(net, port, &s));
	CHECK(inet_stream_connect(net, port, &t) == -EAGAIN);
	counter_on(&c, inet_port_wait(net), EPOLLIN);
	u = accepted(l);
	CHECK(u && c.n == 1);
	waitq_remove(&c.w);
	CHECK(!inet_stream_connect(net, port, &t));
	inet_stream_close(t);
	inet_stream_close(s);
	inet_stream_close(u);
	server_close(l);
}

TEST(wait_for_a_server)
{
	struct counter c;
	struct tcp_sock *l;
	uint16_t port;

	counter_on(&c, inet_port_wait(net), EPOLLIN);
	l = server(AF_INET6, 1, &port);
	CHECK(c.n == 1 && !inet_port_listening(net, port));
	waitq_remove(&c.w);
	server_close(l);
}

TEST(half_closes)
{
	struct inet_stream *s, *t;
	struct tcp_sock *l;
	uint16_t port;
	char buf[8];

	l = server(AF_INET, 4, &port);
	CHECK(!inet_stream_connect(net, port, &s));
	t = accepted(l);
	CHECK(inet_stream_send(s, "end", 3) == 3);
	CHECK(!inet_stream_shutdown(s, SHUT_WR));
	CHECK(inet_stream_send(s, "x", 1) == -EPIPE);
	CHECK(inet_stream_recv(t, buf, 8) == 3);
	CHECK(inet_stream_recv(t, buf, 8) == 0);
	CHECK(inet_stream_poll(t) & EPOLLRDHUP);
	CHECK(inet_stream_send(t, "answer", 6) == 6);
	CHECK(inet_stream_recv(s, buf, 8) == 6);
	inet_stream_close(t);
	CHECK(inet_stream_recv(s, buf, 8) == 0);
	CHECK(inet_stream_poll(s) & EPOLLHUP);
	CHECK(inet_stream_shutdown(s, SHUT_WR) == -ENOTCONN);
	inet_stream_close(s);
	server_close(l);
}

TEST(resets)
{
	struct inet_stream *s, *t;
	struct tcp_sock *l;
	uint16_t port;
	char buf[8];

	l = server(AF_INET, 4, &port);
	CHECK(!inet_stream_connect(net, port, &s));
	t = accepted(l);
	inet_stream_abort(t);
	CHECK(inet_stream_poll(s) & EPOLLERR);
	CHECK(inet_stream_recv(s, buf, 8) == -ECONNRESET);
	CHECK(inet_stream_recv(s, buf, 8) == 0);
	CHECK(inet_stream_send(s, "x", 1) == -EPIPE);
	inet_stream_close(s);
	/* What was sent and not read resets, too. */
	CHECK(!inet_stream_connect(net, port, &s));
	t = accepted(l);
	CHECK(inet_stream_send(s, "x", 1) == 1);
	inet_stream_close(t);
	CHECK(inet_stream_send(s, "x", 1) == -ECONNRESET);
	inet_stream_close(s);
	server_close(l);
}

TEST(room_is_announced)
{
	struct inet_stream *s, *t;
	struct counter c;
	struct tcp_sock *l;
	static char buf[65536];
	size_t sent = 0;
	uint16_t port;
	ssize_t n;

	l = server(AF_INET, 4, &port);
	CHECK(!inet_stream_connect(net, port, &s));
	t = accepted(l);
	while ((n = inet_stream_send(s, buf, sizeof(buf))) > 0)
		sent += (size_t)n;
	CHECK(n == -EAGAIN && sent > 100000);
	CHECK(!(inet_stream_poll(s) & EPOLLOUT));
	counter_on(&c, inet_stream_waitq(s), EPOLLOUT);
	while (sent) {
		n = inet_stream_recv(t, buf, sizeof(buf));
		CHECK(n > 0);
		sent -= (size_t)n;
	}
	CHECK(c.n == 1 && (c.events & EPOLLOUT));
	CHECK(inet_stream_poll(s) & EPOLLOUT);
	waitq_remove(&c.w);
	counter_on(&c, inet_stream_waitq(s), EPOLLIN);
	CHECK(inet_stream_send(t, "x", 1) == 1);
	CHECK(c.n == 1);
	waitq_remove(&c.w);
	inet_stream_close(s);
	inet_stream_close(t);
	server_close(l);
}

static struct inet_stream *taken;
static int ntaken;

static void take(struct inet_stream *s, void *arg)
{
	*(int *)arg += 1;
	taken = s;
}

TEST(own_a_port)
{
	struct inet_listener *l, *m;
	struct inet_stream *s;
	uint16_t port;
	char buf[8];

	ntaken = 0;
	CHECK(!inet_stream_listen(net, 0, take, &ntaken, &l));
	port = inet_listener_port(l);
	CHECK(port >= INET_PORT_MIN);
	CHECK(inet_stream_listen(net, port, take, &ntaken, &m) == -EADDRINUSE);
	CHECK(!inet_stream_connect(net, port, &s));
	CHECK(ntaken == 1);
	CHECK(inet_stream_send(s, "hi", 2) == 2);
	CHECK(inet_stream_recv(taken, buf, 8) == 2);
	CHECK(inet_stream_send(taken, "you", 3) == 3);
	CHECK(inet_stream_recv(s, buf, 8) == 3);
	inet_listener_close(l);
	/* The connection stays; the port doesn't answer. */
	CHECK(inet_stream_send(s, "on", 2) == 2);
	CHECK(inet_stream_recv(taken, buf, 8) == 2);
	CHECK(inet_port_listening(net, port) == -ENOENT);
	inet_stream_close(s);
	inet_stream_close(taken);
}

TEST(own_a_certain_port)
{
	struct inet_listener *l;
	struct inet_stream *s;

	CHECK(!inet_stream_listen(net, 80, take, &ntaken, &l));
	CHECK(inet_listener_port(l) == 80);
	CHECK(!inet_stream_connect(net, 80, &s));
	inet_stream_close(s);
	inet_stream_close(taken);
	inet_listener_close(l);
}

TEST(who_listens)
{
	struct inet_listening list[4];
	struct inet_listener *own;
	struct tcp_sock *l, *m;
	uint16_t port, other;

	CHECK(inet_listeners(net, 0, list, 4) == 0);
	l = server(AF_INET, 1, &port);
	m = server(AF_INET6, 1, &other);
	CHECK(!inet_stream_listen(net, 0, take, &ntaken, &own));
	CHECK(inet_listeners(net, 0, list, 4) == 2);
	CHECK(inet_listeners(net, 0, list, 0) == 2);
	CHECK(inet_listeners(net, port, list, 4) == 1);
	CHECK(list[0].port == port && list[0].family == AF_INET && list[0].uid == 1000);
	CHECK(inet_listeners(net, inet_listener_port(own), list, 4) == 0);
	inet_listener_close(own);
	server_close(l);
	server_close(m);
	CHECK(inet_listeners(net, 0, list, 4) == 0);
}

TEST(listener_closes_with_a_queue)
{
	struct inet_stream *s;
	struct tcp_sock *l;
	uint16_t port;
	char c;

	l = server(AF_INET, 4, &port);
	CHECK(!inet_stream_connect(net, port, &s));
	server_close(l);
	CHECK(inet_stream_recv(s, &c, 1) == -ECONNRESET);
	inet_stream_close(s);
}

/* A failure at every allocation on the way: an error, and nothing is left. */
TEST(out_of_memory)
{
	struct tcp_sock *l;
	uint16_t port;
	size_t before;

	l = server(AF_INET, 4, &port);
	before = arena_in_use();
	for (long n = 1;; n++) {
		struct inet_stream *s, *t;
		int err;

		arena_fail_at(n);
		err = inet_stream_connect(net, port, &s);
		arena_fail_at(0);
		if (!err) {
			t = accepted(l);
			CHECK(t);
			inet_stream_abort(s);
			inet_stream_close(t);
			CHECK(n > 2);
			break;
		}
		CHECK(err == -ENOMEM);
		CHECK(!accepted(l));
		CHECK(arena_in_use() == before);
	}
	CHECK(arena_in_use() == before);
	server_close(l);
}

TEST(nothing_is_left)
{
	struct inet_stream *s, *t;
	struct tcp_sock *l;
	size_t before;
	uint16_t port;

	net_ns_put(net);
	before = arena_in_use();
	net = net_ns_alloc(true);
	l = server(AF_INET, 4, &port);
	CHECK(!inet_stream_connect(net, port, &s));
	t = accepted(l);
	CHECK(inet_stream_send(s, "unread", 6) == 6);
	inet_stream_shutdown(s, SHUT_WR);
	inet_stream_close(t);
	inet_stream_close(s);
	/* One in TIME_WAIT, one in the queue. */
	CHECK(!inet_stream_connect(net, port, &s));
	t = accepted(l);
	inet_stream_close(s);
	inet_stream_close(t);
	CHECK(net->inet->ntime_wait == 1);
	CHECK(!inet_stream_connect(net, port, &s));
	server_close(l);
	inet_stream_close(s);
	net_ns_put(net);
	CHECK(arena_in_use() == before);
	net = net_ns_alloc(true);
}

int main(void)
{
	if (arena_init())
		return 1;
	net = net_ns_alloc(true);
	return unit_run();
}
