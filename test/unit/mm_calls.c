/* SPDX-License-Identifier: Apache-2.0 */
/* The memory calls one by one: what they refuse, what they leave behind, how maps shows it. */
#include "sentry/mm/frozen.h"
#include "test/unit/mm_support.h"

#define MAP_FIXED_ANON (ANON | MAP_FIXED)

static struct mm *mm;

static bool mapped(unsigned int page)
{
	bool yes;

	read_lock(&mm->lock);
	yes = vma_at(mm, AT(page));
	read_unlock(&mm->lock);
	return yes;
}

static void map_anon(unsigned int page, unsigned int n, unsigned long prot)
{
	if (mm_mmap(mm, AT(page), n * PAGE_SIZE, prot, MAP_FIXED_ANON, NULL, 0) != (long)AT(page))
		CHECK("map_anon", false);
}

static void test_mmap_errors(void)
{
	struct file *ro, *wo, *rw, *dir;

	mm = xmm();
	put_text(&mm_env, "text", "hello");
	ro = xopen(&mm_env, "text", O_RDONLY);
	wo = xopen(&mm_env, "text", O_WRONLY);
	rw = xopen(&mm_env, "text", O_RDWR);
	dir = xopen(&mm_env, "/", O_RDONLY | O_DIRECTORY);
	CHECK_EQ("mmap of nothing", mm_mmap(mm, 0, 0, RW, ANON, NULL, 0), -EINVAL);
	CHECK_EQ("mmap without a type", mm_mmap(mm, 0, 1, RW, MAP_ANONYMOUS, NULL, 0), -EINVAL);
	CHECK_EQ("anonymous validated", mm_mmap(mm, 0, 1, RW, MAP_ANONYMOUS | 3, NULL, 0), -EINVAL);
	CHECK_EQ("odd offset", mm_mmap(mm, 0, 1, RW, MAP_PRIVATE, ro, 12), -EINVAL);
	CHECK_EQ("odd fixed address", mm_mmap(mm, AT(0) + 1, 1, RW, MAP_FIXED_ANON, NULL, 0),
		 -EINVAL);
	CHECK_EQ("fixed at 0", mm_mmap(mm, 0, 1, RW, MAP_FIXED_ANON, NULL, 0), -EPERM);
	CHECK_EQ("fixed over the top", mm_mmap(mm, USER_TOP - PAGE_SIZE, 2 * PAGE_SIZE, RW,
					       MAP_FIXED_ANON, NULL, 0), -ENOMEM);
	CHECK_EQ("longer than everything", mm_mmap(mm, 0, 1UL << 48, RW, ANON, NULL, 0), -ENOMEM);
	CHECK_EQ("length that wraps", mm_mmap(mm, 0, UINT64_MAX, RW, ANON, NULL, 0), -ENOMEM);
	CHECK_EQ("more than there could be", mm_mmap(mm, 0, 1UL << 46, RW, ANON, NULL, 0), -ENOMEM);
	CHECK("unless it needn't be there",
	      mm_mmap(mm, 0, 1UL << 45, RW, ANON | MAP_NORESERVE, NULL, 0) > 0);
	CHECK_EQ("offset past the end of offsets",
		 mm_mmap(mm, 0, PAGE_SIZE, PROT_READ, MAP_PRIVATE, ro, INT64_MAX & PAGE_MASK),
		 -EOVERFLOW);
	CHECK_EQ("write-only file", mm_mmap(mm, 0, 1, PROT_READ, MAP_PRIVATE, wo, 0), -EACCES);
	CHECK_EQ("shared write of read-only", mm_mmap(mm, 0, 1, RW, MAP_SHARED, ro, 0), -EACCES);
	CHECK_EQ("directory", mm_mmap(mm, 0, 1, PROT_READ, MAP_PRIVATE, dir, 0), -ENODEV);
	CHECK_EQ("file growing down",
		 mm_mmap(mm, 0, 1, RW, MAP_PRIVATE | MAP_GROWSDOWN, rw, 0), -EINVAL);
	CHECK_EQ("unknown flag validated", mm_mmap(mm, 0, 1, RW, 3 | 1UL << 40, rw, 0),
		 -EOPNOTSUPP);
	CHECK_EQ("huge pages", mm_mmap(mm, 0, 2 << 20, RW, ANON | MAP_HUGETLB, NULL, 0), -ENOMEM);
	map_anon(4, 2, RW);
	CHECK_EQ("no replacing", mm_mmap(mm, AT(3), 2 * PAGE_SIZE, RW, ANON | MAP_FIXED_NOREPLACE,
					 NULL, 0), -EEXIST);
	CHECK_EQ("beside it", mm_mmap(mm, AT(2), 2 * PAGE_SIZE, RW, ANON | MAP_FIXED_NOREPLACE, NULL,
				      0), AT(2));
	CHECK_EQ("a free hint is taken", mm_mmap(mm, AT(100) + 5, 1, RW, ANON, NULL, 0), AT(100));
	CHECK("a used hint is not", mm_mmap(mm, AT(100), 1, RW, ANON, NULL, 0) != (long)AT(100));
	CHECK("below 4 GiB", (unsigned long)mm_mmap(mm, 0, 1, RW, ANON | 0x40, NULL, 0) < 1UL << 31);
	mm_put(mm);
	file_put(ro);
	file_put(wo);
	file_put(rw);
	file_put(dir);
	vfs_unlink(&mm_env.ctx, NULL, "text");
}

