/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The poller: a thread that looks into the call boxes of tasks in the guest and carries out what it
 * finds, so that they need not leave it.
 *
 *	       a task rings several times in a short while
 *	ASLEEP ------------------------------------------> POLLING
 *	       <------------------------------------------
 *	       nothing found for IDLE_NS, too much looking in vain, or the CPU is wanted elsewhere
 *
 * While it sleeps every box says spin = 0, and user code rings at once. If a call blocks all the
 * same, the thread goes on with it alone and another becomes the poller (poller_blocks); the task's
 * own thread gives up waiting in the guest and waits for the answer outside.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sentry/fastcall.h"
#include "sentry/kernel.h"
#include "sentry/lib/clock.h"
#include "sentry/lib/hostfutex.h"
#include "sentry/mm/sites.h"
#include "sentry/syscalls.h"
#include "sentry/task.h"

#define MAX_TASKS   64	    /* that can be polled at once */
#define IDLE_NS	    1000000 /* without a call: sleep */
#define BELLS	    6	    /* within BELLS_NS: wake up */
#define BELLS_NS    2000000
#define GIVEN_UP    4 /* times user code waited in vain within GIVEN_UP_NS: stop */
#define GIVEN_UP_NS 2000000
#define BACKOFF_NS  2000000 /* for so long; doubles */
#define BACKOFF_MAX 256000000
#define WINDOW_NS   20000000 /* over which time in vain, and PREEMPTIONS, are counted */
#define PREEMPTIONS 10
#define WORTH_NS    50000 /* less than a call in this time isn't worth polling for */
#define LOOKS	    64	  /* between two looks at the clock */
#define STACK_SIZE  (256UL << 10)
#define MAX_HELPERS 32

bool poller_enabled;
_Atomic uint64_t poller_served;

struct recent {
	_Atomic uint64_t since; /* ns */
	_Atomic uint32_t n;
};

static struct {
	uint64_t share; /* percent */
	uint32_t spin;	/* of user code */
	cpu_set_t cpus;
	_Atomic int avoid; /* where the program runs that rang last: no place to look from */
	_Atomic(struct task *) task[MAX_TASKS];
	/*
	 * Their boxes, to look at without more ado: the memory stays mapped, whoever has it next.
	 */
	_Atomic(struct callbox *) box[MAX_TASKS];
	_Atomic int high;	       /* slots used so far */
	_Atomic(struct task *) hazard; /* looked at by the poller right now */
	pthread_mutex_t lock;	       /* slots */
	_Atomic uint32_t wanted;       /* futex: 1 POLLING */
	_Atomic uint64_t not_before;   /* CLOCK_MONOTONIC ns */
	struct recent bells, given_up;
	_Atomic uint64_t backoff; /* ns */
	_Atomic bool started;	  /* there is a thread */
	/* Helpers: threads that are not the poller now. */
	_Atomic uint32_t vacant; /* futex: 1 when nobody is the poller */
	_Atomic int helpers;
} poll = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* This thread is the poller and works for this task. */
static _Thread_local struct task *working_for;
/* It was the poller when it began, but has handed that over. */
static _Thread_local bool handed_over;

static bool start_thread(void);

/* ---- which calls ---- */

