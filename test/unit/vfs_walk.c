/* SPDX-License-Identifier: Apache-2.0 */
/* Path resolution: dots, symbolic links, mounts, openat2's limits, names of paths. */
#include "test/unit/vfs_support.h"

static struct vfs_env env;
#define CTX (&env.ctx)

static int look(const char *name, unsigned int flags)
{
	struct path p;
	int err = path_lookup(CTX, NULL, name, flags, &p);

	if (!err)
		path_put(&p);
	return err;
}

/* path_name of what @name leads to. */
static const char *where(const char *name, unsigned int flags)
{
	static char buf[4096];
	struct path p = xlookup(&env, name, flags), root;
	char *s;

	fs_context_root(CTX->fs, &root);
	s = path_name(&p, &root);
	snprintf(buf, sizeof(buf), "%s", s);
	kfree(s);
	path_put(&root);
	path_put(&p);
	return buf;
}
#define CHECK_WHERE(name, flags, want) CHECK("where " name, !strcmp(where(name, flags), want))

static void test_plain(void)
{
	vfs_mkdir(CTX, NULL, "/a", 0777);
	vfs_mkdir(CTX, NULL, "/a/b", 0777);
	put_text(&env, "/a/f", "x");
	CHECK_WHERE("/", 0, "/");
	CHECK_WHERE("//a///b//", 0, "/a/b");
	CHECK_WHERE("/a/./b/../f", 0, "/a/f");
	CHECK_WHERE("/../../a", 0, "/a");
	CHECK_EQ("missing", look("/a/x", 0), -ENOENT);
	CHECK_EQ("missing in the middle", look("/x/b", 0), -ENOENT);
	CHECK_EQ("file as directory", look("/a/f/g", 0), -ENOTDIR);
	CHECK_EQ("file with slash", look("/a/f/", 0), -ENOTDIR);
	CHECK_EQ("file dot", look("/a/f/.", 0), -ENOTDIR);
	CHECK_EQ("wants directory", look("/a/f", WALK_DIRECTORY), -ENOTDIR);
	CHECK_EQ("empty", look("", 0), -ENOENT);
	CHECK_EQ("empty allowed", look("", WALK_EMPTY), 0);
	env_become(&env, 1000, 1000);
	CHECK_EQ("searchable", look("/a/f", 0), 0);
	env_become(&env, 0, 0);
	struct path p = xlookup(&env, "/a", 0);
	struct iattr_change c = {.valid = ATTR_MODE, .mode = 0600};

	vfs_setattr(CTX, &p, &c);
	env_become(&env, 1000, 1000);
	CHECK_EQ("not searchable", look("/a/f", 0), -EACCES);
	CHECK_EQ("not searchable missing", look("/a/x", 0), -EACCES);
	CHECK_EQ("not searchable dot", look("/a/.", 0), -EACCES);
	CHECK_EQ("not searchable itself", look("/a", 0), 0);
	env_become(&env, 0, 0);
	c.mode = 0755;
	vfs_setattr(CTX, &p, &c);
	path_put(&p);
}

