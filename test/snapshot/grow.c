/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grow MIB: fills so much memory with what isn't alike, then writes a line now and then. SIGTERM: looks
 * whether it is all there; 6 if it is, else 1.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void on_term(int sig)
{
	asked = 1;
}

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

int main(int argc, char **argv)
{
	size_t n = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1) << 17;
	uint64_t *p = malloc(n * 8), x = 88172645463325252;

	signal(SIGTERM, on_term);
	for (size_t i = 0; p && i < n; i++)
		p[i] = next(&x);
	printf("grown\n");
	fflush(stdout);
	while (!asked) {
		usleep(100000);
		printf(".\n");
		fflush(stdout);
	}
	x = 88172645463325252;
	for (size_t i = 0; p && i < n; i++) {
		if (p[i] != next(&x))
			return 1;
	}
	return p ? 6 : 1;
}
