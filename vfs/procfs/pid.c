/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID and /proc/PID/task/TID. Formats: proc(5). */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "sentry/lib/arena.h"
#include "vfs/procfs/procfs.h"

static char state_letter(struct task *t)
{
	switch (atomic_load(&t->state)) {
	case TASK_SLEEPING:
		return 'S';
	case TASK_DISKSLEEP:
		return 'D';
	case TASK_STOPPED:
		return 'T';
	case TASK_ZOMBIE:
	case TASK_DEAD:
		return 'Z';
	default:
		return 'R';
	}
}

static const char *state_name(char c)
{
	switch (c) {
	case 'S':
		return "S (sleeping)";
	case 'D':
		return "D (disk sleep)";
	case 'T':
		return "T (stopped)";
	case 'Z':
		return "Z (zombie)";
	default:
		return "R (running)";
	}
}

char *proc_path_text(const struct vfs_ctx *ctx, const struct path *path)
{
	struct path root;
	char *s;

	fs_context_root(ctx->fs, &root);
	s = path_name(path, &root);
	path_put(&root);
	return s;
}

/* ---- texts ---- */

/* Up to @len bytes of @mm from @start as they are. */
static int put_memory(struct proc_show *s, struct mm *mm, uaddr_t start, uaddr_t end)
{
	size_t len = end > start ? MIN(end - start, (size_t)4 << 20) : 0, got;
	char *buf = len ? kmalloc(len) : NULL;

	if (len && !buf)
		return -ENOMEM;
	got = len ? mm_copy_remote(mm, start, buf, len, false, true) : 0;
	if (got)
		strbuf_add(&s->b, buf, got);
	kfree(buf);
	return 0;
}

static int show_cmdline(struct proc_show *s)
{
	struct mm *mm = task_get_mm(s->task);
	int err = 0;

	if (mm) {
		err = put_memory(s, mm, mm->arg_start, mm->arg_end);
		mm_put(mm);
	}
	return err;
}

static int show_environ(struct proc_show *s)
{
	struct mm *mm = task_get_mm(s->task);
	int err = 0;

	if (mm) {
		err = put_memory(s, mm, mm->env_start, mm->env_end);
		mm_put(mm);
	}
	return err;
}

static int show_auxv(struct proc_show *s)
{
	struct mm *mm = task_get_mm(s->task);

	if (mm) {
		strbuf_add(&s->b, (const char *)mm->auxv, mm->auxv_len * sizeof(mm->auxv[0]));
		mm_put(mm);
	}
	return 0;
}

static int show_comm(struct proc_show *s)
{
	mutex_lock(&s->task->own_lock);
	strbuf_printf(&s->b, "%s\n", s->task->comm);
	mutex_unlock(&s->task->own_lock);
	return 0;
}

static ssize_t write_comm(const struct vfs_ctx *ctx, struct proc_node *node, char *text, size_t len)
{
	struct task *t = proc_task(node), *self = task_of(ctx);
	ssize_t ret = (ssize_t)len;

	if (!t)
		return -ESRCH;
	if (!self || self->tg != t->tg) {
		ret = -EINVAL;
	} else {
		text[strcspn(text, "\n")] = 0;
		mutex_lock(&t->own_lock);
		memset(t->comm, 0, sizeof(t->comm));
		strncpy(t->comm, text, sizeof(t->comm) - 1);
		mutex_unlock(&t->own_lock);
	}
	task_put(t);
	return ret;
}

static int show_maps_as(struct proc_show *s, bool detailed)
{
	struct mm *mm = task_get_mm(s->task);
	char *text;

	if (!mm)
		return 0;
	text = mm_show_maps(mm, detailed);
	mm_put(mm);
	if (!text)
		return -ENOMEM;
	strbuf_add(&s->b, text, strlen(text));
	kfree(text);
	return 0;
}

static int show_maps(struct proc_show *s)
{
	return show_maps_as(s, false);
}

static int show_smaps(struct proc_show *s)
{
	return show_maps_as(s, true);
}

