/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Process creation from outside: the sandbox's init, and further commands in a running sandbox.
 * The numbers in comments are the facts of docs/create-process.md.
 *
 * References are acquired top to bottom and released bottom to top; task_alloc consumes what the
 * task holds, on failure too.
 */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "loader/exec.h"
#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/task_internal.h"

_Atomic int kernel_fail_step;

/*
 * Each marked step counts the injected failure down; the one that reaches zero fails. The name is
 * for the test's log.
 */
bool kernel_fail_point(const char *name)
{
	int n = atomic_load(&kernel_fail_step);

	while (n > 0) {
		if (atomic_compare_exchange_weak(&kernel_fail_step, &n, n - 1)) {
			if (n == 1)
				log_debug("failure injected at %s", name);
			return n == 1;
		}
	}
	return false;
}

static int fail(struct create_process_args *args, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(struct create_process_args *args, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(args->error, sizeof(args->error), fmt, ap);
	va_end(ap);
	return err;
}

/* 2: the given namespace (its reference is ours), or init's. ERR_PTR with args->error set. */
static struct mnt_ns *take_mnt_ns(struct kernel *k, struct create_process_args *args)
{
	struct mnt_ns *ns = args->mnt_ns;
	bool exited;

	args->mnt_ns = NULL;
	mutex_lock(&k->tasklist);
	exited = k->exited;
	if (!ns && k->init_mnt_ns)
		ns = mnt_ns_get(k->init_mnt_ns);
	mutex_unlock(&k->tasklist);
	if (exited) {
		mnt_ns_put(ns);
		return ERR_PTR(fail(args, -ESRCH, "the sandbox has ended"));
	}
	return ns ? ns : ERR_PTR(fail(args, -EINVAL, "mount namespace is nil"));
}

/*
 * 4, 5: the working directory, from the root, following a final symlink; search permission on it is
 * not asked for, that it is a directory is.
 */
static int resolve_cwd(const struct vfs_ctx *ctx, const struct path *root,
		       struct create_process_args *args, struct path *cwd)
{
	int err;

	if (!args->cwd || !args->cwd[0]) {
		*cwd = *root;
		path_get(cwd);
		return 0;
	}
	err = kernel_fail_point("cwd") ? -ENOMEM
				       : path_lookup(ctx, root, args->cwd, WALK_FOLLOW, cwd);
	if (err)
		return fail(args, err, "can't resolve working directory \"%s\": %s", args->cwd,
			    strerror(-err));
	if (!S_ISDIR(cwd->dentry->inode->mode)) {
		path_put(cwd);
		return fail(args, -ENOTDIR, "working directory \"%s\" is not a directory",
			    args->cwd);
	}
	return 0;
}

/* An open file as the executable: what exec_open checks of a name, but for the permission to. */
static struct file *take_executable(const struct vfs_ctx *ctx, struct file *file, const char **name,
				    char **allocated)
{
	*name = *allocated = path_name(&file->path, &ctx->fs->root);
	if (!*allocated)
		return ERR_PTR(-ENOMEM);
	if (!S_ISREG(file->inode->mode) || !file->readable || path_noexec(&file->path))
		return ERR_PTR(-EACCES);
	return file_get(file);
}

/* 8: what to load. Returns a reference; *@name is what it was called by. */
static struct file *open_executable(const struct vfs_ctx *ctx, struct create_process_args *args,
				    const char **name, char **allocated)
{
	*allocated = NULL;
	if (args->filename) {
		*name = args->filename;
	} else if (args->file) {
		if (kernel_fail_point("open executable"))
			return ERR_PTR(-ENOMEM);
		return take_executable(ctx, args->file, name, allocated);
	} else if (!args->argv || !args->argv[0]) {
		fail(args, -EINVAL, "no filename or command provided");
		return ERR_PTR(-EINVAL);
	} else if (args->argv[0][0] != '/') {
		fail(args, -EINVAL, "command \"%s\" is not an absolute path", args->argv[0]);
		return ERR_PTR(-EINVAL);
	} else {
		*name = args->argv[0];
	}
	if (kernel_fail_point("open executable"))
		return ERR_PTR(-ENOMEM);
	return exec_open(ctx, NULL, *name, false, false);
}

/* Loads the image into a new address space. The errno survives (9). */
static int load(struct kernel *k, const struct vfs_ctx *ctx, struct create_process_args *args,
		const struct rlimit *limits, struct exec_result *result)
{
	struct exec_args ea = {
		.argv = (char **)(uintptr_t)args->argv,
		.envp = (char **)(uintptr_t)args->envp,
		.ctx = ctx,
		.no_new_privs = args->no_new_privs,
		.limits = {.as = limits[RLIMIT_AS].rlim_cur,
			   .data = limits[RLIMIT_DATA].rlim_cur,
			   .stack = limits[RLIMIT_STACK].rlim_cur,
			   .memlock = limits[RLIMIT_MEMLOCK].rlim_cur},
	};
	const char *name = NULL;
	char *allocated;
	struct file *file;
	int err;

	file = open_executable(ctx, args, &name, &allocated);
	err = PTR_ERR_OR_ZERO(file);
	if (err)
		goto out_name;
	ea.file = file;
	ea.filename = name;
	err = kernel_fail_point("load") ? -ENOMEM : exec_load(k->platform, &ea, result);
	file_put(file);
out_name:
	if (err && !args->error[0])
		fail(args, err, "can't run \"%s\": %s", name ? name : "the open file",
		     strerror(-err));
	kfree(allocated);
	return err;
}

/* Everything a task holds, referenced for it (10–12). */
static struct task *make_task(struct kernel *k, struct create_process_args *args,
			      const struct rlimit *limits, struct fs_context *fs, struct mnt_ns *ns,
			      struct exec_result *image)
{
	struct pid_ns *pid_ns = args->pid_ns ? args->pid_ns : k->root_pid_ns;
	struct task_args a = {
		.kernel = k,
		.exit_signal = SIGCHLD,
		.limits = limits,
		.cred = image->cred ? cred_get(image->cred) : cred_get(args->cred),
		.fs = fs_context_get(fs),
		.mnt_ns = mnt_ns_get(ns),
		.files = fd_table_get(args->files),
		.mm = mm_get(image->mm),
		.uts = uts_ns_get(args->uts ? args->uts : k->root_uts),
		.ipc = ipc_ns_get(args->ipc ? args->ipc : k->root_ipc),
		.net = net_ns_get(k->root_net),
		.pid_ns = pid_ns_get(pid_ns),
		.comm = image->comm,
	};
	struct task *t;

	a.sighand = kernel_fail_point("sighand") ? NULL : sighand_alloc();
	if (!a.sighand) {
		/* task_alloc would release these; it isn't reached. */
		pid_ns_put(a.pid_ns);
		net_ns_put(a.net);
		ipc_ns_put(a.ipc);
		uts_ns_put(a.uts);
		mm_put(a.mm);
		fd_table_put(&(struct vfs_ctx){0}, a.files);
		mnt_ns_put(a.mnt_ns);
		fs_context_put(a.fs);
		cred_put(a.cred);
		return ERR_PTR(-ENOMEM);
	}
	t = task_alloc(&a);
	if (!IS_ERR(t) && kernel_fail_point("task")) {
		task_put(t);
		return ERR_PTR(-ENOMEM);
	}
	return t;
}

/* 13: what runs as what, for the log. */
static void trace_exec(struct kernel *k, struct thread_group *tg, const char *comm,
		       char *const *argv)
{
	char line[512];
	size_t n = 0;

	if (log_level < LOG_DEBUG)
		return;
	line[0] = 0;
	for (; argv && *argv && n < sizeof(line); argv++)
		n += (size_t)snprintf(line + n, sizeof(line) - n, " \"%s\"", *argv);
	log_debug("process %d: exec %s:%s", pid_nr(tg->pid, k->root_pid_ns), comm, line);
}

/*
 * Makes the task visible, gives it its terminal, and makes the first one init, all in one step for
 * everybody else: a failure leaves nothing that anyone could have seen.
 */
static int publish(struct kernel *k, struct create_process_args *args, struct task *t,
		   struct mnt_ns *ns)
{
	const char *what = "can't make a process";
	int err;

	mutex_lock(&k->tasklist);
	err = kernel_fail_point("publish") ? -EAGAIN : task_publish_locked(t, NULL);
	if (!err && args->tty) {
		what = "can't make the terminal the controlling one";
		err = kernel_fail_point("terminal") ? -ENOMEM
						    : tty_set_controlling_locked(args->tty, t->tg);
		if (err)
			task_unpublish_locked(t);
	}
	if (!err && !k->init) {
		k->init = thread_group_get(t->tg);
		k->init_mnt_ns = mnt_ns_get(ns);
	}
	mutex_unlock(&k->tasklist);
	return err ? fail(args, err, "%s: %s", what, strerror(-err)) : 0;
}

int kernel_create_process(struct kernel *k, struct create_process_args *args,
			  struct thread_group **out)
{
	const struct rlimit *limits = args->limits ? args->limits : kernel_default_limits;
	struct exec_result image = {0};
	struct vfs_ctx ctx = {.fsize_limit = RLIM_INFINITY};
	struct fs_context *fs;
	struct path root, cwd;
	struct mnt_ns *ns;
	struct task *t;
	int err;

	args->error[0] = 0;
	ns = take_mnt_ns(k, args);
	if (IS_ERR(ns))
		return (int)PTR_ERR(ns);
	/* 3 */
	mnt_ns_root(ns, &root);
	/* Names resolve in the new process's root with its credentials. */
	fs = kernel_fail_point("fs context") ? NULL : fs_context_alloc(&root, &root, args->umask);
	err = -ENOMEM;
	if (!fs) {
		fail(args, err, "out of memory");
		goto out_root;
	}
	ctx.cred = args->cred;
	ctx.fs = fs;
	ctx.mnt_ns = ns;
	err = resolve_cwd(&ctx, &root, args, &cwd);
	if (err)
		goto out_fs;
	fs_context_set_cwd(fs, &cwd);
	err = load(k, &ctx, args, limits, &image);
	if (err)
		goto out_cwd;
	t = make_task(k, args, limits, fs, ns, &image);
	err = PTR_ERR_OR_ZERO(t);
	if (err) {
		fail(args, err, "can't make a process: %s", strerror(-err));
		goto out_image;
	}
	t->no_new_privs = args->no_new_privs;
	task_start_image(t, image.entry, image.sp);
	err = publish(k, args, t, ns);
	if (err)
		goto out_task;
	cpu_limit_update(t->tg);
	trace_exec(k, t->tg, image.comm, args->argv);
	/* 14. The task's own reference waits at the group's leader for kernel_start_process. */
	*out = thread_group_get(t->tg);
	goto out_image;

out_task:
	task_put(t);
out_image:
	exec_result_put(&image);
out_cwd:
	path_put(&cwd);
out_fs:
	fs_context_put(fs);
out_root:
	path_put(&root);
	mnt_ns_put(ns);
	return err;
}

/* The task that waits to be started, for the first who asks. NULL with *@err otherwise. */
static struct task *claim_new(struct kernel *k, struct thread_group *tg, int *err)
{
	struct task *t = NULL;

	mutex_lock(&k->tasklist);
	if (tg->started) {
		*err = -EEXIST;
	} else {
		tg->started = true;
		t = tg->leader;
	}
	mutex_unlock(&k->tasklist);
	return t;
}

int kernel_start_process(struct kernel *k, struct thread_group *tg)
{
	int err = 0;
	struct task *t = claim_new(k, tg, &err);

	if (!t)
		return err;
	mutex_lock(&k->tasklist);
	k->started = true;
	mutex_unlock(&k->tasklist);
	err = task_start(t);
	if (err)
		task_never_ran(t);
	return err;
}

int kernel_abort_process(struct kernel *k, struct thread_group *tg)
{
	int err = 0;
	struct task *t = claim_new(k, tg, &err);

	if (t)
		task_never_ran(t);
	return err;
}

/* ---- finding the executable: fact 31 ---- */

/* Is @path an executable file for @ctx? */
static int try_executable(const struct vfs_ctx *ctx, const char *path)
{
	struct file *file = exec_open(ctx, NULL, path, false, false);

	if (IS_ERR(file))
		return (int)PTR_ERR(file);
	file_put(file);
	return 0;
}

static const char *first_path(char *const *envp)
{
	for (; envp && *envp; envp++) {
		if (!strncmp(*envp, "PATH=", 5))
			return *envp + 5;
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

char *kernel_find_executable(const struct vfs_ctx *ctx, const char *name, char *const *envp,
			     const char *cwd)
{
	char buf[PATH_MAX];
	const char *path, *end;
	int err, result = -ENOENT;
	char *joined;

	if (!name[0])
		return ERR_PTR(-ENOENT);
	if (strchr(name, '/')) {
		/* 4: a relative working directory is one below the root. */
		if (name[0] == '/')
			err = snprintf(buf, sizeof(buf), "%s", name);
		else if (cwd && cwd[0])
			err = snprintf(buf, sizeof(buf), "%s%s/%s", cwd[0] == '/' ? "" : "/", cwd,
				       name);
		else
			err = snprintf(buf, sizeof(buf), "/%s", name);
		if ((size_t)err >= sizeof(buf))
			return ERR_PTR(-ENAMETOOLONG);
		joined = kstrdup(buf);
		return joined ? joined : ERR_PTR(-ENOMEM);
	}
	for (path = first_path(envp); *path; path = *end ? end + 1 : end) {
		char *found;

		end = strchrnul(path, ':');
		if (*path != '/' || (size_t)(end - path) + strlen(name) + 2 > sizeof(buf))
			continue;
		snprintf(buf, sizeof(buf), "%.*s/%s", (int)(end - path), path, name);
		err = try_executable(ctx, buf);
		switch (-err) {
		case 0:
			found = kstrdup(buf);
			return found ? found : ERR_PTR(-ENOMEM);
		case ENOENT:
		case ESTALE:
		case ENOTDIR:
		case ENODEV:
		case ETIMEDOUT:
			break;
		case EACCES:
			result = -EACCES;
			break;
		default:
			return ERR_PTR(err);
		}
	}
	return ERR_PTR(result);
}
