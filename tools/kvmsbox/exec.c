/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox exec: options and the image's configuration become a device tree, and this process the
 * sentry that boots from it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/image.h"
#include "platform/platform.h"
#include "sentry/config.h"
#include "sentry/fnchan.h"
#include "sentry/lib/log.h"
#include "tools/kvmsbox/kvmsbox.h"

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
	OPT_FUNCTION,
	OPT_CHANNEL,
};

#define POLL_AUTO_PERCENT 10

static const struct option options[] = {
	{"platform", required_argument, NULL, OPT_PLATFORM},
	{"cwd", required_argument, NULL, OPT_CWD},
	{"workdir", required_argument, NULL, OPT_CWD},
	{"env", required_argument, NULL, 'e'},
	{"user", required_argument, NULL, OPT_USER},
	{"hostname", required_argument, NULL, OPT_HOSTNAME},
	{"volume", required_argument, NULL, 'v'},
	{"read-only", no_argument, NULL, OPT_READ_ONLY},
	{"memory", required_argument, NULL, OPT_MEMORY},
	{"cpus", required_argument, NULL, OPT_CPUS},
	{"pids-limit", required_argument, NULL, OPT_PIDS},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"tty", no_argument, NULL, 't'},
	{"no-tty", no_argument, NULL, OPT_NO_TTY},
	{"umask", required_argument, NULL, OPT_UMASK},
	{"entrypoint", required_argument, NULL, OPT_ENTRYPOINT},
	{"no-new-privs", no_argument, NULL, OPT_NO_NEW_PRIVS},
	{"no-rewrite", no_argument, NULL, OPT_NO_REWRITE},
	{"poll", required_argument, NULL, OPT_POLL},
	{"strace", optional_argument, NULL, OPT_STRACE},
	{"stats", no_argument, NULL, OPT_STATS},
	{"dump-dtb", required_argument, NULL, OPT_DUMP_DTB},
	{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
	{"cache", required_argument, NULL, OPT_CACHE},
	{"image-max-bytes", required_argument, NULL, OPT_IMAGE_MAX_BYTES},
	{"image-max-entries", required_argument, NULL, OPT_IMAGE_MAX_ENTRIES},
	{"function", required_argument, NULL, OPT_FUNCTION},
	{"channel", required_argument, NULL, OPT_CHANNEL},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static void usage(void)
{
	printf("usage: kvmsbox exec [OPTIONS] IMAGE [--] [COMMAND [ARG…]]\n\n"
	       "Runs COMMAND from the image (a tar of a root file system, a docker save or OCI\n"
	       "archive; plain or gzip, xz, zstd, bzip2) in a new sandbox. Without COMMAND, what "
	       "the\n"
	       "image's configuration names is run. Exits with the command's status; 128+N if "
	       "signal N\n"
	       "ended it; 124 time limit; 125 kvmsbox's own error; 126 can't be run; 127 not "
	       "found.\n\n"
	       "What runs\n"
	       "      --cwd DIR            working directory in the sandbox\n"
	       "  -e, --env NAME=VALUE     set a variable (NAME alone: pass the caller's); "
	       "repeatable\n"
	       "      --user USER[:GROUP]  name or number; default: the image's, else root\n"
	       "      --umask MODE         octal; default 022\n"
	       "      --entrypoint CMD     replace the image's entry point (\"\" for none)\n"
	       "      --no-new-privs       set-user-id programs gain nothing\n"
	       "  -t, --tty                give the program a terminal of its own; default when "
	       "stdin\n"
	       "                           and stdout are terminals\n"
	       "      --no-tty             don't\n\n"
	       "What it sees\n"
	       "      --hostname NAME\n"
	       "  -v, --volume HOST:GUEST[:ro]  mount a host directory or file; repeatable\n"
	       "      --read-only          the root file system can't be written\n\n"
	       "Limits (sizes take K, M, G)\n"
	       "      --memory SIZE        most memory; the offender is killed\n"
	       "      --pids-limit N       most processes and threads\n"
	       "      --cpus N             processors the program sees\n"
	       "      --timeout SECONDS    then everything is killed, status 124\n"
	       "      --image-max-bytes SIZE, --image-max-entries N  refuse larger images\n\n"
	       "How it runs\n"
	       "      --platform auto|kvm|systrap|ptrace\n"
	       "      --poll auto|off|N%%   share of a processor for answering system calls "
	       "without\n"
	       "                           an exit while there are none to answer; auto is %d%%\n"
	       "      --no-rewrite         leave the program's system-call instructions alone\n"
	       "      --cache DIR          image cache; default $XDG_CACHE_HOME/kvmsbox\n"
	       "      --strace[=FILE]      print system calls on stderr or to FILE\n"
	       "      --stats              print counts of calls and exits on stderr at the end\n"
	       "      --dump-dtb FILE      write the sandbox's device tree, don't run\n"
	       "      --log-level error|warn|info|debug|trace\n"
	       "  -h, --help\n",
	       POLL_AUTO_PERCENT);
}

struct exec_options {
	struct config config;
	struct image_options image;
	const char *entrypoint;
	const char *dump_dtb;
	char **env;
	size_t nenv;
	bool tty, no_tty;
};

/* Appends @s to the array of @n strings at *@v. */
static bool append(char ***v, size_t *n, char *s)
{
	char **grown = realloc(*v, (*n + 2) * sizeof(*grown));

	if (!grown || !s)
		return false;
	grown[(*n)++] = s;
	grown[*n] = NULL;
	*v = grown;
	return true;
}

/* Sets NAME=VALUE in @o's environment, replacing an earlier one. */
static bool set_env(struct exec_options *o, const char *assignment)
{
	size_t name = strcspn(assignment, "=");

	for (size_t i = 0; i < o->nenv; i++) {
		if (!strncmp(o->env[i], assignment, name) && o->env[i][name] == '=') {
			o->env[i] = strdup(assignment);
			return o->env[i];
		}
	}
	return append(&o->env, &o->nenv, strdup(assignment));
}

static int add_env(struct exec_options *o, const char *arg)
{
	char *assignment = NULL;
	const char *value;
	bool ok;

	if (!*arg || *arg == '=')
		return complain("exec: --env %s: want NAME=VALUE or NAME", arg);
	if (strchr(arg, '='))
		return set_env(o, arg) ? 0 : complain("out of memory");
	value = getenv(arg);
	if (!value)
		return 0;
	if (asprintf(&assignment, "%s=%s", arg, value) < 0)
		return complain("out of memory");
	ok = set_env(o, assignment);
	free(assignment);
	return ok ? 0 : complain("out of memory");
}

/* Takes HOST:GUEST[:ro] apart in place: @source becomes HOST. */
static int parse_volume(struct config_volume *v, const char *arg, char *source)
{
	char *target = strchr(source, ':'), *mode;

	if (!target || target == source || target[1] != '/')
		return complain("exec: --volume %s: want HOST:GUEST[:ro] with an absolute GUEST",
				arg);
	*target++ = 0;
	mode = strchr(target, ':');
	if (mode) {
		*mode++ = 0;
		if (strcmp(mode, "ro") && strcmp(mode, "rw"))
			return complain("exec: --volume %s: mode must be ro or rw, not \"%s\"", arg,
					mode);
		v->readonly = !strcmp(mode, "ro");
	}
	v->fd = open(source, O_PATH | O_CLOEXEC);
	if (v->fd < 0)
		return complain("exec: --volume %s: %s: %s", arg, source, strerror(errno));
	v->source = source;
	v->target = target;
	return 0;
}

static int add_volume(struct exec_options *o, const char *arg)
{
	char *source;
	int ret;

	if (o->config.nvolumes == CONFIG_MAX_VOLUMES)
		return complain("exec: more than %d volumes", CONFIG_MAX_VOLUMES);
	source = strdup(arg);
	if (!source)
		return complain("out of memory");
	ret = parse_volume(&o->config.volumes[o->config.nvolumes], arg, source);
	if (ret)
		free(source);
	else
		o->config.nvolumes++;
	return ret;
}

static int parse_number(const char *option, const char *arg, uint64_t max, uint64_t *v)
{
	char *end;

	errno = 0;
	*v = strtoull(arg, &end, 10);
	if (*arg < '0' || *arg > '9' || *end || errno || *v > max)
		return complain("exec: %s %s: want a number up to %lu", option, arg, max);
	return 0;
}

static int parse_timeout(struct exec_options *o, const char *arg)
{
	char *end;
	double s = strtod(arg, &end);

	if (!*arg || *end || !(s > 0) || s > 1e9)
		return complain("exec: --timeout %s: want seconds, more than 0", arg);
	o->config.timeout_ms = (uint64_t)(s * 1000) ? (uint64_t)(s * 1000) : 1;
	return 0;
}

static int parse_umask(struct exec_options *o, const char *arg)
{
	char *end;
	unsigned long v = strtoul(arg, &end, 8);

	if (*arg < '0' || *arg > '7' || *end || v > 0777)
		return complain("exec: --umask %s: want an octal mode up to 0777", arg);
	o->config.umask = (unsigned int)v;
	return 0;
}

static int parse_bytes(const char *option, const char *arg, uint64_t *bytes)
{
	if (!parse_size(arg, bytes) || !*bytes)
		return complain("exec: %s %s: want a size like 512M or 2G", option, arg);
	return 0;
}

static int parse_poll(struct exec_options *o, const char *arg)
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
		return complain("exec: --poll %s: want auto, off or a share like 25%%", arg);
	o->config.poll_percent = (uint32_t)n;
	return 0;
}

