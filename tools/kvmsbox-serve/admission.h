/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVE_ADMISSION_H
#define SERVE_ADMISSION_H

#include "tools/kvmsbox-serve/serve.h"

/* Gives waiting requests to ready instances, as far as the limits allow. */
void admission_dispatch(void);
/* Requests of @f that could run now if there were instances for them. */
unsigned int admission_demand(const struct function *f);
/* Ends every queued request of @f. */
void admission_refuse_all(struct function *f, unsigned int status, enum outcome outcome,
			  const char *code, const char *why);

#endif
