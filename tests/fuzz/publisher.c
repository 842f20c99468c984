/* SPDX-License-Identifier: MIT
 *
 * A publisher whose subscribers' cursors, and bells, are noise; and, where the
 * ring is shared, one whose fellow publishers write what they like, too.
 */
#include "scene.h"

#include <stdlib.h>

const unsigned fuzz_runs = 10000;

enum { OPS_MAX = 48, BATCH = 8 };

/* A batch may look for slots for as long as ring.c says, for each. */
#define STEPS (SCENE_STEPS * BATCH)

static struct scene *c;
static shmq_pub *pub;
static int dont_wait;
static int is_ring_mad; /* else only what subscribers write */

/* Nothing that a subscriber writes is more than a slow subscriber. */
static int is_expected(int rc)
{
	int waits = c->f->geo.policy == SHMQ_BLOCK, drops = c->f->geo.policy == SHMQ_DROP_NEW;

	if (rc == 0)
		return 1;
	if (!is_ring_mad)
		return (waits && rc == SHMQ_ETIMEOUT) || ((drops || dont_wait) && rc == SHMQ_EFULL);
	return rc == SHMQ_ETIMEOUT || rc == SHMQ_EFULL || rc == SHMQ_ECORRUPT ||
	       rc == SHMQ_ESTALLED || rc == SHMQ_EENDED || rc == SHMQ_EMOVED;
}

static void check_result(int rc)
{
	if (!is_expected(rc))
		FAIL("a publisher is told %s", shmq_errname(rc));
}

static void publish(struct bites *in)
{
	static const char bytes[5000];
	struct shmq_msg m = { .data = bytes, .partition = SHMQ_ANY_PARTITION };

	m.len = bite_below(in, c->f->geo.max_bytes + 1);
	if (m.len + 100 < c->f->geo.max_bytes)
		m.key = bytes, m.key_len = bite_below(in, 90);
	check_result(WITHIN(STEPS, shmq_publish_msg(pub, &m)));
}

static void publish_short(void)
{
	check_result(WITHIN(STEPS, shmq_publish(pub, "short", 5)));
}

static void publish_batch(struct bites *in)
{
	struct shmq_msg m[BATCH] = { { 0 } };
	unsigned flags = bite(in, 1) % 2 ? SHMQ_ATOMIC : 0, i;
	ssize_t rc;

	for (i = 0; i < BATCH; i++)
		m[i] = (struct shmq_msg){ .data = "batch", .len = 5 };
	rc = WITHIN(STEPS, shmq_publish_batch(pub, m, BATCH, flags));
	CHECK_LE(rc, BATCH);
	if (rc <= 0)
		check_result((int)rc);
}

static void publish_in_place(struct bites *in)
{
	size_t len = bite_below(in, c->f->geo.max_bytes + 1);
	void *data;
	int rc = WITHIN(STEPS, shmq_claim(pub, len, &data));

	check_result(rc);
	if (rc)
		return;
	memset(data, 1, len);
	if (bite(in, 1) % 4)
		check_result(WITHIN(STEPS, shmq_commit(pub, NULL)));
	shmq_abort(pub); /* what was not committed */
}

static void flush(void)
{
	int rc = WITHIN(STEPS, shmq_flush(pub, 1000000));

	CHECK(rc == 0 || rc == SHMQ_ETIMEOUT || is_expected(rc));
}

static void ask_for_state(void)
{
	struct shmq_pub_stats stats;

	fuzz_begin("shmq_pub_get_stats()", STEPS);
	shmq_pub_get_stats(pub, &stats);
	fuzz_end();
	CHECK_OK(WITHIN(STEPS, shmq_pub_wait_subscribers(pub, 2, SHMQ_NOWAIT)));
}

static void publish_many(struct bites *in)
{
	unsigned n = (unsigned)bite_below(in, 1500);

	while (n--)
		publish_short();
}

static void play(struct bites *in)
{
	struct noise noise;

	switch (bite_below(in, 12)) {
	case 0:
	case 1:
		noise = bite_noise(in, c->shared, c->shared_count);
		noise_make(&noise);
		break;
	case 2:
		scene_disturb(in, c->shared, c->shared_count);
		break;
	case 3:
		if (is_ring_mad)
			scene_craft_slot(c, in);
		break;
	case 4:
		if (!is_ring_mad)
			break;
		noise = bite_noise(in, c->published, c->published_count);
		noise_make(&noise);
		break;
	case 5:
		if (is_ring_mad)
			scene_disturb(in, c->published, c->published_count);
		break;
	case 6:
		publish(in);
		break;
	case 7:
		publish_many(in);
		break;
	case 8:
		publish_batch(in);
		break;
	case 9:
		publish_in_place(in);
		break;
	case 10:
		flush();
		break;
	default:
		ask_for_state();
	}
}

static void leave(struct lay_member *m)
{
	shmq__topic_remove_member(c->f->topic, m);
}

/* Whoever lied is gone, and what it said with it. */
static void check_goes_on(void)
{
	unsigned n = 2 * FAKE_DEPTH;

	noise_between_steps(NULL, 0, 0);
	leave(c->peer_sub);
	leave(c->sub);
	while (n-- && !is_ring_mad)
		CHECK_OK(WITHIN(STEPS, shmq_publish(pub, "on", 2)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct shmq_pub_options o = { .size = sizeof(o) };
	struct bites in = { data, size };
	unsigned ops = 0;
	uint8_t how;

	c = scene_begin(&in);
	how = (uint8_t)bite(&in, 1);
	o.wait = (enum shmq_wait)((how >> 2) % (SHMQ_WAIT_SLEEP + 1));
	dont_wait = how & 1;
	o.flags = dont_wait ? SHMQ_DONTWAIT : 0;
	is_ring_mad = (how & 2) && c->f->geo.mode == SHMQ_SHARED;
	CHECK_OK(shmq_pub_open(&c->bus, "fake", &o, &pub));
	while (in.left && ops++ < OPS_MAX)
		play(&in);
	check_goes_on();
	shmq_pub_close(pub);
	scene_end(c);
	return 0;
}

void fuzz_leave(void)
{
	scene_leave();
}

/* ---- what it found ----------------------------------------------------------- */

/* Each slot leads some laps on, and the last to the first. */
TEST(mad_words_that_lead_a_claim_round_and_round_are_given_up_early)
{
	const uint8_t bytes[] = { 1, 0, 3 }; /* shared, block, mad */
	struct shmq_pub_options o = { .size = sizeof(o) };
	struct bites in = { bytes, sizeof(bytes) };
	unsigned n;

	c = scene_begin(&in);
	for (n = 0; n < FAKE_DEPTH; n++)
		store_relaxed(fake_ctrl(c->f->topic->ring[0].mem, &c->f->geo, c->base + n),
			      LAY_CTRL((uint64_t)n << (LAY_LAP_BITS - 3), 2, LAY_COMMITTED));
	CHECK_OK(shmq_pub_open(&c->bus, "fake", &o, &pub));
	CHECK_EQ(WITHIN(64 * FAKE_DEPTH, shmq_publish(pub, "short", 5)), SHMQ_ECORRUPT);
	shmq_pub_close(pub);
	scene_end(c);
	scene_leave();
}
