/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Futexes: buckets of waiters by the word's identity (mm_futex_key). Linux compares the word under
 * the bucket lock; here a waiter queues itself first and reads the word afterwards, so that no lock
 * is held across a read that may fault (futex_wait).
 *
 * Source: futex(2), get_robust_list(2); Linux kernel/futex for the order of checks.
 */
#include "sentry/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>

#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"

#define FUTEX_BUCKETS	  256
#define ROBUST_LIST_LIMIT 2048

struct futex_waiter {
	struct list_head node; /* in the bucket; under its lock */
	struct task *t;
	struct futex_key key;
	uint32_t bitset;
	_Atomic bool woken;	     /* set under the bucket lock when taken off */
	struct futex_bucket *bucket; /* changes by requeue, under both bucket locks */
};

struct futex_bucket {
	struct mutex lock; /* LOCK_FUTEX; two by address */
	struct list_head waiters;
};

static struct futex_bucket buckets[FUTEX_BUCKETS];

void futex_init(void)
{
	for (size_t i = 0; i < FUTEX_BUCKETS; i++) {
		mutex_init(&buckets[i].lock, LOCK_FUTEX);
		list_init(&buckets[i].waiters);
	}
}

static struct futex_bucket *bucket_of(const struct futex_key *key)
{
	uint64_t h = (key->object ^ (key->offset >> 2)) * 0x9e3779b97f4a7c15ULL;

	return &buckets[(h >> 40) % FUTEX_BUCKETS];
}

static bool key_equal(const struct futex_key *a, const struct futex_key *b)
{
	return a->object == b->object && a->offset == b->offset && a->shared == b->shared;
}

static void lock_two(struct futex_bucket *a, struct futex_bucket *b)
{
	if (a == b) {
		mutex_lock(&a->lock);
	} else {
		mutex_lock(a < b ? &a->lock : &b->lock);
		mutex_lock_nested(a < b ? &b->lock : &a->lock);
	}
}

static void unlock_two(struct futex_bucket *a, struct futex_bucket *b)
{
	mutex_unlock(&a->lock);
	if (a != b)
		mutex_unlock(&b->lock);
}

static void wake_one_locked(struct futex_waiter *w)
{
	/*
	 * The waiter leaves through unqueue, which takes this bucket's lock: @w stays until then.
	 */
	list_del(&w->node);
	atomic_store(&w->woken, true);
	task_wake(w->t);
}

static long wake_locked(struct futex_bucket *b, const struct futex_key *key, int n, uint32_t bitset)
{
	struct futex_waiter *w, *tmp;
	long woken = 0;

	list_for_each_entry_safe (w, tmp, &b->waiters, node) {
		if (woken >= n)
			break;
		if (!key_equal(&w->key, key) || !(w->bitset & bitset))
			continue;
		wake_one_locked(w);
		woken++;
	}
	return woken;
}

static long futex_wake(struct task *t, uaddr_t addr, bool shared, int n, uint32_t bitset)
{
	struct futex_key key;
	struct futex_bucket *b;
	long ret;

	if (!bitset)
		return -EINVAL;
	ret = mm_futex_key(t->mm, addr, shared, false, &key);
	if (ret)
		return ret;
	b = bucket_of(&key);
	mutex_lock(&b->lock);
	ret = wake_locked(b, &key, n, bitset);
	mutex_unlock(&b->lock);
	mm_futex_key_put(&key);
	return ret;
}

int futex_wake_addr(struct task *t, uaddr_t addr, bool shared, int n)
{
	/* CLEARTID wakes whoever waits, private or shared. */
	long a = futex_wake(t, addr, false, n, FUTEX_BITSET_MATCH_ANY);
	long b = shared ? futex_wake(t, addr, true, n, FUTEX_BITSET_MATCH_ANY) : 0;

	return (int)(MAX(a, 0L) + MAX(b, 0L));
}

/* Takes @w off whatever bucket it is on now. Returns true if it had been woken. */
static bool unqueue(struct futex_waiter *w)
{
	for (;;) {
		struct futex_bucket *b = __atomic_load_n(&w->bucket, __ATOMIC_ACQUIRE);

		mutex_lock(&b->lock);
		if (b == __atomic_load_n(&w->bucket, __ATOMIC_ACQUIRE)) {
			bool woken = atomic_load(&w->woken);

			if (!woken)
				list_del(&w->node);
			mutex_unlock(&b->lock);
			return woken;
		}
		mutex_unlock(&b->lock);
	}
}

static long futex_wait_restart(struct task *t, struct restart_block *rb);

/*
 * The waiter queues itself first and reads the word afterwards. A waker that changes the word and
 * then looks for waiters finds it queued, or the waiter sees the new value: no wake-up is lost, and
 * no lock is held across the read.
 */
