/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of processes share: a whole kernel on a platform whose user code is one action of
 * the test's choosing, programs made from a few bytes, and the check that everything countable is
 * back where it was: objects, arena bytes, frames, host descriptors, address spaces, contexts, and
 * the references on what the caller lent.
 */
#ifndef TEST_UNIT_PROCESS_SUPPORT_H
#define TEST_UNIT_PROCESS_SUPPORT_H

#include <dirent.h>
#include <elf.h>
#include <semaphore.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "loader/exec.h"
#include "loader/vdso.h"
#include "sentry/clone.h"
#include "sentry/kernel.h"
#include "sentry/objects.h"
#include "sentry/syscalls.h"
#include "sentry/task_internal.h"
#include "sentry/tty.h"
#include "test/unit/vfs_support.h"

/* ---- the platform ---- */

struct fake_ctx {
	struct context base;
	sem_t kicked;
};

static struct {
	struct platform base;
	_Atomic long tables, spaces, contexts;
	bool fail_space, fail_context; /* the next one, once */
	/* What user code does when it is let run. NULL: it waits to be interrupted. */
	void (*user_code)(struct arch_regs *regs, struct trap *trap);
} fake;

static gpa_t fake_table_alloc(struct pt_allocator *a)
{
	gpa_t gpa = frame_alloc();

	fake.tables += gpa != GPA_NONE;
	return gpa;
}

static void fake_table_free(struct pt_allocator *a, gpa_t table)
{
	fake.tables--;
	frame_put(table);
}

static bool take_flag(bool *flag)
{
	bool was = *flag;

	*flag = false;
	return was;
}

static struct address_space *fake_as_create(struct platform *p, struct pagetable *pt)
{
	struct address_space *as = take_flag(&fake.fail_space) ? NULL : kzalloc(sizeof(*as));

	if (!as)
		return ERR_PTR(-ENOMEM);
	as->platform = p;
	fake.spaces++;
	return as;
}

static void fake_as_destroy(struct address_space *as)
{
	fake.spaces--;
	kfree(as);
}

static void fake_as_invalidate(struct address_space *as, uaddr_t va, size_t len)
{
}

static struct context *fake_ctx_create(struct platform *p)
{
	struct fake_ctx *c;

	if (take_flag(&fake.fail_context))
		return ERR_PTR(-EAGAIN);
	c = kzalloc(sizeof(*c));
	if (!c)
		return ERR_PTR(-ENOMEM);
	c->base.platform = p;
	sem_init(&c->kicked, 0, 0);
	fake.contexts++;
	return &c->base;
}

static void fake_ctx_destroy(struct context *ctx)
{
	struct fake_ctx *c = container_of(ctx, struct fake_ctx, base);

	sem_destroy(&c->kicked);
	fake.contexts--;
	kfree(c);
}

static int fake_ctx_run(struct context *ctx, struct address_space *as, struct arch_regs *regs,
			struct trap *trap)
{
	struct fake_ctx *c = container_of(ctx, struct fake_ctx, base);

	if (fake.user_code) {
		fake.user_code(regs, trap);
		return 0;
	}
	while (sem_wait(&c->kicked))
		;
	trap->kind = TRAP_KICK;
	return 0;
}

static void fake_ctx_kick(struct context *ctx)
{
	sem_post(&container_of(ctx, struct fake_ctx, base)->kicked);
}

static void fake_get_bases(struct context *ctx, uint64_t *fs_base, uint64_t *gs_base)
{
	*fs_base = *gs_base = 0;
}

static void fake_set_bases(struct context *ctx, uint64_t fs_base, uint64_t gs_base)
{
}

static void fake_get_fpu(struct context *ctx, void *fpu)
{
	arch_fpu_init(fpu);
}

static void fake_set_fpu(struct context *ctx, const void *fpu)
{
}

static const struct platform_type fake_platform = {
	.name = "fake",
	.as_create = fake_as_create,
	.as_destroy = fake_as_destroy,
	.as_invalidate = fake_as_invalidate,
	.ctx_create = fake_ctx_create,
	.ctx_destroy = fake_ctx_destroy,
	.ctx_run = fake_ctx_run,
	.ctx_kick = fake_ctx_kick,
	.ctx_get_bases = fake_get_bases,
	.ctx_set_bases = fake_set_bases,
	.ctx_get_fpu = fake_get_fpu,
	.ctx_set_fpu = fake_set_fpu,
};

/* User code that ends its thread with status 7. */
__attribute__((unused)) static void user_exits(struct arch_regs *regs, struct trap *trap)
{
	regs->orig_rax = SYS_exit;
	regs->rdi = 7;
	trap->kind = TRAP_SYSCALL;
}

/* ---- programs ---- */

#define PROG_BASE 0x400000UL /* of EXEC programs; DYN ones begin at 0 */
#define PROG_DATA 0x2000UL   /* where the data segment is, in the file and in memory */

