/* SPDX-License-Identifier: MIT */
#include "tap.h"

#include <errno.h>
#include <stdlib.h>

#include "extent.h"

struct seen {
	uint64_t off[64], bytes[64];
	size_t count;
};

static void see(uint64_t off, uint64_t bytes, void *arg)
{
	struct seen *seen = arg;

	CHECK_LT(seen->count, 64);
	seen->off[seen->count] = off;
	seen->bytes[seen->count++] = bytes;
}

static struct seen look(const struct extent *e)
{
	struct seen seen = { .count = 0 };

	extent_each_free(e, see, &seen);
	return seen;
}

static struct extent *make(uint64_t bytes)
{
	struct extent *e;

	CHECK_OK(extent_create(bytes, &e));
	return e;
}

TEST(fresh_set_is_one_free_range)
{
	struct extent *e = make(4096);
	struct seen seen = look(e);

	CHECK_EQ(seen.count, 1);
	CHECK_EQ(seen.off[0], 0);
	CHECK_EQ(seen.bytes[0], 4096);
	CHECK_EQ(extent_bytes(e), 4096);
	CHECK_EQ(extent_free_bytes(e), 4096);
	extent_destroy(e);
	CHECK_EQ(extent_create(0, &e), -EINVAL);
	extent_destroy(NULL);
}

TEST(alloc_takes_the_first_range_that_fits)
{
	struct extent *e = make(1000);
	uint64_t off;

	CHECK_OK(extent_alloc(e, 100, 1, &off));
	CHECK_EQ(off, 0);
	CHECK_OK(extent_alloc(e, 100, 1, &off));
	CHECK_EQ(off, 100);
	CHECK_OK(extent_free(e, 0, 100));
	CHECK_OK(extent_alloc(e, 200, 1, &off));
	CHECK_EQ(off, 200);
	CHECK_OK(extent_alloc(e, 100, 1, &off));
	CHECK_EQ(off, 0);
	CHECK_EQ(extent_alloc(e, 601, 1, &off), -ENOSPC);
	CHECK_OK(extent_alloc(e, 600, 1, &off));
	CHECK_EQ(extent_alloc(e, 1, 1, &off), -ENOSPC);
	CHECK_EQ(extent_free_bytes(e), 0);
	CHECK_EQ(look(e).count, 0);
	extent_destroy(e);
}

TEST(alloc_aligns_and_leaves_the_gap_free)
{
	struct extent *e = make(1 << 20);
	struct seen seen;
	uint64_t off;

	CHECK_OK(extent_take(e, 0, 100));
	CHECK_OK(extent_alloc(e, 4096, 4096, &off));
	CHECK_EQ(off, 4096);
	seen = look(e);
	CHECK_EQ(seen.count, 2);
	CHECK_EQ(seen.off[0], 100);
	CHECK_EQ(seen.bytes[0], 3996);
	CHECK_OK(extent_alloc(e, 3996, 4, &off));
	CHECK_EQ(off, 100);
	CHECK_EQ(extent_alloc(e, 8, 3, &off), -EINVAL);
	CHECK_EQ(extent_alloc(e, 0, 1, &off), -EINVAL);
	extent_destroy(e);
}

TEST(take_marks_a_known_range_and_refuses_one_in_use)
{
	struct extent *e = make(1000);
	struct seen seen;

	CHECK_OK(extent_take(e, 300, 100));
	CHECK_EQ(extent_take(e, 300, 100), -EEXIST);
	CHECK_EQ(extent_take(e, 250, 51), -EEXIST);
	CHECK_EQ(extent_take(e, 399, 1), -EEXIST);
	CHECK_EQ(extent_take(e, 0, 1000), -EEXIST);
	CHECK_OK(extent_take(e, 400, 600));
	CHECK_OK(extent_take(e, 250, 50));
	seen = look(e);
	CHECK_EQ(seen.count, 1);
	CHECK_EQ(seen.off[0], 0);
	CHECK_EQ(seen.bytes[0], 250);
	extent_destroy(e);
}

TEST(free_merges_with_both_neighbours)
{
	struct extent *e = make(400);
	uint64_t off;
	int i;

	for (i = 0; i < 4; i++)
		CHECK_OK(extent_alloc(e, 100, 1, &off));
	CHECK_OK(extent_free(e, 0, 100));
	CHECK_OK(extent_free(e, 200, 100));
	CHECK_EQ(look(e).count, 2);
	CHECK_OK(extent_free(e, 100, 100));
	CHECK_EQ(look(e).count, 1);
	CHECK_EQ(look(e).bytes[0], 300);
	CHECK_OK(extent_free(e, 300, 100));
	CHECK_EQ(look(e).count, 1);
	CHECK_EQ(extent_free_bytes(e), 400);
	extent_destroy(e);
}

