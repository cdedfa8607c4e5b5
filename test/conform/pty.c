/* SPDX-License-Identifier: Apache-2.0 */
/* Pseudo-terminals: line discipline, sessions, job control, hangup. */
#include <sys/ioctl.h>
#include <termios.h>

#include "test/conform/conform.h"

static int m, t;
static char tname[64];

static void start(void)
{
	char *n;

	m = CHECK_OK(posix_openpt(O_RDWR | O_NOCTTY));
	CHECK_OK(grantpt(m));
	CHECK_OK(unlockpt(m));
	n = ptsname(m);
	CHECK(n);
	snprintf(tname, sizeof(tname), "%s", n);
	t = CHECK_OK(open(tname, O_RDWR | O_NOCTTY));
}

static void type(const char *text)
{
	CHECK_EQ(write(m, text, strlen(text)), strlen(text));
}

/* Reads one chunk and compares. */
static void expect(int fd, const char *text)
{
	char buf[256];
	int n = CHECK_OK(read(fd, buf, sizeof(buf) - 1));

	buf[n] = 0;
	CHECK_STR(buf, text);
}

/* Collects from the master until the text is complete. */
static void expect_output(const char *text)
{
	char buf[256];
	size_t n = 0, want = strlen(text);

	while (n < want)
		n += CHECK_OK(read(m, buf + n, want - n));
	buf[n] = 0;
	CHECK_STR(buf, text);
}

static bool readable(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };

	return poll(&p, 1, 0) == 1;
}

static struct termios get_termios(void)
{
	struct termios tio;

	CHECK_OK(tcgetattr(t, &tio));
	return tio;
}

static void set_flags(tcflag_t l_off, tcflag_t l_on, tcflag_t i_off, tcflag_t o_off)
{
	struct termios tio = get_termios();

	tio.c_lflag = (tio.c_lflag & ~l_off) | l_on;
	tio.c_iflag &= ~i_off;
	tio.c_oflag &= ~o_off;
	CHECK_OK(tcsetattr(t, TCSANOW, &tio));
}

TEST(names)
{
	struct stat st;

	start();
	CHECK(!strncmp(tname, "/dev/pts/", 9));
	CHECK_STR(ttyname(t), tname);
	CHECK_OK(stat(tname, &st));
	CHECK(S_ISCHR(st.st_mode));
	CHECK(isatty(t));
	CHECK(isatty(m));
	CHECK(!isatty(0));
	CHECK_EQ(errno, ENOTTY);
}

TEST(locked_until_unlockpt)
{
	char *n;

	m = CHECK_OK(posix_openpt(O_RDWR | O_NOCTTY));
	n = ptsname(m);
	CHECK(n);
	CHECK_ERRNO(open(n, O_RDWR | O_NOCTTY), EIO);
	CHECK_OK(unlockpt(m));
	CHECK_OK(open(n, O_RDWR | O_NOCTTY));
}

TEST(default_termios)
{
	struct termios tio;

	start();
	tio = get_termios();
	CHECK((tio.c_lflag & (ICANON | ECHO | ISIG | IEXTEN)) == (ICANON | ECHO | ISIG | IEXTEN));
	CHECK(tio.c_iflag & ICRNL);
	CHECK((tio.c_oflag & (OPOST | ONLCR)) == (OPOST | ONLCR));
	CHECK_EQ(tio.c_cc[VINTR], 3);
	CHECK_EQ(tio.c_cc[VEOF], 4);
	CHECK_EQ(tio.c_cc[VERASE], 127);
	CHECK_EQ(tio.c_cc[VMIN], 1);
	CHECK_EQ(tio.c_cc[VTIME], 0);
	CHECK_EQ(cfgetospeed(&tio), B38400);
}

TEST(canonical_line)
{
	start();
	type("par");
	CHECK(!readable(t));
	type("tial\n");
	CHECK(readable(t));
	expect(t, "partial\n");
	CHECK(!readable(t));
}

