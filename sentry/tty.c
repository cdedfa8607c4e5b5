/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Terminals: their life, and what they have to do with sessions.
 *
 * A session leader without one gets a controlling terminal by opening a terminal or by TIOCSCTTY;
 * its children inherit it. The foreground process group gets the signals of the keyboard and may
 * read; others are stopped by SIGTTIN and SIGTTOU. Everything here about sessions is under
 * kernel->tasklist, which is taken after tty->lock.
 *
 * When the master is closed or the session leader ends, the slave files of that time are dead: they
 * carry the count of hang-ups at their open in file->pos.
 */
#include "sentry/tty.h"

#include <asm/ioctls.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"

OBJTYPE(tty_type, "tty")

#define TTY_ALL_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM | EPOLLERR | EPOLLHUP)

struct tty *tty_get(struct tty *tty)
{
	refcount_get(&tty->refs);
	return tty;
}

void tty_put(struct tty *tty)
{
	if (!tty || !refcount_put(&tty->refs))
		return;
	ktimer_cancel(&tty->vtimer);
	pid_put(tty->pgrp);
	pid_put(tty->session);
	path_put(&tty->pts);
	waitq_fini(&tty->slave_wq);
	waitq_fini(&tty->master_wq);
	mutex_fini(&tty->lock);
	objtype_dec(&tty_type);
	kfree(tty);
}

static bool vtime_over(struct ktimer *timer)
{
	struct tty *tty = container_of(timer, struct tty, vtimer);

	mutex_lock(&tty->lock);
	tty->vtime_passed = true;
	mutex_unlock(&tty->lock);
	waitq_wake(&tty->slave_wq, EPOLLIN | EPOLLRDNORM);
	return false;
}

struct tty *tty_alloc(struct kernel *k, const struct path *pts, struct cred *cred)
{
	struct tty *tty = kzalloc(sizeof(*tty));
	int err;

	if (!tty)
		return ERR_PTR(-ENOMEM);
	refcount_init(&tty->refs, 1);
	tty->kernel = k;
	tty->pts = *pts;
	path_get(&tty->pts);
	tty->fs = devpts_of(pts->dentry->super);
	waitq_init(&tty->slave_wq);
	waitq_init(&tty->master_wq);
	mutex_init(&tty->lock, LOCK_STREAM);
	ktimer_init(&tty->vtimer, CLOCK_MONOTONIC, vtime_over);
	ldisc_init(tty);
	tty->locked = true;
	tty->master_open = true;
	objtype_inc(&tty_type);
	err = devpts_add(tty->fs, tty, cred);
	if (err) {
		tty_put(tty);
		return ERR_PTR(err);
	}
	return tty;
}

struct tty *tty_of_file(struct file *file)
{
	return file->ops == &pty_slave_ops ? file->private : NULL;
}

/* ---- signals ---- */

static void kernel_siginfo(siginfo_t *info, int sig)
{
	memset(info, 0, sizeof(*info));
	info->si_signo = sig;
	info->si_code = SI_KERNEL;
}

static void signal_pgrp_locked(struct pid *pgrp, int sig)
{
	siginfo_t info;

	if (!pgrp)
		return;
	kernel_siginfo(&info, sig);
	signal_send_pgrp_locked(pgrp, &info);
}

void tty_signal_pgrp(struct tty *tty, int sig)
{
	mutex_lock(&tty->kernel->tasklist);
	signal_pgrp_locked(tty->pgrp, sig);
	mutex_unlock(&tty->kernel->tasklist);
}

static bool signal_blocked_or_ignored(struct task *t, int sig)
{
	struct sighand *s = sighand_lock(t->tg);
	bool ret = (t->blocked & SIGMASK(sig)) ||
		   s->action[sig - 1].handler == (uaddr_t)(uintptr_t)SIG_IGN;

	mutex_unlock(&s->lock);
	return ret;
}

