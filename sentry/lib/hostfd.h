/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host file descriptors by index. The arena never holds a raw fd: a restored or cloned sandbox has
 * other numbers behind the same index. The table lies outside the arena.
 */
#ifndef SENTRY_LIB_HOSTFD_H
#define SENTRY_LIB_HOSTFD_H

#include "sentry/lib/types.h"
#include "sentry/lib/waitq.h"

/* Takes over @fd. Returns its index (> 0) or -EMFILE (the fd is closed then). */
int hostfd_add(int fd) __must_check;
/* The same at an @index that a restored sandbox knows. 0 or -errno (the fd is closed then). */
int hostfd_put_at(int index, int fd) __must_check;

/*
 * Whose it is: what the sandbox has of the host can't be saved, but for its first process's stdio.
 */
enum hostfd_use {
	HOSTFD_SANDBOX, /* what hostfd_add makes it */
	HOSTFD_STDIO,	/* init's, passed in */
	HOSTFD_SENTRY,	/* this process's own */
	HOSTFD_NONE,	/* there is none at that index */
};
void hostfd_set_use(int index, enum hostfd_use use);
enum hostfd_use hostfd_use(int index);
unsigned int hostfd_count(enum hostfd_use use);
/* The fd behind @index. Valid until hostfd_close. */
int hostfd_get(int index);
/* Closes the fd and frees the index. */
void hostfd_close(int index);

/*
 * Readiness: after hostfd_watch, @wq is woken when the host fd becomes ready, from a poller thread
 * that is started on first use. Regular files are always ready and need no watch (returns -EPERM,
 * as epoll does). Unwatch returns when no wake-up is under way.
 */
int hostfd_watch(int index, struct waitq *wq) __must_check;
void hostfd_unwatch(int index);
/* Current readiness as EPOLL bits (a poll(2) with no timeout). */
uint32_t hostfd_poll(int index, uint32_t events);

/*
 * Going back (sentry/snapshot.h): the descriptors that are there at the freeze stay open, whoever
 * closes them, until hostfd_rewind; which closes the others. Nobody uses descriptors meanwhile.
 */
void hostfd_freeze(void);
void hostfd_rewind(void);

#endif
