/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Creating processes, fact by fact as docs/create-process.md numbers them: 1 to 14 and 31 to 34.
 * What loading does (15 to 24) is in process_load.c, groups, IDs and ends (25 to 30) in
 * process_ids.c, execve (35) in process_clone.c, failures of every step in process_oom.c.
 */
#include <linux/magic.h>
#include <pthread.h>
#include <sys/mman.h>

#include "test/unit/process_support.h"

static struct world w;
#define CTX (&w.env.ctx)

/* ---- 1: creations by many threads at once ---- */

#define NR_THREADS 4
#define NR_EACH	   25

static void *create_many(void *arg)
{
	struct thread_group **out = arg;

	for (int i = 0; i < NR_EACH; i++) {
		struct create_process_args a = world_args(&w);

		if (kernel_create_process(w.k, &a, &out[i]))
			out[i] = NULL;
	}
	return NULL;
}

static void test_1_parallel(void)
{
	static struct thread_group *tg[NR_THREADS * NR_EACH];
	bool seen[NR_THREADS * NR_EACH + 2] = {false}, all = true, unique = true;
	pthread_t threads[NR_THREADS];
	struct counts before;
	int nr_init = 0;

	world_open(&w);
	before = counts_now(&w);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, create_many, &tg[i * NR_EACH]);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < ARRAY_SIZE(tg); i++) {
		pid_t nr = tg[i] ? pid_nr(tg[i]->pid, w.k->root_pid_ns) : 0;

		all = all && tg[i];
		if (nr < 1 || nr > (int)ARRAY_SIZE(tg) || seen[nr])
			unique = false;
		else
			seen[nr] = true;
		nr_init += tg[i] && tg[i] == w.k->init;
	}
	CHECK("1: threads create at once", all);
	CHECK("1: every process has an ID of its own", unique);
	CHECK("1: one of them is init, to all alike",
	      nr_init == 1 && w.k->root_pid_ns->init == w.k->init);
	for (size_t i = 0; i < ARRAY_SIZE(tg); i++) {
		if (tg[i] && tg[i] != w.k->init)
			drop_process(&w, tg[i]);
	}
	w.init = w.k->init;
	CHECK_EQ("1: one process is left", w.k->nr_tasks, before.nr_tasks + 1);
	world_close(&w);
}

/* ---- 2: the mount namespace ---- */

static void test_2_mnt_ns(void)
{
	struct create_process_args a;
	struct thread_group *tg;
	struct counts before;
	uint32_t refs;

	world_open(&w);
	before = counts_now(&w);
	a = world_args(&w);
	mnt_ns_put(a.mnt_ns);
	a.mnt_ns = NULL;
	CHECK_EQ("2: none given and no init", failing(&w, &a), -EINVAL);
	CHECK("2: says that there is none", !strcmp(a.error, "mount namespace is nil"));
	CHECK_COUNTS("2: nothing is left", &w, &before);

	a = world_args(&w);
	a.cwd = "/no/such";
	CHECK_EQ("2: a failure", failing(&w, &a), -ENOENT);
	CHECK_COUNTS("2: consumes the reference given", &w, &before);
	CHECK("2: and forgets the pointer", !a.mnt_ns);

	a = world_args(&w);
	refs = refcount_read(&w.env.ns->refs);
	w.init = xcreate(&w, &a);
	CHECK("2: success consumes it, too", !a.mnt_ns);
	/* The one that was given is the task's now; the kernel remembers init's with one of its
	 * own. */
	CHECK_EQ("2: references after init", refcount_read(&w.env.ns->refs), refs + 1);

	refs = refcount_read(&w.env.ns->refs);
	a = world_args(&w);
	mnt_ns_put(a.mnt_ns);
	a.mnt_ns = NULL;
	tg = xcreate(&w, &a);
	CHECK("2: none given: init's", tg->leader->vfs.mnt_ns == w.env.ns);
	CHECK_EQ("2: with a reference", refcount_read(&w.env.ns->refs), refs + 1);
	drop_process(&w, tg);
	CHECK_EQ("2: that goes with it", refcount_read(&w.env.ns->refs), refs);
	world_close(&w);
}

/* ---- 3: the root ---- */

