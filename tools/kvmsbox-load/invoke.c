/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmsbox invoke: one request to a function, its answer on standard output. The exit status tells
 * scripts how it went, in curl's numbers where curl has one.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "tools/kvmsbox-load/http.h"

#define EXIT_STATUS_HEADER "X-Kvmsbox-Exit-Status"
#define CONNECT_SECONDS	   10L
#define VALUE_MAX	   64

enum { EXIT_HTTP = 22, EXIT_WRITE = 23 };

static const struct option options[] = {
	REQUEST_OPTIONS,
	{"data", required_argument, NULL, 'd'},
	{"include", no_argument, NULL, 'i'},
	{"repeat", required_argument, NULL, 'n'},
	{"verbose", no_argument, NULL, 'v'},
	{0},
};

/* clang-format off */
static const char help[] =
	"usage: kvmsbox invoke [OPTIONS] URL\n\n"
	"Calls a function of kvmsbox serve, http://HOST:PORT/f/NAME, and prints its answer.\n\n"
	"  -d, --data TEXT|@FILE|-   the body; default: standard input, unless that is a terminal\n"
	"                            or empty\n" REQUEST_HELP
	"      --timeout TIME        for each request; 10, 1.5s, 500ms; default: none\n"
	"  -i, --include             print the answer's headers, too\n"
	"  -n, --repeat N            call it N times, on one connection\n"
	"  -v, --verbose             a line on stderr for each answer: status, time, size\n"
	"  -h, --help\n\n"
	"The exit status is 0 for an answer 2xx; the function's own, if the answer says one\n"
	"(" EXIT_STATUS_HEADER "); 22 for other answers; 7 if there is no connection, 28 if the\n"
	"time is over, and what curl(1) lists for other failures; 125 for bad arguments. Of\n"
	"several calls, the first that isn't 0.\n";
/* clang-format on */

struct invoke {
	struct http_options http;
	struct http_url url;
	bool include, verbose;
	unsigned long repeat;
	/* of the answer at hand */
	int function_status;   /* -1: it didn't say */
	char error[VALUE_MAX]; /* the server's word for it, or none */
	uint64_t bytes;
	int write_error;
};

/* Returns false after remembering why. */
static bool print(struct invoke *v, const char *data, size_t n)
{
	ssize_t done;

	while (n) {
		done = write(STDOUT_FILENO, data, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0) {
			v->write_error = errno;
			return false;
		}
		data += done;
		n -= (size_t)done;
	}
	return true;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct invoke *v = arg;

	v->bytes += n;
	return print(v, data, n) ? n : 0;
}

/* @line is @n bytes with their line end, and no string. Returns false if it isn't header @name. */
static bool header_value(const char *line, size_t n, const char *name, char value[VALUE_MAX])
{
	size_t len = strlen(name);

	if (n <= len || strncasecmp(line, name, len) || line[len] != ':')
		return false;
	for (len++; len < n && (line[len] == ' ' || line[len] == '\t'); len++)
		;
	n = n - len < VALUE_MAX ? n - len : VALUE_MAX - 1;
	memcpy(value, line + len, n);
	value[n] = 0;
	value[strcspn(value, " \t\r\n")] = 0;
	return true;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct invoke *v = arg;
	char value[VALUE_MAX], *end;
	long status;

	if (v->include && !print(v, data, n))
		return 0;
	if (header_value(data, n, "X-Kvmsbox-Error", value)) {
		memcpy(v->error, value, sizeof(value));
	} else if (header_value(data, n, EXIT_STATUS_HEADER, value)) {
		status = strtol(value, &end, 10);
		if (end != value && !*end && status >= 0 && status <= 255)
			v->function_status = (int)status;
	}
	return n;
}

static const char *curl_hint(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return ": is the host's name right?";
	case CURLE_COULDNT_CONNECT:
		return ": is kvmsbox serve running there?";
	case CURLE_PEER_FAILED_VERIFICATION:
		return ": name its authority by --cacert, or trust it by -k";
	case CURLE_SSL_CONNECT_ERROR:
		return ": does the server speak TLS there? Try http://";
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return ": the server ended the connection: its log tells why";
	case CURLE_HTTP2:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
		return ": that is no HTTP server";
	default:
		return "";
	}
}

static int failed(struct invoke *v, CURL *c, CURLcode code, const char *why)
{
	const char *where = v->http.unix_path ? v->http.unix_path : v->url.text;
	char brief[CURL_ERROR_SIZE];
	long err = 0;

	if (v->write_error == EPIPE)
		return EXIT_WRITE;
	if (v->write_error) {
		complain("invoke: can't write the answer: %s", strerror(v->write_error));
		return EXIT_WRITE;
	}
	if (code == CURLE_OPERATION_TIMEDOUT) {
		complain("invoke: %s: %s", where,
			 v->http.timeout_ns ? "no answer in time (--timeout)"
					    : "no connection in time: is that the right place?");
		return code;
	}
	curl_easy_getinfo(c, CURLINFO_OS_ERRNO, &err);
	snprintf(brief, sizeof(brief), "%s", *why ? why : curl_easy_strerror(code));
	brief[strcspn(brief, "\r\n")] = 0;
	if (code == CURLE_COULDNT_CONNECT && err)
		snprintf(brief, sizeof(brief), "can't connect: %s", strerror((int)err));
	complain("invoke: %s: %s%s", where, brief, curl_hint(code));
	return (int)code;
}

