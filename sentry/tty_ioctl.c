/* SPDX-License-Identifier: Apache-2.0 */
/* ioctls of terminals, tty_ioctl(4). Through the master they act on the slave, as on Linux. */
#include <asm/ioctls.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "sentry/lib/err.h"
#include "sentry/syscalls.h"
#include "sentry/tty.h"

/* Their numbers contain the size of struct termios2, which libc doesn't have. */
#define TCGETS2_X  0x802c542au
#define TCSETS2_X  0x402c542bu
#define TCSETSW2_X 0x402c542cu
#define TCSETSF2_X 0x402c542du

#define TERMIOS_SIZE offsetof(struct ktermios, ispeed)
_Static_assert(TERMIOS_SIZE == 36 && sizeof(struct ktermios) == 44, "termios of the kernel's ABI");

#define CBAUD_X	 0010017u
#define BOTHER_X 0010000u

static uint32_t speed_of(uint32_t cflag)
{
	static const uint32_t low[] = {0,   50,	  75,	110,  134,  150,  200,	 300,
				       600, 1200, 1800, 2400, 4800, 9600, 19200, 38400};
	static const uint32_t high[] = {0,	 57600,	  115200,  230400,  460800,  500000,
					576000,	 921600,  1000000, 1152000, 1500000, 2000000,
					2500000, 3000000, 3500000, 4000000};

	return cflag & BOTHER_X ? high[cflag & 017] : low[cflag & 017];
}

static long get_termios(const struct vfs_ctx *ctx, struct tty *tty, unsigned long arg, size_t size)
{
	struct ktermios tio;

	mutex_lock(&tty->lock);
	tio = tty->termios;
	mutex_unlock(&tty->lock);
	return copy_to_user(ctx->um, arg, &tio, size);
}

static long set_termios(const struct vfs_ctx *ctx, struct tty *tty, unsigned long arg, size_t size,
			bool flush)
{
	struct ktermios tio = {0};

	if (copy_from_user(ctx->um, &tio, arg, size))
		return -EFAULT;
	if (size == TERMIOS_SIZE || (tio.cflag & CBAUD_X) != BOTHER_X)
		tio.ispeed = tio.ospeed = speed_of(tio.cflag);
	mutex_lock(&tty->lock);
	if (flush)
		ldisc_flush_input(tty);
	ldisc_set_termios(tty, &tio);
	mutex_unlock(&tty->lock);
	/* Who waits may be ready under the new rules. */
	waitq_wake(&tty->slave_wq, EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM);
	waitq_wake(&tty->master_wq, EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM);
	return 0;
}

static long flush_queues(struct tty *tty, unsigned long which, bool master)
{
	bool input = which == TCIFLUSH || which == TCIOFLUSH;
	bool output = which == TCOFLUSH || which == TCIOFLUSH;

	if (!input && !output)
		return -EINVAL;
	mutex_lock(&tty->lock);
	/* The master's input is the slave's output. */
	if (master ? output : input)
		ldisc_flush_input(tty);
	if (master ? input : output)
		ldisc_flush_output(tty);
	mutex_unlock(&tty->lock);
	waitq_wake(&tty->slave_wq, EPOLLOUT | EPOLLWRNORM);
	waitq_wake(&tty->master_wq, EPOLLOUT | EPOLLIN | EPOLLPRI);
	return 0;
}

static long flow(struct tty *tty, unsigned long action)
{
	uint8_t c;

	mutex_lock(&tty->lock);
	switch (action) {
	case TCOOFF:
	case TCOON:
		ldisc_stop(tty, action == TCOOFF);
		break;
	case TCIOFF:
	case TCION:
		/* Sends a stop or start character to who types: it appears in the output. */
		c = tty->termios.cc[action == TCIOFF ? VSTOP : VSTART];
		if (c)
			ldisc_write(tty, &c, 1);
		break;
	default:
		mutex_unlock(&tty->lock);
		return -EINVAL;
	}
	mutex_unlock(&tty->lock);
	waitq_wake(&tty->slave_wq, EPOLLOUT | EPOLLWRNORM);
	waitq_wake(&tty->master_wq, EPOLLIN | EPOLLRDNORM | EPOLLPRI);
	return 0;
}

