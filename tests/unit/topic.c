/* SPDX-License-Identifier: MIT */
#include "fake.h"
#include "tap.h"

#include "proc.h"
#include "shmem.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const uint64_t bases[] = FAKE_BASES;

static struct fake *fake_at(uint64_t base, enum shmq_mode mode, enum shmq_policy policy)
{
	return fake_new(&(struct fake_options){ .base_seq = base, .mode = mode, .policy = policy });
}

static struct shmq__ring *ring_of(struct fake *f)
{
	return &f->topic->ring[0];
}

static shmq_au64 *word_of(struct fake *f, uint64_t seq)
{
	return fake_ctrl(ring_of(f)->mem, &f->geo, seq);
}

static void set_word(struct fake *f, uint64_t seq, enum lay_state state)
{
	store_release(word_of(f, seq), LAY_CTRL(lay_lap(&f->geo, seq), 1, state));
}

/* ---- attach -------------------------------------------------------------- */

static int attach(struct fake *f, uint32_t index, uint64_t id)
{
	struct shmq__topic *t = NULL;
	int rc = shmq__topic_attach(f->slabs, index, id, SHMQ__SLAB_WRITE, &t);

	CHECK_EQ(!rc, !!t);
	shmq__topic_detach(t);
	return rc;
}

TEST(attach_refuses_a_topic_that_is_not_there)
{
	struct fake *f = fake_new(NULL);

	CHECK_EQ(attach(f, 1, f->topic->id), SHMQ_ENOTOPIC);
	CHECK_EQ(attach(f, UINT32_MAX, f->topic->id), SHMQ_ENOTOPIC);
	CHECK_EQ(attach(f, 0, f->topic->id + 1), SHMQ_ENOTOPIC);
	store_relaxed(&f->rec->state, LAY_TOPIC_CREATING);
	CHECK_EQ(attach(f, 0, f->topic->id), SHMQ_ENOTOPIC);
	store_relaxed(&f->rec->state, LAY_TOPIC_FREE);
	CHECK_EQ(attach(f, 0, f->topic->id), SHMQ_ENOTOPIC);
	store_relaxed(&f->rec->state, LAY_TOPIC_ENDED);
	CHECK_EQ(attach(f, 0, f->topic->id), 0);
	store_relaxed(&f->rec->state, LAY_TOPIC_LIVE);
	CHECK_EQ(attach(f, 0, f->topic->id), 0);
	fake_free(f);
}

TEST(attach_refuses_a_record_or_a_ring_that_cannot_be)
{
	struct fake *f = fake_new(&(struct fake_options){ .partitions = 3 });
	uint64_t id = f->topic->id;
	struct lay_ring *last = f->topic->ring[2].mem;
	lay_ref ref = f->rec->partition_array;

	f->rec->depth++;
	CHECK_EQ(attach(f, 0, id), SHMQ_ECORRUPT);
	f->rec->depth--;
	f->rec->partition_array = 0;
	CHECK_EQ(attach(f, 0, id), SHMQ_ECORRUPT);
	f->rec->partition_array = ref;
	ref = f->partition[2].bells;
	f->partition[2].bells = LAY_REF(FAKE_BELLS, LAY_BELL_SLAB_BYTES - 8);
	CHECK_EQ(attach(f, 0, id), SHMQ_ECORRUPT);
	f->partition[2].bells = LAY_REF(FAKE_RINGS, 0); /* not mapped as a whole */
	CHECK_EQ(attach(f, 0, id), SHMQ_ECORRUPT);
	f->partition[2].bells = ref;
	ref = f->partition[2].ring;
	f->partition[2].ring = f->partition[1].ring;
	CHECK_EQ(attach(f, 0, id), SHMQ_ECORRUPT);
	f->partition[2].ring = LAY_REF(FAKE_RINGS, LAY_BULK_SLAB_BYTES - 4096);
	CHECK_EQ(attach(f, 0, id), SHMQ_ECORRUPT);
	f->partition[2].ring = LAY_REF(999, 4096);
	CHECK_EQ(attach(f, 0, id), SHMQ_ECORRUPT);
	f->partition[2].ring = ref;
	last->magic++;
	CHECK_EQ(attach(f, 0, id), SHMQ_ECORRUPT);
	last->magic--;
	last->version++;
	CHECK_EQ(attach(f, 0, id), SHMQ_EVERSION);
	last->version--;
	last->topic_id++;
	CHECK_EQ(attach(f, 0, id), SHMQ_ECORRUPT);
	last->topic_id--;
	CHECK_EQ(attach(f, 0, id), 0);
	fake_free(f);
}

