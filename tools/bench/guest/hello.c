/* SPDX-License-Identifier: Apache-2.0 */
/* The least function: reads what it is sent, answers a line. As CGI it is started per request. */
#include <stdio.h>

int main(void)
{
	char buf[4096];
	size_t n, total = 0;

	while ((n = fread(buf, 1, sizeof(buf), stdin)) > 0)
		total += n;
	printf("hello %zu\n", total);
	return ferror(stdin) || fflush(stdout);
}
