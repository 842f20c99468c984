/* SPDX-License-Identifier: MIT */
#include "log_batch.h"
#include "tap.h"

#define DEPTH 1024
#define FIRST (UINT64_C(0) - 3)

static struct log_batches open;

static int note(uint64_t first, uint32_t index, uint32_t count, uint64_t seq)
{
	struct lay_batch b = { .first_seq = first, .index = index, .count = count };

	return log_batches_note(&open, &b, seq);
}

static uint64_t held_from(uint64_t next)
{
	uint64_t seq;

	CHECK(log_batches_hold(&open, next, DEPTH, &seq));
	return seq;
}

static int is_whole(uint64_t next)
{
	uint64_t seq;

	return !log_batches_hold(&open, next, DEPTH, &seq);
}

TEST(what_interleaves_is_held_from_its_first_member_to_the_last_of_all)
{
	log_batches_clear(&open);
	CHECK_EQ(note(FIRST, 0, 2, FIRST), 1);
	CHECK_EQ(note(FIRST + 1, 0, 2, FIRST + 1), 1);
	CHECK_EQ(note(FIRST, 1, 2, FIRST + 2), 1);
	CHECK_EQ(held_from(FIRST + 3), FIRST);
	CHECK_EQ(note(FIRST + 1, 1, 2, FIRST + 3), 1);
	CHECK(is_whole(FIRST + 4));
}

TEST(one_that_is_not_the_next_member_of_a_batch_does_not_make_it_whole)
{
	log_batches_clear(&open);
	CHECK_EQ(note(FIRST, 0, 3, FIRST), 1);
	CHECK_EQ(note(FIRST, 2, 3, FIRST + 1), 0); /* not yet */
	CHECK_EQ(note(FIRST, 1, 2, FIRST + 2), 0); /* of another count */
	CHECK_EQ(note(FIRST, 9, 3, FIRST + 3), 0);
	CHECK_EQ(held_from(FIRST + 4), FIRST);
	CHECK_EQ(note(FIRST, 1, 3, FIRST + 4), 1);
	CHECK_EQ(note(FIRST, 1, 3, FIRST + 5), 0); /* it was there */
	CHECK_EQ(held_from(FIRST + 6), FIRST);
	CHECK_EQ(note(FIRST, 2, 3, FIRST + 6), 1);
	CHECK(is_whole(FIRST + 7));
}

TEST(of_one_that_began_before_nothing_is_held)
{
	log_batches_clear(&open);
	CHECK_EQ(note(FIRST, 1, 4, FIRST + 1), 0);
	CHECK(is_whole(FIRST + 2));
	CHECK_EQ(note(FIRST, 2, 4, FIRST + 2), 0);
	CHECK_EQ(note(FIRST, 3, 4, FIRST + 3), 0);
	CHECK_EQ(open.count, 0);
}

TEST(what_is_not_whole_a_ring_later_never_was_a_batch)
{
	log_batches_clear(&open);
	CHECK_EQ(note(FIRST, 0, 3, FIRST), 1);
	log_batches_expire(&open, FIRST + DEPTH - 1, DEPTH);
	CHECK_EQ(held_from(FIRST + DEPTH - 1), FIRST);
	log_batches_expire(&open, FIRST + DEPTH, DEPTH);
	CHECK(is_whole(FIRST + DEPTH));
}
