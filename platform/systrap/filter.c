/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seccomp filters. All stubs have the first from before the master gave up the sentry's
 * memory; user threads add the second, in one of its two forms, before they run user code. The
 * stricter answer counts: KILL, TRAP, ERRNO, USER_NOTIF, TRACE, ALLOW.
 *
 * For user code SECCOMP_RET_TRAP or a notification is the system call's way to the sentry; leaders,
 * which have SIGSYS blocked, are killed by a trap. Outside of the code page the first filter says
 * TRACE, which without a tracer is ENOSYS: no leader is ever there, and it leaves the second filter
 * both answers.
 */
#include "platform/systrap/internal.h"

#include <asm/prctl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sentry/lib/err.h"

#define FIELD(f)   ((uint32_t)offsetof(struct seccomp_data, f))
#define ARG_LOW(i) ((uint32_t)(offsetof(struct seccomp_data, args) + 8 * (i)))

#define LOAD(off)    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (off))
#define AND(v)	     BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (v))
#define JEQ(v, t, f) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (v), (t), (f))
#define JGE(v, t, f) BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (v), (t), (f))
#define RET(v)	     BPF_STMT(BPF_RET | BPF_K, (v))

/* The head of all: goes on behind it with a call from the code page, or answers @outside. */
#define FROM_CODE_PAGE(outside)                                                                    \
	LOAD(FIELD(instruction_pointer)), AND((uint32_t)PAGE_MASK),                                \
		JEQ((uint32_t)STUB_CODE, 1, 0), outside, LOAD(FIELD(instruction_pointer) + 4),     \
		JEQ((uint32_t)(STUB_CODE >> 32), 1, 0), outside
/* The same, with the @n instructions of @outside. */
#define FROM_CODE_PAGE_OR(n, outside)                                                              \
	LOAD(FIELD(instruction_pointer)), AND((uint32_t)PAGE_MASK),                                \
		JEQ((uint32_t)STUB_CODE, 0, 2), LOAD(FIELD(instruction_pointer) + 4),              \
		JEQ((uint32_t)(STUB_CODE >> 32), (n), 0), outside
#define NATIVE LOAD(FIELD(arch)), JEQ(AUDIT_ARCH_X86_64, 1, 0), RET(SECCOMP_RET_TRAP)
/* Jump offsets count from the next instruction: the ALLOW is at the end. */
#define ALLOW_CALL(nr) JEQ((nr), 0, 1), RET(SECCOMP_RET_ALLOW)
#define TRAP_FOR(nr)   JEQ((nr), 0, 1), RET(SECCOMP_RET_TRAP)

/* What user threads may do in the code page; the rest traps. */
#define USER_CALLS                                                                                 \
	ALLOW_CALL(SYS_rt_sigreturn), JEQ(SYS_futex, 0, 5), LOAD(ARG_LOW(1)),                      \
		JEQ(FUTEX_WAIT, 1, 0), JEQ(FUTEX_WAKE, 0, 1), RET(SECCOMP_RET_ALLOW),              \
		RET(SECCOMP_RET_TRAP), ALLOW_CALL(SYS_rt_sigprocmask),                             \
		ALLOW_CALL(SYS_restart_syscall), JEQ(SYS_arch_prctl, 1, 0), RET(SECCOMP_RET_TRAP), \
		LOAD(ARG_LOW(0)), JEQ(ARCH_SET_FS, 2, 0), JEQ(ARCH_SET_GS, 1, 0),                  \
		RET(SECCOMP_RET_TRAP), RET(SECCOMP_RET_ALLOW)

/*
 * All but calls that set or copy registers (clone, fork, vfork, execve and exit are neighbours),
 * never return, or likely end in a signal handler: these need the registers anyway. Vsyscalls,
 * whose "instruction" is in the last page of the address space, can't be restarted after a kick.
 */
