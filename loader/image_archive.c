/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docker save and OCI-layout archives: a tar whose members are documents and layers.
 *
 *   scan       every member's name and where its bytes lie: in the input itself if that is not
 *              compressed, else in an unnamed file to which it is unpacked
 *   manifest   OCI: index.json, further indexes, the manifest for linux/amd64; docker:
 *              manifest.json
 *   layers     from the lowest up, each checked against its digest as it is read
 */
#include "loader/image_internal.h"

#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sentry/lib/hostio.h"

#define NAME_BYTES_MAX	(64U << 20) /* of all members' names */
#define MAX_LINKS	8
#define MAX_INDEX_DEPTH 4

struct member {
	char *name;
	char *target; /* of a link, a clean name in the archive; else NULL */
	uint64_t pos, size;
	size_t order;
	bool spooled;
};

/* The members, sorted by name and, of the same name, by place. */
struct contents {
	struct build *b;
	struct member *members;
	size_t n, cap, name_bytes;
	int spool;
	uint64_t spool_size;
};

/* ---- recognizing ---- */

static bool all_hex(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!isxdigit((unsigned char)s[i]))
			return false;
	}
	return true;
}

bool archive_looks_like(const char *name)
{
	static const char *const names[] = {"blobs",	     "oci-layout",   "index.json",
					    "manifest.json", "repositories", NULL};
	size_t len = strcspn(name, "/");

	for (int i = 0; names[i]; i++) {
		if (strlen(names[i]) == len && !memcmp(name, names[i], len))
			return true;
	}
	if (!strncmp(name, "sha256:", 7))
		return true;
	return len >= 64 && all_hex(name, 64) &&
	       (len == 64 || !strcmp(name + 64, ".json") || !strcmp(name + 64, ".tar"));
}

bool archive_is_manifest(const char *name, const char *text, size_t len)
{
	json_t *root = json_loadb(text, len, 0, NULL);
	json_t *first = json_array_get(root, 0);
	bool yes;

	if (!strcmp(name, "oci-layout"))
		yes = json_is_string(json_object_get(root, "imageLayoutVersion"));
	else
		yes = json_is_array(json_object_get(first, "Layers")) &&
		      json_is_string(json_object_get(first, "Config"));
	json_decref(root);
	return yes;
}

/* ---- scanning ---- */

static int member_compare(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : (x->order > y->order) - (x->order < y->order);
}

static int damaged(struct build *b, const char *what, const char *why)
{
	return image_fail(b->err, -EINVAL, "image %s: %.150s %s: copy or make the archive again",
			  b->name, what, why);
}

/* Adds a member; takes @name and @target over, also on failure. */
static int contents_add(struct contents *c, char *name, char *target, uint64_t pos, uint64_t size,
			bool spooled)
{
	struct member *grown = c->members;
	int err = 0;

	if (!name)
		err = -ENOMEM;
	else if (strlen(name) > NAME_BYTES_MAX - c->name_bytes)
		err = -E2BIG;
	if (!err && c->n == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 64;

		grown = realloc(c->members, cap * sizeof(*grown));
		if (grown) {
			c->members = grown;
			c->cap = cap;
		} else {
			err = -ENOMEM;
		}
	}
	if (err) {
		free(name);
		free(target);
		return build_write_failed(c->b, err, "");
	}
	c->name_bytes += strlen(name);
	c->members[c->n] = (struct member){.name = name,
					   .target = target,
					   .pos = pos,
					   .size = size,
					   .order = c->n,
					   .spooled = spooled};
	c->n++;
	return 0;
}

static void contents_fini(struct contents *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->members[i].name);
		free(c->members[i].target);
	}
	free(c->members);
	if (c->spool >= 0)
		close(c->spool);
}

