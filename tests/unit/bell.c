/* SPDX-License-Identifier: MIT
 *
 * Whoever sleeps, and the progress it waits for is made, finds the bell rung
 * and was woken by it, not by a timeout; else a wake-up was lost.
 */
#include "bell.h"
#include "clock.h"
#include "fake.h"
#include "futex.h"
#include "park.h"
#include "tap.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Shorter than the back-stop, and much more than a loaded machine needs. */
#define LONG_NS INT64_C(6000000000)
#define WATCHDOG_S 60

/* ---- one step at a time ---------------------------------------------------- */

TEST(a_bell_that_nobody_armed_makes_no_system_call)
{
	struct lay_bell b = { 0 };

	for (int i = 0; i < 3; i++) {
		CHECK_EQ(bell_look(&b, SHMQ__FENCE_LIGHT), 0);
		CHECK_EQ(bell_look(&b, SHMQ__FENCE_FULL), 0);
		CHECK_EQ(shmq__bell_ring(&b), 0);
	}
	CHECK_EQ(load_relaxed(&b.word), 0);
}

TEST(an_armed_bell_rings_once_for_all_that_armed_it)
{
	struct lay_bell b = { 0 };

	CHECK_EQ(shmq__bell_arm(&b, SHMQ__FENCE_FULL), 0);
	CHECK_EQ(shmq__bell_arm(&b, SHMQ__FENCE_FULL), 0);
	CHECK_EQ(load_relaxed(&b.armed), 2);
	CHECK_EQ(bell_look(&b, SHMQ__FENCE_FULL), 1);
	CHECK_EQ(load_relaxed(&b.word), 1);
	CHECK_EQ(load_relaxed(&b.served), 2);
	CHECK_EQ(bell_look(&b, SHMQ__FENCE_FULL), 0);
	CHECK_EQ(shmq__bell_arm(&b, SHMQ__FENCE_FULL), 1);
	CHECK_EQ(bell_look(&b, SHMQ__FENCE_LIGHT), 1);
	CHECK_EQ(load_relaxed(&b.word), 2);
}

TEST(a_sleeper_does_not_sleep_if_the_bell_rang_since_it_armed)
{
	/* Just below the wrap of the futex word. */
	struct lay_bell b = { .word = UINT32_MAX }, *bell = &b;
	uint32_t e = shmq__bell_arm(&b, SHMQ__FENCE_FULL);

	CHECK_EQ(e, UINT32_MAX);
	CHECK_EQ(bell_look(&b, SHMQ__FENCE_FULL), 1);
	CHECK_EQ(load_relaxed(&b.word), 0);
	CHECK_EQ(shmq__bell_sleep(&bell, &e, 1, SHMQ__FENCE_LIGHT, UINT64_MAX, NULL), 0);
}

TEST(any_of_many_bells_that_rang_since_ends_the_sleep)
{
	struct lay_bell b[3] = { { 0 } }, *bell[] = { &b[0], &b[1], &b[2] };
	uint32_t e[3];

	for (int k = 0; k < 3; k++) {
		for (int i = 0; i < 3; i++)
			e[i] = shmq__bell_arm(&b[i], SHMQ__FENCE_FULL);
		shmq__bell_ring(&b[k]);
		CHECK_EQ(shmq__bell_sleep(bell, e, 3, SHMQ__FENCE_LIGHT, UINT64_MAX, NULL), 0);
	}
}

TEST(only_the_callers_deadline_is_a_timeout)
{
	struct lay_bell b[2] = { { 0 } }, *bell[] = { &b[0], &b[1] };
	uint32_t e[2] = { 0 };

	for (unsigned n = 1; n <= 2; n++) {
		CHECK_EQ(shmq__bell_sleep(bell, e, n, SHMQ__FENCE_LIGHT, 0, NULL), -ETIMEDOUT);
		CHECK_EQ(shmq__bell_sleep(bell, e, n, SHMQ__FENCE_LIGHT,
					  shmq__clock_deadline(1000000), NULL),
			 -ETIMEDOUT);
		/* Without membarrier it looks again soon, and that is none. */
		CHECK_EQ(shmq__bell_sleep(bell, e, n, SHMQ__FENCE_FULL, UINT64_MAX, NULL), 0);
	}
}

