/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock-down. The filters come from lockdown_calls.h by way of tools/seccomp_gen.c, one for each
 * platform and each combination of needs. A call that is not listed fails with EPERM instead of
 * killing: an unforeseen library call then degrades one operation, not the sandbox.
 */
#include "sentry/lockdown.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/platform.h"

struct filter {
	const char *platform;
	unsigned int needs;
	const struct sock_filter *insns;
	unsigned short len;
};

#include "seccomp_filters.inc"

static int drop_capabilities(bool volumes)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	uint32_t keep = 0;

	if (volumes)
		keep = 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER |
		       1u << CAP_FSETID | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_MKNOD;
	if (syscall(SYS_capget, &h, d))
		return -errno;
	d[0].effective &= keep;
	d[0].permitted &= keep;
	d[0].inheritable = 0;
	d[1].effective = d[1].permitted = d[1].inheritable = 0;
	return syscall(SYS_capset, &h, d) ? -errno : 0;
}

static int install(const struct filter *f)
{
	struct sock_fprog prog = {.len = f->len,
				  .filter = (struct sock_filter *)(uintptr_t)f->insns};

	/* All threads that exist already (the platform's) come under the filter, too. */
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog)
		       ? -errno
		       : 0;
}

int lockdown_privileges(const struct lockdown_needs *needs, char *why, size_t why_size)
{
	int err;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
		snprintf(why, why_size, "can't set no_new_privs: %s", strerror(errno));
		return -errno;
	}
	err = drop_capabilities(needs->volumes);
	if (err)
		snprintf(why, why_size, "can't drop capabilities: %s", strerror(-err));
	return err;
}

int lockdown_calls(const struct platform_type *platform, const struct lockdown_needs *needs,
		   char *why, size_t why_size)
{
	unsigned int bits = (needs->volumes ? LOCKDOWN_VOLUMES : 0) |
			    (needs->control ? LOCKDOWN_CONTROL : 0) |
			    (needs->function ? LOCKDOWN_FUNCTION : 0);
	int err = -ENOENT;

	for (size_t i = 0; i < ARRAY_SIZE(filters) && err == -ENOENT; i++) {
		if (filters[i].needs == bits && !strcmp(filters[i].platform, platform->name))
			err = install(&filters[i]);
	}
	if (err)
		snprintf(why, why_size, "can't install the seccomp filter: %s", strerror(-err));
	return err;
}

int lockdown(const struct platform_type *platform, const struct lockdown_needs *needs, char *why,
	     size_t why_size)
{
	int err = lockdown_privileges(needs, why, why_size);

	return err ? err : lockdown_calls(platform, needs, why, why_size);
}
