/* SPDX-License-Identifier: Apache-2.0 */
/* A request to a function, from its head to its one end: admission, deadline, response. */
#ifndef SERVE_REQUEST_H
#define SERVE_REQUEST_H

#include "tools/kvmsbox-serve/serve.h"

/* From route.c. Its head is complete; @path is within the function ("/" at least). May answer. */
int request_new(struct client *c, struct function *f, const char *path, size_t path_len,
		const char *query);
/* More of its body: 0, or a status to refuse it with. */
int request_body(struct request *r, const char *data, size_t n);
void request_body_end(struct request *r);
/* Does its function need the whole body before anything else? */
bool request_wants_all(const struct request *r);
/* The connection is gone. Ends @r. */
void request_client_gone(struct request *r);
/* The connection is going to answer @status on its own. Ends @r. */
void request_client_error(struct request *r, unsigned int status);
/* The client took what was sent to it. */
void request_drained(struct request *r);
/* @r's instance took bytes of its body: more may come. */
void request_body_taken(struct request *r);

/* To admission.c: it waits for an instance. May answer. */
void request_queue(struct request *r);
/* Out of the queue, onto @i, which is ready. */
void request_run(struct request *r, struct instance *i);
/* Takes it out of its queue or off its tenant's and function's counts; what it cost is charged. */
void request_leave(struct request *r);

/* The response. */
void response_begin(struct request *r, unsigned int status);
void response_field(struct request *r, const char *name, const char *value);
void response_head_end(struct request *r, int64_t length);
void response_data(struct request *r, const void *data, size_t n);
/* Complete. Ends @r; its instance has to be told by the caller. */
void response_end(struct request *r, enum outcome outcome);
/* An error instead of a response, or instead of the rest of one. Ends @r. */
void response_fail(struct request *r, unsigned int status, enum outcome outcome, const char *code,
		   const char *fmt, ...) __printf_fmt(5, 6);
/* response_fail: more output than the function may have. */
void response_too_much(struct request *r, const struct function_config *fc);
/* response_fail if FN_DONE's @flags say that its time or memory limit ended it. True: they do. */
bool response_limited(struct request *r, const struct function_config *fc, uint32_t flags);
size_t response_pending(const struct request *r);

#endif
