/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials: credentials(7), capabilities(7). A change copies, edits, publishes. The rules for
 * capabilities on a change of user ID are capabilities(7), "Effect of user ID changes".
 */
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls.h"

#define ID_KEEP ((uint32_t)-1)
#define FS_CAPS                                                                                    \
	(CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_MKNOD) | CAP_BIT(CAP_DAC_OVERRIDE) |                     \
	 CAP_BIT(CAP_DAC_READ_SEARCH) | CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_FSETID) |                \
	 CAP_BIT(CAP_LINUX_IMMUTABLE))

static void fixup_uid_caps(const struct cred *old, struct cred *c)
{
	if (c->securebits & SECBIT_NO_SETUID_FIXUP)
		return;
	if ((old->uid == 0 || old->euid == 0 || old->suid == 0) && c->uid && c->euid && c->suid) {
		if (!(c->securebits & SECBIT_KEEP_CAPS)) {
			c->cap_permitted = 0;
			c->cap_effective = 0;
		}
		c->cap_ambient = 0;
	}
	if (old->euid == 0 && c->euid)
		c->cap_effective = 0;
	if (old->euid && c->euid == 0)
		c->cap_effective = c->cap_permitted;
}

static long publish(struct task *t, struct cred *c)
{
	if (t->vfs.cred->euid != c->euid || t->vfs.cred->egid != c->egid ||
	    t->vfs.cred->fsuid != c->fsuid || t->vfs.cred->fsgid != c->fsgid) {
		t->mm->dumpable = false;
		t->pdeath_signal = 0;
	}
	task_set_cred(t, c);
	return 0;
}

long sys_getuid(struct task *t, const uint64_t *a)
{
	return t->vfs.cred->uid;
}

long sys_geteuid(struct task *t, const uint64_t *a)
{
	return t->vfs.cred->euid;
}

long sys_getgid(struct task *t, const uint64_t *a)
{
	return t->vfs.cred->gid;
}

long sys_getegid(struct task *t, const uint64_t *a)
{
	return t->vfs.cred->egid;
}

static bool uid_known(const struct cred *c, uid_t id)
{
	return id == ID_KEEP || id == c->uid || id == c->euid || id == c->suid;
}

static bool gid_known(const struct cred *c, gid_t id)
{
	return id == ID_KEEP || id == c->gid || id == c->egid || id == c->sgid;
}

long sys_setuid(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	uid_t uid = (uid_t)a[0];
	struct cred *c;

	if (uid == ID_KEEP)
		return -EINVAL;
	if (!task_capable(t, CAP_SETUID) && uid != old->uid && uid != old->suid)
		return -EPERM;
	c = cred_prepare(old);
	if (!c)
		return -ENOMEM;
	if (task_capable(t, CAP_SETUID))
		c->uid = c->suid = uid;
	c->euid = c->fsuid = uid;
	fixup_uid_caps(old, c);
	return publish(t, c);
}

long sys_setgid(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	gid_t gid = (gid_t)a[0];
	struct cred *c;

	if (gid == ID_KEEP)
		return -EINVAL;
	if (!task_capable(t, CAP_SETGID) && gid != old->gid && gid != old->sgid)
		return -EPERM;
	c = cred_prepare(old);
	if (!c)
		return -ENOMEM;
	if (task_capable(t, CAP_SETGID))
		c->gid = c->sgid = gid;
	c->egid = c->fsgid = gid;
	return publish(t, c);
}

long sys_setreuid(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	uid_t ruid = (uid_t)a[0], euid = (uid_t)a[1];
	struct cred *c;

	if (!task_capable(t, CAP_SETUID)) {
		if (ruid != ID_KEEP && ruid != old->uid && ruid != old->euid)
			return -EPERM;
		if (!uid_known(old, euid))
			return -EPERM;
	}
	c = cred_prepare(old);
	if (!c)
		return -ENOMEM;
	if (ruid != ID_KEEP)
		c->uid = ruid;
	if (euid != ID_KEEP)
		c->euid = euid;
	if (ruid != ID_KEEP || (euid != ID_KEEP && euid != old->uid))
		c->suid = c->euid;
	c->fsuid = c->euid;
	fixup_uid_caps(old, c);
	return publish(t, c);
}

