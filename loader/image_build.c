/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an archive to an entry of the cache. A first pass takes the input for a bare root file
 * system and imports it as it is read; if its members turn out to be those of a docker save or OCI
 * archive, it starts over as such (image_archive.c).
 */
#include "loader/image_internal.h"

#include <archive.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int build_write_failed(struct build *b, int code, const char *member)
{
	struct erofs_stats st = {0};

	if (b->writer)
		erofs_writer_stats(b->writer, &st);
	switch (code) {
	case -E2BIG:
		/* Directories that are only implied are inodes, too. */
		if (b->entries >= b->max_entries || st.inodes > b->max_entries)
			break;
		return image_fail(
			b->err, code,
			"image %s: names, links and attributes need more than %llu MiB of "
			"memory",
			b->name, EROFS_MAX_META >> 20);
	case -EFBIG:
		return image_fail(b->err, code, "image %s: member %.200s is larger than %llu TiB",
				  b->name, member, EROFS_MAX_FILE >> 40);
	case -EINVAL:
		return image_fail(b->err, code, "image %s: member %.200s has data in disorder",
				  b->name, member);
	case -ERANGE:
		return image_fail(
			b->err, code,
			"image %s: member %.200s has extended attributes that are too large",
			b->name, member);
	case -ELOOP:
		return image_fail(b->err, code,
				  "image %s: member %.200s lies in more than %u directories",
				  b->name, member, ENODE_MAX_DEPTH);
	case -ENAMETOOLONG:
		return image_fail(
			b->err, code,
			"image %s: member %.60s has an empty or too long name or link target",
			b->name, member);
	case -ENOMEM:
		return image_fail(b->err, code, "image %s: out of memory during the import",
				  b->name);
	case -ENOSPC:
	case -EDQUOT:
		return image_fail(
			b->err, code,
			"image %s: the cache directory is full (%s): free space or choose "
			"another one with --cache",
			b->name, strerror(-code));
	default:
		return image_fail(b->err, code, "image %s: writing to the cache failed: %s",
				  b->name, strerror(-code));
	}
	return image_fail(b->err, code,
			  "image %s: more than %llu files: if that is meant to be, raise "
			  "--image-max-entries",
			  b->name, (unsigned long long)b->max_entries);
}

int build_charge_bytes(struct build *b, uint64_t n)
{
	if (n > b->max_bytes - b->bytes)
		return image_fail(
			b->err, -E2BIG,
			"image %s: more than %llu bytes when unpacked: if that is meant to "
			"be, raise --image-max-bytes",
			b->name, (unsigned long long)b->max_bytes);
	b->bytes += n;
	return 0;
}

int build_charge_entry(struct build *b)
{
	if (b->entries >= b->max_entries)
		return build_write_failed(b, -E2BIG, "");
	b->entries++;
	return 0;
}

int build_read_failed(struct build *b, struct archive *a, const struct input *in, const char *what)
{
	const char *why = archive_error_string(a);
	const char *of = what ? ": " : "";

	what = what ? what : "";
	if (in->error == -EPIPE)
		return image_fail(b->err, -EINVAL,
				  "image %s: it became shorter while it was read: try again",
				  b->name);
	if (in->error)
		return image_fail(b->err, in->error, "image %s: reading it failed: %s", b->name,
				  strerror(-in->error));
	if (archive_errno(a) == ENOMEM)
		return build_write_failed(b, -ENOMEM, what);
	if (why && !strcmp(why, "Unrecognized archive format"))
		return image_fail(
			b->err, -EINVAL,
			"image %s%s%.100s: not a tar archive, plain or compressed with gzip, "
			"bzip2, xz or zstd",
			b->name, of, what);
	return image_fail(
		b->err, -EINVAL,
		"image %s%s%.100s: the archive is truncated or damaged (%.200s): copy or make "
		"it again",
		b->name, of, what, why ? why : "unknown error");
}

int build_finish_input(struct build *b, struct input *in, const char *what)
{
	int err = input_finish(in);

	if (!err)
		return 0;
	if (err == -EBADMSG)
		return image_fail(
			b->err, -EINVAL,
			"image %s%s%.100s: the archive is truncated or damaged (%s): copy or "
			"make it again",
			b->name, what ? ": " : "", what ? what : "", in->why);
	if (err == -ENOMEM)
		return build_write_failed(b, err, "");
	if (err == -EPIPE)
		return image_fail(b->err, -EINVAL,
				  "image %s: it became shorter while it was read: try again",
				  b->name);
	return image_fail(b->err, err, "image %s: reading it failed: %s", b->name, strerror(-err));
}

