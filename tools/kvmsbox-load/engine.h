/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load itself: one thread, one epoll instance, edge-triggered.
 *
 * A connection is on one of three lists, or has a request:
 *
 *	idle	can take the next request; it may be open or not
 *	resting	couldn't connect, or the server's queue was full: tries again after REST_NS
 *	busy	has a request; ordered by when that was begun, so the first times out first
 *
 * (One that is resting because the server's queue was full keeps its request, and is busy too.)
 *
 * Without a rate a request is due when a connection is idle. With one, request number i is due at
 * start + i / rate whatever the answers do, and waits for an idle connection if there is none: what
 * is due and not sent is a number, not a list. Its latency counts from when it was due, so a stall
 * of the server is in the latency of every request that it delayed.
 */
#ifndef KVMSBOX_LOAD_ENGINE_H
#define KVMSBOX_LOAD_ENGINE_H

#include <signal.h>

#include "sentry/lib/clock.h"
#include "sentry/lib/list.h"
#include "tools/kvmsbox-load/load.h"

#define REST_NS	    10000000ull
#define BUFFER_SIZE 262144

enum conn_state { CONN_CLOSED, CONN_CONNECTING, CONN_HANDSHAKE, CONN_OPEN };

struct conn {
	struct net net;
	enum conn_state state;
	struct list_head place; /* idle or resting; empty if neither */
	struct list_head busy;	/* empty: no request */
	uint64_t rested;	/* when it may go on */
	/* the request */
	uint64_t due;	   /* latency counts from there */
	uint64_t deadline; /* from when it was begun */
	size_t url;
	size_t sent;
	struct response response;
};

struct request_text {
	char *head;
	size_t len;
};

struct engine {
	const struct load_options *o;
	struct load_results *r;
	struct server server;
	struct request_text *texts; /* one for each URL */
	struct pattern pattern;
	struct conn *conns;
	int epoll;
	struct list_head idle, resting, busy;
	uint64_t idle_since; /* when there came to be an idle connection */
	uint64_t number;     /* of requests that were begun, or given up before */
	uint64_t in_flight;
	uint64_t start, measured_from, stop; /* measured_from, stop: what is due from then on */
	uint64_t last_done;
	uint64_t next_progress, progress_done;
	char *buffer;
	sigset_t signals; /* while it waits */
};

static inline bool measured(const struct engine *e, uint64_t due)
{
	return due >= e->measured_from;
}

/* The next request, due then, is taken up. */
void count_begun(struct engine *e, uint64_t due);
/* It has ended, now. @why is read if it failed. */
void count_end(struct engine *e, uint64_t due, enum load_error error, const char *why);

/* Begins to connect. Returns 0: it is open; -EAGAIN: it will be; -EBUSY: later; else an error. */
int conn_open(struct engine *e, struct conn *c);
/* Brings one that isn't open further: as conn_open. */
int conn_advance(struct engine *e, struct conn *c);
void conn_close(struct conn *c);
void conn_idle(struct engine *e, struct conn *c);
void conn_event(struct engine *e, struct conn *c, uint32_t events);

/* The next request, due then, is begun now on @c, which is idle. */
void request_begin(struct engine *e, struct conn *c, uint64_t due, uint64_t now);
/* Sends it, opening the connection first if need be. */
void request_start(struct engine *e, struct conn *c);
/* It has ended, well or not; the connection is idle, or rests. */
void request_end(struct engine *e, struct conn *c, enum load_error error, const char *why);

#endif
