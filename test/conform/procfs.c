/* SPDX-License-Identifier: Apache-2.0 */
/* /proc: the files of a process and of the system, in Linux's formats. */
#include <elf.h>
#include <pthread.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "test/conform/conform.h"

static char buf[65536];

static void slurp(const char *path)
{
	int n = get_file(path, buf, sizeof(buf));

	if (n < 0)
		FAIL("%s: %s", path, strerrorname_np(errno));
}

static void link_of(const char *path, char *out)
{
	int n = readlink(path, out, PATH_MAX - 1);

	if (n < 0)
		FAIL("%s: %s", path, strerrorname_np(errno));
	out[n] = 0;
}

/* The number behind "Key:" in the slurped file. */
static long field(const char *key)
{
	char *s = strstr(buf, key);

	if (!s)
		FAIL("no %s", key);
	return atol(s + strlen(key));
}

TEST(self_is_the_reader)
{
	char l[PATH_MAX], want[32];

	link_of("/proc/self", l);
	snprintf(want, sizeof(want), "%d", getpid());
	CHECK_STR(l, want);
	link_of("/proc/thread-self", l);
	snprintf(want, sizeof(want), "%d/task/%d", getpid(), (int)syscall(SYS_gettid));
	CHECK_STR(l, want);
}

TEST(self_exe_cwd_root)
{
	char l[PATH_MAX], cwd[PATH_MAX];

	link_of("/proc/self/exe", l);
	CHECK_STR(l, conform_self);
	CHECK(getcwd(cwd, sizeof(cwd)));
	link_of("/proc/self/cwd", l);
	CHECK_STR(l, cwd);
	link_of("/proc/self/root", l);
	CHECK_STR(l, "/");
	PUT_FILE("f", "via cwd");
	CHECK_FILE("/proc/self/cwd/f", "via cwd");
}

TEST(self_cmdline_and_environ)
{
	char want[PATH_MAX];
	int n = get_file("/proc/self/cmdline", buf, sizeof(buf));

	CHECK(n > 0);
	CHECK_EQ(buf[n - 1], 0);
	snprintf(want, sizeof(want), "%s", conform_file(conform_self));
	CHECK_STR(conform_file(buf), want);
	n = get_file("/proc/self/environ", buf, sizeof(buf));
	CHECK(n >= 0);
	if (conform_environ[0])
		CHECK_STR(buf, conform_environ[0]);
}

TEST(self_comm_can_be_written)
{
	int fd = CHECK_OK(open("/proc/self/comm", O_RDWR));

	CHECK_EQ(write(fd, "renamed", 7), 7);
	slurp("/proc/self/comm");
	CHECK_STR(buf, "renamed\n");
}

TEST(self_fd_directory)
{
	char path[64], l[PATH_MAX], want[PATH_MAX], cwd[PATH_MAX];
	struct dirent *e;
	bool found = false;
	int fd, n = 0;
	DIR *d;

	PUT_FILE("f", "");
	fd = CHECK_OK(open("f", O_RDONLY));
	d = opendir("/proc/self/fd");
	CHECK(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		n++;
		found |= atoi(e->d_name) == fd;
	}
	CHECK(found);
	CHECK(n >= 4);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	link_of(path, l);
	CHECK(getcwd(cwd, sizeof(cwd)));
	snprintf(want, sizeof(want), "%.4000s/f", cwd);
	CHECK_STR(l, want);
	CHECK_OK(unlink("f"));
	link_of(path, l);
	strcat(want, " (deleted)");
	CHECK_STR(l, want);
	CHECK_ERRNO(readlink("/proc/self/fd/190", l, sizeof(l)), ENOENT);
}

TEST(self_fd_link_modes)
{
	struct stat st;
	char path[64];
	int fd = CHECK_OK(open("f", O_CREAT | O_WRONLY, 0644));

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK_OK(lstat(path, &st));
	CHECK(S_ISLNK(st.st_mode));
	CHECK_EQ(st.st_mode & 0700, 0300);
	CHECK_OK(stat(path, &st));
	CHECK(S_ISREG(st.st_mode));
}

TEST(self_fdinfo)
{
	char path[64];
	int fd = CHECK_OK(open("f", O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0644));

	CHECK_EQ(write(fd, "12345", 5), 5);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	slurp(path);
	CHECK_EQ(field("pos:\t"), 5);
	CHECK_EQ(strtol(strstr(buf, "flags:\t") + 7, NULL, 8) & ~O_LARGEFILE & ~0100000,
		 O_RDWR | O_APPEND | O_CLOEXEC);
}

