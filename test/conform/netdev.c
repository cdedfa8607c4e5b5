/* SPDX-License-Identifier: Apache-2.0 */
/* What programs ask about the network: interfaces by ioctl and netlink, /proc/net, names. */
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netdb.h>

#include "test/conform/inet.h"

static char buf[1 << 20];

static struct ifreq lo(void)
{
	struct ifreq ifr;

	memset(&ifr, 0, sizeof(ifr));
	strcpy(ifr.ifr_name, "lo");
	return ifr;
}

static int any_socket(void)
{
	return CHECK_OK(socket(AF_INET, SOCK_DGRAM, 0));
}

TEST(interface_flags)
{
	struct ifreq ifr = lo();

	CHECK_OK(ioctl(any_socket(), SIOCGIFFLAGS, &ifr));
	CHECK((ifr.ifr_flags & (IFF_UP | IFF_LOOPBACK | IFF_RUNNING)) ==
	      (IFF_UP | IFF_LOOPBACK | IFF_RUNNING));
}

TEST(interface_address)
{
	struct ifreq ifr = lo();
	struct sockaddr_in sin;

	CHECK_OK(ioctl(any_socket(), SIOCGIFADDR, &ifr));
	memcpy(&sin, &ifr.ifr_addr, sizeof(sin));
	CHECK_EQ(sin.sin_family, AF_INET);
	CHECK_EQ(sin.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	ifr = lo();
	CHECK_OK(ioctl(any_socket(), SIOCGIFNETMASK, &ifr));
	memcpy(&sin, &ifr.ifr_addr, sizeof(sin));
	CHECK_EQ(sin.sin_addr.s_addr, htonl(0xff000000));
}

TEST(interface_numbers)
{
	struct ifreq ifr = lo();
	int fd = any_socket();

	CHECK_OK(ioctl(fd, SIOCGIFINDEX, &ifr));
	CHECK_EQ(ifr.ifr_ifindex, 1);
	CHECK_OK(ioctl(fd, SIOCGIFNAME, &ifr));
	CHECK_STR(ifr.ifr_name, "lo");
	CHECK_OK(ioctl(fd, SIOCGIFMTU, &ifr));
	CHECK_EQ(ifr.ifr_mtu, 65536);
	ifr = lo();
	CHECK_OK(ioctl(fd, SIOCGIFHWADDR, &ifr));
	CHECK_EQ(ifr.ifr_hwaddr.sa_family, 772);
	CHECK_EQ(if_nametoindex("lo"), 1);
	CHECK_STR(if_indextoname(1, buf), "lo");
	CHECK_EQ(if_nametoindex("nonesuch0"), 0);
}

TEST(interface_ioctls_work_on_unix_sockets)
{
	struct ifreq ifr = lo();

	CHECK_OK(ioctl(CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), SIOCGIFINDEX, &ifr));
	CHECK_EQ(ifr.ifr_ifindex, 1);
}

TEST(unknown_interface)
{
	struct ifreq ifr = lo();

	strcpy(ifr.ifr_name, "nonesuch0");
	CHECK_ERRNO(ioctl(any_socket(), SIOCGIFFLAGS, &ifr), ENODEV);
	ifr.ifr_ifindex = 4711;
	CHECK_ERRNO(ioctl(any_socket(), SIOCGIFNAME, &ifr), ENODEV);
	CHECK_ERRNO(ioctl(any_socket(), SIOCGIFFLAGS, (void *)8), EFAULT);
}

TEST(interface_list)
{
	struct ifreq list[16];
	struct ifconf conf = { .ifc_len = sizeof(list), .ifc_req = list };
	bool found = false;

	CHECK_OK(ioctl(any_socket(), SIOCGIFCONF, &conf));
	CHECK_EQ(conf.ifc_len % sizeof(struct ifreq), 0);
	for (size_t i = 0; i < conf.ifc_len / sizeof(struct ifreq); i++)
		found |= !strcmp(list[i].ifr_name, "lo");
	CHECK(found);
	conf.ifc_req = NULL;
	conf.ifc_len = 0;
	CHECK_OK(ioctl(any_socket(), SIOCGIFCONF, &conf));
	CHECK(conf.ifc_len >= (int)sizeof(struct ifreq));
}

