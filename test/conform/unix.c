/* SPDX-License-Identifier: Apache-2.0 */
/* AF_UNIX sockets: the three types, names, options, ancillary data. */
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "test/conform/conform.h"

static int s[2];

static void pair(int type)
{
	CHECK_OK(socketpair(AF_UNIX, type, 0, s));
}

static struct sockaddr_un name_of(const char *path, socklen_t *len)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	*len = offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
	return a;
}

static int bind_path(int fd, const char *path)
{
	socklen_t len;
	struct sockaddr_un a = name_of(path, &len);

	return bind(fd, (struct sockaddr *)&a, len);
}

static int connect_path(int fd, const char *path)
{
	socklen_t len;
	struct sockaddr_un a = name_of(path, &len);

	return connect(fd, (struct sockaddr *)&a, len);
}

static int listener(const char *path, int type)
{
	int fd = CHECK_OK(socket(AF_UNIX, type, 0));

	CHECK_OK(bind_path(fd, path));
	CHECK_OK(listen(fd, 5));
	return fd;
}

TEST(socket_arguments)
{
	CHECK_ERRNO(socket(AF_UNIX, 99, 0), EINVAL);
	CHECK_ERRNO(socket(AF_UNIX, SOCK_STREAM, 5), EPROTONOSUPPORT);
	CHECK_ERRNO(socket(9999, SOCK_STREAM, 0), EAFNOSUPPORT);
	CHECK_ERRNO(socket(AF_UNIX, SOCK_STREAM | 0x100000, 0), EINVAL);
	CHECK_EQ(fcntl(CHECK_OK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), F_GETFD),
		 FD_CLOEXEC);
	CHECK(fcntl(CHECK_OK(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)), F_GETFL) &
	      O_NONBLOCK);
}

TEST(stream_pair)
{
	char buf[16];

	pair(SOCK_STREAM);
	CHECK_EQ(write(s[0], "hel", 3), 3);
	CHECK_EQ(write(s[0], "lo", 2), 2);
	CHECK_EQ(read(s[1], buf, 16), 5);
	CHECK_EQ(write(s[1], "back", 4), 4);
	CHECK_EQ(read(s[0], buf, 2), 2);
	CHECK_EQ(read(s[0], buf, 16), 2);
}

TEST(dgram_pair_keeps_boundaries)
{
	char buf[16];

	pair(SOCK_DGRAM);
	CHECK_EQ(write(s[0], "one", 3), 3);
	CHECK_EQ(write(s[0], "", 0), 0);
	CHECK_EQ(write(s[0], "three", 5), 5);
	CHECK_EQ(read(s[1], buf, 16), 3);
	CHECK_EQ(read(s[1], buf, 16), 0);
	CHECK_EQ(read(s[1], buf, 2), 2);
	CHECK_ERRNO(recv(s[1], buf, 16, MSG_DONTWAIT), EAGAIN);
}

TEST(seqpacket_pair)
{
	char buf[16];

	pair(SOCK_SEQPACKET);
	CHECK_EQ(send(s[0], "one", 3, 0), 3);
	CHECK_EQ(send(s[0], "two!", 4, 0), 4);
	CHECK_EQ(recv(s[1], buf, 16, 0), 3);
	CHECK_EQ(recv(s[1], buf, 16, 0), 4);
	CHECK_OK(close(s[0]));
	CHECK_EQ(recv(s[1], buf, 16, 0), 0);
}

TEST(stream_connect_accept)
{
	int l = listener("sock", SOCK_STREAM), c, a;
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	char buf[8];

	c = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));
	CHECK_OK(connect_path(c, "sock"));
	a = CHECK_OK(accept4(l, (struct sockaddr *)&addr, &len, SOCK_CLOEXEC | SOCK_NONBLOCK));
	CHECK_EQ(len, sizeof(sa_family_t));	/* the client has no name */
	CHECK_EQ(addr.sun_family, AF_UNIX);
	CHECK_EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
	CHECK_ERRNO(read(a, buf, 8), EAGAIN);
	CHECK_EQ(write(c, "hi", 2), 2);
	CHECK_EQ(read(a, buf, 8), 2);
	CHECK_ERRNO(accept4(l, NULL, NULL, 0x1234), EINVAL);
}

