/* SPDX-License-Identifier: Apache-2.0 */
/* The device tree at the beginning of a snapshot's image (snapshot_image.h lists it). */
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"

#define MAX_COMMAND 160
#define MAX_LISTED  200 /* processes: what fits */

static int put_u64s(void *fdt, const char *name, const uint64_t *v, size_t n)
{
	fdt64_t cells[8];

	for (size_t i = 0; i < n; i++)
		cells[i] = cpu_to_fdt64(v[i]);
	return fdt_property(fdt, name, cells, (int)(n * sizeof(cells[0])));
}

static int put_kernel(void *fdt)
{
	struct world_piece pieces[2] = {0};
	unsigned int n = world_statics(pieces);
	uint64_t v[4];
	gpa_t from, to;
	int err;

	err = fdt_begin_node(fdt, "kernel");
	for (unsigned int i = 0; i < n; i++) {
		v[2 * i] = (uintptr_t)pieces[i].start;
		v[2 * i + 1] = pieces[i].size;
	}
	err = err ?: put_u64s(fdt, "statics", v, 2 * n);
	v[0] = arena_extent();
	err = err ?: put_u64s(fdt, "arena", v, 1);
	err = err ?: fdt_end_node(fdt);

	err = err ?: fdt_begin_node(fdt, "memory");
	v[0] = physmem_extent();
	err = err ?: put_u64s(fdt, "extent", v, 1);
	physmem_tables(&from, &to);
	v[0] = to - from;
	err = err ?: put_u64s(fdt, "tables", v, 1);
	v[0] = physmem_tables_free();
	err = err ?: put_u64s(fdt, "tables-free", v, 1);
	return err ?: fdt_end_node(fdt);
}

static int put_stdio(void *fdt, const struct frozen *f)
{
	uint64_t v[3];
	int err = fdt_begin_node(fdt, "stdio");

	for (int i = 0; i < 3; i++)
		v[i] = (uint64_t)f->stdio[i].index;
	err = err ?: put_u64s(fdt, "index", v, 3);
	return err ?: fdt_end_node(fdt);
}

/* ---- tasks, for people to see ---- */

/* The command line of @t's process as one printable line. */
static void command_line(struct task *t, char *line, size_t size)
{
	const struct mm *mm = t->mm;
	size_t len = mm->arg_end > mm->arg_start ? mm->arg_end - mm->arg_start : 0, n;

	n = mm_copy_remote(t->mm, mm->arg_start, line, MIN(len, size - 1), false, true);
	while (n && !line[n - 1])
		n--;
	if (!n) {
		snprintf(line, size, "(%.*s)", TASK_COMM_LEN, t->comm);
		n = strlen(line);
	}
	line[n] = 0;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)line[i];

		line[i] = !c ? ' ' : c < ' ' || c == 127 ? '?' : line[i];
	}
}

static int put_process(void *fdt, const struct frozen *f, size_t at)
{
	struct task *t = f->tasks[at].task;
	char name[32], line[MAX_COMMAND];
	uint64_t pid = (uint64_t)pid_nr(t->tg->pid, f->kernel->root_pid_ns), threads = 0;
	int err;

	for (size_t i = 0; i < f->nr_tasks; i++)
		threads += f->tasks[i].task->tg == t->tg;
	command_line(t, line, sizeof(line));
	snprintf(name, sizeof(name), "process@%lu", pid);
	err = fdt_begin_node(fdt, name);
	err = err ?: put_u64s(fdt, "pid", &pid, 1);
	err = err ?: put_u64s(fdt, "threads", &threads, 1);
	err = err ?: fdt_property_string(fdt, "command", line);
	return err ?: fdt_end_node(fdt);
}

static bool is_first_of_group(const struct frozen *f, size_t at)
{
	for (size_t i = 0; i < at; i++) {
		if (f->tasks[i].task->tg == f->tasks[at].task->tg)
			return false;
	}
	return true;
}

