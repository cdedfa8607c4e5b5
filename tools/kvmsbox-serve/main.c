/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox-serve: functions of many tenants over HTTP, each request in a sandbox. A program of its
 * own, because it needs libraries that kvmsbox doesn't; kvmsbox serve (tools/kvmsbox/serve.c) runs
 * it and says with KVMSBOX_SELF where it is itself.
 */
#include <errno.h>
#include <getopt.h>
#include <http_parser.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/kvmsbox-serve/client.h"
#include "tools/kvmsbox-serve/pool.h"
#include "tools/kvmsbox-serve/reload.h"

#define EXIT_SERVER 125
#define STOP_TICK   (20 * MSEC)

struct server server;
static struct watch signal_watch = {.fd = -1};
static struct timer stop_timer;
static uint64_t drain_until;

static int complain(const char *fmt, ...) __printf_fmt(1, 2);
static int complain(const char *fmt, ...)
{
	char message[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	dprintf(STDERR_FILENO, "kvmsbox: serve: %s\n", message);
	return EXIT_SERVER;
}

static void usage(void)
{
	printf("usage: kvmsbox serve [--check] --config FILE\n\n"
	       "Serves functions over HTTP, each request in a sandbox. docs/serve.md is the "
	       "reference of FILE.\n\n"
	       "  -c, --config FILE\n"
	       "      --check        say what is wrong with FILE and its manifests, and exit\n"
	       "  -h, --help\n\n"
	       "SIGTERM finishes what runs and ends; SIGHUP reads FILE, manifests and certificates "
	       "again.\n");
}

/* $NOTIFY_SOCKET, as sd_notify(3) says it. */
static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (!n || n >= sizeof(addr.sun_path))
		return;
	memcpy(addr.sun_path, path, n);
	if (path[0] == '@')
		addr.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
	close(fd);
}

/* First what runs ends, then the instances, then the loop. */
static void stop_step(struct timer *t)
{
	bool over = loop_now() >= drain_until;

	clients_close(false);
	pool_stop();
	if ((!server.running && !server.queued && !clients_busy()) || over) {
		clients_close(true);
		pool_stop();
		if (!server.processes) {
			loop_stop();
			return;
		}
	}
	timer_set(t, loop_now() + STOP_TICK);
}

static void begin_stop(void)
{
	if (server.stopping) {
		/* Asked again: now. */
		drain_until = loop_now();
		return;
	}
	log_say(LOG_INFO, "stopping", "%u requests run, %u wait", server.running, server.queued);
	notify("STOPPING=1");
	server.stopping = true;
	listeners_close();
	drain_until = loop_now() + server.config->timeouts.drain;
	stop_timer.fire = stop_step;
	timer_set(&stop_timer, loop_now());
}

static void got_signal(struct watch *w, uint32_t events)
{
	struct signalfd_siginfo si;
	struct buf errors = {0};

	while (read(w->fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo != SIGHUP) {
			begin_stop();
			continue;
		}
		notify("RELOADING=1");
		reload_config(&errors);
		buf_fini(&errors);
		notify("READY=1");
	}
}

static int watch_signals(void)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	signal_watch.ready = got_signal;
	return watch_add(&signal_watch, fd, EPOLLIN);
}

/* An instance takes four descriptors, a connection one. */
static void raise_limits(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

/* Where the program that makes sandboxes is: as configured, as kvmsbox said, or beside this one. */
static char *find_kvmsbox(const struct config *c)
{
	const char *self = getenv("KVMSBOX_SELF");
	char path[PATH_MAX], *slash;
	ssize_t n;

	if (c->kvmsbox)
		return strdup(c->kvmsbox);
	if (self && *self == '/')
		return strdup(self);
	n = readlink("/proc/self/exe", path, sizeof(path) - 16);
	if (n <= 0)
		return NULL;
	path[n] = 0;
	slash = strrchr(path, '/');
	strcpy(slash + 1, "kvmsbox");
	if (!access(path, X_OK))
		return strdup(path);
	/* PREFIX/libexec/kvmsbox/kvmsbox-serve */
	strcpy(slash + 1, "../../bin/kvmsbox");
	return access(path, X_OK) ? NULL : realpath(path, NULL);
}

static int print_errors(const struct buf *errors)
{
	const char *s = errors->len ? buf_data(errors) : "";

	for (size_t n; *s; s += n + (s[n] == '\n')) {
		n = strcspn(s, "\n");
		complain("%.*s", (int)n, s);
	}
	return EXIT_SERVER;
}

static int start(struct buf *errors)
{
	int err = loop_init();

	server.started = loop_now();
	if (!err)
		err = watch_signals();
	if (!err)
		err = pool_init();
	if (!err)
		err = reload_init();
	if (err) {
		buf_printf(errors, "%s\n", strerror(-err));
		return err;
	}
	return listeners_open(server.config, errors);
}

static int check(void)
{
	struct function *f;
	unsigned int functions = 0;

	if (loop_init() || reload_init())
		return complain("out of memory");
	list_for_each_entry (f, &server.functions, node)
		functions++;
	if (reload_problems()->len)
		return print_errors(reload_problems());
	printf("%s: %zu tenants, %u functions\n", server.config->path, server.config->ntenants,
	       functions);
	return 0;
}

static int serve(void)
{
	struct buf errors = {0};
	int err;

	raise_limits();
	err = start(&errors);
	buf_append(&errors, "", 1);
	if (err) {
		print_errors(&errors);
		buf_fini(&errors);
		server.stopping = true;
		listeners_close();
		pool_stop();
		return EXIT_SERVER;
	}
	buf_fini(&errors);
	log_say(LOG_INFO, "ready", "%s", server.config->path);
	notify("READY=1");
	loop_run();
	log_say(LOG_INFO, "stopped", "after %llu s",
		(unsigned long long)((loop_now() - server.started) / SEC));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"check", no_argument, NULL, 'k'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	struct buf errors = {0};
	const char *path = NULL;
	bool only_check = false;
	int opt;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "+:c:h", options, NULL)) != -1) {
		if (opt == 'h') {
			usage();
			return 0;
		}
		if (opt == ':' || opt == '?')
			return complain("%s %s: see kvmsbox serve --help",
					opt == ':' ? "no value for" : "unknown option",
					argv[optind - 1]);
		if (opt == 'c')
			path = optarg;
		else
			only_check = true;
	}
	if (optind < argc)
		return complain("unexpected argument \"%s\": see kvmsbox serve --help",
				argv[optind]);
	if (!path)
		return complain("no configuration: kvmsbox serve --config FILE");
	list_init(&server.tenants);
	list_init(&server.functions);
	list_init(&server.blanks);
	server.config = config_read(path, &errors);
	if (!server.config) {
		buf_append(&errors, "", 1);
		opt = print_errors(&errors);
		buf_fini(&errors);
		return opt;
	}
	http_parser_set_max_header_size((uint32_t)server.config->limits.header + 65536);
	if (log_open(only_check ? "/dev/null" : server.config->log_path, server.config->log_level))
		return complain("%s: %s", server.config->log_path, strerror(errno));
	if (only_check)
		return check();
	server.kvmsbox = find_kvmsbox(server.config);
	if (!server.kvmsbox)
		return complain("kvmsbox isn't where this program is: set \"kvmsbox\" in %s", path);
	return serve();
}
