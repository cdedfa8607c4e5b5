/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every operation with every one of its allocations failing in turn: it says ENOMEM (or gets along
 * without), nothing stays behind, and the tree is as before or as after.
 */
#include <linux/memfd.h>
#include <sys/file.h>

#include "test/unit/vfs_support.h"
#include "vfs/notify.h"

static struct vfs_env env;
#define CTX (&env.ctx)
static struct path dir; /* /d */

static int op_open(void)
{
	return try_open(&env, "/d/f", O_RDWR);
}

static int op_create(void)
{
	int err = try_open(&env, "/d/new", O_CREAT | O_EXCL | O_RDWR);

	if (vfs_unlink(CTX, NULL, "/d/new") && !err)
		return -EIO;
	return err;
}

static int op_tmpfile(void)
{
	return try_open(&env, "/d", O_TMPFILE | O_RDWR);
}

static int op_mkdir(void)
{
	int err = vfs_mkdir(CTX, NULL, "/d/sub", 0777);

	if (!err)
		vfs_rmdir(CTX, NULL, "/d/sub");
	return err;
}

static int op_symlink(void)
{
	int err = vfs_symlink(CTX, "target", NULL, "/d/sym");

	if (!err)
		vfs_unlink(CTX, NULL, "/d/sym");
	return err;
}

static int op_link(void)
{
	struct path p = xlookup(&env, "/d/f", 0);
	int err = vfs_link(CTX, &p, NULL, "/d/hard");

	path_put(&p);
	if (!err)
		vfs_unlink(CTX, NULL, "/d/hard");
	return err;
}

static int op_rename(void)
{
	int err = vfs_rename(CTX, NULL, "/d/f", NULL, "/d/g", 0);

	if (!err) {
		arena_fail_at(0);
		err = vfs_rename(CTX, NULL, "/d/g", NULL, "/d/f", 0);
	}
	return err;
}

static int op_exchange(void)
{
	return vfs_rename(CTX, NULL, "/d/f", NULL, "/e", RENAME_EXCHANGE);
}

static int op_follow(void)
{
	return try_open(&env, "/l", O_RDONLY);
}

static int op_mount(void)
{
	struct super *sb = fs_type_find("tmpfs")->mount(CTX, "t", "size=1m");
	int err = IS_ERR(sb) ? (int)PTR_ERR(sb) : mount_new(CTX, sb, &dir, 0);

	if (!err) {
		struct path p = xlookup(&env, "/d", 0);

		err = mount_umount(CTX, &p, 0);
		path_put(&p);
	}
	return err;
}

static int op_devtmpfs(void)
{
	struct super *sb = fs_type_find("devtmpfs")->mount(CTX, "t", NULL);

	if (IS_ERR(sb))
		return (int)PTR_ERR(sb);
	super_put(sb);
	return 0;
}

static int op_rbind(void)
{
	struct path from = xlookup(&env, "/m", 0), p;
	int err = mount_bind(CTX, &from, &dir, true);

	path_put(&from);
	if (!err) {
		p = xlookup(&env, "/d", 0);
		err = mount_umount(CTX, &p, MNT_DETACH);
		path_put(&p);
	}
	return err;
}

static int op_ns_copy(void)
{
	struct fs_context *fs = fs_context_copy(CTX->fs);
	struct mnt_ns *ns;
	int err;

	if (!fs)
		return -ENOMEM;
	ns = mnt_ns_copy(env.ns, fs);
	err = PTR_ERR_OR_ZERO(ns);
	fs_context_put(fs);
	if (!err)
		mnt_ns_put(ns);
	return err;
}

static int op_memfd(void)
{
	struct file *f = memfd_file(CTX, "m", MFD_ALLOW_SEALING);
	ssize_t n;

	if (IS_ERR(f))
		return (int)PTR_ERR(f);
	n = file_write_kernel(f, "data", 4, 100 << 20);
	file_put(f);
	return n == 4 ? 0 : (int)n;
}

static int op_fdtable(void)
{
	struct fd_table *t = fd_table_alloc(), *copy;
	struct file *f;
	int err = -ENOMEM;

	if (!t)
		return -ENOMEM;
	f = xopen(&env, "/d/f", O_RDWR);
	if (!IS_ERR(f)) {
		err = fd_install(t, f, 200, false, 1024);
		copy = fd_table_copy(t);
		if (!copy)
			err = -ENOMEM;
		fd_table_put(CTX, copy);
	}
	fd_table_put(CTX, t);
	return err < 0 ? err : 0;
}

