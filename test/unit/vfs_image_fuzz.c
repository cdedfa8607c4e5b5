/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root filesystem over images with bytes changed at random: everything that can be reached is
 * listed, read, mapped and changed. Errors are fine; crashes, endless loops and leaks are not.
 * Usage: vfs_image_fuzz [ROUNDS [SEED]]
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "test/unit/vfs_support.h"
#include "vfs/rootfs.h"

static struct vfs_env env;
#define CTX (&env.ctx)
static char tmp[] = "/tmp/vfs_fuzz_XXXXXX";
static gpa_t image_gpa;
static size_t image_size;
static int image_fd;
static unsigned int budget; /* names that a round may still visit */

static void run(const char *commands)
{
	char cmd[1024];

	snprintf(cmd, sizeof(cmd), "cd %s && { %s; }", tmp, commands);
	if (system(cmd)) {
		printf("not ok command: %s\n", cmd);
		exit(1);
	}
}

static void make_image(const char *options)
{
	char cmd[256];
	struct stat st;

	run("rm -rf r && mkdir -p r/a/b/c r/many && printf x > r/a/f && ln r/a/f r/a/b/g");
	run("seq 1 5000 > r/a/big && ln -s ../f r/a/b/l && for i in $(seq 200); do : > r/many/$i; "
	    "done");
	run("setfattr -n user.x -v 1 r/a/f 2>/dev/null || :");
	snprintf(cmd, sizeof(cmd), "mkfs.erofs %s img r >/dev/null 2>&1", options);
	run(cmd);
	snprintf(cmd, sizeof(cmd), "%s/img", tmp);
	image_fd = open(cmd, O_RDWR | O_CLOEXEC);
	if (image_fd < 0 || fstat(image_fd, &st)) {
		printf("not ok image\n");
		exit(1);
	}
	image_size = PAGE_ALIGN_UP((size_t)st.st_size);
	CHECK_EQ("image size", ftruncate(image_fd, (off_t)image_size), 0);
	CHECK_EQ("image", physmem_add_file(image_fd, image_size, &image_gpa), 0);
}

static void visit_file(const char *name)
{
	static char buf[65536];
	struct file *f = xopen(&env, name, O_RDWR);
	size_t n = 16;
	gpa_t gpa;

	if (IS_ERR(f))
		return;
	file_read_kernel(f, buf, sizeof(buf), 0);
	if (f->inode->mops) {
		mutex_lock(&f->inode->mapping.lock);
		if (!f->inode->mops->get_pages(f->inode, 0, false, &gpa, &n)) {
			volatile char *p = phys_ptr(gpa);

			for (size_t i = 0; i < n; i++)
				(void)p[i * PAGE_SIZE];
			if (phys_is_ram(gpa))
				frame_put_range(gpa, n);
		}
		mutex_unlock(&f->inode->mapping.lock);
	}
	file_write_kernel(f, "new", 3, 5000);
	file_truncate(CTX, f, 10);
	file_put(f);
}

static void visit(const char *name, int depth)
{
	char child[4096], list[256], value[64];
	struct statx st;
	struct path p;

	if (!budget || depth > 6 || path_lookup(CTX, NULL, name, 0, &p))
		return;
	budget--;
	vfs_getattr(&p, &st);
	vfs_listxattr(CTX, &p, list, sizeof(list));
	vfs_getxattr(CTX, &p, "user.x", value, sizeof(value));
	if (S_ISLNK(st.stx_mode)) {
		char *s = vfs_readlink(CTX, &p);

		if (!IS_ERR(s))
			kfree(s);
	}
	path_put(&p);
	if (S_ISREG(st.stx_mode))
		visit_file(name);
	if (S_ISDIR(st.stx_mode)) {
		struct file *f = xopen(&env, name, O_RDONLY | O_DIRECTORY);
		struct names *n = malloc(sizeof(*n));
		char *save, *w;

		*n = (struct names){.sink.emit = names_emit, .max = 200};
		if (!IS_ERR(f)) {
			file_iterate(CTX, f, &n->sink);
			file_put(f);
		}
		for (w = strtok_r(n->list, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
			snprintf(child, sizeof(child), "%s/%s", depth ? name : "", w);
			visit(child, depth + 1);
		}
		free(n);
		vfs_rmdir(CTX, NULL, name);
	} else {
		vfs_unlink(CTX, NULL, name);
	}
}

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 4;
}

static void fuzz_round(uint32_t seed, const char *good)
{
	uint32_t r = seed * 2654435761u + 1;
	unsigned int n = 1 + next_random(&r) % 8;
	struct super *sb;

	for (unsigned int i = 0; i < n; i++) {
		/* The super block's fields and the inodes and directories behind it, mostly. */
		uint64_t range = next_random(&r) % 4 ? MIN(image_size, (size_t)16384) : image_size;
		uint64_t off = next_random(&r) % 8 ? next_random(&r) % range
						   : 1024 + next_random(&r) % 128;
		unsigned char byte = next_random(&r) % 3 ? (unsigned char)next_random(&r) : 0xff;

		if (pwrite(image_fd, &byte, 1, (off_t)off) != 1)
			exit(1);
	}
	sb = rootfs_mount(image_gpa, image_size);
	if (!IS_ERR(sb)) {
		env_open_super(&env, sb);
		budget = 400;
		visit("/", 0);
		env_close(&env);
	}
	if (pwrite(image_fd, good, image_size, 0) != (ssize_t)image_size)
		exit(1);
}

int main(int argc, char **argv)
{
	unsigned int rounds = argc > 1 ? (unsigned int)atoi(argv[1]) : 300;
	unsigned int seed = argc > 2 ? (unsigned int)atoi(argv[2]) : 1;
	struct live before;
	char *good;

	if (system("command -v mkfs.erofs >/dev/null 2>&1")) {
		printf("ok image fuzz # SKIP no mkfs.erofs\n");
		return 0;
	}
	if (!mkdtemp(tmp))
		return 1;
	vfs_start();
	for (int layout = 0; layout < 3; layout++) {
		static const char *const options[] = {"-Enoinline_data", "", "--chunksize=4096"};

		make_image(options[layout]);
		good = malloc(image_size);
		if (pread(image_fd, good, image_size, 0) != (ssize_t)image_size)
			return 1;
		fuzz_round(0, good);
		before = live_now();
		for (unsigned int i = 0; i < rounds; i++)
			fuzz_round(seed + i, good);
		before.bytes += 1 << 20; /* frames in other runs */
		check_live("nothing left", &before);
		free(good);
		close(image_fd);
	}
	run("cd / && rm -rf $OLDPWD");
	return failures != 0;
}
