/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread of a named sandbox: it serves the listening socket that was passed in
 * (config.control_fd) to clients of the same user, or root: control_msg.h says what they may ask.
 */
#ifndef SENTRY_CONTROL_H
#define SENTRY_CONTROL_H

#include "sentry/config.h"
#include "sentry/kernel.h"

/*
 * Starts the thread. Init has been started. @c is what it was made from, and stays; commands that
 * enter take from it what they don't say themselves. Takes over @c->control_fd. 0 or -errno.
 */
int control_start(struct kernel *k, const struct config *c) __must_check;
/*
 * Once everything has ended: every client that waits hears how its command did; a second for it.
 * The thread is gone after that. Nothing if control_start was not called.
 */
void control_finish(void);

#endif
