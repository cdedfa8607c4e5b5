/* SPDX-License-Identifier: Apache-2.0 */
/* mremap, brk, madvise, mincore, mlock, msync, stack growth and process_vm_readv/writev. */
#include <sys/uio.h>

#include "test/conform/conform.h"
#include "test/conform/fault.h"

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)

static char *map_anon(int pages)
{
	return (char *)CHECK_OK(mmap(NULL, pages * PAGE, RW, ANON, -1, 0));
}

static bool is_hole(void *p)
{
	unsigned char vec;

	return mincore(p, PAGE, &vec) < 0 && errno == ENOMEM;
}

static void fill_pages(char *p, int pages)
{
	for (int i = 0; i < pages; i++)
		memset(p + i * PAGE, 'a' + i, PAGE);
}

static int make_file(const char *name, int pages)
{
	int fd = CHECK_OK(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
	char buf[PAGE];

	for (int i = 0; i < pages; i++) {
		memset(buf, 'a' + i, sizeof(buf));
		CHECK_EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	}
	return fd;
}

TEST(mremap_shrink)
{
	char *p = map_anon(4);

	fill_pages(p, 4);
	CHECK((char *)mremap(p, 4 * PAGE, 2 * PAGE, 0) == p);
	CHECK_EQ(p[PAGE], 'b');
	CHECK(is_hole(p + 2 * PAGE));
	CHECK(is_hole(p + 3 * PAGE));
}

TEST(mremap_same_size)
{
	char *p = map_anon(2);

	CHECK((char *)mremap(p, 2 * PAGE, 2 * PAGE, 0) == p);
}

TEST(mremap_grow_in_place)
{
	char *p = map_anon(4);

	fill_pages(p, 4);
	CHECK_OK(munmap(p + 2 * PAGE, 2 * PAGE));
	CHECK((char *)mremap(p, 2 * PAGE, 4 * PAGE, 0) == p);
	CHECK_EQ(p[PAGE], 'b');
	CHECK_EQ(p[2 * PAGE], 0);
	p[3 * PAGE] = 1;
}

TEST(mremap_grow_blocked)
{
	char *p = map_anon(3);

	CHECK_ERRNO(mremap(p, PAGE, 2 * PAGE, 0), ENOMEM);
}

TEST(mremap_grow_moves)
{
	char *p = map_anon(3), *q;

	fill_pages(p, 3);
	q = (char *)CHECK_OK(mremap(p, 2 * PAGE, 8 * PAGE, MREMAP_MAYMOVE));
	CHECK(q != p);
	CHECK_EQ(q[0], 'a');
	CHECK_EQ(q[PAGE], 'b');
	CHECK_EQ(q[2 * PAGE], 0);
	CHECK(is_hole(p));
	CHECK(is_hole(p + PAGE));
	CHECK_EQ(p[2 * PAGE], 'c');
}

TEST(mremap_fixed_replaces_target)
{
	char *p = map_anon(2), *q = map_anon(4);

	fill_pages(p, 2);
	memset(q, 'q', 4 * PAGE);
	CHECK((char *)mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q + PAGE) ==
	      q + PAGE);
	CHECK_EQ(q[0], 'q');
	CHECK_EQ(q[PAGE], 'a');
	CHECK_EQ(q[2 * PAGE], 'b');
	CHECK_EQ(q[3 * PAGE], 'q');
	CHECK(is_hole(p));
}

TEST(mremap_fixed_arguments)
{
	char *p = map_anon(4);

	CHECK_ERRNO(mremap(p, PAGE, PAGE, MREMAP_FIXED, p + 2 * PAGE), EINVAL);
	CHECK_ERRNO(mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 2 * PAGE + 1), EINVAL);
	CHECK_ERRNO(mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE), EINVAL);
	CHECK_ERRNO(mremap(p, PAGE, PAGE, 0x80), EINVAL);
	CHECK_ERRNO(mremap(p + 1, PAGE, PAGE, 0), EINVAL);
	CHECK_ERRNO(mremap(p, PAGE, 0, 0), EINVAL);
}