/* Calls that use nothing of the task's registers and that don't, or needn't, block. */
static const uint16_t taken[] = {
	SYS_read,
	SYS_write,
	SYS_open,
	SYS_close,
	SYS_stat,
	SYS_fstat,
	SYS_lstat,
	SYS_lseek,
	SYS_mmap,
	SYS_brk,
	SYS_rt_sigaction,
	SYS_rt_sigprocmask,
	SYS_ioctl,
	SYS_pread64,
	SYS_pwrite64,
	SYS_readv,
	SYS_writev,
	SYS_access,
	SYS_pipe,
	SYS_sched_yield,
	SYS_mincore,
	SYS_dup,
	SYS_dup2,
	SYS_getpid,
	SYS_sendfile,
	SYS_socket,
	SYS_connect,
	SYS_accept,
	SYS_sendto,
	SYS_recvfrom,
	SYS_sendmsg,
	SYS_recvmsg,
	SYS_shutdown,
	SYS_bind,
	SYS_listen,
	SYS_getsockname,
	SYS_getpeername,
	SYS_socketpair,
	SYS_setsockopt,
	SYS_getsockopt,
	SYS_uname,
	SYS_fcntl,
	SYS_flock,
	SYS_fsync,
	SYS_fdatasync,
	SYS_truncate,
	SYS_ftruncate,
	SYS_getdents,
	SYS_getcwd,
	SYS_chdir,
	SYS_fchdir,
	SYS_rename,
	SYS_mkdir,
	SYS_rmdir,
	SYS_creat,
	SYS_link,
	SYS_unlink,
	SYS_symlink,
	SYS_readlink,
	SYS_chmod,
	SYS_fchmod,
	SYS_chown,
	SYS_fchown,
	SYS_lchown,
	SYS_umask,
	SYS_gettimeofday,
	SYS_getrlimit,
	SYS_getrusage,
	SYS_sysinfo,
	SYS_times,
	SYS_getuid,
	SYS_getgid,
	SYS_geteuid,
	SYS_getegid,
	SYS_getppid,
	SYS_getpgrp,
	SYS_getpgid,
	SYS_getsid,
	SYS_rt_sigpending,
	SYS_utime,
	SYS_mknod,
	SYS_statfs,
	SYS_fstatfs,
	SYS_getpriority,
	SYS_sched_getscheduler,
	SYS_gettid,
	SYS_readahead,
	SYS_setxattr,
	SYS_lsetxattr,
	SYS_fsetxattr,
	SYS_getxattr,
	SYS_lgetxattr,
	SYS_fgetxattr,
	SYS_listxattr,
	SYS_llistxattr,
	SYS_flistxattr,
	SYS_removexattr,
	SYS_lremovexattr,
	SYS_fremovexattr,
	SYS_time,
	SYS_futex,
	SYS_sched_getaffinity,
	SYS_epoll_create,
	SYS_getdents64,
	SYS_set_tid_address,
	SYS_fadvise64,
	SYS_clock_gettime,
	SYS_clock_getres,
	SYS_epoll_wait,
	SYS_epoll_ctl,
	SYS_inotify_init,
	SYS_inotify_add_watch,
	SYS_inotify_rm_watch,
	SYS_openat,
	SYS_mkdirat,
	SYS_fchownat,
	SYS_futimesat,
	SYS_newfstatat,
	SYS_unlinkat,
	SYS_renameat,
	SYS_linkat,
	SYS_symlinkat,
	SYS_readlinkat,
	SYS_fchmodat,
	SYS_faccessat,
	SYS_set_robust_list,
	SYS_tee,
	SYS_utimensat,
	SYS_epoll_pwait,
	SYS_timerfd_create,
	SYS_eventfd,
	SYS_fallocate,
	SYS_timerfd_settime,
	SYS_timerfd_gettime,
	SYS_accept4,
	SYS_signalfd4,
	SYS_eventfd2,
	SYS_epoll_create1,
	SYS_dup3,
	SYS_pipe2,
	SYS_inotify_init1,
	SYS_preadv,
	SYS_pwritev,
	SYS_prlimit64,
	SYS_getcpu,
	SYS_renameat2,
	SYS_getrandom,
	SYS_memfd_create,
	SYS_copy_file_range,
	SYS_preadv2,
	SYS_pwritev2,
	SYS_statx,
	SYS_faccessat2,
};

bool poller_takes(int nr)
{
	static bool table[512], made;

	if (!made) {
		for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
			table[taken[i]] = true;
		made = true;
	}
	return nr >= 0 && nr < 512 && table[nr];
}

bool poller_may_come(void)
{
	return atomic_load(&poll.wanted) || monotonic_ns() >= atomic_load(&poll.not_before);
}

static bool fd_ready(struct task *t, uint64_t fd, uint32_t events)
{
	struct file *f = fd_get(t->files, (int)fd);
	bool ready = true;

	if (!f)
		return true;
	if (f->ops->poll_ctx)
		ready = f->ops->poll_ctx(&t->vfs, f) & (events | EPOLLERR | EPOLLHUP);
	else if (f->ops->poll)
		ready = f->ops->poll(f) & (events | EPOLLERR | EPOLLHUP);
	file_put(f);
	return ready;
}

