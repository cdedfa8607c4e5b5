/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_INET and AF_INET6, from inside: socket_inet.c (the families, addresses), socket_inet_port.c
 * (ports), socket_inet_tcp.c (connections), socket_inet_tcp_data.c (their bytes),
 * socket_inet_udp.c, socket_inet_opt.c, socket_inet_cmsg.c, socket_inet_host.c (the sentry's own
 * ends: socket_inet.h).
 *
 * An IPv4 address is kept as ::ffff:a.b.c.d everywhere, "any" of IPv4 as ::ffff:0.0.0.0, so that
 * one comparison serves both families and sockets of both kinds meet in one table.
 *
 * Locks: one sock->lock (LOCK_STREAM) → net->lock (LOCK_OBJECT). Two sock->locks at once only: a
 * listener's, then a connecting socket's (which is in TCP_SYN_SENT and thus no listener), under the
 * handshake lock of socket_inet_tcp.c.
 */
#ifndef SENTRY_SOCKET_INET_INT_H
#define SENTRY_SOCKET_INET_INT_H

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "sentry/socket.h"
#include "sentry/socket_inet.h"

#define INET_HASH	128u /* buckets of a port table */
#define INET_LO		1    /* the one interface's number */
#define INET_LO_MTU	65536
#define INET_TW_SECONDS 60 /* TIME_WAIT, and FIN_WAIT2 of a socket that is closed */
#define INET_TW_MAX	4096u
#define INET_PORT_MIN	32768u /* /proc/sys/net/ipv4/ip_local_port_range */
#define INET_PORT_MAX	60999u
#define INET_PORT_ROOT	1024u /* ip_unprivileged_port_start */
#define INET_SOMAXCONN	4096u
#define INET_MSS	65483 /* of IPv4 on loopback with time stamps */
#define INET_TTL	64

#define EV_IN  (EPOLLIN | EPOLLRDNORM)
#define EV_OUT (EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)
#define EV_ALL (EV_IN | EV_OUT | EPOLLRDHUP | EPOLLERR | EPOLLHUP | EPOLLPRI)

struct inet_addr {
	struct in6_addr ip;
	uint16_t port; /* host order */
};

enum inet_proto { INET_TCP, INET_UDP, INET_UDPLITE, INET_NPROTO };

struct inet_sock;

/*
 * A place in a port table. It outlives its socket as a connection in TIME_WAIT, so it has what a
 * conflict is decided by. Under net->lock while it is in the table.
 */
struct inet_bind {
	struct list_head node;	      /* in a bucket, or empty */
	struct list_head listen_node; /* in a bucket of listeners */
	struct list_head tw_node;     /* in time_wait */
	struct inet_sock *owner;      /* borrowed; NULL: TIME_WAIT */
	struct inet_addr local, peer; /* local.ip is what is received for; peer.port 0: none */
	bool v6only, reuse, reuseport, listening;
	bool for_connect; /* the port was chosen by connect: other connects may share it */
	uid_t uid;
	uint64_t expires; /* CLOCK_MONOTONIC ns */
};

struct inet_ports {
	struct list_head bound[INET_NPROTO][INET_HASH];
	struct list_head listening[INET_HASH];
	struct list_head time_wait; /* oldest first */
	unsigned int ntime_wait;
	uint64_t random;
	_Atomic bool lo_up;
	_Atomic uint64_t packets, bytes; /* over loopback */
	_Atomic long nsocks[INET_NPROTO];
	struct waitq listen_wq;
};

/* An error that came back for a datagram (IP_RECVERR). */
struct inet_error {
	struct list_head node;
	struct inet_addr dest;
	int err;
	size_t len;
	uint8_t data[];
};

struct inet_mcast {
	struct list_head node;
	struct in6_addr group;
};

