/* SPDX-License-Identifier: Apache-2.0 */
/* /proc's own files: the machine as the sandbox sees it. Formats: proc(5). */
#include <cpuid.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/physmem.h"
#include "vfs/notify.h"
#include "vfs/procfs/procfs.h"

static int show_cmdline(struct proc_show *s)
{
	strbuf_printf(&s->b, "kvmsbox\n");
	return 0;
}

static int show_version(struct proc_show *s)
{
	strbuf_printf(&s->b, "Linux version " KERNEL_RELEASE " (kvmsbox) " KERNEL_VERSION "\n");
	return 0;
}

static int show_uptime(struct proc_show *s)
{
	struct timespec now;
	int64_t cs;

	clock_gettime(CLOCK_BOOTTIME, &now);
	cs = now.tv_sec * 100 + now.tv_nsec / 10000000;
	strbuf_printf(&s->b, "%ld.%02ld %ld.%02ld\n", cs / 100, cs % 100, cs / 100, cs % 100);
	return 0;
}

static int show_loadavg(struct proc_show *s)
{
	struct sysinfo si;

	sysinfo(&si);
	for (int i = 0; i < 3; i++)
		strbuf_printf(&s->b, "%.2f ", (double)si.loads[i] / 65536);
	strbuf_printf(&s->b, "1/%d %d\n", s->kernel->nr_tasks, s->ns->last);
	return 0;
}

static int show_meminfo(struct proc_show *s)
{
	struct physmem_stats pm;
	struct sysinfo si;
	uint64_t total, freemem;

	sysinfo(&si);
	physmem_stats(&pm);
	total = pm.limit ? pm.limit : (uint64_t)si.totalram * si.mem_unit;
	freemem = pm.limit ? (pm.limit > pm.resident ? pm.limit - pm.resident : 0)
			   : (uint64_t)si.freeram * si.mem_unit;
	strbuf_printf(&s->b,
		      "MemTotal:       %8lu kB\nMemFree:        %8lu kB\n"
		      "MemAvailable:   %8lu kB\nBuffers:               0 kB\n"
		      "Cached:         %8lu kB\nSwapCached:            0 kB\n"
		      "Active:         %8lu kB\nInactive:              0 kB\n"
		      "SwapTotal:             0 kB\nSwapFree:              0 kB\n"
		      "Dirty:                 0 kB\nWriteback:             0 kB\n"
		      "AnonPages:      %8lu kB\nMapped:                0 kB\n"
		      "Shmem:                 0 kB\nSlab:           %8lu kB\n"
		      "CommitLimit:    %8lu kB\nCommitted_AS:   %8lu kB\n"
		      "VmallocTotal:   34359738367 kB\nHugePages_Total:       0\n"
		      "HugePages_Free:        0\nHugepagesize:       2048 kB\n",
		      total >> 10, freemem >> 10, freemem >> 10, 0UL, pm.resident >> 10,
		      pm.resident >> 10, arena_in_use() >> 10, total >> 10, pm.resident >> 10);
	return 0;
}

