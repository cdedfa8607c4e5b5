/* SPDX-License-Identifier: Apache-2.0 */
#include "sentry/control_msg.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sentry/config.h"

static const struct shape {
	uint32_t type, flags;
	size_t min_fds, max_fds;
} shapes[] = {
#define SHAPE(nr, name, fn, flags, min_fds, max_fds) {name, flags, min_fds, max_fds},
	CONTROL_REQUESTS(SHAPE)
#undef SHAPE
};

static int bad(char *why, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int bad(char *why, size_t size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, size, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static const struct shape *find(uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (shapes[i].type == type)
			return &shapes[i];
	}
	return NULL;
}

static int check_numbers(const struct control_msg *m, char *why, size_t size)
{
	switch (m->type) {
	case CONTROL_ENTER:
		if (!m->enter.tree_size || m->enter.tree_size > CONFIG_MAX_SIZE)
			return bad(why, size, "control message: a device tree of %u bytes",
				   m->enter.tree_size);
		break;
	case CONTROL_SIGNAL:
		if (m->signal.signo < 1 || m->signal.signo > 64)
			return bad(why, size, "control message: %d is not a signal",
				   m->signal.signo);
		break;
	}
	return 0;
}

int control_parse(const void *packet, size_t n, size_t nfds, struct control_msg *m, char *why,
		  size_t why_size)
{
	const struct shape *s;

	if (n < sizeof(*m))
		return bad(why, why_size, "control message: %zu bytes, not %zu", n, sizeof(*m));
	memcpy(m, packet, sizeof(*m));
	if (m->version != CONTROL_VERSION)
		return bad(why, why_size,
			   "control message: version %u, not %d: is this kvmsbox the one that "
			   "started the sandbox?",
			   m->version, CONTROL_VERSION);
	s = find(m->type);
	if (!s)
		return bad(why, why_size, "control message: unknown request %u", m->type);
	if (m->len || n != sizeof(*m))
		return bad(why, why_size, "control message: request %u has no text", m->type);
	if (m->flags & ~s->flags)
		return bad(why, why_size, "control message: request %u with flags %#x", m->type,
			   m->flags);
	if (nfds < s->min_fds || nfds > s->max_fds)
		return bad(why, why_size, "control message: request %u with %zu descriptors",
			   m->type, nfds);
	return check_numbers(m, why, why_size);
}