TEST(mremap_part_of_mapping)
{
	char *p = map_anon(4), *q;

	fill_pages(p, 4);
	q = (char *)CHECK_OK(mremap(p + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
	CHECK_EQ(q[0], 'b');
	CHECK_EQ(q[PAGE], 0);
	CHECK(is_hole(p + PAGE));
	CHECK_EQ(p[0], 'a');
	CHECK_EQ(p[2 * PAGE], 'c');
}

TEST(mremap_unmapped)
{
	char *p = map_anon(2);

	CHECK_OK(munmap(p, PAGE));
	CHECK_ERRNO(mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
}

TEST(mremap_file_keeps_offset)
{
	int fd = make_file("f", 4);
	char *p = (char *)CHECK_OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, PAGE));
	char *q = (char *)CHECK_OK(mremap(p, PAGE, 3 * PAGE, MREMAP_MAYMOVE));

	CHECK_EQ(q[0], 'b');
	CHECK_EQ(q[2 * PAGE], 'd');
}

TEST(mremap_shared_zero_old_size_duplicates)
{
	char *p = (char *)CHECK_OK(mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0)), *q;

	p[0] = 's';
	q = (char *)CHECK_OK(mremap(p, 0, PAGE, MREMAP_MAYMOVE));
	CHECK(q != p);
	CHECK_EQ(q[0], 's');
	q[0] = 't';
	CHECK_EQ(p[0], 't');
}

TEST(mremap_dontunmap)
{
	char *p = map_anon(1), *q;

	p[0] = 'd';
	q = (char *)syscall(SYS_mremap, p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0L);
	CHECK((long)q != -1);
	CHECK(q != p);
	CHECK_EQ(q[0], 'd');
	CHECK_EQ(p[0], 0);
}

TEST(mremap_keeps_protection)
{
	char *p = map_anon(1), *q;

	p[0] = 'r';
	CHECK_OK(mprotect(p, PAGE, PROT_READ));
	q = (char *)CHECK_OK(mremap(p, PAGE, 4 * PAGE, MREMAP_MAYMOVE));
	CHECK_EQ(q[0], 'r');
	CHECK_FAULT(SIGSEGV, SEGV_ACCERR, q + 3 * PAGE, poke(q + 3 * PAGE, 1));
}

static char *raw_brk(char *to)
{
	return (char *)syscall(SYS_brk, to);
}

TEST(brk_grow_and_shrink)
{
	char *start = raw_brk(NULL), *p;

	CHECK(start != NULL);
	CHECK(raw_brk(start + 5 * PAGE) == start + 5 * PAGE);
	p = (char *)(((uintptr_t)start + PAGE - 1) & -PAGE);
	CHECK_EQ(p[0], 0);
	memset(p, 1, 4 * PAGE);
	CHECK(raw_brk(start) == start);
	CHECK(is_hole(p + 2 * PAGE));
	CHECK(raw_brk(start + 5 * PAGE) == start + 5 * PAGE);
	CHECK_EQ(p[PAGE], 0);
}

TEST(brk_unaligned)
{
	char *start = raw_brk(NULL);

	CHECK(raw_brk(start + 1) == start + 1);
	CHECK(raw_brk(NULL) == start + 1);
}

TEST(brk_failure_returns_old)
{
	char *start = raw_brk(NULL);

	CHECK(raw_brk((char *)PAGE) == start);
	CHECK(raw_brk((char *)0x7fffffffffffUL) == start);
}

TEST(brk_blocked_by_mapping)
{
	char *start = raw_brk(NULL);
	char *p = (char *)(((uintptr_t)start + 3 * PAGE) & -PAGE);

	CHECK_OK(mmap(p, PAGE, RW, ANON | MAP_FIXED, -1, 0));
	CHECK(raw_brk(p + 2 * PAGE) == start);
	CHECK(raw_brk(p - PAGE) == p - PAGE);
}

TEST(brk_rlimit_data)
{
	struct rlimit rl = { 0, RLIM_INFINITY };
	char *start = raw_brk(NULL);

	CHECK_OK(setrlimit(RLIMIT_DATA, &rl));
	CHECK(raw_brk(start + 64 * PAGE) == start);
}

TEST(madvise_dontneed_anon)
{
	char *p = map_anon(3);

	fill_pages(p, 3);
	CHECK_OK(madvise(p + PAGE, PAGE, MADV_DONTNEED));
	CHECK_EQ(p[0], 'a');
	CHECK_EQ(p[PAGE], 0);
	CHECK_EQ(p[2 * PAGE], 'c');
	p[PAGE] = 'n';
	CHECK_EQ(p[PAGE], 'n');
}

