/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KVM platform.
 *
 * One VM per sandbox, so one struct kvm_vm per process; it and the vCPUs are host resources and lie
 * outside of the arena. Contexts and address spaces lie in it and refer to vCPUs by index.
 *
 * A vCPU's life:
 *
 *	   vcpu_new	      bind		ctx_run		    trap
 *   (none) -----> FREE ------------> IDLE ------------> BUSY ------------> IDLE
 *		    ^	    ctx_destroy, or		  |
 *		    +------ stolen by a context ----------+ given up to one that waits
 *
 * vcpu->owner is the whole state: 0 is FREE, a context is IDLE, a context with VCPU_BUSY set is
 * BUSY. FREE to IDLE and back happens under the pool's lock, IDLE to BUSY and back by
 * compare-and-swap. Whoever holds it BUSY (its context's thread, or a thief) may use its file
 * descriptor.
 *
 * Address spaces and stale translations: see space.c.
 *
 * Locks: kvm_address_space.lock -> kvm_platform.tables_lock; the pool's lock is taken alone. All
 * are LOCK_PLATFORM. kvm_vm.slots_lock nests in the frame allocator's.
 */
#ifndef PLATFORM_KVM_INTERNAL_H
#define PLATFORM_KVM_INTERNAL_H

#include <linux/kvm.h>
#include <stdatomic.h>

#include "arch/x86_64/trampoline.h"
#include "platform/platform.h"
#include "sentry/lib/list.h"
#include "sentry/lib/lock.h"
#include "sentry/lib/physmem.h"

#define KVM_MAX_VCPU 1024 /* what the kernel half has room for */

/*
 * The kernel area: guest memory of the platform's own, outside of the memory file, in the gap
 * between RAM and files. Pages by index.
 */
#define KAREA_GPA	PHYS_RAM_SIZE
#define KAREA_ROOT	0 /* kernel half only: where a new vCPU starts */
#define KAREA_PDPT	1
#define KAREA_VCPU_PD	2
#define KAREA_VCPU_PT	3 /* 8 of them */
#define KAREA_CODE	11
#define KAREA_GDT	12
#define KAREA_DIRECT_PD 16  /* 192 of them */
#define KAREA_VCPU	256 /* 2 each: trap frame, private */
#define KAREA_PAGES	(KAREA_VCPU + 2 * KVM_MAX_VCPU)
#define KAREA_SIZE	(KAREA_PAGES * PAGE_SIZE)

/* What every address space has at TRAMP_ROOT_SLOT. */
#define KERNEL_ROOT_ENTRY ((KAREA_GPA + KAREA_PDPT * PAGE_SIZE) | PTE_P | PTE_RW | PTE_A)

#define CR4_PAE	       0x20U
#define CR4_OSFXSR     0x200U
#define CR4_OSXMMEXCPT 0x400U
#define CR4_FSGSBASE   0x10000U
#define CR4_OSXSAVE    0x40000U

enum vcpu_stat {
	VSTAT_ENTERS,
	VSTAT_SYSCALLS,
	VSTAT_FAULTS,
	VSTAT_EXCEPTIONS,
	VSTAT_KICKS,
	VSTAT_RETRIES,
	VSTAT_DRAINS,
	VSTAT_DRAIN_EXITS,
	VSTAT_PTE_STORES,
	VSTAT_POKES,
	VSTAT_CR3_LOADS,
	VSTAT_BINDS,
	NR_VSTATS,
};

enum vcpu_ring { RING_KERNEL, RING_USER };

struct kvm_address_space;
struct kvm_context;

struct vcpu {
	_Atomic uintptr_t owner; /* see above */
#define VCPU_BUSY 1UL
	int index;
	int fd;
	struct kvm_run *run;	   /* shared with KVM */
	struct tramp_frame *frame; /* the pages of the vCPU, */
	struct tramp_priv *priv;   /* as the host sees them */
	uint64_t va;		   /* and the guest */
	_Atomic pid_t tid;	   /* thread that runs it, or did last */
	_Atomic bool give_up;	   /* someone waits for a vCPU: let go of this one */
	_Atomic uint64_t since;	   /* its holder could run since then: CLOCK_MONOTONIC ns */
	/*
	 * Set while user code may be running there; as_invalidate waits for it to change.
	 * entered_gen is the generation it entered with.
	 */
	_Atomic(struct kvm_address_space *) in_guest;
	_Atomic uint64_t entered_gen;

	/* From here on the holder's (BUSY). */
	/* what CR3 and the TLB belong to; may dangle, only compared */
	struct kvm_address_space *as;
	uint64_t as_id;		      /* tells a new one at the same address */
	uint64_t gen;		      /* of as, up to which translations were dropped */
	enum vcpu_ring ring;	      /* where it stopped */
	bool fresh;		      /* extended state is still initial */
	bool draining;		      /* ring 0 has work in priv->ops, or CR3 to load */
	bool more;		      /* and it is not the last of it */
	size_t nr_entries, nr_tables; /* in priv->ops */
	size_t nr_done;		      /* of both, when a signal cut it short */
	size_t nr_recycled;	      /* of the tables: recycled ones, last, no address space's */
	uint64_t next_cr3, next_gen;  /* CR3 loaded by that work, or 0; gen afterwards */
	/* Root tables that CR3 may hold: not to be reused. Atomic. */
	_Atomic gpa_t cr3[2];
	/* Written by the holder, read by anyone. */
	_Atomic uint64_t stat[NR_VSTATS];
	struct list_head free_node; /* pool's lock */
};

/* A memory slot that was asked for before there was a VM. */
struct slot_request {
	gpa_t gpa;
	size_t len;
	void *host;
};
#define MAX_SLOT_REQUESTS 32

/*
 * The VM is made by a thread of its own (vm.c) while the sandbox boots: whoever needs it calls
 * kvm_vm_wait. What lies below `made` is the maker's until then, but for what slots_lock guards.
 */
struct kvm_vm {
	bool started; /* from kvm_vm_prepare to kvm_vm_destroy */
	bool joined;
	pthread_t maker;
	cpu_set_t cpus;		 /* that it may use when somebody waits for it; none: any */
	struct mutex slots_lock; /* slots, requests, made */
	struct slot_request requests[MAX_SLOT_REQUESTS];
	unsigned int nr_requests;
	_Atomic bool made;
	int error;	    /* of making it */
	int fd;		    /* -1: none */
	bool nested;	    /* the kernel module says that the CPU walks guest page tables */
	struct vcpu *spare; /* the first vCPU, made in advance; pool's lock */
	uint8_t *karea;
	size_t run_size;   /* of the kvm_run mapping */
	size_t xsave_size; /* of what KVM_GET_XSAVE fills */
	bool has_xsave2;
	uint32_t cr4;
	struct kvm_cpuid2 *cpuid; /* what vCPUs get */
	unsigned int nr_slots, max_slots;
	_Atomic unsigned int nr_vcpus, max_vcpus;
	struct vcpu vcpus[KVM_MAX_VCPU];
};

extern struct kvm_vm kvm_vm;
/* Tests set it before create: fewer vCPUs than the host offers. 0: no limit. */
extern unsigned int kvm_vcpu_limit;

/*
 * What it takes to make this KVM see that a present entry changed. Not known at first, because
 * finding out costs as much as starting a small program: until some address space wants to know
 * (space_wants_kind), every entry is stored, which is right everywhere.
 */
enum mmu_kind {
	MMU_UNKNOWN,
	MMU_COHERENT, /* nested paging: the CPU walks our tables, flushing is enough */
	MMU_POKE,     /* shadowed: one short store per table */
	MMU_STORE,    /* shadowed: every entry must be stored */
};

struct gpa_list {
	gpa_t *v;
	size_t n, cap;
};

struct kvm_platform {
	struct platform base;
	struct physmem_listener listener;
	_Atomic(enum mmu_kind) mmu;
	_Atomic bool finding_mmu; /* some thread is at it */
	_Atomic uint64_t next_as_id;
	_Atomic uint64_t invalidations, shootdowns; /* stats */

	struct mutex tables_lock;
	struct gpa_list clean; /* zeroed, no CPU knows them */
	struct gpa_list dirty; /* freed; contents and shadows as they were */
	_Atomic size_t nr_dirty;

	struct mutex pool_lock;
	struct list_head free;	  /* vcpu.free_node, most recently used first */
	struct list_head waiters; /* struct pool_waiter, first come first served */
	_Atomic unsigned int nr_waiters;
	unsigned int hand; /* where the last thief stopped */
};

/* Page-table work that some vCPU must do before any enters user mode. */
struct as_op {
	gpa_t gpa; /* of the entry, or of the table with OP_TABLE set */
	uaddr_t va;
};
#define OP_TABLE 1UL

struct kvm_address_space {
	struct address_space base;
	struct pagetable *pt;
	uint64_t id;
	enum mmu_kind forced;	       /* the self-test's: instead of the platform's */
	_Atomic bool wants_kind;       /* has had work that is dear while p->mmu is unknown */
	_Atomic uint64_t gen;	       /* counts invalidations */
	_Atomic bool has_work;	       /* nr_ops, all or drainer is set */
	_Atomic unsigned int watchers; /* as_invalidates that wait for vCPUs to leave */
	_Atomic uint32_t left;	       /* futex: counts vCPUs that left while watched */

	struct mutex lock; /* what follows */
	struct as_op *ops;
	size_t nr_ops, cap_ops;
	bool has_tables;   /* in ops, perhaps */
	bool all;	   /* list given up: every table, */
	uaddr_t all_next;  /* from here on */
	bool only_entries; /* ops hold every invalidation since base_gen, entry by entry */
	uint64_t base_gen;
	struct vcpu *drainer; /* entered the guest with work and has not been seen to finish */
};

struct kvm_context {
	struct context base;
	_Atomic int vcpu; /* index, or -1 */
	_Atomic bool kicked;
	_Atomic(struct vcpu *) active; /* while in ctx_run */
	_Atomic uint32_t wait_word;    /* futex: granted a vCPU, or kicked */
	_Atomic bool waiting;
	/*
	 * State in memory: `mem` says that it is right, `cpu` that the vCPU has it, too. Under the
	 * vCPU's BUSY bit, or if it has none, the thread's own.
	 */
	bool fpu_mem, fpu_cpu, bases_mem, bases_cpu;
	bool fpu_initial; /* fpu_mem, and it is the initial state */
	uint64_t fs_base, gs_base;
	uint8_t *fpu; /* arch_fpu_size() bytes, 64-byte aligned, in fpu_block */
	void *fpu_block;
};

static inline struct kvm_platform *to_kvm(struct platform *p)
{
	return container_of(p, struct kvm_platform, base);
}

static inline struct kvm_address_space *to_kvm_as(struct address_space *as)
{
	return container_of(as, struct kvm_address_space, base);
}

static inline struct kvm_context *to_kvm_ctx(struct context *ctx)
{
	return container_of(ctx, struct kvm_context, base);
}

/* Address of trampoline label @label in @v's alias. */
static inline uint64_t vcpu_label(const struct vcpu *v, const uint8_t *label)
{
	return v->va + (uint64_t)(label - tramp_start);
}

static inline void vcpu_count(struct vcpu *v, enum vcpu_stat s, uint64_t n)
{
	atomic_store_explicit(&v->stat[s],
			      atomic_load_explicit(&v->stat[s], memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline uint64_t direct_va(gpa_t gpa)
{
	return TRAMP_DIRECT_BASE + gpa;
}

/* vm.c */
int kvm_open(char *why, size_t size) __must_check; /* fd of a usable /dev/kvm or -errno */
/* What KVM uses, by the modules that are loaded (platform_type.kind). */
const char *kvm_kind(void);
/* Is it kvm-pvm, shadow paging without the hardware's help? */
bool kvm_is_pvm(void);
/* Begins to make the VM, unless that was done. Failures wait for kvm_vm_wait. */
void kvm_vm_prepare(void);
/* Blocks until the VM is there. 0 or -errno. */
int kvm_vm_wait(void) __must_check;
void kvm_vm_destroy(void);
int kvm_vm_add_range(struct physmem_listener *l, gpa_t gpa, size_t len);
static inline void *karea_ptr(size_t page)
{
	return kvm_vm.karea + page * PAGE_SIZE;
}
static inline gpa_t karea_gpa(size_t page)
{
	return KAREA_GPA + page * PAGE_SIZE;
}

/* vcpu.c */
/* Makes the next vCPU. -EAGAIN when there are as many as there may be. Pool's lock held. */
int vcpu_new(struct vcpu **out) __must_check;
void vcpu_destroy_all(void);
/* Makes @v (BUSY) fit for @ctx, which had none or another. 0 or -errno. */
int vcpu_adopt(struct vcpu *v, struct kvm_context *ctx) __must_check;
/* Gives @v (BUSY) the state of @ctx that it does not have yet. 0 or -errno. */
int vcpu_load(struct vcpu *v, struct kvm_context *ctx) __must_check;
/* Everything of @ctx that only @v has goes to memory. */
int vcpu_save(struct vcpu *v, struct kvm_context *ctx) __must_check;
int vcpu_save_fpu(struct vcpu *v, struct kvm_context *ctx) __must_check;
int vcpu_save_bases(struct vcpu *v, struct kvm_context *ctx) __must_check;
/* Puts @v, stopped in user mode, back in ring 0; the segment bases stay. */
int vcpu_to_kernel(struct vcpu *v) __must_check;
/* Interrupts a thread that is about to run @v, or does. Async-signal-safe. */
void vcpu_interrupt(struct vcpu *v);

/* pool.c */
void pool_init(struct kvm_platform *p);
/*
 * A vCPU for @ctx, BUSY and with its state loaded. Blocks while all others run; -EINTR when kicked
 * meanwhile, or another -errno.
 */
int pool_acquire(struct kvm_context *ctx, struct vcpu **out) __must_check;
/* Ends BUSY; @ctx keeps the vCPU until someone needs it. */
void pool_release(struct kvm_context *ctx, struct vcpu *v);
/* The vCPU of @ctx as BUSY, or NULL if it has none: state is all in memory then. */
struct vcpu *pool_hold(struct kvm_context *ctx);
/*
 * The calling thread, @self, is the one that runs @v from now on. If others wait for vCPUs, the
 * move is over on return, and the slice begins: it takes older kernels tens of milliseconds (a
 * grace period of RCU).
 */
void pool_settle(struct kvm_platform *p, struct vcpu *v, pid_t self);
/* Gives the vCPU of @ctx back for good. */
void pool_unbind(struct kvm_context *ctx);
/* The vCPU of @from, if it has one, becomes that of @to, which has none. By the thread of both. */
void pool_hand_over(struct kvm_context *from, struct kvm_context *to);

/* run.c */
int kvm_ctx_run(struct context *ctx, struct address_space *as, struct arch_regs *regs,
		struct trap *trap);
void kvm_ctx_kick(struct context *ctx);

/* space.c */
struct address_space *kvm_as_create(struct platform *p, struct pagetable *pt);
void kvm_as_destroy(struct address_space *as);
void kvm_as_invalidate(struct address_space *as, uaddr_t va, size_t len);
/* True if @v may enter @as as it is. */
bool space_is_current(struct vcpu *v, struct kvm_address_space *as);
/* True if it is time for kvm_find_mmu. */
bool space_wants_kind(struct kvm_address_space *as);
/*
 * Puts what @v has to do before it enters @as into priv->ops; @more says that not all fitted and
 * ring 0 must come back for the rest.
 */
void space_prepare(struct vcpu *v, struct kvm_address_space *as, bool *more);
/* @v has left the guest: what it took on is done, or goes back on the list. */
void space_finish(struct vcpu *v, struct kvm_address_space *as);
static inline bool space_drained(const struct vcpu *v)
{
	return __atomic_load_n(&v->priv->drained, __ATOMIC_ACQUIRE);
}

/* tables.c */
void tables_init(struct kvm_platform *p);
void tables_fini(struct kvm_platform *p);
/* Moves up to @max freed tables into @ops, zeroed. Returns how many. */
size_t tables_take_dirty(struct kvm_platform *p, struct tramp_op *ops, size_t max);
/* Their pokes were done, or must be done again. */
void tables_put_back(struct kvm_platform *p, const struct tramp_op *ops, size_t n, bool clean);
/* So many that a vCPU should see to them although it has nothing else to do. */
bool tables_pressing(struct kvm_platform *p);

/* selftest.c */
/* Finds out p->mmu, and tries calls, faults and exceptions. 0 or -errno. */
int kvm_selftest(struct kvm_platform *p) __must_check;
/*
 * Finds out p->mmu with the vCPU of @ctx, whose thread it is called by; at once if another thread
 * does so already. 0 or -errno.
 */
int kvm_find_mmu(struct kvm_platform *p, struct kvm_context *ctx) __must_check;

/* kvm.c */
struct context *kvm_ctx_create(struct platform *p);
void kvm_ctx_destroy(struct context *ctx);
void kvm_ctx_get_bases(struct context *ctx, uint64_t *fs_base, uint64_t *gs_base);
void kvm_ctx_set_bases(struct context *ctx, uint64_t fs_base, uint64_t gs_base);
void kvm_ctx_get_fpu(struct context *ctx, void *fpu);
void kvm_ctx_set_fpu(struct context *ctx, const void *fpu);

#endif