TEST(self_stat)
{
	char comm[32], state;
	int pid, ppid, pgrp, sid;

	CHECK_OK(prctl(PR_SET_NAME, "a (b) c"));
	slurp("/proc/self/stat");
	CHECK_EQ(sscanf(buf, "%d (", &pid), 1);
	CHECK_EQ(pid, getpid());
	snprintf(comm, sizeof(comm), "%d (a (b) c) ", pid);
	CHECK(!strncmp(buf, comm, strlen(comm)));
	CHECK_EQ(sscanf(buf + strlen(comm), "%c %d %d %d", &state, &ppid, &pgrp, &sid), 4);
	CHECK_EQ(state, 'R');
	CHECK_EQ(ppid, getppid());
	CHECK_EQ(pgrp, getpgrp());
	CHECK_EQ(sid, getsid(0));
	/* 52 fields. */
	int fields = 2;

	for (char *p = buf + strlen(comm) - 1; *p; p++)
		fields += *p == ' ';
	CHECK_EQ(fields, 52);
}

TEST(self_status)
{
	char want[64];

	slurp("/proc/self/status");
	CHECK_EQ(field("\nPid:\t"), getpid());
	CHECK_EQ(field("\nTgid:\t"), getpid());
	CHECK_EQ(field("\nPPid:\t"), getppid());
	CHECK_EQ(field("\nThreads:\t"), 1);
	CHECK_EQ(field("\nUid:\t"), getuid());
	CHECK(strstr(buf, "\nState:\tR (running)\n"));
	CHECK(strstr(buf, "\nUmask:\t0022\n"));
	CHECK(field("\nVmSize:\t") > 0);
	CHECK(field("\nVmRSS:\t") > 0);
	CHECK_EQ(field("\nNoNewPrivs:\t"), 0);
	snprintf(want, sizeof(want), "Name:\t%.15s\n", conform_file(conform_self));
	CHECK(!strncmp(buf, want, strlen(want)));
}

static void *idle(void *arg UNUSED)
{
	prctl(PR_SET_NAME, "idle-thread");
	for (;;)
		pause();
	return NULL;
}

TEST(self_task)
{
	char path[64];
	pthread_t t;
	int seen = 0;
	struct dirent *e;
	DIR *d;

	CHECK_ZERO(pthread_create(&t, NULL, idle, NULL));
	d = opendir("/proc/self/task");
	CHECK(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.' || atoi(e->d_name) == getpid())
			continue;
		seen++;
		snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", e->d_name);
		EVENTUALLY((slurp(path), !strcmp(buf, "idle-thread\n")));
		/* A thread's id leads to its directory, though readdir of /proc hides it. */
		snprintf(path, sizeof(path), "/proc/%.20s/status", e->d_name);
		slurp(path);
		CHECK_EQ(field("\nTgid:\t"), getpid());
		CHECK_EQ(field("\nPid:\t"), atoi(e->d_name));
	}
	CHECK_EQ(seen, 1);
	slurp("/proc/self/status");
	CHECK_EQ(field("\nThreads:\t"), 2);
}

TEST(self_limits)
{
	struct rlimit rl = { 123, 456 };

	CHECK_OK(setrlimit(RLIMIT_NOFILE, &rl));
	slurp("/proc/self/limits");
	CHECK(!strncmp(buf, "Limit                     Soft Limit           Hard Limit  ", 59));
	CHECK(strstr(buf, "Max open files            123                  456           "));
	CHECK(strstr(buf, "Max cpu time              unlimited            unlimited"));
}

TEST(self_auxv)
{
	Elf64_auxv_t *a = (Elf64_auxv_t *)buf;
	int n = get_file("/proc/self/auxv", buf, sizeof(buf)), seen = 0;

	CHECK(n > 0 && n % sizeof(*a) == 0);
	for (; a->a_type != AT_NULL; a++)
		seen |= a->a_type == AT_PAGESZ && a->a_un.a_val == PAGE ? 1
			: a->a_type == AT_SYSINFO_EHDR			? 2
									: 0;
	CHECK_EQ(seen, 3);
}

TEST(self_statm_fields)
{
	long v[7];

	slurp("/proc/self/statm");
	CHECK_EQ(sscanf(buf, "%ld %ld %ld %ld %ld %ld %ld", &v[0], &v[1], &v[2], &v[3], &v[4],
			&v[5], &v[6]), 7);
	CHECK(v[0] >= v[1] && v[1] > 0);
}

