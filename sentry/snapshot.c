/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot.h. */
#include "sentry/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
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

static __host_state struct {
	int fd;	     /* the image; 0: there is none */
	int pagemap; /* of this process; 0: not opened */
	struct snapshot_root root;
	bool no_scan;
	uint64_t *stored; /* bit per page from ARENA_BASE: it is in the image, the rest was zero */
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

int snapshot_prepare_track(void)
{
	if (!snap.pagemap) {
		int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return -errno;
		snap.pagemap = fd;
	}
	if (!snap.stored)
		snap.stored = hcalloc((physmem_kernel_end() - ARENA_BASE) / PAGE_SIZE / 64 + 1, 8);
	return snap.stored ? 0 : -ENOMEM;
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

#define NR_REGIONS (1 + PHYS_KERNEL_REGIONS)

static void kernel_regions(struct phys_region r[NR_REGIONS])
{
	r[0] = (struct phys_region){ARENA_BASE, ARENA_BASE + arena_extent()};
	physmem_kernel_regions(&r[1]);
}

static const uint8_t *kernel_view(uintptr_t addr)
{
	return (const uint8_t *)IMAGE_VIEW + IMAGE_KERNEL + (addr - ARENA_BASE);
}

static size_t kernel_page(uintptr_t addr)
{
	return (addr - ARENA_BASE) / PAGE_SIZE;
}

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
		if (snap.stored)
			snapshot_mark_stored(at, end - at);
		err = pwrite_all(fd, (void *)at, end - at, IMAGE_KERNEL + (at - ARENA_BASE));
		at = end;
	}
	return err;
}

int snapshot_store_kernel(int fd)
{
	struct phys_region r[NR_REGIONS];
	gpa_t from, to;
	int err = 0;

	if (snap.stored)
		memset(snap.stored, 0, (physmem_kernel_end() - ARENA_BASE) / PAGE_SIZE / 8 + 8);
	kernel_regions(r);
	for (int i = 0; i < NR_REGIONS && !err; i++)
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

/* A page that is no longer the image's: true if it had changed. */
static bool restore_page(uintptr_t at)
{
	void *page = (void *)at;

	if (!(snap.stored[kernel_page(at) / 64] >> (kernel_page(at) % 64) & 1)) {
		if (page_is_zero(page))
			return false;
		memset(page, 0, PAGE_SIZE);
		return true;
	}
	if (!memcmp(page, kernel_view(at), PAGE_SIZE))
		return false;
	memcpy(page, kernel_view(at), PAGE_SIZE);
	return true;
}

/* Linux 6.7: <linux/fs.h> of Debian 12 doesn't have it. */
#define PAGEMAP_SCAN_IOCTL 0xc0606610UL
#define PM_IS_FILE	   4UL
#define PM_IS_PRESENT	   8UL
#define PM_IS_SWAPPED	   16UL
struct pm_region {
	uint64_t start, end, categories;
};
struct pm_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
		category_mask, category_anyof_mask, return_mask;
};
_Static_assert(sizeof(struct pm_scan) == 0x60, "as the kernel has it");

/* By one host call for many pages. -errno: it can't be done so. */
static long restore_scan(const struct phys_region *r, size_t *restored)
{
	struct pm_region found[64];
	struct pm_scan scan = {
		.size = sizeof(scan),
		.start = r->start,
		.end = r->end,
		.vec = (uintptr_t)found,
		.vec_len = ARRAY_SIZE(found),
		.category_inverted = PM_IS_FILE,
		.category_mask = PM_IS_FILE,
		.category_anyof_mask = PM_IS_PRESENT | PM_IS_SWAPPED,
		.return_mask = PM_IS_PRESENT,
	};

	while (scan.start < r->end) {
		long n = ioctl(snap.pagemap, PAGEMAP_SCAN_IOCTL, &scan);

		if (n < 0)
			return -errno;
		for (long i = 0; i < n; i++) {
			for (uintptr_t at = found[i].start; at < found[i].end; at += PAGE_SIZE)
				*restored += restore_page(at);
		}
		scan.start = scan.walk_end;
	}
	return 0;
}

/* By /proc/self/pagemap: bit 61 says that a page is the file's, 63 that it is there. */
static int restore_read(const struct phys_region *r, size_t *restored)
{
	uint64_t entries[512];
	size_t n;

	for (uintptr_t at = r->start; at < r->end; at += n * PAGE_SIZE) {
		ssize_t got;

		n = MIN(ARRAY_SIZE(entries), (r->end - at) / PAGE_SIZE);
		got = pread(snap.pagemap, entries, n * 8, (off_t)(at / PAGE_SIZE * 8));
		if (got != (ssize_t)(n * 8))
			return got < 0 ? -errno : -EIO;
		for (size_t i = 0; i < n; i++) {
			if (entries[i] >> 62 && !(entries[i] >> 61 & 1))
				*restored += restore_page(at + i * PAGE_SIZE);
		}
	}
	return 0;
}

static int restore_kernel(const struct phys_region r[NR_REGIONS], size_t *restored)
{
	int err = 0;

	for (int i = 0; i < NR_REGIONS && !err; i++) {
		if (!snap.no_scan && restore_scan(&r[i], restored))
			snap.no_scan = true;
		if (snap.no_scan)
			err = restore_read(&r[i], restored);
	}
	snapshot_statics_restore();
	return err;
}

#ifdef LOCK_DEBUG
/* How many pages are not what the image says, whatever the host thinks of them. */
static size_t kernel_verify(const struct phys_region r[NR_REGIONS])
{
	size_t wrong = 0;

	for (int i = 0; i < NR_REGIONS; i++) {
		for (uintptr_t at = r[i].start; at < r[i].end; at += PAGE_SIZE) {
			if (!restore_page(at))
				continue;
			log_error("page %#lx of kernel state was not set back", at);
			wrong++;
		}
	}
	return wrong;
}
#endif

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

/*
 * From here on what the kernel changes is this process's own, and the host knows which pages. The
 * contents are the same.
 */
static int map_kernel(int fd)
{
	void *p =
		mmap((void *)ARENA_BASE, physmem_kernel_end() - ARENA_BASE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, IMAGE_KERNEL);

	return p == MAP_FAILED ? -errno : 0;
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
		err = map_kernel(fd);
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

void snapshot_mark_stored(uintptr_t start, size_t len)
{
	for (uintptr_t at = start; at < start + len; at += PAGE_SIZE)
		snap.stored[kernel_page(at) / 64] |= 1UL << (kernel_page(at) % 64);
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

int snapshot_resume(struct kernel *k)
{
	const struct frozen *f = snapshot_frozen;

	for (size_t i = 0; i < f->nr_tasks; i++) {
		if (task_resume(f->tasks[i].task))
			return -EAGAIN;
	}
	return 0;
}

int snapshot_rewind(struct kernel *k, struct snapshot_rewound *r)
{
	struct phys_region regions[NR_REGIONS];
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
	kernel_regions(regions);
	err = restore_kernel(regions, &r->kernel_pages);
#ifdef LOCK_DEBUG
	/* The builds for tests look at everything. */
	BUG_ON(physmem_verify() || kernel_verify(regions));
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
