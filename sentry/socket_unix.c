/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_UNIX: names and connections, unix(7).
 *
 *   new ──listen──▶ listening
 *   new ──connect, socketpair, accept──▶ connected ──peer closes──▶ both directions shut down
 *
 * connect makes the other end at once: a socket without a file on the listener's pending list,
 * which accept takes off. A stream's two ends hold each other until one's file is released. A
 * datagram socket that is connected is on its peer's `senders` list, to be woken when that has room
 * again.
 *
 * A name is a socket inode (inode->socket, under the inode's lock) or an abstract one in the
 * network namespace's list (under its lock); the bound socket takes itself off when its file is
 * released.
 */
#include "sentry/socket_unix.h"

#include <asm/ioctls.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls.h"
#include "vfs/strbuf.h"

OBJTYPE(unix_type, "unix_sock")

#define SUN_HEAD      ((int)offsetof(struct sockaddr_un, sun_path))
#define SOMAXCONN_MAX 4096u

#define EV_ALL (EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM | EPOLLRDHUP | EPOLLERR | EPOLLHUP)

static const struct sock_ops unix_ops;

static struct mutex all_lock = {.m = PTHREAD_MUTEX_INITIALIZER,
#ifdef LOCK_DEBUG
				.rank = LOCK_OBJECT
#endif
};
static struct list_head all = LIST_HEAD_INIT(all); /* under all_lock */

static struct unix_sock *unix_alloc(int type, uint64_t net_ino)
{
	struct unix_sock *u = kzalloc(sizeof(*u));

	if (!u)
		return NULL;
	sock_init(&u->sk, &unix_ops, AF_UNIX, type, 0);
	list_init(&u->abstract_node);
	list_init(&u->queue);
	list_init(&u->pending);
	list_init(&u->pending_node);
	list_init(&u->senders);
	list_init(&u->sender_node);
	list_init(&u->inflight_node);
	u->peercred.uid = u->peercred.gid = (uid_t)-1;
	u->net_ino = net_ino;
	mutex_lock(&all_lock);
	list_add_tail(&u->all_node, &all);
	mutex_unlock(&all_lock);
	objtype_inc(&unix_type);
	return u;
}

static void unix_free(struct sock *sk)
{
	struct unix_sock *u = unix_of(sk);

	mutex_lock(&all_lock);
	list_del(&u->all_node);
	mutex_unlock(&all_lock);
	unix_addr_put(u->addr);
	pid_put(u->cred.pid);
	pid_put(u->peercred.pid);
	sock_fini(sk);
	objtype_dec(&unix_type);
	kfree(u);
}

/* A name stays as long as its socket, and that as long as it is in the list. */
void unix_show_all(struct strbuf *b, const struct net_ns *net)
{
	struct unix_sock *u;

	mutex_lock(&all_lock);
	list_for_each_entry (u, &all, all_node) {
		const struct unix_addr *addr = u->addr;
		bool connected = u->state == UNIX_CONNECTED;

		if (!net || u->net_ino != net->ino)
			continue;
		strbuf_printf(b, "%016lx: %08X %08X %08X %04X %02X %5lu", 0UL,
			      refcount_read(&u->sk.refs) + 1, 0,
			      u->state == UNIX_LISTEN ? 0x10000 : 0, (unsigned int)u->sk.type,
			      connected ? 3 : 1, u->sk.ino);
		if (addr && addr->sun.sun_path[0]) {
			strbuf_printf(b, " %s", addr->sun.sun_path);
		} else if (addr) {
			strbuf_printf(b, " ");
			for (int i = 0; i < addr->len - SUN_HEAD; i++)
				strbuf_printf(b, "%c", addr->sun.sun_path[i] ?: '@');
		}
		strbuf_printf(b, "\n");
	}
	mutex_unlock(&all_lock);
}

/* ---- names ---- */

struct unix_addr *unix_addr_get(struct unix_addr *addr)
{
	refcount_get(&addr->refs);
	return addr;
}

void unix_addr_put(struct unix_addr *addr)
{
	if (addr && refcount_put(&addr->refs))
		kfree(addr);
}

static struct unix_addr *addr_alloc(const void *sun, int len)
{
	struct unix_addr *addr = kzalloc(sizeof(*addr));

	if (!addr)
		return NULL;
	refcount_init(&addr->refs, 1);
	addr->len = len;
	memcpy(&addr->sun, sun, (size_t)MIN(len, (int)sizeof(addr->sun)));
	return addr;
}

static bool addr_is_abstract(const struct unix_addr *addr)
{
	return !addr->sun.sun_path[0];
}

/* Checks a name from outside and makes a terminated path of it. 0 or -EINVAL. */
static int addr_check(const struct sockaddr_storage *ss, int len, struct unix_addr *out)
{
	memset(out, 0, sizeof(*out));
	if (len <= SUN_HEAD || len > (int)sizeof(struct sockaddr_un) || ss->ss_family != AF_UNIX)
		return -EINVAL;
	memcpy(&out->sun, ss, (size_t)len);
	if (out->sun.sun_path[0])
		len = SUN_HEAD + (int)strnlen(out->sun.sun_path, (size_t)(len - SUN_HEAD)) + 1;
	out->len = len;
	return 0;
}

/* net->lock held. */
static struct unix_sock *abstract_find(struct net_ns *net, const struct unix_addr *addr, int type)
{
	struct unix_sock *u, *other = NULL;

	list_for_each_entry (u, &net->abstract, abstract_node) {
		if (u->addr->len != addr->len ||
		    memcmp(&u->addr->sun, &addr->sun, (size_t)addr->len))
			continue;
		if (u->sk.type == type)
			return u;
		other = u;
	}
	return other;
}

static struct unix_sock *find_path(struct task *t, const char *name)
{
	struct unix_sock *u;
	struct path path;
	int err = path_lookup(&t->vfs, NULL, name, WALK_FOLLOW, &path);

	if (err)
		return ERR_PTR(err);
	u = ERR_PTR(inode_permission(&t->vfs, path.dentry->inode, MAY_WRITE));
	if (!u) {
		struct inode *inode = path.dentry->inode;

		u = ERR_PTR(-ECONNREFUSED);
		read_lock(&inode->lock);
		if (S_ISSOCK(inode->mode) && inode->socket)
			u = unix_get(inode->socket);
		read_unlock(&inode->lock);
	}
	path_put(&path);
	return u;
}

struct unix_sock *unix_find(struct task *t, const struct sockaddr_storage *ss, int len, int type)
{
	struct unix_addr addr;
	struct unix_sock *u;
	int err = addr_check(ss, len, &addr);

	if (err)
		return ERR_PTR(err);
	if (addr_is_abstract(&addr)) {
		mutex_lock(&t->net->lock);
		u = abstract_find(t->net, &addr, type);
		u = u ? unix_get(u) : ERR_PTR(-ECONNREFUSED);
		mutex_unlock(&t->net->lock);
	} else {
		u = find_path(t, addr.sun.sun_path);
	}
	if (!IS_ERR(u) && u->sk.type != type) {
		unix_put(u);
		return ERR_PTR(-EPROTOTYPE);
	}
	return u;
}

/* Gives @u the abstract name @addr (reference consumed). 0, -EADDRINUSE or -EINVAL. */
static int bind_abstract(struct task *t, struct unix_sock *u, struct unix_addr *addr)
{
	struct net_ns *net = t->net;
	struct unix_sock *other;
	int err = 0;

	mutex_lock(&u->sk.lock);
	mutex_lock(&net->lock);
	other = abstract_find(net, addr, u->sk.type);
	if (u->addr) {
		err = -EINVAL;
	} else if (other && other->sk.type == u->sk.type) {
		err = -EADDRINUSE;
	} else {
		u->addr = addr;
		u->net = net_ns_get(net);
		list_add_tail(&u->abstract_node, &net->abstract);
	}
	mutex_unlock(&net->lock);
	mutex_unlock(&u->sk.lock);
	if (err)
		unix_addr_put(addr);
	return err;
}

int unix_autobind(struct task *t, struct unix_sock *u)
{
	static _Atomic unsigned int next;
	int err = -EADDRINUSE;

	for (int tries = 0; err == -EADDRINUSE && tries < 1 << 20; tries++) {
		struct sockaddr_un sun = {.sun_family = AF_UNIX};
		struct unix_addr *addr;
		char text[8];

		snprintf(text, sizeof(text), "%05x", atomic_fetch_add(&next, 1) & 0xfffff);
		memcpy(sun.sun_path + 1, text, 5);
		addr = addr_alloc(&sun, SUN_HEAD + 6);
		if (!addr)
			return -ENOMEM;
		err = bind_abstract(t, u, addr);
	}
	return err == -EINVAL && u->addr ? 0 : err;
}

static int bind_path(struct task *t, struct unix_sock *u, struct unix_addr *addr)
{
	struct path path;
	int err = vfs_mknod(&t->vfs, NULL, addr->sun.sun_path, S_IFSOCK | 0777, 0);

	if (err)
		return err == -EEXIST ? -EADDRINUSE : err;
	err = path_lookup(&t->vfs, NULL, addr->sun.sun_path, 0, &path);
	if (err)
		return err;
	write_lock(&path.dentry->inode->lock);
	mutex_lock(&u->sk.lock);
	if (u->addr) {
		err = -EINVAL;
	} else if (!S_ISSOCK(path.dentry->inode->mode) || path.dentry->inode->socket) {
		err = -EADDRINUSE;
	} else {
		u->inode = inode_get(path.dentry->inode);
		u->inode->socket = u;
		u->addr = unix_addr_get(addr);
	}
	mutex_unlock(&u->sk.lock);
	write_unlock(&path.dentry->inode->lock);
	path_put(&path);
	return err;
}

static int unix_bind(struct task *t, struct sock *sk, const struct sockaddr_storage *ss, int len)
{
	struct unix_sock *u = unix_of(sk);
	struct unix_addr checked, *addr;
	int err;

	if (ss->ss_family != AF_UNIX)
		return -EINVAL;
	if (len == SUN_HEAD)
		return u->addr ? -EINVAL : unix_autobind(t, u);
	err = addr_check(ss, len, &checked);
	if (err)
		return err;
	if (u->addr)
		return -EINVAL;
	addr = addr_alloc(&checked.sun, checked.len);
	if (!addr)
		return -ENOMEM;
	if (addr_is_abstract(addr))
		return bind_abstract(t, u, addr);
	err = bind_path(t, u, addr);
	unix_addr_put(addr);
	return err;
}

static int unix_getname(struct sock *sk, struct sockaddr_storage *out, bool peer)
{
	struct unix_sock *u = unix_of(sk), *of = NULL;
	struct unix_addr *addr = NULL;
	int len = SUN_HEAD;

	mutex_lock(&u->sk.lock);
	if (peer)
		of = u->peer ? unix_get(u->peer) : NULL;
	else
		addr = u->addr ? unix_addr_get(u->addr) : NULL;
	mutex_unlock(&u->sk.lock);
	if (peer) {
		if (!of)
			return -ENOTCONN;
		mutex_lock(&of->sk.lock);
		addr = of->addr ? unix_addr_get(of->addr) : NULL;
		mutex_unlock(&of->sk.lock);
		unix_put(of);
	}
	memset(out, 0, sizeof(*out));
	out->ss_family = AF_UNIX;
	if (addr) {
		len = addr->len;
		memcpy(out, &addr->sun, sizeof(addr->sun));
	}
	unix_addr_put(addr);
	return len;
}

/* ---- connecting ---- */

static void cred_copy(struct scm_cred *to, const struct scm_cred *from)
{
	pid_put(to->pid);
	*to = *from;
	if (to->pid)
		pid_get(to->pid);
}

static int unix_listen(struct task *t, struct sock *sk, int backlog)
{
	struct unix_sock *u = unix_of(sk);
	struct scm_cred cred;
	int err = 0;

	if (sk->type == SOCK_DGRAM)
		return -EOPNOTSUPP;
	scm_cred_self(t, &cred);
	cred.uid = t->vfs.cred->euid;
	cred.gid = t->vfs.cred->egid;
	mutex_lock(&sk->lock);
	if (!u->addr || u->state == UNIX_CONNECTED) {
		err = -EINVAL;
	} else {
		u->state = UNIX_LISTEN;
		u->backlog = MIN((unsigned int)backlog, SOMAXCONN_MAX);
		cred_copy(&u->cred, &cred);
	}
	mutex_unlock(&sk->lock);
	pid_put(cred.pid);
	if (!err)
		waitq_wake(&sk->wq, EPOLLOUT);
	return err;
}

/* Puts the new end @end of @u's connection on @to's list. 0, -ECONNREFUSED, -EAGAIN: it is full. */
static int offer(struct unix_sock *to, struct unix_sock *u, struct unix_sock *end)
{
	int err = 0;

	mutex_lock(&to->sk.lock);
	if (to->state != UNIX_LISTEN || to->dead || to->shut_rd) {
		err = -ECONNREFUSED;
	} else if (to->npending > to->backlog) {
		err = -EAGAIN;
	} else {
		end->addr = unix_addr_get(to->addr);
		end->sk.passcred = to->sk.passcred;
		cred_copy(&u->peercred, &to->cred);
		list_add_tail(&end->pending_node, &to->pending);
		to->npending++;
	}
	mutex_unlock(&to->sk.lock);
	return err;
}

/* One try. */
static int connect_stream(struct task *t, struct unix_sock *u, struct unix_sock *to)
{
	struct unix_sock *end = unix_alloc(u->sk.type, u->net_ino);
	struct scm_cred cred;
	int err = 0;

	if (!end)
		return -ENOMEM;
	scm_cred_self(t, &cred);
	cred.uid = t->vfs.cred->euid;
	cred.gid = t->vfs.cred->egid;
	end->peercred = cred;
	end->state = UNIX_CONNECTED;
	mutex_lock(&unix_topology);
	/* Linked before it is offered, undone if it isn't taken: accept may be that quick. */
	mutex_lock_nested(&u->sk.lock);
	if (u->state == UNIX_CONNECTED)
		err = -EISCONN;
	else if (u->state == UNIX_LISTEN)
		err = -EINVAL;
	if (!err) {
		u->peer = unix_get(end);
		u->state = UNIX_CONNECTED;
		end->peer = unix_get(u);
	}
	mutex_unlock(&u->sk.lock);
	mutex_unlock(&unix_topology);
	if (err) {
		unix_put(end);
		return err;
	}
	err = offer(to, u, end);
	if (err) {
		mutex_lock(&u->sk.lock);
		u->peer = NULL;
		u->state = UNIX_NEW;
		mutex_unlock(&u->sk.lock);
		unix_put(end->peer);
		end->peer = NULL;
		unix_put(end); /* u's */
		unix_put(end);
		return err;
	}
	waitq_wake(&to->sk.wq, EPOLLIN | EPOLLRDNORM);
	waitq_wake(&u->sk.wq, EPOLLOUT | EPOLLWRNORM);
	return 0;
}

static int connect_stream_wait(struct task *t, struct unix_sock *u,
			       const struct sockaddr_storage *ss, int len, bool nonblock)
{
	struct timespec deadline;
	bool timed = sock_deadline(t, &u->sk, true, &deadline);

	for (;;) {
		struct unix_sock *to = unix_find(t, ss, len, u->sk.type);
		struct task_waiter tw;
		int err, blocked = 0;

		if (IS_ERR(to))
			return (int)PTR_ERR(to);
		task_waiter_init(&tw, t, EPOLLOUT);
		task_block_prepare(t);
		waitq_add(&to->sk.wq, &tw.w);
		err = connect_stream(t, u, to);
		if (err == -EAGAIN && !nonblock)
			blocked = task_block(t, CLOCK_MONOTONIC, timed ? &deadline : NULL);
		waitq_remove(&tw.w);
		unix_put(to);
		if (err != -EAGAIN || nonblock)
			return err;
		if (blocked)
			return blocked == -ETIMEDOUT ? -EAGAIN : timed ? -EINTR : blocked;
	}
}

static int connect_dgram(struct task *t, struct unix_sock *u, const struct sockaddr_storage *ss,
			 int len)
{
	struct unix_sock *to = NULL, *old;

	if (ss->ss_family != AF_UNSPEC) {
		to = unix_find(t, ss, len, SOCK_DGRAM);
		if (IS_ERR(to))
			return (int)PTR_ERR(to);
		mutex_lock(&to->sk.lock);
		if (to->peer && to->peer != u) {
			mutex_unlock(&to->sk.lock);
			unix_put(to);
			return -EPERM;
		}
		mutex_unlock(&to->sk.lock);
	}
	mutex_lock(&unix_topology);
	mutex_lock_nested(&u->sk.lock);
	old = u->peer;
	list_del(&u->sender_node);
	u->peer = to;
	u->state = to ? UNIX_CONNECTED : UNIX_NEW;
	mutex_unlock(&u->sk.lock);
	if (to)
		list_add_tail(&u->sender_node, &to->senders);
	mutex_unlock(&unix_topology);
	unix_put(old);
	waitq_wake(&u->sk.wq, EPOLLOUT);
	return 0;
}

static int unix_connect(struct task *t, struct sock *sk, const struct sockaddr_storage *ss, int len,
			bool nonblock)
{
	struct unix_sock *u = unix_of(sk);
	int err;

	if (ss->ss_family == AF_UNSPEC && sk->type == SOCK_DGRAM)
		return connect_dgram(t, u, ss, len);
	if (len <= SUN_HEAD || ss->ss_family != AF_UNIX)
		return -EINVAL;
	if (sk->passcred && !u->addr) {
		err = unix_autobind(t, u);
		if (err)
			return err;
	}
	return sk->type == SOCK_DGRAM ? connect_dgram(t, u, ss, len)
				      : connect_stream_wait(t, u, ss, len, nonblock);
}

static struct sock *unix_accept(struct sock *sk)
{
	struct unix_sock *u = unix_of(sk), *end = NULL;
	int err = -EAGAIN;

	if (sk->type == SOCK_DGRAM)
		return ERR_PTR(-EOPNOTSUPP);
	mutex_lock(&sk->lock);
	if (u->state != UNIX_LISTEN || u->shut_rd) {
		err = -EINVAL;
	} else if (!list_empty(&u->pending)) {
		end = list_first_entry(&u->pending, struct unix_sock, pending_node);
		list_del(&end->pending_node);
		u->npending--;
	}
	mutex_unlock(&sk->lock);
	if (!end)
		return ERR_PTR(err);
	waitq_wake(&sk->wq, EPOLLOUT);
	return &end->sk;
}

/* ---- shutting down ---- */

static void shut_locked(struct unix_sock *u, bool rd, bool wr)
{
	u->shut_rd |= rd;
	u->shut_wr |= wr;
}

static int unix_shutdown(struct sock *sk, int how)
{
	bool rd = how == SHUT_RD || how == SHUT_RDWR, wr = how == SHUT_WR || how == SHUT_RDWR;
	struct unix_sock *u = unix_of(sk), *peer;

	mutex_lock(&sk->lock);
	shut_locked(u, rd, wr);
	peer = u->peer && sk->type != SOCK_DGRAM ? unix_get(u->peer) : NULL;
	mutex_unlock(&sk->lock);
	waitq_wake(&sk->wq, EV_ALL);
	if (peer) {
		mutex_lock(&peer->sk.lock);
		shut_locked(peer, wr, rd);
		mutex_unlock(&peer->sk.lock);
		waitq_wake(&peer->sk.wq, EV_ALL);
		unix_put(peer);
	}
	return 0;
}

static void unbind(struct unix_sock *u)
{
	if (u->net) {
		mutex_lock(&u->net->lock);
		list_del(&u->abstract_node);
		mutex_unlock(&u->net->lock);
		net_ns_put(u->net);
		u->net = NULL;
	}
	if (u->inode) {
		write_lock(&u->inode->lock);
		u->inode->socket = NULL;
		write_unlock(&u->inode->lock);
		inode_put(u->inode);
		u->inode = NULL;
	}
}

/* Ends @u's connection: tells the peer. @reset: it loses something. */
static void hang_up(struct unix_sock *u, struct unix_sock *peer, bool reset)
{
	if (u->sk.type != SOCK_DGRAM) {
		mutex_lock(&peer->sk.lock);
		shut_locked(peer, true, true);
		if (reset)
			peer->sk.err = ECONNRESET;
		mutex_unlock(&peer->sk.lock);
		waitq_wake(&peer->sk.wq, EV_ALL);
	}
	unix_put(peer);
}

/* The end of @u: its file is gone, or it was never accepted (@embryo). */
static void unix_close(struct unix_sock *u, bool embryo)
{
	struct list_head queue = LIST_HEAD_INIT(queue), pending = LIST_HEAD_INIT(pending);
	struct unix_sock *peer;
	bool reset;

	unbind(u);
	mutex_lock(&unix_topology);
	mutex_lock_nested(&u->sk.lock);
	u->dead = true;
	u->sk.file = NULL;
	shut_locked(u, true, true);
	peer = u->peer;
	u->peer = NULL;
	reset = embryo || !list_empty(&u->queue);
	list_splice_tail(&u->queue, &queue);
	list_splice_tail(&u->pending, &pending);
	u->rx_msgs = 0;
	u->rx_bytes = 0;
	list_del(&u->sender_node);
	mutex_unlock(&u->sk.lock);
	mutex_unlock(&unix_topology);

	waitq_wake(&u->sk.wq, EV_ALL);
	if (peer)
		hang_up(u, peer, reset);
	unix_wake_senders(u);
	while (!list_empty(&pending)) {
		struct unix_sock *end = list_first_entry(&pending, struct unix_sock, pending_node);

		list_del(&end->pending_node);
		unix_close(end, true);
		unix_put(end);
	}
	while (!list_empty(&queue)) {
		struct unix_buf *b = list_first_entry(&queue, struct unix_buf, node);

		list_del(&b->node);
		unix_buf_free(b);
	}
	/*
	 * Whoever has it as a peer puts it; nobody may find it as a sender's target's list any
	 * more.
	 */
	mutex_lock(&unix_topology);
	while (!list_empty(&u->senders)) {
		struct unix_sock *s = list_first_entry(&u->senders, struct unix_sock, sender_node);

		list_del(&s->sender_node);
	}
	mutex_unlock(&unix_topology);
}

static void unix_release(struct sock *sk)
{
	unix_close(unix_of(sk), false);
	unix_gc();
}

/* ---- the rest of the operations ---- */

static uint32_t unix_poll(struct sock *sk)
{
	struct unix_sock *u = unix_of(sk), *peer = NULL;
	bool writable = unix_writable(u);
	uint32_t ev = 0;

	mutex_lock(&sk->lock);
	if (sk->err)
		ev |= EPOLLERR;
	if (u->shut_rd && u->shut_wr)
		ev |= EPOLLHUP;
	if (u->shut_rd)
		ev |= EPOLLRDHUP | EPOLLIN | EPOLLRDNORM;
	if (!list_empty(&u->queue) || !list_empty(&u->pending))
		ev |= EPOLLIN | EPOLLRDNORM;
	if (sk->type != SOCK_DGRAM && u->state == UNIX_NEW)
		ev |= EPOLLHUP;
	if (sk->type == SOCK_DGRAM && u->peer)
		peer = unix_get(u->peer);
	if (u->state == UNIX_LISTEN)
		writable = false;
	mutex_unlock(&sk->lock);
	if (peer) {
		mutex_lock(&peer->sk.lock);
		if (peer->peer != u && unix_queue_full(peer))
			writable = false;
		mutex_unlock(&peer->sk.lock);
		unix_put(peer);
	}
	return writable ? ev | EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND : ev;
}

static long unix_ioctl(const struct vfs_ctx *ctx, struct sock *sk, unsigned int cmd,
		       unsigned long arg)
{
	struct unix_sock *u = unix_of(sk);
	int value = 0;

	switch (cmd) {
	case SIOCINQ:
		mutex_lock(&sk->lock);
		if (u->state == UNIX_LISTEN)
			value = -EINVAL;
		else if (sk->type != SOCK_DGRAM)
			value = (int)u->rx_bytes;
		else if (!list_empty(&u->queue))
			value = (int)list_first_entry(&u->queue, struct unix_buf, node)->len;
		mutex_unlock(&sk->lock);
		break;
	case SIOCOUTQ:
		value = (int)atomic_load(&u->wmem);
		break;
	default:
		return -ENOTTY;
	}
	return value < 0 ? value : copy_to_user(ctx->um, arg, &value, sizeof(value));
}

static void unix_peercred(struct sock *sk, struct scm_cred *cred)
{
	struct unix_sock *u = unix_of(sk);

	mutex_lock(&sk->lock);
	*cred = u->peercred;
	if (cred->pid)
		pid_get(cred->pid);
	mutex_unlock(&sk->lock);
}

static bool unix_listening(struct sock *sk)
{
	return unix_of(sk)->state == UNIX_LISTEN;
}

static const struct sock_ops unix_ops = {
	.bind = unix_bind,
	.connect = unix_connect,
	.listen = unix_listen,
	.accept = unix_accept,
	.getname = unix_getname,
	.sendmsg = unix_sendmsg,
	.recvmsg = unix_recvmsg,
	.shutdown = unix_shutdown,
	.peercred = unix_peercred,
	.listening = unix_listening,
	.ioctl = unix_ioctl,
	.poll = unix_poll,
	.release = unix_release,
	.free = unix_free,
};

static int check_type(int *type, int protocol)
{
	if (protocol && protocol != PF_UNIX)
		return -EPROTONOSUPPORT;
	if (*type == SOCK_RAW)
		*type = SOCK_DGRAM;
	if (*type != SOCK_STREAM && *type != SOCK_DGRAM && *type != SOCK_SEQPACKET)
		return -ESOCKTNOSUPPORT;
	return 0;
}

static int unix_create(struct task *t, int type, int protocol, struct sock **out)
{
	int err = check_type(&type, protocol);
	struct unix_sock *u;

	if (err)
		return err;
	u = unix_alloc(type, t->net->ino);
	if (!u)
		return -ENOMEM;
	*out = &u->sk;
	return 0;
}

static int unix_pair(struct task *t, int type, int protocol, struct sock **a, struct sock **b)
{
	int err = check_type(&type, protocol);
	struct unix_sock *u[2];

	if (err)
		return err;
	u[0] = unix_alloc(type, t->net->ino);
	u[1] = unix_alloc(type, t->net->ino);
	if (!u[0] || !u[1]) {
		for (int i = 0; i < 2; i++)
			unix_put(u[i]);
		return -ENOMEM;
	}
	mutex_lock(&unix_topology);
	for (int i = 0; i < 2; i++) {
		u[i]->peer = unix_get(u[!i]);
		u[i]->state = UNIX_CONNECTED;
		scm_cred_self(t, &u[i]->peercred);
		u[i]->peercred.uid = t->vfs.cred->euid;
		u[i]->peercred.gid = t->vfs.cred->egid;
		if (type == SOCK_DGRAM)
			list_add_tail(&u[i]->sender_node, &u[!i]->senders);
	}
	mutex_unlock(&unix_topology);
	*a = &u[0]->sk;
	*b = &u[1]->sk;
	return 0;
}

const struct sock_family unix_family = {
	.family = AF_UNIX,
	.create = unix_create,
	.pair = unix_pair,
};
