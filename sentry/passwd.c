/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/passwd.h"

#include <errno.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "vfs/file.h"

#define PASSWD_MAX_FILE (1UL << 20)

/* The whole of a small file as a string; NULL when it can't be read. kmalloc'd. */
static char *slurp(const struct vfs_ctx *ctx, const char *path)
{
	struct open_how how = {.flags = O_RDONLY};
	struct file *file = file_open(ctx, NULL, path, &how);
	char *text = NULL;
	size_t size;
	ssize_t n;

	if (IS_ERR(file))
		return NULL;
	size = file->inode->size;
	if (S_ISREG(file->inode->mode) && size < PASSWD_MAX_FILE)
		text = kmalloc(size + 1);
	if (text) {
		n = file_read_kernel(file, text, size, 0);
		text[n > 0 ? n : 0] = 0;
	}
	file_put(file);
	return text;
}

/* Splits @line at colons into @f; returns the number of fields. */
static size_t split(char *line, char **f, size_t max)
{
	size_t n = 0;

	while (line && n < max)
		f[n++] = strsep(&line, ":");
	return n;
}

static bool parse_id(const char *s, uint32_t *id)
{
	char *end;
	unsigned long v;

	if (!*s)
		return false;
	errno = 0;
	v = strtoul(s, &end, 10);
	if (*end || errno || v >= UINT32_MAX)
		return false;
	*id = (uint32_t)v;
	return true;
}

/* Finds the user by name or number. Returns true if /etc/passwd has it; @name gets its login. */
static bool find_user(char *text, const char *who, bool numeric, struct passwd_entry *out,
		      char *name, size_t name_size)
{
	char *line, *f[7];
	uint32_t uid, gid;

	while ((line = strsep(&text, "\n"))) {
		if (split(line, f, 7) < 6 || !parse_id(f[2], &uid) || !parse_id(f[3], &gid))
			continue;
		if (numeric ? uid != out->uid : strcmp(f[0], who))
			continue;
		out->uid = uid;
		out->gid = gid;
		snprintf(out->home, sizeof(out->home), "%s", f[5]);
		snprintf(name, name_size, "%s", f[0]);
		return true;
	}
	return false;
}

/* A comma-separated list that has @name? */
static bool has_member(char *members, const char *name)
{
	char *m;

	while ((m = strsep(&members, ","))) {
		if (!strcmp(m, name))
			return true;
	}
	return false;
}

/* Supplementary groups of @name, and the number of group @want if that is given by name. */
static bool scan_groups(char *text, const char *name, const char *want, struct passwd_entry *out)
{
	bool found = false;
	char *line, *f[4];
	uint32_t gid;

	while ((line = strsep(&text, "\n"))) {
		if (split(line, f, 4) < 4 || !parse_id(f[2], &gid))
			continue;
		if (want && !strcmp(f[0], want)) {
			out->gid = gid;
			found = true;
		}
		if (name[0] && out->ngroups < PASSWD_MAX_GROUPS && has_member(f[3], name))
			out->groups[out->ngroups++] = gid;
	}
	return found;
}

int passwd_resolve(const struct vfs_ctx *ctx, const char *spec, struct passwd_entry *out, char *why,
		   size_t why_size)
{
	char who[256] = "", name[64] = "", *group, *text;
	bool numeric = true, known = false, group_by_name = false, group_found = true;
	uint32_t gid = 0;

	if (spec) {
		snprintf(who, sizeof(who), "%s", spec);
		out->uid = out->gid = 0;
	}
	group = strchr(who, ':');
	if (group)
		*group++ = 0;
	if (who[0])
		numeric = parse_id(who, &out->uid);
	text = slurp(ctx, "/etc/passwd");
	if (text)
		known = find_user(text, who, numeric, out, name, sizeof(name));
	kfree(text);
	if (!numeric && !known) {
		snprintf(why, why_size,
			 "user \"%s\" is not in the image's /etc/passwd: use a number instead",
			 who);
		return -EINVAL;
	}
	if (group && *group) {
		group_by_name = !parse_id(group, &gid);
		if (!group_by_name)
			out->gid = gid;
	}
	text = slurp(ctx, "/etc/group");
	if (text)
		group_found =
			scan_groups(text, spec ? name : "", group_by_name ? group : NULL, out);
	else
		group_found = false;
	kfree(text);
	if (group_by_name && !group_found) {
		snprintf(why, why_size,
			 "group \"%s\" is not in the image's /etc/group: use a number instead",
			 group);
		return -EINVAL;
	}
	return 0;
}
