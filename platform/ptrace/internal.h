/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ptrace platform inside. platform/stub/stub.h has what it shares with systrap.
 *
 * Processes and who traces them
 *
 *   sentry --- warden thread ---traces---> master --fork--> leader, leader, leader …
 *      |                                                      | clone
 *      +--- task threads ------traces-----------------------> thread, thread …
 *
 * A *leader* stays stopped, traced by the warden from birth (so it dies with the sentry), and makes
 * host calls for those who have no thread of their own there: new threads, and unmapping from
 * outside. The other threads run user code, each traced by the host thread that runs the context,
 * since ptrace lets only the tracing thread touch it.
 *
 * A parked stub thread is traced by nobody and sleeps in the stub page; an attached one is traced
 * by its driver. Handing one over is therefore: detach into the park loop, seize, interrupt.
 * Nothing of the process stops meanwhile.
 *
 * Locks: those of stub.h, then warden.lock, the warden's queue.
 */
#ifndef PLATFORM_PTRACE_INTERNAL_H
#define PLATFORM_PTRACE_INTERNAL_H

#include "platform/ptrace/stub_arch.h"
#include "platform/stub/stub.h"

struct ptrace_context {
	struct stub_context stub;
	/* What the stub thread's registers are, and which of them we must still write. */
	struct arch_regs regs;
	bool regs_dirty, bases_dirty, fpu_dirty;
	bool fpu_valid; /* fpu holds the state; always so when there is no thread */
	void *fpu;	/* p->fpu_size bytes, the kernel's format */
};

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
	struct stub_platform stub;
	size_t fpu_size;
	void *fpu_init;
	pthread_key_t exit_key; /* its destructor parks what an ending host thread traces */
	struct warden warden;
};

static inline struct ptrace_platform *to_platform(struct platform *p)
{
	return container_of(to_stub_platform(p), struct ptrace_platform, stub);
}

static inline struct ptrace_platform *ptrace_of(struct stub_platform *p)
{
	return container_of(p, struct ptrace_platform, stub);
}

static inline struct ptrace_context *to_ctx(struct context *ctx)
{
	return container_of(to_stub_context(ctx), struct ptrace_context, stub);
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
void warden_wake(struct stub_platform *base);
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
/* Attaches @ctx to a thread of @as, leaving the one it had. 0 or -errno. */
int context_attach(struct ptrace_context *ctx, struct stub_space *as);
/* Parks the thread of @ctx (of the calling host thread), or drops it if dead. */
void context_detach(struct ptrace_context *ctx);
/* @ctx goes away; its thread, if attached to another host thread, is parked by that one. */
void context_abandon(struct ptrace_context *ctx);
/* @th is gone, or no use: ends its process, collects it. */
void stub_thread_died(struct stub_thread *th);
/* pthread key destructor. */
void stub_threads_park_all(void *unused);

/*
 * context.c
 */
struct context *ptrace_ctx_create(struct platform *base);
void ptrace_ctx_destroy(struct context *base);
void ptrace_ctx_leave(struct context *base);
int ptrace_ctx_run(struct context *base, struct address_space *as, struct arch_regs *regs,
		   struct trap *trap);
void ptrace_ctx_get_bases(struct context *base, uint64_t *fs_base, uint64_t *gs_base);
void ptrace_ctx_set_bases(struct context *base, uint64_t fs_base, uint64_t gs_base);
void ptrace_ctx_get_fpu(struct context *base, void *fpu);
void ptrace_ctx_set_fpu(struct context *base, const void *fpu);

#endif
