/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes a process: scripts, ELF files, the first stack, credentials. Facts 15 to 24 of
 * docs/create-process.md, each through exec_load as execve and process creation call it.
 */
#include <linux/securebits.h>
#include <linux/xattr.h>
#include <sys/mman.h>
#include <sys/personality.h>

#include "loader/elf.h"
#include "sentry/mm/internal.h"
#include "test/unit/process_support.h"

static struct world w;
#define CTX (&w.env.ctx)

static char *argv_two[] = {(char[]){"zero"}, (char[]){"one"}, NULL};
static char *envp_one[] = {(char[]){"A=b"}, NULL};
static const struct mm_limits no_limits = {UINT64_MAX, UINT64_MAX, 8 << 20, UINT64_MAX};

/* Loads @name; on success the caller puts @r. */
static int load_as(const char *name, struct exec_args *a, struct exec_result *r)
{
	struct file *file = exec_open(CTX, NULL, name, false, false);
	int err = PTR_ERR_OR_ZERO(file);

	if (err)
		return err;
	a->file = file;
	a->filename = name;
	a->ctx = CTX;
	if (!a->limits.as)
		a->limits = no_limits;
	err = exec_load(&fake.base, a, r);
	file_put(file);
	return err;
}

/* The errno of loading @name. Nothing may be left, whatever it is. */
static int try_load(const char *name)
{
	struct exec_args a = {.argv = argv_two, .envp = envp_one};
	struct counts before = counts_now(&w);
	struct exec_result r;
	int err = load_as(name, &a, &r);

	if (!err)
		exec_result_put(&r);
	if (!counts_same(&w, &before))
		CHECK("loading leaves nothing", false);
	return err;
}

static int try_prog(const struct prog *p)
{
	put_prog(&w.env, "/bin/test", p, 0755);
	try_load("/bin/test"); /* pages of the file are kept */
	return try_load("/bin/test");
}

static int try_script(const char *text)
{
	put_script(&w.env, "/bin/test", text);
	return try_load("/bin/test");
}

static int try_bytes(const void *bytes, size_t n)
{
	put_bytes_at(&w.env, "/bin/test", bytes, n, 0755);
	return try_load("/bin/test");
}

/* As what a script starts: "argv[0]|argv[1]|…", or the errno. */
static const char *script_argv(const char *text, struct exec_args *a)
{
	static char out[1024];
	struct exec_args plain = {.argv = argv_two, .envp = envp_one};
	struct exec_result r;
	struct task t = {0};
	struct start s;
	int err;

	put_script(&w.env, "/bin/test", text);
	err = load_as("/bin/test", a ? a : &plain, &r);
	if (err)
		return strerrorname_np(-err);
	t.mm = r.mm;
	t.regs.rsp = r.sp;
	read_start(&t, &s);
	out[0] = 0;
	for (uint64_t i = 0; i < s.argc; i++)
		snprintf(out + strlen(out), sizeof(out) - strlen(out), "%s%s", i ? "|" : "",
			 s.argv[i]);
	exec_result_put(&r);
	return out;
}

/* ---- 15, 16 ---- */

static void test_15_address_space(void)
{
	fake.fail_space = true;
	CHECK_EQ("15: no address space", try_load("/bin/prog"), -ENOMEM);
	CHECK_EQ("15: the next one", try_load("/bin/prog"), 0);
}

static void test_16_open(void)
{
	struct prog p;

	prog_init(&p, ET_EXEC);
	vfs_mknod(CTX, NULL, "/work/fifo", S_IFIFO | 0777, 0);
	CHECK_EQ("16: an empty name", try_load(""), -ENOENT);
	CHECK_EQ("16: a missing one", try_load("/no"), -ENOENT);
	CHECK_EQ("16: a directory", try_load("/bin"), -EACCES);
	CHECK_EQ("16: a FIFO", try_load("/work/fifo"), -EACCES);
	put_prog(&w.env, "/bin/test", &p, 0644);
	CHECK_EQ("16: not executable, even for root", try_load("/bin/test"), -EACCES);
	put_prog(&w.env, "/bin/test", &p, 0711);
	cred_put(w.env.ctx.cred);
	w.env.ctx.cred = cred_get(w.user);
	CHECK_EQ("16: execute permission is enough", try_load("/bin/test"), 0);
	cred_put(w.env.ctx.cred);
	w.env.ctx.cred = cred_alloc(0, 0, NULL, 0, CAP_FULL_SET);
	vfs_unlink(CTX, NULL, "/work/fifo");
	put_prog(&w.env, "/bin/test", &p, 0755);
}

