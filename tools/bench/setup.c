/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Before and after: the scratch directory, the images, the place where native application rows run,
 * and what is known about the machine.
 *
 * The small image is a tree of the guest programs, made here, and a tar of it, written here. The
 * applications' image is the tests' Debian, if it has been made (test/images.sh). Everything lives
 * in one scratch directory that is removed at the end, except the Debian image's cache entry, which
 * the tests share.
 *
 * As root, this process lives in a mount namespace of its own. The Debian tree is mounted over
 * itself there, read-only, with /proc, /dev, /tmp and /mnt inside: the same view that the sandboxes
 * have, for a native program in a chroot. Nothing is ever mounted inside the scratch directory, so
 * removing that can't reach anything else.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static const char *const programs[] = {"micro", "true", "idle", "timed", "hello", "pages"};

static void make_dir(const char *path, mode_t mode)
{
	if ((mkdir(path, mode) && errno != EEXIST) || chmod(path, mode))
		die("can't make %s: %s", path, strerror(errno));
}

static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	char buf[65536];
	ssize_t n;

	if (in < 0)
		die("can't read %s: %s (make bench builds it)", from, strerror(errno));
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	if (out < 0)
		die("can't write %s: %s", to, strerror(errno));
	while ((n = read(in, buf, sizeof(buf))) > 0) {
		if (write(out, buf, (size_t)n) != n)
			die("can't write %s: %s", to, strerror(errno));
	}
	close(in);
	if (n < 0 || close(out))
		die("can't copy %s: %s", from, strerror(errno));
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	if (!f || fputs(text, f) < 0 || fclose(f))
		die("can't write %s: %s", path, strerror(errno));
}

/* One ustar header. @size is 0 for directories. */
static void tar_header(FILE *f, const char *name, mode_t mode, char type, off_t size)
{
	unsigned char h[512] = {0};
	unsigned int sum = 0, i;

	snprintf((char *)h, 100, "%s", name);
	snprintf((char *)h + 100, 8, "%07o", (unsigned int)mode);
	snprintf((char *)h + 108, 8, "%07o", 0);
	snprintf((char *)h + 116, 8, "%07o", 0);
	snprintf((char *)h + 124, 12, "%011lo", (long)size);
	snprintf((char *)h + 136, 12, "%011o", 0);
	memset(h + 148, ' ', 8);
	h[156] = (unsigned char)type;
	memcpy(h + 257, "ustar\00000", 8);
	for (i = 0; i < 512; i++)
		sum += h[i];
	snprintf((char *)h + 148, 8, "%06o", sum);
	fwrite(h, 512, 1, f);
}

static void tar_file(FILE *f, const char *tree, const char *name)
{
	char *path = format("%s/%s", tree, name);
	FILE *in = fopen(path, "re");
	char block[512];
	struct stat st;
	size_t n;

	if (!in || fstat(fileno(in), &st))
		die("can't read %s: %s", path, strerror(errno));
	tar_header(f, name, 0755, '0', st.st_size);
	while ((n = fread(block, 1, sizeof(block), in)) > 0) {
		memset(block + n, 0, sizeof(block) - n);
		fwrite(block, sizeof(block), 1, f);
	}
	fclose(in);
	free(path);
}

static void make_small_image(struct bench *b)
{
	static const struct {
		const char *name;
		mode_t mode;
	} dirs[] = {{"", 0755},	    {"/bench", 0755}, {"/dev", 0755}, {"/etc", 0755},
		    {"/mnt", 0755}, {"/proc", 0555},  {"/tmp", 01777}};
	char *tree = format("%s/root", b->scratch), *from, *to, *name;
	static const char end[1024];
	size_t i;
	FILE *f;

	b->tree[IMAGE_SMALL] = tree;
	b->image[IMAGE_SMALL] = format("%s/small.tar", b->scratch);
	b->cache[IMAGE_SMALL] = format("%s/cache", b->scratch);
	f = fopen(b->image[IMAGE_SMALL], "we");
	if (!f)
		die("can't write %s: %s", b->image[IMAGE_SMALL], strerror(errno));
	for (i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		to = format("%s%s", tree, dirs[i].name);
		make_dir(to, dirs[i].mode);
		free(to);
		if (*dirs[i].name)
			tar_header(f, dirs[i].name + 1, dirs[i].mode, '5', 0);
	}
	for (i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		name = format("bench/%s", programs[i]);
		from = format("%s/%s", b->guest, programs[i]);
		to = format("%s/%s", tree, name);
		copy_file(from, to);
		tar_file(f, tree, name);
		free(name);
		free(from);
		free(to);
	}
	fwrite(end, sizeof(end), 1, f);
	if (ferror(f) || fclose(f))
		die("can't write %s", b->image[IMAGE_SMALL]);
}