static void test_limits(void)
{
	mm = xmm();
	mm->limits.as = 64 * PAGE_SIZE;
	map_anon(0, 32, RW);
	CHECK_EQ("RLIMIT_AS", mm_mmap(mm, 0, 33 * PAGE_SIZE, RW, ANON, NULL, 0), -ENOMEM);
	CHECK_EQ("replacing needs no more",
		 mm_mmap(mm, AT(0), 64 * PAGE_SIZE, RW, MAP_FIXED_ANON, NULL, 0), AT(0));
	CHECK_EQ("refused replacement", mm_mmap(mm, AT(0), 65 * PAGE_SIZE, RW, MAP_FIXED_ANON, NULL,
						0), -ENOMEM);
	CHECK("leaves what is there", mapped(0) && mapped(63));
	CHECK_EQ("mremap beyond", mm_mremap(mm, AT(0), 64 * PAGE_SIZE, 65 * PAGE_SIZE, 0, 0),
		 -ENOMEM);
	mm->limits.as = UINT64_MAX;
	mm->limits.data = 70 * PAGE_SIZE;
	CHECK_EQ("RLIMIT_DATA", mm_mmap(mm, 0, 7 * PAGE_SIZE, RW, ANON, NULL, 0), -ENOMEM);
	CHECK("read-only memory is no data",
	      mm_mmap(mm, AT(100), 7 * PAGE_SIZE, PROT_READ, MAP_FIXED_ANON, NULL, 0) > 0);
	CHECK_EQ("until it can be written", mm_mprotect(mm, AT(100), 7 * PAGE_SIZE, RW), -ENOMEM);
	mm->limits.data = UINT64_MAX;
	mm->limits.memlock = 0;
	CHECK_EQ("MAP_LOCKED with no allowance",
		 mm_mmap(mm, 0, PAGE_SIZE, RW, ANON | MAP_LOCKED, NULL, 0), -EPERM);
	CHECK_EQ("mlock with no allowance", mm_mlock(mm, AT(0), PAGE_SIZE, 0, false), -EPERM);
	mm->limits.memlock = 4 * PAGE_SIZE;
	CHECK_EQ("mlock", mm_mlock(mm, AT(0), 3 * PAGE_SIZE, 0, false), 0);
	CHECK_EQ("the same again counts once", mm_mlock(mm, AT(0), 4 * PAGE_SIZE, 0, false), 0);
	CHECK_EQ("one too many", mm_mlock(mm, AT(10), PAGE_SIZE, 0, false), -ENOMEM);
	CHECK_EQ("locked_vm", mm->locked_vm, 4);
	CHECK_EQ("locked pages stay", mm_madvise(mm, AT(0), PAGE_SIZE, MADV_DONTNEED), -EINVAL);
	CHECK_EQ("munlock", mm_munlock(mm, AT(0), 4 * PAGE_SIZE), 0);
	CHECK_EQ("nothing locked", mm->locked_vm, 0);
	CHECK_EQ("mlock over a gap", mm_mlock(mm, AT(99), 2 * PAGE_SIZE, 0, true), -ENOMEM);
	CHECK_EQ("mlockall flags", mm_mlockall(mm, 8, true), -EINVAL);
	CHECK_EQ("mlockall", mm_mlockall(mm, MCL_CURRENT | MCL_FUTURE, true), 0);
	CHECK_EQ("all of it", mm->locked_vm, mm->total_vm);
	mm_put(mm);
}

