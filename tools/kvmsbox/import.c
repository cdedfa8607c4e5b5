/* SPDX-License-Identifier: Apache-2.0 */
/* Imports happen in kvmsbox-import (tools/kvmsbox-import/main.c), found beside this program. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sentry/lib/log.h"
#include "tools/kvmsbox-import/protocol.h"
#include "tools/kvmsbox/kvmsbox.h"

#define IMPORTER "kvmsbox-import"

static void __attribute__((noreturn))
become_importer(pid_t parent, const char *program, int fd, const char *archive,
		const struct image_options *o)
{
	char numbers[4][24];

	/* Whoever ends us ends the import. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(125);
	fcntl(fd, F_SETFD, 0);
	snprintf(numbers[0], sizeof(numbers[0]), "%d", fd);
	snprintf(numbers[1], sizeof(numbers[1]), "%llu", (unsigned long long)o->max_bytes);
	snprintf(numbers[2], sizeof(numbers[2]), "%llu", (unsigned long long)o->max_entries);
	snprintf(numbers[3], sizeof(numbers[3]), "%d", (int)log_level);
	execl(program, IMPORTER, numbers[0], o->cache_dir ? o->cache_dir : "", numbers[1],
	      numbers[2], o->quiet ? "quiet" : "progress", numbers[3], archive, NULL);
	_exit(126);
}

static bool read_answer(int fd, struct import_answer *answer)
{
	size_t got = 0;
	ssize_t n;

	while (got < sizeof(*answer)) {
		n = read(fd, (char *)answer + got, sizeof(*answer) - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		got += (size_t)n;
	}
	return true;
}

static int failed(struct image_error *err, int code, const char *archive, const char *why)
{
	snprintf(err->message, sizeof(err->message), "image %s: %s", archive, why);
	return code;
}

int import_elsewhere(const char *archive, const struct image_options *options,
		     char hash[IMAGE_HASH_LEN + 1], struct image_error *err)
{
	struct import_answer answer;
	char program[PATH_MAX];
	int fds[2], status;
	pid_t self = getpid(), pid;
	bool answered;

	if (!find_helper(IMPORTER, program))
		return failed(err, -ENOPKG, archive,
			      "it must be imported, but " IMPORTER " isn't where kvmsbox is: "
			      "install both");
	if (pipe2(fds, O_CLOEXEC))
		return failed(err, -errno, archive, strerror(errno));
	pid = fork();
	if (!pid)
		become_importer(self, program, fds[1], archive, options);
	close(fds[1]);
	if (pid < 0) {
		close(fds[0]);
		return failed(err, -EAGAIN, archive, "can't start " IMPORTER);
	}
	answered = read_answer(fds[0], &answer);
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!answered)
		return failed(err, -EIO, archive,
			      WIFSIGNALED(status) ? IMPORTER " was killed: is memory short?"
						  : IMPORTER " can't be run: install it anew");
	memcpy(hash, answer.hash, sizeof(answer.hash));
	*err = answer.error;
	return answer.code;
}
