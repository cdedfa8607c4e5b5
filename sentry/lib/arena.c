/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena is cut into blocks of 64 KiB. A block serves objects of one size class, or is part of
 * a run that serves one large object. A table at the arena's start says which, so that kfree needs
 * only the address. Freed objects go on their class's list, newest first; freed runs on a list that
 * is searched first-fit, with their memory given back to the host.
 *
 * The first blocks serve classes of small objects a page or two at a time: what every start touches
 * lies close together, and is made resident by one call.
 */
#include "sentry/lib/arena.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "sentry/lib/lock.h"
#include "sentry/lib/log.h"

#define BLOCK_SHIFT 16
#define BLOCK_SIZE  (1UL << BLOCK_SHIFT)
#define NR_BLOCKS   (ARENA_SIZE >> BLOCK_SHIFT) /* of the larger one */
#define RUN_FLAG    0x80000000u /* first block of a run; the rest of the entry is its length */
#define SHARED	    0x40000000u /* a block whose pages serve different classes */

#define NR_SHARED	4 /* blocks */
#define SHARED_PAGES	(NR_SHARED * (BLOCK_SIZE / PAGE_SIZE))
#define SHARED_MAX	2048 /* the largest object there */
#define KERNEL_RESIDENT 22   /* pages that a start touches, more or less */
#define HOST_RESIDENT	8

static const uint32_t class_sizes[] = {16,  32,	 48,   64,   96,   128,	 192,  256,   384,
				       512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 32768};
#define NR_CLASSES ARRAY_SIZE(class_sizes)

struct free_object {
	struct free_object *next;
};

struct free_run {
	struct free_run *next;
	size_t blocks;
};

struct size_class {
	struct mutex lock;
	struct free_object *free;   /* under lock, like the rest */
	uint8_t *fresh, *fresh_end; /* never used part of the newest block */
	bool fresh_zero;	    /* which was never another's */
};

/* Lies at its own base: allocator state is part of a snapshot, too. */
struct arena {
	size_t nr_blocks;
	struct mutex lock;
	size_t next_block; /* none at or beyond it was ever used; under lock */
	struct free_run *runs;
	uint8_t *shared;		    /* the first blocks; const */
	unsigned int shared_used;	    /* pages; under lock */
	uint8_t shared_class[SHARED_PAGES]; /* of each page */
	_Atomic size_t in_use;
	struct size_class classes[NR_CLASSES];
	uint8_t class_of[2048 / 16 + 1]; /* by size in 16-byte units */
	uint32_t table[NR_BLOCKS];	 /* class + 1, or RUN_FLAG | blocks */
};

#define KERNEL_ARENA ((struct arena *)ARENA_BASE)
#define HOST_ARENA   ((struct arena *)HOST_ARENA_BASE)

