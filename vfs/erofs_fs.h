/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The EROFS on-disk format, as far as we read and write it. Little-endian. Source: the kernel's
 * documentation (filesystems/erofs) and what erofs-utils 1.5 accepts.
 */
#ifndef VFS_EROFS_FS_H
#define VFS_EROFS_FS_H

#include <stdint.h>

#define EROFS_SUPER_MAGIC  0xe0f5e1e2u
#define EROFS_SUPER_OFFSET 1024
#define EROFS_BLKSZBITS	   12
#define EROFS_BLKSIZ	   4096u
#define EROFS_SLOT	   32u /* a nid is an offset in units of this */
#define EROFS_NULL_ADDR	   0xffffffffu

#define EROFS_FEATURE_COMPAT_SB_CHKSUM	    0x1u
#define EROFS_FEATURE_COMPAT_MTIME	    0x2u
#define EROFS_FEATURE_INCOMPAT_CHUNKED_FILE 0x4u
#define EROFS_FEATURE_INCOMPAT_KNOWN	    EROFS_FEATURE_INCOMPAT_CHUNKED_FILE

enum erofs_layout {
	EROFS_FLAT_PLAIN = 0,
	EROFS_FLAT_INLINE = 2,
	EROFS_CHUNK_BASED = 4,
};
/* i_format: bit 0 tells the extended form, bits 1-3 the layout. */
#define EROFS_I_EXTENDED	   1u
#define EROFS_I_LAYOUT_SHIFT	   1u
#define EROFS_CHUNK_FORMAT_BITS	   0x1fu
#define EROFS_CHUNK_FORMAT_INDEXES 0x20u

struct erofs_super_block {
	uint32_t magic, checksum, feature_compat;
	uint8_t blkszbits, sb_extslots;
	uint16_t root_nid;
	uint64_t inos, build_time;
	uint32_t build_time_nsec, blocks, meta_blkaddr, xattr_blkaddr;
	uint8_t uuid[16], volume_name[16];
	uint32_t feature_incompat;
	uint16_t compr_algs, extra_devices, devt_slotoff;
	uint8_t dirblkbits, xattr_prefix_count;
	uint32_t xattr_prefix_start;
	uint64_t packed_nid;
	uint8_t reserved[24];
} __attribute__((packed));

struct erofs_inode_compact {
	uint16_t i_format, i_xattr_icount, i_mode, i_nlink;
	uint32_t i_size, i_reserved, i_u, i_ino;
	uint16_t i_uid, i_gid;
	uint32_t i_reserved2;
} __attribute__((packed));

struct erofs_inode_extended {
	uint16_t i_format, i_xattr_icount, i_mode, i_reserved;
	uint64_t i_size;
	uint32_t i_u, i_ino, i_uid, i_gid;
	uint64_t i_mtime;
	uint32_t i_mtime_nsec, i_nlink;
	uint8_t i_reserved2[16];
} __attribute__((packed));

struct erofs_xattr_ibody_header {
	uint32_t h_reserved;
	uint8_t h_shared_count, h_reserved2[7];
} __attribute__((packed));

struct erofs_xattr_entry {
	uint8_t e_name_len, e_name_index;
	uint16_t e_value_size;
} __attribute__((packed));

struct erofs_chunk_index {
	uint16_t advise, device_id;
	uint32_t blkaddr;
} __attribute__((packed));

struct erofs_dirent {
	uint64_t nid;
	uint16_t nameoff;
	uint8_t file_type, reserved;
} __attribute__((packed));

enum erofs_file_type {
	EROFS_FT_UNKNOWN,
	EROFS_FT_REG,
	EROFS_FT_DIR,
	EROFS_FT_CHR,
	EROFS_FT_BLK,
	EROFS_FT_FIFO,
	EROFS_FT_SOCK,
	EROFS_FT_LNK,
};

#define EROFS_NAME_MAX	  255u
#define EROFS_XATTR_ALIGN 4u /* of entries; the area's header is 12 bytes */

_Static_assert(sizeof(struct erofs_super_block) == 128, "superblock is 128 bytes");
_Static_assert(sizeof(struct erofs_inode_compact) == 32, "compact inode is 32 bytes");
_Static_assert(sizeof(struct erofs_inode_extended) == 64, "extended inode is 64 bytes");
_Static_assert(sizeof(struct erofs_dirent) == 12, "directory entry is 12 bytes");

#endif
