/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox's life, in order: read the configuration; memory, platform, kernel; root file system
 * and mounts; descriptors, credentials; init; lock down; run; report.
 *
 * Until lockdown nothing of the application has run, so everything that needs the host's goodwill
 * (opening /dev/kvm, mapping the image, forking stubs) happens before it.
 */
#include "sentry/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loader/vdso.h"
#include "sentry/config.h"
#include "sentry/console.h"
#include "sentry/control.h"
#include "sentry/forward.h"
#include "sentry/function.h"
#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/clock.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfd.h"
#include "sentry/launch.h"
#include "sentry/lib/physmem.h"
#include "sentry/lib/world.h"
#include "sentry/lockdown.h"
#include "sentry/objects.h"
#include "sentry/snapshot.h"
#include "sentry/syscalls.h"
#include "vfs/procfs/procfs.h"
#include "vfs/rootfs.h"

static __kernel_state struct cred *shmem_cred; /* owner of shared anonymous memory */

struct boot {
	struct config config;
	const void *blob; /* its device tree */
	size_t blob_size;
	struct boot_result *result;
	struct kernel *kernel;
	struct mnt_ns *mnt_ns;
	struct vfs_ctx ctx; /* the sentry as caller */
	struct launched init;
	gpa_t image;
	uint64_t start; /* monotonic_ns */
};

static int fail(struct boot *b, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(struct boot *b, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(b->result->error, sizeof(b->result->error), fmt, ap);
	va_end(ap);
	b->result->status = status;
	return -1;
}

/* Shared anonymous memory is an unnamed file of the in-memory filesystem. */
static struct file *shmem_file(size_t size)
{
	struct vfs_ctx ctx = {.cred = shmem_cred, .fsize_limit = RLIM_INFINITY};
	struct file *file = memfd_file(&ctx, "zero", 0);
	int err;

	if (IS_ERR(file))
		return file;
	err = file_truncate(&ctx, file, size);
	if (err) {
		file_put(file);
		return ERR_PTR(err);
	}
	return file;
}

/* What lower layers can't name themselves. */
static int register_all(void)
{
	int err;

	shmem_cred = cred_alloc(0, 0, NULL, 0, CAP_FULL_SET);
	if (!shmem_cred)
		return -ENOMEM;
	mm_shmem_file = shmem_file;
	err = fs_type_register(&proc_fs_type);
	if (!err)
		err = fs_type_register(&sysfs_fs_type);
	if (!err)
		err = objects_init();
	return err;
}

static int start_kernel(struct boot *b)
{
	const struct platform_type *type;
	struct platform_config pc = {0};
	struct platform *platform;
	char why[256] = "";
	int err;

	err = arena_init();
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't map the kernel arena: %s", strerror(-err));
	type = platform_find(b->config.platform ? b->config.platform : "auto", why, sizeof(why));
	if (!type)
		return fail(b, EXIT_KVMSBOX, "%s", why);
	if (why[0])
		log_info("running on %s: %s", type->name, why);
	err = physmem_init(b->config.memory_limit);
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't make the memory file: %s", strerror(-err));
	/* Before the platform, which then has it at hand. */
	err = physmem_add_file(b->config.image_fd, b->config.image_size, &b->image);
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't map the image: %s", strerror(-err));
	err = type->create(&pc, &platform);
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't start the %s platform: %s", type->name,
			    strerror(-err));
	err = vfs_init();
	if (!err)
		err = vdso_init();
	if (!err)
		err = kernel_init(platform, &b->kernel);
	if (!err)
		err = register_all();
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't start the kernel: %s", strerror(-err));
	if (b->config.ncpus && b->config.ncpus < b->kernel->ncpus) {
		b->kernel->ncpus = b->config.ncpus;
		CPU_ZERO(&b->kernel->cpus);
		for (unsigned int i = 0; i < b->kernel->ncpus; i++)
			CPU_SET(i, &b->kernel->cpus);
	}
	/* A snapshot of it can be entered, too. */
	if (b->config.control_fd > 0) {
		b->kernel->config = kmemdup(b->blob, b->blob_size);
		b->kernel->config_size = b->blob_size;
		if (!b->kernel->config)
			return fail(b, EXIT_KVMSBOX, "out of memory");
	}
	b->kernel->max_tasks = (int)b->config.max_pids;
	b->kernel->stats = b->config.stats;
	if (b->config.strace_fd >= 0) {
		b->kernel->strace.enabled = true;
		b->kernel->strace.fd = b->config.strace_fd;
	}
	/* A trace shows every call. */
	fast_init(b->kernel->platform->type, !b->config.no_rewrite && !b->kernel->strace.enabled,
		  b->config.poll_percent);
	if (b->config.hostname) {
		memset(b->kernel->root_uts->nodename, 0, sizeof(b->kernel->root_uts->nodename));
		strncpy(b->kernel->root_uts->nodename, b->config.hostname, 64);
	}
	return 0;
}

