/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on names: Linux's errno for each way to be wrong, and what is left when they are
 * right. */
#include "test/unit/vfs_support.h"

static struct vfs_env env;
#define CTX (&env.ctx)

static void test_create(void)
{
	struct statx st;

	CHECK_EQ("mkdir", vfs_mkdir(CTX, NULL, "/d", 0777), 0);
	CHECK_EQ("mkdir existing", vfs_mkdir(CTX, NULL, "/d", 0777), -EEXIST);
	CHECK_EQ("mkdir existing slash", vfs_mkdir(CTX, NULL, "/d/", 0777), -EEXIST);
	CHECK_EQ("mkdir root", vfs_mkdir(CTX, NULL, "/", 0777), -EEXIST);
	CHECK_EQ("mkdir dot", vfs_mkdir(CTX, NULL, "/d/.", 0777), -EEXIST);
	CHECK_EQ("mkdir dotdot", vfs_mkdir(CTX, NULL, "/d/..", 0777), -EEXIST);
	CHECK_EQ("mkdir slash", vfs_mkdir(CTX, NULL, "/d/e/", 0777), 0);
	CHECK_EQ("mkdir empty", vfs_mkdir(CTX, NULL, "", 0777), -ENOENT);
	CHECK_EQ("mkdir missing parent", vfs_mkdir(CTX, NULL, "/x/y", 0777), -ENOENT);
	put_text(&env, "/f", "hello");
	CHECK_EQ("mkdir below file", vfs_mkdir(CTX, NULL, "/f/y", 0777), -ENOTDIR);
	CHECK_EQ("mkdir on file", vfs_mkdir(CTX, NULL, "/f", 0777), -EEXIST);
	CHECK("umask", !try_stat(&env, "/d", &st) && st.stx_mode == (S_IFDIR | 0755));
	CHECK_EQ("dir nlink", st.stx_nlink, 3);
	CHECK_EQ("mknod dir", vfs_mknod(CTX, NULL, "/n", S_IFDIR | 0666, 0), -EPERM);
	CHECK_EQ("mknod bad", vfs_mknod(CTX, NULL, "/n", S_IFLNK | 0666, 0), -EINVAL);
	CHECK_EQ("mknod plain", vfs_mknod(CTX, NULL, "/n", 0666, 0), 0);
	CHECK_EQ("mknod slash", vfs_mknod(CTX, NULL, "/n2/", 0666, 0), -ENOENT);
	CHECK_EQ("mknod fifo", vfs_mknod(CTX, NULL, "/p", S_IFIFO | 0666, 0), 0);
	CHECK_EQ("symlink", vfs_symlink(CTX, "d", NULL, "/l"), 0);
	CHECK_EQ("symlink empty", vfs_symlink(CTX, "", NULL, "/l0"), -ENOENT);
	CHECK_EQ("symlink slash", vfs_symlink(CTX, "d", NULL, "/l1/"), -ENOENT);
	CHECK_EQ("symlink exists", vfs_symlink(CTX, "d", NULL, "/l"), -EEXIST);
	CHECK_EQ("mkdir over dangling", vfs_symlink(CTX, "nowhere", NULL, "/dl"), 0);
	CHECK_EQ("mkdir dangling", vfs_mkdir(CTX, NULL, "/dl", 0777), -EEXIST);
	CHECK_EQ("mkdir dangling slash", vfs_mkdir(CTX, NULL, "/dl/", 0777), -EEXIST);
}

static void test_link(void)
{
	struct path file, dir;
	struct statx st;

	CHECK_EQ("lookup f", path_lookup(CTX, NULL, "/f", 0, &file), 0);
	CHECK_EQ("lookup d", path_lookup(CTX, NULL, "/d", 0, &dir), 0);
	CHECK_EQ("link", vfs_link(CTX, &file, NULL, "/f2"), 0);
	CHECK_EQ("link exists", vfs_link(CTX, &file, NULL, "/f2"), -EEXIST);
	CHECK_EQ("link slash", vfs_link(CTX, &file, NULL, "/f3/"), -ENOENT);
	CHECK_EQ("link dir", vfs_link(CTX, &dir, NULL, "/d2"), -EPERM);
	CHECK("link count", !try_stat(&env, "/f2", &st) && st.stx_nlink == 2);
	CHECK_EQ("unlink one", vfs_unlink(CTX, NULL, "/f2"), 0);
	CHECK("link count down", !try_stat(&env, "/f", &st) && st.stx_nlink == 1);
	path_put(&file);
	path_put(&dir);
}