TEST(self_oom_score_adj)
{
	int fd = CHECK_OK(open("/proc/self/oom_score_adj", O_RDWR));

	slurp("/proc/self/oom_score_adj");
	CHECK_EQ(atoi(buf), 0);
	CHECK_EQ(write(fd, "500", 3), 3);
	slurp("/proc/self/oom_score_adj");
	CHECK_STR(buf, "500\n");
	CHECK_ERRNO(write(fd, "5000", 4), EINVAL);
}

TEST(self_mounts_and_mountinfo)
{
	char dev[256], dir[256], type[64], opts[512];
	bool root = false, proc = false;
	char *line, *next;
	int id, parent, lines = 0;

	slurp("/proc/self/mounts");
	for (line = buf; *line; line = next) {
		next = strchr(line, '\n') + 1;
		CHECK_EQ(sscanf(line, "%255s %255s %63s %511s 0 0", dev, dir, type, opts), 4);
		root |= !strcmp(dir, "/");
		proc |= !strcmp(dir, "/proc") && !strcmp(type, "proc");
		CHECK(!strncmp(opts, "rw", 2) || !strncmp(opts, "ro", 2));
		lines++;
	}
	CHECK(root && proc);
	slurp("/proc/self/mountinfo");
	for (line = buf; *line; line = next, lines--) {
		next = strchr(line, '\n') + 1;
		CHECK_EQ(sscanf(line, "%d %d %*d:%*d %*s %255s %511s", &id, &parent, dir, opts), 4);
		CHECK(strstr(line, " - "));
	}
	CHECK_EQ(lines, 0);
	slurp("/proc/mounts");
	CHECK(strstr(buf, " /proc proc "));
}

TEST(files_of_a_child)
{
	char path[64], l[PATH_MAX];
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		prctl(PR_SET_NAME, "the-child");
		CHECK_OK(chdir("/"));
		GATE_OPEN(&g);
		for (;;)
			pause();
	}
	GATE_WAIT(&g);
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	slurp(path);
	CHECK_STR(buf, "the-child\n");
	snprintf(path, sizeof(path), "/proc/%d/cwd", pid);
	link_of(path, l);
	CHECK_STR(l, "/");
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	EVENTUALLY((slurp(path), strstr(buf, "\nState:\tS (sleeping)\n")));
	CHECK_EQ(field("\nPPid:\t"), getpid());
	CHECK_OK(kill(pid, SIGSTOP));
	EVENTUALLY((slurp(path), strstr(buf, "\nState:\tT (stopped)\n")));
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	link_of(path, l);
	CHECK_STR(l, conform_self);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
	CHECK_ERRNO(access(path, F_OK), ENOENT);
}

TEST(open_file_of_a_dead_process)
{
	char path[64], c;
	int fd;
	pid_t pid = FORK();

	if (!pid) {
		for (;;)
			pause();
	}
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = CHECK_OK(open(path, O_RDONLY));
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
	CHECK_ERRNO(read(fd, &c, 1), ESRCH);
	CHECK_ERRNO(open(path, O_RDONLY), ENOENT);
}

TEST(zombie_has_no_fds_and_no_exe)
{
	char path[64], l[PATH_MAX];
	siginfo_t info;
	pid_t pid = FORK();

	if (!pid)
		_exit(0);
	CHECK_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	CHECK_ERRNO(readlink(path, l, sizeof(l)), ENOENT);
	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	CHECK_EQ(get_file(path, buf, sizeof(buf)), 0);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	slurp(path);
	CHECK(strstr(buf, "\nState:\tZ (zombie)\n"));
	CHECK(!strstr(buf, "\nVmSize:"));
	JOIN(pid);
}

TEST(permissions_of_another_users_process)
{
	char path[64], l[64];
	pid_t pid, me = getpid();

	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		BECOME_NOBODY();
		snprintf(path, sizeof(path), "/proc/%d/environ", me);
		CHECK_ERRNO(open(path, O_RDONLY), EACCES);
		snprintf(path, sizeof(path), "/proc/%d/cwd", me);
		CHECK_ERRNO(readlink(path, l, sizeof(l)), EACCES);
		snprintf(path, sizeof(path), "/proc/%d/fd", me);
		CHECK_ERRNO(open(path, O_RDONLY), EACCES);
		snprintf(path, sizeof(path), "/proc/%d/stat", me);
		CHECK_OK(open(path, O_RDONLY));
		snprintf(path, sizeof(path), "/proc/%d/status", me);
		CHECK_OK(open(path, O_RDONLY));
		_exit(0);
	}
	JOIN(pid);
}

