/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The function channel: what a server (kvmsbox serve) and a sandbox that serves a function say to
 * each other, over one SOCK_SEQPACKET socket pair per sandbox. A message is a struct fn_msg and up
 * to FN_DATA_MAX bytes behind it. The other end's death is the end of both: a server that finds the
 * channel closed has lost the sandbox, a sandbox that does ends.
 *
 *	server				sandbox
 *					FN_STDERR*		what it says while it comes up
 *					FN_READY [snapshot]	frozen at its snapshot point
 *	FN_INVOKE, FN_BODY*
 *					FN_STDOUT*, FN_STDERR*
 *					FN_DONE
 *					FN_READY		again, after its reset
 *
 * FN_FAILED instead of the first FN_READY: it never got there. Between FN_INVOKE and FN_DONE there
 * is one request; a server sends FN_INVOKE only to a sandbox that said FN_READY.
 *
 * Kinds. stdio: FN_INVOKE's and FN_BODY's bytes are the program's standard input up to
 * FN_END_OF_DATA; FN_STDOUT's and FN_DONE's bytes are its standard output; FN_DONE comes when its
 * init has ended. http and lambda: bytes travel in streams, each a TCP connection on the sandbox's
 * own loopback, named by a number that whoever opens it picks (the server even, the sandbox odd
 * ones). http: the server opens one to the port and speaks HTTP. lambda: the sandbox opens one for
 * each connection the program makes to AWS_LAMBDA_RUNTIME_API; the server is the runtime interface.
 * A request's streams end with it; the runtime's connections begin anew with the next FN_INVOKE,
 * unless FN_KEEP. There the server says with FN_FINISH when the request is over, and FN_DONE
 * answers that (or comes on its own when the program ends).
 *
 * Bytes are in host order: both ends are on one machine.
 */
#ifndef SENTRY_FNCHAN_H
#define SENTRY_FNCHAN_H

#include <stdint.h>

#define FN_VERSION  1
#define FN_DATA_MAX 65536 /* bytes behind a struct fn_msg */

enum fn_kind { FN_STDIO = 1, FN_HTTP, FN_LAMBDA };

enum fn_type {
	/* from the server */
	FN_INVOKE = 1, /* .invoke; stdio: data is the beginning of the body */
	FN_BODY,       /* stdio: more of it */
	FN_FINISH,     /* http, lambda: the request is over */
	FN_CANCEL,     /* whatever it is doing: FN_DONE with FN_CANCELLED, soon */
	FN_SNAPSHOT,   /* to a ready sandbox: FN_IMAGE */
	/* from the sandbox */
	FN_READY = 64, /* .ready */
	FN_IMAGE,      /* the snapshot, for kvmsbox restore (see below) */
	FN_FAILED,     /* data: one line, why; .done.status */
	FN_STDOUT,     /* stdio: data */
	FN_STDERR,     /* data */
	FN_DONE,       /* .done; stdio: data is the rest of standard output */
	/* both ways; .stream */
	FN_OPEN = 128, /* a connection (to .stream.port, from the server) */
	FN_DATA,       /* data; FN_END_OF_DATA: nothing more this way (half-close) */
	FN_CLOSE,      /* both ways closed; FN_RESET: by RST, or refused */
	FN_WINDOW,     /* .stream.window more bytes may come (see below) */
};

/* Of messages with data. */
#define FN_END_OF_DATA 1u
/*
 * Of FN_INVOKE: leave everything as it is after FN_DONE (isolation none, or n not yet reached).
 * Void if the request didn't come to its own end: cancelled, timed out, killed, or the program has
 * ended.
 */
#define FN_KEEP 2u
/* Of FN_CLOSE. */
#define FN_RESET 4u
/* Of FN_DONE: how it ended, beside its status. */
#define FN_CANCELLED  8u   /* FN_CANCEL */
#define FN_TIMED_OUT  16u  /* deadline_ns was over */
#define FN_OUT_OF_MEM 32u  /* the memory limit killed a process of it */
#define FN_TOO_MUCH   64u  /* max_output was exceeded; what came before has been sent */
#define FN_NOT_READY  128u /* it can't be reset: the sandbox ends after this message */

/*
 * Of FN_READY: the first requests have taught this sandbox what every one of them touches, and its
 * frozen state has that in place now. A snapshot is worth more from here on; copies don't learn.
 */
#define FN_LEARNED 256u

/*
 * Flow control of FN_STDOUT, FN_BODY and streams is the socket's own for one request's data as a
 * whole: a sender that would block waits. A stream's sender may have FN_STREAM_WINDOW bytes under
 * way that the receiver hasn't said FN_WINDOW for, so that one slow stream doesn't stop the others.
 */
#define FN_STREAM_WINDOW 262144

/*
 * FN_IMAGE comes with two descriptors (SCM_RIGHTS): a sealed memory file, and the file that the
 * root file system is in. A server hands both to a blank (kvmsbox restore --blank), also by
 * FN_IMAGE: it is locked down by then, and can open nothing.
 */
#define FN_IMAGE_FDS 2

struct fn_msg {
	uint32_t type; /* enum fn_type */
	uint32_t flags;
	uint32_t len; /* of data */
	uint32_t reserved;
	union {
		struct {
			uint64_t id;	      /* for logs */
			uint64_t deadline_ns; /* from now; 0: none */
			uint64_t max_output;  /* bytes of standard output; 0: no limit */
			uint8_t entropy[32];  /* fresh, from the server */
		} invoke;
		struct {
			uint32_t version;  /* FN_VERSION */
			uint32_t kind;	   /* enum fn_kind */
			uint32_t pid;	   /* of the sandbox's process */
			uint32_t port;	   /* http: what it listens on */
			uint64_t took_ns;  /* start: from exec to here; else the reset */
			uint64_t resident; /* bytes of its own memory: private, or dirtied */
			uint64_t dirtied;  /* pages that the reset set back */
			uint64_t requests; /* so far */
		} ready;
		struct {
			int32_t status; /* exit status; 128+N: by signal N */
			uint32_t pad;
			uint64_t ran_ns; /* from FN_INVOKE to here */
			uint64_t cpu_ns;
			uint64_t peak_rss; /* bytes */
		} done;
		struct {
			uint32_t id;
			uint16_t port;
			uint16_t pad;
			uint32_t window;
		} stream;
		uint8_t pad[80];
	};
};

#endif
