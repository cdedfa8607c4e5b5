/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing regular files: offsets, vectors, holes, truncation, allocation. */
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "test/conform/conform.h"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

static int make(const char *text)
{
	int fd = CHECK_OK(open("f", O_CREAT | O_RDWR | O_TRUNC, 0644));

	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	CHECK_OK(lseek(fd, 0, SEEK_SET));
	return fd;
}

static off_t size_of(int fd)
{
	struct stat st;

	CHECK_OK(fstat(fd, &st));
	return st.st_size;
}

TEST(read_to_end)
{
	int fd = make("hello");
	char buf[16];

	CHECK_EQ(read(fd, buf, 3), 3);
	CHECK_EQ(read(fd, buf, 16), 2);
	CHECK_EQ(read(fd, buf, 16), 0);
	CHECK_EQ(read(fd, buf, 0), 0);
}

TEST(write_past_end_makes_hole)
{
	int fd = make("ab");
	char buf[16];

	CHECK_OK(lseek(fd, 10, SEEK_SET));
	CHECK_EQ(size_of(fd), 2);
	CHECK_EQ(write(fd, "z", 1), 1);
	CHECK_EQ(size_of(fd), 11);
	CHECK_EQ(pread(fd, buf, 16, 0), 11);
	CHECK(!memcmp(buf, "ab\0\0\0\0\0\0\0\0z", 11));
}

TEST(pread_pwrite_leave_offset)
{
	int fd = make("0123456789");
	char c;

	CHECK_OK(lseek(fd, 4, SEEK_SET));
	CHECK_EQ(pread(fd, &c, 1, 7), 1);
	CHECK_EQ(c, '7');
	CHECK_EQ(pwrite(fd, "X", 1, 8), 1);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
	CHECK_EQ(pread(fd, &c, 1, 100), 0);
	CHECK_ERRNO(pread(fd, &c, 1, -1), EINVAL);
	CHECK_ERRNO(pwrite(fd, &c, 1, -1), EINVAL);
}

TEST(lseek_whence)
{
	int fd = make("0123456789");

	CHECK_EQ(lseek(fd, 3, SEEK_SET), 3);
	CHECK_EQ(lseek(fd, 3, SEEK_CUR), 6);
	CHECK_EQ(lseek(fd, -1, SEEK_END), 9);
	CHECK_EQ(lseek(fd, 100, SEEK_END), 110);
	CHECK_ERRNO(lseek(fd, -1, SEEK_SET), EINVAL);
	CHECK_ERRNO(lseek(fd, -200, SEEK_CUR), EINVAL);
	CHECK_ERRNO(lseek(fd, 0, 99), EINVAL);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 110);
}

TEST(lseek_on_pipe)
{
	int p[2];
	char c;

	CHECK_OK(pipe(p));
	CHECK_ERRNO(lseek(p[0], 0, SEEK_SET), ESPIPE);
	CHECK_ERRNO(pread(p[0], &c, 1, 0), ESPIPE);
	CHECK_ERRNO(pwrite(p[1], &c, 1, 0), ESPIPE);
	CHECK_ERRNO(ftruncate(p[1], 0), EINVAL);
}

TEST(seek_data_hole)
{
	int fd = make("");

	CHECK_OK(ftruncate(fd, 1 << 20));
	CHECK_EQ(pwrite(fd, "x", 1, 512 << 10), 1);
	CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 0);
	CHECK_EQ(lseek(fd, 0, SEEK_DATA), 512 << 10);
	CHECK_EQ(lseek(fd, 512 << 10, SEEK_DATA), 512 << 10);
	CHECK_EQ(lseek(fd, 512 << 10, SEEK_HOLE), (512 << 10) + PAGE);
	CHECK_ERRNO(lseek(fd, (512 << 10) + PAGE, SEEK_DATA), ENXIO);
	CHECK_ERRNO(lseek(fd, 1 << 20, SEEK_HOLE), ENXIO);
	CHECK_ERRNO(lseek(fd, 2 << 20, SEEK_DATA), ENXIO);
}

TEST(sparse_blocks)
{
	struct stat st;
	int fd = make("");

	CHECK_OK(ftruncate(fd, 1L << 30));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 1L << 30);
	CHECK(st.st_blocks < 64);
	CHECK_EQ(pwrite(fd, "x", 1, 1L << 29), 1);
	CHECK_OK(fsync(fd));
	CHECK_OK(fstat(fd, &st));
	CHECK(st.st_blocks >= 1 && st.st_blocks < 256);
}

