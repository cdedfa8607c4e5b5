/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_NETLINK with NETLINK_ROUTE: as much as asking for interfaces, addresses and routes takes
 * (getifaddrs, getaddrinfo, if_nameindex, ip(8)), and bringing loopback up. rtnetlink(7).
 *
 * A request is answered in sendmsg: the answers are on the socket's own queue when that returns.
 * Nothing is announced to groups.
 */
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>

#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/netdev.h"
#include "sentry/socket.h"
#include "sentry/socket_inet_int.h"

#define NL_BUF	    32768u /* a request, at most */
#define NL_ANSWER   4096u
#define NL_OVERHEAD 256u

OBJTYPE(netlink_type, "netlink_sock")

struct nl_packet {
	struct list_head node;
	size_t len, room;
	uint8_t data[];
};

struct nl_sock {
	struct sock sk;
	struct net_ns *net;    /* reference */
	struct list_head node; /* in all; under all_lock */
	/* Under sk.lock. */
	bool bound;
	uint32_t port, groups;
	struct list_head rxq;
	size_t rx_charge;
	bool dead;
};

static struct mutex all_lock = {.m = PTHREAD_MUTEX_INITIALIZER,
#ifdef LOCK_DEBUG
				.rank = LOCK_OBJECT
#endif
};
static struct list_head all = LIST_HEAD_INIT(all);

static struct nl_sock *nl_of(struct sock *sk)
{
	return container_of(sk, struct nl_sock, sk);
}

/* ---- names ---- */

/* all_lock held. */
static bool port_taken(const struct nl_sock *nl, uint32_t port)
{
	struct nl_sock *other;

	list_for_each_entry (other, &all, node)
		if (other != nl && other->bound && other->net == nl->net && other->port == port)
			return true;
	return false;
}

/* @port 0: the process's number, or another if that is taken. sk.lock held. */
static int bind_locked(struct task *t, struct nl_sock *nl, uint32_t port)
{
	bool chosen = !port;
	int err = 0;

	mutex_lock(&all_lock);
	if (chosen)
		port = (uint32_t)task_tgid_nr(t, task_pid_ns(t));
	while (chosen && port_taken(nl, port))
		port = port > 0x80000000u ? port - 1 : 0xffffefffu;
	if (port_taken(nl, port)) {
		err = -EADDRINUSE;
	} else {
		nl->port = port;
		nl->bound = true;
	}
	mutex_unlock(&all_lock);
	return err;
}

static int nl_bind(struct task *t, struct sock *sk, const struct sockaddr_storage *ss, int len)
{
	const struct sockaddr_nl *a = (const void *)ss;
	struct nl_sock *nl = nl_of(sk);
	int err = 0;

	if (len < (int)sizeof(*a) || a->nl_family != AF_NETLINK)
		return -EINVAL;
	mutex_lock(&sk->lock);
	if (nl->bound && a->nl_pid != nl->port)
		err = -EINVAL;
	else if (!nl->bound)
		err = bind_locked(t, nl, a->nl_pid);
	if (!err)
		nl->groups = a->nl_groups;
	mutex_unlock(&sk->lock);
	return err;
}

static int nl_connect(struct task *t, struct sock *sk, const struct sockaddr_storage *ss, int len,
		      bool nonblock)
{
	const struct sockaddr_nl *a = (const void *)ss;
	struct nl_sock *nl = nl_of(sk);
	int err = 0;

	if (ss->ss_family == AF_UNSPEC)
		return 0;
	if (len < (int)sizeof(*a) || ss->ss_family != AF_NETLINK)
		return -EINVAL;
	if (a->nl_pid || a->nl_groups)
		return -EPERM;
	mutex_lock(&sk->lock);
	if (!nl->bound)
		err = bind_locked(t, nl, 0);
	mutex_unlock(&sk->lock);
	return err;
}

