/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to leaders and to the master: host calls, new threads, new processes.
 *
 * A leader's request page belongs to who holds the as->lock of its process (or has the process to
 * itself), the master's to who holds spawn_lock.
 */
#include "platform/systrap/internal.h"

#include <linux/futex.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"
#include "sentry/lib/physmem.h"

#define THREAD_FLAGS 0x00050f00UL /* CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM */

/* Newer than some headers. */
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS	   SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1UL
#endif

int shared_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t ns)
{
	struct timespec ts = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

	if (syscall(SYS_futex, word, FUTEX_WAIT, value, ns ? &ts : NULL, NULL, 0))
		return -errno;
	return 0;
}

/* All of them: user code may have put itself among the sleepers. */
void shared_futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0);
}

/*
 * The leader shares our CPU: it works while we sleep. Only for one that sleeps itself: moving one
 * that runs, as it does right after its birth, takes the host's stopper thread and tens of
 * microseconds.
 */
static void leader_near(struct systrap_platform *p, struct systrap_proc *proc)
{
	int cpu;

	if (!p->stub.place.pin)
		return;
	cpu = sched_getcpu();
	if (cpu == atomic_load_explicit(&proc->near, memory_order_relaxed))
		return;
	place_near(&p->stub.place, proc->stub.pid);
	atomic_store_explicit(&proc->near, cpu, memory_order_relaxed);
}

/* Posts what is in the request page; for one that is yet to be born, or is woken next. */
static void request_set(struct systrap_platform *p, struct systrap_proc *proc, size_t n,
			uint32_t op)
{
	atomic_fetch_add_explicit(&p->stub.nr_requests, 1, memory_order_relaxed);
	request_write(proc->req, n, op);
}

static void request_post(struct systrap_platform *p, struct systrap_proc *proc, size_t n,
			 uint32_t op)
{
	request_set(p, proc, n, op);
	shared_futex_wake(&proc->req->seq);
}

