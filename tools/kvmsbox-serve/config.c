/* SPDX-License-Identifier: Apache-2.0 */
/* The server's own file: listeners, limits, tenants. Functions are read by config_function.c. */
#include "tools/kvmsbox-serve/config.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/kvmsbox-serve/config_function.h"
#include "tools/kvmsbox-serve/fields.h"
#include "tools/kvmsbox-serve/loop.h"

#define MAX_FILE  (16 << 20)
#define MIN_TOKEN 16

void token_hash(const char *token, size_t n, unsigned char hash[TOKEN_HASH_LEN])
{
	SHA256((const unsigned char *)token, n, hash);
}

bool name_is_valid(const char *name)
{
	size_t n = strlen(name);

	if (!n || n > MAX_NAME || !strchr("abcdefghijklmnopqrstuvwxyz0123456789", name[0]))
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == n;
}

/* Only long tokens: what can be guessed is no token. */
static bool hash_token(struct fields_ctx *ctx, const char *key, const char *token,
		       unsigned char hash[TOKEN_HASH_LEN])
{
	size_t n = strlen(token);

	if (n < MIN_TOKEN || strspn(token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					   "0123456789-._~+/=") != n) {
		field_error(ctx, key,
			    "want %d or more letters, digits and -._~+/=: openssl rand -hex 32",
			    MIN_TOKEN);
		return false;
	}
	token_hash(token, n, hash);
	return true;
}

static bool read_token_file(struct fields_ctx *ctx, const char *path,
			    unsigned char hash[TOKEN_HASH_LEN])
{
	size_t n;
	int error;
	char *text = file_read(path, 4096, &n, &error);
	bool ok;

	if (!text) {
		field_error(ctx, "token_file", "%s: %s", path, strerror(error));
		return false;
	}
	text[strcspn(text, "\r\n")] = 0;
	ok = hash_token(ctx, "token_file", text, hash);
	explicit_bzero(text, n);
	free(text);
	return ok;
}

static bool parse_hex_hash(const char *s, unsigned char hash[TOKEN_HASH_LEN])
{
	static const char digits[] = "0123456789abcdef";

	if (strlen(s) != 2 * TOKEN_HASH_LEN || strspn(s, digits) != 2 * TOKEN_HASH_LEN)
		return false;
	for (size_t i = 0; i < TOKEN_HASH_LEN; i++)
		hash[i] = (unsigned char)((strchr(digits, s[2 * i]) - digits) << 4 |
					  (strchr(digits, s[2 * i + 1]) - digits));
	return true;
}

static unsigned char *add_token(struct tenant_config *t)
{
	unsigned char(*grown)[TOKEN_HASH_LEN] =
		realloc(t->tokens, (t->ntokens + 1) * sizeof(*grown));

	if (!grown)
		return NULL;
	t->tokens = grown;
	return t->tokens[t->ntokens++];
}

/* "token", "tokens", "token_file", "token_sha256": each a string or an array of them. */
static void read_tokens(struct fields_ctx *ctx, json_t *v, struct tenant_config *t, const char *key)
{
	size_t n = json_is_array(v) ? json_array_size(v) : 1;
	unsigned char hash[TOKEN_HASH_LEN], *to;

	for (size_t i = 0; i < n; i++) {
		const char *s = json_string_value(json_is_array(v) ? json_array_get(v, i) : v);
		bool ok;

		if (!s) {
			field_error(ctx, key, "want a string or an array of strings");
			return;
		}
		if (!strcmp(key, "token_file"))
			ok = read_token_file(ctx, s, hash);
		else if (strcmp(key, "token_sha256"))
			ok = hash_token(ctx, key, s, hash);
		else if (!(ok = parse_hex_hash(s, hash)))
			field_error(ctx, key,
				    "want 64 digits 0-9a-f: printf %%s TOKEN | sha256sum");
		if (!ok)
			continue;
		to = add_token(t);
		if (!to) {
			field_error(ctx, key, "out of memory");
			return;
		}
		memcpy(to, hash, sizeof(hash));
	}
}

static void read_token(struct fields_ctx *ctx, json_t *v, void *base)
{
	read_tokens(ctx, v, base, "token");
}