/* Copies the current member to the spool file. */
static int spool_member(struct contents *c, struct archive *a, struct input *in, uint64_t size)
{
	uint64_t base = c->spool_size;
	struct build *b = c->b;

	if (c->spool < 0) {
		c->spool = build_spool(b);
		if (c->spool < 0)
			return build_write_failed(b, c->spool, "");
	}
	for (;;) {
		const char *buf;
		int64_t pos;
		size_t len;
		int r = archive_read_data_block(a, (const void **)&buf, &len, &pos), err;

		if (r == ARCHIVE_EOF)
			break;
		if (r < ARCHIVE_WARN)
			return build_read_failed(b, a, in, NULL);
		if (pos < 0 || (uint64_t)pos > size || len > size - (uint64_t)pos)
			return build_write_failed(b, -EINVAL, "");
		err = build_charge_bytes(b, len);
		if (err)
			return err;
		err = pwrite_all(c->spool, buf, len, base + (uint64_t)pos);
		if (err)
			return build_write_failed(b, err, "");
	}
	c->spool_size += size;
	/* A hole at the end must be there to be read. */
	if (ftruncate(c->spool, (off_t)c->spool_size))
		return build_write_failed(b, -errno, "");
	return 0;
}

/* The clean name of what a link at @name leads to, or NULL: out of the archive, or no memory. */
static char *link_target(const char *name, const char *target, bool hard)
{
	char path[2 * PATH_MAX], out[2 * PATH_MAX];
	const char *slash = strrchr(name, '/');
	size_t used = 0;

	if (strlen(target) >= PATH_MAX || target[0] == '/')
		return NULL;
	snprintf(path, sizeof(path), "%.*s/%s", hard || !slash ? 0 : (int)(slash - name), name,
		 target);
	for (const char *p = path; *p; p += strspn(p, "/")) {
		size_t len = strcspn(p, "/");

		if (len == 2 && !memcmp(p, "..", 2)) {
			if (!used)
				return NULL;
			while (used && out[--used] != '/')
				;
		} else if (len && !(len == 1 && *p == '.')) {
			if (used)
				out[used++] = '/';
			memcpy(out + used, p, len);
			used += len;
		}
		p += len;
	}
	out[used] = 0;
	return strdup(out);
}

static int scan_member(struct contents *c, struct archive *a, struct input *in,
		       struct archive_entry *e)
{
	bool plain = !in->gz && archive_filter_code(a, 0) == ARCHIVE_FILTER_NONE;
	const char *raw = archive_entry_pathname(e), *target = archive_entry_hardlink(e);
	uint64_t pos, size = (uint64_t)MAX(archive_entry_size(e), (int64_t)0);
	char name[PATH_MAX];
	int err;

	err = path_clean(c->b, raw ? raw : "", name);
	if (err)
		return err;
	if (target || archive_entry_filetype(e) == AE_IFLNK) {
		bool hard = target;
		char *clean;

		target = hard ? target : archive_entry_symlink(e);
		clean = target ? link_target(name, target, hard) : NULL;
		return clean ? contents_add(c, strdup(name), clean, 0, 0, false) : 0;
	}
	if (archive_entry_filetype(e) != AE_IFREG)
		return 0;
	/* Without compression what libarchive has consumed is where the data begins. */
	pos = (uint64_t)archive_filter_bytes(a, 0);
	if (plain && !archive_entry_sparse_count(e) && pos <= c->b->in_size &&
	    size <= c->b->in_size - pos)
		return contents_add(c, strdup(name), NULL, pos, size, false);
	pos = c->spool_size;
	err = spool_member(c, a, in, size);
	return err ? err : contents_add(c, strdup(name), NULL, pos, size, true);
}

static int scan_members(struct contents *c, struct archive *a, struct input *in)
{
	struct archive_entry *e;
	int64_t pos = 0;
	int r, err;

	for (;;) {
		r = archive_read_next_header(a, &e);
		if (r == ARCHIVE_RETRY)
			continue;
		if (r == ARCHIVE_EOF)
			break;
		if (r < ARCHIVE_WARN)
			return build_read_failed(c->b, a, in, NULL);
		err = build_charge_entry(c->b);
		if (!err)
			err = scan_member(c, a, in, e);
		if (err)
			return err;
		if (archive_read_data_skip(a) < ARCHIVE_WARN)
			return build_read_failed(c->b, a, in, NULL);
		pos = archive_filter_bytes(a, 0);
	}
	return layer_ended(in, a, pos) ? 0
				       : damaged(c->b, "it", "is truncated: it has no end marker");
}