#define USER_NOTIFICATIONS                                                                         \
	LOAD(FIELD(instruction_pointer) + 4), TRAP_FOR(0xffffffff), NATIVE, LOAD(FIELD(nr)),       \
		JGE(SYS_clone, 0, 1), JGE(SYS_exit + 1, 0, 13), JEQ(SYS_rt_sigreturn, 12, 0),      \
		JEQ(SYS_pause, 11, 0), JEQ(SYS_kill, 10, 0), JEQ(SYS_rt_sigsuspend, 9, 0),         \
		JEQ(SYS_sigaltstack, 8, 0), JEQ(SYS_arch_prctl, 7, 0), JEQ(SYS_tkill, 6, 0),       \
		JEQ(SYS_tgkill, 5, 0), JEQ(SYS_exit_group, 4, 0), JEQ(SYS_execveat, 3, 0),         \
		JEQ(SYS_clone3, 2, 0), JGE(0x400, 1, 0), RET(SECCOMP_RET_USER_NOTIF),              \
		RET(SECCOMP_RET_TRAP)

int systrap_filter_install(void)
{
	static struct sock_filter filter[] = {
		FROM_CODE_PAGE(RET(SECCOMP_RET_TRACE)),
		NATIVE,
		LOAD(FIELD(nr)),
		ALLOW_CALL(SYS_futex),
		ALLOW_CALL(SYS_rt_sigreturn),
		ALLOW_CALL(SYS_mmap),
		ALLOW_CALL(SYS_munmap),
		ALLOW_CALL(SYS_pwrite64),
		ALLOW_CALL(SYS_lseek),
		ALLOW_CALL(SYS_clone),
		ALLOW_CALL(SYS_recvmsg),
		ALLOW_CALL(SYS_prctl),
		ALLOW_CALL(SYS_getppid),
		ALLOW_CALL(SYS_sigaltstack),
		ALLOW_CALL(SYS_rt_sigprocmask),
		ALLOW_CALL(SYS_seccomp),
		ALLOW_CALL(SYS_arch_prctl),
		ALLOW_CALL(SYS_exit_group),
		ALLOW_CALL(SYS_restart_syscall),
		ALLOW_CALL(SYS_close),
		ALLOW_CALL(SYS_pause),
		RET(SECCOMP_RET_TRAP),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(filter), .filter = filter};

	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &prog))
		return -errno;
	return 0;
}

/* Puts a struct sock_fprog at @at of the code page, its instructions @from the filters' start. */
static void write_prog(char *page, size_t at, const struct sock_filter *filter, size_t n,
		       size_t from)
{
	struct {
		uint16_t len;
		uint64_t filter;
	} prog = {.len = (uint16_t)n, .filter = STUB_CODE + CODE_FILTER + from};

	_Static_assert(sizeof(prog) == sizeof(struct sock_fprog), "sock_fprog");
	_Static_assert(CODE_PROG + sizeof(prog) <= CODE_PROG_NOTIFY, "the code page");
	_Static_assert(CODE_PROG_NOTIFY + sizeof(prog) <= CODE_FILTER, "the code page");
	memcpy(page + at, &prog, sizeof(prog));
	memcpy(page + CODE_FILTER + from, filter, n * sizeof(*filter));
}

void filter_write_user(void *page)
{
	static const struct sock_filter outside[] = {USER_NOTIFICATIONS};
	static const struct sock_filter trapping[] = {
		FROM_CODE_PAGE(RET(SECCOMP_RET_TRAP)),
		NATIVE,
		LOAD(FIELD(nr)),
		JEQ(SYS_pause, 0, 1),
		RET(SECCOMP_RET_ERRNO | ENOSYS),
		USER_CALLS,
	};
	static const struct sock_filter notifying[] = {
		FROM_CODE_PAGE_OR(ARRAY_SIZE(outside), USER_NOTIFICATIONS),
		NATIVE,
		LOAD(FIELD(nr)),
		JEQ(SYS_pause, 0, 1),
		RET(SECCOMP_RET_USER_NOTIF),
		USER_CALLS,
	};

	_Static_assert(CODE_FILTER + sizeof(trapping) + sizeof(notifying) <= PAGE_SIZE,
		       "the code page");
	write_prog(page, CODE_PROG, trapping, ARRAY_SIZE(trapping), 0);
	write_prog(page, CODE_PROG_NOTIFY, notifying, ARRAY_SIZE(notifying), sizeof(trapping));
}

bool filter_is_stop(int nr, uaddr_t ip)
{
	return nr == SYS_pause && (ip & PAGE_MASK) == STUB_CODE;
}
