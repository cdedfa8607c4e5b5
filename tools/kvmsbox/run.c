/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox run: as exec, but the sandbox has a name under which others find it (store.h), and with
 * -d a process of its own in the background:
 *
 *	the caller			the sandbox's process
 *	options, image
 *	fork, fork
 *	waits on a pipe			own session, registers the name, descriptors to
 *					/dev/null and the log, boots
 *	0: it runs			the sentry writes 0 once init runs
 *	or status and one line		what went wrong; the caller removes the folder
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/platform.h"
#include "sentry/lib/log.h"
#include "tools/kvmsbox/kvmsbox.h"
#include "tools/kvmsbox/sandbox.h"
#include "tools/kvmsbox/store.h"

static const struct verb verb = {
	.id = VERB_RUN,
	.name = "run",
	.synopsis = "[-d] --name NAME [OPTIONS] IMAGE [--] [COMMAND [ARG…]]",
	.about = "Runs COMMAND from the image in a new sandbox, as kvmsbox exec does, that has a "
		 "name:\n"
		 "kvmsbox ps shows it, kvmsbox enter NAME runs further commands in it, and how it "
		 "ended\n"
		 "is kept until kvmsbox rm NAME. With -d it runs in the background; kvmsbox logs "
		 "NAME\n"
		 "shows its output.\n",
};

/* What state.json says beside what store_create adds. */
json_t *sandbox_describe(const struct options *o, const char *image)
{
	json_t *state = json_object(), *command = json_array();
	char *path = realpath(image, NULL);

	for (char **a = o->config.args; *a; a++) {
		json_t *s = json_string(*a);

		/* What isn't UTF-8 can't be shown, but can be run. */
		json_array_append_new(command, s ?: json_string("?"));
	}
	json_object_set_new(state, "version", json_integer(1));
	json_object_set_new(state, "image", json_string(path ?: image) ?: json_string("?"));
	json_object_set_new(state, "command", command);
	json_object_set_new(state, "platform", json_string(o->config.platform));
	json_object_set_new(state, "detached", json_boolean(o->detach));
	free(path);
	return state;
}

/* Which platform it will be, so that state.json can say. */
static int resolve_platform(struct options *o)
{
	const struct platform_type *type;
	char why[256] = "";

	type = platform_find(o->config.platform ? o->config.platform : "auto", why, sizeof(why));
	if (!type)
		return complain("%s", why);
	if (why[0])
		log_info("running on %s: %s", type->name, why);
	o->config.platform = type->name;
	return 0;
}

static int create(struct options *o, struct store *store, const struct sandbox_job *job,
		  struct sandbox_files *files)
{
	json_t *state = job->describe(job, o);
	int status = store_create(store, o->name, state, files);

	json_decref(state);
	if (!status)
		o->config.control_fd = files->control;
	return status;
}

/* The folder of a sandbox that never ran. */
static void forget(struct store *store, const char *name, bool own)
{
	struct sandbox sb;

	if (store_lookup(store, name, &sb))
		return;
	if (own || sandbox_wait(&sb, 5000))
		(void)!store_remove(store, &sb, own);
	sandbox_close(&sb);
}

/* ---- in the foreground ---- */

static int run_here(struct options *o, struct store *store, const struct sandbox_job *job)
{
	struct sandbox_files files;
	struct boot_result result;
	int status = resolve_platform(o);

	if (!status)
		status = create(o, store, job, &files);
	if (status)
		return status;
	job->boot(job, o, &result);
	if (result.error[0])
		complain("%s", result.error);
	if (!result.started)
		forget(store, o->name, true);
	/* Also where the folder couldn't be removed: lockdown came before the failure. */
	sandbox_write_exit(files.exit, result.status, result.error);
	return result.status;
}

/* ---- in the background ---- */

/* Tells the caller why nothing runs. */
static void report(int fd, int status, const char *why)
{
	char buf[1024];
	int n = snprintf(buf, sizeof(buf), "%c%s", status, why);

	(void)!write(fd, buf, (size_t)MIN(n, (int)sizeof(buf) - 1));
}

/* Descriptors 0 to 2 as a daemon's. */
static int leave_terminal(int log)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		return -errno;
	close(null);
	for (int i = 0; i < 3; i++)
		stdio_was_closed[i] = false;
	return chdir("/") ? -errno : 0;
}

