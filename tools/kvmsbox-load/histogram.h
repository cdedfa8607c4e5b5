/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts of 64-bit values in buckets whose width grows with the value, as HdrHistogram's: exact
 * below 256, from there on 128 buckets for each power of two, so that what is read out is never
 * below the value that was recorded and at most 1/128 above. All of it is one array; recording is
 * an addition.
 */
#ifndef KVMSBOX_LOAD_HISTOGRAM_H
#define KVMSBOX_LOAD_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 7
#define HISTOGRAM_SUB	   (1u << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_BUCKETS  ((64 - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB)

struct histogram {
	uint64_t total;
	uint64_t min, max; /* exact; of use only if total */
	double sum;
	uint64_t count[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t value);
/*
 * The value that @percent (0 to 100) of those recorded don't exceed: of the one whose rank, from 1,
 * is ceil(percent / 100 * total), its bucket's highest value, at most max. 0 if there is none.
 */
uint64_t histogram_percentile(const struct histogram *h, double percent);
double histogram_mean(const struct histogram *h);
/* How many are below @value; exact where @value begins a bucket, else all of that one count. */
uint64_t histogram_below(const struct histogram *h, uint64_t value);
/* The lowest and the highest value of bucket @i. */
uint64_t histogram_bucket_low(unsigned int i);
uint64_t histogram_bucket_high(unsigned int i);

#endif
