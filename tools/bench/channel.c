/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a function channel: starts sandboxes that serve a function and copies of them, as
 * kvmsbox serve does, but one at a time and with nothing else in between.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sentry/fnchan.h"

#define CHANNEL_FD  "3"
#define IMAGE_FD    "4"
#define LIMIT_S	    30
#define DEADLINE_NS 20000000000ull

static char *log_path(const struct bench *b)
{
	return format("%s/functions.log", b->scratch);
}

int function_log(struct bench *b)
{
	char *path = log_path(b);
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		bench_fail(b, "can't write %s: %s", path, strerror(errno));
	free(path);
	return fd;
}

const char *function_last_words(struct bench *b)
{
	static char last[300];
	char line[300], *path = log_path(b);
	FILE *f = fopen(path, "re");

	last[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (*line)
			strcpy(last, line);
	}
	if (f)
		fclose(f);
	free(path);
	return *last ? last : "no reason given";
}

/* Starts @argv with a channel at descriptor 3 and @image, if there is one, at 4. */
static int start(struct bench *b, const struct column *col, const char *const *argv, int image,
		 struct sandbox *s)
{
	const struct timeval limit = {.tv_sec = LIMIT_S};
	int pair[2], fds[5], null, log;

	s->channel = -1;
	s->pid = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return bench_fail(b, "socketpair: %s", strerror(errno));
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	log = function_log(b);
	fds[0] = null;
	fds[1] = fds[2] = log;
	fds[3] = pair[1];
	fds[4] = image;
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	s->start_ns = clock_ns();
	if (log >= 0)
		s->pid = host_start(b, argv, column_env(col), fds, image < 0 ? 4 : 5);
	close(pair[1]);
	close(null);
	close(log);
	if (s->pid < 0) {
		close(pair[0]);
		return -1;
	}
	s->channel = pair[0];
	return 0;
}

int sandbox_start(struct bench *b, const struct column *col, enum image image,
		  const char *const *argv, struct sandbox *s)
{
	const char *v[MAX_ARGS * 2] = {col->path,   "exec",	"--no-tty",
				       "--channel", CHANNEL_FD, "--function",
				       "stdio",	    "--cache",	b->cache[image]};
	int n = 9, i;

	for (i = 0; col->words[i]; i++)
		v[n++] = col->words[i];
	v[n++] = b->image[image];
	v[n++] = "--";
	for (i = 0; argv[i]; i++)
		v[n++] = argv[i];
	return start(b, col, v, -1, s);
}

int sandbox_restore(struct bench *b, const struct column *col, int image, struct sandbox *s)
{
	const char *v[MAX_ARGS] = {col->path, "restore", "--channel", CHANNEL_FD};
	int n = 4;

	/* A blank has its platform up before it knows what it will be: it has to be told which. */
	if (image < 0) {
		v[n++] = "--blank";
		v[n++] = col->words[0];
		v[n++] = col->words[1];
	} else {
		v[n++] = "--image-fd";
		v[n++] = IMAGE_FD;
	}
	return start(b, col, v, image, s);
}

static int sent(struct bench *b, ssize_t n, size_t want)
{
	return n == (ssize_t)want
		       ? 0
		       : bench_fail(b, "the channel is closed: %s", function_last_words(b));
}

int sandbox_become(struct bench *b, struct sandbox *s, const int image[FN_IMAGE_FDS])
{
	struct fn_msg m = {.type = FN_IMAGE};
	struct iovec iov = {&m, sizeof(m)};
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(FN_IMAGE_FDS * sizeof(int))];
	} c = {.h = {.cmsg_level = SOL_SOCKET,
		     .cmsg_type = SCM_RIGHTS,
		     .cmsg_len = CMSG_LEN(FN_IMAGE_FDS * sizeof(int))}};
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof(c)};

	memcpy(CMSG_DATA(&c.h), image, FN_IMAGE_FDS * sizeof(int));
	return sent(b, sendmsg(s->channel, &h, MSG_NOSIGNAL), sizeof(m));
}

/*
 * Messages until one of @type, which is left in @m. Output is collected in @out, if there is one;
 * descriptors that came are left in @fds.
 */