static void test_3_root(void)
{
	struct create_process_args a;
	struct vfs_env top = {0};
	struct thread_group *tg;
	struct path root;

	world_open(&w);
	a = world_args(&w);
	w.init = xcreate(&w, &a);
	fs_context_root(w.init->leader->vfs.fs, &root);
	CHECK("3: the namespace's root",
	      root.mnt == w.env.ns->root && root.dentry == w.env.ns->root->root);
	path_put(&root);

	xmount(&w, "tmpfs", "mode=755", "/");
	a = world_args(&w);
	CHECK_EQ("3: nothing of below is seen", failing(&w, &a), -ENOENT);
	/* The sentry's own context still has the old root: another one writes to the new one. */
	top = w.env;
	mnt_ns_root(w.env.ns, &root);
	top.ctx.fs = fs_context_alloc(&root, &root, 0);
	put_programs(&top);
	a = world_args(&w);
	tg = xcreate(&w, &a);
	CHECK("3: a root that is mounted over",
	      tg->leader->vfs.fs->root.mnt == root.mnt && root.mnt != w.env.ns->root);
	drop_process(&w, tg);
	fs_context_put(top.ctx.fs);
	path_put(&root);
	world_close(&w);
}

/* ---- 4, 5: the working directory ---- */

static bool cwd_is(const char *cwd, const char *want, struct cred *cred)
{
	struct create_process_args a = world_args(&w);
	struct thread_group *tg;
	struct path path;
	char *name;
	bool ok;

	a.cwd = cwd;
	if (cred)
		a.cred = cred;
	if (kernel_create_process(w.k, &a, &tg)) {
		printf("# %s\n", a.error);
		return false;
	}
	fs_context_cwd(tg->leader->vfs.fs, &path);
	name = path_name(&path, &tg->leader->vfs.fs->root);
	ok = name && !strcmp(name, want);
	kfree(name);
	path_put(&path);
	drop_process(&w, tg);
	return ok;
}

static int cwd_error(const char *cwd, struct cred *cred, const char *quoted)
{
	struct create_process_args a = world_args(&w);
	int err;

	a.cwd = cwd;
	if (cred)
		a.cred = cred;
	err = failing(&w, &a);
	if (!strstr(a.error, quoted) || !strstr(a.error, "working directory")) {
		printf("# %s\n", a.error);
		return -EIO;
	}
	return err;
}

static void test_4_cwd(void)
{
	world_open_init(&w);
	vfs_symlink(CTX, "/work", NULL, "/work/sub/up");
	vfs_symlink(CTX, "loop", NULL, "/loop");
	vfs_mkdir(CTX, NULL, "/closed", 0700);
	vfs_mkdir(CTX, NULL, "/closed/in", 0755);
	CHECK("4: none is the root", cwd_is(NULL, "/", NULL));
	CHECK("4: empty is the root", cwd_is("", "/", NULL));
	CHECK("4: absolute", cwd_is("/work/sub", "/work/sub", NULL));
	CHECK("4: relative is from the root", cwd_is("work/sub", "/work/sub", NULL));
	CHECK("4: a final symlink is followed", cwd_is("/work/sub/up", "/work", NULL));
	CHECK("4: dot-dot stops at the root", cwd_is("/../../work", "/work", NULL));
	CHECK_EQ("4: missing", cwd_error("/no/such dir", NULL, "\"/no/such dir\""), -ENOENT);
	CHECK_EQ("4: a loop", cwd_error("/loop", NULL, "\"/loop\""), -ELOOP);
	CHECK_EQ("4: below what is no directory",
		 cwd_error("/work/text/x", NULL, "\"/work/text/x\""), -ENOTDIR);
	CHECK_EQ("4: with the new credentials", cwd_error("/closed/in", w.user, "\"/closed/in\""),
		 -EACCES);
	CHECK("4: which may be able to", cwd_is("/closed/in", "/closed/in", NULL));
	CHECK("5: search permission on it isn't asked for", cwd_is("/closed", "/closed", w.user));
	CHECK_EQ("5: a file", cwd_error("/work/text", NULL, "\"/work/text\""), -ENOTDIR);
	world_close(&w);
}

/* ---- 6: the fs context ---- */