static void test_16_busy(void)
{
	struct exec_args a = {.argv = argv_two, .envp = envp_one};
	struct exec_result r;
	struct file *f;
	struct prog p;

	prog_init(&p, ET_EXEC);
	put_prog(&w.env, "/bin/test", &p, 0755);
	f = xopen(&w.env, "/bin/test", O_RDWR);
	CHECK_EQ("16: open for writing", try_load("/bin/test"), -ETXTBSY);
	file_put(f);
	CHECK_EQ("16: loads when it is closed", load_as("/bin/test", &a, &r), 0);
	CHECK_EQ("16: and can't be written to then", try_open(&w.env, "/bin/test", O_RDWR),
		 -ETXTBSY);
	exec_result_put(&r);
	CHECK_EQ("16: until it ends", try_open(&w.env, "/bin/test", O_RDWR), 0);
}

/* ---- 17, 18: scripts ---- */

static void test_17_hops(void)
{
	char name[32], text[64];

	/* s0 is run by prog, s1 by s0, … */
	for (int i = 0; i < 7; i++) {
		snprintf(name, sizeof(name), "/bin/s%d", i);
		if (i)
			snprintf(text, sizeof(text), "#!/bin/s%d\n", i - 1);
		else
			snprintf(text, sizeof(text), "#!/bin/prog\n");
		put_script(&w.env, name, text);
	}
	put_script(&w.env, "/bin/self", "#!/bin/self\n");
	CHECK_EQ("17: one script", try_load("/bin/s0"), 0);
	CHECK_EQ("17: five, as on Linux", try_load("/bin/s4"), 0);
	CHECK_EQ("17: six", try_load("/bin/s5"), -ELOOP);
	CHECK_EQ("17: its own interpreter", try_load("/bin/self"), -ELOOP);
	CHECK_EQ("17: an empty file", try_script(""), -ENOEXEC);
	CHECK_EQ("17: an unknown one", try_script("echo hello\n"), -ENOEXEC);
	CHECK_EQ("17: half a mark", try_script("#"), -ENOEXEC);
}

static void test_18_scripts(void)
{
	struct exec_args cloexec = {.argv = argv_two, .envp = envp_one, .fd_cloexec = true};
	struct exec_args none = {.envp = envp_one};
	static char line[512];

#define SCRIPT(what, text, want) CHECK("18: " what, !strcmp(script_argv(text, NULL), want))
	SCRIPT("argv", "#!/bin/prog\n", "/bin/prog|/bin/test|one");
	SCRIPT("an argument", "#!/bin/prog arg\nrest", "/bin/prog|arg|/bin/test|one");
	SCRIPT("spaces and tabs around", "#! \t /bin/prog \t arg \t \n",
	       "/bin/prog|arg|/bin/test|one");
	SCRIPT("inner ones are kept", "#!/bin/prog a  b\tc\n", "/bin/prog|a  b\tc|/bin/test|one");
	SCRIPT("no newline", "#!/bin/prog x", "/bin/prog|x|/bin/test|one");
	SCRIPT("no interpreter", "#!\n", "ENOEXEC");
	SCRIPT("only blanks", "#! \t \n", "ENOEXEC");
	SCRIPT("nothing behind the mark", "#!", "ENOEXEC");
	SCRIPT("a missing interpreter", "#!/no\n", "ENOENT");
	SCRIPT("one that can't be run", "#!/work/text\n", "EACCES");
	SCRIPT("one without a path is below the working directory", "#!bin/prog\n",
	       "bin/prog|/bin/test|one");
#undef SCRIPT
	CHECK("18: closed on exec", !strcmp(script_argv("#!/bin/prog\n", &cloexec), "ENOENT"));
	CHECK("18: with no argv",
	      !strcmp(script_argv("#!/bin/prog\n", &none), "/bin/prog|/bin/test"));
	/* The line may be 256 bytes: a name that isn't over by then is none, an argument is cut. */
	snprintf(line, sizeof(line), "#!%.300s",
		 "/bin/../bin/../bin/../bin/../bin/../bin/../bin/../"
		 "bin/../bin/../bin/../bin/../bin/../bin/../bin/../bin/../bin/../bin/../bin/../bin/"
		 ".."
		 "/bin/../bin/../bin/../bin/../bin/../bin/../bin/../bin/../bin/../bin/../bin/../"
		 "bin/.."
		 "/bin/../bin/../bin/../bin/../bin/../bin/prog");
	CHECK("18: a name beyond the line's end", strlen(line) > 256);
	CHECK("18: is none", !strcmp(script_argv(line, NULL), "ENOEXEC"));
	memset(line, 'x', 300);
	memcpy(line, "#!/bin/prog ", 12);
	line[300] = 0;
	strtok((char *)(uintptr_t)script_argv(line, NULL), "|");
	CHECK("18: an argument is cut there", strlen(strtok(NULL, "|")) < 64 + 256 - 12);
}

