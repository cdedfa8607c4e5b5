/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/sys: what programs ask for. Values that can't be changed are read-only here. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "vfs/procfs/procfs.h"

static int show_ostype(struct proc_show *s)
{
	strbuf_printf(&s->b, "Linux\n");
	return 0;
}

static int show_osrelease(struct proc_show *s)
{
	strbuf_printf(&s->b, KERNEL_RELEASE "\n");
	return 0;
}

static int show_osversion(struct proc_show *s)
{
	strbuf_printf(&s->b, KERNEL_VERSION "\n");
	return 0;
}

static struct uts_ns *reader_uts(const struct vfs_ctx *ctx)
{
	struct task *t = task_of(ctx);

	return t && t->uts ? t->uts : the_kernel->root_uts;
}

static int show_hostname(struct proc_show *s)
{
	struct uts_ns *uts = reader_uts(s->reader);

	mutex_lock(&uts->lock);
	strbuf_printf(&s->b, "%s\n", uts->nodename);
	mutex_unlock(&uts->lock);
	return 0;
}

static int show_domainname(struct proc_show *s)
{
	struct uts_ns *uts = reader_uts(s->reader);

	mutex_lock(&uts->lock);
	strbuf_printf(&s->b, "%s\n", uts->domainname);
	mutex_unlock(&uts->lock);
	return 0;
}

static ssize_t set_uts(const struct vfs_ctx *ctx, char *field, const char *text, size_t len)
{
	struct uts_ns *uts = reader_uts(ctx);
	size_t n = strcspn(text, "\n");

	if (!cred_capable(ctx->cred, CAP_SYS_ADMIN))
		return -EPERM;
	n = MIN(n, (size_t)64);
	mutex_lock(&uts->lock);
	memset(field, 0, 65);
	memcpy(field, text, n);
	mutex_unlock(&uts->lock);
	return (ssize_t)len;
}

static ssize_t write_hostname(const struct vfs_ctx *ctx, struct proc_node *node, char *text,
			      size_t len)
{
	return set_uts(ctx, reader_uts(ctx)->nodename, text, len);
}

static ssize_t write_domainname(const struct vfs_ctx *ctx, struct proc_node *node, char *text,
				size_t len)
{
	return set_uts(ctx, reader_uts(ctx)->domainname, text, len);
}

