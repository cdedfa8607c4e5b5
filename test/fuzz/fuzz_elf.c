/* SPDX-License-Identifier: Apache-2.0 */
/* ELF headers: whatever is accepted must be loadable without arithmetic accidents. */
#include <string.h>

#include "arch.h"
#include "loader/elf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static Elf64_Phdr phdrs[ELF_MAX_PHDRS];
	static uint8_t head[256] __attribute__((aligned(8)));
	static struct elf_info info;
	const Elf64_Ehdr *ehdr;

	memset(head, 0, sizeof(head));
	memcpy(head, data, MIN(size, sizeof(head)));
	if (elf_check_header(head, MIN(size, sizeof(head)), &ehdr))
		return 0;
	memset(phdrs, 0, sizeof(phdrs));
	if (size > sizeof(*ehdr))
		memcpy(phdrs, data + sizeof(*ehdr), MIN(size - sizeof(*ehdr), sizeof(phdrs)));
	if (elf_parse(ehdr, phdrs, &info))
		return 0;
	if (!info.nsegs || info.low > info.high || info.high > PAGE_ALIGN_UP(USER_TOP))
		__builtin_trap();
	for (unsigned int i = 0; i < info.nsegs; i++) {
		const struct elf_segment *s = &info.seg[i];

		if (s->filesz > s->memsz || s->vaddr + s->memsz < s->vaddr ||
		    s->vaddr + s->memsz > USER_TOP || s->offset + s->filesz < s->offset)
			__builtin_trap();
	}
	return 0;
}
