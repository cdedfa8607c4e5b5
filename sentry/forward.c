/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/forward.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sentry/console.h"
#include "sentry/freezer.h"
#include "sentry/kernel.h"
#include "sentry/lib/physmem.h"
#include "sentry/lib/world.h"

/* How often the memory limit is looked at while one is set. */
#define MEMORY_CHECK_MS 50
/* How often at freed memory while there is much. */
#define SETTLE_MS 1000

static struct forward_args fw;
static _Atomic bool timed_out;

void forward_signals(sigset_t *set)
{
	sigfillset(set);
	sigdelset(set, SIGKILL);
	sigdelset(set, SIGSTOP);
	sigdelset(set, SIGSEGV);
	sigdelset(set, SIGBUS);
	sigdelset(set, SIGILL);
	sigdelset(set, SIGFPE);
	sigdelset(set, SIGTRAP);
	sigdelset(set, SIGABRT);
	sigdelset(set, SIGSYS);
	sigdelset(set, SIGCHLD);
	sigdelset(set, SIGPROF);
	sigdelset(set, PLATFORM_KICK_SIGNAL);
}

void forward_block_signals(void)
{
	sigset_t set;

	forward_signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void forward(const siginfo_t *host)
{
	int signo = host->si_signo;
	bool from_terminal = host->si_code == SI_KERNEL;
	siginfo_t info;

	if (signo == SIGPIPE || signo == SIGTTOU || signo == SIGTTIN)
		return;
	if (signo == SIGWINCH && fw.console) {
		console_resize(fw.console);
		return;
	}
	memset(&info, 0, sizeof(info));
	info.si_signo = signo;
	info.si_code = from_terminal ? SI_KERNEL : SI_USER;
	if (from_terminal && (signo == SIGINT || signo == SIGQUIT || signo == SIGTSTP)) {
		mutex_lock(&fw.kernel->tasklist);
		signal_send_pgrp_locked(fw.init->pgrp, &info);
		mutex_unlock(&fw.kernel->tasklist);
	} else {
		(void)!signal_send_group(fw.init, &info);
	}
}

/* Over the limit: the process with the most memory goes, with a message. */
static void shed_memory(struct kernel *k)
{
	struct thread_group *worst = NULL;
	struct pid *pid;
	uint64_t most = 0;

	mutex_lock(&k->tasklist);
	for (uint64_t nr = 1; (pid = pid_next_locked(k->root_pid_ns, &nr)); nr++) {
		struct mm *mm;
		uint64_t pages;

		if (!pid->tg || pid->tg->is_zombie || pid->tg->group_exit || !pid->tg->leader)
			continue;
		mm = task_get_mm(pid->tg->leader);
		if (!mm)
			continue;
		pages = mm_rss(mm);
		mm_put(mm);
		if (pages >= most) {
			most = pages;
			worst = pid->tg;
		}
	}
	if (worst) {
		siginfo_t info = {.si_signo = SIGKILL, .si_code = SI_KERNEL};

		log_warn("memory limit reached: killed process %d (%s)",
			 pid_nr(worst->pid, k->root_pid_ns), worst->leader->comm);
		(void)!signal_send_group_tasklist(worst, &info);
	}
	mutex_unlock(&k->tasklist);
}

bool forward_watch_memory(struct kernel *k)
{
	struct physmem_stats pm;

	physmem_limits(&pm);
	if (!pm.limit || !physmem_over_limit())
		return false;
	atomic_store(&task_out_of_memory, true);
	shed_memory(k);
	return true;
}

/* Called where memory is freed. */
static void wake_watcher(void)
{
	syscall(SYS_tgkill, getpid(), fw.kernel->watcher, SIGCHLD);
}

void forward_prepare(const struct forward_args *args)
{
	sigset_t set;

	fw = *args;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fw.kernel->watcher = gettid();
	physmem_on_hoard(wake_watcher);
}

static uint64_t ms_since(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)((now.tv_sec - start->tv_sec) * 1000 +
			  (now.tv_nsec - start->tv_nsec) / 1000000);
}

/*
 * Looks at the clock, at freed memory and the memory limit. Returns the milliseconds until it
 * should again.
 */
static uint64_t watch_limits(const struct timespec *start)
{
	uint64_t left = 3600 * 1000, elapsed = fw.timeout_ms ? ms_since(start) : 0;
	struct physmem_stats pm;

	if (fw.timeout_ms && !atomic_load(&timed_out)) {
		if (elapsed >= fw.timeout_ms) {
			atomic_store(&timed_out, true);
			kernel_kill_all(fw.kernel, SIGKILL);
			/* Whoever waits for the end of a snapshot has waited long enough. */
			freezer_thaw();
		} else {
			left = fw.timeout_ms - elapsed;
		}
	}
	if (physmem_settle())
		left = MIN(left, (uint64_t)SETTLE_MS);
	physmem_limits(&pm);
	if (pm.limit) {
		left = MIN(left, (uint64_t)MEMORY_CHECK_MS);
		(void)!forward_watch_memory(fw.kernel);
	}
	return left;
}

int forward_until_end(void)
{
	struct timespec start, wait;
	siginfo_t info;
	sigset_t set;

	forward_signals(&set);
	sigaddset(&set, SIGCHLD);
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (atomic_load(&fw.kernel->nr_threads_running)) {
		uint64_t left;

		world_enter();
		left = watch_limits(&start);
		world_leave();
		wait.tv_sec = (time_t)(left / 1000);
		wait.tv_nsec = (long)(left % 1000) * 1000000;
		if (sigtimedwait(&set, &info, &wait) <= 0 || info.si_signo == SIGCHLD)
			continue;
		world_enter();
		forward(&info);
		world_leave();
		/* The job stops as a whole, this process with it. */
		if (info.si_signo == SIGTSTP)
			kill(getpid(), SIGSTOP);
	}
	physmem_on_hoard(NULL);
	return kernel_wait(fw.kernel);
}

bool forward_timed_out(void)
{
	return atomic_load(&timed_out);
}
