/* SPDX-License-Identifier: MIT */
#include "fake.h"
#include "tap.h"

#include <sched.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ENDLESS (UINT64_C(1) << 62)

static const uint64_t bases[] = FAKE_BASES;
static const struct fake_options plain, shared = { .mode = SHMQ_SHARED };

struct bench {
	struct lay_geometry geo;
	struct lay_ring *ring;
	struct ring_writer w;
	struct ring_reader r;
};

static void set_up(struct bench *b, const struct fake_options *o, uint64_t base)
{
	b->geo = fake_geometry(o);
	b->ring = fake_ring(&b->geo, base);
	b->w = (struct ring_writer){
		.mem = b->ring, .geo = b->geo, .next = base, .ahead = base, .owner = 7
	};
	b->w.limit = base + b->geo.depth;
	b->r = (struct ring_reader){ .mem = b->ring, .geo = b->geo, .next = base };
}

static void tear_down(struct bench *b)
{
	fake_ring_free(b->ring, &b->geo);
}

static void set_word(struct bench *b, uint64_t seq, unsigned owner, enum lay_state state)
{
	store_release(fake_ctrl(b->ring, &b->geo, seq),
		      LAY_CTRL(lay_lap(&b->geo, seq), owner, state));
}

static uint64_t claim(struct bench *b)
{
	uint64_t seq = 0, word;

	CHECK_EQ(shmq__ring_claim(&b->w, &seq, &word), RING_CLAIM_OK);
	return seq;
}

static enum ring_look look(struct bench *b, uint64_t seq)
{
	uint64_t word;

	b->r.next = seq;
	return ring_look(&b->r, &word);
}

TEST(fresh_ring_holds_nothing_at_any_first_seq)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;

		set_up(&b, &plain, bases[i]);
		for (uint64_t n = 0; n < 2 * FAKE_DEPTH; n++)
			CHECK_EQ(look(&b, bases[i] + n), RING_NOTHING);
		shmq__ring_takeover(&b.w);
		CHECK_EQ(b.w.next, bases[i]);
		tear_down(&b);
	}
}

TEST(exclusive_messages_are_read_in_order_over_every_wrap)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;
		uint64_t word, n, read = 0, state = i;

		set_up(&b, &plain, bases[i]);
		for (n = 0; read < 4 * FAKE_DEPTH; n = 0) {
			uint64_t burst = 1 + fake_random(&state) % FAKE_DEPTH;

			b.w.limit = b.r.next + FAKE_DEPTH;
			for (; n < burst && b.w.next != b.w.limit; n++)
				fake_publish(&b.w, b.w.next ^ 5);
			for (; n; n--, b.r.next++, read++) {
				CHECK_EQ(ring_look(&b.r, &word), RING_MESSAGE);
				CHECK_EQ(fake_get(&b.r), b.r.next ^ 5);
				CHECK_EQ(LAY_CTRL_OWNER(word), 7);
				CHECK(ring_still(&b.r, b.r.next, word));
			}
			CHECK_EQ(ring_look(&b.r, &word), RING_NOTHING);
		}
		tear_down(&b);
	}
}

TEST(shared_messages_are_read_in_order_over_every_wrap)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;
		uint64_t word, n;

		set_up(&b, &shared, bases[i]);
		b.w.limit = bases[i] + ENDLESS;
		for (n = 0; n < 4 * FAKE_DEPTH; n++) {
			uint64_t seq = claim(&b);

			CHECK_EQ(seq, bases[i] + n);
			CHECK_EQ(ring_look(&b.r, &word), RING_CLAIMED);
			CHECK_EQ(LAY_CTRL_OWNER(word), 7);
			fake_put(&b.w, seq, n);
			CHECK_EQ(ring_look(&b.r, &word), RING_MESSAGE);
			CHECK_EQ(fake_get(&b.r), n);
			b.r.next++;
		}
		tear_down(&b);
	}
}

/* ---- claims by many --------------------------------------------------------- */

