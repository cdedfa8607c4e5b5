/* SPDX-License-Identifier: Apache-2.0 */
/* What came of it: for people, for programs, and while it runs. */
#include "tools/kvmsbox-load/load.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sentry/lib/types.h"

#define BAR_WIDTH 40
#define MAX_ROWS  24

static const struct {
	double percent;
	const char *name, *key;
} percentiles[] = {
	{50, "p50", "p50"},	  {90, "p90", "p90"},	       {99, "p99", "p99"},
	{99.9, "p99.9", "p99_9"}, {99.99, "p99.99", "p99_99"},
};

/* Three digits or more, and a unit; 11 columns. @buf has room for 32 bytes. */
static const char *time_text(double ns, char *buf)
{
	static const char *const units[] = {"ns", "µs", "ms", "s "};
	unsigned int u = 0;

	while (u < ARRAY_SIZE(units) - 1 && ns >= 999.5) {
		ns /= 1000;
		u++;
	}
	snprintf(buf, 32, "%8.*f %s", ns >= 99.95 || !u ? 0 : ns >= 9.995 ? 1 : 2, ns, units[u]);
	return buf;
}

static const char *size_text(double bytes, char *buf)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
	unsigned int u = 0;

	while (u < ARRAY_SIZE(units) - 1 && bytes >= 999.5) {
		bytes /= 1000;
		u++;
	}
	snprintf(buf, 32, "%.*f %s", bytes >= 99.95 || !u ? 0 : 1, bytes, units[u]);
	return buf;
}

static double per_second(const struct load_results *r, uint64_t n)
{
	return r->elapsed_ns ? (double)n * 1e9 / (double)r->elapsed_ns : 0;
}

static uint64_t answers(const struct load_results *r)
{
	uint64_t n = 0;

	for (int i = 0; i < MAX_STATUS; i++)
		n += r->statuses[i];
	return n;
}

static bool progress_shown;

void load_progress(const struct load_results *r, uint64_t rate, uint64_t in_flight,
		   uint64_t elapsed_ns)
{
	char p50[32], p99[32], line[256];
	struct winsize w;
	int n;

	time_text((double)histogram_percentile(&r->latency, 50), p50);
	time_text((double)histogram_percentile(&r->latency, 99), p99);
	n = snprintf(line, sizeof(line), "%.1f s: %lu/s, %lu in flight, %lu errors, p50 %s, p99 %s",
		     (double)elapsed_ns / 1e9, rate, in_flight, load_errors(r),
		     p50 + strspn(p50, " "), p99 + strspn(p99, " "));
	/* A line that wraps can't be overwritten. */
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) || !w.ws_col || n < w.ws_col)
		dprintf(STDERR_FILENO, "\r%s\033[K", line);
	progress_shown = true;
}

void load_progress_end(void)
{
	if (progress_shown)
		dprintf(STDERR_FILENO, "\r\033[K");
}

/*
 * Borders of the rows, the Renard series R20: every one of them, or every 2nd, 4th, 10th or 20th,
 * so that there are at most MAX_ROWS. Number @i is 10^(i/20) ns, rounded.
 */
static uint64_t border(int i)
{
	static const double series[20] = {1,	1.12, 1.25, 1.4, 1.6, 1.8, 2,	2.24, 2.5, 2.8,
					  3.15, 3.55, 4,    4.5, 5,   5.6, 6.3, 7.1,  8,   9};

	return (uint64_t)(series[i % 20] * pow(10, i / 20) + 0.5);
}

static void print_histogram(const struct histogram *h)
{
	static const int steps[] = {1, 2, 4, 10, 20};
	uint64_t n, most = 0, below;
	char from[32], to[32];
	int first = 0, last, step = 20, bar;

	for (size_t s = 0; s < ARRAY_SIZE(steps); s++) {
		step = steps[s];
		for (first = 0; border(first + step) <= h->min && first < 360; first += step)
			;
		for (last = first; border(last) <= h->max && last < 360; last += step)
			;
		if (last - first <= MAX_ROWS * step)
			break;
	}
	for (int i = first; i < last; i += step) {
		n = histogram_below(h, border(i + step)) - histogram_below(h, border(i));
		most = MAX(most, n);
	}
	printf("\n");
	for (int i = first; i < last; i += step) {
		below = i == first ? 0 : histogram_below(h, border(i));
		n = histogram_below(h, border(i + step)) - below;
		bar = (int)ceil((double)n * BAR_WIDTH / (double)most);
		printf("%s –%s %10lu %6.2f%%  %.*s\n", time_text((double)border(i), from),
		       time_text((double)border(i + step), to), n,
		       100 * (double)n / (double)h->total, bar,
		       "########################################");
	}
}

static void print_latency(const struct load_results *r)
{
	const struct histogram *h = &r->latency;
	char text[32];

	printf("\nlatency   ");
	for (size_t i = 0; i < ARRAY_SIZE(percentiles); i++)
		printf("%11s", percentiles[i].name);
	printf("%11s%11s%11s\n          ", "max", "min", "mean");
	for (size_t i = 0; i < ARRAY_SIZE(percentiles); i++)
		printf("%s",
		       time_text((double)histogram_percentile(h, percentiles[i].percent), text));
	printf("%s", time_text((double)h->max, text));
	printf("%s", time_text((double)h->min, text));
	printf("%s\n", time_text(histogram_mean(h), text));
	print_histogram(h);
}

static void print_errors(const struct load_results *r)
{
	uint64_t n = load_errors(r);

	printf("errors    %lu (%.2f%%)\n", n, 100 * (double)n / (double)MAX(r->begun, 1ul));
	for (int i = LOAD_OK + 1; i < NR_LOAD_ERRORS; i++) {
		if (r->errors[i])
			printf("  %-8s%8lu  %s\n", load_error_names[i], r->errors[i], r->why[i]);
	}
}