static void test_remove(void)
{
	CHECK_EQ("unlink missing", vfs_unlink(CTX, NULL, "/nope"), -ENOENT);
	CHECK_EQ("unlink dir", vfs_unlink(CTX, NULL, "/d"), -EISDIR);
	CHECK_EQ("unlink dir slash", vfs_unlink(CTX, NULL, "/d/"), -EISDIR);
	CHECK_EQ("unlink file slash", vfs_unlink(CTX, NULL, "/f/"), -ENOTDIR);
	CHECK_EQ("unlink root", vfs_unlink(CTX, NULL, "/"), -EISDIR);
	CHECK_EQ("unlink dot", vfs_unlink(CTX, NULL, "."), -EISDIR);
	CHECK_EQ("unlink link slash", vfs_unlink(CTX, NULL, "/l/"), -ENOTDIR);
	CHECK_EQ("rmdir file", vfs_rmdir(CTX, NULL, "/f"), -ENOTDIR);
	CHECK_EQ("rmdir full", vfs_rmdir(CTX, NULL, "/d"), -ENOTEMPTY);
	CHECK_EQ("rmdir dot", vfs_rmdir(CTX, NULL, "/d/."), -EINVAL);
	CHECK_EQ("rmdir dotdot", vfs_rmdir(CTX, NULL, "/d/.."), -ENOTEMPTY);
	CHECK_EQ("rmdir root", vfs_rmdir(CTX, NULL, "/"), -EBUSY);
	CHECK_EQ("rmdir link", vfs_rmdir(CTX, NULL, "/l"), -ENOTDIR);
	CHECK_EQ("rmdir slash", vfs_rmdir(CTX, NULL, "/d/e/"), 0);
	CHECK_EQ("rmdir gone", vfs_rmdir(CTX, NULL, "/d/e"), -ENOENT);
	CHECK_EQ("name too long",
		 vfs_mkdir(CTX, NULL,
			   "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
			   0777),
		 -ENAMETOOLONG);
}

static int ren(const char *a, const char *b)
{
	return vfs_rename(CTX, NULL, a, NULL, b, 0);
}

static void test_rename(void)
{
	struct path hard;

	put_text(&env, "/a", "A");
	put_text(&env, "/b", "B");
	vfs_mkdir(CTX, NULL, "/x", 0777);
	vfs_mkdir(CTX, NULL, "/x/y", 0777);
	vfs_mkdir(CTX, NULL, "/z", 0777);
	CHECK_EQ("rename missing", ren("/nope", "/b"), -ENOENT);
	CHECK_EQ("rename file on dir", ren("/a", "/x"), -EISDIR);
	CHECK_EQ("rename dir on file", ren("/x", "/a"), -ENOTDIR);
	CHECK_EQ("rename into itself", ren("/x", "/x/y/w"), -EINVAL);
	CHECK_EQ("rename on ancestor", ren("/x/y", "/x"), -ENOTEMPTY);
	CHECK_EQ("rename on full dir", ren("/z", "/x"), -ENOTEMPTY);
	CHECK_EQ("rename root", ren("/", "/q"), -EBUSY);
	CHECK_EQ("rename to root", ren("/a", "/"), -EBUSY);
	CHECK_EQ("rename dot", ren("/x/.", "/q"), -EBUSY);
	CHECK_EQ("rename to dotdot", ren("/a", "/x/.."), -EBUSY);
	CHECK_EQ("rename file slash", ren("/a/", "/q"), -ENOTDIR);
	CHECK_EQ("rename file to slash", ren("/a", "/q/"), -ENOTDIR);
	CHECK_EQ("rename dir to slash", ren("/z", "/zz/"), 0);
	CHECK_EQ("rename back", ren("/zz/", "/z"), 0);
	CHECK_EQ("rename bad flags", vfs_rename(CTX, NULL, "/a", NULL, "/b", 64), -EINVAL);
	CHECK_EQ("rename both",
		 vfs_rename(CTX, NULL, "/a", NULL, "/b", RENAME_NOREPLACE | RENAME_EXCHANGE),
		 -EINVAL);
	CHECK_EQ("noreplace", vfs_rename(CTX, NULL, "/a", NULL, "/b", RENAME_NOREPLACE), -EEXIST);
	CHECK_EQ("exchange missing", vfs_rename(CTX, NULL, "/a", NULL, "/q", RENAME_EXCHANGE),
		 -ENOENT);
	CHECK_EQ("exchange", vfs_rename(CTX, NULL, "/a", NULL, "/x/y", RENAME_EXCHANGE), 0);
	CHECK("exchange moved", !strcmp(get_text(&env, "/x/y"), "A"));
	CHECK_EQ("exchange back", vfs_rename(CTX, NULL, "/a", NULL, "/x/y", RENAME_EXCHANGE), 0);
	CHECK_EQ("rename over", ren("/a", "/b"), 0);
	CHECK("rename content", !strcmp(get_text(&env, "/b"), "A"));
	CHECK_EQ("rename source gone", try_open(&env, "/a", O_RDONLY), -ENOENT);
	CHECK_EQ("rename same", ren("/b", "/b"), 0);
	CHECK_EQ("lookup b", path_lookup(CTX, NULL, "/b", 0, &hard), 0);
	CHECK_EQ("link b", vfs_link(CTX, &hard, NULL, "/b2"), 0);
	path_put(&hard);
	CHECK_EQ("rename hard links", ren("/b", "/b2"), 0);
	CHECK_EQ("both names stay", try_open(&env, "/b", O_RDONLY), 0);
	CHECK_EQ("rename dir over empty", ren("/x/y", "/z"), 0);
	CHECK_EQ("rename dir moved", ren("/x", "/z/x"), 0);
	CHECK_EQ("rename up", ren("/z/x", "/x"), 0);
}