static int show_statm(struct proc_show *s)
{
	struct mm *mm = task_get_mm(s->task);

	if (!mm) {
		strbuf_printf(&s->b, "0 0 0 0 0 0 0\n");
		return 0;
	}
	strbuf_printf(&s->b, "%lu %lu %lu 1 0 %lu 0\n", mm->total_vm, mm_rss(mm),
		      (uint64_t)atomic_load(&mm->nr_file_rss), mm->data_vm + mm->stack_vm);
	mm_put(mm);
	return 0;
}

/* Numbers that need the process tree. */
struct tree_view {
	pid_t ppid, pgrp, session;
	int nr_threads, tty_nr, tpgid, exit_signal, exit_code;
	uint64_t cutime, cstime;
};

static void view_tree(struct proc_show *s, struct tree_view *v)
{
	struct thread_group *tg = s->task->tg;

	memset(v, 0, sizeof(*v));
	mutex_lock(&s->kernel->tasklist);
	v->ppid = tg->parent ? pid_nr(tg->parent->pid, s->ns) : 0;
	v->pgrp = pid_nr(tg->pgrp, s->ns);
	v->session = pid_nr(tg->session, s->ns);
	v->nr_threads = tg->nr_live;
	v->exit_signal = tg->exit_signal;
	v->exit_code = tg->exit_code;
	v->cutime = tg->cutime_ns;
	v->cstime = tg->cstime_ns;
	v->tpgid = -1;
	if (tg->tty)
		tty_proc_numbers(tg->tty, s->ns, &v->tty_nr, &v->tpgid);
	mutex_unlock(&s->kernel->tasklist);
}

static void signal_masks(struct task *t, uint64_t *ignored, uint64_t *caught)
{
	struct sighand *sh = sighand_lock(t->tg);

	*ignored = *caught = 0;
	for (int i = 0; i < NSIGS; i++) {
		uaddr_t h = sh->action[i].handler;

		if (h == (uaddr_t)(uintptr_t)SIG_IGN)
			*ignored |= 1ULL << i;
		else if (h != (uaddr_t)(uintptr_t)SIG_DFL)
			*caught |= 1ULL << i;
	}
	mutex_unlock(&sh->lock);
}

static int show_stat(struct proc_show *s)
{
	struct task *t = s->task;
	struct mm *mm = task_get_mm(t);
	uint64_t utime, stime, ignored, caught;
	struct timespec start = t->start_time;
	struct tree_view v;
	char comm[TASK_COMM_LEN];

	view_tree(s, &v);
	task_times(t, &utime, &stime);
	signal_masks(t, &ignored, &caught);
	mutex_lock(&t->own_lock);
	memcpy(comm, t->comm, sizeof(comm));
	mutex_unlock(&t->own_lock);
	strbuf_printf(&s->b, "%d (%s) %c %d %d %d %d %d 0 %lu 0 %lu 0 ",
		      pid_nr(s->node->pid, s->ns), comm, state_letter(t), v.ppid, v.pgrp, v.session,
		      v.tty_nr, v.tpgid, mm ? (uint64_t)atomic_load(&mm->min_flt) : 0,
		      mm ? (uint64_t)atomic_load(&mm->maj_flt) : 0);
	strbuf_printf(&s->b, "%lu %lu %lu %lu %d %d %d 0 %lu %lu %lu 18446744073709551615 ",
		      utime / 10000000, stime / 10000000, v.cutime / 10000000, v.cstime / 10000000,
		      20 + t->nice, t->nice, v.nr_threads, (uint64_t)start.tv_sec * 100,
		      mm ? mm->total_vm * PAGE_SIZE : 0, mm ? mm_rss(mm) : 0);
	strbuf_printf(
		&s->b,
		"0 0 %lu 0 0 %lu %lu %lu %lu 0 0 0 %d 0 %d %d 0 0 0 0 0 %lu %lu %lu %lu %lu %d\n",
		mm ? mm->stack_top : 0, t->pending.set & 0x7fffffff, t->blocked & 0x7fffffff,
		ignored & 0x7fffffff, caught & 0x7fffffff, s->node->thread ? -1 : v.exit_signal,
		t->sched_priority, t->sched_policy, mm ? mm->brk_start : 0, mm ? mm->arg_start : 0,
		mm ? mm->arg_end : 0, mm ? mm->env_start : 0, mm ? mm->env_end : 0, v.exit_code);
	if (mm)
		mm_put(mm);
	return 0;
}