TEST(changing_needs_a_capability)
{
	struct ifreq ifr = lo();

	NEED_ROOT();
	CHECK_OK(ioctl(any_socket(), SIOCGIFFLAGS, &ifr));
	BECOME_NOBODY();
	CHECK_ERRNO(ioctl(any_socket(), SIOCSIFFLAGS, &ifr), EPERM);
}

TEST(loopback_goes_up_and_down)
{
	struct ifreq ifr = lo();
	int fd;

	own_network();
	fd = any_socket();
	CHECK_OK(ioctl(fd, SIOCGIFFLAGS, &ifr));
	CHECK(ifr.ifr_flags & IFF_UP);
	CHECK_OK(bind_to(any_socket(), "127.0.0.1", 0));
	ifr.ifr_flags &= ~IFF_UP;
	CHECK_OK(ioctl(fd, SIOCSIFFLAGS, &ifr));
	CHECK_OK(ioctl(fd, SIOCGIFFLAGS, &ifr));
	CHECK(!(ifr.ifr_flags & IFF_UP));
}

TEST(getifaddrs_finds_loopback)
{
	struct ifaddrs *list;
	int v4 = 0, v6 = 0, link = 0;

	CHECK_OK(getifaddrs(&list));
	for (struct ifaddrs *i = list; i; i = i->ifa_next) {
		if (strcmp(i->ifa_name, "lo") || !i->ifa_addr)
			continue;
		if (i->ifa_addr->sa_family == AF_INET) {
			CHECK_EQ(((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr,
				 htonl(INADDR_LOOPBACK));
			CHECK_EQ(((struct sockaddr_in *)i->ifa_netmask)->sin_addr.s_addr,
				 htonl(0xff000000));
			CHECK(i->ifa_flags & IFF_LOOPBACK);
			v4++;
		} else if (i->ifa_addr->sa_family == AF_INET6) {
			CHECK(IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr));
			v6++;
		} else if (i->ifa_addr->sa_family == AF_PACKET) {
			link++;
		}
	}
	CHECK_EQ(v4, 1);
	CHECK_EQ(v6, 1);
	CHECK_EQ(link, 1);
	freeifaddrs(list);
}

TEST(if_nameindex_finds_loopback)
{
	struct if_nameindex *list = if_nameindex();

	CHECK(list);
	CHECK_EQ(list[0].if_index, 1);
	CHECK_STR(list[0].if_name, "lo");
	if_freenameindex(list);
}

TEST(getaddrinfo_of_numbers)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
				  .ai_socktype = SOCK_STREAM }, *res;

	CHECK_ZERO(getaddrinfo("127.0.0.1", "80", &hints, &res));
	CHECK_EQ(res->ai_family, AF_INET);
	freeaddrinfo(res);
	CHECK_ZERO(getaddrinfo("::1", "80", &hints, &res));
	CHECK_EQ(res->ai_family, AF_INET6);
	freeaddrinfo(res);
	hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV | AI_ADDRCONFIG;
	CHECK_ZERO(getaddrinfo(NULL, "80", &hints, &res));
	freeaddrinfo(res);
}

/* ---- netlink ---- */

struct request {
	struct nlmsghdr h;
	union {
		struct ifinfomsg link;
		struct rtgenmsg gen;
	};
};

static int nl(void)
{
	return CHECK_OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
}

static int ask(int fd, int type, int flags, int index)
{
	struct request r;

	memset(&r, 0, sizeof(r));
	r.h.nlmsg_len = NLMSG_LENGTH(sizeof(r.link));
	r.h.nlmsg_type = type;
	r.h.nlmsg_flags = NLM_F_REQUEST | flags;
	r.h.nlmsg_seq = 77;
	r.link.ifi_index = index;
	return send(fd, &r, r.h.nlmsg_len, 0);
}

TEST(netlink_arguments)
{
	CHECK_ERRNO(socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE), ESOCKTNOSUPPORT);
	CHECK_ERRNO(socket(AF_NETLINK, SOCK_RAW, 99), EPROTONOSUPPORT);
	CHECK_OK(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE));
}

