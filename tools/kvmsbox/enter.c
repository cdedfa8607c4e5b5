/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox enter: another command in a named sandbox. The sandbox gets this process's descriptors
 * 0 to 2, but no terminal among them: those stay here, and their bytes are relayed through pipes.
 * So a sandbox can neither read what its user types elsewhere nor type something itself, and
 * nothing of it is left in the terminal if one end dies.
 *
 * If this process dies, the command gets SIGHUP (control_msg.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "sentry/boot.h"
#include "sentry/console.h"
#include "sentry/control_msg.h"
#include "sentry/forward.h"
#include "sentry/lib/world.h"
#include "tools/kvmsbox/kvmsbox.h"
#include "tools/kvmsbox/options.h"
#include "tools/kvmsbox/store.h"

static const struct verb verb = {
	.id = VERB_ENTER,
	.name = "enter",
	.synopsis = "NAME [OPTIONS] [--] COMMAND [ARG…]",
	.about =
		"Runs COMMAND in the running sandbox NAME, beside what runs there, with the "
		"caller's\n"
		"standard input, output and error. Signals sent to kvmsbox reach it; if kvmsbox "
		"dies it\n"
		"gets SIGHUP. Exits with the command's status, as kvmsbox exec does; 137 when the\n"
		"sandbox ends under it.\n",
};

/* Bytes on their way between a terminal here and a pipe of the sandbox's. */
struct relay {
	int from, to; /* -1: none, or over */
	size_t len, off;
	char buf[16384];
};

struct session {
	const char *name;
	int sock, signals;
	bool terminal;		 /* the command has one */
	int terminal_fd;	 /* ours, -1: none */
	struct relay in, out[2]; /* stdin; stdout, stderr */
	int passed[CONTROL_MAX_FDS];
	size_t npassed;
	int place[3]; /* of stdio among what is passed behind the tree, -1: closed */
};

/* ---- what the command gets ---- */

/* Passes @fd as the command's @i; ours afterwards is the copy in passed[]. */
static int pass(struct session *s, int i, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (copy < 0)
		return -errno;
	s->place[i] = (int)s->npassed - 1;
	s->passed[s->npassed++] = copy;
	return 0;
}

/* A pipe in the place of terminal @i. */
static int pass_pipe(struct session *s, int i)
{
	struct relay *r = i ? &s->out[i - 1] : &s->in;
	int fds[2], err;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	err = pass(s, i, fds[i != 0]);
	close(fds[i != 0]);
	if (err) {
		close(fds[i == 0]);
		return err;
	}
	if (i) {
		r->from = fds[0];
		r->to = i;
	} else {
		r->from = 0;
		r->to = fds[1];
	}
	/* Our end only: the other is a description of its own. */
	fcntl(i ? r->from : r->to, F_SETFL, O_NONBLOCK);
	return 0;
}

static int pass_stdio(struct session *s)
{
	int err = 0;

	for (int i = 0; i < 3 && !err; i++) {
		/* With a terminal, standard error is the same as standard output. */
		if (stdio_was_closed[i] || (i == 2 && s->terminal))
			continue;
		if (isatty(i))
			s->terminal_fd = s->terminal_fd < 0 ? i : s->terminal_fd;
		err = isatty(i) ? pass_pipe(s, i) : pass(s, i, i);
	}
	return err;
}

static void get_size(const struct session *s, struct control_size *size)
{
	struct winsize ws;

	if (s->terminal_fd < 0 || ioctl(s->terminal_fd, TIOCGWINSZ, &ws))
		return;
	*size = (struct control_size){ws.ws_row, ws.ws_col, ws.ws_xpixel, ws.ws_ypixel};
}

/* ---- entering ---- */

/* Sends the command and waits for the answer. 0, or the exit status after a complaint. */
static int request(struct session *s, struct options *o)
{
	struct control_msg m = {.type = CONTROL_ENTER};
	char text[CONTROL_TEXT_MAX + 1];
	size_t size;
	void *blob;
	int err;

	for (int i = 0; i < 3; i++)
		o->config.stdio[i] = s->place[i];
	err = sandbox_config_write(&o->config, &blob, &size);
	if (err)
		return complain("enter: arguments and environment don't fit a device tree: %s",
				err == -E2BIG ? "Argument list too long" : strerror(-err));
	s->passed[0] = sandbox_config_memfd(blob, size);
	free(blob);
	if (s->passed[0] < 0)
		return complain("enter: can't make the device tree's file: %s",
				strerror(-s->passed[0]));
	m.enter.tree_size = (uint32_t)size;
	get_size(s, &m.enter.size);
	err = control_send(s->sock, &m, s->passed, s->npassed);
	for (size_t i = 0; i < s->npassed; i++)
		close(s->passed[i]);
	if (!err)
		err = control_receive(s->sock, &m, text);
	if (err == -EPIPE || err == -ECONNRESET)
		return complain("enter: sandbox %s has ended", s->name);
	if (err)
		return complain("enter: sandbox %s doesn't answer as it should: %s", s->name,
				strerror(-err));
	if (m.type == CONTROL_FAILED) {
		complain("%s", text);
		return m.exited.status & 0xff ?: EXIT_KVMSBOX;
	}
	if (m.type != CONTROL_ENTERED)
		return complain("enter: sandbox %s doesn't answer as it should", s->name);
	return 0;
}

/* ---- while it runs ---- */

enum { GOES_ON = -1, DIED = 256 };

static void ask(struct session *s, struct control_msg *m)
{
	/* If that fails the connection is closed, which is noticed. */
	(void)!control_send(s->sock, m, NULL, 0);
}

static void forward_one(struct session *s, const struct signalfd_siginfo *info)
{
	struct control_msg m = {.type = CONTROL_SIGNAL, .signal.signo = (int)info->ssi_signo};

	switch (info->ssi_signo) {
	case SIGPIPE:
	case SIGTTIN:
	case SIGTTOU:
		return;
	case SIGWINCH:
		if (!s->terminal)
			return;
		m = (struct control_msg){.type = CONTROL_RESIZE};
		get_size(s, &m.resize);
		break;
	case SIGINT:
	case SIGQUIT:
	case SIGTSTP:
		/* Typed: the host would signal the whole job. */
		if (info->ssi_code == SI_KERNEL)
			m.flags = CONTROL_TO_GROUP;
		break;
	}
	ask(s, &m);
	/* The job stops as a whole, this process with it. */
	if (info->ssi_signo == SIGTSTP)
		kill(getpid(), SIGSTOP);
}

static void take_signals(struct session *s)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof(info)) == sizeof(info))
		forward_one(s, &info);
}

