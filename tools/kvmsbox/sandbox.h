/* SPDX-License-Identifier: Apache-2.0 */
/* From options and an image to a sandbox that runs in this process: what exec and run share. */
#ifndef TOOLS_KVMSBOX_SANDBOX_H
#define TOOLS_KVMSBOX_SANDBOX_H

#include "sentry/boot.h"
#include "tools/kvmsbox/options.h"
#include "tools/kvmsbox/store.h"

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

/* ---- run.c: one that has a name ---- */

/* How it is made. */
struct sandbox_job {
	const char *path; /* of its image or snapshot */
	/* What its state.json says beside what store_create adds. A new reference. */
	json_t *(*describe)(const struct sandbox_job *job, const struct options *o);
	/* Runs it in this process, until it has ended. */
	void (*boot)(const struct sandbox_job *job, struct options *o, struct boot_result *result);
	const void *data; /* their own */
};
/* What describe says of one with the image @image: command and so on from @o's configuration. */
json_t *sandbox_describe(const struct options *o, const char *image);
/* Is o->name a name that is free? Opens @store. 0, or the exit status after a complaint. */
int sandbox_check_name(struct options *o, struct store *store);
/* Runs it under o->name, in the background if o->detach. The exit status. */
int sandbox_run_named(struct options *o, struct store *store, const struct sandbox_job *job);

#endif
