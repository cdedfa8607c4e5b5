/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sentry/boot.h"
#include "sentry/config.h"
#include "sentry/console.h"
#include "sentry/function.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfd.h"
#include "sentry/passwd.h"
#include "vfs/rootfs.h"

/* One launch under way. */
struct launch {
	struct kernel *kernel;
	const struct vfs_ctx *caller;
	const struct config *config;
	int stdio[3]; /* host descriptors not yet handed on, -1: none */
	struct passwd_entry user;
	struct cred *cred;
	struct fd_table *files;
	struct launched *out;
};

static int fail(struct launch *l, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(struct launch *l, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(l->out->error, sizeof(l->out->error), fmt, ap);
	va_end(ap);
	l->out->status = status;
	return -1;
}

int caller_init(struct vfs_ctx *c, struct mnt_ns *ns)
{
	struct path root;

	memset(c, 0, sizeof(*c));
	c->mnt_ns = ns;
	c->fsize_limit = RLIM_INFINITY;
	c->cred = cred_alloc(0, 0, NULL, 0, CAP_FULL_SET);
	mnt_ns_root(ns, &root);
	c->fs = fs_context_alloc(&root, &root, 0);
	path_put(&root);
	if (c->cred && c->fs)
		return 0;
	caller_fini(c);
	return -ENOMEM;
}

void caller_fini(struct vfs_ctx *c)
{
	if (c->fs)
		fs_context_put(c->fs);
	cred_put(c->cred);
	memset(c, 0, sizeof(*c));
}

static int take_stdio(struct launch *l, int i)
{
	int fd = l->stdio[i];

	l->stdio[i] = -1;
	return fd;
}

static int install_file(struct launch *l, struct file *file, int fd)
{
	int err = PTR_ERR_OR_ZERO(file);

	if (!err)
		err = fd_replace(l->caller, l->files, file, (unsigned int)fd, false, 1024);
	if (err < 0)
		return fail(l, EXIT_KVMSBOX, "can't set up descriptor %d: %s", fd, strerror(-err));
	return 0;
}

static int set_up_terminal(struct launch *l)
{
	int in = take_stdio(l, 0), out = take_stdio(l, 1), err;
	struct file *slave;

	err = console_create(l->kernel, l->caller->mnt_ns, in, out, &l->out->console, &slave);
	if (err)
		return fail(l, EXIT_KVMSBOX, "can't make a terminal: %s", strerror(-err));
	for (int i = 0; i < 3 && !err; i++)
		err = install_file(l, file_get(slave), i);
	file_put(slave);
	return err;
}

/* The host's descriptor @i as the process's. */
static int pass_file(struct launch *l, int i)
{
	int host = take_stdio(l, i), index, flags;
	struct file *file;

	if (host < 0)
		return 0;
	/* The image must not be able to change what the caller's shell shares with us. */
	flags = fcntl(host, F_GETFL);
	if (flags < 0) {
		int err = errno;

		close(host);
		return fail(l, EXIT_KVMSBOX, "can't pass descriptor %d: %s", i, strerror(err));
	}
	index = hostfd_add(host);
	if (index < 0)
		return fail(l, EXIT_KVMSBOX, "can't pass descriptor %d: %s", i, strerror(-index));
	file = hostfile_alloc(index, (unsigned int)flags, l->cred);
	if (IS_ERR(file)) {
		hostfd_close(index);
	} else if (!l->kernel->init) {
		hostfd_set_use(index, HOSTFD_STDIO);
		l->kernel->stdio[i].index = index;
		l->kernel->stdio[i].file = hostfile_state(file);
	}
	return install_file(l, file, i);
}

static int set_up_files(struct launch *l)
{
	l->files = fd_table_alloc();
	if (!l->files)
		return fail(l, EXIT_KVMSBOX, "out of memory");
	if (l->config->fn_kind && !l->kernel->init) {
		int err = function_prepare(l->kernel, l->caller, l->files, l->config->fn_kind,
					   l->config->fn_port, l->config->fn_channel);

		return err ? fail(l, EXIT_KVMSBOX, "can't prepare for a function: %s",
				  strerror(-err))
			   : 0;
	}
	if (l->config->terminal)
		return set_up_terminal(l);
	for (int i = 0; i < 3; i++) {
		if (pass_file(l, i))
			return -1;
	}
	return 0;
}

static int set_up_cred(struct launch *l)
{
	const struct config *c = l->config;
	struct passwd_entry *user = &l->user;
	char why[256];

	user->uid = c->uid;
	user->gid = c->gid;
	memcpy(user->groups, c->groups, c->ngroups * sizeof(user->groups[0]));
	user->ngroups = c->ngroups;
	if (passwd_resolve(l->caller, c->user, user, why, sizeof(why)))
		return fail(l, EXIT_KVMSBOX, "%s", why);
	/* The sandbox's root rules the sandbox: everything it can reach is its own. */
	l->cred = cred_alloc(user->uid, user->gid, user->groups, (unsigned int)user->ngroups,
			     CAP_FULL_SET);
	return l->cred ? 0 : fail(l, EXIT_KVMSBOX, "out of memory");
}

/*
 * @env with HOME as the user's home directory unless it says otherwise (fact 33): a malloc'd array
 * whose last string, if *@added, is malloc'd, too. NULL: out of memory.
 */
static char **with_home(char *const *env, const char *home, bool *added)
{
	size_t n = 0;
	char **v;

	*added = true;
	for (; env[n]; n++) {
		if (!strncmp(env[n], "HOME=", 5))
			*added = false;
	}
	v = calloc(n + 2, sizeof(*v));
	if (!v)
		return NULL;
	memcpy(v, env, n * sizeof(*v));
	if (*added && asprintf(&v[n], "HOME=%s", home[0] ? home : "/") < 0) {
		free(v);
		return NULL;
	}
	return v;
}

static int exec_status(int err)
{
	switch (-err) {
	case ENOENT:
	case ENOTDIR:
		return EXIT_NOT_FOUND;
	case ENOMEM:
	case EAGAIN:
	case ESRCH:
		return EXIT_KVMSBOX;
	default:
		return EXIT_CANT_EXEC;
	}
}

static int create(struct launch *l, char *const *envp)
{
	const struct config *c = l->config;
	struct create_process_args args = {
		.filename = c->filename,
		.argv = c->args,
		.envp = envp,
		.cwd = c->cwd,
		.umask = c->umask,
		.cred = l->cred,
		.files = l->files,
		.mnt_ns = NULL,
		.no_new_privs = c->no_new_privs,
		.tty = l->out->console ? console_tty(l->out->console) : NULL,
	};
	char *found = NULL;
	int err;

	if (!c->filename) {
		struct vfs_ctx ctx = *l->caller;

		ctx.cred = l->cred;
		found = kernel_find_executable(&ctx, c->args[0], envp, c->cwd);
		err = PTR_ERR_OR_ZERO(found);
		if (err)
			return fail(l, exec_status(err), "%s: %s", c->args[0],
				    err == -ENOENT
					    ? "command not found in the image (looked in PATH)"
					    : strerror(-err));
		args.filename = found;
	}
	args.mnt_ns = mnt_ns_get(l->caller->mnt_ns);
	err = kernel_create_process(l->kernel, &args, &l->out->tg);
	kfree(found);
	if (err) {
		bool cwd = strstr(args.error, "working directory");

		return fail(l, cwd ? EXIT_KVMSBOX : exec_status(err), "%s", args.error);
	}
	return 0;
}

static int create_with_env(struct launch *l)
{
	bool added;
	char **env = with_home(l->config->env, l->user.home, &added);
	size_t n = 0;
	int ret;

	if (!env)
		return fail(l, EXIT_KVMSBOX, "out of memory");
	ret = create(l, env);
	while (env[n])
		n++;
	if (added)
		free(env[n - 1]);
	free(env);
	return ret;
}

int launch(struct kernel *k, const struct vfs_ctx *caller, const struct config *c,
	   const int stdio[3], struct launched *out)
{
	struct launch l = {.kernel = k,
			   .caller = caller,
			   .config = c,
			   .stdio = {stdio[0], stdio[1], stdio[2]},
			   .out = out};
	int ret = -1;

	memset(out, 0, sizeof(*out));
	if (!c->args[0])
		fail(&l, EXIT_KVMSBOX, "no command given");
	else if (!set_up_cred(&l) && !set_up_files(&l))
		ret = create_with_env(&l);
	for (int i = 0; i < 3; i++) {
		if (l.stdio[i] >= 0)
			close(l.stdio[i]);
	}
	/* The process has references of its own. */
	if (l.files)
		fd_table_put(caller, l.files);
	cred_put(l.cred);
	if (ret) {
		console_put(out->console);
		out->console = NULL;
	}
	return ret;
}

int exit_status_of(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}
