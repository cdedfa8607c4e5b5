/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timers of a process: setitimer(2)'s three and those of timer_create(2). All of them end in a
 * ktimer whose callback sends a signal.
 *
 *   disarmed ──set──▶ armed ──expiry──▶ signal queued ──taken from the queue──▶ armed again
 *   (interval)
 *                                       signal ignored ──▶ armed again at once
 *
 * A POSIX timer with an interval rests while its signal is queued; what passes meanwhile is its
 * overrun count, worked out when the signal is taken (timers_signal_dequeued). Whether it is queued
 * is read off the queue itself, so flushing a queue needs no word to us.
 *
 * Timers on CPU-time clocks are polled: the ktimer is set to when the clock could reach the expiry
 * at the earliest, given how many threads run, and looks again.
 *
 * Everything is in tg->posix_timers, made on first use. Locks: sighand->lock → pt->lock
 * (LOCK_OBJECT) → timer heap. Callbacks hold neither when they send; ktimer_cancel is called
 * without either.
 */
#include "sentry/timers.h"

#include <string.h>
#include <sys/time.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/radix.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"
#include "sentry/timespec.h"

#define CPU_POLL_MIN 1000000 /* ns between looks at a CPU-time clock */
#define IGNORED_MIN  1000000 /* ns between expiries nobody hears of */
#define ITIMER_MIN   50000   /* ns between SIGALRMs */
#define TIMERS_MAX   65536

/* What a CPU-time clock counts; 0: a clock that ktimer knows. */
enum cpu_kind { CPU_NONE, CPU_PROCESS, CPU_PROCESS_USER, CPU_THREAD };

struct itimer {
	struct ktimer timer;
	struct thread_group *tg;
	enum cpu_kind cpu;	/* const */
	int signo;		/* const */
	bool armed;		/* under pt->lock, like all below */
	int64_t next, interval; /* ns on CLOCK_MONOTONIC or of CPU time */
};

struct posix_timer {
	struct ktimer timer;
	struct thread_group *tg;
	int id;
	clockid_t clock;
	enum cpu_kind cpu;
	/*
	 * Threads by identity (references, or NULL): whom SIGEV_THREAD_ID means and whose clock
	 * CPU_THREAD is. A reference on the task would keep the process and so this timer.
	 */
	struct pid *target, *clock_thread;
	struct timer_event ev;
	bool armed; /* under pt->lock, like all below */
	bool rests; /* expired, its signal queued */
	int64_t next, interval;
	int last_overrun;
};

struct posix_timers {
	struct mutex lock;  /* LOCK_OBJECT */
	struct radix by_id; /* id + 1 */
	int next_id, count;
	struct itimer it[3];
};

static bool itimer_fire(struct ktimer *timer);
static bool ptimer_fire(struct ktimer *timer);

static struct posix_timers *timers_of(struct thread_group *tg)
{
	static const struct {
		enum cpu_kind cpu;
		int signo;
	} kinds[3] = {
		[ITIMER_REAL] = {CPU_NONE, SIGALRM},
		[ITIMER_VIRTUAL] = {CPU_PROCESS_USER, SIGVTALRM},
		[ITIMER_PROF] = {CPU_PROCESS, SIGPROF},
	};
	struct posix_timers *pt = __atomic_load_n(&tg->posix_timers, __ATOMIC_ACQUIRE), *old = NULL;

