/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entering a running sandbox, process creation's second caller: launch() with everything failing in
 * turn, the control thread with a client at the other end of its socket, and the messages' parser.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "sentry/boot.h"
#include "sentry/config.h"
#include "sentry/console.h"
#include "sentry/control.h"
#include "sentry/control_msg.h"
#include "sentry/launch.h"
#include "test/unit/process_support.h"

static struct world w;

/* ---- the parser ---- */

/* What control_parse says of a packet of @n bytes with @nfds descriptors; 0: fine. */
static int parse(const struct control_msg *m, size_t n, size_t nfds)
{
	struct control_msg out;
	uint8_t *copy = malloc(n ? n : 1);
	char why[256] = "";
	int err;

	/* The copy's end is where ASan watches. */
	memset(copy, 0, n);
	memcpy(copy, m, MIN(n, sizeof(*m)));
	err = control_parse(copy, n, nfds, &out, why, sizeof(why));
	free(copy);
	if (err && (!why[0] || strchr(why, '\n')))
		return -EIO;
	return err;
}

static void test_parse(void)
{
	const size_t n = sizeof(struct control_msg);
	struct control_msg m = {.version = CONTROL_VERSION, .type = CONTROL_STATUS};
	bool all = true;

	CHECK_EQ("parse: a good one", parse(&m, n, 0), 0);
	for (size_t i = 0; i < n; i++)
		all = all && parse(&m, i, 0) == -EINVAL;
	CHECK("parse: every shorter one is refused", all);
	CHECK_EQ("parse: a longer one", parse(&m, n + 1, 0), -EINVAL);
	CHECK_EQ("parse: descriptors that don't belong", parse(&m, n, 1), -EINVAL);
	m.version = CONTROL_VERSION + 1;
	CHECK_EQ("parse: another version", parse(&m, n, 0), -EINVAL);
	m.version = 0;
	CHECK_EQ("parse: no version", parse(&m, n, 0), -EINVAL);
	m = (struct control_msg){.version = CONTROL_VERSION};
	all = true;
	for (uint32_t type = 0; type < 300; type++) {
		bool known = type >= CONTROL_ENTER && type <= CONTROL_SNAPSHOT;

		m.type = type;
		m.signal.signo = 15;
		all = all && !parse(&m, n, type == CONTROL_ENTER) == known;
	}
	CHECK("parse: requests that exist, no others, no replies", all);
	m.type = CONTROL_STATUS;
	m.len = 1;
	CHECK_EQ("parse: text that isn't there", parse(&m, n, 0), -EINVAL);
	CHECK_EQ("parse: text that is", parse(&m, n + 1, 0), -EINVAL);
	m.len = 0;
	m.flags = CONTROL_TO_INIT;
	CHECK_EQ("parse: a flag of another request", parse(&m, n, 0), -EINVAL);
	m.type = CONTROL_SIGNAL;
	m.signal.signo = 64;
	CHECK_EQ("parse: a signal", parse(&m, n, 0), 0);
	m.flags |= CONTROL_TO_GROUP;
	CHECK_EQ("parse: to a group", parse(&m, n, 0), 0);
	m.flags |= 4;
	CHECK_EQ("parse: an unknown flag", parse(&m, n, 0), -EINVAL);
	m.flags = 0;
	m.signal.signo = 65;
	CHECK_EQ("parse: no signal", parse(&m, n, 0), -EINVAL);
	m.signal.signo = 0;
	CHECK_EQ("parse: signal 0", parse(&m, n, 0), -EINVAL);
	m.signal.signo = -9;
	CHECK_EQ("parse: signal -9", parse(&m, n, 0), -EINVAL);
	m = (struct control_msg){.version = CONTROL_VERSION, .type = CONTROL_ENTER};
	CHECK_EQ("parse: no tree", parse(&m, n, 1), -EINVAL);
	m.enter.tree_size = CONFIG_MAX_SIZE;
	CHECK_EQ("parse: the largest", parse(&m, n, 1), 0);
	CHECK_EQ("parse: with all descriptors", parse(&m, n, CONTROL_MAX_FDS), 0);
	CHECK_EQ("parse: with one more", parse(&m, n, CONTROL_MAX_FDS + 1), -EINVAL);
	CHECK_EQ("parse: with none", parse(&m, n, 0), -EINVAL);
	m.enter.tree_size++;
	CHECK_EQ("parse: one larger", parse(&m, n, 1), -EINVAL);
}

