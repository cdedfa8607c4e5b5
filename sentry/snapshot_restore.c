/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restoring: a process that has done nothing yet becomes the sandbox of an image. Kernel state and,
 * where the platform's guest uses this process's mappings, guest memory are mapped and copied only
 * when they are written to. Stubs map a function's image in the places of frames that nobody has
 * written to (physmem_frozen.h); what a file holds is copied for them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/vdso.h"
#include "sentry/fastcall.h"
#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfd.h"
#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"
#include "sentry/objects.h"
#include "sentry/snapshot.h"
#include "sentry/snapshot_file.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"
#include "vfs/rootfs.h"

/* Where an image is: a memory file, mapped as a whole (IMAGE_VIEW); or a file (snapshot_file.h). */
struct source {
	struct phys_source ram;		  /* first: what physmem hands back */
	const struct snapshot_file *file; /* NULL: the memory file */
	int fd;
};

struct restore {
	struct source source;
	const void *fdt;
	size_t fdt_size;
	struct snapshot_meta meta;
	int root; /* the file of the root file system; -1: to be opened */
	char *why;
	size_t size;
};

static int fail(struct restore *r, int err, const char *what)
{
	snprintf(r->why, r->size, "%s: %s", what, strerror(-err));
	return err;
}

/* ---- the source: bytes of the image [start, end) ---- */

static int source_for_data(const struct source *s, uint64_t start, uint64_t end,
			   int (*fn)(void *arg, uint64_t offset, size_t len), void *arg)
{
	return s->file ? snapshot_file_for_data(s->file, start, end, fn, arg)
		       : snapshot_for_runs((const void *)(IMAGE_VIEW + IMAGE_RUNS), start, end, fn,
					   arg);
}

static int source_read(const struct source *s, uint64_t start, uint64_t end, void *to)
{
	if (s->file)
		return snapshot_file_read(s->file, start, end, to);
	memcpy(to, (const uint8_t *)IMAGE_VIEW + start, end - start);
	return 0;
}

static int source_map(const struct source *s, uint64_t start, uint64_t end, void *at)
{
	if (s->file)
		return snapshot_file_map(s->file, start, end, at);
	return mmap(at, end - start, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED_NOREPLACE, s->fd,
		    (off_t)start) == MAP_FAILED
		       ? -errno
		       : 0;
}

/* ---- the same for guest memory ---- */

struct ram_data {
	phys_data_fn fn;
	void *arg;
};

static int ram_data(void *arg, uint64_t offset, size_t len)
{
	const struct ram_data *d = arg;

	return d->fn(d->arg, offset - IMAGE_RAM, len);
}

static int ram_for_data(const struct phys_source *s, phys_data_fn fn, void *arg)
{
	struct ram_data d = {fn, arg};

	return source_for_data(container_of(s, struct source, ram), IMAGE_RAM, IMAGE_SIZE, ram_data,
			       &d);
}

static int ram_map(const struct phys_source *s, void *at, gpa_t gpa, size_t len)
{
	return source_map(container_of(s, struct source, ram), IMAGE_RAM + gpa,
			  IMAGE_RAM + gpa + len, at);
}

static int ram_read(const struct phys_source *base, void *to, gpa_t gpa, size_t len)
{
	return source_read(container_of(base, struct source, ram), IMAGE_RAM + gpa,
			   IMAGE_RAM + gpa + len, to);
}

static int kernel_data(void *arg, uint64_t offset, size_t len)
{
	(void)arg;
	snapshot_mark_stored(ARENA_BASE + (offset - IMAGE_KERNEL), len);
	return 0;
}

/* ---- the steps ---- */

static int map_view(struct restore *r)
{
	if (mmap((void *)IMAGE_VIEW, IMAGE_SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED_NOREPLACE, r->source.fd, 0) == MAP_FAILED)
		return fail(r, -errno, "can't map the snapshot");
	r->fdt = (void *)IMAGE_VIEW;
	r->fdt_size = IMAGE_META_SIZE;
	return 0;
}

static int read_statics(struct restore *r)
{
	struct world_piece pieces[2];
	unsigned int n = world_statics(pieces);
	uint64_t at = IMAGE_STATICS, size = 0;
	uint8_t *buf;
	int err;

	for (unsigned int i = 0; i < n; i++)
		size += pieces[i].size;
	size = PAGE_ALIGN_UP(size);
	buf = hmalloc(size);
	err = buf ? source_read(&r->source, at, at + size, buf) : -ENOMEM;
	at = 0;
	for (unsigned int i = 0; i < n && !err; i++) {
		snapshot_copy_statics(pieces[i].start, buf + at, pieces[i].size);
		at += pieces[i].size;
	}
	kfree(buf);
	return err;
}

static int map_kernel(struct restore *r)
{
	int err =
		source_map(&r->source, IMAGE_KERNEL,
			   IMAGE_KERNEL + (physmem_kernel_end() - ARENA_BASE), (void *)ARENA_BASE);

	if (!err)
		err = read_statics(r);
	return err ? fail(r, err, "can't map the kernel's state") : 0;
}