static int arena_map(struct arena *a, size_t size, size_t resident)
{
	void *p = mmap(a, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	size_t c = 0;

	if (p == MAP_FAILED)
		return -errno;
	a->nr_blocks = size >> BLOCK_SHIFT;
	mutex_init(&a->lock, LOCK_ARENA);
	for (size_t i = 0; i < NR_CLASSES; i++)
		mutex_init(&a->classes[i].lock, LOCK_ARENA);
	for (size_t units = 0; units < ARRAY_SIZE(a->class_of); units++) {
		while (class_sizes[c] < units * 16)
			c++;
		a->class_of[units] = (uint8_t)c;
	}
	a->next_block = (sizeof(struct arena) + BLOCK_SIZE - 1) >> BLOCK_SHIFT;
	a->shared = (uint8_t *)a + (a->next_block << BLOCK_SHIFT);
	for (size_t i = 0; i < NR_SHARED; i++)
		a->table[a->next_block++] = SHARED;
	madvise(a->shared, resident * PAGE_SIZE, MADV_POPULATE_WRITE);
	return 0;
}

int arena_init(void)
{
	int err = arena_map(KERNEL_ARENA, ARENA_SIZE, KERNEL_RESIDENT);

	return err ? err : arena_map(HOST_ARENA, HOST_ARENA_SIZE, HOST_RESIDENT);
}

int arena_init_host(void)
{
	return arena_map(HOST_ARENA, HOST_ARENA_SIZE, HOST_RESIDENT);
}

size_t arena_in_use(void)
{
	return atomic_load_explicit(&KERNEL_ARENA->in_use, memory_order_relaxed) +
	       atomic_load_explicit(&HOST_ARENA->in_use, memory_order_relaxed);
}

size_t arena_extent(void)
{
	return KERNEL_ARENA->next_block << BLOCK_SHIFT;
}

/* The one that @p lies in. */
static struct arena *arena_of(const void *p)
{
	return (uintptr_t)p - ARENA_BASE < ARENA_SIZE ? KERNEL_ARENA : HOST_ARENA;
}

/* @n contiguous blocks, zeroed if @fresh is set to true. a->lock held. */
static uint8_t *take_blocks_locked(struct arena *a, size_t n, bool *fresh)
{
	struct free_run **link, *run;
	uint8_t *p;

	*fresh = true;
	for (link = &a->runs; (run = *link); link = &run->next) {
		if (run->blocks < n)
			continue;
		*fresh = false;
		run->blocks -= n;
		if (run->blocks)
			return (uint8_t *)run + run->blocks * BLOCK_SIZE;
		*link = run->next;
		return (uint8_t *)run;
	}
	if (a->next_block + n > a->nr_blocks)
		return NULL;
	p = (uint8_t *)a + (a->next_block << BLOCK_SHIFT);
	a->next_block += n;
	return p;
}

static size_t block_index(const struct arena *a, const void *p)
{
	return ((uintptr_t)p - (uintptr_t)a) >> BLOCK_SHIFT;
}

static void *alloc_run(struct arena *a, size_t size, bool zero)
{
	size_t n = (size + BLOCK_SIZE - 1) >> BLOCK_SHIFT;
	bool fresh;
	uint8_t *p;

	if (size > ARENA_SIZE)
		return NULL;
	mutex_lock(&a->lock);
	p = take_blocks_locked(a, n, &fresh);
	if (p)
		a->table[block_index(a, p)] = RUN_FLAG | (uint32_t)n;
	mutex_unlock(&a->lock);
	if (!p)
		return NULL;
	if (zero && !fresh)
		memset(p, 0, size);
	atomic_fetch_add_explicit(&a->in_use, n << BLOCK_SHIFT, memory_order_relaxed);
	return p;
}

static void free_run(struct arena *a, void *p, size_t n)
{
	struct free_run *run = p;

	/* The first page keeps the list's link; the rest goes back to the host. */
	madvise((uint8_t *)p + PAGE_SIZE, (n << BLOCK_SHIFT) - PAGE_SIZE, MADV_DONTNEED);
	atomic_fetch_sub_explicit(&a->in_use, n << BLOCK_SHIFT, memory_order_relaxed);
	mutex_lock(&a->lock);
	a->table[block_index(a, p)] = 0;
	run->blocks = n;
	run->next = a->runs;
	a->runs = run;
	mutex_unlock(&a->lock);
}

static size_t class_for(const struct arena *a, size_t size)
{
	size_t c;

	if (size <= 2048)
		return a->class_of[(size + 15) / 16];
	for (c = a->class_of[2048 / 16] + 1u; c < NR_CLASSES && class_sizes[c] < size; c++)
		;
	return c;
}

/* Pages of the shared blocks for @class, or NULL: there are none. a->lock held. */
static uint8_t *take_shared_locked(struct arena *a, size_t class, size_t pages)
{
	unsigned int at = a->shared_used;

	if (class_sizes[class] > SHARED_MAX || at + pages > SHARED_PAGES)
		return NULL;
	for (size_t i = 0; i < pages; i++)
		a->shared_class[at + i] = (uint8_t) class;
	a->shared_used += (unsigned int)pages;
	return a->shared + at * PAGE_SIZE;
}

/* A new block for a class that has run dry, or part of one. Its lock is held. */
static bool refill_locked(struct arena *a, struct size_class *sc, size_t class)
{
	size_t size = class_sizes[class] <= SHARED_MAX / 2 ? PAGE_SIZE : 2 * PAGE_SIZE;
	bool fresh = true;
	uint8_t *p;

	/* Same rank, always class before arena. */
	mutex_lock_nested(&a->lock);
	p = take_shared_locked(a, class, size / PAGE_SIZE);
	if (!p) {
		size = BLOCK_SIZE;
		p = take_blocks_locked(a, 1, &fresh);
		if (p)
			a->table[block_index(a, p)] = (uint32_t) class + 1;
	}
	mutex_unlock(&a->lock);
	if (!p)
		return false;
	sc->fresh_zero = fresh;
	sc->fresh = p;
	sc->fresh_end = p + size / class_sizes[class] * class_sizes[class];
	return true;
}

/* @zero: set if what is returned reads as zero anyway. */
static void *alloc_small(struct arena *a, size_t class, bool *zero)
{
	struct size_class *sc = &a->classes[class];
	void *p = NULL;

	*zero = false;
	mutex_lock(&sc->lock);
	if (sc->free) {
		p = sc->free;
		sc->free = sc->free->next;
	} else if (sc->fresh != sc->fresh_end || refill_locked(a, sc, class)) {
		p = sc->fresh;
		sc->fresh += class_sizes[class];
		*zero = sc->fresh_zero;
	}
	mutex_unlock(&sc->lock);
	if (p)
		atomic_fetch_add_explicit(&a->in_use, class_sizes[class], memory_order_relaxed);
	return p;
}

static _Atomic long fail_at;

long arena_fail_at(long n)
{
	return atomic_exchange(&fail_at, n);
}

/* Is it this allocation's turn to fail? One load unless a test asked for it. */
static bool fails_now(void)
{
	return unlikely(fail_at > 0) && atomic_fetch_sub(&fail_at, 1) == 1;
}

static void *alloc(struct arena *a, size_t size)
{
	size_t class = class_for(a, size);
	bool zero;

	if (fails_now())
		return NULL;
	return class < NR_CLASSES ? alloc_small(a, class, &zero) : alloc_run(a, size, false);
}

static void *alloc_zeroed(struct arena *a, size_t size)
{
	size_t class = class_for(a, size);
	bool zero;
	void *p;

	if (fails_now())
		return NULL;
	if (class == NR_CLASSES)
		return alloc_run(a, size, true);
	p = alloc_small(a, class, &zero);
	/* One call is cheaper than as many page faults. */
	if (p && zero && size > PAGE_SIZE)
		madvise((void *)((uintptr_t)p & PAGE_MASK), PAGE_ALIGN_UP(size),
			MADV_POPULATE_WRITE);
	else if (p)
		memset(p, 0, size);
	return p;
}

/* RUN_FLAG | blocks, or the class + 1, of what @p is in; 0: nothing. */
static uint32_t entry_of(const struct arena *a, const void *p)
{
	uint32_t entry = a->table[block_index(a, p)];

	if (entry != SHARED)
		return entry;
	return a->shared_class[((const uint8_t *)p - a->shared) / PAGE_SIZE] + 1u;
}

/* Bytes usable at @p. */
static size_t usable(const struct arena *a, const void *p)
{
	uint32_t entry = entry_of(a, p);

	return entry & RUN_FLAG ? (size_t)(entry & ~RUN_FLAG) << BLOCK_SHIFT
				: class_sizes[entry - 1];
}

static void *resize(struct arena *a, void *old, size_t size)
{
	size_t have;
	void *p;

	if (!old)
		return alloc(a, size);
	have = usable(a, old);
	if (size <= have && size > have / 4)
		return old;
	p = alloc(a, size);
	if (!p)
		return NULL;
	memcpy(p, old, MIN(have, size));
	kfree(old);
	return p;
}

void *kmalloc(size_t size)
{
	return alloc(KERNEL_ARENA, size);
}

void *kzalloc(size_t size)
{
	return alloc_zeroed(KERNEL_ARENA, size);
}

void *kcalloc(size_t n, size_t size)
{
	size_t total;

	return __builtin_mul_overflow(n, size, &total) ? NULL : kzalloc(total);
}

void *krealloc(void *old, size_t size)
{
	return resize(KERNEL_ARENA, old, size);
}

char *kstrdup(const char *s)
{
	return kmemdup(s, strlen(s) + 1);
}

void *kmemdup(const void *src, size_t size)
{
	void *p = kmalloc(size);

	if (p)
		memcpy(p, src, size);
	return p;
}

void *hmalloc(size_t size)
{
	return alloc(HOST_ARENA, size);
}

void *hzalloc(size_t size)
{
	return alloc_zeroed(HOST_ARENA, size);
}

void *hcalloc(size_t n, size_t size)
{
	size_t total;

	return __builtin_mul_overflow(n, size, &total) ? NULL : hzalloc(total);
}

void *hrealloc(void *old, size_t size)
{
	return resize(HOST_ARENA, old, size);
}

void kfree(const void *ptr)
{
	struct free_object *o = (struct free_object *)(uintptr_t)ptr;
	struct arena *a = arena_of(ptr);
	struct size_class *sc;
	uint32_t entry;

	if (!ptr)
		return;
	BUG_ON((uintptr_t)ptr - (uintptr_t)a >= a->nr_blocks << BLOCK_SHIFT);
	entry = entry_of(a, ptr);
	BUG_ON(!entry);
	if (entry & RUN_FLAG) {
		free_run(a, o, entry & ~RUN_FLAG);
		return;
	}
	sc = &a->classes[entry - 1];
	mutex_lock(&sc->lock);
	o->next = sc->free;
	sc->free = o;
	mutex_unlock(&sc->lock);
	atomic_fetch_sub_explicit(&a->in_use, class_sizes[entry - 1], memory_order_relaxed);
}
