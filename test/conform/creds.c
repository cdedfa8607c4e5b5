/* SPDX-License-Identifier: Apache-2.0 */
/* User and group ids, groups, capabilities, and who may do what to whom. */
#include <linux/capability.h>
#include <sys/fsuid.h>

#include "test/conform/conform.h"

static void check_uids(uid_t r, uid_t e, uid_t s)
{
	uid_t a, b, c;

	CHECK_OK(getresuid(&a, &b, &c));
	CHECK_EQ(a, r);
	CHECK_EQ(b, e);
	CHECK_EQ(c, s);
	CHECK_EQ(getuid(), r);
	CHECK_EQ(geteuid(), e);
}

static void check_gids(gid_t r, gid_t e, gid_t s)
{
	gid_t a, b, c;

	CHECK_OK(getresgid(&a, &b, &c));
	CHECK_EQ(a, r);
	CHECK_EQ(b, e);
	CHECK_EQ(c, s);
}

struct caps {
	uint64_t effective, permitted, inheritable;
};

static struct caps get_caps(void)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];

	CHECK_OK(syscall(SYS_capget, &h, d));
	return (struct caps){ d[0].effective | (uint64_t)d[1].effective << 32,
			      d[0].permitted | (uint64_t)d[1].permitted << 32,
			      d[0].inheritable | (uint64_t)d[1].inheritable << 32 };
}

static int set_caps(struct caps c)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2] = {
		{ (uint32_t)c.effective, (uint32_t)c.permitted, (uint32_t)c.inheritable },
		{ c.effective >> 32, c.permitted >> 32, c.inheritable >> 32 },
	};

	return syscall(SYS_capset, &h, d);
}

#define BIT(cap) (1ULL << (cap))

TEST(setuid_by_root_sets_all)
{
	NEED_ROOT();
	CHECK_OK(setuid(1000));
	check_uids(1000, 1000, 1000);
	CHECK_ERRNO(setuid(0), EPERM);
	CHECK_OK(setuid(1000));
}

TEST(seteuid_and_back)
{
	NEED_ROOT();
	CHECK_OK(seteuid(1000));
	check_uids(0, 1000, 0);
	CHECK_ERRNO(seteuid(1001), EPERM);
	CHECK_OK(seteuid(0));
	check_uids(0, 0, 0);
}

TEST(setreuid_rules)
{
	NEED_ROOT();
	CHECK_OK(setreuid(1000, 1001));
	check_uids(1000, 1001, 1001);
	CHECK_OK(setreuid(1001, 1000));
	check_uids(1001, 1000, 1000);
	CHECK_ERRNO(setreuid(1002, -1), EPERM);
	CHECK_OK(setreuid(-1, -1));
	check_uids(1001, 1000, 1000);
}

TEST(setresuid_rules)
{
	NEED_ROOT();
	CHECK_OK(setresuid(1, 2, 3));
	check_uids(1, 2, 3);
	CHECK_OK(setresuid(3, 1, 2));
	check_uids(3, 1, 2);
	CHECK_ERRNO(setresuid(4, -1, -1), EPERM);
	CHECK_ERRNO(setresuid(-1, -1, 9), EPERM);
	CHECK_OK(setresuid(-1, 2, -1));
	check_uids(3, 2, 2);
}

TEST(setresgid_rules)
{
	NEED_ROOT();
	CHECK_OK(setresgid(1, 2, 3));
	check_gids(1, 2, 3);
	CHECK_OK(setresuid(5, 5, 5));
	CHECK_ERRNO(setresgid(9, -1, -1), EPERM);
	CHECK_OK(setresgid(2, 3, 1));
	check_gids(2, 3, 1);
}

TEST(setregid_and_setgid)
{
	NEED_ROOT();
	CHECK_OK(setregid(10, 11));
	check_gids(10, 11, 11);
	CHECK_OK(setgid(12));
	check_gids(12, 12, 12);
	CHECK_OK(setuid(5));
	CHECK_ERRNO(setgid(0), EPERM);
	CHECK_OK(setgid(12));
}

