/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks: the sentry's processes and threads, in Linux's shape.
 *
 *   task	  one application thread, driven by one host thread (task_run.c)
 *   thread_group one process: threads, limits, timers, what wait(2) sees
 *   sighand	  signal actions, shared by CLONE_SIGHAND
 *   pid	  an identity: its numbers in a PID namespace and all ancestors, and who uses it as
 *		  thread, process, process group or session (pid.h)
 *
 * Locks: kernel->tasklist guards the process tree, groups, sessions, and states that wait(2) looks
 * at; sighand->lock guards actions and all pending queues, masks and stop state of its groups'
 * tasks. tasklist is taken first.
 *
 * References on a task: its own host thread (dropped when it ends), struct pid's link until
 * release, and whoever looked it up. On a thread group: each of its tasks; a zombie's place in its
 * parent's children list.
 *
 * A task ends in this order: task_exit (exit.c) drops mm, files, fs, then mount, UTS, IPC, network
 * namespaces; its thread group becomes a zombie with the last thread; wait(2) or auto-reaping
 * releases the pids.
 */
#ifndef SENTRY_TASK_H
#define SENTRY_TASK_H

#include <sched.h>
#include <sys/resource.h>

#include "platform/platform.h"
#include "sentry/fastcall.h"
#include "sentry/lib/list.h"
#include "sentry/lib/lock.h"
#include "sentry/lib/refcount.h"
#include "sentry/mm/mm.h"
#include "sentry/namespace.h"
#include "sentry/pid.h"
#include "sentry/signal.h"
#include "vfs/file.h"

struct kernel;
struct tty;

#define TASK_COMM_LEN 16

enum task_state {
	TASK_NEW,	/* made, never run */
	TASK_RUNNING,	/* in user code or in the sentry */
	TASK_SLEEPING,	/* in task_block, interruptible */
	TASK_DISKSLEEP, /* in task_block, uninterruptible (vfork) */
	TASK_STOPPED,	/* job control */
	TASK_ZOMBIE,
	TASK_DEAD,
};

struct robust_list_ref {
	uaddr_t head;
	size_t len;
};

struct task {
	struct refcount refs;
	struct kernel *kernel;
	struct thread_group *tg;  /* reference */
	struct user_counts *user; /* the real user's, whom it is charged to; reference */
	struct list_head tg_node; /* in tg->threads; under tasklist */
	struct pid *pid;	  /* this thread's identity; reference */
	_Atomic int state;	  /* enum task_state */

	/*
	 * Task-owned: used by the task's own thread; others look under tasklist (mm, files of a
	 * task for /proc: take task->own_lock and a reference).
	 */
	struct mutex own_lock;	/* LOCK_OBJECT */
	struct vfs_ctx vfs;	/* cred (reference), fs (reference), mnt_ns (reference), um of mm */
	struct mm *mm;		/* reference; NULL once exited */
	struct fd_table *files; /* reference; NULL once exited */
	struct uts_ns *uts;
	struct ipc_ns *ipc;
	struct net_ns *net;
	struct pid_ns *pid_ns_children; /* where children get their pids */

	struct arch_regs regs;
	struct context *ctx;
	uint32_t ctx_life; /* kernel->life when it was made: else it is an earlier process's */
	long syscall_nr;   /* in progress or last, -1 none */
	uint64_t fault_trapno, fault_err, fault_cr2; /* of the last synchronous fault, for frames */
	char comm[TASK_COMM_LEN];		     /* under own_lock */
	bool no_new_privs;
	uaddr_t clear_child_tid, set_child_tid;
	struct robust_list_ref robust;
	unsigned long personality;
	int pdeath_signal;
	int nice, sched_policy, sched_priority;
	cpu_set_t cpus;
	uint64_t timer_slack;
	unsigned int io_prio;

	/* Signals: under tg->sighand->lock. */
	struct sigqueue_head pending;
	uint64_t blocked;    /* mask */
	uint64_t saved_mask; /* to restore when no handler runs (sigsuspend, ppoll) */
	bool restore_mask;
	uint64_t wait_mask; /* sigtimedwait: signals that wake it though blocked */
	uaddr_t altstack_sp;
	uint64_t altstack_size;
	int altstack_flags;
	struct waitq signalfd_wait;
	_Atomic bool sigpending_hint; /* something deliverable or a stop/exit to see: look */
	_Atomic uint64_t user_seq;    /* trips into user code so far */
	_Atomic bool in_user;	      /* in ctx_run or about to enter it: kick to get attention */

	struct task_fast fast; /* calls without a trap (fastcall.h) */

	/* Sleeping (task_block.c). */
	_Atomic uint32_t wake; /* host futex: 0 asleep or about to be, 1 woken */
	_Atomic bool killed;   /* a fatal end is pending: leave everything */
	struct restart_block {
		long (*fn)(struct task *t, struct restart_block *rb);
		uint64_t arg[6];
		struct timespec until;
		int clock;
	} restart;

