/* SPDX-License-Identifier: MIT
 *
 * Sleeping and waking: whoever waits is woken by what it waits for, by its
 * end and by nothing less, on one ring or on many, with and without the
 * system calls that make it cheap.
 */
#include "helpers.h"

#include <pthread.h>
#include <sched.h>

enum { DEPTH = 1024 };

/* Less than the back-stop of seven and a half seconds, after which a sleeper
 * that nobody woke looks by itself. */
#define SOON (5 * SECOND * test_slowdown())

/* ---- one ring -------------------------------------------------------------- */

struct pingpong {
	enum shmq_wait wait;
	uint64_t rounds;
};

static int pong(void *arg)
{
	const struct pingpong *p = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "ping", .wait = p->wait);
	shmq_pub *pub = open_pub(bus, "pong", .wait = p->wait);
	struct shmq_msg msg;

	for (uint64_t n = 0; n < p->rounds; n++) {
		CHECK_OK(shmq_receive(sub, &msg, SOON));
		CHECK_OK(shmq_publish(pub, msg.data, msg.len));
	}
	shmq_bus_close(bus);
	return 0;
}

static void check_pingpong(const struct pingpong *p)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "ping", .depth = DEPTH);
	create(bus, "pong", .depth = DEPTH);
	pub = open_pub(bus, "ping");
	sub = open_sub(bus, "pong", .wait = p->wait);
	child = test_spawn(pong, (void *)(uintptr_t)p);
	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	for (uint64_t n = 0; n < p->rounds; n++) {
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(sub, &msg, SOON));
		CHECK_MEM(msg.data, &n, sizeof(n));
	}
	CHECK_EQ(test_join(child), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(ping_pong_by_sleeping)
{
	check_pingpong(&(struct pingpong){ SHMQ_WAIT_SLEEP, 500 });
}

TEST(ping_pong_adaptively)
{
	check_pingpong(&(struct pingpong){ SHMQ_WAIT_ADAPTIVE, 500 });
}

TEST(ping_pong_by_yielding)
{
	check_pingpong(&(struct pingpong){ SHMQ_WAIT_YIELD, 500 });
}

TEST(ping_pong_by_spinning)
{
	/* With the rest of the machine busy a round may cost a time slice. */
	check_pingpong(&(struct pingpong){ SHMQ_WAIT_SPIN, 50 });
}

TEST(ping_pong_without_membarrier)
{
	setenv("SHMQ_NO_MEMBARRIER", "1", 1);
	check_pingpong(&(struct pingpong){ SHMQ_WAIT_SLEEP, 500 });
}

/* ---- from sleep, message by message -------------------------------------------- */

struct calls {
	_Atomic int woken; /* messages received, so calls answered */
	int rounds, topics;
	enum shmq_wake wake;
	uint32_t partitions;
	uint64_t wakes_most;
	enum shmq_mode mode;
};

static const char *topic_name(int i)
{
	static char name[16];

	snprintf(name, sizeof(name), "t%d", i);
	return name;
}

/* Publish one message whenever the other side sleeps. */
static int call_sleepers(void *arg)
{
	struct calls *c = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub **pub = calloc((size_t)c->topics, sizeof(*pub));
	uint64_t wakes = 0;

	for (int i = 0; i < c->topics; i++)
		pub[i] = open_pub(bus, topic_name(i), .wake = c->wake);
	for (int n = 0; n < c->rounds; n++) {
		int at = (int)(mix((uint64_t)n) % (unsigned)c->topics);
		struct shmq_msg msg = { .data = &n, .len = sizeof(n) };

		msg.partition = (int32_t)(mix((uint64_t)n + 1) % c->partitions);
		await_sleepers(bus, topic_name(at), SHMQ_ROLE_SUBSCRIBER, 1);
		CHECK_OK(shmq_publish_msg(pub[at], &msg));
		await(&c->woken, n + 1);
	}
	for (int i = 0; i < c->topics; i++)
		wakes += pub_stats(pub[i]).wakes;
	CHECK_LE(wakes, c->wakes_most);
	if (c->wake != SHMQ_WAKE_DEFERRED)
		CHECK_GT(wakes, 0);
	free(pub);
	shmq_bus_close(bus);
	return 0;
}

static void check_calls(struct calls given, int (*call)(void *calls))
{
	struct calls *c = shared_memory(sizeof(*c));
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	*c = given;
	c->topics = 1;
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t0", .depth = DEPTH, .partitions = c->partitions, .mode = c->mode);
	sub = open_sub(bus, "t0", .wait = SHMQ_WAIT_SLEEP);
	child = test_spawn(call, c);
	for (int n = 0; n < c->rounds; n++) {
		CHECK_OK(shmq_receive(sub, &msg, SOON));
		CHECK_MEM(msg.data, &n, sizeof(n));
		reach(&c->woken, n + 1);
	}
	CHECK_EQ(test_join(child), 0);
	CHECK_GE(sub_stats(sub).sleeps, c->rounds);
	shmq_bus_close(bus);
	test_bus_stop();
}

static void check_one_sleeper(struct calls given)
{
	check_calls(given, call_sleepers);
}

TEST(a_sleeper_is_woken_by_every_commit)
{
	check_one_sleeper((struct calls){ .rounds = 300, .partitions = 1, .wakes_most = 300 });
}

TEST(a_sleeper_on_five_rings_is_woken_by_any)
{
	check_one_sleeper((struct calls){ .rounds = 200, .partitions = 5, .wakes_most = 200 * 5 });
}

TEST(a_sleeper_on_two_hundred_rings_is_woken_by_any)
{
	check_one_sleeper(
		(struct calls){ .rounds = 100, .partitions = 200, .wakes_most = 100 * 200 });
}

TEST(a_sleeper_is_woken_by_deferred_wakes_and_publish_makes_none)
{
	check_one_sleeper((struct calls){
		.rounds = 200, .partitions = 1, .wake = SHMQ_WAKE_DEFERRED, .wakes_most = 0 });
}

/* Those who defer fence before they look, and sleepers need not make them; each
 * that comes does not, and is gone again. */
static int come_and_go(void *arg)
{
	struct calls *c = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *stays = open_pub(bus, "t0", .wake = SHMQ_WAKE_DEFERRED), *comes = NULL;

	for (int n = 0; n < c->rounds; n++) {
		if (n % 4 == 1)
			comes = open_pub(bus, "t0");
		await_sleepers(bus, "t0", SHMQ_ROLE_SUBSCRIBER, 1);
		CHECK_OK(shmq_publish(n % 2 ? comes : stays, &n, sizeof(n)));
		if (n % 4 == 3)
			shmq_pub_close(comes);
		await(&c->woken, n + 1);
	}
	shmq_bus_close(bus);
	return 0;
}

TEST(a_sleeper_is_woken_whether_those_come_or_go_who_do_not_defer)
{
	check_calls((struct calls){ .rounds = 200, .partitions = 1, .mode = SHMQ_SHARED },
		    come_and_go);
}

TEST(a_sleeper_on_five_rings_is_woken_where_futexes_are_waited_for_one_by_one)
{
	setenv("SHMQ_NO_WAITV", "1", 1);
	check_one_sleeper((struct calls){ .rounds = 200, .partitions = 5, .wakes_most = 200 * 5 });
}

TEST(a_sleeper_is_woken_without_membarrier_and_without_waitv)
{
	setenv("SHMQ_NO_WAITV", "1", 1);
	setenv("SHMQ_NO_MEMBARRIER", "1", 1);
	check_one_sleeper(
		(struct calls){ .rounds = 100, .partitions = 5, .wakes_most = 100 * 500 });
}

/* ---- wait sets -------------------------------------------------------------------- */

static void check_wait_set(struct calls given)
{
	struct calls *c = shared_memory(sizeof(*c));
	shmq_sub **sub, *ready[8];
	struct shmq_msg msg;
	shmq_waitset *set;
	shmq_bus *bus;
	pid_t child;

	*c = given;
	c->partitions = 1;
	test_bus_start();
	bus = test_bus_open();
	sub = calloc((size_t)c->topics, sizeof(*sub));
	CHECK_OK(shmq_waitset_create(bus, &set));
	for (int i = 0; i < c->topics; i++) {
		create(bus, topic_name(i), .depth = DEPTH);
		sub[i] = open_sub(bus, topic_name(i), .wait = SHMQ_WAIT_SLEEP);
		CHECK_OK(shmq_waitset_add(set, sub[i]));
	}
	child = test_spawn(call_sleepers, c);
	for (int n = 0; n < c->rounds; n++) {
		CHECK_EQ(shmq_waitset_wait(set, ready, 8, SOON), 1);
		CHECK(ready[0] == sub[mix((uint64_t)n) % (unsigned)c->topics]);
		CHECK_OK(shmq_receive(ready[0], &msg, SHMQ_NOWAIT));
		CHECK_MEM(msg.data, &n, sizeof(n));
		reach(&c->woken, n + 1);
	}
	CHECK_EQ(test_join(child), 0);
	shmq_waitset_destroy(set);
	free(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_wait_set_of_three_is_woken_by_any)
{
	check_wait_set((struct calls){ .rounds = 200, .topics = 3, .wakes_most = 200 * 3 });
}

TEST(a_wait_set_of_three_is_woken_where_futexes_are_waited_for_one_by_one)
{
	setenv("SHMQ_NO_WAITV", "1", 1);
	check_wait_set((struct calls){ .rounds = 200, .topics = 3, .wakes_most = 200 * 3 });
}

TEST(a_wait_set_of_one_hundred_and_fifty_is_woken_by_any)
{
	check_wait_set((struct calls){ .rounds = 100, .topics = 150, .wakes_most = 100 * 150 });
}

TEST(a_wait_set_of_one_hundred_and_fifty_is_woken_where_futexes_are_waited_for_one_by_one)
{
	setenv("SHMQ_NO_WAITV", "1", 1);
	check_wait_set((struct calls){ .rounds = 50, .topics = 150, .wakes_most = 50 * 150 });
}

TEST(a_wait_set_is_woken_without_membarrier)
{
	setenv("SHMQ_NO_MEMBARRIER", "1", 1);
	check_wait_set((struct calls){ .rounds = 100, .topics = 150, .wakes_most = UINT64_MAX });
}

enum { CROWD = 40 };

static int flood_all(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub[CROWD];
	_Atomic int *stage = arg;

	for (int i = 0; i < CROWD; i++)
		pub[i] = open_pub(bus, topic_name(i));
	await(stage, 1);
	for (uint64_t n = 0; n < 5000; n++)
		for (int i = 0; i < CROWD; i++)
			if (mix(n * CROWD + (uint64_t)i) % 3 == 0)
				CHECK_OK(shmq_publish(pub[i], &n, sizeof(n)));
	shmq_bus_close(bus);
	return 0;
}

TEST(a_wait_set_under_load_starves_nobody_and_ends_with_the_last)
{
	_Atomic int *stage = shared_memory(sizeof(*stage));
	uint64_t expected[CROWD] = { 0 }, got[CROWD] = { 0 }, last[CROWD] = { 0 };
	shmq_sub *sub[CROWD], *ready[CROWD];
	struct shmq_msg msg;
	shmq_waitset *set;
	int open = CROWD;
	shmq_bus *bus;
	pid_t child;

	for (uint64_t n = 0; n < 5000; n++)
		for (uint64_t i = 0; i < CROWD; i++)
			expected[i] += mix(n * CROWD + i) % 3 == 0;
	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_waitset_create(bus, &set));
	for (int i = 0; i < CROWD; i++) {
		create(bus, topic_name(i), .depth = DEPTH);
		sub[i] = open_sub(bus, topic_name(i), .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
		CHECK_OK(shmq_waitset_add(set, sub[i]));
	}
	child = test_spawn(flood_all, (void *)stage);
	reach(stage, 1);
	while (open) {
		/* Three at a time, one message each: the rest must get their turn. */
		int n = shmq_waitset_wait(set, ready, 3, SOON);

		CHECK_GT(n, 0);
		CHECK_LE(n, 3);
		for (int k = 0; k < n; k++) {
			int i = 0, rc;

			while (sub[i] != ready[k])
				i++;
			rc = shmq_receive(ready[k], &msg, SHMQ_NOWAIT);
			if (rc == SHMQ_EENDED) {
				CHECK_EQ(got[i], expected[i]);
				shmq_sub_close(sub[i]); /* leaves the set */
				sub[i] = NULL;
				open--;
				continue;
			}
			CHECK_OK(rc);
			if (got[i]++)
				CHECK_GT(*(const uint64_t *)msg.data, last[i]);
			last[i] = *(const uint64_t *)msg.data;
		}
	}
	CHECK_EQ(test_join(child), 0);
	CHECK_ERROR(shmq_waitset_wait(set, ready, 3, SHMQ_FOREVER), SHMQ_EEMPTY);
	shmq_waitset_destroy(set);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_wait_set_gives_everybody_its_turn)
{
	unsigned served[10] = { 0 };
	shmq_sub *sub[10], *ready[2];
	struct shmq_msg msg;
	shmq_waitset *set;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_waitset_create(bus, &set));
	for (int i = 0; i < 10; i++) {
		shmq_pub *pub;

		create(bus, topic_name(i), .depth = DEPTH);
		sub[i] = open_sub(bus, topic_name(i));
		CHECK_OK(shmq_waitset_add(set, sub[i]));
		pub = open_pub(bus, topic_name(i));
		for (int n = 0; n < 100; n++)
			CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	}
	/* All are always ready; in fifty rounds of two each has its ten. */
	for (int round = 0; round < 50; round++) {
		CHECK_EQ(shmq_waitset_wait(set, ready, 2, SHMQ_NOWAIT), 2);
		for (int k = 0; k < 2; k++)
			for (int i = 0; i < 10; i++)
				if (ready[k] == sub[i]) {
					CHECK_OK(shmq_receive(sub[i], &msg, SHMQ_NOWAIT));
					served[i]++;
				}
	}
	for (int i = 0; i < 10; i++)
		CHECK_EQ(served[i], 10);
	shmq_waitset_destroy(set);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- what else wakes ----------------------------------------------------------------- */

static int end_topic(void *arg)
{
	shmq_bus *bus = test_bus_open();

	(void)arg;
	await_sleepers(bus, "t0", SHMQ_ROLE_SUBSCRIBER, 1);
	CHECK_OK(shmq_topic_remove(bus, "t0", SHMQ_FORCE));
	shmq_bus_close(bus);
	return 0;
}

static int leave_topic(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t0");

	reach(arg, 1);
	await_sleepers(bus, "t0", SHMQ_ROLE_SUBSCRIBER, 1);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static int die_on_topic(void *arg)
{
	shmq_bus *bus = test_bus_open();

	open_pub(bus, "t0");
	reach(arg, 1);
	await_sleepers(bus, "t0", SHMQ_ROLE_SUBSCRIBER, 1);
	raise(SIGKILL);
	return 1;
}

static int stop_bus(void *arg)
{
	shmq_bus *bus = test_bus_open();

	(void)arg;
	await_sleepers(bus, "t0", SHMQ_ROLE_SUBSCRIBER, 1);
	CHECK_OK(shmq_bus_stop(bus, SHMQ_FORCE));
	shmq_bus_close(bus);
	return 0;
}

static void check_end(int (*fn)(void *), int status, unsigned flags)
{
	_Atomic int *stage = shared_memory(sizeof(*stage));
	struct shmq_msg msg;
	shmq_sub *sub, *ready[1];
	shmq_waitset *set;
	shmq_bus *bus;
	pid_t child;

	for (int by_set = 0; by_set < 2; by_set++) {
		reach(stage, 0);
		test_bus_start();
		bus = test_bus_open();
		create(bus, "t0", .depth = DEPTH, .partitions = 3);
		sub = open_sub(bus, "t0", .wait = SHMQ_WAIT_SLEEP, .flags = flags);
		CHECK_OK(shmq_waitset_create(bus, &set));
		CHECK_OK(shmq_waitset_add(set, sub));
		child = test_spawn(fn, (void *)stage);
		if (flags)
			await(stage, 1);
		if (by_set) {
			CHECK_EQ(shmq_waitset_wait(set, ready, 1, SOON), 1);
			CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EENDED);
		} else {
			CHECK_ERROR(shmq_receive(sub, &msg, SOON), SHMQ_EENDED);
		}
		CHECK_EQ(test_join(child), status);
		shmq_waitset_destroy(set);
		shmq_bus_close(bus);
		test_bus_stop();
	}
}

TEST(a_sleeper_is_woken_by_the_removal_of_its_topic)
{
	check_end(end_topic, 0, 0);
}

TEST(a_sleeper_is_woken_by_the_end_of_its_bus)
{
	check_end(stop_bus, 0, 0);
}

TEST(a_sleeper_is_woken_when_the_last_publisher_leaves)
{
	check_end(leave_topic, 0, SHMQ_SUB_END_WITH_PUBLISHERS);
}

TEST(a_sleeper_is_woken_when_the_last_publisher_dies)
{
	check_end(die_on_topic, 128 + SIGKILL, SHMQ_SUB_END_WITH_PUBLISHERS);
}

/* ---- what does not ---------------------------------------------------------------------- */

TEST(a_publish_that_finds_nobody_asleep_makes_no_system_call)
{
	struct shmq_msg many[100] = { { 0 } }, msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP); /* at once, not after a spin */
	pub = open_pub(bus, "t");
	for (int n = 0; n < 500; n++) {
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(sub, &msg, SOON));
	}
	CHECK_EQ(pub_stats(pub).wakes, 0);
	/* Slept once, woken once: with the whole batch. */
	do /* whose time is over before it sleeps does not */
		CHECK_ERROR(shmq_receive(sub, &msg, MILLISECOND), SHMQ_ETIMEOUT);
	while (!sub_stats(sub).sleeps);
	CHECK_EQ(sub_stats(sub).sleeps, 1);
	CHECK_EQ(shmq_publish_batch(pub, many, 100, 0), 100);
	CHECK_EQ(pub_stats(pub).wakes, 1);
	CHECK_EQ(shmq_publish_batch(pub, many, 100, SHMQ_ATOMIC), 100);
	CHECK_EQ(pub_stats(pub).wakes, 1);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(on_a_spin_only_topic_nobody_sleeps_whatever_is_asked)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .flags = SHMQ_TOPIC_SPIN_ONLY,
	       .block_timeout_ns = MILLISECOND);
	CHECK_EQ(topic_info(bus, "t").wait, SHMQ_WAIT_SPIN);
	sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	pub = open_pub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	CHECK_ERROR(shmq_receive(sub, &msg, 5 * MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_EQ(sub_stats(sub).sleeps, 0);
	for (int n = 0; n < DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	CHECK_ERROR(shmq_publish(pub, "x", 1), SHMQ_ETIMEOUT);
	for (int n = 0; n < DEPTH; n++)
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(pub_stats(pub).wakes, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- deferred wakes, served by the caller --------------------------------------------------- */

static int sleep_for_one(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	struct shmq_msg msg;

	reach(arg, 1);
	CHECK_OK(shmq_receive(sub, &msg, SOON));
	reach(arg, 2);
	shmq_bus_close(bus);
	return 0;
}

TEST(deferred_wakes_are_made_by_the_caller_that_serves)
{
	struct shmq_bus_options o = { .size = sizeof(o), .serve = SHMQ_SERVE_CALLER };
	_Atomic int *stage = shared_memory(sizeof(*stage));
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t child;

	test_bus_start();
	o.runtime_dir = test_bus_dir();
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &bus));
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t", .wake = SHMQ_WAKE_DEFERRED);
	child = test_spawn(sleep_for_one, (void *)stage);
	await(stage, 1);
	await_sleepers(bus, "t", SHMQ_ROLE_SUBSCRIBER, 1);
	test_sleep_ms(20); /* let it go from shown asleep to asleep */
	CHECK_OK(shmq_publish(pub, "x", 1));
	test_sleep_ms(20);
	CHECK_EQ(atomic_load(stage), 1); /* nobody has called it yet */
	CHECK_GE(shmq_bus_serve(bus, SHMQ_NOWAIT), 1);
	await(stage, 2);
	CHECK_EQ(test_join(child), 0);
	CHECK_EQ(pub_stats(pub).wakes, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int count_sleeps(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	struct shmq_msg msg;
	uint64_t sleeps;

	CHECK_OK(shmq_receive(sub, &msg, SOON));
	sleeps = sub_stats(sub).sleeps;
	shmq_bus_close(bus);
	return (int)sleeps;
}

TEST(a_deferred_wake_is_for_those_who_slept_when_something_was_sent)
{
	struct shmq_bus_options o = { .size = sizeof(o), .serve = SHMQ_SERVE_CALLER };
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t child;

	test_bus_start();
	o.runtime_dir = test_bus_dir();
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &bus));
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t", .wake = SHMQ_WAKE_DEFERRED);
	CHECK_OK(shmq_publish(pub, "x", 1));
	child = test_spawn(count_sleeps, NULL);
	for (int i = 0; i < 10; i++) {
		await_sleepers(bus, "t", SHMQ_ROLE_SUBSCRIBER, 1);
		/* The first look is for what was sent before, and may wake. */
		CHECK_GE(shmq_bus_serve(bus, SHMQ_NOWAIT), 0);
		test_sleep_ms(2); /* who is woken sleeps again */
	}
	CHECK_OK(shmq_publish(pub, "x", 1));
	CHECK_GE(shmq_bus_serve(bus, SHMQ_NOWAIT), 0);
	CHECK_LE(test_join(child), 2);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- signals ----------------------------------------------------------------------------------
 */

static shmq_pub *handler_pub;
static _Atomic int *handled;

static void publish_in_handler(int sig)
{
	int n = atomic_fetch_add(handled, 1) + 1;

	(void)sig;
	if (n % 10 == 0) /* a handle that nobody is in a call on */
		CHECK_OK(shmq_publish(handler_pub, &n, sizeof(n)));
}

static int interrupt_parent(void *arg)
{
	shmq_bus *bus = test_bus_open();
	_Atomic int *stage = arg;

	for (int n = 0; n < 100; n++) {
		await_sleepers(bus, "t", SHMQ_ROLE_SUBSCRIBER, 1);
		CHECK_OK(kill(getppid(), SIGUSR1));
		await(handled, n + 1);
		await(stage, (n + 1) / 10 * 10);
	}
	shmq_bus_close(bus);
	return 0;
}

TEST(a_sleeper_is_interrupted_by_signals_and_a_handler_may_publish)
{
	struct sigaction action = { .sa_handler = publish_in_handler }; /* no SA_RESTART */
	_Atomic int *stage = shared_memory(sizeof(*stage));
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	handler_pub = open_pub(bus, "t");
	handled = shared_memory(sizeof(*handled));
	CHECK_OK(sigaction(SIGUSR1, &action, NULL));
	child = test_spawn(interrupt_parent, (void *)stage);
	for (int n = 10; n <= 100; n += 10) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_MEM(msg.data, &n, sizeof(n));
		reach(stage, n);
	}
	CHECK_EQ(test_join(child), 0);
	CHECK_EQ(atomic_load(handled), 100);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- threads ------------------------------------------------------------------------------------
 */

enum { THREADS = 4, THREAD_ROUNDS = 60 };

struct worker {
	shmq_bus *bus;
	int number;
	pthread_t thread;
};

/* Handles come and go on one bus while others are in use. */
static void *use_bus(void *arg)
{
	struct worker *w = arg;
	struct shmq_msg msg;
	char own[16];

	snprintf(own, sizeof(own), "own%d", w->number);
	for (uint64_t n = 0; n < THREAD_ROUNDS; n++) {
		shmq_pub *all, *pub;
		shmq_sub *sub;

		create(w->bus, own, .depth = DEPTH, .max_message_bytes = n % 2 ? 0 : 1000);
		sub = open_sub(w->bus, own, .wait = SHMQ_WAIT_SLEEP);
		pub = open_pub(w->bus, own);
		all = open_pub(w->bus, "all");
		CHECK_OK(shmq_publish(all, &w->number, sizeof(w->number)));
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(sub, &msg, SOON));
		CHECK_MEM(msg.data, &n, sizeof(n));
		shmq_pub_close(all);
		shmq_pub_close(pub);
		shmq_sub_close(sub);
		CHECK_ERROR(shmq_topic_create(w->bus, "all", NULL, NULL), SHMQ_EEXISTS);
		CHECK(strstr(shmq_bus_error(w->bus), "all") != NULL); /* this thread's own line */
		CHECK_OK(shmq_topic_remove(w->bus, own, 0));
	}
	return NULL;
}

TEST(threads_share_a_bus_each_with_its_own_handles)
{
	struct worker w[THREADS];
	int count[THREADS] = { 0 };
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "all", .depth = DEPTH, .mode = SHMQ_SHARED);
	sub = open_sub(bus, "all", .wait = SHMQ_WAIT_SLEEP);
	for (int i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .bus = bus, .number = i };
		CHECK_EQ(pthread_create(&w[i].thread, NULL, use_bus, &w[i]), 0);
	}
	for (int n = 0; n < THREADS * THREAD_ROUNDS; n++) {
		CHECK_OK(shmq_receive(sub, &msg, SOON));
		count[*(const int *)msg.data]++;
	}
	for (int i = 0; i < THREADS; i++) {
		CHECK_EQ(pthread_join(w[i].thread, NULL), 0);
		CHECK_EQ(count[i], THREAD_ROUNDS);
	}
	CHECK_EQ(topic_info(bus, "all").publishers, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}
