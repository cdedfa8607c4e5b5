/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits, prctl, priorities, scheduling parameters, personality, host names. */
#include <pthread.h>
#include <sys/personality.h>
#include <sys/utsname.h>

#include "test/conform/conform.h"

TEST(rlimit_get_set)
{
	struct rlimit rl = { 50, 60 }, got;

	CHECK_OK(setrlimit(RLIMIT_NOFILE, &rl));
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &got));
	CHECK_EQ(got.rlim_cur, 50);
	CHECK_EQ(got.rlim_max, 60);
}

TEST(rlimit_errors)
{
	struct rlimit rl = { 60, 50 };

	CHECK_ERRNO(setrlimit(RLIMIT_NOFILE, &rl), EINVAL);
	CHECK_ERRNO(getrlimit(99, &rl), EINVAL);
	CHECK_ERRNO(syscall(SYS_getrlimit, RLIMIT_NOFILE, 8L), EFAULT);
}

TEST(rlimit_raise_needs_privilege)
{
	struct rlimit rl = { 50, 60 };
	pid_t pid;

	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		CHECK_OK(setrlimit(RLIMIT_NOFILE, &rl));
		BECOME_NOBODY();
		rl.rlim_cur = 60;
		CHECK_OK(setrlimit(RLIMIT_NOFILE, &rl));
		rl.rlim_max = 61;
		CHECK_ERRNO(setrlimit(RLIMIT_NOFILE, &rl), EPERM);
		rl.rlim_max = 60;
		rl.rlim_cur = 61;
		CHECK_ERRNO(setrlimit(RLIMIT_NOFILE, &rl), EINVAL);
		_exit(0);
	}
	JOIN(pid);
}

TEST(rlimit_inherited_by_fork)
{
	struct rlimit rl = { 44, 55 };
	pid_t pid;

	CHECK_OK(setrlimit(RLIMIT_NOFILE, &rl));
	pid = FORK();
	if (!pid) {
		CHECK_OK(getrlimit(RLIMIT_NOFILE, &rl));
		CHECK_EQ(rl.rlim_cur, 44);
		rl.rlim_cur = 33;
		CHECK_OK(setrlimit(RLIMIT_NOFILE, &rl));
		_exit(0);
	}
	JOIN(pid);
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &rl));
	CHECK_EQ(rl.rlim_cur, 44);
}

TEST(prlimit_of_child)
{
	struct rlimit rl = { 20, 30 }, old;
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		GATE_WAIT(&g);
		CHECK_OK(getrlimit(RLIMIT_NOFILE, &rl));
		_exit(rl.rlim_cur == 20 && rl.rlim_max == 30 ? 0 : 1);
	}
	CHECK_OK(prlimit(pid, RLIMIT_NOFILE, &rl, &old));
	CHECK(old.rlim_cur > 30);
	GATE_OPEN(&g);
	JOIN(pid);
	CHECK_ERRNO(prlimit(pid, RLIMIT_NOFILE, NULL, &old), ESRCH);
}

TEST(nofile_stops_open)
{
	struct rlimit rl = { 6, 6 };
	int fd = -1, prev = -1;

	CHECK_OK(setrlimit(RLIMIT_NOFILE, &rl));
	while ((fd = open("/dev/null", O_RDONLY)) >= 0)
		prev = fd;
	CHECK_EQ(errno, EMFILE);
	CHECK_EQ(prev, 5);
	CHECK_ERRNO(dup(0), EMFILE);
	CHECK_ERRNO(dup2(0, 6), EBADF);
	CHECK_ERRNO(fcntl(0, F_DUPFD, 6), EINVAL);
	CHECK_ERRNO(pipe((int[2]){ 0 }), EMFILE);
}

TEST(fsize_signal_and_efbig)
{
	struct rlimit rl = { 8, 8 };
	int fd = CHECK_OK(open("f", O_WRONLY | O_CREAT, 0644));
	pid_t pid;

	CHECK_OK(setrlimit(RLIMIT_FSIZE, &rl));
	pid = FORK();
	if (!pid) {
		signal(SIGXFSZ, SIG_IGN);
		CHECK_EQ(write(fd, "123456789012", 12), 8);
		CHECK_ERRNO(write(fd, "x", 1), EFBIG);
		CHECK_ERRNO(ftruncate(fd, 9), EFBIG);
		CHECK_OK(ftruncate(fd, 3));
		_exit(0);
	}
	JOIN(pid);
	pid = FORK();
	if (!pid) {
		CHECK_OK(lseek(fd, 8, SEEK_SET));
		CHECK_OK(write(fd, "x", 1));
		_exit(0);
	}
	CHECK_SIGNALED(pid, SIGXFSZ);
}

