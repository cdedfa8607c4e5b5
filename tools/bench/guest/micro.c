/* SPDX-License-Identifier: Apache-2.0 */
/*
 * micro [-d DIR] [-m MS] [-n COUNT] ROW…: measures single operations of the kernel it runs on.
 *
 * For each row it finds how many operations take about a seventh of MS, does seven such batches and
 * prints the median batch: "name value unit count", value being nanoseconds per operation. With -n
 * it does exactly COUNT operations once; counting what COUNT and 2*COUNT cost elsewhere (exits to a
 * host, say) gives numbers without any noise.
 */
#include "tools/bench/guest/guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCHES 7

static const char *scratch = "/tmp";
static char self[4096];

void fail(const char *what)
{
	fprintf(stderr, "micro: %s: %s\n", what, strerror(errno));
	exit(1);
}

const char *scratch_path(const char *name)
{
	static char path[4200];

	snprintf(path, sizeof(path), "%s/bench-%s", scratch, name);
	return path;
}

const char *program_path(const char *name)
{
	static char path[4200];
	char *slash = strrchr(self, '/');

	snprintf(path, sizeof(path), "%.*s%s", slash ? (int)(slash - self) + 1 : 0, self, name);
	return path;
}

static const struct micro *find(const char *name)
{
	static const struct micro *const tables[] = {calls_rows, memory_rows, process_rows};
	const struct micro *m;
	size_t i;

	for (i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		for (m = tables[i]; m->name; m++) {
			if (!strcmp(m->name, name))
				return m;
		}
	}
	return NULL;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void measure(const struct micro *m, uint64_t ms)
{
	uint64_t batch_ns = ms * 1000000 / BATCHES, n = 1, t, again, total = 0, spent = 0;
	double each[BATCHES];
	int i;

	/* Up to a quarter of a batch by doubling, then by proportion. Twice, against a hiccup. */
	for (;;) {
		t = m->run(n);
		spent += t;
		if (t >= batch_ns / 4) {
			again = m->run(n);
			spent += again;
			if (again < t)
				t = again;
		}
		if (t >= batch_ns / 4 || (m->most && n >= m->most) || spent > 4 * ms * 1000000)
			break;
		n *= 2;
	}
	if (t < batch_ns)
		n = (uint64_t)((double)n * (double)batch_ns / (double)(t + 1)) + 1;
	if (m->most && n > m->most)
		n = m->most;
	for (i = 0, spent = 0; i < BATCHES && spent < 3 * ms * 1000000; i++) {
		t = m->run(n);
		each[i] = (double)t / (double)n;
		spent += t;
		total += n;
	}
	qsort(each, (size_t)i, sizeof(each[0]), compare);
	printf("%s %.2f ns %llu\n", m->name, each[i / 2], (unsigned long long)total);
}

int main(int argc, char **argv)
{
	uint64_t ms = 70, count = 0, t;
	const struct micro *m;
	int c;

	snprintf(self, sizeof(self), "%s", argv[0]);
	while ((c = getopt(argc, argv, "d:m:n:")) != -1) {
		switch (c) {
		case 'd':
			scratch = optarg;
			break;
		case 'm':
			ms = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			count = strtoull(optarg, NULL, 10);
			break;
		default:
			return 2;
		}
	}
	if (optind == argc || !ms) {
		fprintf(stderr, "usage: micro [-d DIR] [-m MS] [-n COUNT] ROW...\n");
		return 2;
	}
	for (; optind < argc; optind++) {
		m = find(argv[optind]);
		if (!m) {
			fprintf(stderr, "micro: no row %s\n", argv[optind]);
			return 2;
		}
		if (count) {
			t = m->run(count);
			printf("%s %.2f ns %llu\n", m->name, (double)t / (double)count,
			       (unsigned long long)count);
		} else {
			measure(m, ms);
		}
		fflush(stdout);
	}
	return 0;
}
