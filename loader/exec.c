/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: follow scripts to a binary, map it and its interpreter, build the stack.
 *
 * Everything happens in a fresh mm, so a failure leaves the caller as it was.
 */
#include "loader/exec.h"

#include <errno.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/random.h>
#include <sys/resource.h>

#include "loader/elf.h"
#include "loader/vdso.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"

#define BINPRM_BUF_SIZE	    256 /* Linux's: what of a script's first line is looked at */
#define SCRIPT_MAX_DEPTH    5	/* interpreters of interpreters; then ELOOP */
#define EXEC_MAX_STRLEN	    (128UL << 10)
#define EXEC_MAX_STACK_ARGS (6UL << 20) /* 3/4 of the default stack limit */
#define ELF_ET_DYN_BASE	    (0x555555554000UL)
#define STACK_RANDOM_PAGES  0x3fffffUL
#define MMAP_RANDOM_PAGES   0xfffffffUL
#define STACK_INITIAL	    (132UL << 10)

struct loading {
	const struct exec_args *args;
	struct file *file; /* the binary in the end; reference */
	char **argv;	   /* kmalloc'd array of kmalloc'd strings */
	size_t argc;
	char buf[BINPRM_BUF_SIZE + 1] __attribute__((aligned(8))); /* the file header is in it */
	size_t buf_len;
	struct mm *mm;
	struct elf_info *elf;
	uaddr_t bias, interp_base, interp_entry;
	bool has_interp, secure, exec_stack;
	struct cred *cred;
};

static uint64_t random_u64(void)
{
	uint64_t v = 0;

	if (getrandom(&v, sizeof(v), 0) != sizeof(v))
		log_error("the host gives no random numbers: addresses are predictable");
	return v;
}

/* ---- opening ---- */

struct file *exec_open(const struct vfs_ctx *ctx, const struct path *base, const char *name,
		       bool nofollow, bool empty_path)
{
	unsigned int flags = (nofollow ? 0 : WALK_FOLLOW) | (empty_path ? WALK_EMPTY : 0);

	return file_open_exec(ctx, base, name, flags);
}

/* ---- scripts ---- */

static void argv_free(struct loading *l)
{
	for (size_t i = 0; l->argv && i < l->argc; i++)
		kfree(l->argv[i]);
	kfree(l->argv);
	l->argv = NULL;
}

static size_t count(char **v)
{
	size_t n = 0;

	while (v && v[n])
		n++;
	return n;
}

static int argv_copy(struct loading *l, char **argv)
{
	/* As Linux 5.18 and later: no argv at all becomes one empty string. */
	static char empty[1], *none[] = {empty, NULL};
	size_t n;

	if (!argv || !argv[0])
		argv = none;
	n = count(argv);
	l->argv = kcalloc(n + 1, sizeof(*l->argv));
	if (!l->argv)
		return -ENOMEM;
	for (; l->argc < n; l->argc++) {
		l->argv[l->argc] = kstrdup(argv[l->argc]);
		if (!l->argv[l->argc])
			return -ENOMEM;
	}
	return 0;
}

