/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread, one poll(2) over the listening socket, the clients, and an eventfd that the ends of
 * processes and consoles post.
 *
 * A client is a connection, and the command it entered, if it did:
 *
 *	connected -> CONTROL_ENTER -> running -> the process ends -> its console has written what
 *	there was -> CONTROL_EXITED, gone
 *
 * A client whose connection is closed while its command runs stays in the list without one until
 * the command has ended. Everything here belongs to the control thread.
 */
#include "sentry/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "sentry/boot.h"
#include "sentry/console.h"
#include "sentry/control_msg.h"
#include "sentry/freezer.h"
#include "sentry/launch.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfd.h"
#include "sentry/lib/physmem.h"
#include "sentry/objects.h"
#include "sentry/snapshot.h"

#define MAX_CONNECTIONS 256
#define FINISH_MS	1000

OBJTYPE(client_type, "control client")

struct client {
	struct list_head node;
	int conn;		 /* hostfd; 0: closed */
	struct thread_group *tg; /* reference; the command, or NULL */
	struct console *console; /* reference, or NULL */
	bool stopped;		 /* the console has been told to */
	struct waiter ended;	 /* on tg->pidfd_wait */
};

/* This process's, and no part of a snapshot. */
struct control {
	struct kernel *kernel;
	int listener; /* hostfd */
	uid_t uid;    /* who may talk to us, beside root */
	struct timespec started;
	struct list_head clients;
	unsigned int nr_connections;
	struct client *holder; /* for whom the sandbox is stopped (CONTROL_HOLD), or NULL */
};

static struct control *control;
static const struct config *config; /* init's */
static pthread_t thread;
static int event; /* hostfd, for good: what still ends may post later than control_finish */
static _Atomic bool finishing;

/* From any thread, under any lock. */
static void control_post(void)
{
	uint64_t one = 1;

	(void)!write(hostfd_get(event), &one, sizeof(one));
}

static bool process_ended(struct waiter *w, uint32_t events)
{
	control_post();
	return true;
}

/* ---- replies ---- */

static void close_conn(struct client *c)
{
	if (!c->conn)
		return;
	hostfd_close(c->conn);
	c->conn = 0;
	control->nr_connections--;
}