/* What application rows work on, in b->work, seen as /mnt. */
static void make_work(struct bench *b)
{
	char *path, *from, *text;
	int i;

	b->work = format("%s/work", b->scratch);
	make_dir(b->work, 0755);
	from = format("%s/timed", b->guest);
	path = format("%s/timed", b->work);
	copy_file(from, path);
	path = format("%s/project", b->work);
	make_dir(path, 0755);
	for (i = 0; i < 16; i++) {
		path = format("%s/project/part%d.c", b->work, i);
		text = format("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
			      "#include <unistd.h>\n#include <errno.h>\n#include <math.h>\n"
			      "int part%d(int n);\n"
			      "static int cmp(const void *a, const void *b)\n"
			      "{ return strcmp(*(char *const *)a, *(char *const *)b); }\n"
			      "int part%d(int n)\n{\n\tchar *v[64], b[64]; int i, s = %d;\n"
			      "\tfor (i = 0; i < 64; i++) {\n\t\tsnprintf(b, sizeof(b), \"%%d\", n "
			      "* i);\n"
			      "\t\tv[i] = strdup(b);\n\t}\n\tqsort(v, 64, sizeof(*v), cmp);\n"
			      "\tfor (i = 0; i < 64; i++) { s += atoi(v[i]) %% 7; free(v[i]); }\n"
			      "\treturn s;\n}\n",
			      i, i, i);
		write_text(path, text);
	}
	path = format("%s/project/main.c", b->work);
	write_text(path, "int part0(int), part1(int);\n"
			 "int main(void)\n{ return part0(1) + part1(2) < 0; }\n");
	path = format("%s/project/Makefile", b->work);
	write_text(path,
		   "OBJS = main.o $(patsubst %,part%.o,0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)\n"
		   "prog: $(OBJS)\n\tgcc -o $@ $(OBJS)\n"
		   "%.o: %.c\n\tgcc -O1 -c -o $@ $<\n");
	path = format("%s/compute.py", b->work);
	write_text(path, "d, x = {}, 0.0\n"
			 "for i in range(400000):\n"
			 "    x += (i * 3.5) % 7\n"
			 "    d[str(i % 5000)] = d.get(str(i % 5000), 0) + i\n"
			 "s = ','.join(sorted(d))\n"
			 "assert len(d) == 5000 and len(s) == 23889, (len(d), len(s))\n");
	path = format("%s/compute.js", b->work);
	write_text(path, "let d = new Map(), x = 0;\n"
			 "for (let i = 0; i < 3000000; i++) { x += (i * 3.5) % 7;\n"
			 "  d.set('' + i % 5000, i); }\nif (d.size != 5000) process.exit(1);\n");
	path = format("%s/load.sql", b->work);
	text = strdup("create table t(id integer primary key, name text, v real);\n"
		      "begin;\nwith recursive n(i) as (select 1 union all select i + 1 from n "
		      "where i < 20000) insert into t select i, 'name' || (i * 7919 % 10007), "
		      "i * 0.5 from n;\ncommit;\ncreate index t_name on t(name);\n");
	for (i = 0; i < 200; i++) {
		char *more =
			format("%sinsert into t(name, v) values('single%d', %d);\n", text, i, i);

		free(text);
		text = more;
	}
	from = format("%sselect count(*), sum(v) from t where name like 'name1%%';\n"
		      "select name, count(*) from t group by name order by 2 desc limit 5;\n",
		      text);
	write_text(path, from);
	/* Debian's test image has no make; the host's own will usually run there. */
	path = format("%s/bin", b->work);
	make_dir(path, 0755);
	if (!access("/usr/bin/make", X_OK)) {
		path = format("%s/bin/make", b->work);
		copy_file("/usr/bin/make", path);
	}
}

/* Mounts @tree at @at, read-only if asked to, with /proc, /dev, a /tmp in memory and @mnt at /mnt.
 */
