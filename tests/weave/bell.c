/* SPDX-License-Identifier: MIT
 *
 * Sleeping and waking on both bells.  That one who sleeps is never woken shows
 * as nobody going on.
 */
#include "serve.h"
#include "tap.h"
#include "world.h"

static shmq_pub *pub[2];
static struct world_reader reader[2];
static unsigned messages, publishers;

static void publish(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg, n;

	for (n = 0; n < messages; n++)
		WANT_EQ(world_publish(pub[who], who, n), 0);
}

static void receive(void *arg)
{
	struct world_reader r = reader[(uintptr_t)arg];

	world_receive_all(&r, publishers * messages);
}

static void set_up(const struct world_options *o, unsigned writers, unsigned each, unsigned readers)
{
	unsigned i;

	world_new(o);
	messages = each;
	publishers = writers;
	for (i = 0; i < writers; i++)
		weave_spawn(i ? "second" : "first", publish, (void *)(uintptr_t)i);
	for (i = 0; i < readers; i++)
		weave_spawn(i ? "sleeper 2" : "sleeper", receive, (void *)(uintptr_t)i);
	for (i = 0; i < writers; i++)
		pub[i] = world_pub((int)i);
	for (i = 0; i < readers; i++)
		reader[i] = (struct world_reader){ .sub = world_sub((int)(writers + i),
								    SHMQ_FROM_LATEST) };
}

static void set_up_full(void)
{
	set_up(&(struct world_options){ .depth = 1, .base_seq = 3, .fence = SHMQ__FENCE_FULL }, 1,
	       1, 1);
}
SCENARIO(wake_full_fence, set_up_full, NULL);

static void set_up_full_both(void)
{
	set_up(&(struct world_options){ .depth = 1, .base_seq = 3, .fence = SHMQ__FENCE_FULL }, 1,
	       3, 1);
}
SCENARIO(both_bells_full_fence, set_up_full_both, NULL);

static void set_up_both(void)
{
	set_up(&(struct world_options){ .depth = 1, .base_seq = 3 }, 1, 3, 1);
}
SCENARIO(both_bells, set_up_both, NULL);

/* A run looks at what was served when it began. */
static void set_up_both_polled(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 4 }, 1, 5, 1);
	reader[0].polls = 1;
}
SCENARIO(both_bells_polled, set_up_both_polled, NULL);

static void set_up_sleepers(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3 }, 1, 2, 2);
}
SCENARIO(two_sleepers, set_up_sleepers, NULL);

/* The second may commit, and wake, before the first that all wait for. */
static void set_up_wakers(void)
{
	set_up(&(struct world_options){ .depth = 4, .base_seq = 3, .mode = SHMQ_SHARED }, 2, 1, 1);
}
SCENARIO(two_wakers, set_up_wakers, NULL);

static void set_up_blocked(void)
{
	set_up(&(struct world_options){ .depth = 1, .base_seq = 3, .mode = SHMQ_SHARED }, 2, 2, 1);
}
SCENARIO(two_blocked, set_up_blocked, NULL);

/* A thread of the publisher's process wakes by the slots, or by the count where others
 * may send too. */
static void wake_deferred(void *arg)
{
	struct shmq__handle *h = &pub[0]->h;
	uint64_t before, end = messages + (serve_goes_by_slots(h) ? world->o.base_seq : 0);

	while (h->woken_for != end) {
		before = h->woken_for;
		serve_wake_for(h);
		if (h->woken_for == before)
			weave_idle();
	}
}

static void set_up_deferred(enum shmq__fence fence, enum shmq_mode mode)
{
	static struct lay_bell none;

	/* Seqs half the way round from 0, which a look begun at 0 takes for none. */
	set_up(&(struct world_options){ .depth = 2,
					.base_seq = UINT64_MAX / 2 + 3,
					.fence = fence,
					.mode = mode },
	       1, 1, 1);
	weave_spawn("library", wake_deferred, NULL);
	pub[0]->lane[0].bell = &none;
	serve_begin(&pub[0]->h);
}