/* ---- launch() ---- */

static char *args_prog[] = {(char *)(uintptr_t) "prog", (char *)(uintptr_t) "one", NULL};
static char *envp_one[] = {(char *)(uintptr_t) "PATH=/bin", NULL};

static struct config command(void)
{
	return (struct config){.args = args_prog, .env = envp_one, .umask = 022, .strace_fd = -1};
}

/* Ends of relays come a little later. */
static bool counts_settle(const struct counts *before)
{
	for (int i = 0; i < 500; i++) {
		struct counts now = counts_now(&w);

		if (now.host_fds == before->host_fds && now.live.bytes == before->live.bytes)
			break;
		poll(NULL, 0, 10);
	}
	return counts_same(&w, before);
}

/* Launches @c with descriptors of /dev/null; what comes of it is ended. Its status, 0: it worked. */
static int try_launch(const struct config *c, char error[640])
{
	int stdio[3], status = 0;
	struct launched l;

	for (int i = 0; i < 3; i++)
		stdio[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (launch(w.k, &w.env.ctx, c, stdio, &l)) {
		status = l.status ? l.status : -1;
		if (l.tg || l.console || !l.error[0] || strchr(l.error, '\n'))
			status = -2;
	} else {
		drop_process(&w, l.tg);
		console_put(l.console);
	}
	memcpy(error, l.error, sizeof(l.error));
	return status;
}

static void launch_fails(const char *name, const struct config *c, int want)
{
	struct counts before = counts_now(&w);
	char error[640];

	CHECK_EQ(name, try_launch(c, error), want);
	CHECK(name, counts_settle(&before));
}

static long step_fail_at(long n)
{
	return atomic_exchange(&kernel_fail_step, (int)n);
}

/* Every step and allocation failing in turn. */
static void inject(const char *name, const struct config *c, long (*fail_at)(long n))
{
	struct counts before;
	bool clean = true, right = true;
	int failed = 0;
	char error[640];

	try_launch(c, error);
	poll(NULL, 0, 100);
	before = counts_now(&w);
	for (long n = 1; n < 2000; n++) {
		bool reached;
		int status;

		fail_at(n);
		status = try_launch(c, error);
		reached = fail_at(0) <= 0;
		if (status)
			failed++;
		if (status && status != EXIT_KVMSBOX && status != EXIT_CANT_EXEC) {
			printf("# %s %ld: status %d, %s\n", name, n, status, error);
			right = false;
		}
		if (!counts_settle(&before)) {
			printf("# %s: after %ld (status %d)\n", name, n, status);
			clean = false;
			before = counts_now(&w);
		}
		if (!reached)
			break;
	}
	CHECK(name, failed > 3);
	CHECK("launch: every failure leaves all counts as they were", clean);
	CHECK("launch: with a status and a line", right);
}

static void test_launch(void)
{
	static char *missing[] = {(char *)(uintptr_t) "nosuch", NULL};
	static char *text[] = {(char *)(uintptr_t) "/work/text", NULL};
	static char *none[] = {NULL};
	struct config c = command();

	world_open_init(&w);
	xmount(&w, "devpts", NULL, "/dev/pts");
	{
		/* What is made once: the table of descriptors, the first terminal's inodes. */
		char error[640];

		try_launch(&c, error);
		c.terminal = true;
		try_launch(&c, error);
		poll(NULL, 0, 200);
	}
	c = command();
	launch_fails("launch: succeeds", &c, 0);
	c.terminal = true;
	launch_fails("launch: with a terminal", &c, 0);
	c.args = missing;
	launch_fails("launch: a terminal for nothing", &c, EXIT_NOT_FOUND);
	c = command();
	c.args = missing;
	launch_fails("launch: not found", &c, EXIT_NOT_FOUND);
	c.args = text;
	launch_fails("launch: no program", &c, EXIT_CANT_EXEC);
	c.args = none;
	launch_fails("launch: nothing", &c, EXIT_KVMSBOX);
	c = command();
	c.cwd = "/no/such";
	launch_fails("launch: no directory", &c, EXIT_KVMSBOX);
	c = command();
	c.user = "nobody:nogroup";
	launch_fails("launch: no user", &c, EXIT_KVMSBOX);
	c = command();
	inject("launch: steps", &c, step_fail_at);
	inject("launch: allocations", &c, arena_fail_at);
	c.terminal = true;
	inject("launch: steps, with a terminal", &c, step_fail_at);
	inject("launch: allocations, with a terminal", &c, arena_fail_at);
	world_close(&w);
}

/* ---- the control thread ---- */

static struct config init_config;

static int listen_somewhere(struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* An abstract name, made up by the host. */
	*sun = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (fd < 0 || bind(fd, (struct sockaddr *)sun, sizeof(sa_family_t)) || listen(fd, 16))
		exit(1);
	return fd;
}

static socklen_t sun_len = sizeof(struct sockaddr_un);

static void control_open(struct sockaddr_un *sun)
{
	int fd = listen_somewhere(sun);

	sun_len = sizeof(*sun);
	getsockname(fd, (struct sockaddr *)sun, &sun_len);
	init_config = command();
	init_config.control_fd = fd;
	CHECK_EQ("control: starts", control_start(w.k, &init_config), 0);
}

static int dial(const struct sockaddr_un *sun)
{
	struct timeval tv = {.tv_sec = 10};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	if (connect(fd, (const struct sockaddr *)sun, sun_len))
		exit(1);
	return fd;
}

/* Sends and closes @fds. */
static void send_msg(int sock, struct control_msg *m, int *fds, size_t n)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(8 * sizeof(int))];
	} anc;
	struct iovec iov = {.iov_base = m, .iov_len = sizeof(*m)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	m->version = CONTROL_VERSION;
	if (n) {
		struct cmsghdr *cm;

		msg.msg_control = anc.buf;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		cm = CMSG_FIRSTHDR(&msg);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(cm), fds, n * sizeof(int));
	}
	sendmsg(sock, &msg, MSG_NOSIGNAL);
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

