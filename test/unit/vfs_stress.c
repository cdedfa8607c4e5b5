/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that make, move, remove, read and mount in the same few directories: nothing crashes, no
 * lock order is broken (LOCK_DEBUG), no rename shows neither name, and every reference comes back.
 */
#include <pthread.h>

#include "test/unit/vfs_support.h"

static struct vfs_env env;
#define CTX	(&env.ctx)
#define THREADS 4
#define ROUNDS	4000

static _Atomic int neither;

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

static void random_name(uint32_t *r, char *buf, size_t size)
{
	static const char *const dirs[] = {"/a", "/b", "/a/s", "/b/t", ""};

	snprintf(buf, size, "%s/n%u", dirs[next_random(r) % ARRAY_SIZE(dirs)], next_random(r) % 6);
}

static void *churn(void *arg)
{
	uint32_t r = (uint32_t)(uintptr_t)arg * 7919;
	char a[64], b[64];
	struct statx st;
	struct path p;

	for (int i = 0; i < ROUNDS; i++) {
		random_name(&r, a, sizeof(a));
		random_name(&r, b, sizeof(b));
		switch (next_random(&r) % 12) {
		case 0:
			vfs_mkdir(CTX, NULL, a, 0777);
			break;
		case 1:
			vfs_rmdir(CTX, NULL, a);
			break;
		case 2:
			vfs_unlink(CTX, NULL, a);
			break;
		case 3:
		case 4:
			vfs_rename(CTX, NULL, a, NULL, b, 0);
			break;
		case 5:
			vfs_rename(CTX, NULL, a, NULL, b, RENAME_EXCHANGE);
			break;
		case 6:
			if (!path_lookup(CTX, NULL, a, 0, &p)) {
				char *s = path_name(&p, NULL);

				kfree(s);
				vfs_link(CTX, &p, NULL, b);
				path_put(&p);
			}
			break;
		case 7:
			vfs_symlink(CTX, b, NULL, a);
			break;
		case 8:
			try_stat(&env, a, &st);
			break;
		case 9: {
			struct file *f = xopen(&env, "/a", O_RDONLY | O_DIRECTORY);
			struct names n = {.sink.emit = names_emit, .max = 8};

			if (!IS_ERR(f)) {
				file_iterate(CTX, f, &n.sink);
				file_put(f);
			}
			break;
		}
		default: {
			struct file *f = xopen(&env, a, O_CREAT | O_RDWR);

			if (!IS_ERR(f)) {
				if (S_ISREG(f->inode->mode))
					file_write_kernel(f, a, sizeof(a), next_random(&r) % 20000);
				file_put(f);
			}
			break;
		}
		}
	}
	return NULL;
}

static void *mounter(void *arg)
{
	for (int i = 0; i < ROUNDS / 10; i++) {
		struct super *sb = fs_type_find("tmpfs")->mount(CTX, "t", NULL);
		struct path p = xlookup(&env, "/mnt", 0);

		if (!mount_new(CTX, sb, &p, 0)) {
			vfs_mkdir(CTX, NULL, "/mnt/x", 0777);
			path_put(&p);
			p = xlookup(&env, "/mnt", 0);
			mount_umount(CTX, &p, MNT_DETACH);
		}
		path_put(&p);
	}
	return NULL;
}

static void *walker(void *arg)
{
	struct statx st;

	for (int i = 0; i < ROUNDS; i++) {
		try_stat(&env, "/mnt/x", &st);
		try_stat(&env, "/a/../mnt/./../b/s/..", &st);
	}
	return NULL;
}

static _Atomic bool stop;

static void *mover(void *arg)
{
	while (!stop) {
		vfs_rename(CTX, NULL, "/from", NULL, "/a/to", RENAME_NOREPLACE);
		vfs_rename(CTX, NULL, "/a/to", NULL, "/from", RENAME_NOREPLACE);
		/* Over an existing name: it never disappears. */
		put_text(&env, "/tmpname", "x");
		vfs_rename(CTX, NULL, "/tmpname", NULL, "/target", 0);
	}
	return NULL;
}

static void test_rename_visible(void)
{
	pthread_t t;

	put_text(&env, "/from", "x");
	put_text(&env, "/target", "x");
	stop = false;
	neither = 0;
	pthread_create(&t, NULL, mover, NULL);
	for (int i = 0; i < 20000; i++)
		if (try_open(&env, "/target", O_RDONLY))
			neither++;
	stop = true;
	pthread_join(t, NULL);
	CHECK_EQ("a replaced name is always there", neither, 0);
}

static void test_all(void)
{
	pthread_t t[THREADS + 2];

	env_open(&env);
	vfs_mkdir(CTX, NULL, "/a", 0777);
	vfs_mkdir(CTX, NULL, "/b", 0777);
	vfs_mkdir(CTX, NULL, "/a/s", 0777);
	vfs_mkdir(CTX, NULL, "/b/t", 0777);
	vfs_mkdir(CTX, NULL, "/mnt", 0777);
	for (size_t i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, churn, (void *)(uintptr_t)(i + 1));
	pthread_create(&t[THREADS], NULL, mounter, NULL);
	pthread_create(&t[THREADS + 1], NULL, walker, NULL);
	for (size_t i = 0; i < THREADS + 2; i++)
		pthread_join(t[i], NULL);
	test_rename_visible();
	env_close(&env);
}

int main(void)
{
	return vfs_test_main(test_all);
}
