/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A function that looks for traces of an earlier request everywhere it can think of, and then leaves
 * as many as it can. Its input is the request's secret; it answers "clean SECRET" or what it has
 * found. By its name it is of kind stdio, http (port 8080) or lambda. With "light" most requests do
 * without what takes long. Run natively it is clean the first time.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "message.h"

#define MARK  "leaked-secret"
#define LARGE (3 << 20)

static char data_page[8192] = "initial";
static char bss_pages[1 << 20];
static _Thread_local char tls_page[4096];
static char *heap, *private_map, *shared_map, *file_map, *unmapped, *readonly;
static int memfd, kept_file;
static char answer[4096];
static volatile sig_atomic_t alarms;
static char secret[256];
static int light, heavy = 1;
static size_t large;
static struct {
	int fds, threads, processes;
} usual;

static void found(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void found(const char *fmt, ...)
{
	size_t used = strlen(answer);
	va_list ap;

	va_start(ap, fmt);
	if (used + 2 < sizeof(answer)) {
		memcpy(answer + used, "; ", 3);
		vsnprintf(answer + used + 2, sizeof(answer) - used - 2, fmt, ap);
	}
	va_end(ap);
}

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond))                                                                       \
			found(__VA_ARGS__);                                                        \
	} while (0)

static void on_alarm(int sig)
{
	alarms++;
}

static int has_mark(const char *p, size_t n)
{
	return memmem(p, n, MARK, sizeof(MARK) - 1) != NULL;
}

/* ---- before the first read: what the snapshot has ---- */

static void *sleeper(void *arg)
{
	static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	static pthread_cond_t c = PTHREAD_COND_INITIALIZER;

	pthread_mutex_lock(&m);
	for (;;)
		pthread_cond_wait(&c, &m);
	return arg;
}

