/* SPDX-License-Identifier: Apache-2.0 */
/* What is counted, by function. Histograms: since the start, and finer ones of the last minute. */
#ifndef SERVE_STATS_H
#define SERVE_STATS_H

#include "sentry/lib/types.h"

enum outcome {
	OUT_OK,
	OUT_FUNCTION_ERROR, /* a status other than 0, a Lambda error */
	OUT_TIMEOUT,
	OUT_MEMORY,
	OUT_OUTPUT, /* more than limits.output */
	OUT_CRASHED,
	OUT_BAD_RESPONSE, /* no HTTP, or not what was said */
	OUT_START_FAILED,
	OUT_CANCELLED, /* by the client */
	OUT_BAD_REQUEST,
	OUT_LIMITED,	/* 429 */
	OUT_OVERLOADED, /* 503 */
	NR_OUTCOMES,
};

extern const char *const outcome_names[NR_OUTCOMES];

#define NR_BUCKETS 16
#define NR_FINE	   96 /* 4 an octave, from 16 us */
#define NR_SLOTS   12 /* of 5 s */

struct histogram {
	uint64_t counts[NR_BUCKETS + 1], sum_ns, n;
};

struct recent {
	uint64_t slot; /* number of the newest */
	uint32_t counts[NR_SLOTS][NR_FINE];
};

struct function_stats {
	uint64_t outcomes[NR_OUTCOMES];
	struct histogram latency, queue_wait, run, start_cold, start_warm, reset;
	struct recent recent; /* latency */
	uint64_t starts_cold, starts_warm, starts_failed, resets, dirtied_pages, cpu_ns, peak_rss;
	uint64_t shed, killed, bytes_in, bytes_out;
};

extern const double bucket_bounds[NR_BUCKETS]; /* seconds */

void histogram_add(struct histogram *h, uint64_t ns);
void recent_add(struct recent *r, uint64_t now, uint64_t ns);
/* The quantiles @q (ascending) of the last minute in ns, into @out; returns how many there were. */
uint64_t recent_quantiles(struct recent *r, uint64_t now, const double *q, size_t nq,
			  uint64_t *out);

#endif
