/* SPDX-License-Identifier: Apache-2.0 */
/*
 * execve(2). The loader builds the new address space while the old one still stands, so every
 * failure up to the point of no return leaves the caller as it was. From there on: the other
 * threads are gone, and the task is rebuilt around the new image (create-process fact 35).
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "loader/exec.h"
#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"
#include "sentry/task_internal.h"

#define EXEC_MAX_STRLEN (128UL << 10)

struct strings {
	char **v;
	size_t n, cap, bytes;
};

static void strings_free(struct strings *s)
{
	for (size_t i = 0; i < s->n; i++)
		kfree(s->v[i]);
	kfree(s->v);
}

/* Copies in the string at @addr. */
static int strings_add(struct task *t, struct strings *s, uaddr_t addr, size_t limit)
{
	char *buf = kmalloc(EXEC_MAX_STRLEN), *str;
	ssize_t len;

	if (!buf)
		return -ENOMEM;
	len = strncpy_from_user(t->vfs.um, buf, addr, EXEC_MAX_STRLEN);
	if (len < 0) {
		kfree(buf);
		return len == -ENAMETOOLONG ? -E2BIG : (int)len;
	}
	str = kmemdup(buf, (size_t)len + 1);
	kfree(buf);
	if (!str)
		return -ENOMEM;
	s->bytes += (size_t)len + 1 + sizeof(uaddr_t);
	s->v[s->n++] = str;
	s->v[s->n] = NULL;
	return s->bytes > limit ? -E2BIG : 0;
}

/* Copies in the NULL-terminated array of strings at @addr; 0 is an empty one. */
static int strings_copy_in(struct task *t, struct strings *s, uaddr_t addr, size_t limit)
{
	uaddr_t p;
	int err;

	memset(s, 0, sizeof(*s));
	for (;;) {
		if (s->n + 1 >= s->cap) {
			size_t cap = s->cap ? s->cap * 2 : 32;
			char **v = krealloc(s->v, cap * sizeof(*v));

			if (!v)
				return -ENOMEM;
			s->v = v;
			s->cap = cap;
			s->v[s->n] = NULL;
		}
		if (!addr)
			return 0;
		if (copy_in(t, &p, addr, sizeof(p)))
			return -EFAULT;
		if (!p)
			return 0;
		err = strings_add(t, s, p, limit);
		if (err)
			return err;
		addr += sizeof(p);
	}
}

void task_mm_limits(struct task *t, struct mm_limits *l)
{
	mutex_lock(&t->tg->limits_lock);
	l->as = t->tg->limits[RLIMIT_AS].rlim_cur;
	l->data = t->tg->limits[RLIMIT_DATA].rlim_cur;
	l->stack = t->tg->limits[RLIMIT_STACK].rlim_cur;
	l->memlock = t->tg->limits[RLIMIT_MEMLOCK].rlim_cur;
	mutex_unlock(&t->tg->limits_lock);
}

/* Registers, extended state and segment bases as a fresh image has them. */
void task_start_image(struct task *t, uaddr_t entry, uaddr_t sp)
{
	const struct platform_type *pt = t->kernel->platform->type;
	void *fpu = task_fpu_buffer();

	arch_regs_init(&t->regs, entry, sp);
	arch_fpu_init(fpu);
	pt->ctx_set_fpu(t->ctx, fpu);
	pt->ctx_set_bases(t->ctx, 0, 0);
}

/* Copies of what may be shared, made while the call can still fail. NULL: it isn't shared. */
struct own_pieces {
	struct fd_table *files;
	struct sighand *sighand;
};

static void own_pieces_put(struct task *t, struct own_pieces *own)
{
	fd_table_put(&t->vfs, own->files);
	sighand_put(own->sighand);
}

static int own_pieces_make(struct task *t, struct own_pieces *own)
{
	if (refcount_read(&t->files->refs) > 1) {
		own->files = fd_table_copy(t->files);
		if (!own->files)
			return -ENOMEM;
	}
	if (refcount_read(&t->tg->sighand->refs) > 1) {
		own->sighand = sighand_copy(t->tg->sighand);
		if (!own->sighand)
			return -ENOMEM;
	}
	return 0;
}