TEST(names)
{
	int l = listener("the-name", SOCK_STREAM), c;
	struct sockaddr_un a;
	socklen_t len = sizeof(a);

	CHECK_OK(getsockname(l, (struct sockaddr *)&a, &len));
	CHECK_STR(a.sun_path, "the-name");
	CHECK_EQ(len, 2 + 9);
	c = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));
	len = sizeof(a);
	CHECK_ERRNO(getpeername(c, (struct sockaddr *)&a, &len), ENOTCONN);
	CHECK_OK(connect_path(c, "the-name"));
	len = sizeof(a);
	CHECK_OK(getpeername(c, (struct sockaddr *)&a, &len));
	CHECK_STR(a.sun_path, "the-name");
	len = 4;
	CHECK_OK(getsockname(l, (struct sockaddr *)&a, &len));
	CHECK_EQ(len, 11);	/* truncated, but the length is told */
}

TEST(bind_makes_a_file)
{
	struct stat st;

	umask(027);
	CHECK_OK(close(listener("sock", SOCK_STREAM)));
	CHECK_OK(stat("sock", &st));
	CHECK(S_ISSOCK(st.st_mode));
	CHECK_EQ(st.st_mode & 0777, 0750);
}

TEST(bind_errors)
{
	int fd = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));

	PUT_FILE("f", "");
	CHECK_ERRNO(bind_path(fd, "f"), EADDRINUSE);
	CHECK_ERRNO(bind_path(fd, "no/sock"), ENOENT);
	CHECK_ERRNO(bind(fd, (struct sockaddr *)&(struct sockaddr){ AF_INET, { 0 } }, 16), EINVAL);
	CHECK_ERRNO(bind(fd, (struct sockaddr *)&(struct sockaddr){ AF_UNIX, { 0 } }, 200), EINVAL);
	CHECK_OK(bind_path(fd, "a"));
	CHECK_ERRNO(bind_path(fd, "b"), EINVAL);
}

TEST(connect_errors)
{
	int fd = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), l;

	PUT_FILE("f", "");
	CHECK_ERRNO(connect_path(fd, "missing"), ENOENT);
	CHECK_ERRNO(connect_path(fd, "f"), ECONNREFUSED);
	CHECK_OK(close(listener("dead", SOCK_STREAM)));
	CHECK_ERRNO(connect_path(fd, "dead"), ECONNREFUSED);
	l = CHECK_OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	CHECK_OK(bind_path(l, "dgram"));
	CHECK_ERRNO(connect_path(fd, "dgram"), EPROTOTYPE);
	listener("ok", SOCK_STREAM);
	CHECK_OK(connect_path(fd, "ok"));
	CHECK_ERRNO(connect_path(fd, "ok"), EISCONN);
}

TEST(connect_needs_write_permission)
{
	pid_t pid;

	NEED_ROOT();
	listener("sock", SOCK_STREAM);
	CHECK_OK(chmod("sock", 0755));
	pid = FORK();
	if (!pid) {
		BECOME_NOBODY();
		CHECK_ERRNO(connect_path(CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), "sock"),
			    EACCES);
		_exit(0);
	}
	JOIN(pid);
}

TEST(connect_backlog_full)
{
	int l = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), c = -1, r = 0;

	CHECK_OK(bind_path(l, "sock"));
	CHECK_OK(listen(l, 2));
	for (int i = 0; i < 10 && !r; i++) {
		c = CHECK_OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
		r = connect_path(c, "sock");
	}
	CHECK_EQ(r, -1);
	CHECK_ERRNO(connect_path(c, "sock"), EAGAIN);
	CHECK_OK(accept(l, NULL, NULL));
	CHECK_OK(connect_path(c, "sock"));
}

