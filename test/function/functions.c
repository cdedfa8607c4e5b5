/* SPDX-License-Identifier: Apache-2.0 */
/* Small functions for test/function/driver.py, one for each name that it is started by. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "message.h"

static char body[1 << 20];

/* Standard input to its end. */
static size_t slurp(void)
{
	size_t n = 0;
	ssize_t got;

	while ((got = read(0, body + n % sizeof(body), sizeof(body) - n % sizeof(body))) > 0)
		n += (size_t)got;
	return n;
}

static int run_echo(void)
{
	char buf[65536];
	ssize_t n;

	while ((n = read(0, buf, sizeof(buf))) > 0) {
		for (ssize_t done = 0, put; done < n; done += put) {
			put = write(1, buf + done, (size_t)(n - done));
			if (put < 0)
				return 9;
		}
	}
	return 0;
}

static int run_count(void)
{
	static int requests;

	slurp();
	return printf("%d\n", ++requests) < 0;
}

static int run_spin(void)
{
	slurp();
	for (;;)
		__asm__ volatile("" ::: "memory");
	return 0;
}

static int run_sleep(void)
{
	slurp();
	for (;;)
		pause();
	return 0;
}

static int run_flood(void)
{
	slurp();
	memset(body, 'x', sizeof(body));
	while (write(1, body, sizeof(body)) > 0)
		;
	return 0;
}

static int run_crash(void)
{
	slurp();
	*(volatile int *)8 = 1;
	return 0;
}

static int run_eat(void)
{
	slurp();
	for (;;) {
		char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0);

		if (p == MAP_FAILED)
			return 8;
		memset(p, 1, 1 << 20);
	}
}

static int run_breed(void)
{
	int n = 0;

	slurp();
	while (n < 10000) {
		pid_t pid = fork();

		if (!pid)
			for (;;)
				pause();
		if (pid < 0)
			return printf("%s after %d\n", strerror(errno), n) < 0;
		n++;
	}
	return 7;
}

/*
 * Says how many page faults it takes to write to memory from before the snapshot, which it unmaps at
 * its end, as Python does.
 */
static int run_unmap(void)
{
	const size_t size = 300 * 4096;
	struct rusage before, after;
	char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED)
		return 9;
	memset(area, 1, size);
	slurp();
	getrusage(RUSAGE_SELF, &before);
	for (size_t i = 0; i < size; i += 4096) {
		if (area[i]++ != 1)
			return 8;
	}
	getrusage(RUSAGE_SELF, &after);
	printf("%ld\n", after.ru_minflt - before.ru_minflt);
	return munmap(area, size) ? 9 : 0;
}

static int run_no_read(void)
{
	printf("done without\n");
	return 4;
}

static int run_poll(void)
{
	struct pollfd p = {.fd = 0, .events = POLLIN};

	while (poll(&p, 1, -1) < 0 || !(p.revents & (POLLIN | POLLHUP)))
		;
	return run_echo();
}

static int run_epoll(void)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = epoll_create1(0);

	epoll_ctl(ep, EPOLL_CTL_ADD, 0, &ev);
	while (epoll_wait(ep, &ev, 1, -1) != 1)
		;
	return run_echo();
}

static int run_stderr(void)
{
	fprintf(stderr, "before\n");
	slurp();
	fprintf(stderr, "during %s\n", body);
	printf("out\n");
	return 0;
}

static int run_steps(void)
{
	slurp();
	for (int i = 0; i < 4; i++) {
		dprintf(1, "step %d\n", i);
		usleep(60000);
	}
	return 0;
}

static int run_ignore(void)
{
	char c;

	if (read(0, &c, 1) != 1)
		return 1;
	close(0);
	return printf("%c\n", c) < 0;
}

static int run_orphan(void)
{
	slurp();
	if (!fork()) {
		for (;;)
			pause();
	}
	return printf("parent\n") < 0;
}

/* What must differ from one request to the next, and from one copy to the other. */
static int run_random(int argc, char **argv)
{
	uint64_t r, at = *(uint64_t *)getauxval(AT_RANDOM);
	struct timespec real, mono;
	char self[] = "/proc/self/exe";

	if (argc > 1)
		return printf("%016lx\n", (unsigned long)at) < 0;
	slurp();
	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		return 1;
	clock_gettime(CLOCK_REALTIME, &real);
	clock_gettime(CLOCK_MONOTONIC, &mono);
	dprintf(1, "%016lx %ld.%09ld %ld.%09ld ", (unsigned long)r, (long)real.tv_sec,
		real.tv_nsec, (long)mono.tv_sec, mono.tv_nsec);
	execl(self, argv[0], "again", NULL);
	return 2;
}

static void *adder(void *arg)
{
	volatile long *sum = arg;

	for (int i = 0; i < 100000; i++)
		__atomic_fetch_add(sum, 1, __ATOMIC_RELAXED);
	return NULL;
}

