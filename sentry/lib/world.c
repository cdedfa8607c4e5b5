/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/lib/world.h"

#include <stdatomic.h>

#include "sentry/lib/hostfutex.h"

/*
 * How many are inside, and whether somebody holds the world or waits for them to leave: that one is
 * served first, the others come by often.
 */
#define HELD (1u << 31)
static _Atomic uint32_t inside;
static _Atomic uint32_t sleepers;

static void sleep_while(uint32_t value)
{
	atomic_fetch_add(&sleepers, 1);
	host_futex_wait(&inside, value, NULL);
	atomic_fetch_sub(&sleepers, 1);
}

static void wake(void)
{
	if (atomic_load(&sleepers))
		host_futex_wake(&inside, HOST_FUTEX_ALL);
}

/* Adds @n to what is in there as soon as nobody holds the world. */
static void add_unheld(uint32_t n)
{
	uint32_t v = atomic_load(&inside);

	for (;;) {
		if (v & HELD) {
			sleep_while(v);
			v = atomic_load(&inside);
		} else if (atomic_compare_exchange_weak(&inside, &v, v + n)) {
			return;
		}
	}
}

/* Made by the linker, where the sections are named by objcopy (Makefile). */
extern uint8_t __start_kstate_data[] __attribute__((weak)), __stop_kstate_data[];
extern uint8_t __start_kstate_bss[] __attribute__((weak)), __stop_kstate_bss[];

void world_enter(void)
{
	add_unheld(1);
}

void world_leave(void)
{
	if (atomic_fetch_sub(&inside, 1) == HELD + 1)
		wake();
}

void world_hold(void)
{
	uint32_t v;

	add_unheld(HELD);
	while ((v = atomic_load(&inside)) != HELD)
		sleep_while(v);
}

void world_release(void)
{
	atomic_store(&inside, 0);
	wake();
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