static long futex_wait(struct task *t, uaddr_t addr, bool shared, uint32_t expect, uint32_t bitset,
		       int clock, const struct timespec *deadline)
{
	struct futex_waiter w = {.t = t, .bitset = bitset};
	uint32_t value;
	long ret;

	if (!bitset)
		return -EINVAL;
	ret = mm_futex_key(t->mm, addr, shared, false, &w.key);
	if (ret)
		return ret;
	w.bucket = bucket_of(&w.key);
	task_block_prepare(t);
	mutex_lock(&w.bucket->lock);
	list_add_tail(&w.node, &w.bucket->waiters);
	mutex_unlock(&w.bucket->lock);

	ret = mm_load32(t->mm, addr, &value);
	if (!ret && value != expect)
		ret = -EAGAIN;
	if (ret) {
		/* Woken in between: the wake-up has been counted, so report it. */
		if (unqueue(&w) && ret == -EAGAIN)
			ret = 0;
		goto out_key;
	}
	for (;;) {
		if (atomic_load(&w.woken))
			break;
		ret = task_block(t, clock, deadline);
		if (ret || atomic_load(&w.woken))
			break;
		task_block_prepare(t);
	}
	if (unqueue(&w))
		ret = 0;
out_key:
	mm_futex_key_put(&w.key);
	if (ret == -ERESTARTSYS && deadline) {
		t->restart.fn = futex_wait_restart;
		t->restart.arg[0] = addr;
		t->restart.arg[1] = expect;
		t->restart.arg[2] = bitset;
		t->restart.arg[3] = shared;
		t->restart.clock = clock;
		t->restart.until = *deadline;
		return -ERESTART_RESTARTBLOCK;
	}
	return ret;
}

static long futex_wait_restart(struct task *t, struct restart_block *rb)
{
	struct timespec until = rb->until;

	return futex_wait(t, rb->arg[0], rb->arg[3], (uint32_t)rb->arg[1], (uint32_t)rb->arg[2],
			  rb->clock, &until);
}

static long futex_requeue(struct task *t, uaddr_t addr, bool shared, int n_wake, int n_requeue,
			  uaddr_t addr2, const uint32_t *expect)
{
	struct futex_key from, to;
	struct futex_bucket *bf, *bt;
	struct futex_waiter *w, *tmp;
	uint32_t value;
	long ret, requeued = 0;

	if (n_wake < 0 || n_requeue < 0)
		return -EINVAL;
	ret = mm_futex_key(t->mm, addr, shared, false, &from);
	if (ret)
		return ret;
	ret = mm_futex_key(t->mm, addr2, shared, false, &to);
	if (ret)
		goto out_from;
	if (expect) {
		ret = mm_load32(t->mm, addr, &value);
		if (!ret && value != *expect)
			ret = -EAGAIN;
		if (ret)
			goto out_to;
	}
	bf = bucket_of(&from);
	bt = bucket_of(&to);
	lock_two(bf, bt);
	ret = wake_locked(bf, &from, n_wake, FUTEX_BITSET_MATCH_ANY);
	list_for_each_entry_safe (w, tmp, &bf->waiters, node) {
		if (requeued >= n_requeue)
			break;
		if (!key_equal(&w->key, &from))
			continue;
		w->key.object = to.object;
		w->key.offset = to.offset;
		w->key.shared = to.shared;
		__atomic_store_n(&w->bucket, bt, __ATOMIC_RELEASE);
		list_move_tail(&w->node, &bt->waiters);
		requeued++;
	}
	unlock_two(bf, bt);
	ret += requeued;
out_to:
	mm_futex_key_put(&to);
out_from:
	mm_futex_key_put(&from);
	return ret;
}

/* FUTEX_WAKE_OP's operation on the second word. Returns whether the comparison held, or -errno. */
static long wake_op(struct task *t, uaddr_t addr, uint32_t op)
{
	uint32_t cmp = (op >> 24) & 15, kind = (op >> 28) & 7, old, seen;
	int32_t oparg = (int32_t)(op << 8) >> 20, cmparg = (int32_t)(op << 20) >> 20;
	long err;

	if (op >> 28 & FUTEX_OP_OPARG_SHIFT)
		oparg = 1 << (oparg & 31);
	err = mm_load32(t->mm, addr, &old);
	if (err)
		return err;
	for (;;) {
		uint32_t next = old;

		switch (kind) {
		case FUTEX_OP_SET:
			next = (uint32_t)oparg;
			break;
		case FUTEX_OP_ADD:
			next = old + (uint32_t)oparg;
			break;
		case FUTEX_OP_OR:
			next = old | (uint32_t)oparg;
			break;
		case FUTEX_OP_ANDN:
			next = old & ~(uint32_t)oparg;
			break;
		case FUTEX_OP_XOR:
			next = old ^ (uint32_t)oparg;
			break;
		default:
			return -ENOSYS;
		}
		err = mm_cmpxchg32(t->mm, addr, old, next, &seen);
		if (err)
			return err;
		if (seen == old)
			break;
		old = seen;
	}
	switch (cmp) {
	case FUTEX_OP_CMP_EQ:
		return (int32_t)old == cmparg;
	case FUTEX_OP_CMP_NE:
		return (int32_t)old != cmparg;
	case FUTEX_OP_CMP_LT:
		return (int32_t)old < cmparg;
	case FUTEX_OP_CMP_LE:
		return (int32_t)old <= cmparg;
	case FUTEX_OP_CMP_GT:
		return (int32_t)old > cmparg;
	case FUTEX_OP_CMP_GE:
		return (int32_t)old >= cmparg;
	default:
		return -ENOSYS;
	}
}