TEST(attach_of_one_ring_maps_no_other)
{
	struct fake *f = fake_new(&(struct fake_options){ .partitions = 3 });
	uint64_t id = f->topic->id;
	lay_ref ref = f->partition[2].ring;
	struct shmq__topic *t;

	f->partition[2].ring = LAY_REF(999, 4096);
	CHECK_OK(shmq__topic_attach_ring(f->slabs, 0, id, SHMQ__SLAB_READ, 1, &t));
	CHECK_EQ(t->ring[1].mem->partition, 1);
	CHECK(!t->ring[0].mem);
	CHECK(!t->ring[2].mem);
	shmq__topic_detach(t);
	CHECK_EQ(shmq__topic_attach_ring(f->slabs, 0, id, SHMQ__SLAB_READ, 2, &t), SHMQ_ECORRUPT);
	f->partition[2].ring = ref;
	CHECK_EQ(shmq__topic_attach_ring(f->slabs, 0, id, SHMQ__SLAB_READ, 3, &t), SHMQ_EOPTION);
	CHECK_EQ(shmq__topic_attach_ring(f->slabs, 0, id, SHMQ__SLAB_READ, UINT32_MAX, &t),
		 SHMQ_EOPTION);
	fake_free(f);
}

TEST(a_client_that_may_write_nothing_can_look_at_everything)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct fake *f = fake_at(bases[i], SHMQ_SHARED, SHMQ_BLOCK);
		struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
		struct ring_writer w = fake_writer(f, m, 0);
		struct shmq__roster_iter it = { 0 };
		struct shmq__slabs *slabs;
		struct shmq__topic *t = fake_attach_readonly(f, &slabs);
		struct ring_reader r = { .mem = t->ring[0].mem, .geo = t->geo, .next = bases[i] };
		uint64_t word, seq;
		uint32_t is_bound = 0;
		struct lay_member *seen;

		w.limit = bases[i] + 10;
		CHECK_EQ(shmq__ring_claim(&w, &seq, &word), RING_CLAIM_OK);
		fake_put(&w, seq, 4711);
		CHECK_EQ(ring_look(&r, &word), RING_MESSAGE);
		CHECK_EQ(fake_get(&r), 4711);
		CHECK(ring_still(&r, seq, word));
		CHECK_EQ(shmq__topic_head(&t->ring[0]), bases[i] + 1);
		CHECK_EQ(shmq__topic_oldest(&t->ring[0], bases[i]), bases[i]);
		CHECK_EQ(shmq__ring_voids_between(t->ring[0].mem, bases[i], bases[i] + 1,
						  &is_bound),
			 0);
		seen = shmq__topic_next_member(t, &it);
		CHECK(seen);
		CHECK_EQ(seen->token, m->token);
		CHECK(shmq__topic_entry(t, seen, 0));
		CHECK(!shmq__topic_has_ended(t));
		shmq__topic_ring_all(t);
		fake_detach_readonly(t, slabs);
		fake_free(f);
	}
}

/* ---- the roster ------------------------------------------------------------ */