/* ---- 19 to 22: ELF ---- */

static void test_19_header(void)
{
	struct prog p;

#define BAD(what, want, stmt)                                                                      \
	do {                                                                                       \
		prog_init(&p, ET_EXEC);                                                            \
		stmt;                                                                              \
		CHECK_EQ("19: " what, try_prog(&p), want);                                         \
	} while (0)
	BAD("what is right", 0, (void)0);
	BAD("no ELF", -ENOEXEC, p.bytes[1] = 'e');
	BAD("32 bits", -ENOEXEC, p.eh.e_ident[EI_CLASS] = ELFCLASS32);
	BAD("big-endian", -ENOEXEC, p.eh.e_ident[EI_DATA] = ELFDATA2MSB);
	BAD("another machine", -ENOEXEC, p.eh.e_machine = EM_AARCH64);
	BAD("an object file", -ENOEXEC, p.eh.e_type = ET_REL);
	BAD("a core file", -ENOEXEC, p.eh.e_type = ET_CORE);
	BAD("program headers of another size", -ENOEXEC, p.eh.e_phentsize++);
	BAD("no program headers", -ENOEXEC, p.eh.e_phnum = 0);
	BAD("more than a page of them", -ENOEXEC,
	    p.eh.e_phnum = PAGE_SIZE / sizeof(Elf64_Phdr) + 1);
	BAD("beyond the end of the file", -ENOEXEC, p.eh.e_phoff = p.size - 8);
	BAD("beyond everything", -ENOEXEC, p.eh.e_phoff = UINT64_MAX - 8);
	BAD("that overflows", -ENOEXEC, p.eh.e_phoff = INT64_MAX - 8);
	BAD("no segment", -ENOEXEC, p.ph[0].p_type = p.ph[1].p_type = PT_NULL);
	BAD("a segment around the end of addresses", -EINVAL,
	    p.ph[1].p_vaddr = UINT64_MAX - 0x1000 + 1);
	BAD("in the kernel's half", -EINVAL, p.ph[1].p_vaddr = 0xffff800000000000UL);
	BAD("more in the file than in memory", -EINVAL, p.ph[1].p_filesz = p.ph[1].p_memsz + 1);
	BAD("an offset that overflows", -EINVAL, p.ph[1].p_offset = UINT64_MAX & PAGE_MASK);
	BAD("a place that can't be mapped", -EINVAL, p.ph[1].p_vaddr += 8);
#undef BAD
	prog_init(&p, ET_EXEC);
	CHECK_EQ("19: a header cut short", try_bytes(p.bytes, sizeof(Elf64_Ehdr) - 1), -ENOEXEC);
	CHECK_EQ("19: headers cut short", try_bytes(p.bytes, sizeof(Elf64_Ehdr) + 100), -ENOEXEC);
}

static uint8_t byte_at(struct mm *mm, uaddr_t at)
{
	uint8_t b = 0x55;

	if (mm_copy_remote(mm, at, &b, 1, false, true) != 1)
		return 0x55;
	return b;
}

/* "r-xp" of what is mapped at @at, or "". */
static const char *prot_at(struct mm *mm, uaddr_t at)
{
	static char out[5];
	struct vma *v;

	read_lock(&mm->lock);
	v = vma_at(mm, at);
	out[0] = 0;
	if (v)
		snprintf(out, sizeof(out), "%c%c%c%c", v->prot & PROT_READ ? 'r' : '-',
			 v->prot & PROT_WRITE ? 'w' : '-', v->prot & PROT_EXEC ? 'x' : '-',
			 v->flags & VMA_SHARED ? 's' : 'p');
	read_unlock(&mm->lock);
	return out;
}

