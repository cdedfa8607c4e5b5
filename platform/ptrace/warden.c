/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The warden: the one host thread that traces the master and all leaders, and so is the one that
 * makes and ends stub processes, adds threads to them and makes host calls in those where the
 * asking thread traces nothing. Others hand it requests and wait; they may hold an as->lock but not
 * p->stub.lock. Nothing that it does waits for application code.
 *
 * It also evens out the load of the CPUs now and then (place.c).
 *
 * A process that it ended is a zombie until every host thread that traces one of its threads has
 * noticed, so ended ones are collected without waiting, at every request.
 */
#include "platform/ptrace/internal.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

#define TICK_NS	     10000000L
#define THREAD_FLAGS 0x00050f00UL	      /* CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM */
#define PROC_FLAGS   (0x00002600UL | SIGCHLD) /* CLONE_FS|FILES|PTRACE */

/* The clone routine in stopped @pid. Returns the child's id or -errno. */
static long spawn(pid_t pid, uint64_t flags)
{
	struct arch_regs regs;
	long ret;
	int err;

	do {
		stub_regs_spawn(&regs, flags);
		err = stub_run(pid, &regs);
		if (err)
			return err;
		ret = stub_regs_result(&regs);
	} while (ret == -ERESTARTNOINTR || ret == -EINTR);
	return ret;
}

/* A new parked thread in @proc. Returns 0 or -errno. */
static int add_thread(struct ptrace_platform *p, struct stub_proc *proc)
{
	struct stub_thread *th = hzalloc(sizeof(*th));
	long tid;

	if (!th)
		return -ENOMEM;
	tid = spawn(proc->pid, THREAD_FLAGS);
	if (tid < 0) {
		kfree(th);
		return (int)tid;
	}
	th->p = &p->stub;
	th->proc = proc;
	th->tid = (pid_t)tid;
	atomic_fetch_add(&p->stub.nr_threads, 1);
	mutex_lock(&p->stub.lock);
	list_add(&th->node, &proc->parked);
	mutex_unlock(&p->stub.lock);
	return 0;
}

/* Collects ended leaders. */
static void reap(struct ptrace_platform *p)
{
	struct warden *w = &p->warden;
	struct stub_proc *proc, *tmp;

	list_for_each_entry_safe (proc, tmp, &w->dying, node) {
		pid_t got = waitpid(proc->pid, NULL, __WALL | WNOHANG);

		if (!got || (got < 0 && errno == EINTR))
			continue;
		list_del(&proc->node);
		stub_slot_free(w->slots, proc->slot);
		kfree(proc);
	}
}

/* Ends @proc, whose threads nobody traces any more (or who notice by themselves). */
static void end_proc(struct ptrace_platform *p, struct stub_proc *proc)
{
	struct stub_thread *th, *tmp;

	kill(proc->pid, SIGKILL);
	list_for_each_entry_safe (th, tmp, &proc->parked, node) {
		list_del(&th->node);
		kfree(th);
	}
	region_map_fini(&proc->present);
	list_add_tail(&proc->node, &p->warden.dying);
	reap(p);
}

static int first_stop(pid_t pid)
{
	int status = stub_wait(pid);

	if (status < 0)
		return status;
	return status >> 16 == PTRACE_EVENT_STOP ? 0 : -EIO;
}

