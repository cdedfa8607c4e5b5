/* SPDX-License-Identifier: Apache-2.0 */
/* The device tree a sandbox boots from: parsed or refused, never read out of bounds. */
#include <stdlib.h>
#include <string.h>

#include "sentry/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config c;
	char why[256];
	void *copy = malloc(size ? size : 1);
	size_t total = 0;

	/* libfdt wants alignment; the copy's end is where ASan watches. */
	memcpy(copy, data, size);
	if (!sandbox_config_parse(copy, size, &c, why, sizeof(why))) {
		for (size_t i = 0; c.args[i]; i++)
			total += strlen(c.args[i]);
		for (size_t i = 0; c.env[i]; i++)
			total += strlen(c.env[i]);
		if (total > size)
			__builtin_trap();
		sandbox_config_free(&c);
	}
	free(copy);
	return 0;
}
