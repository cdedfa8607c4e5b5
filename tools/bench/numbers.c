/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Medians, quartiles and how they are written. Nothing is averaged and nothing is thrown away: one
 * disturbed round moves a median by one place.
 */
#include "tools/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Linear between neighbours. @v is sorted, n > 0. */
static double quantile(const double *v, int n, double q)
{
	double at = q * (n - 1);
	int i = (int)at;

	return i + 1 < n ? v[i] + (v[i + 1] - v[i]) * (at - i) : v[i];
}

struct spread spread_of(const double *v, int n)
{
	struct spread s = {NAN, NAN, NAN, NAN, 0};
	double sorted[MAX_ROUNDS];
	int i;

	for (i = 0; i < n; i++) {
		if (!isnan(v[i]))
			sorted[s.n++] = v[i];
	}
	if (!s.n)
		return s;
	qsort(sorted, (size_t)s.n, sizeof(*sorted), compare);
	s.min = sorted[0];
	s.q1 = quantile(sorted, s.n, 0.25);
	s.median = quantile(sorted, s.n, 0.5);
	s.q3 = quantile(sorted, s.n, 0.75);
	return s;
}

struct spread cell_spread(const struct bench *b, int row, int col)
{
	return spread_of(b->cells[row][col].v, b->rounds);
}

/* Round by round, since the rounds are what saw the same machine. */
struct spread cell_ratio_to(const struct bench *b, int row, int col, int base_row, int base)
{
	const double *v = b->cells[row][col].v, *w = b->cells[base_row][base].v;
	double r[MAX_ROUNDS];
	int i;

	for (i = 0; i < b->rounds; i++) {
		r[i] = unit_rises(rows[row].unit) ? w[i] / v[i] : v[i] / w[i];
		/* Differences of the host's free memory can be anything. */
		if (!isfinite(r[i]) || r[i] <= 0)
			r[i] = NAN;
	}
	return spread_of(r, b->rounds);
}

struct spread cell_ratio(const struct bench *b, int row, int col, int base)
{
	return cell_ratio_to(b, row, col, row, base);
}

double spread_percent(struct spread s)
{
	return s.n > 1 && s.median > 0 ? fmin(999, 50 * (s.q3 - s.q1) / s.median) : NAN;
}

static void three_digits(char *buf, size_t size, double v, const char *unit)
{
	int digits = v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2;

	snprintf(buf, size, "%.*f %s", digits, v, unit);
}

void format_value(char *buf, size_t size, double v, enum unit u)
{
	static const char *const times[] = {"ns", "µs", "ms", "s"};
	static const char *const sizes[] = {"KiB", "MiB", "GiB"};
	size_t i = 0;

	if (isnan(v)) {
		snprintf(buf, size, "-");
		return;
	}
	switch (u) {
	case UNIT_NS:
		for (; v >= 999.5 && i < 3; i++)
			v /= 1000;
		three_digits(buf, size, v, times[i]);
		break;
	case UNIT_KIB:
		for (; v >= 999.5 && i < 2; i++)
			v /= 1024;
		three_digits(buf, size, v, sizes[i]);
		break;
	case UNIT_PER_S:
		three_digits(buf, size, v, "/s");
		break;
	case UNIT_COUNT:
		snprintf(buf, size, "%.3f", v);
		break;
	}
}

void format_ratio(char *buf, size_t size, double r)
{
	if (isnan(r))
		snprintf(buf, size, "-");
	else
		snprintf(buf, size, "%.*f", r >= 99.95 ? 0 : r >= 9.995 ? 1 : 2, r);
}