static int put_tasks(void *fdt, const struct frozen *f)
{
	uint64_t processes = 0, threads = f->nr_tasks;
	int err = fdt_begin_node(fdt, "tasks");

	for (size_t i = 0; i < f->nr_tasks; i++)
		processes += is_first_of_group(f, i);
	err = err ?: put_u64s(fdt, "processes", &processes, 1);
	err = err ?: put_u64s(fdt, "threads", &threads, 1);
	processes = 0;
	for (size_t i = 0; i < f->nr_tasks && !err && processes < MAX_LISTED; i++) {
		if (!is_first_of_group(f, i))
			continue;
		err = put_process(fdt, f, i);
		processes++;
	}
	return err ?: fdt_end_node(fdt);
}

static int put_root(void *fdt, const struct snapshot_root *root)
{
	int err;

	err = fdt_begin_node(fdt, "image");
	err = err ?: fdt_property_string(fdt, "path", root->path);
	err = err ?: put_u64s(fdt, "size", &root->size, 1);
	err = err ?: put_u64s(fdt, "identity", root->identity, SNAPSHOT_IDENTITY);
	err = err ?: fdt_property(fdt, "hash", root->hash, sizeof(root->hash));
	return err ?: fdt_end_node(fdt);
}

int snapshot_meta_build(void *fdt, size_t size, const struct frozen *f,
			const struct snapshot_root *root)
{
	uint64_t cpu[SNAPSHOT_CPU_WORDS];
	const uint8_t *id;
	size_t len = snapshot_build_id(&id);
	int err;

	snapshot_cpu(cpu);
	err = fdt_create(fdt, (int)size);
	err = err ?: fdt_finish_reservemap(fdt);
	err = err ?: fdt_begin_node(fdt, "");
	err = err ?: fdt_property_string(fdt, "compatible", SNAPSHOT_COMPATIBLE);
	err = err ?: fdt_property(fdt, "build", id, (int)len);
	err = err ?: put_u64s(fdt, "cpu", cpu, ARRAY_SIZE(cpu));
	err = err ?: fdt_property_string(fdt, "platform", f->kernel->platform->type->name);
	err = err ?: fdt_property_string(fdt, "boot-id", root->boot_id);
	err = err ?: put_root(fdt, root);
	err = err ?: put_kernel(fdt);
	err = err ?: put_stdio(fdt, f);
	err = err ?: put_tasks(fdt, f);
	err = err ?: fdt_end_node(fdt);
	err = err ?: fdt_finish(fdt);
	return err ? -ENOSPC : 0;
}

/* ---- reading ---- */

static bool get_u64s(const void *fdt, int node, const char *name, uint64_t *v, size_t n)
{
	int len;
	const fdt64_t *p = node < 0 ? NULL : fdt_getprop(fdt, node, name, &len);

	if (!p || len != (int)(n * sizeof(*p)))
		return false;
	for (size_t i = 0; i < n; i++)
		v[i] = fdt64_ld(&p[i]);
	return true;
}

/* A string that ends. NULL: there is none. */
static const char *get_string(const void *fdt, int node, const char *name)
{
	int len;
	const char *s = node < 0 ? NULL : fdt_getprop(fdt, node, name, &len);

	return s && len > 0 && strnlen(s, (size_t)len) == (size_t)len - 1 ? s : NULL;
}

static int bad(char *why, size_t size, const char *what)
{
	snprintf(why, size, "%s", what);
	return -EINVAL;
}

