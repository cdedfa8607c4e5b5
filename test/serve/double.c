/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A double of kvmsbox for the server's tests: it understands the two command lines that the server
 * uses and speaks sentry/fnchan.h, but runs the function as an ordinary process of this machine.
 *
 *	double exec --channel FD --function KIND … [--env NAME=VALUE]… IMAGE -- COMMAND…
 *	double restore --channel FD --image-fd FD
 *	double restore --channel FD --blank --platform NAME
 *
 * Its snapshot is the command line. A reset ends the program and starts it anew. The variable DOUBLE
 * makes it misbehave (enum whim); DOUBLE_START_MS is how long a cold start takes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sentry/fnchan.h"

#define MAX_STREAMS 64
#define MAX_WORDS   256

struct stream {
	uint32_t id; /* 0: free */
	int fd;
	bool announced, read_end, write_end, connecting;
	uint32_t credit; /* we may send */
	char *out;	 /* to the program */
	size_t out_len;
};

static int channel = -1;
static enum fn_kind kind;
static char *words[MAX_WORDS]; /* KIND, then NAME=VALUE…, "--", COMMAND… */
static int nwords;
static char **command;
static const char *whim = "";
static pid_t program;
static int in_fd = -1, out_fd = -1, err_fd = -1, listen_fd = -1;
static uint16_t port;
static struct stream streams[MAX_STREAMS];
static uint32_t next_odd = 1;
static bool busy, ready, keep, finishing, input_end, dead;
static int status;
static char *input;
static size_t input_len;
static uint64_t output, max_output, requests, deadline, started_ns;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static bool whims(const char *name)
{
	return !strcmp(whim, name);
}

static void send_fd(struct fn_msg *m, const void *data, size_t n, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov[2] = {{m, sizeof(*m)}, {(void *)(uintptr_t)data, n}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n ? 2 : 1};

	m->len = (uint32_t)n;
	if (fd >= 0) {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
	}
	if (sendmsg(channel, &msg, MSG_NOSIGNAL) < 0) {
		if (program > 0)
			kill(-program, SIGKILL);
		_exit(0);
	}
}

static void send_msg(enum fn_type type, uint32_t flags, const void *data, size_t n)
{
	struct fn_msg m = {.type = type, .flags = flags};

	send_fd(&m, data, n, -1);
}

static void send_stream(enum fn_type type, uint32_t flags, uint32_t id, uint32_t window,
			const void *data, size_t n)
{
	struct fn_msg m = {.type = type, .flags = flags};

	m.stream.id = id;
	m.stream.window = window;
	send_fd(&m, data, n, -1);
}

static void say_ready(void)
{
	struct fn_msg m = {.type = FN_READY};
	const char *resident = getenv("DOUBLE_RESIDENT");

	m.ready.version = FN_VERSION;
	m.ready.kind = kind;
	m.ready.pid = (uint32_t)getpid();
	m.ready.port = port;
	m.ready.took_ns = now_ns() - started_ns;
	m.ready.resident = resident ? strtoull(resident, NULL, 10) : 1 << 20;
	m.ready.dirtied = requests ? 7 : 0;
	m.ready.requests = requests;
	if (requests == 2 && whims("learns"))
		m.flags = FN_LEARNED;
	ready = true;
	send_fd(&m, NULL, 0, -1);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void stream_drop(struct stream *s)
{
	close(s->fd);
	free(s->out);
	memset(s, 0, sizeof(*s));
}

static void end_program(void)
{
	if (program > 0) {
		kill(-program, SIGKILL);
		waitpid(program, NULL, 0);
	}
	program = 0;
	close_fd(&in_fd);
	close_fd(&out_fd);
	close_fd(&err_fd);
	for (int i = 0; i < MAX_STREAMS; i++) {
		if (streams[i].id)
			stream_drop(&streams[i]);
	}
}

static int listen_somewhere(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 16) ||
	    getsockname(fd, (struct sockaddr *)&a, &len))
		exit(125);
	port = ntohs(a.sin_port);
	return fd;
}

