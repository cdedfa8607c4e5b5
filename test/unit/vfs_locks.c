/* SPDX-License-Identifier: Apache-2.0 */
/* Locks on files, and descriptor tables. */
#include <pthread.h>
#include <sys/file.h>

#include "test/unit/vfs_support.h"

static struct vfs_env env;
#define CTX (&env.ctx)

/* A task's way to wait, made of a condition variable. */
struct sleeper {
	struct waiter w;
	pthread_mutex_t m;
	pthread_cond_t c;
	bool woken;
};

static bool sleeper_wake(struct waiter *w, uint32_t events)
{
	struct sleeper *s = container_of(w, struct sleeper, w);

	pthread_mutex_lock(&s->m);
	s->woken = true;
	pthread_cond_signal(&s->c);
	pthread_mutex_unlock(&s->m);
	return true;
}

static _Atomic int nr_waiting;
static _Atomic bool interrupt;

static int test_wait(const struct vfs_ctx *ctx, struct waitq *wq, uint32_t events,
		     bool (*ready)(void *arg), void *arg)
{
	struct sleeper s = {.w = {.mask = events, .fn = sleeper_wake},
			    .m = PTHREAD_MUTEX_INITIALIZER,
			    .c = PTHREAD_COND_INITIALIZER};
	int err = 0;

	list_init(&s.w.node);
	waitq_add(wq, &s.w);
	nr_waiting++;
	while (!ready(arg)) {
		struct timespec until;

		if (interrupt) {
			err = -ERESTARTSYS;
			break;
		}
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 5000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		pthread_mutex_lock(&s.m);
		if (!s.woken)
			pthread_cond_timedwait(&s.c, &s.m, &until);
		s.woken = false;
		pthread_mutex_unlock(&s.m);
	}
	nr_waiting--;
	waitq_remove(&s.w);
	return err;
}

static struct flock range(short type, off_t start, off_t len)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
}

static int setlk(struct file *f, const void *owner, short type, off_t start, off_t len, bool wait)
{
	struct flock fl = range(type, start, len);

	return file_setlk(CTX, f, owner, 1, &fl, wait);
}

/* Type of what stands in @owner's way, with its start and length. */
static struct flock getlk(struct file *f, const void *owner, short type, off_t start, off_t len)
{
	struct flock fl = range(type, start, len);

	file_getlk(f, owner, &fl);
	return fl;
}

static int A, B, C; /* owners */

static void test_flock(void)
{
	struct file *f, *g;

	put_text(&env, "/f", "0123456789");
	f = xopen(&env, "/f", O_RDWR);
	g = xopen(&env, "/f", O_RDWR);
	CHECK_EQ("shared", file_flock(CTX, f, LOCK_SH, true), 0);
	CHECK_EQ("shared too", file_flock(CTX, g, LOCK_SH, true), 0);
	CHECK_EQ("upgrade blocked", file_flock(CTX, g, LOCK_EX, true), -EAGAIN);
	CHECK_EQ("unlock", file_flock(CTX, g, LOCK_UN, true), 0);
	CHECK_EQ("upgrade", file_flock(CTX, f, LOCK_EX, true), 0);
	CHECK_EQ("exclusive blocks", file_flock(CTX, g, LOCK_SH, true), -EAGAIN);
	CHECK_EQ("bad op", file_flock(CTX, g, 77, true), -EINVAL);
	file_put(f);
	CHECK_EQ("close unlocks", file_flock(CTX, g, LOCK_EX, true), 0);
	file_put(g);
}

