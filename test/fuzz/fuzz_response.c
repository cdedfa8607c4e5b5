/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server answers kvmsbox load: read to its end, found short or refused, and the same whether
 * it comes at once or in pieces, whose sizes the input's first byte seeds. The second byte's low bit
 * makes it the answer to a HEAD. From there on bytes above 127 stand for pieces of HTTP, since the
 * parser is a library whose branches the fuzzer doesn't see.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tools/kvmsbox-load/response.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OK "HTTP/1.1 200 OK\r\n"

static const char *const fragments[] = {
	OK,
	OK "\r\n",
	OK "Content-Length: 6\r\n\r\n",
	OK "Transfer-Encoding: chunked\r\n\r\n",
	"HTTP/1.1 ",
	"HTTP/1.0 ",
	"100 Continue\r\n\r\n",
	"101 Switching\r\n\r\n",
	"204 None\r\n",
	"304 N\r\n",
	"500 Bad\r\n",
	"Content-Length: ",
	"Transfer-Encoding: ",
	"chunked",
	"Connection: close\r\n",
	"Connection: keep-alive\r\n",
	"Upgrade: x\r\n",
	"\r\n",
	"\r\n\r\n",
	"0\r\n\r\n",
	"4\r\nabab\r\n",
	"1\r\na\r\n",
	"2\r\nba\r\n",
	"aba",
	"abab",
	"999999999999999999999",
	"X: y\r\n",
	" folded\r\n",
};

/* Returns the length of what @data stands for, in @out of @max bytes. */
static size_t expand(const uint8_t *data, size_t size, uint8_t *out, size_t max)
{
	const char *f;
	size_t n = 0;

	for (size_t i = 0; i < size && n + 64 < max; i++) {
		if (data[i] < 128) {
			out[n++] = data[i];
			continue;
		}
		f = fragments[data[i] % (sizeof(fragments) / sizeof(*fragments))];
		memcpy(out + n, f, strlen(f));
		n += strlen(f);
	}
	return n;
}

/* In pieces of at most @most bytes, the stream's end behind them. */
static enum response_state feed(struct response *r, const uint8_t *data, size_t size, size_t most,
				unsigned int seed, const struct pattern *p, bool head)
{
	enum response_state state = RESPONSE_MORE;
	size_t n;
	char *copy;

	response_begin(r, p, head);
	while (size && state == RESPONSE_MORE) {
		n = 1 + (size_t)rand_r(&seed) % most;
		n = n < size ? n : size;
		/* ASan watches its end. */
		copy = malloc(n);
		memcpy(copy, data, n);
		state = response_feed(r, copy, n);
		free(copy);
		data += n;
		size -= n;
	}
	return state == RESPONSE_MORE ? response_feed(r, NULL, 0) : state;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t text[65536];
	enum response_state whole, pieces;
	struct response a, b;
	struct pattern p;
	size_t n;

	if (size < 2 || !pattern_init(&p, "abab"))
		return 0;
	n = expand(data + 2, size - 2, text, sizeof(text));
	whole = feed(&a, text, n, SIZE_MAX, 0, &p, data[1] & 1);
	pieces = feed(&b, text, n, 1 + data[0] % 7, data[0], &p, data[1] & 1);
	if (whole == RESPONSE_MORE || pieces == RESPONSE_MORE)
		__builtin_trap();
	if (whole == RESPONSE_BAD && !response_why(&a)[0])
		__builtin_trap();
	/* In pieces, the feeding stops at the end of the answer and doesn't see what is behind it. */
	if (whole != pieces && !(a.complete && b.complete))
		__builtin_trap();
	if (a.complete && b.complete &&
	    (response_status(&a) != response_status(&b) || a.found != b.found))
		__builtin_trap();
	pattern_fini(&p);
	return 0;
}
