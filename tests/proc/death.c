/* SPDX-License-Identifier: MIT
 *
 * Processes that are killed, or stop, at the worst of moments: the others
 * go on, nothing that was committed is lost, nothing half is seen.
 */
#include "raw.h"

#include <sys/prctl.h>

enum { DEPTH = 1024 };

/* What a wake by the bell or by recovery takes at most; far below the ten
 * seconds after which a sleeper looks by itself. */
#define SOON (5 * SECOND * test_slowdown())

struct stage {
	_Atomic int at;
	_Atomic unsigned client;
	_Atomic uint64_t count;
	const char *topic;
};

static struct stage *new_stage(const char *topic)
{
	struct stage *stage = shared_memory(sizeof(*stage));

	stage->topic = topic;
	return stage;
}

static _Noreturn void die(void)
{
	raise(SIGKILL);
	_exit(1);
}

/* A child of fn that must end by SIGKILL. */
static void run_until_killed(int (*fn)(void *), struct stage *stage)
{
	CHECK_EQ(test_join(test_spawn(fn, stage)), 128 + SIGKILL);
}

static shmq_bus *open_bus_of_child(struct stage *stage)
{
	shmq_bus *bus = test_bus_open();

	atomic_store(&stage->client, shmq_bus_client_id(bus));
	return bus;
}

static uint64_t voids_of(shmq_bus *bus, const char *topic)
{
	struct shmq_partition_info part;

	CHECK_OK(shmq_topic_get_partition(bus, topic, 0, &part));
	return part.voids;
}

static void publish_number(shmq_pub *pub, uint64_t n)
{
	CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
}

static uint64_t receive_number(shmq_sub *sub, int64_t timeout_ns)
{
	struct shmq_msg msg;
	uint64_t n;

	CHECK_OK(shmq_receive(sub, &msg, timeout_ns));
	CHECK_EQ(msg.len, sizeof(n));
	memcpy(&n, msg.data, sizeof(n));
	return n;
}

/* ---- around one claim ---------------------------------------------------- */

static int die_before_a_claim(void *arg)
{
	struct stage *stage = arg;
	struct raw raw;

	raw_open(&raw, open_bus_of_child(stage), stage->topic);
	die();
}

TEST(a_publisher_killed_before_its_claim_leaves_nothing)
{
	struct stage *stage = new_stage("t");
	struct shmq_event event;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	for (int shared = 0; shared < 2; shared++) {
		stage->topic = shared ? "shared" : "exclusive";
		create(bus, stage->topic, .depth = DEPTH,
		       .mode = shared ? SHMQ_SHARED : SHMQ_EXCLUSIVE);
		sub = open_sub(bus, stage->topic);
		run_until_killed(die_before_a_claim, stage);
		event = await_event(bus, SHMQ_EVENT_DIED, stage->client);
		CHECK_EQ(event.role, SHMQ_ROLE_PUBLISHER);
		CHECK_STR(event.topic, stage->topic);
		CHECK_EQ(topic_info(bus, stage->topic).publishers, 0);
		CHECK_EQ(voids_of(bus, stage->topic), 0);
		pub = open_pub(bus, stage->topic);
		publish_number(pub, 5);
		CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), 5);
		shmq_pub_close(pub);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Commits one, claims the next, half writes it, and dies when told. */
static int die_in_a_claim(void *arg)
{
	struct stage *stage = arg;
	uint64_t n = 7, seq;
	struct raw raw;

	raw_open(&raw, open_bus_of_child(stage), stage->topic);
	seq = raw_claim(&raw);
	raw_write(&raw, seq, &n, sizeof(n), NULL);
	raw_commit(&raw, seq);
	raw_ring(&raw);
	seq = raw_claim(&raw);
	raw_write(&raw, seq, &n, sizeof(n) / 2, NULL);
	reach(&stage->at, 1);
	await(&stage->at, 2);
	die();
}