/* Would the call wait? A guess: if it is wrong the poller blocks, which is slow but right. */
static bool would_block(struct task *t, int nr, const uint64_t *a)
{
	switch (nr) {
	case SYS_read:
	case SYS_pread64:
	case SYS_readv:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_accept:
	case SYS_accept4:
	case SYS_preadv:
	case SYS_preadv2:
	case SYS_recvmmsg:
		return !fd_ready(t, a[0], EPOLLIN);
	case SYS_write:
	case SYS_pwrite64:
	case SYS_writev:
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_pwritev:
	case SYS_pwritev2:
		return !fd_ready(t, a[0], EPOLLOUT);
	case SYS_sendfile: /* sendfile, splice-like */
		return !fd_ready(t, a[0], EPOLLOUT) || !fd_ready(t, a[1], EPOLLIN);
	case SYS_connect: /* connect */
		return true;
	case SYS_fcntl: /* fcntl */
		return (int)a[1] == F_SETLKW || (int)a[1] == F_OFD_SETLKW;
	case SYS_flock: /* flock */
		return !(a[1] & LOCK_NB);
	case SYS_futex: { /* futex: what wakes */
		int op = (int)a[1] & 127;

		return op != FUTEX_WAKE && op != FUTEX_REQUEUE && op != FUTEX_CMP_REQUEUE &&
		       op != FUTEX_WAKE_OP && op != FUTEX_WAKE_BITSET;
	}
	case SYS_epoll_wait:
	case SYS_epoll_pwait: /* epoll_wait */
		return a[3] && !fd_ready(t, a[0], EPOLLIN);
	}
	return false;
}

/* ---- tasks ---- */

bool poller_add(struct task *t)
{
	bool ok = false;

	pthread_mutex_lock(&poll.lock);
	for (int i = 0; i < MAX_TASKS && !ok; i++) {
		if (atomic_load(&poll.task[i]))
			continue;
		t->fast.slot = i;
		atomic_store(&poll.task[i], t);
		atomic_store(&poll.box[i], t->fast.box);
		if (i >= atomic_load(&poll.high))
			atomic_store(&poll.high, i + 1);
		atomic_store(&t->fast.box->spin, atomic_load(&poll.wanted) ? poll.spin : 0);
		ok = true;
	}
	pthread_mutex_unlock(&poll.lock);
	return ok;
}

void poller_remove(struct task *t)
{
	if (t->fast.slot < 0)
		return;
	pthread_mutex_lock(&poll.lock);
	atomic_store(&poll.box[t->fast.slot], NULL);
	atomic_store(&poll.task[t->fast.slot], NULL);
	t->fast.slot = -1;
	pthread_mutex_unlock(&poll.lock);
	while (atomic_load(&poll.hazard) == t)
		sched_yield();
}

void poller_forget(void)
{
	pthread_mutex_lock(&poll.lock);
	for (int i = 0; i < atomic_load(&poll.high); i++) {
		struct task *t = atomic_load(&poll.task[i]);

		if (t)
			t->fast.slot = -1;
		atomic_store(&poll.box[i], NULL);
		atomic_store(&poll.task[i], NULL);
	}
	pthread_mutex_unlock(&poll.lock);
	while (atomic_load(&poll.hazard))
		sched_yield();
}

/* Tells user code whether it is worth waiting. */
static void set_spin(uint32_t spin)
{
	pthread_mutex_lock(&poll.lock);
	for (int i = 0; i < atomic_load(&poll.high); i++) {
		struct task *t = atomic_load(&poll.task[i]);

		if (t)
			atomic_store(&t->fast.box->spin, spin);
	}
	pthread_mutex_unlock(&poll.lock);
}

/* Counts events that come within @ns of each other: the number so far. */
static uint32_t count_event(struct recent *r, uint64_t now, uint64_t ns)
{
	if (now - atomic_load(&r->since) > ns) {
		atomic_store(&r->since, now);
		atomic_store(&r->n, 1);
		return 1;
	}
	return atomic_fetch_add(&r->n, 1) + 1;
}

/* No polling for a while, twice as long as last time. */
static void back_off(uint64_t now)
{
	uint64_t ns = MIN(MAX(atomic_load(&poll.backoff) * 2, (uint64_t)BACKOFF_NS),
			  (uint64_t)BACKOFF_MAX);

	atomic_store(&poll.backoff, ns);
	atomic_store(&poll.not_before, now + ns);
}

