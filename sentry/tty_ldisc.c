/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line discipline, Linux's N_TTY: what becomes of typed bytes (editing, signals, echo) and of
 * written ones (newline and tab processing).
 *
 * Input waits in a ring of marked entries. In canonical mode the entries from line_start on are the
 * line being edited, and a read gets a line up to its mark; otherwise a read gets what there is.
 * Everything here runs under tty->lock and only moves bytes: the callers wake and signal.
 * Sources: termios(3), POSIX General Terminal Interface, tty_ioctl(4).
 */
#include <ctype.h>
#include <string.h>

#include "sentry/lib/err.h"
#include "sentry/tty.h"

#define ECHO_RESERVE 64u /* kept free of written output, so that typing is echoed */

static const struct ktermios default_termios = {
	.iflag = ICRNL | IXON,
	.oflag = OPOST | ONLCR,
	.cflag = B38400 | CS8 | CREAD | HUPCL,
	.lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
	.cc = {[VINTR] = 3,
	       [VQUIT] = 034,
	       [VERASE] = 0177,
	       [VKILL] = 025,
	       [VEOF] = 4,
	       [VMIN] = 1,
	       [VSTART] = 021,
	       [VSTOP] = 023,
	       [VSUSP] = 032,
	       [VREPRINT] = 022,
	       [VDISCARD] = 017,
	       [VWERASE] = 027,
	       [VLNEXT] = 026},
	.ispeed = 38400,
	.ospeed = 38400,
};

void ldisc_init(struct tty *tty)
{
	tty->termios = default_termios;
}

static bool l_flag(const struct tty *tty, uint32_t flag)
{
	return tty->termios.lflag & flag;
}

static bool i_flag(const struct tty *tty, uint32_t flag)
{
	return tty->termios.iflag & flag;
}

/* Is @c the special character @which? 0 disables one. */
static bool is_cc(const struct tty *tty, uint8_t c, int which)
{
	return c && c == tty->termios.cc[which];
}

/* The second and later bytes of a UTF-8 character. */
static bool is_continuation(const struct tty *tty, uint8_t c)
{
	return i_flag(tty, IUTF8) && (c & 0xc0) == 0x80;
}

/* ---- output ---- */

static unsigned int out_room(const struct tty *tty)
{
	return TTY_OUT_SIZE - tty_out_used(tty);
}

static void out_put(struct tty *tty, uint8_t c)
{
	if (out_room(tty))
		tty->out[tty->out_head++ % TTY_OUT_SIZE] = c;
}

/* One byte with output processing, at most 8 bytes of output. */
static void process_output(struct tty *tty, uint8_t c)
{
	uint32_t o = tty->termios.oflag;
	unsigned int n;

	if (!(o & OPOST)) {
		out_put(tty, c);
		return;
	}
	switch (c) {
	case '\n':
		if (o & ONLRET)
			tty->column = 0;
		if (o & ONLCR) {
			tty->column = 0;
			out_put(tty, '\r');
		}
		tty->canon_column = tty->column;
		break;
	case '\r':
		if ((o & ONOCR) && !tty->column)
			return;
		if (o & OCRNL) {
			c = '\n';
			if (o & ONLRET)
				tty->canon_column = tty->column = 0;
			break;
		}
		tty->canon_column = tty->column = 0;
		break;
	case '\t':
		n = 8 - (tty->column & 7);
		tty->column += n;
		if ((o & TABDLY) == XTABS) {
			while (n--)
				out_put(tty, ' ');
			return;
		}
		break;
	case '\b':
		if (tty->column)
			tty->column--;
		break;
	default:
		if (!iscntrl(c)) {
			if (o & OLCUC)
				c = (uint8_t)toupper(c);
			if (!is_continuation(tty, c))
				tty->column++;
		}
		break;
	}
	out_put(tty, c);
}

size_t ldisc_write(struct tty *tty, const uint8_t *buf, size_t len)
{
	size_t n = 0;

	if (tty->stopped)
		return 0;
	while (n < len && out_room(tty) >= ECHO_RESERVE + 8)
		process_output(tty, buf[n++]);
	return n;
}

static void set_pktstatus(struct tty *tty, uint8_t on, uint8_t off)
{
	if (tty->packet)
		tty->pktstatus = (uint8_t)((tty->pktstatus & ~off) | on);
}

