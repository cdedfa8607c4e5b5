/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache directory. Everything in it appears in one step (linkat or rename of a finished file)
 * or carries its own checksum (keys), so that a process killed at any point leaves nothing that a
 * later one takes for good: at most a temporary file, which cache_sweep removes, or an invalid key.
 *
 * A key's file is also the lock of its archive's import: who wants to import takes it with flock
 * and then looks again. Removing a key needs its lock, too; who got the lock of a removed file
 * starts over.
 */
#include "loader/image_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define KEY_MAGIC   "kvmskey1"
#define TEMP_PREFIX ".tmp-"

/* ---- the directory ---- */

static char *default_path(void)
{
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char *path = NULL;

	if (xdg && *xdg == '/') {
		if (asprintf(&path, "%s/kvmsbox", xdg) < 0)
			return NULL;
	} else if (home && *home) {
		if (asprintf(&path, "%s/.cache/kvmsbox", home) < 0)
			return NULL;
	}
	return path;
}

/* mkdir -p. @created: how many directories are new, which are the last ones. */
static int make_path(const char *path, unsigned int *created)
{
	char *copy = strdup(path), *p = copy;
	int err = 0;

	*created = 0;
	if (!copy)
		return -ENOMEM;
	while (p && !err) {
		p = strchr(p + 1, '/');
		if (p)
			*p = 0;
		if (!mkdir(copy, 0700))
			++*created;
		else if (errno != EEXIST)
			err = -errno;
		if (p)
			*p = '/';
	}
	free(copy);
	return err;
}

/* Removes the last @n directories of @path as far as they are empty. */
static void remove_path(char *path, unsigned int n)
{
	while (n-- && !rmdir(path)) {
		char *slash = strrchr(path, '/');

		if (!slash)
			return;
		*slash = 0;
	}
}

static int cache_failed(struct image_error *err, int code, const char *path)
{
	return image_fail(
		err, code,
		"cache directory %s: %s: name a directory that can be written with --cache", path,
		strerror(-code));
}

int cache_open(struct cache *c, const struct image_options *options, bool create,
	       struct image_error *err)
{
	int ret = 0;

	c->created = 0;
	c->dir = -1;
	c->path = options->cache_dir ? strdup(options->cache_dir) : default_path();
	for (size_t n = c->path ? strlen(c->path) : 0; n > 1 && c->path[n - 1] == '/'; n--)
		c->path[n - 1] = 0;
	if (!c->path || !*c->path) {
		free(c->path);
		c->path = NULL;
		return image_fail(err, -EINVAL,
				  "no cache directory: set HOME or XDG_CACHE_HOME, or use --cache");
	}
	/* A failed import of another process may remove the directory in between. */
	for (int i = 0; i < 10; i++) {
		c->dir = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (c->dir >= 0 || errno != ENOENT || !create)
			break;
		ret = make_path(c->path, &c->created);
		if (ret)
			goto fail;
	}
	if (c->dir >= 0 || (!create && errno == ENOENT))
		return 0;
	ret = -errno;
fail:
	cache_failed(err, ret, c->path);
	remove_path(c->path, c->created);
	free(c->path);
	c->path = NULL;
	return ret;
}

void cache_close(struct cache *c, bool failed)
{
	if (c->dir >= 0)
		close(c->dir);
	if (failed)
		remove_path(c->path, c->created);
	free(c->path);
	c->path = NULL;
	c->dir = -1;
}

/* ---- keys ---- */

void stat_key_of(const struct stat *st, struct stat_key *key)
{
	memset(key, 0, sizeof(*key));
	key->dev = st->st_dev;
	key->ino = st->st_ino;
	key->size = (uint64_t)st->st_size;
	key->mtime_sec = st->st_mtim.tv_sec;
	key->mtime_nsec = st->st_mtim.tv_nsec;
	key->ctime_sec = st->st_ctim.tv_sec;
	key->ctime_nsec = st->st_ctim.tv_nsec;
}

void cache_boot_id(char id[40])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	memset(id, 0, 40);
	if (fd >= 0) {
		n = read(fd, id, 36);
		close(fd);
	}
	if (n != 36)
		memset(id, 0, 40);
}

static void key_name(const struct stat *source, char name[64])
{
	snprintf(name, 64, "%llx-%llx.key", (unsigned long long)source->st_dev,
		 (unsigned long long)source->st_ino);
}