TEST(free_of_what_is_free_is_refused)
{
	struct extent *e = make(1000);

	CHECK_EQ(extent_free(e, 0, 1), -EEXIST);
	CHECK_OK(extent_take(e, 100, 100));
	CHECK_EQ(extent_free(e, 99, 2), -EEXIST);
	CHECK_EQ(extent_free(e, 199, 2), -EEXIST);
	CHECK_EQ(extent_free(e, 0, 1000), -EEXIST);
	CHECK_OK(extent_free(e, 100, 100));
	CHECK_EQ(extent_free(e, 100, 100), -EEXIST);
	CHECK_EQ(extent_free_bytes(e), 1000);
	extent_destroy(e);
}

TEST(sums_that_would_wrap_are_refused)
{
	struct extent *e = make(UINT64_MAX);
	uint64_t off;

	CHECK_EQ(extent_take(e, UINT64_MAX, 1), -EINVAL);
	CHECK_EQ(extent_take(e, 4096, UINT64_MAX - 4095), -EINVAL);
	CHECK_EQ(extent_free(e, 4096, UINT64_MAX), -EINVAL);
	CHECK_EQ(extent_take(e, 1, 0), -EINVAL);
	CHECK_OK(extent_take(e, 0, 1));
	/* The aligned start is there, but the range would end beyond 2^64. */
	CHECK_EQ(extent_alloc(e, UINT64_MAX - 1, UINT64_C(1) << 63, &off), -ENOSPC);
	CHECK_OK(extent_take(e, UINT64_C(1) << 63, 1));
	CHECK_EQ(extent_alloc(e, 1, UINT64_C(1) << 63, &off), -ENOSPC);
	CHECK_OK(extent_alloc(e, UINT64_C(1) << 62, UINT64_C(1) << 62, &off));
	CHECK_EQ(off, UINT64_C(1) << 62);
	extent_destroy(e);
}

/* Against the plainest model there is: one byte of bookkeeping per byte. */
TEST(random_use_agrees_with_a_map_of_bytes)
{
	enum { BYTES = 512, ROUNDS = 200000 };
	struct extent *e = make(BYTES);
	uint8_t used[BYTES] = { 0 };
	unsigned round, seed = 7;

	for (round = 0; round < ROUNDS; round++) {
		uint64_t off = (uint64_t)rand_r(&seed) % BYTES, at;
		uint64_t bytes = 1 + (uint64_t)rand_r(&seed) % 24,
			 align = 1ULL << rand_r(&seed) % 5;
		unsigned taken = 0, i;
		int result;

		for (i = 0; i < bytes && off + i < BYTES; i++)
			taken += used[off + i];
		switch (rand_r(&seed) % 3) {
		case 0:
			result = extent_take(e, off, bytes);
			CHECK_EQ(result, off + bytes > BYTES ? -EINVAL : taken ? -EEXIST : 0);
			if (!result)
				memset(used + off, 1, bytes);
			break;
		case 1:
			result = extent_free(e, off, bytes);
			CHECK_EQ(result, off + bytes > BYTES ? -EINVAL :
					 taken < bytes       ? -EEXIST :
							       0);
			if (!result)
				memset(used + off, 0, bytes);
			break;
		default:
			for (at = 0; at + bytes <= BYTES; at += align)
				if (!memchr(used + at, 1, bytes))
					break;
			result = extent_alloc(e, bytes, align, &off);
			CHECK_EQ(result, at + bytes <= BYTES ? 0 : -ENOSPC);
			if (!result) {
				CHECK_EQ(off, at);
				memset(used + off, 1, bytes);
			}
		}
		for (i = 0, taken = 0; i < BYTES; i++)
			taken += used[i];
		CHECK_EQ(extent_free_bytes(e), BYTES - taken);
	}
	extent_destroy(e);
}

/* Every other of 40,000 ranges is free: a linear search for each would take
 * minutes. */
TEST(forty_thousand_ranges_are_fast)
{
	enum { COUNT = 40000 };
	struct extent *e = make((uint64_t)COUNT * 4096);
	int64_t start = test_now_ns();
	uint64_t off;
	int i;

	for (i = 0; i < COUNT; i++) {
		CHECK_OK(extent_alloc(e, 4096, 4096, &off));
		CHECK_EQ(off, (uint64_t)i * 4096);
	}
	for (i = COUNT - 2; i >= 0; i -= 2)
		CHECK_OK(extent_free(e, (uint64_t)i * 4096, 4096));
	CHECK_EQ(extent_alloc(e, 8192, 4096, &off), -ENOSPC);
	for (i = 1; i < COUNT; i += 2)
		CHECK_OK(extent_free(e, (uint64_t)i * 4096, 4096));
	CHECK_EQ(look(e).count, 1);
	NOTE("%.1f ms", (double)(test_now_ns() - start) / 1e6);
	CHECK_LT(test_now_ns() - start, INT64_C(5000000000) * test_slowdown());
	extent_destroy(e);
}
