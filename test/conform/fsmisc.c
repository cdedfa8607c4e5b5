/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes, memfd and seals, mounts, statfs, splice and friends. */
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include "test/conform/conform.h"

/* Where extended attributes of ordinary users work at all. */
static void need_xattr(void)
{
	PUT_FILE("f", "");
	if (setxattr("f", "user.probe", "", 0, 0) < 0 && errno == EOPNOTSUPP)
		SKIP("no user extended attributes on this filesystem");
}

TEST(xattr_set_get)
{
	char buf[16];

	need_xattr();
	CHECK_OK(setxattr("f", "user.a", "value", 5, 0));
	CHECK_EQ(getxattr("f", "user.a", buf, 16), 5);
	CHECK(!memcmp(buf, "value", 5));
	CHECK_EQ(getxattr("f", "user.a", NULL, 0), 5);
	CHECK_ERRNO(getxattr("f", "user.a", buf, 4), ERANGE);
	CHECK_OK(setxattr("f", "user.a", "", 0, 0));
	CHECK_EQ(getxattr("f", "user.a", buf, 16), 0);
}

TEST(xattr_flags)
{
	need_xattr();
	CHECK_ERRNO(setxattr("f", "user.n", "x", 1, XATTR_REPLACE), ENODATA);
	CHECK_OK(setxattr("f", "user.n", "x", 1, XATTR_CREATE));
	CHECK_ERRNO(setxattr("f", "user.n", "x", 1, XATTR_CREATE), EEXIST);
	CHECK_OK(setxattr("f", "user.n", "y", 1, XATTR_REPLACE));
	CHECK_ERRNO(setxattr("f", "user.n", "y", 1, 0x40), EINVAL);
}

TEST(xattr_list_and_remove)
{
	char buf[256];
	int n, seen = 0;

	need_xattr();
	CHECK_OK(removexattr("f", "user.probe"));
	CHECK_OK(setxattr("f", "user.one", "1", 1, 0));
	CHECK_OK(setxattr("f", "user.two", "2", 1, 0));
	n = CHECK_OK(listxattr("f", buf, sizeof(buf)));
	for (char *p = buf; p < buf + n; p += strlen(p) + 1)
		seen += !strcmp(p, "user.one") ? 1 : !strcmp(p, "user.two") ? 10 : 0;
	CHECK_EQ(seen, 11);
	CHECK_ERRNO(listxattr("f", buf, 3), ERANGE);
	CHECK_OK(removexattr("f", "user.one"));
	CHECK_ERRNO(removexattr("f", "user.one"), ENODATA);
	CHECK_ERRNO(getxattr("f", "user.one", buf, 8), ENODATA);
}

TEST(xattr_errors)
{
	char name[300];

	need_xattr();
	CHECK_ERRNO(setxattr("f", "nonamespace", "x", 1, 0), EOPNOTSUPP);
	CHECK_ERRNO(setxattr("f", "bogus.name", "x", 1, 0), EOPNOTSUPP);
	CHECK_ERRNO(setxattr("f", "", "x", 1, 0), ERANGE);
	CHECK_ERRNO(setxattr("no", "user.a", "x", 1, 0), ENOENT);
	CHECK_ERRNO(setxattr("f", "user.a", "x", 1 << 20, 0), E2BIG);
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[256] = 0;
	CHECK_ERRNO(setxattr("f", name, "x", 1, 0), ERANGE);
	CHECK_ERRNO(fgetxattr(190, "user.a", NULL, 0), EBADF);
}

TEST(xattr_of_descriptor_and_symlink)
{
	char buf[8];
	int fd;

	need_xattr();
	fd = CHECK_OK(open("f", O_RDONLY));
	CHECK_OK(fsetxattr(fd, "user.fd", "v", 1, 0));
	CHECK_OK(symlink("f", "l"));
	CHECK_EQ(getxattr("l", "user.fd", buf, 8), 1);
	CHECK_ERRNO(lgetxattr("l", "user.fd", buf, 8), ENODATA);
	CHECK_ERRNO(lsetxattr("l", "user.x", "v", 1, 0), EPERM);
}

