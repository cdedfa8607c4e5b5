/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot.h. */
#include "sentry/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/vdso.h"
#include "sentry/fastcall.h"
#include "sentry/freezer.h"
#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/hostfd.h"
#include "sentry/lib/hostio.h"
#include "sentry/lib/page.h"
#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"
#include "sentry/mm/frozen.h"
#include "sentry/objects.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"

#define FREEZE_MS 5000 /* for tasks to come to their safe point */

struct frozen *snapshot_frozen;

static __host_large struct {
	int fd; /* the image; 0: there is none */
	struct snapshot_root root;
	struct mm_frozen **mms;
	size_t nr_mms;
} snap;

bool snapshot_exists(void)
{
	return snap.fd > 0;
}

int snapshot_image(void)
{
	return snap.fd;
}

int snapshot_prepare(void)
{
	return snapshot_prepare_track() ?: snapshot_prepare_save();
}

int snapshot_prepare_save(void)
{
	char link[32];
	struct stat st;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", physmem_file_fd());
	n = readlink(link, snap.root.path, sizeof(snap.root.path) - 1);
	if (n < 0 || fstat(physmem_file_fd(), &st))
		return -errno;
	snap.root.path[n] = 0;
	snap.root.size = (uint64_t)st.st_size;
	snapshot_root_identity(&st, snap.root.identity);
	return snapshot_boot_id(snap.root.boot_id);
}

int snapshot_take_root(const struct snapshot_meta *m)
{
	if (snprintf(snap.root.path, sizeof(snap.root.path), "%s", m->root_path) >=
	    (int)sizeof(snap.root.path))
		return -ENAMETOOLONG;
	snap.root.size = m->root_size;
	memcpy(snap.root.identity, m->root_identity, sizeof(snap.root.identity));
	return snapshot_boot_id(snap.root.boot_id);
}

/* ---- kernel state: the arena, and behind it the frame allocator's tables ---- */

/*
 * Static variables as bytes, whatever lies between them: with the sanitizers, that is what nobody
 * may touch.
 */
void snapshot_copy_statics(void *to, const void *from, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
}

static int store_statics(int fd)
{
	struct world_piece pieces[2];
	unsigned int n = world_statics(pieces);
	uint64_t offset = IMAGE_STATICS;
	int err = 0;

	for (unsigned int i = 0; i < n && !err; i++) {
		void *copy = hmalloc(pieces[i].size);

		if (!copy)
			return -ENOMEM;
		snapshot_copy_statics(copy, pieces[i].start, pieces[i].size);
		err = pwrite_all(fd, copy, pieces[i].size, offset);
		offset += pieces[i].size;
		kfree(copy);
	}
	return err;
}

/* Writes what isn't zero of a region, by runs. */
static int store_region(int fd, const struct phys_region *r)
{
	uintptr_t at = r->start, end;
	int err = 0;

	while (at < r->end && !err) {
		if (page_is_zero((void *)at)) {
			at += PAGE_SIZE;
			continue;
		}
		for (end = at; end < r->end && !page_is_zero((void *)end); end += PAGE_SIZE)
			;
		snapshot_mark_stored(at, end - at);
		err = pwrite_all(fd, (void *)at, end - at, IMAGE_KERNEL + (at - ARENA_BASE));
		at = end;
	}
	return err;
}

int snapshot_store_kernel(int fd)
{
	struct phys_region r[SNAPSHOT_REGIONS];
	gpa_t from, to;
	int err = 0;

	snapshot_mark_none();
	snapshot_kernel_regions(r);
	for (int i = 0; i < SNAPSHOT_REGIONS && !err; i++)
		err = store_region(fd, &r[i]);
	if (!err)
		err = store_statics(fd);
	physmem_tables(&from, &to);
	if (!err)
		err = pwrite_all(fd, phys_ptr(from), to - from, IMAGE_TABLES);
	return err;
}

void snapshot_statics_restore(void)
{
	const uint8_t *view = (const uint8_t *)IMAGE_VIEW + IMAGE_STATICS;
	struct world_piece pieces[2];
	unsigned int n = world_statics(pieces);

	for (unsigned int i = 0; i < n; i++) {
		snapshot_copy_statics(pieces[i].start, view, pieces[i].size);
		view += pieces[i].size;
	}
}

/* ---- tasks ---- */

/* Tasks that live, into @out if that isn't NULL. Returns how many. */
static size_t live_tasks(struct kernel *k, struct task **out)
{
	struct pid *pid;
	size_t n = 0;

	for (uint64_t nr = 1; (pid = pid_next_locked(k->root_pid_ns, &nr)); nr++) {
		struct task *t = pid->task;

		if (!t || t->exiting || !t->mm)
			continue;
		if (out)
			out[n] = t;
		n++;
	}
	return n;
}

