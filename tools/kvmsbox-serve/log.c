/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
	enum log_level level;
	const char *path;
	int fd;
} logger = {.level = LOG_INFO, .fd = STDERR_FILENO};

static int open_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

	return fd < 0 ? -errno : fd;
}

int log_open(const char *path, enum log_level level)
{
	int fd = STDERR_FILENO;

	if (path) {
		fd = open_file(path);
		if (fd < 0)
			return fd;
	}
	if (logger.fd != STDERR_FILENO)
		close(logger.fd);
	logger.fd = fd;
	logger.path = path;
	logger.level = level;
	return 0;
}

void log_reopen(void)
{
	int fd;

	if (!logger.path)
		return;
	fd = open_file(logger.path);
	if (fd < 0) {
		log_say(LOG_ERROR, "log", "%s: %s: it goes on to the old file", logger.path,
			strerror(-fd));
		return;
	}
	close(logger.fd);
	logger.fd = fd;
}

bool log_begin(struct log_line *l, enum log_level level, const char *event)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};
	struct timespec ts;
	struct tm tm;
	char day[32];

	if (level > logger.level)
		return false;
	memset(l, 0, sizeof(*l));
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	buf_printf(&l->text, "{\"time\":\"%s.%06ldZ\",\"level\":\"%s\",\"event\":\"%s\"", day,
		   ts.tv_nsec / 1000, names[level], event);
	return true;
}

void log_bytes(struct log_line *l, const char *key, const char *value, size_t n)
{
	buf_printf(&l->text, ",\"%s\":", key);
	buf_json(&l->text, value, n);
}

void log_str(struct log_line *l, const char *key, const char *value)
{
	if (value)
		log_bytes(l, key, value, strlen(value));
}

void log_uint(struct log_line *l, const char *key, uint64_t value)
{
	buf_printf(&l->text, ",\"%s\":%llu", key, (unsigned long long)value);
}

void log_int(struct log_line *l, const char *key, int64_t value)
{
	buf_printf(&l->text, ",\"%s\":%lld", key, (long long)value);
}

void log_ms(struct log_line *l, const char *key, uint64_t ns)
{
	buf_printf(&l->text, ",\"%s\":%llu.%03llu", key, (unsigned long long)(ns / 1000000),
		   (unsigned long long)(ns / 1000 % 1000));
}

void log_end(struct log_line *l)
{
	ssize_t n;

	buf_str(&l->text, "}\n");
	if (!l->text.failed) {
		/* One write a line, so that lines of several writers don't mix. */
		do
			n = write(logger.fd, buf_data(&l->text), l->text.len);
		while (n < 0 && errno == EINTR);
	}
	buf_fini(&l->text);
}

void log_say(enum log_level level, const char *event, const char *fmt, ...)
{
	struct log_line l;
	char message[1024];
	va_list ap;

	if (!log_begin(&l, level, event))
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	log_str(&l, "message", message);
	log_end(&l);
}
