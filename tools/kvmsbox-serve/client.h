/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections from outside: bytes, TLS, HTTP/1.1 as a server speaks it. What a request is for is
 * decided in route.c. One request at a time; further ones wait in the kernel's buffer.
 */
#ifndef SERVE_CLIENT_H
#define SERVE_CLIENT_H

#include <openssl/types.h>

#include "tools/kvmsbox-serve/serve.h"

struct listener {
	struct listener *next;
	struct watch watch;
	struct timer pause; /* no descriptors left: wait a little */
	const struct listen_config *config;
	SSL_CTX *tls; /* NULL: none */
	bool admin, unix_socket;
	char *path; /* of a Unix socket, to remove */
};

enum client_phase {
	CLIENT_TLS,    /* handshake */
	CLIENT_HEAD,   /* a request's head is to come */
	CLIENT_BODY,   /* its body is */
	CLIENT_WAIT,   /* all of it is here, the response isn't complete */
	CLIENT_FLUSH,  /* the last response is being written */
	CLIENT_LINGER, /* written; reading what the peer still sends, so that it isn't reset */
	CLIENT_CLOSED,
};

enum client_route { ROUTE_DISCARD, ROUTE_FUNCTION, ROUTE_ADMIN };

struct client {
	struct list_head node; /* all, those unused for longest first */
	struct watch watch;
	struct listener *listener;
	SSL *ssl;
	bool tls_wants_write;
	bool early; /* it sends the next request before this one is answered */
	enum client_phase phase;
	enum client_route route;
	struct http_reader reader;
	struct buf in, out;
	struct buf body;     /* ROUTE_ADMIN */
	struct request *req; /* ROUTE_FUNCTION */
	bool responded, keep_alive, chunked, head_only, continue_wanted, close_delimited;
	uint64_t left; /* bytes of the body that the response's head promised */
	uint64_t phase_since, wrote_at, body_bytes;
	struct timer timer;
	struct work flush_work, resume_work, free_work;
	char peer[64];
};

/* listen.c */
int listeners_open(const struct config *c, struct buf *errors) __must_check;
/* Certificates may have changed. */
int listeners_reload_tls(struct buf *errors) __must_check;
void listeners_close(void);
/* A new connection. Takes the descriptor. */
void client_accepted(struct listener *l, int fd, const char *peer);

/* client.c: the response to the current request, in this order. */
void client_begin(struct client *c, unsigned int status);
void client_field(struct client *c, const char *name, const char *value);
#define LENGTH_UNKNOWN (-1)
#define NO_BODY	       (-2) /* none, and nothing is to be said about it (204, 304) */
void client_head_end(struct client *c, int64_t length);
void client_data(struct client *c, const void *data, size_t n);
void client_end(struct client *c);
/* A complete response. */
void client_reply(struct client *c, unsigned int status, const char *type, const void *body,
		  size_t n);
/* The response can't be completed: the client must notice. */
void client_abort(struct client *c);
/* Bytes of responses that the client hasn't taken. */
size_t client_pending(const struct client *c);
/* There is room for more of the request's body. */
void client_resume(struct client *c);
/* 100 (Continue), if it waits for that. */
void client_continue(struct client *c);
/* Ends connections that wait for a request; with @all those in the middle of one, too. */
void clients_close(bool all);
unsigned int clients_busy(void);

/* route.c: from client.c. Status 0, or one to answer with and close. */
int route_head(struct client *c);
int route_body(struct client *c, const char *data, size_t n);
void route_end(struct client *c);
/* {"error": code, "message": …}, with X-Kvmsbox-Error. */
void reply_error(struct client *c, unsigned int status, const char *code, uint64_t retry_ns,
		 const char *fmt, ...) __printf_fmt(5, 6);
/* The value of Authorization: Bearer, or NULL. */
const char *bearer_token(const struct http_head *h);

/* admin.c: @c's whole request is there. */
void admin_request(struct client *c);
/* May the head's bearer use the admin listener? Otherwise it has been answered. */
bool admin_allowed(struct client *c);

#endif
