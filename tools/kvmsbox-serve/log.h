/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's log: one JSON object a line, begun with a time, a level and an event's name.
 *
 *	struct log_line l;
 *
 *	if (log_begin(&l, LOG_INFO, "request")) {
 *		log_str(&l, "function", name);
 *		log_end(&l);
 *	}
 */
#ifndef SERVE_LOG_H
#define SERVE_LOG_H

#include "tools/kvmsbox-serve/buf.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log_line {
	struct buf text;
};

/* Sets the level and where lines go: a path, or NULL for stderr. 0 or -errno. */
int log_open(const char *path, enum log_level level) __must_check;
/* Opens the file anew, for log rotation. */
void log_reopen(void);

/* False: nobody wants such a line. */
bool log_begin(struct log_line *l, enum log_level level, const char *event);
void log_str(struct log_line *l, const char *key, const char *value);
void log_bytes(struct log_line *l, const char *key, const char *value, size_t n);
void log_uint(struct log_line *l, const char *key, uint64_t value);
void log_int(struct log_line *l, const char *key, int64_t value);
/* Nanoseconds, as milliseconds. */
void log_ms(struct log_line *l, const char *key, uint64_t ns);
void log_end(struct log_line *l);

/* An event with nothing but a message. */
void log_say(enum log_level level, const char *event, const char *fmt, ...) __printf_fmt(3, 4);

#endif
