/* SPDX-License-Identifier: Apache-2.0 */
/* wait4 and waitid, exit statuses, zombies, orphans and SIGCHLD. */
#include "test/conform/conform.h"

static pid_t exiting_child(int code)
{
	pid_t pid = FORK();

	if (!pid)
		_exit(code);
	return pid;
}

static pid_t sleeping_child(void)
{
	pid_t pid = FORK();

	if (!pid) {
		for (;;)
			pause();
	}
	return pid;
}

TEST(exit_code_is_eight_bits)
{
	CHECK_EXIT(exiting_child(0), 0);
	CHECK_EXIT(exiting_child(255), 255);
	CHECK_EXIT(exiting_child(256 + 3), 3);
	CHECK_EXIT(exiting_child(-1), 255);
}

TEST(killed_by_signal)
{
	static const int sigs[] = { SIGTERM, SIGKILL, SIGHUP, SIGUSR1, SIGALRM, SIGPIPE, 40 };

	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++) {
		pid_t pid = sleeping_child();

		CHECK_OK(kill(pid, sigs[i]));
		CHECK_SIGNALED(pid, sigs[i]);
	}
}

TEST(core_bit_is_clear_without_core)
{
	pid_t pid = sleeping_child();
	int status;

	CHECK_OK(kill(pid, SIGQUIT));
	status = REAP(pid);
	CHECK_EQ(status & 0x7f, SIGQUIT);
}

TEST(no_children)
{
	CHECK_ERRNO(waitpid(-1, NULL, 0), ECHILD);
	CHECK_ERRNO(waitpid(getpid(), NULL, 0), ECHILD);
	CHECK_ERRNO(waitpid(1, NULL, WNOHANG), ECHILD);
	CHECK_ERRNO(waitid(P_ALL, 0, NULL, WEXITED), ECHILD);
}

TEST(arguments)
{
	CHECK_ERRNO(waitpid(-1, NULL, 0x10000), EINVAL);
	CHECK_ERRNO(waitid(P_ALL, 0, NULL, 0), EINVAL);
	CHECK_ERRNO(waitid(99, 0, NULL, WEXITED), EINVAL);
	CHECK_ERRNO(waitid(P_PIDFD, 0, NULL, WEXITED), EBADF);
	CHECK_ERRNO(waitpid(INT_MIN, NULL, 0), ESRCH);
}

TEST(wnohang)
{
	struct gate g;
	int status;
	pid_t pid;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		GATE_WAIT(&g);
		_exit(3);
	}
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	CHECK_EQ(waitpid(-1, &status, WNOHANG), 0);
	GATE_OPEN(&g);
	EVENTUALLY(waitpid(pid, &status, WNOHANG) == pid);
	CHECK_EQ(WEXITSTATUS(status), 3);
}

TEST(any_child)
{
	pid_t a = exiting_child(1), b = exiting_child(2), got;
	int sum = 0, status;

	for (int i = 0; i < 2; i++) {
		got = CHECK_OK(wait(&status));
		CHECK(got == a || got == b);
		sum += WEXITSTATUS(status);
	}
	CHECK_EQ(sum, 3);
}

TEST(only_the_asked_for)
{
	pid_t a = exiting_child(1), b = exiting_child(2);

	CHECK_EXIT(b, 2);
	CHECK_EXIT(a, 1);
	CHECK_ERRNO(waitpid(a, NULL, 0), ECHILD);
}

TEST(null_status)
{
	CHECK_OK(waitpid(exiting_child(1), NULL, 0));
}

TEST(by_process_group)
{
	pid_t a = exiting_child(1), b;
	int status;

	b = FORK();
	if (!b) {
		setpgid(0, 0);
		_exit(2);
	}
	setpgid(b, b);
	CHECK_EQ(waitpid(-b, &status, 0), b);
	CHECK_EQ(WEXITSTATUS(status), 2);
	CHECK_ERRNO(waitpid(-b, &status, 0), ECHILD);
	CHECK_EQ(waitpid(0, &status, 0), a);
}

