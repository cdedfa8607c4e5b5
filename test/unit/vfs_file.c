/* SPDX-License-Identifier: Apache-2.0 */
/* Open files: contents, positions, limits, set-id bits, times, holes, mappings, seals, attributes.
 */
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <sys/xattr.h>

#include "test/unit/vfs_support.h"

static struct vfs_env env;
#define CTX (&env.ctx)

static ssize_t do_write(struct file *f, const char *s, unsigned int flags, uint64_t pos)
{
	struct kiocb io = {.file = f, .ctx = CTX, .pos = pos, .flags = flags};
	struct iov_iter it;

	iov_init_kernel(&it, s, strlen(s));
	return file_write(&io, &it);
}

static ssize_t do_read(struct file *f, char *buf, size_t len, unsigned int flags, uint64_t pos)
{
	struct kiocb io = {.file = f, .ctx = CTX, .pos = pos, .flags = flags};
	struct iov_iter it;
	ssize_t n;

	iov_init_kernel(&it, buf, len);
	n = file_read(&io, &it);
	buf[n > 0 ? n : 0] = '\0';
	return n;
}

static void test_positions(void)
{
	char buf[64];
	struct file *f = xopen(&env, "/f", O_CREAT | O_RDWR), *a;

	CHECK_EQ("write", do_write(f, "hello", 0, 0), 5);
	CHECK_EQ("write goes on", do_write(f, " world", 0, 0), 6);
	CHECK_EQ("read at end", do_read(f, buf, 10, 0, 0), 0);
	CHECK_EQ("lseek", file_llseek(f, -5, SEEK_END), 6);
	CHECK("read", do_read(f, buf, 10, 0, 0) == 5 && !strcmp(buf, "world"));
	CHECK("pread", do_read(f, buf, 4, IOCB_POSITIONED, 1) == 4 && !strcmp(buf, "ello"));
	CHECK_EQ("position kept", file_llseek(f, 0, SEEK_CUR), 11);
	CHECK_EQ("seek negative", file_llseek(f, -1, SEEK_SET), -EINVAL);
	CHECK_EQ("seek bad whence", file_llseek(f, 0, 77), -EINVAL);
	a = xopen(&env, "/f", O_WRONLY | O_APPEND);
	CHECK_EQ("append", do_write(a, "!", IOCB_POSITIONED, 0), 1);
	CHECK_EQ("not readable", do_read(a, buf, 1, 0, 0), -EBADF);
	file_put(a);
	CHECK("appended", !strcmp(get_text(&env, "/f"), "hello world!"));
	CTX->fsize_limit = 14;
	CHECK_EQ("size limit cuts", do_write(f, "abcdef", IOCB_POSITIONED, 12), 2);
	CHECK_EQ("size limit", do_write(f, "x", IOCB_POSITIONED, 14), -EFBIG);
	CHECK_EQ("truncate limit", vfs_truncate(CTX, &f->path, 100), -EFBIG);
	CTX->fsize_limit = UINT64_MAX;
	file_put(f);
	f = xopen(&env, "/f", O_RDONLY);
	CHECK_EQ("not writable", do_write(f, "x", 0, 0), -EBADF);
	CHECK_EQ("ftruncate read-only", file_truncate(CTX, f, 0), -EINVAL);
	file_put(f);
	f = xopen(&env, "/", O_RDONLY);
	CHECK_EQ("read directory", do_read(f, buf, 1, 0, 0), -EISDIR);
	file_put(f);
	f = xopen(&env, "/f", O_RDWR | O_TRUNC);
	CHECK_EQ("truncated", file_llseek(f, 0, SEEK_END), 0);
	file_put(f);
	f = xopen(&env, "/f", O_PATH);
	CHECK_EQ("path read", do_read(f, buf, 1, 0, 0), -EBADF);
	file_put(f);
}