TEST(xattr_trusted_needs_privilege)
{
	pid_t pid;

	NEED_ROOT();
	need_xattr();
	CHECK_OK(setxattr("f", "trusted.t", "secret", 6, 0));
	CHECK_EQ(getxattr("f", "trusted.t", NULL, 0), 6);
	pid = FORK();
	if (!pid) {
		char buf[256];
		int n;

		BECOME_NOBODY();
		CHECK_ERRNO(getxattr("f", "trusted.t", NULL, 0), ENODATA);
		n = CHECK_OK(listxattr("f", buf, sizeof(buf)));
		for (char *p = buf; p < buf + n; p += strlen(p) + 1)
			CHECK(strcmp(p, "trusted.t"));
		CHECK_ERRNO(setxattr("f", "user.q", "x", 1, 0), EACCES);
		_exit(0);
	}
	JOIN(pid);
}

TEST(memfd_basics)
{
	char path[64], target[128];
	struct stat st;
	int fd = CHECK_OK(memfd_create("a-name", MFD_CLOEXEC)), n;

	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_OK(fstat(fd, &st));
	CHECK(S_ISREG(st.st_mode));
	CHECK_EQ(st.st_nlink, 0);
	CHECK_EQ(write(fd, "abc", 3), 3);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = CHECK_OK(readlink(path, target, sizeof(target) - 1));
	target[n] = 0;
	CHECK_STR(target, "/memfd:a-name (deleted)");
	CHECK_ERRNO(memfd_create("x", 0x4000), EINVAL);
}

TEST(memfd_without_sealing)
{
	int fd = CHECK_OK(memfd_create("x", 0));

	CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
	CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
	CHECK_ERRNO(fcntl(0, F_GET_SEALS), EINVAL);
}

TEST(memfd_seal_write)
{
	int fd = CHECK_OK(memfd_create("x", MFD_ALLOW_SEALING));
	char *p;

	CHECK_EQ(write(fd, "abc", 3), 3);
	p = (char *)CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
	CHECK_OK(munmap(p, PAGE));
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	CHECK_ERRNO(write(fd, "x", 1), EPERM);
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
	CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	CHECK_OK(ftruncate(fd, 10));
	CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE);
}

TEST(memfd_seal_size)
{
	int fd = CHECK_OK(memfd_create("x", MFD_ALLOW_SEALING));

	CHECK_OK(ftruncate(fd, 100));
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	CHECK_ERRNO(ftruncate(fd, 99), EPERM);
	CHECK_OK(ftruncate(fd, 200));
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
	CHECK_ERRNO(ftruncate(fd, 201), EPERM);
	CHECK_EQ(pwrite(fd, "x", 1, 199), 1);
	CHECK_ERRNO(pwrite(fd, "x", 1, 200), EPERM);
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
	CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
	CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

/* A private mount namespace where there is one; else mounts are made and undone in place. */
static void private_mounts(void)
{
	NEED_ROOT();
	if (unshare(CLONE_NEWNS) < 0) {
		if (errno == EPERM)
			SKIP("mounting is not permitted");
	} else if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		CHECK_EQ(errno, EINVAL);	/* a root that is no mount point, in a chroot */
	}
	CHECK_OK(mkdir("m", 0755));
}

TEST(mount_tmpfs)
{
	struct stat a, b;

	private_mounts();
	CHECK_OK(mount("none", "m", "tmpfs", 0, "mode=0711"));
	CHECK_OK(stat("m", &a));
	CHECK_OK(stat(".", &b));
	CHECK(a.st_dev != b.st_dev);
	CHECK_EQ(a.st_mode & 07777, 0711);
	PUT_FILE("m/f", "on tmpfs");
	CHECK_ERRNO(rename("m/f", "f"), EXDEV);
	CHECK_ERRNO(link("m/f", "f"), EXDEV);
	CHECK_ERRNO(rmdir("m"), EBUSY);
	CHECK_OK(umount("m"));
	CHECK_ERRNO(access("m/f", F_OK), ENOENT);
	CHECK_OK(rmdir("m"));
}

TEST(mount_hides_and_umount_reveals)
{
	private_mounts();
	PUT_FILE("m/under", "x");
	CHECK_OK(mount("none", "m", "tmpfs", 0, NULL));
	CHECK_ERRNO(access("m/under", F_OK), ENOENT);
	CHECK_OK(umount("m"));
	CHECK_OK(access("m/under", F_OK));
}

