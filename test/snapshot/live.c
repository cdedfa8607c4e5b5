/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs to be saved in the middle of what they do: each part works for some seconds and checks all
 * the time that what it sees is what it would have seen undisturbed. Run in a sandbox that is saved
 * meanwhile, and natively.
 *
 *	live SECONDS [PART…]
 *
 * All parts at once, a process each; one line per part at the end, the status 0 if all are right. Some
 * lines are for the caller to compare: "value NAME VALUE".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

static double seconds; /* how long each part works */
static double start;

static double now_on(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double now(void)
{
	return now_on(CLOCK_MONOTONIC);
}

static bool going_on(void)
{
	return now() - start < seconds;
}

/* What is wrong goes to the parent by standard output. */
static void wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

static void wrong(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("# ");
	vprintf(fmt, ap);
	printf(" (%s)\n", strerror(errno));
	va_end(ap);
	fflush(stdout);
	_exit(1);
}

#define MUST(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond))                                                                       \
			wrong("%s:%d: %s", __func__, __LINE__, #cond);                             \
	} while (0)

static void nap(long ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* ---- threads and futexes ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static int turn, rounds;
static _Thread_local int mine;

static void *player(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (mine = 0;; mine++) {
		pthread_mutex_lock(&lock);
		while (turn != me)
			pthread_cond_wait(&turn_changed, &lock);
		turn = (me + 1) % 4;
		rounds++;
		pthread_cond_broadcast(&turn_changed);
		pthread_mutex_unlock(&lock);
		if (me == 3 && !going_on())
			break;
		sched_yield();
		if (me == 0)
			nap(1);
	}
	return (void *)(intptr_t)mine;
}

static void part_threads(void)
{
	pthread_t t[4];
	void *n;

	for (long i = 0; i < 4; i++)
		MUST(!pthread_create(&t[i], NULL, player, (void *)i));
	MUST(!pthread_join(t[3], &n));
	MUST(rounds >= 4 * (int)(intptr_t)n && rounds <= 4 * (int)(intptr_t)n + 8);
	MUST((int)(intptr_t)n > 10);
}

struct shared {
	pthread_mutex_t lock;
	long a, b;
	bool stop;
};

static void part_shared(void)
{
	struct shared *s =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_t attr;
	pid_t child[2];
	long mine_done = 0;

	MUST(s != MAP_FAILED);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	MUST(!pthread_mutex_init(&s->lock, &attr));
	for (int i = 0; i < 2; i++) {
		child[i] = fork();
		MUST(child[i] >= 0);
		for (; !child[i]; nap(1)) {
			int err = pthread_mutex_lock(&s->lock);

			MUST(!err && s->a == s->b);
			s->a++;
			if (s->a % 16 == 0)
				nap(2);
			s->b++;
			MUST(s->a == s->b);
			pthread_mutex_unlock(&s->lock);
			if (s->stop)
				_exit(0);
		}
	}
	while (going_on()) {
		MUST(!pthread_mutex_lock(&s->lock));
		MUST(s->a == s->b);
		pthread_mutex_unlock(&s->lock);
		mine_done++;
		nap(3);
	}
	s->stop = true;
	for (int i = 0; i < 2; i++) {
		int st;

		MUST(waitpid(child[i], &st, 0) == child[i] && !st);
	}
	MUST(s->a == s->b && s->a > 10 && mine_done > 10);
}

/* ---- pipes: whole writes, in order ---- */

static void part_pipes(void)
{
	static uint32_t buf[64 * 1024];
	uint32_t next = 0;
	int fd[2], st;
	pid_t child;

	MUST(!pipe(fd));
	child = fork();
	MUST(child >= 0);
	if (!child) {
		close(fd[0]);
		while (going_on()) {
			for (size_t i = 0; i < sizeof(buf) / 4; i++)
				buf[i] = next++;
			/* Many times what the pipe takes: it blocks halfway most of the time. */
			MUST(write(fd[1], buf, sizeof(buf)) == sizeof(buf));
		}
		_exit(0);
	}
	close(fd[1]);
	for (;;) {
		uint32_t got[1024];
		ssize_t n = read(fd[0], got, sizeof(got));

		MUST(n >= 0 && n % 4 == 0);
		if (!n)
			break;
		for (ssize_t i = 0; i < n / 4; i++)
			MUST(got[i] == next++);
		nap(5);
	}
	MUST(waitpid(child, &st, 0) == child && !st && next > 0);
}

/* ---- time limits ---- */

/* About as late as it should be: never early; how late depends on when a copy goes on. */
static void check_took(const char *what, double since, double want)
{
	double took = now() - since;

	if (took < want - 0.002)
		wrong("%s: %.3f s instead of %.3f", what, took, want);
	printf("value late-%s %.3f\n", what, took - want);
}

static void part_limits(void)
{
	int ep = epoll_create1(0), ev = eventfd(0, 0), sv[2];
	struct epoll_event e = {.events = EPOLLIN};
	struct timeval tv = {.tv_sec = (time_t)seconds,
			     .tv_usec = (long)((seconds - (double)(time_t)seconds) * 1e6)};
	struct timespec ts = {.tv_sec = tv.tv_sec, .tv_nsec = tv.tv_usec * 1000};
	int ms = (int)(seconds * 1000);
	double want = ms / 1000.0;
	sigset_t set;
	uint64_t v;
	char c;

	fflush(stdout);
	if (!fork()) {
		MUST(!epoll_ctl(ep, EPOLL_CTL_ADD, ev, &e));
		MUST(epoll_wait(ep, &e, 1, ms) == 0);
		check_took("epoll_wait", start, want);
		exit(0);
	}
	if (!fork()) {
		struct pollfd p = {.fd = ev, .events = POLLIN};

		MUST(poll(&p, 1, ms) == 0);
		check_took("poll", start, want);
		exit(0);
	}
	if (!fork()) {
		fd_set r;

		FD_ZERO(&r);
		FD_SET(ev, &r);
		MUST(select(ev + 1, &r, NULL, NULL, &tv) == 0);
		check_took("select", start, want);
		exit(0);
	}
	if (!fork()) {
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		sigprocmask(SIG_BLOCK, &set, NULL);
		MUST(sigtimedwait(&set, NULL, &ts) < 0 && errno == EAGAIN);
		check_took("sigtimedwait", start, want);
		exit(0);
	}
	if (!fork()) {
		MUST(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
		MUST(!setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
		MUST(recv(sv[0], &c, 1, 0) < 0 && errno == EAGAIN);
		check_took("recv", start, want);
		exit(0);
	}
	if (!fork()) {
		static int word;

		MUST(syscall(SYS_futex, &word, 128, 0, &ts, NULL, 0) < 0 && errno == ETIMEDOUT);
		check_took("futex", start, want);
		exit(0);
	}
	if (!fork()) {
		MUST(!clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL));
		check_took("nanosleep", start, want);
		exit(0);
	}
	if (!fork()) {
		struct itimerspec it = {.it_value = ts};
		int fd = timerfd_create(CLOCK_MONOTONIC, 0);

		MUST(fd >= 0 && !timerfd_settime(fd, 0, &it, NULL));
		MUST(read(fd, &v, 8) == 8 && v == 1);
		check_took("timerfd", start, want);
		exit(0);
	}
	for (int i = 0; i < 8; i++) {
		int st;

		MUST(wait(&st) > 0 && !st);
	}
}

/* ---- timers ---- */

static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
	alarms++;
}

static void part_timers(void)
{
	struct itimerspec it = {.it_interval.tv_nsec = 50000000, .it_value.tv_nsec = 50000000};
	struct itimerval iv = {.it_interval.tv_usec = 100000, .it_value.tv_usec = 100000};
	int fd = timerfd_create(CLOCK_MONOTONIC, 0), before;
	uint64_t n = 0, got;
	double began = now(), due = 0;

	signal(SIGALRM, on_alarm);
	MUST(fd >= 0 && !timerfd_settime(fd, 0, &it, NULL) && !setitimer(ITIMER_REAL, &iv, NULL));
	while (going_on()) {
		ssize_t r = read(fd, &got, 8);

		MUST(r == 8 || (r < 0 && errno == EINTR));
		n += r == 8 ? got : 0;
		MUST((double)n <= (now() - began) / 0.05 + 1);
	}
	/* The timer may be late when the machine is busy, but it loses nothing. */
	for (int i = 0; i < 100; i++) {
		while (read(fd, &got, 8) != 8)
			MUST(errno == EINTR);
		n += got;
		due = (now() - began) / 0.05;
		if ((double)n > due - 1.5)
			break;
	}
	MUST((double)n > due - 1.5 && (double)n <= due + 1);
	before = alarms;
	MUST(before >= 3);
	pause();
	MUST(alarms > before);
}

/* ---- sockets ---- */

static void pass_fd(int sock, int fd)
{
	char space[CMSG_SPACE(sizeof(int))] = "", byte = 'x';
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = space,
			   .msg_controllen = sizeof(space)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	MUST(sendmsg(sock, &m, 0) == 1);
}

static int take_fd(int sock)
{
	char space[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = space,
			   .msg_controllen = sizeof(space)};
	struct cmsghdr *c;
	int fd;

	MUST(recvmsg(sock, &m, 0) == 1);
	c = CMSG_FIRSTHDR(&m);
	MUST(c && c->cmsg_type == SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* Whole sends one way, MSG_WAITALL the other. */
static void stream(int ours, int theirs)
{
	static uint32_t buf[100000], got[100000];
	uint32_t next = 0;
	int st;
	pid_t child = fork();

	MUST(child >= 0);
	if (!child) {
		close(ours);
		for (;;) {
			for (size_t i = 0; i < 100000; i++)
				buf[i] = next++;
			if (!going_on())
				break;
			MUST(send(theirs, buf, sizeof(buf), 0) == sizeof(buf));
		}
		close(theirs);
		_exit(0);
	}
	close(theirs);
	for (;;) {
		ssize_t n = recv(ours, got, 40000, MSG_WAITALL);

		MUST(n == 40000 || n == 0);
		if (!n)
			break;
		for (int i = 0; i < 10000; i++)
			MUST(got[i] == next++);
		nap(10);
	}
	MUST(waitpid(child, &st, 0) == child && !st && next);
}

static void part_unix(void)
{
	int sv[2], pass[2], fd;
	char name[32];

	MUST(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv) && !socketpair(AF_UNIX, SOCK_DGRAM, 0, pass));
	/* A file whose only descriptor is on its way. */
	fd = memfd_create("passed", 0);
	MUST(write(fd, "passed", 6) == 6);
	pass_fd(pass[0], fd);
	close(fd);
	stream(sv[0], sv[1]);
	fd = take_fd(pass[1]);
	MUST(pread(fd, name, 6, 0) == 6 && !memcmp(name, "passed", 6));
}

static void part_inet(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int l = socket(AF_INET, SOCK_STREAM, 0), a, b, u[2];
	socklen_t len = sizeof(sin);
	char buf[16];

	MUST(l >= 0 && !bind(l, (void *)&sin, len) && !listen(l, 5));
	MUST(!getsockname(l, (void *)&sin, &len));
	a = socket(AF_INET, SOCK_STREAM, 0);
	MUST(!connect(a, (void *)&sin, len));
	b = accept(l, NULL, NULL);
	MUST(b >= 0);
	for (int i = 0; i < 2; i++) {
		u[i] = socket(AF_INET, SOCK_DGRAM, 0);
		sin.sin_port = 0;
		MUST(!bind(u[i], (void *)&sin, len));
	}
	MUST(!getsockname(u[1], (void *)&sin, &len));
	MUST(sendto(u[0], "packet", 6, 0, (void *)&sin, len) == 6);
	stream(b, a);
	MUST(recv(u[1], buf, sizeof(buf), 0) == 6 && !memcmp(buf, "packet", 6));
	/* A connection made afterwards. */
	len = sizeof(sin);
	MUST(!getsockname(l, (void *)&sin, &len));
	a = socket(AF_INET, SOCK_STREAM, 0);
	MUST(!connect(a, (void *)&sin, len) && accept(l, NULL, NULL) >= 0);
}

/* ---- files ---- */

static void part_files(void)
{
	int fd = open("/tmp/live-file", O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0644), in, dir,
	    n = 0;
	int other = open("/tmp/live-file", O_RDONLY);
	struct flock fl = {.l_type = F_WRLCK, .l_len = 10};
	char line[32], events[4096];
	struct stat st;
	uint32_t *map;
	pid_t child;
	int status;

	MUST(fd >= 0 && other >= 0);
	in = inotify_init1(IN_NONBLOCK);
	MUST(in >= 0 && inotify_add_watch(in, "/tmp/live-dir", IN_CREATE) < 0);
	mkdir("/tmp/live-dir", 0755);
	dir = open("/tmp/live-dir", O_RDONLY | O_DIRECTORY);
	MUST(dir >= 0 && inotify_add_watch(in, "/tmp/live-dir", IN_CREATE) >= 0);
	MUST(!fcntl(fd, F_SETLK, &fl));
	child = fork();
	if (!child) {
		/* The parent's lock holds until it ends. */
		MUST(fcntl(other, F_GETLK, &(struct flock){.l_type = F_RDLCK, .l_len = 1}) == 0);
		while (going_on()) {
			struct flock f = {.l_type = F_RDLCK, .l_len = 1};

			MUST(!fcntl(fd, F_GETLK, &f) && f.l_type == F_WRLCK &&
			     f.l_pid == getppid());
			nap(20);
		}
		_exit(0);
	}
	MUST(!ftruncate(fd, 0));
	map = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		   open("/tmp/live-map", O_RDWR | O_CREAT | O_TRUNC, 0600), 0);
	MUST(map != MAP_FAILED && !truncate("/tmp/live-map", 16 * PAGE));
	for (; going_on(); n++) {
		int m = open("/tmp/live-map", O_RDONLY);
		uint32_t v;

		snprintf(line, sizeof(line), "%09d\n", n);
		MUST(write(fd, line, 10) == 10);
		MUST(pread(other, line, 10, (off_t)n / 2 * 10) == 10 && atoi(line) == n / 2);
		map[n % (16 * PAGE / 4)] = (uint32_t)n;
		MUST(pread(m, &v, 4, n % (16 * PAGE / 4) * 4) == 4 && v == (uint32_t)n);
		close(m);
		if (n % 32 == 0) {
			MUST(!rename("/tmp/live-map", "/tmp/live-map2"));
			MUST(!rename("/tmp/live-map2", "/tmp/live-map"));
		}
		nap(2);
	}
	MUST(!fstat(fd, &st) && st.st_size == (off_t)n * 10);
	close(openat(dir, "new", O_CREAT | O_WRONLY, 0600));
	MUST(read(in, events, sizeof(events)) >= (ssize_t)sizeof(struct inotify_event));
	MUST(waitpid(child, &status, 0) == child && !status);
}

/* ---- processes ---- */

static void part_stopped(void)
{
	volatile int *count =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child = fork(), zombie;
	int st, seen;

	MUST(child >= 0);
	if (!child) {
		for (;; nap(1)) {
			(*count)++;
			if (count[1])
				_exit(7);
		}
	}
	while (!*count)
		nap(10);
	kill(child, SIGSTOP);
	MUST(waitpid(child, &st, WUNTRACED) == child && WIFSTOPPED(st));
	zombie = fork();
	if (!zombie)
		_exit(9);
	seen = *count;
	MUST(seen > 0);
	while (going_on()) {
		MUST(*count == seen);
		nap(20);
	}
	MUST(waitpid(child, &st, WNOHANG | WUNTRACED) == 0);
	kill(child, SIGCONT);
	MUST(waitpid(child, &st, WCONTINUED) == child && WIFCONTINUED(st));
	for (int i = 0; i < 500 && *count == seen; i++)
		nap(20);
	MUST(*count > seen);
	count[1] = 1;
	MUST(waitpid(child, &st, 0) == child && WIFEXITED(st) && WEXITSTATUS(st) == 7);
	MUST(waitpid(zombie, &st, 0) == zombie && WEXITSTATUS(st) == 9);
}

static void part_spawn(void)
{
	char *argv[] = {"true", NULL};
	int n = 0, st;
	pid_t pid;

	for (; going_on(); n++) {
		MUST(!posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ));
		MUST(waitpid(pid, &st, 0) == pid && !st);
		MUST(WEXITSTATUS(system("exit 3")) == 3);
	}
	MUST(n);
}

static void part_vfork(void)
{
	static int n;
	int st;

	/* A child that takes its time before it lets its parent go on. */
	for (; going_on(); n++) {
		volatile int mark = 0;
		pid_t pid = vfork();

		MUST(pid >= 0);
		if (!pid) {
			nap(300);
			mark = 1;
			_exit(5);
		}
		MUST(mark == 1);
		MUST(waitpid(pid, &st, 0) == pid && WEXITSTATUS(st) == 5);
	}
	MUST(n);
}

static void part_signals(void)
{
	sigset_t set;
	siginfo_t info;
	struct signalfd_siginfo sfd;
	pid_t self = getpid(), parent = getppid();
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN);
	MUST(!sigprocmask(SIG_BLOCK, &set, NULL));
	MUST(!sigqueue(self, SIGRTMIN, (union sigval){.sival_int = 41}));
	MUST(!sigqueue(self, SIGRTMIN, (union sigval){.sival_int = 42}));
	kill(self, SIGUSR1);
	while (going_on()) {
		MUST(getpid() == self && getppid() == parent);
		nap(10);
	}
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	MUST(sigwaitinfo(&set, &info) == SIGRTMIN && info.si_value.sival_int == 41);
	MUST(sigwaitinfo(&set, &info) == SIGRTMIN && info.si_value.sival_int == 42);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	fd = signalfd(-1, &set, 0);
	MUST(read(fd, &sfd, sizeof(sfd)) == sizeof(sfd) && sfd.ssi_signo == SIGUSR1);
}

