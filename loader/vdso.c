/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timekeeping: every second the host's clocks are sampled together with the TSC, and the rate is set
 * so that the page meets the host's CLOCK_MONOTONIC again a second later. Monotonic time is never
 * set back; an error is steered away, as the host's own vDSO sees its clock steered.
 */
#include "loader/vdso.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86_64/vdso/vvar.h"
#include "sentry/lib/err.h"
#include "sentry/lib/physmem.h"

#define VDSO_MAX_PAGES 4
#define SHIFT	       32
#define MAX_DRIFT_NS   5000000 /* more than this off: set, don't steer */

extern const uint8_t vdso_image_start[], vdso_image_end[];

static gpa_t vvar_frame, code_frames[VDSO_MAX_PAGES];
static size_t nr_code;
static struct vvar_data *vvar;

struct sample {
	uint64_t tsc, mono, real, boot, raw;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* TSC and clocks of one moment: the tightest of a few tries. */
static void take_sample(struct sample *s)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		uint64_t before = vvar_read_tsc(), mono = clock_ns(CLOCK_MONOTONIC);
		uint64_t after = vvar_read_tsc();

		if (after - before >= best)
			continue;
		best = after - before;
		s->tsc = before + best / 2;
		s->mono = mono;
	}
	/* The other clocks run at the same rate: their distance is what counts. */
	s->real = s->mono + (clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC));
	s->boot = s->mono + (clock_ns(CLOCK_BOOTTIME) - clock_ns(CLOCK_MONOTONIC));
	s->raw = s->mono + (clock_ns(CLOCK_MONOTONIC_RAW) - clock_ns(CLOCK_MONOTONIC));
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

/* By watching the clock for two milliseconds: only where nothing tells. */
static uint64_t tsc_khz_measured(void)
{
	struct sample a, b;

	take_sample(&a);
	do {
		take_sample(&b);
	} while (b.mono - a.mono < 2000000);
	return (b.tsc - a.tsc) * 1000000 / (b.mono - a.mono);
}

static bool host_uses_tsc(void)
{
	char name[32] = "";
	FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
	unsigned int a, b, c, d;

	/* Invariant TSC, and the host trusts it (kvm-clock on a guest is the TSC underneath). */
	if (f) {
		if (!fgets(name, sizeof(name), f))
			name[0] = 0;
		fclose(f);
	}
	name[strcspn(name, "\n")] = 0;
	if (strcmp(name, "tsc") && strcmp(name, "kvm-clock"))
		return false;
	__cpuid(0x80000000, a, b, c, d);
	if (a < 0x80000007)
		return false;
	__cpuid(0x80000007, a, b, c, d);
	return (d & 1 << 8) || !strcmp(name, "tsc");
}

static void publish(const struct sample *s, uint64_t mult)
{
	uint32_t seq = vvar->seq;

	__atomic_store_n(&vvar->seq, seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vvar->base_tsc = s->tsc;
	vvar->mult = mult;
	vvar->shift = SHIFT;
	vvar->mono_ns = s->mono;
	vvar->real_ns = s->real;
	vvar->boot_ns = s->boot;
	vvar->raw_ns = s->raw;
	vvar->usable = 1;
	__atomic_store_n(&vvar->seq, seq + 2, __ATOMIC_RELEASE);
}

int vdso_init(void)
{
	size_t size = (size_t)(vdso_image_end - vdso_image_start);
	struct sample s;
	uint64_t khz;

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
	if (!host_uses_tsc())
		return 0;
	khz = tsc_khz_cpuid();
	if (!khz)
		khz = tsc_khz_measured();
	take_sample(&s);
	publish(&s, (1000000ULL << SHIFT) / khz);
	return 0;
}

/* One step: where the page stands against the host, and the rate that makes them meet. */
static void steer(struct sample *last)
{
	uint64_t mono_now, interval, target, mult;
	struct sample s;
	int64_t error;

	take_sample(&s);
	/* What the page says at this TSC. */
	mono_now = vvar->mono_ns + (uint64_t)((unsigned __int128)(s.tsc - vvar->base_tsc) *
						      vvar->mult >> vvar->shift);
	interval = s.tsc - last->tsc;
	if (interval < 1000000)
		return;
	error = (int64_t)(s.mono - mono_now);
	/* The true rate over the last interval, bent so that the error is gone in one second. */
	mult = (uint64_t)(((unsigned __int128)(s.mono - last->mono) << SHIFT) / interval);
	*last = s;
	if (error > -MAX_DRIFT_NS && error < MAX_DRIFT_NS) {
		target = 1000000000;
		mult = (uint64_t)((unsigned __int128)mult * (uint64_t)((int64_t)target + error) /
				  target);
		/* Continuous: all clocks go on from what the page said. */
		s.real -= s.mono - mono_now;
		s.boot -= s.mono - mono_now;
		s.raw -= s.mono - mono_now;
		s.mono = mono_now;
	} else if (error < 0) {
		s.mono = mono_now;
	}
	publish(&s, mult);
}

static void *timekeeper(void *unused)
{
	struct timespec second = {.tv_sec = 1};
	struct sample last;

	take_sample(&last);
	for (;;) {
		nanosleep(&second, NULL);
		steer(&last);
	}
	return NULL;
}

int vdso_start_timekeeper(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	if (!vvar->usable)
		return 0;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 64 << 10);
	err = pthread_create(&thread, &attr, timekeeper, NULL);
	pthread_attr_destroy(&attr);
	return -err;
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

int vdso_clock_gettime(clockid_t clock, struct timespec *ts)
{
	uint64_t ns = vvar ? vvar_clock_ns(vvar, clock) : 0;

	if (!ns)
		return clock_gettime(clock, ts) ? -EINVAL : 0;
	ts->tv_sec = (time_t)(ns / 1000000000);
	ts->tv_nsec = (long)(ns % 1000000000);
	return 0;
}