static long put_int(const struct vfs_ctx *ctx, unsigned long arg, int value)
{
	return copy_to_user(ctx->um, arg, &value, sizeof(value));
}

void tty_set_winsize(struct tty *tty, const struct winsize *ws)
{
	bool changed;

	mutex_lock(&tty->lock);
	changed = memcmp(&tty->ws, ws, sizeof(*ws));
	tty->ws = *ws;
	mutex_unlock(&tty->lock);
	if (changed)
		tty_signal_pgrp(tty, SIGWINCH);
}

static long winsize_ioctl(const struct vfs_ctx *ctx, struct tty *tty, unsigned int cmd,
			  unsigned long arg)
{
	struct winsize ws;

	if (cmd == TIOCSWINSZ) {
		if (copy_from_user(ctx->um, &ws, arg, sizeof(ws)))
			return -EFAULT;
		tty_set_winsize(tty, &ws);
		return 0;
	}
	mutex_lock(&tty->lock);
	ws = tty->ws;
	mutex_unlock(&tty->lock);
	return copy_to_user(ctx->um, arg, &ws, sizeof(ws));
}

static long queue_ioctl(const struct vfs_ctx *ctx, struct tty *tty, bool input, bool master,
			unsigned long arg)
{
	unsigned int n;

	mutex_lock(&tty->lock);
	n = input == !master ? ldisc_inq(tty) : tty_out_used(tty);
	/* What was written counts as sent, as on Linux: the other end has it. */
	if (!input)
		n = 0;
	mutex_unlock(&tty->lock);
	return put_int(ctx, arg, (int)n);
}

static long set_flag(const struct vfs_ctx *ctx, struct tty *tty, unsigned int cmd,
		     unsigned long arg)
{
	int on;

	if (copy_from_user(ctx->um, &on, arg, sizeof(on)))
		return -EFAULT;
	mutex_lock(&tty->lock);
	if (cmd == TIOCSPTLCK) {
		tty->locked = on;
	} else if (tty->packet != !!on) {
		tty->packet = on;
		tty->pktstatus = 0;
	}
	mutex_unlock(&tty->lock);
	return 0;
}

/* TIOCGPTPEER: opens the slave without its name being looked up in the caller's root. */
static long open_peer(const struct vfs_ctx *ctx, struct tty *tty, unsigned long flags)
{
	struct task *t = task_of(ctx);
	struct file *file;
	struct path path;

	if (!t)
		return -EINVAL;
	path.mnt = tty->pts.mnt;
	path.dentry = tty->name;
	if (!path.dentry)
		return -EIO;
	path_get(&path);
	file = file_open_path(ctx, &path, (unsigned int)flags & ~(unsigned int)O_CLOEXEC);
	path_put(&path);
	if (IS_ERR(file))
		return PTR_ERR(file);
	return fd_install(t->files, file, 0, flags & O_CLOEXEC, task_rlimit(t, RLIMIT_NOFILE));
}

static long master_ioctl(const struct vfs_ctx *ctx, struct tty *tty, unsigned int cmd,
			 unsigned long arg)
{
	bool value;

	switch (cmd) {
	case TIOCGPTN:
		return put_int(ctx, arg, tty->index);
	case TIOCSPTLCK:
	case TIOCPKT:
		return set_flag(ctx, tty, cmd, arg);
	case TIOCGPTLCK:
	case TIOCGPKT:
		mutex_lock(&tty->lock);
		value = cmd == TIOCGPKT ? tty->packet : tty->locked;
		mutex_unlock(&tty->lock);
		return put_int(ctx, arg, value);
	case TIOCGPTPEER:
		return open_peer(ctx, tty, arg);
	case TIOCSIG:
		if (arg < 1 || arg > NSIGS)
			return -EINVAL;
		tty_signal_pgrp(tty, (int)arg);
		return 0;
	}
	return -ENOIOCTLCMD;
}