int tty_check_change(const struct vfs_ctx *ctx, struct tty *tty, int sig)
{
	struct task *t = ctx ? task_of(ctx) : NULL;
	struct kernel *k = tty->kernel;
	bool background;
	int ret = 0;

	if (!t)
		return 0;
	mutex_lock(&k->tasklist);
	background = t->tg->tty == tty && tty->pgrp && tty->pgrp != t->tg->pgrp;
	mutex_unlock(&k->tasklist);
	if (!background)
		return 0;
	if (signal_blocked_or_ignored(t, sig))
		return sig == SIGTTIN ? -EIO : 0;
	mutex_lock(&k->tasklist);
	if (pgrp_is_orphaned_locked(t->tg->pgrp)) {
		ret = -EIO;
	} else {
		signal_pgrp_locked(t->tg->pgrp, sig);
		ret = -ERESTARTSYS;
	}
	mutex_unlock(&k->tasklist);
	return ret;
}

/* ---- sessions; tasklist held ---- */

static void set_pid(struct pid **slot, struct pid *pid)
{
	struct pid *old = *slot;

	*slot = pid ? pid_get(pid) : NULL;
	pid_put(old);
}

static void set_controlling_locked(struct tty *tty, struct thread_group *tg)
{
	set_pid(&tty->session, tg->session);
	set_pid(&tty->pgrp, tg->pgrp);
	if (!tg->tty)
		tg->tty = tty_get(tty);
}

/*
 * Nobody of the terminal's session has it any more. The caller has a reference of its own, so the
 * last one isn't dropped under the lock.
 */
static void drop_session_locked(struct tty *tty)
{
	struct pid *session = tty->session;
	struct thread_group *tg;

	if (!session)
		return;
	list_for_each_entry (tg, &session->session_members, session_node) {
		if (tg->tty == tty) {
			tg->tty = NULL;
			tty_put(tty);
		}
	}
	set_pid(&tty->session, NULL);
	set_pid(&tty->pgrp, NULL);
}

int tty_set_controlling_locked(struct tty *tty, struct thread_group *tg)
{
	if (tg->session != tg->pid || (tg->tty && tg->tty != tty) ||
	    (tty->session && tty->session != tg->session))
		return -EPERM;
	set_controlling_locked(tty, tg);
	return 0;
}

void tty_opened(const struct vfs_ctx *ctx, struct tty *tty, struct file *file)
{
	struct task *t = ctx ? task_of(ctx) : NULL;

	if (!t || file->noctty || !file->readable)
		return;
	mutex_lock(&tty->kernel->tasklist);
	if (t->tg->session == t->tg->pid && !t->tg->tty && !tty->session)
		set_controlling_locked(tty, t->tg);
	mutex_unlock(&tty->kernel->tasklist);
}

/* Makes every slave file of now a dead one. */
static void kill_slaves(struct tty *tty)
{
	mutex_lock(&tty->lock);
	tty->hangups++;
	ldisc_flush_input(tty);
	ldisc_stop(tty, false);
	mutex_unlock(&tty->lock);
	waitq_wake(&tty->slave_wq, TTY_ALL_EVENTS);
	waitq_wake(&tty->master_wq, TTY_ALL_EVENTS);
}

void tty_hangup(struct tty *tty)
{
	struct kernel *k = tty->kernel;
	siginfo_t info;

	kill_slaves(tty);
	mutex_lock(&k->tasklist);
	if (tty->session && tty->session->tg && tty->session != tty->pgrp) {
		kernel_siginfo(&info, SIGHUP);
		(void)!signal_send_group_tasklist(tty->session->tg, &info);
		kernel_siginfo(&info, SIGCONT);
		(void)!signal_send_group_tasklist(tty->session->tg, &info);
	}
	/*
	 * Differs from Linux: there the foreground group hears of it when the session leader ends,
	 * which follows.
	 */
	signal_pgrp_locked(tty->pgrp, SIGHUP);
	signal_pgrp_locked(tty->pgrp, SIGCONT);
	drop_session_locked(tty);
	mutex_unlock(&k->tasklist);
}

void tty_disassociate(struct thread_group *leader)
{
	struct kernel *k = leader->kernel;
	struct tty *tty = NULL;

	mutex_lock(&k->tasklist);
	if (leader->tty && leader->tty->session == leader->session)
		tty = tty_get(leader->tty);
	mutex_unlock(&k->tasklist);
	if (!tty)
		return;
	kill_slaves(tty);
	mutex_lock(&k->tasklist);
	if (tty->session == leader->session) {
		signal_pgrp_locked(tty->pgrp, SIGHUP);
		drop_session_locked(tty);
	}
	mutex_unlock(&k->tasklist);
	tty_put(tty);
}

