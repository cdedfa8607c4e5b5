/* SPDX-License-Identifier: Apache-2.0 */
/* The one kernel of a sandbox: made, waited for, torn down. */
#include "sentry/kernel.h"

#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sentry/futex.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfutex.h"
#include "sentry/objects.h"

struct kernel *the_kernel;

#define INFINITE                                                                                   \
	{                                                                                          \
		RLIM_INFINITY, RLIM_INFINITY                                                       \
	}
const struct rlimit kernel_default_limits[RLIM_NLIMITS] = {
	[RLIMIT_CPU] = INFINITE,
	[RLIMIT_FSIZE] = INFINITE,
	[RLIMIT_DATA] = INFINITE,
	[RLIMIT_STACK] = {8UL << 20, RLIM_INFINITY},
	[RLIMIT_CORE] = {0, RLIM_INFINITY},
	[RLIMIT_RSS] = INFINITE,
	[RLIMIT_NPROC] = {32768, 32768},
	[RLIMIT_NOFILE] = {1024, 1048576},
	[RLIMIT_MEMLOCK] = {8UL << 20, 8UL << 20},
	[RLIMIT_AS] = INFINITE,
	[RLIMIT_LOCKS] = INFINITE,
	[RLIMIT_SIGPENDING] = {32768, 32768},
	[RLIMIT_MSGQUEUE] = {819200, 819200},
	[RLIMIT_NICE] = {0, 0},
	[RLIMIT_RTPRIO] = {0, 0},
	[RLIMIT_RTTIME] = INFINITE,
};

int kernel_init(struct platform *platform, struct kernel **out)
{
	struct kernel *k = kzalloc(sizeof(*k));
	struct timespec now;
	long err;

	if (!k)
		return -ENOMEM;
	mutex_init(&k->tasklist, LOCK_TASKLIST);
	mutex_init(&k->users_lock, LOCK_OBJECT);
	list_init(&k->users);
	waitq_init(&k->exit_wait);
	k->platform = platform;
	CPU_ZERO(&k->cpus);
	k->ncpus = (unsigned int)sysconf(_SC_NPROCESSORS_ONLN);
	for (unsigned int i = 0; i < k->ncpus; i++)
		CPU_SET(i, &k->cpus);
	/* CLOCK_BOOTTIME is the host's, so uptime and btime must be, too. */
	clock_gettime(CLOCK_REALTIME, &k->boot_time);
	clock_gettime(CLOCK_BOOTTIME, &now);
	k->boot_time.tv_sec -= now.tv_sec;

	k->root_pid_ns = pid_ns_alloc(k, NULL);
	err = PTR_ERR_OR_ZERO(k->root_pid_ns);
	if (err)
		goto out_kernel;
	k->root_uts = uts_ns_alloc("kvmsbox", "(none)");
	err = PTR_ERR_OR_ZERO(k->root_uts);
	if (err)
		goto out_pid_ns;
	k->root_ipc = ipc_ns_alloc();
	err = PTR_ERR_OR_ZERO(k->root_ipc);
	if (err)
		goto out_uts;
	k->root_net = net_ns_alloc(true);
	err = PTR_ERR_OR_ZERO(k->root_net);
	if (err)
		goto out_ipc;
	futex_init();
	the_kernel = k;
	*out = k;
	return 0;

out_ipc:
	ipc_ns_put(k->root_ipc);
out_uts:
	uts_ns_put(k->root_uts);
out_pid_ns:
	pid_ns_put(k->root_pid_ns);
out_kernel:
	kfree(k);
	return (int)err;
}

void kernel_destroy(struct kernel *k)
{
	BUG_ON(k->nr_tasks || atomic_load(&k->nr_threads_running));
	the_kernel = NULL;
	mnt_ns_put(k->init_mnt_ns);
	thread_group_put(k->init);
	net_ns_put(k->root_net);
	ipc_ns_put(k->root_ipc);
	uts_ns_put(k->root_uts);
	pid_ns_put(k->root_pid_ns);
	BUG_ON(!list_empty(&k->users));
	waitq_fini(&k->exit_wait);
	mutex_fini(&k->users_lock);
	mutex_fini(&k->tasklist);
	kfree(k);
}

void (*kernel_all_ended)(struct kernel *k);

void kernel_thread_ended(struct kernel *k)
{
	pid_t watcher = k->watcher;

	if (atomic_fetch_sub(&k->nr_threads_running, 1) != 1)
		return;
	if (kernel_all_ended) {
		kernel_all_ended(k);
		return;
	}
	/* The kernel may be gone by now; the word's memory isn't. */
	host_futex_wake(&k->nr_threads_running, HOST_FUTEX_ALL);
	if (watcher)
		syscall(SYS_tgkill, getpid(), watcher, SIGCHLD);
}

void kernel_kill_all(struct kernel *k, int signo)
{
	siginfo_t info;
	struct pid *pid;

	memset(&info, 0, sizeof(info));
	info.si_signo = signo;
	info.si_code = SI_KERNEL;
	mutex_lock(&k->tasklist);
	for (uint64_t nr = 1; (pid = pid_next_locked(k->root_pid_ns, &nr)); nr++) {
		if (pid->tg && !pid->tg->is_zombie)
			(void)!signal_send_group_tasklist(pid->tg, &info);
	}
	mutex_unlock(&k->tasklist);
}

/* The end of init kills everybody (exit.c); the last host thread ends the wait. */
int kernel_wait(struct kernel *k)
{
	for (;;) {
		uint32_t running = atomic_load(&k->nr_threads_running);

		if (!running)
			return k->exit_status;
		host_futex_wait(&k->nr_threads_running, running, NULL);
	}
}