static void test_6_fs_context(void)
{
	struct create_process_args a;
	struct thread_group *tg;
	uint32_t root_refs, dir_refs;
	struct counts before;
	struct path dir;

	world_open_init(&w);
	dir = xlookup(&w.env, "/work", 0);
	before = counts_now(&w);
	root_refs = refcount_read(&w.env.ns->root->root->refs);
	dir_refs = refcount_read(&dir.dentry->refs);
	a = world_args(&w);
	a.cwd = "/work";
	a.umask = 07027;
	tg = xcreate(&w, &a);
	CHECK_EQ("6: one holder", refcount_read(&tg->leader->vfs.fs->refs), 1);
	CHECK_EQ("6: umask", tg->leader->vfs.fs->umask, 027);
	CHECK_EQ("6: one reference on the root", refcount_read(&w.env.ns->root->root->refs),
		 root_refs + 1);
	CHECK_EQ("6: one on the working directory", refcount_read(&dir.dentry->refs), dir_refs + 1);
	drop_process(&w, tg);
	CHECK_EQ("6: which goes", refcount_read(&dir.dentry->refs), dir_refs);
	CHECK_COUNTS("6: everything goes", &w, &before);
	path_put(&dir);
	world_close(&w);
}

/* ---- 7: the thread group ---- */

static void test_7_thread_group(void)
{
	struct rlimit limits[RLIM_NLIMITS];
	struct create_process_args a;
	struct thread_group *tg;
	bool defaults = true;

	world_open_init(&w);
	w.init->sighand->action[SIGINT - 1].handler = (uaddr_t)(uintptr_t)SIG_IGN;
	memcpy(limits, kernel_default_limits, sizeof(limits));
	limits[RLIMIT_NOFILE] = (struct rlimit){77, 88};
	a = world_args(&w);
	a.limits = limits;
	tg = xcreate(&w, &a);
	for (int i = 0; i < NSIGS; i++)
		defaults = defaults && !tg->sighand->action[i].handler;
	CHECK("7: signal handlers of its own",
	      tg->sighand != w.init->sighand && refcount_read(&tg->sighand->refs) == 1);
	CHECK("7: at their defaults", defaults);
	CHECK_EQ("7: exit signal", tg->exit_signal, SIGCHLD);
	CHECK("7: the limits given", !memcmp(tg->limits, limits, sizeof(limits)));
	CHECK("7: or the defaults",
	      !memcmp(w.init->limits, kernel_default_limits, sizeof(w.init->limits)));
	CHECK("7: one thread", tg->nr_threads == 1 && tg->nr_live == 1 && !tg->parent);
	drop_process(&w, tg);
	world_close(&w);
}

/* ---- 8, 9: the executable ---- */

/* Creates with @a and compares AT_EXECFN and the task's name. */
static bool execfn_is(struct create_process_args *a, const char *want, const char *comm)
{
	struct thread_group *tg;
	struct start s;
	char name[64];
	bool ok;

	if (kernel_create_process(w.k, a, &tg)) {
		printf("# %s\n", a->error);
		return false;
	}
	read_start(tg->leader, &s);
	peek_string(tg->leader->mm, s.aux[AT_EXECFN], name, sizeof(name));
	ok = !strcmp(name, want) && !strcmp(tg->leader->comm, comm);
	if (!ok)
		printf("# runs %s as %s\n", name, tg->leader->comm);
	drop_process(&w, tg);
	return ok;
}