void snapshot_frozen_free(struct frozen *f)
{
	for (size_t i = 0; i < f->nr_tasks; i++) {
		kfree(f->tasks[i].block);
		if (f->tasks[i].task)
			task_put(f->tasks[i].task);
	}
	for (size_t i = 0; i < f->nr_mms; i++)
		mm_put(f->mms[i]);
	kfree(f->tasks);
	kfree(f->mms);
	kfree(f);
}

static void add_mm(struct frozen *f, struct mm *mm)
{
	for (size_t i = 0; i < f->nr_mms; i++) {
		if (f->mms[i] == mm)
			return;
	}
	f->mms[f->nr_mms++] = mm_get(mm);
}

static int add_task(struct frozen *f, struct task *t)
{
	struct frozen_task *ft = &f->tasks[f->nr_tasks++];

	ft->task = task_get(t);
	ft->block = kzalloc(arch_fpu_size() + 64);
	ft->fpu = (void *)ALIGN_UP((uintptr_t)ft->block, (uintptr_t)64);
	add_mm(f, t->mm);
	return ft->block ? 0 : -ENOMEM;
}

/* The table of contents, with references that keep all of it from ending. ERR_PTR. */
struct frozen *snapshot_frozen_alloc(struct kernel *k)
{
	size_t n = live_tasks(k, NULL);
	struct task **tasks = hcalloc(n + 1, sizeof(*tasks));
	struct frozen *f = kzalloc(sizeof(*f));
	int err = -ENOMEM;

	if (!f || !tasks)
		goto out_free;
	f->kernel = k;
	f->tasks = kcalloc(n + 1, sizeof(*f->tasks));
	f->mms = kcalloc(n + 1, sizeof(*f->mms));
	err = f->tasks && f->mms ? 0 : -ENOMEM;
	live_tasks(k, tasks);
	for (size_t i = 0; i < n && !err; i++)
		err = add_task(f, tasks[i]);
	if (err)
		goto out_frozen;
	kfree(tasks);
	return f;

out_frozen:
	snapshot_frozen_free(f);
	kfree(tasks);
	return ERR_PTR(err);
out_free:
	kfree(f);
	kfree(tasks);
	return ERR_PTR(err);
}

void snapshot_save_contexts(struct frozen *f)
{
	const struct platform_type *pt = f->kernel->platform->type;

	for (size_t i = 0; i < f->nr_tasks; i++) {
		struct frozen_task *ft = &f->tasks[i];

		pt->ctx_get_bases(ft->task->ctx, &ft->fs_base, &ft->gs_base);
		pt->ctx_get_fpu(ft->task->ctx, ft->fpu);
		task_times(ft->task, &ft->utime_ns, &ft->stime_ns);
	}
}

void snapshot_load_contexts(const struct frozen *f)
{
	const struct platform_type *pt = f->kernel->platform->type;

	for (size_t i = 0; i < f->nr_tasks; i++) {
		const struct frozen_task *ft = &f->tasks[i];

		pt->ctx_set_bases(ft->task->ctx, ft->fs_base, ft->gs_base);
		pt->ctx_set_fpu(ft->task->ctx, ft->fpu);
		if (ft->task->fast.box && poller_enabled)
			poller_add(ft->task);
	}
}

/* ---- freezing ---- */

static void forget_records(void)
{
	for (size_t i = 0; i < snap.nr_mms; i++)
		mm_frozen_free(snap.mms[i]);
	kfree(snap.mms);
	snap.mms = NULL;
	snap.nr_mms = 0;
}

/* How each address space is set back. What is the sentry's and not the sandbox's is left out. */
static int make_records(struct frozen *f)
{
	forget_records();
	snap.mms = hcalloc(f->nr_mms + 1, sizeof(*snap.mms));
	if (!snap.mms)
		return -ENOMEM;
	for (size_t i = 0; i < f->nr_mms; i++) {
		snap.mms[i] = mm_freeze(f->mms[i]);
		if (!snap.mms[i])
			return -ENOMEM;
		snap.nr_mms++;
	}
	physmem_frozen_skip(vdso_clock_frame());
	return physmem_frozen_ready();
}

