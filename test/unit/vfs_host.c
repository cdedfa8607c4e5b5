/* SPDX-License-Identifier: Apache-2.0 */
/* Host directories: what they show, and that nothing leads out of them. Passed-in descriptors. */
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#include "sentry/lib/hostfd.h"
#include "test/unit/vfs_support.h"
#include "vfs/rootfs.h"

static struct vfs_env env;
#define CTX (&env.ctx)
static char base[] = "/tmp/vfs_host_XXXXXX";
/* The host's name of it; good for the next three calls. */
static const char *host(const char *name)
{
	static char bufs[4][256];
	static unsigned int next;
	char *buf = bufs[next++ % 4];

	snprintf(buf, sizeof(bufs[0]), "%s/%s", base, name);
	return buf;
}

static void host_write(const char *name, const char *text)
{
	FILE *f = fopen(host(name), "w");

	fputs(text, f);
	fclose(f);
}

static const char *host_read(const char *name)
{
	static char buf[256];
	FILE *f = fopen(host(name), "r");
	size_t n;

	if (!f)
		return "<none>";
	n = fread(buf, 1, sizeof(buf) - 1, f);
	buf[n] = '\0';
	fclose(f);
	return buf;
}

static int mount_volume(bool readonly)
{
	int fd = open(host("vol"), O_PATH | O_DIRECTORY | O_CLOEXEC), index = hostfd_add(fd);
	struct super *sb = hostfs_mount(index, "vol", readonly);
	struct path p;
	int err;

	hostfd_close(index);
	if (IS_ERR(sb))
		return (int)PTR_ERR(sb);
	p = xlookup(&env, "/v", 0);
	err = mount_new(CTX, sb, &p, readonly ? MS_RDONLY : 0);
	path_put(&p);
	return err;
}

static void umount_volume(void)
{
	struct path p = xlookup(&env, "/v", 0);

	CHECK_EQ("umount volume", mount_umount(CTX, &p, 0), 0);
	path_put(&p);
}

static void test_plain(void)
{
	struct statx st;
	struct stat hst;
	struct path p;
	struct file *f;
	struct iattr_change c = {.valid = ATTR_MODE, .mode = 0600};

	host_write("vol/f", "from the host");
	CHECK("read", !strcmp(get_text(&env, "/v/f"), "from the host"));
	put_text(&env, "/v/g", "from the guest");
	CHECK("written", !strcmp(host_read("vol/g"), "from the guest"));
	CHECK_EQ("mkdir", vfs_mkdir(CTX, NULL, "/v/d", 0750), 0);
	CHECK("made",
	      !stat(host("vol/d"), &hst) && S_ISDIR(hst.st_mode) && (hst.st_mode & 0777) == 0750);
	CHECK_EQ("mkdir again", vfs_mkdir(CTX, NULL, "/v/d", 0750), -EEXIST);
	CHECK_EQ("rename", vfs_rename(CTX, NULL, "/v/g", NULL, "/v/d/g", 0), 0);
	CHECK("renamed", !strcmp(host_read("vol/d/g"), "from the guest"));
	CHECK("found under its new name", !strcmp(get_text(&env, "/v/d/g"), "from the guest"));
	CHECK_EQ("rmdir full", vfs_rmdir(CTX, NULL, "/v/d"), -ENOTEMPTY);
	CHECK("identity", !try_stat(&env, "/v/d/g", &st) && !stat(host("vol/d/g"), &hst) &&
				  st.stx_ino == hst.st_ino);
	p = xlookup(&env, "/v/d/g", 0);
	CHECK_EQ("link", vfs_link(CTX, &p, NULL, "/v/h"), 0);
	CHECK("link count", !try_stat(&env, "/v/h", &st) && st.stx_nlink == 2);
	CHECK_EQ("chmod", vfs_setattr(CTX, &p, &c), 0);
	CHECK("chmod on the host", !stat(host("vol/h"), &hst) && (hst.st_mode & 0777) == 0600);
	CHECK_EQ("truncate", vfs_truncate(CTX, &p, 4), 0);
	CHECK("truncated", !strcmp(host_read("vol/h"), "from"));
	path_put(&p);
	f = xopen(&env, "/v/h", O_WRONLY | O_APPEND);
	CHECK_EQ("append", file_write_kernel(f, "!", 1, 4), 1);
	file_put(f);
	CHECK("list", strstr(list_dir(&env, "/v")->list, "h") != NULL);
	CHECK_EQ("symlink", vfs_symlink(CTX, "d/g", NULL, "/v/l"), 0);
	CHECK("through symlink", !strncmp(get_text(&env, "/v/l"), "from", 4));
	/* The host renames under us. */
	CHECK_EQ("host renames", rename(host("vol/h"), host("vol/h2")), 0);
	CHECK_EQ("old name gone", try_open(&env, "/v/h", O_RDONLY), -ENOENT);
	CHECK_EQ("new name there", try_open(&env, "/v/h2", O_RDONLY), 0);
	/* Unlinked but open. */
	f = xopen(&env, "/v/h2", O_RDWR);
	CHECK_EQ("unlink", vfs_unlink(CTX, NULL, "/v/h2"), 0);
	CHECK_EQ("still written", file_write_kernel(f, "x", 1, 0), 1);
	file_put(f);
	vfs_unlink(CTX, NULL, "/v/d/g");
	CHECK_EQ("rmdir", vfs_rmdir(CTX, NULL, "/v/d"), 0);
	CHECK_EQ("no devices", vfs_mknod(CTX, NULL, "/v/null", S_IFCHR | 0666, 0x103), -EPERM);
}

