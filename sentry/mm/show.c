/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/maps and smaps, in Linux's format. */
#include <string.h>
#include <sys/sysmacros.h>

#include "sentry/mm/internal.h"
#include "vfs/strbuf.h"

/* Names are padded to this column. */
#define NAME_COLUMN 73

static void show_line(struct strbuf *b, struct vma *v)
{
	const char *name = v->name;
	char *path = NULL;
	dev_t dev = 0;
	uint64_t ino = 0;
	size_t start = b->len;

	if (v->file) {
		dev = v->file->inode->super->dev;
		ino = v->file->inode->ino;
		path = path_name(&v->file->path, NULL);
		name = path;
	} else if ((v->flags & VMA_GROWSDOWN) && v->end == v->mm->stack_top) {
		name = "[stack]";
	}
	strbuf_printf(b, "%08lx-%08lx %c%c%c%c %08lx %02x:%02x %lu ", v->start, v->end,
		      v->prot & PROT_READ ? 'r' : '-', v->prot & PROT_WRITE ? 'w' : '-',
		      v->prot & PROT_EXEC ? 'x' : '-', v->flags & VMA_SHARED ? 's' : 'p',
		      v->file ? v->pgoff << PAGE_SHIFT : 0, major(dev), minor(dev), ino);
	if (name) {
		while (!b->failed && b->len - start < NAME_COLUMN)
			strbuf_add(b, " ", 1);
		strbuf_add(b, name, strlen(name));
	}
	strbuf_add(b, "\n", 1);
	kfree(path);
}

static void show_details(struct strbuf *b, struct vma *v)
{
	uint64_t pages = 0, files = 0;
	uaddr_t va = v->start;
	uint64_t *pte;

	read_lock(&v->mm->pt_lock);
	while ((pte = pt_next(&v->mm->pt, &va, v->end))) {
		pages++;
		files += !!(pte_read(pte) & PTE_FILE);
		va += PAGE_SIZE;
	}
	read_unlock(&v->mm->pt_lock);
	strbuf_printf(b,
		      "Size:           %8lu kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n"
		      "Rss:            %8lu kB\nPss:            %8lu kB\nShared_Clean:   %8lu kB\n"
		      "Shared_Dirty:          0 kB\nPrivate_Clean:         0 kB\n"
		      "Private_Dirty:  %8lu kB\nReferenced:     %8lu kB\nAnonymous:      %8lu kB\n"
		      "Swap:                  0 kB\nLocked:         %8lu kB\n",
		      (v->end - v->start) >> 10, pages * 4, pages * 4, files * 4,
		      (pages - files) * 4, pages * 4, (pages - files) * 4,
		      v->flags & VMA_LOCKED ? pages * 4 : 0);
}

char *mm_show_maps(struct mm *mm, bool detailed)
{
	struct strbuf b = {0};
	struct rb_node *n;

	read_lock(&mm->lock);
	rb_for_each(n, &mm->vmas) {
		struct vma *v = rb_entry(n, struct vma, node);

		show_line(&b, v);
		if (detailed)
			show_details(&b, v);
	}
	read_unlock(&mm->lock);
	return strbuf_finish(&b);
}
