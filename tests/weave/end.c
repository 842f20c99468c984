/* SPDX-License-Identifier: MIT
 *
 * Waiting for the first subscriber, and the end: of a topic, of all publishers,
 * and of one that dies inside a claim while nobody but another publisher looks
 * after it.
 */
#include "tap.h"
#include "world.h"

enum { MORTAL, LIVE };

static shmq_pub *pub[2];
static struct world_reader reader;
static unsigned messages;

static void publish(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg, n;

	for (n = 0; n < messages; n++)
		WANT_EQ(world_publish(pub[who], who, n), 0);
}

static void set_up(const struct world_options *o, void (*first)(void *arg), unsigned each)
{
	world_new(o);
	messages = each;
	weave_spawn("publisher", first, (void *)(uintptr_t)0);
	pub[0] = world_pub(0);
}

static void expect(int fiber, unsigned flags)
{
	reader = (struct world_reader){ .sub = world_sub(fiber, SHMQ_FROM_LATEST) };
	reader.sub->flags |= flags;
}

/* ---- the first subscriber ------------------------------------------- */

static void publish_once_heard(void *arg)
{
	WANT_EQ(shmq_pub_wait_subscribers(pub[0], 1, -1), 0);
	publish(arg);
}

/* All that is sent after it was counted comes. */
static void join(void *arg)
{
	struct world_reader r = { .sub = world_sub(weave_self(), SHMQ_FROM_LATEST) };

	world_drain(&r, 1);
	WANT_EQ(r.got, messages);
}

static void set_up_waited(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3 }, publish_once_heard, 3);
	weave_spawn("joiner", join, NULL);
}
SCENARIO(subscriber_waited_for, set_up_waited, NULL);

/* ---- the end -------------------------------------------------------- */

/* What was sent before comes first. */
static void receive_to_end(void *arg)
{
	struct world_reader r = reader;
	int rc;

	do {
		rc = world_receive(&r, -1);
		WANT(!rc || rc == SHMQ_EENDED);
	} while (!rc);
	WANT_EQ(r.got, messages);
}

/* The same by who asks first whether a look is worth it. */
static void poll_to_end(void *arg)
{
	struct world_reader r = reader;
	int rc = 0, last = 0;

	while (!rc) {
		if (!shmq__sub_is_ready(r.sub)) {
			WANT(!last);
			last = !weave_idle();
			continue;
		}
		rc = world_receive(&r, SHMQ_NOWAIT);
		WANT(!rc || rc == SHMQ_EENDED);
	}
	WANT_EQ(r.got, messages);
}

static void end_topic(void *arg)
{
	weave_join(0);
	shmq__topic_end(world->topic);
}

static void close_last(void *arg)
{
	weave_join(0);
	shmq__topic_remove_member(world->topic, world_member(&pub[0]->h));
	world_count(&world->rec->publishers, -1u);
	shmq__topic_announce(world->rec);
	shmq__topic_ring_all(world->topic);
}

static void set_up_end(void (*end)(void *arg), void (*read)(void *arg), unsigned flags)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3 }, publish, 2);
	weave_spawn("supervisor", end, NULL);
	weave_spawn("reader", read, NULL);
	expect(2, flags);
}

static void set_up_ended(void)
{
	set_up_end(end_topic, receive_to_end, 0);
}
SCENARIO(topic_ended, set_up_ended, NULL);

static void set_up_ended_polled(void)
{
	set_up_end(end_topic, poll_to_end, 0);
}
SCENARIO(topic_ended_polled, set_up_ended_polled, NULL);

static void set_up_closed(void)
{
	set_up_end(close_last, receive_to_end, SHMQ_SUB_END_WITH_PUBLISHERS);
}
SCENARIO(publishers_closed, set_up_closed, NULL);

static void set_up_closed_polled(void)
{
	set_up_end(close_last, poll_to_end, SHMQ_SUB_END_WITH_PUBLISHERS);
}
SCENARIO(publishers_closed_polled, set_up_closed_polled, NULL);

/* Whoever waits for a subscriber of a topic that ends is told. */
static void wait_in_vain(void *arg)
{
	WANT_EQ(shmq_pub_wait_subscribers(pub[0], 1, -1), SHMQ_EENDED);
}

static void end_now(void *arg)
{
	shmq__topic_end(world->topic);
}

static void set_up_in_vain(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3 }, wait_in_vain, 0);
	weave_spawn("supervisor", end_now, NULL);
}
SCENARIO(waited_in_vain, set_up_in_vain, NULL);

/* ---- a claim in the way --------------------------------------------- */

static void look(void *arg)
{
	struct world_reader r = reader;

	world_drain(&r, 1);
}

static void set_up_held(void)
{
	set_up(&(struct world_options){ .depth = 1,
					.base_seq = 3,
					.mode = SHMQ_SHARED,
					.policy = SHMQ_LOSSY },
	       publish, 2);
	weave_mortal(MORTAL);
	weave_spawn("live", publish, (void *)(uintptr_t)LIVE);
	weave_spawn("reader", look, NULL);
	pub[LIVE] = world_pub(LIVE);
	expect(2, 0);
	reader.may_lose = 1;
}
SCENARIO(claim_in_the_way, set_up_held, NULL);

/* ---- tests ---------------------------------------------------------- */

TEST_WITHIN(whoever_waits_for_a_subscriber_is_told_of_it_or_of_the_end, WEAVE_LIMIT_S)
{
	weave_random(&subscriber_waited_for, WEAVE_SC, 1000);
	weave_random(&subscriber_waited_for, WEAVE_WEAK, 2500);
	weave_all(&waited_in_vain, WEAVE_SC, 10000);
	weave_random(&waited_in_vain, WEAVE_WEAK, 2500);
}

TEST_WITHIN(what_was_sent_before_the_end_comes_before_it, WEAVE_LIMIT_S)
{
	weave_random(&topic_ended, WEAVE_SC, 1000);
	weave_random(&topic_ended, WEAVE_WEAK, 2500);
	weave_random(&topic_ended_polled, WEAVE_SC, 1000);
	weave_random(&topic_ended_polled, WEAVE_WEAK, 2500);
	weave_random(&publishers_closed, WEAVE_SC, 1000);
	weave_random(&publishers_closed, WEAVE_WEAK, 2500);
	weave_random(&publishers_closed_polled, WEAVE_SC, 1000);
	weave_random(&publishers_closed_polled, WEAVE_WEAK, 2500);
}

TEST_WITHIN(a_publisher_repairs_the_claim_of_the_dead_that_it_waits_for, WEAVE_LIMIT_S)
{
	weave_random(&claim_in_the_way, WEAVE_SC, 2500);
	weave_random(&claim_in_the_way, WEAVE_WEAK, 5000);
}
