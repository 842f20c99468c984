/* SPDX-License-Identifier: MIT */
#include "latency.h"
#include "helpers.h"

#include <stdlib.h>

static struct shmq__latency *fresh(void)
{
	struct shmq__latency *h = malloc(sizeof(*h));

	CHECK(h);
	shmq__latency_reset(h);
	return h;
}

TEST(every_number_is_in_a_bucket_that_is_a_thirty_second_part_of_it_wide)
{
	uint64_t n, least, width;
	unsigned shift, i, bucket;

	for (shift = 0; shift < 64; shift++)
		for (i = 0; i < 200; i++) {
			n = (UINT64_C(1) << shift) + mix(i) % (UINT64_C(1) << shift);
			bucket = shmq__latency_bucket(n);
			CHECK_LT(bucket, LATENCY_BUCKETS);
			least = shmq__latency_least(bucket);
			width = shmq__latency_least(bucket + 1) - least;
			CHECK_LE(least, n);
			CHECK_LT(n - least, width);
			CHECK(n < 64 ? width == 1 : width <= least / 32);
			CHECK_EQ(shmq__latency_bucket(least), bucket);
		}
	CHECK_EQ(shmq__latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
	CHECK_EQ(shmq__latency_least(LATENCY_BUCKETS), 0); /* one beyond all */
}

TEST(buckets_follow_each_other_without_a_gap)
{
	unsigned i;

	for (i = 1; i < LATENCY_BUCKETS; i++) {
		CHECK_GT(shmq__latency_least(i), shmq__latency_least(i - 1));
		CHECK_EQ(shmq__latency_bucket(shmq__latency_least(i) - 1), i - 1);
	}
}

TEST(of_nothing_there_is_no_percentile)
{
	struct shmq__latency *h = fresh();
	uint64_t ns[4] = { 1, 1, 1, 1 };

	CHECK_EQ(shmq__latency_at(h, 0.5), 0);
	CHECK_EQ(shmq__latency_pack(h), 0);
	shmq__latency_unpack(0, ns);
	CHECK_EQ(ns[0] | ns[1] | ns[2] | ns[3], 0);
	free(h);
}

TEST(percentiles_are_as_exact_as_the_buckets)
{
	struct shmq__latency *h = fresh();
	uint64_t n, ns[4];

	for (n = 1; n <= 100000; n++)
		shmq__latency_count(h, n);
	CHECK_EQ(load_relaxed(&h->count), 100000);
	CHECK_EQ(load_relaxed(&h->sum), UINT64_C(100000) * 100001 / 2);
	CHECK_EQ(load_relaxed(&h->least), 1);
	CHECK_EQ(load_relaxed(&h->most), 100000);
	CHECK_EQ(shmq__latency_at(h, 0), 1);
	CHECK_EQ(shmq__latency_at(h, 0.0001), 10);
	CHECK_EQ(shmq__latency_at(h, 1), 100000); /* no longer than the longest */
	CHECK_GE(shmq__latency_at(h, 0.5), 50000);
	CHECK_LE(shmq__latency_at(h, 0.5), 50000 + 50000 / 32);
	CHECK_GE(shmq__latency_at(h, 0.999), 99900);
	shmq__latency_unpack(shmq__latency_pack(h), ns);
	CHECK_EQ(ns[0], shmq__latency_at(h, 0.5));
	CHECK_GE(ns[1], shmq__latency_at(h, 0.99)); /* by its bucket alone */
	CHECK_LE(ns[1], 99000 + 99000 / 32);
	CHECK_GE(ns[2], 99900);
	CHECK_GE(ns[3], 100000);
	CHECK_LE(ns[3], 100000 + 100000 / 32);
	free(h);
}

TEST(one_long_one_does_not_move_the_middle)
{
	struct shmq__latency *h = fresh();
	unsigned i;

	for (i = 0; i < 999; i++)
		shmq__latency_count(h, 100);
	shmq__latency_count(h, UINT64_MAX);
	CHECK_GE(shmq__latency_at(h, 0.999), 100);
	CHECK_LE(shmq__latency_at(h, 0.999), 103);
	CHECK_EQ(shmq__latency_at(h, 1), UINT64_MAX);
	free(h);
}

TEST(a_word_that_no_library_writes_is_read_as_nothing)
{
	uint64_t ns[4];

	shmq__latency_unpack(UINT64_MAX, ns);
	CHECK_EQ(ns[0] | ns[1] | ns[2] | ns[3], 0);
	shmq__latency_unpack((uint64_t)LATENCY_BUCKETS << 48, ns);
	CHECK_EQ(ns[3], UINT64_MAX);
}
