/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master stub: forked from the sentry once, it gives up everything that it inherited (memory,
 * descriptors, capabilities, signals, its session) and stays stopped in the stub page. All stub
 * processes are forked from it and share its descriptor table, so that a file added to physical
 * memory later is passed once, over a socket.
 *
 * set-up (C code in the forked child, raw host calls only) → waits for the warden to seize it →
 * seccomp → breakpoint in the stub page → the warden unmaps all that is not the stub.
 */
#include "platform/ptrace/internal.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
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

#define USER_END (STUB_BASE + STUB_SIZE)

/* The scratch page, as the master sees it at STUB_SCRATCH. */
struct scratch {
	struct msghdr msg;
	struct iovec iov;
	char byte;
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
};

static void child_signals(void)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} ignore = {.handler = SIG_IGN};
	uint64_t none = 0;
	int sig;

	for (sig = 1; sig <= 64; sig++) {
		switch (sig) {
		case SIGKILL:
		case SIGSTOP:
		case SIGSEGV:
		case SIGBUS:
		case SIGILL:
		case SIGFPE:
		case SIGTRAP:
		case SIGSYS:
			continue;
		}
		syscall(SYS_rt_sigaction, sig, &ignore, NULL, sizeof(none));
	}
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

static int child_fds(int sock, int ctl, int ram)
{
	int fds[STUB_FD_FIRST] = {
		[STUB_FD_SOCKET] = sock, [STUB_FD_CTL] = ctl, [STUB_FD_RAM] = ram};
	int i;

	/* Out of the way of the numbers they will have. */
	for (i = 0; i < STUB_FD_FIRST; i++) {
		fds[i] = fcntl(fds[i], F_DUPFD, STUB_FD_FIRST);
		if (fds[i] < 0)
			return -errno;
	}
	for (i = 0; i < STUB_FD_FIRST; i++) {
		if (dup2(fds[i], i) < 0)
			return -errno;
	}
	if (syscall(SYS_close_range, STUB_FD_FIRST, ~0U, 0)) {
		struct rlimit lim = {.rlim_cur = 1 << 20};

		getrlimit(RLIMIT_NOFILE, &lim);
		for (i = STUB_FD_FIRST; i < (int)MIN(lim.rlim_cur, (rlim_t)1 << 20); i++)
			close(i);
	}
	return 0;
}

static int child_memory(void)
{
	size_t size;
	const void *code = stub_code(&size);
	struct scratch *s;
	void *page;

	page = mmap((void *)STUB_CODE, PAGE_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (page == MAP_FAILED)
		return -errno;
	memcpy(page, code, size);
	if (mprotect(page, PAGE_SIZE, PROT_READ | PROT_EXEC))
		return -errno;
	s = mmap((void *)STUB_SCRATCH, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 STUB_FD_CTL, 0);
	if (s == MAP_FAILED || madvise(s, PAGE_SIZE, MADV_DONTFORK))
		return -errno;
	return 0;
}

static int child_privileges(void)
{
	struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2];
	struct rlimit no_core = {0, 0};

	memset(none, 0, sizeof(none));
	/* No capabilities: so a sentry that drops its own may still trace its stubs. */
	if (syscall(SYS_capset, &hdr, none))
		return -errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
		return -errno;
	setrlimit(RLIMIT_CORE, &no_core);
	personality(PER_LINUX);
	return 0;
}

/* In the child, on a copy of the warden's stack. Ends in the stub page or in _exit(errno). */
static void __attribute__((noreturn)) child_main(pid_t parent, int sock, int ctl, int ram)
{
	char go;
	int err = 0;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != parent)
		_exit(ESRCH);
	prctl(PR_SET_NAME, "kvmsbox-stub", 0, 0, 0);
	setsid();
	if (chdir("/"))
		err = -errno;
	child_signals();
	if (!err)
		err = child_fds(sock, ctl, ram);
	if (!err)
		err = child_memory();
	if (!err)
		err = child_privileges();
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
	ret = ptrace((enum __ptrace_request)GET_RSEQ_CONFIGURATION, pid, (void *)sizeof(conf),
		     &conf);
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
		child_main(self, sock[1], p->ctl_fd, physmem_fd());
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
	ret = stub_call(w->master, SYS_munmap, 0, STUB_BASE, 0, 0, 0, 0);
	if (ret)
		goto out_munmap;
	/* Without address randomization the main stack ends here. */
	ret = stub_call(w->master, SYS_munmap, STUB_REQUEST, PAGE_SIZE, 0, 0, 0, 0);
	if (ret)
		goto out_munmap;
	ret = stub_call(w->master, SYS_munmap, STUB_SCRATCH + PAGE_SIZE,
			USER_END - STUB_SCRATCH - PAGE_SIZE, 0, 0, 0, 0);
	if (ret)
		goto out_munmap;
	w->sock = sock[0];
	p->fds[0].host = physmem_fd();
	p->fds[0].stub = STUB_FD_RAM;
	p->nr_fds = 1;
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
	struct scratch *s = (struct scratch *)p->ctl;
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (char *)"", .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	long ret;
	int stub_fd;

	memset(&control, 0, sizeof(control));
	control.hdr.cmsg_level = SOL_SOCKET;
	control.hdr.cmsg_type = SCM_RIGHTS;
	control.hdr.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.hdr), &fd, sizeof(fd));
	if (sendmsg(p->warden.sock, &msg, MSG_NOSIGNAL) != 1)
		return -errno;

	/* Pointers are the master's. */
	memset(s, 0, sizeof(*s));
	s->iov.iov_base = (void *)(STUB_SCRATCH + offsetof(struct scratch, byte));
	s->iov.iov_len = 1;
	s->msg.msg_iov = (void *)(STUB_SCRATCH + offsetof(struct scratch, iov));
	s->msg.msg_iovlen = 1;
	s->msg.msg_control = (void *)(STUB_SCRATCH + offsetof(struct scratch, control));
	s->msg.msg_controllen = sizeof(s->control);
	ret = stub_call(p->warden.master, SYS_recvmsg, STUB_FD_SOCKET,
			STUB_SCRATCH + offsetof(struct scratch, msg), 0, 0, 0, 0);
	if (ret != 1)
		return ret < 0 ? (int)ret : -EPIPE;
	if (s->control.hdr.cmsg_type != SCM_RIGHTS ||
	    s->control.hdr.cmsg_len != CMSG_LEN(sizeof(int)))
		return -EMFILE;
	memcpy(&stub_fd, CMSG_DATA(&s->control.hdr), sizeof(stub_fd));
	return stub_fd;
}
