/* SPDX-License-Identifier: Apache-2.0 */
/* See physmem_frozen.h. All state here is the host process's. */
#include "sentry/lib/physmem_frozen.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "sentry/lib/hostio.h"
#include "sentry/lib/log.h"
#include "sentry/lib/page.h"
#include "sentry/lib/physmem_internal.h"

#define MAX_HOT	   4096 /* frames: setting more back costs more than their faults would */
#define KEEP_TAKEN 1024 /* frames handed out since that stay resident, zeroed */
#define LOOK	   512u /* frames per look at residency */

struct frame_list {
	uint32_t *v;
	size_t n, cap;
};

struct taken {
	uint32_t frame, n;
};

bool physmem_tracking;

static struct {
	const uint8_t *view;
	uint32_t extent;    /* frames */
	uint64_t *used;	    /* bit per frame below extent: had a reference */
	uint64_t *stored;   /* its contents are in the image; else it was zero */
	uint64_t *checked;  /* see the header; cleared for skipped ones */
	uint64_t *hot_bits; /* is in hot */
	struct frame_list check_stored, check_zero, hot;
	uint32_t skipped;
	pthread_mutex_t lock; /* taken, written */
	struct taken *taken;
	size_t nr_taken, cap_taken;
	struct frame_list written, zeroed;
} fz = {.lock = PTHREAD_MUTEX_INITIALIZER};

/*
 * Of a restored sandbox whose memory is private over a file: what shows there when the process
 * gives its own page up, and what the host may have to read first. For good, whatever is frozen
 * later.
 */
static struct {
	uint64_t *map; /* bit per frame below extent */
	uint32_t extent;
} beneath;

static bool bit(const uint64_t *map, uint32_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static void bit_set(uint64_t *map, uint32_t i)
{
	map[i / 64] |= 1ULL << (i % 64);
}

static void bit_clear(uint64_t *map, uint32_t i)
{
	map[i / 64] &= ~(1ULL << (i % 64));
}

static void *frame_ptr(uint32_t frame)
{
	return phys_ptr((gpa_t)frame << PAGE_SHIFT);
}

static const void *frame_image(uint32_t frame)
{
	return fz.view + ((uint64_t)frame << PAGE_SHIFT);
}

static bool list_add_frame(struct frame_list *l, uint32_t frame)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 256;
		uint32_t *v = hrealloc(l->v, cap * sizeof(*v));

		if (!v)
			return false;
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = frame;
	return true;
}

gpa_t physmem_extent(void)
{
	return physmem->next;
}

void physmem_tables(gpa_t *from, gpa_t *to)
{
	*from = TABLES_BASE;
	*to = tables.next;
}

gpa_t physmem_tables_free(void)
{
	return tables.free;
}

void physmem_kernel_regions(struct phys_region r[PHYS_KERNEL_REGIONS])
{
	size_t n = physmem->next >> PAGE_SHIFT;

	/* A block's buddy is looked at, which may be further on. */
	n += EXTENT_MAX;
	r[0] = (struct phys_region){REFS_BASE, REFS_BASE + n * sizeof(*refs)};
	r[1] = (struct phys_region){LINKS_BASE, LINKS_BASE + n * sizeof(*links)};
	r[2] = (struct phys_region){KEPT_BASE, KEPT_BASE + n / 8};
	for (int i = 0; i < PHYS_KERNEL_REGIONS; i++) {
		r[i].start = PAGE_ALIGN_DOWN(r[i].start);
		r[i].end = PAGE_ALIGN_UP(r[i].end);
	}
}

uintptr_t physmem_kernel_end(void)
{
	return PAGE_ALIGN_UP(KEPT_BASE + NR_FRAMES / 8);
}

/* Is there something in the file that private memory is mapped from? */
static bool is_beneath(uint32_t frame)
{
	return frame < beneath.extent && bit(beneath.map, frame);
}

/* Has the host put out anything of anybody's? */
static bool host_swaps(void)
{
	struct sysinfo si;

	return !sysinfo(&si) && si.freeswap != si.totalswap;
}