TEST(nproc_stops_fork)
{
	pid_t pid;

	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		struct rlimit rl = { 1, 1 };
		pid_t sub;

		CHECK_OK(setrlimit(RLIMIT_NPROC, &rl));
		sub = FORK();	/* root is not counted */
		if (!sub)
			_exit(0);
		JOIN(sub);
		CHECK_OK(setresgid(61234, 61234, 61234));
		CHECK_OK(setresuid(61234, 61234, 61234));
		CHECK_ERRNO(fork(), EAGAIN);
		_exit(0);
	}
	JOIN(pid);
}

TEST(cpu_limit_kills)
{
	struct rlimit rl = { 1, 2 };
	pid_t pid = FORK();

	if (!pid) {
		CHECK_OK(setrlimit(RLIMIT_CPU, &rl));
		for (volatile long i = 0;; i++)
			;
	}
	CHECK_SIGNALED(pid, SIGXCPU);
}

TEST(sigpending_limit)
{
	struct rlimit rl = { 3, 3 };
	union sigval v = { 0 };
	pid_t pid;

	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		CHECK_OK(setrlimit(RLIMIT_SIGPENDING, &rl));
		CHECK_OK(setresuid(61235, 61235, 61235));
		BLOCK(SIGRTMIN);
		CHECK_OK(sigqueue(getpid(), SIGRTMIN, v));
		CHECK_OK(sigqueue(getpid(), SIGRTMIN, v));
		CHECK_OK(sigqueue(getpid(), SIGRTMIN, v));
		CHECK_ERRNO(sigqueue(getpid(), SIGRTMIN, v), EAGAIN);
		_exit(0);
	}
	JOIN(pid);
}

TEST(prctl_name)
{
	char name[16], buf[64];

	CHECK_OK(prctl(PR_SET_NAME, "exactly-fifteen-and-more"));
	CHECK_OK(prctl(PR_GET_NAME, name));
	CHECK_STR(name, "exactly-fifteen");
	CHECK(get_file("/proc/self/comm", buf, sizeof(buf)) > 0);
	CHECK_STR(buf, "exactly-fifteen\n");
	CHECK_ERRNO(prctl(PR_SET_NAME, 8L), EFAULT);
}

TEST(prctl_pdeathsig)
{
	int sig = -1;

	CHECK_OK(prctl(PR_GET_PDEATHSIG, &sig));
	CHECK_EQ(sig, 0);
	CHECK_OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
	CHECK_OK(prctl(PR_GET_PDEATHSIG, &sig));
	CHECK_EQ(sig, SIGUSR1);
	CHECK_ERRNO(prctl(PR_SET_PDEATHSIG, 99), EINVAL);
	if (!FORK()) {
		CHECK_OK(prctl(PR_GET_PDEATHSIG, &sig));
		CHECK_EQ(sig, 0);
		_exit(0);
	}
	CHECK_OK(wait(NULL));
}

TEST(prctl_dumpable)
{
	CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
	CHECK_OK(prctl(PR_SET_DUMPABLE, 0));
	CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
	CHECK_ERRNO(prctl(PR_SET_DUMPABLE, 5), EINVAL);
}

TEST(prctl_no_new_privs)
{
	pid_t pid;

	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	CHECK_ERRNO(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
	CHECK_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	pid = FORK();
	if (!pid)
		_exit(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 1);
	JOIN(pid);
}

TEST(prctl_timerslack)
{
	CHECK_EQ(prctl(PR_GET_TIMERSLACK), 50000);
	CHECK_OK(prctl(PR_SET_TIMERSLACK, 12345));
	CHECK_EQ(prctl(PR_GET_TIMERSLACK), 12345);
	CHECK_OK(prctl(PR_SET_TIMERSLACK, 0));
	CHECK_EQ(prctl(PR_GET_TIMERSLACK), 50000);
}

TEST(prctl_unknown)
{
	CHECK_ERRNO(prctl(0x7fff1234, 0, 0, 0, 0), EINVAL);
}

TEST(priority)
{
	CHECK_EQ(getpriority(PRIO_PROCESS, 0), 0);
	CHECK_OK(setpriority(PRIO_PROCESS, 0, 3));
	CHECK_EQ(getpriority(PRIO_PROCESS, getpid()), 3);
	CHECK_EQ(nice(2), 5);
	CHECK_OK(setpriority(PRIO_PROCESS, 0, 100));
	CHECK_EQ(getpriority(PRIO_PROCESS, 0), 19);
	CHECK_ERRNO(setpriority(99, 0, 0), EINVAL);
	CHECK_ERRNO(setpriority(PRIO_PROCESS, 0x3fffffff, 0), ESRCH);
	CHECK_EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), 1);
}

TEST(priority_inherited)
{
	pid_t pid;

	CHECK_OK(setpriority(PRIO_PROCESS, 0, 7));
	pid = FORK();
	if (!pid)
		_exit(getpriority(PRIO_PROCESS, 0) == 7 ? 0 : 1);
	JOIN(pid);
}

