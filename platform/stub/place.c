/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where contexts run. A host thread and its stub thread never run at the same time, and handing
 * over between two CPUs costs seven times a switch on one, so both are bound to one CPU.
 *
 * Binding takes the choice from the host's scheduler, so it is made here: a new context stays on
 * the CPU where its host thread is (near whoever made it) unless user code runs there now; one that
 * finds its CPU taken several times in a row goes to an idle one; and for those that never leave
 * user code somebody compares the CPUs every few milliseconds (place_balance).
 *
 * The count of contexts in user code on each CPU is what tells: pairs that take turns (a pipe) are
 * rarely seen there together and stay together. If they weren't together to begin with, one of them
 * joins the other: waking somebody on another CPU costs more than all else that a turn does.
 *
 * KVMSBOX_STUB_PIN=0 in the environment turns it off, for measurements.
 */
#include "platform/stub/stub.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/clock.h"

#define CROWDED_LIMIT 4 /* at first: four times as much each time that it was no help */
#define CROWDED_MOST  4096u
#define APART_LIMIT   16
#define PLACE_ANEW    (-2)    /* the next to enter is placed again */
#define STAY_NS	      2000000 /* before it may be elsewhere: that costs 4 µs */

void place_init(struct place *pl)
{
	const char *env = getenv("KVMSBOX_STUB_PIN");
	int id;

	CPU_ZERO(&pl->allowed);
	if ((env && !strcmp(env, "0")) || sched_getaffinity(0, sizeof(pl->allowed), &pl->allowed))
		return;
	pl->nr_cpus = (unsigned int)CPU_COUNT(&pl->allowed);
	if (pl->nr_cpus < 2)
		return;
	pl->cpus = hcalloc(pl->nr_cpus + 1, sizeof(*pl->cpus));
	if (!pl->cpus)
		return;
	pl->nr_cpus = 0;
	for (id = 0; id < CPU_SETSIZE; id++) {
		if (CPU_ISSET(id, &pl->allowed))
			pl->cpus[pl->nr_cpus++].id = id;
	}
	pl->pin = true;
}

void place_fini(struct place *pl)
{
	kfree(pl->cpus);
}

static int load_of(const struct place *pl, unsigned int cpu)
{
	return atomic_load_explicit(&pl->cpus[cpu].running, memory_order_relaxed);
}

static unsigned int least_loaded(const struct place *pl, unsigned int start)
{
	unsigned int best = start, i;

	for (i = 0; i < pl->nr_cpus; i++) {
		if (load_of(pl, i) < load_of(pl, best))
			best = i;
	}
	return best;
}

/* @tracer: 0 for the calling thread. */
static void move_to(struct stub_context *ctx, pid_t tracer, pid_t tid, unsigned int cpu)
{
	struct place *pl = &to_stub_platform(ctx->base.platform)->place;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(pl->cpus[cpu].id, &set);
	/* If the CPU has gone offline they stay where they are: slower, not wrong. */
	sched_setaffinity(tracer, sizeof(set), &set);
	sched_setaffinity(tid, sizeof(set), &set);
	atomic_store_explicit(&ctx->cpu, (int)cpu, memory_order_relaxed);
}

void place_context(struct stub_context *ctx, pid_t tid)
{
	struct place *pl = &to_stub_platform(ctx->base.platform)->place;
	unsigned int cpu = 0;
	int here;

	if (!pl->pin)
		return;
	here = sched_getcpu();
	while (cpu < pl->nr_cpus && pl->cpus[cpu].id != here)
		cpu++;
	if (cpu == pl->nr_cpus)
		cpu = 0;
	move_to(ctx, 0, tid, least_loaded(pl, cpu));
	ctx->crowded = ctx->apart = 0;
	ctx->crowded_limit = CROWDED_LIMIT;
	ctx->placed = monotonic_ns();
}

/* The calling thread may run anywhere again. @cpu: -1, or PLACE_ANEW. */
static void unbind(struct stub_context *ctx, int cpu)
{
	struct place *pl = &to_stub_platform(ctx->base.platform)->place;

	if (pl->pin)
		sched_setaffinity(0, sizeof(pl->allowed), &pl->allowed);
	atomic_store_explicit(&ctx->cpu, cpu, memory_order_relaxed);
}