void physmem_incore_or_swapped(gpa_t gpa, size_t n, unsigned char *vec)
{
	off_t at = (off_t)gpa, end = (off_t)(gpa + n * PAGE_SIZE), data, hole;

	/* Private memory has no file to ask; to read it costs nothing where there is nothing. */
	memset(vec, phys_host.fd < 0, n);
	while (phys_host.fd >= 0 && at < end) {
		data = lseek(phys_host.fd, at, SEEK_DATA);
		if (data < 0 || data >= end)
			break;
		hole = MIN(lseek(phys_host.fd, data, SEEK_HOLE), end);
		memset(vec + (data - (off_t)gpa) / (off_t)PAGE_SIZE, 1,
		       (size_t)(hole - data) / PAGE_SIZE);
		at = hole;
	}
	for (size_t i = 0; phys_lent.map && i < n; i++)
		vec[i] |= phys_is_lent(gpa + i * PAGE_SIZE);
}

void physmem_incore(gpa_t gpa, size_t n, unsigned char *vec)
{
	uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT);

	if (host_swaps())
		physmem_incore_or_swapped(gpa, n, vec);
	else if (mincore(phys_ptr(gpa), n * PAGE_SIZE, vec))
		memset(vec, 1, n);
	for (size_t i = 0; beneath.map && i < n; i++)
		vec[i] |= is_beneath(frame + (uint32_t)i);
}

void physmem_punch(gpa_t gpa, size_t n)
{
	if (phys_host.fd >= 0) {
		fallocate(phys_host.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gpa,
			  (off_t)(n * PAGE_SIZE));
		return;
	}
	/* Private over an image, which would show again. */
	for (size_t i = 0; i < n; i++) {
		uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT) + (uint32_t)i;

		if (is_beneath(frame))
			memset(frame_ptr(frame), 0, PAGE_SIZE);
		else
			madvise(frame_ptr(frame), PAGE_SIZE, MADV_DONTNEED);
	}
}

/* ---- freezing ---- */

static void forget(void)
{
	physmem_tracking = false;
	kfree(fz.used);
	kfree(fz.stored);
	kfree(fz.checked);
	kfree(fz.hot_bits);
	fz.used = fz.stored = fz.checked = fz.hot_bits = NULL;
	fz.check_stored.n = fz.check_zero.n = fz.hot.n = fz.written.n = fz.zeroed.n = 0;
	fz.nr_taken = 0;
	fz.extent = 0;
}

/*
 * Writes the frames among @n from @frame that are used, not zero and not among @omit; those are
 * marked in @stored. Either may be NULL.
 */
static int store(int fd, uint64_t offset, uint32_t frame, uint32_t n, const unsigned char *vec,
		 const uint64_t *omit, uint64_t *stored)
{
	uint32_t i, run;
	int err = 0;

	for (i = 0; i < n && !err; i += run) {
		run = 0;
		while (i + run < n && (vec[i + run] & 1) &&
		       atomic_load_explicit(&refs[frame + i + run], memory_order_relaxed) &&
		       !(omit && bit(omit, frame + i + run)) &&
		       !page_is_zero(frame_ptr(frame + i + run))) {
			if (stored)
				bit_set(stored, frame + i + run);
			run++;
		}
		if (run)
			err = pwrite_all(fd, frame_ptr(frame + i), run * PAGE_SIZE,
					 offset + ((uint64_t)(frame + i) << PAGE_SHIFT));
		else
			run = 1;
	}
	return err;
}

/* All frames in use are to be checked, until somebody knows better. */
static int begin(const void *view)
{
	uint32_t extent = (uint32_t)(physmem->next >> PAGE_SHIFT);
	size_t words = extent / 64 + 1;

	forget();
	fz.used = hcalloc(words, 8);
	fz.stored = hcalloc(words, 8);
	fz.checked = hcalloc(words, 8);
	fz.hot_bits = hcalloc(words, 8);
	if (!fz.used || !fz.stored || !fz.checked || !fz.hot_bits) {
		forget();
		return -ENOMEM;
	}
	fz.view = view;
	fz.extent = extent;
	for (uint32_t f = 0; f < extent; f++) {
		if (atomic_load_explicit(&refs[f], memory_order_relaxed)) {
			bit_set(fz.used, f);
			bit_set(fz.checked, f);
		}
	}
	return 0;
}