static void test_escape(void)
{
	host_write("secret", "secret");
	CHECK_EQ("absolute link", symlink(host("secret"), host("vol/abs")), 0);
	CHECK_EQ("relative link", symlink("../secret", host("vol/rel")), 0);
	CHECK_EQ("directory link", symlink("..", host("vol/up")), 0);
	CHECK_EQ("absolute resolves inside", try_open(&env, "/v/abs", O_RDONLY), -ENOENT);
	CHECK_EQ("relative resolves inside", try_open(&env, "/v/rel", O_RDONLY), -ENOENT);
	CHECK_EQ("directory resolves inside", try_open(&env, "/v/up/secret", O_RDONLY), -ENOENT);
	CHECK_EQ("dotdot", try_open(&env, "/v/../secret", O_RDONLY), -ENOENT);
	CHECK_EQ("creating through a link", try_open(&env, "/v/up/new", O_CREAT | O_RDWR), 0);
	CHECK("not on the host", access(host("new"), F_OK) != 0);
	CHECK_EQ("in the guest's root", try_open(&env, "/new", O_RDONLY), 0);
}

static _Atomic bool stop;

/* The host swaps a directory and a link to its parent as fast as it can. */
static void *swapper(void *arg)
{
	char dir[128], link[128];

	snprintf(dir, sizeof(dir), "%s/vol/x", base);
	snprintf(link, sizeof(link), "%s/vol/y", base);
	while (!stop)
		renameat2(AT_FDCWD, dir, AT_FDCWD, link, RENAME_EXCHANGE);
	return NULL;
}

static void test_race(void)
{
	pthread_t t;
	int found = 0, inside = 0;

	mkdir(host("vol/x"), 0755);
	CHECK_EQ("link to the host's parent", symlink("..", host("vol/y")), 0);
	host_write("vol/x/inside", "inside");
	host_write("inside", "outside");
	stop = false;
	pthread_create(&t, NULL, swapper, NULL);
	for (int i = 0; i < 3000; i++) {
		const char *s = get_text(&env, "/v/x/inside");

		if (!strcmp(s, "outside"))
			found++;
		else if (!strcmp(s, "inside"))
			inside++;
		put_text(&env, "/v/f", "keeps working");
		/* Where the link wins this lands in the guest's root. */
		try_open(&env, "/v/x/made", O_CREAT | O_RDWR);
		vfs_unlink(CTX, NULL, "/v/x/made");
	}
	stop = true;
	pthread_join(t, NULL);
	CHECK_EQ("nothing from outside", found, 0);
	CHECK("but from inside", inside > 0);
	CHECK("nothing made outside", access(host("made"), F_OK) != 0);
}

