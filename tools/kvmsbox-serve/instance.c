/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STARTING -> (SNAPSHOT ->) READY -> BUSY -> (FINISHING ->) RESETTING -> READY …, and ENDING from
 * any of them. The other end is not trusted: a message that has no place in the state it comes in
 * costs the instance its life, and its request an error.
 */
#include "tools/kvmsbox-serve/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sentry/lib/clock.h"
#include "sentry/lib/err.h"
#include "tools/kvmsbox-serve/channel.h"
#include "tools/kvmsbox-serve/pool.h"
#include "tools/kvmsbox-serve/random.h"
#include "tools/kvmsbox-serve/request.h"

#define MAX_LINE  4096
#define MAX_BATCH 32 /* messages of one instance before the others' turn */

static uint64_t numbers;
static uint64_t blank_retry_at;

const char *instance_state_name(enum instance_state s)
{
	static const char *const names[] = {"blank", "starting",  "snapshot",  "ready",
					    "busy",  "finishing", "resetting", "ending"};

	return names[s];
}

static bool is_starting(enum instance_state s)
{
	return s == INST_STARTING || s == INST_SNAPSHOT;
}

static void log_instance(struct instance *i, enum log_level level, const char *event,
			 const char *why)
{
	struct log_line l;

	if (!log_begin(&l, level, event))
		return;
	if (i->function) {
		log_str(&l, "tenant", i->function->tenant->config->name);
		log_str(&l, "function", i->function->config->name);
	}
	log_uint(&l, "instance", i->number);
	log_uint(&l, "pid", (uint64_t)i->pid);
	log_str(&l, "state", instance_state_name(i->state));
	log_str(&l, "why", why);
	log_end(&l);
}

/* Keeps the counts right; the only place that changes the state. */
static void set_state(struct instance *i, enum instance_state s)
{
	int starting = is_starting(s) - is_starting(i->state);
	struct function *f = i->function;

	server.starting += (unsigned int)starting;
	if (i->current)
		f->starting += (unsigned int)starting;
	if (i->state == INST_READY && !list_empty(&i->in_ready)) {
		list_del(&i->in_ready);
		if (i->current)
			f->nready--;
	}
	if (s == INST_ENDING) {
		server.instances--;
		if (f)
			f->tenant->instances--;
		else
			server.nblanks--;
		if (i->current)
			f->live--;
		i->current = false;
	}
	i->state = s;
	i->since = loop_now();
}

static void instance_free(struct work *w)
{
	struct instance *i = container_of(w, struct instance, free_work);
	struct function *f = i->function;

	list_del(&i->node);
	function_config_put(i->config);
	buf_fini(&i->line);
	buf_fini(&i->own_line);
	free(i->last_words);
	free(i);
	if (f)
		function_put_if_unused(f);
}

static void send_type(struct instance *i, enum fn_type type)
{
	struct fn_msg m = {.type = type};

	instance_send(i, &m, NULL, 0, NULL);
}

/* The channel has room again. */
static void writable(struct instance *i)
{
	if (!channel_flush(i))
		return;
	if (i->kind && i->kind->writable)
		i->kind->writable(i);
	if (i->state == INST_BUSY && i->req && i->kind->body)
		i->kind->body(i, i->req);
}

/* Lines of @data, and what an earlier piece left, each to @emit. */
static void split_lines(struct instance *i, struct buf *b, const char *data, size_t n,
			void (*emit)(struct instance *i, const char *line, size_t n))
{
	while (n) {
		const char *end = memchr(data, '\n', n);
		size_t piece = end ? (size_t)(end - data) : n;

		piece = MIN(piece, MAX_LINE - b->len);
		buf_append(b, data, piece);
		data += piece;
		n -= piece;
		if (n && *data == '\n') {
			data++;
			n--;
		} else if (b->len < MAX_LINE) {
			return;
		}
		emit(i, buf_data(b), b->len);
		buf_clear(b);
	}
}

static void emit_stderr(struct instance *i, const char *line, size_t n)
{
	struct function *f = i->function;
	struct log_line l;

	if (!f || !f->log_lines) {
		if (f)
			f->lines_dropped++;
		return;
	}
	f->log_lines--;
	if (!log_begin(&l, LOG_INFO, "stderr"))
		return;
	log_str(&l, "tenant", f->tenant->config->name);
	log_str(&l, "function", f->config->name);
	log_uint(&l, "instance", i->number);
	if (i->request_id[0])
		log_str(&l, "request_id", i->request_id);
	log_bytes(&l, "line", line, n);
	log_end(&l);
}