/* ---- ioctls ---- */

static long get_pid_ioctl(const struct vfs_ctx *ctx, struct task *t, struct tty *tty, bool master,
			  unsigned int cmd, unsigned long arg)
{
	struct pid *pid;
	int nr = 0;
	bool ours;

	mutex_lock(&tty->kernel->tasklist);
	ours = master || t->tg->tty == tty;
	pid = cmd == TIOCGSID ? tty->session : tty->pgrp;
	if (pid)
		nr = pid_nr(pid, task_pid_ns(t));
	mutex_unlock(&tty->kernel->tasklist);
	if (!ours || (cmd == TIOCGSID && !pid))
		return -ENOTTY;
	return copy_to_user(ctx->um, arg, &nr, sizeof(nr));
}

static long set_pgrp_ioctl(const struct vfs_ctx *ctx, struct task *t, struct tty *tty, bool master,
			   unsigned long arg)
{
	struct thread_group *tg = t->tg, *member;
	struct pid *pgrp;
	int nr;
	long ret = tty_check_change(ctx, tty, SIGTTOU);

	if (ret)
		return ret == -EIO ? -ENOTTY : ret;
	if (copy_from_user(ctx->um, &nr, arg, sizeof(nr)))
		return -EFAULT;
	mutex_lock(&tty->kernel->tasklist);
	ret = -ENOTTY;
	if (tg->tty != tty || tty->session != tg->session)
		goto out_unlock;
	ret = -EINVAL;
	if (nr < 0)
		goto out_unlock;
	ret = -ESRCH;
	pgrp = pid_find_locked(task_pid_ns(t), nr);
	if (!pgrp)
		goto out_unlock;
	/* The group must be one of this session. */
	ret = -EPERM;
	if (list_empty(&pgrp->pgrp_members))
		goto out_unlock;
	member = list_first_entry(&pgrp->pgrp_members, struct thread_group, pgrp_node);
	if (member->session != tg->session)
		goto out_unlock;
	set_pid(&tty->pgrp, pgrp);
	ret = 0;
out_unlock:
	mutex_unlock(&tty->kernel->tasklist);
	return ret;
}

static long set_ctty_ioctl(struct task *t, struct tty *tty, struct file *file, unsigned long arg)
{
	struct thread_group *tg = t->tg;
	bool admin = task_capable(t, CAP_SYS_ADMIN);
	long ret = 0;

	mutex_lock(&tty->kernel->tasklist);
	if (tg->session == tg->pid && tty->session == tg->session)
		goto out_unlock;
	ret = -EPERM;
	if (tg->session != tg->pid || tg->tty)
		goto out_unlock;
	if (tty->session) {
		/* Stealing is for root. */
		if (arg != 1 || !admin)
			goto out_unlock;
		drop_session_locked(tty);
	}
	if (!file->readable && !admin)
		goto out_unlock;
	set_controlling_locked(tty, tg);
	ret = 0;
out_unlock:
	mutex_unlock(&tty->kernel->tasklist);
	return ret;
}

static long no_tty_ioctl(struct task *t, struct tty *tty)
{
	struct thread_group *tg = t->tg;
	bool put = false;
	long ret = -ENOTTY;

	mutex_lock(&tty->kernel->tasklist);
	if (tg->tty == tty) {
		ret = 0;
		if (tg->session == tg->pid) {
			signal_pgrp_locked(tty->pgrp, SIGHUP);
			signal_pgrp_locked(tty->pgrp, SIGCONT);
			drop_session_locked(tty);
		} else {
			tg->tty = NULL;
			put = true;
		}
	}
	mutex_unlock(&tty->kernel->tasklist);
	if (put)
		tty_put(tty);
	return ret;
}

long tty_job_ioctl(const struct vfs_ctx *ctx, struct tty *tty, struct file *file, bool master,
		   unsigned int cmd, unsigned long arg)
{
	struct task *t = task_of(ctx);

	if (!t)
		return -ENOIOCTLCMD;
	switch (cmd) {
	case TIOCGPGRP:
	case TIOCGSID:
		return get_pid_ioctl(ctx, t, tty, master, cmd, arg);
	case TIOCSPGRP:
		return set_pgrp_ioctl(ctx, t, tty, master, arg);
	case TIOCSCTTY:
		return master ? -EIO : set_ctty_ioctl(t, tty, file, arg);
	case TIOCNOTTY:
		return master ? -ENOTTY : no_tty_ioctl(t, tty);
	}
	return -ENOIOCTLCMD;
}

