/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_UNIX sockets, from inside: socket_unix.c (names and connections), socket_unix_msg.c (queues),
 * socket_gc.c (sockets in flight).
 *
 * Locks: gc lock or topology lock → one sock->lock (LOCK_STREAM all; never two sock->locks at once
 * but for a listener's and its queued connections', in that order).
 */
#ifndef SENTRY_SOCKET_UNIX_H
#define SENTRY_SOCKET_UNIX_H

#include <sys/un.h>

#include "sentry/socket.h"

/* A name; immutable. */
struct unix_addr {
	struct refcount refs;
	int len; /* of the sockaddr_un, as getsockname gives it */
	struct sockaddr_un sun;
	char pad; /* a path that fills sun_path is terminated here */
};

enum unix_state { UNIX_NEW, UNIX_LISTEN, UNIX_CONNECTED };

/* A message, or a piece of a stream. */
struct unix_buf {
	struct list_head node;
	struct unix_sock *from; /* reference: charged for it */
	struct unix_addr *addr; /* the sender's name: reference or NULL */
	struct scm scm;
	size_t len, off; /* bytes, and how many have been read */
	size_t charge;
	uint8_t data[];
};

struct unix_sock {
	struct sock sk;
	struct list_head all_node; /* every socket, for /proc/net/unix; under its lock */
	uint64_t net_ino;	   /* of the namespace it was made in; const */
	/* Under sk.lock, all but where it says otherwise. */
	enum unix_state state;
	bool dead, shut_rd, shut_wr;
	struct unix_sock *peer;		/* reference */
	struct unix_addr *addr;		/* reference; set once */
	struct inode *inode;		/* bound to a path: reference */
	struct net_ns *net;		/* of a bound abstract name: reference */
	struct list_head abstract_node; /* in net->abstract; under net->lock */
	struct list_head queue;		/* struct unix_buf */
	size_t rx_bytes;
	unsigned int rx_msgs;
	_Atomic size_t wmem;	  /* bytes sent and not yet read */
	struct list_head pending; /* listening: connections not yet accepted, by pending_node */
	struct list_head pending_node;
	unsigned int npending, backlog;
	struct scm_cred cred;	  /* what SO_PEERCRED of the other side says of us; reference */
	struct scm_cred peercred; /* reference */
	struct list_head senders; /* datagram sockets connected to us; under the topology lock */
	struct list_head sender_node;
	/* socket_gc.c, under its lock. */
	struct list_head inflight_node;
	long inflight, trial;
	bool candidate, live;
};

static inline struct unix_sock *unix_of(struct sock *sk)
{
	return container_of(sk, struct unix_sock, sk);
}
static inline struct unix_sock *unix_get(struct unix_sock *u)
{
	sock_get(&u->sk);
	return u;
}
static inline void unix_put(struct unix_sock *u)
{
	if (u)
		sock_put(&u->sk);
}

/* ---- socket_unix.c ---- */
struct unix_addr *unix_addr_get(struct unix_addr *addr);
void unix_addr_put(struct unix_addr *addr);
/*
 * The socket bound to @addr with a reference. ERR_PTR: -ECONNREFUSED, -EPROTOTYPE if it isn't of
 * @type, or what the path says.
 */
struct unix_sock *unix_find(struct task *t, const struct sockaddr_storage *addr, int len, int type);
/* The lines of /proc/net/unix for @net (NULL: none). */
struct strbuf;
void unix_show_all(struct strbuf *b, const struct net_ns *net);
/* A name of the kernel's choice for a socket that sends credentials and has none. */
int unix_autobind(struct task *t, struct unix_sock *u);

/* ---- socket_unix_msg.c ---- */
ssize_t unix_sendmsg(struct task *t, struct sock *sk, struct sock_msg *msg);
ssize_t unix_recvmsg(struct task *t, struct sock *sk, struct sock_msg *msg);
bool unix_writable(const struct unix_sock *u);
bool unix_queue_full(struct unix_sock *u);
void unix_buf_free(struct unix_buf *b); /* no locks held */
/* Wakes the datagram sockets that may send again. */
void unix_wake_senders(struct unix_sock *u);
extern struct mutex unix_topology; /* LOCK_STREAM: senders lists */

#endif