static void test_permissions(void)
{
	struct iattr_change c = {.valid = ATTR_MODE, .mode = 01777};
	struct path p;
	struct statx st;

	vfs_mkdir(CTX, NULL, "/t", 0777);
	p = xlookup(&env, "/t", 0);
	CHECK_EQ("chmod sticky", vfs_setattr(CTX, &p, &c), 0);
	path_put(&p);
	put_text(&env, "/t/root", "r");
	vfs_mkdir(CTX, NULL, "/sg", 0777);
	p = xlookup(&env, "/sg", 0);
	c = (struct iattr_change){.valid = ATTR_MODE | ATTR_GID, .mode = 02777, .gid = 77};
	CHECK_EQ("chmod setgid", vfs_setattr(CTX, &p, &c), 0);
	path_put(&p);
	env_become(&env, 1000, 1000);
	CHECK_EQ("mkdir denied", vfs_mkdir(CTX, NULL, "/no", 0777), -EACCES);
	CHECK_EQ("mkdir exists first", vfs_mkdir(CTX, NULL, "/d", 0777), -EEXIST);
	CHECK_EQ("unlink denied", vfs_unlink(CTX, NULL, "/f"), -EACCES);
	CHECK_EQ("sticky unlink", vfs_unlink(CTX, NULL, "/t/root"), -EPERM);
	put_text(&env, "/t/mine", "m");
	CHECK_EQ("sticky rename over", ren("/t/mine", "/t/root"), -EPERM);
	CHECK_EQ("sticky own", vfs_unlink(CTX, NULL, "/t/mine"), 0);
	CHECK_EQ("mknod dev", vfs_mknod(CTX, NULL, "/t/n", S_IFCHR | 0666, 0x103), -EPERM);
	CHECK_EQ("open write denied", try_open(&env, "/f", O_WRONLY), -EACCES);
	CHECK_EQ("open creat denied", try_open(&env, "/new", O_CREAT | O_WRONLY), -EACCES);
	CHECK_EQ("open creat existing", try_open(&env, "/f", O_CREAT | O_RDONLY), 0);
	CHECK_EQ("setgid mkdir", vfs_mkdir(CTX, NULL, "/sg/d", 0755), 0);
	CHECK("setgid inherited",
	      !try_stat(&env, "/sg/d", &st) && (st.stx_mode & S_ISGID) && st.stx_gid == 77);
	put_text(&env, "/sg/f", "");
	CHECK("setgid file",
	      !try_stat(&env, "/sg/f", &st) && !(st.stx_mode & S_ISGID) && st.stx_gid == 77);
	p = xlookup(&env, "/f", 0);
	c = (struct iattr_change){.valid = ATTR_MODE, .mode = 0777};
	CHECK_EQ("chmod not owner", vfs_setattr(CTX, &p, &c), -EPERM);
	c = (struct iattr_change){.valid = ATTR_UID, .uid = 1000};
	CHECK_EQ("chown not owner", vfs_setattr(CTX, &p, &c), -EPERM);
	c = (struct iattr_change){.valid = ATTR_ATIME | ATTR_MTIME};
	CHECK_EQ("utimes now", vfs_setattr(CTX, &p, &c), -EACCES);
	c.valid |= ATTR_TIMES_SET;
	CHECK_EQ("utimes set", vfs_setattr(CTX, &p, &c), -EPERM);
	path_put(&p);
	env_become(&env, 0, 0);
}