static int store_all(int fd, uint64_t offset, const uint64_t *omit, uint64_t *stored)
{
	uint32_t extent = (uint32_t)(physmem->next >> PAGE_SHIFT);
	unsigned char vec[LOOK];
	int err = 0;

	for (uint32_t f = 0; f < extent && !err; f += LOOK) {
		uint32_t n = MIN(LOOK, extent - f);

		/* To read a hole would fill it. */
		physmem_incore((gpa_t)f << PAGE_SHIFT, n, vec);
		err = store(fd, offset, f, n, vec, omit, stored);
	}
	return err;
}

int physmem_store(int fd, uint64_t offset, const uint64_t *omit)
{
	return store_all(fd, offset, omit, NULL);
}

int physmem_freeze(int fd, uint64_t offset, const void *view)
{
	int err = begin(view);

	if (!err)
		err = store_all(fd, offset, NULL, fz.stored);
	if (err)
		forget();
	return err;
}

/* ---- restoring ---- */

static int take_stored(void *arg, gpa_t gpa, size_t len)
{
	const struct phys_source *s = arg;

	for (size_t off = 0; off < len; off += PAGE_SIZE) {
		uint32_t frame = (uint32_t)((gpa + off) >> PAGE_SHIFT);

		if (frame >= fz.extent)
			return -EINVAL;
		bit_set(fz.stored, frame);
		if (beneath.map)
			bit_set(beneath.map, frame);
	}
	return s->share || s->fd >= 0 ? 0 : s->read(s, phys_ptr(gpa), gpa, len);
}

int physmem_restore_prepare(bool share)
{
	int err = 0;

	phys_host = (struct phys_host){.fd = -1, .statm = -1};
	if (share) {
		phys_host.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
		if (phys_host.statm < 0)
			return -errno;
	} else {
		err = physmem_open_file();
	}
	return err ? err : physmem_open_tables();
}

/*
 * Memory that is the source's until it is written to. What was never used isn't the source's at
 * all: a hole in a memory file that somebody writes to through a private mapping is filled first,
 * for all who have the file.
 */
static int map_shared(const struct phys_source *s)
{
	uint32_t extent = (uint32_t)(physmem->next >> PAGE_SHIFT);
	gpa_t end = physmem->next;
	int err;

	beneath.map = hcalloc(extent / 64 + 1, 8);
	if (!beneath.map)
		return -ENOMEM;
	beneath.extent = extent;
	err = s->map(s, (void *)VIEW_BASE, 0, end);
	if (err)
		return err;
	return mmap((void *)(VIEW_BASE + end), TABLES_BASE - end, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
		    0) == MAP_FAILED
		       ? -errno
		       : 0;
}

int physmem_restore(const struct phys_source *s, const void *view, gpa_t tables_end,
		    gpa_t tables_free)
{
	int err = 0;

	if (s->share)
		err = map_shared(s);
	else if (s->fd >= 0)
		err = physmem_lend(s->fd, s->offset);
	if (err)
		return err;
	tables.next = tables_end;
	tables.free = tables_free;
	err = begin(view);
	return err ? err : s->for_data(s, take_stored, (void *)(uintptr_t)s);
}

int physmem_announce(void)
{
	struct physmem_listener *l = phys_host.listener;
	size_t len;

	/* As they would have been announced one by one. */
	while (phys_host.opened < physmem->next) {
		len = phys_host.opened ? phys_host.opened : FIRST_CHUNK;
		if (l && l->add_range(l, phys_host.opened, len))
			return -ENOSPC;
		phys_host.opened += len;
	}
	while (tables.opened < tables.next) {
		len = MAX(tables.opened - TABLES_BASE, FIRST_TABLES);
		if (l && l->add_range(l, tables.opened, len))
			return -ENOSPC;
		tables.opened += len;
	}
	for (size_t i = 0; i < physmem->nr_files; i++) {
		int err = phys_use_range(physmem->files[i].base, physmem->files[i].size);

		if (err)
			return err;
	}
	return 0;
}