static void set_up_deferred_full_fence(void)
{
	set_up_deferred(SHMQ__FENCE_FULL, SHMQ_EXCLUSIVE);
}
SCENARIO(wake_deferred_full_fence, set_up_deferred_full_fence, NULL);

/* As it is where only such publishers are there: the sleeper makes none fence. */
static void set_up_deferred_fenced(void)
{
	set_up_deferred(SHMQ__FENCE_LIGHT, SHMQ_EXCLUSIVE);
	store_relaxed(&world->bells->data.fenced, 1);
}
SCENARIO(wake_deferred_fenced, set_up_deferred_fenced, NULL);

static void set_up_deferred_counted(void)
{
	set_up_deferred(SHMQ__FENCE_LIGHT, SHMQ_SHARED);
	store_relaxed(&world->bells->data.fenced, 1);
}
SCENARIO(wake_deferred_counted, set_up_deferred_counted, NULL);

/* ---- who waits for the log ------------------------------------------ */

static struct {
	shmq_au64 file; /* how far it goes, which the mark says */
	uint8_t pad[64];
} * written;

/* As tail_lane.c tells of its marks. */
static void write_log(void *arg)
{
	struct lay_partition *part = world->topic->ring[0].part;
	uint64_t seq;

	for (seq = 3; seq < 3 + messages; seq++) {
		store_relaxed(&written->file, seq + 1);
		store_release(&part->log_written, seq + 1); /* L1 */
		add_release(&part->log_word, 1);            /* L3 */
		shmq__futex_wake_bits(&part->log_word, lay_seq_bits(seq, seq + 1));
	}
}

static void await_log(void *arg)
{
	uint64_t seq = 3 + (uintptr_t)arg;

	WANT_EQ(shmq_pub_wait_confirm(pub[0], 0, seq, SHMQ_WRITTEN, SHMQ_FOREVER), 0);
	WANT(load_relaxed(&written->file) > seq);
}

/* Each is woken by what raises the mark beyond its own, and no other need be. */
static void set_up_confirmed(void)
{
	set_up(&(struct world_options){ .depth = 4, .base_seq = 3 }, 1, 0, 0);
	messages = 2;
	written = weave_alloc(sizeof(*written));
	world->topic->geo.log = SHMQ_LOG_BLOCK;
	pub[0]->wait = SHMQ_WAIT_SLEEP;
	store_relaxed(&world->topic->ring[0].part->log_written, 3);
	weave_spawn("tailer", write_log, NULL);
	weave_spawn("one", await_log, (void *)(uintptr_t)0);
	weave_spawn("other", await_log, (void *)(uintptr_t)1);
}
SCENARIO(confirmed, set_up_confirmed, NULL);

/* ---- the bell alone ------------------------------------------------- */

struct alone {
	struct lay_bell bell;
	uint8_t pad[64];
	shmq_au64 progress[2]; /* what the sleeper waits for; what it does not */
};
static struct alone *alone;

static void ring(void *arg)
{
	uintptr_t which = (uintptr_t)arg;

	store_relaxed(&alone->progress[which], 1);
	bell_look(&alone->bell, SHMQ__FENCE_LIGHT);
}

static void sleep_alone(void *arg)
{
	struct lay_bell *bell = &alone->bell;

	for (;;) {
		uint32_t e = shmq__bell_arm(bell, SHMQ__FENCE_LIGHT);

		if (load_relaxed(&alone->progress[0]))
			return;
		shmq__bell_sleep(&bell, &e, 1, SHMQ__FENCE_LIGHT, UINT64_MAX, NULL);
	}
}

static void set_up_alone(void)
{
	weave_late("bell.c:shmq__bell_arm:load_relaxed");
	alone = weave_alloc(sizeof(*alone));
	weave_name(alone, "bell");
	weave_name(&alone->progress[0], "progress");
	weave_name(&alone->progress[1], "other progress");
	weave_spawn("waker", ring, (void *)(uintptr_t)0);
	weave_spawn("other", ring, (void *)(uintptr_t)1);
	weave_spawn("sleeper", sleep_alone, NULL);
}
SCENARIO(bell_alone, set_up_alone, NULL);

