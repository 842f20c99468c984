/* SPDX-License-Identifier: MIT
 *
 * logged: what tests of topics with a log share: numbered messages, whose
 * every byte tells which number, and how far a log has come.
 */
#ifndef TEST_PROC_LOGGED_H
#define TEST_PROC_LOGGED_H

#include "helpers.h"

enum { DEPTH = 1024, BYTES = 100 };

/* ---- what is sent, and what must come ----------------------------------- */

static inline void publish(shmq_pub *pub, uint64_t from, uint64_t to)
{
	char buf[BYTES];

	for (; from < to; from++) {
		fill(buf, sizeof(buf), from);
		CHECK_OK(shmq_publish(pub, buf, sizeof(buf)));
	}
}

/* Messages `from` to `to`, each with the seq base + its number. */
static inline void expect(shmq_sub *sub, uint64_t base, uint64_t from, uint64_t to)
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

static inline int publish_flow(void *arg)
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

static inline uint64_t head(shmq_bus *bus, const char *topic)
{
	struct shmq_partition_info info;

	CHECK_OK(shmq_topic_get_partition(bus, topic, 0, &info));
	return info.head;
}

static inline uint64_t written(shmq_bus *bus, const char *topic)
{
	struct shmq_partition_info info;

	CHECK_OK(shmq_topic_get_partition(bus, topic, 0, &info));
	return info.log_written;
}

static inline struct shmq_partition_info partition_info(shmq_bus *bus, const char *topic,
							uint32_t p)
{
	struct shmq_partition_info info;

	CHECK_OK(shmq_topic_get_partition(bus, topic, p, &info));
	return info;
}

/* Wait until so much is written to partition 0. */
static inline void await_written(shmq_bus *bus, const char *topic, uint64_t seq)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while ((int64_t)(written(bus, topic) - seq) < 0) {
		if (test_now_ns() > deadline)
			FAIL("the log of \"%s\" stands at %llu, want %llu", topic,
			     (unsigned long long)written(bus, topic), (unsigned long long)seq);
		test_sleep_ms(1);
	}
}

/* The supervisor's log says so, by and by. */
static inline int durable_says(void *text)
{
	return test_bus_log_has(text);
}

static inline void await_said(const char *text)
{
	if (!test_wait_until(durable_says, (void *)(uintptr_t)text, (int)(PATIENCE / MILLISECOND)))
		FAIL("nobody says \"%s\"", text);
}

#endif