void ldisc_stop(struct tty *tty, bool stop)
{
	if (tty->stopped == stop)
		return;
	tty->stopped = stop;
	if (stop)
		set_pktstatus(tty, TIOCPKT_STOP, TIOCPKT_START);
	else
		set_pktstatus(tty, TIOCPKT_START, TIOCPKT_STOP);
}

void ldisc_flush_output(struct tty *tty)
{
	tty->out_tail = tty->out_head;
	set_pktstatus(tty, TIOCPKT_FLUSHWRITE, 0);
}

/* ---- echo ---- */

static bool shown_as_caret(const struct tty *tty, uint8_t c)
{
	return l_flag(tty, ECHOCTL) && iscntrl(c) && c != '\t';
}

static void echo_raw(struct tty *tty, uint8_t c)
{
	process_output(tty, c);
}

static void echo_char(struct tty *tty, uint8_t c)
{
	if (shown_as_caret(tty, c)) {
		out_put(tty, '^');
		out_put(tty, c ^ 0100);
		tty->column += 2;
	} else {
		process_output(tty, c);
	}
}

static void echo_backspace(struct tty *tty)
{
	out_put(tty, '\b');
	out_put(tty, ' ');
	out_put(tty, '\b');
	if (tty->column)
		tty->column--;
}

/* ---- the input ring ---- */

static unsigned int in_used(const struct tty *tty)
{
	return tty->head - tty->tail;
}

static uint16_t *in_at(struct tty *tty, unsigned int i)
{
	return &tty->in[i % TTY_IN_SIZE];
}

/* The last entry is kept for the end of a line that is too long. */
static void in_put(struct tty *tty, uint16_t entry)
{
	unsigned int limit = TTY_IN_SIZE - !(entry & TTY_MARK);

	if (in_used(tty) >= limit)
		return;
	*in_at(tty, tty->head++) = entry;
	if (entry & TTY_MARK) {
		tty->lines++;
		tty->line_start = tty->head;
	}
}

void ldisc_flush_input(struct tty *tty)
{
	tty->tail = tty->line_start = tty->head;
	tty->lines = 0;
	tty->lnext = false;
	set_pktstatus(tty, TIOCPKT_FLUSHREAD, 0);
}

/* ---- editing ---- */

/* The column that entry @i of the line being edited begins in. */
static unsigned int column_of(struct tty *tty, unsigned int i)
{
	unsigned int col = tty->canon_column;

	for (unsigned int k = tty->line_start; k != i; k++) {
		uint8_t c = (uint8_t)*in_at(tty, k);

		if (c == '\t')
			col = (col | 7) + 1;
		else if (iscntrl(c))
			col += l_flag(tty, ECHOCTL) ? 2 : 0;
		else if (!is_continuation(tty, c))
			col++;
	}
	return col;
}

/* Removes the last character of the line from the screen; it is out of the ring already. */
static void erase_shown(struct tty *tty, uint8_t c)
{
	unsigned int n;

	if (c == '\t') {
		n = 8 - (column_of(tty, tty->head) & 7);
		while (n--) {
			out_put(tty, '\b');
			if (tty->column)
				tty->column--;
		}
		return;
	}
	if (iscntrl(c) && l_flag(tty, ECHOCTL))
		echo_backspace(tty);
	if (!iscntrl(c) || l_flag(tty, ECHOCTL))
		echo_backspace(tty);
}

enum erase_kind { ERASE_CHAR, ERASE_WORD, ERASE_LINE };

static void erase(struct tty *tty, uint8_t c, enum erase_kind kind)
{
	bool seen_word = false;

	if (tty->head == tty->line_start)
		return;
	if (kind == ERASE_LINE) {
		if (!l_flag(tty, ECHO)) {
			tty->head = tty->line_start;
			return;
		}
		if (!l_flag(tty, ECHOK) || !l_flag(tty, ECHOKE) || !l_flag(tty, ECHOE)) {
			tty->head = tty->line_start;
			echo_char(tty, c);
			if (l_flag(tty, ECHOK))
				echo_raw(tty, '\n');
			return;
		}
	}
	while (tty->head != tty->line_start) {
		unsigned int at = tty->head;
		uint8_t last;

		/* A whole character. */
		do {
			last = (uint8_t)*in_at(tty, --at);
		} while (is_continuation(tty, last) && at != tty->line_start);
		if (is_continuation(tty, last))
			break;
		if (kind == ERASE_WORD) {
			if (isalnum(last) || last == '_' || (last & 0x80))
				seen_word = true;
			else if (seen_word)
				break;
		}
		tty->head = at;
		if (l_flag(tty, ECHO)) {
			if (kind == ERASE_CHAR && !l_flag(tty, ECHOE))
				echo_char(tty, c);
			else
				erase_shown(tty, last);
		}
		if (kind == ERASE_CHAR)
			break;
	}
}

