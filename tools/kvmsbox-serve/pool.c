/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizing. A function's instances grow with its queue: as many more as would empty it in the time
 * that one takes to start, and one more if a request has waited longer than that. They shrink when
 * idle for instances.idle, and when memory is short: those idle for longest first, whoever's they
 * are. A waiting request outranks another function's idle instance; instances.min doesn't.
 *
 * While a function has no snapshot only one instance is started, which makes it: further ones are
 * quicker from that.
 */
#include "tools/kvmsbox-serve/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sentry/lib/err.h"
#include "tools/kvmsbox-serve/admission.h"
#include "tools/kvmsbox-serve/instance.h"
#include "tools/kvmsbox-serve/request.h"

#define TICK		  (200 * MSEC)
#define UNKNOWN_MEMORY	  (64ULL << 20)
#define MIN_BACKOFF	  (200 * MSEC)
#define MAX_BACKOFF	  (30 * SEC)
#define LOG_LINES	  1000 /* of a function's stderr, a second */
#define MAX_RESTORE_FAILS 2
#define MAX_ACCIDENTS	  3
#define NO_ROOM_WAIT	  SEC

static struct work kick_work;
static struct timer tick_timer;
static uint64_t last_second;

void pool_kick(void)
{
	work_add(&kick_work);
}

void pool_count_memory(struct instance *i, uint64_t bytes)
{
	server.memory += bytes - i->counted;
	if (i->function)
		i->function->tenant->memory += bytes - i->counted;
	i->counted = bytes;
}

static uint64_t expected_memory(const struct function *f)
{
	return f->typical_memory ?: MIN(UNKNOWN_MEMORY, f->config->limits.memory);
}

static bool is_current(const struct instance *i)
{
	return i->current && !i->function->gone;
}

/* Nothing is left to do for it, and nothing will come. */
static bool is_closing(const struct function *f)
{
	return (f->draining || server.stopping) && !f->queued;
}

/* The instance that has been idle for longest, not one of @but, not of a function in demand. */
static struct instance *coldest(const struct function *but, bool below_min)
{
	struct instance *best = NULL, *i;
	struct function *f;

	list_for_each_entry (f, &server.functions, node) {
		if (f == but || f->queued || list_empty(&f->ready) ||
		    (!below_min && f->live <= f->config->instances.min))
			continue;
		i = list_last_entry(&f->ready, struct instance, in_ready);
		if (!best || i->since < best->since)
			best = i;
	}
	return best;
}

static void shed(struct instance *i, const char *why)
{
	struct log_line l;

	if (log_begin(&l, LOG_INFO, "instance_shed")) {
		log_str(&l, "function", i->function->config->name);
		log_uint(&l, "instance", i->number);
		log_ms(&l, "idle_ms", loop_now() - i->since);
		log_str(&l, "why", why);
		log_end(&l);
	}
	i->function->stats.shed++;
	instance_end(i);
}

static bool is_short(uint64_t more)
{
	return server.memory + more > server.budget ||
	       server.memory_available < server.reserve + more;
}

/* Room for one more of @f? Others' idle instances make it if @evict. */
static bool make_room(struct function *f, bool evict)
{
	const struct tenant_config *tc = f->tenant->config;
	uint64_t more = expected_memory(f);
	struct instance *i;

	if (tc->memory && f->tenant->memory + more > tc->memory)
		return false;
	while (server.instances >= server.config->limits.instances ||
	       server.memory + more > server.budget) {
		i = evict ? coldest(f, false) ?: coldest(f, true) : NULL;
		if (!i)
			return false;
		shed(i, "room for another function");
	}
	/* What the kernel says changes slowly: don't empty the machine while waiting for it. */
	return server.memory_available >= server.reserve + more || !server.instances;
}

static bool start_one(struct function *f)
{
	struct instance *i = instance_start(f);

	if (!IS_ERR(i)) {
		pool_count_memory(i, expected_memory(f));
		return true;
	}
	f->retry_at = loop_now() + MIN_BACKOFF;
	log_say(LOG_ERROR, "start", "%s: can't start a process: %s", f->config->name,
		strerror((int)-PTR_ERR(i)));
	return false;
}

static bool may_start(const struct function *f)
{
	return !f->gone && loop_now() >= f->retry_at && loop_now() >= f->no_room_until &&
	       f->live < f->config->instances.max &&
	       server.starting < server.config->limits.starting &&
	       !(f->starting && f->image[0] < 0 && f->config->snapshot && !f->snapshot_failed);
}

/* How many instances should be starting for what waits. */
static uint64_t starts_wanted(const struct function *f)
{
	uint64_t n = admission_demand(f), start = MAX(f->average_start, 5 * MSEC), waited;
	const struct request *oldest;

	if (n <= f->nready)
		return 0;
	n -= f->nready;
	if (!f->live || !f->average_run)
		return n;
	oldest = list_first_entry(&f->queue, struct request, node);
	waited = loop_now() - oldest->arrived;
	n = MIN(n, n * f->average_run / start);
	if (!n && waited > 2 * start)
		n = 1;
	return n;
}