static void relay_end(struct relay *r)
{
	if (r->from > 2)
		close(r->from);
	if (r->to > 2)
		close(r->to);
	r->from = r->to = -1;
}

/* What poll(2) shall tell of @r. */
static void relay_poll(const struct relay *r, struct pollfd *p)
{
	*p = (struct pollfd){.fd = r->len ? r->to : r->from, .events = r->len ? POLLOUT : POLLIN};
}

/* Moves once: false when there is nothing to move, or it is over. */
static bool relay_move(struct relay *r)
{
	ssize_t n;

	if (r->from < 0)
		return false;
	if (!r->len) {
		n = read(r->from, r->buf, sizeof(r->buf));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return false;
		if (n <= 0) {
			relay_end(r);
			return false;
		}
		r->len = (size_t)n;
		r->off = 0;
	}
	n = write(r->to, r->buf + r->off, r->len);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		relay_end(r);
		return false;
	}
	if (n > 0) {
		r->off += (size_t)n;
		r->len -= (size_t)n;
	}
	return n > 0;
}

/* Writes out what is in the pipe, without waiting for more. */
static void relay_drain(struct relay *r)
{
	while (relay_move(r) || r->len) {
		struct pollfd p = {.fd = r->to, .events = POLLOUT};

		if (r->to < 0)
			return;
		poll(&p, 1, -1);
	}
}

/* Returns GOES_ON, DIED, or the exit status. */
static int take_message(struct session *s)
{
	char text[CONTROL_TEXT_MAX + 1];
	struct control_msg m;

	if (control_receive(s->sock, &m, text))
		return DIED;
	return m.type == CONTROL_EXITED ? m.exited.status & 0xff : GOES_ON;
}

