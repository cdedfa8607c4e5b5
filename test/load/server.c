/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server that kvmsbox invoke and kvmsbox load are tested against: right, slow or wrong, as the
 * path asks (see answer()). A thread per connection.
 *
 *	server [--tls CERT KEY] tcp|unix:PATH
 *
 * Prints the port it has on 127.0.0.1 (or the path) when it listens, and ends when its standard
 * input does.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 16384

struct peer {
	int fd;
	SSL *ssl;
	char buf[HEAD_MAX + 1];
	size_t have; /* bytes in buf */
	/* the request at hand */
	char method[16], path[1024], head[HEAD_MAX + 1];
	size_t length;
	char *body;
};

static SSL_CTX *tls;
static atomic_ulong requests, connections, now_open, most_open;
/* Every request holds it for reading while it is answered; a stall holds it for writing. */
static pthread_rwlock_t stall = PTHREAD_RWLOCK_INITIALIZER;

static void sleep_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&ts, NULL);
}

static bool put(struct peer *p, const char *data, size_t n)
{
	while (n) {
		ssize_t done = p->ssl ? SSL_write(p->ssl, data, (int)n)
				      : send(p->fd, data, n, MSG_NOSIGNAL);

		if (done <= 0)
			return false;
		data += done;
		n -= (size_t)done;
	}
	return true;
}

__attribute__((format(printf, 2, 3))) static bool say(struct peer *p, const char *fmt, ...)
{
	char text[HEAD_MAX + 2048];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return put(p, text, (size_t)n);
}

static bool more(struct peer *p)
{
	ssize_t n = p->ssl ? SSL_read(p->ssl, p->buf + p->have, (int)(HEAD_MAX - p->have))
			   : recv(p->fd, p->buf + p->have, HEAD_MAX - p->have, 0);

	if (n <= 0)
		return false;
	p->have += (size_t)n;
	p->buf[p->have] = 0;
	return true;
}

static void drop(struct peer *p, size_t n)
{
	memmove(p->buf, p->buf + n, p->have - n);
	p->have -= n;
	p->buf[p->have] = 0;
}

