/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/lib/world.h"

#include <pthread.h>

/* Whoever holds the world is served first: the others come by often. */
static pthread_rwlock_t inside = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

/* Made by the linker, where the sections are named by objcopy (Makefile). */
extern uint8_t __start_kstate_data[] __attribute__((weak)), __stop_kstate_data[];
extern uint8_t __start_kstate_bss[] __attribute__((weak)), __stop_kstate_bss[];

void world_enter(void)
{
	pthread_rwlock_rdlock(&inside);
}

void world_leave(void)
{
	pthread_rwlock_unlock(&inside);
}

void world_hold(void)
{
	pthread_rwlock_wrlock(&inside);
}

void world_release(void)
{
	pthread_rwlock_unlock(&inside);
}

unsigned int world_statics(struct world_piece pieces[2])
{
	unsigned int n = 0;

	if (__start_kstate_data)
		pieces[n++] = (struct world_piece){
			__start_kstate_data, (size_t)(__stop_kstate_data - __start_kstate_data)};
	if (__start_kstate_bss)
		pieces[n++] = (struct world_piece){
			__start_kstate_bss, (size_t)(__stop_kstate_bss - __start_kstate_bss)};
	return n;
}
