/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "sentry/lib/clock.h"

#define BATCH 64

static struct {
	int epoll_fd;
	bool stop;
	uint64_t now;
	struct epoll_event events[BATCH]; /* of this wake-up; data.ptr is NULL if removed since */
	int nevents, current;
	struct timer **heap; /* from 1; the parent of i is i / 2 */
	size_t ntimers, room;
	struct list_head works;
} loop;

uint64_t loop_now(void)
{
	return loop.now;
}

int loop_init(void)
{
	list_init(&loop.works);
	loop.now = monotonic_ns();
	loop.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return loop.epoll_fd < 0 ? -errno : 0;
}

int watch_add(struct watch *w, int fd, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = w};

	if (epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD, fd, &e))
		return -errno;
	w->fd = fd;
	w->events = events;
	return 0;
}

void watch_set(struct watch *w, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = w};

	if (w->fd < 0 || w->events == events)
		return;
	w->events = events;
	epoll_ctl(loop.epoll_fd, EPOLL_CTL_MOD, w->fd, &e);
}

void watch_del(struct watch *w)
{
	if (w->fd < 0)
		return;
	epoll_ctl(loop.epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->fd = -1;
	for (int i = loop.current; i < loop.nevents; i++) {
		if (loop.events[i].data.ptr == w)
			loop.events[i].data.ptr = NULL;
	}
}

static void heap_put(size_t slot, struct timer *t)
{
	loop.heap[slot] = t;
	t->slot = slot;
}

static void heap_up(size_t slot, struct timer *t)
{
	while (slot > 1 && loop.heap[slot / 2]->when > t->when) {
		heap_put(slot, loop.heap[slot / 2]);
		slot /= 2;
	}
	heap_put(slot, t);
}

static void heap_down(size_t slot, struct timer *t)
{
	size_t child;

	while ((child = 2 * slot) <= loop.ntimers) {
		if (child < loop.ntimers && loop.heap[child + 1]->when < loop.heap[child]->when)
			child++;
		if (loop.heap[child]->when >= t->when)
			break;
		heap_put(slot, loop.heap[child]);
		slot = child;
	}
	heap_put(slot, t);
}

void timer_del(struct timer *t)
{
	size_t slot = t->slot;
	struct timer *last;

	if (!slot)
		return;
	t->slot = 0;
	last = loop.heap[loop.ntimers--];
	if (last == t)
		return;
	if (slot > 1 && loop.heap[slot / 2]->when > last->when)
		heap_up(slot, last);
	else
		heap_down(slot, last);
}

void timer_set(struct timer *t, uint64_t when)
{
	timer_del(t);
	if (loop.ntimers + 2 > loop.room) {
		size_t room = loop.room ? 2 * loop.room : 256;
		struct timer **heap = realloc(loop.heap, room * sizeof(*heap));

		/* Without timers nothing here is bounded any more. */
		if (!heap)
			abort();
		loop.heap = heap;
		loop.room = room;
	}
	t->when = when;
	heap_up(++loop.ntimers, t);
}

void work_init(struct work *w, void (*run)(struct work *w))
{
	list_init(&w->node);
	w->run = run;
}

void work_add(struct work *w)
{
	if (list_empty(&w->node))
		list_add_tail(&w->node, &loop.works);
}

void work_del(struct work *w)
{
	list_del(&w->node);
}

static void run_works(void)
{
	struct work *w;

	while (!list_empty(&loop.works)) {
		w = list_first_entry(&loop.works, struct work, node);
		list_del(&w->node);
		w->run(w);
	}
}

static void run_timers(void)
{
	struct timer *t;

	while (loop.ntimers && loop.heap[1]->when <= loop.now) {
		t = loop.heap[1];
		timer_del(t);
		t->fire(t);
		run_works();
	}
}

static int next_timeout(void)
{
	uint64_t ms;

	if (!loop.ntimers)
		return -1;
	if (loop.heap[1]->when <= loop.now)
		return 0;
	ms = (loop.heap[1]->when - loop.now + MSEC - 1) / MSEC;
	return ms > 60000 ? 60000 : (int)ms;
}

void loop_stop(void)
{
	loop.stop = true;
}

void loop_run(void)
{
	loop.now = monotonic_ns();
	run_works();
	while (!loop.stop) {
		loop.nevents = epoll_wait(loop.epoll_fd, loop.events, BATCH, next_timeout());
		loop.now = monotonic_ns();
		for (loop.current = 0; loop.current < loop.nevents;) {
			struct epoll_event *e = &loop.events[loop.current++];
			struct watch *w = e->data.ptr;

			if (!w)
				continue;
			w->ready(w, e->events);
			run_works();
		}
		loop.nevents = 0;
		run_timers();
	}
}
