/* SPDX-License-Identifier: Apache-2.0 */
/* kvmsbox syscalls: the support table, from sentry/syscalls.def. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "sentry/syscalls.h"
#include "tools/kvmsbox/kvmsbox.h"

static const char *level_name(const struct syscall_row *row)
{
	switch (row->level) {
	case SYSCALL_FULL:
		return "full";
	case SYSCALL_PARTIAL:
		return "partial";
	default:
		return "none";
	}
}

static void usage(void)
{
	printf("usage: kvmsbox syscalls [--markdown]\n\n"
	       "Prints each system call's number, name, support (full, partial, none) and note.\n"
	       "A call without support answers ENOSYS.\n\n"
	       "  --markdown  as a table for documents\n");
}

int cmd_syscalls(int argc, char **argv)
{
	static const struct option options[] = {
		{"markdown", no_argument, NULL, 'm'}, {"help", no_argument, NULL, 'h'}, {0}};
	unsigned int counts[3] = {0};
	bool markdown = false;
	int opt;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		switch (opt) {
		case 'm':
			markdown = true;
			break;
		case 'h':
			usage();
			return 0;
		default:
			return complain("syscalls: unknown option %s: see kvmsbox syscalls --help",
					argv[optind - 1]);
		}
	}
	if (optind < argc)
		return complain("syscalls: unexpected argument \"%s\"", argv[optind]);
	if (markdown)
		printf("| number | name | support | note |\n| --- | --- | --- | --- |\n");
	for (int i = 0; i < SYSCALL_MAX; i++) {
		const struct syscall_row *row = &syscall_table[i];

		if (!row->name)
			continue;
		counts[row->level]++;
		printf(markdown ? "| %d | %s | %s | %s |\n" : "%3d  %-24s %-8s %s\n", i, row->name,
		       level_name(row), row->note);
	}
	printf("\n%u full, %u partial, %u none\n", counts[SYSCALL_FULL], counts[SYSCALL_PARTIAL],
	       counts[SYSCALL_NONE]);
	return 0;
}
