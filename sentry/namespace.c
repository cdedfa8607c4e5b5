/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/namespace.h"

#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket_inet.h"

OBJTYPE(uts_ns_type, "uts_ns")
OBJTYPE(ipc_ns_type, "ipc_ns")
OBJTYPE(net_ns_type, "net_ns")

/* Linux's first dynamic number for namespaces: PROC_DYNAMIC_FIRST-like, only uniqueness counts. */
static _Atomic uint64_t ns_ino = 4026531840u;

uint64_t ns_alloc_ino(void)
{
	return atomic_fetch_add(&ns_ino, 1);
}

struct uts_ns *uts_ns_alloc(const char *nodename, const char *domainname)
{
	struct uts_ns *ns = kzalloc(sizeof(*ns));

	if (!ns)
		return ERR_PTR(-ENOMEM);
	refcount_init(&ns->refs, 1);
	mutex_init(&ns->lock, LOCK_OBJECT);
	strncpy(ns->nodename, nodename, sizeof(ns->nodename) - 1);
	strncpy(ns->domainname, domainname, sizeof(ns->domainname) - 1);
	ns->ino = ns_alloc_ino();
	objtype_inc(&uts_ns_type);
	return ns;
}

struct uts_ns *uts_ns_copy(struct uts_ns *old)
{
	struct uts_ns *ns;

	mutex_lock(&old->lock);
	ns = uts_ns_alloc(old->nodename, old->domainname);
	mutex_unlock(&old->lock);
	return ns;
}

struct uts_ns *uts_ns_get(struct uts_ns *ns)
{
	refcount_get(&ns->refs);
	return ns;
}

void uts_ns_put(struct uts_ns *ns)
{
	if (!ns || !refcount_put(&ns->refs))
		return;
	mutex_fini(&ns->lock);
	kfree(ns);
	objtype_dec(&uts_ns_type);
}

struct ipc_ns *ipc_ns_alloc(void)
{
	struct ipc_ns *ns = kzalloc(sizeof(*ns));

	if (!ns)
		return ERR_PTR(-ENOMEM);
	refcount_init(&ns->refs, 1);
	ns->ino = ns_alloc_ino();
	objtype_inc(&ipc_ns_type);
	return ns;
}

struct ipc_ns *ipc_ns_get(struct ipc_ns *ns)
{
	refcount_get(&ns->refs);
	return ns;
}

void ipc_ns_put(struct ipc_ns *ns)
{
	if (!ns || !refcount_put(&ns->refs))
		return;
	kfree(ns);
	objtype_dec(&ipc_ns_type);
}

struct net_ns *net_ns_alloc(bool lo_up)
{
	struct net_ns *ns = kzalloc(sizeof(*ns));

	if (!ns)
		return ERR_PTR(-ENOMEM);
	ns->inet = inet_ports_alloc(lo_up);
	if (!ns->inet) {
		kfree(ns);
		return ERR_PTR(-ENOMEM);
	}
	refcount_init(&ns->refs, 1);
	mutex_init(&ns->lock, LOCK_OBJECT);
	list_init(&ns->abstract);
	ns->ino = ns_alloc_ino();
	objtype_inc(&net_ns_type);
	return ns;
}

struct net_ns *net_ns_get(struct net_ns *ns)
{
	refcount_get(&ns->refs);
	return ns;
}

void net_ns_put(struct net_ns *ns)
{
	if (!ns || !refcount_put(&ns->refs))
		return;
	inet_ports_free(ns->inet);
	mutex_fini(&ns->lock);
	kfree(ns);
	objtype_dec(&net_ns_type);
}
