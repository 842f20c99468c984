/* SPDX-License-Identifier: MIT
 *
 * Stored cursors: how far a reader has come survives it, the supervisor, and all
 * of the bus, and what is gone from the log when it comes back it is told of.
 */
#include "helpers.h"

enum { DEPTH = 1024, BYTES = 100 };

static void publish(shmq_pub *pub, uint64_t from, uint64_t to)
{
	char buf[BYTES];

	for (; from < to; from++) {
		fill(buf, sizeof(buf), from);
		CHECK_OK(shmq_publish(pub, buf, sizeof(buf)));
	}
}

static shmq_sub *open_stored(shmq_bus *bus)
{
	return open_sub(bus, "t", .from = SHMQ_FROM_CURSOR, .cursor = "mine");
}

static void expect(shmq_sub *sub, uint64_t from, uint64_t to)
{
	struct shmq_msg msg;

	for (; from < to; from++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, from);
		CHECK(is_filled(msg.data, BYTES, from));
	}
	CHECK_OK(shmq_release(sub));
}

static struct shmq_partition_info partition(shmq_bus *bus, const char *topic)
{
	struct shmq_partition_info info;

	CHECK_OK(shmq_topic_get_partition(bus, topic, 0, &info));
	return info;
}

static int find_seq(void *arg, const struct shmq_cursor_info *info)
{
	CHECK_EQ(info->error, 0);
	CHECK_STR(info->name, "mine");
	((uint64_t *)arg)[info->partition] = info->seq;
	return 0;
}

static void find_stored(uint64_t *seq)
{
	char dir[PATH_MAX];

	CHECK_OK(shmq_log_dir(NULL, test_bus_name(), "t", dir, sizeof(dir)));
	CHECK_OK(shmq_cursor_each(dir, find_seq, seq));
}

/* ---- deaths --------------------------------------------------------------- */

struct reader {
	_Atomic int stage;
	uint64_t to; /* of what it reads; it stores half of that */
};

static int read_and_hang(void *arg)
{
	struct reader *r = arg;
	shmq_bus *bus = test_bus_open();
	/* Nobody waits for it when it hangs, though it may have come into the ring. */
	shmq_sub *sub = open_sub(bus, "t", .from = SHMQ_FROM_CURSOR, .cursor = "mine",
				 .flags = SHMQ_SUB_OBSERVE);

	expect(sub, 0, r->to / 2);
	CHECK_OK(shmq_sub_store_cursor(sub));
	expect(sub, r->to / 2, r->to);
	reach(&r->stage, 1);
	while (sub)
		pause();
	return 1;
}

TEST(a_cursor_survives_the_reader_the_supervisor_and_all_of_the_bus)
{
	struct reader *r = shared_memory(sizeof(*r));
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	r->to = 3 * DEPTH;
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .sync = SHMQ_SYNC_EVERY);
	pub = open_pub(bus, "t");
	publish(pub, 0, 1);
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 0, SHMQ_WRITTEN, PATIENCE));
	child = test_spawn(read_and_hang, r);
	publish(pub, 1, 5 * DEPTH);
	await(&r->stage, 1);
	kill(child, SIGKILL);
	CHECK_EQ(test_join(child), 128 + SIGKILL);
	sub = open_stored(bus);
	expect(sub, r->to / 2, r->to);
	CHECK_OK(shmq_sub_store_cursor(sub));
	CHECK_GE(test_bus_kill("control"), 1);
	expect(sub, r->to, 4 * DEPTH);
	CHECK_OK(shmq_sub_store_cursor(sub));
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 5 * DEPTH - 1, SHMQ_SYNCED, PATIENCE));
	CHECK_GE(test_bus_kill(NULL), 2); /* the control worker may still be started */
	shmq_bus_close(bus);
	test_bus_restart();
	bus = test_bus_open();
	sub = open_stored(bus);
	expect(sub, 4 * DEPTH, 5 * DEPTH);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- atomic batches -------------------------------------------------------- */

