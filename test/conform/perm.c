/* SPDX-License-Identifier: Apache-2.0 */
/* File permissions and attributes: chmod, chown, access, who may do what as an ordinary user. */
#include <sys/statfs.h>

#include "test/conform/conform.h"

static mode_t mode_of(const char *path)
{
	struct stat st;

	CHECK_OK(stat(path, &st));
	return st.st_mode & 07777;
}

/* Runs the statements as an ordinary user in a child. */
#define AS_NOBODY(...)                                                        \
	do {                                                                  \
		pid_t child_ = FORK();                                        \
		if (!child_) {                                                \
			BECOME_NOBODY();                                      \
			__VA_ARGS__;                                          \
			_exit(0);                                             \
		}                                                             \
		JOIN(child_);                                                 \
	} while (0)

TEST(chmod_basic)
{
	int fd;

	PUT_FILE("f", "");
	CHECK_OK(chmod("f", 0751));
	CHECK_EQ(mode_of("f"), 0751);
	fd = CHECK_OK(open("f", O_RDONLY));
	CHECK_OK(fchmod(fd, 04755));
	CHECK_EQ(mode_of("f"), 04755);
	CHECK_OK(fchmodat(AT_FDCWD, "f", 0, 0));
	CHECK_EQ(mode_of("f"), 0);
	CHECK_ERRNO(chmod("no", 0644), ENOENT);
	CHECK_ERRNO(fchmod(190, 0644), EBADF);
}

TEST(chmod_follows_links)
{
	PUT_FILE("f", "");
	CHECK_OK(symlink("f", "l"));
	CHECK_OK(chmod("l", 0600));
	CHECK_EQ(mode_of("f"), 0600);
}

TEST(chown_basic)
{
	struct stat st;

	NEED_ROOT();
	PUT_FILE("f", "");
	CHECK_OK(symlink("f", "l"));
	CHECK_OK(chown("f", 12, 34));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_uid, 12);
	CHECK_EQ(st.st_gid, 34);
	CHECK_OK(chown("l", -1, 56));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_uid, 12);
	CHECK_EQ(st.st_gid, 56);
	CHECK_OK(lchown("l", 77, 78));
	CHECK_OK(lstat("l", &st));
	CHECK_EQ(st.st_uid, 77);
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_uid, 12);
}

TEST(chown_clears_setid_bits)
{
	NEED_ROOT();
	PUT_FILE("f", "");
	CHECK_OK(chmod("f", 06755));
	CHECK_OK(chown("f", 12, 34));
	CHECK_EQ(mode_of("f"), 0755);
	CHECK_OK(chmod("f", 02644));	/* not group-executable: not a setgid program */
	CHECK_OK(chown("f", 13, 35));
	CHECK_EQ(mode_of("f"), 02644);
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(chmod("d", 06755));
	CHECK_OK(chown("d", 12, 34));
	CHECK_EQ(mode_of("d"), 06755);
}

TEST(write_clears_setid_bits)
{
	NEED_ROOT();
	PUT_FILE("f", "x");
	CHECK_OK(chown("f", NOBODY, NOBODY));
	CHECK_OK(chmod("f", 06777));
	AS_NOBODY({
		int fd = CHECK_OK(open("f", O_WRONLY));

		CHECK_EQ(mode_of("f"), 06777);
		CHECK_EQ(write(fd, "y", 1), 1);
		CHECK_EQ(mode_of("f"), 0777);
	});
}

TEST(truncate_clears_setid_bits)
{
	NEED_ROOT();
	PUT_FILE("f", "x");
	CHECK_OK(chown("f", NOBODY, NOBODY));
	CHECK_OK(chmod("f", 06777));
	AS_NOBODY(CHECK_OK(truncate("f", 0)); CHECK_EQ(mode_of("f"), 0777));
}

TEST(chmod_by_non_owner)
{
	NEED_ROOT();
	PUT_FILE("f", "");
	CHECK_OK(chmod("f", 0666));
	AS_NOBODY(CHECK_ERRNO(chmod("f", 0777), EPERM));
}

TEST(chmod_drops_setgid_of_foreign_group)
{
	NEED_ROOT();
	PUT_FILE("f", "");
	CHECK_OK(chown("f", NOBODY, 1234));
	AS_NOBODY(CHECK_OK(chmod("f", 02755)); CHECK_EQ(mode_of("f"), 0755));
}