/* Calls that change the terminal: a background process is stopped by SIGTTOU first. */
static bool changes_terminal(unsigned int cmd)
{
	switch (cmd) {
	case TCSETS:
	case TCSETSW:
	case TCSETSF:
	case TCSETS2_X:
	case TCSETSW2_X:
	case TCSETSF2_X:
	case TCXONC:
	case TCFLSH:
	case TCSBRK:
	case TCSBRKP:
	case TIOCSBRK:
	case TIOCCBRK:
		return true;
	}
	return false;
}

static long exclusive_ioctl(const struct vfs_ctx *ctx, struct tty *tty, unsigned int cmd,
			    unsigned long arg)
{
	bool on;

	mutex_lock(&tty->lock);
	if (cmd != TIOCGEXCL)
		tty->exclusive = cmd == TIOCEXCL;
	on = tty->exclusive;
	mutex_unlock(&tty->lock);
	return cmd == TIOCGEXCL ? put_int(ctx, arg, on) : 0;
}

static long mode_ioctl(const struct vfs_ctx *ctx, struct tty *tty, bool master, unsigned int cmd,
		       unsigned long arg)
{
	switch (cmd) {
	case TCGETS:
		return get_termios(ctx, tty, arg, TERMIOS_SIZE);
	case TCGETS2_X:
		return get_termios(ctx, tty, arg, sizeof(struct ktermios));
	case TCSETS:
	case TCSETSW:
		return set_termios(ctx, tty, arg, TERMIOS_SIZE, false);
	case TCSETSF:
		return set_termios(ctx, tty, arg, TERMIOS_SIZE, true);
	case TCSETS2_X:
	case TCSETSW2_X:
		return set_termios(ctx, tty, arg, sizeof(struct ktermios), false);
	case TCSETSF2_X:
		return set_termios(ctx, tty, arg, sizeof(struct ktermios), true);
	case TCFLSH:
		return flush_queues(tty, arg, master);
	case TCXONC:
		return flow(tty, arg);
	case TCSBRK:
	case TCSBRKP:
	case TIOCSBRK:
	case TIOCCBRK:
		return 0; /* nothing to break, nothing to drain: the other end has it all */
	}
	return -ENOIOCTLCMD;
}

long tty_ioctl(const struct vfs_ctx *ctx, struct tty *tty, struct file *file, bool master,
	       unsigned int cmd, unsigned long arg)
{
	long ret;

	if (!master && changes_terminal(cmd)) {
		ret = tty_check_change(ctx, tty, SIGTTOU);
		if (ret)
			return ret;
	}
	ret = master ? master_ioctl(ctx, tty, cmd, arg) : -ENOIOCTLCMD;
	if (ret == -ENOIOCTLCMD)
		ret = mode_ioctl(ctx, tty, master, cmd, arg);
	if (ret == -ENOIOCTLCMD)
		ret = tty_job_ioctl(ctx, tty, file, master, cmd, arg);
	if (ret != -ENOIOCTLCMD)
		return ret;
	switch (cmd) {
	case TIOCGWINSZ:
	case TIOCSWINSZ:
		return winsize_ioctl(ctx, tty, cmd, arg);
	case FIONREAD: /* TIOCINQ */
		return queue_ioctl(ctx, tty, true, master, arg);
	case TIOCOUTQ:
		return queue_ioctl(ctx, tty, false, master, arg);
	case TIOCEXCL:
	case TIOCNXCL:
	case TIOCGEXCL:
		return exclusive_ioctl(ctx, tty, cmd, arg);
	case TIOCSTI:
	case TIOCCONS:
		return -EPERM;
	case TIOCGETD:
		return put_int(ctx, arg, 0 /* N_TTY */);
	case TIOCGDEV:
		return put_int(ctx, arg, (int)makedev(PTS_MAJOR, (unsigned int)tty->index));
	}
	return -ENOTTY;
}
