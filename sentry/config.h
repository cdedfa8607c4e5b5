/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox's configuration: a flattened device tree, made by a front end with
 * sandbox_config_write and read by the sentry with sandbox_config_parse. Every property is checked;
 * a tree from elsewhere is hostile input (test/fuzz/fuzz_dtb.c).
 *
 *	/chosen	  args, env (string lists), filename, cwd, umask, uid, gid, groups, user, hostname,
 *		  no-new-privs, terminal, stdio (host fds)
 *	/memory	  limit (bytes, 64 bits)
 *	/cpus	  count
 *	/limits	  pids, timeout-ms
 *	/image	  fd, size
 *	/mounts	  read-only; volume@N: fd, source, target, read-only
 *	/function kind (enum fn_kind), port, channel (host fd): only if it is to serve a function
 *	/sentry	  platform, no-rewrite, poll-percent, strace-fd, stats, log-level, control-fd,
 *		  ready-fd
 *
 * The same tree describes a command that enters a running sandbox (control.h); only /chosen counts
 * there, and its stdio are places among the descriptors that come with it.
 */
#ifndef SENTRY_CONFIG_H
#define SENTRY_CONFIG_H

#include "sentry/lib/types.h"

#define CONFIG_MAX_VOLUMES 64
#define CONFIG_MAX_STRINGS 65536
#define CONFIG_MAX_GROUPS  1024
#define CONFIG_MAX_SIZE	   (16UL << 20)

struct config_volume {
	int fd; /* O_PATH directory or file on the host */
	const char *source, *target;
	bool readonly;
};

struct config {
	char **args, **env;   /* NULL-terminated */
	const char *filename; /* NULL: search args[0] */
	const char *cwd;      /* NULL: the root */
	unsigned int umask;
	/* name or number[:group], looked up in the image; NULL: uid and gid hold */
	const char *user;
	uint32_t uid, gid;
	uint32_t groups[CONFIG_MAX_GROUPS];
	size_t ngroups;
	const char *hostname;
	bool no_new_privs;
	bool terminal;	       /* give the program a terminal, driven by stdio */
	int stdio[3];	       /* host fds, -1: closed */
	uint64_t memory_limit; /* 0: none */
	uint32_t ncpus;	       /* 0: the host's */
	uint32_t max_pids;     /* 0: none */
	uint64_t timeout_ms;   /* 0: none */
	int image_fd;
	uint64_t image_size;
	bool readonly;
	struct config_volume volumes[CONFIG_MAX_VOLUMES];
	size_t nvolumes;
	unsigned int fn_kind; /* enum fn_kind of fnchan.h, 0: an ordinary sandbox */
	uint32_t fn_port;     /* http: what it is going to listen on; 0: whatever */
	int fn_channel;	      /* host fd */
	const char *platform;
	bool no_rewrite; /* leave call sites as they are */
	uint32_t
		poll_percent; /* of a CPU that may look for posted calls in vain; 0: nobody looks */
	int strace_fd;	      /* -1: off */
	bool stats;
	const char *log_level;
	int control_fd; /* listening socket for control.h; 0: none */
	int ready_fd;	/* gets one byte, 0, once init runs; 0: none */
	void *blob;	/* what the strings point into, when parsed */
};

/*
 * Parses @size bytes of device tree. Strings point into @blob, which the caller keeps; arrays are
 * malloc'd (front-end memory: nothing of it is kernel state). 0, or -EINVAL with one line in @why.
 */
int sandbox_config_parse(const void *blob, size_t size, struct config *c, char *why,
			 size_t why_size);
void sandbox_config_free(struct config *c);
/* Writes @c as a device tree: a malloc'd blob of *@size bytes. 0 or -errno. */
int sandbox_config_write(const struct config *c, void **blob, size_t *size);
/* The same on a sealed memfd. Returns the fd or -errno. */
int sandbox_config_memfd(const void *blob, size_t size);

#endif
