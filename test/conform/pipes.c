/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes, FIFOs, eventfd and the plain devices. */
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "test/conform/conform.h"

static int p[2];

static void make(int flags)
{
	CHECK_OK(pipe2(p, flags));
}

TEST(pipe_ends)
{
	char c;

	make(0);
	CHECK_EQ(write(p[1], "x", 1), 1);
	CHECK_EQ(read(p[0], &c, 1), 1);
	CHECK_ERRNO(write(p[0], "x", 1), EBADF);
	CHECK_ERRNO(read(p[1], &c, 1), EBADF);
}

TEST(pipe_flags)
{
	make(O_CLOEXEC | O_NONBLOCK);
	CHECK_EQ(fcntl(p[0], F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(p[0], F_GETFL), O_RDONLY | O_NONBLOCK);
	CHECK_EQ(fcntl(p[1], F_GETFL), O_WRONLY | O_NONBLOCK);
	CHECK_ERRNO(pipe2(p, O_APPEND), EINVAL);
	CHECK_ERRNO(pipe((int *)8), EFAULT);
}

TEST(pipe_stat)
{
	struct stat st;

	make(0);
	CHECK_OK(fstat(p[0], &st));
	CHECK(S_ISFIFO(st.st_mode));
	CHECK_EQ(st.st_mode & 0777, 0600);
	CHECK_EQ(st.st_nlink, 1);
}

TEST(pipe_eof_after_data)
{
	char buf[8];

	make(0);
	CHECK_EQ(write(p[1], "end", 3), 3);
	CHECK_OK(close(p[1]));
	CHECK_EQ(read(p[0], buf, 8), 3);
	CHECK_EQ(read(p[0], buf, 8), 0);
	CHECK_EQ(read(p[0], buf, 8), 0);
}

TEST(pipe_epipe)
{
	make(0);
	CHECK_OK(close(p[0]));
	signal(SIGPIPE, SIG_IGN);
	CHECK_ERRNO(write(p[1], "x", 1), EPIPE);
	CHECK_EQ(write(p[1], "", 0), 0);
}

TEST(pipe_nonblock)
{
	static char buf[65536];
	char c;
	int n = 0;

	make(O_NONBLOCK);
	CHECK_ERRNO(read(p[0], &c, 1), EAGAIN);
	while (write(p[1], buf, 4096) == 4096)
		n++;
	CHECK_EQ(errno, EAGAIN);
	CHECK_EQ(n, 16);
}

TEST(pipe_size)
{
	make(0);
	CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
	CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 8192), 8192);
	CHECK_EQ(fcntl(p[1], F_GETPIPE_SZ), 8192);
	CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 5000), 8192);
	CHECK_ERRNO(fcntl(0, F_GETPIPE_SZ), EBADF);
}

TEST(pipe_size_cannot_shrink_below_contents)
{
	static char buf[32768];

	make(0);
	CHECK_EQ(write(p[1], buf, sizeof(buf)), sizeof(buf));
	CHECK_ERRNO(fcntl(p[0], F_SETPIPE_SZ, 4096), EBUSY);
}

TEST(pipe_fionread)
{
	int n = -1;

	make(0);
	CHECK_EQ(write(p[1], "12345", 5), 5);
	CHECK_OK(ioctl(p[0], FIONREAD, &n));
	CHECK_EQ(n, 5);
}

TEST(pipe_atomic_writes)
{
	char buf[512];
	pid_t pid[3];
	int counts[3] = { 0, 0, 0 }, n;

	make(0);
	for (int i = 0; i < 3; i++) {
		pid[i] = FORK();
		if (!pid[i]) {
			memset(buf, 'a' + i, sizeof(buf));
			for (int j = 0; j < 100; j++)
				CHECK_EQ(write(p[1], buf, sizeof(buf)), sizeof(buf));
			_exit(0);
		}
	}
	CHECK_OK(close(p[1]));
	while ((n = CHECK_OK(read(p[0], buf, sizeof(buf)))) > 0) {
		CHECK_EQ(n, sizeof(buf));
		for (int i = 1; i < n; i++)
			if (buf[i] != buf[0])
				FAIL("a write of PIPE_BUF bytes was torn");
		counts[buf[0] - 'a']++;
	}
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(counts[i], 100);
		JOIN(pid[i]);
	}
}

TEST(pipe_nonblock_small_writes_are_all_or_nothing)
{
	static char buf[65536];

	make(O_NONBLOCK);
	CHECK_EQ(write(p[1], buf, 65536 - 2048), 65536 - 2048);
	CHECK_ERRNO(write(p[1], buf, 4096), EAGAIN);
	CHECK_EQ(write(p[1], buf, 2048), 2048);
}

TEST(pipe_blocking_write_finishes)
{
	char *buf = malloc(300000);
	int total = 0, n;
	pid_t pid;

	make(0);
	pid = FORK();
	if (!pid) {
		memset(buf, 'w', 300000);
		CHECK_EQ(write(p[1], buf, 300000), 300000);
		_exit(0);
	}
	CHECK_OK(close(p[1]));
	while ((n = CHECK_OK(read(p[0], buf, 10000))) > 0)
		total += n;
	CHECK_EQ(total, 300000);
	JOIN(pid);
}

