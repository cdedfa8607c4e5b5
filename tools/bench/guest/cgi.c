/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgi [-i ID] PROGRAM [ARGUMENT…]: an HTTP server that forks and executes PROGRAM for each request,
 * its output being the answer: what functions are compared with. Prints the port it listens on (of
 * 127.0.0.1) and ends with its input.
 *
 * One thread per connection, which is kept; a body is PROGRAM's input. An argument that is ID has a
 * number added, another one each time: OCI runtimes want names for their containers.
 */
#include "tools/bench/guest/guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_HEAD   8192
#define MAX_OUTPUT 65536
#define MAX_WORDS  64

static char **program;
static const char *id;
static atomic_uint serial;

struct request {
	char head[MAX_HEAD + 1];
	size_t used; /* of head, with what follows it */
	size_t head_len, body_len;
};

void fail(const char *what)
{
	fprintf(stderr, "cgi: %s: %s\n", what, strerror(errno));
	exit(1);
}

static bool write_all(int fd, const char *p, size_t n)
{
	ssize_t k;

	while (n) {
		k = write(fd, p, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return false;
		p += k;
		n -= (size_t)k;
	}
	return true;
}

/* The head and the body, which has to fit as well. */
static bool read_request(int fd, struct request *r)
{
	const char *end = NULL, *length;
	ssize_t n;

	for (;;) {
		r->head[r->used] = 0;
		if (!end && (end = strstr(r->head, "\r\n\r\n"))) {
			r->head_len = (size_t)(end - r->head) + 4;
			length = strcasestr(r->head, "\r\nContent-Length:");
			r->body_len = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
			if (r->body_len > MAX_HEAD - r->head_len)
				return false;
		}
		if (end && r->used >= r->head_len + r->body_len)
			return true;
		if (r->used == MAX_HEAD)
			return false;
		n = read(fd, r->head + r->used, MAX_HEAD - r->used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		r->used += (size_t)n;
	}
}

/* Runs the program; its output goes to @out. Returns its length, or -1. */
static ssize_t run(const struct request *r, char *out, size_t size)
{
	char *argv[MAX_WORDS + 1], name[300];
	int in[2], from[2], i, status;
	size_t used = 0;
	ssize_t n = 0;
	pid_t pid;

	for (i = 0; i < MAX_WORDS && program[i]; i++)
		argv[i] = program[i];
	argv[i] = NULL;
	for (i = 0; id && argv[i]; i++) {
		if (!strcmp(argv[i], id)) {
			snprintf(name, sizeof(name), "%s-%u", id, atomic_fetch_add(&serial, 1));
			argv[i] = name;
		}
	}
	if (pipe2(in, O_CLOEXEC))
		return -1;
	if (pipe2(from, O_CLOEXEC)) {
		close(in[0]);
		close(in[1]);
		return -1;
	}
	pid = fork();
	if (!pid) {
		dup2(in[0], STDIN_FILENO);
		dup2(from[1], STDOUT_FILENO);
		execv(argv[0], argv);
		_exit(127);
	}
	close(in[0]);
	close(from[1]);
	/* A body fits a pipe; a program that doesn't want it is no failure. */
	if (pid > 0 && r->body_len)
		write_all(in[1], r->head + r->head_len, r->body_len);
	close(in[1]);
	while (pid > 0 && used < size) {
		n = read(from[0], out + used, size - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	close(from[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status || n < 0)
		return -1;
	return (ssize_t)used;
}

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	struct request *r = calloc(1, sizeof(*r));
	char *answer = malloc(MAX_OUTPUT + 200);
	char *out = answer ? answer + 200 : NULL, head[200];
	ssize_t n;
	int k;

	while (r && answer && read_request(fd, r)) {
		n = run(r, out, MAX_OUTPUT);
		k = snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nContent-Length: %zd\r\n\r\n",
			     n < 0 ? "502 Bad Gateway" : "200 OK", n < 0 ? 0 : n);
		/* In one piece: as good as a server gets. */
		memcpy(out - k, head, (size_t)k);
		if (!write_all(fd, out - k, (size_t)k + (n < 0 ? 0 : (size_t)n)))
			break;
		k = (int)(r->head_len + r->body_len);
		r->used -= (size_t)k;
		memmove(r->head, r->head + k, r->used);
	}
	free(answer);
	free(r);
	close(fd);
	return NULL;
}

__attribute__((noreturn)) static void *accept_all(void *arg)
{
	int listener = (int)(intptr_t)arg, fd, one = 1;
	pthread_t t;

	for (;;) {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (pthread_create(&t, NULL, serve, (void *)(intptr_t)fd))
			close(fd);
		else
			pthread_detach(t);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);
	pthread_t t;
	int c, fd;

	while ((c = getopt(argc, argv, "+i:")) != -1) {
		if (c != 'i')
			return 2;
		id = optarg;
	}
	program = argv + optind;
	if (!*program) {
		fprintf(stderr, "usage: cgi [-i ID] PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 256) ||
	    getsockname(fd, (struct sockaddr *)&addr, &len))
		fail("can't listen");
	if (pthread_create(&t, NULL, accept_all, (void *)(intptr_t)fd))
		fail("pthread_create");
	printf("%u\n", ntohs(addr.sin_port));
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}