static void test_mprotect(void)
{
	mm = xmm();
	map_anon(0, 4, RW);
	map_anon(6, 4, RW);
	CHECK_EQ("write", app_write(mm, AT(0), 7), 0);
	CHECK_EQ("odd address", mm_mprotect(mm, AT(0) + 1, 1, RW), -EINVAL);
	CHECK_EQ("unknown protection", mm_mprotect(mm, AT(0), 1, 0x100), -EINVAL);
	CHECK_EQ("nothing to do", mm_mprotect(mm, AT(500), 0, RW), 0);
	CHECK_EQ("grows down and up", mm_mprotect(mm, AT(0), 1, PROT_GROWSDOWN | PROT_GROWSUP),
		 -EINVAL);
	CHECK_EQ("over a gap", mm_mprotect(mm, AT(2), 6 * PAGE_SIZE, PROT_READ), -ENOMEM);
	CHECK_EQ("what comes before it is done", app_write(mm, AT(3), 1), -SIGSEGV);
	CHECK_EQ("what comes after is not", app_write(mm, AT(6), 1), 0);
	CHECK_EQ("nothing allowed", mm_mprotect(mm, AT(0), PAGE_SIZE, PROT_NONE), 0);
	CHECK_EQ("nothing read", app_read(mm, AT(0)), -SIGSEGV);
	CHECK_EQ("and back", mm_mprotect(mm, AT(0), PAGE_SIZE, PROT_READ), 0);
	CHECK_EQ("kept", app_read(mm, AT(0)), 7);
	CHECK_EQ("no jumping there", app_access(mm, AT(0), ACCESS_EXEC, (uint8_t[1]){0}), SIGSEGV);
	CHECK_EQ("all alike", mm_mprotect(mm, AT(0), 4 * PAGE_SIZE, RW), 0);
	CHECK_EQ("is one vma", mm->nr_vmas, 2);
	mm_put(mm);
}

static void test_stack(void)
{
	uaddr_t top = AT(1024);
	siginfo_t info;

	mm = xmm();
	mm->limits.stack = 256 * PAGE_SIZE;
	mm_mmap(mm, top - 4 * PAGE_SIZE, 4 * PAGE_SIZE, RW, MAP_FIXED_ANON | MAP_GROWSDOWN, NULL, 0);
	CHECK_EQ("below the stack", app_write(mm, top - 20 * PAGE_SIZE, 1), 0);
	CHECK_EQ("has grown", mm->total_vm, 20);
	CHECK_EQ("to the limit", app_write(mm, top - 256 * PAGE_SIZE, 1), 0);
	CHECK_EQ("not beyond", app_write(mm, top - 257 * PAGE_SIZE, 1), -SIGSEGV);
	mm->limits.stack = UINT64_MAX;
	map_anon(1024 - 600, 10, RW);
	CHECK_EQ("a guard is left", app_write(mm, top - 500 * PAGE_SIZE, 1), -SIGSEGV);
	CHECK_EQ("above the guard", app_write(mm, top - 330 * PAGE_SIZE, 1), 0);
	memset(&info, 0xff, sizeof(info));
	CHECK_EQ("fault at nothing", mm_fault(mm, AT(0), ACCESS_READ, &info), -EFAULT);
	CHECK("is SEGV_MAPERR", info.si_signo == SIGSEGV && info.si_code == SEGV_MAPERR &&
					info.si_addr == (void *)AT(0));
	CHECK_EQ("fault above the top", mm_fault(mm, 1UL << 63, ACCESS_READ, &info), -EFAULT);
	mm_munmap(mm, AT(1024 - 600), 10 * PAGE_SIZE);
	mm->limits.as = (mm->total_vm + 3) * PAGE_SIZE;
	CHECK_EQ("RLIMIT_AS holds for it", app_write(mm, top - 334 * PAGE_SIZE, 1), -SIGSEGV);
	CHECK_EQ("exactly", app_write(mm, top - 333 * PAGE_SIZE, 1), 0);
	CHECK("mmap leaves the guard free",
	      mm_mmap(mm, top - 340 * PAGE_SIZE, PAGE_SIZE, PROT_READ, ANON, NULL, 0) !=
		      (long)(top - 340 * PAGE_SIZE));
	mm_put(mm);
}