	/* A call that the freezer has interrupted goes on where it was (syscall.c). */
	struct {
		bool again; /* the next call is that one */
		bool timed; /* it has a time limit: until */
		struct timespec until;
		size_t done; /* bytes it has moved */
	} redo;

	struct task *vfork_child_of; /* parent to release on exec or exit; reference */
	_Atomic uint32_t vfork_done; /* set by the child */
	struct task *vfork_child;    /* that the thread waits for (task_run.c); reference */
	bool exiting;
	int exit_code;		    /* wait status */
	struct timespec start_time; /* CLOCK_BOOTTIME */
	uint64_t nvcsw, nivcsw;
	uint64_t utime_ns,
		stime_ns; /* of this thread: once dead; before, what an earlier process saw */
	int host_tid;	  /* of the thread that drives it; 0 before */
	uint64_t host_ns; /* that thread's CPU time before */
	uint64_t nsyscalls;
};

enum stop_state { STOP_NONE, STOP_PENDING, STOP_STOPPED };

struct thread_group {
	struct refcount refs;
	struct kernel *kernel;
	struct pid *pid;     /* process ID; reference */
	struct task *leader; /* under tasklist; may be a zombie thread */
	/* Changed under tasklist and sighand->lock: either is enough to read. */
	struct list_head threads;	     /* task.tg_node */
	int nr_threads, nr_live;	     /* all, and those not exiting */
	struct sighand *sighand;	     /* reference; replaced by exec under tasklist */
	struct sigqueue_head shared_pending; /* under sighand->lock */
	/* Tree: under tasklist. */
	struct thread_group *parent; /* borrowed: a parent outlives its links; NULL for init */
	struct list_head children, sibling;
	bool child_subreaper;
	bool did_exec;
	bool started; /* kernel_start_process has been called */
	int exit_signal;
	struct pid *pgrp, *session; /* references */
	struct list_head pgrp_node, session_node;
	struct tty *tty;	 /* controlling terminal; reference */
	struct waitq child_wait; /* wait(2) sleeps here; also pidfd's readiness of this group */
	struct waitq pidfd_wait;
	/* Group exit and stop: under sighand->lock. */
	bool group_exit;
	int group_exit_code;
	struct task *exec_task; /* execve in progress: everyone else dies */
	enum stop_state stop;
	int stop_signal, stop_count;	  /* threads still to stop */
	bool stop_reported, cont_pending; /* for wait(2) */
	uint32_t cont_seq; /* SIGCONTs so far: a stop signal dequeued before one is void */
	bool is_zombie;	   /* under tasklist */
	int exit_code;	   /* wait status once zombie */
	struct rlimit limits[RLIM_NLIMITS]; /* under own lock */
	struct mutex limits_lock;	    /* LOCK_OBJECT */
	/* Accounting of dead threads and waited-for children: under tasklist. */
	uint64_t utime_ns, stime_ns, cutime_ns, cstime_ns;
	struct rusage dead_ru, child_ru;
	uint64_t max_rss, child_max_rss;
	struct itimer *itimers[3]; /* timers.c */
	struct posix_timers *posix_timers;
	struct cpu_limit *cpu_limit; /* RLIMIT_CPU is finite: cpu_limit.c */
	uint64_t oom_score_adj_biased;
};

/* How the new task relates to its maker: clone flags and the pieces it gets. */
struct task_args {
	struct kernel *kernel;
	struct thread_group *tg; /* join it, or NULL: a new one */
	struct sighand *sighand; /* reference consumed */
	int exit_signal;
	const struct rlimit *limits;
	struct cred *cred; /* references below are consumed by task_alloc, on failure too */
	struct fs_context *fs;
	struct mnt_ns *mnt_ns;
	struct fd_table *files;
	struct mm *mm;
	struct uts_ns *uts;
	struct ipc_ns *ipc;
	struct net_ns *net;
	struct pid_ns *pid_ns;
	const pid_t *set_tid; /* clone3 set_tid: wanted numbers, innermost first */
	size_t set_tid_size;
	const char *comm;
};

/* A task that isn't visible nor running yet. ERR_PTR on failure, everything consumed. */
struct task *task_alloc(const struct task_args *args);
/*
 * Makes it visible: in its group, and a new group in the tree under @parent (NULL: none). 0, or
 * -EINTR/-ENOMEM when the group or the namespace is going away; the task is the caller's to put.
 */
int task_publish(struct task *t, struct thread_group *parent) __must_check;
/* Starts the host thread, which takes over the caller's reference. 0 or -EAGAIN. */
int task_start(struct task *t) __must_check;
/* While barred, a host thread that starts comes up to its task's first entry of user code. */
void tasks_bar(bool bar);
/* The same for a task that ran before and was discarded, by the freezer or in task_run_here. */
int task_resume(struct task *t) __must_check;
/*
 * The same on the calling thread, up to its end or until it is discarded. In the latter case nobody
 * but the calling thread resumes it, here or elsewhere.
 */
