/* SPDX-License-Identifier: Apache-2.0 */
/* The raw futex call, robust lists, child_tid clearing. */
#include <linux/futex.h>
#include <pthread.h>

#include "test/conform/conform.h"

static long futex(volatile uint32_t *word, int op, uint32_t val, const struct timespec *ts,
		  volatile uint32_t *word2, uint32_t val3)
{
	return syscall(SYS_futex, word, op, val, ts, word2, val3);
}

static volatile uint32_t *shared_words(void)
{
	return (uint32_t *)CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

static volatile uint32_t word, word2;
static volatile int woken;

static void *wait_word(void *arg)
{
	int op = (int)(long)arg;

	while (futex(&word, op, 0, NULL, NULL, 0) && errno == EINTR)
		;
	__atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Wakes until so many were woken in all: the waiters may not yet sleep when we begin. */
static void wake_until(volatile uint32_t *w, int op, int n)
{
	int total = 0;

	while (total < n) {
		total += CHECK_OK(futex(w, op, n - total, NULL, NULL, 0));
		if (total < n)
			msleep(2);
	}
}

TEST(wait_value_mismatch)
{
	word = 5;
	CHECK_ERRNO(futex(&word, FUTEX_WAIT, 4, NULL, NULL, 0), EAGAIN);
	CHECK_ERRNO(futex(&word, FUTEX_WAIT_PRIVATE, 4, NULL, NULL, 0), EAGAIN);
}

TEST(wake_nobody)
{
	CHECK_EQ(futex(&word, FUTEX_WAKE, 10, NULL, NULL, 0), 0);
}

TEST(wait_relative_timeout)
{
	struct timespec ts = { 0, 50000000 };
	int64_t start = now_ms();

	CHECK_ERRNO(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0), ETIMEDOUT);
	CHECK(now_ms() - start >= 49);
}

TEST(wait_absolute_timeout)
{
	struct timespec ts;
	int64_t start = now_ms();

	CHECK_OK(clock_gettime(CLOCK_MONOTONIC, &ts));
	ts.tv_nsec += 50000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET, 0, &ts, NULL, FUTEX_BITSET_MATCH_ANY),
		    ETIMEDOUT);
	CHECK(now_ms() - start >= 49);
	/* Already past. */
	CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET, 0, &ts, NULL, FUTEX_BITSET_MATCH_ANY),
		    ETIMEDOUT);
}

TEST(wait_absolute_realtime)
{
	struct timespec ts;

	CHECK_OK(clock_gettime(CLOCK_REALTIME, &ts));
	ts.tv_sec -= 1;
	CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &ts, NULL,
			  FUTEX_BITSET_MATCH_ANY), ETIMEDOUT);
}

TEST(bad_timeout)
{
	struct timespec ts = { 0, 1000000000 };

	CHECK_ERRNO(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0), EINVAL);
	ts = (struct timespec){ -1, 0 };
	CHECK_ERRNO(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0), EINVAL);
}

TEST(bad_arguments)
{
	uint32_t pair[2] = { 0, 0 };

	CHECK_ERRNO(futex((uint32_t *)((char *)pair + 1), FUTEX_WAIT, 0, NULL, NULL, 0), EINVAL);
	CHECK_ERRNO(futex((uint32_t *)((char *)pair + 1), FUTEX_WAKE, 1, NULL, NULL, 0), EINVAL);
	CHECK_ERRNO(futex((uint32_t *)8, FUTEX_WAIT, 0, NULL, NULL, 0), EFAULT);
	CHECK_ERRNO(futex(pair, 99, 0, NULL, NULL, 0), ENOSYS);
	CHECK_ERRNO(futex(pair, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0), EINVAL);
	CHECK_ERRNO(futex(pair, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0), EINVAL);
}

TEST(wake_one)
{
	pthread_t t;

	CHECK_ZERO(pthread_create(&t, NULL, wait_word, (void *)(long)FUTEX_WAIT_PRIVATE));
	wake_until(&word, FUTEX_WAKE_PRIVATE, 1);
	CHECK_ZERO(pthread_join(t, NULL));
}

