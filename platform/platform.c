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

/* Adds "NAME: reason" to the list in @why. */
static void passed_over(const struct platform_type *type, const char *reason, char *why,
			size_t size)
{
	size_t used = strlen(why);

	if (size)
		snprintf(why + used, size - used, "%s%s: %s", used ? "; " : "", type->name, reason);
}

static const struct platform_type *find_auto(char *why, size_t size)
{
	const struct platform_type *costly = NULL;
	char reason[160];

	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *type = platform_types[i];

		if (type->probe(reason, sizeof(reason))) {
			passed_over(type, reason, why, size);
		} else if (type->is_costly && type->is_costly(reason, sizeof(reason))) {
			costly = costly ? costly : type;
			passed_over(type, reason, why, size);
		} else {
			return type;
		}
	}
	return costly;
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
	bool any = !strcmp(name, "auto");

	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *type = platform_types[i];

		if (any ? type->is_costly && type->is_costly(NULL, 0) : strcmp(name, type->name))
			continue;
		if (type->prepare)
			type->prepare();
		return;
	}
}