static void test_brk(void)
{
	mm = xmm();
	mm->brk_start = mm->brk = AT(0) + 100;
	CHECK_EQ("brk asked", mm_brk(mm, 0), AT(0) + 100);
	CHECK_EQ("brk up", mm_brk(mm, AT(3) + 5), AT(3) + 5);
	CHECK_EQ("first page", app_write(mm, AT(1), 3), 0);
	CHECK_EQ("last page", app_write(mm, AT(3), 4), 0);
	CHECK_EQ("past it", app_write(mm, AT(4), 4), -SIGSEGV);
	CHECK_EQ("brk down", mm_brk(mm, AT(1) + 1), AT(1) + 1);
	CHECK_EQ("gone", app_write(mm, AT(3), 4), -SIGSEGV);
	CHECK_EQ("brk up again", mm_brk(mm, AT(4)), AT(4));
	CHECK_EQ("is zero", app_read(mm, AT(3)), 0);
	CHECK_EQ("below the start", mm_brk(mm, AT(0)), AT(4));
	map_anon(10, 1, RW);
	CHECK_EQ("into another mapping", mm_brk(mm, AT(11)), AT(4));
	mm->limits.data = 6 * PAGE_SIZE;
	CHECK_EQ("RLIMIT_DATA", mm_brk(mm, AT(7)), AT(4));
	CHECK_EQ("one vma", mm->nr_vmas, 2);
	mm_put(mm);
}

static void test_mincore(void)
{
	unsigned char vec[8];
	long scratch;

	mm = xmm();
	map_anon(0, 8, RW);
	scratch = mm_mmap(mm, 0, PAGE_SIZE, RW, ANON, NULL, 0);
	app_write(mm, AT(2), 1);
	CHECK_EQ("mincore", mm_mincore(mm, AT(0), 8 * PAGE_SIZE, (uaddr_t)scratch), 0);
	CHECK("copy", !copy_from_user(&mm->um, vec, (uaddr_t)scratch, 8));
	CHECK("what was touched is there", vec[2] == 1);
	CHECK("what was mapped ahead is not", vec[0] == 0 && vec[3] == 0);
	CHECK_EQ("MAP_POPULATE", mm_mmap(mm, AT(20), 8 * PAGE_SIZE, RW, MAP_FIXED_ANON | MAP_POPULATE,
					 NULL, 0), AT(20));
	CHECK_EQ("mincore", mm_mincore(mm, AT(20), 8 * PAGE_SIZE, (uaddr_t)scratch), 0);
	CHECK("copy", !copy_from_user(&mm->um, vec, (uaddr_t)scratch, 8));
	CHECK("brings it in", vec[0] && vec[7]);
	CHECK("rss counts what is there", mm_rss(mm) >= 9 && mm_rss(mm) <= 11);
	CHECK_EQ("odd address", mm_mincore(mm, AT(0) + 1, 1, (uaddr_t)scratch), -EINVAL);
	CHECK_EQ("over a gap", mm_mincore(mm, AT(0), 9 * PAGE_SIZE, (uaddr_t)scratch), -ENOMEM);
	CHECK_EQ("bad vector", mm_mincore(mm, AT(0), PAGE_SIZE, 16), -EFAULT);
	CHECK_EQ("a vector that can't be", mm_mincore(mm, 0, USER_TOP, (uaddr_t)scratch), -EFAULT);
	CHECK_EQ("nothing", mm_mincore(mm, AT(0), 0, (uaddr_t)scratch), 0);
	mm_put(mm);
}

