/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting programs, timing them from start to exit, and weighing those that stay.
 *
 * A child is made by vfork, so that what starting costs does not depend on this program's size; it
 * only uses what was prepared before. Every child leads a process group, which is killed when the
 * child takes too long or this program is interrupted. This program adopts orphans
 * (PR_SET_CHILD_SUBREAPER, in main), so a sandbox's helpers can neither hide from weighing nor
 * stay.
 */
#include "tools/bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_S 120

struct child {
	pid_t pid;
	int pidfd;
	int in, out, err; /* our ends; -1: not asked for */
	uint64_t start_ns;
};

uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Between vfork and exec. All descriptors but 0-2 are close-on-exec. */
static void become(const char *const *argv, char *const *envp, const char *root,
		   const cpu_set_t *cpus, int in, int out, int err)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	if (cpus && sched_setaffinity(0, sizeof(*cpus), cpus))
		_exit(126);
	if (root && (chroot(root) || chdir("/")))
		_exit(126);
	execve(argv[0], (char *const *)argv, envp);
	_exit(127);
}

/* @feed: the child's input is a pipe; otherwise /dev/null. */
static int child_start(struct bench *b, const struct launch *l, struct child *c, bool feed)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
	const char *const root = l->col->kind == COL_NATIVE ? b->native_root[l->image] : NULL;
	const char *argv[MAX_ARGS * 2 + 16];
	char *const *envp;
	cpu_set_t cpus;

	c->in = c->out = c->err = -1;
	if (column_argv(b, l, argv, &envp))
		return -1;
	CPU_ZERO(&cpus);
	CPU_SET(b->one_cpu, &cpus);
	if (feed)
		c->in = pipe2(in, O_CLOEXEC) ? -1 : in[1];
	else
		in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (in[0] < 0 || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) {
		bench_fail(b, "pipe: %s", strerror(errno));
		goto out_close;
	}
	c->start_ns = clock_ns();
	c->pid = vfork();
	if (!c->pid)
		become(argv, envp, root, l->one_cpu ? &cpus : NULL, in[0], out[1], err[1]);
	if (c->pid < 0) {
		bench_fail(b, "vfork: %s", strerror(errno));
		goto out_close;
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	c->out = out[0];
	c->err = err[0];
	fcntl(c->out, F_SETFL, O_NONBLOCK);
	fcntl(c->err, F_SETFL, O_NONBLOCK);
	c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	return 0;
out_close:
	close_fd(&in[0]);
	close_fd(&in[1]);
	close_fd(&out[0]);
	close_fd(&out[1]);
	close_fd(&err[0]);
	close_fd(&err[1]);
	c->in = -1;
	return -1;
}

/* What fits is kept, the rest thrown away. Returns false at the end of the stream. */
static bool drain(int fd, char *buf, size_t size, size_t *used)
{
	char waste[4096];
	ssize_t n;

	for (;;) {
		size_t room = size - 1 - *used;

		n = room ? read(fd, buf + *used, room) : read(fd, waste, sizeof(waste));
		if (n <= 0)
			return n < 0 && (errno == EAGAIN || errno == EINTR);
		if (room)
			*used += (size_t)n;
		buf[*used] = 0;
	}
}

void host_reap(void)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int launch_run(struct bench *b, const struct launch *l, struct outcome *o)
{
	size_t out_used = 0, err_used = 0;
	uint64_t limit;
	struct rusage ru;
	struct pollfd p[3];
	struct child c;
	bool late = false;

	o->out[0] = o->err[0] = 0;
	if (child_start(b, l, &c, false))
		return -1;
	limit = c.start_ns + LIMIT_S * 1000000000ull;
	for (;;) {
		p[0] = (struct pollfd){.fd = c.pidfd, .events = POLLIN};
		p[1] = (struct pollfd){.fd = c.out, .events = POLLIN};
		p[2] = (struct pollfd){.fd = c.err, .events = POLLIN};
		poll(p, 3, 1000);
		if (p[0].revents)
			break;
		if (p[1].revents && !drain(c.out, o->out, sizeof(o->out), &out_used))
			close_fd(&c.out);
		if (p[2].revents && !drain(c.err, o->err, sizeof(o->err), &err_used))
			close_fd(&c.err);
		if (interrupted || clock_ns() > limit) {
			late = true;
			kill(-c.pid, SIGKILL);
			break;
		}
	}
	wait4(c.pid, &o->status, 0, &ru);
	o->wall_ns = clock_ns() - c.start_ns;
	o->maxrss_kib = ru.ru_maxrss;
	if (c.out >= 0)
		drain(c.out, o->out, sizeof(o->out), &out_used);
	if (c.err >= 0)
		drain(c.err, o->err, sizeof(o->err), &err_used);
	close_fd(&c.out);
	close_fd(&c.err);
	close_fd(&c.pidfd);
	host_reap();
	if (interrupted)
		return bench_fail(b, "interrupted");
	if (late)
		return bench_fail(b, "%s: no end within %d s", l->argv[0], LIMIT_S);
	return 0;
}

/* The last line of @text that says something. */
static const char *last_line(char *text)
{
	char *end = text + strlen(text), *p;

	while (end > text && (end[-1] == '\n' || end[-1] == ' '))
		*--end = 0;
	p = strrchr(text, '\n');
	return p ? p + 1 : text;
}

int launch_check(struct bench *b, const struct launch *l, struct outcome *o)
{
	const char *said;

	if (launch_run(b, l, o))
		return -1;
	if (!o->status)
		return 0;
	said = last_line(o->err);
	if (WIFSIGNALED(o->status))
		return bench_fail(b, "%s ended by signal %d%s%s", l->argv[0], WTERMSIG(o->status),
				  *said ? ": " : "", said);
	return bench_fail(b, "%s ended with status %d%s%s", l->argv[0], WEXITSTATUS(o->status),
			  *said ? ": " : "", said);
}