int build_spool(struct build *b)
{
	int fd;

	if (b->spool_dir < 0) {
		fd = memfd_create("image", MFD_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	fd = openat(b->spool_dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
		char name[64];

		snprintf(name, sizeof(name), ".tmp-spool-%ld", (long)getpid());
		fd = openat(b->spool_dir, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
		if (fd >= 0)
			unlinkat(b->spool_dir, name, 0);
	}
	return fd < 0 ? -errno : fd;
}

/* The whole input as one root file system; sets b->hash. 0, -errno, LAYER_IS_ARCHIVE. */
static int import_rootfs(struct build *b, enum layer_kind kind)
{
	struct input in;
	int err = input_init(&in, b->in_fd, 0, b->in_size, &b->progress);

	if (err)
		return build_write_failed(b, err, "");
	in.xxh = XXH3_createState();
	if (in.xxh) {
		XXH3_128bits_reset(in.xxh);
		err = layer_import(b, &in, kind, NULL);
	} else {
		err = build_write_failed(b, -ENOMEM, "");
	}
	if (!err) {
		err = build_finish_input(b, &in, NULL);
		if (!err)
			b->hash = XXH3_128bits_digest(in.xxh);
	}
	input_fini(&in);
	return err;
}

/* Forgets what was imported so far. */
static int start_over(struct build *b, int out_fd)
{
	erofs_writer_free(b->writer);
	b->bytes = b->entries = b->layers = 0;
	b->layer = 0;
	b->progress.done = 0;
	if (ftruncate(out_fd, 0))
		return build_write_failed(b, -errno, "");
	b->writer = erofs_writer_alloc(out_fd, b->max_entries + 1);
	return b->writer ? 0 : build_write_failed(b, -ENOMEM, "");
}

static int import_any(struct build *b, int out_fd)
{
	int err;

	b->format = "rootfs";
	err = start_over(b, out_fd);
	if (!err)
		err = import_rootfs(b, LAYER_PROBE);
	if (err != LAYER_IS_ARCHIVE)
		return err;
	err = start_over(b, out_fd);
	if (!err)
		err = archive_import(b);
	if (err != 1)
		return err;
	/* It only looked like one. */
	err = start_over(b, out_fd);
	return err ? err : import_rootfs(b, LAYER_ROOTFS);
}

/* Writes everything behind the file data. */
static int finish(struct build *b, int out_fd, struct build_result *result)
{
	const uint64_t *hashes;
	XXH128_canonical_t id;
	struct erofs_stats st;
	char *description;
	int err;

	XXH128_canonicalFromHash(&id, b->hash);
	for (size_t i = 0; i < sizeof(id.digest); i++)
		snprintf(result->hash + 2 * i, 3, "%02x", id.digest[i]);
	err = erofs_writer_finish(b->writer, id.digest, &result->size, &hashes);
	if (err)
		return build_write_failed(b, err, "");
	erofs_writer_stats(b->writer, &st);
	description = config_describe(b, &st);
	err = description ? entry_seal(out_fd, result->size, hashes, description, b->hash)
			  : -ENOMEM;
	free(description);
	return err ? build_write_failed(b, err, "") : 0;
}

int image_build(const char *name, int in_fd, int out_fd, int spool_dir,
		const struct image_options *options, struct build_result *result,
		struct image_error *err)
{
	struct build b = {
		.name = name,
		.err = err,
		.in_fd = in_fd,
		.spool_dir = spool_dir,
		.max_bytes = options->max_bytes ? options->max_bytes : IMAGE_MAX_BYTES,
		.max_entries = options->max_entries ? options->max_entries : IMAGE_MAX_ENTRIES,
	};
	/* In the C locale libarchive hands names through as the bytes that they are. */
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0), old;
	struct stat st;
	int ret;

	if (!c)
		return build_write_failed(&b, -ENOMEM, "");
	old = uselocale(c);
	if (fstat(in_fd, &st)) {
		ret = image_fail(err, -errno, "image %s: %s", name, strerror(errno));
		goto out;
	}
	b.in_size = (uint64_t)st.st_size;
	progress_init(&b.progress, name, b.in_size, options->quiet);
	ret = import_any(&b, out_fd);
	if (!ret)
		ret = finish(&b, out_fd, result);
	progress_end(&b.progress);
	erofs_writer_free(b.writer);
	config_fini(&b.config);
out:
	uselocale(old);
	freelocale(c);
	return ret;
}
