/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mount namespaces: a tree of mounts with a root, and the texts that show it. The namespace holds
 * one reference on each of its mounts and one more on the root. The last put takes the tree apart;
 * files that are still open keep their own mounts.
 */
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include "vfs/internal.h"
#include "vfs/strbuf.h"

OBJTYPE(mnt_ns_objtype, "mnt_ns");

static struct mnt_ns *mnt_ns_new(void)
{
	struct mnt_ns *ns = kzalloc(sizeof(*ns));

	if (!ns)
		return NULL;
	refcount_init(&ns->refs, 1);
	list_init(&ns->mounts);
	waitq_init(&ns->changed);
	ns->ino = 0xf0000000u + atomic_fetch_add(&vfs_state->next_ns_ino, 1);
	objtype_inc(&mnt_ns_objtype);
	return ns;
}

static void mnt_ns_free(struct mnt_ns *ns)
{
	waitq_fini(&ns->changed);
	objtype_dec(&mnt_ns_objtype);
	kfree(ns);
}

struct mnt_ns *mnt_ns_alloc(struct super *sb, unsigned long flags)
{
	struct mnt_ns *ns = mnt_ns_new();
	struct mount *mnt;

	if (!ns)
		goto out_super;
	mnt = mount_alloc(sb, sb->root, flags & MNT_FLAGS_USER);
	if (!mnt)
		goto out_ns;
	super_put(sb);
	write_lock(&vfs_state->mnt);
	mnt->id = vfs_state->next_mnt_id++;
	mnt->ns = ns;
	list_add_tail(&mnt->ns_node, &ns->mounts);
	ns->root = mount_get(mnt);
	write_unlock(&vfs_state->mnt);
	return ns;

out_ns:
	mnt_ns_free(ns);
out_super:
	super_put(sb);
	return ERR_PTR(-ENOMEM);
}

struct mnt_ns *mnt_ns_get(struct mnt_ns *ns)
{
	refcount_get(&ns->refs);
	return ns;
}

void mnt_ns_put(struct mnt_ns *ns)
{
	struct list_head gone;
	struct mount *root;

	if (!ns || !refcount_put(&ns->refs))
		return;
	list_init(&gone);
	write_lock(&vfs_state->mnt);
	root = ns->root;
	mount_tree_dissolve_locked(root, &gone);
	write_unlock(&vfs_state->mnt);
	mount_release_list(&gone);
	mount_put(root);
	mnt_ns_free(ns);
}

void mnt_ns_root(struct mnt_ns *ns, struct path *out)
{
	read_lock(&vfs_state->mnt);
	out->mnt = mount_get(ns->root);
	out->dentry = dentry_get(ns->root->root);
	read_unlock(&vfs_state->mnt);
	path_cross_mounts(out);
}

/* Points @path into the copy if it is in @old's mount. Lock held. */
static void path_follow_copy(struct path *path, struct mount *old, struct mount *copy)
{
	if (path->mnt != old)
		return;
	path->mnt = mount_get(copy);
	/* The namespace that is copied holds the old one: this put is never the last. */
	mount_put(old);
}

struct mnt_ns *mnt_ns_copy(struct mnt_ns *old, struct fs_context *fs)
{
	struct mnt_ns *ns = mnt_ns_new();
	struct mount *pos, *copy, *dst = NULL;
	struct path root = {0}, cwd = {0};
	struct list_head gone;

