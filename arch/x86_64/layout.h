/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers that C and assembly share. Included by both: only #define here, the C side asserts them
 * against its structures.
 *
 * Application addresses are [USER_MIN, USER_TOP) on every platform. The 64 MiB from there to
 * Linux's own limit are left to stubs: areas for their threads and, at the end, their code.
 */
#ifndef ARCH_X86_64_LAYOUT_H
#define ARCH_X86_64_LAYOUT_H

#define USER_MIN   0x10000	  /* mmap_min_addr */
#define USER_TOP   0x7ffffc000000 /* first address an application can't map */
#define STUB_AREAS USER_TOP	  /* systrap: an area for each thread, up to STUB_BASE */
#define STUB_BASE  0x7fffffff0000 /* code of ptrace and systrap stubs, STUB_SIZE bytes */
#define STUB_SIZE  0xf000

#endif
