/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/random.h"

#include <string.h>
#include <sys/random.h>

bool random_bytes(void *to, size_t n)
{
	/* Not for a child to see: children exec at once. */
	static unsigned char pool[4096];
	static size_t left;

	if (n > sizeof(pool))
		return false;
	if (left < n) {
		if (getrandom(pool, sizeof(pool), 0) != sizeof(pool))
			return false;
		left = sizeof(pool);
	}
	left -= n;
	memcpy(to, pool + left, n);
	explicit_bzero(pool + left, n);
	return true;
}