	if (!ns)
		return ERR_PTR(-ENOMEM);
	list_init(&gone);
	if (fs) {
		fs_context_root(fs, &root);
		fs_context_cwd(fs, &cwd);
	}
	write_lock(&vfs_state->mnt);
	for (pos = old->root; pos; pos = mount_next_locked(pos, old->root)) {
		copy = mount_clone_locked(pos, pos->root);
		if (!copy)
			goto out_dissolve;
		if (!dst) {
			ns->root = mount_get(copy);
		} else {
			dst = mount_above_locked(dst, ns->root,
						 mount_depth_locked(pos, old->root) - 1);
			mount_attach_locked(copy, dst, pos->mountpoint);
		}
		dst = copy;
		copy->ns = ns;
		list_add_tail(&copy->ns_node, &ns->mounts);
		path_follow_copy(&root, pos, copy);
		path_follow_copy(&cwd, pos, copy);
	}
	write_unlock(&vfs_state->mnt);
	if (fs) {
		fs_context_set_root(fs, &root);
		fs_context_set_cwd(fs, &cwd);
		path_put(&root);
		path_put(&cwd);
	}
	return ns;

out_dissolve:
	if (ns->root)
		mount_tree_dissolve_locked(ns->root, &gone);
	write_unlock(&vfs_state->mnt);
	mount_release_list(&gone);
	mount_put(ns->root);
	if (fs) {
		path_put(&root);
		path_put(&cwd);
	}
	mnt_ns_free(ns);
	return ERR_PTR(-ENOMEM);
}

/* Adds "/name" in front of the text that ends at @end. Returns the new start, NULL: no room. */
static char *prepend(char *start, char *low, const char *name, size_t len)
{
	if ((size_t)(start - low) < len + 1)
		return NULL;
	start -= len;
	memcpy(start, name, len);
	*--start = '/';
	return start;
}

/*
 * Writes the name of (@mnt, @dentry) below (@root) backwards from @end. Sets *@reached when it got
 * to
 * @root. Mount and dentry tree locks held shared.
 */
static char *path_write(struct mount *mnt, struct dentry *d, const struct path *root, char *low,
			char *end, bool *reached)
{
	char *s = end;

	*reached = false;
	while (s) {
		if (root && mnt == root->mnt && d == root->dentry) {
			*reached = true;
			break;
		}
		if (d == mnt->root) {
			if (mnt->parent == mnt) {
				/* The top of the namespace counts as reached for those without a
				 * root. */
				*reached = !root && mnt->ns;
				break;
			}
			d = mnt->mountpoint;
			mnt = mnt->parent;
			continue;
		}
		if (d->parent == d)
			break;
		s = prepend(s, low, d->name, d->name_len);
		d = d->parent;
	}
	return s;
}

#define PATH_TEXT_MAX (64u << 10)

/* As path_name; with @need_reach NULL (and no text) when @path isn't below @root. Mount lock held.
 */
static char *path_name_locked(const struct path *path, const struct path *root, bool need_reach)
{
	size_t cap = 512;

	for (; cap <= PATH_TEXT_MAX; cap *= 2) {
		char *buf = kmalloc(cap + 32), *s, *end;
		bool reached, deleted;

		if (!buf)
			return NULL;
		end = buf + cap;
		*end = '\0';
		read_lock(&vfs_state->tree);
		deleted = dentry_unhashed(path->dentry);
		s = path_write(path->mnt, path->dentry, root, buf + 16, end, &reached);
		read_unlock(&vfs_state->tree);
		if (!s) {
			kfree(buf);
			continue;
		}
		if (!reached && need_reach) {
			kfree(buf);
			return NULL;
		}
		if (s == end)
			*--s = '/';
		if (!reached && root) {
			s -= 13;
			memcpy(s, "(unreachable)", 13);
		}
		memmove(buf, s, (size_t)(end - s) + 1);
		if (deleted)
			strcat(buf, " (deleted)");
		return buf;
	}
	return NULL;
}

char *path_name(const struct path *path, const struct path *root)
{
	char *s;

	if (path->dentry->super == vfs_state->anon)
		return kstrdup(path->dentry->name);
	if (path->mnt->flags & MNT_INTERNAL)
		root = NULL;
	read_lock(&vfs_state->mnt);
	s = path_name_locked(path, root, false);
	read_unlock(&vfs_state->mnt);
	return s;
}

