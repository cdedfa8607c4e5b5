/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sentry's access to application memory. The page table is walked under pt_lock, shared, and
 * the bytes are copied while it is held, so that no page goes away under the copy; a page that is
 * missing is faulted in as the application would, and the walk tried again.
 */
#include <errno.h>
#include <string.h>

#include "sentry/lib/physmem_frozen.h"
#include "sentry/mm/internal.h"
#include "sentry/mm/sites.h"

enum move { MOVE_IN, MOVE_OUT, MOVE_ZERO };

static void move_bytes(enum move how, uint8_t *page, uint8_t *buf, size_t n)
{
	/* A file may be written from its own mapping: then both are the same frame. */
	if (how == MOVE_ZERO || !buf)
		memset(page, 0, n);
	else if (how == MOVE_IN)
		memmove(buf, page, n);
	else
		memmove(page, buf, n);
}

/* As much of [addr, addr+len) as is mapped for it. pt_lock held shared. */
static size_t move_mapped(struct mm *mm, enum move how, uaddr_t addr, uint8_t *buf, size_t len)
{
	uint64_t need = how == MOVE_IN ? PTE_P : PTE_P | PTE_RW;
	uint64_t *pte = NULL;
	size_t done = 0;

	while (done < len) {
		uaddr_t at = addr + done;
		size_t off = at & ~PAGE_MASK, n = MIN(len - done, PAGE_SIZE - off);
		uint64_t value;

		pte = pte && (at & (PT_LEAF_SPAN - 1)) ? pte + 1 : pt_find(&mm->pt, at);
		value = pte ? pte_read(pte) : 0;
		if ((value & need) != need)
			break;
		move_bytes(how, (uint8_t *)phys_ptr(value & PTE_ADDR) + off,
			   buf ? buf + done : NULL, n);
		if (how == MOVE_IN && buf && unlikely(mm->sites))
			sites_overlay(mm, at, buf + done, n);
		done += n;
	}
	return done;
}

/*
 * Faults @addr in for a copy. A bad address is the caller's EFAULT; the memory limit isn't, the
 * task that runs into it is killed on its way out of the call (mm->oom).
 */
static bool fault_for_copy(struct mm *mm, uaddr_t addr, unsigned int access)
{
	siginfo_t info;
	int err;

	memset(&info, 0, sizeof(info));
	err = mm_fault(mm, addr, access, &info);
	if (err == -ENOMEM)
		atomic_store(&mm->oom, true);
	return !err;
}

static size_t move_user(struct mm *mm, enum move how, uaddr_t addr, uint8_t *buf, size_t len)
{
	unsigned int access = how == MOVE_IN ? ACCESS_READ : ACCESS_WRITE;
	size_t done = 0;

	if (addr >= USER_TOP)
		return 0;
	len = MIN(len, USER_TOP - addr);
	for (;;) {
		read_lock(&mm->pt_lock);
		done += move_mapped(mm, how, addr + done, buf ? buf + done : NULL, len - done);
		read_unlock(&mm->pt_lock);
		if (done == len)
			return done;
		if (!fault_for_copy(mm, addr + done, access))
			return done;
	}
}

static size_t um_copy_in(struct usermem *um, void *dst, uaddr_t src, size_t len)
{
	return move_user(mm_of(um), MOVE_IN, src, dst, len);
}

static size_t um_copy_out(struct usermem *um, uaddr_t dst, const void *src, size_t len)
{
	return move_user(mm_of(um), MOVE_OUT, dst, (uint8_t *)(uintptr_t)src, len);
}

static size_t um_zero_out(struct usermem *um, uaddr_t dst, size_t len)
{
	return move_user(mm_of(um), MOVE_ZERO, dst, NULL, len);
}

const struct usermem_ops mm_usermem_ops = {
	.copy_in = um_copy_in,
	.copy_out = um_copy_out,
	.zero_out = um_zero_out,
};

