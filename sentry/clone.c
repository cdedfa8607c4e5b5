/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clone(2) and its relatives: which pieces the child shares with its maker and which it copies.
 */
#include "sentry/clone.h"

#include <sched.h>
#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"
#include "sentry/task_internal.h"

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

#define CLONE_NS_FLAGS (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET)
#define CLONE_KNOWN                                                                                \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_PIDFD | CLONE_PTRACE |          \
	 CLONE_VFORK | CLONE_PARENT | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |                \
	 CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | CLONE_DETACHED | CLONE_UNTRACED |            \
	 CLONE_CHILD_SETTID | CLONE_IO | CLONE_CLEAR_SIGHAND | CLONE_NS_FLAGS)

/* A reference. Another thread group that has them can set them behind the backs of ours. */
static struct sighand *share_actions(struct task *t, uint64_t flags)
{
	struct sighand *s = sighand_get(t->tg->sighand);

	if (!(flags & CLONE_THREAD)) {
		mutex_lock(&s->lock);
		fast_action_set_locked(t, ~0UL);
		mutex_unlock(&s->lock);
	}
	return s;
}

static int check_flags(struct task *t, const struct clone_params *p)
{
	uint64_t f = p->flags;

	if (f & ~(uint64_t)CLONE_KNOWN)
		return -EINVAL;
	if ((f & CLONE_NEWNS) && (f & CLONE_FS))
		return -EINVAL;
	if ((f & CLONE_THREAD) && !(f & CLONE_SIGHAND))
		return -EINVAL;
	if ((f & CLONE_SIGHAND) && (!(f & CLONE_VM) || (f & CLONE_CLEAR_SIGHAND)))
		return -EINVAL;
	if ((f & CLONE_PARENT) && t->tg == pid_ns_of(t->tg->pid)->init)
		return -EINVAL;
	if ((f & CLONE_THREAD) && (f & CLONE_NEWPID))
		return -EINVAL;
	if ((f & CLONE_PIDFD) && (f & (CLONE_THREAD | CLONE_DETACHED)))
		return -EINVAL;
	if ((f & CLONE_NS_FLAGS) && !task_capable(t, CAP_SYS_ADMIN))
		return -EPERM;
	if (p->set_tid_size && !task_capable(t, CAP_SYS_ADMIN) &&
	    !task_capable(t, CAP_CHECKPOINT_RESTORE))
		return -EPERM;
	return 0;
}

/* Fills @a with shared or copied pieces. On failure what was taken is left for clone_args_drop. */
static int take_pieces(struct task *t, const struct clone_params *p, struct task_args *a)
{
	uint64_t f = p->flags;
	void *piece;

#define TAKE(field, expr)                                                                          \
	do {                                                                                       \
		piece = (expr);                                                                    \
		if (!piece)                                                                        \
			return -ENOMEM;                                                            \
		if (IS_ERR(piece))                                                                 \
			return (int)PTR_ERR(piece);                                                \
		a->field = piece;                                                                  \
	} while (0)

	a->kernel = t->kernel;
	a->tg = f & CLONE_THREAD ? t->tg : NULL;
	a->exit_signal = p->exit_signal;
	a->limits = t->tg->limits;
	a->comm = t->comm;
	a->set_tid = p->set_tid;
	a->set_tid_size = p->set_tid_size;
	TAKE(cred, cred_get(t->vfs.cred));
	if (f & CLONE_SIGHAND)
		TAKE(sighand, share_actions(t, f));
	else
		TAKE(sighand, sighand_copy(t->tg->sighand));
	TAKE(fs, f & CLONE_FS ? fs_context_get(t->vfs.fs) : fs_context_copy(t->vfs.fs));
	TAKE(files, f & CLONE_FILES ? fd_table_get(t->files) : fd_table_copy(t->files));
	TAKE(mnt_ns,
	     f & CLONE_NEWNS ? mnt_ns_copy(t->vfs.mnt_ns, a->fs) : mnt_ns_get(t->vfs.mnt_ns));
	TAKE(uts, f & CLONE_NEWUTS ? uts_ns_copy(t->uts) : uts_ns_get(t->uts));
	TAKE(ipc, f & CLONE_NEWIPC ? ipc_ns_alloc() : ipc_ns_get(t->ipc));
	TAKE(net, f & CLONE_NEWNET ? net_ns_alloc(false) : net_ns_get(t->net));
	TAKE(pid_ns, f & CLONE_NEWPID ? pid_ns_alloc(t->kernel, t->pid_ns_children)
				      : pid_ns_get(t->pid_ns_children));
	TAKE(mm, f & CLONE_VM ? mm_get(t->mm) : mm_fork(t->mm));
#undef TAKE
	return 0;
}

