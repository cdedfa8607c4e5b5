/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tools/kvmsbox/kvmsbox.h"

#define STATE_MAX_SIZE (16UL << 20) /* of state.json */

bool sandbox_name_ok(const char *name)
{
	size_t n =
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");

	return n && !name[n] && n <= SANDBOX_NAME_MAX && !strchr("_.-", name[0]);
}

/* ---- the directory ---- */

static char *default_path(void)
{
	const char *env = getenv("KVMSBOX_STATE"), *runtime = getenv("XDG_RUNTIME_DIR");
	char *path = NULL;

	if (env && *env)
		return strdup(env);
	if (!geteuid())
		return strdup("/run/kvmsbox");
	if (runtime && *runtime && asprintf(&path, "%s/kvmsbox", runtime) > 0)
		return path;
	return NULL;
}

/* Others must not be able to put something in our way. */
static int check_directory(const struct store *s)
{
	struct stat st;

	if (fstat(s->dir, &st))
		return complain("%s: %s: %s", s->verb, s->path, strerror(errno));
	if (st.st_uid != geteuid() && geteuid())
		return complain("%s: the state directory %s belongs to user %u: choose another "
				"with --state",
				s->verb, s->path, st.st_uid);
	if (st.st_mode & 077)
		return complain("%s: the state directory %s is open to others (mode %04o): chmod "
				"700 it, or choose another with --state",
				s->verb, s->path, st.st_mode & 07777);
	return 0;
}

int store_open(struct store *s, const char *verb, const char *dir, bool create)
{
	s->verb = verb;
	s->dir = -1;
	s->path = dir ? strdup(dir) : default_path();
	if (!s->path)
		return complain("%s: no place for state: XDG_RUNTIME_DIR is not set; give --state "
				"DIR or KVMSBOX_STATE",
				verb);
	if (create && mkdir(s->path, 0700) && errno != EEXIST)
		return complain("%s: can't make the state directory %s: %s", verb, s->path,
				strerror(errno));
	s->dir = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir < 0 && errno == ENOENT && !create)
		return 0;
	if (s->dir < 0)
		return complain("%s: can't open the state directory %s: %s", verb, s->path,
				strerror(errno));
	return check_directory(s);
}

/* Locks .lock: LOCK_SH or LOCK_EX. Returns the descriptor that holds it or -errno. */
static int store_lock(const struct store *s, int how)
{
	int fd = openat(s->dir, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	while (fd >= 0 && flock(fd, how)) {
		int err = errno;

		if (err == EINTR)
			continue;
		close(fd);
		return -err;
	}
	return fd < 0 ? -errno : fd;
}

/* ---- one sandbox ---- */

/* The whole of a small regular file: a malloc'd string, or NULL. */
static char *read_file(int fd)
{
	struct stat st;
	char *text;
	ssize_t n;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (size_t)st.st_size > STATE_MAX_SIZE)
		return NULL;
	text = malloc((size_t)st.st_size + 1);
	n = text ? pread(fd, text, (size_t)st.st_size, 0) : -1;
	if (n < 0) {
		free(text);
		return NULL;
	}
	text[n] = 0;
	return text;
}

/* The object in @dir/@name, an empty one if there is none. A new reference; NULL: out of memory. */
static json_t *read_json(int dir, const char *name, int fd)
{
	bool opened = fd < 0;
	json_t *o = NULL;
	char *text = NULL;

	if (opened)
		fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0)
		text = read_file(fd);
	if (text)
		o = json_loads(text, 0, NULL);
	free(text);
	if (opened && fd >= 0)
		close(fd);
	if (json_is_object(o))
		return o;
	json_decref(o);
	return json_object();
}

static void died(struct sandbox *sb, const char *why)
{
	sb->status = SANDBOX_DIED;
	snprintf(sb->reason, sizeof(sb->reason), "%s", why);
}