/* Fills @c and sets the input's hash. */
static int scan(struct contents *c)
{
	struct build *b = c->b;
	struct archive *a = NULL;
	struct input in;
	int err = input_init(&in, b->in_fd, 0, b->in_size, &b->progress);

	if (err)
		return build_write_failed(b, err, "");
	in.xxh = XXH3_createState();
	if (in.xxh) {
		XXH3_128bits_reset(in.xxh);
		a = input_open_tar(&in, &err);
	}
	if (!a)
		err = build_write_failed(b, -ENOMEM, "");
	else if (err)
		err = build_read_failed(b, a, &in, NULL);
	else
		err = scan_members(c, a, &in);
	archive_read_free(a);
	if (!err)
		err = build_finish_input(b, &in, NULL);
	if (!err) {
		b->hash = XXH3_128bits_digest(in.xxh);
		if (c->n)
			qsort(c->members, c->n, sizeof(*c->members), member_compare);
	}
	input_fini(&in);
	return err;
}

/* The last file of that name, links followed; NULL if there is none. */
static const struct member *contents_find(const struct contents *c, const char *name)
{
	for (int links = 0; links <= MAX_LINKS; links++) {
		const struct member *found = NULL;
		size_t lo = 0, hi = c->n;

		while (lo < hi) {
			size_t mid = lo + (hi - lo) / 2;

			if (strcmp(c->members[mid].name, name) <= 0)
				lo = mid + 1;
			else
				hi = mid;
		}
		if (lo && !strcmp(c->members[lo - 1].name, name))
			found = &c->members[lo - 1];
		if (!found || !found->target)
			return found;
		name = found->target;
	}
	return NULL;
}

static int member_fd(const struct contents *c, const struct member *m)
{
	return m->spooled ? c->spool : c->b->in_fd;
}

/* ---- digests ---- */

/* "sha256:…" taken apart. */
struct digest {
	const EVP_MD *md;
	char algorithm[8];
	char hex[2 * SHA_MAX + 1];
};

static bool digest_parse(const char *s, struct digest *d)
{
	size_t len;

	memset(d, 0, sizeof(*d));
	if (!s)
		return false;
	if (!strncmp(s, "sha256:", 7)) {
		d->md = EVP_sha256();
		len = 64;
	} else if (!strncmp(s, "sha512:", 7)) {
		d->md = EVP_sha512();
		len = 128;
	} else {
		return false;
	}
	memcpy(d->algorithm, s, 6);
	s += 7;
	if (strlen(s) != len || !all_hex(s, len))
		return false;
	for (size_t i = 0; i < len; i++)
		d->hex[i] = (char)tolower((unsigned char)s[i]);
	return true;
}

/* Does the name of a file tell its digest? …/sha256/HEX, HEX.json, sha256:HEX */
static bool digest_of_name(const char *name, struct digest *d)
{
	const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
	char text[7 + 64 + 1];

	if (digest_parse(base, d))
		return true;
	if (strlen(base) < 64 || !all_hex(base, 64) || (base[64] && strcmp(base + 64, ".json")))
		return false;
	if (!base[64] && (slash - name < 6 || memcmp(slash - 6, "sha256", 6)))
		return false;
	snprintf(text, sizeof(text), "sha256:%.64s", base);
	return digest_parse(text, d);
}

/* Takes the digest from @ctx: does it match? */
static bool digest_matches(EVP_MD_CTX *ctx, const struct digest *d)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
	unsigned int len = 0;

	if (!EVP_DigestFinal_ex(ctx, sum, &len))
		return false;
	for (unsigned int i = 0; i < len; i++)
		snprintf(hex + 2 * (size_t)i, 3, "%02x", sum[i]);
	return !strcmp(hex, d->hex);
}

/* ---- documents ---- */

