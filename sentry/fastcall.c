/* SPDX-License-Identifier: Apache-2.0 */
/* See fastcall.h. */
#include "sentry/fastcall.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sentry/kernel.h"
#include "sentry/lib/hostfutex.h"
#include "sentry/lib/world.h"
#include "sentry/mm/sites.h"
#include "sentry/task.h"

#define WAIT_SPINS 2000

static bool rewrite_enabled;
static struct mutex info_lock; /* LOCK_OBJECT: guards every task's fast.info */
static __host_state _Atomic uint64_t nr_answered, nr_bells, nr_trapped;

void fast_init(const struct platform_type *type, bool rewrite, unsigned int share)
{
	mutex_init(&info_lock, LOCK_OBJECT);
	rewrite_enabled = rewrite && type->rewrite_after;
	if (rewrite_enabled && share)
		poller_init(share, type->spin);
}

void fast_restored(const struct platform_type *type, unsigned int share)
{
	if (rewrite_enabled && share)
		poller_init(share, type->spin);
}

void fast_task_init(struct task *t)
{
	t->fast.slot = -1;
	atomic_store(&t->fast.owner, FAST_SELF);
}

void fast_get_stats(struct fast_stats *st)
{
	*st = (struct fast_stats){
		.answered = atomic_load(&nr_answered),
		.polled = atomic_load(&poller_served),
		.bells = atomic_load(&nr_bells),
		.trapped = atomic_load(&nr_trapped),
	};
}

/* ---- who acts ---- */

void fast_enter(struct task *t)
{
	if (t->fast.box)
		atomic_store(&t->fast.owner, FAST_GUEST);
}

void fast_leave(struct task *t)
{
	_Atomic uint32_t *owner = &t->fast.owner;
	uint32_t seen = FAST_GUEST;
	unsigned int spins = 0;

	if (!t->fast.box)
		return;
	while (!atomic_compare_exchange_weak(owner, &seen, FAST_SELF)) {
		if (seen == FAST_SELF)
			return;
		if (seen == FAST_POLLER && ++spins < WAIT_SPINS) {
			__builtin_ia32_pause();
		} else if (seen != FAST_GUEST) {
			if (seen == FAST_AWAITED ||
			    atomic_compare_exchange_strong(owner, &seen, FAST_AWAITED))
				host_futex_wait(owner, FAST_AWAITED, NULL);
		}
		seen = FAST_GUEST;
	}
}

/* ---- boxes ---- */

/* Those of @s that are all 0. None if others than one thread group can set them. */
static uint64_t default_actions(const struct sighand *s)
{
	static const struct ksigaction none;
	uint64_t set = 0;

	for (int signo = 1; signo <= NSIGS && refcount_read(&s->refs) == 1; signo++) {
		if (!memcmp(&s->action[signo - 1], &none, sizeof(none)))
			set |= SIGMASK(signo);
	}
	return set;
}

static void fill_info_locked(struct task *t)
{
	struct callinfo *info;
	struct cred *cred = t->vfs.cred;
	struct pid_ns *ns = task_pid_ns(t);
	struct thread_group *parent = t->tg->parent;
	/* Nobody sets an action between our look and what we say of it. */
	struct sighand *s = sighand_lock(t->tg);

	mutex_lock(&info_lock);
	info = t->fast.info;
	if (info) {
		atomic_store(&info->pid, (uint32_t)task_tgid_nr(t, ns));
		atomic_store(&info->tid, (uint32_t)task_tid_nr(t, ns));
		atomic_store(&info->ppid, parent ? (uint32_t)pid_nr(parent->pid, ns) : 0);
		atomic_store(&info->uid, cred->uid);
		atomic_store(&info->euid, cred->euid);
		atomic_store(&info->gid, cred->gid);
		atomic_store(&info->egid, cred->egid);
		atomic_store(&info->default_actions, default_actions(s));
	}
	mutex_unlock(&info_lock);
	mutex_unlock(&s->lock);
}

void fast_info_changed_locked(struct task *t)
{
	if (t->fast.info)
		fill_info_locked(t);
}

void fast_info_changed(struct task *t)
{
	if (!t->fast.info)
		return;
	mutex_lock(&t->kernel->tasklist);
	fill_info_locked(t);
	mutex_unlock(&t->kernel->tasklist);
}

void fast_action_set_locked(struct task *t, uint64_t signals)
{
	struct task *other;

	if (!rewrite_enabled)
		return;
	mutex_lock(&info_lock);
	list_for_each_entry (other, &t->tg->threads, tg_node) {
		if (other->fast.info)
			atomic_fetch_and(&other->fast.info->default_actions, ~signals);
	}
	mutex_unlock(&info_lock);
}

