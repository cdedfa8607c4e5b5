/* SPDX-License-Identifier: Apache-2.0 */
/* execve: arguments, what survives, threads, set-user-id programs, execveat. */
#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>

#include "test/conform/exec.h"

HELPER(echo)
{
	for (int i = 1; i < argc; i++)
		printf("%s%s", i > 1 ? "|" : "", argv[i]);
	return 0;
}

HELPER(env)
{
	for (char **e = conform_environ; *e; e++)
		printf("%s;", *e);
	return 0;
}

TEST(arguments_arrive)
{
	char *argv[] = { "any name", "--helper", "echo", "one", "", "two words", "\303\251", NULL };
	char out[256];

	CHECK_EQ(run_argv(conform_self, argv, NULL, out, sizeof(out)), 0);
	CHECK_STR(out, "one||two words|\303\251");
}

TEST(environment_arrives)
{
	char *argv[] = { "x", "--helper", "env", NULL };
	char *envp[] = { "A=1", "noequals", "B=", NULL };
	char out[256];

	CHECK_EQ(run_argv(conform_self, argv, envp, out, sizeof(out)), 0);
	CHECK_STR(out, "A=1;noequals;B=;");
}

TEST(empty_environment)
{
	char *argv[] = { "x", "--helper", "env", NULL }, *envp[] = { NULL };
	char out[256];

	CHECK_EQ(run_argv(conform_self, argv, envp, out, sizeof(out)), 0);
	CHECK_STR(out, "");
}

HELPER(argv0)
{
	char buf[4096];
	int n = get_file("/proc/self/cmdline", buf, sizeof(buf));

	for (int i = 0; i < n; i++)
		putchar(buf[i] ? buf[i] : '|');
	return 0;
}

TEST(argv0_is_free)
{
	char *argv[] = { "not-the-file", "--helper", "argv0", "z", NULL };
	char out[256];

	CHECK_EQ(run_argv(conform_self, argv, NULL, out, sizeof(out)), 0);
	CHECK_STR(out, "not-the-file|--helper|argv0|z|");
}

TEST(long_argument)
{
	char *big = malloc(100001), *out = malloc(200000);
	char *argv[] = { "x", "--helper", "echo", big, NULL };

	memset(big, 'L', 100000);
	big[100000] = 0;
	CHECK_EQ(run_argv(conform_self, argv, NULL, out, 200000), 0);
	CHECK_EQ(strlen(out), 100000);
}

HELPER(count)
{
	printf("%d", argc - 1);
	return 0;
}

TEST(many_arguments)
{
	char *argv[5004] = { "x", "--helper", "count" }, out[64];

	for (int i = 0; i < 5000; i++)
		argv[3 + i] = "arg";
	CHECK_EQ(run_argv(conform_self, argv, NULL, out, sizeof(out)), 0);
	CHECK_STR(out, "5000");
}

TEST(e2big_single_string)
{
	char *big = malloc(131073 + 1);
	char *argv[] = { "x", big, NULL };

	memset(big, 'L', 131072);
	big[131072] = 0;
	CHECK_ERRNO(execve(conform_self, argv, conform_environ), E2BIG);
}

TEST(e2big_total)
{
	struct rlimit rl = { 1 << 20, RLIM_INFINITY };
	char *big = malloc(100001);
	char *argv[12] = { "x", "--helper", "count" };

	memset(big, 'L', 100000);
	big[100000] = 0;
	for (int i = 3; i < 11; i++)
		argv[i] = big;
	CHECK_OK(setrlimit(RLIMIT_STACK, &rl));
	CHECK_ERRNO(execve(conform_self, argv, conform_environ), E2BIG);
}

HELPER(auxv)
{
	if (getauxval(AT_PAGESZ) != PAGE)
		return 1;
	if (getauxval(AT_UID) != getuid() || getauxval(AT_EUID) != geteuid())
		return 2;
	if (getauxval(AT_GID) != getgid() || getauxval(AT_EGID) != getegid())
		return 3;
	if (getauxval(AT_SECURE))
		return 4;
	if (!getauxval(AT_RANDOM) || !getauxval(AT_PHDR) || !getauxval(AT_ENTRY))
		return 5;
	if (getauxval(AT_PHENT) != sizeof(Elf64_Phdr) || !getauxval(AT_PHNUM))
		return 6;
	if (getauxval(AT_CLKTCK) != 100)
		return 7;
	if (strcmp((char *)getauxval(AT_PLATFORM), "x86_64"))
		return 8;
	printf("%s", (char *)getauxval(AT_EXECFN));
	return 0;
}

