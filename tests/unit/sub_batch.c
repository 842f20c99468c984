/* SPDX-License-Identifier: MIT
 *
 * Atomic batches, whole or lost, written by hand.
 */
#include "subscriber.h"

#include "sub.h"

TEST(a_batch_of_impossible_size_costs_its_first_message)
{
	static const uint32_t counts[] = { 0, FAKE_DEPTH / 4 + 1, UINT32_MAX };

	for (size_t i = 0; i < COUNT(counts); i++) {
		struct scene c = set_up(&lossy, NULL);
		struct shmq_msg m;

		publish_member(&c, 0, 0, counts[i]);
		publish(&c, 1);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_ECORRUPT);
		CHECK_EQ(m.lost, 1);
		check_next(&c, 1);
		tear_down(&c);
	}
}

TEST(batches_of_two_publishers_that_interleave_are_both_delivered_whole)
{
	struct scene c = set_up(&lossy_shared, NULL);

	publish_member(&c, 0, 0, 3);
	publish_member(&c, 1, 0, 2);
	publish_member(&c, 0, 1, 3);
	publish(&c, 1);
	publish_member(&c, 1, 1, 2);
	set_state(&c, c.w.next, LAY_CLAIMED);
	CHECK(shmq__ring_void(c.w.mem, &c.f->geo, c.w.next,
			      load_relaxed(&slot_of(&c, c.w.next)->ctrl)));
	c.w.next++;
	publish_member(&c, 0, 2, 3);
	check_member(&c, 0, 0);
	check_member(&c, 1, 0);
	publish(&c, 3 * FAKE_DEPTH); /* all of it overrun: what was copied is here */
	check_member(&c, 2, 1);
	check_lost(&c, 1);
	check_member(&c, 4, 1);
	check_member(&c, 6, 2); /* the hole before it was never a message */
	CHECK_EQ(sub_stats(c.sub).received, 5);
	tear_down(&c);
}

TEST(a_batch_that_lost_a_member_is_lost_whole)
{
	static const enum lay_state holes[] = { LAY_GONE, LAY_AHEAD };

	for (size_t i = 0; i < COUNT(holes); i++) {
		struct scene c = set_up(&lossy, NULL);
		uint64_t lost = 0;
		struct shmq_msg m;
		uint64_t copy;

		for (uint32_t n = 0; n < 3; n++)
			publish_member(&c, 0, n, 3);
		publish(&c, 1);
		set_state(&c, 1, holes[i]);
		for (;;) {
			int rc = shmq_receive_copy(c.sub, &copy, sizeof(copy), &m, SHMQ_NOWAIT);

			if (rc == SHMQ_EEMPTY && holes[i] == LAY_AHEAD) { /* it comes yet */
				CHECK_EQ(lost, 1);
				set_state(&c, 1, LAY_COMMITTED);
				continue;
			}
			if (!rc)
				break;
			CHECK_ERROR(rc, SHMQ_EOVERRUN);
			lost += m.lost;
		}
		CHECK_EQ(lost, 3);
		CHECK_EQ(m.seq, 3);
		CHECK_EQ(copy, 3);
		tear_down(&c);
	}
}

/* A member that says of itself that it belongs elsewhere ends the copying at
 * a lap, not never. */
TEST(a_batch_that_never_ends_is_given_up)
{
	struct scene c = set_up(&lossy, NULL);

	publish_member(&c, 0, 0, 2);
	for (int n = 0; n < 5; n++)
		publish_member(&c, 0, 7, 9);
	check_lost(&c, 1);
	for (int n = 0; n < 5; n++)
		check_lost(&c, 1);
	publish(&c, 1);
	check_next(&c, 6);
	tear_down(&c);
}

/* 256 members of 4000 bytes each, in an arena that has room for 16. */
TEST(a_batch_whose_members_share_their_bytes_is_corrupt)
{
	enum { MEMBERS = FAKE_DEPTH / 4, BYTES = 4000 };
	struct fake_options o = { .policy = SHMQ_LOSSY, .max_bytes = BYTES };
	struct scene c = set_up(&o, NULL);
	uint32_t arena = fake_arena(c.f, c.pub, 65536);
	struct lay_arena_ref where = { .id = arena, .gen = 700 + arena };
	struct shmq_msg m;

	for (uint32_t n = 0; n < MEMBERS; n++) {
		struct lay_batch batch = { .first_seq = 0, .index = n, .count = MEMBERS };
		char *at = write_slot(&c, SHMQ_MSG_BATCH | SHMQ_MSG_ARENA, BYTES);

		memcpy(at, &batch, sizeof(batch));
		memcpy(at + sizeof(batch), &where, sizeof(where));
		commit(&c);
	}
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_ECORRUPT);
	for (uint32_t n = 1; n < MEMBERS; n++)
		check_lost(&c, 1);
	publish(&c, 1);
	check_next(&c, MEMBERS);
	tear_down(&c);
}

