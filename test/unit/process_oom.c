/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Process creation with everything that can fail failing in turn: the marked steps, every
 * allocation, every frame, the platform. It says so, and every count is back where it was.
 */
#include "loader/image.h"
#include "vfs/rootfs.h"
#include "test/unit/process_support.h"

static struct world w;

/* What is created: a variety of pieces that failures must undo. */
struct scenario {
	const char *name;
	void (*fill)(struct create_process_args *a);
};

static struct file *open_exe, *tty_master, *tty_slave;
static struct pid_ns *child_ns;
static struct rlimit limits[RLIM_NLIMITS];

static void fill_plain(struct create_process_args *a)
{
}

static void fill_script(struct create_process_args *a)
{
	a->filename = "/bin/script";
	a->cwd = "/bin/cwd";
	a->cred = w.user;
}

/* A namespace ends with its init: each try has one of its own. */
static void fill_rich(struct create_process_args *a)
{
	fill_script(a);
	a->tty = tty_of_file(tty_slave);
	a->pid_ns = child_ns = pid_ns_alloc(w.k, w.k->root_pid_ns);
	a->limits = limits;
}

static void fill_file(struct create_process_args *a)
{
	a->file = open_exe;
	a->argv = NULL;
	a->envp = NULL;
}

/* The mount namespace is the running init's. */
static void fill_exec(struct create_process_args *a)
{
	mnt_ns_put(a->mnt_ns);
	a->mnt_ns = NULL;
	a->cwd = "work";
}

static const struct scenario scenarios[] = {
	{"plain", fill_plain},
	{"script", fill_script},
	{"terminal, namespace, limits", fill_rich},
	{"open file", fill_file},
	{"second command", fill_exec},
};

/* A kind of failure: makes the n-th of it happen, and tells how far away it still was. */
struct injector {
	const char *name;
	long (*fail_at)(long n);
	int want;	  /* the errno, 0: -ENOMEM or -EAGAIN */
	bool may_succeed; /* some failures are got along with */
};

static long step_fail_at(long n)
{
	return atomic_exchange(&kernel_fail_step, (int)n);
}

static const struct injector injectors[] = {
	{"step", step_fail_at, 0, false},
	{"allocation", arena_fail_at, -ENOMEM, true},
	{"frame", frame_fail_at, -ENOMEM, true},
};

/* Creates, with the @n-th of @in failing. *@reached: it did. What was created is ended again. */
static int try_create(const struct scenario *s, const struct injector *in, long n, char error[512],
		      bool *reached)
{
	struct create_process_args a = world_args(&w);
	struct thread_group *tg = NULL;
	int err;

	s->fill(&a);
	in->fail_at(n);
	err = kernel_create_process(w.k, &a, &tg);
	*reached = in->fail_at(0) <= 0;
	memcpy(error, a.error, sizeof(a.error));
	if (!err)
		drop_process(&w, tg);
	pid_ns_put(child_ns);
	child_ns = NULL;
	return err;
}

static int create_well(const struct scenario *s)
{
	char error[512];
	bool reached;

	return try_create(s, &injectors[0], 0, error, &reached);
}

static void inject(const struct scenario *s, const struct injector *in)
{
	struct counts before;
	int failed = 0, got_along = 0;
	bool clean = true, named = true, right = true;
	char error[512], name[128];
	long n;

	/* Once for what stays: caches of names, pools. */
	create_well(s);
	before = counts_now(&w);
	for (n = 1; n < 2000; n++) {
		bool reached;
		int err;

		err = try_create(s, in, n, error, &reached);
		if (!counts_same(&w, &before)) {
			printf("# after %s %ld of %s failed (%d)\n", in->name, n, s->name, err);
			clean = false;
			before = counts_now(&w);
		}
		if (err && !error[0])
			named = false;
		if (err && err != in->want && (in->want || (err != -ENOMEM && err != -EAGAIN))) {
			printf("# %s %ld of %s: %d, %s\n", in->name, n, s->name, err, error);
			right = false;
		}
		failed += err != 0;
		got_along += reached && !err;
		if (!reached)
			break;
	}
	snprintf(name, sizeof(name), "%s: %s by %s fails (%d of %ld)", s->name, in->name, in->name,
		 failed, n - 1);
	CHECK(name, failed > 0);
	snprintf(name, sizeof(name), "%s: every %s leaves all counts as they were", s->name,
		 in->name);
	CHECK(name, clean);
	snprintf(name, sizeof(name), "%s: every failed %s says what failed", s->name, in->name);
	CHECK(name, named);
	snprintf(name, sizeof(name), "%s: every failed %s gives its errno", s->name, in->name);
	CHECK(name, right);
	snprintf(name, sizeof(name), "%s: no failed %s is overlooked (%d)", s->name, in->name,
		 got_along);
	CHECK(name, in->may_succeed || !got_along);
	snprintf(name, sizeof(name), "%s: %s: succeeds in the end", s->name, in->name);
	CHECK_EQ(name, create_well(s), 0);
}