/* Waits for the answer. 0 or -errno; -ESRCH: it is gone. */
static int request_wait(struct systrap_proc *proc)
{
	struct request *req = proc->req;
	uint32_t seq = atomic_load(&req->seq), done;

	for (;;) {
		done = atomic_load(&req->done);
		if (done >> 2 == seq && (done & 3) != ACK_DEAD)
			break;
		if (atomic_load(&proc->stub.dead))
			return -ESRCH;
		shared_futex_wait(&req->done, done, 0);
	}
	switch (done & 3) {
	case ACK_OK:
		return 0;
	case ACK_NOMEM:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

static int request_run(struct systrap_platform *p, struct systrap_proc *proc, size_t n, uint32_t op)
{
	request_post(p, proc, n, op);
	return request_wait(proc);
}

/* What the master's clone says the child is; 0: nothing. */
static _Atomic uint32_t *child_id(struct systrap_platform *p)
{
	return (_Atomic uint32_t *)(p->stub.ctl + SCRATCH_CHILD);
}

/* Makes @n calls, then a clone. spawn_lock held until it is done. */
static void clone_set_locked(struct systrap_platform *p, struct systrap_proc *proc, size_t n,
			     uint64_t flags, uaddr_t stack, uint64_t child)
{
	proc->req->flags = flags;
	proc->req->stack = stack;
	proc->req->child = child;
	if (child)
		atomic_store(child_id(p), 0);
	request_set(p, proc, n, REQ_OP_CLONE);
}

/* Returns the child's id or -errno. */
static long clone_wait_locked(struct systrap_platform *p, struct systrap_proc *proc)
{
	int err = request_wait(proc);
	uint32_t id;
	off_t at;

	if (err)
		return err;
	id = proc == &p->master ? atomic_load(child_id(p)) : 0;
	if (id)
		return id;
	at = lseek(p->stub.ctl_fd, 0, SEEK_CUR);
	return at < 0 ? -errno : at - 4096;
}

/* Descriptors that stubs have no use for are closed on the way. */
static size_t add_closes(struct systrap_proc *proc, size_t n)
{
	while (proc->nr_to_close && n < MAX_CALLS) {
		proc->req->calls[n++] = (struct stub_call){
			.nr = SYS_close,
			.args = {(uint64_t)proc->to_close[--proc->nr_to_close]},
		};
	}
	return n;
}

int systrap_batch(struct stub_platform *base, struct stub_proc *proc, struct stub_thread *th,
		  size_t n)
{
	leader_near(systrap_of(base), to_proc(proc));
	n = add_closes(to_proc(proc), n);
	return request_run(systrap_of(base), to_proc(proc), n, REQ_OP_NONE);
}

/* The area of a new thread, and the call that maps it. */
static void area_prepare(struct systrap_platform *p, struct systrap_proc *proc,
			 struct systrap_thread *th)
{
	uint64_t offset = AREAS_OFFSET + (uint64_t)th->slot * AREA_SIZE;
	struct {
		uint64_t sp;
		int flags;
		uint64_t size;
	} stack = {.sp = th->va + CTL_SIZE, .size = AREA_SIZE - CTL_SIZE};

	_Static_assert(sizeof(stack) == sizeof(th->ctl->stack), "stack_t");
	th->ctl = (struct control *)(p->stub.ctl + offset);
	memset(th->ctl, 0, AREA_SIZE);
	memcpy(th->ctl->stack, &stack, sizeof(stack));
	atomic_store(&th->ctl->state, STATE_RUN);
	atomic_store(&th->ctl->spin, p->spin);
	atomic_store(&th->ctl->notify, p->reaper->listens && !p->spin &&
					       p->nr_listeners < MAX_LISTENERS &&
					       proc->nr_to_close < MAX_TO_CLOSE);
	proc->req->calls[0] = (struct stub_call){
		.nr = SYS_mmap,
		.args = {th->va, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 STUB_FD_CTL, offset},
	};
}

/*
 * Takes the listener that the new thread has made, if it has. What it is called is hostile; who is
 * heard over it is checked with each notification. spawn_lock held. 0 or -errno.
 */
static int listener_take_locked(struct systrap_platform *p, struct systrap_proc *proc,
				struct systrap_thread *th)
{
	int theirs = atomic_load(&th->ctl->listener), fd;

	if (!atomic_load(&th->ctl->notify))
		return 0;
	fd = (int)syscall(SYS_pidfd_getfd, p->reaper->pidfd, theirs, 0);
	if (fd < 0)
		return -errno;
	/* The sentry and the stub share a processor. */
	if (ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)) {
		close(fd);
		return -EBADF; /* it isn't one */
	}
	th->listener = fd;
	p->nr_listeners++;
	proc->to_close[proc->nr_to_close++] = theirs;
	return 0;
}

/* The new thread comes to its first stop by itself. */
static int thread_wait_up(struct systrap_platform *p, struct systrap_proc *proc,
			  struct systrap_thread *th)
{
	void *frame;
	int err;

	atomic_store(&th->ctl->waited, 1);
	while (atomic_load(&th->ctl->state) != STATE_STOPPED) {
		if (atomic_load(&proc->stub.dead))
			return -ESRCH;
		shared_futex_wait(&th->ctl->state, STATE_RUN, 100000000);
	}
	atomic_store(&th->ctl->waited, 0);
	mutex_lock_nested(&p->spawn_lock);
	err = listener_take_locked(p, proc, th);
	mutex_unlock(&p->spawn_lock);
	if (err)
		return err;
	err = frame_find(th, &frame);
	if (!err && !p->fpu_size)
		err = frame_fpu_size(th, frame, &p->fpu_size);
	return err;
}

/* Has the leader of @proc, which need not be born yet, asked for a thread. ERR_PTR. */
static struct systrap_thread *thread_ask_locked(struct systrap_platform *p,
						struct systrap_proc *proc)
{
	struct systrap_thread *th = hzalloc(sizeof(*th));
	int slot;

	if (!th)
		return ERR_PTR(-ENOMEM);
	slot = proc->nr_areas < AREAS_PER_PROC ? stub_slot_alloc(p->area_slots, MAX_AREAS)
					       : -EAGAIN;
	if (slot < 0) {
		kfree(th);
		return ERR_PTR(slot);
	}
	th->slot = (unsigned int)slot;
	th->listener = -1;
	th->va = STUB_AREAS + proc->nr_areas * AREA_SIZE;
	th->stub.p = &p->stub;
	th->stub.proc = &proc->stub;
	area_prepare(p, proc, th);
	clone_set_locked(p, proc, 1, THREAD_FLAGS, th->va, 0);
	return th;
}

/* Waits for the leader's answer. 0, or -errno and @th is no more. */
static int thread_answer_locked(struct systrap_platform *p, struct systrap_proc *proc,
				struct systrap_thread *th)
{
	long ret = clone_wait_locked(p, proc);

	if (ret >= 0) {
		th->stub.tid = (pid_t)ret;
		proc->nr_areas++;
		return 0;
	}
	/* It may be mapped there: it must not be another's while it is. */
	proc->req->calls[0] = (struct stub_call){
		.nr = SYS_munmap,
		.args = {th->va, AREA_SIZE},
	};
	if (!request_run(p, proc, 1, REQ_OP_NONE))
		stub_slot_free(p->area_slots, th->slot);
	kfree(th);
	return (int)ret;
}

/* Parks @th when it has come up. 0 or -errno. */
static int thread_park(struct systrap_platform *p, struct systrap_proc *proc,
		       struct systrap_thread *th)
{
	int err = thread_wait_up(p, proc, th);

	if (err)
		atomic_store(&proc->stub.dead, true); /* of no use */
	atomic_fetch_add(&p->stub.nr_threads, 1);
	mutex_lock_nested(&p->stub.lock);
	list_add(&th->stub.node, &proc->stub.parked);
	mutex_unlock(&p->stub.lock);
	return err;
}

int systrap_thread_new(struct stub_platform *base, struct stub_proc *sproc)
{
	struct systrap_platform *p = systrap_of(base);
	struct systrap_proc *proc = to_proc(sproc);
	struct systrap_thread *th;
	int err;

	mutex_lock_nested(&p->spawn_lock);
	th = thread_ask_locked(p, proc);
	err = PTR_ERR_OR_ZERO(th);
	if (!err) {
		shared_futex_wake(&proc->req->seq);
		err = thread_answer_locked(p, proc, th);
	}
	mutex_unlock(&p->spawn_lock);
	return err ? err : thread_park(p, proc, th);
}

static void proc_init(struct systrap_proc *proc)
{
	list_init(&proc->stub.node);
	list_init(&proc->stub.parked);
	list_init(&proc->attached);
	list_init(&proc->all);
	atomic_store(&proc->near, -1);
}

void systrap_master_prepare(struct systrap_platform *p)
{
	struct systrap_proc *m = &p->master;

	proc_init(m);
	m->stub.slot = MASTER_SLOT;
	m->req = (struct request *)(p->stub.ctl + MASTER_SLOT * PAGE_SIZE);
	request_init(m->req, MASTER_SLOT);
}

static void proc_unprepare_locked(struct systrap_platform *p, struct systrap_proc *proc)
{
	if (proc->coming) {
		stub_slot_free(p->area_slots, proc->coming->slot);
		kfree(proc->coming);
	}
	stub_slot_free(p->slots, proc->stub.slot);
	kfree(proc);
}

/*
 * A process without its process, whose leader will find in its request page that it is to make a
 * thread. @born: it may be looking there already. ERR_PTR. spawn_lock held.
 */
static struct systrap_proc *proc_prepare_locked(struct systrap_platform *p, bool born)
{
	struct systrap_proc *proc = hzalloc(sizeof(*proc));
	struct systrap_thread *th;
	int slot;

	if (!proc)
		return ERR_PTR(-ENOMEM);
	slot = stub_slot_alloc(p->slots, MAX_PROCS);
	if (slot < 0) {
		kfree(proc);
		return ERR_PTR(slot);
	}
	proc_init(proc);
	proc->stub.slot = (unsigned int)slot;
	proc->req = (struct request *)(p->stub.ctl + proc->stub.slot * PAGE_SIZE);
	if (!born)
		memset(proc->req, 0, PAGE_SIZE);
	request_init(proc->req, proc->stub.slot);
	proc->stub.request = proc->req->calls;
	th = thread_ask_locked(p, proc);
	if (IS_ERR(th)) {
		proc_unprepare_locked(p, proc);
		return ERR_PTR(PTR_ERR(th));
	}
	proc->coming = th;
	return proc;
}

/* The answer to the master's clone of @proc. 0, or -errno and @proc is no more. */
static int proc_wait_locked(struct systrap_platform *p, struct systrap_proc *proc)
{
	long ret = clone_wait_locked(p, &p->master);

	if (ret < 0) {
		proc_unprepare_locked(p, proc);
		return (int)ret;
	}
	proc->stub.pid = (pid_t)ret;
	list_add(&proc->all, &p->all);
	/* Born on the master's CPU. */
	atomic_store(&proc->near, atomic_load(&p->master.near));
	atomic_fetch_add(&p->stub.nr_procs, 1);
	return 0;
}

/*
 * The master takes the files that memory is made of. Not before it has answered the request that it
 * was born with. spawn_lock held. 0 or -errno.
 */
static int files_post_locked(struct systrap_platform *p)
{
	int ram = physmem_fd(), file = physmem_file_fd();
	int fds[] = {ram, file < 0 ? ram : file}, err;

	err = stub_fds_send(&p->stub, p->reaper->sock, fds, ARRAY_SIZE(fds));
	if (err)
		return err;
	p->master.req->calls[0] = stub_fd_recv_call();
	request_post(p, &p->master, 1, REQ_OP_NONE);
	p->files_due = false;
	return 0;
}

int systrap_first_post_locked(struct systrap_platform *p)
{
	struct request *born = p->master.req;
	struct systrap_proc *proc;
	int err;

	proc = proc_prepare_locked(p, true);
	err = PTR_ERR_OR_ZERO(proc);
	if (err)
		return err;
	shared_futex_wake(&proc->req->seq);
	p->first = proc;
	p->files_due = true;
	if (atomic_load(&born->done) == atomic_load(&born->seq) << 2)
		err = files_post_locked(p);
	if (err) {
		proc_unprepare_locked(p, proc);
		p->first = NULL;
	}
	return err;
}

/* The master is up and has made the first process, if it wasn't known yet. 0 or -errno. */
static int first_wait_locked(struct systrap_platform *p)
{
	const cpu_set_t *cpus = &p->reaper->cpus;
	int fds[2] = {-1, -1}, err = 0;

	if (!p->first || p->first->stub.pid)
		return 0;
	if (p->files_due) {
		err = request_wait(&p->master);
		if (!err)
			err = files_post_locked(p);
		if (err)
			proc_unprepare_locked(p, p->first);
	}
	if (!err)
		err = proc_wait_locked(p, p->first);
	if (!err)
		err = stub_fds_received(&p->stub, fds, ARRAY_SIZE(fds));
	if (err) {
		p->first = NULL;
		return err == -ESRCH && p->reaper->master_status ? -p->reaper->master_status : err;
	}
	stub_fds_are(&p->stub, fds[0], fds[1]);
	if (CPU_COUNT(cpus)) {
		sched_setaffinity(p->reaper->master, sizeof(*cpus), cpus);
		sched_setaffinity(p->first->stub.pid, sizeof(*cpus), cpus);
	}
	return 0;
}

int systrap_proc_new(struct stub_platform *base, struct stub_proc **out)
{
	struct systrap_platform *p = systrap_of(base);
	struct systrap_proc *proc;
	struct systrap_thread *th;
	int err;

	mutex_lock_nested(&p->spawn_lock);
	err = first_wait_locked(p);
	proc = p->first;
	p->first = NULL;
	if (!err && !proc) {
		proc = proc_prepare_locked(p, false);
		err = PTR_ERR_OR_ZERO(proc);
		if (!err) {
			clone_set_locked(p, &p->master, 0, PROC_FLAGS, 0,
					 proc->stub.slot * PAGE_SIZE);
			shared_futex_wake(&p->master.req->seq);
			err = proc_wait_locked(p, proc);
		}
	}
	if (err) {
		mutex_unlock(&p->spawn_lock);
		return err;
	}
	th = proc->coming;
	proc->coming = NULL;
	err = thread_answer_locked(p, proc, th);
	mutex_unlock(&p->spawn_lock);
	if (!err)
		err = thread_park(p, proc, th);
	if (err) {
		systrap_proc_end(base, &proc->stub);
		return err;
	}
	*out = &proc->stub;
	return 0;
}

int systrap_pass_fd(struct stub_platform *base, int fd)
{
	struct systrap_platform *p = systrap_of(base);
	int err, stub_fd;

	mutex_lock_nested(&p->spawn_lock);
	err = first_wait_locked(p);
	if (!err)
		err = stub_fds_send(base, p->reaper->sock, &fd, 1);
	if (!err) {
		p->master.req->calls[0] = stub_fd_recv_call();
		err = request_run(p, &p->master, 1, REQ_OP_NONE);
	}
	if (!err)
		err = stub_fds_received(base, &stub_fd, 1);
	mutex_unlock(&p->spawn_lock);
	return err ? err : stub_fd;
}

void systrap_proc_free(struct systrap_platform *p, struct systrap_proc *proc)
{
	struct stub_thread *th, *tmp;

	mutex_lock_nested(&p->spawn_lock);
	list_del(&proc->all);
	list_for_each_entry_safe (th, tmp, &proc->stub.parked, node) {
		stub_slot_free(p->area_slots, to_thread(th)->slot);
		if (to_thread(th)->listener >= 0) {
			close(to_thread(th)->listener);
			p->nr_listeners--;
		}
		kfree(to_thread(th));
	}
	stub_slot_free(p->slots, proc->stub.slot);
	mutex_unlock(&p->spawn_lock);
	region_map_fini(&proc->stub.present);
	kfree(proc);
}