/* Reads a document and checks it against @d if given. @what is for messages. */
static int read_document(struct contents *c, const char *name, const struct digest *d,
			 const char *what, char **text, size_t *len)
{
	const struct member *m = contents_find(c, name);
	struct build *b = c->b;
	size_t got = 0;
	EVP_MD_CTX *ctx;
	bool ok = true;

	*text = NULL;
	if (!m)
		return damaged(b, what, "is missing in the archive");
	if (m->size > JSON_MAX)
		return damaged(b, what, "is too large to be one");
	*text = calloc(1, (size_t)m->size + 1);
	if (!*text)
		return build_write_failed(b, -ENOMEM, "");
	while (got < m->size) {
		ssize_t n = pread(member_fd(c, m), *text + got, (size_t)m->size - got,
				  (off_t)(m->pos + got));

		if (n <= 0)
			break;
		got += (size_t)n;
	}
	*len = got;
	if (got == m->size && d) {
		ctx = EVP_MD_CTX_new();
		ok = ctx && EVP_DigestInit_ex(ctx, d->md, NULL) &&
		     EVP_DigestUpdate(ctx, *text, got) && digest_matches(ctx, d);
		EVP_MD_CTX_free(ctx);
	}
	if (got == m->size && ok)
		return 0;
	free(*text);
	*text = NULL;
	return damaged(b, what, ok ? "can't be read" : "doesn't match its digest");
}

static int read_json(struct contents *c, const char *name, const struct digest *d, const char *what,
		     json_t **out)
{
	char *text;
	size_t len;
	int err = read_document(c, name, d, what, &text, &len);

	if (err)
		return err;
	*out = json_loadb(text, len, 0, NULL);
	free(text);
	return *out ? 0 : damaged(c->b, what, "is no JSON");
}

static int read_config(struct contents *c, const char *name, const struct digest *d, char **text,
		       size_t *len)
{
	int err = read_document(c, name, d, "its configuration", text, len);

	if (err)
		return err;
	err = config_parse(c->b, *text, *len);
	if (err)
		free(*text);
	return err;
}

/* ---- layers ---- */

static bool is_compressed(int fd, const struct member *m)
{
	static const struct {
		uint8_t bytes[6];
		size_t len;
	} magics[] = {{{0x1f, 0x8b}, 2},
		      {{'B', 'Z', 'h'}, 3},
		      {{0xfd, '7', 'z', 'X', 'Z'}, 5},
		      {{0x28, 0xb5, 0x2f, 0xfd}, 4}};
	uint8_t head[6] = {0};

	if (m->size < sizeof(head) || pread(fd, head, sizeof(head), (off_t)m->pos) < 6)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		if (!memcmp(head, magics[i].bytes, magics[i].len))
			return true;
	}
	return false;
}

/*
 * Imports the layer in member @name. @d is the digest of its bytes; without one @diff_id, that of
 * the tar, is used if the layer is not compressed.
 */
static int import_layer(struct contents *c, const char *name, const struct digest *d,
			const struct digest *diff_id)
{
	const struct member *m = contents_find(c, name);
	struct build *b = c->b;
	char what[100];
	struct input in;
	int err;

	snprintf(what, sizeof(what), "layer %.80s", name);
	if (!m)
		return damaged(b, what, "is missing in the archive");
	if (!d && diff_id && !is_compressed(member_fd(c, m), m))
		d = diff_id;
	err = input_init(&in, member_fd(c, m), m->pos, m->pos + m->size, &b->progress);
	if (err)
		return build_write_failed(b, err, "");
	b->layer++;
	b->layers++;
	if (d) {
		in.digest = EVP_MD_CTX_new();
		if (!in.digest || !EVP_DigestInit_ex(in.digest, d->md, NULL))
			err = build_write_failed(b, -ENOMEM, "");
	}
	if (!err)
		err = layer_import(b, &in, LAYER_LAYER, what);
	if (!err)
		err = build_finish_input(b, &in, what);
	/* Also the reason behind whatever was found wrong. */
	if ((!err || err == -EINVAL) && d && !in.error && !input_drain(&in) &&
	    !digest_matches(in.digest, d))
		err = damaged(b, what, "doesn't match its digest");
	input_fini(&in);
	return err;
}

