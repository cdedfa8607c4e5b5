/* SPDX-License-Identifier: Apache-2.0 */
/* Requests as AWS Lambda events and back: API Gateway's payload format 2.0. */
#ifndef SERVE_LAMBDA_EVENT_H
#define SERVE_LAMBDA_EVENT_H

#include "tools/kvmsbox-serve/serve.h"

/* The event for @r, whose body is complete, appended to @out. 0 or -ENOMEM. */
int lambda_event_apigw2(const struct request *r, struct buf *out) __must_check;
/* Answers @r with a function's result in that format. Ends @r. */
void lambda_answer_apigw2(struct request *r, const char *result, size_t n);

#endif
