/* SPDX-License-Identifier: MIT
 *
 * Publishing and receiving: exclusive and shared, readers that gate and readers
 * that are lapped.
 */
#include "tap.h"
#include "world.h"

static shmq_pub *pub[2];
static struct world_reader reader;
static unsigned messages;

static void publish(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg, n;

	for (n = 0; n < messages; n++)
		WANT_EQ(world_publish(pub[who], who, n), 0);
}

/* Look whenever it comes, and at last when nobody goes on. */
static void look(void *arg)
{
	struct world_reader r = reader;

	world_drain(&r, 2);
	WANT_EQ(r.got + r.lost, (uintptr_t)arg * messages);
}

static void receive(void *arg)
{
	struct world_reader r = reader;

	world_receive_all(&r, (uintptr_t)arg * messages);
}

/* `publishers` of `each` messages, and one who reads. */
static void set_up(const struct world_options *o, unsigned publishers, unsigned each,
		   void (*read)(void *arg))
{
	unsigned i;

	world_new(o);
	messages = each;
	for (i = 0; i < publishers; i++)
		weave_spawn(i ? "second" : "first", publish, (void *)(uintptr_t)i);
	if (read)
		weave_spawn("reader", read, (void *)(uintptr_t)publishers);
	for (i = 0; i < publishers; i++)
		pub[i] = world_pub((int)i);
	reader = (struct world_reader){ .sub = world_sub((int)publishers, SHMQ_FROM_LATEST),
					.may_lose = o->policy == SHMQ_LOSSY };
}

/* ---- readers that gate ---------------------------------------------- */

static void set_up_one(void)
{
	set_up(&(struct world_options){ .depth = 1, .base_seq = 3 }, 1, 1, receive);
}
SCENARIO(one_message, set_up_one, NULL);

static void set_up_spin(void)
{
	set_up(&(struct world_options){ .depth = 1, .base_seq = 3 }, 1, 1, receive);
	reader.sub->quick_looks = 2;
}
SCENARIO(one_message_spinning, set_up_spin, NULL);

static void set_up_two(void)
{
	set_up(&(struct world_options){ .depth = 4, .base_seq = 3 }, 1, 2, look);
}
SCENARIO(two_messages, set_up_two, NULL);

static void set_up_polled(void)
{
	set_up_two();
	reader.polls = 1;
}
SCENARIO(two_messages_polled, set_up_polled, NULL);

static void set_up_over(void)
{
	set_up(&(struct world_options){ .depth = 1, .base_seq = 3 }, 1, 2, look);
}
SCENARIO(slot_used_again, set_up_over, NULL);

static void set_up_over_polled(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3 }, 1, 4, receive);
	reader.polls = 1;
}
SCENARIO(slot_used_again_polled, set_up_over_polled, NULL);

/* The reader comes afterwards. */
static void set_up_claims(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, 2, 1,
	       NULL);
}
static void check_claims(void)
{
	struct world_reader r = reader;

	while (!world_receive(&r, SHMQ_NOWAIT))
		;
	WANT_EQ(r.got, 2);
}
SCENARIO(two_claims, set_up_claims, check_claims);

static void set_up_shared(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, 2, 3,
	       look);
}
SCENARIO(two_publishers, set_up_shared, NULL);

/* ---- readers that are lapped ---------------------------------------- */

static void set_up_lapped(void)
{
	set_up(&(struct world_options){ .depth = 1,
					.base_seq = 3,
					.mode = SHMQ_SHARED,
					.policy = SHMQ_LOSSY },
	       1, 2, look);
}
SCENARIO(lapped, set_up_lapped, NULL);

static void set_up_lapped_by_two(void)
{
	set_up(&(struct world_options){ .depth = 2,
					.base_seq = 3,
					.mode = SHMQ_SHARED,
					.policy = SHMQ_LOSSY },
	       2, 3, look);
}
SCENARIO(lapped_by_two, set_up_lapped_by_two, NULL);

/* An exclusive publisher gives slots up 2 * RING_AHEAD ahead.  The reader looks at
 * the first message alone, when the publisher is about to give up its slot. */