/* ---- access to another's memory ---- */

/*
 * The page at @addr is there, whatever its protection. Held exclusively.
 */
static int force_present(struct vma *v, uaddr_t page)
{
	unsigned long prot = v->prot;
	int err;

	if (vma_access(v))
		return populate(v, page, page + PAGE_SIZE, ACCESS_READ);
	/* As if it could be read; its entry gets its rights back at once. */
	v->prot |= PROT_READ;
	err = populate(v, page, page + PAGE_SIZE, ACCESS_READ);
	v->prot = prot;
	pages_reprotect(v, page, page + PAGE_SIZE);
	return err;
}

/*
 * A write that ignores protection (ptrace, the loader) goes to a private copy of the page, as if it
 * were copied on write; shared mappings take it only if they can be written. Held exclusively.
 */
static int force_own(struct vma *v, uaddr_t page)
{
	struct mm *mm = v->mm;
	uint64_t *pte, old;
	int err = 0;
	gpa_t own;

	write_lock(&mm->pt_lock);
	pte = pt_find(&mm->pt, page);
	old = pte ? pte_read(pte) : 0;
	if (!PTE_USED(old)) {
		err = -EFAULT;
		goto out_unlock;
	}
	if (!(old & PTE_FILE) && frame_refs(old & PTE_ADDR) == 1) {
		if (phys_is_lent(old & PTE_ADDR)) {
			err = physmem_own(old & PTE_ADDR, 1);
			mm->platform->type->as_invalidate(mm->as, page, PAGE_SIZE);
		}
		goto out_unlock;
	}
	own = frame_alloc_dirty();
	if (own == GPA_NONE) {
		err = -ENOMEM;
		goto out_unlock;
	}
	memcpy(phys_ptr(own), phys_ptr(old & PTE_ADDR), PAGE_SIZE);
	pte_write(pte, pte_reprotect(v, own));
	if (old & PTE_FILE) {
		atomic_fetch_sub(&mm->nr_file_rss, 1);
		atomic_fetch_add(&mm->nr_anon_rss, 1);
	}
	if (old & PTE_P)
		mm->platform->type->as_invalidate(mm->as, page, PAGE_SIZE);
	frame_put(old & PTE_ADDR);
out_unlock:
	write_unlock(&mm->pt_lock);
	return err;
}

/* One page's part of a forced copy. */
static size_t force_page(struct mm *mm, uaddr_t addr, uint8_t *buf, size_t n, bool write)
{
	uaddr_t page = PAGE_ALIGN_DOWN(addr);
	uint64_t *pte, value;
	size_t done = 0;
	struct vma *v;
	int err;

	write_lock(&mm->lock);
	v = vma_at(mm, addr);
	if (!v)
		goto out_unlock;
	if (write)
		sites_forget(mm, page, page + PAGE_SIZE, true);
	if (write && (v->flags & VMA_SHARED))
		err = v->prot & PROT_WRITE ? fault_resolve(v, addr, ACCESS_WRITE) : -EFAULT;
	else
		err = force_present(v, page);
	if (!err && write && !(v->flags & VMA_SHARED))
		err = force_own(v, page);
	if (err)
		goto out_unlock;
	/* With mm->lock held exclusively nobody but a truncation can take the page away again. */
	read_lock(&mm->pt_lock);
	pte = pt_find(&mm->pt, addr);
	value = pte ? pte_read(pte) : 0;
	if (PTE_USED(value) && (!write || phys_is_ram(value & PTE_ADDR))) {
		if (write)
			physmem_note_written(value & PTE_ADDR);
		move_bytes(write ? MOVE_OUT : MOVE_IN,
			   (uint8_t *)phys_ptr(value & PTE_ADDR) + (addr & ~PAGE_MASK), buf, n);
		if (!write && mm->sites)
			sites_overlay(mm, addr, buf, n);
		done = n;
	}
	read_unlock(&mm->pt_lock);
out_unlock:
	mm_write_unlock(mm);
	return done;
}

