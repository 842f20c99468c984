/* SPDX-License-Identifier: MIT */
#include "log_batch.h"

#include "helpers.h"
#include "memory.h"
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

/* ---- against a model that looks through all of them ------------------------ */

#define STEPS 20000u
#define SHORT 128u

struct model {
	struct log_batch open[STEPS];
	unsigned count;
	uint64_t seq;
	int is_older;
};

static void model_remove(struct model *m, unsigned i)
{
	m->open[i] = m->open[--m->count];
}

static void model_add(struct model *m, struct log_batch b)
{
	if (!b.left)
		return;
	if (!m->count) {
		m->seq = b.first_seq;
		m->is_older = 0;
	}
	m->is_older |= !b.is_known;
	m->open[m->count++] = b;
}

static int model_note(struct model *m, const struct lay_batch *b, uint64_t seq)
{
	int is_known;

	if (!b->index) {
		model_add(m, (struct log_batch){ seq, b->count, b->count - 1, 1 });
		return 1;
	}
	for (unsigned i = 0; i < m->count; i++) {
		if (m->open[i].first_seq != b->first_seq)
			continue;
		if (m->open[i].count != b->count || m->open[i].count - m->open[i].left != b->index)
			return 0;
		is_known = (int)m->open[i].is_known;
		if (!--m->open[i].left)
			model_remove(m, i);
		return is_known;
	}
	if ((int64_t)(b->first_seq - seq) < 0)
		model_add(m,
			  (struct log_batch){ b->first_seq, b->count, b->count - 1 - b->index, 0 });
	return 0;
}

static void model_expire(struct model *m, uint64_t next)
{
	for (unsigned i = 0; i < m->count;)
		if (next - m->open[i].first_seq >= SHORT)
			model_remove(m, i);
		else
			i++;
}

static int model_hold(const struct model *m, uint64_t next, uint64_t *seq)
{
	int is_long = m->is_older || next - m->seq >= SHORT, is_open = 0;

	for (unsigned i = 0; i < m->count; i++) {
		const struct log_batch *b = &m->open[i];

		if (!b->is_known)
			continue;
		if (!is_open || (int64_t)(b->first_seq - *seq) < 0)
			*seq = b->first_seq;
		is_open = 1;
	}
	if (is_open && !is_long)
		*seq = m->seq;
	return is_open;
}

/* The next member of what one of `publishers` sends, some of which began where nobody
 * looked, and some of which say what cannot be. */
static struct lay_batch member(struct lay_batch *sent, unsigned publishers, uint64_t seq)
{
	uint64_t r = mix(seq);
	struct lay_batch *b = &sent[r % publishers], m;

	if (r >> 20 & 7 && b->index == b->count)
		*b = (struct lay_batch){ seq, 0, (uint32_t)(1 + (r >> 24) % 9) };
	else if (b->index == b->count)
		*b = (struct lay_batch){ seq - 1 - (r >> 24) % (2 * SHORT), 1, 3 };
	m = *b;
	b->index++;
	if ((r >> 40) % 50 == 0)
		m.first_seq = seq + (r >> 48) % 5;
	return m;
}

TEST(which_batches_are_open_is_known_however_they_interleave)
{
	static const unsigned publishers[] = { 1, 2, 7, 60, 500 };
	struct log_batches *o = shared_memory(sizeof(*o));
	struct model *m = shared_memory(sizeof(*m));
	struct lay_batch *sent = shared_memory(500 * sizeof(*sent)), b;
	unsigned most = 0, held = 0;

	for (size_t k = 0; k < COUNT(publishers); k++) {
		memset(sent, 0, 500 * sizeof(*sent));
		log_batches_clear(o);
		m->count = 0;
		for (uint64_t seq = FIRST; seq != FIRST + STEPS; seq++) {
			uint64_t at = 0, want = 0;
			int is_held;

			if (mix(seq + 1) % 2000 == 0) {
				log_batches_clear(o);
				m->count = 0;
			}
			if (mix(seq + 2) % 4 == 0) {
				log_batches_expire(o, seq, SHORT);
				model_expire(m, seq);
			}
			b = member(sent, publishers[k], seq);
			CHECK_EQ(log_batches_note(o, &b, seq), model_note(m, &b, seq));
			CHECK_EQ(o->count, m->count);
			is_held = log_batches_hold(o, seq + 1, SHORT, &at);
			CHECK_EQ(is_held, model_hold(m, seq + 1, &want));
			CHECK_EQ(at, want);
			held += (unsigned)is_held;
			most = m->count > most ? m->count : most;
		}
	}
	CHECK_GT(most, 60);
	CHECK_LT(most, LOG_BATCHES_MAX);
	CHECK_GT(held, STEPS);
}

TEST(of_more_batches_than_are_known_the_oldest_is_not_waited_for)
{
	struct log_batches *o = shared_memory(sizeof(*o));
	struct lay_batch b = { 0, 0, 2 };
	uint64_t seq = FIRST, at;

	for (; seq != FIRST + LOG_BATCHES_MAX + 3; seq++)
		CHECK(log_batches_note(o, &b, seq));
	CHECK_EQ(o->count, LOG_BATCHES_MAX);
	CHECK_EQ(o->left, LOG_BATCHES_MAX);
	CHECK(log_batches_hold(o, seq, 1, &at));
	CHECK_EQ(at, FIRST + 3);
	for (b.index = 1, b.first_seq = FIRST; b.first_seq != FIRST + 3; b.first_seq++)
		CHECK(!log_batches_note(o, &b, seq++));
	for (; b.first_seq != FIRST + LOG_BATCHES_MAX + 3; b.first_seq++)
		CHECK(log_batches_note(o, &b, seq++));
	CHECK(!log_batches_hold(o, seq, 1, &at));
	CHECK_EQ(o->count, 0);
}