TEST(netlink_names)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK };
	socklen_t len = sizeof(a);
	int fd = nl(), other = nl();

	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(getsockname(fd, (struct sockaddr *)&a, &len));
	CHECK_EQ(len, sizeof(a));
	CHECK_EQ(a.nl_pid, getpid());
	CHECK_ERRNO(bind(other, (struct sockaddr *)&a, sizeof(a)), EADDRINUSE);
	a.nl_pid = 0;
	CHECK_OK(bind(other, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(getsockname(other, (struct sockaddr *)&a, &len));
	CHECK(a.nl_pid != 0 && a.nl_pid != (unsigned int)getpid());
	CHECK_ERRNO(bind(nl(), (struct sockaddr *)&a, 4), EINVAL);
}

TEST(netlink_dump_of_links)
{
	struct sockaddr_nl from;
	socklen_t len = sizeof(from);
	bool done = false, found = false;
	int fd = nl();

	CHECK_OK(ask(fd, RTM_GETLINK, NLM_F_DUMP, 0));
	while (!done) {
		int n = CHECK_OK(recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len));

		CHECK_EQ(from.nl_pid, 0);
		for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, (unsigned int)n);
		     h = NLMSG_NEXT(h, n)) {
			struct ifinfomsg *m = NLMSG_DATA(h);

			CHECK_EQ(h->nlmsg_seq, 77);
			CHECK(h->nlmsg_flags & NLM_F_MULTI);
			done |= h->nlmsg_type == NLMSG_DONE;
			if (h->nlmsg_type != RTM_NEWLINK || m->ifi_index != 1)
				continue;
			found = true;
			CHECK(m->ifi_flags & IFF_LOOPBACK);
			CHECK_EQ(m->ifi_type, 772);
		}
	}
	CHECK(found);
	CHECK_ERRNO(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), EAGAIN);
}

TEST(netlink_one_link)
{
	struct nlmsghdr *h = (void *)buf;
	int fd = nl();

	CHECK_OK(ask(fd, RTM_GETLINK, 0, 1));
	CHECK(recv(fd, buf, sizeof(buf), 0) > 32);
	CHECK_EQ(h->nlmsg_type, RTM_NEWLINK);
	CHECK_OK(ask(fd, RTM_GETLINK, 0, 4711));
	CHECK(recv(fd, buf, sizeof(buf), 0) > 0);
	CHECK_EQ(h->nlmsg_type, NLMSG_ERROR);
	CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA(h))->error, -ENODEV);
}

TEST(netlink_peek_and_truncate)
{
	int fd = nl(), n;

	CHECK_OK(ask(fd, RTM_GETLINK, 0, 1));
	n = CHECK_OK(recv(fd, buf, 1, MSG_PEEK | MSG_TRUNC));
	CHECK(n > 100);
	CHECK_EQ(recv(fd, buf, sizeof(buf), 0), n);
}

TEST(netlink_acknowledges)
{
	struct nlmsghdr *h = (void *)buf;
	int fd;

	own_network();
	fd = nl();
	CHECK_OK(ask(fd, RTM_SETLINK, NLM_F_ACK, 1));
	CHECK(recv(fd, buf, sizeof(buf), 0) > 0);
	CHECK_EQ(h->nlmsg_type, NLMSG_ERROR);
	CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA(h))->error, 0);
}

TEST(netlink_changes_need_a_capability)
{
	struct nlmsghdr *h = (void *)buf;
	int fd;

	NEED_ROOT();
	BECOME_NOBODY();
	fd = nl();
	CHECK_OK(ask(fd, RTM_SETLINK, 0, 1));
	CHECK(recv(fd, buf, sizeof(buf), 0) > 0);
	CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA(h))->error, -EPERM);
}

TEST(netlink_brings_loopback_up)
{
	struct request r;
	int fd;

	NEED_ROOT();
	if (unshare(CLONE_NEWNET))
		SKIP("no network namespaces");
	CHECK_ERRNO(connect_to(tcp("127.0.0.1"), "127.0.0.1", 1), ENETUNREACH);
	fd = nl();
	memset(&r, 0, sizeof(r));
	r.h.nlmsg_len = NLMSG_LENGTH(sizeof(r.link));
	r.h.nlmsg_type = RTM_NEWLINK;
	r.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	r.link.ifi_index = 1;
	r.link.ifi_flags = r.link.ifi_change = IFF_UP;
	CHECK_OK(send(fd, &r, r.h.nlmsg_len, 0));
	CHECK(recv(fd, buf, sizeof(buf), 0) > 0);
	CHECK_ERRNO(connect_to(tcp("127.0.0.1"), "127.0.0.1", 1), ECONNREFUSED);
}

/* ---- /proc/net ---- */

