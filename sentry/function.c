/* SPDX-License-Identifier: Apache-2.0 */
/* See function.h. All static state is the host process's, but for what it points to. */
#include "sentry/function.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sentry/boot.h"
#include "sentry/forward.h"
#include "sentry/function_internal.h"
#include "sentry/lib/clock.h"
#include "sentry/lib/err.h"
#include "sentry/lib/log.h"
#include "sentry/lib/physmem.h"
#include "sentry/lib/world.h"
#include "sentry/objects.h"
#include "sentry/pipe.h"
#include "sentry/snapshot.h"

#define ASLEEP_MS 3  /* all threads have slept for so long: they wait for their input */
#define FLUSH_MS  5  /* how often output is looked for during a request */
#define TRAININGS 2  /* requests whose faults are learned from */
#define SHORT_MS  50 /* deadlines that the minder isn't quick enough for */

enum phase { BOOTING, READY, SERVING };

struct wire {
	struct fn_msg msg;
	uint8_t data[FN_DATA_MAX];
};

static __host_large struct {
	struct kernel *kernel;
	int channel, event;
	_Atomic bool rung;    /* by function_ring, and not looked into yet */
	_Atomic bool waiting; /* the event is wanted for that */
	uint64_t since;
	struct file *in; /* the input pipe's end while the body isn't complete */
	enum phase phase;
	_Atomic bool starved; /* the program has read its input and found nothing */
	_Atomic bool asked;   /* it has asked whether there is any */
	_Atomic bool ended;   /* init has */
	_Atomic int status;   /* of init, a wait status */
	/* The request. */
	uint64_t began, deadline, max_output, sent;
	bool keep, body_done;
	bool running; /* tasks are, although there is no request: the last one said FN_KEEP */
	size_t pending, pushed; /* of wire_in.data: body that didn't fit the pipe yet */
	uint64_t requests;
	unsigned int trainings;
	bool learned; /* something from them */
	struct wire in_wire, out_wire;
	size_t in_used, out_used; /* of their data, by this request */
} fn = {.channel = -1};

/* Kernel state: the sentry's ends of the program's descriptors. */
static struct {
	unsigned int kind;
	struct thread_group *init;
	struct file *in, *out, *err;
} fnk;

/* ---- the channel ---- */

