/* SPDX-License-Identifier: MIT
 *
 * Batches that go whole, in part, or not at all.
 */
#include "publisher.h"

TEST(a_batch_goes_as_far_as_it_can_or_not_at_all)
{
	struct scene c = set_up(NULL, PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	struct shmq_msg batch[FAKE_DEPTH + 1];

	fill_batch(batch, COUNT(batch), 40);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 1, 2), SHMQ_EOPTION);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 0, 0), 0);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 0, SHMQ_ATOMIC), 0);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, FAKE_DEPTH / 4 + 1, SHMQ_ATOMIC), SHMQ_EBATCH);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 1, SHMQ_ATOMIC), SHMQ_ETOOBIG);
	fill_batch(batch, COUNT(batch), 32); /* what the prefix leaves */
	batch[3].len = 33;
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC), SHMQ_ETOOBIG);
	batch[3].len = 49;
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 10, 0), 3);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch + 3, 7, 0), SHMQ_ETOOBIG);
	batch[3].len = 32;
	CHECK_EQ(head(&c), 3);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, FAKE_DEPTH / 4, SHMQ_ATOMIC), FAKE_DEPTH / 4);
	CHECK_EQ(batch[0].seq, 3);
	CHECK_EQ(batch[FAKE_DEPTH / 4 - 1].seq, 3 + FAKE_DEPTH / 4 - 1);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, COUNT(batch), 0),
		 FAKE_DEPTH - FAKE_DEPTH / 4 - 3);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 5, 0), SHMQ_EFULL);
	store_release(c.cursor, 3);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC), SHMQ_EFULL);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 3, SHMQ_ATOMIC), 3);
	tear_down(&c);
}

/* Two that hold half of what the other needs would wait for ever. */
TEST(a_shared_batch_that_meets_its_limit_gives_back_what_it_claimed)
{
	struct scene c = set_up(&shared, PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	shmq_pub *other = open_pub(c.bus, STANDIN_TOPIC);
	struct shmq_msg batch[100];

	fill_batch(batch, COUNT(batch), 1);
	CHECK_EQ(publish_seq(c.pub), 0); /* its limit is known, where it is is not */
	for (unsigned n = 1; n < FAKE_DEPTH - 50; n++)
		publish_seq(other);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 100, SHMQ_ATOMIC), SHMQ_EFULL);
	/* 50 were claimed on the way: holes now, that nobody counts as lost. */
	CHECK_EQ(load_relaxed(&ring(&c, 0)->void_count), 50);
	for (uint64_t n = FAKE_DEPTH - 50; n < FAKE_DEPTH; n++)
		CHECK_EQ(LAY_CTRL_STATE(word_of(&c, n)), LAY_VOID);
	CHECK_EQ(pub_stats(c.pub).dropped, 1);
	store_release(c.cursor, FAKE_DEPTH);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 100, SHMQ_ATOMIC), 100);
	CHECK_EQ(batch[0].seq, FAKE_DEPTH);
	shmq_pub_close(other);
	tear_down(&c);
}

/* A limit of 0 was taken for none, and never came. */
/* What others sent may stand behind the claim that it slept at. */
TEST(who_sleeps_at_a_claim_that_is_given_back_is_woken_by_deferring_publishers_too)
{
	struct scene c =
		set_up(&shared, PUB_OPTIONS(.flags = SHMQ_DONTWAIT, .wake = SHMQ_WAKE_DEFERRED));
	shmq_pub *other = open_pub(c.bus, STANDIN_TOPIC);
	struct shmq_msg batch[100];
	struct lay_bell *bell = &c.f->topic->ring[0].bells->data;
	uint32_t word;

	fill_batch(batch, COUNT(batch), 1);
	CHECK_EQ(publish_seq(c.pub), 0);
	for (unsigned n = 1; n < FAKE_DEPTH - 50; n++)
		publish_seq(other);
	add_relaxed(&bell->armed, 1);
	word = load_relaxed(&bell->word);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 100, SHMQ_ATOMIC), SHMQ_EFULL);
	CHECK_EQ(load_relaxed(&ring(&c, 0)->void_count), 50);
	CHECK_NE(load_relaxed(&bell->word), word);
	shmq_pub_close(other);
	tear_down(&c);
}

TEST(where_the_sequence_wraps_a_batch_needs_nobody_and_a_flush_ends)
{
	struct fake_options o = { .base_seq = UINT64_C(0) - 200 };
	struct scene c = set_up(&o, PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	struct shmq_msg batch[200];

	fill_batch(batch, COUNT(batch), 1);
	shmq__topic_remove_member(c.f->topic, c.sub);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 200, SHMQ_ATOMIC), 200);
	CHECK_EQ(batch[199].seq, UINT64_MAX);
	tear_down(&c);
	o.base_seq = UINT64_C(0) - FAKE_DEPTH - 1;
	c = set_up(&o, NULL);
	CHECK_EQ(publish_seq(c.pub), o.base_seq);
	store_release(c.cursor, o.base_seq + 1);
	CHECK_OK(shmq_flush(c.pub, SHMQ_NOWAIT));
	tear_down(&c);
}

TEST(a_batch_that_finds_no_memory_sends_nothing_and_the_next_goes)
{
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = 1000, .arena_bytes = 1 << 20 }, NULL);
	struct shmq_msg batch[100];
	unsigned k;
	int met = 1;

	fill_batch(batch, COUNT(batch), 1000);
	for (k = 1; met; k++) {
		ssize_t rc;

		scarce_begin(k);
		rc = shmq_publish_batch(c.pub, batch, COUNT(batch), SHMQ_ATOMIC);
		met = scarce_end();
		CHECK_EQ(rc, met ? -ENOMEM : (ssize_t)COUNT(batch));
		CHECK_EQ(head(&c), met ? 0 : COUNT(batch));
	}
	CHECK_GE(k, 4); /* the batch, the arena's book and more of it */
	tear_down(&c);
}
