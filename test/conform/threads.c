/* SPDX-License-Identifier: Apache-2.0 */
/* Threads as the C library uses them, and the odd corners: leaders that leave, exit_group. */
#include <pthread.h>
#include <semaphore.h>

#include "test/conform/conform.h"

static void *return_arg(void *arg)
{
	return arg;
}

TEST(create_and_join)
{
	pthread_t t;
	void *r;

	CHECK_ZERO(pthread_create(&t, NULL, return_arg, (void *)42L));
	CHECK_ZERO(pthread_join(t, &r));
	CHECK_EQ((long)r, 42);
}

static void *ids(void *arg)
{
	pid_t *out = arg;

	out[0] = getpid();
	out[1] = syscall(SYS_gettid);
	out[2] = getppid();
	return NULL;
}

TEST(pid_is_shared_tid_is_not)
{
	pid_t a[3], b[3];
	pthread_t t;

	ids(a);
	CHECK_ZERO(pthread_create(&t, NULL, ids, b));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_EQ(a[0], b[0]);
	CHECK_EQ(a[2], b[2]);
	CHECK_EQ(a[1], a[0]);
	CHECK(b[1] != a[1]);
}

static int counter;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *add_locked(void *arg UNUSED)
{
	for (int i = 0; i < 5000; i++) {
		pthread_mutex_lock(&lock);
		counter++;
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

TEST(mutex_excludes)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, add_locked, NULL));
	for (int i = 0; i < 4; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
	CHECK_EQ(counter, 20000);
}

TEST(mutex_trylock_and_timedlock)
{
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	struct timespec ts;

	CHECK_ZERO(pthread_mutex_lock(&m));
	CHECK_EQ(pthread_mutex_trylock(&m), EBUSY);
	CHECK_OK(clock_gettime(CLOCK_REALTIME, &ts));
	CHECK_EQ(pthread_mutex_timedlock(&m, &ts), ETIMEDOUT);
	CHECK_ZERO(pthread_mutex_unlock(&m));
}

TEST(mutex_types)
{
	pthread_mutexattr_t a;
	pthread_mutex_t m;

	CHECK_ZERO(pthread_mutexattr_init(&a));
	CHECK_ZERO(pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK));
	CHECK_ZERO(pthread_mutex_init(&m, &a));
	CHECK_ZERO(pthread_mutex_lock(&m));
	CHECK_EQ(pthread_mutex_lock(&m), EDEADLK);
	CHECK_ZERO(pthread_mutex_unlock(&m));
	CHECK_EQ(pthread_mutex_unlock(&m), EPERM);
	CHECK_ZERO(pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE));
	CHECK_ZERO(pthread_mutex_init(&m, &a));
	CHECK_ZERO(pthread_mutex_lock(&m));
	CHECK_ZERO(pthread_mutex_lock(&m));
	CHECK_ZERO(pthread_mutex_unlock(&m));
	CHECK_ZERO(pthread_mutex_unlock(&m));
}

static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int stage;

static void *ping(void *arg UNUSED)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < 100; i++) {
		while (stage != 1)
			pthread_cond_wait(&cond, &lock);
		stage = 0;
		pthread_cond_signal(&cond);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

TEST(condition_ping_pong)
{
	pthread_t t;

	CHECK_ZERO(pthread_create(&t, NULL, ping, NULL));
	pthread_mutex_lock(&lock);
	for (int i = 0; i < 100; i++) {
		stage = 1;
		pthread_cond_signal(&cond);
		while (stage != 0)
			pthread_cond_wait(&cond, &lock);
	}
	pthread_mutex_unlock(&lock);
	CHECK_ZERO(pthread_join(t, NULL));
}

static void *wait_stage(void *arg UNUSED)
{
	pthread_mutex_lock(&lock);
	counter++;
	while (stage != 1)
		pthread_cond_wait(&cond, &lock);
	counter--;
	pthread_mutex_unlock(&lock);
	return NULL;
}

TEST(condition_broadcast)
{
	pthread_t t[8];
	bool all = false;

	for (int i = 0; i < 8; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, wait_stage, NULL));
	while (!all) {
		pthread_mutex_lock(&lock);
		all = counter == 8;
		pthread_mutex_unlock(&lock);
		msleep(2);
	}
	pthread_mutex_lock(&lock);
	stage = 1;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < 8; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
	CHECK_EQ(counter, 0);
}

