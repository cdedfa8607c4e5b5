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
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loader/image_internal.h"
#include "sentry/lib/log.h"
#include "vfs/erofs.h"
#include "vfs/erofs_fs.h"

#define SETTLED_SECONDS 60 /* the host writes dirty pages back within half of that */

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

/* Opens @path if it is something to import. */
static int source_stat(const char *path, struct stat *st, struct image_error *err)
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

/* Fills in what @key says about the entry's file behind @fd. */
static int key_set_entry(struct cache_key *key, int fd)
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

/*
 * Notes what was learnt about an entry. Best effort: the cache may be read-only, or another process
 * at it. @locked: the key's fd if the caller holds its lock, else -1.
 */
static void note(struct cache *c, const struct stat *st, struct cache_key *key, int locked)
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

/*
 * Opens what the archive's key leads to. 0, or -ENOENT: to nothing that can be trusted. @locked as
 * for note.
 */
static int open_known(struct cache *c, const char *path, const struct stat *st, int locked,
		      struct image *out)
{
	char hash[IMAGE_HASH_LEN + 1] = "", boot_id[40];
	struct timespec now;
	struct cache_key key;
	struct stat entry;
	bool same_boot;

	if (cache_read_key(c, st, &key))
		return -ENOENT;
	memcpy(hash, key.hash, IMAGE_HASH_LEN);
	if (cache_open_entry(c, hash, out))
		return -ENOENT;
	cache_boot_id(boot_id);
	same_boot = boot_id[0] && !memcmp(boot_id, key.boot_id, sizeof(boot_id));
	if (fstat(out->fd, &entry)) {
		image_close(out);
		return -ENOENT;
	}
	if (!entry_unchanged(&key, &entry) || (!same_boot && !key.synced)) {
		log_debug("image %s: checking all of entry %s", path, hash);
		if (entry_verify(out->fd) || key_set_entry(&key, out->fd)) {
			log_info("image %s: entry %s is damaged", path, hash);
			image_close(out);
			return -ENOENT;
		}
		key.synced = 0;
		note(c, st, &key, locked);
		return 0;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	if (!key.synced && now.tv_sec - entry.st_mtim.tv_sec > SETTLED_SECONDS &&
	    !fdatasync(out->fd)) {
		key.synced = 1;
		note(c, st, &key, locked);
	}
	return 0;
}

/* Imports the archive @fd; the caller holds the lock @key_fd. */
static int import(struct cache *c, const char *path, int fd, const struct stat *st, int key_fd,
		  const struct image_options *options, struct image *out, struct image_error *err)
{
	struct build_result result = {0};
	struct cache_key key = {0};
	char temp[64];
	struct stat after;
	int ret, tmp;

	tmp = cache_temp(c, temp, sizeof(temp));
	if (tmp < 0)
		return image_fail(
			err, tmp,
			"cache directory %s: %s: name a directory that can be written with "
			"--cache",
			c->path, strerror(-tmp));
	/* A change while it is read must show in the times. */
	wait_past(&st->st_ctim);
	ret = image_build(path, fd, tmp, c->dir, options, &result, err);
	if (ret)
		goto out;
	stat_key_of(st, &key.source);
	if (fstat(fd, &after) || (stat_key_of(&after, &key.entry),
				  memcmp(&key.source, &key.entry, sizeof(key.source)))) {
		ret = image_fail(err, -EBUSY,
				 "image %s: it was changed while it was read: try again", path);
		goto out;
	}
	ret = cache_publish(c, tmp, temp, result.hash);
	if (!ret)
		ret = cache_open_entry(c, result.hash, out);
	if (ret) {
		image_fail(err, ret, "image %s: can't store it in the cache %s: %s", path, c->path,
			   strerror(-ret));
		goto out;
	}
	memcpy(key.hash, result.hash, IMAGE_HASH_LEN);
	if (!key_set_entry(&key, out->fd))
		note(c, st, &key, key_fd);
out:
	if (temp[0])
		unlinkat(c->dir, temp, 0);
	close(tmp);
	return ret;
}

/* Imports unless another process has done so in the meantime. */
static int open_or_import(struct cache *c, const char *path, int fd,
			  const struct image_options *options, struct image *out,
			  struct image_error *err)
{
	struct stat st;
	int ret, key_fd;

	cache_sweep(c);
	ret = source_stat(path, &st, err);
	if (ret)
		return ret;
	if (fstat(fd, &st))
		return image_fail(err, -errno, "image %s: %s", path, strerror(errno));
	key_fd = cache_lock_key(c, &st);
	if (key_fd < 0)
		return image_fail(
			err, key_fd,
			"cache directory %s: %s: name a directory that can be written with "
			"--cache",
			c->path, strerror(-key_fd));
	ret = open_known(c, path, &st, key_fd, out);
	if (ret) {
		ret = import(c, path, fd, &st, key_fd, options, out, err);
		if (ret)
			cache_drop_key(c, &st);
	}
	close(key_fd);
	return ret;
}

int image_open(const char *path, const struct image_options *options, struct image *out,
	       struct image_error *err)
{
	struct cache c;
	struct stat st;
	int fd, ret;

	memset(out, 0, sizeof(*out));
	out->fd = -1;
	ret = source_stat(path, &st, err);
	if (ret)
		return ret;
	ret = cache_open(&c, options, false, err);
	if (ret)
		return ret;
	ret = c.dir < 0 ? -ENOENT : open_known(&c, path, &st, -1, out);
	cache_close(&c, false);
	if (!ret)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return image_fail(err, -errno, "image %s: %s", path, strerror(errno));
	if (is_erofs(fd)) {
		ret = open_erofs(path, fd, (uint64_t)st.st_size, out, err);
		if (ret)
			close(fd);
		return ret;
	}
	ret = cache_open(&c, options, true, err);
	if (!ret) {
		ret = open_or_import(&c, path, fd, options, out, err);
		cache_close(&c, ret);
	}
	close(fd);
	return ret;
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
