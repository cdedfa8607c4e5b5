/* SPDX-License-Identifier: Apache-2.0 */
/* One function's manifest. */
#include "tools/kvmsbox-serve/config_function.h"

#include <stdlib.h>
#include <string.h>

#include "tools/kvmsbox-serve/loop.h"

#define F(member) offsetof(struct function_config, member)

static void read_kind(struct fields_ctx *ctx, json_t *v, void *base)
{
	static const char *const names[] = {"stdio", "http", "lambda"};
	struct function_config *f = base;
	const char *s = json_string_value(v);

	for (size_t i = 0; s && i < ARRAY_SIZE(names); i++) {
		if (!strcmp(s, names[i])) {
			f->kind = (enum fn_kind)(FN_STDIO + i);
			return;
		}
	}
	field_error(ctx, "kind", "want \"stdio\", \"http\" or \"lambda\"");
}

static void read_isolation(struct fields_ctx *ctx, json_t *v, void *base)
{
	struct function_config *f = base;
	const char *s = json_string_value(v) ?: "";
	char *end = NULL;

	f->keep = 0;
	if (!strcmp(s, "request"))
		f->keep = 1;
	else if (!strcmp(s, "none"))
		f->keep = UINT64_MAX;
	else if (!strncmp(s, "n:", 2) && s[2] >= '1' && s[2] <= '9')
		f->keep = strtoull(s + 2, &end, 10);
	if (!f->keep || (end && *end) || (end && f->keep > 1000000000))
		field_error(ctx, "isolation", "want \"request\", \"n:NUMBER\" or \"none\"");
}

static void read_payload(struct fields_ctx *ctx, json_t *v, void *base)
{
	struct function_config *f = base;
	const char *s = json_string_value(v) ?: "";

	if (!strcmp(s, "apigw2"))
		f->payload = PAYLOAD_APIGW2;
	else if (strcmp(s, "raw"))
		field_error(ctx, "payload", "want \"raw\" or \"apigw2\"");
}

static void read_env(struct fields_ctx *ctx, json_t *v, void *base)
{
	struct function_config *f = base;
	const char *name, *s;
	json_t *value;

	if (!json_is_object(v)) {
		field_error(ctx, "env", "want an object of strings by name");
		return;
	}
	f->env.v = calloc(json_object_size(v) + 1, sizeof(*f->env.v));
	json_object_foreach (v, name, value) {
		s = json_string_value(value);
		if (!*name || strchr(name, '=') || !s || strlen(s) != json_string_length(value)) {
			field_error(ctx, "env", "\"%s\": want a name without = and a string", name);
			return;
		}
		if (!f->env.v || asprintf(&f->env.v[f->env.n++], "%s=%s", name, s) < 0) {
			field_error(ctx, "env", "out of memory");
			return;
		}
	}
}

static void read_limits(struct fields_ctx *ctx, json_t *v, void *base)
{
	static const struct field fields[] = {
		{"memory", FIELD_SIZE, F(limits.memory), 4 << 20, 1ULL << 50, false, NULL},
		{"time", FIELD_TIME, F(limits.time), 10 * MSEC, 86400 * SEC, false, NULL},
		{"start", FIELD_TIME, F(limits.start), 10 * MSEC, 86400 * SEC, false, NULL},
		{"pids", FIELD_UINT, F(limits.pids), 1, 1 << 22, false, NULL},
		{"output", FIELD_SIZE, F(limits.output), 1, 1ULL << 40, false, NULL},
		{"body", FIELD_SIZE, F(limits.body), 0, 1ULL << 40, false, NULL},
		{"concurrency", FIELD_UINT, F(limits.concurrency), 1, 100000, false, NULL},
		{"queue", FIELD_UINT, F(limits.queue), 1, 1000000, false, NULL},
	};
	size_t at = fields_enter(ctx, "limits");

	fields_read(ctx, v, fields, ARRAY_SIZE(fields), base);
	fields_leave(ctx, at);
}

static void read_instances(struct fields_ctx *ctx, json_t *v, void *base)
{
	static const struct field fields[] = {
		{"min", FIELD_UINT, F(instances.min), 0, 10000, false, NULL},
		{"max", FIELD_UINT, F(instances.max), 1, 10000, false, NULL},
		{"idle", FIELD_TIME, F(instances.idle), 0, 30 * 86400 * SEC, false, NULL},
	};
	struct function_config *f = base;
	size_t at = fields_enter(ctx, "instances");

	fields_read(ctx, v, fields, ARRAY_SIZE(fields), base);
	if (f->instances.min > f->instances.max)
		field_error(ctx, "min", "%llu is more than max (%llu)",
			    (unsigned long long)f->instances.min,
			    (unsigned long long)f->instances.max);
	fields_leave(ctx, at);
}

static const struct field function_fields[] = {
	{"name", FIELD_STRING, F(name), 0, 0, false, NULL},
	{"tenant", FIELD_STRING, F(tenant), 0, 0, true, NULL},
	{"image", FIELD_STRING, F(image), 0, 0, true, NULL},
	{"command", FIELD_STRINGS, F(command), 0, 0, false, NULL},
	{.name = "kind", .type = FIELD_CUSTOM, .required = true, .read = read_kind},
	{"port", FIELD_UINT, F(port), 1, 65535, false, NULL},
	{.name = "limits", .type = FIELD_CUSTOM, .read = read_limits},
	{.name = "instances", .type = FIELD_CUSTOM, .read = read_instances},
	{.name = "env", .type = FIELD_CUSTOM, .read = read_env},
	{"user", FIELD_STRING, F(user), 0, 0, false, NULL},
	{"cwd", FIELD_ABS_PATH, F(cwd), 0, 0, false, NULL},
	{"hostname", FIELD_STRING, F(hostname), 0, 0, false, NULL},
	{"read_only", FIELD_BOOL, F(read_only), 0, 0, false, NULL},
	{.name = "isolation", .type = FIELD_CUSTOM, .read = read_isolation},
	{"platform", FIELD_STRING, F(platform), 0, 0, false, NULL},
	{"snapshot", FIELD_BOOL, F(snapshot), 0, 0, false, NULL},
	{"cgi", FIELD_BOOL, F(cgi), 0, 0, false, NULL},
	{"content_type", FIELD_STRING, F(content_type), 0, 0, false, NULL},
	{.name = "payload", .type = FIELD_CUSTOM, .read = read_payload},
};

