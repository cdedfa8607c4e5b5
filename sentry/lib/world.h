/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world: the kernel state of the sandbox as a whole, which now and then must hold still (to be
 * saved, or set back). Tasks are stopped by the freezer (sentry/freezer.h); the sentry's own
 * threads (timers, readiness of host descriptors) touch kernel state only between world_enter and
 * world_leave, where they don't wait for anything.
 *
 * Kernel state is the arena, the memory file, and the static variables of sentry/, vfs/ and
 * loader/, which the build gathers in sections of their own (KSTATE_SRCS in the Makefile). A static
 * variable there that is about this host process and not about the sandbox (a thread that has been
 * started, a counter for --stats) is marked __host_state.
 */
#ifndef SENTRY_LIB_WORLD_H
#define SENTRY_LIB_WORLD_H

#include "sentry/lib/types.h"

#define __host_state __attribute__((section("host_state")))
/*
 * The same for a large one that few sandboxes use. All that isn't marked so lies close together,
 * and most of it is used by all: it is brought in at once (tools/kvmsbox/main.c).
 */
#define __host_large __attribute__((section("host_large")))
/* And the other way round, in the files that aren't gathered. */
#define __kernel_state __attribute__((section("kstate_data")))

void world_enter(void);
void world_leave(void);
/* Waits until nobody is inside, and lets nobody in. */
void world_hold(void);
void world_release(void);

/* The kernel's static variables: up to two pieces. Returns how many. */
struct world_piece {
	void *start;
	size_t size;
};
unsigned int world_statics(struct world_piece pieces[2]);

#endif
