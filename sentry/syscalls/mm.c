/* SPDX-License-Identifier: Apache-2.0 */
/* Memory system calls: decode, and call the memory manager. */
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "sentry/kernel.h"
#include "sentry/lib/arena.h"
#include "sentry/lib/err.h"
#include "sentry/syscalls.h"

/* The limits the memory manager checks are the caller's at the time of the call. */
static struct mm *mm_with_limits(struct task *t)
{
	struct mm *mm = t->mm;

	task_mm_limits(t, &mm->limits);
	return mm;
}

long sys_mmap(struct task *t, const uint64_t *a)
{
	struct file *file = NULL;
	long ret;

	if (a[5] & ~PAGE_MASK)
		return -EINVAL;
	if (!(a[3] & MAP_ANONYMOUS)) {
		file = fd_get(t->files, (int)a[4]);
		if (!file)
			return -EBADF;
	}
	ret = mm_mmap(mm_with_limits(t), a[0], a[1], a[2], a[3], file, a[5]);
	if (file)
		file_put(file);
	return ret;
}

long sys_munmap(struct task *t, const uint64_t *a)
{
	return mm_munmap(t->mm, a[0], a[1]);
}

long sys_mprotect(struct task *t, const uint64_t *a)
{
	return mm_mprotect(mm_with_limits(t), a[0], a[1], a[2]);
}

long sys_pkey_mprotect(struct task *t, const uint64_t *a)
{
	if ((int)a[3] != -1)
		return -EINVAL;
	return mm_mprotect(mm_with_limits(t), a[0], a[1], a[2]);
}

long sys_mremap(struct task *t, const uint64_t *a)
{
	return mm_mremap(mm_with_limits(t), a[0], a[1], a[2], a[3], a[4]);
}

long sys_brk(struct task *t, const uint64_t *a)
{
	return (long)mm_brk(mm_with_limits(t), a[0]);
}

long sys_madvise(struct task *t, const uint64_t *a)
{
	return mm_madvise(t->mm, a[0], a[1], (int)a[2]);
}

long sys_mincore(struct task *t, const uint64_t *a)
{
	return mm_mincore(t->mm, a[0], a[1], a[2]);
}

long sys_msync(struct task *t, const uint64_t *a)
{
	return mm_msync(t->mm, a[0], a[1], (int)a[2]);
}

long sys_mlock(struct task *t, const uint64_t *a)
{
	return mm_mlock(mm_with_limits(t), a[0], a[1], 0, task_capable(t, CAP_IPC_LOCK));
}

long sys_mlock2(struct task *t, const uint64_t *a)
{
	if (a[2] & ~1UL)
		return -EINVAL;
	return mm_mlock(mm_with_limits(t), a[0], a[1], (unsigned int)a[2],
			task_capable(t, CAP_IPC_LOCK));
}

long sys_munlock(struct task *t, const uint64_t *a)
{
	return mm_munlock(t->mm, a[0], a[1]);
}

long sys_mlockall(struct task *t, const uint64_t *a)
{
	if (!(int)a[0])
		return -EINVAL;
	return mm_mlockall(mm_with_limits(t), (int)a[0], task_capable(t, CAP_IPC_LOCK));
}

long sys_munlockall(struct task *t, const uint64_t *a)
{
	return mm_mlockall(t->mm, 0, true);
}

#define MEMBARRIER_QUERY	    0
#define MEMBARRIER_GLOBAL	    1
#define MEMBARRIER_GLOBAL_EXP	    2
#define MEMBARRIER_REG_GLOBAL_EXP   4
#define MEMBARRIER_PRIVATE_EXP	    8
#define MEMBARRIER_REG_PRIVATE_EXP  16
#define MEMBARRIER_PRIVATE_SYNC	    32
#define MEMBARRIER_REG_PRIVATE_SYNC 64

/*
 * Every other thread that is in user code is kicked out, and this returns once each has been seen
 * outside: leaving and coming back is a serializing event.
 */
