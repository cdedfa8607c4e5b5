/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timed NAME COMMAND [ARG…]: runs the command with its output thrown away, prints how long it took
 * as a row, "NAME value ns 1". What a script prepares before it is outside the time. Fails if the
 * command does, with the command's standard error still visible.
 */
#include "tools/bench/guest/guest.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	uint64_t start, took;
	int status, fd;
	pid_t pid;

	if (argc < 3) {
		fprintf(stderr, "usage: timed NAME COMMAND [ARG...]\n");
		return 2;
	}
	start = now_ns();
	pid = fork();
	if (pid < 0) {
		perror("timed: fork");
		return 1;
	}
	if (!pid) {
		fd = open("/dev/null", O_WRONLY);
		if (fd >= 0)
			dup2(fd, STDOUT_FILENO);
		execvp(argv[2], argv + 2);
		perror(argv[2]);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid)
		return 1;
	took = now_ns() - start;
	if (status) {
		fprintf(stderr, "timed: %s failed (status 0x%x)\n", argv[2], (unsigned int)status);
		return 1;
	}
	printf("%s %llu ns 1\n", argv[1], (unsigned long long)took);
	return 0;
}
