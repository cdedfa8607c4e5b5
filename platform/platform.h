/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running user code. Three nouns:
 *
 *   platform	   a way to run user code on this host (KVM, ptrace), one instance per sandbox
 *   address_space a page-table root that user code can run in
 *   context	   what one application thread needs to run: its vCPU or stub thread, its extended
 *		   state and segment bases
 *
 * The page table (arch/pagetable.h) is the truth, an address_space caches it. A context is used by
 * the one host thread that runs that application thread; only context kick is called from others.
 *
 * Every implementation is one folder exporting one const struct platform_type, listed in
 * platform.c. Layer 2: nothing here knows tasks or files.
 */
#ifndef PLATFORM_PLATFORM_H
#define PLATFORM_PLATFORM_H

#include <pthread.h>
#include <sched.h>

#include "arch.h"
#include "pagetable.h"
#include "sentry/lib/list.h"
#include "sentry/lib/types.h"

/*
 * The host signal that interrupts a sentry thread running user code (SIGRTMAX-2: all others are
 * forwarded to the application). Blocked nowhere.
 */
#define PLATFORM_KICK_SIGNAL 62

enum trap_kind {
	TRAP_SYSCALL,	/* regs->orig_rax is the number, regs->rip behind the instruction */
	TRAP_FAULT,	/* page fault at addr wanting access */
	TRAP_EXCEPTION, /* vector, error */
	TRAP_KICK,	/* context_kick, or a host signal */
	/*
	 * A system call, nr with args, behind the instruction at addr: the thread waits in it, and
	 * its registers aren't known. Either it goes on with ctx_answer and ctx_run, or ctx_run
	 * without an answer runs nothing, and tells the same as TRAP_SYSCALL.
	 */
	TRAP_CALL,
};

struct trap {
	enum trap_kind kind;
	uaddr_t addr;
	unsigned int access; /* ACCESS_* (one of them) */
	bool present;	     /* the faulting entry was present: a protection fault */
	unsigned int vector;
	uint64_t error; /* error code as the CPU pushes it, for signal frames */
	int nr;
	uint64_t args[6];
};

struct platform;
struct address_space;
struct context;

struct platform_config {
	bool selftest; /* doctor: run the guest self-test too */
};

struct platform_stat {
	const char *name; /* e.g. "exits: doorbell" */
	uint64_t value;
};
#define PLATFORM_MAX_STATS 32

struct platform_type {
	const char *name;
	const char *summary; /* one line for doctor */
	/* What of it this machine has, in a few words for doctor; NULL: there is one kind only. */
	const char *(*kind)(void);
	/* The guest uses this process's own mappings of memory: they may be private ones. */
	bool own_memory;
	/* First touches of mapped memory are dear unless the host holds it already. */
	bool dear_touch;
	/*
	 * Is it dearer here than the platforms behind it in the list, although it can be used? Then
	 * true with one line in @why, and `auto` passes it over. NULL: never.
	 */
	bool (*is_costly)(char *why, size_t size);
	/*
	 * Traps from one call site after which rewriting it pays: what a trap costs against a
	 * private page and its mapping. 0: sites are left alone.
	 */
	unsigned int rewrite_after;
	/*
	 * How often user code looks for an answer before it traps after all: about as long as the
	 * trap takes.
	 */
	unsigned int spin;

	/*
	 * Can it be used here? 0, or -errno with one line in @why that says what to check. Leaves
	 * nothing behind.
	 */
	int (*probe)(char *why, size_t size);
	/*
	 * Begins, in the background, with what create is going to need; may be NULL. Nothing comes
	 * of it if create is not called.
	 */
	void (*prepare)(void);
	/*
	 * One per sandbox, after physmem_init and before threads of the sandbox. Returns 0 or
	 * -errno; what is still under way in the background may fail later, which `ready` tells.
	 */
	int (*create)(const struct platform_config *config, struct platform **out);
	/* Waits until user code could run; may be NULL. 0 or -errno. */
	int (*ready)(struct platform *p);
	/* All address spaces and contexts are gone. */
	void (*destroy)(struct platform *p);
	/* Fills @stats (counts since create), returns how many. */
	size_t (*stats)(struct platform *p, struct platform_stat stats[PLATFORM_MAX_STATS]);

	/*
	 * @pt is the caller's and outlives the address space. The platform may fill the kernel half
	 * of the root.
	 */
	struct address_space *(*as_create)(struct platform *p, struct pagetable *pt);
	/* No context runs in it any more. The user half holds no present entry. */
	void (*as_destroy)(struct address_space *as);
	/*
	 * Present leaf entries in [va, va+len) were changed or removed (already stored, by the
	 * host). On return no context uses, nor can ever again use, what was there before; the old
	 * frames may be released. Called with the page table's lock (mm->pt_lock) held exclusively,
	 * by a thread that is not inside ctx_run. Ranges may be large and sparse.
	 */
	void (*as_invalidate)(struct address_space *as, uaddr_t va, size_t len);

