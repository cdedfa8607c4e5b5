/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host calls that the sentry may make, by what it needs them for: the host's attack surface
 * once an application has taken over the sentry. Keep the lists short, and say why a line is there.
 *
 * Included by tools/seccomp_gen.c alone, which makes the filters when kvmsbox is built: assembling
 * them took half a millisecond of every start.
 */
#ifndef SENTRY_LOCKDOWN_CALLS_H
#define SENTRY_LOCKDOWN_CALLS_H

#include <seccomp.h>
#include <sys/socket.h>

/* Threads, memory, time, and descriptors that are open already. */
static const int common_calls[] = {
	/* memory: the arena, thread stacks, punching freed frames */
	SCMP_SYS(mmap),
	SCMP_SYS(munmap),
	SCMP_SYS(mprotect),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(mremap),
	SCMP_SYS(mincore),
	SCMP_SYS(fallocate),
	SCMP_SYS(membarrier),
	/* threads and waiting */
	SCMP_SYS(clone),
	SCMP_SYS(clone3),
	SCMP_SYS(futex),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_setaffinity),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(gettid),
	SCMP_SYS(getpid),
	SCMP_SYS(tgkill),
	SCMP_SYS(kill),
	SCMP_SYS(getcpu),
	/* signals */
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigtimedwait),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall),
	/* time and entropy */
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(getrandom),
	SCMP_SYS(adjtimex),
	SCMP_SYS(clock_adjtime),
	SCMP_SYS(sysinfo),
	SCMP_SYS(getrusage),
	SCMP_SYS(clock_getres),
	/* descriptors: stdio, readiness, the memory file's size */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(preadv),
	SCMP_SYS(pwritev),
	SCMP_SYS(preadv2),
	SCMP_SYS(pwritev2),
	SCMP_SYS(lseek),
	SCMP_SYS(close),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(fcntl),
	SCMP_SYS(ioctl),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(eventfd2),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	SCMP_SYS(statx),
};

/* Names below a volume's root: always relative to its descriptor (vfs/hostfs). */
static const int volume_calls[] = {
	SCMP_SYS(openat2),    SCMP_SYS(openat),		 SCMP_SYS(mkdirat),
	SCMP_SYS(unlinkat),   SCMP_SYS(renameat2),	 SCMP_SYS(linkat),
	SCMP_SYS(symlinkat),  SCMP_SYS(readlinkat),	 SCMP_SYS(mknodat),
	SCMP_SYS(fchmodat),   SCMP_SYS(fchmod),		 SCMP_SYS(fchownat),
	SCMP_SYS(fchown),     SCMP_SYS(utimensat),	 SCMP_SYS(getdents64),
	SCMP_SYS(fstatfs),    SCMP_SYS(fgetxattr),	 SCMP_SYS(fsetxattr),
	SCMP_SYS(flistxattr), SCMP_SYS(fremovexattr),	 SCMP_SYS(getxattr),
	SCMP_SYS(setxattr),   SCMP_SYS(listxattr),	 SCMP_SYS(removexattr),
	SCMP_SYS(syncfs),     SCMP_SYS(flock),		 SCMP_SYS(sync_file_range),
	SCMP_SYS(faccessat2), SCMP_SYS(copy_file_range), SCMP_SYS(dup),
	SCMP_SYS(faccessat),
};

/* Named sandboxes: connections to the control socket, and who is at the other end of one. */
static const int control_calls[] = {
	SCMP_SYS(accept4),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(memfd_create),
};
static const struct scmp_arg_cmp control_getsockopt[] = {
	SCMP_CMP64(1, SCMP_CMP_EQ, SOL_SOCKET),
	SCMP_CMP64(2, SCMP_CMP_EQ, SO_PEERCRED),
};

/* Functions: the channel, and snapshots. */
static const int function_calls[] = {
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(memfd_create),
};

/* Stub processes: made, traced, waited for. */
static const int ptrace_calls[] = {
	SCMP_SYS(ptrace),
	SCMP_SYS(wait4),
	SCMP_SYS(waitid),
	SCMP_SYS(fork),
	SCMP_SYS(vfork),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
	SCMP_SYS(prctl),
	SCMP_SYS(tkill),
	SCMP_SYS(getppid),
	SCMP_SYS(setsid),
	SCMP_SYS(close_range),
	SCMP_SYS(memfd_create),
	SCMP_SYS(rt_sigqueueinfo),
	SCMP_SYS(rt_tgsigqueueinfo),
	SCMP_SYS(arch_prctl),
	SCMP_SYS(set_tid_address),
	SCMP_SYS(pause),
	SCMP_SYS(sched_setscheduler),
	SCMP_SYS(setrlimit),
	SCMP_SYS(prlimit64),
	SCMP_SYS(rt_sigsuspend),
	SCMP_SYS(sendmsg),
};

/*
 * Stub processes that nobody traces: their ends, files for them to map, the listeners of their
 * threads (from the master, whose pidfd is open: no other can be opened), the reaper's ticks.
 */
static const int systrap_calls[] = {
	SCMP_SYS(wait4),       SCMP_SYS(waitid),	SCMP_SYS(sendmsg),
	SCMP_SYS(pidfd_getfd), SCMP_SYS(timer_settime), SCMP_SYS(timer_delete),
};

#endif