static int op_lock(void)
{
	struct file *f = xopen(&env, "/d/f", O_RDWR);
	struct flock fl = {.l_type = F_WRLCK, .l_start = 5, .l_len = 5};
	int err;

	if (IS_ERR(f))
		return (int)PTR_ERR(f);
	err = file_flock(CTX, f, LOCK_EX, true);
	if (!err)
		err = file_setlk(CTX, f, &env, 1, &fl, false);
	file_locks_release(f, &env);
	file_put(f);
	return err;
}

static int op_xattr(void)
{
	struct path p = xlookup(&env, "/d/f", 0);
	int err = vfs_setxattr(CTX, &p, "user.x", "value", 5, 0);

	if (!err)
		vfs_removexattr(CTX, &p, "user.x");
	path_put(&p);
	return err;
}

static int op_notify(void)
{
	struct file *in = notify_create(CTX, 0);
	int err;

	if (IS_ERR(in))
		return (int)PTR_ERR(in);
	err = notify_add_watch(CTX, in, &dir, IN_ALL_EVENTS);
	try_open(&env, "/d/f", O_RDWR);
	file_put(in);
	return err < 0 ? err : 0;
}

static int op_show(void)
{
	char *s = mnt_ns_show(env.ns, NULL, 1);

	kfree(s);
	return s ? 0 : -ENOMEM;
}

static int op_cred(void)
{
	gid_t groups[] = {5, 3};
	struct cred *c = cred_prepare_groups(CTX->cred, groups, 2);

	cred_put(c);
	return c ? 0 : -ENOMEM;
}

static const struct {
	const char *name;
	int (*run)(void);
} ops[] = {
	{"open", op_open},	 {"create", op_create},	    {"tmpfile", op_tmpfile},
	{"mkdir", op_mkdir},	 {"symlink", op_symlink},   {"link", op_link},
	{"rename", op_rename},	 {"exchange", op_exchange}, {"follow", op_follow},
	{"mount", op_mount},	 {"devtmpfs", op_devtmpfs}, {"rbind", op_rbind},
	{"ns copy", op_ns_copy}, {"memfd", op_memfd},	    {"fdtable", op_fdtable},
	{"locks", op_lock},	 {"xattr", op_xattr},	    {"notify", op_notify},
	{"show", op_show},	 {"cred", op_cred},
};

/* True while the operation still had an allocation that failed. */
static bool fail_step(size_t i, long n, int *failed)
{
	struct live before = live_now();
	char name[64];
	int err;

	arena_fail_at(n);
	err = ops[i].run();
	/* What is left of the count says whether it got there: one more allocation tells. */
	arena_fail_at(0);
	snprintf(name, sizeof(name), "%s: nothing left at %ld", ops[i].name, n);
	check_live(name, &before);
	if (err && err != -ENOMEM) {
		printf("# %s: %d\n", ops[i].name, err);
		CHECK("only ENOMEM", false);
	}
	*failed += err == -ENOMEM;
	return err == -ENOMEM;
}

static void test_all(void)
{
	struct path p;
	char name[64];

	env_open(&env);
	vfs_mkdir(CTX, NULL, "/d", 0777);
	vfs_mkdir(CTX, NULL, "/m", 0777);
	put_text(&env, "/d/f", "f");
	put_text(&env, "/e", "e");
	vfs_symlink(CTX, "d/f", NULL, "/l");
	p = xlookup(&env, "/m", 0);
	mount_new(CTX, fs_type_find("tmpfs")->mount(CTX, "t", NULL), &p, 0);
	path_put(&p);
	vfs_mkdir(CTX, NULL, "/m/sub", 0777);
	p = xlookup(&env, "/m/sub", 0);
	mount_new(CTX, fs_type_find("tmpfs")->mount(CTX, "t", NULL), &p, 0);
	path_put(&p);
	dir = xlookup(&env, "/d", 0);
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		int failed = 0, good = 0;

		ops[i].run(); /* pools */
		for (long n = 1; n < 200 && good < 8; n++)
			good = fail_step(i, n, &failed) ? 0 : good + 1;
		snprintf(name, sizeof(name), "%s: can fail", ops[i].name);
		CHECK(name, failed > 0);
		snprintf(name, sizeof(name), "%s: succeeds in the end", ops[i].name);
		CHECK_EQ(name, ops[i].run(), 0);
	}
	path_put(&dir);
	env_close(&env);
}

int main(void)
{
	return vfs_test_main(test_all);
}