TEST(condition_timedwait)
{
	struct timespec ts;
	int64_t start = now_ms();

	CHECK_OK(clock_gettime(CLOCK_REALTIME, &ts));
	ts.tv_nsec += 50000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&lock);
	CHECK_EQ(pthread_cond_timedwait(&cond, &lock, &ts), ETIMEDOUT);
	pthread_mutex_unlock(&lock);
	CHECK(now_ms() - start >= 45);
}

static pthread_barrier_t barrier;
static volatile int serial;

static void *at_barrier(void *arg UNUSED)
{
	for (int i = 0; i < 20; i++) {
		int r = pthread_barrier_wait(&barrier);

		if (r == PTHREAD_BARRIER_SERIAL_THREAD)
			__atomic_add_fetch(&serial, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

TEST(barriers)
{
	pthread_t t[5];

	CHECK_ZERO(pthread_barrier_init(&barrier, NULL, 5));
	for (int i = 0; i < 5; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, at_barrier, NULL));
	for (int i = 0; i < 5; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
	CHECK_EQ(serial, 20);
}

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static volatile long shared_a, shared_b;

static void *rw_writer(void *arg UNUSED)
{
	for (int i = 0; i < 500; i++) {
		pthread_rwlock_wrlock(&rwlock);
		shared_a++;
		shared_b++;
		pthread_rwlock_unlock(&rwlock);
	}
	return NULL;
}

static void *rw_reader(void *arg UNUSED)
{
	long torn = 0;

	for (int i = 0; i < 500; i++) {
		pthread_rwlock_rdlock(&rwlock);
		torn += shared_a != shared_b;
		pthread_rwlock_unlock(&rwlock);
	}
	return (void *)torn;
}

TEST(rwlocks)
{
	pthread_t t[4];
	void *r;

	for (int i = 0; i < 4; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, i & 1 ? rw_writer : rw_reader, NULL));
	for (int i = 0; i < 4; i++) {
		CHECK_ZERO(pthread_join(t[i], &r));
		CHECK(i & 1 || !r);
	}
	CHECK_EQ(shared_a, 1000);
}

static sem_t sem_a, sem_b;

static void *sem_pong(void *arg UNUSED)
{
	for (int i = 0; i < 100; i++) {
		sem_wait(&sem_a);
		sem_post(&sem_b);
	}
	return NULL;
}

TEST(semaphores)
{
	pthread_t t;

	CHECK_OK(sem_init(&sem_a, 0, 0));
	CHECK_OK(sem_init(&sem_b, 0, 0));
	CHECK_ZERO(pthread_create(&t, NULL, sem_pong, NULL));
	for (int i = 0; i < 100; i++) {
		CHECK_OK(sem_post(&sem_a));
		CHECK_OK(sem_wait(&sem_b));
	}
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_ERRNO(sem_trywait(&sem_b), EAGAIN);
}

static volatile int cleaned;

static void cleanup(void *arg UNUSED)
{
	cleaned++;
}

static void *cancel_me(void *arg UNUSED)
{
	pthread_cleanup_push(cleanup, NULL);
	for (;;)
		pause();
	pthread_cleanup_pop(0);
	return NULL;
}

TEST(cancel_in_a_blocking_call)
{
	pthread_t t;
	void *r;

	CHECK_ZERO(pthread_create(&t, NULL, cancel_me, NULL));
	msleep(20);
	CHECK_ZERO(pthread_cancel(t));
	CHECK_ZERO(pthread_join(t, &r));
	CHECK(r == PTHREAD_CANCELED);
	CHECK_EQ(cleaned, 1);
}

static void *cancel_async(void *arg UNUSED)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (volatile long i = 0;; i++)
		;
	return NULL;
}

TEST(cancel_asynchronously)
{
	pthread_t t;
	void *r;

	CHECK_ZERO(pthread_create(&t, NULL, cancel_async, NULL));
	msleep(20);
	CHECK_ZERO(pthread_cancel(t));
	CHECK_ZERO(pthread_join(t, &r));
	CHECK(r == PTHREAD_CANCELED);
}

static __thread int tls_value = 5;
static __thread char tls_zero[64];

static void *use_tls(void *arg)
{
	long bad = tls_value != 5 || tls_zero[3];

	tls_value = (int)(long)arg;
	memset(tls_zero, (int)(long)arg, sizeof(tls_zero));
	for (int i = 0; i < 20; i++) {
		sched_yield();
		bad |= tls_value != (int)(long)arg || tls_zero[63] != (char)(long)arg;
	}
	return (void *)bad;
}

TEST(thread_local_storage)
{
	pthread_t t[8];
	void *r;

	for (long i = 0; i < 8; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, use_tls, (void *)(i + 10)));
	for (int i = 0; i < 8; i++) {
		CHECK_ZERO(pthread_join(t[i], &r));
		CHECK(!r);
	}
	CHECK_EQ(tls_value, 5);
}

