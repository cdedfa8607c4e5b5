/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls made over and over from the same instruction, in all the shapes that one finds: a
 * kernel that rewrites hot call sites must not be found out. Natively there is nothing to find.
 */
#include "test/conform/conform.h"

#include <asm/prctl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/uio.h>
#include <ucontext.h>

#define HOT 200 /* calls after which a site has surely been noticed */

long site_getpid(void), site_getppid(void), site_gettid(void), site_getuid(void);
long site_cmp(long nr, long a, long b, long c, long d, long e, long f);
long site_ret(long nr, long a, long b, long c);
long site_xor_read(long fd, void *buf, long n);
long site_mov64_write(long fd, const void *buf, long n);
long site_write(long fd, const void *buf, long n);
long site_read(long fd, void *buf, long n);
long enter_at_syscall(long nr), enter_at_cmp(long rax);
long site_red_zone(long fd, void *buf, long n);
long site_regs(uint64_t in[16], uint64_t out[16]);
long site_sigaction(long sig, const void *act, void *old, long size);
long site_sigaction_flags(long sig, const void *act, void *old, long size, uint64_t flags,
			  uint64_t *after);
extern char site_getpid_code[], site_cmp_syscall[], site_cmp_cmp[];

__asm__(".pushsection .text.sites, \"ax\", @progbits\n"
	".balign 64\n"
	"site_getpid_code:\n"
	"site_getpid: mov $39, %eax\n"
	"1: syscall\n"
	"	ret\n"
	/* A jump to the SYSCALL alone, with another number. */
	"enter_at_syscall: mov %rdi, %rax\n"
	"	jmp 1b\n"
	".balign 16\n"
	"site_getppid: mov $110, %eax\n	syscall\n	ret\n"
	".balign 16\n"
	"site_gettid: mov $186, %eax\n	syscall\n	ret\n"
	".balign 16\n"
	"site_getuid: mov $102, %eax\n	syscall\n	ret\n"
	".balign 16\n"
	"site_write: mov $1, %eax\n	syscall\n	ret\n"
	".balign 16\n"
	"site_mov64_write: mov $1, %rax\n	syscall\n	ret\n"
	".balign 16\n"
	"site_read: mov $0, %eax\n	syscall\n	ret\n"
	".balign 16\n"
	"site_xor_read: xor %eax, %eax\n	syscall\n	cmp $-4096, %rax\n"
	"	ja 1f\n	ret\n1: mov $-1, %rax\n	ret\n"
	".balign 16\n"
	"site_cmp: mov %rdi, %rax\n	mov %rsi, %rdi\n	mov %rdx, %rsi\n"
	"	mov %rcx, %rdx\n	mov %r8, %r10\n	mov %r9, %r8\n	mov 8(%rsp), %r9\n"
	"site_cmp_syscall: syscall\n"
	"site_cmp_cmp: cmp $-4095, %rax\n"
	"	jae 1f\n	ret\n1: mov $-1, %rax\n	ret\n"
	/* A jump to what follows SYSCALL. */
	"enter_at_cmp: mov %rdi, %rax\n	jmp site_cmp_cmp\n"
	".balign 16\n"
	"site_ret: mov %rdi, %rax\n	mov %rsi, %rdi\n	mov %rdx, %rsi\n	mov %rcx, "
	"%rdx\n"
	"	syscall\n	ret\n"
	".balign 16\n"
	/* Eight words below the stack pointer must survive: returns how many did. */
	"site_red_zone: movq $11, -8(%rsp)\n	movq $12, -16(%rsp)\n	movq $13, -64(%rsp)\n"
	"	movq $14, -128(%rsp)\n	mov $0, %eax\n	syscall\n"
	"	cmpq $11, -8(%rsp)\n	jne 1f\n	cmpq $12, -16(%rsp)\n	jne 1f\n"
	"	cmpq $13, -64(%rsp)\n	jne 1f\n	cmpq $14, -128(%rsp)\n	jne 1f\n"
	"	ret\n1: mov $-1, %rax\n	ret\n"
	".balign 16\n"
	/* lseek(-1, …) with all registers and the flags set; out: what they are afterwards. */
	"site_regs: push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	"
	"push %r15\n"
	"	push %rsi\n	pushq (%rdi)\n"
	"	mov 8(%rdi), %rbx\n	mov 16(%rdi), %rbp\n	mov 24(%rdi), %r8\n	mov "
	"32(%rdi), %r9\n"
	"	mov 40(%rdi), %r10\n	mov 48(%rdi), %r12\n	mov 56(%rdi), %r13\n"
	"	mov 64(%rdi), %r14\n	mov 72(%rdi), %r15\n	mov 80(%rdi), %rdx\n"
	"	mov 88(%rdi), %rsi\n	mov $-1, %rdi\n	popfq\n"
	"	mov $8, %eax\n	syscall\n"
	"	pushfq\n	xchg %rax, 8(%rsp)\n"
	"	mov %rbx, 8(%rax)\n	mov %rbp, 16(%rax)\n	mov %r8, 24(%rax)\n	mov %r9, "
	"32(%rax)\n"
	"	mov %r10, 40(%rax)\n	mov %r12, 48(%rax)\n	mov %r13, 56(%rax)\n"
	"	mov %r14, 64(%rax)\n	mov %r15, 72(%rax)\n	mov %rdx, 80(%rax)\n"
	"	mov %rsi, 88(%rax)\n	mov %rdi, 96(%rax)\n"
	"	pop %rcx\n	mov %rcx, (%rax)\n	pop %rax\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	"
	"pop %rbx\n	ret\n"
	".balign 16\n"
	"site_sigaction: mov %rcx, %r10\n	mov $13, %eax\n	syscall\n	ret\n"
	".balign 16\n"
	/* The same, with flags; and what they are afterwards. */
	"site_sigaction_flags: mov %rcx, %r10\n	push %r8\n	popfq\n"
	"	mov $13, %eax\n	syscall\n	pushfq\n	popq (%r9)\n	ret\n"
	".balign 64\n"
	".popsection\n");