static void put_memory_status(struct proc_show *s, struct mm *mm)
{
	uint64_t rss = mm_rss(mm), kb = PAGE_SIZE / 1024;

	strbuf_printf(
		&s->b,
		"VmPeak:\t%8lu kB\nVmSize:\t%8lu kB\nVmLck:\t%8lu kB\nVmPin:\t       0 kB\n"
		"VmHWM:\t%8lu kB\nVmRSS:\t%8lu kB\nRssAnon:\t%8lu kB\nRssFile:\t%8lu kB\n"
		"RssShmem:\t       0 kB\nVmData:\t%8lu kB\nVmStk:\t%8lu kB\nVmExe:\t       4 kB\n"
		"VmLib:\t       0 kB\nVmPTE:\t      40 kB\nVmSwap:\t       0 kB\n",
		mm->total_vm * kb, mm->total_vm * kb, mm->locked_vm * kb,
		MAX(rss, (uint64_t)atomic_load(&mm->max_rss)) * kb, rss * kb,
		(uint64_t)atomic_load(&mm->nr_anon_rss) * kb,
		(uint64_t)atomic_load(&mm->nr_file_rss) * kb, mm->data_vm * kb, mm->stack_vm * kb);
}

static int show_status(struct proc_show *s)
{
	struct task *t = s->task;
	struct cred *c = task_get_cred(t);
	struct fd_table *files = task_get_files(t);
	struct mm *mm = task_get_mm(t);
	uint64_t ignored, caught;
	struct tree_view v;
	mode_t umask_bits = 0;

	view_tree(s, &v);
	signal_masks(t, &ignored, &caught);
	mutex_lock(&t->own_lock);
	strbuf_printf(&s->b, "Name:\t%s\n", t->comm);
	if (t->vfs.fs)
		umask_bits = t->vfs.fs->umask;
	mutex_unlock(&t->own_lock);
	strbuf_printf(&s->b,
		      "Umask:\t%04o\nState:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\n"
		      "TracerPid:\t0\n",
		      umask_bits, state_name(state_letter(t)), task_tgid_nr(t, s->ns),
		      pid_nr(s->node->pid, s->ns), v.ppid);
	strbuf_printf(&s->b, "Uid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\n", c->uid, c->euid,
		      c->suid, c->fsuid, c->gid, c->egid, c->sgid, c->fsgid);
	strbuf_printf(&s->b, "FDSize:\t%u\nGroups:\t", files ? MAX(files->size, 64u) : 0);
	for (unsigned int i = 0; i < c->ngroups; i++)
		strbuf_printf(&s->b, "%u ", c->groups[i]);
	strbuf_printf(&s->b, "\nNStgid:\t%d\nNSpid:\t%d\nNSpgid:\t%d\nNSsid:\t%d\n",
		      task_tgid_nr(t, s->ns), pid_nr(s->node->pid, s->ns), v.pgrp, v.session);
	if (mm)
		put_memory_status(s, mm);
	strbuf_printf(&s->b,
		      "Threads:\t%d\nSigQ:\t%u/%lu\nSigPnd:\t%016lx\nShdPnd:\t%016lx\n"
		      "SigBlk:\t%016lx\nSigIgn:\t%016lx\nSigCgt:\t%016lx\n",
		      v.nr_threads, t->pending.count + t->tg->shared_pending.count,
		      (unsigned long)t->tg->limits[RLIMIT_SIGPENDING].rlim_cur, t->pending.set,
		      t->tg->shared_pending.set, t->blocked, ignored, caught);
	strbuf_printf(&s->b,
		      "CapInh:\t%016lx\nCapPrm:\t%016lx\nCapEff:\t%016lx\nCapBnd:\t%016lx\n"
		      "CapAmb:\t%016lx\nNoNewPrivs:\t%d\nSeccomp:\t0\nSeccomp_filters:\t0\n"
		      "Speculation_Store_Bypass:\tvulnerable\n",
		      c->cap_inheritable, c->cap_permitted, c->cap_effective, c->cap_bset,
		      c->cap_ambient, t->no_new_privs);
	strbuf_printf(&s->b, "Cpus_allowed:\t%lx\nCpus_allowed_list:\t", t->cpus.__bits[0]);
	if (s->kernel->ncpus > 1)
		strbuf_printf(&s->b, "0-%u\n", s->kernel->ncpus - 1);
	else
		strbuf_printf(&s->b, "0\n");
	strbuf_printf(&s->b,
		      "Mems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t%lu\n"
		      "nonvoluntary_ctxt_switches:\t%lu\n",
		      t->nvcsw, t->nivcsw);
	if (mm)
		mm_put(mm);
	if (files)
		fd_table_put(s->reader, files);
	cred_put(c);
	return 0;
}

