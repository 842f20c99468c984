/* SPDX-License-Identifier: MIT
 *
 * traffic: a stream of numbered messages between two processes, large ones
 * among them, of which the subscriber misses none, while the test does
 * something to their supervisor.
 */
#ifndef TEST_PROC_TRAFFIC_H
#define TEST_PROC_TRAFFIC_H

#include "bus.h"
#include "helpers.h"

#include <sched.h>

enum { TRAFFIC_DEPTH = 1024 };

struct traffic {
	enum shmq_start_mode start; /* of its clients */
	int at_full_speed;          /* else others have the processor, too */
	_Atomic int stop;
	_Atomic uint64_t sent, received;
	_Atomic int reattached[2]; /* publisher, subscriber */
	pid_t publisher, subscriber;
};

/* open_with(.start = SHMQ_START_ON_DEMAND) and so on: must succeed. */
#define open_with(...) open_bus_with(BUS_OPTIONS(__VA_ARGS__))

static inline shmq_bus *open_bus_with(struct shmq_bus_options *options)
{
	shmq_bus *bus;
	int rc;

	options->runtime_dir = test_bus_dir();
	rc = shmq_bus_open(test_bus_name(), options, &bus);
	if (rc)
		FAIL("%s: %s", shmq_errname(rc), shmq_bus_error(NULL));
	return bus;
}

static inline int traffic_is_attached(void *bus)
{
	return shmq_bus_is_attached(bus);
}

/* Nobody had to open his bus again. */
static inline void traffic_end(struct traffic *t, int who, shmq_bus *bus)
{
	if (!test_wait_until(traffic_is_attached, bus, 20000))
		FAIL("%s has not come back", who ? "the subscriber" : "the publisher");
	atomic_store(&t->reattached[who], shmq_bus_reattach_count(bus));
	shmq_bus_close(bus);
}

static inline int traffic_publisher(void *arg)
{
	struct traffic *t = arg;
	shmq_bus *bus = open_with(.start = t->start);
	shmq_pub *pub = open_pub(bus, "t");
	static char large[500];
	uint64_t n = 0;

	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	while (!atomic_load(&t->stop)) {
		memcpy(large, &n, sizeof(n));
		CHECK_OK(shmq_publish(pub, large, n % 3 ? sizeof(n) : sizeof(large)));
		atomic_store(&t->sent, ++n);
		atomic_store(&t->reattached[0], shmq_bus_reattach_count(bus));
		if (!t->at_full_speed)
			sched_yield();
	}
	CHECK_EQ(pub_stats(pub).sent, n);
	shmq_pub_close(pub);
	traffic_end(t, 0, bus);
	return 0;
}