TEST(the_roster_is_walked_over_all_its_chunks)
{
	enum { MEMBERS = 3 * LAY_ROSTER_MEMBERS + 5 };
	struct fake *f = fake_new(NULL);
	unsigned one = fake_client(f, getpid()), gone = fake_client(f, getpid());
	struct lay_member *m[MEMBERS], *seen;
	struct shmq__roster_iter it = { 0 };
	uint32_t epoch = load_relaxed(&f->rec->epoch);

	CHECK(!shmq__topic_next_member(f->topic, &it));
	for (int i = 0; i < MEMBERS; i++) {
		m[i] = fake_member(f, i % 5 == 1 ? gone : one, -1);
		if (i % 7 == 3) /* not published: not there */
			continue;
		shmq__topic_publish_member(f->topic, m[i], LAY_MEMBER_SUBSCRIBER);
		CHECK_EQ(load_relaxed(&f->rec->epoch), ++epoch);
	}
	add_relaxed(&fake_client_record(f, gone)->gen, 1);
	for (int i = 0; i < MEMBERS; i += 9) {
		if (i % 7 == 3)
			continue;
		shmq__topic_remove_member(f->topic, m[i]);
		CHECK_EQ(load_relaxed(&f->rec->epoch), ++epoch);
	}
	it = (struct shmq__roster_iter){ 0 };
	for (int i = 0; i < MEMBERS; i++) {
		if (i % 7 == 3 || i % 5 == 1 || i % 9 == 0)
			continue;
		seen = shmq__topic_next_member(f->topic, &it);
		CHECK(seen == m[i]);
	}
	CHECK(!shmq__topic_next_member(f->topic, &it));
	fake_free(f);
}

/* From any of its chunks to any before. */
TEST(a_roster_that_leads_back_to_itself_has_an_end)
{
	enum { CHUNKS = 9, MEMBERS = CHUNKS * LAY_ROSTER_MEMBERS };
	struct fake *f = fake_new(NULL);
	unsigned client = fake_client(f, getpid());
	struct lay_roster *chunk[CHUNKS];
	lay_ref ref[CHUNKS];

	for (int i = 0; i < MEMBERS; i++)
		fake_subscriber(f, client, SHMQ_FROM_LATEST, 0);
	ref[0] = f->rec->roster;
	for (int i = 0; i < CHUNKS; i++) {
		chunk[i] = shmq__slabs_at(f->slabs, ref[i], sizeof(*chunk[i]));
		if (i + 1 < CHUNKS)
			ref[i + 1] = load_relaxed(&chunk[i]->next);
	}
	for (int from = 0; from < CHUNKS; from++) {
		lay_ref next = load_relaxed(&chunk[from]->next);

		for (int to = 0; to <= from; to++) {
			struct shmq__roster_iter it = { 0 };
			int seen = 0;

			store_relaxed(&chunk[from]->next, ref[to]);
			while (shmq__topic_next_member(f->topic, &it))
				CHECK_LE(++seen, 4 * MEMBERS);
			CHECK_GE(seen, (from + 1) * (int)LAY_ROSTER_MEMBERS);
		}
		store_relaxed(&chunk[from]->next, next);
	}
	fake_free(f);
}

TEST(bells_that_cannot_be_rung_are_refused)
{
	struct fake *f = fake_new(NULL);
	struct shmq__topic *topic;
	struct shmq__slabs *slabs;

	topic = fake_attach_readonly(f, &slabs);
	f->partition[0].bells = LAY_REF(FAKE_ENTRIES, 0); /* which it may only read */
	CHECK_EQ(attach(f, 0, f->topic->id), 0);
	CHECK_EQ(shmq__topic_attach(slabs, 0, f->topic->id, SHMQ__SLAB_READ,
				    &(struct shmq__topic *){ NULL }),
		 SHMQ_ECORRUPT);
	fake_detach_readonly(topic, slabs);
	fake_free(f);
}

TEST(credit_is_held_by_a_member_of_the_last_chunk)
{
	struct fake *f = fake_new(NULL);
	unsigned client = fake_client(f, getpid());
	struct lay_member *pub = fake_publisher(f, client), *last = NULL;
	struct ring_writer w = fake_writer(f, pub, 0);
	struct shmq__credit c;
	int error;

	for (unsigned i = 0; i < 2 * LAY_ROSTER_MEMBERS + 9; i++)
		last = fake_subscriber(f, client, SHMQ_FROM_LATEST, 0);
	shmq__credit_init(&c, f->topic, 0, fake_entry(f, pub, 0));
	CHECK_EQ(shmq__credit_refresh(&c, w.next, 0, &error), FAKE_DEPTH);
	CHECK_EQ(shmq__credit_gaters(&c), 2 * LAY_ROSTER_MEMBERS + 9);
	CHECK_OK(error);
	w.limit = FAKE_DEPTH;
	while (w.next != 100)
		fake_publish(&w, 0);
	for (unsigned i = 0; i < c.count; i++)
		store_release(&c.gater[i].entry->pos, 100);
	store_release(&fake_entry(f, last, 0)->pos, 40);
	CHECK_EQ(shmq__credit_refresh(&c, w.next, 0, &error), FAKE_DEPTH + 40);
	CHECK_EQ(shmq__credit_holder(&c)->token, last->token);
	shmq__credit_fini(&c);
	fake_free(f);
}