TEST(setgroups_and_getgroups)
{
	gid_t in[3] = { 30, 10, 20 }, out[8];

	NEED_ROOT();
	CHECK_OK(setgroups(3, in));
	CHECK_EQ(getgroups(0, NULL), 3);
	CHECK_EQ(getgroups(8, out), 3);
	CHECK_EQ(out[0] + out[1] + out[2], 60);
	CHECK_ERRNO(getgroups(2, out), EINVAL);
	CHECK_ERRNO(getgroups(-1, out), EINVAL);
	CHECK_OK(setgroups(0, NULL));
	CHECK_EQ(getgroups(8, out), 0);
	CHECK_ERRNO(setgroups(70000, in), EINVAL);
	CHECK_OK(setuid(5));
	CHECK_ERRNO(setgroups(3, in), EPERM);
}

TEST(minus_one_is_invalid)
{
	CHECK_ERRNO(setuid(-1), EINVAL);
	CHECK_ERRNO(setgid(-1), EINVAL);
	CHECK_OK(setresuid(-1, -1, -1));
}

TEST(fork_and_credentials)
{
	pid_t pid;

	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		CHECK_OK(setuid(1000));
		_exit(0);
	}
	JOIN(pid);
	check_uids(0, 0, 0);
}

TEST(fsuid)
{
	NEED_ROOT();
	CHECK_EQ(setfsuid(1000), 0);
	CHECK_EQ(setfsuid(-1), 1000);
	CHECK_ERRNO(mkdir("d", 0700), EACCES);
	CHECK_EQ(setfsuid(0), 1000);
	CHECK_EQ(setfsgid(7), 0);
	CHECK_EQ(setfsgid(0), 7);
}

TEST(fsuid_owns_new_files)
{
	struct stat st;

	NEED_ROOT();
	CHECK_OK(chmod(".", 0777));
	setfsgid(55);
	setfsuid(1000);
	PUT_FILE("f", "");
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_uid, 1000);
	CHECK_EQ(st.st_gid, 55);
}

TEST(seteuid_moves_fsuid)
{
	struct stat st;

	NEED_ROOT();
	CHECK_OK(chmod(".", 0777));
	CHECK_OK(seteuid(1000));
	PUT_FILE("f", "");
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_uid, 1000);
	CHECK_EQ(setfsuid(-1), 1000);
}

TEST(root_has_capabilities)
{
	struct caps c;

	NEED_ROOT();
	c = get_caps();
	CHECK(c.effective & BIT(CAP_SETUID));
	CHECK(c.effective & BIT(CAP_CHOWN));
	CHECK(c.effective & BIT(CAP_DAC_OVERRIDE));
	CHECK_EQ(c.effective, c.permitted);
}

TEST(setuid_drops_capabilities)
{
	struct caps c;

	NEED_ROOT();
	CHECK_OK(setuid(1000));
	c = get_caps();
	CHECK_EQ(c.effective, 0);
	CHECK_EQ(c.permitted, 0);
}

TEST(seteuid_clears_effective_only)
{
	struct caps before, c;

	NEED_ROOT();
	before = get_caps();
	CHECK_OK(seteuid(1000));
	c = get_caps();
	CHECK_EQ(c.effective, 0);
	CHECK_EQ(c.permitted, before.permitted);
	CHECK_OK(seteuid(0));
	CHECK_EQ(get_caps().effective, before.permitted);
}

TEST(keepcaps)
{
	struct caps before, c;

	NEED_ROOT();
	before = get_caps();
	CHECK_EQ(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0), 0);
	CHECK_OK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
	CHECK_EQ(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0), 1);
	CHECK_OK(setresuid(1000, 1000, 1000));
	c = get_caps();
	CHECK_EQ(c.effective, 0);
	CHECK_EQ(c.permitted, before.permitted);
	c.effective = BIT(CAP_SETUID);
	CHECK_OK(set_caps(c));
	CHECK_OK(setuid(0));
}

