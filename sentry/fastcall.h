/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls without a trap, the task's side. Memory's side is sentry/mm/sites.h, the code user
 * programs run is arch/x86_64/callstub.S.
 *
 * A task that traps from rewritable sites gets a call box. From then on its rewritten sites answer
 * some calls themselves (getpid and its like) and post the others in the box, where a poller thread
 * may find and carry them out while the task's own thread stays inside the guest. Who may act for a
 * task is fast.owner:
 *
 *	      own thread enters		 a posted call is found
 *	SELF ------------------> GUEST <----------------------> POLLER
 *	     <------------------       answered, or not to be had
 *	      left, and not POLLER
 *
 * A thread that leaves the guest while the poller works for it waits for the poller (fast_leave):
 * so handlers never run twice for a task, and blocking in the poller's handler is like blocking in
 * one's own, signals included.
 */
#ifndef SENTRY_FASTCALL_H
#define SENTRY_FASTCALL_H

#include "platform/platform.h"
#include "sentry/lib/types.h"

struct task;
struct kernel;
struct callbox;
struct callinfo;

enum fast_owner {
	FAST_SELF,
	FAST_GUEST,
	FAST_POLLER,
	FAST_AWAITED /* POLLER, its thread sleeps */
};

/* In struct task; the task's own unless said otherwise. */
struct task_fast {
	_Atomic uint32_t owner; /* enum fast_owner; also the futex an own thread waits on */
	struct callbox *box;	/* NULL: has none */
	uaddr_t box_va;
	struct callinfo *info; /* written by others under fast_info_lock */
	int slot;	       /* among the pollers' tasks, -1 */
	/*
	 * Set by the poller while it owns the task, an answer that user code can't be given, or by
	 * the own thread, one that it hasn't been given yet.
	 */
	bool result_pending;
	long result;
	uint64_t nr;
};

/* How calls came in, for --stats. */
struct fast_stats {
	uint64_t answered; /* by the slots themselves */
	uint64_t polled;   /* from the box by the poller */
	uint64_t bells;	   /* from the stub by a trap after all */
	uint64_t trapped;  /* from sites as they were written */
};
void fast_get_stats(struct fast_stats *st);

/*
 * Once, before tasks: what may be used. @share: percent of a CPU's time that may be spent looking
 * in vain; 0: nobody looks.
 */
void fast_init(const struct platform_type *type, bool rewrite, unsigned int share);

/* The same in a process whose kernel state is another's, restored. */
void fast_restored(const struct platform_type *type, unsigned int share);

void fast_task_init(struct task *t);
/* Around ctx_run. */
void fast_enter(struct task *t);
void fast_leave(struct task *t);
/*
 * After fast_leave: moves a thread that stopped in the stub or a slot to where the program was.
 * True: @trap is dealt with.
 */
bool fast_fixup(struct task *t, struct trap *trap);
/* A SYSCALL has trapped, registers as they were: the site may be rewritten. */
void fast_trapped(struct task *t);
/* What is to be done about TRAP_CALL, after fast_leave. */
enum fast_call {
	FAST_CALL_MAKE, /* the call */
	FAST_CALL_MADE, /* it was, by the poller: fast.result */
	FAST_CALL_TRAP, /* it can't be, without registers */
};
enum fast_call fast_call_begin(struct task *t, const struct trap *trap);
/* Can @t's program go on with @result, or has its own thread to see to something first? */
bool fast_may_answer(struct task *t, long result);
/* Such a call was made, fast.result_pending is set, and now there are registers. */
void fast_call_finish(struct task *t);
/* @child begins with @t's registers: a box for it too, if its mm has rewritten sites. */
void fast_clone(struct task *t, struct task *child);
/* Before the mm goes. */
void fast_detach(struct task *t);
/* The program wants the GS base itself: nothing is rewritten for it any more. */
void fast_give_up(struct task *t);
/* What the slots answer has changed. tasklist held. */
void fast_info_changed_locked(struct task *t);
void fast_info_changed(struct task *t);
/*
 * Actions of @t's thread group have been set, or are another group's as well from now on: no slot
 * says any more that those of @signals are the default. That one has become it need not be told.
 * sighand->lock held.
 */
void fast_action_set_locked(struct task *t, uint64_t signals);

/* ---- between fastcall.c and poller.c ---- */
/* Can a call of the number @nr be carried out by another thread than the task's own? */
bool poller_takes(int nr);
/* Is there a poller, or could there be one soon? Not while processors are wanted elsewhere. */
bool poller_may_come(void);
bool poller_add(struct task *t);
void poller_remove(struct task *t);
/* All of them: none runs. */
void poller_forget(void);
/* A call came from the stub by a trap: nobody polls, or user code has waited and @given_up. */
void poller_note_bell(struct task *t, bool given_up);
void poller_init(unsigned int share, unsigned int spin);
/* Called where a task is about to sleep: if a poller does it, another takes over its work. */
void poller_blocks(void);
extern bool poller_enabled;
extern _Atomic uint64_t poller_served;

#endif