static void read_token_list(struct fields_ctx *ctx, json_t *v, void *base)
{
	read_tokens(ctx, v, base, "tokens");
}

static void read_token_path(struct fields_ctx *ctx, json_t *v, void *base)
{
	read_tokens(ctx, v, base, "token_file");
}

static void read_token_hash(struct fields_ctx *ctx, json_t *v, void *base)
{
	read_tokens(ctx, v, base, "token_sha256");
}

#define T(member) offsetof(struct tenant_config, member)
static const struct field tenant_fields[] = {
	{.name = "token", .type = FIELD_CUSTOM, .read = read_token},
	{.name = "tokens", .type = FIELD_CUSTOM, .read = read_token_list},
	{.name = "token_file", .type = FIELD_CUSTOM, .read = read_token_path},
	{.name = "token_sha256", .type = FIELD_CUSTOM, .read = read_token_hash},
	{"weight", FIELD_UINT, T(weight), 1, 1000, false, NULL},
	{"concurrency", FIELD_UINT, T(concurrency), 1, 100000, false, NULL},
	{"queue", FIELD_UINT, T(queue), 1, 1000000, false, NULL},
	{"memory", FIELD_SIZE, T(memory), 1 << 20, 1ULL << 50, false, NULL},
	{"disabled", FIELD_BOOL, T(disabled), 0, 0, false, NULL},
};

static void read_tenants(struct fields_ctx *ctx, json_t *v, void *base)
{
	struct config *c = base;
	size_t at = fields_enter(ctx, "tenants"), in;
	const char *name;
	json_t *o;

	if (!json_is_object(v) || !json_object_size(v)) {
		field_error(ctx, NULL, "want an object of tenants by name");
		fields_leave(ctx, at);
		return;
	}
	c->tenants = calloc(json_object_size(v), sizeof(*c->tenants));
	json_object_foreach (v, name, o) {
		struct tenant_config *t = &c->tenants[c->ntenants++];

		*t = (struct tenant_config){.weight = 1, .concurrency = 64, .queue = 256};
		t->name = strdup(name);
		in = fields_enter(ctx, name);
		if (!name_is_valid(name))
			field_error(ctx, NULL, "want a name of a-z, 0-9, -, _ and .");
		fields_read(ctx, o, tenant_fields, ARRAY_SIZE(tenant_fields), t);
		if (json_is_object(o) && !t->ntokens && !ctx->nerrors)
			field_error(ctx, NULL,
				    "no token: give \"token_file\", \"token_sha256\" or \"token\"");
		fields_leave(ctx, in);
	}
	fields_leave(ctx, at);
}

static void read_tls(struct fields_ctx *ctx, json_t *v, void *base)
{
	static const struct field fields[] = {
		{"cert", FIELD_STRING, offsetof(struct listen_config, cert), 0, 0, true, NULL},
		{"key", FIELD_STRING, offsetof(struct listen_config, key), 0, 0, true, NULL},
	};
	size_t at = fields_enter(ctx, "tls");

	fields_read(ctx, v, fields, ARRAY_SIZE(fields), base);
	fields_leave(ctx, at);
}

static void read_mode(struct fields_ctx *ctx, json_t *v, void *base)
{
	struct listen_config *l = base;
	const char *s = json_string_value(v);
	char *end;

	l->mode = s ? strtoul(s, &end, 8) : 01000;
	if (!s || !*s || *end || l->mode > 0777)
		field_error(ctx, "mode", "want an octal mode as a string, like \"0660\"");
}

static const struct field listen_fields[] = {
	{"address", FIELD_STRING, offsetof(struct listen_config, address), 0, 0, true, NULL},
	{.name = "tls", .type = FIELD_CUSTOM, .read = read_tls},
	{.name = "mode", .type = FIELD_CUSTOM, .read = read_mode},
};

static bool address_is_valid(const char *s)
{
	const char *port = strrchr(s, ':');
	char *end;
	unsigned long n;

	if (!strncmp(s, "unix:", 5))
		return s[5] == '/' && strlen(s + 5) < 108;
	if (!port || port == s)
		return false;
	n = strtoul(port + 1, &end, 10);
	return port[1] >= '0' && port[1] <= '9' && !*end && n < 65536;
}

