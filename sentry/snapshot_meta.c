/* SPDX-License-Identifier: Apache-2.0 */
/* The device tree at the beginning of a snapshot's image (snapshot_image.h lists it). */
#include <elf.h>
#include <errno.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "arch.h"
#include "sentry/lib/physmem_frozen.h"
#include "sentry/lib/world.h"
#include "sentry/snapshot_image.h"
#include "sentry/snapshot_internal.h"

/* This program's header and notes, in memory. */
extern const Elf64_Ehdr __ehdr_start;

size_t snapshot_build_id(const uint8_t **id)
{
	const uint8_t *base = (const uint8_t *)&__ehdr_start;
	const Elf64_Phdr *ph = (const void *)(base + __ehdr_start.e_phoff);

	for (unsigned int i = 0; i < __ehdr_start.e_phnum; i++) {
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