static void test_symlinks(void)
{
	char name[16], to[16];

	vfs_symlink(CTX, "a", NULL, "/l");
	vfs_symlink(CTX, "/a/b", NULL, "/labs");
	vfs_symlink(CTX, "loop", NULL, "/loop");
	vfs_symlink(CTX, "../a/f", NULL, "/a/lf");
	vfs_symlink(CTX, "/", NULL, "/lroot");
	vfs_symlink(CTX, "b/", NULL, "/a/lslash");
	vfs_symlink(CTX, "f/", NULL, "/a/lfslash");
	CHECK_WHERE("/l", 0, "/l");
	CHECK_WHERE("/l", WALK_FOLLOW, "/a");
	CHECK_WHERE("/l/", 0, "/a");
	CHECK_WHERE("/l/b", 0, "/a/b");
	CHECK_WHERE("/labs/../f", 0, "/a/f");
	CHECK_WHERE("/a/lf", WALK_FOLLOW, "/a/f");
	CHECK_WHERE("/lroot/a", 0, "/a");
	CHECK_WHERE("/lroot", WALK_FOLLOW, "/");
	CHECK_WHERE("/a/lslash", WALK_FOLLOW, "/a/b");
	CHECK_EQ("link to file with slash", look("/a/lfslash", WALK_FOLLOW), -ENOTDIR);
	CHECK_EQ("file link used as directory", look("/a/lf/", 0), -ENOTDIR);
	CHECK_EQ("loop", look("/loop", WALK_FOLLOW), -ELOOP);
	CHECK_EQ("loop not followed", look("/loop", 0), 0);
	CHECK_EQ("loop in the middle", look("/loop/x", 0), -ELOOP);
	CHECK_EQ("no symlinks", look("/l/b", WALK_NO_SYMLINKS), -ELOOP);
	CHECK_EQ("no symlinks last", look("/l", WALK_NO_SYMLINKS), 0);
	/* A chain of 40 links is allowed, one of 41 isn't. */
	vfs_symlink(CTX, "/a", NULL, "/c0");
	for (int i = 1; i < 41; i++) {
		snprintf(name, sizeof(name), "/c%d", i);
		snprintf(to, sizeof(to), "c%d", i - 1);
		vfs_symlink(CTX, to, NULL, name);
	}
	CHECK_EQ("40 links", look("/c39", WALK_FOLLOW), 0);
	CHECK_EQ("41 links", look("/c40", WALK_FOLLOW), -ELOOP);
}

static void test_resolve(void)
{
	struct path a = xlookup(&env, "/a", 0);

	CHECK_EQ("beneath", try_open2(&env, &a, "f", 0, RESOLVE_BENEATH), 0);
	CHECK_EQ("beneath dotdot inside", try_open2(&env, &a, "b/../f", 0, RESOLVE_BENEATH), 0);
	CHECK_EQ("beneath dotdot", try_open2(&env, &a, "..", 0, RESOLVE_BENEATH), -EXDEV);
	CHECK_EQ("beneath deep", try_open2(&env, &a, "b/../../a/f", 0, RESOLVE_BENEATH), -EXDEV);
	CHECK_EQ("beneath absolute", try_open2(&env, &a, "/a/f", 0, RESOLVE_BENEATH), -EXDEV);
	vfs_symlink(CTX, "/a/f", NULL, "/a/labs");
	CHECK_EQ("beneath absolute link", try_open2(&env, &a, "labs", 0, RESOLVE_BENEATH), -EXDEV);
	CHECK_EQ("beneath link out", try_open2(&env, &a, "lf", 0, RESOLVE_BENEATH), -EXDEV);
	CHECK_EQ("in root absolute", try_open2(&env, &a, "/f", 0, RESOLVE_IN_ROOT), 0);
	CHECK_EQ("in root dotdot", try_open2(&env, &a, "../../f", 0, RESOLVE_IN_ROOT), 0);
	vfs_symlink(CTX, "/f", NULL, "/a/lin");
	CHECK_EQ("in root absolute link", try_open2(&env, &a, "lin", 0, RESOLVE_IN_ROOT), 0);
	CHECK_EQ("no symlinks", try_open2(&env, &a, "lf", 0, RESOLVE_NO_SYMLINKS), -ELOOP);
	CHECK_EQ("no symlinks path",
		 try_open2(&env, &a, "lf", O_PATH | O_NOFOLLOW, RESOLVE_NO_SYMLINKS), 0);
	CHECK_EQ("both", try_open2(&env, &a, "f", 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT), -EINVAL);
	path_put(&a);
}

static int mount_tmpfs(const char *at, unsigned long flags, const char *options)
{
	struct path p = xlookup(&env, at, WALK_FOLLOW);
	struct super *sb = fs_type_find("tmpfs")->mount(CTX, "tmpfs", options);
	int err = IS_ERR(sb) ? (int)PTR_ERR(sb) : mount_new(CTX, sb, &p, flags);

	path_put(&p);
	return err;
}

static int umount_at(const char *at, int flags)
{
	struct path p = xlookup(&env, at, WALK_FOLLOW);
	int err = mount_umount(CTX, &p, flags);

	path_put(&p);
	return err;
}