static int nl_getname(struct sock *sk, struct sockaddr_storage *ss, bool peer)
{
	struct nl_sock *nl = nl_of(sk);
	struct sockaddr_nl a = {.nl_family = AF_NETLINK};

	mutex_lock(&sk->lock);
	if (!peer) {
		a.nl_pid = nl->port;
		a.nl_groups = nl->groups;
	}
	mutex_unlock(&sk->lock);
	memset(ss, 0, sizeof(*ss));
	memcpy(ss, &a, sizeof(a));
	return sizeof(a);
}

/* ---- answers ---- */

/* What a request is answered to. */
struct request {
	struct task *t;
	struct nl_sock *nl;
	const struct nlmsghdr *h;
	struct nl_packet *out; /* being filled */
	bool failed;	       /* no memory */
};

static void flush(struct request *r)
{
	struct nl_sock *nl = r->nl;
	struct nl_packet *p = r->out;

	r->out = NULL;
	if (!p)
		return;
	mutex_lock(&nl->sk.lock);
	if (nl->dead || nl->rx_charge + p->len + NL_OVERHEAD > (size_t)nl->sk.rcvbuf) {
		nl->sk.err = ENOBUFS;
		kfree(p);
	} else {
		nl->rx_charge += p->len + NL_OVERHEAD;
		list_add_tail(&p->node, &nl->rxq);
	}
	mutex_unlock(&nl->sk.lock);
	waitq_wake(&nl->sk.wq, EV_IN);
}

/* Room for @n more bytes, zeroed; NULL: no memory (r->failed). */
static void *put(struct request *r, size_t n)
{
	void *at;

	n = NLMSG_ALIGN(n);
	if (r->out && r->out->room - r->out->len < n)
		flush(r);
	if (!r->out) {
		r->out = kzalloc(sizeof(*r->out) + NL_ANSWER);
		if (!r->out) {
			r->failed = true;
			return NULL;
		}
		list_init(&r->out->node);
		r->out->room = NL_ANSWER;
	}
	at = r->out->data + r->out->len;
	r->out->len += n;
	return at;
}

/* Begins a message with a body of @n bytes: the body, or NULL. Its length is set by end_message. */
static void *begin(struct request *r, int type, unsigned int flags, size_t n, struct nlmsghdr **h)
{
	/* A message isn't split: ours are all shorter than this. */
	if (r->out && r->out->room - r->out->len < 1024)
		flush(r);
	*h = put(r, NLMSG_HDRLEN + n);
	if (!*h)
		return NULL;
	(*h)->nlmsg_type = (uint16_t)type;
	(*h)->nlmsg_flags = (uint16_t)flags;
	(*h)->nlmsg_seq = r->h->nlmsg_seq;
	(*h)->nlmsg_pid = r->nl->port;
	return NLMSG_DATA(*h);
}

static void end(struct request *r, struct nlmsghdr *h)
{
	h->nlmsg_len = (uint32_t)(r->out->data + r->out->len - (uint8_t *)h);
}

static void attr(struct request *r, int type, const void *data, size_t len)
{
	struct rtattr *a = put(r, RTA_LENGTH(len));

	if (!a)
		return;
	a->rta_type = (unsigned short)type;
	a->rta_len = (unsigned short)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
}

static void attr_u32(struct request *r, int type, uint32_t value)
{
	attr(r, type, &value, sizeof(value));
}

static void answer_error(struct request *r, int err)
{
	struct nlmsghdr *h;
	struct nlmsgerr *e = begin(r, NLMSG_ERROR, 0, sizeof(*e), &h);

	if (!e)
		return;
	e->error = err;
	e->msg = *r->h;
	end(r, h);
}

static void answer_done(struct request *r)
{
	struct nlmsghdr *h;
	int *value;

	/* In a packet of its own, as Linux mostly has it. */
	flush(r);
	value = begin(r, NLMSG_DONE, NLM_F_MULTI, sizeof(*value), &h);
	if (value)
		end(r, h);
}