/* Announces to the progress bar what the layers will take. */
static void expect_layer(struct contents *c, const char *name)
{
	const struct member *m = name ? contents_find(c, name) : NULL;

	if (m)
		c->b->progress.total += m->size;
}

/* ---- OCI ---- */

static const char *blob_name(const struct digest *d, char out[160])
{
	snprintf(out, 160, "blobs/%s/%s", d->algorithm, d->hex);
	return out;
}

/* The digest of a descriptor. 0 or -EINVAL with a message. */
static int descriptor_digest(struct build *b, const json_t *descriptor, const char *what,
			     struct digest *d)
{
	if (digest_parse(json_string_value(json_object_get(descriptor, "digest")), d))
		return 0;
	return damaged(b, what, "has no usable digest (sha256 or sha512)");
}

static const char *annotation(const json_t *descriptor, const char *key)
{
	return json_string_value(json_object_get(json_object_get(descriptor, "annotations"), key));
}

/* 2: for linux/amd64, 1: says nothing, 0: for something else or no image. */
static int platform_fits(const json_t *descriptor)
{
	const json_t *platform = json_object_get(descriptor, "platform");
	const char *os = json_string_value(json_object_get(platform, "os"));
	const char *arch = json_string_value(json_object_get(platform, "architecture"));

	if (annotation(descriptor, "vnd.docker.reference.type"))
		return 0;
	if (!os || !arch)
		return 1;
	return !strcmp(os, "linux") && !strcmp(arch, "amd64") ? 2 : 0;
}

/* Picks the one image of an index that is ours. */
static int pick_manifest(struct build *b, const json_t *manifests, struct digest *d)
{
	const char *name = "org.opencontainers.image.ref.name";
	const json_t *best = NULL, *item;
	int best_fit = 0, err;
	size_t i;

	json_array_foreach (manifests, i, item) {
		int fit = platform_fits(item);
		const char *x, *y;

		if (fit > best_fit) {
			best = item;
			best_fit = fit;
			continue;
		}
		if (!fit || fit < best_fit)
			continue;
		x = annotation(best, name);
		y = annotation(item, name);
		if (x && y && strcmp(x, y) &&
		    !json_equal(json_object_get(best, "digest"), json_object_get(item, "digest")))
			return image_fail(b->err, -EINVAL,
					  "image %s: the archive holds several images (%.60s, "
					  "%.60s, …): save one only",
					  b->name, x, y);
	}
	if (!best)
		return image_fail(b->err, -EINVAL,
				  "image %s: the archive holds no image for linux/amd64", b->name);
	err = descriptor_digest(b, best, "its image manifest", d);
	return err;
}

/* From index.json down to the manifest. */
static int oci_manifest(struct contents *c, json_t **out)
{
	struct digest d;
	char name[160];
	json_t *doc;
	int err = read_json(c, "index.json", NULL, "index.json", &doc);

	for (int depth = 0; !err; depth++) {
		const json_t *manifests = json_object_get(doc, "manifests");

		if (!json_is_array(manifests)) {
			*out = doc;
			return 0;
		}
		err = pick_manifest(c->b, manifests, &d);
		json_decref(doc);
		if (!err && depth == MAX_INDEX_DEPTH)
			err = damaged(c->b, "index.json", "has too many indexes behind it");
		if (!err)
			err = read_json(c, blob_name(&d, name), &d, "its image manifest", &doc);
	}
	return err;
}

