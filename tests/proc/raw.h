/* SPDX-License-Identifier: MIT
 *
 * raw: a publisher put together from the library's own parts, so that it
 * can stop, or be killed, between any two steps of a publish.
 */
#ifndef TEST_PROC_RAW_H
#define TEST_PROC_RAW_H

#include "bus.h"
#include "helpers.h"
#include "ring.h"

struct raw {
	struct shmq__handle h; /* first: close() converts */
	struct ring_writer w;
};

static inline void raw_closed(struct shmq__handle *h)
{
	shmq__bus_close_handle(h);
}

/* Open `topic` for publishing, as shmq_pub_open() does; partition 0. */
static inline void raw_open(struct raw *r, shmq_bus *bus, const char *topic)
{
	struct shmq__why *why = shmq__bus_why();
	struct proto_request req;
	int rc;

	*r = (struct raw){ .h.close = raw_closed };
	shmq__bus_prepare(bus, &req, PROTO_OPEN, topic);
	req.open.role = SHMQ_ROLE_PUBLISHER;
	req.open.partition = -1;
	rc = shmq__bus_open_handle(bus, &req, &r->h, SHMQ__SLAB_WRITE, why);
	if (rc)
		FAIL("raw publisher on \"%s\": %s: %s", topic, shmq_errname(rc), why->text);
	shmq__bus_move_handle(&r->h, &r->h);
	shmq__bus_ready(bus, r->h.topic->geo.flags);
	r->w.mem = r->h.topic->ring[0].mem;
	r->w.geo = r->h.topic->ring[0].geo;
	r->w.owner = shmq_bus_client_id(bus);
	shmq__ring_takeover(&r->w);
	r->w.limit = r->w.next + r->w.geo.depth;
	store_release(&r->h.entry->pos, r->w.next);
}

static inline void raw_close(struct raw *r)
{
	shmq__bus_close_handle(&r->h);
}

/* Take the next slot of a shared topic. */
static inline uint64_t raw_claim(struct raw *r)
{
	uint64_t seq = 0, word = 0;

	CHECK_EQ(shmq__ring_claim(&r->w, &seq, &word), RING_CLAIM_OK);
	return seq;
}

/* Header and inline payload; a member of an atomic batch if batch is given. */
static inline void raw_write(struct raw *r, uint64_t seq, const void *data, uint32_t len,
			     const struct lay_batch *batch)
{
	struct lay_slot *s = lay_slot_at(r->w.mem, &r->w.geo, seq);
	char *at = (char *)s + r->w.geo.payload_off;

	s->len = len;
	s->flags = batch ? SHMQ_MSG_BATCH : 0;
	s->type = 0;
	if (batch) {
		memcpy(at, batch, sizeof(*batch));
		at += sizeof(*batch);
	}
	memcpy(at, data, len);
}

/* Without the bell. */
static inline void raw_commit(struct raw *r, uint64_t seq)
{
	ring_commit(&r->w, lay_slot_at(r->w.mem, &r->w.geo, seq), seq);
}

static inline void raw_ring(struct raw *r)
{
	bell_look(&r->h.topic->ring[0].bells->data, SHMQ__FENCE_FULL);
}

#endif