TEST(canonical_two_lines_two_reads)
{
	start();
	type("one\ntwo\n");
	expect(t, "one\n");
	expect(t, "two\n");
}

TEST(canonical_short_reads)
{
	char c;

	start();
	type("abc\n");
	for (const char *want = "abc\n"; *want; want++) {
		CHECK_EQ(read(t, &c, 1), 1);
		CHECK_EQ(c, *want);
	}
}

TEST(return_becomes_newline)
{
	start();
	type("x\r");
	expect(t, "x\n");
}

TEST(echo)
{
	start();
	type("hi\r");
	expect_output("hi\r\n");
}

TEST(echo_off)
{
	start();
	set_flags(ECHO, 0, 0, 0);
	type("secret\n");
	expect(t, "secret\n");
	CHECK(!readable(m));
}

TEST(echo_of_control_characters)
{
	start();
	type("\001");
	expect_output("^A");
}

TEST(erase_and_kill)
{
	start();
	type("abx\177c\n");
	expect(t, "abc\n");
	type("wrong\025right\n");
	expect(t, "right\n");
	type("two words\027W\n");
	expect(t, "two W\n");
}

TEST(erase_echo)
{
	start();
	type("a\177");
	expect_output("a\b \b");
}

TEST(end_of_file_character)
{
	char c;

	start();
	type("\004");
	CHECK_EQ(read(t, &c, 1), 0);
	type("abc\004");
	expect(t, "abc");
	type("x\n");
	expect(t, "x\n");
}

TEST(literal_next)
{
	start();
	set_flags(ECHO, 0, 0, 0);
	type("\026\003\n");
	expect(t, "\003\n");
}

TEST(output_newline_translation)
{
	start();
	CHECK_EQ(write(t, "a\nb", 3), 3);
	expect_output("a\r\nb");
	set_flags(0, 0, 0, OPOST);
	CHECK_EQ(write(t, "a\nb", 3), 3);
	expect_output("a\nb");
}

TEST(raw_mode)
{
	struct termios tio;

	start();
	tio = get_termios();
	cfmakeraw(&tio);
	CHECK_OK(tcsetattr(t, TCSANOW, &tio));
	type("a\r\003\004");
	expect(t, "a\r\003\004");
	CHECK(!readable(m));
}

TEST(raw_vmin)
{
	struct termios tio;
	char buf[16];
	pid_t pid;

	start();
	tio = get_termios();
	cfmakeraw(&tio);
	tio.c_cc[VMIN] = 4;
	CHECK_OK(tcsetattr(t, TCSANOW, &tio));
	pid = FORK();
	if (!pid) {
		type("ab");
		msleep(20);
		type("cd");
		_exit(0);
	}
	CHECK_EQ(read(t, buf, 16), 4);
	JOIN(pid);
}

TEST(raw_vmin_zero)
{
	struct termios tio;
	char buf[16];

	start();
	tio = get_termios();
	cfmakeraw(&tio);
	tio.c_cc[VMIN] = 0;
	CHECK_OK(tcsetattr(t, TCSANOW, &tio));
	CHECK_EQ(read(t, buf, 16), 0);
	tio.c_cc[VTIME] = 1;
	CHECK_OK(tcsetattr(t, TCSANOW, &tio));
	CHECK_EQ(read(t, buf, 16), 0);
	type("z");
	CHECK_EQ(read(t, buf, 16), 1);
}

TEST(nonblocking_read)
{
	char c;

	start();
	CHECK_OK(fcntl(t, F_SETFL, O_RDWR | O_NONBLOCK));
	CHECK_ERRNO(read(t, &c, 1), EAGAIN);
	type("half a line");
	CHECK_ERRNO(read(t, &c, 1), EAGAIN);
}

TEST(flush_input)
{
	start();
	type("to be lost\n");
	CHECK(readable(t));
	CHECK_OK(tcflush(t, TCIFLUSH));
	CHECK(!readable(t));
	type("kept\n");
	expect(t, "kept\n");
}