TEST(truncate_shrink_and_grow)
{
	char buf[16];
	int fd = make("0123456789");

	CHECK_OK(ftruncate(fd, 4));
	CHECK_EQ(size_of(fd), 4);
	CHECK_OK(ftruncate(fd, 8));
	CHECK_EQ(pread(fd, buf, 16, 0), 8);
	CHECK(!memcmp(buf, "0123\0\0\0\0", 8));
	CHECK_OK(truncate("f", 2));
	CHECK_EQ(size_of(fd), 2);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
}

TEST(truncate_errors)
{
	int fd = make("x");

	CHECK_OK(mkdir("d", 0755));
	CHECK_ERRNO(truncate("no", 0), ENOENT);
	CHECK_ERRNO(truncate("d", 0), EISDIR);
	CHECK_ERRNO(truncate("f", -1), EINVAL);
	CHECK_ERRNO(ftruncate(fd, -1), EINVAL);
	CHECK_ERRNO(ftruncate(190, 0), EBADF);
	CHECK_ERRNO(truncate("f/x", 0), ENOTDIR);
}

TEST(readv_writev)
{
	char a[3], b[4], c[8];
	struct iovec w[3] = { { "abc", 3 }, { "", 0 }, { "defg", 4 } };
	struct iovec r[3] = { { a, 3 }, { b, 2 }, { c, 8 } };
	int fd = make("");

	CHECK_EQ(writev(fd, w, 3), 7);
	CHECK_OK(lseek(fd, 0, SEEK_SET));
	CHECK_EQ(readv(fd, r, 3), 7);
	CHECK(!memcmp(a, "abc", 3) && !memcmp(b, "de", 2) && !memcmp(c, "fg", 2));
}

TEST(readv_errors)
{
	struct iovec v[1] = { { NULL, (size_t)-1 } };
	int fd = make("abc");

	CHECK_ERRNO(readv(fd, v, -1), EINVAL);
	CHECK_ERRNO(readv(fd, v, 1025), EINVAL);
	CHECK_ERRNO(readv(fd, v, 1), EINVAL);
	CHECK_EQ(readv(fd, v, 0), 0);
	CHECK_ERRNO(readv(fd, (struct iovec *)8, 1), EFAULT);
	CHECK_ERRNO(readv(190, v, 1), EBADF);
}

TEST(preadv_pwritev)
{
	char a[2], b[8];
	struct iovec w[2] = { { "XY", 2 }, { "Z", 1 } }, r[2] = { { a, 2 }, { b, 8 } };
	int fd = make("0123456789");

	CHECK_EQ(pwritev(fd, w, 2, 4), 3);
	CHECK_EQ(preadv(fd, r, 2, 3), 7);
	CHECK(!memcmp(a, "3X", 2) && !memcmp(b, "YZ789", 5));
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
	CHECK_ERRNO(preadv(fd, r, 2, -5), EINVAL);
}

TEST(preadv2_flags)
{
	char a[4];
	struct iovec r = { a, 4 };
	int fd = make("0123456789");

	CHECK_EQ(preadv2(fd, &r, 1, -1, 0), 4);	/* -1: the file offset */
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
	CHECK_EQ(preadv2(fd, &r, 1, 1, 0), 4);
	CHECK_EQ(a[0], '1');
	CHECK_ERRNO(preadv2(fd, &r, 1, 0, 0x40000000), EOPNOTSUPP);
	r = (struct iovec){ "!", 1 };
	CHECK_EQ(pwritev2(fd, &r, 1, 0, RWF_APPEND), 1);
	CHECK_EQ(size_of(fd), 11);
	CHECK_EQ(pwritev2(fd, &r, 1, 0, RWF_DSYNC), 1);
}

TEST(partial_fault_writes_what_it_can)
{
	char *p = (char *)CHECK_OK(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	int fd = make("");

	CHECK_OK(munmap(p + PAGE, PAGE));
	memset(p, 'p', PAGE);
	CHECK_EQ(write(fd, p + PAGE - 10, 20), 10);
	CHECK_EQ(size_of(fd), 10);
	CHECK_ERRNO(write(fd, p + PAGE, 1), EFAULT);
}

TEST(fallocate_extends)
{
	struct stat st;
	int fd = make("abc");

	CHECK_OK(fallocate(fd, 0, 0, 65536));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 65536);
	CHECK(st.st_blocks * 512 >= 65536);
	CHECK_ZERO(posix_fallocate(fd, 0, 100));
	CHECK_EQ(size_of(fd), 65536);
}

