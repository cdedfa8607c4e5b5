/* SPDX-License-Identifier: Apache-2.0 */
/* What has to be the same where a snapshot is restored. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "arch.h"
#include "sentry/lib/physmem.h"
#include "sentry/lib/world.h"
#include "sentry/snapshot_internal.h"

#define ENDS (64UL << 10) /* of a root file system that are hashed */

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

int snapshot_boot_id(char id[SNAPSHOT_BOOT_ID])
{
	static __host_state char known[SNAPSHOT_BOOT_ID];
	int fd, err = 0;
	ssize_t n;

	if (!known[0]) {
		fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? -1 : read(fd, known, SNAPSHOT_BOOT_ID - 1);
		err = n < 0 ? -errno : 0;
		if (fd >= 0)
			close(fd);
		known[strcspn(known, "\n")] = 0;
	}
	memcpy(id, known, SNAPSHOT_BOOT_ID);
	return err;
}

void snapshot_root_identity(const struct stat *st, uint64_t identity[SNAPSHOT_IDENTITY])
{
	identity[0] = st->st_dev;
	identity[1] = st->st_ino;
	identity[2] = (uint64_t)st->st_ctim.tv_sec * 1000000000 + (uint64_t)st->st_ctim.tv_nsec;
}

static int hash_part(XXH3_state_t *state, int fd, uint64_t from, uint64_t to)
{
	uint8_t buf[4096];

	while (from < to) {
		ssize_t n = pread(fd, buf, MIN(sizeof(buf), to - from), (off_t)from);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		XXH3_128bits_update(state, buf, (size_t)n);
		from += (uint64_t)n;
	}
	return 0;
}

int snapshot_root_hash(int fd, uint8_t hash[SNAPSHOT_ROOT_HASH])
{
	XXH3_state_t *state = XXH3_createState();
	XXH128_canonical_t c;
	struct stat st;
	uint64_t size;
	int err;

	if (!state)
		return -ENOMEM;
	XXH3_128bits_reset(state);
	err = fstat(fd, &st) ? -errno : 0;
	size = err ? 0 : (uint64_t)st.st_size;
	if (!err)
		err = hash_part(state, fd, 0, MIN(size, ENDS));
	if (!err && size > ENDS)
		err = hash_part(state, fd, MAX(size - MIN(size, ENDS), ENDS), size);
	XXH128_canonicalFromHash(&c, XXH3_128bits_digest(state));
	XXH3_freeState(state);
	memcpy(hash, &c, sizeof(c));
	return err;
}