/* The process itself, not the function in it: what it complains about explains its end. */
static void emit_own(struct instance *i, const char *line, size_t n)
{
	struct log_line l;

	if (!n)
		return;
	free(i->last_words);
	i->last_words = strndup(line, n);
	if (i->function && !i->function->log_lines)
		return;
	if (!log_begin(&l, LOG_WARN, "instance_says"))
		return;
	if (i->function) {
		i->function->log_lines--;
		log_str(&l, "function", i->function->config->name);
	}
	log_uint(&l, "instance", i->number);
	log_bytes(&l, "line", line, n);
	log_end(&l);
}

static void close_errors(struct instance *i)
{
	int fd = i->errors.fd;

	if (fd < 0)
		return;
	watch_del(&i->errors);
	close(fd);
}

static void read_errors(struct instance *i)
{
	char data[4096];
	ssize_t n = -1;

	for (int k = 0; i->errors.fd >= 0 && k < 16; k++) {
		n = read(i->errors.fd, data, sizeof(data));
		if (n <= 0)
			break;
		split_lines(i, &i->own_line, data, (size_t)n, emit_own);
	}
	if (n == 0)
		close_errors(i);
}

static void errors_ready(struct watch *w, uint32_t events)
{
	struct instance *i = container_of(w, struct instance, errors);
	char data[4096];
	ssize_t n = read(w->fd, data, sizeof(data));

	if (n > 0) {
		split_lines(i, &i->own_line, data, (size_t)n, emit_own);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		close_errors(i);
	}
}

static void drop_request_state(struct instance *i, bool all)
{
	if (i->kind && i->kind->reset)
		i->kind->reset(i, all);
}

void instance_end(struct instance *i)
{
	if (i->state == INST_ENDING)
		return;
	drop_request_state(i, true);
	set_state(i, INST_ENDING);
	channel_close(i);
	pool_lost(i);
	timer_set(&i->timer, loop_now() + server.config->timeouts.kill);
}

static void kill_process(struct instance *i)
{
	pidfd_send_signal(i->pidfd, SIGKILL, NULL, 0);
}

/* It went while it was to make its snapshot. Once may be an accident; twice isn't tried again. */
static void start_lost(struct instance *i, const char *why)
{
	if (i->state == INST_SNAPSHOT && ++i->function->snapshot_failures > 1)
		i->function->snapshot_failed = true;
	pool_start_failed(i, why);
}

void instance_kill(struct instance *i, const char *why)
{
	bool was_starting = is_starting(i->state);

	if (i->state == INST_ENDING)
		return;
	log_instance(i, LOG_WARN, "instance_killed", why);
	if (i->function)
		i->function->stats.killed++;
	if (i->req)
		response_fail(i->req, 502, OUT_CRASHED, "crashed", "the function's sandbox failed");
	kill_process(i);
	if (was_starting)
		start_lost(i, why);
	instance_end(i);
}

static void bad_message(struct instance *i, const struct fn_msg *m)
{
	char why[96];

	snprintf(why, sizeof(why), "protocol: message %u in state %s", m->type,
		 instance_state_name(i->state));
	instance_kill(i, why);
}

static void become_ready(struct instance *i)
{
	timer_del(&i->timer);
	set_state(i, INST_READY);
	pool_ready(i);
}

static void count_start(struct instance *i, uint64_t took)
{
	struct function *f = i->function;

	f->failures = 0;
	f->retry_at = 0;
	f->proven = true;
	free(f->failure);
	f->failure = NULL;
	f->average_start = f->average_start ? (3 * f->average_start + took) / 4 : took;
	if (i->cold) {
		f->stats.starts_cold++;
		histogram_add(&f->stats.start_cold, took);
	} else {
		/* What a cold start took says nothing about the next ones. */
		if (!f->stats.starts_warm)
			f->average_start = took;
		f->stats.starts_warm++;
		histogram_add(&f->stats.start_warm, took);
	}
}

/* False: there is to be none. */
static bool ask_for_snapshot(struct instance *i)
{
	if (!i->cold || !i->current || !i->config->snapshot || i->function->snapshot_failed)
		return false;
	set_state(i, INST_SNAPSHOT);
	timer_set(&i->timer, loop_now() + i->config->limits.start);
	send_type(i, FN_SNAPSHOT);
	return true;
}