TEST(an_entry_is_found_by_partition_and_generation)
{
	struct fake *f = fake_new(&(struct fake_options){ .partitions = 4 });
	unsigned client = fake_client(f, getpid());
	struct lay_member *all = fake_member(f, client, -1), *bound = fake_member(f, client, 2);
	struct lay_entry *e;

	for (uint32_t p = 0; p < 4; p++) {
		CHECK(shmq__topic_entry(f->topic, all, p) ==
		      shmq__topic_entry(f->topic, all, 0) + p);
		CHECK_EQ(!!shmq__topic_entry(f->topic, bound, p), p == 2);
	}
	e = shmq__topic_entry(f->topic, all, 3);
	add_relaxed(&e->gen, 1);
	CHECK(!shmq__topic_entry(f->topic, all, 3));
	CHECK(shmq__topic_entry(f->topic, all, 2));
	all->entry = LAY_REF(FAKE_ENTRIES, LAY_ENTRY_SLAB_BYTES - 64);
	CHECK(!shmq__topic_entry(f->topic, all, 0));
	all->entry = LAY_REF(FAKE_RINGS, 4096); /* not a slab of entries */
	CHECK(!shmq__topic_entry(f->topic, all, 0));
	fake_free(f);
}

/* ---- head and oldest --------------------------------------------------------- */

TEST(head_and_oldest_follow_an_exclusive_publisher_over_every_wrap)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct fake *f = fake_at(bases[i], SHMQ_EXCLUSIVE, SHMQ_LOSSY);
		struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
		struct ring_writer w = fake_writer(f, m, 0);

		w.limit = w.next + (UINT64_C(1) << 62);
		for (uint64_t n = 0; n < 3 * FAKE_DEPTH; n++) {
			uint64_t head = bases[i] + n, floor = bases[i], lost;

			CHECK_EQ(shmq__topic_head(ring_of(f)), head);
			/* What was given up early is whole no longer. */
			lost = w.ahead - bases[i];
			if (n && lost > FAKE_DEPTH)
				floor += lost - FAKE_DEPTH;
			CHECK_EQ(shmq__topic_oldest(ring_of(f), bases[i]), floor);
			if (n > 3)
				CHECK_EQ(shmq__topic_oldest(ring_of(f), head - 2), head - 2);
			ring_make_room(&w, 1, 1);
			fake_publish(&w, n);
			if (n % RING_HINT_EVERY == 0)
				store_relaxed(&w.mem->tail_hint, w.next);
		}
		fake_free(f);
	}
}

/* A reader that read the hint and was then not run for a lap. */
TEST(head_is_exact_from_a_hint_laps_ago)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct fake *f = fake_at(bases[i], SHMQ_EXCLUSIVE, SHMQ_LOSSY);
		struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
		struct ring_writer w = fake_writer(f, m, 0);

		w.limit = w.next + (UINT64_C(1) << 62);
		for (uint64_t n = 0; n < 2 * FAKE_DEPTH + 50; n++) {
			ring_make_room(&w, 1, 1);
			fake_publish(&w, n);
			CHECK_EQ(shmq__topic_head(ring_of(f)), w.next);
		}
		fake_free(f);
	}
}

