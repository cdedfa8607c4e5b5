/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox/options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sentry/fnchan.h"
#include "sentry/lib/log.h"
#include "tools/kvmsbox/kvmsbox.h"

#define POLL_AUTO_PERCENT 10
#define STRING(x)	  #x
#define XSTRING(x)	  STRING(x)

enum {
	OPT_PLATFORM = 256,
	OPT_CWD,
	OPT_USER,
	OPT_HOSTNAME,
	OPT_READ_ONLY,
	OPT_MEMORY,
	OPT_CPUS,
	OPT_PIDS,
	OPT_TIMEOUT,
	OPT_UMASK,
	OPT_STRACE,
	OPT_STATS,
	OPT_DUMP_DTB,
	OPT_LOG_LEVEL,
	OPT_CACHE,
	OPT_IMAGE_MAX_BYTES,
	OPT_IMAGE_MAX_ENTRIES,
	OPT_ENTRYPOINT,
	OPT_NO_NEW_PRIVS,
	OPT_NO_REWRITE,
	OPT_POLL,
	OPT_NO_TTY,
	OPT_NAME,
	OPT_STATE,
	OPT_JSON,
	OPT_FUNCTION,
	OPT_CHANNEL,
	OPT_IMAGE_FD,
	OPT_STOP,
	OPT_NO_VERIFY,
};

#define MAKES  (VERB_EXEC | VERB_RUN)			   /* a sandbox */
#define RUNS   (MAKES | VERB_ENTER)			   /* a command */
#define NAMED  (~(unsigned int)(VERB_EXEC | VERB_INSPECT)) /* has to do with named sandboxes */
#define STARTS (MAKES | VERB_RESTORE)