static void test_madvise(void)
{
	struct file *rw;
	struct mm *child;

	mm = xmm();
	map_anon(0, 8, RW);
	app_write(mm, AT(1), 5);
	CHECK_EQ("unknown advice", mm_madvise(mm, AT(0), PAGE_SIZE, 99), -EINVAL);
	CHECK_EQ("odd address", mm_madvise(mm, AT(0) + 1, PAGE_SIZE, MADV_DONTNEED), -EINVAL);
	CHECK_EQ("over a gap", mm_madvise(mm, AT(6), 4 * PAGE_SIZE, MADV_DONTNEED), -ENOMEM);
	CHECK_EQ("MADV_DONTNEED", mm_madvise(mm, AT(1), PAGE_SIZE, MADV_DONTNEED), 0);
	CHECK_EQ("reads zero", app_read(mm, AT(1)), 0);
	app_write(mm, AT(1), 5);
	CHECK_EQ("MADV_DONTFORK", mm_madvise(mm, AT(2), PAGE_SIZE, MADV_DONTFORK), 0);
	CHECK_EQ("MADV_WIPEONFORK", mm_madvise(mm, AT(1), PAGE_SIZE, MADV_WIPEONFORK), 0);
	child = mm_fork(mm);
	CHECK("fork", !IS_ERR(child));
	CHECK_EQ("wiped", app_read(child, AT(1)), 0);
	CHECK_EQ("not there", app_read(child, AT(2)), -SIGSEGV);
	CHECK_EQ("still the parent's", app_read(mm, AT(1)), 5);
	mm_put(child);
	CHECK_EQ("MADV_KEEPONFORK", mm_madvise(mm, AT(1), PAGE_SIZE, MADV_KEEPONFORK), 0);
	CHECK_EQ("MADV_DOFORK", mm_madvise(mm, AT(2), PAGE_SIZE, MADV_DOFORK), 0);
	CHECK_EQ("joined again", mm->nr_vmas, 1);
	put_text(&mm_env, "text", "hello");
	rw = xopen(&mm_env, "text", O_RDWR);
	mm_mmap(mm, AT(20), PAGE_SIZE, RW, MAP_FIXED | MAP_SHARED, rw, 0);
	CHECK_EQ("wipe of a file", mm_madvise(mm, AT(20), PAGE_SIZE, MADV_WIPEONFORK), -EINVAL);
	CHECK_EQ("free of a file", mm_madvise(mm, AT(20), PAGE_SIZE, MADV_FREE), -EINVAL);
	CHECK_EQ("is there", app_read(mm, AT(20)), 'h');
	CHECK_EQ("MADV_REMOVE", mm_madvise(mm, AT(20), PAGE_SIZE, MADV_REMOVE), 0);
	CHECK_EQ("punched", app_read(mm, AT(20)), 0);
	CHECK_EQ("remove of private memory", mm_madvise(mm, AT(0), PAGE_SIZE, MADV_REMOVE), -EINVAL);
	mm_mprotect(mm, AT(4), PAGE_SIZE, PROT_READ);
	CHECK_EQ("populate for writing", mm_madvise(mm, AT(0), 2 * PAGE_SIZE, MADV_POPULATE_WRITE),
		 0);
	CHECK_EQ("of what can't be", mm_madvise(mm, AT(4), PAGE_SIZE, MADV_POPULATE_WRITE), -EINVAL);
	mm_put(mm);
	file_put(rw);
	vfs_unlink(&mm_env.ctx, NULL, "text");
}

static void note_frame(void *arg, gpa_t gpa)
{
	gpa_t *noted = arg;

	/* Up to two, and how many they were. */
	if (noted[0] < 2)
		noted[1 + noted[0]] = gpa;
	noted[0]++;
}

/* MADV_WIPEONFORK and copies of the whole sandbox. */
static void test_wiped(void)
{
	gpa_t noted[3] = {0}, again[3] = {0};
	struct mm *child;

	mm = xmm();
	map_anon(0, 8, RW);
	app_write(mm, AT(1), 5);
	app_write(mm, AT(2), 6);
	app_write(mm, AT(4), 7);
	CHECK_EQ("shared with a child", mm_madvise(mm, AT(0), PAGE_SIZE, MADV_NORMAL), 0);
	child = mm_fork(mm);
	CHECK("fork", !IS_ERR(child));
	CHECK_EQ("advice", mm_madvise(mm, AT(1), 3 * PAGE_SIZE, MADV_WIPEONFORK), 0);
	mm_mprotect(mm, AT(2), PAGE_SIZE, PROT_READ);
	/* Zeroes needn't be told. */
	app_read(mm, AT(3));
	CHECK_EQ("frames to leave out", mm_for_wiped(mm, note_frame, noted), 0);
	CHECK_EQ("two of them", noted[0], 2);
	CHECK("its own alone", frame_refs(noted[1]) == 1 && frame_refs(noted[2]) == 1);
	CHECK("with what was there",
	      *(uint8_t *)phys_ptr(noted[1]) == 5 && *(uint8_t *)phys_ptr(noted[2]) == 6);
	CHECK_EQ("again", mm_for_wiped(mm, note_frame, again), 0);
	CHECK("the same", !memcmp(noted, again, sizeof(noted)));
	CHECK_EQ("kept meanwhile", app_read(mm, AT(1)), 5);
	CHECK_EQ("and the read-only one", app_read(mm, AT(2)), 6);
	app_write(mm, AT(1), 8);
	CHECK_EQ("the child's is another", app_read(child, AT(1)), 5);
	mm_wipe(mm);
	CHECK_EQ("wiped", app_read(mm, AT(1)), 0);
	CHECK_EQ("wiped too", app_read(mm, AT(2)), 0);
	CHECK_EQ("what nobody advised", app_read(mm, AT(4)), 7);
	CHECK_EQ("the child keeps its own", app_read(child, AT(2)), 6);
	app_write(mm, AT(1), 9);
	CHECK_EQ("can be used", app_read(mm, AT(1)), 9);
	mm_put(child);
	mm_put(mm);
}

