/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages: descriptors (SCM_RIGHTS) and credentials (SCM_CREDENTIALS), unix(7).
 *
 * Files in a queue are in flight; the sockets among them are counted (socket_gc.c), since a socket
 * in its own queue would never be closed. Dropping files can release a socket whose queue has files
 * again: a chain is worked off by a list, not by recursion.
 */
#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket.h"
#include "sentry/syscalls.h"

#define FILES_IN_FLIGHT_MAX 65536

/* The kernel's struct cmsghdr: in a libc's, len may be shorter. */
struct cmsg {
	size_t len;
	int level, type;
};
_Static_assert(sizeof(struct cmsg) == CMSG_LEN(0), "struct cmsghdr");

static _Atomic int files_in_flight;

/* ---- files ---- */

struct scm_fds *scm_fds_copy(const struct scm_fds *fds)
{
	struct scm_fds *copy;

	copy = kmalloc(sizeof(*copy) + fds->n * sizeof(copy->files[0]));
	if (!copy)
		return NULL;
	list_init(&copy->node);
	copy->n = fds->n;
	copy->counted = false;
	for (unsigned int i = 0; i < fds->n; i++)
		copy->files[i] = file_get(fds->files[i]);
	return copy;
}

int scm_fds_attach(struct scm_fds *fds)
{
	if (atomic_fetch_add(&files_in_flight, (int)fds->n) + (int)fds->n > FILES_IN_FLIGHT_MAX) {
		atomic_fetch_sub(&files_in_flight, (int)fds->n);
		return -ETOOMANYREFS;
	}
	for (unsigned int i = 0; i < fds->n; i++)
		unix_inflight_add(fds->files[i]);
	fds->counted = true;
	return 0;
}

void scm_fds_detach(struct scm_fds *fds)
{
	if (!fds->counted)
		return;
	for (unsigned int i = 0; i < fds->n; i++)
		unix_inflight_sub(fds->files[i]);
	atomic_fetch_sub(&files_in_flight, (int)fds->n);
	fds->counted = false;
}

void scm_fds_drop(struct scm_fds *fds)
{
	static _Thread_local struct list_head *pending;
	struct list_head list = LIST_HEAD_INIT(list);

	if (!fds)
		return;
	scm_fds_detach(fds);
	if (pending) {
		list_add_tail(&fds->node, pending);
		return;
	}
	pending = &list;
	list_add_tail(&fds->node, &list);
	while (!list_empty(&list)) {
		fds = list_first_entry(&list, struct scm_fds, node);
		list_del(&fds->node);
		for (unsigned int i = 0; i < fds->n; i++)
			file_put(fds->files[i]);
		kfree(fds);
	}
	pending = NULL;
}

void scm_release(struct scm *scm)
{
	scm_fds_drop(scm->fds);
	pid_put(scm->cred.pid);
	memset(scm, 0, sizeof(*scm));
}

/* ---- sending ---- */

static int parse_rights(struct task *t, uaddr_t data, size_t len, struct scm *scm)
{
	unsigned int n = (unsigned int)(len / sizeof(int)), have = scm->fds ? scm->fds->n : 0;
	struct scm_fds *fds;

	if (n > SCM_MAX_FDS || have + n > SCM_MAX_FDS)
		return -EINVAL;
	if (!n)
		return 0;
	fds = krealloc(scm->fds, sizeof(*fds) + (have + n) * sizeof(fds->files[0]));
	if (!fds)
		return -ENOMEM;
	scm->fds = fds;
	list_init(&fds->node);
	fds->counted = false;
	fds->n = have;
	for (unsigned int i = 0; i < n; i++) {
		int fd;

		if (copy_in(t, &fd, data + i * sizeof(fd), sizeof(fd)))
			return -EFAULT;
		fds->files[fds->n] = fd_get_any(t->files, fd);
		if (!fds->files[fds->n])
			return -EBADF;
		fds->n++;
	}
	return 0;
}

void scm_cred_self(struct task *t, struct scm_cred *cred)
{
	cred->pid = pid_get(t->tg->pid);
	cred->uid = t->vfs.cred->uid;
	cred->gid = t->vfs.cred->gid;
}

static int parse_cred(struct task *t, uaddr_t data, size_t len, struct scm *scm)
{
	const struct cred *c = t->vfs.cred;
	struct ucred uc;
	struct pid *pid;

	if (len != sizeof(uc))
		return -EINVAL;
	if (copy_in(t, &uc, data, sizeof(uc)))
		return -EFAULT;
	if (uc.pid != task_tgid_nr(t, task_pid_ns(t)) && !task_capable(t, CAP_SYS_ADMIN))
		return -EPERM;
	if (uc.uid != c->uid && uc.uid != c->euid && uc.uid != c->suid &&
	    !task_capable(t, CAP_SETUID))
		return -EPERM;
	if (uc.gid != c->gid && uc.gid != c->egid && uc.gid != c->sgid &&
	    !task_capable(t, CAP_SETGID))
		return -EPERM;
	mutex_lock(&t->kernel->tasklist);
	pid = pid_find_locked(task_pid_ns(t), uc.pid);
	if (pid)
		pid_get(pid);
	mutex_unlock(&t->kernel->tasklist);
	if (!pid)
		return -ESRCH;
	pid_put(scm->cred.pid);
	scm->cred = (struct scm_cred){.pid = pid, .uid = uc.uid, .gid = uc.gid};
	scm->have_cred = true;
	return 0;
}

