/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ptrace platform: user code runs in traced host processes. It needs no privileges, and is the
 * baseline that others are measured against. internal.h tells how it works.
 */
#include "platform/ptrace/internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"
#include "sentry/lib/physmem.h"

/*
 * Probe
 */
static void __attribute__((noreturn)) probe_child(pid_t parent, int ready)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != parent ||
	    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) || write(ready, "", 1) != 1)
		_exit(1);
	for (;;)
		syscall(SYS_getppid);
}

/* Seize a child and catch a system call of it. */
static int probe_trace(pid_t pid)
{
	int err = stub_seize(pid), status, tries;

	for (tries = 0; !err && tries < 10; tries++) {
		if (ptrace(PTRACE_SYSEMU, pid, NULL, NULL))
			return -errno;
		status = stub_wait(pid);
		if (status < 0)
			return status;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80))
			return 0;
	}
	return err ? err : -ENOSYS;
}

static int ptrace_probe(char *why, size_t size)
{
	pid_t self = getpid();
	int ready[2], err;
	char byte;
	long pid;

	if (pipe2(ready, O_CLOEXEC)) {
		err = -errno;
		snprintf(why, size, "ptrace: can't make a pipe: %s", strerror(-err));
		return err;
	}
	pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		probe_child(self, ready[1]);
	err = pid < 0 ? -errno : 0;
	close(ready[1]);
	if (err) {
		close(ready[0]);
		snprintf(why, size, "ptrace: can't make a process: %s", strerror(-err));
		return err;
	}
	err = read(ready[0], &byte, 1) == 1 ? probe_trace((pid_t)pid) : -ECHILD;
	close(ready[0]);
	kill((pid_t)pid, SIGKILL);
	while (waitpid((pid_t)pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	if (err)
		snprintf(why, size,
			 "ptrace: can't trace a child process: %s (check kernel.yama.ptrace_scope "
			 "and "
			 "the seccomp profile of the container)",
			 strerror(-err));
	return err;
}

/*
 * Page tables are ordinary frames
 */
static gpa_t table_alloc(struct pt_allocator *a)
{
	return frame_alloc();
}

static void table_free(struct pt_allocator *a, gpa_t table)
{
	frame_put(table);
}

/* Stops of stub threads are waited for; a SIGCHLD for each would cost and tell nothing. */
static void no_stop_signals(void)
{
	struct sigaction sa;

	if (sigaction(SIGCHLD, NULL, &sa) || (sa.sa_flags & SA_NOCLDSTOP))
		return;
	sa.sa_flags |= SA_NOCLDSTOP;
	sigaction(SIGCHLD, &sa, NULL);
}

/* The kernel's size of the extended state, and what it looks like at start. */
static int fpu_setup(struct ptrace_platform *p)
{
	struct warden_request req = {.op = WARDEN_FPU_SIZE};
	void *ours;
	long size = warden_call(p, &req);

	if (size < 0)
		return (int)size;
	p->fpu_size = (size_t)size;
	p->fpu_init = kzalloc(MAX(p->fpu_size, PAGE_SIZE));
	ours = kzalloc(MAX(arch_fpu_size(), PAGE_SIZE));
	if (!p->fpu_init || !ours) {
		kfree(p->fpu_init);
		kfree(ours);
		return -ENOMEM;
	}
	arch_fpu_init(ours);
	stub_fpu_to_kernel(p->fpu_init, p->fpu_size, ours);
	kfree(ours);
	return 0;
}

static int control_create(struct ptrace_platform *p)
{
	size_t size = MAX_PROCS * PAGE_SIZE;

	p->ctl_fd = memfd_create("kvmsbox-stubs", MFD_CLOEXEC);
	if (p->ctl_fd < 0)
		return -errno;
	if (ftruncate(p->ctl_fd, (off_t)size))
		goto fail;
	p->ctl = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, p->ctl_fd, 0);
	if (p->ctl != MAP_FAILED)
		return 0;
fail:
	close(p->ctl_fd);
	return -ENOMEM;
}

static void control_destroy(struct ptrace_platform *p)
{
	munmap(p->ctl, MAX_PROCS * PAGE_SIZE);
	close(p->ctl_fd);
}

static int ptrace_create(const struct platform_config *config, struct platform **out)
{
	struct ptrace_platform *p = kzalloc(sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->base.type = &ptrace_platform;
	p->base.pt_alloc = (struct pt_allocator){.alloc = table_alloc, .free = table_free};
	mutex_init(&p->lock, LOCK_PLATFORM);
	list_init(&p->contexts);
	list_init(&p->pool);
	list_init(&p->procs);
	place_init(p);
	err = control_create(p);
	if (err)
		goto out_free;
	err = -pthread_key_create(&p->exit_key, stub_threads_park_all);
	if (err)
		goto out_control;
	no_stop_signals();
	err = warden_start(p);
	if (err)
		goto out_key;
	err = fpu_setup(p);
	if (err)
		goto out_warden;
	*out = &p->base;
	return 0;

out_warden:
	warden_stop(p);
out_key:
	pthread_key_delete(p->exit_key);
out_control:
	control_destroy(p);
out_free:
	place_fini(p);
	mutex_fini(&p->lock);
	kfree(p);
	return err;
}

/* Host threads that are still ending park what they trace; waits for them, but not for ever. */
static void wait_unattached(struct ptrace_platform *p)
{
	struct timespec nap = {.tv_nsec = 1000000};
	int tries;

	for (tries = 0; tries < 2000; tries++) {
		unsigned int n;

		mutex_lock(&p->lock);
		n = p->nr_attached;
		mutex_unlock(&p->lock);
		if (!n)
			return;
		nanosleep(&nap, NULL);
	}
	log_warn("ptrace: host threads still trace stubs at the end");
}

static void ptrace_destroy(struct platform *base)
{
	struct ptrace_platform *p = to_platform(base);
	struct warden_request req = {.op = WARDEN_KILL};

	stub_threads_park_all(NULL);
	wait_unattached(p);
	while (!list_empty(&p->pool)) {
		req.proc = list_first_entry(&p->pool, struct stub_proc, node);
		list_del(&req.proc->node);
		warden_call(p, &req);
	}
	warden_stop(p);
	pthread_key_delete(p->exit_key);
	control_destroy(p);
	place_fini(p);
	mutex_fini(&p->lock);
	kfree(p->fpu_init);
	kfree(p);
}

void context_stats_add(struct context_stats *sum, const struct context_stats *st)
{
	sum->enters += st->enters;
	sum->syscalls += st->syscalls;
	sum->faults += st->faults;
	sum->faults_mapped += st->faults_mapped;
	sum->exceptions += st->exceptions;
	sum->kicks += st->kicks;
	sum->injections += st->injections;
	sum->mmaps += st->mmaps;
	sum->munmaps += st->munmaps;
	sum->pages += st->pages;
	sum->moves += st->moves;
}

static size_t ptrace_stats(struct platform *base, struct platform_stat stats[PLATFORM_MAX_STATS])
{
	struct ptrace_platform *p = to_platform(base);
	struct context_stats sum;
	struct ptrace_context *ctx;
	size_t n = 0;

	mutex_lock(&p->lock);
	sum = p->retired;
	list_for_each_entry (ctx, &p->contexts, node) {
		context_stats_add(&sum, &ctx->stats);
	}
	mutex_unlock(&p->lock);
	stats[n++] = (struct platform_stat){"enters", sum.enters};
	stats[n++] = (struct platform_stat){"system calls", sum.syscalls};
	stats[n++] = (struct platform_stat){"faults to the sentry", sum.faults};
	stats[n++] = (struct platform_stat){"faults served by mapping", sum.faults_mapped};
	stats[n++] = (struct platform_stat){"exceptions", sum.exceptions};
	stats[n++] = (struct platform_stat){"kicks", sum.kicks};
	stats[n++] = (struct platform_stat){"trips for host calls in stubs", sum.injections};
	stats[n++] = (struct platform_stat){"mmaps in stubs", sum.mmaps};
	stats[n++] = (struct platform_stat){"munmaps in stubs", sum.munmaps};
	stats[n++] = (struct platform_stat){"pages mapped", sum.pages};
	stats[n++] = (struct platform_stat){"invalidations", atomic_load(&p->nr_invalidates)};
	stats[n++] = (struct platform_stat){"invalidations with a thread running",
					    atomic_load(&p->nr_stale_hits)};
	stats[n++] = (struct platform_stat){"stub processes made", atomic_load(&p->nr_procs)};
	stats[n++] = (struct platform_stat){"stub processes reused", atomic_load(&p->nr_reused)};
	stats[n++] = (struct platform_stat){"stub threads made", atomic_load(&p->nr_threads)};
	stats[n++] =
		(struct platform_stat){"requests to the warden", atomic_load(&p->nr_warden_calls)};
	stats[n++] = (struct platform_stat){"moves to another CPU", sum.moves};
	return n;
}

const struct platform_type ptrace_platform = {
	.name = "ptrace",
	.summary = "traced host processes; no privileges needed",
	.probe = ptrace_probe,
	.create = ptrace_create,
	.destroy = ptrace_destroy,
	.stats = ptrace_stats,
	.as_create = ptrace_as_create,
	.as_destroy = ptrace_as_destroy,
	.as_invalidate = ptrace_as_invalidate,
	.ctx_create = ptrace_ctx_create,
	.ctx_destroy = ptrace_ctx_destroy,
	.ctx_run = ptrace_ctx_run,
	.ctx_kick = ptrace_ctx_kick,
	.ctx_get_bases = ptrace_ctx_get_bases,
	.ctx_set_bases = ptrace_ctx_set_bases,
	.ctx_get_fpu = ptrace_ctx_get_fpu,
	.ctx_set_fpu = ptrace_ctx_set_fpu,
	.ctx_user_ns = ptrace_ctx_user_ns,
};