TEST(mount_bind)
{
	struct stat a, b;

	private_mounts();
	CHECK_OK(mkdir("src", 0755));
	PUT_FILE("src/f", "bound");
	CHECK_OK(mount("src", "m", NULL, MS_BIND, NULL));
	CHECK_FILE("m/f", "bound");
	CHECK_OK(stat("src/f", &a));
	CHECK_OK(stat("m/f", &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	CHECK_EQ(a.st_dev, b.st_dev);
	PUT_FILE("m/g", "through");
	CHECK_FILE("src/g", "through");
	CHECK_ERRNO(rename("m/f", "src/h"), EXDEV);	/* same filesystem, another mount */
	CHECK_OK(umount("m"));
}

TEST(mount_bind_file)
{
	private_mounts();
	PUT_FILE("a", "A");
	PUT_FILE("b", "B");
	CHECK_OK(mount("a", "b", NULL, MS_BIND, NULL));
	CHECK_FILE("b", "A");
	CHECK_ERRNO(unlink("b"), EBUSY);
	CHECK_OK(umount("b"));
	CHECK_FILE("b", "B");
}

TEST(mount_readonly)
{
	private_mounts();
	CHECK_OK(mount("none", "m", "tmpfs", 0, NULL));
	PUT_FILE("m/f", "x");
	CHECK_OK(mount("none", "m", "tmpfs", MS_REMOUNT | MS_RDONLY, NULL));
	CHECK_ERRNO(open("m/f", O_WRONLY), EROFS);
	CHECK_ERRNO(open("m/new", O_CREAT | O_WRONLY, 0644), EROFS);
	CHECK_ERRNO(mkdir("m/d", 0755), EROFS);
	CHECK_ERRNO(unlink("m/f"), EROFS);
	CHECK_ERRNO(chmod("m/f", 0600), EROFS);
	CHECK_ERRNO(access("m/f", W_OK), EROFS);
	CHECK_ERRNO(utimensat(AT_FDCWD, "m/f", NULL, 0), EROFS);
	CHECK_ERRNO(truncate("m/f", 0), EROFS);
	CHECK_OK(open("m/f", O_RDONLY));
	CHECK_OK(umount2("m", MNT_DETACH));
}

TEST(mount_noexec)
{
	pid_t pid;
	char *argv[] = { (char *)(uintptr_t)"x", NULL };

	private_mounts();
	CHECK_OK(mount("none", "m", "tmpfs", MS_NOEXEC, NULL));
	PUT_FILE("m/s", "#!/bin/sh\n");
	CHECK_OK(chmod("m/s", 0755));
	CHECK_ERRNO(access("m/s", X_OK), EACCES);
	pid = FORK();
	if (!pid) {
		execve("m/s", argv, NULL);
		_exit(errno == EACCES ? 0 : 1);
	}
	JOIN(pid);
	CHECK_OK(umount("m"));
}

TEST(mount_errors)
{
	private_mounts();
	PUT_FILE("f", "");
	CHECK_ERRNO(mount("none", "no", "tmpfs", 0, NULL), ENOENT);
	CHECK_ERRNO(mount("none", "f", "tmpfs", 0, NULL), ENOTDIR);
	CHECK_ERRNO(mount("none", "m", "no-such-type", 0, NULL), ENODEV);
	CHECK_ERRNO(mount("no", "m", NULL, MS_BIND, NULL), ENOENT);
	CHECK_ERRNO(mount("f", "m", NULL, MS_BIND, NULL), ENOTDIR);
	CHECK_ERRNO(umount("m"), EINVAL);
	CHECK_ERRNO(umount("no"), ENOENT);
	CHECK_ERRNO(umount2("m", 0x1000), EINVAL);
}

TEST(umount_busy_and_detach)
{
	int fd;
	char c;

	private_mounts();
	CHECK_OK(mount("none", "m", "tmpfs", 0, NULL));
	PUT_FILE("m/f", "x");
	fd = CHECK_OK(open("m/f", O_RDONLY));
	CHECK_ERRNO(umount("m"), EBUSY);
	CHECK_OK(umount2("m", MNT_DETACH));
	CHECK_ERRNO(access("m/f", F_OK), ENOENT);
	CHECK_EQ(read(fd, &c, 1), 1);
}

TEST(mount_appears_in_proc)
{
	char *buf = malloc(65536), want[PATH_MAX + 64], cwd[PATH_MAX];

	private_mounts();
	CHECK(getcwd(cwd, sizeof(cwd)));
	CHECK_OK(mount("the-source", "m", "tmpfs", MS_NOSUID, NULL));
	snprintf(want, sizeof(want), "\nthe-source %s/m tmpfs rw,nosuid", cwd);
	CHECK(get_file("/proc/self/mounts", buf, 65536) > 0);
	CHECK(strstr(buf, want));
	CHECK_OK(umount("m"));
	CHECK(get_file("/proc/self/mounts", buf, 65536) > 0);
	CHECK(!strstr(buf, want));
}

TEST(statfs_types)
{
	struct statfs s, f;
	int fd = CHECK_OK(open(".", O_RDONLY));

	CHECK_OK(statfs(".", &s));
	CHECK_OK(fstatfs(fd, &f));
	CHECK_EQ(s.f_type, f.f_type);
	CHECK(s.f_bsize >= 512);
	CHECK_EQ(s.f_namelen, 255);
	CHECK_OK(statfs("/proc", &s));
	CHECK_EQ(s.f_type, PROC_SUPER_MAGIC);
	CHECK_OK(statfs("/dev/shm", &s));
	CHECK_EQ(s.f_type, TMPFS_MAGIC);
	CHECK_ERRNO(statfs("no", &s), ENOENT);
	CHECK_ERRNO(fstatfs(190, &s), EBADF);
}

TEST(splice_file_to_pipe_and_back)
{
	loff_t off = 2;
	int in, out, p[2];

	PUT_FILE("f", "0123456789");
	in = CHECK_OK(open("f", O_RDONLY));
	out = CHECK_OK(open("out", O_CREAT | O_RDWR, 0644));
	CHECK_OK(pipe(p));
	CHECK_EQ(splice(in, &off, p[1], NULL, 5, 0), 5);
	CHECK_EQ(off, 7);
	CHECK_EQ(splice(p[0], NULL, out, NULL, 100, 0), 5);
	CHECK_FILE("out", "23456");
}

TEST(splice_errors)
{
	loff_t off = 0;
	int in, rw = CHECK_OK(open("g", O_CREAT | O_RDWR, 0644)), p[2];

	PUT_FILE("f", "0123456789");
	in = CHECK_OK(open("f", O_RDONLY));
	CHECK_OK(pipe2(p, O_NONBLOCK));
	CHECK_ERRNO(splice(in, NULL, rw, NULL, 1, 0), EINVAL);
	CHECK_ERRNO(splice(in, NULL, p[1], &off, 1, 0), ESPIPE);
	CHECK_ERRNO(splice(p[0], NULL, p[1], NULL, 1, 0), EINVAL);
	CHECK_ERRNO(splice(p[0], NULL, CHECK_OK(open("o", O_CREAT | O_WRONLY, 0644)), NULL, 1,
			   SPLICE_F_NONBLOCK), EAGAIN);
	CHECK_ERRNO(splice(190, NULL, p[1], NULL, 1, 0), EBADF);
}

TEST(tee_duplicates)
{
	char buf[8];
	int a[2], b[2];

	CHECK_OK(pipe(a));
	CHECK_OK(pipe(b));
	CHECK_EQ(write(a[1], "tee", 3), 3);
	CHECK_EQ(tee(a[0], b[1], 10, 0), 3);
	CHECK_EQ(read(b[0], buf, 8), 3);
	CHECK_EQ(read(a[0], buf, 8), 3);
	CHECK(!memcmp(buf, "tee", 3));
	CHECK_ERRNO(tee(a[0], b[1], 10, SPLICE_F_NONBLOCK), EAGAIN);
	CHECK_ERRNO(tee(a[0], a[1], 10, 0), EINVAL);
}

TEST(vmsplice_into_pipe)
{
	char text[] = "vm", buf[8];
	struct iovec v = { text, 2 };
	int p[2];

	CHECK_OK(pipe(p));
	CHECK_EQ(vmsplice(p[1], &v, 1, 0), 2);
	CHECK_EQ(read(p[0], buf, 8), 2);
	CHECK(!memcmp(buf, "vm", 2));
	CHECK_ERRNO(vmsplice(CHECK_OK(open("/dev/null", O_WRONLY)), &v, 1, 0), EBADF);
}
