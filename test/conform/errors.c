/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of wrong arguments: bad descriptors (EBADF), bad pointers (EFAULT), bad flags and values
 * (EINVAL), numbers that are no system call (ENOSYS). One behaviour per call.
 */
#include <asm/prctl.h>
#include <linux/membarrier.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>

#include "test/conform/conform.h"

#define BADFD	190		/* never open */
#define BADPTR	0x10L		/* never mapped */
#define NOPTR	(-8L)		/* in the kernel's half */

/* A behaviour: this raw call fails with this errno. */
#define FAILS(id, err, ...)                                                   \
	TEST(id)                                                              \
	{                                                                     \
		CHECK_ERRNO(syscall(__VA_ARGS__), err);                       \
	}

static long buf[512];
static int fds[2];

FAILS(ebadf_read, EBADF, SYS_read, BADFD, buf, 1L)
FAILS(ebadf_write, EBADF, SYS_write, BADFD, buf, 1L)
FAILS(ebadf_close, EBADF, SYS_close, BADFD)
FAILS(ebadf_fstat, EBADF, SYS_fstat, BADFD, buf)
FAILS(ebadf_lseek, EBADF, SYS_lseek, BADFD, 0L, 0)
FAILS(ebadf_ioctl, EBADF, SYS_ioctl, BADFD, 0x5413, buf)
FAILS(ebadf_pread64, EBADF, SYS_pread64, BADFD, buf, 1L, 0L)
FAILS(ebadf_pwrite64, EBADF, SYS_pwrite64, BADFD, buf, 1L, 0L)
FAILS(ebadf_dup, EBADF, SYS_dup, BADFD)
FAILS(ebadf_dup2, EBADF, SYS_dup2, BADFD, 5)
FAILS(ebadf_dup3, EBADF, SYS_dup3, BADFD, 5, 0)
FAILS(ebadf_fcntl, EBADF, SYS_fcntl, BADFD, F_GETFD)
FAILS(ebadf_flock, EBADF, SYS_flock, BADFD, 2)
FAILS(ebadf_fsync, EBADF, SYS_fsync, BADFD)
FAILS(ebadf_fdatasync, EBADF, SYS_fdatasync, BADFD)
FAILS(ebadf_ftruncate, EBADF, SYS_ftruncate, BADFD, 0L)
FAILS(ebadf_getdents64, EBADF, SYS_getdents64, BADFD, buf, 512L)
FAILS(ebadf_fchdir, EBADF, SYS_fchdir, BADFD)
FAILS(ebadf_fchmod, EBADF, SYS_fchmod, BADFD, 0600)
FAILS(ebadf_fchown, EBADF, SYS_fchown, BADFD, 0, 0)
FAILS(ebadf_fstatfs, EBADF, SYS_fstatfs, BADFD, buf)
FAILS(ebadf_sendfile, EBADF, SYS_sendfile, BADFD, BADFD, NULL, 1L)
FAILS(ebadf_accept, EBADF, SYS_accept, BADFD, NULL, NULL)
FAILS(ebadf_connect, EBADF, SYS_connect, BADFD, buf, 16)
FAILS(ebadf_listen, EBADF, SYS_listen, BADFD, 1)
FAILS(ebadf_sendmsg, EBADF, SYS_sendmsg, BADFD, buf, 0)
FAILS(ebadf_getsockname, EBADF, SYS_getsockname, BADFD, buf, buf)
FAILS(ebadf_setsockopt, EBADF, SYS_setsockopt, BADFD, 1, 2, buf, 4)
FAILS(ebadf_shutdown, EBADF, SYS_shutdown, BADFD, 0)
FAILS(ebadf_openat, EBADF, SYS_openat, BADFD, "relative", 0)
FAILS(ebadf_mkdirat, EBADF, SYS_mkdirat, BADFD, "relative", 0700)
FAILS(ebadf_unlinkat, EBADF, SYS_unlinkat, BADFD, "relative", 0)
FAILS(ebadf_renameat, EBADF, SYS_renameat, BADFD, "a", BADFD, "b")
FAILS(ebadf_readlinkat, EBADF, SYS_readlinkat, BADFD, "relative", buf, 10L)
FAILS(ebadf_newfstatat, EBADF, SYS_newfstatat, BADFD, "relative", buf, 0)
FAILS(ebadf_faccessat, EBADF, SYS_faccessat, BADFD, "relative", 0)
FAILS(ebadf_utimensat, EBADF, SYS_utimensat, BADFD, "relative", NULL, 0)
FAILS(ebadf_splice, EBADF, SYS_splice, BADFD, NULL, BADFD, NULL, 1L, 0)
FAILS(ebadf_tee, EBADF, SYS_tee, BADFD, BADFD, 1L, 0)
FAILS(ebadf_fallocate, EBADF, SYS_fallocate, BADFD, 0, 0L, 1L)
FAILS(ebadf_epoll_ctl, EBADF, SYS_epoll_ctl, BADFD, 1, 0, buf)
FAILS(ebadf_timerfd_gettime, EBADF, SYS_timerfd_gettime, BADFD, buf)
FAILS(ebadf_copy_file_range, EBADF, SYS_copy_file_range, BADFD, NULL, 0, NULL, 1L, 0)
FAILS(ebadf_readahead, EBADF, SYS_readahead, BADFD, 0L, 1L)
FAILS(ebadf_fgetxattr, EBADF, SYS_fgetxattr, BADFD, "user.a", buf, 8L)
FAILS(ebadf_mmap, EBADF, SYS_mmap, 0L, 4096L, 1, MAP_PRIVATE, BADFD, 0L)
FAILS(ebadf_pidfd_send_signal, EBADF, SYS_pidfd_send_signal, BADFD, 0, NULL, 0)
FAILS(ebadf_negative, EBADF, SYS_read, -1, buf, 1L)
FAILS(ebadf_int_min, EBADF, SYS_close, INT_MIN)