static int show_limits(struct proc_show *s)
{
	static const struct {
		const char *name, *unit;
	} rows[RLIM_NLIMITS] = {
		[RLIMIT_CPU] = {"Max cpu time", "seconds"},
		[RLIMIT_FSIZE] = {"Max file size", "bytes"},
		[RLIMIT_DATA] = {"Max data size", "bytes"},
		[RLIMIT_STACK] = {"Max stack size", "bytes"},
		[RLIMIT_CORE] = {"Max core file size", "bytes"},
		[RLIMIT_RSS] = {"Max resident set", "bytes"},
		[RLIMIT_NPROC] = {"Max processes", "processes"},
		[RLIMIT_NOFILE] = {"Max open files", "files"},
		[RLIMIT_MEMLOCK] = {"Max locked memory", "bytes"},
		[RLIMIT_AS] = {"Max address space", "bytes"},
		[RLIMIT_LOCKS] = {"Max file locks", "locks"},
		[RLIMIT_SIGPENDING] = {"Max pending signals", "signals"},
		[RLIMIT_MSGQUEUE] = {"Max msgqueue size", "bytes"},
		[RLIMIT_NICE] = {"Max nice priority", ""},
		[RLIMIT_RTPRIO] = {"Max realtime priority", ""},
		[RLIMIT_RTTIME] = {"Max realtime timeout", "us"},
	};

	strbuf_printf(&s->b, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit",
		      "Units");
	mutex_lock(&s->task->tg->limits_lock);
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		const struct rlimit *l = &s->task->tg->limits[i];
		char soft[24] = "unlimited", hard[24] = "unlimited";

		if (l->rlim_cur != RLIM_INFINITY)
			snprintf(soft, sizeof(soft), "%lu", (unsigned long)l->rlim_cur);
		if (l->rlim_max != RLIM_INFINITY)
			snprintf(hard, sizeof(hard), "%lu", (unsigned long)l->rlim_max);
		strbuf_printf(&s->b, "%-25s %-20s %-20s %-10s\n", rows[i].name, soft, hard,
			      rows[i].unit);
	}
	mutex_unlock(&s->task->tg->limits_lock);
	return 0;
}

static int show_mounts_as(struct proc_show *s, int style)
{
	struct fs_context *fs = NULL;
	struct mnt_ns *ns = NULL;
	struct path root = {0};
	char *text;

	mutex_lock(&s->task->own_lock);
	if (s->task->vfs.mnt_ns && s->task->vfs.fs) {
		ns = mnt_ns_get(s->task->vfs.mnt_ns);
		fs = fs_context_get(s->task->vfs.fs);
	}
	mutex_unlock(&s->task->own_lock);
	if (!ns)
		return -EINVAL;
	fs_context_root(fs, &root);
	fs_context_put(fs);
	text = mnt_ns_show(ns, &root, style);
	path_put(&root);
	mnt_ns_put(ns);
	if (!text)
		return -ENOMEM;
	strbuf_add(&s->b, text, strlen(text));
	kfree(text);
	return 0;
}

static int show_mounts(struct proc_show *s)
{
	return show_mounts_as(s, 0);
}

static int show_mountinfo(struct proc_show *s)
{
	return show_mounts_as(s, 1);
}

static int show_mountstats(struct proc_show *s)
{
	return show_mounts_as(s, 2);
}

static int show_cgroup(struct proc_show *s)
{
	strbuf_printf(&s->b, "0::/\n");
	return 0;
}

