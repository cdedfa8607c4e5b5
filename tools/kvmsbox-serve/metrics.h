/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVE_METRICS_H
#define SERVE_METRICS_H

#include "tools/kvmsbox-serve/serve.h"

/* Prometheus' text format 0.0.4. */
void metrics_write(struct buf *out);

#endif
