/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/elf.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "arch.h"

int elf_check_header(const void *buf, size_t len, const Elf64_Ehdr **out)
{
	const Elf64_Ehdr *e = buf;

	if (len < sizeof(*e) || memcmp(e->e_ident, ELFMAG, SELFMAG))
		return -ENOEXEC;
	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_ident[EI_DATA] != ELFDATA2LSB ||
	    e->e_machine != ARCH_ELF_MACHINE || (e->e_type != ET_EXEC && e->e_type != ET_DYN))
		return -ENOEXEC;
	if (e->e_phentsize != sizeof(Elf64_Phdr) || e->e_phnum < 1 || e->e_phnum > ELF_MAX_PHDRS)
		return -ENOEXEC;
	if (e->e_phoff > INT64_MAX - PAGE_SIZE)
		return -ENOEXEC;
	*out = e;
	return 0;
}

static int add_segment(struct elf_info *info, const Elf64_Phdr *p)
{
	uint64_t end;

	if (!p->p_memsz)
		return 0;
	if (p->p_filesz > p->p_memsz || __builtin_add_overflow(p->p_vaddr, p->p_memsz, &end) ||
	    end > USER_TOP || p->p_offset > INT64_MAX - PAGE_SIZE ||
	    p->p_filesz > (uint64_t)INT64_MAX - PAGE_SIZE - p->p_offset)
		return -EINVAL;
	/* File pages can be mapped only where offset and address agree within the page. */
	if (p->p_filesz && ((p->p_vaddr ^ p->p_offset) & ~PAGE_MASK))
		return -EINVAL;
	/* In rising order: what Linux's total-size computation takes for granted. */
	if (info->nsegs && p->p_vaddr < info->seg[info->nsegs - 1].vaddr)
		return -EINVAL;
	if (!info->nsegs)
		info->low = PAGE_ALIGN_DOWN(p->p_vaddr);
	info->high = MAX(info->high, PAGE_ALIGN_UP(end));
	if (p->p_align > info->align && !(p->p_align & (p->p_align - 1)) &&
	    p->p_align <= (1UL << 30))
		info->align = p->p_align;
	info->seg[info->nsegs++] = (struct elf_segment){
		.vaddr = p->p_vaddr,
		.offset = p->p_offset,
		.filesz = p->p_filesz,
		.memsz = p->p_memsz,
		.flags = p->p_flags,
	};
	return 0;
}

int elf_parse(const Elf64_Ehdr *ehdr, const Elf64_Phdr *phdrs, struct elf_info *info)
{
	memset(info, 0, sizeof(*info));
	info->dyn = ehdr->e_type == ET_DYN;
	info->entry = ehdr->e_entry;
	info->phoff = ehdr->e_phoff;
	info->phnum = ehdr->e_phnum;
	info->align = PAGE_SIZE;
	for (unsigned int i = 0; i < ehdr->e_phnum; i++) {
		const Elf64_Phdr *p = &phdrs[i];
		int err;

		switch (p->p_type) {
		case PT_LOAD:
			err = add_segment(info, p);
			if (err)
				return err;
			break;
		case PT_INTERP:
			if (info->interp_size)
				break;
			if (p->p_filesz < 2 || p->p_filesz > PATH_MAX ||
			    p->p_offset > INT64_MAX - PATH_MAX)
				return -ENOEXEC;
			info->interp_offset = p->p_offset;
			info->interp_size = p->p_filesz;
			break;
		case PT_GNU_STACK:
			info->exec_stack = p->p_flags & PF_X;
			break;
		}
	}
	if (!info->nsegs)
		return -ENOEXEC;
	for (unsigned int i = 0; i < info->nsegs; i++) {
		const struct elf_segment *s = &info->seg[i];

		if (s->offset <= info->phoff && info->phoff < s->offset + s->filesz)
			info->phdr_vaddr = info->phoff - s->offset + s->vaddr;
	}
	return 0;
}
