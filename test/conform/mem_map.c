/* SPDX-License-Identifier: Apache-2.0 */
/* mmap, munmap and mprotect: what is mapped where, with which rights, and what a fault reports. */
#include "test/conform/conform.h"
#include "test/conform/fault.h"

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)

static char *map_at(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
	return (char *)CHECK_OK(mmap(at, len, prot, flags, fd, off));
}

static char *map_anon(int pages)
{
	return map_at(NULL, pages * PAGE, RW, ANON, -1, 0);
}

/* A file of that many pages; every byte of page i is 'a' + i. */
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

/* Not mapped at all: mincore says so. */
static bool is_hole(void *p)
{
	unsigned char vec;

	return mincore(p, PAGE, &vec) < 0 && errno == ENOMEM;
}

TEST(anon_is_zeroed)
{
	char *p = map_anon(16);

	for (size_t i = 0; i < 16 * PAGE; i++)
		if (p[i])
			FAIL("byte %zu is %d", i, p[i]);
}

TEST(anon_rounds_length_up)
{
	char *p = map_at(NULL, 1, RW, ANON, -1, 0);

	p[PAGE - 1] = 1;
	CHECK_OK(munmap(p, 1));
	CHECK(is_hole(p));
}

TEST(length_zero)
{
	CHECK_ERRNO(mmap(NULL, 0, RW, ANON, -1, 0), EINVAL);
	CHECK_ERRNO(munmap(map_anon(1), 0), EINVAL);
}

TEST(length_huge)
{
	CHECK_ERRNO(mmap(NULL, SIZE_MAX, RW, ANON, -1, 0), ENOMEM);
	CHECK_ERRNO(mmap(NULL, 1UL << 60, RW, ANON, -1, 0), ENOMEM);
}

TEST(type_is_required)
{
	CHECK_ERRNO(mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
}

TEST(offset_must_be_aligned)
{
	int fd = make_file("f", 1);

	CHECK_ERRNO(syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 1L), EINVAL);
}

TEST(fixed_must_be_aligned)
{
	char *p = map_anon(2);

	CHECK_ERRNO(mmap(p + 1, PAGE, RW, ANON | MAP_FIXED, -1, 0), EINVAL);
}

TEST(hint_is_honoured_when_free)
{
	char *p = map_anon(4);

	CHECK_OK(munmap(p, 4 * PAGE));
	CHECK(map_at(p + PAGE, PAGE, RW, ANON, -1, 0) == p + PAGE);
}

TEST(hint_is_ignored_when_taken)
{
	char *p = map_anon(1), *q;

	p[0] = 7;
	q = map_at(p, PAGE, RW, ANON, -1, 0);
	CHECK(q != p);
	CHECK_EQ(p[0], 7);
}

