/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro rows: processes and threads, and handing over between them.
 */
#include "tools/bench/guest/guest.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status)
		fail("child");
}

static uint64_t run_fork(uint64_t n)
{
	uint64_t i, start = now_ns();
	pid_t pid;

	for (i = 0; i < n; i++) {
		pid = fork();
		if (pid < 0)
			fail("fork");
		if (!pid)
			_exit(0);
		reap(pid);
	}
	return now_ns() - start;
}

static uint64_t fork_exec(const char *program, int out, uint64_t n)
{
	const char *path = program_path(program);
	char *argv[] = {(char *)path, NULL}, *envp[] = {NULL};
	uint64_t i, start = now_ns();
	pid_t pid;

	for (i = 0; i < n; i++) {
		pid = fork();
		if (pid < 0)
			fail("fork");
		if (!pid) {
			if (out >= 0)
				dup2(out, STDOUT_FILENO);
			execve(path, argv, envp);
			_exit(127);
		}
		reap(pid);
	}
	return now_ns() - start;
}

static uint64_t run_fork_exec(uint64_t n)
{
	return fork_exec("true", -1, n);
}

/* What functions' resets and copies are held against; its answer goes nowhere. */
static uint64_t run_fork_exec_pages(uint64_t n)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	uint64_t took;

	if (null < 0)
		fail("/dev/null");
	took = fork_exec("pages", null, n);
	close(null);
	return took;
}

/* vfork's way: no copy of the address space. */
static uint64_t run_spawn(uint64_t n)
{
	const char *path = program_path("true");
	char *argv[] = {(char *)path, NULL}, *envp[] = {NULL};
	uint64_t i, start = now_ns();
	pid_t pid;

	for (i = 0; i < n; i++) {
		if (posix_spawn(&pid, path, NULL, NULL, argv, envp))
			fail("posix_spawn");
		reap(pid);
	}
	return now_ns() - start;
}

static void *thread_nothing(void *arg)
{
	return arg;
}

static uint64_t run_thread(uint64_t n)
{
	uint64_t i, start = now_ns();
	pthread_t t;

	for (i = 0; i < n; i++) {
		if (pthread_create(&t, NULL, thread_nothing, NULL) || pthread_join(t, NULL))
			fail("pthread_create");
	}
	return now_ns() - start;
}

/* One operation is one byte there and one back between two processes. */
static uint64_t run_pingpong(uint64_t n)
{
	int there[2], back[2];
	uint64_t i, start, took;
	pid_t pid;
	char c = 0;

	if (pipe(there) || pipe(back))
		fail("pipe");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid) {
		close(there[1]);
		close(back[0]);
		while (read(there[0], &c, 1) == 1) {
			if (write(back[1], &c, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	close(there[0]);
	close(back[1]);
	start = now_ns();
	for (i = 0; i < n; i++) {
		if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
			fail("ping-pong");
	}
	took = now_ns() - start;
	close(there[1]);
	close(back[0]);
	reap(pid);
	return took;
}

struct court {
	_Atomic uint32_t turn;
	uint64_t n;
};

static void await(struct court *c, uint32_t mine)
{
	while (atomic_load(&c->turn) != mine)
		syscall(SYS_futex, &c->turn, FUTEX_WAIT_PRIVATE, !mine, NULL, NULL, 0);
}

static void pass_on(struct court *c, uint32_t mine)
{
	atomic_store(&c->turn, !mine);
	syscall(SYS_futex, &c->turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *thread_pong(void *arg)
{
	struct court *c = arg;
	uint64_t i;

	for (i = 0; i < c->n; i++) {
		await(c, 1);
		pass_on(c, 1);
	}
	return NULL;
}

/* The same between two threads, by futex. */
static uint64_t run_thread_pingpong(uint64_t n)
{
	struct court c = {.n = n};
	uint64_t i, start, took;
	pthread_t t;

	if (pthread_create(&t, NULL, thread_pong, &c))
		fail("pthread_create");
	start = now_ns();
	for (i = 0; i < n; i++) {
		pass_on(&c, 0);
		await(&c, 0);
	}
	took = now_ns() - start;
	pthread_join(t, NULL);
	return took;
}

const struct micro process_rows[] = {
	{"fork", run_fork, 0},
	{"fork-exec", run_fork_exec, 0},
	{"fork-exec-pages", run_fork_exec_pages, 0},
	{"spawn", run_spawn, 0},
	{"thread-create", run_thread, 0},
	{"pipe-pingpong", run_pingpong, 0},
	{"futex-pingpong", run_thread_pingpong, 0},
	{NULL, NULL, 0},
};
