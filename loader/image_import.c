/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing an archive into the cache: under the lock of its key, so that of several processes one
 * does it and the others find it done.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "loader/image_internal.h"

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
	if (!image_key_set_entry(&key, out->fd))
		image_note(c, st, &key, key_fd);
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
	ret = image_source_stat(path, &st, err);
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
	ret = image_open_known(c, path, &st, key_fd, out);
	if (ret) {
		ret = import(c, path, fd, &st, key_fd, options, out, err);
		if (ret)
			cache_drop_key(c, &st);
	}
	close(key_fd);
	return ret;
}

int image_import(const char *path, const struct image_options *options,
		 char hash[IMAGE_HASH_LEN + 1], struct image_error *err)
{
	struct image image = {.fd = -1};
	struct cache c;
	int fd, ret;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return image_fail(err, -errno, "image %s: %s", path, strerror(errno));
	ret = cache_open(&c, options, true, err);
	if (!ret) {
		ret = open_or_import(&c, path, fd, options, &image, err);
		cache_close(&c, ret);
	}
	if (!ret) {
		memcpy(hash, image.hash, sizeof(image.hash));
		image_close(&image);
	}
	close(fd);
	return ret;
}
