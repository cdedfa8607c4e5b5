/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox exec: options and the image's configuration become a device tree, and this process the
 * sentry that boots from it.
 */
#include "platform/platform.h"
#include "tools/kvmsbox/kvmsbox.h"
#include "tools/kvmsbox/sandbox.h"

static const struct verb verb = {
	.id = VERB_EXEC,
	.name = "exec",
	.synopsis = "[OPTIONS] IMAGE [--] [COMMAND [ARG…]]",
	.about = "Runs COMMAND from the image (a tar of a root file system, a docker save or OCI\n"
		 "archive; plain or gzip, xz, zstd, bzip2) in a new sandbox. Without COMMAND, what "
		 "the\n"
		 "image's configuration names is run. Exits with the command's status; 128+N if "
		 "signal N\n"
		 "ended it; 124 time limit; 125 kvmsbox's own error; 126 can't be run; 127 not "
		 "found.\n",
};

int cmd_exec(int argc, char **argv)
{
	struct boot_result result;
	struct options o;
	int at, status;

	options_init(&o, &verb);
	at = options_parse(&o, argc, argv, &status);
	if (at < 0)
		return status;
	if (at == argc)
		return complain("exec: no image given: kvmsbox exec IMAGE [COMMAND…]");
	if (!o.dump_dtb)
		prepare_platform(o.config.platform);
	status = sandbox_configure(&o, argv[at], argv + at + 1);
	if (status)
		return status;
	sandbox_boot(&o, &result);
	if (result.error[0])
		complain("%s", result.error);
	return result.status;
}