/* Vendor, model and flags by CPUID: what user code finds when it asks the CPU itself. */
static int show_cpuinfo(struct proc_show *s)
{
	static const struct {
		unsigned int leaf, reg, bit;
		const char *name;
	} flags[] = {
		{1, 3, 0, "fpu"},	{1, 3, 4, "tsc"},      {1, 3, 8, "cx8"},
		{1, 3, 15, "cmov"},	{1, 3, 19, "clflush"}, {1, 3, 23, "mmx"},
		{1, 3, 24, "fxsr"},	{1, 3, 25, "sse"},     {1, 3, 26, "sse2"},
		{1, 3, 28, "ht"},	{1, 2, 0, "pni"},      {1, 2, 1, "pclmulqdq"},
		{1, 2, 9, "ssse3"},	{1, 2, 12, "fma"},     {1, 2, 13, "cx16"},
		{1, 2, 19, "sse4_1"},	{1, 2, 20, "sse4_2"},  {1, 2, 22, "movbe"},
		{1, 2, 23, "popcnt"},	{1, 2, 25, "aes"},     {1, 2, 26, "xsave"},
		{1, 2, 28, "avx"},	{1, 2, 29, "f16c"},    {1, 2, 30, "rdrand"},
		{7, 1, 0, "fsgsbase"},	{7, 1, 3, "bmi1"},     {7, 1, 5, "avx2"},
		{7, 1, 8, "bmi2"},	{7, 1, 9, "erms"},     {7, 1, 16, "avx512f"},
		{7, 1, 17, "avx512dq"}, {7, 1, 18, "rdseed"},  {7, 1, 19, "adx"},
		{7, 1, 28, "avx512cd"}, {7, 1, 29, "sha_ni"},  {7, 1, 30, "avx512bw"},
		{7, 1, 31, "avx512vl"},
	};
	unsigned int r[4], v[4] = {0}, brand[12] = {0}, family, model;
	char vendor[13] = {0};

	__cpuid(0, v[0], v[1], v[2], v[3]);
	memcpy(vendor, &v[1], 4);
	memcpy(vendor + 4, &v[3], 4);
	memcpy(vendor + 8, &v[2], 4);
	for (unsigned int i = 0; i < 3; i++)
		__cpuid(0x80000002 + i, brand[i * 4], brand[i * 4 + 1], brand[i * 4 + 2],
			brand[i * 4 + 3]);
	__cpuid(1, v[0], v[1], v[2], v[3]);
	family = (v[0] >> 8) & 15;
	model = (v[0] >> 4) & 15;
	if (family == 6 || family == 15)
		model |= (v[0] >> 12) & 0xf0;
	if (family == 15)
		family += (v[0] >> 20) & 255;
	for (unsigned int cpu = 0; cpu < s->kernel->ncpus; cpu++) {
		strbuf_printf(&s->b,
			      "processor\t: %u\nvendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\n"
			      "model name\t: %.48s\nstepping\t: %u\nphysical id\t: 0\n"
			      "siblings\t: %u\ncore id\t\t: %u\ncpu cores\t: %u\napicid\t\t: %u\n"
			      "fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes\n"
			      "flags\t\t:",
			      cpu, vendor, family, model, (char *)brand, v[0] & 15,
			      s->kernel->ncpus, cpu, s->kernel->ncpus, cpu);
		for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
			__cpuid_count(flags[i].leaf, 0, r[0], r[1], r[2], r[3]);
			if (r[flags[i].reg] >> flags[i].bit & 1)
				strbuf_printf(&s->b, " %s", flags[i].name);
		}
		strbuf_printf(&s->b, " syscall nx lm\nclflush size\t: 64\n"
				     "cache_alignment\t: 64\naddress sizes\t: 48 bits physical, "
				     "48 bits virtual\npower management:\n\n");
	}
	return 0;
}

static int show_stat(struct proc_show *s)
{
	strbuf_printf(&s->b, "cpu  0 0 0 0 0 0 0 0 0 0\n");
	for (unsigned int i = 0; i < s->kernel->ncpus; i++)
		strbuf_printf(&s->b, "cpu%u 0 0 0 0 0 0 0 0 0 0\n", i);
	strbuf_printf(&s->b,
		      "intr 0\nctxt 0\nbtime %ld\nprocesses %lu\nprocs_running 1\n"
		      "procs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
		      s->kernel->boot_time.tv_sec, s->kernel->forks);
	return 0;
}

static int show_filesystems(struct proc_show *s)
{
	const struct fs_type *type;

	for (size_t i = 0; (type = fs_type_at(i)); i++)
		strbuf_printf(&s->b, "%s\t%s\n", type->flags & FS_NODEV ? "nodev" : "", type->name);
	return 0;
}

static int show_devices(struct proc_show *s)
{
	strbuf_printf(&s->b, "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n"
			     "  5 /dev/ptmx\n136 pts\n\nBlock devices:\n");
	return 0;
}

