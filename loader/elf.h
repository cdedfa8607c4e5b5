/* SPDX-License-Identifier: Apache-2.0 */
/* ELF headers out of hostile bytes. Pure functions: test/fuzz/fuzz_elf.c. */
#ifndef LOADER_ELF_H
#define LOADER_ELF_H

#include <elf.h>

#include "sentry/lib/types.h"

#define ELF_MAX_PHDRS (PAGE_SIZE / sizeof(Elf64_Phdr))

struct elf_segment {
	uaddr_t vaddr; /* unbiased */
	uint64_t offset, filesz, memsz;
	unsigned int flags; /* PF_* */
};

struct elf_info {
	bool dyn; /* ET_DYN: can be placed */
	uaddr_t entry;
	uint64_t phoff;
	unsigned int phnum;
	uaddr_t phdr_vaddr; /* where the program headers are in memory, 0 if in no segment */
	struct elf_segment seg[ELF_MAX_PHDRS];
	unsigned int nsegs;
	uaddr_t low, high;		     /* page-aligned span of all segments */
	uint64_t align;			     /* largest p_align */
	uint64_t interp_offset, interp_size; /* 0: none */
	bool exec_stack;
};

/* Checks the file header in @len bytes. 0, -ENOEXEC (not for us). */
int elf_check_header(const void *buf, size_t len, const Elf64_Ehdr **ehdr);
/*
 * Checks @phdrs (ehdr->e_phnum of them) and gathers what loading needs. 0, -ENOEXEC, -EINVAL
 * (impossible segments), -ELIBBAD never (the caller's word for a bad interpreter).
 */
int elf_parse(const Elf64_Ehdr *ehdr, const Elf64_Phdr *phdrs, struct elf_info *info);

#endif