static void test_8_what_to_run(void)
{
	static const char *const argv_relative[] = {"prog", NULL};
	static const char *const argv_dotted[] = {"./prog", NULL};
	static const char *const argv_missing[] = {"/no", NULL};
	struct create_process_args a;
	struct counts before;
	struct file *f, *wo, *dir;

	world_open_init(&w);
	f = xopen(&w.env, "/bin/link", O_RDONLY);
	wo = xopen(&w.env, "/work/text", O_WRONLY);
	dir = xopen(&w.env, "/bin", O_RDONLY | O_DIRECTORY);
	a = world_args(&w);
	a.filename = "/bin/dynamic";
	CHECK("8: a filename goes before argv", execfn_is(&a, "/bin/dynamic", "dynamic"));
	a = world_args(&w);
	a.filename = "/bin/dynamic";
	a.file = f;
	CHECK("8: and before a file", execfn_is(&a, "/bin/dynamic", "dynamic"));
	a = world_args(&w);
	a.filename = "sub/../../bin/prog";
	a.cwd = "/work/sub";
	CHECK_EQ("8: a relative one is below the working directory", failing(&w, &a), -ENOENT);
	a = world_args(&w);
	a.filename = "../bin/prog";
	a.cwd = "/work";
	CHECK("8: wherever that is", execfn_is(&a, "../bin/prog", "prog"));
	a = world_args(&w);
	a.file = wo;
	CHECK_EQ("8: a file that can't be read", failing(&w, &a), -EACCES);
	file_put(wo);
	before = counts_now(&w);
	a = world_args(&w);
	a.file = f;
	CHECK("8: a file, by the name that it has", execfn_is(&a, "/bin/prog", "prog"));
	a = world_args(&w);
	a.file = f;
	a.argv = NULL;
	CHECK("8: with no argv at all", execfn_is(&a, "/bin/prog", "prog"));
	CHECK_EQ("8: the file stays the caller's", refcount_read(&f->refs), 1);
	a = world_args(&w);
	a.file = dir;
	CHECK_EQ("8: a directory", failing(&w, &a), -EACCES);
	a = world_args(&w);
	CHECK("8: else argv[0]", execfn_is(&a, "/bin/prog", "prog"));
	a = world_args(&w);
	a.argv = NULL;
	CHECK_EQ("8: no argv", failing(&w, &a), -EINVAL);
	CHECK("8: says so", !strcmp(a.error, "no filename or command provided"));
	a = world_args(&w);
	a.argv = STRINGS(argv_prog) + 3;
	CHECK_EQ("8: an empty argv", failing(&w, &a), -EINVAL);
	CHECK("8: says the same", !strcmp(a.error, "no filename or command provided"));
	a = world_args(&w);
	a.argv = STRINGS(argv_relative);
	CHECK_EQ("8: argv[0] without a slash", failing(&w, &a), -EINVAL);
	CHECK("8: is named", strstr(a.error, "\"prog\""));
	a = world_args(&w);
	a.argv = STRINGS(argv_dotted);
	a.cwd = "/bin";
	CHECK_EQ("8: a relative argv[0]", failing(&w, &a), -EINVAL);
	a = world_args(&w);
	a.argv = STRINGS(argv_missing);
	CHECK_EQ("9: the errno survives", failing(&w, &a), -ENOENT);
	CHECK("9: with the name", strstr(a.error, "\"/no\"") && strstr(a.error, "No such file"));
	a = world_args(&w);
	a.filename = "/work/text";
	CHECK_EQ("9: for 126 as for 127", failing(&w, &a), -EACCES);
	CHECK_COUNTS("8: nothing is left of all this", &w, &before);
	file_put(dir);
	file_put(f);
	world_close(&w);
}

static uid_t euid_of(struct create_process_args *a)
{
	struct thread_group *tg = xcreate(&w, a);
	uid_t euid = tg->leader->vfs.cred->euid;

	drop_process(&w, tg);
	return euid;
}

static void test_9_loading(void)
{
	struct create_process_args a;
	struct thread_group *tg;
	struct iattr_change owner = {.valid = ATTR_UID, .uid = 5}, mode = {.valid = ATTR_MODE};
	struct path setuid;
	struct prog p;

	world_open_init(&w);
	prog_init(&p, ET_EXEC);
	put_prog(&w.env, "/bin/setuid", &p, 0755);
	setuid = xlookup(&w.env, "/bin/setuid", 0);
	vfs_setattr(CTX, &setuid, &owner);
	mode.mode = 04755;
	vfs_setattr(CTX, &setuid, &mode);

	a = world_args(&w);
	a.filename = "/bin/link";
	CHECK("9: a final symlink is followed", execfn_is(&a, "/bin/link", "link"));
	a = world_args(&w);
	a.filename = "/bin/setuid";
	a.cred = w.user;
	tg = xcreate(&w, &a);
	CHECK("9: set-user-id",
	      tg->leader->vfs.cred->euid == 5 && tg->leader->vfs.cred->uid == 1000);
	CHECK("11: the loader's credentials", tg->leader->vfs.cred != w.user);
	CHECK_EQ("11: the requested user is charged", tg->leader->user->uid, 1000);
	drop_process(&w, tg);
	a = world_args(&w);
	a.filename = "/bin/setuid";
	a.cred = w.user;
	a.no_new_privs = true;
	tg = xcreate(&w, &a);
	CHECK_EQ("9: not under no_new_privs", tg->leader->vfs.cred->euid, 1000);
	CHECK("9: which the task keeps", tg->leader->no_new_privs);
	drop_process(&w, tg);
	xmount(&w, "tmpfs", "mode=755", "/mnt");
	put_prog(&w.env, "/mnt/setuid", &p, 04755);
	path_put(&setuid);
	setuid = xlookup(&w.env, "/mnt/setuid", 0);
	vfs_setattr(CTX, &setuid, &owner);
	vfs_setattr(CTX, &setuid, &mode);
	a = world_args(&w);
	a.filename = "/mnt/setuid";
	a.cred = w.user;
	CHECK_EQ("9: on any mount", euid_of(&a), 5);
	setuid.mnt->flags |= MS_NOSUID;
	a = world_args(&w);
	a.filename = "/mnt/setuid";
	a.cred = w.user;
	CHECK_EQ("9: not where it is switched off", euid_of(&a), 1000);
	setuid.mnt->flags |= MS_NOEXEC;
	a = world_args(&w);
	a.filename = "/mnt/setuid";
	CHECK_EQ("9: nothing from a noexec mount", failing(&w, &a), -EACCES);
	path_put(&setuid);
	world_close(&w);
}