TEST(chown_by_owner)
{
	NEED_ROOT();
	PUT_FILE("f", "");
	CHECK_OK(chown("f", NOBODY, NOBODY));
	AS_NOBODY({
		CHECK_ERRNO(chown("f", 0, -1), EPERM);
		CHECK_ERRNO(chown("f", -1, 0), EPERM);
		CHECK_OK(chown("f", -1, NOBODY));
		CHECK_OK(chown("f", NOBODY, -1));
	});
}

TEST(chgrp_to_supplementary_group)
{
	gid_t groups[1] = { 4242 };
	struct stat st;
	pid_t pid;

	NEED_ROOT();
	PUT_FILE("f", "");
	CHECK_OK(chown("f", NOBODY, NOBODY));
	pid = FORK();
	if (!pid) {
		CHECK_OK(setgroups(1, groups));
		CHECK_OK(setresgid(NOBODY, NOBODY, NOBODY));
		CHECK_OK(setresuid(NOBODY, NOBODY, NOBODY));
		CHECK_OK(chown("f", -1, 4242));
		_exit(0);
	}
	JOIN(pid);
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_gid, 4242);
}

TEST(owner_class_is_decisive)
{
	NEED_ROOT();
	PUT_FILE("f", "x");
	CHECK_OK(chown("f", NOBODY, NOBODY));
	CHECK_OK(chmod("f", 0077));	/* the owner gets nothing, though others would */
	AS_NOBODY(CHECK_ERRNO(open("f", O_RDONLY), EACCES));
}

TEST(group_class_is_decisive)
{
	NEED_ROOT();
	PUT_FILE("f", "x");
	CHECK_OK(chown("f", 0, NOBODY));
	CHECK_OK(chmod("f", 0707));
	AS_NOBODY(CHECK_ERRNO(open("f", O_RDONLY), EACCES));
	CHECK_OK(chmod("f", 0040));
	AS_NOBODY(CHECK_OK(open("f", O_RDONLY)); CHECK_ERRNO(open("f", O_RDWR), EACCES));
}

TEST(supplementary_groups_count)
{
	gid_t groups[2] = { 111, 222 };
	pid_t pid;

	NEED_ROOT();
	PUT_FILE("f", "x");
	CHECK_OK(chown("f", 0, 222));
	CHECK_OK(chmod("f", 0040));
	pid = FORK();
	if (!pid) {
		CHECK_OK(setgroups(2, groups));
		CHECK_OK(setresgid(NOBODY, NOBODY, NOBODY));
		CHECK_OK(setresuid(NOBODY, NOBODY, NOBODY));
		CHECK_OK(open("f", O_RDONLY));
		_exit(0);
	}
	JOIN(pid);
}

TEST(other_class)
{
	NEED_ROOT();
	PUT_FILE("f", "x");
	CHECK_OK(chmod("f", 0602));
	AS_NOBODY({
		CHECK_ERRNO(open("f", O_RDONLY), EACCES);
		CHECK_ERRNO(open("f", O_RDWR), EACCES);
		CHECK_OK(open("f", O_WRONLY));
		CHECK_OK(open("f", O_WRONLY | O_TRUNC));
	});
}

TEST(root_ignores_modes)
{
	NEED_ROOT();
	PUT_FILE("f", "x");
	CHECK_OK(chown("f", NOBODY, NOBODY));
	CHECK_OK(chmod("f", 0));
	CHECK_OK(open("f", O_RDWR));
	CHECK_OK(mkdir("d", 0));
	CHECK_OK(open("d/x", O_CREAT | O_WRONLY, 0));
	CHECK_EQ(access("f", R_OK | W_OK), 0);
	CHECK_ERRNO(access("f", X_OK), EACCES);	/* root executes only what someone may */
	CHECK_EQ(access("d", X_OK), 0);
}

