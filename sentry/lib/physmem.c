/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest physical memory: a sparse memory file and its frames.
 *
 * Frames are handed out in three ways, from cheapest to dearest: from a small stack of freed frames
 * that are still resident (zeroed by hand), from free extents (read as zero), and from space never
 * used before. What is resident of a freed extent is zeroed and kept if there is room for it, else
 * given back to the host. The room is little at first and grows by what is given back and then
 * asked for again, so that processes that are born and die cost the host no memory any more. Space
 * is opened in chunks that double in size, each announced to the listener (KVM makes a memory slot
 * of it).
 *
 * Free extents are a buddy system: aligned blocks of 2^0 … 2^9 frames, joined with their buddies
 * when both are free. What links them lies in a sparse table of its own: the frames are not
 * resident.
 *
 * All state is in the arena's neighbourhood: the reference counts and links in fixed sparse regions
 * right behind the arena, the rest in the arena.
 */
#include "sentry/lib/physmem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sentry/lib/log.h"
#include "sentry/lib/page.h"
#include "sentry/lib/physmem_internal.h"
#include "sentry/lib/world.h"

__kernel_state struct physmem *physmem;
struct phys_host phys_host = {.fd = -1};
struct phys_tables tables;

int physmem_open_file(void)
{
	int err;

	phys_host.fd = memfd_create("kvmsbox-ram", MFD_CLOEXEC);
	if (phys_host.fd < 0)
		return -errno;
	if (!ftruncate(phys_host.fd, (off_t)PHYS_RAM_SIZE) &&
	    mmap((void *)VIEW_BASE, TABLES_BASE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, phys_host.fd, 0) != MAP_FAILED)
		return 0;
	err = -errno;
	close(phys_host.fd);
	phys_host.fd = -1;
	return err;
}

/* Memory of this process at @start, zero, resident once it is touched. 0 or -errno. */
static int map_sparse(uintptr_t start, size_t size)
{
	return mmap((void *)start, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
		    0) == MAP_FAILED
		       ? -errno
		       : 0;
}

int physmem_open_tables(void)
{
	mutex_init(&tables.lock, LOCK_PHYSMEM);
	tables.next = tables.opened = TABLES_BASE;
	tables.free = GPA_NONE;
	return map_sparse(VIEW_BASE + TABLES_BASE, TABLES_SIZE);
}

int physmem_init(size_t limit)
{
	struct physmem *pm = kzalloc(sizeof(*pm));
	int err;

	if (!pm)
		return -ENOMEM;
	err = physmem_open_file();
	if (err)
		goto out_pm;
	err = physmem_open_tables();
	if (!err)
		err = map_sparse(REFS_BASE,
				 NR_FRAMES * (sizeof(*refs) + sizeof(*links)) + NR_FRAMES / 8);
	if (err)
		goto out_fd;
	mutex_init(&pm->lock, LOCK_PHYSMEM);
	pm->limit = limit;
	pm->keep = KEPT_MIN;
	pm->next = PAGE_SIZE;
	pm->next_file = PHYS_FILE_BASE;
	physmem = pm;
	return 0;

out_fd:
	close(phys_host.fd);
out_pm:
	kfree(pm);
	return err;
}

void physmem_set_listener(struct physmem_listener *l)
{
	phys_host.listener = l;
	if (l && phys_host.opened && l->add_range(l, 0, phys_host.opened))
		log_error("can't give the guest its first %lu MiB of memory",
			  phys_host.opened >> 20);
	if (l && tables.opened > TABLES_BASE &&
	    l->add_range(l, TABLES_BASE, tables.opened - TABLES_BASE))
		log_error("can't give the guest its page tables");
}