static void got_ready(struct instance *i, const struct fn_msg *m)
{
	struct function *f = i->function;
	bool first = i->state == INST_STARTING;

	if ((!first && i->state != INST_RESETTING) || m->ready.version != FN_VERSION ||
	    m->ready.kind != (uint32_t)i->config->kind) {
		bad_message(i, m);
		return;
	}
	i->port = (uint16_t)m->ready.port;
	i->resident = m->ready.resident;
	pool_count_memory(i, MAX(i->resident, i->pss));
	if (i->resident)
		f->typical_memory =
			f->typical_memory ? (3 * f->typical_memory + i->resident) / 4 : i->resident;
	if (!first) {
		f->stats.resets++;
		f->stats.dirtied_pages += m->ready.dirtied;
		histogram_add(&f->stats.reset, loop_now() - i->since);
		if (!(m->flags & FN_LEARNED) || !ask_for_snapshot(i))
			become_ready(i);
		return;
	}
	if (i->current)
		count_start(i, loop_now() - i->started);
	if (f->image[0] >= 0 || !ask_for_snapshot(i))
		become_ready(i);
}

/* Without the seals somebody could change under every clone what it runs. */
static bool is_sealed(int fd)
{
	int want = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & want) == want;
}

static void got_image(struct instance *i, const struct fn_msg *m, int fds[FN_IMAGE_FDS])
{
	if (i->state != INST_SNAPSHOT || fds[0] < 0 || !is_sealed(fds[0])) {
		i->function->snapshot_failed = true;
		bad_message(i, m);
		return;
	}
	pool_image(i, fds);
	become_ready(i);
}

static void got_failed(struct instance *i, const struct fn_msg *m, const char *data)
{
	char why[512];

	snprintf(why, sizeof(why), "%.*s", (int)MIN(m->len, 500U), data);
	why[strcspn(why, "\n")] = 0;
	if (i->state == INST_SNAPSHOT) {
		log_instance(i, LOG_WARN, "snapshot_failed", why);
		i->function->snapshot_failed = true;
		become_ready(i);
		return;
	}
	if (i->state != INST_STARTING) {
		bad_message(i, m);
		return;
	}
	pool_start_failed(i, why);
	instance_end(i);
}

static void got_done(struct instance *i, const struct fn_msg *m, const char *data)
{
	const uint32_t cut = FN_CANCELLED | FN_TIMED_OUT | FN_OUT_OF_MEM | FN_TOO_MUCH;
	struct function_stats *st = &i->function->stats;

	if (i->state != INST_BUSY && i->state != INST_FINISHING) {
		bad_message(i, m);
		return;
	}
	/* What didn't come to its own end isn't kept, whatever FN_INVOKE said. */
	if (m->flags & cut || i->req)
		i->since_reset = 0;
	st->cpu_ns += m->done.cpu_ns;
	st->peak_rss = MAX(st->peak_rss, m->done.peak_rss);
	if (i->req)
		i->kind->done(i, i->req, m, data);
	if (i->state == INST_ENDING)
		return;
	drop_request_state(i, !i->since_reset);
	if (m->flags & FN_NOT_READY) {
		instance_end(i);
		return;
	}
	instance_pause(i, false);
	set_state(i, INST_RESETTING);
	timer_set(&i->timer, loop_now() + i->config->limits.start);
}

/* What only the kind understands. Behind the end of a request the rest of its bytes may come. */
static void got_other(struct instance *i, const struct fn_msg *m, const char *data)
{
	if (m->type == FN_STDERR) {
		split_lines(i, &i->line, data, m->len, emit_stderr);
		return;
	}
	switch (m->type) {
	case FN_STDOUT:
	case FN_OPEN:
	case FN_DATA:
	case FN_CLOSE:
	case FN_WINDOW:
		if (i->kind->message(i, m, data))
			bad_message(i, m);
		return;
	default:
		bad_message(i, m);
	}
}

static void dispatch(struct instance *i, const struct fn_msg *m, const char *data,
		     int fds[FN_IMAGE_FDS])
{
	if (!i->function) {
		bad_message(i, m);
		return;
	}
	switch (m->type) {
	case FN_READY:
		got_ready(i, m);
		break;
	case FN_IMAGE:
		got_image(i, m, fds);
		break;
	case FN_FAILED:
		got_failed(i, m, data);
		break;
	case FN_DONE:
		got_done(i, m, data);
		break;
	default:
		got_other(i, m, data);
	}
}

/* One message, and what it means. 1: there was one, of *@type; 0: the end; -EAGAIN. */
static int receive(struct instance *i, uint32_t *type)
{
	const char *data;
	struct fn_msg m = {0};
	int fds[FN_IMAGE_FDS], ret = channel_receive(i, &m, &data, fds);

	if (ret == -EPROTO)
		instance_kill(i, "protocol: a message of the wrong size");
	else if (ret > 0)
		dispatch(i, &m, data, fds);
	for (int k = 0; k < FN_IMAGE_FDS; k++) {
		if (fds[k] >= 0)
			close(fds[k]);
	}
	*type = m.type;
	return ret == -EPROTO ? 1 : ret;
}