enum { MEMBERS = 10 };

static void publish_batch(shmq_pub *pub, uint64_t from)
{
	static char bytes[MEMBERS][BYTES];
	struct shmq_msg m[MEMBERS];

	for (unsigned i = 0; i < MEMBERS; i++) {
		fill(bytes[i], BYTES, from + i);
		m[i] = (struct shmq_msg){ .data = bytes[i], .len = BYTES };
	}
	CHECK_EQ(shmq_publish_batch(pub, m, MEMBERS, SHMQ_ATOMIC), MEMBERS);
}

/* By its log, and, where that leads on into it, by its ring. */
TEST(of_a_batch_in_which_a_cursor_was_stored_the_rest_comes)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .slot_bytes = 256, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 5);
	for (unsigned i = 0; i < 3; i++)
		publish_batch(pub, 5 + i * MEMBERS);
	sub = open_stored(bus);
	for (unsigned at = 0, to = 3; at < 5 + 3 * MEMBERS; at = to, to += 4) {
		if (to > 5 + 3 * MEMBERS)
			to = 5 + 3 * MEMBERS;
		expect(sub, at, to);
		CHECK_OK(shmq_sub_store_cursor(sub));
		shmq_sub_close(sub);
		sub = open_stored(bus);
	}
	publish_batch(pub, 35);
	expect(sub, 35, 40);
	CHECK_OK(shmq_sub_store_cursor(sub));
	shmq_sub_close(sub);
	publish(pub, 45, 3 * DEPTH);
	sub = open_stored(bus);
	expect(sub, 40, 3 * DEPTH);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- retention ------------------------------------------------------------- */

static void await_first(shmq_bus *bus, const char *topic, uint64_t least)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while (partition(bus, topic).log_first < least) {
		if (test_now_ns() > deadline)
			FAIL("\"%s\" still begins at %llu", topic,
			     (unsigned long long)partition(bus, topic).log_first);
		test_sleep_ms(5);
	}
}

TEST(a_cursor_keeps_what_it_needs_only_where_it_is_asked_to_and_else_is_told)
{
	enum { COUNT = 50000 };
	struct shmq_topic_options options = {
		.size = sizeof(options),
		.depth = DEPTH,
		.log = SHMQ_LOG_BLOCK,
		.segment_bytes = 1 << 20,
		.retain_bytes = 1,
		.flags = SHMQ_TOPIC_RETAIN_CURSORS,
	};
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub, *other;
	shmq_sub *sub;
	uint64_t first;

	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_topic_create(bus, "t", &options, NULL));
	options.flags = 0;
	CHECK_OK(shmq_topic_create(bus, "plain", &options, NULL));
	pub = open_pub(bus, "t");
	other = open_pub(bus, "plain");
	publish(pub, 0, 1000);
	publish(other, 0, 1000);
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 0, SHMQ_WRITTEN, PATIENCE));
	CHECK_OK(shmq_pub_wait_confirm(other, 0, 0, SHMQ_WRITTEN, PATIENCE));
	shmq_sub_close(open_sub(bus, "plain", .from = SHMQ_FROM_CURSOR, .cursor = "mine"));
	sub = open_stored(bus);
	expect(sub, 0, 100);
	CHECK_OK(shmq_sub_store_cursor(sub));
	shmq_sub_close(sub);
	publish(other, 1000, COUNT);
	publish(pub, 1000, COUNT);
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, COUNT - 1, SHMQ_WRITTEN, PATIENCE));

	/* What was removed from one while the other kept it is told there. */
	await_first(bus, "plain", COUNT / 2);
	while (!test_bus_log_has("the cursor \"mine\" at seq 100 keeps"))
		test_sleep_ms(5);
	CHECK_EQ(partition(bus, "t").log_first, 0);
	sub = open_sub(bus, "plain", .from = SHMQ_FROM_CURSOR, .cursor = "mine");
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EOVERRUN);
	first = msg.lost;
	CHECK_GE(first, COUNT / 2);
	expect(sub, first, COUNT);
	shmq_sub_close(sub);

	/* Where it was kept all is read, and goes once it was. */
	sub = open_stored(bus);
	expect(sub, 100, COUNT);
	CHECK_EQ(partition(bus, "t").log_first, 0);
	CHECK_OK(shmq_sub_store_cursor(sub));
	await_first(bus, "t", COUNT / 2);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int is_compacted(void *arg)
{
	(void)arg;
	return test_bus_log_has("superseded messages were dropped");
}