enum { CLAIMERS = 4, CLAIMS = 60000 };

struct claimer {
	struct ring_writer w;
	uint64_t seq[CLAIMS];
	unsigned id;
	pthread_barrier_t *start;
};

static void *claim_many(void *arg)
{
	struct claimer *c = arg;

	pthread_barrier_wait(c->start);
	for (unsigned i = 0; i < CLAIMS;) {
		uint64_t seq, word;
		enum ring_claim rc = shmq__ring_claim(&c->w, &seq, &word);

		if (rc == RING_CLAIM_HELD) {
			sched_yield();
			continue;
		}
		CHECK_EQ(rc, RING_CLAIM_OK);
		fake_put(&c->w, seq, ((uint64_t)c->id << 32) | i);
		c->seq[i++] = seq;
		if (i % RING_HINT_EVERY == 0)
			store_relaxed(&c->w.mem->tail_hint, seq + 1);
	}
	return NULL;
}

static void claims_are_contiguous_from(uint64_t base)
{
	static struct claimer claimer[CLAIMERS];
	static unsigned char taken[CLAIMERS * CLAIMS];
	pthread_t thread[CLAIMERS];
	pthread_barrier_t start;
	struct bench b;

	CHECK_EQ(pthread_barrier_init(&start, NULL, CLAIMERS), 0);
	memset(taken, 0, sizeof(taken));
	set_up(&b, &shared, base);
	b.w.limit = base + ENDLESS;
	for (unsigned i = 0; i < CLAIMERS; i++) {
		claimer[i].w = b.w;
		claimer[i].start = &start;
		claimer[i].w.owner = claimer[i].id = i + 1;
		thread[i] = fake_thread(claim_many, &claimer[i]);
	}
	for (unsigned i = 0; i < CLAIMERS; i++)
		fake_join(thread[i]);
	for (unsigned i = 0; i < CLAIMERS; i++) {
		for (unsigned k = 0; k < CLAIMS; k++) {
			uint64_t at = claimer[i].seq[k] - base;

			CHECK_LT(at, CLAIMERS * CLAIMS);
			CHECK_EQ(taken[at]++, 0);
			if (k)
				CHECK_GT(seq_diff(claimer[i].seq[k], claimer[i].seq[k - 1]), 0);
		}
	}
	/* The last lap carries who wrote it. */
	for (uint64_t n = CLAIMERS * CLAIMS - FAKE_DEPTH; n < CLAIMERS * CLAIMS; n++) {
		uint64_t word, value;

		b.r.next = base + n;
		CHECK_EQ(ring_look(&b.r, &word), RING_MESSAGE);
		value = fake_get(&b.r);
		CHECK_EQ(value >> 32, LAY_CTRL_OWNER(word));
		CHECK_EQ(claimer[(value >> 32) - 1].seq[(uint32_t)value], b.r.next);
	}
	tear_down(&b);
}

TEST(claims_of_many_threads_are_unique_and_contiguous)
{
	claims_are_contiguous_from(0);
}

TEST(claims_of_many_threads_are_contiguous_over_the_wrap_of_the_lap)
{
	claims_are_contiguous_from(FAKE_LAP_WRAP - CLAIMS);
}

TEST(claims_of_many_threads_are_contiguous_over_the_wrap_of_the_seq)
{
	claims_are_contiguous_from(UINT64_C(0) - CLAIMS);
}

/* ---- what a claim refuses ------------------------------------------------------ */

TEST(claim_without_credit_takes_nothing_and_names_the_seq)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		uint64_t seq = 4711, word = 4711, before;
		struct bench b;

		set_up(&b, &shared, bases[i]);
		b.w.limit = bases[i] + 3;
		for (int n = 0; n < 3; n++)
			fake_put(&b.w, claim(&b), n);
		before = load_relaxed(fake_ctrl(b.ring, &b.geo, bases[i] + 3));
		CHECK_EQ(shmq__ring_claim(&b.w, &seq, &word), RING_CLAIM_NO_CREDIT);
		CHECK_EQ(b.w.next, bases[i] + 3);
		CHECK_EQ(seq, 4711);
		CHECK_EQ(load_relaxed(fake_ctrl(b.ring, &b.geo, bases[i] + 3)), before);
		b.w.limit++;
		CHECK_EQ(claim(&b), bases[i] + 3);
		tear_down(&b);
	}
}

