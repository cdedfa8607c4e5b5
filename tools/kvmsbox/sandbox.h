/* SPDX-License-Identifier: Apache-2.0 */
/* From options and an image to a sandbox that runs in this process: what exec and run share. */
#ifndef TOOLS_KVMSBOX_SANDBOX_H
#define TOOLS_KVMSBOX_SANDBOX_H

#include "sentry/boot.h"
#include "tools/kvmsbox/options.h"

/*
 * Opens the image @path and completes @o's configuration from what the image says and the command
 * @argv (may be empty; a leading "--" is skipped). 0, or the exit status after a complaint.
 */
int sandbox_configure(struct options *o, const char *path, char **argv);
/*
 * Runs it, with descriptors 0 to 2 as its stdio, until it has ended; @result says how. With
 * --dump-dtb only the device tree is written.
 */
void sandbox_boot(struct options *o, struct boot_result *result);

#endif
