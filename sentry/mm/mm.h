/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory manager: one struct mm per address space.
 *
 * vmas say what should be where; the page table (arch/pagetable.h) says what is; the platform's
 * address_space caches the page table. Every present entry that points to RAM holds one frame
 * reference. A page of a private vma that is shared with a file, an image or another mm is mapped
 * read-only with PTE_COW and copied on the first write.
 *
 * Faults are for copy-on-write, growth and errors: mm_map populates eagerly (anonymous memory as
 * sparse extents that the host pages in on first touch; files and the image by whole contiguous
 * runs) within a window, see populate.c.
 *
 * Locks: mm->lock (vmas; shared for look-ups and faults, exclusive for changes) → mapping->lock →
 * mm->pt_lock (entries). A file's truncation comes the other way round, mapping->lock → pt_lock,
 * which is why entries have a lock of their own. as_invalidate is called under pt_lock.
 *
 * References: `users` counts tasks (CLONE_VM); the last mm_put tears the address space down.
 */
#ifndef SENTRY_MM_MM_H
#define SENTRY_MM_MM_H

#include "pagetable.h"
#include "platform/platform.h"
#include "sentry/lib/lock.h"
#include "sentry/lib/rbtree.h"
#include "sentry/lib/refcount.h"
#include "sentry/lib/usermem.h"
#include "vfs/file.h"

struct mm;

struct vma {
	struct rb_node node; /* in mm->vmas by start */
	struct mm *mm;
	uaddr_t start, end;
	unsigned long prot;   /* PROT_* */
	unsigned long flags;  /* VMA_* */
	struct file *file;    /* reference, or NULL for anonymous */
	uint64_t pgoff;	      /* file page of start */
	struct map_user user; /* registered with the file's mapping while file != NULL */
	struct vma *next_dead;
	const char *name;   /* "[heap]", "[stack]", "[vdso]", or NULL (static strings) */
	uint64_t populated; /* bytes that fault-around has mapped so far: grows the window */
	uaddr_t ahead;	    /* where the last window of a sequential walk ended, 0: none */
};
enum {
	VMA_SHARED = 1,
	VMA_GROWSDOWN = 2,
	VMA_LOCKED = 4,
	VMA_NORESERVE = 8,
	VMA_DONTFORK = 16,
	VMA_WIPEONFORK = 32,
	VMA_DONTDUMP = 64,
	VMA_STACK = 128,
	VMA_PINNED = 256, /* vdso: munmap allowed, never merged */
	VMA_DENY_WRITE =
		512,	   /* shared mapping of a file opened read-only: mprotect can't add write */
	VMA_SHMEM = 1024,  /* shared anonymous: the file is mm_shmem_file's */
	VMA_IMAGE = 2048,  /* mapped by a program loader (MAP_DENYWRITE): .data is copied at once */
	VMA_SEALED = 4096, /* as by mseal(2): can't be unmapped, moved or protected otherwise */
};

struct mm_limits { /* RLIMIT_AS, DATA, STACK, MEMLOCK: read from the task before the call */
	uint64_t as, data, stack, memlock;
};

struct mm {
	struct refcount users;
	struct usermem um; /* copies in and out of this address space */
	struct platform *platform;
	struct address_space *as;
	struct rwlock lock; /* LOCK_MM: vmas and all fields up to pt_lock */
	struct rb_root vmas;
	size_t nr_vmas;
	struct vma *dead; /* removed; their files are put once the lock is released */
	uint64_t total_vm, locked_vm, data_vm, stack_vm; /* pages */
	uaddr_t mmap_base;				 /* top-down from here */
	uaddr_t brk_start, brk;
	uaddr_t stack_top;
	uaddr_t arg_start, arg_end, env_start, env_end; /* /proc/PID/cmdline, environ */
	uaddr_t vdso;
	uint64_t auxv[64]; /* /proc/PID/auxv */
	size_t auxv_len;
	struct file *exe; /* reference: /proc/PID/exe */
	struct mm_limits limits;
	bool dumpable;
	unsigned long def_flags; /* mlockall(MCL_FUTURE) */
	struct rwlock pt_lock;	 /* LOCK_PT */
	struct pagetable pt;
	_Atomic uint64_t nr_file_rss, nr_anon_rss, max_rss; /* mapped pages, roughly */
	_Atomic uint64_t min_flt, maj_flt;
	_Atomic uint64_t membarrier;
	/* rewritten call sites (sites.h) or NULL; changed under both locks */
	struct mm_sites *sites;
	struct mm_boxes *boxes; /* call boxes of its threads or NULL */
	_Atomic bool oom; /* a system call's copy met the memory limit: its caller is killed */
};

