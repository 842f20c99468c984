/* SPDX-License-Identifier: MIT
 *
 * subscriber: what tests of the subscriber handle share: it reads slots,
 * batches and arenas that the test writes by hand.
 */
#ifndef TEST_SUBSCRIBER_H
#define TEST_SUBSCRIBER_H

#include "../../libshmq/bus.h"
#include "helpers.h"
#include "memory.h"
#include "standin.h"

static const uint64_t bases[] = FAKE_BASES;

/* A bus, its topic with a publisher by hand, and the subscriber. */
struct scene {
	struct standin *s;
	struct fake *f;
	shmq_bus *bus;
	shmq_sub *sub;
	struct lay_member *pub;
	struct ring_writer w;
};

static inline struct scene set_up(const struct fake_options *options,
				  const struct shmq_sub_options *o)
{
	struct scene c = { .s = standin_new(options) };

	c.f = standin_fake(c.s);
	c.bus = standin_bus(c.s);
	c.pub = fake_publisher(c.f, fake_client(c.f, getpid()));
	c.w = fake_writer(c.f, c.pub, 0);
	c.w.limit = c.w.next + (UINT64_C(1) << 62);
	CHECK_OK(shmq_sub_open(c.bus, STANDIN_TOPIC, o, &c.sub));
	return c;
}

static inline void tear_down(struct scene *c)
{
	shmq_sub_close(c->sub);
	shmq_bus_close(c->bus);
	standin_free(c->s);
}

static inline struct lay_slot *slot_of(const struct scene *c, uint64_t seq)
{
	return lay_slot_at(c->w.mem, &c->f->geo, seq);
}

static inline void set_state(const struct scene *c, uint64_t seq, enum lay_state state)
{
	store_release(&slot_of(c, seq)->ctrl,
		      LAY_CTRL(lay_lap(&c->f->geo, seq), c->w.owner, state));
}

/* As an exclusive publisher does where readers may be lapped. */
static inline void make_ready(struct scene *c)
{
	const struct lay_geometry *g = &c->f->geo;

	if (g->mode == SHMQ_EXCLUSIVE && (g->policy == SHMQ_LOSSY || g->policy == SHMQ_EVICT))
		ring_make_room(&c->w, 1, 1);
}

/* n messages, each its own number from 0 at base. */
static inline void publish(struct scene *c, uint64_t n)
{
	while (n--) {
		make_ready(c);
		fake_publish(&c->w, c->w.next - c->f->base_seq);
		if (c->w.next % RING_HINT_EVERY == 0)
			store_relaxed(&c->w.mem->tail_hint, c->w.next);
	}
}

/* The next slot, written as told; where its payload goes. */
static inline char *write_slot(struct scene *c, uint16_t flags, uint32_t len)
{
	struct lay_slot *slot = slot_of(c, c->w.next);

	make_ready(c);
	slot->len = len;
	slot->flags = flags;
	slot->type = 0;
	return (char *)slot + c->f->geo.payload_off;
}

static inline void commit(struct scene *c)
{
	ring_commit(&c->w, slot_of(c, c->w.next), c->w.next);
	c->w.next++;
}

/* Member index of count of the batch that began at first: its index. */
static inline void publish_member(struct scene *c, uint64_t first, uint32_t index, uint32_t count)
{
	struct lay_batch batch = { .first_seq = first, .index = index, .count = count };
	char *at = write_slot(c, SHMQ_MSG_BATCH, sizeof(index));

	memcpy(at, &batch, sizeof(batch));
	memcpy(at + sizeof(batch), &index, sizeof(index));
	commit(c);
}

static inline uint64_t number(const struct shmq_msg *m)
{
	uint64_t n;

	CHECK_EQ(m->len, sizeof(n));
	memcpy(&n, m->data, sizeof(n));
	return n;
}

static inline void check_next(struct scene *c, uint64_t n)
{
	struct shmq_msg m;
	uint64_t copy;

	CHECK_OK(shmq_receive_copy(c->sub, &copy, sizeof(copy), &m, SHMQ_NOWAIT));
	CHECK_EQ(m.seq, c->f->base_seq + n);
	CHECK_EQ(copy, n);
}

static inline void check_lost(struct scene *c, uint64_t lost)
{
	struct shmq_msg m;

	CHECK_ERROR(shmq_receive(c->sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(m.lost, lost);
	CHECK_EQ(m.lost_is_bound, 0);
	CHECK_EQ(m.partition, 0);
}

static inline void check_none(struct scene *c)
{
	CHECK_ERROR(shmq_receive(c->sub, &(struct shmq_msg){ 0 }, SHMQ_NOWAIT), SHMQ_EEMPTY);
}

static const struct fake_options lossy = { .policy = SHMQ_LOSSY };
static const struct fake_options lossy_shared = { .policy = SHMQ_LOSSY, .mode = SHMQ_SHARED };

/* Member i of a batch of 4 is number i. */
static inline void check_member(struct scene *c, uint64_t seq, uint32_t index)
{
	struct shmq_msg m;
	uint32_t copy;

	CHECK_OK(shmq_receive_copy(c->sub, &copy, sizeof(copy), &m, SHMQ_NOWAIT));
	CHECK_EQ(m.seq, seq);
	CHECK_EQ(copy, index);
	CHECK(m.flags & SHMQ_MSG_BATCH);
}

struct seen {
	struct scene *c;
	unsigned count, stop_at;
	uint64_t overwrite_at; /* lap the reader while it looks at that one */
	uint64_t number[64];
};

static inline int see(void *arg, const struct shmq_msg *m)
{
	struct seen *seen = arg;

	CHECK_LT(seen->count, COUNT(seen->number));
	seen->number[seen->count++] = number(m);
	if (seen->overwrite_at && seen->count == seen->overwrite_at) {
		publish(seen->c, 2 * FAKE_DEPTH);
		CHECK_EQ(number(m), seen->number[seen->count - 1]); /* it has a copy */
	}
	return seen->count == seen->stop_at;
}

#endif