enum { AHEAD_DEPTH = 32, BEFORE = 17, FIRST = 3 };

static void publish_on(void *arg)
{
	unsigned n;

	for (n = BEFORE; n <= AHEAD_DEPTH; n++)
		WANT_EQ(world_publish(pub[0], 0, n), 0);
}

static void look_at_first(void *arg)
{
	struct world_reader r = reader;
	struct ring_reader *at = &r.sub->lane[0].r;
	uint64_t words[WORLD_WORDS], word;

	if (ring_look(at, &word) != RING_MESSAGE)
		return;
	shmq__copy_racy(words, lay_slot_at(at->mem, &at->geo, FIRST) + 1, sizeof(words));
	if (!ring_still(at, FIRST, word))
		return;
	WANT_EQ(words[0], world_value(0, 0));
	WANT_EQ(words[WORLD_WORDS - 1], world_value(0, 0));
}

static void set_up_ahead(void)
{
	unsigned n;

	world_new(&(struct world_options){
		.depth = AHEAD_DEPTH, .base_seq = FIRST, .policy = SHMQ_LOSSY });
	weave_spawn("publisher", publish_on, NULL);
	weave_spawn("reader", look_at_first, NULL);
	pub[0] = world_pub(0);
	reader = (struct world_reader){ .sub = world_sub(1, SHMQ_FROM_LATEST), .may_lose = 1 };
	for (n = 0; n < BEFORE; n++)
		WANT_EQ(world_publish(pub[0], 0, n), 0);
}
SCENARIO(given_up_ahead, set_up_ahead, NULL);

/* ---- tests ---------------------------------------------------------- */

TEST_WITHIN(one_message_comes_and_wakes_under_every_schedule, WEAVE_LIMIT_S)
{
	weave_all(&one_message, WEAVE_SC, 10000);
	weave_all(&one_message, WEAVE_WEAK, 100000);
	weave_all(&one_message_spinning, WEAVE_SC, 10000);
	weave_all(&one_message_spinning, WEAVE_WEAK, 100000);
}

TEST_WITHIN(two_messages_come_in_order_under_every_schedule, WEAVE_LIMIT_S)
{
	weave_all(&two_messages, WEAVE_SC, 10000);
	weave_all(&two_messages, WEAVE_WEAK, 100000);
	weave_all(&two_messages_polled, WEAVE_SC, 10000);
	weave_random(&two_messages_polled, WEAVE_WEAK, 5000);
}

TEST_WITHIN(a_slot_is_used_again_under_every_schedule, WEAVE_LIMIT_S)
{
	weave_all(&slot_used_again, WEAVE_SC, 100000);
	weave_random(&slot_used_again, WEAVE_WEAK, 5000);
	weave_random(&slot_used_again_polled, WEAVE_SC, 5000);
	weave_random(&slot_used_again_polled, WEAVE_WEAK, 5000);
}

TEST_WITHIN(two_claim_under_every_schedule, WEAVE_LIMIT_S)
{
	weave_all(&two_claims, WEAVE_SC, 100000);
	weave_random(&two_claims, WEAVE_WEAK, 5000);
}

TEST_WITHIN(two_publishers_and_a_reader, WEAVE_LIMIT_S)
{
	weave_random(&two_publishers, WEAVE_SC, 5000);
	weave_random(&two_publishers, WEAVE_WEAK, 5000);
}

TEST_WITHIN(a_lapped_reader_under_every_schedule, WEAVE_LIMIT_S)
{
	weave_all(&lapped, WEAVE_SC, 100000);
	weave_random(&lapped, WEAVE_WEAK, 5000);
}

TEST_WITHIN(a_reader_lapped_by_two, WEAVE_LIMIT_S)
{
	weave_random(&lapped_by_two, WEAVE_SC, 5000);
	weave_random(&lapped_by_two, WEAVE_WEAK, 5000);
}

TEST_WITHIN(a_slot_given_up_ahead, WEAVE_LIMIT_S)
{
	weave_random(&given_up_ahead, WEAVE_SC, 1000);
	weave_random(&given_up_ahead, WEAVE_WEAK, 2500);
}