TEST(head_stops_before_an_unfinished_batch_also_from_a_hint_a_lap_ago)
{
	struct fake *f = fake_at(0, SHMQ_EXCLUSIVE, SHMQ_BLOCK);
	struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
	struct ring_writer w = fake_writer(f, m, 0);

	w.limit = 4 * FAKE_DEPTH;
	while (w.next != FAKE_DEPTH - 100)
		fake_publish(&w, 0);
	for (uint64_t n = 0; n < FAKE_DEPTH / 4 - 1; n++) /* last to first, not the first */
		set_word(f, w.next + FAKE_DEPTH / 4 - 1 - n, LAY_COMMITTED);
	CHECK_EQ(shmq__topic_head(ring_of(f)), w.next);
	store_relaxed(&w.mem->tail_hint, 0); /* its slot is a member, a lap on */
	CHECK_EQ(LAY_CTRL_LAP(load_relaxed(word_of(f, 0))), 1);
	CHECK_EQ(shmq__topic_head(ring_of(f)), w.next);
	fake_free(f);
}

TEST(head_counts_claims_of_shared_publishers)
{
	struct fake *f = fake_at(0, SHMQ_SHARED, SHMQ_BLOCK);
	struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
	struct ring_writer w = fake_writer(f, m, 0);
	uint64_t seq, word;

	w.limit = 3 * FAKE_DEPTH;
	for (uint64_t n = 0; n < 2 * FAKE_DEPTH; n++) {
		CHECK_EQ(shmq__ring_claim(&w, &seq, &word), RING_CLAIM_OK);
		CHECK_EQ(shmq__topic_head(ring_of(f)), seq + 1);
		fake_put(&w, seq, n);
		CHECK_EQ(shmq__topic_head(ring_of(f)), seq + 1);
	}
	fake_free(f);
}

/* Where the arena is smaller than the ring, most of the ring may be GONE: a
 * subscriber from the oldest was told of losses from before its time. */
TEST(oldest_skips_messages_whose_bytes_are_gone)
{
	struct fake *f = fake_at(0, SHMQ_EXCLUSIVE, SHMQ_BLOCK);
	struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
	struct ring_writer w = fake_writer(f, m, 0);

	w.limit = FAKE_DEPTH;
	while (w.next != 50)
		fake_publish(&w, 0);
	for (uint64_t n = 0; n < 20; n++)
		set_word(f, n, LAY_GONE);
	CHECK_EQ(shmq__topic_oldest(ring_of(f), 0), 20);
	CHECK_EQ(shmq__topic_oldest(ring_of(f), 19), 20);
	CHECK_EQ(shmq__topic_oldest(ring_of(f), 30), 30);
	CHECK_EQ(shmq__topic_oldest(ring_of(f), 50), 50);
	CHECK_EQ(shmq__topic_oldest(ring_of(f), 90), 50);
	fake_free(f);
}

/* ---- joining -------------------------------------------------------------------- */

static uint64_t start(struct fake *f, enum shmq_from from, uint64_t seq)
{
	unsigned client = fake_client(f, getpid());
	struct lay_member *m = fake_subscriber(f, client, from, seq);
	uint64_t pos = load_relaxed(&fake_entry(f, m, 0)->pos);

	CHECK_EQ(m->start, pos);
	shmq__topic_remove_member(f->topic, m);
	return pos;
}

TEST(joiner_of_an_empty_topic_starts_at_its_first_seq)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct fake *f = fake_at(bases[i], SHMQ_SHARED, SHMQ_BLOCK);

		CHECK_EQ(start(f, SHMQ_FROM_LATEST, 0), bases[i]);
		CHECK_EQ(start(f, SHMQ_FROM_OLDEST, 0), bases[i]);
		CHECK_EQ(start(f, SHMQ_FROM_SEQ, bases[i] + 5), bases[i]);
		CHECK_EQ(start(f, SHMQ_FROM_SEQ, bases[i] - 5), bases[i]);
		fake_free(f);
	}
}