int physmem_add_file(int fd, size_t size, gpa_t *gpa)
{
	struct physmem *pm = physmem;
	struct phys_file *f;
	void *host;

	size = PAGE_ALIGN_UP(size);
	if (pm->nr_files == PHYS_MAX_FILES || size > PHYS_FILE_END - pm->next_file)
		return -ENOSPC;
	host = mmap(phys_ptr(pm->next_file), size, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
		    0);
	if (host == MAP_FAILED)
		return -errno;
	phys_host.file_fds[pm->nr_files] = fd;
	f = &pm->files[pm->nr_files++];
	f->base = pm->next_file;
	f->size = size;
	*gpa = f->base;
	pm->next_file += ALIGN_UP(size, FILE_USE_WINDOW);
	return 0;
}

static const struct phys_file *file_of(gpa_t gpa)
{
	const struct physmem *pm = physmem;

	for (size_t i = 0; i < pm->nr_files; i++) {
		if (gpa - pm->files[i].base < pm->files[i].size)
			return &pm->files[i];
	}
	return NULL;
}

int phys_use_range(gpa_t gpa, size_t len)
{
	uint64_t first, last;

	if (gpa < PHYS_FILE_BASE || !phys_host.listener || !len)
		return 0;
	first = (gpa - PHYS_FILE_BASE) / FILE_USE_WINDOW;
	last = (gpa + len - 1 - PHYS_FILE_BASE) / FILE_USE_WINDOW;
	for (uint64_t w = first; w <= last; w++) {
		uint64_t bit = 1ULL << (w % 64), *word = &phys_host.file_windows[w / 64];
		gpa_t start = PHYS_FILE_BASE + w * FILE_USE_WINDOW;
		const struct phys_file *f = file_of(MAX(start, gpa));
		int err;

		if (__atomic_load_n(word, __ATOMIC_ACQUIRE) & bit)
			continue;
		if (!f)
			return -EINVAL;
		err = phys_host.listener->add_range(
			phys_host.listener, start, MIN(FILE_USE_WINDOW, f->base + f->size - start));
		if (err)
			return err;
		__atomic_fetch_or(word, bit, __ATOMIC_RELEASE);
	}
	return 0;
}

int physmem_file_fd(void)
{
	return physmem && physmem->nr_files ? phys_host.file_fds[0] : -1;
}

int physmem_fd(void)
{
	return phys_host.fd;
}

void *phys_ptr(gpa_t gpa)
{
	return (uint8_t *)VIEW_BASE + gpa;
}

void phys_backing(gpa_t gpa, int *fd, uint64_t *offset)
{
	const struct phys_file *f;

	if (gpa < PHYS_RAM_SIZE) {
		*fd = phys_host.fd;
		*offset = gpa;
		return;
	}
	f = file_of(gpa);
	BUG_ON(!f);
	*fd = phys_host.file_fds[f - physmem->files];
	*offset = gpa - f->base;
}

/* ---- free extents ---- */

static unsigned int order_of(size_t n)
{
	unsigned int order = 0;

	while ((1UL << order) < n)
		order++;
	return order;
}

static void block_push(struct physmem *pm, uint32_t frame, unsigned int order)
{
	links[frame] = (struct free_link){.next = pm->free[order], .size = order + 1};
	if (pm->free[order])
		links[pm->free[order]].prev = frame;
	pm->free[order] = frame;
}

static void block_remove(struct physmem *pm, uint32_t frame)
{
	struct free_link *l = &links[frame];

	if (l->prev)
		links[l->prev].next = l->next;
	else
		pm->free[l->size - 1] = (uint32_t)l->next;
	if (l->next)
		links[l->next].prev = l->prev;
	*l = (struct free_link){0};
}

/* Frees a block, together with its buddy if that is free as well, and so on. */
static void block_free(struct physmem *pm, uint32_t frame, unsigned int order)
{
	while (order < NR_ORDERS - 1) {
		uint32_t buddy = frame ^ (1u << order);

		if (links[buddy].size != order + 1)
			break;
		block_remove(pm, buddy);
		frame &= ~(1u << order);
		order++;
	}
	block_push(pm, frame, order);
}

