/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-load/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* curl's numbers. */
enum { EXIT_CONNECT = 7, EXIT_TLS = 35, EXIT_CERTIFICATE = 60 };

#define NEVER	    UINT64_MAX
#define PROGRESS_NS 500000000ull
#define MAX_EVENTS  256

const char *const load_error_names[NR_LOAD_ERRORS] = {
	[LOAD_OK] = "ok",	  [LOAD_CONNECT] = "connect",	[LOAD_TLS] = "tls",
	[LOAD_CLOSED] = "closed", [LOAD_PROTOCOL] = "protocol", [LOAD_TIMEOUT] = "timeout",
	[LOAD_UNSENT] = "unsent", [LOAD_STATUS] = "status",	[LOAD_EXPECT] = "expect",
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = 1;
}

/* When request @number is due by the schedule. */
static uint64_t scheduled(const struct engine *e, uint64_t number)
{
	long double ns = (long double)number * NSEC_PER_SEC / (long double)e->o->rate;

	return ns > 9e18L ? NEVER : e->start + (uint64_t)ns;
}

/* When the next request is due; NEVER if there is no other. */
static uint64_t next_due(const struct engine *e, uint64_t now)
{
	uint64_t due = e->o->rate > 0 ? scheduled(e, e->number) : now;

	if (interrupted || due >= e->stop || (e->o->requests && e->r->begun == e->o->requests))
		return NEVER;
	return due;
}

void count_begun(struct engine *e, uint64_t due)
{
	e->number++;
	if (measured(e, due))
		e->r->begun++;
}

void count_end(struct engine *e, uint64_t due, enum load_error error, const char *why)
{
	struct load_results *r = e->r;
	uint64_t now = monotonic_ns();

	if (!measured(e, due)) {
		r->warm_up++;
		return;
	}
	e->last_done = now;
	if (error == LOAD_OK)
		r->good++;
	else if (!r->errors[error]++)
		snprintf(r->why[error], NET_WHY_MAX, "%s", why);
	if (error == LOAD_OK || error == LOAD_TIMEOUT || error == LOAD_UNSENT)
		histogram_add(&r->latency, now - due);
}

/* Gives idle connections what is due. */
static void dispatch(struct engine *e)
{
	uint64_t now, due;

	while (!list_empty(&e->idle)) {
		now = monotonic_ns();
		due = next_due(e, now);
		if (due > now)
			break;
		if (e->o->rate > 0 && measured(e, due))
			histogram_add(&e->r->lag, now - MIN(now, MAX(due, e->idle_since)));
		request_begin(e, list_first_entry(&e->idle, struct conn, place), due, now);
	}
}

/* Ends what has waited too long, sent or not. */
static void expire(struct engine *e)
{
	uint64_t now = monotonic_ns(), timeout = e->o->http.timeout_ns, due;
	struct conn *c;

	while (!list_empty(&e->busy)) {
		c = list_first_entry(&e->busy, struct conn, busy);
		if (now < c->deadline)
			break;
		conn_close(c);
		request_end(e, c, LOAD_TIMEOUT,
			    c->sent ? "sent, but not answered in time" : "no connection in time");
	}
	while (e->o->rate > 0 && list_empty(&e->idle)) {
		due = next_due(e, now);
		if (due == NEVER || now < due + timeout)
			break;
		count_begun(e, due);
		count_end(e, due, LOAD_UNSENT, "all connections were busy until its time was over");
	}
	while (!list_empty(&e->resting)) {
		c = list_first_entry(&e->resting, struct conn, place);
		if (now < c->rested)
			break;
		list_del(&c->place);
		if (list_empty(&c->busy))
			conn_idle(e, c);
		else
			request_start(e, c);
	}
}

static void show_progress(struct engine *e, uint64_t now)
{
	uint64_t done = e->r->good + load_errors(e->r) + e->r->warm_up;
	uint64_t since = now - (e->next_progress - PROGRESS_NS);

	if (now < e->next_progress)
		return;
	load_progress(e->r, (done - e->progress_done) * NSEC_PER_SEC / since, e->in_flight,
		      now - e->start);
	e->progress_done = done;
	e->next_progress = now + PROGRESS_NS;
}

/* When there is something to do, if nothing comes. */
static uint64_t next_wake(const struct engine *e, uint64_t now)
{
	uint64_t due = next_due(e, now), wake = e->next_progress;

	if (!list_empty(&e->idle))
		wake = MIN(wake, due);
	else if (due != NEVER && e->o->rate > 0)
		wake = MIN(wake, due + e->o->http.timeout_ns);
	if (!list_empty(&e->busy))
		wake = MIN(wake, list_first_entry(&e->busy, struct conn, busy)->deadline);
	if (!list_empty(&e->resting))
		wake = MIN(wake, list_first_entry(&e->resting, struct conn, place)->rested);
	return wake;
}