TEST(accept_errors)
{
	int fd = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), l = listener("s", SOCK_STREAM);

	CHECK_ERRNO(accept(fd, NULL, NULL), EINVAL);
	CHECK_ERRNO(accept(0, NULL, NULL), ENOTSOCK);
	CHECK_OK(fcntl(l, F_SETFL, O_NONBLOCK));
	CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
	CHECK_ERRNO(listen(CHECK_OK(socket(AF_UNIX, SOCK_DGRAM, 0)), 1), EOPNOTSUPP);
	CHECK_ERRNO(listen(fd, 1), EINVAL);	/* not bound */
}

TEST(abstract_names)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX }, b;
	socklen_t len = 2 + 10, blen = sizeof(b);
	int l = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), c;
	pid_t pid = getpid();

	memcpy(a.sun_path, "\0conf\0", 6);
	memcpy(a.sun_path + 6, &pid, 4);	/* zero bytes inside count */
	CHECK_OK(bind(l, (struct sockaddr *)&a, len));
	CHECK_OK(listen(l, 1));
	c = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));
	CHECK_ERRNO(bind(c, (struct sockaddr *)&a, len), EADDRINUSE);
	CHECK_OK(connect(c, (struct sockaddr *)&a, len));
	CHECK_OK(getpeername(c, (struct sockaddr *)&b, &blen));
	CHECK_EQ(blen, len);
	CHECK(!memcmp(&a, &b, len));
	CHECK_OK(close(l));
	CHECK_ERRNO(connect(CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&a, len),
		    ECONNREFUSED);
}

TEST(autobind)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(a);
	int fd = CHECK_OK(socket(AF_UNIX, SOCK_DGRAM, 0));

	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)));
	CHECK_OK(getsockname(fd, (struct sockaddr *)&a, &len));
	CHECK_EQ(len, 2 + 6);
	CHECK_EQ(a.sun_path[0], 0);
}

TEST(dgram_sendto_and_sender_name)
{
	int r = CHECK_OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	int t = CHECK_OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	socklen_t len, alen;
	struct sockaddr_un to = name_of("receiver", &len), from;
	char buf[8];

	CHECK_OK(bind_path(r, "receiver"));
	CHECK_OK(bind_path(t, "sender"));
	CHECK_EQ(sendto(t, "dg", 2, 0, (struct sockaddr *)&to, len), 2);
	alen = sizeof(from);
	CHECK_EQ(recvfrom(r, buf, 8, 0, (struct sockaddr *)&from, &alen), 2);
	CHECK_STR(from.sun_path, "sender");
	CHECK_ERRNO(send(t, "x", 1, 0), ENOTCONN);
	CHECK_OK(connect_path(t, "receiver"));
	CHECK_EQ(send(t, "x", 1, 0), 1);
	CHECK_OK(close(r));
	CHECK_ERRNO(send(t, "x", 1, 0), ECONNREFUSED);
}

TEST(shutdown_write)
{
	char c;

	pair(SOCK_STREAM);
	CHECK_EQ(write(s[0], "x", 1), 1);
	CHECK_OK(shutdown(s[0], SHUT_WR));
	CHECK_EQ(read(s[1], &c, 1), 1);
	CHECK_EQ(read(s[1], &c, 1), 0);
	signal(SIGPIPE, SIG_IGN);
	CHECK_ERRNO(write(s[0], "x", 1), EPIPE);
	CHECK_EQ(write(s[1], "y", 1), 1);
	CHECK_EQ(read(s[0], &c, 1), 1);
}

TEST(shutdown_read_and_errors)
{
	char c;

	pair(SOCK_STREAM);
	CHECK_OK(shutdown(s[0], SHUT_RD));
	CHECK_EQ(read(s[0], &c, 1), 0);
	signal(SIGPIPE, SIG_IGN);
	CHECK_ERRNO(write(s[1], "x", 1), EPIPE);
	CHECK_ERRNO(shutdown(s[0], 9), EINVAL);
	CHECK_OK(shutdown(CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), SHUT_RD));
	CHECK_ERRNO(shutdown(0, SHUT_RD), ENOTSOCK);
}