/* The point of no return has passed: take over what exec_load made. */
static void install_image(struct task *t, struct exec_result *r, struct own_pieces *own)
{
	struct thread_group *tg = t->tg;
	struct kernel *k = t->kernel;
	struct sighand *sh, *old_sh;
	struct fd_table *old_files;
	struct mm *old_mm;

	/*
	 * A table shared by CLONE_FILES is left to the others. One that only the threads which are
	 * gone now had goes on, with the locks that are its.
	 */
	if (own->files && refcount_read(&t->files->refs) > 1) {
		mutex_lock(&t->own_lock);
		old_files = t->files;
		t->files = own->files;
		own->files = old_files;
		mutex_unlock(&t->own_lock);
	}
	fast_detach(t);
	mutex_lock(&t->own_lock);
	old_mm = t->mm;
	t->mm = r->mm;
	t->vfs.um = &r->mm->um;
	memcpy(t->comm, r->comm, sizeof(t->comm));
	mutex_unlock(&t->own_lock);
	tg->max_rss = MAX(tg->max_rss, atomic_load(&old_mm->max_rss));
	task_vfork_release(t);
	mm_put(old_mm);
	fd_table_exec(&t->vfs, t->files);

	/* A sighand shared by CLONE_SIGHAND with another process is left to that, too. */
	sh = own->sighand;
	own->sighand = NULL;
	mutex_lock(&k->tasklist);
	if (sh) {
		old_sh = sighand_lock(tg);
		__atomic_store_n(&tg->sighand, sh, __ATOMIC_RELEASE);
		mutex_unlock(&old_sh->lock);
	}
	tg->did_exec = true;
	tg->exit_signal = tg->parent ? SIGCHLD : tg->exit_signal;
	mutex_unlock(&k->tasklist);
	if (sh)
		sighand_put(old_sh);
	sighand_reset(tg->sighand);
	timers_exec(tg);
	t->altstack_sp = 0;
	t->altstack_size = 0;
	t->altstack_flags = SS_DISABLE;
	t->clear_child_tid = 0;
	t->robust.head = 0;
	t->restart.fn = NULL;
	if (r->cred) {
		if (r->cred->euid != t->vfs.cred->euid || r->cred->egid != t->vfs.cred->egid)
			t->pdeath_signal = 0;
		t->mm->dumpable = r->cred->euid == r->cred->uid && r->cred->egid == r->cred->gid;
		task_set_cred(t, r->cred);
	}
	task_start_image(t, r->entry, r->sp);
}

static long do_exec(struct task *t, const struct path *base, const char *name, bool empty_path,
		    bool nofollow, int dirfd, uaddr_t uargv, uaddr_t uenvp)
{
	struct exec_args args = {0};
	struct exec_result result = {0};
	struct own_pieces own = {0};
	struct strings argv, envp = {0};
	struct file *file = NULL;
	char fdname[PATH_MAX + 32];
	size_t limit;
	int err;

	task_mm_limits(t, &args.limits);
	limit = MIN(MAX(args.limits.stack / 4, (size_t)128 << 10), (size_t)6 << 20);
	err = strings_copy_in(t, &argv, uargv, limit);
	if (err)
		goto out_argv;
	err = strings_copy_in(t, &envp, uenvp, limit - argv.bytes);
	if (err)
		goto out_envp;
	if (!argv.n) {
		/* As Linux 5.18 and later: an empty argv becomes one empty string. */
		argv.v[0] = kstrdup("");
		argv.v[1] = NULL;
		argv.n = argv.v[0] ? 1 : 0;
		err = argv.n ? 0 : -ENOMEM;
		if (err)
			goto out_envp;
	}
	file = exec_open(&t->vfs, base->dentry ? base : NULL, name, nofollow, empty_path);
	err = PTR_ERR_OR_ZERO(file);
	if (err)
		goto out_envp;
	args.filename = name;
	if (base->dentry) {
		/* What a script's interpreter is told: /dev/fd/N or /dev/fd/N/name. */
		if (name[0])
			snprintf(fdname, sizeof(fdname), "/dev/fd/%d/%s", dirfd, name);
		else
			snprintf(fdname, sizeof(fdname), "/dev/fd/%d", dirfd);
		args.filename = fdname;
		args.fd_cloexec = fd_get_cloexec(t->files, dirfd) == 1;
	}
	args.file = file;
	args.argv = argv.v;
	args.envp = envp.v;
	args.ctx = &t->vfs;
	args.no_new_privs = t->no_new_privs;
	args.personality = t->personality;
	err = exec_load(t->kernel->platform, &args, &result);
	if (err)
		goto out_file;
	err = own_pieces_make(t, &own);
	if (!err)
		err = task_zap_other_threads(t);
	if (err)
		exec_result_put(&result);
	else
		install_image(t, &result, &own);
	own_pieces_put(t, &own);
out_file:
	file_put(file);
out_envp:
	strings_free(&envp);
out_argv:
	strings_free(&argv);
	return err ? err : SYSCALL_REGS_SET;
}

long sys_execve(struct task *t, const uint64_t *a)
{
	char *name = user_path(t, a[0], false);
	struct path none = {0};
	long ret;

	if (IS_ERR(name))
		return PTR_ERR(name);
	ret = do_exec(t, &none, name, false, false, AT_FDCWD, a[1], a[2]);
	kfree(name);
	return ret;
}

long sys_execveat(struct task *t, const uint64_t *a)
{
	bool empty = a[4] & AT_EMPTY_PATH;
	struct path base;
	char *name;
	long ret;

	if (a[4] & ~(uint64_t)(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
		return -EINVAL;
	name = user_path(t, a[1], empty);
	if (IS_ERR(name))
		return PTR_ERR(name);
	ret = user_base(t, (int)a[0], name, &base);
	if (!ret)
		ret = do_exec(t, &base, name, empty, a[4] & AT_SYMLINK_NOFOLLOW, (int)a[0], a[2],
			      a[3]);
	path_put(&base);
	kfree(name);
	return ret;
}