/* Puts [gpa, gpa+n frames), which reads as zero, on the lists in aligned power-of-two pieces. */
static void free_extent_locked(struct physmem *pm, gpa_t gpa, size_t n)
{
	uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT);

	while (n) {
		unsigned int order = NR_ORDERS - 1;

		while ((1UL << order) > n || frame & ((1u << order) - 1))
			order--;
		block_free(pm, frame, order);
		frame += 1u << order;
		n -= 1UL << order;
	}
}

/* Makes sure that space below @end is announced. Returns false when there is no more. */
static bool open_space(struct physmem *pm, gpa_t end)
{
	while (phys_host.opened < end) {
		size_t len = phys_host.opened ? phys_host.opened : FIRST_CHUNK;

		len = MIN(len, TABLES_BASE - phys_host.opened);
		if (!len)
			return false;
		if (phys_host.listener &&
		    phys_host.listener->add_range(phys_host.listener, phys_host.opened, len))
			return false;
		phys_host.opened += len;
	}
	return true;
}

/* 2^order frames, aligned, reading as zero. */
static gpa_t take_extent_locked(struct physmem *pm, unsigned int order)
{
	size_t bytes = PAGE_SIZE << order;
	unsigned int o;
	gpa_t gpa;

	for (o = order; o < NR_ORDERS; o++) {
		uint32_t frame = pm->free[o];

		if (!frame)
			continue;
		block_remove(pm, frame);
		gpa = (gpa_t)frame << PAGE_SHIFT;
		free_extent_locked(pm, gpa + bytes, (1UL << o) - (1UL << order));
		return gpa;
	}
	gpa = ALIGN_UP(pm->next, bytes);
	if (gpa + bytes > TABLES_BASE || !open_space(pm, gpa + bytes))
		return GPA_NONE;
	free_extent_locked(pm, pm->next, (gpa - pm->next) >> PAGE_SHIFT);
	pm->next = gpa + bytes;
	return gpa;
}

void physmem_kept_set(uint32_t frame)
{
	if (kept[frame / 64] & 1ULL << (frame % 64))
		return;
	kept[frame / 64] |= 1ULL << (frame % 64);
	physmem->nr_kept++;
}

/* How many bits @n frames from @gpa have; clears them on the way if so asked. */
static size_t kept_count(gpa_t gpa, size_t n, bool clear)
{
	uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT), end = frame + (uint32_t)n;
	size_t count = 0;

	while (frame < end) {
		uint32_t next = MIN((frame / 64 + 1) * 64, end);
		uint64_t mask = ~0ULL << (frame % 64);

		if (next % 64)
			mask &= ~(~0ULL << (next % 64));
		count += (size_t)__builtin_popcountll(kept[frame / 64] & mask);
		if (clear)
			kept[frame / 64] &= ~mask;
		frame = next;
	}
	return count;
}

/* How much the room for kept frames may grow to. */
static size_t most_kept(const struct physmem *pm)
{
	size_t most = KEPT_MAX;

	if (pm->limit)
		most = MIN(most, pm->limit / PAGE_SIZE / KEPT_OF_LIMIT);
	return MAX(most, KEPT_MIN);
}

/* @n frames from @gpa are no longer free. */
static void kept_taken(struct physmem *pm, gpa_t gpa, size_t n, bool clear)
{
	size_t had = pm->nr_kept ? kept_count(gpa, n, clear) : 0, missed;

	pm->nr_kept -= had;
	pm->turns++;
	missed = MIN(n - had, pm->given);
	if (!missed || !phys_host.tell)
		return;
	pm->given -= missed;
	pm->keep = MIN(pm->keep + missed, most_kept(pm));
}

static _Atomic long fail_at;

long frame_fail_at(long n)
{
	return atomic_exchange(&fail_at, n);
}

/* Is it this call's turn to fail? One load unless a test asked for it. */
static bool fails_now(void)
{
	return unlikely(fail_at > 0) && atomic_fetch_sub(&fail_at, 1) == 1;
}

