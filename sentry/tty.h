/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Terminals, from inside: the object shared by tty.c (life, job control), tty_ldisc.c (the line
 * discipline), tty_ioctl.c, pty.c (the two kinds of file) and devpts.c (names).
 *
 * A terminal is a pty pair: what is written to the master is typed at the slave. Who holds a
 * reference: each open file of either side, each thread group whose controlling terminal it is.
 */
#ifndef SENTRY_TTY_H
#define SENTRY_TTY_H

#include <sys/ioctl.h>
#include <termios.h>

#include "sentry/objects.h"

#define TTY_IN_SIZE  4096u
#define TTY_OUT_SIZE 16384u
#define TTY_NCCS     19
#define PTS_MAJOR    136

/* struct termios2 of the kernel's ABI; struct termios is its first 36 bytes. */
struct ktermios {
	uint32_t iflag, oflag, cflag, lflag;
	uint8_t line;
	uint8_t cc[TTY_NCCS];
	uint32_t ispeed, ospeed;
};

/* Entries of the input ring: a byte, and whether a line ends with it. */
#define TTY_EOL	 0x100
#define TTY_EOF	 0x200 /* ends a line without being part of it */
#define TTY_MARK (TTY_EOL | TTY_EOF)

struct tty {
	struct refcount refs;
	struct kernel *kernel;
	struct path pts;     /* the devpts instance's root; references */
	struct devpts *fs;   /* kept by pts */
	int index;	     /* const */
	struct dentry *name; /* in devpts while the master is open */
	struct waitq slave_wq, master_wq;
	/* Under kernel->tasklist. */
	struct pid *pgrp, *session; /* references, or NULL */
	struct mutex lock;	    /* LOCK_STREAM, guards all below */
	struct ktermios termios;
	struct winsize ws;
	bool locked, exclusive;
	bool master_open;
	unsigned int slaves; /* open files */
	bool slave_was_open; /* since the master was opened */
	uint64_t hangups;    /* a slave file with another count in file->pos is dead */
	bool stopped;	     /* by XOFF or TCXONC: no output */
	bool packet;
	uint8_t pktstatus;
	/* Input: typed, not yet read. head and tail count entries ever put and taken. */
	uint16_t in[TTY_IN_SIZE];
	unsigned int head, tail;
	unsigned int line_start; /* where the line being edited begins */
	unsigned int lines;	 /* complete lines there are */
	bool lnext;
	unsigned int column, canon_column;
	/* Output: written or echoed, not yet read by the master. */
	uint8_t out[TTY_OUT_SIZE];
	unsigned int out_head, out_tail;
	/* VTIME. */
	struct ktimer vtimer;
	uint64_t vread; /* which read it is for; 0: none */
	bool vtime_passed;
};

/* ---- tty.c ---- */
int tty_init(void) __must_check;
/* A pair with the master open, locked, named in @pts (a devpts root). ERR_PTR on failure. */
struct tty *tty_alloc(struct kernel *k, const struct path *pts, struct cred *cred);
/*
 * May the caller use it so? 0, -EIO, or -ERESTARTSYS with @sig sent to its group (SIGTTIN,
 * SIGTTOU).
 */
int tty_check_change(const struct vfs_ctx *ctx, struct tty *tty, int sig);
void tty_signal_pgrp(struct tty *tty, int sig);
/* The master is gone. */
void tty_hangup(struct tty *tty);
/* The ioctls about sessions; -ENOIOCTLCMD for others. @master: asked through the master. */
long tty_job_ioctl(const struct vfs_ctx *ctx, struct tty *tty, struct file *file, bool master,
		   unsigned int cmd, unsigned long arg);
/* A slave has been opened by @ctx: it may become the controlling terminal. */
void tty_opened(const struct vfs_ctx *ctx, struct tty *tty, struct file *file);

/* ---- tty_ldisc.c; tty->lock held ---- */
void ldisc_init(struct tty *tty);
/*
 * One typed byte. Returns a signal for the foreground group or 0; -EAGAIN when there is no room.
 */
int ldisc_receive(struct tty *tty, uint8_t c);
/* Processes output: how many bytes were taken. */
size_t ldisc_write(struct tty *tty, const uint8_t *buf, size_t len);
bool ldisc_readable(const struct tty *tty, bool poll);
/* Bytes that a read would find. */
unsigned int ldisc_inq(const struct tty *tty);
/* Takes what one read gets, at most @len; -EAGAIN: wait. *@eof: an end-of-file mark was all. */
ssize_t ldisc_read(struct tty *tty, uint8_t *buf, size_t len);
void ldisc_set_termios(struct tty *tty, const struct ktermios *new);
void ldisc_flush_input(struct tty *tty);
void ldisc_flush_output(struct tty *tty);
void ldisc_stop(struct tty *tty, bool stop);
static inline unsigned int tty_out_used(const struct tty *tty)
{
	return tty->out_head - tty->out_tail;
}

/* ---- tty_ioctl.c ---- */
long tty_ioctl(const struct vfs_ctx *ctx, struct tty *tty, struct file *file, bool master,
	       unsigned int cmd, unsigned long arg);

/* ---- pty.c ---- */
extern const struct file_ops pty_master_ops, pty_slave_ops;
int ptmx_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file);
/* Makes @file a slave of @tty (takes a reference of its own). -EIO when that can't be. */
int pty_slave_attach(const struct vfs_ctx *ctx, struct tty *tty, struct file *file);
int pts_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file);

/* ---- devpts.c ---- */
int devpts_init(void) __must_check;
struct devpts *devpts_of(const struct super *sb); /* NULL: another kind */
/* The devpts root that a ptmx node means: its own, or the one beside it. */
int devpts_find(const struct vfs_ctx *ctx, struct file *ptmx, struct path *out);
/* Gives @tty a number and a name. 0 or -errno. */
int devpts_add(struct devpts *fs, struct tty *tty, struct cred *cred);
void devpts_remove(struct devpts *fs, struct tty *tty);
/* A reference, or NULL. */
struct tty *devpts_get_tty(struct devpts *fs, int index);

#endif
