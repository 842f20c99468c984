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

/* As the tailer goes by it. */
static void receive_till_left(void *arg)
{
	struct world_reader r = reader;
	int is_left = 0, rc;

	for (;;) {
		rc = world_receive(&r, SHMQ_NOWAIT);
		WANT(!rc || rc == SHMQ_EEMPTY);
		if (rc && is_left)
			break;
		is_left = rc && !shmq__sub_publishers(r.sub);
		if (rc && !is_left)
			weave_idle();
	}
	WANT_EQ(r.got, messages);
}

static int has_publisher(void)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	while ((m = shmq__topic_next_member(world->topic, &it)))
		if (load_acquire(&m->state) == LAY_MEMBER_PUBLISHER)
			return 1;
	return 0;
}

/* As requesters do: who is told that members changed finds who has left gone, and
 * all that it sent. */
static void receive_till_told(void *arg)
{
	struct world_reader r = reader;
	int rc;

	r.sub->tells_members = 1;
	do {
		rc = world_receive(&r, -1);
		WANT(!rc || rc == SHMQ__SUB_MEMBERS);
	} while (!rc || has_publisher());
	while (!world_receive(&r, SHMQ_NOWAIT))
		;
	WANT_EQ(r.got, messages);
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

static void set_up_left(void)
{
	set_up_end(close_last, receive_till_left, 0);
}
SCENARIO(publishers_left, set_up_left, NULL);

static void set_up_told(void)
{
	set_up_end(close_last, receive_till_told, 0);
}
SCENARIO(members_told, set_up_told, NULL);

static void set_up_closed_polled(void)
{
	set_up_end(close_last, poll_to_end, SHMQ_SUB_END_WITH_PUBLISHERS);
}
SCENARIO(publishers_closed_polled, set_up_closed_polled, NULL);

/* ---- the end, or a move, while somebody sends ----------------------- */

struct tally {
	uint64_t sent, got; /* not refused; received before the end */
	uint64_t head;      /* where the next ring would begin */
};
static struct tally *tally;
static int end, looks;

static void publish_to_end(void *arg)
{
	unsigned n;
	int rc = 0;

	for (n = 0; n < messages && !rc; n++) {
		rc = world_publish(pub[0], 0, n);
		WANT(!rc || rc == end);
		tally->sent += !rc;
	}
}

/* As often as it is told to it doesn't sleep. */
static void receive_before_end(void *arg)
{
	struct world_reader r = reader;
	int left = looks, rc;

	do {
		rc = world_receive(&r, left > 0 ? SHMQ_NOWAIT : -1);
		WANT(!rc || rc == end || (left > 0 && rc == SHMQ_EEMPTY));
		left--;
	} while (rc != end);
	tally->got = r.got;
	if (end == SHMQ_EMOVED)
		WANT_EQ(shmq__sub_moved_seq(r.sub), tally->head);
}

static void end_now(void *arg)
{
	shmq__topic_end(world->topic);
}

/* As daemon/move.c has it. */
static void move_now(void *arg)
{
	shmq__topic_refuse(world->topic, LAY_RING_MOVING);
	tally->head = shmq__topic_head(&world->topic->ring[0]);
	store_relaxed(&world->ring->moved_seq, tally->head);
	shmq__topic_close_rings(world->topic, LAY_RING_MOVED);
	store_release(&world->rec->state, LAY_TOPIC_ENDED);
	shmq__topic_announce(world->rec);
	shmq__topic_ring_all(world->topic);
}

/* What is not refused is read, and before the ring that comes after. */
static void check_sent(void)
{
	WANT(tally->got >= tally->sent);
	WANT(end == SHMQ_EENDED || tally->head - world->ring->base_seq >= tally->sent);
}

static void set_up_while_sending(const struct world_options *o, int how, unsigned each)
{
	world_new(o);
	messages = each;
	end = how;
	looks = 0;
	tally = weave_alloc(sizeof(*tally));
	weave_name(tally, "tally");
	weave_spawn("publisher", publish_to_end, NULL);
	weave_spawn("supervisor", how == SHMQ_EMOVED ? move_now : end_now, NULL);
	weave_spawn("reader", receive_before_end, NULL);
	pub[0] = world_pub(0);
	expect(2, 0);
}

static void set_up_sending(void)
{
	set_up_while_sending(&(struct world_options){ .depth = 2, .base_seq = 3 }, SHMQ_EENDED, 3);
}
SCENARIO(ended_while_sending, set_up_sending, check_sent);

static void set_up_sending_full(void)
{
	weave_without_membarrier();
	set_up_while_sending(&(struct world_options){ .depth = 2,
						      .base_seq = 3,
						      .fence = SHMQ__FENCE_FULL },
			     SHMQ_EENDED, 3);
}
SCENARIO(ended_while_sending_full_fence, set_up_sending_full, check_sent);

static void set_up_moved(void)
{
	set_up_while_sending(&(struct world_options){ .depth = 2, .base_seq = 3 }, SHMQ_EMOVED, 3);
}
SCENARIO(moved_while_sending, set_up_moved, check_sent);

/* A claim that has lasted is passed after the end, unless it came to be a message
 * before. */
static void set_up_claimed(void)
{
	set_up_while_sending(&(struct world_options){ .depth = 2,
						      .base_seq = 3,
						      .mode = SHMQ_SHARED,
						      .policy = SHMQ_LOSSY },
			     SHMQ_EENDED, 1);
	weave_look_counts(2000); /* more than a second */
	looks = 4;
}
SCENARIO(ended_at_a_claim, set_up_claimed, check_sent);

/* Whoever waits for a subscriber of a topic that ends is told. */
static void wait_in_vain(void *arg)
{
	WANT_EQ(shmq_pub_wait_subscribers(pub[0], 1, -1), SHMQ_EENDED);
}

/* The record is another topic's at once. */
static void end_and_use_again(void *arg)
{
	shmq__topic_end(world->topic);
	store_release(&world->rec->state, LAY_TOPIC_FREE);
	world->rec->id = 2;
	store_release(&world->rec->state, LAY_TOPIC_LIVE);
}

static void set_up_in_vain_again(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3 }, wait_in_vain, 0);
	weave_spawn("supervisor", end_and_use_again, NULL);
}
SCENARIO(waited_in_vain_in_a_used_record, set_up_in_vain_again, NULL);

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
	weave_random(&waited_in_vain_in_a_used_record, WEAVE_WEAK, 2500);
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
	weave_random(&publishers_left, WEAVE_SC, 1000);
	weave_random(&publishers_left, WEAVE_WEAK, 2500);
	weave_random(&members_told, WEAVE_SC, 1000);
	weave_random(&members_told, WEAVE_WEAK, 2500);
}

TEST_WITHIN(what_is_sent_while_the_topic_ends_is_refused_or_comes_before_it, WEAVE_LIMIT_S)
{
	weave_random(&ended_while_sending, WEAVE_SC, 1000);
	weave_random(&ended_while_sending, WEAVE_WEAK, 5000);
	weave_random(&ended_while_sending_full_fence, WEAVE_SC, 1000);
	weave_random(&ended_while_sending_full_fence, WEAVE_WEAK, 5000);
	weave_random(&moved_while_sending, WEAVE_SC, 1000);
	weave_random(&moved_while_sending, WEAVE_WEAK, 5000);
	weave_random(&ended_at_a_claim, WEAVE_SC, 20000);
	weave_random(&ended_at_a_claim, WEAVE_WEAK, 20000);
}

TEST_WITHIN(a_publisher_repairs_the_claim_of_the_dead_that_it_waits_for, WEAVE_LIMIT_S)
{
	weave_random(&claim_in_the_way, WEAVE_SC, 2500);
	weave_random(&claim_in_the_way, WEAVE_WEAK, 5000);
}
