/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Columns: where rows run. One entry of the table per way to run kvmsbox (a name, options of
 * `kvmsbox exec`, environment), one per other sandbox; a new one is one line here, or --column on
 * the command line. A column that can't run `true` on this machine leaves by itself and says why.
 *
 * Each kind has an adapter that writes its command line. Sandboxes get the same root tree, a fresh
 * /tmp in memory, /proc, and no network.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define KVM_COLUMN(column, ...)                                                                    \
	.name = column, .kind = COL_KVMSBOX, .words = {"--platform", "kvm", ##__VA_ARGS__},        \
	.exits = "kvm exits: "

/* clang-format off */
static const struct column table[] = {
	{.name = "native", .kind = COL_NATIVE},
	{KVM_COLUMN("kvm")},
	{KVM_COLUMN("kvm-nopoll", "--poll", "off"), .extra = true},
	{KVM_COLUMN("kvm-norewrite", "--no-rewrite"), .extra = true},
	{KVM_COLUMN("kvm-plain", "--poll", "off", "--no-rewrite")},
	{.name = "systrap", .kind = COL_KVMSBOX, .words = {"--platform", "systrap"},
	 .exits = "systrap enters: "},
	{.name = "systrap-plain", .kind = COL_KVMSBOX,
	 .words = {"--platform", "systrap", "--poll", "off", "--no-rewrite"},
	 .exits = "systrap enters: "},
	{.name = "ptrace", .kind = COL_KVMSBOX, .words = {"--platform", "ptrace"},
	 .exits = "ptrace enters: "},
	{.name = "bwrap", .kind = COL_BWRAP, .binary = "bwrap"},
	{.name = "crun", .kind = COL_CRUN, .binary = "crun"},
	{.name = "proot", .kind = COL_PROOT, .binary = "proot"},
	{.name = "runsc", .kind = COL_RUNSC, .binary = "runsc"},
};
/* clang-format on */

static char *in_path(const char *name)
{
	const char *path = getenv("PATH"), *p, *colon;
	char *full;

	if (strchr(name, '/'))
		return realpath(name, NULL);
	for (p = path ? path : "/usr/bin:/bin"; *p; p = *colon ? colon + 1 : colon) {
		colon = strchrnul(p, ':');
		full = format("%.*s/%s", (int)(colon - p), p, name);
		if (!access(full, X_OK))
			return full;
		free(full);
	}
	return NULL;
}

void columns_init(struct bench *b)
{
	size_t i;

	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct column *c = &b->columns[b->nr_columns++];

		*c = table[i];
		if (c->kind == COL_KVMSBOX)
			c->binary = b->kvmsbox;
		if (!c->binary) {
			c->usable = true;
			continue;
		}
		c->path = in_path(c->binary);
		if (!c->path)
			snprintf(c->why, sizeof(c->why), "%s is not installed", c->binary);
		c->usable = c->path;
	}
}

/* NAME=[VAR=VALUE…] [@PROGRAM] [OPTION…]: options of `kvmsbox exec`, split at blanks. */
void column_add(struct bench *b, const char *spec)
{
	char *copy = strdup(spec), *words, *w, *save = NULL;
	int nr_env = 0, nr_words = 0;
	struct column *c;

	words = copy ? strchr(copy, '=') : NULL;
	if (!words || words == copy)
		die("--column wants NAME=OPTIONS, not '%s'", spec);
	*words++ = 0;
	if (column_find(b, copy))
		die("there is a column %s already", copy);
	if (b->nr_columns == MAX_COLUMNS)
		die("too many columns: at most %d", MAX_COLUMNS);
	c = &b->columns[b->nr_columns++];
	*c = (struct column){.name = copy, .kind = COL_KVMSBOX, .binary = b->kvmsbox};
	c->exits = strstr(words, "ptrace")    ? "ptrace enters: "
		   : strstr(words, "systrap") ? "systrap enters: "
					      : "kvm exits: ";
	for (w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		if (nr_env == MAX_WORDS - 1 || nr_words == MAX_WORDS - 1)
			die("--column %s: too many words", c->name);
		if (*w == '@')
			c->binary = w + 1;
		else if (*w != '-' && !nr_words && strchr(w, '='))
			c->env[nr_env++] = w;
		else
			c->words[nr_words++] = w;
	}
	c->path = in_path(c->binary);
	c->usable = c->path;
	if (!c->path)
		die("--column %s: there is no %s", c->name, c->binary);
}

