/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lent frames (physmem_frozen.h). The sentry's view of them is the image, mapped to be read, so
 * that a write that came without physmem_own is a crash and never a wrong page.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "sentry/lib/hostio.h"
#include "sentry/lib/log.h"
#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/physmem_internal.h"

struct phys_lent phys_lent;

static struct {
	pthread_mutex_t lock; /* clearing bits of phys_lent */
	int fd;		      /* the image, and where in it frame 0 is */
	uint64_t offset;
	uint64_t *hot;
} lend = {.lock = PTHREAD_MUTEX_INITIALIZER};

int physmem_lend(int fd, uint64_t offset)
{
	uint32_t end = (uint32_t)(physmem->next >> PAGE_SHIFT);
	size_t words = end / 64 + 1;
	uint64_t *map = hmalloc(words * 8);

	lend.hot = hcalloc(words, 8);
	/* Of its own: whoever freezes the copy again closes the other. */
	lend.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (!map || !lend.hot)
		return -ENOMEM;
	if (lend.fd < 0 ||
	    mmap((void *)VIEW_BASE, (size_t)end << PAGE_SHIFT, PROT_READ,
		 MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, lend.fd, (off_t)offset) == MAP_FAILED)
		return -errno;
	lend.offset = offset;
	memset(map, 0xff, words * 8);
	phys_lent = (struct phys_lent){map, end};
	return 0;
}

void phys_lent_backing(gpa_t gpa, int *fd, uint64_t *offset)
{
	*fd = lend.fd;
	*offset = lend.offset + gpa;
}

/* Frames that are lent. The lock is held. */
static int own_run(uint32_t frame, uint32_t n, bool copy)
{
	off_t at = (off_t)frame << PAGE_SHIFT;
	void *p = phys_ptr((gpa_t)at);
	size_t len = (size_t)n << PAGE_SHIFT;
	int err = copy ? pwrite_all(phys_host.fd, p, len, (uint64_t)at) : 0;

	if (err)
		return err;
	if (mmap(p, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
		 phys_host.fd, at) == MAP_FAILED)
		return -errno;
	for (uint32_t f = frame; f < frame + n; f++)
		__atomic_fetch_and(&phys_lent.map[f / 64], ~(1ULL << (f % 64)), __ATOMIC_RELEASE);
	return 0;
}

static bool is_lent(uint32_t frame)
{
	return phys_is_lent((gpa_t)frame << PAGE_SHIFT);
}

/* Those of @n frames from @gpa that are lent; what isn't in the image is a hole here as there. */
static int own(gpa_t gpa, size_t n, bool copy)
{
	uint32_t f = (uint32_t)(gpa >> PAGE_SHIFT), end = f + (uint32_t)n, run;
	int err = 0;

	pthread_mutex_lock(&lend.lock);
	for (end = MIN(end, phys_lent.end); f < end && !err; f += run) {
		bool stored = copy && physmem_is_stored(f);

		run = 1;
		if (!is_lent(f))
			continue;
		while (f + run < end && is_lent(f + run) &&
		       (copy && physmem_is_stored(f + run)) == stored)
			run++;
		err = own_run(f, run, stored);
	}
	pthread_mutex_unlock(&lend.lock);
	if (err)
		log_warn("a copy's memory: %s", strerror(-err));
	return err ? -ENOMEM : 0;
}

int physmem_own(gpa_t gpa, size_t n)
{
	return phys_lent.map ? own(gpa, n, true) : 0;
}

int physmem_own_new(gpa_t gpa, size_t n)
{
	return own(gpa, n, false);
}

size_t physmem_lent_run(gpa_t gpa, size_t n, bool *lent)
{
	size_t run = 1;

	*lent = phys_is_lent(gpa);
	while (run < n && phys_is_lent(gpa + run * PAGE_SIZE) == *lent)
		run++;
	return run;
}

void physmem_lent_hot(gpa_t gpa)
{
	uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT);

	if (phys_is_lent(gpa))
		lend.hot[frame / 64] |= 1ULL << (frame % 64);
}

bool physmem_is_lent_hot(gpa_t gpa)
{
	uint32_t frame = (uint32_t)(gpa >> PAGE_SHIFT);

	return phys_is_lent(gpa) && lend.hot[frame / 64] >> (frame % 64) & 1;
}