static void heat(void)
{
	char byte = 'x';
	int p[2];

	CHECK_OK(pipe(p));
	for (int i = 0; i < HOT; i++) {
		CHECK_EQ(site_getpid(), getpid());
		CHECK_EQ(site_getppid(), getppid());
		CHECK_EQ(site_cmp(SYS_getpid, 0, 0, 0, 0, 0, 0), getpid());
		CHECK_EQ(site_ret(SYS_getppid, 0, 0, 0), getppid());
		CHECK_EQ(site_write(p[1], &byte, 1), 1);
		CHECK_EQ(site_read(p[0], &byte, 1), 1);
		CHECK_EQ(site_mov64_write(p[1], &byte, 1), 1);
		CHECK_EQ(site_xor_read(p[0], &byte, 1), 1);
	}
	close(p[0]);
	close(p[1]);
}

TEST(all_shapes_answer)
{
	heat();
	CHECK_EQ(site_gettid(), syscall(SYS_gettid));
	CHECK_EQ(site_cmp(SYS_close, -1, 0, 0, 0, 0, 0), -1);
	CHECK_EQ(site_ret(SYS_close, -1, 0, 0), -EBADF);
}

TEST(six_arguments)
{
	char *p;

	for (int i = 0; i < HOT; i++) {
		p = (char *)site_cmp(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(p != MAP_FAILED);
		*p = 1;
		CHECK_EQ(site_cmp(SYS_munmap, (long)p, PAGE, 0, 0, 0, 0), 0);
	}
}

TEST(jump_to_the_syscall)
{
	heat();
	for (int i = 0; i < HOT; i++) {
		CHECK_EQ(enter_at_syscall(SYS_getppid), getppid());
		CHECK_EQ(site_getpid(), getpid());
	}
}

TEST(jump_behind_the_syscall)
{
	heat();
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(enter_at_cmp(4711), 4711);
		CHECK_EQ(enter_at_cmp(-5), -1);
	}
	CHECK_EQ(site_cmp(SYS_getpid, 0, 0, 0, 0, 0, 0), getpid());
}