static void barrier_all(struct task *t)
{
	struct sighand *s = sighand_lock(t->tg);
	struct task *other;

	list_for_each_entry (other, &t->tg->threads, tg_node) {
		uint64_t seq = atomic_load(&other->user_seq);

		if (other == t || !other->ctx || !atomic_load(&other->in_user))
			continue;
		t->kernel->platform->type->ctx_kick(other->ctx);
		while (atomic_load(&other->in_user) && atomic_load(&other->user_seq) == seq)
			sched_yield();
	}
	mutex_unlock(&s->lock);
	__sync_synchronize();
}

long sys_membarrier(struct task *t, const uint64_t *a)
{
	int cmd = (int)a[0];

	if (a[1])
		return -EINVAL;
	switch (cmd) {
	case MEMBARRIER_QUERY:
		return MEMBARRIER_GLOBAL | MEMBARRIER_GLOBAL_EXP | MEMBARRIER_REG_GLOBAL_EXP |
		       MEMBARRIER_PRIVATE_EXP | MEMBARRIER_REG_PRIVATE_EXP;
	case MEMBARRIER_REG_GLOBAL_EXP:
	case MEMBARRIER_REG_PRIVATE_EXP:
		atomic_fetch_or(&t->mm->membarrier, (uint64_t)cmd);
		return 0;
	case MEMBARRIER_PRIVATE_EXP:
		if (!(atomic_load(&t->mm->membarrier) & MEMBARRIER_REG_PRIVATE_EXP))
			return -EPERM;
		/* fallthrough */
	case MEMBARRIER_GLOBAL:
	case MEMBARRIER_GLOBAL_EXP:
		barrier_all(t);
		return 0;
	default:
		return -EINVAL;
	}
}

/* ---- process_vm_readv, process_vm_writev ---- */

static long vm_rw(struct task *t, const uint64_t *a, bool write)
{
	struct iov_iter local, remote;
	struct task *other;
	struct mm *mm = NULL;
	uint8_t *buf = NULL;
	ssize_t done = 0;
	long ret;

	if (a[5])
		return -EINVAL;
	ret = iov_init_user_vec(&local, t->vfs.um, a[1], a[2]);
	if (ret)
		return ret;
	ret = iov_init_user_vec(&remote, t->vfs.um, a[3], a[4]);
	if (ret)
		goto out_local;
	other = task_find(t->kernel, task_pid_ns(t), (pid_t)a[0]);
	ret = -ESRCH;
	if (!other)
		goto out_remote;
	ret = task_may_access(t, other);
	if (!ret) {
		mm = task_get_mm(other);
		ret = mm ? 0 : -ESRCH;
	}
	task_put(other);
	if (ret)
		goto out_remote;
	ret = -ENOMEM;
	buf = kmalloc(16 * PAGE_SIZE);
	if (!buf)
		goto out_mm;
	ret = 0;
	for (unsigned int seg = 0; seg < remote.nsegs && local.count; seg++) {
		uaddr_t addr = remote.segs[seg].base;
		size_t left = MIN(remote.segs[seg].len, local.count);

		while (left) {
			size_t n = MIN(left, 16 * PAGE_SIZE), got, moved;

			if (write) {
				moved = iov_copy_from(&local, buf, n);
				got = mm_copy_remote(mm, addr, buf, moved, true, false);
			} else {
				got = mm_copy_remote(mm, addr, buf, n, false, false);
				moved = iov_copy_to(&local, buf, got);
				got = MIN(got, moved);
			}
			done += (ssize_t)got;
			addr += got;
			left -= got;
			if (got < n) {
				ret = -EFAULT;
				goto out_buf;
			}
		}
	}
out_buf:
	kfree(buf);
out_mm:
	mm_put(mm);
out_remote:
	iov_fini(&remote);
out_local:
	iov_fini(&local);
	return done ? done : ret;
}

long sys_process_vm_readv(struct task *t, const uint64_t *a)
{
	return vm_rw(t, a, false);
}

long sys_process_vm_writev(struct task *t, const uint64_t *a)
{
	return vm_rw(t, a, true);
}