TEST(peer_close)
{
	pid_t pid;
	char c;

	pair(SOCK_STREAM);
	CHECK_OK(close(s[1]));
	CHECK_EQ(read(s[0], &c, 1), 0);
	CHECK_ERRNO(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	pid = FORK();
	if (!pid) {
		CHECK_OK(send(s[0], "x", 1, 0));
		_exit(0);
	}
	CHECK_SIGNALED(pid, SIGPIPE);
}

TEST(close_with_unread_data_resets)
{
	char c;

	pair(SOCK_STREAM);
	CHECK_EQ(write(s[0], "x", 1), 1);
	CHECK_OK(close(s[1]));
	CHECK_ERRNO(read(s[0], &c, 1), ECONNRESET);
	CHECK_EQ(read(s[0], &c, 1), 0);
}

TEST(msg_peek)
{
	char buf[8];

	pair(SOCK_STREAM);
	CHECK_EQ(write(s[0], "peek", 4), 4);
	CHECK_EQ(recv(s[1], buf, 8, MSG_PEEK), 4);
	CHECK_EQ(recv(s[1], buf, 2, MSG_PEEK), 2);
	CHECK_EQ(recv(s[1], buf, 8, 0), 4);
	CHECK_ERRNO(recv(s[1], buf, 8, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
}

TEST(msg_waitall)
{
	char buf[8];
	pid_t pid;

	pair(SOCK_STREAM);
	pid = FORK();
	if (!pid) {
		for (int i = 0; i < 4; i++) {
			CHECK_EQ(write(s[0], "ab", 2), 2);
			msleep(10);
		}
		_exit(0);
	}
	CHECK_EQ(recv(s[1], buf, 8, MSG_WAITALL), 8);
	JOIN(pid);
	CHECK_EQ(write(s[0], "xyz", 3), 3);
	CHECK_OK(close(s[0]));
	CHECK_EQ(recv(s[1], buf, 8, MSG_WAITALL), 3);
}

TEST(msg_trunc)
{
	char buf[4];
	struct iovec v = { buf, 3 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

	pair(SOCK_DGRAM);
	CHECK_EQ(write(s[0], "12345", 5), 5);
	CHECK_EQ(recvmsg(s[1], &m, 0), 3);
	CHECK_EQ(m.msg_flags & MSG_TRUNC, MSG_TRUNC);
	CHECK_EQ(write(s[0], "12345", 5), 5);
	CHECK_EQ(recv(s[1], buf, 3, MSG_TRUNC), 5);	/* the real length */
}

TEST(sendmsg_vectors)
{
	char a[2], b[8];
	struct iovec w[2] = { { "abc", 3 }, { "def", 3 } }, r[2] = { { a, 2 }, { b, 8 } };
	struct msghdr m = { .msg_iov = w, .msg_iovlen = 2 };

	pair(SOCK_SEQPACKET);
	CHECK_EQ(sendmsg(s[0], &m, 0), 6);
	m = (struct msghdr){ .msg_iov = r, .msg_iovlen = 2 };
	CHECK_EQ(recvmsg(s[1], &m, 0), 6);
	CHECK(!memcmp(a, "ab", 2) && !memcmp(b, "cdef", 4));
	CHECK_EQ(m.msg_flags & MSG_EOR, 0);
}

TEST(sendmmsg_recvmmsg)
{
	char bufs[4][8];
	struct iovec v[4];
	struct mmsghdr m[4];

	pair(SOCK_DGRAM);
	memset(m, 0, sizeof(m));
	for (int i = 0; i < 3; i++) {
		v[i] = (struct iovec){ "abcdef", i + 1 };
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	CHECK_EQ(sendmmsg(s[0], m, 3, 0), 3);
	CHECK_EQ(m[2].msg_len, 3);
	for (int i = 0; i < 4; i++) {
		v[i] = (struct iovec){ bufs[i], 8 };
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
		m[i].msg_len = 0;
	}
	CHECK_EQ(recvmmsg(s[1], m, 4, MSG_DONTWAIT, NULL), 3);
	CHECK_EQ(m[0].msg_len, 1);
	CHECK_EQ(m[2].msg_len, 3);
	CHECK_ERRNO(recvmmsg(s[1], m, 4, MSG_DONTWAIT, NULL), EAGAIN);
}

/* Sends one byte and these descriptors. */
static int send_fds(int sock, const int *fds, int n)
{
	char control[CMSG_SPACE(sizeof(int) * 8)];
	struct iovec v = { "F", 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = CMSG_SPACE(sizeof(int) * n) };
	struct cmsghdr *c;

	memset(control, 0, sizeof(control));
	c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * n);
	memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
	return sendmsg(sock, &m, 0);
}

/* Receives up to max descriptors; the number, and the message's flags in *flags. */
static int recv_fds(int sock, int *fds, int max, int rflags, int *flags)
{
	char control[CMSG_SPACE(sizeof(int) * 8)], byte;
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = max ? control : NULL,
			    .msg_controllen = max ? CMSG_LEN(sizeof(int) * max) : 0 };
	struct cmsghdr *c;
	int n;

	CHECK_EQ(recvmsg(sock, &m, rflags), 1);
	*flags = m.msg_flags;
	c = CMSG_FIRSTHDR(&m);
	if (!c)
		return 0;
	CHECK_EQ(c->cmsg_level, SOL_SOCKET);
	CHECK_EQ(c->cmsg_type, SCM_RIGHTS);
	n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(c), n * sizeof(int));
	return n;
}

TEST(scm_rights)
{
	int fds[2], got[8], flags;
	char c;

	pair(SOCK_STREAM);
	PUT_FILE("f", "passed");
	fds[0] = CHECK_OK(open("f", O_RDONLY));
	CHECK_OK(lseek(fds[0], 4, SEEK_SET));
	fds[1] = CHECK_OK(open("/dev/null", O_WRONLY));
	CHECK_OK(send_fds(s[0], fds, 2));
	CHECK_OK(close(fds[0]));
	CHECK_EQ(recv_fds(s[1], got, 8, 0, &flags), 2);
	CHECK(!(flags & MSG_CTRUNC));
	CHECK_EQ(read(got[0], &c, 1), 1);
	CHECK_EQ(c, 'e');	/* the same open file, offset included */
	CHECK_EQ(fcntl(got[0], F_GETFD), 0);
}

TEST(scm_rights_between_processes)
{
	int fd[2], got[8], flags;
	pid_t pid;
	char c;

	pair(SOCK_STREAM);
	pid = FORK();
	if (!pid) {
		CHECK_OK(pipe(fd));
		CHECK_OK(send_fds(s[0], fd, 1));
		CHECK_EQ(write(fd[1], "p", 1), 1);
		_exit(0);
	}
	CHECK_EQ(recv_fds(s[1], got, 8, 0, &flags), 1);
	JOIN(pid);
	CHECK_EQ(read(got[0], &c, 1), 1);
	CHECK_EQ(c, 'p');
	CHECK_EQ(read(got[0], &c, 1), 0);
}

TEST(scm_rights_cloexec_and_truncation)
{
	int fds[3] = { 0, 1, 2 }, got[8], flags, before;

	pair(SOCK_STREAM);
	CHECK_OK(send_fds(s[0], fds, 1));
	CHECK_EQ(recv_fds(s[1], got, 8, MSG_CMSG_CLOEXEC, &flags), 1);
	CHECK_EQ(fcntl(got[0], F_GETFD), FD_CLOEXEC);
	CHECK_OK(send_fds(s[0], fds, 3));
	before = CHECK_OK(dup(0));
	CHECK_OK(close(before));
	CHECK_EQ(recv_fds(s[1], got, 1, 0, &flags), 1);
	CHECK(flags & MSG_CTRUNC);
	CHECK_OK(send_fds(s[0], fds, 1));
	CHECK_EQ(recv_fds(s[1], got, 0, 0, &flags), 0);
	CHECK(flags & MSG_CTRUNC);
	/* What did not fit is closed, not leaked: only one more descriptor is in use. */
	CHECK_EQ(dup(0), before + 1);
}

TEST(scm_rights_errors)
{
	int bad[1] = { 190 };

	pair(SOCK_STREAM);
	CHECK_ERRNO(send_fds(s[0], bad, 1), EBADF);
}

/* A read goes on up to the message that carries descriptors, and not beyond it. */
TEST(scm_rights_ends_a_read)
{
	int fds[1] = { 0 };
	char buf[8];

	pair(SOCK_STREAM);
	CHECK_EQ(write(s[0], "A", 1), 1);
	CHECK_OK(send_fds(s[0], fds, 1));
	CHECK_EQ(write(s[0], "B", 1), 1);
	CHECK_EQ(read(s[1], buf, 8), 2);
	CHECK(!memcmp(buf, "AF", 2));
	CHECK_EQ(read(s[1], buf, 8), 1);
	CHECK_EQ(buf[0], 'B');
}

TEST(scm_rights_queued_file_survives)
{
	int fds[1], got[8], flags;
	char c;

	pair(SOCK_STREAM);
	PUT_FILE("f", "q");
	fds[0] = CHECK_OK(open("f", O_RDONLY));
	CHECK_OK(send_fds(s[0], fds, 1));
	CHECK_OK(close(fds[0]));
	CHECK_OK(unlink("f"));
	CHECK_OK(close(s[0]));
	CHECK_EQ(recv_fds(s[1], got, 8, 0, &flags), 1);
	CHECK_EQ(read(got[0], &c, 1), 1);
}

TEST(scm_credentials)
{
	char control[CMSG_SPACE(sizeof(struct ucred))], byte;
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	struct ucred cred;
	int on = 1;
	pid_t pid;

	pair(SOCK_STREAM);
	CHECK_OK(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
	pid = FORK();
	if (!pid)
		_exit(write(s[0], "x", 1) == 1 ? 0 : 1);
	CHECK_EQ(recvmsg(s[1], &m, 0), 1);
	c = CMSG_FIRSTHDR(&m);
	CHECK(c);
	CHECK_EQ(c->cmsg_type, SCM_CREDENTIALS);
	memcpy(&cred, CMSG_DATA(c), sizeof(cred));
	CHECK_EQ(cred.pid, pid);
	CHECK_EQ(cred.uid, geteuid());
	JOIN(pid);
}

TEST(so_peercred)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	pair(SOCK_STREAM);
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &cred, &len));
	CHECK_EQ(cred.pid, getpid());
	CHECK_EQ(cred.uid, geteuid());
	CHECK_EQ(cred.gid, getegid());
}