TEST(fallocate_keep_size)
{
	int fd = make("abc");

	CHECK_OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 65536));
	CHECK_EQ(size_of(fd), 3);
}

TEST(fallocate_punch_hole)
{
	char buf[3 * 4096];
	int fd = make("");

	memset(buf, 'h', sizeof(buf));
	CHECK_EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	CHECK_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 8000));
	CHECK_EQ(pread(fd, buf, sizeof(buf), 0), sizeof(buf));
	CHECK_EQ(buf[99], 'h');
	for (int i = 100; i < 8100; i++)
		CHECK(buf[i] == 0);
	CHECK_EQ(buf[8100], 'h');
	CHECK_EQ(size_of(fd), sizeof(buf));
}

TEST(fallocate_errors)
{
	int fd = make("abc"), ro = CHECK_OK(open("f", O_RDONLY)), p[2];

	CHECK_OK(pipe(p));
	CHECK_ERRNO(fallocate(fd, 0, -1, 10), EINVAL);
	CHECK_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
	CHECK_ERRNO(fallocate(ro, 0, 0, 10), EBADF);
	CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
	CHECK_ERRNO(fallocate(p[1], 0, 0, 10), ESPIPE);
	CHECK_ERRNO(fallocate(fd, 0x4000, 0, 10), EOPNOTSUPP);
}

TEST(sync_family)
{
	int fd = make("abc"), p[2];

	CHECK_OK(pipe(p));
	CHECK_OK(fsync(fd));
	CHECK_OK(fdatasync(fd));
	CHECK_OK(syncfs(fd));
	CHECK_OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
	CHECK_ERRNO(fsync(p[0]), EINVAL);
	CHECK_ERRNO(fsync(190), EBADF);
	CHECK_ERRNO(syncfs(190), EBADF);
}

