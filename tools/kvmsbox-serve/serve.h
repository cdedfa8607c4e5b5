/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's objects. One thread, so no locks; what belongs to whom:
 *
 *	server -> tenants -> functions -> instances, queued requests
 *	client -> request -> instance while it runs
 *
 * A request ends exactly once, in request_end(); it is gone before its client or its instance is.
 * An instance outlives the request it served: FINISHING until FN_DONE, RESETTING until FN_READY.
 * Clients and instances are freed by a work, so a callback may still look at one it has ended.
 */
#ifndef SERVE_H
#define SERVE_H

#include "tools/kvmsbox-serve/config.h"
#include "tools/kvmsbox-serve/head.h"
#include "tools/kvmsbox-serve/loop.h"
#include "tools/kvmsbox-serve/stats.h"

struct client;
struct instance;
struct kind_ops;

struct tenant {
	struct list_head node;	      /* server.tenants */
	struct list_head functions;   /* function.of_tenant */
	struct tenant_config *config; /* own copy, replaced by a reload */
	unsigned int running, queued, instances;
	uint64_t memory; /* of its instances */
	double finish;	 /* start-time fair queueing: when its last request's share is used up */
	bool gone;	 /* no longer configured */
	uint64_t outcomes[NR_OUTCOMES];
};

struct function {
	struct list_head node;	    /* server.functions */
	struct list_head of_tenant; /* tenant.functions, the next one to serve first */
	struct list_head queue;	    /* request.node, oldest first */
	struct list_head ready;	    /* instance.in_ready, used last first */
	struct list_head instances; /* instance.node: all, of any version, until they are reaped */
	struct tenant *tenant;
	struct function_config *config;
	uint64_t version;
	int image[FN_IMAGE_FDS]; /* the snapshot of this version, or -1 */
	unsigned int images;	 /* how many there were: a better one may follow */
	bool snapshot_failed;	 /* of this version: start cold */
	unsigned int snapshot_failures;
	bool draining, gone;
	bool proven; /* this version has started before: a failure may be an accident */
	unsigned int reading, queued, running; /* requests */
	unsigned int live, starting, nready;   /* of this version, not ending */
	unsigned int failures;		       /* starts, in a row */
	uint64_t retry_at;		       /* no start before that */
	uint64_t no_room_until;		       /* nor before that */
	char *failure;			       /* why the last one failed */
	uint64_t typical_memory, average_run, average_start;
	unsigned int log_lines; /* that its stderr may still fill in this second */
	uint64_t lines_dropped;
	struct function_stats stats;
};

enum request_state { REQ_READING, REQ_QUEUED, REQ_RUNNING };

struct request {
	struct list_head node; /* function.queue */
	enum request_state state;
	struct client *client;
	const struct http_head *head; /* the client's */
	struct function *function;
	struct instance *instance; /* REQ_RUNNING */
	char id[65];
	uint64_t number;
	enum http_method method;
	const char *path, *query; /* within the function; query without "?", or NULL */
	char *target;		  /* what they point into */
	struct buf body;	  /* what hasn't been passed on */
	bool body_done, response_begun, cold, fresh;
	uint64_t length; /* of the body, as the head said; 0: it didn't */
	uint64_t body_bytes, out_bytes;
	uint64_t arrived, started, deadline; /* of loop_now() */
	struct timer timer;		     /* the deadline */
	unsigned int status;
	double charged; /* to its tenant, in advance */
};

enum instance_state {
	INST_BLANK,
	INST_STARTING,
	INST_SNAPSHOT,
	INST_READY,
	INST_BUSY,
	INST_FINISHING,
	INST_RESETTING,
	INST_ENDING,
};

/* Of http and lambda. */
struct stream {
	struct list_head node; /* instance.streams */
	uint32_t id;
	uint32_t credit;   /* bytes that may be sent */
	uint32_t unacked;  /* received, and not yet said FN_WINDOW for */
	uint32_t consumed; /* of these, dealt with */
	uint32_t window;   /* bytes the other end may still send */
	struct instance *instance;
	bool sent_end, got_end;
	void *data; /* the kind's */
};

struct instance {
	struct list_head node, in_ready;
	struct function *function; /* NULL: a blank */
	char platform[8];	   /* of a blank: as functions name it */
	struct function_config *config;
	unsigned int images; /* the function's when it was started */
	uint64_t version, number;
	enum instance_state state;
	const struct kind_ops *kind;
	bool cold, paused;
	bool current;	/* of its function's version, and not ending */
	bool delivered; /* lambda: the program has the request */
	bool lost;	/* the channel's other end is closed */
	bool stuck;	/* too much waits for it */
	pid_t pid;
	int pidfd;
	struct watch channel, death, errors;
	struct timer timer; /* of the state: too long a start, reset or end */
	struct work free_work;
	struct list_head out; /* packets that the channel had no room for */
	size_t nout;
	struct request *req; /* BUSY */
	struct list_head streams;
	uint32_t next_stream, nstreams;
	uint16_t port;		   /* http: what it listens on */
	void *data;		   /* the kind's, of one request */
	struct buf line, own_line; /* unfinished lines: the function's stderr, the process's own */
	char *last_words;
	char request_id[65];		 /* of the last request, for late stderr */
	uint64_t since_reset, requests;	 /* that it has begun */
	uint64_t resident, pss, counted; /* counted: in the sums */
	uint64_t started, since;	 /* in this state */
};

struct server {
	struct config *config;
	struct list_head tenants, functions, blanks;
	unsigned int running, queued, instances, starting, connections, nblanks;
	unsigned int processes; /* not yet reaped */
	uint64_t memory, memory_total, memory_available, budget, reserve;
	double vtime;
	bool stopping;
	uint64_t started;
	uint64_t accepted, refused, blank_starts;
	uint64_t http_errors[6]; /* answered without a function, by status / 100 */
	char *kvmsbox;
};

extern struct server server;

/* objects.c: finding, making, replacing */
struct tenant *tenant_find(const char *name);
/* The tenant whose token it is, or NULL; takes the same time for every token. */
struct tenant *tenant_by_token(const char *token, size_t n);
/* Makes the tenants those of @c. */
int tenants_apply(const struct config *c) __must_check;
struct function *function_find(const char *name);
/* Consumes the reference @fc. A function of that name gets a new version. 0 or -errno. */
int function_apply(struct function_config *fc) __must_check;
/* No more requests; queued ones are refused; freed when its last instance is. */
void function_remove(struct function *f);
/* As its configuration names it. */
const char *function_platform(const struct function *f);
/* Forgets its snapshot, if there is one. */
void function_drop_image(struct function *f);
void function_put_if_unused(struct function *f);
const char *kind_name(enum fn_kind kind);

#endif