FAILS(efault_open, EFAULT, SYS_open, BADPTR, 0)
FAILS(efault_open_kernel_address, EFAULT, SYS_open, NOPTR, 0)
FAILS(efault_stat, EFAULT, SYS_stat, ".", BADPTR)
FAILS(efault_stat_path, EFAULT, SYS_stat, BADPTR, buf)
FAILS(efault_fstat, EFAULT, SYS_fstat, 0, BADPTR)
FAILS(efault_lstat, EFAULT, SYS_lstat, ".", NOPTR)
FAILS(efault_access, EFAULT, SYS_access, BADPTR, 0)
FAILS(efault_pipe, EFAULT, SYS_pipe, BADPTR)
FAILS(efault_pipe2, EFAULT, SYS_pipe2, NOPTR, 0)
FAILS(efault_getcwd, EFAULT, SYS_getcwd, BADPTR, 4096L)
FAILS(efault_chdir, EFAULT, SYS_chdir, BADPTR)
FAILS(efault_mkdir, EFAULT, SYS_mkdir, BADPTR, 0700)
FAILS(efault_unlink, EFAULT, SYS_unlink, BADPTR)
FAILS(efault_rename, EFAULT, SYS_rename, BADPTR, "x")
FAILS(efault_rename_second, EFAULT, SYS_rename, "x", BADPTR)
FAILS(efault_symlink, EFAULT, SYS_symlink, BADPTR, "x")
FAILS(efault_readlink, EFAULT, SYS_readlink, "/proc/self", BADPTR, 10L)
FAILS(efault_statfs, EFAULT, SYS_statfs, ".", BADPTR)
FAILS(efault_uname, EFAULT, SYS_uname, BADPTR)
FAILS(efault_sysinfo, EFAULT, SYS_sysinfo, BADPTR)
FAILS(efault_times, EFAULT, SYS_times, BADPTR)
FAILS(efault_getrusage, EFAULT, SYS_getrusage, 0, BADPTR)
FAILS(efault_getrlimit, EFAULT, SYS_getrlimit, RLIMIT_NOFILE, BADPTR)
FAILS(efault_setrlimit, EFAULT, SYS_setrlimit, RLIMIT_NOFILE, BADPTR)
FAILS(efault_prlimit64, EFAULT, SYS_prlimit64, 0, RLIMIT_NOFILE, BADPTR, NULL)
FAILS(efault_clock_gettime, EFAULT, SYS_clock_gettime, CLOCK_MONOTONIC, BADPTR)
FAILS(efault_clock_getres, EFAULT, SYS_clock_getres, CLOCK_MONOTONIC, BADPTR)
FAILS(efault_gettimeofday, EFAULT, SYS_gettimeofday, BADPTR, NULL)
FAILS(efault_nanosleep, EFAULT, SYS_nanosleep, BADPTR, NULL)
FAILS(efault_setitimer, EFAULT, SYS_setitimer, ITIMER_REAL, BADPTR, NULL)
FAILS(efault_getitimer, EFAULT, SYS_getitimer, ITIMER_REAL, BADPTR)
FAILS(efault_timer_create, EFAULT, SYS_timer_create, CLOCK_MONOTONIC, NULL, BADPTR)
FAILS(efault_rt_sigaction, EFAULT, SYS_rt_sigaction, SIGUSR1, BADPTR, NULL, 8L)
FAILS(efault_rt_sigaction_old, EFAULT, SYS_rt_sigaction, SIGUSR1, NULL, BADPTR, 8L)
FAILS(efault_rt_sigprocmask, EFAULT, SYS_rt_sigprocmask, SIG_BLOCK, BADPTR, NULL, 8L)
FAILS(efault_rt_sigpending, EFAULT, SYS_rt_sigpending, BADPTR, 8L)
FAILS(efault_rt_sigtimedwait, EFAULT, SYS_rt_sigtimedwait, BADPTR, NULL, NULL, 8L)
FAILS(efault_rt_sigsuspend, EFAULT, SYS_rt_sigsuspend, BADPTR, 8L)
FAILS(efault_sigaltstack, EFAULT, SYS_sigaltstack, BADPTR, NULL)
FAILS(efault_execve, EFAULT, SYS_execve, BADPTR, NULL, NULL)
FAILS(efault_poll, EFAULT, SYS_poll, BADPTR, 1, 0)
FAILS(efault_select, EFAULT, SYS_select, 1, BADPTR, NULL, NULL, NULL)
FAILS(efault_futex, EFAULT, SYS_futex, BADPTR, 0, 0, NULL, NULL, 0)
FAILS(efault_getresuid, EFAULT, SYS_getresuid, BADPTR, buf, buf)
FAILS(einval_getgroups_negative, EINVAL, SYS_getgroups, -1, BADPTR)
FAILS(efault_sched_getaffinity, EFAULT, SYS_sched_getaffinity, 0, 128L, BADPTR)
FAILS(einval_sched_getparam_null, EINVAL, SYS_sched_getparam, 0, NULL)
FAILS(efault_getrandom, EFAULT, SYS_getrandom, BADPTR, 16L, 0)
FAILS(efault_memfd_create, EFAULT, SYS_memfd_create, BADPTR, 0)
FAILS(efault_socketpair, EFAULT, SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, BADPTR)
FAILS(einval_epoll_wait_of_another_file, EINVAL, SYS_epoll_wait, 0, BADPTR, 1, 0)
FAILS(efault_mincore, EFAULT, SYS_mincore, (long)buf & -4096L, 4096L, BADPTR)
FAILS(echild_wait4, ECHILD, SYS_wait4, -1, BADPTR, 0, NULL)
FAILS(efault_process_vm_readv, EFAULT, SYS_process_vm_readv, getpid(), BADPTR, 1L, BADPTR, 1L, 0L)
FAILS(efault_utimensat, EFAULT, SYS_utimensat, AT_FDCWD, ".", BADPTR, 0)
FAILS(efault_statx, EFAULT, SYS_statx, AT_FDCWD, ".", 0, 0x7ff, BADPTR)
FAILS(efault_capget, EFAULT, SYS_capget, BADPTR, NULL)
FAILS(ebadf_inotify_add_watch, EBADF, SYS_inotify_add_watch, BADFD, BADPTR, 1)