static int show_oom_score(struct proc_show *s)
{
	strbuf_printf(&s->b, "0\n");
	return 0;
}

static int show_oom_score_adj(struct proc_show *s)
{
	strbuf_printf(&s->b, "%d\n", (int)s->task->tg->oom_score_adj_biased);
	return 0;
}

static ssize_t write_oom_score_adj(const struct vfs_ctx *ctx, struct proc_node *node, char *text,
				   size_t len)
{
	struct task *t;
	int v;

	if (sscanf(text, "%d", &v) != 1 || v < -1000 || v > 1000)
		return -EINVAL;
	t = proc_task(node);
	if (!t)
		return -ESRCH;
	if (v < (int)t->tg->oom_score_adj_biased && !cred_capable(ctx->cred, CAP_SYS_RESOURCE)) {
		task_put(t);
		return -EACCES;
	}
	t->tg->oom_score_adj_biased = (uint64_t)(int64_t)v;
	task_put(t);
	return (ssize_t)len;
}

static int show_personality(struct proc_show *s)
{
	strbuf_printf(&s->b, "%08lx\n", s->task->personality);
	return 0;
}

static int show_id_map(struct proc_show *s)
{
	strbuf_printf(&s->b, "         0          0 4294967295\n");
	return 0;
}

static int show_loginuid(struct proc_show *s)
{
	strbuf_printf(&s->b, "4294967295");
	return 0;
}

static int show_io(struct proc_show *s)
{
	strbuf_printf(&s->b, "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\n"
			     "write_bytes: 0\ncancelled_write_bytes: 0\n");
	return 0;
}

static int show_wchan(struct proc_show *s)
{
	strbuf_printf(&s->b, "0");
	return 0;
}

/*
 * Children belong to the process here, not to the thread that made them: the first thread has all.
 */
static int show_children(struct proc_show *s)
{
	struct thread_group *tg = s->task->tg, *c;

	mutex_lock(&tg->kernel->tasklist);
	if (tg->leader == s->task) {
		list_for_each_entry (c, &tg->children, sibling)
			strbuf_printf(&s->b, "%d ", pid_nr(c->pid, s->ns));
	}
	mutex_unlock(&tg->kernel->tasklist);
	return 0;
}

static int show_timerslack(struct proc_show *s)
{
	strbuf_printf(&s->b, "%lu\n", s->task->timer_slack);
	return 0;
}

/* ---- links ---- */

static int jump_exe(const struct vfs_ctx *ctx, struct proc_node *node, struct path *out)
{
	struct task *t = proc_task(node);
	struct mm *mm = t ? task_get_mm(t) : NULL;
	int err = -ENOENT;

	if (mm && mm->exe) {
		*out = mm->exe->path;
		path_get(out);
		err = 0;
	}
	if (mm)
		mm_put(mm);
	task_put(t);
	return err;
}

static int jump_fs(struct proc_node *node, struct path *out, bool root)
{
	struct task *t = proc_task(node);
	struct fs_context *fs = NULL;

	if (t) {
		mutex_lock(&t->own_lock);
		fs = t->vfs.fs ? fs_context_get(t->vfs.fs) : NULL;
		mutex_unlock(&t->own_lock);
	}
	task_put(t);
	if (!fs)
		return -ENOENT;
	if (root)
		fs_context_root(fs, out);
	else
		fs_context_cwd(fs, out);
	fs_context_put(fs);
	return 0;
}

static int jump_cwd(const struct vfs_ctx *ctx, struct proc_node *node, struct path *out)
{
	return jump_fs(node, out, false);
}

static int jump_root(const struct vfs_ctx *ctx, struct proc_node *node, struct path *out)
{
	return jump_fs(node, out, true);
}

