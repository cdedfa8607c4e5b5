/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows: what is measured, and how one value of it is taken.
 *
 * A new row is a line of the table; a new way of measuring is a function above it.
 * docs/benchmarks.md says at more length what each row means.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where programs of the small image may write, by the names they see. */
static const char *scratch_of(const struct bench *b, const struct column *col)
{
	return col->kind == COL_NATIVE && !b->native_root[IMAGE_SMALL] ? b->shm : "/tmp";
}

/* "NAME value unit count" in what a program of the guest directory said. */
static int parse_value(struct bench *b, const char *name, const char *out, double *v)
{
	const char *line = out;
	size_t len = strlen(name);

	for (; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		if (!strncmp(line, name, len) && line[len] == ' ' &&
		    sscanf(line + len, " %lf", v) == 1)
			return 0;
	}
	return bench_fail(b, "%s: no value in '%.100s'", name, out);
}

static int measure_micro(struct bench *b, const struct row *row, const struct column *col,
			 double *v)
{
	const char *name = row->arg ? row->arg : row->name;
	struct launch l = {.col = col, .one_cpu = row->flags & ROW_ONE_CPU};
	struct outcome o;
	char ms[16];

	snprintf(ms, sizeof(ms), "%u", b->ms);
	memcpy(l.argv, (const char *[]){"/bench/micro", "-m", ms, "-d", scratch_of(b, col), name},
	       6 * sizeof(char *));
	if (launch_check(b, &l, &o))
		return -1;
	return parse_value(b, name, o.out, v);
}