static void start_program(void)
{
	pid_t self;
	int in[2], out[2], err[2];
	char text[64];

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		exit(125);
	if (kind == FN_HTTP) {
		/* Free a moment ago; nobody else asks for this one. */
		int fd = listen_somewhere();

		close(fd);
	}
	self = getpid();
	program = fork();
	if (!program) {
		/* Whoever killed us may have been faster. */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != self)
			_exit(127);
		setpgid(0, 0);
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		snprintf(text, sizeof(text), "%u", port);
		setenv("PORT", text, 1);
		snprintf(text, sizeof(text), "127.0.0.1:%u", port);
		setenv("AWS_LAMBDA_RUNTIME_API", text, 1);
		execvp(command[0], command);
		_exit(127);
	}
	setpgid(program, program);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	in_fd = in[1];
	out_fd = out[0];
	err_fd = err[0];
	fcntl(in_fd, F_SETFL, O_NONBLOCK);
	if (kind != FN_STDIO)
		close_fd(&in_fd);
	dead = false;
}

/* Until it listens. */
static void wait_for_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	a.sin_port = htons(port);
	for (int i = 0; i < 2000; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int err = connect(fd, (struct sockaddr *)&a, sizeof(a));

		close(fd);
		if (!err)
			return;
		if (waitpid(program, NULL, WNOHANG)) {
			send_msg(FN_FAILED, 0, "the program ended before it listened", 36);
			exit(125);
		}
		usleep(3000);
	}
	exit(125);
}

/* To the snapshot point. */
static void come_up(void)
{
	if (kind == FN_HTTP) {
		start_program();
		wait_for_port();
		say_ready();
	} else if (kind == FN_LAMBDA) {
		start_program();
		/* Ready with its first connection. */
	} else {
		say_ready();
	}
}

static void done(uint32_t flags)
{
	struct fn_msg m = {.type = FN_DONE, .flags = flags};

	m.done.status = status;
	m.done.cpu_ns = 1000000;
	m.done.peak_rss = 2 << 20;
	busy = finishing = false;
	deadline = 0;
	requests++;
	send_fd(&m, NULL, 0, -1);
	if (flags & FN_NOT_READY) {
		end_program();
		exit(0);
	}
	if (whims("no-reset"))
		return;
	if (keep && !flags && !dead && kind != FN_STDIO) {
		say_ready();
		return;
	}
	end_program();
	come_up();
}

static void got_snapshot(void)
{
	struct fn_msg m = {.type = FN_IMAGE};
	int fd;

	if (whims("no-snapshot")) {
		send_msg(FN_FAILED, 0, "no snapshots today", 18);
		return;
	}
	fd = memfd_create("snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	for (int i = 0; i < nwords; i++) {
		if (write(fd, words[i], strlen(words[i]) + 1) < 0)
			exit(125);
	}
	if (!whims("unsealed"))
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
	send_fd(&m, NULL, 0, fd);
	close(fd);
}

static void append_input(const char *data, size_t n, uint32_t flags)
{
	input = realloc(input, input_len + n + 1);
	memcpy(input + input_len, data, n);
	input_len += n;
	input_end |= flags & FN_END_OF_DATA;
}

static void feed_input(void)
{
	ssize_t n;

	if (in_fd < 0)
		return;
	if (input_len) {
		n = write(in_fd, input, input_len);
		if (n < 0 && errno != EAGAIN) {
			input_len = 0;
			close_fd(&in_fd);
			return;
		}
		if (n > 0) {
			memmove(input, input + n, input_len - (size_t)n);
			input_len -= (size_t)n;
		}
	}
	if (!input_len && input_end)
		close_fd(&in_fd);
}

static void announce(struct stream *s)
{
	s->announced = true;
	s->credit = FN_STREAM_WINDOW;
	send_stream(FN_OPEN, 0, s->id, 0, NULL, 0);
}

