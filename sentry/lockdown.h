/* SPDX-License-Identifier: Apache-2.0 */
/* What the sentry gives up before the application's first instruction. */
#ifndef SENTRY_LOCKDOWN_H
#define SENTRY_LOCKDOWN_H

#include "sentry/lib/types.h"

struct platform_type;

/* Bits of struct filter.needs (tools/seccomp_gen.c). */
enum { LOCKDOWN_VOLUMES = 1, LOCKDOWN_CONTROL = 2, LOCKDOWN_FUNCTION = 4, LOCKDOWN_ALL = 8 };

/* What this sandbox needs beyond the common calls. */
struct lockdown_needs {
	bool volumes;  /* names below host directories, and the capabilities to act there */
	bool control;  /* connections to the control socket */
	bool function; /* a channel, and snapshots */
};

/*
 * No new privileges, and no capabilities but those that act for a volume's files: for the calling
 * thread, and those that it makes. 0, or -errno with one line in @why.
 */
int lockdown_privileges(const struct lockdown_needs *needs, char *why, size_t why_size);
/*
 * After lockdown_privileges: a seccomp filter for all threads that leaves the host calls which the
 * sentry needs. 0, or -errno with one line in @why.
 */
int lockdown_calls(const struct platform_type *platform, const struct lockdown_needs *needs,
		   char *why, size_t why_size);
/* Both. */
int lockdown(const struct platform_type *platform, const struct lockdown_needs *needs, char *why,
	     size_t why_size);

#endif