/* ---- what there is ---- */

static void answer_link(struct request *r, unsigned int flags)
{
	struct inet_ports *p = r->nl->net->inet;
	struct rtnl_link_stats64 stats = {.rx_packets = atomic_load(&p->packets),
					  .tx_packets = atomic_load(&p->packets),
					  .rx_bytes = atomic_load(&p->bytes),
					  .tx_bytes = atomic_load(&p->bytes)};
	static const uint8_t zero[6];
	struct nlmsghdr *h;
	struct ifinfomsg *m = begin(r, RTM_NEWLINK, flags, sizeof(*m), &h);
	uint8_t byte = 0;

	if (!m)
		return;
	m->ifi_type = ARPHRD_LOOPBACK;
	m->ifi_index = INET_LO;
	m->ifi_flags = netdev_lo_flags(r->nl->net);
	if (m->ifi_flags & IFF_UP)
		m->ifi_flags |= 0x10000; /* IFF_LOWER_UP */
	attr(r, IFLA_IFNAME, "lo", 3);
	attr_u32(r, IFLA_TXQLEN, 1000);
	attr(r, IFLA_OPERSTATE, &byte, 1);
	attr(r, IFLA_LINKMODE, &byte, 1);
	attr_u32(r, IFLA_MTU, INET_LO_MTU);
	attr_u32(r, IFLA_GROUP, 0);
	attr(r, IFLA_QDISC, "noqueue", 8);
	attr(r, IFLA_ADDRESS, zero, sizeof(zero));
	attr(r, IFLA_BROADCAST, zero, sizeof(zero));
	attr(r, IFLA_STATS64, &stats, sizeof(stats));
	if (r->out)
		end(r, h);
}

static void answer_addr(struct request *r, bool v4)
{
	struct ifa_cacheinfo cache = {.ifa_prefered = ~0u, .ifa_valid = ~0u};
	struct nlmsghdr *h;
	struct ifaddrmsg *m = begin(r, RTM_NEWADDR, NLM_F_MULTI, sizeof(*m), &h);

	if (!m)
		return;
	m->ifa_family = v4 ? AF_INET : AF_INET6;
	m->ifa_prefixlen = v4 ? 8 : 128;
	m->ifa_flags = IFA_F_PERMANENT;
	m->ifa_scope = RT_SCOPE_HOST;
	m->ifa_index = INET_LO;
	if (v4) {
		attr(r, IFA_ADDRESS, inet_lo4.s6_addr + 12, 4);
		attr(r, IFA_LOCAL, inet_lo4.s6_addr + 12, 4);
		attr(r, IFA_LABEL, "lo", 3);
	} else {
		attr(r, IFA_ADDRESS, &inet_lo6, sizeof(inet_lo6));
	}
	attr(r, IFA_CACHEINFO, &cache, sizeof(cache));
	attr_u32(r, IFA_FLAGS, IFA_F_PERMANENT);
	if (r->out)
		end(r, h);
}

/* A route of the table "local" to @dst/@bits. */
static void answer_route(struct request *r, const struct in6_addr *dst, unsigned char bits,
			 int type)
{
	struct nlmsghdr *h;
	struct rtmsg *m = begin(r, RTM_NEWROUTE, NLM_F_MULTI, sizeof(*m), &h);
	bool v4 = inet_is4(dst);

	if (!m)
		return;
	m->rtm_family = v4 ? AF_INET : AF_INET6;
	m->rtm_dst_len = bits;
	m->rtm_table = RT_TABLE_LOCAL;
	m->rtm_protocol = RTPROT_KERNEL;
	m->rtm_scope = type == RTN_BROADCAST ? RT_SCOPE_LINK
		       : v4		     ? RT_SCOPE_HOST
					     : RT_SCOPE_UNIVERSE;
	m->rtm_type = (unsigned char)type;
	attr_u32(r, RTA_TABLE, RT_TABLE_LOCAL);
	attr(r, RTA_DST, v4 ? dst->s6_addr + 12 : dst->s6_addr, v4 ? 4 : 16);
	if (v4)
		attr(r, RTA_PREFSRC, inet_lo4.s6_addr + 12, 4);
	attr_u32(r, RTA_OIF, INET_LO);
	if (r->out)
		end(r, h);
}