TEST(fixed_replaces)
{
	char *p = map_anon(3);

	memset(p, 1, 3 * PAGE);
	CHECK(map_at(p + PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == p + PAGE);
	CHECK_EQ(p[PAGE - 1], 1);
	CHECK_EQ(p[PAGE], 0);
	CHECK_EQ(p[2 * PAGE], 1);
}

TEST(fixed_replaces_file_by_anon_and_back)
{
	int fd = make_file("f", 2);
	char *p = map_at(NULL, 2 * PAGE, RW, MAP_PRIVATE, fd, 0);

	CHECK_EQ(p[PAGE], 'b');
	map_at(p + PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0);
	CHECK_EQ(p[PAGE], 0);
	map_at(p + PAGE, PAGE, RW, MAP_PRIVATE | MAP_FIXED, fd, 0);
	CHECK_EQ(p[PAGE], 'a');
}

TEST(fixed_noreplace_exists)
{
	char *p = map_anon(3);

	CHECK_ERRNO(mmap(p + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
	CHECK_ERRNO(mmap(p - PAGE, 2 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
}

TEST(fixed_noreplace_free)
{
	char *p = map_anon(3);

	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK(map_at(p + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == p + PAGE);
}

TEST(fixed_above_user_space)
{
	CHECK_ERRNO(mmap((void *)0xffff800000000000UL, PAGE, RW, ANON | MAP_FIXED, -1, 0), ENOMEM);
	CHECK_ERRNO(mmap((void *)0x7ffffffff000UL, PAGE, RW, ANON | MAP_FIXED, -1, 0), ENOMEM);
}

TEST(fixed_page_zero_needs_privilege)
{
	pid_t pid;
	char buf[32];

	NEED_ROOT();
	if (get_file("/proc/sys/vm/mmap_min_addr", buf, sizeof(buf)) > 0 && atoi(buf) == 0)
		SKIP("vm.mmap_min_addr is 0");
	pid = FORK();
	if (!pid) {
		BECOME_NOBODY();
		CHECK_ERRNO(mmap(NULL, PAGE, RW, ANON | MAP_FIXED, -1, 0), EPERM);
		_exit(0);
	}
	JOIN(pid);
}

TEST(map_32bit)
{
	char *p = map_at(NULL, PAGE, RW, ANON | MAP_32BIT, -1, 0);

	CHECK((uintptr_t)p < 0x80000000UL);
	p[0] = 1;
}

TEST(noreserve_large)
{
	char *p = map_at(NULL, 1UL << 36, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);

	CHECK_OK(mprotect(p + (1UL << 35), PAGE, RW));
	p[1UL << 35] = 1;
	CHECK_OK(munmap(p, 1UL << 36));
}

TEST(populate)
{
	unsigned char vec[4];
	char *p = map_at(NULL, 4 * PAGE, RW, ANON | MAP_POPULATE, -1, 0);

	CHECK_OK(mincore(p, 4 * PAGE, vec));
	for (int i = 0; i < 4; i++)
		CHECK_EQ(vec[i] & 1, 1);
}

TEST(file_private_reads_file)
{
	int fd = make_file("f", 3);
	char *p = map_at(NULL, 3 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);

	CHECK_OK(close(fd));
	CHECK_EQ(p[0], 'a');
	CHECK_EQ(p[2 * PAGE + 5], 'c');
}

TEST(file_private_offset)
{
	int fd = make_file("f", 3);
	char *p = map_at(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 2 * PAGE);

	CHECK_EQ(p[0], 'c');
}

TEST(file_private_write_stays_private)
{
	int fd = make_file("f", 1);
	char *p = map_at(NULL, PAGE, RW, MAP_PRIVATE, fd, 0);
	char *q = map_at(NULL, PAGE, RW, MAP_PRIVATE, fd, 0);
	char c;

	p[0] = 'X';
	CHECK_EQ(pread(fd, &c, 1, 0), 1);
	CHECK_EQ(c, 'a');
	CHECK_EQ(q[0], 'a');
	CHECK_EQ(p[1], 'a');
}

TEST(file_shared_write_reaches_file)
{
	int fd = make_file("f", 2);
	char *p = map_at(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
	char c;

	p[PAGE + 3] = 'Z';
	CHECK_EQ(pread(fd, &c, 1, PAGE + 3), 1);
	CHECK_EQ(c, 'Z');
}

TEST(file_shared_sees_write)
{
	int fd = make_file("f", 1);
	char *p = map_at(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);

	CHECK_EQ(p[10], 'a');
	CHECK_EQ(pwrite(fd, "new", 3, 10), 3);
	CHECK(!memcmp(p + 10, "new", 3));
}

TEST(file_shared_two_mappings)
{
	int fd = make_file("f", 1), fd2 = CHECK_OK(open("f", O_RDWR));
	char *p = map_at(NULL, PAGE, RW, MAP_SHARED, fd, 0);
	char *q = map_at(NULL, PAGE, RW, MAP_SHARED, fd2, 0);

	p[1] = '1';
	CHECK_EQ(q[1], '1');
	q[2] = '2';
	CHECK_EQ(p[2], '2');
}

TEST(file_private_untouched_sees_shared_write)
{
	int fd = make_file("f", 2);
	char *s = map_at(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
	char *p = map_at(NULL, 2 * PAGE, RW, MAP_PRIVATE, fd, 0);

	CHECK_EQ(p[0], 'a');
	p[PAGE] = 'P';
	s[0] = 'S';
	s[PAGE] = 'S';
	CHECK_EQ(p[0], 'S');
	CHECK_EQ(p[PAGE], 'P');
}

TEST(file_tail_is_zero)
{
	int fd = make_file("f", 1);
	char *p;

	CHECK_OK(ftruncate(fd, 100));
	p = map_at(NULL, PAGE, RW, MAP_SHARED, fd, 0);
	CHECK_EQ(p[99], 'a');
	for (size_t i = 100; i < PAGE; i++)
		CHECK_EQ(p[i], 0);
}

TEST(file_past_end_is_sigbus)
{
	int fd = make_file("f", 1);
	char *p = map_at(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);

	CHECK_EQ(p[0], 'a');
	CHECK_FAULT(SIGBUS, BUS_ADRERR, p + PAGE + 8, peek(p + PAGE + 8));
	CHECK_FAULT(SIGBUS, BUS_ADRERR, p + PAGE + 8, poke(p + PAGE + 8, 1));
}

TEST(file_private_past_end_is_sigbus)
{
	int fd = make_file("f", 1);
	char *p = map_at(NULL, 2 * PAGE, RW, MAP_PRIVATE, fd, 0);

	CHECK_FAULT(SIGBUS, BUS_ADRERR, p + PAGE, poke(p + PAGE, 1));
}

TEST(file_truncated_under_mapping)
{
	int fd = make_file("f", 2);
	char *p = map_at(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);

	CHECK_EQ(p[PAGE], 'b');
	CHECK_OK(ftruncate(fd, PAGE));
	CHECK_FAULT(SIGBUS, BUS_ADRERR, p + PAGE, peek(p + PAGE));
	CHECK_EQ(p[0], 'a');
	CHECK_OK(ftruncate(fd, 2 * PAGE));
	CHECK_EQ(p[PAGE], 0);
}

TEST(file_truncate_drops_private_copies)
{
	int fd = make_file("f", 2);
	char *p = map_at(NULL, 2 * PAGE, RW, MAP_PRIVATE, fd, 0);

	p[PAGE] = 'X';
	CHECK_OK(ftruncate(fd, PAGE));
	CHECK_FAULT(SIGBUS, BUS_ADRERR, p + PAGE, peek(p + PAGE));
}

TEST(file_grown_under_mapping)
{
	int fd = make_file("f", 1);
	char *p = map_at(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);

	CHECK_EQ(pwrite(fd, "q", 1, PAGE), 1);
	CHECK_EQ(p[PAGE], 'q');
}

TEST(file_outlives_unlink)
{
	int fd = make_file("f", 1);
	char *p = map_at(NULL, PAGE, RW, MAP_SHARED, fd, 0);

	CHECK_OK(unlink("f"));
	CHECK_OK(close(fd));
	CHECK_EQ(p[0], 'a');
	p[0] = 'b';
	CHECK_EQ(p[0], 'b');
}

TEST(file_access_rights)
{
	int r, w;

	CHECK_OK(close(make_file("f", 1)));
	r = CHECK_OK(open("f", O_RDONLY));
	w = CHECK_OK(open("f", O_WRONLY));
	CHECK_ERRNO(mmap(NULL, PAGE, RW, MAP_SHARED, r, 0), EACCES);
	CHECK_OK(mmap(NULL, PAGE, RW, MAP_PRIVATE, r, 0));
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, w, 0), EACCES);
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, w, 0), EACCES);
}

TEST(file_shared_readonly_cannot_become_writable)
{
	char *p;

	CHECK_OK(close(make_file("f", 1)));
	p = map_at(NULL, PAGE, PROT_READ, MAP_SHARED, CHECK_OK(open("f", O_RDONLY)), 0);
	CHECK_ERRNO(mprotect(p, PAGE, RW), EACCES);
}

TEST(file_kinds_that_cannot_be_mapped)
{
	int pfd[2], dir = CHECK_OK(open(".", O_RDONLY));

	CHECK_OK(pipe(pfd));
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, pfd[0], 0), ENODEV);
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, dir, 0), ENODEV);
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0), EBADF);
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 199, 0), EBADF);
}