/* The line of @file that has @text in it, or NULL. */
static char *line_with(const char *file, const char *text)
{
	CHECK(get_file(file, buf, sizeof(buf)) > 0);
	for (char *l = strtok(buf, "\n"); l; l = strtok(NULL, "\n"))
		if (strstr(l, text))
			return l;
	return NULL;
}

TEST(proc_net_tcp)
{
	int l = listener("127.0.0.1"), uid;
	unsigned int local, port, st;
	unsigned long ino;
	struct stat st_l;
	char key[32], *line;

	snprintf(key, sizeof(key), "0100007F:%04X 00000000:0000", port_of(l));
	line = line_with("/proc/net/tcp", key);
	CHECK(line);
	CHECK_EQ(sscanf(line, " %*d: %x:%x %*x:%*x %x %*x:%*x %*x:%*x %*x %d %*d %lu", &local, &port,
			&st, &uid, &ino), 5);
	CHECK_EQ(st, TCP_LISTEN);
	CHECK_EQ(uid, (int)geteuid());
	CHECK_OK(fstat(l, &st_l));
	CHECK_EQ(ino, st_l.st_ino);
}

TEST(proc_net_tcp_of_a_connection)
{
	char key[64];

	tcp_pair();
	snprintf(key, sizeof(key), "0100007F:%04X 0100007F:%04X 01", port_of(s[0]), port_of(s[1]));
	CHECK(line_with("/proc/net/tcp", key));
	snprintf(key, sizeof(key), "0100007F:%04X 0100007F:%04X 01", port_of(s[1]), port_of(s[0]));
	CHECK(line_with("/proc/net/tcp", key));
	CHECK_EQ(write(s[0], "12345", 5), 5);
	events_wait(s[1], POLLIN);
	CHECK(strstr(line_with("/proc/net/tcp", key), "00000000:00000005"));
}

TEST(proc_net_tcp6)
{
	int l = listener("::1");
	char key[64];

	snprintf(key, sizeof(key), "00000000000000000000000001000000:%04X", port_of(l));
	CHECK(line_with("/proc/net/tcp6", key));
}

TEST(proc_net_time_wait)
{
	int port;
	char key[64];

	tcp_pair();
	port = port_of(s[0]);
	snprintf(key, sizeof(key), "0100007F:%04X 0100007F:%04X 06", port, port_of(s[1]));
	CHECK_OK(close(s[0]));
	CHECK_OK(close(s[1]));
	EVENTUALLY(line_with("/proc/net/tcp", key));
}

TEST(proc_net_udp)
{
	int u = udp("127.0.0.1");
	char key[64];

	snprintf(key, sizeof(key), "0100007F:%04X 00000000:0000 07", port_of(u));
	CHECK(line_with("/proc/net/udp", key));
	u = udp("::");
	snprintf(key, sizeof(key), "00000000000000000000000000000000:%04X", port_of(u));
	CHECK(line_with("/proc/net/udp6", key));
}

TEST(proc_net_unix)
{
	struct { sa_family_t f; char path[32]; } a = { AF_UNIX, "here" };
	int fd = CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));
	struct stat st;
	char key[64];

	CHECK_OK(bind(fd, (struct sockaddr *)&a, 2 + 5));
	CHECK_OK(listen(fd, 1));
	CHECK_OK(fstat(fd, &st));
	snprintf(key, sizeof(key), "00010000 0001 01 %5lu here", (unsigned long)st.st_ino);
	CHECK(line_with("/proc/net/unix", key));
}

TEST(proc_net_others)
{
	CHECK(line_with("/proc/net/dev", "lo:"));
	CHECK(line_with("/proc/net/if_inet6", "00000000000000000000000000000001 01 80 10 80       lo"));
	CHECK(line_with("/proc/net/route", "Iface\tDestination"));
	CHECK(line_with("/proc/net/sockstat", "TCP: inuse"));
	CHECK(get_file("/proc/sys/net/core/somaxconn", buf, sizeof(buf)) > 0);
	CHECK_EQ(atoi(buf), 4096);
	CHECK(get_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", buf, sizeof(buf)) > 0);
	CHECK_EQ(atoi(buf), 1024);
}

TEST(proc_net_is_of_the_namespace)
{
	int l = listener("127.0.0.1");
	char key[32];

	snprintf(key, sizeof(key), "0100007F:%04X 00000000:0000", port_of(l));
	own_network();
	CHECK(!line_with("/proc/self/net/tcp", key));
}
