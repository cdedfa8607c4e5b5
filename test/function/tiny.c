/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least of drivers, for machines without Python: a stdio function, its resets and its copies.
 *
 *	tiny KVMSBOX PLATFORM IMAGE COMMAND REQUESTS COPIES
 *
 * COMMAND answers "clean BODY" (scribble.c). Prints a line per sandbox and a closing one.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sentry/fnchan.h"

struct sandbox {
	int channel;
	pid_t pid;
};

static int passed, failed;

static void check(const char *what, int ok)
{
	printf("%s %s\n", ok ? "ok" : "not ok", what);
	fflush(stdout);
	*(ok ? &passed : &failed) += 1;
}

static struct sandbox start(char *const *argv_before, char *const *argv_after, int keep)
{
	struct sandbox s = {.channel = -1};
	char *argv[32], number[16], image[16];
	int pair[2], n = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
		exit(2);
	snprintf(number, sizeof(number), "%d", pair[1]);
	snprintf(image, sizeof(image), "%d", keep);
	s.pid = fork();
	if (!s.pid) {
		close(pair[0]);
		for (; *argv_before; argv_before++)
			argv[n++] = *argv_before;
		argv[n++] = "--channel";
		argv[n++] = number;
		if (keep >= 0) {
			argv[n++] = "--image-fd";
			argv[n++] = image;
		}
		for (; *argv_after; argv_after++)
			argv[n++] = *argv_after;
		argv[n] = NULL;
		execv(argv[0], argv);
		_exit(127);
	}
	close(pair[1]);
	s.channel = pair[0];
	return s;
}

/* The next message: its type, 0 when the channel has ended. Data goes behind *@len in @out. */
static unsigned int receive(struct sandbox *s, struct fn_msg *m, char *out, size_t *len, int *fd)
{
	static char data[FN_DATA_MAX];
	struct iovec iov[2] = {{m, sizeof(*m)}, {data, sizeof(data)}};
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int))];
	} c = {0};
	struct msghdr h = {.msg_iov = iov,
			   .msg_iovlen = 2,
			   .msg_control = &c,
			   .msg_controllen = sizeof(c)};
	ssize_t n = recvmsg(s->channel, &h, 0);

	if (n < (ssize_t)sizeof(*m))
		return 0;
	if (fd && h.msg_controllen)
		memcpy(fd, CMSG_DATA(&c.h), sizeof(*fd));
	if (m->type == FN_FAILED || m->type == FN_STDERR)
		fprintf(stderr, "%.*s\n", (int)m->len, data);
	if (out && (m->type == FN_STDOUT || m->type == FN_DONE) && *len + m->len < 4096) {
		memcpy(out + *len, data, m->len);
		*len += m->len;
	}
	return m->type;
}

static int wait_for(struct sandbox *s, unsigned int type, struct fn_msg *m, char *out, size_t *len,
		    int *fd)
{
	unsigned int got;

	do {
		got = receive(s, m, out, len, fd);
	} while (got && got != type && got != FN_FAILED);
	return got == type;
}

static int request(struct sandbox *s, const char *body)
{
	struct fn_msg m = {.type = FN_INVOKE, .flags = FN_END_OF_DATA};
	struct iovec iov[2] = {{&m, sizeof(m)}, {(void *)body, strlen(body)}};
	char out[4096], want[256];
	size_t len = 0;

	m.len = (unsigned int)strlen(body);
	m.invoke.deadline_ns = 120000000000ULL;
	if (writev(s->channel, iov, 2) < 0 || !wait_for(s, FN_DONE, &m, out, &len, NULL))
		return 0;
	out[len] = 0;
	snprintf(want, sizeof(want), "clean %s\n", body);
	if (strcmp(out, want))
		printf("    %s", out);
	return !strcmp(out, want) && wait_for(s, FN_READY, &m, NULL, NULL, NULL);
}

static void requests(struct sandbox *s, int n, const char *what)
{
	char body[64];
	int ok = 1;

	for (int i = 0; i < n && ok; i++) {
		snprintf(body, sizeof(body), "secret-%d-%d", (int)s->pid, i);
		ok = request(s, body);
	}
	check(what, ok);
}

int main(int argc, char **argv)
{
	struct fn_msg m = {.type = FN_SNAPSHOT};
	struct sandbox s, copy;
	int fd = -1;

	if (argc != 7)
		return 2;
	alarm(1200);
	signal(SIGPIPE, SIG_IGN);
	s = start((char *[]){argv[1], "exec", "--platform", argv[2], "--function", "stdio", NULL},
		  (char *[]){argv[3], "--", argv[4], NULL}, -1);
	check("the snapshot point", wait_for(&s, FN_READY, &m, NULL, NULL, NULL));
	requests(&s, atoi(argv[5]), "requests, set back after each");
	m = (struct fn_msg){.type = FN_SNAPSHOT};
	check("an image", write(s.channel, &m, sizeof(m)) == sizeof(m) &&
				  wait_for(&s, FN_IMAGE, &m, NULL, NULL, &fd) && fd >= 0);
	for (int i = 0; i < atoi(argv[6]); i++) {
		copy = start((char *[]){argv[1], "restore", NULL}, (char *[]){NULL}, fd);
		check("a copy", wait_for(&copy, FN_READY, &m, NULL, NULL, NULL));
		requests(&copy, atoi(argv[5]), "its requests");
		close(copy.channel);
		waitpid(copy.pid, NULL, 0);
	}
	requests(&s, 2, "the first one goes on");
	close(s.channel);
	waitpid(s.pid, NULL, 0);
	printf("%d passed, %d failed, 0 skipped\n", passed, failed);
	return failed != 0;
}