TEST(window_size)
{
	struct winsize w = { 24, 80, 0, 0 }, got;

	start();
	CHECK_OK(ioctl(m, TIOCSWINSZ, &w));
	CHECK_OK(ioctl(t, TIOCGWINSZ, &got));
	CHECK_EQ(got.ws_row, 24);
	CHECK_EQ(got.ws_col, 80);
}

TEST(input_queue_length)
{
	int n = -1;

	start();
	type("12345\n");
	EVENTUALLY(readable(t));
	CHECK_OK(ioctl(t, FIONREAD, &n));
	CHECK_EQ(n, 6);
}

TEST(termios_is_shared_by_both_ends)
{
	struct termios tio;

	start();
	CHECK_OK(tcgetattr(m, &tio));
	tio.c_lflag &= ~ECHO;
	CHECK_OK(tcsetattr(m, TCSANOW, &tio));
	CHECK(!(get_termios().c_lflag & ECHO));
	CHECK_ERRNO(tcsetattr(t, 99, &tio), EINVAL);
}

TEST(slave_close_is_eio_on_the_master)
{
	char c;

	start();
	CHECK_EQ(write(t, "last", 4), 4);
	CHECK_OK(close(t));
	expect_output("last");
	CHECK_ERRNO(read(m, &c, 1), EIO);
	t = CHECK_OK(open(tname, O_RDWR | O_NOCTTY));
	CHECK_EQ(write(t, "again", 5), 5);
	expect_output("again");
}

TEST(master_close_is_hangup)
{
	struct pollfd p;
	char c;

	start();
	CHECK_OK(close(m));
	CHECK_EQ(read(t, &c, 1), 0);
	CHECK_ERRNO(write(t, "x", 1), EIO);
	p = (struct pollfd){ t, POLLIN, 0 };
	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK(p.revents & POLLHUP);
	CHECK_ERRNO(open(tname, O_RDWR | O_NOCTTY), ENOENT);
}

TEST(poll_of_master)
{
	start();
	CHECK(!readable(m));
	CHECK_EQ(write(t, "o", 1), 1);
	CHECK(readable(m));
}

TEST(packet_mode)
{
	int on = 1;
	char buf[16];

	start();
	CHECK_OK(ioctl(m, TIOCPKT, &on));
	CHECK_EQ(write(t, "ab", 2), 2);
	CHECK_EQ(read(m, buf, 16), 3);
	CHECK_EQ(buf[0], TIOCPKT_DATA);
	CHECK_EQ(buf[1], 'a');
}

static volatile sig_atomic_t count, seen;

static void on_count(int sig)
{
	seen = sig;
	count++;
}

/* In a child: a new session whose controlling terminal is the slave. */
static void become_session(void)
{
	CHECK_OK(setsid());
	CHECK_OK(ioctl(t, TIOCSCTTY, 0));
}

#define IN_SESSION(...)                                                       \
	do {                                                                  \
		pid_t child_ = FORK();                                        \
		if (!child_) {                                                \
			become_session();                                     \
			__VA_ARGS__;                                          \
			signal(SIGHUP, SIG_IGN);                              \
			_exit(0);                                             \
		}                                                             \
		JOIN(child_);                                                 \
	} while (0)

TEST(controlling_terminal)
{
	start();
	IN_SESSION({
		int fd = CHECK_OK(open("/dev/tty", O_RDWR));

		CHECK_EQ(tcgetpgrp(t), getpgrp());
		CHECK_EQ(tcgetsid(t), getpid());
		CHECK_EQ(tcgetsid(fd), getpid());
		CHECK_EQ(write(fd, "tty", 3), 3);
		expect_output("tty");
		CHECK_STR(ttyname(t), tname);
	});
}

