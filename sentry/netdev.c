/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interfaces as ioctl(2) shows them: "lo" with index 1, 127.0.0.1/8 and ::1. It can be brought up
 * and down by who has CAP_NET_ADMIN; nothing else about it can be changed.
 */
#include "sentry/netdev.h"

#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>

#include "sentry/lib/err.h"
#include "sentry/socket_inet_int.h"
#include "sentry/syscalls.h"

unsigned int netdev_lo_flags(struct net_ns *net)
{
	return IFF_LOOPBACK | (atomic_load(&net->inet->lo_up) ? IFF_UP | IFF_RUNNING : 0);
}

void netdev_lo_set_up(struct net_ns *net, bool up)
{
	atomic_store(&net->inet->lo_up, up);
}

static void put_addr(struct sockaddr *sa, uint32_t addr)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(addr)};

	memcpy(sa, &sin, sizeof(sin));
}

/* SIOCGIFCONF: the interfaces that have an IPv4 address. */
static long get_conf(struct task *t, uaddr_t arg)
{
	struct ifconf conf;
	struct ifreq ifr;
	uaddr_t buf;

	if (copy_in(t, &conf, arg, sizeof(conf)))
		return -EFAULT;
	if (conf.ifc_len < 0)
		return -EINVAL;
	buf = (uaddr_t)(uintptr_t)conf.ifc_buf;
	if (!atomic_load(&t->net->inet->lo_up)) {
		conf.ifc_len = 0;
	} else if (!buf) {
		conf.ifc_len = sizeof(ifr);
	} else if (conf.ifc_len < (int)sizeof(ifr)) {
		conf.ifc_len = 0;
	} else {
		memset(&ifr, 0, sizeof(ifr));
		strcpy(ifr.ifr_name, "lo");
		put_addr(&ifr.ifr_addr, INADDR_LOOPBACK);
		conf.ifc_len = sizeof(ifr);
		if (copy_out(t, buf, &ifr, sizeof(ifr)))
			return -EFAULT;
	}
	return copy_out(t, arg, &conf, sizeof(conf));
}

/* Fills in what was asked for of loopback. 0 or -errno. */
static long get_lo(struct task *t, unsigned int cmd, struct ifreq *ifr)
{
	bool up = atomic_load(&t->net->inet->lo_up);

	switch (cmd) {
	case SIOCGIFFLAGS:
		ifr->ifr_flags = (short)netdev_lo_flags(t->net);
		return 0;
	case SIOCGIFADDR:
	case SIOCGIFDSTADDR:
		if (!up)
			return -EADDRNOTAVAIL;
		put_addr(&ifr->ifr_addr, INADDR_LOOPBACK);
		return 0;
	case SIOCGIFBRDADDR:
		if (!up)
			return -EADDRNOTAVAIL;
		put_addr(&ifr->ifr_addr, INADDR_ANY);
		return 0;
	case SIOCGIFNETMASK:
		if (!up)
			return -EADDRNOTAVAIL;
		put_addr(&ifr->ifr_addr, 0xff000000);
		return 0;
	case SIOCGIFMTU:
		ifr->ifr_mtu = INET_LO_MTU;
		return 0;
	case SIOCGIFMETRIC:
		ifr->ifr_metric = 0;
		return 0;
	case SIOCGIFINDEX:
		ifr->ifr_ifindex = INET_LO;
		return 0;
	case SIOCGIFTXQLEN:
		ifr->ifr_qlen = 1000;
		return 0;
	case SIOCGIFHWADDR:
		memset(&ifr->ifr_hwaddr, 0, sizeof(ifr->ifr_hwaddr));
		ifr->ifr_hwaddr.sa_family = ARPHRD_LOOPBACK;
		return 0;
	case SIOCGIFMAP:
		memset(&ifr->ifr_map, 0, sizeof(ifr->ifr_map));
		return 0;
	}
	return -ENOTTY;
}

static long set_lo(struct task *t, unsigned int cmd, const struct ifreq *ifr)
{
	if (!task_capable(t, CAP_NET_ADMIN))
		return -EPERM;
	if (cmd != SIOCSIFFLAGS)
		return -EOPNOTSUPP;
	netdev_lo_set_up(t->net, ifr->ifr_flags & IFF_UP);
	return 0;
}

static bool is_set(unsigned int cmd)
{
	switch (cmd) {
	case SIOCSIFFLAGS:
	case SIOCSIFADDR:
	case SIOCSIFDSTADDR:
	case SIOCSIFBRDADDR:
	case SIOCSIFNETMASK:
	case SIOCSIFMTU:
	case SIOCSIFMETRIC:
	case SIOCSIFHWADDR:
	case SIOCSIFTXQLEN:
	case SIOCSIFNAME:
		return true;
	}
	return false;
}

static bool is_get(unsigned int cmd)
{
	switch (cmd) {
	case SIOCGIFFLAGS:
	case SIOCGIFADDR:
	case SIOCGIFDSTADDR:
	case SIOCGIFBRDADDR:
	case SIOCGIFNETMASK:
	case SIOCGIFMTU:
	case SIOCGIFMETRIC:
	case SIOCGIFINDEX:
	case SIOCGIFTXQLEN:
	case SIOCGIFHWADDR:
	case SIOCGIFMAP:
		return true;
	}
	return false;
}

long netdev_ioctl(const struct vfs_ctx *ctx, unsigned int cmd, unsigned long arg)
{
	struct task *t = task_of(ctx);
	struct ifreq ifr;
	long ret;

	if (!t || !t->net)
		return -ENOTTY;
	if (cmd == SIOCGIFCONF)
		return get_conf(t, arg);
	if (!is_get(cmd) && !is_set(cmd) && cmd != SIOCGIFNAME)
		return -ENOTTY;
	if (copy_in(t, &ifr, arg, sizeof(ifr)))
		return -EFAULT;
	ifr.ifr_name[IFNAMSIZ - 1] = 0;
	if (cmd == SIOCGIFNAME) {
		if (ifr.ifr_ifindex != INET_LO)
			return -ENODEV;
		memset(ifr.ifr_name, 0, sizeof(ifr.ifr_name));
		strcpy(ifr.ifr_name, "lo");
		return copy_out(t, arg, &ifr, sizeof(ifr));
	}
	if (strcmp(ifr.ifr_name, "lo"))
		return -ENODEV;
	if (is_set(cmd))
		return set_lo(t, cmd, &ifr);
	ret = get_lo(t, cmd, &ifr);
	return ret ? ret : copy_out(t, arg, &ifr, sizeof(ifr));
}
