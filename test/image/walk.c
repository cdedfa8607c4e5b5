/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints all there is in an EROFS image, as the sentry's own reader (vfs/erofs.c) sees it: one line
 * per name with type and mode, owner, time, size, device, link count, nid, SHA-256 of the contents,
 * attributes and link target. Checks on the way that directories are in order and hold "." and "..",
 * that types agree and that every name is found by a look-up. manifest.py compares the output.
 *
 *	walk IMAGE
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "vfs/erofs.h"
#include "vfs/erofs_fs.h"

static struct erofs fs;
static int failures;

static void complain(const char *path, const char *what)
{
	printf("! %s: %s\n", path, what);
	failures++;
}

static void print_escaped(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c <= ' ' || c >= 0x7f || c == '\\' || c == '=')
			printf("\\x%02x", c);
		else
			putchar(c);
	}
}

static void print_digest(const struct erofs_inode *inode, const char *path)
{
	static uint8_t buf[1 << 20];
	unsigned char sum[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned int len;
	uint64_t pos = 0;
	ssize_t n;

	EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	while ((n = erofs_read(&fs, inode, pos, buf, sizeof(buf))) > 0) {
		EVP_DigestUpdate(ctx, buf, (size_t)n);
		pos += (uint64_t)n;
	}
	if (n < 0 || pos != inode->size)
		complain(path, "contents can't be read");
	EVP_DigestFinal_ex(ctx, sum, &len);
	EVP_MD_CTX_free(ctx);
	for (unsigned int i = 0; i < len; i++)
		printf("%02x", sum[i]);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void print_xattrs(const struct erofs_inode *inode, const char *path)
{
	ssize_t len = erofs_listxattr(&fs, inode, NULL, 0), n;
	static char value[65536];
	char *list = malloc((size_t)len + 1), *names[1024];
	size_t count = 0;

	if (len < 0 || erofs_listxattr(&fs, inode, list, (size_t)len) != len)
		complain(path, "attributes can't be listed");
	for (char *p = list; len > 0 && p < list + len && count < 1024; p += strlen(p) + 1)
		names[count++] = p;
	qsort(names, count, sizeof(names[0]), by_name);
	for (size_t i = 0; i < count; i++) {
		n = erofs_getxattr(&fs, inode, names[i], value, sizeof(value));
		if (n < 0)
			complain(path, "an attribute can't be read");
		printf(" ");
		print_escaped(names[i], strlen(names[i]));
		printf("=");
		print_escaped(value, n < 0 ? 0 : (size_t)n);
	}
	free(list);
}

static unsigned int type_of(mode_t mode)
{
	static const unsigned char types[16] = {
		[S_IFREG >> 12] = EROFS_FT_REG,	  [S_IFDIR >> 12] = EROFS_FT_DIR,
		[S_IFCHR >> 12] = EROFS_FT_CHR,	  [S_IFBLK >> 12] = EROFS_FT_BLK,
		[S_IFIFO >> 12] = EROFS_FT_FIFO, [S_IFSOCK >> 12] = EROFS_FT_SOCK,
		[S_IFLNK >> 12] = EROFS_FT_LNK,
	};

	return types[mode >> 12];
}

static void walk(uint64_t nid, uint64_t parent, const char *path, size_t path_len);

struct walk_state {
	const struct erofs_inode *dir;
	uint64_t parent;
	const char *path;
	size_t path_len, last_len;
	char last[256];
	int dots;
	bool deeper; /* second pass */
};

static bool emit(void *arg, const char *name, size_t len, uint64_t nid, unsigned int type,
		 uint64_t next)
{
	bool dot = len == 1 && name[0] == '.', dots = len == 2 && !memcmp(name, "..", 2);
	struct walk_state *s = arg;
	struct erofs_inode inode;
	unsigned int found_type;
	uint64_t found;
	char *child;
	int c;

	c = memcmp(s->last, name, s->last_len < len ? s->last_len : len);
	if (s->last_len && (c > 0 || (!c && s->last_len >= len)))
		complain(s->path, "directory out of order");
	memcpy(s->last, name, len);
	s->last_len = len;
	if (erofs_lookup(&fs, s->dir, name, len, &found, &found_type) || found != nid ||
	    found_type != type)
		complain(s->path, "a name isn't found by look-up");
	if (dot || dots) {
		s->dots++;
		if (nid != (dot ? s->dir->nid : s->parent))
			complain(s->path, "\".\" or \"..\" leads elsewhere");
		return true;
	}
	if (erofs_inode_read(&fs, nid, &inode)) {
		complain(s->path, "an inode can't be read");
		return true;
	}
	if (type_of(inode.mode) != type)
		complain(s->path, "the type in the directory is wrong");
	child = malloc(s->path_len + len + 2);
	memcpy(child, s->path, s->path_len);
	child[s->path_len] = '/';
	memcpy(child + s->path_len + 1, name, len);
	child[s->path_len + len + 1] = 0;
	walk(nid, s->dir->nid, child, s->path_len + len + 1);
	free(child);
	return true;
}

static void walk(uint64_t nid, uint64_t parent, const char *path, size_t path_len)
{
	static char target[4096];
	struct erofs_inode inode;
	ssize_t n;

	if (erofs_inode_read(&fs, nid, &inode)) {
		complain(path, "its inode can't be read");
		return;
	}
	print_escaped(path_len ? path : "/", path_len ? path_len : 1);
	printf(" %o %u %u %lld.%09ld %llu %u:%u %u %llu ", inode.mode, inode.uid, inode.gid,
	       (long long)inode.mtime.tv_sec, inode.mtime.tv_nsec,
	       S_ISDIR(inode.mode) ? 0ULL : (unsigned long long)inode.size, major(inode.rdev),
	       minor(inode.rdev), inode.nlink, (unsigned long long)nid);
	if (S_ISREG(inode.mode)) {
		print_digest(&inode, path);
	} else if (S_ISLNK(inode.mode)) {
		n = erofs_readlink(&fs, &inode, target, sizeof(target));
		if (n < 0)
			complain(path, "link can't be read");
		printf("->");
		print_escaped(target, n < 0 ? 0 : (size_t)n);
	} else {
		printf("-");
	}
	print_xattrs(&inode, path);
	putchar('\n');
	if (S_ISDIR(inode.mode)) {
		struct walk_state s = {
			.dir = &inode, .parent = parent, .path = path, .path_len = path_len};

		if (erofs_readdir(&fs, &inode, 0, emit, &s))
			complain(path, "directory can't be read");
		if (s.dots != 2)
			complain(path, "directory without \".\" and \"..\"");
	}
}

int main(int argc, char **argv)
{
	struct stat st;
	void *map;
	int fd;

	if (argc != 2)
		return 2;
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		perror(argv[1]);
		return 2;
	}
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED || erofs_open(&fs, map, (size_t)st.st_size)) {
		printf("! %s: no EROFS\n", argv[1]);
		return 1;
	}
	walk(fs.root_nid, fs.root_nid, "", 0);
	return failures ? 1 : 0;
}
