/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects behind anonymous files and devices, made by the system calls: pipes, eventfd, timerfd,
 * signalfd, pidfd, epoll, sockets, terminals. Each has its own .c; what others need is here.
 */
#ifndef SENTRY_OBJECTS_H
#define SENTRY_OBJECTS_H

#include "sentry/task.h"

/* pipe.c */
int pipe_create(struct task *t, unsigned int flags, struct file **rd, struct file **wr);

/* pidfd.c: poll, waitid(P_PIDFD), pidfd_send_signal. The pid of a pidfd file or NULL. */
struct file *pidfd_alloc(struct task *t, struct pid *pid, unsigned int flags);
struct pid *pidfd_pid(struct file *file);
/* procfs.c: the process of an open /proc/PID directory (borrowed from it), or NULL. */
struct pid *proc_dir_pid(struct file *file);

/* signalfd.c: a signal has been queued somewhere. sighand->lock may be held. */
void signalfd_notify(void);

/* ktimer.c: timers of the sentry. */
struct ktimer {
	int clock; /* CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME */
	int index; /* in the heap, -1: not armed; under the timer lock */
	struct timespec expires;
	/* Called by the timer thread without locks. Returns true to re-arm at timer->expires. */
	bool (*fn)(struct ktimer *timer);
};
void ktimer_init(struct ktimer *timer, int clock, bool (*fn)(struct ktimer *timer));
void ktimer_arm(struct ktimer *timer, const struct timespec *expires); /* absolute */
/* After return the callback is not running. */
void ktimer_cancel(struct ktimer *timer);
/* The heap has been replaced as memory (sentry/snapshot.h). */
void ktimer_resync(void);

/* timers.c: itimers and POSIX timers of a process. */
void timers_exec(struct thread_group *tg);
void timers_exit(struct thread_group *tg);
/* A SI_TIMER signal was taken from a queue: overrun count, re-arm. sighand->lock held. */
void timers_signal_dequeued(struct task *t, siginfo_t *info);

/* cpu_limit.c: RLIMIT_CPU. After the limit was set, and for a new process that inherits one. */
void cpu_limit_update(struct thread_group *tg);
void cpu_limit_exit(struct thread_group *tg);

/* futex.c */
int futex_wake_addr(struct task *t, uaddr_t addr, bool shared, int n); /* for CLEARTID */
void futex_exit_robust(struct task *t);

/* tty.c */
struct tty *tty_get(struct tty *tty);
void tty_put(struct tty *tty);
/* exit of a session leader: SIGHUP to the foreground group, terminal given up. */
void tty_disassociate(struct thread_group *leader);
/* Makes @tty the controlling terminal of @tg, a session leader. 0 or -EPERM. tasklist held. */
int tty_set_controlling_locked(struct tty *tty, struct thread_group *tg) __must_check;
/* The sandbox's terminal: a pty whose master the front end drives. @slave gets a file. */
int tty_create_console(struct kernel *k, struct mnt_ns *ns, struct file **master,
		       struct file **slave);

/* tty_nr and tpgid of /proc/PID/stat, numbers as in @ns. tasklist held. */
void tty_proc_numbers(struct tty *tty, struct pid_ns *ns, int *tty_nr, int *tpgid);
/* The terminal behind an open slave (borrowed), or NULL. */
struct tty *tty_of_file(struct file *file);
/* As TIOCSWINSZ on the master: SIGWINCH to the foreground group. */
struct winsize;
void tty_set_winsize(struct tty *tty, const struct winsize *ws);

/* Registers drivers (tty, ptmx, pts), hooks (fifo), filesystems (devpts). Once at boot. */
int objects_init(void) __must_check;

#endif
