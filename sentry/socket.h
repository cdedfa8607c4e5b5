/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets. socket.c has what every family shares: the file, options, time limits, control messages
 * in and out (socket_scm.c). A family is a struct sock_family in its table and a struct sock_ops;
 * AF_UNIX is socket_unix*.c, AF_INET and AF_INET6 are socket_inet*.c, AF_NETLINK is
 * socket_netlink.c.
 *
 * A sock is held by its file and by whoever the family lets point at it (a peer, a queue).
 */
#ifndef SENTRY_SOCKET_H
#define SENTRY_SOCKET_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "sentry/task.h"

#define SOCK_BUF_DEFAULT 212992
#define SCM_MAX_FDS	 253
#define SOCK_SNDBUF_SET	 1u
#define SOCK_RCVBUF_SET	 2u

/* Files in flight. */
struct scm_fds {
	struct list_head node; /* of a list to be dropped */
	unsigned int n;
	bool counted; /* in the in-flight counts of the sockets among them */
	struct file *files[];
};

struct scm_cred {
	struct pid *pid; /* reference, or NULL */
	uid_t uid;
	gid_t gid;
};

/* What goes along with the bytes. */
struct scm {
	struct scm_fds *fds;
	bool have_cred;
	struct scm_cred cred;
};

/*
 * What the control messages of an IP datagram say. Sent: where from and how; received: where to,
 * how and when.
 */
struct sock_ipinfo {
	bool have_addr, have_ttl, have_tos, have_stamp;
	struct in6_addr addr;
	int ifindex, ttl, tos;
	struct timespec stamp;
	uint32_t drops;
	/* MSG_ERRQUEUE: an error that came back, and whom it came from. */
	int err;
	struct in6_addr offender;
};

struct sock_msg {
	struct iov_iter iter;
	struct sockaddr_storage name;
	int namelen; /* send: 0: none; receive: filled in */
	struct scm scm;
	unsigned int flags;	/* MSG_* */
	unsigned int out_flags; /* MSG_TRUNC, MSG_CTRUNC, MSG_EOR */
	/* With -EAGAIN: a sock (reference) whose queue is to be waited on for EPOLLOUT, or NULL. */
	struct sock *wait_for;
	struct sock_ipinfo ip;
};

/* Control messages on their way out. */
struct control_out {
	uaddr_t addr;
	size_t len, used;
	bool truncated;
};

struct sock;
struct sock_ops {
	/* @addr has @len bytes and at least a family. */
	int (*bind)(struct task *t, struct sock *sk, const struct sockaddr_storage *addr, int len);
	/* May wait unless @nonblock. */
	int (*connect)(struct task *t, struct sock *sk, const struct sockaddr_storage *addr,
		       int len, bool nonblock);
	int (*listen)(struct task *t, struct sock *sk, int backlog);
	/* The next connection with a reference, ERR_PTR(-EAGAIN) or another error. */
	struct sock *(*accept)(struct sock *sk);
	/* Its length. The peer of a socket without a file is told even if it is gone (accept). */
	int (*getname)(struct sock *sk, struct sockaddr_storage *addr, bool peer);
	/* Don't wait. What send takes of msg->scm it clears there. */
	ssize_t (*sendmsg)(struct task *t, struct sock *sk, struct sock_msg *msg);
	ssize_t (*recvmsg)(struct task *t, struct sock *sk, struct sock_msg *msg);
	int (*shutdown)(struct sock *sk, int how);
	/* SO_PEERCRED; NULL: no such thing. */
	void (*peercred)(struct sock *sk, struct scm_cred *cred);
	bool (*listening)(struct sock *sk);
	long (*ioctl)(const struct vfs_ctx *ctx, struct sock *sk, unsigned int cmd,
		      unsigned long arg);
	uint32_t (*poll)(struct sock *sk);
	/*
	 * Options of the family's own, asked before socket.c's. -ENOIOCTLCMD: not one of them.
	 * NULL: there are none.
	 */
	long (*setsockopt)(struct task *t, struct sock *sk, int level, int name, uaddr_t val,
			   int len);
	long (*getsockopt)(struct task *t, struct sock *sk, int level, int name, uaddr_t val,
			   uaddr_t ulen);
	/* A control message of another level than SOL_SOCKET; and those that go with a message. */
	int (*parse_cmsg)(struct task *t, struct sock *sk, struct sock_msg *msg, int level,
			  int type, uaddr_t data, size_t len);
	void (*put_cmsgs)(struct task *t, struct sock *sk, struct sock_msg *msg,
			  struct control_out *c);
	/* The file is gone. */
	void (*release)(struct sock *sk);
	/* The last reference is gone. */
	void (*free)(struct sock *sk);
};