TEST(many_bells_without_waitv_are_refused)
{
	struct lay_bell b[2] = { { 0 } }, *bell[] = { &b[0], &b[1] };
	uint32_t e[2] = { 0 };

	setenv("SHMQ_NO_WAITV", "1", 1);
	CHECK_EQ(shmq__bell_sleep(bell, e, 2, SHMQ__FENCE_LIGHT, 0, NULL), -ENOSYS);
	CHECK_EQ(shmq__bell_sleep(bell, e, 1, SHMQ__FENCE_LIGHT, 0, NULL), -ETIMEDOUT);
}

/* The waker died after it counted the ring and before it told the kernel: the
 * next one wakes again. */
TEST(a_waker_that_died_half_way_leaves_the_wake_to_the_next)
{
	struct lay_bell b = { 0 };

	shmq__bell_arm(&b, SHMQ__FENCE_FULL);
	add_relaxed(&b.word, 1); /* and then it was killed */
	CHECK_EQ(bell_look(&b, SHMQ__FENCE_FULL), 1);
	CHECK_EQ(load_relaxed(&b.word), 2);
}

/* A slow waker that stores an older count costs one more wake, never one less. */
TEST(a_late_store_of_served_hides_no_sleeper)
{
	struct lay_bell b = { 0 };

	shmq__bell_arm(&b, SHMQ__FENCE_FULL);
	shmq__bell_arm(&b, SHMQ__FENCE_FULL);
	CHECK_EQ(bell_look(&b, SHMQ__FENCE_FULL), 1);
	store_relaxed(&b.served, 1); /* the other waker saw one arming only */
	CHECK_EQ(bell_look(&b, SHMQ__FENCE_FULL), 1);
	CHECK_EQ(bell_look(&b, SHMQ__FENCE_FULL), 0);
}

/* ---- at any instruction ----------------------------------------------------- */

static _Atomic unsigned barriers, wakes;
static const struct lay_bell *armed_before;

static long (*libc_syscall)(long, ...);

__attribute__((constructor)) static void find_syscall(void)
{
	*(void **)&libc_syscall = dlsym(RTLD_NEXT, "syscall");
}

/* Stands before that of libc: sees the library's system calls. */
long syscall(long number, ...)
{
	long a[6], rc;
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_membarrier && a[0] == MEMBARRIER_CMD_GLOBAL_EXPEDITED) {
		add_relaxed(&barriers, 1);
		if (armed_before)
			CHECK_EQ(load_relaxed(&armed_before->armed), 1); /* S2, then S3 */
	}
	rc = libc_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (number == SYS_futex && (a[1] == FUTEX_WAKE || a[1] == FUTEX_WAKE_BITSET))
		add_relaxed(&wakes, 1);
	return rc;
}

TEST(a_sleeper_makes_the_wakers_pass_a_barrier_after_it_armed)
{
	struct lay_bell b = { 0 };

	armed_before = &b;
	shmq__bell_arm(&b, SHMQ__FENCE_FULL);
	CHECK_EQ(load_relaxed(&barriers), 0);
	store_relaxed(&b.armed, 0);
	shmq__bell_arm(&b, SHMQ__FENCE_LIGHT);
	CHECK_EQ(load_relaxed(&barriers), 1);
	armed_before = NULL;
}

TEST(a_sleeper_passes_no_barrier_where_all_who_ring_fence)
{
	struct lay_bell b[2] = { { 0 } }, *list[] = { &b[0], &b[1] };
	struct shmq__park *park;

	CHECK_OK(shmq__park_create(list, 2, NULL, SHMQ__FENCE_LIGHT, &park));
	store_relaxed(&b[0].fenced, 1);
	shmq__park_arm(park); /* the other's do not */
	CHECK_EQ(load_relaxed(&barriers), 1);
	store_relaxed(&b[1].fenced, 1);
	shmq__park_arm(park);
	CHECK_EQ(load_relaxed(&barriers), 1);
	store_relaxed(&b[0].fenced, UINT32_MAX); /* whoever stored that */
	shmq__park_arm(park);
	CHECK_EQ(load_relaxed(&barriers), 2);
	shmq__park_free(park);
}

