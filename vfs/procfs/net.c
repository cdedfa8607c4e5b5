/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/net: the network of the process's namespace, as netstat(8) and ss(8) read it. */
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"
#include "sentry/socket_unix.h"
#include "vfs/procfs/procfs.h"

static struct net_ns *shown(const struct proc_show *s)
{
	return s->task && s->task->net ? s->task->net : NULL;
}

static int show_dev(struct proc_show *s)
{
	struct net_ns *net = shown(s);
	uint64_t bytes, packets;

	if (!net)
		return -EINVAL;
	bytes = atomic_load(&net->inet->bytes);
	packets = atomic_load(&net->inet->packets);
	strbuf_printf(
		&s->b,
		"Inter-|   Receive                                                |  Transmit\n"
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    "
		"packets errs drop fifo colls carrier compressed\n"
		"    lo:%8lu %7lu    0    0    0     0          0         0 %8lu"
		" %7lu    0    0    0     0       0          0\n",
		bytes, packets, bytes, packets);
	return 0;
}

/* ---- sockets ---- */

static void put_addr4(struct strbuf *b, const struct inet_addr *a)
{
	uint32_t ip;

	memcpy(&ip, a->ip.s6_addr + 12, sizeof(ip));
	strbuf_printf(b, "%08X:%04X", ip, a->port);
}

static void put_addr6(struct strbuf *b, const struct inet_addr *a)
{
	uint32_t ip[4];

	memcpy(ip, &a->ip, sizeof(ip));
	strbuf_printf(b, "%08X%08X%08X%08X:%04X", ip[0], ip[1], ip[2], ip[3], a->port);
}

static void put_row(struct strbuf *b, const struct inet_row *r, size_t nr, enum inet_proto proto)
{
	void (*put)(struct strbuf * b, const struct inet_addr *a) =
		r->family == AF_INET ? put_addr4 : put_addr6;

	strbuf_printf(b, proto == INET_TCP ? "%4lu: " : "%5lu: ", nr);
	put(b, &r->local);
	strbuf_printf(b, " ");
	put(b, &r->peer);
	strbuf_printf(b, " %02X %08zX:%08zX 00:00000000 00000000 %5u        0 %lu %u %016lx",
		      r->state, r->tx, r->rx, r->uid, r->ino, r->refs, 0UL);
	if (proto != INET_TCP)
		strbuf_printf(b, " %u\n", r->drops);
	else
		strbuf_printf(b, " 100 0 0 10 %d\n", r->state == TCP_LISTEN ? 0 : -1);
}

static int show_socks(struct proc_show *s, enum inet_proto proto, int family)
{
	struct net_ns *net = shown(s);
	struct inet_row *rows;
	size_t n, nr = 0;

	if (!net)
		return -EINVAL;
	rows = inet_rows(net, proto, &n);
	if (IS_ERR(rows))
		return (int)PTR_ERR(rows);
	if (family == AF_INET)
		strbuf_printf(&s->b,
			      proto == INET_TCP
				      ? "  sl  local_address rem_address   st tx_queue "
					"rx_queue tr tm->when retrnsmt   uid  timeout inode"
					"                                                     \n"
				      : "   sl  local_address rem_address   st tx_queue "
					"rx_queue tr tm->when retrnsmt   uid  timeout inode "
					"ref pointer drops             \n");
	else
		strbuf_printf(&s->b,
			      "  sl  local_address                         "
			      "remote_address                        st tx_queue rx_queue tr "
			      "tm->when retrnsmt   uid  timeout inode%s\n",
			      proto != INET_TCP ? " ref pointer drops" : "");
	for (size_t i = 0; i < n; i++)
		if (rows[i].family == family)
			put_row(&s->b, &rows[i], nr++, proto);
	kfree(rows);
	return 0;
}

static int show_tcp(struct proc_show *s)
{
	return show_socks(s, INET_TCP, AF_INET);
}

static int show_tcp6(struct proc_show *s)
{
	return show_socks(s, INET_TCP, AF_INET6);
}

