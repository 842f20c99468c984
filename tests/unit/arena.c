/* SPDX-License-Identifier: MIT */
#include "arena.h"
#include "fake.h"
#include "tap.h"

#include <stdlib.h>

enum { BYTES = 4096, LINE = LAY_LINE };

static char memory[BYTES];

static void set_up(struct shmq__arena *a)
{
	shmq__arena_init(a, memory, BYTES, 5, 6);
	CHECK_EQ(a->id, 5);
	CHECK_EQ(a->gen, 6);
}

/* Take, with nothing in the way. */
static uint64_t take(struct shmq__arena *a, uint64_t bytes, uint64_t seq)
{
	struct arena_piece *p;

	CHECK(!arena_in_the_way(a, bytes));
	p = arena_take(a, bytes);
	CHECK(p);
	CHECK(p == shmq__arena_last(a));
	CHECK_EQ(p->bytes, bytes);
	CHECK_EQ(p->word, 0);
	CHECK_EQ(p->off % LINE, 0);
	CHECK_LE(p->off + bytes, BYTES);
	p->seq = seq;
	p->word = 1;
	return p->off;
}

TEST(pieces_are_whole_lines_behind_each_other)
{
	struct shmq__arena a;

	set_up(&a);
	CHECK_EQ(take(&a, 1, 0), 0);
	CHECK_EQ(take(&a, 64, 1), 64);
	CHECK_EQ(take(&a, 65, 2), 128);
	CHECK_EQ(take(&a, 10, 3), 256);
	shmq__arena_fini(&a);
}

TEST(one_piece_may_take_the_whole_arena)
{
	struct shmq__arena a;
	struct arena_piece *p;

	set_up(&a);
	CHECK_EQ(take(&a, BYTES, 9), 0);
	p = arena_in_the_way(&a, BYTES);
	CHECK(p);
	CHECK_EQ(p->seq, 9);
	arena_drop(&a);
	CHECK_EQ(take(&a, BYTES, 10), 0);
	arena_drop(&a);
	CHECK_EQ(take(&a, 1, 11), 0);
	shmq__arena_fini(&a);
}

TEST(old_pieces_are_in_the_way_in_the_order_they_were_taken)
{
	struct shmq__arena a;
	uint64_t n;

	set_up(&a);
	for (n = 0; n < 8; n++)
		CHECK_EQ(take(&a, 512, n), 512 * n);
	for (n = 0; n < 100; n++) {
		struct arena_piece *p = arena_in_the_way(&a, 512);

		CHECK(p);
		CHECK_EQ(p->seq, n);
		arena_drop(&a);
		CHECK_EQ(take(&a, 512, n + 8), 512 * (n % 8));
	}
	/* A large one needs several out of the way. */
	for (n = 100; n < 104; n++) {
		CHECK_EQ(arena_in_the_way(&a, 2048)->seq, n);
		arena_drop(&a);
	}
	CHECK_EQ(take(&a, 2048, 200), 512 * (100 % 8));
	shmq__arena_fini(&a);
}

TEST(what_lies_before_the_end_goes_before_the_start_is_used_again)
{
	struct shmq__arena a;

	set_up(&a);
	CHECK_EQ(take(&a, 2048, 0), 0);
	CHECK_EQ(take(&a, 1024, 1), 2048);
	CHECK_EQ(take(&a, 1024, 2), 3072);
	CHECK_EQ(arena_in_the_way(&a, 2048)->seq, 0);
	arena_drop(&a);
	CHECK_EQ(take(&a, 2048, 3), 0);
	/* At 2048 now: 2500 do not fit before the end, yet 1 and 2 are there. */
	CHECK_EQ(arena_in_the_way(&a, 2500)->seq, 1);
	arena_drop(&a);
	CHECK_EQ(arena_in_the_way(&a, 2500)->seq, 2);
	arena_drop(&a);
	CHECK_EQ(arena_in_the_way(&a, 2500)->seq, 3);
	arena_drop(&a);
	CHECK_EQ(take(&a, 2500, 4), 0);
	shmq__arena_fini(&a);
}