TEST(wake_counts)
{
	pthread_t t[5];

	for (int i = 0; i < 5; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, wait_word, (void *)(long)FUTEX_WAIT));
	wake_until(&word, FUTEX_WAKE, 2);
	EVENTUALLY(woken == 2);
	msleep(20);
	CHECK_EQ(woken, 2);
	wake_until(&word, FUTEX_WAKE, 3);
	for (int i = 0; i < 5; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
}

TEST(private_and_shared_meet_only_when_alike)
{
	pthread_t t;

	CHECK_ZERO(pthread_create(&t, NULL, wait_word, (void *)(long)FUTEX_WAIT_PRIVATE));
	msleep(30);
	CHECK_EQ(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
	wake_until(&word, FUTEX_WAKE_PRIVATE, 1);
	CHECK_ZERO(pthread_join(t, NULL));
}

static void *wait_bit(void *arg)
{
	while (futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, (uint32_t)(long)arg) &&
	       errno == EINTR)
		;
	__atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void wake_bit_until(uint32_t bits)
{
	while (CHECK_OK(futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, bits)) == 0)
		msleep(2);
}

TEST(bitsets)
{
	pthread_t a, b;

	CHECK_ZERO(pthread_create(&a, NULL, wait_bit, (void *)1L));
	CHECK_ZERO(pthread_create(&b, NULL, wait_bit, (void *)2L));
	msleep(20);
	CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET, 10, NULL, NULL, 4), 0);
	wake_bit_until(2);
	CHECK_ZERO(pthread_join(b, NULL));
	CHECK_EQ(woken, 1);
	wake_bit_until(5);
	CHECK_ZERO(pthread_join(a, NULL));
}

TEST(plain_wake_matches_any_bitset)
{
	pthread_t t;

	CHECK_ZERO(pthread_create(&t, NULL, wait_bit, (void *)8L));
	wake_until(&word, FUTEX_WAKE, 1);
	CHECK_ZERO(pthread_join(t, NULL));
}

/* Threads that sleep on a futex, seen in /proc: all but the caller. */
static int sleepers(void)
{
	struct dirent *e;
	DIR *d = opendir("/proc/self/task");
	char path[PATH_MAX], buf[512], *p;
	int n = 0;

	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/self/task/%s/stat", e->d_name);
		if (e->d_name[0] != '.' && get_file(path, buf, sizeof(buf)) > 0 &&
		    (p = strrchr(buf, ')')) && p[2] == 'S')
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

TEST(requeue)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, wait_word, (void *)(long)FUTEX_WAIT));
	EVENTUALLY(sleepers() == 4);
	CHECK_EQ(futex(&word, FUTEX_REQUEUE, 1, (void *)2L, &word2, 0), 3);
	EVENTUALLY(woken == 1);
	/* One still waits on the first word, two on the second. */
	CHECK_EQ(futex(&word2, FUTEX_WAKE, 10, NULL, NULL, 0), 2);
	CHECK_EQ(futex(&word, FUTEX_WAKE, 10, NULL, NULL, 0), 1);
	for (int i = 0; i < 4; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
}

TEST(cmp_requeue)
{
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, wait_word, (void *)(long)FUTEX_WAIT));
	EVENTUALLY(sleepers() == 3);
	CHECK_ERRNO(futex(&word, FUTEX_CMP_REQUEUE, 1, (void *)10L, &word2, 77), EAGAIN);
	CHECK_EQ(futex(&word, FUTEX_CMP_REQUEUE, 1, (void *)10L, &word2, 0), 3);
	CHECK_EQ(futex(&word, FUTEX_WAKE, 10, NULL, NULL, 0), 0);
	CHECK_EQ(futex(&word2, FUTEX_WAKE, 10, NULL, NULL, 0), 2);
	for (int i = 0; i < 3; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
}

