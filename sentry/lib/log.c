/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines are formatted on the stack and written with one write(2): no locks, no allocation. */
#include "sentry/lib/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum log_level log_level = LOG_WARN;
static int log_fd = STDERR_FILENO;

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

void log_printf(enum log_level level, const char *fmt, ...)
{
	char buf[1024];
	int saved = errno, n, m;
	va_list ap;

	n = snprintf(buf, sizeof(buf),
		     level == LOG_WARN || level == LOG_ERROR ? "kvmsbox: " : "kvmsbox: %s: ",
		     level_names[level]);
	va_start(ap, fmt);
	m = vsnprintf(buf + n, sizeof(buf) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	n += m < (int)sizeof(buf) - n - 1 ? m : (int)sizeof(buf) - n - 2;
	buf[n++] = '\n';
	(void)!write(log_fd, buf, (size_t)n);
	errno = saved;
}

void log_set_fd(int fd)
{
	log_fd = fd;
}

int log_level_parse(const char *name, enum log_level *level)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (!strcmp(name, level_names[i])) {
			*level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void bug(const char *file, int line, const char *what)
{
	log_printf(LOG_ERROR, "bug in the sentry at %s:%d: %s; the sandbox ends", file, line, what);
	_exit(125);
}