TEST(joiner_starts_at_latest_oldest_or_seq_without_a_publisher)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct fake *f = fake_at(bases[i], SHMQ_EXCLUSIVE, SHMQ_BLOCK);
		struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
		struct ring_writer w = fake_writer(f, m, 0);
		uint64_t base = bases[i], head = base + FAKE_DEPTH + 100;

		w.limit = head;
		while (w.next != head)
			fake_publish(&w, 0);
		shmq__topic_remove_member(f->topic, m);
		CHECK_EQ(start(f, SHMQ_FROM_LATEST, 0), head);
		CHECK_EQ(start(f, SHMQ_FROM_OLDEST, 0), base + 100);
		CHECK_EQ(start(f, SHMQ_FROM_SEQ, base + 500), base + 500);
		CHECK_EQ(start(f, SHMQ_FROM_SEQ, base + 10), base + 100);
		CHECK_EQ(start(f, SHMQ_FROM_SEQ, head - 1), head - 1);
		CHECK_EQ(start(f, SHMQ_FROM_SEQ, head + 7), head);
		fake_free(f);
	}
}

/* What a publisher may write any moment is not promised to anybody. */
TEST(joiner_starts_behind_what_publishers_may_overwrite)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct fake *f = fake_at(bases[i], SHMQ_SHARED, SHMQ_BLOCK);
		struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
		struct lay_member *other = fake_publisher(f, fake_client(f, getpid()));
		struct ring_writer w = fake_writer(f, m, 0);
		uint64_t base = bases[i], head = base + 2 * FAKE_DEPTH, seq, word;
		uint64_t limit = head + FAKE_DEPTH / 8;

		w.limit = limit + !limit;
		for (seq = base; seq + 1 != head;) {
			CHECK_EQ(shmq__ring_claim(&w, &seq, &word), RING_CLAIM_OK);
			fake_put(&w, seq, seq);
		}
		store_relaxed(&fake_entry(f, m, 0)->limit, limit - 60);
		store_relaxed(&fake_entry(f, other, 0)->limit, limit);
		CHECK_EQ(start(f, SHMQ_FROM_OLDEST, 0), limit - FAKE_DEPTH);
		store_relaxed(&fake_entry(f, m, 0)->limit, limit);
		store_relaxed(&fake_entry(f, other, 0)->limit, limit - 50);
		CHECK_EQ(start(f, SHMQ_FROM_OLDEST, 0), limit - FAKE_DEPTH);
		CHECK_EQ(start(f, SHMQ_FROM_SEQ, head - FAKE_DEPTH), limit - FAKE_DEPTH);
		CHECK_EQ(start(f, SHMQ_FROM_SEQ, head - 3), head - 3);
		CHECK_EQ(start(f, SHMQ_FROM_LATEST, 0), head);
		/* The dead write no more. */
		add_relaxed(&fake_client_record(f, m->client)->gen, 1);
		CHECK_EQ(start(f, SHMQ_FROM_OLDEST, 0), limit - 50 - FAKE_DEPTH);
		shmq__topic_remove_member(f->topic, other);
		CHECK_EQ(start(f, SHMQ_FROM_OLDEST, 0), head - FAKE_DEPTH);
		fake_free(f);
	}
}

TEST(a_mad_limit_sends_a_joiner_no_further_than_the_head)
{
	static const uint64_t mad[] = {
		UINT64_MAX, UINT64_C(1) << 63, (UINT64_C(1) << 63) - 1, UINT64_C(1) << 62, 5000, 3
	};

	for (size_t i = 0; i < COUNT(mad); i++) {
		struct fake *f = fake_at(1000, SHMQ_EXCLUSIVE, SHMQ_BLOCK);
		struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
		struct ring_writer w = fake_writer(f, m, 0);
		uint64_t pos;

		w.limit = 2000;
		while (w.next != 1100)
			fake_publish(&w, 0);
		store_relaxed(&fake_entry(f, m, 0)->limit, mad[i]);
		pos = start(f, SHMQ_FROM_OLDEST, 0);
		CHECK_GE(pos, 1000);
		CHECK_LE(pos, 1100);
		CHECK_EQ(start(f, SHMQ_FROM_LATEST, 0), 1100);
		pos = start(f, SHMQ_FROM_SEQ, 1050);
		CHECK_GE(pos, 1050);
		CHECK_LE(pos, 1100);
		fake_free(f);
	}
}