/* Threads that exist in the snapshot, and more. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static int is_open, passed;

static void *waits(void *arg)
{
	pthread_mutex_lock(&gate);
	while (!is_open)
		pthread_cond_wait(&opened, &gate);
	passed++;
	pthread_cond_broadcast(&opened);
	pthread_mutex_unlock(&gate);
	return arg;
}

static int run_threads(void)
{
	pthread_t old[4], new[4];
	long sum = 0;

	for (int i = 0; i < 4; i++)
		pthread_create(&old[i], NULL, waits, NULL);
	slurp();
	for (int i = 0; i < 4; i++)
		pthread_create(&new[i], NULL, adder, &sum);
	pthread_mutex_lock(&gate);
	is_open = 1;
	pthread_cond_broadcast(&opened);
	while (passed < 4)
		pthread_cond_wait(&opened, &gate);
	pthread_mutex_unlock(&gate);
	for (int i = 0; i < 4; i++) {
		pthread_join(old[i], NULL);
		pthread_join(new[i], NULL);
	}
	return printf("%d %ld\n", passed, sum) < 0;
}

/* A child and a pipe that exist in the snapshot. */
static int run_child(void)
{
	int to[2], from[2];
	char buf[64];
	ssize_t n;

	if (pipe(to) || pipe(from))
		return 1;
	if (!fork()) {
		close(0);
		while ((n = read(to[0], buf, sizeof(buf))) > 0) {
			for (ssize_t i = 0; i < n; i++)
				buf[i]++;
			(void)!write(from[1], buf, (size_t)n);
		}
		_exit(0);
	}
	n = read(0, buf, sizeof(buf));
	(void)!write(to[1], buf, (size_t)n);
	n = read(from[0], buf, sizeof(buf));
	(void)!write(1, buf, (size_t)n);
	return 0;
}

/* Timers that run in the snapshot go on. */
static int run_timer(void)
{
	struct itimerspec its = {.it_value.tv_nsec = 50000000, .it_interval.tv_nsec = 50000000};
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	uint64_t n;

	timerfd_settime(fd, 0, &its, NULL);
	slurp();
	for (int i = 0; i < 3; i++) {
		if (read(fd, &n, sizeof(n)) != sizeof(n))
			return 1;
	}
	return printf("ticked\n") < 0;
}

/* A server: one line in, one line out with how many there have been. */
static int run_http(void)
{
	int s = listener(8080), requests = 0;

	for (;;) {
		int c = accept(s, NULL, NULL);
		char buf[65536];
		ssize_t n;

		if (c < 0)
			continue;
		while ((n = read(c, buf, sizeof(buf))) > 0) {
			if (!strncmp(buf, "crash", 5))
				abort();
			dprintf(c, "%d %.*s", ++requests, (int)n, buf);
		}
		close(c);
	}
}

/* ---- a server of HTTP, and a runtime of AWS Lambda's: just enough of both ---- */

static int run_web(void)
{
	int s = listener(8080), requests = 0;

	for (;;) {
		int c = accept(s, NULL, NULL);
		char *text, answer[512];
		size_t len;

		while (c >= 0 && read_message(c, body, sizeof(body), &text, &len)) {
			int n = snprintf(answer, sizeof(answer), "%d %.*s", ++requests,
					 (int)(len < 200 ? len : 200), text);

			http_answer(c, answer, (size_t)n);
		}
		close(c);
	}
	return 0;
}

static int run_lambda(void)
{
	int fd = lambda_connect(), requests = 0;
	char *text, id[64], answer[512];
	size_t len;

	for (;;) {
		int n;

		if (!lambda_next(fd, body, sizeof(body), &text, &len, id))
			return 2;
		n = snprintf(answer, sizeof(answer), "{\"n\":%d,\"event\":%.*s}", ++requests,
			     (int)(len < 200 ? len : 200), text);
		if (!lambda_answer(fd, id, answer, (size_t)n, body, sizeof(body)))
			return 4;
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(void);
	} functions[] = {
		{"echo", run_echo},	{"count", run_count},	  {"spin", run_spin},
		{"sleep", run_sleep},	{"flood", run_flood},	  {"crash", run_crash},
		{"eat", run_eat},	{"breed", run_breed},	  {"no-read", run_no_read},
		{"poll", run_poll},	{"epoll", run_epoll},	  {"stderr", run_stderr},
		{"steps", run_steps},	{"ignore", run_ignore},	  {"orphan", run_orphan},
		{"threads", run_threads}, {"child", run_child},	  {"timer", run_timer},
		{"http", run_http},	{"web", run_web},	  {"lambda", run_lambda},
		{"unmap", run_unmap},
	};
	const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];

	if (!strcmp(name, "random"))
		return run_random(argc, argv);
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		if (!strcmp(name, functions[i].name))
			return functions[i].run();
	}
	return 99;
}
