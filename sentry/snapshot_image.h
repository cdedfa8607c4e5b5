/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image of a frozen sandbox as a memory file: sparse, each kind of state at a fixed place, so
 * that it is mapped in one piece each. It begins with a device tree (libfdt):
 *
 *	/		compatible "kvmsbox,snapshot-1", build (the program that made it), cpu,
 *			platform, boot-id (of the host)
 *	/image		of the root file system: path, size, identity (device, inode, change time),
 *			hash (of the ends of its file)
 *	/kernel		statics (address, size)…, extent, frozen (address of struct frozen)
 *	/memory		extent, tables
 *	/stdio		index (hostfd of init's descriptors 0 to 2, 0: none)
 *	/tasks		processes, threads; process@PID: pid, threads, command: for people, and the
 *			first ones only
 */
#ifndef SENTRY_SNAPSHOT_IMAGE_H
#define SENTRY_SNAPSHOT_IMAGE_H

#include "sentry/lib/arena.h"
#include "sentry/lib/physmem.h"

#define SNAPSHOT_VERSION    "1"
#define SNAPSHOT_FAMILY	    "kvmsbox,snapshot-"
#define SNAPSHOT_COMPATIBLE SNAPSHOT_FAMILY SNAPSHOT_VERSION

#define IMAGE_META_SIZE	 65536UL
#define IMAGE_STATICS	 (1UL << 20) /* the pieces of world_statics, one behind the other */
#define IMAGE_RUNS	 (1UL << 30) /* struct image_runs; of functions' images */
#define IMAGE_RUNS_MAX	 (1UL << 30)
#define IMAGE_TABLES	 (2UL << 30)
#define IMAGE_TABLES_MAX (1UL << 30)
#define IMAGE_KERNEL	 (4UL << 30)
#define IMAGE_KERNEL_MAX (28UL << 30)
#define IMAGE_RAM	 (32UL << 30)
#define IMAGE_SIZE	 (IMAGE_RAM + PHYS_RAM_SIZE)

/* What there is of kernel state and guest memory, in order: the host is slow to tell of a file. */
struct image_runs {
	uint64_t n;
	struct image_run {
		uint32_t page, n; /* of the image */
	} v[];
};

/* Where a process maps its image, to read. */
#define IMAGE_VIEW 0x280000000000UL

#endif
