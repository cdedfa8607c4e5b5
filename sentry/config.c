/* SPDX-License-Identifier: Apache-2.0 */
/* The device tree that a sandbox boots from: writing and reading it with libfdt. */
#include "sentry/config.h"

#include <errno.h>
#include <fcntl.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sentry/fnchan.h"

#define CONFIG_COMPATIBLE "kvmsbox,sandbox-v1"

/* ---- writing ---- */

/* Appends the strings of @v one after the other, each with its NUL. */
static char *join(char *const *v, size_t *size)
{
	size_t n = 0, off = 0;
	char *buf;

	for (size_t i = 0; v && v[i]; i++)
		n += strlen(v[i]) + 1;
	buf = malloc(n ? n : 1);
	if (!buf)
		return NULL;
	for (size_t i = 0; v && v[i]; i++) {
		size_t len = strlen(v[i]) + 1;

		memcpy(buf + off, v[i], len);
		off += len;
	}
	*size = n;
	return buf;
}

static int put_list(void *fdt, const char *name, char *const *v)
{
	size_t size;
	char *buf = join(v, &size);
	int err;

	if (!buf)
		return -FDT_ERR_NOSPACE;
	err = fdt_property(fdt, name, buf, (int)size);
	free(buf);
	return err;
}

static int put_string(void *fdt, const char *name, const char *s)
{
	return s ? fdt_property_string(fdt, name, s) : 0;
}

static int put_flag(void *fdt, const char *name, bool on)
{
	return on ? fdt_property(fdt, name, NULL, 0) : 0;
}

#define TRY(expr)                                                                                  \
	do {                                                                                       \
		int try_ = (expr);                                                                 \
		if (try_ < 0)                                                                      \
			return try_;                                                               \
	} while (0)

static int write_chosen(void *fdt, const struct config *c)
{
	fdt32_t cells[CONFIG_MAX_GROUPS];

	TRY(fdt_begin_node(fdt, "chosen"));
	TRY(put_list(fdt, "args", c->args));
	TRY(put_list(fdt, "env", c->env));
	TRY(put_string(fdt, "filename", c->filename));
	TRY(put_string(fdt, "cwd", c->cwd));
	TRY(fdt_property_u32(fdt, "umask", c->umask));
	TRY(put_string(fdt, "user", c->user));
	TRY(fdt_property_u32(fdt, "uid", c->uid));
	TRY(fdt_property_u32(fdt, "gid", c->gid));
	for (size_t i = 0; i < c->ngroups; i++)
		cells[i] = cpu_to_fdt32(c->groups[i]);
	TRY(fdt_property(fdt, "groups", cells, (int)(c->ngroups * sizeof(cells[0]))));
	TRY(put_string(fdt, "hostname", c->hostname));
	TRY(put_flag(fdt, "no-new-privs", c->no_new_privs));
	TRY(put_flag(fdt, "terminal", c->terminal));
	for (int i = 0; i < 3; i++)
		cells[i] = cpu_to_fdt32((uint32_t)c->stdio[i]);
	TRY(fdt_property(fdt, "stdio", cells, 3 * sizeof(cells[0])));
	return fdt_end_node(fdt);
}

static int write_mounts(void *fdt, const struct config *c)
{
	char name[32];

	TRY(fdt_begin_node(fdt, "mounts"));
	TRY(put_flag(fdt, "read-only", c->readonly));
	for (size_t i = 0; i < c->nvolumes; i++) {
		const struct config_volume *v = &c->volumes[i];

		snprintf(name, sizeof(name), "volume@%zu", i);
		TRY(fdt_begin_node(fdt, name));
		TRY(fdt_property_u32(fdt, "fd", (uint32_t)v->fd));
		TRY(fdt_property_string(fdt, "source", v->source));
		TRY(fdt_property_string(fdt, "target", v->target));
		TRY(put_flag(fdt, "read-only", v->readonly));
		TRY(fdt_end_node(fdt));
	}
	return fdt_end_node(fdt);
}