TEST(a_piece_given_back_is_taken_again)
{
	struct shmq__arena a;

	set_up(&a);
	CHECK_EQ(take(&a, 100, 0), 0);
	CHECK_EQ(take(&a, 100, 1), 128);
	CHECK_EQ(take(&a, 100, 2), 256);
	shmq__arena_give_back(&a);
	shmq__arena_give_back(&a);
	CHECK_EQ(shmq__arena_last(&a)->seq, 0);
	CHECK_EQ(take(&a, 300, 3), 128);
	CHECK_EQ(a.count, 2);
	shmq__arena_fini(&a);
}

TEST(a_piece_given_back_at_the_start_leaves_the_others_in_the_way)
{
	struct shmq__arena a;

	set_up(&a);
	CHECK_EQ(take(&a, 1024, 0), 0);
	CHECK_EQ(take(&a, 1024, 1), 1024);
	CHECK_EQ(take(&a, 1024, 2), 2048);
	CHECK_EQ(arena_in_the_way(&a, 1088)->seq, 0); /* too long for the rest */
	arena_drop(&a);
	CHECK_EQ(arena_in_the_way(&a, 1088)->seq, 1);
	arena_drop(&a);
	CHECK_EQ(take(&a, 1088, 3), 0);
	shmq__arena_give_back(&a);
	CHECK_EQ(take(&a, 2048, 4), 0);
	CHECK_EQ(arena_in_the_way(&a, 64)->seq, 2);
	shmq__arena_fini(&a);
}

/* Take what is known to be free, or else make room first. */
static uint64_t take_somehow(struct shmq__arena *a, uint64_t bytes, uint64_t seq, uint64_t *owner,
			     unsigned *known)
{
	struct arena_piece *p = arena_take_known(a, bytes);
	size_t i;

	if (p) {
		++*known;
		CHECK_LE(p->off + bytes, BYTES);
		CHECK_EQ(p->word, 0);
		p->seq = seq;
		p->word = 1;
		return p->off;
	}
	while ((p = arena_in_the_way(a, bytes))) {
		for (i = 0; i < BYTES / LINE; i++)
			if (owner[i] == p->seq)
				owner[i] = 0;
		arena_drop(a);
	}
	return take(a, bytes, seq);
}

/* Whatever is taken overlaps nothing that was not dropped: a model keeps an
 * owner for each line. */
TEST(no_two_pieces_ever_share_a_line)
{
	static uint64_t owner[BYTES / LINE];
	uint64_t state = 7, seq = 0;
	unsigned known = 0;
	struct shmq__arena a;

	set_up(&a);
	for (int round = 0; round < 30000; round++) {
		uint64_t bytes = 1 + fake_random(&state) % (round % 10 ? 700 : BYTES), lines, off,
			 i;

		if (fake_random(&state) % 2)
			arena_look_ahead(&a, 1 + fake_random(&state) % 700);
		off = take_somehow(&a, bytes, ++seq, owner, &known);
		lines = (bytes + LINE - 1) / LINE;
		for (i = off / LINE; i < off / LINE + lines; i++) {
			CHECK_EQ(owner[i], 0);
			owner[i] = seq;
		}
		if (fake_random(&state) % 5 == 0) {
			shmq__arena_give_back(&a);
			for (i = off / LINE; i < off / LINE + lines; i++)
				owner[i] = 0;
		}
	}
	CHECK_GT(known, 1000);
	shmq__arena_fini(&a);
}

/* ---- adoption ------------------------------------------------------------- */