/* In the order of --help. */
static const struct row {
	unsigned int verbs;
	const char *name; /* NULL: a section begins, called help */
	int has_arg;
	int val; /* its letter, if it has one */
	const char *arg;
	const char *help; /* NULL: another name for the row above */
} rows[] = {
	{VERB_RUN, NULL, 0, 0, NULL, "The sandbox"},
	{VERB_RUN, "name", 1, OPT_NAME, "NAME", "letters, digits, '_', '.', '-'; needed"},
	{VERB_RUN, "detach", 0, 'd', NULL, "in the background: returns once it runs"},
	{VERB_RESTORE, NULL, 0, 0, NULL, "The sandbox"},
	{VERB_RESTORE, "name", 1, OPT_NAME, "NAME",
	 "letters, digits, '_', '.', '-'; default: it has none"},
	{VERB_RESTORE, "detach", 0, 'd', NULL,
	 "in the background: returns once it runs; needs a name"},
	{VERB_RESTORE, "no-verify", 0, OPT_NO_VERIFY, NULL,
	 "don't hold its memory against its hashes"},
	{~(unsigned int)STARTS, NULL, 0, 0, NULL, "Options"},
	{VERB_PS, "json", 0, OPT_JSON, NULL, "an array of objects"},
	{VERB_SNAPSHOT, "stop", 0, OPT_STOP, NULL,
	 "end the sandbox once FILE is written; nothing of it runs in\nbetween"},
	{VERB_INSPECT, "json", 0, OPT_JSON, NULL, "an object"},
	{VERB_INSPECT, "no-verify", 0, OPT_NO_VERIFY, NULL, "don't read its memory"},
	{VERB_LOGS, "follow", 0, 'f', NULL, "go on until the sandbox has ended"},
	{VERB_KILL, "signal", 1, 's', "SIG", "name or number; default TERM"},
	{VERB_RM, "force", 0, 'f', NULL, "kill it first if it runs"},
	{NAMED, "state", 1, OPT_STATE, "DIR",
	 "where sandboxes are kept; default $KVMSBOX_STATE, else\n"
	 "/run/kvmsbox for root, $XDG_RUNTIME_DIR/kvmsbox for others"},

	{RUNS, NULL, 0, 0, NULL, "What runs"},
	{RUNS, "cwd", 1, OPT_CWD, "DIR", "working directory in the sandbox"},
	{RUNS, "workdir", 1, OPT_CWD, NULL, NULL},
	{RUNS, "env", 1, 'e', "NAME=VALUE",
	 "set a variable (NAME alone: pass the caller's); repeatable"},
	{MAKES, "user", 1, OPT_USER, "USER[:GROUP]",
	 "name or number; default: the image's, else root"},
	{VERB_ENTER, "user", 1, OPT_USER, "USER[:GROUP]", "name or number; default: the sandbox's"},
	{RUNS, "umask", 1, OPT_UMASK, "MODE", "octal; default 022"},
	{MAKES, "entrypoint", 1, OPT_ENTRYPOINT, "CMD",
	 "replace the image's entry point (\"\" for none)"},
	{RUNS, "no-new-privs", 0, OPT_NO_NEW_PRIVS, NULL, "set-user-id programs gain nothing"},
	{RUNS, "tty", 0, 't', NULL,
	 "give the program a terminal of its own; default when stdin\n"
	 "and stdout are terminals"},
	{RUNS, "no-tty", 0, OPT_NO_TTY, NULL, "don't"},

	{MAKES, NULL, 0, 0, NULL, "What it sees"},
	{MAKES, "hostname", 1, OPT_HOSTNAME, "NAME", ""},
	{MAKES, "volume", 1, 'v', "HOST:GUEST[:ro]", "mount a host directory or file; repeatable"},
	{MAKES, "read-only", 0, OPT_READ_ONLY, NULL, "the root file system can't be written"},

	{MAKES, NULL, 0, 0, NULL, "Limits (sizes take K, M, G)"},
	{MAKES, "memory", 1, OPT_MEMORY, "SIZE", "most memory; the offender is killed"},
	{MAKES, "pids-limit", 1, OPT_PIDS, "N", "most processes and threads"},
	{MAKES, "cpus", 1, OPT_CPUS, "N", "processors the program sees"},
	{STARTS, "timeout", 1, OPT_TIMEOUT, "SECONDS", "then everything is killed, status 124"},
	{MAKES, "image-max-bytes", 1, OPT_IMAGE_MAX_BYTES, "SIZE", "refuse larger images"},
	{MAKES, "image-max-entries", 1, OPT_IMAGE_MAX_ENTRIES, "N", "refuse more files"},

	{STARTS, NULL, 0, 0, NULL, "How it runs"},
	{MAKES, "platform", 1, OPT_PLATFORM, "auto|kvm|systrap|ptrace", ""},
	{VERB_RESTORE, "platform", 1, OPT_PLATFORM, "auto|kvm|systrap|ptrace",
	 "default: the one it was made on"},
	{STARTS, "poll", 1, OPT_POLL, "auto|off|N%",
	 "share of a processor for answering system calls without\n"
	 "an exit while there are none to answer; auto is " XSTRING(POLL_AUTO_PERCENT) "%"},
	{MAKES, "no-rewrite", 0, OPT_NO_REWRITE, NULL,
	 "leave the program's system-call instructions alone"},
	{MAKES, "cache", 1, OPT_CACHE, "DIR", "image cache; default $XDG_CACHE_HOME/kvmsbox"},
	{MAKES, "strace", 2, OPT_STRACE, "FILE", "print system calls on stderr or to FILE"},
	{STARTS, "stats", 0, OPT_STATS, NULL,
	 "print counts of calls and exits on stderr at the end"},
	{VERB_EXEC, "dump-dtb", 1, OPT_DUMP_DTB, "FILE",
	 "write the sandbox's device tree, don't run"},
	{STARTS, "log-level", 1, OPT_LOG_LEVEL, "LEVEL", "error, warn, info, debug or trace"},
	{VERB_EXEC, "function", 1, OPT_FUNCTION, "stdio|http[:PORT]|lambda",
	 "serve requests that come over a channel (kvmsbox serve)"},
	{VERB_EXEC, "channel", 1, OPT_CHANNEL, "FD", "the channel's descriptor"},
	{VERB_RESTORE, "image-fd", 1, OPT_IMAGE_FD, "FD",
	 "no FILE: a function's image is in this descriptor, and\n"
	 "requests come over --channel (kvmsbox serve)"},
	{VERB_RESTORE, "channel", 1, OPT_CHANNEL, "FD", "the channel's descriptor"},
	{~0u, "help", 0, 'h', NULL, ""},
};

/* ---- help ---- */

static void print_row(const struct row *r)
{
	const char *help = r->help, *end;
	char left[64];
	int n = 0;

	if (r->val < 256)
		n = snprintf(left, sizeof(left), "  -%c, --%s", r->val, r->name);
	else
		n = snprintf(left, sizeof(left), "      --%s", r->name);
	if (r->arg)
		snprintf(left + n, sizeof(left) - (size_t)n, r->has_arg == 2 ? "[=%s]" : " %s",
			 r->arg);
	if (*help)
		printf("%-25s  ", left);
	else
		printf("%s\n", left);
	for (; *help; help = *end ? end + 1 : end) {
		end = strchrnul(help, '\n');
		printf("%.*s\n%s", (int)(end - help), help,
		       *end ? "                           " : "");
	}
}

