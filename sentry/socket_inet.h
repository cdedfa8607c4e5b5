/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox's own network, from outside: what the rest of the sentry sees of it. TCP and UDP over
 * the loopback addresses of IPv4 and IPv6 are carried inside the sentry (socket_inet_*.c); there is
 * no way out of the sandbox.
 *
 * A stream is one end of a TCP connection that belongs to the sentry and not to a task. The other
 * end is an ordinary socket of a program. Nothing here waits: what can't be done now is -EAGAIN,
 * and the stream's queue announces when it can.
 */
#ifndef SENTRY_SOCKET_INET_H
#define SENTRY_SOCKET_INET_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "sentry/lib/waitq.h"
#include "sentry/namespace.h"

struct inet_ports;
struct inet_stream;
struct inet_listener;

/* ---- a network namespace's port tables (sentry/namespace.c) ---- */
/* Loopback is up in the sandbox's first namespace and down in a new one, as on Linux. */
struct inet_ports *inet_ports_alloc(bool lo_up);
/* No socket of the namespace is left. */
void inet_ports_free(struct inet_ports *p);

/* ---- streams ---- */
/*
 * Connects to whoever listens on @port, on 127.0.0.1 or on ::1, as a client with an address on the
 * loopback would. 0 with *@out, to be given back with inet_stream_close; -ECONNREFUSED: nobody
 * listens; -EAGAIN: somebody does, but his backlog is full, so try again later (inet_port_wait says
 * when); -EADDRNOTAVAIL: no port is free; -ENOMEM; -ENETUNREACH: loopback is down.
 */
int inet_stream_connect(struct net_ns *net, uint16_t port, struct inet_stream **out) __must_check;
/*
 * Bytes taken (at least 1 of @len > 0), -EAGAIN: the receiver has no room, -EPIPE: shut down, or
 * the other end is gone; -ECONNRESET once when it was reset. No signal is raised.
 */
ssize_t inet_stream_send(struct inet_stream *s, const void *buf, size_t len) __must_check;
/* Bytes, 0: end of file, -EAGAIN: none yet; -ECONNRESET once when the other end was reset. */
ssize_t inet_stream_recv(struct inet_stream *s, void *buf, size_t len) __must_check;
/* shutdown(2) with SHUT_RD, SHUT_WR, SHUT_RDWR. 0, or -ENOTCONN. */
int inet_stream_shutdown(struct inet_stream *s, int how);
/* What it is ready for: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR as poll(2) has them. */
uint32_t inet_stream_poll(struct inet_stream *s);
/*
 * Where changes of that are announced, valid until inet_stream_close. Add the waiter first and look
 * second. EPOLLOUT is announced after a send that was refused or cut short, or after a poll
 * without EPOLLOUT.
 */
struct waitq *inet_stream_waitq(struct inet_stream *s);
/* As close(2): the other end reads to the end; it is reset if it had sent what nobody read. */
void inet_stream_close(struct inet_stream *s);
/* As close(2) with a linger time of 0: the other end is reset. */
void inet_stream_abort(struct inet_stream *s);

/* ---- listening ---- */
/*
 * Owns @port on 127.0.0.1 and ::1 (as a socket bound to [::]:@port would; 0: a free one, see
 * inet_listener_port). For each connection @accept is called with the stream, which is its to
 * close, and @arg: by the thread that connects, with no lock held; it must not block. 0,
 * -EADDRINUSE or -ENOMEM.
 */
int inet_stream_listen(struct net_ns *net, uint16_t port,
		       void (*accept)(struct inet_stream *s, void *arg), void *arg,
		       struct inet_listener **out) __must_check;
uint16_t inet_listener_port(const struct inet_listener *l);
/* No call of @accept begins afterwards; one that has begun may still run. */
void inet_listener_close(struct inet_listener *l);

/* ---- who listens ---- */
struct inet_listening {
	uint16_t port;
	int family;
	struct in6_addr addr; /* IPv4 as ::ffff:a.b.c.d; any: :: or ::ffff:0.0.0.0 */
	uid_t uid;
	uint64_t ino; /* of the socket, as in "socket:[ino]"; 0: the sentry's own */
};
/*
 * Stores up to @max TCP sockets that listen on @port (0: any port) in @out, the sentry's own left
 * out. Returns how many there are.
 */
size_t inet_listeners(struct net_ns *net, uint16_t port, struct inet_listening *out, size_t max);
/*
 * Would inet_stream_connect find somebody? -ENOENT, or 0. It is a moment's truth: to wait for a
 * server to come up, add a waiter to inet_port_wait's queue first. The queue is woken (EPOLLIN)
 * whenever a socket begins to listen or takes a connection off a full backlog.
 */
int inet_port_listening(struct net_ns *net, uint16_t port) __must_check;
struct waitq *inet_port_wait(struct net_ns *net);
/*
 * The processes that have a listening socket on @port (0: any) open: stores up to @max numbers, in
 * the root PID namespace, in @pids. Returns how many there are. Takes tasklist and descriptor
 * tables' locks.
 */
struct kernel;
size_t inet_listener_pids(struct kernel *k, struct net_ns *net, uint16_t port, pid_t *pids,
			  size_t max);

#endif
