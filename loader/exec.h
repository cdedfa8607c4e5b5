/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes a process: scripts and ELF files into a new address space. Knows no tasks: the same
 * code serves execve(2), init, and commands from outside. Facts 15–24 of docs/create-process.md.
 */
#ifndef LOADER_EXEC_H
#define LOADER_EXEC_H

#include "sentry/mm/mm.h"
#include "vfs/file.h"

struct exec_args {
	struct file *file;	   /* from exec_open; borrowed */
	const char *filename;	   /* as the caller named it: AT_EXECFN, a script's path */
	char **argv, **envp;	   /* NULL-terminated kernel strings; borrowed */
	const struct vfs_ctx *ctx; /* who asks: credentials, root, cwd */
	struct mm_limits limits;
	unsigned long personality;
	bool no_new_privs;
	bool fd_cloexec; /* filename is /dev/fd/N and N closes on exec: no scripts */
};

struct exec_result {
	struct mm *mm;	   /* reference */
	uaddr_t entry, sp; /* where to start */
	char comm[16];	   /* basename of the file */
	struct cred *cred; /* reference: the caller's, or what set-id bits and capabilities made */
};

/*
 * Opens @name for execution: a regular file with execute permission on a mount that allows it
 * (read permission is not needed). Returns a file that can be read, or ERR_PTR.
 */
struct file *exec_open(const struct vfs_ctx *ctx, const struct path *base, const char *name,
		       bool nofollow, bool empty_path);
/*
 * Builds the image. 0 with @result filled, or -errno with nothing held: ENOEXEC, ELIBBAD, ELOOP,
 * E2BIG, ENOMEM, or what opening the interpreter gave.
 */
int exec_load(struct platform *platform, const struct exec_args *args,
	      struct exec_result *result) __must_check;
void exec_result_put(struct exec_result *result);

/*
 * Credentials after executing @file with @old: set-user-id, set-group-id, file capabilities.
 * A reference; @secure is AT_SECURE. ERR_PTR(-EPERM) when file capabilities can't be granted.
 */
struct cred *cred_exec(struct cred *old, struct file *file, bool no_new_privs, bool *secure);

#endif
