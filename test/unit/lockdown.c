/* SPDX-License-Identifier: Apache-2.0 */
/* What the seccomp filters leave: more with a control socket, and no more than it takes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/platform.h"
#include "sentry/lockdown.h"
#include "test/unit/unit.h"

enum { ACCEPT, RECVMSG, PEERCRED, OTHER_OPTION, OTHER_LEVEL, SENDMSG, CONNECT, SOCKET, OPEN, EXEC };

static int errno_of(long ret)
{
	return ret < 0 ? errno : 0;
}

/* The errno of one call with nothing but bad descriptors, by itself. */
static int try_call(int what)
{
	socklen_t len = 0;

	switch (what) {
	case ACCEPT:
		return errno_of(syscall(SYS_accept4, -1, NULL, NULL, 0));
	case RECVMSG:
		return errno_of(syscall(SYS_recvmsg, -1, NULL, 0));
	case PEERCRED:
		return errno_of(syscall(SYS_getsockopt, -1, SOL_SOCKET, SO_PEERCRED, NULL, &len));
	case OTHER_OPTION:
		return errno_of(syscall(SYS_getsockopt, -1, SOL_SOCKET, SO_RCVBUF, NULL, &len));
	case OTHER_LEVEL:
		return errno_of(syscall(SYS_getsockopt, -1, 6, SO_PEERCRED, NULL, &len));
	case SENDMSG:
		return errno_of(syscall(SYS_sendmsg, -1, NULL, 0));
	case CONNECT:
		return errno_of(syscall(SYS_connect, -1, NULL, 0));
	case SOCKET:
		return errno_of(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
	case OPEN:
		return errno_of(syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY));
	case EXEC:
		return errno_of(syscall(SYS_execve, "/no/such", NULL, NULL));
	}
	return -1;
}

/* The errno of @what in a process that is locked down so; 255: it could not be. */
static int locked(const struct platform_type *type, bool volumes, bool control, int what)
{
	const struct lockdown_needs needs = {.volumes = volumes, .control = control};
	pid_t pid = fork();
	char why[256];
	int status;

	if (!pid)
		syscall(SYS_exit_group,
			lockdown(type, &needs, why, sizeof(why)) ? 255 : try_call(what));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return 255;
	return WEXITSTATUS(status);
}

TEST(control_calls_with_a_control_socket_only)
{
	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *t = platform_types[i];

		for (int volumes = 0; volumes < 2; volumes++) {
			CHECK(locked(t, volumes, false, ACCEPT) == EPERM);
			CHECK(locked(t, volumes, false, RECVMSG) == EPERM);
			CHECK(locked(t, volumes, false, PEERCRED) == EPERM);
			CHECK(locked(t, volumes, true, ACCEPT) == EBADF);
			CHECK(locked(t, volumes, true, RECVMSG) == EBADF);
			CHECK(locked(t, volumes, true, PEERCRED) == EBADF);
		}
	}
}

TEST(no_more_than_that)
{
	for (size_t i = 0; platform_types[i]; i++) {
		const struct platform_type *t = platform_types[i];

		CHECK(locked(t, false, true, OTHER_OPTION) == EPERM);
		CHECK(locked(t, false, true, OTHER_LEVEL) == EPERM);
		for (int what = CONNECT; what <= EXEC; what++)
			CHECK(locked(t, false, true, what) == EPERM);
	}
	CHECK(locked(&ptrace_platform, false, true, SENDMSG) == EBADF);
	/* A snapshot's descriptor is sent over a control connection. */
	CHECK(locked(&kvm_platform, false, true, SENDMSG) == EBADF);
	CHECK(locked(&kvm_platform, false, false, SENDMSG) == EPERM);
}

int main(void)
{
	return unit_run();
}