static int make_native_root(struct bench *b, const char *tree, const char *at, bool ro,
			    const char *mnt)
{
	char *proc = format("%s/proc", at), *dev = format("%s/dev", at);
	char *tmp = format("%s/tmp", at), *mnt_at = format("%s/mnt", at);
	int err;

	err = mount(tree, at, NULL, MS_BIND, NULL) ||
	      (ro && mount(NULL, at, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL)) ||
	      mount("proc", proc, "proc", 0, NULL) || mount("/dev", dev, NULL, MS_BIND, NULL) ||
	      mount("tmpfs", tmp, "tmpfs", 0, NULL) ||
	      (mnt && mount(mnt, mnt_at, NULL, MS_BIND, NULL));
	if (err)
		bench_fail(b, "mounts in %s: %s", at, strerror(errno));
	free(proc);
	free(dev);
	free(tmp);
	free(mnt_at);
	return err ? -1 : 0;
}

/*
 * Natively, too, programs of the small image see short names and a /tmp in memory. They live in a
 * chroot on top of a directory of the host that nothing here needs; that can't be, without root,
 * and then native paths are a little longer than those in sandboxes.
 */
static void make_native_small(struct bench *b)
{
	static const char at[] = "/media";
	char *kvmsbox = realpath(b->kvmsbox, NULL), *guest = realpath(b->guest, NULL);
	bool used = !strncmp(b->scratch, at, strlen(at)) ||
		    (kvmsbox && !strncmp(kvmsbox, at, strlen(at))) ||
		    (guest && !strncmp(guest, at, strlen(at)));

	free(kvmsbox);
	free(guest);
	if (!b->private_mounts || used || access(at, X_OK))
		return;
	if (make_native_root(b, b->tree[IMAGE_SMALL], at, false, NULL))
		umount2(at, MNT_DETACH);
	else
		b->native_root[IMAGE_SMALL] = at;
}

/* The repository is made with the image's own git. */
static int make_repo(struct bench *b)
{
	struct column native = {.name = "native", .kind = COL_NATIVE};
	struct launch l = {
		.col = &native,
		.image = IMAGE_APPS,
		.argv = {"/bin/sh", "-ec",
			 "command -v git >/dev/null || exit 0; export HOME=/tmp; cd /mnt; "
			 "git init -q repo; cd repo; git config user.email bench@localhost; "
			 "git config user.name bench; for d in 1 2 3 4 5 6; do mkdir d$d; "
			 "i=0; while [ $i -lt 100 ]; do echo \"$d $i\" >d$d/f$i; i=$((i+1)); done; "
			 "done; git add -A; git commit -qm files; echo new >d1/f1; echo u >u"},
	};
	struct outcome o;

	return launch_check(b, &l, &o);
}

static void find_apps(struct bench *b)
{
	const char *dir = getenv("KVMSBOX_TEST_CACHE"), *home = getenv("HOME");
	char *base = dir ? strdup(dir) : format("%s/.cache/kvmsbox-test", home ? home : "");
	char *tar = format("%s/debian.tar", base), *note = format("%s.tree", tar), line[512] = "";
	const char *argv[] = {b->kvmsbox, "image", "import", "--cache", NULL, tar, NULL};
	FILE *f = fopen(note, "re");
	char out[512];

	if (f) {
		if (fgets(line, sizeof(line), f))
			line[strcspn(line, "\n")] = 0;
		fclose(f);
	}
	if (access(tar, R_OK) || !*line || access(line, R_OK | X_OK)) {
		b->apps_why = strdup("the Debian test image has not been made "
				     "(test/images.sh debian)");
		return;
	}
	if (!b->private_mounts) {
		b->apps_why = strdup("application rows need root, for the native column's chroot");
		return;
	}
	make_work(b);
	b->cache[IMAGE_APPS] = format("%s/cache", base);
	argv[4] = b->cache[IMAGE_APPS];
	if (host_run(argv, out, sizeof(out))) {
		b->apps_why = format("the Debian image can't be imported: %.200s", out);
		return;
	}
	b->tree[IMAGE_APPS] = strdup(line);
	b->native_root[IMAGE_APPS] = b->tree[IMAGE_APPS];
	if (make_native_root(b, line, line, true, b->work) || make_repo(b)) {
		b->apps_why = strdup(b->error);
		b->tree[IMAGE_APPS] = NULL;
		return;
	}
	b->image[IMAGE_APPS] = tar;
}