TEST(waitid_exited)
{
	pid_t pid = exiting_child(42);
	siginfo_t info;

	memset(&info, 0xff, sizeof(info));
	CHECK_OK(waitid(P_PID, pid, &info, WEXITED));
	CHECK_EQ(info.si_signo, SIGCHLD);
	CHECK_EQ(info.si_errno, 0);
	CHECK_EQ(info.si_code, CLD_EXITED);
	CHECK_EQ(info.si_pid, pid);
	CHECK_EQ(info.si_uid, getuid());
	CHECK_EQ(info.si_status, 42);
}

TEST(waitid_killed)
{
	pid_t pid = sleeping_child();
	siginfo_t info;

	CHECK_OK(kill(pid, SIGKILL));
	CHECK_OK(waitid(P_PID, pid, &info, WEXITED));
	CHECK_EQ(info.si_code, CLD_KILLED);
	CHECK_EQ(info.si_status, SIGKILL);
}

TEST(waitid_wnowait_leaves_it)
{
	pid_t pid = exiting_child(5);
	siginfo_t info;

	CHECK_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	CHECK_EQ(info.si_status, 5);
	CHECK_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	CHECK_EXIT(pid, 5);
}

TEST(waitid_wnohang_clears_info)
{
	pid_t pid = sleeping_child();
	siginfo_t info;

	memset(&info, 0xff, sizeof(info));
	CHECK_OK(waitid(P_PID, pid, &info, WEXITED | WNOHANG));
	CHECK_EQ(info.si_pid, 0);
	CHECK_EQ(info.si_signo, 0);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(waitid_pgid)
{
	pid_t pid = exiting_child(1);
	siginfo_t info;

	CHECK_OK(waitid(P_PGID, getpgrp(), &info, WEXITED));
	CHECK_EQ(info.si_pid, pid);
}

TEST(stopped_and_continued)
{
	pid_t pid = sleeping_child();
	int status;

	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(WSTOPSIG(status), SIGSTOP);
	CHECK_EQ(waitpid(pid, &status, WUNTRACED | WNOHANG), 0);
	CHECK_OK(kill(pid, SIGCONT));
	CHECK_EQ(waitpid(pid, &status, WCONTINUED), pid);
	CHECK(WIFCONTINUED(status));
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(stop_is_invisible_without_wuntraced)
{
	pid_t pid = sleeping_child();
	siginfo_t info;
	int status;

	CHECK_OK(kill(pid, SIGTSTP));
	CHECK_OK(waitid(P_PID, pid, &info, WSTOPPED | WNOWAIT));
	CHECK_EQ(info.si_code, CLD_STOPPED);
	CHECK_EQ(info.si_status, SIGTSTP);
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	CHECK_OK(kill(pid, SIGCONT));
	CHECK_OK(waitid(P_PID, pid, &info, WCONTINUED));
	CHECK_EQ(info.si_code, CLD_CONTINUED);
	CHECK_EQ(info.si_status, SIGCONT);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(kill_of_stopped)
{
	pid_t pid = sleeping_child();
	int status;

	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(term_of_stopped_waits_for_cont)
{
	pid_t pid = sleeping_child();
	int status;

	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK_OK(kill(pid, SIGTERM));
	msleep(30);
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	CHECK_OK(kill(pid, SIGCONT));
	CHECK_SIGNALED(pid, SIGTERM);
}

TEST(zombie_can_be_signalled)
{
	pid_t pid = exiting_child(0);
	siginfo_t info;

	CHECK_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	CHECK_OK(kill(pid, 0));
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EXIT(pid, 0);
	CHECK_ERRNO(kill(pid, 0), ESRCH);
}

TEST(zombie_state_in_proc)
{
	pid_t pid = exiting_child(0);
	char path[64], buf[1024];
	siginfo_t info;

	CHECK_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	CHECK(get_file(path, buf, sizeof(buf)) > 0);
	CHECK(strstr(buf, ") Z "));
	JOIN(pid);
	CHECK_EQ(get_file(path, buf, sizeof(buf)), -1);
}

TEST(orphan_goes_to_subreaper)
{
	struct gate g;
	pid_t pid, orphan;
	int fd[2];

	GATE_INIT(&g);
	CHECK_OK(pipe(fd));
	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	pid = FORK();
	if (!pid) {
		orphan = FORK();
		if (!orphan) {
			GATE_WAIT(&g);
			_exit(11);
		}
		CHECK_EQ(write(fd[1], &orphan, sizeof(orphan)), sizeof(orphan));
		_exit(0);
	}
	CHECK_EQ(read(fd[0], &orphan, sizeof(orphan)), sizeof(orphan));
	JOIN(pid);
	GATE_OPEN(&g);
	CHECK_EXIT(orphan, 11);
}

TEST(orphan_sees_new_parent)
{
	pid_t me = getpid(), pid;
	int status, n = 0;

	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	pid = FORK();
	if (!pid) {
		pid_t middle = getpid();

		if (!FORK()) {
			for (int i = 0; i < 1000 && getppid() == middle; i++)
				msleep(5);
			_exit(getppid() == me ? 0 : 1);
		}
		_exit(0);
	}
	while (waitpid(-1, &status, 0) > 0) {
		CHECK_EQ(status, 0);
		n++;
	}
	CHECK_EQ(n, 2);
}

TEST(zombie_is_passed_on)
{
	pid_t pid;
	int status, n = 0;

	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	pid = FORK();
	if (!pid) {
		siginfo_t info;
		pid_t z = FORK();

		if (!z)
			_exit(21);
		CHECK_OK(waitid(P_PID, z, &info, WEXITED | WNOWAIT));
		_exit(20);
	}
	for (int sum = 0; n < 2; n++) {
		CHECK_OK(wait(&status));
		sum += WEXITSTATUS(status);
		if (n == 1)
			CHECK_EQ(sum, 41);
	}
}

TEST(subreaper_flag_reads_back)
{
	int v = -1;

	CHECK_OK(prctl(PR_GET_CHILD_SUBREAPER, &v, 0, 0, 0));
	CHECK_EQ(v, 0);
	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	CHECK_OK(prctl(PR_GET_CHILD_SUBREAPER, &v, 0, 0, 0));
	CHECK_EQ(v, 1);
}

static volatile sig_atomic_t chld_count, chld_code, chld_pid, chld_status;

static void on_chld(int sig UNUSED, siginfo_t *info, void *uc UNUSED)
{
	chld_count++;
	chld_code = info->si_code;
	chld_pid = info->si_pid;
	chld_status = info->si_status;
}

TEST(sigchld_on_exit)
{
	pid_t pid;

	on_siginfo(SIGCHLD, on_chld, SA_RESTART);
	pid = exiting_child(9);
	EVENTUALLY(chld_count == 1);
	CHECK_EQ(chld_code, CLD_EXITED);
	CHECK_EQ(chld_pid, pid);
	CHECK_EQ(chld_status, 9);
	CHECK_EXIT(pid, 9);
}

TEST(sigchld_on_stop_and_continue)
{
	pid_t pid = sleeping_child();

	on_siginfo(SIGCHLD, on_chld, SA_RESTART);
	CHECK_OK(kill(pid, SIGSTOP));
	EVENTUALLY(chld_count == 1);
	CHECK_EQ(chld_code, CLD_STOPPED);
	CHECK_EQ(chld_status, SIGSTOP);
	CHECK_OK(kill(pid, SIGCONT));
	EVENTUALLY(chld_count == 2);
	CHECK_EQ(chld_code, CLD_CONTINUED);
	CHECK_OK(kill(pid, SIGKILL));
	EVENTUALLY(chld_count == 3);
	CHECK_EQ(chld_code, CLD_KILLED);
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(sa_nocldstop)
{
	pid_t pid = sleeping_child();
	int status;

	on_siginfo(SIGCHLD, on_chld, SA_RESTART | SA_NOCLDSTOP);
	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(chld_count, 0);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
	EVENTUALLY(chld_count == 1);
}

TEST(sa_nocldwait_reaps)
{
	pid_t pid;

	on_siginfo(SIGCHLD, on_chld, SA_RESTART | SA_NOCLDWAIT);
	pid = exiting_child(0);
	CHECK_ERRNO(waitpid(pid, NULL, 0), ECHILD);
	CHECK_ERRNO(kill(pid, 0), ESRCH);
}

TEST(ignored_sigchld_reaps)
{
	pid_t a, b;

	signal(SIGCHLD, SIG_IGN);
	a = exiting_child(0);
	b = exiting_child(0);
	CHECK_ERRNO(waitpid(-1, NULL, 0), ECHILD);
	CHECK_ERRNO(kill(a, 0), ESRCH);
	CHECK_ERRNO(kill(b, 0), ESRCH);
}

TEST(wait_is_interrupted)
{
	pid_t pid = sleeping_child();

	on_siginfo(SIGALRM, on_chld, 0);
	TICK_START();
	CHECK_ERRNO(waitpid(pid, NULL, 0), EINTR);
	TICK_STOP();
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(wait_is_restarted)
{
	struct gate g;
	pid_t pid;
	int status;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		GATE_WAIT(&g);
		_exit(12);
	}
	on_siginfo(SIGALRM, on_chld, SA_RESTART);
	if (!FORK()) {
		msleep(150);
		GATE_OPEN(&g);
		_exit(0);
	}
	TICK_START();
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	TICK_STOP();
	CHECK_EQ(WEXITSTATUS(status), 12);
}

TEST(wait4_rusage)
{
	struct rusage ru;
	pid_t pid = exiting_child(0);

	memset(&ru, 0xff, sizeof(ru));
	CHECK_EQ(wait4(pid, NULL, 0, &ru), pid);
	CHECK(ru.ru_utime.tv_sec >= 0 && ru.ru_utime.tv_sec < 100);
	CHECK(ru.ru_maxrss >= 0);
}

TEST(waitid_rusage_raw)
{
	struct rusage ru;
	siginfo_t info;
	pid_t pid = exiting_child(3);

	memset(&ru, 0xff, sizeof(ru));
	CHECK_EQ(syscall(SYS_waitid, P_PID, pid, &info, WEXITED, &ru), 0);
	CHECK_EQ(info.si_status, 3);
	CHECK(ru.ru_utime.tv_sec >= 0);
}

TEST(bad_status_pointer)
{
	pid_t pid = exiting_child(0);
	siginfo_t info;

	CHECK_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	CHECK_ERRNO(syscall(SYS_wait4, pid, 8L, 0, NULL), EFAULT);
	/* It is gone all the same. */
	CHECK_ERRNO(waitpid(pid, NULL, 0), ECHILD);
}

TEST(pdeathsig)
{
	struct gate ready;
	pid_t pid;
	int status, sig = 0;

	GATE_INIT(&ready);
	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	pid = FORK();
	if (!pid) {
		if (!FORK()) {
			prctl(PR_SET_PDEATHSIG, SIGUSR1);
			GATE_OPEN(&ready);
			for (;;)
				pause();
		}
		GATE_WAIT(&ready);
		_exit(0);
	}
	JOIN(pid);
	CHECK_OK(wait(&status));
	sig = WTERMSIG(status);
	CHECK_EQ(sig, SIGUSR1);
}

TEST(exit_closes_descriptors)
{
	int fd[2];
	pid_t pid;
	char c;

	CHECK_OK(pipe(fd));
	pid = FORK();
	if (!pid)
		_exit(0);
	CHECK_OK(close(fd[1]));
	CHECK_EQ(read(fd[0], &c, 1), 0);
	JOIN(pid);
}
