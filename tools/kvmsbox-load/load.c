/* SPDX-License-Identifier: Apache-2.0 */
/* kvmsbox load: the command line. */
#include "tools/kvmsbox-load/load.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_CONNECTIONS 10
#define DEFAULT_DURATION    (10 * NSEC_PER_SEC)
#define DEFAULT_TIMEOUT	    (10 * NSEC_PER_SEC)
#define MAX_CONNECTIONS	    100000
#define EXIT_ERRORS	    1

enum {
	OPT_NO_KEEPALIVE = OPT_FIRST_FREE,
	OPT_WARM_UP,
	OPT_EXPECT,
	OPT_EXPECT_STATUS,
	OPT_URL_FILE,
	OPT_MAX_ERRORS,
	OPT_JSON,
};

static const struct option options[] = {
	REQUEST_OPTIONS,
	{"connections", required_argument, NULL, 'c'},
	{"requests", required_argument, NULL, 'n'},
	{"duration", required_argument, NULL, 'd'},
	{"rate", required_argument, NULL, 'R'},
	{"body", required_argument, NULL, 'b'},
	{"no-keepalive", no_argument, NULL, OPT_NO_KEEPALIVE},
	{"warm-up", required_argument, NULL, OPT_WARM_UP},
	{"expect", required_argument, NULL, OPT_EXPECT},
	{"expect-status", required_argument, NULL, OPT_EXPECT_STATUS},
	{"url-file", required_argument, NULL, OPT_URL_FILE},
	{"max-errors", required_argument, NULL, OPT_MAX_ERRORS},
	{"json", required_argument, NULL, OPT_JSON},
	{"quiet", no_argument, NULL, 'q'},
	{0},
};

/* clang-format off */
static const char help[] =
	"usage: kvmsbox load [OPTIONS] URL…\n\n"
	"Sends requests to functions of kvmsbox serve (or any HTTP server) and tells how fast the\n"
	"answers were. Times take units: 10, 1.5s, 500ms, 2m, 1h.\n\n"
	"How much\n"
	"  -c, --connections N       at once; default 10\n"
	"  -n, --requests N          so many in all, -d or no limit in time\n"
	"  -d, --duration TIME       so long; default 10s, if there is no -n\n"
	"  -R, --rate N              N requests a second, on a fixed schedule. A latency counts\n"
	"                            from the scheduled time: waiting for a slow server is in it.\n"
	"                            Without: each connection sends its next request when the\n"
	"                            last is answered\n"
	"      --warm-up TIME        before what is counted; default none\n\n"
	"What\n"
	"  -b, --body TEXT|@FILE|-   - is standard input\n" REQUEST_HELP
	"      --timeout TIME        for each request, connecting included, and with a rate for\n"
	"                            waiting for a connection before; default 10s\n"
	"      --no-keepalive        a connection for each request\n"
	"      --url-file FILE       more URLs, one a line, # begins a comment; - is standard\n"
	"                            input. Several take turns; all are of one server\n\n"
	"What is right\n"
	"      --expect STRING       must be in the body\n"
	"      --expect-status LIST  like 200,404 or 200-299 (the default)\n"
	"      --max-errors N        exit with status 1 if there are more; default 0\n\n"
	"Output\n"
	"      --json FILE           the results for programs; - prints them, not the summary\n"
	"  -q, --quiet               no progress line (there is none without a terminal)\n"
	"  -h, --help\n\n"
	"^C ends it early, with the summary; the second ^C at once. Exit status: 0; 1 for more\n"
	"errors than --max-errors; 7 if there is no connection at all, 35 or 60 if TLS fails or\n"
	"the certificate isn't trusted; 125 for bad arguments.\n";
/* clang-format on */

static int parse_count(const char *option, const char *arg, uint64_t min, uint64_t max, uint64_t *v)
{
	char *end;

	errno = 0;
	*v = strtoull(arg, &end, 10);
	if (*arg < '0' || *arg > '9' || *end || errno || *v < min || *v > max)
		return complain("load: %s %s: want a number from %lu to %lu", option, arg, min,
				max);
	return 0;
}

static int parse_time(const char *option, const char *arg, uint64_t *ns)
{
	if (!parse_duration(arg, ns))
		return complain("load: %s %s: want a time like 10, 1.5s or 500ms", option, arg);
	return 0;
}

static int parse_rate(const char *arg, double *rate)
{
	char *end;

	*rate = strtod(arg, &end);
	if (*arg < '0' || *arg > '9' || (*end && strcmp(end, "/s")) || !(*rate >= 1e-3) ||
	    *rate > 1e7)
		return complain("load: --rate %s: want requests a second, 0.001 to 10000000", arg);
	return 0;
}

/* A list of numbers and ranges; replaces what was good. */
static int parse_statuses(bool good[MAX_STATUS], const char *arg)
{
	const char *p = arg;
	unsigned long from, to;
	char *end;

	memset(good, 0, MAX_STATUS * sizeof(*good));
	for (;;) {
		from = to = strtoul(p, &end, 10);
		if (end == p + 3 && *end == '-') {
			p = end + 1;
			to = strtoul(p, &end, 10);
		}
		if (*p < '0' || *p > '9' || end != p + 3 || from < 100 || to < from ||
		    (*end && *end != ','))
			return complain("load: --expect-status %s: want a list like 200,404 or "
					"200-299",
					arg);
		for (unsigned long i = from; i <= to; i++)
			good[i] = true;
		if (!*end)
			return 0;
		p = end + 1;
	}
}

