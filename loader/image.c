/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening an image.
 *
 *   known       the archive's key matches its times and size, and the entry's file is as it was:
 *               nothing of the archive and three small pieces of the entry are read
 *   suspicious  the entry's file was touched, or it was written before the machine last started and
 *               nobody saw it reach the disk: every block is checked, once
 *   else        imported, under the lock of the archive's key
 *
 * Data isn't flushed at the import, which would take longer than the import. What the machine's end
 * may have eaten is found by the second rule; a later open flushes what by then is on disk anyway.
 */
#include "loader/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loader/image_internal.h"
#include "sentry/lib/log.h"
#include "vfs/erofs.h"
#include "vfs/erofs_fs.h"

#define SETTLED_SECONDS 60 /* the host writes dirty pages back within half of that */

int image_fail(struct image_error *err, int code, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(err->message, sizeof(err->message), fmt, ap);
	va_end(ap);
	if (n < 0)
		err->message[0] = 0;
	/* Names may hold anything; the user gets one line. */
	for (char *p = err->message; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
		/* Terminals obey U+0080 to U+009F as well. */
		else if ((unsigned char)*p == 0xc2 && (unsigned char)p[1] >= 0x80 &&
			 (unsigned char)p[1] < 0xa0)
			p[0] = p[1] = '?';
	}
	return code;
}

void image_close(struct image *image)
{
	if (image->fd >= 0)
		close(image->fd);
	config_fini(&image->config);
	info_fini(&image->info);
	memset(image, 0, sizeof(*image));
	image->fd = -1;
}

/* ---- what the user names ---- */

int image_source_stat(const char *path, struct stat *st, struct image_error *err)
{
	if (stat(path, st))
		return image_fail(err, -errno, "image %s: %s", path, strerror(errno));
	if (S_ISDIR(st->st_mode))
		return image_fail(
			err, -EISDIR,
			"image %s: is a directory: pack it with tar -C %s -cf image.tar .", path,
			path);
	if (!S_ISREG(st->st_mode))
		return image_fail(err, -EINVAL, "image %s: is not a regular file", path);
	if (!st->st_size)
		return image_fail(err, -EINVAL, "image %s: is empty", path);
	return 0;
}

static bool is_erofs(int fd)
{
	uint32_t magic = 0;

	return pread(fd, &magic, sizeof(magic), EROFS_SUPER_OFFSET) == sizeof(magic) &&
	       le32toh(magic) == EROFS_SUPER_MAGIC;
}

/* An EROFS file of somebody else: any that the reader reads. */
static int open_foreign(const char *path, int fd, uint64_t size, struct image *out,
			struct image_error *err)
{
	struct erofs fs = {0};
	struct erofs_inode root;
	void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	int ret;

	if (map == MAP_FAILED)
		return image_fail(err, -errno, "image %s: can't be mapped: %s", path,
				  strerror(errno));
	ret = erofs_open(&fs, map, size);
	if (!ret)
		ret = erofs_inode_read(&fs, fs.root_nid, &root);
	if (!ret && !S_ISDIR(root.mode))
		ret = -EUCLEAN;
	munmap(map, size);
	if (ret)
		return image_fail(err, ret,
				  ret == -EOPNOTSUPP ? "image %s: this EROFS is compressed or of "
						       "another block size than 4096: "
						       "make it without, or import a tar"
						     : "image %s: this EROFS file is damaged",
				  path);
	memset(out, 0, sizeof(*out));
	out->size = fs.blocks << EROFS_BLKSZBITS;
	out->info.format = strdup("erofs");
	out->fd = -1;
	return 0;
}

/* @fd is an EROFS file that the user named; it is @out's on success. */
static int open_erofs(const char *path, int fd, uint64_t size, struct image *out,
		      struct image_error *err)
{
	int ret = entry_load(fd, out);

	if (ret == -ENODATA)
		ret = open_foreign(path, fd, size, out, err);
	else if (ret)
		image_fail(err, ret, "image %s: this EROFS file is damaged: %s", path,
			   strerror(-ret));
	if (!ret)
		out->fd = fd;
	return ret;
}

/* ---- the cache ---- */

/* Is the entry's file still what @key describes? */
static bool entry_unchanged(const struct cache_key *key, const struct stat *st)
{
	struct stat_key now;

	stat_key_of(st, &now);
	return !memcmp(&now, &key->entry, sizeof(now));
}

