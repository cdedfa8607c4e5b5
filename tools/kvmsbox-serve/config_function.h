/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVE_CONFIG_FUNCTION_H
#define SERVE_CONFIG_FUNCTION_H

#include "tools/kvmsbox-serve/config.h"
#include "tools/kvmsbox-serve/fields.h"

/* Returns a reference, or NULL with errors in @ctx. @name NULL: the object says it. */
struct function_config *function_config_read(struct fields_ctx *ctx, const char *name, json_t *o);
/* What the rest of the configuration must have for it. */
void function_config_check(struct fields_ctx *ctx, const struct config *c,
			   const struct function_config *f);

#endif
