/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the vfs tests share: a started vfs, a context on an in-memory root, and the check that every
 * counted object is back where it was.
 */
#ifndef TEST_UNIT_VFS_SUPPORT_H
#define TEST_UNIT_VFS_SUPPORT_H

#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/physmem.h"
#include "vfs/file.h"

static int failures;

static inline void check(bool good, const char *name, const char *file, int line)
{
	if (good) {
		printf("ok %s\n", name);
		return;
	}
	printf("not ok %s\n# %s:%d\n", name, file, line);
	failures++;
}
#define CHECK(name, cond) check((cond), (name), __FILE__, __LINE__)
/* An expression's value, shown when it is another. */
#define CHECK_EQ(name, expr, want)                                                                 \
	do {                                                                                       \
		long got_ = (long)(expr), want_ = (long)(want);                                    \
		check(got_ == want_, (name), __FILE__, __LINE__);                                  \
		if (got_ != want_)                                                                 \
			printf("# %s is %ld, not %ld\n", #expr, got_, want_);                      \
	} while (0)

struct vfs_env {
	struct vfs_ctx ctx;
	struct mnt_ns *ns;
};

static inline void vfs_start(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (arena_init() || physmem_init(0) || vfs_init()) {
		printf("not ok start\n");
		exit(1);
	}
}

/* A namespace on @sb (consumed) with a context of @uid. */
static inline void env_open_super(struct vfs_env *env, struct super *sb)
{
	struct path root;

	memset(env, 0, sizeof(*env));
	env->ns = mnt_ns_alloc(sb, 0);
	mnt_ns_root(env->ns, &root);
	env->ctx.fs = fs_context_alloc(&root, &root, 022);
	path_put(&root);
	env->ctx.cred = cred_alloc(0, 0, NULL, 0, CAP_FULL_SET);
	env->ctx.mnt_ns = env->ns;
	env->ctx.fsize_limit = UINT64_MAX;
}

static inline void env_open(struct vfs_env *env)
{
	env_open_super(env, fs_type_find("tmpfs")->mount(NULL, "tmpfs", "mode=755"));
}

static inline void env_close(struct vfs_env *env)
{
	fs_context_put(env->ctx.fs);
	cred_put(env->ctx.cred);
	mnt_ns_put(env->ns);
}

static inline void env_become(struct vfs_env *env, uid_t uid, gid_t gid)
{
	cred_put(env->ctx.cred);
	env->ctx.cred = cred_alloc(uid, gid, NULL, 0, uid ? 0 : CAP_FULL_SET);
}

#define MAX_TYPES 64
struct live {
	const struct objtype *type[MAX_TYPES];
	long n[MAX_TYPES];
	size_t count, bytes;
};

static inline void live_add(const struct objtype *t, void *arg)
{
	struct live *l = arg;

	l->type[l->count] = t;
	l->n[l->count++] = t->live;
}

static inline struct live live_now(void)
{
	struct live l = {.bytes = arena_in_use()};

	objtype_for_each(live_add, &l);
	return l;
}

static inline void check_live(const char *name, const struct live *before)
{
	struct live now = live_now();
	bool same = true;

	for (size_t i = 0; i < now.count; i++) {
		if (now.n[i] == before->n[i])
			continue;
		same = false;
		printf("# %s: %ld live, %ld before\n", now.type[i]->name, now.n[i], before->n[i]);
	}
	/* The frame allocator's list of free runs may be cut otherwise than before. */
	if (now.bytes > before->bytes + (4 << 10)) {
		same = false;
		printf("# arena: %zu bytes, %zu before\n", now.bytes, before->bytes);
	}
	check(same, name, __FILE__, __LINE__);
}

/*
 * Runs @tests twice and compares after the second: the first time pools grow that stay.
 */
static inline int vfs_test_main(void (*tests)(void))
{
	struct live before;

	vfs_start();
	tests();
	before = live_now();
	tests();
	check_live("everything released", &before);
	return failures != 0;
}

static inline struct file *xopen(struct vfs_env *env, const char *name, unsigned int flags)
{
	struct open_how how;

	open_how_init(&how, flags, 0644);
	return file_open(&env->ctx, NULL, name, &how);
}

/* open's errno, or 0; the file is closed again. */
static inline int try_open(struct vfs_env *env, const char *name, unsigned int flags)
{
	struct file *file = xopen(env, name, flags);
	int err = PTR_ERR_OR_ZERO(file);

	if (!err)
		file_put(file);
	return err;
}

static inline int try_open2(struct vfs_env *env, const struct path *base, const char *name,
			    uint64_t flags, uint64_t resolve)
{
	struct open_how how = {.flags = flags, .resolve = resolve};
	struct file *file = file_open(&env->ctx, base, name, &how);
	int err = PTR_ERR_OR_ZERO(file);

	if (!err)
		file_put(file);
	return err;
}

static inline void put_text(struct vfs_env *env, const char *name, const char *text)
{
	struct file *file = xopen(env, name, O_CREAT | O_WRONLY | O_TRUNC);

	if (IS_ERR(file) || file_write_kernel(file, text, strlen(text), 0) != (ssize_t)strlen(text))
		CHECK("put_text", false);
	if (!IS_ERR(file))
		file_put(file);
}

/* Contents as a string in a static buffer; "<errno>" on failure. */
static inline const char *get_text(struct vfs_env *env, const char *name)
{
	static char buf[8192];
	struct file *file = xopen(env, name, O_RDONLY);
	ssize_t n;

	if (IS_ERR(file)) {
		snprintf(buf, sizeof(buf), "<%d>", PTR_ERR_OR_ZERO(file));
		return buf;
	}
	n = file_read_kernel(file, buf, sizeof(buf) - 1, 0);
	file_put(file);
	if (n < 0)
		snprintf(buf, sizeof(buf), "<%zd>", n);
	else
		buf[n] = '\0';
	return buf;
}

/* Must find it: the test goes no further otherwise. */
static inline struct path xlookup(struct vfs_env *env, const char *name, unsigned int flags)
{
	struct path path;
	int err = path_lookup(&env->ctx, NULL, name, flags, &path);

	if (err) {
		printf("not ok lookup of %s: %d\n", name, err);
		exit(1);
	}
	return path;
}

struct names {
	struct dir_sink sink;
	char list[65536]; /* "a b c" in order, without . and .. */
	unsigned int count, max;
	uint64_t last_pos;
};

static inline bool names_emit(struct dir_sink *sink, const char *name, size_t len, uint64_t ino,
			      unsigned int type, uint64_t next_pos)
{
	struct names *n = container_of(sink, struct names, sink);

	if (n->count == n->max)
		return false;
	n->last_pos = next_pos;
	n->count++;
	if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return true;
	if (n->list[0])
		strcat(n->list, " ");
	strncat(n->list, name, len);
	return true;
}

static inline struct names *list_dir(struct vfs_env *env, const char *name)
{
	static struct names n;
	struct file *file = xopen(env, name, O_RDONLY | O_DIRECTORY);

	n = (struct names){.sink.emit = names_emit, .max = ~0u};
	if (IS_ERR(file)) {
		snprintf(n.list, sizeof(n.list), "<%d>", PTR_ERR_OR_ZERO(file));
		return &n;
	}
	if (file_iterate(&env->ctx, file, &n.sink))
		strcpy(n.list, "<error>");
	file_put(file);
	return &n;
}

static inline int try_stat(struct vfs_env *env, const char *name, struct statx *stx)
{
	struct path path;
	int err = path_lookup(&env->ctx, NULL, name, 0, &path);

	if (err)
		return err;
	err = vfs_getattr(&path, stx);
	path_put(&path);
	return err;
}

#endif