static void reprint(struct tty *tty, uint8_t c)
{
	echo_char(tty, c);
	echo_raw(tty, '\n');
	for (unsigned int i = tty->line_start; i != tty->head; i++)
		echo_char(tty, (uint8_t)*in_at(tty, i));
}

/* ---- receiving ---- */

static void echo_input(struct tty *tty, uint8_t c)
{
	if (!l_flag(tty, ECHO))
		return;
	if (c == '\n') {
		echo_raw(tty, '\n');
		return;
	}
	if (l_flag(tty, ICANON) && tty->head == tty->line_start)
		tty->canon_column = tty->column;
	echo_char(tty, c);
}

static int signal_of(const struct tty *tty, uint8_t c)
{
	if (!l_flag(tty, ISIG))
		return 0;
	if (is_cc(tty, c, VINTR))
		return SIGINT;
	if (is_cc(tty, c, VQUIT))
		return SIGQUIT;
	return is_cc(tty, c, VSUSP) ? SIGTSTP : 0;
}

/* What canonical mode does with @c. False: it is an ordinary character. */
static bool receive_canonical(struct tty *tty, uint8_t c)
{
	bool ext = l_flag(tty, IEXTEN);

	if (is_cc(tty, c, VERASE)) {
		erase(tty, c, ERASE_CHAR);
	} else if (is_cc(tty, c, VKILL)) {
		erase(tty, c, ERASE_LINE);
	} else if (ext && is_cc(tty, c, VWERASE)) {
		erase(tty, c, ERASE_WORD);
	} else if (ext && is_cc(tty, c, VREPRINT) && l_flag(tty, ECHO)) {
		reprint(tty, c);
	} else if (c == '\n') {
		if (l_flag(tty, ECHO | ECHONL))
			echo_raw(tty, '\n');
		in_put(tty, '\n' | TTY_EOL);
	} else if (is_cc(tty, c, VEOF)) {
		in_put(tty, TTY_EOF);
	} else if (is_cc(tty, c, VEOL) || (ext && is_cc(tty, c, VEOL2))) {
		echo_input(tty, c);
		in_put(tty, c | TTY_EOL);
	} else {
		return false;
	}
	return true;
}

/* Flow control. True: @c was part of it. */
static bool receive_flow(struct tty *tty, uint8_t c)
{
	if (!i_flag(tty, IXON))
		return false;
	if (is_cc(tty, c, VSTART)) {
		ldisc_stop(tty, false);
		return true;
	}
	if (is_cc(tty, c, VSTOP)) {
		ldisc_stop(tty, true);
		return true;
	}
	return false;
}

static int receive_signal(struct tty *tty, uint8_t c, int sig)
{
	if (!l_flag(tty, NOFLSH)) {
		ldisc_flush_input(tty);
		ldisc_flush_output(tty);
	}
	if (i_flag(tty, IXON))
		ldisc_stop(tty, false);
	if (l_flag(tty, ECHO))
		echo_char(tty, c);
	return sig;
}

static bool has_room(const struct tty *tty)
{
	/* A line without an end would never be read: what doesn't fit of it is lost. */
	if (l_flag(tty, ICANON) && !tty->lines)
		return true;
	return in_used(tty) + 2 < TTY_IN_SIZE;
}

static void put_ordinary(struct tty *tty, uint8_t c)
{
	echo_input(tty, c);
	if (i_flag(tty, PARMRK) && c == 0xff)
		in_put(tty, c);
	in_put(tty, c);
	if (!l_flag(tty, ICANON))
		tty->line_start = tty->head;
}

