/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox snapshot: a sandbox that runs hands over its image, a sealed memory file, and goes on;
 * this process makes the file of it (sentry/snapshot_file.h). The file has no name before it is
 * complete and on disk.
 */
#include "tools/kvmsbox/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <libfdt.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sentry/control_msg.h"
#include "sentry/lib/hostio.h"
#include "sentry/snapshot_file.h"
#include "sentry/snapshot_image.h"
#include "tools/kvmsbox/kvmsbox.h"
#include "tools/kvmsbox/options.h"
#include "tools/kvmsbox/store.h"

#define ANSWER_MS 600000 /* it may have much memory */
#define STOP_MS	  30000

static const struct verb verb = {
	.id = VERB_SNAPSHOT,
	.name = "snapshot",
	.synopsis = "[OPTIONS] NAME FILE",
	.about = "Saves the sandbox NAME, as it runs, to FILE, for kvmsbox restore. The sandbox "
		 "goes "
		 "on.\n"
		 "FILE holds the memory of all its programs: keep it like what they know.\n",
};

struct job {
	const char *path; /* FILE */
	struct sandbox sb;
	int sock;
	int image; /* the memory file */
	const uint8_t *view;
	struct snapshot_build build;
	void *tree;
	size_t tree_size;
	uint64_t data;	 /* where the data begins in the file */
	char *dir, *tmp; /* of FILE; a name for a moment */
	int out;
};

/* ---- from the sandbox ---- */

/* Asks for the image. 0, or the exit status after a complaint. */
static int ask(struct job *j, bool hold)
{
	struct control_msg m = {.type = CONTROL_SNAPSHOT, .flags = hold ? CONTROL_HOLD : 0};
	char text[CONTROL_TEXT_MAX + 1];
	int err;

	j->sock = sandbox_connect(&j->sb, ANSWER_MS);
	err = j->sock < 0 ? j->sock : control_send(j->sock, &m, NULL, 0);
	if (!err)
		err = control_receive_fd(j->sock, &m, text, &j->image);
	if (err)
		return complain("snapshot: sandbox %s doesn't answer: %s", j->sb.name,
				err == -ECONNREFUSED || err == -EPIPE ? "it has just ended"
								      : strerror(-err));
	if (m.type != CONTROL_SNAPSHOT_IS || j->image < 0)
		return complain("snapshot: sandbox %s can't be saved: %s", j->sb.name, text);
	return 0;
}

/* Maps the image. What a sandbox sends may be anything, but can't change under our hands. */
static int map(struct job *j)
{
	int seals = fcntl(j->image, F_GET_SEALS);
	const int want = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	struct stat st;
	void *p;

	if (seals < 0 || (seals & want) != want || fstat(j->image, &st) ||
	    (uint64_t)st.st_size != IMAGE_SIZE)
		return complain("snapshot: sandbox %s has sent no image", j->sb.name);
	p = mmap(NULL, IMAGE_SIZE, PROT_READ, MAP_SHARED | MAP_NORESERVE, j->image, 0);
	if (p == MAP_FAILED)
		return complain("snapshot: can't map the image: %s", strerror(errno));
	j->view = p;
	if (fdt_check_full(p, IMAGE_META_SIZE))
		return complain("snapshot: sandbox %s has sent an image without metadata",
				j->sb.name);
	return 0;
}

/* ---- what goes into the file ---- */

static int add_pages(struct job *j, uint64_t start, uint64_t end)
{
	for (uint64_t page = start / PAGE_SIZE; page < (end + PAGE_SIZE - 1) / PAGE_SIZE; page++) {
		if (snapshot_build_page(&j->build, (uint32_t)page))
			return complain("out of memory");
	}
	return 0;
}

static int build(struct job *j)
{
	off_t start = IMAGE_META_SIZE, hole;
	int status = 0;

	j->build.image = j->view;
	while (!status && (start = lseek(j->image, start, SEEK_DATA)) >= 0) {
		hole = lseek(j->image, start, SEEK_HOLE);
		if (hole < 0)
			return complain("snapshot: can't read the image: %s", strerror(errno));
		status = add_pages(j, (uint64_t)start, (uint64_t)hole);
		start = hole;
	}
	if (status)
		return status;
	j->tree = snapshot_build_tree(&j->build, j->view, j->sb.name, (uint64_t)time(NULL),
				      &j->tree_size, &j->data);
	return j->tree ? 0 : complain("snapshot: out of memory");
}

/* ---- the file ---- */

/* The data: pages that are neighbours in the image go in one piece. */
static int write_data(const struct job *j)
{
	const struct snapshot_build *b = &j->build;
	size_t i = 0, run;
	int err = 0;

	for (; i < b->nr_pages && !err; i += run) {
		for (run = 1; i + run < b->nr_pages && b->pages[i + run] == b->pages[i] + run;
		     run++)
			;
		err = pwrite_all(j->out, j->view + (uint64_t)b->pages[i] * PAGE_SIZE,
				 run * PAGE_SIZE, j->data + i * PAGE_SIZE);
	}
	return err;
}