/* Namespaces show what they are; they can't be entered from here. */
static char *ns_text(struct proc_node *node, const char *kind)
{
	struct task *t = proc_task(node);
	uint64_t ino = 4026531837u;
	char buf[48];
	char *s;

	if (!t)
		return ERR_PTR(-ENOENT);
	mutex_lock(&t->own_lock);
	if (!strcmp(kind, "mnt") && t->vfs.mnt_ns)
		ino = t->vfs.mnt_ns->ino;
	else if (!strcmp(kind, "uts") && t->uts)
		ino = t->uts->ino;
	else if (!strcmp(kind, "ipc") && t->ipc)
		ino = t->ipc->ino;
	else if (!strcmp(kind, "net") && t->net)
		ino = t->net->ino;
	else if (!strcmp(kind, "pid"))
		ino = pid_ns_of(t->pid)->ino;
	mutex_unlock(&t->own_lock);
	task_put(t);
	snprintf(buf, sizeof(buf), "%s:[%lu]", kind, ino);
	s = kstrdup(buf);
	return s ? s : ERR_PTR(-ENOMEM);
}

#define NS_LINK(kind)                                                                              \
	static char *ns_##kind(const struct vfs_ctx *ctx, struct proc_node *node)                  \
	{                                                                                          \
		return ns_text(node, #kind);                                                       \
	}
NS_LINK(mnt)
NS_LINK(uts)
NS_LINK(ipc)
NS_LINK(net)
NS_LINK(pid)
NS_LINK(user)
NS_LINK(cgroup)

/* ---- fd, fdinfo ---- */

static struct fd_table *node_files(const struct proc_node *node)
{
	struct task *t = proc_task(node);
	struct fd_table *files = t ? task_get_files(t) : NULL;

	task_put(t);
	return files;
}

static struct file *node_file(const struct proc_node *node)
{
	struct fd_table *files = node_files(node);
	struct file *file = files ? fd_get_any(files, node->fd) : NULL;

	if (files)
		fd_table_put(&(struct vfs_ctx){0}, files);
	return file;
}

static int jump_fd(const struct vfs_ctx *ctx, struct proc_node *node, struct path *out)
{
	struct file *file = node_file(node);

	if (!file)
		return -ENOENT;
	*out = file->path;
	path_get(out);
	file_put(file);
	return 0;
}

static int show_fdinfo(struct proc_show *s)
{
	struct file *file = node_file(s->node);
	struct fd_table *files = node_files(s->node);
	char *more;

	if (file) {
		int cloexec = files ? fd_get_cloexec(files, s->node->fd) : 0;

		strbuf_printf(&s->b, "pos:\t%lu\nflags:\t%08o\nmnt_id:\t%d\nino:\t%lu\n", file->pos,
			      (unsigned int)atomic_load(&file->flags) |
				      (cloexec == 1 ? (unsigned int)O_CLOEXEC : 0),
			      file->path.mnt->id, file->inode->ino);
		more = file->ops->show_fdinfo ? file->ops->show_fdinfo(file) : NULL;
		if (more)
			strbuf_add(&s->b, more, strlen(more));
		kfree(more);
	}
	if (files)
		fd_table_put(s->reader, files);
	if (file)
		file_put(file);
	return file ? 0 : -ENOENT;
}

/* A descriptor's link shows what it is open for. */
static mode_t fd_mode(struct proc_node *node)
{
	struct file *file = node_file(node);
	mode_t mode = S_IFLNK;

	if (file) {
		mode |= (file->readable ? 0500 : 0) | (file->writable ? 0300 : 0);
		file_put(file);
	}
	return mode;
}

static const struct proc_entry fd_entry = {
	.name = "", .mode = S_IFLNK | 0700, .jump = jump_fd, .mode_of = fd_mode, .private = true};
static const struct proc_entry fdinfo_entry = {
	.name = "", .mode = S_IFREG | 0400, .show = show_fdinfo, .private = true};

static bool parse_fd(const char *name, size_t len, int *fd)
{
	*fd = 0;
	if (!len || len > 9 || (name[0] == '0' && len > 1))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (name[i] < '0' || name[i] > '9')
			return false;
		*fd = *fd * 10 + (name[i] - '0');
	}
	return true;
}

static bool fd_alive(const struct proc_node *node)
{
	struct file *file = node_file(node);

	if (!file)
		return false;
	file_put(file);
	return true;
}

static const struct proc_entry *fd_dir_lookup(const struct proc_node *dir, const char *name,
					      size_t len, struct proc_node *node)
{
	if (!parse_fd(name, len, &node->fd) || !fd_alive(node))
		return NULL;
	pid_get(node->pid);
	return dir->entry->dir == &proc_fd_dir ? &fd_entry : &fdinfo_entry;
}