static void test_20_segments(void)
{
	struct exec_args a = {.argv = argv_two, .envp = envp_one};
	struct exec_result r;
	bool zero = true;
	struct prog p;

	prog_init(&p, ET_EXEC);
	put_prog(&w.env, "/bin/test", &p, 0755);
	if (load_as("/bin/test", &a, &r)) {
		CHECK("20: loads", false);
		return;
	}
	CHECK("20: text",
	      !strcmp(prot_at(r.mm, PROG_BASE), "r-xp") && byte_at(r.mm, PROG_BASE) == 0x7f);
	CHECK("20: data", !strcmp(prot_at(r.mm, PROG_BASE + PROG_DATA), "rw-p") &&
				  byte_at(r.mm, PROG_BASE + PROG_DATA + 0x122) == 0xee);
	for (uaddr_t at = 0x123; at < 0x4000; at++)
		zero = zero && !byte_at(r.mm, PROG_BASE + PROG_DATA + at);
	CHECK("20: zeroes behind it, to the end of the bss", zero);
	CHECK("20: the bss", !strcmp(prot_at(r.mm, PROG_BASE + PROG_DATA + 0x3000), "rw-p"));
	CHECK("20: and nothing more", !strcmp(prot_at(r.mm, PROG_BASE + PROG_DATA + 0x4000), ""));
	CHECK("20: the stack isn't executable", !strcmp(prot_at(r.mm, r.sp), "rw-p"));
	exec_result_put(&r);

	prog_init(&p, ET_EXEC);
	p.ph[2].p_flags |= PF_X;
	put_prog(&w.env, "/bin/test", &p, 0755);
	if (!load_as("/bin/test", &a, &r)) {
		CHECK("20: unless asked for", !strcmp(prot_at(r.mm, r.sp), "rwxp"));
		exec_result_put(&r);
	}
	prog_init(&p, ET_EXEC);
	prog_add(&p, PT_LOAD, PF_R, 0, 1, 0, 0);
	CHECK_EQ("20: an empty segment is none", try_prog(&p), 0);
	prog_init(&p, ET_EXEC);
	prog_add(&p, PT_LOAD, PF_R, 0, PROG_BASE - 0x1000, 0x100, 0x100);
	CHECK_EQ("20: segments out of order", try_prog(&p), -EINVAL);
	prog_init(&p, ET_EXEC);
	prog_add(&p, PT_LOAD, PF_R | PF_W, 0, PROG_BASE + 0x10000, 0, 0x2000);
	put_prog(&w.env, "/bin/test", &p, 0755);
	if (!load_as("/bin/test", &a, &r)) {
		CHECK("20: nothing of the file, all bss",
		      !byte_at(r.mm, PROG_BASE + 0x10000) && !byte_at(r.mm, PROG_BASE + 0x11fff));
		CHECK("20: holes stay holes", !strcmp(prot_at(r.mm, PROG_BASE + 0xf000), ""));
		exec_result_put(&r);
	}
	prog_init(&p, ET_EXEC);
	p.ph[1].p_offset = 0x100000;
	CHECK_EQ("20: a tail behind the end of the file", try_prog(&p), -EFAULT);
	prog_init(&p, ET_EXEC);
	p.ph[0].p_vaddr = 0;
	CHECK_EQ("20: at address 0", try_prog(&p), -EPERM);
}

static int try_interp(const char *interp, size_t size)
{
	struct prog p;

	prog_init(&p, ET_DYN);
	prog_set_interp(&p, interp);
	if (size != (size_t)-1)
		p.ph[3].p_filesz = size;
	return try_prog(&p);
}

static void test_21_interp(void)
{
	struct prog p;

	CHECK_EQ("21: an interpreter", try_interp("/lib/ld.so", -1), 0);
	CHECK_EQ("21: a name of one byte", try_interp("/lib/ld.so", 1), -ENOEXEC);
	CHECK_EQ("21: of too many", try_interp("/lib/ld.so", 4097), -ENOEXEC);
	CHECK_EQ("21: not terminated", try_interp("/lib/ld.so", 10), -ENOEXEC);
	CHECK_EQ("21: missing", try_interp("/no", -1), -ENOENT);
	CHECK_EQ("21: may not be run", try_interp("/work/text", -1), -EACCES);
	CHECK_EQ("21: a directory", try_interp("/lib", -1), -EACCES);
	CHECK_EQ("21: a script", try_interp("/bin/script", -1), -ELIBBAD);
	put_script(&w.env, "/lib/bad", "");
	CHECK_EQ("21: empty", try_interp("/lib/bad", -1), -ELIBBAD);
	prog_init(&p, ET_DYN);
	p.eh.e_machine = EM_386;
	put_prog(&w.env, "/lib/bad", &p, 0755);
	CHECK_EQ("21: of another machine", try_interp("/lib/bad", -1), -ELIBBAD);
	prog_init(&p, ET_DYN);
	p.ph[1].p_memsz = 1;
	put_prog(&w.env, "/lib/bad", &p, 0755);
	CHECK_EQ("21: with impossible segments", try_interp("/lib/bad", -1), -ELIBBAD);
	prog_init(&p, ET_DYN);
	p.eh.e_entry = USER_TOP;
	put_prog(&w.env, "/lib/bad", &p, 0755);
	CHECK_EQ("21: that begins nowhere", try_interp("/lib/bad", -1), -EINVAL);
	prog_init(&p, ET_DYN);
	prog_set_interp(&p, "/lib/ld.so");
	p.ph[3].p_offset = p.size - 4;
	CHECK_EQ("21: a name behind the end of the file", try_prog(&p), -ENOEXEC);
}

