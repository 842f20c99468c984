/* SPDX-License-Identifier: MIT
 *
 * Single messages and zero-copy, until the ring is full or has ended.
 */
#include "publisher.h"
#include "pub.h"

TEST(a_ring_takes_its_depth_beyond_the_slowest_cursor_at_every_wrap)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_EVICT };

	for (size_t i = 0; i < COUNT(bases) * COUNT(policies) * 2; i++) {
		uint64_t base = bases[i / 6];
		struct scene c = set_up(&(struct fake_options){ .base_seq = base,
								.policy = policies[i / 2 % 3],
								.mode = i % 2 ? SHMQ_SHARED :
										SHMQ_EXCLUSIVE },
					PUB_OPTIONS(.flags = SHMQ_DONTWAIT));

		/* The limit 0 means none: at the wrap one less may be given. */
		CHECK_LE(FAKE_DEPTH - publish_all(c.pub, SHMQ_EFULL), base + FAKE_DEPTH == 0);
		store_release(c.cursor, base + 100);
		CHECK_LE(publish_all(c.pub, SHMQ_EFULL) - 100, base + FAKE_DEPTH == 0);
		CHECK_EQ(head(&c), base + FAKE_DEPTH + 100);
		CHECK_EQ(publish_all(c.pub, SHMQ_EFULL), 0);
		CHECK_EQ(pub_stats(c.pub).sent, FAKE_DEPTH + 100);
		CHECK_EQ(pub_stats(c.pub).sent_bytes, 4 * (FAKE_DEPTH + 100));
		CHECK_EQ(pub_stats(c.pub).dropped, 3);
		CHECK_EQ(pub_stats(c.pub).blocked, 0);
		CHECK_EQ(load_relaxed(&c.f->rec->subscribers), 0); /* nobody was evicted */
		CHECK_EQ(standin_count(c.s, PROTO_REPORT), 0);
		tear_down(&c);
	}
}

TEST(a_lossy_topic_takes_any_number_at_every_wrap_and_the_seqs_go_on)
{
	for (size_t i = 0; i < 2 * COUNT(bases); i++) {
		uint64_t base = bases[i / 2];
		struct scene c = set_up(&(struct fake_options){ .base_seq = base,
								.policy = SHMQ_LOSSY,
								.mode = i % 2 ? SHMQ_SHARED :
										SHMQ_EXCLUSIVE },
					NULL);

		for (uint64_t n = 0; n < 3 * FAKE_DEPTH; n++)
			CHECK_EQ(publish_seq(c.pub), base + n);
		CHECK_EQ(head(&c), base + 3 * FAKE_DEPTH);
		CHECK_EQ(pub_stats(c.pub).dropped, 0);
		CHECK_EQ(pub_stats(c.pub).blocked, 0);
		tear_down(&c);
	}
}

/* Whatever a slot holds is sent by one of several ways to copy it, and nothing else of it
 * is written; lap after lap, by runs that end where the room or the lap does. */
TEST(any_length_is_sent_whole_and_nothing_behind_it_at_every_wrap)
{
	char sent[176], want[192 - sizeof(struct lay_slot)];

	for (size_t i = 0; i < 2 * COUNT(bases); i++) {
		struct scene c = set_up(&(struct fake_options){ .base_seq = bases[i / 2],
								.slot_bytes = 192,
								.mode = i % 2 ? SHMQ_SHARED :
										SHMQ_EXCLUSIVE },
					NULL);

		for (uint64_t n = 0; n < 3 * FAKE_DEPTH; n++) {
			uint64_t seq = bases[i / 2] + n;
			struct lay_slot *s = lay_slot_at(ring(&c, 0), &c.f->geo, seq);
			size_t len = n % (sizeof(sent) + 1);

			store_release(c.cursor, seq - n % 777); /* what is before was read */
			memset(sent, (int)n + 1, sizeof(sent));
			memset(want, 0xee, sizeof(want));
			memset(s + 1, 0xee, sizeof(want));
			for (size_t k = 0; k < len; k++)
				want[k] = sent[k] = (char)(n + k);
			CHECK_OK(shmq_publish(c.pub, sent, len));
			CHECK_EQ(LAY_CTRL_SANS_OWNER(word_of(&c, seq)),
				 LAY_CTRL(lay_lap(&c.f->geo, seq), 0, LAY_COMMITTED));
			CHECK(s->len == len && !s->flags && !s->type);
			CHECK(!memcmp(s + 1, want, sizeof(want)));
			if (!(i % 2)) /* the next goes the shortest way, but for these */
				CHECK_EQ(ring_is_in_run(&c.pub->lane[0].w, seq + 1),
					 seq + 1 != c.pub->lane[0].w.room &&
						 (seq + 1) % FAKE_DEPTH &&
						 (seq + 1) % FAKE_DEPTH <
							 FAKE_DEPTH - RING_PREFETCH);
		}
		CHECK_EQ(head(&c), bases[i / 2] + 3 * FAKE_DEPTH);
		CHECK_EQ(pub_stats(c.pub).sent, 3 * FAKE_DEPTH);
		tear_down(&c);
	}
}

