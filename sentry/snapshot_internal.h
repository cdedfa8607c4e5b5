/* SPDX-License-Identifier: Apache-2.0 */
/* What the snapshot*.c share. */
#ifndef SENTRY_SNAPSHOT_INTERNAL_H
#define SENTRY_SNAPSHOT_INTERNAL_H

#include <limits.h>
#include <sys/stat.h>

#include "sentry/kernel.h"
#include "sentry/lib/physmem_frozen.h"

/* What the platform has of a task, in the arena while it is frozen. */
struct frozen_task {
	struct task *task; /* reference */
	uint64_t fs_base, gs_base;
	uint64_t utime_ns, stime_ns; /* so far */
	void *fpu;		     /* arch_fpu_size() bytes, aligned, in block */
	void *block;
};

/* The frozen state's table of contents. In the arena, and the same after each return. */
struct frozen {
	struct kernel *kernel;
	size_t nr_tasks, nr_mms;
	struct frozen_task *tasks;
	struct mm **mms; /* references */
	/* What of init's stdio is there: hostfd (0: nothing) and what stands on it. */
	struct {
		int index;
		struct hostfile *file;
	} stdio[3];
};
extern struct frozen *snapshot_frozen;

/* ---- snapshot_origin.c ---- */
#define SNAPSHOT_CPU_WORDS 4
#define SNAPSHOT_ROOT_HASH 16
#define SNAPSHOT_BOOT_ID   40
#define SNAPSHOT_IDENTITY  3
/* What is to be the same where it is restored: this program, and what programs saw of the CPU. */
size_t snapshot_build_id(const uint8_t **id);
void snapshot_cpu(uint64_t cpu[SNAPSHOT_CPU_WORDS]);
/* The host's boot, whose clocks programs have seen. Asks the host once. 0 or -errno. */
int snapshot_boot_id(char id[SNAPSHOT_BOOT_ID]) __must_check;
/*
 * Of both ends of the file @fd, which the root file system is in: in those of an imported image are
 * the hashes of all between. 0 or -errno.
 */
int snapshot_root_hash(int fd, uint8_t hash[SNAPSHOT_ROOT_HASH]) __must_check;
/* As long as the host isn't booted anew: the same file, unchanged. */
void snapshot_root_identity(const struct stat *st, uint64_t identity[SNAPSHOT_IDENTITY]);

/* ---- snapshot_meta.c ---- */
#define SNAPSHOT_MAX_STDIO 1024 /* hostfd of init's stdio */
/* What the sandbox stands on. */
struct snapshot_root {
	char path[PATH_MAX]; /* of the file that the root file system is in */
	uint64_t size;
	uint64_t identity[SNAPSHOT_IDENTITY];
	uint8_t hash[SNAPSHOT_ROOT_HASH];
	char boot_id[SNAPSHOT_BOOT_ID];
};
/* The device tree at the image's beginning, into @fdt. 0 or -errno. */
int snapshot_meta_build(void *fdt, size_t size, const struct frozen *f,
			const struct snapshot_root *root) __must_check;
/* What it says, checked. Strings point into it. */
struct snapshot_meta {
	uint64_t arena, extent, tables, tables_free;
	const char *root_path, *platform, *boot_id;
	const uint8_t *root_hash;
	uint64_t root_size, root_identity[SNAPSHOT_IDENTITY];
	int stdio[3];
};
/* 0, or -EINVAL with the reason in @why. */
int snapshot_meta_parse(const void *fdt, size_t fdt_size, struct snapshot_meta *m, char *why,
			size_t size) __must_check;

/* ---- snapshot_runs.c ---- */
struct image_runs;
/* The list of the image @fd's runs into it. 0 or -errno. */
int snapshot_store_runs(int fd) __must_check;
/* Calls @fn with each run's part of [start, end) until it returns something but 0. */
int snapshot_for_runs(const struct image_runs *r, uint64_t start, uint64_t end,
		      int (*fn)(void *arg, uint64_t offset, size_t len), void *arg) __must_check;

/* ---- snapshot_pages.c: kernel state, the arena and behind it the frame allocator's tables ---- */
#define SNAPSHOT_REGIONS (1 + PHYS_KERNEL_REGIONS)
void snapshot_kernel_regions(struct phys_region r[SNAPSHOT_REGIONS]);
/*
 * From here on what the kernel changes is this process's own, and the host knows which pages. The
 * contents are those of the image @fd. 0 or -errno.
 */
int snapshot_map_kernel(int fd) __must_check;
/* These pages of kernel state are in the image; none is. What isn't was zero. */
void snapshot_mark_stored(uintptr_t start, size_t len);
void snapshot_mark_none(void);
/* Sets them back. *@restored counts those that had changed. 0 or -errno. */
int snapshot_restore_kernel(size_t *restored) __must_check;
/* Looks at all, whatever the host thinks of them. Returns how many it had to set back. */
size_t snapshot_verify_kernel(void);

/* ---- snapshot.c ---- */
/* What this process's sandbox stands on: as snapshot_prepare_save() finds out. 0 or -errno. */
int snapshot_take_root(const struct snapshot_meta *m) __must_check;
void snapshot_statics_restore(void);
/* Static variables as bytes, sanitizers or not. */
void snapshot_copy_statics(void *to, const void *from, size_t n);
/* Contexts as the frozen state has them. */
void snapshot_load_contexts(const struct frozen *f);

/* What the two ways to make an image share: the table of contents, and what is written. */
struct frozen *snapshot_frozen_alloc(struct kernel *k);
void snapshot_frozen_free(struct frozen *f);
void snapshot_save_contexts(struct frozen *f);
/* The image of a new memory file. Returns the descriptor or -errno. */
int snapshot_memfd(void);
/* Kernel state and page tables; the device tree. 0 or -errno. */
int snapshot_store_kernel(int fd) __must_check;
int snapshot_store_meta(int fd, const struct frozen *f) __must_check;
/* Nobody can change it any more. 0 or -errno. */
int snapshot_seal(int fd) __must_check;

#endif
