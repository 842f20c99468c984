/* SPDX-License-Identifier: MIT
 *
 * Topics come, are published to at once and go, under the eyes of subscribers by
 * pattern, while the supervisor, or a subscriber, is killed again and again.
 */
#include "traffic.h"

enum { CREATORS = 2, TOPICS_MAX = 4096, DEPTH = 1024, EACH = 1500, KILL_MS = 60 };

struct coming {
	_Atomic int stop, ready;
	_Atomic unsigned made[CREATORS]; /* topics that were published to, in full */
	_Atomic unsigned read[CREATORS];
	unsigned creator;
};

static struct coming *coming;

/* Nothing of it takes longer than the supervisor is away. */
static int creator(void *arg)
{
	unsigned me = *(unsigned *)arg, n = 0, i;
	shmq_bus *bus = open_with(.timeout_ns = PATIENCE);
	char name[32];
	shmq_pub *pub;

	while (!atomic_load(&coming->stop) && n < TOPICS_MAX) {
		snprintf(name, sizeof(name), "t.%u.%u", me, n);
		create(bus, name, .depth = DEPTH);
		pub = open_pub(bus, name);
		for (i = 0; i < EACH; i++)
			CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
		shmq_pub_close(pub);
		CHECK_OK(shmq_topic_remove(bus, name, 0));
		atomic_store(&coming->made[me], ++n);
	}
	shmq_bus_close(bus);
	return 0;
}

static int all_is_read(void)
{
	for (unsigned i = 0; i < CREATORS; i++)
		if (atomic_load(&coming->read[i]) < atomic_load(&coming->made[i]))
			return 0;
	return 1;
}

/* Every message of every topic, in its order. */
static int reader(void *arg)
{
	static unsigned next[CREATORS][TOPICS_MAX];
	shmq_bus *bus = open_with(.timeout_ns = PATIENCE);
	shmq_sub *sub = open_sub(bus, "t.#");
	struct shmq_msg msg;
	unsigned me, n, value;
	int rc;

	(void)arg;
	reach(&coming->ready, 1);
	while (atomic_load(&coming->stop) < 2 || !all_is_read()) {
		rc = shmq_receive(sub, &msg, 10 * MILLISECOND);
		if (rc == SHMQ_ETIMEOUT)
			continue;
		if (rc)
			FAIL("%s: %s", shmq_sub_topic(sub), shmq_errname(rc));
		CHECK_EQ(sscanf(shmq_sub_topic(sub), "t.%u.%u", &me, &n), 2);
		CHECK(me < CREATORS && n < TOPICS_MAX);
		memcpy(&value, msg.data, sizeof(value));
		CHECK_EQ(value, next[me][n]++);
		CHECK_EQ(msg.seq, value);
		if (next[me][n] == EACH)
			atomic_fetch_add(&coming->read[me], 1);
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_EQ(sub_stats(sub).received,
		 EACH * (uint64_t)(atomic_load(&coming->read[0]) + atomic_load(&coming->read[1])));
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

static int accepts(void *arg)
{
	(void)arg;
	/* Callers queue while there is a parent alone: another must hold all of it. */
	return test_bus_signal("control", 0) > 0 && test_bus_signal("parent", 0) > 0 &&
	       test_bus_accepts();
}

static void run(const char *const *roles, unsigned count, unsigned deaths)
{
	unsigned me[CREATORS] = { 0, 1 }, killed = 0, i;
	pid_t reads, creates[CREATORS];

	coming = shared_memory(sizeof(*coming));
	test_bus_start();
	reads = test_spawn(reader, NULL);
	await(&coming->ready, 1);
	for (i = 0; i < CREATORS; i++)
		creates[i] = test_spawn(creator, &me[i]);
	for (i = 0; i < deaths; i++) {
		test_sleep_ms(KILL_MS);
		test_bus_await_killed(); /* who is still dying is no worker to go on with */
		/* A parent that dies with its worker leaves nobody to go on. */
		CHECK(test_wait_until(accepts, NULL, 20000));
		killed += (unsigned)test_bus_kill(roles[i % count]);
	}
	atomic_store(&coming->stop, 1);
	for (i = 0; i < CREATORS; i++)
		CHECK_EQ(test_join(creates[i]), 0);
	atomic_store(&coming->stop, 2);
	CHECK_EQ(test_join(reads), 0);
	CHECK_GT(atomic_load(&coming->made[0]), deaths / 4);
	CHECK_GE(killed, deaths / 2);
	NOTE("%u and %u topics, %u killed", atomic_load(&coming->made[0]),
	     atomic_load(&coming->made[1]), killed);
	test_bus_stop();
}

TEST_WITHIN(of_topics_that_come_while_workers_are_killed_nothing_is_missed, 240)
{
	static const char *const roles[] = { "control", "control", "parent" };

	run(roles, COUNT(roles), getenv("SHMQ_TORTURE") ? 1000 : 60);
}

/* ---- a subscriber dies ------------------------------------------------------- */

static int victim(void *arg)
{
	shmq_bus *bus = open_with(.timeout_ns = PATIENCE);
	shmq_sub *sub = open_sub(bus, "t.#");
	struct shmq_msg msg;

	(void)arg;
	reach(&coming->ready, 1);
	for (;;) {
		int rc = shmq_receive(sub, &msg, SHMQ_FOREVER);

		if (rc)
			FAIL("%s: %s", shmq_sub_topic(sub), shmq_errname(rc));
	}
}

TEST_WITHIN(a_subscriber_that_is_killed_holds_no_topic_that_comes, 120)
{
	unsigned me[CREATORS] = { 0, 1 }, i, deaths = getenv("SHMQ_TORTURE") ? 400 : 40;
	pid_t creates[CREATORS];
	shmq_bus *bus;

	coming = shared_memory(sizeof(*coming));
	test_bus_start();
	bus = test_bus_open();
	for (i = 0; i < CREATORS; i++)
		creates[i] = test_spawn(creator, &me[i]);
	for (i = 0; i < deaths; i++) {
		pid_t pid;

		reach(&coming->ready, 0);
		pid = test_spawn(victim, NULL);
		await(&coming->ready, 1);
		if (i % 2)
			test_sleep_ms(20);
		CHECK_EQ(test_kill_wait(pid, SIGKILL), 128 + SIGKILL);
	}
	atomic_store(&coming->stop, 1);
	for (i = 0; i < CREATORS; i++)
		CHECK_EQ(test_join(creates[i]), 0);
	create(bus, "t.last");
	CHECK_EQ(topic_info(bus, "t.last").subscribers, 0);
	NOTE("%u and %u topics", atomic_load(&coming->made[0]), atomic_load(&coming->made[1]));
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- the supervisor is away ---------------------------------------------------- */

TEST_WITHIN(a_handle_that_is_closed_while_the_supervisor_is_away_holds_nothing_after, 120)
{
	shmq_bus *bus, *other;
	shmq_sub *sub;
	unsigned i;

	test_bus_start();
	bus = test_bus_open();
	other = test_bus_open();
	for (i = 0; i < 20; i++) {
		char name[16];

		sub = open_sub(bus, "t.*");
		snprintf(name, sizeof(name), "t.%u", i);
		create(other, name);
		test_bus_kill("control");
		shmq_sub_close(sub);
		CHECK_OK(shmq_topic_remove(other, name, 0));
		snprintf(name, sizeof(name), "u.%u", i);
		create(bus, name);
		CHECK_EQ(topic_info(bus, name).subscribers, 0);
	}
	shmq_bus_close(other);
	shmq_bus_close(bus);
	test_bus_stop();
}
