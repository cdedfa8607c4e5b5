/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox that serves a function: brought up to its snapshot point, frozen there, and set back to
 * it after each request. The other side of the channel is a server (sentry/fnchan.h says what they
 * say to each other).
 *
 * stdio: standard input, output and error are pipes of the sandbox's own, whose other ends the
 * sentry holds; they are kernel state like everything else. The snapshot point is where the program
 * finds its input empty: at a read, or, if it only asks (poll, select, epoll), once all its threads
 * sleep.
 */
#ifndef SENTRY_FUNCTION_H
#define SENTRY_FUNCTION_H

#include "sentry/kernel.h"

struct fd_table;

/*
 * Sets up descriptors 0 to 2 in @files: before the init process is created. 0 or -errno. @channel
 * stays the caller's until function_serve.
 */
int function_prepare(struct kernel *k, const struct vfs_ctx *ctx, struct fd_table *files,
		     unsigned int kind, unsigned int port, int channel) __must_check;
/*
 * Starts @init and serves until the channel is closed or the sandbox is of no more use. Returns the
 * status for the process to exit with. @since: CLOCK_MONOTONIC ns of the start.
 */
int function_serve(struct thread_group *init, uint64_t since);

/*
 * The same for a sandbox that snapshot_restore has made of an image, which snapshot_adopt has taken
 * for its frozen state: it is ready at once.
 */
int function_restored(struct kernel *k, int channel, uint64_t since);

#endif