static void test_holes(void)
{
	char buf[64];
	struct file *f = xopen(&env, "/h", O_CREAT | O_RDWR);
	struct statx st;

	CHECK_EQ("write far", do_write(f, "end", IOCB_POSITIONED, 100000), 3);
	CHECK("hole is zero", do_read(f, buf, 8, IOCB_POSITIONED, 50000) == 8 &&
				      !memcmp(buf, "\0\0\0\0\0\0\0\0", 8));
	CHECK("sparse", !try_stat(&env, "/h", &st) && st.stx_blocks == 8 && st.stx_size == 100003);
	CHECK_EQ("seek data", file_llseek(f, 0, SEEK_DATA), 98304);
	CHECK_EQ("seek hole", file_llseek(f, 98304, SEEK_HOLE), 100003);
	CHECK_EQ("seek hole first", file_llseek(f, 5, SEEK_HOLE), 5);
	CHECK_EQ("seek past end", file_llseek(f, 100003, SEEK_DATA), -ENXIO);
	CHECK_EQ("fallocate", file_fallocate(CTX, f, 0, 0, 8192), 0);
	CHECK("allocated", !try_stat(&env, "/h", &st) && st.stx_blocks == 24);
	CHECK_EQ("punch",
		 file_fallocate(CTX, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100000), 0);
	CHECK("punched", !try_stat(&env, "/h", &st) && st.stx_blocks == 8);
	CHECK("punch keeps the rest",
	      do_read(f, buf, 8, IOCB_POSITIONED, 100000) == 3 && !strcmp(buf, "end"));
	CHECK_EQ("truncate down", file_truncate(CTX, f, 100001), 0);
	CHECK_EQ("truncate up", file_truncate(CTX, f, 100003), 0);
	CHECK("tail is zero",
	      do_read(f, buf, 8, IOCB_POSITIONED, 100000) == 3 && !memcmp(buf, "e\0\0", 3));
	CHECK_EQ("fallocate bad", file_fallocate(CTX, f, 0, 0, 0), -EINVAL);
	CHECK_EQ("fallocate unknown", file_fallocate(CTX, f, FALLOC_FL_COLLAPSE_RANGE, 0, 4096),
		 -EOPNOTSUPP);
	file_put(f);
}

static struct {
	uint64_t pgoff, n;
	bool even_cow;
	int calls;
} zapped;

static void record_zap(struct map_user *user, uint64_t pgoff, uint64_t n, bool even_cow)
{
	zapped.pgoff = pgoff;
	zapped.n = n;
	zapped.even_cow = even_cow;
	zapped.calls++;
}

static int map_pages(struct inode *inode, uint64_t pgoff, bool write, gpa_t *gpa, size_t *n)
{
	int err;

	mutex_lock(&inode->mapping.lock);
	err = inode->mops->get_pages(inode, pgoff, write, gpa, n);
	mutex_unlock(&inode->mapping.lock);
	return err;
}

static void test_mapping(void)
{
	struct file *f = xopen(&env, "/m", O_CREAT | O_RDWR);
	struct map_user user = {.pgoff = 2, .npages = 10, .shared = true, .zap = record_zap};
	struct inode *inode = f->inode;
	char buf[16];
	size_t n;
	gpa_t gpa, again;

	file_truncate(CTX, f, 20 * PAGE_SIZE + 5);
	mutex_lock(&inode->mapping.lock);
	list_add(&user.node, &inode->mapping.users);
	mutex_unlock(&inode->mapping.lock);
	n = 8;
	CHECK_EQ("get pages", map_pages(inode, 2, true, &gpa, &n), 0);
	CHECK_EQ("a whole run", n, 8);
	strcpy(phys_ptr(gpa), "mapped");
	CHECK("seen by read",
	      do_read(f, buf, 6, IOCB_POSITIONED, 2 * PAGE_SIZE) == 6 && !strcmp(buf, "mapped"));
	do_write(f, "MAP", IOCB_POSITIONED, 2 * PAGE_SIZE);
	CHECK("write seen", !strcmp(phys_ptr(gpa), "MAPped"));
	CHECK_EQ("reference each", frame_refs(gpa + 3 * PAGE_SIZE), 2);
	frame_put_range(gpa, n);
	n = 100;
	CHECK_EQ("same page again", map_pages(inode, 4, false, &again, &n), 0);
	CHECK("contiguous", again == gpa + 2 * PAGE_SIZE && n == 6);
	frame_put_range(again, n);
	n = 1;
	CHECK_EQ("beyond the end", map_pages(inode, 21, true, &again, &n), -EFAULT);
	CHECK_EQ("last page", map_pages(inode, 20, true, &again, &n), 0);
	strcpy((char *)phys_ptr(again) + 5, "behind the end");
	frame_put(again);
	file_truncate(CTX, f, 21 * PAGE_SIZE);
	CHECK("behind the end was zeroed",
	      do_read(f, buf, 6, IOCB_POSITIONED, 20 * PAGE_SIZE + 5) == 6 && !buf[0]);
	zapped.calls = 0;
	file_truncate(CTX, f, 5 * PAGE_SIZE + 1);
	CHECK("truncate zaps",
	      zapped.calls == 1 && zapped.pgoff == 6 && zapped.n == 6 && zapped.even_cow);
	zapped.calls = 0;
	file_fallocate(CTX, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * PAGE_SIZE,
		       PAGE_SIZE);
	CHECK("punch zaps",
	      zapped.calls == 1 && zapped.pgoff == 3 && zapped.n == 1 && zapped.even_cow);
	mutex_lock(&inode->mapping.lock);
	list_del(&user.node);
	mutex_unlock(&inode->mapping.lock);
	file_put(f);
}