/* Frames that were taken, and for which the host has no memory. */
static void unused(struct physmem *pm, gpa_t gpa, size_t n)
{
	mutex_lock(&pm->lock);
	free_extent_locked(pm, gpa, n);
	mutex_unlock(&pm->lock);
}

static gpa_t alloc_one(bool zero)
{
	struct physmem *pm = physmem;
	gpa_t gpa;
	bool warm;

	if (fails_now())
		return GPA_NONE;
	mutex_lock(&pm->lock);
	warm = pm->nr_warm;
	gpa = warm ? pm->warm[--pm->nr_warm] : take_extent_locked(pm, 0);
	if (!warm && gpa != GPA_NONE)
		kept_taken(pm, gpa, 1, true);
	mutex_unlock(&pm->lock);
	if (gpa == GPA_NONE)
		return gpa;
	if (unlikely(phys_is_lent(gpa)) && physmem_own_new(gpa, 1)) {
		unused(pm, gpa, 1);
		return GPA_NONE;
	}
	if (unlikely(physmem_tracking))
		physmem_note_taken(gpa, 1);
	if (warm && zero)
		memset(phys_ptr(gpa), 0, PAGE_SIZE);
	atomic_store_explicit(&refs[gpa >> PAGE_SHIFT], 1, memory_order_release);
	atomic_fetch_add_explicit(&pm->frames, 1, memory_order_relaxed);
	return gpa;
}

gpa_t frame_alloc(void)
{
	return alloc_one(true);
}

gpa_t frame_alloc_dirty(void)
{
	return alloc_one(false);
}

gpa_t frame_alloc_extent(size_t n)
{
	struct physmem *pm = physmem;
	unsigned int order;
	gpa_t gpa;

	if (!n || n > EXTENT_MAX || fails_now())
		return GPA_NONE;
	order = order_of(n);
	mutex_lock(&pm->lock);
	gpa = take_extent_locked(pm, order);
	if (gpa != GPA_NONE) {
		free_extent_locked(pm, gpa + n * PAGE_SIZE, (1UL << order) - n);
		kept_taken(pm, gpa, n, false);
	}
	mutex_unlock(&pm->lock);
	if (gpa == GPA_NONE)
		return gpa;
	if (unlikely(phys_lent.map) && physmem_own_new(gpa, n)) {
		unused(pm, gpa, n);
		return GPA_NONE;
	}
	if (unlikely(physmem_tracking))
		physmem_note_taken(gpa, n);
	for (size_t i = 0; i < n; i++)
		atomic_store_explicit(&refs[(gpa >> PAGE_SHIFT) + i], 1, memory_order_release);
	atomic_fetch_add_explicit(&pm->frames, n, memory_order_relaxed);
	return gpa;
}

gpa_t table_alloc(void)
{
	struct physmem_listener *l = phys_host.listener;
	gpa_t gpa;

	if (fails_now())
		return GPA_NONE;
	mutex_lock(&tables.lock);
	gpa = tables.free;
	if (gpa != GPA_NONE) {
		uint64_t *t = phys_ptr(gpa);

		tables.free = *t;
		mutex_unlock(&tables.lock);
		memset(t, 0, PAGE_SIZE);
		return gpa;
	}
	if (tables.next == tables.opened) {
		size_t len = MAX(tables.opened - TABLES_BASE, FIRST_TABLES);

		if (tables.opened == PHYS_RAM_SIZE || (l && l->add_range(l, tables.opened, len)))
			goto out_unlock;
		tables.opened += len;
	}
	gpa = tables.next;
	tables.next += PAGE_SIZE;
	/* An address space needs about as many; one call is cheaper than as many page faults. */
	if (!((gpa - TABLES_BASE) % TABLES_BATCH))
		madvise(phys_ptr(gpa), TABLES_BATCH, MADV_POPULATE_WRITE);
out_unlock:
	mutex_unlock(&tables.lock);
	return gpa;
}