/* The sandbox closed its end, or died. Its last words come first: the process's end tells more. */
static void channel_lost(struct instance *i)
{
	i->lost = true;
	channel_close(i);
	read_errors(i);
	if (i->req)
		response_fail(i->req, 502, OUT_CRASHED, "crashed", "the function's sandbox ended");
	timer_set(&i->timer, loop_now() + server.config->timeouts.kill);
}

static void read_channel(struct instance *i, int max)
{
	uint32_t type = FN_DONE;
	int ret = 1;

	for (int k = 0; k < max && ret > 0 && i->channel.fd >= 0 && !i->paused; k++) {
		/* Whoever is ready says nothing more before it is asked. */
		if (type == FN_READY && !i->lost)
			break;
		ret = receive(i, &type);
	}
	if (!ret && i->channel.fd >= 0)
		channel_lost(i);
}

static void channel_ready(struct watch *w, uint32_t events)
{
	struct instance *i = container_of(w, struct instance, channel);

	if (events & (EPOLLHUP | EPOLLERR)) {
		i->lost = true;
		i->paused = false;
	}
	if (events & EPOLLOUT)
		writable(i);
	read_channel(i, MAX_BATCH);
}

static void describe_end(const siginfo_t *si, char *text, size_t n)
{
	if (si->si_code == CLD_EXITED)
		snprintf(text, n, "it exited with status %d", si->si_status);
	else
		snprintf(text, n, "it was killed by signal %d", si->si_status);
}

static void process_died(struct watch *w, uint32_t events)
{
	struct instance *i = container_of(w, struct instance, death);
	siginfo_t si = {0};
	char how[64];

	if (waitid(P_PIDFD, (id_t)i->pidfd, &si, WEXITED | WNOHANG) || !si.si_pid)
		return;
	i->lost = true;
	i->paused = false;
	/* What it said before it died still counts; there is no more than fits the socket. */
	read_channel(i, 4096);
	read_errors(i);
	describe_end(&si, how, sizeof(how));
	if (i->state != INST_ENDING) {
		bool was_starting = is_starting(i->state);

		log_instance(i, LOG_WARN, "instance_died", how);
		if (i->req)
			response_fail(i->req, 502, OUT_CRASHED, "crashed",
				      "the function's sandbox ended: %s", how);
		if (was_starting)
			start_lost(i, i->last_words ?: how);
		if (!i->function)
			blank_retry_at = loop_now() + SEC;
		instance_end(i);
	}
	timer_del(&i->timer);
	watch_del(&i->death);
	close(i->pidfd);
	close_errors(i);
	server.processes--;
	work_add(&i->free_work);
	if (server.stopping)
		pool_kick();
}

static void instance_timeout(struct timer *t)
{
	struct instance *i = container_of(t, struct instance, timer);
	char why[96];

	if (i->state == INST_ENDING) {
		kill_process(i);
		return;
	}
	if (i->state == INST_SNAPSHOT)
		i->function->snapshot_failed = true;
	if (i->lost)
		snprintf(why, sizeof(why), "it closed its channel");
	else if (i->stuck)
		snprintf(why, sizeof(why), "it doesn't read what it is sent");
	else
		snprintf(why, sizeof(why), "still %s after %llu ms", instance_state_name(i->state),
			 (unsigned long long)((loop_now() - i->since) / MSEC));
	instance_kill(i, why);
}

/* The process is there: an instance that is STARTING or BLANK. NULL: no memory. */
static struct instance *instance_new(const struct spawned *s, enum instance_state state)
{
	struct instance *i = calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	i->number = ++numbers;
	i->pid = s->pid;
	i->pidfd = s->pidfd;
	i->channel = (struct watch){.ready = channel_ready, .fd = -1};
	i->death = (struct watch){.ready = process_died, .fd = -1};
	i->errors = (struct watch){.ready = errors_ready, .fd = -1};
	i->timer.fire = instance_timeout;
	work_init(&i->free_work, instance_free);
	list_init(&i->node);
	list_init(&i->in_ready);
	list_init(&i->out);
	list_init(&i->streams);
	i->state = state;
	i->started = i->since = loop_now();
	if (watch_add(&i->channel, s->channel, EPOLLIN) ||
	    watch_add(&i->death, s->pidfd, EPOLLIN) || watch_add(&i->errors, s->errors, EPOLLIN)) {
		watch_del(&i->channel);
		watch_del(&i->death);
		free(i);
		return NULL;
	}
	server.instances++;
	server.processes++;
	return i;
}

