/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-load/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define TOKEN_MAX 8192

/* RFC 9110's token: what a method and a header's name consist of. */
static size_t token_length(const char *s)
{
	return strspn(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
			 "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

/* No control characters but tab: nothing that would end a header. */
static bool is_header_text(const char *s)
{
	for (; *s; s++) {
		if (((unsigned char)*s < ' ' && *s != '\t') || *s == 127)
			return false;
	}
	return true;
}

bool parse_duration(const char *s, uint64_t *ns)
{
	static const struct {
		const char *name;
		double seconds;
	} units[] = {{"", 1}, {"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"m", 60}, {"h", 3600}};
	double v;
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	v = strtod(s, &end);
	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
		if (strcmp(end, units[i].name))
			continue;
		v *= units[i].seconds;
		if (!(v >= 1e-9) || v > 1e8)
			return false;
		*ns = (uint64_t)(v * 1e9 + 0.5);
		return true;
	}
	return false;
}

char *read_whole(const char *path, size_t *len)
{
	bool is_stdin = !strcmp(path, "-");
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	size_t size = 0, n = 0;
	char *buf = NULL, *grown;
	ssize_t got = 1;
	int err = 0;

	if (fd < 0)
		return NULL;
	while (got) {
		if (size - n < 2) {
			size = size ? 2 * size : 65536;
			grown = realloc(buf, size);
			if (!grown) {
				err = ENOMEM;
				break;
			}
			buf = grown;
		}
		got = read(fd, buf + n, size - n - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			err = errno;
			break;
		}
		n += (size_t)got;
	}
	if (!is_stdin)
		close(fd);
	if (err) {
		free(buf);
		errno = err;
		return NULL;
	}
	buf[n] = 0;
	*len = n;
	return buf;
}

static int add_header(struct http_options *o, const char *arg)
{
	size_t name = token_length(arg);
	char **grown;

	if (!name || arg[name] != ':' || !is_header_text(arg))
		return complain("%s: --header %s: want 'NAME: VALUE' on one line", o->command, arg);
	if ((name == 14 && !strncasecmp(arg, "content-length", name)) ||
	    (name == 17 && !strncasecmp(arg, "transfer-encoding", name)))
		return complain("%s: --header %s: it follows from the body: leave it out",
				o->command, arg);
	grown = realloc(o->headers, (o->nheaders + 1) * sizeof(*grown));
	if (!grown)
		return complain("out of memory");
	o->headers = grown;
	grown[o->nheaders] = strdup(arg);
	if (!grown[o->nheaders])
		return complain("out of memory");
	o->nheaders++;
	return 0;
}

static int set_token(struct http_options *o, const char *where, const char *token)
{
	if (!*token || strlen(token) > TOKEN_MAX)
		return complain("%s: %s: want a token of 1 to %d characters", o->command, where,
				TOKEN_MAX);
	for (const char *p = token; *p; p++) {
		if (*p <= ' ' || *p > '~')
			return complain("%s: %s: a token has no spaces and no characters that "
					"aren't ASCII",
					o->command, where);
	}
	free(o->token);
	o->token = strdup(token);
	return o->token ? 0 : complain("out of memory");
}

static int read_token(struct http_options *o, const char *path)
{
	char where[512], *text;
	size_t len;
	int ret;

	snprintf(where, sizeof(where), "--token-file %s", path);
	text = read_whole(path, &len);
	if (!text)
		return complain("%s: %s: %s", o->command, where, strerror(errno));
	text[strcspn(text, "\r\n")] = 0;
	ret = set_token(o, where, text);
	free(text);
	return ret;
}

int http_option(struct http_options *o, int opt, char *arg)
{
	switch (opt) {
	case 'H':
		return add_header(o, arg);
	case 'k':
		o->insecure = true;
		break;
	case OPT_TOKEN:
		return set_token(o, "--token", arg);
	case OPT_TOKEN_FILE:
		return read_token(o, arg);
	case OPT_UNIX:
		if (!*arg || strlen(arg) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
			return complain("%s: --unix %s: want the path of a socket, of at most 107 "
					"bytes",
					o->command, arg);
		o->unix_path = arg;
		break;
	case OPT_CACERT:
		if (access(arg, R_OK))
			return complain("%s: --cacert %s: %s", o->command, arg, strerror(errno));
		o->cacert = arg;
		break;
	case OPT_METHOD:
		if (!*arg || arg[token_length(arg)] || !strcmp(arg, "CONNECT"))
			return complain("%s: --method %s: want a method like POST or GET",
					o->command, arg);
		o->method = arg;
		break;
	case OPT_TIMEOUT:
		if (!parse_duration(arg, &o->timeout_ns))
			return complain("%s: --timeout %s: want a time like 10, 1.5s or 500ms",
					o->command, arg);
		break;
	}
	return 0;
}

int http_body(struct http_options *o, const char *option, const char *arg)
{
	const char *path = arg[0] == '@' ? arg + 1 : arg;

	free(o->body);
	o->has_body = true;
	if (arg[0] != '@' && strcmp(arg, "-")) {
		o->body = strdup(arg);
		o->body_len = strlen(arg);
		return o->body ? 0 : complain("out of memory");
	}
	o->body = read_whole(path, &o->body_len);
	if (!o->body)
		return complain("%s: %s %s: can't read it: %s", o->command, option, arg,
				strerror(errno));
	return 0;
}

int http_options_done(struct http_options *o)
{
	const char *token = getenv("KVMSBOX_TOKEN");

	if (!o->token && token && *token)
		return set_token(o, "$KVMSBOX_TOKEN", token);
	return 0;
}

void http_options_free(struct http_options *o)
{
	for (size_t i = 0; i < o->nheaders; i++)
		free(o->headers[i]);
	free(o->headers);
	free(o->token);
	free(o->body);
}

const char *http_method(const struct http_options *o)
{
	return o->method ? o->method : o->has_body ? "POST" : "GET";
}

bool http_has_header(const struct http_options *o, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < o->nheaders; i++) {
		if (!strncasecmp(o->headers[i], name, n) && o->headers[i][n] == ':')
			return true;
	}
	return false;
}

static char *url_part(CURLU *u, CURLUPart part, unsigned int flags)
{
	char *value = NULL, *copy = NULL;

	if (!curl_url_get(u, part, &value, flags))
		copy = strdup(value);
	curl_free(value);
	return copy;
}

/* NULL if it is fine, else what is wrong with it. */
static const char *url_parts(CURLU *u, struct http_url *url)
{
	char *scheme, *path, *query, *user;

	user = url_part(u, CURLUPART_USER, 0);
	free(user);
	if (user)
		return "a name or password in it isn't sent: use --token or --header";
	scheme = url_part(u, CURLUPART_SCHEME, 0);
	url->tls = scheme && !strcmp(scheme, "https");
	if (!scheme || (!url->tls && strcmp(scheme, "http"))) {
		free(scheme);
		return "want http:// or https://";
	}
	free(scheme);
	url->text = url_part(u, CURLUPART_URL, 0);
	url->host = url_part(u, CURLUPART_HOST, 0);
	url->port = url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT);
	path = url_part(u, CURLUPART_PATH, 0);
	query = url_part(u, CURLUPART_QUERY, 0);
	if (!path || asprintf(&url->target, "%s%s%s", path, query ? "?" : "", query ?: "") < 0)
		url->target = NULL;
	free(path);
	free(query);
	return url->text && url->host && url->port && url->target ? NULL : "out of memory";
}

int http_url_parse(const struct http_options *o, const char *text, struct http_url *url)
{
	const char *wrong = NULL;
	CURLU *u = curl_url();
	char *whole = NULL;
	int ret = 0;

	*url = (struct http_url){0};
	if (!u || asprintf(&whole, "%s%s", text[0] == '/' ? "http://localhost" : "", text) < 0) {
		curl_url_cleanup(u);
		return complain("out of memory");
	}
	if (text[0] == '/' && !o->unix_path)
		wrong = "no server in it: want http://HOST:PORT/f/NAME";
	else if (!strstr(whole, "://"))
		wrong = "want http://HOST:PORT/f/NAME or https://…";
	else if (curl_url_set(u, CURLUPART_URL, whole, CURLU_PATH_AS_IS | CURLU_URLENCODE))
		wrong = "that is no URL: want http://HOST:PORT/f/NAME or https://…";
	else
		wrong = url_parts(u, url);
	if (wrong) {
		ret = complain("%s: %s: %s", o->command, text, wrong);
		http_url_free(url);
	}
	free(whole);
	curl_url_cleanup(u);
	return ret;
}

void http_url_free(struct http_url *url)
{
	free(url->text);
	free(url->host);
	free(url->port);
	free(url->target);
	*url = (struct http_url){0};
}

const char *http_status_hint(int status)
{
	switch (status) {
	case 401:
	case 403:
		return ": give the server's token by --token-file or KVMSBOX_TOKEN";
	case 404:
		return ": is the function's name right, and does the server know it?";
	case 405:
		return ": try another --method";
	case 413:
		return ": the body is larger than the server takes";
	case 429:
	case 503:
		return ": the server has no more places: try again later";
	case 504:
		return ": the function's time limit is over";
	}
	return "";
}