int snapshot_memfd(void)
{
	int fd = memfd_create("kvmsbox-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING), err;

	if (fd >= 0 && !ftruncate(fd, IMAGE_SIZE))
		return fd;
	err = -errno;
	if (fd >= 0)
		close(fd);
	return err;
}

static int make_image(void)
{
	int fd = snapshot_memfd(), err;

	if (fd < 0)
		return fd;
	/* Replaces the view of an earlier image. */
	if (mmap((void *)IMAGE_VIEW, IMAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED,
		 fd, 0) == MAP_FAILED) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int snapshot_store_meta(int fd, const struct frozen *f)
{
	void *fdt = hzalloc(IMAGE_META_SIZE);
	int err = -ENOMEM;

	if (fdt)
		err = snapshot_root_hash(physmem_file_fd(), snap.root.hash);
	if (!err)
		err = snapshot_meta_build(fdt, IMAGE_META_SIZE, f, &snap.root);
	if (!err)
		err = pwrite_all(fd, fdt, IMAGE_META_SIZE, 0);
	kfree(fdt);
	return err;
}

int snapshot_seal(int fd)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
		       ? -errno
		       : 0;
}

/* All tasks are discarded, the world held. */
static int freeze_held(struct kernel *k, bool again)
{
	struct frozen *f = snapshot_frozen;
	int fd, err;

	if (!f) {
		f = snapshot_frozen_alloc(k);
		if (IS_ERR(f))
			return (int)PTR_ERR(f);
		snapshot_save_contexts(f);
		snapshot_frozen = f;
	}
	fd = make_image();
	if (fd < 0)
		return fd;
	for (size_t i = 0; i < f->nr_mms && !again; i++) {
		mm_wipe(f->mms[i]);
		mm_freeze_protect(f->mms[i]);
	}
	/* First: it reads command lines. */
	err = snapshot_store_meta(fd, f);
	if (!err)
		err = physmem_freeze(fd, IMAGE_RAM, (const uint8_t *)IMAGE_VIEW + IMAGE_RAM);
	if (!err)
		err = snapshot_store_kernel(fd);
	if (!err)
		err = snapshot_map_kernel(fd);
	if (!err)
		err = make_records(f);
	if (!err)
		err = snapshot_store_runs(fd);
	if (!err)
		err = snapshot_seal(fd);
	if (err) {
		close(fd);
		return err;
	}
	if (snap.fd)
		close(snap.fd);
	snap.fd = fd;
	hostfd_freeze();
	platform_freeze(k->platform);
	return 0;
}

int snapshot_freeze(struct kernel *k, char *why, size_t size)
{
	bool again = snapshot_exists();
	int err;

	if (!again) {
		err = freezer_stop(k, false, FREEZE_MS);
		if (err) {
			snprintf(why, size, "a task doesn't come to rest: %s", strerror(-err));
			return err;
		}
		freezer_discard();
	}
	world_hold();
	poller_forget();
	err = freeze_held(k, again);
	if (!err)
		snapshot_load_contexts(snapshot_frozen);
	world_release();
	if (err)
		snprintf(why, size, "can't freeze the sandbox: %s", strerror(-err));
	return err;
}

int snapshot_adopt(struct kernel *k, int fd)
{
	struct frozen *f = snapshot_frozen;
	int err;

	/* No entry lets anybody write to what is lent. */
	for (size_t i = 0; i < f->nr_mms && phys_lent.map; i++)
		mm_freeze_protect(f->mms[i]);
	err = make_records(f);
	if (err)
		return err;
	snap.fd = fd;
	hostfd_freeze();
	platform_freeze(k->platform);
	snapshot_load_contexts(snapshot_frozen);
	ktimer_resync();
	return 0;
}

int snapshot_resume(struct kernel *k, struct task **here)
{
	const struct frozen *f = snapshot_frozen;

	if (here)
		*here = f->tasks[0].task;
	for (size_t i = here ? 1 : 0; i < f->nr_tasks; i++) {
		if (task_resume(f->tasks[i].task))
			return -EAGAIN;
	}
	return 0;
}

int snapshot_rewind(struct kernel *k, struct snapshot_rewound *r)
{
	struct physmem_rewound frames;
	int err;

	*r = (struct snapshot_rewound){0};
	err = freezer_stop(k, true, FREEZE_MS);
	if (err)
		return err;
	freezer_discard();
	world_hold();
	poller_forget();
	platform_rewind(k->platform);
	hostfd_rewind();
	for (size_t i = 0; i < snap.nr_mms; i++)
		r->entries += mm_rewind(snap.mms[i]);
	physmem_rewind(&frames);
	r->frames = frames.copied;
	r->looked = frames.looked;
	r->zeroed = frames.zeroed;
	err = snapshot_restore_kernel(&r->kernel_pages);
	snapshot_statics_restore();
#ifdef LOCK_DEBUG
	/* The builds for tests look at everything. */
	BUG_ON(physmem_verify() || snapshot_verify_kernel());
#endif
	physmem_rewind_done();
	snapshot_load_contexts(snapshot_frozen);
	world_release();
	ktimer_resync();
	return err;
}

void snapshot_train(void)
{
	mm_train(true);
}

long snapshot_learn(struct kernel *k)
{
	const struct frozen *f = snapshot_frozen;
	size_t n = mm_train_replay(f->mms, f->nr_mms);
	char why[160];
	int err;

	if (!n)
		return 0;
	err = snapshot_freeze(k, why, sizeof(why));
	return err ? err : (long)n;
}
