/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: 0 or a count on success, -errno on failure; pointers carry an errno with ERR_PTR and are
 * never "NULL or ERR". The restart codes never reach an application (task_signal.c turns them into
 * a restart or EINTR) and have Linux's values.
 */
#ifndef SENTRY_LIB_ERR_H
#define SENTRY_LIB_ERR_H

#include <errno.h>

#include "sentry/lib/types.h"

#define MAX_ERRNO 4095

#define ERESTARTSYS	      512
#define ERESTARTNOINTR	      513
#define ERESTARTNOHAND	      514
#define ENOIOCTLCMD	      515
#define ERESTART_RESTARTBLOCK 516

static inline void *ERR_PTR(long error)
{
	return (void *)error;
}

static inline long PTR_ERR(const void *ptr)
{
	return (long)ptr;
}

static inline bool IS_ERR(const void *ptr)
{
	return (unsigned long)ptr >= (unsigned long)-MAX_ERRNO;
}

/* Error of @ptr, or 0 if it is none. */
static inline int PTR_ERR_OR_ZERO(const void *ptr)
{
	return IS_ERR(ptr) ? (int)PTR_ERR(ptr) : 0;
}

#endif