void setup(struct bench *b)
{
	const char *dir = getenv("TMPDIR");
	bool apps = false;
	int i;

	b->scratch = format("%s/kvmsbox-bench.XXXXXX", dir && *dir ? dir : "/tmp");
	b->shm = strdup("/dev/shm/kvmsbox-bench.XXXXXX");
	if (!mkdtemp(b->scratch)) {
		b->scratch = NULL;
		die("can't make a scratch directory: %s", strerror(errno));
	}
	if (!mkdtemp(b->shm)) {
		b->shm = NULL;
		die("can't make a directory in /dev/shm: %s", strerror(errno));
	}
	chmod(b->scratch, 0755);
	b->private_mounts = !geteuid() && !unshare(CLONE_NEWNS) &&
			    !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	make_small_image(b);
	make_native_small(b);
	for (i = 0; i < nr_rows; i++)
		apps |= b->row_wanted[i] && (rows[i].flags & ROW_APPS);
	if (apps)
		find_apps(b);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	remove(path);
	return 0;
}

void teardown(struct bench *b)
{
	/* What has something mounted on it, wherever that is visible, can't be removed. */
	if (b->native_root[IMAGE_SMALL])
		umount2(b->native_root[IMAGE_SMALL], MNT_DETACH);
	b->native_root[IMAGE_SMALL] = NULL;
	if (b->scratch)
		nftw(b->scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	if (b->shm)
		nftw(b->shm, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	b->scratch = b->shm = NULL;
}

/* The rest of the first line of @path that begins with @key (or of the first line), trimmed. */
static void line_of(const char *path, const char *key, char *buf, size_t size)
{
	char line[512];
	FILE *f = fopen(path, "re");
	char *p;

	buf[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, strlen(key)))
			continue;
		p = line + strlen(key);
		p += strspn(p, " \t:");
		snprintf(buf, size, "%.*s", (int)strcspn(p, "\n"), p);
		break;
	}
	if (f)
		fclose(f);
}

void fact_add(struct bench *b, const char *name, const char *fmt, ...)
{
	struct fact *f = &b->facts[b->nr_facts];
	va_list ap;

	if (b->nr_facts == (int)(sizeof(b->facts) / sizeof(b->facts[0])))
		return;
	b->nr_facts++;
	f->name = name;
	va_start(ap, fmt);
	vsnprintf(f->value, sizeof(f->value), fmt, ap);
	va_end(ap);
}

/* `kvmsbox doctor` knows what kind of KVM this is. */
static void doctor_facts(struct bench *b)
{
	const char *argv[] = {b->kvmsbox, "doctor", NULL};
	char out[4096], *line, *save = NULL, kind[100] = "", self[100] = "";
	bool kvm = false;
	int status = host_run(argv, out, sizeof(out));

	if (status) {
		fact_add(b, "KVM", "unknown: kvmsbox doctor ended with status %d", status);
		return;
	}
	for (line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (line[0] != ' ')
			kvm = !strncmp(line, "kvm:", 4);
		if (!strncmp(line, "kvmsbox ", 8))
			fact_add(b, "kvmsbox", "%.*s", (int)strcspn(line + 8, " "), line + 8);
		if (kvm && sscanf(line, " kind %99[^\n]", kind) == 1)
			continue;
		if (kvm)
			sscanf(line, " usable %99[^\n]", self);
	}
	fact_add(b, "KVM", "%s", *kind ? kind : *self ? self : "unknown");
}

void machine_facts(struct bench *b)
{
	char buf[160];
	struct utsname u;
	time_t now = time(NULL);
	struct tm tm;
	int i;

	gmtime_r(&now, &tm);
	strftime(buf, sizeof(buf), "%Y-%m-%d %H:%M UTC", &tm);
	fact_add(b, "date", "%s", buf);
	line_of("/proc/cpuinfo", "model name", buf, sizeof(buf));
	fact_add(b, "CPU", "%.100s, %ld online", buf, sysconf(_SC_NPROCESSORS_ONLN));
	fact_add(b, "memory", "%ld MiB", meminfo_kib("MemTotal:") / 1024);
	if (!uname(&u))
		fact_add(b, "kernel", "%s %s", u.sysname, u.release);
	line_of("/sys/kernel/mm/transparent_hugepage/enabled", "", buf, sizeof(buf));
	fact_add(b, "huge pages", "%s", *buf ? buf : "unknown");
	line_of("/proc/loadavg", "", buf, sizeof(buf));
	fact_add(b, "load at start", "%.*s", (int)strcspn(buf, " "), buf);
	doctor_facts(b);
	for (i = 0; i < b->nr_columns; i++) {
		if (b->columns[i].usable && b->columns[i].kind >= COL_BWRAP)
			fact_add(b, b->columns[i].name, "%s", b->columns[i].version);
	}
}
