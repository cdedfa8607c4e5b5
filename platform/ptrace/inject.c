/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a stopped stub thread do something: the ptrace calls, and host calls run by it
 * ("injected") out of the stub page. All of it is for the host thread that traces the stub thread.
 */
#include "platform/ptrace/internal.h"

#include <elf.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "sentry/lib/err.h"
#include "sentry/lib/log.h"

static int get_regset(pid_t tid, long type, void *buf, size_t *size)
{
	struct iovec iov = {.iov_base = buf, .iov_len = *size};

	if (ptrace(PTRACE_GETREGSET, tid, (void *)type, &iov))
		return -errno;
	*size = iov.iov_len;
	return 0;
}

static int set_regset(pid_t tid, long type, const void *buf, size_t size)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = size};

	return ptrace(PTRACE_SETREGSET, tid, (void *)type, &iov) ? -errno : 0;
}

int stub_get_regs(pid_t tid, struct arch_regs *regs)
{
	size_t size = sizeof(*regs);

	return get_regset(tid, NT_PRSTATUS, regs, &size);
}

int stub_set_regs(pid_t tid, const struct arch_regs *regs, bool all)
{
	return set_regset(tid, NT_PRSTATUS, regs, all ? sizeof(*regs) : STUB_REGS_CORE);
}

int stub_get_fpu(pid_t tid, void *image, size_t *size)
{
	return get_regset(tid, STUB_REGSET_FPU, image, size);
}

int stub_set_fpu(pid_t tid, const void *image, size_t size)
{
	return set_regset(tid, STUB_REGSET_FPU, image, size);
}

static __thread bool bounded;

void stub_wait_bounded(bool on)
{
	bounded = on;
}

/* Polls: yields to the tracee, which is mostly on this CPU, then naps; gives up after 2 s. */
static int wait_bounded(pid_t tid)
{
	struct timespec nap = {.tv_nsec = 20000};
	unsigned int tries;
	int status;

	for (tries = 0; tries < 20000; tries++) {
		pid_t got = waitpid(tid, &status, __WALL | WNOHANG);

		if (got == tid)
			return WIFSTOPPED(status) ? status : -ESRCH;
		if (got < 0 && errno != EINTR)
			return -ESRCH;
		if (tries < 1000)
			sched_yield();
		else
			nanosleep(&nap, NULL);
	}
	return -ESRCH;
}

int stub_wait(pid_t tid)
{
	int status;

	if (bounded)
		return wait_bounded(tid);
	for (;;) {
		pid_t got = waitpid(tid, &status, __WALL);

		if (got == tid)
			return WIFSTOPPED(status) ? status : -ESRCH;
		if (got < 0 && errno != EINTR)
			return -ESRCH;
	}
}

int stub_seize(pid_t tid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, tid, NULL,
		   (void *)(long)(PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)))
		return -errno;
	if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL))
		return -errno;
	for (;;) {
		status = stub_wait(tid);
		if (status < 0)
			return status;
		if (status >> 16 == PTRACE_EVENT_STOP)
			return 0;
		/* A signal that was under way; the stop we asked for is still to come. */
		if (ptrace(PTRACE_CONT, tid, NULL, NULL))
			return -errno;
	}
}

int stub_run(pid_t tid, struct arch_regs *regs)
{
	int err = stub_set_regs(tid, regs, false);
	int status;

	if (err)
		return err;
	for (;;) {
		if (ptrace(PTRACE_CONT, tid, NULL, NULL))
			return -errno;
		status = stub_wait(tid);
		if (status < 0)
			return status;
		if (WSTOPSIG(status) == SIGTRAP && !(status >> 16)) {
			err = stub_get_regs(tid, regs);
			if (err || stub_regs_stopped(regs))
				return err;
		}
		/*
		 * Else a signal from outside or a kick (which is latched elsewhere): dropped,
		 * unless the stub can't go on.
		 */
		if (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGILL) {
			siginfo_t info;

			if (!ptrace(PTRACE_GETSIGINFO, tid, NULL, &info) && info.si_code > 0)
				return -EFAULT;
		}
	}
}

long stub_call(pid_t tid, long nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
	       uint64_t a5)
{
	struct stub_call call = {.nr = (uint64_t)nr, .args = {a0, a1, a2, a3, a4, a5}};
	struct arch_regs regs;
	long ret;
	int err;

	do {
		stub_regs_call(&regs, &call);
		err = stub_run(tid, &regs);
		if (err)
			return err;
		ret = stub_regs_result(&regs);
	} while (ret == -EINTR || (ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK));
	return ret;
}

int stub_batch(pid_t tid, size_t n, size_t *done)
{
	struct arch_regs regs;
	long ret;
	int err;

	*done = 0;
	stub_regs_batch(&regs, n);
	err = stub_run(tid, &regs);
	if (err)
		return err;
	*done = stub_regs_batch_done(&regs);
	ret = stub_regs_result(&regs);
	return ret < 0 && ret >= -MAX_ERRNO ? (int)ret : 0;
}
