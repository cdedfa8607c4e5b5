/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one thread, one epoll set. Watches, timers and works belong to whoever embeds
 * them; each may be removed, and what embeds it freed, from any callback.
 */
#ifndef SERVE_LOOP_H
#define SERVE_LOOP_H

#include "sentry/lib/list.h"
#include "sentry/lib/types.h"

#define MSEC 1000000ULL
#define SEC  1000000000ULL

struct watch {
	void (*ready)(struct watch *w, uint32_t events);
	int fd; /* -1: not in the set */
	uint32_t events;
};

struct timer {
	void (*fire)(struct timer *t);
	uint64_t when; /* of loop_now() */
	size_t slot;   /* in the heap, from 1; 0: not set */
};

/* Runs once, as soon as the callback that put it there has returned. */
struct work {
	struct list_head node;
	void (*run)(struct work *w);
};

int loop_init(void) __must_check;
/* Until loop_stop(). */
void loop_run(void);
void loop_stop(void);
/* Monotonic nanoseconds, read once per wake-up; monotonic_ns() reads the clock. */
uint64_t loop_now(void);

/* @w->ready is set. Errors and hang-ups are always reported. */
int watch_add(struct watch *w, int fd, uint32_t events) __must_check;
void watch_set(struct watch *w, uint32_t events);
/* Doesn't close the descriptor. */
void watch_del(struct watch *w);

/* Sets or moves it; @t->fire is set. */
void timer_set(struct timer *t, uint64_t when);
void timer_del(struct timer *t);

void work_init(struct work *w, void (*run)(struct work *w));
void work_add(struct work *w);
void work_del(struct work *w);

#endif