static void dump_addrs(struct request *r, int family)
{
	if (!atomic_load(&r->nl->net->inet->lo_up))
		return;
	if (family == AF_UNSPEC || family == AF_INET)
		answer_addr(r, true);
	if (family == AF_UNSPEC || family == AF_INET6)
		answer_addr(r, false);
}

static void dump_routes(struct request *r, int family)
{
	static const struct in6_addr net = {{{[10] = 0xff, 0xff, 127}}},
				     bcast = {{{[10] = 0xff, 0xff, 127, 255, 255, 255}}};

	if (!atomic_load(&r->nl->net->inet->lo_up))
		return;
	if (family == AF_UNSPEC || family == AF_INET) {
		answer_route(r, &net, 8, RTN_LOCAL);
		answer_route(r, &inet_lo4, 32, RTN_LOCAL);
		answer_route(r, &bcast, 32, RTN_BROADCAST);
	}
	if (family == AF_UNSPEC || family == AF_INET6)
		answer_route(r, &inet_lo6, 128, RTN_LOCAL);
}

/* ---- requests ---- */

/* Does @h, with a struct ifinfomsg, mean loopback? By index, or by name. */
static bool means_lo(const struct nlmsghdr *h)
{
	const struct ifinfomsg *m = NLMSG_DATA(h);
	size_t at = NLMSG_SPACE(sizeof(*m));

	if (m->ifi_index)
		return m->ifi_index == INET_LO;
	while (at + sizeof(struct rtattr) <= h->nlmsg_len) {
		const struct rtattr *a = (const void *)((const char *)h + at);

		if (a->rta_len < sizeof(*a) || a->rta_len > h->nlmsg_len - at)
			return false;
		if (a->rta_type == IFLA_IFNAME)
			return a->rta_len >= RTA_LENGTH(3) && !memcmp(RTA_DATA(a), "lo", 3);
		at += RTA_ALIGN(a->rta_len);
	}
	return false;
}