TEST(setgroups_arguments)
{
	NEED_ROOT();
	CHECK_ERRNO(syscall(SYS_setgroups, 1, BADPTR), EFAULT);
	CHECK_ERRNO(syscall(SYS_setgroups, 1 << 20, buf), EINVAL);
}

TEST(efault_sethostname)
{
	NEED_ROOT();
	CHECK_ERRNO(syscall(SYS_sethostname, BADPTR, 4L), EFAULT);
}

TEST(efault_write)
{
	int fd = CHECK_OK(open("f", O_CREAT | O_RDWR, 0644));

	CHECK_ERRNO(syscall(SYS_write, fd, BADPTR, 10L), EFAULT);
	CHECK_ERRNO(syscall(SYS_write, fd, NOPTR, 4L), EFAULT);
	CHECK_EQ(syscall(SYS_write, fd, BADPTR, 0L), 0);
}

TEST(efault_read)
{
	PUT_FILE("f", "contents");
	CHECK_ERRNO(syscall(SYS_read, CHECK_OK(open("f", O_RDONLY)), BADPTR, 4L), EFAULT);
}

TEST(efault_read_pipe_keeps_data)
{
	char c[4];

	CHECK_OK(pipe(fds));
	CHECK_EQ(write(fds[1], "abc", 3), 3);
	CHECK_ERRNO(syscall(SYS_read, fds[0], BADPTR, 3L), EFAULT);
	CHECK_EQ(read(fds[0], c, 4), 3);
	CHECK_EQ(c[0], 'a');
}

