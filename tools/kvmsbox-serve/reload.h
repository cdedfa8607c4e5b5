/* SPDX-License-Identifier: Apache-2.0 */
/* Functions from the configuration and from the directory of manifests, at the start and later. */
#ifndef SERVE_RELOAD_H
#define SERVE_RELOAD_H

#include "tools/kvmsbox-serve/serve.h"

/* Applies server.config's functions and manifests, and watches the directory. */
int reload_init(void) __must_check;
/* SIGHUP: reads the file again. An error leaves everything as it is. Returns 0 or -EINVAL. */
int reload_config(struct buf *errors);
/* Errors of manifests as they are now, a line each. */
const struct buf *reload_problems(void);

#endif