static long futex_wake_op(struct task *t, uaddr_t addr, bool shared, int n1, int n2, uaddr_t addr2,
			  uint32_t op)
{
	long held = wake_op(t, addr2, op), ret;

	if (held < 0)
		return held;
	ret = futex_wake(t, addr, shared, n1, FUTEX_BITSET_MATCH_ANY);
	if (ret >= 0 && held) {
		long more = futex_wake(t, addr2, shared, n2, FUTEX_BITSET_MATCH_ANY);

		ret = more < 0 ? more : ret + more;
	}
	return ret;
}

/*
 * Priority-inheritance futexes without the inheritance: tasks have no priorities here. The protocol
 * on the word (owner's TID, FUTEX_WAITERS) is the ABI and is kept.
 */
static long futex_lock_pi(struct task *t, uaddr_t addr, bool shared, int clock,
			  const struct timespec *deadline, bool try_only)
{
	uint32_t tid = (uint32_t)task_tid_nr(t, task_pid_ns(t)), value, seen;
	long err;

	for (;;) {
		err = mm_load32(t->mm, addr, &value);
		if (err)
			return err;
		if ((value & FUTEX_TID_MASK) == tid)
			return -EDEADLK;
		if (!(value & FUTEX_TID_MASK)) {
			uint32_t keep = value & (FUTEX_WAITERS | FUTEX_OWNER_DIED);

			err = mm_cmpxchg32(t->mm, addr, value, tid | keep, &seen);
			if (err)
				return err;
			if (seen == value)
				return 0;
			continue;
		}
		if (try_only)
			return -EAGAIN;
		if (!(value & FUTEX_WAITERS)) {
			err = mm_cmpxchg32(t->mm, addr, value, value | FUTEX_WAITERS, &seen);
			if (err)
				return err;
			if (seen != value)
				continue;
			value |= FUTEX_WAITERS;
		}
		err = futex_wait(t, addr, shared, value, FUTEX_BITSET_MATCH_ANY, clock, deadline);
		if (err == -ERESTART_RESTARTBLOCK || err == -ERESTARTSYS)
			return -ERESTARTNOINTR;
		if (err && err != -EAGAIN)
			return err;
	}
}

static long futex_unlock_pi(struct task *t, uaddr_t addr, bool shared)
{
	uint32_t tid = (uint32_t)task_tid_nr(t, task_pid_ns(t)), value, seen;
	long err = mm_load32(t->mm, addr, &value);

	for (;;) {
		if (err)
			return err;
		if ((value & FUTEX_TID_MASK) != tid)
			return -EPERM;
		err = mm_cmpxchg32(t->mm, addr, value, value & FUTEX_WAITERS, &seen);
		if (!err && seen == value)
			break;
		value = seen;
	}
	err = futex_wake(t, addr, shared, 1, FUTEX_BITSET_MATCH_ANY);
	return err < 0 ? err : 0;
}

/* ---- robust lists ---- */

/* The owner of a robust mutex died: mark the word and wake one waiter. Returns false on a fault. */
static bool robust_mark(struct task *t, uaddr_t addr, bool pending)
{
	uint32_t tid = (uint32_t)task_tid_nr(t, task_pid_ns(t)), value, seen;

	if (addr & 3 || mm_load32(t->mm, addr, &value))
		return false;
	for (;;) {
		if (pending && !value) {
			futex_wake_addr(t, addr, true, 1);
			return true;
		}
		if ((value & FUTEX_TID_MASK) != tid)
			return true;
		if (mm_cmpxchg32(t->mm, addr, value, (value & FUTEX_WAITERS) | FUTEX_OWNER_DIED,
				 &seen))
			return false;
		if (seen == value)
			break;
		value = seen;
	}
	if (value & FUTEX_WAITERS)
		futex_wake_addr(t, addr, true, 1);
	return true;
}