static void put_uuid(struct proc_show *s, const uint8_t *u)
{
	strbuf_printf(&s->b,
		      "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\n",
		      u[0], u[1], u[2], u[3], u[4], u[5], (u[6] & 15) | 0x40, u[7],
		      (u[8] & 0x3f) | 0x80, u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static int show_uuid(struct proc_show *s)
{
	uint8_t u[16];

	if (getrandom(u, sizeof(u), 0) != sizeof(u))
		return -EIO;
	put_uuid(s, u);
	return 0;
}

static int show_boot_id(struct proc_show *s)
{
	static uint8_t id[16];
	static _Atomic bool made;

	if (!atomic_exchange(&made, true) && getrandom(id, sizeof(id), 0) != sizeof(id))
		return -EIO;
	put_uuid(s, id);
	return 0;
}

static int show_pid_max(struct proc_show *s)
{
	strbuf_printf(&s->b, "%d\n", s->ns->pid_max);
	return 0;
}

/* A file that says one constant. */
#define CONST(fn, text)                                                                            \
	static int fn(struct proc_show *s)                                                         \
	{                                                                                          \
		strbuf_printf(&s->b, text "\n");                                                   \
		return 0;                                                                          \
	}
CONST(show_0, "0")
CONST(show_1, "1")
CONST(show_2, "2")
CONST(show_40, "40")
CONST(show_50, "50")
CONST(show_60, "60")
CONST(show_6, "6")
CONST(show_9, "9")
CONST(show_64, "64")
CONST(show_75, "75")
CONST(show_1024, "1024")
CONST(show_7200, "7200")
CONST(show_131072, "131072")
CONST(show_212992, "212992")
CONST(show_port_range, "32768\t60999")
CONST(show_nothing, "")
CONST(show_congestion, "reno cubic")
CONST(show_cubic, "cubic")
CONST(show_tcp_rmem, "4096\t131072\t6291456")
CONST(show_tcp_wmem, "4096\t16384\t4194304")
CONST(show_128, "128")
CONST(show_256, "256")
CONST(show_4096, "4096")
CONST(show_8192, "8192")
CONST(show_16384, "16384")
CONST(show_65530, "65530")
CONST(show_65534, "65534")
CONST(show_65536, "65536")
CONST(show_1048576, "1048576")
CONST(show_shmmax, "18446744073692774399")
CONST(show_core_pattern, "core")
CONST(show_printk, "4\t4\t1\t7")
CONST(show_sem, "32000\t1024000000\t500\t32000")
CONST(show_file_nr, "128\t0\t1048576")
CONST(show_threads_max, "65536")
CONST(show_file_max, "1048576")

static int show_cap_last(struct proc_show *s)
{
	strbuf_printf(&s->b, "%d\n", CAP_LAST_CAP);
	return 0;
}

#define F(n, fn)                                                                                   \
	{                                                                                          \
		.name = n, .mode = S_IFREG | 0444, .show = fn                                      \
	}
#define D(n, c)                                                                                    \
	{                                                                                          \
		.name = n, .mode = S_IFDIR | 0555, .children = c                                   \
	}

static const struct proc_entry sys_random[] = {F("boot_id", show_boot_id),
					       F("entropy_avail", show_256),
					       F("poolsize", show_256),
					       F("uuid", show_uuid),
					       {0}};

static const struct proc_entry sys_yama[] = {F("ptrace_scope", show_1), {0}};

static const struct proc_entry sys_kernel[] = {
	F("cap_last_cap", show_cap_last),
	F("core_pattern", show_core_pattern),
	{.name = "domainname",
	 .mode = S_IFREG | 0644,
	 .show = show_domainname,
	 .write = write_domainname},
	{.name = "hostname",
	 .mode = S_IFREG | 0644,
	 .show = show_hostname,
	 .write = write_hostname},
	F("msgmax", show_8192),
	F("msgmnb", show_16384),
	F("ngroups_max", show_65536),
	F("osrelease", show_osrelease),
	F("ostype", show_ostype),
	F("overflowgid", show_65534),
	F("overflowuid", show_65534),
	F("perf_event_paranoid", show_2),
	F("pid_max", show_pid_max),
	F("printk", show_printk),
	D("random", sys_random),
	F("randomize_va_space", show_2),
	F("sem", show_sem),
	F("shmall", show_shmmax),
	F("shmmax", show_shmmax),
	F("shmmni", show_4096),
	F("tainted", show_0),
	F("threads-max", show_threads_max),
	F("version", show_osversion),
	D("yama", sys_yama),
	{0},
};

static const struct proc_entry sys_vm[] = {
	F("max_map_count", show_65530), F("mmap_min_addr", show_65536),
	F("overcommit_memory", show_0), F("overcommit_ratio", show_50),
	F("swappiness", show_60),	{0}};

static const struct proc_entry sys_inotify[] = {F("max_queued_events", show_16384),
						F("max_user_instances", show_128),
						F("max_user_watches", show_65536),
						{0}};

static const struct proc_entry sys_fs[] = {
	F("file-max", show_file_max),
	F("file-nr", show_file_nr),
	D("inotify", sys_inotify),
	F("nr_open", show_1048576),
	F("pipe-max-size", show_1048576),
	F("protected_hardlinks", show_1),
	F("protected_symlinks", show_1),
	F("suid_dumpable", show_0),
	{0},
};

static const struct proc_entry net_core[] = {F("optmem_max", show_131072),
					     F("rmem_default", show_212992),
					     F("rmem_max", show_212992),
					     F("somaxconn", show_4096),
					     F("wmem_default", show_212992),
					     F("wmem_max", show_212992),
					     {0}};
static const struct proc_entry net_unix[] = {F("max_dgram_qlen", show_40), {0}};
static const struct proc_entry net_ipv4[] = {
	F("ip_default_ttl", show_64),
	F("ip_forward", show_0),
	F("ip_local_port_range", show_port_range),
	F("ip_local_reserved_ports", show_nothing),
	F("ip_nonlocal_bind", show_0),
	F("ip_unprivileged_port_start", show_1024),
	F("tcp_available_congestion_control", show_congestion),
	F("tcp_congestion_control", show_cubic),
	F("tcp_fastopen", show_0),
	F("tcp_fin_timeout", show_60),
	F("tcp_keepalive_intvl", show_75),
	F("tcp_keepalive_probes", show_9),
	F("tcp_keepalive_time", show_7200),
	F("tcp_max_syn_backlog", show_4096),
	F("tcp_rmem", show_tcp_rmem),
	F("tcp_syn_retries", show_6),
	F("tcp_wmem", show_tcp_wmem),
	{0},
};
static const struct proc_entry ipv6_conf_all[] = {F("disable_ipv6", show_0), {0}};
static const struct proc_entry net_ipv6_conf[] = {
	D("all", ipv6_conf_all), D("default", ipv6_conf_all), D("lo", ipv6_conf_all), {0}};
static const struct proc_entry net_ipv6[] = {
	F("bindv6only", show_0), D("conf", net_ipv6_conf), {0}};
static const struct proc_entry sys_net[] = {
	D("core", net_core), D("ipv4", net_ipv4), D("ipv6", net_ipv6), D("unix", net_unix), {0}};

const struct proc_entry proc_sys_children[] = {
	D("fs", sys_fs), D("kernel", sys_kernel), D("net", sys_net), D("vm", sys_vm), {0}};