int physmem_reopen_file(size_t i, int fd)
{
	const struct phys_file *f = &physmem->files[i];

	if (i >= physmem->nr_files)
		return -EINVAL;
	if (mmap(phys_ptr(f->base), f->size, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) ==
	    MAP_FAILED)
		return -errno;
	phys_host.file_fds[i] = fd;
	return 0;
}

void physmem_frozen_tracked(gpa_t gpa)
{
	if (phys_is_ram(gpa) && gpa >> PAGE_SHIFT < fz.extent)
		bit_clear(fz.checked, (uint32_t)(gpa >> PAGE_SHIFT));
}

bool physmem_is_stored(uint32_t frame)
{
	return frame < fz.extent && bit(fz.stored, frame);
}

void physmem_frozen_skip(gpa_t gpa)
{
	physmem_frozen_tracked(gpa);
	fz.skipped = (uint32_t)(gpa >> PAGE_SHIFT);
}

/* What the sentry writes to it just writes to. */
static int own_checked(void)
{
	uint32_t f, n;
	int err = 0;

	for (f = 0; f < fz.extent && !err; f += n) {
		n = 1;
		if (!bit(fz.checked, f))
			continue;
		while (f + n < fz.extent && bit(fz.checked, f + n))
			n++;
		err = physmem_own((gpa_t)f << PAGE_SHIFT, n);
	}
	return err;
}

int physmem_frozen_ready(void)
{
	bool ok = !phys_lent.map || !own_checked();

	for (uint32_t f = 0; f < fz.extent && ok; f++) {
		if (!fz.checked[f / 64]) {
			f |= 63;
			continue;
		}
		if (bit(fz.checked, f))
			ok = list_add_frame(bit(fz.stored, f) ? &fz.check_stored : &fz.check_zero,
					    f);
	}
	if (!ok) {
		forget();
		return -ENOMEM;
	}
	physmem_tracking = true;
	return 0;
}

/* ---- what happens meanwhile ---- */

void physmem_note_taken(gpa_t gpa, size_t n)
{
	struct taken t = {(uint32_t)(gpa >> PAGE_SHIFT), (uint32_t)n}, *last;

	pthread_mutex_lock(&fz.lock);
	last = fz.nr_taken ? &fz.taken[fz.nr_taken - 1] : NULL;
	if (last && last->frame + last->n == t.frame) {
		last->n += t.n;
	} else {
		if (fz.nr_taken == fz.cap_taken) {
			size_t cap = fz.cap_taken ? fz.cap_taken * 2 : 256;
			struct taken *v = hrealloc(fz.taken, cap * sizeof(*v));

			/* A frame that isn't set back would be another request's secret. */
			BUG_ON(!v);
			fz.taken = v;
			fz.cap_taken = cap;
		}
		fz.taken[fz.nr_taken++] = t;
	}
	pthread_mutex_unlock(&fz.lock);
}

bool physmem_comes_back(gpa_t gpa, size_t n)
{
	uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT), end = frame + (uint32_t)n;

	if (end > fz.extent)
		return false;
	while (frame < end && bit(fz.used, frame))
		frame++;
	return frame == end;
}

void physmem_note_written(gpa_t gpa)
{
	bool ok;

	BUG_ON(phys_is_lent(gpa));
	if (likely(!physmem_tracking) || !phys_is_ram(gpa))
		return;
	pthread_mutex_lock(&fz.lock);
	ok = list_add_frame(&fz.written, (uint32_t)(gpa >> PAGE_SHIFT));
	pthread_mutex_unlock(&fz.lock);
	BUG_ON(!ok);
}

/* ---- setting back ---- */

/* True: it had changed. */
static bool set_back(uint32_t frame)
{
	void *p = frame_ptr(frame);

	if (bit(fz.stored, frame)) {
		if (!memcmp(p, frame_image(frame), PAGE_SIZE))
			return false;
		memcpy(p, frame_image(frame), PAGE_SIZE);
		return true;
	}
	if (page_is_zero(p))
		return false;
	memset(p, 0, PAGE_SIZE);
	return true;
}