static void test_mounts(void)
{
	struct path p, q;
	struct file *f;
	char *text;

	vfs_mkdir(CTX, NULL, "/m", 0777);
	vfs_mkdir(CTX, NULL, "/m/under", 0777);
	CHECK_EQ("mount", mount_tmpfs("/m", 0, "size=64k"), 0);
	CHECK_EQ("covered", look("/m/under", 0), -ENOENT);
	put_text(&env, "/m/f", "in");
	CHECK_WHERE("/m/f", 0, "/m/f");
	CHECK_WHERE("/m/..", 0, "/");
	CHECK_WHERE("/m/../m/./f", 0, "/m/f");
	CHECK_EQ("no xdev", look("/m/f", WALK_NO_XDEV), -EXDEV);
	CHECK_EQ("rmdir mountpoint", vfs_rmdir(CTX, NULL, "/m"), -EBUSY);
	CHECK_EQ("rename mountpoint", vfs_rename(CTX, NULL, "/m", NULL, "/mm", 0), -EBUSY);
	CHECK_EQ("rename across", vfs_rename(CTX, NULL, "/m/f", NULL, "/f", 0), -EXDEV);
	p = xlookup(&env, "/m/f", 0);
	CHECK_EQ("link across", vfs_link(CTX, &p, NULL, "/f"), -EXDEV);
	CHECK_EQ("umount busy", umount_at("/m", 0), -EBUSY);
	path_put(&p);
	CHECK_EQ("umount not a mount", umount_at("/a", 0), -EINVAL);
	CHECK_EQ("umount root", umount_at("/", 0), -EBUSY);
	CHECK_EQ("stack", mount_tmpfs("/m", 0, NULL), 0);
	CHECK_EQ("stack covers", look("/m/f", 0), -ENOENT);
	CHECK_EQ("unstack", umount_at("/m", 0), 0);
	CHECK_EQ("uncovered", look("/m/f", 0), 0);
	vfs_mkdir(CTX, NULL, "/m/sub", 0777);
	CHECK_EQ("nested", mount_tmpfs("/m/sub", 0, NULL), 0);
	put_text(&env, "/m/sub/g", "deep");
	CHECK_EQ("umount parent busy", umount_at("/m", 0), -EBUSY);
	/* Bind, alone and recursively. */
	vfs_mkdir(CTX, NULL, "/bind", 0777);
	p = xlookup(&env, "/m", 0);
	q = xlookup(&env, "/bind", 0);
	CHECK_EQ("bind", mount_bind(CTX, &p, &q, false), 0);
	CHECK_EQ("bind sees", look("/bind/f", 0), 0);
	CHECK_EQ("bind alone", look("/bind/sub/g", 0), -ENOENT);
	CHECK_EQ("unbind", umount_at("/bind", 0), 0);
	CHECK_EQ("rbind", mount_bind(CTX, &p, &q, true), 0);
	CHECK_EQ("rbind sees", look("/bind/sub/g", 0), 0);
	path_put(&p);
	path_put(&q);
	p = xlookup(&env, "/a/f", 0);
	q = xlookup(&env, "/m", 0);
	CHECK_EQ("bind file on directory", mount_bind(CTX, &p, &q, false), -ENOTDIR);
	path_put(&q);
	q = xlookup(&env, "/bind/f", 0);
	CHECK_EQ("bind file", mount_bind(CTX, &p, &q, false), 0);
	CHECK("bound file", !strcmp(get_text(&env, "/bind/f"), "x"));
	path_put(&p);
	path_put(&q);
	/* Read-only, this mount only. */
	p = xlookup(&env, "/bind/sub", 0);
	f = xopen(&env, "/bind/sub/g", O_RDWR);
	CHECK_EQ("remount busy", mount_remount(CTX, &p, MS_RDONLY, true), -EBUSY);
	file_put(f);
	CHECK_EQ("remount", mount_remount(CTX, &p, MS_RDONLY | MS_NOEXEC, true), 0);
	path_put(&p);
	CHECK_EQ("ro open", try_open(&env, "/bind/sub/g", O_RDWR), -EROFS);
	CHECK_EQ("ro creat existing", try_open(&env, "/bind/sub/g", O_CREAT | O_RDONLY), 0);
	CHECK_EQ("ro creat", try_open(&env, "/bind/sub/h", O_CREAT | O_RDONLY), -EROFS);
	CHECK_EQ("ro mkdir", vfs_mkdir(CTX, NULL, "/bind/sub/d", 0777), -EROFS);
	CHECK_EQ("ro mkdir existing", vfs_mkdir(CTX, NULL, "/bind/sub/g", 0777), -EEXIST);
	CHECK_EQ("ro unlink", vfs_unlink(CTX, NULL, "/bind/sub/g"), -EROFS);
	CHECK_EQ("rw elsewhere", try_open(&env, "/m/sub/g", O_RDWR), 0);
	text = mnt_ns_show(env.ns, NULL, 1);
	CHECK("mountinfo",
	      strstr(text, " / /bind/sub ro,noexec,relatime - tmpfs tmpfs rw") != NULL);
	CHECK("mountinfo bound file", strstr(text, " /a/f /bind/f rw") != NULL);
	kfree(text);
	text = mnt_ns_show(env.ns, NULL, 0);
	CHECK("mounts", strstr(text, "tmpfs /m tmpfs rw,relatime,size=64k 0 0\n") != NULL);
	kfree(text);
	/* Move and detach. */
	vfs_mkdir(CTX, NULL, "/to", 0777);
	p = xlookup(&env, "/bind", 0);
	q = xlookup(&env, "/to", 0);
	CHECK_EQ("move", mount_move(CTX, &p, &q), 0);
	path_put(&p);
	path_put(&q);
	CHECK_EQ("moved", look("/to/sub/g", 0), 0);
	CHECK_EQ("moved away", look("/bind/f", 0), -ENOENT);
	p = xlookup(&env, "/to", 0);
	q = xlookup(&env, "/to/sub", 0);
	CHECK_EQ("move into itself", mount_move(CTX, &p, &q), -ELOOP);
	path_put(&p);
	path_put(&q);
	CHECK_EQ("expire first", umount_at("/to/sub", MNT_EXPIRE), -EAGAIN);
	CHECK_EQ("expire used", try_open(&env, "/to/sub/g", O_RDONLY), 0);
	CHECK_EQ("expire again", umount_at("/to/sub", MNT_EXPIRE), -EAGAIN);
	CHECK_EQ("expire done", umount_at("/to/sub", MNT_EXPIRE), 0);
	f = xopen(&env, "/to/f", O_RDONLY);
	CHECK_EQ("detach", umount_at("/to", MNT_DETACH), 0);
	CHECK_EQ("detached", look("/to/f", 0), -ENOENT);
	file_put(f);
	CHECK_EQ("rmdir after", vfs_rmdir(CTX, NULL, "/to"), 0);
	CHECK_EQ("umount nested", umount_at("/m/sub", 0), 0);
	CHECK_EQ("umount", umount_at("/m", 0), 0);
	CHECK_EQ("seen again", look("/m/under", 0), 0);
}