TEST(directory_search)
{
	NEED_ROOT();
	CHECK_OK(mkdir("d", 0755));
	PUT_FILE("d/f", "x");
	CHECK_OK(chmod("d", 0744));
	AS_NOBODY({
		struct stat st;

		CHECK_ERRNO(open("d/f", O_RDONLY), EACCES);
		CHECK_ERRNO(stat("d/f", &st), EACCES);
		CHECK_ERRNO(stat("d/missing", &st), EACCES);
		CHECK_ERRNO(chdir("d"), EACCES);
		CHECK_OK(open("d", O_RDONLY | O_DIRECTORY));	/* listing is allowed */
	});
	CHECK_OK(chmod("d", 0711));
	AS_NOBODY({
		CHECK_OK(open("d/f", O_RDONLY));
		CHECK_ERRNO(open("d", O_RDONLY | O_DIRECTORY), EACCES);
		CHECK_OK(chdir("d"));
		CHECK_ERRNO(open(".", O_RDONLY), EACCES);
	});
}

TEST(directory_write)
{
	NEED_ROOT();
	CHECK_OK(mkdir("d", 0755));
	PUT_FILE("d/f", "x");
	CHECK_OK(chmod("d/f", 0666));
	AS_NOBODY({
		CHECK_ERRNO(open("d/new", O_CREAT | O_WRONLY, 0644), EACCES);
		CHECK_OK(open("d/f", O_CREAT | O_WRONLY, 0644));
		CHECK_ERRNO(unlink("d/f"), EACCES);
		CHECK_ERRNO(mkdir("d/x", 0755), EACCES);
		CHECK_ERRNO(symlink("x", "d/x"), EACCES);
		CHECK_ERRNO(rename("d/f", "d/g"), EACCES);
		CHECK_ERRNO(rmdir("d"), EACCES);
		CHECK_ERRNO(mkfifo("d/p", 0644), EACCES);
	});
}

TEST(write_without_search_is_useless)
{
	NEED_ROOT();
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(chmod("d", 0766));
	AS_NOBODY(CHECK_ERRNO(open("d/new", O_CREAT | O_WRONLY, 0644), EACCES));
}

TEST(sticky_directory)
{
	NEED_ROOT();
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(chmod("d", 01777));
	PUT_FILE("d/roots", "x");
	PUT_FILE("d/mine", "x");
	CHECK_OK(chown("d/mine", NOBODY, NOBODY));
	AS_NOBODY({
		CHECK_ERRNO(unlink("d/roots"), EPERM);
		CHECK_ERRNO(rename("d/roots", "d/x"), EPERM);
		CHECK_ERRNO(rename("d/mine", "d/roots"), EPERM);
		CHECK_OK(rename("d/mine", "d/mine2"));
		CHECK_OK(unlink("d/mine2"));
	});
	CHECK_OK(chown("d", NOBODY, NOBODY));
	AS_NOBODY(CHECK_OK(unlink("d/roots")));	/* the directory's owner may */
}

TEST(setgid_directory_inheritance)
{
	struct stat st;

	NEED_ROOT();
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(chown("d", 0, 5678));
	CHECK_OK(chmod("d", 02777));
	PUT_FILE("d/f", "");
	CHECK_OK(stat("d/f", &st));
	CHECK_EQ(st.st_gid, 5678);
	CHECK_EQ(st.st_mode & 07777, 0644);
	CHECK_OK(mkdir("d/sub", 0755));
	CHECK_OK(stat("d/sub", &st));
	CHECK_EQ(st.st_gid, 5678);
	CHECK_EQ(st.st_mode & 07777, 02755);
	AS_NOBODY({
		CHECK_OK(open("d/g", O_CREAT | O_WRONLY, 02775));
		CHECK_OK(stat("d/g", &st));
		CHECK_EQ(st.st_uid, NOBODY);
		CHECK_EQ(st.st_gid, 5678);
		CHECK_EQ(st.st_mode & 07777, 0755);	/* no setgid for a group it is not in */
	});
}

TEST(new_files_belong_to_the_maker)
{
	struct stat st;

	NEED_ROOT();
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(chmod("d", 0777));
	AS_NOBODY({
		CHECK_OK(mkdir("d/sub", 0700));
		CHECK_OK(symlink("x", "d/l"));
		CHECK_OK(mkfifo("d/p", 0600));
	});
	CHECK_OK(lstat("d/sub", &st));
	CHECK_EQ(st.st_uid, NOBODY);
	CHECK_EQ(st.st_gid, NOBODY);
	CHECK_OK(lstat("d/l", &st));
	CHECK_EQ(st.st_uid, NOBODY);
	CHECK_OK(lstat("d/p", &st));
	CHECK_EQ(st.st_uid, NOBODY);
}