static void held_until(enum lay_state outcome)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		uint64_t seq, word = 0, held;
		struct bench b;

		set_up(&b, &shared, bases[i]);
		b.w.limit = bases[i] + ENDLESS;
		CHECK_EQ(claim(&b), bases[i]); /* and it stays a claim */
		held = load_relaxed(fake_ctrl(b.ring, &b.geo, bases[i]));
		for (uint64_t n = 1; n < FAKE_DEPTH; n++)
			fake_put(&b.w, claim(&b), n);
		for (int again = 0; again < 2; again++) {
			CHECK_EQ(shmq__ring_claim(&b.w, &seq, &word), RING_CLAIM_HELD);
			CHECK_EQ(word, held);
			CHECK_EQ(b.w.next, bases[i] + FAKE_DEPTH);
		}
		if (outcome == LAY_VOID)
			CHECK_EQ(shmq__ring_void(b.ring, &b.geo, bases[i], held), 1);
		else
			set_word(&b, bases[i], 7, outcome);
		CHECK_EQ(claim(&b), bases[i] + FAKE_DEPTH);
		tear_down(&b);
	}
}

TEST(claim_is_held_by_a_claim_of_a_lap_ago_until_it_is_committed)
{
	held_until(LAY_COMMITTED);
}

TEST(claim_is_held_by_a_claim_of_a_lap_ago_until_it_is_voided)
{
	held_until(LAY_VOID);
}

TEST(claim_takes_a_slot_whose_message_is_gone)
{
	held_until(LAY_GONE);
}

TEST(claim_refuses_a_slot_that_is_laps_behind)
{
	uint64_t seq, word;
	struct bench b;

	set_up(&b, &shared, 5 * FAKE_DEPTH);
	store_relaxed(fake_ctrl(b.ring, &b.geo, 5 * FAKE_DEPTH), LAY_CTRL(2, 0, LAY_COMMITTED));
	CHECK_EQ(shmq__ring_claim(&b.w, &seq, &word), RING_CLAIM_CORRUPT);
	tear_down(&b);
}

TEST(claim_finds_its_place_from_a_position_laps_ago)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct ring_writer late;
		struct bench b;

		set_up(&b, &shared, bases[i]);
		late = b.w;
		b.w.limit = bases[i] + ENDLESS;
		for (uint64_t n = 0; n < 6 * FAKE_DEPTH + 10; n++)
			fake_put(&b.w, claim(&b), n);
		late.limit = b.w.limit;
		b.w = late;
		CHECK_EQ(claim(&b), bases[i] + 6 * FAKE_DEPTH + 10);
		tear_down(&b);
	}
}

TEST(a_run_ends_with_the_room_or_before_the_end_of_the_lap)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;
		uint64_t n, runs = 0;

		set_up(&b, &plain, bases[i]);
		for (n = 0; n < 3 * FAKE_DEPTH; n++, b.w.next++) {
			uint64_t seq = b.w.next, in_lap = seq & (FAKE_DEPTH - 1);

			if (n % 300 == 0) {
				b.w.limit = seq + 300;
				ring_make_room(&b.w, 1, 0);
				runs++;
			} else if (!in_lap) {
				CHECK(!ring_is_in_run(&b.w, seq));
				ring_begin_run(&b.w);
			}
			CHECK_EQ(ring_is_in_run(&b.w, seq), in_lap < FAKE_DEPTH - RING_PREFETCH);
			if (!ring_is_in_run(&b.w, seq))
				continue;
			CHECK(ring_run_slot(&b.w, seq) == lay_slot_at(b.ring, &b.geo, seq));
			CHECK_EQ(b.w.run.word, LAY_CTRL(lay_lap(&b.geo, seq), 7, LAY_COMMITTED));
			if (n % 300 == 299)
				CHECK(!ring_is_in_run(&b.w, seq + 1));
		}
		CHECK_EQ(runs, 3 * FAKE_DEPTH / 300 + 1);
		tear_down(&b);
	}
}