static void print_help(const struct verb *v)
{
	printf("usage: kvmsbox %s %s\n\n%s", v->name, v->synopsis, v->about);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (!rows[i].help || !(rows[i].verbs & v->id))
			continue;
		if (rows[i].name)
			print_row(&rows[i]);
		else
			printf("\n%s\n", rows[i].help);
	}
}

/* ---- values ---- */

bool strings_append(char ***v, size_t *n, char *s)
{
	char **grown = realloc(*v, (*n + 2) * sizeof(*grown));

	if (!grown || !s)
		return false;
	grown[(*n)++] = s;
	grown[*n] = NULL;
	*v = grown;
	return true;
}

bool options_set_env(struct options *o, const char *assignment)
{
	size_t name = strcspn(assignment, "=");

	for (size_t i = 0; i < o->nenv; i++) {
		if (!strncmp(o->env[i], assignment, name) && o->env[i][name] == '=') {
			o->env[i] = strdup(assignment);
			return o->env[i];
		}
	}
	return strings_append(&o->env, &o->nenv, strdup(assignment));
}

static int add_env(struct options *o, const char *arg)
{
	char *assignment = NULL;
	const char *value;
	bool ok;

	if (!*arg || *arg == '=')
		return complain("%s: --env %s: want NAME=VALUE or NAME", o->verb->name, arg);
	if (strchr(arg, '='))
		return options_set_env(o, arg) ? 0 : complain("out of memory");
	value = getenv(arg);
	if (!value)
		return 0;
	if (asprintf(&assignment, "%s=%s", arg, value) < 0)
		return complain("out of memory");
	ok = options_set_env(o, assignment);
	free(assignment);
	return ok ? 0 : complain("out of memory");
}

/* Takes HOST:GUEST[:ro] apart in place: @source becomes HOST. */
static int parse_volume(const struct options *o, struct config_volume *v, const char *arg,
			char *source)
{
	const char *verb = o->verb->name;
	char *target = strchr(source, ':'), *mode;

	if (!target || target == source || target[1] != '/')
		return complain("%s: --volume %s: want HOST:GUEST[:ro] with an absolute GUEST",
				verb, arg);
	*target++ = 0;
	mode = strchr(target, ':');
	if (mode) {
		*mode++ = 0;
		if (strcmp(mode, "ro") && strcmp(mode, "rw"))
			return complain("%s: --volume %s: mode must be ro or rw, not \"%s\"", verb,
					arg, mode);
		v->readonly = !strcmp(mode, "ro");
	}
	v->fd = open(source, O_PATH | O_CLOEXEC);
	if (v->fd < 0)
		return complain("%s: --volume %s: %s: %s", verb, arg, source, strerror(errno));
	v->source = source;
	v->target = target;
	return 0;
}

static int add_volume(struct options *o, const char *arg)
{
	char *source;
	int ret;

	if (o->config.nvolumes == CONFIG_MAX_VOLUMES)
		return complain("%s: more than %d volumes", o->verb->name, CONFIG_MAX_VOLUMES);
	source = strdup(arg);
	if (!source)
		return complain("out of memory");
	ret = parse_volume(o, &o->config.volumes[o->config.nvolumes], arg, source);
	if (ret)
		free(source);
	else
		o->config.nvolumes++;
	return ret;
}

static int parse_number(const struct options *o, const char *option, const char *arg, uint64_t max,
			uint64_t *v)
{
	char *end;

	errno = 0;
	*v = strtoull(arg, &end, 10);
	if (*arg < '0' || *arg > '9' || *end || errno || *v > max)
		return complain("%s: %s %s: want a number up to %lu", o->verb->name, option, arg,
				max);
	return 0;
}

static int parse_u32(const struct options *o, const char *option, const char *arg, uint32_t max,
		     uint32_t *v)
{
	uint64_t n = 0;
	int err = parse_number(o, option, arg, max, &n);

	*v = (uint32_t)n;
	return err;
}

static int parse_timeout(struct options *o, const char *arg)
{
	char *end;
	double s = strtod(arg, &end);

	if (!*arg || *end || !(s > 0) || s > 1e9)
		return complain("%s: --timeout %s: want seconds, more than 0", o->verb->name, arg);
	o->config.timeout_ms = (uint64_t)(s * 1000) ? (uint64_t)(s * 1000) : 1;
	return 0;
}

