/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ptrace platform inside.
 *
 * Processes and who traces them
 *
 *   sentry --- warden thread ---traces---> master --fork--> leader, leader, leader …
 *      |                                                      | clone
 *      +--- task threads ------traces-----------------------> thread, thread …
 *
 * The *master* is forked once, at create, and keeps nothing of the sentry but one code page and the
 * files that back application memory. It forks all others, so a fork copies next to nothing. One
 * *stub process* is the cache of one address space. Its *leader* never runs user code: it stays
 * stopped, traced by the warden from birth (so it dies with the sentry), and makes host calls for
 * those who have no thread of their own there: new threads, and unmapping from outside. The other
 * threads run user code, each traced by the host thread that runs the context, since ptrace lets
 * only the tracing thread touch it.
 *
 * A stub thread is either *parked* (nobody traces it; it sleeps in the stub page) or *attached*
 * (the host thread traces it). Handing one over is therefore: detach into the park loop, seize,
 * interrupt. Nothing of the process stops meanwhile.
 *
 * A stub process is *bound* to an address space, or *draining* (its address space is gone, threads
 * are still attached), or in the *pool* (empty, ready for the next), or *dying*.
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
 * Locks (all LOCK_PLATFORM, in this order)
 *   as->lock     binding of as->proc; present, stale and the request page of the bound process.
 *                Held across injected host calls: they are mmap and munmap, which don't wait.
 *   p->lock      pool and lists; parked threads, nr_attached and the binding seen from the process
 *   warden.lock  the warden's queue
 * A process that is not bound is used by one party at a time: its last attached thread, whoever
 * took it from the pool, or the warden.
 */
#ifndef PLATFORM_PTRACE_INTERNAL_H
#define PLATFORM_PTRACE_INTERNAL_H

#include <sched.h>
#include <stdatomic.h>

#include "platform/platform.h"
#include "platform/ptrace/stub_arch.h"
#include "sentry/lib/list.h"
#include "sentry/lib/lock.h"

#define MAX_STALE    16
#define MAX_PROCS    16384 /* also request pages in the control file */
#define MAX_FDS	     16
#define POOL_SIZE    8 /* idle stub processes kept */
#define REGION_PAGES PT_ENTRIES

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

struct stub_proc {
	struct list_head node; /* pool, dying or all of p */
	pid_t pid;	       /* the leader */
	unsigned int slot;     /* request page */
	struct stub_call *request;
	_Atomic(struct ptrace_as *) as; /* p->lock to change; NULL: not bound */
	struct list_head parked;	/* p->lock */
	unsigned int nr_attached;	/* p->lock */
	_Atomic bool dead;		/* someone saw it die */
	/* as->lock */
	struct region_map present;
	uint64_t generation; /* counts changes of the mappings */
	struct range stale[MAX_STALE];
	_Atomic unsigned int nr_stale;
	_Atomic unsigned int nr_running; /* threads in user code, or about to be */
};

struct stub_thread {
	struct list_head node; /* proc->parked, or the tracing thread's list */
	struct stub_proc *proc;
	struct ptrace_platform *p;
	pid_t tid;
	pid_t tracer;		    /* host thread; 0: parked */
	struct ptrace_context *ctx; /* p->lock; NULL when destroyed by another host thread */
	bool dead;
};

struct context_stats {
	uint64_t enters, syscalls, faults, faults_mapped, exceptions, kicks;
	uint64_t injections, mmaps, munmaps, pages, moves;
};

struct ptrace_context {
	struct context base;
	struct list_head node; /* p->contexts, p->lock */
	struct stub_thread *thread;
	/* What the stub thread's registers are, and which of them we must still write. */
	struct arch_regs regs;
	bool regs_dirty, bases_dirty, fpu_dirty;
	bool fpu_valid;	   /* fpu holds the state; always so when there is no thread */
	void *fpu;	   /* p->fpu_size bytes, the kernel's format */
	uaddr_t sync_addr; /* page to bring into the stub before the next resume, or 0 */
	uaddr_t last_fault;
	uint64_t last_generation;
	unsigned int repeats; /* of a fault that nothing explains */
	/* ctx_kick */
	_Atomic bool kick;
	_Atomic uint64_t target; /* pid << 32 | tid while running, else 0 */
	_Atomic unsigned int kickers;
	/* Placement */
	_Atomic int cpu; /* index into p->cpus, or -1: not placed */
	unsigned int crowded;
	struct context_stats stats;
	/* Time in the stub: what is done, and since when it runs now (0: it doesn't). */
	_Atomic uint64_t user_ns, running_since;
};

