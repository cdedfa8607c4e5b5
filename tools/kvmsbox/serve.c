/* SPDX-License-Identifier: Apache-2.0 */
/* The server is kvmsbox-serve (tools/kvmsbox-serve/main.c), found beside this program. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/kvmsbox/kvmsbox.h"

#define SERVER "kvmsbox-serve"

int cmd_serve(int argc, char **argv)
{
	static const char *const places[] = {SERVER, "../libexec/kvmsbox/" SERVER};
	char self[PATH_MAX], path[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return complain("serve: /proc/self/exe: %s", strerror(errno));
	self[n] = 0;
	slash = strrchr(self, '/');
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - self), self, places[i]) >=
			    (int)sizeof(path) ||
		    access(path, X_OK))
			continue;
		/* The sandboxes are made by this very program. */
		if (setenv("KVMSBOX_SELF", self, 1))
			return complain("out of memory");
		execv(path, argv);
		return complain("serve: %s: %s", path, strerror(errno));
	}
	return complain("serve: " SERVER " isn't where kvmsbox is: install both");
}
