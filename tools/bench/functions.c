/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of functions behind `kvmsbox serve`, and what they are compared with: an HTTP server that
 * starts a program per request (guest/cgi.c). The same load generator, kvmsbox load, asks both.
 *
 * A server lives for one value. It has twice as many warm instances as there are processors, so
 * that these have something to do while one waits; the load comes over as many connections, each
 * with the next request when the last is answered, or on a schedule over 16.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOKEN	 "kvmsbox-bench-token"
#define PART	 0.7 /* of the most that it can: where latencies are looked at */
#define LIMIT_NS 30000000000ull

/* Not just an import: it answers with what was sent, through json and sqlite3. */
const char python_stdio[] =
	"import json, urllib.request, sqlite3, sys\n"
	"db = sqlite3.connect(':memory:')\n"
	"body = sys.stdin.buffer.read()\n"
	"print(json.dumps({'bytes': len(body), 'rows': db.execute('select 1').fetchall()}))\n";
static const char python_http[] =
	"import json, urllib.request, sqlite3\n"
	"from http.server import BaseHTTPRequestHandler, HTTPServer\n"
	"db = sqlite3.connect(':memory:')\n"
	"class Handler(BaseHTTPRequestHandler):\n"
	"    protocol_version = 'HTTP/1.1'\n"
	"    def log_message(self, *args): pass\n"
	"    def do_GET(self):\n"
	"        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))\n"
	"        rows = db.execute('select 1').fetchall()\n"
	"        out = json.dumps({'bytes': len(body), 'rows': rows}).encode()\n"
	"        self.send_response(200)\n"
	"        self.send_header('Content-Length', str(len(out)))\n"
	"        self.end_headers()\n"
	"        self.wfile.write(out)\n"
	"    do_POST = do_GET\n"
	"HTTPServer(('127.0.0.1', 8080), Handler).serve_forever()\n";

/*
 * A server that is asked on @port of 127.0.0.1; @in: it ends when that is closed; -1: by SIGTERM.
 */
struct server {
	pid_t pid;
	int in;
	unsigned int port;
	const char *path;
};

struct load {
	const char *expect; /* has to be in each answer */
	unsigned int connections;
	double rate;	       /* 0: as fast as answers come */
	unsigned int ms;       /* after a third of that to warm up */
	unsigned int requests; /* or just so many */
};

struct load_result {
	double per_second, p50, p99;
};

int function_column(struct bench *b, const struct column *col)
{
	if (!col->words[0] || strcmp(col->words[0], "--platform") || !col->words[1] ||
	    col->words[2]) {
		bench_fail(b, "functions have a platform and no other options");
		return SKIP;
	}
	return 0;
}

