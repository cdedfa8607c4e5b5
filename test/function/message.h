/* SPDX-License-Identifier: Apache-2.0 */
/* Just enough of HTTP, and of AWS Lambda's runtime interface, for functions that are tests. */
#ifndef TEST_FUNCTION_MESSAGE_H
#define TEST_FUNCTION_MESSAGE_H

#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static inline int listener(uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s, (void *)&sin, sizeof(sin)) || listen(s, 16))
		exit(1);
	return s;
}

/* A whole message: head and body. Its length, 0 at the end of the connection. */
static inline size_t read_message(int fd, char *buf, size_t size, char **text, size_t *len)
{
	size_t n = 0, want = size;
	char *end = NULL, *cl;

	while (n < want) {
		ssize_t got = read(fd, buf + n, size - 1 - n);

		if (got <= 0)
			return 0;
		n += (size_t)got;
		buf[n] = 0;
		if (!end && (end = strstr(buf, "\r\n\r\n"))) {
			cl = strcasestr(buf, "\r\ncontent-length:");
			*text = end + 4;
			*len = cl && cl < end ? strtoul(cl + 17, NULL, 10) : 0;
			want = (size_t)(*text - buf) + *len;
		}
	}
	return n;
}

static inline void http_answer(int fd, const char *text, size_t len)
{
	dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%.*s", len, (int)len, text);
}

static inline int lambda_connect(void)
{
	const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons((uint16_t)atoi(strchr(api, ':') + 1)),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (void *)&sin, sizeof(sin)))
		exit(1);
	return fd;
}

/* The next invocation's event and identifier. 0: the connection has ended. */
static inline int lambda_next(int fd, char *buf, size_t size, char **text, size_t *len, char id[64])
{
	const char *at;

	dprintf(fd, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: api\r\n\r\n");
	if (!read_message(fd, buf, size, text, len))
		return 0;
	at = strcasestr(buf, "lambda-runtime-aws-request-id:");
	return at && sscanf(at + 30, " %63[^\r]", id) == 1;
}

static inline int lambda_answer(int fd, const char *id, const char *text, size_t len, char *buf,
				size_t size)
{
	char *answer;
	size_t n;

	dprintf(fd,
		"POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: api\r\n"
		"Content-Length: %zu\r\n\r\n%.*s",
		id, len, (int)len, text);
	return read_message(fd, buf, size, &answer, &n) != 0;
}

#endif