/* ---- file systems ---- */

static int mount_root(struct boot *b)
{
	struct super *sb;

	sb = rootfs_mount(b->image, b->config.image_size);
	if (IS_ERR(sb))
		return fail(b, EXIT_KVMSBOX, "can't mount the image: %s",
			    strerror((int)-PTR_ERR(sb)));
	b->mnt_ns = mnt_ns_alloc(sb, 0);
	if (IS_ERR(b->mnt_ns))
		return fail(b, EXIT_KVMSBOX, "can't make the mount namespace: %s",
			    strerror((int)-PTR_ERR(b->mnt_ns)));
	return caller_init(&b->ctx, b->mnt_ns) ? fail(b, EXIT_KVMSBOX, "out of memory") : 0;
}

/* Makes the directories of @path that are missing, the last one included unless @file. */
static int make_parents(struct boot *b, const char *path, bool file)
{
	char *copy = strdup(path);
	int err = 0;

	for (char *p = copy + 1; copy && !err; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		if (!c && file)
			break;
		*p = 0;
		err = vfs_mkdir(&b->ctx, NULL, copy, 0755);
		if (err == -EEXIST)
			err = 0;
		*p = c;
		if (!c)
			break;
	}
	free(copy);
	return copy ? err : -ENOMEM;
}

/* Mounts @sb, whose reference is consumed, on @target, which is made if it is missing. */
static int mount_at(struct boot *b, struct super *sb, const char *target, unsigned long flags,
		    bool file)
{
	struct path at;
	int err;

	err = make_parents(b, target, file);
	if (!err && file) {
		err = vfs_mknod(&b->ctx, NULL, target, S_IFREG | 0644, 0);
		if (err == -EEXIST)
			err = 0;
	}
	if (!err)
		err = path_lookup(&b->ctx, NULL, target, WALK_FOLLOW, &at);
	if (err) {
		super_put(sb);
		return err;
	}
	err = mount_new(&b->ctx, sb, &at, flags);
	path_put(&at);
	return err;
}

static int mount_type(struct boot *b, const char *type, const char *target, const char *options,
		      unsigned long flags)
{
	const struct fs_type *fs = fs_type_find(type);
	struct super *sb;
	int err = -ENODEV;

	if (fs) {
		sb = fs->mount(&b->ctx, type, options);
		err = PTR_ERR_OR_ZERO(sb);
		if (!err)
			err = mount_at(b, sb, target, flags, false);
	}
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't mount %s on %s: %s", type, target,
			    strerror(-err));
	return 0;
}

static int mount_volume(struct boot *b, const struct config_volume *v)
{
	struct super *sb;
	struct stat st;
	int index, err;

	if (fstat(v->fd, &st))
		return fail(b, EXIT_KVMSBOX, "volume %s: %s", v->source, strerror(errno));
	index = hostfd_add(v->fd);
	err = index < 0 ? index : 0;
	if (!err) {
		sb = hostfs_mount(index, v->source, v->readonly);
		err = PTR_ERR_OR_ZERO(sb);
	}
	if (!err)
		err = mount_at(b, sb, v->target,
			       MS_NODEV | MS_NOSUID | (v->readonly ? MS_RDONLY : 0),
			       !S_ISDIR(st.st_mode));
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't mount volume %s on %s: %s", v->source,
			    v->target, strerror(-err));
	return 0;
}