static void key_gone(void *arg)
{
	*(volatile int *)arg = 1;
}

static pthread_key_t key;

static void *set_key(void *arg)
{
	pthread_setspecific(key, arg);
	return NULL;
}

TEST(key_destructors)
{
	volatile int gone = 0;
	pthread_t t;

	CHECK_ZERO(pthread_key_create(&key, key_gone));
	CHECK_ZERO(pthread_create(&t, NULL, set_key, (void *)&gone));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_EQ(gone, 1);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static volatile int once_count;

static void run_once(void)
{
	msleep(10);
	once_count++;
}

static void *call_once(void *arg UNUSED)
{
	pthread_once(&once, run_once);
	return NULL;
}

TEST(once_runs_once)
{
	pthread_t t[6];

	for (int i = 0; i < 6; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, call_once, NULL));
	for (int i = 0; i < 6; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
	CHECK_EQ(once_count, 1);
}

static void *count_up(void *arg UNUSED)
{
	__atomic_add_fetch(&counter, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&lock);
	while (!stage)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
	return NULL;
}

TEST(sixty_four_threads)
{
	pthread_t t[64];
	pthread_attr_t attr;

	CHECK_ZERO(pthread_attr_init(&attr));
	CHECK_ZERO(pthread_attr_setstacksize(&attr, 65536));
	for (int i = 0; i < 64; i++)
		CHECK_ZERO(pthread_create(&t[i], &attr, count_up, NULL));
	EVENTUALLY(__atomic_load_n(&counter, __ATOMIC_SEQ_CST) == 64);
	pthread_mutex_lock(&lock);
	stage = 1;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < 64; i++)
		CHECK_ZERO(pthread_join(t[i], NULL));
}

TEST(threads_one_after_another)
{
	pthread_t t;
	void *r;

	for (long i = 0; i < 200; i++) {
		CHECK_ZERO(pthread_create(&t, NULL, return_arg, (void *)i));
		CHECK_ZERO(pthread_join(t, &r));
		CHECK_EQ((long)r, i);
	}
}

static void *exit_the_process(void *arg UNUSED)
{
	msleep(20);
	_exit(23);
}

TEST(exit_group_from_a_thread)
{
	pid_t pid = FORK();

	if (!pid) {
		pthread_t t;

		CHECK_ZERO(pthread_create(&t, NULL, exit_the_process, NULL));
		for (;;)
			pause();
	}
	CHECK_EXIT(pid, 23);
}

static int leader_gone[2], go_on[2];

static void *exit_later(void *arg UNUSED)
{
	char path[64], buf[512], c = 0;

	/* The leader is a zombie but the process lives, until the parent has looked. */
	for (int i = 0; i < 1000; i++) {
		snprintf(path, sizeof(path), "/proc/%d/stat", getpid());
		if (get_file(path, buf, sizeof(buf)) > 0 && strstr(buf, ") Z ")) {
			if (write(leader_gone[1], &c, 1) == 1 && read(go_on[0], &c, 1) == 1)
				_exit(24);
			break;
		}
		msleep(5);
	}
	_exit(1);
}