/* argv becomes: interpreter, [argument], script, argv[1]… */
static int argv_for_script(struct loading *l, const char *interp, const char *arg,
			   const char *script)
{
	size_t extra = arg ? 3 : 2, keep = l->argc ? l->argc - 1 : 0, n = 0;
	char **v = kcalloc(extra + keep + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	v[n++] = kstrdup(interp);
	if (arg)
		v[n++] = kstrdup(arg);
	v[n++] = kstrdup(script);
	for (size_t i = 0; i < n; i++) {
		if (v[i])
			continue;
		while (n)
			kfree(v[--n]);
		kfree(v);
		return -ENOMEM;
	}
	for (size_t i = 1; i < l->argc; i++)
		v[n++] = l->argv[i];
	if (l->argc)
		kfree(l->argv[0]);
	kfree(l->argv);
	l->argv = v;
	l->argc = n;
	return 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/*
 * Splits "#! interpreter [argument]". The line ends at a newline; one that doesn't end within the
 * buffer is fine only if the interpreter's name does.
 */
static int parse_script(char *line, size_t len, char **interp, char **arg)
{
	char *end = memchr(line, '\n', len), *p, *q;

	if (!end) {
		end = line + len;
		if (len == BINPRM_BUF_SIZE) {
			for (p = line + 2; p < end && is_blank(*p); p++)
				;
			for (; p < end && !is_blank(*p) && *p; p++)
				;
			if (p == end)
				return -ENOEXEC;
		}
	}
	*end = 0;
	while (end > line + 2 && is_blank(end[-1]))
		*--end = 0;
	for (p = line + 2; is_blank(*p); p++)
		;
	if (!*p)
		return -ENOEXEC;
	*interp = p;
	for (q = p; *q && !is_blank(*q); q++)
		;
	*arg = NULL;
	if (*q) {
		*q++ = 0;
		while (is_blank(*q))
			q++;
		if (*q)
			*arg = q;
	}
	return 0;
}

static int read_head(struct loading *l)
{
	ssize_t n = file_read_kernel(l->file, l->buf, BINPRM_BUF_SIZE, 0);

	if (n < 0)
		return (int)n;
	l->buf_len = (size_t)n;
	l->buf[n] = 0;
	return 0;
}

/* Follows #! lines until l->file is no script. */
static int follow_scripts(struct loading *l)
{
	char *script = kstrdup(l->args->filename);
	int err = script ? 0 : -ENOMEM;

	for (int depth = 0; !err; depth++) {
		char *interp, *arg, *next;
		struct file *file;

		err = read_head(l);
		if (err || l->buf_len < 2 || l->buf[0] != '#' || l->buf[1] != '!')
			break;
		if (l->args->fd_cloexec)
			err = -ENOENT;
		else if (depth >= SCRIPT_MAX_DEPTH)
			err = -ELOOP;
		if (!err)
			err = parse_script(l->buf, l->buf_len, &interp, &arg);
		if (!err)
			err = argv_for_script(l, interp, arg, script);
		if (err)
			break;
		next = kstrdup(interp);
		file = next ? exec_open(l->args->ctx, NULL, interp, false, false)
			    : ERR_PTR(-ENOMEM);
		kfree(script);
		script = next;
		if (IS_ERR(file)) {
			err = (int)PTR_ERR(file);
			break;
		}
		file_put(l->file);
		l->file = file;
	}
	kfree(script);
	return err;
}

/* ---- mapping ---- */

static unsigned long seg_prot(unsigned int flags)
{
	return (flags & PF_R ? PROT_READ : 0ul) | (flags & PF_W ? PROT_WRITE : 0ul) |
	       (flags & PF_X ? PROT_EXEC : 0ul);
}

/* Into a fresh private mapping, whatever its protection: only memory can be missing. */
static int put_bytes(struct mm *mm, uaddr_t addr, const void *buf, size_t len)
{
	return mm_copy_remote(mm, addr, (void *)(uintptr_t)buf, len, true, true) == len ? 0
											: -ENOMEM;
}

static int zero_range(struct mm *mm, uaddr_t start, size_t len)
{
	static const char zeroes[256];

	while (len) {
		size_t n = MIN(len, sizeof(zeroes));
		int err = put_bytes(mm, start, zeroes, n);

		if (err)
			return err;
		start += n;
		len -= n;
	}
	return 0;
}

/* One PT_LOAD: file pages, zeroed tail, bss. */
static int map_segment(struct mm *mm, struct file *file, const struct elf_segment *s, uaddr_t bias)
{
	uaddr_t start = PAGE_ALIGN_DOWN(s->vaddr + bias);
	uaddr_t file_end = s->vaddr + bias + s->filesz, mem_end = s->vaddr + bias + s->memsz;
	unsigned long prot = seg_prot(s->flags);
	long ret;

	if (s->filesz) {
		ret = mm_mmap(mm, start, file_end - start, prot,
			      MAP_PRIVATE | MAP_FIXED | MAP_DENYWRITE, file,
			      PAGE_ALIGN_DOWN(s->offset));
		if (ret < 0)
			return (int)ret;
	} else {
		file_end = start;
	}
	/* Linux zeroes to the page's end; a segment that can't be written keeps its file. */
	if (mem_end > file_end && (file_end & ~PAGE_MASK) && (s->flags & PF_W)) {
		/* Behind the file's end there is no page to zero. */
		if (PAGE_ALIGN_DOWN(s->offset + s->filesz) >=
		    __atomic_load_n(&file->inode->size, __ATOMIC_RELAXED))
			return -EFAULT;
		ret = zero_range(mm, file_end, PAGE_ALIGN_UP(file_end) - file_end);
		if (ret)
			return (int)ret;
	}
	if (PAGE_ALIGN_UP(mem_end) > PAGE_ALIGN_UP(file_end)) {
		ret = mm_mmap(mm, PAGE_ALIGN_UP(file_end),
			      PAGE_ALIGN_UP(mem_end) - PAGE_ALIGN_UP(file_end),
			      PROT_READ | PROT_WRITE | (prot & PROT_EXEC),
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, NULL, 0);
		if (ret < 0)
			return (int)ret;
	}
	return 0;
}

/*
 * All segments of @elf at @bias. The span must be free (-EEXIST, for a file that says where it
 * wants to be), or be @reserved already; what lies between the segments is free again afterwards.
 */
static int map_image(struct mm *mm, struct file *file, const struct elf_info *elf, uaddr_t bias,
		     bool reserved)
{
	uaddr_t at = elf->low + bias;

	if (!reserved) {
		long ret = mm_mmap(
			mm, at, elf->high - elf->low, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, NULL, 0);

		if (ret < 0)
			return (int)ret;
	}
	for (unsigned int i = 0; i < elf->nsegs; i++) {
		const struct elf_segment *s = &elf->seg[i];
		uaddr_t start = PAGE_ALIGN_DOWN(s->vaddr + bias);
		int err = 0;

		if (start > at)
			err = mm_munmap(mm, at, start - at);
		if (!err)
			err = map_segment(mm, file, s, bias);
		if (err)
			return err;
		at = MAX(at, PAGE_ALIGN_UP(s->vaddr + s->memsz + bias));
	}
	return 0;
}

/* All of [pos, pos+len). A file that ends before is none of ours. */
static int read_exactly(struct file *file, void *buf, size_t len, uint64_t pos)
{
	ssize_t n = file_read_kernel(file, buf, len, pos);

	if (n < 0)
		return (int)n;
	return (size_t)n == len ? 0 : -ENOEXEC;
}

/* Headers of @file into a kmalloc'd elf_info. */
static struct elf_info *read_elf(struct file *file, const char *head, size_t head_len)
{
	const Elf64_Ehdr *ehdr;
	struct elf_info *info;
	Elf64_Phdr *phdrs;
	size_t size;
	int err;

	err = elf_check_header(head, head_len, &ehdr);
	if (err)
		return ERR_PTR(err);
	size = ehdr->e_phnum * sizeof(*phdrs);
	phdrs = kmalloc(size);
	info = kmalloc(sizeof(*info));
	err = phdrs && info ? 0 : -ENOMEM;
	if (!err)
		err = read_exactly(file, phdrs, size, ehdr->e_phoff);
	if (!err)
		err = elf_parse(ehdr, phdrs, info);
	kfree(phdrs);
	if (err) {
		kfree(info);
		return ERR_PTR(err);
	}
	return info;
}

/* The interpreter's file with its parsed headers. */
static struct file *open_interp(struct loading *l, struct elf_info **info)
{
	char name[PATH_MAX + 1] __attribute__((aligned(8))),
		head[BINPRM_BUF_SIZE] __attribute__((aligned(8)));
	struct file *file;
	ssize_t n;
	int err;

	err = read_exactly(l->file, name, l->elf->interp_size, l->elf->interp_offset);
	if (!err && name[l->elf->interp_size - 1])
		err = -ENOEXEC;
	if (err)
		return ERR_PTR(err);
	file = exec_open(l->args->ctx, NULL, name, false, false);
	if (IS_ERR(file))
		return file;
	n = file_read_kernel(file, head, sizeof(head), 0);
	if (n < 0) {
		err = (int)n;
		goto out_file;
	}
	*info = read_elf(file, head, (size_t)n);
	err = PTR_ERR_OR_ZERO(*info);
	if (err == -ENOEXEC || err == -EINVAL)
		err = -ELIBBAD;
	if (err)
		goto out_file;
	return file;

out_file:
	file_put(file);
	return ERR_PTR(err);
}

static int map_interp(struct loading *l)
{
	struct elf_info *info;
	struct file *file;
	uaddr_t base = 0;
	bool reserved;
	int err = 0;

	if (!l->elf->interp_size)
		return 0;
	file = open_interp(l, &info);
	if (IS_ERR(file))
		return (int)PTR_ERR(file);
	reserved = info->dyn;
	if (reserved) {
		long at = mm_mmap(l->mm, 0, info->high - info->low, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, NULL, 0);

		if (at < 0)
			err = (int)at;
		else
			base = (uaddr_t)at - info->low;
	}
	if (!err)
		err = map_image(l->mm, file, info, base, reserved);
	if (!err) {
		l->has_interp = true;
		l->interp_base = base;
		l->interp_entry = base + info->entry;
		if (l->interp_entry >= USER_TOP)
			err = -EINVAL;
	}
	kfree(info);
	file_put(file);
	return err;
}

/* PIE goes to the lower two thirds, away from where mmap grows down; brk gets the room above it. */
static int choose_bias(struct loading *l)
{
	struct elf_info *elf = l->elf;
	uaddr_t base, offset = 0;

	if (!elf->dyn)
		return 0;
	if (!(l->args->personality & ADDR_NO_RANDOMIZE))
		offset = (random_u64() & MMAP_RANDOM_PAGES) << PAGE_SHIFT;
	base = ALIGN_DOWN(ELF_ET_DYN_BASE + offset, MAX(elf->align, PAGE_SIZE));
	if (elf->high - elf->low > USER_TOP - base)
		return -ENOMEM;
	l->bias = base - elf->low;
	return 0;
}

static int map_binary(struct loading *l)
{
	struct mm *mm = l->mm;
	uaddr_t end, brk;
	int err;

	err = choose_bias(l);
	if (!err)
		err = map_image(mm, l->file, l->elf, l->bias, false);
	if (err)
		return err;
	end = l->elf->high + l->bias;
	brk = end;
	if (!(l->args->personality & ADDR_NO_RANDOMIZE))
		brk += (random_u64() & 0x1fff) << PAGE_SHIFT;
	mm->brk_start = mm->brk = brk;
	return 0;
}

/* ---- the stack ---- */

static int push_bytes(struct mm *mm, uaddr_t *sp, const void *buf, size_t len)
{
	*sp -= len;
	return put_bytes(mm, *sp, buf, len);
}

/* Bytes the strings need; -E2BIG when one, or all together, are too long. */
static long strings_size(char **v, size_t limit)
{
	size_t total = 0;

	for (; v && *v; v++) {
		size_t n = strlen(*v) + 1;

		if (n > EXEC_MAX_STRLEN)
			return -E2BIG;
		total += n + sizeof(uaddr_t);
		if (total > limit)
			return -E2BIG;
	}
	return (long)total;
}

/* Writes the strings of @v upwards from *@at, their addresses to @out. */
static int put_strings(struct mm *mm, char **v, uaddr_t *at, uint64_t *out)
{
	for (; v && *v; v++) {
		size_t n = strlen(*v) + 1;
		int err = put_bytes(mm, *at, *v, n);

		if (err)
			return err;
		*out++ = *at;
		*at += n;
	}
	*out = 0;
	return 0;
}

static size_t fill_auxv(struct loading *l, uint64_t *av, uaddr_t random, uaddr_t execfn,
			uaddr_t platform)
{
	const struct cred *c = l->cred;
	size_t n = 0;

#define AUX(type, value)                                                                           \
	do {                                                                                       \
		av[n++] = (type);                                                                  \
		av[n++] = (uint64_t)(value);                                                       \
	} while (0)
	if (l->mm->vdso)
		AUX(AT_SYSINFO_EHDR, l->mm->vdso);
	AUX(AT_HWCAP, arch_hwcap());
	AUX(AT_PAGESZ, PAGE_SIZE);
	AUX(AT_CLKTCK, 100);
	AUX(AT_PHDR, l->elf->phdr_vaddr ? l->elf->phdr_vaddr + l->bias : 0);
	AUX(AT_PHENT, sizeof(Elf64_Phdr));
	AUX(AT_PHNUM, l->elf->phnum);
	AUX(AT_BASE, l->interp_base);
	AUX(AT_FLAGS, 0);
	AUX(AT_ENTRY, l->elf->entry + l->bias);
	AUX(AT_UID, c->uid);
	AUX(AT_EUID, c->euid);
	AUX(AT_GID, c->gid);
	AUX(AT_EGID, c->egid);
	AUX(AT_SECURE, l->secure);
	AUX(AT_RANDOM, random);
	AUX(AT_HWCAP2, arch_hwcap2());
	AUX(AT_EXECFN, execfn);
	AUX(AT_PLATFORM, platform);
	AUX(AT_MINSIGSTKSZ, arch_minsigstksz());
	AUX(AT_NULL, 0);
#undef AUX
	return n;
}

/*
 * From the top: file name, 16 random bytes, platform string, environment strings, argument strings,
 * padding, auxv, envp, argv, argc.
 */
static int build_stack(struct loading *l, uaddr_t *sp_out)
{
	struct mm *mm = l->mm;
	char **envp = l->args->envp;
	size_t argc = l->argc, envc = count(envp), words, i = 0;
	uaddr_t sp = mm->stack_top - sizeof(uint64_t), execfn, random, platform, strings;
	uint64_t seed[2] = {random_u64(), random_u64()};
	size_t limit = MIN(MAX(mm->limits.stack / 4, EXEC_MAX_STRLEN), EXEC_MAX_STACK_ARGS);
	long args_size, env_size;
	uint64_t *frame;
	int err = 0;

	args_size = strings_size(l->argv, limit);
	if (args_size < 0)
		return (int)args_size;
	env_size = strings_size(envp, limit - (size_t)args_size);
	if (env_size < 0)
		return (int)env_size;
	args_size -= (long)(argc * sizeof(uaddr_t));
	env_size -= (long)(envc * sizeof(uaddr_t));

	err = push_bytes(mm, &sp, l->args->filename, strlen(l->args->filename) + 1);
	execfn = sp;
	sp -= (uaddr_t)(args_size + env_size);
	strings = sp;
	mm->arg_start = sp;
	mm->arg_end = mm->env_start = sp + (uaddr_t)args_size;
	mm->env_end = mm->env_start + (uaddr_t)env_size;
	if (!err)
		err = push_bytes(mm, &sp, ARCH_PLATFORM, sizeof(ARCH_PLATFORM));
	platform = sp;
	sp &= ~15UL;
	if (!err)
		err = push_bytes(mm, &sp, seed, sizeof(seed));
	random = sp;
	if (err)
		return err;

	mm->auxv_len = fill_auxv(l, mm->auxv, random, execfn, platform);
	words = 1 + argc + 1 + envc + 1 + mm->auxv_len;
	frame = kcalloc(words, sizeof(*frame));
	if (!frame)
		return -ENOMEM;
	sp = (sp - words * sizeof(*frame)) & ~15UL;
	frame[i++] = argc;
	err = put_strings(mm, l->argv, &strings, &frame[i]);
	i += argc + 1;
	if (!err)
		err = put_strings(mm, envp, &strings, &frame[i]);
	i += envc + 1;
	memcpy(&frame[i], mm->auxv, mm->auxv_len * sizeof(*frame));
	if (!err)
		err = put_bytes(mm, sp, frame, words * sizeof(*frame));
	kfree(frame);
	*sp_out = sp;
	return err;
}

static int map_stack(struct loading *l)
{
	struct mm *mm = l->mm;
	uaddr_t top = USER_TOP - PAGE_SIZE;
	unsigned long prot = PROT_READ | PROT_WRITE | (l->exec_stack ? PROT_EXEC : 0ul);
	size_t gap, args = 0;
	long ret;

	if (!(l->args->personality & ADDR_NO_RANDOMIZE))
		top -= (random_u64() & STACK_RANDOM_PAGES) << PAGE_SHIFT;
	/* mmap starts below the most the stack may grow to, between 128 MiB and 5/6 of all. */
	gap = mm->limits.stack == RLIM_INFINITY ? 0 : mm->limits.stack;
	gap = MIN(MAX(gap, (size_t)128 << 20), (size_t)USER_TOP / 6 * 5);
	mm->mmap_base = PAGE_ALIGN_DOWN(top - gap);
	if (!(l->args->personality & ADDR_NO_RANDOMIZE))
		mm->mmap_base -= (random_u64() & MMAP_RANDOM_PAGES) << PAGE_SHIFT;
	for (char **v = l->argv; *v; v++)
		args += strlen(*v) + 1 + sizeof(uaddr_t);
	for (char **v = l->args->envp; v && *v; v++)
		args += strlen(*v) + 1 + sizeof(uaddr_t);
	mm->stack_top = top;
	args = PAGE_ALIGN_UP(args + strlen(l->args->filename) + PAGE_SIZE);
	/* Room to begin with, as far as the limit allows; the strings were checked against it. */
	args += MIN(STACK_INITIAL,
		    PAGE_ALIGN_DOWN(mm->limits.stack > args ? mm->limits.stack - args : 0));
	ret = mm_mmap(mm, top - args, args, prot,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN | MAP_STACK, NULL, 0);
	return ret < 0 ? (int)ret : 0;
}

/* ---- together ---- */

static void set_comm(struct exec_result *r, const char *filename)
{
	const char *base = strrchr(filename, '/');

	memset(r->comm, 0, sizeof(r->comm));
	strncpy(r->comm, base ? base + 1 : filename, sizeof(r->comm) - 1);
}

static int load_image(struct loading *l, uaddr_t *sp)
{
	int err;

	l->mm->limits = l->args->limits;
	l->mm->dumpable = true;
	err = mm_set_exe(l->mm, l->file);
	if (!err)
		err = map_stack(l);
	if (!err)
		err = map_binary(l);
	if (!err)
		err = map_interp(l);
	if (!err)
		err = vdso_map(l->mm);
	if (!err)
		err = build_stack(l, sp);
	return err;
}

int exec_load(struct platform *platform, const struct exec_args *args, struct exec_result *result)
{
	struct loading *l = kzalloc(sizeof(*l));
	uaddr_t sp = 0;
	int err;

	memset(result, 0, sizeof(*result));
	if (!l)
		return -ENOMEM;
	l->args = args;
	l->file = file_get(args->file);
	err = argv_copy(l, args->argv);
	if (!err)
		err = follow_scripts(l);
	if (err)
		goto out_file;
	l->elf = read_elf(l->file, l->buf, l->buf_len);
	err = PTR_ERR_OR_ZERO(l->elf);
	if (err)
		goto out_file;
	err = l->file->ops->mmap ? 0 : -ENOEXEC;
	if (err)
		goto out_elf;
	l->exec_stack = l->elf->exec_stack;
	/* For a script the bits are the interpreter's: l->file is it by now. */
	l->cred = cred_exec(args->ctx->cred, l->file, args->no_new_privs, &l->secure);
	err = PTR_ERR_OR_ZERO(l->cred);
	if (err)
		goto out_elf;
	l->mm = mm_alloc(platform);
	err = PTR_ERR_OR_ZERO(l->mm);
	if (err)
		goto out_cred;
	err = load_image(l, &sp);
	if (err)
		goto out_mm;
	result->mm = l->mm;
	result->entry = l->has_interp ? l->interp_entry : l->elf->entry + l->bias;
	result->sp = sp;
	result->cred = l->cred;
	set_comm(result, args->filename);
	goto out_elf;

out_mm:
	mm_put(l->mm);
out_cred:
	cred_put(l->cred);
out_elf:
	kfree(l->elf);
out_file:
	argv_free(l);
	file_put(l->file);
	kfree(l);
	return err;
}

void exec_result_put(struct exec_result *result)
{
	if (result->mm)
		mm_put(result->mm);
	if (result->cred)
		cred_put(result->cred);
	memset(result, 0, sizeof(*result));
}
