/* SPDX-License-Identifier: Apache-2.0 */
/* The command line's end of the control socket (control_msg.h). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "sentry/control_msg.h"
#include "tools/kvmsbox/store.h"

int sandbox_connect(const struct sandbox *sb, int ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	snprintf(sun.sun_path, sizeof(sun.sun_path), "/proc/self/fd/%d/control.sock", sb->dir);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) ||
	    connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int control_send(int sock, struct control_msg *m, const int *fds, size_t n)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(CONTROL_MAX_FDS * sizeof(int))];
	} ancillary = {.buf = ""};
	struct iovec iov = {.iov_base = m, .iov_len = sizeof(*m)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *cm;

	m->version = CONTROL_VERSION;
	if (n) {
		msg.msg_control = ancillary.buf;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		cm = CMSG_FIRSTHDR(&msg);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(cm), fds, n * sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The descriptor that came with @msg, or -1. */
static int take_fd(struct msghdr *msg)
{
	struct cmsghdr *cm = CMSG_FIRSTHDR(msg);
	int fd;

	if (!cm || cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS ||
	    cm->cmsg_len != CMSG_LEN(sizeof(int)))
		return -1;
	memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
	return fd;
}

int control_receive_fd(int sock, struct control_msg *m, char *text, int *fd)
{
	char packet[sizeof(*m) + CONTROL_TEXT_MAX];
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} ancillary;
	struct iovec iov = {.iov_base = packet, .iov_len = sizeof(packet)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	do {
		/* Nobody asked for descriptors: there is no room for any. */
		msg.msg_control = fd ? &ancillary : NULL;
		msg.msg_controllen = fd ? sizeof(ancillary) : 0;
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (fd)
		*fd = n > 0 ? take_fd(&msg) : -1;
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (!n)
		return -EPIPE;
	if ((size_t)n < sizeof(*m))
		return -EPROTO;
	memcpy(m, packet, sizeof(*m));
	if (m->version != CONTROL_VERSION || m->len != (size_t)n - sizeof(*m))
		return -EPROTO;
	/* A sandbox isn't trusted to send one line. */
	for (size_t i = 0; i < m->len; i++) {
		char c = packet[sizeof(*m) + i];

		text[i] = (unsigned char)c < ' ' || c == 127 ? '?' : c;
	}
	text[m->len] = 0;
	return 0;
}

int control_receive(int sock, struct control_msg *m, char *text)
{
	return control_receive_fd(sock, m, text, NULL);
}

int control_ask(const struct sandbox *sb, int ms, struct control_msg *m, char *text)
{
	int sock = sandbox_connect(sb, ms), err;

	if (sock < 0)
		return sock;
	err = control_send(sock, m, NULL, 0);
	if (!err)
		err = control_receive(sock, m, text);
	close(sock);
	return err;
}
