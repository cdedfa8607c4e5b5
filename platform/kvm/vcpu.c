/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPUs: made straight into long mode, and the parts of a context's state that live in them.
 *
 * What a doorbell needs goes through the kvm_run page. Extended state and segment bases are moved
 * only when they change hands: a context that keeps its vCPU never pays for them.
 */
#include "platform/kvm/internal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/log.h"

#define CR0_LONG_MODE 0x80050033UL /* PG AM WP NE ET MP PE */
#define EFER_VALUE    0xd01UL	   /* SCE LME LMA NXE */
#define MSR_TSC	      0x10
#define MSR_STAR      0xc0000081
#define MSR_LSTAR     0xc0000082
#define MSR_SFMASK    0xc0000084
#define MSR_FS_BASE   0xc0000100
#define MSR_GS_BASE   0xc0000101
/* As Linux masks on SYSCALL: TF IF DF IOPL NT AC, and the arithmetic flags of new kernels not. */
#define SFMASK_VALUE 0x47700UL

#ifndef KVM_VCPU_TSC_CTRL
#define KVM_VCPU_TSC_CTRL   0
#define KVM_VCPU_TSC_OFFSET 0
#endif

#define MAX_MSRS 4
union msr_buf {
	struct kvm_msrs m;
	uint8_t space[sizeof(struct kvm_msrs) + MAX_MSRS * sizeof(struct kvm_msr_entry)];
};

static int set_msrs(int fd, const struct kvm_msr_entry *e, size_t n)
{
	union msr_buf msrs = {.m.nmsrs = (uint32_t)n};
	int set;

	memcpy(msrs.m.entries, e, n * sizeof(*e));
	set = ioctl(fd, KVM_SET_MSRS, &msrs);
	if (set < 0)
		return -errno;
	return (size_t)set == n ? 0 : -EINVAL;
}

static void make_segment(struct kvm_segment *s, uint16_t selector, uint8_t type, uint8_t dpl,
			 bool code)
{
	*s = (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.dpl = dpl,
		.db = !code,
		.s = 1,
		.l = code,
		.g = 1,
	};
}

static void kernel_segments(const struct vcpu *v, struct kvm_sregs *s)
{
	make_segment(&s->cs, TRAMP_KERNEL_CS, 11, 0, true);
	make_segment(&s->ss, TRAMP_KERNEL_SS, 3, 0, false);
	make_segment(&s->ds, ARCH_USER_SS, 3, 3, false);
	make_segment(&s->es, ARCH_USER_SS, 3, 3, false);
	make_segment(&s->fs, 0, 3, 3, false);
	make_segment(&s->gs, 0, 3, 3, false);
	memset(&s->tr, 0, sizeof(s->tr));
	s->tr.base = v->va + TRAMP_OFF_PRIV + TRAMP_PRIV_TSS;
	s->tr.limit = sizeof(struct tramp_tss) - 1;
	s->tr.selector = TRAMP_TSS_SEL;
	s->tr.type = 11;
	s->tr.present = 1;
	s->gdt.base = v->va + TRAMP_OFF_GDT;
	s->gdt.limit = 7 * 8 - 1;
	s->idt.base = v->va + TRAMP_OFF_PRIV;
	s->idt.limit = sizeof(v->priv->idt) - 1;
}

/* IDT and TSS. Only #BP and #OF may be raised by an instruction of user code. */
static void setup_priv(struct vcpu *v)
{
	struct tramp_priv *priv = v->priv;
	uint64_t rsp0 = v->va + TRAMP_OFF_PRIV + TRAMP_PRIV_STACK;

	for (unsigned int i = 0; i < TRAMP_NR_VECTORS; i++) {
		uint64_t h = vcpu_label(v, tramp_vectors) + i * TRAMP_STUB_SIZE;
		uint64_t gate = i == ARCH_EXC_BP || i == ARCH_EXC_OF ? 0xee : 0x8e;

		if (i == ARCH_EXC_PF)
			h = vcpu_label(v, tramp_fault);
		priv->idt[i][0] = (h & 0xffff) | (uint64_t)TRAMP_KERNEL_CS << 16 | gate << 40 |
				  (h >> 16 & 0xffff) << 48;
		priv->idt[i][1] = h >> 32;
	}
	memcpy(priv->tss.rsp0, &rsp0, sizeof(rsp0));
	priv->tss.iomap = sizeof(struct tramp_tss);
}

