/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between kvmsbox and kvmsbox-import, which always come from the same build.
 *
 *	kvmsbox-import FD CACHE MAX_BYTES MAX_ENTRIES quiet|progress LOG_LEVEL ARCHIVE
 *
 * CACHE "" is the default. The answer is one struct import_answer on descriptor FD; without one it
 * died.
 */
#ifndef TOOLS_KVMSBOX_IMPORT_PROTOCOL_H
#define TOOLS_KVMSBOX_IMPORT_PROTOCOL_H

#include "loader/image.h"

struct import_answer {
	int code; /* 0, or -errno and a message */
	char hash[IMAGE_HASH_LEN + 1];
	struct image_error error;
};

#endif