struct ptrace_as {
	struct address_space base;
	struct pagetable *pt;
	struct mutex lock;
	struct stub_proc *proc;
};

/* Host CPUs that we may use, and how many contexts are in user code on each. */
struct host_cpu {
	int id;
	_Atomic int running;
} __attribute__((aligned(64)));

enum warden_op {
	WARDEN_NEW_PROC, /* out: proc, with one parked thread */
	WARDEN_SPAWN,	 /* one more thread in proc; out: value is its tid */
	WARDEN_BATCH,	 /* make the first n calls of proc's request page */
	WARDEN_KILL,	 /* end proc and free it */
	WARDEN_PASS_FD,	 /* give stubs fd; out: value is its number there */
	WARDEN_FPU_SIZE, /* out: value is the bytes of the kernel's extended state */
	WARDEN_QUIT,
};

struct warden_request {
	struct warden_request *next;
	enum warden_op op;
	struct stub_proc *proc;
	size_t n;
	int fd;
	long value; /* result or -errno */
	bool done;
};

struct warden {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake, done;
	struct warden_request *head, **tail;
	bool started;
	int start_error;
	pid_t tid, master;
	int sock; /* to the master */
	struct list_head dying;
	uint64_t *slots; /* bitmap of request pages in use; 0 is the scratch page */
};

struct ptrace_platform {
	struct platform base;
	struct mutex lock;
	struct list_head contexts;
	struct list_head pool;
	unsigned int nr_pool;
	unsigned int nr_attached;
	struct list_head procs; /* bound or draining */
	struct context_stats retired;
	_Atomic uint64_t nr_procs, nr_threads, nr_warden_calls, nr_invalidates, nr_stale_hits,
		nr_reused;
	size_t fpu_size;
	void *fpu_init;
	pthread_key_t exit_key; /* its destructor parks what an ending host thread traces */
	int ctl_fd;
	char *ctl; /* the control file: scratch page, then a request page per slot */
	struct {
		int host, stub;
	} fds[MAX_FDS];
	unsigned int nr_fds;
	bool pin;
	unsigned int nr_cpus;
	struct host_cpu *cpus;
	cpu_set_t allowed;
	struct warden warden;
};

/* Host fd numbers in every stub. */
enum { STUB_FD_SOCKET, STUB_FD_CTL, STUB_FD_RAM, STUB_FD_FIRST };

static inline struct ptrace_platform *to_platform(struct platform *p)
{
	return container_of(p, struct ptrace_platform, base);
}

static inline struct ptrace_as *to_as(struct address_space *as)
{
	return container_of(as, struct ptrace_as, base);
}

static inline struct ptrace_context *to_ctx(struct context *ctx)
{
	return container_of(ctx, struct ptrace_context, base);
}

/*
 * inject.c: ptrace calls on a stopped tracee of the calling host thread
 */
int stub_get_regs(pid_t tid, struct arch_regs *regs);
/* @all: with the bases and selectors. */
int stub_set_regs(pid_t tid, const struct arch_regs *regs, bool all);
int stub_get_fpu(pid_t tid, void *image, size_t *size);
int stub_set_fpu(pid_t tid, const void *image, size_t size);
/* Waits for the next stop. Returns the wait status, or -ESRCH when @tid ended (and is reaped). */
int stub_wait(pid_t tid);
/*
 * For the warden, of this thread's waits: a leader that was killed is not reported until all its
 * threads are collected by their own tracers, which may take for ever, so the waits then end with
 * -ESRCH in any case.
 */
void stub_wait_bounded(bool on);
/* Seizes a thread that runs in the stub page, and stops it. 0 or -errno. */
int stub_seize(pid_t tid);
/*
 * Makes @tid run from @regs (one of stub_regs_*) to its end; @regs are then what it stopped with.
 * Its application registers are lost. 0 or -errno of ptrace itself.
 */
int stub_run(pid_t tid, struct arch_regs *regs);
/* One host call in @tid. Returns its result or -errno. */
long stub_call(pid_t tid, long nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
	       uint64_t a5);
/* The first @n calls of the request page. Returns 0 or the first one's error; *@done counts. */
int stub_batch(pid_t tid, size_t n, size_t *done);

/*
 * warden.c, master.c
 */