static void test_ranges(void)
{
	struct file *f = xopen(&env, "/f", O_RDWR), *r = xopen(&env, "/f", O_RDONLY);
	struct flock fl;

	CHECK_EQ("A locks", setlk(f, &A, F_WRLCK, 0, 100, false), 0);
	CHECK_EQ("B inside", setlk(f, &B, F_RDLCK, 50, 1, false), -EAGAIN);
	CHECK_EQ("B behind", setlk(f, &B, F_WRLCK, 100, 10, false), 0);
	CHECK_EQ("A cuts a hole", setlk(f, &A, F_UNLCK, 40, 20, false), 0);
	CHECK_EQ("B in the hole", setlk(f, &B, F_RDLCK, 45, 10, false), 0);
	fl = getlk(f, &C, F_WRLCK, 0, 0);
	CHECK("first is A's left part", fl.l_type == F_WRLCK && fl.l_start == 0 && fl.l_len == 40);
	fl = getlk(f, &C, F_WRLCK, 60, 5);
	CHECK("right part", fl.l_type == F_WRLCK && fl.l_start == 60 && fl.l_len == 40);
	CHECK_EQ("shared meets shared", setlk(f, &C, F_RDLCK, 45, 10, false), 0);
	CHECK_EQ("downgrade", setlk(f, &A, F_RDLCK, 0, 40, false), 0);
	CHECK_EQ("C reads", setlk(f, &C, F_RDLCK, 0, 10, false), 0);
	CHECK_EQ("to the end", setlk(f, &C, F_WRLCK, 1000, 0, false), 0);
	fl = getlk(f, &B, F_RDLCK, 5000, 1);
	CHECK("to the end seen", fl.l_type == F_WRLCK && fl.l_start == 1000 && fl.l_len == 0);
	CHECK_EQ("write lock on a reader", setlk(r, &A, F_WRLCK, 0, 1, false), -EBADF);
	CHECK_EQ("negative", setlk(f, &A, F_WRLCK, -1, 1, false), -EINVAL);
	CHECK_EQ("bad type", setlk(f, &A, 9, 0, 1, false), -EINVAL);
	file_locks_release(f, &A);
	file_locks_release(f, &B);
	file_locks_release(f, &C);
	fl = getlk(f, &A, F_WRLCK, 0, 0);
	CHECK_EQ("all released", fl.l_type, F_UNLCK);
	/* Neighbours become one. */
	setlk(f, &A, F_WRLCK, 0, 10, false);
	setlk(f, &A, F_WRLCK, 20, 10, false);
	setlk(f, &A, F_WRLCK, 10, 10, false);
	fl = getlk(f, &B, F_RDLCK, 0, 0);
	CHECK("merged", fl.l_start == 0 && fl.l_len == 30);
	file_locks_release(f, &A);
	/* OFD locks belong to the file. */
	CHECK_EQ("ofd", setlk(f, f, F_RDLCK, 0, 10, false), 0);
	CHECK_EQ("ofd other", setlk(r, r, F_RDLCK, 0, 10, false), 0);
	CHECK_EQ("ofd conflict", setlk(f, &A, F_WRLCK, 0, 10, false), -EAGAIN);
	fl = getlk(f, &A, F_WRLCK, 0, 10);
	CHECK_EQ("ofd pid", fl.l_pid, -1);
	file_put(r);
	file_put(f);
	f = xopen(&env, "/f", O_RDWR);
	CHECK_EQ("ofd gone with its file", setlk(f, &A, F_WRLCK, 0, 10, false), 0);
	file_locks_release(f, &A);
	file_put(f);
}

struct job {
	struct file *f;
	const void *owner;
	off_t start;
	int ret;
};

static void *lock_thread(void *arg)
{
	struct job *j = arg;

	j->ret = setlk(j->f, j->owner, F_WRLCK, j->start, 1, true);
	return NULL;
}

static void wait_for_sleepers(int n)
{
	while (nr_waiting != n)
		usleep(1000);
}

static void test_blocking(void)
{
	struct file *f = xopen(&env, "/f", O_RDWR);
	struct job j = {.f = f, .owner = &B, .start = 0};
	pthread_t t;

	setlk(f, &A, F_WRLCK, 0, 1, false);
	pthread_create(&t, NULL, lock_thread, &j);
	wait_for_sleepers(1);
	setlk(f, &A, F_UNLCK, 0, 1, false);
	pthread_join(t, NULL);
	CHECK_EQ("woken", j.ret, 0);
	file_locks_release(f, &B);
	/* A has 0, B has 1; A waits for 1; B must not wait for 0. */
	setlk(f, &A, F_WRLCK, 0, 1, false);
	setlk(f, &B, F_WRLCK, 1, 1, false);
	j = (struct job){.f = f, .owner = &A, .start = 1};
	pthread_create(&t, NULL, lock_thread, &j);
	wait_for_sleepers(1);
	CHECK_EQ("deadlock", setlk(f, &B, F_WRLCK, 0, 1, true), -EDEADLK);
	CHECK_EQ("no deadlock without waiting", setlk(f, &B, F_WRLCK, 0, 1, false), -EAGAIN);
	file_locks_release(f, &B);
	pthread_join(t, NULL);
	CHECK_EQ("the other goes on", j.ret, 0);
	/* Interrupted. */
	j = (struct job){.f = f, .owner = &B, .start = 0};
	pthread_create(&t, NULL, lock_thread, &j);
	wait_for_sleepers(1);
	interrupt = true;
	pthread_join(t, NULL);
	interrupt = false;
	CHECK_EQ("interrupted", j.ret, -ERESTARTSYS);
	file_locks_release(f, &A);
	file_put(f);
}