static void test_big_write(void)
{
	struct file *f = xopen(&env, "/big", O_CREAT | O_RDWR);
	size_t len = 3 << 20;
	char *data = malloc(len), *back = malloc(len);

	for (size_t i = 0; i < len; i++)
		data[i] = (char)(i * 2654435761u >> 13);
	CHECK_EQ("big write", file_write_kernel(f, data, len, 123), len);
	CHECK("big read",
	      file_read_kernel(f, back, len, 123) == (ssize_t)len && !memcmp(data, back, len));
	CHECK_EQ("overwrite", file_write_kernel(f, data, 70000, 5000), 70000);
	CHECK("overwritten",
	      file_read_kernel(f, back, 70000, 5000) == 70000 && !memcmp(data, back, 70000));
	free(data);
	free(back);
	file_put(f);
	vfs_unlink(CTX, NULL, "/big");
}

static void test_setid(void)
{
	struct iattr_change c = {.valid = ATTR_MODE, .mode = 06777};
	struct path p;
	struct statx st;
	struct file *f;

	put_text(&env, "/s", "x");
	p = xlookup(&env, "/s", 0);
	vfs_setattr(CTX, &p, &c);
	f = xopen(&env, "/s", O_WRONLY);
	do_write(f, "root keeps them", 0, 0);
	CHECK("fsetid keeps", !try_stat(&env, "/s", &st) && (st.stx_mode & 07777) == 06777);
	file_put(f);
	env_become(&env, 1000, 1000);
	f = xopen(&env, "/s", O_WRONLY);
	do_write(f, "y", 0, 0);
	CHECK("write strips", !try_stat(&env, "/s", &st) && (st.stx_mode & 07777) == 0777);
	file_put(f);
	env_become(&env, 0, 0);
	c.mode = 06755;
	vfs_setattr(CTX, &p, &c);
	c = (struct iattr_change){.valid = ATTR_UID, .uid = 5};
	CHECK_EQ("chown", vfs_setattr(CTX, &p, &c), 0);
	CHECK("chown strips",
	      !try_stat(&env, "/s", &st) && (st.stx_mode & 07777) == 0755 && st.stx_uid == 5);
	path_put(&p);
}

static void test_times(void)
{
	struct iattr_change c = {.valid = ATTR_ATIME | ATTR_MTIME | ATTR_TIMES_SET,
				 .atime = {100, 5},
				 .mtime = {200, 6}};
	struct path p;
	struct statx st;
	char buf[4];
	struct file *f;

	put_text(&env, "/t", "x");
	p = xlookup(&env, "/t", 0);
	CHECK_EQ("utimes", vfs_setattr(CTX, &p, &c), 0);
	CHECK("times set", !try_stat(&env, "/t", &st) && st.stx_atime.tv_sec == 100 &&
				   st.stx_mtime.tv_nsec == 6);
	f = xopen(&env, "/t", O_RDONLY | O_NOATIME);
	do_read(f, buf, 1, 0, 0);
	file_put(f);
	CHECK("noatime", !try_stat(&env, "/t", &st) && st.stx_atime.tv_sec == 100);
	f = xopen(&env, "/t", O_RDONLY);
	do_read(f, buf, 1, 0, 0);
	file_put(f);
	CHECK("relatime", !try_stat(&env, "/t", &st) && st.stx_atime.tv_sec > 1000);
	path_put(&p);
}