/* @fds: NULL, or FN_IMAGE_FDS of them. False: the server is gone. */
static bool send_fds(struct fn_msg *m, const void *data, size_t len, const int *fds)
{
	struct iovec iov[2] = {{m, sizeof(*m)}, {(void *)(uintptr_t)data, len}};
	union {
		struct cmsghdr h;
		uint8_t space[CMSG_SPACE(FN_IMAGE_FDS * sizeof(int))];
	} c = {.h = {.cmsg_len = CMSG_LEN(FN_IMAGE_FDS * sizeof(int)),
		     .cmsg_level = SOL_SOCKET,
		     .cmsg_type = SCM_RIGHTS}};
	struct msghdr h = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};
	ssize_t n;

	m->len = (uint32_t)len;
	if (fds) {
		memcpy(CMSG_DATA(&c.h), fds, FN_IMAGE_FDS * sizeof(int));
		h.msg_control = &c;
		h.msg_controllen = sizeof(c.space);
	}
	do {
		n = sendmsg(fn.channel, &h, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n >= 0;
}

bool function_send(struct fn_msg *m, const void *data, size_t len)
{
	if (data == fn.out_wire.data)
		fn.out_used = MAX(fn.out_used, len);
	return send_fds(m, data, len, NULL);
}

uint8_t *function_buffer(void)
{
	return fn.out_wire.data;
}

static bool send_failed(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool send_failed(int status, const char *fmt, ...)
{
	struct fn_msg m = {.type = FN_FAILED, .done.status = status};
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return function_send(&m, line, strlen(line));
}

/* The next message into fn.in_wire. False: there is none, the server is gone or talks nonsense. */
static bool receive(void)
{
	struct wire *w = &fn.in_wire;
	ssize_t n;

	do {
		n = recv(fn.channel, w, sizeof(*w), 0);
	} while (n < 0 && errno == EINTR);
	if (n < (ssize_t)sizeof(w->msg) || w->msg.len != (size_t)n - sizeof(w->msg)) {
		if (n > 0)
			log_error("function: a message of %zd bytes makes no sense", n);
		return false;
	}
	fn.in_used = MAX(fn.in_used, w->msg.len);
	return true;
}

/* ---- what comes from other threads ---- */

void function_ring(void)
{
	uint64_t one = 1;

	if (!atomic_exchange(&fn.rung, true) && atomic_load(&fn.waiting))
		(void)!write(fn.event, &one, sizeof(one));
}

/* Called by a reader of the empty input pipe. */
static void input_empty(bool asks)
{
	if (fn.phase != BOOTING)
		return;
	if (!atomic_exchange(asks ? &fn.asked : &fn.starved, true))
		function_ring();
}

/* A thread of init is about to end: true if that is the request's end, and it need not be done. */
static bool last_exit(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct sighand *s;
	bool last;

	if (tg != fnk.init || fn.phase != SERVING)
		return false;
	s = sighand_lock(tg);
	last = tg->nr_live == 1;
	if (last)
		atomic_store(&fn.status, tg->group_exit ? tg->group_exit_code : t->exit_code);
	mutex_unlock(&s->lock);
	if (last && !atomic_exchange(&fn.ended, true))
		function_ring();
	return last;
}

/* Every task has ended in the ordinary way. */
static void all_ended(struct kernel *k)
{
	if (!atomic_load(&fn.ended))
		atomic_store(&fn.status, k->exit_status);
	if (!atomic_exchange(&fn.ended, true))
		function_ring();
}

static int exit_status(void)
{
	int st = atomic_load(&fn.status);

	return WIFSIGNALED(st) ? 128 + WTERMSIG(st) : WEXITSTATUS(st);
}

/* ---- pipes ---- */

/* Output of the program's, at most FN_DATA_MAX bytes, into fn.out_wire. As pipe_take. */
static ssize_t take_output(struct file *f)
{
	ssize_t n = pipe_take(pipe_of(f), fn.out_wire.data, FN_DATA_MAX);

	if (n > 0)
		fn.out_used = MAX(fn.out_used, (size_t)n);
	return n;
}

/* Sends what @f has as messages of @type, as far as @most allows. False: the server is gone. */
static bool pump(struct file *f, unsigned int type, uint64_t *sent, uint64_t most)
{
	struct fn_msg m = {.type = type};
	ssize_t n;

	while ((n = take_output(f)) > 0) {
		uint64_t room = most ? most - MIN(*sent, most) : UINT64_MAX;

		*sent += (uint64_t)n;
		if (!function_send(&m, fn.out_wire.data, MIN((uint64_t)n, room)))
			return false;
		if (most && *sent > most)
			break;
	}
	return true;
}

/* What goes to logs. */
static bool pump_stderr(void)
{
	uint64_t sent = 0;

	if (fnk.kind != FN_STDIO && !pump(fnk.out, FN_STDERR, &sent, 0))
		return false;
	return pump(fnk.err, FN_STDERR, &sent, 0);
}

/* Gives the program as much of the body as its pipe takes. */
static void push_body(void)
{
	while (fn.pushed < fn.pending) {
		ssize_t room = pipe_room(pipe_of(fn.in));
		size_t n = fn.pending - fn.pushed;

		if (room == -EPIPE) {
			/* It doesn't want to know: the rest goes nowhere, as with a closed pipe. */
			fn.pushed = fn.pending;
			break;
		}
		if (room <= 0)
			return;
		n = MIN(n, (size_t)room);
		if (pipe_put(pipe_of(fn.in), fn.in_wire.data + fn.pushed, n))
			fn.pushed = fn.pending;
		else
			fn.pushed += n;
	}
	fn.pushed = fn.pending = 0;
	if (fn.body_done && fn.in) {
		file_put(fn.in);
		fn.in = NULL;
	}
}

static void take_body(void)
{
	fn.pending = fn.in_wire.msg.len;
	fn.pushed = 0;
	fn.body_done = fn.in_wire.msg.flags & FN_END_OF_DATA;
	push_body();
}

/* ---- the life of a request ---- */

static bool send_ready(uint64_t took, const struct snapshot_rewound *r, uint32_t flags)
{
	struct fn_msg m = {.type = FN_READY, .flags = flags};
	struct physmem_stats pm;

	physmem_stats(&pm);
	m.ready.version = FN_VERSION;
	m.ready.kind = fnk.kind;
	m.ready.pid = (uint32_t)getpid();
	m.ready.port = streams_port();
	m.ready.took_ns = took;
	m.ready.resident = pm.resident;
	m.ready.dirtied = r ? r->kernel_pages + r->frames + r->zeroed : 0;
	m.ready.requests = fn.requests;
	return function_send(&m, NULL, 0);
}

/* Can the thread that received the request run it? The whole input is there. */
static bool runs_here(void)
{
	return runner_started() && !fn.in &&
	       (!fn.deadline || fn.deadline - fn.began >= SHORT_MS * 1000000UL);
}

static bool begin(void)
{
	const struct fn_msg *m = &fn.in_wire.msg;

	fn.phase = SERVING;
	fn.began = monotonic_ns();
	fn.deadline = m->invoke.deadline_ns ? fn.began + m->invoke.deadline_ns : 0;
	fn.max_output = m->invoke.max_output;
	fn.keep = m->flags & FN_KEEP;
	fn.sent = 0;
	atomic_store(&task_out_of_memory, false);
	fn.in = fnk.kind == FN_STDIO ? fnk.in : NULL;
	if (fn.running)
		return true;
	atomic_store(&fn.ended, false);
	if (fn.trainings < TRAININGS)
		snapshot_train();
	if (fnk.kind == FN_STDIO)
		take_body();
	fn.running = true;
	return snapshot_resume(fn.kernel, runs_here() ? runner_next() : NULL) == 0;
}

/* To the frozen state, and READY. False: this sandbox has come to its end. */
static bool go_back(void)
{
	struct snapshot_rewound r;
	uint64_t start = monotonic_ns();
	uint32_t flags = 0;
	long learned;

	if (snapshot_rewind(fn.kernel, &r)) {
		log_error("function: the sandbox can't be set back");
		return false;
	}
	fn.running = false;
	/* What comes of the body from now on goes nowhere, up to the next FN_INVOKE. */
	fn.pending = fn.pushed = 0;
	if (fn.trainings < TRAININGS) {
		fn.trainings++;
		learned = snapshot_learn(fn.kernel);
		if (learned < 0)
			return false;
		fn.learned |= learned > 0;
		if (fn.trainings == TRAININGS && fn.learned)
			flags = FN_LEARNED;
	}
	fn.phase = READY;
	return send_ready(monotonic_ns() - start, &r, flags);
}

/* What the sentry has seen of the request goes. */
static void wipe(void)
{
	memset(fn.in_wire.data, 0, fn.in_used);
	memset(fn.out_wire.data, 0, fn.out_used);
	fn.in_used = fn.out_used = 0;
}

/* FN_DONE, with the @len bytes in function_buffer(). False: the server is gone. */
static bool answer(struct fn_msg *m, int status, size_t len)
{
	if (atomic_load(&task_out_of_memory))
		m->flags |= FN_OUT_OF_MEM;
	m->done.status = status;
	m->done.ran_ns = monotonic_ns() - fn.began;
	fn.requests++;
	if (!function_send(m, fn.out_wire.data, len))
		return false;
	wipe();
	return true;
}

/* A request that came by streams is over. */
static bool finish_streams(struct fn_msg *m)
{
	if (!answer(m, atomic_load(&fn.ended) ? exit_status() : 0, 0))
		return false;
	if (!fn.keep || m->flags || atomic_load(&fn.ended))
		return go_back();
	streams_end_request();
	fn.phase = READY;
	return send_ready(0, NULL, 0);
}

/* The request is over: answers, and goes back. False: this sandbox has come to its end. */
static bool finish(uint32_t flags)
{
	struct fn_msg m = {.type = FN_DONE, .flags = flags};
	uint64_t room;
	ssize_t n = 0;

	if (!pump_stderr())
		return false;
	if (fnk.kind != FN_STDIO)
		return finish_streams(&m);
	/* All but the last piece of output in messages of its own. */
	room = fn.max_output ? fn.max_output - MIN(fn.sent, fn.max_output) : UINT64_MAX;
	while (!(flags & FN_TOO_MUCH)) {
		struct fn_msg out = {.type = FN_STDOUT};

		n = take_output(fnk.out);
		if (n < FN_DATA_MAX)
			break;
		fn.sent += (uint64_t)n;
		if ((uint64_t)n > room) {
			m.flags |= FN_TOO_MUCH;
			n = (ssize_t)room;
			break;
		}
		room -= (uint64_t)n;
		if (!function_send(&out, fn.out_wire.data, (size_t)n))
			return false;
	}
	n = MAX(n, 0);
	if ((uint64_t)n > room) {
		m.flags |= FN_TOO_MUCH;
		n = (ssize_t)room;
	}
	return answer(&m, exit_status(), (size_t)n) && go_back();
}

/* A message of the server's. False: leave. */
static bool handle_message(void)
{
	const int image[FN_IMAGE_FDS] = {snapshot_image(), physmem_file_fd()};
	struct fn_msg m = {.type = FN_IMAGE};

	if (!receive())
		return false;
	switch (fn.in_wire.msg.type) {
	case FN_INVOKE:
		return fn.phase == READY && begin();
	case FN_BODY:
		if (fn.phase == SERVING)
			take_body();
		return true;
	case FN_FINISH:
		return fn.phase != SERVING || finish(0);
	case FN_OPEN:
	case FN_DATA:
	case FN_CLOSE:
	case FN_WINDOW:
		return fnk.kind != FN_STDIO && streams_message(&fn.in_wire.msg, fn.in_wire.data);
	case FN_CANCEL:
		return fn.phase != SERVING || finish(FN_CANCELLED);
	case FN_SNAPSHOT:
		return fn.phase == READY && send_fds(&m, NULL, 0, image);
	default:
		log_error("function: unknown message %u", fn.in_wire.msg.type);
		return false;
	}
}

/* ---- coming up ---- */

static bool all_asleep(void)
{
	struct kernel *k = fn.kernel;
	struct pid *pid;
	bool asleep = true;

	mutex_lock(&k->tasklist);
	for (uint64_t nr = 1; (pid = pid_next_locked(k->root_pid_ns, &nr)); nr++) {
		const struct task *t = pid->task;

		if (t && !t->exiting && atomic_load(&t->state) != TASK_SLEEPING &&
		    atomic_load(&t->state) != TASK_STOPPED)
			asleep = false;
	}
	mutex_unlock(&k->tasklist);
	return asleep;
}

/* Freezes. False: it can't be done, and has been said. */
static bool freeze(void)
{
	char why[256];

	if (!pump_stderr())
		return false;
	if (snapshot_freeze(fn.kernel, why, sizeof(why))) {
		send_failed(EXIT_KVMSBOX, "%s", why);
		return false;
	}
	fn.phase = READY;
	return send_ready(monotonic_ns() - fn.since, NULL, 0);
}

/* ---- the loop ---- */

bool function_serving(void)
{
	return fn.phase == SERVING;
}

static int wait_ms(void)
{
	uint64_t left;

	if (fn.phase == BOOTING)
		return fnk.kind != FN_STDIO || atomic_load(&fn.asked) ? ASLEEP_MS : 100;
	if (fn.phase == READY)
		return -1;
	if (!fn.deadline)
		return FLUSH_MS;
	left = fn.deadline - MIN(monotonic_ns(), fn.deadline);
	return (int)MIN(left / 1000000 + 1, (uint64_t)FLUSH_MS);
}

/* Is this the snapshot point, if all threads sleep? */
static bool at_point(void)
{
	return fnk.kind == FN_STDIO ? atomic_load(&fn.asked) : streams_at_point();
}

/* While it comes up. @asleep: all slept at the snapshot point when this was called last. */
static bool look_booting(bool *asleep)
{
	bool now;

	if (!pump_stderr())
		return false;
	if (atomic_load(&fn.ended)) {
		send_failed(exit_status(), "it ended with status %d before %s", exit_status(),
			    fnk.kind == FN_STDIO  ? "it read its input"
			    : fnk.kind == FN_HTTP ? "it listened on its port"
						  : "it asked for an invocation");
		return false;
	}
	if (fnk.kind == FN_LAMBDA && !streams_work(true))
		return false;
	now = at_point() && all_asleep();
	if (atomic_load(&fn.starved) || (now && *asleep))
		return freeze();
	*asleep = now;
	return true;
}

/* What there is to do beside messages. False: leave. */
static bool look(bool *asleep)
{
	if (fn.phase == BOOTING)
		return look_booting(asleep);
	if (fn.running && fnk.kind != FN_STDIO && !streams_work(false))
		return false;
	if (fn.phase != SERVING)
		return !fn.running || !atomic_load(&fn.ended);
	if (atomic_load(&fn.ended))
		return finish(0);
	if (fn.deadline && monotonic_ns() >= fn.deadline)
		return finish(FN_TIMED_OUT);
	(void)!forward_watch_memory(fn.kernel);
	if (fnk.kind != FN_STDIO)
		return pump_stderr();
	push_body();
	if (!pump_stderr() || !pump(fnk.out, FN_STDOUT, &fn.sent, fn.max_output))
		return false;
	if (fn.max_output && fn.sent > fn.max_output)
		return finish(FN_TOO_MUCH);
	return true;
}

/* Until something happens. *@message: there is one. False: leave. */
static bool wait_for_something(bool *message)
{
	struct pollfd p[2] = {{.fd = fn.event, .events = POLLIN}, {.fd = fn.channel}};
	uint64_t count;
	int n;

	/* No more of the body before the program has taken what there is. */
	p[1].events = fn.pending ? 0 : POLLIN;
	/* Who rings after this look sees that the event is wanted. */
	atomic_store(&fn.waiting, true);
	n = poll(p, 2, atomic_load(&fn.rung) ? 0 : wait_ms());
	atomic_store(&fn.waiting, false);
	if (n < 0 && errno != EINTR)
		return false;
	if (p[0].revents & POLLIN)
		(void)!read(fn.event, &count, sizeof(count));
	*message = p[1].revents & POLLIN;
	return *message || !(p[1].revents & (POLLERR | POLLHUP));
}

bool function_turn(bool *asleep)
{
	bool message;

	/* Between requests no task runs that could ring. */
	if (fn.phase == READY && !fn.running)
		message = true;
	else if (!wait_for_something(&message))
		return false;
	if (message && !handle_message())
		return false;
	runner_run();
	atomic_store(&fn.rung, false);
	return look(asleep);
}

static void serve(void)
{
	bool asleep = false;

	/* Only those who are asked more than once need another thread. */
	while (!fn.requests || fnk.kind != FN_STDIO || !runner_start()) {
		if (!function_turn(&asleep))
			return;
	}
	runner_mind();
}

static int open_events(struct kernel *k, int channel)
{
	fn.kernel = k;
	fn.channel = channel;
	fn.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return fn.event < 0 ? -errno : 0;
}

int function_prepare(struct kernel *k, const struct vfs_ctx *ctx, struct fd_table *files,
		     unsigned int kind, unsigned int port, int channel)
{
	struct file *ours[3], *theirs[3];
	int err;

	err = open_events(k, channel);
	if (err)
		return err;
	fnk.kind = kind;
	if (kind != FN_STDIO) {
		err = streams_prepare(k, kind, port);
		if (err)
			return err;
	}
	for (int i = 0; i < 3; i++) {
		err = i ? pipe_create(NULL, 0, &ours[i], &theirs[i])
			: pipe_create(NULL, 0, &theirs[i], &ours[i]);
		if (!err)
			err = fd_replace(ctx, files, theirs[i], (unsigned int)i, false, 1024);
		if (err < 0)
			return err;
	}
	fnk.in = ours[0];
	fnk.out = ours[1];
	fnk.err = ours[2];
	pipe_on_empty(pipe_of(ours[0]), input_empty);
	return snapshot_prepare();
}

int function_serve(struct thread_group *init, uint64_t since)
{
	fnk.init = init;
	fn.since = since;
	kernel_all_ended = all_ended;
	if (kernel_start_process(fn.kernel, init)) {
		send_failed(EXIT_KVMSBOX, "can't start the program");
		return EXIT_KVMSBOX;
	}
	task_last_exit = last_exit;
	serve();
	return 0;
}

int function_restored(struct kernel *k, int channel, uint64_t since)
{
	int err = open_events(k, channel);

	if (err)
		return EXIT_KVMSBOX;
	fn.phase = READY;
	/* It would make an image of its own, with nothing shared. */
	fn.trainings = TRAININGS;
	task_last_exit = last_exit;
	if (send_ready(monotonic_ns() - since, NULL, 0))
		serve();
	return 0;
}
