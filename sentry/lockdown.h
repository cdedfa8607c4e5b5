/* SPDX-License-Identifier: Apache-2.0 */
/* What the sentry gives up before the application's first instruction. */
#ifndef SENTRY_LOCKDOWN_H
#define SENTRY_LOCKDOWN_H

#include "sentry/lib/types.h"

struct platform_type;

/*
 * No new privileges; no capabilities (but those that act for a volume's files when @volumes); a
 * seccomp filter that leaves the host calls the sentry needs. 0, or -errno with one line in @why.
 */
int lockdown(const struct platform_type *platform, bool volumes, char *why, size_t why_size);

#endif