TEST(auxiliary_vector)
{
	char *argv[] = { "x", "--helper", "auxv", NULL };
	char out[PATH_MAX];

	CHECK_EQ(run_argv(conform_self, argv, NULL, out, sizeof(out)), 0);
	CHECK_STR(out, conform_self);
}

HELPER(random)
{
	const unsigned char *p = (unsigned char *)getauxval(AT_RANDOM);

	for (int i = 0; i < 16; i++)
		printf("%02x", p[i]);
	return 0;
}

TEST(auxv_random_differs)
{
	char *argv[] = { "x", "--helper", "random", NULL }, a[64], b[64];

	CHECK_EQ(run_argv(conform_self, argv, NULL, a, sizeof(a)), 0);
	CHECK_EQ(run_argv(conform_self, argv, NULL, b, sizeof(b)), 0);
	CHECK_EQ(strlen(a), 32);
	CHECK(strcmp(a, b));
}

HELPER(stack_alignment)
{
	/*
	 * environ points behind argv, so argc stands argc + 2 words before it: where the stack
	 * pointer was at the entry. "PROGRAM --helper" is not in this argc.
	 */
	long *sp = (long *)conform_environ - (argc + 2) - 2;

	return *sp == argc + 2 && !((uintptr_t)sp & 15) ? 0 : 1;
}

TEST(initial_stack_is_aligned)
{
	for (int n = 0; n < 4; n++) {
		char *argv[] = { "x", "--helper", "stack_alignment", "1", "2", "3", "4", NULL };
		char out[8];

		argv[3 + n] = NULL;
		CHECK_EQ(run_argv(conform_self, argv, NULL, out, sizeof(out)), 0);
	}
}

HELPER(fds)
{
	for (int i = 1; i < argc; i++)
		printf("%d", fcntl(atoi(argv[i]), F_GETFD) >= 0);
	return 0;
}

TEST(close_on_exec)
{
	char a[8], b[8], c[8], out[64];
	char *argv[] = { "x", "--helper", "fds", a, b, c, NULL };
	int f1 = CHECK_OK(open("/dev/null", O_RDONLY));
	int f2 = CHECK_OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
	int f3 = CHECK_OK(open("/dev/null", O_RDONLY));

	CHECK_OK(fcntl(f3, F_SETFD, FD_CLOEXEC));
	snprintf(a, 8, "%d", f1);
	snprintf(b, 8, "%d", f2);
	snprintf(c, 8, "%d", f3);
	CHECK_EQ(run_argv(conform_self, argv, NULL, out, sizeof(out)), 0);
	CHECK_STR(out, "100");
	CHECK_OK(fcntl(f2, F_GETFD));
}

TEST(failed_exec_keeps_descriptors_and_memory)
{
	int fd = CHECK_OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
	char *argv[] = { "x", NULL };

	CHECK_ERRNO(execve("missing", argv, conform_environ), ENOENT);
	CHECK_OK(fcntl(fd, F_GETFD));
	CHECK_STR(argv[0], "x");
}

static void ignore_signal(int sig UNUSED)
{
}

HELPER(signals)
{
	struct sigaction sa;
	sigset_t set, pending;
	stack_t ss;

	sigaction(SIGUSR1, NULL, &sa);
	printf("%d", sa.sa_handler == SIG_DFL);
	sigaction(SIGUSR2, NULL, &sa);
	printf("%d", sa.sa_handler == SIG_IGN);
	sigprocmask(SIG_BLOCK, NULL, &set);
	printf("%d%d", sigismember(&set, SIGHUP), sigismember(&set, SIGTERM));
	sigpending(&pending);
	printf("%d", sigismember(&pending, SIGHUP));
	sigaltstack(NULL, &ss);
	printf("%d", ss.ss_flags == SS_DISABLE);
	return 0;
}