TEST(open_makes_it_controlling)
{
	start();
	pid_t pid = FORK();

	if (!pid) {
		CHECK_OK(setsid());
		CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
		CHECK_OK(open(tname, O_RDWR | O_NOCTTY));
		CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
		CHECK_OK(open(tname, O_RDWR));
		CHECK_OK(open("/dev/tty", O_RDWR));
		signal(SIGHUP, SIG_IGN);
		_exit(0);
	}
	JOIN(pid);
}

TEST(tiocsctty_rules)
{
	start();
	CHECK_ERRNO(ioctl(t, TIOCSCTTY, 0), EPERM);	/* not a session leader */
	IN_SESSION({
		pid_t pid = FORK();

		if (!pid) {
			CHECK_OK(setsid());
			/* Another session's terminal; only the privileged may steal, by asking. */
			CHECK_ERRNO(ioctl(t, TIOCSCTTY, 0), EPERM);
			_exit(0);
		}
		JOIN(pid);
		CHECK_OK(ioctl(t, TIOCSCTTY, 0));	/* already ours: fine */
	});
}

TEST(tiocnotty)
{
	start();
	IN_SESSION({
		signal(SIGHUP, SIG_IGN);
		signal(SIGCONT, SIG_IGN);
		CHECK_OK(ioctl(t, TIOCNOTTY));
		CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
		CHECK_ERRNO(ioctl(t, TIOCNOTTY), ENOTTY);
	});
}

TEST(interrupt_character)
{
	start();
	IN_SESSION({
		on_signal(SIGINT, on_count);
		type("junk\003");
		EVENTUALLY(count == 1);
		CHECK_EQ(seen, SIGINT);
		CHECK(!readable(t));	/* the line so far is thrown away */
		type("x\n");
		expect(t, "x\n");
	});
}

TEST(quit_and_suspend_characters)
{
	start();
	IN_SESSION({
		on_signal(SIGQUIT, on_count);
		on_signal(SIGTSTP, on_count);
		type("\034");
		EVENTUALLY(count == 1);
		CHECK_EQ(seen, SIGQUIT);
		type("\032");
		EVENTUALLY(count == 2);
		CHECK_EQ(seen, SIGTSTP);
	});
}

TEST(isig_off)
{
	start();
	IN_SESSION({
		on_signal(SIGINT, on_count);
		set_flags(ISIG | ECHO, 0, 0, 0);
		type("\003\n");
		expect(t, "\003\n");
		CHECK_EQ(count, 0);
	});
}

TEST(sigint_kills_foreground_group)
{
	start();
	IN_SESSION({
		pid_t pid = FORK();

		if (!pid) {
			setpgid(0, 0);
			for (;;)
				pause();
		}
		setpgid(pid, pid);
		CHECK_OK(tcsetpgrp(t, pid));
		CHECK_EQ(tcgetpgrp(t), pid);
		type("\003");
		CHECK_SIGNALED(pid, SIGINT);
		signal(SIGTTOU, SIG_IGN);
		CHECK_OK(tcsetpgrp(t, getpgrp()));
	});
}

TEST(sigwinch)
{
	start();
	IN_SESSION({
		struct winsize w = { 30, 100, 0, 0 };

		on_signal(SIGWINCH, on_count);
		CHECK_OK(ioctl(m, TIOCSWINSZ, &w));
		EVENTUALLY(count == 1);
		CHECK_OK(ioctl(m, TIOCSWINSZ, &w));	/* no change, no signal */
		msleep(20);
		CHECK_EQ(count, 1);
	});
}

TEST(background_read_is_sigttin)
{
	start();
	IN_SESSION({
		pid_t pid = FORK();
		int status;

		if (!pid) {
			char c;

			setpgid(0, 0);
			_exit(read(t, &c, 1) == 1 && c == 'y' ? 0 : 1);
		}
		CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
		CHECK(WIFSTOPPED(status));
		CHECK_EQ(WSTOPSIG(status), SIGTTIN);
		CHECK_OK(tcsetpgrp(t, pid));
		CHECK_OK(kill(pid, SIGCONT));
		type("y\n");
		JOIN(pid);
	});
}

