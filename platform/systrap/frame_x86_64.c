/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signal frame that the host kernel leaves in a thread's area, and takes back at the return
 * from the signal (arch/x86/include/uapi/asm/sigcontext.h). User code can write it at any time,
 * also between two of our looks: values are read once, and addresses in it are checked to be in the
 * area. What the host kernel is given back it checks by itself.
 */
#include "platform/systrap/internal.h"

#include <linux/audit.h>
#include <signal.h>
#include <string.h>

#include "sentry/lib/err.h"

struct frame {
	uint64_t pretcode;
	/* struct ucontext */
	uint64_t flags, link;
	uint64_t stack[3];
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip;
	uint64_t eflags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2, fpstate;
	uint64_t reserved[8];
	uint64_t sigmask;
	/* siginfo_t */
	int32_t signo, errnum, code, pad;
	uint64_t addr; /* si_addr, si_call_addr */
	int32_t nr;    /* si_syscall */
	uint32_t arch; /* si_arch */
	uint8_t info[96];
};

_Static_assert(offsetof(struct frame, r8) == 8 + 40, "struct ucontext");
_Static_assert(offsetof(struct frame, cs) == 8 + 40 + 144, "struct sigcontext");
_Static_assert(offsetof(struct frame, fpstate) == 8 + 40 + 184, "struct sigcontext");
_Static_assert(offsetof(struct frame, sigmask) == 8 + 296, "struct ucontext");
_Static_assert(offsetof(struct frame, signo) == 8 + 304, "struct rt_sigframe");
_Static_assert(sizeof(struct frame) == 8 + 304 + 128, "struct rt_sigframe");

/* The software-reserved bytes of the legacy region: struct _fpx_sw_bytes. */
#define SW_BYTES       464
#define SW_BYTES_SIZE  48
#define SW_MAGIC       0x46505853u
#define SW_XSTATE_SIZE (SW_BYTES + 16)
#define XSTATE_BV      512
#define XSTATE_BV_PKRU 0x200UL
#define LEGACY_SIZE    512

#define ONCE(x) (*(const volatile __typeof__(x) *)&(x))

int frame_find(const struct systrap_thread *th, void **frame)
{
	uint64_t va = atomic_load_explicit(&th->ctl->frame, memory_order_relaxed);

	if (va % 8 || va < th->va + CTL_SIZE || va > th->va + AREA_SIZE - sizeof(struct frame))
		return -EFAULT;
	*frame = (char *)th->ctl + (va - th->va);
	return 0;
}