TEST(after_the_end_a_publish_says_so_whichever_way_it_goes)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = 2,
							.max_bytes = 1000,
							.arena_bytes = 1 << 16 },
				NULL);
	struct shmq_msg m = { .data = "m", .len = 1 }, batch[2] = { m, m };
	void *data;

	store_release(&ring(&c, 0)->state, LAY_RING_ENDED);
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EENDED);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 2, 0), SHMQ_EENDED);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 2, SHMQ_ATOMIC), SHMQ_EENDED);
	CHECK_OK(shmq_claim(c.pub, 900, &data));
	CHECK_ERROR(shmq_commit(c.pub, &m), SHMQ_EENDED);
	/* A publish that was not refused would have to be read. */
	store_release(&ring(&c, 0)->state, LAY_RING_ENDING);
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EENDED);
	m.partition = 1;
	store_release(&ring(&c, 1)->state, LAY_RING_MOVED);
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EMOVED);
	store_release(&ring(&c, 1)->state, LAY_RING_MOVING);
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EMOVED);
	tear_down(&c);
}

TEST(a_claim_is_open_once_and_closed_once)
{
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = 1000, .arena_bytes = 1 << 16 }, NULL);
	struct shmq_msg m = { .len = 1001 }, keyed = { .key = "k", .key_len = 1 },
			with = { .properties = "p", .properties_len = 1 },
			there = { .partition = 1 };
	void *data, *again;

	CHECK_ERROR(shmq_commit(c.pub, NULL), SHMQ_ECLAIM);
	CHECK_ERROR(shmq_abort(c.pub), SHMQ_ECLAIM);
	CHECK_ERROR(shmq_claim(c.pub, 1001, &data), SHMQ_ETOOBIG);
	CHECK_OK(shmq_claim(c.pub, 1000, &data));
	CHECK_ERROR(shmq_claim(c.pub, 1, &again), SHMQ_ECLAIM);
	CHECK_ERROR(shmq_commit(c.pub, &m), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_commit(c.pub, &keyed), SHMQ_EOPTION);
	CHECK_ERROR(shmq_commit(c.pub, &with), SHMQ_EOPTION);
	CHECK_ERROR(shmq_commit(c.pub, &there), SHMQ_EOPTION);
	memset(data, 7, 1000);
	m.len = 10; /* shortened so that it would fit a slot: it is where it is */
	CHECK_OK(shmq_commit(c.pub, &m));
	CHECK_EQ(m.seq, 0);
	CHECK_EQ(lay_slot_at(ring(&c, 0), &c.f->geo, 0)->flags, SHMQ_MSG_ARENA);
	CHECK_EQ(lay_slot_at(ring(&c, 0), &c.f->geo, 0)->len, 10);
	CHECK_ERROR(shmq_commit(c.pub, NULL), SHMQ_ECLAIM);
	CHECK_OK(shmq_claim(c.pub, 0, &data));
	CHECK_OK(shmq_commit(c.pub, NULL));
	CHECK_OK(shmq_claim(c.pub, 20, &data));
	CHECK_OK(shmq_abort(c.pub));
	CHECK_ERROR(shmq_abort(c.pub), SHMQ_ECLAIM);
	CHECK_EQ(head(&c), 2);
	tear_down(&c);
}