TEST(capset_cannot_gain)
{
	struct caps c;

	NEED_ROOT();
	c = get_caps();
	c.permitted &= ~BIT(CAP_SYS_TIME);
	c.effective &= ~BIT(CAP_SYS_TIME);
	CHECK_OK(set_caps(c));
	c.effective |= BIT(CAP_SYS_TIME);
	CHECK_ERRNO(set_caps(c), EPERM);
	c.permitted |= BIT(CAP_SYS_TIME);
	CHECK_ERRNO(set_caps(c), EPERM);
}

TEST(capset_effective_is_enforced)
{
	struct caps c;

	NEED_ROOT();
	c = get_caps();
	c.effective &= ~BIT(CAP_CHOWN);
	CHECK_OK(set_caps(c));
	PUT_FILE("f", "");
	CHECK_ERRNO(chown("f", 1, 1), EPERM);
	c.effective |= BIT(CAP_CHOWN);
	CHECK_OK(set_caps(c));
	CHECK_OK(chown("f", 1, 1));
}

TEST(capset_version_probe)
{
	struct __user_cap_header_struct h = { 0, 0 };
	struct __user_cap_data_struct d[2];

	CHECK_EQ(syscall(SYS_capget, &h, NULL), 0);
	CHECK_EQ(h.version, _LINUX_CAPABILITY_VERSION_3);
	h.version = 12345;
	CHECK_ERRNO(syscall(SYS_capget, &h, d), EINVAL);
}

TEST(capbset_drop)
{
	NEED_ROOT();
	CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_SYS_TIME, 0, 0, 0), 1);
	CHECK_OK(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0));
	CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_SYS_TIME, 0, 0, 0), 0);
	CHECK_ERRNO(prctl(PR_CAPBSET_READ, 200, 0, 0, 0), EINVAL);
}

TEST(ambient_needs_inheritable)
{
	struct caps c;

	NEED_ROOT();
	CHECK_ERRNO(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0), EPERM);
	c = get_caps();
	c.inheritable |= BIT(CAP_CHOWN);
	CHECK_OK(set_caps(c));
	CHECK_OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 1);
	CHECK_OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 0);
}

HELPER(show_caps)
{
	struct caps c = get_caps();

	return c.effective == 0 ? 0 : c.effective == BIT(CAP_CHOWN) ? 1 : 2;
}

TEST(exec_as_root_regains_capabilities)
{
	struct caps c = { 0, 0, 0 };
	pid_t pid;

	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		CHECK_OK(set_caps(c));
		execl(conform_self, conform_self, "--helper", "show_caps", NULL);
		_exit(9);
	}
	CHECK_EXIT(pid, 2);
}

TEST(ambient_survives_exec)
{
	char buf[65536];
	struct caps c;
	int in, out, n;
	pid_t pid;

	NEED_ROOT();
	in = CHECK_OK(open(conform_self, O_RDONLY));
	out = CHECK_OK(open("prog", O_WRONLY | O_CREAT, 0755));
	while ((n = CHECK_OK(read(in, buf, sizeof(buf)))) > 0)
		CHECK_EQ(write(out, buf, n), n);
	CHECK_OK(close(out));
	pid = FORK();
	if (!pid) {
		CHECK_OK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
		CHECK_OK(setresuid(NOBODY, NOBODY, NOBODY));
		c = (struct caps){ BIT(CAP_CHOWN), BIT(CAP_CHOWN), BIT(CAP_CHOWN) };
		CHECK_OK(set_caps(c));
		CHECK_OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
		execl("./prog", "prog", "--helper", "show_caps", NULL);
		_exit(9);
	}
	CHECK_EXIT(pid, 1);
}

TEST(exec_as_user_has_none)
{
	char buf[65536];
	int in, out, n;
	pid_t pid;

	NEED_ROOT();
	in = CHECK_OK(open(conform_self, O_RDONLY));
	out = CHECK_OK(open("prog", O_WRONLY | O_CREAT, 0755));
	while ((n = CHECK_OK(read(in, buf, sizeof(buf)))) > 0)
		CHECK_EQ(write(out, buf, n), n);
	CHECK_OK(close(out));
	pid = FORK();
	if (!pid) {
		BECOME_NOBODY();
		execl("./prog", "prog", "--helper", "show_caps", NULL);
		_exit(9);
	}
	CHECK_EXIT(pid, 0);
}

