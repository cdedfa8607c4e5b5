/* SPDX-License-Identifier: Apache-2.0 */
/* How many instances there are of each function, and who gets the next one. */
#ifndef SERVE_POOL_H
#define SERVE_POOL_H

#include "tools/kvmsbox-serve/serve.h"

int pool_init(void) __must_check;
/* Something changed: requests may be able to run, instances may be needed. Soon, once. */
void pool_kick(void);
/* From instance.c. */
void pool_ready(struct instance *i);
void pool_start_failed(struct instance *i, const char *why);
/* No instance, and starting one fails again and again: until f->retry_at nobody waits for it. */
bool pool_is_failing(const struct function *f);
void pool_image(struct instance *i, int fds[FN_IMAGE_FDS]);
/* @i counts no more: it is ending. */
void pool_lost(struct instance *i);
/* Its memory figure changed. */
void pool_count_memory(struct instance *i, uint64_t bytes);
/* @f has a new version, or none: its instances of older ones end when they are idle. */
void pool_retire(struct function *f);
/* Ends every instance that runs no request and for which none waits. */
void pool_stop(void);

#endif
