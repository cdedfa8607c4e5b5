/* SPDX-License-Identifier: Apache-2.0 */
/* poll(2), ppoll(2), select(2), pselect6(2): arguments, time limits and results. */
#include "sentry/poll.h"

#include <string.h>
#include <sys/select.h>
#include <sys/time.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls.h"

#define POLL_STACK 32

/* What is left until @deadline, never negative. */
static void time_left(const struct timespec *deadline, struct timespec *left)
{
	struct timespec now = monotonic_now();

	left->tv_sec = deadline->tv_sec - now.tv_sec;
	left->tv_nsec = deadline->tv_nsec - now.tv_nsec;
	if (left->tv_nsec < 0) {
		left->tv_nsec += 1000000000;
		left->tv_sec--;
	}
	if (left->tv_sec < 0)
		left->tv_sec = left->tv_nsec = 0;
}

static bool is_zero(const struct timespec *ts)
{
	return !ts->tv_sec && !ts->tv_nsec;
}

/* ---- poll ---- */

static int poll_user(struct task *t, uaddr_t ufds, uint64_t nfds, const struct timespec *deadline,
		     bool nowait)
{
	struct pollfd stack[POLL_STACK], *fds = stack;
	unsigned int n = (unsigned int)nfds;
	int ret;

	if (nfds > task_rlimit(t, RLIMIT_NOFILE))
		return -EINVAL;
	if (n > POLL_STACK) {
		fds = kmalloc(n * sizeof(*fds));
		if (!fds)
			return -ENOMEM;
	}
	ret = copy_in(t, fds, ufds, n * sizeof(*fds));
	if (!ret)
		ret = poll_wait(t, fds, n, deadline, nowait, false);
	for (unsigned int i = 0; ret >= 0 && i < n; i++) {
		uaddr_t at = ufds + i * sizeof(*fds) + offsetof(struct pollfd, revents);

		if (copy_out(t, at, &fds[i].revents, sizeof(fds[i].revents)))
			ret = -EFAULT;
	}
	if (fds != stack)
		kfree(fds);
	return ret;
}

static long poll_restart(struct task *t, struct restart_block *rb)
{
	struct timespec until = rb->until;
	bool timed = rb->arg[2];
	int ret = poll_user(t, rb->arg[0], rb->arg[1], timed ? &until : NULL, false);

	if (ret != -ERESTARTNOHAND)
		return ret;
	t->restart = *rb;
	return -ERESTART_RESTARTBLOCK;
}

long sys_poll(struct task *t, const uint64_t *a)
{
	int ms = (int)a[2];
	struct timespec ts, until = {0};
	int ret;

	if (ms > 0) {
		ts.tv_sec = ms / 1000;
		ts.tv_nsec = ms % 1000 * 1000000L;
		deadline_after(&until, &ts);
	}
	ret = poll_user(t, a[0], (uint32_t)a[1], ms > 0 ? &until : NULL, ms == 0);
	if (ret != -ERESTARTNOHAND)
		return ret;
	t->restart.fn = poll_restart;
	t->restart.arg[0] = a[0];
	t->restart.arg[1] = (uint32_t)a[1];
	t->restart.arg[2] = ms > 0;
	t->restart.until = until;
	return -ERESTART_RESTARTBLOCK;
}

/* Stores what is left of a time limit; a call that can't be repeated exactly is interrupted. */
static long finish_timespec(struct task *t, uaddr_t addr, const struct timespec *until, long ret)
{
	struct timespec left;

	if (!addr)
		return ret;
	time_left(until, &left);
	if (copy_out(t, addr, &left, sizeof(left)) && ret == -ERESTARTNOHAND)
		return -EINTR;
	return ret;
}

long sys_ppoll(struct task *t, const uint64_t *a)
{
	struct timespec ts = {0}, until;
	uint64_t mask;
	long ret;

	if (a[2]) {
		ret = user_timespec(t, a[2], &ts);
		if (ret)
			return ret;
		task_deadline(t, &until, &ts);
	}
	if (a[3]) {
		ret = user_sigset(t, a[3], a[4], &mask);
		if (ret)
			return ret;
		task_set_temp_mask(t, mask);
	}
	ret = poll_user(t, a[0], (uint32_t)a[1], a[2] ? &until : NULL, a[2] && is_zero(&ts));
	return a[2] ? finish_timespec(t, a[2], &until, ret) : ret;
}

/* ---- select ---- */

#define SEL_IN	(POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR)
#define SEL_OUT (POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR)
#define SEL_EX	POLLPRI

struct select_sets {
	unsigned int n;	   /* descriptors looked at */
	size_t words;	   /* of each set */
	uint64_t *bits[3]; /* in, out, except */
	uaddr_t user[3];
	struct pollfd *fds;
	unsigned int nfds;
};

static bool set_has(const uint64_t *set, unsigned int fd)
{
	return set[fd / 64] >> (fd % 64) & 1;
}

