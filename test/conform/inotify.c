/* SPDX-License-Identifier: Apache-2.0 */
/* inotify: which events come, in which order, with which names. */
#include <sys/inotify.h>
#include <sys/ioctl.h>

#include "test/conform/conform.h"

static int ifd;
static char events[8192];
static int events_len, events_at;

static void start(void)
{
	ifd = CHECK_OK(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
}

static void expect(int wd, uint32_t mask, const char *name)
{
	struct inotify_event *e;

	if (events_at == events_len) {
		events_len = CHECK_OK(read(ifd, events, sizeof(events)));
		events_at = 0;
	}
	e = (struct inotify_event *)(events + events_at);
	events_at += sizeof(*e) + e->len;
	CHECK_EQ(e->mask, mask);
	CHECK_EQ(e->wd, wd);
	CHECK_STR(e->len ? e->name : "", name);
}

static void expect_nothing(void)
{
	CHECK_EQ(events_at, events_len);
	CHECK_ERRNO(read(ifd, events, sizeof(events)), EAGAIN);
}

TEST(create_modify_close_delete)
{
	int wd, fd;

	start();
	wd = CHECK_OK(inotify_add_watch(ifd, ".", IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE |
						  IN_DELETE | IN_OPEN));
	fd = CHECK_OK(open("f", O_CREAT | O_WRONLY, 0644));
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_OK(close(fd));
	CHECK_OK(unlink("f"));
	expect(wd, IN_CREATE, "f");
	expect(wd, IN_OPEN, "f");
	expect(wd, IN_MODIFY, "f");
	expect(wd, IN_CLOSE_WRITE, "f");
	expect(wd, IN_DELETE, "f");
	expect_nothing();
}

TEST(directories_are_marked)
{
	int wd;

	start();
	wd = CHECK_OK(inotify_add_watch(ifd, ".", IN_CREATE | IN_DELETE));
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(rmdir("d"));
	expect(wd, IN_CREATE | IN_ISDIR, "d");
	expect(wd, IN_DELETE | IN_ISDIR, "d");
	expect_nothing();
}

TEST(rename_is_a_pair_with_a_cookie)
{
	struct inotify_event *a, *b;
	int wd, n;

	PUT_FILE("a", "");
	start();
	wd = CHECK_OK(inotify_add_watch(ifd, ".", IN_MOVE));
	CHECK_OK(rename("a", "b"));
	n = CHECK_OK(read(ifd, events, sizeof(events)));
	a = (struct inotify_event *)events;
	b = (struct inotify_event *)(events + sizeof(*a) + a->len);
	CHECK_EQ(n, (int)(2 * sizeof(*a) + a->len + b->len));
	CHECK_EQ(a->mask, IN_MOVED_FROM);
	CHECK_EQ(b->mask, IN_MOVED_TO);
	CHECK(a->cookie && a->cookie == b->cookie);
	CHECK_EQ(a->wd, wd);
	CHECK_STR(a->name, "a");
	CHECK_STR(b->name, "b");
}

TEST(watch_on_a_file_has_no_name)
{
	int wd, fd;

	PUT_FILE("f", "x");
	start();
	wd = CHECK_OK(inotify_add_watch(ifd, "f", IN_ALL_EVENTS));
	fd = CHECK_OK(open("f", O_RDONLY));
	expect(wd, IN_OPEN, "");
	CHECK_EQ(read(fd, &(char){ 0 }, 1), 1);
	expect(wd, IN_ACCESS, "");
	CHECK_OK(close(fd));
	expect(wd, IN_CLOSE_NOWRITE, "");
	CHECK_OK(chmod("f", 0600));
	expect(wd, IN_ATTRIB, "");
	expect_nothing();
}

TEST(delete_self_and_ignored)
{
	int wd;

	PUT_FILE("f", "x");
	start();
	wd = CHECK_OK(inotify_add_watch(ifd, "f", IN_DELETE_SELF | IN_MOVE_SELF));
	CHECK_OK(rename("f", "g"));
	expect(wd, IN_MOVE_SELF, "");
	CHECK_OK(unlink("g"));
	expect(wd, IN_DELETE_SELF, "");
	expect(wd, IN_IGNORED, "");
	expect_nothing();
	CHECK_ERRNO(inotify_rm_watch(ifd, wd), EINVAL);
}

TEST(remove_watch)
{
	int wd;

	start();
	wd = CHECK_OK(inotify_add_watch(ifd, ".", IN_CREATE));
	CHECK_OK(inotify_rm_watch(ifd, wd));
	expect(wd, IN_IGNORED, "");
	PUT_FILE("f", "");
	expect_nothing();
}

TEST(same_inode_same_watch)
{
	int wd;

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(symlink("d", "l"));
	start();
	wd = CHECK_OK(inotify_add_watch(ifd, "d", IN_CREATE));
	CHECK_EQ(inotify_add_watch(ifd, "l", IN_DELETE), wd);	/* replaces the mask */
	PUT_FILE("d/f", "");
	expect_nothing();
	CHECK_OK(unlink("d/f"));
	expect(wd, IN_DELETE, "f");
	CHECK_EQ(inotify_add_watch(ifd, "d", IN_CREATE | IN_MASK_ADD), wd);
	PUT_FILE("d/f", "");
	CHECK_OK(unlink("d/f"));
	expect(wd, IN_CREATE, "f");
	expect(wd, IN_DELETE, "f");
	CHECK_ERRNO(inotify_add_watch(ifd, "d", IN_CREATE | IN_MASK_CREATE), EEXIST);
}

TEST(oneshot)
{
	int wd;

	start();
	wd = CHECK_OK(inotify_add_watch(ifd, ".", IN_CREATE | IN_ONESHOT));
	PUT_FILE("a", "");
	PUT_FILE("b", "");
	expect(wd, IN_CREATE, "a");
	expect(wd, IN_IGNORED, "");
	expect_nothing();
}

TEST(identical_events_merge)
{
	int wd, fd;

	PUT_FILE("f", "");
	start();
	wd = CHECK_OK(inotify_add_watch(ifd, "f", IN_MODIFY));
	fd = CHECK_OK(open("f", O_WRONLY));
	CHECK_EQ(write(fd, "1", 1), 1);
	CHECK_EQ(write(fd, "2", 1), 1);
	expect(wd, IN_MODIFY, "");
	expect_nothing();
}

TEST(errors)
{
	PUT_FILE("f", "");
	CHECK_OK(symlink("f", "l"));
	start();
	CHECK_ERRNO(inotify_init1(0x1234), EINVAL);
	CHECK_ERRNO(inotify_add_watch(ifd, "no", IN_CREATE), ENOENT);
	CHECK_ERRNO(inotify_add_watch(ifd, "f", 0), EINVAL);
	CHECK_ERRNO(inotify_add_watch(0, "f", IN_CREATE), EINVAL);
	CHECK_ERRNO(inotify_add_watch(190, "f", IN_CREATE), EBADF);
	CHECK_ERRNO(inotify_add_watch(ifd, "f", IN_CREATE | IN_ONLYDIR), ENOTDIR);
	CHECK_ERRNO(inotify_rm_watch(ifd, 9999), EINVAL);
}

TEST(poll_fionread_and_small_buffer)
{
	struct pollfd p;
	int n;

	start();
	p = (struct pollfd){ ifd, POLLIN, 0 };
	CHECK_OK(inotify_add_watch(ifd, ".", IN_CREATE));
	CHECK_EQ(poll(&p, 1, 0), 0);
	PUT_FILE("f", "");
	CHECK_EQ(poll(&p, 1, 1000), 1);
	CHECK_OK(ioctl(ifd, FIONREAD, &n));
	CHECK_EQ(n, 32);
	CHECK_ERRNO(read(ifd, events, 8), EINVAL);
	CHECK_EQ(read(ifd, events, sizeof(events)), 32);
}

TEST(blocking_read_is_woken)
{
	int fd = CHECK_OK(inotify_init1(0)), wd;
	pid_t pid;

	wd = CHECK_OK(inotify_add_watch(fd, ".", IN_CREATE));
	pid = FORK();
	if (!pid) {
		msleep(30);
		PUT_FILE("late", "");
		_exit(0);
	}
	CHECK(CHECK_OK(read(fd, events, sizeof(events))) > 0);
	CHECK_EQ(((struct inotify_event *)events)->wd, wd);
	JOIN(pid);
}

TEST(truncate_and_link_events)
{
	int wd;

	PUT_FILE("f", "x");
	start();
	wd = CHECK_OK(inotify_add_watch(ifd, "f", IN_MODIFY | IN_ATTRIB));
	CHECK_OK(truncate("f", 0));
	expect(wd, IN_MODIFY, "");
	CHECK_OK(link("f", "g"));	/* the link count is an attribute */
	expect(wd, IN_ATTRIB, "");
	expect_nothing();
}
