/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The systrap platform inside. platform/stub/stub.h has what it shares with ptrace.
 *
 * User code runs in stub processes under a seccomp filter that answers every system call with
 * SIGSYS. Its handler (code_x86_64.S), and that of the CPU's exceptions, runs on a stack in memory
 * that the sentry has mapped too: the signal frame *is* the register file. The handler says that it
 * stopped, and sleeps or spins until the sentry says run; then it returns from the signal with
 * whatever the sentry has put into the frame. Nothing is traced.
 *
 * Where the host lets it, a thread's filter has a *listener* (seccomp_unotify(2)): most system
 * calls then come to the sentry as notifications, with number and arguments and without a signal,
 * and go on with its answer: TRAP_CALL. Registers are had by a kick, which leads the thread to the
 * handler (context.c). The handler's own wait is a notification, too.
 *
 *   thread:  clone -> systrap_user -> stopped <--ctx_run--> user code
 *
 * A stopped thread is parked or attached to a context. Threads end with their process only.
 *
 *   sentry --fork--> master --fork--> leader, leader, … (all of them the sentry's children,
 *                                       | clone	          in the master's process group)
 *                                     user threads
 *
 * The sentry's thread that starts the platform forks the master, before there is a platform if it
 * is told of one in time. Stub processes are that thread's children (CLONE_PARENT) and die with it
 * (PR_SET_PDEATHSIG), so it lives as long as the platform. The reaper, a thread of its own,
 * waits for their end, that is all; if one is killed from outside, it wakes those who wait for its
 * threads.
 *
 * A leader sleeps until its request page has something for it: mmap, munmap, clone. It never runs
 * user code.
 *
 * What user code could do to this
 *
 * It can write the areas of its own process' threads and jump into the code page. So everything in
 * an area is taken as hostile: copied once, and checked. Its system calls from outside of the code
 * page always end in the sentry; from inside the filter allows it to sleep on or wake a futex of
 * its own memory, to set its own signal mask, segment bases, and registers. With that it can
 *   - say that a thread has stopped while it runs on. What was unmapped lazily (stub.h) it may then
 *     still see until the unmapping is done, or another program's frame in its place: one of the
 *     same sandbox. Page tables are the one thing in frames that the sentry trusts; so they are
 *     elsewhere (systrap.c), where no stub can map them.
 *   - prepare a thread to go on where it likes in the program that the process runs next, of the
 *     same sandbox.
 *   - block the kick signal and spin: after KICK_PATIENCE its process is killed.
 *   - kill its own process.
 * So it can harm the programs of its own sandbox, but neither the sentry nor anything outside: a
 * user thread can't map or unmap anything, has no use for a descriptor, can't make a process or
 * thread, send signals, trace, or open anything. Leaders can map the sandbox's memory and the
 * image, and clone; but nothing that user code can write is ever read by them.
 *
 * Locks: those of stub.h, then spawn_lock: the master, the result of clones, slots.
 */
#ifndef PLATFORM_SYSTRAP_INTERNAL_H
#define PLATFORM_SYSTRAP_INTERNAL_H

#include "platform/stub/stub.h"
#include "platform/systrap/layout.h"

#define MAX_AREAS      65536 /* in the control file */
#define AREAS_PER_PROC ((STUB_BASE - STUB_AREAS) / AREA_SIZE)
#define AREAS_OFFSET   (MAX_PROCS * PAGE_SIZE)
#define CONTROL_SIZE   (AREAS_OFFSET + (size_t)MAX_AREAS * AREA_SIZE)
#define MASTER_SLOT    1	    /* its request page; 0 is the scratch page */
#define FIRST_SLOT     2	    /* that of the process which it makes at once */
#define PROC_FLAGS     0x00108600UL /* CLONE_PARENT_SETTID|PARENT|FS|FILES */
#define MAX_CALLS      ((PAGE_SIZE - REQ_CALLS) / sizeof(struct stub_call))

#define KICK_PATIENCE 5	  /* seconds */
#define MAX_LISTENERS 256 /* threads that have one: they cost the sentry a descriptor each */
#define MAX_TO_CLOSE  8

struct request {
	_Atomic uint32_t seq;
	uint32_t n, op, ppid;
	uint64_t flags, stack, child;
	uint32_t ack[3];
	_Atomic uint32_t done; /* seq << 2 | code */
	uint64_t done_off;
	uint8_t reserved[REQ_CALLS - 0x40];
	struct stub_call calls[MAX_CALLS];
};
enum { ACK_OK, ACK_NOMEM, ACK_FAILED, ACK_DEAD };

/* The request page in @slot, all zero, of a process that is going to be born. */
static inline void request_init(struct request *req, unsigned int slot)
{
	req->ppid = (uint32_t)getpid();
	req->done_off = slot * PAGE_SIZE + REQ_DONE;
}

/* Makes what the page says a new request: @n calls, then @op. Who waits for it isn't woken. */
static inline void request_write(struct request *req, size_t n, uint32_t op)
{
	uint32_t seq = (atomic_load(&req->seq) + 1) & 0x3fffffff;

	req->n = (uint32_t)n;
	req->op = op;
	for (unsigned int i = 0; i < ARRAY_SIZE(req->ack); i++)
		req->ack[i] = seq << 2 | i;
	atomic_store(&req->seq, seq);
}

/* A control block. Hostile. */
struct control {
	_Atomic uint32_t state, asleep, waited, spin;
	_Atomic uint32_t sig, bases;
	_Atomic uint64_t frame, fs_base, gs_base;
	uint8_t stack[24];
	_Atomic uint32_t notify;
	_Atomic int32_t listener;
};

_Static_assert(offsetof(struct request, seq) == REQ_SEQ, "request");
_Static_assert(offsetof(struct request, n) == REQ_N, "request");
_Static_assert(offsetof(struct request, op) == REQ_OP, "request");
_Static_assert(offsetof(struct request, ppid) == REQ_PPID, "request");
_Static_assert(offsetof(struct request, flags) == REQ_FLAGS, "request");
_Static_assert(offsetof(struct request, stack) == REQ_STACK, "request");
_Static_assert(offsetof(struct request, child) == REQ_CHILD, "request");
_Static_assert(offsetof(struct request, ack) == REQ_ACK, "request");
_Static_assert(offsetof(struct request, done) == REQ_DONE, "request");
_Static_assert(offsetof(struct request, done_off) == REQ_DONE_OFF, "request");
_Static_assert(offsetof(struct request, calls) == REQ_CALLS, "request");
_Static_assert(sizeof(struct stub_call) == 64, "the leader's loop steps by 64");
_Static_assert(offsetof(struct control, state) == CTL_STATE, "control");
_Static_assert(offsetof(struct control, asleep) == CTL_ASLEEP, "control");
_Static_assert(offsetof(struct control, waited) == CTL_WAITED, "control");
_Static_assert(offsetof(struct control, spin) == CTL_SPIN, "control");
_Static_assert(offsetof(struct control, sig) == CTL_SIG, "control");
_Static_assert(offsetof(struct control, bases) == CTL_BASES, "control");
_Static_assert(offsetof(struct control, frame) == CTL_FRAME, "control");
_Static_assert(offsetof(struct control, fs_base) == CTL_FS, "control");
_Static_assert(offsetof(struct control, gs_base) == CTL_GS, "control");
_Static_assert(offsetof(struct control, stack) == CTL_STACK, "control");
_Static_assert(offsetof(struct control, notify) == CTL_NOTIFY, "control");
_Static_assert(offsetof(struct control, listener) == CTL_LISTENER, "control");
_Static_assert(sizeof(struct control) <= CTL_SIZE, "control");
_Static_assert(STUB_FD_CTL == 1, "code_x86_64.S");
_Static_assert(STUB_SCRATCH == STUB_BASE + 2 * PAGE_SIZE, "code_x86_64.S");

struct systrap_proc {
	struct stub_proc stub;
	struct list_head all;	   /* p->all; spawn_lock */
	struct list_head attached; /* threads; p->lock */
	struct request *req;
	struct systrap_thread *coming; /* asked for with the process; spawn_lock */
	unsigned int nr_areas;	       /* addresses used up; as->lock or unbound */
	_Atomic int near;	       /* the CPU its leader was last put on, or -1 */
	/* Descriptors for the leader to close when it does something next. Like nr_areas. */
	int32_t to_close[MAX_TO_CLOSE];
	unsigned int nr_to_close;
	bool ended, reaped; /* p->lock: let go of by us, collected */
};

struct systrap_thread {
	struct stub_thread stub;
	unsigned int slot; /* among the areas of the control file */
	uaddr_t va;
	struct control *ctl; /* the area */
	int listener;	     /* of its filter; -1: none, it hands over by futex */
	uint64_t stop_id;    /* the notification of the handler that waits; 0: not received yet */
};

struct systrap_context {
	struct stub_context stub;
	uint64_t fs_base, gs_base;
	bool bases_dirty;
	/* fpu holds the state (always when no thread does); it is to be written to the frame */
	bool fpu_valid, fpu_dirty;
	void *fpu; /* arch_fpu_size() bytes */
	/* The call that the thread waits in, outside of the handler: its registers aren't known. */
	struct {
		uint64_t id; /* the notification; 0: it is not in one */
		uaddr_t after;
		int nr;
		bool answered;
		long answer;
	} call;
	unsigned int stuck_ms; /* a kick hasn't been heeded. p->lock */
};

struct reaper {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct systrap_platform *p; /* whose it is; NULL: nobody's yet. under lock, like the rest */
	bool started, quit;
	int ctl_fd;    /* the control file; the platform's later. const */
	bool fsgsbase; /* const */
	bool listens;  /* the host has what listeners need. const */
	_Atomic bool has_timer;
	timer_t timer;	   /* its ticks; const once there */
	int pidfd;	   /* the master's. const */
	int sock;	   /* to the master. const */
	int master_sock;   /* the master's end, until it is made */
	pid_t master;	   /* its id, and its process group's. const */
	cpu_set_t cpus;	   /* that the sentry may use; none: the master is anywhere. const */
	int master_status; /* errno: why it could not be made, or ended */
};

struct systrap_platform {
	struct stub_platform stub;
	struct mutex spawn_lock;
	struct systrap_proc master;
	struct list_head all;
	struct systrap_proc *first; /* spawn_lock: on its way, or made, and not asked for yet */
	bool files_due;		    /* spawn_lock: the master hasn't been sent memory's yet */
	struct reaper *reaper;
	uint64_t *slots, *area_slots;
	bool fsgsbase;
	size_t fpu_size; /* of the kernel's image in a frame */
	unsigned int spin;
	_Atomic unsigned int tick_ms; /* the reaper's ticks; 0: it has none */
	unsigned int nr_listeners;    /* spawn_lock */
};

static inline struct systrap_platform *to_platform(struct platform *p)
{
	return container_of(to_stub_platform(p), struct systrap_platform, stub);
}

static inline struct systrap_platform *systrap_of(struct stub_platform *p)
{
	return container_of(p, struct systrap_platform, stub);
}

static inline struct systrap_context *to_ctx(struct context *ctx)
{
	return container_of(to_stub_context(ctx), struct systrap_context, stub);
}

static inline struct systrap_thread *to_thread(struct stub_thread *th)
{
	return container_of(th, struct systrap_thread, stub);
}

static inline struct systrap_proc *to_proc(struct stub_proc *proc)
{
	return container_of(proc, struct systrap_proc, stub);
}

/* futex of memory shared with stubs; 0 or -errno. @ns: 0 for ever. */
int shared_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t ns);
void shared_futex_wake(_Atomic uint32_t *word);

