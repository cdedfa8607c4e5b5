/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The systrap platform: user code runs in host processes whose system calls and faults come to the
 * sentry by way of a signal handler and shared memory. It needs no privileges and no tracing.
 * internal.h tells how it works.
 */
#include "platform/systrap/internal.h"

#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"
#include "sentry/lib/physmem.h"

#define SPINS 2000

static int systrap_probe(char *why, size_t size)
{
	uint32_t action = SECCOMP_RET_TRAP;

	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action)) {
		int err = -errno;

		snprintf(why, size,
			 "systrap: seccomp filters can't be used: %s (check CONFIG_SECCOMP_FILTER "
			 "and the seccomp profile of the container)",
			 strerror(-err));
		return err;
	}
	return 0;
}

static const char *systrap_kind(void)
{
	return systrap_can_listen()
		       ? "system calls by seccomp notification"
		       : "system calls by signal (notification needs Linux 6.11 and pidfd_getfd)";
}

static const struct stub_ops ops = {
	.name = "systrap",
	.proc_new = systrap_proc_new,
	.proc_end = systrap_proc_end,
	.proc_kill = systrap_proc_kill,
	.thread_new = systrap_thread_new,
	.batch = systrap_batch,
	.pass_fd = systrap_pass_fd,
	.crowd = systrap_crowd,
};

/* The first process goes into the pool. */
static int systrap_ready(struct platform *base)
{
	struct systrap_platform *p = to_platform(base);
	struct stub_proc *proc;
	int err = systrap_proc_new(&p->stub, &proc);

	if (err)
		return err;
	mutex_lock(&p->stub.lock);
	list_add(&proc->node, &p->stub.pool);
	p->stub.nr_pool++;
	mutex_unlock(&p->stub.lock);
	return 0;
}

/* Of the next platform. */
static struct reaper *prepared;

static void systrap_prepare(void)
{
	struct reaper *r = prepared ? prepared : reaper_start();

	/* If it can't be made, create finds out why. */
	prepared = IS_ERR(r) ? NULL : r;
}

static int systrap_create(const struct platform_config *config, struct platform **out)
{
	struct reaper *r = prepared ? prepared : reaper_start();
	struct systrap_platform *p;
	int err = -ENOMEM;

	if (IS_ERR(r))
		return (int)PTR_ERR(r);
	prepared = NULL;
	p = hzalloc(sizeof(*p));
	if (!p) {
		close(r->ctl_fd);
		goto out_reaper;
	}
	err = stub_platform_init(&p->stub, &systrap_platform, &ops, r->ctl_fd, CONTROL_SIZE);
	if (err)
		goto out_free;
	p->spin = p->stub.place.pin || p->stub.place.nr_cpus == 1 ? 0 : SPINS;
	list_init(&p->all);
	mutex_init(&p->spawn_lock, LOCK_PLATFORM);
	err = -ENOMEM;
	p->slots = hcalloc(MAX_PROCS / 64, sizeof(*p->slots));
	p->area_slots = hcalloc(MAX_AREAS / 64, sizeof(*p->area_slots));
	if (!p->slots || !p->area_slots)
		goto out_slots;
	p->slots[0] = 1 | 1 << MASTER_SLOT; /* and the scratch page */
	systrap_master_prepare(p);
	/* The reaper sees none of the first process's end before we know of the process. */
	mutex_lock(&p->spawn_lock);
	reaper_adopt(r, p);
	err = systrap_first_post_locked(p);
	mutex_unlock(&p->spawn_lock);
	if (err) {
		/* While there is a platform. */
		reaper_stop(r);
		r = NULL;
		goto out_slots;
	}
	/* Lockdown may come next. */
	reaper_wait(r);
	*out = &p->stub.base;
	return 0;

out_slots:
	kfree(p->slots);
	kfree(p->area_slots);
	mutex_fini(&p->spawn_lock);
	stub_platform_fini(&p->stub);
out_free:
	kfree(p);
out_reaper:
	if (r)
		reaper_stop(r);
	return err;
}

static void systrap_destroy(struct platform *base)
{
	struct systrap_platform *p = to_platform(base);

	/* Nobody wanted any: it goes the way of all. */
	if (p->first)
		systrap_ready(base);
	stub_pool_end(&p->stub);
	reaper_stop(p->reaper);
	kfree(p->slots);
	kfree(p->area_slots);
	mutex_fini(&p->spawn_lock);
	stub_platform_fini(&p->stub);
	kfree(p);
}

static size_t systrap_stats(struct platform *base, struct platform_stat stats[PLATFORM_MAX_STATS])
{
	return stub_stats(to_stub_platform(base), stats);
}

const struct platform_type systrap_platform = {
	.name = "systrap",
	.summary = "host processes behind a seccomp filter; no privileges needed",
	.kind = systrap_kind,
	.rewrite_after = 8,
	.spin = 3000,
	.probe = systrap_probe,
	.prepare = systrap_prepare,
	.create = systrap_create,
	.ready = systrap_ready,
	.destroy = systrap_destroy,
	.stats = systrap_stats,
	.as_create = stub_as_create,
	.as_destroy = stub_as_destroy,
	.as_invalidate = stub_as_invalidate,
	.ctx_create = systrap_ctx_create,
	.ctx_destroy = systrap_ctx_destroy,
	.ctx_run = systrap_ctx_run,
	.ctx_prepare = systrap_ctx_prepare,
	.ctx_kick = stub_ctx_kick,
	.ctx_get_bases = systrap_ctx_get_bases,
	.ctx_set_bases = systrap_ctx_set_bases,
	.ctx_get_fpu = systrap_ctx_get_fpu,
	.ctx_set_fpu = systrap_ctx_set_fpu,
	.ctx_answer = systrap_ctx_answer,
	.ctx_waits = stub_ctx_waits,
	.ctx_rest = stub_ctx_rest,
	.ctx_user_ns = stub_ctx_user_ns,
};