TEST(proc_directory_lists_processes)
{
	bool me = false, self = false, one = false;
	struct dirent *e;
	DIR *d = opendir("/proc");

	CHECK(d);
	while ((e = readdir(d))) {
		me |= atoi(e->d_name) == getpid();
		one |= !strcmp(e->d_name, "1");
		self |= !strcmp(e->d_name, "self");
	}
	CHECK(me && self && one);
}

TEST(proc_is_read_only_in_structure)
{
	CHECK_ERRNO(mkdir("/proc/conform", 0755), ENOENT);
	CHECK_ERRNO(open("/proc/conform", O_CREAT | O_WRONLY, 0644), ENOENT);
	CHECK_ERRNO(unlink("/proc/uptime"), geteuid() ? EACCES : EPERM);
}

TEST(pread_and_lseek)
{
	char a[64], b[64];
	int fd = CHECK_OK(open("/proc/self/status", O_RDONLY));

	CHECK_EQ(read(fd, a, 20), 20);
	CHECK_EQ(pread(fd, b, 20, 0), 20);
	CHECK(!memcmp(a, b, 20));
	CHECK_EQ(lseek(fd, 5, SEEK_SET), 5);
	CHECK_EQ(read(fd, b, 10), 10);
	CHECK(!memcmp(a + 5, b, 10));
}

TEST(uptime)
{
	double up, idle_time;
	struct timespec ts;

	slurp("/proc/uptime");
	CHECK_EQ(sscanf(buf, "%lf %lf\n", &up, &idle_time), 2);
	CHECK_OK(clock_gettime(CLOCK_BOOTTIME, &ts));
	CHECK(up > 0 && up <= ts.tv_sec + 1.0 && up > ts.tv_sec - 5.0);
}

TEST(meminfo)
{
	struct sysinfo si;

	slurp("/proc/meminfo");
	CHECK(!strncmp(buf, "MemTotal:       ", 12));
	CHECK_OK(sysinfo(&si));
	CHECK_EQ(field("MemTotal:"), (long)(si.totalram * si.mem_unit / 1024));
	CHECK(field("\nMemFree:") <= field("MemTotal:"));
	CHECK(field("\nMemAvailable:") > 0);
	CHECK(field("\nSwapTotal:") >= 0);
	CHECK(field("\nCached:") >= 0);
}

TEST(cpuinfo)
{
	int n = 0;

	slurp("/proc/cpuinfo");
	for (char *p = buf; (p = strstr(p, "processor\t: ")); p++)
		n++;
	CHECK_EQ(n, sysconf(_SC_NPROCESSORS_ONLN));
	CHECK(strstr(buf, "\nflags\t\t: fpu "));
	CHECK(strstr(buf, "model name\t: "));
}

TEST(stat_file)
{
	slurp("/proc/stat");
	CHECK(!strncmp(buf, "cpu  ", 5));
	CHECK(strstr(buf, "\ncpu"));
	CHECK(field("\nbtime ") > 1500000000);
	CHECK(field("\nprocesses ") > 0);
	CHECK(field("\nctxt ") >= 0);
}

TEST(version_and_uname)
{
	struct utsname u;
	char want[128];

	slurp("/proc/version");
	CHECK_OK(uname(&u));
	snprintf(want, sizeof(want), "Linux version %s ", u.release);
	CHECK(!strncmp(buf, want, strlen(want)));
	slurp("/proc/sys/kernel/osrelease");
	snprintf(want, sizeof(want), "%s\n", u.release);
	CHECK_STR(buf, want);
	slurp("/proc/sys/kernel/ostype");
	CHECK_STR(buf, "Linux\n");
	slurp("/proc/sys/kernel/hostname");
	snprintf(want, sizeof(want), "%s\n", u.nodename);
	CHECK_STR(buf, want);
}

TEST(loadavg)
{
	double a, b, c;
	int run, all, last;

	slurp("/proc/loadavg");
	CHECK_EQ(sscanf(buf, "%lf %lf %lf %d/%d %d", &a, &b, &c, &run, &all, &last), 6);
	CHECK(run >= 0 && all >= 1 && last > 0);
}

TEST(filesystems)
{
	slurp("/proc/filesystems");
	CHECK(strstr(buf, "nodev\tproc\n"));
	CHECK(strstr(buf, "nodev\ttmpfs\n"));
}

