/* SPDX-License-Identifier: Apache-2.0 */
/* What the auxiliary vector says about the CPU. */
#include "arch/x86_64/arch.h"

#include <sys/auxv.h>

uint64_t arch_hwcap(void)
{
	/*
	 * CPUID.1:EDX, as the host's kernel found it: CPUID itself is an exit in a virtual machine.
	 */
	return getauxval(AT_HWCAP);
}

uint64_t arch_hwcap2(void)
{
	/*
	 * FSGSBASE isn't offered: the GS base leads to a thread's call box (callstub.h), and only
	 * arch_prctl says that a program wants it for itself.
	 */
	return 0;
}
