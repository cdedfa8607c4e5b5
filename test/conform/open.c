/* SPDX-License-Identifier: Apache-2.0 */
/* open, openat and openat2: flags, errors, descriptors, and what fcntl says about them. */
#include <linux/openat2.h>

#include "test/conform/conform.h"

static int openat2(int dir, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct open_how how = { flags, mode, resolve };

	return syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

TEST(lowest_free_descriptor)
{
	int a = CHECK_OK(open("/dev/null", O_RDONLY));

	CHECK_EQ(a, 3);
	CHECK_EQ(open("/dev/null", O_RDONLY), 4);
	CHECK_EQ(open("/dev/null", O_RDONLY), 5);
	CHECK_OK(close(4));
	CHECK_EQ(open("/dev/null", O_RDONLY), 4);
	CHECK_EQ(open("/dev/null", O_RDONLY), 6);
}

TEST(close_twice)
{
	int fd = CHECK_OK(open("/dev/null", O_RDONLY));

	CHECK_OK(close(fd));
	CHECK_ERRNO(close(fd), EBADF);
	CHECK_ERRNO(close(-1), EBADF);
}

TEST(creat_mode_and_umask)
{
	struct stat st;

	umask(027);
	CHECK_OK(open("a", O_CREAT | O_WRONLY, 0666));
	CHECK_OK(stat("a", &st));
	CHECK_EQ(st.st_mode, S_IFREG | 0640);
	umask(0);
	CHECK_OK(open("b", O_CREAT | O_WRONLY, 07777));
	CHECK_OK(stat("b", &st));
	CHECK_EQ(st.st_mode, S_IFREG | 07777);
	CHECK_OK(creat("c", 0600));
	CHECK_OK(stat("c", &st));
	CHECK_EQ(st.st_mode, S_IFREG | 0600);
}

TEST(creat_readonly_mode_still_writes)
{
	int fd = CHECK_OK(open("f", O_CREAT | O_WRONLY, 0400));

	CHECK_EQ(write(fd, "x", 1), 1);
}

TEST(excl)
{
	CHECK_OK(open("f", O_CREAT | O_EXCL | O_WRONLY, 0644));
	CHECK_ERRNO(open("f", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
	CHECK_OK(symlink("nowhere", "link"));
	CHECK_ERRNO(open("link", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
	CHECK_OK(mkdir("d", 0755));
	CHECK_ERRNO(open("d", O_CREAT | O_EXCL | O_RDONLY, 0644), EEXIST);
}

TEST(creat_through_dangling_link)
{
	struct stat st;

	CHECK_OK(symlink("target", "link"));
	CHECK_OK(open("link", O_CREAT | O_WRONLY, 0644));
	CHECK_OK(lstat("target", &st));
	CHECK(S_ISREG(st.st_mode));
}

TEST(creat_errors)
{
	CHECK_OK(mkdir("d", 0755));
	CHECK_ERRNO(open("missing/f", O_CREAT | O_WRONLY, 0644), ENOENT);
	CHECK_ERRNO(open("new/", O_CREAT | O_WRONLY, 0644), EISDIR);
	CHECK_ERRNO(open("d", O_CREAT | O_WRONLY, 0644), EISDIR);
	CHECK_ERRNO(open("d", O_CREAT | O_RDONLY, 0644), EISDIR);
	CHECK_ERRNO(open(".", O_CREAT | O_RDONLY, 0644), EISDIR);
	CHECK_ERRNO(open("", O_CREAT | O_WRONLY, 0644), ENOENT);
	PUT_FILE("f", "");
	CHECK_ERRNO(open("f/x", O_CREAT | O_WRONLY, 0644), ENOTDIR);
}

TEST(trunc)
{
	struct stat st;

	PUT_FILE("f", "contents");
	CHECK_OK(open("f", O_WRONLY | O_TRUNC));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_size, 0);
}

TEST(append)
{
	int fd, other;

	PUT_FILE("f", "12345");
	fd = CHECK_OK(open("f", O_RDWR | O_APPEND));
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
	CHECK_EQ(write(fd, "a", 1), 1);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6);
	other = CHECK_OK(open("f", O_WRONLY | O_APPEND));
	CHECK_EQ(write(other, "b", 1), 1);
	CHECK_OK(lseek(fd, 0, SEEK_SET));
	CHECK_EQ(write(fd, "c", 1), 1);
	CHECK_EQ(pwrite(fd, "d", 1, 0), 1);	/* appends too, on Linux */
	CHECK_FILE("f", "12345abcd");
}

TEST(access_mode_is_enforced)
{
	int fd;
	char c;

	PUT_FILE("f", "x");
	fd = CHECK_OK(open("f", O_RDONLY));
	CHECK_ERRNO(write(fd, "y", 1), EBADF);
	CHECK_ERRNO(ftruncate(fd, 0), EINVAL);
	fd = CHECK_OK(open("f", O_WRONLY));
	CHECK_ERRNO(read(fd, &c, 1), EBADF);
}

TEST(directory_flag)
{
	PUT_FILE("f", "");
	CHECK_ERRNO(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
	CHECK_OK(symlink(".", "here"));
	CHECK_OK(open("here", O_RDONLY | O_DIRECTORY));
	CHECK_ERRNO(open("here", O_RDONLY | O_DIRECTORY | O_NOFOLLOW), ENOTDIR);
	CHECK_ERRNO(open(".", O_WRONLY), EISDIR);
	CHECK_ERRNO(open(".", O_RDWR), EISDIR);
}

TEST(directory_cannot_be_read)
{
	int fd = CHECK_OK(open(".", O_RDONLY));
	char c;

	CHECK_ERRNO(read(fd, &c, 1), EISDIR);
	CHECK_ERRNO(write(fd, &c, 1), EBADF);
	CHECK_ERRNO(ftruncate(fd, 0), EINVAL);
}

TEST(nofollow)
{
	PUT_FILE("f", "");
	CHECK_OK(symlink("f", "link"));
	CHECK_OK(symlink(".", "dirlink"));
	CHECK_ERRNO(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
	CHECK_OK(open("dirlink/f", O_RDONLY | O_NOFOLLOW));
	CHECK_ERRNO(open("link", O_CREAT | O_WRONLY | O_NOFOLLOW, 0644), ELOOP);
}

TEST(path_flag)
{
	struct stat st;
	int fd;
	char c;

	PUT_FILE("f", "x");
	CHECK_OK(chmod("f", 0));
	fd = CHECK_OK(open("f", O_PATH));
	CHECK_ERRNO(read(fd, &c, 1), EBADF);
	CHECK_ERRNO(write(fd, &c, 1), EBADF);
	CHECK_ERRNO(fchmod(fd, 0644), EBADF);
	CHECK_ERRNO(lseek(fd, 0, SEEK_SET), EBADF);
	CHECK_ERRNO(ftruncate(fd, 0), EBADF);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 1);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_PATH, O_PATH);
	CHECK_OK(dup(fd));
	CHECK_OK(close(fd));
}

TEST(path_of_symlink)
{
	struct stat st;
	char buf[16];
	int fd;

	CHECK_OK(symlink("nowhere", "link"));
	fd = CHECK_OK(open("link", O_PATH | O_NOFOLLOW));
	CHECK_OK(fstat(fd, &st));
	CHECK(S_ISLNK(st.st_mode));
	CHECK_EQ(readlinkat(fd, "", buf, sizeof(buf)), 7);
	CHECK_ERRNO(open("link", O_PATH), ENOENT);
}

TEST(path_as_directory)
{
	int d;

	CHECK_OK(mkdir("d", 0755));
	d = CHECK_OK(open("d", O_PATH));
	CHECK_OK(openat(d, "f", O_CREAT | O_WRONLY, 0644));
	CHECK_OK(fchdir(d));
	CHECK_OK(access("f", F_OK));
}

TEST(tmpfile)
{
	struct stat st;
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);
	char path[64], c;

	if (fd < 0 && errno == EOPNOTSUPP)
		SKIP("no O_TMPFILE on this filesystem");
	CHECK_OK(fd);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_nlink, 0);
	CHECK_EQ(write(fd, "t", 1), 1);
	CHECK_EQ(pread(fd, &c, 1, 0), 1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK_OK(linkat(AT_FDCWD, path, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW));
	CHECK_FILE("linked", "t");
	CHECK_ERRNO(open(".", O_TMPFILE | O_RDONLY, 0600), EINVAL);
}

TEST(cloexec)
{
	int fd = CHECK_OK(open("/dev/null", O_RDONLY | O_CLOEXEC));

	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_OK(fcntl(fd, F_SETFD, 0));
	CHECK_EQ(fcntl(fd, F_GETFD), 0);
	CHECK_EQ(fcntl(CHECK_OK(open("/dev/null", O_RDONLY)), F_GETFD), 0);
}

TEST(getfl)
{
	int fd = CHECK_OK(open("f", O_CREAT | O_RDWR | O_APPEND | O_NONBLOCK | O_EXCL, 0644));

	CHECK_EQ(fcntl(fd, F_GETFL) & ~O_LARGEFILE & ~0100000, O_RDWR | O_APPEND | O_NONBLOCK);
	CHECK_OK(fcntl(fd, F_SETFL, 0));
	CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_RDWR);
	CHECK_OK(fcntl(fd, F_SETFL, O_APPEND | O_WRONLY));
	CHECK_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND), O_RDWR | O_APPEND);
}

