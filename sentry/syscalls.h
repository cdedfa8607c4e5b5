/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system-call table. syscalls.def has a row per call; the dispatch table, the strace printer,
 * `kvmsbox syscalls` and the table in the docs come from it. Bodies are in
 * sentry/syscalls/<topic>.c:
 *
 *	long sys_NAME(struct task *t, const uint64_t *a)
 *
 * a[0..5] are the raw arguments. The result is what the application gets, -errno, or a restart code
 * (-ERESTARTSYS …, resolved by signal_deliver). A row without a body answers -ENOSYS and is
 * counted.
 */
#ifndef SENTRY_SYSCALLS_H
#define SENTRY_SYSCALLS_H

#include "sentry/task.h"

enum syscall_level {
	SYSCALL_NONE,	 /* ENOSYS */
	SYSCALL_PARTIAL, /* what the note says is missing */
	SYSCALL_FULL,
};

/* Returned by calls that replaced the registers (rt_sigreturn, execve). Not an errno. */
#define SYSCALL_REGS_SET (-0x7fff0000L)

typedef long syscall_fn(struct task *t, const uint64_t *a);

struct syscall_row {
	const char *name; /* NULL: no such number */
	const char *args; /* kinds, one word per argument: see strace.c */
	syscall_fn *fn;	  /* NULL: not implemented */
	enum syscall_level level;
	const char *note;
};

#define SYSCALL_MAX 512
extern const struct syscall_row syscall_table[SYSCALL_MAX];
extern _Atomic uint64_t syscall_counts[SYSCALL_MAX];

/* Runs the call in t->regs and stores the result there (or leaves it to rt_sigreturn, execve). */
void syscall_dispatch(struct task *t);
/* The call @nr itself, counted: its result, ERESTART* and SYSCALL_REGS_SET included. */
long syscall_carry_out(struct task *t, long nr, const uint64_t *a);
/* The same by @t's own thread, which is in it (syscall_nr) and traces it: --strace. */
long syscall_make(struct task *t, long nr, const uint64_t *a);

/* --stats: calls by name, with how often. */
void syscall_print_counts(int fd);

/* --strace: one line per call on the given host fd. */
void strace_enter(struct task *t, long nr, const uint64_t *a);
void strace_exit(struct task *t, long nr, const uint64_t *a, long ret);
void strace_signal(struct task *t, const siginfo_t *info);

/* Every body's prototype. */
#define SYSCALL(nr, nm, kinds, lvl, nt) syscall_fn sys_##nm;
#include "sentry/syscalls.def"
#undef SYSCALL

/* Pieces many bodies share (sentry/syscalls/common.c). */
/*
 * Copies a path name in: kmalloc'd, ERR_PTR(-EFAULT, -ENAMETOOLONG, -ENOENT for "" unless
 * @empty_ok).
 */
char *user_path(struct task *t, uaddr_t addr, bool empty_ok);
/*
 * The base for the *at calls: for an absolute @name or AT_FDCWD an empty path (walk from cwd/root),
 * else a reference on the descriptor's path. 0, -EBADF or -ENOTDIR.
 */
int user_base(struct task *t, int dirfd, const char *name, struct path *out);
/* Reads a struct timespec and checks it. 0, -EFAULT, -EINVAL. */
int user_timespec(struct task *t, uaddr_t addr, struct timespec *ts);
/* Absolute CLOCK_MONOTONIC deadline @ts from now. */
void deadline_after(struct timespec *deadline, const struct timespec *ts);
/* A sigset argument: size must be 8. */
int user_sigset(struct task *t, uaddr_t addr, size_t size, uint64_t *mask);
/* ppoll/epoll_pwait/pselect: sets the mask now, restored on the way out unless a handler runs. */
void task_set_temp_mask(struct task *t, uint64_t mask);
/* prctl(2) on credentials; -ENOIOCTLCMD when the operation isn't about them. */
long prctl_cred(struct task *t, const uint64_t *a);
/* Any clock a program can name, as of now. 0 or -EINVAL. */
int task_clock_gettime(struct task *t, clockid_t clock, struct timespec *ts) __must_check;
/* Absolute CLOCK_MONOTONIC now. */
struct timespec monotonic_now(void);
#define copy_in(t, dst, addr, len)  copy_from_user((t)->vfs.um, dst, addr, len)
#define copy_out(t, addr, src, len) copy_to_user((t)->vfs.um, addr, src, len)

#endif
