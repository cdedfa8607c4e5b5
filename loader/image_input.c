/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of an archive's bytes to libarchive, and the progress bar that they move.
 *
 * gzip is unpacked here: libarchive 3.6 doesn't compare its checksums, and a damaged archive would
 * become a damaged image. Members follow each other (MEMBER), zeroes may lie between them
 * (BETWEEN), and what else comes behind the last one is no part of it (BEHIND), as gzip(1) has it.
 */
#include "loader/image_internal.h"

#include <archive.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "sentry/lib/clock.h"

/* ---- progress ---- */

#define SHOW_AFTER_NS 1000000000ULL
#define SHOW_EACH_NS  100000000ULL
#define BAR_WIDTH     30U

void progress_init(struct progress *p, const char *name, uint64_t total, bool quiet)
{
	const char *slash = strrchr(name, '/');

	memset(p, 0, sizeof(*p));
	p->name = slash ? slash + 1 : name;
	p->total = total;
	p->start_ns = monotonic_ns();
	p->enabled = !quiet && isatty(STDERR_FILENO);
}

void progress_add(struct progress *p, uint64_t n)
{
	char bar[BAR_WIDTH + 1];
	unsigned int filled;
	uint64_t now, part;

	p->done += n;
	if (!p->enabled)
		return;
	now = monotonic_ns();
	if (now - p->start_ns < SHOW_AFTER_NS || now - p->shown_ns < SHOW_EACH_NS)
		return;
	p->shown_ns = now;
	p->visible = true;
	part = p->total ? MIN(p->done, p->total) * 1000 / p->total : 0;
	filled = (unsigned int)(part * BAR_WIDTH / 1000);
	memset(bar, '#', filled);
	memset(bar + filled, '-', BAR_WIDTH - filled);
	bar[BAR_WIDTH] = 0;
	dprintf(STDERR_FILENO, "\rimporting %.30s [%s] %3u%%\033[K", p->name, bar,
		(unsigned int)(part / 10));
}

void progress_end(struct progress *p)
{
	if (p->visible)
		dprintf(STDERR_FILENO, "\r\033[K");
	p->visible = p->enabled = false;
}

/* ---- input ---- */

#define GZ_BUF_SIZE (256U << 10)
#define GZ_TAIL_MAX (64ULL << 20) /* bytes behind a tar's end: usually less than 10 KiB */

struct gunzip {
	z_stream z;
	enum { MEMBER, BETWEEN, BEHIND } state;
	uint8_t out[GZ_BUF_SIZE];
};

int input_init(struct input *in, int fd, uint64_t pos, uint64_t end, struct progress *progress)
{
	memset(in, 0, sizeof(*in));
	in->fd = fd;
	in->pos = pos;
	in->end = end;
	in->progress = progress;
	in->buf = malloc(INPUT_BUF_SIZE);
	return in->buf ? 0 : -ENOMEM;
}

void input_fini(struct input *in)
{
	if (in->gz) {
		inflateEnd(&in->gz->z);
		free(in->gz);
	}
	free(in->buf);
	EVP_MD_CTX_free(in->digest);
	XXH3_freeState(in->xxh);
	memset(in, 0, sizeof(*in));
}

/* The next bytes in in->buf: their number, 0 at the end, -errno (also in in->error). */
static ssize_t input_fill(struct input *in)
{
	size_t want = (size_t)MIN((uint64_t)INPUT_BUF_SIZE, in->end - in->pos);
	ssize_t n;

	if (in->error)
		return in->error;
	if (!want)
		return 0;
	do {
		n = pread(in->fd, in->buf, want, (off_t)in->pos);
	} while (n < 0 && errno == EINTR);
	if (n <= 0) {
		in->error = n ? -errno : -EPIPE;
		return in->error;
	}
	in->pos += (uint64_t)n;
	if (in->xxh)
		XXH3_128bits_update(in->xxh, in->buf, (size_t)n);
	if (in->digest)
		EVP_DigestUpdate(in->digest, in->buf, (size_t)n);
	progress_add(in->progress, (uint64_t)n);
	return n;
}

int input_drain(struct input *in)
{
	ssize_t n;

	do {
		n = input_fill(in);
	} while (n > 0);
	return (int)n;
}

/* ---- gzip ---- */