/* A program in the making: text at offset 0, data with a bss behind it. */
struct prog {
	union {
		uint8_t bytes[0x4000];
		Elf64_Ehdr eh;
	};
	size_t size;
	Elf64_Phdr *ph; /* text, data, PT_GNU_STACK, then what is added */
};

static inline Elf64_Phdr *prog_add(struct prog *p, uint32_t type, uint32_t flags, uint64_t offset,
				   uint64_t vaddr, uint64_t filesz, uint64_t memsz)
{
	Elf64_Phdr *ph = &p->ph[p->eh.e_phnum++];

	*ph = (Elf64_Phdr){.p_type = type,
			   .p_flags = flags,
			   .p_offset = offset,
			   .p_vaddr = vaddr,
			   .p_paddr = vaddr,
			   .p_filesz = filesz,
			   .p_memsz = memsz,
			   .p_align = PAGE_SIZE};
	return ph;
}

static inline void prog_init(struct prog *p, unsigned int type)
{
	uint64_t base = type == ET_EXEC ? PROG_BASE : 0;

	/* What shall be zero in memory must not be zero in the file. */
	memset(p->bytes, 0xee, sizeof(p->bytes));
	p->size = 0x3000;
	p->eh = (Elf64_Ehdr){.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
					 ELFDATA2LSB, EV_CURRENT},
			     .e_type = (Elf64_Half)type,
			     .e_machine = EM_X86_64,
			     .e_version = EV_CURRENT,
			     .e_entry = base + 0x1000,
			     .e_phoff = sizeof(Elf64_Ehdr),
			     .e_ehsize = sizeof(Elf64_Ehdr),
			     .e_phentsize = sizeof(Elf64_Phdr)};
	p->ph = (Elf64_Phdr *)(p->bytes + sizeof(Elf64_Ehdr));
	prog_add(p, PT_LOAD, PF_R | PF_X, 0, base, 0x1800, 0x1800);
	prog_add(p, PT_LOAD, PF_R | PF_W, PROG_DATA, base + PROG_DATA, 0x123, 0x3456);
	prog_add(p, PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0);
}

static inline void prog_set_interp(struct prog *p, const char *interp)
{
	strcpy((char *)p->bytes + 0x800, interp);
	prog_add(p, PT_INTERP, PF_R, 0x800, p->ph[0].p_vaddr + 0x800, strlen(interp) + 1,
		 strlen(interp) + 1);
}

static inline void put_bytes_at(struct vfs_env *env, const char *name, const void *bytes, size_t n,
				mode_t mode)
{
	struct iattr_change c = {.valid = ATTR_MODE, .mode = mode};
	struct file *f = xopen(env, name, O_CREAT | O_WRONLY | O_TRUNC);

	if (IS_ERR(f) || file_write_kernel(f, bytes, n, 0) != (ssize_t)n ||
	    vfs_setattr(&env->ctx, &f->path, &c)) {
		printf("not ok can't write %s\n", name);
		exit(1);
	}
	file_put(f);
}

static inline void put_prog(struct vfs_env *env, const char *name, const struct prog *p,
			    mode_t mode)
{
	put_bytes_at(env, name, p->bytes, p->size, mode);
}

static inline void put_script(struct vfs_env *env, const char *name, const char *text)
{
	put_bytes_at(env, name, text, strlen(text), 0755);
}

/* ---- a kernel in a root filesystem with programs ---- */

struct world {
	struct vfs_env env; /* the sentry as caller */
	struct kernel *k;
	struct fd_table *files;
	struct cred *user; /* 1000:1000 without capabilities */
	struct thread_group *init;
};

static const char *const argv_prog[] = {"/bin/prog", "one", "two words", NULL};
static const char *const envp_some[] = {"PATH=/sbin:/bin", "HOME=/root", NULL};
#define STRINGS(v) ((char *const *)(uintptr_t)(v))

/* The arguments most tests start from; the mount namespace is the world's, with its reference. */
static inline struct create_process_args world_args(struct world *w)
{
	return (struct create_process_args){
		.argv = STRINGS(argv_prog),
		.envp = STRINGS(envp_some),
		.umask = 022,
		.cred = w->env.ctx.cred,
		.files = w->files,
		.mnt_ns = mnt_ns_get(w->env.ns),
	};
}

/* Ends a process that never ran, with the caller's reference. */
static inline void drop_process(struct world *w, struct thread_group *tg)
{
	if (kernel_abort_process(w->k, tg))
		CHECK("abort", false);
	thread_group_put(tg);
}

/* Creates and expects success. */
static inline struct thread_group *xcreate(struct world *w, struct create_process_args *a)
{
	struct thread_group *tg = NULL;
	int err = kernel_create_process(w->k, a, &tg);

	if (err) {
		printf("not ok create process: %d, %s\n", err, a->error);
		exit(1);
	}
	return tg;
}