static int parse_function(struct exec_options *o, const char *arg)
{
	uint64_t port;

	if (!strcmp(arg, "stdio")) {
		o->config.fn_kind = FN_STDIO;
	} else if (!strcmp(arg, "lambda")) {
		o->config.fn_kind = FN_LAMBDA;
	} else if (!strncmp(arg, "http", 4) && (!arg[4] || arg[4] == ':')) {
		o->config.fn_kind = FN_HTTP;
		if (arg[4] && parse_number("--function http:", arg + 5, 65535, &port))
			return EXIT_KVMSBOX;
		o->config.fn_port = arg[4] ? (uint32_t)port : 0;
	} else {
		return complain("exec: --function %s: want stdio, http, http:PORT or lambda", arg);
	}
	return 0;
}

static int open_strace(struct exec_options *o, const char *path)
{
	if (!path)
		o->config.strace_fd = dup(STDERR_FILENO);
	else
		o->config.strace_fd =
			open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
	if (o->config.strace_fd < 0)
		return complain("exec: --strace: %s: %s", path ? path : "stderr", strerror(errno));
	return 0;
}

/* Returns 0, or an exit status + 1. */
static int parse_option(struct exec_options *o, int opt, char *arg)
{
	struct config *c = &o->config;
	uint64_t v;
	int err = 0;

	switch (opt) {
	case OPT_PLATFORM:
		if (strcmp(arg, "auto") && strcmp(arg, "kvm") && strcmp(arg, "systrap") &&
		    strcmp(arg, "ptrace"))
			return complain("exec: --platform %s: want auto, kvm, systrap or ptrace",
					arg);
		c->platform = arg;
		break;
	case OPT_CWD:
		if (arg[0] != '/')
			return complain("exec: --cwd %s: want an absolute path in the sandbox",
					arg);
		c->cwd = arg;
		break;
	case 'e':
		return add_env(o, arg);
	case OPT_USER:
		c->user = arg;
		break;
	case OPT_HOSTNAME:
		if (!*arg || strlen(arg) > 64)
			return complain("exec: --hostname %s: want 1 to 64 bytes", arg);
		c->hostname = arg;
		break;
	case 'v':
		return add_volume(o, arg);
	case OPT_READ_ONLY:
		c->readonly = true;
		break;
	case OPT_MEMORY:
		return parse_bytes("--memory", arg, &c->memory_limit);
	case OPT_CPUS:
		err = parse_number("--cpus", arg, 1024, &v);
		c->ncpus = (uint32_t)v;
		break;
	case OPT_PIDS:
		err = parse_number("--pids-limit", arg, INT32_MAX, &v);
		c->max_pids = (uint32_t)v;
		break;
	case OPT_TIMEOUT:
		return parse_timeout(o, arg);
	case 't':
		o->tty = true;
		break;
	case OPT_NO_TTY:
		o->no_tty = true;
		break;
	case OPT_UMASK:
		return parse_umask(o, arg);
	case OPT_ENTRYPOINT:
		o->entrypoint = arg;
		break;
	case OPT_NO_NEW_PRIVS:
		c->no_new_privs = true;
		break;
	case OPT_NO_REWRITE:
		c->no_rewrite = true;
		break;
	case OPT_POLL:
		return parse_poll(o, arg);
	case OPT_STRACE:
		return open_strace(o, arg);
	case OPT_STATS:
		c->stats = true;
		break;
	case OPT_DUMP_DTB:
		o->dump_dtb = arg;
		break;
	case OPT_LOG_LEVEL:
		if (log_level_parse(arg, &log_level))
			return complain(
				"exec: --log-level %s: want error, warn, info, debug or trace",
				arg);
		c->log_level = arg;
		break;
	case OPT_FUNCTION:
		return parse_function(o, arg);
	case OPT_CHANNEL:
		err = parse_number("--channel", arg, INT32_MAX, &v);
		c->fn_channel = (int)v;
		break;
	case OPT_CACHE:
		o->image.cache_dir = arg;
		break;
	case OPT_IMAGE_MAX_BYTES:
		return parse_bytes("--image-max-bytes", arg, &o->image.max_bytes);
	case OPT_IMAGE_MAX_ENTRIES:
		return parse_number("--image-max-entries", arg, UINT32_MAX, &o->image.max_entries);
	}
	return err;
}