/* The sandbox's process. Returns its exit status, for nobody in particular. */
static int run_daemon(struct options *o, struct store *store, const struct sandbox_job *job,
		      int ready)
{
	struct boot_result result = {0};
	struct sandbox_files files;
	int status, err;

	prepare_platform(o->config.platform);
	status = resolve_platform(o);
	if (!status)
		status = create(o, store, job, &files);
	if (status) {
		report(ready, status, "");
		return status;
	}
	err = leave_terminal(files.log);
	if (err) {
		snprintf(result.error, sizeof(result.error), "can't leave the terminal: %s",
			 strerror(-err));
		result.status = EXIT_KVMSBOX;
	} else {
		o->config.ready_fd = ready;
		job->boot(job, o, &result);
	}
	if (!result.started)
		report(ready, result.status, result.error);
	else if (result.error[0])
		complain("%s", result.error);
	sandbox_write_exit(files.exit, result.status, result.error);
	return result.status;
}

/* Waits until it runs, or says why it doesn't. */
static int wait_ready(struct options *o, struct store *store, int fd)
{
	char buf[1024];
	size_t len = 0;
	ssize_t n;

	do {
		n = read(fd, buf + len, sizeof(buf) - 1 - len);
		len += n > 0 ? (size_t)n : 0;
	} while ((n > 0 && buf[0] && len < sizeof(buf) - 1) || (n < 0 && errno == EINTR));
	if (len && !buf[0])
		return 0;
	buf[len] = 0;
	if (!len)
		return complain("%s: sandbox %s died while it was being started: kvmsbox logs %s",
				o->verb->name, o->name, o->name);
	if (buf[1]) {
		complain("%s", buf + 1);
		forget(store, o->name, false);
	}
	return (unsigned char)buf[0];
}

static int run_detached(struct options *o, struct store *store, const struct sandbox_job *job)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return complain("%s: can't make a pipe: %s", o->verb->name, strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return complain("%s: can't make a process: %s", o->verb->name, strerror(errno));
	if (!pid) {
		close(fds[0]);
		setsid();
		/* Not a session leader: it never gets a terminal. */
		pid = fork();
		if (pid < 0)
			report(fds[1],
			       complain("%s: can't make a process: %s", o->verb->name,
					strerror(errno)),
			       "");
		if (pid)
			_exit(0);
		exit(run_daemon(o, store, job, fds[1]));
	}
	close(fds[1]);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return wait_ready(o, store, fds[0]);
}

int sandbox_run_named(struct options *o, struct store *store, const struct sandbox_job *job)
{
	return o->detach ? run_detached(o, store, job) : run_here(o, store, job);
}

int sandbox_check_name(struct options *o, struct store *store)
{
	int status;

	if (!sandbox_name_ok(o->name))
		return complain("%s: --name %s: want letters, digits, '_', '.', '-', the first a "
				"letter or digit, at most %d",
				o->verb->name, o->name, SANDBOX_NAME_MAX);
	status = store_open(store, o->verb->name, o->state_dir, true);
	return status ? status : store_check_free(store, o->name);
}

static json_t *describe(const struct sandbox_job *job, const struct options *o)
{
	return sandbox_describe(o, job->path);
}

static void boot(const struct sandbox_job *job, struct options *o, struct boot_result *result)
{
	sandbox_boot(o, result);
}

int cmd_run(int argc, char **argv)
{
	struct sandbox_job job = {.describe = describe, .boot = boot};
	struct store store;
	struct options o;
	int at, status;

	options_init(&o, &verb);
	at = options_parse(&o, argc, argv, &status);
	if (at < 0)
		return status;
	if (!o.name)
		return complain("run: no name given: kvmsbox run --name NAME IMAGE [COMMAND…]");
	if (at == argc && sandbox_name_ok(o.name))
		return complain("run: no image given: kvmsbox run --name %s IMAGE [COMMAND…]",
				o.name);
	/* Before the image, which may take a while; what counts is store_create. */
	status = sandbox_check_name(&o, &store);
	if (status)
		return status;
	if (!o.detach)
		prepare_platform(o.config.platform);
	status = sandbox_configure(&o, argv[at], argv + at + 1);
	if (status)
		return status;
	job.path = argv[at];
	return sandbox_run_named(&o, &store, &job);
}