static void check_address(struct fields_ctx *ctx, const struct listen_config *l, const char *key)
{
	if (l->address && !address_is_valid(l->address))
		field_error(ctx, key, "\"%s\": want HOST:PORT, [IPV6]:PORT or unix:/PATH",
			    l->address);
}

static void read_one_listen(struct fields_ctx *ctx, json_t *v, struct config *c, const char *key)
{
	struct listen_config *l = &c->listen[c->nlisten++];
	size_t at = fields_enter(ctx, key);

	*l = (struct listen_config){.mode = 0660};
	if (json_is_string(v))
		l->address = strdup(json_string_value(v));
	else
		fields_read(ctx, v, listen_fields, ARRAY_SIZE(listen_fields), l);
	check_address(ctx, l, NULL);
	fields_leave(ctx, at);
}

static void read_listen(struct fields_ctx *ctx, json_t *v, void *base)
{
	struct config *c = base;
	size_t n = json_is_array(v) ? json_array_size(v) : 1;
	char key[32];

	c->listen = calloc(n + 1, sizeof(*c->listen));
	if (!n || !c->listen)
		field_error(ctx, "listen", "want one address or more");
	for (size_t i = 0; c->listen && i < n; i++) {
		snprintf(key, sizeof(key), json_is_array(v) ? "listen/%zu" : "listen", i);
		read_one_listen(ctx, json_is_array(v) ? json_array_get(v, i) : v, c, key);
	}
}

struct admin_fields {
	struct listen_config listen;
	char *token, *token_file, *token_sha256;
};

static void read_admin(struct fields_ctx *ctx, json_t *v, void *base)
{
	static const struct field fields[] = {
		{"listen", FIELD_STRING, offsetof(struct admin_fields, listen.address), 0, 0, true,
		 NULL},
		{.name = "tls", .type = FIELD_CUSTOM, .read = read_tls},
		{.name = "mode", .type = FIELD_CUSTOM, .read = read_mode},
		{"token", FIELD_STRING, offsetof(struct admin_fields, token), 0, 0, false, NULL},
		{"token_file", FIELD_STRING, offsetof(struct admin_fields, token_file), 0, 0, false,
		 NULL},
		{"token_sha256", FIELD_STRING, offsetof(struct admin_fields, token_sha256), 0, 0,
		 false, NULL},
	};
	struct config *c = base;
	struct admin_fields a = {.listen = {.mode = 0600}};
	size_t at = fields_enter(ctx, "admin");

	fields_read(ctx, v, fields, ARRAY_SIZE(fields), &a);
	check_address(ctx, &a.listen, "listen");
	if (a.token)
		c->has_admin_token = hash_token(ctx, "token", a.token, c->admin_token);
	else if (a.token_file)
		c->has_admin_token = read_token_file(ctx, a.token_file, c->admin_token);
	else if (a.token_sha256 &&
		 !(c->has_admin_token = parse_hex_hash(a.token_sha256, c->admin_token)))
		field_error(ctx, "token_sha256", "want 64 digits 0-9a-f");
	else if (!a.token_sha256 && a.listen.address && strncmp(a.listen.address, "unix:", 5))
		field_error(
			ctx, NULL,
			"no token: give \"token_file\", or listen on a Unix socket (unix:/PATH)");
	free(a.token);
	free(a.token_file);
	free(a.token_sha256);
	c->admin = a.listen;
	fields_leave(ctx, at);
}

static void read_log(struct fields_ctx *ctx, json_t *v, void *base)
{
	struct log_fields {
		char *file, *level;
	} l = {0};
	static const struct field fields[] = {
		{"file", FIELD_ABS_PATH, offsetof(struct log_fields, file), 0, 0, false, NULL},
		{"level", FIELD_STRING, offsetof(struct log_fields, level), 0, 0, false, NULL},
	};
	static const char *const levels[] = {"error", "warn", "info", "debug"};
	struct config *c = base;
	size_t at = fields_enter(ctx, "log"), i;

	fields_read(ctx, v, fields, ARRAY_SIZE(fields), &l);
	c->log_path = l.file;
	for (i = 0; l.level && i < ARRAY_SIZE(levels) && strcmp(l.level, levels[i]); i++)
		;
	if (l.level && i == ARRAY_SIZE(levels))
		field_error(ctx, "level", "want error, warn, info or debug, not \"%s\"", l.level);
	else if (l.level)
		c->log_level = (enum log_level)i;
	free(l.level);
	fields_leave(ctx, at);
}