/*
 * filter.c
 */
/* For all stubs: no call from outside of the code page. In the master. 0 or -errno. */
int systrap_filter_install(void);
/* Writes the filters of user threads to the code page being made at @page. */
void filter_write_user(void *page);
/* Is the notification @nr at @ip the handler's, which says that the thread has stopped? */
bool filter_is_stop(int nr, uaddr_t ip);

/*
 * master.c
 */
/* Forks the master, which is on its way to the code page, as this thread's child. 0 or -errno. */
int systrap_master_start(struct reaper *r);

/*
 * leader.c: requests to leaders and the master
 */
void systrap_master_prepare(struct systrap_platform *p);
/*
 * The first process is on its way (systrap_master_start): has it make a thread, and the master take
 * memory's files. systrap_proc_new waits for them. spawn_lock held. 0 or -errno.
 */
int systrap_first_post_locked(struct systrap_platform *p);
int systrap_proc_new(struct stub_platform *base, struct stub_proc **out);
int systrap_thread_new(struct stub_platform *base, struct stub_proc *proc);
int systrap_batch(struct stub_platform *base, struct stub_proc *proc, struct stub_thread *th,
		  size_t n);
int systrap_pass_fd(struct stub_platform *base, int fd);
/* Frees what is left of @proc, which is ended and reaped. */
void systrap_proc_free(struct systrap_platform *p, struct systrap_proc *proc);

