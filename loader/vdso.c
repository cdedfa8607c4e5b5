/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timekeeping: every second the host's clocks are sampled together with the TSC, and the rates are
 * set so that the page meets the host's CLOCK_MONOTONIC and CLOCK_MONOTONIC_RAW again a second
 * later. These are never set back; an error is steered away, as the host's own vDSO sees its clock
 * steered. CLOCK_REALTIME and CLOCK_BOOTTIME stand at a distance from CLOCK_MONOTONIC.
 */
#include "loader/vdso.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86_64/vdso/vvar.h"
#include "sentry/lib/err.h"
#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"

#define VDSO_MAX_PAGES 4
#define SHIFT	       32
#define SECOND	       1000000000UL
#define MAX_AHEAD_NS   5000000 /* the host is further ahead than this: jump, don't steer */
#define CALIBRATE_NS   2000000 /* what the first frequency is measured over */
#define OFFSET_STEP_NS 1000    /* smaller changes of a clock's distance are measuring noise */

extern const uint8_t vdso_image_start[], vdso_image_end[];

static gpa_t vvar_frame, code_frames[VDSO_MAX_PAGES];
static size_t nr_code;
static struct vvar_data *vvar;

/* A host clock and the TSC at one moment. */
struct sample {
	uint64_t tsc, ns;
};

/* A host clock that runs by the TSC. */
struct track {
	clockid_t clock;
	struct sample last;
	uint64_t mult; /* what the page has */
};

/* What the timekeeper knows; one thread at a time. */
static __host_state struct {
	bool runs; /* the host's clocks run by the TSC */
	struct track mono, raw;
	uint64_t real_offset, boot_offset; /* from CLOCK_MONOTONIC; wrapping */
} keeper = {.mono.clock = CLOCK_MONOTONIC, .raw.clock = CLOCK_MONOTONIC_RAW};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

/* The tightest of a few tries. */
static struct sample take_sample(clockid_t clock)
{
	uint64_t best = UINT64_MAX;
	struct sample s = {0};

	for (int i = 0; i < 5; i++) {
		uint64_t before = vvar_read_tsc(), ns = clock_ns(clock), after = vvar_read_tsc();

		if (after - before >= best)
			continue;
		best = after - before;
		s = (struct sample){before + best / 2, ns};
	}
	return s;
}

/*
 * How far @clock is from CLOCK_MONOTONIC. The two run at one rate, so the distance changes only
 * when the clock is set or the machine slept: what is within the error of measuring leaves @old.
 */
static uint64_t measure_offset(clockid_t clock, uint64_t old)
{
	uint64_t best = UINT64_MAX, offset = old;
	int64_t change;

	for (int i = 0; i < 5; i++) {
		uint64_t before = clock_ns(CLOCK_MONOTONIC), ns = clock_ns(clock);
		uint64_t took = clock_ns(CLOCK_MONOTONIC) - before;

		if (took >= best)
			continue;
		best = took;
		offset = ns - (before + took / 2);
	}
	change = (int64_t)(offset - old);
	return change > (int64_t)(OFFSET_STEP_NS + best) ||
			       change < -(int64_t)(OFFSET_STEP_NS + best)
		       ? offset
		       : old;
}

/* The TSC's frequency in kHz by CPUID, 0 if the CPU doesn't say. */
static uint64_t tsc_khz_cpuid(void)
{
	unsigned int a, b, c, d;

	__cpuid(0x40000000, a, b, c, d);
	if (a >= 0x40000010 && a < 0x40010000) {
		__cpuid(0x40000010, a, b, c, d);
		if (a)
			return a;
	}
	__cpuid(0, a, b, c, d);
	if (a >= 0x15) {
		__cpuid(0x15, a, b, c, d);
		if (a && b && c)
			return (uint64_t)c * b / a / 1000;
	}
	return 0;
}

/* From two samples: where nothing tells, the timekeeper finds out while the program starts. */
static uint64_t tsc_khz_between(const struct sample *a, const struct sample *b)
{
	return b->ns > a->ns ? (b->tsc - a->tsc) * 1000000 / (b->ns - a->ns) : 0;
}

static bool host_uses_tsc(void)
{
	int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
		      O_RDONLY | O_CLOEXEC);
	char name[32] = "";
	unsigned int a, b, c, d;

	/* Invariant TSC, and the host trusts it (kvm-clock on a guest is the TSC underneath). */
	if (fd >= 0) {
		if (read(fd, name, sizeof(name) - 1) < 0)
			name[0] = 0;
		close(fd);
	}
	name[strcspn(name, "\n")] = 0;
	if (!strcmp(name, "tsc"))
		return true;
	if (strcmp(name, "kvm-clock"))
		return false;
	__cpuid(0x80000000, a, b, c, d);
	if (a < 0x80000007)
		return false;
	__cpuid(0x80000007, a, b, c, d);
	return d & 1 << 8;
}

