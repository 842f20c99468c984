/* SPDX-License-Identifier: MIT
 *
 * Topics with a log: everything that was published is read again, from any
 * place on and across every kind of death, and reading runs on into live.
 */
#include "logged.h"

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

/* ---- messages --------------------------------------------------------------- */

enum { KINDS = 8 };

/* Message n of a topic of all there is: short and long, with and without names. */
static void make_message(struct shmq_msg *m, char *buf, uint64_t n)
{
	static const size_t len[KINDS] = { 0, 1, 63, 64, 65, 1000, 5000, 100000 };

	fill(buf, len[n % KINDS], n);
	*m = (struct shmq_msg){ .data = buf,
				.len = len[n % KINDS],
				.type = (uint16_t)n,
				.tag = n * 7 + 1,
				.ts_ns = 1000 + n / 3,
				.partition = SHMQ_ANY_PARTITION };
	if (n % 3) {
		m->key = &"key of a message"[n % 5];
		m->key_len = n % 11;
	}
	if (n % 4) {
		m->properties = "properties";
		m->properties_len = n % 10;
	}
}

static void check_message(const struct shmq_msg *got, uint64_t n)
{
	static char buf[100000];
	struct shmq_msg want;

	make_message(&want, buf, n);
	CHECK_EQ(got->len, want.len);
	CHECK_MEM(got->data, want.data, want.len);
	CHECK_EQ(got->key_len, want.key_len);
	CHECK_MEM(got->key_len ? got->key : "", want.key_len ? want.key : "", want.key_len);
	CHECK_EQ(got->properties_len, want.properties_len);
	CHECK_MEM(got->properties_len ? got->properties : "",
		  want.properties_len ? want.properties : "", want.properties_len);
	CHECK_EQ(got->type, want.type);
	CHECK_EQ(got->tag, want.tag);
	CHECK_EQ(got->ts_ns, want.ts_ns);
}

TEST(a_message_comes_out_of_the_log_as_it_went_in)
{
	static char buf[100000];
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .max_message_bytes = 110000, .log = SHMQ_LOG_BLOCK,
	       .flags = SHMQ_TOPIC_TIME | SHMQ_TOPIC_TAG);
	pub = open_pub(bus, "t");
	for (uint64_t n = 0; n < 3 * DEPTH; n++) {
		make_message(&msg, buf, n);
		CHECK_OK(shmq_publish_msg(pub, &msg));
	}
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (uint64_t n = 0; n < 3 * DEPTH; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, n);
		CHECK_EQ(msg.partition, 0);
		check_message(&msg, n);
		CHECK_OK(shmq_view_check(sub, &msg));
	}
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(from_a_time_on_the_first_message_is_the_first_of_that_time_or_later)
{
	static char buf[100000];
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "none", .depth = DEPTH);
	create(bus, "t", .depth = DEPTH, .max_message_bytes = 110000, .log = SHMQ_LOG_BLOCK,
	       .segment_bytes = 1 << 20, .flags = SHMQ_TOPIC_TIME | SHMQ_TOPIC_TAG);
	CHECK_ERROR(shmq_sub_open(bus, "none", SUB_OPTIONS(.from = SHMQ_FROM_TIME), &sub),
		    SHMQ_EOPTION);
	pub = open_pub(bus, "t");
	for (uint64_t n = 0; n < 3000; n++) {
		make_message(&msg, buf, n);
		CHECK_OK(shmq_publish_msg(pub, &msg));
	}
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 2999, SHMQ_WRITTEN, PATIENCE));
	/* Three have each time. */
	for (uint64_t n = 0; n < 3000; n += 99) {
		for (int later = 0; later < 2; later++) {
			sub = open_sub(bus, "t", .from = SHMQ_FROM_TIME,
				       .ts_ns = 1000 + n / 3 + (uint64_t)later);
			CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
			CHECK_EQ(msg.seq, n + 3 * (uint64_t)later);
			CHECK_EQ(sub_stats(sub).lost, 0);
			shmq_sub_close(sub);
		}
	}
	/* One that is still to come is waited for, past those that are older. */
	sub = open_sub(bus, "t", .from = SHMQ_FROM_TIME, .ts_ns = 1000 + 3300 / 3);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	for (uint64_t n = 3000; n < 3600; n++) {
		make_message(&msg, buf, n);
		CHECK_OK(shmq_publish_msg(pub, &msg));
	}
	for (uint64_t n = 3300; n < 3600; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, n);
	}
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(what_is_handed_back_of_the_log_is_handed_out_again)
{
	struct shmq_msg msg;
	char buf[BYTES];
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 3 * DEPTH);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (uint64_t n = 0; n < 3 * DEPTH; n++) {
		CHECK_ERROR(shmq_receive_copy(sub, buf, BYTES - 1, &msg, PATIENCE), SHMQ_EBUFFER);
		CHECK_OK(shmq_receive_copy(sub, buf, BYTES, &msg, PATIENCE));
		CHECK_EQ(msg.seq, n);
		CHECK(is_filled(buf, BYTES, n));
		CHECK_OK(shmq_release(sub));
	}
	CHECK_ERROR(shmq_receive_copy(sub, buf, BYTES, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(sub_stats(sub).received, 3 * DEPTH);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int count(void *arg, const struct shmq_msg *msg)
{
	uint64_t *n = arg;

	CHECK_EQ(msg->seq, *n);
	CHECK(is_filled(msg->data, BYTES, *n));
	++*n;
	return *n % 7 == 0; /* that is enough for now */
}

TEST(a_log_is_polled_until_its_publishers_are_gone)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	uint64_t n = 0;
	ssize_t rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 20 * DEPTH);
	shmq_pub_close(pub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST, .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	while ((rc = shmq_poll(sub, count, &n, 100, PATIENCE)) > 0)
		;
	CHECK_ERROR(rc, SHMQ_EENDED);
	CHECK_EQ(n, 20 * DEPTH);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(the_end_of_publishers_is_told_behind_all_that_the_tailer_has_still_to_write)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	uint64_t n = 0;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_GAP);
	pub = open_pub(bus, "t");
	publish(pub, 0, 10);
	await_written(bus, "t", 10);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST,
		       .flags = SHMQ_SUB_END_WITH_PUBLISHERS | SHMQ_SUB_OBSERVE);
	CHECK_EQ(test_bus_signal("tailer", SIGSTOP), 1);
	publish(pub, 10, 20 * DEPTH);
	shmq_pub_close(pub);
	expect(sub, 0, 0, 10);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(test_bus_signal("tailer", SIGCONT), 1);
	for (n = 10; (rc = shmq_receive(sub, &msg, PATIENCE)) != SHMQ_EENDED;) {
		CHECK(!rc || rc == SHMQ_EOVERRUN);
		n += rc ? msg.lost : 1;
	}
	CHECK_EQ(n, 20 * DEPTH);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_bus_that_was_made_again_ends_a_reader_of_what_was_before)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 100);
	shmq_pub_close(pub);
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	test_bus_await_end();
	test_bus_restart();
	bus = test_bus_open();
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST, .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	expect(sub, 0, 0, 100);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EENDED);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- many partitions --------------------------------------------------------- */