TEST(registers_and_flags_survive)
{
	/* CF PF AF ZF SF OF in turns, and DF off. */
	static const uint64_t flags[] = {0x202, 0xad7, 0x203, 0xa02, 0x246, 0x296};

	for (int i = 0; i < HOT; i++) {
		uint64_t in[16], out[16] = {0};

		for (int j = 0; j < 16; j++)
			in[j] = 0x0123456789abcdefULL * (unsigned int)(i + j + 1);
		in[0] = flags[i % (int)ARRAY_SIZE(flags)];
		CHECK_EQ(site_regs(in, out), -EBADF);
		CHECK_EQ(out[0] & 0xcd5, in[0] & 0xcd5);
		for (int j = 1; j < 12; j++)
			CHECK(out[j] == in[j]);
		CHECK(out[12] == (uint64_t)-1);
	}
}

TEST(red_zone_survives)
{
	char byte;
	int fd = open("/dev/zero", O_RDONLY);

	CHECK_OK(fd);
	for (int i = 0; i < HOT; i++)
		CHECK_EQ(site_red_zone(fd, &byte, 1), 1);
}

TEST(code_reads_as_written)
{
	unsigned char code[64], seen[64];
	int p[2], fd;

	memcpy(code, site_getpid_code, sizeof(code));
	heat();
	CHECK_OK(pipe(p));
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(write(p[1], site_getpid_code, sizeof(code)), sizeof(code));
		CHECK_EQ(read(p[0], seen, sizeof(seen)), sizeof(seen));
		CHECK(!memcmp(code, seen, sizeof(code)));
	}
	fd = open("/proc/self/mem", O_RDONLY);
	CHECK_OK(fd);
	CHECK_EQ(pread(fd, seen, sizeof(seen), (off_t)(uintptr_t)site_getpid_code), sizeof(seen));
	CHECK(!memcmp(code, seen, sizeof(code)));
	/* In pieces that begin and end within the instruction. */
	for (size_t i = 0; i < 8; i++) {
		CHECK_EQ(pread(fd, seen, i, (off_t)(uintptr_t)site_getpid_code + 2), i);
		CHECK(!memcmp(code + 2, seen, i));
	}
}

