/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals. Generation queues a siginfo on a task or a group (signal_send.c), delivery happens on
 * the way back to user code (signal_deliver.c). Masks have bit signo-1. Sources: signal(7),
 * sigaction(2), Linux kernel/signal.c for ordering: synchronous first, then lowest number, private
 * before shared.
 */
#ifndef SENTRY_SIGNAL_H
#define SENTRY_SIGNAL_H

#include <signal.h>

#include "sentry/lib/list.h"
#include "sentry/lib/lock.h"
#include "sentry/lib/refcount.h"
#include "sentry/lib/types.h"
#include "sentry/lib/waitq.h"

struct kernel;
struct pid;
struct task;
struct thread_group;

#define NSIGS 64
#define SIGRTMIN_KERNEL                                                                            \
	32 /* first real-time signal of the kernel's view; libc's SIGRTMIN is higher */
#define SIGMASK(sig)	(1ULL << ((sig)-1))
#define SIG_UNBLOCKABLE (SIGMASK(SIGKILL) | SIGMASK(SIGSTOP))
#define SIG_STOP_MASK	(SIGMASK(SIGSTOP) | SIGMASK(SIGTSTP) | SIGMASK(SIGTTIN) | SIGMASK(SIGTTOU))
#define SIG_SYNC_MASK                                                                              \
	(SIGMASK(SIGSEGV) | SIGMASK(SIGBUS) | SIGMASK(SIGILL) | SIGMASK(SIGTRAP) |                 \
	 SIGMASK(SIGFPE) | SIGMASK(SIGSYS))

/* struct sigaction as the system call has it (x86-64). */
struct ksigaction {
	uaddr_t handler;
	uint64_t flags;
	uaddr_t restorer;
	uint64_t mask;
};

struct sighand {
	struct refcount refs;
	struct mutex lock; /* LOCK_SIGHAND */
	struct ksigaction action[NSIGS];
};
/* Locks the group's current sighand (exec may replace it) and returns it. */
struct sighand *sighand_lock(struct thread_group *tg);
struct sighand *sighand_alloc(void);
struct sighand *sighand_copy(struct sighand *old);
/* exec: caught signals get their default action back, ignored ones stay ignored. */
void sighand_reset(struct sighand *s);
struct sighand *sighand_get(struct sighand *s);
void sighand_put(struct sighand *s);

struct sigqueue {
	struct list_head node;
	siginfo_t info;
	struct posix_timer *timer; /* preallocated entry of a POSIX timer, or NULL */
};
struct sigqueue_head {
	struct list_head list;
	uint64_t set; /* signals present */
	unsigned int count;
};

/* Who may hear of it. */
enum signal_target { SIGNAL_THREAD, SIGNAL_GROUP };

/*
 * Sends @info->si_signo to @t or its group. Checks no permission. Returns 0, or -EAGAIN when a
 * queued real-time signal would exceed RLIMIT_SIGPENDING. Takes sighand->lock.
 */
int signal_send(struct task *t, const siginfo_t *info, enum signal_target target);
int signal_send_group(struct thread_group *tg, const siginfo_t *info);
/* From the kernel, si_code SI_KERNEL. */
void signal_send_kernel(struct task *t, int signo);
/* As signal_send_group, for callers that hold tasklist. */
int signal_send_group_tasklist(struct thread_group *tg, const siginfo_t *info);
/* To every member of a process group. tasklist held. */
void signal_send_pgrp_locked(struct pid *pgrp, const siginfo_t *info);
/* No member has a parent in another group of the same session. tasklist held. */
bool pgrp_is_orphaned_locked(struct pid *pgrp);
/* To every member of a process group, from the kernel (terminals). tasklist NOT held. */
void signal_send_pgrp(struct kernel *k, struct pid *pgrp, int signo);
/* A synchronous fault: can't be blocked or ignored (then the task dies of it). */
void signal_force(struct task *t, const siginfo_t *info);
/* kill(2) and relatives with permission checks; @pid as kill's. */
int signal_kill(struct task *t, pid_t pid, const siginfo_t *info);
bool signal_permitted(struct task *t, struct task *target, int signo);

/* Every thread of the group is to die with wait status @code. sighand->lock held. */
void signal_group_exit_locked(struct thread_group *tg, int code, struct task *except);
/* Tells the parent of a stopped or continued group (CLD_STOPPED, CLD_CONTINUED). tasklist held. */
void signal_notify_parent_jobctl(struct thread_group *tg, int why);
/* The thread leaves the group: what it owes a group stop in progress. sighand->lock held. */
void signal_task_leaves_locked(struct task *t);

/* Recomputes t->sigpending_hint and wakes or kicks as needed. sighand->lock held. */
void signal_recalc_locked(struct task *t);
/* Sets the blocked mask (SIGKILL and SIGSTOP filtered), wakes for what becomes deliverable. */
void signal_set_blocked(struct task *t, uint64_t mask);
/*
 * Takes the next pending signal in @mask. Returns its number with @info filled, or 0.
 * sighand->lock held.
 */
int signal_dequeue_locked(struct task *t, uint64_t mask, siginfo_t *info);
/*
 * On the way to user code: handles stops, the end, and sets up handlers; resolves restart codes of
 * the system call that returned @ret. Returns false if the task must exit.
 */
bool signal_deliver(struct task *t);
/* Pending and not blocked, or a stop or exit to take part in. */
bool signal_pending(struct task *t);
uint64_t signal_pending_set(struct task *t); /* sigpending(2) */
/* Discards queued signals in @mask from every queue of the group. sighand->lock held. */
void signal_flush_locked(struct thread_group *tg, uint64_t mask);
void sigqueue_init(struct sigqueue_head *q);
void sigqueue_flush(struct sigqueue_head *q);
/* A signal that an ignoring process never sees? */
bool signal_ignored_locked(struct task *t, int signo);

#endif