static void got_invoke(const struct fn_msg *m, const char *data)
{
	bool zero = true;

	if (!ready || busy) {
		fprintf(stderr, "double: FN_INVOKE, but not ready\n");
		exit(1);
	}
	for (int i = 0; i < 32; i++)
		zero &= !m->invoke.entropy[i];
	if (zero) {
		fprintf(stderr, "double: FN_INVOKE without entropy\n");
		exit(1);
	}
	if (whims("die"))
		_exit(9);
	if (whims("garbage"))
		send_msg((enum fn_type)77, 0, "x", 1);
	if (whims("short"))
		send(channel, "abc", 3, 0);
	busy = true;
	ready = false;
	finishing = false;
	keep = m->flags & FN_KEEP;
	status = 0;
	output = 0;
	max_output = m->invoke.max_output;
	deadline = m->invoke.deadline_ns ? now_ns() + m->invoke.deadline_ns : 0;
	if (kind == FN_STDIO) {
		input_len = 0;
		input_end = false;
		start_program();
		append_input(data, m->len, m->flags);
		feed_input();
	}
	for (int i = 0; i < MAX_STREAMS; i++) {
		if (streams[i].id && !streams[i].announced)
			announce(&streams[i]);
	}
}

static struct stream *stream_by_id(uint32_t id)
{
	for (int i = 0; i < MAX_STREAMS; i++) {
		if (streams[i].id == id)
			return &streams[i];
	}
	return NULL;
}

static struct stream *stream_add(uint32_t id, int fd)
{
	struct stream *s = stream_by_id(0);

	if (!s) {
		close(fd);
		return NULL;
	}
	*s = (struct stream){.id = id, .fd = fd, .credit = FN_STREAM_WINDOW};
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return s;
}

static void got_open(const struct fn_msg *m)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stream *s;

	a.sin_port = htons(port);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		close(fd);
		send_stream(FN_CLOSE, FN_RESET, m->stream.id, 0, NULL, 0);
		return;
	}
	s = stream_add(m->stream.id, fd);
	if (s)
		s->announced = true;
}

static void stream_write(struct stream *s)
{
	uint32_t id = s->id;
	ssize_t n = 0;

	if (s->out_len) {
		n = send(s->fd, s->out, s->out_len, MSG_NOSIGNAL);
		/* It doesn't read any more; what it said before is still to come. */
		if (n < 0 && errno != EAGAIN)
			n = (ssize_t)s->out_len;
	}
	if (n > 0) {
		memmove(s->out, s->out + n, s->out_len - (size_t)n);
		s->out_len -= (size_t)n;
		send_stream(FN_WINDOW, 0, id, (uint32_t)n, NULL, 0);
	}
	if (!s->out_len && s->write_end)
		shutdown(s->fd, SHUT_WR);
}

static void got_data(const struct fn_msg *m, const char *data)
{
	struct stream *s = stream_by_id(m->stream.id);

	if (!s)
		return;
	if (s->out_len + m->len > FN_STREAM_WINDOW) {
		fprintf(stderr, "double: more than a window\n");
		exit(1);
	}
	s->out = realloc(s->out, s->out_len + m->len + 1);
	memcpy(s->out + s->out_len, data, m->len);
	s->out_len += m->len;
	s->write_end |= m->flags & FN_END_OF_DATA;
	stream_write(s);
}

static void got_msg(const struct fn_msg *m, const char *data)
{
	struct stream *s;

	switch (m->type) {
	case FN_INVOKE:
		got_invoke(m, data);
		break;
	case FN_BODY:
		append_input(data, m->len, m->flags);
		feed_input();
		break;
	case FN_FINISH:
		if (busy)
			done(0);
		break;
	case FN_CANCEL:
		if (busy && !whims("ignore-cancel"))
			done(FN_CANCELLED);
		break;
	case FN_SNAPSHOT:
		got_snapshot();
		break;
	case FN_OPEN:
		got_open(m);
		break;
	case FN_DATA:
		got_data(m, data);
		break;
	case FN_CLOSE:
		s = stream_by_id(m->stream.id);
		if (s)
			stream_drop(s);
		break;
	case FN_WINDOW:
		s = stream_by_id(m->stream.id);
		if (s)
			s->credit += m->stream.window;
		break;
	default:
		fprintf(stderr, "double: unknown message %u\n", m->type);
		exit(1);
	}
}