int image_key_set_entry(struct cache_key *key, int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	/* From here on any change shows in the times. */
	wait_past(&st.st_ctim);
	stat_key_of(&st, &key->entry);
	cache_boot_id(key->boot_id);
	return 0;
}

void image_note(struct cache *c, const struct stat *st, struct cache_key *key, int locked)
{
	struct cache_key now;
	int fd = locked < 0 ? cache_try_key(c, st) : locked;

	if (fd < 0)
		return;
	if (locked >= 0 ||
	    (!cache_read_key(c, st, &now) && !memcmp(now.hash, key->hash, sizeof(now.hash)))) {
		int err = cache_write_key(fd, key);

		if (err)
			log_debug("image cache %s: writing a key failed: %d", c->path, err);
	}
	if (locked < 0)
		close(fd);
}

static bool of_this_boot(const struct cache_key *key)
{
	char id[sizeof(key->boot_id)];

	cache_boot_id(id);
	return id[0] && !memcmp(id, key->boot_id, sizeof(id));
}

int image_open_known(struct cache *c, const char *path, const struct stat *st, int locked,
		     struct image *out)
{
	char hash[IMAGE_HASH_LEN + 1] = "";
	struct timespec now;
	struct cache_key key;
	struct stat entry;

	if (cache_read_key(c, st, &key))
		return -ENOENT;
	memcpy(hash, key.hash, IMAGE_HASH_LEN);
	if (cache_open_entry(c, hash, out))
		return -ENOENT;
	if (fstat(out->fd, &entry)) {
		image_close(out);
		return -ENOENT;
	}
	if (!entry_unchanged(&key, &entry) || (!key.synced && !of_this_boot(&key))) {
		log_debug("image %s: checking all of entry %s", path, hash);
		if (entry_verify(out->fd) || image_key_set_entry(&key, out->fd)) {
			log_info("image %s: entry %s is damaged", path, hash);
			image_close(out);
			return -ENOENT;
		}
		key.synced = 0;
		image_note(c, st, &key, locked);
		return 0;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	if (!key.synced && now.tv_sec - entry.st_mtim.tv_sec > SETTLED_SECONDS &&
	    !fdatasync(out->fd)) {
		key.synced = 1;
		image_note(c, st, &key, locked);
	}
	return 0;
}

int (*image_importer)(const char *path, const struct image_options *options,
		      char hash[IMAGE_HASH_LEN + 1], struct image_error *err);

/* 0, or -ENOENT: it isn't one. */
static int open_if_erofs(const char *path, const struct stat *st, struct image *out,
			 struct image_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), ret = -ENOENT;

	if (fd < 0)
		return image_fail(err, -errno, "image %s: %s", path, strerror(errno));
	if (is_erofs(fd))
		ret = open_erofs(path, fd, (uint64_t)st->st_size, out, err);
	if (ret)
		close(fd);
	return ret;
}

int image_open(const char *path, const struct image_options *options, struct image *out,
	       struct image_error *err)
{
	char hash[IMAGE_HASH_LEN + 1];
	struct cache c;
	struct stat st;
	int ret;

	memset(out, 0, sizeof(*out));
	out->fd = -1;
	ret = image_source_stat(path, &st, err);
	if (ret)
		return ret;
	ret = cache_open(&c, options, false, err);
	if (ret)
		return ret;
	ret = c.dir < 0 ? -ENOENT : image_open_known(&c, path, &st, -1, out);
	cache_close(&c, false);
	if (!ret)
		return 0;
	ret = open_if_erofs(path, &st, out, err);
	if (ret != -ENOENT)
		return ret;
	ret = image_importer(path, options, hash, err);
	return ret ? ret : image_open_entry(hash, options, false, out, err);
}

int image_open_entry(const char *hash, const struct image_options *options, bool verify,
		     struct image *out, struct image_error *err)
{
	struct cache c;
	int ret = cache_open(&c, options, false, err);

	if (ret)
		return ret;
	ret = c.dir < 0 ? -ENOENT : cache_open_entry(&c, hash, out);
	if (!ret && verify) {
		ret = entry_verify(out->fd);
		if (ret)
			image_close(out);
	}
	if (ret == -EUCLEAN)
		image_fail(err, ret,
			   "image %s: its entry in the cache %s is damaged: the next use of the "
			   "archive "
			   "makes it again, or kvmsbox image rm removes it",
			   hash, c.path);
	else if (ret)
		image_fail(err, ret, "image %s: its entry in the cache %s can't be read: %s", hash,
			   c.path, strerror(-ret));
	cache_close(&c, false);
	return ret;
}
