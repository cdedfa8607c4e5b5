/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets and their certificates. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/kvmsbox-serve/client.h"

#define BACKLOG	  1024
#define MAX_BATCH 16
#define PAUSE	  (100 * MSEC)

static struct listener *listeners;

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *len,
		       const unsigned char *in, unsigned int n, void *arg)
{
	static const unsigned char ours[] = "\x08http/1.1";

	if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, len, ours, sizeof(ours) - 1, in,
				  n) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *load_tls(const struct listen_config *lc, struct buf *errors)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	const char *file = lc->cert;

	if (!ctx)
		goto out_error;
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF |
					 SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
	if (SSL_CTX_use_certificate_chain_file(ctx, lc->cert) != 1)
		goto out_error;
	file = lc->key;
	if (SSL_CTX_use_PrivateKey_file(ctx, lc->key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(ctx) != 1)
		goto out_error;
	return ctx;
out_error:
	buf_printf(errors, "listen %s: tls: %s: %s\n", lc->address, file,
		   ERR_reason_error_string(ERR_peek_last_error()) ?: "it can't be read");
	ERR_clear_error();
	SSL_CTX_free(ctx);
	return NULL;
}

static void describe_peer(const struct sockaddr_storage *addr, socklen_t len, char *text, size_t n)
{
	snprintf(text, n, "unix");
	if (addr->ss_family != AF_UNIX)
		getnameinfo((const struct sockaddr *)addr, len, text, (socklen_t)n, NULL, 0,
			    NI_NUMERICHOST);
}

static void accept_again(struct timer *t)
{
	struct listener *l = container_of(t, struct listener, pause);

	watch_set(&l->watch, EPOLLIN);
}

static void listener_ready(struct watch *w, uint32_t events)
{
	struct listener *l = container_of(w, struct listener, watch);
	struct sockaddr_storage addr;
	socklen_t len;
	char peer[64];
	int fd, one = 1;

	for (int k = 0; k < MAX_BATCH && w->fd >= 0; k++) {
		len = sizeof(addr);
		fd = accept4(w->fd, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			    errno == ENOBUFS) {
				watch_set(w, 0);
				timer_set(&l->pause, loop_now() + PAUSE);
			}
			return;
		}
		if (!l->unix_socket)
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		describe_peer(&addr, len, peer, sizeof(peer));
		client_accepted(l, fd, peer);
	}
}

/* Somebody's socket that nobody listens on any more makes way. */
static bool is_stale(const struct sockaddr_un *addr)
{
	struct stat st;
	int fd, err;

	if (lstat(addr->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	err = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) ? errno : 0;
	close(fd);
	return err == ECONNREFUSED;
}

static int listen_unix(const struct listen_config *lc, struct listener *l)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	mode_t old;
	int fd, err;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", lc->address + 5);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (is_stale(&addr))
		unlink(addr.sun_path);
	old = umask(0777 & ~(mode_t)lc->mode);
	err = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ? -errno : 0;
	umask(old);
	if (!err)
		l->path = strdup(addr.sun_path);
	if (!err && listen(fd, BACKLOG))
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	l->unix_socket = true;
	return fd;
}

/* 0 or -errno; *why says more about a name. */
static int listen_tcp(const struct listen_config *lc, const char **why)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *ai;
	char host[300], *port;
	int fd = -1, one = 1, err;

	snprintf(host, sizeof(host), "%s", lc->address);
	port = strrchr(host, ':');
	*port++ = 0;
	if (host[0] == '[' && port - host > 2 && port[-2] == ']') {
		port[-2] = 0;
		memmove(host, host + 1, strlen(host));
	}
	err = getaddrinfo(host, port, &hints, &ai);
	if (err) {
		*why = gai_strerror(err);
		return -EINVAL;
	}
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	err = fd < 0 ? -errno : 0;
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, BACKLOG)) {
			err = -errno;
			close(fd);
		}
	}
	freeaddrinfo(ai);
	return err ?: fd;
}

static void log_listening(const struct listener *l)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	char port[16] = "";
	struct log_line line;

	if (!log_begin(&line, LOG_INFO, "listening"))
		return;
	log_str(&line, "address", l->config->address);
	if (!l->unix_socket && !getsockname(l->watch.fd, (struct sockaddr *)&addr, &len) &&
	    !getnameinfo((struct sockaddr *)&addr, len, NULL, 0, port, sizeof(port),
			 NI_NUMERICSERV))
		log_str(&line, "port", port);
	log_str(&line, "for", l->admin ? "admin" : "functions");
	log_str(&line, "tls", l->tls ? "yes" : "no");
	log_end(&line);
}

/* No more connections. */
static void listener_close(struct listener *l)
{
	int fd = l->watch.fd;

	timer_del(&l->pause);
	watch_del(&l->watch);
	if (fd >= 0)
		close(fd);
	if (l->path)
		unlink(l->path);
}

static void listener_free(struct listener *l)
{
	listener_close(l);
	SSL_CTX_free(l->tls);
	free(l->path);
	free(l);
}

static int open_one(const struct listen_config *lc, bool admin, struct buf *errors)
{
	struct listener *l = calloc(1, sizeof(*l));
	const char *why = NULL;
	int fd, err;

	if (!l)
		return -ENOMEM;
	l->watch = (struct watch){.ready = listener_ready, .fd = -1};
	l->pause.fire = accept_again;
	l->config = lc;
	l->admin = admin;
	if (lc->cert) {
		l->tls = load_tls(lc, errors);
		if (!l->tls) {
			listener_free(l);
			return -EINVAL;
		}
	}
	fd = !strncmp(lc->address, "unix:", 5) ? listen_unix(lc, l) : listen_tcp(lc, &why);
	err = fd < 0 ? fd : watch_add(&l->watch, fd, EPOLLIN);
	if (err) {
		buf_printf(errors, "listen %s: %s\n", lc->address, why ?: strerror(-err));
		if (fd >= 0)
			close(fd);
		listener_free(l);
		return err;
	}
	l->next = listeners;
	listeners = l;
	log_listening(l);
	return 0;
}

int listeners_open(const struct config *c, struct buf *errors)
{
	int err;

	for (size_t k = 0; k < c->nlisten; k++) {
		err = open_one(&c->listen[k], false, errors);
		if (err)
			return err;
	}
	return c->admin.address ? open_one(&c->admin, true, errors) : 0;
}

int listeners_reload_tls(struct buf *errors)
{
	int ret = 0;
	SSL_CTX *ctx;

	for (struct listener *l = listeners; l; l = l->next) {
		if (!l->tls)
			continue;
		ctx = load_tls(l->config, errors);
		if (!ctx) {
			ret = -EINVAL;
			continue;
		}
		SSL_CTX_free(l->tls);
		l->tls = ctx;
	}
	return ret;
}

void listeners_close(void)
{
	/* Connections still look at theirs. */
	for (struct listener *l = listeners; l; l = l->next)
		listener_close(l);
}
