/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro rows: single system calls, on files, on pipes, on nothing.
 *
 * The calls that libc could answer by itself go through syscall(3).
 */
#include "tools/bench/guest/guest.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char buf[65536];

/* The body is one operation; it may use i. */
#define TIMED(n, body)                                                                             \
	do {                                                                                       \
		uint64_t i, start = now_ns();                                                      \
                                                                                                   \
		for (i = 0; i < (n); i++) {                                                        \
			body;                                                                      \
		}                                                                                  \
		took = now_ns() - start;                                                           \
	} while (0)

/* As programs call it: the site loads the number itself. */
static uint64_t run_getppid(uint64_t n)
{
	uint64_t took;

	TIMED(n, getppid());
	return took;
}

/* From a site that serves all numbers. */
static uint64_t run_getppid_any(uint64_t n)
{
	uint64_t took;

	TIMED(n, syscall(SYS_getppid));
	return took;
}

static uint64_t run_getpid(uint64_t n)
{
	uint64_t took;

	TIMED(n, getpid());
	return took;
}

/* By getpid's number: a call that always fails is as cheap as dispatch gets. */
static uint64_t run_enosys(uint64_t n)
{
	uint64_t took;

	TIMED(n, syscall(999));
	return took;
}

static uint64_t run_clock(uint64_t n)
{
	struct timespec ts;
	uint64_t took;

	TIMED(n, clock_gettime(CLOCK_MONOTONIC, &ts));
	return took;
}

/* A file of a full buffer, opened for both. */
static int full_file(void)
{
	int fd = open(scratch_path("file"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, buf, sizeof(buf)) != (ssize_t)sizeof(buf))
		fail("file in the scratch directory");
	return fd;
}

static void drop_file(int fd)
{
	close(fd);
	unlink(scratch_path("file"));
}

static uint64_t file_io(uint64_t n, size_t size, int writing)
{
	int fd = full_file();
	uint64_t took;

	if (writing)
		TIMED(n, if (pwrite(fd, buf, size, 0) != (ssize_t)size) fail("pwrite"));
	else
		TIMED(n, if (pread(fd, buf, size, 0) != (ssize_t)size) fail("pread"));
	drop_file(fd);
	return took;
}

static uint64_t pipe_io(uint64_t n, size_t size)
{
	uint64_t took;
	int fds[2];

	if (pipe(fds))
		fail("pipe");
	TIMED(n, if (write(fds[1], buf, size) != (ssize_t)size ||
		     read(fds[0], buf, size) != (ssize_t)size) fail("pipe I/O"));
	close(fds[0]);
	close(fds[1]);
	return took;
}

#define FILE_ROW(name, size, writing)                                                              \
	static uint64_t name(uint64_t n)                                                           \
	{                                                                                          \
		return file_io(n, size, writing);                                                  \
	}
#define PIPE_ROW(name, size)                                                                       \
	static uint64_t name(uint64_t n)                                                           \
	{                                                                                          \
		return pipe_io(n, size);                                                           \
	}

FILE_ROW(run_read_1, 1, 0)
FILE_ROW(run_read_4k, 4096, 0)
FILE_ROW(run_read_64k, 65536, 0)
FILE_ROW(run_write_1, 1, 1)
FILE_ROW(run_write_4k, 4096, 1)
FILE_ROW(run_write_64k, 65536, 1)
PIPE_ROW(run_pipe_1, 1)
PIPE_ROW(run_pipe_4k, 4096)
PIPE_ROW(run_pipe_64k, 65536)

static uint64_t open_close(uint64_t n, const char *path)
{
	uint64_t took;

	TIMED(n, int fd = open(path, O_RDONLY | O_CLOEXEC); if (fd < 0 || close(fd)) fail("open"));
	return took;
}

static uint64_t run_open(uint64_t n)
{
	int fd = full_file();
	uint64_t took = open_close(n, scratch_path("file"));

	drop_file(fd);
	return took;
}

static uint64_t run_open_image(uint64_t n)
{
	return open_close(n, program_path("true"));
}

static uint64_t stat_path(uint64_t n, const char *path)
{
	struct stat st;
	uint64_t took;

	TIMED(n, if (stat(path, &st)) fail("stat"));
	return took;
}

static uint64_t run_stat(uint64_t n)
{
	int fd = full_file();
	uint64_t took = stat_path(n, scratch_path("file"));

	drop_file(fd);
	return took;
}

static uint64_t run_stat_image(uint64_t n)
{
	return stat_path(n, program_path("true"));
}

static uint64_t run_stat_missing(uint64_t n)
{
	const char *path = program_path("no-such-file");
	struct stat st;
	uint64_t took;

	TIMED(n, if (!stat(path, &st)) fail("stat of a missing file"));
	return took;
}