static void drop_pieces(struct task *t, struct task_args *a)
{
	if (a->mm)
		mm_put(a->mm);
	pid_ns_put(a->pid_ns);
	net_ns_put(a->net);
	ipc_ns_put(a->ipc);
	uts_ns_put(a->uts);
	if (a->mnt_ns)
		mnt_ns_put(a->mnt_ns);
	if (a->files)
		fd_table_put(&t->vfs, a->files);
	if (a->fs)
		fs_context_put(a->fs);
	sighand_put(a->sighand);
	if (a->cred)
		cred_put(a->cred);
}

/* What a child inherits of its maker's thread. */
static void inherit(struct task *t, struct task *child, const struct clone_params *p)
{
	const struct platform_type *pt = t->kernel->platform->type;
	uint64_t fs_base, gs_base;
	void *fpu = task_fpu_buffer();

	child->regs = t->regs;
	arch_set_return(&child->regs, 0);
	if (p->stack)
		child->regs.rsp = p->stack;
	pt->ctx_get_bases(t->ctx, &fs_base, &gs_base);
	pt->ctx_set_bases(child->ctx, p->flags & CLONE_SETTLS ? p->tls : fs_base,
			  t->fast.box ? 0 : gs_base);
	pt->ctx_get_fpu(t->ctx, fpu);
	pt->ctx_set_fpu(child->ctx, fpu);

	child->blocked = t->restore_mask ? t->saved_mask : t->blocked;
	if (!(p->flags & CLONE_VM) || (p->flags & CLONE_VFORK)) {
		child->altstack_sp = t->altstack_sp;
		child->altstack_size = t->altstack_size;
		child->altstack_flags = t->altstack_flags;
	}
	child->no_new_privs = t->no_new_privs;
	child->nice = t->nice;
	child->sched_policy = t->sched_policy;
	child->sched_priority = t->sched_priority;
	child->cpus = t->cpus;
	child->io_prio = t->io_prio;
	child->timer_slack = t->timer_slack;
	child->personality = t->personality;
	if (p->flags & CLONE_CHILD_CLEARTID)
		child->clear_child_tid = p->child_tid;
}

/* Handlers go back to their defaults, what is ignored stays ignored. */
void sighand_reset(struct sighand *s)
{
	mutex_lock(&s->lock);
	for (int i = 0; i < NSIGS; i++) {
		if (s->action[i].handler != (uaddr_t)(uintptr_t)SIG_IGN)
			memset(&s->action[i], 0, sizeof(s->action[i]));
	}
	mutex_unlock(&s->lock);
}

/* Numbers the caller asked to have written. */
static int write_tids(struct task *t, struct task *child, const struct clone_params *p, pid_t nr)
{
	pid_t own = task_tid_nr(child, task_pid_ns(child));

	if ((p->flags & CLONE_PARENT_SETTID) && copy_out(t, p->parent_tid, &nr, sizeof(nr)))
		return -EFAULT;
	/* As on Linux, a child that can't be told its number lives on without. */
	if ((p->flags & CLONE_CHILD_SETTID) &&
	    copy_to_user(child->vfs.um, p->child_tid, &own, sizeof(own)))
		return 0;
	return 0;
}

long task_clone(struct task *t, const struct clone_params *p)
{
	struct task_args a = {0};
	struct thread_group *parent;
	struct file *pidfd_file = NULL;
	int pidfd = -1;
	struct task *child;
	pid_t nr;
	long err;

	err = check_flags(t, p);
	if (err)
		return err;
	err = take_pieces(t, p, &a);
	if (err) {
		drop_pieces(t, &a);
		return err;
	}
	if (p->flags & CLONE_CLEAR_SIGHAND)
		sighand_reset(a.sighand);
	child = task_alloc(&a);
	if (IS_ERR(child))
		return PTR_ERR(child);
	inherit(t, child, p);
	nr = task_tid_nr(child, task_pid_ns(t));

	if (p->flags & CLONE_PIDFD) {
		pidfd_file = pidfd_alloc(t, child->pid, 0);
		err = PTR_ERR_OR_ZERO(pidfd_file);
		if (err)
			goto out_child;
		pidfd = fd_install(t->files, pidfd_file, 0, true, task_rlimit(t, RLIMIT_NOFILE));
		err = pidfd;
		if (pidfd < 0)
			goto out_child;
		err = -EFAULT;
		if (copy_out(t, p->pidfd, &pidfd, sizeof(pidfd)))
			goto out_pidfd;
	}
	err = write_tids(t, child, p, nr);
	if (err)
		goto out_pidfd;
	if (p->flags & CLONE_VFORK)
		child->vfork_child_of = task_get(t);
	if (p->flags & CLONE_THREAD) {
		parent = NULL;
	} else {
		parent = p->flags & CLONE_PARENT ? t->tg->parent : t->tg;
		if (p->flags & CLONE_PARENT)
			child->tg->exit_signal = t->tg->exit_signal;
	}
	err = task_publish(child, parent);
	if (err == -EINTR)
		err = -ERESTARTNOINTR;
	if (err)
		goto out_vfork;
	fast_clone(t, child);
	if (!(p->flags & CLONE_THREAD))
		cpu_limit_update(child->tg);
	task_get(child);
	err = task_start(child);
	if (err) {
		task_put(child);
		/* It is visible already: it ends like a process that was killed before it ran. */
		task_never_ran(child);
		goto out_close_pidfd;
	}
	/* It is waited for on the way back to user code. */
	if (p->flags & CLONE_VFORK)
		t->vfork_child = child;
	else
		task_put(child);
	return nr;

out_vfork:
	task_put(child->vfork_child_of);
	child->vfork_child_of = NULL;
out_pidfd:
	if (pidfd >= 0)
		fd_close(&t->vfs, t->files, (unsigned int)pidfd);
out_child:
	task_put(child);
	return err;
out_close_pidfd:
	if (pidfd >= 0)
		fd_close(&t->vfs, t->files, (unsigned int)pidfd);
	return err;
}