/* ---- 10 to 12: what the task holds ---- */

static void test_10_references(void)
{
	struct create_process_args a;
	struct thread_group *tg;
	struct counts before, now;
	struct uts_ns *uts;
	struct ipc_ns *ipc;
	struct task *t;

	world_open_init(&w);
	CHECK_EQ("10: caller and init hold the descriptors", refcount_read(&w.files->refs), 2);
	before = counts_now(&w);
	a = world_args(&w);
	a.filename = "/no";
	CHECK_EQ("10: a failed load", failing(&w, &a), -ENOENT);
	CHECK_COUNTS("10: takes no reference", &w, &before);
	a = world_args(&w);
	tg = xcreate(&w, &a);
	t = tg->leader;
	now = counts_now(&w);
	CHECK("10: the table is the caller's", t->files == w.files);
	CHECK_EQ("10: with a reference", now.files, before.files + 1);
	CHECK("11: the root network namespace", t->net == w.k->root_net);
	CHECK("11: all CPUs", CPU_EQUAL(&t->cpus, &w.k->cpus));
	CHECK_EQ("12: UTS", now.uts, before.uts + 1);
	CHECK_EQ("12: IPC", now.ipc, before.ipc + 1);
	CHECK_EQ("12: network", now.net, before.net + 1);
	/* The task's children's, and that of its ID. */
	CHECK_EQ("12: PID", now.pid_ns, before.pid_ns + 2);
	CHECK_EQ("12: mounts", now.ns, before.ns + 1);
	CHECK_EQ("12: one address space", now.spaces, before.spaces + 1);
	CHECK_EQ("12: whose only user it is", refcount_read(&t->mm->users), 1);
	drop_process(&w, tg);
	CHECK_COUNTS("12: all of which it releases", &w, &before);

	uts = uts_ns_alloc("other", "");
	ipc = ipc_ns_alloc();
	a = world_args(&w);
	a.uts = uts;
	a.ipc = ipc;
	tg = xcreate(&w, &a);
	CHECK("12: those given", tg->leader->uts == uts && tg->leader->ipc == ipc);
	drop_process(&w, tg);
	CHECK("12: stay the caller's",
	      refcount_read(&uts->refs) == 1 && refcount_read(&ipc->refs) == 1);
	uts_ns_put(uts);
	ipc_ns_put(ipc);
	world_close(&w);
}

/* ---- 13: the exec event, the terminal ---- */