static int oci_import(struct contents *c)
{
	const json_t *layers, *item;
	struct build *b = c->b;
	json_t *manifest;
	struct digest d;
	char name[160], *text;
	size_t i, len;
	int err;

	b->format = "oci";
	err = oci_manifest(c, &manifest);
	if (err)
		return err;
	layers = json_object_get(manifest, "layers");
	if (!json_is_array(layers)) {
		err = damaged(b, "its image manifest", "has no layers");
		goto out;
	}
	err = descriptor_digest(b, json_object_get(manifest, "config"), "its configuration", &d);
	if (!err)
		err = read_config(c, blob_name(&d, name), &d, &text, &len);
	if (err)
		goto out;
	free(text);
	json_array_foreach (layers, i, item) {
		err = descriptor_digest(b, item, "a layer", &d);
		if (err)
			goto out;
		expect_layer(c, blob_name(&d, name));
	}
	json_array_foreach (layers, i, item) {
		err = descriptor_digest(b, item, "a layer", &d);
		if (!err)
			err = import_layer(c, blob_name(&d, name), &d, NULL);
		if (err)
			break;
	}
out:
	json_decref(manifest);
	return err;
}

/* ---- docker ---- */

/* The only image of manifest.json. */
static int docker_image(struct contents *c, const json_t *doc, const json_t **image)
{
	const json_t *x = json_array_get(doc, 0), *y = json_array_get(doc, 1);
	const char *a = json_string_value(json_array_get(json_object_get(x, "RepoTags"), 0));
	const char *b = json_string_value(json_array_get(json_object_get(y, "RepoTags"), 0));

	*image = x;
	if (!y)
		return 0;
	return image_fail(
		c->b->err, -EINVAL,
		"image %s: the archive holds several images (%.60s, %.60s%s): save one only",
		c->b->name, a ? a : "?", b ? b : "?", json_array_size(doc) > 2 ? ", …" : "");
}

static int docker_layers(struct contents *c, const json_t *layers, const json_t *diff_ids)
{
	const json_t *item;
	int err = 0;
	size_t i;

	json_array_foreach (layers, i, item)
		expect_layer(c, json_string_value(item));
	json_array_foreach (layers, i, item) {
		const char *name = json_string_value(item);
		const char *diff = json_string_value(json_array_get(diff_ids, i));
		struct digest d, diff_id;
		char clean[PATH_MAX];
		bool known, has_diff;

		if (!name)
			return damaged(c->b, "manifest.json", "names a layer that is no string");
		err = path_clean(c->b, name, clean);
		if (err)
			return err;
		known = digest_of_name(clean, &d);
		has_diff = digest_parse(diff, &diff_id);
		err = import_layer(c, clean, known ? &d : NULL, has_diff ? &diff_id : NULL);
		if (err)
			return err;
	}
	return 0;
}

static int docker_import(struct contents *c, const json_t *doc)
{
	const json_t *image;
	const char *config_name;
	json_t *config = NULL;
	char clean[PATH_MAX], *text = NULL;
	struct digest d;
	size_t len;
	int err = docker_image(c, doc, &image);

	if (err)
		return err;
	c->b->format = "docker";
	config_name = json_string_value(json_object_get(image, "Config"));
	err = path_clean(c->b, config_name ? config_name : "", clean);
	if (!err)
		err = read_config(c, clean, digest_of_name(clean, &d) ? &d : NULL, &text, &len);
	if (err)
		return err;
	config = json_loadb(text, len, 0, NULL);
	free(text);
	err = docker_layers(c, json_object_get(image, "Layers"),
			    json_object_get(json_object_get(config, "rootfs"), "diff_ids"));
	json_decref(config);
	return err;
}

/* ---- either ---- */

int archive_import(struct build *b)
{
	struct contents c = {.b = b, .spool = -1};
	json_t *doc = NULL;
	char *text = NULL;
	size_t len;
	int err = scan(&c);

	if (err)
		goto out;
	if (contents_find(&c, "oci-layout") && contents_find(&c, "index.json")) {
		err = oci_import(&c);
		goto out;
	}
	err = 1;
	if (!contents_find(&c, "manifest.json"))
		goto out;
	err = read_document(&c, "manifest.json", NULL, "manifest.json", &text, &len);
	if (err)
		goto out;
	err = 1;
	if (archive_is_manifest("manifest.json", text, len)) {
		doc = json_loadb(text, len, 0, NULL);
		err = docker_import(&c, doc);
		json_decref(doc);
	}
	free(text);
out:
	contents_fini(&c);
	return err;
}