/* Gives @t a box in its mm. By its own thread, or before it has one. */
static bool attach(struct task *t)
{
	const struct platform_type *pt = t->kernel->platform->type;
	uint64_t fs_base, gs_base;
	struct callinfo *info;
	struct callbox *box;

	if (t->fast.box)
		return true;
	box = mm_box_alloc(t->mm, &t->fast.box_va);
	if (!box)
		return false;
	info = mm_box_info(t->mm, t->fast.box_va);
	mutex_lock(&t->kernel->tasklist);
	t->fast.info = info;
	fill_info_locked(t);
	mutex_unlock(&t->kernel->tasklist);
	t->fast.box = box;
	t->fast.result_pending = false;
	if (poller_enabled)
		poller_add(t);
	pt->ctx_get_bases(t->ctx, &fs_base, &gs_base);
	pt->ctx_set_bases(t->ctx, fs_base, t->fast.box_va);
	return true;
}

void fast_detach(struct task *t)
{
	if (!t->fast.box)
		return;
	poller_remove(t);
	mutex_lock(&info_lock);
	t->fast.info = NULL;
	mutex_unlock(&info_lock);
	atomic_fetch_add(&nr_answered, t->fast.box->count);
	t->fast.box = NULL;
	mm_box_free(t->mm, t->fast.box_va);
	atomic_store(&t->fast.owner, FAST_SELF);
}

void fast_clone(struct task *t, struct task *child)
{
	if (t->fast.box && mm_site_stub(child->mm))
		attach(child);
}

void fast_give_up(struct task *t)
{
	const struct platform_type *pt = t->kernel->platform->type;
	uint64_t fs_base, gs_base;

	if (rewrite_enabled)
		mm_sites_stop(t->mm);
	if (!t->fast.box)
		return;
	fast_detach(t);
	pt->ctx_get_bases(t->ctx, &fs_base, &gs_base);
	pt->ctx_set_bases(t->ctx, fs_base, 0);
}

/* ---- traps ---- */

/* What a slot or a poller can do something for; -1: the number isn't known. */
static enum site_wish site_wanted(int nr)
{
	switch (nr) {
	case SYS_getpid:
	case SYS_gettid:
	case SYS_getppid:
	case SYS_getuid:
	case SYS_geteuid:
	case SYS_getgid:
	case SYS_getegid:
	case SYS_rt_sigaction:
		return SITE_NOW;
	}
	if (!poller_enabled || (nr != -1 && !poller_takes(nr)))
		return SITE_NEVER;
	return poller_may_come() ? SITE_NOW : SITE_LATER;
}

void fast_trapped(struct task *t)
{
	t->fast.result_pending = false;
	if (!rewrite_enabled)
		return;
	atomic_fetch_add_explicit(&nr_trapped, 1, memory_order_relaxed);
	mm_site_trapped(t->mm, t->regs.rip, site_wanted);
	if (!t->fast.box && t->mm->sites && mm_site_stub(t->mm))
		attach(t);
}

/* The call has been carried out: as behind the site's SYSCALL, with its result. */
static void finish_pending(struct task *t, uaddr_t after)
{
	t->fast.result_pending = false;
	t->regs.rip = after;
	t->regs.rcx = after;
	t->regs.r11 = t->regs.eflags;
	t->regs.orig_rax = t->fast.nr;
	t->syscall_nr = (long)t->fast.nr;
	arch_set_return(&t->regs, t->fast.result);
}

/* Stopped in the common code at @off, not by its own SYSCALL. */
static void fix_common(struct task *t, size_t off)
{
	struct callbox *box = t->fast.box;
	uint32_t state;

	if (!box) {
		/* Nothing can have been posted: this thread has never had a box here. */
		t->regs.rip = t->regs.rcx - 2;
		return;
	}
	switch (arch_callstub_where(off)) {
	case CALLSTUB_FIRST:
		t->regs.rip = t->regs.rcx - 2;
		break;
	case CALLSTUB_UNPOSTED:
		t->regs.rip = box->after - 2;
		break;
	case CALLSTUB_REFUSED:
		t->regs.rip = box->after2 - 2;
		break;
	case CALLSTUB_POSTED:
		state = atomic_exchange(&box->state, CALLBOX_DONE);
		if (t->fast.result_pending) {
			finish_pending(t, box->after);
		} else if (state == CALLBOX_DONE) {
			t->regs.rax = box->nr;
			t->regs.rip = box->after;
		} else {
			t->regs.rip = box->after - 2;
		}
		break;
	case CALLSTUB_ANSWERED:
		t->regs.rax = box->nr;
		t->regs.rip = box->after;
		break;
	case CALLSTUB_RETURNED:
		t->regs.rip = box->after;
		break;
	case CALLSTUB_ANSWERING:
		arch_callstub_unwind(off, &t->regs);
		t->regs.rip = box->after - 2;
		break;
	case CALLSTUB_OUTSIDE:
		break;
	}
}

