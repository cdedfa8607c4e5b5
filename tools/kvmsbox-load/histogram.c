/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-load/histogram.h"

#include <math.h>

/*
 * Values below 2 * SUB are their own bucket. One with its highest bit at SUB_BITS + shift keeps
 * that bit and the SUB_BITS below it: SUB to 2 * SUB - 1, behind shift times SUB buckets.
 */
static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift;

	if (value < HISTOGRAM_SUB)
		return (unsigned int)value;
	shift = 63 - (unsigned int)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
	return shift * HISTOGRAM_SUB + (unsigned int)(value >> shift);
}

uint64_t histogram_bucket_low(unsigned int i)
{
	unsigned int shift = i < 2 * HISTOGRAM_SUB ? 0 : i / HISTOGRAM_SUB - 1;

	return (uint64_t)(i - shift * HISTOGRAM_SUB) << shift;
}

uint64_t histogram_bucket_high(unsigned int i)
{
	return i + 1 < HISTOGRAM_BUCKETS ? histogram_bucket_low(i + 1) - 1 : UINT64_MAX;
}

void histogram_add(struct histogram *h, uint64_t value)
{
	if (!h->total || value < h->min)
		h->min = value;
	if (!h->total || value > h->max)
		h->max = value;
	h->total++;
	h->sum += (double)value;
	h->count[bucket_of(value)]++;
}

uint64_t histogram_percentile(const struct histogram *h, double percent)
{
	/* 99.9 isn't exact in binary: of 1000, the 999th is meant and not the 1000th. */
	double wanted = ceil(percent / 100 * (double)h->total - 1e-6);
	uint64_t rank = wanted < 1 ? 1 : (uint64_t)wanted, seen = 0;

	if (!h->total)
		return 0;
	if (rank > h->total)
		rank = h->total;
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->count[i];
		if (seen >= rank)
			return histogram_bucket_high(i) < h->max ? histogram_bucket_high(i)
								 : h->max;
	}
	return h->max;
}

double histogram_mean(const struct histogram *h)
{
	return h->total ? h->sum / (double)h->total : 0;
}

uint64_t histogram_below(const struct histogram *h, uint64_t value)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS && histogram_bucket_low(i) < value; i++)
		n += h->count[i];
	return n;
}