void frame_get_regs(const void *frame, struct arch_regs *regs)
{
	const struct frame *f = frame;

	regs->r15 = ONCE(f->r15);
	regs->r14 = ONCE(f->r14);
	regs->r13 = ONCE(f->r13);
	regs->r12 = ONCE(f->r12);
	regs->rbp = ONCE(f->rbp);
	regs->rbx = ONCE(f->rbx);
	regs->r11 = ONCE(f->r11);
	regs->r10 = ONCE(f->r10);
	regs->r9 = ONCE(f->r9);
	regs->r8 = ONCE(f->r8);
	regs->rax = ONCE(f->rax);
	regs->rcx = ONCE(f->rcx);
	regs->rdx = ONCE(f->rdx);
	regs->rsi = ONCE(f->rsi);
	regs->rdi = ONCE(f->rdi);
	regs->orig_rax = (uint64_t)-1;
	regs->rip = ONCE(f->rip);
	regs->cs = ARCH_USER_CS;
	regs->eflags = (ONCE(f->eflags) & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED;
	regs->rsp = ONCE(f->rsp);
	regs->ss = ARCH_USER_SS;
}

void frame_set_regs(void *frame, const struct arch_regs *regs)
{
	struct frame *f = frame;

	f->r15 = regs->r15;
	f->r14 = regs->r14;
	f->r13 = regs->r13;
	f->r12 = regs->r12;
	f->rbp = regs->rbp;
	f->rbx = regs->rbx;
	f->r11 = regs->r11;
	f->r10 = regs->r10;
	f->r9 = regs->r9;
	f->r8 = regs->r8;
	f->rax = regs->rax;
	f->rcx = regs->rcx;
	f->rdx = regs->rdx;
	f->rsi = regs->rsi;
	f->rdi = regs->rdi;
	f->rip = regs->rip;
	f->cs = ARCH_USER_CS;
	f->eflags = (regs->eflags & ARCH_EFLAGS_USER) | ARCH_EFLAGS_FIXED;
	f->rsp = regs->rsp;
	f->ss = ARCH_USER_SS;
	/* No signal is blocked in user code. */
	f->sigmask = 0;
}

/* The extended state, @size bytes. NULL: it isn't where it could be. */
static uint8_t *fpu_find(const struct systrap_thread *th, const struct frame *f, size_t size)
{
	uint64_t va = ONCE(f->fpstate);

	if (va % 64 || va < th->va + CTL_SIZE || va > th->va + AREA_SIZE - size)
		return NULL;
	return (uint8_t *)th->ctl + (va - th->va);
}

int frame_fpu_size(const struct systrap_thread *th, const void *frame, size_t *size)
{
	const uint8_t *image = fpu_find(th, frame, LEGACY_SIZE);
	uint32_t magic, n;

	if (!image)
		return -ENOEXEC;
	memcpy(&magic, image + SW_BYTES, sizeof(magic));
	memcpy(&n, image + SW_XSTATE_SIZE, sizeof(n));
	*size = magic == SW_MAGIC ? n : LEGACY_SIZE;
	return *size <= AREA_SIZE / 2 ? 0 : -ENOEXEC;
}

int frame_get_fpu(const struct systrap_platform *p, const struct systrap_thread *th,
		  const void *frame, void *fpu)
{
	const uint8_t *image = fpu_find(th, frame, p->fpu_size);

	if (!image)
		return -EFAULT;
	stub_fpu_from_kernel(fpu, image, p->fpu_size);
	/* It may have changed meanwhile. */
	arch_fpu_sanitize(fpu);
	return 0;
}

int frame_set_fpu(const struct systrap_platform *p, const struct systrap_thread *th, void *frame,
		  const void *fpu)
{
	uint8_t *image = fpu_find(th, frame, p->fpu_size);
	uint8_t notes[SW_BYTES_SIZE];
	uint64_t old, bv;

	if (!image)
		return -EFAULT;
	memcpy(notes, image + SW_BYTES, sizeof(notes));
	memcpy(&old, image + XSTATE_BV, sizeof(old));
	stub_fpu_to_kernel(image, MIN(p->fpu_size, arch_fpu_size()), fpu);
	memcpy(image + SW_BYTES, notes, sizeof(notes));
	if (p->fpu_size == LEGACY_SIZE)
		return 0;
	/* Components that the sentry knows nothing of stay as they are. */
	memcpy(&bv, image + XSTATE_BV, sizeof(bv));
	bv |= old & XSTATE_BV_PKRU;
	memcpy(image + XSTATE_BV, &bv, sizeof(bv));
	return 0;
}

void frame_scrub(const struct systrap_platform *p, const struct systrap_thread *th, void *frame)
{
	static const struct arch_regs none;
	struct frame *f = frame;
	uint8_t *image = fpu_find(th, f, p->fpu_size);
	uint8_t *stack = (uint8_t *)th->ctl + CTL_SIZE, *end = (uint8_t *)th->ctl + AREA_SIZE;

	frame_set_regs(f, &none);
	f->err = f->trapno = f->cr2 = 0;
	memset(&f->signo, 0, sizeof(*f) - offsetof(struct frame, signo));
	memset(stack, 0, (size_t)((uint8_t *)f - stack));
	if (!image || image < (uint8_t *)(f + 1))
		return;
	memset(f + 1, 0, (size_t)(image - (uint8_t *)(f + 1)));
	memset(image, 0, SW_BYTES);
	if (p->fpu_size > LEGACY_SIZE)
		memset(image + LEGACY_SIZE, 0, p->fpu_size - LEGACY_SIZE);
	image += p->fpu_size + 4; /* the second magic number */
	if (image < end)
		memset(image, 0, (size_t)(end - image));
}

void frame_get_stop(const struct systrap_thread *th, const void *frame, struct frame_stop *stop)
{
	const struct frame *f = frame;

	stop->sig = (int)atomic_load_explicit(&th->ctl->sig, memory_order_relaxed);
	stop->code = ONCE(f->code);
	stop->nr = ONCE(f->nr);
	stop->native = ONCE(f->arch) == AUDIT_ARCH_X86_64;
	stop->error = ONCE(f->err) & 0xffff;
	stop->vector = (unsigned int)ONCE(f->trapno) % ARCH_NR_EXC;
	stop->addr = stop->vector == ARCH_EXC_PF ? ONCE(f->cr2) : ONCE(f->addr);
}