static void prepare(void)
{
	pthread_t t;
	int fd;

	heap = calloc(1, large);
	private_map = mmap(NULL, large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shared_map = mmap(NULL, large, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unmapped = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	readonly = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(unmapped, 'u', 65536);
	memset(readonly, 'r', 65536);
	memset(private_map, 'p', 8192);
	memset(shared_map, 's', 8192);
	mprotect(readonly, 65536, PROT_READ);
	memfd = memfd_create("kept", 0);
	(void)!ftruncate(memfd, 65536);
	(void)!pwrite(memfd, "memfd", 5, 0);
	file_map = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	kept_file = open("/tmp/kept", O_RDWR | O_CREAT | O_TRUNC, 0600);
	(void)!write(kept_file, "before", 6);
	mkdir("/tmp/dir", 0700);
	fd = open("/tmp/dir/old", O_WRONLY | O_CREAT, 0644);
	(void)!write(fd, "old", 3);
	close(fd);
	signal(SIGALRM, on_alarm);
	setenv("KEPT", "before", 1);
	pthread_create(&t, NULL, sleeper, NULL);
	usleep(20000);
}

/* ---- looking ---- */

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 64; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static int count_dir(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return d ? n : -1;
}

static int count_threads(void)
{
	return count_dir("/proc/self/task") - 2;
}

static int count_processes(void)
{
	struct dirent *e;
	DIR *d = opendir("/proc");
	int n = 0;

	while (d && (e = readdir(d)))
		n += e->d_name[0] >= '1' && e->d_name[0] <= '9';
	if (d)
		closedir(d);
	return n;
}

/* What there is before the first request. */
static void settle(void)
{
	usual.fds = count_fds();
	usual.threads = count_threads();
	usual.processes = count_processes();
}

static void look_at_memory(void)
{
	CHECK(!strcmp(data_page, "initial"), "data is %.20s", data_page);
	CHECK(!has_mark(bss_pages, light ? 16384 : sizeof(bss_pages)), "bss");
	CHECK(!has_mark(tls_page, sizeof(tls_page)), "TLS");
	CHECK(!has_mark(heap, large), "heap");
	CHECK(private_map[0] == 'p' && !has_mark(private_map, large), "private mapping");
	CHECK(shared_map[0] == 's' && !has_mark(shared_map, large), "shared mapping");
	CHECK(unmapped[0] == 'u' && unmapped[65535] == 'u' && !has_mark(unmapped, 65536),
	      "mapping that was unmapped");
	CHECK(readonly[0] == 'r' && readonly[65535] == 'r' && !has_mark(readonly, 65536),
	      "mapping that was made writable");
	CHECK(!memcmp(file_map, "memfd", 5) && !has_mark(file_map, 65536), "memfd's mapping");
}

static void look_at_fresh_memory(void)
{
	char *p = malloc(100000), *m, stack[65536];

	CHECK(!p || !has_mark(p, 100000), "fresh heap");
	free(p);
	m = mmap(NULL, large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < large; i += 512)
		CHECK(!*(uint64_t *)(void *)(m + i), "fresh mapping at %zu", i);
	CHECK(!has_mark(m, large), "fresh mapping");
	munmap(m, large);
	/* What an earlier request left on its stack. */
	__asm__ volatile("" : "=m"(stack));
	CHECK(!has_mark(stack, sizeof(stack)), "stack");
}

static void look_at_files(void)
{
	char buf[64] = "";
	struct stat st;
	int fd;

	CHECK(access("/tmp/new", F_OK), "/tmp/new");
	CHECK(access("/tmp/dir/new", F_OK), "/tmp/dir/new");
	CHECK(!access("/tmp/dir/old", F_OK), "/tmp/dir/old is gone");
	CHECK(access("/dev/shm/new", F_OK), "/dev/shm/new");
	CHECK(access("/root-file", F_OK), "/root-file");
	CHECK(count_dir("/tmp") == 4, "/tmp has %d entries", count_dir("/tmp"));
	(void)!pread(kept_file, buf, sizeof(buf) - 1, 0);
	CHECK(!strcmp(buf, "before"), "/tmp/kept is %.20s", buf);
	CHECK(!fstat(kept_file, &st) && st.st_size == 6 && (st.st_mode & 0777) == 0600,
	      "/tmp/kept has %ld bytes, mode %o", (long)st.st_size, st.st_mode & 0777);
	CHECK(lseek(kept_file, 0, SEEK_CUR) == 6, "the file's position");
	memset(buf, 0, sizeof(buf));
	(void)!pread(memfd, buf, sizeof(buf) - 1, 0);
	CHECK(!strcmp(buf, "memfd"), "memfd is %.20s", buf);
	CHECK(!access("/bin/sh", X_OK) || errno != ENOENT || access("/bin/busybox", F_OK),
	      "/bin/sh is gone");
	fd = open("/etc/hostname-of-mine", O_RDONLY);
	CHECK(fd < 0, "a file in /etc");
	if (fd >= 0)
		close(fd);
}

static void look_at_process(void)
{
	struct itimerval it;
	struct sigaction sa;
	struct rlimit rl;
	sigset_t set;
	char buf[256];
	mode_t mask = umask(022);

	CHECK(mask == 022, "umask %o", mask);
	CHECK(getcwd(buf, sizeof(buf)) && !strcmp(buf, "/"), "cwd %s", buf);
	CHECK(!getenv("LEAK") && !strcmp(getenv("KEPT"), "before"), "environment");
	sigaction(SIGUSR1, NULL, &sa);
	CHECK(sa.sa_handler == SIG_DFL, "SIGUSR1's handler");
	sigprocmask(SIG_BLOCK, NULL, &set);
	CHECK(!sigismember(&set, SIGUSR2), "signal mask");
	sigpending(&set);
	CHECK(!sigismember(&set, SIGUSR2), "pending signal");
	getitimer(ITIMER_REAL, &it);
	CHECK(!it.it_value.tv_sec && !it.it_value.tv_usec, "interval timer");
	CHECK(!alarms, "%d alarms", (int)alarms);
	getrlimit(RLIMIT_NOFILE, &rl);
	CHECK(rl.rlim_cur != 77, "RLIMIT_NOFILE");
	prctl(PR_GET_NAME, buf);
	CHECK(strcmp(buf, "leaked"), "thread's name");
	CHECK(getpriority(PRIO_PROCESS, 0) == 0, "priority");
	CHECK(getuid() == 0 && geteuid() == 0, "user %d", getuid());
	gethostname(buf, sizeof(buf));
	CHECK(strcmp(buf, "leaked"), "host name");
	CHECK(count_threads() == usual.threads, "%d threads", count_threads());
	CHECK(count_processes() == usual.processes, "%d processes", count_processes());
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "a child");
	/* A connection is one more than there was. */
	CHECK(count_fds() - usual.fds <= 1, "%d descriptors", count_fds());
	CHECK(getsid(0) == getpid() && getpgrp() == getpid(), "session %d, group %d", getsid(0),
	      getpgrp());
}

static const struct sockaddr_in leaked = {.sin_family = AF_INET, .sin_port = 0x3930};

static void look_at_sockets(void)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "\0leaked"};
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK(connect(s, (void *)&sun, sizeof(sa_family_t) + 7) < 0 && errno == ECONNREFUSED,
	      "an abstract socket listens");
	close(s);
	s = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(connect(s, (void *)&leaked, sizeof(leaked)) < 0 && errno == ECONNREFUSED,
	      "a port is open");
	close(s);
}