/* kernel_create_process that must fail; @tg stays untouched. */
static inline int failing(struct world *w, struct create_process_args *a)
{
	struct thread_group *tg = (void *)1;
	int err = kernel_create_process(w->k, a, &tg);

	if (!err)
		drop_process(w, tg);
	CHECK("out is left alone on failure", err == 0 || tg == (void *)1);
	return err;
}

/*
 * A task that isn't visible yet, with everything shared with init: in its own group. Or, with
 * @join, another thread of that one.
 */
static inline struct task *make_task(struct world *w, struct thread_group *join, struct pid_ns *ns)
{
	struct task *t = join ? join->leader : w->init->leader;
	struct task_args a = {
		.kernel = w->k,
		.tg = join,
		.sighand = sighand_get(t->tg->sighand),
		.exit_signal = SIGCHLD,
		.limits = t->tg->limits,
		.cred = cred_get(t->vfs.cred),
		.fs = fs_context_get(t->vfs.fs),
		.mnt_ns = mnt_ns_get(t->vfs.mnt_ns),
		.files = fd_table_get(t->files),
		.mm = mm_get(t->mm),
		.uts = uts_ns_get(t->uts),
		.ipc = ipc_ns_get(t->ipc),
		.net = net_ns_get(t->net),
		.pid_ns = pid_ns_get(ns ? ns : w->k->root_pid_ns),
	};

	return task_alloc(&a);
}

static inline void put_programs(struct vfs_env *env)
{
	static const char *const dirs[] = {"/bin",	"/sbin", "/lib",     "/work",
					   "/work/sub", "/dev",	 "/dev/pts", "/mnt"};
	struct prog p;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		vfs_mkdir(&env->ctx, NULL, dirs[i], 0755);
	prog_init(&p, ET_EXEC);
	put_prog(env, "/bin/prog", &p, 0755);
	prog_init(&p, ET_DYN);
	put_prog(env, "/lib/ld.so", &p, 0755);
	prog_set_interp(&p, "/lib/ld.so");
	put_prog(env, "/bin/dynamic", &p, 0755);
	put_script(env, "/bin/script", "#!/bin/dynamic  the argument \n");
	put_text(env, "/work/text", "no program");
	vfs_symlink(&env->ctx, "../work/sub", NULL, "/bin/cwd");
	vfs_symlink(&env->ctx, "prog", NULL, "/bin/link");
}

/* A kernel on the filesystem @sb (consumed), without processes. */
static inline void world_open_on(struct world *w, struct super *sb)
{
	memset(w, 0, sizeof(*w));
	env_open_super(&w->env, sb);
	w->files = fd_table_alloc();
	w->user = cred_alloc(1000, 1000, NULL, 0, 0);
	if (kernel_init(&fake.base, &w->k)) {
		printf("not ok kernel_init\n");
		exit(1);
	}
}

static inline void world_open(struct world *w)
{
	world_open_on(w, fs_type_find("tmpfs")->mount(NULL, "tmpfs", "mode=755"));
	put_programs(&w->env);
}

/* The same with an init that doesn't run. */
static inline void world_open_init(struct world *w)
{
	struct create_process_args a;

	world_open(w);
	a = world_args(w);
	w->init = xcreate(w, &a);
}

static inline void world_close(struct world *w)
{
	if (w->init)
		drop_process(w, w->init);
	kernel_wait(w->k);
	kernel_destroy(w->k);
	fd_table_put(&w->env.ctx, w->files);
	cred_put(w->user);
	env_close(&w->env);
}

/* Mounts @type on @dir in the world's namespace. */
static inline void xmount(struct world *w, const char *type, const char *options, const char *dir)
{
	struct super *sb = fs_type_find(type)->mount(&w->env.ctx, type, options);
	struct path at = xlookup(&w->env, dir, 0);

	if (IS_ERR(sb) || mount_new(&w->env.ctx, sb, &at, 0)) {
		printf("not ok mount of %s\n", type);
		exit(1);
	}
	path_put(&at);
}

/* ---- counting ---- */

struct counts {
	struct live live;
	uint64_t frames;
	long host_fds, tables, spaces, contexts;
	uint32_t ns, root_mnt, root_dentry, files, cred, user, uts, ipc, net, pid_ns;
	int nr_tasks, nr_pids, running;
};

static inline long host_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	long n = 0;

	while (d && readdir(d))
		n++;
	closedir(d);
	return n;
}