TEST(a_claim_of_the_dead_is_voided_and_the_others_go_on)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_LOSSY,
						     SHMQ_EVICT };
	struct shmq_msg msg;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (int k = 0; k < 4; k++) {
		char topic[2] = { (char)('a' + k), 0 };
		struct stage *stage = new_stage(topic);
		shmq_pub *pub;
		shmq_sub *sub;
		pid_t child;

		create(bus, topic, .depth = DEPTH, .mode = SHMQ_SHARED, .policy = policies[k]);
		sub = open_sub(bus, topic, .wait = SHMQ_WAIT_SLEEP);
		pub = open_pub(bus, topic);
		child = test_spawn(die_in_a_claim, stage);
		await(&stage->at, 1);
		publish_number(pub, 8);
		CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), 7);
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT),
			    SHMQ_EEMPTY); /* its claim is open */
		reach(&stage->at, 2);
		CHECK_EQ(receive_number(sub, SOON), 8);
		CHECK_EQ(test_join(child), 128 + SIGKILL);
		await_event(bus, SHMQ_EVENT_DIED, stage->client);
		CHECK_EQ(voids_of(bus, topic), 1);
		CHECK_EQ(topic_info(bus, topic).head, 3);
		CHECK_EQ(sub_stats(sub).received, 2);
		CHECK_EQ(sub_stats(sub).lost, 0); /* a void is no message */
		/* And round the ring over the hole. */
		for (uint64_t n = 9; n < 9 + 3 * DEPTH; n++) {
			publish_number(pub, n);
			CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), n);
		}
		shmq_pub_close(pub);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_reader_lapped_over_a_void_counts_it_not)
{
	struct stage *stage = new_stage("t");
	struct shmq_msg msg;
	uint64_t lost = 0, received = 0;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .policy = SHMQ_LOSSY);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	for (int deaths = 0; deaths < 3; deaths++) {
		child = test_spawn(die_in_a_claim, stage);
		await(&stage->at, 1);
		reach(&stage->at, 2);
		CHECK_EQ(test_join(child), 128 + SIGKILL);
		await_event(bus, SHMQ_EVENT_DIED, stage->client);
		stage->at = 0;
		for (uint64_t n = 0; n < 100; n++)
			publish_number(pub, n);
	}
	for (uint64_t n = 0; n < 2 * DEPTH; n++)
		publish_number(pub, n);
	while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		if (rc == SHMQ_EOVERRUN) {
			lost += msg.lost;
			CHECK_EQ(msg.lost_is_bound, 0);
			continue;
		}
		CHECK_OK(rc);
		received++;
	}
	CHECK_EQ(received + lost, 3 + 300 + 2 * DEPTH);
	CHECK_EQ(topic_info(bus, "t").head, 3 + 3 + 300 + 2 * DEPTH);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int die_between_commit_and_bell(void *arg)
{
	struct stage *stage = arg;
	uint64_t n = 7, seq;
	struct raw raw;

	raw_open(&raw, open_bus_of_child(stage), stage->topic);
	seq = raw.w.geo.mode == SHMQ_SHARED ? raw_claim(&raw) : raw.w.next;
	raw_write(&raw, seq, &n, sizeof(n), NULL);
	reach(&stage->at, 1);
	await(&stage->at, 2);
	raw_commit(&raw, seq);
	die();
}

