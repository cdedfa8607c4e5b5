/* SPDX-License-Identifier: Apache-2.0 */
/* JSON objects by table: a key's type, bounds and place. Errors are named, unknown keys refused. */
#ifndef SERVE_FIELDS_H
#define SERVE_FIELDS_H

#include <jansson.h>

#include "tools/kvmsbox-serve/buf.h"

struct fields_ctx {
	const char *file;
	struct buf *errors;
	unsigned int nerrors;
	char path[512]; /* of the object being read: "/functions/hello" */
};

enum field_type {
	FIELD_STRING,	/* char *, not empty */
	FIELD_ABS_PATH, /* char *, begins with / */
	FIELD_UINT,	/* uint64_t within min and max */
	FIELD_SIZE,	/* uint64_t: bytes, or "512M" */
	FIELD_TIME,	/* uint64_t: ns; seconds as a number, or "250ms", "30s", "5m", "1h" */
	FIELD_BOOL,
	FIELD_STRINGS, /* char **, NULL at the end */
	FIELD_CUSTOM,  /* read() does it */
};

struct field {
	const char *name;
	enum field_type type;
	size_t offset; /* in the struct that is filled in */
	uint64_t min, max;
	bool required;
	void (*read)(struct fields_ctx *ctx, json_t *value, void *base);
};

/* One line: FILE: PATH/KEY: message. @key may be NULL: the object itself. */
void field_error(struct fields_ctx *ctx, const char *key, const char *fmt, ...) __printf_fmt(3, 4);
/* Fills in @base, whose defaults stay where a key isn't given. */
void fields_read(struct fields_ctx *ctx, json_t *object, const struct field *fields, size_t n,
		 void *base);
/* Enters an object: the path grows by /@key. Returns the length to go back to. */
size_t fields_enter(struct fields_ctx *ctx, const char *key);
void fields_leave(struct fields_ctx *ctx, size_t length);
/* Parses a file or text; errors name the line. NULL: there were some. */
json_t *fields_load(struct fields_ctx *ctx, const char *text, size_t n);
/* Reads a small file. NULL: *error is an errno. */
char *file_read(const char *path, size_t max, size_t *n, int *error);

#endif
