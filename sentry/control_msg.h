/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kvmsbox says to a named sandbox over its control socket, a SOCK_SEQPACKET one: one struct
 * control_msg and up to CONTROL_TEXT_MAX bytes of text in each packet. Every request gets one reply;
 * CONTROL_EXITED comes by itself when the connection's command has ended.
 *
 *	client				sandbox
 *	CONTROL_ENTER			CONTROL_ENTERED, later CONTROL_EXITED; or CONTROL_FAILED
 *	CONTROL_SIGNAL, CONTROL_RESIZE	CONTROL_OK or CONTROL_FAILED
 *	CONTROL_STATUS			CONTROL_STATUS_IS
 *	CONTROL_SNAPSHOT		CONTROL_SNAPSHOT_IS or CONTROL_FAILED
 *
 * With CONTROL_SNAPSHOT_IS comes the image (snapshot_image.h), a sealed memfd. With CONTROL_HOLD
 * the sandbox stays stopped until the client kills it (SIGKILL to init) or closes the connection,
 * which lets it go on.
 *
 * The first descriptor of CONTROL_ENTER is a sealed memfd with the device tree (config.h) of which
 * /chosen says what is to run: args; env, added to init's; cwd and user, or else init's; umask,
 * no-new-privs, terminal. The others are what its stdio counts, from 0. They are no terminals: the
 * client relays its own, so that a sandbox never holds one of its user's. A connection runs one
 * command. When it is closed before the command has ended, that is a line that drops: the command's
 * process group gets SIGHUP and SIGCONT, and goes on if it ignores them.
 *
 * Bytes are in host order: both ends are on one machine. Messages from a client are checked by
 * control_parse (test/fuzz/fuzz_control.c).
 */
#ifndef SENTRY_CONTROL_MSG_H
#define SENTRY_CONTROL_MSG_H

#include "sentry/lib/types.h"

#define CONTROL_VERSION	 1
#define CONTROL_TEXT_MAX 1024
#define CONTROL_MAX_FDS	 4

/* Requests: number, name, handler in control.c, flags allowed, fewest and most descriptors. */
#define CONTROL_REQUESTS(X)                                                                        \
	X(1, CONTROL_ENTER, enter, 0, 1, CONTROL_MAX_FDS)                                          \
	X(2, CONTROL_SIGNAL, send_signal, CONTROL_TO_INIT | CONTROL_TO_GROUP, 0, 0)                \
	X(3, CONTROL_RESIZE, resize, 0, 0, 0)                                                      \
	X(4, CONTROL_STATUS, status, 0, 0, 0)                                                      \
	X(5, CONTROL_SNAPSHOT, snapshot, CONTROL_HOLD, 0, 0)

enum control_type {
#define CONTROL_ENUM(nr, name, fn, flags, min_fds, max_fds) name = (nr),
	CONTROL_REQUESTS(CONTROL_ENUM)
#undef CONTROL_ENUM
	/* replies */
	CONTROL_OK = 64,
	CONTROL_FAILED,	   /* .exited.status: what the command line ends with; text: one line */
	CONTROL_ENTERED,   /* .entered */
	CONTROL_EXITED,	   /* .exited */
	CONTROL_STATUS_IS, /* .status */
	CONTROL_SNAPSHOT_IS,
};

/* Of CONTROL_SIGNAL: to init, not to this connection's command; to its whole process group. */
#define CONTROL_TO_INIT	 1u
#define CONTROL_TO_GROUP 2u
/* Of CONTROL_SNAPSHOT: the sandbox doesn't go on. */
#define CONTROL_HOLD 4u

struct control_size {
	uint16_t rows, columns, xpixel, ypixel;
};

struct control_msg {
	uint32_t version; /* CONTROL_VERSION */
	uint32_t type;	  /* enum control_type */
	uint32_t flags;
	uint32_t len; /* of the text behind */
	union {
		struct {
			uint32_t tree_size;	  /* bytes of device tree in the first descriptor */
			struct control_size size; /* of its terminal */
		} enter;
		struct {
			int32_t signo;
		} signal;
		struct control_size resize;
		struct {
			int32_t pid; /* in the sandbox */
		} entered;
		struct {
			int32_t status; /* as the shell's: exit status, or 128+N */
		} exited;
		struct {
			uint64_t uptime_ns;
			uint64_t memory;  /* bytes of the sandbox's own memory that are resident */
			uint32_t tasks;	  /* threads */
			uint32_t entered; /* commands that entered and run */
		} status;
		uint8_t pad[48];
	};
};

/*
 * Checks a packet of @n bytes that came with @nfds descriptors: a request of this version, of its
 * exact size, with flags, descriptors and numbers as they may be. 0, or -EINVAL with one line in
 * @why.
 */
int control_parse(const void *packet, size_t n, size_t nfds, struct control_msg *m, char *why,
		  size_t why_size);

#endif
