/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading HTTP/1 messages, requests and responses: http_parser takes them apart, this collects the
 * head and refuses what one reader might take for something else than another (request smuggling).
 */
#ifndef SERVE_HEAD_H
#define SERVE_HEAD_H

#include <http_parser.h>

#include "tools/kvmsbox-serve/buf.h"

struct http_field {
	uint32_t name, name_len, value, value_len; /* offsets into text; both end with a NUL */
};

struct http_head {
	struct buf text;
	struct http_field *fields;
	size_t nfields, room;
	uint32_t url, url_len;
};

struct http_reader;

/* Each returns 0, or an HTTP status with which reading ends (HTTP_READ_STOP: without one). */
struct http_reader_ops {
	/* *no_body is set if the message has none whatever its head says. */
	int (*head)(struct http_reader *r, bool *no_body);
	int (*body)(struct http_reader *r, const char *data, size_t n);
	int (*end)(struct http_reader *r);
};

#define HTTP_READ_STOP 1

struct http_reader {
	http_parser parser;
	struct http_head head;
	const struct http_reader_ops *ops;
	size_t max_head, max_url;
	size_t head_bytes;
	bool in_value, in_trailer, begun, paused;
	int status; /* why reading ended */
};

/* @type: HTTP_REQUEST or HTTP_RESPONSE. */
void http_reader_init(struct http_reader *r, enum http_parser_type type,
		      const struct http_reader_ops *ops, size_t max_head, size_t max_url);
void http_reader_fini(struct http_reader *r);
/*
 * Reads from @data; *@used says how much. It stops behind the end of a message: call again for the
 * next one. Returns 0, or the status of the error (400, 413, 414, 431, what an op returned).
 */
int http_reader_feed(struct http_reader *r, const char *data, size_t n, size_t *used);
/* The other side closed. The same results. */
int http_reader_eof(struct http_reader *r);

const char *http_field_name(const struct http_head *h, size_t i);
const char *http_field_value(const struct http_head *h, size_t i);
/* The first field of that name, or NULL; *count (if not NULL) gets how many there are. */
const char *http_head_find(const struct http_head *h, const char *name, size_t *count);
/* Does the comma-separated list in any of the fields @name hold @token? */
bool http_head_has_token(const struct http_head *h, const char *name, const char *token);
/* Is it about one connection only, so that it isn't forwarded? */
bool http_field_is_hop_by_hop(const struct http_head *h, const char *name);
const char *http_reason(unsigned int status);

#endif