/* Keys that one kind has and the others don't; what a header's value may be. */
static void check_kind(struct fields_ctx *ctx, const struct function_config *f, json_t *o)
{
	static const char *const platforms[] = {"auto", "kvm", "systrap", "ptrace"};
	size_t i;

	if (f->kind == FN_STDIO && f->keep != 1)
		field_error(ctx, "isolation",
			    "a stdio function's program ends with each request: want \"request\"");
	if (f->kind != FN_HTTP && f->port)
		field_error(ctx, "port", "only functions of kind http have a port: remove it");
	if (f->kind != FN_STDIO && (f->cgi || f->content_type))
		field_error(ctx, f->cgi ? "cgi" : "content_type",
			    "only functions of kind stdio have this: remove it");
	if (f->kind != FN_LAMBDA && json_object_get(o, "payload"))
		field_error(ctx, "payload", "only functions of kind lambda have this: remove it");
	for (const char *s = f->content_type ?: ""; *s; s++) {
		if (*s < 0x20 || *s == 0x7f) {
			field_error(ctx, "content_type", "want printable ASCII");
			break;
		}
	}
	for (i = 0; f->platform && i < ARRAY_SIZE(platforms) && strcmp(f->platform, platforms[i]);)
		i++;
	if (i == ARRAY_SIZE(platforms))
		field_error(ctx, "platform", "want auto, kvm, systrap or ptrace, not \"%s\"",
			    f->platform);
	if (f->hostname && strlen(f->hostname) > 64)
		field_error(ctx, "hostname", "want 64 bytes at most");
	if (f->image && f->image[0] == '-')
		field_error(ctx, "image", "want a path, or a name in the cache, not an option");
}

static void check_name(struct fields_ctx *ctx, struct function_config *f, const char *name)
{
	if (name && f->name && strcmp(name, f->name))
		field_error(ctx, "name", "\"%s\", but the file or key says \"%s\": leave it out",
			    f->name, name);
	if (!name && !f->name) {
		field_error(ctx, NULL, "\"name\" is missing");
		return;
	}
	if (name) {
		free(f->name);
		f->name = strdup(name);
	}
	if (!f->name || !name_is_valid(f->name))
		field_error(ctx, "name",
			    "want up to %d of a-z, 0-9, -, _ and ., the first a letter or digit",
			    MAX_NAME);
}

struct function_config *function_config_read(struct fields_ctx *ctx, const char *name, json_t *o)
{
	struct function_config *f = calloc(1, sizeof(*f));
	unsigned int before = ctx->nerrors;

	if (!f) {
		field_error(ctx, NULL, "out of memory");
		return NULL;
	}
	*f = (struct function_config){
		.refs = 1,
		.keep = 1,
		.snapshot = true,
		.limits = {.memory = 512ULL << 20,
			   .time = 30 * SEC,
			   .start = 60 * SEC,
			   .pids = 256,
			   .output = 64ULL << 20,
			   .body = 16ULL << 20,
			   .concurrency = 32,
			   .queue = 128},
		.instances = {.min = 0, .max = 32, .idle = 300 * SEC},
	};
	fields_read(ctx, o, function_fields, ARRAY_SIZE(function_fields), f);
	check_name(ctx, f, name);
	if (ctx->nerrors == before)
		check_kind(ctx, f, o);
	f->source = strdup(ctx->file);
	f->text = json_dumps(o, JSON_SORT_KEYS | JSON_COMPACT);
	if (ctx->nerrors == before && f->text && f->source)
		return f;
	function_config_put(f);
	return NULL;
}

void function_config_check(struct fields_ctx *ctx, const struct config *c,
			   const struct function_config *f)
{
	if (!config_tenant(c, f->tenant))
		field_error(ctx, "tenant", "function %s: the configuration has no tenant \"%s\"",
			    f->name, f->tenant);
}

struct function_config *function_config_parse(const struct config *c, const char *source,
					      const char *name, const char *text, size_t n,
					      struct buf *errors)
{
	struct fields_ctx ctx = {.file = source, .errors = errors};
	json_t *o = fields_load(&ctx, text, n);
	struct function_config *f;

	if (!o)
		return NULL;
	f = function_config_read(&ctx, name, o);
	json_decref(o);
	if (!f)
		return NULL;
	function_config_check(&ctx, c, f);
	if (!ctx.nerrors)
		return f;
	function_config_put(f);
	return NULL;
}

struct function_config *function_config_get(struct function_config *f)
{
	f->refs++;
	return f;
}

static void free_list(char **v)
{
	for (char **s = v; s && *s; s++)
		free(*s);
	free(v);
}

void function_config_put(struct function_config *f)
{
	if (!f || --f->refs)
		return;
	free_list(f->command);
	free_list(f->env.v);
	free(f->name);
	free(f->source);
	free(f->tenant);
	free(f->image);
	free(f->user);
	free(f->cwd);
	free(f->hostname);
	free(f->platform);
	free(f->content_type);
	free(f->text);
	free(f);
}
