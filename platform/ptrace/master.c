/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making the master stub, and files for all stubs to map.
 *
 * set-up (C code in the forked child, raw host calls only) → waits for the warden to seize it →
 * seccomp → breakpoint in the stub page → the warden unmaps all that is not the stub.
 */
#include "platform/ptrace/internal.h"

#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sentry/lib/err.h"
#include "sentry/lib/log.h"
#include "sentry/lib/physmem.h"

/* PTRACE_GET_RSEQ_CONFIGURATION, which not every libc's header has (nor can linux/ptrace.h be
 * included beside it). */
#define GET_RSEQ_CONFIGURATION 0x420f
struct rseq_configuration {
	uint64_t pointer;
	uint32_t size, signature, flags, pad;
};

/* In the child, on a copy of the warden's stack. Ends in the stub page or in _exit(errno). */
static void __attribute__((noreturn)) child_main(pid_t parent, int sock, int ctl, int ram)
{
	size_t size;
	const void *code = stub_code(&size);
	char go;
	int err;

	err = stub_child_begin(parent);
	stub_child_signals(0);
	if (!err)
		err = stub_child_fds(sock, ctl, ram, physmem_file_fd());
	if (!err)
		err = stub_child_memory(code, size);
	if (!err)
		err = stub_child_privileges();
	/* Ready to be seized; goes on when it is, so that the breakpoint stops it. */
	if (!err && (write(STUB_FD_SOCKET, "", 1) != 1 || read(STUB_FD_SOCKET, &go, 1) != 1))
		err = -EPIPE;
	if (!err)
		err = stub_seccomp();
	if (err)
		_exit(-err);
	((void (*)(void))stub_entry())();
	__builtin_unreachable();
}

/* glibc registered its thread area with the kernel; that area is about to go. */
static int unregister_rseq(pid_t pid)
{
	struct rseq_configuration conf;
	long ret;

	memset(&conf, 0, sizeof(conf));
	ret = ptrace(GET_RSEQ_CONFIGURATION, pid, (void *)sizeof(conf), &conf);
	if (ret < 0 || !conf.pointer)
		return 0; /* a kernel without, or a libc that doesn't */
	ret = stub_call(pid, SYS_rseq, conf.pointer, conf.size, 1, conf.signature, 0, 0);
	return ret < 0 ? (int)ret : 0;
}

/*
 * Seizes the child when it is ready (it must be dumpable, and without capabilities that we may
 * lack) and brings it to the breakpoint.
 */
static int master_catch(pid_t pid, int sock)
{
	struct arch_regs regs;
	char ready;
	int status;

	if (read(sock, &ready, 1) != 1) {
		if (waitpid(pid, &status, __WALL) == pid && WIFEXITED(status))
			return -WEXITSTATUS(status);
		return -ECHILD;
	}
	if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)(long)PTRACE_O_EXITKILL))
		return -errno;
	if (write(sock, "", 1) != 1)
		return -EPIPE;
	for (;;) {
		if (waitpid(pid, &status, __WALL) != pid) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (WIFEXITED(status))
			return -WEXITSTATUS(status);
		if (!WIFSTOPPED(status))
			return -ECHILD;
		if (WSTOPSIG(status) == SIGTRAP && !(status >> 16) && !stub_get_regs(pid, &regs) &&
		    stub_regs_stopped(&regs))
			return 0;
		if (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGSYS)
			return -ENOEXEC;
		ptrace(PTRACE_CONT, pid, NULL, NULL);
	}
}

int master_start(struct ptrace_platform *p)
{
	struct warden *w = &p->warden;
	pid_t self = getpid();
	int sock[2];
	long ret;
	int err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock))
		return -errno;
	ret = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (ret == 0)
		child_main(self, sock[1], p->stub.ctl_fd, physmem_fd());
	err = ret < 0 ? -errno : 0;
	close(sock[1]);
	if (err)
		goto out_sock;
	w->master = (pid_t)ret;
	err = master_catch(w->master, sock[0]);
	if (err)
		goto out_kill;
	err = unregister_rseq(w->master);
	if (err)
		goto out_kill;
	ret = stub_call(w->master, SYS_munmap, 0, USER_TOP, 0, 0, 0, 0);
	if (ret)
		goto out_munmap;
	/* Without address randomization the main stack ends here. */
	ret = stub_call(w->master, SYS_munmap, USER_TOP, STUB_BASE - USER_TOP, 0, 0, 0, 0);
	if (ret)
		goto out_munmap;
	ret = stub_call(w->master, SYS_munmap, STUB_REQUEST, PAGE_SIZE, 0, 0, 0, 0);
	if (ret)
		goto out_munmap;
	ret = stub_call(w->master, SYS_munmap, STUB_SCRATCH + PAGE_SIZE,
			STUB_END - STUB_SCRATCH - PAGE_SIZE, 0, 0, 0, 0);
	if (ret)
		goto out_munmap;
	w->sock = sock[0];
	return 0;

out_munmap:
	err = (int)ret;
out_kill:
	kill(w->master, SIGKILL);
	while (waitpid(w->master, NULL, __WALL) < 0 && errno == EINTR)
		;
	w->master = 0;
out_sock:
	close(sock[0]);
	return err;
}

int master_pass_fd(struct ptrace_platform *p, int fd)
{
	struct stub_call call = stub_fd_recv_call();
	int err = stub_fds_send(&p->stub, p->warden.sock, &fd, 1), stub_fd;
	long ret;

	if (err)
		return err;
	ret = stub_call(p->warden.master, (long)call.nr, call.args[0], call.args[1], 0, 0, 0, 0);
	if (ret != 1)
		return ret < 0 ? (int)ret : -EPIPE;
	err = stub_fds_received(&p->stub, &stub_fd, 1);
	return err ? err : stub_fd;
}
