/* SPDX-License-Identifier: Apache-2.0 */
/* The device tree at the beginning of a snapshot's image (snapshot_image.h lists it). */
#include <elf.h>
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "arch.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"

/* This program's header and notes, in memory. */
extern const uint8_t __ehdr_start[];

size_t snapshot_build_id(const uint8_t **id)
{
	const Elf64_Ehdr *eh = (const void *)__ehdr_start;
	const Elf64_Phdr *ph = (const void *)(__ehdr_start + eh->e_phoff);

	for (unsigned int i = 0; i < eh->e_phnum; i++) {
		const uint8_t *at = (const uint8_t *)ph[i].p_vaddr, *end = at + ph[i].p_memsz;

		while (ph[i].p_type == PT_NOTE && at + sizeof(Elf64_Nhdr) <= end) {
			const Elf64_Nhdr *n = (const void *)at;

			at += sizeof(*n) + ALIGN_UP(n->n_namesz, 4U);
			if (n->n_type == NT_GNU_BUILD_ID) {
				*id = at;
				return n->n_descsz;
			}
			at += ALIGN_UP(n->n_descsz, 4U);
		}
	}
	*id = NULL;
	return 0;
}

/* What a program may have found out about the CPU and goes on relying on. */
void snapshot_cpu(uint64_t cpu[SNAPSHOT_CPU_WORDS])
{
	cpu[0] = arch_xcr0();
	cpu[1] = arch_fpu_size();
	cpu[2] = getauxval(AT_HWCAP);
	cpu[3] = getauxval(AT_HWCAP2);
}

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

int snapshot_meta_build(void *fdt, size_t size, const struct kernel *k, const char *root_path,
			uint64_t root_size)
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
	err = err ?: fdt_property_string(fdt, "platform", k->platform->type->name);
	err = err ?: fdt_begin_node(fdt, "image");
	err = err ?: fdt_property_string(fdt, "path", root_path);
	err = err ?: put_u64s(fdt, "size", &root_size, 1);
	err = err ?: fdt_end_node(fdt);
	err = err ?: put_kernel(fdt);
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
	    strncmp(compatible, "kvmsbox,snapshot-", 17))
		return bad(why, size, "not a kvmsbox snapshot");
	if (strcmp(compatible, SNAPSHOT_COMPATIBLE)) {
		snprintf(why, size, "a snapshot of version %s, this kvmsbox reads %s",
			 compatible + 17, SNAPSHOT_COMPATIBLE + 17);
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

int snapshot_meta_parse(const void *fdt, size_t fdt_size, struct snapshot_meta *m, char *why,
			size_t size)
{
	int kernel, memory, image, len, err;
	const char *path, *platform;

	if (fdt_check_full(fdt, fdt_size))
		return bad(why, size, "not a kvmsbox snapshot, or a damaged one");
	err = check_origin(fdt, why, size);
	if (err)
		return err;
	kernel = fdt_path_offset(fdt, "/kernel");
	memory = fdt_path_offset(fdt, "/memory");
	image = fdt_path_offset(fdt, "/image");
	path = image < 0 ? NULL : fdt_getprop(fdt, image, "path", &len);
	platform = fdt_getprop(fdt, 0, "platform", NULL);
	if (!check_statics(fdt, kernel) || !get_u64s(fdt, kernel, "arena", &m->arena, 1) ||
	    !get_u64s(fdt, memory, "extent", &m->extent, 1) ||
	    !get_u64s(fdt, memory, "tables", &m->tables, 1) ||
	    !get_u64s(fdt, memory, "tables-free", &m->tables_free, 1) ||
	    !get_u64s(fdt, image, "size", &m->root_size, 1) || !path || !platform)
		return bad(why, size, "a damaged snapshot: its metadata is incomplete");
	if (m->arena > ARENA_SIZE || m->extent > PHYS_RAM_SIZE || m->tables > IMAGE_TABLES_MAX)
		return bad(why, size, "a damaged snapshot: its sizes make no sense");
	m->root_path = path;
	m->platform = platform;
	return 0;
}
