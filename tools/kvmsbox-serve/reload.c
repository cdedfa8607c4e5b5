/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/reload.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "tools/kvmsbox-serve/client.h"
#include "tools/kvmsbox-serve/fields.h"

#define SETTLE	     (50 * MSEC) /* after a change, before looking */
#define MAX_MANIFEST (1 << 20)

static struct buf problems;
static struct watch inotify_watch = {.fd = -1};
static struct timer settle_timer;

const struct buf *reload_problems(void)
{
	return &problems;
}

/* Logs the lines of @new that @old hasn't. */
static void log_new_problems(const struct buf *new, const char *old)
{
	const char *s = new->len ? buf_data(new) : "", *end;
	char line[1024];

	for (; *s; s = end + 1) {
		end = strchr(s, '\n');
		if (!end)
			return;
		snprintf(line, sizeof(line), "%.*s", (int)(end - s), s);
		if (!strstr(old, line))
			log_say(LOG_ERROR, "manifest", "%s", line);
	}
}

static const struct function_config *in_config(const char *name)
{
	for (size_t k = 0; k < server.config->nfunctions; k++) {
		if (!strcmp(server.config->functions[k]->name, name))
			return server.config->functions[k];
	}
	return NULL;
}

/* Reads one manifest. A bad one leaves the function as it is. */
static void read_manifest(const char *path, const char *name)
{
	struct function_config *fc;
	size_t n;
	int error;
	char *text = file_read(path, MAX_MANIFEST, &n, &error);

	if (!text) {
		if (error != ENOENT)
			buf_printf(&problems, "%s: %s\n", path, strerror(error));
		return;
	}
	fc = function_config_parse(server.config, path, name, text, n, &problems);
	free(text);
	if (!fc)
		return;
	if (in_config(name)) {
		buf_printf(&problems,
			   "%s: /: the configuration has a function \"%s\": rename one\n", path,
			   name);
		function_config_put(fc);
	} else if (function_apply(fc)) {
		buf_printf(&problems, "%s: out of memory\n", path);
	}
}

static bool is_manifest(const char *file)
{
	size_t n = strlen(file);

	return file[0] != '.' && n > 5 && !strcmp(file + n - 5, ".json");
}

/* Functions whose manifest is no longer there go; those of POST /admin/functions stay. */
static void remove_missing(void)
{
	struct function *f, *tmp;

	list_for_each_entry_safe (f, tmp, &server.functions, node) {
		const char *source = f->config->source;
		bool from_config = !strcmp(source, server.config->path);

		if (f->gone || !strcmp(source, "admin") ||
		    (from_config ? in_config(f->config->name) != NULL : !access(source, F_OK)))
			continue;
		function_remove(f);
	}
}

static void read_manifests(void)
{
	const char *dir = server.config->manifests;
	char path[PATH_MAX], name[NAME_MAX + 1], *old;
	struct dirent *e;
	DIR *d;

	buf_append(&problems, "", 1);
	old = strdup(problems.failed ? "" : buf_data(&problems));
	buf_clear(&problems);
	problems.failed = false;
	d = dir ? opendir(dir) : NULL;
	if (dir && !d)
		buf_printf(&problems, "%s: %s\n", dir, strerror(errno));
	while (d && (e = readdir(d))) {
		if (!is_manifest(e->d_name))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		snprintf(name, sizeof(name), "%.*s", (int)(strlen(e->d_name) - 5), e->d_name);
		read_manifest(path, name);
	}
	if (d)
		closedir(d);
	remove_missing();
	if (problems.len) {
		buf_append(&problems, "", 1);
		problems.len--;
	}
	log_new_problems(&problems, old ?: "");
	free(old);
}

static void settled(struct timer *t)
{
	read_manifests();
}

static void directory_changed(struct watch *w, uint32_t events)
{
	char data[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

	while (read(w->fd, data, sizeof(data)) > 0)
		;
	timer_set(&settle_timer, loop_now() + SETTLE);
}

static int watch_manifests(void)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	if (inotify_add_watch(fd, server.config->manifests,
			      IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
				      IN_ONLYDIR) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	inotify_watch.ready = directory_changed;
	err = watch_add(&inotify_watch, fd, EPOLLIN);
	if (err)
		close(fd);
	return err;
}

static int apply_functions(const struct config *c)
{
	int err = tenants_apply(c);

	for (size_t k = 0; !err && k < c->nfunctions; k++)
		err = function_apply(function_config_get(c->functions[k]));
	if (!err)
		read_manifests();
	return err;
}

int reload_init(void)
{
	int err = apply_functions(server.config);

	settle_timer.fire = settled;
	if (err || !server.config->manifests)
		return err;
	return watch_manifests();
}

static bool same(const char *a, const char *b)
{
	return !strcmp(a ?: "", b ?: "");
}

/* What is in use of the old configuration goes on to the new one. */
static void keep_listeners(struct config *new, struct config *old)
{
	struct listen_config *listen = new->listen, admin = new->admin;
	char *manifests = new->manifests, *log_path = new->log_path;
	size_t n = new->nlisten;
	bool changed = n != old->nlisten || !same(admin.address, old->admin.address) ||
		       !same(new->manifests, old->manifests) || !same(new->log_path, old->log_path);

	for (size_t k = 0; !changed && k < n; k++)
		changed = !same(listen[k].address, old->listen[k].address) ||
			  !same(listen[k].cert, old->listen[k].cert);
	if (changed)
		log_say(LOG_WARN, "reload",
			"%s: listen, admin.listen, manifests and log.file change "
			"with a restart only",
			new->path);
	new->listen = old->listen;
	new->nlisten = old->nlisten;
	new->admin = old->admin;
	old->listen = listen;
	old->nlisten = n;
	old->admin = admin;
	new->manifests = old->manifests;
	new->log_path = old->log_path;
	old->manifests = manifests;
	old->log_path = log_path;
}

int reload_config(struct buf *errors)
{
	struct config *old = server.config, *new = config_read(old->path, errors);

	log_reopen();
	if (!new) {
		buf_append(errors, "", 1);
		log_new_problems(errors, "");
		return -EINVAL;
	}
	keep_listeners(new, old);
	server.config = new;
	if (listeners_reload_tls(errors)) {
		buf_append(errors, "", 1);
		log_new_problems(errors, "");
	}
	if (apply_functions(new))
		log_say(LOG_ERROR, "reload", "out of memory: some of it isn't applied");
	config_free(old);
	log_say(LOG_INFO, "reload", "%s has been read again", new->path);
	return 0;
}
