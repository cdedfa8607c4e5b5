/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for several files at once. Each round asks every file; only when none is ready does a
 * waiter go onto each file's queue, and the files are asked again before sleeping. The files are
 * held meanwhile, so that a descriptor closed by another thread stays what it was.
 */
#include "sentry/poll.h"

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"

#define POLL_ALWAYS (EPOLLERR | EPOLLHUP)
#define POLL_INLINE 8

struct poll_entry {
	struct file *file; /* reference, or NULL */
	struct task_waiter tw;
};

/* Asks every file. How many have events. */
static int poll_round(struct task *t, struct pollfd *fds, struct poll_entry *e, unsigned int n)
{
	int ready = 0;

	for (unsigned int i = 0; i < n; i++) {
		uint32_t want = (uint16_t)fds[i].events | POLL_ALWAYS;

		if (e[i].file)
			fds[i].revents = (short)(file_poll_ctx(&t->vfs, e[i].file) & want);
		if (fds[i].revents)
			ready++;
	}
	return ready;
}

static int poll_sleep(struct task *t, struct pollfd *fds, struct poll_entry *e, unsigned int n,
		      const struct timespec *deadline)
{
	int ready, err = 0;

	task_block_prepare(t);
	for (unsigned int i = 0; i < n; i++) {
		struct waitq *wq = e[i].file ? file_pollq(e[i].file) : NULL;

		task_waiter_init(&e[i].tw, t, (uint16_t)fds[i].events | POLL_ALWAYS);
		if (wq)
			waitq_add(wq, &e[i].tw.w);
	}
	for (;;) {
		ready = poll_round(t, fds, e, n);
		if (ready || err)
			break;
		err = task_block(t, CLOCK_MONOTONIC, deadline);
		if (!err)
			task_block_prepare(t);
	}
	for (unsigned int i = 0; i < n; i++)
		waitq_remove(&e[i].tw.w);
	if (ready || err == -ETIMEDOUT)
		return ready;
	return -ERESTARTNOHAND;
}

int poll_wait(struct task *t, struct pollfd *fds, unsigned int n, const struct timespec *deadline,
	      bool poll, bool bad_fd_fails)
{
	struct poll_entry inl[POLL_INLINE], *e = inl;
	int ret = 0;

	if (n > POLL_INLINE) {
		e = kcalloc(n, sizeof(*e));
		if (!e)
			return -ENOMEM;
	}
	for (unsigned int i = 0; i < n; i++) {
		fds[i].revents = 0;
		e[i].file = fds[i].fd >= 0 ? fd_get(t->files, fds[i].fd) : NULL;
		if (!e[i].file && fds[i].fd >= 0) {
			fds[i].revents = POLLNVAL;
			if (bad_fd_fails)
				ret = -EBADF;
		}
	}
	if (!ret)
		ret = poll_round(t, fds, e, n);
	if (!ret && !poll)
		ret = poll_sleep(t, fds, e, n, deadline);
	for (unsigned int i = 0; i < n; i++)
		file_put(e[i].file);
	if (e != inl)
		kfree(e);
	return ret;
}