void tty_proc_numbers(struct tty *tty, struct pid_ns *ns, int *tty_nr, int *tpgid)
{
	*tty_nr = (int)makedev(PTS_MAJOR, (unsigned int)tty->index);
	*tpgid = tty->pgrp ? pid_nr(tty->pgrp, ns) : -1;
}

/* ---- devices ---- */

/* /dev/tty: the caller's controlling terminal. */
static int dev_tty_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	struct task *t = task_of(ctx);
	struct tty *tty = NULL;
	int err;

	if (t) {
		mutex_lock(&t->kernel->tasklist);
		if (t->tg->tty)
			tty = tty_get(t->tg->tty);
		mutex_unlock(&t->kernel->tasklist);
	}
	if (!tty)
		return -ENXIO;
	file->noctty = true;
	err = pty_slave_attach(ctx, tty, file);
	tty_put(tty);
	return err;
}

/* /dev/console: the sandbox's terminal, if it has one. */
static int dev_console_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file)
{
	struct tty *tty = the_kernel ? the_kernel->console : NULL;

	if (!tty)
		return -ENODEV;
	file->noctty = true;
	return pty_slave_attach(ctx, tty, file);
}

static struct chrdev tty_devs[] = {
	{.major = 5, .minor = 0, .nminors = 1, .name = "/dev/tty", .open = dev_tty_open},
	{.major = 5, .minor = 1, .nminors = 1, .name = "/dev/console", .open = dev_console_open},
	{.major = 5, .minor = 2, .nminors = 1, .name = "/dev/ptmx", .open = ptmx_open},
	{.major = PTS_MAJOR, .minor = 0, .nminors = 1u << 20, .name = "pts", .open = pts_open},
};

int tty_init(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(tty_devs); i++)
		chrdev_register(&tty_devs[i]);
	return devpts_init();
}

static int console_open_pair(struct kernel *k, struct vfs_ctx *ctx, struct file **master,
			     struct file **slave)
{
	struct open_how how;
	struct path pts;
	struct tty *tty;
	char name[32];
	int err = path_lookup(ctx, NULL, "/dev/pts", WALK_FOLLOW | WALK_DIRECTORY, &pts);

	if (err)
		return err;
	tty = devpts_of(pts.dentry->super) ? tty_alloc(k, &pts, ctx->cred) : ERR_PTR(-ENODEV);
	path_put(&pts);
	if (IS_ERR(tty))
		return (int)PTR_ERR(tty);
	tty->locked = false;
	*master = file_alloc_anon("/dev/ptmx", S_IFCHR | 0600, &pty_master_ops, tty, O_RDWR,
				  ctx->cred);
	if (IS_ERR(*master)) {
		devpts_remove(tty->fs, tty);
		tty_put(tty);
		return (int)PTR_ERR(*master);
	}
	snprintf(name, sizeof(name), "/dev/pts/%d", tty->index);
	open_how_init(&how, O_RDWR | O_NOCTTY, 0);
	*slave = file_open(ctx, NULL, name, &how);
	err = PTR_ERR_OR_ZERO(*slave);
	if (err)
		file_put(*master);
	return err;
}

int tty_create_console(struct kernel *k, struct mnt_ns *ns, struct file **master,
		       struct file **slave)
{
	struct vfs_ctx ctx = {.mnt_ns = ns, .fsize_limit = RLIM_INFINITY};
	struct path root;
	int err = -ENOMEM;

	mnt_ns_root(ns, &root);
	ctx.fs = fs_context_alloc(&root, &root, 0);
	ctx.cred = cred_alloc(0, 0, NULL, 0, CAP_FULL_SET);
	if (ctx.fs && ctx.cred)
		err = console_open_pair(k, &ctx, master, slave);
	cred_put(ctx.cred);
	if (ctx.fs)
		fs_context_put(ctx.fs);
	path_put(&root);
	return err;
}