/* ---- giving up old content early -------------------------------------------------- */

TEST(old_content_is_given_up_before_a_payload_store)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;
		uint64_t n, first = bases[i] + FAKE_DEPTH;

		set_up(&b, &plain, bases[i]);
		b.w.limit = bases[i] + ENDLESS;
		for (n = 0; n < FAKE_DEPTH; n++)
			fake_publish(&b.w, n);
		b.w.ahead = b.w.next;
		ring_make_room(&b.w, 3, 1);
		CHECK_EQ(b.w.ahead, first + 3 + 2 * RING_AHEAD);
		for (n = 0; n < 3 + 2 * RING_AHEAD; n++) {
			CHECK_EQ(LAY_CTRL_STATE(load_relaxed(fake_ctrl(b.ring, &b.geo, first + n))),
				 LAY_AHEAD);
			CHECK_EQ(look(&b, bases[i] + n), RING_LAPPED); /* the old is gone */
			CHECK_EQ(look(&b, first + n), RING_NOTHING);   /* the new not there */
		}
		CHECK_EQ(look(&b, bases[i] + n), RING_MESSAGE);
		tear_down(&b);
	}
}

TEST(a_reader_that_looked_before_old_content_was_given_up_notices)
{
	struct bench b;
	uint64_t word;

	set_up(&b, &plain, 0);
	b.w.limit = ENDLESS;
	for (uint64_t n = 0; n < FAKE_DEPTH; n++)
		fake_publish(&b.w, n);
	b.w.ahead = b.w.next;
	CHECK_EQ(ring_look(&b.r, &word), RING_MESSAGE);
	CHECK(ring_still(&b.r, 0, word));
	ring_make_room(&b.w, 1, 1);
	CHECK(!ring_still(&b.r, 0, word));
	tear_down(&b);
}

/* A subscriber that gates may still read what lies beyond the limit: evict
 * topics gave up to eight of its messages up, and evicted it for that. */
TEST(content_beyond_the_limit_is_not_given_up)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;
		uint64_t n;

		set_up(&b, &plain, bases[i]);
		for (n = 0; n < FAKE_DEPTH; n++) {
			ring_make_room(&b.w, 1, 1);
			fake_publish(&b.w, n);
		}
		for (n = 0; n < FAKE_DEPTH; n++)
			CHECK_EQ(look(&b, bases[i] + n), RING_MESSAGE);
		b.w.limit += 2; /* the reader took two */
		ring_make_room(&b.w, 1, 1);
		CHECK_EQ(look(&b, bases[i] + 1), RING_LAPPED);
		CHECK_EQ(look(&b, bases[i] + 2), RING_MESSAGE);
		tear_down(&b);
	}
}

/* ---- takeover ------------------------------------------------------------------------ */

static uint64_t takeover(struct bench *b)
{
	struct ring_writer w = { .mem = b->ring, .geo = b->geo, .owner = 9 };

	shmq__ring_takeover(&w);
	CHECK_EQ(w.ahead, w.next);
	return w.next;
}

TEST(successor_skips_messages_voids_and_gone_ones)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;

		set_up(&b, &plain, bases[i]);
		set_word(&b, bases[i], 7, LAY_COMMITTED);
		set_word(&b, bases[i] + 1, 7, LAY_VOID);
		set_word(&b, bases[i] + 2, 7, LAY_GONE);
		CHECK_EQ(takeover(&b), bases[i] + 3); /* stops at old content */
		set_word(&b, bases[i] + 3, 7, LAY_AHEAD);
		set_word(&b, bases[i] + 4, 7, LAY_AHEAD);
		CHECK_EQ(takeover(&b), bases[i] + 3); /* and at what was given up */
		tear_down(&b);
	}
}

