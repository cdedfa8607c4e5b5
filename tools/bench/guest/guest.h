/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs that the benchmark runs, natively and in sandboxes: the same static binaries.
 *
 * A micro row is a function that does its operation n times and says how long that took; what it
 * prepares and takes down is outside the time. Everything else (how often, how many batches, the
 * median) is micro.c's.
 */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

#include <stdint.h>
#include <time.h>

struct micro {
	const char *name;
	/* Does the operation @n times, returns nanoseconds. Exits with a message on failure. */
	uint64_t (*run)(uint64_t n);
	/* Most operations that make sense in one batch; 0: no limit. */
	uint64_t most;
};

/* One table per file, ended by a row without a name. */
extern const struct micro calls_rows[];
extern const struct micro memory_rows[];
extern const struct micro process_rows[];

/* A directory that can be written, and a path of it; the path is valid until the next call. */
const char *scratch_path(const char *name);
/* A program next to this one. */
const char *program_path(const char *name);

/* Ends the program with @what and errno's text. */
__attribute__((noreturn)) void fail(const char *what);

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

#endif
