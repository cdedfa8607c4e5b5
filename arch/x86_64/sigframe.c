/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signal frames, byte for byte what Linux pushes (arch/x86/include/uapi/asm/sigcontext.h and
 * ucontext.h are the ABI): debuggers, unwinders and runtimes read them.
 *
 *   high   red zone of the interrupted code (128 bytes), unless the alternate stack is entered
 *          XSAVE area, 64-byte aligned, with a magic word behind it
 *          struct rt_sigframe: restorer, ucontext, siginfo; 8 below 16-byte alignment
 *   low    <- rsp in the handler, as if the restorer had called it
 */
#include "arch/x86_64/arch.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define RED_ZONE	     128
#define FX_SIZE		     512
#define FX_SW_OFFSET	     464 /* struct fx_sw_bytes: free for software in the legacy area */
#define XSAVE_HDR_SIZE	     64
#define FP_XSTATE_MAGIC1     0x46505853U
#define FP_XSTATE_MAGIC2     0x46505845U
#define UC_FP_XSTATE	     0x1
#define UC_SIGCONTEXT_SS     0x2
#define UC_STRICT_RESTORE_SS 0x4
#define EFLAGS_TF	     0x100UL
#define EFLAGS_DF	     0x400UL
#define EFLAGS_RF	     0x10000UL
/* What rt_sigreturn may set, as Linux's FIX_EFLAGS: AC OF DF TF SF ZF AF PF CF RF. */
#define EFLAGS_RESTORED 0x50dd5UL
#define SELECTOR_MASK	0xffff

struct frame_sigcontext {
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2;
	uint64_t fpstate;
	uint64_t reserved[8];
};

struct frame_ucontext {
	uint64_t flags;
	uint64_t link;
	uint64_t stack_sp;
	int32_t stack_flags;
	int32_t pad;
	uint64_t stack_size;
	struct frame_sigcontext mcontext;
	uint64_t sigmask;
};

struct rt_sigframe {
	uint64_t restorer;
	struct frame_ucontext uc;
	uint8_t info[128];
};

struct fx_sw_bytes {
	uint32_t magic1;
	uint32_t extended_size; /* with magic2 */
	uint64_t xfeatures;
	uint32_t xstate_size;
	uint32_t pad[7];
};

static_assert(sizeof(struct frame_sigcontext) == 256, "sigcontext ABI");
static_assert(offsetof(struct frame_ucontext, sigmask) == 296, "ucontext ABI");
static_assert(sizeof(struct rt_sigframe) == 440, "rt_sigframe ABI");
static_assert(sizeof(siginfo_t) == 128, "siginfo ABI");
static_assert(FX_SW_OFFSET + sizeof(struct fx_sw_bytes) == FX_SIZE, "fxsave ABI");

uint64_t arch_minsigstksz(void)
{
	return ALIGN_UP(sizeof(struct rt_sigframe) + arch_fpu_size() + sizeof(uint32_t) + 63 + 16 +
				8,
			16UL);
}

static int push_fpu(struct usermem *um, uaddr_t at, const void *fpu)
{
	static const uint32_t magic2 = FP_XSTATE_MAGIC2;
	size_t size = arch_fpu_size();
	struct fx_sw_bytes sw = {
		.magic1 = FP_XSTATE_MAGIC1,
		.extended_size = (uint32_t)(size + sizeof(magic2)),
		.xfeatures = arch_xcr0(),
		.xstate_size = (uint32_t)size,
	};
	const uint8_t *p = fpu;

	if (copy_to_user(um, at, p, FX_SW_OFFSET) ||
	    copy_to_user(um, at + FX_SW_OFFSET, &sw, sizeof(sw)) ||
	    copy_to_user(um, at + FX_SIZE, p + FX_SIZE, size - FX_SIZE) ||
	    copy_to_user(um, at + size, &magic2, sizeof(magic2)))
		return -EFAULT;
	return 0;
}