TEST(successor_continues_wherever_the_predecessor_stopped)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;

		set_up(&b, &plain, bases[i]);
		b.w.limit = bases[i] + ENDLESS;
		for (uint64_t n = 0; n < 2 * FAKE_DEPTH + 9; n++) {
			ring_make_room(&b.w, 1, 1);
			fake_publish(&b.w, n);
			if (n % RING_HINT_EVERY == 0)
				store_relaxed(&b.ring->tail_hint, b.w.next);
			CHECK_EQ(takeover(&b), b.w.next);
		}
		tear_down(&b);
	}
}

/* Publishers that die before they move the hint leave it laps behind; a
 * successor that then met given-up slots began behind a gap that nobody
 * would ever fill. */
TEST(successor_finds_the_place_though_the_hint_is_laps_behind)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;

		set_up(&b, &plain, bases[i]);
		b.w.limit = bases[i] + ENDLESS;
		for (uint64_t n = 0; n < 2 * FAKE_DEPTH + 9; n++) {
			ring_make_room(&b.w, 1, 1);
			fake_publish(&b.w, n);
			store_relaxed(&b.ring->tail_hint, bases[i]);
			CHECK_EQ(takeover(&b), b.w.next);
		}
		tear_down(&b);
	}
}

TEST(successor_moves_the_hint_that_its_predecessor_left_behind)
{
	struct bench b;

	set_up(&b, &plain, 0);
	for (uint64_t n = 0; n < 100; n++)
		fake_publish(&b.w, n);
	CHECK_EQ(takeover(&b), 100);
	CHECK_EQ(load_relaxed(&b.ring->tail_hint), 100);
	tear_down(&b);
}

/* ---- voids ------------------------------------------------------------------------------ */

static uint64_t voids(struct bench *b, uint64_t from, uint64_t to, uint32_t *is_bound)
{
	*is_bound = 0;
	return shmq__ring_voids_between(b->ring, from, to, is_bound);
}

static void void_at(struct bench *b, uint64_t seq)
{
	set_word(b, seq, 7, LAY_CLAIMED);
	CHECK_EQ(shmq__ring_void(b->ring, &b->geo, seq,
				 load_relaxed(fake_ctrl(b->ring, &b->geo, seq))),
		 1);
	CHECK_EQ(look(b, seq), RING_VOID);
}

TEST(voids_are_counted_exactly)
{
	for (size_t i = 0; i < COUNT(bases) - 1; i++) {
		uint64_t base = bases[i];
		uint32_t is_bound;
		struct bench b;

		set_up(&b, &shared, base);
		CHECK_EQ(voids(&b, base, base + 100, &is_bound), 0);
		CHECK_EQ(is_bound, 0);
		for (uint64_t n = 0; n < 10; n++)
			void_at(&b, base + 10 * n);
		CHECK_EQ(voids(&b, base, base + 100, &is_bound), 10);
		CHECK_EQ(is_bound, 0);
		CHECK_EQ(voids(&b, base + 1, base + 90, &is_bound), 8);
		CHECK_EQ(voids(&b, base + 1, base + 91, &is_bound), 9);
		CHECK_EQ(voids(&b, base + 91, base + 95, &is_bound), 0);
		CHECK_EQ(is_bound, 0);
		tear_down(&b);
	}
}

TEST(voids_are_counted_over_the_wrap_of_the_seq)
{
	uint64_t base = UINT64_C(0) - 10;
	uint32_t is_bound;
	struct bench b;

	set_up(&b, &shared, base);
	for (uint64_t n = 0; n < 20; n += 2)
		void_at(&b, base + n);
	CHECK_EQ(voids(&b, base, base + 20, &is_bound), 10);
	CHECK_EQ(is_bound, 0);
	tear_down(&b);
}

