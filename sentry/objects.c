/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the sentry's objects known to the vfs: hooks, drivers, filesystems. */
#include "sentry/objects.h"

#include "sentry/epoll.h"
#include "sentry/pipe.h"
#include "sentry/tty.h"

int objects_init(void)
{
	fifo_open_hook = fifo_open;
	epoll_release_hook = epoll_file_released;
	return tty_init();
}