TEST(signal_state_across_exec)
{
	char *argv[] = { "x", "--helper", "signals", NULL }, out[64];
	stack_t ss = { .ss_sp = malloc(65536), .ss_size = 65536 };
	int fd[2], n;

	CHECK_OK(pipe(fd));
	pid_t pid = FORK();

	if (!pid) {
		CHECK_OK(dup2(fd[1], 1));
		on_signal(SIGUSR1, ignore_signal);
		signal(SIGUSR2, SIG_IGN);
		BLOCK(SIGHUP);
		CHECK_OK(raise(SIGHUP));
		CHECK_OK(sigaltstack(&ss, NULL));
		execve(conform_self, argv, conform_environ);
		_exit(1);
	}
	JOIN(pid);
	n = CHECK_OK(read(fd[0], out, sizeof(out) - 1));
	out[n] = 0;
	CHECK_STR(out, "111011");
}

HELPER(ids)
{
	printf("%d %d %d %o", getppid() == atoi(argv[1]), getpgrp() == atoi(argv[2]),
	       getpid() == atoi(argv[3]), umask(0));
	return 0;
}

TEST(identity_survives)
{
	char ppid[16], pgrp[16], self[16], out[64];
	char *argv[] = { "x", "--helper", "ids", ppid, pgrp, self, NULL };
	int fd[2], n;
	pid_t pid;

	CHECK_OK(pipe(fd));
	snprintf(ppid, 16, "%d", getpid());
	snprintf(pgrp, 16, "%d", getpgrp());
	umask(031);
	pid = FORK();
	if (!pid) {
		CHECK_OK(dup2(fd[1], 1));
		snprintf(self, 16, "%d", getpid());
		execve(conform_self, argv, conform_environ);
		_exit(1);
	}
	JOIN(pid);
	n = CHECK_OK(read(fd[0], out, sizeof(out) - 1));
	out[n] = 0;
	CHECK_STR(out, "1 1 1 31");
}

HELPER(alarm)
{
	printf("%d", alarm(0) > 0);
	return 0;
}

TEST(alarm_survives)
{
	char *argv[] = { "x", "--helper", "alarm", NULL }, out[8];
	int fd[2], n;
	pid_t pid;

	CHECK_OK(pipe(fd));
	pid = FORK();
	if (!pid) {
		alarm(100);
		CHECK_OK(dup2(fd[1], 1));
		execve(conform_self, argv, conform_environ);
		_exit(1);
	}
	JOIN(pid);
	n = CHECK_OK(read(fd[0], out, sizeof(out) - 1));
	out[n] = 0;
	CHECK_STR(out, "1");
}

HELPER(comm)
{
	char buf[64];

	get_file("/proc/self/comm", buf, sizeof(buf));
	fputs(buf, stdout);
	return 0;
}

TEST(comm_is_the_file_name)
{
	char *argv[] = { "whatever", "--helper", "comm", NULL }, out[64];

	CHECK_OK(symlink(conform_self, "a-name-of-twenty-chars"));
	CHECK_EQ(run_argv("./a-name-of-twenty-chars", argv, NULL, out, sizeof(out)), 0);
	CHECK_STR(out, "a-name-of-twent\n");
}

TEST(bad_pointers)
{
	char *bad[] = { (char *)8, NULL };

	CHECK_ERRNO(syscall(SYS_execve, 8L, NULL, NULL), EFAULT);
	CHECK_ERRNO(syscall(SYS_execve, conform_self, 8L, NULL), EFAULT);
	CHECK_ERRNO(syscall(SYS_execve, conform_self, bad, NULL), EFAULT);
}

TEST(null_argv_and_envp_are_accepted)
{
	CHECK_ERRNO(syscall(SYS_execve, "missing", NULL, NULL), ENOENT);
}