bool physmem_set_back(gpa_t gpa)
{
	uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT);

	/* One that was free then is among the taken. */
	return phys_is_ram(gpa) && frame < fz.extent && bit(fz.used, frame) && set_back(frame);
}

bool physmem_make_hot(gpa_t gpa)
{
	uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT);

	if (!phys_is_ram(gpa) || frame >= fz.extent || !bit(fz.used, frame))
		return false;
	if (bit(fz.hot_bits, frame))
		return true;
	if (fz.hot.n == MAX_HOT || !list_add_frame(&fz.hot, frame))
		return false;
	bit_set(fz.hot_bits, frame);
	return true;
}

/* Checked frames that were zero: only those that the host holds can have changed. */
static void set_back_zero(struct physmem_rewound *r)
{
	const struct frame_list *l = &fz.check_zero;
	unsigned char vec[LOOK];
	size_t i, n;

	for (i = 0; i < l->n; i += n) {
		for (n = 1; n < LOOK && i + n < l->n && l->v[i + n] == l->v[i] + n; n++)
			;
		physmem_incore((gpa_t)l->v[i] << PAGE_SHIFT, n, vec);
		for (size_t k = 0; k < n; k++)
			r->copied += (vec[k] & 1) && set_back(l->v[i + k]);
		r->looked += n;
	}
}

/* Frames handed out since: those that were free before are zero again. */
static void zero_taken(const struct taken *t, struct physmem_rewound *r)
{
	unsigned char vec[LOOK];
	uint32_t i, n;

	for (i = 0; i < t->n; i += n) {
		n = MIN(t->n - i, LOOK);
		if (n == 1)
			vec[0] = 1;
		else
			physmem_incore((gpa_t)(t->frame + i) << PAGE_SHIFT, n, vec);
		for (uint32_t k = 0; k < n; k++) {
			uint32_t f = t->frame + i + k;

			if (!(vec[k] & 1))
				continue;
			/*
			 * Freed and handed out again: it may be where it was, with other contents,
			 * and no page table shows it.
			 */
			if (f < fz.extent && bit(fz.used, f)) {
				r->copied += set_back(f);
				continue;
			}
			if (r->zeroed++ < KEEP_TAKEN && list_add_frame(&fz.zeroed, f))
				memset(frame_ptr(f), 0, PAGE_SIZE);
			else
				physmem_punch((gpa_t)f << PAGE_SHIFT, 1);
		}
	}
}

void physmem_rewind(struct physmem_rewound *r)
{
	*r = (struct physmem_rewound){0};
	for (size_t i = 0; i < fz.hot.n; i++)
		r->copied += set_back(fz.hot.v[i]);
	for (size_t i = 0; i < fz.check_stored.n; i++)
		r->copied += set_back(fz.check_stored.v[i]);
	for (size_t i = 0; i < fz.written.n; i++)
		(void)physmem_set_back((gpa_t)fz.written.v[i] << PAGE_SHIFT);
	r->looked = fz.hot.n + fz.check_stored.n;
	set_back_zero(r);
	for (size_t i = 0; i < fz.nr_taken; i++)
		zero_taken(&fz.taken[i], r);
}

size_t physmem_verify(void)
{
	size_t wrong = 0;

	for (uint32_t f = 0; f < fz.extent; f++) {
		unsigned char resident = 0;

		if (!bit(fz.used, f) || f == fz.skipped ||
		    mincore(frame_ptr(f), PAGE_SIZE, &resident) || !(resident & 1))
			continue;
		if (!set_back(f))
			continue;
		log_error("frame %u was not set back", f);
		wrong++;
	}
	return wrong;
}

void physmem_rewind_done(void)
{
	/* What was zeroed is resident and free: see frames_resident. */
	for (size_t i = 0; i < fz.zeroed.n; i++)
		physmem_kept_set(fz.zeroed.v[i]);
	fz.zeroed.n = 0;
	fz.nr_taken = 0;
	fz.written.n = 0;
}