TEST(madvise_dontneed_private_file)
{
	int fd = make_file("f", 1);
	char *p = (char *)CHECK_OK(mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0));

	p[0] = 'X';
	CHECK_OK(madvise(p, PAGE, MADV_DONTNEED));
	CHECK_EQ(p[0], 'a');
}

TEST(madvise_dontneed_shared_keeps)
{
	char *p = (char *)CHECK_OK(mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

	p[0] = 'k';
	CHECK_OK(madvise(p, PAGE, MADV_DONTNEED));
	CHECK_EQ(p[0], 'k');
}

TEST(madvise_arguments)
{
	char *p = map_anon(2);

	CHECK_ERRNO(madvise(p + 1, PAGE, MADV_DONTNEED), EINVAL);
	CHECK_ERRNO(madvise(p, PAGE, 12345), EINVAL);
	CHECK_OK(madvise(p, 0, MADV_DONTNEED));
	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_ERRNO(madvise(p, 2 * PAGE, MADV_DONTNEED), ENOMEM);
}

TEST(madvise_hints_are_accepted)
{
	char *p = map_anon(2);

	p[0] = 'h';
	CHECK_OK(madvise(p, PAGE, MADV_NORMAL));
	CHECK_OK(madvise(p, PAGE, MADV_RANDOM));
	CHECK_OK(madvise(p, PAGE, MADV_SEQUENTIAL));
	CHECK_OK(madvise(p, PAGE, MADV_WILLNEED));
	CHECK_EQ(p[0], 'h');
}

TEST(madvise_free_may_be_rewritten)
{
	char *p = map_anon(1);

	p[0] = 'f';
	CHECK_OK(madvise(p, PAGE, MADV_FREE));
	p[0] = 'g';
	CHECK_EQ(p[0], 'g');
	CHECK(p[1] == 0);
}

TEST(madvise_wipeonfork)
{
	char *p = map_anon(2);
	pid_t pid;

	p[0] = 'w';
	p[PAGE] = 'k';
	CHECK_OK(madvise(p, PAGE, MADV_WIPEONFORK));
	pid = FORK();
	if (!pid) {
		CHECK_EQ(p[0], 0);
		CHECK_EQ(p[PAGE], 'k');
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(p[0], 'w');
}

TEST(madvise_dontfork)
{
	char *p = map_anon(2);
	pid_t pid;

	CHECK_OK(madvise(p, PAGE, MADV_DONTFORK));
	pid = FORK();
	if (!pid) {
		CHECK(is_hole(p));
		CHECK(!is_hole(p + PAGE));
		_exit(0);
	}
	JOIN(pid);
	CHECK(!is_hole(p));
}

TEST(mincore_anon)
{
	unsigned char vec[3] = { 9, 9, 9 };
	char *p = map_anon(3);

	p[PAGE] = 1;
	CHECK_OK(mincore(p, 3 * PAGE, vec));
	CHECK_EQ(vec[1] & 1, 1);
	CHECK(!(vec[0] & ~1) && !(vec[2] & ~1));
}

TEST(mincore_arguments)
{
	unsigned char vec[2];
	char *p = map_anon(2);

	CHECK_ERRNO(mincore(p + 1, PAGE, vec), EINVAL);
	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_ERRNO(mincore(p, 2 * PAGE, vec), ENOMEM);
	CHECK_ERRNO(mincore(p, PAGE, (unsigned char *)8), EFAULT);
}

TEST(mlock_basic)
{
	char *p = map_anon(4);

	CHECK_OK(mlock(p, 4 * PAGE));
	CHECK_OK(munlock(p + PAGE, PAGE));
	CHECK_OK(mlock(p + 1, 1));
	CHECK_OK(munlock(p, 4 * PAGE));
}

TEST(mlock_unmapped)
{
	char *p = map_anon(2);

	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_ERRNO(mlock(p, 2 * PAGE), ENOMEM);
}

TEST(mlock_rlimit)
{
	struct rlimit rl = { 4 * PAGE, 4 * PAGE };
	pid_t pid;

	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		char *p = map_anon(16);

		CHECK_OK(setrlimit(RLIMIT_MEMLOCK, &rl));
		BECOME_NOBODY();
		CHECK_OK(mlock(p, 4 * PAGE));
		CHECK_ERRNO(mlock(p + 4 * PAGE, PAGE), ENOMEM);
		CHECK_OK(mlock(p, PAGE));
		CHECK_OK(munlock(p, 2 * PAGE));
		CHECK_OK(mlock(p + 8 * PAGE, 2 * PAGE));
		CHECK_ERRNO(mmap(NULL, PAGE, RW, ANON | MAP_LOCKED, -1, 0), EAGAIN);
		CHECK_OK(munlockall());
		rl.rlim_cur = 0;
		CHECK_OK(setrlimit(RLIMIT_MEMLOCK, &rl));
		CHECK_ERRNO(mlock(p, PAGE), EPERM);
		_exit(0);
	}
	JOIN(pid);
}

TEST(mlock_status_accounting)
{
	char *p = map_anon(4), buf[4096], *s;
	long before, after;

	CHECK(get_file("/proc/self/status", buf, sizeof(buf)) > 0);
	s = strstr(buf, "VmLck:");
	CHECK(s);
	before = atol(s + 6);
	CHECK_OK(mlock(p, 4 * PAGE));
	CHECK(get_file("/proc/self/status", buf, sizeof(buf)) > 0);
	s = strstr(buf, "VmLck:");
	CHECK(s);
	after = atol(s + 6);
	CHECK_EQ(after - before, 16);
}

TEST(mlockall_flags)
{
	CHECK_ERRNO(mlockall(0), EINVAL);
	CHECK_ERRNO(mlockall(0x100), EINVAL);
	CHECK_OK(munlockall());
}

TEST(msync_arguments)
{
	int fd = make_file("f", 2);
	char *p = (char *)CHECK_OK(mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0));

	p[0] = 'm';
	CHECK_OK(msync(p, PAGE, MS_SYNC));
	CHECK_OK(msync(p, 2 * PAGE, MS_ASYNC));
	CHECK_ERRNO(msync(p, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
	CHECK_ERRNO(msync(p + 1, PAGE, MS_SYNC), EINVAL);
	CHECK_ERRNO(msync(p, PAGE, 0x80), EINVAL);
	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_ERRNO(msync(p, 2 * PAGE, MS_SYNC), ENOMEM);
}

static __attribute__((noinline)) int use_stack(int depth)
{
	volatile char frame[16 * PAGE];

	for (size_t i = 0; i < sizeof(frame); i += PAGE)
		frame[i] = depth;
	return depth ? use_stack(depth - 1) + frame[0] - frame[0] : frame[PAGE];
}

TEST(stack_grows)
{
	CHECK_EQ(use_stack(60), 0);
}

HELPER(overflow)
{
	use_stack(1000000);
	return 0;
}

TEST(stack_limit_is_enforced)
{
	struct rlimit rl = { 512 * 1024, RLIM_INFINITY };
	pid_t pid = FORK();

	if (!pid) {
		CHECK_OK(setrlimit(RLIMIT_STACK, &rl));
		execl(conform_self, conform_self, "--helper", "overflow", NULL);
		_exit(1);
	}
	CHECK_SIGNALED(pid, SIGSEGV);
}

TEST(stack_overflow_on_alternate_stack)
{
	struct rlimit rl = { 1024 * 1024, RLIM_INFINITY };
	stack_t ss = { .ss_sp = malloc(65536), .ss_size = 65536 };
	struct sigaction sa = { .sa_flags = SA_ONSTACK | SA_SIGINFO, .sa_sigaction = fault_caught };

	CHECK_OK(setrlimit(RLIMIT_STACK, &rl));
	CHECK_OK(sigaltstack(&ss, NULL));
	CHECK_OK(sigaction(SIGSEGV, &sa, NULL));
	if (!sigsetjmp(fault_env, 1)) {
		use_stack(1000000);
		FAIL("the stack did not overflow");
	}
	CHECK_EQ(fault_info.si_signo, SIGSEGV);
}

TEST(growsdown_mapping)
{
	char *area = map_anon(600), *p = area + 599 * PAGE;

	CHECK_OK(munmap(area, 600 * PAGE));
	CHECK_OK(mmap(p, PAGE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN, -1, 0));
	p[0] = 1;
	p[-8] = 2;
	CHECK_EQ(p[-8], 2);
}

TEST(rlimit_as)
{
	struct rlimit rl = { 256UL << 20, RLIM_INFINITY };

	CHECK_OK(setrlimit(RLIMIT_AS, &rl));
	CHECK_ERRNO(mmap(NULL, 512UL << 20, RW, ANON, -1, 0), ENOMEM);
	CHECK_OK(mmap(NULL, 1UL << 20, RW, ANON, -1, 0));
}

TEST(statm_and_status_grow)
{
	char buf[4096], *s;
	long size0, size1;

	CHECK(get_file("/proc/self/statm", buf, sizeof(buf)) > 0);
	size0 = atol(buf);
	map_anon(1024);
	CHECK(get_file("/proc/self/statm", buf, sizeof(buf)) > 0);
	size1 = atol(buf);
	CHECK_EQ(size1 - size0, 1024);
	CHECK(get_file("/proc/self/status", buf, sizeof(buf)) > 0);
	s = strstr(buf, "VmSize:");
	CHECK(s);
	CHECK_EQ(atol(s + 7), size1 * 4);
}

TEST(vm_readv_of_child)
{
	char *p = map_anon(2), out[32] = "";
	struct iovec local = { out, 16 }, remote = { p + PAGE - 8, 16 };
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		memcpy(p + PAGE - 8, "across-the-page", 16);
		GATE_OPEN(&g);
		pause();
		_exit(0);
	}
	GATE_WAIT(&g);
	CHECK_EQ(process_vm_readv(pid, &local, 1, &remote, 1, 0), 16);
	CHECK_STR(out, "across-the-page");
	CHECK_EQ(p[PAGE - 8], 0);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_SIGNALED(pid, SIGKILL);
}

TEST(vm_writev_of_child)
{
	volatile char *p = map_anon(1);
	char in[] = "hello";
	struct iovec local[2] = { { in, 2 }, { in + 2, 4 } }, remote = { (void *)p, 6 };
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		GATE_WAIT(&g);
		CHECK_STR((char *)p, "hello");
		_exit(0);
	}
	CHECK_EQ(process_vm_writev(pid, local, 2, &remote, 1, 0), 6);
	GATE_OPEN(&g);
	JOIN(pid);
	CHECK_EQ(p[0], 0);
}

