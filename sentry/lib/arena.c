/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena is cut into blocks of 64 KiB. A block serves objects of one size class, or is part of
 * a run that serves one large object. A table at the arena's start says which, so that kfree needs
 * only the address. Freed objects go on their class's list, newest first; freed runs on a list that
 * is searched first-fit, with their memory given back to the host.
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
#define NR_BLOCKS   (ARENA_SIZE >> BLOCK_SHIFT)
#define RUN_FLAG    0x80000000u /* first block of a run; the rest of the entry is its length */

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
};

/* Lies at ARENA_BASE: allocator state is part of a snapshot, too. */
struct arena {
	struct mutex lock;
	size_t next_block; /* none at or beyond it was ever used; under lock */
	struct free_run *runs;
	_Atomic size_t in_use;
	struct size_class classes[NR_CLASSES];
	uint8_t class_of[2048 / 16 + 1]; /* by size in 16-byte units */
	uint32_t table[NR_BLOCKS];	 /* class + 1, or RUN_FLAG | blocks */
};

#define ARENA ((struct arena *)ARENA_BASE)

int arena_init(void)
{
	void *p = mmap((void *)ARENA_BASE, ARENA_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	size_t c = 0;

	if (p == MAP_FAILED)
		return -errno;
	mutex_init(&ARENA->lock, LOCK_ARENA);
	for (size_t i = 0; i < NR_CLASSES; i++)
		mutex_init(&ARENA->classes[i].lock, LOCK_ARENA);
	for (size_t units = 0; units < ARRAY_SIZE(ARENA->class_of); units++) {
		while (class_sizes[c] < units * 16)
			c++;
		ARENA->class_of[units] = (uint8_t)c;
	}
	ARENA->next_block = (sizeof(struct arena) + BLOCK_SIZE - 1) >> BLOCK_SHIFT;
	return 0;
}

size_t arena_in_use(void)
{
	return atomic_load_explicit(&ARENA->in_use, memory_order_relaxed);
}

/* @n contiguous blocks, zeroed if @fresh is set to true. ARENA->lock held. */
static uint8_t *take_blocks_locked(size_t n, bool *fresh)
{
	struct free_run **link, *run;
	uint8_t *p;

	*fresh = true;
	for (link = &ARENA->runs; (run = *link); link = &run->next) {
		if (run->blocks < n)
			continue;
		*fresh = false;
		run->blocks -= n;
		if (run->blocks)
			return (uint8_t *)run + run->blocks * BLOCK_SIZE;
		*link = run->next;
		return (uint8_t *)run;
	}
	if (ARENA->next_block + n > NR_BLOCKS)
		return NULL;
	p = (uint8_t *)ARENA_BASE + (ARENA->next_block << BLOCK_SHIFT);
	ARENA->next_block += n;
	return p;
}

static size_t block_index(const void *p)
{
	return ((uintptr_t)p - ARENA_BASE) >> BLOCK_SHIFT;
}

static void *alloc_run(size_t size, bool zero)
{
	size_t n = (size + BLOCK_SIZE - 1) >> BLOCK_SHIFT;
	bool fresh;
	uint8_t *p;

	if (size > ARENA_SIZE)
		return NULL;
	mutex_lock(&ARENA->lock);
	p = take_blocks_locked(n, &fresh);
	if (p)
		ARENA->table[block_index(p)] = RUN_FLAG | (uint32_t)n;
	mutex_unlock(&ARENA->lock);
	if (!p)
		return NULL;
	if (zero && !fresh)
		memset(p, 0, size);
	atomic_fetch_add_explicit(&ARENA->in_use, n << BLOCK_SHIFT, memory_order_relaxed);
	return p;
}

static void free_run(void *p, size_t n)
{
	struct free_run *run = p;

	/* The first page keeps the list's link; the rest goes back to the host. */
	madvise((uint8_t *)p + PAGE_SIZE, (n << BLOCK_SHIFT) - PAGE_SIZE, MADV_DONTNEED);
	atomic_fetch_sub_explicit(&ARENA->in_use, n << BLOCK_SHIFT, memory_order_relaxed);
	mutex_lock(&ARENA->lock);
	ARENA->table[block_index(p)] = 0;
	run->blocks = n;
	run->next = ARENA->runs;
	ARENA->runs = run;
	mutex_unlock(&ARENA->lock);
}

static size_t class_for(size_t size)
{
	size_t c;

	if (size <= 2048)
		return ARENA->class_of[(size + 15) / 16];
	for (c = ARENA->class_of[2048 / 16] + 1u; c < NR_CLASSES && class_sizes[c] < size; c++)
		;
	return c;
}

/* A new block for a class that has run dry. Its lock is held. */
static bool refill_locked(struct size_class *sc, size_t class)
{
	bool fresh;
	uint8_t *p;

	/* Same rank, always class before arena. */
	mutex_lock_nested(&ARENA->lock);
	p = take_blocks_locked(1, &fresh);
	if (p)
		ARENA->table[block_index(p)] = (uint32_t) class + 1;
	mutex_unlock(&ARENA->lock);
	if (!p)
		return false;
	sc->fresh = p;
	sc->fresh_end = p + BLOCK_SIZE / class_sizes[class] * class_sizes[class];
	return true;
}

static void *alloc_small(size_t class)
{
	struct size_class *sc = &ARENA->classes[class];
	void *p = NULL;

	mutex_lock(&sc->lock);
	if (sc->free) {
		p = sc->free;
		sc->free = sc->free->next;
	} else if (sc->fresh != sc->fresh_end || refill_locked(sc, class)) {
		p = sc->fresh;
		sc->fresh += class_sizes[class];
	}
	mutex_unlock(&sc->lock);
	if (p)
		atomic_fetch_add_explicit(&ARENA->in_use, class_sizes[class], memory_order_relaxed);
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

void *kmalloc(size_t size)
{
	size_t class = class_for(size);

	if (fails_now())
		return NULL;
	return class < NR_CLASSES ? alloc_small(class) : alloc_run(size, false);
}

void *kzalloc(size_t size)
{
	size_t class = class_for(size);
	void *p;

	if (fails_now())
		return NULL;
	if (class == NR_CLASSES)
		return alloc_run(size, true);
	p = alloc_small(class);
	if (p)
		memset(p, 0, size);
	return p;
}

void *kcalloc(size_t n, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(n, size, &total))
		return NULL;
	return kzalloc(total);
}

/* Bytes usable at @p. */
static size_t usable(const void *p)
{
	uint32_t entry = ARENA->table[block_index(p)];

	return entry & RUN_FLAG ? (size_t)(entry & ~RUN_FLAG) << BLOCK_SHIFT
				: class_sizes[entry - 1];
}

void *krealloc(void *old, size_t size)
{
	size_t have;
	void *p;

	if (!old)
		return kmalloc(size);
	have = usable(old);
	if (size <= have && size > have / 4)
		return old;
	p = kmalloc(size);
	if (!p)
		return NULL;
	memcpy(p, old, MIN(have, size));
	kfree(old);
	return p;
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

void kfree(const void *ptr)
{
	struct free_object *o = (struct free_object *)(uintptr_t)ptr;
	struct size_class *sc;
	uint32_t entry;

	if (!ptr)
		return;
	BUG_ON((uintptr_t)ptr - ARENA_BASE >= ARENA_SIZE);
	entry = ARENA->table[block_index(ptr)];
	BUG_ON(!entry);
	if (entry & RUN_FLAG) {
		free_run(o, entry & ~RUN_FLAG);
		return;
	}
	sc = &ARENA->classes[entry - 1];
	mutex_lock(&sc->lock);
	o->next = sc->free;
	sc->free = o;
	mutex_unlock(&sc->lock);
	atomic_fetch_sub_explicit(&ARENA->in_use, class_sizes[entry - 1], memory_order_relaxed);
}