static void *dir_mover(void *arg)
{
	char a[128], b[128];

	snprintf(a, sizeof(a), "%s/vol/p/q", base);
	snprintf(b, sizeof(b), "%s/outside/q", base);
	while (!stop) {
		rename(a, b);
		rename(b, a);
	}
	return NULL;
}

/* A directory moves out of the volume while the guest walks up from it. */
static void test_moved_out(void)
{
	pthread_t t;
	int found = 0;

	mkdir(host("vol/p"), 0755);
	mkdir(host("vol/p/q"), 0755);
	mkdir(host("outside"), 0755);
	host_write("outside/secret", "outside");
	stop = false;
	pthread_create(&t, NULL, dir_mover, NULL);
	for (int i = 0; i < 3000; i++) {
		if (!strcmp(get_text(&env, "/v/p/q/../secret"), "outside"))
			found++;
		if (!strcmp(get_text(&env, "/v/p/q/../../secret"), "secret"))
			found++;
	}
	stop = true;
	pthread_join(t, NULL);
	CHECK_EQ("up stays inside", found, 0);
}

static int map_page(struct inode *inode, bool write, gpa_t *gpa)
{
	size_t n = 1;
	int err;

	mutex_lock(&inode->mapping.lock);
	err = inode->mops->get_pages(inode, 0, write, gpa, &n);
	mutex_unlock(&inode->mapping.lock);
	return err;
}

static void no_zap(struct map_user *user, uint64_t pgoff, uint64_t n, bool even_cow)
{
}

static void test_mapping(void)
{
	struct map_user user = {.npages = 1, .shared = true, .zap = no_zap};
	struct file *f;
	gpa_t gpa;

	host_write("vol/m", "mapped file");
	f = xopen(&env, "/v/m", O_RDWR);
	list_add(&user.node, &f->inode->mapping.users);
	CHECK_EQ("page", map_page(f->inode, true, &gpa), 0);
	CHECK("page content", !memcmp(phys_ptr(gpa), "mapped file\0", 12));
	memcpy(phys_ptr(gpa), "MAPPED", 6);
	CHECK("read sees the mapping", !strcmp(get_text(&env, "/v/m"), "MAPPED file"));
	file_write_kernel(f, "FILE", 4, 7);
	CHECK("mapping sees the write", !memcmp(phys_ptr(gpa), "MAPPED FILE", 11));
	CHECK_EQ("fsync", file_fsync(f, false), 0);
	CHECK("written back", !strcmp(host_read("vol/m"), "MAPPED FILE"));
	memcpy(phys_ptr(gpa), "mapped", 6);
	frame_put(gpa);
	list_del(&user.node);
	file_put(f);
	CHECK("written back at the end", !strcmp(host_read("vol/m"), "mapped FILE"));
	host_write("vol/m", "changed by the host");
	CHECK("host's change seen", !strcmp(get_text(&env, "/v/m"), "changed by the host"));
}

static void test_readonly(void)
{
	CHECK_EQ("ro read", try_open(&env, "/v/f", O_RDONLY), 0);
	CHECK_EQ("ro write", try_open(&env, "/v/f", O_RDWR), -EROFS);
	CHECK_EQ("ro create", try_open(&env, "/v/new", O_CREAT | O_RDWR), -EROFS);
	CHECK_EQ("ro unlink", vfs_unlink(CTX, NULL, "/v/f"), -EROFS);
	CHECK_EQ("ro mkdir", vfs_mkdir(CTX, NULL, "/v/dd", 0777), -EROFS);
}

/* Runs out of host descriptors: the guest must not see EMFILE. */
static void test_host_limits(void)
{
	int fds[4096], n = 0, err;

	for (; n < 4096 && (fds[n] = dup(0)) >= 0; n++)
		;
	err = try_open(&env, "/v/f", O_RDONLY);
	if (n < 4096)
		CHECK_EQ("out of host descriptors", err, -ENOMEM);
	while (n)
		close(fds[--n]);
}