void table_free(gpa_t table)
{
	uint64_t *t = phys_ptr(table);

	mutex_lock(&tables.lock);
	*t = tables.free;
	tables.free = table;
	mutex_unlock(&tables.lock);
}

void frame_get(gpa_t gpa)
{
	uint32_t old;

	if (!phys_is_ram(gpa))
		return;
	old = atomic_fetch_add_explicit(&refs[gpa >> PAGE_SHIFT], 1, memory_order_relaxed);
	BUG_ON(old == 0 || old == UINT32_MAX);
}

/* Drops one reference; true when it was the last. */
static bool drop(gpa_t gpa)
{
	uint32_t old = atomic_fetch_sub_explicit(&refs[gpa >> PAGE_SHIFT], 1, memory_order_acq_rel);

	BUG_ON(old == 0);
	return old == 1;
}

/*
 * Which of @n frames from @gpa are to be zeroed before they are kept: in @vec. Few are all taken
 * for resident. Returns how many.
 */
static size_t find_resident(gpa_t gpa, size_t n, unsigned char vec[EXTENT_MAX])
{
	size_t resident = 0;

	if (n <= ZERO_ALL) {
		memset(vec, 1, n);
		return n;
	}
	physmem_incore(gpa, n, vec);
	for (size_t i = 0; i < n; i++) {
		vec[i] &= 1;
		resident += vec[i];
	}
	return resident;
}

/* Zeroes what @vec says. Reading maps them many at a time, a write would each by itself. */
static void zero_resident(gpa_t gpa, size_t n, const unsigned char vec[EXTENT_MAX])
{
	size_t i, run;

	for (i = 0; i < n; i += run) {
		run = 1;
		if (!vec[i])
			continue;
		while (i + run < n && vec[i + run])
			run++;
		if (run > ZERO_ALL)
			madvise(phys_ptr(gpa + i * PAGE_SIZE), run * PAGE_SIZE, MADV_POPULATE_READ);
		memset(phys_ptr(gpa + i * PAGE_SIZE), 0, run * PAGE_SIZE);
	}
}

/* Has the hoard begun just now? pm->lock held. */
static bool hoard_begins(struct physmem *pm)
{
	if (pm->hoards || pm->nr_kept <= KEPT_MIN || !phys_host.tell)
		return false;
	pm->hoards = true;
	return true;
}

/* Gives [gpa, gpa+n frames), EXTENT_MAX at most, to the free lists, and what isn't kept back. */
static void release_extent(gpa_t gpa, size_t n, size_t room)
{
	struct physmem *pm = physmem;
	unsigned char vec[EXTENT_MAX];
	size_t resident = find_resident(gpa, n, vec);
	bool keep = resident <= room, tell;

	if (keep)
		zero_resident(gpa, n, vec);
	else
		physmem_punch(gpa, n);
	mutex_lock(&pm->lock);
	free_extent_locked(pm, gpa, n);
	(void)kept_count(gpa, n, true);
	for (size_t i = 0; keep && i < n; i++) {
		if (vec[i])
			physmem_kept_set((uint32_t)(gpa >> PAGE_SHIFT) + (uint32_t)i);
	}
	if (!keep)
		pm->given = MIN(pm->given + resident, KEPT_MAX);
	pm->turns++;
	tell = hoard_begins(pm);
	mutex_unlock(&pm->lock);
	if (tell)
		phys_host.tell();
}

/* Frames that are lent, @n from @gpa: there is no memory of our own behind them. */
static void release_lent(gpa_t gpa, size_t n)
{
	mutex_lock(&physmem->lock);
	free_extent_locked(physmem, gpa, n);
	mutex_unlock(&physmem->lock);
}

