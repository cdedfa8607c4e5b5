/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random sequences of memory calls in a few processes against a model that knows, page by page, what
 * must be there. After every call: no cached entry that the table doesn't back, and a few random
 * pages read as the model says.
 */
#include "test/unit/mm_support.h"

#define PAGES	   512u /* of each process that the model follows */
#define FILE_PAGES 96u
#define PROCS	   4
#define NO_FILE	   0xff

enum { PRIV_FILE, SHARED_FILE, NR_FILES };

struct page {
	bool mapped, own, shared;
	uint8_t prot, value; /* value: of the private copy, if own */
	uint8_t file;	     /* NO_FILE: anonymous */
	uint32_t pgoff;
};

static struct proc {
	struct mm *mm;
	struct page page[PAGES];
} procs[PROCS];

static struct {
	struct file *file;
	uint8_t value[FILE_PAGES];
	unsigned int size; /* pages */
} files[NR_FILES];

static uint64_t seed;
static unsigned long nr_ops, nr_failed;

static unsigned int rnd(unsigned int n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned int)(seed >> 16) % n;
}

static void die(const char *what, struct proc *p, unsigned int page, long got, long want)
{
	printf("not ok random\n# %s: process %zd page %u: %ld, not %ld (op %lu)\n", what, p - procs, page,
	       got, want, nr_ops);
	exit(1);
}

static const uint8_t prots[] = {PROT_NONE, PROT_READ, RW, RW, RW, PROT_READ | PROT_EXEC};

/* What the application sees at @i: a byte, or minus a signal. */
static int model_read(const struct page *pg)
{
	if (!pg->mapped || !(pg->prot & (PROT_READ | PROT_WRITE | PROT_EXEC)))
		return -SIGSEGV;
	if (pg->own)
		return pg->value;
	if (pg->file == NO_FILE)
		return 0;
	if (pg->pgoff >= files[pg->file].size)
		return -SIGBUS;
	return files[pg->file].value[pg->pgoff];
}

static int model_write(struct page *pg, uint8_t value)
{
	if (!pg->mapped || !(pg->prot & PROT_WRITE))
		return -SIGSEGV;
	if (!pg->own && pg->file != NO_FILE && pg->pgoff >= files[pg->file].size)
		return -SIGBUS;
	if (pg->shared) {
		files[pg->file].value[pg->pgoff] = value;
	} else {
		pg->own = true;
		pg->value = value;
	}
	return 0;
}

static void check_page(struct proc *p, unsigned int i)
{
	int want = model_read(&p->page[i]), got = app_read(p->mm, AT(i));

	if (got != want)
		die("read", p, i, got, want);
}

static void op_access(struct proc *p)
{
	unsigned int i = rnd(PAGES), n = 1 + rnd(6);

	for (; n && i < PAGES; n--, i++) {
		uint8_t value = (uint8_t)(1 + rnd(255));
		int want = rnd(2) ? model_write(&p->page[i], value) : 1, got;

		if (want == 1) {
			check_page(p, i);
			continue;
		}
		got = app_write(p->mm, AT(i), value);
		if (got != want)
			die("write", p, i, got, want);
	}
}

/* Through the sentry's copies: up to three pages at once, short where the application would fault. */
static void op_copy(struct proc *p)
{
	static uint8_t buf[3 * PAGE_SIZE];
	unsigned int i = rnd(PAGES - 3), n = 1 + rnd(3), good = 0;
	bool write = rnd(2);
	size_t got;

	memset(buf, 0, sizeof(buf));
	for (; good < n; good++) {
		buf[good * PAGE_SIZE] = (uint8_t)(1 + rnd(255));
		if (write ? model_write(&p->page[i + good], buf[good * PAGE_SIZE]) < 0
			  : model_read(&p->page[i + good]) < 0)
			break;
	}
	got = write ? p->mm->um.ops->copy_out(&p->mm->um, AT(i), buf, n * PAGE_SIZE)
		    : p->mm->um.ops->copy_in(&p->mm->um, buf, AT(i), n * PAGE_SIZE);
	if (got != good * PAGE_SIZE)
		die(write ? "copy_out" : "copy_in", p, i, (long)got, (long)(good * PAGE_SIZE));
	for (unsigned int k = 0; !write && k < good; k++) {
		if (buf[k * PAGE_SIZE] != model_read(&p->page[i + k]))
			die("copy_in byte", p, i + k, buf[k * PAGE_SIZE],
			    model_read(&p->page[i + k]));
	}
}

/* As a debugger: protection doesn't count, but shared pages must be writable to be written. */
static void op_force(struct proc *p)
{
	unsigned int i = rnd(PAGES);
	struct page *pg = &p->page[i];
	uint8_t value = (uint8_t)(1 + rnd(255)), prot = pg->prot;
	bool write = rnd(2);
	size_t got, want;
	int seen;

	pg->prot |= write && !pg->shared ? RW : PROT_READ;
	seen = write ? model_write(pg, value) : model_read(pg);
	pg->prot = prot;
	want = seen >= 0;
	if (!write)
		value = 0;
	got = mm_copy_remote(p->mm, AT(i), &value, 1, write, true);
	if (got != want)
		die(write ? "force write" : "force read", p, i, (long)got, (long)want);
	if (!write && want && value != seen)
		die("force value", p, i, value, seen);
}

