/* SPDX-License-Identifier: Apache-2.0 */
/* kvmsbox: picks the subcommand. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "platform/platform.h"
#include "tools/kvmsbox/kvmsbox.h"

static const struct subcommand {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} subcommands[] = {
	{"exec", cmd_exec, "run a command from an image in a sandbox"},
	{"run", cmd_run, "the same in a sandbox that has a name, or in the background"},
	{"enter", cmd_enter, "run another command in a named sandbox"},
	{"ps", cmd_ps, "list named sandboxes"},
	{"logs", cmd_logs, "show the output of one in the background"},
	{"kill", cmd_kill, "send a signal to its first process"},
	{"wait", cmd_wait, "wait for its end and print its exit status"},
	{"rm", cmd_rm, "remove what is left of it"},
	{"snapshot", cmd_snapshot, "save one that runs to a file"},
	{"restore", cmd_restore, "run a sandbox from a snapshot, as often as wanted"},
	{"inspect", cmd_inspect, "show what is in a snapshot"},
	{"image", cmd_image, "import, list, inspect and remove images"},
	{"serve", cmd_serve, "serve functions over HTTP, each request in a sandbox"},
	{"syscalls", cmd_syscalls, "print which system calls are supported"},
	{"invoke", cmd_invoke, "call a function of kvmsbox serve"},
	{"load", cmd_load, "send a server many requests and tell how fast it answers"},
	{"doctor", cmd_doctor, "tell what this machine offers and what would be used"},
};

#define BRING_IN_MAX (128UL << 10)
#define STACK_BELOW  (20UL << 10) /* what a start needs */
#define STACK_ABOVE  (8UL << 10)

#define NR_SUBCOMMANDS (sizeof(subcommands) / sizeof(subcommands[0]))

int complain(const char *fmt, ...)
{
	char buf[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	/* One line, whatever the arguments hold. */
	for (char *p = buf; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = '?';
	}
	dprintf(STDERR_FILENO, "kvmsbox: %s\n", buf);
	return EXIT_KVMSBOX;
}

/* Made by the linker: all small variables lie between them (sentry/lib/world.h). */
extern char __start_kstate_data[], _end[];

/* Brings in what is going to be written, all at once: a fault for each page costs twice that. */
static void bring_in(uintptr_t start, uintptr_t end)
{
	start = PAGE_ALIGN_DOWN(start);
	end = PAGE_ALIGN_UP(end);
	/* Best effort; with a sanitizer there are megabytes of variables. */
	if (start < end && end - start <= BRING_IN_MAX)
		madvise((void *)start, end - start, MADV_POPULATE_WRITE);
}

void prepare_platform(const char *name)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	platform_prepare(name ? name : "auto");
	/* The platform may have forked: what is written from now on has to be copied. */
	bring_in((uintptr_t)__start_kstate_data, (uintptr_t)_end);
	bring_in(here - STACK_BELOW, here + STACK_ABOVE);
}

bool parse_size(const char *s, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	unsigned int shift = 0;
	unsigned long long v;
	const char *u;
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	v = strtoull(s, &end, 10);
	if (*end) {
		u = strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end);
		if (!u || (end[1] && strcmp(end + 1, "iB") && strcmp(end + 1, "B")))
			return false;
		shift = 10 * ((unsigned int)(u - units) + 1);
	}
	if (v > UINT64_MAX >> shift)
		return false;
	*bytes = v << shift;
	return true;
}

static void usage(FILE *out)
{
	fprintf(out, "usage: kvmsbox COMMAND [OPTIONS] …\n\n"
		     "Runs unmodified Linux programs in a sandbox with its own kernel.\n\n");
	for (size_t i = 0; i < NR_SUBCOMMANDS; i++)
		fprintf(out, "  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
	fprintf(out, "\nkvmsbox COMMAND --help tells more; the manual is kvmsbox(1).\n");
}

bool stdio_was_closed[3];

/*
 * A descriptor among 0 to 2 that the caller closed would be given to the next file opened, and pass
 * for the program's stdio. /dev/null keeps the place.
 */
static void keep_stdio_places(void)
{
	for (int i = 0; i < 3; i++) {
		if (fcntl(i, F_GETFD) >= 0)
			continue;
		stdio_was_closed[i] = true;
		if (open("/dev/null", O_RDWR) < 0)
			return;
	}
}

#ifdef __SANITIZE_ADDRESS__
/* LeakSanitizer waits for ever for calls that a sandbox locked down does not have. */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
#endif

int main(int argc, char **argv)
{
	keep_stdio_places();
	image_importer = import_elsewhere;
	if (argc < 2) {
		usage(stderr);
		return EXIT_KVMSBOX;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version")) {
		printf("kvmsbox " KVMSBOX_VERSION "\n");
		return 0;
	}
	for (size_t i = 0; i < NR_SUBCOMMANDS; i++) {
		if (!strcmp(argv[1], subcommands[i].name))
			return subcommands[i].run(argc - 1, argv + 1);
	}
	return complain("unknown command \"%s\": kvmsbox --help lists them", argv[1]);
}