struct column *column_find(struct bench *b, const char *name)
{
	int i;

	for (i = 0; i < b->nr_columns; i++) {
		if (!strcmp(b->columns[i].name, name))
			return &b->columns[i];
	}
	return NULL;
}

void columns_select(struct bench *b, const char *list)
{
	char *copy = strdup(list ? list : ""), *w, *save = NULL;
	bool keep[MAX_COLUMNS] = {false};
	struct column *c;
	int i, n = 0;

	for (w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		if (!strcmp(w, "all")) {
			memset(keep, 1, sizeof(keep));
			continue;
		}
		c = column_find(b, w);
		if (!c)
			die("no column %s (--list shows them)", w);
		if (!c->usable)
			die("column %s can't be used: %s", w, c->why);
		keep[c - b->columns] = true;
	}
	for (i = 0; i < b->nr_columns; i++) {
		if (keep[i] || (!list && !b->columns[i].extra))
			b->columns[n++] = b->columns[i];
	}
	b->nr_columns = n;
	free(copy);
	if (!n)
		die("no columns selected");
}

/* The bundle that OCI runtimes read, written anew for each command. Returns its directory. */
static const char *oci_bundle(struct bench *b, const struct launch *l)
{
	static char dir[512];
	static const char *const spaces[] = {"pid", "ipc", "uts", "mount", "network"};
	json_t *args = json_array(), *ns = json_array(), *mounts, *config;
	char path[600];
	size_t i;

	snprintf(dir, sizeof(dir), "%s/bundle", b->scratch);
	snprintf(path, sizeof(path), "%s/config.json", dir);
	mkdir(dir, 0700);
	for (i = 0; l->argv[i]; i++)
		json_array_append_new(args, json_string(l->argv[i]));
	for (i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		json_array_append_new(ns, json_pack("{ss}", "type", spaces[i]));
	mounts = json_pack("[{ssssss},{ssssss},{ssssss}]", "destination", "/proc", "type", "proc",
			   "source", "proc", "destination", "/dev", "type", "tmpfs", "source",
			   "tmpfs", "destination", "/tmp", "type", "tmpfs", "source", "tmpfs");
	if (l->image == IMAGE_APPS)
		json_array_append_new(mounts, json_pack("{ssssss s[ss]}", "destination", "/mnt",
							"type", "bind", "source", b->work,
							"options", "rbind", "rw"));
	config = json_pack("{ss s{sb s{sisi} so s[ss] ss} s{sssb} ss so s{so}}", "ociVersion",
			   "1.0.0", "process", "terminal", 0, "user", "uid", 0, "gid", 0, "args",
			   args, "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
			   "cwd", "/", "root", "path", b->tree[l->image], "readonly", 0, "hostname",
			   "bench", "mounts", mounts, "linux", "namespaces", ns);
	if (!config || json_dump_file(config, path, 0))
		die("can't write %s", path);
	json_decref(config);
	return dir;
}

char *const *column_env(const struct column *c)
{
	static char *env[256];
	int e = 0, i;

	for (i = 0; c->env[i]; i++)
		env[e++] = (char *)c->env[i];
	for (i = 0; environ[i] && e < 250; i++) {
		if (strncmp(environ[i], "LC_ALL=", 7) && strncmp(environ[i], "PATH=", 5))
			env[e++] = environ[i];
	}
	env[e++] = (char *)"LC_ALL=C.UTF-8";
	env[e++] = (char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	env[e] = NULL;
	return env;
}

#define ADD(...)                                                                                   \
	do {                                                                                       \
		const char *const add_words[] = {__VA_ARGS__};                                     \
		size_t add_i;                                                                      \
                                                                                                   \
		for (add_i = 0; add_i < sizeof(add_words) / sizeof(add_words[0]); add_i++)         \
			argv[n++] = add_words[add_i];                                              \
	} while (0)

int column_argv(struct bench *b, const struct launch *l, const char **argv, char *const **envp)
{
	static char bind[600], id[64], state[600], programs[MAX_ARGS][300];
	const struct column *c = l->col;
	const char *tree = b->tree[l->image];
	bool apps = l->image == IMAGE_APPS;
	static unsigned int serial;
	int n = 0, i;

	if (!tree)
		return bench_fail(b, "%s", b->apps_why ? b->apps_why : "no image");
	if (c->path)
		argv[n++] = c->path;
	switch (c->kind) {
	case COL_NATIVE:
		if (apps && !b->native_root[IMAGE_APPS])
			return bench_fail(b, "needs root for its chroot");
		break;
	case COL_KVMSBOX:
		ADD("exec", "--cache", b->cache[l->image]);
		for (i = 0; c->words[i]; i++)
			argv[n++] = c->words[i];
		if (l->stats)
			argv[n++] = "--stats";
		if (apps) {
			snprintf(bind, sizeof(bind), "%s:/mnt", b->work);
			ADD("-v", bind, "-e", "LC_ALL=C.UTF-8");
		}
		ADD(b->image[l->image], "--");
		break;
	case COL_BWRAP:
		ADD("--bind", tree, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
		    "--unshare-all", "--die-with-parent");
		if (apps)
			ADD("--bind", b->work, "/mnt");
		argv[n++] = "--";
		break;
	case COL_PROOT:
		snprintf(state, sizeof(state), "%s:/tmp", b->shm);
		ADD("-0", "-r", tree, "-b", "/proc", "-b", "/dev", "-b", state);
		if (apps) {
			snprintf(bind, sizeof(bind), "%s:/mnt", b->work);
			ADD("-b", bind);
		}
		ADD("-w", "/");
		break;
	case COL_CRUN:
	case COL_RUNSC:
		snprintf(id, sizeof(id), "bench-%d-%u", getpid(), serial++);
		snprintf(state, sizeof(state), c->kind == COL_CRUN ? "%s/crun" : "--root=%s/runsc",
			 b->scratch);
		if (c->kind == COL_CRUN)
			ADD("--cgroup-manager=disabled", "--root", state, "run", "--bundle");
		else
			ADD(state, "--network=none", "--ignore-cgroups", "run", "--bundle");
		ADD(oci_bundle(b, l), id);
		break;
	}
	if (c->kind != COL_CRUN && c->kind != COL_RUNSC) {
		for (i = 0; l->argv[i]; i++)
			argv[n++] = l->argv[i];
	}
	/* Programs of the small image are named by their place in it, unless that is the root. */
	for (i = 0; c->kind == COL_NATIVE && !b->native_root[l->image] && i < n; i++) {
		if (!strncmp(argv[i], "/bench/", 7)) {
			snprintf(programs[i], sizeof(programs[i]), "%s%s", tree, argv[i]);
			argv[i] = programs[i];
		}
	}
	argv[n] = NULL;
	*envp = column_env(c);
	return 0;
}

static int probe(struct bench *b, struct column *c)
{
	struct launch l = {.col = c, .image = IMAGE_SMALL, .argv = {"/bench/true"}};
	struct outcome o;

	return launch_check(b, &l, &o);
}

static void ask_version(struct column *c)
{
	const char *argv[] = {c->path, c->kind == COL_KVMSBOX ? "doctor" : "--version", NULL};
	char out[4096], *line, *p;
	int i;

	if (!c->path || host_run(argv, out, sizeof(out)) < 0)
		return;
	for (line = strtok_r(out, "\n", &p); line; line = strtok_r(NULL, "\n", &p)) {
		for (i = 0; line[i]; i++) {
			/* The first line with a version in it: proot begins with a picture. */
			if (line[i] >= '0' && line[i] <= '9' && line[i + 1] == '.')
				break;
		}
		if (line[i])
			break;
	}
	if (line)
		snprintf(c->version, sizeof(c->version), "%.*s", (int)strcspn(line + i, " |,"),
			 line + i);
}

void columns_probe(struct bench *b)
{
	struct column *c;

	for (c = b->columns; c < b->columns + b->nr_columns; c++) {
		if (!c->usable)
			continue;
		ask_version(c);
		/* The first run imports the image; a second tells whether it works. */
		if (!probe(b, c))
			continue;
		/* crun refuses a host with both kinds of control groups mounted. */
		if (c->kind == COL_CRUN && b->private_mounts &&
		    !umount2("/sys/fs/cgroup/unified", MNT_DETACH) && !probe(b, c))
			continue;
		c->usable = false;
		snprintf(c->why, sizeof(c->why), "%.190s", b->error);
		if (interrupted)
			die("interrupted");
	}
}
