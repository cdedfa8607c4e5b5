/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging to the sentry's stderr. What an application causes is never louder than LOG_DEBUG.
 * BUG_ON ends this one sandbox with the spot's name (exit status 125): for broken invariants of the
 * sentry only, never for anything an application, an image or a command line can bring about.
 */
#ifndef SENTRY_LIB_LOG_H
#define SENTRY_LIB_LOG_H

#include "sentry/lib/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

extern enum log_level log_level;

void log_printf(enum log_level level, const char *fmt, ...) __printf_fmt(2, 3);
/* Sets where log lines go (a host fd that stays open); stderr until called. */
void log_set_fd(int fd);
/* Parses "error", "warn", "info", "debug" or "trace". Returns 0 or -EINVAL. */
int log_level_parse(const char *name, enum log_level *level) __must_check;

#define log_at(level, ...)                                                                         \
	do {                                                                                       \
		if (unlikely((level) <= log_level))                                                \
			log_printf((level), __VA_ARGS__);                                          \
	} while (0)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

/* Ends the process with status 125 after naming the spot. */
void bug(const char *file, int line, const char *what) __attribute__((noreturn, cold));
#define BUG_ON(cond)                                                                               \
	do {                                                                                       \
		if (unlikely(cond))                                                                \
			bug(__FILE__, __LINE__, #cond);                                            \
	} while (0)

#endif
