/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/maps and smaps, in Linux's format. */
#include <string.h>
#include <sys/sysmacros.h>

#include "sentry/mm/internal.h"
#include "vfs/strbuf.h"

/* Linux pads the numbers to this width, and puts a space before the name. */
#define NUMBERS_WIDTH 72

/* What a line needs, taken under the lock; names of files are made without it. */
struct line {
	uaddr_t start, end;
	unsigned long prot, flags;
	uint64_t offset;
	struct file *file; /* reference */
	const char *name;
	char *details; /* smaps, kmalloc'd */
};

/* @path with its newlines as octal: one line stays one line. */
static void add_path(struct strbuf *b, const char *path)
{
	size_t n;

	for (; *path; path += n) {
		n = strcspn(path, "\n");
		strbuf_add(b, path, n);
		if (path[n]) {
			strbuf_add(b, "\\012", 4);
			n++;
		}
	}
}

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
		if (!(l->flags & VMA_SHMEM))
			path = path_name(&l->file->path, NULL);
		name = l->flags & VMA_SHMEM ? "/dev/zero (deleted)" : path;
	}
	strbuf_printf(b, "%08lx-%08lx %c%c%c%c %08lx %02x:%02x %lu ", l->start, l->end,
		      l->prot & PROT_READ ? 'r' : '-', l->prot & PROT_WRITE ? 'w' : '-',
		      l->prot & PROT_EXEC ? 'x' : '-', l->flags & VMA_SHARED ? 's' : 'p', l->offset,
		      major(dev), minor(dev), ino);
	if (name) {
		while (!b->failed && b->len - start < NUMBERS_WIDTH)
			strbuf_add(b, " ", 1);
		strbuf_add(b, " ", 1);
		add_path(b, name);
	}
	strbuf_add(b, "\n", 1);
	if (l->details)
		strbuf_add(b, l->details, strlen(l->details));
	kfree(path);
}

static void show_flags(struct strbuf *b, const struct vma *v)
{
	const struct {
		bool on;
		const char *name;
	} f[] = {
		{v->prot & PROT_READ, "rd"},
		{v->prot & PROT_WRITE, "wr"},
		{v->prot & PROT_EXEC, "ex"},
		{v->flags & VMA_SHARED, "sh"},
		{true, "mr"},
		{!(v->flags & VMA_DENY_WRITE), "mw"},
		{true, "me"},
		{v->flags & VMA_SHARED, "ms"},
		{v->flags & VMA_GROWSDOWN, "gd"},
		{v->flags & VMA_LOCKED, "lo"},
		{v->flags & VMA_DONTFORK, "dc"},
		{true, "ac"},
		{v->flags & VMA_NORESERVE, "nr"},
		{v->flags & VMA_WIPEONFORK, "wf"},
		{v->flags & VMA_DONTDUMP, "dd"},
		{true, "sd"},
	};

	strbuf_printf(b, "VmFlags: ");
	for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
		if (f[i].on)
			strbuf_printf(b, "%s ", f[i].name);
	}
	strbuf_add(b, "\n", 1);
}

static void show_details(struct strbuf *b, struct vma *v)
{
	uint64_t files = 0, own = resident_anon(v->mm, v->start, v->end, SIZE_MAX), rss;
	uaddr_t va = v->start;
	uint64_t *pte;

	read_lock(&v->mm->pt_lock);
	while ((pte = pt_next(&v->mm->pt, &va, v->end))) {
		files += !!(pte_read(pte) & PTE_FILE);
		va += PAGE_SIZE;
	}
	read_unlock(&v->mm->pt_lock);
	rss = files + own;
	strbuf_printf(b,
		      "Size:           %8lu kB\nKernelPageSize:        4 kB\nMMUPageSize:          "
		      " 4 kB\n"
		      "Rss:            %8lu kB\nPss:            %8lu kB\nPss_Dirty:      %8lu kB\n"
		      "Shared_Clean:   %8lu kB\nShared_Dirty:          0 kB\n"
		      "Private_Clean:         0 kB\nPrivate_Dirty:  %8lu kB\n"
		      "Referenced:     %8lu kB\nAnonymous:      %8lu kB\n",
		      (v->end - v->start) >> 10, rss * 4, rss * 4, own * 4, files * 4, own * 4,
		      rss * 4, own * 4);
	strbuf_printf(b,
		      "LazyFree:              0 kB\nAnonHugePages:         0 kB\n"
		      "ShmemPmdMapped:        0 kB\nFilePmdMapped:         0 kB\n"
		      "Shared_Hugetlb:        0 kB\nPrivate_Hugetlb:       0 kB\n"
		      "Swap:                  0 kB\nSwapPss:               0 kB\n"
		      "Locked:         %8lu kB\nTHPeligible:           0\n",
		      v->flags & VMA_LOCKED ? rss * 4 : 0);
	show_flags(b, v);
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