static void test_13_terminal(void)
{
	struct file *master, *slave;
	struct create_process_args a;
	struct thread_group *tg;
	struct counts before;
	struct tty *tty;

	world_open(&w);
	xmount(&w, "devpts", NULL, "/dev/pts");
	CHECK_EQ("13: a terminal", tty_create_console(w.k, w.env.ns, &master, &slave), 0);
	tty = tty_of_file(slave);

	/* The first process fails at its terminal: nothing is left, least of all a dead init. */
	before = counts_now(&w);
	atomic_store(&kernel_fail_step, 7);
	a = world_args(&w);
	a.tty = tty;
	CHECK_EQ("13: failing at the terminal", failing(&w, &a), -ENOMEM);
	CHECK_EQ("13: which is the last step", atomic_exchange(&kernel_fail_step, 0), 0);
	CHECK("13: is said", strstr(a.error, "terminal"));
	CHECK_COUNTS("13: unwinds everything", &w, &before);
	CHECK("13: no session has it", !tty->session && !tty->pgrp);
	CHECK("13: there is no init yet",
	      !w.k->init && !w.k->init_mnt_ns && !w.k->root_pid_ns->init && !w.k->exited);

	a = world_args(&w);
	a.tty = tty;
	w.init = xcreate(&w, &a);
	CHECK("13: the controlling terminal",
	      w.init->tty == tty && tty->session == w.init->session && tty->pgrp == w.init->pgrp);
	CHECK("13: has been no other's before it", w.k->init == w.init);
	before = counts_now(&w);
	a = world_args(&w);
	a.tty = tty;
	CHECK_EQ("13: another session can't have it, too", failing(&w, &a), -EPERM);
	CHECK_COUNTS("13: and is undone", &w, &before);
	CHECK("13: it stays where it was", w.init->tty == tty && tty->session == w.init->session);
	a = world_args(&w);
	tg = xcreate(&w, &a);
	CHECK("13: none unless asked for", !tg->tty);
	drop_process(&w, tg);
	/* Its end gives it up. */
	drop_process(&w, w.init);
	w.init = NULL;
	CHECK("13: given up at the end", !tty->session && !tty->pgrp);
	file_put(slave);
	file_put(master);
	world_close(&w);
}

static void test_13_trace(void)
{
	int fd = memfd_create("log", MFD_CLOEXEC);
	enum log_level level = log_level;
	struct create_process_args a;
	char log[4096] = "";

	world_open(&w);
	log_set_fd(fd);
	log_level = LOG_DEBUG;
	a = world_args(&w);
	w.init = xcreate(&w, &a);
	a = world_args(&w);
	a.filename = "/no";
	failing(&w, &a);
	log_level = level;
	log_set_fd(STDERR_FILENO);
	CHECK("13: something was logged", pread(fd, log, sizeof(log) - 1, 0) > 0);
	CHECK("13: the exec event has ID, name and argv",
	      strstr(log, "process 1: exec prog: \"/bin/prog\" \"one\" \"two words\""));
	CHECK("13: failures are none", !strstr(log, "process 2"));
	close(fd);
	world_close(&w);
}

/* ---- 14: success ---- */

static void test_14_success(void)
{
	struct create_process_args a;
	struct thread_group *tg;
	struct task *t;

	world_open(&w);
	a = world_args(&w);
	a.filename = "/no";
	CHECK_EQ("14: a failure", failing(&w, &a), -ENOENT);
	CHECK("14: makes no init", !w.k->init);
	a = world_args(&w);
	w.init = xcreate(&w, &a);
	a = world_args(&w);
	tg = xcreate(&w, &a);
	t = w.init->leader;
	CHECK_EQ("14: the first ID", pid_nr(w.init->pid, w.k->root_pid_ns), 1);
	CHECK_EQ("14: the second", pid_nr(tg->pid, w.k->root_pid_ns), 2);
	CHECK("14: the first success is init",
	      w.k->init == w.init && w.k->root_pid_ns->init == w.init);
	CHECK("14: with its mounts", w.k->init_mnt_ns == w.env.ns);
	CHECK("14: found by its number", task_find(w.k, w.k->root_pid_ns, 1) == t);
	task_put(t);
	CHECK_EQ("14: nothing runs", w.k->nr_threads_running, 0);
	CHECK("14: the task is new", t->state == TASK_NEW && !t->host_tid && !w.init->started);
	CHECK("14: nor has the kernel started", !w.k->started);
	drop_process(&w, tg);
	world_close(&w);
}

/* ---- 31: PATH ---- */

/* "path" or the errno in a static buffer. */
static const char *find(const char *name, const char *path, const char *cwd)
{
	static char result[256];
	char var[256];
	char *envp[] = {(char *)(uintptr_t) "XPATH=/nowhere", var, (char *)(uintptr_t) "PATH=/work",
			NULL};
	char *found;

	snprintf(var, sizeof(var), "PATH=%s", path ? path : "");
	if (!path)
		envp[1] = NULL;
	found = kernel_find_executable(CTX, name, envp, cwd);
	if (IS_ERR(found))
		return strerrorname_np((int)-PTR_ERR(found));
	snprintf(result, sizeof(result), "%s", found);
	kfree(found);
	return result;
}

