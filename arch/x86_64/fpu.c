/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended state as bytes: XSAVE standard format, whose layout CPUID leaf 0xd gives. SDM vol. 1,
 * 13.4. What applications run with is a fixed choice of components, so that the size is known
 * before the first task exists; none of the dynamically enabled ones (AMX) is in it.
 */
#include "arch/x86_64/arch.h"

#include <cpuid.h>
#include <string.h>
#include <sys/auxv.h>

#define FXSAVE_SIZE	   512
#define XSAVE_HDR_SIZE	   64
#define FCW_INIT	   0x037f
#define MXCSR_INIT	   0x1f80
#define MXCSR_DEFAULT_MASK 0xffbf

/* Byte offsets in the legacy region and the header. */
#define FX_FCW	      0
#define FX_FSW	      2
#define FX_MXCSR      24
#define FX_MXCSR_MASK 28
#define XS_BV	      512

#define XCR0_X87_SSE 0x3UL
#define XCR0_AVX     0x4UL
#define XCR0_AVX512  0xe0UL
#define AVX_END	     832 /* of the one component whose place never varied; behind it CPUs differ */

static struct {
	uint64_t xcr0;
	size_t size;
	uint32_t mxcsr_mask;
} fpu_info;

static uint64_t xgetbv0(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

/*
 * CPUID costs some ten microseconds in a virtual machine, so it is asked no more than needed. The
 * kernel says how large its signal frames are: this large they are with XSAVE only.
 */
#define FRAME_WITH_AVX 1700

static bool has_xsave(void)
{
	uint32_t a, b, c = 0, d;

	if (getauxval(AT_MINSIGSTKSZ) >= FRAME_WITH_AVX)
		return true;
	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE);
}

/* Where AVX-512's components end. */
static size_t avx512_end(void)
{
	uint32_t a, b, c, d, end = 0;

	/* What the host has enabled ends with them, but for the protection keys' 8 bytes. */
	__cpuid_count(0xd, 0, a, b, c, d);
	if (b <= PAGE_SIZE)
		return b;
	for (unsigned int i = 5; i < 8; i++) {
		__cpuid_count(0xd, i, a, b, c, d);
		end = MAX(end, a + b);
	}
	return end;
}

__attribute__((constructor)) static void fpu_detect(void)
{
	uint8_t fx[FXSAVE_SIZE] __attribute__((aligned(16))) = {0};
	uint64_t host;

	__asm__ volatile("fxsave %0" : "=m"(fx));
	memcpy(&fpu_info.mxcsr_mask, fx + FX_MXCSR_MASK, sizeof(fpu_info.mxcsr_mask));
	if (!fpu_info.mxcsr_mask)
		fpu_info.mxcsr_mask = MXCSR_DEFAULT_MASK;

	fpu_info.xcr0 = XCR0_X87_SSE;
	fpu_info.size = FXSAVE_SIZE + XSAVE_HDR_SIZE;
	if (!has_xsave())
		return;
	host = xgetbv0();
	if (!(host & XCR0_AVX))
		return;
	fpu_info.xcr0 |= XCR0_AVX;
	fpu_info.size = AVX_END;
	if ((host & XCR0_AVX512) != XCR0_AVX512)
		return;
	fpu_info.xcr0 |= XCR0_AVX512;
	fpu_info.size = avx512_end();
}

size_t arch_fpu_size(void)
{
	return fpu_info.size;
}

uint64_t arch_xcr0(void)
{
	return fpu_info.xcr0;
}

void arch_fpu_init(void *fpu)
{
	static const uint16_t fcw = FCW_INIT;
	static const uint32_t mxcsr = MXCSR_INIT;
	static const uint64_t bv = XCR0_X87_SSE;
	uint8_t *p = fpu;

	memset(p, 0, fpu_info.size);
	memcpy(p + FX_FCW, &fcw, sizeof(fcw));
	memcpy(p + FX_MXCSR, &mxcsr, sizeof(mxcsr));
	memcpy(p + FX_MXCSR_MASK, &fpu_info.mxcsr_mask, sizeof(fpu_info.mxcsr_mask));
	memcpy(p + XS_BV, &bv, sizeof(bv));
}

void arch_fpu_sanitize(void *fpu)
{
	uint8_t *p = fpu;
	uint32_t mxcsr;
	uint64_t bv;

	memcpy(&mxcsr, p + FX_MXCSR, sizeof(mxcsr));
	mxcsr &= fpu_info.mxcsr_mask;
	memcpy(p + FX_MXCSR, &mxcsr, sizeof(mxcsr));
	memcpy(p + FX_MXCSR_MASK, &fpu_info.mxcsr_mask, sizeof(fpu_info.mxcsr_mask));
	memcpy(&bv, p + XS_BV, sizeof(bv));
	bv &= fpu_info.xcr0;
	memset(p + FXSAVE_SIZE, 0, XSAVE_HDR_SIZE);
	memcpy(p + XS_BV, &bv, sizeof(bv));
}

int arch_fpu_exception_code(unsigned int vector, const void *fpu)
{
	const uint8_t *p = fpu;
	uint16_t fcw, fsw;
	uint32_t mxcsr, err;

	memcpy(&fcw, p + FX_FCW, sizeof(fcw));
	memcpy(&fsw, p + FX_FSW, sizeof(fsw));
	memcpy(&mxcsr, p + FX_MXCSR, sizeof(mxcsr));
	if (vector == ARCH_EXC_MF)
		err = fsw & ~fcw;
	else
		err = mxcsr & ~(mxcsr >> 7);
	if (err & 0x01)
		return FPE_FLTINV;
	if (err & 0x04)
		return FPE_FLTDIV;
	if (err & 0x08)
		return FPE_FLTOVF;
	if (err & 0x12) /* denormal, underflow */
		return FPE_FLTUND;
	if (err & 0x20)
		return FPE_FLTRES;
	return 0;
}
