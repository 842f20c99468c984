/* SPDX-License-Identifier: MIT */
#include "tap.h"
#include "wait.h"

#define HOUR_NS (INT64_C(3600) * 1000000000)

static enum wait_step until_not_again(struct waiter *w)
{
	enum wait_step step;

	while ((step = shmq__waiter_step(w)) == WAIT_AGAIN)
		;
	return step;
}

TEST(sleep_sleeps_at_once)
{
	struct waiter w;

	shmq__waiter_start(&w, SHMQ_WAIT_SLEEP, HOUR_NS, SHMQ_FOREVER, NULL);
	for (int i = 0; i < 100; i++)
		CHECK_EQ(shmq__waiter_step(&w), WAIT_SLEEP);
	CHECK_EQ(w.deadline, UINT64_MAX);
}

TEST(adaptive_spins_first_then_sleeps)
{
	struct waiter w;
	uint64_t spun;

	shmq__waiter_start(&w, SHMQ_WAIT_ADAPTIVE, 200000, SHMQ_FOREVER, NULL);
	CHECK_EQ(shmq__waiter_step(&w), WAIT_AGAIN);
	CHECK_EQ(until_not_again(&w), WAIT_SLEEP);
	spun = shmq__clock_monotonic_ns();
	CHECK_GE(spun, w.started + 200000);
	CHECK_EQ(until_not_again(&w), WAIT_SLEEP);
	CHECK_GE(waiter_waited(&w), 200000);
}

TEST(adaptive_without_spinning_sleeps_soon)
{
	struct waiter w;

	shmq__waiter_start(&w, SHMQ_WAIT_ADAPTIVE, 0, SHMQ_FOREVER, NULL);
	CHECK_EQ(until_not_again(&w), WAIT_SLEEP);
}

TEST(spin_and_yield_never_sleep)
{
	static const enum shmq_wait mode[] = { SHMQ_WAIT_SPIN, SHMQ_WAIT_YIELD };

	for (int m = 0; m < 2; m++) {
		struct waiter w;

		shmq__waiter_start(&w, mode[m], 0, SHMQ_FOREVER, NULL);
		for (int i = 0; i < 20000; i++)
			CHECK_EQ(shmq__waiter_step(&w), WAIT_AGAIN);
	}
}

TEST(every_mode_expires_at_its_deadline_and_not_before)
{
	for (int mode = SHMQ_WAIT_ADAPTIVE; mode <= SHMQ_WAIT_SLEEP; mode++) {
		struct waiter w;
		enum wait_step step;

		shmq__waiter_start(&w, (enum shmq_wait)mode, 1000, 2000000, NULL);
		CHECK_EQ(w.deadline, w.started + 2000000);
		do
			step = shmq__waiter_step(&w);
		while (step != WAIT_EXPIRED);
		CHECK_GE(shmq__clock_monotonic_ns(), w.deadline);
		/* And stays so. */
		while (shmq__waiter_step(&w) == WAIT_AGAIN)
			;
		CHECK_EQ(until_not_again(&w), WAIT_EXPIRED);
	}
}

TEST(no_time_at_all_expires_in_every_mode)
{
	for (int mode = SHMQ_WAIT_ADAPTIVE; mode <= SHMQ_WAIT_SLEEP; mode++) {
		struct waiter w;

		shmq__waiter_start(&w, (enum shmq_wait)mode, HOUR_NS, 0, NULL);
		CHECK_EQ(until_not_again(&w), WAIT_EXPIRED);
	}
}

TEST(a_timeout_beyond_time_is_forever)
{
	struct waiter w;

	shmq__waiter_start(&w, SHMQ_WAIT_SLEEP, 0, INT64_MAX, NULL);
	CHECK_GT(w.deadline, w.started);
	CHECK_EQ(shmq__waiter_step(&w), WAIT_SLEEP);
	shmq__waiter_start(&w, SHMQ_WAIT_SLEEP, 0, INT64_MIN, NULL);
	CHECK_EQ(w.deadline, UINT64_MAX);
}

TEST(a_wait_that_is_interrupted_ends_in_every_mode)
{
	for (int mode = SHMQ_WAIT_ADAPTIVE; mode <= SHMQ_WAIT_SLEEP; mode++) {
		shmq_au32 interrupt = 0;
		struct waiter w;

		shmq__waiter_start(&w, (enum shmq_wait)mode, 0, SHMQ_FOREVER, &interrupt);
		CHECK_NE(shmq__waiter_step(&w), WAIT_INTERRUPTED);
		store_relaxed(&interrupt, 1);
		CHECK_EQ(until_not_again(&w), WAIT_INTERRUPTED);
		CHECK_EQ(waiter_error(WAIT_INTERRUPTED), -EINTR);
		CHECK_EQ(waiter_error(WAIT_EXPIRED), SHMQ_ETIMEOUT);
	}
}