enum { PARTITIONS = 16 };

/* Partition p has (p + 1) * DEPTH messages. */
static void publish_to_all(shmq_pub *pub)
{
	char buf[BYTES];

	for (int32_t p = 0; p < PARTITIONS; p++)
		for (uint64_t n = 0; n < (uint64_t)(p + 1) * DEPTH; n++) {
			struct shmq_msg msg = { .data = buf, .len = BYTES, .partition = p };

			fill(buf, BYTES, n * PARTITIONS + (uint64_t)p);
			CHECK_OK(shmq_publish_msg(pub, &msg));
			CHECK_EQ(msg.seq, n);
		}
}

static void check_next(const struct shmq_msg *msg, uint64_t next[PARTITIONS])
{
	uint64_t n = next[msg->partition]++;

	CHECK_EQ(msg->seq, n);
	CHECK(is_filled(msg->data, BYTES, n * PARTITIONS + (uint64_t)msg->partition));
}

TEST(one_subscriber_reads_the_logs_of_many_partitions_which_are_of_unlike_lengths)
{
	uint64_t next[PARTITIONS] = { 0 }, all = 0;
	shmq_sub *ready[1], *sub;
	struct shmq_msg msg;
	shmq_waitset *set;
	shmq_bus *bus;
	shmq_pub *pub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .partitions = PARTITIONS, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish_to_all(pub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	CHECK_OK(shmq_waitset_create(bus, &set));
	CHECK_OK(shmq_waitset_add(set, sub));
	while (all < DEPTH * PARTITIONS * (PARTITIONS + 1) / 2) {
		/* What it says is there is there. */
		CHECK_EQ(shmq_waitset_wait(set, ready, 1, PATIENCE), 1);
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		check_next(&msg, next);
		all++;
	}
	CHECK_ERROR(shmq_waitset_wait(set, ready, 1, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	for (int32_t p = 0; p < PARTITIONS; p++)
		CHECK_EQ(next[p], (uint64_t)(p + 1) * DEPTH);
	shmq_waitset_destroy(set);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}
