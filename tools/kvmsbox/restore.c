/* SPDX-License-Identifier: Apache-2.0 */
/* kvmsbox restore: a process that becomes the sandbox of a snapshot. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "sentry/boot.h"
#include "sentry/fnchan.h"
#include "tools/kvmsbox/kvmsbox.h"

#define POLL_AUTO_PERCENT 10

static const struct option options[] = {
	{"channel", required_argument, NULL, 'c'}, {"image-fd", required_argument, NULL, 'i'},
	{"blank", no_argument, NULL, 'b'},	   {"platform", required_argument, NULL, 'p'},
	{"help", no_argument, NULL, 'h'},	   {0},
};

static void usage(void)
{
	printf("usage: kvmsbox restore --image-fd FD|--blank --channel FD [--platform NAME]\n\n"
	       "Becomes the sandbox whose snapshot descriptor FD holds, and serves requests that "
	       "come\n"
	       "over the channel; with --blank the descriptor comes over the channel, too, when "
	       "it\n"
	       "is wanted. kvmsbox serve starts it.\n");
}

static int parse_fd(const char *option, const char *arg, int *fd)
{
	char *end;
	long v;

	errno = 0;
	v = strtol(arg, &end, 10);
	if (!*arg || *end || errno || v < 0 || v > INT_MAX)
		return complain("restore: %s %s: want the number of a descriptor", option, arg);
	*fd = (int)v;
	return 0;
}

/* Waits until the server says what this process is to become. -1: never. */
static int wait_for_image(int channel)
{
	struct fn_msg m;
	struct iovec iov = {&m, sizeof(m)};
	union {
		struct cmsghdr h;
		uint8_t space[CMSG_SPACE(sizeof(int))];
	} c;
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof(c)};
	struct cmsghdr *cm;
	ssize_t n;
	int fd;

	do {
		n = recvmsg(channel, &h, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	cm = n == (ssize_t)sizeof(m) && m.type == FN_IMAGE ? CMSG_FIRSTHDR(&h) : NULL;
	if (!cm || cm->cmsg_type != SCM_RIGHTS || cm->cmsg_len != CMSG_LEN(sizeof(int)))
		return -1;
	memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
	return fd;
}

int cmd_restore(int argc, char **argv)
{
	const char *platform = NULL;
	int opt, image = -1, channel = -1, err = 0;
	bool blank = false;
	struct boot_result result;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "+:h", options, NULL)) != -1 && !err) {
		switch (opt) {
		case 'c':
			err = parse_fd("--channel", optarg, &channel);
			break;
		case 'i':
			err = parse_fd("--image-fd", optarg, &image);
			break;
		case 'p':
			platform = optarg;
			break;
		case 'b':
			blank = true;
			break;
		case 'h':
			usage();
			return 0;
		default:
			return complain("restore: %s %s: see kvmsbox restore --help",
					opt == ':' ? "a value is missing after" : "unknown option",
					argv[optind - 1]);
		}
	}
	if (err)
		return err;
	if ((image < 0) == !blank || channel < 0)
		return complain("restore: --channel and one of --image-fd and --blank are needed");
	if (blank) {
		if (!sentry_restore_prepare(platform ? platform : "auto", &result))
			return complain("restore: %s", result.error);
		image = wait_for_image(channel);
		if (image < 0)
			return 0;
	}
	sentry_restore(image, channel, platform, POLL_AUTO_PERCENT, &result);
	if (result.error[0])
		complain("restore: %s", result.error);
	return result.status;
}