static int show_udp(struct proc_show *s)
{
	return show_socks(s, INET_UDP, AF_INET);
}

static int show_udp6(struct proc_show *s)
{
	return show_socks(s, INET_UDP, AF_INET6);
}

static int show_udplite(struct proc_show *s)
{
	return show_socks(s, INET_UDPLITE, AF_INET);
}

static int show_udplite6(struct proc_show *s)
{
	return show_socks(s, INET_UDPLITE, AF_INET6);
}

static int show_raw(struct proc_show *s)
{
	strbuf_printf(&s->b, "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when "
			     "retrnsmt   uid  timeout inode ref pointer drops\n");
	return 0;
}

static int show_unix(struct proc_show *s)
{
	strbuf_printf(&s->b, "Num       RefCount Protocol Flags    Type St Inode Path\n");
	unix_show_all(&s->b, shown(s));
	return 0;
}

static int show_sockstat(struct proc_show *s)
{
	struct net_ns *net = shown(s);
	size_t n, tw = 0, inuse = 0;
	struct inet_row *rows;

	if (!net)
		return -EINVAL;
	rows = inet_rows(net, INET_TCP, &n);
	if (IS_ERR(rows))
		return (int)PTR_ERR(rows);
	for (size_t i = 0; i < n; i++) {
		tw += rows[i].state == TCP_TIME_WAIT;
		inuse += rows[i].state != TCP_TIME_WAIT && rows[i].family == AF_INET;
	}
	kfree(rows);
	strbuf_printf(
		&s->b,
		"sockets: used %ld\nTCP: inuse %zu orphan 0 tw %zu alloc %ld mem 0\n"
		"UDP: inuse %ld mem 0\nUDPLITE: inuse %ld\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
		atomic_load(&net->inet->nsocks[INET_TCP]) +
			atomic_load(&net->inet->nsocks[INET_UDP]),
		inuse, tw, atomic_load(&net->inet->nsocks[INET_TCP]),
		atomic_load(&net->inet->nsocks[INET_UDP]),
		atomic_load(&net->inet->nsocks[INET_UDPLITE]));
	return 0;
}

/* ---- the interface ---- */

static int show_if_inet6(struct proc_show *s)
{
	struct net_ns *net = shown(s);

	if (net && atomic_load(&net->inet->lo_up))
		strbuf_printf(&s->b, "00000000000000000000000000000001 01 80 10 80       lo\n");
	return 0;
}

/* The main table, which has no route. */
static int show_route(struct proc_show *s)
{
	strbuf_printf(&s->b,
		      "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU"
		      "\tWindow\tIRTT                                                       \n");
	return 0;
}

static int show_ipv6_route(struct proc_show *s)
{
	struct net_ns *net = shown(s);

	if (net && atomic_load(&net->inet->lo_up))
		strbuf_printf(&s->b, "00000000000000000000000000000001 80 "
				     "00000000000000000000000000000000 00 "
				     "00000000000000000000000000000000 00000000 00000001 00000000 "
				     "80200001       lo\n");
	return 0;
}

static int show_arp(struct proc_show *s)
{
	strbuf_printf(&s->b, "IP address       HW type     Flags       HW address            Mask"
			     "     Device\n");
	return 0;
}

#define REG(n, fn)                                                                                 \
	{                                                                                          \
		.name = n, .mode = S_IFREG | 0444, .show = fn                                      \
	}

const struct proc_entry proc_net_children[] = {
	REG("arp", show_arp),
	REG("dev", show_dev),
	REG("if_inet6", show_if_inet6),
	REG("ipv6_route", show_ipv6_route),
	REG("raw", show_raw),
	REG("route", show_route),
	REG("sockstat", show_sockstat),
	REG("tcp", show_tcp),
	REG("tcp6", show_tcp6),
	REG("udp", show_udp),
	REG("udp6", show_udp6),
	REG("udplite", show_udplite),
	REG("udplite6", show_udplite6),
	REG("unix", show_unix),
	{0},
};