/* Is what follows a gzip file? 1, 0, -ENOMEM. Reading errors are for later. */
static int gunzip_start(struct input *in)
{
	uint8_t magic[3];

	if (in->end - in->pos < sizeof(magic) ||
	    pread(in->fd, magic, sizeof(magic), (off_t)in->pos) != sizeof(magic) ||
	    magic[0] != 0x1f || magic[1] != 0x8b || magic[2] != Z_DEFLATED)
		return 0;
	in->gz = calloc(1, sizeof(*in->gz));
	if (!in->gz)
		return -ENOMEM;
	/* 15: the largest window; 16: gzip's header and trailer. */
	if (inflateInit2(&in->gz->z, 15 + 16) == Z_OK)
		return 1;
	free(in->gz);
	in->gz = NULL;
	return -ENOMEM;
}

/* Skips to the next member, if there is one, in what is in the buffer. */
static int gunzip_next(struct input *in)
{
	struct gunzip *gz = in->gz;

	while (gz->z.avail_in && !*gz->z.next_in) {
		gz->z.next_in++;
		gz->z.avail_in--;
	}
	if (!gz->z.avail_in)
		return 0;
	gz->state = *gz->z.next_in == 0x1f ? MEMBER : BEHIND;
	return gz->state == MEMBER && inflateReset(&gz->z) != Z_OK ? -EINVAL : 0;
}

/*
 * The next unpacked bytes in gz->out: their number, 0 at the end, -errno (-EBADMSG: see in->why).
 */
static ssize_t gunzip_fill(struct input *in)
{
	struct gunzip *gz = in->gz;

	gz->z.next_out = gz->out;
	gz->z.avail_out = GZ_BUF_SIZE;
	while (gz->z.avail_out && !in->why) {
		int r;

		if (!gz->z.avail_in) {
			ssize_t n = input_fill(in);

			if (n < 0)
				return n;
			if (!n && gz->state == MEMBER)
				in->why = "gzip: it ends too early";
			if (!n)
				break;
			gz->z.next_in = in->buf;
			gz->z.avail_in = (uInt)n;
		}
		if (gz->state == BEHIND) {
			gz->z.avail_in = 0;
			continue;
		}
		if (gz->state == BETWEEN) {
			if (gunzip_next(in))
				in->why = "gzip: a member can't be read";
			continue;
		}
		r = inflate(&gz->z, Z_NO_FLUSH);
		if (r == Z_STREAM_END)
			gz->state = BETWEEN;
		else if (r == Z_MEM_ERROR)
			return -ENOMEM;
		else if (r != Z_OK && r != Z_BUF_ERROR)
			in->why = gz->z.msg ? gz->z.msg : "gzip: damaged data";
	}
	/* What came before the damage isn't worth having. */
	return in->why ? -EBADMSG : (ssize_t)(GZ_BUF_SIZE - gz->z.avail_out);
}

int input_finish(struct input *in)
{
	uint64_t tail = 0;
	ssize_t n = in->why ? -EBADMSG : 1;

	while (in->gz && n > 0) {
		n = gunzip_fill(in);
		tail += n > 0 ? (uint64_t)n : 0;
		if (tail > GZ_TAIL_MAX) {
			in->why = "too much data behind its end";
			n = -EBADMSG;
		}
	}
	return n < 0 ? (int)n : input_drain(in);
}

/* ---- libarchive ---- */

static la_ssize_t read_callback(struct archive *a, void *data, const void **buf)
{
	struct input *in = data;
	ssize_t n = in->gz ? gunzip_fill(in) : input_fill(in);

	*buf = in->gz ? in->gz->out : in->buf;
	if (n >= 0)
		return n;
	if (in->why) {
		archive_set_error(a, EINVAL, "%s", in->why);
		return -1;
	}
	archive_set_error(a, (int)-n, "%s",
			  n == -EPIPE ? "it became shorter while it was read" : strerror((int)-n));
	return -1;
}

struct archive *input_open_tar(struct input *in, int *err)
{
	struct archive *a = archive_read_new();

	*err = -ENOMEM;
	if (!a)
		return NULL;
	if (gunzip_start(in) < 0 || archive_read_support_filter_bzip2(a) != ARCHIVE_OK ||
	    archive_read_support_filter_xz(a) != ARCHIVE_OK ||
	    archive_read_support_filter_zstd(a) != ARCHIVE_OK ||
	    archive_read_support_format_tar(a) != ARCHIVE_OK) {
		archive_read_free(a);
		return NULL;
	}
	if (archive_read_open(a, in, NULL, read_callback, NULL) == ARCHIVE_OK) {
		*err = 0;
		return a;
	}
	/* The caller asks it for the reason. */
	*err = in->error ? in->error : -EINVAL;
	return a;
}
