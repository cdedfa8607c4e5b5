/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet from a client of the control socket: parsed or refused, with one line, never read out of
 * bounds. The first byte of the input says how many descriptors come with it.
 */
#include <stdlib.h>
#include <string.h>

#include "sentry/config.h"
#include "sentry/control_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *packet, size_t size, size_t nfds)
{
	struct control_msg m;
	char why[256] = "";

	if (control_parse(packet, size, nfds, &m, why, sizeof(why))) {
		if (!why[0] || strchr(why, '\n'))
			__builtin_trap();
		return;
	}
	if (size != sizeof(m) || m.version != CONTROL_VERSION || m.len || m.flags > 7)
		__builtin_trap();
	if (m.type == CONTROL_ENTER) {
		if (!nfds || nfds > CONTROL_MAX_FDS || !m.enter.tree_size ||
		    m.enter.tree_size > CONFIG_MAX_SIZE)
			__builtin_trap();
	} else if (nfds) {
		__builtin_trap();
	}
	if (m.type == CONTROL_SIGNAL && (m.signal.signo < 1 || m.signal.signo > 64))
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct control_msg m = {.version = CONTROL_VERSION};
	size_t nfds = size ? data[0] % 8 : 0;
	uint8_t *copy;

	if (!size)
		return 0;
	/* As it is, its end watched by ASan; and as the rest of a packet of this version. */
	copy = malloc(size > 1 ? size - 1 : 1);
	memcpy(copy, data + 1, size - 1);
	check(copy, size - 1, nfds);
	free(copy);
	memcpy(&m.type, data + 1, size - 1 < sizeof(m) - 4 ? size - 1 : sizeof(m) - 4);
	check((const uint8_t *)&m, sizeof(m), nfds);
	return 0;
}
