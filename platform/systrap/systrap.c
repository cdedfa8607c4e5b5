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

/*
 * Page tables: addresses at the end of physical RAM, behind which is memory of our own and not the
 * file's.
 */
#define TABLES_SIZE (1UL << 30) /* for 512 GiB of mappings, all address spaces together */
#define TABLES_BASE (PHYS_RAM_SIZE - TABLES_SIZE)

static int tables_init(struct systrap_platform *p)
{
	if (mmap(phys_ptr(TABLES_BASE), TABLES_SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
		return -errno;
	physmem_set_end(TABLES_BASE);
	mutex_init(&p->table_lock, LOCK_PLATFORM);
	p->free_tables = GPA_NONE;
	p->next_table = TABLES_BASE;
	return 0;
}

static void tables_fini(struct systrap_platform *p)
{
	mmap(phys_ptr(TABLES_BASE), TABLES_SIZE, PROT_READ | PROT_WRITE,
	     MAP_SHARED | MAP_FIXED | MAP_NORESERVE, physmem_fd(), (off_t)TABLES_BASE);
	physmem_set_end(PHYS_RAM_SIZE);
	mutex_fini(&p->table_lock);
}

static gpa_t table_alloc(struct pt_allocator *a)
{
	struct systrap_platform *p = container_of(a, struct systrap_platform, stub.base.pt_alloc);
	gpa_t gpa;

	mutex_lock(&p->table_lock);
	gpa = p->free_tables;
	if (gpa != GPA_NONE) {
		uint64_t *t = phys_ptr(gpa);

		p->free_tables = *t;
		mutex_unlock(&p->table_lock);
		memset(t, 0, PAGE_SIZE);
		return gpa;
	}
	gpa = p->next_table < PHYS_RAM_SIZE ? p->next_table : GPA_NONE;
	if (gpa != GPA_NONE)
		p->next_table += PAGE_SIZE;
	mutex_unlock(&p->table_lock);
	return gpa;
}

static void table_free(struct pt_allocator *a, gpa_t table)
{
	struct systrap_platform *p = container_of(a, struct systrap_platform, stub.base.pt_alloc);
	uint64_t *t = phys_ptr(table);

	mutex_lock(&p->table_lock);
	*t = p->free_tables;
	p->free_tables = table;
	mutex_unlock(&p->table_lock);
}

static const struct stub_ops ops = {
	.name = "systrap",
	.proc_new = systrap_proc_new,
	.proc_end = systrap_proc_end,
	.proc_kill = systrap_proc_kill,
	.thread_new = systrap_thread_new,
	.batch = systrap_batch,
	.pass_fd = systrap_pass_fd,
};

/* The first process goes into the pool. */
static int systrap_ready(struct platform *base)
{
	struct systrap_platform *p = to_platform(base);
	struct stub_proc *proc;
	int err = systrap_proc_new(&p->stub, &proc);

	if (err)
		return err;
	stub_proc_forget(proc);
	mutex_lock(&p->stub.lock);
	list_add(&proc->node, &p->stub.pool);
	p->stub.nr_pool++;
	mutex_unlock(&p->stub.lock);
	return 0;
}

static int systrap_create(const struct platform_config *config, struct platform **out)
{
	struct systrap_platform *p = kzalloc(sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	err = stub_platform_init(&p->stub, &systrap_platform, &ops,
				 AREAS_OFFSET + (size_t)MAX_AREAS * AREA_SIZE);
	if (err)
		goto out_free;
	err = tables_init(p);
	if (err)
		goto out_stub;
	p->stub.base.pt_alloc = (struct pt_allocator){.alloc = table_alloc, .free = table_free};
	p->spin = p->stub.place.pin || p->stub.place.nr_cpus == 1 ? 0 : SPINS;
	list_init(&p->all);
	mutex_init(&p->spawn_lock, LOCK_PLATFORM);
	err = -ENOMEM;
	p->slots = kcalloc(MAX_PROCS / 64, sizeof(*p->slots));
	p->area_slots = kcalloc(MAX_AREAS / 64, sizeof(*p->area_slots));
	if (!p->slots || !p->area_slots)
		goto out_slots;
	p->slots[0] = 1; /* the scratch page */
	err = systrap_master_prepare(p);
	if (!err)
		err = reaper_start(p);
	if (err)
		goto out_slots;
	err = systrap_first_post(p);
	if (err)
		goto out_reaper;
	*out = &p->stub.base;
	return 0;

out_reaper:
	reaper_stop(p);
out_slots:
	kfree(p->slots);
	kfree(p->area_slots);
	mutex_fini(&p->spawn_lock);
	tables_fini(p);
out_stub:
	stub_platform_fini(&p->stub);
out_free:
	kfree(p);
	return err;
}

static void systrap_destroy(struct platform *base)
{
	struct systrap_platform *p = to_platform(base);

	/* Nobody wanted any: it goes the way of all. */
	if (p->first)
		systrap_ready(base);
	stub_pool_end(&p->stub);
	reaper_stop(p);
	kfree(p->slots);
	kfree(p->area_slots);
	mutex_fini(&p->spawn_lock);
	tables_fini(p);
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
	.rewrite_after = 8,
	.spin = 3000,
	.probe = systrap_probe,
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
	.ctx_kick = stub_ctx_kick,
	.ctx_get_bases = systrap_ctx_get_bases,
	.ctx_set_bases = systrap_ctx_set_bases,
	.ctx_get_fpu = systrap_ctx_get_fpu,
	.ctx_set_fpu = systrap_ctx_set_fpu,
	.ctx_user_ns = stub_ctx_user_ns,
};
