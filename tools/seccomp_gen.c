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

static void print_filter(const struct platform *p, bool volumes)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	struct sock_filter insn;
	FILE *f = tmpfile();

	if (!ctx || !f)
		die("out of memory or no room for a temporary file", ENOMEM);
	if (seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2))
		die("seccomp_attr_set", EINVAL);
	allow(ctx, common_calls, COUNT(common_calls));
	if (volumes)
		allow(ctx, volume_calls, COUNT(volume_calls));
	allow(ctx, p->calls, p->n);
	if (seccomp_export_bpf(ctx, fileno(f)))
		die("seccomp_export_bpf", EIO);
	seccomp_release(ctx);
	rewind(f);
	printf("static const struct sock_filter filter_%s_%d[] = {\n", p->name, volumes);
	while (fread(&insn, sizeof(insn), 1, f) == 1)
		printf("\t{0x%x, %u, %u, 0x%x},\n", insn.code, insn.jt, insn.jf, insn.k);
	printf("};\n");
	fclose(f);
}

int main(void)
{
	printf("/* Made by tools/seccomp_gen.c. */\n");
	for (size_t i = 0; i < COUNT(platforms); i++) {
		print_filter(&platforms[i], false);
		print_filter(&platforms[i], true);
	}
	printf("static const struct filter filters[] = {\n");
	for (size_t i = 0; i < COUNT(platforms); i++) {
		for (int v = 0; v < 2; v++)
			printf("\t{\"%s\", %d, filter_%s_%d, ARRAY_SIZE(filter_%s_%d)},\n",
			       platforms[i].name, v, platforms[i].name, v, platforms[i].name, v);
	}
	printf("};\n");
	return 0;
}