static void test_22_places(void)
{
	struct exec_args a = {.argv = argv_two, .envp = envp_one};
	uaddr_t entry[2];
	struct exec_result r;
	struct task t = {0};
	struct start s;
	struct prog p;

	prog_init(&p, ET_EXEC);
	put_prog(&w.env, "/bin/test", &p, 0755);
	CHECK_EQ("22: a program at its own place", load_as("/bin/test", &a, &r), 0);
	t = (struct task){.mm = r.mm, .regs.rsp = r.sp};
	read_start(&t, &s);
	CHECK_EQ("22: entry", r.entry, PROG_BASE + 0x1000);
	CHECK("22: no base", s.has_aux[AT_BASE] && !s.aux[AT_BASE]);
	CHECK_EQ("22: program headers", s.aux[AT_PHDR], PROG_BASE + sizeof(Elf64_Ehdr));
	CHECK("22: brk behind it, page-aligned", r.mm->brk >= PROG_BASE + PROG_DATA + 0x4000 &&
							 !(r.mm->brk & ~PAGE_MASK) &&
							 r.mm->brk_start == r.mm->brk);
	exec_result_put(&r);

	for (int i = 0; i < 2; i++) {
		uaddr_t bias;

		CHECK_EQ("22: a placeable one", load_as("/bin/dynamic", &a, &r), 0);
		t = (struct task){.mm = r.mm, .regs.rsp = r.sp};
		read_start(&t, &s);
		bias = s.aux[AT_ENTRY] - 0x1000;
		entry[i] = s.aux[AT_ENTRY];
		CHECK_EQ("22: the interpreter begins", r.entry, s.aux[AT_BASE] + 0x1000);
		CHECK("22: away from the program", s.aux[AT_BASE] > bias + (1UL << 30));
		CHECK("22: both are there",
		      byte_at(r.mm, bias) == 0x7f && byte_at(r.mm, s.aux[AT_BASE]) == 0x7f);
		CHECK("22: brk has room to grow",
		      mm_brk(r.mm, r.mm->brk + (512UL << 20)) == r.mm->brk_start + (512UL << 20));
		exec_result_put(&r);
	}
	CHECK("22: at random", entry[0] != entry[1]);
	a.personality = ADDR_NO_RANDOMIZE;
	for (int i = 0; i < 2; i++) {
		CHECK_EQ("22: without", load_as("/bin/dynamic", &a, &r), 0);
		entry[i] = r.entry;
		exec_result_put(&r);
	}
	CHECK_EQ("22: at one place", entry[0], entry[1]);

	prog_init(&p, ET_EXEC);
	p.ph[0].p_vaddr = USER_TOP - 0x10000;
	p.ph[1].p_vaddr = USER_TOP - 0x10000 + PROG_DATA;
	put_prog(&w.env, "/bin/test", &p, 0755);
	CHECK_EQ("22: where the stack is", load_as("/bin/test", &a, &r), -EEXIST);
	prog_init(&p, ET_DYN);
	p.ph[1].p_vaddr = USER_TOP - 0x8000 + (PROG_DATA & ~PAGE_MASK);
	CHECK_EQ("22: too large for any place", try_prog(&p), -ENOMEM);
}

/* ---- 23: the stack ---- */