TEST(efault_path_crossing_into_nothing)
{
	char *p = (char *)CHECK_OK(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	CHECK_OK(munmap(p + PAGE, PAGE));
	memset(p, 'x', PAGE);
	CHECK_ERRNO(open(p + PAGE - 10, O_RDONLY), EFAULT);
	memcpy(p + PAGE - 2, ".", 2);	/* ends right at the edge: fine */
	CHECK_OK(open(p + PAGE - 2, O_RDONLY));
}

FAILS(ebadf_lseek_whence, EBADF, SYS_lseek, BADFD, 0L, 77)
FAILS(einval_mmap_no_type, EINVAL, SYS_mmap, 0L, 4096L, 3, 0x20, -1, 0L)
FAILS(einval_mprotect, EINVAL, SYS_mprotect, 1L, 4096L, 1)
FAILS(einval_madvise, EINVAL, SYS_madvise, 4096L, 4096L, 9999)
FAILS(einval_kill, EINVAL, SYS_kill, 0, 999)
FAILS(einval_setpriority, EINVAL, SYS_setpriority, 77, 0, 0)
FAILS(einval_rt_sigaction_size, EINVAL, SYS_rt_sigaction, SIGUSR1, NULL, NULL, 16L)
FAILS(einval_rt_sigprocmask_how, EINVAL, SYS_rt_sigprocmask, 9, buf, NULL, 8L)
FAILS(einval_clock_id, EINVAL, SYS_clock_gettime, 55, buf)
FAILS(einval_timer_settime, EINVAL, SYS_timer_settime, 999, 0, buf, NULL)
FAILS(einval_epoll_create, EINVAL, SYS_epoll_create1, 1)
FAILS(einval_eventfd, EINVAL, SYS_eventfd2, 0, 1 << 20)
FAILS(einval_inotify_init, EINVAL, SYS_inotify_init1, 1)
FAILS(einval_pipe2, EINVAL, SYS_pipe2, buf, 0x40000000)
FAILS(einval_dup3, EINVAL, SYS_dup3, 0, 0, 0)
FAILS(einval_unlinkat, EINVAL, SYS_unlinkat, AT_FDCWD, "x", 0x4000)
FAILS(einval_linkat, EINVAL, SYS_linkat, AT_FDCWD, "x", AT_FDCWD, "y", 0x4000)
FAILS(einval_renameat2, EINVAL, SYS_renameat2, AT_FDCWD, "x", AT_FDCWD, "y", 0x4000)
FAILS(einval_newfstatat, EINVAL, SYS_newfstatat, AT_FDCWD, ".", buf, 0x80000)
FAILS(einval_statx, EINVAL, SYS_statx, AT_FDCWD, ".", 0x80000, 0, buf)
FAILS(einval_wait4, EINVAL, SYS_wait4, -1, NULL, 0x10000000, NULL)
FAILS(einval_waitid, EINVAL, SYS_waitid, 0, 0, NULL, 0, NULL)
FAILS(einval_prctl, EINVAL, SYS_prctl, 123456, 0, 0, 0, 0)
FAILS(einval_arch_prctl, EINVAL, SYS_arch_prctl, 0x9999, 0L)
FAILS(einval_getrandom, EINVAL, SYS_getrandom, buf, 8L, 0x80)
FAILS(einval_memfd_create, EINVAL, SYS_memfd_create, "x", 0x20000)
FAILS(einval_getpriority, EINVAL, SYS_getpriority, 9, 0)
FAILS(einval_getrlimit, EINVAL, SYS_getrlimit, 99, buf)
FAILS(einval_getitimer, EINVAL, SYS_getitimer, 9, buf)
FAILS(einval_sched_get_priority_max, EINVAL, SYS_sched_get_priority_max, 99)
FAILS(einval_getrusage, EINVAL, SYS_getrusage, 55, buf)
FAILS(einval_membarrier, EINVAL, SYS_membarrier, 1 << 30, 0, 0)
FAILS(einval_mlock2, EINVAL, SYS_mlock2, 4096L, 4096L, 0x80)
FAILS(ebadf_sync_file_range, EBADF, SYS_sync_file_range, BADFD, 0L, 0L, 0x80)
FAILS(einval_unshare, EINVAL, SYS_unshare, 1)
FAILS(ebadf_setns, EBADF, SYS_setns, BADFD, 0)
FAILS(einval_close_range, EINVAL, SYS_close_range, 9, 8, 0)
FAILS(einval_pidfd_open, EINVAL, SYS_pidfd_open, 0, 0)
FAILS(einval_signalfd4, EINVAL, SYS_signalfd4, -1, buf, 8L, 0x40000000)
FAILS(einval_timerfd_create, EINVAL, SYS_timerfd_create, 77, 0)
FAILS(einval_poll_too_many, EINVAL, SYS_poll, NULL, 0x7fffffff, 0)
FAILS(einval_capset_version, EINVAL, SYS_capset, buf, buf)

FAILS(enosys_beyond_the_table, ENOSYS, 100000L)
FAILS(enosys_gap, ENOSYS, 400L)
FAILS(enosys_negative, ENOSYS, -1L)
FAILS(enosys_large_negative, ENOSYS, -4096L)
FAILS(enosys_tuxcall, ENOSYS, SYS_tuxcall)
FAILS(enosys_security, ENOSYS, SYS_security)
FAILS(enosys_afs, ENOSYS, SYS_afs_syscall)
FAILS(enosys_vserver, ENOSYS, SYS_vserver)
FAILS(enosys_create_module, ENOSYS, SYS_create_module)
FAILS(enosys_getpmsg, ENOSYS, SYS_getpmsg)

TEST(enosys_keeps_registers)
{
	long a = 1, b = 2, c = 3, r;

	asm volatile("syscall"
		     : "=a"(r), "+D"(a), "+S"(b), "+d"(c)
		     : "a"(100001L) : "rcx", "r11", "memory");
	CHECK_EQ(r, -ENOSYS);
	CHECK_EQ(a + b + c, 6);
}

TEST(restart_syscall_without_a_call_to_restart)
{
	CHECK_ERRNO(syscall(SYS_restart_syscall), EINTR);
}

TEST(arch_prctl_fs_and_gs)
{
	unsigned long fs = 0, gs = 1, old = 0;

	CHECK_OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
	CHECK_EQ(*(unsigned long *)fs, fs);	/* the thread pointer points to itself */
	CHECK_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &old));
	CHECK_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)buf));
	buf[3] = 0x7777;
	CHECK_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
	CHECK_EQ(gs, (unsigned long)buf);
	asm("movq %%gs:24, %0" : "=r"(gs));
	CHECK_EQ(gs, 0x7777);
	CHECK_OK(sched_yield());
	msleep(1);
	asm volatile("movq %%gs:24, %0" : "=r"(gs));
	CHECK_EQ(gs, 0x7777);
	CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_SET_GS, 0xffff800000000000UL), EPERM);
	CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_GET_FS, BADPTR), EFAULT);
	CHECK_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, old));
}