#define C(member) offsetof(struct config, member)
static void read_limits(struct fields_ctx *ctx, json_t *v, void *base)
{
	static const struct field fields[] = {
		{"connections", FIELD_UINT, C(limits.connections), 1, 1000000, false, NULL},
		{"header", FIELD_SIZE, C(limits.header), 1024, 1 << 20, false, NULL},
		{"uri", FIELD_SIZE, C(limits.uri), 64, 1 << 16, false, NULL},
		{"body", FIELD_SIZE, C(limits.body), 0, 1ULL << 40, false, NULL},
		{"concurrency", FIELD_UINT, C(limits.concurrency), 1, 100000, false, NULL},
		{"queue", FIELD_UINT, C(limits.queue), 1, 1000000, false, NULL},
		{"instances", FIELD_UINT, C(limits.instances), 1, 100000, false, NULL},
		{"starting", FIELD_UINT, C(limits.starting), 1, 1000, false, NULL},
		{"memory", FIELD_SIZE, C(limits.memory), 1 << 20, 1ULL << 50, false, NULL},
		{"memory_reserve", FIELD_SIZE, C(limits.memory_reserve), 0, 1ULL << 50, false,
		 NULL},
	};
	size_t at = fields_enter(ctx, "limits");

	fields_read(ctx, v, fields, ARRAY_SIZE(fields), base);
	fields_leave(ctx, at);
}

static void read_timeouts(struct fields_ctx *ctx, json_t *v, void *base)
{
	static const struct field fields[] = {
		{"header", FIELD_TIME, C(timeouts.header), 10 * MSEC, 3600 * SEC, false, NULL},
		{"body", FIELD_TIME, C(timeouts.body), 10 * MSEC, 3600 * SEC, false, NULL},
		{"write", FIELD_TIME, C(timeouts.write), 10 * MSEC, 3600 * SEC, false, NULL},
		{"idle", FIELD_TIME, C(timeouts.idle), 10 * MSEC, 86400 * SEC, false, NULL},
		{"drain", FIELD_TIME, C(timeouts.drain), 0, 3600 * SEC, false, NULL},
		{"kill", FIELD_TIME, C(timeouts.kill), 10 * MSEC, 60 * SEC, false, NULL},
	};
	size_t at = fields_enter(ctx, "timeouts");

	fields_read(ctx, v, fields, ARRAY_SIZE(fields), base);
	fields_leave(ctx, at);
}

static void read_functions(struct fields_ctx *ctx, json_t *v, void *base)
{
	struct config *c = base;
	size_t at = fields_enter(ctx, "functions");
	const char *name;
	json_t *o;

	if (!json_is_object(v)) {
		field_error(ctx, NULL, "want an object of functions by name");
		fields_leave(ctx, at);
		return;
	}
	c->functions = calloc(json_object_size(v) + 1, sizeof(*c->functions));
	json_object_foreach (v, name, o) {
		size_t in = fields_enter(ctx, name);
		struct function_config *f = function_config_read(ctx, name, o);

		if (f)
			c->functions[c->nfunctions++] = f;
		fields_leave(ctx, in);
	}
	fields_leave(ctx, at);
}

static const struct field config_fields[] = {
	{.name = "listen", .type = FIELD_CUSTOM, .required = true, .read = read_listen},
	{.name = "admin", .type = FIELD_CUSTOM, .read = read_admin},
	{.name = "log", .type = FIELD_CUSTOM, .read = read_log},
	{.name = "limits", .type = FIELD_CUSTOM, .read = read_limits},
	{.name = "timeouts", .type = FIELD_CUSTOM, .read = read_timeouts},
	{"kvmsbox", FIELD_ABS_PATH, C(kvmsbox), 0, 0, false, NULL},
	{"cache", FIELD_ABS_PATH, C(cache), 0, 0, false, NULL},
	{"blanks", FIELD_UINT, C(blanks), 0, 1000, false, NULL},
	{"manifests", FIELD_ABS_PATH, C(manifests), 0, 0, false, NULL},
	{.name = "tenants", .type = FIELD_CUSTOM, .required = true, .read = read_tenants},
	{.name = "functions", .type = FIELD_CUSTOM, .read = read_functions},
};