void futex_exit_robust(struct task *t)
{
	struct {
		uint64_t next;
		int64_t offset;
		uint64_t pending;
	} head;
	uaddr_t entry, next;

	if (!t->robust.head || copy_in(t, &head, t->robust.head, sizeof(head)))
		return;
	entry = head.next & ~1UL;
	for (int i = 0; i < ROBUST_LIST_LIMIT && entry != t->robust.head; i++) {
		bool last = copy_in(t, &next, entry, sizeof(next));

		if (entry != (head.pending & ~1UL) &&
		    !robust_mark(t, entry + (uint64_t)head.offset, false))
			break;
		if (last)
			break;
		entry = next & ~1UL;
	}
	if (head.pending)
		robust_mark(t, (head.pending & ~1UL) + (uint64_t)head.offset, true);
	t->robust.head = 0;
}

/* ---- the system call ---- */

/* The absolute deadline of a futex operation. WAIT's is relative, the others' absolute. */
static int get_deadline(struct task *t, uaddr_t addr, int cmd, int op, struct timespec *ts,
			int *clock)
{
	struct timespec given;
	int err = user_timespec(t, addr, &given);

	if (err)
		return err;
	*clock = op & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	if (cmd == FUTEX_LOCK_PI)
		*clock = CLOCK_REALTIME;
	if (cmd == FUTEX_WAIT) {
		*clock = CLOCK_MONOTONIC;
		deadline_after(ts, &given);
	} else {
		*ts = given;
	}
	return 0;
}

long sys_futex(struct task *t, const uint64_t *a)
{
	uaddr_t addr = a[0], addr2 = a[4];
	int op = (int)a[1], cmd = op & FUTEX_CMD_MASK, clock = CLOCK_MONOTONIC;
	uint32_t val = (uint32_t)a[2], val3 = (uint32_t)a[5];
	bool shared = !(op & FUTEX_PRIVATE_FLAG);
	struct timespec ts, *deadline = NULL;
	int err;

	if ((op & FUTEX_CLOCK_REALTIME) && cmd != FUTEX_WAIT && cmd != FUTEX_WAIT_BITSET &&
	    cmd != FUTEX_LOCK_PI2)
		return -ENOSYS;
	if (a[3] && (cmd == FUTEX_WAIT || cmd == FUTEX_WAIT_BITSET || cmd == FUTEX_LOCK_PI ||
		     cmd == FUTEX_LOCK_PI2)) {
		err = get_deadline(t, a[3], cmd, op, &ts, &clock);
		if (err)
			return err;
		deadline = &ts;
	}
	if (addr & 3)
		return -EINVAL;
	switch (cmd) {
	case FUTEX_WAIT:
		return futex_wait(t, addr, shared, val, FUTEX_BITSET_MATCH_ANY, clock, deadline);
	case FUTEX_WAIT_BITSET:
		return futex_wait(t, addr, shared, val, val3, clock, deadline);
	case FUTEX_WAKE:
		return futex_wake(t, addr, shared, MAX((int)val, 1), FUTEX_BITSET_MATCH_ANY);
	case FUTEX_WAKE_BITSET:
		return futex_wake(t, addr, shared, MAX((int)val, 1), val3);
	case FUTEX_REQUEUE:
		return futex_requeue(t, addr, shared, (int)val, (int)a[3], addr2, NULL);
	case FUTEX_CMP_REQUEUE:
		return futex_requeue(t, addr, shared, (int)val, (int)a[3], addr2, &val3);
	case FUTEX_WAKE_OP:
		return futex_wake_op(t, addr, shared, (int)val, (int)a[3], addr2, val3);
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2:
		return futex_lock_pi(t, addr, shared, clock, deadline, false);
	case FUTEX_TRYLOCK_PI:
		return futex_lock_pi(t, addr, shared, clock, NULL, true);
	case FUTEX_UNLOCK_PI:
		return futex_unlock_pi(t, addr, shared);
	default:
		return -ENOSYS;
	}
}

long sys_set_robust_list(struct task *t, const uint64_t *a)
{
	if (a[1] != 24)
		return -EINVAL;
	t->robust.head = a[0];
	t->robust.len = a[1];
	return 0;
}

long sys_get_robust_list(struct task *t, const uint64_t *a)
{
	struct task *other = t;
	uint64_t head, len;
	int ret = 0;

	if (a[0]) {
		other = task_find(t->kernel, task_pid_ns(t), (pid_t)a[0]);
		if (!other)
			return -ESRCH;
		if (other->vfs.cred->uid != t->vfs.cred->euid && !task_capable(t, CAP_SYS_PTRACE))
			ret = -EPERM;
	}
	head = other->robust.head;
	len = 24;
	if (!ret &&
	    (copy_out(t, a[1], &head, sizeof(head)) || copy_out(t, a[2], &len, sizeof(len))))
		ret = -EFAULT;
	if (other != t)
		task_put(other);
	return ret;
}