static int map_memory(struct restore *r, const struct platform_type *type)
{
	const void *view = r->source.file ? NULL : (uint8_t *)IMAGE_VIEW + IMAGE_RAM;
	gpa_t base = PHYS_RAM_SIZE - IMAGE_TABLES_MAX;
	int err;

	r->source.ram = (struct phys_source){.share = type->own_memory,
					     .fd = r->source.file ? -1 : r->source.fd,
					     .offset = IMAGE_RAM,
					     .for_data = ram_for_data,
					     .map = ram_map,
					     .read = ram_read};
	err = physmem_restore(&r->source.ram, view, base + r->meta.tables, r->meta.tables_free);
	if (!err)
		err = source_read(&r->source, IMAGE_TABLES, IMAGE_TABLES + r->meta.tables,
				  phys_ptr(base));
	return err ? fail(r, err, "can't make the guest's memory") : 0;
}

static int open_root(struct restore *r)
{
	int fd = r->root >= 0 ? r->root : open(r->meta.root_path, O_RDONLY | O_CLOEXEC), err;
	uint64_t identity[SNAPSHOT_IDENTITY];
	uint8_t hash[SNAPSHOT_ROOT_HASH];
	struct stat st;
	bool same;

	if (fd < 0 || fstat(fd, &st)) {
		snprintf(r->why, r->size, "the image %s, which the snapshot stands on: %s",
			 r->meta.root_path, strerror(errno));
		return -errno;
	}
	if ((uint64_t)st.st_size != r->meta.root_size) {
		snprintf(r->why, r->size,
			 "the image %s, which the snapshot stands on, has %ld bytes instead of %lu",
			 r->meta.root_path, (long)st.st_size, r->meta.root_size);
		return -EINVAL;
	}
	/* A file outlives what was known of it; a function's image is of this boot. */
	snapshot_root_identity(&st, identity);
	same = !r->source.file && !memcmp(identity, r->meta.root_identity, sizeof(identity));
	err = same ? 0 : snapshot_root_hash(fd, hash);
	if (err || (!same && memcmp(hash, r->meta.root_hash, sizeof(hash)))) {
		snprintf(r->why, r->size, "the image %s, which the snapshot stands on, %s",
			 r->meta.root_path,
			 err ? "can't be read" : "has other contents than it had");
		return err ? err : -EINVAL;
	}
	err = physmem_reopen_file(0, fd);
	return err ? fail(r, err, "can't map the image") : 0;
}

/*
 * A pointer in the arena to what is this process's: also in the view, from which the arena is set
 * back. That is a private mapping; the image itself stays as it is.
 */
static __host_state bool has_view;

static void patch_bytes(void *field, const void *value, size_t size)
{
	uintptr_t at = (uintptr_t)field;

	memcpy(field, value, size);
	if (has_view)
		memcpy((uint8_t *)IMAGE_VIEW + IMAGE_KERNEL + (at - ARENA_BASE), value, size);
}

static void patch(void *field, const void *value)
{
	patch_bytes(field, &value, sizeof(value));
}

/* The platform's part of address spaces and tasks. */
static int make_vehicles(struct restore *r, struct platform *p)
{
	struct frozen *f = snapshot_frozen;
	struct kernel *k = f->kernel;
	uint32_t life = k->life + 1;

	patch(&k->platform, p);
	/* Threads that have ended, but are remembered, have nothing here. */
	patch_bytes(&k->life, &life, sizeof(life));
	for (size_t i = 0; i < f->nr_mms; i++) {
		struct mm *mm = f->mms[i];

		struct address_space *as;

		patch(&mm->platform, p);
		patch(&mm->pt.alloc, &p->pt_alloc);
		as = platform_as_create(p, &mm->pt);
		if (IS_ERR(as))
			return fail(r, (int)PTR_ERR(as), "can't make an address space");
		patch(&mm->as, as);
	}
	for (size_t i = 0; i < f->nr_tasks; i++) {
		struct context *ctx = platform_ctx_create(p);

		if (IS_ERR(ctx))
			return fail(r, (int)PTR_ERR(ctx), "can't make a context");
		patch(&f->tasks[i].task->ctx, ctx);
		patch_bytes(&f->tasks[i].task->ctx_life, &life, sizeof(life));
	}
	return 0;
}

/* CLOCK_MONOTONIC, which programs have seen, goes back with the host's next boot. */
static int check_boot(struct restore *r)
{
	char id[SNAPSHOT_BOOT_ID];
	int err = snapshot_boot_id(id);

	if (err)
		return fail(r, err, "can't tell which boot of the host this is");
	if (!strcmp(id, r->meta.boot_id))
		return 0;
	snprintf(r->why, r->size,
		 "made on another host, or before this one was booted: its programs' clocks would "
		 "go "
		 "back");
	return -EINVAL;
}