static bool fd_dir_next(const struct proc_node *dir, const struct vfs_ctx *ctx, uint64_t *nr)
{
	struct fd_table *files = node_files(dir);
	int fd;

	if (!files)
		return false;
	fd = fd_next(files, (int)*nr);
	fd_table_put(ctx, files);
	if (fd < 0)
		return false;
	*nr = (uint64_t)fd;
	return true;
}

const struct proc_dir_ops proc_fd_dir = {
	.lookup = fd_dir_lookup,
	.next = fd_dir_next,
	.type = DT_LNK,
	.alive = fd_alive,
};

const struct proc_dir_ops proc_fdinfo_dir = {
	.lookup = fd_dir_lookup,
	.next = fd_dir_next,
	.type = DT_REG,
	.alive = fd_alive,
};

/* ---- task/ ---- */

/* The process a directory belongs to, named by its own number or a thread's. tasklist held. */
static struct thread_group *node_group(const struct proc_node *node)
{
	if (node->pid->tg)
		return node->pid->tg;
	return node->pid->task ? node->pid->task->tg : NULL;
}

static const struct proc_entry *task_dir_lookup(const struct proc_node *dir, const char *name,
						size_t len, struct proc_node *node)
{
	struct kernel *k = dir->instance->kernel;
	struct pid *pid;
	int nr;

	if (!parse_fd(name, len, &nr))
		return NULL;
	mutex_lock(&k->tasklist);
	pid = pid_find_locked(dir->instance->ns, nr);
	if (pid && pid->task && pid->task->tg == node_group(dir))
		node->pid = pid_get(pid);
	else
		pid = NULL;
	mutex_unlock(&k->tasklist);
	node->thread = true;
	return pid ? &proc_thread_entry : NULL;
}

static bool task_dir_next(const struct proc_node *dir, const struct vfs_ctx *ctx, uint64_t *nr)
{
	struct kernel *k = dir->instance->kernel;
	uint64_t best = UINT64_MAX;
	struct thread_group *tg;
	struct task *t;

	mutex_lock(&k->tasklist);
	tg = node_group(dir);
	if (tg) {
		list_for_each_entry (t, &tg->threads, tg_node) {
			uint64_t n = (uint64_t)pid_nr(t->pid, dir->instance->ns);

			if (n >= *nr && n < best && (!t->exiting || t == tg->leader))
				best = n;
		}
	}
	mutex_unlock(&k->tasklist);
	*nr = best;
	return best != UINT64_MAX;
}

static bool thread_alive(const struct proc_node *node)
{
	return node->pid->task != NULL;
}

const struct proc_dir_ops proc_task_dir = {
	.lookup = task_dir_lookup,
	.next = task_dir_next,
	.type = DT_DIR,
	.alive = thread_alive,
};

/* ---- mem ---- */

static ssize_t mem_move(struct kiocb *io, struct iov_iter *it, bool write)
{
	struct proc_node *node = proc_node(io->file->inode);
	struct task *t = proc_task(node), *self = task_of(io->ctx);
	struct mm *mm = NULL;
	ssize_t done = 0;
	char *buf;

	if (!t)
		return 0;
	if (!it->count) {
		task_put(t);
		return 0;
	}
	if (!self || task_may_access(self, t)) {
		task_put(t);
		return -EACCES;
	}
	mm = task_get_mm(t);
	task_put(t);
	if (!mm)
		return 0;
	buf = kmalloc(PAGE_SIZE);
	while (buf && it->count) {
		size_t n = MIN(it->count, PAGE_SIZE), got;

		if (write) {
			n = iov_copy_from(it, buf, n);
			got = mm_copy_remote(mm, io->pos, buf, n, true, true);
		} else {
			got = mm_copy_remote(mm, io->pos, buf, n, false, true);
			got = MIN(got, iov_copy_to(it, buf, got));
		}
		io->pos += got;
		done += (ssize_t)got;
		if (got < n || !n)
			break;
	}
	mm_put(mm);
	if (!buf)
		return -ENOMEM;
	kfree(buf);
	return done ? done : -EIO;
}