TEST(access_uses_real_ids)
{
	pid_t pid;

	NEED_ROOT();
	PUT_FILE("f", "x");
	CHECK_OK(chmod("f", 0600));
	pid = FORK();
	if (!pid) {
		CHECK_OK(setresuid(NOBODY, 0, 0));	/* real: nobody, effective: root */
		CHECK_ERRNO(access("f", R_OK), EACCES);
		CHECK_OK(syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, AT_EACCESS));
		CHECK_OK(open("f", O_RDONLY));
		_exit(0);
	}
	JOIN(pid);
}

TEST(access_errors)
{
	PUT_FILE("f", "");
	CHECK_OK(symlink("nowhere", "l"));
	CHECK_ERRNO(access("no", F_OK), ENOENT);
	CHECK_ERRNO(access("l", F_OK), ENOENT);
	CHECK_ERRNO(access("f/x", F_OK), ENOTDIR);
	CHECK_ERRNO(access("f", 0x10), EINVAL);
	CHECK_OK(syscall(SYS_faccessat2, AT_FDCWD, "l", F_OK, AT_SYMLINK_NOFOLLOW));
	CHECK_ERRNO(syscall(SYS_faccessat2, AT_FDCWD, "f", F_OK, 0x40000), EINVAL);
}

TEST(truncate_needs_write)
{
	NEED_ROOT();
	PUT_FILE("f", "abc");
	CHECK_OK(chmod("f", 0644));
	AS_NOBODY(CHECK_ERRNO(truncate("f", 0), EACCES));
}

TEST(utimensat_permission)
{
	NEED_ROOT();
	PUT_FILE("f", "abc");
	CHECK_OK(chmod("f", 0666));
	AS_NOBODY({
		struct timespec ts[2] = { { 1, 0 }, { 1, 0 } };

		/* For "now" write permission is enough. */
		CHECK_OK(utimensat(AT_FDCWD, "f", NULL, 0));
		CHECK_ERRNO(utimensat(AT_FDCWD, "f", ts, 0), EPERM);
	});
	CHECK_OK(chmod("f", 0644));
	AS_NOBODY(CHECK_ERRNO(utimensat(AT_FDCWD, "f", NULL, 0), EACCES));
}

TEST(utimensat_values)
{
	struct timespec ts[2] = { { 1000000000, 123456789 }, { 1500000000, 987654321 } };
	struct stat st;

	PUT_FILE("f", "");
	CHECK_OK(utimensat(AT_FDCWD, "f", ts, 0));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_atim.tv_sec, 1000000000);
	CHECK_EQ(st.st_atim.tv_nsec, 123456789);
	CHECK_EQ(st.st_mtim.tv_sec, 1500000000);
	CHECK_EQ(st.st_mtim.tv_nsec, 987654321);
	ts[0].tv_nsec = UTIME_OMIT;
	ts[1].tv_nsec = UTIME_NOW;
	CHECK_OK(utimensat(AT_FDCWD, "f", ts, 0));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_atim.tv_sec, 1000000000);
	CHECK(st.st_mtim.tv_sec > 1600000000);
	ts[0].tv_nsec = 1000000000;
	CHECK_ERRNO(utimensat(AT_FDCWD, "f", ts, 0), EINVAL);
	CHECK_ERRNO(utimensat(AT_FDCWD, "no", NULL, 0), ENOENT);
	CHECK_ERRNO(utimensat(AT_FDCWD, "f", NULL, 0x40000), EINVAL);
}

TEST(utimensat_of_symlink_and_descriptor)
{
	struct timespec ts[2] = { { 5, 0 }, { 6, 0 } };
	struct stat st;
	int fd;

	PUT_FILE("f", "");
	CHECK_OK(symlink("f", "l"));
	CHECK_OK(utimensat(AT_FDCWD, "l", ts, AT_SYMLINK_NOFOLLOW));
	CHECK_OK(lstat("l", &st));
	CHECK_EQ(st.st_mtim.tv_sec, 6);
	CHECK_OK(stat("f", &st));
	CHECK(st.st_mtim.tv_sec > 100);
	fd = CHECK_OK(open("f", O_RDONLY));
	CHECK_OK(futimens(fd, ts));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_mtim.tv_sec, 6);
}