void task_run_here(struct task *t);
/*
 * Set by who wants to know that a task is about to end: called on its thread. True: it need not,
 * the sandbox is going to be set back.
 */
extern bool (*task_last_exit)(struct task *t);
/* Set when a process is killed for the memory limit; who cares clears it. */
extern _Atomic bool task_out_of_memory;
/* Drops mm, files, fs and namespaces, in that order. */
void task_drop_resources(struct task *t);
struct task *task_get(struct task *t);
void task_put(struct task *t);
struct thread_group *thread_group_get(struct thread_group *tg);
void thread_group_put(struct thread_group *tg);

static inline struct task *task_of(const struct vfs_ctx *ctx)
{
	return ctx->is_task ? container_of(ctx, struct task, vfs) : NULL;
}
/* Soft limit RLIMIT_@which of the task's process. */
uint64_t task_rlimit(struct task *t, int which);
bool task_capable(struct task *t, int cap);
/* Number of @t / its process in @ns, 0 if not visible there. */
pid_t task_tid_nr(struct task *t, struct pid_ns *ns);
pid_t task_tgid_nr(struct task *t, struct pid_ns *ns);
static inline struct pid_ns *task_pid_ns(struct task *t)
{
	return pid_ns_of(t->pid);
}
/* Replaces credentials (consumes @cred). */
void task_set_cred(struct task *t, struct cred *cred);
/* May @t look into @target (ptrace_access_mode)? 0 or -EPERM. */
int task_may_access(struct task *t, struct task *target) __must_check;
/* References for outsiders, NULL once gone. */
struct mm *task_get_mm(struct task *t);
struct fd_table *task_get_files(struct task *t);
struct cred *task_get_cred(struct task *t);
/* By number in @ns: a reference or NULL. */
struct task *task_find(struct kernel *k, struct pid_ns *ns, pid_t tid);
/* User and system time so far, from the host's clock of its thread. */
void task_times(struct task *t, uint64_t *utime_ns, uint64_t *stime_ns);

/* The same for all threads of a process, dead ones included. Takes tasklist. */
void thread_group_times(struct thread_group *tg, uint64_t *utime_ns, uint64_t *stime_ns);

/*
 * Sleeping (task_block.c). Order: task_block_prepare, add waiters, test the condition, task_block,
 * remove waiters. Wake-ups between prepare and block are not lost.
 */
void task_block_prepare(struct task *t);
/*
 * Sleeps until task_wake, @deadline (absolute, on CLOCK_MONOTONIC or CLOCK_REALTIME by @clock;
 * NULL: none) or a signal. 0, -ETIMEDOUT, or -ERESTARTSYS (a deliverable signal or the end is
 * pending).
 */
int task_block(struct task *t, int clock, const struct timespec *deadline) __must_check;
/* The same, deaf to signals but not to SIGKILL. */
int task_block_killable(struct task *t) __must_check;
/* Sleeps until task_wake, whatever it is for (group stop). */
void task_wait_wake(struct task *t);
void task_wake(struct task *t);	       /* from any thread, under LOCK_WAITQ too */
bool task_interrupted(struct task *t); /* would task_block return -ERESTARTSYS? */
/* A waiter whose callback wakes @t. */
struct task_waiter {
	struct waiter w;
	struct task *t;
	_Atomic uint32_t events; /* what it was woken for */
};
void task_waiter_init(struct task_waiter *tw, struct task *t, uint32_t mask);
/*
 * Runs @op until it returns something else than -EAGAIN, sleeping on @wq for @events in between;
 * @nonblock: just once. The pattern of every blocking file operation.
 */
long task_retry(struct task *t, struct waitq *wq, uint32_t events, bool nonblock,
		const struct timespec *deadline, long (*op)(void *arg), void *arg);

/* This host thread's buffer for one extended state; valid until the next call that uses it. */
void *task_fpu_buffer(void);

/* Registers, extended state and segment bases as a fresh image has them. */
void task_start_image(struct task *t, uaddr_t entry, uaddr_t sp);
/* The process's limits that the memory manager checks. */
void task_mm_limits(struct task *t, struct mm_limits *l);

/*
 * Calls that the freezer interrupts without a signal are made again, and must not begin anew
 * (syscall.c). task_deadline is deadline_after for the one time limit of a call. A call that moves
 * bytes until it has moved all starts from task_call_done; when it is to return less because it was
 * interrupted it asks task_call_resume, and if that is true returns -ERESTARTNOINTR.
 */
void task_deadline(struct task *t, struct timespec *until, const struct timespec *after);
size_t task_call_done(const struct task *t);
bool task_call_resume(struct task *t, size_t done);

/* Ends of life (exit.c). @code is a wait status. */
void task_exit_group(struct task *t, int code); /* marks; the caller returns to the run loop */
void task_exit_thread(struct task *t, int code);
/* Makes the other threads die and waits for them (execve). 0 or -EINTR. */
int task_zap_other_threads(struct task *t);

#endif
