/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena: one contiguous region at a fixed address that holds every kernel object, so that a
 * snapshot of a quiesced sandbox is memory and not serialization code (docs: DESIGN decision 7).
 * Rules: nothing in the arena points into the ordinary heap; host resources (fds, threads) are
 * indices into tables outside it (hostfd.h).
 *
 * A second, smaller arena holds what belongs to this host process and not to the sandbox's state:
 * the platform's address spaces, contexts, vCPUs, stubs. When the sandbox is set back to a snapshot
 * the first arena's contents are replaced and the second one's go on.
 *
 * Allocation is by size class with a lock per class, larger blocks by whole pages. Thread-safe.
 */
#ifndef SENTRY_LIB_ARENA_H
#define SENTRY_LIB_ARENA_H

#include "sentry/lib/types.h"

#define ARENA_BASE 0x200000000000UL
#define ARENA_SIZE (16UL << 30) /* address space, not memory */

#define HOST_ARENA_BASE 0x210000000000UL
#define HOST_ARENA_SIZE (4UL << 30)

/* Maps both arenas. Called once, before any other function here. Returns 0 or -errno. */
int arena_init(void) __must_check;
/* Maps the second alone: the first one comes from a snapshot. */
int arena_init_host(void) __must_check;
/* Bytes handed out and not freed, of both: tests compare it before and after. */
size_t arena_in_use(void);
/* Of the first, how many bytes from ARENA_BASE have ever been in use. */
size_t arena_extent(void);

/*
 * For tests: of the allocations from now on the @n-th fails, once. 0: none. Returns how far away
 * the failure asked for before still was: 0 or less, it has happened.
 */
long arena_fail_at(long n);

/* Return memory aligned to 16 bytes (a page if @size is a page or more), or NULL. */
void *kmalloc(size_t size) __must_check __attribute__((malloc, alloc_size(1)));
void *kzalloc(size_t size) __must_check __attribute__((malloc, alloc_size(1)));
void *kcalloc(size_t n, size_t size) __must_check __attribute__((malloc, alloc_size(1, 2)));
void *krealloc(void *old, size_t size) __must_check __attribute__((alloc_size(2)));
char *kstrdup(const char *s) __must_check;
void *kmemdup(const void *p, size_t size) __must_check;
/* The same from the second arena. */
void *hmalloc(size_t size) __must_check __attribute__((malloc, alloc_size(1)));
void *hzalloc(size_t size) __must_check __attribute__((malloc, alloc_size(1)));
void *hcalloc(size_t n, size_t size) __must_check __attribute__((malloc, alloc_size(1, 2)));
void *hrealloc(void *old, size_t size) __must_check __attribute__((alloc_size(2)));
/* For both. */
void kfree(const void *ptr);

#endif
