/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --strace: one line per finished call, "[tid] name(arguments) = result". Calls that may never
 * return (exit, execve, rt_sigreturn) are printed on entry. Arguments are printed by the kinds in
 * syscalls.def; application memory is read as the call itself would.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sentry/kernel.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls.h"

#define LINE_MAX_BYTES 2048
#define STRING_MAX     64

struct line {
	char buf[LINE_MAX_BYTES];
	size_t len;
};

static void put(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct line *l, const char *fmt, ...)
{
	size_t room = sizeof(l->buf) - l->len;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->buf + l->len, room, fmt, ap);
	va_end(ap);
	l->len += n < 0 ? 0 : MIN((size_t)n, room - 1);
}

static void put_bytes(struct line *l, const char *s, size_t len, bool more)
{
	put(l, "\"");
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '\n')
			put(l, "\\n");
		else if (c == '"' || c == '\\')
			put(l, "\\%c", c);
		else if (c >= 32 && c < 127)
			put(l, "%c", c);
		else
			put(l, "\\%o", c);
	}
	put(l, more ? "\"..." : "\"");
}

static void put_path(struct line *l, struct task *t, uaddr_t addr)
{
	char buf[256];
	ssize_t n;

	if (!addr) {
		put(l, "NULL");
		return;
	}
	n = t->vfs.um ? strncpy_from_user(t->vfs.um, buf, addr, sizeof(buf)) : -EFAULT;
	if (n >= 0)
		put_bytes(l, buf, (size_t)n, false);
	else if (n == -ENAMETOOLONG)
		put_bytes(l, buf, sizeof(buf), true);
	else
		put(l, "%#lx", addr);
}

static void put_buf(struct line *l, struct task *t, uaddr_t addr, size_t len)
{
	char buf[STRING_MAX];
	size_t n = MIN(len, sizeof(buf));

	if (addr && t->vfs.um && !copy_in(t, buf, addr, n))
		put_bytes(l, buf, n, len > n);
	else
		put(l, "%#lx", addr);
}

static void put_argv(struct line *l, struct task *t, uaddr_t addr)
{
	put(l, "[");
	for (int i = 0; i < 16; i++) {
		uaddr_t p;

		if (!addr || copy_in(t, &p, addr + (uaddr_t)i * sizeof(p), sizeof(p)) || !p)
			break;
		if (i)
			put(l, ", ");
		put_path(l, t, p);
	}
	put(l, "]");
}

static const struct flag_name {
	uint64_t bit;
	const char *name;
} open_flags[] =
	{
		{O_CREAT, "O_CREAT"},
		{O_EXCL, "O_EXCL"},
		{O_NOCTTY, "O_NOCTTY"},
		{O_TRUNC, "O_TRUNC"},
		{O_APPEND, "O_APPEND"},
		{O_NONBLOCK, "O_NONBLOCK"},
		{O_DIRECTORY, "O_DIRECTORY"},
		{O_NOFOLLOW, "O_NOFOLLOW"},
		{O_CLOEXEC, "O_CLOEXEC"},
		{O_PATH, "O_PATH"},
		{0, NULL},
},
  prot_flags[] =
	  {
		  {PROT_READ, "PROT_READ"},
		  {PROT_WRITE, "PROT_WRITE"},
		  {PROT_EXEC, "PROT_EXEC"},
		  {0, NULL},
},
  map_flags[] =
	  {
		  {MAP_SHARED, "MAP_SHARED"},
		  {MAP_PRIVATE, "MAP_PRIVATE"},
		  {MAP_FIXED, "MAP_FIXED"},
		  {MAP_ANONYMOUS, "MAP_ANONYMOUS"},
		  {MAP_NORESERVE, "MAP_NORESERVE"},
		  {MAP_STACK, "MAP_STACK"},
		  {0, NULL},
},
  clone_flags[] = {
	  {CLONE_VM, "CLONE_VM"},
	  {CLONE_FS, "CLONE_FS"},
	  {CLONE_FILES, "CLONE_FILES"},
	  {CLONE_SIGHAND, "CLONE_SIGHAND"},
	  {CLONE_VFORK, "CLONE_VFORK"},
	  {CLONE_PARENT, "CLONE_PARENT"},
	  {CLONE_THREAD, "CLONE_THREAD"},
	  {CLONE_NEWNS, "CLONE_NEWNS"},
	  {CLONE_SYSVSEM, "CLONE_SYSVSEM"},
	  {CLONE_SETTLS, "CLONE_SETTLS"},
	  {CLONE_PARENT_SETTID, "CLONE_PARENT_SETTID"},
	  {CLONE_CHILD_CLEARTID, "CLONE_CHILD_CLEARTID"},
	  {CLONE_CHILD_SETTID, "CLONE_CHILD_SETTID"},
	  {CLONE_NEWPID, "CLONE_NEWPID"},
	  {0, NULL},
};

static void put_flags(struct line *l, uint64_t v, const struct flag_name *names, bool first)
{
	for (; names->name; names++) {
		if (!(v & names->bit))
			continue;
		put(l, "%s%s", first ? "" : "|", names->name);
		first = false;
		v &= ~names->bit;
	}
	if (v || first)
		put(l, "%s%#lx", first ? "" : "|", v);
}

static void put_futex_op(struct line *l, uint64_t op)
{
	static const char *const names[] = {"WAIT",	   "WAKE",	  "FD",		"REQUEUE",
					    "CMP_REQUEUE", "WAKE_OP",	  "LOCK_PI",	"UNLOCK_PI",
					    "TRYLOCK_PI",  "WAIT_BITSET", "WAKE_BITSET"};
	uint64_t cmd = op & 127;

	if (cmd < ARRAY_SIZE(names))
		put(l, "FUTEX_%s%s", names[cmd], op & FUTEX_PRIVATE_FLAG ? "_PRIVATE" : "");
	else
		put(l, "%#lx", op);
}