/* The function whose tenant has the fewest instances for its weight, of those that want one. */
static struct function *hungriest(void)
{
	struct function *best = NULL, *f;
	double best_share = 0, share;

	list_for_each_entry (f, &server.functions, node) {
		if (!f->queued || !may_start(f) || f->starting >= starts_wanted(f))
			continue;
		share = (double)f->tenant->instances / (double)f->tenant->config->weight;
		if (!best || share < best_share) {
			best = f;
			best_share = share;
		}
	}
	return best;
}

static void fill_to_min(void)
{
	struct function *f;

	list_for_each_entry (f, &server.functions, node) {
		while (f->live < f->config->instances.min && !f->draining && !server.stopping &&
		       may_start(f)) {
			if (!make_room(f, false) || !start_one(f))
				break;
		}
	}
}

static unsigned int blanks_of(const char *platform)
{
	struct instance *i;
	unsigned int n = 0;

	list_for_each_entry (i, &server.blanks, node)
		n += i->state == INST_BLANK && !strcmp(i->platform, platform);
	return n;
}

/* What the next blank is to be for: of the functions' platforms the one with the fewest. */
static const char *next_blank(void)
{
	const char *found = NULL;
	struct function *f;

	list_for_each_entry (f, &server.functions, node) {
		if (!found || blanks_of(function_platform(f)) < blanks_of(found))
			found = function_platform(f);
	}
	return found ?: "auto";
}

static bool is_wanted(const struct instance *blank)
{
	struct function *f;

	list_for_each_entry (f, &server.functions, node) {
		if (!strcmp(function_platform(f), blank->platform))
			return true;
	}
	return list_empty(&server.functions);
}

static void fill_blanks(void)
{
	struct instance *i, *tmp;

	list_for_each_entry_safe (i, tmp, &server.blanks, node) {
		if (!is_wanted(i))
			instance_end(i);
	}
	while (server.nblanks < server.config->blanks && !server.stopping &&
	       server.instances < server.config->limits.instances && !is_short(UNKNOWN_MEMORY)) {
		if (instance_start_blank(next_blank()))
			return;
	}
}

/* Without any instance and room for one, a request doesn't wait for its deadline. */
static void refuse_hopeless(struct function *f)
{
	struct request *r;

	while (!f->live && !list_empty(&f->queue)) {
		r = list_first_entry(&f->queue, struct request, node);
		if (loop_now() - r->arrived < NO_ROOM_WAIT)
			return;
		response_fail(r, 503, OUT_OVERLOADED, "no-room",
			      "no room for another instance: try again later");
	}
}

static void balance(struct work *w)
{
	struct function *f;

	admission_dispatch();
	while ((f = hungriest())) {
		if (make_room(f, true) && start_one(f))
			continue;
		f->no_room_until = loop_now() + TICK;
		refuse_hopeless(f);
	}
	fill_to_min();
	fill_blanks();
}

/* There is a better snapshot now than the one it is a copy of. */
static bool is_outdone(const struct instance *i)
{
	return !i->cold && i->images != i->function->images;
}

void pool_ready(struct instance *i)
{
	struct function *f = i->function;

	if (!is_current(i) || is_closing(f) || is_outdone(i)) {
		instance_end(i);
		return;
	}
	list_add(&i->in_ready, &f->ready);
	f->nready++;
	pool_kick();
}

void pool_image(struct instance *i, int fds[FN_IMAGE_FDS])
{
	struct function *f = i->function;
	struct instance *other, *tmp;

	/* Else it stays the caller's, who closes it. */
	if (!is_current(i))
		return;
	function_drop_image(f);
	for (int k = 0; k < FN_IMAGE_FDS; k++) {
		f->image[k] = fds[k];
		fds[k] = -1;
	}
	f->images++;
	list_for_each_entry_safe (other, tmp, &f->ready, in_ready) {
		if (is_outdone(other))
			instance_end(other);
	}
	pool_kick();
}

static uint64_t backoff(unsigned int failures)
{
	uint64_t t = MIN_BACKOFF << MIN(failures, 10U);

	return MIN(t, MAX_BACKOFF);
}

static bool is_hopeless(const struct function *f)
{
	return f->failures >= (f->proven ? MAX_ACCIDENTS : 1);
}

bool pool_is_failing(const struct function *f)
{
	return !f->live && f->retry_at > loop_now() && is_hopeless(f);
}