/* All are of one key, so that but for the cursor one of them would be left. */
TEST(what_is_superseded_goes_before_a_cursor_and_not_behind_it)
{
	enum { COUNT = 30000, STORED = 1000 };
	char buf[BYTES];
	struct shmq_msg out = { .data = buf, .len = BYTES, .key = "k", .key_len = 1 }, msg;
	uint64_t n, next = 0;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = 1 << 20,
	       .flags = SHMQ_TOPIC_RETAIN_KEYS | SHMQ_TOPIC_RETAIN_CURSORS);
	pub = open_pub(bus, "t");
	for (n = 0; n < COUNT; n++) {
		fill(buf, sizeof(buf), n);
		CHECK_OK(shmq_publish_msg(pub, &out));
		if (n + 1 != STORED)
			continue;
		CHECK_OK(shmq_pub_wait_confirm(pub, 0, n, SHMQ_WRITTEN, PATIENCE));
		sub = open_stored(bus);
		expect(sub, 0, STORED);
		CHECK_OK(shmq_sub_store_cursor(sub));
		shmq_sub_close(sub);
	}
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, COUNT - 1, SHMQ_WRITTEN, PATIENCE));
	if (!test_wait_until(is_compacted, NULL, 60000))
		FAIL("nothing is dropped");
	sub = open_stored(bus);
	expect(sub, STORED, COUNT);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (n = 0; next < COUNT; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		next = msg.seq + 1;
	}
	CHECK_GE(n, COUNT - STORED);
	CHECK_LT(n, COUNT - STORED / 2);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- partitions ------------------------------------------------------------ */

TEST(each_partition_goes_on_where_it_was_and_one_may_be_read_alone)
{
	enum { PARTITIONS = 3, EACH = 100 };
	uint64_t seq[PARTITIONS] = { 0 }, sum = 0, got[PARTITIONS] = { 0 };
	struct shmq_partition_info info;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	unsigned i;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .partitions = PARTITIONS, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, PARTITIONS * EACH);
	for (i = 0; i < PARTITIONS; i++)
		CHECK_OK(shmq_pub_wait_confirm(pub, i, 0, SHMQ_WRITTEN, PATIENCE));
	sub = open_stored(bus);
	CHECK_STR(shmq_bus_error(bus), ""); /* a cursor that is new is no failure */
	for (i = 0; i < 150; i++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		got[msg.partition]++;
	}
	CHECK_OK(shmq_release(sub));
	CHECK_OK(shmq_sub_store_cursor(sub));
	find_stored(seq);
	for (i = 0; i < PARTITIONS; sum += seq[i++])
		CHECK_EQ(seq[i], got[i]);
	CHECK_EQ(sum, 150);
	shmq_sub_close(sub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_CURSOR, .cursor = "mine", .partition_plus1 = 2);
	CHECK_OK(shmq_topic_get_partition(bus, "t", 1, &info));
	while (got[1] < info.head) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, got[1]++);
	}
	CHECK_OK(shmq_release(sub));
	CHECK_OK(shmq_sub_store_cursor(sub));
	shmq_sub_close(sub);
	find_stored(seq);
	CHECK_EQ(seq[0], got[0]);
	CHECK_EQ(seq[1], got[1]);
	CHECK_EQ(seq[2], got[2]);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}
