/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The harness of the conformance programs. One program per topic, many named behaviours in each:
 *
 *	TEST(open_excl_exists)
 *	{
 *		CHECK_OK(open("f", O_CREAT | O_EXCL, 0644));
 *		CHECK_ERRNO(open("f", O_CREAT | O_EXCL, 0644), EEXIST);
 *	}
 *
 * Every test runs in its own child, process group and empty working directory (under /tmp, removed
 * at the end), so that a crash, a hang or a leaked descriptor costs that one test. The child
 * reports a failed check as a message on a pipe; a check that fails in a grandchild or in a thread
 * arrives the same way. The parent is the watchdog: it kills the group of a test that takes too long.
 *
 * The output is one line per test, the same on every correct kernel:
 *	ok NAME | not ok NAME: where: what | skip NAME: reason
 * and a closing "# N passed, N failed, N skipped". The exit status is 0 when nothing failed.
 *
 * Usage: PROGRAM [--no-fork] [--list] [TEST...]
 * Environment: CONFORM_SECONDS (limit of one test, default 10; a program gets three times that),
 * CONFORM_TMP (where the private directory is made, default /tmp).
 *
 * HELPER(name) declares a function that the program runs instead of its tests when it is started as
 * "PROGRAM --helper name args...": what the exec tests execute.
 */
#ifndef TEST_CONFORM_H
#define TEST_CONFORM_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__GNUC__) && !defined(__clang__)
/* Wrong arguments are what many of the tests are about. */
#pragma GCC diagnostic ignored "-Wnonnull"
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#pragma GCC diagnostic ignored "-Wstringop-overread"
#endif

#define CONFORM_MAX_TESTS	256
#define CONFORM_REPORT_FD	210	/* out of the way of "lowest free fd" tests */
#define NOBODY			65534
#define PAGE			4096UL
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define UNUSED			__attribute__((unused))

struct conform_test {
	const char *name;
	void (*fn)(void);
};

struct conform_helper {
	const char *name;
	int (*fn)(int argc, char **argv);
};

static struct conform_test conform_tests[CONFORM_MAX_TESTS];
static int conform_ntests;
static struct conform_helper conform_helpers[32];
static int conform_nhelpers;
static int conform_report_fd = -1;	/* -1: report to stdout and exit (--no-fork) */
static volatile int *conform_line;	/* shared with the parent: the last check */
static char conform_self[PATH_MAX];	/* the absolute path of this program */
static char conform_base[PATH_MAX];	/* the private directory */
static volatile sig_atomic_t conform_expired;
static char **conform_environ;

static inline void conform_add_test(const char *name, void (*fn)(void))
{
	if (conform_ntests == CONFORM_MAX_TESTS)
		abort();
	conform_tests[conform_ntests++] = (struct conform_test){ name, fn };
}

static inline void conform_add_helper(const char *name, int (*fn)(int, char **))
{
	if (conform_nhelpers == (int)ARRAY_SIZE(conform_helpers))
		abort();
	conform_helpers[conform_nhelpers++] = (struct conform_helper){ name, fn };
}

