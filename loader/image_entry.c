/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One entry of the cache. Behind the EROFS's blocks lie
 *
 *   the XXH3-64 of each block (8 bytes, little-endian)
 *   the description (JSON)
 *   the footer (the last 96 bytes)
 *
 * so that file system, configuration and checks are one file that appears in one step. The footer
 * says how long each part is; with its own checksum and the superblock's that is the cheap check at
 * every open. The block hashes are for when something looks wrong.
 */
#include "loader/image_internal.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sentry/lib/hostio.h"
#include "vfs/erofs.h"
#include "vfs/erofs_fs.h"

#define FOOTER_MAGIC	"kvmsbox"
#define FOOTER_VERSION	1U
#define DESCRIPTION_MAX (16U << 20)
#define VERIFY_BLOCKS	256U

/* Little-endian, as everything else in the file. */
struct footer {
	char magic[8];
	uint32_t version; /* of the writer: another one's entries are made again */
	uint32_t reserved;
	uint64_t image_size, hashes_size, description_size;
	uint8_t input_hash[16];
	uint64_t hashes_check;	    /* XXH3-64 */
	uint64_t description_check; /* XXH3-64 */
	uint8_t reserved2[16];
	uint64_t check; /* XXH3-64 of the footer before it */
};
_Static_assert(sizeof(struct footer) == 96, "footer is 96 bytes");

/* All @len bytes: 0, -EUCLEAN if the file ends before, -errno. */
static int read_at(int fd, void *data, size_t len, uint64_t pos)
{
	return pread_all(fd, data, len, pos, -EUCLEAN);
}

static uint64_t footer_check(const struct footer *f)
{
	return htole64(XXH3_64bits(f, offsetof(struct footer, check)));
}

int entry_seal(int fd, uint64_t size, const uint64_t *hashes, const char *description,
	       XXH128_hash_t input_hash)
{
	size_t hashes_size = (size_t)(size / EROFS_BLKSIZ) * sizeof(*hashes);
	size_t description_size = strlen(description);
	struct footer f = {
		.magic = FOOTER_MAGIC,
		.version = htole32(FOOTER_VERSION),
		.image_size = htole64(size),
		.hashes_size = htole64(hashes_size),
		.description_size = htole64(description_size),
		.hashes_check = htole64(XXH3_64bits(hashes, hashes_size)),
		.description_check = htole64(XXH3_64bits(description, description_size)),
	};
	uint64_t end = size + hashes_size + description_size + sizeof(f);
	int err;

	XXH128_canonicalFromHash((XXH128_canonical_t *)f.input_hash, input_hash);
	f.check = footer_check(&f);
	err = pwrite_all(fd, hashes, hashes_size, size);
	if (!err)
		err = pwrite_all(fd, description, description_size, size + hashes_size);
	if (!err)
		err = pwrite_all(fd, &f, sizeof(f), end - sizeof(f));
	/* Blocks that were given up again may lie behind. */
	if (!err && ftruncate(fd, (off_t)end))
		err = -errno;
	return err;
}

/* Reads and checks the footer. */
static int footer_load(int fd, struct footer *f)
{
	struct stat st;
	uint64_t size;
	int err;

	if (fstat(fd, &st))
		return -errno;
	size = (uint64_t)st.st_size;
	if (!S_ISREG(st.st_mode) || size < EROFS_BLKSIZ + sizeof(*f))
		return -ENODATA;
	err = read_at(fd, f, sizeof(*f), size - sizeof(*f));
	if (err)
		return err;
	if (memcmp(f->magic, FOOTER_MAGIC, sizeof(FOOTER_MAGIC)))
		return -ENODATA;
	if (f->check != footer_check(f) || le32toh(f->version) != FOOTER_VERSION)
		return -EUCLEAN;
	f->image_size = le64toh(f->image_size);
	f->hashes_size = le64toh(f->hashes_size);
	f->description_size = le64toh(f->description_size);
	if (f->description_size > DESCRIPTION_MAX || f->image_size > size ||
	    f->image_size % EROFS_BLKSIZ || !f->image_size ||
	    f->hashes_size != f->image_size / EROFS_BLKSIZ * sizeof(uint64_t) ||
	    f->image_size + f->hashes_size + f->description_size + sizeof(*f) != size)
		return -EUCLEAN;
	return 0;
}

/* Block 0 must hold a superblock of a file system of @size bytes. */
static int super_check(int fd, uint64_t size)
{
	uint8_t block[EROFS_BLKSIZ];
	struct erofs_super_block sb;
	int err = read_at(fd, block, sizeof(block), 0);

	if (err)
		return err;
	memcpy(&sb, block + EROFS_SUPER_OFFSET, sizeof(sb));
	if (le32toh(sb.magic) != EROFS_SUPER_MAGIC ||
	    le32toh(sb.checksum) != erofs_checksum(block) ||
	    (uint64_t)le32toh(sb.blocks) << EROFS_BLKSZBITS != size)
		return -EUCLEAN;
	return 0;
}

int entry_load(int fd, struct image *out)
{
	struct footer f;
	char *text;
	int err;

	memset(out, 0, sizeof(*out));
	out->fd = -1;
	err = footer_load(fd, &f);
	if (!err)
		err = super_check(fd, f.image_size);
	if (err)
		return err;
	text = malloc((size_t)f.description_size + 1);
	if (!text)
		return -ENOMEM;
	err = read_at(fd, text, (size_t)f.description_size, f.image_size + f.hashes_size);
	if (!err && XXH3_64bits(text, (size_t)f.description_size) != le64toh(f.description_check))
		err = -EUCLEAN;
	if (!err)
		err = config_restore(text, (size_t)f.description_size, &out->config, &out->info);
	free(text);
	if (err)
		return err;
	out->size = f.image_size;
	for (size_t i = 0; i < sizeof(f.input_hash); i++)
		snprintf(out->hash + 2 * i, 3, "%02x", f.input_hash[i]);
	return 0;
}

/* Compares the image's blocks with @hashes. */
static int verify_blocks(int fd, uint64_t size, const uint64_t *hashes)
{
	uint8_t *buf = malloc((size_t)VERIFY_BLOCKS * EROFS_BLKSIZ);
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t pos = 0; !err && pos < size;) {
		size_t n = (size_t)MIN(size - pos, (uint64_t)VERIFY_BLOCKS * EROFS_BLKSIZ);

		err = read_at(fd, buf, n, pos);
		for (size_t off = 0; !err && off < n; off += EROFS_BLKSIZ) {
			if (XXH3_64bits(buf + off, EROFS_BLKSIZ) != le64toh(*hashes++))
				err = -EUCLEAN;
		}
		pos += n;
	}
	free(buf);
	return err;
}

int entry_verify(int fd)
{
	struct footer f;
	uint64_t *hashes;
	int err = footer_load(fd, &f);

	if (err)
		return err == -ENODATA ? -EUCLEAN : err;
	hashes = malloc((size_t)f.hashes_size);
	if (!hashes)
		return -ENOMEM;
	err = read_at(fd, hashes, (size_t)f.hashes_size, f.image_size);
	if (!err && XXH3_64bits(hashes, (size_t)f.hashes_size) != le64toh(f.hashes_check))
		err = -EUCLEAN;
	if (!err)
		err = verify_blocks(fd, f.image_size, hashes);
	free(hashes);
	return err;
}
