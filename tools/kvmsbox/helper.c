/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs of their own that kvmsbox runs: what they are linked with, kvmsbox must start without.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/kvmsbox/kvmsbox.h"

bool find_helper(const char *program, char path[PATH_MAX])
{
	static const char *const places[] = {"", "../libexec/kvmsbox/"};
	char self[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return false;
	self[n] = 0;
	slash = strrchr(self, '/');
	slash[1] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		if (snprintf(path, PATH_MAX, "%s%s%s", self, places[i], program) < PATH_MAX &&
		    !access(path, X_OK))
			return true;
	}
	return false;
}

int exec_helper(const char *program, char **argv)
{
	char path[PATH_MAX], **v;
	size_t n = 0;

	if (!find_helper(program, path))
		return complain("%s: %s isn't where kvmsbox is: install both", argv[0], program);
	while (argv[n])
		n++;
	v = calloc(n + 2, sizeof(*v));
	if (!v)
		return complain("out of memory");
	v[0] = path;
	memcpy(v + 1, argv, n * sizeof(*v));
	execv(path, v);
	free(v);
	return complain("%s: can't run %s: %s: install it anew", argv[0], path, strerror(errno));
}

int cmd_invoke(int argc, char **argv)
{
	return exec_helper("kvmsbox-load", argv);
}

int cmd_load(int argc, char **argv)
{
	return exec_helper("kvmsbox-load", argv);
}