/* A client that doesn't take its replies is as good as gone. */
static void reply_with_fd(struct client *c, struct control_msg *m, const char *text, int fd)
{
	char packet[sizeof(*m) + CONTROL_TEXT_MAX];
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int))];
	} ancillary = {.h = {.cmsg_len = CMSG_LEN(sizeof(int)),
			     .cmsg_level = SOL_SOCKET,
			     .cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {.iov_base = packet};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (!c->conn)
		return;
	m->version = CONTROL_VERSION;
	m->len = (uint32_t)strnlen(text, CONTROL_TEXT_MAX);
	memcpy(packet, m, sizeof(*m));
	memcpy(packet + sizeof(*m), text, m->len);
	iov.iov_len = sizeof(*m) + m->len;
	if (fd >= 0) {
		memcpy(CMSG_DATA(&ancillary.h), &fd, sizeof(fd));
		msg.msg_control = &ancillary;
		msg.msg_controllen = sizeof(ancillary);
	}
	/* SIGPIPE is ignored (forward.c). */
	if (sendmsg(hostfd_get(c->conn), &msg, 0) < 0)
		log_debug("control: a reply is lost: %s", strerror(errno));
}

static void reply(struct client *c, struct control_msg *m, const char *text)
{
	reply_with_fd(c, m, text, -1);
}

static void reply_ok(struct client *c)
{
	struct control_msg m = {.type = CONTROL_OK};

	reply(c, &m, "");
}

static void refuse(struct client *c, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void refuse(struct client *c, int status, const char *fmt, ...)
{
	struct control_msg m = {.type = CONTROL_FAILED, .exited.status = status};
	char text[CONTROL_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	reply(c, &m, text);
}

/* ---- processes ---- */

static bool is_zombie(struct thread_group *tg)
{
	bool zombie;

	mutex_lock(&control->kernel->tasklist);
	zombie = tg->is_zombie;
	mutex_unlock(&control->kernel->tasklist);
	return zombie;
}

/* To @tg, or its process group. False: it has ended. */
static bool signal_process(struct thread_group *tg, int signo, bool group)
{
	siginfo_t info = {.si_signo = signo, .si_code = SI_USER};
	bool alive;

	mutex_lock(&control->kernel->tasklist);
	alive = !tg->is_zombie;
	if (alive && group)
		signal_send_pgrp_locked(tg->pgrp, &info);
	else if (alive)
		(void)!signal_send_group_tasklist(tg, &info);
	mutex_unlock(&control->kernel->tasklist);
	return alive;
}

/* The command, or what has become of it, is no business of ours any more. */
static void drop_command(struct client *c)
{
	if (!c->tg)
		return;
	waitq_remove(&c->ended);
	thread_group_put(c->tg);
	c->tg = NULL;
	console_put(c->console);
	c->console = NULL;
}

static void stop_console(struct client *c)
{
	if (!c->console || c->stopped)
		return;
	c->stopped = true;
	console_stop(c->console, control_post);
}

/* The client that had the sandbox stopped wants it no more. */
static void let_go(struct client *c)
{
	if (control->holder != c)
		return;
	control->holder = NULL;
	freezer_thaw();
}

/* The line drops. */
static void hang_up(struct client *c)
{
	close_conn(c);
	let_go(c);
	if (!c->tg)
		return;
	if (c->console) {
		stop_console(c);
		console_hangup(c->console);
		return;
	}
	signal_process(c->tg, SIGHUP, true);
	signal_process(c->tg, SIGCONT, true);
}

static void client_free(struct client *c)
{
	let_go(c);
	drop_command(c);
	close_conn(c);
	list_del(&c->node);
	objtype_dec(&client_type);
	kfree(c);
}

/*
 * Whether the client is through: its connection is closed or its command has ended and all output
 * is out, which it is told.
 */
static bool settle(struct client *c)
{
	struct control_msg m = {.type = CONTROL_EXITED};

	if (!c->tg)
		return !c->conn;
	if (!is_zombie(c->tg))
		return false;
	stop_console(c);
	/* Who is gone doesn't wait for a terminal that may be stopped. */
	if (c->conn && c->console && !console_ended(c->console))
		return false;
	m.exited.status = exit_status_of(c->tg->exit_code);
	reply(c, &m, "");
	return true;
}

/* ---- CONTROL_ENTER ---- */

/* The tree behind @fd, copied: what the client does to it later is nothing to us. Malloc'd. */
static void *read_tree(int fd, size_t size)
{
	int seals = fcntl(fd, F_GET_SEALS);
	void *blob;

	/* Nothing but a memfd, which can't make us wait. */
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return NULL;
	blob = malloc(size);
	if (blob && pread(fd, blob, size, 0) != (ssize_t)size) {
		free(blob);
		blob = NULL;
	}
	return blob;
}

/* Replaces the places in @c->stdio by the descriptors, which are taken out of @fds. */
static bool place_stdio(struct config *c, int *fds, size_t nfds)
{
	unsigned int used = 0;

	for (int i = 0; i < 3; i++) {
		int at = c->stdio[i];

		if (at == -1)
			continue;
		if (at < 0 || at >= (int)nfds - 1 || (used & 1u << at))
			return false;
		used |= 1u << at;
	}
	for (int i = 0; i < 3; i++) {
		int *fd = &fds[c->stdio[i] + 1];

		if (c->stdio[i] == -1)
			continue;
		c->stdio[i] = *fd;
		*fd = -1;
	}
	return true;
}

static bool same_name(const char *a, const char *b)
{
	size_t n = strcspn(a, "=");

	return !strncmp(a, b, n) && b[n] == '=';
}

/* Init's environment with the changes of @env: a malloc'd array of borrowed strings. */
static char **merge_env(char **env)
{
	size_t nbase = 0, nmore = 0, n = 0;
	char **v;

	while (config->env[nbase])
		nbase++;
	while (env[nmore])
		nmore++;
	v = calloc(nbase + nmore + 1, sizeof(*v));
	if (!v)
		return NULL;
	for (size_t i = 0; i < nbase; i++) {
		size_t k = 0;

		while (env[k] && !same_name(env[k], config->env[i]))
			k++;
		if (!env[k])
			v[n++] = config->env[i];
	}
	memcpy(v + n, env, nmore * sizeof(*v));
	return v;
}

static void set_size(struct console *console, const struct control_size *size)
{
	struct winsize ws = {.ws_row = size->rows,
			     .ws_col = size->columns,
			     .ws_xpixel = size->xpixel,
			     .ws_ypixel = size->ypixel};

	tty_set_winsize(console_tty(console), &ws);
}

/* The command is made: from now on its end is heard of. Starts it. */
static int start_command(struct client *c, struct launched *l)
{
	int err;

	c->tg = l->tg;
	c->console = l->console;
	c->stopped = false;
	c->ended = (struct waiter){.mask = EPOLLIN | EPOLLHUP, .fn = process_ended};
	list_init(&c->ended.node);
	waitq_add(&c->tg->pidfd_wait, &c->ended);
	err = kernel_start_process(control->kernel, c->tg);
	if (err)
		drop_command(c);
	return err;
}

static void enter_with(struct client *c, struct config *cmd, const struct control_size *size)
{
	struct control_msg m = {.type = CONTROL_ENTERED};
	struct vfs_ctx caller;
	struct launched l;
	int err;

	cmd->cwd = cmd->cwd ?: config->cwd;
	cmd->user = cmd->user ?: config->user;
	if (!cmd->user) {
		cmd->uid = config->uid;
		cmd->gid = config->gid;
		cmd->ngroups = config->ngroups;
		memcpy(cmd->groups, config->groups, sizeof(cmd->groups));
	}
	cmd->no_new_privs = cmd->no_new_privs || config->no_new_privs;
	err = caller_init(&caller, control->kernel->init_mnt_ns);
	if (err) {
		for (int i = 0; i < 3; i++) {
			if (cmd->stdio[i] >= 0)
				close(cmd->stdio[i]);
		}
		refuse(c, EXIT_KVMSBOX, "out of memory");
		return;
	}
	err = launch(control->kernel, &caller, cmd, cmd->stdio, &l);
	caller_fini(&caller);
	if (err) {
		refuse(c, l.status, "%s", l.error);
		return;
	}
	if (l.console)
		set_size(l.console, size);
	m.entered.pid = pid_nr(l.tg->pid, control->kernel->root_pid_ns);
	err = start_command(c, &l);
	if (err)
		refuse(c, EXIT_KVMSBOX, "can't start the program: %s", strerror(-err));
	else
		reply(c, &m, "");
}

static void enter(struct client *c, const struct control_msg *m, int *fds, size_t nfds)
{
	struct config *cmd = malloc(sizeof(*cmd));
	char **env, **own_env, why[256];
	void *blob;

	if (c->tg) {
		refuse(c, EXIT_KVMSBOX, "this connection has a command already");
		goto out_cmd;
	}
	blob = read_tree(fds[0], m->enter.tree_size);
	if (!cmd || !blob) {
		refuse(c, EXIT_KVMSBOX, "can't read the command's device tree");
		goto out_blob;
	}
	if (sandbox_config_parse(blob, m->enter.tree_size, cmd, why, sizeof(why))) {
		refuse(c, EXIT_KVMSBOX, "%s", why);
		goto out_blob;
	}
	own_env = cmd->env;
	env = merge_env(own_env);
	if (!env) {
		refuse(c, EXIT_KVMSBOX, "out of memory");
	} else if (!place_stdio(cmd, fds, nfds)) {
		refuse(c, EXIT_KVMSBOX, "device tree: stdio names descriptors that didn't come");
	} else {
		cmd->env = env;
		enter_with(c, cmd, &m->enter.size);
		cmd->env = own_env;
	}
	free(env);
	sandbox_config_free(cmd);
out_blob:
	free(blob);
out_cmd:
	free(cmd);
}

/* ---- the other requests ---- */

static void send_signal(struct client *c, const struct control_msg *m, int *fds, size_t nfds)
{
	struct thread_group *tg = m->flags & CONTROL_TO_INIT ? control->kernel->init : c->tg;

	if (!tg)
		refuse(c, EXIT_KVMSBOX, "this connection has no command");
	else if (!signal_process(tg, m->signal.signo, m->flags & CONTROL_TO_GROUP))
		refuse(c, EXIT_KVMSBOX, "it has ended");
	else
		reply_ok(c);
	if (control->holder && tg == control->kernel->init && m->signal.signo == SIGKILL) {
		/* Nothing of it runs between the snapshot and the end. */
		kernel_kill_all(control->kernel, SIGKILL);
		let_go(control->holder);
	}
}

static void resize(struct client *c, const struct control_msg *m, int *fds, size_t nfds)
{
	if (!c->console) {
		refuse(c, EXIT_KVMSBOX, "this connection's command has no terminal");
		return;
	}
	set_size(c->console, &m->resize);
	reply_ok(c);
}

static void status(struct client *c, const struct control_msg *m, int *fds, size_t nfds)
{
	struct control_msg r = {.type = CONTROL_STATUS_IS};
	struct physmem_stats pm;
	struct timespec now;
	struct client *other;

	clock_gettime(CLOCK_BOOTTIME, &now);
	r.status.uptime_ns = (uint64_t)((now.tv_sec - control->started.tv_sec) * 1000000000 +
					(now.tv_nsec - control->started.tv_nsec));
	physmem_stats(&pm);
	r.status.memory = pm.resident;
	mutex_lock(&control->kernel->tasklist);
	r.status.tasks = (uint32_t)control->kernel->nr_tasks;
	mutex_unlock(&control->kernel->tasklist);
	list_for_each_entry (other, &control->clients, node)
		r.status.entered += other->tg != NULL;
	reply(c, &r, "");
}

/* Can this sandbox be saved? True, or false with one line. */
static bool can_be_saved(char *why, size_t size)
{
	struct client *c;
	unsigned int n;

	if (control->holder) {
		snprintf(why, size, "it is stopped for another snapshot");
		return false;
	}
	if (config->nvolumes) {
		snprintf(why, size, "the host's %s is mounted in it: volumes can't be saved",
			 config->volumes[0].source);
		return false;
	}
	if (control->kernel->console) {
		snprintf(why, size, "it has a terminal (run -t), which can't be saved");
		return false;
	}
	list_for_each_entry (c, &control->clients, node) {
		if (c->tg) {
			snprintf(why, size, "a command that has entered runs in it");
			return false;
		}
	}
	n = hostfd_count(HOSTFD_SANDBOX);
	if (n)
		snprintf(why, size,
			 "it has %u of the host's descriptors that came with a command that has "
			 "entered",
			 n);
	return !n;
}

static void snapshot(struct client *c, const struct control_msg *m, int *fds, size_t nfds)
{
	struct control_msg r = {.type = CONTROL_SNAPSHOT_IS};
	char why[CONTROL_TEXT_MAX];
	int fd;

	if (!can_be_saved(why, sizeof(why))) {
		refuse(c, EXIT_KVMSBOX, "%s", why);
		return;
	}
	fd = snapshot_save(control->kernel, why, sizeof(why));
	if (fd < 0) {
		refuse(c, EXIT_KVMSBOX, "%s", why);
		return;
	}
	if (m->flags & CONTROL_HOLD)
		control->holder = c;
	else
		freezer_thaw();
	reply_with_fd(c, &r, "", fd);
	close(fd);
}

static const struct request {
	uint32_t type;
	/* Replies. @fds are closed afterwards unless it sets them to -1. */
	void (*handle)(struct client *c, const struct control_msg *m, int *fds, size_t nfds);
} requests[] = {
#define REQUEST(nr, name, fn, flags, min_fds, max_fds) {name, fn},
	CONTROL_REQUESTS(REQUEST)
#undef REQUEST
};

/* ---- connections ---- */

/* The descriptors that came with @msg, at most @max; more than that are closed. */
static size_t take_fds(struct msghdr *msg, int *fds, size_t max)
{
	struct cmsghdr *cm;
	size_t n = 0;

	for (cm = CMSG_FIRSTHDR(msg); cm; cm = CMSG_NXTHDR(msg, cm)) {
		size_t count = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(fd));
			if (n < max)
				fds[n++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

static void handle(struct client *c, const void *packet, size_t n, int *fds, size_t nfds)
{
	struct control_msg m;
	char why[256];

	if (control_parse(packet, n, nfds, &m, why, sizeof(why))) {
		refuse(c, EXIT_KVMSBOX, "%s", why);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (requests[i].type == m.type)
			requests[i].handle(c, &m, fds, nfds);
	}
}

/* One packet of @c's. */
static void receive(struct client *c)
{
	char packet[sizeof(struct control_msg) + 1];
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE((CONTROL_MAX_FDS + 1) * sizeof(int))];
	} ancillary;
	struct iovec iov = {.iov_base = packet, .iov_len = sizeof(packet)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = ancillary.buf,
			     .msg_controllen = sizeof(ancillary.buf)};
	int fds[CONTROL_MAX_FDS + 1];
	size_t nfds;
	ssize_t n = recvmsg(hostfd_get(c->conn), &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		hang_up(c);
		return;
	}
	nfds = take_fds(&msg, fds, ARRAY_SIZE(fds));
	handle(c, packet, (size_t)n, fds, nfds);
	for (size_t i = 0; i < nfds; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
}

/* Whoever connected is this sandbox's user, or root? */
static bool may_talk(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return false;
	return peer.uid == 0 || peer.uid == control->uid;
}

static void accept_client(void)
{
	int fd = accept4(hostfd_get(control->listener), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c;

	if (fd < 0)
		return;
	if (!may_talk(fd)) {
		log_warn("control: refused a client of another user");
		close(fd);
		return;
	}
	c = hzalloc(sizeof(*c));
	if (!c) {
		close(fd);
		return;
	}
	fd = hostfd_add(fd);
	if (fd < 0) {
		kfree(c);
		return;
	}
	hostfd_set_use(fd, HOSTFD_SENTRY);
	c->conn = fd;
	control->nr_connections++;
	objtype_inc(&client_type);
	list_add_tail(&c->node, &control->clients);
}

/* ---- the thread ---- */

static void settle_all(void)
{
	struct client *c, *tmp;

	list_for_each_entry_safe (c, tmp, &control->clients, node) {
		if (settle(c))
			client_free(c);
	}
}

static bool anybody_waits(void)
{
	struct client *c;

	list_for_each_entry (c, &control->clients, node) {
		if (c->conn && c->tg)
			return true;
	}
	return false;
}

/* Waits, and serves who has something to say. */
static void serve(int timeout)
{
	static struct pollfd p[2 + MAX_CONNECTIONS];
	static struct client *who[2 + MAX_CONNECTIONS];
	struct client *c;
	uint64_t count;
	nfds_t n = 2;

	p[0] = (struct pollfd){.fd = hostfd_get(event), .events = POLLIN};
	p[1] = (struct pollfd){.fd = control->nr_connections < MAX_CONNECTIONS
					     ? hostfd_get(control->listener)
					     : -1,
			       .events = POLLIN};
	list_for_each_entry (c, &control->clients, node) {
		if (!c->conn)
			continue;
		p[n] = (struct pollfd){.fd = hostfd_get(c->conn), .events = POLLIN};
		who[n++] = c;
	}
	if (poll(p, n, timeout) < 0)
		return;
	if (p[0].revents)
		(void)!read(p[0].fd, &count, sizeof(count));
	if (p[1].revents)
		accept_client();
	for (nfds_t i = 2; i < n; i++) {
		if (p[i].revents)
			receive(who[i]);
	}
}

static void *control_thread(void *arg)
{
	struct timespec now, end = {0};

	for (;;) {
		int left = -1;

		settle_all();
		if (atomic_load(&finishing)) {
			clock_gettime(CLOCK_MONOTONIC, &now);
			if (!end.tv_sec)
				end = (struct timespec){.tv_sec = now.tv_sec + FINISH_MS / 1000,
							.tv_nsec = now.tv_nsec};
			left = (int)((end.tv_sec - now.tv_sec) * 1000 +
				     (end.tv_nsec - now.tv_nsec) / 1000000);
			if (left <= 0 || !anybody_waits())
				return NULL;
		}
		serve(left);
	}
}

static int make_event(void)
{
	int fd;

	if (event)
		return 0;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fd = fd < 0 ? -errno : hostfd_add(fd);
	if (fd < 0)
		return fd;
	hostfd_set_use(fd, HOSTFD_SENTRY);
	event = fd;
	return 0;
}

int control_start(struct kernel *k, const struct config *c)
{
	pthread_attr_t attr;
	int err;

	control = hzalloc(sizeof(*control));
	if (!control) {
		close(c->control_fd);
		return -ENOMEM;
	}
	config = c;
	control->kernel = k;
	control->uid = (uid_t)getauxval(AT_EUID);
	list_init(&control->clients);
	clock_gettime(CLOCK_BOOTTIME, &control->started);
	err = control->listener = hostfd_add(c->control_fd);
	if (err < 0)
		goto out_free;
	hostfd_set_use(control->listener, HOSTFD_SENTRY);
	err = make_event();
	if (err)
		goto out_listener;
	atomic_store(&finishing, false);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 512 << 10);
	err = -pthread_create(&thread, &attr, control_thread, NULL);
	pthread_attr_destroy(&attr);
	if (!err)
		return 0;
out_listener:
	hostfd_close(control->listener);
out_free:
	kfree(control);
	control = NULL;
	return err;
}

void control_finish(void)
{
	struct client *c, *tmp;

	if (!control)
		return;
	atomic_store(&finishing, true);
	control_post();
	pthread_join(thread, NULL);
	list_for_each_entry_safe (c, tmp, &control->clients, node)
		client_free(c);
	hostfd_close(control->listener);
	kfree(control);
	control = NULL;
}
