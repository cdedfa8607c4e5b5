/* SPDX-License-Identifier: Apache-2.0 */
/* Stream connections that never block, to one server: TCP or Unix, plain or TLS. */
#ifndef KVMSBOX_LOAD_NET_H
#define KVMSBOX_LOAD_NET_H

#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "tools/kvmsbox-load/http.h"

#define NET_WHY_MAX 160

/* Where connections go. */
struct server {
	const char *name; /* for messages */
	struct sockaddr_storage *addrs;
	socklen_t *addr_lens;
	unsigned int naddrs, using; /* index of the address that answered */
	SSL_CTX *tls;		    /* NULL: plain */
	const char *host;	    /* that the certificate must name */
};

/* Looks the host up and loads certificates. Returns 0, or an exit status after a complaint. */
int server_init(struct server *s, const struct http_options *o, const struct http_url *url)
	__attribute__((warn_unused_result));
void server_fini(struct server *s);

struct net {
	int fd; /* -1: closed */
	SSL *ssl;
};

/* All return -errno, -EAGAIN meaning that the socket isn't ready; -EPROTO is TLS's, see net_why. */

/* Begins a connection and, once the socket is writable, goes on with it: 0 when it is there. */
int net_open(struct net *c, const struct server *s);
int net_connected(struct net *c);
/* TLS's part; with plain connections 0. */
int net_handshake(struct net *c);
ssize_t net_send(struct net *c, struct iovec *iov, int n);
/* 0: the other end has closed. */
ssize_t net_recv(struct net *c, void *buf, size_t size);
void net_close(struct net *c);
/* In words. */
const char *net_why(const struct net *c, int err, char why[NET_WHY_MAX]);

#endif