	if (pt)
		return pt;
	pt = kzalloc(sizeof(*pt));
	if (!pt)
		return NULL;
	mutex_init(&pt->lock, LOCK_OBJECT);
	for (int i = 0; i < 3; i++) {
		ktimer_init(&pt->it[i].timer, CLOCK_MONOTONIC, itimer_fire);
		pt->it[i].tg = tg;
		pt->it[i].cpu = kinds[i].cpu;
		pt->it[i].signo = kinds[i].signo;
	}
	if (__atomic_compare_exchange_n(&tg->posix_timers, &old, pt, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return pt;
	mutex_fini(&pt->lock);
	kfree(pt);
	return old;
}

/* ---- clocks ---- */

/* The live thread of @tg that @pid, which may be NULL, is: a reference, or NULL. */
static struct task *thread_of(struct thread_group *tg, struct pid *pid)
{
	struct task *t = NULL;

	if (!pid)
		return NULL;
	mutex_lock(&tg->kernel->tasklist);
	if (pid->task && pid->task->tg == tg && !pid->task->exiting)
		t = task_get(pid->task);
	mutex_unlock(&tg->kernel->tasklist);
	return t;
}

/* CPU time in ns, and how many threads could advance it. */
static int64_t cpu_now(struct thread_group *tg, enum cpu_kind kind, struct pid *thread,
		       unsigned int *nthreads)
{
	uint64_t user = 0, sys = 0, total;
	struct task *t;

	*nthreads = 1;
	if (kind == CPU_THREAD) {
		t = thread_of(tg, thread);
		if (t)
			task_times(t, &user, &sys);
		task_put(t);
		return (int64_t)(user + sys);
	}
	mutex_lock(&tg->kernel->tasklist);
	total = tg->utime_ns + (kind == CPU_PROCESS ? tg->stime_ns : 0);
	list_for_each_entry (t, &tg->threads, tg_node) {
		if (t->exiting)
			continue;
		task_times(t, &user, &sys);
		total += user + (kind == CPU_PROCESS ? sys : 0);
		++*nthreads;
	}
	mutex_unlock(&tg->kernel->tasklist);
	return (int64_t)total;
}

static int64_t clock_now(struct thread_group *tg, clockid_t clock, enum cpu_kind kind,
			 struct pid *thread, unsigned int *nthreads)
{
	struct timespec ts;

	if (kind != CPU_NONE)
		return cpu_now(tg, kind, thread, nthreads);
	clock_gettime(clock, &ts);
	return ts_ns(&ts);
}

/* Sets @timer to go off when the clock, which shows @now, can first have reached @next. */
static void timer_start(struct ktimer *timer, enum cpu_kind kind, int64_t next, int64_t now,
			unsigned int nthreads)
{
	struct timespec at;

	if (kind == CPU_NONE) {
		at = ts_from_ns(next);
	} else {
		int64_t wait = next > now ? (next - now) / nthreads : 0;
		struct timespec mono, d;

		d = ts_from_ns(MAX(wait, (int64_t)CPU_POLL_MIN));
		clock_gettime(CLOCK_MONOTONIC, &mono);
		at = ts_add(&mono, &d);
	}
	ktimer_arm(timer, &at);
}

static int64_t saturating_add(int64_t a, int64_t b)
{
	int64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

/* Moves *@next beyond @now by whole intervals; how many. */
static int64_t forward(int64_t *next, int64_t interval, int64_t now)
{
	int64_t n;

	if (interval <= 0 || now < *next)
		return 0;
	n = (now - *next) / interval + 1;
	*next = saturating_add(*next, n * interval);
	return n;
}

/* ---- interval timers ---- */

static bool itimer_fire(struct ktimer *timer)
{
	struct itimer *it = container_of(timer, struct itimer, timer);
	struct posix_timers *pt = it->tg->posix_timers;
	unsigned int nthreads = 1;
	int64_t now = clock_now(it->tg, CLOCK_MONOTONIC, it->cpu, NULL, &nthreads);
	bool due = false;

	mutex_lock(&pt->lock);
	if (it->armed) {
		due = now >= it->next;
		if (due && it->interval) {
			forward(&it->next, it->interval, now);
			it->next = MAX(it->next, now + ITIMER_MIN);
		} else if (due) {
			it->armed = false;
		}
		if (it->armed)
			timer_start(timer, it->cpu, it->next, now, nthreads);
	}
	mutex_unlock(&pt->lock);
	if (due) {
		siginfo_t info;

		memset(&info, 0, sizeof(info));
		info.si_signo = it->signo;
		info.si_code = SI_KERNEL;
		(void)!signal_send_group(it->tg, &info);
	}
	return false;
}

int itimer_exchange(struct thread_group *tg, int which, const struct itimer_value *new,
		    struct itimer_value *old)
{
	struct posix_timers *pt = timers_of(tg);
	unsigned int nthreads = 1;
	struct itimer *it;
	int64_t now;

	if (!pt)
		return -ENOMEM;
	it = &pt->it[which];
	if (new)
		ktimer_cancel(&it->timer);
	now = clock_now(tg, CLOCK_MONOTONIC, it->cpu, NULL, &nthreads);
	mutex_lock(&pt->lock);
	if (old) {
		old->interval = it->interval;
		old->value = it->armed ? MAX(it->next - now, (int64_t)1000) : 0;
	}
	if (new) {
		it->armed = new->value > 0;
		it->interval = new->interval;
		it->next = saturating_add(now, new->value);
		if (it->armed)
			timer_start(&it->timer, it->cpu, it->next, now, nthreads);
	}
	mutex_unlock(&pt->lock);
	return 0;
}

/* ---- POSIX timers ---- */

/* Is the timer's signal in its queue? Takes sighand->lock. */
static bool ptimer_queued(struct posix_timer *pt)
{
	struct task *t = thread_of(pt->tg, pt->target);
	struct sigqueue_head *q = t ? &t->pending : &pt->tg->shared_pending;
	struct sighand *s = sighand_lock(pt->tg);
	struct sigqueue *e;
	bool found = false;

	list_for_each_entry (e, &q->list, node) {
		if (e->info.si_code == SI_TIMER && e->info.si_timerid == pt->id &&
		    e->info.si_signo == pt->ev.signo)
			found = true;
	}
	mutex_unlock(&s->lock);
	task_put(t);
	return found;
}

static void ptimer_signal(struct posix_timer *pt)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_signo = pt->ev.signo;
	info.si_code = SI_TIMER;
	info.si_timerid = pt->id;
	info.si_value.sival_ptr = (void *)(uintptr_t)pt->ev.value;
	if (pt->target) {
		struct task *t = thread_of(pt->tg, pt->target);

		if (t)
			(void)!signal_send(t, &info, SIGNAL_THREAD);
		task_put(t);
	} else {
		(void)!signal_send_group(pt->tg, &info);
	}
}

static void ptimer_start_locked(struct posix_timer *pt, int64_t now, unsigned int nthreads)
{
	timer_start(&pt->timer, pt->cpu, pt->next, now, nthreads);
}

static bool ptimer_fire(struct ktimer *timer)
{
	struct posix_timer *p = container_of(timer, struct posix_timer, timer);
	struct posix_timers *pt = p->tg->posix_timers;
	bool silent = p->ev.notify == SIGEV_NONE;
	unsigned int nthreads = 1;
	int64_t now = clock_now(p->tg, p->clock, p->cpu, p->clock_thread, &nthreads);
	bool queued;

	mutex_lock(&pt->lock);
	if (!p->armed || p->rests) {
		mutex_unlock(&pt->lock);
		return false;
	}
	if (now < p->next) {
		ptimer_start_locked(p, now, nthreads);
		mutex_unlock(&pt->lock);
		return false;
	}
	/* Rests before the signal can be taken: that starts it again. */
	p->rests = true;
	mutex_unlock(&pt->lock);
	if (!silent && !ptimer_queued(p))
		ptimer_signal(p);
	queued = !silent && ptimer_queued(p);
	mutex_lock(&pt->lock);
	if (p->rests && !queued) {
		p->rests = false;
		if (p->interval) {
			forward(&p->next, p->interval, now);
			p->next = MAX(p->next, now + IGNORED_MIN);
			ptimer_start_locked(p, now, nthreads);
		} else {
			p->armed = false;
		}
	}
	mutex_unlock(&pt->lock);
	return false;
}

/* Ends a rest: counts what has passed and starts again. Lock held. */
static void ptimer_resume_locked(struct posix_timer *p, int64_t now, unsigned int nthreads)
{
	int64_t n = forward(&p->next, p->interval, now);

	p->rests = false;
	p->last_overrun = n > 1 ? (int)MIN(n - 1, (int64_t)INT32_MAX) : 0;
	if (p->interval)
		ptimer_start_locked(p, now, nthreads);
	else
		p->armed = false;
}

void timers_signal_dequeued(struct task *t, siginfo_t *info)
{
	struct posix_timers *pt = t->tg->posix_timers;
	struct posix_timer *p;
	unsigned int nthreads = 1;
	int64_t now;

	if (!pt || info->si_timerid < 0)
		return;
	mutex_lock(&pt->lock);
	p = (void *)(uintptr_t)radix_get(&pt->by_id, (uint64_t)info->si_timerid + 1);
	if (p && p->ev.signo == info->si_signo) {
		if (p->rests) {
			/*
			 * The CPU clocks need tasklist, which comes first: their overruns are lost.
			 */
			now = p->cpu == CPU_NONE
				      ? clock_now(p->tg, p->clock, CPU_NONE, NULL, &nthreads)
				      : p->next;
			ptimer_resume_locked(p, now, nthreads);
		}
		info->si_overrun = p->last_overrun;
	}
	mutex_unlock(&pt->lock);
}

/* The identity of a thread of the caller's process: a reference, or NULL. */
static struct pid *thread_pid(struct task *t, pid_t nr)
{
	struct task *other = task_find(t->kernel, task_pid_ns(t), nr);
	struct pid *pid = other && other->tg == t->tg ? pid_get(other->pid) : NULL;

	task_put(other);
	return pid;
}

static int cpu_kind_of(struct task *t, clockid_t clock, enum cpu_kind *kind, struct pid **thread)
{
	struct timespec now;

	*kind = CPU_NONE;
	*thread = NULL;
	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_MONOTONIC:
	case CLOCK_BOOTTIME:
	case CLOCK_TAI:
		return 0;
	case CLOCK_REALTIME_ALARM:
	case CLOCK_BOOTTIME_ALARM:
		return task_capable(t, CAP_WAKE_ALARM) ? 0 : -EPERM;
	case CLOCK_PROCESS_CPUTIME_ID:
		*kind = CPU_PROCESS;
		return 0;
	case CLOCK_THREAD_CPUTIME_ID:
		*kind = CPU_THREAD;
		*thread = pid_get(t->pid);
		return 0;
	}
	if (clock >= 0)
		return task_clock_gettime(t, clock, &now) ? -EINVAL : -EOPNOTSUPP;
	if (task_clock_gettime(t, clock, &now))
		return -EINVAL;
	/* clock_getcpuclockid(3) of the caller's own process or one of its threads. */
	if (clock & 4) {
		pid_t nr = (pid_t) ~((unsigned int)clock >> 3 | 0xe0000000u);

		*kind = CPU_THREAD;
		*thread = nr ? thread_pid(t, nr) : pid_get(t->pid);
		return *thread ? 0 : -EINVAL;
	}
	*kind = (clock & 3) == 1 ? CPU_PROCESS_USER : CPU_PROCESS;
	return 0;
}

static int timer_target(struct task *t, const struct timer_event *ev, struct pid **target)
{
	if (ev->notify == SIGEV_NONE)
		return 0;
	if (ev->notify != SIGEV_SIGNAL && ev->notify != SIGEV_THREAD &&
	    ev->notify != SIGEV_THREAD_ID)
		return -EINVAL;
	if (ev->signo <= 0 || ev->signo > NSIGS)
		return -EINVAL;
	if (ev->notify == SIGEV_THREAD_ID) {
		*target = thread_pid(t, ev->tid);
		if (!*target)
			return -EINVAL;
	}
	return 0;
}

static void ptimer_free(struct posix_timer *p)
{
	ktimer_cancel(&p->timer);
	pid_put(p->target);
	pid_put(p->clock_thread);
	kfree(p);
}

int ptimer_create(struct task *t, clockid_t clock, const struct timer_event *ev)
{
	struct posix_timers *pt = timers_of(t->tg);
	struct posix_timer *p = kzalloc(sizeof(*p));
	int err = -ENOMEM;

	if (!pt || !p) {
		kfree(p);
		return -ENOMEM;
	}
	ktimer_init(&p->timer, CLOCK_MONOTONIC, ptimer_fire);
	err = cpu_kind_of(t, clock, &p->cpu, &p->clock_thread);
	if (!err)
		err = timer_target(t, ev, &p->target);
	if (err)
		goto out_free;
	if (p->cpu == CPU_NONE) {
		p->clock = clock == CLOCK_REALTIME_ALARM   ? CLOCK_REALTIME
			   : clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME
							   : clock;
		p->timer.clock = p->clock;
	}
	p->tg = t->tg;
	p->ev = *ev;
	mutex_lock(&pt->lock);
	err = -EAGAIN;
	if (pt->count < TIMERS_MAX) {
		while (radix_get(&pt->by_id, (uint64_t)pt->next_id + 1))
			pt->next_id = (pt->next_id + 1) & INT32_MAX;
		p->id = pt->next_id;
		pt->next_id = (pt->next_id + 1) & INT32_MAX;
		/* The default value is the ID. */
		if (ev->value_is_id)
			p->ev.value = (uint64_t)p->id;
		err = radix_set(&pt->by_id, (uint64_t)p->id + 1, (uint64_t)(uintptr_t)p);
	}
	if (!err)
		pt->count++;
	mutex_unlock(&pt->lock);
	if (!err)
		return p->id;
out_free:
	ptimer_free(p);
	return err;
}

/* pt->lock held. */
static struct posix_timer *ptimer_find(struct posix_timers *pt, int id)
{
	return id < 0 ? NULL : (void *)(uintptr_t)radix_get(&pt->by_id, (uint64_t)id + 1);
}

static void ptimer_report_locked(struct posix_timer *p, int64_t now, struct itimerspec *cur)
{
	int64_t next = p->next;

	memset(cur, 0, sizeof(*cur));
	cur->it_interval = ts_from_ns(p->interval);
	if (!p->armed)
		return;
	if (p->rests) {
		if (!p->interval)
			return;
		forward(&next, p->interval, now);
	}
	cur->it_value = ts_from_ns(MAX(next - now, (int64_t)1));
}

/*
 * What the CPU clock of timer @id shows has to be known before pt->lock is taken; the timer's kind
 * never changes. Only this process's threads delete its timers: the kind is copied out under the
 * lock.
 */
static int ptimer_now(struct posix_timers *pt, int id, int64_t *now, unsigned int *nthreads)
{
	struct posix_timer *p, copy;

	mutex_lock(&pt->lock);
	p = ptimer_find(pt, id);
	if (p) {
		copy = *p;
		if (copy.clock_thread)
			pid_get(copy.clock_thread);
	}
	mutex_unlock(&pt->lock);
	if (!p)
		return -EINVAL;
	*nthreads = 1;
	*now = clock_now(copy.tg, copy.clock, copy.cpu, copy.clock_thread, nthreads);
	pid_put(copy.clock_thread);
	return 0;
}

int ptimer_set(struct task *t, int id, bool abs, const struct itimerspec *new,
	       struct itimerspec *old)
{
	struct posix_timers *pt = t->tg->posix_timers;
	struct posix_timer *p;
	unsigned int nthreads;
	int64_t now;
	int err = pt ? ptimer_now(pt, id, &now, &nthreads) : -EINVAL;

