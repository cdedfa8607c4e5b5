/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/stats.h"

#include <string.h>

#define SLOT_NS	 5000000000ULL
#define FINE_MIN 16384ULL /* ns */

const char *const outcome_names[NR_OUTCOMES] = {
	[OUT_OK] = "ok",
	[OUT_FUNCTION_ERROR] = "function_error",
	[OUT_TIMEOUT] = "timeout",
	[OUT_MEMORY] = "out_of_memory",
	[OUT_OUTPUT] = "too_much_output",
	[OUT_CRASHED] = "crashed",
	[OUT_BAD_RESPONSE] = "bad_response",
	[OUT_START_FAILED] = "start_failed",
	[OUT_CANCELLED] = "cancelled",
	[OUT_BAD_REQUEST] = "bad_request",
	[OUT_LIMITED] = "limited",
	[OUT_OVERLOADED] = "overloaded",
};

const double bucket_bounds[NR_BUCKETS] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
					  0.01,	  0.025,   0.05,   0.1,	  0.25,	  0.5,
					  1,	  2.5,	   10,	   60};

void histogram_add(struct histogram *h, uint64_t ns)
{
	double s = (double)ns / 1e9;
	size_t i = 0;

	while (i < NR_BUCKETS && s > bucket_bounds[i])
		i++;
	h->counts[i]++;
	h->sum_ns += ns;
	h->n++;
}

/* Four buckets an octave: the two bits behind the first one. */
static size_t fine_bucket(uint64_t ns)
{
	unsigned int log;
	size_t i;

	if (ns < FINE_MIN)
		return 0;
	log = 63 - (unsigned int)__builtin_clzll(ns);
	i = (log - 14) * 4 + ((ns >> (log - 2)) & 3);
	return i < NR_FINE ? i : NR_FINE - 1;
}

/* Forgets the slots that have come round since. */
static void recent_turn(struct recent *r, uint64_t now)
{
	uint64_t slot = now / SLOT_NS;

	if (slot - r->slot >= NR_SLOTS) {
		memset(r->counts, 0, sizeof(r->counts));
		r->slot = slot;
	}
	while (r->slot < slot) {
		r->slot++;
		memset(r->counts[r->slot % NR_SLOTS], 0, sizeof(r->counts[0]));
	}
}

void recent_add(struct recent *r, uint64_t now, uint64_t ns)
{
	recent_turn(r, now);
	r->counts[r->slot % NR_SLOTS][fine_bucket(ns)]++;
}

uint64_t recent_quantiles(struct recent *r, uint64_t now, const double *q, size_t nq, uint64_t *out)
{
	uint64_t sums[NR_FINE] = {0}, n = 0, seen = 0;
	size_t at = 0;

	recent_turn(r, now);
	for (size_t s = 0; s < NR_SLOTS; s++) {
		for (size_t i = 0; i < NR_FINE; i++) {
			sums[i] += r->counts[s][i];
			n += r->counts[s][i];
		}
	}
	memset(out, 0, nq * sizeof(*out));
	for (size_t i = 0; n && i < NR_FINE && at < nq; i++) {
		seen += sums[i];
		/* The bucket's middle. */
		while (at < nq && (double)seen >= q[at] * (double)n)
			out[at++] = ((FINE_MIN << (i / 4)) * (2 * (4 + i % 4) + 1)) / 8;
	}
	return n;
}