static void give_up(const struct spawned *s)
{
	pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
	waitid(P_PIDFD, (id_t)s->pidfd, NULL, WEXITED);
	close(s->pidfd);
	close(s->channel);
	close(s->errors);
}

static void join_function(struct instance *i, struct function *f)
{
	static const struct kind_ops *const kinds[] = {
		[FN_STDIO] = &kind_stdio, [FN_HTTP] = &kind_http, [FN_LAMBDA] = &kind_lambda};

	i->function = f;
	i->config = function_config_get(f->config);
	i->kind = kinds[f->config->kind];
	i->version = f->version;
	i->current = true;
	i->images = f->images;
	list_add_tail(&i->node, &f->instances);
	f->live++;
	f->starting++;
	f->tenant->instances++;
	server.starting++;
	timer_set(&i->timer, loop_now() + f->config->limits.start);
}

/* A blank that becomes one of @f: it is told what. NULL: there is none. */
static struct instance *take_blank(struct function *f)
{
	struct fn_msg m = {.type = FN_IMAGE};
	struct instance *i, *found = NULL;

	list_for_each_entry (i, &server.blanks, node) {
		if (i->state == INST_BLANK && !strcmp(i->platform, function_platform(f)))
			found = i;
	}
	i = found;
	if (!i || f->image[0] < 0)
		return NULL;
	list_del(&i->node);
	server.nblanks--;
	i->state = INST_STARTING;
	i->started = i->since = loop_now();
	join_function(i, f);
	instance_send(i, &m, NULL, 0, f->image);
	server.blank_starts++;
	return i;
}

struct instance *instance_start(struct function *f)
{
	struct instance *i = take_blank(f);
	bool cold = f->image[0] < 0;
	struct spawned s;
	int err;

	if (i)
		return i;
	err = cold ? spawn_cold(f->config, &s) : spawn_restore(f->image[0], &s);
	if (err)
		return ERR_PTR(err);
	i = instance_new(&s, INST_STARTING);
	if (!i) {
		give_up(&s);
		return ERR_PTR(-ENOMEM);
	}
	i->cold = cold;
	join_function(i, f);
	log_instance(i, LOG_DEBUG, "instance_started", cold ? "cold" : "restored");
	return i;
}

int instance_start_blank(const char *platform)
{
	struct instance *i;
	struct spawned s;
	int err;

	if (loop_now() < blank_retry_at)
		return -EAGAIN;
	err = spawn_blank(platform, &s);
	if (err) {
		blank_retry_at = loop_now() + SEC;
		return err;
	}
	i = instance_new(&s, INST_BLANK);
	if (!i) {
		give_up(&s);
		return -ENOMEM;
	}
	snprintf(i->platform, sizeof(i->platform), "%s", platform);
	list_add(&i->node, &server.blanks);
	server.nblanks++;
	return 0;
}

void instance_run(struct instance *i, struct request *r)
{
	set_state(i, INST_BUSY);
	timer_del(&i->timer);
	i->req = r;
	memcpy(i->request_id, r->id, sizeof(i->request_id));
	r->cold = !i->requests && i->cold;
	r->fresh = !i->requests && !i->cold;
	i->requests++;
	i->kind->invoke(i, r);
}

void instance_invoke(struct instance *i, struct request *r, const void *data, size_t n,
		     uint32_t flags)
{
	struct fn_msg m = {.type = FN_INVOKE, .flags = flags};
	uint64_t now = monotonic_ns();

	m.invoke.id = r->number;
	m.invoke.deadline_ns = r->deadline > now ? r->deadline - now : 1;
	m.invoke.max_output = i->config->limits.output;
	if (!random_bytes(m.invoke.entropy, sizeof(m.invoke.entropy))) {
		instance_kill(i, "no randomness from the host");
		return;
	}
	if (++i->since_reset < i->config->keep)
		m.flags |= FN_KEEP;
	else
		i->since_reset = 0;
	instance_send(i, &m, data, n, NULL);
	explicit_bzero(&m, sizeof(m));
}

void instance_finish(struct instance *i, bool cancel)
{
	if (i->state != INST_BUSY)
		return;
	instance_pause(i, false);
	set_state(i, INST_FINISHING);
	timer_set(&i->timer, loop_now() + server.config->timeouts.kill);
	send_type(i, cancel ? FN_CANCEL : FN_FINISH);
}
