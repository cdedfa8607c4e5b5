/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of the EROFS writer only. */
#ifndef LOADER_EROFS_WRITE_INTERNAL_H
#define LOADER_EROFS_WRITE_INTERNAL_H

#include "loader/erofs_write.h"
#include "vfs/erofs_fs.h"

/* 64-bit hash to block: open addressing, never shrinks. */
struct block_map {
	uint64_t *keys; /* 0: free */
	uint32_t *blocks;
	size_t cap, used;
};

/*
 * The output's blocks, appended one by one through a buffer that holds [buf_start, next). Block
 * hashes are kept for all of them.
 */
struct block_store {
	int fd;
	uint8_t *buf;
	uint32_t buf_start, next;
	uint64_t *hashes;
	size_t hashes_cap;
};

/* The file between erofs_data_begin and erofs_data_end. */
struct data_state {
	bool open, gap; /* gap: at least one whole block was skipped */
	uint64_t size, pos;
	uint32_t base;	  /* its first block in the output */
	uint32_t current; /* file block that is being filled, valid if filling */
	bool filling;
	uint8_t chunk_bits;
	uint32_t *index; /* of each block written, its place in the file */
	size_t index_cap;
};

struct erofs_writer {
	struct block_store store;
	struct block_map blocks; /* contents of one block */
	struct block_map files;	 /* contents of contiguous files, by their blocks' hashes */
	struct data_state data;
	struct enode *root;
	uint64_t max_inodes, meta_bytes;
	struct erofs_stats stats;
	uint64_t first_meta_block;
	bool chunked; /* some inode has a chunk table */
};

#define XATTR_HEADER	 ((uint32_t)sizeof(struct erofs_xattr_ibody_header))
#define STORE_BUF_BLOCKS 256U

/* The place where the next block is to be put together, or NULL with *@err set. */
uint8_t *store_slot(struct block_store *s, int *err);
/* Appends what is in the slot. */
int store_push(struct block_store *s) __must_check;
/* @n blocks from @block on, all before the end. */
int store_read(struct block_store *s, uint32_t block, uint8_t *buf, uint32_t n) __must_check;
/* Replaces a block before the end. */
int store_write(struct block_store *s, uint32_t block, const uint8_t *buf) __must_check;
/* Forgets the blocks from @next on. */
void store_truncate(struct block_store *s, uint32_t next);
int store_flush(struct block_store *s) __must_check;
/* Writes block 0 after everything else was flushed. */
int store_set_first(struct block_store *s, const uint8_t *block) __must_check;

/* Accounts for @n bytes of memory: -E2BIG past the limit. */
int writer_charge(struct erofs_writer *w, uint64_t n) __must_check;

#endif