TEST(an_aborted_claim_gives_its_bytes_back_at_once_or_when_they_come_round)
{
	enum { BYTES = 1024, PIECES = 4 };
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = BYTES, .arena_bytes = PIECES * BYTES },
		       PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	static char bytes[BYTES];
	void *first, *again;

	CHECK_OK(shmq_claim(c.pub, BYTES, &first));
	CHECK_OK(shmq_abort(c.pub));
	CHECK_OK(shmq_claim(c.pub, BYTES, &again));
	CHECK(first == again);
	for (int i = 1; i < PIECES; i++) /* behind it */
		CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	/* Its own bytes come next: it says so. */
	CHECK_ERROR(shmq_publish(c.pub, bytes, BYTES), SHMQ_ECLAIM);
	CHECK_OK(shmq_abort(c.pub));
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	CHECK_ERROR(shmq_publish(c.pub, bytes, BYTES), SHMQ_EFULL); /* unread */
	store_release(c.cursor, 2);
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	CHECK_ERROR(shmq_claim(c.pub, BYTES, &first), SHMQ_EFULL);
	CHECK_EQ(LAY_CTRL_STATE(word_of(&c, 1)), LAY_GONE);
	CHECK_EQ(LAY_CTRL_STATE(word_of(&c, 2)), LAY_COMMITTED);
	CHECK_EQ(pub_stats(c.pub).dropped, 2);
	tear_down(&c);
}

TEST(a_sleeper_is_woken_once_by_whoever_is_to_wake_it)
{
	for (int i = 0; i < 3; i++) {
		/* Nobody else looks at the bell: a thread that is woken does. */
		struct scene c = set_up_served(
			&(struct fake_options){ .flags = i == 2 ? SHMQ_TOPIC_SPIN_ONLY : 0 },
			PUB_OPTIONS(.wake = i == 1 ? SHMQ_WAKE_DEFERRED : 0, .wake_ns = PATIENCE,
				    .wait = SHMQ_WAIT_SLEEP),
			SHMQ_SERVE_CALLER);
		struct lay_bell *bell = &c.f->topic->ring[0].bells->data;

		shmq__bell_arm(bell, SHMQ__FENCE_FULL);
		publish_seq(c.pub);
		publish_seq(c.pub);
		CHECK_EQ(load_relaxed(&bell->word), i == 0);
		CHECK_EQ(pub_stats(c.pub).wakes, i == 0);
		if (i < 2) { /* flush rings for those who defer, too */
			CHECK_ERROR(shmq_flush(c.pub, SHMQ_NOWAIT), SHMQ_ETIMEOUT);
			CHECK_EQ(load_relaxed(&bell->word), 1);
			shmq__bell_arm(bell, SHMQ__FENCE_FULL);
			publish_seq(c.pub);
			shmq_pub_close(c.pub); /* and so does closing */
			CHECK_EQ(load_relaxed(&bell->word), 2);
			c.pub = NULL;
		}
		tear_down(&c);
	}
}

TEST(who_sleeps_in_a_run_is_woken_by_the_next_message_unless_another_woke_it)
{
	for (int i = 0; i < 2; i++) {
		struct scene c =
			set_up_served(i ? &shared : NULL, PUB_OPTIONS(.wait = SHMQ_WAIT_SLEEP),
				      SHMQ_SERVE_CALLER);
		struct lay_bell *bell = &c.f->topic->ring[0].bells->data;

		for (unsigned n = 0; n < 10; n++) {
			CHECK_OK(shmq_publish(c.pub, &n, sizeof(n)));
			CHECK_EQ(load_relaxed(&bell->word), n);
			shmq__bell_arm(bell, SHMQ__FENCE_FULL);
			CHECK_OK(shmq_publish(c.pub, &n, sizeof(n)));
			CHECK_EQ(load_relaxed(&bell->word), n + 1);
			CHECK_EQ(c.pub->lane[0].served, load_relaxed(&bell->armed)); /* it knows */
			shmq__bell_arm(bell, SHMQ__FENCE_FULL);
			store_relaxed(&bell->served, load_relaxed(&bell->armed));
		}
		CHECK_EQ(pub_stats(c.pub).wakes, 10);
		tear_down(&c);
	}
}