TEST(limits_do_not_move_a_joiner_of_a_lossy_topic)
{
	struct fake *f = fake_at(0, SHMQ_EXCLUSIVE, SHMQ_LOSSY);
	struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
	struct ring_writer w = fake_writer(f, m, 0);

	w.limit = 100;
	while (w.next != 100)
		fake_publish(&w, 0);
	store_relaxed(&fake_entry(f, m, 0)->limit, FAKE_DEPTH + 50);
	CHECK_EQ(start(f, SHMQ_FROM_OLDEST, 0), 0);
	fake_free(f);
}

TEST(joiner_of_one_partition_gets_that_start_and_rings_its_publishers)
{
	struct fake *f = fake_new(&(struct fake_options){ .partitions = 3, .base_seq = 10 });
	struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
	struct lay_member *one = fake_member(f, m->client, 1), *all = fake_member(f, m->client, -1);

	for (uint32_t p = 0; p < 3; p++) {
		struct ring_writer w = fake_writer(f, m, p);

		w.limit = 1000;
		while (w.next != 10 + 5 * (p + 1))
			fake_publish(&w, 0);
		shmq__bell_arm(&f->topic->ring[p].bells->credit, SHMQ__FENCE_FULL);
	}
	shmq__topic_publish_member(f->topic, one, LAY_MEMBER_SUBSCRIBER);
	shmq__topic_join(f->topic, one, SHMQ_FROM_LATEST, 0);
	CHECK_EQ(load_relaxed(&fake_entry(f, one, 1)->pos), 20);
	CHECK_EQ(one->start, 20);
	CHECK_EQ(load_relaxed(&f->topic->ring[0].bells->credit.word), 0);
	CHECK_EQ(load_relaxed(&f->topic->ring[1].bells->credit.word), 1);
	shmq__topic_publish_member(f->topic, all, LAY_MEMBER_SUBSCRIBER);
	shmq__topic_join(f->topic, all, SHMQ_FROM_LATEST, 0);
	for (uint32_t p = 0; p < 3; p++) {
		CHECK_EQ(load_relaxed(&fake_entry(f, all, p)->pos), 10 + 5 * (p + 1));
		CHECK_EQ(load_relaxed(&f->topic->ring[p].bells->credit.word), 1);
	}
	CHECK_EQ(all->start, 15);
	fake_free(f);
}

TEST(the_recorded_start_of_many_partitions_is_the_lowest_over_the_wrap)
{
	uint64_t base = UINT64_C(0) - 3;
	struct fake *f = fake_new(&(struct fake_options){ .partitions = 2, .base_seq = base });
	struct lay_member *m = fake_publisher(f, fake_client(f, getpid())), *sub;
	struct ring_writer w = fake_writer(f, m, 1);

	w.limit = 100;
	while (w.next != 5)
		fake_publish(&w, 0);
	sub = fake_subscriber(f, m->client, SHMQ_FROM_LATEST, 0);
	CHECK_EQ(sub->start, base);
	CHECK_EQ(load_relaxed(&fake_entry(f, sub, 1)->pos), 5);
	fake_free(f);
}

/* ---- the end --------------------------------------------------------------------- */

TEST(an_ended_topic_says_so_to_everybody)
{
	struct fake *f = fake_new(&(struct fake_options){ .partitions = 2 });
	uint32_t epoch = load_relaxed(&f->rec->epoch);

	for (uint32_t p = 0; p < 2; p++) {
		shmq__bell_arm(&f->topic->ring[p].bells->data, SHMQ__FENCE_FULL);
		shmq__bell_arm(&f->topic->ring[p].bells->credit, SHMQ__FENCE_FULL);
	}
	CHECK(!shmq__topic_has_ended(f->topic));
	shmq__topic_end(f->topic);
	CHECK(shmq__topic_has_ended(f->topic));
	CHECK_NE(load_relaxed(&f->rec->epoch), epoch);
	for (uint32_t p = 0; p < 2; p++) {
		struct lay_bells *bells = f->topic->ring[p].bells;

		CHECK_EQ(load_relaxed(&f->topic->ring[p].mem->state), LAY_RING_ENDED);
		CHECK_EQ(load_relaxed(&bells->data.word), 1);
		CHECK_EQ(load_relaxed(&bells->credit.word), 1);
	}
	fake_free(f);
}

static struct lay_ring *closing[2];
static unsigned told;

