/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restoring: a process that has done nothing yet becomes the sandbox of an image. Kernel state and,
 * where the platform's guest uses this process's mappings, guest memory are mapped and copied only
 * when they are written to; stubs get a memory file of their own, with the contents copied.
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
#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"
#include "sentry/snapshot.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"

struct restore {
	int fd;
	struct snapshot_meta meta;
	char *why;
	size_t size;
};

static int fail(struct restore *r, int err, const char *what)
{
	snprintf(r->why, r->size, "%s: %s", what, strerror(-err));
	return err;
}

/* Calls @fn with each range of [start, end) of the file that holds data. */
static int for_data(int fd, uint64_t start, uint64_t end,
		    int (*fn)(void *arg, uint64_t offset, size_t len), void *arg)
{
	while (start < end) {
		off_t data = lseek(fd, (off_t)start, SEEK_DATA), hole;
		int err;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		if ((uint64_t)data >= end)
			return 0;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		err = fn(arg, (uint64_t)data, MIN((uint64_t)hole, end) - (uint64_t)data);
		if (err)
			return err;
		start = (uint64_t)hole;
	}
	return 0;
}

/* ---- guest memory ---- */

static __host_state int ram_fd;
static __host_state phys_data_fn ram_fn;

static int ram_data(void *arg, uint64_t offset, size_t len)
{
	return ram_fn(arg, offset - IMAGE_RAM, len);
}

static int for_ram_data(phys_data_fn fn, void *arg)
{
	ram_fn = fn;
	return for_data(ram_fd, IMAGE_RAM, IMAGE_SIZE, ram_data, arg);
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
		 MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED_NOREPLACE, r->fd, 0) == MAP_FAILED)
		return fail(r, -errno, "can't map the snapshot");
	return snapshot_meta_parse((void *)IMAGE_VIEW, IMAGE_META_SIZE, &r->meta, r->why, r->size);
}

static int map_kernel(struct restore *r)
{
	if (mmap((void *)ARENA_BASE, physmem_kernel_end() - ARENA_BASE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED_NOREPLACE, r->fd,
		 IMAGE_KERNEL) == MAP_FAILED)
		return fail(r, -errno, "can't map the kernel's state");
	snapshot_statics_restore();
	return 0;
}

static int map_memory(struct restore *r, const struct platform_type *type)
{
	const uint8_t *view = (const uint8_t *)IMAGE_VIEW;
	gpa_t base = PHYS_RAM_SIZE - IMAGE_TABLES_MAX;
	int err;

	ram_fd = r->fd;
	err = physmem_restore(for_ram_data, view + IMAGE_RAM, r->fd, IMAGE_RAM, type->own_memory,
			      base + r->meta.tables, r->meta.tables_free);
	if (err)
		return fail(r, err, "can't make the guest's memory");
	memcpy(phys_ptr(base), view + IMAGE_TABLES, r->meta.tables);
	return 0;
}

static int open_root(struct restore *r)
{
	int fd = open(r->meta.root_path, O_RDONLY | O_CLOEXEC), err;
	struct stat st;

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
	err = physmem_reopen_file(0, fd);
	return err ? fail(r, err, "can't map the image") : 0;
}

/*
 * A pointer in the arena to what is this process's: also in the view, from which the arena is set
 * back. That is a private mapping; the image itself stays as it is.
 */
static void patch(void *field, const void *value)
{
	uintptr_t at = (uintptr_t)field;

	memcpy(field, &value, sizeof(value));
	memcpy((uint8_t *)IMAGE_VIEW + IMAGE_KERNEL + (at - ARENA_BASE), &value, sizeof(value));
}

/* The platform's part of address spaces and tasks. */
static int make_vehicles(struct restore *r, struct platform *p)
{
	struct frozen *f = snapshot_frozen;
	struct kernel *k = f->kernel;

	patch(&k->platform, p);
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
	}
	return 0;
}

/* What was prepared. */
static __host_state struct platform *prepared;

int snapshot_restore_prepare(const char *name, char *why, size_t size)
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

int snapshot_restore(int fd, const char *platform, struct kernel **out, char *why, size_t size)
{
	struct restore r = {.fd = fd, .why = why, .size = size};
	const struct platform_type *type;
	int err;

	err = map_view(&r);
	if (err)
		return err;
	if (!platform)
		platform = r.meta.platform;
	if (prepared && strcmp(prepared->type->name, platform)) {
		snprintf(why, size, "prepared for %s, and this snapshot is for %s",
			 prepared->type->name, platform);
		return -EINVAL;
	}
	err = prepared ? 0 : snapshot_restore_prepare(platform, why, size);
	if (err)
		return err;
	type = prepared->type;
	err = map_kernel(&r) ?: map_memory(&r, type) ?: open_root(&r);
	if (err)
		return err;
	err = snapshot_prepare();
	if (!err)
		err = for_data(fd, IMAGE_KERNEL, IMAGE_KERNEL + IMAGE_KERNEL_MAX, kernel_data,
			       NULL);
	if (err)
		return fail(&r, err, "can't prepare to set the sandbox back");
	err = physmem_announce();
	if (err)
		return fail(&r, err, "can't give the guest its memory");
	err = make_vehicles(&r, prepared);
	if (err)
		return err;
	the_kernel = *out = snapshot_frozen->kernel;
	vdso_restored();
	return 0;
}