static void part_terminal(void)
{
	int m = posix_openpt(O_RDWR | O_NOCTTY), s, st, n = 0;
	struct termios t;
	char buf[64];
	pid_t child;

	MUST(m >= 0 && !grantpt(m) && !unlockpt(m));
	s = open(ptsname(m), O_RDWR | O_NOCTTY);
	MUST(s >= 0 && !tcgetattr(s, &t));
	t.c_lflag &= ~(tcflag_t)ECHO;
	MUST(!tcsetattr(s, TCSANOW, &t));
	child = fork();
	if (!child) {
		/* Half a line is in the line discipline most of the time. */
		for (int i = 0; going_on(); i++) {
			MUST(dprintf(m, "%04d", i) == 4);
			nap(20);
			MUST(write(m, "\n", 1) == 1);
		}
		MUST(write(m, "end\n", 4) == 4);
		_exit(0);
	}
	for (;; n++) {
		ssize_t got = read(s, buf, sizeof(buf));

		MUST(got > 0);
		if (!memcmp(buf, "end\n", 4))
			break;
		MUST(got == 5 && atoi(buf) == n);
	}
	MUST(waitpid(child, &st, 0) == child && !st && n);
}

/* ---- memory and CPU ---- */

static void fill(uint32_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = seed = seed * 1664525 + 1013904223;
}