static void test_xattrs(void)
{
	struct path p, d;
	char buf[64];

	put_text(&env, "/x", "x");
	p = xlookup(&env, "/x", 0);
	CHECK_EQ("getxattr missing", vfs_getxattr(CTX, &p, "user.a", buf, 64), -ENODATA);
	CHECK_EQ("setxattr", vfs_setxattr(CTX, &p, "user.a", "value", 5, 0), 0);
	CHECK("getxattr",
	      vfs_getxattr(CTX, &p, "user.a", buf, 64) == 5 && !memcmp(buf, "value", 5));
	CHECK_EQ("getxattr size", vfs_getxattr(CTX, &p, "user.a", NULL, 0), 5);
	CHECK_EQ("getxattr small", vfs_getxattr(CTX, &p, "user.a", buf, 4), -ERANGE);
	CHECK_EQ("create exists", vfs_setxattr(CTX, &p, "user.a", "v", 1, XATTR_CREATE), -EEXIST);
	CHECK_EQ("replace missing", vfs_setxattr(CTX, &p, "user.b", "v", 1, XATTR_REPLACE),
		 -ENODATA);
	CHECK_EQ("trusted", vfs_setxattr(CTX, &p, "trusted.t", "v", 1, 0), 0);
	CHECK_EQ("bad namespace", vfs_setxattr(CTX, &p, "other.t", "v", 1, 0), -EOPNOTSUPP);
	CHECK_EQ("acl", vfs_setxattr(CTX, &p, "system.posix_acl_access", "v", 1, 0), -EOPNOTSUPP);
	CHECK_EQ("empty name", vfs_setxattr(CTX, &p, "", "v", 1, 0), -ERANGE);
	CHECK_EQ("empty value", vfs_setxattr(CTX, &p, "user.e", "", 0, 0), 0);
	CHECK_EQ("list", vfs_listxattr(CTX, &p, buf, 64), 7 + 10 + 7);
	env_become(&env, 1000, 1000);
	CHECK_EQ("list untrusted", vfs_listxattr(CTX, &p, buf, 64), 14);
	CHECK_EQ("get trusted", vfs_getxattr(CTX, &p, "trusted.t", buf, 64), -ENODATA);
	CHECK_EQ("set trusted", vfs_setxattr(CTX, &p, "trusted.t", "v", 1, 0), -EPERM);
	CHECK_EQ("set user denied", vfs_setxattr(CTX, &p, "user.a", "v", 1, 0), -EACCES);
	CHECK_EQ("set security", vfs_setxattr(CTX, &p, "security.x", "v", 1, 0), -EPERM);
	env_become(&env, 0, 0);
	CHECK_EQ("remove", vfs_removexattr(CTX, &p, "user.a"), 0);
	CHECK_EQ("remove again", vfs_removexattr(CTX, &p, "user.a"), -ENODATA);
	path_put(&p);
	vfs_symlink(CTX, "x", NULL, "/xl");
	d = xlookup(&env, "/xl", 0);
	CHECK_EQ("symlink user", vfs_setxattr(CTX, &d, "user.a", "v", 1, 0), -EPERM);
	path_put(&d);
}

static void test_seals(void)
{
	struct file *f = memfd_file(CTX, "s", 0), *g;

	CHECK_EQ("sealed against sealing", file_add_seals(f, F_SEAL_GROW), -EPERM);
	CHECK_EQ("get seals", file_get_seals(f), F_SEAL_SEAL);
	file_put(f);
	CHECK_EQ("bad memfd flag", PTR_ERR_OR_ZERO(memfd_file(CTX, "s", 64)), -EINVAL);
	f = memfd_file(CTX, "s", MFD_ALLOW_SEALING);
	CHECK_EQ("fill", do_write(f, "0123456789", 0, 0), 10);
	CHECK_EQ("seal grow", file_add_seals(f, F_SEAL_GROW), 0);
	CHECK_EQ("no growth", do_write(f, "x", 0, 0), -EPERM);
	CHECK_EQ("no growth by truncate", file_truncate(CTX, f, 20), -EPERM);
	CHECK_EQ("shrink still", file_truncate(CTX, f, 5), 0);
	CHECK_EQ("seal shrink", file_add_seals(f, F_SEAL_SHRINK), 0);
	CHECK_EQ("no shrinking", file_truncate(CTX, f, 1), -EPERM);
	f->inode->mapping.nr_shared_writable = 1;
	CHECK_EQ("mapped writable", file_add_seals(f, F_SEAL_WRITE), -EBUSY);
	f->inode->mapping.nr_shared_writable = 0;
	CHECK_EQ("seal write", file_add_seals(f, F_SEAL_WRITE), 0);
	CHECK_EQ("no writing", do_write(f, "x", IOCB_POSITIONED, 0), -EPERM);
	CHECK_EQ("no mapping", f->ops->mmap(f, true, 2), -EPERM);
	CHECK_EQ("private mapping", f->ops->mmap(f, false, 2), 0);
	file_put(f);
	g = xopen(&env, "/sealless", O_CREAT | O_RDWR);
	CHECK_EQ("tmpfs file", file_add_seals(g, F_SEAL_GROW), -EPERM);
	file_put(g);
}

