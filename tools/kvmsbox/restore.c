/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox restore: this process, or one in the background, becomes the sandbox of a snapshot: that
 * of a file; or that of a function, in a descriptor from kvmsbox serve.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "platform/platform.h"
#include "sentry/fnchan.h"
#include "sentry/snapshot_file.h"
#include "tools/kvmsbox/kvmsbox.h"
#include "tools/kvmsbox/sandbox.h"
#include "tools/kvmsbox/snapshot.h"

static const struct verb verb = {
	.id = VERB_RESTORE,
	.name = "restore",
	.synopsis = "[-d] [--name NAME] [OPTIONS] FILE",
	.about =
		"Runs the sandbox in FILE, which kvmsbox snapshot has written: it goes on where it "
		"was,\n"
		"with this command's standard input and output in the places of those it had. FILE "
		"is\n"
		"trusted like a program. Exits as kvmsbox exec does.\n",
};

/* ---- a function's image ---- */

/* Waits until the server says what this process is to become. False: never. */
static bool wait_for_image(int channel, int fds[FN_IMAGE_FDS])
{
	struct fn_msg m;
	struct iovec iov = {&m, sizeof(m)};
	union {
		struct cmsghdr h;
		uint8_t space[CMSG_SPACE(FN_IMAGE_FDS * sizeof(int))];
	} c;
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof(c)};
	struct cmsghdr *cm;
	ssize_t n;

	do {
		n = recvmsg(channel, &h, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	cm = n == (ssize_t)sizeof(m) && m.type == FN_IMAGE ? CMSG_FIRSTHDR(&h) : NULL;
	if (!cm || cm->cmsg_type != SCM_RIGHTS ||
	    cm->cmsg_len != CMSG_LEN(FN_IMAGE_FDS * sizeof(int)))
		return false;
	memcpy(fds, CMSG_DATA(cm), FN_IMAGE_FDS * sizeof(int));
	return true;
}

static int serve_function(const struct options *o)
{
	int channel = o->config.fn_channel, image[FN_IMAGE_FDS] = {o->image_fd, -1};
	struct boot_result result;

	if ((o->image_fd < 0) == !o->blank || channel <= 0)
		return complain("restore: --image-fd and --channel are needed both, or --blank "
				"instead of the first");
	if (o->blank) {
		if (!sentry_restore_prepare(o->config.platform ?: "auto", &result))
			return complain("restore: %s", result.error);
		if (!wait_for_image(channel, image))
			return 0;
	}
	sentry_restore(image, o->config.fn_channel, o->config.platform, o->config.poll_percent,
		       &result);
	if (result.error[0])
		complain("restore: %s", result.error);
	return result.status;
}

/* ---- a file ---- */

static void boot(const struct sandbox_job *job, struct options *o, struct boot_result *result)
{
	struct restore_args args = {
		.file = job->data,
		.platform = o->config.platform,
		.stdio = {0, 1, 2},
		.poll_percent = o->config.poll_percent,
		.timeout_ms = o->config.timeout_ms,
		.control_fd = o->config.control_fd,
		.ready_fd = o->config.ready_fd,
	};

	sentry_restore_file(&args, result);
	if (result->error[0]) {
		char why[sizeof(result->error)];

		memcpy(why, result->error, sizeof(why));
		snprintf(result->error, sizeof(result->error), "restore: %.200s: %.400s", job->path,
			 why);
	}
	if (o->config.stats)
		sentry_print_stats(STDERR_FILENO, result);
}

static json_t *describe(const struct sandbox_job *job, const struct options *o)
{
	json_t *state = sandbox_describe(o, job->path), *args = json_array();

	/* Its command is what its first process was. */
	json_array_append_new(args, json_string(snapshot_command(job->data)) ?: json_string("?"));
	json_object_set_new(state, "command", args);
	return state;
}

static int run(struct options *o, const char *path, const struct snapshot_file *file)
{
	struct sandbox_job job = {.path = path, .describe = describe, .boot = boot, .data = file};
	char *no_args[] = {NULL};
	struct boot_result result;
	struct store store;
	int status;

	o->config.args = no_args;
	if (!o->config.platform)
		o->config.platform = snapshot_platform(file);
	if (o->name) {
		status = sandbox_check_name(o, &store);
		if (status)
			return status;
		if (!o->detach)
			prepare_platform(o->config.platform);
		return sandbox_run_named(o, &store, &job);
	}
	prepare_platform(o->config.platform);
	boot(&job, o, &result);
	if (result.error[0])
		complain("%s", result.error);
	return result.status;
}

int cmd_restore(int argc, char **argv)
{
	struct snapshot_file file;
	struct options o;
	char why[512];
	int at, status;

	options_init(&o, &verb);
	at = options_parse(&o, argc, argv, &status);
	if (at < 0)
		return status;
	if (o.image_fd >= 0 || o.config.fn_channel > 0) {
		if (at < argc || o.name || o.detach)
			return complain(
				"restore: a function's image has no FILE, no name and no -d");
		return serve_function(&o);
	}
	if (at == argc)
		return complain("restore: no snapshot given: kvmsbox restore FILE");
	if (argc - at > 1)
		return complain("restore: too many arguments: kvmsbox restore FILE");
	if (o.detach && !o.name)
		return complain("restore: -d needs a name: kvmsbox restore -d --name NAME FILE");
	if (snapshot_file_open(&file, argv[at], why, sizeof(why)) ||
	    (!o.no_verify && snapshot_file_verify(&file, why, sizeof(why))))
		return complain("restore: %s: %s", argv[at], why);
	return run(&o, argv[at], &file);
}
