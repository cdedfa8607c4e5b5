/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identities and PID namespaces. A struct pid is hashed (its numbers are taken) from allocation
 * until nobody is a thread, process, group or session of that name any more.
 */
#include "sentry/pid.h"

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/namespace.h"

OBJTYPE(pid_type, "pid")
OBJTYPE(pid_ns_type, "pid_ns")

/* Like Linux's RESERVED_PIDS: numbering restarts here after wrapping. */
#define PID_RESERVED 300

struct pid_ns *pid_ns_alloc(struct kernel *k, struct pid_ns *parent)
{
	struct pid_ns *ns;

	if (parent && parent->level + 1 >= PID_NS_MAX_LEVEL)
		return ERR_PTR(-ENOSPC);
	ns = kzalloc(sizeof(*ns));
	if (!ns)
		return ERR_PTR(-ENOMEM);
	refcount_init(&ns->refs, 1);
	ns->kernel = k;
	ns->parent = parent ? pid_ns_get(parent) : NULL;
	ns->level = parent ? parent->level + 1 : 0;
	ns->pid_max = PID_MAX_DEFAULT;
	ns->ino = ns_alloc_ino();
	objtype_inc(&pid_ns_type);
	return ns;
}

struct pid_ns *pid_ns_get(struct pid_ns *ns)
{
	refcount_get(&ns->refs);
	return ns;
}

void pid_ns_put(struct pid_ns *ns)
{
	while (ns && refcount_put(&ns->refs)) {
		struct pid_ns *parent = ns->parent;

		radix_fini(&ns->numbers);
		kfree(ns);
		objtype_dec(&pid_ns_type);
		ns = parent;
	}
}

static pid_t number_find_in(struct pid_ns *ns, pid_t from, pid_t to)
{
	for (; from < to; from++) {
		if (!radix_get(&ns->numbers, (uint64_t)from))
			return from;
	}
	return -EAGAIN;
}

/*
 * The next free number of @ns: upwards from the last one given; past the end again from
 * PID_RESERVED, as Linux does, and only when those are used up from behind init.
 */
static pid_t number_find(struct pid_ns *ns)
{
	pid_t nr = number_find_in(ns, ns->last + 1, ns->pid_max);

	if (nr < 0)
		nr = number_find_in(ns, PID_RESERVED, MIN(ns->last + 1, ns->pid_max));
	if (nr < 0)
		nr = number_find_in(ns, 2, MIN(PID_RESERVED, ns->pid_max));
	return nr;
}

static void numbers_free(struct pid *pid, unsigned int from_level)
{
	for (unsigned int l = from_level; l <= pid->level; l++) {
		struct upid *u = &pid->numbers[l];

		if (radix_set(&u->ns->numbers, (uint64_t)u->nr, 0))
			BUG_ON("radix removal failed");
		u->ns->nr_pids--;
	}
}

struct pid *pid_alloc_locked(struct pid_ns *ns, const pid_t *set_tid, size_t set_tid_size)
{
	struct pid *pid;
	struct pid_ns *level_ns = ns;
	long err;
	int l;

	if (set_tid_size > ns->level + 1)
		return ERR_PTR(-EINVAL);
	pid = kzalloc(sizeof(*pid) + (ns->level + 1) * sizeof(pid->numbers[0]));
	if (!pid)
		return ERR_PTR(-ENOMEM);
	refcount_init(&pid->refs, 1);
	pid->level = ns->level;
	list_init(&pid->pgrp_members);
	list_init(&pid->session_members);
	for (l = (int)ns->level; l >= 0; l--, level_ns = level_ns->parent) {
		size_t depth = ns->level - (unsigned int)l;
		pid_t nr;

		err = -ENOMEM;
		if (level_ns->dead)
			goto out_numbers;
		if (depth < set_tid_size) {
			nr = set_tid[depth];
			err = -EINVAL;
			if (nr < 1 || nr >= level_ns->pid_max || (nr != 1 && !level_ns->last))
				goto out_numbers;
			err = -EEXIST;
			if (radix_get(&level_ns->numbers, (uint64_t)nr))
				goto out_numbers;
		} else {
			nr = number_find(level_ns);
			err = nr;
			if (nr < 0)
				goto out_numbers;
		}
		err = radix_set(&level_ns->numbers, (uint64_t)nr, (uint64_t)(uintptr_t)pid);
		if (err)
			goto out_numbers;
		if (depth >= set_tid_size || !level_ns->last)
			level_ns->last = nr;
		level_ns->nr_pids++;
		pid->numbers[l].nr = nr;
		pid->numbers[l].ns = level_ns;
	}
	pid_ns_get(ns);
	pid->hashed = true;
	objtype_inc(&pid_type);
	return pid;

out_numbers:
	numbers_free(pid, (unsigned int)l + 1);
	kfree(pid);
	return ERR_PTR(err);
}

struct pid *pid_get(struct pid *pid)
{
	refcount_get(&pid->refs);
	return pid;
}

void pid_put(struct pid *pid)
{
	if (!pid || !refcount_put(&pid->refs))
		return;
	BUG_ON(pid->hashed);
	pid_ns_put(pid_ns_of(pid));
	kfree(pid);
	objtype_dec(&pid_type);
}

void pid_release_locked(struct pid *pid)
{
	if (!pid->hashed || pid->task || pid->tg || !list_empty(&pid->pgrp_members) ||
	    !list_empty(&pid->session_members))
		return;
	numbers_free(pid, 0);
	pid->hashed = false;
}

struct pid *pid_find_locked(struct pid_ns *ns, pid_t nr)
{
	if (nr <= 0)
		return NULL;
	return (struct pid *)(uintptr_t)radix_get(&ns->numbers, (uint64_t)nr);
}

struct pid *pid_next_locked(const struct pid_ns *ns, uint64_t *nr)
{
	uint64_t value;

	return radix_next(&ns->numbers, nr, &value) ? (struct pid *)(uintptr_t)value : NULL;
}

pid_t pid_nr(const struct pid *pid, const struct pid_ns *ns)
{
	if (!pid || !ns || ns->level > pid->level || pid->numbers[ns->level].ns != ns)
		return 0;
	return pid->numbers[ns->level].nr;
}
