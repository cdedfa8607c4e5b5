/* SPDX-License-Identifier: Apache-2.0 */
/* Making processes: fork, vfork, clone, clone3 and what the child inherits; pidfds; groups. */
#include <linux/sched.h>
#include <sys/times.h>

#include "test/conform/conform.h"

static long raw_clone(unsigned long flags, int *ptid, int *ctid)
{
	return syscall(SYS_clone, flags, NULL, ptid, ctid, 0L);
}

TEST(fork_pids)
{
	pid_t parent = getpid(), pid = FORK();

	if (!pid) {
		CHECK(getpid() != parent);
		CHECK_EQ(getppid(), parent);
		CHECK_EQ(getpid(), (pid_t)syscall(SYS_gettid));
		_exit(0);
	}
	CHECK(pid > 0 && pid != parent);
	JOIN(pid);
}

TEST(fork_shares_file_offset)
{
	int fd;
	pid_t pid;
	char c;

	PUT_FILE("f", "abcdef");
	fd = CHECK_OK(open("f", O_RDONLY));
	pid = FORK();
	if (!pid) {
		CHECK_EQ(read(fd, &c, 1), 1);
		CHECK_EQ(lseek(fd, 3, SEEK_CUR), 4);
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(read(fd, &c, 1), 1);
	CHECK_EQ(c, 'e');
}

TEST(fork_copies_descriptor_table)
{
	int fd = CHECK_OK(open("/dev/null", O_RDONLY));
	pid_t pid = FORK();

	if (!pid) {
		CHECK_OK(close(fd));
		CHECK_EQ(open("/dev/null", O_RDONLY), fd);
		CHECK_OK(open("/dev/null", O_RDONLY));
		_exit(0);
	}
	JOIN(pid);
	CHECK_OK(fcntl(fd, F_GETFD));
	CHECK_ERRNO(fcntl(fd + 1, F_GETFD), EBADF);
}

TEST(fork_copies_cwd_and_umask)
{
	char before[PATH_MAX], after[PATH_MAX];
	pid_t pid;

	CHECK(getcwd(before, sizeof(before)));
	umask(027);
	pid = FORK();
	if (!pid) {
		CHECK_EQ(umask(0), 027);
		CHECK_OK(chdir("/"));
		_exit(0);
	}
	JOIN(pid);
	CHECK(getcwd(after, sizeof(after)));
	CHECK_STR(before, after);
	CHECK_EQ(umask(022), 027);
}

TEST(fork_inherits_group_and_session)
{
	pid_t pgid = getpgrp(), sid = getsid(0), pid = FORK();

	if (!pid) {
		CHECK_EQ(getpgrp(), pgid);
		CHECK_EQ(getsid(0), sid);
		_exit(0);
	}
	JOIN(pid);
}

TEST(fork_clears_pending_signals_and_alarm)
{
	struct itimerval it;
	pid_t pid;

	BLOCK(SIGUSR1);
	CHECK_OK(raise(SIGUSR1));
	alarm(100);
	pid = FORK();
	if (!pid) {
		sigset_t set;

		CHECK_OK(sigpending(&set));
		CHECK(!sigismember(&set, SIGUSR1));
		CHECK_EQ(alarm(0), 0);
		CHECK_OK(getitimer(ITIMER_REAL, &it));
		CHECK_EQ(it.it_value.tv_sec, 0);
		CHECK_OK(sigprocmask(SIG_BLOCK, NULL, &set));
		CHECK(sigismember(&set, SIGUSR1));
		_exit(0);
	}
	JOIN(pid);
	CHECK(alarm(0) > 0);
}

static volatile int handled;

static void count_signal(int sig UNUSED)
{
	handled++;
}

TEST(fork_inherits_handlers)
{
	pid_t pid;

	on_signal(SIGUSR1, count_signal);
	pid = FORK();
	if (!pid) {
		CHECK_OK(raise(SIGUSR1));
		CHECK_EQ(handled, 1);
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(handled, 0);
}

TEST(vfork_suspends_the_parent)
{
	volatile int step = 0;
	pid_t pid = vfork();

	if (!pid) {
		msleep(50);
		step = 1;
		_exit(3);
	}
	CHECK(pid > 0);
	CHECK_EQ(step, 1);
	CHECK_EXIT(pid, 3);
}

HELPER(exit_with)
{
	return argc > 1 ? atoi(argv[1]) : 0;
}

TEST(vfork_exec_releases_the_parent)
{
	pid_t pid = vfork();

	if (!pid) {
		execl(conform_self, conform_self, "--helper", "exit_with", "9", NULL);
		_exit(1);
	}
	CHECK(pid > 0);
	CHECK_EXIT(pid, 9);
}

TEST(clone_parent_and_child_settid)
{
	int *tids = (int *)CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	long pid = raw_clone(CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, &tids[0],
			     &tids[1]);

	if (!pid)
		_exit(tids[1] == (int)syscall(SYS_gettid) ? 0 : 1);
	CHECK_OK(pid);
	CHECK_EQ(tids[0], pid);
	JOIN(pid);
	CHECK_EQ(tids[1], pid);
}

TEST(clone_files_is_shared)
{
	int fd = CHECK_OK(open("/dev/null", O_RDONLY));
	long pid = raw_clone(CLONE_FILES | SIGCHLD, NULL, NULL);

	if (!pid)
		_exit(close(fd) == 0 && open("/dev/null", O_RDONLY) == fd &&
		      open("/dev/null", O_RDONLY) == fd + 1 && close(fd) == 0 ? 0 : 1);
	CHECK_OK(pid);
	JOIN(pid);
	CHECK_ERRNO(fcntl(fd, F_GETFD), EBADF);
	CHECK_OK(fcntl(fd + 1, F_GETFD));
}

TEST(clone_fs_is_shared)
{
	long pid = raw_clone(CLONE_FS | SIGCHLD, NULL, NULL);
	char cwd[PATH_MAX];

	if (!pid) {
		umask(033);
		_exit(chdir("/") ? 1 : 0);
	}
	CHECK_OK(pid);
	JOIN(pid);
	CHECK_EQ(umask(022), 033);
	CHECK(getcwd(cwd, sizeof(cwd)));
	CHECK_STR(cwd, "/");
}

TEST(unshare_files)
{
	int fd = CHECK_OK(open("/dev/null", O_RDONLY));
	long pid = raw_clone(CLONE_FILES | SIGCHLD, NULL, NULL);

	if (!pid)
		_exit(unshare(CLONE_FILES) == 0 && close(fd) == 0 ? 0 : 1);
	CHECK_OK(pid);
	JOIN(pid);
	CHECK_OK(fcntl(fd, F_GETFD));
}

TEST(clone_exit_signal)
{
	sigset_t set = sigset_of(SIGUSR2);
	siginfo_t info;
	long pid;

	BLOCK(SIGUSR2);
	pid = raw_clone(SIGUSR2, NULL, NULL);
	if (!pid)
		_exit(4);
	CHECK_OK(pid);
	CHECK_EQ(sigwaitinfo(&set, &info), SIGUSR2);
	CHECK_EQ(info.si_pid, pid);
	CHECK_EQ(info.si_status, 4);
	CHECK_ERRNO(waitpid(pid, NULL, WNOHANG), ECHILD);
	CHECK_EQ(waitpid(pid, NULL, __WALL), pid);
}

TEST(clone_no_exit_signal_needs_wclone)
{
	int status;
	long pid = raw_clone(0, NULL, NULL);

	if (!pid)
		_exit(5);
	CHECK_OK(pid);
	CHECK_EQ(waitpid(pid, &status, __WCLONE), pid);
	CHECK_EQ(WEXITSTATUS(status), 5);
}

TEST(clone_parent_flag)
{
	int *who = (int *)CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t me = getpid(), pid = FORK();

	if (!pid) {
		long sibling = raw_clone(CLONE_PARENT | SIGCHLD, NULL, NULL);

		if (!sibling)
			_exit(getppid() == me ? 6 : 1);
		*who = (int)sibling;
		_exit(waitpid(sibling, NULL, 0) < 0 && errno == ECHILD ? 0 : 1);
	}
	JOIN(pid);
	CHECK_EXIT(*who, 6);
}

TEST(clone_flag_errors)
{
	CHECK_ERRNO(raw_clone(CLONE_SIGHAND | SIGCHLD, NULL, NULL), EINVAL);
	CHECK_ERRNO(raw_clone(CLONE_THREAD | SIGCHLD, NULL, NULL), EINVAL);
	CHECK_ERRNO(raw_clone(CLONE_THREAD | CLONE_VM | SIGCHLD, NULL, NULL), EINVAL);
	CHECK_ERRNO(raw_clone(CLONE_FS | CLONE_NEWNS | SIGCHLD, NULL, NULL), EINVAL);
}

TEST(clone_pidfd)
{
	int pidfd = -1, status;
	long pid = raw_clone(CLONE_PIDFD | SIGCHLD, &pidfd, NULL);
	siginfo_t info;

	if (!pid)
		_exit(7);
	CHECK_OK(pid);
	CHECK(pidfd >= 0);
	CHECK_EQ(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
	memset(&info, 0, sizeof(info));
	CHECK_OK(waitid(P_PIDFD, pidfd, &info, WEXITED));
	CHECK_EQ(info.si_pid, pid);
	CHECK_EQ(info.si_status, 7);
	CHECK_ERRNO(waitpid(pid, &status, 0), ECHILD);
}

TEST(clone3_fork)
{
	int pidfd = -1, tid = 0;
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_PARENT_SETTID,
		.pidfd = (uintptr_t)&pidfd,
		.parent_tid = (uintptr_t)&tid,
		.exit_signal = SIGCHLD,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	if (!pid)
		_exit(8);
	CHECK_OK(pid);
	CHECK_EQ(tid, pid);
	CHECK(pidfd >= 0);
	CHECK_EXIT(pid, 8);
}

TEST(clone3_errors)
{
	struct clone_args args = { .exit_signal = SIGCHLD };

	CHECK_ERRNO(syscall(SYS_clone3, &args, 8L), EINVAL);
	CHECK_ERRNO(syscall(SYS_clone3, (void *)8, sizeof(args)), EFAULT);
	args.exit_signal = 1000;
	CHECK_ERRNO(syscall(SYS_clone3, &args, sizeof(args)), EINVAL);
	args.exit_signal = SIGCHLD;
	args.stack_size = 4096;
	CHECK_ERRNO(syscall(SYS_clone3, &args, sizeof(args)), EINVAL);
}

TEST(clone3_larger_structure)
{
	struct {
		struct clone_args args;
		uint64_t extra[4];
	} big;
	long pid;

	memset(&big, 0, sizeof(big));
	big.args.exit_signal = SIGCHLD;
	big.extra[2] = 1;
	CHECK_ERRNO(syscall(SYS_clone3, &big, sizeof(big)), E2BIG);
	big.extra[2] = 0;
	pid = syscall(SYS_clone3, &big, sizeof(big));
	if (!pid)
		_exit(0);
	CHECK_OK(pid);
	JOIN(pid);
}

TEST(pidfd_open_poll)
{
	struct pollfd pfd;
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		GATE_WAIT(&g);
		_exit(0);
	}
	pfd.fd = CHECK_OK(syscall(SYS_pidfd_open, pid, 0));
	pfd.events = POLLIN;
	CHECK_EQ(poll(&pfd, 1, 0), 0);
	GATE_OPEN(&g);
	CHECK_EQ(poll(&pfd, 1, -1), 1);
	CHECK(pfd.revents & POLLIN);
	JOIN(pid);
}

TEST(pidfd_open_errors)
{
	pid_t pid = FORK();

	if (!pid)
		_exit(0);
	JOIN(pid);
	CHECK_ERRNO(syscall(SYS_pidfd_open, pid, 0), ESRCH);
	CHECK_ERRNO(syscall(SYS_pidfd_open, getpid(), 0x40000000), EINVAL);
	CHECK_ERRNO(syscall(SYS_pidfd_open, -1, 0), EINVAL);
}

TEST(pidfd_send_signal)
{
	pid_t pid = FORK();
	int fd;

	if (!pid) {
		for (;;)
			pause();
	}
	fd = CHECK_OK(syscall(SYS_pidfd_open, pid, 0));
	CHECK_OK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
	CHECK_ERRNO(syscall(SYS_pidfd_send_signal, fd, 1000, NULL, 0), EINVAL);
	CHECK_OK(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
	CHECK_SIGNALED(pid, SIGTERM);
	CHECK_ERRNO(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0), ESRCH);
	CHECK_ERRNO(syscall(SYS_pidfd_send_signal, 0, SIGTERM, NULL, 0), EBADF);
}

TEST(pidfd_getfd)
{
	int fd, got, pidfd;
	struct gate g;
	struct stat a, b;
	pid_t pid;

	GATE_INIT(&g);
	PUT_FILE("f", "x");
	fd = CHECK_OK(open("f", O_RDONLY));
	pid = FORK();
	if (!pid) {
		GATE_WAIT(&g);
		_exit(0);
	}
	pidfd = CHECK_OK(syscall(SYS_pidfd_open, pid, 0));
	got = CHECK_OK(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
	CHECK_OK(fstat(fd, &a));
	CHECK_OK(fstat(got, &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	CHECK_EQ(fcntl(got, F_GETFD), FD_CLOEXEC);
	CHECK_ERRNO(syscall(SYS_pidfd_getfd, pidfd, 180, 0), EBADF);
	GATE_OPEN(&g);
	JOIN(pid);
}

TEST(getpgid_and_getsid)
{
	CHECK_EQ(getpgid(0), getpgrp());
	CHECK_EQ(getpgid(getpid()), getpgrp());
	CHECK_EQ(getpgrp(), getpid());	/* the harness made the test a leader */
	CHECK_ERRNO(getpgid(0x3fffffff), ESRCH);
	CHECK_ERRNO(getsid(0x3fffffff), ESRCH);
	CHECK_ERRNO(getpgid(-1), ESRCH);
}

TEST(setsid_of_group_leader_fails)
{
	CHECK_ERRNO(setsid(), EPERM);
}

TEST(setsid_makes_session)
{
	pid_t pid = FORK();

	if (!pid) {
		CHECK_EQ(setsid(), getpid());
		CHECK_EQ(getsid(0), getpid());
		CHECK_EQ(getpgrp(), getpid());
		CHECK_ERRNO(setsid(), EPERM);
		CHECK_ERRNO(setpgid(0, 0), EPERM);
		CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
		_exit(0);
	}
	JOIN(pid);
}

TEST(setpgid_child_and_join)
{
	struct gate g;
	pid_t a, b;

	GATE_INIT(&g);
	a = FORK();
	if (!a) {
		GATE_WAIT(&g);
		_exit(getpgrp() == getpid() ? 0 : 1);
	}
	b = FORK();
	if (!b) {
		GATE_WAIT(&g);
		_exit(getpgrp() == a ? 0 : 1);
	}
	CHECK_OK(setpgid(a, a));
	CHECK_OK(setpgid(b, a));
	CHECK_EQ(getpgid(b), a);
	GATE_OPEN(&g);
	GATE_OPEN(&g);
	JOIN(a);
	JOIN(b);
}

TEST(setpgid_errors)
{
	struct gate g, ready;
	pid_t pid;

	GATE_INIT(&g);
	GATE_INIT(&ready);
	CHECK_ERRNO(setpgid(0, -1), EINVAL);
	CHECK_ERRNO(setpgid(getppid(), 0), ESRCH);
	CHECK_ERRNO(setpgid(0x3fffffff, 0), ESRCH);
	pid = FORK();
	if (!pid) {
		setsid();
		GATE_OPEN(&ready);
		GATE_WAIT(&g);
		_exit(0);
	}
	CHECK_ERRNO(setpgid(0, 0x3fffffff), EPERM);
	GATE_WAIT(&ready);
	CHECK_ERRNO(setpgid(pid, getpid()), EPERM);	/* the leader of another session */
	GATE_OPEN(&g);
	JOIN(pid);
}

HELPER(wait_stdin)
{
	char c;

	if (write(1, "r", 1) != 1)
		return 1;
	return read(0, &c, 1) < 0;
}

TEST(setpgid_after_exec_is_eacces)
{
	struct gate to, from;
	pid_t pid;

	GATE_INIT(&to);
	GATE_INIT(&from);
	pid = FORK();
	if (!pid) {
		dup2(to.fd[0], 0);
		dup2(from.fd[1], 1);
		execl(conform_self, conform_self, "--helper", "wait_stdin", NULL);
		_exit(1);
	}
	GATE_WAIT(&from);
	CHECK_ERRNO(setpgid(pid, pid), EACCES);
	GATE_OPEN(&to);
	JOIN(pid);
}

TEST(kill_process_group)
{
	struct gate ready;
	pid_t leader, n;
	int status;

	GATE_INIT(&ready);
	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	leader = FORK();
	if (!leader) {
		setpgid(0, 0);
		FORK();
		GATE_OPEN(&ready);
		for (;;)
			pause();
	}
	GATE_WAIT(&ready);
	GATE_WAIT(&ready);
	CHECK_OK(kill(-leader, 0));
	CHECK_OK(kill(-leader, SIGTERM));
	for (n = 0; wait(&status) > 0; n++)
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	CHECK_EQ(n, 2);
	CHECK_ERRNO(kill(-leader, 0), ESRCH);
}

TEST(times_of_children)
{
	struct tms t0, t1;
	pid_t pid;

	CHECK_OK(times(&t0));
	CHECK_EQ(t0.tms_cutime, 0);
	pid = FORK();
	if (!pid) {
		struct rusage ru;

		do {
			burn();
			CHECK_OK(getrusage(RUSAGE_SELF, &ru));
		} while (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec < 60000 &&
		       ru.ru_utime.tv_sec + ru.ru_stime.tv_sec == 0);
		_exit(0);
	}
	JOIN(pid);
	CHECK_OK(times(&t1));
	CHECK(t1.tms_cutime + t1.tms_cstime >= 4);
}

TEST(getrusage_children)
{
	struct rusage ru;
	pid_t pid = FORK();

	if (!pid) {
		do {
			burn();
			CHECK_OK(getrusage(RUSAGE_SELF, &ru));
		} while (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec < 30000 &&
		       ru.ru_utime.tv_sec + ru.ru_stime.tv_sec == 0);
		CHECK_OK(getrusage(RUSAGE_CHILDREN, &ru));
		CHECK_EQ(ru.ru_utime.tv_sec + ru.ru_utime.tv_usec, 0);
		_exit(0);
	}
	JOIN(pid);
	CHECK_OK(getrusage(RUSAGE_CHILDREN, &ru));
	CHECK(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec > 0 ||
	      ru.ru_utime.tv_usec + ru.ru_stime.tv_usec >= 20000);
	CHECK(ru.ru_maxrss > 0);
	CHECK_ERRNO(getrusage(77, &ru), EINVAL);
}

TEST(many_children)
{
	pid_t pids[50];

	for (int i = 0; i < 50; i++) {
		pids[i] = FORK();
		if (!pids[i])
			_exit(i);
	}
	for (int i = 49; i >= 0; i--)
		CHECK_EXIT(pids[i], i);
	CHECK_ERRNO(waitpid(-1, NULL, 0), ECHILD);
}

TEST(deep_chain)
{
	int depth = 0;

	for (; depth < 20; depth++) {
		pid_t pid = FORK();

		if (pid) {
			JOIN(pid);
			if (depth)
				_exit(0);
			return;
		}
	}
	_exit(0);
}
