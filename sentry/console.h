/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A terminal for a command (-t): a pty of the sentry whose slave is the command's stdio and whose
 * master two host threads relay to host descriptors. Init's console relays the terminal that
 * kvmsbox was started from; each entered command (control.h) may have one of its own.
 *
 *	console_create -> relaying -> console_stop: no more input, the output there is goes out
 *	-> both threads have ended: console_ended, and whoever asked is told
 *
 * References: the owner's, and one of each thread. With the last one the master is closed, which
 * hangs up what still has the terminal.
 */
#ifndef SENTRY_CONSOLE_H
#define SENTRY_CONSOLE_H

#include "sentry/task.h"

struct console;

/*
 * Makes the pty in @ns and relays the host descriptors @in and @out to it, which are consumed, on
 * failure too; -1: none. Its size is that of a host terminal behind them. @slave gets a file
 * reference, @c one. 0 or -errno.
 */
int console_create(struct kernel *k, struct mnt_ns *ns, int in, int out, struct console **c,
		   struct file **slave) __must_check;
/* The owner's reference; stops the relay if it has not been. */
void console_put(struct console *c);
struct tty *console_tty(struct console *c); /* borrowed */
/* The host's terminal has another size now. */
void console_resize(struct console *c);
/*
 * Reads no more input; output still under way is written out. @ended (or NULL) is called, from one
 * of the relay's threads, when both have ended. Doesn't wait: the host's terminal may be stopped.
 */
void console_stop(struct console *c, void (*ended)(void));
bool console_ended(struct console *c);
/* Whoever looked at it is gone: SIGHUP to its session, as when a line drops. */
void console_hangup(struct console *c);

/*
 * Init's: a host terminal behind its input becomes raw; console_finish stops, waits for the output,
 * and leaves the host's terminal as it was before.
 */
void console_make_raw(struct console *c);
void console_finish(struct console *c);

/* The host's terminal, one for a process. Restored at exit, too; that is async-signal-safe. */
void host_terminal_raw(int fd);
void host_terminal_restore(void);

#endif