static void test_three_way_deadlock(void)
{
	struct file *f = xopen(&env, "/f", O_RDWR);
	struct job ja = {.f = f, .owner = &A, .start = 1}, jb = {.f = f, .owner = &B, .start = 2};
	pthread_t ta, tb;

	setlk(f, &A, F_WRLCK, 0, 1, false);
	setlk(f, &B, F_WRLCK, 1, 1, false);
	setlk(f, &C, F_WRLCK, 2, 1, false);
	pthread_create(&ta, NULL, lock_thread, &ja);
	wait_for_sleepers(1);
	pthread_create(&tb, NULL, lock_thread, &jb);
	wait_for_sleepers(2);
	CHECK_EQ("circle of three", setlk(f, &C, F_WRLCK, 0, 1, true), -EDEADLK);
	file_locks_release(f, &C);
	pthread_join(tb, NULL);
	file_locks_release(f, &B);
	pthread_join(ta, NULL);
	file_locks_release(f, &A);
	file_put(f);
}

static void test_fdtable(void)
{
	struct fd_table *t = fd_table_alloc(), *copy;
	struct file *f = xopen(&env, "/f", O_RDWR), *p = xopen(&env, "/f", O_PATH);
	int fd;

	CHECK_EQ("first", fd_install(t, file_get(f), 0, false, 1024), 0);
	CHECK_EQ("second", fd_install(t, file_get(f), 0, true, 1024), 1);
	CHECK_EQ("minimum", fd_install(t, file_get(f), 10, false, 1024), 10);
	CHECK_EQ("lowest again", fd_install(t, file_get(f), 0, false, 1024), 2);
	CHECK_EQ("limit", fd_install(t, file_get(f), 0, false, 3), -EMFILE);
	CHECK_EQ("cloexec", fd_get_cloexec(t, 1), 1);
	CHECK_EQ("not cloexec", fd_get_cloexec(t, 0), 0);
	CHECK_EQ("cloexec of nothing", fd_get_cloexec(t, 7), -EBADF);
	CHECK_EQ("close", fd_close(CTX, t, 1), 0);
	CHECK_EQ("close again", fd_close(CTX, t, 1), -EBADF);
	CHECK_EQ("reused", fd_install(t, file_get(f), 0, false, 1024), 1);
	CHECK_EQ("replace far", fd_replace(CTX, t, file_get(f), 500, true, 1024), 500);
	CHECK_EQ("replace limit", fd_replace(CTX, t, file_get(f), 1024, true, 1024), -EBADF);
	CHECK("get", (file_put(fd_get(t, 500)), fd_get(t, 501) == NULL) && !fd_get(t, -1));
	CHECK_EQ("next", fd_next(t, 11), 500);
	CHECK_EQ("next none", fd_next(t, 501), -1);
	fd = fd_install(t, p, 0, false, 1024);
	CHECK("path file hidden", fd_get(t, fd) == NULL);
	p = fd_get_any(t, fd);
	CHECK("path file", p != NULL);
	file_put(p);
	copy = fd_table_copy(t);
	CHECK_EQ("copied", fd_get_cloexec(copy, 500), 1);
	fd_table_exec(CTX, copy);
	CHECK_EQ("exec closes", fd_get_cloexec(copy, 500), -EBADF);
	CHECK_EQ("exec keeps", fd_get_cloexec(copy, 10), 0);
	CHECK_EQ("other table whole", fd_get_cloexec(t, 500), 1);
	fd_close_range(CTX, t, 1, 10, true);
	CHECK("range marked",
	      fd_get_cloexec(t, 1) == 1 && fd_get_cloexec(t, 10) == 1 && fd_get_cloexec(t, 0) == 0);
	fd_close_range(CTX, t, 2, ~0u, false);
	CHECK_EQ("range closed", fd_next(t, 2), -1);
	CHECK_EQ("range starts", fd_next(t, 0), 0);
	fd_table_put(CTX, copy);
	/* Closing any descriptor of a file drops the process's record locks on it. */
	CHECK_EQ("installed", fd_install(t, file_get(f), 0, false, 1024), 2);
	setlk(f, t, F_WRLCK, 0, 1, false);
	fd_close(CTX, t, 1);
	CHECK_EQ("close drops record locks", setlk(f, &A, F_WRLCK, 0, 1, false), 0);
	file_locks_release(f, &A);
	fd_table_put(CTX, t);
	file_put(f);
}

static void test_all(void)
{
	env_open(&env);
	CTX->wait = test_wait;
	test_flock();
	test_ranges();
	test_blocking();
	test_three_way_deadlock();
	test_fdtable();
	env_close(&env);
}

int main(void)
{
	return vfs_test_main(test_all);
}