int cache_lock_key(struct cache *c, const struct stat *source)
{
	struct stat locked, named;
	char name[64];
	int fd;

	key_name(source, name);
	for (;;) {
		fd = openat(c->dir, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return -errno;
		while (flock(fd, LOCK_EX)) {
			if (errno != EINTR) {
				int err = -errno;

				close(fd);
				return err;
			}
		}
		if (!fstat(fd, &locked) && !fstatat(c->dir, name, &named, AT_SYMLINK_NOFOLLOW) &&
		    locked.st_ino == named.st_ino && locked.st_dev == named.st_dev)
			return fd;
		close(fd);
	}
}

static uint64_t key_check(const struct cache_key *key)
{
	return XXH3_64bits(key, offsetof(struct cache_key, check));
}

/* Reads a key from a file of the directory. */
static int key_load(struct cache *c, const char *name, struct cache_key *key)
{
	int fd = openat(c->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -ENOENT;
	n = read(fd, key, sizeof(*key));
	close(fd);
	if (n != sizeof(*key) || memcmp(key->magic, KEY_MAGIC, sizeof(key->magic)) ||
	    key->check != key_check(key))
		return -ENOENT;
	return 0;
}

int cache_read_key(struct cache *c, const struct stat *source, struct cache_key *key)
{
	struct stat_key now;
	char name[64];
	int err;

	key_name(source, name);
	err = key_load(c, name, key);
	if (err)
		return err;
	stat_key_of(source, &now);
	return memcmp(&now, &key->source, sizeof(now)) ? -ENOENT : 0;
}

int cache_write_key(int fd, struct cache_key *key)
{
	ssize_t n;

	memcpy(key->magic, KEY_MAGIC, sizeof(key->magic));
	key->check = key_check(key);
	n = pwrite(fd, key, sizeof(*key), 0);
	if (n != sizeof(*key))
		return n < 0 ? -errno : -ENOSPC;
	return ftruncate(fd, sizeof(*key)) ? -errno : 0;
}

int cache_try_key(struct cache *c, const struct stat *source)
{
	char name[64];
	int fd, err;

	key_name(source, name);
	fd = openat(c->dir, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

void cache_drop_key(struct cache *c, const struct stat *source)
{
	char name[64];

	key_name(source, name);
	unlinkat(c->dir, name, 0);
}

/* ---- entries ---- */

static void entry_name(const char *hash, char name[64])
{
	snprintf(name, 64, "%.*s.erofs", (int)IMAGE_HASH_LEN, hash);
}

int cache_open_entry(struct cache *c, const char *hash, struct image *out)
{
	char name[64];
	int fd, err;

	entry_name(hash, name);
	fd = openat(c->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = entry_load(fd, out);
	if (!err && strcmp(out->hash, hash)) {
		image_close(out);
		err = -EUCLEAN;
	}
	if (err) {
		close(fd);
		return err == -ENODATA ? -EUCLEAN : err;
	}
	out->fd = fd;
	return 0;
}

int cache_temp(struct cache *c, char *name, size_t size)
{
	struct stat st;
	int fd;

	name[0] = 0;
	fd = openat(c->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd < 0 ? -errno : fd;
	/* A file system without unnamed files. The lock tells cache_sweep that its maker lives. */
	for (unsigned int i = 0;; i++) {
		snprintf(name, size, TEMP_PREFIX "%ld-%u", (long)getpid(), i);
		fd = openat(c->dir, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
		if (fd < 0 && errno == EEXIST)
			continue;
		if (fd < 0)
			return -errno;
		if (!flock(fd, LOCK_EX | LOCK_NB) && !fstat(fd, &st) && st.st_nlink)
			return fd;
		close(fd);
	}
}

/* Renames @temp to @name, in place of whatever is there. */
static int put_in_place(struct cache *c, const char *temp, const char *name)
{
	if (!renameat(c->dir, temp, c->dir, name))
		return 0;
	/* Nothing of ours, but an empty directory is no reason to fail for ever. */
	if (errno == EISDIR && !unlinkat(c->dir, name, AT_REMOVEDIR) &&
	    !renameat(c->dir, temp, c->dir, name))
		return 0;
	return -errno;
}

int cache_publish(struct cache *c, int fd, const char *temp_name, const char *hash)
{
	char name[64], proc[64], temp[64];
	struct image old;
	int err;

	entry_name(hash, name);
	/* Whoever runs from a good entry goes on sharing its pages with us. */
	if (!cache_open_entry(c, hash, &old)) {
		err = entry_verify(old.fd);
		image_close(&old);
		if (!err)
			return 0;
	}
	if (fchmod(fd, 0444))
		return -errno;
	if (temp_name[0])
		return put_in_place(c, temp_name, name);
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	if (!linkat(AT_FDCWD, proc, c->dir, name, AT_SYMLINK_FOLLOW))
		return 0;
	if (errno != EEXIST)
		return -errno;
	/* In place of a damaged one. */
	if (flock(fd, LOCK_EX | LOCK_NB))
		return -errno;
	snprintf(temp, sizeof(temp), TEMP_PREFIX "%ld-link", (long)getpid());
	unlinkat(c->dir, temp, 0);
	if (linkat(AT_FDCWD, proc, c->dir, temp, AT_SYMLINK_FOLLOW))
		return -errno;
	err = put_in_place(c, temp, name);
	if (err)
		unlinkat(c->dir, temp, 0);
	return err;
}

void wait_past(const struct timespec *t)
{
	const struct timespec tick = {.tv_nsec = 1000000};

	/* File times are taken from the coarse clock. */
	for (int i = 0; i < 20; i++) {
		struct timespec now;

		clock_gettime(CLOCK_REALTIME_COARSE, &now);
		if (now.tv_sec > t->tv_sec || (now.tv_sec == t->tv_sec && now.tv_nsec > t->tv_nsec))
			return;
		nanosleep(&tick, NULL);
	}
}

/* ---- walking the directory ---- */

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), m = strlen(suffix);

	return n > m && !strcmp(name + n - m, suffix);
}

static bool is_entry_name(const char *name)
{
	return strlen(name) == IMAGE_HASH_LEN + strlen(".erofs") && has_suffix(name, ".erofs") &&
	       strspn(name, "0123456789abcdef") == IMAGE_HASH_LEN;
}

/* Opens the directory for reading; NULL with *@err. */
static DIR *walk(struct cache *c, int *err)
{
	int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	*err = d ? 0 : -errno;
	if (!d && fd >= 0)
		close(fd);
	return d;
}

/* Removes @name if nobody holds its lock and, with @only_empty, if it is empty. */
static void remove_unlocked(struct cache *c, const char *name, bool only_empty)
{
	int fd = openat(c->dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return;
	if (!flock(fd, LOCK_EX | LOCK_NB) && (!only_empty || (!fstat(fd, &st) && !st.st_size)))
		unlinkat(c->dir, name, 0);
	close(fd);
}

void cache_sweep(struct cache *c)
{
	struct dirent *e;
	int err;
	DIR *d = walk(c, &err);

	while (d && (e = readdir(d))) {
		if (!strncmp(e->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX)))
			remove_unlocked(c, e->d_name, false);
		else if (has_suffix(e->d_name, ".key"))
			remove_unlocked(c, e->d_name, true);
	}
	if (d)
		closedir(d);
}

static int by_time(const void *a, const void *b)
{
	const struct image_entry *x = a, *y = b;

	if (x->imported.tv_sec != y->imported.tv_sec)
		return x->imported.tv_sec < y->imported.tv_sec ? -1 : 1;
	if (x->imported.tv_nsec != y->imported.tv_nsec)
		return x->imported.tv_nsec < y->imported.tv_nsec ? -1 : 1;
	return strcmp(x->hash, y->hash);
}

/* Adds the entry in file @name, unless it is gone already. */
static int list_add(struct cache *c, const char *name, struct image_entry **entries, size_t *n)
{
	struct image_entry *grown = realloc(*entries, (*n + 1) * sizeof(*grown)), *e;
	struct image image;
	struct stat st;

	if (!grown)
		return -ENOMEM;
	*entries = grown;
	e = &grown[*n];
	memset(e, 0, sizeof(*e));
	memcpy(e->hash, name, IMAGE_HASH_LEN);
	if (fstatat(c->dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	e->bytes = (uint64_t)st.st_size;
	e->imported = st.st_mtim;
	if (cache_open_entry(c, e->hash, &image)) {
		e->damaged = true;
	} else {
		e->info = image.info;
		memset(&image.info, 0, sizeof(image.info));
		image_close(&image);
	}
	(*n)++;
	return 0;
}

int image_list(const struct image_options *options, struct image_entry **entries, size_t *n,
	       struct image_error *err)
{
	struct dirent *e;
	struct cache c;
	int ret = cache_open(&c, options, false, err);
	DIR *d;

	*entries = NULL;
	*n = 0;
	if (ret || c.dir < 0) {
		if (!ret)
			cache_close(&c, false);
		return ret;
	}
	d = walk(&c, &ret);
	while (d && !ret && (e = readdir(d))) {
		if (is_entry_name(e->d_name))
			ret = list_add(&c, e->d_name, entries, n);
	}
	if (d)
		closedir(d);
	if (ret) {
		cache_failed(err, ret, c.path);
		image_list_free(*entries, *n);
	} else if (*n) {
		qsort(*entries, *n, sizeof(**entries), by_time);
	}
	cache_close(&c, false);
	return ret;
}

void image_list_free(struct image_entry *entries, size_t n)
{
	for (size_t i = 0; i < n; i++)
		info_fini(&entries[i].info);
	free(entries);
}

/* By hash or prefix of one: 1 found, 0 not, -EEXIST for more than one. */
static int find_hash(struct cache *c, const char *what, char hash[IMAGE_HASH_LEN + 1])
{
	size_t len = strlen(what);
	struct dirent *e;
	int n = 0, err;
	DIR *d;

	if (len < 4 || len > IMAGE_HASH_LEN || strspn(what, "0123456789abcdef") != len)
		return 0;
	d = walk(c, &err);
	while (d && (e = readdir(d))) {
		if (!is_entry_name(e->d_name) || strncmp(e->d_name, what, len))
			continue;
		memcpy(hash, e->d_name, IMAGE_HASH_LEN);
		hash[IMAGE_HASH_LEN] = 0;
		n++;
	}
	if (d)
		closedir(d);
	return n > 1 ? -EEXIST : n;
}

int image_find(const char *what, const struct image_options *options, char hash[IMAGE_HASH_LEN + 1],
	       struct image_error *err)
{
	struct cache_key key;
	struct cache c;
	struct stat st;
	int ret = cache_open(&c, options, false, err);

	if (ret)
		return ret;
	if (c.dir >= 0) {
		ret = find_hash(&c, what, hash);
		if (!ret && !stat(what, &st) && !cache_read_key(&c, &st, &key)) {
			memcpy(hash, key.hash, IMAGE_HASH_LEN);
			hash[IMAGE_HASH_LEN] = 0;
			ret = 1;
		}
	}
	if (ret == -EEXIST)
		image_fail(err, ret, "image %s: several hashes begin so: give more digits", what);
	else if (!ret)
		ret = image_fail(
			err, -ENOENT,
			"image %s: not in the cache %s: kvmsbox image ls lists it, kvmsbox "
			"image import adds to it",
			what, c.path);
	else
		ret = 0;
	cache_close(&c, false);
	return ret;
}

/* Removes the keys that lead to @hash, or all of them (NULL). */
static void remove_keys(struct cache *c, const char *hash)
{
	struct cache_key key;
	struct dirent *e;
	int err;
	DIR *d = walk(c, &err);

	while (d && (e = readdir(d))) {
		if (!has_suffix(e->d_name, ".key"))
			continue;
		if (!hash ||
		    (!key_load(c, e->d_name, &key) && !memcmp(key.hash, hash, IMAGE_HASH_LEN)))
			remove_unlocked(c, e->d_name, false);
	}
	if (d)
		closedir(d);
}

int image_remove(const char *hash, const struct image_options *options, struct image_error *err)
{
	struct cache c;
	char name[64];
	int ret = cache_open(&c, options, false, err);

	if (ret)
		return ret;
	entry_name(hash, name);
	if (c.dir < 0 || unlinkat(c.dir, name, 0))
		ret = image_fail(err, c.dir < 0 ? -ENOENT : -errno,
				 "image %s: can't remove it from %s: %s", hash, c.path,
				 strerror(c.dir < 0 ? ENOENT : errno));
	else
		remove_keys(&c, hash);
	cache_close(&c, false);
	return ret;
}

int image_remove_all(const struct image_options *options, size_t *n, struct image_error *err)
{
	struct dirent *e;
	struct cache c;
	int ret = cache_open(&c, options, false, err);
	DIR *d;

	*n = 0;
	if (ret || c.dir < 0) {
		if (!ret)
			cache_close(&c, false);
		return ret;
	}
	d = walk(&c, &ret);
	while (d && (e = readdir(d))) {
		if (!is_entry_name(e->d_name))
			continue;
		if (!unlinkat(c.dir, e->d_name, 0))
			(*n)++;
		else if (!ret)
			ret = -errno;
	}
	if (d)
		closedir(d);
	remove_keys(&c, NULL);
	cache_sweep(&c);
	if (ret)
		cache_failed(err, ret, c.path);
	cache_close(&c, false);
	return ret;
}