/* @i is still counted; the caller ends it. */
void pool_start_failed(struct instance *i, const char *why)
{
	struct function *f = i->function;
	struct log_line l;

	f->stats.starts_failed++;
	if (!is_current(i))
		return;
	free(f->failure);
	f->failure = strdup(why);
	f->retry_at = loop_now() + backoff(f->failures++);
	if (log_begin(&l, LOG_ERROR, "start_failed")) {
		log_str(&l, "tenant", f->tenant->config->name);
		log_str(&l, "function", f->config->name);
		log_uint(&l, "instance", i->number);
		log_str(&l, "start", i->cold ? "cold" : "restored");
		log_str(&l, "why", why);
		log_ms(&l, "retry_ms", f->retry_at - loop_now());
		log_end(&l);
	}
	/* A snapshot from which nothing starts is worth nothing. */
	if (!i->cold && f->failures >= MAX_RESTORE_FAILS && f->image[0] >= 0) {
		function_drop_image(f);
		f->retry_at = 0;
		return;
	}
	if (!i->cold || f->live > f->starting || !is_hopeless(f))
		return;
	admission_refuse_all(f, 502, OUT_START_FAILED, "start-failed", why);
}

void pool_lost(struct instance *i)
{
	pool_count_memory(i, 0);
	pool_kick();
}

void pool_retire(struct function *f)
{
	struct instance *i, *tmp;

	list_for_each_entry_safe (i, tmp, &f->instances, node) {
		if ((!is_current(i) || is_closing(f)) &&
		    (i->state == INST_STARTING || i->state == INST_SNAPSHOT ||
		     i->state == INST_READY || i->state == INST_RESETTING))
			instance_end(i);
	}
	pool_kick();
}

void pool_stop(void)
{
	struct instance *i, *tmp;
	struct function *f, *ftmp;

	list_for_each_entry_safe (f, ftmp, &server.functions, node) {
		list_for_each_entry_safe (i, tmp, &f->instances, node) {
			if (!i->req && !f->queued)
				instance_end(i);
		}
	}
	list_for_each_entry_safe (i, tmp, &server.blanks, node)
		instance_end(i);
}

static void read_meminfo(void)
{
	char line[128];
	unsigned long long kb;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "MemTotal: %llu", &kb) == 1)
			server.memory_total = kb << 10;
		if (sscanf(line, "MemAvailable: %llu", &kb) == 1)
			server.memory_available = kb << 10;
	}
	if (f)
		fclose(f);
	server.budget = server.config->limits.memory ?: server.memory_total / 4 * 3;
	server.reserve = server.config->limits.memory_reserve ?: server.memory_total / 20;
}

/* What it has of its own, by the kernel's account; 0 if that can't be read. */
static uint64_t read_pss(pid_t pid)
{
	char path[64], line[128];
	unsigned long long kb = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Pss: %llu", &kb) == 1)
			break;
	}
	if (f)
		fclose(f);
	return kb << 10;
}

/* A few instances each time, in turn: walking page tables isn't free. */
static void sample_memory(void)
{
	static uint64_t turn;
	struct instance *i;
	struct function *f;

	turn++;
	list_for_each_entry (f, &server.functions, node) {
		list_for_each_entry (i, &f->instances, node) {
			if ((i->number + turn) % MAX(1U, server.instances / 4) ||
			    i->state < INST_READY || i->state == INST_ENDING)
				continue;
			i->pss = read_pss(i->pid);
			pool_count_memory(i, MAX(i->pss, i->resident));
		}
	}
}

static void shed_idle(struct function *f)
{
	struct instance *i, *tmp;

	list_for_each_entry_safe (i, tmp, &f->ready, in_ready) {
		if (is_closing(f))
			instance_end(i);
		else if (f->live > f->config->instances.min && !f->queued &&
			 loop_now() - i->since >= f->config->instances.idle)
			shed(i, "idle");
	}
}

static void each_second(void)
{
	struct instance *i;
	struct function *f;

	read_meminfo();
	list_for_each_entry (f, &server.functions, node) {
		f->log_lines = LOG_LINES;
		if (f->lines_dropped) {
			log_say(LOG_WARN, "stderr", "%s: %llu lines dropped: more than %d a second",
				f->config->name, (unsigned long long)f->lines_dropped, LOG_LINES);
			f->lines_dropped = 0;
		}
	}
	for (int n = 0; is_short(0) && n < 8; n++) {
		i = coldest(NULL, false) ?: coldest(NULL, true);
		if (!i)
			break;
		shed(i, "memory is short");
	}
}

static void tick(struct timer *t)
{
	struct function *f;

	timer_set(t, loop_now() + TICK);
	list_for_each_entry (f, &server.functions, node)
		shed_idle(f);
	sample_memory();
	if (loop_now() - last_second >= SEC) {
		last_second = loop_now();
		each_second();
	}
	pool_kick();
}

int pool_init(void)
{
	work_init(&kick_work, balance);
	tick_timer.fire = tick;
	last_second = loop_now();
	read_meminfo();
	timer_set(&tick_timer, loop_now() + TICK);
	pool_kick();
	return server.memory_total ? 0 : -ENOENT;
}