TEST(pipe_packet_mode)
{
	char buf[8];

	if (pipe2(p, O_DIRECT) < 0)
		SKIP("no packet pipes");
	CHECK_EQ(write(p[1], "one", 3), 3);
	CHECK_EQ(write(p[1], "three", 5), 5);
	CHECK_EQ(read(p[0], buf, 8), 3);
	CHECK_EQ(read(p[0], buf, 2), 2);	/* the rest of the packet is lost */
	CHECK_OK(close(p[1]));
	CHECK_EQ(read(p[0], buf, 8), 0);
}

TEST(pipe_through_proc_fd)
{
	char path[64], link[64], want[64], c;
	struct stat st;
	int n, fd;

	make(0);
	CHECK_OK(fstat(p[0], &st));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p[0]);
	n = CHECK_OK(readlink(path, link, sizeof(link) - 1));
	link[n] = 0;
	snprintf(want, sizeof(want), "pipe:[%lu]", (unsigned long)st.st_ino);
	CHECK_STR(link, want);
	fd = CHECK_OK(open(path, O_WRONLY));
	CHECK_EQ(write(fd, "t", 1), 1);
	CHECK_EQ(read(p[0], &c, 1), 1);
	CHECK_EQ(c, 't');
}

TEST(fifo_open_waits_for_both_ends)
{
	pid_t pid;
	char c;
	int fd;

	CHECK_OK(mkfifo("f", 0600));
	pid = FORK();
	if (!pid) {
		msleep(30);
		fd = CHECK_OK(open("f", O_WRONLY));
		CHECK_EQ(write(fd, "x", 1), 1);
		_exit(0);
	}
	fd = CHECK_OK(open("f", O_RDONLY));
	CHECK_EQ(read(fd, &c, 1), 1);
	CHECK_EQ(read(fd, &c, 1), 0);
	JOIN(pid);
}

TEST(fifo_nonblock_open)
{
	int r, w;
	char c;

	CHECK_OK(mkfifo("f", 0600));
	CHECK_ERRNO(open("f", O_WRONLY | O_NONBLOCK), ENXIO);
	r = CHECK_OK(open("f", O_RDONLY | O_NONBLOCK));
	CHECK_EQ(read(r, &c, 1), 0);	/* no writer yet: end of file, not EAGAIN */
	w = CHECK_OK(open("f", O_WRONLY | O_NONBLOCK));
	CHECK_ERRNO(read(r, &c, 1), EAGAIN);
	CHECK_EQ(write(w, "x", 1), 1);
	CHECK_EQ(read(r, &c, 1), 1);
}

TEST(fifo_rdwr_does_not_wait)
{
	char c;
	int fd;

	CHECK_OK(mkfifo("f", 0600));
	fd = CHECK_OK(open("f", O_RDWR));
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(read(fd, &c, 1), 1);
	CHECK_ERRNO(lseek(fd, 0, SEEK_SET), ESPIPE);
}

static void on_alarm(int sig UNUSED)
{
}

TEST(fifo_open_eintr)
{
	CHECK_OK(mkfifo("f", 0600));
	on_signal(SIGALRM, on_alarm);
	TICK_START();
	CHECK_ERRNO(open("f", O_RDONLY), EINTR);
	CHECK_ERRNO(open("f", O_WRONLY), EINTR);
}

TEST(fifo_data_is_gone_after_last_close)
{
	char c;
	int fd;

	CHECK_OK(mkfifo("f", 0600));
	fd = CHECK_OK(open("f", O_RDWR));
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_OK(close(fd));
	fd = CHECK_OK(open("f", O_RDWR | O_NONBLOCK));
	CHECK_ERRNO(read(fd, &c, 1), EAGAIN);
}

TEST(eventfd_counts)
{
	uint64_t v;
	int fd = CHECK_OK(eventfd(3, EFD_NONBLOCK));

	CHECK_EQ(read(fd, &v, 8), 8);
	CHECK_EQ(v, 3);
	CHECK_ERRNO(read(fd, &v, 8), EAGAIN);
	v = 5;
	CHECK_EQ(write(fd, &v, 8), 8);
	CHECK_EQ(write(fd, &v, 8), 8);
	CHECK_EQ(read(fd, &v, 8), 8);
	CHECK_EQ(v, 10);
}

TEST(eventfd_semaphore)
{
	uint64_t v;
	int fd = CHECK_OK(eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE));

	for (int i = 0; i < 2; i++) {
		CHECK_EQ(read(fd, &v, 8), 8);
		CHECK_EQ(v, 1);
	}
	CHECK_ERRNO(read(fd, &v, 8), EAGAIN);
}

