/* SPDX-License-Identifier: Apache-2.0 */
/* Signal actions and queues: the objects, and what they hold. */
#include "sentry/signal.h"

#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"

OBJTYPE(sighand_type, "sighand")

struct sighand *sighand_alloc(void)
{
	struct sighand *s = kzalloc(sizeof(*s));

	if (!s)
		return NULL;
	refcount_init(&s->refs, 1);
	mutex_init(&s->lock, LOCK_SIGHAND);
	objtype_inc(&sighand_type);
	return s;
}

struct sighand *sighand_copy(struct sighand *old)
{
	struct sighand *s = sighand_alloc();

	if (!s)
		return NULL;
	mutex_lock(&old->lock);
	memcpy(s->action, old->action, sizeof(s->action));
	mutex_unlock(&old->lock);
	return s;
}

struct sighand *sighand_get(struct sighand *s)
{
	refcount_get(&s->refs);
	return s;
}

void sighand_put(struct sighand *s)
{
	if (!s || !refcount_put(&s->refs))
		return;
	mutex_fini(&s->lock);
	kfree(s);
	objtype_dec(&sighand_type);
}

struct sighand *sighand_lock(struct thread_group *tg)
{
	for (;;) {
		struct sighand *s = __atomic_load_n(&tg->sighand, __ATOMIC_ACQUIRE);

		mutex_lock(&s->lock);
		if (s == __atomic_load_n(&tg->sighand, __ATOMIC_ACQUIRE))
			return s;
		mutex_unlock(&s->lock);
	}
}

void sigqueue_init(struct sigqueue_head *q)
{
	list_init(&q->list);
	q->set = 0;
	q->count = 0;
}

static void sigqueue_free(struct sigqueue_head *q, struct sigqueue *e)
{
	list_del(&e->node);
	q->count--;
	/* A POSIX timer's entry is the timer's own. */
	if (!e->timer)
		kfree(e);
}

void sigqueue_flush(struct sigqueue_head *q)
{
	while (!list_empty(&q->list))
		sigqueue_free(q, list_first_entry(&q->list, struct sigqueue, node));
	q->set = 0;
}

static void sigqueue_flush_mask(struct sigqueue_head *q, uint64_t mask)
{
	struct sigqueue *e, *tmp;

	if (!(q->set & mask))
		return;
	list_for_each_entry_safe (e, tmp, &q->list, node) {
		if (mask & SIGMASK(e->info.si_signo))
			sigqueue_free(q, e);
	}
	q->set &= ~mask;
}

void signal_flush_locked(struct thread_group *tg, uint64_t mask)
{
	struct task *t;

	sigqueue_flush_mask(&tg->shared_pending, mask);
	list_for_each_entry (t, &tg->threads, tg_node)
		sigqueue_flush_mask(&t->pending, mask);
}

/* Takes the oldest entry of @signo. A signal whose siginfo could not be queued has only its bit. */
static void sigqueue_take(struct sigqueue_head *q, int signo, siginfo_t *info)
{
	struct sigqueue *e, *found = NULL;
	bool more = false;

	list_for_each_entry (e, &q->list, node) {
		if (e->info.si_signo != signo)
			continue;
		if (found) {
			more = true;
			break;
		}
		found = e;
	}
	if (found) {
		*info = found->info;
		sigqueue_free(q, found);
	} else {
		memset(info, 0, sizeof(*info));
		info->si_signo = signo;
		info->si_code = SI_USER;
	}
	if (!more)
		q->set &= ~SIGMASK(signo);
}

static int next_signal(uint64_t set)
{
	uint64_t sync = set & SIG_SYNC_MASK;

	return __builtin_ctzll(sync ? sync : set) + 1;
}

int signal_dequeue_locked(struct task *t, uint64_t mask, siginfo_t *info)
{
	struct sigqueue_head *queues[] = {&t->pending, &t->tg->shared_pending};

	for (size_t i = 0; i < ARRAY_SIZE(queues); i++) {
		uint64_t set = queues[i]->set & mask;
		int signo;

		if (!set)
			continue;
		signo = next_signal(set);
		sigqueue_take(queues[i], signo, info);
		if (info->si_code == SI_TIMER)
			timers_signal_dequeued(t, info);
		return signo;
	}
	return 0;
}

bool signal_ignored_locked(struct task *t, int signo)
{
	uaddr_t h = t->tg->sighand->action[signo - 1].handler;

	if (t->blocked & SIGMASK(signo))
		return false;
	if (h == (uaddr_t)(uintptr_t)SIG_IGN)
		return true;
	return h == (uaddr_t)(uintptr_t)SIG_DFL &&
	       (signo == SIGCHLD || signo == SIGURG || signo == SIGWINCH || signo == SIGCONT);
}

uint64_t signal_pending_set(struct task *t)
{
	struct sighand *s = sighand_lock(t->tg);
	uint64_t set = (t->pending.set | t->tg->shared_pending.set) & t->blocked;

	mutex_unlock(&s->lock);
	return set;
}

/* Is there something for @t to do before it goes on? */
static bool has_work_locked(struct task *t)
{
	struct thread_group *tg = t->tg;

	return ((t->pending.set | tg->shared_pending.set) & ~t->blocked) || tg->group_exit ||
	       atomic_load(&t->killed) || tg->stop == STOP_PENDING || tg->stop == STOP_STOPPED;
}

bool signal_pending(struct task *t)
{
	struct sighand *s;
	bool work;

	if (!atomic_load(&t->sigpending_hint))
		return false;
	s = sighand_lock(t->tg);
	work = has_work_locked(t);
	atomic_store(&t->sigpending_hint, work);
	mutex_unlock(&s->lock);
	return work;
}

void signal_recalc_locked(struct task *t)
{
	bool work = has_work_locked(t);

	atomic_store(&t->sigpending_hint, work);
	if (!work)
		return;
	task_wake(t);
	if (atomic_load(&t->in_user) && t->ctx)
		t->kernel->platform->type->ctx_kick(t->ctx);
}

void signal_set_blocked(struct task *t, uint64_t mask)
{
	struct sighand *s = sighand_lock(t->tg);
	uint64_t newly = t->blocked;

	t->blocked = mask & ~SIG_UNBLOCKABLE;
	newly = t->blocked & ~newly;
	/* A group signal this thread now refuses may have another taker. */
	if (newly & t->tg->shared_pending.set) {
		struct task *other;

		list_for_each_entry (other, &t->tg->threads, tg_node) {
			if (other != t && (t->tg->shared_pending.set & newly & ~other->blocked))
				signal_recalc_locked(other);
		}
	}
	atomic_store(&t->sigpending_hint, has_work_locked(t));
	mutex_unlock(&s->lock);
}

void task_set_temp_mask(struct task *t, uint64_t mask)
{
	t->saved_mask = t->blocked;
	t->restore_mask = true;
	signal_set_blocked(t, mask);
}