void place_leave(struct stub_context *ctx)
{
	unbind(ctx, -1);
}

void place_rest(struct stub_context *ctx)
{
	if (atomic_load_explicit(&ctx->cpu, memory_order_relaxed) >= 0 &&
	    monotonic_ns() - ctx->placed >= STAY_NS)
		unbind(ctx, PLACE_ANEW);
}

void place_waits(struct stub_context *ctx)
{
	struct place *pl = &to_stub_platform(ctx->base.platform)->place;
	int cpu = atomic_load_explicit(&ctx->cpu, memory_order_relaxed);

	if (cpu >= 0)
		atomic_store_explicit(&pl->cpus[cpu].waits, true, memory_order_relaxed);
}

/*
 * Whoever entered user code before @ctx did it on another CPU, and sleeps now: time after time?
 * Then that CPU, else @cpu, its own.
 */
static int joins(struct place *pl, struct stub_context *ctx, int cpu)
{
	int last = atomic_load_explicit(&pl->last, memory_order_relaxed);

	if (last == cpu)
		return cpu;
	if (!atomic_load_explicit(&pl->cpus[last].waits, memory_order_relaxed) ||
	    load_of(pl, (unsigned int)last)) {
		ctx->apart = 0;
		return cpu;
	}
	if (++ctx->apart < APART_LIMIT)
		return cpu;
	ctx->apart = 0;
	ctx->crowded_limit = MIN(ctx->crowded_limit * 4, CROWDED_MOST);
	return last;
}

int place_enter(struct stub_context *ctx)
{
	struct place *pl = &to_stub_platform(ctx->base.platform)->place;
	int cpu = atomic_load_explicit(&ctx->cpu, memory_order_relaxed);
	unsigned int other;
	int to;

	if (unlikely(cpu == PLACE_ANEW)) {
		place_context(ctx, ctx->thread->tid);
		cpu = atomic_load_explicit(&ctx->cpu, memory_order_relaxed);
	}
	if (cpu < 0)
		return -1;
	to = cpu;
	if (likely(!load_of(pl, (unsigned int)cpu))) {
		ctx->crowded = 0;
		to = joins(pl, ctx, cpu);
	} else if (++ctx->crowded >= ctx->crowded_limit) {
		ctx->crowded = 0;
		other = least_loaded(pl, (unsigned int)cpu);
		if (!load_of(pl, other))
			to = (int)other;
	}
	if (unlikely(to != cpu)) {
		move_to(ctx, 0, ctx->thread->tid, (unsigned int)to);
		ctx->stats.moves++;
		cpu = to;
	}
	atomic_fetch_add_explicit(&pl->cpus[cpu].running, 1, memory_order_relaxed);
	if (atomic_load_explicit(&pl->cpus[cpu].waits, memory_order_relaxed))
		atomic_store_explicit(&pl->cpus[cpu].waits, false, memory_order_relaxed);
	if (atomic_load_explicit(&pl->last, memory_order_relaxed) != cpu)
		atomic_store_explicit(&pl->last, cpu, memory_order_relaxed);
	return cpu;
}

void place_exit(struct place *pl, int cpu)
{
	if (cpu >= 0)
		atomic_fetch_sub_explicit(&pl->cpus[cpu].running, 1, memory_order_relaxed);
}

void place_near(struct place *pl, pid_t tid)
{
	cpu_set_t set;
	int cpu;

	if (!pl->pin)
		return;
	cpu = sched_getcpu();
	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(tid, sizeof(set), &set);
}

/* Two in user code on one CPU while another has none, at two ticks in a row. */
void place_balance(struct stub_platform *p)
{
	static unsigned int seen;
	struct place *pl = &p->place;
	unsigned int most = 0, least = least_loaded(pl, 0), i;
	struct stub_context *ctx;

	for (i = 1; i < pl->nr_cpus; i++) {
		if (load_of(pl, i) > load_of(pl, most))
			most = i;
	}
	if (load_of(pl, most) - load_of(pl, least) < 2) {
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
		move_to(ctx, th->driver, th->tid, least);
		/* Makes its host thread count it on the other side. Not a kick. */
		stub_ctx_nudge(ctx);
		break;
	}
	mutex_unlock(&p->lock);
}