TEST(sched_policy)
{
	struct sched_param p = { 0 };

	CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
	CHECK_OK(sched_getparam(0, &p));
	CHECK_EQ(p.sched_priority, 0);
	CHECK_EQ(sched_get_priority_max(SCHED_FIFO), 99);
	CHECK_EQ(sched_get_priority_min(SCHED_FIFO), 1);
	CHECK_EQ(sched_get_priority_max(SCHED_OTHER), 0);
	CHECK_ERRNO(sched_get_priority_max(77), EINVAL);
	CHECK_ERRNO(sched_getscheduler(0x3fffffff), ESRCH);
	CHECK_ERRNO(sched_getscheduler(-1), EINVAL);
	p.sched_priority = 5;
	CHECK_ERRNO(sched_setscheduler(0, SCHED_OTHER, &p), EINVAL);
	p.sched_priority = 0;
	CHECK_OK(sched_setscheduler(0, SCHED_BATCH, &p));
	CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
}

TEST(sched_affinity)
{
	unsigned long mask[128];
	cpu_set_t set;
	long n;

	CHECK_OK(sched_getaffinity(0, sizeof(set), &set));
	CHECK(CPU_COUNT(&set) >= 1);
	n = CHECK_OK(syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask));
	CHECK(n > 0 && n % 8 == 0);
	CHECK_ERRNO(syscall(SYS_sched_getaffinity, 0, 7L, mask), EINVAL);
	CPU_ZERO(&set);
	CHECK_ERRNO(sched_setaffinity(0, sizeof(set), &set), EINVAL);
	CHECK_OK(sched_getaffinity(0, sizeof(set), &set));
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &set))
			continue;
		CPU_ZERO(&set);
		CPU_SET(i, &set);
		break;
	}
	CHECK_OK(sched_setaffinity(0, sizeof(set), &set));
	CHECK_OK(sched_getaffinity(0, sizeof(set), &set));
	CHECK_EQ(CPU_COUNT(&set), 1);
}

TEST(sched_yield_and_getcpu)
{
	unsigned int cpu = 9999, node = 9999;

	CHECK_OK(sched_yield());
	CHECK_OK(syscall(SYS_getcpu, &cpu, &node, NULL));
	CHECK(cpu < 4096 && node < 4096);
	CHECK(sched_getcpu() >= 0);
	CHECK_OK(syscall(SYS_getcpu, NULL, NULL, NULL));
}

TEST(personality_query)
{
	CHECK_EQ(personality(0xffffffff), PER_LINUX);
	CHECK_EQ(personality(ADDR_NO_RANDOMIZE), PER_LINUX);
	CHECK_EQ(personality(0xffffffff), ADDR_NO_RANDOMIZE);
}

TEST(uname_fields)
{
	struct utsname u;
	int major, minor;

	CHECK_OK(uname(&u));
	CHECK_STR(u.sysname, "Linux");
	CHECK_STR(u.machine, "x86_64");
	CHECK_EQ(sscanf(u.release, "%d.%d", &major, &minor), 2);
	CHECK(major >= 4);
	CHECK(u.version[0] && u.nodename[0]);
	CHECK_ERRNO(syscall(SYS_uname, 8L), EFAULT);
}

TEST(hostname_set)
{
	struct utsname u;
	char name[65], file[80];

	NEED_ROOT();
	if (unshare(CLONE_NEWUTS) < 0)
		SKIP("no UTS namespaces");
	CHECK_OK(sethostname("conform-host", 12));
	CHECK_OK(gethostname(name, sizeof(name)));
	CHECK_STR(name, "conform-host");
	CHECK_OK(setdomainname("conform-domain", 14));
	CHECK_OK(uname(&u));
	CHECK_STR(u.domainname, "conform-domain");
	CHECK(get_file("/proc/sys/kernel/hostname", file, sizeof(file)) > 0);
	CHECK_STR(file, "conform-host\n");
	CHECK_ERRNO(sethostname("x", 65), EINVAL);
	CHECK_ERRNO(syscall(SYS_sethostname, "x", -1L), EINVAL);
}

TEST(sysinfo_and_sysconf)
{
	CHECK_EQ(sysconf(_SC_CLK_TCK), 100);
	CHECK(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
	CHECK(sysconf(_SC_PHYS_PAGES) > 1000);
	CHECK(sysconf(_SC_OPEN_MAX) > 20);
	CHECK(sysconf(_SC_ARG_MAX) >= 131072);
}

static void *set_own_name(void *arg UNUSED)
{
	prctl(PR_SET_NAME, "the-thread");
	return NULL;
}

TEST(prctl_name_is_per_thread)
{
	char name[16];
	pthread_t t;

	CHECK_OK(prctl(PR_SET_NAME, "the-main"));
	CHECK_ZERO(pthread_create(&t, NULL, set_own_name, NULL));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_OK(prctl(PR_GET_NAME, name));
	CHECK_STR(name, "the-main");
}

TEST(ioprio)
{
	CHECK_OK(syscall(SYS_ioprio_get, 1, 0));
	CHECK_ERRNO(syscall(SYS_ioprio_get, 9, 0), EINVAL);
}
