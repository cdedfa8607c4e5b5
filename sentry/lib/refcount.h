/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one reference count. It saturates instead of wrapping, and going below zero is a sentry bug.
 *
 * Types that are counted live ("every refcount back where it was") register a struct objtype and
 * call objtype_inc/dec in their alloc and free; `objtype_dump` and the fault-injection tests read
 * the counts.
 */
#ifndef SENTRY_LIB_REFCOUNT_H
#define SENTRY_LIB_REFCOUNT_H

#include <stdatomic.h>

#include "sentry/lib/log.h"
#include "sentry/lib/types.h"

struct refcount {
	_Atomic uint32_t n;
};

#define REFCOUNT_MAX 0x7fffffffu

static inline void refcount_init(struct refcount *r, uint32_t n)
{
	atomic_store_explicit(&r->n, n, memory_order_relaxed);
}

static inline uint32_t refcount_read(const struct refcount *r)
{
	return atomic_load_explicit(&((struct refcount *)(uintptr_t)r)->n, memory_order_relaxed);
}

static inline void refcount_get(struct refcount *r)
{
	uint32_t old = atomic_fetch_add_explicit(&r->n, 1, memory_order_relaxed);

	BUG_ON(old == 0);
	if (unlikely(old >= REFCOUNT_MAX))
		atomic_store_explicit(&r->n, REFCOUNT_MAX, memory_order_relaxed);
}

/* Takes a reference unless the count is zero already. */
static inline bool refcount_get_unless_zero(struct refcount *r)
{
	uint32_t old = atomic_load_explicit(&r->n, memory_order_relaxed);

	do {
		if (old == 0)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&r->n, &old, old + 1, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

/* Drops a reference. Returns true when it was the last one: the caller frees the object. */
static inline bool refcount_put(struct refcount *r)
{
	uint32_t old = atomic_fetch_sub_explicit(&r->n, 1, memory_order_acq_rel);

	BUG_ON(old == 0);
	if (unlikely(old >= REFCOUNT_MAX)) {
		atomic_store_explicit(&r->n, REFCOUNT_MAX, memory_order_relaxed);
		return false;
	}
	return old == 1;
}

/* A counted type of kernel object. Define with OBJTYPE(name) at file scope. */
struct objtype {
	const char *name;
	_Atomic long live;
	struct objtype *next;
};

void objtype_register(struct objtype *type);
#define OBJTYPE(var, nm)                                                                           \
	static struct objtype var = {.name = (nm)};                                                \
	__attribute__((constructor)) static void var##_register(void)                              \
	{                                                                                          \
		objtype_register(&var);                                                            \
	}
static inline void objtype_inc(struct objtype *type)
{
	atomic_fetch_add_explicit(&type->live, 1, memory_order_relaxed);
}
static inline void objtype_dec(struct objtype *type)
{
	atomic_fetch_sub_explicit(&type->live, 1, memory_order_relaxed);
}
/* Calls @fn for every registered type. */
void objtype_for_each(void (*fn)(const struct objtype *, void *), void *arg);

#endif
