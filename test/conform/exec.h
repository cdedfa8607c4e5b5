/* SPDX-License-Identifier: Apache-2.0 */
/* What the exec programs share: running something and asking how its exec failed. */
#ifndef TEST_CONFORM_EXEC_H
#define TEST_CONFORM_EXEC_H

#include "test/conform/conform.h"

/* Runs the helper in a child with its stdout in a string. */
UNUSED static int run_argv(const char *path, char *const argv[], char *const envp[], char *out, int size)
{
	int fd[2], n = 0, r, status;
	pid_t pid;

	CHECK_OK(pipe2(fd, O_CLOEXEC));
	pid = FORK();
	if (!pid) {
		CHECK_OK(dup2(fd[1], 1));
		execve(path, argv, envp ? envp : conform_environ);
		_exit(errno);
	}
	CHECK_OK(close(fd[1]));
	while (n < size - 1 && (r = read(fd[0], out + n, size - 1 - n)) > 0)
		n += r;
	out[n] = 0;
	CHECK_OK(close(fd[0]));
	status = REAP(pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The errno with which exec of the path fails. */
UNUSED static int exec_error(const char *path)
{
	char *argv[] = { (char *)path, NULL };
	pid_t pid = FORK();
	int status;

	if (!pid) {
		execve(path, argv, conform_environ);
		_exit(errno);
	}
	status = REAP(pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

UNUSED static void put_script(const char *name, const char *text)
{
	PUT_FILE(name, text);
	CHECK_OK(chmod(name, 0755));
}

#endif