static void test_limits(void)
{
	struct file *f;
	static char big[128 << 10];

	mount_tmpfs("/m", 0, "size=64k,nr_inodes=3,mode=700,uid=5");
	f = xopen(&env, "/m/big", O_CREAT | O_RDWR);
	CHECK_EQ("partial at the limit", file_write_kernel(f, big, sizeof(big), 0), 64 << 10);
	CHECK_EQ("full", file_write_kernel(f, big, 1, 64 << 10), -ENOSPC);
	file_put(f);
	CHECK_EQ("inodes", vfs_mkdir(CTX, NULL, "/m/d", 0777), 0);
	CHECK_EQ("inodes full", vfs_mkdir(CTX, NULL, "/m/e", 0777), -ENOSPC);
	vfs_unlink(CTX, NULL, "/m/big");
	CHECK_EQ("inodes free", try_open(&env, "/m/n", O_CREAT | O_RDWR), 0);
	struct statx st;

	CHECK("root owner",
	      !try_stat(&env, "/m", &st) && st.stx_uid == 5 && st.stx_mode == (S_IFDIR | 0700));
	umount_at("/m", 0);
	CHECK_EQ("bad option", mount_tmpfs("/m", 0, "nonsense=1"), -EINVAL);
	CHECK_EQ("bad size", mount_tmpfs("/m", 0, "size=abc"), -EINVAL);
}

