/* SPDX-License-Identifier: Apache-2.0 */
/* What sentry/lib/musl.c adds: built with each libc, both must print the same. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *strerrorname_np(int err);
const char *sigabbrev_np(int sig);

/* The compiler shall not know what it does. */
static int (*volatile compare)(const void *, const void *, size_t) = memcmp;

static int sign(int x)
{
	return (x > 0) - (x < 0);
}

static int bytewise(const unsigned char *a, const unsigned char *b, size_t n)
{
	for (; n && *a == *b; n--) {
		a++;
		b++;
	}
	return n ? sign(*a - *b) : 0;
}

/* Of any length, at any address, different in one place or none. */
static int compare_wrong(void)
{
	static unsigned char a[512], b[512];
	unsigned int seed = 1;
	int wrong = 0;

	for (int i = 0; i < 300000; i++) {
		size_t n = (size_t)rand_r(&seed) % 400;
		unsigned char *p = a + rand_r(&seed) % 100, *q = b + rand_r(&seed) % 100;

		for (size_t k = 0; k < n; k++)
			p[k] = q[k] = (unsigned char)rand_r(&seed);
		if (n && i % 4)
			q[(size_t)rand_r(&seed) % n] = (unsigned char)rand_r(&seed);
		wrong += sign(compare(p, q, n)) != bytewise(p, q, n);
	}
	return wrong;
}

int main(void)
{
	for (int err = -1; err < 140; err++)
		printf("%d %s\n", err, strerrorname_np(err) ? strerrorname_np(err) : "none");
	for (int sig = -1; sig < 70; sig++)
		printf("%d %s\n", sig, sigabbrev_np(sig) ? sigabbrev_np(sig) : "none");
	printf("compared wrongly: %d\n", compare_wrong());
	return 0;
}