/* A request that isn't a dump. 0 (acknowledged if asked for) or -errno. */
static int do_link(struct request *r)
{
	const struct ifinfomsg *m = NLMSG_DATA(r->h);

	if (r->h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return -EINVAL;
	if (r->h->nlmsg_type == RTM_GETLINK) {
		if (!means_lo(r->h))
			return -ENODEV;
		answer_link(r, 0);
		return 0;
	}
	if (!task_capable(r->t, CAP_NET_ADMIN))
		return -EPERM;
	if (!means_lo(r->h))
		return r->h->nlmsg_flags & NLM_F_CREATE ? -EOPNOTSUPP : -ENODEV;
	if (m->ifi_change & ~(unsigned int)IFF_UP)
		return -EOPNOTSUPP;
	if (m->ifi_change & IFF_UP || (m->ifi_flags && !m->ifi_change))
		netdev_lo_set_up(r->nl->net, m->ifi_flags & IFF_UP);
	return 0;
}

static int do_dump(struct request *r)
{
	const struct rtgenmsg *m = NLMSG_DATA(r->h);
	int family = r->h->nlmsg_len >= NLMSG_LENGTH(sizeof(*m)) ? m->rtgen_family : AF_UNSPEC;

	switch (r->h->nlmsg_type) {
	case RTM_GETLINK:
		answer_link(r, NLM_F_MULTI);
		break;
	case RTM_GETADDR:
		dump_addrs(r, family);
		break;
	case RTM_GETROUTE:
		dump_routes(r, family);
		break;
	case RTM_GETNEIGH:
	case RTM_GETRULE:
	case RTM_GETQDISC:
		break; /* there are none */
	default:
		return -EOPNOTSUPP;
	}
	answer_done(r);
	return 0;
}

static void serve(struct request *r)
{
	const struct nlmsghdr *h = r->h;
	bool get = (h->nlmsg_type & 3) == 2, dump = false;
	int err;

	if (!(h->nlmsg_flags & NLM_F_REQUEST) || h->nlmsg_type < NLMSG_MIN_TYPE)
		return;
	if (h->nlmsg_type < RTM_BASE || h->nlmsg_type > RTM_MAX) {
		err = -EOPNOTSUPP;
	} else if (get && (h->nlmsg_flags & NLM_F_DUMP)) {
		dump = true;
		err = do_dump(r);
	} else if (h->nlmsg_type == RTM_GETLINK || h->nlmsg_type == RTM_NEWLINK ||
		   h->nlmsg_type == RTM_SETLINK) {
		err = do_link(r);
	} else if (!get && !task_capable(r->t, CAP_NET_ADMIN)) {
		err = -EPERM;
	} else {
		err = -EOPNOTSUPP;
	}
	if (err || (!dump && (h->nlmsg_flags & NLM_F_ACK)))
		answer_error(r, err);
	flush(r);
}

static ssize_t nl_sendmsg(struct task *t, struct sock *sk, struct sock_msg *msg)
{
	const struct sockaddr_nl *to = (const void *)&msg->name;
	struct nl_sock *nl = nl_of(sk);
	size_t len = msg->iter.count, at = 0;
	struct request r = {.t = t, .nl = nl};
	int err = 0;
	char *buf;

	if (!t || (msg->flags & MSG_OOB))
		return -EOPNOTSUPP;
	if (msg->namelen) {
		if (msg->namelen < (int)sizeof(*to) || to->nl_family != AF_NETLINK)
			return -EINVAL;
		if (to->nl_groups)
			return -EPERM;
		if (to->nl_pid)
			return -ECONNREFUSED;
	}
	if (len > NL_BUF)
		return -EMSGSIZE;
	mutex_lock(&sk->lock);
	if (!nl->bound)
		err = bind_locked(t, nl, 0);
	mutex_unlock(&sk->lock);
	if (err)
		return err;
	buf = kmalloc(len + 1);
	if (!buf)
		return -ENOMEM;
	if (iov_copy_from(&msg->iter, buf, len) < len) {
		kfree(buf);
		return -EFAULT;
	}
	while (len - at >= NLMSG_HDRLEN) {
		r.h = (const void *)(buf + at);
		if (r.h->nlmsg_len < NLMSG_HDRLEN || r.h->nlmsg_len > len - at)
			break;
		serve(&r);
		if (NLMSG_ALIGN(r.h->nlmsg_len) > len - at)
			break;
		at += NLMSG_ALIGN(r.h->nlmsg_len);
	}
	kfree(buf);
	kfree(r.out);
	return r.failed ? -ENOBUFS : (ssize_t)len;
}

static ssize_t nl_recvmsg(struct task *t, struct sock *sk, struct sock_msg *msg)
{
	static const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct nl_sock *nl = nl_of(sk);
	struct nl_packet *p;
	ssize_t ret;

	if (msg->flags & MSG_OOB)
		return -EOPNOTSUPP;
	mutex_lock(&sk->lock);
	if (sk->err) {
		ret = -sk->err;
		sk->err = 0;
		goto out_unlock;
	}
	if (list_empty(&nl->rxq)) {
		ret = -EAGAIN;
		goto out_unlock;
	}
	p = list_first_entry(&nl->rxq, struct nl_packet, node);
	ret = sock_msg_store(msg, p->data, p->len);
	if (ret >= 0) {
		memcpy(&msg->name, &kernel, sizeof(kernel));
		msg->namelen = sizeof(kernel);
	}
	if (!(msg->flags & MSG_PEEK)) {
		list_del(&p->node);
		nl->rx_charge -= p->len + NL_OVERHEAD;
		kfree(p);
	}
out_unlock:
	mutex_unlock(&sk->lock);
	return ret;
}

/* ---- the rest of the operations ---- */

static int nl_listen(struct task *t, struct sock *sk, int backlog)
{
	return -EOPNOTSUPP;
}

static struct sock *nl_accept(struct sock *sk)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static int nl_shutdown(struct sock *sk, int how)
{
	return -EOPNOTSUPP;
}

static uint32_t nl_poll(struct sock *sk)
{
	struct nl_sock *nl = nl_of(sk);
	uint32_t ev = EV_OUT;

	mutex_lock(&sk->lock);
	if (!list_empty(&nl->rxq))
		ev |= EV_IN;
	if (sk->err)
		ev |= EPOLLERR;
	mutex_unlock(&sk->lock);
	return ev;
}

static long nl_setsockopt(struct task *t, struct sock *sk, int level, int name, uaddr_t val,
			  int len)
{
	if (level != SOL_NETLINK)
		return -ENOIOCTLCMD;
	switch (name) {
	case NETLINK_CAP_ACK:
	case NETLINK_EXT_ACK:
	case NETLINK_GET_STRICT_CHK:
	case NETLINK_NO_ENOBUFS:
	case NETLINK_BROADCAST_ERROR:
		/* Nothing that these steer is ever said. */
		return len < (int)sizeof(int) ? -EINVAL : 0;
	}
	return -ENOPROTOOPT;
}

static void nl_release(struct sock *sk)
{
	struct nl_sock *nl = nl_of(sk);

	mutex_lock(&sk->lock);
	nl->dead = true;
	sk->file = NULL;
	mutex_unlock(&sk->lock);
	waitq_wake(&sk->wq, EV_ALL);
}

static void nl_free(struct sock *sk)
{
	struct nl_sock *nl = nl_of(sk);

	mutex_lock(&all_lock);
	list_del(&nl->node);
	mutex_unlock(&all_lock);
	while (!list_empty(&nl->rxq)) {
		struct nl_packet *p = list_first_entry(&nl->rxq, struct nl_packet, node);

		list_del(&p->node);
		kfree(p);
	}
	net_ns_put(nl->net);
	sock_fini(sk);
	objtype_dec(&netlink_type);
	kfree(nl);
}

static const struct sock_ops nl_ops = {
	.bind = nl_bind,
	.connect = nl_connect,
	.listen = nl_listen,
	.accept = nl_accept,
	.getname = nl_getname,
	.sendmsg = nl_sendmsg,
	.recvmsg = nl_recvmsg,
	.shutdown = nl_shutdown,
	.poll = nl_poll,
	.setsockopt = nl_setsockopt,
	.release = nl_release,
	.free = nl_free,
};

static int nl_create(struct task *t, int type, int protocol, struct sock **out)
{
	struct nl_sock *nl;

	if (type != SOCK_RAW && type != SOCK_DGRAM)
		return -ESOCKTNOSUPPORT;
	if (protocol != NETLINK_ROUTE)
		return -EPROTONOSUPPORT;
	nl = kzalloc(sizeof(*nl));
	if (!nl)
		return -ENOMEM;
	sock_init(&nl->sk, &nl_ops, AF_NETLINK, type, protocol);
	nl->net = net_ns_get(t->net);
	list_init(&nl->rxq);
	list_init(&nl->node);
	mutex_lock(&all_lock);
	list_add_tail(&nl->node, &all);
	mutex_unlock(&all_lock);
	objtype_inc(&netlink_type);
	*out = &nl->sk;
	return 0;
}

const struct sock_family netlink_family = {.family = AF_NETLINK, .create = nl_create};
