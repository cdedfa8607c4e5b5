/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes from inside: what splice(2) and its relatives, fcntl(2) and FIFOs need. */
#ifndef SENTRY_PIPE_H
#define SENTRY_PIPE_H

#include "vfs/file.h"

/* The pipe behind @file (borrowed), or NULL. */
struct pipe *pipe_of(struct file *file);
struct waitq *pipe_waitq(struct pipe *pipe);
/* F_GETPIPE_SZ and F_SETPIPE_SZ; @privileged: above the limit for users. Capacity or -errno. */
long pipe_size(struct pipe *pipe);
long pipe_set_size(struct pipe *pipe, unsigned long size, bool privileged);

/*
 * Splicing goes through the sentry's memory. pipe_take removes up to @len bytes: a count, 0 at the
 * end of file, -EAGAIN. pipe_unget puts back at the front what could not be passed on.
 */
ssize_t pipe_take(struct pipe *pipe, void *buf, size_t len);
int pipe_unget(struct pipe *pipe, const void *buf, size_t len);
/* Copies without removing, from byte @skip on. */
ssize_t pipe_peek(struct pipe *pipe, size_t skip, void *buf, size_t len);
/* Bytes that fit now; -EAGAIN when full, -EPIPE without readers. */
ssize_t pipe_room(struct pipe *pipe);
/* Appends all of it, over the capacity if others were faster. 0, -EPIPE or -ENOMEM. */
int pipe_put(struct pipe *pipe, const void *buf, size_t len);

/*
 * @fn is called whenever a reader finds the pipe empty: @asks: it was asked whether there is
 * something, else something was wanted. No locks held.
 */
void pipe_on_empty(struct pipe *pipe, void (*fn)(bool asks));

int fifo_open(const struct vfs_ctx *ctx, struct inode *inode, struct file *file);

#endif
