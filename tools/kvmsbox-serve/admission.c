/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who waits, and who is next. Requests wait in their function's queue. Between tenants it is
 * start-time fair queueing (Goyal, Vin, Cheng 1996): a request's start tag is the later of the
 * virtual time and its tenant's finish tag, the smallest start tag is served first, and a tenant's
 * finish tag grows by the time its requests run, divided by its weight. How long a request will run
 * isn't known, so its function's average is charged, and corrected when it has ended. Between the
 * functions of a tenant it is round robin, within a function first come, first served.
 */
#include "tools/kvmsbox-serve/admission.h"

#include "tools/kvmsbox-serve/instance.h"
#include "tools/kvmsbox-serve/pool.h"
#include "tools/kvmsbox-serve/request.h"

#define UNKNOWN_RUN (5 * MSEC)

static bool tenant_full(const struct tenant *t)
{
	return t->running >= t->config->concurrency;
}

static bool may_run(const struct function *f)
{
	return f->queued && f->nready && f->running < f->config->limits.concurrency;
}

/* Would @r run without waiting? */
static bool runs_at_once(const struct request *r)
{
	const struct function *f = r->function;
	const struct tenant *t = f->tenant;

	return f->nready > f->queued && f->running + f->queued < f->config->limits.concurrency &&
	       t->running + t->queued < t->config->concurrency &&
	       server.running + server.queued < server.config->limits.concurrency;
}

static bool refuse_full(struct request *r)
{
	struct function *f = r->function;
	const char *why = NULL;

	if (runs_at_once(r))
		return false;
	if (f->queued >= f->config->limits.queue)
		why = "this function's queue is full";
	else if (f->tenant->queued >= f->tenant->config->queue)
		why = "this tenant's queue is full";
	if (why) {
		response_fail(r, 429, OUT_LIMITED, "queue-full", "%s", why);
		return true;
	}
	if (server.queued < server.config->limits.queue)
		return false;
	response_fail(r, 503, OUT_OVERLOADED, "overloaded", "the server's queue is full");
	return true;
}

void request_queue(struct request *r)
{
	struct function *f = r->function;

	if (f->gone) {
		response_fail(r, 503, OUT_OVERLOADED, "removed", "this function has been removed");
		return;
	}
	if (refuse_full(r))
		return;
	r->state = REQ_QUEUED;
	r->deadline = loop_now() + f->config->limits.time;
	timer_set(&r->timer, r->deadline);
	list_add_tail(&r->node, &f->queue);
	f->reading--;
	f->queued++;
	f->tenant->queued++;
	server.queued++;
	pool_kick();
}

static void leave_queue(struct request *r)
{
	list_del(&r->node);
	r->function->queued--;
	r->function->tenant->queued--;
	server.queued--;
}

static uint64_t average(uint64_t old, uint64_t new)
{
	return old ? old - old / 8 + new / 8 : new;
}

void request_leave(struct request *r)
{
	struct function *f = r->function;
	struct tenant *t = f->tenant;
	uint64_t ran;

	switch (r->state) {
	case REQ_READING:
		f->reading--;
		break;
	case REQ_QUEUED:
		leave_queue(r);
		break;
	case REQ_RUNNING:
		ran = loop_now() - r->started;
		f->running--;
		t->running--;
		server.running--;
		f->average_run = average(f->average_run, ran);
		t->finish += ((double)ran - r->charged) / (double)t->config->weight;
		break;
	}
}

void request_run(struct request *r, struct instance *i)
{
	struct function *f = r->function;
	struct tenant *t = f->tenant;
	double start = t->finish > server.vtime ? t->finish : server.vtime;

	leave_queue(r);
	f->running++;
	t->running++;
	server.running++;
	server.vtime = start;
	r->charged = (double)(f->average_run ?: UNKNOWN_RUN);
	t->finish = start + r->charged / (double)t->config->weight;
	r->state = REQ_RUNNING;
	r->started = loop_now();
	r->instance = i;
	histogram_add(&f->stats.queue_wait, r->started - r->arrived);
	instance_run(i, r);
}

/* The first function of @t, in turn, that has a request and an instance for it. */
static struct function *tenant_pick(struct tenant *t)
{
	struct function *f;

	list_for_each_entry (f, &t->functions, of_tenant) {
		if (may_run(f))
			return f;
	}
	return NULL;
}

static struct function *pick(void)
{
	struct function *best = NULL, *f;
	double best_start = 0, start;
	struct tenant *t;

	list_for_each_entry (t, &server.tenants, node) {
		if (!t->queued || tenant_full(t))
			continue;
		f = tenant_pick(t);
		start = t->finish > server.vtime ? t->finish : server.vtime;
		if (f && (!best || start < best_start)) {
			best = f;
			best_start = start;
		}
	}
	return best;
}

void admission_dispatch(void)
{
	struct function *f;

	while (server.running < server.config->limits.concurrency && server.queued) {
		f = pick();
		if (!f)
			return;
		list_move_tail(&f->of_tenant, &f->tenant->functions);
		request_run(list_first_entry(&f->queue, struct request, node),
			    list_first_entry(&f->ready, struct instance, in_ready));
	}
}

/* What is left of a limit. */
static unsigned int left_of(uint64_t limit, unsigned int used)
{
	uint64_t left = limit > used ? limit - used : 0;

	return left < UINT32_MAX ? (unsigned int)left : UINT32_MAX;
}

unsigned int admission_demand(const struct function *f)
{
	const struct tenant *t = f->tenant;
	unsigned int n = f->queued;

	n = MIN(n, left_of(f->config->limits.concurrency, f->running));
	n = MIN(n, left_of(t->config->concurrency, t->running));
	return MIN(n, left_of(server.config->limits.concurrency, server.running));
}

void admission_refuse_all(struct function *f, unsigned int status, enum outcome outcome,
			  const char *code, const char *why)
{
	while (!list_empty(&f->queue))
		response_fail(list_first_entry(&f->queue, struct request, node), status, outcome,
			      code, "%s", why);
}