static bool is_filled(const uint32_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] != (seed = seed * 1664525 + 1013904223))
			return false;
	}
	return true;
}

static void part_memory(void)
{
	const size_t n = 1 << 20;
	uint32_t *p = mmap(NULL, n * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *wide = mmap(NULL, 1UL << 33, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int st, fd = open("/bin/busybox", O_RDONLY);
	char *image = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	uint32_t seed = 1;
	pid_t child;

	MUST(p != MAP_FAILED && wide != MAP_FAILED && image != MAP_FAILED);
	image[PAGE] ^= 1;
	fill(p, n, seed);
	for (int i = 0; i < 8; i++)
		wide[(size_t)i << 30] = (char)(i + 1);
	/* A page that is like others. */
	memset(wide + PAGE, 'e', 2 * PAGE);
	child = fork();
	MUST(child >= 0);
	if (!child)
		seed = 2;
	while (going_on()) {
		if (!child) {
			fill(p, n / 2, ++seed);
			MUST(is_filled(p, n / 2, seed));
		} else {
			MUST(is_filled(p, n, 1));
		}
		for (int i = 0; i < 8; i++)
			MUST(wide[(size_t)i << 30] == (char)(i + 1) &&
			     !wide[((size_t)i << 30) + 5 * PAGE]);
		MUST(image[0] == 127 && !memcmp(image + 1, "ELF", 3));
		MUST(!mprotect(p, PAGE, PROT_READ) && !mprotect(p, PAGE, PROT_READ | PROT_WRITE));
		nap(20);
	}
	if (!child)
		_exit(0);
	MUST(waitpid(child, &st, 0) == child && !st);
}

/* Long stretches without a call, and registers that no call saves. */
static void part_cpu(void)
{
	double cpu = 0, before = 0;

	while (going_on()) {
		uint64_t x = 0, y = 0;

		for (int k = 0; k < 50; k++) {
			__asm__ volatile("movq %2, %%xmm7\n\tmovq %3, %%r15\n\t"
					 "movl $200000, %%ecx\n"
					 "1:\tpaddq %%xmm7, %%xmm6\n\tleaq 1(%%r15), %%r15\n\t"
					 "decl %%ecx\n\tjnz 1b\n\t"
					 "movq %%xmm7, %0\n\tmovq %%r15, %1\n\tpxor %%xmm6, %%xmm6"
					 : "=r"(x), "=r"(y)
					 : "r"(0x1234567890abcdefUL), "r"(5UL)
					 : "r15", "ecx", "xmm6", "xmm7", "cc");
			MUST(x == 0x1234567890abcdefUL && y == 200005);
		}
		cpu = now_on(CLOCK_PROCESS_CPUTIME_ID);
		MUST(cpu >= before);
		before = cpu;
		nap(20);
	}
	MUST(cpu > 0);
}

/* ---- what differs between copies ---- */

static void print_hex(const char *name, const void *p, size_t n)
{
	printf("value %s ", name);
	for (size_t i = 0; i < n; i++)
		printf("%02x", ((const uint8_t *)p)[i]);
	printf("\n");
}

static void part_secrets(void)
{
	char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *argv[] = {"live", "at-random", NULL}, r[16];
	pid_t child;
	int st, fd;

	MUST(p != MAP_FAILED);
	memset(p, 's', 4 * PAGE);
	/* The last page is also a child's, who hasn't asked for anything. */
	child = fork();
	MUST(child >= 0);
	if (!child) {
		while (going_on())
			nap(20);
		MUST(p[0] == 's' && p[4 * PAGE - 1] == 's');
		_exit(0);
	}
	MUST(!madvise(p, PAGE, MADV_WIPEONFORK) && !madvise(p + 3 * PAGE, PAGE, MADV_WIPEONFORK));
	MUST(!mprotect(p + 3 * PAGE, PAGE, PROT_READ));
	p[1] = 't';
	while (going_on())
		nap(20);
	MUST(p[PAGE] == 's' && p[3 * PAGE - 1] == 's');
	if (p[0] == 's' && p[1] == 't' && p[3 * PAGE] == 's')
		printf("value wiped no\n");
	else if (!p[0] && !p[1] && !p[PAGE - 1] && !p[3 * PAGE] && !p[4 * PAGE - 1])
		printf("value wiped yes\n");
	else
		wrong("half wiped");
	p[0] = 'u';
	MUST(p[0] == 'u');
	MUST(getrandom(r, sizeof(r), 0) == sizeof(r));
	print_hex("getrandom", r, sizeof(r));
	fd = open("/dev/urandom", O_RDONLY);
	MUST(fd >= 0 && read(fd, r, sizeof(r)) == sizeof(r));
	print_hex("urandom", r, sizeof(r));
	fflush(stdout);
	MUST(!posix_spawn(&child, "/proc/self/exe", NULL, NULL, argv, environ));
	MUST(waitpid(child, &st, 0) == child && !st);
	printf("value realtime %d\n", (int)time(NULL));
}

/* ---- all of them ---- */

static const struct part {
	const char *name;
	void (*fn)(void);
} parts[] = {
	{"threads", part_threads},   {"shared", part_shared}, {"pipes", part_pipes},
	{"limits", part_limits},     {"timers", part_timers}, {"unix", part_unix},
	{"inet", part_inet},	     {"files", part_files},   {"stopped", part_stopped},
	{"spawn", part_spawn},	     {"vfork", part_vfork},   {"signals", part_signals},
	{"terminal", part_terminal}, {"memory", part_memory}, {"cpu", part_cpu},
	{"secrets", part_secrets},
};
#define NR_PARTS (sizeof(parts) / sizeof(parts[0]))

static bool is_wanted(const char *name, int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], name))
			return true;
	}
	return argc < 3;
}

int main(int argc, char **argv)
{
	pid_t pids[NR_PARTS] = {0};
	int failed = 0;

	if (argc == 2 && !strcmp(argv[1], "at-random")) {
		print_hex("at-random", (void *)getauxval(AT_RANDOM), 16);
		return 0;
	}
	seconds = argc > 1 ? atof(argv[1]) : 3;
	start = now();
	setvbuf(stdout, NULL, _IOFBF, 65536);
	for (size_t i = 0; i < NR_PARTS; i++) {
		if (!is_wanted(parts[i].name, argc, argv))
			continue;
		pids[i] = fork();
		if (!pids[i]) {
			parts[i].fn();
			fflush(stdout);
			_exit(0);
		}
	}
	printf("started\n");
	fflush(stdout);
	for (size_t i = 0; i < NR_PARTS; i++) {
		int st = 0;

		if (!pids[i])
			continue;
		if (waitpid(pids[i], &st, 0) != pids[i] || st) {
			printf("not ok %s: status %#x\n", parts[i].name, (unsigned int)st);
			failed = 1;
		} else {
			printf("ok %s\n", parts[i].name);
		}
	}
	printf("end %d\n", failed);
	return failed;
}