	struct context *(*ctx_create)(struct platform *p);
	void (*ctx_destroy)(struct context *ctx);
	/*
	 * Runs user code with @regs in @as until a trap; @regs are updated. Returns 0, or -errno
	 * when the vehicle is broken (the thread group is then killed with a message).
	 * The same context may run in another address space next time (execve).
	 */
	int (*ctx_run)(struct context *ctx, struct address_space *as, struct arch_regs *regs,
		       struct trap *trap);
	/*
	 * Does now, without running user code, what the next ctx_run of @ctx in @as would have to
	 * begin with. What fails will fail there again. NULL: nothing.
	 */
	void (*ctx_prepare)(struct context *ctx, struct address_space *as);
	/*
	 * What the call of the last TRAP_CALL returns, when ctx_run lets it. NULL: there is none.
	 */
	void (*ctx_answer)(struct context *ctx, long result);
	/*
	 * Makes the running or else the next ctx_run return TRAP_KICK soon; never lost. From any
	 * thread, also while ctx_run returns; async-signal-safe.
	 */
	void (*ctx_kick)(struct context *ctx);
	/* Segment bases and extended state of the thread, valid between two ctx_runs. */
	void (*ctx_get_bases)(struct context *ctx, uint64_t *fs_base, uint64_t *gs_base);
	void (*ctx_set_bases)(struct context *ctx, uint64_t fs_base, uint64_t gs_base);
	/* @fpu: arch_fpu_size() bytes, 64-byte aligned, XSAVE standard format. */
	void (*ctx_get_fpu)(struct context *ctx, void *fpu);
	void (*ctx_set_fpu)(struct context *ctx, const void *fpu);
	/*
	 * The calling thread, which may have run @ctx, leaves it to another. Its state can be had
	 * from any thread then. NULL: nothing to do.
	 */
	void (*ctx_leave)(struct context *ctx);
	/*
	 * The calling thread, which runs @ctx, is about to sleep in a call of its. NULL: no matter.
	 */
	void (*ctx_waits)(struct context *ctx);
	/*
	 * The calling thread has run @ctx and will wait for something, perhaps for long: where that
	 * finds it is where @ctx may go on. NULL: it isn't bound to a processor.
	 */
	void (*ctx_rest)(struct context *ctx);
	/*
	 * The calling thread runs no context for a while, perhaps never again; may be NULL. Its
	 * last contexts may still be there.
	 */
	void (*thread_idle)(void);
	/*
	 * Nanoseconds spent in user code so far, from any thread. NULL: user code runs on the host
	 * thread that calls ctx_run, whose own clock has it.
	 */
	uint64_t (*ctx_user_ns)(struct context *ctx);
};

/* First member of each implementation's own structures. */
struct platform {
	const struct platform_type *type;
	struct pt_allocator pt_alloc; /* what page tables for this platform are made of */
	/* Who is there (platform.c). */
	pthread_mutex_t members_lock;
	struct list_head spaces, contexts;
};

struct address_space {
	struct platform *platform;
	struct list_head member;
	struct pagetable *table; /* of as_create */
	bool frozen;
};

struct context {
	struct platform *platform;
	struct list_head member;
	bool frozen;
	bool takes_calls; /* whoever runs it can do with TRAP_CALL */
};

/*
 * The same as the operations of those names, and remembers who is there: what sandboxes are made
 * of. Errors as there.
 */
struct address_space *platform_as_create(struct platform *p, struct pagetable *pt);
void platform_as_destroy(struct address_space *as);
struct context *platform_ctx_create(struct platform *p);
void platform_ctx_destroy(struct context *ctx);
/* Who is there now will be when platform_rewind has been called. */
void platform_freeze(struct platform *p);
/*
 * Destroys the others, with the page tables of their address spaces. No context runs. The frozen
 * ones haven't been destroyed meanwhile (their makers hold them).
 */
void platform_rewind(struct platform *p);

/*
 * The processors that the calling thread may use: all of them, and in @others all but the one where
 * it is. False: there is no other. For what it has just made and what is to run beside it: the host
 * puts that on its maker's processor, where it would have to wait until the maker sleeps; moved
 * before it has run, it is moved for nothing.
 */
bool other_processors(cpu_set_t *all, cpu_set_t *others);

/*
 * From now on PLATFORM_KICK_SIGNAL ends what a thread waits in, and does nothing else. 0 or -errno.
 */
int platform_kick_handler(void);

extern const struct platform_type kvm_platform;
extern const struct platform_type systrap_platform;
extern const struct platform_type ptrace_platform;

/* All of them, best first; NULL at the end. */
extern const struct platform_type *const platform_types[];
/*
 * The platform called @name, or with "auto" the first whose probe succeeds and that isn't costly,
 * or else a costly one. NULL with one line in @why otherwise; with auto, @why tells what was passed
 * over (empty if nothing was).
 */
const struct platform_type *platform_find(const char *name, char *why, size_t size);
/* Lets the platform that platform_find(@name) will most likely return begin. */
void platform_prepare(const char *name);

#endif