static void op_mmap(struct proc *p)
{
	unsigned int i = rnd(PAGES), n = 1 + rnd(rnd(3) ? 24 : 200), kind = rnd(5);
	uint8_t prot = prots[rnd(ARRAY_SIZE(prots))], file = NO_FILE;
	unsigned long flags = MAP_FIXED;
	uint32_t pgoff = 0;
	bool shared = false;
	long ret;

	n = MIN(n, PAGES - i);
	if (kind == 0) {
		file = PRIV_FILE;
	} else if (kind == 1) {
		file = SHARED_FILE;
		shared = true;
	}
	if (file != NO_FILE)
		pgoff = rnd(FILE_PAGES);
	flags |= shared ? MAP_SHARED : MAP_PRIVATE;
	flags |= file == NO_FILE ? MAP_ANONYMOUS : 0;
	flags |= rnd(8) ? 0 : MAP_POPULATE;
	flags |= rnd(8) ? 0 : MAP_NORESERVE;
	ret = mm_mmap(p->mm, AT(i), n * PAGE_SIZE, prot, flags,
		      file == NO_FILE ? NULL : files[file].file, pgoff * PAGE_SIZE);
	if (ret != (long)AT(i))
		die("mmap", p, i, ret, (long)AT(i));
	for (unsigned int k = 0; k < n; k++)
		p->page[i + k] = (struct page){.mapped = true,
					       .shared = shared,
					       .prot = prot,
					       .file = file,
					       .pgoff = pgoff + k};
}

static void op_munmap(struct proc *p)
{
	unsigned int i = rnd(PAGES), n = MIN(1 + rnd(64), PAGES - i);
	long ret = mm_munmap(p->mm, AT(i), n * PAGE_SIZE);

	if (ret)
		die("munmap", p, i, ret, 0);
	memset(&p->page[i], 0, n * sizeof(p->page[0]));
}

static void op_mprotect(struct proc *p)
{
	unsigned int i = rnd(PAGES), n = MIN(1 + rnd(64), PAGES - i), k;
	uint8_t prot = prots[rnd(ARRAY_SIZE(prots))];
	long ret = mm_mprotect(p->mm, AT(i), n * PAGE_SIZE, prot), want = 0;

	for (k = 0; k < n && p->page[i + k].mapped; k++)
		p->page[i + k].prot = prot;
	if (k < n)
		want = -ENOMEM;
	if (ret != want)
		die("mprotect", p, i, ret, want);
}

static void op_dontneed(struct proc *p)
{
	unsigned int i = rnd(PAGES), n = MIN(1 + rnd(40), PAGES - i), k;
	long ret = mm_madvise(p->mm, AT(i), n * PAGE_SIZE, MADV_DONTNEED), want = 0;

	for (k = 0; k < n; k++) {
		if (!p->page[i + k].mapped)
			want = -ENOMEM;
		if (!p->page[i + k].shared)
			p->page[i + k].own = false;
	}
	if (ret != want)
		die("madvise", p, i, ret, want);
}

/* Grows, shrinks or moves. Whether it may depends on vmas, which the model doesn't know. */
static void op_mremap(struct proc *p)
{
	unsigned int from = rnd(PAGES), to = rnd(PAGES), old = 1 + rnd(30), new = 1 + rnd(30), k;
	bool fixed = rnd(2);
	struct page moved[32];
	long ret;

	old = MIN(old, PAGES - from);
	new = MIN(new, PAGES - (fixed ? to : from));
	if (fixed && to < from + old && from < to + new)
		return;
	if (!fixed)
		to = from;
	memcpy(moved, &p->page[from], old * sizeof(moved[0]));
	ret = mm_mremap(p->mm, AT(from), old * PAGE_SIZE, new * PAGE_SIZE,
			fixed ? MREMAP_MAYMOVE | MREMAP_FIXED : 0, fixed ? AT(to) : 0);
	/* The target goes before the source is looked at, as on Linux. */
	if (fixed)
		memset(&p->page[to], 0, new * sizeof(p->page[0]));
	if (ret < 0) {
		nr_failed++;
		/* Too much was taken from the source only if it ended well. */
		if (ret != -EFAULT && ret != -ENOMEM)
			die("mremap", p, from, ret, -EFAULT);
		if (fixed && new < old && moved[0].mapped)
			memset(&p->page[from + new], 0, (old - new) * sizeof(p->page[0]));
		return;
	}
	if (ret != (long)AT(to))
		die("mremap to", p, from, ret, (long)AT(to));
	for (k = 0; k < old; k++)
		p->page[from + k] = (struct page){0};
	for (k = 0; k < new; k++) {
		struct page *pg = &p->page[to + k];

		*pg = moved[MIN(k, old - 1)];
		if (k < old)
			continue;
		pg->own = false;
		pg->pgoff += k - (old - 1);
	}
}