/* Command and arguments: as docker combines entry point and command. */
static bool set_command(struct exec_options *o, const struct image_config *ic, char **argv)
{
	char **v = NULL;
	size_t n = 0;

	if (o->entrypoint) {
		if (o->entrypoint[0] && !append(&v, &n, strdup(o->entrypoint)))
			return false;
	} else {
		for (char **e = ic->entrypoint; e && *e; e++) {
			if (!append(&v, &n, *e))
				return false;
		}
	}
	for (char **a = *argv || o->entrypoint ? argv : ic->cmd; a && *a; a++) {
		if (!append(&v, &n, *a))
			return false;
	}
	if (!v)
		v = calloc(1, sizeof(*v));
	o->config.args = v;
	return v;
}

/* The image's variables, then a sensible minimum, then the command line's. */
static bool set_environment(struct exec_options *o, const struct image_config *ic)
{
	char **given = o->env, *term = NULL;
	bool ok = true;

	o->env = NULL;
	o->nenv = 0;
	ok = set_env(o, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	if (o->config.terminal && asprintf(&term, "TERM=%s", getenv("TERM") ?: "xterm") > 0)
		ok = ok && set_env(o, term);
	free(term);
	for (char **e = ic->env; e && *e; e++)
		ok = ok && set_env(o, *e);
	for (char **e = given; e && *e; e++)
		ok = ok && set_env(o, *e);
	o->config.env = o->env;
	return ok;
}

static int dump_dtb(const char *path, const void *blob, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0 || write(fd, blob, size) != (ssize_t)size || close(fd))
		return complain("exec: --dump-dtb: %s: %s", path, strerror(errno));
	return 0;
}