/* Waits for up to @max events until @wake. Signals come in only here. */
static int wait_events(struct engine *e, struct epoll_event *events, int max, uint64_t wake)
{
	uint64_t now = monotonic_ns(), left = wake > now ? wake - now : 0;
	struct timespec ts = {(time_t)(left / NSEC_PER_SEC), (long)(left % NSEC_PER_SEC)};
	int n = epoll_pwait2(e->epoll, events, max, &ts, &e->signals);

	/* Linux before 5.11. */
	if (n < 0 && errno == ENOSYS)
		n = epoll_pwait(e->epoll, events, max, (int)MIN(left / 1000000 + 1, 1000000ul),
				&e->signals);
	return n;
}

/*
 * One connection before everything else: what is wrong with all of them is one complaint and not a
 * statistic. Returns 0 or -errno.
 */
static int try_connection(struct engine *e, struct conn *c, uint64_t end)
{
	struct epoll_event event;
	int err = conn_open(e, c);

	while (!interrupted && (err == -EAGAIN || err == -EBUSY)) {
		if (monotonic_ns() >= end)
			return -ETIMEDOUT;
		if (err == -EBUSY) {
			wait_events(e, &event, 1, monotonic_ns() + REST_NS);
			err = conn_open(e, c);
		} else if (wait_events(e, &event, 1, end) == 1) {
			err = conn_advance(e, c);
		}
	}
	return interrupted ? 0 : err;
}

/* Tries the server's addresses in turn. Returns 0, or the exit status after a complaint. */
static int first_connection(struct engine *e)
{
	uint64_t end = monotonic_ns() + e->o->http.timeout_ns;
	struct conn *c = &e->conns[0];
	char why[NET_WHY_MAX];
	bool tls;
	int err;

	for (;;) {
		err = try_connection(e, c, end);
		if (!err)
			return 0;
		tls = c->state == CONN_HANDSHAKE;
		net_why(&c->net, err, why);
		conn_close(c);
		if (tls || e->server.using + 1 == e->server.naddrs)
			break;
		e->server.using ++;
	}
	if (!tls) {
		complain("load: %s: can't connect: %s: is kvmsbox serve running there?",
			 e->server.name, why);
		return EXIT_CONNECT;
	}
	if (strstr(why, "trusted")) {
		complain("load: %s: %s: name its authority by --cacert, or trust it by -k",
			 e->server.name, why);
		return EXIT_CERTIFICATE;
	}
	complain("load: %s: %s: does the server speak TLS there? Try http://", e->server.name, why);
	return EXIT_TLS;
}

static void loop(struct engine *e)
{
	struct epoll_event events[MAX_EVENTS];
	const struct load_options *o = e->o;
	uint64_t end, now;
	int n;

	e->start = monotonic_ns();
	e->measured_from = e->start + o->warm_up_ns;
	e->last_done = e->measured_from;
	e->stop = o->duration_ns ? e->measured_from + o->duration_ns : NEVER;
	e->next_progress = o->quiet || !isatty(STDERR_FILENO) ? NEVER : e->start + PROGRESS_NS;
	for (;;) {
		dispatch(e);
		expire(e);
		now = monotonic_ns();
		show_progress(e, now);
		if (interrupted || (!e->in_flight && next_due(e, now) == NEVER))
			break;
		n = wait_events(e, events, MAX_EVENTS, next_wake(e, now));
		for (int i = 0; i < n; i++)
			conn_event(e, events[i].data.ptr, events[i].events);
	}
	now = monotonic_ns();
	end = e->last_done;
	if (interrupted)
		end = MAX(now, e->measured_from);
	else if (o->rate > 0)
		end = MAX(end, MIN(e->stop, scheduled(e, e->number)));
	else if (e->stop <= now)
		end = MAX(end, e->stop);
	e->r->elapsed_ns = end - e->measured_from;
	e->r->interrupted = interrupted;
}

/* What was due and not sent, or sent and not answered, when it was interrupted. */
static void count_rest(struct engine *e)
{
	uint64_t now = monotonic_ns(), due;
	struct conn *c;

	list_for_each_entry (c, &e->busy, busy)
		e->r->cut_off += measured(e, c->due);
	while (interrupted && e->o->rate > 0) {
		due = scheduled(e, e->number);
		if (due > now || due >= e->stop ||
		    (e->o->requests && e->r->begun == e->o->requests))
			break;
		count_begun(e, due);
		count_end(e, due, LOAD_UNSENT, "all connections were busy");
	}
}

