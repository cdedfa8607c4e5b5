/* SPDX-License-Identifier: Apache-2.0 */
/* What function.c and function_stream.c share. */
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