static uint32_t receive(int sock, struct control_msg *m)
{
	char buf[sizeof(*m) + CONTROL_TEXT_MAX];
	ssize_t n = recv(sock, buf, sizeof(buf), 0);

	if (n < (ssize_t)sizeof(*m))
		return 0;
	memcpy(m, buf, sizeof(*m));
	return m->type;
}

/* Asks to enter with @c. The reply's type. */
static uint32_t enter(int sock, struct config *c, struct control_msg *reply)
{
	struct control_msg m = {.type = CONTROL_ENTER};
	int fds[4];
	size_t size;
	void *blob;

	for (int i = 0; i < 3; i++) {
		c->stdio[i] = i;
		fds[i + 1] = open("/dev/null", O_RDWR | O_CLOEXEC);
	}
	if (sandbox_config_write(c, &blob, &size))
		exit(1);
	fds[0] = sandbox_config_memfd(blob, size);
	free(blob);
	m.enter.tree_size = (uint32_t)size;
	send_msg(sock, &m, fds, 4);
	return receive(sock, reply);
}

static uint32_t ask(int sock, uint32_t type, uint32_t flags, int signo, struct control_msg *m)
{
	*m = (struct control_msg){.type = type, .flags = flags};
	if (signo)
		m->signal.signo = signo;
	send_msg(sock, m, NULL, 0);
	return receive(sock, m);
}

/* Every process creation's step failing, by way of the control thread. */
static void control_injected(const struct sockaddr_un *sun, long (*fail_at)(long n),
			     const char *name)
{
	struct counts before = counts_now(&w);
	bool clean = true, answered = true;
	struct config c = command();
	int failed = 0;

	for (long n = 1; n < 2000; n++) {
		struct control_msg m;
		bool reached;
		uint32_t type;
		int sock = dial(sun);

		/* The client exists before what it asks for fails. */
		ask(sock, CONTROL_STATUS, 0, 0, &m);
		fail_at(n);
		type = enter(sock, &c, &m);
		if (type == CONTROL_ENTERED)
			type = receive(sock, &m);
		reached = fail_at(0) <= 0;
		failed += type == CONTROL_FAILED;
		answered = answered && (type == CONTROL_FAILED || type == CONTROL_EXITED);
		close(sock);
		if (!counts_settle(&before)) {
			printf("# %s: after %ld\n", name, n);
			clean = false;
			before = counts_now(&w);
		}
		if (!reached)
			break;
	}
	CHECK(name, failed > 3);
	CHECK("control: every failure leaves all counts as they were", clean);
	CHECK("control: and is answered", answered);
}