/* What vdso_restored() is going to ask. */
static __host_state enum { NOT_ASKED, USES_TSC, USES_OTHER } host_clock;

void vdso_restore_prepare(void)
{
	host_clock = host_uses_tsc() ? USES_TSC : USES_OTHER;
}

static uint64_t ticks_to_ns(uint64_t ticks, uint64_t mult)
{
	return (uint64_t)((unsigned __int128)ticks * mult >> SHIFT);
}

static void write_begin(void)
{
	__atomic_store_n(&vvar->seq, vvar->seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void write_end(void)
{
	__atomic_store_n(&vvar->seq, vvar->seq + 1, __ATOMIC_RELEASE);
}

/*
 * Gives the page new rates and adds @jump and @raw_jump. It starts from what the page itself says
 * at this very moment, with all readers held off, so that nobody sees time go back.
 */
static void publish(uint64_t jump, uint64_t raw_jump)
{
	uint64_t tsc, delta;

	write_begin();
	tsc = vvar_read_tsc();
	delta = tsc > vvar->base_tsc ? tsc - vvar->base_tsc : 0;
	vvar->mono_ns += ticks_to_ns(delta, vvar->mult) + jump;
	vvar->raw_ns += ticks_to_ns(delta, vvar->raw_mult) + raw_jump;
	vvar->real_ns = vvar->mono_ns + keeper.real_offset;
	vvar->boot_ns = vvar->mono_ns + keeper.boot_offset;
	vvar->base_tsc += delta;
	vvar->mult = keeper.mono.mult;
	vvar->raw_mult = keeper.raw.mult;
	write_end();
}

/* Makes the page usable, by the frequency that is known by now. */
static void publish_first(uint64_t khz)
{
	keeper.mono.mult = keeper.raw.mult = (1000000ULL << SHIFT) / khz;
	keeper.raw.last = take_sample(CLOCK_MONOTONIC_RAW);
	keeper.mono.last = take_sample(CLOCK_MONOTONIC);
	keeper.real_offset = measure_offset(CLOCK_REALTIME, 0);
	keeper.boot_offset = measure_offset(CLOCK_BOOTTIME, 0);
	write_begin();
	vvar->shift = SHIFT;
	vvar->base_tsc = keeper.mono.last.tsc;
	vvar->mult = vvar->raw_mult = keeper.mono.mult;
	/*
	 * Ahead by more than a sample is off: who asked the host just before must not see time go
	 * back.
	 */
	vvar->mono_ns = keeper.mono.last.ns + OFFSET_STEP_NS;
	vvar->raw_ns = keeper.raw.last.ns + OFFSET_STEP_NS +
		       ticks_to_ns(keeper.mono.last.tsc - keeper.raw.last.tsc, keeper.raw.mult);
	vvar->real_ns = vvar->mono_ns + keeper.real_offset;
	vvar->boot_ns = vvar->mono_ns + keeper.boot_offset;
	vvar->usable = 1;
	write_end();
}

int vdso_init(void)
{
	size_t size = (size_t)(vdso_image_end - vdso_image_start);

	nr_code = PAGE_ALIGN_UP(size) >> PAGE_SHIFT;
	if (nr_code > VDSO_MAX_PAGES)
		return -E2BIG;
	vvar_frame = frame_alloc();
	if (vvar_frame == GPA_NONE)
		return -ENOMEM;
	for (size_t i = 0; i < nr_code; i++) {
		code_frames[i] = frame_alloc();
		if (code_frames[i] == GPA_NONE)
			return -ENOMEM;
		memcpy(phys_ptr(code_frames[i]), vdso_image_start + i * PAGE_SIZE,
		       MIN(PAGE_SIZE, size - i * PAGE_SIZE));
	}
	vvar = phys_ptr(vvar_frame);
	return 0;
}

static void begin(bool tsc)
{
	keeper.runs = tsc;
	if (tsc)
		keeper.mono.last = take_sample(CLOCK_MONOTONIC);
}

void vdso_begin(void)
{
	begin(host_uses_tsc());
}

/*
 * One step of a clock: its true rate since the last one, bent so that the page, which says
 * @base_ns at its base, meets the host again after @horizon nanoseconds. Returns how far to jump
 * ahead.
 */
static uint64_t track_step(struct track *t, uint64_t base_ns, uint64_t horizon)
{
	struct sample s = take_sample(t->clock);
	uint64_t ticks = s.tsc - t->last.tsc, mult, jump = 0;
	int64_t error, most = (int64_t)horizon / 100;

	if (ticks < 1000000 || s.ns <= t->last.ns)
		return 0;
	mult = (uint64_t)(((unsigned __int128)(s.ns - t->last.ns) << SHIFT) / ticks);
	error = (int64_t)(s.ns - (base_ns + ticks_to_ns(s.tsc - vvar->base_tsc, t->mult)));
	if (error > MAX_AHEAD_NS) {
		jump = (uint64_t)error;
		error = 0;
	}
	/* Never more than a percent: who measures intervals shall not notice. */
	error = MIN(MAX(error, -most), most);
	t->mult = (uint64_t)((unsigned __int128)mult * (uint64_t)((int64_t)horizon + error) /
			     horizon);
	t->last = s;
	return jump;
}

/* @horizon: nanoseconds until the next step. */
static void steer(uint64_t horizon)
{
	uint64_t jump = track_step(&keeper.mono, vvar->mono_ns, horizon);
	uint64_t raw_jump = track_step(&keeper.raw, vvar->raw_ns, horizon);

	keeper.real_offset = measure_offset(CLOCK_REALTIME, keeper.real_offset);
	keeper.boot_offset = measure_offset(CLOCK_BOOTTIME, keeper.boot_offset);
	publish(jump, raw_jump);
}

static void sleep_ns(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND)};

	nanosleep(&ts, NULL);
}