static int serve(struct session *s)
{
	struct relay *relays[] = {&s->in, &s->out[0], &s->out[1]};
	struct pollfd p[5];
	int status = GOES_ON;

	while (status == GOES_ON) {
		p[0] = (struct pollfd){.fd = s->sock, .events = POLLIN};
		p[1] = (struct pollfd){.fd = s->signals, .events = POLLIN};
		for (size_t i = 0; i < 3; i++)
			relay_poll(relays[i], &p[2 + i]);
		if (poll(p, ARRAY_SIZE(p), -1) < 0)
			continue;
		if (p[1].revents)
			take_signals(s);
		for (size_t i = 0; i < 3; i++) {
			if (p[2 + i].revents)
				relay_move(relays[i]);
		}
		if (p[0].revents)
			status = take_message(s);
	}
	/* What it wrote before its end is in the pipes. */
	for (int i = 0; i < 2; i++)
		relay_drain(&s->out[i]);
	return status;
}

static int run(struct session *s)
{
	sigset_t set;
	int status;

	/* Only now: what doesn't answer can be interrupted. */
	forward_block_signals();
	forward_signals(&set);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals < 0)
		return complain("enter: can't take signals: %s", strerror(errno));
	if (s->terminal && s->in.from == STDIN_FILENO)
		host_terminal_raw(STDIN_FILENO);
	status = serve(s);
	host_terminal_restore();
	if (status != DIED)
		return status;
	complain("enter: sandbox %s died, and the command with it", s->name);
	return 128 + SIGKILL;
}

static int enter(struct options *o, struct sandbox *sb)
{
	static __host_large struct session s;
	char text[32];
	int err, status;

	s = (struct session){.name = sb->name,
			     .signals = -1,
			     .terminal = o->config.terminal,
			     .terminal_fd = -1,
			     .in = {.from = -1, .to = -1},
			     .out = {{.from = -1, .to = -1}, {.from = -1, .to = -1}},
			     .npassed = 1,
			     .place = {-1, -1, -1}};
	s.sock = sb->status == SANDBOX_RUNNING ? sandbox_connect(sb, 0) : -ECONNREFUSED;
	if (s.sock < 0 && sb->status == SANDBOX_RUNNING)
		return complain("enter: can't talk to sandbox %s: %s", sb->name, strerror(-s.sock));
	if (s.sock < 0)
		return complain("enter: sandbox %s is not running: %s", sb->name,
				sandbox_status_text(sb, text, sizeof(text)));
	err = pass_stdio(&s);
	if (err)
		return complain("enter: can't pass standard input and output: %s", strerror(-err));
	status = request(&s, o);
	return status ? status : run(&s);
}

/* TERM of the caller, for a terminal, unless it is set on the command line. */
static bool set_environment(struct options *o)
{
	char *term = NULL;
	bool ok = true, given = false;

	for (size_t i = 0; i < o->nenv; i++)
		given = given || !strncmp(o->env[i], "TERM=", 5);
	if (o->config.terminal && !given) {
		ok = asprintf(&term, "TERM=%s", getenv("TERM") ?: "xterm") > 0 &&
		     options_set_env(o, term);
		free(term);
	}
	o->config.env = o->env;
	return ok;
}

int cmd_enter(int argc, char **argv)
{
	struct store store;
	struct sandbox sb;
	struct options o;
	const char *name;
	int at, status;

	options_init(&o, &verb);
	at = options_parse(&o, argc, argv, &status);
	if (at < 0)
		return status;
	if (at == argc)
		return complain("enter: no sandbox given: kvmsbox enter NAME COMMAND…");
	/* Options may stand before the name or behind it. */
	name = argv[at];
	argc -= at;
	argv += at;
	at = options_parse(&o, argc, argv, &status);
	if (at < 0)
		return status;
	if (at == argc)
		return complain("enter: no command given: kvmsbox enter %s COMMAND…", name);
	o.config.args = argv + at;
	o.config.terminal = !o.no_tty && (o.tty || (isatty(0) && isatty(1)));
	if (!set_environment(&o))
		return complain("out of memory");
	status = store_open(&store, "enter", o.state_dir, false);
	if (!status)
		status = store_find(&store, name, &sb);
	if (status)
		return status;
	status = enter(&o, &sb);
	sandbox_close(&sb);
	return status;
}