/* Splits @copy at blanks. */
static void split(char *copy, const char **argv)
{
	char *w, *save = NULL;
	int n = 0;

	for (w = strtok_r(copy, " ", &save); w && n < MAX_ARGS - 1; w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	argv[n] = NULL;
}

/* Start to exit. Short commands run several times; the value is the median. */
static int measure_wall(struct bench *b, const struct row *row, const struct column *col, double *v)
{
	struct launch l = {.col = col, .one_cpu = row->flags & ROW_ONE_CPU};
	char *copy = strdup(row->arg);
	double times[7];
	struct outcome o;
	uint64_t spent = 0;
	int n = 0, err = 0;

	l.image = row->flags & ROW_APPS ? IMAGE_APPS : IMAGE_SMALL;
	split(copy, l.argv);
	while (n < 7 && (!n || spent < 300000000)) {
		err = launch_check(b, &l, &o);
		if (err)
			break;
		times[n++] = (double)o.wall_ns;
		spent += o.wall_ns;
	}
	free(copy);
	if (!err)
		*v = spread_of(times, n).median;
	return err;
}

/* The largest process of the whole. */
static int measure_maxrss(struct bench *b, const struct row *row, const struct column *col,
			  double *v)
{
	struct launch l = {.col = col, .argv = {row->arg}};
	struct outcome o;

	if (launch_check(b, &l, &o))
		return -1;
	*v = (double)o.maxrss_kib;
	return 0;
}

/* A script that times a part of itself with /mnt/timed. Status 77: the image lacks a program. */
static int measure_script(struct bench *b, const struct row *row, const struct column *col,
			  double *v)
{
	struct launch l = {.col = col, .image = IMAGE_APPS};
	struct outcome o;
	char *script;
	int err;

	script = format("export HOME=/tmp PYTHONDONTWRITEBYTECODE=1; cd /tmp; %s", row->arg);
	memcpy(l.argv, (const char *[]){"/bin/sh", "-ec", script}, 3 * sizeof(char *));
	err = launch_check(b, &l, &o);
	free(script);
	if (err && WIFEXITED(o.status) && WEXITSTATUS(o.status) == 77) {
		bench_fail(b, "%s", *o.out ? strtok(o.out, "\n") : "something is missing");
		return SKIP;
	}
	return err ? err : parse_value(b, row->name, o.out, v);
}

/* What a sandbox weighs while its program sleeps. */
static int measure_pss(struct bench *b, const struct row *row, const struct column *col, double *v)
{
	struct launch l = {.col = col, .argv = {"/bench/idle", row->arg}};
	struct idler i;
	int processes;
	long kib;

	if (idler_start(b, &l, &i))
		return -1;
	usleep(50000);
	kib = descendants_pss(&processes);
	idler_stop(&i);
	if (kib < 0 || !processes)
		return bench_fail(b, "can't read smaps_rollup");
	*v = (double)kib;
	return 0;
}

/* Many at once: their weight each, what the host's free memory says, and how fast they came. */
static int measure_density(struct bench *b, const struct row *row, const struct column *col,
			   double *v)
{
	struct launch l = {.col = col, .argv = {"/bench/idle"}};
	unsigned int want = b->density, n;
	struct idler *idlers;
	long kib = -1, before, after;
	uint64_t start, took;
	int processes;

	before = meminfo_kib("MemAvailable:");
	if (before < (long)want * 40960) {
		bench_fail(b, "needs %u MiB of free memory", want * 40);
		return SKIP;
	}
	idlers = calloc(want, sizeof(*idlers));
	if (!idlers)
		die("out of memory");
	start = clock_ns();
	for (n = 0; n < want; n++) {
		if (idler_start(b, &l, &idlers[n]))
			break;
	}
	took = clock_ns() - start;
	if (n == want) {
		usleep(200000);
		kib = descendants_pss(&processes);
		after = meminfo_kib("MemAvailable:");
		*v = (double)kib / want;
		/* Someone else may have given memory back meanwhile: then it says nothing. */
		if (after < before)
			bench_also(b, "density-host", col, (double)(before - after) / want);
		bench_also(b, "density-start", col, (double)took / want);
	}
	for (; n; n--)
		idler_stop(&idlers[n - 1]);
	free(idlers);
	return kib < 0 ? -1 : 0;
}

/*
 * Short runs per second, with as many at a time as there are processors. Each worker is a process
 * of its own that reports its count through a pipe.
 */
static int measure_rate(struct bench *b, const struct row *row, const struct column *col, double *v)
{
	long workers = sysconf(_SC_NPROCESSORS_ONLN), i;
	struct launch l = {.col = col, .argv = {row->arg}};
	uint64_t start = clock_ns(), end = start + 700000000ull;
	unsigned int n, sum = 0;
	pid_t pid, pids[64];
	bool failed = false;
	struct outcome o;
	int fds[2], status;

	/* Bundles of OCI runtimes are files in one place: no two at once. */
	if (col->kind == COL_CRUN || col->kind == COL_RUNSC)
		workers = 1;
	if (workers > 64)
		workers = 64;
	if (pipe(fds))
		return bench_fail(b, "pipe: %s", strerror(errno));
	for (i = 0; i < workers; i++) {
		pid = fork();
		if (pid < 0) {
			failed = true;
			bench_fail(b, "fork: %s", strerror(errno));
			break;
		}
		pids[i] = pid;
		if (pid)
			continue;
		for (n = 0; clock_ns() < end; n++) {
			if (launch_check(b, &l, &o))
				_exit(1);
		}
		_exit(write(fds[1], &n, sizeof(n)) != sizeof(n));
	}
	close(fds[1]);
	while (read(fds[0], &n, sizeof(n)) == sizeof(n))
		sum += n;
	close(fds[0]);
	for (; i; i--) {
		if (waitpid(pids[i - 1], &status, 0) > 0 && status) {
			failed = true;
			bench_fail(b, "%s: a run failed", row->name);
		}
	}
	*v = sum / ((double)(clock_ns() - start) / 1e9);
	return failed ? -1 : 0;
}

/* The sum of all counters that begin with @prefix in the output of --stats. */
static double sum_counters(const char *text, const char *prefix)
{
	const char *line = text, *end, *digits;
	size_t len = strlen(prefix);
	double sum = 0;

	for (; line && *line; line = end ? end + 1 : NULL) {
		end = strchr(line, '\n');
		if (strncmp(line, prefix, len))
			continue;
		/* The number is the last word. */
		for (digits = end ? end : line + strlen(line); digits > line; digits--) {
			if (digits[-1] < '0' || digits[-1] > '9')
				break;
		}
		sum += strtod(digits, NULL);
	}
	return sum;
}

static int count_exits(struct bench *b, const char *name, long n, const struct column *col,
		       double *exits)
{
	char count[24];
	struct launch l = {.col = col, .stats = true};
	struct outcome o;

	snprintf(count, sizeof(count), "%ld", n);
	memcpy(l.argv,
	       (const char *[]){"/bench/micro", "-n", count, "-d", scratch_of(b, col), name},
	       6 * sizeof(char *));
	if (launch_check(b, &l, &o))
		return -1;
	*exits = sum_counters(o.err, col->exits);
	if (*exits <= 0)
		return bench_fail(b, "--stats has no '%s'", col->exits);
	return 0;
}

/*
 * How often one operation leaves user code for the sentry: the difference between N and 4N of them,
 * so that start and end don't count. Exact where every call exits; where a polling sentry answers
 * some, it says how many it missed. @arg is "MICRO N".
 */
static int measure_exits(struct bench *b, const struct row *row, const struct column *col,
			 double *v)
{
	double once, four;
	char name[32];
	long n;

	if (!col->exits) {
		bench_fail(b, "no counter of --stats is known for it");
		return SKIP;
	}
	if (sscanf(row->arg, "%31s %ld", name, &n) != 2)
		return bench_fail(b, "row %s is wrong", row->name);
	if (count_exits(b, name, n, col, &once) || count_exits(b, name, 4 * n, col, &four))
		return -1;
	*v = fmax(0, (four - once) / (double)(3 * n));
	return 0;
}

#define NEED(program)                                                                              \
	"command -v " program " >/dev/null || { echo no " program " in the image; exit 77; }; "
#define MICRO(name, help)                                                                          \
	{                                                                                          \
		name, "calls", UNIT_NS, 0, measure_micro, NULL, help                               \
	}

const struct row rows[] = {
	MICRO("getppid", "the least call"),
	MICRO("getppid-any", "the same from a site that serves all numbers, as syscall(3)"),
	MICRO("getpid", "the same, which some kernels answer elsewhere"),
	MICRO("enosys", "a call that doesn't exist: dispatch alone"),
	MICRO("clock_gettime", "the vDSO"),
	MICRO("read-1", "pread of 1 byte of a file in memory"),
	MICRO("read-4k", "pread of 4 KiB"),
	MICRO("read-64k", "pread of 64 KiB"),
	MICRO("write-1", "pwrite of 1 byte to a file in memory"),
	MICRO("write-4k", "pwrite of 4 KiB"),
	MICRO("write-64k", "pwrite of 64 KiB"),
	MICRO("pipe-1", "write and read of 1 byte through a pipe, one process: 2 calls"),
	MICRO("pipe-4k", "of 4 KiB"),
	MICRO("pipe-64k", "of 64 KiB"),
	MICRO("open-close", "of a file in memory: 2 calls"),
	MICRO("open-close-image", "of a file of the image: 2 calls"),
	MICRO("stat", "of a file in memory"),
	MICRO("stat-image", "of a file of the image"),
	MICRO("stat-missing", "of a name that isn't there"),
	MICRO("create-unlink", "create, close and unlink a file: 3 calls"),
	MICRO("readdir-100", "opendir to closedir of 100 names: 5 calls"),
	MICRO("futex-wake", "nobody waits"),
	MICRO("poll-10", "10 pipe ends, 5 ready"),
	MICRO("epoll-wait", "1 ready"),
	MICRO("socketpair-64", "64 bytes through a UNIX socket, one process: 2 calls"),
	MICRO("signal", "tgkill to oneself, handler, sigreturn"),
	{"getppid-1cpu", "one-cpu", UNIT_NS, ROW_ONE_CPU, measure_micro, "getppid",
	 "with one processor for everything"},
	{"read-4k-1cpu", "one-cpu", UNIT_NS, ROW_ONE_CPU, measure_micro, "read-4k",
	 "with one processor for everything"},
	{"pipe-pingpong-1cpu", "one-cpu", UNIT_NS, ROW_ONE_CPU, measure_micro, "pipe-pingpong",
	 "with one processor for everything"},
	{"touch", "memory", UNIT_NS, 0, measure_micro, NULL,
	 "first touch of a page of a fresh mapping, in order"},
	{"touch-1m", "memory", UNIT_NS, 0, measure_micro, NULL,
	 "a page of: map 1 MiB, touch all, unmap"},
	{"mmap-munmap", "memory", UNIT_NS, 0, measure_micro, NULL, "64 KiB, untouched: 2 calls"},
	{"mprotect", "memory", UNIT_NS, 0, measure_micro, NULL,
	 "a used page read-only, writable, and a store: 2 calls"},
	{"brk", "memory", UNIT_NS, 0, measure_micro, NULL, "a page more and less: 2 calls"},
	{"fork", "processes", UNIT_NS, 0, measure_micro, NULL, "fork, exit, wait"},
	{"fork-exec", "processes", UNIT_NS, 0, measure_micro, NULL,
	 "fork, exec of a static program, exit, wait"},
	{"spawn", "processes", UNIT_NS, 0, measure_micro, NULL, "the same by posix_spawn (vfork)"},
	{"thread-create", "processes", UNIT_NS, 0, measure_micro, NULL, "pthread_create, join"},
	{"pipe-pingpong", "processes", UNIT_NS, 0, measure_micro, NULL,
	 "a byte to another process and back"},
	{"futex-pingpong", "processes", UNIT_NS, 0, measure_micro, NULL,
	 "a turn to another thread and back"},
	{"start-true", "commands", UNIT_NS, 0, measure_wall, "/bench/true",
	 "start to exit of a static `true`, image cached"},
	{"start-true-1cpu", "commands", UNIT_NS, ROW_ONE_CPU, measure_wall, "/bench/true",
	 "with one processor for everything"},
	{"start-python", "commands", UNIT_NS, ROW_APPS, measure_wall, "/usr/bin/python3 -c pass",
	 "start to exit of `python3 -c pass`"},
	{"run-rate", "commands", UNIT_PER_S, 0, measure_rate, "/bench/true",
	 "runs of `true` per second, one worker per processor"},
	{"sh-loop", "commands", UNIT_NS, ROW_APPS, measure_script,
	 "/mnt/timed sh-loop sh -c 'i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done'",
	 "100 times /bin/true (dynamic) from dash"},
	{"py-compute", "applications", UNIT_NS, ROW_APPS | ROW_HEAVY, measure_script,
	 NEED("python3") "/mnt/timed py-compute python3 /mnt/compute.py",
	 "dictionaries, floats and strings in Python"},
	{"node-compute", "applications", UNIT_NS, ROW_APPS | ROW_HEAVY, measure_script,
	 NEED("node") "/mnt/timed node-compute node /mnt/compute.js", "a Node.js loop"},
	{"py-imports", "applications", UNIT_NS, ROW_APPS | ROW_HEAVY, measure_script,
	 NEED("python3") "/mnt/timed py-imports python3 -c "
			 "'import json, asyncio, http.client, sqlite3, unittest, xml.dom.minidom'",
	 "Python with many modules"},
	{"sqlite-load", "applications", UNIT_NS, ROW_APPS | ROW_HEAVY, measure_script,
	 NEED("sqlite3") "rm -f /tmp/b.db; /mnt/timed sqlite-load sqlite3 /tmp/b.db '.read "
			 "/mnt/load.sql'",
	 "20,000 rows in one transaction, 200 in their own, an index, queries"},
	{"git-status", "applications", UNIT_NS, ROW_APPS | ROW_HEAVY, measure_script,
	 NEED("git") "rm -rf r; cp -r /mnt/repo r; cd r; git status >/dev/null; "
		     "/mnt/timed git-status git status; cd ..; rm -rf r",
	 "in a tree of 600 files, index warm"},
	{"make-j2", "applications", UNIT_NS, ROW_APPS | ROW_HEAVY, measure_script,
	 NEED("gcc") "PATH=$PATH:/mnt/bin; " NEED(
		 "make") "rm -rf p; cp -r /mnt/project p; /mnt/timed make-j2 make -s -j2 -C p; rm "
			 "-rf p",
	 "a C program of 16 files"},
	{"find", "applications", UNIT_NS, ROW_APPS | ROW_HEAVY, measure_script,
	 "/mnt/timed find find /usr -name '*.py' -size +1k", "find -size over the image's /usr"},
	{"pss-idle", "memory use", UNIT_KIB, 0, measure_pss, NULL,
	 "all processes of an idle sandbox, proportional set size"},
	{"pss-64m", "memory use", UNIT_KIB, 0, measure_pss, "64",
	 "the same with 64 MiB in use by the program"},
	{"maxrss-true", "memory use", UNIT_KIB, 0, measure_maxrss, "/bench/true",
	 "peak resident size of the largest process while running `true`"},
	{"density-pss", "memory use", UNIT_KIB, ROW_ONCE, measure_density, NULL,
	 "--density idle sandboxes at once: proportional set size of each"},
	{"density-host", "memory use", UNIT_KIB, ROW_ONCE, NULL, "density-pss",
	 "of the same: what the host has less, each (with the host kernel's own)"},
	{"density-start", "memory use", UNIT_NS, ROW_ONCE, NULL, "density-pss",
	 "of the same: time from one start to the next"},
	{"fn-cgi", "functions", UNIT_PER_S, ROW_HEAVY, measure_cgi, NULL,
	 "HTTP requests per second, a new process or sandbox for each; 2 connections"},
	{"fn-hello", "functions", UNIT_PER_S, ROW_FUNCTION, measure_hello, NULL,
	 "the same program behind kvmsbox serve, 2 warm instances; natively: fn-cgi"},
	{"fn-hello-p50", "functions", UNIT_NS, ROW_FUNCTION, NULL, "fn-hello",
	 "of the same: median latency"},
	{"fn-hello-p99", "functions", UNIT_NS, ROW_FUNCTION, NULL, "fn-hello",
	 "of the same: 99th percentile"},
	{"fn-p99", "functions", UNIT_COUNT, ROW_FUNCTION, NULL, "fn-hello",
	 "of the same: p99 / p50 at 70% of that rate, on a schedule"},
	{"fn-python", "functions", UNIT_NS, ROW_FUNCTION | ROW_APPS | ROW_HEAVY, measure_python,
	 "http", "a Python server's request; natively: the same imports, start to exit"},
	{"fn-python-stdio", "functions", UNIT_NS, ROW_FUNCTION | ROW_APPS | ROW_HEAVY,
	 measure_python, "stdio", "a Python program's request, to its exit"},
	{"fn-reset-run", "functions", UNIT_NS, ROW_FUNCTION, measure_reset, NULL,
	 "a request that dirties 16 pages, and the reset; natively: fork, exec, wait"},
	{"fn-reset", "functions", UNIT_NS, ROW_FUNCTION, NULL, "fn-reset-run",
	 "of the same: the reset alone"},
	{"fn-clone", "functions", UNIT_NS, ROW_FUNCTION, measure_clone, NULL,
	 "a copy from a snapshot, start to ready; natively: fork, exec, wait"},
	{"fn-clone-blank", "functions", UNIT_NS, ROW_FUNCTION, measure_clone, "blank",
	 "the same by a process that was started before"},
	{"fn-memory", "functions", UNIT_KIB, ROW_FUNCTION | ROW_APPS | ROW_ONCE, measure_copies,
	 NULL, "--copies warm Python functions, all together; natively: forked workers"},
	{"fn-memory-host", "functions", UNIT_KIB, ROW_FUNCTION | ROW_APPS | ROW_ONCE, NULL,
	 "fn-memory", "of the same: what the host has less"},
	{"fn-memory-used", "functions", UNIT_KIB, ROW_FUNCTION | ROW_APPS | ROW_ONCE, NULL,
	 "fn-memory", "of the same: what a request adds to a copy, of 50 of them"},
	{"fn-memory-start", "functions", UNIT_NS, ROW_FUNCTION | ROW_APPS | ROW_ONCE, NULL,
	 "fn-memory", "of the same: time from one copy to the next"},
	{"exits-getppid", "exits", UNIT_COUNT, ROW_KVMSBOX | ROW_HEAVY, measure_exits,
	 "getppid 1000", "how often one getppid leaves user code"},
	{"exits-clock", "exits", UNIT_COUNT, ROW_KVMSBOX | ROW_HEAVY, measure_exits,
	 "clock_gettime 1000", "one clock_gettime"},
	{"exits-read", "exits", UNIT_COUNT, ROW_KVMSBOX | ROW_HEAVY, measure_exits, "read-4k 500",
	 "one pread of 4 KiB"},
	{"exits-pipe", "exits", UNIT_COUNT, ROW_KVMSBOX | ROW_HEAVY, measure_exits, "pipe-1 500",
	 "one write and one read of a pipe"},
	{"exits-stat", "exits", UNIT_COUNT, ROW_KVMSBOX | ROW_HEAVY, measure_exits, "stat 500",
	 "one stat"},
	{"exits-touch", "exits", UNIT_COUNT, ROW_KVMSBOX | ROW_HEAVY, measure_exits, "touch 2048",
	 "one first touch of a page"},
	{"exits-mmap", "exits", UNIT_COUNT, ROW_KVMSBOX | ROW_HEAVY, measure_exits,
	 "mmap-munmap 250", "one mmap and munmap"},
	{"exits-fork", "exits", UNIT_COUNT, ROW_KVMSBOX | ROW_HEAVY, measure_exits, "fork 25",
	 "one fork, exit, wait"},
	{"exits-fork-exec", "exits", UNIT_COUNT, ROW_KVMSBOX | ROW_HEAVY, measure_exits,
	 "fork-exec 10", "one fork, exec, exit, wait"},
};

const int nr_rows = sizeof(rows) / sizeof(rows[0]);
_Static_assert(sizeof(rows) / sizeof(rows[0]) <= MAX_ROWS, "MAX_ROWS");

int row_find(const char *name)
{
	int i;

	for (i = 0; i < nr_rows; i++) {
		if (!strcmp(rows[i].name, name))
			return i;
	}
	return -1;
}

int rows_select(struct bench *b, const char *patterns)
{
	char *copy = strdup(patterns), *w, *save = NULL;
	int i, n, total = 0;

	for (w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		for (i = n = 0; i < nr_rows; i++) {
			if (fnmatch(w, rows[i].name, 0) && fnmatch(w, rows[i].group, 0))
				continue;
			b->row_shown[i] = b->row_wanted[i] = true;
			if (!rows[i].measure)
				b->row_wanted[row_find(rows[i].arg)] = true;
			n++;
		}
		if (!n)
			die("no row matches %s (--list shows them)", w);
		total += n;
	}
	free(copy);
	return total;
}

const char *unit_name(enum unit u)
{
	static const char *const names[] = {"ns", "KiB", "/s", "count"};

	return names[u];
}

bool unit_rises(enum unit u)
{
	return u == UNIT_PER_S;
}