TEST(status_flags_are_shared_by_dup)
{
	int fd = CHECK_OK(open("f", O_CREAT | O_RDWR, 0644)), d = CHECK_OK(dup(fd));

	CHECK_OK(fcntl(fd, F_SETFL, O_APPEND));
	CHECK(fcntl(d, F_GETFL) & O_APPEND);
	CHECK_OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
	CHECK_EQ(fcntl(d, F_GETFD), 0);
}

TEST(fcntl_errors)
{
	CHECK_ERRNO(fcntl(190, F_GETFD), EBADF);
	CHECK_ERRNO(fcntl(0, 9999), EINVAL);
	CHECK_ERRNO(fcntl(0, F_DUPFD, -1), EINVAL);
	CHECK_ERRNO(fcntl(0, F_DUPFD, 1 << 30), EINVAL);
}

TEST(dup_family)
{
	int fd = CHECK_OK(open("f", O_CREAT | O_RDWR, 0644)), d;

	CHECK_EQ(write(fd, "abc", 3), 3);
	d = CHECK_OK(dup(fd));
	CHECK_EQ(d, fd + 1);
	CHECK_EQ(lseek(d, 0, SEEK_CUR), 3);
	CHECK_EQ(dup2(fd, 50), 50);
	CHECK_EQ(dup2(fd, fd), fd);
	CHECK_EQ(dup3(fd, 51, O_CLOEXEC), 51);
	CHECK_EQ(fcntl(51, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(fd, F_DUPFD, 60), 60);
	CHECK_EQ(fcntl(fd, F_DUPFD, 60), 61);
	CHECK_EQ(fcntl(fd, F_DUPFD_CLOEXEC, 60), 62);
	CHECK_EQ(fcntl(62, F_GETFD), FD_CLOEXEC);
}

TEST(dup_errors)
{
	CHECK_ERRNO(dup(190), EBADF);
	CHECK_ERRNO(dup2(190, 5), EBADF);
	CHECK_ERRNO(dup2(190, 190), EBADF);
	CHECK_ERRNO(dup2(0, -1), EBADF);
	CHECK_ERRNO(dup3(0, 0, 0), EINVAL);
	CHECK_ERRNO(dup3(0, 5, 0x40), EINVAL);
}

TEST(dup2_closes_target)
{
	int p[2], q[2];
	char c;

	CHECK_OK(pipe(p));
	CHECK_OK(pipe(q));
	CHECK_EQ(dup2(q[1], p[1]), p[1]);	/* the first pipe has no writer now */
	CHECK_EQ(read(p[0], &c, 1), 0);
}

TEST(close_range)
{
	int fds[5];

	for (int i = 0; i < 5; i++)
		fds[i] = CHECK_OK(fcntl(0, F_DUPFD, 100 + i));
	CHECK_OK(syscall(SYS_close_range, 101, 102, 0));
	CHECK_OK(fcntl(100, F_GETFD));
	CHECK_ERRNO(fcntl(101, F_GETFD), EBADF);
	CHECK_ERRNO(fcntl(102, F_GETFD), EBADF);
	CHECK_OK(fcntl(103, F_GETFD));
	CHECK_OK(syscall(SYS_close_range, 103, 150, 4 /* CLOSE_RANGE_CLOEXEC */));
	CHECK_EQ(fcntl(103, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(100, F_GETFD), 0);
	CHECK_ERRNO(syscall(SYS_close_range, 5, 4, 0), EINVAL);
	CHECK_ERRNO(syscall(SYS_close_range, 5, 6, 0x100), EINVAL);
	CHECK_EQ(fds[4], 104);
}

TEST(openat_relative)
{
	int d;

	CHECK_OK(mkdir("d", 0755));
	d = CHECK_OK(open("d", O_RDONLY | O_DIRECTORY));
	CHECK_OK(openat(d, "f", O_CREAT | O_WRONLY, 0644));
	CHECK_OK(access("d/f", F_OK));
	CHECK_OK(openat(d, "../d/f", O_RDONLY));
	CHECK_OK(openat(190, "/dev/null", O_RDONLY));
	CHECK_ERRNO(openat(190, "f", O_RDONLY), EBADF);
	CHECK_ERRNO(openat(0, "f", O_RDONLY), ENOTDIR);
}

TEST(openat_in_removed_directory)
{
	int d;

	CHECK_OK(mkdir("d", 0755));
	d = CHECK_OK(open("d", O_RDONLY));
	CHECK_OK(rmdir("d"));
	CHECK_ERRNO(openat(d, "f", O_CREAT | O_WRONLY, 0644), ENOENT);
	CHECK_OK(openat(d, ".", O_RDONLY));
}

TEST(openat2_basics)
{
	PUT_FILE("f", "x");
	CHECK_OK(openat2(AT_FDCWD, "f", O_RDONLY, 0, 0));
	CHECK_ERRNO(openat2(AT_FDCWD, "f", O_RDONLY, 0644, 0), EINVAL);
	CHECK_ERRNO(openat2(AT_FDCWD, "f", 1ULL << 40, 0, 0), EINVAL);
	CHECK_ERRNO(openat2(AT_FDCWD, "f", O_RDONLY, 0, 1ULL << 30), EINVAL);
	CHECK_ERRNO(openat2(AT_FDCWD, "g", O_CREAT, 0200000, 0), EINVAL);
	CHECK_OK(openat2(AT_FDCWD, "g", O_CREAT | O_WRONLY, 0600, 0));
}

TEST(openat2_size)
{
	struct {
		struct open_how how;
		uint64_t extra;
	} big = { { O_RDONLY, 0, 0 }, 0 };

	PUT_FILE("f", "x");
	CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, "f", &big, 8L), EINVAL);
	CHECK_OK(syscall(SYS_openat2, AT_FDCWD, "f", &big, sizeof(big)));
	big.extra = 1;
	CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, "f", &big, sizeof(big)), E2BIG);
}