TEST(code_made_writable_is_as_written)
{
	unsigned char code[64];
	char *page = (char *)((uintptr_t)site_getpid_code & ~(PAGE - 1));

	memcpy(code, site_getpid_code, sizeof(code));
	heat();
	CHECK_OK(mprotect(page, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
	CHECK(!memcmp(code, site_getpid_code, sizeof(code)));
	/* The program changes its own code: getpid becomes getppid. */
	site_getpid_code[1] = 110;
	CHECK_EQ(site_getpid(), getppid());
	CHECK_OK(mprotect(page, 2 * PAGE, PROT_READ | PROT_EXEC));
	for (int i = 0; i < HOT; i++)
		CHECK_EQ(site_getpid(), getppid());
	CHECK_OK(mprotect(page, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
	site_getpid_code[1] = 39;
	CHECK_OK(mprotect(page, 2 * PAGE, PROT_READ | PROT_EXEC));
	for (int i = 0; i < HOT; i++)
		CHECK_EQ(site_getpid(), getpid());
}

TEST(code_copied_elsewhere_runs)
{
	typedef long fn(void);
	unsigned char copy[16];
	char *page;
	int p[2];

	heat();
	CHECK_OK(pipe(p));
	CHECK_EQ(write(p[1], site_getpid_code, sizeof(copy)), sizeof(copy));
	CHECK_EQ(read(p[0], copy, sizeof(copy)), sizeof(copy));
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	memcpy(page, copy, sizeof(copy));
	CHECK_OK(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
	for (int i = 0; i < HOT; i++)
		CHECK_EQ(((fn *)(void *)page)(), getpid());
	/* Another function at the same address. */
	CHECK_OK(munmap(page, PAGE));
	CHECK_EQ((intptr_t)mmap(page, PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
		 (intptr_t)page);
	memcpy(page, copy, sizeof(copy));
	page[1] = 110;
	CHECK_OK(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
	for (int i = 0; i < HOT; i++)
		CHECK_EQ(((fn *)(void *)page)(), getppid());
}

static volatile sig_atomic_t ticks;

static void on_tick(int sig UNUSED)
{
	char byte = 0;

	/* The handler makes calls from the very sites that it may have interrupted. */
	if (site_getpid() > 0 && site_write(-1, &byte, 1) == -EBADF &&
	    site_cmp(SYS_close, -1, 0, 0, 0, 0, 0) == -1)
		ticks++;
}

static void start_ticks(long us)
{
	struct itimerval it = {{0, us}, {0, us}};

	on_signal(SIGALRM, on_tick);
	CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
}

TEST(signals_between_and_within_calls)
{
	long pid = getpid(), ppid = getppid(), made = 0;
	int p[2];

	CHECK_OK(pipe(p));
	start_ticks(500);
	while (ticks < 200) {
		char in[3] = {(char)made, (char)(made >> 8), 7}, out[3] = {0};

		CHECK_EQ(site_getpid(), pid);
		CHECK_EQ(site_getppid(), ppid);
		CHECK_EQ(site_cmp(SYS_getpid, 0, 0, 0, 0, 0, 0), pid);
		CHECK_EQ(site_write(p[1], in, 3), 3);
		CHECK_EQ(site_xor_read(p[0], out, 3), 3);
		CHECK(!memcmp(in, out, 3));
		made++;
	}
	CHECK(made > 0);
}

static void *slow_reader(void *arg)
{
	char buf[4096];
	long got, total = 0;

	while (total < 1 << 20) {
		usleep(300);
		got = read((int)(intptr_t)arg, buf, sizeof(buf));
		if (got <= 0)
			break;
		total += got;
	}
	return (void *)total;
}

TEST(long_writes_are_not_cut_short)
{
	static char buf[256 << 10];
	char byte = 0;
	pthread_t th;
	void *total;
	int p[2];

	heat();
	CHECK_OK(pipe(p));
	CHECK_EQ(pthread_create(&th, NULL, slow_reader, (void *)(intptr_t)p[0]), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(site_write(p[1], buf, sizeof(buf)), sizeof(buf));
	CHECK_EQ(pthread_join(th, &total), 0);
	CHECK_EQ((long)total, 1 << 20);
	(void)byte;
}

TEST(blocked_call_is_interrupted)
{
	struct itimerval it = {{0, 0}, {0, 20000}};
	struct sigaction sa = {.sa_handler = on_tick};
	char byte;
	int p[2];

	heat();
	CHECK_OK(pipe(p));
	CHECK_OK(sigaction(SIGALRM, &sa, NULL));
	CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
	CHECK_EQ(site_read(p[0], &byte, 1), -EINTR);
	CHECK_EQ(ticks, 1);
	CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
	CHECK_EQ(site_cmp(SYS_read, p[0], (long)&byte, 1, 0, 0, 0), -1);
	CHECK_EQ(ticks, 2);
}

static int late_fd;

static void on_write_late(int sig UNUSED)
{
	ticks++;
	if (write(late_fd, "y", 1) != 1)
		abort();
}

TEST(blocked_call_is_restarted)
{
	struct itimerval it = {{0, 0}, {0, 20000}};
	struct sigaction sa = {.sa_handler = on_write_late, .sa_flags = SA_RESTART};
	char byte = 0;
	int p[2];

	heat();
	CHECK_OK(pipe(p));
	late_fd = p[1];
	CHECK_OK(sigaction(SIGALRM, &sa, NULL));
	for (int i = 0; i < 3; i++) {
		CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
		CHECK_EQ(site_read(p[0], &byte, 1), 1);
		CHECK_EQ(byte, 'y');
		CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
		CHECK_EQ(site_cmp(SYS_read, p[0], (long)&byte, 1, 0, 0, 0), 1);
		CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
		CHECK_EQ(site_xor_read(p[0], &byte, 1), 1);
	}
	CHECK_EQ(ticks, 9);
}

TEST(forked_child_has_its_own_ids)
{
	long parent;
	int st;

	heat();
	parent = site_getpid();
	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();

		CHECK_OK(pid);
		if (!pid) {
			for (int j = 0; j < HOT; j++) {
				if (site_getpid() == parent || site_getppid() != parent ||
				    site_gettid() != site_getpid() || site_getpid() != getpid())
					_exit(1);
			}
			heat();
			_exit(0);
		}
		CHECK_EQ(waitpid(pid, &st, 0), pid);
		CHECK_EQ(st, 0);
		CHECK_EQ(site_getpid(), parent);
	}
}

TEST(getppid_follows_the_parent)
{
	int p[2], go[2];
	char byte = 0;
	pid_t pid;

	heat();
	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	CHECK_OK(pipe(p));
	CHECK_OK(pipe(go));
	pid = fork();
	CHECK_OK(pid);
	if (!pid) {
		pid_t middle = getpid();

		if (!fork()) {
			for (int i = 0; i < HOT; i++) {
				if (site_getppid() != middle)
					byte = 1;
			}
			if (write(go[1], &byte, 1) != 1)
				_exit(1);
			for (int i = 0; site_getppid() == middle && i < 5000; i++)
				usleep(1000);
			byte = site_getppid() == middle ? 2 : 0;
			if (write(p[1], &byte, 1) != 1)
				_exit(1);
			_exit(0);
		}
		if (read(go[0], &byte, 1) != 1)
			_exit(1);
		_exit(byte);
	}
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_EQ(read(p[0], &byte, 1), 1);
	CHECK_EQ(byte, 0);
}

static void *own_ids(void *arg UNUSED)
{
	long tid = syscall(SYS_gettid);
	long wrong = 0;

	for (int i = 0; i < 20 * HOT; i++) {
		wrong += site_gettid() != tid;
		wrong += site_getpid() != getpid();
		wrong += site_cmp(SYS_gettid, 0, 0, 0, 0, 0, 0) != tid;
	}
	return (void *)wrong;
}

TEST(threads_have_their_own_ids)
{
	pthread_t th[8];
	void *wrong;

	heat();
	for (int i = 0; i < 8; i++)
		CHECK_EQ(pthread_create(&th[i], NULL, own_ids, NULL), 0);
	for (int i = 0; i < 8; i++) {
		CHECK_EQ(pthread_join(th[i], &wrong), 0);
		CHECK_EQ((long)wrong, 0);
	}
}

/* Threads that write and read records through one pipe from the same two sites. */
static int shared_pipe[2];

static void *record_writer(void *arg)
{
	long record[2] = {(long)arg, 0};

	for (int i = 0; i < 2000; i++) {
		record[1] = i;
		if (site_write(shared_pipe[1], record, sizeof(record)) != sizeof(record))
			return (void *)1;
	}
	return NULL;
}

TEST(threads_share_sites)
{
	long next[4] = {0}, record[2];
	pthread_t th[4];
	void *wrong;

	CHECK_OK(pipe(shared_pipe));
	for (long i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&th[i], NULL, record_writer, (void *)i), 0);
	for (int i = 0; i < 4 * 2000; i++) {
		CHECK_EQ(site_xor_read(shared_pipe[0], record, sizeof(record)), sizeof(record));
		CHECK(record[0] >= 0 && record[0] < 4);
		CHECK_EQ(record[1], next[record[0]]++);
	}
	for (int i = 0; i < 4; i++) {
		CHECK_EQ(pthread_join(th[i], &wrong), 0);
		CHECK_EQ((long)wrong, 0);
	}
}

TEST(getuid_follows_setuid)
{
	NEED_ROOT();
	for (int i = 0; i < HOT; i++)
		CHECK_EQ(site_getuid(), 0);
	CHECK_OK(setresuid(4711, 4711, 0));
	for (int i = 0; i < HOT; i++)
		CHECK_EQ(site_getuid(), 4711);
}

TEST(gs_base_taken_by_the_program)
{
	static long data[4] = {1, 2, 3, 4};
	long value;

	heat();
	CHECK_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, data));
	for (int i = 0; i < HOT; i++) {
		CHECK_EQ(site_getpid(), getpid());
		CHECK_EQ(site_cmp(SYS_getppid, 0, 0, 0, 0, 0, 0), getppid());
		__asm__ volatile("mov %%gs:16, %0" : "=r"(value));
		CHECK_EQ(value, 3);
	}
	CHECK(data[0] == 1 && data[1] == 2 && data[3] == 4);
}

TEST(gs_selector_cleared)
{
	heat();
	__asm__ volatile("mov %w0, %%gs" ::"r"(0));
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(site_getpid(), getpid());
		CHECK_EQ(site_ret(SYS_getppid, 0, 0, 0), getppid());
	}
}

static void on_segv(int sig UNUSED, siginfo_t *info UNUSED, void *uc)
{
	ucontext_t *u = uc;

	ticks++;
	u->uc_mcontext.gregs[REG_RIP] += 2; /* over the faulting mov */
}

TEST(faults_elsewhere_stay_faults)
{
	heat();
	on_siginfo(SIGSEGV, on_segv, 0);
	for (int i = 0; i < 20; i++) {
		__asm__ volatile("mov (%0), %%al" ::"d"(8L) : "al");
		CHECK_EQ(ticks, i + 1);
		CHECK_EQ(site_getpid(), getpid());
	}
}

HELPER(hot)
{
	for (int i = 0; i < HOT; i++) {
		if (site_getpid() != syscall(SYS_getpid))
			return 1;
	}
	return 0;
}

TEST(exec_begins_afresh)
{
	heat();
	for (int i = 0; i < 3; i++) {
		pid_t pid = vfork();
		int st;

		CHECK_OK(pid);
		if (!pid) {
			execl(conform_self, conform_self, "--helper", "hot", NULL);
			_exit(127);
		}
		CHECK_EQ(waitpid(pid, &st, 0), pid);
		CHECK_EQ(st, 0);
	}
	heat();
}

TEST(kernel_mappings_hold)
{
	char line[512];
	uintptr_t from[32], to[32];
	size_t n = 0;
	FILE *f;

	heat();
	f = fopen("/proc/self/maps", "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		/* Whatever a kernel has put there for its own use, by its name in brackets. */
		if (strstr(line, "[kvmsbox]") && n < 32) {
			CHECK_EQ(sscanf(line, "%lx-%lx", &from[n], &to[n]), 2);
			n++;
		}
	}
	fclose(f);
	for (size_t i = 0; i < n; i++)
		CHECK_ERRNO(munmap((void *)from[i], to[i] - from[i]), EPERM);
	for (size_t i = 0; i < n; i++)
		CHECK_ERRNO(mprotect((void *)from[i], PAGE, PROT_NONE), EPERM);
	heat();
}

/* ---- rt_sigaction: a kernel may know that an action is the default ---- */

struct action {
	uint64_t handler, flags, restorer, mask;
};

static const struct action no_action;
static volatile int noted;

static void note(int sig)
{
	noted = sig;
}

__asm__(".pushsection .text\n"
	"site_restorer: mov $15, %eax\n	syscall\n"
	".popsection\n");
extern char site_restorer[];

static struct action action_of(void (*handler)(int), uint64_t flags)
{
	return (struct action){.handler = (uintptr_t)handler,
			       .flags = flags | 0x04000000,
			       .restorer = (uintptr_t)site_restorer};
}

static struct action query(int sig)
{
	struct action old;

	memset(&old, 0xff, sizeof(old));
	CHECK_EQ(site_sigaction(sig, NULL, &old, 8), 0);
	return old;
}

static bool is_default(int sig)
{
	struct action old = query(sig);

	return !memcmp(&old, &no_action, sizeof(old));
}

static void heat_sigaction(void)
{
	for (int i = 0; i < HOT; i++)
		CHECK(is_default(SIGUSR2));
}

TEST(default_actions_are_told)
{
	struct {
		uint64_t before;
		struct action old;
		uint64_t behind;
	} box;

	heat_sigaction();
	for (int sig = 1; sig <= 64; sig++) {
		memset(&box, 0xff, sizeof(box));
		CHECK_EQ(site_sigaction(sig, NULL, &box.old, 8), 0);
		CHECK_EQ(box.before, ~0UL);
		CHECK_EQ(box.behind, ~0UL);
		CHECK_EQ(site_sigaction(sig, NULL, NULL, 8), 0);
	}
	/* Only the low half of the register counts. */
	CHECK_EQ(site_sigaction(0x700000000 | SIGUSR2, NULL, &box.old, 8), 0);
	CHECK(!memcmp(&box.old, &no_action, sizeof(no_action)));
}

TEST(sigaction_errors_are_told)
{
	static const long bad[] = {0, 65, 66, -1, 128, 256, 0x100000000, 0xffffffffL};
	char *none =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct action old;

	CHECK(none != MAP_FAILED);
	CHECK_OK(munmap(none + PAGE, PAGE));
	heat_sigaction();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_EQ(site_sigaction(bad[i], NULL, &old, 8), -EINVAL);
	CHECK_EQ(site_sigaction(SIGUSR2, NULL, &old, 16), -EINVAL);
	CHECK_EQ(site_sigaction(SIGUSR2, NULL, &old, 0), -EINVAL);
	CHECK_EQ(site_sigaction(SIGUSR2, NULL, (void *)8, 8), -EFAULT);
	CHECK_EQ(site_sigaction(SIGUSR2, NULL, none + PAGE, 8), -EFAULT);
	CHECK_EQ(site_sigaction(SIGUSR2, NULL, none + PAGE - 16, 8), -EFAULT);
	CHECK_EQ(site_sigaction(SIGUSR2, NULL, (void *)0x8000000000000000, 8), -EFAULT);
	CHECK_EQ(site_sigaction(SIGUSR2, (void *)8, &old, 8), -EFAULT);
	/* Fresh memory, and read-only memory. */
	memset(&old, 0, sizeof(old));
	CHECK_OK(madvise(none, PAGE, MADV_DONTNEED));
	CHECK_EQ(site_sigaction(SIGUSR2, NULL, none + 64, 8), 0);
	CHECK_OK(mprotect(none, PAGE, PROT_READ));
	CHECK_EQ(site_sigaction(SIGUSR2, NULL, none + 64, 8), -EFAULT);
	CHECK(is_default(SIGUSR2));
}

TEST(sigaction_keeps_the_flags)
{
	/* Of CF PF AF ZF SF OF, all combinations; DF would be the caller's doom. */
	static const uint64_t bits[] = {1, 4, 16, 64, 128, 2048};
	struct action old, act = action_of(note, 0);
	uint64_t after, flags;

	heat_sigaction();
	for (int n = 0; n < HOT / 2; n++) {
		flags = 0x202;
		for (int i = 0; i < 6; i++)
			flags |= n >> i & 1 ? bits[i] : 0;
		/* Answered; refused; for the kernel. */
		CHECK_EQ(site_sigaction_flags(SIGUSR2, NULL, &old, 8, flags, &after), 0);
		CHECK_EQ(after, flags);
		CHECK_EQ(site_sigaction_flags(SIGUSR2, NULL, NULL, 8, flags, &after), 0);
		CHECK_EQ(after, flags);
		CHECK_EQ(site_sigaction_flags(SIGUSR2, NULL, (void *)8, 8, flags, &after), -EFAULT);
		CHECK_EQ(after, flags);
		CHECK_EQ(site_sigaction_flags(99, NULL, &old, 8, flags, &after), -EINVAL);
		CHECK_EQ(after, flags);
		CHECK_EQ(site_sigaction_flags(SIGUSR1, &act, NULL, 8, flags, &after), 0);
		CHECK_EQ(after, flags);
	}
}

static void *set_usr2(void *arg)
{
	CHECK_EQ(site_sigaction(SIGUSR2, arg, NULL, 8), 0);
	return NULL;
}

TEST(actions_set_are_seen)
{
	struct action act = action_of(note, 0x40000000 /* SA_NODEFER */), old;
	pthread_t t;

	heat_sigaction();
	CHECK_EQ(site_sigaction(SIGUSR2, &act, &old, 8), 0);
	CHECK(!memcmp(&old, &no_action, sizeof(old)));
	old = query(SIGUSR2);
	CHECK(!memcmp(&old, &act, sizeof(old)));
	CHECK(is_default(SIGUSR1));
	CHECK_EQ(site_sigaction(SIGUSR2, &no_action, NULL, 8), 0);
	for (int i = 0; i < HOT; i++)
		CHECK(is_default(SIGUSR2));
	/* By another thread, which may or may not have asked itself. */
	for (int i = 0; i < 20; i++) {
		CHECK(is_default(SIGUSR2));
		CHECK(!pthread_create(&t, NULL, set_usr2, &act));
		CHECK(!pthread_join(t, NULL));
		old = query(SIGUSR2);
		CHECK(!memcmp(&old, &act, sizeof(old)));
		CHECK_EQ(site_sigaction(SIGUSR2, &no_action, NULL, 8), 0);
	}
	/* Ignored, and once only: what is left of that isn't nothing. */
	act = action_of(SIG_IGN, 0);
	CHECK_EQ(site_sigaction(SIGUSR2, &act, NULL, 8), 0);
	CHECK(!is_default(SIGUSR2));
	act = action_of(note, 0x80000000 /* SA_RESETHAND */);
	CHECK_EQ(site_sigaction(SIGUSR2, &act, NULL, 8), 0);
	CHECK_OK(raise(SIGUSR2));
	CHECK_EQ(noted, SIGUSR2);
	old = query(SIGUSR2);
	CHECK_EQ(old.handler, 0);
	CHECK_EQ(old.restorer, act.restorer);
}

static int set_usr2_in_child(void *arg)
{
	return (int)site_sigaction(SIGUSR2, arg, NULL, 8);
}

TEST(actions_shared_with_a_process_are_seen)
{
	static char stack[65536] __attribute__((aligned(16)));
	struct action act = action_of(note, 0), old;
	int st;

	heat_sigaction();
	for (int i = 0; i < 5; i++) {
		/* A copy isn't shared. */
		pid_t pid = fork();

		CHECK_OK(pid);
		if (!pid)
			_exit((int)site_sigaction(SIGUSR2, &act, NULL, 8));
		CHECK_EQ(waitpid(pid, &st, 0), pid);
		CHECK_EQ(st, 0);
		CHECK(is_default(SIGUSR2));
		pid = clone(set_usr2_in_child, stack + sizeof(stack),
			    CLONE_VM | CLONE_SIGHAND | SIGCHLD, &act);
		CHECK_OK(pid);
		CHECK_EQ(waitpid(pid, &st, 0), pid);
		CHECK_EQ(st, 0);
		old = query(SIGUSR2);
		CHECK(!memcmp(&old, &act, sizeof(old)));
		CHECK_EQ(site_sigaction(SIGUSR2, &no_action, NULL, 8), 0);
		heat_sigaction();
	}
}

TEST(sigaction_is_interrupted_anywhere)
{
	struct itimerval often = {{0, 70}, {0, 70}}, never = {{0, 0}, {0, 0}};
	struct action old;
	uint64_t after;
	int64_t end;

	CHECK(signal(SIGALRM, note) != SIG_ERR);
	heat_sigaction();
	CHECK_OK(setitimer(ITIMER_REAL, &often, NULL));
	end = now_ms() + 500;
	for (uint64_t n = 0; now_ms() < end; n++) {
		uint64_t flags = 0x202 | (n & 1) | (n & 64) | (n & 128) | (n & 2048);

		for (int i = 0; i < 50; i++) {
			memset(&old, 0xff, sizeof(old));
			CHECK_EQ(site_sigaction_flags(SIGUSR2, NULL, &old, 8, flags, &after), 0);
			CHECK_EQ(after, flags);
			CHECK(!memcmp(&old, &no_action, sizeof(old)));
		}
	}
	CHECK_OK(setitimer(ITIMER_REAL, &never, NULL));
	CHECK_EQ(noted, SIGALRM);
}