struct sock {
	struct refcount refs;
	const struct sock_ops *ops;
	int family, type, protocol; /* const */
	struct file *file;	    /* borrowed; NULL before accept and after release */
	uint64_t ino;		    /* of the file, once it has one */
	struct waitq wq;
	struct mutex lock; /* LOCK_STREAM, guards the family's state and all below */
	int err;	   /* pending error, positive */
	int sndbuf, rcvbuf;
	unsigned int bufs_set; /* SOCK_SNDBUF_SET, SOCK_RCVBUF_SET: by the program */
	bool passcred, reuseaddr, reuseport, keepalive, broadcast, oobinline, timestamp;
	int priority, rcvlowat;
	struct linger linger;
	struct timeval rcvtimeo, sndtimeo;
};

struct sock_family {
	int family;
	int (*create)(struct task *t, int type, int protocol, struct sock **out);
	int (*pair)(struct task *t, int type, int protocol, struct sock **a, struct sock **b);
};
extern const struct sock_family unix_family, inet_family, inet6_family, netlink_family;

/* ---- socket.c ---- */
void sock_init(struct sock *sk, const struct sock_ops *ops, int family, int type, int protocol);
void sock_fini(struct sock *sk);
struct sock *sock_get(struct sock *sk);
void sock_put(struct sock *sk);
/* The sock behind @file (borrowed), or NULL. */
struct sock *sock_of(const struct file *file);
/* NULL: -EAFNOSUPPORT. */
const struct sock_family *sock_family_find(int family);
/* A file over @sk (reference consumed, on failure too). @flags: O_NONBLOCK. */
struct file *sock_file(struct task *t, struct sock *sk, unsigned int flags);
/* SO_RCVTIMEO or SO_SNDTIMEO from now on: false: none. */
bool sock_deadline(struct task *t, struct sock *sk, bool send, struct timespec *deadline);
/* send(2) and recv(2) that wait, as the calls have it. @nonblock beside MSG_DONTWAIT. */
ssize_t sock_send(struct task *t, struct sock *sk, struct sock_msg *msg, bool nonblock);
ssize_t sock_recv(struct task *t, struct sock *sk, struct sock_msg *msg, bool nonblock);
/*
 * Copies a message of @len bytes to who receives it: what there is room for, with MSG_TRUNC if that
 * isn't all. Returns the bytes copied, or @len if they asked with MSG_TRUNC; -EFAULT.
 */
ssize_t sock_msg_store(struct sock_msg *msg, const void *data, size_t len);
/* Takes the pending error: -errno or 0. */
int sock_take_error(struct sock *sk);
/* @signo to whom F_SETOWN of @file's named (owner as of struct file). No locks held. */
void sock_signal_owner(int owner_type, pid_t owner, int signo);
long sock_setsockopt(struct task *t, struct sock *sk, int level, int name, uaddr_t val, int len);
long sock_getsockopt(struct task *t, struct sock *sk, int level, int name, uaddr_t val,
		     uaddr_t ulen);

/* ---- socket_scm.c ---- */
/* Control messages of a sendmsg. 0 or -errno; msg->scm is to be released either way. */
int scm_parse(struct task *t, struct sock *sk, uaddr_t control, size_t len, struct sock_msg *msg);
void scm_release(struct scm *scm);
/* The caller's own credentials. */
void scm_cred_self(struct task *t, struct scm_cred *cred);
/*
 * Stores what came along at @control, which has @len bytes; descriptors are installed. Returns the
 * bytes used; sets MSG_CTRUNC.
 */
size_t scm_deliver(struct task *t, struct sock *sk, struct sock_msg *msg, uaddr_t control,
		   size_t len);
/* Adds one control message. */
void control_put(struct task *t, struct control_out *c, int level, int type, const void *data,
		 size_t len);
/* A copy with references of its own, or NULL. */
struct scm_fds *scm_fds_copy(const struct scm_fds *fds);
/* Queued: the files are in flight now. -ETOOMANYREFS. */
int scm_fds_attach(struct scm_fds *fds);
/* Taken off a queue. */
void scm_fds_detach(struct scm_fds *fds);
/* Drops the files (and detaches). No locks held. */
void scm_fds_drop(struct scm_fds *fds);

/* ---- in-flight sockets of AF_UNIX (socket_gc.c) ---- */
struct unix_sock;
void unix_inflight_add(struct file *file);
void unix_inflight_sub(struct file *file);
/* Frees sockets that only sockets in flight refer to. No locks held. */
void unix_gc(void);

#endif
