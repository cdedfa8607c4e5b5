/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes as child processes: their command lines, descriptors and surroundings. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/kvmsbox-serve/instance.h"

#define CHANNEL_FD 3
#define IMAGE_FD   4
#define MAX_ARGS   64
#define BUFFER	   (1 << 20) /* of the channel, as far as the host lets it */

struct arguments {
	const char **v;
	size_t n, room;
	bool failed;
};

static void arg(struct arguments *a, const char *s)
{
	const char **grown;

	if (a->n + 2 > a->room) {
		grown = realloc(a->v, (a->room + MAX_ARGS) * sizeof(*grown));
		if (!grown) {
			a->failed = true;
			return;
		}
		a->v = grown;
		a->room += MAX_ARGS;
	}
	a->v[a->n++] = s;
	a->v[a->n] = NULL;
}

static void option(struct arguments *a, const char *name, const char *value)
{
	if (!value)
		return;
	arg(a, name);
	arg(a, value);
}

/* Nothing of the server's environment goes into a sandbox but what finding the cache takes. */
static const char **sandbox_environment(void)
{
	static const char *names[] = {"HOME", "XDG_CACHE_HOME", "PATH", "TMPDIR"};
	static char texts[ARRAY_SIZE(names)][4200];
	static const char *v[ARRAY_SIZE(names) + 1];
	size_t used = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *value = getenv(names[i]);

		if (value && strlen(value) < 4096) {
			snprintf(texts[i], sizeof(texts[i]), "%s=%s", names[i], value);
			v[used++] = texts[i];
		}
	}
	v[used] = NULL;
	return v;
}

/* In the child, which shares our memory until it execs: only descriptors and signals. */
static void __attribute__((noreturn))
become_sandbox(pid_t parent, const char *const *argv, const char *const *envp, int channel,
	       int errors, int null, int image)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(125);
	/* All are above those they are put at: spawn() sees to that. */
	if (dup2(null, 0) < 0 || dup2(errors, 1) < 0 || dup2(errors, 2) < 0 ||
	    dup2(channel, CHANNEL_FD) < 0 || (image >= 0 && dup2(image, IMAGE_FD) < 0))
		_exit(125);
	/* Its own group: what a terminal or systemd sends to ours comes to us alone. */
	setpgid(0, 0);
	sigaction(SIGPIPE, &dfl, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)envp);
	_exit(127);
}

/* A duplicate that can't be hit by another one's place in the child. */
static int high_dup(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 16);
}

static pid_t fork_sandbox(const char *const *argv, int channel, int errors, int image)
{
	const char *const *envp = sandbox_environment();
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC), high = high_dup(null);
	int high_image = image >= 0 ? high_dup(image) : -1;
	pid_t self = getpid(), pid = -1;

	if (null >= 0 && high >= 0 && (image < 0 || high_image >= 0)) {
		pid = vfork();
		if (!pid)
			become_sandbox(self, argv, envp, channel, errors, high, high_image);
	}
	if (pid < 0)
		pid = -errno;
	if (null >= 0)
		close(null);
	if (high >= 0)
		close(high);
	if (high_image >= 0)
		close(high_image);
	return pid;
}

/* Moves a descriptor up; closes the old one. */
static int raise_fd(int fd)
{
	int high = high_dup(fd);

	close(fd);
	return high;
}

static int spawn(const char *const *argv, int image, struct spawned *s)
{
	int channel[2], errors[2], err = -EMFILE, size = BUFFER;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel))
		return -errno;
	if (pipe2(errors, O_CLOEXEC)) {
		err = -errno;
		close(channel[0]);
		close(channel[1]);
		return err;
	}
	channel[1] = raise_fd(channel[1]);
	errors[1] = raise_fd(errors[1]);
	if (channel[1] < 0 || errors[1] < 0)
		goto out_close;
	/* Only our end doesn't block. */
	fcntl(channel[0], F_SETFL, O_NONBLOCK);
	fcntl(errors[0], F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 2; i++)
		setsockopt(channel[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	s->pid = fork_sandbox(argv, channel[1], errors[1], image);
	err = s->pid;
	if (s->pid < 0)
		goto out_close;
	s->pidfd = pidfd_open(s->pid, 0);
	err = -errno;
	if (s->pidfd < 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
		goto out_close;
	}
	close(channel[1]);
	close(errors[1]);
	s->channel = channel[0];
	s->errors = errors[0];
	return 0;
out_close:
	for (int i = 0; i < 2; i++) {
		if (channel[i] >= 0)
			close(channel[i]);
		if (errors[i] >= 0)
			close(errors[i]);
	}
	return err;
}

int spawn_cold(const struct function_config *fc, struct spawned *s)
{
	struct arguments a = {0};
	char kind[32], memory[24], pids[24];
	int err = -ENOMEM;

	if (fc->kind == FN_HTTP && fc->port)
		snprintf(kind, sizeof(kind), "http:%u", (unsigned int)fc->port);
	else
		snprintf(kind, sizeof(kind), "%s", kind_name(fc->kind));
	snprintf(memory, sizeof(memory), "%llu", (unsigned long long)fc->limits.memory);
	snprintf(pids, sizeof(pids), "%llu", (unsigned long long)fc->limits.pids);
	arg(&a, server.kvmsbox);
	arg(&a, "exec");
	option(&a, "--channel", "3");
	option(&a, "--function", kind);
	option(&a, "--platform", fc->platform);
	option(&a, "--memory", memory);
	option(&a, "--pids-limit", pids);
	option(&a, "--user", fc->user);
	option(&a, "--cwd", fc->cwd);
	option(&a, "--hostname", fc->hostname);
	option(&a, "--cache", server.config->cache);
	if (fc->read_only)
		arg(&a, "--read-only");
	arg(&a, "--no-tty");
	for (size_t i = 0; i < fc->env.n; i++)
		option(&a, "--env", fc->env.v[i]);
	arg(&a, fc->image);
	arg(&a, "--");
	for (char **c = fc->command; c && *c; c++)
		arg(&a, *c);
	if (!a.failed)
		err = spawn(a.v, -1, s);
	free(a.v);
	return err;
}

int spawn_restore(int image_fd, struct spawned *s)
{
	const char *image[] = {server.kvmsbox, "restore", "--channel", "3",
			       "--image-fd",   "4",	  NULL};

	return spawn(image, image_fd, s);
}

int spawn_blank(const char *platform, struct spawned *s)
{
	const char *blank[] = {server.kvmsbox, "restore",    "--channel", "3",
			       "--blank",      "--platform", platform,	  NULL};

	return spawn(blank, -1, s);
}