static void protect(const struct lay_ring *ring, int how)
{
	if (mprotect((void *)(uintptr_t)ring, LAY_RING_HEADER_BYTES, how))
		_exit(2);
}

/* The header of one ring is written: the other's says already what comes before,
 * and is the next to be caught. */
static void on_write(int sig)
{
	static const struct {
		unsigned written;
		uint32_t other;
	} expected[] = { { 1, LAY_RING_ENDING }, { 0, LAY_RING_ENDED } };

	(void)sig;
	if (told == COUNT(expected) ||
	    load_relaxed(&closing[!expected[told].written]->state) != expected[told].other)
		_exit(1);
	protect(closing[expected[told].written], PROT_READ | PROT_WRITE);
	if (!told++)
		protect(closing[0], PROT_READ);
}

/* Subscribers of all partitions look at the first alone.  Were it told before
 * the others, what is still published to those would be read by nobody; were one
 * told before publishers are refused in all, so would what they sent to that. */
TEST(all_partitions_are_about_to_end_before_one_did_and_the_first_is_the_last)
{
	struct fake *f = fake_new(&(struct fake_options){ .partitions = 2 });

	closing[0] = f->topic->ring[0].mem;
	closing[1] = f->topic->ring[1].mem;
	/* N3 of the second comes after that of the first. */
	store_release(&closing[1]->state, LAY_RING_ENDING);
	signal(SIGSEGV, on_write);
	protect(closing[1], PROT_READ);
	shmq__topic_end(f->topic);
	signal(SIGSEGV, SIG_DFL);
	CHECK_EQ(told, 2);
	for (unsigned p = 0; p < 2; p++)
		CHECK_EQ(load_relaxed(&closing[p]->state), LAY_RING_ENDED);
	fake_free(f);
}

TEST(rings_that_were_left_say_so_after_the_end_too)
{
	static const struct {
		enum lay_ring_state was, moved, ended;
	} cases[] = {
		{ LAY_RING_LIVE, LAY_RING_MOVED, LAY_RING_ENDED },
		{ LAY_RING_ENDING, LAY_RING_MOVED, LAY_RING_ENDED },
		{ LAY_RING_MOVING, LAY_RING_MOVED, LAY_RING_MOVED },
		{ LAY_RING_MOVED, LAY_RING_MOVED, LAY_RING_MOVED },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct fake *f = fake_new(NULL);
		shmq_au32 *state = &f->topic->ring[0].mem->state;

		store_release(state, cases[i].was);
		shmq__topic_close_rings(f->topic, LAY_RING_MOVED);
		CHECK_EQ(load_relaxed(state), cases[i].moved);
		store_release(state, cases[i].was);
		shmq__topic_end(f->topic);
		CHECK_EQ(load_relaxed(state), cases[i].ended);
		fake_free(f);
	}
}

TEST(a_record_given_to_another_topic_has_ended_for_the_old_one)
{
	struct fake *f = fake_new(NULL);

	f->rec->id++;
	CHECK(shmq__topic_has_ended(f->topic));
	f->rec->id--;
	CHECK(!shmq__topic_has_ended(f->topic));
	fake_free(f);
}

TEST(what_was_read_of_a_record_is_of_a_topic_that_is_still_there_or_is_refused)
{
	struct fake *f = fake_new(NULL);
	uint64_t id;

	CHECK_EQ(shmq__topic_look(f->rec, &id), LAY_TOPIC_LIVE);
	CHECK_EQ(id, f->topic->id);
	CHECK(shmq__topic_is_still(f->rec, id));
	store_relaxed(&f->rec->state, LAY_TOPIC_ENDED);
	CHECK(shmq__topic_is_still(f->rec, id));
	store_relaxed(&f->rec->state, LAY_TOPIC_FREE);
	CHECK(!shmq__topic_is_still(f->rec, id));
	store_relaxed(&f->rec->state, LAY_TOPIC_CREATING);
	CHECK(!shmq__topic_is_still(f->rec, id));
	f->rec->id++;
	store_relaxed(&f->rec->state, LAY_TOPIC_LIVE);
	CHECK(!shmq__topic_is_still(f->rec, id));
	fake_free(f);
}