/* A waker that dies at any instruction has either told the kernel, or leaves the
 * bell as one that the next waker rings. */
static sigjmp_buf out;

static void die(void *arg)
{
	(void)arg;
	siglongjmp(out, 1);
}

TEST(a_waker_may_die_at_any_instruction)
{
	volatile unsigned k;

	for (k = fake_first_point(20000); k; k = fake_next_point(k)) {
		static struct lay_bell b;

		memset(&b, 0, sizeof(b));
		shmq__bell_arm(&b, SHMQ__FENCE_FULL);
		store_relaxed(&wakes, 0);
		if (!sigsetjmp(out, 1)) {
			fake_step_begin(k, die, NULL);
			shmq__bell_ring(&b);
			fake_step_end();
		}
		CHECK(load_relaxed(&wakes) || load_relaxed(&b.armed) != load_relaxed(&b.served));
	}
}

/* Will whoever expects e be woken, now or by the next that looks? */
static int will_wake(const struct lay_bell *b, uint32_t e)
{
	struct lay_bell *bell = (struct lay_bell *)(uintptr_t)b;

	return load_relaxed(&bell->word) != e ||
	       load_relaxed(&bell->armed) != load_relaxed(&bell->served);
}

static void ring_now(void *arg)
{
	bell_look(arg, SHMQ__FENCE_FULL);
}

/* A late waker, whose progress the sleeper has seen already, rings while it
 * arms: the next wake must still reach it. */
TEST(a_ring_at_any_instruction_of_arming_hides_no_sleeper)
{
	for (unsigned k = fake_first_point(20000); k; k = fake_next_point(k)) {
		struct lay_bell b = { .armed = 7, .served = 6 };
		uint32_t e;

		fake_step_begin(k, ring_now, &b);
		e = shmq__bell_arm(&b, SHMQ__FENCE_FULL);
		fake_step_end();
		CHECK(will_wake(&b, e));
	}
}

struct arming {
	struct lay_bell bell;
	uint32_t e;
	int armed;
};

static void arm_now(void *arg)
{
	struct arming *a = arg;

	a->e = shmq__bell_arm(&a->bell, SHMQ__FENCE_FULL);
	a->armed = 1;
}

TEST(a_sleeper_that_arms_at_any_instruction_of_a_ring_is_woken)
{
	for (unsigned k = fake_first_point(20000); k; k = fake_next_point(k)) {
		struct arming a = { .bell = { .armed = 1 } };

		fake_step_begin(k, arm_now, &a);
		shmq__bell_ring(&a.bell);
		fake_step_end();
		if (a.armed)
			CHECK(will_wake(&a.bell, a.e));
	}
}

/* And another waker in the middle of one. */
TEST(two_wakers_at_any_instruction_hide_no_sleeper)
{
	for (unsigned k = fake_first_point(20000); k; k = fake_next_point(k)) {
		struct lay_bell b = { .armed = 1 };
		uint32_t e;

		fake_step_begin(k, ring_now, &b);
		shmq__bell_ring(&b);
		fake_step_end();
		e = shmq__bell_arm(&b, SHMQ__FENCE_FULL);
		CHECK(will_wake(&b, e));
		bell_look(&b, SHMQ__FENCE_FULL);
		CHECK_NE(load_relaxed(&b.word), e);
	}
}

/* ---- no wake-up is lost ------------------------------------------------------- */

enum { PAIR = 2 };

/* Wakers and sleepers take turns: in each round both wakers make progress
 * and both sleepers see it and answer, all four asleep in between. */