TEST(fadvise)
{
	int fd = make("abc"), p[2];

	CHECK_OK(pipe(p));
	CHECK_ZERO(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	CHECK_EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
	CHECK_EQ(posix_fadvise(p[0], 0, 0, POSIX_FADV_NORMAL), ESPIPE);
	CHECK_EQ(posix_fadvise(190, 0, 0, POSIX_FADV_NORMAL), EBADF);
}

TEST(sendfile_to_file_and_pipe)
{
	char buf[16];
	off_t off = 2;
	int in = make("0123456789"), out, p[2];

	out = CHECK_OK(open("out", O_CREAT | O_RDWR, 0644));
	CHECK_OK(pipe(p));
	CHECK_EQ(sendfile(out, in, &off, 4), 4);
	CHECK_EQ(off, 6);
	CHECK_EQ(lseek(in, 0, SEEK_CUR), 0);
	CHECK_FILE("out", "2345");
	CHECK_EQ(sendfile(p[1], in, NULL, 100), 10);
	CHECK_EQ(lseek(in, 0, SEEK_CUR), 10);
	CHECK_EQ(read(p[0], buf, 16), 10);
	CHECK_EQ(sendfile(out, in, NULL, 100), 0);
}

TEST(sendfile_errors)
{
	int in = make("abc"), ro = CHECK_OK(open("f", O_RDONLY)), p[2];
	off_t off = -1;

	CHECK_OK(pipe(p));
	CHECK_ERRNO(sendfile(ro, in, NULL, 1), EBADF);
	CHECK_ERRNO(sendfile(p[1], 190, NULL, 1), EBADF);
	CHECK_ERRNO(sendfile(p[1], in, &off, 1), EINVAL);
}

TEST(copy_file_range_basic)
{
	off_t from = 3, to = 1;
	int in = make("0123456789"), out = CHECK_OK(open("out", O_CREAT | O_RDWR, 0644));

	CHECK_EQ(write(out, "abcdefgh", 8), 8);
	CHECK_EQ(copy_file_range(in, &from, out, &to, 3, 0), 3);
	CHECK_EQ(from, 6);
	CHECK_EQ(to, 4);
	CHECK_FILE("out", "a345efgh");
	CHECK_EQ(copy_file_range(in, NULL, out, NULL, 100, 0), 10);
	CHECK_FILE("out", "a345efgh0123456789");
	CHECK_EQ(copy_file_range(in, NULL, out, NULL, 100, 0), 0);
}

TEST(copy_file_range_errors)
{
	off_t a = 0, b = 1;
	int fd = make("0123456789"), ro = CHECK_OK(open("f", O_RDONLY)), p[2];
	int ap = CHECK_OK(open("f", O_WRONLY | O_APPEND));

	CHECK_OK(pipe(p));
	CHECK_ERRNO(copy_file_range(fd, NULL, ro, NULL, 1, 0), EBADF);
	CHECK_ERRNO(copy_file_range(fd, NULL, ap, NULL, 1, 0), EBADF);
	CHECK_ERRNO(copy_file_range(fd, NULL, p[1], NULL, 1, 0), EINVAL);
	CHECK_ERRNO(copy_file_range(fd, &a, fd, &b, 5, 0), EINVAL);	/* overlapping */
	CHECK_ERRNO(copy_file_range(fd, &a, fd, &b, 1, 1), EINVAL);
	CHECK_ERRNO(copy_file_range(CHECK_OK(open(".", O_RDONLY)), NULL, fd, NULL, 1, 0), EISDIR);
}

TEST(large_writes_read_back)
{
	char *buf = malloc(1 << 20), *back = malloc(1 << 20);
	int fd = make("");

	for (int i = 0; i < 1 << 20; i++)
		buf[i] = (char)(i * 31 + (i >> 12));
	CHECK_EQ(write(fd, buf, 1 << 20), 1 << 20);
	CHECK_EQ(pread(fd, back, 1 << 20, 0), 1 << 20);
	CHECK(!memcmp(buf, back, 1 << 20));
	for (int off = 1; off < 1 << 20; off += 99991)
		CHECK_EQ(pread(fd, back, 5000, off), (1 << 20) - off < 5000 ? (1 << 20) - off
									    : 5000);
}

TEST(offset_beyond_four_gigabytes)
{
	int fd = make("");
	char c;

	CHECK_EQ(pwrite(fd, "B", 1, 5L << 30), 1);
	CHECK_EQ(size_of(fd), (5L << 30) + 1);
	CHECK_EQ(pread(fd, &c, 1, 5L << 30), 1);
	CHECK_EQ(c, 'B');
	CHECK_EQ(pread(fd, &c, 1, 1L << 30), 1);
	CHECK_EQ(c, 0);
	CHECK_EQ(lseek(fd, 0, SEEK_END), (5L << 30) + 1);
}

TEST(offset_overflow)
{
	int fd = make("");

	CHECK_ERRNO(pwrite(fd, "x", 1, INT64_MAX), EINVAL);
	CHECK_ERRNO(lseek(fd, INT64_MIN, SEEK_SET), EINVAL);
}

TEST(fionread)
{
	int fd = make("0123456789"), n = -1;

	CHECK_OK(lseek(fd, 4, SEEK_SET));
	CHECK_OK(ioctl(fd, FIONREAD, &n));
	CHECK_EQ(n, 6);
	CHECK_ERRNO(ioctl(fd, 0x12345678, &n), ENOTTY);
	CHECK_ERRNO(ioctl(190, FIONREAD, &n), EBADF);
}

TEST(fioclex_and_fionbio)
{
	int fd = make("x"), on = 1;

	CHECK_OK(ioctl(fd, FIOCLEX));
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_OK(ioctl(fd, FIONCLEX));
	CHECK_EQ(fcntl(fd, F_GETFD), 0);
	CHECK_OK(ioctl(fd, FIONBIO, &on));
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

TEST(concurrent_appends_do_not_overlap)
{
	char buf[10], all[4096];
	pid_t pid[4];
	int counts[4] = { 0, 0, 0, 0 }, n;

	for (int i = 0; i < 4; i++) {
		pid[i] = FORK();
		if (!pid[i]) {
			int fd = CHECK_OK(open("log", O_CREAT | O_WRONLY | O_APPEND, 0644));

			memset(buf, 'a' + i, 10);
			for (int j = 0; j < 50; j++)
				CHECK_EQ(write(fd, buf, 10), 10);
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++)
		JOIN(pid[i]);
	n = get_file("log", all, sizeof(all));
	CHECK_EQ(n, 2000);
	for (int i = 0; i < n; i += 10) {
		for (int j = 1; j < 10; j++)
			CHECK(all[i + j] == all[i]);
		counts[all[i] - 'a']++;
	}
	for (int i = 0; i < 4; i++)
		CHECK_EQ(counts[i], 50);
}

TEST(shared_offset_writes_do_not_overlap)
{
	int fd = make("");
	pid_t pid[3];

	for (int i = 0; i < 3; i++) {
		pid[i] = FORK();
		if (!pid[i]) {
			for (int j = 0; j < 50; j++)
				CHECK_EQ(write(fd, "12345", 5), 5);
			_exit(0);
		}
	}
	for (int i = 0; i < 3; i++)
		JOIN(pid[i]);
	CHECK_EQ(size_of(fd), 750);
}
