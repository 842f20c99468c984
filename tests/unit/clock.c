/* SPDX-License-Identifier: MIT */
#include "clock.h"
#include "tap.h"

#include <limits.h>
#include <time.h>

TEST(the_clocks_are_the_systems)
{
	struct timespec a, b;
	uint64_t t;

	clock_gettime(CLOCK_MONOTONIC, &a);
	t = shmq__clock_monotonic_ns();
	clock_gettime(CLOCK_MONOTONIC, &b);
	CHECK_GE(t, (uint64_t)a.tv_sec * 1000000000u + (uint64_t)a.tv_nsec);
	CHECK_LE(t, (uint64_t)b.tv_sec * 1000000000u + (uint64_t)b.tv_nsec);
	CHECK_GT(shmq__clock_realtime_ns(), UINT64_C(1600000000) * 1000000000u);
}

TEST(a_deadline_is_now_and_the_timeout)
{
	uint64_t before = shmq__clock_monotonic_ns(), at = shmq__clock_deadline(5000000000);

	CHECK_GE(at, before + 5000000000u);
	CHECK_LE(at, shmq__clock_monotonic_ns() + 5000000000u);
	CHECK_LE(shmq__clock_deadline(0), shmq__clock_monotonic_ns());
}

TEST(a_deadline_below_zero_or_beyond_time_never_comes)
{
	CHECK_EQ(shmq__clock_deadline(-1), UINT64_MAX);
	CHECK_EQ(shmq__clock_deadline(INT64_MIN), UINT64_MAX);
	CHECK_GT(shmq__clock_deadline(INT64_MAX), (uint64_t)INT64_MAX);
	CHECK_EQ(shmq__clock_left(UINT64_MAX), -1);
	CHECK_EQ(shmq__clock_left_ms(UINT64_MAX), -1);
}

TEST(what_is_left_is_zero_once_passed)
{
	CHECK_EQ(shmq__clock_left(0), 0);
	CHECK_EQ(shmq__clock_left_ms(0), 0);
	CHECK_EQ(shmq__clock_left(shmq__clock_monotonic_ns()), 0);
}

TEST(what_is_left_fits_its_type)
{
	uint64_t now = shmq__clock_monotonic_ns();

	CHECK_GT(shmq__clock_left(now + 3600000000000u), 0);
	CHECK_LE(shmq__clock_left(now + 3600000000000u), 3600000000000);
	CHECK_EQ(shmq__clock_left(UINT64_MAX - 1), INT64_MAX);
	CHECK_EQ(shmq__clock_left_ms(UINT64_MAX - 1), INT_MAX);
}

TEST(milliseconds_are_rounded_up_so_that_poll_never_spins)
{
	uint64_t now = shmq__clock_monotonic_ns();
	int ms = shmq__clock_left_ms(now + 3600000000000u);

	CHECK_GT(ms, 0);
	CHECK_LE(ms, 3600000);
	for (int i = 0; i < 1000; i++) {
		uint64_t at = shmq__clock_deadline(10000);
		int left = shmq__clock_left_ms(at);

		/* Either passed, or at least one. */
		CHECK(left >= 1 || shmq__clock_monotonic_ns() >= at);
	}
}