static void *timekeeper(void *unused)
{
	/* Soon at first: the CPU's word for its frequency is only roughly that of the clock. */
	uint64_t wait = SECOND / 100, next, khz;
	struct sample now;

	(void)unused;
	/* Here and not at boot: in a virtual machine CPUID costs some ten microseconds. */
	khz = tsc_khz_cpuid();
	if (khz)
		publish_first(khz);
	while (!vvar->usable) {
		sleep_ns(CALIBRATE_NS);
		now = take_sample(CLOCK_MONOTONIC);
		khz = tsc_khz_between(&keeper.mono.last, &now);
		if (khz)
			publish_first(khz);
	}
	for (;; wait = next) {
		sleep_ns(wait);
		next = MIN(wait * 10, SECOND);
		steer(next);
	}
	return NULL;
}

/*
 * Starts the thread that keeps the page in step with the host's clocks. Without it all calls trap.
 */
static void start_timekeeper(void)
{
	static __host_state _Atomic bool started;
	pthread_attr_t attr;
	pthread_t thread;

	if (!keeper.runs || atomic_exchange(&started, true))
		return;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 64 << 10);
	if (pthread_create(&thread, &attr, timekeeper, NULL))
		log_warn("no timekeeper thread: the program asks the sentry for the time");
	pthread_attr_destroy(&attr);
}

int vdso_map(struct mm *mm)
{
	size_t pages = VVAR_PAGES + nr_code;
	uaddr_t at;
	int err;

	write_lock(&mm->lock);
	at = mm_find_gap_locked(mm, pages * PAGE_SIZE, 0);
	write_unlock(&mm->lock);
	if (!at)
		return -ENOMEM;
	err = mm_map_frames(mm, at, &vvar_frame, VVAR_PAGES, PROT_READ, "[vvar]");
	if (!err)
		err = mm_map_frames(mm, at + VVAR_PAGES * PAGE_SIZE, code_frames, nr_code,
				    PROT_READ | PROT_EXEC, "[vdso]");
	if (!err)
		mm->vdso = at + VVAR_PAGES * PAGE_SIZE;
	return err;
}

void vdso_restored(void)
{
	BUG_ON(physmem_own(vvar_frame, 1));
	/* It may have been saved while it was being written. */
	vvar->seq = (vvar->seq + 1) & ~1u;
	write_begin();
	vvar->usable = 0;
	write_end();
	begin(host_clock ? host_clock == USES_TSC : host_uses_tsc());
}

gpa_t vdso_clock_frame(void)
{
	return vvar_frame;
}

int vdso_clock_gettime(clockid_t clock, struct timespec *ts)
{
	uint64_t ns = vvar ? vvar_clock_ns(vvar, clock) : 0;

	if (!ns) {
		start_timekeeper();
		return clock_gettime(clock, ts) ? -EINVAL : 0;
	}
	ts->tv_sec = (time_t)(ns / 1000000000);
	ts->tv_nsec = (long)(ns % 1000000000);
	return 0;
}