static void set_up_two_alone(void)
{
	weave_late("bell.c:shmq__bell_arm:load_relaxed");
	alone = weave_alloc(sizeof(*alone));
	weave_name(alone, "bell");
	weave_name(&alone->progress[0], "progress");
	weave_spawn("waker", ring, (void *)(uintptr_t)0);
	weave_spawn("sleeper", sleep_alone, NULL);
}
SCENARIO(bell_of_two, set_up_two_alone, NULL);

/* ---- many bells, where the kernel waits for one at a time ----------- */

static struct shmq__park *park;
static struct lay_bell *bells[2];

static void sleep_on_many(void *arg)
{
	for (;;) {
		shmq__park_arm(park);
		if (load_relaxed(&alone->progress[0]) && load_relaxed(&alone->progress[1]))
			return;
		WANT_EQ(shmq__park_sleep(park, UINT64_MAX, NULL), 0);
	}
}

/* Once all who sleep do. */
static void ring_own(void *arg)
{
	uintptr_t which = (uintptr_t)arg;

	weave_idle();
	store_relaxed(&alone->progress[which], 1);
	bell_look(bells[which], SHMQ__FENCE_LIGHT);
}

static void set_up_relays(void)
{
	unsigned i;

	weave_without_waitv();
	weave_late("park.c:shmq__park_arm:load_relaxed");
	alone = weave_alloc(sizeof(*alone));
	for (i = 0; i < 2; i++) {
		bells[i] = weave_alloc(sizeof(*bells[i]));
		weave_name(bells[i], "bell %u", i);
	}
	weave_name(&alone->progress[0], "progress");
	weave_spawn("waker", ring_own, (void *)(uintptr_t)0);
	weave_spawn("other", ring_own, (void *)(uintptr_t)1);
	weave_spawn("sleeper", sleep_on_many, NULL);
	WANT_EQ(shmq__park_create(bells, 2, NULL, SHMQ__FENCE_LIGHT, &park), 0);
}
SCENARIO(relays, set_up_relays, NULL);

/* ---- sleepers that do not interrupt ----------------------------------- */

static unsigned awaited; /* whose progress the sleeper waits for */

static void sleep_while_fenced(void *arg)
{
	unsigned i, seen;

	for (;;) {
		shmq__park_arm(park);
		for (i = seen = 0; i < awaited; i++)
			seen += load_relaxed(&alone->progress[i]) == 1;
		if (seen == awaited)
			return;
		WANT_EQ(shmq__park_sleep(park, UINT64_MAX, NULL), 0);
	}
}

static void set_up_fenced(uint32_t fenced, unsigned await)
{
	weave_late("park.c:shmq__park_arm:load_relaxed");
	alone = weave_alloc(sizeof(*alone));
	bells[0] = &alone->bell;
	store_relaxed(&alone->bell.fenced, fenced);
	weave_name(alone, "bell");
	weave_name(&alone->progress[0], "progress");
	weave_name(&alone->progress[1], "other progress");
	awaited = await;
	WANT_EQ(shmq__park_create(bells, 1, NULL, SHMQ__FENCE_LIGHT, &park), 0);
	weave_spawn("sleeper", sleep_while_fenced, NULL);
}

static void ring_in_full(void *arg)
{
	store_relaxed(&alone->progress[0], 1);
	bell_look(&alone->bell, SHMQ__FENCE_FULL);
}

/* It comes by the supervisor, who says so first. */
static void come_and_ring(void *arg)
{
	store_release(&alone->bell.fenced, 0); /* F1 */
	bell_join();                           /* F2 */
	store_relaxed(&alone->progress[1], 1);
	bell_look(&alone->bell, SHMQ__FENCE_LIGHT);
}