static int show_swaps(struct proc_show *s)
{
	strbuf_printf(&s->b, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	return 0;
}

static int show_partitions(struct proc_show *s)
{
	strbuf_printf(&s->b, "major minor  #blocks  name\n\n");
	return 0;
}

static int show_vmstat(struct proc_show *s)
{
	struct physmem_stats pm;

	physmem_stats(&pm);
	strbuf_printf(&s->b, "nr_anon_pages %lu\npgfault 0\npgmajfault 0\n",
		      pm.resident >> PAGE_SHIFT);
	return 0;
}

static int show_empty(struct proc_show *s)
{
	return 0;
}

static char *link_self(const struct vfs_ctx *ctx, struct proc_node *node)
{
	struct task *t = task_of(ctx);
	pid_t nr = t ? task_tgid_nr(t, node->instance->ns) : 0;
	char buf[24];
	char *s;

	if (!nr)
		return ERR_PTR(-ENOENT);
	snprintf(buf, sizeof(buf), "%d", nr);
	s = kstrdup(buf);
	return s ? s : ERR_PTR(-ENOMEM);
}

static char *link_thread_self(const struct vfs_ctx *ctx, struct proc_node *node)
{
	struct task *t = task_of(ctx);
	pid_t nr = t ? task_tgid_nr(t, node->instance->ns) : 0;
	char buf[48];
	char *s;

	if (!nr)
		return ERR_PTR(-ENOENT);
	snprintf(buf, sizeof(buf), "%d/task/%d", nr, task_tid_nr(t, node->instance->ns));
	s = kstrdup(buf);
	return s ? s : ERR_PTR(-ENOMEM);
}

static char *link_mounts(const struct vfs_ctx *ctx, struct proc_node *node)
{
	char *s = kstrdup("self/mounts");

	return s ? s : ERR_PTR(-ENOMEM);
}

static char *link_net(const struct vfs_ctx *ctx, struct proc_node *node)
{
	char *s = kstrdup("self/net");

	return s ? s : ERR_PTR(-ENOMEM);
}

#define FILE_(n, fn)                                                                               \
	{                                                                                          \
		.name = n, .mode = S_IFREG | 0444, .show = fn                                      \
	}
#define LINK_(n, fn)                                                                               \
	{                                                                                          \
		.name = n, .mode = S_IFLNK | 0777, .readlink = fn                                  \
	}

static const struct proc_entry root_children[] = {
	LINK_("self", link_self),
	LINK_("thread-self", link_thread_self),
	LINK_("mounts", link_mounts),
	LINK_("net", link_net),
	FILE_("cmdline", show_cmdline),
	FILE_("cpuinfo", show_cpuinfo),
	FILE_("devices", show_devices),
	FILE_("filesystems", show_filesystems),
	FILE_("loadavg", show_loadavg),
	FILE_("meminfo", show_meminfo),
	FILE_("modules", show_empty),
	FILE_("partitions", show_partitions),
	FILE_("stat", show_stat),
	FILE_("swaps", show_swaps),
	FILE_("uptime", show_uptime),
	FILE_("version", show_version),
	FILE_("vmstat", show_vmstat),
	{.name = "sys", .mode = S_IFDIR | 0555, .children = proc_sys_children},
	{0},
};

/* ---- processes by number ---- */

static const struct proc_entry *root_lookup(const struct proc_node *dir, const char *name,
					    size_t len, struct proc_node *node)
{
	struct kernel *k = dir->instance->kernel;
	struct pid *pid;
	pid_t nr = 0;

	if (!len || len > 9 || name[0] == '0')
		return NULL;
	for (size_t i = 0; i < len; i++) {
		if (name[i] < '0' || name[i] > '9')
			return NULL;
		nr = nr * 10 + (name[i] - '0');
	}
	mutex_lock(&k->tasklist);
	pid = pid_find_locked(dir->instance->ns, nr);
	/* A thread's number works, too, though it isn't listed. */
	if (pid && !pid->tg && pid->task)
		node->thread = true;
	if (pid && (pid->tg || pid->task))
		node->pid = pid_get(pid);
	else
		pid = NULL;
	mutex_unlock(&k->tasklist);
	return pid ? &proc_pid_entry : NULL;
}

static bool root_next(const struct proc_node *dir, const struct vfs_ctx *ctx, uint64_t *nr)
{
	struct kernel *k = dir->instance->kernel;
	struct pid *pid;

	mutex_lock(&k->tasklist);
	for (; (pid = pid_next_locked(dir->instance->ns, nr)); (*nr)++) {
		if (pid->tg)
			break;
	}
	mutex_unlock(&k->tasklist);
	return pid;
}

static bool pid_alive(const struct proc_node *node)
{
	return node->thread ? node->pid->task != NULL : node->pid->tg != NULL;
}

const struct proc_dir_ops proc_root_dir = {
	.lookup = root_lookup,
	.next = root_next,
	.type = DT_DIR,
	.alive = pid_alive,
};

const struct proc_entry proc_root_entry = {
	.name = "",
	.mode = S_IFDIR | 0555,
	.children = root_children,
	.dir = &proc_root_dir,
};