#define CHECK_FIND(what, want, ...) CHECK(what, !strcmp(find(__VA_ARGS__), want))

static void test_31_path(void)
{
	static char long_name[5000];
	struct create_process_args a;
	struct thread_group *tg;
	struct counts before;
	struct prog p;
	char *found;

	world_open_init(&w);
	prog_init(&p, ET_EXEC);
	put_prog(&w.env, "/sbin/tool", &p, 0755);
	put_prog(&w.env, "/work/tool", &p, 0644);
	put_prog(&w.env, "/work/only", &p, 0644);
	vfs_mkdir(CTX, NULL, "/work/dir", 0755);
	vfs_symlink(CTX, "loop", NULL, "/work/loop");
	before = counts_now(&w);
	CHECK_FIND("31: absolute is left alone", "/no/such", "/no/such", "/bin", "/work");
	CHECK_FIND("31: with a slash it is below the working directory", "/work/a/b", "a/b", "/bin",
		   "/work");
	CHECK_FIND("31: or below the root", "/a/b", "a/b", "/bin", NULL);
	CHECK_FIND("31: a relative working directory is below the root", "/work/./b", "./b", "/bin",
		   "work");
	CHECK_FIND("31: the first PATH, in order", "/bin/prog", "prog", "/sbin:/bin", "/");
	CHECK_FIND("31: no other variable, no other PATH", "ENOENT", "text", "/sbin:/bin", "/");
	CHECK_FIND("31: relative entries are skipped", "ENOENT", "prog", "bin:./bin:", "/");
	CHECK_FIND("31: empty ones, too", "ENOENT", "prog", "::", "/bin");
	CHECK_FIND("31: found behind them", "/bin/prog", "prog", ":bin:/bin", "/");
	CHECK_FIND("31: a missing directory goes on", "/bin/prog", "prog", "/no:/bin", "/");
	CHECK_FIND("31: what is no directory goes on", "/bin/prog", "prog", "/work/text:/bin", "/");
	CHECK_FIND("31: no permission goes on", "/sbin/tool", "tool", "/work:/sbin", "/");
	CHECK_FIND("31: and is remembered", "EACCES", "only", "/work:/sbin", "/");
	CHECK_FIND("31: whatever comes behind", "EACCES", "only", "/sbin:/work:/no", "/");
	CHECK_FIND("31: a directory is no permission", "EACCES", "dir", "/work:/sbin", "/");
	CHECK_FIND("31: anything else stops", "ELOOP", "loop", "/work:/bin", "/");
	CHECK_FIND("31: found nowhere", "ENOENT", "nothing", "/bin:/sbin", "/");
	CHECK_FIND("31: an empty PATH", "ENOENT", "prog", "", "/");
	CHECK_FIND("31: no PATH: the usual one", "/bin/prog", "prog", NULL, "/");
	CHECK_FIND("31: no name", "ENOENT", "", "/bin", "/");
	memset(long_name, 'x', sizeof(long_name) - 1);
	CHECK_FIND("31: a name too long for any directory", "ENOENT", long_name, "/bin", "/");
	long_name[0] = '/';
	CHECK_FIND("31: or for itself", "ENAMETOOLONG", long_name, "/bin", "/");
	CHECK_COUNTS("31: nothing is left", &w, &before);
	/* A relative working directory means the same to the search and to the process. */
	found = kernel_find_executable(CTX, "../bin/prog", NULL, "work");
	a = world_args(&w);
	a.filename = IS_ERR(found) ? "" : found;
	a.cwd = "work";
	tg = xcreate(&w, &a);
	drop_process(&w, tg);
	kfree(found);
	world_close(&w);
}

/* ---- 32: starting ---- */

