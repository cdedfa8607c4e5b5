/* SPDX-License-Identifier: Apache-2.0 */
/* What the auxiliary vector says about the CPU. */
#include "arch/x86_64/arch.h"

#include <cpuid.h>
#include <sys/auxv.h>

#define HWCAP2_FSGSBASE_BIT 0x2UL

uint64_t arch_hwcap(void)
{
	uint32_t a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) ? d : 0;
}

uint64_t arch_hwcap2(void)
{
	return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT;
}
