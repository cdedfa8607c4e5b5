/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: from an archive on disk to an open EROFS file in the cache.
 *
 * The cache directory holds
 *   HASH.erofs     an imported image; HASH is the XXH3-128 of the archive's bytes. Behind the EROFS
 *                  lie the hashes of its blocks, a JSON description and a footer (image_entry.c).
 *   DEV-INO.key    what the archive with that inode looked like when it was imported (times, size)
 *                  and which entry it became, so that it needn't be read again. Also the lock of
 *                  its import.
 *   .tmp-*         entries in the making where the file system has no unnamed files
 * It is safe to delete all or part of it at any time.
 *
 * Runs in the front end, before the sandbox: uses malloc. Functions return 0 or -errno with a line
 * for the user in image_error. Not thread-safe.
 */
#ifndef LOADER_IMAGE_H
#define LOADER_IMAGE_H

#include <time.h>

#include "sentry/lib/types.h"

#define IMAGE_MAX_BYTES	  (64ULL << 30) /* defaults for image_options */
#define IMAGE_MAX_ENTRIES (4ULL << 20)
#define IMAGE_HASH_LEN	  32U /* hex digits */

struct image_options {
	const char *cache_dir; /* NULL: $XDG_CACHE_HOME/kvmsbox or ~/.cache/kvmsbox */
	uint64_t max_bytes;    /* of file contents, 0: IMAGE_MAX_BYTES */
	uint64_t max_entries;  /* files, directories, links, 0: IMAGE_MAX_ENTRIES */
	bool quiet;	       /* no progress bar */
};

/* What the image's author wants run. Lists end with NULL; a list or string is NULL if not given. */
struct image_config {
	char **env, **entrypoint, **cmd;
	char *workdir, *user;
};

/* What is known of an image beyond its configuration. */
struct image_info {
	char *format; /* "rootfs", "docker", "oci" or "erofs" */
	char *source; /* name of the archive it was made from, without directories */
	uint64_t entries, layers;
	uint64_t file_bytes;   /* sum of the files' sizes */
	uint64_t stored_bytes; /* what their data takes */
};

struct image {
	int fd;	       /* read-only, close-on-exec */
	uint64_t size; /* of the file system, a multiple of 4096; the file is longer */
	char hash[IMAGE_HASH_LEN + 1]; /* empty for an EROFS file given by the user */
	struct image_config config;
	struct image_info info;
};

struct image_error {
	char message[1024]; /* one line, no newline */
};

/*
 * Opens the image for @path: an archive (imported unless the cache has it) or an EROFS file. On
 * failure nothing is left in the cache. Blocks for as long as an import takes, its own or another
 * process's of the same file.
 */
int image_open(const char *path, const struct image_options *options, struct image *out,
	       struct image_error *err) __must_check;
void image_close(struct image *image);

/*
 * Imports the archive @path unless the cache has it by now; @hash is its entry's. What image_open
 * calls when it doesn't know the archive, by way of image_importer, which the program sets: a
 * sandbox starts faster in a program that isn't linked with all that an import needs.
 */
int image_import(const char *path, const struct image_options *options,
		 char hash[IMAGE_HASH_LEN + 1], struct image_error *err) __must_check;
extern int (*image_importer)(const char *path, const struct image_options *options,
			     char hash[IMAGE_HASH_LEN + 1], struct image_error *err);

/* An entry of the cache. */
struct image_entry {
	char hash[IMAGE_HASH_LEN + 1];
	uint64_t bytes; /* of the file */
	struct timespec imported;
	struct image_info info;
	bool damaged; /* the cheap check failed */
};
/* All entries, oldest first; free with image_list_free. No cache directory: none. */
int image_list(const struct image_options *options, struct image_entry **entries, size_t *n,
	       struct image_error *err) __must_check;
void image_list_free(struct image_entry *entries, size_t n);
/*
 * Finds the cached entry for @what: a hash or its first 4 or more digits, or the path of an archive
 * that was imported and hasn't changed since. -ENOENT.
 */
int image_find(const char *what, const struct image_options *options, char hash[IMAGE_HASH_LEN + 1],
	       struct image_error *err) __must_check;
/* Opens an entry by its full hash, after the cheap check or, with @verify, of every block. */
int image_open_entry(const char *hash, const struct image_options *options, bool verify,
		     struct image *out, struct image_error *err) __must_check;
int image_remove(const char *hash, const struct image_options *options,
		 struct image_error *err) __must_check;
/* Removes all entries, keys and left-over temporary files. *@n: how many entries. */
int image_remove_all(const struct image_options *options, size_t *n,
		     struct image_error *err) __must_check;

#endif