/* One message; *fd: what came with it. */
static bool receive(struct fn_msg *m, char *data, int *fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov[2] = {{m, sizeof(*m)}, {data, FN_DATA_MAX}};
	struct msghdr msg = {.msg_iov = iov,
			     .msg_iovlen = 2,
			     .msg_control = control.space,
			     .msg_controllen = sizeof(control.space)};
	ssize_t n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);

	*fd = -1;
	if (n <= 0)
		return false;
	if ((size_t)n != sizeof(*m) + m->len) {
		fprintf(stderr, "double: a message of the wrong size\n");
		exit(1);
	}
	if (CMSG_FIRSTHDR(&msg))
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(*fd));
	return true;
}

static void read_output(void)
{
	char data[FN_DATA_MAX];
	ssize_t n = read(out_fd, data, sizeof(data));

	if (n <= 0) {
		close_fd(&out_fd);
		return;
	}
	if (kind != FN_STDIO)
		return;
	output += (uint64_t)n;
	if (max_output && output > max_output) {
		done(FN_TOO_MUCH);
		return;
	}
	send_msg(FN_STDOUT, 0, data, (size_t)n);
}

static void read_errors(void)
{
	char data[4096];
	ssize_t n = read(err_fd, data, sizeof(data));

	if (n <= 0)
		close_fd(&err_fd);
	else
		send_msg(FN_STDERR, 0, data, (size_t)n);
}

static void stream_read(struct stream *s)
{
	char data[32768];
	size_t want = s->credit < sizeof(data) ? s->credit : sizeof(data);
	ssize_t n = recv(s->fd, data, want, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0) {
		s->credit -= (uint32_t)n;
		send_stream(FN_DATA, 0, s->id, 0, data, (size_t)n);
		return;
	}
	send_stream(n ? FN_CLOSE : FN_DATA, n ? FN_RESET : FN_END_OF_DATA, s->id, 0, NULL, 0);
	if (n)
		stream_drop(s);
	else
		s->read_end = true;
}

static void accept_stream(void)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	struct stream *s = fd >= 0 ? stream_add(next_odd, fd) : NULL;

	if (!s)
		return;
	next_odd += 2;
	if (busy)
		announce(s);
	else if (!ready && !whims("no-reset"))
		say_ready();
}

static void check_program(void)
{
	int st;

	/* Its output is complete when the pipes are closed, and it when it has ended. */
	if (program <= 0 || (kind == FN_STDIO && (out_fd >= 0 || err_fd >= 0)))
		return;
	if (waitpid(program, &st, WNOHANG) != program)
		return;
	kill(-program, SIGKILL);
	program = 0;
	dead = true;
	status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
	if (busy) {
		done(status == 137 && whims("oom") ? FN_OUT_OF_MEM : 0);
	} else if (!ready) {
		send_msg(FN_FAILED, 0, "the program ended before it asked for work", 42);
		exit(125);
	}
}

static void loop(void)
{
	struct pollfd p[5 + MAX_STREAMS];
	static char data[FN_DATA_MAX];
	struct fn_msg m;
	int fd, n, which[MAX_STREAMS];

	for (;;) {
		int timeout = 20;

		p[0] = (struct pollfd){channel, POLLIN, 0};
		p[1] = (struct pollfd){out_fd, POLLIN, 0};
		p[2] = (struct pollfd){err_fd, POLLIN, 0};
		p[3] = (struct pollfd){in_fd, input_len ? POLLOUT : 0, 0};
		p[4] = (struct pollfd){kind == FN_LAMBDA ? listen_fd : -1, POLLIN, 0};
		n = 0;
		for (int i = 0; i < MAX_STREAMS; i++) {
			struct stream *s = &streams[i];

			if (!s->id || !s->announced)
				continue;
			which[n] = i;
			p[5 + n++] = (struct pollfd){
				s->fd,
				(short)((s->credit && !s->read_end ? POLLIN : 0) |
					(s->out_len ? POLLOUT : 0)),
				0};
		}
		if (program > 0 && kind == FN_STDIO && out_fd < 0 && err_fd < 0)
			timeout = 1;
		poll(p, (nfds_t)(5 + n), program > 0 || deadline ? timeout : -1);
		if (p[0].revents) {
			if (!receive(&m, data, &fd))
				break;
			got_msg(&m, data);
			continue;
		}
		if (p[3].revents)
			feed_input();
		if (p[2].revents)
			read_errors();
		if (p[1].revents)
			read_output();
		if (p[4].revents)
			accept_stream();
		for (int i = 0; i < n; i++) {
			struct stream *s = &streams[which[i]];

			if (p[5 + i].revents & POLLOUT && s->id)
				stream_write(s);
			if (p[5 + i].revents & (POLLIN | POLLHUP | POLLERR) && s->id && s->credit &&
			    !s->read_end)
				stream_read(s);
		}
		check_program();
		if (busy && deadline && now_ns() > deadline && !whims("ignore-cancel"))
			done(FN_TIMED_OUT);
	}
	end_program();
}

