/* SPDX-License-Identifier: MIT
 *
 * What becomes of a log's segments once they are complete: compressed, rid of what
 * was superseded, under readers.
 */
#include "logged.h"
#include "tap.h"

#include <limits.h>
#include <stdio.h>

#define MIB (UINT64_C(1) << 20)

/* Files in the log's directory whose names end so. */
static unsigned files(const char *topic, const char *end)
{
	char command[PATH_MAX + 64];
	unsigned n = 0;
	FILE *out;

	snprintf(command, sizeof(command), "ls %s/%s/0 | grep -c '%s$'", test_bus_data(), topic,
		 end);
	out = popen(command, "r");
	CHECK(out != NULL);
	CHECK_EQ(fscanf(out, "%u", &n), 1);
	pclose(out);
	return n;
}

static int is_compressed(void *topic)
{
	return files(topic, ".log") == 1 && files(topic, ".zst") >= 3;
}

TEST_WITHIN(complete_segments_are_compressed_and_readers_notice_nothing, 120)
{
	enum { COUNT_SENT = 50 * DEPTH };
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub, *slow;
	char topic[] = "t";

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB,
	       .compress = 1);
	pub = open_pub(bus, "t");
	publish(pub, 0, 2000);
	await_written(bus, "t", 2000);
	/* In a file that it will be the last to have. */
	slow = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(slow, 0, 0, 10);
	publish(pub, 2000, COUNT_SENT);
	await_written(bus, "t", COUNT_SENT);
	if (!test_wait_until(is_compressed, topic, 60000))
		FAIL("%u segments, %u compressed ones", files("t", ".log"), files("t", ".zst"));
	CHECK_EQ(files("t", ".new"), 0);
	expect(slow, 0, 10, COUNT_SENT);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_SEQ, .seq = 9999);
	expect(sub, 0, 9999, COUNT_SENT);
	CHECK_EQ(sub_stats(sub).lost + sub_stats(slow).lost, 0);
	shmq_sub_close(sub);
	shmq_sub_close(slow);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- the last message of each key ----------------------------------------- */

enum { KEYS = 50, SENT = 60000 };

/* What was sent as number n; every now and then a key is deleted, some have none. */
static void send_keyed(shmq_pub *pub, uint64_t n, uint64_t *last)
{
	char key[16], data[64];
	unsigned k = (unsigned)(mix(n) % KEYS);
	struct shmq_msg msg = { .data = data, .len = sizeof(data), .key = key };

	fill(data, sizeof(data), n);
	msg.key_len = (size_t)snprintf(key, sizeof(key), "key %02u", k);
	if (n % 1000 == 7)
		msg.key_len = 0;
	else if (mix(n + 1) % 97 == 0)
		msg.len = 0;
	if (msg.key_len)
		last[k] = msg.len ? n + 1 : 0;
	CHECK_OK(shmq_publish_msg(pub, &msg));
}

static unsigned number_of(const char *key)
{
	return (unsigned)(10 * (key[4] - '0') + key[5] - '0');
}

/* Read to the end: what a reader has of each key then, and how many without one. */
static void collect(shmq_sub *sub, uint64_t from, uint64_t *last, unsigned *plain, unsigned *all)
{
	struct shmq_msg msg;
	uint64_t next = from;

	while (next < SENT) {
		int rc = shmq_receive(sub, &msg, PATIENCE);

		if (rc)
			FAIL("after %llu: %s, %llu lost", (unsigned long long)next,
			     shmq_errname(rc), (unsigned long long)msg.lost);
		CHECK_GE(msg.seq, next);
		next = msg.seq + 1;
		++*all;
		if (msg.len)
			CHECK(is_filled(msg.data, msg.len, msg.seq));
		if (!msg.key_len)
			++*plain;
		else
			last[number_of(msg.key)] = msg.len ? msg.seq + 1 : 0;
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
}

static int is_compacted(void *topic)
{
	return test_bus_log_has("superseded messages were dropped") && files(topic, ".new") == 0;
}

static void check_compaction(int level)
{
	uint64_t want[KEYS] = { 0 }, got[KEYS], n;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *slow, *sub;
	unsigned plain, all;
	char topic[] = "t";

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .slot_bytes = 128, .log = SHMQ_LOG_BLOCK,
	       .segment_bytes = MIB, .flags = SHMQ_TOPIC_RETAIN_KEYS, .compress = level);
	pub = open_pub(bus, "t");
	for (n = 0; n < 3000; n++)
		send_keyed(pub, n, want);
	await_written(bus, "t", n);
	slow = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (; n < SENT; n++)
		send_keyed(pub, n, want);
	await_written(bus, "t", SENT);
	if (!test_wait_until(is_compacted, topic, 60000))
		FAIL("nothing is dropped");
	memset(got, 0, sizeof(got));
	plain = all = 0;
	collect(slow, 0, got, &plain, &all);
	CHECK_MEM(got, want, sizeof(want));
	CHECK_EQ(plain, SENT / 1000);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	memset(got, 0, sizeof(got));
	plain = all = 0;
	collect(sub, 0, got, &plain, &all);
	CHECK_MEM(got, want, sizeof(want));
	CHECK_EQ(plain, SENT / 1000);
	CHECK_LT(all, SENT / 2);
	shmq_sub_close(sub);
	shmq_sub_close(slow);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(of_each_key_the_last_message_is_kept_and_nothing_without_one_is_dropped, 120)
{
	check_compaction(0);
}

TEST_WITHIN(likewise_of_segments_that_are_compressed, 120)
{
	check_compaction(1);
}