TEST(socket_options)
{
	int v = -1;
	socklen_t len = sizeof(v);

	pair(SOCK_STREAM);
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_TYPE, &v, &len));
	CHECK_EQ(v, SOCK_STREAM);
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_DOMAIN, &v, &len));
	CHECK_EQ(v, AF_UNIX);
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_ERROR, &v, &len));
	CHECK_EQ(v, 0);
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_ACCEPTCONN, &v, &len));
	CHECK_EQ(v, 0);
	v = 10000;
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &v, sizeof(v)));
	CHECK_OK(getsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &v, &len));
	CHECK_EQ(v, 20000);
	CHECK_ERRNO(getsockopt(s[0], SOL_SOCKET, 9999, &v, &len), ENOPROTOOPT);
	CHECK_ERRNO(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &v, 1), EINVAL);
	CHECK_ERRNO(getsockopt(0, SOL_SOCKET, SO_TYPE, &v, &len), ENOTSOCK);
	CHECK_ERRNO(getsockopt(s[0], 77, 1, &v, &len), EOPNOTSUPP);
}

TEST(receive_timeout)
{
	struct timeval tv = { 0, 50000 };
	int64_t t = now_ms();
	char c;

	pair(SOCK_STREAM);
	CHECK_OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	CHECK_ERRNO(read(s[0], &c, 1), EAGAIN);
	CHECK(now_ms() - t >= 45);
}