long sys_setregid(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	gid_t rgid = (gid_t)a[0], egid = (gid_t)a[1];
	struct cred *c;

	if (!task_capable(t, CAP_SETGID)) {
		if (rgid != ID_KEEP && rgid != old->gid && rgid != old->egid)
			return -EPERM;
		if (!gid_known(old, egid))
			return -EPERM;
	}
	c = cred_prepare(old);
	if (!c)
		return -ENOMEM;
	if (rgid != ID_KEEP)
		c->gid = rgid;
	if (egid != ID_KEEP)
		c->egid = egid;
	if (rgid != ID_KEEP || (egid != ID_KEEP && egid != old->gid))
		c->sgid = c->egid;
	c->fsgid = c->egid;
	return publish(t, c);
}

long sys_setresuid(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	uid_t r = (uid_t)a[0], e = (uid_t)a[1], s = (uid_t)a[2];
	struct cred *c;

	if (!task_capable(t, CAP_SETUID) &&
	    (!uid_known(old, r) || !uid_known(old, e) || !uid_known(old, s)))
		return -EPERM;
	c = cred_prepare(old);
	if (!c)
		return -ENOMEM;
	if (r != ID_KEEP)
		c->uid = r;
	if (e != ID_KEEP)
		c->euid = e;
	if (s != ID_KEEP)
		c->suid = s;
	c->fsuid = c->euid;
	fixup_uid_caps(old, c);
	return publish(t, c);
}

long sys_setresgid(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	gid_t r = (gid_t)a[0], e = (gid_t)a[1], s = (gid_t)a[2];
	struct cred *c;

	if (!task_capable(t, CAP_SETGID) &&
	    (!gid_known(old, r) || !gid_known(old, e) || !gid_known(old, s)))
		return -EPERM;
	c = cred_prepare(old);
	if (!c)
		return -ENOMEM;
	if (r != ID_KEEP)
		c->gid = r;
	if (e != ID_KEEP)
		c->egid = e;
	if (s != ID_KEEP)
		c->sgid = s;
	c->fsgid = c->egid;
	return publish(t, c);
}

static long put_ids(struct task *t, const uint64_t *a, uint32_t r, uint32_t e, uint32_t s)
{
	if (copy_out(t, a[0], &r, sizeof(r)) || copy_out(t, a[1], &e, sizeof(e)) ||
	    copy_out(t, a[2], &s, sizeof(s)))
		return -EFAULT;
	return 0;
}

long sys_getresuid(struct task *t, const uint64_t *a)
{
	return put_ids(t, a, t->vfs.cred->uid, t->vfs.cred->euid, t->vfs.cred->suid);
}

long sys_getresgid(struct task *t, const uint64_t *a)
{
	return put_ids(t, a, t->vfs.cred->gid, t->vfs.cred->egid, t->vfs.cred->sgid);
}

long sys_setfsuid(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	uid_t uid = (uid_t)a[0], before = old->fsuid;
	struct cred *c;

	if (uid == ID_KEEP || uid == before)
		return before;
	if (uid != old->fsuid && !uid_known(old, uid) && !task_capable(t, CAP_SETUID))
		return before;
	c = cred_prepare(old);
	if (!c)
		return before;
	c->fsuid = uid;
	if (!(c->securebits & SECBIT_NO_SETUID_FIXUP)) {
		if (before == 0 && uid)
			c->cap_effective &= ~FS_CAPS;
		if (before && uid == 0)
			c->cap_effective |= c->cap_permitted & FS_CAPS;
	}
	publish(t, c);
	return before;
}

long sys_setfsgid(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	gid_t gid = (gid_t)a[0], before = old->fsgid;
	struct cred *c;

	if (gid == ID_KEEP || gid == before)
		return before;
	if (!gid_known(old, gid) && !task_capable(t, CAP_SETGID))
		return before;
	c = cred_prepare(old);
	if (!c)
		return before;
	c->fsgid = gid;
	publish(t, c);
	return before;
}

