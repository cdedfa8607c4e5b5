/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two seccomp filters. All stubs have the first from before the master gave up the sentry's
 * memory; user threads add the second before they run user code. The stricter answer counts.
 *
 * SECCOMP_RET_TRAP everywhere else: for user code that is the system call's way to the sentry, and
 * leaders, which have SIGSYS blocked, are killed by it.
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
#define RET(v)	     BPF_STMT(BPF_RET | BPF_K, (v))

/* The head of both: goes on behind it with a native call from the code page, or traps. */
#define FROM_CODE_PAGE                                                                             \
	LOAD(FIELD(instruction_pointer)), AND((uint32_t)PAGE_MASK),                                \
		JEQ((uint32_t)STUB_CODE, 1, 0), RET(SECCOMP_RET_TRAP),                             \
		LOAD(FIELD(instruction_pointer) + 4), JEQ((uint32_t)(STUB_CODE >> 32), 1, 0),      \
		RET(SECCOMP_RET_TRAP), LOAD(FIELD(arch)), JEQ(AUDIT_ARCH_X86_64, 1, 0),            \
		RET(SECCOMP_RET_TRAP)
/* Jump offsets count from the next instruction: the ALLOW is at the end. */
#define ALLOW_CALL(nr) JEQ((nr), 0, 1), RET(SECCOMP_RET_ALLOW)

int systrap_filter_install(void)
{
	static struct sock_filter filter[] = {
		FROM_CODE_PAGE,
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
		RET(SECCOMP_RET_TRAP),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(filter), .filter = filter};

	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &prog))
		return -errno;
	return 0;
}

void filter_write_user(void *page)
{
	static const struct sock_filter filter[] = {
		FROM_CODE_PAGE,
		LOAD(FIELD(nr)),
		ALLOW_CALL(SYS_rt_sigreturn),
		JEQ(SYS_futex, 0, 5),
		LOAD(ARG_LOW(1)),
		JEQ(FUTEX_WAIT, 1, 0),
		JEQ(FUTEX_WAKE, 0, 1),
		RET(SECCOMP_RET_ALLOW),
		RET(SECCOMP_RET_TRAP),
		ALLOW_CALL(SYS_rt_sigprocmask),
		ALLOW_CALL(SYS_restart_syscall),
		JEQ(SYS_arch_prctl, 1, 0),
		RET(SECCOMP_RET_TRAP),
		LOAD(ARG_LOW(0)),
		JEQ(ARCH_SET_FS, 2, 0),
		JEQ(ARCH_SET_GS, 1, 0),
		RET(SECCOMP_RET_TRAP),
		RET(SECCOMP_RET_ALLOW),
	};
	struct {
		uint16_t len;
		uint64_t filter;
	} prog = {.len = ARRAY_SIZE(filter), .filter = STUB_CODE + CODE_FILTER};

	_Static_assert(CODE_FILTER + sizeof(filter) <= PAGE_SIZE, "the code page");
	_Static_assert(sizeof(prog) == sizeof(struct sock_fprog), "sock_fprog");
	_Static_assert(CODE_PROG + sizeof(prog) <= CODE_FILTER, "the code page");
	memcpy((char *)page + CODE_PROG, &prog, sizeof(prog));
	memcpy((char *)page + CODE_FILTER, filter, sizeof(filter));
}
