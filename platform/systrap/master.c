/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making the master stub: forked from the sentry, it gives up what it inherited, installs the
 * signal handler and the filter, and goes to the code page, where it gives up the sentry's memory
 * and goes into the leader's loop. The first request is in its page already: to make a process. The
 * next brings it the memory's files (leader.c), which need not be there yet when it is forked.
 */
#include "platform/systrap/internal.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/lib/physmem.h"

extern const char systrap_code[] __attribute__((visibility("hidden")));
extern const char systrap_code_end[] __attribute__((visibility("hidden")));
extern const char systrap_master[] __attribute__((visibility("hidden")));
extern const char systrap_handler[] __attribute__((visibility("hidden")));

static uaddr_t code_at(const char *label)
{
	return STUB_CODE + (uaddr_t)(label - systrap_code);
}

static int child_handlers(void)
{
	static const int signals[] = {
		SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, PLATFORM_KICK_SIGNAL};
	struct {
		uint64_t handler, flags, restorer, mask;
	} action = {
		.handler = code_at(systrap_handler),
		.flags = SA_SIGINFO | SA_ONSTACK | 0x04000000 /* SA_RESTORER */,
		.restorer = code_at(systrap_code_end),
		.mask = ~0UL,
	};
	uint64_t all = ~0UL;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		/* A call that a kick interrupts before the sentry has heard of it is made again. */
		if (signals[i] == PLATFORM_KICK_SIGNAL)
			action.flags |= SA_RESTART;
		if (syscall(SYS_rt_sigaction, signals[i], &action, NULL, sizeof(all)))
			return -errno;
	}
	/* Only user threads get any. */
	return syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all)) ? -errno : 0;
}

/* glibc registered its thread area with the kernel; that area is about to go. */
static int child_rseq(void)
{
#ifdef RSEQ_SIG
	const unsigned int sizes[] = {32, __rseq_size, 64};
	char *area = (char *)__builtin_thread_pointer() + __rseq_offset;
	size_t i;

	for (i = 0; __rseq_size && i < ARRAY_SIZE(sizes); i++) {
		if (!syscall(SYS_rseq, area, sizes[i], 1 /* RSEQ_FLAG_UNREGISTER */, RSEQ_SIG))
			return 0;
		if (errno == ENOSYS)
			return 0;
	}
	return __rseq_size ? -EINVAL : 0;
#else
	return 0;
#endif
}

/* What the child needs of the sentry's state. */
struct inherited {
	pid_t parent;
	int sock, ctl;
	uint32_t fsgsbase;
};

/*
 * In the child, on a copy of its parent's stack, without the arenas. Ends in the code page or in
 * _exit(errno).
 */
static void __attribute__((noreturn)) child_main(const struct inherited *in)
{
	/* What isn't written below is an empty signal mask, and nothing of the sentry's stack. */
	uint8_t page[PAGE_SIZE] = {0};
	int err = stub_child_begin(in->parent);

	memcpy(page, systrap_code, CODE_DATA);
	memcpy(page + CODE_FSGSBASE, &in->fsgsbase, sizeof(in->fsgsbase));
	filter_write_user(page);
	stub_child_signals(1UL << (PLATFORM_KICK_SIGNAL - 1));
	if (!err)
		err = stub_child_fds(in->sock, in->ctl, -1, -1);
	if (!err)
		err = stub_child_memory(page, sizeof(page));
	if (!err && mmap((void *)STUB_REQUEST, PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED,
			 STUB_FD_CTL, MASTER_SLOT * PAGE_SIZE) == MAP_FAILED)
		err = -errno;
	if (!err)
		err = child_rseq();
	if (!err)
		err = child_handlers();
	if (!err)
		err = stub_child_privileges();
	if (!err)
		err = systrap_filter_install();
	if (err)
		_exit(-err);
	__asm__ volatile("xor %%ebx, %%ebx; mov %0, %%r15; jmp *%1"
			 :
			 : "r"(STUB_REQUEST), "r"(code_at(systrap_master))
			 : "rbx", "r15", "memory");
	__builtin_unreachable();
}

/*
 * What the master finds to do when it is born: to make a process. Its leader finds nothing, and
 * waits.
 */
static int write_first(int ctl_fd)
{
	struct request *req = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ctl_fd,
				   MASTER_SLOT * PAGE_SIZE);
	struct request *first;

	_Static_assert(FIRST_SLOT == MASTER_SLOT + 1, "the next page");
	if (req == MAP_FAILED)
		return -errno;
	first = (struct request *)((char *)req + PAGE_SIZE);
	request_init(first, FIRST_SLOT);
	request_init(req, MASTER_SLOT);
	req->flags = PROC_FLAGS;
	req->child = FIRST_SLOT * PAGE_SIZE;
	request_write(req, 0, REQ_OP_CLONE);
	munmap(req, 2 * PAGE_SIZE);
	return 0;
}

int systrap_master_start(struct reaper *r)
{
	struct inherited in = {.parent = getpid(),
			       .sock = r->master_sock,
			       .ctl = r->ctl_fd,
			       .fsgsbase = r->fsgsbase};
	long ret = write_first(r->ctl_fd);
	cpu_set_t others;

	if (ret)
		return (int)ret;
	/*
	 * Neither kernel state nor memory, if there are any yet: the child has no use for them, and
	 * what it had a copy of the sentry would fault in anew. ENOMEM: there are holes between.
	 */
	madvise((void *)ARENA_BASE, (uintptr_t)phys_ptr(PHYS_FILE_END) - ARENA_BASE, MADV_DONTFORK);
	/* The pidfd is there before the child: what that makes may be wanted before we run on. */
	ret = syscall(SYS_clone, CLONE_PIDFD, NULL, &r->pidfd, NULL, NULL);
	if (ret == 0)
		child_main(&in);
	if (ret < 0)
		return -errno;
	r->master = (pid_t)ret;
	/* And what it forks, until first_wait_locked. */
	if (other_processors(&r->cpus, &others))
		sched_setaffinity(r->master, sizeof(others), &others);
	/* As it does itself: the reaper waits for its group, and may be there first. */
	setpgid(r->master, r->master);
	return 0;
}