static void test_mremap(void)
{
	long to;

	mm = xmm();
	map_anon(0, 4, RW);
	app_write(mm, AT(0), 1);
	app_write(mm, AT(3), 4);
	CHECK_EQ("odd address", mm_mremap(mm, AT(0) + 1, PAGE_SIZE, PAGE_SIZE, 0, 0), -EINVAL);
	CHECK_EQ("to nothing", mm_mremap(mm, AT(0), PAGE_SIZE, 0, 0, 0), -EINVAL);
	CHECK_EQ("unknown flag", mm_mremap(mm, AT(0), PAGE_SIZE, PAGE_SIZE, 8, 0), -EINVAL);
	CHECK_EQ("fixed without moving",
		 mm_mremap(mm, AT(0), PAGE_SIZE, PAGE_SIZE, MREMAP_FIXED, AT(9)), -EINVAL);
	CHECK_EQ("onto itself", mm_mremap(mm, AT(0), 2 * PAGE_SIZE, 2 * PAGE_SIZE,
					  MREMAP_MAYMOVE | MREMAP_FIXED, AT(1)), -EINVAL);
	CHECK_EQ("of nothing", mm_mremap(mm, AT(50), PAGE_SIZE, PAGE_SIZE, 0, 0), -EFAULT);
	CHECK_EQ("past the vma", mm_mremap(mm, AT(2), 4 * PAGE_SIZE, 5 * PAGE_SIZE, 1, 0), -EFAULT);
	CHECK_EQ("private twice", mm_mremap(mm, AT(0), 0, PAGE_SIZE, 1, 0), -EINVAL);
	CHECK_EQ("grow", mm_mremap(mm, AT(0), 4 * PAGE_SIZE, 8 * PAGE_SIZE, 0, 0), AT(0));
	CHECK_EQ("new pages", app_read(mm, AT(7)), 0);
	map_anon(8, 1, PROT_READ);
	CHECK_EQ("no room", mm_mremap(mm, AT(0), 8 * PAGE_SIZE, 9 * PAGE_SIZE, 0, 0), -ENOMEM);
	to = mm_mremap(mm, AT(0), 8 * PAGE_SIZE, 9 * PAGE_SIZE, MREMAP_MAYMOVE, 0);
	CHECK("moves", to > 0 && to != (long)AT(0));
	CHECK("with its contents", app_read(mm, (uaddr_t)to) == 1 &&
					   app_read(mm, (uaddr_t)to + 3 * PAGE_SIZE) == 4);
	CHECK("and leaves nothing", !mapped(0) && mapped(8));
	CHECK_EQ("keep the old place", mm_mremap(mm, (uaddr_t)to, 9 * PAGE_SIZE, 9 * PAGE_SIZE,
						 MREMAP_MAYMOVE | 4 | MREMAP_FIXED, AT(20)), AT(20));
	CHECK_EQ("moved", app_read(mm, AT(23)), 4);
	CHECK_EQ("empty", app_read(mm, (uaddr_t)to + 3 * PAGE_SIZE), 0);
	CHECK_EQ("shrink", mm_mremap(mm, AT(20), 9 * PAGE_SIZE, 2 * PAGE_SIZE, 0, 0), AT(20));
	CHECK_EQ("shrunk", app_read(mm, AT(23)), -SIGSEGV);
	mm_mmap(mm, AT(40), 2 * PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, NULL, 0);
	app_write(mm, AT(41), 9);
	CHECK_EQ("shared twice", mm_mremap(mm, AT(40), 0, 2 * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
					   AT(50)), AT(50));
	CHECK_EQ("the same pages", app_read(mm, AT(51)), 9);
	mm_put(mm);
}

