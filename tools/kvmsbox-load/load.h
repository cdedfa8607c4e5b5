/* SPDX-License-Identifier: Apache-2.0 */
/* kvmsbox load: what is asked for, what came of it, and the two that know both. */
#ifndef KVMSBOX_LOAD_LOAD_H
#define KVMSBOX_LOAD_LOAD_H

#include <stdio.h>

#include "tools/kvmsbox-load/histogram.h"
#include "tools/kvmsbox-load/http.h"
#include "tools/kvmsbox-load/net.h"
#include "tools/kvmsbox-load/response.h"

#define MAX_STATUS 1000

struct load_options {
	struct http_options http;
	struct http_url *urls; /* asked for in turn; all of one server */
	size_t nurls;
	unsigned int connections;
	uint64_t requests;    /* 0: no limit */
	uint64_t duration_ns; /* 0: no limit */
	double rate;	      /* arrivals a second; 0: the next when the last is answered */
	uint64_t warm_up_ns;
	bool keepalive;
	const char *expect; /* in each body; NULL: anything */
	bool good[MAX_STATUS];
	uint64_t max_errors;
	const char *json; /* NULL: none; "-": instead of the summary */
	FILE *json_file;
	bool quiet;
};

/* Why a request failed. */
enum load_error {
	LOAD_OK,
	LOAD_CONNECT,  /* no connection */
	LOAD_TLS,      /* or none that is to be trusted */
	LOAD_CLOSED,   /* ended before the answer did */
	LOAD_PROTOCOL, /* the answer isn't HTTP */
	LOAD_TIMEOUT,
	LOAD_UNSENT, /* no connection was free for as long as its time limit */
	LOAD_STATUS,
	LOAD_EXPECT, /* the body isn't as expected */
	NR_LOAD_ERRORS,
};
extern const char *const load_error_names[NR_LOAD_ERRORS];

/*
 * Of requests that were due after the warm-up. A latency runs from when the request was due, which
 * with a rate is its place in the schedule, to the answer's last byte. latency holds the answers
 * that were as expected, and requests that timed out or weren't sent with the time they had waited,
 * so that what is slow never drops out of it; other failures aren't latencies.
 */
struct load_results {
	struct histogram latency;
	struct histogram lag; /* with a rate: how late this program itself sent */
	uint64_t begun, good;
	uint64_t errors[NR_LOAD_ERRORS];
	char why[NR_LOAD_ERRORS][NET_WHY_MAX]; /* the first of the kind */
	uint64_t statuses[MAX_STATUS];
	uint64_t cut_off; /* under way when interrupted */
	uint64_t warm_up; /* requests answered during the warm-up, however */
	uint64_t bytes_in, bytes_out;
	uint64_t connections; /* made, those of the warm-up too */
	uint64_t elapsed_ns;
	double cpu; /* share of one processor that this program used */
	bool interrupted;
};

static inline uint64_t load_errors(const struct load_results *r)
{
	uint64_t n = 0;

	for (int i = LOAD_OK + 1; i < NR_LOAD_ERRORS; i++)
		n += r->errors[i];
	return n;
}

/* Does it. Returns 0, or an exit status after a complaint if no connection could be made. */
int load_run(const struct load_options *o, struct load_results *r)
	__attribute__((warn_unused_result));

/* A line on stderr that the next one overwrites; wiped by load_progress_end. */
void load_progress(const struct load_results *r, uint64_t rate, uint64_t in_flight,
		   uint64_t elapsed_ns);
void load_progress_end(void);
void load_print(const struct load_options *o, const struct load_results *r);
/* Returns 0, or an exit status after a complaint. */
int load_write_json(const struct load_options *o, const struct load_results *r)
	__attribute__((warn_unused_result));

#endif