static void add_word(const char *s)
{
	if (nwords == MAX_WORDS)
		exit(125);
	words[nwords++] = strdup(s);
}

/* From the words: what a cold start and a restore have in common. */
static void set_up(void)
{
	const char *k = words[0];
	int i;

	kind = !strncmp(k, "http", 4) ? FN_HTTP : !strcmp(k, "lambda") ? FN_LAMBDA : FN_STDIO;
	for (i = 1; i < nwords && strcmp(words[i], "--"); i++)
		putenv(words[i]);
	command = calloc((size_t)nwords + 1, sizeof(*command));
	for (int j = 0; ++i < nwords; j++)
		command[j] = words[i];
	whim = getenv("DOUBLE") ?: "";
	if (kind == FN_LAMBDA)
		listen_fd = listen_somewhere();
}

static void read_image(int fd)
{
	struct stat st;
	char *text;

	if (fstat(fd, &st) || !(text = malloc((size_t)st.st_size)) ||
	    pread(fd, text, (size_t)st.st_size, 0) != st.st_size) {
		fprintf(stderr, "double: restore: no image\n");
		exit(125);
	}
	for (char *s = text; s < text + st.st_size; s += strlen(s) + 1)
		add_word(s);
}

static void restore(int argc, char **argv)
{
	struct fn_msg m;
	static char data[FN_DATA_MAX];
	int fd = -1;

	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--channel") && i + 1 < argc)
			channel = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--image-fd") && i + 1 < argc)
			fd = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--platform"))
			i++;
		else if (strcmp(argv[i], "--blank"))
			exit(125);
	}
	if (fd < 0 && (!receive(&m, data, &fd) || m.type != FN_IMAGE))
		exit(0);
	read_image(fd);
	set_up();
	if (whims("restore-fails")) {
		fprintf(stderr, "double: nothing is restored today\n");
		exit(125);
	}
}

static void cold(int argc, char **argv)
{
	const char *image = NULL, *ms;
	int i;

	add_word("stdio");
	for (i = 2; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--channel"))
			channel = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--function"))
			words[0] = strdup(argv[++i]);
		else if (!strcmp(argv[i], "--env"))
			add_word(argv[++i]);
		else if (!strcmp(argv[i], "--no-tty") || !strcmp(argv[i], "--read-only"))
			continue;
		else if (!strncmp(argv[i], "--", 2))
			i++;
		else
			image = argv[i];
	}
	for (; i < argc; i++)
		add_word(argv[i]);
	set_up();
	if (!image || !strcmp(image, "missing.tar")) {
		fprintf(stderr, "kvmsbox: image %s: No such file or directory\n", image);
		exit(125);
	}
	if (whims("crash-start")) {
		fprintf(stderr, "double: told to crash\n");
		raise(SIGSEGV);
	}
	if (whims("fail-start")) {
		send_msg(FN_FAILED, 0, "told to fail", 12);
		exit(1);
	}
	if (whims("hang-start"))
		pause();
	ms = getenv("DOUBLE_START_MS");
	usleep(ms ? (unsigned int)atoi(ms) * 1000 : 0);
}

int main(int argc, char **argv)
{
	started_ns = now_ns();
	signal(SIGPIPE, SIG_IGN);
	/*
	 * A real sandbox's processes die with it. This one's have to be killed, so it doesn't die with
	 * the server but sees the channel's end.
	 */
	prctl(PR_SET_PDEATHSIG, 0);
	if (argc < 3)
		return 125;
	if (!strcmp(argv[1], "restore"))
		restore(argc, argv);
	else
		cold(argc, argv);
	come_up();
	loop();
	return 0;
}