static void test_control(void)
{
	struct create_process_args a;
	struct config c = command();
	struct sockaddr_un sun;
	struct control_msg m;
	struct counts before;
	int sock, sock2;

	world_open_init(&w);
	xmount(&w, "devpts", NULL, "/dev/pts");
	control_open(&sun);
	fake.user_code = user_exits;
	sock = dial(&sun);
	CHECK_EQ("control: a command enters", enter(sock, &c, &m), CONTROL_ENTERED);
	CHECK("control: with an ID", m.entered.pid > 1);
	CHECK_EQ("control: and ends", receive(sock, &m), CONTROL_EXITED);
	CHECK_EQ("control: with its status", m.exited.status, 7);
	CHECK_EQ("control: the connection with it", receive(sock, &m), 0);
	close(sock);
	c.terminal = true;
	sock = dial(&sun);
	CHECK_EQ("control: a terminal", enter(sock, &c, &m), CONTROL_ENTERED);
	CHECK_EQ("control: ends, too", receive(sock, &m), CONTROL_EXITED);
	close(sock);
	c.terminal = false;
	poll(NULL, 0, 200);

	/* Commands that wait to be interrupted. */
	fake.user_code = NULL;
	before = counts_now(&w);
	sock = dial(&sun);
	sock2 = dial(&sun);
	CHECK_EQ("control: one", enter(sock, &c, &m), CONTROL_ENTERED);
	CHECK_EQ("control: two", enter(sock2, &c, &m), CONTROL_ENTERED);
	CHECK_EQ("control: a second on one connection", enter(sock, &c, &m), CONTROL_FAILED);
	CHECK_EQ("control: status", ask(sock, CONTROL_STATUS, 0, 0, &m), CONTROL_STATUS_IS);
	CHECK_EQ("control: commands", m.status.entered, 2);
	CHECK_EQ("control: tasks", m.status.tasks, 3);
	CHECK_EQ("control: no terminal to resize", ask(sock, CONTROL_RESIZE, 0, 0, &m),
		 CONTROL_FAILED);
	CHECK_EQ("control: a signal", ask(sock, CONTROL_SIGNAL, 0, SIGTERM, &m), CONTROL_OK);
	CHECK_EQ("control: ends the first", receive(sock, &m), CONTROL_EXITED);
	CHECK_EQ("control: by that signal", m.exited.status, 128 + SIGTERM);
	close(sock);
	close(sock2);
	CHECK("control: the second by its client's end", counts_settle(&before));
	sock = dial(&sun);
	CHECK_EQ("control: no command to signal", ask(sock, CONTROL_SIGNAL, 0, SIGTERM, &m),
		 CONTROL_FAILED);
	CHECK_EQ("control: a group", enter(sock, &c, &m), CONTROL_ENTERED);
	CHECK_EQ("control: is signalled", ask(sock, CONTROL_SIGNAL, CONTROL_TO_GROUP, SIGINT, &m),
		 CONTROL_OK);
	CHECK_EQ("control: and ends", receive(sock, &m), CONTROL_EXITED);
	close(sock);
	CHECK("control: nothing is left", counts_settle(&before));

	fake.user_code = user_exits;
	control_injected(&sun, step_fail_at, "control: steps");
	control_injected(&sun, arena_fail_at, "control: allocations");
	fake.user_code = NULL;

	/* The end of the sandbox: who waits is told. */
	sock = dial(&sun);
	CHECK_EQ("control: one more", enter(sock, &c, &m), CONTROL_ENTERED);
	drop_process(&w, w.init);
	w.init = NULL;
	kernel_wait(w.k);
	control_finish();
	CHECK_EQ("control: the sandbox's end", receive(sock, &m), CONTROL_EXITED);
	CHECK_EQ("control: is SIGKILL", m.exited.status, 128 + SIGKILL);
	close(sock);
	a = world_args(&w);
	CHECK_EQ("control: nobody enters any more", failing(&w, &a), -ESRCH);
	control_finish();
	world_close(&w);
}

static void tests(void)
{
	test_parse();
	test_launch();
	test_control();
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	return process_test_main(tests);
}