/*
 * An image without /etc/hosts gets one, as from other runtimes: there is no name server, and
 * programs look for "localhost" and for themselves. One without /etc stays as it is.
 */
static int make_hosts(struct boot *b)
{
	const char *name = b->kernel->root_uts->nodename;
	struct open_how how;
	struct file *file;
	char text[256];
	ssize_t n;

	open_how_init(&how, O_WRONLY | O_CREAT | O_EXCL, 0644);
	file = file_open(&b->ctx, NULL, "/etc/hosts", &how);
	if (IS_ERR(file))
		return PTR_ERR(file) == -EEXIST || PTR_ERR(file) == -ENOENT ||
				       PTR_ERR(file) == -ENOTDIR
			       ? 0
			       : (int)PTR_ERR(file);
	snprintf(text, sizeof(text), "127.0.0.1\tlocalhost%s%s\n::1\tlocalhost ip6-localhost%s\n",
		 *name ? " " : "", name, " ip6-loopback");
	n = file_write_kernel(file, text, strlen(text), 0);
	file_put(file);
	return n < 0 ? (int)n : 0;
}

static int mount_all(struct boot *b)
{
	struct path root;
	int err;

	if (mount_root(b) ||
	    mount_type(b, "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC) ||
	    mount_type(b, "devtmpfs", "/dev", "mode=755", MS_NOSUID) ||
	    mount_type(b, "devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666",
		       MS_NOSUID | MS_NOEXEC) ||
	    mount_type(b, "tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV) ||
	    mount_type(b, "sysfs", "/sys", NULL, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC))
		return -1;
	/* Before volumes: none of them gets a file of ours. */
	err = make_hosts(b);
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't make /etc/hosts: %s", strerror(-err));
	for (size_t i = 0; i < b->config.nvolumes; i++) {
		if (mount_volume(b, &b->config.volumes[i]))
			return -1;
	}
	err = make_parents(b, "/tmp", false);
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't make /tmp: %s", strerror(-err));
	if (!b->config.readonly)
		return 0;
	mnt_ns_root(b->mnt_ns, &root);
	err = mount_remount(&b->ctx, &root, MS_RDONLY, true);
	path_put(&root);
	if (err)
		return fail(b, EXIT_KVMSBOX, "can't make the root read-only: %s", strerror(-err));
	return 0;
}

/* ---- init ---- */

static int create_init(struct boot *b)
{
	if (!b->config.args[0])
		return fail(b, EXIT_KVMSBOX,
			    "no command given and the image names none: add one after IMAGE");
	if (launch(b->kernel, &b->ctx, &b->config, b->config.stdio, &b->init))
		return fail(b, b->init.status, "%s", b->init.error);
	if (b->init.console) {
		b->kernel->console = console_tty(b->init.console);
		console_make_raw(b->init.console);
	}
	return 0;
}

/* From here on the sandbox can be entered, and whoever waits for it knows that it runs. */
static int open_to_others(struct boot *b)
{
	int err = b->config.control_fd > 0 ? control_start(b->kernel, &b->config) : 0;

	if (err) {
		kernel_kill_all(b->kernel, SIGKILL);
		return fail(b, EXIT_KVMSBOX, "can't start the control thread: %s", strerror(-err));
	}
	b->result->started = true;
	if (b->config.ready_fd > 0) {
		(void)!write(b->config.ready_fd, "", 1);
		close(b->config.ready_fd);
	}
	return 0;
}

/* Everything has been started: until it has ended. */
static void until_end(struct boot *b, uint64_t started)
{
	int err = open_to_others(b), wait_status = forward_until_end();

	control_finish();
	if (err)
		return;
	b->result->status = exit_status_of(wait_status);
	b->result->run_ns = monotonic_ns() - started;
	if (forward_timed_out())
		b->result->status = EXIT_TIMEOUT;
}

/* On the last task's thread. */
static void end_process(struct kernel *k)
{
	/* A program that could not be started: that is to be told. */
	if (gettid() == getpid())
		return;
	exit(forward_timed_out() ? EXIT_TIMEOUT : exit_status_of(kernel_wait(k)));
}

/*
 * Is the end of the last task the end of this process, with no more to it than the exit status?
 * Then that isn't left to the main thread, which would have to be woken.
 */
static bool ends_with_last_task(const struct boot *b)
{
	return !b->init.console && b->config.control_fd <= 0 && !b->config.stats;
}

static void run(struct boot *b)
{
	struct forward_args fa = {
		.kernel = b->kernel,
		.init = b->init.tg,
		.console = b->init.console,
		.timeout_ms = b->config.timeout_ms,
	};
	const struct lockdown_needs needs = {.volumes = b->config.nvolumes > 0,
					     .control = b->config.control_fd > 0,
					     .function = b->config.fn_kind};
	struct platform *platform = b->kernel->platform;
	uint64_t started;
	char why[256];
	int err;

	err = platform->type->ready ? platform->type->ready(platform) : 0;
	if (err) {
		fail(b, EXIT_KVMSBOX, "can't start the %s platform: %s", platform->type->name,
		     strerror(-err));
		return;
	}
	err = needs.control ? snapshot_prepare_save() : 0;
	if (err) {
		fail(b, EXIT_KVMSBOX, "can't find out what the image's file is called: %s",
		     strerror(-err));
		return;
	}
	if (b->config.fn_kind) {
		vdso_begin();
		if (lockdown(platform->type, &needs, why, sizeof(why)))
			fail(b, EXIT_KVMSBOX, "%s", why);
		else
			b->result->status = function_serve(b->init.tg, b->start);
		return;
	}
	if (lockdown_privileges(&needs, why, sizeof(why))) {
		fail(b, EXIT_KVMSBOX, "%s", why);
		return;
	}
	forward_prepare(&fa);
	if (ends_with_last_task(b)) {
		b->kernel->ends_process = !b->config.nvolumes;
		kernel_all_ended = end_process;
	}
	b->result->boot_ns = monotonic_ns() - b->start;
	started = monotonic_ns();
	/* Its thread has its memory mapped on another processor during what follows. */
	tasks_bar(true);
	err = kernel_start_process(b->kernel, b->init.tg);
	if (err) {
		fail(b, EXIT_KVMSBOX, "can't start the program: %s", strerror(-err));
		return;
	}
	vdso_begin();
	if (lockdown_calls(platform->type, &needs, why, sizeof(why))) {
		fail(b, EXIT_KVMSBOX, "%s", why);
		return;
	}
	tasks_bar(false);
	until_end(b, started);
}

/* A configuration's log level. */
static bool set_log_level(struct boot *b)
{
	if (!b->config.log_level || !log_level_parse(b->config.log_level, &log_level))
		return true;
	fail(b, EXIT_KVMSBOX, "unknown log level %s", b->config.log_level);
	return false;
}

void sentry_run(const void *blob, size_t size, struct boot_result *result)
{
	struct boot b = {.result = result, .blob = blob, .blob_size = size};
	char why[256];

	memset(result, 0, sizeof(*result));
	b.start = monotonic_ns();
	if (sandbox_config_parse(blob, size, &b.config, why, sizeof(why))) {
		fail(&b, EXIT_KVMSBOX, "%s", why);
		return;
	}
	if (!set_log_level(&b))
		return;
	/* From here on every thread has the forwarded signals blocked. */
	forward_block_signals();
	if (start_kernel(&b) || mount_all(&b) || create_init(&b))
		return;
	run(&b);
	if (b.init.console)
		console_finish(b.init.console);
}

/* A function's process, before what it is to become is known, or after. */
static int lock_function(struct boot *b, const struct platform_type *type)
{
	const struct lockdown_needs needs = {.function = true};
	char why[512];

	return lockdown(type, &needs, why, sizeof(why)) ? fail(b, EXIT_KVMSBOX, "%s", why) : 0;
}

bool sentry_restore_prepare(const char *platform, struct boot_result *result)
{
	struct boot b = {.result = result};
	const struct platform_type *type;
	char why[512];

	memset(result, 0, sizeof(*result));
	forward_block_signals();
	type = snapshot_restore_prepare(platform, why, sizeof(why));
	if (type)
		return !lock_function(&b, type);
	fail(&b, EXIT_KVMSBOX, "%s", why);
	return false;
}

void sentry_restore(const int image[FN_IMAGE_FDS], int channel, const char *platform,
		    unsigned int poll_percent, struct boot_result *result)
{
	/* Who was prepared is locked down, and has the root's file. */
	bool locked = image[1] >= 0;
	struct boot b = {.result = result};
	char why[512] = "";
	int err;

	memset(result, 0, sizeof(*result));
	b.start = monotonic_ns();
	if (!locked)
		forward_block_signals();
	if (snapshot_restore(image[0], image[1], platform, &b.kernel, why, sizeof(why))) {
		fail(&b, EXIT_KVMSBOX, "%s", why);
		return;
	}
	fast_restored(b.kernel->platform->type, poll_percent);
	if (!locked && lock_function(&b, b.kernel->platform->type))
		return;
	err = snapshot_adopt(b.kernel, image[0]);
	if (err) {
		fail(&b, EXIT_KVMSBOX, "can't set the sandbox up: %s", strerror(-err));
		return;
	}
	result->boot_ns = monotonic_ns() - b.start;
	result->status = function_restored(b.kernel, channel, b.start);
}

/* What the restored sandbox was made from, with what is this process's. */
static int take_config(struct boot *b, const struct restore_args *args)
{
	struct config *c = &b->config;
	char why[256];

	if (!b->kernel->config)
		return fail(b, EXIT_KVMSBOX, "the snapshot has no configuration");
	if (sandbox_config_parse(b->kernel->config, b->kernel->config_size, c, why, sizeof(why)))
		return fail(b, EXIT_KVMSBOX, "%s", why);
	c->control_fd = args->control_fd;
	c->ready_fd = args->ready_fd;
	c->timeout_ms = args->timeout_ms;
	return 0;
}

void sentry_restore_file(const struct restore_args *args, struct boot_result *result)
{
	const struct lockdown_needs needs = {.control = args->control_fd > 0};
	struct boot b = {.result = result};
	struct forward_args fa = {.timeout_ms = args->timeout_ms};
	uint64_t started;
	char why[512] = "";

	memset(result, 0, sizeof(*result));
	b.start = monotonic_ns();
	forward_block_signals();
	if (snapshot_restore_file(args->file, args->platform, args->stdio, &b.kernel, why,
				  sizeof(why))) {
		fail(&b, EXIT_KVMSBOX, "%s", why);
		return;
	}
	if (take_config(&b, args))
		return;
	fast_restored(b.kernel->platform->type, args->poll_percent);
	if (lockdown(b.kernel->platform->type, &needs, why, sizeof(why))) {
		fail(&b, EXIT_KVMSBOX, "%s", why);
		return;
	}
	fa.kernel = b.kernel;
	fa.init = b.kernel->init;
	forward_prepare(&fa);
	result->boot_ns = monotonic_ns() - b.start;
	started = monotonic_ns();
	if (snapshot_start(b.kernel)) {
		fail(&b, EXIT_KVMSBOX, "can't make a host thread for each of its threads");
		return;
	}
	until_end(&b, started);
}

void sentry_print_stats(int fd, const struct boot_result *result)
{
	struct platform_stat st[PLATFORM_MAX_STATS];
	struct fast_stats fast;
	struct physmem_stats pm;
	size_t n;

	if (!the_kernel)
		return;
	dprintf(fd, "time: boot %.3f ms, run %.3f ms\n", (double)result->boot_ns / 1e6,
		(double)result->run_ns / 1e6);
	physmem_stats(&pm);
	dprintf(fd, "memory file: %lu KiB resident\n", pm.resident >> 10);
	n = the_kernel->platform->type->stats(the_kernel->platform, st);
	for (size_t i = 0; i < n; i++)
		dprintf(fd, "%s %s: %lu\n", the_kernel->platform->type->name, st[i].name,
			st[i].value);
	fast_get_stats(&fast);
	dprintf(fd, "calls: answered in the program: %lu\n", fast.answered);
	dprintf(fd, "calls: rewritten, answered without an exit: %lu\n", fast.polled);
	dprintf(fd, "calls: rewritten, with an exit: %lu\n", fast.bells);
	dprintf(fd, "calls: trapped: %lu\n", fast.trapped);
	syscall_print_counts(fd);
}