static void set_up_comes(void)
{
	set_up_fenced(1, 2);
	weave_spawn("deferring", ring_in_full, NULL);
	weave_spawn("comer", come_and_ring, NULL);
}
SCENARIO(one_comes_that_does_not_fence, set_up_comes, NULL);

static void ring_and_go(void *arg)
{
	store_relaxed(&alone->progress[0], 1);
	bell_look(&alone->bell, SHMQ__FENCE_LIGHT);
	store_release(&alone->bell.fenced, 1); /* F4 */
}

static void set_up_goes(void)
{
	set_up_fenced(0, 1);
	weave_spawn("goer", ring_and_go, NULL);
}
SCENARIO(the_last_that_does_not_fence_goes, set_up_goes, NULL);

TEST_WITHIN(no_wake_is_lost_by_sleepers_that_do_not_interrupt, WEAVE_LIMIT_S)
{
	weave_all(&the_last_that_does_not_fence_goes, WEAVE_SC, 100000);
	weave_all(&the_last_that_does_not_fence_goes, WEAVE_WEAK, 100000);
	weave_random(&one_comes_that_does_not_fence, WEAVE_SC, 5000);
	weave_random(&one_comes_that_does_not_fence, WEAVE_WEAK, 10000);
}

TEST_WITHIN(no_wake_is_lost_by_relays, WEAVE_LIMIT_S)
{
	weave_random(&relays, WEAVE_SC, 5000);
	weave_random(&relays, WEAVE_WEAK, 10000);
}

TEST_WITHIN(no_wake_is_lost_between_two, WEAVE_LIMIT_S)
{
	weave_all(&bell_of_two, WEAVE_SC, 100000);
	weave_all(&bell_of_two, WEAVE_WEAK, 100000);
	weave_all(&wake_full_fence, WEAVE_SC, 100000);
	weave_all(&wake_full_fence, WEAVE_WEAK, 100000);
}

TEST_WITHIN(no_wake_is_lost_among_three, WEAVE_LIMIT_S)
{
	weave_random(&bell_alone, WEAVE_SC, 5000);
	weave_random(&bell_alone, WEAVE_WEAK, 10000);
	weave_random(&two_sleepers, WEAVE_SC, 1500);
	weave_random(&two_sleepers, WEAVE_WEAK, 2500);
	weave_random(&two_wakers, WEAVE_SC, 1500);
	weave_random(&two_wakers, WEAVE_WEAK, 2500);
	weave_random(&two_blocked, WEAVE_SC, 1500);
	weave_random(&two_blocked, WEAVE_WEAK, 2500);
}

TEST_WITHIN(both_sides_sleep_and_wake, WEAVE_LIMIT_S)
{
	weave_random(&both_bells, WEAVE_SC, 2500);
	weave_random(&both_bells, WEAVE_WEAK, 5000);
	weave_random(&both_bells_polled, WEAVE_SC, 1000);
	weave_random(&both_bells_polled, WEAVE_WEAK, 2500);
	weave_random(&both_bells_full_fence, WEAVE_SC, 2500);
	weave_random(&both_bells_full_fence, WEAVE_WEAK, 5000);
	weave_random(&wake_deferred_full_fence, WEAVE_SC, 1000);
	weave_random(&wake_deferred_full_fence, WEAVE_WEAK, 2500);
	weave_random(&wake_deferred_fenced, WEAVE_SC, 1000);
	weave_random(&wake_deferred_fenced, WEAVE_WEAK, 2500);
	weave_random(&wake_deferred_counted, WEAVE_SC, 1000);
	weave_random(&wake_deferred_counted, WEAVE_WEAK, 2500);
}

TEST_WITHIN(who_waits_for_the_log_is_woken_and_finds_it_there, WEAVE_LIMIT_S)
{
	weave_random(&confirmed, WEAVE_SC, 1000);
	weave_random(&confirmed, WEAVE_WEAK, 2500);
}