void poller_note_bell(struct task *t, bool given_up)
{
	uint64_t now;

	if (!poller_enabled || t->fast.slot < 0)
		return;
	now = monotonic_ns();
	if (atomic_load(&poll.wanted)) {
		/* It is there, but doesn't get to run, or is busy: waiting for it is a loss. */
		if (given_up && count_event(&poll.given_up, now, GIVEN_UP_NS) == GIVEN_UP) {
			back_off(now);
			set_spin(0);
			atomic_store(&poll.wanted, 0);
		}
		return;
	}
	if (count_event(&poll.bells, now, BELLS_NS) < BELLS || now < atomic_load(&poll.not_before))
		return;
	atomic_store(&poll.bells.n, 0);
	atomic_store(&poll.avoid, sched_getcpu());
	if (!atomic_exchange(&poll.wanted, 1))
		host_futex_wake(&poll.wanted, HOST_FUTEX_ALL);
	if (!atomic_exchange(&poll.started, true) && !start_thread())
		atomic_store(&poll.started, false);
}

/* ---- the work ---- */

static void release(struct task *t)
{
	if (atomic_exchange(&t->fast.owner, FAST_GUEST) == FAST_AWAITED)
		host_futex_wake(&t->fast.owner, HOST_FUTEX_ALL);
}

/* An answer that user code can't take from the box: its own thread will. */
static void leave_result(struct task *t, long ret)
{
	t->fast.result = ret;
	t->fast.result_pending = true;
}

static long carry_out(struct task *t, int nr, const uint64_t *a)
{
	long ret;

	t->syscall_nr = nr;
	ret = syscall_carry_out(t, nr, a);
	t->syscall_nr = -1;
	return ret;
}

/* Sends user code to the stub's way of ringing at once, unless it is about to ring anyway. */
static void refuse(struct task *t)
{
	struct callbox *box = t->fast.box;
	uint64_t after = box->after;

	box->after2 = after;
	box->after = mm_site_stub(t->mm) + (uint64_t)(callstub_refused - callstub_start);
	if (atomic_exchange(&box->state, CALLBOX_DONE) != CALLBOX_TAKEN)
		box->after = after;
}

/* The task is ours (POLLER) and has posted a call. */
static void serve(struct task *t)
{
	struct callbox *box = t->fast.box;
	uint64_t nr = __atomic_load_n(&box->nr, __ATOMIC_RELAXED), a[6];
	uint32_t state = CALLBOX_CALL;
	bool kick = false;
	long ret;

	if (!atomic_compare_exchange_strong(&box->state, &state, CALLBOX_TAKEN))
		return;
	for (int i = 0; i < 6; i++)
		a[i] = __atomic_load_n(&box->args[i], __ATOMIC_RELAXED);
	if (nr >= SYSCALL_MAX || !poller_takes((int)nr) || would_block(t, (int)nr, a)) {
		refuse(t);
		return;
	}
	t->fast.nr = nr;
	working_for = t;
	handed_over = false;
	ret = carry_out(t, (int)nr, a);
	working_for = NULL;
	atomic_store_explicit(&poller_served,
			      atomic_load_explicit(&poller_served, memory_order_relaxed) + 1,
			      memory_order_relaxed);
	if (!fast_may_answer(t, ret)) {
		leave_result(t, ret);
		kick = true;
	} else {
		box->nr = (uint64_t)ret;
		if (atomic_exchange(&box->state, CALLBOX_DONE) != CALLBOX_TAKEN)
			leave_result(t, ret);
	}
	if (kick)
		t->kernel->platform->type->ctx_kick(t->ctx);
}

/* Serves the task in slot @i, whose box seems to hold a call. */
static bool try_serve(int i)
{
	struct task *t = atomic_load(&poll.task[i]);
	uint32_t owner = FAST_GUEST;
	bool claimed;

	atomic_store(&poll.hazard, t);
	claimed = t && atomic_load(&poll.task[i]) == t &&
		  atomic_compare_exchange_strong(&t->fast.owner, &owner, FAST_POLLER);
	/* From here on the owner word keeps it alive. */
	atomic_store(&poll.hazard, NULL);
	if (!claimed)
		return false;
	serve(t);
	release(t);
	return true;
}

