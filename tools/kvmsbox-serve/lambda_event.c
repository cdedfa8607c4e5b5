/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvmsbox-serve/lambda_event.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "tools/kvmsbox-serve/client.h"
#include "tools/kvmsbox-serve/request.h"

/* Appends to what @object has under @key, behind a comma. */
static void join_value(json_t *object, const char *key, const char *value)
{
	const char *old = json_string_value(json_object_get(object, key));
	char *joined;

	if (!old) {
		json_object_set_new(object, key, json_string(value));
	} else if (asprintf(&joined, "%s,%s", old, value) >= 0) {
		json_object_set_new(object, key, json_string(joined));
		free(joined);
	}
}

static json_t *event_headers(const struct http_head *h, json_t **cookies)
{
	json_t *headers = json_object();
	char name[256];
	size_t n;

	for (size_t k = 0; k < h->nfields; k++) {
		const char *given = http_field_name(h, k), *value = http_field_value(h, k);

		for (n = 0; n < sizeof(name) - 1 && given[n]; n++)
			name[n] = (char)tolower((unsigned char)given[n]);
		name[n] = 0;
		if (!strcmp(name, "authorization") || http_field_is_hop_by_hop(h, name))
			continue;
		if (strcmp(name, "cookie")) {
			join_value(headers, name, value);
			continue;
		}
		*cookies = *cookies ?: json_array();
		for (const char *s = value; *s; s += strcspn(s, ";"), s += strspn(s, "; "))
			json_array_append_new(*cookies, json_stringn(s, strcspn(s, ";")));
	}
	return headers;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* Undoes %XX and +, into @out, which has room for @n + 1 bytes. */
static void unescape(const char *s, size_t n, char *out)
{
	size_t k = 0;

	while (k < n) {
		if (s[k] == '%' && k + 2 < n && hex_digit(s[k + 1]) >= 0 &&
		    hex_digit(s[k + 2]) >= 0 && (hex_digit(s[k + 1]) || hex_digit(s[k + 2]))) {
			*out++ = (char)(hex_digit(s[k + 1]) << 4 | hex_digit(s[k + 2]));
			k += 3;
		} else {
			*out++ = s[k] == '+' ? ' ' : s[k];
			k++;
		}
	}
	*out = 0;
}

static json_t *event_parameters(const char *query)
{
	json_t *o = json_object();

	for (const char *s = query; *s; s += strcspn(s, "&"), s += strspn(s, "&")) {
		size_t n = strcspn(s, "&"), name = strcspn(s, "=&");
		char *key = malloc(name + 1), *value = malloc(n + 1);

		if (key && value) {
			unescape(s, name, key);
			unescape(s + name + (name < n), n - name - (name < n), value);
			join_value(o, key, value);
		}
		free(key);
		free(value);
	}
	return o;
}

static json_t *event_context(const struct request *r)
{
	const char *agent = http_head_find(r->head, "user-agent", NULL);
	const char *host = http_head_find(r->head, "host", NULL);
	struct timespec ts;
	char text[40];
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(text, sizeof(text), "%d/%b/%Y:%H:%M:%S +0000", &tm);
	return json_pack("{s:s, s:s, s:s?, s:{s:s, s:s, s:s, s:s, s:s}, s:s, s:s, s:s, s:s, s:I}",
			 "accountId", "anonymous", "apiId", r->function->config->name, "domainName",
			 host, "http", "method", http_method_str(r->method), "path", r->path,
			 "protocol", "HTTP/1.1", "sourceIp", r->client->peer, "userAgent",
			 agent ?: "", "requestId", r->id, "routeKey", "$default", "stage",
			 "$default", "time", text, "timeEpoch",
			 (json_int_t)(ts.tv_sec * 1000 + ts.tv_nsec / 1000000));
}

static char *base64(const char *data, size_t n)
{
	char *text = malloc(4 * ((n + 2) / 3) + 1);

	if (text)
		EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)data, (int)n);
	return text;
}

/* The body as text if it is UTF-8, else in base 64. */
static void event_body(json_t *event, const struct buf *body)
{
	json_t *text;
	char *encoded;

	if (!body->len) {
		json_object_set_new(event, "isBase64Encoded", json_false());
		return;
	}
	text = memchr(buf_data(body), 0, body->len) ? NULL
						    : json_stringn(buf_data(body), body->len);
	json_object_set_new(event, "isBase64Encoded", json_boolean(!text));
	if (!text) {
		encoded = base64(buf_data(body), body->len);
		text = encoded ? json_string(encoded) : NULL;
		free(encoded);
	}
	json_object_set_new(event, "body", text);
}

