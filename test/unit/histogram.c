/* SPDX-License-Identifier: Apache-2.0 */
/* kvmsbox load's histogram against the sorted values themselves. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test/unit/unit.h"
#include "tools/kvmsbox-load/histogram.h"

#define N 50000

static const double percents[] = {0,  0.001, 1,	  10,	 25,	 50,	  75,	   90,
				  95, 99,    99.9, 99.99, 99.999, 99.99999, 100};

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t random_bits(unsigned int bits)
{
	uint64_t v = 0;

	for (int i = 0; i < 5; i++)
		v = v << 15 ^ (uint64_t)rand();
	return bits >= 64 ? v : v & ((1ull << bits) - 1);
}

/* Every percentile: not below the exact one, at most 1/128 above, and never above the maximum. */
static int agrees(uint64_t *v, size_t n)
{
	static struct histogram h;
	double sum = 0;

	memset(&h, 0, sizeof(h));
	for (size_t i = 0; i < n; i++) {
		histogram_add(&h, v[i]);
		sum += (double)v[i];
	}
	qsort(v, n, sizeof(*v), compare);
	if (h.total != n || h.min != v[0] || h.max != v[n - 1])
		return 0;
	if (fabs(histogram_mean(&h) - sum / (double)n) > 1e-9 * sum)
		return 0;
	for (size_t i = 0; i < sizeof(percents) / sizeof(*percents); i++) {
		double want = ceil(percents[i] * (double)n / 100 - 1e-6);
		size_t rank = want < 1 ? 1 : (size_t)want;
		uint64_t exact = v[rank - 1], got = histogram_percentile(&h, percents[i]);

		if (got < exact || got - exact > exact / 128 || got > h.max ||
		    (exact < 256 && got != exact)) {
			printf("# n %zu, p%g: exact %lu, got %lu\n", n, percents[i], exact, got);
			return 0;
		}
	}
	return 1;
}

TEST(percentiles_against_sort)
{
	static uint64_t v[N];

	srand(1);
	for (unsigned int bits = 1; bits <= 64; bits += 3) {
		for (size_t i = 0; i < N; i++)
			v[i] = random_bits(bits);
		CHECK(agrees(v, N));
	}
	/* Every magnitude at once, and few values. */
	for (size_t n = 1; n < 3000; n = n * 3 / 2 + 1) {
		for (size_t i = 0; i < n; i++)
			v[i] = random_bits((unsigned int)(rand() % 65));
		CHECK(agrees(v, n));
	}
}

/* What latencies look like: many alike and a few far out. */
TEST(percentiles_of_a_tail)
{
	static uint64_t v[N];

	srand(2);
	for (size_t i = 0; i < N; i++)
		v[i] = 180000 + random_bits(14) + (i % 1000 ? 0 : 200000000 + random_bits(20));
	CHECK(agrees(v, N));
}

TEST(rank_is_exact)
{
	static struct histogram h;

	memset(&h, 0, sizeof(h));
	CHECK(histogram_percentile(&h, 50) == 0 && histogram_mean(&h) == 0);
	for (uint64_t i = 1; i <= 100; i++)
		histogram_add(&h, i);
	for (uint64_t i = 1; i <= 100; i++)
		CHECK(histogram_percentile(&h, (double)i) == i);
	CHECK(histogram_percentile(&h, 0) == 1 && histogram_percentile(&h, 99.1) == 100);
	memset(&h, 0, sizeof(h));
	for (int i = 0; i < 1000; i++)
		histogram_add(&h, i < 999 ? 5 : 77);
	CHECK(histogram_percentile(&h, 99.9) == 5 && histogram_percentile(&h, 99.91) == 77);
}

/* The buckets tile the numbers without gap or overlap, and each takes what it says. */
TEST(buckets_tile)
{
	static struct histogram h;

	CHECK(histogram_bucket_low(0) == 0);
	CHECK(histogram_bucket_high(HISTOGRAM_BUCKETS - 1) == UINT64_MAX);
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t low = histogram_bucket_low(i), high = histogram_bucket_high(i);

		CHECK(low <= high && high - low <= low / 128);
		CHECK(!i || histogram_bucket_high(i - 1) + 1 == low);
		memset(&h, 0, sizeof(h));
		histogram_add(&h, low);
		histogram_add(&h, high);
		CHECK(h.count[i] == 2);
	}
}

TEST(counts_below)
{
	static struct histogram h;
	uint64_t total = 0, before = 0;

	memset(&h, 0, sizeof(h));
	srand(3);
	for (int i = 0; i < N; i++)
		histogram_add(&h, random_bits(40));
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i += 7) {
		uint64_t n = histogram_below(&h, histogram_bucket_low(i));

		CHECK(n >= before && n == total);
		for (unsigned int k = i; k < i + 7 && k < HISTOGRAM_BUCKETS; k++)
			total += h.count[k];
		before = n;
	}
	CHECK(histogram_below(&h, UINT64_MAX) == N && !histogram_below(&h, 0));
}

int main(void)
{
	return unit_run();
}
