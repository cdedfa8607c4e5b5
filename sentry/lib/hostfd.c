/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host descriptors by index, and the poller: one thread in epoll_wait that turns host readiness
 * into wake-ups of wait queues. Watches are edge-triggered; whoever waits looks at the state (poll)
 * after adding itself, so an edge before that is not missed.
 */
#include "sentry/lib/hostfd.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "sentry/lib/log.h"
#include "sentry/lib/world.h"

#define MAX_HOSTFDS 65536

struct hostfd {
	int fd;		  /* -1: free */
	struct waitq *wq; /* watched by; under poll_lock */
	enum hostfd_use use;
	/* In the frozen state: is one to be had then, and is watched by whom. */
	bool frozen, closed;
	struct waitq *frozen_wq;
};

/* Outside the arena: ordinary memory. */
static struct hostfd *table;
static unsigned int table_size;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
/* Held while a wake-up is delivered, so that unwatch can wait for it. */
static pthread_mutex_t poll_lock = PTHREAD_MUTEX_INITIALIZER;
static int epoll_fd = -1;

int hostfd_add(int fd)
{
	unsigned int i;

	pthread_mutex_lock(&table_lock);
	if (!table) {
		/* One block for good: entries never move. Index 0 is "none". */
		table = calloc(MAX_HOSTFDS, sizeof(*table));
		if (!table)
			goto out_full;
		table_size = 1;
		table[0].fd = -1;
	}
	for (i = 1; i < table_size && table[i].fd >= 0; i++)
		;
	if (i == MAX_HOSTFDS)
		goto out_full;
	if (i == table_size)
		table_size++;
	table[i].fd = fd;
	table[i].wq = NULL;
	table[i].use = HOSTFD_SANDBOX;
	pthread_mutex_unlock(&table_lock);
	return (int)i;

out_full:
	pthread_mutex_unlock(&table_lock);
	close(fd);
	return -EMFILE;
}

int hostfd_put_at(int index, int fd)
{
	int low;

	/* Makes the table if there is none. */
	low = hostfd_add(fd);
	if (low < 0 || low == index)
		return MIN(low, 0);
	pthread_mutex_lock(&table_lock);
	table[low].fd = -1;
	if (index <= 0 || index >= MAX_HOSTFDS ||
	    ((unsigned int)index < table_size && table[index].fd >= 0)) {
		pthread_mutex_unlock(&table_lock);
		close(fd);
		return -EBUSY;
	}
	for (; table_size <= (unsigned int)index; table_size++)
		table[table_size].fd = -1;
	table[index] = (struct hostfd){.fd = fd};
	pthread_mutex_unlock(&table_lock);
	return 0;
}

void hostfd_set_use(int index, enum hostfd_use use)
{
	table[index].use = use;
}

enum hostfd_use hostfd_use(int index)
{
	return index <= 0 || (unsigned int)index >= table_size || table[index].fd < 0
		       ? HOSTFD_NONE
		       : table[index].use;
}

unsigned int hostfd_count(enum hostfd_use use)
{
	unsigned int n = 0;

	pthread_mutex_lock(&table_lock);
	for (unsigned int i = 1; i < table_size; i++)
		n += table[i].fd >= 0 && table[i].use == use;
	pthread_mutex_unlock(&table_lock);
	return n;
}

int hostfd_get(int index)
{
	return table[index].fd;
}

void hostfd_close(int index)
{
	int fd;

	hostfd_unwatch(index);
	pthread_mutex_lock(&table_lock);
	if (table[index].frozen) {
		/* It will be wanted again. */
		table[index].closed = true;
		pthread_mutex_unlock(&table_lock);
		return;
	}
	fd = table[index].fd;
	table[index].fd = -1;
	pthread_mutex_unlock(&table_lock);
	close(fd);
}

static void *poller(void *unused)
{
	struct epoll_event ev[64];

	for (;;) {
		int n = epoll_wait(epoll_fd, ev, ARRAY_SIZE(ev), -1);

		for (int i = 0; i < n; i++) {
			struct hostfd *h = &table[ev[i].data.u32];

			world_enter();
			pthread_mutex_lock(&poll_lock);
			if (h->wq)
				waitq_wake(h->wq, ev[i].events);
			pthread_mutex_unlock(&poll_lock);
			world_leave();
		}
		if (n < 0 && errno != EINTR)
			log_error("poller: epoll_wait failed with errno %d", errno);
		if (n < 0 && errno != EINTR)
			return NULL;
	}
}

/* poll_lock held. */
static int start_poller(void)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int err;

	if (epoll_fd >= 0)
		return 0;
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 128 << 10);
	err = pthread_create(&thread, &attr, poller, NULL);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err) {
		close(epoll_fd);
		epoll_fd = -1;
	}
	return -err;
}

int hostfd_watch(int index, struct waitq *wq)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
				 .data.u32 = (uint32_t)index};
	int err;

	pthread_mutex_lock(&poll_lock);
	err = start_poller();
	if (!err && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, table[index].fd, &ev))
		err = -errno;
	if (!err)
		table[index].wq = wq;
	pthread_mutex_unlock(&poll_lock);
	return err;
}

void hostfd_unwatch(int index)
{
	pthread_mutex_lock(&poll_lock);
	if (table[index].wq) {
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, table[index].fd, NULL);
		table[index].wq = NULL;
	}
	pthread_mutex_unlock(&poll_lock);
}

uint32_t hostfd_poll(int index, uint32_t events)
{
	struct pollfd p = {.fd = table[index].fd, .events = (short)events};

	if (poll(&p, 1, 0) <= 0)
		return 0;
	return (uint16_t)p.revents;
}

void hostfd_freeze(void)
{
	for (unsigned int i = 1; i < table_size; i++) {
		table[i].frozen = table[i].fd >= 0;
		table[i].closed = false;
		table[i].frozen_wq = table[i].wq;
	}
}

void hostfd_rewind(void)
{
	for (unsigned int i = 1; i < table_size; i++) {
		struct hostfd *h = &table[i];

		if (h->fd < 0)
			continue;
		if (!h->frozen) {
			hostfd_close((int)i);
			continue;
		}
		h->closed = false;
		if (h->wq == h->frozen_wq)
			continue;
		hostfd_unwatch((int)i);
		if (h->frozen_wq && hostfd_watch((int)i, h->frozen_wq))
			log_error("descriptor %u can't be watched again", i);
	}
}
