/* SPDX-License-Identifier: MIT
 *
 * As in bell.c: whoever was woken finds a bell rung, or a wake-up was lost.
 */
#include "clock.h"
#include "fake.h"
#include "futex.h"
#include "park.h"
#include "tap.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

/* Shorter than the back-stop, and much more than a loaded machine needs. */
#define LONG_NS INT64_C(6000000000)
#define WATCHDOG_S 60

enum { BELLS_MAX = 300 };

struct belfry {
	struct lay_bell bell[BELLS_MAX], *list[BELLS_MAX];
	shmq_au64 progress[BELLS_MAX];
	unsigned n;
	enum shmq__fence fence;
	shmq_au64 seen; /* rounds the sleeper has seen */
	shmq_au64 rung; /* rounds whose waker has looked at its bell */
	uint64_t rounds;
};

static struct belfry *set_up(unsigned n, enum shmq__fence fence, struct shmq__park **park)
{
	struct belfry *b = calloc(1, sizeof(*b));

	for (unsigned i = 0; i < n; i++) {
		b->list[i] = &b->bell[i];
		store_relaxed(&b->bell[i].word, UINT32_MAX - i % 3);
	}
	b->n = n;
	b->fence = fence;
	CHECK_OK(shmq__park_create(b->list, n, NULL, fence, park));
	return b;
}

static uint64_t total(struct belfry *b)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < b->n; i++)
		sum += load_acquire(&b->progress[i]);
	return sum;
}

/* Each round rings one bell, anywhere, and waits until it was heard. */
static void *ring_anywhere(void *arg)
{
	struct belfry *b = arg;
	uint64_t state = b->n;

	for (uint64_t round = 1; round <= b->rounds; round++) {
		unsigned i = (unsigned)(round * 197 % b->n); /* each in its turn */

		fake_dawdle(fake_random(&state) % (round % 2 ? 3000 : 60));
		store_release(&b->progress[i], load_relaxed(&b->progress[i]) + 1); /* W1 */
		if (fake_random(&state) % 2) /* a waker may be held up here */
			fake_dawdle(fake_random(&state) % 100);
		bell_look(&b->bell[i], b->fence);
		store_release(&b->rung, round);
		for (unsigned turns = 0; load_acquire(&b->seen) != round;)
			fake_wait(&turns);
	}
	return NULL;
}

static uint64_t words(struct belfry *b)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < b->n; i++)
		sum += load_acquire(&b->bell[i].word);
	return sum;
}

static void hear_every_bell(unsigned n, enum shmq__fence fence, uint64_t rounds)
{
	struct shmq__park *park;
	struct belfry *b = set_up(n, fence, &park);
	pthread_t ringer;

	b->rounds = rounds / (uint64_t)test_slowdown();
	ringer = fake_thread(ring_anywhere, b);
	for (uint64_t round = 1; round <= b->rounds; round++) {
		while (total(b) < round) {
			uint64_t before = words(b);

			shmq__park_arm(park);
			if (total(b) >= round)
				break;
			if (shmq__park_sleep(park, shmq__clock_deadline(LONG_NS), NULL) &&
			    words(b) != before)
				FAIL("a bell rang and the sleeper slept on");
			if (total(b) < round)
				continue; /* for no reason, or the short back-stop */
			while (load_acquire(&b->rung) < round)
				sched_yield(); /* we may have taken the waker's processor */
			/* Our look came before the progress: it was rung. */
			CHECK_NE(words(b), before);
		}
		store_release(&b->seen, round);
	}
	fake_join(ringer);
	shmq__park_free(park);
	free(b);
}

static void need_membarrier(void)
{
	if (shmq__membarrier_register())
		SKIP("this kernel has no membarrier");
}

TEST_WITHIN(one_bell_is_heard, WATCHDOG_S)
{
	need_membarrier();
	hear_every_bell(1, SHMQ__FENCE_LIGHT, 4000);
}

TEST_WITHIN(as_many_bells_as_the_kernel_takes_are_heard, WATCHDOG_S)
{
	need_membarrier();
	hear_every_bell(2, SHMQ__FENCE_LIGHT, 2000);
	hear_every_bell(SHMQ_FUTEX_WAITV_MAX - 1, SHMQ__FENCE_LIGHT, 1000);
}

TEST_WITHIN(more_bells_than_the_kernel_takes_are_heard, WATCHDOG_S)
{
	need_membarrier();
	hear_every_bell(SHMQ_FUTEX_WAITV_MAX, SHMQ__FENCE_LIGHT, 600); /* one is alone */
	hear_every_bell(BELLS_MAX, SHMQ__FENCE_LIGHT, 600);
}

TEST_WITHIN(bells_are_heard_through_relays_without_waitv, WATCHDOG_S)
{
	need_membarrier();
	setenv("SHMQ_NO_WAITV", "1", 1);
	hear_every_bell(1, SHMQ__FENCE_LIGHT, 500);
	hear_every_bell(2, SHMQ__FENCE_LIGHT, 800);
	hear_every_bell(12, SHMQ__FENCE_LIGHT, 400);
}

