/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of the subcommands that make sandboxes (exec, run, restore) and of those that look
 * after named ones (enter, ps, logs, kill, wait, rm, snapshot): one table says which of them takes
 * what, and --help is printed from it.
 */
#ifndef TOOLS_KVMSBOX_OPTIONS_H
#define TOOLS_KVMSBOX_OPTIONS_H

#include "loader/image.h"
#include "sentry/config.h"

enum verb_id {
	VERB_EXEC = 1 << 0,
	VERB_RUN = 1 << 1,
	VERB_ENTER = 1 << 2,
	VERB_PS = 1 << 3,
	VERB_LOGS = 1 << 4,
	VERB_KILL = 1 << 5,
	VERB_WAIT = 1 << 6,
	VERB_RM = 1 << 7,
	VERB_SNAPSHOT = 1 << 8,
	VERB_RESTORE = 1 << 9,
	VERB_INSPECT = 1 << 10,
};

struct verb {
	enum verb_id id;
	const char *name;
	const char *synopsis; /* behind "kvmsbox NAME" */
	const char *about;    /* what it does, some lines */
};

struct options {
	const struct verb *verb;
	struct config config;
	struct image_options image;
	const char *entrypoint;
	const char *dump_dtb;
	char **env;
	size_t nenv;
	bool tty, no_tty;
	bool strace_stderr;
	/* named sandboxes */
	const char *name, *state_dir;
	bool detach, follow, force, json;
	int signo; /* kill -s; 0: not given */
	/* snapshots */
	bool stop, no_verify;
	int image_fd; /* -1: not given; config.fn_channel goes with it */
};

void options_init(struct options *o, const struct verb *verb);
/*
 * Parses options up to the first argument that is none. Returns its index; or -1 with *@status the
 * exit status to end with: help was printed, or a complaint.
 */
int options_parse(struct options *o, int argc, char **argv, int *status);
/* Sets NAME=VALUE in @o's environment, replacing an earlier one. False: out of memory. */
bool options_set_env(struct options *o, const char *assignment);
/* Appends @s to the array of @n strings at *@v. False: out of memory, or @s is NULL. */
bool strings_append(char ***v, size_t *n, char *s);

/* "TERM", "SIGTERM", "15": its number, or 0. */
int parse_signal(const char *s);

#endif