static int parse_umask(struct options *o, const char *arg)
{
	char *end;
	unsigned long v = strtoul(arg, &end, 8);

	if (*arg < '0' || *arg > '7' || *end || v > 0777)
		return complain("%s: --umask %s: want an octal mode up to 0777", o->verb->name,
				arg);
	o->config.umask = (unsigned int)v;
	return 0;
}

static int parse_bytes(const struct options *o, const char *option, const char *arg,
		       uint64_t *bytes)
{
	if (!parse_size(arg, bytes) || !*bytes)
		return complain("%s: %s %s: want a size like 512M or 2G", o->verb->name, option,
				arg);
	return 0;
}

static int parse_poll(struct options *o, const char *arg)
{
	char *end;
	unsigned long n;

	if (!strcmp(arg, "auto")) {
		o->config.poll_percent = POLL_AUTO_PERCENT;
		return 0;
	}
	if (!strcmp(arg, "off")) {
		o->config.poll_percent = 0;
		return 0;
	}
	n = strtoul(arg, &end, 10);
	if (*arg < '0' || *arg > '9' || strcmp(end, "%") || n > 100)
		return complain("%s: --poll %s: want auto, off or a share like 25%%", o->verb->name,
				arg);
	o->config.poll_percent = (uint32_t)n;
	return 0;
}

static int open_strace(struct options *o, const char *path)
{
	o->strace_stderr = !path;
	if (!path)
		return 0;
	o->config.strace_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
	if (o->config.strace_fd < 0)
		return complain("%s: --strace: %s: %s", o->verb->name, path, strerror(errno));
	return 0;
}

int parse_signal(const char *s)
{
	unsigned long n;
	char *end;

	if (*s >= '0' && *s <= '9') {
		n = strtoul(s, &end, 10);
		return *end || n > 64 ? 0 : (int)n;
	}
	if (!strncasecmp(s, "SIG", 3))
		s += 3;
	for (int sig = 1; sig < 32; sig++) {
		const char *name = sigabbrev_np(sig);

		if (name && !strcasecmp(name, s))
			return sig;
	}
	return 0;
}

/* ---- one option ---- */

static int parse_setting(struct options *o, int opt, char *arg)
{
	struct config *c = &o->config;
	const char *verb = o->verb->name;

	switch (opt) {
	case OPT_PLATFORM:
		if (strcmp(arg, "auto") && strcmp(arg, "kvm") && strcmp(arg, "systrap") &&
		    strcmp(arg, "ptrace"))
			return complain("%s: --platform %s: want auto, kvm, systrap or ptrace",
					verb, arg);
		c->platform = arg;
		break;
	case OPT_CWD:
		if (arg[0] != '/')
			return complain("%s: --cwd %s: want an absolute path in the sandbox", verb,
					arg);
		c->cwd = arg;
		break;
	case OPT_HOSTNAME:
		if (!*arg || strlen(arg) > 64)
			return complain("%s: --hostname %s: want 1 to 64 bytes", verb, arg);
		c->hostname = arg;
		break;
	case OPT_LOG_LEVEL:
		if (log_level_parse(arg, &log_level))
			return complain("%s: --log-level %s: want error, warn, info, debug or "
					"trace",
					verb, arg);
		c->log_level = arg;
		break;
	case OPT_USER:
		c->user = arg;
		break;
	case OPT_READ_ONLY:
		c->readonly = true;
		break;
	case OPT_NO_NEW_PRIVS:
		c->no_new_privs = true;
		break;
	case OPT_NO_REWRITE:
		c->no_rewrite = true;
		break;
	case OPT_STATS:
		c->stats = true;
		break;
	}
	return 0;
}

static int parse_fd(const struct options *o, const char *option, const char *arg, int *fd)
{
	uint32_t v;
	int err = parse_u32(o, option, arg, INT32_MAX, &v);

	if (!err)
		*fd = (int)v;
	return err;
}

static int parse_function(struct options *o, const char *arg)
{
	struct config *c = &o->config;

	if (!strcmp(arg, "stdio"))
		c->fn_kind = FN_STDIO;
	else if (!strcmp(arg, "lambda"))
		c->fn_kind = FN_LAMBDA;
	else if (!strcmp(arg, "http") || !strncmp(arg, "http:", 5))
		c->fn_kind = FN_HTTP;
	else
		return complain("%s: --function %s: want stdio, http, http:PORT or lambda",
				o->verb->name, arg);
	return arg[4] == ':' ? parse_u32(o, "--function http:", arg + 5, 65535, &c->fn_port) : 0;
}

