/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of the image importer only.
 *
 *   image.c          image_open: key, lock, import, publish
 *   image_cache.c    the cache directory: keys, temporary files, listing, removing
 *   image_entry.c    one entry's file: footer, checks
 *   image_build.c    archive in, entry out: which kind of archive, limits, the footer's data
 *   image_archive.c  docker save and OCI archives: their members, manifests, layers in order
 *   image_layer.c    one tar into the tree, whiteouts
 *   image_path.c     members' names, and where in the tree they lead
 *   image_input.c    bytes of a file range to libarchive: hashing, progress
 *   image_config.c   the configuration in JSON
 */
#ifndef LOADER_IMAGE_INTERNAL_H
#define LOADER_IMAGE_INTERNAL_H

#include <jansson.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "loader/erofs_write.h"
#include "loader/image.h"

/* libarchive's and libcrypto's: kvmsbox itself is built without them. */
struct archive;
struct evp_md_ctx_st;

/* Sets the message and returns @code (-errno). */
int image_fail(struct image_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- image_input.c ---- */

struct progress {
	const char *name;
	uint64_t total, done;
	uint64_t start_ns, shown_ns;
	bool enabled, visible;
};

void progress_init(struct progress *p, const char *name, uint64_t total, bool quiet);
void progress_add(struct progress *p, uint64_t n);
void progress_end(struct progress *p);

#define INPUT_BUF_SIZE (256U << 10)
#define SHA_MAX	       64U

/* The bytes [pos, end) of a file on their way to libarchive; whatever passes is hashed. */
struct input {
	int fd;
	uint64_t pos, end;
	XXH3_state_t *xxh;	      /* or NULL */
	struct evp_md_ctx_st *digest; /* an EVP_MD_CTX or NULL */
	struct progress *progress;
	int error; /* -errno of a failed read; -EPIPE: the file became shorter */
	uint8_t *buf;
	struct gunzip *gz; /* or NULL: the bytes are handed on as they are */
	const char *why;   /* what is wrong with them, found by gz */
};

int input_init(struct input *in, int fd, uint64_t pos, uint64_t end,
	       struct progress *progress) __must_check;
void input_fini(struct input *in);
/* Reads what libarchive left, for the hashes. 0 or -errno. */
int input_drain(struct input *in) __must_check;
/* The same, and checks the rest of a gzip file: -EBADMSG, with the reason in in->why. */
int input_finish(struct input *in) __must_check;
/*
 * A tar reader on @in, to be freed with archive_read_free. NULL: no memory. *@err is 0 or, when the
 * archive can't be read, -errno: the reader knows why (build_read_failed).
 */
struct archive *input_open_tar(struct input *in, int *err);

/* ---- image_build.c ---- */

struct build {
	const char *name; /* of the archive, for messages */
	struct image_error *err;
	struct progress progress;
	int in_fd, spool_dir; /* spool_dir: a directory for unnamed files, -1: memory */
	uint64_t in_size;
	uint64_t max_bytes, max_entries;
	uint64_t bytes, entries; /* used so far */
	struct erofs_writer *writer;
	uint32_t layer; /* which one is being read; names remember it */
	uint64_t layers;
	XXH128_hash_t hash; /* of the input */
	struct image_config config;
	const char *format;
	int64_t member_mtime; /* of the member being read, for directories that it implies */
};

/* What image_build found and made. */
struct build_result {
	char hash[IMAGE_HASH_LEN + 1];
	uint64_t size;
};

/*
 * Imports @in_fd into the empty file @out_fd, complete with footer. @spool_dir is where a
 * compressed docker or OCI archive is unpacked to an unnamed file (-1: to memory).
 */
int image_build(const char *name, int in_fd, int out_fd, int spool_dir,
		const struct image_options *options, struct build_result *result,
		struct image_error *err) __must_check;
/* An error of the writer or of the build's memory in words. Returns @code. */
int build_write_failed(struct build *b, int code, const char *member);
/* Counts @n bytes of contents or one entry: -E2BIG with a message. */
int build_charge_bytes(struct build *b, uint64_t n) __must_check;
int build_charge_entry(struct build *b) __must_check;
/* Why libarchive or its input stopped. Returns -errno, never 0. */
int build_read_failed(struct build *b, struct archive *a, const struct input *in, const char *what);
/* Reads what libarchive left (input_finish). 0 or -errno with a message. */
int build_finish_input(struct build *b, struct input *in, const char *what) __must_check;
/* An unnamed file in spool_dir. fd or -errno. */
int build_spool(struct build *b) __must_check;

/* ---- image_layer.c ---- */

enum layer_kind {
	LAYER_PROBE,  /* a bare root file system, unless its members look like an archive's */
	LAYER_ROOTFS, /* a bare root file system */
	LAYER_LAYER,  /* a layer: whiteouts mean something, an empty one is fine */
};
#define LAYER_IS_ARCHIVE 1 /* not a root file system after all */

/* Reads the tar in @in to its end into the tree. 0, -errno, or LAYER_IS_ARCHIVE. */
int layer_import(struct build *b, struct input *in, enum layer_kind kind,
		 const char *what) __must_check;

/*
 * Did the tar end with its end marker? A plain one that doesn't was cut short. @pos is where its
 * last member ended (archive_filter_bytes).
 */
bool layer_ended(const struct input *in, struct archive *a, int64_t pos);

/* ---- image_path.c ---- */

/*
 * A member's name without "./", doubled and trailing slashes, in @out of PATH_MAX bytes ("" is the
 * root). -EINVAL with a message for an absolute one or one with "..".
 */
int path_clean(struct build *b, const char *name, char *out) __must_check;

/*
 * Walks @path (clean) in the tree to its parent directory, following symbolic links as inside a
 * container, never above the root. *@name points to the last component in @path. @create: missing
 * directories are made, except behind a link. 0 or -errno with a message that names @member.
 */
int tree_parent(struct build *b, const char *path, bool create, const char *member,
		struct enode **dir, const char **name) __must_check;

/* ---- image_archive.c ---- */

/* Does a member of this (clean) name come first in a docker save or OCI archive? */
bool archive_looks_like(const char *name);
/* Is this JSON document a docker manifest.json or an oci-layout? */
bool archive_is_manifest(const char *name, const char *text, size_t len);
/* Imports such an archive. 0, -errno, or 1: it is none. */
int archive_import(struct build *b) __must_check;

/* ---- image_config.c ---- */

#define JSON_MAX (8U << 20) /* bytes of one document */

/* Reads an image's configuration document. -EINVAL with a message. */
int config_parse(struct build *b, const char *text, size_t len) __must_check;
/* The description stored in an entry. NULL: no memory. */
char *config_describe(const struct build *b, const struct erofs_stats *st);
/* Reads it back. 0, -EUCLEAN, -ENOMEM. */
int config_restore(const char *text, size_t len, struct image_config *config,
		   struct image_info *info) __must_check;
void config_fini(struct image_config *config);
void info_fini(struct image_info *info);

/* ---- image_entry.c ---- */

/* Appends the block hashes, the description and the footer to the image of @size bytes in @fd. */
int entry_seal(int fd, uint64_t size, const uint64_t *hashes, const char *description,
	       XXH128_hash_t input_hash) __must_check;
/*
 * The cheap check: footer, superblock, description. @out gets size, hash, configuration and
 * information, not the fd. -EUCLEAN: damaged; -ENODATA: no footer, so no entry of ours.
 */
int entry_load(int fd, struct image *out) __must_check;
/* Every block against its hash. 0, -EUCLEAN or -errno. */
int entry_verify(int fd) __must_check;

/* ---- image_cache.c ---- */

struct cache {
	int dir; /* -1: there is none yet */
	char *path;
	unsigned int created; /* how many of the path's last directories are this process's */
};

/* Identifies a state of a file: any change to it changes one of these. */
struct stat_key {
	uint64_t dev, ino, size;
	int64_t mtime_sec, mtime_nsec, ctime_sec, ctime_nsec;
};

void stat_key_of(const struct stat *st, struct stat_key *key);

/* A .key file. */
struct cache_key {
	char magic[8];
	struct stat_key source, entry;
	char hash[IMAGE_HASH_LEN];
	char boot_id[40]; /* of the boot in which the entry was written or last verified */
	uint64_t synced;  /* 1: the entry is known to be on disk */
	uint64_t check;	  /* XXH3-64 of what is above */
};

/* @create: make the directory. Without it a missing one is dir -1. */
int cache_open(struct cache *c, const struct image_options *options, bool create,
	       struct image_error *err) __must_check;
/* @failed: an import came to nothing: removes directories that this process made, if empty. */
void cache_close(struct cache *c, bool failed);
/* Opens the archive's key file and locks it, waiting for another import. fd or -errno. */
int cache_lock_key(struct cache *c, const struct stat *source) __must_check;
/* Reads the key from its file. 0, or -ENOENT if there is none or it is not valid. */
int cache_read_key(struct cache *c, const struct stat *source, struct cache_key *key) __must_check;
/* Writes it to the locked @fd. */
int cache_write_key(int fd, struct cache_key *key) __must_check;
/* Removes the key file behind the locked @fd. */
void cache_drop_key(struct cache *c, const struct stat *source);
/* Opens an existing key file and locks it if nobody else has it locked. fd or -errno. */
int cache_try_key(struct cache *c, const struct stat *source) __must_check;
/*
 * An empty file for a new entry: unnamed, or with *@name set to its temporary name. fd or -errno.
 */
int cache_temp(struct cache *c, char *name, size_t size) __must_check;
/* Gives the finished temporary file its name, unless a good entry has it. */
int cache_publish(struct cache *c, int fd, const char *temp_name, const char *hash) __must_check;
/* Removes temporary files of importers that are gone. */
void cache_sweep(struct cache *c);
/* Opens HASH.erofs after the cheap check. */
int cache_open_entry(struct cache *c, const char *hash, struct image *out) __must_check;
void cache_boot_id(char id[40]);
/* ---- image.c ---- */

/* Opens @path if it is something to import. */
int image_source_stat(const char *path, struct stat *st, struct image_error *err) __must_check;
/*
 * Opens what the archive's key leads to. 0, or -ENOENT: to nothing that can be trusted. @locked as
 * for image_note.
 */
int image_open_known(struct cache *c, const char *path, const struct stat *st, int locked,
		     struct image *out) __must_check;
/* Fills in what @key says about the entry's file behind @fd. 0 or -errno. */
int image_key_set_entry(struct cache_key *key, int fd) __must_check;
/*
 * Notes what was learnt about an entry. Best effort: the cache may be read-only, or another process
 * at it. @locked: the key's fd if the caller holds its lock, else -1.
 */
void image_note(struct cache *c, const struct stat *st, struct cache_key *key, int locked);

/* Waits until a change to a file of change time @t would get a later one. At most 20 ms. */
void wait_past(const struct timespec *t);

#endif