/*
 * reaper.c
 */
/*
 * Makes a control file, the master, and the thread that looks after it. ERR_PTR. How the master
 * gets on is told by the answer to the first request. Stubs die with the calling thread.
 */
struct reaper *reaper_start(void);
/* It is @p's from here on, whose master is prepared. */
void reaper_adopt(struct reaper *r, struct systrap_platform *p);
/* Waits until it needs no rights any more that lockdown takes away. */
void reaper_wait(struct reaper *r);
/* Everything was killed but the master. Frees @r, but leaves the control file. */
void reaper_stop(struct reaper *r);
/* Has this host what listeners need? */
bool systrap_can_listen(void);
void systrap_proc_end(struct stub_platform *base, struct stub_proc *proc);
void systrap_proc_kill(struct stub_platform *base, struct stub_proc *proc);
/* User code runs, or several contexts do now: the reaper looks after them now and then. */
void systrap_tick_start(struct systrap_platform *p);
void systrap_crowd(struct stub_platform *base);

/*
 * frame_x86_64.c: the signal frame in a thread's area
 */
/* Where the stopped thread's frame is. 0, or -EFAULT if that can't be. */
int frame_find(const struct systrap_thread *th, void **frame);
void frame_get_regs(const void *frame, struct arch_regs *regs);
void frame_set_regs(void *frame, const struct arch_regs *regs);
/* Size of the extended state in @frame, which is trusted. -errno: not usable. */
int frame_fpu_size(const struct systrap_thread *th, const void *frame, size_t *size);
/* @fpu: arch_fpu_size() bytes. -EFAULT when there can't be one in the frame. */
int frame_get_fpu(const struct systrap_platform *p, const struct systrap_thread *th,
		  const void *frame, void *fpu);
