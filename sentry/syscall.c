/* SPDX-License-Identifier: Apache-2.0 */
/* The dispatch table, made from syscalls.def, and the way through it. */
#include "sentry/syscalls.h"

#include <stdio.h>
#include <stdlib.h>

#include "sentry/freezer.h"
#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/lib/world.h"

/* A row of level NONE has no body. */
#define BODY_FULL(body)	   body
#define BODY_PARTIAL(body) body
#define BODY_NONE(body)	   NULL

const struct syscall_row syscall_table[SYSCALL_MAX] = {
#define SYSCALL(nr, nm, kinds, lvl, nt)                                                            \
	[nr] = {.name = #nm,                                                                       \
		.args = kinds,                                                                     \
		.fn = BODY_##lvl(sys_##nm),                                                        \
		.level = SYSCALL_##lvl,                                                            \
		.note = nt},
#include "sentry/syscalls.def"
#undef SYSCALL
};

__host_state _Atomic uint64_t syscall_counts[SYSCALL_MAX];

/* ---- calls that the freezer interrupts ---- */

void task_deadline(struct task *t, struct timespec *until, const struct timespec *after)
{
	if (t->redo.again && t->redo.timed) {
		*until = t->redo.until;
		return;
	}
	deadline_after(until, after);
	t->redo.until = *until;
	t->redo.timed = true;
}

size_t task_call_done(const struct task *t)
{
	return t->redo.again ? t->redo.done : 0;
}

bool task_call_resume(struct task *t, size_t done)
{
	if (!freezer_active() || signal_pending(t))
		return false;
	t->redo.done = done;
	return true;
}

/* A call that fails with EINTR because the freezer came, and not a signal, is made again. */
static long hide_freezer(struct task *t, long ret)
{
	if (signal_pending(t))
		return ret;
	if (ret == -EINTR)
		ret = -ERESTARTNOINTR;
	t->redo.again = ret == -ERESTARTSYS || ret == -ERESTARTNOINTR || ret == -ERESTARTNOHAND;
	return ret;
}

long syscall_carry_out(struct task *t, long nr, const uint64_t *a)
{
	long ret = -ENOSYS;

	if (nr < 0 || nr >= SYSCALL_MAX)
		return ret;
	atomic_fetch_add_explicit(&syscall_counts[nr], 1, memory_order_relaxed);
	if (syscall_table[nr].fn)
		ret = syscall_table[nr].fn(t, a);
	t->redo.again = false;
	if (freezer_active())
		ret = hide_freezer(t, ret);
	if (!t->redo.again) {
		t->redo.timed = false;
		t->redo.done = 0;
	}
	return ret;
}

long syscall_make(struct task *t, long nr, const uint64_t *a)
{
	bool trace = t->kernel->strace.enabled;
	long ret;

	t->syscall_nr = nr;
	if (trace)
		strace_enter(t, nr, a);
	ret = syscall_carry_out(t, nr, a);
	if (trace)
		strace_exit(t, nr, a, ret);
	return ret;
}

void syscall_dispatch(struct task *t)
{
	long nr = arch_syscall_nr(&t->regs), ret;
	uint64_t a[6];

	for (unsigned int i = 0; i < 6; i++)
		a[i] = arch_syscall_arg(&t->regs, i);
	ret = syscall_make(t, nr, a);
	/* These have set the registers themselves, and are never restarted. */
	if (ret == SYSCALL_REGS_SET)
		t->syscall_nr = -1;
	else
		arch_set_return(&t->regs, ret);
}

static int by_count(const void *a, const void *b)
{
	uint64_t x = syscall_counts[*(const int *)a], y = syscall_counts[*(const int *)b];

	return x < y ? 1 : x > y ? -1 : *(const int *)a - *(const int *)b;
}

void syscall_print_counts(int fd)
{
	int order[SYSCALL_MAX];

	for (int i = 0; i < SYSCALL_MAX; i++)
		order[i] = i;
	qsort(order, SYSCALL_MAX, sizeof(order[0]), by_count);
	for (int i = 0; i < SYSCALL_MAX && syscall_counts[order[i]]; i++) {
		const struct syscall_row *row = &syscall_table[order[i]];

		dprintf(fd, "syscall %s: %lu%s\n", row->name ? row->name : "(unknown)",
			(unsigned long)syscall_counts[order[i]],
			row->fn ? "" : " (not implemented)");
	}
}
