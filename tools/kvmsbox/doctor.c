/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox doctor: what this machine offers. Each platform is probed, and run with a small guest
 * that makes a call, faults and returns (in a child process: a broken one can't hurt the report).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "platform/platform.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/physmem.h"
#include "tools/kvmsbox/kvmsbox.h"

#define CODE_VA 0x400000UL
#define DATA_VA 0x500000UL

/*
 * mov $39,%eax; syscall; mov %rax,DATA_VA; mov $60,%eax; syscall. The store faults, as nothing is
 * mapped there until the fault has been seen.
 */
static const uint8_t guest_code[] = {0xb8, 39,	 0,    0,    0,	   0x0f, 0x05, 0x48,
				     0x89, 0x04, 0x25, 0x00, 0x00, 0x50, 0x00, 0xb8,
				     60,   0,	 0,    0,    0x0f, 0x05};

struct selftest {
	struct platform *platform;
	struct pagetable pt;
	struct address_space *as;
	struct context *ctx;
	struct arch_regs regs;
	gpa_t data;
};

static int map_page(struct selftest *st, uaddr_t va, unsigned int access, gpa_t *gpa)
{
	uint64_t *pte = pt_ensure(&st->pt, va);

	*gpa = frame_alloc();
	if (!pte || *gpa == GPA_NONE)
		return -ENOMEM;
	pte_write(pte, pte_make(*gpa, access));
	return 0;
}

/* Runs the guest until its second call. Returns NULL, or what went wrong. */
static const char *run_guest(struct selftest *st)
{
	const struct platform_type *type = st->platform->type;
	struct trap trap;
	bool faulted = false;
	gpa_t code;

	if (map_page(st, CODE_VA, ACCESS_READ | ACCESS_EXEC, &code))
		return "out of memory";
	memcpy(phys_ptr(code), guest_code, sizeof(guest_code));
	arch_regs_init(&st->regs, CODE_VA, DATA_VA);
	for (int i = 0; i < 16; i++) {
		memset(&trap, 0, sizeof(trap));
		if (type->ctx_run(st->ctx, st->as, &st->regs, &trap))
			return "the guest could not be run";
		switch (trap.kind) {
		case TRAP_SYSCALL:
			if (arch_syscall_nr(&st->regs) == 60)
				return faulted && *(uint64_t *)phys_ptr(st->data) == 4711
					       ? NULL
					       : "the guest's store was lost";
			if (arch_syscall_nr(&st->regs) != 39)
				return "the guest made a call it should not have made";
			arch_set_return(&st->regs, 4711);
			break;
		case TRAP_FAULT:
			/* Stub platforms can't always tell where the first fetch came from. */
			if (trap.addr != DATA_VA)
				return "the guest faulted at a wrong address";
			faulted = true;
			if (map_page(st, DATA_VA, ACCESS_READ | ACCESS_WRITE, &st->data))
				return "out of memory";
			break;
		case TRAP_EXCEPTION:
			return "the guest raised an exception";
		case TRAP_KICK:
		case TRAP_CALL:
			break;
		}
	}
	return "the guest did not end";
}

/* The price of one call and back, in nanoseconds. */
static double call_price(struct selftest *st)
{
	/* L: mov $39,%eax; syscall; jmp L */
	static const uint8_t loop[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7};
	const struct platform_type *type = st->platform->type;
	struct timespec a, b;
	struct trap trap;
	gpa_t code;

	if (map_page(st, CODE_VA + PAGE_SIZE, ACCESS_READ | ACCESS_EXEC, &code))
		return 0;
	memcpy(phys_ptr(code), loop, sizeof(loop));
	st->regs.rip = CODE_VA + PAGE_SIZE;
	st->ctx->takes_calls = type->ctx_answer;
	for (int i = 0; i < 2200; i++) {
		if (i == 200)
			clock_gettime(CLOCK_MONOTONIC, &a);
		if (type->ctx_run(st->ctx, st->as, &st->regs, &trap))
			return 0;
		if (trap.kind == TRAP_CALL)
			type->ctx_answer(st->ctx, 4711);
		else if (trap.kind != TRAP_SYSCALL)
			return 0;
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	return (double)((b.tv_sec - a.tv_sec) * 1000000000 + (b.tv_nsec - a.tv_nsec)) / 2000;
}

/* In a child: exit status 0 and a line on stdout if all is well. */
static int selftest(const struct platform_type *type)
{
	struct platform_config config = {.selftest = true};
	struct selftest st = {0};
	const char *problem;
	int err;

	if (arena_init() || physmem_init(0))
		return complain("doctor: can't make guest memory");
	err = type->create(&config, &st.platform);
	if (err) {
		printf("  self-test  failed: can't start: %s\n", strerror(-err));
		return 1;
	}
	if (pt_init(&st.pt, &st.platform->pt_alloc))
		return complain("doctor: out of memory");
	st.as = type->as_create(st.platform, &st.pt);
	st.ctx = type->ctx_create(st.platform);
	if (IS_ERR(st.as) || IS_ERR(st.ctx)) {
		printf("  self-test  failed: no address space\n");
		return 1;
	}
	problem = run_guest(&st);
	if (problem) {
		printf("  self-test  failed: %s\n", problem);
		return 1;
	}
	printf("  self-test  passed: a call, a fault, a return\n");
	printf("  call       %.1f us there and back\n", call_price(&st) / 1000);
	return 0;
}

static bool run_selftest(const struct platform_type *type)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(20);
		status = selftest(type);
		fflush(stdout);
		_exit(status);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (WIFSIGNALED(status))
		printf("  self-test  failed: ended by signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

static void kvm_details(void)
{
	static const struct {
		int cap;
		const char *name;
	} caps[] = {
		{KVM_CAP_SYNC_REGS, "sync_regs"},
		{KVM_CAP_READONLY_MEM, "readonly_mem"},
		{KVM_CAP_IMMEDIATE_EXIT, "immediate_exit"},
		{KVM_CAP_XSAVE2, "xsave2"},
		{KVM_CAP_XCRS, "xcrs"},
		{KVM_CAP_NR_MEMSLOTS, "memslots"},
		{KVM_CAP_MAX_VCPUS, "max_vcpus"},
	};
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0)
		return;
	printf("  API        version %d\n  offers    ", ioctl(kvm, KVM_GET_API_VERSION, 0));
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++)
		printf(" %s=%d", caps[i].name, ioctl(kvm, KVM_CHECK_EXTENSION, caps[i].cap));
	printf("\n");
	close(kvm);
}

static void usage(void)
{
	printf("usage: kvmsbox doctor [--brief]\n\n"
	       "Tells what this machine offers: platforms with a self-test each, seccomp, and "
	       "what\n"
	       "--platform=auto would choose. Exit status 0 if some platform works.\n\n"
	       "  --brief  only what auto would choose\n");
}

int cmd_doctor(int argc, char **argv)
{
	static const struct option options[] = {
		{"brief", no_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'}, {0}};
	const struct platform_type *chosen;
	bool brief = false;
	struct utsname u;
	char why[256];
	int opt;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		if (opt == 'h') {
			usage();
			return 0;
		}
		if (opt != 'b')
			return complain("doctor: unknown option %s: see kvmsbox doctor --help",
					argv[optind - 1]);
		brief = true;
	}
	if (optind < argc)
		return complain("doctor: unexpected argument \"%s\"", argv[optind]);
	if (!brief) {
		uname(&u);
		printf("kvmsbox " KVMSBOX_VERSION " on Linux %s, %ld processors\n\n", u.release,
		       sysconf(_SC_NPROCESSORS_ONLN));
		for (size_t i = 0; platform_types[i]; i++) {
			const struct platform_type *type = platform_types[i];
			int err = type->probe(why, sizeof(why));

			printf("%s: %s\n  usable     %s%s\n", type->name, type->summary,
			       err ? "no: " : "yes", err ? why : "");
			if (type->kind && !err)
				printf("  kind       %s\n", type->kind());
			if (!strcmp(type->name, "kvm"))
				kvm_details();
			if (!err)
				run_selftest(type);
			printf("\n");
		}
		printf("seccomp: %s\n\n", prctl(PR_GET_SECCOMP) >= 0 ? "available" : "missing");
	}
	chosen = platform_find("auto", why, sizeof(why));
	if (!chosen)
		return complain("doctor: no platform is usable here: %s", why);
	printf("platform: %s%s%s\n", chosen->name, why[0] ? " — passed over: " : "", why);
	return 0;
}
