/* SPDX-License-Identifier: Apache-2.0 */
/* Users of the image: --user and OCI's User looked up in its /etc/passwd and /etc/group. */
#ifndef SENTRY_PASSWD_H
#define SENTRY_PASSWD_H

#include "vfs/vfs.h"

#define PASSWD_MAX_GROUPS 1024

struct passwd_entry {
	uid_t uid;
	gid_t gid;
	gid_t groups[PASSWD_MAX_GROUPS];
	size_t ngroups;
	char home[256];
};

/*
 * Resolves @spec ("name", "uid", "name:group", "uid:gid"; NULL: keep @out's numbers). Numbers need
 * no entry, names do. Fills groups and home of known users. 0, or -EINVAL with one line in @why.
 */
int passwd_resolve(const struct vfs_ctx *ctx, const char *spec, struct passwd_entry *out, char *why,
		   size_t why_size);

#endif