void sandbox_read_exit(struct sandbox *sb, int fd)
{
	json_t *o = read_json(sb->dir, "exit", fd), *status = json_object_get(o, "status");
	const char *error = json_string_value(json_object_get(o, "error"));

	if (json_is_integer(status)) {
		sb->status = SANDBOX_EXITED;
		sb->exit_status = (int)json_integer_value(status) & 0xff;
		snprintf(sb->reason, sizeof(sb->reason), "%s", error ?: "");
	} else if (!json_object_size(sb->state)) {
		died(sb, "its state is missing or damaged");
	} else {
		died(sb, "its process was killed or crashed");
	}
	json_decref(o);
}

/* Is the lock held? Whoever looks takes it shared, so that they don't see each other. */
static bool is_locked(int fd)
{
	if (fd < 0)
		return false;
	if (flock(fd, LOCK_SH | LOCK_NB))
		return errno == EWOULDBLOCK;
	flock(fd, LOCK_UN);
	return false;
}

/* Reads the folder @name. 0 or -errno; sandbox_close after success. */
static int sandbox_open(const struct store *s, const char *name, struct sandbox *sb)
{
	json_t *v;
	struct stat st;

	memset(sb, 0, sizeof(*sb));
	snprintf(sb->name, sizeof(sb->name), "%s", name);
	sb->lock = -1;
	sb->dir = openat(s->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (sb->dir < 0)
		return -errno;
	if (fstat(sb->dir, &st)) {
		int err = -errno;

		close(sb->dir);
		return err;
	}
	sb->dev = st.st_dev;
	sb->inode = st.st_ino;
	sb->lock = openat(sb->dir, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	sb->state = read_json(sb->dir, "state.json", -1);
	sb->created = json_number_value(json_object_get(sb->state, "created"));
	v = json_object_get(sb->state, "pid");
	sb->pid = json_is_integer(v) ? (pid_t)json_integer_value(v) : 0;
	sb->start = (uint64_t)json_integer_value(json_object_get(sb->state, "start_time"));
	if (!is_locked(sb->lock))
		sandbox_read_exit(sb, -1);
	return 0;
}

void sandbox_close(struct sandbox *sb)
{
	json_decref(sb->state);
	if (sb->lock >= 0)
		close(sb->lock);
	close(sb->dir);
}

int store_lookup(const struct store *s, const char *name, struct sandbox *sb)
{
	int lock, err;

	if (s->dir < 0)
		return -ENOENT;
	lock = store_lock(s, LOCK_SH);
	if (lock < 0)
		return lock;
	err = sandbox_open(s, name, sb);
	close(lock);
	return err;
}

int store_find(const struct store *s, const char *name, struct sandbox *sb)
{
	int err;

	if (!sandbox_name_ok(name))
		return complain("%s: \"%s\" can't be a sandbox's name", s->verb, name);
	err = store_lookup(s, name, sb);
	if (err == -ENOENT)
		return complain("%s: there is no sandbox %s: kvmsbox ps lists them", s->verb, name);
	if (err)
		return complain("%s: %s/%s: %s", s->verb, s->path, name, strerror(-err));
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct sandbox *)a)->name, ((const struct sandbox *)b)->name);
}

/* Every folder of @d that is a sandbox's; unreadable ones are left out. */
static bool read_all(const struct store *s, DIR *d, struct sandbox **list, size_t *n)
{
	struct dirent *e;

	while ((e = readdir(d))) {
		struct sandbox *grown;

		if (!sandbox_name_ok(e->d_name))
			continue;
		grown = realloc(*list, (*n + 1) * sizeof(**list));
		if (!grown)
			return false;
		*list = grown;
		if (!sandbox_open(s, e->d_name, &grown[*n]))
			(*n)++;
	}
	return true;
}

