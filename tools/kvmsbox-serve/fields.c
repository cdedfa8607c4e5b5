/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/fields.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ERRORS 20

void field_error(struct fields_ctx *ctx, const char *key, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	if (ctx->nerrors++ >= MAX_ERRORS)
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	for (char *c = message; *c; c++) {
		if ((unsigned char)*c < 0x20)
			*c = ' ';
	}
	buf_printf(ctx->errors, "%s: %s%s%s: %s\n", ctx->file, key || !*ctx->path ? ctx->path : "",
		   key || !*ctx->path ? "/" : ctx->path, key ? key : "", message);
}

size_t fields_enter(struct fields_ctx *ctx, const char *key)
{
	size_t length = strlen(ctx->path);

	snprintf(ctx->path + length, sizeof(ctx->path) - length, "/%s", key);
	return length;
}

void fields_leave(struct fields_ctx *ctx, size_t length)
{
	ctx->path[length] = 0;
}

static const char *type_name(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_NULL:
		return "null";
	default:
		return "a boolean";
	}
}

static void read_string(struct fields_ctx *ctx, const struct field *f, json_t *v, char **out)
{
	const char *s = json_string_value(v);
	char *copy;

	if (!s) {
		field_error(ctx, f->name, "want a string, not %s", type_name(v));
		return;
	}
	if (!*s || strlen(s) != json_string_length(v)) {
		field_error(ctx, f->name, "want a string that isn't empty and has no NUL in it");
		return;
	}
	if (f->type == FIELD_ABS_PATH && *s != '/') {
		field_error(ctx, f->name, "want an absolute path, not \"%s\"", s);
		return;
	}
	copy = strdup(s);
	if (!copy)
		field_error(ctx, f->name, "out of memory");
	free(*out);
	*out = copy;
}

/* Takes NUMBER and a unit of @units, each a factor; false if it is no such thing. */
static bool parse_units(const char *s, const char *const *units, const uint64_t *factors,
			uint64_t *out)
{
	uint64_t whole;
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	whole = strtoull(s, &end, 10);
	if (errno)
		return false;
	for (size_t i = 0; units[i]; i++) {
		if (strcmp(end, units[i]))
			continue;
		if (whole > UINT64_MAX / factors[i])
			return false;
		*out = whole * factors[i];
		return true;
	}
	return false;
}

static bool parse_size_value(json_t *v, uint64_t *out)
{
	static const char *const units[] = {"",	   "K",	  "M",	 "G",	"T",
					    "KiB", "MiB", "GiB", "TiB", NULL};
	static const uint64_t factors[] = {1,	       1ULL << 10, 1ULL << 20,
					   1ULL << 30, 1ULL << 40, 1ULL << 10,
					   1ULL << 20, 1ULL << 30, 1ULL << 40};

	if (json_is_string(v))
		return parse_units(json_string_value(v), units, factors, out);
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return false;
	*out = (uint64_t)json_integer_value(v);
	return true;
}

static bool parse_time_value(json_t *v, uint64_t *out)
{
	static const char *const units[] = {"ms", "s", "m", "h", NULL};
	static const uint64_t factors[] = {1000000, 1000000000, 60000000000, 3600000000000};
	double s;

	if (json_is_string(v))
		return parse_units(json_string_value(v), units, factors, out);
	if (!json_is_number(v))
		return false;
	s = json_number_value(v);
	if (!(s >= 0) || s > 1e9)
		return false;
	*out = (uint64_t)(s * 1e9);
	return true;
}

static void read_number(struct fields_ctx *ctx, const struct field *f, json_t *v, uint64_t *out)
{
	uint64_t n = 0;

	if (f->type == FIELD_TIME) {
		if (!parse_time_value(v, &n))
			field_error(ctx, f->name,
				    "want seconds, or a time like \"250ms\" or \"30s\"");
		else if (n < f->min || n > f->max)
			field_error(ctx, f->name, "want a time from %g to %g seconds",
				    (double)f->min / 1e9, (double)f->max / 1e9);
		else
			*out = n;
		return;
	}
	if (f->type == FIELD_SIZE) {
		if (!parse_size_value(v, &n))
			field_error(ctx, f->name, "want bytes, or a size like \"512M\" or \"2G\"");
		else if (n < f->min || n > f->max)
			field_error(ctx, f->name, "want a size from %llu to %llu bytes",
				    (unsigned long long)f->min, (unsigned long long)f->max);
		else
			*out = n;
		return;
	}
	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) < f->min || (uint64_t)json_integer_value(v) > f->max)
		field_error(ctx, f->name, "want a whole number from %llu to %llu",
			    (unsigned long long)f->min, (unsigned long long)f->max);
	else
		*out = (uint64_t)json_integer_value(v);
}

