/* SPDX-License-Identifier: Apache-2.0 */
/* What the auxiliary vector says about the CPU. */
#include "arch/x86_64/arch.h"

#include <cpuid.h>

uint64_t arch_hwcap(void)
{
	uint32_t a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) ? d : 0;
}

uint64_t arch_hwcap2(void)
{
	/*
	 * FSGSBASE isn't offered: the GS base leads to a thread's call box (callstub.h), and only
	 * arch_prctl says that a program wants it for itself.
	 */
	return 0;
}
