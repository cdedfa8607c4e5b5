/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the operator wrote: read once, checked as a whole, const from then on. docs/serve.md is the
 * reference of every key. Errors are lines "FILE: /json/path: what is wrong: what to do".
 */
#ifndef SERVE_CONFIG_H
#define SERVE_CONFIG_H

#include <jansson.h>

#include "sentry/fnchan.h"
#include "tools/kvmsbox-serve/buf.h"
#include "tools/kvmsbox-serve/log.h"

#define TOKEN_HASH_LEN 32
#define MAX_NAME       64

enum payload { PAYLOAD_RAW, PAYLOAD_APIGW2 };

struct env_list {
	char **v; /* NAME=VALUE, NULL at the end */
	size_t n;
};

/* One version of a function. References: the function, and each instance started from it. */
struct function_config {
	unsigned int refs;
	char *name, *source; /* source: the file it was read from, or "admin" */
	char *tenant, *image, *user, *cwd, *hostname, *platform, *content_type;
	char **command; /* NULL at the end; NULL: the image's */
	enum fn_kind kind;
	uint64_t port; /* http; 0: the first that it listens on */
	bool cgi, snapshot, read_only;
	enum payload payload;
	struct env_list env;
	uint64_t keep; /* requests between resets: 1, n, or UINT64_MAX (isolation none) */
	struct {
		uint64_t memory, pids, output, body, concurrency, queue;
		uint64_t time, start; /* ns */
	} limits;
	struct {
		uint64_t min, max;
		uint64_t idle; /* ns */
	} instances;
	char *text; /* canonical JSON: equal texts are the same version */
};

struct tenant_config {
	char *name;
	unsigned char (*tokens)[TOKEN_HASH_LEN]; /* SHA-256 */
	size_t ntokens;
	uint64_t weight, concurrency, queue, memory;
	bool disabled;
};

struct listen_config {
	char *address; /* HOST:PORT, [HOST]:PORT or unix:PATH */
	char *cert, *key;
	uint64_t mode; /* of a Unix socket */
};

struct config {
	char *path;
	struct listen_config *listen;
	size_t nlisten;
	struct listen_config admin; /* address NULL: none */
	unsigned char admin_token[TOKEN_HASH_LEN];
	bool has_admin_token;
	char *log_path;
	enum log_level log_level;
	struct {
		uint64_t connections, header, uri, body, concurrency, queue, instances;
		uint64_t memory, memory_reserve; /* bytes; 0: chosen from what the machine has */
		uint64_t starting;		 /* instances that start at once */
	} limits;
	struct {
		uint64_t header, body, write, idle, drain, kill; /* ns */
	} timeouts;
	char *kvmsbox, *cache, *manifests;
	uint64_t blanks;
	struct tenant_config *tenants;
	size_t ntenants;
	struct function_config **functions; /* of the file itself */
	size_t nfunctions;
};

/* Returns NULL if there are errors; they are appended to @errors, a line each. */
struct config *config_read(const char *path, struct buf *errors);
void config_free(struct config *c);
const struct tenant_config *config_tenant(const struct config *c, const char *name);
/*
 * One function. @source names where the text comes from, @name is given by the file's name or the
 * path of a request, or NULL: then "name" in the JSON is. Returns a reference, or NULL with errors.
 */
struct function_config *function_config_parse(const struct config *c, const char *source,
					      const char *name, const char *text, size_t n,
					      struct buf *errors);
struct function_config *function_config_get(struct function_config *f);
void function_config_put(struct function_config *f);
bool name_is_valid(const char *name);
/* The SHA-256 of a token. */
void token_hash(const char *token, size_t n, unsigned char hash[TOKEN_HASH_LEN]);

#endif
