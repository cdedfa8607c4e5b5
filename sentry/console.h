/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox's terminal (-t): a pty of the sentry whose slave is the program's stdio and whose
 * master is relayed to the host's terminal, which is in raw mode meanwhile.
 */
#ifndef SENTRY_CONSOLE_H
#define SENTRY_CONSOLE_H

#include "sentry/task.h"

struct console;

/*
 * Makes the pty, relays host descriptors @in and @out to it from two host threads, and puts a host
 * terminal behind @in into raw mode. @slave gets a file reference. 0 or -errno.
 */
int console_create(struct kernel *k, struct mnt_ns *ns, int in, int out, struct console **c,
		   struct file **slave);
struct tty *console_tty(struct console *c); /* borrowed */
/* The host's terminal has another size now. */
void console_resize(struct console *c);
/* Output still under way is written out, the host's terminal is as it was before. */
void console_finish(struct console *c);
/* The same without waiting, for a dying process. Async-signal-safe. */
void console_restore(void);

#endif
