/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The integers of the house.
 *
 * uaddr_t is an application virtual address, gpa_t an address in the guest's physical space (see
 * physmem.h). Both are integers on purpose: a C pointer is always host memory, so an address that
 * the application chose can't be dereferenced by accident.
 */
#ifndef SENTRY_LIB_TYPES_H
#define SENTRY_LIB_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef uint64_t uaddr_t;
typedef uint64_t gpa_t;

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096UL
#define PAGE_MASK  (~(PAGE_SIZE - 1))
#define GPA_NONE   (~(gpa_t)0)

#define PAGE_ALIGN_UP(x)   (((x) + PAGE_SIZE - 1) & PAGE_MASK)
#define PAGE_ALIGN_DOWN(x) ((x)&PAGE_MASK)
#define ALIGN_UP(x, a)	   (((x) + (a)-1) & ~((__typeof__(x))(a)-1))
#define ALIGN_DOWN(x, a)   ((x) & ~((__typeof__(x))(a)-1))

#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b)                                                                                  \
	({                                                                                         \
		__auto_type min_a_ = (a);                                                          \
		__auto_type min_b_ = (b);                                                          \
		min_a_ < min_b_ ? min_a_ : min_b_;                                                 \
	})
#define MAX(a, b)                                                                                  \
	({                                                                                         \
		__auto_type max_a_ = (a);                                                          \
		__auto_type max_b_ = (b);                                                          \
		max_a_ > max_b_ ? max_a_ : max_b_;                                                 \
	})

#define __must_check	   __attribute__((warn_unused_result))
#define __printf_fmt(a, b) __attribute__((format(printf, a, b)))
#define likely(x)	   __builtin_expect(!!(x), 1)
#define unlikely(x)	   __builtin_expect(!!(x), 0)

#endif
