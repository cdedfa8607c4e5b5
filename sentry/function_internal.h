/* SPDX-License-Identifier: Apache-2.0 */
/* What the function*.c share. */
#ifndef SENTRY_FUNCTION_INTERNAL_H
#define SENTRY_FUNCTION_INTERNAL_H

#include "sentry/fnchan.h"
#include "sentry/function.h"

/* ---- function.c ---- */
/* False: the server is gone. */
bool function_send(struct fn_msg *m, const void *data, size_t len) __must_check;
/* The loop has something to look at. From any thread, under any lock. */
void function_ring(void);
/* Room for FN_DATA_MAX bytes, the loop's. */
uint8_t *function_buffer(void);

/*
 * One turn of the loop: waits for something, and does it. *@asleep: all tasks slept at the snapshot
 * point. False: leave.
 */
bool function_turn(bool *asleep) __must_check;
/* Is there a request? By the loop. */
bool function_serving(void);

/* ---- function_runner.c ---- */
/* False: no thread to be had, the caller goes on as the loop. Else it is the minder's turn. */
bool runner_start(void);
bool runner_started(void);
/* By the runner, as the loop: where it finds the task to run. */
struct task **runner_next(void);
/* Runs that, if there is one; meanwhile somebody else may be the loop. */
void runner_run(void);
/* Minds the runner to the end. */
void runner_mind(void);

/* ---- function_stream.c: streams are kernel state, as what they are connected to ---- */
/* Before init is made. 0 or -errno. */
int streams_prepare(struct kernel *k, unsigned int kind, unsigned int port) __must_check;
/* Is this the snapshot point, provided that all threads sleep? */
bool streams_at_point(void);
/* What the program listens on (http). */
unsigned int streams_port(void);
/* A message of the server's about a stream. False: it makes no sense. */
bool streams_message(const struct fn_msg *m, const uint8_t *data) __must_check;
/* Moves what can be moved. @booting: the runtime's wait for its first invocation is held back. */
bool streams_work(bool booting) __must_check;

/* A request is over: the server's streams are, too, if nothing is set back. */
void streams_end_request(void);

#endif