TEST(vm_readv_errors)
{
	char *p = map_anon(2), out[2 * PAGE];
	struct iovec local = { out, 2 * PAGE }, remote = { p, 2 * PAGE };

	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_EQ(process_vm_readv(getpid(), &local, 1, &remote, 1, 0), PAGE);
	remote.iov_base = p + PAGE;
	CHECK_ERRNO(process_vm_readv(getpid(), &local, 1, &remote, 1, 0), EFAULT);
	CHECK_ERRNO(process_vm_readv(getpid(), &local, 1, &remote, 1, 1), EINVAL);
	CHECK_ERRNO(process_vm_readv(0x3fffffff, &local, 1, &remote, 1, 0), ESRCH);
}

TEST(vm_readv_needs_permission)
{
	char *p = map_anon(1), out[8];
	struct iovec local = { out, 8 }, remote = { p, 8 };
	pid_t pid, parent = getpid();

	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		BECOME_NOBODY();
		CHECK_ERRNO(process_vm_readv(parent, &local, 1, &remote, 1, 0), EPERM);
		_exit(0);
	}
	JOIN(pid);
}

TEST(proc_self_mem)
{
	char *p = map_anon(1), buf[4];
	int fd = CHECK_OK(open("/proc/self/mem", O_RDWR));

	memcpy(p + 8, "mem", 4);
	CHECK_EQ(pread(fd, buf, 4, (off_t)(uintptr_t)p + 8), 4);
	CHECK_STR(buf, "mem");
	CHECK_EQ(pwrite(fd, "NEW", 4, (off_t)(uintptr_t)p + 8), 4);
	CHECK_STR(p + 8, "NEW");
	CHECK_OK(munmap(p, PAGE));
	CHECK_ERRNO(pread(fd, buf, 4, (off_t)(uintptr_t)p), EIO);
}