static int answered(struct invoke *v, CURL *c, unsigned long nth)
{
	curl_off_t us = 0;
	long status = 0;

	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(c, CURLINFO_TOTAL_TIME_T, &us);
	if (v->verbose)
		dprintf(STDERR_FILENO, "%lu: %ld, %.3f ms, %llu bytes\n", nth, status,
			(double)us / 1000, (unsigned long long)v->bytes);
	if (v->function_status > 0) {
		complain("invoke: %s: the function ended with status %d", v->url.text,
			 v->function_status);
		return v->function_status;
	}
	if (status >= 200 && status < 300)
		return 0;
	complain("invoke: %s: answer %ld%s%s%s%s", v->url.text, status, *v->error ? " (" : "",
		 v->error, *v->error ? ")" : "", http_status_hint((int)status));
	return EXIT_HTTP;
}

/* The headers that go out; NULL: out of memory. */
static struct curl_slist *request_headers(const struct http_options *o)
{
	/* No waiting for "100 Continue" with large bodies. */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:"), *more = list;
	char *line;

	for (size_t i = 0; more && i < o->nheaders; i++) {
		/* To curl "Name:" is a wish to leave it out, and "Name;" one without value. */
		size_t name = strcspn(o->headers[i], ":");

		line = strdup(o->headers[i]);
		if (line && !line[name + 1 + strspn(line + name + 1, " \t")]) {
			line[name] = ';';
			line[name + 1] = 0;
		}
		more = line ? curl_slist_append(list, line) : NULL;
		free(line);
	}
	if (more && o->has_body && !http_has_header(o, "Content-Type"))
		more = curl_slist_append(list, "Content-Type: application/octet-stream");
	if (more && o->token && !http_has_header(o, "Authorization")) {
		if (asprintf(&line, "Authorization: Bearer %s", o->token) < 0)
			line = NULL;
		more = line ? curl_slist_append(list, line) : NULL;
		free(line);
	}
	if (more)
		return list;
	curl_slist_free_all(list);
	return NULL;
}

static void set_request(CURL *c, struct invoke *v, struct curl_slist *headers, char *why)
{
	const struct http_options *o = &v->http;
	const char *method = http_method(o);

	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_URL, v->url.text);
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "kvmsbox");
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	if (o->timeout_ns)
		curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)((o->timeout_ns + 999999) / 1000000));
	if (o->unix_path)
		curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, o->unix_path);
	if (o->cacert)
		curl_easy_setopt(c, CURLOPT_CAINFO, o->cacert);
	if (o->insecure) {
		curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (o->has_body) {
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)o->body_len);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, o->body);
	} else if (!strcmp(method, "HEAD")) {
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	} else if (strcmp(method, "GET")) {
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, 0L);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, "");
	}
	curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, v);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, v);
}

static int run(struct invoke *v)
{
	struct curl_slist *headers = NULL;
	char why[CURL_ERROR_SIZE];
	int status = 0, ret;
	CURLcode code;
	CURL *c;

	c = curl_easy_init();
	headers = c ? request_headers(&v->http) : NULL;
	if (!headers) {
		curl_easy_cleanup(c);
		return complain("out of memory");
	}
	set_request(c, v, headers, why);
	for (unsigned long i = 0; i < v->repeat; i++) {
		why[0] = 0;
		v->function_status = -1;
		v->error[0] = 0;
		v->bytes = 0;
		code = curl_easy_perform(c);
		ret = code ? failed(v, c, code, why) : answered(v, c, i + 1);
		status = status ? status : ret;
		if (code)
			break;
	}
	curl_easy_cleanup(c);
	curl_slist_free_all(headers);
	return status;
}

/* Standard input is the body if --data isn't given; nothing in it is no body. */
static int default_body(struct http_options *o)
{
	int err;

	if (o->has_body || isatty(STDIN_FILENO))
		return 0;
	err = http_body(o, "--data", "-");
	o->has_body = !err && o->body_len;
	return err;
}

static int parse_option(struct invoke *v, int opt, char *arg)
{
	char *end;

	switch (opt) {
	case 'd':
		return http_body(&v->http, "--data", arg);
	case 'i':
		v->include = true;
		return 0;
	case 'v':
		v->verbose = true;
		return 0;
	case 'n':
		v->repeat = strtoul(arg, &end, 10);
		if (*arg < '0' || *arg > '9' || *end || !v->repeat || v->repeat > 1000000)
			return complain("invoke: --repeat %s: want a number from 1 to 1000000",
					arg);
		return 0;
	default:
		return http_option(&v->http, opt, arg);
	}
}

int cmd_invoke(int argc, char **argv)
{
	struct invoke v = {.http = {.command = "invoke"}, .repeat = 1};
	int opt, err = 0;

	opterr = 0;
	while (!err && (opt = getopt_long(argc, argv, ":d:in:vh" REQUEST_SHORT_OPTIONS, options,
					  NULL)) != -1) {
		if (opt == 'h') {
			fputs(help, stdout);
			goto out_free;
		}
		if (opt == '?')
			err = complain("invoke: unknown option %s: see kvmsbox invoke --help",
				       argv[optind - 1]);
		else if (opt == ':')
			err = complain("invoke: option %s needs a value: see kvmsbox invoke --help",
				       argv[optind - 1]);
		else
			err = parse_option(&v, opt, optarg);
	}
	if (!err && optind + 1 != argc)
		err = complain("invoke: want one URL, http://HOST:PORT/f/NAME: see kvmsbox invoke "
			       "--help");
	if (!err)
		err = http_options_done(&v.http);
	if (!err)
		err = http_url_parse(&v.http, argv[optind], &v.url);
	if (!err)
		err = default_body(&v.http);
	if (!err)
		err = run(&v);
out_free:
	http_url_free(&v.url);
	http_options_free(&v.http);
	return err;
}