static void map_pages(struct vcpu *v)
{
	size_t page = KAREA_VCPU + 2 * (size_t)v->index;
	uint64_t *pt = karea_ptr(KAREA_VCPU_PT);
	uint64_t *e = &pt[(v->va - TRAMP_VCPU_BASE) >> PAGE_SHIFT];

	v->frame = karea_ptr(page);
	v->priv = karea_ptr(page + 1);
	pte_write(&e[0], karea_gpa(KAREA_CODE) | PTE_P | PTE_A);
	pte_write(&e[1], karea_gpa(page) | PTE_P | PTE_RW | PTE_A | PTE_D | PTE_NX);
	pte_write(&e[2], karea_gpa(page + 1) | PTE_P | PTE_RW | PTE_A | PTE_D | PTE_NX);
	pte_write(&e[3], karea_gpa(KAREA_GDT) | PTE_P | PTE_A | PTE_NX);
}

static int setup_sregs(struct vcpu *v)
{
	struct kvm_sregs s;

	if (ioctl(v->fd, KVM_GET_SREGS, &s))
		return -errno;
	kernel_segments(v, &s);
	memset(&s.ldt, 0, sizeof(s.ldt));
	s.ldt.type = 2;
	s.ldt.unusable = 1;
	s.cr0 = CR0_LONG_MODE;
	s.cr2 = 0;
	s.cr3 = v->cr3[0];
	s.cr4 = kvm_vm.cr4;
	s.efer = EFER_VALUE;
	return ioctl(v->fd, KVM_SET_SREGS, &s) ? -errno : 0;
}

int vcpu_to_kernel(struct vcpu *v)
{
	struct kvm_sregs s;

	if (ioctl(v->fd, KVM_GET_SREGS, &s))
		return -errno;
	make_segment(&s.cs, TRAMP_KERNEL_CS, 11, 0, true);
	make_segment(&s.ss, TRAMP_KERNEL_SS, 3, 0, false);
	if (ioctl(v->fd, KVM_SET_SREGS, &s))
		return -errno;
	v->ring = RING_KERNEL;
	return 0;
}

int vcpu_adopt(struct vcpu *v, struct kvm_context *ctx)
{
	struct kvm_sregs s;

	ctx->fpu_cpu = ctx->bases_cpu = false;
	if (v->fresh)
		return 0;
	/* Whatever selectors and bases its last user left behind go. */
	if (ioctl(v->fd, KVM_GET_SREGS, &s))
		return -errno;
	kernel_segments(v, &s);
	s.fs.base = ctx->fs_base;
	s.gs.base = ctx->gs_base;
	if (ioctl(v->fd, KVM_SET_SREGS, &s))
		return -errno;
	ctx->bases_cpu = true;
	v->ring = RING_KERNEL;
	return 0;
}

/* The guest's time stamp counter is the host's, so that the vDSO needs one set of numbers. */
static void setup_tsc(struct vcpu *v)
{
	uint64_t offset = 0;
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)&offset,
	};

	if (ioctl(v->fd, KVM_SET_DEVICE_ATTR, &attr)) {
		struct kvm_msr_entry e = {.index = MSR_TSC, .data = __builtin_ia32_rdtsc()};
		int err = set_msrs(v->fd, &e, 1);

		if (err)
			log_warn("vCPU %d: can't set the time stamp counter: %s", v->index,
				 strerror(-err));
	}
}

static int setup_state(struct vcpu *v)
{
	struct kvm_msr_entry msrs[3] = {
		{.index = MSR_STAR, .data = (uint64_t)TRAMP_KERNEL_CS << 32 | 0x23ULL << 48},
		{.index = MSR_LSTAR, .data = vcpu_label(v, tramp_syscall)},
		{.index = MSR_SFMASK, .data = SFMASK_VALUE},
	};
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = arch_xcr0()};
	int err;

	if (ioctl(v->fd, KVM_SET_CPUID2, kvm_vm.cpuid))
		return -errno;
	err = setup_sregs(v);
	if (err)
		return err;
	err = set_msrs(v->fd, msrs, ARRAY_SIZE(msrs));
	if (err)
		return err;
	if (kvm_vm.cr4 & CR4_OSXSAVE && ioctl(v->fd, KVM_SET_XCRS, &xcrs))
		return -errno;
	setup_tsc(v);
	return 0;
}