int idler_start(struct bench *b, const struct launch *l, struct idler *i)
{
	char out[64] = "", err[1024] = "";
	size_t out_used = 0, err_used = 0;
	struct pollfd p[2];
	struct child c;
	uint64_t limit;

	if (child_start(b, l, &c, true))
		return -1;
	close_fd(&c.pidfd);
	i->pid = c.pid;
	i->in = c.in;
	i->out = c.out;
	limit = c.start_ns + LIMIT_S * 1000000000ull;
	while (!strstr(out, "ready\n")) {
		p[0] = (struct pollfd){.fd = c.out, .events = POLLIN};
		p[1] = (struct pollfd){.fd = c.err, .events = POLLIN};
		poll(p, 2, 1000);
		if (p[1].revents && !drain(c.err, err, sizeof(err), &err_used))
			close_fd(&c.err);
		if ((p[0].revents && !drain(c.out, out, sizeof(out), &out_used) &&
		     !strstr(out, "ready\n")) ||
		    interrupted || clock_ns() > limit) {
			if (c.err >= 0)
				drain(c.err, err, sizeof(err), &err_used);
			close_fd(&c.err);
			idler_stop(i);
			return bench_fail(b, "%s did not get ready: %s", l->argv[0],
					  last_line(err));
		}
	}
	close_fd(&c.err);
	return 0;
}

void host_end(pid_t pid)
{
	uint64_t limit = clock_ns() + 10 * 1000000000ull;
	int status;

	while (!waitpid(pid, &status, WNOHANG)) {
		if (interrupted || clock_ns() > limit) {
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			break;
		}
		usleep(500);
	}
}

void idler_stop(struct idler *i)
{
	close_fd(&i->in);
	close_fd(&i->out);
	host_end(i->pid);
	host_reap();
}

pid_t host_start(struct bench *b, const char *const *argv, char *const *envp, const int *fds,
		 int nr)
{
	int high[MAX_START_FDS], i;
	pid_t pid = -1;
	sigset_t none;

	/* Above all those that they become in the child. */
	for (i = 0; i < nr; i++)
		high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, MAX_START_FDS);
	for (i = 0; i < nr && high[i] >= 0; i++)
		;
	if (i == nr)
		pid = vfork();
	if (!pid) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setpgid(0, 0);
		for (i = 0; i < nr; i++)
			dup2(high[i], i);
		execve(argv[0], (char *const *)argv, envp);
		_exit(127);
	}
	if (pid < 0)
		bench_fail(b, "can't start %s: %s", argv[0], strerror(errno));
	for (i = 0; i < nr; i++)
		close_fd(&high[i]);
	return pid;
}

static long file_kib(const char *path, const char *key)
{
	char line[256];
	long kib = -1;
	FILE *f = fopen(path, "re");

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, strlen(key))) {
			kib = strtol(line + strlen(key), NULL, 10);
			break;
		}
	}
	fclose(f);
	return kib;
}

long meminfo_kib(const char *key)
{
	return file_kib("/proc/meminfo", key);
}

static pid_t parent_of(pid_t pid)
{
	char path[64], buf[512], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	p = strrchr(buf, ')');
	return p && strlen(p) > 4 ? (pid_t)strtol(p + 4, NULL, 10) : 0;
}

long descendants_pss(int *processes)
{
	struct {
		pid_t pid, ppid;
		bool in;
	} *all = NULL;
	size_t nr = 0, room = 0, i, k;
	struct dirent *de;
	char path[64];
	bool grew;
	long sum = 0, kib;
	DIR *d = opendir("/proc");

	*processes = 0;
	if (!d)
		return -1;
	while ((de = readdir(d))) {
		if (de->d_name[0] < '1' || de->d_name[0] > '9')
			continue;
		if (nr == room) {
			room = room ? 2 * room : 512;
			all = realloc(all, room * sizeof(*all));
			if (!all)
				die("out of memory");
		}
		all[nr].pid = (pid_t)strtol(de->d_name, NULL, 10);
		all[nr].ppid = parent_of(all[nr].pid);
		all[nr].in = all[nr].ppid == getpid();
		nr++;
	}
	closedir(d);
	do {
		grew = false;
		for (i = 0; i < nr; i++) {
			for (k = 0; k < nr && !all[i].in; k++) {
				if (all[k].in && all[k].pid == all[i].ppid)
					all[i].in = grew = true;
			}
		}
	} while (grew);
	for (i = 0; i < nr; i++) {
		if (!all[i].in)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", all[i].pid);
		kib = file_kib(path, "Pss:");
		if (kib >= 0) {
			sum += kib;
			(*processes)++;
		}
	}
	free(all);
	return sum;
}

int host_run(const char *const *argv, char *out, size_t size)
{
	size_t used = 0;
	char buf[512];
	int fds[2], status, null;
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -1;
	pid = fork();
	if (pid < 0)
		return -1;
	if (!pid) {
		null = open("/dev/null", O_RDWR);
		dup2(null, STDIN_FILENO);
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(fds[1]);
	if (out && size)
		out[0] = 0;
	while ((n = read(fds[0], buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR)) {
		if (n > 0 && out && used + (size_t)n < size) {
			memcpy(out + used, buf, (size_t)n);
			used += (size_t)n;
			out[used] = 0;
		}
	}
	close(fds[0]);
	while (waitpid(pid, &status, 0) != pid) {
		if (errno != EINTR)
			return -1;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
