/* SPDX-License-Identifier: Apache-2.0 */
/* What a network namespace shows as interfaces: loopback, and nothing else. netdevice(7). */
#ifndef SENTRY_NETDEV_H
#define SENTRY_NETDEV_H

#include "sentry/task.h"

/* IFF_* of loopback now. */
unsigned int netdev_lo_flags(struct net_ns *net);
/* Brings it up or down. */
void netdev_lo_set_up(struct net_ns *net, bool up);
/* The ioctl(2)s on interfaces (SIOCGIF…), for the caller's namespace. -ENOTTY: not one of them. */
long netdev_ioctl(const struct vfs_ctx *ctx, unsigned int cmd, unsigned long arg);

#endif