TEST(gs_base_survives_fork)
{
	unsigned long gs;
	pid_t pid;

	CHECK_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)buf));
	pid = FORK();
	if (!pid) {
		CHECK_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
		_exit(gs == (unsigned long)buf ? 0 : 1);
	}
	JOIN(pid);
}

TEST(membarrier_query_and_global)
{
	long mask = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

	CHECK_OK(mask);
	CHECK(mask & MEMBARRIER_CMD_GLOBAL);
	CHECK_OK(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
	if (!(mask & MEMBARRIER_CMD_PRIVATE_EXPEDITED))
		return;
	CHECK_ERRNO(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), EPERM);
	CHECK_OK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
	CHECK_OK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
}

TEST(sysinfo_values)
{
	struct sysinfo si;

	CHECK_OK(sysinfo(&si));
	CHECK(si.uptime > 0);
	CHECK(si.totalram > 0 && si.freeram <= si.totalram);
	CHECK(si.mem_unit >= 1);
	CHECK(si.procs >= 1);
}

TEST(upper_half_of_int_arguments_is_ignored)
{
	/* A descriptor is an int: the upper 32 bits of its register do not count. */
	CHECK_OK(syscall(SYS_fcntl, 0x100000000L | 0, F_GETFD));
	CHECK_OK(pipe(fds));
	CHECK_EQ(syscall(SYS_write, 0x500000000L | fds[1], "x", 1L), 1);
}

TEST(syscall_through_int80_is_the_32bit_table_or_a_fault)
{
	pid_t pid = FORK();
	int status;

	if (!pid) {
		long r;

		/* 20 is getpid in the 32-bit table (writev in the 64-bit one). */
		asm volatile("int $0x80" : "=a"(r) : "a"(20L), "b"(0L), "c"(0L), "d"(0L)
			     : "memory", "r8", "r9", "r10", "r11");
		_exit(r == getpid() || r == -ENOSYS ? 0 : 1);
	}
	status = REAP(pid);
	CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
	      (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
}