#define TEST(id)                                                              \
	static void test_##id(void);                                          \
	__attribute__((constructor)) static void conform_register_##id(void)  \
	{                                                                     \
		conform_add_test(#id, test_##id);                             \
	}                                                                     \
	static void test_##id(void)

#define HELPER(id)                                                            \
	static int helper_##id(int argc UNUSED, char **argv UNUSED);          \
	__attribute__((constructor)) static void conform_helper_##id(void)    \
	{                                                                     \
		conform_add_helper(#id, helper_##id);                         \
	}                                                                     \
	static int helper_##id(int argc UNUSED, char **argv UNUSED)

/* Sends one report, 'F' (failed) or 'S' (skipped), and ends the calling process. */
__attribute__((noreturn, format(printf, 2, 3)))
static inline void conform_end(char kind, const char *fmt, ...)
{
	char buf[512];
	va_list ap;
	int n;

	buf[0] = kind;
	va_start(ap, fmt);
	n = vsnprintf(buf + 1, sizeof(buf) - 2, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(buf) - 3)
		n = sizeof(buf) - 3;
	for (int i = 1; i <= n; i++)
		if (buf[i] == '\n')
			buf[i] = ' ';
	buf[n + 1] = '\n';
	if (write(conform_report_fd >= 0 ? conform_report_fd : 1, buf, n + 2) < 0)
		_exit(2);
	_exit(kind == 'S' ? 77 : 1);
}

static inline const char *conform_file(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

#define FAIL(fmt, ...) \
	conform_end('F', "%s:%d: " fmt, conform_file(__FILE__), __LINE__, ##__VA_ARGS__)

/* Only in the test's own process: what the machine below cannot offer. */
#define SKIP(reason) conform_end('S', "%s", reason)

#define CONFORM_HERE() (*conform_line = __LINE__)

#define CHECK(cond)                                                           \
	do {                                                                  \
		CONFORM_HERE();                                               \
		if (!(cond))                                                  \
			FAIL("%s (errno %d)", #cond, errno);                  \
	} while (0)

__attribute__((format(printf, 3, 4), noreturn))
static inline void conform_fail(const char *file, int line, const char *fmt, ...)
{
	char buf[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	conform_end('F', "%s:%d: %s", conform_file(file), line, buf);
}

static inline const char *errno_name(int err)
{
	const char *s = strerrorname_np(err);

	return err == 0 ? "no errno" : s ? s : "unknown errno";
}

static inline void conform_check_eq(long long a, long long b, const char *as, const char *bs,
				    const char *file, int line)
{
	if (a != b)
		conform_fail(file, line, "%s == %s: %lld (0x%llx) != %lld (errno %s)", as, bs, a,
			     (unsigned long long)a, b, errno_name(errno));
}

static inline void conform_check_str(const char *a, const char *b, const char *as, const char *bs,
				     const char *file, int line)
{
	if (strcmp(a, b))
		conform_fail(file, line, "%s == %s: \"%s\" != \"%s\"", as, bs, a, b);
}

static inline long conform_check_ok(long v, const char *expr, const char *file, int line)
{
	if (v == -1)
		conform_fail(file, line, "%s: %s", expr, errno_name(errno));
	return v;
}

static inline void conform_check_errno(long v, int want, const char *expr, const char *file,
				       int line)
{
	int err = errno;

	if (v != -1)
		conform_fail(file, line, "%s: returned %ld, expected %s", expr, v,
			     errno_name(want));
	if (err != want)
		conform_fail(file, line, "%s: %s, expected %s", expr, errno_name(err),
			     errno_name(want));
}

static inline void conform_check_zero(long v, const char *expr, const char *file, int line)
{
	if (v)
		conform_fail(file, line, "%s: %ld", expr, v);
}

/* Both sides are integers; the values are in the message. */
#define CHECK_EQ(a, b)                                                        \
	(CONFORM_HERE(), conform_check_eq((long long)(a), (long long)(b), #a, #b, __FILE__, \
					  __LINE__))

#define CHECK_STR(a, b) \
	(CONFORM_HERE(), conform_check_str((a), (b), #a, #b, __FILE__, __LINE__))

/* The value of a call that must not return -1. */
#define CHECK_OK(expr) \
	(CONFORM_HERE(), conform_check_ok((long)(expr), #expr, __FILE__, __LINE__))

/* A call that must fail with -1 and this errno. */
#define CHECK_ERRNO(expr, err)                                                \
	(CONFORM_HERE(), errno = 0,                                           \
	 conform_check_errno((long)(expr), (err), #expr, __FILE__, __LINE__))

/* For calls that return an error number (pthread_*, posix_*). */
#define CHECK_ZERO(expr) \
	(CONFORM_HERE(), conform_check_zero((long)(expr), #expr, __FILE__, __LINE__))

#define NEED_ROOT()                                                           \
	do {                                                                  \
		if (geteuid() != 0)                                           \
			SKIP("needs root");                                   \
	} while (0)

/* The child of a test is an ordinary process; it ends with _exit(0). */
#define FORK()                                                                \
	({                                                                    \
		CONFORM_HERE();                                               \
		pid_t p_ = fork();                                            \
		if (p_ < 0)                                                   \
			FAIL("fork: %s", errno_name(errno));             \
		p_;                                                           \
	})

/* Waits for a child; the value is the wait status. */
#define REAP(pid)                                                             \
	({                                                                    \
		CONFORM_HERE();                                               \
		int s_ = 0;                                                   \
		pid_t want_ = (pid), got_;                                    \
		do                                                            \
			got_ = waitpid(want_, &s_, 0);                        \
		while (got_ < 0 && errno == EINTR);                           \
		if (got_ != want_)                                            \
			FAIL("waitpid(%s): %s", #pid, errno_name(errno)); \
		s_;                                                           \
	})

#define CHECK_EXIT(pid, code)                                                 \
	do {                                                                  \
		int st_ = REAP(pid);                                          \
		if (!WIFEXITED(st_) || WEXITSTATUS(st_) != (code))            \
			FAIL("%s: wait status 0x%x, expected exit %d", #pid,  \
			     st_, (code));                                    \
	} while (0)

#define CHECK_SIGNALED(pid, sig)                                              \
	do {                                                                  \
		int st_ = REAP(pid);                                          \
		if (!WIFSIGNALED(st_) || WTERMSIG(st_) != (sig))              \
			FAIL("%s: wait status 0x%x, expected signal %d", #pid, \
			     st_, (sig));                                     \
	} while (0)

#define JOIN(pid) CHECK_EXIT(pid, 0)

/* A one-way starting gun between processes or threads. */
struct gate {
	int fd[2];
};

#define GATE_INIT(g) CHECK_OK(pipe2((g)->fd, O_CLOEXEC))
#define GATE_OPEN(g) CHECK_EQ(write((g)->fd[1], "x", 1), 1)
#define GATE_WAIT(g)                                                          \
	do {                                                                  \
		char c_;                                                      \
		CHECK_EQ(TEMP_FAILURE_RETRY(read((g)->fd[0], &c_, 1)), 1);    \
	} while (0)

static inline void msleep(int ms)
{
	struct timespec ts = { ms / 1000, (ms % 1000) * 1000000L };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static inline int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* A moment of CPU time without system calls. */
static inline void burn(void)
{
	for (volatile int i = 0; i < 200000; i++)
		;
}

/* Waits (up to five seconds) for a condition that another task makes true. */
#define EVENTUALLY(cond)                                                      \
	do {                                                                  \
		int tries_ = 0;                                               \
		CONFORM_HERE();                                               \
		while (!(cond)) {                                             \
			if (++tries_ > 1000)                                  \
				FAIL("never became true: %s", #cond);         \
			msleep(5);                                            \
		}                                                             \
	} while (0)

/* Gives up root in this process: real, effective and saved ids and the group list. */
#define BECOME_NOBODY()                                                       \
	do {                                                                  \
		CHECK_OK(setgroups(0, NULL));                                 \
		CHECK_OK(setresgid(NOBODY, NOBODY, NOBODY));                  \
		CHECK_OK(setresuid(NOBODY, NOBODY, NOBODY));                  \
	} while (0)

/* Makes (or replaces) a file with these contents. */
#define PUT_FILE(path, text)                                                  \
	do {                                                                  \
		const char *t_ = (text);                                      \
		int f_ = CHECK_OK(open((path), O_CREAT | O_TRUNC | O_WRONLY, 0644)); \
		CHECK_EQ(write(f_, t_, strlen(t_)), strlen(t_));              \
		CHECK_OK(close(f_));                                          \
	} while (0)

/* Reads a whole (small) file as a string; the length or -1. */
static inline int get_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t r;

	if (fd < 0)
		return -1;
	while (n < size - 1) {
		r = read(fd, buf + n, size - 1 - n);
		if (r < 0) {
			close(fd);
			return -1;
		}
		if (r == 0)
			break;
		n += r;
	}
	buf[n] = 0;
	close(fd);
	return n;
}

#define CHECK_FILE(path, text)                                                \
	do {                                                                  \
		char b_[4096];                                                \
		CHECK(get_file((path), b_, sizeof(b_)) >= 0);                 \
		CHECK_STR(b_, (text));                                        \
	} while (0)

/* An empty signal set and a handler installed the plain way. */
static inline void on_signal_flags(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = fn;
	sa.sa_flags = flags;
	if (sigaction(sig, &sa, NULL) < 0)
		FAIL("sigaction(%d): %s", sig, errno_name(errno));
}

static inline void on_signal(int sig, void (*fn)(int))
{
	on_signal_flags(sig, fn, 0);
}

static inline void on_siginfo(int sig, void (*fn)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = fn;
	sa.sa_flags = flags | SA_SIGINFO;
	if (sigaction(sig, &sa, NULL) < 0)
		FAIL("sigaction(%d): %s", sig, errno_name(errno));
}

static inline sigset_t sigset_of(int sig)
{
	sigset_t s;

	sigemptyset(&s);
	sigaddset(&s, sig);
	return s;
}

#define BLOCK(sig)                                                            \
	do {                                                                  \
		sigset_t set_ = sigset_of(sig);                               \
		CHECK_OK(sigprocmask(SIG_BLOCK, &set_, NULL));                \
	} while (0)

#define UNBLOCK(sig)                                                          \
	do {                                                                  \
		sigset_t set_ = sigset_of(sig);                               \
		CHECK_OK(sigprocmask(SIG_UNBLOCK, &set_, NULL));              \
	} while (0)

/* Repeats SIGALRM every 20 ms: whatever blocks is interrupted in the end, however slow we are. */
#define TICK_START()                                                          \
	do {                                                                  \
		struct itimerval it_ = { { 0, 20000 }, { 0, 20000 } };        \
		CHECK_OK(setitimer(ITIMER_REAL, &it_, NULL));                 \
	} while (0)

#define TICK_STOP()                                                           \
	do {                                                                  \
		struct itimerval it_ = { { 0, 0 }, { 0, 0 } };                \
		CHECK_OK(setitimer(ITIMER_REAL, &it_, NULL));                 \
	} while (0)

/* Removes a tree without following links or leaving its filesystem. */
static inline void conform_remove(int dirfd, const char *name, int depth)
{
	int fd;
	DIR *dir;
	struct dirent *d;

	if (unlinkat(dirfd, name, 0) == 0 || depth > 64)
		return;
	if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0)
		return;
	fchmodat(dirfd, name, 0700, 0);
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return;
	}
	while ((d = readdir(dir)))
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
			conform_remove(fd, d->d_name, depth + 1);
	closedir(dir);
	unlinkat(dirfd, name, AT_REMOVEDIR);
}

static void conform_on_alarm(int sig UNUSED)
{
	conform_expired = 1;
}

/* In the test's child: the state every test may rely on. */
static inline void conform_child(const struct conform_test *t, int fd)
{
	conform_report_fd = fd;
	signal(SIGALRM, SIG_DFL);
	setpgid(0, 0);
	if (chdir(conform_base) || mkdir(t->name, 0755) || chdir(t->name))
		FAIL("cannot make the test's directory: %s", errno_name(errno));
	*conform_line = 0;
	t->fn();
	_exit(0);
}

__attribute__((format(printf, 1, 2)))
static inline void conform_print(const char *fmt, ...)
{
	char buf[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(buf))
		n = sizeof(buf);
	if (write(1, buf, n) != n)
		_exit(2);
}

/* Runs one test; 0 passed, 1 failed, 2 skipped. */
static inline int conform_run(const struct conform_test *t, int seconds)
{
	struct sigaction sa;
	char msg[513];
	int fd[2], status = 0, n;
	bool hung = false;
	pid_t pid, got;

	if (pipe2(fd, O_CLOEXEC | O_NONBLOCK) < 0) {
		conform_print("not ok %s: harness: pipe: %s\n", t->name, errno_name(errno));
		return 1;
	}
	if (fcntl(fd[1], F_DUPFD_CLOEXEC, CONFORM_REPORT_FD) == CONFORM_REPORT_FD) {
		close(fd[1]);
		fd[1] = CONFORM_REPORT_FD;
	}
	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = conform_on_alarm;
	sigaction(SIGALRM, &sa, NULL);
	pid = fork();
	if (pid < 0) {
		conform_print("not ok %s: harness: fork: %s\n", t->name, errno_name(errno));
		return 1;
	}
	if (pid == 0) {
		close(fd[0]);
		conform_child(t, fd[1]);
	}
	close(fd[1]);
	conform_expired = 0;
	alarm(seconds);
	for (;;) {
		got = waitpid(pid, &status, 0);
		if (got == pid)
			break;
		if (got < 0 && errno != EINTR) {
			status = 0x7f00;
			break;
		}
		if (conform_expired) {
			hung = true;
			conform_expired = 0;
			kill(-pid, SIGKILL);
			kill(pid, SIGKILL);
		}
	}
	alarm(0);
	kill(-pid, SIGKILL);
	while (waitpid(-1, NULL, WNOHANG) > 0)	/* orphans, when this is the sandbox's init */
		;
	n = read(fd[0], msg, sizeof(msg) - 1);
	close(fd[0]);
	msg[n > 0 ? n : 0] = 0;
	msg[strcspn(msg, "\n")] = 0;	/* the first report is the cause of the others */
	if (n > 0 && msg[0] == 'S' && WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		conform_print("skip %s: %s\n", t->name, msg + 1);
		return 2;
	}
	if (n > 0)
		conform_print("not ok %s: %s\n", t->name, msg + 1);
	else if (hung)
		conform_print("not ok %s: timed out after line %d\n", t->name, *conform_line);
	else if (WIFSIGNALED(status))
		conform_print("not ok %s: killed by signal %d after line %d\n", t->name,
			      WTERMSIG(status), *conform_line);
	else if (WEXITSTATUS(status))
		conform_print("not ok %s: exit status %d after line %d\n", t->name,
			      WEXITSTATUS(status), *conform_line);
	else {
		conform_print("ok %s\n", t->name);
		return 0;
	}
	return 1;
}

/* Defaults whatever started us changed: signals, mask, umask, descriptors. */
static inline void conform_normalize(void)
{
	/* Raw: libc's posix_spawn leaves 32 and 33 ignored, and its signal(3) refuses them. */
	static const uint64_t by_default[4];
	struct rlimit rl = { 0, 0 };
	sigset_t none;
	int fd;

	for (int sig = 1; sig <= 64; sig++)
		syscall(SYS_rt_sigaction, sig, by_default, NULL, 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
	setrlimit(RLIMIT_CORE, &rl);
	fd = open("/dev/null", O_RDONLY);
	if (fd >= 0) {
		dup2(fd, 0);
		if (fd > 2)
			close(fd);
	}
	syscall(SYS_close_range, 3, ~0U, 0);
}

static inline bool conform_wanted(const char *name, int argc, char **argv)
{
	bool any = false;

	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == '-')
			continue;
		any = true;
		if (!strcmp(argv[i], name))
			return true;
	}
	return !any;
}

int main(int argc, char **argv, char **envp)
{
	int counts[3] = { 0, 0, 0 };
	const char *env = getenv("CONFORM_SECONDS"), *tmp = getenv("CONFORM_TMP");
	int seconds = env && atoi(env) > 0 ? atoi(env) : 10;
	static int fallback_line;
	bool no_fork = false;
	int64_t deadline;
	ssize_t n;

	conform_environ = envp;
	conform_line = &fallback_line;
	if (argc > 2 && !strcmp(argv[1], "--helper")) {
		for (int i = 0; i < conform_nhelpers; i++)
			if (!strcmp(conform_helpers[i].name, argv[2]))
				return conform_helpers[i].fn(argc - 2, argv + 2);
		return 99;
	}
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--no-fork"))
			no_fork = true;
		if (!strcmp(argv[i], "--list")) {
			for (int j = 0; j < conform_ntests; j++)
				puts(conform_tests[j].name);
			return 0;
		}
	}
	conform_normalize();
	n = readlink("/proc/self/exe", conform_self, sizeof(conform_self) - 1);
	if (n <= 0 && !realpath(argv[0], conform_self))
		snprintf(conform_self, sizeof(conform_self), "%s", argv[0]);
	snprintf(conform_base, sizeof(conform_base), "%s/conform-%s-XXXXXX", tmp ? tmp : "/tmp",
		 conform_file(argv[0]));
	if (!mkdtemp(conform_base) || chmod(conform_base, 0755)) {
		conform_print("not ok %s: harness: mkdtemp: %s\n", conform_file(argv[0]),
			      errno_name(errno));
		return 1;
	}
	conform_line = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (conform_line == MAP_FAILED)
		conform_line = &fallback_line;
	deadline = now_ms() + seconds * 3000LL;
	for (int i = 0; i < conform_ntests; i++) {
		const struct conform_test *t = &conform_tests[i];

		if (!conform_wanted(t->name, argc, argv))
			continue;
		if (no_fork) {
			if (chdir(conform_base) || mkdir(t->name, 0755) || chdir(t->name))
				return 1;
			t->fn();
			conform_print("ok %s\n", t->name);
			counts[0]++;
		} else if (now_ms() > deadline) {
			conform_print("not ok %s: the program ran out of time\n", t->name);
			counts[1]++;
		} else {
			counts[conform_run(t, seconds)]++;
		}
	}
	if (chdir("/") == 0)
		conform_remove(AT_FDCWD, conform_base, 0);
	conform_print("# %d passed, %d failed, %d skipped\n", counts[0], counts[1], counts[2]);
	return counts[1] ? 1 : 0;
}

#endif
