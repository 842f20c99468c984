/* SPDX-License-Identifier: MIT
 *
 * helpers: what tests of handles share.
 *
 * Processes of a test agree on how far they are by stages in memory that
 * they share: one reaches a stage, another awaits it.  Nobody sleeps and
 * hopes; a stage that is not reached within a minute fails the test.
 */
#ifndef TEST_HELPERS_H
#define TEST_HELPERS_H

#include "../lib/bus.h"
#include "tap.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)
/* For what must come; never waited for in vain. */
#define PATIENCE (60 * SECOND * test_slowdown())

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- bus, topics, handles -------------------------------------------- */

#define BUS_OPTIONS(...) \
	(&(struct shmq_bus_options){ .size = sizeof(struct shmq_bus_options), ##__VA_ARGS__ })
#define TOPIC_OPTIONS(...) \
	(&(struct shmq_topic_options){ .size = sizeof(struct shmq_topic_options), ##__VA_ARGS__ })
#define PUB_OPTIONS(...) \
	(&(struct shmq_pub_options){ .size = sizeof(struct shmq_pub_options), ##__VA_ARGS__ })
#define SUB_OPTIONS(...) \
	(&(struct shmq_sub_options){ .size = sizeof(struct shmq_sub_options), ##__VA_ARGS__ })

/* create(bus, "t", .depth = 1024, .mode = SHMQ_SHARED) and so on: must succeed. */
#define create(bus, name, ...) create_topic(bus, name, TOPIC_OPTIONS(__VA_ARGS__))
#define open_pub(bus, topic, ...) open_publisher(bus, topic, PUB_OPTIONS(__VA_ARGS__))
#define open_sub(bus, topic, ...) open_subscriber(bus, topic, SUB_OPTIONS(__VA_ARGS__))

static inline void create_topic(shmq_bus *bus, const char *name, struct shmq_topic_options *options)
{
	int rc = shmq_topic_create(bus, name, options, NULL);

	if (rc)
		FAIL("creating \"%s\": %s: %s", name, shmq_errname(rc), shmq_bus_error(bus));
}

static inline shmq_pub *open_publisher(shmq_bus *bus, const char *topic,
				       struct shmq_pub_options *options)
{
	shmq_pub *pub;
	int rc = shmq_pub_open(bus, topic, options, &pub);

	if (rc)
		FAIL("publisher on \"%s\": %s: %s", topic, shmq_errname(rc), shmq_bus_error(bus));
	return pub;
}

static inline shmq_sub *open_subscriber(shmq_bus *bus, const char *topic,
					struct shmq_sub_options *options)
{
	shmq_sub *sub;
	int rc = shmq_sub_open(bus, topic, options, &sub);

	if (rc)
		FAIL("subscriber on \"%s\": %s: %s", topic, shmq_errname(rc), shmq_bus_error(bus));
	return sub;
}

/* Errors are easier to read by name. */
#define CHECK_ERROR(call, want) check_error(__FILE__, __LINE__, #call, (long long)(call), (want))

static inline void check_error(const char *file, int line, const char *what, long long got,
			       int want)
{
	if (got != want)
		tap_fail(file, line, "%s: got %lld (%s), want %s", what, got,
			 shmq_errname(got > 0 ? 0 : (int)got), shmq_errname(want));
}

/* The last failed call's explanation. */
static inline void check_says(const char *text)
{
	if (!strstr(shmq_bus_error(NULL), text))
		FAIL("\"%s\" does not say \"%s\"", shmq_bus_error(NULL), text);
}

static inline struct shmq_topic_info topic_info(shmq_bus *bus, const char *topic)
{
	struct shmq_topic_info info;

	CHECK_OK(shmq_topic_get_info(bus, topic, &info));
	return info;
}

static inline struct shmq_pub_stats pub_stats(const shmq_pub *pub)
{
	struct shmq_pub_stats stats;

	shmq_pub_get_stats(pub, &stats);
	return stats;
}

static inline struct shmq_sub_stats sub_stats(const shmq_sub *sub)
{
	struct shmq_sub_stats stats;

	shmq_sub_get_stats(sub, &stats);
	return stats;
}

/* ---- stages ------------------------------------------------------------ */

/* Memory shared with children forked later; zeroed. */
static inline void *shared_memory(size_t bytes)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		FAIL("%zu shared bytes: %s", bytes, strerror(errno));
	return mem;
}

static inline void reach(_Atomic int *stage, int n)
{
	atomic_store(stage, n);
}

static inline void await(_Atomic int *stage, int n)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while (atomic_load(stage) < n) {
		if (test_now_ns() > deadline)
			FAIL("waited in vain for stage %d, it is %d", n, atomic_load(stage));
		test_sleep_ms(1);
	}
}

/* ---- events ------------------------------------------------------------ */

/* Wait for an event of that kind, whatever comes before; about client_id if
 * that is not 0. */
static inline struct shmq_event await_event(shmq_bus *bus, enum shmq_event_kind kind,
					    unsigned client_id)
{
	struct shmq_event event;

	for (;;) {
		int rc = shmq_bus_event(bus, &event, PATIENCE);

		if (rc)
			FAIL("waiting for event %d: %s", (int)kind, shmq_errname(rc));
		if (event.kind == kind && (!client_id || event.client_id == client_id))
			return event;
	}
}

/* Sum of one number over a topic's peers of one role. */
struct peers {
	enum shmq_role role;
	unsigned count, sleeping, waiting, gating, evicted;
	uint64_t sent_or_received, lost, lag;
	struct shmq_peer_info last;
};

static inline int add_peer(void *arg, const struct shmq_peer_info *peer)
{
	struct peers *sum = arg;

	if (peer->role != sum->role)
		return 0;
	sum->count++;
	sum->sleeping += !!peer->sleeping;
	sum->waiting += !!peer->waiting;
	sum->gating += !!peer->gating;
	sum->evicted += !!peer->evicted;
	sum->sent_or_received += peer->count;
	sum->lost += peer->lost;
	sum->lag += peer->lag;
	sum->last = *peer;
	return 0;
}

static inline struct peers peers_of(shmq_bus *bus, const char *topic, enum shmq_role role)
{
	struct peers sum = { .role = role };

	CHECK_OK(shmq_peer_each(bus, topic, add_peer, &sum));
	return sum;
}

/* Wait until so many of the topic's subscribers, or blocked publishers, are
 * asleep. */
static inline void await_sleepers(shmq_bus *bus, const char *topic, enum shmq_role role,
				  unsigned count)
{
	int64_t deadline = test_now_ns() + PATIENCE;
	struct peers sum;

	while ((sum = peers_of(bus, topic, role)).sleeping < count) {
		if (test_now_ns() > deadline)
			FAIL("%u of %u of \"%s\" sleep, want %u", sum.sleeping, sum.count, topic,
			     count);
		test_sleep_ms(1);
	}
}

/* ---- payloads ------------------------------------------------------------ */

static inline uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* Every byte depends on the seed and on where it stands. */
static inline void fill(void *buf, size_t len, uint64_t seed)
{
	unsigned char *at = buf;
	uint64_t word;

	for (size_t i = 0; i < len; i += sizeof(word)) {
		word = mix(seed ^ (uint64_t)i << 20);
		memcpy(at + i, &word, len - i < sizeof(word) ? len - i : sizeof(word));
	}
}

static inline int is_filled(const void *buf, size_t len, uint64_t seed)
{
	const unsigned char *at = buf;
	uint64_t word;

	for (size_t i = 0; i < len; i += sizeof(word)) {
		word = mix(seed ^ (uint64_t)i << 20);
		if (memcmp(at + i, &word, len - i < sizeof(word) ? len - i : sizeof(word)))
			return 0;
	}
	return 1;
}

#endif