static void test_pivot(void)
{
	struct vfs_env e2 = env;
	struct path p, q;

	e2.ctx.fs = fs_context_copy(env.ctx.fs);
	e2.ns = e2.ctx.mnt_ns = mnt_ns_copy(env.ns, e2.ctx.fs);
	CHECK("ns copy", !IS_ERR(e2.ns));
	vfs_mkdir(CTX, NULL, "/new", 0777);
	p = xlookup(&e2, "/new", 0);
	CHECK_EQ("new root",
		 mount_new(&e2.ctx, fs_type_find("tmpfs")->mount(NULL, "new", NULL), &p, 0), 0);
	path_put(&p);
	CHECK_EQ("not in the other", vfs_mkdir(CTX, NULL, "/new/here", 0777), 0);
	CHECK_EQ("old dir", vfs_mkdir(&e2.ctx, NULL, "/new/old", 0777), 0);
	p = xlookup(&e2, "/new", 0);
	q = xlookup(&e2, "/a", 0);
	CHECK_EQ("put_old outside", mount_pivot_root(&e2.ctx, &p, &q), -EBUSY);
	CHECK_EQ("not a mount", mount_pivot_root(&e2.ctx, &q, &q), -EBUSY);
	path_put(&q);
	q = xlookup(&e2, "/new/old", 0);
	CHECK_EQ("pivot", mount_pivot_root(&e2.ctx, &p, &q), 0);
	path_put(&p);
	path_put(&q);
	p = xlookup(&e2, "/old/a/f", 0);
	path_put(&p);
	p = xlookup(&e2, "/old", 0);
	CHECK_EQ("drop old root", mount_umount(&e2.ctx, &p, MNT_DETACH), 0);
	path_put(&p);
	CHECK_EQ("old gone", try_open(&e2, "/old/a", O_RDONLY), -ENOENT);
	fs_context_put(e2.ctx.fs);
	mnt_ns_put(e2.ns);
	CHECK_EQ("first namespace whole", look("/a/f", 0), 0);
}

static void test_names(void)
{
	struct path p, root;
	char *s;

	vfs_mkdir(CTX, NULL, "/gone", 0777);
	p = xlookup(&env, "/gone", 0);
	vfs_rmdir(CTX, NULL, "/gone");
	fs_context_root(CTX->fs, &root);
	s = path_name(&p, &root);
	CHECK("deleted", !strcmp(s, "/gone (deleted)"));
	kfree(s);
	path_put(&p);
	p = xlookup(&env, "/a", 0);
	s = path_name(&root, &p);
	CHECK("unreachable", !strcmp(s, "(unreachable)/"));
	kfree(s);
	path_put(&p);
	path_put(&root);
	struct file *f = memfd_file(CTX, "blob", 0);

	s = path_name(&f->path, NULL);
	CHECK("memfd name", !strcmp(s, "/memfd:blob (deleted)"));
	kfree(s);
	file_put(f);
}

/* More names than the hash starts with. */
static void test_many_names(void)
{
	char name[32];
	int missing = 0, left = 0;

	vfs_mkdir(CTX, NULL, "/many", 0777);
	for (int i = 0; i < 9000; i++) {
		snprintf(name, sizeof(name), "/many/%d", i);
		missing += vfs_mknod(CTX, NULL, name, 0600, 0) != 0;
	}
	CHECK_EQ("all made", missing, 0);
	for (int i = 0; i < 9000; i++) {
		snprintf(name, sizeof(name), "/many/%d", i);
		missing += look(name, 0) != 0;
	}
	CHECK_EQ("all found", missing, 0);
	for (int i = 0; i < 9000; i++) {
		snprintf(name, sizeof(name), "/many/%d", i);
		missing += vfs_unlink(CTX, NULL, name) != 0;
		left += look(name, 0) != -ENOENT;
	}
	CHECK("all removed", !missing && !left);
	CHECK_EQ("directory removed", vfs_rmdir(CTX, NULL, "/many"), 0);
}

static void test_all(void)
{
	env_open(&env);
	test_plain();
	test_symlinks();
	test_resolve();
	test_mounts();
	test_limits();
	test_pivot();
	test_names();
	test_many_names();
	env_close(&env);
}

int main(void)
{
	return vfs_test_main(test_all);
}