/* Member index of 2 of the batch that began at first: BYTES bytes that all of
 * them share. */
enum { SHARED_BYTES = 4000, ARENA_BYTES = 65536 };

static void publish_shared(struct scene *c, uint32_t arena, uint64_t first, uint32_t index)
{
	struct lay_batch batch = { .first_seq = first, .index = index, .count = 2 };
	struct lay_arena_ref where = { .id = arena, .gen = 700 + arena };
	char *at = write_slot(c, SHMQ_MSG_BATCH | SHMQ_MSG_ARENA, SHARED_BYTES);

	memcpy(at, &batch, sizeof(batch));
	memcpy(at + sizeof(batch), &where, sizeof(where));
	commit(c);
}

/* 100 batches of 8000 bytes that interleave, where no more can be than two rings
 * and an arena hold. */
TEST(batches_that_share_their_bytes_take_no_more_than_there_is)
{
	enum { BATCHES = 100 };
	struct fake_options o = { .policy = SHMQ_LOSSY, .max_bytes = SHARED_BYTES };
	struct scene c = set_up(&o, NULL);
	uint32_t arena = fake_arena(c.f, c.pub, ARENA_BYTES);
	unsigned got[2] = { 0 }, lost = 0;
	struct shmq_msg m;

	for (uint32_t index = 0; index < 2; index++)
		for (uint64_t n = 0; n < BATCHES; n++)
			publish_shared(&c, arena, n, index);
	for (unsigned n = 0; n < 2 * BATCHES; n++) {
		int rc = shmq_receive(c.sub, &m, SHMQ_NOWAIT);

		CHECK(rc == 0 || rc == (n < BATCHES ? SHMQ_ECORRUPT : SHMQ_EOVERRUN));
		if (rc)
			lost++;
		else
			got[n / BATCHES]++;
	}
	CHECK_EQ(got[0], got[1]);
	CHECK_LE(got[0] * 2 * SHARED_BYTES, 2 * c.f->geo.ring_bytes + ARENA_BYTES);
	CHECK_GT(got[0] * 2 * SHARED_BYTES, c.f->geo.ring_bytes);
	CHECK_EQ(got[0] + got[1] + lost, 2 * BATCHES);
	publish(&c, 1);
	check_next(&c, 2 * BATCHES);
	tear_down(&c);
}

TEST(a_batch_that_says_it_began_elsewhere_is_corrupt)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;

	publish(&c, 1);
	publish_member(&c, 0, 0, 2);
	publish_member(&c, 0, 1, 2);
	check_next(&c, 0);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_ECORRUPT);
	check_lost(&c, 1);
	publish(&c, 1);
	check_next(&c, 3);
	tear_down(&c);
}

/* Its member is rewritten between their heads: each was copied, and one of the
 * copies is never handed out. */
TEST(two_batches_that_had_a_member_in_common_hold_nobody_back)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;
	int rc;

	publish_member(&c, 0, 0, 2);
	publish_member(&c, 1, 0, 2);
	publish_member(&c, 0, 1, 2);
	check_member(&c, 0, 0);
	c.w.next--;
	publish_member(&c, 1, 1, 2);
	check_member(&c, 1, 0);
	check_member(&c, 2, 1);
	publish(&c, 3 * FAKE_DEPTH);
	rc = shmq_receive(c.sub, &m, SHMQ_NOWAIT);
	CHECK_ERROR(rc, SHMQ_EOVERRUN);
	CHECK_GT(m.lost, FAKE_DEPTH);
	CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
	tear_down(&c);
}