static void put_timespec(struct line *l, struct task *t, uaddr_t addr)
{
	struct timespec ts;

	if (addr && t->vfs.um && !copy_in(t, &ts, addr, sizeof(ts)))
		put(l, "{%ld, %ld}", ts.tv_sec, ts.tv_nsec);
	else
		put(l, addr ? "%#lx" : "NULL", addr);
}

static void put_arg(struct line *l, struct task *t, const char *kind, size_t len, const uint64_t *a,
		    unsigned int i, long ret, bool done)
{
#define IS(k) (len == sizeof(k) - 1 && !memcmp(kind, k, len))
	uint64_t v = a[i];

	if (IS("fd") || IS("int") || IS("off") || IS("sig")) {
		put(l, "%ld", IS("off") ? (long)v : (long)(int)v);
	} else if (IS("dfd")) {
		if ((int)v == AT_FDCWD)
			put(l, "AT_FDCWD");
		else
			put(l, "%d", (int)v);
	} else if (IS("size")) {
		put(l, "%lu", v);
	} else if (IS("mode")) {
		put(l, "0%lo", v);
	} else if (IS("path")) {
		put_path(l, t, v);
	} else if (IS("buf")) {
		put_buf(l, t, v, i < 5 ? a[i + 1] : 0);
	} else if (IS("bufout") && done && ret > 0) {
		put_buf(l, t, v, (size_t)ret);
	} else if (IS("argv")) {
		put_argv(l, t, v);
	} else if (IS("tspec")) {
		put_timespec(l, t, v);
	} else if (IS("fop")) {
		put_futex_op(l, v);
	} else if (IS("oflags")) {
		static const char *const access[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"};

		put(l, "%s", access[v & 3]);
		if (v & ~3UL)
			put_flags(l, v & ~3UL, open_flags, false);
	} else if (IS("prot")) {
		if (v)
			put_flags(l, v, prot_flags, true);
		else
			put(l, "PROT_NONE");
	} else if (IS("mflags")) {
		put_flags(l, v, map_flags, true);
	} else if (IS("cflags")) {
		put_flags(l, v & ~255UL, clone_flags, true);
		if (v & 255)
			put(l, "|%lu", v & 255);
	} else if (v) {
		put(l, "%#lx", v);
	} else {
		put(l, IS("hex") ? "0" : "NULL");
	}
#undef IS
}

static void put_call(struct line *l, struct task *t, long nr, const uint64_t *a, long ret,
		     bool done)
{
	const struct syscall_row *row = nr >= 0 && nr < SYSCALL_MAX ? &syscall_table[nr] : NULL;
	const char *p = row && row->name ? row->args : "hex hex hex hex hex hex";
	unsigned int i = 0;

	put(l, "[%d] ", task_tid_nr(t, t->kernel->root_pid_ns));
	if (row && row->name)
		put(l, "%s(", row->name);
	else
		put(l, "syscall_%ld(", nr);
	while (*p && i < 6) {
		size_t len = strcspn(p, " ");

		if (i)
			put(l, ", ");
		put_arg(l, t, p, len, a, i, ret, done);
		p += len + (p[len] == ' ');
		i++;
	}
	put(l, ")");
}

static void flush(struct task *t, struct line *l)
{
	l->len = MIN(l->len, sizeof(l->buf) - 2);
	l->buf[l->len++] = '\n';
	(void)!write(t->kernel->strace.fd, l->buf, l->len);
}

/* Calls whose arguments are gone, or whose caller is, by the time they are done. */
static bool print_on_entry(long nr)
{
	return nr == 59 /* execve */ || nr == 322 /* execveat */ || nr == 60 /* exit */ ||
	       nr == 231 /* exit_group */ || nr == 15 /* rt_sigreturn */;
}

void strace_enter(struct task *t, long nr, const uint64_t *a)
{
	struct line l = {.len = 0};

	if (!print_on_entry(nr))
		return;
	put_call(&l, t, nr, a, 0, false);
	flush(t, &l);
}

void strace_exit(struct task *t, long nr, const uint64_t *a, long ret)
{
	struct line l = {.len = 0};

	if (ret == SYSCALL_REGS_SET || nr == 60 || nr == 231)
		return;
	put_call(&l, t, nr, a, ret, true);
	if (ret >= -MAX_ERRNO && ret < 0) {
		const char *name = strerrorname_np((int)-ret);

		put(&l, " = -1 %s",
		    name ? name
		    : ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK
			    ? "ERESTART (interrupted)"
			    : "error");
	} else if (ret > 0xffffff) {
		put(&l, " = %#lx", (unsigned long)ret);
	} else {
		put(&l, " = %ld", ret);
	}
	flush(t, &l);
}

void strace_signal(struct task *t, const siginfo_t *info)
{
	struct line l = {.len = 0};
	const char *name = sigabbrev_np(info->si_signo);

	put(&l, "[%d] --- ", task_tid_nr(t, t->kernel->root_pid_ns));
	if (name)
		put(&l, "SIG%s", name);
	else
		put(&l, "signal %d", info->si_signo);
	put(&l, " {si_code=%d", info->si_code);
	if (info->si_signo == SIGSEGV || info->si_signo == SIGBUS)
		put(&l, ", si_addr=%p", info->si_addr);
	put(&l, "} ---");
	flush(t, &l);
}