static void test_shared(void)
{
	struct mm *child;
	struct file *f;

	mm = xmm();
	put_text(&mm_env, "text", "abc");
	f = xopen(&mm_env, "text", O_RDWR);
	mm_mmap(mm, AT(0), 2 * PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, f, 0);
	CHECK_EQ("reads the file", app_read(mm, AT(0) + 1), 'b');
	CHECK_EQ("past its end", app_read(mm, AT(1)), -SIGBUS);
	CHECK_EQ("no writing yet", app_write(mm, AT(0), 'x'), -SIGSEGV);
	CHECK_EQ("writable", mm_mprotect(mm, AT(0), PAGE_SIZE, RW), 0);
	CHECK_EQ("forced write", mm_copy_remote(mm, AT(0), (char[1]){'y'}, 1, true, true), 1);
	CHECK("goes to the file", !strcmp(get_text(&mm_env, "text"), "ybc"));
	CHECK_EQ("write", app_write(mm, AT(0), 'x'), 0);
	CHECK("goes to the file", !strcmp(get_text(&mm_env, "text"), "xbc"));
	mm_mprotect(mm, AT(0), PAGE_SIZE, PROT_READ);
	CHECK_EQ("forced write needs the right",
		 mm_copy_remote(mm, AT(0), (char[1]){'z'}, 1, true, true), 0);
	child = mm_fork(mm);
	CHECK("fork", !IS_ERR(child));
	file_write_kernel(f, "q", 1, 0);
	CHECK("one page", app_read(mm, AT(0)) == 'q' && app_read(child, AT(0)) == 'q');
	mm_put(child);
	/* A copy from a mapping of a file into the same file: locks must not meet. */
	mm_mprotect(mm, AT(0), PAGE_SIZE, RW);
	{
		struct kiocb io = {
			.file = f, .ctx = &mm_env.ctx, .pos = 1, .flags = IOCB_POSITIONED};
		struct iov_iter iter;

		mm_env.ctx.um = &mm->um;
		mm_madvise(mm, AT(0), PAGE_SIZE, MADV_DONTNEED);
		iov_init_user(&iter, &mm->um, AT(0), 2);
		CHECK_EQ("a file written from itself", file_write(&io, &iter), 2);
		mm_madvise(mm, AT(0), PAGE_SIZE, MADV_DONTNEED);
		io.pos = 0;
		iov_init_user(&iter, &mm->um, AT(0) + 1, 2);
		CHECK_EQ("a file read into itself", file_read(&io, &iter), 2);
		mm_env.ctx.um = NULL;
	}
	CHECK_EQ("msync", mm_msync(mm, AT(0), 2 * PAGE_SIZE, MS_SYNC), 0);
	CHECK_EQ("msync both ways", mm_msync(mm, AT(0), PAGE_SIZE, MS_SYNC | MS_ASYNC), -EINVAL);
	CHECK_EQ("msync of nothing", mm_msync(mm, AT(9), PAGE_SIZE, MS_SYNC), -ENOMEM);
	mm_put(mm);
	file_put(f);
	f = xopen(&mm_env, "text", O_RDONLY);
	mm = xmm();
	mm_mmap(mm, AT(0), PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, f, 0);
	CHECK_EQ("read-only file", mm_mprotect(mm, AT(0), PAGE_SIZE, RW), -EACCES);
	mm_put(mm);
	file_put(f);
	vfs_unlink(&mm_env.ctx, NULL, "text");
}

static void test_words(void)
{
	struct futex_key a, b;
	uint32_t v = 0;

	mm = xmm();
	map_anon(0, 1, RW);
	map_anon(1, 1, PROT_READ);
	mm_mmap(mm, AT(4), PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, NULL, 0);
	mm_mremap(mm, AT(4), 0, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, AT(5));
	CHECK_EQ("swap", mm_cmpxchg32(mm, AT(0), 0, 17, &v), 0);
	CHECK_EQ("load", mm_load32(mm, AT(0), &v), 0);
	CHECK_EQ("17", v, 17);
	CHECK_EQ("swap that doesn't", mm_cmpxchg32(mm, AT(0), 3, 4, &v), 0);
	CHECK_EQ("tells what is there", v, 17);
	CHECK_EQ("read-only", mm_cmpxchg32(mm, AT(1), 0, 1, &v), -EFAULT);
	CHECK_EQ("nothing there", mm_load32(mm, AT(9), &v), -EFAULT);
	CHECK_EQ("odd address", mm_load32(mm, AT(0) + 2, &v), -EFAULT);
	CHECK_EQ("key at an odd address", mm_futex_key(mm, AT(0) + 1, false, false, &a), -EINVAL);
	CHECK_EQ("key of a shared word", mm_futex_key(mm, AT(4) + 8, true, false, &a), 0);
	CHECK_EQ("and by its other name", mm_futex_key(mm, AT(5) + 8, true, false, &b), 0);
	CHECK("are the same", a.object == b.object && a.offset == b.offset);
	mm_futex_key_put(&a);
	mm_futex_key_put(&b);
	CHECK_EQ("key where nothing is", mm_futex_key(mm, AT(9), true, false, &a), -EFAULT);
	mm_put(mm);
}

