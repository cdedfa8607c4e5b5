/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What platforms that run user code in host processes of their own have in common. The stub
 * processes' mappings mirror page tables; how a stub thread is made to run and stopped is the
 * platform's own (struct stub_ops).
 *
 * One *stub process* is the cache of one address space. It is forked from the *master*, which was
 * forked from the sentry once and kept nothing of it but a code page and the files that back
 * application memory; so a fork copies next to nothing. Its *leader* never runs user code, it
 * makes host calls. The other threads run user code.
 *
 * A stub thread is either *parked* (in nobody's use) or *attached* to a context. A stub process is
 * *bound* to an address space, or *draining* (its address space is gone, threads are still
 * attached), or in the *pool* (ready for the next), or *dying*.
 *
 *   process: pool --as_bind--> bound --as_destroy--> draining --last thread parks--> pool
 *                                ^                      |
 *                                +---- adopted (exec) --+
 *
 * The cache
 *
 * The page table is the truth. `present` remembers which pages the stub has mapped, with the rights
 * and frames that the table had then: any change to a present entry comes through as_invalidate,
 * which forgets them. What the stub still has mapped but must not use is in `stale` and is unmapped
 * before any of its threads runs again: an invalidation that finds no thread running costs no host
 * call. If one is running, it is unmapped at once; the host kernel does the TLB shootdown.
 *   runner: nr_running++; if nr_stale, lock and unmap; resume     (ctx_run)
 *   other:  nr_stale++ under the lock; if nr_running, unmap now   (as_invalidate)
 * Both sides are sequentially consistent, so one of them sees the other.
 *
 * Kicks are a latched flag plus a signal to the stub thread while `target` says that it runs. The
 * flag is set before `target` is read, and `target` is set before the flag is read, so either the
 * runner sees the flag or the kicker sees the target.
 *
 * Locks (all LOCK_PLATFORM, in this order)
 *   as->lock     binding of as->proc; present, stale, mapped and the request page of its process.
 *                Held across host calls in the stub: they are mmap and munmap, which don't wait.
 *   p->lock      pool and lists; parked threads, nr_attached and the binding seen from the process
 *   (a platform's own queue locks)
 * A process that is not bound is used by one party at a time: its last attached thread, whoever
 * took it from the pool, or who ends it.
 */
#ifndef PLATFORM_STUB_STUB_H
#define PLATFORM_STUB_STUB_H

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include "platform/platform.h"
#include "sentry/lib/list.h"
#include "sentry/lib/lock.h"
#include "sentry/lib/physmem.h"

#define MAX_STALE    16
#define MAX_MAPPED   32	   /* runs that the next address space may have, too */
#define MAX_PROCS    16384 /* also request pages in the control file */
#define MAX_FDS	     16
#define POOL_SIZE    8	/* idle stub processes kept */
#define MAX_REPEATS  16 /* of a fault that nothing explains */
#define REGION_PAGES PT_ENTRIES

/* Where things lie in the stub's area (layout.h: STUB_BASE); applications can read, never write. */
#define STUB_CODE    STUB_BASE		     /* read + execute, shared by all stubs */
#define STUB_REQUEST (STUB_BASE + PAGE_SIZE) /* what the leader is to do, read-only in the stub */
#define STUB_SCRATCH (STUB_BASE + 2 * PAGE_SIZE) /* the master only: messages that carry fds */
#define STUB_END     (STUB_BASE + STUB_SIZE)

/*
 * Host fd numbers in every stub. STUB_FD_FILE is the file that physical memory had when the
 * platform was made, the image; files that come later are passed (pass_fd). Without one it is the
 * RAM again. On systrap both come after stubs have descriptors of their own, under whatever numbers
 * are free then (stub_fds_are).
 */
enum { STUB_FD_SOCKET, STUB_FD_CTL, STUB_FD_RAM, STUB_FD_FILE, STUB_FD_FIRST };

/* A host call for a stub to make. The code in the stub page walks an array of them. */
struct stub_call {
	uint64_t nr;
	uint64_t args[6];
	uint64_t unused;
};

/* What one leaf table's worth of addresses has mapped in the stub. */
struct region {
	uint64_t key; /* address / PT_LEAF_SPAN + 1; 0: free */
	uint64_t bits[REGION_PAGES / 64];
};

/* Open-addressed by key. No locking: as->lock. */
struct region_map {
	struct region *slots;
	size_t size; /* power of two, or 0 */
	size_t used;
};

struct range {
	uaddr_t start, end;
};

/* Neighbouring pages that one mmap maps. */
struct stub_run {
	uaddr_t start, end;
	gpa_t gpa;	 /* of start */
	uint64_t rights; /* STUB_PTE_RIGHTS of their entries */
	bool lent;	 /* all of it */
};

#define STUB_PTE_RIGHTS (PTE_P | PTE_US | PTE_RW | PTE_NX)

/* Is an entry @v what @run has for the page at @gpa? */
static inline bool stub_run_continues(const struct stub_run *run, uint64_t v, gpa_t gpa)
{
	return (v & STUB_PTE_RIGHTS) == run->rights && (v & PTE_ADDR) == gpa &&
	       phys_is_lent(gpa) == run->lent;
}

struct stub_proc {
	struct list_head node;		 /* pool, procs, or the platform's own list of ended ones */
	pid_t pid;			 /* the leader */
	unsigned int slot;		 /* page in the control file */
	struct stub_call *request;	 /* in that page */
	_Atomic(struct stub_space *) as; /* p->lock to change; NULL: not bound */
	struct list_head parked;	 /* p->lock */
	unsigned int nr_attached;	 /* p->lock */
	_Atomic bool dead;		 /* someone saw it die */
	/* as->lock */
	struct region_map present;
	uint64_t generation; /* counts changes of the mappings */
	struct range stale[MAX_STALE];
	_Atomic unsigned int nr_stale;
	struct stub_run mapped[MAX_MAPPED]; /* of what is mapped and not stale; by address */
	size_t nr_mapped;
	_Atomic unsigned int nr_running; /* threads in user code, or about to be */
};

struct stub_thread {
	struct list_head node; /* proc->parked; when attached it's the platform's */
	struct stub_proc *proc;
	struct stub_platform *p;
	pid_t tid;
	pid_t driver;		  /* host thread that runs it; 0: parked */
	struct stub_context *ctx; /* p->lock; NULL when destroyed by another host thread */
	bool dead;
};

struct context_stats {
	uint64_t enters, syscalls, calls, faults, faults_mapped, exceptions, kicks;
	uint64_t injections, mmaps, munmaps, pages, moves;
};

struct stub_context {
	struct context base;
	struct list_head node; /* p->contexts, p->lock */
	struct stub_thread *thread;
	uaddr_t sync_addr; /* page to bring into the stub before the next resume, or 0 */
	uaddr_t last_fault;
	uint64_t last_generation;
	unsigned int repeats; /* of a fault that nothing explains */
	/* ctx_kick; and a signal without one (place_balance) */
	_Atomic bool kick, nudged;
	_Atomic uint64_t target; /* pid << 32 | tid while running, else 0 */
	_Atomic unsigned int kickers;
	/* Placement */
	_Atomic int cpu; /* index into place.cpus, or < 0: not placed */
	unsigned int crowded, crowded_limit, apart;
	uint64_t placed; /* when, CLOCK_MONOTONIC ns */
	struct context_stats stats;
	/* Time in the stub: what is done, and since when it runs now (0: it doesn't). */
	_Atomic uint64_t user_ns, running_since;
};

/* An address space. */
struct stub_space {
	struct address_space base;
	struct pagetable *pt;
	struct mutex lock;
	struct stub_proc *proc;
};

/* Host CPUs that we may use, and how many contexts are in user code on each. */
struct host_cpu {
	int id;
	_Atomic int running;
	_Atomic bool waits; /* who was in user code last sleeps now */
} __attribute__((aligned(64)));

struct place {
	bool pin;
	unsigned int nr_cpus;
	struct host_cpu *cpus;
	_Atomic int last; /* index of the CPU where somebody entered user code last */
	cpu_set_t allowed;
};

struct stub_platform {
	struct platform base;
	const struct stub_ops *ops;
	struct mutex lock;
	struct list_head contexts;
	struct list_head pool;
	unsigned int nr_pool;
	_Atomic unsigned int nr_attached; /* p->lock to change */
	struct list_head procs;		  /* bound or draining */
	struct context_stats retired;
	_Atomic uint64_t nr_procs, nr_threads, nr_requests, nr_invalidates, nr_stale_hits,
		nr_reused;
	int ctl_fd;
	char *ctl; /* the control file: scratch page, a request page per slot, the platform's own */
	size_t ctl_size;
	struct {
		int host, stub;
	} fds[MAX_FDS];
	unsigned int nr_fds;
	struct place place;
};

/* What the platforms do their own way. */
struct stub_ops {
	const char *name;
	/* A new process with at least one parked thread. as->lock may be held, p->lock isn't. */
	int (*proc_new)(struct stub_platform *p, struct stub_proc **out);
	/* Ends @proc, of which no thread is attached, and frees it. */
	void (*proc_end)(struct stub_platform *p, struct stub_proc *proc);
	/* Kills @proc's process, if it isn't gone yet. */
	void (*proc_kill)(struct stub_platform *p, struct stub_proc *proc);
	/* One more parked thread in bound @proc; as->lock held. */
	int (*thread_new)(struct stub_platform *p, struct stub_proc *proc);
	/*
	 * Makes the first @n calls of the request page, up to the first that fails: its error. By
	 * @th if that is not NULL and the platform likes. -ESRCH: the process is gone.
	 */
	int (*batch)(struct stub_platform *p, struct stub_proc *proc, struct stub_thread *th,
		     size_t n);
	/* Gives stubs host fd @fd. Returns its number there or -errno. */
	int (*pass_fd)(struct stub_platform *p, int fd);
	/* A thread of @proc that the caller can make host calls with, or NULL. Optional. */
	struct stub_thread *(*own_thread)(const struct stub_proc *proc);
	/* A second context has a thread now. Optional. */
	void (*crowd)(struct stub_platform *p);
};

static inline struct stub_platform *to_stub_platform(struct platform *p)
{
	return container_of(p, struct stub_platform, base);
}

static inline struct stub_space *to_stub_space(struct address_space *as)
{
	return container_of(as, struct stub_space, base);
}

static inline struct stub_context *to_stub_context(struct context *ctx)
{
	return container_of(ctx, struct stub_context, base);
}

/*
 * common.c: the platform and its contexts
 */
/*
 * Signals are for others than this thread and those that it starts, but for those that tell of our
 * own bugs. @old: the mask before, or NULL.
 */
void stub_block_signals(sigset_t *old);
/* A control file, or -errno. */
int stub_control_file(size_t size);
/*
 * The part of create that is the same: lists, page-table allocator, and the control file, @ctl_fd,
 * which is consumed. 0 or -errno.
 */
int stub_platform_init(struct stub_platform *p, const struct platform_type *type,
		       const struct stub_ops *ops, int ctl_fd, size_t ctl_size);
void stub_platform_fini(struct stub_platform *p);
/* Ends what is in the pool. */
void stub_pool_end(struct stub_platform *p);
void stub_context_init(struct stub_context *ctx, struct stub_platform *p);
void stub_context_fini(struct stub_context *ctx);
/* No ctx_kick uses the stub thread's id any more. */
void stub_context_quiet(struct stub_context *ctx);
/* Brackets user code, for the clock. */
void stub_clock_start(struct stub_context *ctx);
void stub_clock_stop(struct stub_context *ctx);
void stub_ctx_kick(struct context *base);
/* Stops the thread if it runs, to no other end. */
void stub_ctx_nudge(struct stub_context *ctx);
uint64_t stub_ctx_user_ns(struct context *base);
void stub_ctx_waits(struct context *base);
void stub_ctx_rest(struct context *base);
size_t stub_stats(struct stub_platform *p, struct platform_stat stats[PLATFORM_MAX_STATS]);
/* A fault at @addr for the sentry to resolve. Returns 0. */
int stub_fault_trap(struct stub_context *ctx, struct trap *trap, uaddr_t addr, unsigned int access,
		    bool present);
int stub_kick_trap(struct stub_context *ctx, struct trap *trap);
/* Bitmaps of what is in use in the control file. -EAGAIN: all is. */
int stub_slot_alloc(uint64_t *slots, size_t n);
void stub_slot_free(uint64_t *slots, unsigned int slot);

/*
 * proc.c: binding to address spaces, and the pool
 */
/* Ensures that @as has a process. as->lock held. 0 or -errno. */
int stub_bind_locked(struct stub_space *as);
/* A parked thread of the bound process, counted as attached. as->lock held. ERR_PTR. */
struct stub_thread *stub_thread_take_locked(struct stub_space *as);
/*
 * @th is no longer in its context's use: it is parked, or freed if dead. If it was the last one,
 * its process leaves as well.
 */
void stub_thread_leave(struct stub_thread *th);
/*
 * After exec the old address space is gone and this context is the only one in its process: the
 * process becomes the new one's, without a hand-over. as->lock held.
 */
bool stub_adopt_locked(struct stub_context *ctx, struct stub_space *as);
/* Nobody uses @proc any more: to the pool, or ended. No locks held. */
void stub_proc_release(struct stub_platform *p, struct stub_proc *proc);

/*
 * space.c, region.c
 */
/*
 * Unmaps what is stale and, if @addr is not 0, maps the window around it. @th is attached, and not
 * in user code. as->lock held. *@mapped tells whether something was mapped. 0 or -errno.
 */
int stub_sync_locked(struct stub_space *as, struct stub_thread *th, uaddr_t addr, bool *mapped);
/* The same for @ctx before it runs: what is stale, and ctx->sync_addr. */
int stub_context_sync(struct stub_context *ctx, struct stub_space *as);
/*
 * A fault at @addr, in a page that the stub has with sufficient rights as of @generation. Another
 * thread may have mapped it meanwhile; or may be about to invalidate, its change to the table being
 * what we saw. If it comes again the page is mapped anew. 0, or -errno when that is no use.
 */
int stub_unexplained_fault(struct stub_context *ctx, struct stub_space *as, uaddr_t addr,
			   uint64_t generation);
struct address_space *stub_as_create(struct platform *base, struct pagetable *pt);
void stub_as_destroy(struct address_space *base);
void stub_as_invalidate(struct address_space *base, uaddr_t va, size_t len);

/*
 * mapped.c. as->lock held.
 */
/* @run has been mapped. */
void stub_mapped_note(struct stub_proc *proc, const struct stub_run *run);
/* What is noted in [start, end) isn't to be relied on any more. */
void stub_mapped_forget(struct stub_proc *proc, uaddr_t start, uaddr_t end);
/*
 * @as has got the process of another address space: of what that had mapped stays what @as has just
 * so, all else is stale.
 */
void stub_mapped_match(struct stub_space *as);

/* The bits of the region of @va (one per page), or NULL: none is set. Until the next
 * region_map_set. */
const uint64_t *region_map_bits(const struct region_map *m, uaddr_t va);
bool region_map_test(const struct region_map *m, uaddr_t va);
/* Marks [start, end). 0, or -ENOMEM (some may be marked: reset the map). */
int region_map_set(struct region_map *m, uaddr_t start, uaddr_t end) __must_check;
/*
 * Clears [*@start, *@end) and narrows it to the hull of what was marked. False: nothing was.
 */
bool region_map_clear(struct region_map *m, uaddr_t *start, uaddr_t *end);
void region_map_reset(struct region_map *m);
void region_map_fini(struct region_map *m);

/*
 * child.c: what a process forked from the sentry gives up to become the master. Raw host calls on
 * a copy of the forking thread's stack.
 */
/* Dies with @parent, leaves its process group. 0 or -errno. */
int stub_child_begin(pid_t parent);
/* Every signal but those that @keep says (and the CPU's own) is ignored; none is blocked. */
void stub_child_signals(uint64_t keep);
/* The descriptors are STUB_FD_*, and no other; without STUB_FD_RAM and _FILE if @ram is -1. */
int stub_child_fds(int sock, int ctl, int ram, int file);
/* The code page and the scratch page. */
int stub_child_memory(const void *code, size_t size);
/* No capabilities, no new privileges, no core dumps. */
int stub_child_privileges(void);

#define STUB_FDS_MAX 2
/* Receiving fds in the master: sends @n of them, and makes the scratch page ready for... */
int stub_fds_send(struct stub_platform *p, int sock, const int *fds, size_t n);
/* ...this host call, which must return 1... */
struct stub_call stub_fd_recv_call(void);
/* ...and the numbers that they got. 0 or -errno. */
int stub_fds_received(struct stub_platform *p, int *fds, size_t n);
/* The numbers that the memory file and the other file, if any, have in stubs. */
void stub_fds_are(struct stub_platform *p, int ram, int file);

/*
 * cpu_x86_64.c
 */
/* Is a fault at @addr the fetch of the instruction at @regs->rip? */
bool stub_fault_is_fetch(const struct arch_regs *regs, uaddr_t addr);
/* The error code that the CPU pushes for this page fault. */
uint64_t stub_fault_error(bool present, unsigned int access);
/*
 * Extended state between the kernel's image of @kernel_size bytes and ours of arch_fpu_size().
 */
void stub_fpu_from_kernel(void *fpu, const void *image, size_t kernel_size);
void stub_fpu_to_kernel(void *image, size_t kernel_size, const void *fpu);
/* Can a stub thread be given that segment base? */
bool stub_base_valid(uint64_t base);

/*
 * place.c: the host thread and its stub thread share a CPU (a hand-over is then one context switch
 * and not a wake-up of an idle CPU: 6 µs against 43)
 */
void place_init(struct place *pl);
void place_fini(struct place *pl);
/* Chooses a CPU for @ctx and moves the calling host thread and stub thread @tid there. */
void place_context(struct stub_context *ctx, pid_t tid);
/* The host thread may run anywhere again. */
void place_leave(struct stub_context *ctx);
/* The same until @ctx runs again: then it is placed anew. Not if it was just placed. */
void place_rest(struct stub_context *ctx);
/* @ctx, which has left user code, will sleep before it enters it again. */
void place_waits(struct stub_context *ctx);
/* Bracket user code. place_enter returns what place_exit wants. May move the context. */
int place_enter(struct stub_context *ctx);
void place_exit(struct place *pl, int cpu);
/* Moves thread @tid, which is idle, to the caller's CPU: waking it is cheap there. */
void place_near(struct place *pl, pid_t tid);
/* On a tick: moves one context from a crowded CPU to an idle one. */
void place_balance(struct stub_platform *p);

#endif
