/* SPDX-License-Identifier: MIT
 *
 * Topics with a log: everything that was published is read again, from any
 * place on and across every kind of death, and reading runs on into live.
 */
#include "helpers.h"

enum { DEPTH = 1024, BYTES = 100 };

/* ---- what is sent, and what must come ----------------------------------- */

static void publish(shmq_pub *pub, uint64_t from, uint64_t to)
{
	char buf[BYTES];

	for (; from < to; from++) {
		fill(buf, sizeof(buf), from);
		CHECK_OK(shmq_publish(pub, buf, sizeof(buf)));
	}
}

/* Messages `from` to `to`, each with the seq base + its number. */
static void expect(shmq_sub *sub, uint64_t base, uint64_t from, uint64_t to)
{
	struct shmq_msg msg;

	for (; from < to; from++) {
		int rc = shmq_receive(sub, &msg, PATIENCE);

		if (rc)
			FAIL("message %llu: %s (lost %llu)", (unsigned long long)from,
			     shmq_errname(rc), (unsigned long long)msg.lost);
		CHECK_EQ(msg.seq, base + from);
		CHECK_EQ(msg.len, BYTES);
		CHECK(is_filled(msg.data, BYTES, from));
	}
}

struct flow {
	const char *topic;
	uint64_t from, to;
	_Atomic int *stage;
};

static int publish_flow(void *arg)
{
	const struct flow *f = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, f->topic);

	publish(pub, f->from, f->to);
	if (f->stage)
		reach(f->stage, 1);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static uint64_t head(shmq_bus *bus, const char *topic)
{
	struct shmq_partition_info info;

	CHECK_OK(shmq_topic_get_partition(bus, topic, 0, &info));
	return info.head;
}

static uint64_t written(shmq_bus *bus, const char *topic)
{
	struct shmq_partition_info info;

	CHECK_OK(shmq_topic_get_partition(bus, topic, 0, &info));
	return info.log_written;
}

/* ---- replay and live ------------------------------------------------------ */

TEST(a_late_subscriber_reads_all_there_ever_was_and_then_what_comes)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 50 * DEPTH);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, 50 * DEPTH);
	publish(pub, 50 * DEPTH, 50 * DEPTH + 10);
	expect(sub, 0, 50 * DEPTH, 50 * DEPTH + 10);
	shmq_sub_close(sub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_SEQ, .seq = 12345);
	expect(sub, 0, 12345, 50 * DEPTH + 10);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(replay_runs_on_into_live_while_a_publisher_sends_at_full_speed)
{
	struct flow flow = { .topic = "t", .to = 400000 };
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	child = test_spawn(publish_flow, &flow);
	while (head(bus, "t") < 20 * DEPTH)
		test_sleep_ms(1);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, flow.to);
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_EQ(test_join(child), 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_subscriber_that_publishers_pass_goes_on_in_the_log_and_loses_nothing)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub, *observer;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "lossy", .depth = DEPTH, .policy = SHMQ_LOSSY, .log = SHMQ_LOG_GAP);
	create(bus, "block", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "block");
	observer = open_sub(bus, "block", .flags = SHMQ_SUB_OBSERVE);
	publish(pub, 0, 20 * DEPTH);
	expect(observer, 0, 0, 20 * DEPTH);
	shmq_sub_close(observer);
	shmq_pub_close(pub);
	pub = open_pub(bus, "lossy");
	sub = open_sub(bus, "lossy");
	for (uint64_t n = 0; n < 20 * DEPTH; n += DEPTH / 4) {
		publish(pub, n, n + DEPTH / 4);
		CHECK_OK(shmq_pub_wait_confirm(pub, 0, n + DEPTH / 4 - 1, SHMQ_WRITTEN, PATIENCE));
	}
	expect(sub, 0, 0, 20 * DEPTH);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- deaths --------------------------------------------------------------- */

TEST(a_bus_that_stopped_in_order_goes_on_where_it_was)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 5000);
	shmq_pub_close(pub);
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	test_bus_await_end();
	test_bus_restart();
	bus = test_bus_open();
	CHECK_EQ(topic_info(bus, "t").log, SHMQ_LOG_BLOCK);
	CHECK_EQ(head(bus, "t"), 5000);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	pub = open_pub(bus, "t");
	publish(pub, 5000, 6000);
	expect(sub, 0, 0, 6000);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(what_was_confirmed_survives_the_death_of_everything_and_no_seq_is_given_twice)
{
	struct shmq_msg msg;
	uint64_t base;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .sync = SHMQ_SYNC_EVERY);
	pub = open_pub(bus, "t");
	publish(pub, 0, 5000);
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 4999, SHMQ_SYNCED, PATIENCE));
	CHECK(test_bus_kill(NULL) >= 3);
	shmq_bus_close(bus);
	test_bus_restart();
	bus = test_bus_open();
	base = head(bus, "t");
	CHECK(base >= 5000);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	pub = open_pub(bus, "t");
	publish(pub, 5000, 5100);
	expect(sub, 0, 0, 5000);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EOVERRUN);
	CHECK_EQ(msg.lost, base - 5000);
	expect(sub, base - 5000, 5000, 5100);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(the_tailer_may_be_killed_at_any_time_and_the_log_has_all)
{
	struct flow flow = { .topic = "t", .to = 300000 };
	_Atomic int *stage = shared_memory(sizeof(*stage));
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;
	int kills = 0;

	flow.stage = stage;
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	child = test_spawn(publish_flow, &flow);
	for (uint64_t seen = 0; kills < 5 && !atomic_load(stage);
	     kills += test_bus_kill("tailer")) {
		while (written(bus, "t") == seen && !atomic_load(stage))
			test_sleep_ms(1);
		seen = written(bus, "t");
	}
	CHECK(kills > 1);
	CHECK_EQ(test_join(child), 0);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, flow.to);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- what else a log must do ---------------------------------------------- */

TEST(a_removed_topic_takes_its_log_with_it)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	struct shmq_msg msg;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 100);
	shmq_pub_close(pub);
	CHECK_EQ(topic_info(bus, "t").subscribers, 0);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}