static void test_open(void)
{
	struct file *f;
	struct path p;

	CHECK_EQ("open missing", try_open(&env, "/nope", O_RDONLY), -ENOENT);
	CHECK_EQ("open excl", try_open(&env, "/f", O_CREAT | O_EXCL | O_RDWR), -EEXIST);
	CHECK_EQ("open excl link", try_open(&env, "/dl", O_CREAT | O_EXCL | O_RDWR), -EEXIST);
	CHECK_EQ("open dir write", try_open(&env, "/d", O_WRONLY), -EISDIR);
	CHECK_EQ("open dir creat", try_open(&env, "/d", O_CREAT | O_RDONLY), -EISDIR);
	CHECK_EQ("open file directory", try_open(&env, "/f", O_DIRECTORY), -ENOTDIR);
	CHECK_EQ("open file slash", try_open(&env, "/f/", O_RDONLY), -ENOTDIR);
	CHECK_EQ("open creat slash", try_open(&env, "/g/", O_CREAT | O_RDWR), -EISDIR);
	CHECK_EQ("open link nofollow", try_open(&env, "/l", O_NOFOLLOW), -ELOOP);
	CHECK_EQ("open link nofollow dir", try_open(&env, "/l", O_NOFOLLOW | O_DIRECTORY),
		 -ENOTDIR);
	CHECK_EQ("open link path", try_open(&env, "/l", O_NOFOLLOW | O_PATH), 0);
	CHECK_EQ("open creat through link", try_open(&env, "/dl", O_CREAT | O_RDWR), 0);
	CHECK_EQ("made by link", try_open(&env, "/nowhere", O_RDONLY), 0);
	CHECK_EQ("open socket",
		 (vfs_mknod(CTX, NULL, "/s", S_IFSOCK | 0777, 0), try_open(&env, "/s", O_RDWR)),
		 -ENXIO);
	CHECK_EQ("open device without driver",
		 (vfs_mknod(CTX, NULL, "/c", S_IFCHR | 0777, 0x4242), try_open(&env, "/c", O_RDWR)),
		 -ENXIO);
	CHECK_EQ("tmpfile read-only", try_open2(&env, NULL, "/d", O_TMPFILE, 0), -EINVAL);
	CHECK_EQ("openat2 unknown flag", try_open2(&env, NULL, "/f", 1ULL << 40, 0), -EINVAL);
	CHECK_EQ("openat2 unknown resolve", try_open2(&env, NULL, "/f", 0, 1 << 20), -EINVAL);
	CHECK_EQ("openat2 path with write", try_open2(&env, NULL, "/f", O_PATH | O_RDWR, 0),
		 -EINVAL);
	f = xopen(&env, "/d", O_TMPFILE | O_RDWR);
	CHECK("tmpfile", !IS_ERR(f));
	CHECK_EQ("tmpfile write", file_write_kernel(f, "abc", 3, 0), 3);
	p = f->path;
	CHECK_EQ("tmpfile link", vfs_link(CTX, &p, NULL, "/d/named"), 0);
	file_put(f);
	CHECK("tmpfile named", !strcmp(get_text(&env, "/d/named"), "abc"));
	vfs_unlink(CTX, NULL, "/d/named");
	f = xopen(&env, "/d", O_TMPFILE | O_RDWR | O_EXCL);
	CHECK_EQ("tmpfile excl link", vfs_link(CTX, &f->path, NULL, "/d/named"), -ENOENT);
	file_put(f);
	f = xopen(&env, "/f", O_RDONLY);
	CHECK_EQ("deny write", inode_deny_write(f->inode), 0);
	CHECK_EQ("text busy", try_open(&env, "/f", O_WRONLY), -ETXTBSY);
	CHECK_EQ("text busy truncate", vfs_truncate(CTX, &f->path, 0), -ETXTBSY);
	inode_allow_write(f->inode);
	CHECK_EQ("text free", try_open(&env, "/f", O_WRONLY), 0);
	file_put(f);
	f = xopen(&env, "/f", O_WRONLY);
	CHECK_EQ("exec busy", inode_deny_write(f->inode), -ETXTBSY);
	file_put(f);
}

static void test_dead_directory(void)
{
	struct path p;

	vfs_mkdir(CTX, NULL, "/dead", 0777);
	p = xlookup(&env, "/dead", 0);
	CHECK_EQ("rmdir held", vfs_rmdir(CTX, NULL, "/dead"), 0);
	CHECK_EQ("create in dead", vfs_mkdir(CTX, &p, "x", 0777), -ENOENT);
	CHECK_EQ("lookup in dead", try_open2(&env, &p, "x", O_RDONLY, 0), -ENOENT);
	path_put(&p);
}

static void test_all(void)
{
	env_open(&env);
	test_create();
	test_link();
	test_remove();
	test_rename();
	test_permissions();
	test_open();
	test_dead_directory();
	env_close(&env);
}

int main(void)
{
	return vfs_test_main(test_all);
}
