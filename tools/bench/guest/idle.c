/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idle [MIB]: touches MIB of memory, says "ready" and stays until its input ends. What it costs
 * while it stays is measured from outside.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	size_t size = argc > 1 ? strtoul(argv[1], NULL, 10) << 20 : 0, i;
	volatile char *p;
	char c;

	if (size) {
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED) {
			perror("idle: mmap");
			return 1;
		}
		/* Not all the same: no one merges or compresses it away. */
		for (i = 0; i < size; i += 4096)
			p[i] = (char)(1 + i / 4096);
	}
	if (write(STDOUT_FILENO, "ready\n", 6) != 6)
		return 1;
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}