static inline int traffic_subscriber(void *arg)
{
	struct traffic *t = arg;
	shmq_bus *bus = open_with(.start = t->start);
	shmq_sub *sub = open_sub(bus, "t", .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	struct shmq_msg msg;
	uint64_t next = 0, n;
	int rc;

	while (!(rc = shmq_receive(sub, &msg, PATIENCE))) {
		memcpy(&n, msg.data, sizeof(n));
		CHECK_EQ(n, next);
		CHECK_EQ(msg.seq, n);
		CHECK_EQ(msg.len, n % 3 ? sizeof(n) : 500);
		atomic_store(&t->received, ++next);
		atomic_store(&t->reattached[1], shmq_bus_reattach_count(bus));
	}
	CHECK_ERROR(rc, SHMQ_EENDED);
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_EQ(next, atomic_load(&t->sent));
	shmq_sub_close(sub);
	traffic_end(t, 1, bus);
	return 0;
}

/* traffic_start(bus, .at_full_speed = 1) and so on. */
#define traffic_start(bus, ...) traffic_begin(bus, (struct traffic){ __VA_ARGS__ })

static inline struct traffic *traffic_begin(shmq_bus *bus, struct traffic what)
{
	struct traffic *t = shared_memory(sizeof(*t));

	*t = what;
	create(bus, "t", .depth = TRAFFIC_DEPTH, .max_message_bytes = 500);
	t->publisher = test_spawn(traffic_publisher, t);
	t->subscriber = test_spawn(traffic_subscriber, t);
	return t;
}

/* Some more messages went through. */
static inline void traffic_await_flow(struct traffic *t)
{
	uint64_t from = atomic_load(&t->received);
	int64_t deadline = test_now_ns() + PATIENCE;

	while (atomic_load(&t->received) < from + 2 * TRAFFIC_DEPTH) {
		if (test_now_ns() > deadline)
			FAIL("the stream stands at %llu of %llu",
			     (unsigned long long)atomic_load(&t->received),
			     (unsigned long long)atomic_load(&t->sent));
		test_sleep_ms(1);
	}
}

/* Both have attached again so many times. */
static inline void traffic_await_reattached(struct traffic *t, int n)
{
	await(&t->reattached[0], n);
	await(&t->reattached[1], n);
}

/* Every message that was sent has been received in the end. */
static inline void traffic_stop(struct traffic *t)
{
	traffic_await_flow(t);
	atomic_store(&t->stop, 1);
	CHECK_EQ(test_join(t->publisher), 0);
	CHECK_EQ(test_join(t->subscriber), 0);
	CHECK_GT(atomic_load(&t->sent), 0);
}

/* Creating, opening, publishing and closing work, by an old and by a new
 * client. */
static inline void traffic_check_opens(shmq_bus *old)
{
	shmq_bus *fresh = test_bus_open(), *buses[2] = { old, fresh };
	struct shmq_msg msg;

	for (int i = 0; i < 2; i++) {
		shmq_sub *sub;
		shmq_pub *pub;

		create(buses[i], "probe", .depth = TRAFFIC_DEPTH, .max_message_bytes = 1000);
		sub = open_sub(buses[1 - i], "probe");
		pub = open_pub(buses[i], "probe");
		CHECK_OK(shmq_publish(pub, "probe", 5));
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_MEM(msg.data, "probe", 5);
		shmq_pub_close(pub);
		shmq_sub_close(sub);
		CHECK_OK(shmq_topic_remove(buses[i], "probe", 0));
	}
	shmq_bus_close(fresh);
}

/* ---- what the tailer writes meanwhile ------------------------------------------ */

struct kept {
	_Atomic int stop;
	_Atomic uint64_t sent;
	pid_t publisher;
};

static inline int kept_publisher(void *arg)
{
	struct kept *k = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "kept");
	uint64_t n = 0;

	while (!atomic_load(&k->stop)) {
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		atomic_store(&k->sent, ++n);
		if (n % 16 == 0)
			test_sleep_ms(1);
	}
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, n - 1, SHMQ_WRITTEN, PATIENCE));
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static inline struct kept *kept_start(shmq_bus *bus)
{
	struct kept *k = shared_memory(sizeof(*k));

	create(bus, "kept", .depth = TRAFFIC_DEPTH, .log = SHMQ_LOG_BLOCK);
	k->publisher = test_spawn(kept_publisher, k);
	return k;
}

/* Some more were sent, and so many are the log's. */
static inline void kept_await_flow(struct kept *k)
{
	uint64_t from = atomic_load(&k->sent);
	int64_t deadline = test_now_ns() + PATIENCE;

	while (atomic_load(&k->sent) < from + 2 * TRAFFIC_DEPTH) {
		if (test_now_ns() > deadline)
			FAIL("the log stands at %llu", (unsigned long long)atomic_load(&k->sent));
		test_sleep_ms(1);
	}
}

/* All of it is in the log. */
static inline void kept_stop(struct kept *k, shmq_bus *bus)
{
	struct shmq_msg msg;
	shmq_sub *sub;

	atomic_store(&k->stop, 1);
	CHECK_EQ(test_join(k->publisher), 0);
	sub = open_sub(bus, "kept", .from = SHMQ_FROM_OLDEST);
	for (uint64_t n = 0; n < atomic_load(&k->sent); n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, n);
		CHECK_MEM(msg.data, &n, sizeof(n));
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	NOTE("%llu messages are in the log", (unsigned long long)atomic_load(&k->sent));
}

#endif