static int write_tree(void *fdt, size_t size, const struct config *c)
{
	TRY(fdt_create(fdt, (int)size));
	TRY(fdt_finish_reservemap(fdt));
	TRY(fdt_begin_node(fdt, ""));
	TRY(fdt_property_string(fdt, "compatible", CONFIG_COMPATIBLE));
	TRY(write_chosen(fdt, c));
	TRY(fdt_begin_node(fdt, "memory"));
	TRY(fdt_property_u64(fdt, "limit", c->memory_limit));
	TRY(fdt_end_node(fdt));
	TRY(fdt_begin_node(fdt, "cpus"));
	TRY(fdt_property_u32(fdt, "count", c->ncpus));
	TRY(fdt_end_node(fdt));
	TRY(fdt_begin_node(fdt, "limits"));
	TRY(fdt_property_u32(fdt, "pids", c->max_pids));
	TRY(fdt_property_u64(fdt, "timeout-ms", c->timeout_ms));
	TRY(fdt_end_node(fdt));
	TRY(fdt_begin_node(fdt, "image"));
	TRY(fdt_property_u32(fdt, "fd", (uint32_t)c->image_fd));
	TRY(fdt_property_u64(fdt, "size", c->image_size));
	TRY(fdt_end_node(fdt));
	TRY(write_mounts(fdt, c));
	if (c->fn_kind) {
		TRY(fdt_begin_node(fdt, "function"));
		TRY(fdt_property_u32(fdt, "kind", c->fn_kind));
		TRY(fdt_property_u32(fdt, "port", c->fn_port));
		TRY(fdt_property_u32(fdt, "channel", (uint32_t)c->fn_channel));
		TRY(fdt_end_node(fdt));
	}
	TRY(fdt_begin_node(fdt, "sentry"));
	TRY(put_string(fdt, "platform", c->platform));
	TRY(put_flag(fdt, "no-rewrite", c->no_rewrite));
	TRY(fdt_property_u32(fdt, "poll-percent", c->poll_percent));
	TRY(fdt_property_u32(fdt, "strace-fd", (uint32_t)c->strace_fd));
	TRY(put_flag(fdt, "stats", c->stats));
	TRY(put_string(fdt, "log-level", c->log_level));
	if (c->control_fd)
		TRY(fdt_property_u32(fdt, "control-fd", (uint32_t)c->control_fd));
	if (c->ready_fd)
		TRY(fdt_property_u32(fdt, "ready-fd", (uint32_t)c->ready_fd));
	TRY(fdt_end_node(fdt));
	TRY(fdt_end_node(fdt));
	return fdt_finish(fdt);
}

int sandbox_config_write(const struct config *c, void **blob, size_t *size)
{
	/* Few need more than a page, and fdt_create clears all of it. */
	for (size_t room = 4UL << 10; room <= CONFIG_MAX_SIZE; room *= 4) {
		void *fdt = malloc(room);
		int err;

		if (!fdt)
			return -ENOMEM;
		err = write_tree(fdt, room, c);
		if (!err) {
			*blob = fdt;
			*size = fdt_totalsize(fdt);
			return 0;
		}
		free(fdt);
		if (err != -FDT_ERR_NOSPACE)
			return -EINVAL;
	}
	return -E2BIG;
}

