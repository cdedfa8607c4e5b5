/* SPDX-License-Identifier: Apache-2.0 */
/* What a snapshot's metadata tells people. */
#ifndef TOOLS_KVMSBOX_SNAPSHOT_H
#define TOOLS_KVMSBOX_SNAPSHOT_H

#include "sentry/snapshot_file.h"

/* Borrowed from @file; "?" if it doesn't say. */
const char *snapshot_platform(const struct snapshot_file *file);
/* The command of the first process. */
const char *snapshot_command(const struct snapshot_file *file);

#endif
