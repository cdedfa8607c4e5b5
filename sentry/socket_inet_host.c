/* SPDX-License-Identifier: Apache-2.0 */
/* The sentry's own ends of connections, and who listens: socket_inet.h. */
#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"

/* Both are names of a TCP socket without a file. */
static struct tcp_sock *sock_of_stream(struct inet_stream *s)
{
	return (struct tcp_sock *)s;
}

static struct tcp_sock *sock_of_listener(const struct inet_listener *l)
{
	return (struct tcp_sock *)(uintptr_t)l;
}

/* ---- streams ---- */

static int connect_family(struct net_ns *net, int family, uint16_t port, struct inet_stream **out)
{
	struct inet_addr dst = {.ip = family == AF_INET ? inet_lo4 : inet_lo6, .port = port};
	struct tcp_sock *ts = tcp_alloc(net, family);
	int err;

	if (!ts)
		return -ENOMEM;
	err = tcp_start_connect(ts, &dst);
	if (!err) {
		int state = atomic_load(&ts->state);

		if (state == TCP_SYN_SENT)
			err = -EAGAIN;
		else if (state == TCP_CLOSE)
			err = sock_take_error(&ts->inet.sk) ?: -ECONNREFUSED;
	}
	if (err) {
		tcp_close(ts, true);
		tcp_put(ts);
		return err;
	}
	ts->conn = SOCKET_CONNECTED;
	*out = (struct inet_stream *)ts;
	return 0;
}

int inet_stream_connect(struct net_ns *net, uint16_t port, struct inet_stream **out)
{
	int err = connect_family(net, AF_INET, port, out);

	return err == -ECONNREFUSED ? connect_family(net, AF_INET6, port, out) : err;
}

ssize_t inet_stream_send(struct inet_stream *s, const void *buf, size_t len)
{
	struct sock_msg msg = {.flags = MSG_DONTWAIT | MSG_NOSIGNAL};

	iov_init_kernel(&msg.iter, buf, len);
	return tcp_sendmsg(NULL, &sock_of_stream(s)->inet.sk, &msg);
}

ssize_t inet_stream_recv(struct inet_stream *s, void *buf, size_t len)
{
	struct sock_msg msg = {.flags = MSG_DONTWAIT};

	iov_init_kernel(&msg.iter, buf, len);
	return tcp_recvmsg(NULL, &sock_of_stream(s)->inet.sk, &msg);
}

int inet_stream_shutdown(struct inet_stream *s, int how)
{
	return tcp_shutdown(&sock_of_stream(s)->inet.sk, how);
}

uint32_t inet_stream_poll(struct inet_stream *s)
{
	return tcp_poll(&sock_of_stream(s)->inet.sk);
}

struct waitq *inet_stream_waitq(struct inet_stream *s)
{
	return &sock_of_stream(s)->inet.sk.wq;
}

void inet_stream_close(struct inet_stream *s)
{
	tcp_close(sock_of_stream(s), false);
	tcp_put(sock_of_stream(s));
}

void inet_stream_abort(struct inet_stream *s)
{
	tcp_close(sock_of_stream(s), true);
	tcp_put(sock_of_stream(s));
}

/* ---- listening ---- */

int inet_stream_listen(struct net_ns *net, uint16_t port,
		       void (*accept)(struct inet_stream *s, void *arg), void *arg,
		       struct inet_listener **out)
{
	struct tcp_sock *ts = tcp_alloc(net, AF_INET6);
	int err;

	if (!ts)
		return -ENOMEM;
	mutex_lock(&ts->inet.sk.lock);
	ts->inet.sk.reuseaddr = true;
	err = inet_port_get(&ts->inet, port);
	ts->inet.port_locked = port;
	ts->accept_fn = accept;
	ts->accept_arg = arg;
	mutex_unlock(&ts->inet.sk.lock);
	if (!err)
		err = tcp_listen_start(ts, SOMAXCONN, 0);
	if (err) {
		tcp_close(ts, true);
		tcp_put(ts);
		return err;
	}
	*out = (struct inet_listener *)ts;
	return 0;
}

uint16_t inet_listener_port(const struct inet_listener *l)
{
	return sock_of_listener(l)->inet.local.port;
}

void inet_listener_close(struct inet_listener *l)
{
	tcp_close(sock_of_listener(l), false);
	tcp_put(sock_of_listener(l));
}

/* ---- who listens ---- */

size_t inet_listeners(struct net_ns *net, uint16_t port, struct inet_listening *out, size_t max)
{
	struct inet_bind *b;
	size_t n = 0;

	mutex_lock(&net->lock);
	for (size_t i = 0; i < INET_HASH; i++) {
		list_for_each_entry (b, &net->inet->listening[i], listen_node) {
			if ((port && b->local.port != port) || tcp_of(&b->owner->sk)->accept_fn)
				continue;
			if (n < max)
				out[n] = (struct inet_listening){.port = b->local.port,
								 .family = b->owner->sk.family,
								 .addr = b->local.ip,
								 .uid = b->uid,
								 .ino = b->owner->sk.ino};
			n++;
		}
	}
	mutex_unlock(&net->lock);
	return n;
}

int inet_port_listening(struct net_ns *net, uint16_t port)
{
	struct inet_addr dst = {.ip = inet_lo4, .port = port}, src = {.ip = inet_lo4};
	struct inet_sock *is = inet_find_listener(net, &dst, &src);

	if (!is) {
		dst.ip = src.ip = inet_lo6;
		is = inet_find_listener(net, &dst, &src);
	}
	if (!is)
		return -ENOENT;
	sock_put(&is->sk);
	return 0;
}

struct waitq *inet_port_wait(struct net_ns *net)
{
	return &net->inet->listen_wq;
}

/* Does @t's process have a socket open that listens on @port in @net? */
static bool holds_listener(struct task *t, struct net_ns *net, uint16_t port)
{
	struct fd_table *files = task_get_files(t);
	bool found = false;

	if (!files)
		return false;
	for (int fd = fd_next(files, 0); fd >= 0 && !found; fd = fd_next(files, fd + 1)) {
		struct file *file = fd_get(files, fd);
		struct sock *sk = file ? sock_of(file) : NULL;

		if (sk && sk->type == SOCK_STREAM &&
		    (sk->family == AF_INET || sk->family == AF_INET6)) {
			struct tcp_sock *ts = tcp_of(sk);

			found = ts->inet.net == net && atomic_load(&ts->state) == TCP_LISTEN &&
				(!port || ts->inet.local.port == port);
		}
		if (file)
			file_put(file);
	}
	fd_table_put(&t->vfs, files);
	return found;
}

/* A thread of @tg that hasn't ended, with a reference, or NULL. tasklist held. */
static struct task *live_thread(struct thread_group *tg)
{
	struct task *t;

	list_for_each_entry (t, &tg->threads, tg_node)
		if (!t->exiting)
			return task_get(t);
	return NULL;
}

size_t inet_listener_pids(struct kernel *k, struct net_ns *net, uint16_t port, pid_t *pids,
			  size_t max)
{
	size_t n = 0;

	for (uint64_t nr = 1;; nr++) {
		struct task *t = NULL;
		struct pid *pid;

		mutex_lock(&k->tasklist);
		for (; (pid = pid_next_locked(k->root_pid_ns, &nr)); nr++) {
			t = pid->tg ? live_thread(pid->tg) : NULL;
			if (t)
				break;
		}
		mutex_unlock(&k->tasklist);
		if (!t)
			return n;
		if (holds_listener(t, net, port)) {
			if (n < max)
				pids[n] = (pid_t)nr;
			n++;
		}
		task_put(t);
	}
}