int sandbox_config_memfd(const void *blob, size_t size)
{
	int fd = memfd_create("kvmsbox-dtb", MFD_CLOEXEC | MFD_ALLOW_SEALING), err;

	if (fd < 0)
		return -errno;
	if (write(fd, blob, size) != (ssize_t)size ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/* ---- reading ---- */

struct reader {
	const void *fdt;
	char *why;
	size_t why_size;
};

static int bad(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int bad(struct reader *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->why, r->why_size, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int get_node(struct reader *r, const char *path)
{
	int node = fdt_path_offset(r->fdt, path);

	return node < 0 ? bad(r, "device tree: no node %s", path) : node;
}

static int get_u32(struct reader *r, int node, const char *name, uint32_t *v)
{
	int len;
	const fdt32_t *p = fdt_getprop(r->fdt, node, name, &len);

	if (!p || len != sizeof(*p))
		return bad(r, "device tree: property %s must be one cell", name);
	*v = fdt32_ld(p);
	return 0;
}

static int get_fd(struct reader *r, int node, const char *name, int *fd)
{
	uint32_t v = 0;

	TRY(get_u32(r, node, name, &v));
	*fd = (int)v;
	return 0;
}

static int get_u64(struct reader *r, int node, const char *name, uint64_t *v)
{
	int len;
	const fdt64_t *p = fdt_getprop(r->fdt, node, name, &len);

	if (!p || len != sizeof(*p))
		return bad(r, "device tree: property %s must be two cells", name);
	*v = fdt64_ld(p);
	return 0;
}

/* A string that ends where the property ends; NULL when absent. */
static int get_string(struct reader *r, int node, const char *name, const char **s)
{
	int len;
	const char *p = fdt_getprop(r->fdt, node, name, &len);

	*s = p;
	if (p && (len < 1 || memchr(p, 0, (size_t)len) != p + len - 1))
		return bad(r, "device tree: property %s is not a string", name);
	return 0;
}

static bool get_flag(struct reader *r, int node, const char *name)
{
	return fdt_getprop(r->fdt, node, name, NULL) != NULL;
}

static int get_list(struct reader *r, int node, const char *name, char ***out)
{
	int len;
	const char *p = fdt_getprop(r->fdt, node, name, &len);
	size_t n = 0, i = 0;
	char **v;

	if (!p || len < 0 || (len > 0 && p[len - 1]))
		return bad(r, "device tree: property %s is not a list of strings", name);
	for (int k = 0; k < len; k++)
		n += !p[k];
	if (n > CONFIG_MAX_STRINGS)
		return bad(r, "device tree: property %s has more than %d strings", name,
			   CONFIG_MAX_STRINGS);
	v = calloc(n + 1, sizeof(*v));
	if (!v)
		return bad(r, "out of memory");
	for (const char *s = p; i < n; s += strlen(s) + 1)
		v[i++] = (char *)(uintptr_t)s;
	*out = v;
	return 0;
}

static int get_cells(struct reader *r, int node, const char *name, uint32_t *v, size_t max,
		     size_t *n)
{
	int len;
	const fdt32_t *p = fdt_getprop(r->fdt, node, name, &len);

	if (!p || len < 0 || len % 4 || (size_t)len / 4 > max)
		return bad(r, "device tree: property %s must be at most %zu cells", name, max);
	*n = (size_t)len / 4;
	for (size_t i = 0; i < *n; i++)
		v[i] = fdt32_ld(p + i);
	return 0;
}

static int read_chosen(struct reader *r, struct config *c)
{
	uint32_t stdio[3], umask_bits;
	size_t n;
	int node = get_node(r, "/chosen");

	TRY(node);
	TRY(get_list(r, node, "args", &c->args));
	TRY(get_list(r, node, "env", &c->env));
	TRY(get_string(r, node, "filename", &c->filename));
	TRY(get_string(r, node, "cwd", &c->cwd));
	TRY(get_u32(r, node, "umask", &umask_bits));
	if (umask_bits > 0777)
		return bad(r, "device tree: umask 0%o is not a file mode", umask_bits);
	c->umask = umask_bits;
	TRY(get_string(r, node, "user", &c->user));
	TRY(get_u32(r, node, "uid", &c->uid));
	TRY(get_u32(r, node, "gid", &c->gid));
	TRY(get_cells(r, node, "groups", c->groups, CONFIG_MAX_GROUPS, &c->ngroups));
	TRY(get_string(r, node, "hostname", &c->hostname));
	if (c->hostname && strlen(c->hostname) > 64)
		return bad(r, "device tree: hostname is longer than 64 bytes");
	c->no_new_privs = get_flag(r, node, "no-new-privs");
	c->terminal = get_flag(r, node, "terminal");
	TRY(get_cells(r, node, "stdio", stdio, 3, &n));
	if (n != 3)
		return bad(r, "device tree: stdio needs three descriptors");
	for (int i = 0; i < 3; i++)
		c->stdio[i] = (int)stdio[i];
	return 0;
}

static int read_mounts(struct reader *r, struct config *c)
{
	int node = get_node(r, "/mounts"), child;

	TRY(node);
	c->readonly = get_flag(r, node, "read-only");
	fdt_for_each_subnode (child, r->fdt, node) {
		struct config_volume *v = &c->volumes[c->nvolumes];

		if (c->nvolumes == CONFIG_MAX_VOLUMES)
			return bad(r, "device tree: more than %d volumes", CONFIG_MAX_VOLUMES);
		TRY(get_fd(r, child, "fd", &v->fd));
		TRY(get_string(r, child, "source", &v->source));
		TRY(get_string(r, child, "target", &v->target));
		if (!v->source || !v->target || v->target[0] != '/')
			return bad(r,
				   "device tree: a volume needs a source and an absolute target");
		v->readonly = get_flag(r, child, "read-only");
		c->nvolumes++;
	}
	return 0;
}

static int read_tree(struct reader *r, struct config *c)
{
	int node;

	TRY(read_chosen(r, c));
	TRY(node = get_node(r, "/memory"));
	TRY(get_u64(r, node, "limit", &c->memory_limit));
	TRY(node = get_node(r, "/cpus"));
	TRY(get_u32(r, node, "count", &c->ncpus));
	TRY(node = get_node(r, "/limits"));
	TRY(get_u32(r, node, "pids", &c->max_pids));
	TRY(get_u64(r, node, "timeout-ms", &c->timeout_ms));
	TRY(node = get_node(r, "/image"));
	TRY(get_fd(r, node, "fd", &c->image_fd));
	TRY(get_u64(r, node, "size", &c->image_size));
	TRY(read_mounts(r, c));
	node = fdt_path_offset(r->fdt, "/function");
	if (node >= 0) {
		uint32_t kind;

		TRY(get_u32(r, node, "kind", &kind));
		TRY(get_u32(r, node, "port", &c->fn_port));
		TRY(get_fd(r, node, "channel", &c->fn_channel));
		if (kind < FN_STDIO || kind > FN_LAMBDA || c->fn_port > 65535)
			return bad(r, "device tree: /function: no such kind or port");
		c->fn_kind = kind;
	}
	TRY(node = get_node(r, "/sentry"));
	TRY(get_string(r, node, "platform", &c->platform));
	c->no_rewrite = get_flag(r, node, "no-rewrite");
	TRY(get_u32(r, node, "poll-percent", &c->poll_percent));
	if (c->poll_percent > 100)
		return bad(r, "/sentry/poll-percent is more than 100");
	TRY(get_fd(r, node, "strace-fd", &c->strace_fd));
	c->stats = get_flag(r, node, "stats");
	TRY(get_string(r, node, "log-level", &c->log_level));
	if (get_flag(r, node, "control-fd"))
		TRY(get_fd(r, node, "control-fd", &c->control_fd));
	if (get_flag(r, node, "ready-fd"))
		TRY(get_fd(r, node, "ready-fd", &c->ready_fd));
	return 0;
}

int sandbox_config_parse(const void *blob, size_t size, struct config *c, char *why,
			 size_t why_size)
{
	struct reader r = {.fdt = blob, .why = why, .why_size = why_size};
	const char *compatible;
	int err;

	memset(c, 0, sizeof(*c));
	if (size > CONFIG_MAX_SIZE || fdt_check_full(blob, size))
		return bad(&r, "not a device tree, or a damaged one");
	err = get_string(&r, 0, "compatible", &compatible);
	if (!err && (!compatible || strcmp(compatible, CONFIG_COMPATIBLE)))
		err = bad(&r, "device tree: not compatible with " CONFIG_COMPATIBLE);
	if (!err)
		err = read_tree(&r, c);
	if (err)
		sandbox_config_free(c);
	return err < 0 ? -EINVAL : 0;
}

void sandbox_config_free(struct config *c)
{
	free(c->args);
	free(c->env);
	c->args = c->env = NULL;
}
