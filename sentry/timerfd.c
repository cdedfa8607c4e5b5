/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timerfd_create(2). An expiry stops the timer; reading (or asking) works out how many intervals
 * have passed since and starts it again, so a short interval costs nothing while nobody reads.
 *
 * Differs from Linux: TFD_TIMER_CANCEL_ON_SET never cancels, as nothing in here can set the clock.
 */
#include <stdio.h>
#include <sys/timerfd.h>

#include "sentry/eventfd.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/timespec.h"

struct timerfd {
	struct ktimer timer;
	struct mutex lock; /* LOCK_OBJECT: all below */
	uint64_t ticks;
	bool expired; /* stopped by an expiry; an interval goes on at the next read */
	bool armed;
	struct timespec next, interval;
	struct waitq wq;
	int clock; /* const */
};

static const struct file_ops timerfd_ops;

static bool timerfd_fire(struct ktimer *timer)
{
	struct timerfd *tf = container_of(timer, struct timerfd, timer);
	struct timespec now;

	mutex_lock(&tf->lock);
	clock_gettime(tf->clock, &now);
	/* Unless it was set anew in this moment. */
	if (tf->armed && !tf->expired && !ts_before(&now, &tf->next)) {
		tf->ticks++;
		tf->expired = true;
	}
	mutex_unlock(&tf->lock);
	waitq_wake(&tf->wq, EPOLLIN | EPOLLRDNORM);
	return false;
}

/* Catches up with the intervals that have passed since the expiry and starts again. Lock held. */
static void timerfd_forward_locked(struct timerfd *tf)
{
	struct timespec now;
	uint64_t n;

	if (!tf->expired || ts_is_zero(&tf->interval))
		return;
	clock_gettime(tf->clock, &now);
	n = ts_forward(&tf->next, &tf->interval, &now);
	tf->ticks += n ? n - 1 : 0;
	tf->expired = false;
	ktimer_arm(&tf->timer, &tf->next);
}

static ssize_t timerfd_read(struct kiocb *io, struct iov_iter *to)
{
	struct timerfd *tf = io->file->private;
	uint64_t ticks;

	if (to->count < sizeof(ticks))
		return -EINVAL;
	mutex_lock(&tf->lock);
	if (!tf->ticks) {
		mutex_unlock(&tf->lock);
		return -EAGAIN;
	}
	timerfd_forward_locked(tf);
	if (tf->expired && ts_is_zero(&tf->interval))
		tf->expired = tf->armed = false;
	ticks = tf->ticks;
	tf->ticks = 0;
	mutex_unlock(&tf->lock);
	return iov_copy_to(to, &ticks, sizeof(ticks)) == sizeof(ticks) ? (ssize_t)sizeof(ticks)
								       : -EFAULT;
}

static uint32_t timerfd_poll(struct file *file)
{
	struct timerfd *tf = file->private;
	bool ready;

	mutex_lock(&tf->lock);
	ready = tf->ticks;
	mutex_unlock(&tf->lock);
	return ready ? EPOLLIN | EPOLLRDNORM : 0;
}

static struct waitq *timerfd_pollq(struct file *file)
{
	return &((struct timerfd *)file->private)->wq;
}

static void timerfd_free(struct timerfd *tf)
{
	ktimer_cancel(&tf->timer);
	waitq_fini(&tf->wq);
	mutex_fini(&tf->lock);
	kfree(tf);
}

static void timerfd_release(struct file *file)
{
	timerfd_free(file->private);
}

/* What timerfd_gettime reports. Lock held. */
static void timerfd_current_locked(struct timerfd *tf, struct itimerspec *cur)
{
	struct timespec now;

	timerfd_forward_locked(tf);
	cur->it_interval = tf->interval;
	cur->it_value = (struct timespec){0};
	if (tf->armed && !tf->expired) {
		clock_gettime(tf->clock, &now);
		cur->it_value = ts_left(&tf->next, &now);
	}
}

void timerfd_get(struct file *file, struct itimerspec *cur)
{
	struct timerfd *tf = file->private;

	mutex_lock(&tf->lock);
	timerfd_current_locked(tf, cur);
	mutex_unlock(&tf->lock);
}

void timerfd_set(struct file *file, bool abs, const struct itimerspec *new, struct itimerspec *old)
{
	struct timerfd *tf = file->private;
	struct itimerspec cur;
	struct timespec next, now;
	bool arm = !ts_is_zero(&new->it_value);

	ktimer_cancel(&tf->timer);
	clock_gettime(tf->clock, &now);
	next = abs ? new->it_value : ts_add(&now, &new->it_value);
	mutex_lock(&tf->lock);
	timerfd_current_locked(tf, &cur);
	tf->armed = arm;
	tf->expired = false;
	tf->ticks = 0;
	tf->next = next;
	tf->interval = new->it_interval;
	if (arm)
		ktimer_arm(&tf->timer, &next);
	mutex_unlock(&tf->lock);
	if (old)
		*old = cur;
}

static char *timerfd_show_fdinfo(struct file *file)
{
	struct timerfd *tf = file->private;
	struct itimerspec cur;
	char *text = kmalloc(256);

	if (!text)
		return NULL;
	timerfd_get(file, &cur);
	mutex_lock(&tf->lock);
	snprintf(text, 256,
		 "clockid: %d\nticks: %lu\nsettime flags: 00\nit_value: (%ld, %ld)\n"
		 "it_interval: (%ld, %ld)\n",
		 tf->clock, (unsigned long)tf->ticks, (long)cur.it_value.tv_sec,
		 cur.it_value.tv_nsec, (long)cur.it_interval.tv_sec, cur.it_interval.tv_nsec);
	mutex_unlock(&tf->lock);
	return text;
}

static const struct file_ops timerfd_ops = {
	.read = timerfd_read,
	.poll = timerfd_poll,
	.pollq = timerfd_pollq,
	.release = timerfd_release,
	.show_fdinfo = timerfd_show_fdinfo,
};

bool file_is_timerfd(const struct file *file)
{
	return file->ops == &timerfd_ops;
}

struct file *timerfd_create_file(struct task *t, int clock, unsigned int flags)
{
	struct timerfd *tf = kzalloc(sizeof(*tf));
	struct file *file;

	if (!tf)
		return ERR_PTR(-ENOMEM);
	if (clock == CLOCK_REALTIME_ALARM)
		clock = CLOCK_REALTIME;
	if (clock == CLOCK_BOOTTIME_ALARM)
		clock = CLOCK_BOOTTIME;
	tf->clock = clock;
	ktimer_init(&tf->timer, clock, timerfd_fire);
	mutex_init(&tf->lock, LOCK_OBJECT);
	waitq_init(&tf->wq);
	file = file_alloc_anon("anon_inode:[timerfd]", 0600, &timerfd_ops, tf, O_RDWR | flags,
			       t->vfs.cred);
	if (IS_ERR(file))
		timerfd_free(tf);
	return file;
}
