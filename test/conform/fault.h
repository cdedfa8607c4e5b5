/* SPDX-License-Identifier: Apache-2.0 */
/* Expecting a memory access to fault: CHECK_FAULT(SIGSEGV, SEGV_MAPERR, address, statement). */
#ifndef TEST_CONFORM_FAULT_H
#define TEST_CONFORM_FAULT_H

#include <setjmp.h>

#include "test/conform/conform.h"

static sigjmp_buf fault_env;
static volatile siginfo_t fault_info;

static void fault_caught(int sig, siginfo_t *info, void *uc UNUSED)
{
	fault_info.si_signo = sig;
	fault_info.si_code = info->si_code;
	fault_info.si_addr = info->si_addr;
	siglongjmp(fault_env, 1);
}

/* True if the statement raised a signal, which is then described in fault_info. */
#define FAULTED(sig, statement)                                               \
	({                                                                    \
		bool faulted_ = true;                                         \
		on_siginfo(sig, fault_caught, 0);                             \
		if (!sigsetjmp(fault_env, 1)) {                               \
			statement;                                            \
			faulted_ = false;                                     \
		}                                                             \
		signal(sig, SIG_DFL);                                         \
		faulted_;                                                     \
	})

#define CHECK_FAULT(sig, code, addr, statement)                               \
	do {                                                                  \
		CHECK(FAULTED(sig, statement));                               \
		CHECK_EQ(fault_info.si_signo, sig);                           \
		CHECK_EQ(fault_info.si_code, code);                           \
		CHECK_EQ((uintptr_t)fault_info.si_addr, (uintptr_t)(addr));   \
	} while (0)

static inline char peek(const volatile char *p)
{
	return *p;
}

static inline void poke(volatile char *p, char c)
{
	*p = c;
}

#endif