TEST(sys_kernel)
{
	slurp("/proc/sys/kernel/pid_max");
	CHECK(atoi(buf) >= 1024);
	slurp("/proc/sys/kernel/random/boot_id");
	CHECK_EQ(strlen(buf), 37);
	slurp("/proc/sys/kernel/random/uuid");
	char first[64];

	snprintf(first, sizeof(first), "%.40s", buf);
	slurp("/proc/sys/kernel/random/uuid");
	CHECK(strcmp(first, buf));
	slurp("/proc/sys/kernel/cap_last_cap");
	CHECK(atoi(buf) >= 37);
	slurp("/proc/sys/kernel/ngroups_max");
	CHECK_EQ(atoi(buf), 65536);
	slurp("/proc/sys/fs/nr_open");
	CHECK(atoi(buf) >= 1024);
	slurp("/proc/sys/vm/overcommit_memory");
	CHECK(atoi(buf) >= 0 && atoi(buf) <= 2);
}

TEST(maps_of_child_after_exit_is_empty_or_gone)
{
	char path[64];
	siginfo_t info;
	pid_t pid = FORK();

	if (!pid)
		_exit(0);
	CHECK_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	CHECK(get_file(path, buf, sizeof(buf)) <= 0);
	JOIN(pid);
}

TEST(children_file)
{
	char path[64], want[32];
	pid_t pid = FORK();

	if (!pid) {
		for (;;)
			pause();
	}
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	if (access(path, F_OK) < 0)
		SKIP("no children file in this kernel");
	slurp(path);
	snprintf(want, sizeof(want), "%d ", pid);
	CHECK_STR(buf, want);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

struct shared_reader {
	pthread_t thread;
	off_t at;
	int fd;
	bool good;
};

static void *read_often(void *arg)
{
	struct shared_reader *r = arg;
	char buf[64];

	r->good = true;
	for (int i = 0; i < 1000; i++)
		r->good &= pread(r->fd, buf, sizeof(buf), r->at) > 0;
	return NULL;
}

/* One makes the text anew while others are still reading it. */
TEST(readers_of_one_file)
{
	struct shared_reader r[4];
	int fd = open("/proc/self/maps", O_RDONLY);

	CHECK_OK(fd);
	for (int i = 0; i < 4; i++) {
		r[i].fd = fd;
		r[i].at = i % 2 ? 40 : 0;
		CHECK_ZERO(pthread_create(&r[i].thread, NULL, read_often, &r[i]));
	}
	for (int i = 0; i < 4; i++) {
		CHECK_ZERO(pthread_join(r[i].thread, NULL));
		CHECK(r[i].good);
	}
}

/* A process's directory serves where a pidfd does, for signals only; a thread's does not. */
TEST(dir_takes_signals)
{
	char path[64];
	int fd, task, opath;
	pid_t pid = FORK();

	if (!pid) {
		for (;;)
			pause();
	}
	snprintf(path, sizeof(path), "/proc/%d", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	CHECK_OK(fd);
	opath = open(path, O_PATH);
	CHECK_OK(opath);
	snprintf(path, sizeof(path), "/proc/%d/task/%d", pid, pid);
	task = open(path, O_RDONLY | O_DIRECTORY);
	CHECK_OK(task);
	CHECK_ERRNO(syscall(SYS_pidfd_send_signal, opath, SIGTERM, NULL, 0), EBADF);
	CHECK_ERRNO(syscall(SYS_pidfd_send_signal, task, SIGTERM, NULL, 0), EBADF);
	CHECK_ERRNO(syscall(SYS_pidfd_getfd, fd, 0, 0), EBADF);
	CHECK_OK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
	CHECK_OK(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
	CHECK_SIGNALED(pid, SIGTERM);
	CHECK_ERRNO(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0), ESRCH);
}

TEST(ns_links)
{
	char l[PATH_MAX];

	link_of("/proc/self/ns/pid", l);
	CHECK(!strncmp(l, "pid:[", 5));
	link_of("/proc/self/ns/mnt", l);
	CHECK(!strncmp(l, "mnt:[", 5));
	link_of("/proc/self/ns/uts", l);
	CHECK(!strncmp(l, "uts:[", 5));
}

TEST(self_io_and_sched_are_optional_but_well_formed)
{
	if (access("/proc/self/io", R_OK) < 0)
		SKIP("no I/O accounting");
	slurp("/proc/self/io");
	CHECK(!strncmp(buf, "rchar: ", 7));
	CHECK(strstr(buf, "\nwrite_bytes: "));
}