TEST_WITHIN(bells_are_heard_without_membarrier, WATCHDOG_S)
{
	setenv("SHMQ_NO_MEMBARRIER", "1", 1);
	hear_every_bell(3, SHMQ__FENCE_FULL, 2000);
	hear_every_bell(BELLS_MAX, SHMQ__FENCE_FULL, 300);
	setenv("SHMQ_NO_WAITV", "1", 1);
	hear_every_bell(8, SHMQ__FENCE_FULL, 300);
}

/* Relays of one round may still wait in the next: nothing they do may be lost
 * or be taken for the wrong round. */
TEST_WITHIN(a_bell_rung_between_arming_and_sleeping_ends_the_sleep, WATCHDOG_S)
{
	for (int waitv = 1; waitv >= 0; waitv--) {
		struct shmq__park *park;
		struct belfry *b = set_up(waitv ? BELLS_MAX : 6, SHMQ__FENCE_LIGHT, &park);
		uint64_t state = 9;

		if (!waitv)
			setenv("SHMQ_NO_WAITV", "1", 1);
		for (int round = 0; round < 300; round++) {
			shmq__park_arm(park);
			CHECK_EQ(shmq__bell_ring(b->list[fake_random(&state) % b->n]), 1);
			CHECK_EQ(shmq__park_sleep(park, UINT64_MAX, NULL), 0);
		}
		shmq__park_free(park);
		free(b);
	}
}

struct late {
	struct belfry *b;
	unsigned i;
};

static void ring_now(void *arg)
{
	struct late *l = arg;

	bell_look(&l->b->bell[l->i], SHMQ__FENCE_FULL);
}

/* A late waker rings at any instruction of the arming of all bells: the next
 * wake of that bell must still end the sleep. */
TEST(a_ring_at_any_instruction_of_arming_hides_no_sleeper)
{
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned k = fake_first_point(12000); k; k = fake_next_point(k)) {
			struct shmq__park *park;
			struct belfry *b = set_up(3, SHMQ__FENCE_LIGHT, &park);
			struct late late = { b, i };

			add_relaxed(&b->bell[i].armed, 1); /* somebody else is asleep */
			fake_step_begin(k, ring_now, &late);
			shmq__park_arm(park);
			fake_step_end();
			bell_look(&b->bell[i], SHMQ__FENCE_FULL);
			CHECK_EQ(shmq__park_sleep(park, shmq__clock_deadline(1000000000), NULL), 0);
			shmq__park_free(park);
			free(b);
		}
	}
}

TEST_WITHIN(only_the_callers_deadline_is_a_timeout, WATCHDOG_S)
{
	static const unsigned count[] = { 1, 2, BELLS_MAX };

	for (int i = 0; i < 3; i++) {
		struct shmq__park *park;
		struct belfry *b = set_up(count[i], SHMQ__FENCE_LIGHT, &park);

		shmq__park_arm(park);
		CHECK_EQ(shmq__park_sleep(park, 0, NULL), -ETIMEDOUT);
		CHECK_EQ(shmq__park_sleep(park, shmq__clock_deadline(1000000), NULL), -ETIMEDOUT);
		shmq__park_free(park);
		free(b);
	}
}

/* A wait set without members slept not at all, and took a processor for it. */
TEST_WITHIN(without_bells_it_sleeps_until_the_deadline, WATCHDOG_S)
{
	struct shmq__park *park;
	struct belfry *b = set_up(0, SHMQ__FENCE_LIGHT, &park);

	shmq__park_arm(park);
	CHECK_EQ(shmq__park_sleep(park, shmq__clock_deadline(1000000), NULL), -ETIMEDOUT);
	shmq__park_free(park);
	free(b);
}

TEST_WITHIN(a_park_that_never_slept_and_none_at_all_can_be_freed, WATCHDOG_S)
{
	struct shmq__park *park;
	struct belfry *b = set_up(200, SHMQ__FENCE_LIGHT, &park);

	shmq__park_free(park);
	shmq__park_free(NULL);
	free(b);
}

TEST_WITHIN(freeing_ends_relays_that_wait, WATCHDOG_S)
{
	for (int waitv = 1; waitv >= 0; waitv--) {
		struct shmq__park *park;
		struct belfry *b = set_up(waitv ? BELLS_MAX : 4, SHMQ__FENCE_LIGHT, &park);

		if (!waitv)
			setenv("SHMQ_NO_WAITV", "1", 1);
		for (int round = 0; round < 3; round++) {
			shmq__park_arm(park);
			CHECK_EQ(shmq__park_sleep(park, shmq__clock_deadline(2000000), NULL),
				 -ETIMEDOUT);
		}
		shmq__park_free(park);
		free(b);
	}
}
