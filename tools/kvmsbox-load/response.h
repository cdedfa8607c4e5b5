/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP/1.1 response as it comes in, in whatever pieces: its status, whether its body holds a
 * string, where it ends and whether the connection can carry another. libhttp-parser does the
 * parsing.
 */
#ifndef KVMSBOX_LOAD_RESPONSE_H
#define KVMSBOX_LOAD_RESPONSE_H

#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>

/* A string to look for, of any bytes, with Knuth, Morris and Pratt's table. */
struct pattern {
	const char *text;
	size_t len;
	size_t *fall; /* where to go on after a mismatch behind i bytes; owned */
};

/* @text stays the caller's and in place. Returns false if there is no memory. */
bool pattern_init(struct pattern *p, const char *text);
void pattern_fini(struct pattern *p);

enum response_state {
	RESPONSE_MORE,	/* goes on */
	RESPONSE_DONE,	/* all there */
	RESPONSE_BAD,	/* not HTTP: response_why */
	RESPONSE_SHORT, /* the stream ended before it did */
};

struct response {
	http_parser parser;
	const struct pattern *pattern; /* NULL: none */
	size_t matched;		       /* bytes of it, so far */
	bool found;		       /* it is in the body; true without one */
	bool to_head;		       /* answers HEAD: has no body */
	bool begun;		       /* a byte of it came */
	bool complete;
	bool keep_alive; /* once complete */
	bool extra;	 /* something came behind it */
	bool switched;	 /* 101 */
};

void response_begin(struct response *r, const struct pattern *pattern, bool to_head);
/* The next @n bytes; 0 says that the stream has ended. Not after anything but RESPONSE_MORE. */
enum response_state response_feed(struct response *r, const char *data, size_t n);
static inline int response_status(const struct response *r)
{
	return (int)r->parser.status_code;
}
/* After RESPONSE_BAD, in a few words. */
const char *response_why(const struct response *r);

#endif