static void test_23_stack(void)
{
	char big[] = "a long argument";
	char *argv[] = {big, (char[]){""}, (char[]){"x"}, NULL};
	char *envp[] = {(char[]){"A="}, (char[]){"B=c d"}, NULL};
	struct exec_args a = {.argv = argv, .envp = envp};
	struct exec_result r;
	uint8_t random[2][16];
	struct task t = {0};
	char name[64];
	struct start s;

	if (load_as("/bin/dynamic", &a, &r)) {
		CHECK("23: loads", false);
		return;
	}
	t = (struct task){.mm = r.mm, .regs.rsp = r.sp};
	read_start(&t, &s);
	CHECK("23: aligned", !(r.sp & 15));
	CHECK("23: argv",
	      s.argc == 3 && !strcmp(s.argv[0], big) && !s.argv[1][0] && !strcmp(s.argv[2], "x"));
	CHECK("23: envp", s.envc == 2 && !strcmp(s.envp[0], "A=") && !strcmp(s.envp[1], "B=c d"));
	CHECK("23: arguments in one piece",
	      r.mm->arg_end - r.mm->arg_start == sizeof(big) + 1 + 2 &&
		      r.mm->env_start == r.mm->arg_end);
	CHECK("23: environment behind them", r.mm->env_end - r.mm->env_start == 3 + 6);
	peek_string(r.mm, s.aux[AT_EXECFN], name, sizeof(name));
	CHECK("23: file name", !strcmp(name, "/bin/dynamic"));
	CHECK("23: at the very top",
	      s.aux[AT_EXECFN] + sizeof("/bin/dynamic") == r.mm->stack_top - 8);
	CHECK("23: strings below", r.mm->env_end == s.aux[AT_EXECFN]);
	peek_string(r.mm, s.aux[AT_PLATFORM], name, sizeof(name));
	CHECK("23: platform", !strcmp(name, "x86_64"));
	CHECK("23: program headers", s.aux[AT_PHENT] == sizeof(Elf64_Phdr) &&
					     s.aux[AT_PHNUM] == 4 &&
					     s.aux[AT_PHDR] == s.aux[AT_ENTRY] - 0x1000 + 64);
	CHECK("23: page size, clock", s.aux[AT_PAGESZ] == PAGE_SIZE && s.aux[AT_CLKTCK] == 100);
	CHECK("23: IDs", s.has_aux[AT_UID] && !s.aux[AT_UID] && !s.aux[AT_EUID] &&
				 s.has_aux[AT_GID] && !s.aux[AT_GID] && !s.aux[AT_EGID]);
	CHECK("23: not secure", s.has_aux[AT_SECURE] && !s.aux[AT_SECURE]);
	CHECK("23: features", s.aux[AT_HWCAP] && s.has_aux[AT_HWCAP2]);
	CHECK("23: room for signals", s.aux[AT_MINSIGSTKSZ] >= 1024 &&
					  s.aux[AT_MINSIGSTKSZ] % 16 == 0);
	CHECK("23: the vDSO", s.aux[AT_SYSINFO_EHDR] == r.mm->vdso &&
				      byte_at(r.mm, r.mm->vdso) == 0x7f &&
				      !strcmp(prot_at(r.mm, r.mm->vdso), "r-xp"));
	CHECK("23: the task's name", !strcmp(r.comm, "dynamic"));
	mm_copy_remote(r.mm, s.aux[AT_RANDOM], random[0], 16, false, true);
	exec_result_put(&r);

	a = (struct exec_args){.envp = NULL};
	put_script(&w.env, "/bin/a-name-of-more-than-15", "#!/bin/prog\n");
	CHECK_EQ("23: again", load_as("/bin/a-name-of-more-than-15", &a, &r), 0);
	t = (struct task){.mm = r.mm, .regs.rsp = r.sp};
	read_start(&t, &s);
	mm_copy_remote(r.mm, s.aux[AT_RANDOM], random[1], 16, false, true);
	CHECK("23: random bytes", memcmp(random[0], random[1], 16));
	CHECK("23: the script's name, 15 bytes", !strcmp(r.comm, "a-name-of-more-"));
	CHECK("23: no environment", !s.envc);
	exec_result_put(&r);

	a = (struct exec_args){.envp = NULL};
	CHECK_EQ("23: no arguments", load_as("/bin/prog", &a, &r), 0);
	t = (struct task){.mm = r.mm, .regs.rsp = r.sp};
	read_start(&t, &s);
	CHECK("23: are one empty one", s.argc == 1 && !s.argv[0][0]);
	exec_result_put(&r);
}

static void test_23_limits(void)
{
	static char longest[128 << 10], too_long[(128 << 10) + 1];
	char *argv[70] = {longest, NULL}, *envp[] = {longest, NULL};
	struct exec_args a = {.argv = argv, .envp = envp};
	struct counts before;
	struct exec_result r;

	memset(longest, 'l', sizeof(longest) - 1);
	memset(too_long, 'l', sizeof(too_long) - 1);
	CHECK_EQ("23: the longest string", load_as("/bin/prog", &a, &r), 0);
	exec_result_put(&r);
	before = counts_now(&w);
	argv[0] = too_long;
	CHECK_EQ("23: one byte more", load_as("/bin/prog", &a, &r), -E2BIG);
	argv[0] = longest;
	envp[0] = too_long;
	CHECK_EQ("23: in the environment", load_as("/bin/prog", &a, &r), -E2BIG);
	envp[0] = NULL;
	for (size_t i = 0; i < 15; i++)
		argv[i] = longest;
	CHECK_EQ("23: below a quarter of the stack", load_as("/bin/prog", &a, &r), 0);
	exec_result_put(&r);
	for (size_t i = 0; i < 17; i++)
		argv[i] = longest;
	CHECK_EQ("23: beyond it", load_as("/bin/prog", &a, &r), -E2BIG);
	a.limits = no_limits;
	a.limits.stack = UINT64_MAX;
	CHECK_EQ("23: a larger stack", load_as("/bin/prog", &a, &r), 0);
	exec_result_put(&r);
	for (size_t i = 0; i < 60; i++)
		argv[i] = longest;
	CHECK_EQ("23: six MiB at most", load_as("/bin/prog", &a, &r), -E2BIG);
	CHECK_COUNTS("23: nothing is left", &w, &before);
	argv[0] = envp_one[0];
	argv[1] = NULL;
	a.limits.stack = PAGE_SIZE;
	CHECK_EQ("23: hardly any stack", load_as("/bin/prog", &a, &r), 0);
	exec_result_put(&r);
	a.limits.stack = 8 << 20;
	a.limits.as = 8 * PAGE_SIZE;
	CHECK_EQ("23: RLIMIT_AS", load_as("/bin/prog", &a, &r), -ENOMEM);
	CHECK_COUNTS("23: leaves nothing either", &w, &before);
}