static ssize_t rw(struct file *f, char *buf, size_t len, bool write)
{
	struct kiocb io = {.file = f, .ctx = CTX};
	struct iov_iter it;

	iov_init_kernel(&it, buf, len);
	return write ? file_write(&io, &it) : file_read(&io, &it);
}

static void test_hostfile(void)
{
	struct file *in, *out, *again;
	static char big[1 << 20];
	char buf[32];
	int p[2], n;
	ssize_t sum = 0, got;

	CHECK_EQ("pipe", pipe(p), 0);
	in = hostfile_alloc(hostfd_add(p[0]), O_RDONLY, CTX->cred);
	out = hostfile_alloc(hostfd_add(p[1]), O_WRONLY, CTX->cred);
	CHECK_EQ("empty pipe", rw(in, buf, 8, false), -EAGAIN);
	CHECK_EQ("not ready", file_poll(in) & EPOLLIN, 0);
	CHECK_EQ("write", rw(out, strcpy(buf, "hello"), 5, true), 5);
	CHECK("ready", file_poll(in) & EPOLLIN);
	CHECK("read", rw(in, buf, 32, false) == 5 && !memcmp(buf, "hello", 5));
	CHECK_EQ("non-blocking not set", fcntl(p[0], F_GETFL) & O_NONBLOCK, 0);
	got = rw(out, big, sizeof(big), true);
	CHECK("fills what fits", got >= 4096 && got < (ssize_t)sizeof(big));
	CHECK_EQ("full pipe", rw(out, big, 1, true), -EAGAIN);
	while ((got = rw(in, big, sizeof(big), false)) > 0)
		sum += got;
	CHECK("drained", got == -EAGAIN && sum > 4096);
	CHECK_EQ("seek", file_llseek(in, 0, SEEK_SET), -ESPIPE);
	again = file_open_path(CTX, &out->path, O_WRONLY);
	CHECK("opened again", !IS_ERR(again) && rw(again, big, 3, true) == 3);
	CHECK_EQ("opened again for reading",
		 PTR_ERR_OR_ZERO(file_open_path(CTX, &out->path, O_RDONLY)), -EACCES);
	file_put(out);
	CHECK_EQ("still there", rw(in, buf, 8, false), 3);
	CHECK_EQ("open elsewhere", rw(in, buf, 8, false), -EAGAIN);
	file_put(again);
	CHECK_EQ("end of file", rw(in, buf, 8, false), 0);
	file_put(in);
	host_write("regular", "0123456789");
	n = open(host("regular"), O_RDWR | O_CLOEXEC);
	in = hostfile_alloc(hostfd_add(n), O_RDWR, CTX->cred);
	CHECK("regular read", rw(in, buf, 4, false) == 4 && !memcmp(buf, "0123", 4));
	CHECK_EQ("regular seek", file_llseek(in, 8, SEEK_SET), 8);
	CHECK("regular read on", rw(in, buf, 4, false) == 2 && !memcmp(buf, "89", 2));
	CHECK("regular pread", file_read_kernel(in, buf, 3, 1) == 3 && !memcmp(buf, "123", 3));
	file_put(in);
}

static void clean(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s/*", base);
	if (system(cmd))
		exit(1);
}

static void test_all(void)
{
	clean();
	mkdir(host("vol"), 0755);
	env_open(&env);
	vfs_mkdir(CTX, NULL, "/v", 0755);
	CHECK_EQ("mount", mount_volume(false), 0);
	test_plain();
	test_escape();
	test_race();
	test_moved_out();
	test_mapping();
	test_host_limits();
	umount_volume();
	CHECK_EQ("mount read-only", mount_volume(true), 0);
	test_readonly();
	umount_volume();
	test_hostfile();
	env_close(&env);
	clean();
}

int main(void)
{
	int ret;

	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(base))
		return 1;
	ret = vfs_test_main(test_all);
	rmdir(base);
	return ret;
}