const struct tenant_config *config_tenant(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->ntenants; i++) {
		if (!strcmp(c->tenants[i].name, name))
			return &c->tenants[i];
	}
	return NULL;
}

static void set_defaults(struct config *c)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (cpus < 1)
		cpus = 1;
	c->log_level = LOG_INFO;
	c->limits.connections = 4096;
	c->limits.header = 32 << 10;
	c->limits.uri = 8 << 10;
	c->limits.body = 16 << 20;
	c->limits.concurrency = 16 * (uint64_t)cpus;
	c->limits.queue = 4096;
	c->limits.instances = 1024;
	c->limits.starting = 2 * (uint64_t)cpus;
	c->timeouts.header = 10 * SEC;
	c->timeouts.body = 30 * SEC;
	c->timeouts.write = 30 * SEC;
	c->timeouts.idle = 60 * SEC;
	c->timeouts.drain = 30 * SEC;
	c->timeouts.kill = 500 * MSEC;
}

/* What one key alone can't tell. */
static void check_whole(struct fields_ctx *ctx, struct config *c)
{
	for (size_t i = 0; i < c->nfunctions; i++)
		function_config_check(ctx, c, c->functions[i]);
	for (size_t i = 0; i < c->ntenants; i++) {
		for (size_t j = i + 1; j < c->ntenants; j++) {
			for (size_t k = 0; k < c->tenants[i].ntokens * c->tenants[j].ntokens; k++) {
				if (memcmp(c->tenants[i].tokens[k % c->tenants[i].ntokens],
					   c->tenants[j].tokens[k / c->tenants[i].ntokens],
					   TOKEN_HASH_LEN))
					continue;
				field_error(ctx, "tenants",
					    "%s and %s have the same token: give each its own",
					    c->tenants[i].name, c->tenants[j].name);
			}
		}
	}
	if (c->manifests && access(c->manifests, R_OK | X_OK))
		field_error(ctx, "manifests", "%s: %s", c->manifests, strerror(errno));
	if (c->kvmsbox && access(c->kvmsbox, X_OK))
		field_error(ctx, "kvmsbox", "%s: %s", c->kvmsbox, strerror(errno));
}

struct config *config_read(const char *path, struct buf *errors)
{
	struct fields_ctx ctx = {.file = path, .errors = errors};
	struct config *c = calloc(1, sizeof(*c));
	size_t n = 0;
	int error;
	char *text = file_read(path, MAX_FILE, &n, &error);
	json_t *root = NULL;

	if (!c || !text) {
		buf_printf(errors, "%s: %s\n", path,
			   error == EINVAL ? "not a regular file" : strerror(error));
		ctx.nerrors++;
		goto out;
	}
	set_defaults(c);
	c->path = strdup(path);
	root = fields_load(&ctx, text, n);
	if (!root)
		goto out;
	fields_read(&ctx, root, config_fields, ARRAY_SIZE(config_fields), c);
	if (!ctx.nerrors)
		check_whole(&ctx, c);
out:
	json_decref(root);
	if (text)
		explicit_bzero(text, n);
	free(text);
	if (!ctx.nerrors)
		return c;
	if (c)
		config_free(c);
	return NULL;
}

void config_free(struct config *c)
{
	for (size_t i = 0; i < c->nlisten; i++) {
		free(c->listen[i].address);
		free(c->listen[i].cert);
		free(c->listen[i].key);
	}
	for (size_t i = 0; i < c->ntenants; i++) {
		free(c->tenants[i].name);
		free(c->tenants[i].tokens);
	}
	for (size_t i = 0; i < c->nfunctions; i++)
		function_config_put(c->functions[i]);
	free(c->listen);
	free(c->tenants);
	free(c->functions);
	free(c->admin.address);
	free(c->admin.cert);
	free(c->admin.key);
	free(c->path);
	free(c->log_path);
	free(c->kvmsbox);
	free(c->cache);
	free(c->manifests);
	free(c);
}
