/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/maps and smaps, in Linux's format. */
#include <string.h>
#include <sys/sysmacros.h>

#include "sentry/mm/internal.h"
#include "vfs/strbuf.h"

/* Names are padded to this column. */
#define NAME_COLUMN 73

/* What a line needs, taken under the lock; names of files are made without it. */
struct line {
	uaddr_t start, end;
	unsigned long prot, flags;
	uint64_t offset;
	struct file *file; /* reference */
	const char *name;
	char *details; /* smaps, kmalloc'd */
};

static void show_line(struct strbuf *b, const struct line *l)
{
	const char *name = l->name;
	char *path = NULL;
	dev_t dev = 0;
	uint64_t ino = 0;
	size_t start = b->len;

	if (l->file) {
		dev = l->file->inode->super->dev;
		ino = l->file->inode->ino;
		path = path_name(&l->file->path, NULL);
		name = path;
	}
	strbuf_printf(b, "%08lx-%08lx %c%c%c%c %08lx %02x:%02x %lu ", l->start, l->end,
		      l->prot & PROT_READ ? 'r' : '-', l->prot & PROT_WRITE ? 'w' : '-',
		      l->prot & PROT_EXEC ? 'x' : '-', l->flags & VMA_SHARED ? 's' : 'p', l->offset,
		      major(dev), minor(dev), ino);
	if (name) {
		while (!b->failed && b->len - start < NAME_COLUMN)
			strbuf_add(b, " ", 1);
		strbuf_add(b, name, strlen(name));
	}
	strbuf_add(b, "\n", 1);
	if (l->details)
		strbuf_add(b, l->details, strlen(l->details));
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

static void take_line(struct vma *v, struct line *l, bool detailed)
{
	struct strbuf d = {0};

	l->start = v->start;
	l->end = v->end;
	l->prot = v->prot;
	l->flags = v->flags;
	l->offset = v->file ? v->pgoff << PAGE_SHIFT : 0;
	l->file = v->file ? file_get(v->file) : NULL;
	l->name = v->name;
	if (!v->file && (v->flags & VMA_GROWSDOWN) && v->end == v->mm->stack_top)
		l->name = "[stack]";
	if (detailed) {
		show_details(&d, v);
		l->details = strbuf_finish(&d);
	}
}

char *mm_show_maps(struct mm *mm, bool detailed)
{
	struct strbuf b = {0};
	struct line *lines;
	struct rb_node *n;
	size_t count = 0, max;

	read_lock(&mm->lock);
	max = mm->nr_vmas;
	lines = kcalloc(max ? max : 1, sizeof(*lines));
	for (n = rb_first(&mm->vmas); lines && n && count < max; n = rb_next(n))
		take_line(rb_entry(n, struct vma, node), &lines[count++], detailed);
	read_unlock(&mm->lock);
	if (!lines)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		show_line(&b, &lines[i]);
		if (lines[i].file)
			file_put(lines[i].file);
		kfree(lines[i].details);
	}
	kfree(lines);
	return strbuf_finish(&b);
}
