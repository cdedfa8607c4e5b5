/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox-load: the commands that are clients of kvmsbox serve, or of any HTTP server: kvmsbox
 * invoke and kvmsbox load. A program of its own because libcurl and OpenSSL bring thirty libraries
 * with them; kvmsbox becomes it.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/kvmsbox-load/http.h"

int complain(const char *fmt, ...)
{
	char buf[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	/* One line, whatever names and arguments are in it. */
	for (char *p = buf; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = '?';
	}
	dprintf(STDERR_FILENO, "kvmsbox: %s\n", buf);
	return EXIT_KVMSBOX;
}

int main(int argc, char **argv)
{
	/* A connection or a reader that goes away is an error with a name, not the end. */
	signal(SIGPIPE, SIG_IGN);
	if (argc > 1 && !strcmp(argv[1], "invoke"))
		return cmd_invoke(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "load"))
		return cmd_load(argc - 1, argv + 1);
	return complain("kvmsbox-load: kvmsbox runs it: see kvmsbox invoke --help and "
			"kvmsbox load --help");
}
