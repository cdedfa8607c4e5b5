/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master stub, forked from the sentry once, gives up everything that it inherited (memory,
 * descriptors, capabilities, signals, its session). All stub processes are forked from it and share
 * its descriptor table, so that a file added to physical memory later is passed once, over a
 * socket.
 */
#include "platform/stub/stub.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sentry/lib/err.h"

/* The scratch page, as the master sees it at STUB_SCRATCH. */
struct scratch {
	struct msghdr msg;
	struct iovec iov;
	char byte;
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(STUB_FDS_MAX * sizeof(int))];
	} control;
};

int stub_child_begin(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != parent)
		return -ESRCH;
	prctl(PR_SET_NAME, "kvmsbox-stub", 0, 0, 0);
	/*
	 * What a terminal sends isn't for us. A session of our own would mean a scheduling group of
	 * our own, too (autogroup): whose share of a processor it has just come to is next to
	 * nothing at first, and a thread waited there for up to 300 ms.
	 */
	setpgid(0, 0);
	return chdir("/") ? -errno : 0;
}

void stub_child_signals(uint64_t keep)
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
		if (!(keep >> (sig - 1) & 1))
			syscall(SYS_rt_sigaction, sig, &ignore, NULL, sizeof(none));
	}
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

int stub_child_fds(int sock, int ctl, int ram, int file)
{
	int fds[STUB_FD_FIRST] = {
		[STUB_FD_SOCKET] = sock,
		[STUB_FD_CTL] = ctl,
		[STUB_FD_RAM] = ram,
		[STUB_FD_FILE] = file < 0 ? ram : file,
	};
	int n = ram < 0 ? STUB_FD_RAM : STUB_FD_FIRST, i;

	/* Out of the way of the numbers they will have. */
	for (i = 0; i < n; i++) {
		fds[i] = fcntl(fds[i], F_DUPFD, n);
		if (fds[i] < 0)
			return -errno;
	}
	for (i = 0; i < n; i++) {
		if (dup2(fds[i], i) < 0)
			return -errno;
	}
	if (syscall(SYS_close_range, n, ~0U, 0)) {
		struct rlimit lim = {.rlim_cur = 1 << 20};

		getrlimit(RLIMIT_NOFILE, &lim);
		for (i = n; i < (int)MIN(lim.rlim_cur, (rlim_t)1 << 20); i++)
			close(i);
	}
	return 0;
}

int stub_child_memory(const void *code, size_t size)
{
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

int stub_child_privileges(void)
{
	struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2];
	struct rlimit no_core = {0, 0};

	memset(none, 0, sizeof(none));
	/* No capabilities: so a sentry that drops its own may still control its stubs. */
	if (syscall(SYS_capset, &hdr, none))
		return -errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
		return -errno;
	setrlimit(RLIMIT_CORE, &no_core);
	personality(PER_LINUX);
	return 0;
}

int stub_fds_send(struct stub_platform *p, int sock, const int *fds, size_t n)
{
	struct scratch *s = (struct scratch *)p->ctl;
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(STUB_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (char *)"", .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = CMSG_SPACE(n * sizeof(int))};

	memset(&control, 0, sizeof(control));
	control.hdr.cmsg_level = SOL_SOCKET;
	control.hdr.cmsg_type = SCM_RIGHTS;
	control.hdr.cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(&control.hdr), fds, n * sizeof(int));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) != 1)
		return -errno;

	/* Pointers are the master's. */
	memset(s, 0, sizeof(*s));
	s->iov.iov_base = (void *)(STUB_SCRATCH + offsetof(struct scratch, byte));
	s->iov.iov_len = 1;
	s->msg.msg_iov = (void *)(STUB_SCRATCH + offsetof(struct scratch, iov));
	s->msg.msg_iovlen = 1;
	s->msg.msg_control = (void *)(STUB_SCRATCH + offsetof(struct scratch, control));
	s->msg.msg_controllen = sizeof(s->control);
	return 0;
}

struct stub_call stub_fd_recv_call(void)
{
	return (struct stub_call){
		.nr = SYS_recvmsg,
		.args = {STUB_FD_SOCKET, STUB_SCRATCH + offsetof(struct scratch, msg), 0},
	};
}

int stub_fds_received(struct stub_platform *p, int *fds, size_t n)
{
	const struct scratch *s = (const struct scratch *)p->ctl;

	if (s->control.hdr.cmsg_type != SCM_RIGHTS ||
	    s->control.hdr.cmsg_len != CMSG_LEN(n * sizeof(int)))
		return -EMFILE;
	memcpy(fds, CMSG_DATA(&s->control.hdr), n * sizeof(int));
	return 0;
}