struct turns {
	struct lay_bells *bells;
	enum shmq__fence fence;
	uint64_t rounds;
	struct side {
		shmq_au64 done;   /* what the others wait for */
		shmq_au64 looked; /* of it, followed by a look at the bell */
	} progress, answers;
};

/* Sleep until the bell rings for progress made after the sleeper looked; the
 * short back-stop would make up for a loss and is not used. */
static void sleep_once(struct lay_bell *bell, uint32_t e, struct side *side, uint64_t want)
{
	int rc = shmq__bell_sleep(&bell, &e, 1, SHMQ__FENCE_LIGHT, shmq__clock_deadline(LONG_NS),
				  NULL);

	if (rc && load_relaxed(&bell->word) != e)
		FAIL("the bell rang and the sleeper slept on");
	if (load_acquire(&side->done) < want)
		return; /* the wake of an earlier ring came late */
	while (load_acquire(&side->looked) < want)
		sched_yield(); /* we may have taken the waker's processor */
	CHECK_NE(load_relaxed(&bell->word), e);
}

static void await(struct turns *t, struct side *side, uint64_t want, struct lay_bell *bell)
{
	while (load_acquire(&side->done) < want) {
		uint32_t e = shmq__bell_arm(bell, t->fence);

		if (load_acquire(&side->done) >= want) /* S4 */
			return;
		sleep_once(bell, e, side, want);
	}
}

struct one {
	struct turns *t;
	unsigned id;
};

static void *wake(void *arg)
{
	struct one *me = arg;
	struct turns *t = me->t;

	for (uint64_t round = 1; round <= t->rounds; round++) {
		/* In turn, so that the store can be a plain one: an addition is a
		 * full barrier on some machines, which would hide a missing one. */
		uint64_t mine = PAIR * (round - 1) + me->id;

		while (load_acquire(&t->progress.done) != mine)
			sched_yield();
		store_release(&t->progress.done, mine + 1); /* W1 */
		bell_look(&t->bells->data, t->fence);
		atomic_fetch_add(&t->progress.looked, 1);
		await(t, &t->answers, PAIR * round, &t->bells->credit);
	}
	return NULL;
}

static void *answer(void *arg)
{
	struct one *me = arg;
	struct turns *t = me->t;

	for (uint64_t round = 1; round <= t->rounds; round++) {
		await(t, &t->progress, PAIR * round, &t->bells->data);
		atomic_fetch_add_explicit(&t->answers.done, 1, memory_order_release);
		bell_look(&t->bells->credit, t->fence);
		atomic_fetch_add(&t->answers.looked, 1);
	}
	return NULL;
}

static void take_turns(enum shmq__fence fence, uint64_t rounds)
{
	static struct lay_bells bells;
	struct turns t = { .bells = &bells, .fence = fence, .rounds = rounds };
	struct one one[PAIR] = { { &t, 0 }, { &t, 1 } };
	pthread_t waker[PAIR], sleeper[PAIR];

	store_relaxed(&bells.data.word, UINT32_MAX - 100);
	store_relaxed(&bells.data.armed, UINT64_MAX - 100);
	store_relaxed(&bells.data.served, UINT64_MAX - 100);
	for (int i = 0; i < PAIR; i++) {
		sleeper[i] = fake_thread(answer, &one[i]);
		waker[i] = fake_thread(wake, &one[i]);
	}
	for (int i = 0; i < PAIR; i++) {
		fake_join(waker[i]);
		fake_join(sleeper[i]);
	}
}

TEST_WITHIN(no_wake_is_lost_between_two_wakers_and_two_sleepers, WATCHDOG_S)
{
	if (shmq__membarrier_register())
		SKIP("this kernel has no membarrier");
	take_turns(SHMQ__FENCE_LIGHT, 3000 / (uint64_t)test_slowdown());
}

TEST_WITHIN(no_wake_is_lost_without_membarrier, WATCHDOG_S)
{
	setenv("SHMQ_NO_MEMBARRIER", "1", 1);
	CHECK_EQ(shmq__membarrier_register(), -ENOSYS);
	take_turns(SHMQ__FENCE_FULL, 3000 / (uint64_t)test_slowdown());
}