static int instances(void)
{
	return 2 * (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static void server_stop(struct server *s)
{
	if (s->in >= 0)
		close(s->in);
	else
		kill(s->pid, SIGTERM);
	host_end(s->pid);
}

/* The first line of @fd, from which the end of another one is far. */
static int read_line(struct bench *b, int fd, char *buf, size_t size)
{
	uint64_t end = clock_ns() + LIMIT_NS;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t used = 0;
	ssize_t n;

	while (used < size - 1 && !memchr(buf, '\n', used)) {
		if (interrupted || clock_ns() > end)
			return bench_fail(b, "no word from it within 30 s");
		if (poll(&p, 1, 500) <= 0)
			continue;
		n = read(fd, buf + used, size - 1 - used);
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	buf[used] = 0;
	return 0;
}

/* The server that starts what @col takes to run /bench/hello for each request. */
static int cgi_start(struct bench *b, const struct column *col, struct server *s)
{
	struct launch l = {.col = col, .argv = {"/bench/hello"}};
	const char *argv[MAX_ARGS * 2 + 20], *words[MAX_ARGS * 2 + 16];
	char *path = format("%s/cgi", b->guest), *self = realpath(path, NULL), *hello = NULL;
	int in[2] = {-1, -1}, out[2] = {-1, -1}, fds[3], n = 0, i, log, err = -1;
	char *const *envp;
	char line[32];

	s->pid = -1;
	s->path = "/";
	free(path);
	if (!self) {
		bench_fail(b, "there is no %s/cgi (make bench-programs builds it)", b->guest);
		return -1;
	}
	if (column_argv(b, &l, words, &envp))
		goto out_free;
	/* It is itself not in the chroot that native programs are in. */
	if (col->kind == COL_NATIVE) {
		hello = format("%s/bench/hello", b->tree[IMAGE_SMALL]);
		words[0] = hello;
	}
	argv[n++] = self;
	for (i = 0; words[i]; i++)
		;
	if (col->kind == COL_CRUN || col->kind == COL_RUNSC) {
		argv[n++] = "-i";
		argv[n++] = words[i - 1];
	}
	argv[n++] = "--";
	memcpy(argv + n, words, ((size_t)i + 1) * sizeof(*words));
	log = function_log(b);
	if (log < 0 || pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) {
		bench_fail(b, "pipe: %s", strerror(errno));
	} else {
		memcpy(fds, (int[]){in[0], out[1], log}, sizeof(fds));
		s->pid = host_start(b, argv, envp, fds, 3);
	}
	close(log);
	close(in[0]);
	close(out[1]);
	s->in = in[1];
	if (s->pid > 0) {
		err = read_line(b, out[0], line, sizeof(line));
		if (!err && sscanf(line, "%u\n", &s->port) != 1)
			err = bench_fail(b, "cgi: %s", function_last_words(b));
		if (err)
			server_stop(s);
	} else {
		close(s->in);
	}
	close(out[0]);
out_free:
	free(hello);
	free(self);
	return err;
}

/* "listening" with its port, in the server's log so far; 0: not yet, or there is none. */
static unsigned int logged_port(const char *path)
{
	unsigned int port = 0;
	char line[4096];
	const char *s;
	json_t *o;
	FILE *f = fopen(path, "re");

	while (f && !port && fgets(line, sizeof(line), f)) {
		o = json_loads(line, 0, NULL);
		s = json_string_value(json_object_get(o, "event"));
		if (s && !strcmp(s, "listening")) {
			json_t *p = json_object_get(o, "port");

			port = json_is_string(p) ? (unsigned int)atoi(json_string_value(p))
						 : (unsigned int)json_integer_value(p);
		}
		json_decref(o);
	}
	if (f)
		fclose(f);
	return port;
}

/* Writes the configuration of a server with the one function @argv. */
static int write_config(struct bench *b, const struct column *col, enum image image,
			const char *kind, const char *const *argv, const char *path,
			const char *log)
{
	json_t *command = json_array(), *config;
	int i, err;

	for (i = 0; argv[i]; i++)
		json_array_append_new(command, json_string(argv[i]));
	config = json_pack("{ss ss ss s{ss} s{s{ss}} s{si} s{s{ss ss so ss ss s{sisi}}}}", "listen",
			   "127.0.0.1:0", "kvmsbox", col->path, "cache", b->cache[image], "log",
			   "file", log, "tenants", "bench", "token", TOKEN, "limits",
			   "memory_reserve", 0, "functions", "fn", "tenant", "bench", "image",
			   b->image[image], "command", command, "kind", kind, "platform",
			   col->words[1], "instances", "min", instances(), "max", instances());
	err = !config || json_dump_file(config, path, 0);
	json_decref(config);
	return err ? bench_fail(b, "can't write %s", path) : 0;
}

static int serve_start(struct bench *b, const struct column *col, enum image image,
		       const char *kind, const char *const *argv, struct server *s)
{
	char *config = format("%s/serve.json", b->scratch), *log = format("%s/serve.log", b->shm);
	const char *words[] = {col->path, "serve", "--config", config, NULL};
	uint64_t end = clock_ns() + LIMIT_NS;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), own = function_log(b), err, fds[3];

	s->pid = -1;
	s->in = -1;
	s->path = "/f/fn";
	unlink(log);
	err = write_config(b, col, image, kind, argv, config, log);
	memcpy(fds, (int[]){null, own, own}, sizeof(fds));
	if (!err)
		s->pid = host_start(b, words, column_env(col), fds, 3);
	while (s->pid > 0 && !(s->port = logged_port(log)) && !err) {
		usleep(2000);
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
			bench_fail(b, "serve: %s", function_last_words(b));
			s->pid = -1;
		} else if (interrupted || clock_ns() > end) {
			err = bench_fail(b, "serve: doesn't listen after 30 s");
			server_stop(s);
		}
	}
	close(null);
	close(own);
	free(config);
	free(log);
	return s->pid > 0 ? err : -1;
}

/* What `kvmsbox load --json` wrote: every request has to have been answered as expected. */
static int load_read(struct bench *b, const char *path, struct load_result *r)
{
	json_error_t je;
	json_t *j = json_load_file(path, 0, &je), *latency = json_object_get(j, "latency_ns"), *e;
	json_int_t requests = json_integer_value(json_object_get(j, "requests"));
	json_int_t errors = json_integer_value(json_object_get(j, "errors"));
	const char *why = "no reason given", *kind;
	int err = 0;

	r->per_second = json_number_value(json_object_get(j, "per_second"));
	r->p50 = json_number_value(json_object_get(latency, "p50"));
	r->p99 = json_number_value(json_object_get(latency, "p99"));
	json_object_foreach (json_object_get(j, "errors_by_kind"), kind, e)
		why = json_string_value(json_object_get(e, "first")) ?: kind;
	if (!j)
		err = bench_fail(b, "what kvmsbox load wrote is no JSON: %.200s", je.text);
	else if (errors)
		err = bench_fail(b, "%lld of %lld requests failed: %.200s", (long long)errors,
				 (long long)requests, why);
	else if (!(r->per_second > 0) || !(r->p50 > 0) || !(r->p99 >= r->p50))
		err = bench_fail(b, "what kvmsbox load wrote has no rate or latencies");
	json_decref(j);
	return err;
}

static int run_load(struct bench *b, const struct server *s, const struct load *l,
		    struct load_result *r)
{
	char *json = format("%s/load.json", b->scratch), *kvmsbox = realpath(b->kvmsbox, NULL);
	char *url = format("http://127.0.0.1:%u%s", s->port, s->path);
	char connections[16], much[24], warm_up[24], rate[32], out[1024];
	const char *argv[32] = {kvmsbox ? kvmsbox : b->kvmsbox,
				"load",
				"--quiet",
				"--json",
				json,
				"-H",
				"Authorization: Bearer " TOKEN,
				"--timeout",
				"30s",
				"--max-errors",
				"1000000000",
				"--body",
				"x",
				"--expect",
				l->expect,
				"-c",
				connections};
	int n = 17, status, err;

	snprintf(connections, sizeof(connections), "%u", l->connections);
	snprintf(much, sizeof(much), l->requests ? "%u" : "%ums", l->requests ?: l->ms);
	snprintf(warm_up, sizeof(warm_up), "%ums", l->ms / 3 + 1);
	argv[n++] = l->requests ? "-n" : "-d";
	argv[n++] = much;
	if (!l->requests) {
		argv[n++] = "--warm-up";
		argv[n++] = warm_up;
	}
	if (l->rate > 0) {
		snprintf(rate, sizeof(rate), "%.3f", l->rate);
		argv[n++] = "--rate";
		argv[n++] = rate;
	}
	argv[n] = url;
	unlink(json);
	status = host_run(argv, out, sizeof(out));
	err = status ? bench_fail(b, "kvmsbox load ended with status %d: %.*s", status,
				  (int)strcspn(out, "\n"), out)
		     : load_read(b, json, r);
	free(kvmsbox);
	free(json);
	free(url);
	return err;
}

/* Until it answers, which for a function is when its first instance has started. */
static int first_answers(struct bench *b, const struct server *s, const char *expect,
			 struct load_result *r)
{
	struct load l = {.expect = expect, .connections = instances(), .requests = 4 * instances()};

	return run_load(b, s, &l, r);
}

/* Requests per second with a new process or sandbox each. */
int measure_cgi(struct bench *b, const struct row *row, const struct column *col, double *v)
{
	struct load l = {.expect = "hello 1", .connections = instances(), .ms = 8 * b->ms};
	struct load_result r;
	struct server s;
	int err;

	if (cgi_start(b, col, &s))
		return -1;
	/* What takes so long has been measured by then. */
	err = first_answers(b, &s, l.expect, &r);
	if (!err && r.per_second * l.ms > 8000)
		err = run_load(b, &s, &l, &r);
	server_stop(&s);
	if (!err)
		*v = r.per_second;
	return err;
}

/* The most requests per second, and latencies at most of that. */
int measure_hello(struct bench *b, const struct row *row, const struct column *col, double *v)
{
	static const char *const hello[] = {"/bench/hello", NULL};
	struct load l = {.expect = "hello 1", .connections = instances(), .ms = 8 * b->ms};
	struct load_result most, part;
	struct server s;
	int err;

	if (col->kind == COL_NATIVE)
		err = cgi_start(b, col, &s);
	else
		err = function_column(b, col)
			      ?: serve_start(b, col, IMAGE_SMALL, "stdio", hello, &s);
	if (err)
		return err;
	err = first_answers(b, &s, l.expect, &most) ?: run_load(b, &s, &l, &most);
	if (!err) {
		l.connections = 16;
		l.rate = PART * most.per_second;
		l.ms = 12 * b->ms;
		err = run_load(b, &s, &l, &part);
	}
	server_stop(&s);
	if (err)
		return err;
	*v = most.per_second;
	bench_also(b, "fn-hello-p50", col, most.p50);
	bench_also(b, "fn-hello-p99", col, most.p99);
	bench_also(b, "fn-p99", col, part.p99 / part.p50);
	return 0;
}

/* Natively: the stdio function as a command, start to exit. */
static int native_python(struct bench *b, const struct column *col, double *v)
{
	struct launch l = {.col = col, .image = IMAGE_APPS};
	double times[5];
	struct outcome o;
	int n;

	memcpy(l.argv, (const char *[]){"/usr/bin/python3", "-c", python_stdio},
	       3 * sizeof(char *));
	for (n = 0; n < 5; n++) {
		if (launch_check(b, &l, &o))
			return -1;
		times[n] = (double)o.wall_ns;
	}
	*v = spread_of(times, n).median;
	return 0;
}

/* The median latency of one request after the other, @arg being the function's kind. */
int measure_python(struct bench *b, const struct row *row, const struct column *col, double *v)
{
	const char *script = strcmp(row->arg, "http") ? python_stdio : python_http;
	const char *const argv[] = {"/usr/bin/python3", "-c", script, NULL};
	struct load l = {.expect = "\"bytes\": 1", .connections = 1, .requests = 10 + b->ms / 2};
	struct load_result r;
	struct server s;
	int err;

	if (col->kind == COL_NATIVE)
		return native_python(b, col, v);
	err = function_column(b, col) ?: serve_start(b, col, IMAGE_APPS, row->arg, argv, &s);
	if (err)
		return err;
	err = first_answers(b, &s, l.expect, &r) ?: run_load(b, &s, &l, &r);
	server_stop(&s);
	if (!err)
		*v = r.p50;
	return err;
}