static ssize_t mem_read(struct kiocb *io, struct iov_iter *to)
{
	return mem_move(io, to, false);
}

static ssize_t mem_write(struct kiocb *io, struct iov_iter *from)
{
	return mem_move(io, from, true);
}

static int64_t mem_llseek(struct file *file, int64_t offset, int whence)
{
	if (whence == SEEK_CUR)
		offset += (int64_t)file->pos;
	else if (whence != SEEK_SET)
		return -EINVAL;
	file->pos = (uint64_t)offset;
	return offset;
}

static const struct file_ops mem_fops = {
	.read = mem_read,
	.write = mem_write,
	.llseek = mem_llseek,
};

/* ---- tables ---- */

#define REG(n, m, fn)                                                                              \
	{                                                                                          \
		.name = n, .mode = S_IFREG | (m), .show = fn                                       \
	}
#define REGP(n, m, fn)                                                                             \
	{                                                                                          \
		.name = n, .mode = S_IFREG | (m), .show = fn, .private = true                      \
	}
#define NSL(k)                                                                                     \
	{                                                                                          \
		.name = #k, .mode = S_IFLNK | 0777, .readlink = ns_##k, .private = true            \
	}
#define JUMP(n, fn)                                                                                \
	{                                                                                          \
		.name = n, .mode = S_IFLNK | 0777, .jump = fn, .private = true                     \
	}

static const struct proc_entry ns_children[] = {
	NSL(cgroup), NSL(ipc), NSL(mnt), NSL(net), NSL(pid), NSL(user), NSL(uts), {0},
};

#define COMMON_ENTRIES                                                                             \
	REGP("auxv", 0400, show_auxv), REG("cgroup", 0444, show_cgroup),                           \
		REG("cmdline", 0444, show_cmdline),                                                \
		{.name = "comm", .mode = S_IFREG | 0644, .show = show_comm, .write = write_comm},  \
		JUMP("cwd", jump_cwd), REGP("environ", 0400, show_environ), JUMP("exe", jump_exe), \
		{.name = "fd", .mode = S_IFDIR | 0500, .dir = &proc_fd_dir, .private = true},      \
		{.name = "fdinfo", .mode = S_IFDIR | 0555, .dir = &proc_fdinfo_dir},               \
		REG("gid_map", 0444, show_id_map), REGP("io", 0400, show_io),                      \
		REG("limits", 0444, show_limits), REG("loginuid", 0444, show_loginuid),            \
		REGP("maps", 0444, show_maps),                                                     \
		{.name = "mem", .mode = S_IFREG | 0600, .fops = &mem_fops},                        \
		REG("mountinfo", 0444, show_mountinfo), REG("mounts", 0444, show_mounts),          \
		{.name = "net", .mode = S_IFDIR | 0555, .children = proc_net_children},            \
		{.name = "ns", .mode = S_IFDIR | 0511, .children = ns_children},                   \
		REG("oom_score", 0444, show_oom_score),                                            \
		{.name = "oom_score_adj",                                                          \
		 .mode = S_IFREG | 0644,                                                           \
		 .show = show_oom_score_adj,                                                       \
		 .write = write_oom_score_adj},                                                    \
		REGP("personality", 0400, show_personality), JUMP("root", jump_root),              \
		REGP("smaps", 0444, show_smaps), REG("stat", 0444, show_stat),                     \
		REG("statm", 0444, show_statm), REG("status", 0444, show_status),                  \
		REG("uid_map", 0444, show_id_map), REG("wchan", 0444, show_wchan)

static const struct proc_entry pid_children[] = {
	COMMON_ENTRIES,
	REG("mountstats", 0400, show_mountstats),
	REG("timerslack_ns", 0644, show_timerslack),
	{.name = "task", .mode = S_IFDIR | 0555, .dir = &proc_task_dir},
	{0},
};

static const struct proc_entry thread_children[] = {
	COMMON_ENTRIES,
	REG("children", 0444, show_children),
	{0},
};

const struct proc_entry proc_pid_entry = {
	.name = "", .mode = S_IFDIR | 0555, .children = pid_children};
const struct proc_entry proc_thread_entry = {
	.name = "", .mode = S_IFDIR | 0555, .children = thread_children};