long sys_getgroups(struct task *t, const uint64_t *a)
{
	const struct cred *c = t->vfs.cred;
	int size = (int)a[0];

	if (size < 0)
		return -EINVAL;
	if (size) {
		if ((unsigned int)size < c->ngroups)
			return -EINVAL;
		if (c->ngroups && copy_out(t, a[1], c->groups, c->ngroups * sizeof(gid_t)))
			return -EFAULT;
	}
	return c->ngroups;
}

static int compare_gid(const void *x, const void *y)
{
	gid_t a = *(const gid_t *)x, b = *(const gid_t *)y;

	return a < b ? -1 : a > b;
}

long sys_setgroups(struct task *t, const uint64_t *a)
{
	size_t n = (unsigned int)a[0];
	gid_t *groups = NULL;
	struct cred *c;

	if (!task_capable(t, CAP_SETGID))
		return -EPERM;
	if (n > 65536)
		return -EINVAL;
	if (n) {
		groups = kmalloc(n * sizeof(*groups));
		if (!groups)
			return -ENOMEM;
		if (copy_in(t, groups, a[1], n * sizeof(*groups))) {
			kfree(groups);
			return -EFAULT;
		}
		qsort(groups, n, sizeof(*groups), compare_gid);
	}
	c = cred_prepare_groups(t->vfs.cred, groups, (unsigned int)n);
	kfree(groups);
	return c ? publish(t, c) : -ENOMEM;
}

/* ---- capabilities ---- */

struct cap_header {
	uint32_t version;
	int32_t pid;
};
struct cap_data {
	uint32_t effective, permitted, inheritable;
};

/* Data words of the version, 0 when it is unknown (the preferred one is written back). */
static int cap_words(struct task *t, uaddr_t addr, struct cap_header *h)
{
	if (copy_in(t, h, addr, sizeof(*h)))
		return -EFAULT;
	switch (h->version) {
	case _LINUX_CAPABILITY_VERSION_1:
		return 1;
	case _LINUX_CAPABILITY_VERSION_2:
	case _LINUX_CAPABILITY_VERSION_3:
		return 2;
	}
	h->version = _LINUX_CAPABILITY_VERSION_3;
	return copy_out(t, addr, h, sizeof(h->version)) ? -EFAULT : 0;
}

long sys_capget(struct task *t, const uint64_t *a)
{
	struct cap_header h;
	struct cap_data d[2];
	struct cred *c;
	int n = cap_words(t, a[0], &h);

	if (n <= 0)
		return n ? n : a[1] ? -EINVAL : 0;
	if (h.pid < 0)
		return -EINVAL;
	if (h.pid) {
		struct task *other = task_find(t->kernel, task_pid_ns(t), h.pid);

		if (!other)
			return -ESRCH;
		c = task_get_cred(other);
		task_put(other);
	} else {
		c = cred_get(t->vfs.cred);
	}
	for (int i = 0; i < 2; i++) {
		d[i].effective = (uint32_t)(c->cap_effective >> (32 * i));
		d[i].permitted = (uint32_t)(c->cap_permitted >> (32 * i));
		d[i].inheritable = (uint32_t)(c->cap_inheritable >> (32 * i));
	}
	cred_put(c);
	if (a[1] && copy_out(t, a[1], d, (size_t)n * sizeof(d[0])))
		return -EFAULT;
	return 0;
}

long sys_capset(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	struct cap_header h;
	struct cap_data d[2] = {0};
	uint64_t e, p, i;
	struct cred *c;
	int n = cap_words(t, a[0], &h);

	if (n <= 0)
		return n ? n : -EINVAL;
	if (h.pid && h.pid != task_tid_nr(t, task_pid_ns(t)))
		return -EPERM;
	if (copy_in(t, d, a[1], (size_t)n * sizeof(d[0])))
		return -EFAULT;
	e = (d[0].effective | (uint64_t)d[1].effective << 32) & CAP_FULL_SET;
	p = (d[0].permitted | (uint64_t)d[1].permitted << 32) & CAP_FULL_SET;
	i = (d[0].inheritable | (uint64_t)d[1].inheritable << 32) & CAP_FULL_SET;
	if (p & ~old->cap_permitted || e & ~p)
		return -EPERM;
	if (!cred_capable(old, CAP_SETPCAP) && i & ~(old->cap_inheritable | old->cap_permitted))
		return -EPERM;
	if (i & ~(old->cap_inheritable | old->cap_bset))
		return -EPERM;
	c = cred_prepare(old);
	if (!c)
		return -ENOMEM;
	c->cap_effective = e;
	c->cap_permitted = p;
	c->cap_inheritable = i;
	c->cap_ambient &= p & i;
	return publish(t, c);
}