TEST(resolve_no_symlinks)
{
	PUT_FILE("f", "x");
	CHECK_OK(symlink("f", "link"));
	CHECK_OK(symlink(".", "here"));
	CHECK_ERRNO(openat2(AT_FDCWD, "link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS), ELOOP);
	CHECK_ERRNO(openat2(AT_FDCWD, "here/f", O_RDONLY, 0, RESOLVE_NO_SYMLINKS), ELOOP);
	CHECK_OK(openat2(AT_FDCWD, "f", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
}

TEST(resolve_beneath)
{
	int d;

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("d/sub", 0755));
	PUT_FILE("d/f", "x");
	PUT_FILE("out", "x");
	CHECK_OK(symlink("../out", "d/escape"));
	CHECK_OK(symlink("/etc", "d/abs"));
	CHECK_OK(symlink("sub/../f", "d/fine"));
	d = CHECK_OK(open("d", O_RDONLY));
	CHECK_OK(openat2(d, "f", O_RDONLY, 0, RESOLVE_BENEATH));
	CHECK_OK(openat2(d, "sub/../f", O_RDONLY, 0, RESOLVE_BENEATH));
	CHECK_OK(openat2(d, "fine", O_RDONLY, 0, RESOLVE_BENEATH));
	CHECK_ERRNO(openat2(d, "../out", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
	CHECK_ERRNO(openat2(d, "escape", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
	CHECK_ERRNO(openat2(d, "abs", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
	CHECK_ERRNO(openat2(d, "/dev/null", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
}

TEST(resolve_in_root)
{
	int d;

	CHECK_OK(mkdir("d", 0755));
	PUT_FILE("d/f", "inside");
	CHECK_OK(symlink("/f", "d/abs"));
	CHECK_OK(symlink("../../../f", "d/up"));
	d = CHECK_OK(open("d", O_RDONLY));
	CHECK_OK(openat2(d, "/f", O_RDONLY, 0, RESOLVE_IN_ROOT));
	CHECK_OK(openat2(d, "abs", O_RDONLY, 0, RESOLVE_IN_ROOT));
	CHECK_OK(openat2(d, "up", O_RDONLY, 0, RESOLVE_IN_ROOT));
	CHECK_OK(openat2(d, "../../f", O_RDONLY, 0, RESOLVE_IN_ROOT));
	CHECK_ERRNO(openat2(d, "/etc/passwd", O_RDONLY, 0, RESOLVE_IN_ROOT), ENOENT);
}

TEST(resolve_no_magiclinks_and_no_xdev)
{
	PUT_FILE("f", "x");
	CHECK_OK(openat2(AT_FDCWD, "/proc/self/exe", O_RDONLY, 0, 0));
	CHECK_ERRNO(openat2(AT_FDCWD, "/proc/self/exe", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS), ELOOP);
	CHECK_ERRNO(openat2(AT_FDCWD, "/proc/self", O_RDONLY, 0, RESOLVE_NO_XDEV), EXDEV);
	CHECK_OK(openat2(AT_FDCWD, "f", O_RDONLY, 0, RESOLVE_NO_XDEV));
}

TEST(path_walk_errors)
{
	char name[300];

	PUT_FILE("f", "x");
	CHECK_ERRNO(open("", O_RDONLY), ENOENT);
	CHECK_ERRNO(open("missing", O_RDONLY), ENOENT);
	CHECK_ERRNO(open("missing/x", O_RDONLY), ENOENT);
	CHECK_ERRNO(open("f/x", O_RDONLY), ENOTDIR);
	CHECK_ERRNO(open("f/", O_RDONLY), ENOTDIR);
	CHECK_ERRNO(open("f/.", O_RDONLY), ENOTDIR);
	memset(name, 'n', 256);
	name[256] = 0;
	CHECK_ERRNO(open(name, O_RDONLY), ENAMETOOLONG);
	name[255] = 0;
	CHECK_ERRNO(open(name, O_RDONLY), ENOENT);
	CHECK_OK(open(name, O_CREAT | O_WRONLY, 0644));
	CHECK_ERRNO(open((char *)8, O_RDONLY), EFAULT);
}

TEST(path_max)
{
	static char path[8192];

	for (int i = 0; i < 4096; i += 2)
		memcpy(path + i, "./", 2);
	path[4096] = 0;
	CHECK_ERRNO(open(path, O_RDONLY), ENAMETOOLONG);
	path[4095] = 0;
	CHECK_OK(open(path, O_RDONLY));
}

TEST(slashes_and_dots)
{
	CHECK_OK(mkdir("d", 0755));
	PUT_FILE("d/f", "x");
	CHECK_OK(open("d//f", O_RDONLY));
	CHECK_OK(open("./d/./f", O_RDONLY));
	CHECK_OK(open("d/../d/f", O_RDONLY));
	CHECK_OK(open("/../../dev/null", O_RDONLY));
	CHECK_OK(open("d///", O_RDONLY));
	CHECK_OK(open("//dev//null", O_RDONLY));
}

TEST(symlink_chains)
{
	char from[16], to[16];

	PUT_FILE("l0", "x");
	for (int i = 1; i <= 41; i++) {
		snprintf(from, sizeof(from), "l%d", i);
		snprintf(to, sizeof(to), "l%d", i - 1);
		CHECK_OK(symlink(to, from));
	}
	CHECK_OK(open("l40", O_RDONLY));
	CHECK_ERRNO(open("l41", O_RDONLY), ELOOP);
	CHECK_OK(symlink("self", "self"));
	CHECK_ERRNO(open("self", O_RDONLY), ELOOP);
}

TEST(nonblock_and_sync_flags_on_files)
{
	int fd = CHECK_OK(open("f", O_CREAT | O_RDWR | O_SYNC | O_NONBLOCK, 0644));

	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_SYNC, O_SYNC);
	CHECK_OK(open("f", O_RDWR | O_DSYNC));
}

TEST(noatime_needs_owner)
{
	pid_t pid;

	NEED_ROOT();
	PUT_FILE("f", "x");
	CHECK_OK(open("f", O_RDONLY | O_NOATIME));
	pid = FORK();
	if (!pid) {
		BECOME_NOBODY();
		CHECK_ERRNO(open("f", O_RDONLY | O_NOATIME), EPERM);
		_exit(0);
	}
	JOIN(pid);
}

TEST(unlinked_file_lives_on)
{
	int fd = CHECK_OK(open("f", O_CREAT | O_RDWR, 0644));
	struct stat st;
	char c;

	CHECK_EQ(write(fd, "u", 1), 1);
	CHECK_OK(unlink("f"));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_nlink, 0);
	CHECK_EQ(pread(fd, &c, 1, 0), 1);
	CHECK_ERRNO(open("f", O_RDONLY), ENOENT);
}

TEST(reopen_through_proc)
{
	char path[64];
	int fd = CHECK_OK(open("f", O_CREAT | O_WRONLY, 0644)), again;

	CHECK_EQ(write(fd, "abc", 3), 3);
	CHECK_OK(unlink("f"));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = CHECK_OK(open(path, O_RDONLY));
	CHECK_EQ(lseek(again, 0, SEEK_CUR), 0);
	CHECK_EQ(read(again, path, 10), 3);
}
