/* SPDX-License-Identifier: Apache-2.0 */
/* The small namespaces: UTS, IPC, network, and per-user process counters. */
#ifndef SENTRY_NAMESPACE_H
#define SENTRY_NAMESPACE_H

#include "sentry/lib/list.h"
#include "sentry/lib/lock.h"
#include "sentry/lib/radix.h"
#include "sentry/lib/refcount.h"

struct uts_ns {
	struct refcount refs;
	struct mutex lock; /* LOCK_OBJECT */
	char nodename[65], domainname[65];
	uint64_t ino;
};
struct uts_ns *uts_ns_alloc(const char *nodename, const char *domainname);
struct uts_ns *uts_ns_copy(struct uts_ns *old);
struct uts_ns *uts_ns_get(struct uts_ns *ns);
void uts_ns_put(struct uts_ns *ns);

struct ipc_ns {
	struct refcount refs;
	uint64_t ino;
};
struct ipc_ns *ipc_ns_alloc(void);
struct ipc_ns *ipc_ns_get(struct ipc_ns *ns);
void ipc_ns_put(struct ipc_ns *ns);

struct inet_ports;
struct net_ns {
	struct refcount refs;
	struct mutex lock;	   /* LOCK_OBJECT */
	struct list_head abstract; /* bound abstract AF_UNIX names (sentry/socket) */
	struct inet_ports *inet;   /* ports of TCP and UDP (sentry/socket_inet_port.c) */
	uint64_t ino;
};
/* @lo_up: with its loopback interface up, as the first one; a new one's is down. */
struct net_ns *net_ns_alloc(bool lo_up);
struct net_ns *net_ns_get(struct net_ns *ns);
void net_ns_put(struct net_ns *ns);

/* Inode numbers of namespaces (/proc/PID/ns), unique in the sandbox. */
uint64_t ns_alloc_ino(void);

#endif
