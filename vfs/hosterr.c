/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's errors in the guest's terms. What is about the file passes; what is about the sentry's
 * own resources becomes what a full kernel would say; the rest is an I/O error.
 */
#include <errno.h>

#include "vfs/hostfs.h"

int host_error(int err)
{
	switch (err) {
	case ENOENT:
	case ENOTDIR:
	case EISDIR:
	case EEXIST:
	case ENOTEMPTY:
	case ELOOP:
	case EXDEV:
	case EACCES:
	case EPERM:
	case EROFS:
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
	case EBUSY:
	case EMLINK:
	case ENAMETOOLONG:
	case EINVAL:
	case ETXTBSY:
	case ESTALE:
	case ENODATA:
	case ERANGE:
	case EOPNOTSUPP:
	case EOVERFLOW:
	case ENXIO:
	case EPIPE:
	case EIO:
		return -err;
	case EAGAIN:
	case EINTR:
		return -EAGAIN;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return -ENOMEM;
	default:
		return -EIO;
	}
}