int scm_parse(struct task *t, struct sock *sk, uaddr_t control, size_t len, struct sock_msg *msg)
{
	struct scm *scm = &msg->scm;
	size_t at = 0;
	int err = 0;

	while (!err && len - at >= sizeof(struct cmsg)) {
		struct cmsg h;
		uaddr_t data = control + at + CMSG_LEN(0);

		if (copy_in(t, &h, control + at, sizeof(h)))
			return -EFAULT;
		if (h.len < CMSG_LEN(0) || h.len > len - at)
			return -EINVAL;
		if (h.level == SOL_SOCKET) {
			if (h.type == SCM_RIGHTS)
				err = parse_rights(t, data, h.len - CMSG_LEN(0), scm);
			else if (h.type == SCM_CREDENTIALS)
				err = parse_cred(t, data, h.len - CMSG_LEN(0), scm);
			else
				err = -EINVAL;
		} else if (sk->ops->parse_cmsg) {
			err = sk->ops->parse_cmsg(t, sk, msg, h.level, h.type, data,
						  h.len - CMSG_LEN(0));
		}
		if (CMSG_ALIGN(h.len) > len - at)
			break;
		at += CMSG_ALIGN(h.len);
	}
	return err;
}

/* ---- receiving ---- */

static void put_header(struct task *t, struct control_out *c, int type, size_t data_len)
{
	struct cmsg h = {.len = CMSG_LEN(data_len), .level = SOL_SOCKET, .type = type};

	if (copy_out(t, c->addr + c->used, &h, sizeof(h)))
		c->truncated = true;
	c->used += MIN(CMSG_SPACE(data_len), c->len - c->used);
}

void control_put(struct task *t, struct control_out *c, int level, int type, const void *data,
		 size_t len)
{
	struct cmsg h = {.len = CMSG_LEN(len), .level = level, .type = type};
	size_t left = c->len - c->used;

	if (left < sizeof(h)) {
		c->truncated = true;
		return;
	}
	if (left < CMSG_LEN(len)) {
		c->truncated = true;
		h.len = left;
		len = left - CMSG_LEN(0);
	}
	if (copy_out(t, c->addr + c->used, &h, sizeof(h)) ||
	    copy_out(t, c->addr + c->used + CMSG_LEN(0), data, len)) {
		c->truncated = true;
		return;
	}
	c->used += MIN(CMSG_SPACE(len), left);
}

static void deliver_cred(struct task *t, struct scm *scm, struct control_out *c)
{
	struct ucred uc = {.uid = 65534, .gid = 65534};

	if (scm->have_cred) {
		uc.pid = scm->cred.pid ? pid_nr(scm->cred.pid, task_pid_ns(t)) : 0;
		uc.uid = scm->cred.uid;
		uc.gid = scm->cred.gid;
	}
	if (c->len - c->used < CMSG_LEN(sizeof(uc))) {
		c->truncated = true;
		return;
	}
	if (copy_out(t, c->addr + c->used + CMSG_LEN(0), &uc, sizeof(uc)))
		c->truncated = true;
	put_header(t, c, SCM_CREDENTIALS, sizeof(uc));
}

static void deliver_fds(struct task *t, struct scm_fds *fds, bool cloexec, struct control_out *c)
{
	uint64_t nofile = task_rlimit(t, RLIMIT_NOFILE);
	size_t left = c->len - c->used, max = 0;
	unsigned int n = 0;

	if (left > CMSG_LEN(0))
		max = (left - CMSG_LEN(0)) / sizeof(int);
	for (; n < fds->n && n < max; n++) {
		uaddr_t at = c->addr + c->used + CMSG_LEN(0) + n * sizeof(int);
		int fd = fd_install(t->files, file_get(fds->files[n]), 0, cloexec, nofile);

		if (fd < 0)
			break;
		if (copy_out(t, at, &fd, sizeof(fd))) {
			fd_close(&t->vfs, t->files, (unsigned int)fd);
			break;
		}
	}
	if (n < fds->n)
		c->truncated = true;
	if (n)
		put_header(t, c, SCM_RIGHTS, n * sizeof(int));
}

size_t scm_deliver(struct task *t, struct sock *sk, struct sock_msg *msg, uaddr_t control,
		   size_t len)
{
	struct control_out c = {.addr = control, .len = control ? len : 0};

	if (sk->ops->put_cmsgs)
		sk->ops->put_cmsgs(t, sk, msg, &c);
	if (sk->passcred)
		deliver_cred(t, &msg->scm, &c);
	if (msg->scm.fds)
		deliver_fds(t, msg->scm.fds, msg->flags & MSG_CMSG_CLOEXEC, &c);
	if (c.truncated)
		msg->out_flags |= MSG_CTRUNC;
	return c.used;
}
