/* SPDX-License-Identifier: Apache-2.0 */
/* What the snapshot*.c share. */
#ifndef SENTRY_SNAPSHOT_INTERNAL_H
#define SENTRY_SNAPSHOT_INTERNAL_H

#include "sentry/kernel.h"

/* What the platform has of a task, in the arena while it is frozen. */
struct frozen_task {
	struct task *task; /* reference */
	uint64_t fs_base, gs_base;
	void *fpu; /* arch_fpu_size() bytes, aligned, in block */
	void *block;
};

/* The frozen state's table of contents. In the arena, and the same after each return. */
struct frozen {
	struct kernel *kernel;
	size_t nr_tasks, nr_mms;
	struct frozen_task *tasks;
	struct mm **mms; /* references */
};
extern struct frozen *snapshot_frozen;

/* ---- snapshot_meta.c ---- */
#define SNAPSHOT_COMPATIBLE "kvmsbox,snapshot-1"
#define SNAPSHOT_CPU_WORDS  4
/* What is to be the same where it is restored: this program, and what programs saw of the CPU. */
size_t snapshot_build_id(const uint8_t **id);
void snapshot_cpu(uint64_t cpu[SNAPSHOT_CPU_WORDS]);
/* The device tree at the image's beginning, into @fdt. 0 or -errno. */
int snapshot_meta_build(void *fdt, size_t size, const struct kernel *k, const char *root_path,
			uint64_t root_size) __must_check;
/* What it says, checked. Strings point into it. */
struct snapshot_meta {
	uint64_t arena, extent, tables, tables_free;
	const char *root_path, *platform;
	uint64_t root_size;
};
/* 0, or -EINVAL with the reason in @why. */
int snapshot_meta_parse(const void *fdt, size_t fdt_size, struct snapshot_meta *m, char *why,
			size_t size) __must_check;

/* ---- snapshot.c ---- */
void snapshot_statics_restore(void);
/* Contexts as the frozen state has them. */
void snapshot_load_contexts(const struct frozen *f);
/* These pages of kernel state are in the image. */
void snapshot_mark_stored(uintptr_t start, size_t len);

#endif