/* The list has no place for the very last sequence: one that was voided is
 * never counted as a loss that is said to be exact. */
TEST(a_void_at_the_last_seq_makes_the_loss_a_bound)
{
	uint64_t base = UINT64_C(0) - 10;
	uint32_t is_bound;
	struct bench b;

	set_up(&b, &shared, base);
	void_at(&b, base + 3);
	void_at(&b, base + 9);
	void_at(&b, base + 11);
	CHECK_EQ(voids(&b, base, base + 20, &is_bound), 2);
	CHECK_EQ(is_bound, 1);
	CHECK_EQ(voids(&b, base + 10, base + 20, &is_bound), 1);
	CHECK_EQ(is_bound, 0);
	tear_down(&b);
}

TEST(a_void_remembered_twice_counts_once)
{
	uint32_t is_bound;
	uint64_t word;
	struct bench b;

	set_up(&b, &shared, 50);
	void_at(&b, 60);
	word = LAY_CTRL(0, 7, LAY_CLAIMED);
	CHECK_EQ(shmq__ring_void(b.ring, &b.geo, 60, word), 0);
	CHECK_EQ(load_relaxed(&b.ring->void_count), 1);
	/* Two recoverers that did not see each other leave two entries. */
	store_relaxed(&b.ring->voids[1], 61);
	store_relaxed(&b.ring->void_count, 2);
	CHECK_EQ(voids(&b, 50, 100, &is_bound), 1);
	CHECK_EQ(is_bound, 0);
	tear_down(&b);
}

TEST(a_full_void_list_makes_the_loss_a_bound)
{
	for (size_t i = 0; i < COUNT(bases) - 1; i++) {
		uint64_t base = bases[i] + 1, n;
		uint32_t is_bound;
		struct bench b;

		if (base + LAY_VOIDS + 8 < base)
			base -= 600; /* not over the last seq */
		set_up(&b, &shared, base);
		for (n = 0; n < LAY_VOIDS; n++)
			void_at(&b, base + n);
		CHECK_EQ(voids(&b, base, base + n, &is_bound), LAY_VOIDS);
		CHECK_EQ(is_bound, 0);
		for (; n < LAY_VOIDS + 3; n++)
			void_at(&b, base + n);
		CHECK_EQ(voids(&b, base, base + n, &is_bound), LAY_VOIDS);
		CHECK_EQ(is_bound, 1);
		CHECK_EQ(voids(&b, base + 2, base + n, &is_bound), LAY_VOIDS);
		CHECK_EQ(is_bound, 1);
		CHECK_EQ(voids(&b, base + 3, base + n, &is_bound), LAY_VOIDS);
		CHECK_EQ(is_bound, 0);
		tear_down(&b);
	}
}

struct voider {
	struct bench *b;
	unsigned won;
};

static void *void_all(void *arg)
{
	struct voider *v = arg;

	for (uint64_t n = 0; n < 200; n++)
		v->won += shmq__ring_void(v->b->ring, &v->b->geo, n,
					  LAY_CTRL(lay_lap(&v->b->geo, n), 7, LAY_CLAIMED));
	return NULL;
}

TEST(two_that_void_the_same_claims_void_each_once)
{
	for (int round = 0; round < 50; round++) {
		struct voider v[2];
		pthread_t thread[2];
		uint32_t is_bound;
		struct bench b;

		set_up(&b, &shared, 0);
		for (uint64_t n = 0; n < 200; n++)
			set_word(&b, n, 7, LAY_CLAIMED);
		for (int i = 0; i < 2; i++) {
			v[i] = (struct voider){ .b = &b };
			thread[i] = fake_thread(void_all, &v[i]);
		}
		fake_join(thread[0]);
		fake_join(thread[1]);
		CHECK_EQ(v[0].won + v[1].won, 200);
		CHECK_EQ(voids(&b, 0, 200, &is_bound), 200);
		CHECK_EQ(is_bound, 0);
		tear_down(&b);
	}
}