TEST(a_successor_continues_behind_the_newest_message)
{
	struct shmq__arena a, b;

	set_up(&a);
	for (uint64_t n = 0; n < 8; n++)
		take(&a, 512, n);
	for (uint64_t n = 8; n < 11; n++) { /* 8, 9, 10 over 0, 1, 2 */
		arena_in_the_way(&a, 512);
		arena_drop(&a);
		take(&a, 512, n);
	}
	set_up(&b);
	for (unsigned i = 0; i < a.count; i++) { /* in any order, such as by slot */
		struct arena_piece *p = &a.piece[(a.first + (i * 3) % a.count) % a.capacity];

		CHECK_OK(shmq__arena_adopt(&b, p));
	}
	shmq__arena_adopt_done(&b);
	CHECK_EQ(b.count, 8);
	CHECK_EQ(b.pos, 3 * 512);
	for (uint64_t n = 3; n < 20; n++) {
		CHECK_EQ(arena_in_the_way(&b, 512)->seq, n);
		arena_drop(&b);
		CHECK_EQ(take(&b, 512, n + 8), 512 * (n % 8));
	}
	shmq__arena_fini(&a);
	shmq__arena_fini(&b);
}

TEST(the_newest_message_is_found_over_the_wrap_of_the_seq)
{
	struct shmq__arena a;

	set_up(&a);
	for (uint64_t n = 0; n < 8; n++) {
		struct arena_piece p = { .off = 512 * n, .bytes = 512, .seq = n - 4, .word = 1 };

		if (n < 2)
			p.seq = n + 4; /* seqs 4, 5, then -2 to 3 */
		CHECK_OK(shmq__arena_adopt(&a, &p));
	}
	shmq__arena_adopt_done(&a);
	CHECK_EQ(a.pos, 1024);
	CHECK_EQ(arena_in_the_way(&a, 1)->seq, UINT64_C(0) - 2);
	shmq__arena_fini(&a);
}

TEST(nothing_to_adopt_is_an_empty_arena)
{
	struct shmq__arena a;

	set_up(&a);
	shmq__arena_adopt_done(&a);
	CHECK_EQ(take(&a, BYTES, 0), 0);
	shmq__arena_fini(&a);
}

TEST(adopted_pieces_out_of_bounds_are_ignored)
{
	static const struct arena_piece mad[] = {
		{ .off = BYTES, .bytes = 1 },       { .off = 0, .bytes = BYTES + 1 },
		{ .off = BYTES - 64, .bytes = 65 }, { .off = UINT64_MAX, .bytes = 1 },
		{ .off = 64, .bytes = UINT64_MAX }, { .off = UINT64_MAX - 10, .bytes = 64 },
	};
	struct arena_piece good = { .off = BYTES - 64, .bytes = 64, .word = 1 };
	struct shmq__arena a;

	set_up(&a);
	for (size_t i = 0; i < sizeof(mad) / sizeof(mad[0]); i++)
		CHECK_OK(shmq__arena_adopt(&a, &mad[i]));
	CHECK_EQ(a.count, 0);
	CHECK_OK(shmq__arena_adopt(&a, &good));
	shmq__arena_adopt_done(&a);
	CHECK_EQ(a.count, 1);
	CHECK_EQ(take(&a, BYTES - 64, 1), 0);
	shmq__arena_fini(&a);
}

/* Slots of a shared ring may say anything: overlapping, unaligned, empty. */
TEST(whatever_was_adopted_room_is_found_within_bounds)
{
	uint64_t state = 11;

	for (int round = 0; round < 500; round++) {
		struct shmq__arena a;
		uint64_t pieces = fake_random(&state) % 200;

		set_up(&a);
		for (uint64_t i = 0; i < pieces; i++) {
			struct arena_piece p = { .off = fake_random(&state) % BYTES,
						 .bytes = fake_random(&state) % 600,
						 .seq = fake_random(&state) };

			CHECK_OK(shmq__arena_adopt(&a, &p));
		}
		shmq__arena_adopt_done(&a);
		for (int n = 0; n < 50; n++) {
			uint64_t bytes = 1 + fake_random(&state) % 1500;
			struct arena_piece *p;

			while (arena_in_the_way(&a, bytes)) {
				CHECK_GT(a.count, 0);
				arena_drop(&a);
			}
			p = arena_take(&a, bytes);
			CHECK_LE(p->off, BYTES);
			CHECK_LE(p->bytes, BYTES - p->off);
		}
		shmq__arena_fini(&a);
	}
}