static void platform_fails(const struct scenario *s)
{
	struct counts before = counts_now(&w);
	char name[128];

	snprintf(name, sizeof(name), "%s: no address space", s->name);
	fake.fail_space = true;
	CHECK_EQ(name, create_well(s), -ENOMEM);
	CHECK_COUNTS(name, &w, &before);
	snprintf(name, sizeof(name), "%s: no context", s->name);
	fake.fail_context = true;
	CHECK_EQ(name, create_well(s), -EAGAIN);
	CHECK_COUNTS(name, &w, &before);
}

static void run_scenarios(void)
{
	struct create_process_args a = world_args(&w);

	xmount(&w, "devpts", NULL, "/dev/pts");
	w.init = xcreate(&w, &a);
	open_exe = xopen(&w.env, "/bin/dynamic", O_RDONLY);
	memcpy(limits, kernel_default_limits, sizeof(limits));
	limits[RLIMIT_CPU] = (struct rlimit){100, 200};
	CHECK_EQ("a terminal", tty_create_console(w.k, w.env.ns, &tty_master, &tty_slave), 0);
	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(injectors); j++)
			inject(&scenarios[i], &injectors[j]);
		platform_fails(&scenarios[i]);
	}
	file_put(tty_slave);
	file_put(tty_master);
	file_put(open_exe);
}

static void test_tmpfs(void)
{
	world_open(&w);
	run_scenarios();
	world_close(&w);
}

/* ---- the same from an image that the importer made ---- */

static char tmp[] = "/tmp/process_oom_XXXXXX";
static gpa_t image_gpa;
static size_t image_size;

static void write_host(const char *name, const void *bytes, size_t n, mode_t mode)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/r/%s", tmp, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes, n) != (ssize_t)n || fchmod(fd, mode)) {
		printf("not ok can't write %s\n", path);
		exit(1);
	}
	close(fd);
}

static void make_image(void)
{
	struct image_options options = {.quiet = true};
	struct image_error error;
	struct image image;
	char cmd[512], path[256], cache[256];
	struct prog p;

	if (!mkdtemp(tmp))
		exit(1);
	snprintf(cmd, sizeof(cmd),
		 "cd %s && mkdir -p r/bin r/sbin r/lib r/work/sub r/dev/pts r/mnt cache && "
		 "ln -s ../work/sub r/bin/cwd",
		 tmp);
	if (system(cmd))
		exit(1);
	prog_init(&p, ET_EXEC);
	write_host("bin/prog", p.bytes, p.size, 0755);
	prog_init(&p, ET_DYN);
	write_host("lib/ld.so", p.bytes, p.size, 0755);
	prog_set_interp(&p, "/lib/ld.so");
	write_host("bin/dynamic", p.bytes, p.size, 0755);
	write_host("bin/script", "#!/bin/dynamic arg\n", 19, 0755);
	snprintf(cmd, sizeof(cmd), "cd %s && tar -cf image.tar -C r .", tmp);
	if (system(cmd))
		exit(1);
	snprintf(path, sizeof(path), "%s/image.tar", tmp);
	snprintf(cache, sizeof(cache), "%s/cache", tmp);
	options.cache_dir = cache;
	image_importer = image_import;
	if (image_open(path, &options, &image, &error)) {
		printf("not ok import: %s\n", error.message);
		exit(1);
	}
	image_size = image.size;
	/* The descriptor stays open: frames of it are mapped from there. */
	if (physmem_add_file(image.fd, image_size, &image_gpa))
		exit(1);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", tmp);
	if (system(cmd))
		exit(1);
}

static void test_image(void)
{
	struct super *sb = rootfs_mount(image_gpa, image_size);

	if (IS_ERR(sb)) {
		CHECK("the image mounts", false);
		return;
	}
	world_open_on(&w, sb);
	run_scenarios();
	world_close(&w);
}

/*
 * With nothing of the file system in any cache: looking names up and reading the image fails, too.
 * What has been found stays until the world ends; then everything must have gone.
 */
static void test_cold(void)
{
	struct live before = live_now(), after;
	bool clean = true, right = true, reached = true;
	char error[512];
	int failed = 0;

	for (long n = 1; reached && n < 2000; n++) {
		int err;

		world_open_on(&w, rootfs_mount(image_gpa, image_size));
		err = try_create(&scenarios[1], &injectors[1], n, error, &reached);
		failed += err != 0;
		if (err && err != -ENOMEM) {
			printf("# cold allocation %ld: %d, %s\n", n, err, error);
			right = false;
		}
		world_close(&w);
		after = live_now();
		if (memcmp(after.n, before.n, sizeof(before.n)) || after.bytes != before.bytes) {
			check_live("cold: nothing is left", &before);
			printf("# after allocation %ld (%d): %zu bytes, were %zu\n", n, err,
			       after.bytes, before.bytes);
			clean = false;
			before = after;
		}
	}
	printf("# %d cold allocations failed\n", failed);
	CHECK("cold: allocations fail, more than with everything in caches", failed > 46);
	CHECK("cold: with ENOMEM", right);
	CHECK("cold: nothing is left", clean);
}

static void tests(void)
{
	if (!image_size)
		make_image();
	test_tmpfs();
	test_image();
	test_cold();
}

int main(void)
{
	return process_test_main(tests);
}