static void op_truncate(void)
{
	unsigned int n = rnd(FILE_PAGES + 1), k;

	if (file_truncate(&mm_env.ctx, files[SHARED_FILE].file, n * PAGE_SIZE))
		die("truncate", procs, n, 1, 0);
	for (k = n; k < FILE_PAGES; k++)
		files[SHARED_FILE].value[k] = 0;
	files[SHARED_FILE].size = n;
}

/* write(2) to the shared file. */
static void op_file_write(void)
{
	unsigned int n = rnd(FILE_PAGES);
	uint8_t value = (uint8_t)rnd(256);

	if (n >= files[SHARED_FILE].size)
		return;
	if (file_write_kernel(files[SHARED_FILE].file, &value, 1, n * PAGE_SIZE) != 1)
		die("write", procs, n, 0, 1);
	files[SHARED_FILE].value[n] = value;
}

static void op_fork(struct proc *p)
{
	for (unsigned int i = 0; i < PROCS; i++) {
		struct proc *child = &procs[i];

		if (child->mm)
			continue;
		child->mm = mm_fork(p->mm);
		if (IS_ERR(child->mm))
			die("fork", p, 0, PTR_ERR(child->mm), 0);
		memcpy(child->page, p->page, sizeof(p->page));
		return;
	}
}

static void op_exit(struct proc *p)
{
	unsigned int alive = 0;

	for (unsigned int i = 0; i < PROCS; i++)
		alive += procs[i].mm != NULL;
	if (alive < 2)
		return;
	mm_put(p->mm);
	memset(p, 0, sizeof(*p));
}

static void one_op(struct proc *p)
{
	static void (*const ops[])(struct proc *) = {
		op_access,   op_access, op_access,   op_access, op_copy, op_copy,   op_force, op_mmap,
		op_mmap,     op_munmap, op_mprotect, op_mprotect, op_dontneed, op_mremap, op_mremap,
	};
	unsigned int which = rnd(200);

	if (which < 4)
		op_fork(p);
	else if (which < 7)
		op_exit(p);
	else if (which < 10)
		op_truncate();
	else if (which < 14)
		op_file_write();
	else
		ops[rnd(ARRAY_SIZE(ops))](p);
}

static void check_all(void)
{
	for (unsigned int i = 0; i < PROCS; i++) {
		for (unsigned int k = 0; procs[i].mm && k < PAGES; k++)
			check_page(&procs[i], k);
	}
}

static void run(uint64_t start, unsigned int steps)
{
	seed = start * 0x9e3779b97f4a7c15ULL + 1;
	/* Copying forks, sharing forks, and both in one life. */
	mm_fork_copy_pages = start % 3 == 0 ? 2048 : start % 3 == 1 ? 0 : 100;
	memset(files, 0, sizeof(files));
	for (unsigned int f = 0; f < NR_FILES; f++) {
		char name[] = {'f', (char)('0' + f), 0};

		files[f].file = xopen(&mm_env, name, O_CREAT | O_RDWR | O_TRUNC);
		files[f].size = FILE_PAGES;
		if (file_truncate(&mm_env.ctx, files[f].file, FILE_PAGES * PAGE_SIZE))
			die("truncate", procs, 0, 1, 0);
		for (unsigned int k = 0; k < FILE_PAGES; k += 1 + rnd(2)) {
			files[f].value[k] = (uint8_t)rnd(256);
			if (file_write_kernel(files[f].file, &files[f].value[k], 1, k * PAGE_SIZE) != 1)
				die("write", procs, k, 0, 1);
		}
	}
	procs[0].mm = xmm();
	for (nr_ops = 0; nr_ops < steps; nr_ops++) {
		struct proc *p;

		do {
			p = &procs[rnd(PROCS)];
		} while (!p->mm);
		one_op(p);
		for (unsigned int i = 0; i < PROCS; i++) {
			if (!procs[i].mm)
				continue;
			if (!tlb_check(procs[i].mm))
				die("stale entry", &procs[i], 0, 0, 0);
			check_page(&procs[i], rnd(PAGES));
		}
		if (nr_ops % 512 == 0)
			check_all();
	}
	check_all();
	for (unsigned int i = 0; i < PROCS; i++) {
		if (procs[i].mm)
			mm_put(procs[i].mm);
		memset(&procs[i], 0, sizeof(procs[i]));
	}
	for (unsigned int f = 0; f < NR_FILES; f++) {
		char name[] = {'f', (char)('0' + f), 0};

		file_put(files[f].file);
		if (vfs_unlink(&mm_env.ctx, NULL, name))
			die("unlink", procs, 0, 1, 0);
	}
}

static unsigned int rounds = 6, steps = 4000;
static uint64_t first_seed = 1;

static void tests(void)
{
	for (unsigned int i = 0; i < rounds; i++)
		run(first_seed + i, steps);
	CHECK("random calls agree with the model", true);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		first_seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		rounds = (unsigned int)atoi(argv[2]);
	if (argc > 3)
		steps = (unsigned int)atoi(argv[3]);
	return mm_test_main(tests);
}
