/* SPDX-License-Identifier: Apache-2.0 */
/* kvmsbox ps, logs, kill, wait, rm: looking after named sandboxes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "sentry/boot.h"
#include "sentry/control_msg.h"
#include "sentry/lib/world.h"
#include "tools/kvmsbox/kvmsbox.h"
#include "tools/kvmsbox/options.h"
#include "tools/kvmsbox/store.h"

#define ANSWER_MS 5000 /* how long a sandbox may take to answer */

/*
 * Parses options, wants between @min and @max names behind them, opens the store. Returns the index
 * of the first name; or -1 with *@status.
 */
static int begin(const struct verb *v, int argc, char **argv, int min, int max, struct options *o,
		 struct store *store, int *status)
{
	int at;

	options_init(o, v);
	at = options_parse(o, argc, argv, status);
	if (at < 0)
		return -1;
	if (argc - at < min)
		*status = complain("%s: no sandbox given: kvmsbox %s %s", v->name, v->name,
				   v->synopsis);
	else if (argc - at > max)
		*status = complain("%s: too many arguments: kvmsbox %s %s", v->name, v->name,
				   v->synopsis);
	else
		*status = store_open(store, v->name, o->state_dir, false);
	return *status ? -1 : at;
}

/* ---- ps ---- */

static const struct verb ps_verb = {
	.id = VERB_PS,
	.name = "ps",
	.synopsis = "[OPTIONS]",
	.about = "Lists named sandboxes: those that run, and what is left of others until kvmsbox "
		 "rm.\n",
};

static void format_time(char *buf, size_t size, double seconds)
{
	unsigned long s = seconds > 0 ? (unsigned long)seconds : 0;

	if (s < 60)
		snprintf(buf, size, "%lus", s);
	else if (s < 3600)
		snprintf(buf, size, "%lum%02lus", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, size, "%luh%02lum", s / 3600, s / 60 % 60);
	else
		snprintf(buf, size, "%lud%02luh", s / 86400, s / 3600 % 24);
}

static double up_seconds(const struct sandbox *sb)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9 - sb->created;
}

static const char *state_string(const struct sandbox *sb, const char *key)
{
	return json_string_value(json_object_get(sb->state, key)) ?: "?";
}

/* At most @width characters of what may hold anything, in a line. */
static void append(char *buf, size_t size, const char *s, size_t width)
{
	size_t n = strlen(buf), chars = 0;

	for (; *s && n + 2 < size && chars < width; s++) {
		if (((unsigned char)*s & 0xc0) != 0x80)
			chars++;
		buf[n++] = (unsigned char)*s < ' ' || *s == 127 ? '?' : *s;
	}
	buf[n] = 0;
}

enum { COL_NAME, COL_STATUS, COL_PID, COL_PLATFORM, COL_IMAGE, COL_COMMAND, COL_UP, NR_COLUMNS };

struct line {
	char cell[NR_COLUMNS][200];
};

static void make_line(const struct sandbox *sb, struct line *l)
{
	const char *image = state_string(sb, "image"), *slash = strrchr(image, '/');
	bool running = sb->status == SANDBOX_RUNNING;
	json_t *command = json_object_get(sb->state, "command"), *arg;
	size_t i;

	memset(l, 0, sizeof(*l));
	strcpy(l->cell[COL_NAME], sb->name);
	sandbox_status_text(sb, l->cell[COL_STATUS], sizeof(l->cell[0]));
	if (running && sb->pid)
		snprintf(l->cell[COL_PID], sizeof(l->cell[0]), "%d", sb->pid);
	else
		strcpy(l->cell[COL_PID], "-");
	append(l->cell[COL_PLATFORM], sizeof(l->cell[0]), state_string(sb, "platform"), 16);
	append(l->cell[COL_IMAGE], sizeof(l->cell[0]), slash && slash[1] ? slash + 1 : image, 32);
	json_array_foreach (command, i, arg) {
		if (i)
			append(l->cell[COL_COMMAND], sizeof(l->cell[0]), " ", 1);
		append(l->cell[COL_COMMAND], 48, json_string_value(arg) ?: "?", 47);
	}
	if (running && sb->created > 0)
		format_time(l->cell[COL_UP], sizeof(l->cell[0]), up_seconds(sb));
	else
		strcpy(l->cell[COL_UP], "-");
}

static int print_table(const struct sandbox *list, size_t n)
{
	struct line *lines = calloc(n + 1, sizeof(*lines));
	int width[NR_COLUMNS] = {0};

	if (!lines)
		return complain("out of memory");
	lines[0] = (struct line){{"NAME", "STATUS", "PID", "PLATFORM", "IMAGE", "COMMAND", "UP"}};
	for (size_t i = 0; i < n; i++)
		make_line(&list[i], &lines[i + 1]);
	for (size_t i = 0; i <= n; i++) {
		for (int c = 0; c < NR_COLUMNS; c++)
			width[c] = MAX(width[c], (int)strlen(lines[i].cell[c]));
	}
	for (size_t i = 0; i <= n; i++) {
		for (int c = 0; c < NR_COLUMNS - 1; c++)
			printf("%-*s  ", width[c], lines[i].cell[c]);
		printf("%s\n", lines[i].cell[NR_COLUMNS - 1]);
	}
	free(lines);
	return 0;
}