static inline struct counts counts_now(struct world *w)
{
	struct kernel *k = w->k;
	struct physmem_stats pm;

	physmem_limits(&pm);
	return (struct counts){
		.live = live_now(),
		.frames = pm.frames,
		.host_fds = host_fds(),
		.tables = fake.tables,
		.spaces = fake.spaces,
		.contexts = fake.contexts,
		.ns = refcount_read(&w->env.ns->refs),
		.root_mnt = refcount_read(&w->env.ns->root->refs),
		.root_dentry = refcount_read(&w->env.ns->root->root->refs),
		.files = refcount_read(&w->files->refs),
		.cred = refcount_read(&w->env.ctx.cred->refs),
		.user = refcount_read(&w->user->refs),
		.uts = refcount_read(&k->root_uts->refs),
		.ipc = refcount_read(&k->root_ipc->refs),
		.net = refcount_read(&k->root_net->refs),
		.pid_ns = refcount_read(&k->root_pid_ns->refs),
		.nr_tasks = k->nr_tasks,
		.nr_pids = k->root_pid_ns->nr_pids,
		.running = k->nr_threads_running,
	};
}

/* True if nothing differs; says what does. */
static inline bool counts_same(struct world *w, const struct counts *b)
{
	struct counts n = counts_now(w);
	bool same = true;

#define SAME(field)                                                                                \
	do {                                                                                       \
		if (n.field != b->field) {                                                         \
			printf("# " #field ": %ld, was %ld\n", (long)n.field, (long)b->field);     \
			same = false;                                                              \
		}                                                                                  \
	} while (0)
	for (size_t i = 0; i < n.live.count; i++) {
		if (n.live.n[i] == b->live.n[i])
			continue;
		printf("# %s: %ld live, %ld before\n", n.live.type[i]->name, n.live.n[i],
		       b->live.n[i]);
		same = false;
	}
	SAME(live.bytes);
	SAME(frames);
	SAME(host_fds);
	SAME(tables);
	SAME(spaces);
	SAME(contexts);
	SAME(ns);
	SAME(root_mnt);
	SAME(root_dentry);
	SAME(files);
	SAME(cred);
	SAME(user);
	SAME(uts);
	SAME(ipc);
	SAME(net);
	SAME(pid_ns);
	SAME(nr_tasks);
	SAME(nr_pids);
	SAME(running);
#undef SAME
	return same;
}

#define CHECK_COUNTS(name, w, before) CHECK(name, counts_same(w, before))

/* ---- what a fresh process finds on its stack ---- */

struct start {
	uint64_t argc;
	char argv[16][64], envp[16][64];
	size_t envc;
	uint64_t aux[64]; /* by type */
	bool has_aux[64];
	uaddr_t argv_at;
};

static inline uint64_t peek(struct mm *mm, uaddr_t at)
{
	uint64_t v = 0xdeaddeaddeaddeadUL;

	mm_copy_remote(mm, at, &v, sizeof(v), false, true);
	return v;
}

static inline void peek_string(struct mm *mm, uaddr_t at, char *buf, size_t size)
{
	size_t n = mm_copy_remote(mm, at, buf, size - 1, false, true);

	buf[n] = 0;
}

static inline size_t peek_strings(struct mm *mm, uaddr_t *at, char (*out)[64])
{
	size_t n = 0;
	uint64_t p;

	while ((p = peek(mm, *at)) && n < 16) {
		peek_string(mm, p, out[n++], 64);
		*at += 8;
	}
	*at += 8;
	return n;
}

static inline void read_start(struct task *t, struct start *s)
{
	uaddr_t at = t->regs.rsp;

	memset(s, 0, sizeof(*s));
	s->argc = peek(t->mm, at);
	s->argv_at = at += 8;
	peek_strings(t->mm, &at, s->argv);
	s->envc = peek_strings(t->mm, &at, s->envp);
	for (uint64_t type; (type = peek(t->mm, at)) != AT_NULL; at += 16) {
		if (type < 64) {
			s->aux[type] = peek(t->mm, at + 8);
			s->has_aux[type] = true;
		}
	}
}

/* ---- start and end ---- */

/* Runs @tests twice in one process: what is allocated once and kept shows in the first only. */
static inline int process_test_main(void (*tests)(void))
{
	struct live before;
	struct physmem_stats pm, pm_after;

	vfs_start();
	fake.base.type = &fake_platform;
	fake.base.pt_alloc.alloc = fake_table_alloc;
	fake.base.pt_alloc.free = fake_table_free;
	if (vdso_init() || objects_init()) {
		printf("not ok start\n");
		return 1;
	}
	tests();
	before = live_now();
	physmem_limits(&pm);
	tests();
	check_live("everything released", &before);
	physmem_limits(&pm_after);
	CHECK_EQ("frames back to the start", pm_after.frames, pm.frames);
	CHECK_EQ("no table left", fake.tables, 0);
	CHECK_EQ("no address space left", fake.spaces, 0);
	CHECK_EQ("no context left", fake.contexts, 0);
	return failures != 0;
}

#endif
