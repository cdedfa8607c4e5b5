/* SPDX-License-Identifier: Apache-2.0 */
/* An instance's end of its channel: whole messages, some with a descriptor, in both directions. */
#include "tools/kvmsbox-serve/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_PACKETS 4096
#define MAX_FDS	    8

/* One message that the socket had no room for. */
struct packet {
	struct list_head node;
	int fds[FN_IMAGE_FDS]; /* -1: none */
	size_t len;
	char data[];
};

static void close_fds(const int fds[FN_IMAGE_FDS])
{
	for (int k = 0; k < FN_IMAGE_FDS; k++) {
		if (fds[k] >= 0)
			close(fds[k]);
	}
}

static void free_packets(struct instance *i)
{
	struct packet *p, *tmp;

	list_for_each_entry_safe (p, tmp, &i->out, node) {
		close_fds(p->fds);
		free(p);
	}
	list_init(&i->out);
	i->nout = 0;
}

void channel_close(struct instance *i)
{
	int fd = i->channel.fd;

	if (fd < 0)
		return;
	watch_del(&i->channel);
	close(fd);
	free_packets(i);
}

static void set_events(struct instance *i)
{
	watch_set(&i->channel, (i->paused ? 0 : EPOLLIN) | (i->nout ? EPOLLOUT : 0));
}

void instance_pause(struct instance *i, bool pause)
{
	/* Behind a closed end there is only what is buffered, and that's little. */
	i->paused = pause && !i->lost;
	set_events(i);
}

/* @fds: NULL, or as in a packet. */
static ssize_t send_packet(struct instance *i, const struct iovec *iov, size_t n, const int *fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(FN_IMAGE_FDS * sizeof(int))];
	} control = {0};
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
	size_t nfds = 0;
	ssize_t sent;

	while (fds && nfds < FN_IMAGE_FDS && fds[nfds] >= 0)
		nfds++;
	if (nfds) {
		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, nfds * sizeof(int));
	}
	do
		sent = sendmsg(i->channel.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	if (sent < 0 && (errno == ENOBUFS || errno == ENOMEM))
		return -EAGAIN;
	return sent < 0 ? -errno : sent;
}

static void queue_packet(struct instance *i, const struct fn_msg *m, const void *data, size_t n,
			 const int *fds)
{
	struct packet *p = malloc(sizeof(*p) + sizeof(*m) + n);

	if (!p || i->nout >= MAX_PACKETS) {
		/* Not from here: whoever sends still looks at the instance. */
		free(p);
		i->stuck = true;
		timer_set(&i->timer, loop_now());
		return;
	}
	for (int k = 0; k < FN_IMAGE_FDS; k++)
		p->fds[k] = fds && fds[k] >= 0 ? fcntl(fds[k], F_DUPFD_CLOEXEC, 16) : -1;
	p->len = sizeof(*m) + n;
	memcpy(p->data, m, sizeof(*m));
	if (n)
		memcpy(p->data + sizeof(*m), data, n);
	list_add_tail(&p->node, &i->out);
	i->nout++;
	set_events(i);
}

void instance_send(struct instance *i, const struct fn_msg *m, const void *data, size_t n,
		   const int *fds)
{
	struct fn_msg copy = *m;
	struct iovec iov[2] = {{&copy, sizeof(copy)}, {(void *)(uintptr_t)data, n}};
	ssize_t sent = -EAGAIN;

	if (i->channel.fd < 0)
		return;
	copy.len = (uint32_t)n;
	if (!i->nout)
		sent = send_packet(i, iov, n ? 2 : 1, fds);
	/* Other errors: the channel is closed, and its watch says so. */
	if (sent == -EAGAIN)
		queue_packet(i, &copy, data, n, fds);
}

bool channel_flush(struct instance *i)
{
	struct packet *p;
	struct iovec iov;

	while (!list_empty(&i->out)) {
		p = list_first_entry(&i->out, struct packet, node);
		iov = (struct iovec){p->data, p->len};
		if (send_packet(i, &iov, 1, p->fds) == -EAGAIN)
			return false;
		list_del(&p->node);
		i->nout--;
		close_fds(p->fds);
		free(p);
	}
	set_events(i);
	return true;
}

/* Takes the descriptors out of a message; closes more than there should be. */
static void take_fds(struct msghdr *msg, int taken[FN_IMAGE_FDS])
{
	int fds[MAX_FDS], count = 0;
	struct cmsghdr *c;
	size_t n;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), ARRAY_SIZE(fds));
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		for (size_t k = 0; k < n; k++) {
			if (count < FN_IMAGE_FDS)
				taken[count++] = fds[k];
			else
				close(fds[k]);
		}
	}
}

int channel_receive(struct instance *i, struct fn_msg *m, const char **bytes, int fds[FN_IMAGE_FDS])
{
	static char data[FN_DATA_MAX + 1];
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control;
	struct iovec iov[2] = {{m, sizeof(*m)}, {data, sizeof(data)}};
	struct msghdr msg = {.msg_iov = iov,
			     .msg_iovlen = 2,
			     .msg_control = control.space,
			     .msg_controllen = sizeof(control.space)};
	ssize_t n = recvmsg(i->channel.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	fds[0] = fds[1] = -1;
	*bytes = data;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : 0;
	if (n == 0)
		return 0;
	take_fds(&msg, fds);
	if ((size_t)n < sizeof(*m) || m->len != (size_t)n - sizeof(*m) || m->len > FN_DATA_MAX ||
	    msg.msg_flags & MSG_TRUNC)
		return -EPROTO;
	return 1;
}