TEST(file_opath_cannot_be_mapped)
{
	int fd;

	CHECK_OK(close(make_file("f", 1)));
	fd = CHECK_OK(open("f", O_PATH));
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0), EBADF);
}

TEST(dev_zero)
{
	int fd = CHECK_OK(open("/dev/zero", O_RDWR));
	char *p = map_at(NULL, 2 * PAGE, RW, MAP_PRIVATE, fd, 0);

	CHECK_EQ(p[PAGE], 0);
	p[PAGE] = 1;
	CHECK_EQ(p[PAGE], 1);
}

TEST(unmap_middle_leaves_both_sides)
{
	char *p = map_anon(5);

	memset(p, 9, 5 * PAGE);
	CHECK_OK(munmap(p + 2 * PAGE, PAGE));
	CHECK_EQ(p[2 * PAGE - 1], 9);
	CHECK_EQ(p[3 * PAGE], 9);
	CHECK_FAULT(SIGSEGV, SEGV_MAPERR, p + 2 * PAGE, peek(p + 2 * PAGE));
}

TEST(unmap_over_holes)
{
	char *p = map_anon(6);

	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_OK(munmap(p + 3 * PAGE, PAGE));
	CHECK_OK(munmap(p, 6 * PAGE));
	for (int i = 0; i < 6; i++)
		CHECK(is_hole(p + i * PAGE));
	CHECK_OK(munmap(p, 6 * PAGE));
}