TEST(kill_needs_matching_uid)
{
	struct gate ready;
	pid_t target, pid;

	NEED_ROOT();
	GATE_INIT(&ready);
	target = FORK();
	if (!target) {
		CHECK_OK(setresuid(1000, 1000, 1001));
		GATE_OPEN(&ready);
		for (;;)
			pause();
	}
	GATE_WAIT(&ready);
	pid = FORK();
	if (!pid) {
		CHECK_OK(setresuid(2000, 2000, 2000));
		CHECK_ERRNO(kill(target, 0), EPERM);
		CHECK_ERRNO(kill(target, SIGTERM), EPERM);
		CHECK_ERRNO(kill(getppid(), 0), EPERM);
		_exit(0);
	}
	JOIN(pid);
	pid = FORK();
	if (!pid) {
		CHECK_OK(setresuid(2000, 1001, 2000));	/* my effective is its saved id */
		CHECK_OK(kill(target, SIGTERM));
		_exit(0);
	}
	JOIN(pid);
	CHECK_SIGNALED(target, SIGTERM);
}

TEST(kill_sigcont_within_session)
{
	struct gate ready;
	pid_t target, pid;

	NEED_ROOT();
	GATE_INIT(&ready);
	target = FORK();
	if (!target) {
		CHECK_OK(setuid(1000));
		GATE_OPEN(&ready);
		for (;;)
			pause();
	}
	GATE_WAIT(&ready);
	pid = FORK();
	if (!pid) {
		CHECK_OK(setuid(2000));
		CHECK_OK(kill(target, SIGCONT));
		CHECK_ERRNO(kill(target, SIGSTOP), EPERM);
		_exit(0);
	}
	JOIN(pid);
	CHECK_OK(kill(target, SIGKILL));
	CHECK_SIGNALED(target, SIGKILL);
}

TEST(status_file_shows_ids)
{
	char buf[4096], want[128];
	gid_t groups[2] = { 40, 41 };

	NEED_ROOT();
	CHECK_OK(setgroups(2, groups));
	CHECK_OK(setresgid(21, 22, 23));
	CHECK_OK(prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0));
	CHECK_OK(setresuid(11, 12, 13));
	CHECK_OK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	CHECK(get_file("/proc/self/status", buf, sizeof(buf)) > 0);
	snprintf(want, sizeof(want), "\nUid:\t11\t12\t13\t12\n");
	CHECK(strstr(buf, want));
	CHECK(strstr(buf, "\nGid:\t21\t22\t23\t22\n"));
	CHECK(strstr(buf, "\nGroups:\t40 41"));
	CHECK(strstr(buf, "\nCapEff:\t0000000000000000\n"));
}

TEST(setpriority_permission)
{
	NEED_ROOT();
	CHECK_OK(setpriority(PRIO_PROCESS, 0, 5));
	CHECK_OK(setuid(1000));
	CHECK_ERRNO(setpriority(PRIO_PROCESS, 0, 4), EACCES);
	CHECK_OK(setpriority(PRIO_PROCESS, 0, 6));
	CHECK_EQ(getpriority(PRIO_PROCESS, 0), 6);
}

TEST(unprivileged_calls_are_eperm)
{
	pid_t pid;

	NEED_ROOT();
	pid = FORK();
	if (!pid) {
		BECOME_NOBODY();
		CHECK_ERRNO(sethostname("x", 1), EPERM);
		CHECK_ERRNO(chroot("."), EPERM);
		CHECK_ERRNO(syscall(SYS_mount, "none", ".", "tmpfs", 0L, NULL), EPERM);
		CHECK_ERRNO(syscall(SYS_umount2, ".", 0L), EPERM);
		CHECK_ERRNO(setdomainname("x", 1), EPERM);
		CHECK_ERRNO(mknod("/tmp/conform-never", S_IFCHR | 0600, 0x103), EPERM);
		_exit(0);
	}
	JOIN(pid);
}