/* Looks at everyone once. Returns how many calls it found. */
static unsigned int look_around(void)
{
	int high = atomic_load_explicit(&poll.high, memory_order_relaxed);
	unsigned int found = 0;

	for (int i = 0; i < high; i++) {
		struct callbox *box = atomic_load_explicit(&poll.box[i], memory_order_relaxed);

		if (!box || atomic_load_explicit(&box->state, memory_order_acquire) != CALLBOX_CALL)
			continue;
		found += try_serve(i);
		if (handed_over)
			break;
	}
	return found;
}

static long preemptions(void)
{
	struct rusage ru;

	getrusage(RUSAGE_THREAD, &ru);
	return ru.ru_nivcsw;
}

/* To another processor than that of the program which rang: it would wait for the time we look. */
static void go_elsewhere(void)
{
	cpu_set_t set = poll.cpus;
	int avoid = atomic_load(&poll.avoid);

	if (avoid >= 0 && avoid < CPU_SETSIZE)
		CPU_CLR((size_t)avoid, &set);
	if (CPU_COUNT(&set))
		sched_setaffinity(0, sizeof(set), &set);
}

/* Until there is nothing to do, or others want the CPU. */
static void poll_for_a_while(void)
{
	uint64_t start = monotonic_ns(), begin = start, last = start, mark = start, now = start;
	uint64_t vain = 0;
	uint64_t served = atomic_load(&poller_served);
	long preempted = preemptions();
	unsigned int quiet = 0;

	go_elsewhere();
	set_spin(poll.spin);
	for (;;) {
		if (look_around()) {
			if (handed_over)
				return;
			quiet = 0;
			continue;
		}
		if (++quiet % LOOKS)
			continue;
		now = monotonic_ns();
		if (quiet == LOOKS)
			last = mark = now;
		vain += now - mark;
		mark = now;
		if (now - last > IDLE_NS || !atomic_load(&poll.wanted))
			break;
		/* Looking in vain costs others; that is limited. */
		if (now - start < WINDOW_NS)
			continue;
		if (preemptions() - preempted > PREEMPTIONS ||
		    vain * 100 > (now - start) * poll.share)
			break;
		start = now;
		vain = 0;
		preempted = preemptions();
	}
	/* Was it worth while? */
	if (atomic_load(&poller_served) - served < (now - begin) / WORTH_NS)
		back_off(now);
	else
		atomic_store(&poll.backoff, 0);
	set_spin(0);
	atomic_store(&poll.wanted, 0);
}

/* A thread that is the poller, or waits to become it. */
static void *poller_thread(void *unused)
{
	(void)unused;
	for (;;) {
		uint32_t vacant = 1;

		if (!atomic_compare_exchange_strong(&poll.vacant, &vacant, 0)) {
			host_futex_wait(&poll.vacant, 0, NULL);
			continue;
		}
		for (;;) {
			handed_over = false;
			if (!atomic_load(&poll.wanted)) {
				host_futex_wait(&poll.wanted, 0, NULL);
				continue;
			}
			poll_for_a_while();
			/* Somebody else is the poller now. */
			if (handed_over)
				break;
		}
	}
	return NULL;
}

static bool start_thread(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	if (atomic_fetch_add(&poll.helpers, 1) >= MAX_HELPERS) {
		atomic_fetch_sub(&poll.helpers, 1);
		return false;
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	err = pthread_create(&thread, &attr, poller_thread, NULL);
	pthread_attr_destroy(&attr);
	if (err)
		atomic_fetch_sub(&poll.helpers, 1);
	return !err;
}

void poller_blocks(void)
{
	if (!working_for || handed_over)
		return;
	handed_over = true;
	/* Nobody polls until another thread does: calls ring meanwhile. */
	set_spin(0);
	atomic_store(&poll.wanted, 0);
	atomic_store(&poll.vacant, 1);
	if (!host_futex_wake(&poll.vacant, 1))
		start_thread();
}

void poller_init(unsigned int share, unsigned int spin)
{
	poll.spin = spin;
	poll.share = share;
	/* On one CPU nobody can look while user code runs. */
	if (sched_getaffinity(0, sizeof(poll.cpus), &poll.cpus) || CPU_COUNT(&poll.cpus) < 2)
		return;
	atomic_store(&poll.vacant, 1);
	poller_enabled = true;
}