TEST(unmap_head_and_tail_of_file)
{
	int fd = make_file("f", 4);
	char *p = map_at(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);

	CHECK_OK(munmap(p, PAGE));
	CHECK_OK(munmap(p + 3 * PAGE, PAGE));
	CHECK_EQ(p[PAGE], 'b');
	CHECK_EQ(p[2 * PAGE], 'c');
	CHECK(is_hole(p));
	CHECK(is_hole(p + 3 * PAGE));
}

TEST(unmap_unaligned)
{
	char *p = map_anon(1);

	CHECK_ERRNO(munmap(p + 1, PAGE), EINVAL);
	CHECK_ERRNO(munmap((void *)0xffff800000000000UL, PAGE), EINVAL);
}

TEST(unmapped_page_is_fresh_when_mapped_again)
{
	char *p = map_anon(1);

	memset(p, 5, PAGE);
	CHECK_OK(munmap(p, PAGE));
	CHECK(map_at(p, PAGE, RW, ANON | MAP_FIXED, -1, 0) == p);
	CHECK_EQ(p[0], 0);
}

TEST(fault_read_unmapped)
{
	char *p = map_anon(1);

	CHECK_OK(munmap(p, PAGE));
	CHECK_FAULT(SIGSEGV, SEGV_MAPERR, p + 123, peek(p + 123));
	CHECK_FAULT(SIGSEGV, SEGV_MAPERR, p + 124, poke(p + 124, 1));
}

TEST(fault_null)
{
	volatile uintptr_t zero = 0;

	CHECK_FAULT(SIGSEGV, SEGV_MAPERR, 16, peek((char *)zero + 16));
}

TEST(fault_write_readonly)
{
	char *p = map_at(NULL, PAGE, PROT_READ, ANON, -1, 0);

	CHECK_EQ(peek(p), 0);
	CHECK_FAULT(SIGSEGV, SEGV_ACCERR, p + 7, poke(p + 7, 1));
}

TEST(fault_prot_none)
{
	char *p = map_at(NULL, PAGE, PROT_NONE, ANON, -1, 0);

	CHECK_FAULT(SIGSEGV, SEGV_ACCERR, p, peek(p));
	CHECK_FAULT(SIGSEGV, SEGV_ACCERR, p, poke(p, 1));
}

TEST(fault_exec_noexec)
{
	char *p = map_anon(1);

	p[0] = (char)0xc3;
	CHECK_FAULT(SIGSEGV, SEGV_ACCERR, p, ((void (*)(void))p)());
}

TEST(fault_exec_unmapped)
{
	char *p = map_anon(1);

	CHECK_OK(munmap(p, PAGE));
	CHECK_FAULT(SIGSEGV, SEGV_MAPERR, p, ((void (*)(void))p)());
}

