/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identities. A struct pid has a number in its namespace and in each ancestor, and lists who uses
 * it as what. A number stays taken while any list is in use (a process group keeps its leader's
 * number after the leader's death). Everything under kernel->tasklist, but for the reference count.
 */
#ifndef SENTRY_PID_H
#define SENTRY_PID_H

#include "sentry/lib/list.h"
#include "sentry/lib/radix.h"
#include "sentry/lib/refcount.h"
#include "sentry/lib/waitq.h"

struct kernel;
struct task;
struct thread_group;

#define PID_NS_MAX_LEVEL 32
#define PID_MAX_DEFAULT	 32768

struct pid_ns {
	struct refcount refs;
	struct kernel *kernel;
	struct pid_ns *parent; /* reference */
	unsigned int level;
	struct radix numbers; /* nr → struct pid *; under tasklist */
	pid_t last;	      /* last number given */
	pid_t pid_max;
	struct thread_group *init; /* reaper; NULL before and after; under tasklist */
	bool dead;		   /* init has ended: no new members */
	uint64_t ino;
	int nr_pids;
};

struct upid {
	pid_t nr;
	struct pid_ns *ns; /* reference on the innermost one only */
};

struct pid {
	struct refcount refs;
	unsigned int level;
	struct task *task;		  /* thread with this ID, or NULL */
	struct thread_group *tg;	  /* process with this ID (zombies too), or NULL */
	struct list_head pgrp_members;	  /* thread_group.pgrp_node */
	struct list_head session_members; /* thread_group.session_node */
	bool hashed;
	struct upid numbers[]; /* [level] is the innermost */
};

struct pid_ns *pid_ns_alloc(struct kernel *k, struct pid_ns *parent);
struct pid_ns *pid_ns_get(struct pid_ns *ns);
void pid_ns_put(struct pid_ns *ns);

/*
 * Allocates numbers in @ns and its ancestors; @set_tid (innermost first) asks for given ones.
 * ERR_PTR: -ENOMEM (also a dead namespace), -EAGAIN (full), -EEXIST, -EINVAL. tasklist held.
 */
struct pid *pid_alloc_locked(struct pid_ns *ns, const pid_t *set_tid, size_t set_tid_size);
struct pid *pid_get(struct pid *pid);
void pid_put(struct pid *pid);
/* Frees the numbers if nobody uses the identity any more. tasklist held. */
void pid_release_locked(struct pid *pid);
/* Borrowed, tasklist held. NULL: no such number. */
struct pid *pid_find_locked(struct pid_ns *ns, pid_t nr);
/*
 * The first identity in @ns with a number from *@nr on, which is then *@nr; NULL: there is none.
 * Borrowed, tasklist held (or nobody else runs). Like Linux's find_ge_pid(). All of them are
 *
 *	for (nr = 1; (pid = pid_next_locked(ns, &nr)); nr++)
 */
struct pid *pid_next_locked(const struct pid_ns *ns, uint64_t *nr);
pid_t pid_nr(const struct pid *pid, const struct pid_ns *ns); /* 0: not visible in ns */
static inline struct pid_ns *pid_ns_of(const struct pid *pid)
{
	return pid->numbers[pid->level].ns;
}

#endif