TEST(times_move_forward)
{
	struct stat a, b;
	int fd;

	PUT_FILE("f", "x");
	CHECK_OK(stat("f", &a));
	msleep(30);
	fd = CHECK_OK(open("f", O_WRONLY));
	CHECK_EQ(write(fd, "y", 1), 1);
	CHECK_OK(stat("f", &b));
	CHECK(b.st_mtim.tv_sec > a.st_mtim.tv_sec || b.st_mtim.tv_nsec > a.st_mtim.tv_nsec);
	CHECK(b.st_ctim.tv_sec > a.st_ctim.tv_sec || b.st_ctim.tv_nsec > a.st_ctim.tv_nsec);
	msleep(30);
	CHECK_OK(chmod("f", 0600));
	CHECK_OK(stat("f", &a));
	CHECK_EQ(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
	CHECK(a.st_ctim.tv_sec > b.st_ctim.tv_sec || a.st_ctim.tv_nsec > b.st_ctim.tv_nsec);
}

TEST(directory_times)
{
	struct stat a, b;

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(stat("d", &a));
	msleep(30);
	PUT_FILE("d/f", "");
	CHECK_OK(stat("d", &b));
	CHECK(b.st_mtim.tv_sec > a.st_mtim.tv_sec || b.st_mtim.tv_nsec > a.st_mtim.tv_nsec);
	msleep(30);
	CHECK_OK(unlink("d/f"));
	CHECK_OK(stat("d", &a));
	CHECK(a.st_mtim.tv_sec > b.st_mtim.tv_sec || a.st_mtim.tv_nsec > b.st_mtim.tv_nsec);
}

TEST(stat_fields)
{
	struct stat st, fs;
	int fd;

	PUT_FILE("f", "0123456789");
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_size, 10);
	CHECK_EQ(st.st_nlink, 1);
	CHECK_EQ(st.st_uid, geteuid());
	CHECK(st.st_blksize >= 512);
	CHECK(st.st_ino && st.st_dev);
	fd = CHECK_OK(open("f", O_RDONLY));
	CHECK_OK(fstat(fd, &fs));
	CHECK_EQ(fs.st_ino, st.st_ino);
	CHECK_OK(fstatat(fd, "", &fs, AT_EMPTY_PATH));
	CHECK_EQ(fs.st_ino, st.st_ino);
	CHECK_ERRNO(fstatat(fd, "", &fs, 0), ENOENT);
	CHECK_ERRNO(fstatat(AT_FDCWD, "f", &fs, 0x40000), EINVAL);
	CHECK_ERRNO(stat("f/", &fs), ENOTDIR);
	CHECK_ERRNO(fstat(190, &fs), EBADF);
}

TEST(statx_fields)
{
	struct statx sx;
	struct stat st;

	PUT_FILE("f", "0123456789");
	CHECK_OK(stat("f", &st));
	CHECK_OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &sx));
	CHECK_EQ(sx.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
	CHECK_EQ(sx.stx_size, 10);
	CHECK_EQ(sx.stx_ino, st.st_ino);
	CHECK_EQ(sx.stx_mode, st.st_mode);
	CHECK_EQ(sx.stx_nlink, 1);
	CHECK_EQ(sx.stx_mtime.tv_sec, st.st_mtim.tv_sec);
	CHECK_ERRNO(statx(AT_FDCWD, "f", 0, 0x80000000, &sx), EINVAL);
	CHECK_ERRNO(statx(AT_FDCWD, "f", 0x6000, STATX_BASIC_STATS, &sx), EINVAL);
	CHECK_ERRNO(statx(AT_FDCWD, "no", 0, STATX_BASIC_STATS, &sx), ENOENT);
}

TEST(umask_returns_old_and_masks)
{
	CHECK_EQ(umask(077), 022);
	CHECK_EQ(umask(07777), 077);
	CHECK_EQ(umask(0), 0777);
}

TEST(fchmod_after_unlink)
{
	struct stat st;
	int fd = CHECK_OK(open("f", O_CREAT | O_RDWR, 0644));

	CHECK_OK(unlink("f"));
	CHECK_OK(fchmod(fd, 0123));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_mode & 07777, 0123);
}