	if (err)
		return err;
	mutex_lock(&pt->lock);
	p = ptimer_find(pt, id);
	if (!p) {
		mutex_unlock(&pt->lock);
		return -EINVAL;
	}
	if (old)
		ptimer_report_locked(p, now, old);
	p->armed = !ts_is_zero(&new->it_value);
	p->rests = false;
	p->last_overrun = 0;
	p->interval = ts_ns(&new->it_interval);
	p->next = abs ? ts_ns(&new->it_value) : saturating_add(now, ts_ns(&new->it_value));
	/* A callback that is under way sees the new expiry and leaves it alone. */
	if (p->armed)
		ptimer_start_locked(p, now, nthreads);
	mutex_unlock(&pt->lock);
	return 0;
}

int ptimer_get(struct task *t, int id, struct itimerspec *cur)
{
	struct posix_timers *pt = t->tg->posix_timers;
	struct posix_timer *p;
	unsigned int nthreads;
	int64_t now;
	int err = pt ? ptimer_now(pt, id, &now, &nthreads) : -EINVAL;

	if (err)
		return err;
	mutex_lock(&pt->lock);
	p = ptimer_find(pt, id);
	if (p)
		ptimer_report_locked(p, now, cur);
	mutex_unlock(&pt->lock);
	return p ? 0 : -EINVAL;
}

int ptimer_overrun(struct task *t, int id)
{
	struct posix_timers *pt = t->tg->posix_timers;
	struct posix_timer *p;
	int ret = -EINVAL;

	if (!pt)
		return -EINVAL;
	mutex_lock(&pt->lock);
	p = ptimer_find(pt, id);
	if (p)
		ret = p->last_overrun;
	mutex_unlock(&pt->lock);
	return ret;
}

int ptimer_delete(struct task *t, int id)
{
	struct posix_timers *pt = t->tg->posix_timers;
	struct posix_timer *p;

	if (!pt)
		return -EINVAL;
	mutex_lock(&pt->lock);
	p = ptimer_find(pt, id);
	if (p) {
		(void)!radix_set(&pt->by_id, (uint64_t)id + 1, 0);
		p->armed = false;
		pt->count--;
	}
	mutex_unlock(&pt->lock);
	if (!p)
		return -EINVAL;
	ptimer_free(p);
	return 0;
}

/* ---- the process's life ---- */

static void delete_all(struct posix_timers *pt)
{
	for (;;) {
		uint64_t index = 0, value;
		struct posix_timer *p = NULL;

		mutex_lock(&pt->lock);
		if (radix_next(&pt->by_id, &index, &value)) {
			p = (void *)(uintptr_t)value;
			p->armed = false;
			(void)!radix_set(&pt->by_id, index, 0);
			pt->count--;
		}
		mutex_unlock(&pt->lock);
		if (!p)
			return;
		ptimer_free(p);
	}
}

/* Interval timers stay across execve(2), POSIX timers don't. */
void timers_exec(struct thread_group *tg)
{
	if (tg->posix_timers)
		delete_all(tg->posix_timers);
}

void timers_exit(struct thread_group *tg)
{
	struct posix_timers *pt = tg->posix_timers;

	if (!pt)
		return;
	delete_all(pt);
	for (int i = 0; i < 3; i++)
		ktimer_cancel(&pt->it[i].timer);
	radix_fini(&pt->by_id);
	mutex_fini(&pt->lock);
	tg->posix_timers = NULL;
	kfree(pt);
}