static uint64_t run_create(uint64_t n)
{
	const char *path = scratch_path("created");
	uint64_t took;

	TIMED(n, int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	      if (fd < 0 || close(fd) || unlink(path)) fail("create"));
	return took;
}

/* A directory of 100 names, open to close. */
static uint64_t run_readdir(uint64_t n)
{
	char dir[4200], name[4300];
	uint64_t took;
	int k, fd;

	snprintf(dir, sizeof(dir), "%s", scratch_path("dir"));
	if (mkdir(dir, 0700))
		fail("mkdir");
	for (k = 0; k < 100; k++) {
		snprintf(name, sizeof(name), "%s/%d", dir, k);
		fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0 || close(fd))
			fail("create");
	}
	TIMED(n, DIR *d = opendir(dir); int found = 0; if (!d) fail("opendir");
	      while (readdir(d)) found++; closedir(d); if (found != 102) fail("readdir"));
	for (k = 0; k < 100; k++) {
		snprintf(name, sizeof(name), "%s/%d", dir, k);
		unlink(name);
	}
	rmdir(dir);
	return took;
}

static uint64_t run_futex_wake(uint64_t n)
{
	static uint32_t word;
	uint64_t took;

	TIMED(n,
	      if (syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0)) fail("futex"));
	return took;
}

static uint64_t run_poll_10(uint64_t n)
{
	struct pollfd p[10];
	uint64_t took;
	int fds[10], k;

	for (k = 0; k < 10; k += 2) {
		if (pipe(&fds[k]))
			fail("pipe");
	}
	for (k = 0; k < 10; k++) {
		p[k].fd = fds[k];
		p[k].events = k & 1 ? POLLOUT : POLLIN;
	}
	TIMED(n, if (poll(p, 10, 0) != 5) fail("poll"));
	for (k = 0; k < 10; k++)
		close(fds[k]);
	return took;
}

static uint64_t run_epoll(uint64_t n)
{
	struct epoll_event ev = {.events = EPOLLIN};
	uint64_t took;
	int fds[2], ep;

	ep = epoll_create1(EPOLL_CLOEXEC);
	if (ep < 0 || pipe(fds) || epoll_ctl(ep, EPOLL_CTL_ADD, fds[0], &ev) ||
	    write(fds[1], buf, 1) != 1)
		fail("epoll");
	TIMED(n, if (epoll_wait(ep, &ev, 1, 0) != 1) fail("epoll_wait"));
	close(ep);
	close(fds[0]);
	close(fds[1]);
	return took;
}

static uint64_t run_socketpair(uint64_t n)
{
	uint64_t took;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		fail("socketpair");
	TIMED(n,
	      if (send(fds[0], buf, 64, 0) != 64 || recv(fds[1], buf, 64, 0) != 64) fail("send"));
	close(fds[0]);
	close(fds[1]);
	return took;
}

static void on_signal(int sig)
{
	(void)sig;
}

/* To itself, with a handler, to its end. */
static uint64_t run_signal(uint64_t n)
{
	struct sigaction sa = {.sa_handler = on_signal};
	pid_t pid = getpid(), tid = (pid_t)syscall(SYS_gettid);
	uint64_t took;

	if (sigaction(SIGUSR1, &sa, NULL))
		fail("sigaction");
	TIMED(n, if (syscall(SYS_tgkill, pid, tid, SIGUSR1)) fail("tgkill"));
	return took;
}

const struct micro calls_rows[] = {
	{"getppid", run_getppid, 0},
	{"getppid-any", run_getppid_any, 0},
	{"getpid", run_getpid, 0},
	{"enosys", run_enosys, 0},
	{"clock_gettime", run_clock, 0},
	{"read-1", run_read_1, 0},
	{"read-4k", run_read_4k, 0},
	{"read-64k", run_read_64k, 0},
	{"write-1", run_write_1, 0},
	{"write-4k", run_write_4k, 0},
	{"write-64k", run_write_64k, 0},
	{"pipe-1", run_pipe_1, 0},
	{"pipe-4k", run_pipe_4k, 0},
	{"pipe-64k", run_pipe_64k, 0},
	{"open-close", run_open, 0},
	{"open-close-image", run_open_image, 0},
	{"stat", run_stat, 0},
	{"stat-image", run_stat_image, 0},
	{"stat-missing", run_stat_missing, 0},
	{"create-unlink", run_create, 0},
	{"readdir-100", run_readdir, 0},
	{"futex-wake", run_futex_wake, 0},
	{"poll-10", run_poll_10, 0},
	{"epoll-wait", run_epoll, 0},
	{"socketpair-64", run_socketpair, 0},
	{"signal", run_signal, 0},
	{NULL, NULL, 0},
};