static int new_proc(struct ptrace_platform *p, struct stub_proc **out)
{
	struct warden *w = &p->warden;
	struct stub_proc *proc = hzalloc(sizeof(*proc));
	cpu_set_t here;
	int slot, err;
	long ret;

	if (!proc)
		return -ENOMEM;
	list_init(&proc->node);
	list_init(&proc->parked);
	slot = stub_slot_alloc(w->slots, MAX_PROCS);
	if (slot < 0) {
		kfree(proc);
		return slot;
	}
	proc->slot = (unsigned int)slot;
	proc->request = (struct stub_call *)(p->stub.ctl + proc->slot * PAGE_SIZE);

	/* The warden was moved to the asker's CPU: the master comes too, and the child inherits it.
	 */
	if (p->stub.place.pin && !sched_getaffinity(0, sizeof(here), &here))
		sched_setaffinity(w->master, sizeof(here), &here);
	ret = spawn(w->master, PROC_FLAGS);
	err = ret < 0 ? (int)ret : 0;
	if (err) {
		stub_slot_free(w->slots, proc->slot);
		kfree(proc);
		return err;
	}
	proc->pid = (pid_t)ret;
	err = first_stop(proc->pid);
	if (!err) {
		ret = stub_call(proc->pid, SYS_mmap, STUB_REQUEST, PAGE_SIZE, PROT_READ,
				MAP_SHARED | MAP_FIXED, STUB_FD_CTL, proc->slot * PAGE_SIZE);
		err = ret < 0 ? (int)ret : add_thread(p, proc);
	}
	if (err) {
		end_proc(p, proc);
		return err;
	}
	atomic_fetch_add(&p->stub.nr_procs, 1);
	*out = proc;
	return 0;
}

static long run_batch(struct stub_proc *proc, struct warden_request *req)
{
	size_t done;
	int err = stub_batch(proc->pid, req->n, &done);

	req->n = done;
	return err;
}

static long fpu_size(pid_t master)
{
	size_t size = 16 * PAGE_SIZE;
	void *image = hmalloc(size);
	int err = image ? stub_get_fpu(master, image, &size) : -ENOMEM;

	kfree(image);
	return err ? err : (long)size;
}

static void serve(struct ptrace_platform *p, struct warden_request *req)
{
	switch (req->op) {
	case WARDEN_NEW_PROC:
		req->value = new_proc(p, &req->proc);
		break;
	case WARDEN_SPAWN:
		place_near(&p->stub.place, req->proc->pid);
		stub_wait_bounded(true);
		req->value = add_thread(p, req->proc);
		stub_wait_bounded(false);
		break;
	case WARDEN_BATCH:
		place_near(&p->stub.place, req->proc->pid);
		stub_wait_bounded(true);
		req->value = run_batch(req->proc, req);
		stub_wait_bounded(false);
		break;
	case WARDEN_KILL:
		end_proc(p, req->proc);
		req->value = 0;
		break;
	case WARDEN_PASS_FD:
		req->value = master_pass_fd(p, req->fd);
		break;
	case WARDEN_FPU_SIZE:
		req->value = fpu_size(p->warden.master);
		break;
	case WARDEN_QUIT:
		req->value = 0;
		break;
	}
	if (!list_empty(&p->warden.dying))
		reap(p);
}

/* The next request, or NULL when it is time for the balancer. */
static struct warden_request *next_request(struct ptrace_platform *p)
{
	struct warden *w = &p->warden;
	struct warden_request *req;
	struct timespec until;
	int err = 0;