TEST(wake_op)
{
	word2 = 3;
	/* word2 += 4; wake on the second word too if the old value was 3. */
	CHECK_EQ(futex(&word, FUTEX_WAKE_OP, 1, (void *)1L, &word2,
		       FUTEX_OP(FUTEX_OP_ADD, 4, FUTEX_OP_CMP_EQ, 3)), 0);
	CHECK_EQ(word2, 7);
	CHECK_EQ(futex(&word, FUTEX_WAKE_OP, 1, (void *)1L, &word2,
		       FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_LT, 0)), 0);
	CHECK_EQ(word2, 1);
	CHECK_EQ(futex(&word, FUTEX_WAKE_OP, 1, (void *)1L, &word2,
		       FUTEX_OP(FUTEX_OP_OR, 6, FUTEX_OP_CMP_NE, 0)), 0);
	CHECK_EQ(word2, 7);
}

TEST(shared_between_processes)
{
	volatile uint32_t *w = shared_words();
	pid_t pid = FORK();

	if (!pid) {
		while (futex(w, FUTEX_WAIT, 0, NULL, NULL, 0) && errno == EINTR)
			;
		_exit(0);
	}
	wake_until(w, FUTEX_WAKE, 1);
	JOIN(pid);
}

TEST(shared_through_a_file_at_two_addresses)
{
	int fd = CHECK_OK(open("f", O_RDWR | O_CREAT, 0600));
	volatile uint32_t *a, *b;
	pid_t pid;

	CHECK_OK(ftruncate(fd, 2 * PAGE));
	a = (uint32_t *)CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, PAGE));
	b = (uint32_t *)CHECK_OK(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	pid = FORK();
	if (!pid) {
		while (futex(a + 10, FUTEX_WAIT, 0, NULL, NULL, 0) && errno == EINTR)
			;
		_exit(0);
	}
	wake_until(b + PAGE / 4 + 10, FUTEX_WAKE, 1);
	JOIN(pid);
}

TEST(private_memory_after_fork_is_separate)
{
	struct timespec ts = { 0, 100000000 };
	pid_t pid;

	word = 0;
	pid = FORK();
	if (!pid) {
		CHECK_ERRNO(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0), ETIMEDOUT);
		_exit(0);
	}
	msleep(20);
	word2 = word = 0;	/* our own copy now */
	CHECK_EQ(futex(&word, FUTEX_WAKE, 10, NULL, NULL, 0), 0);
	JOIN(pid);
}

TEST(process_shared_mutex_and_condition)
{
	struct {
		pthread_mutex_t m;
		pthread_cond_t c;
		int state;
	} *s = (void *)shared_words();
	pthread_mutexattr_t ma;
	pthread_condattr_t ca;
	pid_t pid;

	CHECK_ZERO(pthread_mutexattr_init(&ma));
	CHECK_ZERO(pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED));
	CHECK_ZERO(pthread_condattr_init(&ca));
	CHECK_ZERO(pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED));
	CHECK_ZERO(pthread_mutex_init(&s->m, &ma));
	CHECK_ZERO(pthread_cond_init(&s->c, &ca));
	pid = FORK();
	if (!pid) {
		pthread_mutex_lock(&s->m);
		while (s->state != 1)
			pthread_cond_wait(&s->c, &s->m);
		s->state = 2;
		pthread_cond_signal(&s->c);
		pthread_mutex_unlock(&s->m);
		_exit(0);
	}
	msleep(20);
	pthread_mutex_lock(&s->m);
	s->state = 1;
	pthread_cond_signal(&s->c);
	while (s->state != 2)
		pthread_cond_wait(&s->c, &s->m);
	pthread_mutex_unlock(&s->m);
	JOIN(pid);
}

static pthread_mutex_t *robust_mutex(void)
{
	pthread_mutex_t *m = (pthread_mutex_t *)shared_words();
	pthread_mutexattr_t a;

	CHECK_ZERO(pthread_mutexattr_init(&a));
	CHECK_ZERO(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST));
	CHECK_ZERO(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED));
	CHECK_ZERO(pthread_mutex_init(m, &a));
	return m;
}

TEST(robust_owner_exits)
{
	pthread_mutex_t *m = robust_mutex();
	pid_t pid = FORK();

	if (!pid) {
		pthread_mutex_lock(m);
		_exit(0);
	}
	JOIN(pid);
	CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
	CHECK_ZERO(pthread_mutex_consistent(m));
	CHECK_ZERO(pthread_mutex_unlock(m));
	CHECK_ZERO(pthread_mutex_lock(m));
}