/* ---- 24: credentials ---- */

/* /bin/test with @mode, owner 5:6, and file capabilities (@caps NULL: none). */
static void put_cred_prog(mode_t mode, const struct vfs_cap_data *caps)
{
	struct iattr_change c = {.valid = ATTR_UID | ATTR_GID, .uid = 5, .gid = 6};
	struct path path;
	struct prog p;

	prog_init(&p, ET_EXEC);
	vfs_unlink(CTX, NULL, "/bin/test");
	put_prog(&w.env, "/bin/test", &p, 0755);
	path = xlookup(&w.env, "/bin/test", 0);
	vfs_setattr(CTX, &path, &c);
	c = (struct iattr_change){.valid = ATTR_MODE, .mode = mode};
	vfs_setattr(CTX, &path, &c);
	if (caps && vfs_setxattr(CTX, &path, XATTR_NAME_CAPS, caps, sizeof(*caps), 0))
		CHECK("24: file capabilities", false);
	path_put(&path);
}

static struct vfs_cap_data file_caps(uint32_t permitted, uint32_t inheritable, bool effective)
{
	return (struct vfs_cap_data){.magic_etc = VFS_CAP_REVISION_2 |
						  (effective ? VFS_CAP_FLAGS_EFFECTIVE : 0),
				     .data[0] = {permitted, inheritable}};
}

/* Credentials after loading /bin/test with @old (edited by the caller, consumed). ERR_PTR. */
static struct cred *run_as(struct cred *old, bool no_new_privs, bool *secure)
{
	struct exec_args a = {.argv = argv_two, .no_new_privs = no_new_privs};
	struct cred *saved = w.env.ctx.cred, *c;
	struct exec_result r;
	struct task t = {0};
	struct start s;
	int err;

	w.env.ctx.cred = old;
	err = load_as("/bin/test", &a, &r);
	w.env.ctx.cred = saved;
	cred_put(old);
	if (err)
		return ERR_PTR(err);
	t = (struct task){.mm = r.mm, .regs.rsp = r.sp};
	read_start(&t, &s);
	*secure = s.aux[AT_SECURE];
	c = cred_get(r.cred);
	exec_result_put(&r);
	return c;
}

/* Without capabilities, but with nothing out of bounds. */
static struct cred *user_cred(void)
{
	struct cred *c = cred_alloc(1000, 1000, NULL, 0, 0);

	c->cap_bset = CAP_FULL_SET;
	return c;
}

static void test_24_set_id(void)
{
	struct cred *c;
	bool secure;

	put_cred_prog(04755, NULL);
	c = run_as(user_cred(), false, &secure);
	CHECK("24: set-user-id", c->uid == 1000 && c->euid == 5 && c->suid == 5 && c->fsuid == 5 &&
					 c->egid == 1000 && secure);
	cred_put(c);
	put_cred_prog(02755, NULL);
	c = run_as(user_cred(), false, &secure);
	CHECK("24: set-group-id", c->gid == 1000 && c->egid == 6 && c->sgid == 6 && c->fsgid == 6 &&
					  c->euid == 1000 && secure);
	cred_put(c);
	put_cred_prog(02745, NULL);
	c = run_as(user_cred(), false, &secure);
	CHECK("24: not without group execution", c->egid == 1000 && !secure);
	cred_put(c);
	put_cred_prog(06755, NULL);
	c = run_as(user_cred(), true, &secure);
	CHECK("24: neither under no_new_privs", c->euid == 1000 && c->egid == 1000 && !secure);
	cred_put(c);
	put_cred_prog(0755, NULL);
	c = user_cred();
	c->euid = 7;
	c = run_as(c, false, &secure);
	CHECK("24: saved and file system IDs follow", c->suid == 7 && c->fsuid == 7 && secure);
	cred_put(c);
}