struct inet_sock {
	struct sock sk;
	struct net_ns *net; /* reference; const */
	struct inet_bind *bind;
	bool hashed; /* bind is in the table; under net->lock */
	/* Changed under sk.lock. */
	struct inet_addr local; /* getsockname's; local.port stays when the port is given back */
	struct inet_addr peer;	/* getpeername's; port 0: none */
	struct in6_addr rcv;	/* what it receives for: any, or local.ip */
	bool addr_locked, port_locked; /* by bind(2) */
	/* Options (socket_inet_opt.c). */
	bool v6only, v6only_set, no_port, freebind, transparent, hdrincl;
	bool recverr, recverr6, pktinfo, pktinfo6, recvttl, recvhops, recvtos, recvtclass, recvdst;
	bool mcast_loop, mcast_loop6, mcast_all, mcast_all6, nodefrag, autoflowlabel;
	bool rxq_ovfl, timestampns;
	int tos, ttl, tclass, hops, mcast_ttl, mcast_hops, mtu_discover, mtu_discover6;
	int mcast_if, mcast_if6, device; /* interface numbers, 0: none */
	int mark, incoming_cpu;
	struct list_head mcast;	 /* struct inet_mcast */
	struct list_head errors; /* struct inet_error */
};

static inline struct inet_sock *inet_of(struct sock *sk)
{
	return container_of(sk, struct inet_sock, sk);
}

/* ---- TCP ---- */

/* A piece of a stream. */
struct tcp_piece {
	struct list_head node;
	size_t off, len, room; /* read, filled, of data */
	uint8_t data[];
};

enum tcp_urgent { URGENT_NONE, URGENT_VALID, URGENT_READ };
/* What connect(2) goes by: Linux's socket_state. */
enum tcp_connecting {
	SOCKET_UNCONNECTED,
	SOCKET_CONNECTING,
	SOCKET_CONNECTED,
	SOCKET_DISCONNECTING
};

struct tcp_sock {
	struct inet_sock inet;
	/* Under sk.lock; state and rx_bytes are also read without. */
	_Atomic int state; /* TCP_* */
	enum tcp_connecting conn;
	unsigned int shutdown; /* 1 receive, 2 send */
	bool fin;	       /* the peer's has come */
	bool dead;	       /* closed */
	struct tcp_sock *peer; /* reference; itself after a connect to itself */
	struct list_head rxq;
	_Atomic size_t rx_bytes;    /* not read yet */
	_Atomic size_t unsent_hint; /* what tcp_unsent said last */
	uint64_t read_seq;	    /* bytes read so far */
	uint64_t urg_seq;	    /* of the urgent byte */
	enum tcp_urgent urg;
	uint8_t urg_byte;
	_Atomic bool nospace; /* somebody wants to hear of room */
	_Atomic uint64_t bytes_in, bytes_out, segs_in, segs_out;
	struct timespec last_in, last_out;
	/* Listening. */
	struct list_head acceptq; /* struct tcp_sock.queue_node, each with a reference */
	struct list_head synq;	  /* connecting ones that wait for room, each with a reference */
	struct list_head queue_node;
	struct tcp_sock *waits_on; /* TCP_SYN_SENT: whose synq it is on; reference */
	_Atomic unsigned int npending;
	unsigned int backlog;
	void (*accept_fn)(struct inet_stream *s, void *arg);
	void *accept_arg;
	/* Options. */
	bool nodelay, cork, quickack;
	int keepidle, keepintvl, keepcnt, user_timeout, defer_accept, maxseg, syncnt, linger2;
	int window_clamp, notsent_lowat, fastopen;
	char congestion[16];
};

static inline struct tcp_sock *tcp_of(struct sock *sk)
{
	return container_of(sk, struct tcp_sock, inet.sk);
}
static inline struct tcp_sock *tcp_get(struct tcp_sock *ts)
{
	sock_get(&ts->inet.sk);
	return ts;
}
static inline void tcp_put(struct tcp_sock *ts)
{
	if (ts)
		sock_put(&ts->inet.sk);
}

