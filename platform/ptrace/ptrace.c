/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ptrace platform: user code runs in traced host processes. It needs no privileges, and is the
 * baseline that others are measured against. internal.h tells how it works.
 */
#include "platform/ptrace/internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

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
	p->fpu_init = hzalloc(MAX(p->fpu_size, PAGE_SIZE));
	ours = hzalloc(MAX(arch_fpu_size(), PAGE_SIZE));
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

static int proc_new(struct stub_platform *base, struct stub_proc **out)
{
	struct warden_request req = {.op = WARDEN_NEW_PROC};
	long err = warden_call(ptrace_of(base), &req);

	*out = req.proc;
	return (int)err;
}

static void proc_end(struct stub_platform *base, struct stub_proc *proc)
{
	struct warden_request req = {.op = WARDEN_KILL, .proc = proc};

	warden_call(ptrace_of(base), &req);
}

static void proc_kill(struct stub_platform *base, struct stub_proc *proc)
{
	kill(proc->pid, SIGKILL);
}

static int thread_new(struct stub_platform *base, struct stub_proc *proc)
{
	struct warden_request req = {.op = WARDEN_SPAWN, .proc = proc};

	return (int)warden_call(ptrace_of(base), &req);
}

static int pass_fd(struct stub_platform *base, int fd)
{
	struct warden_request req = {.op = WARDEN_PASS_FD, .fd = fd};

	return (int)warden_call(ptrace_of(base), &req);
}

static int batch(struct stub_platform *base, struct stub_proc *proc, struct stub_thread *th,
		 size_t n)
{
	struct warden_request req = {.op = WARDEN_BATCH, .proc = proc, .n = n};
	size_t done;
	int err;

	if (!th)
		return (int)warden_call(ptrace_of(base), &req);
	if (th->ctx)
		to_ctx(&th->ctx->base)->regs_dirty = true;
	err = stub_batch(th->tid, n, &done);
	if (err == -ESRCH)
		stub_thread_died(th);
	return err;
}

static const struct stub_ops ops = {
	.name = "ptrace",
	.proc_new = proc_new,
	.proc_end = proc_end,
	.proc_kill = proc_kill,
	.thread_new = thread_new,
	.batch = batch,
	.pass_fd = pass_fd,
	.own_thread = stub_thread_find_own,
	.crowd = warden_wake,
};

static void ptrace_thread_idle(void)
{
	stub_threads_park_all(NULL);
}

static int ptrace_create(const struct platform_config *config, struct platform **out)
{
	struct ptrace_platform *p = hzalloc(sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	err = stub_platform_init(&p->stub, &ptrace_platform, &ops,
				 stub_control_file(MAX_PROCS * PAGE_SIZE), MAX_PROCS * PAGE_SIZE);
	if (err)
		goto out_free;
	err = -pthread_key_create(&p->exit_key, stub_threads_park_all);
	if (err)
		goto out_stub;
	no_stop_signals();
	err = warden_start(p);
	if (err)
		goto out_key;
	err = fpu_setup(p);
	if (err)
		goto out_warden;
	*out = &p->stub.base;
	return 0;

out_warden:
	warden_stop(p);
out_key:
	pthread_key_delete(p->exit_key);
out_stub:
	stub_platform_fini(&p->stub);
out_free:
	kfree(p);
	return err;
}

/* Host threads that are still ending park what they trace; waits for them, but not for ever. */
static void wait_unattached(struct ptrace_platform *p)
{
	struct timespec nap = {.tv_nsec = 1000000};
	int tries;

	for (tries = 0; tries < 2000; tries++) {
		if (!atomic_load(&p->stub.nr_attached))
			return;
		nanosleep(&nap, NULL);
	}
	log_warn("ptrace: host threads still trace stubs at the end");
}

static void ptrace_destroy(struct platform *base)
{
	struct ptrace_platform *p = to_platform(base);

	stub_threads_park_all(NULL);
	wait_unattached(p);
	stub_pool_end(&p->stub);
	warden_stop(p);
	pthread_key_delete(p->exit_key);
	stub_platform_fini(&p->stub);
	kfree(p->fpu_init);
	kfree(p);
}

static size_t ptrace_stats(struct platform *base, struct platform_stat stats[PLATFORM_MAX_STATS])
{
	return stub_stats(to_stub_platform(base), stats);
}

const struct platform_type ptrace_platform = {
	.name = "ptrace",
	.summary = "traced host processes; no privileges needed",
	.probe = ptrace_probe,
	.create = ptrace_create,
	.destroy = ptrace_destroy,
	.stats = ptrace_stats,
	.as_create = stub_as_create,
	.as_destroy = stub_as_destroy,
	.as_invalidate = stub_as_invalidate,
	.ctx_create = ptrace_ctx_create,
	.ctx_destroy = ptrace_ctx_destroy,
	.ctx_run = ptrace_ctx_run,
	.ctx_kick = stub_ctx_kick,
	.ctx_get_bases = ptrace_ctx_get_bases,
	.ctx_set_bases = ptrace_ctx_set_bases,
	.ctx_get_fpu = ptrace_ctx_get_fpu,
	.ctx_set_fpu = ptrace_ctx_set_fpu,
	.ctx_leave = ptrace_ctx_leave,
	.ctx_waits = stub_ctx_waits,
	.ctx_rest = stub_ctx_rest,
	.thread_idle = ptrace_thread_idle,
	.ctx_user_ns = stub_ctx_user_ns,
};