/* An empty address space with one user. ERR_PTR(-ENOMEM). */
struct mm *mm_alloc(struct platform *platform);
struct mm *mm_get(struct mm *mm);
void mm_put(struct mm *mm);
/* The mm of a usermem (for those who get one through vfs_ctx). */
static inline struct mm *mm_of(struct usermem *um)
{
	return container_of(um, struct mm, um);
}
/* Makes @file the mm's executable (kept from being written to). 0 or -ETXTBSY. */
int mm_set_exe(struct mm *mm, struct file *file) __must_check;
/* fork: a copy that shares pages copy-on-write (or copies few resident ones outright). */
struct mm *mm_fork(struct mm *old);
/* Resident private pages up to which fork copies all of them outright. */
extern size_t mm_fork_copy_pages;

/*
 * mmap(2), with arguments as there (flags MAP_*; @len not yet rounded; @file borrowed or NULL).
 * Returns the address or -errno. Checks of the descriptor's mode are done here.
 */
long mm_mmap(struct mm *mm, uaddr_t addr, size_t len, unsigned long prot, unsigned long flags,
	     struct file *file, uint64_t offset);
/* A mapping of the kernel's own frames (vdso, vvar), pinned and named. */
int mm_map_frames(struct mm *mm, uaddr_t addr, const gpa_t *frames, size_t n, unsigned long prot,
		  const char *name);
/* The same with mm->lock held exclusively. */
int mm_map_frames_locked(struct mm *mm, uaddr_t addr, const gpa_t *frames, size_t n,
			 unsigned long prot, const char *name);
int mm_munmap(struct mm *mm, uaddr_t addr, size_t len);
int mm_mprotect(struct mm *mm, uaddr_t addr, size_t len, unsigned long prot);
long mm_mremap(struct mm *mm, uaddr_t old, size_t old_len, size_t new_len, unsigned long flags,
	       uaddr_t new_addr);
/* Sets the break; returns the break that holds now. */
uaddr_t mm_brk(struct mm *mm, uaddr_t brk);
int mm_madvise(struct mm *mm, uaddr_t addr, size_t len, int advice);
int mm_mlock(struct mm *mm, uaddr_t addr, size_t len, unsigned int flags, bool capable);
int mm_munlock(struct mm *mm, uaddr_t addr, size_t len);
int mm_mlockall(struct mm *mm, int flags, bool capable);
int mm_mincore(struct mm *mm, uaddr_t addr, size_t len, uaddr_t vec);
int mm_msync(struct mm *mm, uaddr_t addr, size_t len, int flags);
/* The gap for a mapping of @len bytes, as mmap would choose it; 0: none. mm->lock held. */
uaddr_t mm_find_gap_locked(struct mm *mm, size_t len, uaddr_t hint);

/*
 * A fault of the application at @addr wanting @access. 0: resolved, go on. Otherwise the signal to
 * send is in @info (SIGSEGV with SEGV_MAPERR/ACCERR, SIGBUS) and -EFAULT is returned; -ENOMEM: over
 * the memory limit (the caller kills).
 */
int mm_fault(struct mm *mm, uaddr_t addr, unsigned int access, siginfo_t *info);

/*
 * Atomic operations on application words, for futexes and robust lists. They fault pages in as
 * needed. 0 or -EFAULT.
 */
int mm_load32(struct mm *mm, uaddr_t addr, uint32_t *value);
int mm_cmpxchg32(struct mm *mm, uaddr_t addr, uint32_t old, uint32_t new_value, uint32_t *seen);
/* A futex's identity: (mm, address) if private, else (inode or frame owner, offset). */
struct futex_key {
	uint64_t object; /* pointer or number that is unique while someone waits */
	uint64_t offset;
	bool shared;
};
int mm_futex_key(struct mm *mm, uaddr_t addr, bool shared, bool write, struct futex_key *key);
/* Inode that mm_futex_key took a reference on, if any: release with this. */
void mm_futex_key_put(struct futex_key *key);

/*
 * Access to another's memory: ptrace, process_vm_readv, /proc/PID/mem. @force ignores protection.
 */
size_t mm_copy_remote(struct mm *mm, uaddr_t addr, void *buf, size_t len, bool write, bool force);

/* Makes shared anonymous memory a file; set once by who has such files (memfd). */
extern struct file *(*mm_shmem_file)(size_t size);

/* /proc/PID/maps (smaps with @detailed) as text, kmalloc'd; NULL when out of memory. */
char *mm_show_maps(struct mm *mm, bool detailed);
uint64_t mm_rss(struct mm *mm); /* resident pages, by the page table and the host's residency */

#endif
