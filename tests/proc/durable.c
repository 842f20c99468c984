/* SPDX-License-Identifier: MIT
 *
 * Topics with a log: everything that was published is read again, from any
 * place on and across every kind of death, and reading runs on into live.
 */
#include "durable.h"

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