/* ---- UDP ---- */

struct udp_packet {
	struct list_head node;
	struct inet_addr from, to;
	struct timespec stamp;
	size_t len, charge;
	int ttl, tos;
	uint8_t data[];
};

struct udp_sock {
	struct inet_sock inet;
	/* Under sk.lock. */
	struct list_head rxq;
	size_t rx_charge;
	uint32_t drops;
	unsigned int shutdown;
	bool dead;
	bool cork_option;
	int send_cover, recv_cover; /* of UDP-Lite's checksum */
	struct udp_packet *cork;    /* held back by that or MSG_MORE */
};

static inline struct udp_sock *udp_of(struct sock *sk)
{
	return container_of(sk, struct udp_sock, inet.sk);
}

/* ---- socket_inet.c ---- */
extern const struct in6_addr inet_any4, inet_any6, inet_lo4, inet_lo6;
/* Sets up what @is and its sock share; takes a reference on @net. */
int inet_sock_init(struct inet_sock *is, const struct sock_ops *ops, struct net_ns *net, int family,
		   int type, int protocol) __must_check;
void inet_sock_fini(struct inet_sock *is);
bool inet_is4(const struct in6_addr *ip); /* ::ffff:… */
bool inet_is_any(const struct in6_addr *ip);
bool inet_is_loopback(const struct in6_addr *ip); /* 127.0.0.0/8, ::1 */
bool inet_is_multicast(const struct in6_addr *ip);
bool inet_is_broadcast(const struct in6_addr *ip); /* 127.255.255.255, 255.255.255.255 */
/*
 * Reads a sockaddr of @is's family as a destination: 0, -EINVAL or -EAFNOSUPPORT. An IPv4 address
 * given to a UDP socket of IPv6 is taken, too.
 */
int inet_addr_parse(const struct inet_sock *is, const struct sockaddr_storage *ss, int len,
		    struct inet_addr *out);
/* The sockaddr of @addr as @is's family has it; its length. */
int inet_addr_show(const struct inet_sock *is, const struct inet_addr *addr,
		   struct sockaddr_storage *ss);
/*
 * Where bytes to *@dst go. An address of no interface of ours: -ENETUNREACH. "Any" becomes the
 * loopback address, and *@src, while it is "any", the address they come from.
 */
int inet_route(const struct inet_sock *is, struct in6_addr *dst, struct in6_addr *src);
int inet_bind_addr(struct task *t, struct sock *sk, const struct sockaddr_storage *ss, int len);
int inet_getname(struct sock *sk, struct sockaddr_storage *ss, bool peer);
void inet_peercred(struct sock *sk, struct scm_cred *cred); /* nobody */
void inet_count(struct net_ns *net, size_t bytes);	    /* in /proc/net/dev */

/* ---- socket_inet_port.c ---- */
enum inet_proto inet_proto_of(const struct inet_sock *is);
/*
 * Binds @is to @port (0: a free one) for is->rcv. sk.lock held. 0, -EADDRINUSE. @is->local.port is
 * set.
 */
int inet_port_get(struct inet_sock *is, uint16_t port);
/* A port for connecting to is->peer from is->rcv. sk.lock held. 0 or -EADDRNOTAVAIL. */
int inet_port_get_connect(struct inet_sock *is);
/* What it is found by has changed: is->rcv, is->peer. sk.lock held. */
void inet_port_update(struct inet_sock *is);
/* Gives the port back. sk.lock held, or the last reference. */
void inet_port_put(struct inet_sock *is);
/* The same, but the place is taken for INET_TW_SECONDS more. */
void inet_port_time_wait(struct inet_sock *is);
/* A connection's end @is shares the port of @from. sk.lock of @from held. */
void inet_port_inherit(struct inet_sock *is, const struct inet_sock *from);
/* From now on connections find it. sk.lock held. 0 or -EADDRINUSE. */
int inet_port_listen(struct inet_sock *is);
void inet_port_unlisten(struct inet_sock *is);
/* Who gets a connection from @src to @dst: a reference or NULL. */
struct inet_sock *inet_find_listener(struct net_ns *net, const struct inet_addr *dst,
				     const struct inet_addr *src);
