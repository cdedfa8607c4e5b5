/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of a channel: windows and ends. What the bytes mean is the kinds' business. */
#include <errno.h>
#include <stdlib.h>

#include "tools/kvmsbox-serve/instance.h"

struct stream *stream_find(struct instance *i, uint32_t id)
{
	struct stream *s;

	list_for_each_entry (s, &i->streams, node) {
		if (s->id == id)
			return s;
	}
	return NULL;
}

static struct stream *stream_new(struct instance *i, uint32_t id)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->id = id;
	s->instance = i;
	s->credit = s->window = FN_STREAM_WINDOW;
	list_add_tail(&s->node, &i->streams);
	i->nstreams++;
	return s;
}

struct stream *stream_open(struct instance *i, uint16_t port)
{
	struct fn_msg m = {.type = FN_OPEN};
	struct stream *s;

	i->next_stream += 2;
	s = stream_new(i, i->next_stream);
	if (!s)
		return NULL;
	m.stream.id = s->id;
	m.stream.port = port;
	instance_send(i, &m, NULL, 0, NULL);
	return s;
}

struct stream *stream_accept(struct instance *i, uint32_t id)
{
	return stream_new(i, id);
}

size_t stream_send(struct instance *i, struct stream *s, const void *data, size_t n, bool end)
{
	struct fn_msg m = {.type = FN_DATA};
	size_t sent = 0, piece;

	m.stream.id = s->id;
	while (!i->nout && !s->sent_end && (sent < n || end)) {
		piece = MIN(n - sent, (size_t)FN_DATA_MAX);
		piece = MIN(piece, (size_t)s->credit);
		if (!piece && sent < n)
			break;
		s->credit -= (uint32_t)piece;
		s->sent_end = end && sent + piece == n;
		m.flags = s->sent_end ? FN_END_OF_DATA : 0;
		instance_send(i, &m, (const char *)data + sent, piece, NULL);
		sent += piece;
	}
	return sent;
}

int stream_receive(struct stream *s, const struct fn_msg *m)
{
	if (s->got_end || m->len > s->window)
		return -EPROTO;
	s->window -= m->len;
	s->unacked += m->len;
	s->got_end = m->flags & FN_END_OF_DATA;
	return 0;
}

void stream_consumed(struct instance *i, struct stream *s, uint32_t n)
{
	struct fn_msg m = {.type = FN_WINDOW};

	s->consumed += n;
	/* Not for every message: half a window is soon enough. */
	if (s->consumed < FN_STREAM_WINDOW / 2 || s->got_end)
		return;
	m.stream.id = s->id;
	m.stream.window = s->consumed;
	s->window += s->consumed;
	s->unacked -= s->consumed;
	s->consumed = 0;
	instance_send(i, &m, NULL, 0, NULL);
}

void stream_free(struct stream *s)
{
	list_del(&s->node);
	s->instance->nstreams--;
	free(s);
}

void stream_close(struct instance *i, struct stream *s)
{
	struct fn_msg m = {.type = FN_CLOSE};

	m.stream.id = s->id;
	instance_send(i, &m, NULL, 0, NULL);
	stream_free(s);
}