static int select_prepare(struct task *t, struct select_sets *s)
{
	static const short want[3] = {POLLIN | POLLRDNORM | POLLRDBAND,
				      POLLOUT | POLLWRNORM | POLLWRBAND, POLLPRI};

	s->bits[0] = kcalloc(s->words * 3 + 1, sizeof(uint64_t));
	if (!s->bits[0])
		return -ENOMEM;
	s->bits[1] = s->bits[0] + s->words;
	s->bits[2] = s->bits[1] + s->words;
	for (int k = 0; k < 3; k++)
		if (s->user[k] && copy_in(t, s->bits[k], s->user[k], s->words * 8))
			return -EFAULT;
	for (unsigned int fd = 0; fd < s->n; fd++)
		s->nfds += set_has(s->bits[0], fd) || set_has(s->bits[1], fd) ||
			   set_has(s->bits[2], fd);
	s->fds = kcalloc(s->nfds + 1, sizeof(*s->fds));
	if (!s->fds)
		return -ENOMEM;
	s->nfds = 0;
	for (unsigned int fd = 0; fd < s->n; fd++) {
		short events = 0;

		for (int k = 0; k < 3; k++)
			if (set_has(s->bits[k], fd))
				events |= want[k];
		if (events)
			s->fds[s->nfds++] = (struct pollfd){.fd = (int)fd, .events = events};
	}
	return 0;
}

/* Turns revents into the result sets; the number of bits set. */
static int select_results(struct select_sets *s)
{
	static const short got[3] = {SEL_IN, SEL_OUT, SEL_EX};
	static const short want[3] = {POLLIN, POLLOUT, POLLPRI};
	int n = 0;

	memset(s->bits[0], 0, s->words * 3 * sizeof(uint64_t));
	for (unsigned int i = 0; i < s->nfds; i++) {
		struct pollfd *p = &s->fds[i];

		for (int k = 0; k < 3; k++) {
			if (!(p->events & want[k]) || !(p->revents & got[k]))
				continue;
			s->bits[k][p->fd / 64] |= 1ULL << (p->fd % 64);
			n++;
		}
	}
	return n;
}

static long select_user(struct task *t, const uint64_t *a, const struct timespec *deadline,
			bool nowait)
{
	struct select_sets s = {.user = {a[1], a[2], a[3]}};
	int n = (int)a[0];
	long ret;

	if (n < 0)
		return -EINVAL;
	/* As Linux, looks at no bits beyond the table. */
	s.n = MIN((unsigned int)n, t->files->size);
	s.words = (s.n + 63) / 64;
	ret = select_prepare(t, &s);
	if (!ret)
		ret = poll_wait(t, s.fds, s.nfds, deadline, nowait, true);
	if (ret >= 0) {
		ret = select_results(&s);
		for (int k = 0; k < 3; k++)
			if (s.user[k] && copy_out(t, s.user[k], s.bits[k], s.words * 8))
				ret = -EFAULT;
	}
	kfree(s.fds);
	kfree(s.bits[0]);
	return ret;
}

long sys_select(struct task *t, const uint64_t *a)
{
	struct timespec ts = {0}, until, left;
	struct timeval tv;
	long ret;

	if (a[4]) {
		if (copy_in(t, &tv, a[4], sizeof(tv)))
			return -EFAULT;
		if (tv.tv_sec < 0 || tv.tv_usec < 0)
			return -EINVAL;
		ts.tv_sec = tv.tv_sec + tv.tv_usec / 1000000;
		ts.tv_nsec = tv.tv_usec % 1000000 * 1000;
		task_deadline(t, &until, &ts);
	}
	ret = select_user(t, a, a[4] ? &until : NULL, a[4] && is_zero(&ts));
	if (!a[4])
		return ret;
	time_left(&until, &left);
	tv = (struct timeval){.tv_sec = left.tv_sec, .tv_usec = left.tv_nsec / 1000};
	if (copy_out(t, a[4], &tv, sizeof(tv)) && ret == -ERESTARTNOHAND)
		return -EINTR;
	return ret;
}

long sys_pselect6(struct task *t, const uint64_t *a)
{
	struct {
		uaddr_t set;
		uint64_t size;
	} sig = {0};
	struct timespec ts = {0}, until;
	uint64_t mask;
	long ret;

	if (a[5] && copy_in(t, &sig, a[5], sizeof(sig)))
		return -EFAULT;
	if (a[4]) {
		ret = user_timespec(t, a[4], &ts);
		if (ret)
			return ret;
		task_deadline(t, &until, &ts);
	}
	if (sig.set) {
		ret = user_sigset(t, sig.set, sig.size, &mask);
		if (ret)
			return ret;
		task_set_temp_mask(t, mask);
	}
	ret = select_user(t, a, a[4] ? &until : NULL, a[4] && is_zero(&ts));
	return a[4] ? finish_timespec(t, a[4], &until, ret) : ret;
}
