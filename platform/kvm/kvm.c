/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM platform's table of operations, and what is not worth a file. */
#include "platform/kvm/internal.h"

#include <errno.h>
#include <stdio.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

unsigned int kvm_vcpu_limit;

static int kvm_probe(char *why, size_t size)
{
	int fd = kvm_open(why, size);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/*
 * Where KVM shadows page tables without the hardware's help, an exit or a fault costs tens of
 * microseconds (docs/kvm-notes.md): more than any other platform's.
 */
static bool kvm_is_costly(char *why, size_t size)
{
	if (!kvm_is_pvm())
		return false;
	snprintf(why, size,
		 "no hardware virtualization behind /dev/kvm: each exit costs tens of "
		 "microseconds");
	return true;
}

static int take_kicks(void)
{
	int err = platform_kick_handler();
	sigset_t set;

	if (err)
		return err;
	sigemptyset(&set);
	sigaddset(&set, PLATFORM_KICK_SIGNAL);
	return -pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void kvm_destroy(struct platform *base)
{
	struct kvm_platform *p = to_kvm(base);

	physmem_set_listener(NULL);
	kvm_vm_destroy();
	tables_fini(p);
	mutex_fini(&p->pool_lock);
	kfree(p);
}

static int kvm_create(const struct platform_config *config, struct platform **out)
{
	struct kvm_platform *p = hzalloc(sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->base.type = &kvm_platform;
	p->listener.add_range = kvm_vm_add_range;
	tables_init(p);
	pool_init(p);
	err = take_kicks();
	if (err) {
		tables_fini(p);
		mutex_fini(&p->pool_lock);
		kfree(p);
		return err;
	}
	kvm_vm_prepare();
	physmem_set_listener(&p->listener);
	if (config->selftest) {
		err = kvm_selftest(p);
		if (err) {
			kvm_destroy(&p->base);
			return err;
		}
	}
	*out = &p->base;
	return 0;
}

static int kvm_ready(struct platform *p)
{
	return kvm_vm_wait();
}

static size_t kvm_stats(struct platform *base, struct platform_stat stats[PLATFORM_MAX_STATS])
{
	static const char *const names[NR_VSTATS] = {
		[VSTAT_ENTERS] = "enters",
		[VSTAT_SYSCALLS] = "exits: doorbell syscalls",
		[VSTAT_FAULTS] = "exits: faults",
		[VSTAT_EXCEPTIONS] = "exits: exceptions",
		[VSTAT_KICKS] = "exits: signals",
		[VSTAT_RETRIES] = "entries called off",
		[VSTAT_DRAIN_EXITS] = "exits: page-table work",
		[VSTAT_DRAINS] = "page-table work: rounds",
		[VSTAT_PTE_STORES] = "page-table work: entry stores",
		[VSTAT_POKES] = "page-table work: pokes",
		[VSTAT_CR3_LOADS] = "page-table work: CR3 loads",
		[VSTAT_BINDS] = "vCPUs bound",
	};
	static const char *const mmu_names[] = {
		[MMU_UNKNOWN] = "MMU: not looked at",
		[MMU_COHERENT] = "MMU: nested paging",
		[MMU_POKE] = "MMU: shadowed, pokes",
		[MMU_STORE] = "MMU: shadowed, stores",
	};
	struct kvm_platform *p = to_kvm(base);
	unsigned int vcpus = atomic_load(&kvm_vm.nr_vcpus);
	size_t n = 0;

	for (int s = 0; s < NR_VSTATS; s++) {
		uint64_t sum = 0;

		for (unsigned int i = 0; i < vcpus; i++)
			sum += atomic_load_explicit(&kvm_vm.vcpus[i].stat[s], memory_order_relaxed);
		stats[n++] = (struct platform_stat){names[s], sum};
	}
	stats[n++] = (struct platform_stat){"invalidations", atomic_load(&p->invalidations)};
	stats[n++] = (struct platform_stat){"shootdowns", atomic_load(&p->shootdowns)};
	stats[n++] = (struct platform_stat){"vCPUs created", vcpus};
	stats[n++] = (struct platform_stat){"memory slots", kvm_vm.nr_slots};
	stats[n++] = (struct platform_stat){mmu_names[atomic_load(&p->mmu)], 1};
	return n;
}

struct context *kvm_ctx_create(struct platform *p)
{
	struct kvm_context *ctx = hzalloc(sizeof(*ctx));

	if (!ctx)
		return ERR_PTR(-ENOMEM);
	ctx->fpu_block = hzalloc(arch_fpu_size() + 64);
	if (!ctx->fpu_block) {
		kfree(ctx);
		return ERR_PTR(-ENOMEM);
	}
	ctx->fpu = (uint8_t *)ALIGN_UP((uintptr_t)ctx->fpu_block, (uintptr_t)64);
	arch_fpu_init(ctx->fpu);
	ctx->base.platform = p;
	ctx->vcpu = -1;
	ctx->fpu_mem = ctx->fpu_initial = ctx->bases_mem = true;
	return &ctx->base;
}

void kvm_ctx_destroy(struct context *base)
{
	struct kvm_context *ctx = to_kvm_ctx(base);

	pool_unbind(ctx);
	kfree(ctx->fpu_block);
	kfree(ctx);
}

void kvm_ctx_get_bases(struct context *base, uint64_t *fs_base, uint64_t *gs_base)
{
	struct kvm_context *ctx = to_kvm_ctx(base);
	struct vcpu *v = pool_hold(ctx);
	int err = v ? vcpu_save_bases(v, ctx) : 0;

	if (err)
		log_error("vCPU %d: can't read segment bases: %s", v->index, strerror(-err));
	*fs_base = ctx->fs_base;
	*gs_base = ctx->gs_base;
	if (v)
		pool_release(ctx, v);
}

void kvm_ctx_set_bases(struct context *base, uint64_t fs_base, uint64_t gs_base)
{
	struct kvm_context *ctx = to_kvm_ctx(base);
	struct vcpu *v = pool_hold(ctx);

	ctx->fs_base = fs_base;
	ctx->gs_base = gs_base;
	ctx->bases_mem = true;
	ctx->bases_cpu = false;
	if (v)
		pool_release(ctx, v);
}

void kvm_ctx_get_fpu(struct context *base, void *fpu)
{
	struct kvm_context *ctx = to_kvm_ctx(base);
	struct vcpu *v = pool_hold(ctx);
	int err = v ? vcpu_save_fpu(v, ctx) : 0;

	if (err)
		log_error("vCPU %d: can't read extended state: %s", v->index, strerror(-err));
	memcpy(fpu, ctx->fpu, arch_fpu_size());
	if (v)
		pool_release(ctx, v);
}

void kvm_ctx_set_fpu(struct context *base, const void *fpu)
{
	struct kvm_context *ctx = to_kvm_ctx(base);
	struct vcpu *v = pool_hold(ctx);

	memcpy(ctx->fpu, fpu, arch_fpu_size());
	arch_fpu_sanitize(ctx->fpu);
	ctx->fpu_mem = true;
	ctx->fpu_cpu = ctx->fpu_initial = false;
	if (v)
		pool_release(ctx, v);
}

const struct platform_type kvm_platform = {
	.name = "kvm",
	.summary = "user code runs as a guest of /dev/kvm, this process is its kernel",
	.rewrite_after = 2,
	.spin = 20000,
	.dear_touch = true,
	.own_memory = true,
	.probe = kvm_probe,
	.kind = kvm_kind,
	.is_costly = kvm_is_costly,
	.prepare = kvm_vm_prepare,
	.create = kvm_create,
	.ready = kvm_ready,
	.destroy = kvm_destroy,
	.stats = kvm_stats,
	.as_create = kvm_as_create,
	.as_destroy = kvm_as_destroy,
	.as_invalidate = kvm_as_invalidate,
	.ctx_create = kvm_ctx_create,
	.ctx_destroy = kvm_ctx_destroy,
	.ctx_run = kvm_ctx_run,
	.ctx_kick = kvm_ctx_kick,
	.ctx_get_bases = kvm_ctx_get_bases,
	.ctx_set_bases = kvm_ctx_set_bases,
	.ctx_get_fpu = kvm_ctx_get_fpu,
	.ctx_set_fpu = kvm_ctx_set_fpu,
};