/* What makes the numbers mean something else than they seem to. */
static void print_notes(const struct load_options *o, const struct load_results *r)
{
	uint64_t lag = histogram_percentile(&r->lag, 99);
	char text[32];

	if (r->interrupted)
		printf("\nnote: interrupted; %lu requests under way are not counted\n", r->cut_off);
	if (r->errors[LOAD_UNSENT])
		printf("\nnote: the server doesn't keep up with --rate, or --connections %u is too "
		       "few\n",
		       o->connections);
	if (r->cpu > 0.9)
		printf("\nnote: kvmsbox load itself used %.0f%% of a processor: it may be what is "
		       "slow\n",
		       100 * r->cpu);
	if (r->lag.total && lag > 1000000) {
		time_text((double)lag, text);
		printf("\nnote: kvmsbox load itself sent late, by %s (p99): this machine is busy\n",
		       text + strspn(text, " "));
	}
}

void load_print(const struct load_options *o, const struct load_results *r)
{
	char in[32], out[32];

	printf("%s%s\n", o->urls[0].text, o->nurls > 1 ? " and others" : "");
	printf("requests  %lu in %.2f s on %u connections (%lu made)", r->begun,
	       (double)r->elapsed_ns / 1e9, o->connections, r->connections);
	if (o->rate > 0)
		printf(", scheduled %g/s", o->rate);
	if (o->warm_up_ns)
		printf(", after %lu to warm up", r->warm_up);
	printf("\nanswered  %.1f/s as expected, %s/s in, %s/s out, %.0f%% of a processor\n",
	       per_second(r, r->good), size_text(per_second(r, r->bytes_in), in),
	       size_text(per_second(r, r->bytes_out), out), 100 * r->cpu);
	if (answers(r)) {
		printf("statuses ");
		for (int i = 0; i < MAX_STATUS; i++) {
			if (r->statuses[i])
				printf(" %d: %lu ", i, r->statuses[i]);
		}
		printf("\n");
	}
	print_errors(r);
	if (r->latency.total)
		print_latency(r);
	print_notes(o, r);
	fflush(stdout);
}

static json_t *json_counts(const struct load_results *r)
{
	json_t *errors = json_object(), *statuses = json_object();
	char key[16];

	for (int i = LOAD_OK + 1; i < NR_LOAD_ERRORS; i++) {
		if (r->errors[i])
			json_object_set_new(errors, load_error_names[i],
					    json_pack("{sI ss}", "count", (json_int_t)r->errors[i],
						      "first", r->why[i]));
	}
	for (int i = 0; i < MAX_STATUS; i++) {
		snprintf(key, sizeof(key), "%d", i);
		if (r->statuses[i])
			json_object_set_new(statuses, key,
					    json_integer((json_int_t)r->statuses[i]));
	}
	return json_pack("{sI sI sI so so sI sI}", "requests", (json_int_t)r->begun, "good",
			 (json_int_t)r->good, "errors", (json_int_t)load_errors(r),
			 "errors_by_kind", errors, "statuses", statuses, "cut_off",
			 (json_int_t)r->cut_off, "warm_up", (json_int_t)r->warm_up);
}

static json_t *json_histogram(const struct histogram *h)
{
	json_t *buckets = json_array(), *o;

	o = json_pack("{sI sI sI sf}", "count", (json_int_t)h->total, "min", (json_int_t)h->min,
		      "max", (json_int_t)h->max, "mean", histogram_mean(h));
	for (size_t i = 0; i < ARRAY_SIZE(percentiles); i++)
		json_object_set_new(
			o, percentiles[i].key,
			json_integer((json_int_t)histogram_percentile(h, percentiles[i].percent)));
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (h->count[i])
			json_array_append_new(
				buckets, json_pack("[III]", (json_int_t)histogram_bucket_low(i),
						   (json_int_t)histogram_bucket_high(i),
						   (json_int_t)h->count[i]));
	}
	/* Each is lowest value, highest value, count. */
	json_object_set_new(o, "buckets", buckets);
	return o;
}

static json_t *json_results(const struct load_options *o, const struct load_results *r)
{
	json_t *urls = json_array(), *j;

	for (size_t i = 0; i < o->nurls; i++)
		json_array_append_new(urls, json_string(o->urls[i].text));
	j = json_pack("{so sI sf sf sf sb}", "urls", urls, "connections",
		      (json_int_t)o->connections, "rate", o->rate, "seconds",
		      (double)r->elapsed_ns / 1e9, "per_second", per_second(r, r->good),
		      "interrupted", (int)r->interrupted);
	json_object_update_new(j, json_counts(r));
	json_object_set_new(j, "bytes_in", json_integer((json_int_t)r->bytes_in));
	json_object_set_new(j, "bytes_out", json_integer((json_int_t)r->bytes_out));
	json_object_set_new(j, "connections_made", json_integer((json_int_t)r->connections));
	json_object_set_new(j, "processor", json_real(r->cpu));
	json_object_set_new(j, "latency_ns", json_histogram(&r->latency));
	if (o->rate > 0)
		json_object_set_new(j, "lag_ns", json_histogram(&r->lag));
	return j;
}

int load_write_json(const struct load_options *o, const struct load_results *r)
{
	json_t *j = json_results(o, r);
	FILE *f = o->json_file;
	int err;

	errno = 0;
	err = !j || json_dumpf(j, f, JSON_INDENT(1)) || fputc('\n', f) < 0 || fflush(f);
	json_decref(j);
	if (err)
		return complain("load: --json %s: can't write it: %s", o->json,
				errno ? strerror(errno) : "out of memory");
	return 0;
}