static int receive(struct bench *b, struct sandbox *s, unsigned int type, struct fn_msg *m,
		   char *out, size_t size, int *fds)
{
	static char data[FN_DATA_MAX];
	size_t used = 0;

	for (;;) {
		struct iovec iov[2] = {{m, sizeof(*m)}, {data, sizeof(data)}};
		union {
			struct cmsghdr h;
			char space[CMSG_SPACE(FN_IMAGE_FDS * sizeof(int))];
		} c = {0};
		struct msghdr h = {.msg_iov = iov,
				   .msg_iovlen = 2,
				   .msg_control = &c,
				   .msg_controllen = sizeof(c)};
		ssize_t n = recvmsg(s->channel, &h, MSG_CMSG_CLOEXEC);

		if (n < 0 && errno == EINTR && !interrupted)
			continue;
		if (n < 0)
			return bench_fail(b, "%s",
					  interrupted	    ? "interrupted"
					  : errno == EAGAIN ? "no message within 30 s"
							    : strerror(errno));
		if (n < (ssize_t)sizeof(*m) || m->len != (size_t)n - sizeof(*m))
			return bench_fail(b, "the sandbox ended: %s", function_last_words(b));
		if (h.msg_controllen && c.h.cmsg_type == SCM_RIGHTS && fds &&
		    c.h.cmsg_len == CMSG_LEN(FN_IMAGE_FDS * sizeof(int)))
			memcpy(fds, CMSG_DATA(&c.h), FN_IMAGE_FDS * sizeof(int));
		if (m->type == FN_FAILED)
			return bench_fail(b, "%.*s", (int)m->len, data);
		if (out && (m->type == FN_STDOUT || m->type == FN_DONE)) {
			if (m->len > size - 1 - used)
				return bench_fail(b, "the answer is too long");
			memcpy(out + used, data, m->len);
			used += m->len;
			out[used] = 0;
		}
		if (m->type == type)
			return 0;
	}
}

int sandbox_ready(struct bench *b, struct sandbox *s, struct fn_msg *ready)
{
	if (receive(b, s, FN_READY, ready, NULL, 0, NULL))
		return -1;
	if (ready->ready.version != FN_VERSION)
		return bench_fail(b, "the sandbox speaks version %u of the protocol, not %u",
				  ready->ready.version, FN_VERSION);
	return 0;
}

int sandbox_invoke(struct bench *b, struct sandbox *s, const char *body)
{
	struct fn_msg m = {.type = FN_INVOKE, .flags = FN_END_OF_DATA};
	struct iovec iov[2] = {{&m, sizeof(m)}, {(void *)(uintptr_t)body, strlen(body)}};
	static uint64_t serial;

	m.len = (uint32_t)strlen(body);
	m.invoke.id = ++serial;
	m.invoke.deadline_ns = DEADLINE_NS;
	memcpy(m.invoke.entropy, &serial, sizeof(serial));
	return sent(b, writev(s->channel, iov, 2), sizeof(m) + m.len);
}

int sandbox_answer(struct bench *b, struct sandbox *s, const char *want, struct fn_msg *ready)
{
	struct fn_msg m;
	char out[512] = "";

	if (receive(b, s, FN_DONE, &m, out, sizeof(out), NULL))
		return -1;
	if (m.done.status || m.flags || strcmp(out, want))
		return bench_fail(b, "a request ended with status %d, flags %u and '%.60s'",
				  m.done.status, m.flags, out);
	return sandbox_ready(b, s, ready);
}

int sandbox_image(struct bench *b, struct sandbox *s, int image[FN_IMAGE_FDS])
{
	struct fn_msg m = {.type = FN_SNAPSHOT};

	image[0] = -1;
	if (sent(b, send(s->channel, &m, sizeof(m), MSG_NOSIGNAL), sizeof(m)) ||
	    receive(b, s, FN_IMAGE, &m, NULL, 0, image))
		return -1;
	return image[0] < 0 ? bench_fail(b, "a snapshot came without its descriptors") : 0;
}

void sandbox_close(struct sandbox *s)
{
	if (s->channel >= 0)
		close(s->channel);
	s->channel = -1;
}

void sandbox_end(struct sandbox *s)
{
	sandbox_close(s);
	if (s->pid > 0)
		host_end(s->pid);
	s->pid = -1;
}