static void test_maps(void)
{
	static const char want[] =
		"10000000000-10000001000 rw-p 00000000 00:00 0 \n"
		"10000002000-10000003000 r-xp 00001000 ";
	struct file *f;
	gpa_t frame = frame_alloc();
	char *text;

	mm = xmm();
	put_text(&mm_env, "a\nb", "abc");
	f = xopen(&mm_env, "a\nb", O_RDWR);
	map_anon(0, 1, RW);
	mm_mmap(mm, AT(2), PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, f, PAGE_SIZE);
	mm_mmap(mm, AT(4), PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, NULL, 0);
	mm->brk_start = mm->brk = AT(6);
	mm_brk(mm, AT(7));
	CHECK_EQ("frames", mm_map_frames(mm, AT(8), &frame, 1, PROT_READ, "[vvar]"), 0);
	text = mm_show_maps(mm, false);
	CHECK("maps begins as Linux's", text && !strncmp(text, want, strlen(want)));
	CHECK("escaped name", text && strstr(text, " /a\\012b\n"));
	CHECK("heap", text && strstr(text, "rw-p 00000000 00:00 0                            [heap]\n"));
	CHECK("vvar", text && strstr(text, " [vvar]\n"));
	CHECK("shared anonymous memory", text && strstr(text, " /dev/zero (deleted)\n"));
	if (text) {
		const char *name = strstr(text, "[heap]"), *line = name;

		while (line > text && line[-1] != '\n')
			line--;
		CHECK_EQ("names stand in column 73", name - line, 73);
	}
	kfree(text);
	vfs_unlink(&mm_env.ctx, NULL, "a\nb");
	text = mm_show_maps(mm, true);
	CHECK("deleted", text && strstr(text, " /a\\012b (deleted)\n"));
	CHECK("smaps", text && strstr(text, "\nVmFlags: rd wr "));
	kfree(text);
	mm_put(mm);
	file_put(f);
	frame_put(frame);
}

/* Each allocation in turn fails: an error, nothing lost, and what was there before still is. */
static void test_no_memory(void)
{
	struct file *f;
	bool good = true;
	int n;

	put_text(&mm_env, "text", "abc");
	f = xopen(&mm_env, "text", O_RDWR);
	for (n = 1; n < 40 && good; n++) {
		struct mm *child;
		long ret[6];
		size_t i;

		mm = xmm();
		map_anon(0, 16, RW);
		app_write(mm, AT(5), 55);
		arena_fail_at(n);
		ret[0] = mm_mprotect(mm, AT(4), 2 * PAGE_SIZE, PROT_READ);
		ret[1] = mm_munmap(mm, AT(9), PAGE_SIZE);
		ret[2] = mm_mmap(mm, AT(20), PAGE_SIZE, RW, MAP_FIXED | MAP_SHARED, f, 0);
		ret[2] = ret[2] < 0 ? ret[2] : 0;
		ret[3] = mm_mremap(mm, AT(0), 2 * PAGE_SIZE, 3 * PAGE_SIZE, MREMAP_MAYMOVE, 0);
		ret[3] = ret[3] < 0 ? ret[3] : 0;
		child = mm_fork(mm);
		ret[4] = PTR_ERR_OR_ZERO(child);
		ret[5] = mm_madvise(mm, AT(12), PAGE_SIZE, MADV_DONTFORK);
		arena_fail_at(0);
		for (i = 0; i < ARRAY_SIZE(ret); i++)
			good &= ret[i] == 0 || ret[i] == -ENOMEM;
		good &= app_read(mm, AT(5)) == 55;
		if (!ret[4])
			mm_put(child);
		mm_put(mm);
	}
	CHECK("allocations that fail", good);
	file_put(f);
	vfs_unlink(&mm_env.ctx, NULL, "text");
}

/* A sparse reservation costs nothing; what is used of it comes by growing windows. */
static void test_windows(void)
{
	uint64_t before;
	unsigned long faults;
	long at;

	mm = xmm();
	before = frames_now();
	at = mm_mmap(mm, 0, 1UL << 30, RW, ANON | MAP_NORESERVE, NULL, 0);
	CHECK_EQ("a large mapping takes no frames", frames_now(), before);
	faults = atomic_load(&mm->min_flt);
	for (size_t i = 0; i < 16UL << 20; i += PAGE_SIZE)
		app_write(mm, (uaddr_t)at + i, 1);
	faults = atomic_load(&mm->min_flt) - faults;
	CHECK("16 MiB in a dozen faults", faults <= 14);
	faults = atomic_load(&mm->min_flt);
	map_anon(0, 1024, RW);
	for (unsigned int i = 0; i < 1024; i++)
		app_write(mm, AT(i), 1);
	CHECK_EQ("4 MiB without a fault", atomic_load(&mm->min_flt) - faults, 0);
	mm_put(mm);
}

static void tests(void)
{
	test_mmap_errors();
	test_limits();
	test_mprotect();
	test_stack();
	test_brk();
	test_mincore();
	test_madvise();
	test_wiped();
	test_mremap();
	test_shared();
	test_words();
	test_maps();
	test_no_memory();
	test_windows();
}

int main(void)
{
	return mm_test_main(tests);
}
