/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sentry/fnchan.h"
#include "tools/kvmsbox/kvmsbox.h"

/* Command and arguments: as docker combines entry point and command. */
static bool set_command(struct options *o, const struct image_config *ic, char **argv)
{
	char **v = NULL;
	size_t n = 0;

	if (o->entrypoint) {
		if (o->entrypoint[0] && !strings_append(&v, &n, strdup(o->entrypoint)))
			return false;
	} else {
		for (char **e = ic->entrypoint; e && *e; e++) {
			if (!strings_append(&v, &n, *e))
				return false;
		}
	}
	for (char **a = *argv || o->entrypoint ? argv : ic->cmd; a && *a; a++) {
		if (!strings_append(&v, &n, *a))
			return false;
	}
	if (!v)
		v = calloc(1, sizeof(*v));
	o->config.args = v;
	return v;
}

/* The image's variables, then a sensible minimum, then the command line's. */
static bool set_environment(struct options *o, const struct image_config *ic)
{
	char **given = o->env, *term = NULL, *api = NULL;
	bool ok = true;

	o->env = NULL;
	o->nenv = 0;
	ok = options_set_env(o, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:"
				"/bin");
	if (o->config.terminal && asprintf(&term, "TERM=%s", getenv("TERM") ?: "xterm") > 0)
		ok = ok && options_set_env(o, term);
	free(term);
	if (o->config.fn_kind == FN_LAMBDA &&
	    asprintf(&api, "AWS_LAMBDA_RUNTIME_API=127.0.0.1:%u", o->config.fn_port ?: 9001) > 0)
		ok = ok && options_set_env(o, api);
	free(api);
	for (char **e = ic->env; e && *e; e++)
		ok = ok && options_set_env(o, *e);
	for (char **e = given; e && *e; e++)
		ok = ok && options_set_env(o, *e);
	o->config.env = o->env;
	return ok;
}

int sandbox_configure(struct options *o, const char *path, char **argv)
{
	struct config *c = &o->config;
	struct image_error error = {0};
	struct image image;
	struct image_config *ic = &image.config;

	if (image_open(path, &o->image, &image, &error))
		return complain("%s", error.message);
	if (*argv && !strcmp(*argv, "--"))
		argv++;
	c->image_fd = image.fd;
	c->image_size = image.size;
	/* In the background nobody looks at a terminal unless it was asked for. */
	c->terminal = !o->no_tty && (o->tty || (!o->detach && isatty(0) && isatty(1)));
	if (!c->cwd && ic->workdir && ic->workdir[0])
		c->cwd = ic->workdir;
	if (!c->user && ic->user && ic->user[0])
		c->user = ic->user;
	if (!set_command(o, ic, argv) || !set_environment(o, ic))
		return complain("out of memory");
	return 0;
}

static void fail(struct boot_result *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void fail(struct boot_result *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->error, sizeof(r->error), fmt, ap);
	va_end(ap);
	r->status = EXIT_KVMSBOX;
}

static void dump_dtb(const char *path, const void *blob, size_t size, struct boot_result *result)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0 || write(fd, blob, size) != (ssize_t)size || close(fd))
		fail(result, "exec: --dump-dtb: %s: %s", path, strerror(errno));
}

/* Descriptors 0–2 under numbers of their own, -1 where closed. A function has none of them. */
static void take_stdio(struct config *c)
{
	for (int i = 0; i < 3; i++)
		c->stdio[i] =
			c->fn_kind || stdio_was_closed[i] ? -1 : fcntl(i, F_DUPFD_CLOEXEC, 10);
}

void sandbox_boot(struct options *o, struct boot_result *result)
{
	const char *verb = o->verb->name;
	void *blob = NULL;
	size_t size;
	int err;

	memset(result, 0, sizeof(*result));
	if (o->strace_stderr)
		o->config.strace_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
	take_stdio(&o->config);
	err = sandbox_config_write(&o->config, &blob, &size);
	if (err) {
		fail(result, "%s: arguments and environment don't fit a device tree: %s", verb,
		     err == -E2BIG ? "Argument list too long" : strerror(-err));
		return;
	}
	if (o->dump_dtb) {
		dump_dtb(o->dump_dtb, blob, size, result);
		free(blob);
		return;
	}
	sentry_run(blob, size, result);
	free(blob);
	if (o->config.stats)
		sentry_print_stats(STDERR_FILENO, result);
}