int warden_start(struct ptrace_platform *p);
void warden_stop(struct ptrace_platform *p);
/* There are several threads now: it begins to balance. */
void warden_wake(struct ptrace_platform *p);
/* Carries @req out on the warden thread; returns its value. */
long warden_call(struct ptrace_platform *p, struct warden_request *req);
/* On the warden thread: forks the master, stopped in the stub page. 0 or -errno. */
int master_start(struct ptrace_platform *p);
/* On the warden thread: hands host fd @fd to all stubs. Returns its number there or -errno. */
int master_pass_fd(struct ptrace_platform *p, int fd);

/*
 * stub.c: processes and threads
 */
/* The calling host thread's attached thread in @proc, or NULL. */
struct stub_thread *stub_thread_find_own(const struct stub_proc *proc);
/* Ensures that @as has a process. as->lock held. 0 or -errno. */
int as_bind_locked(struct ptrace_as *as);
/* Attaches @ctx to a thread of @as, leaving the one it had. 0 or -errno. */
int context_attach(struct ptrace_context *ctx, struct ptrace_as *as);
/* Parks the thread of @ctx (of the calling host thread), or drops it if dead. */
void context_detach(struct ptrace_context *ctx);
/* @ctx goes away; its thread, if attached to another host thread, is parked by that one. */
void context_abandon(struct ptrace_context *ctx);
/* @th is gone, or no use: ends its process, collects it. */
void stub_thread_died(struct stub_thread *th);
/* Nobody uses @proc any more: to the pool, or ended. No locks held. */
void stub_proc_release(struct ptrace_platform *p, struct stub_proc *proc);
/* pthread key destructor. */
void stub_threads_park_all(void *unused);

/*
 * space.c, cache.c
 */
/*
 * Unmaps what is stale and, if @addr is not 0, maps the window around it. By @th, stopped, ours.
 * as->lock held. *@mapped tells whether something was mapped. 0 or -errno.
 */
int as_sync_locked(struct ptrace_as *as, struct stub_thread *th, uaddr_t addr, bool *mapped);
/* Empties the stub's address space. @th NULL: by the leader. as->lock held or @proc not bound. */
int stub_proc_flush(struct ptrace_platform *p, struct stub_proc *proc, struct stub_thread *th);
/*
 * The process changes hands: all that it has mapped is stale, and leaves before its next resume.
 * as->lock held or @proc not bound.
 */
void stub_proc_forget(struct stub_proc *proc);
struct address_space *ptrace_as_create(struct platform *base, struct pagetable *pt);
void ptrace_as_destroy(struct address_space *base);
void ptrace_as_invalidate(struct address_space *base, uaddr_t va, size_t len);

/* The stub's number of host fd @fd, passing it if new. Negative: -errno. */
int platform_stub_fd(struct ptrace_platform *p, int fd);

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
 * context.c
 */
void context_stats_add(struct context_stats *sum, const struct context_stats *st);
struct context *ptrace_ctx_create(struct platform *base);
void ptrace_ctx_destroy(struct context *base);
int ptrace_ctx_run(struct context *base, struct address_space *as, struct arch_regs *regs,
		   struct trap *trap);
void ptrace_ctx_kick(struct context *base);
void ptrace_ctx_get_bases(struct context *base, uint64_t *fs_base, uint64_t *gs_base);
void ptrace_ctx_set_bases(struct context *base, uint64_t fs_base, uint64_t gs_base);
void ptrace_ctx_get_fpu(struct context *base, void *fpu);
void ptrace_ctx_set_fpu(struct context *base, const void *fpu);
uint64_t ptrace_ctx_user_ns(struct context *base);

/*
 * place.c: the host thread and its stub thread share a CPU (a ptrace stop is then one context
 * switch and not a wake-up of an idle CPU: 6 µs against 43)
 */
void place_init(struct ptrace_platform *p);
void place_fini(struct ptrace_platform *p);
/* Chooses a CPU for @ctx and moves the calling host thread and stub thread @tid there. */
void place_context(struct ptrace_context *ctx, pid_t tid);
/* The host thread may run anywhere again. */
void place_leave(struct ptrace_context *ctx);
/* Bracket user code. place_enter returns what place_exit wants. May move the context. */
int place_enter(struct ptrace_context *ctx);
void place_exit(struct ptrace_platform *p, int cpu);
/* Moves host thread @tid, which is idle, to the caller's CPU: waking it is cheap there. */
void place_near(struct ptrace_platform *p, pid_t tid);
/* On the warden's tick: moves one context from a crowded CPU to an idle one. */
void place_balance(struct ptrace_platform *p);

#endif