/* How many of @n frames from @gpa may stay resident. */
static size_t room_for(gpa_t gpa, size_t n)
{
	size_t kept_now = __atomic_load_n(&physmem->nr_kept, __ATOMIC_RELAXED);
	size_t keep = __atomic_load_n(&physmem->keep, __ATOMIC_RELAXED);

	/* To be set back soon: the host would have to find memory for them again. */
	if (unlikely(physmem_tracking) && physmem_comes_back(gpa, n))
		return n;
	return keep - MIN(keep, kept_now);
}

/* Gives [gpa, gpa+n frames) to the free lists, and back to the host what isn't kept. */
static void release_run(gpa_t gpa, size_t n)
{
	bool lent = false;
	size_t part;

	atomic_fetch_sub_explicit(&physmem->frames, n, memory_order_relaxed);
	for (; n; n -= part, gpa += part * PAGE_SIZE) {
		part = MIN(n, (size_t)EXTENT_MAX);
		if (unlikely(phys_lent.map))
			part = physmem_lent_run(gpa, part, &lent);
		if (lent)
			release_lent(gpa, part);
		else
			release_extent(gpa, part, room_for(gpa, part));
	}
}

/* Gives back what free frames keep resident. pm->lock held. */
static void give_back_locked(struct physmem *pm)
{
	for (unsigned int order = 0; order < NR_ORDERS && pm->nr_kept; order++) {
		for (uint32_t f = pm->free[order]; f && pm->nr_kept; f = (uint32_t)links[f].next) {
			size_t n = kept_count((gpa_t)f << PAGE_SHIFT, 1UL << order, true);

			pm->nr_kept -= n;
			if (n)
				physmem_punch((gpa_t)f << PAGE_SHIFT, 1UL << order);
		}
	}
	while (pm->nr_warm) {
		gpa_t gpa = pm->warm[--pm->nr_warm];

		physmem_punch(gpa, 1);
		free_extent_locked(pm, gpa, 1);
	}
	pm->keep = KEPT_MIN;
	pm->given = 0;
	pm->hoards = false;
}

void physmem_on_hoard(void (*tell)(void))
{
	phys_host.tell = tell;
}

bool physmem_settle(void)
{
	struct physmem *pm = physmem;
	bool again;

	mutex_lock(&pm->lock);
	again = pm->nr_kept > KEPT_MIN;
	pm->hoards = again;
	if (again && pm->looked == pm->turns) {
		give_back_locked(pm);
		again = false;
	}
	pm->looked = pm->turns;
	mutex_unlock(&pm->lock);
	return again;
}

void frame_put(gpa_t gpa)
{
	struct physmem *pm = physmem;

	if (!phys_is_ram(gpa) || !drop(gpa))
		return;
	mutex_lock(&pm->lock);
	if (pm->nr_warm < WARM_FRAMES) {
		(void)kept_count(gpa, 1, true);
		pm->warm[pm->nr_warm++] = gpa;
		mutex_unlock(&pm->lock);
		atomic_fetch_sub_explicit(&pm->frames, 1, memory_order_relaxed);
		return;
	}
	mutex_unlock(&pm->lock);
	release_run(gpa, 1);
}

void frame_put_range(gpa_t gpa, size_t n)
{
	size_t start = 0, i;

	if (!phys_is_ram(gpa))
		return;
	for (i = 0; i < n; i++) {
		if (drop(gpa + i * PAGE_SIZE))
			continue;
		if (i > start)
			release_run(gpa + start * PAGE_SIZE, i - start);
		start = i + 1;
	}
	if (i > start)
		release_run(gpa + start * PAGE_SIZE, i - start);
}

bool frames_are_warm(gpa_t gpa, size_t n)
{
	bool warm;

	mutex_lock(&physmem->lock);
	warm = kept_count(gpa, n, false) == n;
	mutex_unlock(&physmem->lock);
	return warm;
}

