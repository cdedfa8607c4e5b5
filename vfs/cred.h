/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials: immutable once published, shared by reference. A change makes a copy
 * (cred_prepare), edits it and replaces the task's pointer. Held by: tasks, open files, keyrings of
 * sockets (SCM_CREDENTIALS copies numbers only).
 */
#ifndef VFS_CRED_H
#define VFS_CRED_H

#include <linux/capability.h>

#include "sentry/lib/refcount.h"
#include "sentry/lib/types.h"

#define CAP_BIT(cap) (1ULL << (cap))
#define CAP_FULL_SET ((CAP_BIT(CAP_LAST_CAP) << 1) - 1)

struct cred {
	struct refcount refs;
	uid_t uid, euid, suid, fsuid;
	gid_t gid, egid, sgid, fsgid;
	unsigned int securebits;
	uint64_t cap_inheritable, cap_permitted, cap_effective, cap_bset, cap_ambient;
	unsigned int ngroups;
	gid_t groups[]; /* sorted */
};

/* The credentials of @uid:@gid with @n supplementary groups (copied): root has @caps. */
struct cred *cred_alloc(uid_t uid, gid_t gid, const gid_t *groups, unsigned int n, uint64_t caps);
/* A private copy to edit, with one reference, or NULL. */
struct cred *cred_prepare(const struct cred *old);
/* The same with another group list. */
struct cred *cred_prepare_groups(const struct cred *old, const gid_t *groups, unsigned int n);
struct cred *cred_get(struct cred *cred);
void cred_put(struct cred *cred);
bool cred_in_group(const struct cred *cred, gid_t gid); /* fsgid or a supplementary one */

static inline bool cred_capable(const struct cred *cred, int cap)
{
	return cred->cap_effective & CAP_BIT(cap);
}

#endif