static bool read_head(struct peer *p)
{
	char *end, *field;

	while (!(end = strstr(p->buf, "\r\n\r\n"))) {
		if (p->have == HEAD_MAX || !more(p))
			return false;
		/* TLS, for one. */
		if (p->buf[0] < 'A' || p->buf[0] > 'Z') {
			say(p, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
			return false;
		}
	}
	memcpy(p->head, p->buf, (size_t)(end - p->buf) + 2);
	p->head[end - p->buf + 2] = 0;
	drop(p, (size_t)(end - p->buf) + 4);
	if (sscanf(p->head, "%15s %1023s", p->method, p->path) != 2)
		return false;
	field = strcasestr(p->head, "\r\nContent-Length:");
	p->length = field ? strtoul(field + 17, NULL, 10) : 0;
	return true;
}

static bool read_body(struct peer *p)
{
	size_t got = 0, n;

	p->body = malloc(p->length + 1);
	while (got < p->length) {
		if (!p->have && !more(p))
			return false;
		n = p->have < p->length - got ? p->have : p->length - got;
		memcpy(p->body + got, p->buf, n);
		drop(p, n);
		got += n;
	}
	p->body[got] = 0;
	return true;
}

static bool plain(struct peer *p, int status, const char *more_head, const char *text)
{
	return say(p, "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\n%s\r\n%s", status, strlen(text),
		   more_head, strcmp(p->method, "HEAD") ? text : "");
}

static const char chunks[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
			     "3\r\nfir\r\n4;x=y\r\nst, \r\na\r\nthen nothi\r\n2\r\nng\r\n0\r\nT: t\r\n\r\n";

/* Returns false to close the connection. */
static bool answer(struct peer *p)
{
	const char *slash = strrchr(p->path, '/');
	int arg = slash ? atoi(slash + 1) : 0;
	char text[256];

#define IS(name) (!strncmp(p->path, "/" name, sizeof(name)))
	if (IS("slow/")) {
		sleep_ms(arg);
		return plain(p, 200, "", "slow\n");
	}
	if (IS("status/")) {
		snprintf(text, sizeof(text), "status %d\n", arg);
		return plain(p, arg, "", text);
	}
	if (IS("exit/")) {
		snprintf(text, sizeof(text), "X-Kvmsbox-Exit-Status: %d\r\n", arg);
		return plain(p, 200, text, "what it printed\n");
	}
	if (IS("full"))
		return plain(p, 429, "X-Kvmsbox-Error: queue-full\r\n", "full\n");
	if (IS("flaky/"))
		return plain(p, atomic_load(&requests) % (unsigned long)arg ? 200 : 500, "", "maybe\n");
	if (IS("echo"))
		return say(p, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", p->length) &&
		       put(p, p->body, p->length);
	if (IS("head"))
		return plain(p, 200, "", p->head);
	if (IS("auth")) {
		if (strstr(p->head, "\r\nAuthorization: Bearer secret\r\n"))
			return plain(p, 200, "", "let in\n");
		return plain(p, 401, "", "who are you?\n");
	}
	if (IS("count")) {
		snprintf(text, sizeof(text), "requests %lu connections %lu most %lu\n",
			 atomic_load(&requests), atomic_load(&connections), atomic_load(&most_open));
		return plain(p, 200, "", text);
	}
	if (IS("chunked"))
		return put(p, chunks, sizeof(chunks) - 1);
	if (IS("split")) {
		for (size_t i = 0; i < sizeof(chunks) - 1; i++) {
			if (!put(p, chunks + i, 1))
				return false;
			sleep_ms(1);
		}
		return true;
	}
	if (IS("continue"))
		return say(p, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n") &&
		       plain(p, 200, "", "at last\n");
	if (IS("large")) {
		char *big = calloc(1, 10000000);
		bool ok = big && say(p, "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n") &&
			  put(p, big, 10000000);

		free(big);
		return ok;
	}
	if (IS("close"))
		return plain(p, 200, "Connection: close\r\n", "and gone\n") && false;
	if (IS("silent"))
		return plain(p, 200, "", "and gone\n") && false;
	if (IS("eof"))
		return say(p, "HTTP/1.0 200 OK\r\n\r\nuntil the end\n") && false;
	if (IS("extra"))
		return say(p, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more\n");
	if (IS("cut"))
		return say(p, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this") && false;
	if (IS("half"))
		return say(p, "HTTP/1.1 20") && false;
	if (IS("garbage"))
		return say(p, "this is no HTTP\r\n\r\n") && false;
	if (IS("drop"))
		return false;
	if (IS("never"))
		return more(p);
	if (IS("ok"))
		return plain(p, 200, "", "hello\n");
	return plain(p, 404, "", "no such function\n");
#undef IS
}

/* Returns false to close the connection. */
static bool serve_one(struct peer *p)
{
	bool keep;

	if (!read_head(p))
		return false;
	atomic_fetch_add(&requests, 1);
	if (!strncmp(p->path, "/early", 6)) {
		plain(p, 413, "Connection: close\r\n", "too much\n");
		shutdown(p->fd, SHUT_WR);
		sleep_ms(300);
		return false;
	}
	if (!strncmp(p->path, "/stall/", 7)) {
		pthread_rwlock_wrlock(&stall);
		sleep_ms(atoi(p->path + 7));
		pthread_rwlock_unlock(&stall);
		return plain(p, 200, "", "stalled\n");
	}
	keep = read_body(p);
	if (keep) {
		pthread_rwlock_rdlock(&stall);
		pthread_rwlock_unlock(&stall);
		keep = answer(p) && !strcasestr(p->head, "\r\nConnection: close");
	}
	free(p->body);
	p->body = NULL;
	return keep;
}

static void *serve(void *arg)
{
	struct peer *p = arg;
	unsigned long open = atomic_fetch_add(&now_open, 1) + 1, most = atomic_load(&most_open);

	while (open > most && !atomic_compare_exchange_weak(&most_open, &most, open))
		;
	if (tls) {
		p->ssl = SSL_new(tls);
		SSL_set_fd(p->ssl, p->fd);
	}
	if (!p->ssl || SSL_accept(p->ssl) == 1) {
		while (serve_one(p))
			;
		if (p->ssl)
			SSL_shutdown(p->ssl);
	}
	SSL_free(p->ssl);
	close(p->fd);
	free(p);
	atomic_fetch_sub(&now_open, 1);
	return NULL;
}

static void *end_with_stdin(void *arg)
{
	char c;

	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	exit(0);
}

static int listen_tcp(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(in);

	if (fd < 0 || bind(fd, (struct sockaddr *)&in, len) || listen(fd, 512) ||
	    getsockname(fd, (struct sockaddr *)&in, &len))
		err(1, "tcp");
	printf("%d\n", ntohs(in.sin_port));
	return fd;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	/* A queue of two: connections find it full. */
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) || listen(fd, 1))
		err(1, "%s", path);
	printf("%s\n", path);
	return fd;
}

int main(int argc, char **argv)
{
	pthread_attr_t small;
	pthread_t thread;
	int fd, one = 1;

	signal(SIGPIPE, SIG_IGN);
	if (argc > 3 && !strcmp(argv[1], "--tls")) {
		tls = SSL_CTX_new(TLS_server_method());
		if (SSL_CTX_use_certificate_chain_file(tls, argv[2]) != 1 ||
		    SSL_CTX_use_PrivateKey_file(tls, argv[3], SSL_FILETYPE_PEM) != 1)
			errx(1, "%s, %s: no certificate and key", argv[2], argv[3]);
		argv += 3;
		argc -= 3;
	}
	if (argc != 2)
		errx(1, "usage: server [--tls CERT KEY] tcp|unix:PATH");
	fd = strncmp(argv[1], "unix:", 5) ? listen_tcp() : listen_unix(argv[1] + 5);
	fflush(stdout);
	pthread_attr_init(&small);
	pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&small, 262144);
	pthread_create(&thread, &small, end_with_stdin, NULL);
	for (;;) {
		struct peer *p = calloc(1, sizeof(*p));

		p->fd = accept(fd, NULL, NULL);
		if (p->fd < 0)
			err(1, "accept");
		setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		atomic_fetch_add(&connections, 1);
		if (pthread_create(&thread, &small, serve, p))
			errx(1, "no more threads");
	}
}
