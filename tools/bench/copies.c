/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of single sandboxes that serve a function, without a server: what a reset, a request with
 * its reset and a copy cost against starting the same program natively, and what many copies weigh.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sentry/fnchan.h"

#define LEARNING       4 /* requests at most, before a snapshot */
#define MAX_SAMPLES    4096
#define WARM_UP	       10
#define LEAST_COPIES   5
#define MOST_COPIES    60
#define COPY_ROOM_KIB  16384 /* a copy has to fit, with what the kernel needs for it */
#define COPIES_LIMIT_S 60
#define COPIES_ASKED   50 /* of them, for what a request adds */

static const char *const pages[] = {"/bench/pages", NULL};
static const char *const python[] = {"/usr/bin/python3", "-c", python_stdio, NULL};
static const char python_answer[] = "{\"bytes\": 1, \"rows\": [[1]]}\n";

struct samples {
	double v[MAX_SAMPLES];
	int n;
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(struct samples *s)
{
	qsort(s->v, (size_t)s->n, sizeof(s->v[0]), compare);
	return s->n % 2 ? s->v[s->n / 2] : (s->v[s->n / 2 - 1] + s->v[s->n / 2]) / 2;
}

/* Natively: fork, exec, exit, wait of the same static program, by the guest's own clock. */
static int native_pages(struct bench *b, const struct column *col, double *v)
{
	struct launch l = {.col = col, .argv = {"/bench/micro", "-m", NULL, "fork-exec-pages"}};
	struct outcome o;
	char ms[16];

	snprintf(ms, sizeof(ms), "%u", 2 * b->ms);
	l.argv[2] = ms;
	if (launch_check(b, &l, &o))
		return -1;
	if (sscanf(o.out, "fork-exec-pages %lf", v) != 1)
		return bench_fail(b, "fork-exec-pages: no value in '%.100s'", o.out);
	return 0;
}

static int ask_pages(struct bench *b, struct sandbox *s, struct fn_msg *ready)
{
	return sandbox_invoke(b, s, "x") ?: sandbox_answer(b, s, "ok\n", ready);
}

/* The value is the whole cycle from FN_INVOKE to FN_READY; fn-reset is what of it is the reset. */
int measure_reset(struct bench *b, const struct row *row, const struct column *col, double *v)
{
	static struct samples cycle, reset;
	struct fn_msg ready;
	struct sandbox s;
	uint64_t start, end;
	int err, k;

	if (col->kind == COL_NATIVE) {
		err = native_pages(b, col, v);
		if (!err)
			bench_also(b, "fn-reset", col, *v);
		return err;
	}
	if (sandbox_start(b, col, IMAGE_SMALL, pages, &s))
		return -1;
	cycle.n = reset.n = 0;
	err = sandbox_ready(b, &s, &ready);
	for (k = 0; k < WARM_UP && !err; k++)
		err = ask_pages(b, &s, &ready);
	end = clock_ns() + 4 * b->ms * 1000000ull;
	while (!err && cycle.n < MAX_SAMPLES && (cycle.n < 20 || clock_ns() < end)) {
		start = clock_ns();
		err = ask_pages(b, &s, &ready);
		cycle.v[cycle.n++] = (double)(clock_ns() - start);
		reset.v[reset.n++] = (double)ready.ready.took_ns;
	}
	/* A reset that sets nothing back would be cheap. */
	if (!err && ready.ready.dirtied < 16)
		err = bench_fail(b, "the reset set %llu pages back, not the 16 of the program",
				 (unsigned long long)ready.ready.dirtied);
	sandbox_end(&s);
	if (err)
		return err;
	*v = median(&cycle);
	bench_also(b, "fn-reset", col, median(&reset));
	return 0;
}

/*
 * A function at its snapshot point, and its snapshot: as a server takes it, from an instance that
 * has learned from its first requests, which are answered by @answer.
 */
static int template(struct bench *b, const struct column *col, enum image image,
		    const char *const *argv, const char *answer, int fds[FN_IMAGE_FDS])
{
	struct fn_msg ready;
	struct sandbox s;
	int err, k;

	if (sandbox_start(b, col, image, argv, &s))
		return -1;
	err = sandbox_ready(b, &s, &ready);
	for (k = 0; k < LEARNING && !err && !(ready.flags & FN_LEARNED); k++)
		err = sandbox_invoke(b, &s, "x") ?: sandbox_answer(b, &s, answer, &ready);
	err = err ?: sandbox_image(b, &s, fds);
	sandbox_end(&s);
	return err;
}

static void template_close(const int fds[FN_IMAGE_FDS])
{
	for (int i = 0; i < FN_IMAGE_FDS; i++)
		close(fds[i]);
}

/*
 * Does the process wait for a message? That's what its system call says, for those who may look;
 * for others, that it sleeps has to do.
 */
static bool is_waiting(pid_t pid)
{
	static const int calls[] = {SYS_recvmsg, SYS_recvfrom, SYS_read, SYS_poll, SYS_ppoll};
	char path[64], line[512] = "", *p;
	size_t i;
	FILE *f;
	int nr;

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	f = fopen(path, "re");
	if (f && fgets(line, sizeof(line), f)) {
		fclose(f);
		for (i = 0; sscanf(line, "%d", &nr) == 1 && i < sizeof(calls) / sizeof(int); i++) {
			if (nr == calls[i])
				return true;
		}
		return false;
	}
	if (f)
		fclose(f);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (f && !fgets(line, sizeof(line), f))
		line[0] = 0;
	if (f)
		fclose(f);
	p = strrchr(line, ')');
	return p && p[1] && p[2] == 'S';
}

/* Until a blank has prepared what it can: it waits in three looks in a row. */
static int wait_blank(struct bench *b, const struct sandbox *s)
{
	uint64_t end = clock_ns() + 5000000000ull;
	int seen = 0;

	while (seen < 3) {
		if (interrupted || clock_ns() > end)
			return bench_fail(b, "a blank is still busy after 5 s: %s",
					  function_last_words(b));
		usleep(3000);
		seen = is_waiting(s->pid) ? seen + 1 : 0;
	}
	return 0;
}

/* One copy, to FN_READY. The first ones are also asked whether they work. */
static int one_copy(struct bench *b, const struct column *col, const int image[FN_IMAGE_FDS],
		    bool blank, bool ask, double *took)
{
	struct fn_msg ready;
	struct sandbox s;
	int err;

	err = sandbox_restore(b, col, blank ? -1 : image[0], &s);
	if (!err && blank) {
		err = wait_blank(b, &s);
		s.start_ns = clock_ns();
		if (!err)
			err = sandbox_become(b, &s, image);
	}
	if (!err)
		err = sandbox_ready(b, &s, &ready);
	*took = (double)(clock_ns() - s.start_ns);
	if (!err && ask)
		err = ask_pages(b, &s, &ready);
	sandbox_end(&s);
	return err;
}

/* From starting a copy, or from telling a blank what to become, to FN_READY. */
int measure_clone(struct bench *b, const struct row *row, const struct column *col, double *v)
{
	static struct samples t;
	bool blank = row->arg;
	uint64_t spent = 0;
	double took;
	int image[FN_IMAGE_FDS], err;

	if (col->kind == COL_NATIVE)
		return native_pages(b, col, v);
	err = function_column(b, col);
	if (err)
		return err;
	if (template(b, col, IMAGE_SMALL, pages, "ok\n", image))
		return -1;
	/* The first ones find everything cold. */
	err = one_copy(b, col, image, blank, true, &took) ||
			      one_copy(b, col, image, blank, true, &took)
		      ? -1
		      : 0;
	for (t.n = 0; !err && t.n < MOST_COPIES;) {
		if (t.n >= LEAST_COPIES && spent > 3 * b->ms * 1000000ull)
			break;
		err = one_copy(b, col, image, blank, false, &t.v[t.n]);
		spent += (uint64_t)t.v[t.n++];
	}
	template_close(image);
	if (!err)
		*v = median(&t);
	return err;
}

/* Natively: a server that imports first and then forks a worker per copy, each with one request. */
static int native_copies(struct bench *b, const struct column *col, double *v)
{
	static const char script[] =
		"import json, urllib.request, sqlite3, os, sys\n"
		"def work(): return json.dumps({'bytes': len(b'x'), 'rows': sqlite3.connect("
		"':memory:').execute('select 1').fetchall()})\n"
		"r, w = os.pipe()\n"
		"for i in range(int(sys.argv[1])):\n"
		"    if not os.fork():\n"
		"        work()\n"
		"        os.write(w, b'x')\n"
		"        sys.stdin.buffer.read()\n"
		"        os._exit(0)\n"
		"for i in range(int(sys.argv[1])): os.read(r, 1)\n"
		"print('ready', flush=True)\n"
		"sys.stdin.buffer.read()\n";
	struct launch l = {.col = col, .image = IMAGE_APPS};
	int processes = 0;
	struct idler i;
	char n[16];
	long kib;

	snprintf(n, sizeof(n), "%u", b->copies);
	memcpy(l.argv, (const char *[]){"/usr/bin/python3", "-c", script, n}, 4 * sizeof(char *));
	if (idler_start(b, &l, &i))
		return -1;
	kib = descendants_pss(&processes);
	idler_stop(&i);
	if (kib < 0 || processes < (int)b->copies)
		return bench_fail(b, "weighed %d processes of %u", processes, b->copies);
	*v = (double)kib;
	return 0;
}

/*
 * Starts @count copies, two per processor at a time, as kvmsbox serve has it, or (@ask) sends each
 * a request. *@n: how many were begun. Returns SKIP at @end.
 */
static int each_copy(struct bench *b, const struct column *col, const int *image,
		     struct sandbox *all, unsigned int count, unsigned int *n, bool ask,
		     uint64_t end)
{
	unsigned int at_once = 2 * (unsigned int)sysconf(_SC_NPROCESSORS_ONLN), done = 0;
	struct fn_msg m;
	int err = 0;

	for (*n = 0; done < count && !err;) {
		if (clock_ns() > end) {
			bench_fail(b, "%u copies take over %d s here (--copies)", b->copies,
				   COPIES_LIMIT_S);
			err = SKIP;
		} else if (*n < count && *n < done + at_once) {
			err = ask ? sandbox_invoke(b, &all[*n], "x")
				  : sandbox_restore(b, col, image[0], &all[*n]);
			*n += !err;
		} else if (ask) {
			err = sandbox_answer(b, &all[done++], python_answer, &m);
		} else {
			err = sandbox_ready(b, &all[done++], &m);
		}
	}
	return err;
}

static int weigh(struct bench *b, unsigned int n, double *kib)
{
	int processes = 0;

	usleep(200000);
	*kib = (double)descendants_pss(&processes);
	if (*kib < 0 || processes < (int)n)
		return bench_fail(b, "weighed %d processes of %u", processes, n);
	return 0;
}

/*
 * The proportional set size of all processes of --copies copies of a Python function together,
 * ready; then what a request adds to each of some.
 */
int measure_copies(struct bench *b, const struct row *row, const struct column *col, double *v)
{
	long before = meminfo_kib("MemAvailable:");
	struct sandbox *all;
	struct rlimit r;
	unsigned int n = 0, asked, some, i;
	uint64_t start, end, took;
	double used = NAN;
	int image[FN_IMAGE_FDS], err;
	bool templated;
	long after;

	if (before < (long)b->copies * COPY_ROOM_KIB) {
		bench_fail(b, "needs %u MiB of free memory", b->copies * (COPY_ROOM_KIB >> 10));
		return SKIP;
	}
	if (col->kind == COL_NATIVE)
		return native_copies(b, col, v);
	err = function_column(b, col);
	if (err)
		return err;
	if (!getrlimit(RLIMIT_NOFILE, &r)) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	all = calloc(b->copies, sizeof(*all));
	if (!all)
		die("out of memory");
	err = template(b, col, IMAGE_APPS, python, python_answer, image);
	templated = !err;
	start = clock_ns();
	end = start + COPIES_LIMIT_S * 1000000000ull;
	if (!err)
		err = each_copy(b, col, image, all, b->copies, &n, false, end);
	took = clock_ns() - start;
	if (!err)
		err = weigh(b, n, v);
	after = meminfo_kib("MemAvailable:");
	some = n < COPIES_ASKED ? n : COPIES_ASKED;
	if (!err)
		err = each_copy(b, col, image, all, some, &asked, true, end);
	if (!err)
		err = weigh(b, n, &used);
	if (!err) {
		bench_also(b, "fn-memory-start", col, (double)took / n);
		bench_also(b, "fn-memory-used", col, (used - *v) / some);
		/* Someone else may have given memory back meanwhile: then it says nothing. */
		if (after < before)
			bench_also(b, "fn-memory-host", col, (double)(before - after));
	}
	for (i = 0; i < n; i++)
		sandbox_close(&all[i]);
	for (i = 0; i < n; i++)
		sandbox_end(&all[i]);
	if (templated)
		template_close(image);
	free(all);
	return err;
}
