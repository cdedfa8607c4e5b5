/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel: one per sandbox, everything else hangs off it. Made by kernel_init from the device
 * tree (sentry/boot.c), ends when init ends.
 */
#ifndef SENTRY_KERNEL_H
#define SENTRY_KERNEL_H

#include "sentry/pid.h"
#include "sentry/task.h"

/* What uname(2) says: the Linux whose interface this is. */
#define KERNEL_RELEASE "6.1.0-kvmsbox"
#define KERNEL_VERSION "#1 SMP kvmsbox"

struct user_counts {
	struct list_head node;
	uid_t uid;
	_Atomic long tasks; /* threads alive or zombie, for RLIMIT_NPROC */
	_Atomic long sigpending;
	struct refcount refs;
};

struct kernel {
	struct mutex tasklist; /* LOCK_TASKLIST: the process tree, see task.h */
	struct platform *platform;
	uint32_t life;		    /* how often it was restored in another process */
	struct pid_ns *root_pid_ns; /* reference */
	struct uts_ns *root_uts;
	struct ipc_ns *root_ipc;
	struct net_ns *root_net;
	struct mnt_ns *init_mnt_ns;	     /* init's; reference once it exists */
	struct thread_group *init;	     /* reference; first created process; under tasklist */
	bool started, exited;		     /* under tasklist */
	struct list_head groups;	     /* not kept: see radix of root_pid_ns */
	int nr_tasks;			     /* under tasklist: every thread alive or zombie */
	int max_tasks;			     /* --pids-limit */
	_Atomic uint32_t nr_threads_running; /* host threads of tasks; a futex */
	pid_t watcher;		 /* thread whom SIGCHLD tells of the last one's end, or 0 */
	struct waitq exit_wait;	 /* woken when init has ended */
	int exit_status;	 /* wait status of init */
	struct mutex users_lock; /* LOCK_OBJECT */
	struct list_head users;	 /* struct user_counts */
	cpu_set_t cpus;
	unsigned int ncpus;
	struct timespec boot_time; /* CLOCK_REALTIME when CLOCK_BOOTTIME was 0 */
	struct {
		bool enabled;
		int fd;
	} strace;
	/*
	 * Init's standard descriptors that are the host's: hostfd (0: none) and what stands on it.
	 */
	struct {
		int index;
		struct hostfile *file;
	} stdio[3];
	void *config; /* what init was made from, if it may be wanted again (config.h) */
	size_t config_size;
	bool stats;
	/*
	 * kernel_all_ended ends this host process, and with it what the last task has mapped; no
	 * file of the host's is among that.
	 */
	bool ends_process;
	uint64_t forks;	     /* processes made, for /proc/stat */
	struct tty *console; /* sandbox terminal (-t), or NULL */
};

extern struct kernel *the_kernel; /* for signal handlers and timers of the sentry only */

int kernel_init(struct platform *platform, struct kernel **out) __must_check;
/*
 * Every task has ended (kernel_wait), every created process was started or aborted: gives back what
 * kernel_init made. The platform stays the caller's.
 */
void kernel_destroy(struct kernel *k);

/*
 * Process creation (docs/create-process.md). Paths are in the new process's own root.
 */
struct create_process_args {
	const char *filename; /* NULL: @file, else argv[0] */
	struct file *file;    /* borrowed, or NULL */
	char *const *argv;    /* NULL-terminated */
	char *const *envp;
	const char *cwd; /* NULL or "": root */
	mode_t umask;
	struct cred *cred;	     /* borrowed */
	struct fd_table *files;	     /* borrowed: a reference is taken after a successful load */
	struct mnt_ns *mnt_ns;	     /* NULL: init's. The reference is consumed, on failure too */
	struct uts_ns *uts;	     /* borrowed; NULL: root */
	struct ipc_ns *ipc;	     /* borrowed; NULL: root */
	struct pid_ns *pid_ns;	     /* borrowed; NULL: root */
	const struct rlimit *limits; /* RLIM_NLIMITS of them; NULL: defaults */
	struct tty *tty;	     /* becomes the controlling terminal; borrowed or NULL */
	bool no_new_privs;
	/* What went wrong, in words, on failure. */
	char error[512];
};

/*
 * Makes a process with no parent in a new thread group; the first becomes init. Nothing runs yet.
 * @out gets a reference. 0 or -errno with args->error set.
 */
int kernel_create_process(struct kernel *k, struct create_process_args *args,
			  struct thread_group **out) __must_check;
/*
 * Lets it run; -EEXIST the second time. -EAGAIN: no host thread could be made, the process has
 * ended with SIGKILL.
 */
int kernel_start_process(struct kernel *k, struct thread_group *tg) __must_check;
/* Ends a process that shall not be started after all; -EEXIST if it was. */
int kernel_abort_process(struct kernel *k, struct thread_group *tg) __must_check;
/*
 * Searches @name like execvp: facts 31. Returns a kmalloc'd absolute path in the root of @ctx or
 * ERR_PTR: -ENOENT, -EACCES, …
 */
char *kernel_find_executable(const struct vfs_ctx *ctx, const char *name, char *const *envp,
			     const char *cwd);
/* Waits until init has ended and every task is gone; returns its wait status. */
int kernel_wait(struct kernel *k);
/* A task's host thread is about to end. */
void kernel_thread_ended(struct kernel *k);
/* Who hears of the last task's end instead of kernel_wait; NULL: nobody. */
extern void (*kernel_all_ended)(struct kernel *k);
/* Kills everything (time limit, memory limit, front end's end). */
void kernel_kill_all(struct kernel *k, int signo);

/* Default resource limits of a new sandbox. */
extern const struct rlimit kernel_default_limits[RLIM_NLIMITS];

/* Failure injection for tests: the n-th marked step of process creation fails. 0: none. */
extern _Atomic int kernel_fail_step;
bool kernel_fail_point(const char *name);

#endif
