/* SPDX-License-Identifier: Apache-2.0 */
/* flock, POSIX record locks and open-file-description locks, between processes. */
#include <sys/file.h>

#include "test/conform/conform.h"

static int open_f(void)
{
	return CHECK_OK(open("f", O_CREAT | O_RDWR, 0644));
}

static int lk(int fd, int cmd, int type, off_t start, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, cmd, &l);
}

/* What F_GETLK says about a wish for a write lock: F_UNLCK or the blocker's type. */
static struct flock who(int fd, off_t start, off_t len)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start,
			   .l_len = len };

	CHECK_OK(fcntl(fd, F_GETLK, &l));
	return l;
}

/* Runs the statements in a child that must succeed. */
#define IN_CHILD(...)                                                         \
	do {                                                                  \
		pid_t child_ = FORK();                                        \
		if (!child_) {                                                \
			__VA_ARGS__;                                          \
			_exit(0);                                             \
		}                                                             \
		JOIN(child_);                                                 \
	} while (0)

TEST(flock_exclusive)
{
	int a = open_f(), b = open_f();

	CHECK_OK(flock(a, LOCK_EX));
	CHECK_ERRNO(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	CHECK_ERRNO(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	CHECK_OK(flock(a, LOCK_UN));
	CHECK_OK(flock(b, LOCK_EX | LOCK_NB));
}

TEST(flock_shared)
{
	int a = open_f(), b = open_f(), c = open_f();

	CHECK_OK(flock(a, LOCK_SH));
	CHECK_OK(flock(b, LOCK_SH | LOCK_NB));
	CHECK_ERRNO(flock(c, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	CHECK_OK(close(a));
	CHECK_OK(flock(b, LOCK_EX | LOCK_NB));	/* upgrade of the only holder */
}

TEST(flock_belongs_to_the_open_file)
{
	int a = open_f(), d = CHECK_OK(dup(a)), b = open_f();

	CHECK_OK(flock(a, LOCK_EX));
	CHECK_OK(flock(d, LOCK_EX | LOCK_NB));
	CHECK_OK(close(a));
	CHECK_ERRNO(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	CHECK_OK(close(d));
	CHECK_OK(flock(b, LOCK_EX | LOCK_NB));
}

TEST(flock_is_inherited_by_fork)
{
	int a = open_f(), b = open_f();

	CHECK_OK(flock(a, LOCK_EX));
	IN_CHILD({
		CHECK_ERRNO(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
		CHECK_OK(flock(a, LOCK_UN));
	});
	CHECK_OK(flock(b, LOCK_EX | LOCK_NB));
}

TEST(flock_waits)
{
	int a = open_f();
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	CHECK_OK(flock(a, LOCK_EX));
	pid = FORK();
	if (!pid) {
		int b = open_f();

		CHECK_OK(close(a));
		CHECK_OK(flock(b, LOCK_EX));
		GATE_OPEN(&g);
		_exit(0);
	}
	msleep(30);
	struct pollfd p = { g.fd[0], POLLIN, 0 };

	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK_OK(flock(a, LOCK_UN));
	GATE_WAIT(&g);
	JOIN(pid);
}

static void on_alarm(int sig UNUSED)
{
}

TEST(flock_eintr)
{
	int a = open_f(), b = open_f();

	CHECK_OK(flock(a, LOCK_EX));
	on_signal(SIGALRM, on_alarm);
	TICK_START();
	CHECK_ERRNO(flock(b, LOCK_EX), EINTR);
}

TEST(flock_errors)
{
	CHECK_ERRNO(flock(open_f(), 0), EINVAL);
	CHECK_ERRNO(flock(open_f(), LOCK_EX | LOCK_SH), EINVAL);
	CHECK_ERRNO(flock(190, LOCK_EX), EBADF);
}

TEST(posix_conflicts_between_processes)
{
	int fd = open_f();

	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 10, 10));
	IN_CHILD({
		CHECK_ERRNO(lk(fd, F_SETLK, F_WRLCK, 15, 1), EAGAIN);
		CHECK_ERRNO(lk(fd, F_SETLK, F_RDLCK, 19, 5), EAGAIN);
		CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 10));
		CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 20, 0));
	});
}

TEST(posix_getlk)
{
	int fd = open_f();
	pid_t me = getpid();

	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 10, 10));
	CHECK_EQ(who(fd, 0, 0).l_type, F_UNLCK);	/* one's own locks do not block */
	IN_CHILD({
		struct flock l = who(fd, 0, 0);

		CHECK_EQ(l.l_type, F_WRLCK);
		CHECK_EQ(l.l_start, 10);
		CHECK_EQ(l.l_len, 10);
		CHECK_EQ(l.l_pid, me);
		CHECK_EQ(l.l_whence, SEEK_SET);
		CHECK_EQ(who(fd, 0, 10).l_type, F_UNLCK);
	});
}