/* Who gets a datagram. */
struct inet_sock *inet_find_udp(struct net_ns *net, enum inet_proto proto,
				const struct inet_addr *dst, const struct inet_addr *src);
/* The @n-th of all who get a datagram to a group or to everybody. */
struct inet_sock *inet_find_udp_nth(struct net_ns *net, enum inet_proto proto,
				    const struct inet_addr *dst, const struct inet_addr *src,
				    unsigned int n);
/* Is @is a member of @group, or does it hear all groups' datagrams? net->lock held. */
bool inet_mcast_member(const struct inet_sock *is, const struct in6_addr *group);

/* ---- socket_inet_tcp.c ---- */
struct tcp_sock *tcp_alloc(struct net_ns *net, int family);
int tcp_create(struct task *t, int family, struct sock **out);
/*
 * Starts connecting to @dst. 0: established or (state TCP_SYN_SENT) waiting for the listener's
 * backlog; -ECONNREFUSED, …
 */
int tcp_start_connect(struct tcp_sock *ts, const struct inet_addr *dst);
int tcp_listen_start(struct tcp_sock *ts, int backlog, uid_t uid);
/* A reset has come from the peer. No locks held. */
void tcp_reset(struct tcp_sock *ts);
int tcp_shutdown(struct sock *sk, int how);
/* @abort: resets the peer whatever there is. */
void tcp_close(struct tcp_sock *ts, bool abort);
void tcp_state_wake(struct tcp_sock *ts);

/* ---- socket_inet_tcp_data.c ---- */
ssize_t tcp_sendmsg(struct task *t, struct sock *sk, struct sock_msg *msg);
ssize_t tcp_recvmsg(struct task *t, struct sock *sk, struct sock_msg *msg);
uint32_t tcp_poll(struct sock *sk);
long tcp_ioctl(const struct vfs_ctx *ctx, struct sock *sk, unsigned int cmd, unsigned long arg);
void tcp_drop_queue(struct tcp_sock *ts); /* sk.lock held, or the last reference */
/* Sent and beyond what the receiver's window takes. */
size_t tcp_unsent(struct tcp_sock *ts);

/* ---- socket_inet_udp.c ---- */
/* @protocol: IPPROTO_UDP or IPPROTO_UDPLITE, which differ in nothing that shows on loopback. */
int udp_create(struct task *t, int family, int protocol, struct sock **out);
/* UDP_CORK; off sends what has been held back. */
void udp_set_cork(struct udp_sock *us, bool on);

/* ---- socket_inet_opt.c ---- */
long inet_setsockopt(struct task *t, struct sock *sk, int level, int name, uaddr_t val, int len);
long inet_getsockopt(struct task *t, struct sock *sk, int level, int name, uaddr_t val,
		     uaddr_t ulen);

/* ---- socket_inet_cmsg.c ---- */
/* Control messages of a datagram, in and out. */
int inet_parse_cmsg(struct task *t, struct sock *sk, struct sock_msg *msg, int level, int type,
		    uaddr_t data, size_t len);
void inet_put_cmsgs(struct task *t, struct sock *sk, struct sock_msg *msg, struct control_out *c);

/* ---- for /proc/net ---- */
struct inet_row {
	int family, state;
	struct inet_addr local, peer;
	size_t tx, rx;
	uid_t uid;
	uint64_t ino;
	unsigned int refs, drops, backlog;
};
/* All sockets of @proto in the table: a kmalloc'd array and its length. ERR_PTR(-ENOMEM). */
struct inet_row *inet_rows(struct net_ns *net, enum inet_proto proto, size_t *n);

#endif