int store_list(struct store *s, struct sandbox **list, size_t *n)
{
	int lock, fd;
	bool ok;
	DIR *d;

	*list = NULL;
	*n = 0;
	if (s->dir < 0)
		return 0;
	lock = store_lock(s, LOCK_SH);
	if (lock < 0)
		return complain("%s: %s/.lock: %s", s->verb, s->path, strerror(-lock));
	fd = openat(s->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	ok = d && read_all(s, d, list, n);
	if (!ok)
		complain("%s: can't read %s: %s", s->verb, s->path, strerror(errno));
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
	close(lock);
	if (*n)
		qsort(*list, *n, sizeof(**list), by_name);
	return ok ? 0 : EXIT_KVMSBOX;
}

const char *sandbox_status_text(const struct sandbox *sb, char *buf, size_t size)
{
	switch (sb->status) {
	case SANDBOX_RUNNING:
		snprintf(buf, size, "running");
		break;
	case SANDBOX_EXITED:
		snprintf(buf, size, "exited (%d)", sb->exit_status);
		break;
	case SANDBOX_DIED:
		snprintf(buf, size, "died");
		break;
	}
	return buf;
}

/* ---- processes ---- */

/* When process @pid started, in clock ticks since boot; 0: there is none. */
static uint64_t start_time(pid_t pid)
{
	char path[64], text[1024], *p;
	unsigned long long ticks = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[MAX(n, 0)] = 0;
	/* Behind the name, which may hold anything: field 22 is the 20th from there. */
	p = strrchr(text, ')');
	if (p)
		sscanf(p + 2,
		       "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
		       "%*d %llu",
		       &ticks);
	return ticks;
}

int sandbox_kill(const struct sandbox *sb)
{
	int fd = sb->pid > 0 ? (int)syscall(SYS_pidfd_open, sb->pid, 0) : (errno = ESRCH, -1), err;

	if (fd < 0)
		return -errno;
	/* The number may be another's by now; the pidfd's process is the one looked at, or gone. */
	if (start_time(sb->pid) != sb->start)
		err = -ESRCH;
	else
		err = syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) ? -errno : 0;
	close(fd);
	return err;
}

bool sandbox_wait(const struct sandbox *sb, int ms)
{
	if (ms < 0 && sb->lock >= 0) {
		while (flock(sb->lock, LOCK_SH) && errno == EINTR)
			;
		flock(sb->lock, LOCK_UN);
		return true;
	}
	for (; is_locked(sb->lock); ms -= 10) {
		if (ms <= 0)
			return false;
		poll(NULL, 0, 10);
	}
	return true;
}

/* ---- making ---- */

static int make_socket(int dir)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

	if (fd < 0)
		return -errno;
	/* By way of the descriptor: the path may be longer than an address. */
	snprintf(sun.sun_path, sizeof(sun.sun_path), "/proc/self/fd/%d/control.sock", dir);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) || listen(fd, 256)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static int make_file(int dir, const char *name, int flags)
{
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0600);

	return fd < 0 ? -errno : fd;
}

static int write_state(int dir, const char *name, json_t *state)
{
	struct timespec now;
	int fd, err = 0;

	clock_gettime(CLOCK_REALTIME, &now);
	json_object_set_new(state, "name", json_string(name));
	json_object_set_new(state, "pid", json_integer(getpid()));
	json_object_set_new(state, "start_time", json_integer((json_int_t)start_time(getpid())));
	json_object_set_new(state, "created",
			    json_real((double)now.tv_sec + (double)now.tv_nsec / 1e9));
	fd = make_file(dir, "state.json", 0);
	if (fd < 0)
		return fd;
	if (json_dumpfd(state, fd, JSON_INDENT(2)) || write(fd, "\n", 1) != 1)
		err = errno ? -errno : -EIO;
	close(fd);
	return err;
}

/* Everything in the new folder @dir. 0 or -errno with *@what. */
static int fill(int dir, const char *name, json_t *state, struct sandbox_files *f,
		const char **what)
{
	*what = "lock";
	f->lock = make_file(dir, "lock", 0);
	if (f->lock < 0)
		return f->lock;
	if (flock(f->lock, LOCK_EX | LOCK_NB))
		return -errno;
	*what = "log";
	f->log = make_file(dir, "log", O_APPEND);
	if (f->log < 0)
		return f->log;
	*what = "exit";
	f->exit = make_file(dir, "exit", 0);
	if (f->exit < 0)
		return f->exit;
	*what = "control.sock";
	f->control = make_socket(dir);
	if (f->control < 0)
		return f->control;
	*what = "state.json";
	return write_state(dir, name, state);
}