	pthread_mutex_lock(&w->lock);
	while (!w->head && !err) {
		if (!p->stub.place.pin ||
		    atomic_load_explicit(&p->stub.nr_attached, memory_order_relaxed) < 2) {
			pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += TICK_NS;
		if (until.tv_nsec >= 1000000000L) {
			until.tv_nsec -= 1000000000L;
			until.tv_sec++;
		}
		err = pthread_cond_timedwait(&w->wake, &w->lock, &until);
	}
	req = w->head;
	if (req) {
		w->head = req->next;
		if (!w->head)
			w->tail = &w->head;
	}
	pthread_mutex_unlock(&w->lock);
	return req;
}

static void warden_loop(struct ptrace_platform *p)
{
	struct warden *w = &p->warden;

	for (;;) {
		struct warden_request *req = next_request(p);
		enum warden_op op;

		if (!req) {
			place_balance(&p->stub);
			continue;
		}
		op = req->op;
		serve(p, req);
		pthread_mutex_lock(&w->lock);
		req->done = true;
		pthread_cond_broadcast(&w->done);
		pthread_mutex_unlock(&w->lock);
		if (op == WARDEN_QUIT)
			return;
	}
}

/* Nothing is bound any more: ends the pool's processes (moved to dying by their users) and all. */
static void warden_end(struct ptrace_platform *p)
{
	struct warden *w = &p->warden;
	struct timespec nap = {.tv_nsec = 1000000};
	int tries;

	kill(w->master, SIGKILL);
	while (waitpid(w->master, NULL, __WALL) < 0 && errno == EINTR)
		;
	for (tries = 0; tries < 1000 && !list_empty(&w->dying); tries++) {
		reap(p);
		if (!list_empty(&w->dying))
			nanosleep(&nap, NULL);
	}
	if (!list_empty(&w->dying))
		log_warn("ptrace: stub processes did not end");
	close(w->sock);
}

/* The first process will be wanted soon: makes it while the sentry is still setting up. */
static void prefork(struct ptrace_platform *p)
{
	struct stub_proc *proc;

	if (new_proc(p, &proc))
		return; /* whoever needs one tries again, and tells */
	mutex_lock(&p->stub.lock);
	list_add(&proc->node, &p->stub.pool);
	p->stub.nr_pool++;
	mutex_unlock(&p->stub.lock);
}

static void *warden_main(void *arg)
{
	struct ptrace_platform *p = arg;
	struct warden *w = &p->warden;
	int err;

	stub_block_signals(NULL);
	prctl(PR_SET_NAME, "ptrace-warden", 0, 0, 0);
	w->tid = gettid();
	err = master_start(p);
	pthread_mutex_lock(&w->lock);
	w->start_error = err;
	w->started = true;
	pthread_cond_broadcast(&w->done);
	pthread_mutex_unlock(&w->lock);
	if (err)
		return NULL;
	prefork(p);
	warden_loop(p);
	warden_end(p);
	return NULL;
}

int warden_start(struct ptrace_platform *p)
{
	struct warden *w = &p->warden;
	pthread_condattr_t attr;
	int err;

	w->slots = hcalloc(MAX_PROCS / 64, sizeof(*w->slots));
	if (!w->slots)
		return -ENOMEM;
	w->slots[0] = 1;
	w->tail = &w->head;
	list_init(&w->dying);
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->wake, &attr);
	pthread_cond_init(&w->done, &attr);
	pthread_condattr_destroy(&attr);
	err = -pthread_create(&w->thread, NULL, warden_main, p);
	if (err)
		goto out_free;
	pthread_mutex_lock(&w->lock);
	while (!w->started)
		pthread_cond_wait(&w->done, &w->lock);
	err = w->start_error;
	pthread_mutex_unlock(&w->lock);
	if (!err)
		return 0;
	pthread_join(w->thread, NULL);
out_free:
	kfree(w->slots);
	return err;
}

void warden_stop(struct ptrace_platform *p)
{
	struct warden_request quit = {.op = WARDEN_QUIT};

	warden_call(p, &quit);
	pthread_join(p->warden.thread, NULL);
	pthread_cond_destroy(&p->warden.wake);
	pthread_cond_destroy(&p->warden.done);
	pthread_mutex_destroy(&p->warden.lock);
	kfree(p->warden.slots);
}

void warden_wake(struct stub_platform *base)
{
	struct ptrace_platform *p = ptrace_of(base);

	pthread_mutex_lock(&p->warden.lock);
	pthread_cond_signal(&p->warden.wake);
	pthread_mutex_unlock(&p->warden.lock);
}

long warden_call(struct ptrace_platform *p, struct warden_request *req)
{
	struct warden *w = &p->warden;

	place_near(&p->stub.place, w->tid);
	req->next = NULL;
	req->done = false;
	atomic_fetch_add_explicit(&p->stub.nr_requests, 1, memory_order_relaxed);
	pthread_mutex_lock(&w->lock);
	*w->tail = req;
	w->tail = &req->next;
	pthread_cond_signal(&w->wake);
	while (!req->done)
		pthread_cond_wait(&w->done, &w->lock);
	pthread_mutex_unlock(&w->lock);
	return req->value;
}