static int parse_named(struct options *o, int opt, char *arg)
{
	switch (opt) {
	case OPT_NAME:
		o->name = arg;
		break;
	case OPT_STATE:
		if (!*arg)
			return complain("%s: --state: want a directory", o->verb->name);
		o->state_dir = arg;
		break;
	case OPT_JSON:
		o->json = true;
		break;
	case 'f':
		if (o->verb->id == VERB_RM)
			o->force = true;
		else
			o->follow = true;
		break;
	case 'd':
		o->detach = true;
		break;
	case OPT_STOP:
		o->stop = true;
		break;
	case OPT_NO_VERIFY:
		o->no_verify = true;
		break;
	case 's':
		o->signo = parse_signal(arg);
		if (!o->signo)
			return complain("%s: --signal %s: want a name like TERM or a number from "
					"1 to 64",
					o->verb->name, arg);
		break;
	}
	return 0;
}

/* Returns 0, or an exit status. */
static int parse_option(struct options *o, int opt, char *arg)
{
	struct config *c = &o->config;

	switch (opt) {
	case 'e':
		return add_env(o, arg);
	case 'v':
		return add_volume(o, arg);
	case OPT_MEMORY:
		return parse_bytes(o, "--memory", arg, &c->memory_limit);
	case OPT_CPUS:
		return parse_u32(o, "--cpus", arg, 1024, &c->ncpus);
	case OPT_PIDS:
		return parse_u32(o, "--pids-limit", arg, INT32_MAX, &c->max_pids);
	case OPT_TIMEOUT:
		return parse_timeout(o, arg);
	case OPT_UMASK:
		return parse_umask(o, arg);
	case OPT_POLL:
		return parse_poll(o, arg);
	case OPT_STRACE:
		return open_strace(o, arg);
	case OPT_IMAGE_MAX_BYTES:
		return parse_bytes(o, "--image-max-bytes", arg, &o->image.max_bytes);
	case OPT_IMAGE_MAX_ENTRIES:
		return parse_number(o, "--image-max-entries", arg, UINT32_MAX,
				    &o->image.max_entries);
	case OPT_FUNCTION:
		return parse_function(o, arg);
	case OPT_CHANNEL:
		return parse_fd(o, "--channel", arg, &c->fn_channel);
	case OPT_IMAGE_FD:
		return parse_fd(o, "--image-fd", arg, &o->image_fd);
	case OPT_CACHE:
		o->image.cache_dir = arg;
		return 0;
	case OPT_ENTRYPOINT:
		o->entrypoint = arg;
		return 0;
	case OPT_DUMP_DTB:
		o->dump_dtb = arg;
		return 0;
	case 't':
		o->tty = true;
		return 0;
	case OPT_NO_TTY:
		o->no_tty = true;
		return 0;
	}
	return parse_setting(o, opt, arg) ?: parse_named(o, opt, arg);
}

/* ---- all of them ---- */

void options_init(struct options *o, const struct verb *verb)
{
	*o = (struct options){
		.verb = verb,
		.image_fd = -1,
		.config = {.umask = 022, .strace_fd = -1, .poll_percent = POLL_AUTO_PERCENT}};
}

/* What of the table is @v's, as getopt wants it. */
static void make_getopt(const struct verb *v, struct option *longs, char *shorts)
{
	*shorts++ = '+';
	*shorts++ = ':';
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (!rows[i].name || !(rows[i].verbs & v->id))
			continue;
		*longs++ = (struct option){rows[i].name, rows[i].has_arg, NULL, rows[i].val};
		if (rows[i].val >= 256)
			continue;
		*shorts++ = (char)rows[i].val;
		if (rows[i].has_arg)
			*shorts++ = ':';
	}
	*longs = (struct option){0};
	*shorts = 0;
}

int options_parse(struct options *o, int argc, char **argv, int *status)
{
	struct option longs[ARRAY_SIZE(rows) + 1];
	char shorts[2 * ARRAY_SIZE(rows) + 3];
	const char *verb = o->verb->name;
	int opt;

	*status = 0;
	make_getopt(o->verb, longs, shorts);
	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (opt == 'h') {
			print_help(o->verb);
			*status = 0;
			return -1;
		}
		if (opt == '?')
			*status = complain("%s: unknown option %s: see kvmsbox %s --help", verb,
					   argv[optind - 1], verb);
		else if (opt == ':')
			*status = complain("%s: option %s needs a value: see kvmsbox %s --help",
					   verb, argv[optind - 1], verb);
		else
			*status = parse_option(o, opt, optarg);
		if (*status)
			return -1;
	}
	return optind;
}
