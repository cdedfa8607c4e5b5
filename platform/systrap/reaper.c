/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of stub processes.
 *
 * A process is *ended* when the platform lets go of it, and *reaped* when the reaper has collected
 * it; the second of the two frees it. One that was killed from outside is reaped first: everyone
 * who waits for it is woken and finds it dead. Its id is not given back to the host before nobody
 * can send it a signal any more.
 */
#include "platform/systrap/internal.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

#define HWCAP2_FSGSBASE (1 << 1)

void systrap_proc_kill(struct stub_platform *base, struct stub_proc *proc)
{
	mutex_lock_nested(&base->lock);
	if (!to_proc(proc)->reaped)
		kill(proc->pid, SIGKILL);
	mutex_unlock(&base->lock);
}

void systrap_proc_end(struct stub_platform *base, struct stub_proc *sproc)
{
	struct systrap_proc *proc = to_proc(sproc);
	bool reaped;

	mutex_lock_nested(&base->lock);
	reaped = proc->reaped;
	if (!reaped)
		kill(sproc->pid, SIGKILL);
	proc->ended = true;
	mutex_unlock(&base->lock);
	if (reaped)
		systrap_proc_free(systrap_of(base), proc);
}

/* Nobody may wait for what won't come. */
static void answer_for_dead(struct request *req)
{
	atomic_fetch_or(&req->done, ACK_DEAD);
	shared_futex_wake(&req->done);
}

static void collect_master(struct systrap_platform *p)
{
	int status = 0;

	waitpid(p->reaper->master, &status, __WALL);
	p->reaper->master_status = WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
	atomic_store(&p->master.stub.dead, true);
	answer_for_dead(p->master.req);
}

/*
 * Who has spawn_lock may wait for the master, which may be dead as well; who will wait for the
 * first process hasn't come yet.
 */
static void nap(struct systrap_platform *p)
{
	struct timespec moment = {.tv_nsec = 100000};
	siginfo_t info;

	info.si_pid = 0;
	if (!atomic_load(&p->master.stub.dead) &&
	    !waitid(P_PID, (id_t)p->reaper->master, &info, WEXITED | WNOWAIT | WNOHANG | __WALL) &&
	    info.si_pid)
		collect_master(p);
	nanosleep(&moment, NULL);
}

/* One that was just made is in the list as soon as its maker knows its id. */
static struct systrap_proc *proc_find(struct systrap_platform *p, pid_t pid)
{
	struct systrap_proc *proc, *found = NULL;
	bool unknown;

	do {
		while (!mutex_trylock(&p->spawn_lock))
			nap(p);
		list_for_each_entry (proc, &p->all, all) {
			if (proc->stub.pid == pid)
				found = proc;
		}
		unknown = !found && p->first && !p->first->stub.pid;
		mutex_unlock(&p->spawn_lock);
		if (unknown)
			nap(p);
	} while (unknown);
	return found;
}

static void wake_all(struct systrap_platform *p, struct systrap_proc *proc)
{
	struct stub_thread *th;

	answer_for_dead(proc->req);
	mutex_lock(&p->stub.lock);
	list_for_each_entry (th, &proc->attached, node) {
		struct control *ctl = to_thread(th)->ctl;

		atomic_store(&ctl->state, STATE_STOPPED);
		shared_futex_wake(&ctl->state);
	}
	mutex_unlock(&p->stub.lock);
}

/* No signal to it is under way: its runners have left, and with them the kickers' target. */
static void wait_quiet(struct systrap_platform *p, struct systrap_proc *proc)
{
	struct stub_thread *th;

	while (atomic_load(&proc->stub.nr_running))
		sched_yield();
	mutex_lock(&p->stub.lock);
	list_for_each_entry (th, &proc->attached, node) {
		while (th->ctx && atomic_load(&th->ctx->kickers))
			sched_yield();
	}
	mutex_unlock(&p->stub.lock);
}

