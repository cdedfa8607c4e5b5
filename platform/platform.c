/* SPDX-License-Identifier: Apache-2.0 */
/* The list of platforms, and the choice among them. */
#include "platform/platform.h"

#include <stdio.h>
#include <string.h>

const struct platform_type *const platform_types[] = {
	&kvm_platform,
	&systrap_platform,
	&ptrace_platform,
	NULL,
};

static const struct platform_type *find_auto(char *why, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *type = platform_types[i];
		char reason[160] = "";
		int n;

		if (!type->probe(reason, sizeof(reason)))
			return type;
		n = snprintf(why + used, size - used, "%s%s: %s", used ? "; " : "", type->name,
			     reason);
		if (n > 0)
			used = MIN(used + (size_t)n, size - 1);
	}
	return NULL;
}

const struct platform_type *platform_find(const char *name, char *why, size_t size)
{
	if (size)
		why[0] = '\0';
	if (!strcmp(name, "auto"))
		return find_auto(why, size);
	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *type = platform_types[i];

		if (strcmp(type->name, name))
			continue;
		return type->probe(why, size) ? NULL : type;
	}
	snprintf(why, size, "there is no platform called %s", name);
	return NULL;
}

void platform_prepare(const char *name)
{
	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *type = platform_types[i];

		if (strcmp(name, "auto") && strcmp(name, type->name))
			continue;
		if (type->prepare)
			type->prepare();
		return;
	}
}