/* A waker that never waits for its sleepers: the last wake of a burst is the
 * one that must not be lost, again and again.  The payload makes the store of
 * the count late, as a message does: that is what the fences are for. */
struct burst {
	_Alignas(64) struct lay_bell bell;
	_Alignas(64) struct side count;
	_Alignas(64) shmq_au64 reached;
	_Alignas(64) shmq_au64 payload[24][8];
	enum shmq__fence fence;
	uint64_t bursts;
	pthread_t waker;
};

static void *follow(void *arg)
{
	struct burst *b = arg;
	struct lay_bell *bell = &b->bell;
	uint64_t seen = 0, state = 17;

	while (seen < b->bursts) {
		uint32_t e;
		uint64_t now;

		if (fake_random(&state) % 8 == 0)
			fake_hold_up(b->waker, (unsigned)(fake_random(&state) % 200));
		fake_dawdle(fake_random(&state) % 30);
		e = shmq__bell_arm(bell, b->fence);
		now = load_acquire(&b->count.done);
		if (now == seen)
			sleep_once(bell, e, &b->count, seen + 1);
		for (int i = 0; i < 24; i++)
			CHECK_LE(load_relaxed(&b->payload[i][0]), b->bursts);
		seen = now;
		store_release(&b->reached, seen);
	}
	return NULL;
}

static void send_bursts(enum shmq__fence fence)
{
	static struct burst b;
	pthread_t sleeper;
	uint64_t state = 3, n = 0;

	b.fence = fence;
	b.waker = pthread_self();
	b.bursts = 20000 / (uint64_t)test_slowdown();
	sleeper = fake_thread(follow, &b);
	while (n < b.bursts) {
		for (uint64_t size = 1 + fake_random(&state) % 3; size && n < b.bursts; size--) {
			fake_dawdle(fake_random(&state) % 40);
			n++;
			for (int i = 0; i < 24; i++)
				store_relaxed(&b.payload[i][0], n);
			store_release(&b.count.done, n); /* W1 */
			if (fake_random(&state) % 2)     /* a waker may be held up here */
				fake_dawdle(fake_random(&state) % 60);
			bell_look(&b.bell, fence);
			store_release(&b.count.looked, n);
		}
		for (unsigned turns = 0; load_acquire(&b.reached) != n;)
			fake_wait(&turns);
	}
	fake_join(sleeper);
}

TEST_WITHIN(the_last_wake_of_a_burst_is_not_lost, WATCHDOG_S)
{
	if (shmq__membarrier_register())
		SKIP("this kernel has no membarrier");
	send_bursts(SHMQ__FENCE_LIGHT);
}

TEST_WITHIN(the_last_wake_of_a_burst_is_not_lost_without_membarrier, WATCHDOG_S)
{
	send_bursts(SHMQ__FENCE_FULL);
}

TEST_WITHIN(a_bell_wakes_a_sleeper_in_another_process, WATCHDOG_S)
{
	struct lay_bells *bells = mmap(NULL, sizeof(*bells), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child;
	struct lay_bell *bell;

	CHECK(bells != MAP_FAILED);
	bell = &bells->data;
	child = fork();
	CHECK_GE(child, 0);
	if (!child) {
		while (!load_acquire(&bells->credit.armed)) {
			uint32_t e = shmq__bell_arm(bell, SHMQ__FENCE_FULL);

			if (!load_acquire(&bells->credit.armed))
				shmq__bell_sleep(&bell, &e, 1, SHMQ__FENCE_LIGHT, UINT64_MAX, NULL);
		}
		_exit(0);
	}
	while (!load_acquire(&bell->armed))
		cpu_relax();
	store_release(&bells->credit.armed, 1);
	bell_look(bell, SHMQ__FENCE_FULL);
	CHECK_EQ(test_join(child), 0);
	munmap(bells, sizeof(*bells));
}