TEST(background_read_with_sigttin_ignored)
{
	start();
	IN_SESSION({
		pid_t pid = FORK();

		if (!pid) {
			char c;

			setpgid(0, 0);
			signal(SIGTTIN, SIG_IGN);
			CHECK_ERRNO(read(t, &c, 1), EIO);
			_exit(0);
		}
		JOIN(pid);
	});
}

TEST(background_write_with_tostop)
{
	start();
	IN_SESSION({
		pid_t pid;
		int status;

		set_flags(0, TOSTOP, 0, 0);
		pid = FORK();
		if (!pid) {
			setpgid(0, 0);
			_exit(write(t, "x", 1) == 1 ? 0 : 1);
		}
		CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
		CHECK(WIFSTOPPED(status));
		CHECK_EQ(WSTOPSIG(status), SIGTTOU);
		set_flags(TOSTOP, 0, 0, 0);
		CHECK_OK(kill(pid, SIGCONT));
		JOIN(pid);
	});
}

TEST(background_tcsetattr_is_sigttou)
{
	start();
	IN_SESSION({
		pid_t pid = FORK();
		int status;

		if (!pid) {
			setpgid(0, 0);
			set_flags(ECHO, 0, 0, 0);
			_exit(0);
		}
		CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
		CHECK(WIFSTOPPED(status));
		CHECK_EQ(WSTOPSIG(status), SIGTTOU);
		CHECK_OK(kill(pid, SIGKILL));
		CHECK_SIGNALED(pid, SIGKILL);
	});
}

TEST(tcsetpgrp_errors)
{
	start();
	CHECK_ERRNO(tcgetpgrp(t), ENOTTY);
	IN_SESSION({
		CHECK_ERRNO(tcsetpgrp(t, getppid()), EPERM);	/* a group of another session */
		CHECK_ERRNO(tcsetpgrp(t, -1), EINVAL);
		CHECK_ERRNO(tcsetpgrp(t, 0x3fffffff), ESRCH);
	});
}

TEST(leader_exit_hangs_up_the_foreground)
{
	struct gate ready;
	pid_t leader;
	int status = 0, n = 0;

	start();
	GATE_INIT(&ready);
	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	leader = FORK();
	if (!leader) {
		become_session();
		if (!FORK()) {
			GATE_OPEN(&ready);
			for (;;)
				pause();
		}
		GATE_WAIT(&ready);
		_exit(7);
	}
	for (int i = 0; i < 2; i++) {
		pid_t pid = CHECK_OK(wait(&status));

		if (pid == leader)
			n += WIFEXITED(status) && WEXITSTATUS(status) == 7;
		else
			n += WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP ? 10 : 0;
	}
	CHECK_EQ(n, 11);
}

TEST(master_close_sends_sighup)
{
	struct gate ready;
	pid_t pid;

	start();
	GATE_INIT(&ready);
	pid = FORK();
	if (!pid) {
		CHECK_OK(close(m));
		become_session();
		GATE_OPEN(&ready);
		for (;;)
			pause();
	}
	GATE_WAIT(&ready);
	CHECK_OK(close(m));
	CHECK_SIGNALED(pid, SIGHUP);
}

TEST(stat_shows_the_terminal)
{
	start();
	IN_SESSION({
		char buf[512], *q;
		int pgrp, sid, tty, tpgid;
		struct stat st;

		CHECK(get_file("/proc/self/stat", buf, sizeof(buf)) > 0);
		q = strrchr(buf, ')');
		CHECK(q);
		CHECK_EQ(sscanf(q + 2, "%*c %*d %d %d %d %d", &pgrp, &sid, &tty, &tpgid), 4);
		CHECK_OK(fstat(t, &st));
		CHECK_EQ(sid, getpid());
		CHECK_EQ(tpgid, getpgrp());
		CHECK_EQ(tty, (int)st.st_rdev);
	});
}