static void test_24_capabilities(void)
{
	const uint32_t net = CAP_BIT(CAP_NET_RAW), chown = CAP_BIT(CAP_CHOWN);
	struct vfs_cap_data caps;
	struct cred *c;
	bool secure;

	caps = file_caps(net, 0, true);
	put_cred_prog(0755, &caps);
	c = run_as(user_cred(), false, &secure);
	CHECK("24: file capabilities",
	      !IS_ERR(c) && c->cap_permitted == net && c->cap_effective == net && secure);
	cred_put(c);
	c = user_cred();
	c->cap_bset = chown;
	c = run_as(c, false, &secure);
	CHECK_EQ("24: out of bounds with the effective bit", PTR_ERR_OR_ZERO(c), -EPERM);
	c = run_as(user_cred(), true, &secure);
	CHECK("24: not under no_new_privs", !IS_ERR(c) && !c->cap_permitted && !secure);
	cred_put(c);
	c = user_cred();
	c->cap_permitted = c->cap_inheritable = c->cap_ambient = chown;
	c = run_as(c, false, &secure);
	CHECK("24: they end ambient ones", !c->cap_ambient && c->cap_permitted == net);
	cred_put(c);

	caps = file_caps(net, 0, false);
	put_cred_prog(0755, &caps);
	c = run_as(user_cred(), false, &secure);
	CHECK("24: without the effective bit", c->cap_permitted == net && !c->cap_effective);
	cred_put(c);
	c = user_cred();
	c->cap_bset = chown;
	c = run_as(c, false, &secure);
	CHECK("24: what is out of bounds is just missing", !IS_ERR(c) && !c->cap_permitted);
	cred_put(c);

	caps = file_caps(0, chown, true);
	put_cred_prog(0755, &caps);
	c = user_cred();
	c->cap_inheritable = chown | net;
	c = run_as(c, false, &secure);
	CHECK("24: inheritable in both", c->cap_permitted == chown && c->cap_effective == chown &&
						 c->cap_inheritable == (chown | net));
	cred_put(c);

	put_cred_prog(0755, NULL);
	c = user_cred();
	c->cap_permitted = c->cap_effective = c->cap_inheritable = net | chown;
	c->cap_ambient = chown;
	c = run_as(c, false, &secure);
	CHECK("24: ambient ones stay, others go", c->cap_permitted == chown &&
							  c->cap_effective == chown &&
							  c->cap_ambient == chown && !secure);
	cred_put(c);
}

static void test_24_root(void)
{
	struct cred *c;
	bool secure;

	put_cred_prog(0755, NULL);
	c = cred_alloc(0, 0, NULL, 0, 0);
	c->cap_bset = CAP_BIT(CAP_KILL);
	c = run_as(c, false, &secure);
	CHECK("24: root has what its bounds allow", c->cap_permitted == CAP_BIT(CAP_KILL) &&
							    c->cap_effective == c->cap_permitted &&
							    !secure);
	cred_put(c);
	c = cred_alloc(0, 0, NULL, 0, 0);
	c->cap_bset = CAP_FULL_SET;
	c = run_as(c, true, &secure);
	CHECK("24: but gains nothing under no_new_privs", !c->cap_permitted && !c->cap_effective);
	cred_put(c);
	c = cred_alloc(0, 0, NULL, 0, CAP_FULL_SET);
	c->securebits = SECBIT_NOROOT;
	c = run_as(c, false, &secure);
	CHECK("24: nor with SECBIT_NOROOT", !c->cap_permitted && !c->cap_effective);
	cred_put(c);
	c = cred_alloc(0, 0, NULL, 0, CAP_FULL_SET);
	c->euid = 1000;
	c = run_as(c, false, &secure);
	CHECK("24: a real root: permitted, not effective",
	      c->cap_permitted == c->cap_bset && !c->cap_effective);
	cred_put(c);
	c = user_cred();
	c->securebits = SECBIT_KEEP_CAPS;
	c = run_as(c, false, &secure);
	CHECK("24: keep-caps is cleared", !c->securebits);
	cred_put(c);
}

static void tests(void)
{
	world_open_init(&w);
	test_15_address_space();
	test_16_open();
	test_16_busy();
	test_17_hops();
	test_18_scripts();
	test_19_header();
	test_20_segments();
	test_21_interp();
	test_22_places();
	test_23_stack();
	test_23_limits();
	test_24_set_id();
	test_24_capabilities();
	test_24_root();
	world_close(&w);
}

int main(void)
{
	return process_test_main(tests);
}