static void look_at_cpu(void)
{
	uint32_t mxcsr = __builtin_ia32_stmxcsr();
	uint16_t cw;
	uint64_t xmm[2], flags;

	__asm__ volatile("fnstcw %0" : "=m"(cw));
	CHECK((mxcsr & ~0x3fu) == 0x1f80, "MXCSR %x", mxcsr);
	CHECK(cw == 0x37f, "x87 control word %x", cw);
	__asm__ volatile("movdqu %%xmm15, %0" : "=m"(xmm));
	CHECK(xmm[0] != 0x6c65616b6564ULL, "XMM15");
	__asm__ volatile("pushfq; pop %0" : "=r"(flags));
	CHECK(!(flags & 0x40000), "RFLAGS.AC");
}

/* ---- scribbling ---- */

static void *busy(void *arg)
{
	volatile char *p = arg;

	for (;;)
		p[0]++;
	return NULL;
}

static void *waiter(void *arg)
{
	pause();
	return arg;
}

static void put(char *p, size_t n)
{
	for (size_t i = 0; i + sizeof(MARK) < n; i += 1500)
		memcpy(p + i, MARK, sizeof(MARK));
}

static void scribble_memory(void)
{
	char stack[100000], *p;

	put(data_page, sizeof(data_page));
	put(bss_pages, light ? 16384 : sizeof(bss_pages));
	put(tls_page, sizeof(tls_page));
	put(heap, large);
	put(private_map, large);
	put(shared_map, large);
	put(file_map, 65536);
	put(stack, sizeof(stack));
	__asm__ volatile("" ::"m"(stack));
	mprotect(readonly, 65536, PROT_READ | PROT_WRITE);
	put(readonly, 65536);
	put(unmapped, 65536);
	munmap(unmapped, 32768);
	p = mmap(unmapped, 32768, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0);
	put(p, 32768);
	p = mmap(NULL, large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	put(p, large);
	for (int i = 0; i < (heavy ? 20 : 2); i++) {
		p = malloc(100000);
		put(p, 100000);
	}
	mremap(private_map, large, large * 2, MREMAP_MAYMOVE);
}

static void scribble_files(void)
{
	int fd;

	fd = open("/tmp/new", O_WRONLY | O_CREAT, 0666);
	for (int i = 0; i < (heavy ? 50 : 2); i++)
		(void)!write(fd, bss_pages, 10000);
	fd = open("/dev/shm/new", O_WRONLY | O_CREAT, 0666);
	(void)!write(fd, MARK, sizeof(MARK));
	fd = open("/root-file", O_WRONLY | O_CREAT, 0666);
	fd = open("/etc/hostname-of-mine", O_WRONLY | O_CREAT, 0666);
	(void)!write(fd, MARK, sizeof(MARK));
	rename("/tmp/dir/old", "/tmp/dir/new");
	(void)!write(kept_file, MARK, sizeof(MARK));
	fchmod(kept_file, 0777);
	(void)!pwrite(memfd, MARK, sizeof(MARK), 0);
	(void)!ftruncate(memfd, 1 << 20);
	unlink("/bin/sh");
	flock(kept_file, LOCK_EX);
	inotify_add_watch(inotify_init(), "/tmp", IN_ALL_EVENTS);
	mkdir("/tmp/mnt", 0700);
	mount("none", "/tmp/mnt", "tmpfs", 0, NULL);
}

static void scribble_process(void)
{
	struct itimerval it = {.it_interval.tv_usec = 1000, .it_value.tv_usec = 1000};
	struct itimerspec its = {.it_interval.tv_nsec = 1000000, .it_value.tv_nsec = 1000000};
	struct rlimit rl = {77, 77};
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	sigset_t set;
	pthread_t t;
	timer_t timer;
	int tfd;

	umask(0777);
	(void)!chdir("/tmp/dir");
	setenv("LEAK", MARK, 1);
	setenv("KEPT", MARK, 1);
	signal(SIGUSR1, on_alarm);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR2);
	setitimer(ITIMER_REAL, &it, NULL);
	if (!timer_create(CLOCK_MONOTONIC, &ev, &timer))
		timer_settime(timer, 0, &its, NULL);
	tfd = timerfd_create(CLOCK_MONOTONIC, 0);
	timerfd_settime(tfd, 0, &its, NULL);
	setrlimit(RLIMIT_NOFILE, &rl);
	prctl(PR_SET_NAME, "leaked");
	setpriority(PRIO_PROCESS, 0, 7);
	(void)!sethostname("leaked", 6);
	for (int i = 0; i < 3; i++)
		pthread_create(&t, NULL, i || !heavy ? waiter : busy, heap);
	eventfd(0, 0);
	epoll_create1(0);
	dup2(kept_file, 40);
	for (int i = 0; i < 2 && heavy; i++) {
		if (!fork()) {
			char *p = mmap(NULL, LARGE, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			signal(SIGALRM, SIG_IGN);
			put(p, LARGE);
			put(heap, large);
			for (;;)
				i ? sleep(1) : (unsigned int)sched_yield();
		}
	}
	if (heavy && !fork())
		_exit(3);
}

static void scribble_sockets(void)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "\0leaked"};
	int s = socket(AF_UNIX, SOCK_STREAM, 0), pair[2];

	bind(s, (void *)&sun, sizeof(sa_family_t) + 7);
	listen(s, 5);
	s = socket(AF_INET, SOCK_STREAM, 0);
	bind(s, (void *)&leaked, sizeof(leaked));
	listen(s, 5);
	if (!socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		(void)!write(pair[0], MARK, sizeof(MARK));
	if (!pipe(pair))
		(void)!write(pair[1], MARK, sizeof(MARK));
}

