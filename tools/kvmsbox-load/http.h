/* SPDX-License-Identifier: Apache-2.0 */
/* What kvmsbox invoke and kvmsbox load have in common: which request goes where. */
#ifndef KVMSBOX_LOAD_HTTP_H
#define KVMSBOX_LOAD_HTTP_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXIT_KVMSBOX 125 /* an error of the command line; as all of kvmsbox has it */
#define NSEC_PER_SEC 1000000000ull

/* Each parses argv[1…] (argv[0] is its own name) and returns the exit status. */
int cmd_invoke(int argc, char **argv);
int cmd_load(int argc, char **argv);

/* Prints "kvmsbox: …" as one line on stderr; returns EXIT_KVMSBOX. */
int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

struct http_options {
	const char *command; /* for messages */
	char **headers;	     /* "Name: value", checked */
	size_t nheaders;
	char *token; /* NULL: none */
	const char *unix_path, *cacert;
	bool insecure;
	const char *method; /* NULL: POST with a body, else GET */
	char *body;
	size_t body_len;
	bool has_body;
	uint64_t timeout_ns; /* 0: none */
};

enum {
	OPT_TOKEN = 256,
	OPT_TOKEN_FILE,
	OPT_UNIX,
	OPT_CACERT,
	OPT_METHOD,
	OPT_TIMEOUT,
	OPT_FIRST_FREE,
};

#define REQUEST_SHORT_OPTIONS "H:k"
/* clang-format off */
#define REQUEST_OPTIONS \
	{"header", required_argument, NULL, 'H'}, \
	{"token", required_argument, NULL, OPT_TOKEN}, \
	{"token-file", required_argument, NULL, OPT_TOKEN_FILE}, \
	{"unix", required_argument, NULL, OPT_UNIX}, \
	{"cacert", required_argument, NULL, OPT_CACERT}, \
	{"insecure", no_argument, NULL, 'k'}, \
	{"method", required_argument, NULL, OPT_METHOD}, \
	{"timeout", required_argument, NULL, OPT_TIMEOUT}, \
	{"help", no_argument, NULL, 'h'}
#define REQUEST_HELP \
	"  -H, --header 'NAME: VALUE'  a header more; repeatable\n" \
	"      --token TOKEN         sent as Authorization: Bearer TOKEN; others on this\n" \
	"                            machine see a command line, so rather:\n" \
	"      --token-file FILE     its first line is the token; default: $KVMSBOX_TOKEN\n" \
	"      --unix PATH           connect to this Unix socket; URL may be just /f/NAME then\n" \
	"      --cacert FILE         the certificate authority to trust, not the system's\n" \
	"  -k, --insecure            trust any certificate\n" \
	"      --method METHOD       default POST with a body, else GET\n"
/* clang-format on */

/* All of these return 0, or the exit status after a complaint. */
int http_option(struct http_options *o, int opt, char *arg) __attribute__((warn_unused_result));
/* TEXT, @FILE or - (standard input) becomes the body. */
int http_body(struct http_options *o, const char *option, const char *arg)
	__attribute__((warn_unused_result));
/* After the last option: the environment's token. */
int http_options_done(struct http_options *o) __attribute__((warn_unused_result));
void http_options_free(struct http_options *o);
const char *http_method(const struct http_options *o);
/* Does -H give header @name? */
bool http_has_header(const struct http_options *o, const char *name);

/* The parts of a URL; each is its own allocation. */
struct http_url {
	char *text; /* in full */
	bool tls;
	char *host, *port;
	char *target; /* path and query, as they go into the request line */
};
int http_url_parse(const struct http_options *o, const char *text, struct http_url *url)
	__attribute__((warn_unused_result));
void http_url_free(struct http_url *url);

/* What an HTTP status means for who calls a function, and what to do; "" if it says so itself. */
const char *http_status_hint(int status);
/* "10", "1.5", "500ms", "10s", "2m", "1h": false if it is no such time, or none at all. */
bool parse_duration(const char *s, uint64_t *ns);
/* The whole of @path, "-" being standard input, and a 0 behind it. NULL: errno. */
char *read_whole(const char *path, size_t *len);

#endif