static void test_devices(void)
{
	struct path p;
	struct file *f;
	char buf[16];

	vfs_mkdir(CTX, NULL, "/dev", 0755);
	p = xlookup(&env, "/dev", 0);
	CHECK_EQ("mount devtmpfs",
		 mount_new(CTX, fs_type_find("devtmpfs")->mount(CTX, "dev", NULL), &p, 0), 0);
	path_put(&p);
	f = xopen(&env, "/dev/null", O_RDWR);
	CHECK_EQ("null read", do_read(f, buf, 8, 0, 0), 0);
	CHECK_EQ("null write", do_write(f, "abc", 0, 0), 3);
	file_put(f);
	f = xopen(&env, "/dev/zero", O_RDWR);
	buf[0] = 1;
	CHECK("zero read", do_read(f, buf, 8, 0, 0) == 8 && !buf[0]);
	CHECK_EQ("zero maps anonymous", f->ops->mmap(f, true, 3), 1);
	file_put(f);
	f = xopen(&env, "/dev/full", O_RDWR);
	CHECK_EQ("full write", do_write(f, "abc", 0, 0), -ENOSPC);
	file_put(f);
	f = xopen(&env, "/dev/urandom", O_RDONLY);
	memset(buf, 0, sizeof(buf));
	CHECK("random read", do_read(f, buf, 15, 0, 0) == 15 && memcmp(buf, "\0\0\0\0\0\0\0\0", 8));
	file_put(f);
	CHECK_EQ("fd link", try_open2(&env, NULL, "/dev/stdin", O_PATH | O_NOFOLLOW, 0), 0);
	p = xlookup(&env, "/dev", 0);
	CHECK_EQ("nodev",
		 (mount_remount(CTX, &p, MS_NODEV, true), try_open(&env, "/dev/null", O_RDWR)),
		 -EACCES);
	path_put(&p);
}

static void test_readdir(void)
{
	char name[32];
	struct names *n;
	struct file *f;
	unsigned int removed = 0;
	uint64_t pos;

	vfs_mkdir(CTX, NULL, "/r", 0777);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "/r/f%d", i);
		put_text(&env, name, "");
	}
	n = list_dir(&env, "/r");
	CHECK_EQ("all entries", n->count, 102);
	/* rm -rf: read some, remove them, read on. */
	f = xopen(&env, "/r", O_RDONLY | O_DIRECTORY);
	for (;;) {
		static struct names part;
		char *save, *w;

		part = (struct names){.sink.emit = names_emit, .max = 7};
		CHECK_EQ("iterate", file_iterate(CTX, f, &part.sink), 0);
		if (!part.count)
			break;
		for (w = strtok_r(part.list, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
			snprintf(name, sizeof(name), "/r/%s", w);
			removed += !vfs_unlink(CTX, NULL, name);
		}
	}
	CHECK_EQ("each once", removed, 100);
	file_put(f);
	CHECK_EQ("empty now", vfs_rmdir(CTX, NULL, "/r"), 0);
	/* telldir and seekdir. */
	vfs_mkdir(CTX, NULL, "/r", 0777);
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "/r/g%d", i);
		put_text(&env, name, "");
	}
	f = xopen(&env, "/r", O_RDONLY | O_DIRECTORY);
	static struct names first, second;

	first = (struct names){.sink.emit = names_emit, .max = 6};
	file_iterate(CTX, f, &first.sink);
	pos = first.last_pos;
	vfs_unlink(CTX, NULL, "/r/g1");
	vfs_unlink(CTX, NULL, "/r/g4");
	put_text(&env, "/r/late", "");
	file_llseek(f, (int64_t)pos, SEEK_SET);
	second = (struct names){.sink.emit = names_emit, .max = 100};
	file_iterate(CTX, f, &second.sink);
	CHECK("seekdir", !strcmp(second.list, "g5 g6 g7 g8 g9 late"));
	file_llseek(f, 0, SEEK_SET);
	second = (struct names){.sink.emit = names_emit, .max = 100};
	file_iterate(CTX, f, &second.sink);
	CHECK("rewinddir", !strcmp(second.list, "g0 g2 g3 g5 g6 g7 g8 g9 late"));
	file_put(f);
}

static void test_all(void)
{
	env_open(&env);
	test_positions();
	test_holes();
	test_mapping();
	test_big_write();
	test_setid();
	test_times();
	test_xattrs();
	test_seals();
	test_devices();
	test_readdir();
	env_close(&env);
}

int main(void)
{
	return vfs_test_main(test_all);
}