/* What one that runs says of itself, if it answers. */
static void add_status(json_t *o, const struct sandbox *sb)
{
	struct control_msg m = {.type = CONTROL_STATUS};
	char text[CONTROL_TEXT_MAX + 1];

	if (control_ask(sb, 500, &m, text) || m.type != CONTROL_STATUS_IS)
		return;
	json_object_set_new(o, "tasks", json_integer(m.status.tasks));
	json_object_set_new(o, "entered", json_integer(m.status.entered));
	json_object_set_new(o, "memory", json_integer((json_int_t)m.status.memory));
}

static json_t *to_json(const struct sandbox *sb)
{
	static const char *const names[] = {"running", "exited", "died"};
	json_t *o = json_deep_copy(sb->state);

	json_object_set_new(o, "name", json_string(sb->name));
	json_object_set_new(o, "status", json_string(names[sb->status]));
	json_object_set_new(o, "exit_status",
			    sb->status == SANDBOX_EXITED ? json_integer(sb->exit_status)
							 : json_null());
	json_object_set_new(o, "reason", sb->reason[0] ? json_string(sb->reason) : json_null());
	json_object_set_new(
		o, "up", sb->status == SANDBOX_RUNNING ? json_real(up_seconds(sb)) : json_null());
	if (sb->status == SANDBOX_RUNNING)
		add_status(o, sb);
	return o;
}

static int print_json(const struct sandbox *list, size_t n)
{
	json_t *a = json_array();
	int err;

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, to_json(&list[i]));
	err = json_dumpf(a, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
	json_decref(a);
	putchar('\n');
	return err ? complain("ps: out of memory") : 0;
}

int cmd_ps(int argc, char **argv)
{
	struct sandbox *list;
	struct store store;
	struct options o;
	int status, ret;
	size_t n;

	if (begin(&ps_verb, argc, argv, 0, 0, &o, &store, &status) < 0)
		return status;
	ret = store_list(&store, &list, &n);
	if (!ret)
		ret = o.json ? print_json(list, n) : print_table(list, n);
	for (size_t i = 0; i < n; i++)
		sandbox_close(&list[i]);
	free(list);
	return ret;
}

/* ---- logs ---- */

static const struct verb logs_verb = {
	.id = VERB_LOGS,
	.name = "logs",
	.synopsis = "[OPTIONS] NAME",
	.about = "Prints what the sandbox NAME, started with kvmsbox run -d, has written to its\n"
		 "standard output and error.\n",
};

/* Prints what there is. False: standard output doesn't want it. */
static bool copy_log(int fd)
{
	static __host_large char buf[65536];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t done = 0; done < n;) {
			ssize_t w = write(STDOUT_FILENO, buf + done, (size_t)(n - done));

			if (w < 0 && errno != EINTR)
				return false;
			done += MAX(w, 0);
		}
	}
	return true;
}

static int follow_log(const struct sandbox *sb, int fd)
{
	int events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	struct pollfd p = {.fd = events, .events = POLLIN};
	char path[64], skip[4096];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (events >= 0)
		inotify_add_watch(events, path, IN_MODIFY);
	for (;;) {
		/* In this order: what was written before the end is seen after it. */
		bool ended = sandbox_wait(sb, 0);

		if (!copy_log(fd))
			return complain("logs: can't write: %s", strerror(errno));
		if (ended)
			return 0;
		poll(&p, 1, 200);
		while (events >= 0 && read(events, skip, sizeof(skip)) > 0)
			;
	}
}