static void test_32_start(void)
{
	struct create_process_args a;
	struct thread_group *tg;
	struct counts before;
	struct task *t;

	world_open(&w);
	a = world_args(&w);
	w.init = xcreate(&w, &a);
	before = counts_now(&w);
	fake.user_code = user_exits;
	a = world_args(&w);
	tg = xcreate(&w, &a);
	CHECK_EQ("32: started", kernel_start_process(w.k, tg), 0);
	CHECK_EQ("32: again", kernel_start_process(w.k, tg), -EEXIST);
	CHECK_EQ("32: or ended instead", kernel_abort_process(w.k, tg), -EEXIST);
	kernel_wait(w.k);
	CHECK("32: it ran",
	      tg->is_zombie && WIFEXITED(tg->exit_code) && WEXITSTATUS(tg->exit_code) == 7);
	CHECK("32: the kernel has started", w.k->started && !w.k->exited);
	CHECK_EQ("32: still not again", kernel_start_process(w.k, tg), -EEXIST);
	thread_group_put(tg);
	CHECK_COUNTS("32: nothing is left", &w, &before);

	a = world_args(&w);
	tg = xcreate(&w, &a);
	atomic_store(&kernel_fail_step, 1);
	CHECK_EQ("32: no host thread", kernel_start_process(w.k, tg), -EAGAIN);
	CHECK("32: ends it", tg->is_zombie && WIFSIGNALED(tg->exit_code));
	CHECK_EQ("32: for good", kernel_start_process(w.k, tg), -EEXIST);
	thread_group_put(tg);
	CHECK_COUNTS("32: without a trace", &w, &before);

	w.init->stop = STOP_PENDING;
	t = make_task(&w, w.init, NULL);
	CHECK_EQ("32: a thread for a group that stops", task_publish(t, NULL), 0);
	CHECK("32: takes part in it", t->sigpending_hint && w.init->stop_count == 1);
	task_never_ran(t);
	w.init->stop = STOP_NONE;
	CHECK_COUNTS("32: and goes", &w, &before);
	fake.user_code = NULL;
	world_close(&w);
}

/* ---- 33, 34: the two callers ---- */

static void test_33_second_command(void)
{
	static const char *const argv_second[] = {"/bin/dynamic", NULL};
	struct create_process_args a;
	struct fd_table *stdio;
	struct thread_group *tg;
	struct counts before;

	world_open(&w);
	before = counts_now(&w);
	a = world_args(&w);
	mnt_ns_put(a.mnt_ns);
	a.mnt_ns = NULL;
	CHECK_EQ("33: a sandbox that has not started", failing(&w, &a), -EINVAL);
	CHECK_COUNTS("33: is left alone", &w, &before);
	a = world_args(&w);
	w.init = xcreate(&w, &a);
	stdio = fd_table_alloc();
	before = counts_now(&w);
	a = (struct create_process_args){
		.argv = STRINGS(argv_second),
		.envp = STRINGS(envp_some),
		.umask = 022,
		.cred = w.user,
		.files = stdio,
	};
	tg = xcreate(&w, &a);
	CHECK("33: init's namespaces",
	      tg->leader->vfs.mnt_ns == w.init->leader->vfs.mnt_ns &&
		      tg->leader->uts == w.init->leader->uts &&
		      tg->leader->ipc == w.init->leader->ipc &&
		      tg->leader->pid_ns_children == w.init->leader->pid_ns_children);
	CHECK("33: descriptors of its own", tg->leader->files == stdio);
	CHECK("33: no child of init", !tg->parent && list_empty(&w.init->children));
	drop_process(&w, tg);
	CHECK_COUNTS("33: its end leaves init alone", &w, &before);
	CHECK("33: which goes on", !w.k->exited);

	drop_process(&w, w.init);
	w.init = NULL;
	before = counts_now(&w);
	a.files = stdio;
	CHECK_EQ("33: a sandbox that has ended", failing(&w, &a), -ESRCH);
	CHECK("33: says so", strstr(a.error, "has ended"));
	a = world_args(&w);
	CHECK_EQ("33: whatever namespace is given", failing(&w, &a), -ESRCH);
	CHECK_COUNTS("33: nothing is left", &w, &before);
	fd_table_put(CTX, stdio);
	world_close(&w);
}

static void tests(void)
{
	test_1_parallel();
	test_2_mnt_ns();
	test_3_root();
	test_4_cwd();
	test_6_fs_context();
	test_7_thread_group();
	test_8_what_to_run();
	test_9_loading();
	test_10_references();
	test_13_terminal();
	test_13_trace();
	test_14_success();
	test_31_path();
	test_32_start();
	test_33_second_command();
}

int main(void)
{
	return process_test_main(tests);
}
