/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where contexts run. A host thread and its stub thread never run at the same time, and handing
 * over between two CPUs costs seven times a switch on one, so both are bound to one CPU.
 *
 * Binding takes the choice from the host's scheduler, so it is made here: a new context stays on
 * the CPU where its host thread is (near whoever made it) unless user code runs there now; one that
 * finds its CPU taken several times in a row goes to an idle one; and for those that never leave
 * user code the warden compares the CPUs every few milliseconds.
 *
 * The count of contexts in user code on each CPU is what tells: pairs that take turns (a pipe) are
 * rarely seen there together and stay together.
 *
 * KVMSBOX_PTRACE_PIN=0 in the environment turns it off, for measurements.
 */
#include "platform/ptrace/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sentry/lib/arena.h"

#define CROWDED_LIMIT 4

void place_init(struct ptrace_platform *p)
{
	const char *env = getenv("KVMSBOX_PTRACE_PIN");
	int id;

	CPU_ZERO(&p->allowed);
	if ((env && !strcmp(env, "0")) || sched_getaffinity(0, sizeof(p->allowed), &p->allowed))
		return;
	p->nr_cpus = (unsigned int)CPU_COUNT(&p->allowed);
	if (p->nr_cpus < 2)
		return;
	p->cpus = kcalloc(p->nr_cpus + 1, sizeof(*p->cpus));
	if (!p->cpus)
		return;
	p->nr_cpus = 0;
	for (id = 0; id < CPU_SETSIZE; id++) {
		if (CPU_ISSET(id, &p->allowed))
			p->cpus[p->nr_cpus++].id = id;
	}
	p->pin = true;
}

void place_fini(struct ptrace_platform *p)
{
	kfree(p->cpus);
}

static int load_of(const struct ptrace_platform *p, unsigned int cpu)
{
	return atomic_load_explicit(&p->cpus[cpu].running, memory_order_relaxed);
}

static unsigned int least_loaded(const struct ptrace_platform *p, unsigned int start)
{
	unsigned int best = start, i;

	for (i = 0; i < p->nr_cpus; i++) {
		if (load_of(p, i) < load_of(p, best))
			best = i;
	}
	return best;
}

/* @tracer: 0 for the calling thread. */
static void move_to(struct ptrace_context *ctx, pid_t tracer, pid_t tid, unsigned int cpu)
{
	struct ptrace_platform *p = to_platform(ctx->base.platform);
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(p->cpus[cpu].id, &set);
	/* If the CPU has gone offline they stay where they are: slower, not wrong. */
	sched_setaffinity(tracer, sizeof(set), &set);
	sched_setaffinity(tid, sizeof(set), &set);
	atomic_store_explicit(&ctx->cpu, (int)cpu, memory_order_relaxed);
}

void place_context(struct ptrace_context *ctx, pid_t tid)
{
	struct ptrace_platform *p = to_platform(ctx->base.platform);
	unsigned int cpu = 0;
	int here;

	if (!p->pin)
		return;
	here = sched_getcpu();
	while (cpu < p->nr_cpus && p->cpus[cpu].id != here)
		cpu++;
	if (cpu == p->nr_cpus)
		cpu = 0;
	move_to(ctx, 0, tid, least_loaded(p, cpu));
	ctx->crowded = 0;
}

void place_leave(struct ptrace_context *ctx)
{
	struct ptrace_platform *p = to_platform(ctx->base.platform);

	if (p->pin)
		sched_setaffinity(0, sizeof(p->allowed), &p->allowed);
	atomic_store_explicit(&ctx->cpu, -1, memory_order_relaxed);
}

int place_enter(struct ptrace_context *ctx)
{
	struct ptrace_platform *p = to_platform(ctx->base.platform);
	int cpu = atomic_load_explicit(&ctx->cpu, memory_order_relaxed);
	unsigned int other;

	if (cpu < 0)
		return -1;
	if (likely(!load_of(p, (unsigned int)cpu))) {
		ctx->crowded = 0;
	} else if (++ctx->crowded >= CROWDED_LIMIT) {
		ctx->crowded = 0;
		other = least_loaded(p, (unsigned int)cpu);
		if (!load_of(p, other)) {
			move_to(ctx, 0, ctx->thread->tid, other);
			ctx->stats.moves++;
			cpu = (int)other;
		}
	}
	atomic_fetch_add_explicit(&p->cpus[cpu].running, 1, memory_order_relaxed);
	return cpu;
}

void place_exit(struct ptrace_platform *p, int cpu)
{
	if (cpu >= 0)
		atomic_fetch_sub_explicit(&p->cpus[cpu].running, 1, memory_order_relaxed);
}

void place_near(struct ptrace_platform *p, pid_t tid)
{
	cpu_set_t set;
	int cpu;

	if (!p->pin)
		return;
	cpu = sched_getcpu();
	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(tid, sizeof(set), &set);
}

/* Two in user code on one CPU while another has none, at two ticks in a row. */
void place_balance(struct ptrace_platform *p)
{
	static unsigned int seen;
	unsigned int most = 0, least = least_loaded(p, 0), i;
	struct ptrace_context *ctx;

	for (i = 1; i < p->nr_cpus; i++) {
		if (load_of(p, i) > load_of(p, most))
			most = i;
	}
	if (load_of(p, most) - load_of(p, least) < 2) {
		seen = 0;
		return;
	}
	if (++seen < 2)
		return;
	seen = 0;
	mutex_lock(&p->lock);
	list_for_each_entry (ctx, &p->contexts, node) {
		uint64_t target = atomic_load(&ctx->target);
		struct stub_thread *th = ctx->thread;

		if (!target || !th || atomic_load(&ctx->cpu) != (int)most)
			continue;
		move_to(ctx, th->tracer, th->tid, least);
		/* Makes its host thread count it on the other side. No flag: not a kick. */
		syscall(SYS_tgkill, (pid_t)(target >> 32), (pid_t)target, PLATFORM_KICK_SIGNAL);
		break;
	}
	mutex_unlock(&p->lock);
}
