/* SPDX-License-Identifier: Apache-2.0 */
/* What stub platforms need to know about x86-64: faults, and the host kernel's XSAVE images. */
#include "platform/stub/stub.h"

#include <string.h>

/* An instruction may reach into the next page: 15 bytes at most. */
bool stub_fault_is_fetch(const struct arch_regs *regs, uaddr_t addr)
{
	return addr == regs->rip ||
	       (!(addr & ~PAGE_MASK) && addr > regs->rip && addr - regs->rip < 15);
}

uint64_t stub_fault_error(bool present, unsigned int access)
{
	return (present ? 1 : 0) | (access == ACCESS_WRITE ? 2 : 0) | 4 |
	       (access == ACCESS_EXEC ? 16 : 0);
}

/* XSAVE: XSTATE_BV is the first word of the header that follows the 512 legacy bytes. */
#define XSAVE_HEADER 512
#define XSAVE_MIN    576
#define XSTATE_SAFE  0xe7UL /* x87, SSE, AVX, AVX-512: what no permission is needed for */

static void set_xstate_bv(void *image, uint64_t bv)
{
	memset((char *)image + XSAVE_HEADER, 0, XSAVE_MIN - XSAVE_HEADER);
	memcpy((char *)image + XSAVE_HEADER, &bv, sizeof(bv));
}

static uint64_t xstate_bv(const void *image)
{
	uint64_t bv;

	memcpy(&bv, (const char *)image + XSAVE_HEADER, sizeof(bv));
	return bv;
}

void stub_fpu_from_kernel(void *fpu, const void *image, size_t kernel_size)
{
	size_t size = arch_fpu_size(), n = MIN(size, kernel_size);

	memcpy(fpu, image, n);
	memset((char *)fpu + n, 0, size - n);
	if (n >= XSAVE_MIN)
		set_xstate_bv(fpu, xstate_bv(image) & arch_xcr0());
	/* The kernel puts its own notes into the software-reserved bytes. */
	memset((char *)fpu + 464, 0, 48);
}

void stub_fpu_to_kernel(void *image, size_t kernel_size, const void *fpu)
{
	size_t size = arch_fpu_size(), n = MIN(size, kernel_size);

	memcpy(image, fpu, n);
	memset((char *)image + n, 0, kernel_size - n);
	if (n >= XSAVE_MIN)
		set_xstate_bv(image, xstate_bv(fpu) & arch_xcr0() & (XSTATE_SAFE | 0x200));
}

bool stub_base_valid(uint64_t base)
{
	return base < 0x7ffffffff000UL;
}
