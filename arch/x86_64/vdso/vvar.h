/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of time data that the sentry writes and the vDSO reads, right before the vDSO's code.
 * A sequence count guards it: odd while it is written.
 */
#ifndef ARCH_X86_64_VDSO_VVAR_H
#define ARCH_X86_64_VDSO_VVAR_H

#include <stdint.h>

#define VVAR_PAGES 1

struct vvar_data {
	uint32_t seq;
	uint32_t usable; /* 0: ask the kernel */
	uint64_t base_tsc;
	/* ns = (tsc - base_tsc) * mult >> shift */
	uint64_t mult;
	uint32_t shift;
	uint32_t cpu, node;
	uint32_t pad;
	/* Nanoseconds at base_tsc. */
	uint64_t mono_ns, boot_ns, raw_ns, real_ns;
	uint64_t raw_mult; /* CLOCK_MONOTONIC_RAW is not steered: it has its own rate */
};

static inline uint64_t vvar_read_tsc(void)
{
	uint32_t lo, hi;

	/* Ordered after earlier loads, so that time doesn't run backwards between two readers. */
	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi)::"memory");
	return (uint64_t)hi << 32 | lo;
}

/* Nanoseconds of @clock (CLOCK_*) by @d; 0: not by this page. */
static inline uint64_t vvar_clock_ns(const volatile struct vvar_data *d, int clock)
{
	uint64_t base, delta, mult, tsc, ns = 0;
	uint32_t seq;

	do {
		seq = __atomic_load_n(&d->seq, __ATOMIC_ACQUIRE);
		if ((seq & 1) || !d->usable) {
			if (!d->usable)
				return 0;
			__asm__ volatile("pause");
			continue;
		}
		mult = d->mult;
		switch (clock) {
		case 0: /* CLOCK_REALTIME */
		case 5: /* CLOCK_REALTIME_COARSE */
			base = d->real_ns;
			break;
		case 1: /* CLOCK_MONOTONIC */
		case 6: /* CLOCK_MONOTONIC_COARSE */
			base = d->mono_ns;
			break;
		case 4: /* CLOCK_MONOTONIC_RAW */
			base = d->raw_ns;
			mult = d->raw_mult;
			break;
		case 7: /* CLOCK_BOOTTIME */
			base = d->boot_ns;
			break;
		default:
			return 0;
		}
		tsc = vvar_read_tsc();
		delta = tsc > d->base_tsc ? tsc - d->base_tsc : 0;
		ns = base + (uint64_t)((unsigned __int128)delta * mult >> d->shift);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (__atomic_load_n(&d->seq, __ATOMIC_RELAXED) != seq || (seq & 1));
	return ns;
}

#endif