static int tell_when_asleep(void *arg)
{
	struct stage *stage = arg;
	shmq_bus *bus = test_bus_open();

	await(&stage->at, 1);
	await_sleepers(bus, stage->topic, SHMQ_ROLE_SUBSCRIBER, 1);
	/* Shown asleep just before it arms the bell and looks; let it. */
	test_sleep_ms(20);
	reach(&stage->at, 2);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_sleeper_hears_of_a_commit_whose_publisher_died_before_the_bell)
{
	struct stage *stage = new_stage("t");
	pid_t publisher, watcher;
	shmq_bus *bus;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	for (int shared = 0; shared < 2; shared++) {
		stage->topic = shared ? "shared" : "exclusive";
		stage->at = 0;
		create(bus, stage->topic, .depth = DEPTH,
		       .mode = shared ? SHMQ_SHARED : SHMQ_EXCLUSIVE);
		sub = open_sub(bus, stage->topic, .wait = SHMQ_WAIT_SLEEP);
		publisher = test_spawn(die_between_commit_and_bell, stage);
		watcher = test_spawn(tell_when_asleep, stage);
		CHECK_EQ(receive_number(sub, SOON), 7);
		CHECK_EQ(test_join(publisher), 128 + SIGKILL);
		CHECK_EQ(test_join(watcher), 0);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_sleeper_behind_an_open_claim_hears_of_its_death)
{
	struct stage *stage = new_stage("t");
	pid_t publisher, watcher;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	pub = open_pub(bus, "t");
	publisher = test_spawn(die_in_a_claim, stage);
	await(&stage->at, 1);
	publish_number(pub, 8);
	CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), 7);
	watcher = test_spawn(tell_when_asleep, stage);
	CHECK_EQ(receive_number(sub, SOON), 8);
	CHECK_EQ(test_join(publisher), 128 + SIGKILL);
	CHECK_EQ(test_join(watcher), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- atomic batches ---------------------------------------------------------- */

/* Eight messages, of which the last three are committed. */
static int die_in_a_batch(void *arg)
{
	struct stage *stage = arg;
	uint64_t seq[8];
	struct raw raw;

	raw_open(&raw, open_bus_of_child(stage), stage->topic);
	for (int i = 0; i < 8; i++)
		seq[i] = raw.w.geo.mode == SHMQ_SHARED ? raw_claim(&raw) : raw.w.next + (uint64_t)i;
	for (uint32_t i = 0; i < 8; i++) {
		struct lay_batch batch = { seq[0], i, 8 };

		raw_write(&raw, seq[i], "member", 6, &batch);
	}
	for (int i = 7; i > 4; i--)
		raw_commit(&raw, seq[i]);
	raw_ring(&raw);
	reach(&stage->at, 1);
	await(&stage->at, 2);
	die();
}

TEST(a_batch_whose_publisher_died_in_it_is_seen_by_nobody)
{
	struct stage *stage = new_stage("t");
	struct shmq_msg msg;
	shmq_sub *sub, *late;
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	for (int k = 0; k < 4; k++) {
		char topic[2] = { (char)('a' + k), 0 };

		stage->topic = topic;
		stage->at = 0;
		create(bus, topic, .depth = DEPTH, .mode = k % 2 ? SHMQ_SHARED : SHMQ_EXCLUSIVE,
		       .policy = k / 2 ? SHMQ_LOSSY : SHMQ_BLOCK);
		sub = open_sub(bus, topic);
		child = test_spawn(die_in_a_batch, stage);
		await(&stage->at, 1);
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		reach(&stage->at, 2);
		CHECK_EQ(test_join(child), 128 + SIGKILL);
		await_event(bus, SHMQ_EVENT_DIED, stage->client);
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		pub = open_pub(bus, topic);
		publish_number(pub, 5);
		CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), 5);
		CHECK_EQ(sub_stats(sub).lost, 0);
		late = open_sub(bus, topic, .from = SHMQ_FROM_OLDEST);
		CHECK_EQ(receive_number(late, SHMQ_NOWAIT), 5);
		CHECK_EQ(sub_stats(late).lost, 0);
		CHECK_EQ(voids_of(bus, topic), topic_info(bus, topic).head - 1);
		shmq_sub_close(late);
		shmq_sub_close(sub);
		shmq_pub_close(pub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Closes in the middle of a batch, which the library never does, and lives on. */
static int close_in_a_batch(void *arg)
{
	struct stage *stage = arg;
	uint64_t seq[8];
	struct raw raw;

	raw_open(&raw, open_bus_of_child(stage), stage->topic);
	for (int i = 0; i < 8; i++)
		seq[i] = raw_claim(&raw);
	for (uint32_t i = 0; i < 8; i++) {
		struct lay_batch batch = { seq[0], i, 8 };

		raw_write(&raw, seq[i], "member", 6, &batch);
	}
	for (int i = 7; i > 0; i--)
		raw_commit(&raw, seq[i]);
	raw_close(&raw);
	reach(&stage->at, 1);
	await(&stage->at, 2);
	return 0;
}

TEST(a_batch_that_nobody_owns_any_more_is_seen_by_nobody)
{
	struct stage *stage = new_stage("t");
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	sub = open_sub(bus, "t");
	child = test_spawn(close_in_a_batch, stage);
	await(&stage->at, 1);
	pub = open_pub(bus, "t");
	publish_number(pub, 5);
	/* The first is reported by who waits for it; the rest is not for it. */
	CHECK_EQ(receive_number(sub, SOON), 5);
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_EQ(voids_of(bus, "t"), 8);
	reach(&stage->at, 2);
	CHECK_EQ(test_join(child), 0);
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- killed anywhere ----------------------------------------------------------- */

struct crash {
	_Atomic int started;
	_Atomic unsigned client;
	_Atomic uint64_t returned; /* batches whose publish came back */
	uint64_t incarnation;
	const char *topic;
	size_t most;
};

struct crash_member {
	uint64_t incarnation, batch;
	uint32_t index, count;
	char filling[];
};

static size_t crash_len(const struct crash *c, uint64_t incarnation, uint64_t batch, uint32_t index)
{
	return sizeof(struct crash_member) + mix(incarnation << 40 | batch << 8 | index) %
						     (c->most - sizeof(struct crash_member));
}

/* Batches, every fourth of one message and not atomic, until killed. */
static int publish_until_killed(void *arg)
{
	struct crash *c = arg;
	static char bytes[12][2000];
	static struct shmq_msg many[12];
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, c->topic);

	atomic_store(&c->client, shmq_bus_client_id(bus));
	reach(&c->started, 1);
	for (uint64_t batch = 0;; batch++) {
		uint32_t count = batch % 4 ? 2 + (uint32_t)batch % 11 : 1;

		for (uint32_t i = 0; i < count; i++) {
			struct crash_member *m = (struct crash_member *)bytes[i];

			*m = (struct crash_member){ c->incarnation, batch, i, count };
			many[i] =
				(struct shmq_msg){ .data = m,
						   .len = crash_len(c, c->incarnation, batch, i) };
			fill(m->filling, many[i].len - sizeof(*m), c->incarnation << 32 | batch);
		}
		CHECK_EQ(shmq_publish_batch(pub, many, count, count > 1 ? SHMQ_ATOMIC : 0), count);
		atomic_fetch_add(&c->returned, 1);
	}
}

struct crash_seen {
	uint64_t incarnation, batches;
	uint32_t next, count;
};

/* One message, if there is one: 1, else 0. */
static int see_one(shmq_sub *sub, const struct crash *c, struct crash_seen *seen,
		   int64_t timeout_ns)
{
	const struct crash_member *m;
	struct shmq_msg msg;
	int rc = shmq_receive(sub, &msg, timeout_ns);

	if (rc == SHMQ_EEMPTY || rc == SHMQ_ETIMEOUT)
		return 0;
	CHECK_OK(rc);
	m = msg.data;
	CHECK_EQ(m->incarnation, c->incarnation);
	CHECK_EQ(m->batch, seen->batches);
	CHECK_EQ(m->index, seen->next);
	CHECK_EQ(msg.len, crash_len(c, m->incarnation, m->batch, m->index));
	CHECK(is_filled(m->filling, msg.len - sizeof(*m), m->incarnation << 32 | m->batch));
	seen->count = m->count;
	seen->next = m->index + 1 == m->count ? 0 : m->index + 1;
	seen->batches += !seen->next;
	return 1;
}

/* Sixty arenas, one leaked at each death, would be more than ten times this;
 * the table of clients may grow a little, as ids are given out in turn. */
enum { SLACK = 256 << 10 };

static void check_crashes(enum shmq_mode mode, size_t most, int rounds)
{
	struct crash *c = shared_memory(sizeof(*c));
	uint64_t before = 0, total = 0;
	struct shmq_bus_info info;
	shmq_bus *bus;
	shmq_sub *sub;

	c->topic = "t";
	c->most = most;
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = mode, .max_message_bytes = most);
	sub = open_sub(bus, "t");
	for (int round = 0; round < rounds; round++) {
		struct crash_seen seen = { 0 };
		pid_t child;

		c->incarnation = (uint64_t)round + 1;
		c->returned = 0;
		c->started = 0;
		child = test_spawn(publish_until_killed, c);
		await(&c->started, 1);
		if (round % 2) /* reading along, or not: then it may die blocked */
			for (uint64_t i = 0; i < mix((uint64_t)round) % 20000; i++)
				CHECK(see_one(sub, c, &seen, PATIENCE));
		else
			usleep((useconds_t)(mix((uint64_t)round) % 3000));
		CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
		await_event(bus, SHMQ_EVENT_DIED, c->client);
		while (see_one(sub, c, &seen, SHMQ_NOWAIT))
			;
		CHECK_EQ(seen.next, 0); /* no batch half */
		CHECK_GE(seen.batches, c->returned);
		CHECK_LE(seen.batches, c->returned + 1);
		CHECK_OK(shmq_release(sub));
		total += seen.batches;
		CHECK_OK(shmq_bus_get_info(bus, &info));
		if (round == 5)
			before = info.bytes;
		else if (round > 5)
			CHECK_LE(info.bytes, before + SLACK);
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
	NOTE("%d kills, %llu batches, %llu slots voided", rounds, (unsigned long long)total,
	     (unsigned long long)voids_of(bus, "t"));
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_exclusive_publisher_killed_anywhere_loses_nothing_and_has_successors)
{
	check_crashes(SHMQ_EXCLUSIVE, 96, 60);
}

TEST(a_shared_publisher_killed_anywhere_loses_nothing)
{
	check_crashes(SHMQ_SHARED, 96, 60);
}

TEST(a_publisher_of_arena_messages_killed_anywhere_loses_nothing_and_no_memory)
{
	check_crashes(SHMQ_EXCLUSIVE, 2000, 60);
}

TEST(a_shared_publisher_of_arena_messages_killed_anywhere_loses_nothing_and_no_memory)
{
	check_crashes(SHMQ_SHARED, 2000, 60);
}

/* ---- subscribers ------------------------------------------------------------------- */

static int hold_a_view(void *arg)
{
	struct stage *stage = arg;
	shmq_bus *bus = open_bus_of_child(stage);
	shmq_sub *sub = open_sub(bus, stage->topic);
	struct shmq_msg msg;

	reach(&stage->at, 1);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	reach(&stage->at, 2);
	await(&stage->at, 3);
	die();
}

static int kill_when_blocked(void *arg)
{
	struct stage *stage = arg;
	shmq_bus *bus = test_bus_open();

	await(&stage->at, 2);
	await_sleepers(bus, stage->topic, SHMQ_ROLE_PUBLISHER, 1);
	reach(&stage->at, 3);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_publisher_blocked_by_a_reader_goes_on_when_that_dies)
{
	struct stage *stage = new_stage("t");
	pid_t reader, killer;
	shmq_bus *bus;
	shmq_pub *pub;

	test_bus_start();
	bus = test_bus_open();
	for (int shared = 0; shared < 2; shared++) {
		stage->topic = shared ? "shared" : "exclusive";
		stage->at = 0;
		create(bus, stage->topic, .depth = DEPTH,
		       .mode = shared ? SHMQ_SHARED : SHMQ_EXCLUSIVE);
		pub = open_pub(bus, stage->topic, .wait = SHMQ_WAIT_SLEEP,
			       .block_timeout_ns = SOON);
		reader = test_spawn(hold_a_view, stage);
		killer = test_spawn(kill_when_blocked, stage);
		await(&stage->at, 1);
		for (uint64_t n = 0; n < 2 * DEPTH; n++)
			publish_number(pub, n);
		CHECK_EQ(pub_stats(pub).dropped, 0);
		CHECK_EQ(pub_stats(pub).blocked, 1);
		CHECK_EQ(test_join(reader), 128 + SIGKILL);
		CHECK_EQ(test_join(killer), 0);
		CHECK_EQ(topic_info(bus, stage->topic).subscribers, 0);
		shmq_pub_close(pub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

static int sleep_for_ever(void *arg)
{
	struct stage *stage = arg;
	shmq_bus *bus = open_bus_of_child(stage);
	shmq_sub *sub = open_sub(bus, stage->topic, .wait = SHMQ_WAIT_SLEEP);
	struct shmq_msg msg;

	shmq_receive(sub, &msg, SHMQ_FOREVER);
	return 1; /* nothing is sent while it lives */
}

TEST(a_killed_sleeper_costs_the_publisher_one_wake_at_most)
{
	struct stage *stage = new_stage("t");
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	for (uint64_t round = 0; round < 5; round++) {
		child = test_spawn(sleep_for_ever, stage);
		await_sleepers(bus, "t", SHMQ_ROLE_SUBSCRIBER, 1);
		CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
		await_event(bus, SHMQ_EVENT_DIED, stage->client);
		CHECK_EQ(topic_info(bus, "t").sleepers, 0);
		for (uint64_t n = 0; n < 10; n++) {
			publish_number(pub, n);
			CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), n);
		}
		CHECK_LE(pub_stats(pub).wakes, round + 1);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

static int block_for_ever(void *arg)
{
	struct stage *stage = arg;
	shmq_bus *bus = open_bus_of_child(stage);
	shmq_pub *pub = open_pub(bus, stage->topic, .wait = SHMQ_WAIT_SLEEP);

	for (uint64_t n = 0; n < UINT64_MAX; n++)
		publish_number(pub, n);
	return 1;
}

TEST(a_publisher_killed_while_it_waits_leaves_its_messages)
{
	struct stage *stage = new_stage("t");
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	for (int shared = 0; shared < 2; shared++) {
		stage->topic = shared ? "shared" : "exclusive";
		create(bus, stage->topic, .depth = DEPTH,
		       .mode = shared ? SHMQ_SHARED : SHMQ_EXCLUSIVE);
		sub = open_sub(bus, stage->topic);
		child = test_spawn(block_for_ever, stage);
		await_sleepers(bus, stage->topic, SHMQ_ROLE_PUBLISHER, 1);
		CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
		await_event(bus, SHMQ_EVENT_DIED, stage->client);
		pub = open_pub(bus, stage->topic);
		for (uint64_t n = 0; n < DEPTH; n++)
			CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), n);
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		publish_number(pub, DEPTH);
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_EQ(msg.seq, DEPTH); /* the sequence goes on */
		shmq_pub_close(pub);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- many handles -------------------------------------------------------------------- */

enum { TOPICS = 50 };

static int hold_many(void *arg)
{
	struct stage *stage = arg;
	shmq_bus *bus = open_bus_of_child(stage);
	struct raw raw[TOPICS];
	char topic[8];

	for (int i = 0; i < TOPICS; i++) {
		snprintf(topic, sizeof(topic), "t%d", i);
		open_sub(bus, topic);
		raw_open(&raw[i], bus, topic);
		raw_claim(&raw[i]);
	}
	reach(&stage->at, 1);
	pause();
	return 1;
}

TEST(a_death_is_recovered_on_every_topic_it_touched)
{
	struct stage *stage = new_stage(NULL);
	shmq_pub *pub[TOPICS];
	shmq_sub *sub[TOPICS];
	char topic[8];
	shmq_bus *bus;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	for (int i = 0; i < TOPICS; i++) {
		snprintf(topic, sizeof(topic), "t%d", i);
		create(bus, topic, .depth = DEPTH, .mode = SHMQ_SHARED);
		sub[i] = open_sub(bus, topic, .wait = SHMQ_WAIT_SLEEP);
		pub[i] = open_pub(bus, topic, .block_timeout_ns = SOON);
	}
	child = test_spawn(hold_many, stage);
	await(&stage->at, 1);
	for (int i = 0; i < TOPICS; i++)
		publish_number(pub[i], 9);
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	for (int i = 0; i < TOPICS; i++)
		CHECK_EQ(receive_number(sub[i], SOON), 9);
	for (int i = 0; i < TOPICS; i++)
		for (uint64_t n = 0; n < 2 * DEPTH; n++) { /* nobody gates any more */
			publish_number(pub[i], n);
			CHECK_EQ(receive_number(sub[i], SHMQ_NOWAIT), n);
		}
	for (int i = 0; i < TOPICS; i++) {
		snprintf(topic, sizeof(topic), "t%d", i);
		CHECK_EQ(topic_info(bus, topic).publishers, 1);
		CHECK_EQ(topic_info(bus, topic).subscribers, 1);
		CHECK_EQ(voids_of(bus, topic), 1);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- arenas ---------------------------------------------------------------------------- */

enum { LARGE = 5000, ARENA = 65536 };

/* As many as the arena holds, at most count. */
static int publish_large_and_die(void *arg)
{
	struct stage *stage = arg;
	shmq_bus *bus = open_bus_of_child(stage);
	shmq_pub *pub = open_pub(bus, stage->topic, .arena_bytes = ARENA, .flags = SHMQ_DONTWAIT);
	static char buf[LARGE];

	for (uint64_t i = 0; i < 5; i++) {
		uint64_t n = atomic_load(&stage->count);

		fill(buf, LARGE, n);
		if (shmq_publish(pub, buf, LARGE))
			break;
		atomic_fetch_add(&stage->count, 1);
	}
	die();
}

static void check_large(shmq_sub *sub, uint64_t n)
{
	struct shmq_msg msg;

	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(msg.seq, n);
	CHECK_EQ(msg.len, LARGE);
	CHECK(is_filled(msg.data, LARGE, n));
}

TEST(arena_messages_outlive_their_publishers_and_successors_adopt_the_arena)
{
	struct stage *stage = new_stage("t");
	struct shmq_bus_info first, info;
	uint64_t read = 0;
	shmq_bus *bus;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .max_message_bytes = LARGE);
	sub = open_sub(bus, "t");
	for (int round = 0; round < 50; round++) {
		uint64_t before = atomic_load(&stage->count);

		run_until_killed(publish_large_and_die, stage);
		await_event(bus, SHMQ_EVENT_DIED, stage->client);
		CHECK_GT(atomic_load(&stage->count), before);
		/* Read four of five: the arena is always more than half full of what
		 * the dead left, and in the end without room. */
		for (int i = 0; i < 4; i++)
			check_large(sub, read++);
		CHECK_OK(shmq_release(sub));
		CHECK_OK(shmq_bus_get_info(bus, &info));
		if (!round)
			first = info;
		CHECK_EQ(info.bytes, first.bytes);
	}
	while (read < atomic_load(&stage->count))
		check_large(sub, read++);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_late_subscriber_reads_arena_messages_of_the_dead)
{
	struct stage *stage = new_stage("t");
	shmq_bus *bus;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .max_message_bytes = LARGE);
	run_until_killed(publish_large_and_die, stage);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (uint64_t n = 0; n < 5; n++)
		check_large(sub, n);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_arena_of_the_dead_is_freed_once_its_last_message_is_gone)
{
	static char large[1 << 20];
	struct shmq_bus_info before, during, after;
	shmq_bus *bus;
	shmq_pub *keep, *small;
	int64_t deadline;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .max_message_bytes = 8 << 20, .mode = SHMQ_SHARED);
	keep = open_pub(bus, "t");
	CHECK_OK(shmq_bus_get_info(bus, &before));
	small = open_pub(bus, "t", .arena_bytes = 32 << 20);
	CHECK_OK(shmq_publish(small, large, sizeof(large)));
	shmq_pub_close(small);
	CHECK_OK(shmq_bus_get_info(bus, &during));
	CHECK_GE(during.bytes, before.bytes + (32 << 20)); /* its message is still there */
	for (uint64_t n = 0; n < 2 * DEPTH; n++)
		publish_number(keep, n);
	deadline = test_now_ns() + PATIENCE;
	do {
		CHECK_OK(shmq_bus_get_info(bus, &after));
		if (test_now_ns() > deadline)
			FAIL("an arena that nothing refers to was kept: %llu bytes, %llu before",
			     (unsigned long long)after.bytes, (unsigned long long)before.bytes);
	} while (after.bytes > before.bytes && (test_sleep_ms(10), 1));
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- stall --------------------------------------------------------------------------------- */

/* Stops in a claim; continued, it commits and leaves. */
static int stop_in_a_claim(void *arg)
{
	struct stage *stage = arg;
	uint64_t n = 7, seq;
	shmq_bus *bus;
	struct raw raw;

	bus = open_bus_of_child(stage);
	raw_open(&raw, bus, stage->topic);
	seq = raw_claim(&raw);
	raw_write(&raw, seq, &n, sizeof(n), NULL);
	reach(&stage->at, 1);
	raise(SIGSTOP);
	raw_commit(&raw, seq);
	raw_ring(&raw);
	shmq_bus_close(bus);
	return 0;
}

static void await_stopped(pid_t pid)
{
	siginfo_t info;

	while (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT) < 0)
		CHECK_EQ(errno, EINTR);
	CHECK_EQ(info.si_code, CLD_STOPPED);
}

TEST_WITHIN(a_publisher_stalled_in_its_claim_is_killed_for_a_waiting_reader, 120)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_SLEEP, SHMQ_WAIT_ADAPTIVE,
						SHMQ_WAIT_YIELD };
	struct stage *stage = new_stage("t");
	struct shmq_event event;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	pub = open_pub(bus, "t");
	for (int k = 0; k < 3; k++) {
		sub = open_sub(bus, "t", .wait = modes[k]);
		child = test_spawn(stop_in_a_claim, stage);
		await_stopped(child);
		publish_number(pub, 8);
		CHECK_EQ(receive_number(sub, PATIENCE), 8);
		CHECK_EQ(test_join(child), 128 + SIGKILL);
		event = await_event(bus, SHMQ_EVENT_STALLED, stage->client);
		CHECK_EQ(event.role, SHMQ_ROLE_PUBLISHER);
		CHECK_EQ(event.pid, child);
		await_event(bus, SHMQ_EVENT_DIED, stage->client);
		CHECK_EQ(voids_of(bus, "t"), k + 1);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(a_publisher_stalled_in_its_claim_is_killed_for_a_wait_set, 120)
{
	struct stage *stage = new_stage("t");
	shmq_sub *sub, *ready[1];
	shmq_waitset *set;
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	CHECK_OK(shmq_waitset_create(bus, &set));
	CHECK_OK(shmq_waitset_add(set, sub));
	child = test_spawn(stop_in_a_claim, stage);
	await_stopped(child);
	publish_number(pub, 8);
	CHECK_EQ(shmq_waitset_wait(set, ready, 1, PATIENCE), 1);
	CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), 8);
	CHECK_EQ(test_join(child), 128 + SIGKILL);
	shmq_waitset_destroy(set);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_publisher_stalled_in_its_claim_is_killed_for_a_reader_that_only_polls)
{
	struct stage *stage = new_stage("t");
	int64_t deadline;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	child = test_spawn(stop_in_a_claim, stage);
	await_stopped(child);
	publish_number(pub, 8);
	deadline = test_now_ns() + PATIENCE / 6;
	while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) == SHMQ_EEMPTY)
		if (test_now_ns() > deadline)
			FAIL("nobody noticed the stalled publisher");
	CHECK_OK(rc);
	CHECK_EQ(test_join(child), 128 + SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_publisher_stalled_in_its_claim_is_killed_for_the_next_round_of_the_ring)
{
	struct stage *stage = new_stage("t");
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .policy = SHMQ_LOSSY);
	pub = open_pub(bus, "t");
	child = test_spawn(stop_in_a_claim, stage);
	await_stopped(child);
	for (uint64_t n = 0; n < 2 * DEPTH; n++)
		publish_number(pub, n);
	CHECK_EQ(pub_stats(pub).sent, 2 * DEPTH);
	CHECK_EQ(test_join(child), 128 + SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_stopped_publisher_that_holds_no_claim_is_left_alone)
{
	struct stage *stage = new_stage("t");
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	/* Blocked for credit, then stopped. */
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	sub = open_sub(bus, "t");
	child = test_spawn(block_for_ever, stage);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1);
	CHECK_OK(kill(child, SIGSTOP));
	await_stopped(child);
	for (uint64_t n = 0; n < DEPTH; n++)
		CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), n);
	CHECK_OK(shmq_release(sub));
	pub = open_pub(bus, "t");
	for (uint64_t n = 0; n < 3 * DEPTH; n++) {
		publish_number(pub, n);
		CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), n);
	}
	CHECK_ERROR(shmq_receive(sub, &msg, 2 * SECOND), SHMQ_ETIMEOUT);
	CHECK_EQ(voids_of(bus, "t"), 0);
	CHECK_EQ(waitpid(child, NULL, WNOHANG), 0);
	CHECK_EQ(topic_info(bus, "t").publishers, 2);
	CHECK_OK(kill(child, SIGCONT));
	CHECK_EQ(receive_number(sub, PATIENCE), DEPTH); /* it goes on where it was */
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(with_stall_report_everybody_is_told_and_the_message_arrives_later, 120)
{
	struct stage *stage = new_stage("t");
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	struct shmq_msg msg;
	pid_t child;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	child = test_spawn(stop_in_a_claim, stage);
	await_stopped(child);
	publish_number(pub, 8);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_ESTALLED);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_ESTALLED); /* as long as it lasts */
	await_event(bus, SHMQ_EVENT_STALLED, stage->client);
	CHECK_OK(kill(child, SIGCONT));
	while ((rc = shmq_receive(sub, &msg, PATIENCE)) == SHMQ_ESTALLED)
		test_sleep_ms(1);
	CHECK_OK(rc);
	CHECK_EQ(*(const uint64_t *)msg.data, 7);
	CHECK_EQ(receive_number(sub, PATIENCE), 8);
	CHECK_EQ(test_join(child), 0);
	CHECK_EQ(voids_of(bus, "t"), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(with_stall_report_a_publisher_that_comes_round_is_told)
{
	struct stage *stage = new_stage("t");
	shmq_bus *bus;
	shmq_pub *pub, *hasty;
	uint64_t n;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT,
	       .policy = SHMQ_LOSSY);
	pub = open_pub(bus, "t");
	hasty = open_pub(bus, "t", .flags = SHMQ_DONTWAIT);
	child = test_spawn(stop_in_a_claim, stage);
	await_stopped(child);
	for (n = 1; n < DEPTH; n++)
		publish_number(pub, n);
	CHECK_ERROR(shmq_publish(hasty, &n, sizeof(n)), SHMQ_ESTALLED);
	CHECK_ERROR(shmq_publish(pub, &n, sizeof(n)), SHMQ_ESTALLED);
	CHECK_EQ(pub_stats(pub).sent, DEPTH - 1);
	CHECK_OK(kill(child, SIGCONT));
	CHECK_EQ(test_join(child), 0);
	publish_number(pub, n);
	publish_number(hasty, n);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(with_stall_report_a_lossy_reader_passes_the_hole_and_counts_it, 120)
{
	struct stage *stage = new_stage("t");
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	struct shmq_msg msg;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT,
	       .policy = SHMQ_LOSSY);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	child = test_spawn(stop_in_a_claim, stage);
	await_stopped(child);
	publish_number(pub, 8);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EOVERRUN);
	CHECK_EQ(msg.lost, 1);
	CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), 8);
	CHECK_OK(kill(child, SIGCONT));
	CHECK_EQ(test_join(child), 0);
	publish_number(pub, 9);
	CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), 9);
	CHECK_EQ(sub_stats(sub).received, 2);
	CHECK_EQ(sub_stats(sub).lost, 1); /* sent are three: 7 came too late */
	CHECK_EQ(topic_info(bus, "t").head, 3);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(with_stall_report_a_stalled_publisher_that_dies_is_recovered, 120)
{
	struct stage *stage = new_stage("t");
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	struct shmq_msg msg;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	child = test_spawn(stop_in_a_claim, stage);
	await_stopped(child);
	publish_number(pub, 8);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_ESTALLED);
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	await_event(bus, SHMQ_EVENT_DIED, stage->client);
	CHECK_EQ(receive_number(sub, SHMQ_NOWAIT), 8);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}