TEST(execveat_relative)
{
	char *argv[] = { "x", "--helper", "count", "1", "2", NULL };
	char script[PATH_MAX + 64];
	int dir, fd;
	pid_t pid;

	snprintf(script, sizeof(script), "%s", conform_self);
	*strrchr(script, '/') = 0;
	dir = CHECK_OK(open(script, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	fd = CHECK_OK(open(conform_self, O_RDONLY | O_CLOEXEC));
	pid = FORK();
	if (!pid) {
		dup2(CHECK_OK(open("/dev/null", O_WRONLY)), 1);
		syscall(SYS_execveat, dir, strrchr(conform_self, '/') + 1, argv,
			conform_environ, 0);
		_exit(9);
	}
	JOIN(pid);
	pid = FORK();
	if (!pid) {
		dup2(CHECK_OK(open("/dev/null", O_WRONLY)), 1);
		syscall(SYS_execveat, fd, "", argv, conform_environ, AT_EMPTY_PATH);
		_exit(9);
	}
	JOIN(pid);
}

TEST(execveat_errors)
{
	char *argv[] = { "x", NULL };
	int dir = CHECK_OK(open(".", O_PATH));

	CHECK_OK(symlink(conform_self, "link"));
	CHECK_ERRNO(syscall(SYS_execveat, dir, "link", argv, NULL, AT_SYMLINK_NOFOLLOW), ELOOP);
	CHECK_ERRNO(syscall(SYS_execveat, dir, "missing", argv, NULL, 0), ENOENT);
	CHECK_ERRNO(syscall(SYS_execveat, dir, "", argv, NULL, 0), ENOENT);
	CHECK_ERRNO(syscall(SYS_execveat, 190, "x", argv, NULL, 0), EBADF);
	CHECK_ERRNO(syscall(SYS_execveat, dir, "link", argv, NULL, 0x10), EINVAL);
}

TEST(fexecve_of_memfd)
{
	char *argv[] = { "x", "--helper", "count", NULL }, buf[65536];
	int mem = CHECK_OK(memfd_create("program", MFD_CLOEXEC));
	int in = CHECK_OK(open(conform_self, O_RDONLY)), n;
	pid_t pid;

	while ((n = CHECK_OK(read(in, buf, sizeof(buf)))) > 0)
		CHECK_EQ(write(mem, buf, n), n);
	pid = FORK();
	if (!pid) {
		dup2(CHECK_OK(open("/dev/null", O_WRONLY)), 1);
		fexecve(mem, argv, conform_environ);
		_exit(errno);
	}
	JOIN(pid);
}

TEST(text_busy)
{
	char buf[65536];
	int in = CHECK_OK(open(conform_self, O_RDONLY)), out, n;

	out = CHECK_OK(open("copy", O_WRONLY | O_CREAT, 0755));
	while ((n = CHECK_OK(read(in, buf, sizeof(buf)))) > 0)
		CHECK_EQ(write(out, buf, n), n);
	CHECK_EQ(exec_error("./copy"), ETXTBSY);
	CHECK_OK(close(out));
}

static void *exec_thread(void *arg)
{
	char *argv[] = { "x", "--helper", "exec_in_thread", arg, NULL };

	execve(conform_self, argv, conform_environ);
	_exit(1);
}

HELPER(exec_in_thread)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int tasks = 0;

	while (d && (e = readdir(d)))
		tasks += e->d_name[0] != '.';
	/* Still the process it was, and alone. */
	return getpid() == atoi(argv[1]) && (int)syscall(SYS_gettid) == getpid() && tasks == 1
		       ? 17 : 1;
}

static void *endless(void *arg UNUSED)
{
	for (;;)
		pause();
	return NULL;
}

TEST(exec_from_a_thread)
{
	pid_t pid = FORK();

	if (!pid) {
		char self[16];
		pthread_t t;

		snprintf(self, sizeof(self), "%d", getpid());
		for (int i = 0; i < 4; i++)
			CHECK_ZERO(pthread_create(&t, NULL, endless, NULL));
		CHECK_ZERO(pthread_create(&t, NULL, exec_thread, self));
		for (;;)
			pause();
	}
	CHECK_EXIT(pid, 17);
}

TEST(exec_kills_other_threads)
{
	pid_t pid = FORK();

	if (!pid) {
		char self[16];
		pthread_t t;

		snprintf(self, sizeof(self), "%d", getpid());
		for (int i = 0; i < 4; i++)
			CHECK_ZERO(pthread_create(&t, NULL, endless, NULL));
		exec_thread(self);
	}
	CHECK_EXIT(pid, 17);
}

HELPER(rlimit)
{
	struct rlimit rl;

	getrlimit(RLIMIT_NOFILE, &rl);
	return rl.rlim_cur;
}

TEST(rlimits_survive)
{
	struct rlimit rl = { 77, 88 };
	char *argv[] = { "x", "--helper", "rlimit", NULL };
	pid_t pid = FORK();

	if (!pid) {
		CHECK_OK(setrlimit(RLIMIT_NOFILE, &rl));
		execve(conform_self, argv, conform_environ);
		_exit(1);
	}
	CHECK_EXIT(pid, 77);
}

HELPER(secure)
{
	printf("%d %d %d %d", (int)getauxval(AT_SECURE), getuid(), geteuid(), getegid());
	return 0;
}

/* A world-executable copy of this program in the current directory. */
static void copy_self(const char *name)
{
	char buf[65536];
	int in = CHECK_OK(open(conform_self, O_RDONLY)), out, n;

	out = CHECK_OK(open(name, O_WRONLY | O_CREAT, 0755));
	while ((n = CHECK_OK(read(in, buf, sizeof(buf)))) > 0)
		CHECK_EQ(write(out, buf, n), n);
	CHECK_OK(close(out));
	CHECK_OK(close(in));
}

TEST(setuid_bit)
{
	char *argv[] = { "x", "--helper", "secure", NULL }, out[64];
	int fd[2], n;
	pid_t pid;

	NEED_ROOT();
	CHECK_OK(pipe(fd));
	copy_self("suid");
	CHECK_OK(chown("suid", 1234, 4321));
	CHECK_OK(chmod("suid", 06755));
	pid = FORK();
	if (!pid) {
		CHECK_OK(dup2(fd[1], 1));
		BECOME_NOBODY();
		execve("./suid", argv, conform_environ);
		_exit(1);
	}
	JOIN(pid);
	n = CHECK_OK(read(fd[0], out, sizeof(out) - 1));
	out[n] = 0;
	CHECK_STR(out, "1 65534 1234 4321");
}

TEST(setuid_bit_with_no_new_privs)
{
	char *argv[] = { "x", "--helper", "secure", NULL }, out[64];
	int fd[2], n;
	pid_t pid;

	NEED_ROOT();
	CHECK_OK(pipe(fd));
	copy_self("suid");
	CHECK_OK(chown("suid", 1234, 4321));
	CHECK_OK(chmod("suid", 06755));
	pid = FORK();
	if (!pid) {
		CHECK_OK(dup2(fd[1], 1));
		BECOME_NOBODY();
		CHECK_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
		execve("./suid", argv, conform_environ);
		_exit(1);
	}
	JOIN(pid);
	n = CHECK_OK(read(fd[0], out, sizeof(out) - 1));
	out[n] = 0;
	CHECK_STR(out, "0 65534 65534 65534");
}

TEST(setuid_bit_on_script_is_ignored)
{
	char script[PATH_MAX + 64], out[64];
	char *argv[] = { "x", NULL };
	int fd[2], n;
	pid_t pid;

	NEED_ROOT();
	CHECK_OK(pipe(fd));
	copy_self("prog");
	snprintf(script, sizeof(script), "#!%s/setuid_bit_on_script_is_ignored/prog --helper\n",
		 conform_base);
	put_script("secure", script);
	CHECK_OK(chown("secure", 1234, 4321));
	CHECK_OK(chmod("secure", 06755));
	pid = FORK();
	if (!pid) {
		CHECK_OK(dup2(fd[1], 1));
		BECOME_NOBODY();
		execve("secure", argv, conform_environ);
		_exit(1);
	}
	JOIN(pid);
	n = CHECK_OK(read(fd[0], out, sizeof(out) - 1));
	out[n] = 0;
	CHECK_STR(out, "0 65534 65534 65534");
}

HELPER(exe)
{
	char path[PATH_MAX];
	int n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	path[n > 0 ? n : 0] = 0;
	fputs(path, stdout);
	return 0;
}

TEST(proc_self_exe_of_script_is_interpreter)
{
	char script[PATH_MAX + 64], out[PATH_MAX];
	char *argv[] = { "x", NULL };

	snprintf(script, sizeof(script), "#!%s --helper\n", conform_self);
	put_script("exe", script);
	CHECK_EQ(run_argv("exe", argv, NULL, out, sizeof(out)), 0);
	CHECK_STR(out, conform_self);
}
