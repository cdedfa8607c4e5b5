/* SPDX-License-Identifier: Apache-2.0 */
/* The server is kvmsbox-serve (tools/kvmsbox-serve/main.c), found beside this program. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/kvmsbox/kvmsbox.h"

int cmd_serve(int argc, char **argv)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return complain("serve: /proc/self/exe: %s", strerror(errno));
	self[n] = 0;
	/* The sandboxes are made by this very program. */
	if (setenv("KVMSBOX_SELF", self, 1))
		return complain("out of memory");
	return exec_helper("kvmsbox-serve", argv + 1);
}