size_t mm_copy_remote(struct mm *mm, uaddr_t addr, void *buf, size_t len, bool write, bool force)
{
	size_t done = 0;

	if (!force)
		return move_user(mm, write ? MOVE_OUT : MOVE_IN, addr, buf, len);
	if (addr >= USER_TOP)
		return 0;
	len = MIN(len, USER_TOP - addr);
	while (done < len) {
		uaddr_t at = addr + done;
		size_t n = MIN(len - done, PAGE_SIZE - (at & ~PAGE_MASK)), got;

		/* What is mapped with the rights needed is just copied. */
		read_lock(&mm->pt_lock);
		got = move_mapped(mm, write ? MOVE_OUT : MOVE_IN, at, (uint8_t *)buf + done, n);
		read_unlock(&mm->pt_lock);
		if (!got)
			got = force_page(mm, at, (uint8_t *)buf + done, n, write);
		if (!got)
			break;
		done += got;
	}
	return done;
}

/* ---- words ---- */

/* Host address of the word at @addr, mapped for @access; pt_lock is held shared on success. */
static uint32_t *word_get(struct mm *mm, uaddr_t addr, unsigned int access)
{
	uint64_t need = access & ACCESS_WRITE ? PTE_P | PTE_RW : PTE_P;

	if ((addr & 3) || addr >= USER_TOP)
		return NULL;
	for (;;) {
		uint64_t *pte, value;

		read_lock(&mm->pt_lock);
		pte = pt_find(&mm->pt, addr);
		value = pte ? pte_read(pte) : 0;
		if ((value & need) == need)
			return (uint32_t *)(void *)((uint8_t *)phys_ptr(value & PTE_ADDR) +
						    (addr & ~PAGE_MASK));
		read_unlock(&mm->pt_lock);
		if (!fault_for_copy(mm, addr, access))
			return NULL;
	}
}

int mm_load32(struct mm *mm, uaddr_t addr, uint32_t *value)
{
	uint32_t *word = word_get(mm, addr, ACCESS_READ);

	if (!word)
		return -EFAULT;
	*value = __atomic_load_n(word, __ATOMIC_SEQ_CST);
	read_unlock(&mm->pt_lock);
	return 0;
}

int mm_cmpxchg32(struct mm *mm, uaddr_t addr, uint32_t old, uint32_t new_value, uint32_t *seen)
{
	uint32_t *word = word_get(mm, addr, ACCESS_WRITE);

	if (!word)
		return -EFAULT;
	*seen = old;
	__atomic_compare_exchange_n(word, seen, new_value, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
	read_unlock(&mm->pt_lock);
	return 0;
}

/* An inode's key is marked by bit 0, so that the reference can be found again. */
#define KEY_INODE 1UL

int mm_futex_key(struct mm *mm, uaddr_t addr, bool shared, bool write, struct futex_key *key)
{
	struct vma *v;

	if (addr & 3)
		return -EINVAL;
	if (addr >= USER_TOP)
		return -EFAULT;
	key->object = (uint64_t)(uintptr_t)mm;
	key->offset = addr;
	key->shared = shared;
	if (!shared)
		return 0;
	read_lock(&mm->lock);
	v = vma_at(mm, addr);
	if (v && v->file && (v->flags & VMA_SHARED)) {
		key->object = (uint64_t)(uintptr_t)inode_get(v->file->inode) | KEY_INODE;
		key->offset = (vma_pgoff(v, addr) << PAGE_SHIFT) | (addr & ~PAGE_MASK);
	}
	read_unlock(&mm->lock);
	return v ? 0 : -EFAULT;
}

void mm_futex_key_put(struct futex_key *key)
{
	if (key->object & KEY_INODE)
		inode_put((struct inode *)(uintptr_t)(key->object & ~KEY_INODE));
}
