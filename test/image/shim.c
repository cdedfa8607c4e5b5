/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A preloaded library that makes an import meet another machine than this one:
 *
 *	SHIM_NO_TMPFILE=1     file systems know no unnamed files, so that temporary ones have names
 *	SHIM_SLOW_MS=N        every read takes N ms longer, for the progress bar and for races
 *	SHIM_FAIL_READ=N      the Nth read at an offset of 1 MiB or more fails with EIO
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

static long setting(const char *name)
{
	const char *s = getenv(name);

	return s ? atol(s) : 0;
}

static int open_at(const char *symbol, int dir, const char *path, int flags, mode_t mode)
{
	int (*next)(int, const char *, int, ...) =
		(int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, symbol);

	if ((flags & O_TMPFILE) == O_TMPFILE && setting("SHIM_NO_TMPFILE")) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return next(dir, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return open_at("openat", dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return open_at("openat64", dir, path, flags, mode);
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t pos)
{
	ssize_t (*next)(int, void *, size_t, off64_t) =
		(ssize_t (*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
	long ms = setting("SHIM_SLOW_MS"), fail = setting("SHIM_FAIL_READ");
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	static long far_reads;

	if (ms)
		nanosleep(&ts, NULL);
	if (fail && pos >= 1 << 20 && ++far_reads == fail) {
		errno = EIO;
		return -1;
	}
	return next(fd, buf, len, pos);
}