/* The stub's own SYSCALL: as if the site's had trapped. True: the call was carried out already. */
static bool take_bell(struct task *t, size_t off)
{
	struct callbox *box = t->fast.box;
	uaddr_t after = box ? box->after : t->regs.rcx;

	atomic_fetch_add_explicit(&nr_bells, 1, memory_order_relaxed);
	if (t->fast.result_pending) {
		finish_pending(t, after);
		return true;
	}
	if (box)
		atomic_store(&box->state, CALLBOX_DONE);
	t->regs.rip = after;
	t->regs.rcx = after;
	poller_note_bell(t, arch_callstub_where(off - 2) == CALLSTUB_POSTED);
	return false;
}

/* ---- calls without registers ---- */

/* These set or copy registers, or don't return. */
static bool needs_registers(int nr)
{
	switch (nr) {
	case SYS_rt_sigreturn:
	case SYS_clone:
	case SYS_fork:
	case SYS_vfork:
	case SYS_clone3:
	case SYS_execve:
	case SYS_execveat:
	case SYS_exit:
	case SYS_exit_group:
	case SYS_sigaltstack:
	case SYS_arch_prctl:
		return true;
	}
	return false;
}

bool fast_may_answer(struct task *t, long result)
{
	return !atomic_load(&t->sigpending_hint) && !atomic_load(&t->mm->oom) && result >= -4095 &&
	       !(result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK);
}

enum fast_call fast_call_begin(struct task *t, const struct trap *trap)
{
	struct callbox *box = t->fast.box;
	size_t off;

	if (needs_registers(trap->nr))
		return FAST_CALL_TRAP;
	if (t->mm->sites && mm_site_common(t->mm, trap->addr, &off)) {
		if (!box || !arch_callstub_trapped(off))
			return FAST_CALL_TRAP;
		if (t->fast.result_pending)
			return FAST_CALL_MADE;
		atomic_fetch_add_explicit(&nr_bells, 1, memory_order_relaxed);
		atomic_store(&box->state, CALLBOX_DONE);
		poller_note_bell(t, arch_callstub_where(off - 2) == CALLSTUB_POSTED);
		return FAST_CALL_MAKE;
	}
	t->fast.result_pending = false;
	if (!rewrite_enabled)
		return FAST_CALL_MAKE;
	/* Its box wants the GS base. */
	if (!box && t->mm->sites && mm_site_stub(t->mm))
		return FAST_CALL_TRAP;
	atomic_fetch_add_explicit(&nr_trapped, 1, memory_order_relaxed);
	mm_site_trapped(t->mm, trap->addr, site_wanted);
	return FAST_CALL_MAKE;
}

void fast_call_finish(struct task *t)
{
	finish_pending(t, t->regs.rip);
}

/* A page fault in a slot or in the common code: the GS base is gone, or was never there. */
static void restore_gs(struct task *t)
{
	const struct platform_type *pt = t->kernel->platform->type;
	uint64_t fs_base, gs_base;

	if (!t->fast.box) {
		attach(t);
		return;
	}
	pt->ctx_get_bases(t->ctx, &fs_base, &gs_base);
	if (gs_base != t->fast.box_va)
		pt->ctx_set_bases(t->ctx, fs_base, t->fast.box_va);
}

bool fast_fixup(struct task *t, struct trap *trap)
{
	bool dealt = false;

	/* A few steps at most: refused, then given up, then the site. */
	for (int i = 0; i < 4; i++) {
		struct site_spot spot;
		enum site_place place = mm_site_place(t->mm, t->regs.rip, &spot);

		if (place == SITE_NONE)
			break;
		if (trap->kind == TRAP_SYSCALL) {
			if (place == SITE_COMMON && arch_callstub_trapped(spot.at))
				return take_bell(t, spot.at);
			/* Just behind a slot's own SYSCALL, or something else of the program's. */
			break;
		}
		if (trap->kind == TRAP_FAULT && !dealt)
			restore_gs(t);
		if (place == SITE_COMMON) {
			fix_common(t, spot.at);
		} else if (place == SITE_START && trap->kind == TRAP_FAULT && !t->fast.box) {
			/* No memory for a box: the call is made the long way. */
			t->regs.rax = (uint64_t)spot.nr;
			t->regs.rip = spot.syscall;
		} else {
			t->regs.rip = spot.at;
		}
		/* What it met there (no box yet; the middle of a jump) isn't the program's. */
		dealt = true;
	}
	return dealt;
}
