/* SPDX-License-Identifier: MIT
 *
 * What a message may say, and where it goes.
 */
#include "publisher.h"

#include <xxhash.h>

/* A word that no publisher can have left: laps behind what the ring has. */
TEST(a_slot_that_cannot_be_is_corrupt_and_nothing_is_written)
{
	struct scene c = set_up(&shared, NULL);
	struct shmq_msg batch[2] = { { .data = "b", .len = 1 } };
	uint64_t word;

	for (unsigned n = 0; n < FAKE_DEPTH; n++)
		publish_seq(c.pub);
	store_release(c.cursor, FAKE_DEPTH);
	store_release(fake_ctrl(ring(&c, 0), &c.f->geo, 0), LAY_CTRL(UINT64_MAX, 3, LAY_COMMITTED));
	word = word_of(&c, 0);
	CHECK_ERROR(shmq_publish(c.pub, "x", 1), SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 2, SHMQ_ATOMIC), SHMQ_ECORRUPT);
	CHECK_EQ(word_of(&c, 0), word);
	tear_down(&c);
}

TEST(a_message_that_cannot_be_is_refused_and_the_next_goes)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = 2,
							.max_bytes = 1 << 20,
							.arena_bytes = 1 << 22 },
				NULL);
	static char big[(1 << 20) + 1];
	struct iovec endless[2] = { { big, SIZE_MAX - 5 }, { big, 6 } };
	struct shmq_msg m = { .data = big, .len = 1 };

	CHECK_ERROR(shmq_publish(c.pub, big, sizeof(big)), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_publish(c.pub, big, SIZE_MAX), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_publish_iov(c.pub, &m, endless, 2), SHMQ_ETOOBIG);
	endless[0].iov_len = SIZE_MAX - 5;
	m.key = "k";
	m.key_len = 10; /* and META: more than there are numbers */
	CHECK_ERROR(shmq_publish_iov(c.pub, &m, endless, 1), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_publish_iov(c.pub, &m, endless, -1), SHMQ_EOPTION);
	m.key_len = UINT16_MAX + 1;
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EOPTION);
	m.key_len = 0;
	m.properties_len = UINT16_MAX + 1;
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EOPTION);
	m.properties_len = 0;
	m.partition = 2;
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EOPTION);
	m.partition = -2;
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EOPTION);
	CHECK_EQ(head(&c), 0);
	m.partition = 0;
	m.key = m.properties = big;
	m.key_len = m.properties_len = UINT16_MAX;
	CHECK_OK(shmq_publish_msg(c.pub, &m));
	CHECK_OK(shmq_publish_iov(c.pub, &m, NULL, 0));
	CHECK_EQ(head(&c), 2);
	CHECK_EQ(pub_stats(c.pub).dropped, 0);
	tear_down(&c);
}

TEST(the_partition_is_the_one_named_or_the_key_s_or_each_in_turn)
{
	enum { PARTITIONS = 5 };
	struct scene c = set_up(&(struct fake_options){ .partitions = PARTITIONS }, NULL);
	unsigned by_key[PARTITIONS] = { 0 };
	struct shmq_msg batch[7] = { 0 };

	for (int n = 0; n < 2 * PARTITIONS; n++) {
		struct shmq_msg m = { .data = "m", .len = 1, .partition = SHMQ_ANY_PARTITION };

		CHECK_OK(shmq_publish_msg(c.pub, &m));
		CHECK_EQ(m.partition, n % PARTITIONS);
		CHECK_EQ(m.seq, n / PARTITIONS + (m.partition == 3 ? n : 0));
		m = (struct shmq_msg){
			.data = "m", .len = 1, .partition = 3, .key = "k", .key_len = 1
		};
		CHECK_OK(shmq_publish_msg(c.pub, &m));
		CHECK_EQ(m.partition, 3);
	}
	for (int n = 0; n < 500; n++) {
		struct shmq_msg m = { .key = &n,
				      .key_len = sizeof(n),
				      .partition = SHMQ_ANY_PARTITION };
		int32_t first;

		CHECK_OK(shmq_publish_msg(c.pub, &m));
		first = m.partition;
		by_key[first]++;
		m.partition = SHMQ_ANY_PARTITION;
		CHECK_OK(shmq_publish_msg(c.pub, &m));
		CHECK_EQ(m.partition, first);
		for (uint32_t p = 0; p < PARTITIONS; p++) /* everybody reads on */
			store_release(&fake_entry(c.f, c.sub, p)->pos,
				      shmq__topic_head(&c.f->topic->ring[p]));
	}
	for (int p = 0; p < PARTITIONS; p++)
		CHECK_GT(by_key[p], 500 / PARTITIONS / 2);
	for (int i = 0; i < 7; i++)
		batch[i].partition = i == 2 ? 4 : SHMQ_ANY_PARTITION;
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 7, 0), 7);
	for (int i = 0, turn = 0; i < 7; i++)
		CHECK_EQ(batch[i].partition, i == 2 ? 4 : turn++ % PARTITIONS);
	batch[0].partition = SHMQ_ANY_PARTITION;
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 7, SHMQ_ATOMIC), 7);
	for (int i = 0; i < 7; i++)
		CHECK_EQ(batch[i].partition, 6 % PARTITIONS);
	tear_down(&c);
}

static struct lay_slot_extra extra_of(const struct scene *c, uint64_t seq)
{
	const struct lay_slot *slot = lay_slot_at(ring(c, 0), &c->f->geo, seq);
	struct lay_slot_extra extra;

	memcpy(&extra, slot + 1, sizeof(extra));
	return extra;
}

TEST(tags_and_times_are_those_given_or_the_key_s_hash_and_now)
{
	struct scene c = set_up(&(struct fake_options){ .flags = SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME,
							.slot_bytes = 128 },
				NULL);
	struct shmq_msg m = { .key = "key", .key_len = 3 }, batch[3] = { { .ts_ns = 9 } };
	uint64_t then = shmq__clock_realtime_ns();

	CHECK_OK(shmq_publish_msg(c.pub, &m));
	CHECK_EQ(extra_of(&c, 0).tag, XXH3_64bits("key", 3));
	CHECK_GE(extra_of(&c, 0).ts, then);
	CHECK_EQ(m.ts_ns, extra_of(&c, 0).ts);
	m.tag = 5;
	m.ts_ns = 6;
	CHECK_OK(shmq_publish_msg(c.pub, &m));
	CHECK_EQ(extra_of(&c, 1).tag, 5);
	CHECK_EQ(extra_of(&c, 1).ts, 6);
	CHECK_OK(shmq_publish(c.pub, "m", 1));
	CHECK_EQ(extra_of(&c, 2).tag, 0);
	CHECK_GE(extra_of(&c, 2).ts, then);
	/* A batch reads the clock once, and not for who brings a time. */
	for (int atomic = 0; atomic < 2; atomic++) {
		batch[1].ts_ns = batch[2].ts_ns = 0;
		CHECK_EQ(shmq_publish_batch(c.pub, batch, 3, atomic ? SHMQ_ATOMIC : 0), 3);
		CHECK_EQ(extra_of(&c, batch[0].seq).ts, 9);
		CHECK_GE(extra_of(&c, batch[1].seq).ts, then);
		CHECK_EQ(extra_of(&c, batch[2].seq).ts, extra_of(&c, batch[1].seq).ts);
		CHECK_EQ(batch[1].ts_ns, extra_of(&c, batch[1].seq).ts);
	}
	tear_down(&c);
}