/* Is it this program's, for this CPU? */
static int check_origin(const void *fdt, char *why, size_t size)
{
	uint64_t cpu[SNAPSHOT_CPU_WORDS], own[SNAPSHOT_CPU_WORDS];
	const uint8_t *id;
	size_t id_len = snapshot_build_id(&id);
	const char *compatible;
	const void *build;
	int len;

	compatible = fdt_getprop(fdt, 0, "compatible", &len);
	if (!compatible || len < 1 || strnlen(compatible, (size_t)len) != (size_t)len - 1 ||
	    strncmp(compatible, SNAPSHOT_FAMILY, strlen(SNAPSHOT_FAMILY)))
		return bad(why, size, "not a kvmsbox snapshot");
	if (strcmp(compatible, SNAPSHOT_COMPATIBLE)) {
		snprintf(why, size, "a snapshot of version %.20s, and this kvmsbox reads %s",
			 compatible + strlen(SNAPSHOT_FAMILY), SNAPSHOT_VERSION);
		return -EINVAL;
	}
	build = fdt_getprop(fdt, 0, "build", &len);
	if (!build || (size_t)len != id_len || memcmp(build, id, id_len))
		return bad(why, size,
			   "made by another build of kvmsbox: restore it with that one, or make it "
			   "again");
	snapshot_cpu(own);
	if (!get_u64s(fdt, 0, "cpu", cpu, SNAPSHOT_CPU_WORDS) || memcmp(cpu, own, sizeof(cpu)))
		return bad(why, size,
			   "made on a CPU with other features, which its programs may rely on");
	return 0;
}

static bool check_statics(const void *fdt, int node)
{
	struct world_piece pieces[2];
	unsigned int n = world_statics(pieces);
	uint64_t v[4];

	if (!get_u64s(fdt, node, "statics", v, 2 * n))
		return false;
	for (unsigned int i = 0; i < n; i++) {
		if (v[2 * i] != (uintptr_t)pieces[i].start || v[2 * i + 1] != pieces[i].size)
			return false;
	}
	return true;
}

/* Init's descriptors: different ones. */
static bool get_stdio(const void *fdt, int index[3])
{
	uint64_t v[3];

	if (!get_u64s(fdt, fdt_path_offset(fdt, "/stdio"), "index", v, 3))
		return false;
	for (int i = 0; i < 3; i++) {
		if (v[i] > SNAPSHOT_MAX_STDIO)
			return false;
		index[i] = (int)v[i];
		for (int k = 0; k < i; k++) {
			if (index[i] && index[k] == index[i])
				return false;
		}
	}
	return true;
}

int snapshot_meta_parse(const void *fdt, size_t fdt_size, struct snapshot_meta *m, char *why,
			size_t size)
{
	int kernel, memory, image, len, err;

	if (fdt_check_full(fdt, fdt_size))
		return bad(why, size, "not a kvmsbox snapshot, or a damaged one");
	err = check_origin(fdt, why, size);
	if (err)
		return err;
	kernel = fdt_path_offset(fdt, "/kernel");
	memory = fdt_path_offset(fdt, "/memory");
	image = fdt_path_offset(fdt, "/image");
	m->root_path = get_string(fdt, image, "path");
	m->root_hash = image < 0 ? NULL : fdt_getprop(fdt, image, "hash", &len);
	m->platform = get_string(fdt, 0, "platform");
	m->boot_id = get_string(fdt, 0, "boot-id");
	if (!check_statics(fdt, kernel) || !get_u64s(fdt, kernel, "arena", &m->arena, 1) ||
	    !get_u64s(fdt, memory, "extent", &m->extent, 1) ||
	    !get_u64s(fdt, memory, "tables", &m->tables, 1) ||
	    !get_u64s(fdt, memory, "tables-free", &m->tables_free, 1) ||
	    !get_u64s(fdt, image, "size", &m->root_size, 1) ||
	    !get_u64s(fdt, image, "identity", m->root_identity, SNAPSHOT_IDENTITY) ||
	    !m->root_path || !m->root_hash || len != SNAPSHOT_ROOT_HASH || !m->platform ||
	    !m->boot_id || !get_stdio(fdt, m->stdio))
		return bad(why, size, "a damaged snapshot: its metadata is incomplete");
	if (m->arena > ARENA_SIZE || m->extent > PHYS_RAM_SIZE || m->tables > IMAGE_TABLES_MAX ||
	    m->tables % PAGE_SIZE)
		return bad(why, size, "a damaged snapshot: its sizes make no sense");
	return 0;
}