static void free_strings(char **v)
{
	for (char **s = v; s && *s; s++)
		free(*s);
	free(v);
}

static void read_strings(struct fields_ctx *ctx, const struct field *f, json_t *v, char ***out)
{
	size_t n = json_array_size(v);
	char **list;

	if (!json_is_array(v) || !n) {
		field_error(ctx, f->name, "want an array of strings, [\"program\", \"argument\"]");
		return;
	}
	list = calloc(n + 1, sizeof(*list));
	for (size_t i = 0; list && i < n; i++) {
		const char *s = json_string_value(json_array_get(v, i));

		if (!s || strlen(s) != json_string_length(json_array_get(v, i))) {
			field_error(ctx, f->name, "element %zu: want a string without NUL", i);
			free_strings(list);
			return;
		}
		list[i] = strdup(s);
	}
	free_strings(*out);
	*out = list;
}

static void read_field(struct fields_ctx *ctx, const struct field *f, json_t *v, void *base)
{
	void *out = (char *)base + f->offset;

	switch (f->type) {
	case FIELD_STRING:
	case FIELD_ABS_PATH:
		read_string(ctx, f, v, out);
		break;
	case FIELD_UINT:
	case FIELD_SIZE:
	case FIELD_TIME:
		read_number(ctx, f, v, out);
		break;
	case FIELD_BOOL:
		if (json_is_boolean(v))
			*(bool *)out = json_is_true(v);
		else
			field_error(ctx, f->name, "want true or false, not %s", type_name(v));
		break;
	case FIELD_STRINGS:
		read_strings(ctx, f, v, out);
		break;
	case FIELD_CUSTOM:
		f->read(ctx, v, base);
		break;
	}
}

static void list_keys(const struct field *fields, size_t n, char *out, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < n && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "",
					 fields[i].name);
}

void fields_read(struct fields_ctx *ctx, json_t *object, const struct field *fields, size_t n,
		 void *base)
{
	char known[400];
	const char *key;
	json_t *v;
	size_t i;

	if (!json_is_object(object)) {
		field_error(ctx, NULL, "want an object, not %s", type_name(object));
		return;
	}
	json_object_foreach (object, key, v) {
		for (i = 0; i < n && strcmp(fields[i].name, key); i++)
			;
		if (i == n) {
			list_keys(fields, n, known, sizeof(known));
			field_error(ctx, key, "no such key: want one of %s", known);
		} else {
			read_field(ctx, &fields[i], v, base);
		}
	}
	for (i = 0; i < n; i++) {
		if (fields[i].required && !json_object_get(object, fields[i].name))
			field_error(ctx, NULL, "\"%s\" is missing", fields[i].name);
	}
}

json_t *fields_load(struct fields_ctx *ctx, const char *text, size_t n)
{
	json_error_t e;
	json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);

	if (!root) {
		ctx->nerrors++;
		buf_printf(ctx->errors, "%s:%d:%d: not JSON: %s\n", ctx->file, e.line, e.column,
			   e.text);
	}
	return root;
}

char *file_read(const char *path, size_t max, size_t *n, int *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	char *text = NULL;
	ssize_t got = 0;

	*error = errno;
	*n = 0;
	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		*error = EINVAL;
		goto out_close;
	}
	if ((uint64_t)st.st_size > max) {
		*error = EFBIG;
		goto out_close;
	}
	text = malloc((size_t)st.st_size + 1);
	*error = ENOMEM;
	while (text && *n < (size_t)st.st_size &&
	       (got = read(fd, text + *n, (size_t)st.st_size - *n)) > 0)
		*n += (size_t)got;
	if (text && got < 0) {
		*error = errno;
		free(text);
		text = NULL;
	}
	if (text)
		text[*n] = 0;
out_close:
	close(fd);
	return text;
}
