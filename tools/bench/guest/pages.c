/* SPDX-License-Identifier: Apache-2.0 */
/* A function that dirties 16 pages of initialised data, says "ok", and ends. */
#include <unistd.h>

#define PAGES 16

static volatile char data[PAGES][4096] __attribute__((aligned(4096))) = {{1}, {2}};

int main(void)
{
	char buf[4096];
	ssize_t n;
	int i;

	while ((n = read(STDIN_FILENO, buf, sizeof(buf))) > 0)
		;
	for (i = 0; i < PAGES; i++)
		data[i][8 * i]++;
	return n < 0 || write(STDOUT_FILENO, "ok\n", 3) != 3;
}
