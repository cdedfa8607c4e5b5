/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root filesystem over an image that mkfs.erofs made: everything of the image is seen as it is,
 * changes stay above it, removed names stay removed.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "test/unit/vfs_support.h"
#include "vfs/rootfs.h"

static struct vfs_env env;
#define CTX (&env.ctx)
static char tmp[] = "/tmp/vfs_rootfs_XXXXXX";
static gpa_t image_gpa;
static size_t image_size;

#define BIG_SIZE 300123

static void run(const char *fmt)
{
	char cmd[1024];

	snprintf(cmd, sizeof(cmd), "cd %s && { %s; }", tmp, fmt);
	if (system(cmd)) {
		printf("not ok command: %s\n", cmd);
		exit(1);
	}
}

static int make_image(const char *options)
{
	char cmd[256];
	struct stat st;
	int fd;

	run("rm -rf r img && mkdir -p r/bin r/etc/deep/er r/many r/empty r/gone/in");
	run("printf 'shell' > r/bin/sh && chmod 4755 r/bin/sh && ln -s sh r/bin/bash");
	run("printf 'root:x:0:0' > r/etc/passwd && printf '/etc' > r/etc/deep/er/f");
	run("seq 1 60000 | head -c 300123 > r/big");
	run("for i in $(seq 300); do printf $i > r/many/f$i; done");
	run("printf 'two names' > r/hard1 && ln r/hard1 r/etc/hard2");
	run("mknod r/null c 1 3 && mkfifo r/fifo && : > r/zero && printf g > r/gone/in/f");
	run("setfattr -n user.a -v lower r/etc/passwd 2>/dev/null || touch noxattr");
	run("chown 12:34 r/etc/passwd && touch -d @1000000 r/etc/passwd");
	snprintf(cmd, sizeof(cmd), "mkfs.erofs %s img r >/dev/null 2>&1", options);
	run(cmd);
	snprintf(cmd, sizeof(cmd), "%s/img", tmp);
	fd = open(cmd, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return -1;
	image_size = PAGE_ALIGN_UP((size_t)st.st_size);
	if (ftruncate(fd, (off_t)image_size))
		return -1;
	return physmem_add_file(fd, image_size, &image_gpa);
}

static bool same_as_host(const char *name, size_t size)
{
	char host[256], *a = malloc(size + 1), *b = malloc(size + 1);
	struct file *f = xopen(&env, name, O_RDONLY);
	bool same = false;
	FILE *h;

	snprintf(host, sizeof(host), "%s/r%s", tmp, name);
	h = fopen(host, "r");
	if (!IS_ERR(f) && h)
		same = fread(a, 1, size + 1, h) == size &&
		       file_read_kernel(f, b, size + 1, 0) == (ssize_t)size && !memcmp(a, b, size);
	if (h)
		fclose(h);
	if (!IS_ERR(f))
		file_put(f);
	free(a);
	free(b);
	return same;
}

static void test_as_it_is(void)
{
	struct statx st, st2;
	struct path p;
	char *s, buf[64];

	CHECK("file", !strcmp(get_text(&env, "/bin/sh"), "shell"));
	CHECK("symlink", !strcmp(get_text(&env, "/bin/bash"), "shell"));
	p = xlookup(&env, "/bin/bash", 0);
	s = vfs_readlink(CTX, &p);
	CHECK("readlink", !IS_ERR(s) && !strcmp(s, "sh"));
	kfree(s);
	path_put(&p);
	CHECK("mode", !try_stat(&env, "/bin/sh", &st) && st.stx_mode == (S_IFREG | 04755));
	CHECK("owner", !try_stat(&env, "/etc/passwd", &st) && st.stx_uid == 12 &&
			       st.stx_gid == 34 && st.stx_mtime.tv_sec == 1000000);
	CHECK("blocks", st.stx_blocks == 8 && st.stx_size == 10);
	CHECK("big file", same_as_host("/big", BIG_SIZE));
	CHECK("empty file", !strcmp(get_text(&env, "/zero"), ""));
	CHECK("nested", !strcmp(get_text(&env, "/etc/deep/er/f"), "/etc"));
	CHECK_EQ("missing", try_open(&env, "/etc/nothing", O_RDONLY), -ENOENT);
	CHECK("device", !try_stat(&env, "/null", &st) && S_ISCHR(st.stx_mode) &&
				st.stx_rdev_major == 1 && st.stx_rdev_minor == 3);
	CHECK_EQ("device opens", try_open(&env, "/null", O_RDWR), 0);
	CHECK("fifo", !try_stat(&env, "/fifo", &st) && S_ISFIFO(st.stx_mode));
	CHECK("hard links", !try_stat(&env, "/hard1", &st) && !try_stat(&env, "/etc/hard2", &st2) &&
				    st.stx_ino == st2.stx_ino && st.stx_nlink == 2);
	CHECK_EQ("directory", list_dir(&env, "/many")->count, 302);
	CHECK("entries", strstr(list_dir(&env, "/")->list, "many") != NULL);
	snprintf(buf, sizeof(buf), "%s/noxattr", tmp);
	p = xlookup(&env, "/etc/passwd", 0);
	if (access(buf, F_OK))
		CHECK("xattr",
		      vfs_getxattr(CTX, &p, "user.a", buf, 64) == 5 && !memcmp(buf, "lower", 5));
	path_put(&p);
}

static struct {
	uint64_t pgoff, n;
	int calls;
} zapped;

static void record_zap(struct map_user *user, uint64_t pgoff, uint64_t n, bool even_cow)
{
	zapped.pgoff = pgoff;
	zapped.n = n;
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

static void test_copy_up(void)
{
	struct map_user user = {.pgoff = 0, .npages = 1000, .zap = record_zap};
	struct file *f = xopen(&env, "/big", O_RDWR);
	char buf[16];
	size_t n = 1000;
	gpa_t gpa;
	struct statx st;

	list_add(&user.node, &f->inode->mapping.users);
	CHECK_EQ("map the image", map_pages(f->inode, 0, false, &gpa, &n), 0);
	CHECK("straight from the image", !phys_is_ram(gpa));
	CHECK("as one run", n >= BIG_SIZE / PAGE_SIZE);
	CHECK("which reads right", !memcmp(phys_ptr(gpa), "1\n2\n3\n", 6));
	CHECK_EQ("nothing zapped", zapped.calls, 0);
	CHECK_EQ("write", file_write_kernel(f, "XYZ", 3, 10 * PAGE_SIZE + 5), 3);
	CHECK("copy-up zaps one page", zapped.calls == 1 && zapped.pgoff == 10 && zapped.n == 1);
	CHECK("copied up",
	      file_read_kernel(f, buf, 4, 10 * PAGE_SIZE + 4) == 4 && !memcmp(buf + 1, "XYZ", 3));
	CHECK("image untouched", memcmp((char *)phys_ptr(gpa + 10 * PAGE_SIZE) + 5, "XYZ", 3));
	n = 1000;
	CHECK("runs end there", !map_pages(f->inode, 0, false, &gpa, &n) && n == 10);
	n = 1000;
	CHECK("one of ours",
	      !map_pages(f->inode, 10, false, &gpa, &n) && n == 1 && phys_is_ram(gpa));
	frame_put(gpa);
	n = 1000;
	CHECK("then the image again",
	      !map_pages(f->inode, 11, false, &gpa, &n) && !phys_is_ram(gpa));
	CHECK("same blocks", !try_stat(&env, "/big", &st) && st.stx_blocks == 74 * 8);
	zapped.calls = 0;
	n = 1;
	CHECK("shared write copies up",
	      !map_pages(f->inode, 20, true, &gpa, &n) && phys_is_ram(gpa) && zapped.calls == 1);
	frame_put(gpa);
	/* A page cut in the middle reads as zero when the file grows again. */
	CHECK_EQ("truncate", file_truncate(CTX, f, 5 * PAGE_SIZE + 2), 0);
	CHECK_EQ("grow", file_truncate(CTX, f, 6 * PAGE_SIZE), 0);
	CHECK("cut page", file_read_kernel(f, buf, 4, 5 * PAGE_SIZE) == 4 && buf[0] && buf[1] &&
				  !buf[2] && !buf[3]);
	CHECK("blocks after", !try_stat(&env, "/big", &st) && st.stx_blocks == 6 * 8);
	CHECK_EQ("punch",
		 file_fallocate(CTX, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE_SIZE,
				PAGE_SIZE),
		 0);
	CHECK("punched", file_read_kernel(f, buf, 4, PAGE_SIZE + 9) == 4 && !buf[0]);
	CHECK("not punched", file_read_kernel(f, buf, 4, 2 * PAGE_SIZE) == 4 && buf[0]);
	CHECK_EQ("hole found", file_llseek(f, 0, SEEK_HOLE), PAGE_SIZE);
	list_del(&user.node);
	file_put(f);
	CHECK("kept while closed", (f = xopen(&env, "/big", O_RDONLY),
				    file_read_kernel(f, buf, 4, PAGE_SIZE) == 4 && !buf[0]));
	file_put(f);
}

static void test_last_page(void)
{
	struct file *f = xopen(&env, "/etc/passwd", O_RDONLY);
	char *page;
	size_t n = 1;
	gpa_t gpa;
	bool zero = true;

	CHECK_EQ("map the last page", map_pages(f->inode, 0, false, &gpa, &n), 0);
	page = phys_ptr(gpa);
	for (size_t i = 10; i < PAGE_SIZE; i++)
		zero &= !page[i];
	CHECK("its tail is zero", zero && !memcmp(page, "root:x:0:0", 10));
	frame_put(gpa);
	n = 1;
	CHECK_EQ("beyond", map_pages(f->inode, 1, false, &gpa, &n), -EFAULT);
	file_put(f);
}

static void test_whiteouts(void)
{
	struct statx st;

	CHECK_EQ("unlink", vfs_unlink(CTX, NULL, "/many/f7"), 0);
	CHECK_EQ("gone", try_open(&env, "/many/f7", O_RDONLY), -ENOENT);
	CHECK_EQ("gone from the list", list_dir(&env, "/many")->count, 301);
	put_text(&env, "/many/f7", "new");
	CHECK("made again", !strcmp(get_text(&env, "/many/f7"), "new"));
	CHECK_EQ("once in the list", list_dir(&env, "/many")->count, 302);
	CHECK_EQ("unlink again", vfs_unlink(CTX, NULL, "/many/f7"), 0);
	CHECK_EQ("still gone", try_open(&env, "/many/f7", O_RDONLY), -ENOENT);
	CHECK_EQ("rename of a lower name", vfs_rename(CTX, NULL, "/many/f8", NULL, "/many/f7", 0),
		 0);
	CHECK("moved", !strcmp(get_text(&env, "/many/f7"), "8"));
	CHECK_EQ("old name gone", try_open(&env, "/many/f8", O_RDONLY), -ENOENT);
	CHECK_EQ("rename over a lower name", vfs_rename(CTX, NULL, "/many/f7", NULL, "/many/f9", 0),
		 0);
	CHECK("over", !strcmp(get_text(&env, "/many/f9"), "8"));
	CHECK_EQ("list after", list_dir(&env, "/many")->count, 300);
	CHECK_EQ("one of two names", vfs_unlink(CTX, NULL, "/hard1"), 0);
	put_text(&env, "/etc/hard2", "changed");
	CHECK("other name", !try_stat(&env, "/etc/hard2", &st) && st.stx_nlink == 1);
	CHECK("contents of the other", !strcmp(get_text(&env, "/etc/hard2"), "changed"));
	/* Directories keep what the image has in them wherever they go. */
	CHECK_EQ("rename directory", vfs_rename(CTX, NULL, "/etc/deep", NULL, "/moved", 0), 0);
	CHECK("moved contents", !strcmp(get_text(&env, "/moved/er/f"), "/etc"));
	CHECK_EQ("not at the old place", try_open(&env, "/etc/deep", O_RDONLY), -ENOENT);
	CHECK_EQ("made at the old place", vfs_mkdir(CTX, NULL, "/etc/deep", 0777), 0);
	CHECK_EQ("and empty there", list_dir(&env, "/etc/deep")->count, 2);
	CHECK_EQ("rmdir full", vfs_rmdir(CTX, NULL, "/gone/in"), -ENOTEMPTY);
	CHECK_EQ("rmdir full, not looked at", vfs_rmdir(CTX, NULL, "/moved"), -ENOTEMPTY);
	CHECK_EQ("empty it", vfs_unlink(CTX, NULL, "/gone/in/f"), 0);
	CHECK_EQ("rmdir with whiteouts", vfs_rmdir(CTX, NULL, "/gone/in"), 0);
	CHECK_EQ("mkdir in its place", vfs_mkdir(CTX, NULL, "/gone/in", 0777), 0);
	CHECK_EQ("is empty", list_dir(&env, "/gone/in")->count, 2);
	CHECK_EQ("rename over empty lower", vfs_rename(CTX, NULL, "/gone", NULL, "/empty", 0), 0);
	CHECK("has come", !strcmp(list_dir(&env, "/empty")->list, "in"));
	CHECK_EQ("exchange", vfs_rename(CTX, NULL, "/bin", NULL, "/moved", RENAME_EXCHANGE), 0);
	CHECK("exchanged", !strcmp(get_text(&env, "/moved/sh"), "shell"));
	CHECK("both ways", !strcmp(get_text(&env, "/bin/er/f"), "/etc"));
	CHECK_EQ("exchanged name removed", vfs_rename(CTX, NULL, "/bin", NULL, "/bin2", 0), 0);
	CHECK_EQ("stays removed", try_open(&env, "/bin", O_RDONLY), -ENOENT);
}

/* rm -rf of a directory of the image, a few entries at a time. */
static void test_empty_while_reading(void)
{
	struct file *f = xopen(&env, "/many", O_RDONLY | O_DIRECTORY);
	unsigned int removed = 0, before = list_dir(&env, "/many")->count - 2;
	char name[64];

	for (;;) {
		static struct names part;
		char *save, *w;

		part = (struct names){.sink.emit = names_emit, .max = 7};
		CHECK_EQ("iterate", file_iterate(CTX, f, &part.sink), 0);
		if (!part.count)
			break;
		for (w = strtok_r(part.list, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
			snprintf(name, sizeof(name), "/many/%s", w);
			removed += !vfs_unlink(CTX, NULL, name);
		}
	}
	file_put(f);
	CHECK_EQ("each entry once", removed, before);
	CHECK_EQ("rmdir", vfs_rmdir(CTX, NULL, "/many"), 0);
	CHECK_EQ("gone", try_open(&env, "/many", O_RDONLY), -ENOENT);
}

static void test_attributes(void)
{
	struct iattr_change c = {.valid = ATTR_MODE | ATTR_UID, .mode = 0640, .uid = 99};
	struct path p = xlookup(&env, "/etc/passwd", 0);
	struct statx st;
	char buf[64];

	CHECK_EQ("chmod and chown", vfs_setattr(CTX, &p, &c), 0);
	CHECK("kept", !try_stat(&env, "/etc/passwd", &st) && st.stx_mode == (S_IFREG | 0640) &&
			      st.stx_uid == 99);
	CHECK_EQ("set xattr", vfs_setxattr(CTX, &p, "user.b", "upper", 5, 0), 0);
	CHECK("both there", vfs_listxattr(CTX, &p, buf, 64) == (access("noxattr", F_OK) ? 14 : 7) ||
				    vfs_listxattr(CTX, &p, buf, 64) == 7);
	vfs_removexattr(CTX, &p, "user.a");
	CHECK_EQ("removed", vfs_getxattr(CTX, &p, "user.a", buf, 64), -ENODATA);
	path_put(&p);
	CHECK("contents still the image's", !strcmp(get_text(&env, "/etc/passwd"), "root:x:0:0"));
	put_text(&env, "/etc/passwd", "short");
	CHECK("replaced", !strcmp(get_text(&env, "/etc/passwd"), "short"));
}

static void test_all(void)
{
	struct super *sb = rootfs_mount(image_gpa, image_size);

	CHECK("mount", !IS_ERR(sb));
	if (IS_ERR(sb))
		exit(1);
	env_open_super(&env, sb);
	zapped.calls = 0;
	test_as_it_is();
	test_last_page();
	test_copy_up();
	test_whiteouts();
	test_empty_while_reading();
	test_attributes();
	env_close(&env);
}

static void clean(void)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", tmp);
	if (system(cmd))
		failures++;
}

int main(void)
{
	struct live before;

	if (system("command -v mkfs.erofs >/dev/null 2>&1")) {
		printf("ok rootfs # SKIP no mkfs.erofs\n");
		return 0;
	}
	if (geteuid()) {
		printf("ok rootfs # SKIP the test image needs root for its device node\n");
		return 0;
	}
	if (!mkdtemp(tmp))
		return 1;
	vfs_start();
	/* As our importer writes it, and with file tails kept beside the inodes. */
	for (int inline_data = 0; inline_data < 2; inline_data++) {
		CHECK_EQ("image", make_image(inline_data ? "" : "-Enoinline_data"), 0);
		test_all();
		before = live_now();
		test_all();
		check_live("everything released", &before);
	}
	clean();
	return failures != 0;
}