/* The prctl(2) operations on credentials. -ENOIOCTLCMD: none of them. */
long prctl_cred(struct task *t, const uint64_t *a)
{
	const struct cred *old = t->vfs.cred;
	uint64_t bit = a[1] <= CAP_LAST_CAP ? CAP_BIT(a[1]) : 0;
	struct cred *c;

	switch ((int)a[0]) {
	case PR_CAPBSET_READ:
		return bit ? !!(old->cap_bset & bit) : -EINVAL;
	case PR_GET_SECUREBITS:
		return old->securebits;
	case PR_GET_KEEPCAPS:
		return !!(old->securebits & SECBIT_KEEP_CAPS);
	case PR_CAPBSET_DROP:
	case PR_SET_SECUREBITS:
	case PR_SET_KEEPCAPS:
		break;
	case PR_CAP_AMBIENT:
		if (a[1] == PR_CAP_AMBIENT_CLEAR_ALL)
			break;
		bit = a[2] <= CAP_LAST_CAP ? CAP_BIT(a[2]) : 0;
		if (!bit || a[3] || a[4])
			return -EINVAL;
		if (a[1] == PR_CAP_AMBIENT_IS_SET)
			return !!(old->cap_ambient & bit);
		if (a[1] != PR_CAP_AMBIENT_RAISE && a[1] != PR_CAP_AMBIENT_LOWER)
			return -EINVAL;
		if (a[1] == PR_CAP_AMBIENT_RAISE &&
		    (!(old->cap_permitted & bit) || !(old->cap_inheritable & bit) ||
		     (old->securebits & SECBIT_NO_CAP_AMBIENT_RAISE)))
			return -EPERM;
		break;
	default:
		return -ENOIOCTLCMD;
	}
	if (a[0] == PR_CAPBSET_DROP && !bit)
		return -EINVAL;
	if ((a[0] == PR_CAPBSET_DROP || a[0] == PR_SET_SECUREBITS) && !task_capable(t, CAP_SETPCAP))
		return -EPERM;
	if (a[0] == PR_SET_SECUREBITS &&
	    ((a[1] & ~(uint64_t)(SECURE_ALL_LOCKS | SECURE_ALL_BITS)) ||
	     ((old->securebits & SECURE_ALL_LOCKS) & ~a[1])))
		return -EPERM;
	if (a[0] == PR_SET_KEEPCAPS && a[1] > 1)
		return -EINVAL;
	if (a[0] == PR_SET_KEEPCAPS && (old->securebits & SECBIT_KEEP_CAPS_LOCKED))
		return -EPERM;
	c = cred_prepare(old);
	if (!c)
		return -ENOMEM;
	if (a[0] == PR_CAPBSET_DROP)
		c->cap_bset &= ~bit;
	else if (a[0] == PR_SET_SECUREBITS)
		c->securebits = (unsigned int)a[1];
	else if (a[0] == PR_SET_KEEPCAPS)
		c->securebits = a[1] ? c->securebits | SECBIT_KEEP_CAPS
				     : c->securebits & ~(unsigned int)SECBIT_KEEP_CAPS;
	else if (a[1] == PR_CAP_AMBIENT_CLEAR_ALL)
		c->cap_ambient = 0;
	else if (a[1] == PR_CAP_AMBIENT_RAISE)
		c->cap_ambient |= bit;
	else
		c->cap_ambient &= ~bit;
	return publish(t, c);
}