TEST(a_member_that_lies_costs_its_batch_but_is_said_itself)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;

	publish_member(&c, 0, 0, 2);
	write_slot(&c, SHMQ_MSG_BATCH, 1000);
	commit(&c);
	publish(&c, 1);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_ECORRUPT);
	check_next(&c, 2);
	CHECK_EQ(sub_stats(c.sub).lost, 2);
	tear_down(&c);
}

TEST(a_batch_that_cannot_be_copied_now_is_said_and_waits)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;
	unsigned k;
	int met = 1;

	for (uint32_t n = 0; n < 3; n++)
		publish_member(&c, 0, n, 3);
	for (k = 1; met; k++) {
		int rc;

		scarce_begin(k);
		rc = shmq_receive(c.sub, &m, SHMQ_NOWAIT);
		met = scarce_end();
		CHECK_EQ(rc, met ? -ENOMEM : 0);
	}
	CHECK_EQ(k, 6); /* the batch, its three members */
	CHECK_OK(shmq_view_check(c.sub, &m));
	check_member(&c, 1, 1);
	check_member(&c, 2, 2);
	CHECK_EQ(sub_stats(c.sub).lost, 0);
	tear_down(&c);
}

TEST(a_copied_member_that_finds_no_room_stays)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;
	uint32_t copy;

	for (uint32_t n = 0; n < 3; n++)
		publish_member(&c, 0, n, 3);
	for (uint32_t n = 0; n < 3; n++) {
		CHECK_ERROR(shmq_receive_copy(c.sub, &copy, 3, &m, SHMQ_NOWAIT), SHMQ_EBUFFER);
		CHECK_EQ(m.len, 4);
		CHECK_ERROR(shmq_receive_copy(c.sub, &copy, 0, &m, SHMQ_NOWAIT), SHMQ_EBUFFER);
		check_member(&c, n, n);
		CHECK_EQ(sub_stats(c.sub).received, n + 1);
	}
	check_none(&c);
	tear_down(&c);
}

TEST(closing_amid_a_batch_leaves_nothing)
{
	struct scene c = set_up(&lossy, NULL);

	for (uint32_t n = 0; n < 3; n++)
		publish_member(&c, 0, n, 3);
	check_member(&c, 0, 0);
	tear_down(&c); /* the leak checks of the harness see to it */
}

TEST(where_laggards_are_evicted_what_was_copied_of_a_batch_comes_first)
{
	struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_EVICT }, NULL);
	struct shmq_msg m;

	for (uint32_t n = 0; n < 3; n++)
		publish_member(&c, 0, n, 3);
	check_member(&c, 0, 0);
	publish(&c, 2 * FAKE_DEPTH);
	check_member(&c, 1, 1);
	check_member(&c, 2, 2);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EEVICTED);
	CHECK_EQ(sub_stats(c.sub).received, 3);
	tear_down(&c);
}

/* ---- what a mad publisher says of the rest of a batch ------------------------ */

static void publish_large(struct scene *c, const struct lay_batch *batch,
			  const struct lay_arena_ref *where)
{
	char *at = write_slot(c, SHMQ_MSG_ARENA | (batch ? SHMQ_MSG_BATCH : 0), 20);

	if (batch)
		at = (char *)memcpy(at, batch, sizeof(*batch)) + sizeof(*batch);
	memcpy(at, where, sizeof(*where));
	commit(c);
}

/* As the tailer asks where a topic has moved, which writes the message then: between
 * the members is one of an arena that is another one by now, so it says. */
TEST(a_message_in_hand_stays_where_it_is_while_the_rest_of_its_batch_is_looked_for)
{
	struct scene c = set_up(&(struct fake_options){ .max_bytes = 100 }, NULL);
	uint32_t arena = fake_arena(c.f, c.pub, 4096);
	struct lay_arena_ref where = { .id = arena, .gen = 700 + arena }, other = where;
	struct lay_batch batch = { .first_seq = 0, .index = 0, .count = 2 };
	static const char bytes[20] = { 0 };
	struct shmq_msg m;

	other.gen++;
	publish_large(&c, &batch, &where);
	publish_large(&c, NULL, &other);
	publish_member(&c, 0, 1, 2);
	CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
	store_relaxed(&c.w.mem->moved_seq, 3);
	store_release(&c.w.mem->state, LAY_RING_MOVED);
	CHECK_EQ(shmq__sub_is_sent(c.sub, &m), 1);
	CHECK_MEM(m.data, bytes, sizeof(bytes));
	tear_down(&c);
}