/* What was prepared. */
static __host_state struct platform *prepared;

/* 0 or -errno. */
static int prepare(const char *name, char *why, size_t size)
{
	struct restore r = {.why = why, .size = size};
	const struct platform_type *type = platform_find(name, why, size);
	struct platform_config pc = {0};
	int err;

	if (!type)
		return -ENODEV;
	err = arena_init_host();
	if (!err)
		err = physmem_restore_prepare(type->own_memory);
	if (err)
		return fail(&r, err, "can't make the memory");
	err = type->create(&pc, &prepared);
	if (!err && type->ready)
		err = type->ready(prepared);
	return err ? fail(&r, err, "can't start the platform") : 0;
}

const struct platform_type *snapshot_restore_prepare(const char *name, char *why, size_t size)
{
	struct restore r = {.why = why, .size = size};
	char id[SNAPSHOT_BOOT_ID];
	int err;

	if (prepare(name, why, size))
		return NULL;
	/* What the host has to be asked can be asked now. */
	vdso_restore_prepare();
	err = snapshot_boot_id(id) ?: snapshot_prepare_track();
	if (!err)
		return prepared->type;
	fail(&r, err, "can't prepare to restore");
	return NULL;
}

/* From an image to a kernel with a platform. */
static int restore(struct restore *r, const char *platform, struct kernel **out)
{
	int err;

	err = snapshot_meta_parse(r->fdt, r->fdt_size, &r->meta, r->why, r->size);
	if (!err)
		err = check_boot(r);
	if (err)
		return err;
	if (!platform)
		platform = r->meta.platform;
	if (prepared && strcmp(prepared->type->name, platform)) {
		snprintf(r->why, r->size, "prepared for %s, and this snapshot is for %s",
			 prepared->type->name, platform);
		return -EINVAL;
	}
	err = prepared ? 0 : prepare(platform, r->why, r->size);
	if (err)
		return err;
	err = map_kernel(r) ?: map_memory(r, prepared->type) ?: open_root(r);
	if (err)
		return err;
	err = snapshot_take_root(&r->meta) ?: r->source.file ? 0 : snapshot_prepare_track();
	if (!err && !r->source.file)
		err = source_for_data(&r->source, IMAGE_KERNEL, IMAGE_KERNEL + IMAGE_KERNEL_MAX,
				      kernel_data, NULL);
	if (err)
		return fail(r, err, "can't prepare to save the sandbox again");
	err = physmem_announce();
	if (err)
		return fail(r, err, "can't give the guest its memory");
	err = make_vehicles(r, prepared);
	if (err)
		return err;
	the_kernel = *out = snapshot_frozen->kernel;
	vdso_restored();
	return 0;
}

int snapshot_restore(int fd, int root, const char *platform, struct kernel **out, char *why,
		     size_t size)
{
	struct restore r = {.source.fd = fd, .root = root, .why = why, .size = size};

	has_view = true;
	return map_view(&r) ?: restore(&r, platform, out);
}

/* ---- an ordinary sandbox ---- */

/* @stdio in the places of init's. */
static int put_stdio(struct restore *r, const int stdio[3])
{
	for (int i = 0; i < 3; i++) {
		struct hostfile *file = snapshot_frozen->stdio[i].file;
		int index = r->meta.stdio[i], fd, err;

		if (!index)
			continue;
		fd = fcntl(stdio[i], F_DUPFD_CLOEXEC, 3);
		err = fd < 0 ? -errno : hostfd_put_at(index, fd);
		if (!err) {
			hostfd_set_use(index, HOSTFD_STDIO);
			err = hostfile_reopened(file);
		}
		if (err)
			return fail(r, err, "can't pass standard input or output");
	}
	return 0;
}

int snapshot_restore_file(const struct snapshot_file *file, const char *platform,
			  const int stdio[3], struct kernel **out, char *why, size_t size)
{
	struct restore r = {.source.file = file,
			    .source.fd = file->fd,
			    .root = -1,
			    .fdt = file->fdt,
			    .fdt_size = file->fdt_size,
			    .why = why,
			    .size = size};
	int err;

	err = restore(&r, platform, out);
	if (err)
		return err;
	/* Where it was traced to is not here. */
	(*out)->strace.enabled = false;
	return put_stdio(&r, stdio);
}

int snapshot_start(struct kernel *k)
{
	struct frozen *f = snapshot_frozen;
	int err;

	for (size_t i = 0; i < f->nr_tasks; i++) {
		struct task *t = f->tasks[i].task;

		/* Its host threads are new. */
		t->host_tid = 0;
		t->utime_ns = f->tasks[i].utime_ns;
		t->stime_ns = f->tasks[i].stime_ns;
	}
	snapshot_load_contexts(f);
	ktimer_resync();
	err = snapshot_resume(k, NULL);
	if (err)
		return err;
	snapshot_frozen = NULL;
	snapshot_frozen_free(f);
	return 0;
}