/* All requests go over the same connections. */
static int add_url(struct load_options *o, const char *text)
{
	struct http_url *grown = realloc(o->urls, (o->nurls + 1) * sizeof(*grown));
	int err;

	if (!grown)
		return complain("out of memory");
	o->urls = grown;
	err = http_url_parse(&o->http, text, &grown[o->nurls]);
	if (err)
		return err;
	if (o->nurls++ && (strcmp(grown->host, grown[o->nurls - 1].host) ||
			   strcmp(grown->port, grown[o->nurls - 1].port) ||
			   grown->tls != grown[o->nurls - 1].tls))
		return complain("load: %s: it is not of the same server as %s: load one at a time",
				text, grown->text);
	return 0;
}

static int add_url_file(struct load_options *o, const char *path)
{
	char *text, *line, *next;
	size_t len;
	int err = 0;

	text = read_whole(path, &len);
	if (!text)
		return complain("load: --url-file %s: %s", path, strerror(errno));
	for (next = text; !err && (line = strsep(&next, "\r\n"));) {
		line += strspn(line, " \t");
		line[strcspn(line, " \t#")] = 0;
		if (*line)
			err = add_url(o, line);
	}
	free(text);
	return err;
}

struct given {
	const char *url_file;
};

static int parse_option(struct load_options *o, struct given *g, int opt, char *arg)
{
	uint64_t n;
	int err;

	switch (opt) {
	case 'c':
		err = parse_count("--connections", arg, 1, MAX_CONNECTIONS, &n);
		o->connections = (unsigned int)n;
		return err;
	case 'n':
		return parse_count("--requests", arg, 1, UINT64_MAX / 2, &o->requests);
	case 'd':
		return parse_time("--duration", arg, &o->duration_ns);
	case 'R':
		return parse_rate(arg, &o->rate);
	case 'b':
		return http_body(&o->http, "--body", arg);
	case OPT_NO_KEEPALIVE:
		o->keepalive = false;
		return 0;
	case OPT_WARM_UP:
		return parse_time("--warm-up", arg, &o->warm_up_ns);
	case OPT_EXPECT:
		o->expect = arg;
		return 0;
	case OPT_EXPECT_STATUS:
		return parse_statuses(o->good, arg);
	case OPT_URL_FILE:
		g->url_file = arg;
		return 0;
	case OPT_MAX_ERRORS:
		return parse_count("--max-errors", arg, 0, UINT64_MAX / 2, &o->max_errors);
	case OPT_JSON:
		o->json = arg;
		return 0;
	case 'q':
		o->quiet = true;
		return 0;
	default:
		return http_option(&o->http, opt, arg);
	}
}

/* -1: go on, else the exit status. */
static int parse_args(struct load_options *o, int argc, char **argv)
{
	struct given g = {0};
	int opt, err = 0;

	opterr = 0;
	while (!err && (opt = getopt_long(argc, argv, ":c:n:d:R:b:qh" REQUEST_SHORT_OPTIONS,
					  options, NULL)) != -1) {
		if (opt == 'h') {
			fputs(help, stdout);
			return 0;
		}
		if (opt == '?')
			err = complain("load: unknown option %s: see kvmsbox load --help",
				       argv[optind - 1]);
		else if (opt == ':')
			err = complain("load: option %s needs a value: see kvmsbox load --help",
				       argv[optind - 1]);
		else
			err = parse_option(o, &g, opt, optarg);
	}
	for (int i = optind; !err && i < argc; i++)
		err = add_url(o, argv[i]);
	if (!err && g.url_file)
		err = add_url_file(o, g.url_file);
	if (!err && !o->nurls)
		err = complain("load: no URL given: kvmsbox load http://HOST:PORT/f/NAME");
	if (!err)
		err = http_options_done(&o->http);
	if (!o->requests && !o->duration_ns)
		o->duration_ns = DEFAULT_DURATION;
	if (err || !o->json)
		return err ?: -1;
	/* Now, and not when the load is over. */
	o->json_file = strcmp(o->json, "-") ? fopen(o->json, "we") : stdout;
	if (!o->json_file)
		return complain("load: --json %s: %s", o->json, strerror(errno));
	return -1;
}

int cmd_load(int argc, char **argv)
{
	static struct load_results results;
	struct load_options o = {
		.http = {.command = "load", .timeout_ns = DEFAULT_TIMEOUT},
		.connections = DEFAULT_CONNECTIONS,
		.keepalive = true,
	};
	int ret;

	memset(o.good + 200, true, 100 * sizeof(*o.good));
	ret = parse_args(&o, argc, argv);
	if (ret < 0) {
		ret = load_run(&o, &results);
		if (!ret) {
			if (!o.json || strcmp(o.json, "-"))
				load_print(&o, &results);
			if (o.json)
				ret = load_write_json(&o, &results);
			if (!ret && load_errors(&results) > o.max_errors)
				ret = EXIT_ERRORS;
		}
	}
	if (o.json_file && o.json_file != stdout)
		fclose(o.json_file);
	for (size_t i = 0; i < o.nurls; i++)
		http_url_free(&o.urls[i]);
	free(o.urls);
	http_options_free(&o.http);
	return ret;
}
