/* SPDX-License-Identifier: Apache-2.0 */
/* inotify: which events come, in which order, with which names. */
#include "test/unit/vfs_support.h"
#include "vfs/notify.h"

static struct vfs_env env;
#define CTX (&env.ctx)

static ssize_t read_some(struct file *f, char *buf, size_t len)
{
	return file_read_kernel(f, buf, len, 0);
}

/* All queued events as "mask name; " with the flags in hex. */
static const char *drain(struct file *f)
{
	static char text[4096];
	char buf[4096];
	ssize_t n;

	text[0] = '\0';
	while ((n = read_some(f, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; at < n;) {
			struct inotify_event *e = (struct inotify_event *)(buf + at);

			sprintf(text + strlen(text), "%d:%x%s%s ", e->wd, e->mask,
				e->len ? "=" : "", e->len ? e->name : "");
			at += (ssize_t)(sizeof(*e) + e->len);
		}
	}
	if (n != -EAGAIN)
		sprintf(text, "<%zd>", n);
	return text;
}

#define CHECK_EVENTS(name, want)                                                                   \
	do {                                                                                       \
		const char *got_ = drain(in);                                                      \
		CHECK(name, !strcmp(got_, want));                                                  \
		if (strcmp(got_, want))                                                            \
			printf("# got %s\n", got_);                                                \
	} while (0)

static int watch(struct file *in, const char *name, uint32_t mask)
{
	struct path p = xlookup(&env, name, 0);
	int wd = notify_add_watch(CTX, in, &p, mask);

	path_put(&p);
	return wd;
}

static void test_events(void)
{
	struct file *in = notify_create(CTX, IN_NONBLOCK), *f;
	struct iattr_change c = {.valid = ATTR_MODE, .mode = 0600};
	struct path p;
	char buf[32];

	vfs_mkdir(CTX, NULL, "/d", 0777);
	CHECK_EQ("bad flags", PTR_ERR_OR_ZERO(notify_create(CTX, 1)), -EINVAL);
	CHECK_EQ("watch", watch(in, "/d", IN_ALL_EVENTS), 1);
	CHECK_EQ("watch again", watch(in, "/d", IN_ALL_EVENTS), 1);
	CHECK_EQ("watch exclusively", watch(in, "/d", IN_ALL_EVENTS | IN_MASK_CREATE), -EEXIST);
	CHECK_EQ("no mask", watch(in, "/d", 0), -EINVAL);
	CHECK_EQ("nothing yet", read_some(in, buf, 32), -EAGAIN);
	CHECK_EQ("not readable", file_poll(in), 0);
	put_text(&env, "/d/f", "x");
	CHECK("readable", file_poll(in) & EPOLLIN);
	CHECK_EQ("too little room", read_some(in, buf, 16), -EINVAL);
	/* put_text writes by the kernel's door, which makes no event. */
	CHECK_EVENTS("create", "1:100=f 1:20=f 1:8=f ");
	f = xopen(&env, "/d/f", O_RDWR);
	struct kiocb io = {.file = f, .ctx = CTX};
	struct iov_iter it;

	iov_init_kernel(&it, "abc", 3);
	file_write(&io, &it);
	iov_init_kernel(&it, buf, 3);
	io.flags = IOCB_POSITIONED;
	io.pos = 0;
	file_read(&io, &it);
	file_put(f);
	CHECK_EVENTS("write and read", "1:20=f 1:2=f 1:1=f 1:8=f ");
	p = xlookup(&env, "/d/f", 0);
	vfs_setattr(CTX, &p, &c);
	vfs_link(CTX, &p, NULL, "/d/g");
	path_put(&p);
	CHECK_EVENTS("attributes and link", "1:4=f 1:100=g ");
	vfs_rename(CTX, NULL, "/d/g", NULL, "/d/h", 0);
	CHECK_EVENTS("rename", "1:40=g 1:80=h ");
	CHECK_EQ("watch the file", watch(in, "/d/h", IN_DELETE_SELF | IN_ATTRIB), 2);
	vfs_unlink(CTX, NULL, "/d/f");
	CHECK_EVENTS("one name less", "1:200=f 2:4 ");
	vfs_unlink(CTX, NULL, "/d/h");
	CHECK_EVENTS("last name", "1:200=h 2:4 2:400 2:8000 ");
	vfs_mkdir(CTX, NULL, "/d/sub", 0777);
	CHECK_EVENTS("mkdir", "1:40000100=sub ");
	vfs_rmdir(CTX, NULL, "/d/sub");
	CHECK_EVENTS("rmdir", "1:40000200=sub ");
	CHECK_EQ("remove watch", notify_rm_watch(in, 1), 0);
	CHECK_EQ("remove again", notify_rm_watch(in, 1), -EINVAL);
	CHECK_EVENTS("ignored", "1:8000 ");
	put_text(&env, "/d/f", "");
	CHECK_EVENTS("no more", "");
	CHECK_EQ("once", watch(in, "/d", IN_CREATE | IN_ONESHOT), 3);
	put_text(&env, "/d/a", "");
	put_text(&env, "/d/b", "");
	CHECK_EVENTS("one event", "3:100=a 3:8000 ");
	CHECK_EQ("only directories", watch(in, "/d/a", IN_ALL_EVENTS | IN_ONLYDIR), -ENOTDIR);
	CHECK_EQ("left open", watch(in, "/d", IN_CREATE), 4);
	file_put(in);
}

static void test_open_deleted(void)
{
	struct file *in = notify_create(CTX, IN_NONBLOCK), *f;

	put_text(&env, "/o", "x");
	watch(in, "/o", IN_DELETE_SELF | IN_CLOSE);
	f = xopen(&env, "/o", O_RDONLY);
	vfs_unlink(CTX, NULL, "/o");
	CHECK_EVENTS("open: not gone yet", "");
	file_put(f);
	CHECK_EVENTS("closed: gone", "1:10 1:400 1:8000 ");
	file_put(in);
}

static void test_umount(void)
{
	struct file *in = notify_create(CTX, IN_NONBLOCK);
	struct path p;

	vfs_mkdir(CTX, NULL, "/m", 0777);
	p = xlookup(&env, "/m", 0);
	mount_new(CTX, fs_type_find("tmpfs")->mount(CTX, "t", NULL), &p, 0);
	path_put(&p);
	put_text(&env, "/m/f", "");
	watch(in, "/m/f", IN_ALL_EVENTS);
	p = xlookup(&env, "/m", 0);
	CHECK_EQ("umount", mount_umount(CTX, &p, MNT_DETACH), 0);
	path_put(&p);
	CHECK_EVENTS("unmounted", "1:2000 1:8000 ");
	file_put(in);
}

static void test_overflow(void)
{
	struct file *in = notify_create(CTX, IN_NONBLOCK);
	char buf[4096];
	unsigned int events = 0, overflows = 0;
	ssize_t n;

	vfs_mkdir(CTX, NULL, "/q", 0777);
	watch(in, "/q", IN_CREATE | IN_DELETE);
	for (int i = 0; i < 10000; i++) {
		vfs_mknod(CTX, NULL, "/q/f", 0600, 0);
		vfs_unlink(CTX, NULL, "/q/f");
	}
	while ((n = read_some(in, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; at < n;) {
			struct inotify_event *e = (struct inotify_event *)(buf + at);

			events++;
			overflows += e->mask == IN_Q_OVERFLOW && e->wd == -1;
			at += (ssize_t)(sizeof(*e) + e->len);
		}
	}
	CHECK_EQ("queue is bounded", events, 16385);
	CHECK_EQ("overflow told once", overflows, 1);
	file_put(in);
}

static void test_all(void)
{
	env_open(&env);
	test_events();
	test_open_deleted();
	test_umount();
	test_overflow();
	env_close(&env);
}

int main(void)
{
	return vfs_test_main(test_all);
}