TEST(posix_read_locks_share)
{
	int fd = open_f();

	CHECK_OK(lk(fd, F_SETLK, F_RDLCK, 0, 10));
	IN_CHILD({
		CHECK_OK(lk(fd, F_SETLK, F_RDLCK, 0, 10));
		CHECK_ERRNO(lk(fd, F_SETLK, F_WRLCK, 0, 10), EAGAIN);
	});
}

TEST(posix_split_and_merge)
{
	int fd = open_f();

	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 30));
	CHECK_OK(lk(fd, F_SETLK, F_UNLCK, 10, 10));
	IN_CHILD({
		struct flock l = who(fd, 0, 0);

		CHECK_EQ(l.l_start, 0);
		CHECK_EQ(l.l_len, 10);
		CHECK_EQ(who(fd, 10, 10).l_type, F_UNLCK);
		l = who(fd, 12, 0);
		CHECK_EQ(l.l_start, 20);
		CHECK_EQ(l.l_len, 10);
	});
	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 10, 10));
	IN_CHILD({
		struct flock l = who(fd, 0, 0);

		CHECK_EQ(l.l_start, 0);
		CHECK_EQ(l.l_len, 30);
	});
}

TEST(posix_change_of_type_inside)
{
	int fd = open_f();

	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 30));
	CHECK_OK(lk(fd, F_SETLK, F_RDLCK, 10, 10));
	IN_CHILD({
		CHECK_ERRNO(lk(fd, F_SETLK, F_RDLCK, 5, 1), EAGAIN);
		CHECK_OK(lk(fd, F_SETLK, F_RDLCK, 12, 4));
		CHECK_ERRNO(lk(fd, F_SETLK, F_RDLCK, 25, 1), EAGAIN);
	});
}

TEST(posix_to_end_of_file)
{
	int fd = open_f();

	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 100, 0));
	IN_CHILD({
		CHECK_ERRNO(lk(fd, F_SETLK, F_WRLCK, 1L << 40, 1), EAGAIN);
		CHECK_EQ(who(fd, 100, 1).l_len, 0);
	});
}

TEST(posix_whence_and_negative_length)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -5, .l_len = 5 };
	int fd = open_f();

	CHECK_EQ(write(fd, "0123456789", 10), 10);
	CHECK_OK(fcntl(fd, F_SETLK, &l));
	l = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = -50 };
	CHECK_OK(fcntl(fd, F_SETLK, &l));
	IN_CHILD({
		struct flock w = who(fd, 0, 20);

		CHECK_EQ(w.l_start, 5);
		CHECK_EQ(w.l_len, 5);
		w = who(fd, 20, 0);
		CHECK_EQ(w.l_start, 50);
		CHECK_EQ(w.l_len, 50);
	});
	l = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = -1 };
	CHECK_ERRNO(fcntl(fd, F_SETLK, &l), EINVAL);
}

TEST(posix_any_close_releases)
{
	int fd = open_f(), other;

	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 10));
	other = open_f();
	CHECK_OK(close(other));
	IN_CHILD(CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 10)));
}

TEST(posix_not_inherited_and_released_at_exit)
{
	int fd = open_f();

	IN_CHILD(CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 10)));
	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 10));
	IN_CHILD(CHECK_ERRNO(lk(fd, F_SETLK, F_WRLCK, 0, 10), EAGAIN));
}

TEST(posix_waits)
{
	int fd = open_f();
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 10));
	pid = FORK();
	if (!pid) {
		CHECK_OK(lk(fd, F_SETLKW, F_WRLCK, 5, 10));
		GATE_OPEN(&g);
		_exit(0);
	}
	msleep(30);
	CHECK_OK(lk(fd, F_SETLK, F_UNLCK, 0, 5));	/* not yet enough */
	msleep(10);
	struct pollfd p = { g.fd[0], POLLIN, 0 };

	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK_OK(lk(fd, F_SETLK, F_UNLCK, 5, 5));
	GATE_WAIT(&g);
	JOIN(pid);
}

TEST(posix_wait_ends_with_holders_death)
{
	int fd = open_f();
	struct gate g;
	pid_t holder;

	GATE_INIT(&g);
	holder = FORK();
	if (!holder) {
		CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 0));
		GATE_OPEN(&g);
		msleep(50);
		_exit(0);
	}
	GATE_WAIT(&g);
	CHECK_OK(lk(fd, F_SETLKW, F_WRLCK, 0, 0));
	JOIN(holder);
}