TEST(fault_noncanonical_is_general_protection)
{
	volatile uintptr_t bad = 0x8000000000000000UL;

	CHECK(FAULTED(SIGSEGV, peek((char *)bad)));
	CHECK_EQ(fault_info.si_code, SI_KERNEL);
	CHECK_EQ((uintptr_t)fault_info.si_addr, 0);
}

TEST(fault_kernel_half)
{
	volatile uintptr_t bad = 0xffffffff80000000UL;

	CHECK(FAULTED(SIGSEGV, peek((char *)bad)));
	CHECK_EQ((uintptr_t)fault_info.si_addr, bad);
}

TEST(fault_crossing_into_unmapped)
{
	char *p = map_anon(2);
	volatile uint64_t *q = (volatile uint64_t *)(p + PAGE - 4);

	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_FAULT(SIGSEGV, SEGV_MAPERR, p + PAGE, *q = 1);
}

TEST(exec_of_written_code)
{
	static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	char *p = map_anon(1);

	memcpy(p, code, sizeof(code));
	CHECK_OK(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
	CHECK_EQ(((int (*)(void))p)(), 42);
	CHECK_OK(mprotect(p, PAGE, RW));
	p[1] = 43;
	CHECK_OK(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
	CHECK_EQ(((int (*)(void))p)(), 43);
}

TEST(self_modifying_rwx)
{
	static const unsigned char code[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
	char *p = map_at(NULL, PAGE, RW | PROT_EXEC, ANON, -1, 0);

	memcpy(p, code, sizeof(code));
	CHECK_EQ(((int (*)(void))p)(), 1);
	((volatile char *)p)[1] = 2;
	CHECK_EQ(((int (*)(void))p)(), 2);
}

TEST(mprotect_split_and_faults)
{
	char *p = map_anon(3);

	memset(p, 1, 3 * PAGE);
	CHECK_OK(mprotect(p + PAGE, PAGE, PROT_READ));
	p[0] = 2;
	p[2 * PAGE] = 2;
	CHECK_EQ(p[PAGE], 1);
	CHECK_FAULT(SIGSEGV, SEGV_ACCERR, p + PAGE, poke(p + PAGE, 1));
	CHECK_OK(mprotect(p, 3 * PAGE, RW));
	p[PAGE] = 3;
	CHECK_EQ(p[0] + p[PAGE] + p[2 * PAGE], 7);
}

TEST(mprotect_none_keeps_contents)
{
	char *p = map_anon(1);

	p[9] = 'k';
	CHECK_OK(mprotect(p, PAGE, PROT_NONE));
	CHECK_FAULT(SIGSEGV, SEGV_ACCERR, p + 9, peek(p + 9));
	CHECK_OK(mprotect(p, PAGE, PROT_READ));
	CHECK_EQ(p[9], 'k');
}

TEST(mprotect_over_hole)
{
	char *p = map_anon(3);

	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_ERRNO(mprotect(p, 3 * PAGE, PROT_READ), ENOMEM);
	/* What came before the hole was changed, as on Linux. */
	CHECK_FAULT(SIGSEGV, SEGV_ACCERR, p, poke(p, 1));
	p[2 * PAGE] = 1;
}

TEST(mprotect_arguments)
{
	char *p = map_anon(1);

	CHECK_ERRNO(mprotect(p + 1, PAGE, PROT_READ), EINVAL);
	CHECK_OK(mprotect(p, 0, PROT_READ));
	CHECK_ERRNO(mprotect(p, PAGE, 0x40000), EINVAL);
	p[0] = 1;
}

TEST(mprotect_first_write_after_many_reads)
{
	char *p = map_anon(64);
	int sum = 0;

	for (int i = 0; i < 64; i++)
		sum += peek(p + i * PAGE);
	CHECK_EQ(sum, 0);
	for (int i = 0; i < 64; i++)
		p[i * PAGE] = i;
	for (int i = 0; i < 64; i++)
		CHECK_EQ(p[i * PAGE], i);
}

static char *repair_page;
static volatile int repair_count;

static void repair_handler(int sig UNUSED)
{
	repair_count++;
	mprotect(repair_page, PAGE, RW);
}

TEST(mprotect_handler_may_repair)
{
	repair_page = map_at(NULL, PAGE, PROT_NONE, ANON, -1, 0);
	on_signal(SIGSEGV, repair_handler);
	poke(repair_page + 5, 'r');
	CHECK_EQ(repair_page[5], 'r');
	CHECK_EQ(repair_count, 1);
}

TEST(system_call_on_bad_memory_is_efault_not_signal)
{
	char *p = map_anon(2);
	int fd = make_file("f", 1);

	CHECK_OK(mprotect(p + PAGE, PAGE, PROT_NONE));
	CHECK_ERRNO(pread(fd, p + PAGE, 10, 0), EFAULT);
	CHECK_OK(mprotect(p, PAGE, PROT_READ));
	CHECK_ERRNO(pread(fd, p, 10, 0), EFAULT);
}

TEST(read_into_partly_mapped_is_short)
{
	char *p = map_anon(2);
	int fd = make_file("f", 1);

	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_EQ(pread(fd, p + PAGE - 100, 200, 0), 100);
	CHECK_EQ(p[PAGE - 1], 'a');
}

TEST(sysctl_page_size)
{
	CHECK_EQ(sysconf(_SC_PAGESIZE), PAGE);
}

TEST(maps_shows_mapping)
{
	char *p = map_anon(4), line[512], want[64];
	bool found = false;
	FILE *f;

	CHECK_OK(munmap(p, PAGE));
	CHECK_OK(munmap(p + 3 * PAGE, PAGE));
	CHECK_OK(mprotect(p + PAGE, 2 * PAGE, PROT_READ));
	snprintf(want, sizeof(want), "%lx-%lx r--p 00000000 00:00 0", (long)p + PAGE,
		 (long)p + 3 * PAGE);
	f = fopen("/proc/self/maps", "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, want, strlen(want)))
			found = true;
	CHECK(found);
}

TEST(maps_shows_file)
{
	int fd = make_file("mapped-file", 3);
	char *p = map_at(NULL, PAGE, RW, MAP_SHARED, fd, 2 * PAGE), line[512], want[64];
	struct stat st;
	bool found = false;
	FILE *f;

	CHECK_OK(fstat(fd, &st));
	snprintf(want, sizeof(want), "%lx-%lx rw-s 00002000 ", (long)p, (long)p + PAGE);
	f = fopen("/proc/self/maps", "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long ino = 0;
		char *end;

		if (strncmp(line, want, strlen(want)))
			continue;
		CHECK_EQ(sscanf(line + strlen(want), "%*x:%*x %lu", &ino), 1);
		CHECK_EQ(ino, st.st_ino);
		end = strstr(line, "/mapped-file\n");
		CHECK(end);
		CHECK(line[73] == '/');
		found = true;
	}
	CHECK(found);
}

TEST(maps_names_stack_heap_vdso)
{
	static const char *const names[] = { "[stack]\n", "[heap]\n", "[vdso]\n" };
	char line[512];
	int seen[3] = { 0, 0, 0 };
	FILE *f;

	CHECK(sbrk(PAGE) != (void *)-1);
	f = fopen("/proc/self/maps", "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		for (int i = 0; i < 3; i++)
			seen[i] += strstr(line, names[i]) != NULL;
	CHECK_EQ(seen[0], 1);
	CHECK(seen[1] >= 1);
	CHECK_EQ(seen[2], 1);
}

TEST(maps_is_sorted)
{
	unsigned long prev = 0, lo, hi;
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");

	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		CHECK_EQ(sscanf(line, "%lx-%lx", &lo, &hi), 2);
		CHECK(lo >= prev && hi > lo);
		prev = hi;
	}
	CHECK(prev);
}

TEST(many_mappings)
{
	char *base = map_anon(2000);

	for (int i = 0; i < 1000; i++)
		CHECK_OK(mprotect(base + 2 * i * PAGE, PAGE, PROT_READ));
	for (int i = 0; i < 1000; i++)
		base[(2 * i + 1) * PAGE] = i;
	for (int i = 0; i < 1000; i++)
		CHECK_EQ(base[(2 * i + 1) * PAGE], (char)i);
	CHECK_OK(munmap(base, 2000 * PAGE));
}
