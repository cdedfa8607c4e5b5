/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The EROFS reader against damaged images: no crash, no byte from outside, no endless loop.
 *
 * The input is an image, if it begins like one; else a list of changes to a good image that the
 * writer makes first: {kind, 3 bytes of position, 4 bytes of value} each, which gets into the
 * metadata at once.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "loader/erofs_write.h"
#include "test/fuzz/erofs_walk.h"
#include "vfs/erofs_fs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static uint8_t *base;
static size_t base_size;

static struct enode *add(struct erofs_writer *w, struct enode *dir, const char *name, uint32_t mode,
			 const void *data, size_t len)
{
	struct enode *inode;
	int err = enode_alloc(w, mode, &inode);

	if (!err && S_ISREG(mode)) {
		err = erofs_data_begin(w, len);
		if (!err && len)
			err = erofs_data_write(w, 0, data, len);
		if (!err)
			err = erofs_data_end(w, inode);
	} else if (!err && S_ISLNK(mode)) {
		err = enode_set_target(w, inode, data);
	}
	if (!err)
		err = enode_link(w, dir, name, strlen(name), 0, inode);
	if (err)
		abort();
	return inode;
}

static void make_base(struct erofs_writer *w)
{
	struct enode *root = erofs_writer_root(w), *dir, *f;
	static uint8_t data[9 * 4096];
	char name[40], target[4000];
	uint8_t value[300] = {1, 2, 3};

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 4096);
	memset(target, 'l', sizeof(target) - 1);
	target[sizeof(target) - 1] = 0;
	add(w, root, "empty", S_IFREG | 0644, NULL, 0);
	f = add(w, root, "plain", S_IFREG | 0644, data, 9000);
	if (enode_add_xattr(w, f, "user.a", value, sizeof(value)) ||
	    enode_add_xattr(w, f, "trusted.b", value, 0) ||
	    enode_add_xattr(w, f, "system.posix_acl_access", value, 28))
		abort();
	/* Half of its blocks are the other's: a chunk table. */
	memset(data + 2 * 4096, 0, 3 * 4096);
	add(w, root, "chunks", S_IFREG | 0755, data, sizeof(data));
	add(w, root, "short-link", S_IFLNK | 0777, "plain", 0);
	add(w, root, "long-link", S_IFLNK | 0777, target, 0);
	add(w, root, "fifo", S_IFIFO | 0600, NULL, 0);
	f = add(w, root, "device", S_IFCHR | 0600, NULL, 0);
	enode_set_rdev(f, 0x1234);
	dir = add(w, root, "many", S_IFDIR | 0755, NULL, 0);
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "file-%d", i * 37);
		if (enode_link(w, dir, name, strlen(name), 0, f))
			abort();
	}
	dir = add(w, root, "dir", S_IFDIR | 0755, NULL, 0);
	dir = add(w, dir, "deep", S_IFDIR | 0755, NULL, 0);
	add(w, dir, "file", S_IFREG | 0644, "x", 1);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int fd = memfd_create("base", MFD_CLOEXEC);
	struct erofs_writer *w = erofs_writer_alloc(fd, 1000);
	const uint64_t *hashes;
	uint8_t uuid[16] = {0};
	uint64_t size;

	if (!w)
		abort();
	make_base(w);
	if (erofs_writer_finish(w, uuid, &size, &hashes))
		abort();
	base_size = (size_t)size;
	base = malloc(base_size);
	if (pread(fd, base, base_size, 0) != (ssize_t)base_size)
		abort();
	close(fd);
	erofs_writer_free(w);
	walk_image(base, base_size, true);
	return 0;
}

static void change(uint8_t *image, size_t size, const uint8_t *c)
{
	uint32_t place = c[1] | ((uint32_t)c[2] << 8) | ((uint32_t)c[3] << 16), value, old;
	size_t at;

	memcpy(&value, c + 4, sizeof(value));
	/* Half of the changes hit the superblock or start on an inode. */
	switch (c[0] & 3) {
	case 0:
		at = EROFS_SUPER_OFFSET + place % 128;
		break;
	case 1:
		at = place * 32ULL % size + (c[0] >> 2) % 32;
		break;
	default:
		at = place % size;
	}
	if (at + sizeof(value) > size)
		return;
	switch (c[0] >> 6) {
	case 0:
		image[at] = (uint8_t)value;
		break;
	case 1:
		memcpy(image + at, &value, 2);
		break;
	case 2:
		memcpy(image + at, &value, sizeof(value));
		break;
	default:
		memcpy(&old, image + at, sizeof(old));
		old += (uint32_t)(int8_t)value;
		memcpy(image + at, &old, sizeof(old));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t magic = 0;
	uint8_t *copy;
	size_t len;

	if (size >= EROFS_SUPER_OFFSET + sizeof(magic))
		memcpy(&magic, data + EROFS_SUPER_OFFSET, sizeof(magic));
	if (magic == EROFS_SUPER_MAGIC) {
		copy = malloc(size);
		memcpy(copy, data, size);
		walk_image(copy, size, false);
		free(copy);
		return 0;
	}
	if (size < 2)
		return 0;
	/* Cut short by so many units of 16 bytes; the copy's end is where ASan watches. */
	len = base_size - (data[0] & 1 ? data[1] * 16U : 0);
	copy = malloc(len);
	memcpy(copy, base, len);
	for (size_t i = 2; i + 8 <= size && i < 2 + 64 * 8; i += 8)
		change(copy, len, data + i);
	walk_image(copy, len, false);
	free(copy);
	return 0;
}
