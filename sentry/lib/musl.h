/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What musl's headers lack, or have otherwise than the kernel. Included before everything else
 * where kvmsbox is built with musl (Makefile); only musl.c includes it by name.
 */
#ifndef SENTRY_LIB_MUSL_H
#define SENTRY_LIB_MUSL_H
#ifndef __ASSEMBLER__

#include <asm/socket.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/stat.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>

#undef PAGE_SIZE
#undef PAGE_MASK
#undef PAGE_SHIFT
/* musl's includes O_PATH. */
#undef O_ACCMODE
#define O_ACCMODE (O_RDONLY | O_WRONLY | O_RDWR)
#undef SOMAXCONN
#define SOMAXCONN 4096
/* musl's are bytes. */
#undef CPU_SETSIZE
#define CPU_SETSIZE (8 * (int)sizeof(cpu_set_t))

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x08
#define RWF_APPEND 0x10
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t pos, int flags);
ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t pos, int flags);
const char *strerrorname_np(int err);
const char *sigabbrev_np(int sig);

#endif
#endif
