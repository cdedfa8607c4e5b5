/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: one file per subcommand, this is what they share. */
#ifndef TOOLS_KVMSBOX_H
#define TOOLS_KVMSBOX_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "loader/image.h"
#include "sentry/boot.h"

#define KVMSBOX_VERSION "0.1.0"

/* Which of descriptors 0 to 2 the caller had closed: they are /dev/null here. */
extern bool stdio_was_closed[3];

/* Each parses argv[1…] (argv[0] is its own name) and returns the exit status. */
int cmd_exec(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_enter(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_logs(int argc, char **argv);
int cmd_kill(int argc, char **argv);
int cmd_wait(int argc, char **argv);
int cmd_rm(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_image(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_syscalls(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
/* kvmsbox-load's. */
int cmd_invoke(int argc, char **argv);
int cmd_load(int argc, char **argv);

/* Lets the platform (NULL: auto) begin, and this process get ready for the sandbox. */
void prepare_platform(const char *name);

/* image_importer: runs kvmsbox-import. */
int import_elsewhere(const char *archive, const struct image_options *options,
		     char hash[IMAGE_HASH_LEN + 1], struct image_error *err);

/* Where a program lies that comes with this one: beside it, or where make install puts it. */
bool find_helper(const char *program, char path[PATH_MAX]);
/* Becomes that program, with argv[0…] as its arguments. Returns only if it can't: the exit status. */
int exec_helper(const char *program, char **argv);

/* Prints "kvmsbox: …" as one line on stderr; returns EXIT_KVMSBOX. */
int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "512", "64K", "100M", "2G" (powers of 1024). Returns false if it is no such size. */
bool parse_size(const char *s, uint64_t *bytes);

#endif
