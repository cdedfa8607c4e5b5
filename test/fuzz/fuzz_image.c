/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The import against archives that nobody should make: it ends with an image that is sound or with
 * one line of text. The first byte of the input tells what the rest is:
 *
 *   0-63      a tar; its headers' checksums are made right, so that what they say is believed
 *   64-159    a program: members of a bare root file system with names that meet each other
 *   160-255   the same for the layers of a docker save archive
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loader/image_internal.h"
#include "test/fuzz/erofs_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes {
	uint8_t *p;
	size_t n, cap;
};

static uint8_t *grow(struct bytes *b, size_t n)
{
	if (b->n + n > b->cap) {
		b->cap = (b->n + n) * 2;
		b->p = realloc(b->p, b->cap);
	}
	memset(b->p + b->n, 0, n);
	b->n += n;
	return b->p + b->n - n;
}

static void put_checksum(uint8_t header[512])
{
	unsigned int sum = 0;

	memset(header + 148, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += header[i];
	snprintf((char *)header + 148, 8, "%06o", sum);
	header[155] = ' ';
}

/* A member with @data of @size bytes. */
static void put_member(struct bytes *out, const char *name, char type, const char *link,
		       const void *data, size_t size)
{
	uint8_t *h = grow(out, 512);

	snprintf((char *)h, 100, "%s", name);
	memcpy(h + 100, "0000644", 7);
	memcpy(h + 108, "0000001", 7);
	memcpy(h + 116, "0000002", 7);
	snprintf((char *)h + 124, 12, "%011lo", (unsigned long)size);
	memcpy(h + 136, "14524777000", 11);
	h[156] = (uint8_t)type;
	snprintf((char *)h + 157, 100, "%s", link);
	memcpy(h + 257, "ustar\00000", 8);
	memcpy(h + 329, "0000003", 7);
	memcpy(h + 337, "0000004", 7);
	put_checksum(h);
	if (size)
		memcpy(grow(out, (size + 511) & ~511UL), data, size);
}

/* Raw bytes as a tar with right checksums. */
static void put_raw(struct bytes *out, const uint8_t *data, size_t size)
{
	size_t at = 0;

	memcpy(grow(out, (size + 511) & ~511UL), data, size);
	while (at + 512 <= out->n) {
		uint64_t len = 0;

		put_checksum(out->p + at);
		for (int i = 0; i < 11; i++) {
			uint8_t c = out->p[at + 124 + i];

			if (c < '0' || c > '7')
				break;
			len = len * 8 + (c - '0');
		}
		if (len > out->n)
			break;
		at += 512 + ((len + 511) & ~511UL);
	}
	grow(out, 1024);
}

/* A name of a few components out of few. */
static void make_name(uint16_t seed, char name[100])
{
	static const char *const parts[] = {"a",    "b",     "c",	     "a",  "b",	     ".",
					    "..",   ".wh.a", ".wh..wh..opq", "",   ".wh.b",  "d",
					    "long", "etc",   ".wh.",	     "a ", "\xff\n", "e"};
	unsigned int n = 1 + (seed & 3);

	name[0] = 0;
	seed >>= 2;
	for (unsigned int i = 0; i < n; i++) {
		strcat(name, parts[seed % 18]);
		if (i + 1 < n)
			strcat(name, "/");
		seed = (uint16_t)(seed / 18 * 31 + seed);
	}
}

/* One member for four bytes: type, size and name, name of what it leads to. */
static void put_program(struct bytes *out, const uint8_t *data, size_t size)
{
	static const char types[] = "000555112346SxLKg7D0";
	static uint8_t contents[40000];
	char name[100], link[100], pax[200];

	for (size_t i = 0; i + 5 <= size && i < 5 * 60; i += 5) {
		char type = types[data[i] % (sizeof(types) - 1)];
		size_t len = 0;

		make_name((uint16_t)(data[i + 1] | (data[i + 2] << 8)), name);
		make_name((uint16_t)(data[i + 3] | (data[i + 4] << 8)), link);
		if (type == '0') {
			len = data[i + 3] * 150U;
			memset(contents, data[i + 4] & 3, sizeof(contents));
			if (data[i + 4] & 4)
				contents[len / 2] ^= 1;
		}
		if (type == 'x' || type == 'g') {
			static const char *const keys[] = {
				"path",		   "linkpath",	       "size",
				"mtime",	   "uid",	       "SCHILY.xattr.user.a",
				"GNU.sparse.map",  "GNU.sparse.size",  "SCHILY.xattr.trusted.b",
				"GNU.sparse.name", "SCHILY.devmajor", "GNU.sparse.major"};
			const char *key = keys[data[i + 1] % 12];
			int n;

			if (data[i + 2] & 1)
				snprintf(link, sizeof(link), "%d", data[i + 3] * 1001 - 5000);
			n = snprintf(pax, sizeof(pax), "%s=%s\n", key, link);
			n += n + 4 >= 100 ? 4 : 3;
			len = (size_t)snprintf((char *)contents, 300, "%d %s", n, pax);
		}
		if (type == 'L' || type == 'K')
			len = (size_t)snprintf((char *)contents, 300, "%s", link) + 1;
		put_member(out, name, type, type == '0' ? "" : link, contents, len);
	}
	grow(out, 1024);
}

/* Up to three layers, cut from the program. */
static void put_docker(struct bytes *out, const uint8_t *data, size_t size)
{
	static const char config[] = "{\"config\": {\"Env\": [\"A=b\"]}}";
	char manifest[200] = "[{\"Config\": \"c.json\", \"Layers\": [\"0/l\"";
	size_t third = size / 3 / 5 * 5;

	for (int i = 0; i < 3; i++) {
		struct bytes layer = {0};
		char name[10];

		put_program(&layer, data + (size_t)i * third, third);
		snprintf(name, sizeof(name), "%d/l", i);
		put_member(out, name, '0', "", layer.p, layer.n);
		if (i) {
			strcat(manifest, ", \"");
			strcat(manifest, name);
			strcat(manifest, "\"");
		}
		free(layer.p);
	}
	strcat(manifest, "]}]");
	put_member(out, "manifest.json", '0', "", manifest, strlen(manifest));
	put_member(out, "c.json", '0', "", config, strlen(config));
	grow(out, 1024);
}

static void check_image(int fd, const struct build_result *r)
{
	struct image image;
	void *map;

	if (r->size % 4096 || strlen(r->hash) != IMAGE_HASH_LEN)
		__builtin_trap();
	if (entry_load(fd, &image) || entry_verify(fd))
		__builtin_trap();
	if (strcmp(image.hash, r->hash) || image.size != r->size)
		__builtin_trap();
	config_fini(&image.config);
	info_fini(&image.info);
	map = mmap(NULL, r->size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		abort();
	walk_image(map, r->size, true);
	munmap(map, r->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct image_options options = {
		.max_bytes = 4 << 20, .max_entries = 500, .quiet = true};
	struct image_error error = {0};
	struct build_result result = {0};
	struct bytes tar = {0};
	int in, out, err;

	if (size < 2)
		return 0;
	if (data[0] < 64)
		put_raw(&tar, data + 1, size - 1);
	else if (data[0] < 160)
		put_program(&tar, data + 1, size - 1);
	else
		put_docker(&tar, data + 1, size - 1);
	in = memfd_create("in", MFD_CLOEXEC);
	out = memfd_create("out", MFD_CLOEXEC);
	if (in < 0 || out < 0 || write(in, tar.p, tar.n) != (ssize_t)tar.n)
		abort();
	err = image_build("fuzz.tar", in, out, -1, &options, &result, &error);
	if (err > 0 || (err && !error.message[0]))
		__builtin_trap();
	for (const char *p = error.message; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			__builtin_trap();
	}
	if (!err)
		check_image(out, &result);
	close(in);
	close(out);
	free(tar.p);
	return 0;
}
