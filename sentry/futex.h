/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SENTRY_FUTEX_H
#define SENTRY_FUTEX_H

/* Once at boot. */
void futex_init(void);

#endif