TEST(send_buffer_fills)
{
	static char buf[4096];
	struct pollfd p;
	int total = 0, n;

	pair(SOCK_STREAM);
	while ((n = send(s[0], buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		total += n;
	CHECK_EQ(errno, EAGAIN);
	CHECK(total >= 65536);
	p = (struct pollfd){ s[0], POLLOUT, 0 };
	CHECK_EQ(poll(&p, 1, 0), 0);
	while (total > 0 && (n = read(s[1], buf, sizeof(buf))) > 0)
		total -= n;
	CHECK_EQ(total, 0);
	CHECK_EQ(poll(&p, 1, 0), 1);
}

TEST(poll_states)
{
	struct pollfd p;
	int l = listener("l", SOCK_STREAM), c;

	p = (struct pollfd){ l, POLLIN, 0 };
	CHECK_EQ(poll(&p, 1, 0), 0);
	c = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));
	CHECK_OK(connect_path(c, "l"));
	CHECK_EQ(poll(&p, 1, 0), 1);
	pair(SOCK_STREAM);
	p = (struct pollfd){ s[0], POLLIN | POLLOUT | POLLRDHUP, 0 };
	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK_EQ(p.revents, POLLOUT);
	CHECK_OK(close(s[1]));
	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK_EQ(p.revents, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
}

TEST(not_sockets_and_bad_descriptors)
{
	char c;

	CHECK_ERRNO(send(0, "x", 1, 0), ENOTSOCK);
	CHECK_ERRNO(recv(0, &c, 1, 0), ENOTSOCK);
	CHECK_ERRNO(recv(190, &c, 1, 0), EBADF);
	CHECK_ERRNO(connect_path(0, "x"), ENOTSOCK);
	pair(SOCK_STREAM);
	CHECK_ERRNO(lseek(s[0], 0, SEEK_SET), ESPIPE);
	CHECK_ERRNO(recv(s[0], &c, 1, MSG_OOB), EINVAL);
	CHECK_ERRNO(send(CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), "x", 1, MSG_NOSIGNAL),
		    ENOTCONN);
}

TEST(large_transfer)
{
	char *buf = malloc(1 << 20);
	int total = 0, n;
	pid_t pid;

	pair(SOCK_STREAM);
	pid = FORK();
	if (!pid) {
		for (int i = 0; i < 1 << 20; i++)
			buf[i] = (char)(i % 251);
		CHECK_EQ(write(s[0], buf, 1 << 20), 1 << 20);
		_exit(0);
	}
	CHECK_OK(close(s[0]));
	while ((n = CHECK_OK(read(s[1], buf + total, (1 << 20) - total))) > 0)
		total += n;
	CHECK_EQ(total, 1 << 20);
	for (int i = 0; i < total; i++)
		if (buf[i] != (char)(i % 251))
			FAIL("byte %d is wrong", i);
	JOIN(pid);
}

TEST(fionread)
{
	int n;

	pair(SOCK_STREAM);
	CHECK_EQ(write(s[0], "12345", 5), 5);
	CHECK_OK(ioctl(s[1], FIONREAD, &n));
	CHECK_EQ(n, 5);
}

TEST(rename_and_unlink_of_a_bound_name)
{
	int l = listener("a", SOCK_STREAM), c = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));

	CHECK_OK(rename("a", "b"));
	CHECK_ERRNO(connect_path(c, "a"), ENOENT);
	CHECK_OK(connect_path(c, "b"));
	CHECK_OK(unlink("b"));
	CHECK_ERRNO(connect_path(CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), "b"), ENOENT);
	CHECK_OK(accept(l, NULL, NULL));
}