TEST(leader_leaves_first)
{
	int status;
	char c = 0;
	pid_t pid;

	CHECK_ZERO(pipe(leader_gone));
	CHECK_ZERO(pipe(go_on));
	pid = FORK();
	if (!pid) {
		pthread_t t;

		CHECK_ZERO(pthread_create(&t, NULL, exit_later, NULL));
		syscall(SYS_exit, 3);
	}
	close(leader_gone[1]);
	CHECK_EQ(read(leader_gone[0], &c, 1), 1);
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	CHECK_EQ(write(go_on[1], &c, 1), 1);
	CHECK_EXIT(pid, 24);
}

static void *last_exit(void *arg UNUSED)
{
	msleep(30);
	syscall(SYS_exit, 7);
	return NULL;
}

TEST(last_thread_exit_ends_the_process)
{
	int status;
	pid_t pid = FORK();

	if (!pid) {
		pthread_t t;

		CHECK_ZERO(pthread_create(&t, NULL, last_exit, NULL));
		syscall(SYS_exit, 3);
	}
	status = REAP(pid);
	CHECK(WIFEXITED(status));
	/* The last thread's code; before Linux 5.19 the leader's. */
	CHECK(WEXITSTATUS(status) == 7 || WEXITSTATUS(status) == 3);
}

TEST(pthread_exit_of_main)
{
	pid_t pid = FORK();

	if (!pid) {
		pthread_t t;

		CHECK_ZERO(pthread_create(&t, NULL, exit_the_process, NULL));
		pthread_exit(NULL);
	}
	CHECK_EXIT(pid, 23);
}

static void *fork_here(void *arg UNUSED)
{
	pid_t pid = fork();

	if (!pid) {
		/* The forking thread is the only one and the leader of its process. */
		_exit(getpid() == (int)syscall(SYS_gettid) ? 31 : 1);
	}
	return (void *)(long)pid;
}

TEST(fork_from_a_thread)
{
	pthread_t t;
	void *r;

	CHECK_ZERO(pthread_create(&t, NULL, fork_here, NULL));
	CHECK_ZERO(pthread_join(t, &r));
	CHECK_EXIT((pid_t)(long)r, 31);	/* any thread may wait for it */
}