TEST(posix_wait_eintr)
{
	int fd = open_f();
	struct gate g;
	pid_t holder;

	GATE_INIT(&g);
	holder = FORK();
	if (!holder) {
		CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 0));
		GATE_OPEN(&g);
		for (;;)
			pause();
	}
	GATE_WAIT(&g);
	on_signal(SIGALRM, on_alarm);
	TICK_START();
	CHECK_ERRNO(lk(fd, F_SETLKW, F_WRLCK, 0, 0), EINTR);
	TICK_STOP();
	CHECK_OK(kill(holder, SIGKILL));
	CHECK_SIGNALED(holder, SIGKILL);
}

TEST(posix_deadlock_is_found)
{
	int fd = open_f();
	struct gate g;
	pid_t pid;
	int r;

	GATE_INIT(&g);
	CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 0, 1));
	pid = FORK();
	if (!pid) {
		CHECK_OK(lk(fd, F_SETLK, F_WRLCK, 1, 1));
		GATE_OPEN(&g);
		/* One of the two waits must fail with EDEADLK, the other goes on. */
		if (lk(fd, F_SETLKW, F_WRLCK, 0, 1) < 0)
			_exit(errno == EDEADLK ? 1 : 9);
		_exit(0);
	}
	GATE_WAIT(&g);
	msleep(30);
	r = lk(fd, F_SETLKW, F_WRLCK, 1, 1);
	if (r < 0)
		CHECK_EQ(errno, EDEADLK);
	CHECK_OK(lk(fd, F_SETLK, F_UNLCK, 0, 0));
	CHECK_EXIT(pid, r < 0 ? 0 : 1);
}

TEST(posix_errors)
{
	int fd = open_f(), ro = CHECK_OK(open("f", O_RDONLY)), wo = CHECK_OK(open("f", O_WRONLY));

	CHECK_ERRNO(lk(ro, F_SETLK, F_WRLCK, 0, 1), EBADF);
	CHECK_ERRNO(lk(wo, F_SETLK, F_RDLCK, 0, 1), EBADF);
	CHECK_ERRNO(lk(fd, F_SETLK, 77, 0, 1), EINVAL);
	CHECK_ERRNO(lk(190, F_SETLK, F_WRLCK, 0, 1), EBADF);
	CHECK_ERRNO(fcntl(fd, F_SETLK, (void *)8), EFAULT);
	CHECK_OK(lk(ro, F_SETLK, F_RDLCK, 0, 1));
}

TEST(ofd_conflict_within_a_process)
{
	int a = open_f(), b = open_f();
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	CHECK_OK(lk(a, F_OFD_SETLK, F_WRLCK, 0, 10));
	CHECK_ERRNO(lk(b, F_OFD_SETLK, F_WRLCK, 5, 10), EAGAIN);
	CHECK_OK(lk(b, F_OFD_SETLK, F_WRLCK, 10, 10));
	CHECK_OK(fcntl(b, F_OFD_GETLK, &l));
	CHECK_EQ(l.l_type, F_WRLCK);
	CHECK_EQ(l.l_start, 0);
	CHECK_EQ(l.l_pid, -1);
}

TEST(ofd_survives_other_closes)
{
	int a = open_f(), b = open_f();

	CHECK_OK(lk(a, F_OFD_SETLK, F_WRLCK, 0, 10));
	CHECK_OK(close(open_f()));
	CHECK_ERRNO(lk(b, F_OFD_SETLK, F_WRLCK, 0, 10), EAGAIN);
	CHECK_OK(close(a));
	CHECK_OK(lk(b, F_OFD_SETLK, F_WRLCK, 0, 10));
}

TEST(ofd_conflicts_with_posix)
{
	int a = open_f(), b = open_f();

	CHECK_OK(lk(a, F_SETLK, F_WRLCK, 0, 10));
	CHECK_ERRNO(lk(b, F_OFD_SETLK, F_WRLCK, 0, 10), EAGAIN);
}

TEST(ofd_is_shared_with_the_child)
{
	int a = open_f();

	CHECK_OK(lk(a, F_OFD_SETLK, F_WRLCK, 0, 10));
	IN_CHILD({
		CHECK_OK(lk(a, F_OFD_SETLK, F_WRLCK, 0, 10));
		CHECK_OK(lk(a, F_OFD_SETLK, F_UNLCK, 0, 10));
	});
	CHECK_OK(lk(open_f(), F_OFD_SETLK, F_WRLCK, 0, 10));
}

TEST(ofd_pid_must_be_zero)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_pid = 1 };

	CHECK_ERRNO(fcntl(open_f(), F_OFD_SETLK, &l), EINVAL);
}

TEST(flock_and_posix_are_independent)
{
	int a = open_f(), b = open_f();

	CHECK_OK(flock(a, LOCK_EX));
	CHECK_OK(lk(b, F_SETLK, F_WRLCK, 0, 0));
	IN_CHILD(CHECK_ERRNO(lk(b, F_SETLK, F_WRLCK, 0, 0), EAGAIN));
}
