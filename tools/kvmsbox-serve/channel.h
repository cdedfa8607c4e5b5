/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVE_CHANNEL_H
#define SERVE_CHANNEL_H

#include "tools/kvmsbox-serve/instance.h"

/*
 * One message. 1: there was one, *bytes are its data until the next call, @fds what came with it or
 * -1 (the caller closes them); 0: the end; -EAGAIN; -EPROTO: something that is none.
 */
int channel_receive(struct instance *i, struct fn_msg *m, const char **bytes,
		    int fds[FN_IMAGE_FDS]);
/* Sends what waits. True: nothing does any more. */
bool channel_flush(struct instance *i);
/* Closes it, and forgets what waits. */
void channel_close(struct instance *i);

#endif
