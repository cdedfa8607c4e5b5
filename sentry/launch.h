/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a configuration's /chosen to a process that can be started: user, descriptors or terminal,
 * executable, process. What a sandbox's init and a command that enters it have in common.
 */
#ifndef SENTRY_LAUNCH_H
#define SENTRY_LAUNCH_H

#include "sentry/kernel.h"

struct config;
struct console;

/*
 * @c becomes the sentry's own context: the root of @ns, all capabilities. @ns is borrowed and must
 * stay. 0 or -ENOMEM.
 */
int caller_init(struct vfs_ctx *c, struct mnt_ns *ns) __must_check;
void caller_fini(struct vfs_ctx *c);

struct launched {
	struct thread_group *tg; /* reference */
	struct console *console; /* reference, or NULL */
	/* On failure: what the command line ends with, and one line. */
	int status;
	char error[640];
};

/*
 * Makes the process that @c describes in the namespaces of the sandbox, with the mounts of @caller;
 * the first is init. @stdio are host descriptors, -1: closed; they are consumed, on failure too.
 * Nothing runs yet. 0, or -1 with @out->status and @out->error.
 */
int launch(struct kernel *k, const struct vfs_ctx *caller, const struct config *c,
	   const int stdio[3], struct launched *out) __must_check;

/* A wait status as the shell's: the exit status, or 128+N. */
int exit_status_of(int wait_status);

#endif