int frame_set_fpu(const struct systrap_platform *p, const struct systrap_thread *th, void *frame,
		  const void *fpu);
/* Nothing of what ran here is left to read for the next program. */
void frame_scrub(const struct systrap_platform *p, const struct systrap_thread *th, void *frame);
/* Why it stopped. */
struct frame_stop {
	int sig, code;
	uaddr_t addr;
	unsigned int vector;
	uint64_t error;
	int nr;	     /* SIGSYS: the call */
	bool native; /* and by the ABI's instruction */
};
void frame_get_stop(const struct systrap_thread *th, const void *frame, struct frame_stop *stop);

/*
 * context.c
 */
struct context *systrap_ctx_create(struct platform *base);
void systrap_ctx_destroy(struct context *base);
void systrap_ctx_prepare(struct context *base, struct address_space *as);
int systrap_ctx_run(struct context *base, struct address_space *as, struct arch_regs *regs,
		    struct trap *trap);
void systrap_ctx_get_bases(struct context *base, uint64_t *fs_base, uint64_t *gs_base);
void systrap_ctx_set_bases(struct context *base, uint64_t fs_base, uint64_t gs_base);
void systrap_ctx_get_fpu(struct context *base, void *fpu);
void systrap_ctx_set_fpu(struct context *base, const void *fpu);
void systrap_ctx_answer(struct context *base, long result);

#endif