long task_unshare(struct task *t, uint64_t flags)
{
	struct fs_context *fs = NULL;
	struct fd_table *files = NULL;
	struct mnt_ns *mnt = NULL;
	struct uts_ns *uts = NULL;
	struct ipc_ns *ipc = NULL;
	struct net_ns *net = NULL;
	struct pid_ns *pid = NULL;
	long err = -ENOMEM;

	if (flags & ~(uint64_t)(CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_NS_FLAGS |
				CLONE_THREAD | CLONE_SIGHAND | CLONE_VM))
		return -EINVAL;
	/* These can't be unshared once shared; a single thread has them alone anyhow. */
	if ((flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM)) && t->tg->nr_live > 1)
		return -EINVAL;
	if ((flags & CLONE_NS_FLAGS) && !task_capable(t, CAP_SYS_ADMIN))
		return -EPERM;
	if (flags & CLONE_NEWNS)
		flags |= CLONE_FS;
	if (flags & CLONE_FS) {
		fs = fs_context_copy(t->vfs.fs);
		if (!fs)
			goto out;
	}
	if (flags & CLONE_FILES) {
		files = fd_table_copy(t->files);
		err = files ? PTR_ERR_OR_ZERO(files) : -ENOMEM;
		if (err) {
			files = NULL;
			goto out;
		}
	}
#define UNSHARE(flag, var, expr)                                                                   \
	do {                                                                                       \
		if (flags & (flag)) {                                                              \
			var = (expr);                                                              \
			err = PTR_ERR_OR_ZERO(var);                                                \
			if (err) {                                                                 \
				var = NULL;                                                        \
				goto out;                                                          \
			}                                                                          \
		}                                                                                  \
	} while (0)
	UNSHARE(CLONE_NEWNS, mnt, mnt_ns_copy(t->vfs.mnt_ns, fs));
	UNSHARE(CLONE_NEWUTS, uts, uts_ns_copy(t->uts));
	UNSHARE(CLONE_NEWIPC, ipc, ipc_ns_alloc());
	UNSHARE(CLONE_NEWNET, net, net_ns_alloc(false));
	UNSHARE(CLONE_NEWPID, pid, pid_ns_alloc(t->kernel, t->pid_ns_children));
#undef UNSHARE

	/* Nothing can fail any more: swap, and let the old ones go below. */
	mutex_lock(&t->own_lock);
#define SWAP(a, b)                                                                                 \
	do {                                                                                       \
		__auto_type swap_ = (a);                                                           \
		(a) = (b);                                                                         \
		(b) = swap_;                                                                       \
	} while (0)
	if (fs)
		SWAP(t->vfs.fs, fs);
	if (files)
		SWAP(t->files, files);
	if (mnt)
		SWAP(t->vfs.mnt_ns, mnt);
	if (uts)
		SWAP(t->uts, uts);
	if (ipc)
		SWAP(t->ipc, ipc);
	if (net)
		SWAP(t->net, net);
	if (pid)
		SWAP(t->pid_ns_children, pid);
#undef SWAP
	mutex_unlock(&t->own_lock);
	err = 0;
out:
	pid_ns_put(pid);
	net_ns_put(net);
	ipc_ns_put(ipc);
	uts_ns_put(uts);
	if (mnt)
		mnt_ns_put(mnt);
	if (files)
		fd_table_put(&t->vfs, files);
	if (fs)
		fs_context_put(fs);
	return err;
}