int ldisc_receive(struct tty *tty, uint8_t c)
{
	int sig;

	if (!has_room(tty))
		return -EAGAIN;
	if (i_flag(tty, ISTRIP))
		c &= 0x7f;
	if (i_flag(tty, IUCLC) && l_flag(tty, IEXTEN))
		c = (uint8_t)tolower(c);
	if (l_flag(tty, EXTPROC)) {
		put_ordinary(tty, c);
		return 0;
	}
	if (tty->lnext) {
		tty->lnext = false;
		put_ordinary(tty, c);
		return 0;
	}
	if (receive_flow(tty, c))
		return 0;
	sig = signal_of(tty, c);
	if (sig)
		return receive_signal(tty, c, sig);
	if (tty->stopped && i_flag(tty, IXON) && i_flag(tty, IXANY))
		ldisc_stop(tty, false);
	if (c == '\r') {
		if (i_flag(tty, IGNCR))
			return 0;
		if (i_flag(tty, ICRNL))
			c = '\n';
	} else if (c == '\n' && i_flag(tty, INLCR)) {
		c = '\r';
	}
	if (l_flag(tty, ICANON) && l_flag(tty, IEXTEN) && is_cc(tty, c, VLNEXT)) {
		tty->lnext = true;
		if (l_flag(tty, ECHO) && l_flag(tty, ECHOCTL)) {
			out_put(tty, '^');
			out_put(tty, '\b');
		}
		return 0;
	}
	if (l_flag(tty, ICANON) && receive_canonical(tty, c))
		return 0;
	put_ordinary(tty, c);
	return 0;
}

/* ---- reading ---- */

bool ldisc_readable(const struct tty *tty, bool poll)
{
	unsigned int want = 1;

	if (l_flag(tty, ICANON) && !l_flag(tty, EXTPROC))
		return tty->lines;
	if (poll && !tty->termios.cc[VTIME] && tty->termios.cc[VMIN])
		want = tty->termios.cc[VMIN];
	return in_used(tty) >= want;
}

unsigned int ldisc_inq(const struct tty *tty)
{
	unsigned int n = 0;

	if (!l_flag(tty, ICANON))
		return in_used(tty);
	if (!tty->lines)
		return 0;
	/* Complete lines only; end-of-file marks are no bytes. */
	for (unsigned int i = tty->tail; i != tty->line_start; i++)
		n += !(tty->in[i % TTY_IN_SIZE] & TTY_EOF);
	return n;
}

static uint16_t in_take(struct tty *tty)
{
	uint16_t e = *in_at(tty, tty->tail++);

	if (e & TTY_MARK)
		tty->lines--;
	return e;
}

static ssize_t read_line(struct tty *tty, uint8_t *buf, size_t len)
{
	size_t n = 0;

	if (!tty->lines)
		return -EAGAIN;
	while (n < len) {
		uint16_t e = in_take(tty);

		if (e & TTY_EOF)
			return (ssize_t)n;
		buf[n++] = (uint8_t)e;
		if (e & TTY_EOL)
			return (ssize_t)n;
	}
	/* An end of file right behind belongs to this read. */
	if (n && tty->lines && (*in_at(tty, tty->tail) & TTY_EOF))
		in_take(tty);
	return (ssize_t)n;
}

ssize_t ldisc_read(struct tty *tty, uint8_t *buf, size_t len)
{
	size_t n = 0;

	if (l_flag(tty, ICANON) && !l_flag(tty, EXTPROC))
		return read_line(tty, buf, len);
	while (n < len && in_used(tty)) {
		uint16_t e = in_take(tty);

		if (!(e & TTY_EOF))
			buf[n++] = (uint8_t)e;
	}
	return n ? (ssize_t)n : -EAGAIN;
}

void ldisc_set_termios(struct tty *tty, const struct ktermios *new)
{
	struct ktermios old = tty->termios;
	bool was_flow = (old.iflag & IXON) && old.cc[VSTOP] == 023 && old.cc[VSTART] == 021;
	bool flow;

	tty->termios = *new;
	if ((old.lflag ^ new->lflag) & ICANON) {
		/* What has been typed becomes readable, or editable no more. */
		tty->lnext = false;
		tty->line_start = tty->head;
		if ((new->lflag &ICANON) && in_used(tty)) {
			uint16_t *last = in_at(tty, tty->head - 1);

			if (!(*last & TTY_MARK)) {
				*last |= TTY_EOL;
				tty->lines++;
			}
		}
	}
	if (!(new->iflag &IXON) && (old.iflag & IXON))
		ldisc_stop(tty, false);
	flow = (new->iflag &IXON) && new->cc[VSTOP] == 023 && new->cc[VSTART] == 021;
	if (flow != was_flow)
		set_pktstatus(tty, flow ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP,
			      flow ? TIOCPKT_NOSTOP : TIOCPKT_DOSTOP);
	if ((old.lflag ^ new->lflag) & EXTPROC)
		set_pktstatus(tty, TIOCPKT_IOCTL, 0);
}
