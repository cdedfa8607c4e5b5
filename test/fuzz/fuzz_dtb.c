/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device tree a sandbox boots from: parsed or refused, never read out of bounds. The input is a
 * tree, if it begins like one; else a list of changes to a good one: {kind, 2 bytes of position,
 * value} each.
 */
#include <stdlib.h>
#include <string.h>

#include "sentry/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static uint8_t *base;
static size_t base_size;

static void parse(const uint8_t *data, size_t size, bool good)
{
	static struct config c;
	char why[256] = "";
	void *copy = malloc(size ? size : 1);
	size_t total = 0;

	/* libfdt wants alignment; the copy's end is where ASan watches. */
	memcpy(copy, data, size);
	if (!sandbox_config_parse(copy, size, &c, why, sizeof(why))) {
		for (size_t i = 0; c.args[i]; i++)
			total += strlen(c.args[i]);
		for (size_t i = 0; c.env[i]; i++)
			total += strlen(c.env[i]);
		for (size_t i = 0; i < c.nvolumes; i++)
			total += strlen(c.volumes[i].source) + strlen(c.volumes[i].target);
		if (c.cwd)
			total += strlen(c.cwd);
		if (total > 4 * size || c.ngroups > CONFIG_MAX_GROUPS ||
		    c.nvolumes > CONFIG_MAX_VOLUMES)
			__builtin_trap();
		sandbox_config_free(&c);
	} else if (good || !why[0] || strchr(why, '\n')) {
		__builtin_trap();
	}
	free(copy);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char *args[] = {"sh", "-c", "", "echo", NULL}, *env[] = {"A=b", "PATH=/bin", NULL};
	static struct config c = {
		.filename = "/bin/sh",
		.cwd = "/tmp",
		.umask = 022,
		.user = "user:group",
		.uid = 1,
		.gid = 2,
		.groups = {3, 4, 5},
		.ngroups = 3,
		.hostname = "box",
		.no_new_privs = true,
		.terminal = true,
		.stdio = {0, 1, 2},
		.memory_limit = 1 << 30,
		.ncpus = 2,
		.max_pids = 100,
		.timeout_ms = 1000,
		.image_fd = 5,
		.image_size = 1 << 20,
		.readonly = true,
		.volumes = {{.fd = 7, .source = "/src", .target = "/dst", .readonly = true},
			    {.fd = 8, .source = "/src2", .target = "/dst2"}},
		.nvolumes = 2,
		.platform = "kvm",
		.strace_fd = -1,
		.stats = true,
		.log_level = "info",
	};
	void *blob;

	c.args = args;
	c.env = env;
	if (sandbox_config_write(&c, &blob, &base_size))
		abort();
	base = blob;
	parse(base, base_size, true);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t magic[4] = {0xd0, 0x0d, 0xfe, 0xed};
	uint8_t *copy;
	size_t len;

	if (size >= 4 && !memcmp(data, magic, 4)) {
		parse(data, size, false);
		return 0;
	}
	if (size < 2)
		return 0;
	len = base_size - (data[0] & 1 ? data[1] : 0);
	copy = malloc(base_size);
	memcpy(copy, base, base_size);
	for (size_t i = 2; i + 4 <= size && i < 2 + 64 * 4; i += 4) {
		size_t at = (data[i + 1] | ((size_t)data[i + 2] << 8)) % base_size;
		uint8_t value = data[i + 3];

		/* Most of what a tree means lies in words. */
		if (data[i] & 1)
			at |= 3;
		if (at >= base_size)
			continue;
		if (data[i] & 2)
			copy[at] = (uint8_t)(copy[at] + value);
		else
			copy[at] = value;
	}
	parse(copy, len, false);
	free(copy);
	return 0;
}
