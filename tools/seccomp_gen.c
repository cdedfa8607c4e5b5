/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assembles the sentry's seccomp filters (sentry/lockdown_calls.h) when kvmsbox is built, and
 * prints them as C: what sentry/lockdown.c includes.
 */
#include <errno.h>
#include <linux/filter.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sentry/lockdown.h"
#include "sentry/lockdown_calls.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* What each platform needs beyond the common calls. */
static const struct platform {
	const char *name;
	const int *calls;
	size_t n;
} platforms[] = {
	{"kvm", NULL, 0},
	{"systrap", systrap_calls, COUNT(systrap_calls)},
	{"ptrace", ptrace_calls, COUNT(ptrace_calls)},
};

static void die(const char *what, int err)
{
	fprintf(stderr, "seccomp_gen: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

static void allow(scmp_filter_ctx ctx, const int *calls, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);

		if (err)
			die("seccomp_rule_add", err);
	}
}

static void allow_control(scmp_filter_ctx ctx)
{
	int err;

	allow(ctx, control_calls, COUNT(control_calls));
	err = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(getsockopt),
				     COUNT(control_getsockopt), control_getsockopt);
	if (err)
		die("seccomp_rule_add_array", err);
}

static void print_filter(const struct platform *p, unsigned int needs)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	struct sock_filter insn;
	FILE *f = tmpfile();

	if (!ctx || !f)
		die("out of memory or no room for a temporary file", ENOMEM);
	if (seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2))
		die("seccomp_attr_set", EINVAL);
	allow(ctx, common_calls, COUNT(common_calls));
	if (needs & LOCKDOWN_VOLUMES)
		allow(ctx, volume_calls, COUNT(volume_calls));
	if (needs & LOCKDOWN_CONTROL)
		allow_control(ctx);
	if (needs & LOCKDOWN_FUNCTION)
		allow(ctx, function_calls, COUNT(function_calls));
	allow(ctx, p->calls, p->n);
	if (seccomp_export_bpf(ctx, fileno(f)))
		die("seccomp_export_bpf", EIO);
	seccomp_release(ctx);
	rewind(f);
	printf("static const struct sock_filter filter_%s_%u[] = {\n", p->name, needs);
	while (fread(&insn, sizeof(insn), 1, f) == 1)
		printf("\t{0x%x, %u, %u, 0x%x},\n", insn.code, insn.jt, insn.jf, insn.k);
	printf("};\n");
	fclose(f);
}

int main(void)
{
	printf("/* Made by tools/seccomp_gen.c. */\n");
	for (size_t i = 0; i < COUNT(platforms); i++) {
		for (unsigned int needs = 0; needs < LOCKDOWN_ALL; needs++)
			print_filter(&platforms[i], needs);
	}
	printf("static const struct filter filters[] = {\n");
	for (size_t i = 0; i < COUNT(platforms); i++) {
		for (unsigned int needs = 0; needs < LOCKDOWN_ALL; needs++) {
			const char *name = platforms[i].name;

			printf("\t{\"%s\", %u, filter_%s_%u, ARRAY_SIZE(filter_%s_%u)},\n", name,
			       needs, name, needs, name, needs);
		}
	}
	printf("};\n");
	return 0;
}