int vcpu_new(struct vcpu **out)
{
	unsigned int index = atomic_load(&kvm_vm.nr_vcpus);
	struct vcpu *v = kvm_vm.spare;
	int err;

	if (v) {
		kvm_vm.spare = NULL;
		*out = v;
		return 0;
	}
	v = &kvm_vm.vcpus[index];
	if (index >= kvm_vm.max_vcpus)
		return -EAGAIN;
	memset(v, 0, sizeof(*v));
	v->index = (int)index;
	v->va = TRAMP_VCPU_BASE + index * (uint64_t)TRAMP_VCPU_STRIDE;
	v->fresh = true;
	v->cr3[0] = v->cr3[1] = karea_gpa(KAREA_ROOT);
	list_init(&v->free_node);
	v->fd = ioctl(kvm_vm.fd, KVM_CREATE_VCPU, index);
	if (v->fd < 0) {
		err = -errno;
		/* The host's limit is lower than it says, or its memory or descriptors are out. */
		if (index)
			kvm_vm.max_vcpus = index;
		log_debug("vCPU %u: %s", index, strerror(-err));
		return index ? -EAGAIN : err;
	}
	v->run = mmap(NULL, kvm_vm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		err = -errno;
		goto out_fd;
	}
	map_pages(v);
	setup_priv(v);
	err = setup_state(v);
	if (err) {
		log_error("vCPU %u: KVM refuses its initial state: %s", index, strerror(-err));
		goto out_run;
	}
	v->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	atomic_store(&kvm_vm.nr_vcpus, index + 1);
	*out = v;
	return 0;

out_run:
	munmap(v->run, kvm_vm.run_size);
out_fd:
	close(v->fd);
	return err;
}

void vcpu_destroy_all(void)
{
	for (unsigned int i = 0; i < kvm_vm.nr_vcpus; i++) {
		munmap(kvm_vm.vcpus[i].run, kvm_vm.run_size);
		close(kvm_vm.vcpus[i].fd);
	}
	kvm_vm.nr_vcpus = 0;
}

/* On the stack: as thread-local variables they would be cleared whenever a host thread is made. */
#define XSAVE_MAX 16384

/* KVM's buffer may be larger than what applications use (AMX); both are the standard format. */
static int get_xsave(struct vcpu *v, void *fpu)
{
	uint8_t buf[XSAVE_MAX] __attribute__((aligned(64)));
	unsigned long call = kvm_vm.has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;

	if (kvm_vm.xsave_size > sizeof(buf))
		return -E2BIG;
	if (ioctl(v->fd, call, buf))
		return -errno;
	memcpy(fpu, buf, arch_fpu_size());
	arch_fpu_sanitize(fpu);
	return 0;
}

static int set_xsave(struct vcpu *v, const void *fpu)
{
	uint8_t buf[XSAVE_MAX] __attribute__((aligned(64)));

	if (kvm_vm.xsave_size > sizeof(buf))
		return -E2BIG;
	memset(buf + arch_fpu_size(), 0, kvm_vm.xsave_size - arch_fpu_size());
	memcpy(buf, fpu, arch_fpu_size());
	return ioctl(v->fd, KVM_SET_XSAVE, buf) ? -errno : 0;
}

int vcpu_save_fpu(struct vcpu *v, struct kvm_context *ctx)
{
	int err;

	if (ctx->fpu_mem)
		return 0;
	err = get_xsave(v, ctx->fpu);
	if (!err)
		ctx->fpu_mem = true;
	return err;
}

int vcpu_save_bases(struct vcpu *v, struct kvm_context *ctx)
{
	union msr_buf msrs = {.m.nmsrs = 2};
	int n;

	if (ctx->bases_mem)
		return 0;
	msrs.m.entries[0].index = MSR_FS_BASE;
	msrs.m.entries[1].index = MSR_GS_BASE;
	n = ioctl(v->fd, KVM_GET_MSRS, &msrs);
	if (n != 2)
		return n < 0 ? -errno : -EINVAL;
	ctx->fs_base = msrs.m.entries[0].data;
	ctx->gs_base = msrs.m.entries[1].data;
	ctx->bases_mem = true;
	return 0;
}

int vcpu_save(struct vcpu *v, struct kvm_context *ctx)
{
	int err = vcpu_save_fpu(v, ctx);

	return err ? err : vcpu_save_bases(v, ctx);
}

int vcpu_load(struct vcpu *v, struct kvm_context *ctx)
{
	int err;

	if (!ctx->bases_cpu && !(v->fresh && !ctx->fs_base && !ctx->gs_base)) {
		struct kvm_msr_entry e[2] = {
			{.index = MSR_FS_BASE, .data = ctx->fs_base},
			{.index = MSR_GS_BASE, .data = ctx->gs_base},
		};

		err = set_msrs(v->fd, e, 2);
		if (err)
			return err;
	}
	ctx->bases_cpu = true;
	if (!ctx->fpu_cpu) {
		if (!(v->fresh && ctx->fpu_initial)) {
			err = set_xsave(v, ctx->fpu);
			if (err)
				return err;
		}
		ctx->fpu_cpu = true;
	}
	v->fresh = false;
	return 0;
}

void vcpu_interrupt(struct vcpu *v)
{
	pid_t tid = atomic_load(&v->tid);

	/* The flag catches a thread on its way in, the signal one that is in. */
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (tid)
		syscall(SYS_tgkill, getpid(), tid, PLATFORM_KICK_SIGNAL);
}