/* Only what isn't there, or a file, is replaced. */
static int check_target(struct job *j)
{
	char *copy = strdup(j->path);
	struct stat st;

	if (!copy || !(j->dir = strdup(dirname(copy))))
		return complain("out of memory");
	free(copy);
	if (!lstat(j->path, &st) && !S_ISREG(st.st_mode))
		return complain("snapshot: %s is there, and is not a file", j->path);
	return 0;
}

/*
 * A file in FILE's directory that has no name. Where there are none, it has one from the beginning,
 * and is removed when something fails.
 */
static int open_file(struct job *j)
{
	if (asprintf(&j->tmp, "%s/.kvmsbox-snapshot-%d", j->dir, getpid()) < 0)
		return complain("out of memory");
	j->out = open(j->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (j->out >= 0)
		return 0;
	if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)
		j->out = open(j->tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return j->out < 0
		       ? complain("snapshot: can't make a file in %s: %s", j->dir, strerror(errno))
		       : 0;
}

/* Gives it the name FILE; whatever had that is gone in the same moment. */
static int name_file(const struct job *j)
{
	char link[32];
	struct stat st;

	if (fstat(j->out, &st))
		return -errno;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", j->out);
	if (!st.st_nlink && linkat(AT_FDCWD, link, AT_FDCWD, j->tmp, AT_SYMLINK_FOLLOW))
		return -errno;
	if (!rename(j->tmp, j->path))
		return 0;
	return -errno;
}

static int sync_dir(const struct job *j)
{
	int fd = open(j->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	err = fd < 0 || fsync(fd) ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return err == -EINVAL ? 0 : err;
}

static int write_file(struct job *j)
{
	int err, status = open_file(j);

	if (status)
		return status;
	err = pwrite_all(j->out, j->tree, j->tree_size, 0);
	if (!err)
		err = write_data(j);
	/* Also if there is no data at all. */
	if (!err && ftruncate(j->out, (off_t)(j->data + j->build.nr_pages * PAGE_SIZE)))
		err = -errno;
	if (!err && fsync(j->out))
		err = -errno;
	if (!err)
		err = name_file(j);
	if (!err)
		err = sync_dir(j);
	else
		unlink(j->tmp);
	return err ? complain("snapshot: can't write %s: %s", j->path, strerror(-err)) : 0;
}

static void print_size(uint64_t bytes)
{
	if (bytes < 10UL << 20)
		printf("%.1f MiB", (double)bytes / 1048576);
	else
		printf("%lu MiB", bytes >> 20);
}

static void report(const struct job *j)
{
	const struct snapshot_build *b = &j->build;

	printf("%s: ", j->path);
	print_size(j->data + b->nr_pages * PAGE_SIZE);
	printf("; %zu pages stored, %lu more equal to one of them\n", b->nr_pages, b->shared);
}

/* Ends the sandbox, which stands still. */
static int stop(const struct job *j)
{
	struct control_msg m = {
		.type = CONTROL_SIGNAL, .flags = CONTROL_TO_INIT, .signal.signo = SIGKILL};
	int err = control_send(j->sock, &m, NULL, 0);

	if (!err && sandbox_wait(&j->sb, STOP_MS))
		return 0;
	return complain("snapshot: %s is written, but sandbox %s doesn't end: kvmsbox rm -f %s",
			j->path, j->sb.name, j->sb.name);
}

static void job_fini(struct job *j)
{
	if (j->out >= 0)
		close(j->out);
	if (j->sock >= 0)
		close(j->sock);
	if (j->image >= 0)
		close(j->image);
	if (j->view)
		munmap((void *)(uintptr_t)j->view, IMAGE_SIZE);
	snapshot_build_free(&j->build);
	free(j->tree);
	free(j->dir);
	free(j->tmp);
	sandbox_close(&j->sb);
}

int cmd_snapshot(int argc, char **argv)
{
	struct job j = {.sock = -1, .image = -1, .out = -1};
	struct store store;
	struct options o;
	char text[32];
	int at, status;

	options_init(&o, &verb);
	at = options_parse(&o, argc, argv, &status);
	if (at < 0)
		return status;
	if (argc - at != 2)
		return complain("snapshot: %s: kvmsbox snapshot NAME FILE",
				argc - at > 2 ? "too many arguments" : "want a sandbox and a file");
	j.path = argv[at + 1];
	status = store_open(&store, verb.name, o.state_dir, false);
	if (!status)
		status = store_find(&store, argv[at], &j.sb);
	if (status)
		return status;
	if (j.sb.status != SANDBOX_RUNNING)
		status = complain("snapshot: sandbox %s is not running: %s", j.sb.name,
				  sandbox_status_text(&j.sb, text, sizeof(text)));
	status = status ?: check_target(&j);
	status = status ?: ask(&j, o.stop);
	status = status ?: map(&j);
	status = status ?: build(&j);
	status = status ?: write_file(&j);
	if (!status)
		report(&j);
	if (!status && o.stop)
		status = stop(&j);
	job_fini(&j);
	return status;
}
