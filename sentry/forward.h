/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals from outside reach the program: the main thread takes every signal that the host sends
 * this process and passes it to init, or to init's process group when the host's terminal made it
 * (as the host would signal a whole job). It also watches the clock and the memory limit.
 */
#ifndef SENTRY_FORWARD_H
#define SENTRY_FORWARD_H

#include <signal.h>

#include "sentry/lib/types.h"

struct console;
struct kernel;
struct thread_group;

struct forward_args {
	struct kernel *kernel;
	struct thread_group *init; /* borrowed */
	struct console *console;   /* or NULL */
	uint64_t timeout_ms;	   /* 0: none */
};

/* What is forwarded: everything but what means this process itself. */
void forward_signals(sigset_t *set);
/* Blocks what will be forwarded. Before any other thread exists. */
void forward_block_signals(void);
/* Once, by the thread that will wait, before init is started. */
void forward_prepare(const struct forward_args *args);
/* Passes on what comes until every task is gone; returns init's wait status. */
int forward_until_end(void);
/* Did the time limit end the sandbox? */
bool forward_timed_out(void);

/* Is the sandbox over its memory limit? Then the process with the most memory is killed: true. */
bool forward_watch_memory(struct kernel *k);

#endif