int lambda_event_apigw2(const struct request *r, struct buf *out)
{
	json_t *cookies = NULL, *event = json_object();
	char *text;

	json_object_set_new(event, "version", json_string("2.0"));
	json_object_set_new(event, "routeKey", json_string("$default"));
	json_object_set_new(event, "rawPath", json_string(r->path));
	json_object_set_new(event, "rawQueryString", json_string(r->query ?: ""));
	json_object_set_new(event, "headers", event_headers(r->head, &cookies));
	if (cookies)
		json_object_set_new(event, "cookies", cookies);
	if (r->query && *r->query)
		json_object_set_new(event, "queryStringParameters", event_parameters(r->query));
	json_object_set_new(event, "requestContext", event_context(r));
	event_body(event, &r->body);
	text = json_dumps(event, JSON_COMPACT);
	json_decref(event);
	if (!text)
		return -ENOMEM;
	buf_str(out, text);
	free(text);
	return out->failed ? -ENOMEM : 0;
}

/* Fields as a function names them must not end a head. */
static bool is_field(const char *name, const char *value)
{
	size_t n = strlen(name);

	if (!n || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			       "!#$%&'*+-.^_`|~") != n)
		return false;
	for (const char *s = value; *s; s++) {
		if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
			return false;
	}
	return true;
}

static void answer_fields(struct request *r, json_t *result)
{
	static const char *const ours[] = {"content-length", "transfer-encoding", "connection",
					   "date", "x-request-id"};
	json_t *headers = json_object_get(result, "headers"), *v;
	bool typed = false;
	const char *name;
	size_t i, k;
	char number[40];

	json_object_foreach (headers, name, v) {
		const char *value = json_string_value(v);

		if (json_is_integer(v)) {
			snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
			value = number;
		}
		for (k = 0; k < ARRAY_SIZE(ours) && strcasecmp(name, ours[k]); k++)
			;
		if (k < ARRAY_SIZE(ours) || !value || !is_field(name, value))
			continue;
		typed |= !strcasecmp(name, "content-type");
		response_field(r, name, value);
	}
	if (!typed)
		response_field(r, "Content-Type", "application/json");
	json_array_foreach (json_object_get(result, "cookies"), i, v) {
		if (json_is_string(v) && is_field("cookie", json_string_value(v)))
			response_field(r, "Set-Cookie", json_string_value(v));
	}
}

static void answer_whole(struct request *r, const char *data, size_t n)
{
	bool none = r->method == HTTP_HEAD || r->status == 204 || r->status == 304;
	enum outcome outcome = r->status >= 500 ? OUT_FUNCTION_ERROR : OUT_OK;

	response_head_end(r, none && r->method != HTTP_HEAD ? NO_BODY : (int64_t)n);
	if (!none)
		response_data(r, data, n);
	response_end(r, outcome);
}

static void answer_object(struct request *r, json_t *result)
{
	json_t *status = json_object_get(result, "statusCode");
	json_t *body = json_object_get(result, "body");
	json_int_t code = json_integer_value(status);
	size_t n = json_string_length(body), pad = 0;
	char *text = malloc(n + 1);
	int len = (int)n;

	if (!text || code < 200 || code > 599) {
		free(text);
		response_fail(r, 502, OUT_BAD_RESPONSE, "bad-response",
			      "the function's statusCode is none");
		return;
	}
	memcpy(text, json_string_value(body) ?: "", n);
	text[n] = 0;
	if (json_is_true(json_object_get(result, "isBase64Encoded"))) {
		for (pad = 0; pad < 2 && pad < n && text[n - 1 - pad] == '='; pad++)
			;
		len = EVP_DecodeBlock((unsigned char *)text, (unsigned char *)text, (int)n);
		len = len < 0 ? -1 : len - (int)pad;
	}
	if (len < 0) {
		response_fail(r, 502, OUT_BAD_RESPONSE, "bad-response",
			      "the function's body isn't base 64");
	} else {
		response_begin(r, (unsigned int)code);
		answer_fields(r, result);
		answer_whole(r, text, (size_t)len);
	}
	free(text);
}

void lambda_answer_apigw2(struct request *r, const char *result, size_t n)
{
	json_t *o = json_loadb(result, n, JSON_DECODE_ANY, NULL);

	if (!o) {
		response_fail(r, 502, OUT_BAD_RESPONSE, "bad-response",
			      "the function's result isn't JSON");
	} else if (json_is_integer(json_object_get(o, "statusCode"))) {
		answer_object(r, o);
	} else {
		/* A result that is no response is the body of one. */
		response_begin(r, 200);
		response_field(r, "Content-Type", "application/json");
		answer_whole(r, result, n);
	}
	json_decref(o);
}
