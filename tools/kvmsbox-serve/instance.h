/* SPDX-License-Identifier: Apache-2.0 */
/* One sandbox: its process, its channel (sentry/fnchan.h), its states. */
#ifndef SERVE_INSTANCE_H
#define SERVE_INSTANCE_H

#include "tools/kvmsbox-serve/serve.h"

/* What a kind of function does with its requests and with messages about them. */
struct kind_ops {
	/* @i is BUSY with @r: send FN_INVOKE. */
	void (*invoke)(struct instance *i, struct request *r);
	/* More of the body is there, its end is, or the channel has room again. */
	void (*body)(struct instance *i, struct request *r);
	/* The client took bytes. */
	void (*drained)(struct instance *i, struct request *r);
	/* FN_STDOUT, FN_OPEN, FN_DATA, FN_CLOSE, FN_WINDOW. -EPROTO: not now. */
	int (*message)(struct instance *i, const struct fn_msg *m, const char *data);
	/* FN_DONE while @r is unanswered. Has to end @r. */
	void (*done)(struct instance *i, struct request *r, const struct fn_msg *m,
		     const char *data);
	/* The channel has room again, whatever the state. */
	void (*writable)(struct instance *i);
	/* A request is over: drop what belongs to it; with @all, what outlives requests, too. */
	void (*reset)(struct instance *i, bool all);
};

extern const struct kind_ops kind_stdio, kind_http, kind_lambda;

/* Starts one: cold, or from f->image. ERR_PTR if there can't be a process. */
struct instance *instance_start(struct function *f) __must_check;
/* A process that waits for an image of @platform. */
int instance_start_blank(const char *platform) __must_check;
/* FN_INVOKE and what belongs to it. */
void instance_run(struct instance *i, struct request *r);
/* @i's request has ended without FN_DONE: FN_FINISH, or FN_CANCEL; killed if it doesn't answer. */
void instance_finish(struct instance *i, bool cancel);
/* No more requests: closes the channel; killed if that isn't enough. */
void instance_end(struct instance *i);
/* At once, with SIGKILL. Its request, if any, ends with @why. */
void instance_kill(struct instance *i, const char *why);
/* Sends a message; waits in @i->out if the channel is full. @fds: FN_IMAGE_FDS to pass, or NULL. */
void instance_send(struct instance *i, const struct fn_msg *m, const void *data, size_t n,
		   const int *fds);
/* Fills in and sends FN_INVOKE, with the beginning of the body. */
void instance_invoke(struct instance *i, struct request *r, const void *data, size_t n,
		     uint32_t flags);
/* Don't read its channel: the client doesn't take what comes. */
void instance_pause(struct instance *i, bool pause);
const char *instance_state_name(enum instance_state s);

/* stream.c */
struct stream *stream_find(struct instance *i, uint32_t id);
/* One that the server opens: FN_OPEN is sent. NULL: no memory. */
struct stream *stream_open(struct instance *i, uint16_t port);
/* One that the sandbox opened. */
struct stream *stream_accept(struct instance *i, uint32_t id);
/* At most what the window and the channel allow; returns how much it was. */
size_t stream_send(struct instance *i, struct stream *s, const void *data, size_t n, bool end);
/* @n bytes that came have been dealt with. */
void stream_consumed(struct instance *i, struct stream *s, uint32_t n);
/* Books FN_DATA. -EPROTO: more than the window, or behind its end. */
int stream_receive(struct stream *s, const struct fn_msg *m) __must_check;
/* FN_CLOSE, and forgets it. */
void stream_close(struct instance *i, struct stream *s);
void stream_free(struct stream *s);

/* spawn.c */
struct spawned {
	pid_t pid;
	int pidfd, channel, errors;
};
int spawn_cold(const struct function_config *fc, struct spawned *s) __must_check;
int spawn_restore(int image_fd, struct spawned *s) __must_check;
int spawn_blank(const char *platform, struct spawned *s) __must_check;

#endif
