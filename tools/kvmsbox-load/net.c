/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-load/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

static int add_address(struct server *s, const void *addr, socklen_t len)
{
	struct sockaddr_storage *addrs = realloc(s->addrs, (s->naddrs + 1) * sizeof(*addrs));
	socklen_t *lens;

	if (!addrs)
		return complain("out of memory");
	s->addrs = addrs;
	lens = realloc(s->addr_lens, (s->naddrs + 1) * sizeof(*lens));
	if (!lens)
		return complain("out of memory");
	s->addr_lens = lens;
	memset(&addrs[s->naddrs], 0, sizeof(*addrs));
	memcpy(&addrs[s->naddrs], addr, len);
	lens[s->naddrs++] = len;
	return 0;
}

/* The host of a URL without an IPv6 address's brackets: the caller's to free. */
static char *bare_host(const char *host)
{
	size_t n = strlen(host);

	return host[0] == '[' && n > 2 ? strndup(host + 1, n - 2) : strdup(host);
}

static int look_up(struct server *s, const struct http_options *o, const struct http_url *url)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *a;
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int err;

	if (o->unix_path) {
		s->name = o->unix_path;
		memcpy(un.sun_path, o->unix_path, strlen(o->unix_path));
		return add_address(s, &un, sizeof(un));
	}
	s->name = url->text;
	err = getaddrinfo(s->host, url->port, &hints, &list);
	if (err)
		return complain("%s: %s: %s: is the host's name right?", o->command, s->host,
				err == EAI_SYSTEM ? strerror(errno) : gai_strerror(err));
	for (a = list; a && !err; a = a->ai_next)
		err = add_address(s, a->ai_addr, a->ai_addrlen);
	freeaddrinfo(list);
	return err;
}

static int set_tls(struct server *s, const struct http_options *o)
{
	s->tls = SSL_CTX_new(TLS_client_method());
	if (!s->tls)
		return complain("%s: OpenSSL can't be started", o->command);
	SSL_CTX_set_mode(s->tls,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* Not every server says that it ends; the HTTP in it tells whether something is missing. */
	SSL_CTX_set_options(s->tls, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_verify(s->tls, o->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	if (o->cacert && SSL_CTX_load_verify_locations(s->tls, o->cacert, NULL) != 1)
		return complain("%s: --cacert %s: there is no PEM certificate in it", o->command,
				o->cacert);
	if (!o->cacert && !o->insecure)
		SSL_CTX_set_default_verify_paths(s->tls);
	ERR_clear_error();
	return 0;
}

int server_init(struct server *s, const struct http_options *o, const struct http_url *url)
{
	int err;

	*s = (struct server){0};
	s->host = bare_host(url->host);
	err = s->host ? look_up(s, o, url) : complain("out of memory");
	if (!err && url->tls)
		err = set_tls(s, o);
	if (err)
		server_fini(s);
	return err;
}

void server_fini(struct server *s)
{
	SSL_CTX_free(s->tls);
	free((char *)s->host);
	free(s->addrs);
	free(s->addr_lens);
	*s = (struct server){0};
}

/* Who the certificate must be of, and what the server is told about that. */
static bool set_peer(SSL *ssl, const struct server *s)
{
	struct in6_addr ip;

	if (inet_pton(AF_INET, s->host, &ip) == 1 || inet_pton(AF_INET6, s->host, &ip) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), s->host);
	return SSL_set_tlsext_host_name(ssl, s->host) && SSL_set1_host(ssl, s->host);
}

int net_open(struct net *c, const struct server *s)
{
	const struct sockaddr_storage *addr = &s->addrs[s->using];
	int one = 1, err;

	c->ssl = NULL;
	c->fd = socket(addr->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	if (s->tls) {
		c->ssl = SSL_new(s->tls);
		if (!c->ssl || !SSL_set_fd(c->ssl, c->fd) || !set_peer(c->ssl, s)) {
			net_close(c);
			return -ENOMEM;
		}
		SSL_set_connect_state(c->ssl);
	}
	if (addr->ss_family != AF_UNIX)
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!connect(c->fd, (const struct sockaddr *)addr, s->addr_lens[s->using]))
		return 0;
	if (errno == EINPROGRESS)
		return -EINPROGRESS;
	err = -errno;
	net_close(c);
	return err;
}

int net_connected(struct net *c)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len))
		return -errno;
	return -err;
}

/* What OpenSSL's answer @ret means. Leaves the reason in its queue for net_why. */
static int ssl_error(SSL *ssl, int ret)
{
	int err = errno;

	switch (SSL_get_error(ssl, ret)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return err ? -err : -ECONNRESET;
	default:
		return -EPROTO;
	}
}

int net_handshake(struct net *c)
{
	int ret;

	if (!c->ssl)
		return 0;
	ERR_clear_error();
	errno = 0;
	ret = SSL_do_handshake(c->ssl);
	if (ret == 1)
		return 0;
	return ssl_error(c->ssl, ret) ?: -ECONNRESET;
}

ssize_t net_send(struct net *c, struct iovec *iov, int n)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};
	size_t done;
	ssize_t ret;

	if (c->ssl) {
		ERR_clear_error();
		errno = 0;
		ret = SSL_write_ex(c->ssl, iov->iov_base, iov->iov_len, &done);
		return ret == 1 ? (ssize_t)done : ssl_error(c->ssl, (int)ret) ?: -EPIPE;
	}
	do
		ret = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : ret;
}

ssize_t net_recv(struct net *c, void *buf, size_t size)
{
	size_t done;
	ssize_t ret;

	if (c->ssl) {
		ERR_clear_error();
		errno = 0;
		ret = SSL_read_ex(c->ssl, buf, size, &done);
		return ret == 1 ? (ssize_t)done : ssl_error(c->ssl, (int)ret);
	}
	do
		ret = recv(c->fd, buf, size, 0);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : ret;
}

void net_close(struct net *c)
{
	SSL_free(c->ssl);
	if (c->fd >= 0)
		close(c->fd);
	c->ssl = NULL;
	c->fd = -1;
}

const char *net_why(const struct net *c, int err, char why[NET_WHY_MAX])
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;
	long verify = c->ssl ? SSL_get_verify_result(c->ssl) : X509_V_OK;

	if (err != -EPROTO || !c->ssl)
		snprintf(why, NET_WHY_MAX, "%s", strerror(-err));
	else if (verify != X509_V_OK && SSL_get_verify_mode(c->ssl) != SSL_VERIFY_NONE)
		snprintf(why, NET_WHY_MAX, "the certificate isn't trusted: %s",
			 X509_verify_cert_error_string(verify));
	else
		snprintf(why, NET_WHY_MAX, "%s", reason ? reason : "TLS failed");
	return why;
}
