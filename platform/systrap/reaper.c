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

#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

#define HWCAP2_FSGSBASE (1 << 1)
/* glibc before 2.37 hasn't got its name. */
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

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
	if (!p->reaper->master_status)
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

/* ---- ticks ---- */

/*
 * While user code runs a timer interrupts the reaper now and then. It compares the processors, and
 * ends who doesn't heed kicks, which is possible only on purpose.
 */
#define TICK_MS	     10	  /* with several contexts */
#define LONG_TICK_MS 1000 /* with one */

/* In the reaper. */
static int tick_create(struct reaper *r)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = PLATFORM_KICK_SIGNAL};
	sigset_t set;

	ev.sigev_notify_thread_id = gettid();
	if (timer_create(CLOCK_MONOTONIC, &ev, &r->timer))
		return -errno;
	atomic_store(&r->has_timer, true);
	sigemptyset(&set);
	sigaddset(&set, PLATFORM_KICK_SIGNAL);
	return -pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void tick_set(struct systrap_platform *p, unsigned int ms)
{
	struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000};
	struct itimerspec it = {.it_interval = ts, .it_value = ts};

	atomic_store(&p->tick_ms, ms);
	/* Or else reaper_main sees what is to be. */
	if (atomic_load(&p->reaper->has_timer))
		timer_settime(p->reaper->timer, 0, &it, NULL);
}

void systrap_tick_start(struct systrap_platform *p)
{
	unsigned int n = atomic_load_explicit(&p->stub.nr_attached, memory_order_relaxed);

	tick_set(p, n > 1 ? TICK_MS : LONG_TICK_MS);
}

void systrap_crowd(struct stub_platform *base)
{
	struct systrap_platform *p = systrap_of(base);

	if (atomic_load(&p->tick_ms) == LONG_TICK_MS)
		tick_set(p, TICK_MS);
}

/* Looks at all contexts: does one run? p->lock held. */
static bool tick_look_locked(struct systrap_platform *p, unsigned int ms)
{
	struct stub_context *ctx;
	bool runs = false;

	list_for_each_entry (ctx, &p->stub.contexts, node) {
		struct systrap_context *sctx = container_of(ctx, struct systrap_context, stub);
		bool due;

		if (!atomic_load(&ctx->target))
			continue;
		runs = true;
		due = atomic_load(&ctx->kick) || atomic_load(&ctx->nudged);
		sctx->stuck_ms = due ? sctx->stuck_ms + ms : 0;
		if (sctx->stuck_ms < KICK_PATIENCE * 1000 || !ctx->thread)
			continue;
		log_debug("systrap: a thread blocks kicks");
		sctx->stuck_ms = 0;
		if (!to_proc(ctx->thread->proc)->reaped)
			kill(ctx->thread->proc->pid, SIGKILL);
	}
	return runs;
}

static void tick(struct systrap_platform *p)
{
	unsigned int ms = atomic_load(&p->tick_ms);
	bool crowd = atomic_load(&p->stub.nr_attached) > 1, runs;

	if (!ms)
		return;
	mutex_lock(&p->stub.lock);
	runs = tick_look_locked(p, ms);
	mutex_unlock(&p->stub.lock);
	if (!runs) {
		/* Who runs next starts them again, unless it has looked before this. */
		tick_set(p, 0);
		mutex_lock(&p->stub.lock);
		runs = tick_look_locked(p, 0);
		mutex_unlock(&p->stub.lock);
		if (runs)
			systrap_tick_start(p);
		return;
	}
	if (crowd != (ms == TICK_MS))
		systrap_tick_start(p);
	if (crowd && p->stub.place.pin)
		place_balance(&p->stub);
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
		if (waitid(P_PGID, (id_t)r->master, &info, WEXITED | WNOWAIT | __WALL)) {
			if (errno != EINTR)
				break;
			pthread_mutex_lock(&r->lock);
			p = r->p;
			pthread_mutex_unlock(&r->lock);
			if (p)
				tick(p);
			continue;
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
	err = tick_create(r);
	pthread_mutex_lock(&r->lock);
	p = r->p;
	if (err) {
		r->master_status = -err;
		kill(r->master, SIGKILL);
	}
	r->started = true;
	pthread_cond_broadcast(&r->wake);
	pthread_mutex_unlock(&r->lock);
	if (!err && p && atomic_load(&p->tick_ms))
		tick_set(p, atomic_load(&p->tick_ms));
	reap(r);
	return NULL;
}

/*
 * Linux 6.11 ends the wait for a notification when there is nobody left to send one; and a
 * container's profile may forbid to fetch listeners. KVMSBOX_STUB_NOTIFY=0 in the environment turns
 * it off, for measurements and tests.
 */
bool systrap_can_listen(void)
{
	const char *env = getenv("KVMSBOX_STUB_NOTIFY");
	uint32_t action = SECCOMP_RET_USER_NOTIF;
	unsigned int major, minor;
	struct utsname uts;

	if (env && !strcmp(env, "0"))
		return false;
	if (uname(&uts) || sscanf(uts.release, "%u.%u", &major, &minor) != 2 || major < 6 ||
	    (major == 6 && minor < 11))
		return false;
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action))
		return false;
	return syscall(SYS_pidfd_getfd, -1, 0, 0) < 0 && errno == EBADF;
}

struct reaper *reaper_start(void)
{
	struct reaper *r = calloc(1, sizeof(*r));
	sigset_t old;
	int sock[2], err;

	if (!r)
		return ERR_PTR(-ENOMEM);
	r->fsgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	r->listens = systrap_can_listen();
	CPU_ZERO(&r->cpus);
	err = platform_kick_handler();
	if (err)
		goto out_free;
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
	/*
	 * By this thread, though stubs die with it: there is little of us to be copied yet, and a
	 * thread for it would have to be waited for.
	 */
	err = systrap_master_start(r);
	if (!err) {
		err = -pthread_create(&r->thread, NULL, reaper_main, r);
		if (err) {
			kill(-r->master, SIGKILL);
			while (waitpid(-r->master, NULL, __WALL) > 0)
				;
			close(r->pidfd);
		}
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err) {
		close(r->master_sock);
		return r;
	}
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

void reaper_wait(struct reaper *r)
{
	pthread_mutex_lock(&r->lock);
	while (!r->started)
		pthread_cond_wait(&r->wake, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

void reaper_stop(struct reaper *r)
{
	pthread_mutex_lock(&r->lock);
	r->quit = true;
	pthread_cond_broadcast(&r->wake);
	pthread_mutex_unlock(&r->lock);
	/* With the process that it was born to make, if that was never asked for. */
	if (!(r->p && atomic_load(&r->p->master.stub.dead)))
		kill(-r->master, SIGKILL);
	pthread_join(r->thread, NULL);
	close(r->sock);
	close(r->pidfd);
	if (r->has_timer)
		timer_delete(r->timer);
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