int arch_sigframe_push(struct usermem *um, struct arch_regs *regs, void *fpu,
		       const struct arch_sigframe *frame)
{
	struct rt_sigframe f = {.restorer = frame->restorer};
	struct frame_sigcontext *mc = &f.uc.mcontext;
	uaddr_t sp, fp, at;

	if (frame->switch_stack)
		sp = frame->altstack_sp + frame->altstack_size;
	else
		sp = regs->rsp - RED_ZONE;
	if (sp < PAGE_SIZE || sp > USER_TOP)
		return -EFAULT;
	fp = ALIGN_DOWN(sp - arch_fpu_size() - sizeof(uint32_t), 64);
	at = ALIGN_DOWN(fp - sizeof(f), 16) - 8;
	/* Linux never lets a frame run off the alternate stack it starts on. */
	if (frame->switch_stack && at < frame->altstack_sp)
		return -EFAULT;

	f.uc.flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
	f.uc.stack_sp = frame->altstack_sp;
	f.uc.stack_flags = frame->altstack_flags;
	f.uc.stack_size = frame->altstack_size;
	f.uc.sigmask = frame->mask;
	*mc = (struct frame_sigcontext){
		.r8 = regs->r8,
		.r9 = regs->r9,
		.r10 = regs->r10,
		.r11 = regs->r11,
		.r12 = regs->r12,
		.r13 = regs->r13,
		.r14 = regs->r14,
		.r15 = regs->r15,
		.rdi = regs->rdi,
		.rsi = regs->rsi,
		.rbp = regs->rbp,
		.rbx = regs->rbx,
		.rdx = regs->rdx,
		.rax = regs->rax,
		.rcx = regs->rcx,
		.rsp = regs->rsp,
		.rip = regs->rip,
		.eflags = regs->eflags,
		.cs = (uint16_t)regs->cs,
		.ss = (uint16_t)regs->ss,
		.err = frame->err,
		.trapno = frame->trapno,
		.oldmask = frame->mask,
		.cr2 = frame->cr2,
		.fpstate = fp,
	};
	memcpy(f.info, frame->info, sizeof(f.info));

	if (push_fpu(um, fp, fpu) || copy_to_user(um, at, &f, sizeof(f)))
		return -EFAULT;

	regs->rdi = (uint64_t)frame->info->si_signo;
	regs->rsi = at + offsetof(struct rt_sigframe, info);
	regs->rdx = at + offsetof(struct rt_sigframe, uc);
	regs->rax = 0;
	regs->rip = frame->handler;
	regs->rsp = at;
	regs->cs = ARCH_USER_CS;
	regs->ss = ARCH_USER_SS;
	regs->eflags &= ~(EFLAGS_DF | EFLAGS_RF | EFLAGS_TF);
	regs->orig_rax = (uint64_t)-1;
	arch_fpu_init(fpu);
	return 0;
}

/*
 * Reads the state at @at over @fpu. A frame without the magic words (made by hand, or by a runtime
 * that knows only FXSAVE) restores the legacy part and resets the rest, as Linux does.
 */
static int pop_fpu(struct usermem *um, uaddr_t at, void *fpu)
{
	static const uint64_t legacy_bv = 0x3;
	uint8_t fx[FX_SIZE], *p = fpu;
	struct fx_sw_bytes sw;
	uint32_t magic2;

	if (copy_from_user(um, fx, at, sizeof(fx)))
		return -EFAULT;
	memcpy(&sw, fx + FX_SW_OFFSET, sizeof(sw));
	arch_fpu_init(p);
	if (sw.magic1 == FP_XSTATE_MAGIC1 && sw.xstate_size >= FX_SIZE + XSAVE_HDR_SIZE &&
	    sw.xstate_size <= arch_fpu_size() && sw.extended_size >= sw.xstate_size &&
	    !copy_from_user(um, &magic2, at + sw.xstate_size, sizeof(magic2)) &&
	    magic2 == FP_XSTATE_MAGIC2) {
		uint64_t bv;

		if (copy_from_user(um, p + FX_SIZE, at + FX_SIZE, sw.xstate_size - FX_SIZE))
			return -EFAULT;
		memcpy(&bv, p + FX_SIZE, sizeof(bv));
		bv &= sw.xfeatures;
		memcpy(p + FX_SIZE, &bv, sizeof(bv));
	} else {
		memcpy(p + FX_SIZE, &legacy_bv, sizeof(legacy_bv));
	}
	memcpy(p, fx, FX_SW_OFFSET);
	memset(p + FX_SW_OFFSET, 0, FX_SIZE - FX_SW_OFFSET);
	arch_fpu_sanitize(p);
	return 0;
}

int arch_sigframe_pop(struct usermem *um, struct arch_regs *regs, void *fpu, uint64_t *mask,
		      uaddr_t *altstack_sp, uint64_t *altstack_size, int *altstack_flags)
{
	const struct frame_sigcontext *mc;
	struct frame_ucontext uc;

	/* The handler's return took the restorer off. */
	if (copy_from_user(um, &uc, regs->rsp, sizeof(uc)))
		return -EFAULT;
	mc = &uc.mcontext;
	if (!mc->fpstate)
		arch_fpu_init(fpu);
	else if (pop_fpu(um, mc->fpstate, fpu))
		return -EFAULT;

	regs->r8 = mc->r8;
	regs->r9 = mc->r9;
	regs->r10 = mc->r10;
	regs->r11 = mc->r11;
	regs->r12 = mc->r12;
	regs->r13 = mc->r13;
	regs->r14 = mc->r14;
	regs->r15 = mc->r15;
	regs->rdi = mc->rdi;
	regs->rsi = mc->rsi;
	regs->rbp = mc->rbp;
	regs->rbx = mc->rbx;
	regs->rdx = mc->rdx;
	regs->rax = mc->rax;
	regs->rcx = mc->rcx;
	regs->rsp = mc->rsp;
	regs->rip = mc->rip;
	regs->eflags = (regs->eflags & ~EFLAGS_RESTORED) | (mc->eflags & EFLAGS_RESTORED) |
		       ARCH_EFLAGS_FIXED;
	/* There is one user code segment here, the 64-bit one. */
	regs->cs = ARCH_USER_CS;
	regs->ss = ARCH_USER_SS;
	regs->orig_rax = (uint64_t)-1;

	*mask = uc.sigmask;
	*altstack_sp = uc.stack_sp;
	*altstack_size = uc.stack_size;
	*altstack_flags = uc.stack_flags;
	return 0;
}
