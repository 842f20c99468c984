/* SPDX-License-Identifier: MIT
 *
 * publisher: what tests of the publisher handle share: it works on rings,
 * entries and arenas that the test holds in its other hand.
 */
#ifndef TEST_PUBLISHER_H
#define TEST_PUBLISHER_H

#include "../../libshmq/bus.h"
#include "clock.h"
#include "helpers.h"
#include "memory.h"
#include "standin.h"

static const uint64_t bases[] = FAKE_BASES;

/* A bus, its topic, and a subscriber whose cursor the test moves. */
struct scene {
	struct standin *s;
	struct fake *f;
	shmq_bus *bus;
	shmq_pub *pub;
	struct lay_member *sub;
	shmq_au64 *cursor;
};

/* With the library's thread or without it. */
static inline struct scene set_up_served(const struct fake_options *options,
					 const struct shmq_pub_options *o,
					 enum shmq_serve_mode serve)
{
	struct shmq_bus_options bo = { .serve = serve };
	struct scene c = { .s = standin_new(options) };

	c.f = standin_fake(c.s);
	CHECK_OK(standin_open(c.s, &bo, &c.bus));
	c.sub = fake_subscriber(c.f, fake_client(c.f, getpid()), SHMQ_FROM_LATEST, 0);
	c.cursor = &fake_entry(c.f, c.sub, 0)->pos;
	CHECK_OK(shmq_pub_open(c.bus, STANDIN_TOPIC, o, &c.pub));
	return c;
}

static inline struct scene set_up(const struct fake_options *options,
				  const struct shmq_pub_options *o)
{
	return set_up_served(options, o, SHMQ_SERVE_THREAD);
}

static inline void tear_down(struct scene *c)
{
	shmq_pub_close(c->pub);
	shmq_bus_close(c->bus);
	standin_free(c->s);
}

static inline struct lay_ring *ring(const struct scene *c, uint32_t p)
{
	return c->f->topic->ring[p].mem;
}

static inline uint64_t word_of(const struct scene *c, uint64_t seq)
{
	return load_acquire(fake_ctrl(ring(c, 0), &c->f->geo, seq));
}

static inline uint64_t head(const struct scene *c)
{
	return shmq__topic_head(&c->f->topic->ring[0]);
}

static inline uint64_t publish_seq(shmq_pub *pub)
{
	struct shmq_msg m = { .data = "m", .len = 1 };

	CHECK_OK(shmq_publish_msg(pub, &m));
	return m.seq;
}

/* Until one is refused; how many went. */
static inline unsigned publish_all(shmq_pub *pub, int want)
{
	unsigned n = 0;
	int rc;

	while (!(rc = shmq_publish(pub, &n, sizeof(n))))
		n++;
	CHECK_ERROR(rc, want);
	return n;
}

static const struct fake_options shared = { .mode = SHMQ_SHARED };

static inline void fill_batch(struct shmq_msg *batch, size_t n, size_t len)
{
	static char bytes[1 << 16];

	for (size_t i = 0; i < n; i++)
		batch[i] = (struct shmq_msg){ .data = bytes, .len = len };
}

#endif