static void show_flags(struct strbuf *b, unsigned long flags)
{
	static const struct {
		unsigned long flag;
		const char *text;
	} names[] = {
		{MS_NOSUID, ",nosuid"},		{MS_NODEV, ",nodev"},
		{MS_NOEXEC, ",noexec"},		{MS_NOATIME, ",noatime"},
		{MS_NODIRATIME, ",nodiratime"}, {MS_NOSYMFOLLOW, ",nosymfollow"},
	};

	strbuf_add(b, (flags & MS_RDONLY) ? "ro" : "rw", 2);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (flags & names[i].flag)
			strbuf_printf(b, "%s", names[i].text);
	if (!(flags & (MS_NOATIME | MS_STRICTATIME)))
		strbuf_printf(b, ",relatime");
}

static void show_super_options(struct strbuf *b, struct super *sb)
{
	char *options = NULL;

	if (sb->type->sops && sb->type->sops->show_options)
		options = sb->type->sops->show_options(sb);
	if (options)
		strbuf_printf(b, "%s", options);
	kfree(options);
}

/* "/a/b" of the mount's root inside its filesystem. */
static void show_fs_root(struct strbuf *b, struct mount *mnt)
{
	struct mount whole = {.root = mnt->super->root};
	char *s;

	/* A stand-in mount of the whole filesystem, its own parent, in no namespace. */
	whole.parent = &whole;
	s = path_name_locked(&(struct path){&whole, mnt->root}, NULL, false);
	strbuf_add_escaped(b, s ? s : "/");
	kfree(s);
}

static void show_mount(struct strbuf *b, struct mount *mnt, const char *where, int style)
{
	struct super *sb = mnt->super;
	const char *type = sb->type->name;

	switch (style) {
	case 0:
		strbuf_add_escaped(b, sb->source);
		strbuf_printf(b, " ");
		strbuf_add_escaped(b, where);
		strbuf_printf(b, " %s ", type);
		show_flags(b, mnt->flags | (sb->flags & MS_RDONLY));
		show_super_options(b, sb);
		strbuf_printf(b, " 0 0\n");
		break;
	case 1:
		strbuf_printf(b, "%d %d %u:%u ", mnt->id, mnt->parent == mnt ? 1 : mnt->parent->id,
			      major(sb->dev), minor(sb->dev));
		show_fs_root(b, mnt);
		strbuf_printf(b, " ");
		strbuf_add_escaped(b, where);
		strbuf_printf(b, " ");
		show_flags(b, mnt->flags);
		if (mnt->group_id)
			strbuf_printf(b, " shared:%d", mnt->group_id);
		if (mnt->flags & MS_UNBINDABLE)
			strbuf_printf(b, " unbindable");
		strbuf_printf(b, " - %s ", type);
		strbuf_add_escaped(b, sb->source);
		strbuf_printf(b, " %s", (sb->flags & MS_RDONLY) ? "ro" : "rw");
		show_super_options(b, sb);
		strbuf_printf(b, "\n");
		break;
	default:
		strbuf_printf(b, "device ");
		strbuf_add_escaped(b, sb->source);
		strbuf_printf(b, " mounted on ");
		strbuf_add_escaped(b, where);
		strbuf_printf(b, " with fstype %s\n", type);
		break;
	}
}

char *mnt_ns_show(struct mnt_ns *ns, const struct path *root, int style)
{
	struct strbuf b = {0};
	struct mount *mnt;

	read_lock(&vfs_state->mnt);
	list_for_each_entry (mnt, &ns->mounts, ns_node) {
		struct path at = {mnt, mnt->root};
		char *where = path_name_locked(&at, root, root != NULL);

		/* What lies outside the caller's root isn't shown. */
		if (!where)
			continue;
		show_mount(&b, mnt, where, style);
		kfree(where);
	}
	read_unlock(&vfs_state->mnt);
	return strbuf_finish(&b);
}