/* ---- gone and lapped ----------------------------------------------------------------------- */

TEST(a_gone_message_is_seen_as_gone_by_those_who_look_and_who_looked)
{
	uint64_t word;
	struct bench b;

	set_up(&b, &plain, 40);
	fake_publish(&b.w, 1);
	CHECK_EQ(ring_look(&b.r, &word), RING_MESSAGE);
	shmq__ring_gone(&b.w, 40, word);
	CHECK(!ring_still(&b.r, 40, word));
	CHECK_EQ(look(&b, 40), RING_GONE);
	tear_down(&b);
}

TEST(gone_leaves_a_slot_alone_that_carries_something_else_by_now)
{
	uint64_t old, word;
	struct bench b;

	set_up(&b, &plain, 0);
	b.w.limit = ENDLESS;
	fake_publish(&b.w, 1);
	old = load_relaxed(fake_ctrl(b.ring, &b.geo, 0));
	for (uint64_t n = 0; n < FAKE_DEPTH; n++)
		fake_publish(&b.w, n);
	shmq__ring_gone(&b.w, 0, old);
	b.r.next = FAKE_DEPTH;
	CHECK_EQ(ring_look(&b.r, &word), RING_MESSAGE);
	tear_down(&b);
}

TEST(a_lapped_reader_is_told_so_at_every_wrap)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct bench b;

		set_up(&b, &plain, bases[i]);
		b.w.limit = bases[i] + ENDLESS;
		for (uint64_t n = 0; n < 3 * FAKE_DEPTH; n++) {
			fake_publish(&b.w, n);
			if (n < FAKE_DEPTH)
				CHECK_EQ(look(&b, bases[i]), RING_MESSAGE);
			else
				CHECK_EQ(look(&b, bases[i]), RING_LAPPED);
		}
		CHECK_EQ(look(&b, bases[i] + 2 * FAKE_DEPTH - 1), RING_LAPPED);
		CHECK_EQ(look(&b, bases[i] + 2 * FAKE_DEPTH), RING_MESSAGE);
		tear_down(&b);
	}
}

/* A reader that may be overrun: whatever it accepts is whole. */
struct overrun {
	struct bench b;
	_Atomic int done;
	shmq_au64 accepted, refused;
};

enum { WORDS = 6, OVERRUN_MESSAGES = 20000000 };

static void *read_overrun(void *arg)
{
	struct overrun *o = arg;
	struct ring_reader r = o->b.r;
	uint64_t state = 1;

	while (!load_acquire(&o->done)) {
		uint64_t word, copy[WORDS];
		char *from;
		enum ring_look seen = ring_look(&r, &word);

		if (seen == RING_LAPPED || seen == RING_NOTHING) {
			struct shmq__ring ring = { .geo = r.geo, .mem = o->b.ring };

			/* Stand where it is being overwritten. */
			r.next = shmq__topic_oldest(&ring, o->b.ring->base_seq);
			continue;
		}
		CHECK_EQ(seen, RING_MESSAGE);
		from = (char *)lay_slot_at(r.mem, &r.geo, r.next) + 16;
		shmq__copy_racy(copy, from, sizeof(copy) / 2);
		for (uint64_t pause = fake_random(&state) % 32; pause; pause--)
			cpu_relax();
		shmq__copy_racy(copy + WORDS / 2, from + sizeof(copy) / 2, sizeof(copy) / 2);
		if (!ring_still(&r, r.next, word)) {
			add_relaxed(&o->refused, 1);
			continue;
		}
		for (int i = 0; i < WORDS; i++)
			CHECK_EQ(copy[i], r.next);
		add_relaxed(&o->accepted, 1);
		r.next++;
	}
	return NULL;
}