TEST(eventfd_limits)
{
	uint64_t v = UINT64_MAX;
	struct pollfd pfd;
	int fd = CHECK_OK(eventfd(0, EFD_NONBLOCK));

	CHECK_ERRNO(write(fd, &v, 8), EINVAL);
	v = UINT64_MAX - 1;
	CHECK_EQ(write(fd, &v, 8), 8);
	pfd = (struct pollfd){ fd, POLLIN | POLLOUT, 0 };
	CHECK_EQ(poll(&pfd, 1, 0), 1);
	CHECK_EQ(pfd.revents, POLLIN);
	v = 1;
	CHECK_ERRNO(write(fd, &v, 8), EAGAIN);
	CHECK_ERRNO(write(fd, &v, 4), EINVAL);
	CHECK_ERRNO(read(fd, &v, 4), EINVAL);
	CHECK_ERRNO(eventfd(0, 0x1234), EINVAL);
}

TEST(eventfd_blocking_read)
{
	int fd = CHECK_OK(eventfd(0, 0));
	uint64_t v = 9;
	pid_t pid = FORK();

	if (!pid) {
		msleep(30);
		CHECK_EQ(write(fd, &v, 8), 8);
		_exit(0);
	}
	v = 0;
	CHECK_EQ(read(fd, &v, 8), 8);
	CHECK_EQ(v, 9);
	JOIN(pid);
}

TEST(dev_null)
{
	int fd = CHECK_OK(open("/dev/null", O_RDWR));
	struct stat st;
	char c;

	CHECK_EQ(write(fd, "xyz", 3), 3);
	CHECK_EQ(read(fd, &c, 1), 0);
	CHECK_EQ(lseek(fd, 100, SEEK_SET), 0);
	CHECK_OK(fstat(fd, &st));
	CHECK(S_ISCHR(st.st_mode));
	CHECK_EQ(st.st_rdev, makedev(1, 3));
	CHECK_OK(open("/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0644));
}

TEST(dev_zero)
{
	int fd = CHECK_OK(open("/dev/zero", O_RDWR));
	char buf[100];

	memset(buf, 1, sizeof(buf));
	CHECK_EQ(read(fd, buf, sizeof(buf)), sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		CHECK_EQ(buf[i], 0);
	CHECK_EQ(write(fd, buf, 10), 10);
}

TEST(dev_full)
{
	int fd = CHECK_OK(open("/dev/full", O_RDWR));
	char c = 1;

	CHECK_ERRNO(write(fd, "x", 1), ENOSPC);
	CHECK_EQ(read(fd, &c, 1), 1);
	CHECK_EQ(c, 0);
}

TEST(dev_random_and_urandom)
{
	char a[32], b[32];

	CHECK_EQ(read(CHECK_OK(open("/dev/urandom", O_RDONLY)), a, 32), 32);
	CHECK_EQ(read(CHECK_OK(open("/dev/random", O_RDONLY)), b, 32), 32);
	CHECK(memcmp(a, b, 32));
}

TEST(dev_fd_and_std_links)
{
	char link[64], path[64];
	int n = CHECK_OK(readlink("/dev/fd", link, sizeof(link) - 1)), fd;

	link[n] = 0;
	CHECK_STR(link, "/proc/self/fd");
	PUT_FILE("f", "abc");
	fd = CHECK_OK(open("f", O_RDONLY));
	snprintf(path, sizeof(path), "/dev/fd/%d", fd);
	CHECK_FILE(path, "abc");
	n = CHECK_OK(readlink("/dev/stdin", link, sizeof(link) - 1));
	link[n] = 0;
	CHECK_STR(link, "/proc/self/fd/0");
}

TEST(dev_shm)
{
	char name[64];
	int fd;

	snprintf(name, sizeof(name), "/dev/shm/conform-%d", getpid());
	fd = CHECK_OK(open(name, O_CREAT | O_EXCL | O_RDWR, 0600));
	CHECK_OK(ftruncate(fd, PAGE));
	CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	CHECK_OK(unlink(name));
}

TEST(getrandom_call)
{
	char a[64], b[64];

	CHECK_EQ(syscall(SYS_getrandom, a, 64L, 0), 64);
	CHECK_EQ(syscall(SYS_getrandom, b, 64L, 1 /* GRND_NONBLOCK */), 64);
	CHECK(memcmp(a, b, 64));
	CHECK_EQ(syscall(SYS_getrandom, a, 0L, 0), 0);
	CHECK_ERRNO(syscall(SYS_getrandom, a, 64L, 0x100), EINVAL);
	CHECK_ERRNO(syscall(SYS_getrandom, 8L, 64L, 0), EFAULT);
}

/* The writer that waited for us may write, close and end before our open has returned. */
TEST(fifo_writer_is_quick)
{
	for (int i = 0; i < 200; i++) {
		char c = 0;
		pid_t pid;
		int fd;

		CHECK_ZERO(mkfifo("quick", 0600));
		pid = FORK();
		if (!pid) {
			fd = open("quick", O_WRONLY);
			_exit(fd < 0 || write(fd, "x", 1) != 1);
		}
		fd = open("quick", O_RDONLY);
		CHECK_OK(fd);
		CHECK_EQ(read(fd, &c, 1), 1);
		CHECK_EQ(read(fd, &c, 1), 0);
		close(fd);
		CHECK_EXIT(pid, 0);
		CHECK_ZERO(unlink("quick"));
	}
}