void frames_resident(gpa_t gpa, size_t n, unsigned char *vec)
{
	struct physmem *pm = physmem;

	if (!phys_is_ram(gpa)) {
		memset(vec, 1, n);
		return;
	}
	physmem_incore(gpa, n, vec);
	mutex_lock(&pm->lock);
	for (size_t i = 0; i < n; i++) {
		uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT) + (uint32_t)i;
		uint64_t bit = 1ULL << (frame % 64);

		vec[i] &= 1;
		if (!vec[i] || !(kept[frame / 64] & bit))
			continue;
		if (page_is_zero(phys_ptr(gpa + i * PAGE_SIZE)))
			vec[i] = 0;
		else
			kept[frame / 64] &= ~bit;
	}
	mutex_unlock(&pm->lock);
}

void frames_populate(gpa_t gpa, size_t n)
{
	volatile uint8_t *p = phys_ptr(gpa);

	mutex_lock(&physmem->lock);
	(void)kept_count(gpa, n, true);
	mutex_unlock(&physmem->lock);
	if (!madvise(phys_ptr(gpa), n * PAGE_SIZE, MADV_POPULATE_WRITE))
		return;
	for (size_t i = 0; i < n; i++)
		(void)p[i * PAGE_SIZE];
}

void frames_copy(gpa_t to, const gpa_t *from, size_t n)
{
	struct iovec iov[64];
	uint64_t offset;
	int fd;

	while (n) {
		size_t k = MIN(n, ARRAY_SIZE(iov)), done;
		ssize_t written;

		for (size_t i = 0; i < k; i++)
			iov[i] = (struct iovec){phys_ptr(from[i]), PAGE_SIZE};
		phys_backing(to, &fd, &offset);
		written = pwritev(fd, iov, (int)k, (off_t)offset);
		/* Out of memory, most likely: let the fault say so. */
		done = written < 0 ? 0 : (size_t)written / PAGE_SIZE;
		for (size_t i = done; i < k; i++)
			memcpy(phys_ptr(to + i * PAGE_SIZE), phys_ptr(from[i]), PAGE_SIZE);
		to += k * PAGE_SIZE;
		from += k;
		n -= k;
	}
}

uint32_t frame_refs(gpa_t gpa)
{
	return phys_is_ram(gpa) ? atomic_load(&refs[gpa >> PAGE_SHIFT]) : 0;
}

/* What this process has that isn't shared with the image or others: the arenas are little. */
static uint64_t private_resident(void)
{
	unsigned long size, resident, shared;
	char buf[128];
	ssize_t n = pread(phys_host.statm, buf, sizeof(buf) - 1, 0);

	if (n <= 0)
		return 0;
	buf[n] = 0;
	if (sscanf(buf, "%lu %lu %lu", &size, &resident, &shared) != 3)
		return 0;
	return (resident - shared) * PAGE_SIZE;
}

void physmem_stats(struct physmem_stats *st)
{
	struct stat sb;

	st->limit = physmem->limit;
	st->frames = atomic_load(&physmem->frames);
	if (phys_host.fd < 0)
		st->resident = private_resident();
	else
		st->resident = fstat(phys_host.fd, &sb) ? 0 : (uint64_t)sb.st_blocks * 512;
}

void physmem_limits(struct physmem_stats *st)
{
	st->limit = physmem->limit;
	st->frames = atomic_load_explicit(&physmem->frames, memory_order_relaxed);
	st->resident = 0;
}

bool physmem_over_limit(void)
{
	struct physmem *pm = physmem;
	struct physmem_stats st;
	uint64_t bound;

	if (!pm->limit)
		return false;
	/* What can be resident, but for a few: no host call while that is little. */
	bound = atomic_load(&pm->frames) + __atomic_load_n(&pm->nr_kept, __ATOMIC_RELAXED);
	if (bound * PAGE_SIZE <= pm->limit)
		return false;
	physmem_stats(&st);
	if (st.resident <= st.limit)
		return false;
	mutex_lock(&pm->lock);
	give_back_locked(pm);
	mutex_unlock(&pm->lock);
	physmem_stats(&st);
	return st.resident > st.limit;
}