TEST(what_an_overrun_reader_accepts_is_whole)
{
	static struct overrun o;
	pthread_t thread;

	set_up(&o.b, &plain, FAKE_LAP_WRAP - 100);
	o.b.w.limit = o.b.w.next + ENDLESS;
	thread = fake_thread(read_overrun, &o);
	/* Until the reader was overrun often enough, or never will be. */
	for (unsigned n = 0; n < OVERRUN_MESSAGES; n++) {
		struct lay_slot *s;
		volatile uint64_t *payload;

		ring_make_room(&o.b.w, 1, 1);
		s = lay_slot_at(o.b.ring, &o.b.geo, o.b.w.next);
		payload = (volatile uint64_t *)((char *)s + 16);
		for (int i = 0; i < WORDS; i++)
			payload[i] = o.b.w.next;
		ring_commit(&o.b.w, s, o.b.w.next);
		o.b.w.next++;
		if (n % RING_HINT_EVERY == 0)
			store_relaxed(&o.b.ring->tail_hint, o.b.w.next);
		if (load_relaxed(&o.accepted) > 5000 && load_relaxed(&o.refused) > 500)
			break;
	}
	store_release(&o.done, 1);
	fake_join(thread);
	CHECK_GT(load_relaxed(&o.accepted), 0);
	tear_down(&o.b);
}

/* ---- hostile words -------------------------------------------------------------------------- */

static void scribble(struct bench *b, uint64_t *state)
{
	uint64_t near = b->w.next >> 10;

	for (uint64_t n = 0; n < FAKE_DEPTH; n++) {
		uint64_t word = fake_random(state);

		if (fake_random(state) % 4)
			word = LAY_CTRL(near + fake_random(state) % 5 - 2, 3, word);
		store_relaxed(fake_ctrl(b->ring, &b->geo, n), word);
	}
	store_relaxed(&b->ring->tail_hint, fake_random(state) % 2 ? fake_random(state) : b->w.next);
	store_relaxed(&b->ring->void_count, fake_random(state));
	store_relaxed(&b->ring->void_forgotten, fake_random(state));
	for (unsigned i = 0; i < LAY_VOIDS; i++)
		store_relaxed(&b->ring->voids[i],
			      fake_random(state) % 2 ? fake_random(state) : b->w.next + i);
}

TEST(hostile_words_never_make_anything_loop_or_leave_the_ring)
{
	uint64_t state = 42;
	struct bench b;

	set_up(&b, &shared, 9 * FAKE_DEPTH);
	for (int round = 0; round < (test_slowdown() > 1 ? 50 : 300); round++) {
		struct shmq__ring ring = { .geo = b.geo, .mem = b.ring };
		uint64_t seq, word, at = fake_random(&state);
		uint32_t is_bound = 0;

		b.w.next = fake_random(&state) % 2 ? 9 * FAKE_DEPTH + at % 5000 : at;
		b.w.limit = b.w.next + (fake_random(&state) % 2 ? 4096 : ENDLESS);
		b.w.room = b.w.next;
		ring_begin_run(&b.w); /* as each publisher does when it opens */
		scribble(&b, &state);
		for (int k = 0; k < 100; k++) {
			CHECK_LE(look(&b, fake_random(&state)), RING_LAPPED);
			CHECK_LE(look(&b, b.w.next + (uint64_t)k), RING_LAPPED);
		}
		for (int k = 0; k < 20; k++) {
			scribble(&b, &state);
			store_relaxed(&b.ring->tail_hint, b.w.next + (UINT64_C(3) << 61) + at % 9);
			CHECK_LE(shmq__ring_claim(&b.w, &seq, &word), RING_CLAIM_CORRUPT);
			CHECK(!ring_is_in_run(&b.w, b.w.next));
		}
		CHECK_LE(shmq__ring_voids_between(b.ring, at, at + 4096, &is_bound), LAY_VOIDS);
		shmq__ring_void(b.ring, &b.geo, at, fake_random(&state));
		shmq__ring_gone(&b.w, at, fake_random(&state));
		shmq__topic_oldest(&ring, at);
		shmq__topic_head(&ring);
		takeover(&b);
	}
	tear_down(&b);
}