/* The bytes of a request up to its body. */
static bool request_text(struct request_text *t, const struct load_options *o,
			 const struct http_url *url)
{
	const struct http_options *h = &o->http;
	bool standard = !strcmp(url->port, url->tls ? "443" : "80");
	FILE *f = open_memstream(&t->head, &t->len);

	if (!f)
		return false;
	fprintf(f, "%s %s HTTP/1.1\r\n", http_method(h), url->target);
	if (!http_has_header(h, "Host"))
		fprintf(f, "Host: %s%s%s\r\n", url->host, standard ? "" : ":",
			standard ? "" : url->port);
	if (!http_has_header(h, "User-Agent"))
		fputs("User-Agent: kvmsbox\r\n", f);
	if (!http_has_header(h, "Accept"))
		fputs("Accept: */*\r\n", f);
	if (h->token && !http_has_header(h, "Authorization"))
		fprintf(f, "Authorization: Bearer %s\r\n", h->token);
	if (h->has_body && !http_has_header(h, "Content-Type"))
		fputs("Content-Type: application/octet-stream\r\n", f);
	for (size_t i = 0; i < h->nheaders; i++)
		fprintf(f, "%s\r\n", h->headers[i]);
	if (!o->keepalive)
		fputs("Connection: close\r\n", f);
	if (h->has_body || !strcmp(http_method(h), "POST") || !strcmp(http_method(h), "PUT"))
		fprintf(f, "Content-Length: %zu\r\n", h->body_len);
	fputs("\r\n", f);
	return !fclose(f);
}

static int engine_init(struct engine *e)
{
	const struct load_options *o = e->o;
	int err;

	list_init(&e->idle);
	list_init(&e->resting);
	list_init(&e->busy);
	e->epoll = -1;
	err = server_init(&e->server, &o->http, &o->urls[0]);
	if (err)
		return err;
	e->texts = calloc(o->nurls, sizeof(*e->texts));
	e->conns = calloc(o->connections, sizeof(*e->conns));
	e->buffer = malloc(BUFFER_SIZE);
	if (!e->texts || !e->conns || !e->buffer ||
	    (o->expect && !pattern_init(&e->pattern, o->expect)))
		return complain("out of memory");
	for (size_t i = 0; i < o->nurls; i++) {
		if (!request_text(&e->texts[i], o, &o->urls[i]))
			return complain("out of memory");
	}
	for (unsigned int i = 0; i < o->connections; i++) {
		e->conns[i].net.fd = -1;
		list_init(&e->conns[i].place);
		list_init(&e->conns[i].busy);
		list_add_tail(&e->conns[i].place, &e->idle);
	}
	e->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (e->epoll < 0)
		return complain("load: epoll: %s", strerror(errno));
	return 0;
}

static void engine_fini(struct engine *e)
{
	for (unsigned int i = 0; e->conns && i < e->o->connections; i++)
		net_close(&e->conns[i].net);
	for (size_t i = 0; e->texts && i < e->o->nurls; i++)
		free(e->texts[i].head);
	if (e->epoll >= 0)
		close(e->epoll);
	pattern_fini(&e->pattern);
	free(e->conns);
	free(e->texts);
	free(e->buffer);
	server_fini(&e->server);
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* As many descriptors as the connections need, if the hard limit allows it. */
static int raise_limit(unsigned int connections)
{
	rlim_t need = (rlim_t)connections + 32;
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur >= need)
		return 0;
	if (l.rlim_max < need)
		return complain(
			"load: --connections %u: this process may have only %lu files open: "
			"ask for fewer, or raise ulimit -n",
			connections, (unsigned long)l.rlim_max);
	l.rlim_cur = need;
	setrlimit(RLIMIT_NOFILE, &l);
	return 0;
}

int load_run(const struct load_options *o, struct load_results *r)
{
	/* The second ^C ends it at once. */
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
	struct engine e = {.o = o, .r = r};
	sigset_t stops, before;
	double cpu;
	int err;

	err = raise_limit(o->connections);
	if (err)
		return err;
	sigemptyset(&stops);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGTERM);
	sigprocmask(SIG_BLOCK, &stops, &before);
	e.signals = before;
	sigdelset(&e.signals, SIGINT);
	sigdelset(&e.signals, SIGTERM);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	/* A schedule's times are kept to the microsecond, not to 50. */
	prctl(PR_SET_TIMERSLACK, 1000UL);
	err = engine_init(&e);
	if (!err)
		err = first_connection(&e);
	if (!err) {
		cpu = cpu_seconds();
		loop(&e);
		r->cpu = (cpu_seconds() - cpu) * 1e9 / (double)(monotonic_ns() - e.start);
		count_rest(&e);
		load_progress_end();
	}
	engine_fini(&e);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return err;
}