int cmd_logs(int argc, char **argv)
{
	struct store store;
	struct sandbox sb;
	struct options o;
	int at, status, fd;

	at = begin(&logs_verb, argc, argv, 1, 1, &o, &store, &status);
	if (at < 0)
		return status;
	status = store_find(&store, argv[at], &sb);
	if (status)
		return status;
	fd = openat(sb.dir, "log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		status = complain("logs: %s has no log: %s", sb.name, strerror(errno));
	else if (o.follow)
		status = follow_log(&sb, fd);
	else if (!copy_log(fd))
		status = complain("logs: can't write: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	sandbox_close(&sb);
	return status;
}

/* ---- kill ---- */

static const struct verb kill_verb = {
	.id = VERB_KILL,
	.name = "kill",
	.synopsis = "[OPTIONS] NAME…",
	.about = "Sends a signal to the first process of each sandbox NAME. When that ends, "
		 "everything\n"
		 "in the sandbox does.\n",
};

/* Signals init. 0, or -errno; -ESRCH: it has ended. */
static int signal_init(const struct sandbox *sb, int signo, int ms)
{
	struct control_msg m = {
		.type = CONTROL_SIGNAL, .flags = CONTROL_TO_INIT, .signal.signo = signo};
	char text[CONTROL_TEXT_MAX + 1];
	int err = control_ask(sb, ms, &m, text);

	if (err == -ECONNREFUSED || err == -EPIPE)
		return -ESRCH;
	if (!err && m.type != CONTROL_OK)
		err = m.type == CONTROL_FAILED ? -ESRCH : -EPROTO;
	return err;
}

static int kill_one(struct store *store, const char *name, int signo)
{
	struct sandbox sb;
	char text[32];
	int ret = store_find(store, name, &sb), err;

	if (ret)
		return ret;
	err = sb.status == SANDBOX_RUNNING ? signal_init(&sb, signo, ANSWER_MS) : -ESRCH;
	if (err == -ESRCH)
		ret = complain("kill: sandbox %s is not running: %s", name,
			       sb.status == SANDBOX_RUNNING
				       ? "it has just ended"
				       : sandbox_status_text(&sb, text, sizeof(text)));
	else if (err)
		ret = complain("kill: sandbox %s doesn't answer: %s: kvmsbox rm -f %s removes it",
			       name, strerror(-err), name);
	sandbox_close(&sb);
	return ret;
}

int cmd_kill(int argc, char **argv)
{
	struct store store;
	struct options o;
	int at, status;

	at = begin(&kill_verb, argc, argv, 1, argc, &o, &store, &status);
	for (; at >= 0 && at < argc; at++) {
		int ret = kill_one(&store, argv[at], o.signo ? o.signo : SIGTERM);

		if (ret)
			status = ret;
	}
	return status;
}

/* ---- wait ---- */

static const struct verb wait_verb = {
	.id = VERB_WAIT,
	.name = "wait",
	.synopsis = "[OPTIONS] NAME",
	.about = "Waits until the sandbox NAME has ended, prints its exit status, and exits with "
		 "it.\n",
};

int cmd_wait(int argc, char **argv)
{
	struct store store;
	struct sandbox sb;
	struct options o;
	int at, status, fd;

	at = begin(&wait_verb, argc, argv, 1, 1, &o, &store, &status);
	if (at < 0)
		return status;
	status = store_find(&store, argv[at], &sb);
	if (status)
		return status;
	/* Open before the end: who removes the sandbox right after it doesn't hide how it ended. */
	fd = openat(sb.dir, "exit", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	sandbox_wait(&sb, -1);
	sandbox_read_exit(&sb, fd);
	if (sb.status == SANDBOX_EXITED) {
		printf("%d\n", sb.exit_status);
		status = sb.exit_status;
	} else {
		status = complain("wait: sandbox %s died: %s", sb.name, sb.reason);
	}
	if (fd >= 0)
		close(fd);
	sandbox_close(&sb);
	return status;
}

/* ---- rm ---- */

static const struct verb rm_verb = {
	.id = VERB_RM,
	.name = "rm",
	.synopsis = "[OPTIONS] NAME…",
	.about = "Removes what is left of sandboxes that have ended: log and exit status. The name "
		 "is\n"
		 "free then.\n",
};

/* By its init, which leaves a terminal in order; if that takes too long, by its process. */
static bool end(const struct sandbox *sb)
{
	if (!signal_init(sb, SIGKILL, 1000) && sandbox_wait(sb, 3000))
		return true;
	if (sandbox_wait(sb, 0))
		return true;
	return !sandbox_kill(sb) && sandbox_wait(sb, ANSWER_MS);
}

static int rm_one(struct store *store, const char *name, bool force)
{
	struct sandbox sb;
	int ret = store_find(store, name, &sb), err;

	if (ret)
		return ret;
	if (sb.status == SANDBOX_RUNNING && !force)
		err = -EBUSY;
	else if (sb.status == SANDBOX_RUNNING && !end(&sb))
		err = -ETIMEDOUT;
	else
		err = store_remove(store, &sb, false);
	if (err == -EBUSY)
		ret = complain("rm: sandbox %s is running: kvmsbox kill %s first, or rm -f", name,
			       name);
	else if (err == -ETIMEDOUT)
		ret = complain("rm: can't end sandbox %s, process %d", name, sb.pid);
	else if (err && err != -ENOENT)
		ret = complain("rm: %s/%s: %s", store->path, name, strerror(-err));
	sandbox_close(&sb);
	return ret;
}

int cmd_rm(int argc, char **argv)
{
	struct store store;
	struct options o;
	int at, status;

	at = begin(&rm_verb, argc, argv, 1, argc, &o, &store, &status);
	for (; at >= 0 && at < argc; at++) {
		int ret = rm_one(&store, argv[at], o.force);

		if (ret)
			status = ret;
	}
	return status;
}