TEST(proc_task_lists_threads)
{
	pthread_t t[3];
	int n = 0;
	DIR *d;
	struct dirent *e;

	for (int i = 0; i < 3; i++)
		CHECK_ZERO(pthread_create(&t[i], NULL, cancel_me, NULL));
	d = opendir("/proc/self/task");
	CHECK(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	CHECK_EQ(n, 4);
}

static void *chdir_thread(void *arg UNUSED)
{
	return (void *)(long)chdir("/");
}

TEST(cwd_is_shared_between_threads)
{
	char cwd[PATH_MAX];
	pthread_t t;
	void *r;

	CHECK_ZERO(pthread_create(&t, NULL, chdir_thread, NULL));
	CHECK_ZERO(pthread_join(t, &r));
	CHECK(!r && getcwd(cwd, sizeof(cwd)));
	CHECK_STR(cwd, "/");
}

static void *own_cwd_thread(void *arg UNUSED)
{
	return (void *)(long)(unshare(CLONE_FS) || chdir("/"));
}

TEST(unshare_fs_in_a_thread)
{
	char before[PATH_MAX], after[PATH_MAX];
	pthread_t t;
	void *r;

	CHECK(getcwd(before, sizeof(before)));
	CHECK_ZERO(pthread_create(&t, NULL, own_cwd_thread, NULL));
	CHECK_ZERO(pthread_join(t, &r));
	CHECK(!r && getcwd(after, sizeof(after)));
	CHECK_STR(before, after);
}

static void *open_thread(void *arg UNUSED)
{
	return (void *)(long)open("/dev/null", O_RDONLY);
}

TEST(descriptors_are_shared_between_threads)
{
	pthread_t t;
	void *r;

	CHECK_ZERO(pthread_create(&t, NULL, open_thread, NULL));
	CHECK_ZERO(pthread_join(t, &r));
	CHECK_OK(close((int)(long)r));
}

static char *thread_map;

static void *touch_map(void *arg UNUSED)
{
	thread_map[PAGE] = 't';
	return NULL;
}

TEST(mapping_made_by_one_seen_by_others)
{
	pthread_t t;

	thread_map = (char *)CHECK_OK(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	CHECK_ZERO(pthread_create(&t, NULL, touch_map, NULL));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_EQ(thread_map[PAGE], 't');
}

static volatile int fault_seen, stop_reading;

static void on_segv(int sig UNUSED, siginfo_t *info UNUSED, void *uc UNUSED)
{
	fault_seen = 1;
	syscall(SYS_exit, 0);
}

static void *read_until_fault(void *arg UNUSED)
{
	while (!stop_reading)
		counter += *(volatile char *)thread_map;
	return NULL;
}

/* A revoked right must be gone on every CPU when mprotect returns. */
TEST(munmap_is_seen_by_running_threads)
{
	pthread_t t;

	on_siginfo(SIGSEGV, on_segv, 0);
	thread_map = (char *)CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	CHECK_ZERO(pthread_create(&t, NULL, read_until_fault, NULL));
	msleep(20);
	CHECK_OK(munmap(thread_map, PAGE));
	EVENTUALLY(fault_seen);
}

static volatile int write_faults;
static volatile long last_write;

static void on_write_fault(int sig UNUSED, siginfo_t *info UNUSED, void *uc UNUSED)
{
	write_faults++;
	syscall(SYS_exit, 0);
}

static void *write_until_fault(void *arg UNUSED)
{
	for (long i = 0;; i++) {
		*(volatile long *)thread_map = i;
		last_write = i;
	}
	return NULL;
}

TEST(mprotect_is_seen_by_running_threads)
{
	pthread_t t;
	long a;

	on_siginfo(SIGSEGV, on_write_fault, 0);
	thread_map = (char *)CHECK_OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	CHECK_ZERO(pthread_create(&t, NULL, write_until_fault, NULL));
	msleep(20);
	CHECK_OK(mprotect(thread_map, PAGE, PROT_READ));
	a = *(volatile long *)thread_map;
	msleep(20);
	CHECK_EQ(*(volatile long *)thread_map, a);
	EVENTUALLY(write_faults == 1);
}

static void *cpu_clock(void *arg)
{
	struct timespec ts;

	do {
		burn();
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	} while (ts.tv_nsec < 20000000 && !ts.tv_sec);
	*(volatile int *)arg = 1;
	return NULL;
}

TEST(thread_cpu_clock)
{
	volatile int done = 0;
	pthread_t t;
	struct timespec mine, process;

	CHECK_ZERO(pthread_create(&t, NULL, cpu_clock, (void *)&done));
	CHECK_ZERO(pthread_join(t, NULL));
	CHECK_OK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mine));
	CHECK_OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &process));
	CHECK(process.tv_sec > mine.tv_sec || process.tv_nsec >= mine.tv_nsec + 10000000);
}

static void *uid_thread(void *arg UNUSED)
{
	syscall(SYS_setresuid, 1000, 1000, 1000);
	return (void *)(long)syscall(SYS_geteuid);
}

TEST(raw_credentials_are_per_thread)
{
	pthread_t t;
	void *r;

	NEED_ROOT();
	CHECK_ZERO(pthread_create(&t, NULL, uid_thread, NULL));
	CHECK_ZERO(pthread_join(t, &r));
	CHECK_EQ((long)r, 1000);
	CHECK_EQ(geteuid(), 0);
}

static void *get_uid_when_told(void *arg)
{
	while (!*(volatile int *)arg)
		sched_yield();
	return (void *)(long)syscall(SYS_geteuid);
}

TEST(library_setuid_reaches_all_threads)
{
	volatile int go = 0;
	pthread_t t;
	void *r;

	NEED_ROOT();
	CHECK_ZERO(pthread_create(&t, NULL, get_uid_when_told, (void *)&go));
	CHECK_OK(setuid(1000));
	go = 1;
	CHECK_ZERO(pthread_join(t, &r));
	CHECK_EQ((long)r, 1000);
}