static void collect(struct systrap_platform *p, pid_t pid)
{
	struct systrap_proc *proc = proc_find(p, pid);
	bool ended;

	if (!proc) {
		waitpid(pid, NULL, __WALL);
		return;
	}
	atomic_store(&proc->stub.dead, true);
	wake_all(p, proc);
	wait_quiet(p, proc);
	mutex_lock(&p->stub.lock);
	waitpid(pid, NULL, __WALL);
	proc->reaped = true;
	ended = proc->ended;
	mutex_unlock(&p->stub.lock);
	if (ended)
		systrap_proc_free(p, proc);
}

/* The platform that this is for, or NULL: there will be none. */
static struct systrap_platform *wait_adopted(struct reaper *r)
{
	struct systrap_platform *p;

	pthread_mutex_lock(&r->lock);
	while (!r->p && !r->quit)
		pthread_cond_wait(&r->wake, &r->lock);
	p = r->p;
	pthread_mutex_unlock(&r->lock);
	return p;
}

static void reap(struct reaper *r)
{
	struct systrap_platform *p;
	siginfo_t info;

	for (;;) {
		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT | __WALL | __WNOTHREAD)) {
			if (errno == EINTR)
				continue;
			break;
		}
		/* Asked for only now: it need not be woken when there is a platform. */
		p = wait_adopted(r);
		if (!p)
			break;
		if (info.si_pid == r->master)
			collect_master(p);
		else
			collect(p, info.si_pid);
	}
}

static void *reaper_main(void *arg)
{
	struct systrap_platform *p;
	struct reaper *r = arg;
	int err;

	prctl(PR_SET_NAME, "systrap-reaper", 0, 0, 0);
	err = systrap_master_start(r);
	close(r->master_sock);
	pthread_mutex_lock(&r->lock);
	if (err)
		r->master_status = -err;
	r->started = true;
	pthread_cond_broadcast(&r->wake);
	pthread_mutex_unlock(&r->lock);
	p = err ? wait_adopted(r) : NULL;
	if (p) {
		atomic_store(&p->master.stub.dead, true);
		answer_for_dead(p->master.req);
	} else if (!err) {
		reap(r);
	}
	/* If all were killed from outside: stubs are bound to the life of this thread. */
	pthread_mutex_lock(&r->lock);
	while (!r->quit)
		pthread_cond_wait(&r->wake, &r->lock);
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

struct reaper *reaper_start(void)
{
	struct reaper *r = calloc(1, sizeof(*r));
	sigset_t old;
	int sock[2], err;

	if (!r)
		return ERR_PTR(-ENOMEM);
	r->fsgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock)) {
		err = -errno;
		goto out_free;
	}
	r->sock = sock[0];
	r->master_sock = sock[1];
	r->ctl_fd = stub_control_file(CONTROL_SIZE);
	if (r->ctl_fd < 0) {
		err = r->ctl_fd;
		goto out_sock;
	}
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->wake, NULL);
	stub_block_signals(&old);
	err = -pthread_create(&r->thread, NULL, reaper_main, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err)
		return r;
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	close(r->ctl_fd);
out_sock:
	close(sock[0]);
	close(sock[1]);
out_free:
	free(r);
	return ERR_PTR(err);
}

void reaper_adopt(struct reaper *r, struct systrap_platform *p)
{
	pthread_mutex_lock(&r->lock);
	p->reaper = r;
	p->fsgsbase = r->fsgsbase;
	r->p = p;
	pthread_cond_broadcast(&r->wake);
	pthread_mutex_unlock(&r->lock);
}

static void wait_started(struct reaper *r)
{
	pthread_mutex_lock(&r->lock);
	while (!r->started)
		pthread_cond_wait(&r->wake, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

void reaper_stop(struct reaper *r)
{
	wait_started(r);
	pthread_mutex_lock(&r->lock);
	r->quit = true;
	pthread_cond_broadcast(&r->wake);
	pthread_mutex_unlock(&r->lock);
	if (r->master && !(r->p && atomic_load(&r->p->master.stub.dead)))
		kill(r->master, SIGKILL);
	pthread_join(r->thread, NULL);
	close(r->sock);
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