static void scribble_cpu(void)
{
	uint16_t cw = 0x27f;
	uint64_t xmm[2] = {0x6c65616b6564ULL, 0x6c65616b6564ULL};

	__builtin_ia32_ldmxcsr(0x9fc0);
	__asm__ volatile("fldcw %0" ::"m"(cw));
	__asm__ volatile("movdqu %0, %%xmm15" ::"m"(xmm));
}

/* Looks, and says what was found. */
static size_t look(char *reply, size_t size)
{
	answer[0] = 0;
	look_at_cpu();
	look_at_process();
	look_at_memory();
	look_at_fresh_memory();
	look_at_files();
	look_at_sockets();
	if (answer[0])
		return (size_t)snprintf(reply, size, "traces%s\n", answer);
	return (size_t)snprintf(reply, size, "clean %s\n", secret);
}

static void scribble(void)
{
	scribble_memory();
	scribble_sockets();
	scribble_files();
	scribble_process();
	scribble_cpu();
}

static void take_secret(const char *text, size_t len)
{
	len = len < sizeof(secret) - 1 ? len : sizeof(secret) - 1;
	memcpy(secret, text, len);
	secret[len] = 0;
	/* Children and large areas cost most: now and then, when there are to be many requests. */
	heavy = !light || (len && secret[0] % 16 == 1);
}

static char buffer[65536], reply[8192];

static int serve_http(void)
{
	int s = listener(8080);

	settle();
	for (;;) {
		int c = accept(s, NULL, NULL);
		char *text;
		size_t len;

		if (!read_message(c, buffer, sizeof(buffer), &text, &len))
			continue;
		take_secret(text, len);
		len = look(reply, sizeof(reply));
		scribble();
		http_answer(c, reply, len);
	}
	return 0;
}

static int serve_lambda(void)
{
	int fd = lambda_connect();
	char *text, id[64];
	size_t len;

	settle();
	while (lambda_next(fd, buffer, sizeof(buffer), &text, &len, id)) {
		/* The event is a string in quotes. */
		take_secret(text + 1, len > 2 ? len - 2 : 0);
		len = look(reply, sizeof(reply));
		scribble();
		lambda_answer(fd, id, reply, len, buffer, sizeof(buffer));
	}
	return 1;
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	size_t n = 0;
	ssize_t got;

	light = argc > 1 && !strcmp(argv[1], "light");
	large = light ? 65536 : LARGE;
	prepare();
	if (!strcmp(name, "scribble-http"))
		return serve_http();
	if (!strcmp(name, "scribble-lambda"))
		return serve_lambda();
	settle();
	while ((got = read(0, buffer + n, sizeof(buffer) - n)) > 0)
		n += (size_t)got;
	take_secret(buffer, n);
	n = look(reply, sizeof(reply));
	(void)!write(1, reply, n);
	scribble();
	/* Ways to end, by the secret. */
	switch (n ? secret[strlen(secret) - 1] % 4 : 0) {
	case 0:
		_exit(0);
	case 1:
		if (argc > 2)
			abort();
		exit(1);
	case 2:
		kill(getpid(), SIGKILL);
		break;
	default:
		syscall(SYS_exit_group, 5);
	}
	return 0;
}