/* Descriptors 0–2 under numbers of their own, -1 where closed. */
static void take_stdio(struct config *c)
{
	for (int i = 0; i < 3; i++)
		c->stdio[i] = stdio_was_closed[i] ? -1 : fcntl(i, F_DUPFD_CLOEXEC, 10);
}

static int boot(struct exec_options *o)
{
	struct boot_result result;
	size_t size;
	void *blob;
	int fd, err;

	if (!o->config.fn_kind)
		take_stdio(&o->config);
	err = sandbox_config_write(&o->config, &blob, &size);
	if (err)
		return complain("exec: arguments and environment don't fit a device tree: %s",
				err == -E2BIG ? "Argument list too long" : strerror(-err));
	if (o->dump_dtb)
		return dump_dtb(o->dump_dtb, blob, size);
	fd = sandbox_config_memfd(blob, size);
	if (fd < 0)
		return complain("exec: can't make the configuration file: %s", strerror(-fd));
	free(blob);
	sentry_run(fd, &result);
	if (o->config.stats)
		sentry_print_stats(STDERR_FILENO, &result);
	if (result.error[0])
		complain("%s", result.error);
	return result.status;
}

int cmd_exec(int argc, char **argv)
{
	struct exec_options o = {
		.config = {.umask = 022, .strace_fd = -1, .poll_percent = POLL_AUTO_PERCENT}};
	struct image_error error = {0};
	struct image image;
	int opt, err;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "+:e:v:th", options, NULL)) != -1) {
		if (opt == 'h') {
			usage();
			return 0;
		}
		if (opt == '?')
			return complain("exec: unknown option %s: see kvmsbox exec --help",
					argv[optind - 1]);
		if (opt == ':')
			return complain("exec: option %s needs a value: see kvmsbox exec --help",
					argv[optind - 1]);
		err = parse_option(&o, opt, optarg);
		if (err)
			return err;
	}
	if (optind == argc)
		return complain("exec: no image given: kvmsbox exec IMAGE [COMMAND…]");
	if (!o.dump_dtb)
		platform_prepare(o.config.platform ? o.config.platform : "auto");
	if (image_open(argv[optind], &o.image, &image, &error))
		return complain("%s", error.message);
	optind++;
	if (optind < argc && !strcmp(argv[optind], "--"))
		optind++;
	o.config.image_fd = image.fd;
	o.config.image_size = image.size;
	o.config.terminal = !o.no_tty && (o.tty || (isatty(0) && isatty(1)));
	if (!o.config.cwd && image.config.workdir && image.config.workdir[0])
		o.config.cwd = image.config.workdir;
	if (!o.config.user && image.config.user && image.config.user[0])
		o.config.user = image.config.user;
	if (!set_command(&o, &image.config, argv + optind) || !set_environment(&o, &image.config))
		return complain("out of memory");
	return boot(&o);
}