/* Unlinks what is in the folder, and the folder. .lock held. */
static int remove_folder(const struct store *s, const char *name, int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(dir, e->d_name, 0))
			err = -errno;
	}
	closedir(d);
	if (unlinkat(s->dir, name, AT_REMOVEDIR))
		err = err ?: -errno;
	return err;
}

/* The name is taken: says by what. */
static int taken(const struct store *s, const char *name)
{
	struct sandbox sb;
	char text[32];

	if (sandbox_open(s, name, &sb))
		return complain("%s: %s/%s is in the way", s->verb, s->path, name);
	sandbox_status_text(&sb, text, sizeof(text));
	sandbox_close(&sb);
	if (sb.status == SANDBOX_RUNNING)
		return complain(
			"%s: a sandbox %s is running: kvmsbox enter %s, or kvmsbox rm -f %s",
			s->verb, name, name, name);
	return complain("%s: there is a sandbox %s that has ended, %s: kvmsbox rm %s", s->verb,
			name, text, name);
}

int store_check_free(struct store *s, const char *name)
{
	int lock, ret = 0;

	if (faccessat(s->dir, name, F_OK, AT_SYMLINK_NOFOLLOW))
		return 0;
	lock = store_lock(s, LOCK_SH);
	/* It may be gone by now. */
	if (!faccessat(s->dir, name, F_OK, AT_SYMLINK_NOFOLLOW))
		ret = taken(s, name);
	if (lock >= 0)
		close(lock);
	return ret;
}

static int create_locked(struct store *s, const char *name, json_t *state,
			 struct sandbox_files *files)
{
	const char *what = "";
	mode_t mask;
	int dir, err;

	if (mkdirat(s->dir, name, 0700)) {
		if (errno == EEXIST)
			return taken(s, name);
		return complain("%s: can't make %s/%s: %s", s->verb, s->path, name,
				strerror(errno));
	}
	dir = openat(s->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	mask = umask(077);
	err = dir < 0 ? -errno : fill(dir, name, state, files, &what);
	umask(mask);
	if (err) {
		const int fds[] = {files->lock, files->control, files->log, files->exit};

		complain("%s: can't make %s/%s/%s: %s", s->verb, s->path, name, what,
			 strerror(-err));
		for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
			if (fds[i] >= 0)
				close(fds[i]);
		}
		if (dir >= 0)
			remove_folder(s, name, dir);
	}
	if (dir >= 0)
		close(dir);
	return err ? EXIT_KVMSBOX : 0;
}

int store_create(struct store *s, const char *name, json_t *state, struct sandbox_files *files)
{
	int lock = store_lock(s, LOCK_EX), ret;

	*files = (struct sandbox_files){-1, -1, -1, -1};
	if (lock < 0)
		return complain("%s: %s/.lock: %s", s->verb, s->path, strerror(-lock));
	ret = create_locked(s, name, state, files);
	close(lock);
	return ret;
}

int store_remove(struct store *s, const struct sandbox *sb, bool own)
{
	int lock = store_lock(s, LOCK_EX), err = 0;
	struct stat st;

	if (lock < 0)
		return lock;
	if (fstatat(s->dir, sb->name, &st, AT_SYMLINK_NOFOLLOW))
		err = -errno;
	else if (st.st_dev != sb->dev || st.st_ino != sb->inode)
		err = -ENOENT; /* removed, and made again by somebody else */
	else if (!own && is_locked(sb->lock))
		err = -EBUSY;
	else
		err = remove_folder(s, sb->name, sb->dir);
	close(lock);
	return err;
}

/* ---- the end ---- */

void sandbox_write_exit(int fd, int status, const char *error)
{
	struct timespec now;
	json_t *o = json_object();
	char *text;

	clock_gettime(CLOCK_REALTIME, &now);
	json_object_set_new(o, "status", json_integer(status));
	json_object_set_new(o, "ended", json_real((double)now.tv_sec + (double)now.tv_nsec / 1e9));
	if (error[0])
		json_object_set_new(o, "error", json_string(error));
	text = json_dumps(o, JSON_COMPACT);
	if (text)
		(void)!pwrite(fd, text, strlen(text), 0);
	free(text);
	json_decref(o);
}