TEST(robust_owner_is_killed_while_we_wait)
{
	pthread_mutex_t *m = robust_mutex();
	struct gate g;
	pid_t pid, killer;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		pthread_mutex_lock(m);
		GATE_OPEN(&g);
		for (;;)
			pause();
	}
	GATE_WAIT(&g);
	killer = FORK();
	if (!killer) {
		msleep(30);
		_exit(kill(pid, SIGKILL) ? 1 : 0);
	}
	CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
	JOIN(killer);
	CHECK_SIGNALED(pid, SIGKILL);
}

static void *lock_and_leave(void *arg)
{
	pthread_mutex_lock(arg);
	return NULL;
}

TEST(robust_owner_thread_exits)
{
	pthread_mutex_t *m = robust_mutex();
	pthread_t t;

	CHECK_ZERO(pthread_create(&t, NULL, lock_and_leave, m));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
	CHECK_ZERO(pthread_mutex_unlock(m));
	CHECK_EQ(pthread_mutex_lock(m), ENOTRECOVERABLE);
}

TEST(robust_list_calls)
{
	struct robust_list_head *head;
	size_t len;

	CHECK_OK(syscall(SYS_get_robust_list, 0, &head, &len));
	CHECK_EQ(len, sizeof(*head));
	CHECK(head);
	CHECK_ERRNO(syscall(SYS_set_robust_list, head, 7L), EINVAL);
	CHECK_ERRNO(syscall(SYS_get_robust_list, 0x3fffffff, &head, &len), ESRCH);
}

static char child_stack[65536] __attribute__((aligned(16)));
static volatile int child_tid;

static int cleartid_child(void *arg UNUSED)
{
	msleep(20);
	return 0;
}

TEST(child_cleartid)
{
	int pid;

	child_tid = 1;
	pid = CHECK_OK(clone(cleartid_child, child_stack + sizeof(child_stack),
			     CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, NULL, NULL, NULL,
			     (void *)&child_tid));
	while (child_tid)
		futex((uint32_t *)&child_tid, FUTEX_WAIT, 1, NULL, NULL, 0);
	CHECK_EQ(child_tid, 0);
	JOIN(pid);
}

TEST(set_tid_address_returns_tid)
{
	pid_t pid = FORK();

	if (!pid)
		_exit(syscall(SYS_set_tid_address, &child_tid) == getpid() ? 0 : 1);
	JOIN(pid);
}

TEST(priority_inheritance_lock)
{
	volatile uint32_t *w = shared_words();

	CHECK_OK(futex(w, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	CHECK_EQ(*w & FUTEX_TID_MASK, (uint32_t)syscall(SYS_gettid));
	CHECK_ERRNO(futex(w, FUTEX_LOCK_PI, 0, NULL, NULL, 0), EDEADLK);
	CHECK_OK(futex(w, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
	CHECK_EQ(*w, 0);
	CHECK_OK(futex(w, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
}

TEST(priority_inheritance_handover)
{
	volatile uint32_t *w = shared_words();
	struct gate g;
	pid_t pid;

	GATE_INIT(&g);
	pid = FORK();
	if (!pid) {
		CHECK_OK(futex(w, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
		GATE_OPEN(&g);
		msleep(50);
		CHECK_OK(futex(w, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
		_exit(0);
	}
	GATE_WAIT(&g);
	CHECK_OK(futex(w, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	CHECK_EQ(*w & FUTEX_TID_MASK, (uint32_t)syscall(SYS_gettid));
	JOIN(pid);
}

TEST(wait_on_readonly_memory)
{
	volatile uint32_t *w = shared_words();
	struct timespec ts = { 0, 10000000 };

	CHECK_OK(mprotect((void *)w, PAGE, PROT_READ));
	CHECK_ERRNO(futex(w, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0), ETIMEDOUT);
	CHECK_ERRNO(futex(w, FUTEX_WAIT_PRIVATE, 1, &ts, NULL, 0), EAGAIN);
}
