/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials: made once, then immutable and shared. A change is a copy that is edited before
 * anyone else sees it.
 */
#include "vfs/cred.h"

#include <stdlib.h>
#include <string.h>

#include "sentry/lib/arena.h"

OBJTYPE(cred_objtype, "cred");

static int gid_compare(const void *a, const void *b)
{
	gid_t x = *(const gid_t *)a, y = *(const gid_t *)b;

	return x < y ? -1 : x > y;
}

static struct cred *cred_make(const gid_t *groups, unsigned int n)
{
	struct cred *cred = kzalloc(sizeof(*cred) + n * sizeof(gid_t));

	if (!cred)
		return NULL;
	refcount_init(&cred->refs, 1);
	cred->ngroups = n;
	if (n) {
		memcpy(cred->groups, groups, n * sizeof(gid_t));
		qsort(cred->groups, n, sizeof(gid_t), gid_compare);
	}
	objtype_inc(&cred_objtype);
	return cred;
}

struct cred *cred_alloc(uid_t uid, gid_t gid, const gid_t *groups, unsigned int n, uint64_t caps)
{
	struct cred *cred = cred_make(groups, n);

	if (!cred)
		return NULL;
	cred->uid = cred->euid = cred->suid = cred->fsuid = uid;
	cred->gid = cred->egid = cred->sgid = cred->fsgid = gid;
	cred->cap_bset = caps;
	if (uid == 0)
		cred->cap_permitted = cred->cap_effective = caps;
	return cred;
}

static void cred_copy_fields(struct cred *cred, const struct cred *old)
{
	cred->uid = old->uid;
	cred->euid = old->euid;
	cred->suid = old->suid;
	cred->fsuid = old->fsuid;
	cred->gid = old->gid;
	cred->egid = old->egid;
	cred->sgid = old->sgid;
	cred->fsgid = old->fsgid;
	cred->securebits = old->securebits;
	cred->cap_inheritable = old->cap_inheritable;
	cred->cap_permitted = old->cap_permitted;
	cred->cap_effective = old->cap_effective;
	cred->cap_bset = old->cap_bset;
	cred->cap_ambient = old->cap_ambient;
}

struct cred *cred_prepare_groups(const struct cred *old, const gid_t *groups, unsigned int n)
{
	struct cred *cred = cred_make(groups, n);

	if (cred)
		cred_copy_fields(cred, old);
	return cred;
}

struct cred *cred_prepare(const struct cred *old)
{
	return cred_prepare_groups(old, old->groups, old->ngroups);
}

struct cred *cred_get(struct cred *cred)
{
	refcount_get(&cred->refs);
	return cred;
}

void cred_put(struct cred *cred)
{
	if (!cred || !refcount_put(&cred->refs))
		return;
	objtype_dec(&cred_objtype);
	kfree(cred);
}

bool cred_in_group(const struct cred *cred, gid_t gid)
{
	unsigned int lo = 0, hi = cred->ngroups;

	if (cred->fsgid == gid)
		return true;
	while (lo < hi) {
		unsigned int mid = lo + (hi - lo) / 2;

		if (cred->groups[mid] == gid)
			return true;
		if (cred->groups[mid] < gid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}
