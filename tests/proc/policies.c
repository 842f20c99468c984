/* SPDX-License-Identifier: MIT
 *
 * What happens when a subscriber is slower than its publishers: who waits,
 * who is told, and that the numbers add up.
 */
#include "helpers.h"

#include <sched.h>

enum { DEPTH = 1024 };

/* ---- block ------------------------------------------------------------- */

struct blocked {
	_Atomic int stage;
	_Atomic uint64_t sent;
	int rc;
};

static int fill_then_block(void *arg)
{
	struct blocked *b = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	uint64_t n;

	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	for (n = 0; n < DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	CHECK_EQ(pub_stats(pub).blocked, 0);
	reach(&b->stage, 1);
	b->rc = shmq_publish(pub, &n, sizeof(n));
	CHECK_EQ(pub_stats(pub).blocked, 1);
	CHECK_EQ(pub_stats(pub).dropped, 0);
	reach(&b->stage, 2);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

TEST(block_waits_for_the_slowest_reader_and_loses_nothing)
{
	struct blocked *b = shared_memory(sizeof(*b));
	struct shmq_partition_info part;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *fast, *slow;
	uint64_t n, got;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	fast = open_sub(bus, "t");
	slow = open_sub(bus, "t");
	child = test_spawn(fill_then_block, b);
	await(&b->stage, 1);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1);
	for (n = 0; n < DEPTH; n++)
		CHECK_OK(shmq_receive(fast, &msg, SHMQ_NOWAIT));
	CHECK_ERROR(shmq_receive(fast, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_OK(shmq_topic_get_partition(bus, "t", 0, &part));
	CHECK_EQ(part.head, DEPTH);
	CHECK_EQ(part.holder_lag, DEPTH);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1); /* still: the slow one holds it */
	CHECK_OK(shmq_receive(slow, &msg, SHMQ_NOWAIT));
	CHECK_EQ(atomic_load(&b->stage), 1); /* it looks at its view */
	CHECK_OK(shmq_release(slow));
	CHECK_EQ(test_join(child), 0);
	CHECK_OK(b->rc);
	for (n = 1; n <= DEPTH; n++) {
		CHECK_OK(shmq_receive(slow, &msg, SHMQ_NOWAIT));
		memcpy(&got, msg.data, sizeof(got));
		CHECK_EQ(got, n);
	}
	CHECK_OK(shmq_receive(fast, &msg, SHMQ_NOWAIT));
	shmq_sub_close(fast);
	shmq_sub_close(slow);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_blocked_publisher_goes_on_when_the_reader_leaves)
{
	struct blocked *b = shared_memory(sizeof(*b));
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	sub = open_sub(bus, "t");
	child = test_spawn(fill_then_block, b);
	await(&b->stage, 1);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1);
	shmq_sub_close(sub);
	CHECK_EQ(test_join(child), 0);
	CHECK_OK(b->rc);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(block_gives_up_after_its_timeout)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	int i;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .block_timeout_ns = 2 * MILLISECOND,
	       .max_message_bytes = 1000);
	create(bus, "forever", .depth = DEPTH);
	for (int k = 0; k < 2; k++) {
		const char *topic = k ? "forever" : "t";

		sub = open_sub(bus, topic);
		/* The publisher's own timeout overrides the topic's. */
		pub = open_pub(bus, topic, .block_timeout_ns = k ? MILLISECOND : 0);
		for (i = 0; i < DEPTH; i++)
			CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
		CHECK_ERROR(shmq_publish(pub, &i, sizeof(i)), SHMQ_ETIMEOUT);
		CHECK_ERROR(shmq_publish(pub, &i, sizeof(i)), SHMQ_ETIMEOUT);
		CHECK_EQ(pub_stats(pub).sent, DEPTH);
		CHECK_EQ(pub_stats(pub).dropped, 2);
		CHECK_EQ(peers_of(bus, topic, SHMQ_ROLE_PUBLISHER).lost, 2);
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_OK(shmq_release(sub));
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
		for (i = 1; i <= DEPTH; i++) {
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
			CHECK_MEM(msg.data, &i, sizeof(i));
		}
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		shmq_pub_close(pub);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(without_subscribers_nobody_waits_whatever_the_policy)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_LOSSY,
						     SHMQ_EVICT };
	static char large[500];
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (int k = 0; k < 8; k++) {
		char topic[2] = { (char)('a' + k), 0 };
		shmq_pub *pub;

		create(bus, topic, .depth = DEPTH, .policy = policies[k % 4],
		       .max_message_bytes = 500, .mode = k < 4 ? SHMQ_EXCLUSIVE : SHMQ_SHARED);
		pub = open_pub(bus, topic, .arena_bytes = 16384);
		for (int i = 0; i < 10 * DEPTH; i++)
			CHECK_OK(shmq_publish(pub, large, i % 2 ? 500 : 20));
		CHECK_EQ(pub_stats(pub).sent, 10 * DEPTH);
		CHECK_EQ(pub_stats(pub).blocked, 0);
		shmq_pub_close(pub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_publisher_that_must_not_wait_is_told_full)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_EVICT };
	static char large[1000];
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (int k = 0; k < 4; k++) {
		char topic[2] = { (char)('a' + k), 0 };
		shmq_pub *pub;
		shmq_sub *sub;
		struct shmq_msg msg;

		create(bus, topic, .depth = DEPTH, .policy = policies[k % 2],
		       .max_message_bytes = 1000, .mode = k < 2 ? SHMQ_EXCLUSIVE : SHMQ_SHARED);
		sub = open_sub(bus, topic);
		pub = open_pub(bus, topic, .flags = SHMQ_DONTWAIT, .arena_bytes = 4096);
		/* The arena holds four of them. */
		for (int i = 0; i < 4; i++)
			CHECK_OK(shmq_publish(pub, large, sizeof(large)));
		CHECK_ERROR(shmq_publish(pub, large, sizeof(large)), SHMQ_EFULL);
		for (int i = 4; i < DEPTH; i++)
			CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
		CHECK_ERROR(shmq_publish(pub, "x", 1), SHMQ_EFULL);
		CHECK_EQ(pub_stats(pub).sent, DEPTH);
		CHECK_EQ(pub_stats(pub).dropped, 2);
		for (int i = 0; i < DEPTH; i++)
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK_OK(shmq_publish(pub, large, sizeof(large)));
		shmq_pub_close(pub);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- drop-new ------------------------------------------------------------ */

TEST(drop_new_refuses_the_newest_and_keeps_the_rest)
{
	uint64_t n = 0, expected = 0, refused = 0, sent = 0, got;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_DROP_NEW);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 2 * DEPTH; i++) {
			int rc = shmq_publish(pub, &sent, sizeof(sent));

			if (rc) {
				CHECK_ERROR(rc, SHMQ_EFULL);
				refused++;
			} else {
				sent++;
			}
		}
		CHECK_EQ(sent - expected, DEPTH);
		for (n = 0; n < DEPTH; n++, expected++) {
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
			memcpy(&got, msg.data, sizeof(got));
			CHECK_EQ(got, expected);
			CHECK_EQ(msg.seq, expected);
		}
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	}
	CHECK_EQ(pub_stats(pub).dropped, refused);
	CHECK_EQ(pub_stats(pub).sent, sent);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- lossy --------------------------------------------------------------- */

/* A message says who sent it, the how manieth of that publisher it is, and
 * is filled from both. */
struct numbered {
	uint32_t publisher, pad;
	uint64_t n;
	char filling[];
};

struct rush {
	const char *topic;
	uint32_t publisher;
	uint64_t count;
	size_t len;
	_Atomic int *go;
};

static int publish_rush(void *arg)
{
	const struct rush *r = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, r->topic, .arena_bytes = 1 << 20);
	struct numbered *m = calloc(1, r->len);

	await(r->go, 1);
	m->publisher = r->publisher;
	for (m->n = 0; m->n < r->count; m->n++) {
		fill(m->filling, r->len - sizeof(*m), m->n << 8 | m->publisher);
		CHECK_OK(shmq_publish(pub, m, r->len));
		if (mix(m->n) % 1500 == 0) /* lets the reader catch up now and then */
			usleep(100);
	}
	CHECK_EQ(pub_stats(pub).sent, r->count);
	CHECK_EQ(pub_stats(pub).blocked, 0);
	free(m);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

struct tally {
	uint64_t received, lost, gaps, next_seq;
	uint64_t next_of[2]; /* of each publisher: at least */
};

static void check_rush_message(struct tally *t, const struct shmq_msg *msg, size_t len)
{
	const struct numbered *m = msg->data;

	CHECK_EQ(msg->len, len);
	CHECK_LT(m->publisher, 2);
	CHECK_GE(m->n, t->next_of[m->publisher]);
	CHECK(is_filled(m->filling, len - sizeof(*m), m->n << 8 | m->publisher));
	CHECK_EQ(msg->seq, t->next_seq);
	t->next_of[m->publisher] = m->n + 1;
	t->next_seq++;
	t->received++;
}

static int rush_handler(void *arg, const struct shmq_msg *msg)
{
	struct tally *t = arg;

	check_rush_message(t, msg, msg->len);
	return 0;
}

enum way { BY_COPY, BY_VIEW, BY_POLL };

/* Receive once.  What is lost is added up as it is told; poll cannot say how
 * much, so there the handle's own count is asked. */
static int read_once(shmq_sub *sub, enum way way, char *buf, size_t len, struct tally *t)
{
	struct shmq_msg msg = { 0 };
	uint64_t lost = sub_stats(sub).lost;
	int rc;

	if (way == BY_POLL) {
		rc = (int)shmq_poll(sub, rush_handler, t, 100, PATIENCE);
		msg.lost = sub_stats(sub).lost - t->lost;
	} else if (way == BY_COPY) {
		rc = shmq_receive_copy(sub, buf, len, &msg, PATIENCE);
	} else {
		rc = shmq_receive(sub, &msg, PATIENCE);
		if (!rc) {
			memcpy(buf, msg.data, len);
			rc = shmq_view_check(sub, &msg);
			if (rc)
				CHECK_EQ(sub_stats(sub).lost, lost + 1);
			msg.lost = !!rc;
		}
		msg.data = buf;
	}
	if (rc == SHMQ_EOVERRUN) {
		CHECK_GT(msg.lost, 0);
		CHECK_EQ(msg.lost_is_bound, 0);
		t->lost += msg.lost;
		t->next_seq += msg.lost;
		t->gaps++;
		return 0;
	}
	if (rc < 0 || way == BY_POLL)
		return rc < 0 ? rc : 0;
	check_rush_message(t, &msg, len);
	return 0;
}

/* Read a burst, then dawdle until the publishers are up to a ring ahead (or
 * are done), so that gaps of many sizes are made. */
static void read_slowly(shmq_bus *bus, shmq_sub *sub, const char *topic, size_t len,
			struct tally *t)
{
	char *buf = malloc(len);
	int rc = 0;

	for (uint64_t burst = 0; !rc; burst++) {
		uint64_t size = mix(burst) % 500, ahead = mix(burst) % 3 * DEPTH / 2;

		for (uint64_t i = 0; i <= size && !rc; i++)
			rc = read_once(sub, burst % 3, buf, len, t);
		while (sub_stats(sub).lag < ahead && topic_info(bus, topic).publishers)
			sched_yield();
	}
	CHECK_ERROR(rc, SHMQ_EENDED);
	free(buf);
}

static void check_exact_loss(size_t len, enum shmq_mode mode, int publishers, uint64_t count)
{
	static int topics;
	_Atomic int *go = shared_memory(sizeof(*go));
	struct rush rush[2];
	struct tally t = { 0 };
	pid_t child[2];
	char topic[16];
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub;

	snprintf(topic, sizeof(topic), "t%d", topics++);
	create(bus, topic, .depth = DEPTH, .policy = SHMQ_LOSSY, .mode = mode,
	       .max_message_bytes = len < 100 ? 0 : len);
	sub = open_sub(bus, topic, .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	for (int i = 0; i < publishers; i++) {
		rush[i] = (struct rush){ topic, (uint32_t)i, count, len, go };
		child[i] = test_spawn(publish_rush, &rush[i]);
	}
	/* All must be there, or the end of one could be taken for that of all. */
	while (topic_info(bus, topic).publishers < (unsigned)publishers)
		test_sleep_ms(1);
	reach(go, 1);
	read_slowly(bus, sub, topic, len, &t);
	for (int i = 0; i < publishers; i++)
		CHECK_EQ(test_join(child[i]), 0);
	CHECK_EQ(t.received + t.lost, (unsigned)publishers * count);
	CHECK_EQ(sub_stats(sub).received, t.received);
	CHECK_EQ(sub_stats(sub).lost, t.lost);
	CHECK_EQ(sub_stats(sub).lost_is_bound, 0);
	CHECK_EQ(topic_info(bus, topic).head, (unsigned)publishers * count);
	NOTE("%zu bytes, %d publishers: %llu received, %llu lost in %llu gaps", len, publishers,
	     (unsigned long long)t.received, (unsigned long long)t.lost,
	     (unsigned long long)t.gaps);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
}

TEST(loss_is_exact_for_inline_messages_of_an_exclusive_publisher)
{
	test_bus_start();
	for (int round = 0; round < 5; round++)
		check_exact_loss(64, SHMQ_EXCLUSIVE, 1, 300000);
	test_bus_stop();
}

TEST(loss_is_exact_for_arena_messages_of_an_exclusive_publisher)
{
	test_bus_start();
	for (int round = 0; round < 3; round++)
		check_exact_loss(3000, SHMQ_EXCLUSIVE, 1, 30000);
	test_bus_stop();
}

TEST(loss_is_exact_for_inline_messages_of_two_shared_publishers)
{
	test_bus_start();
	for (int round = 0; round < 5; round++)
		check_exact_loss(64, SHMQ_SHARED, 2, 150000);
	test_bus_stop();
}

TEST(loss_is_exact_for_arena_messages_of_two_shared_publishers)
{
	test_bus_start();
	for (int round = 0; round < 3; round++)
		check_exact_loss(3000, SHMQ_SHARED, 2, 20000);
	test_bus_stop();
}

TEST(an_arena_that_goes_round_before_its_ring_loses_the_oldest)
{
	static char large[1000];
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_LOSSY, .max_message_bytes = 1000);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t", .arena_bytes = 16384); /* holds 16 of 1024 bytes */
	for (unsigned i = 0; i < 100; i++) {
		fill(large, sizeof(large), i);
		CHECK_OK(shmq_publish(pub, large, sizeof(large)));
	}
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(msg.lost, 84); /* once per gap */
	CHECK_EQ(msg.lost_is_bound, 0);
	for (unsigned i = 84; i < 100; i++) {
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_EQ(msg.seq, i);
		CHECK(is_filled(msg.data, sizeof(large), i));
		CHECK_OK(shmq_view_check(sub, &msg));
	}
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- evict ----------------------------------------------------------------- */

static int read_along(void *arg)
{
	_Atomic int *stage = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t");
	struct shmq_msg msg;
	uint64_t n, got;

	reach(stage, 1);
	for (n = 0; n < 5 * DEPTH; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		memcpy(&got, msg.data, sizeof(got));
		CHECK_EQ(got, n);
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

TEST(evict_goes_on_without_who_lags_and_tells_it)
{
	_Atomic int *stage = shared_memory(sizeof(*stage));
	struct shmq_event event;
	struct shmq_msg msg;
	struct peers subs;
	uint64_t n, got;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *slow;
	pid_t child;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_EVICT, .evict_ns = 20 * MILLISECOND);
	slow = open_sub(bus, "t");
	child = test_spawn(read_along, (void *)stage);
	await(stage, 1);
	pub = open_pub(bus, "t");
	for (n = 0; n < 5 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	CHECK_EQ(test_join(child), 0); /* who reads along has lost nothing */
	CHECK_EQ(pub_stats(pub).sent, 5 * DEPTH);
	CHECK_EQ(pub_stats(pub).dropped, 0);
	event = await_event(bus, SHMQ_EVENT_EVICTED, 0);
	CHECK_EQ(event.client_id, shmq_bus_client_id(bus));
	CHECK_STR(event.topic, "t");
	subs = peers_of(bus, "t", SHMQ_ROLE_SUBSCRIBER);
	CHECK_EQ(subs.count, 1);
	CHECK_EQ(subs.evicted, 1);
	CHECK_EQ(subs.gating, 0);
	/* What it can still read it may, then it is told, then never more. */
	for (n = 0; !(rc = shmq_receive(slow, &msg, SHMQ_NOWAIT)); n++) {
		memcpy(&got, msg.data, sizeof(got));
		CHECK_EQ(got, n);
	}
	CHECK_ERROR(rc, SHMQ_EEVICTED);
	CHECK_GT(msg.lost, 0);
	CHECK_LE(n + msg.lost, 5 * DEPTH);
	CHECK_EQ(sub_stats(slow).lost, msg.lost);
	CHECK_ERROR(shmq_receive(slow, &msg, SHMQ_NOWAIT), SHMQ_EEVICTED);
	CHECK_ERROR(shmq_receive(slow, &msg, PATIENCE), SHMQ_EEVICTED);
	shmq_sub_close(slow);
	/* It may come back. */
	slow = open_sub(bus, "t");
	CHECK_OK(shmq_publish(pub, "again", 5));
	CHECK_OK(shmq_receive(slow, &msg, SHMQ_NOWAIT));
	CHECK_MEM(msg.data, "again", 5);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(evict_waits_for_who_reads_in_time)
{
	struct blocked *b = shared_memory(sizeof(*b));
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;
	uint64_t n, got;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_EVICT, .evict_ns = PATIENCE);
	sub = open_sub(bus, "t");
	child = test_spawn(fill_then_block, b);
	await(&b->stage, 1);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1);
	for (n = 0; n <= DEPTH; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		memcpy(&got, msg.data, sizeof(got));
		CHECK_EQ(got, n);
	}
	CHECK_EQ(test_join(child), 0);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(evict_passes_over_several_laggards_and_shared_publishers)
{
	static char large[400];
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *a, *b;
	shmq_sub *slow[3];

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_EVICT, .evict_ns = MILLISECOND,
	       .mode = SHMQ_SHARED, .max_message_bytes = 400);
	for (int i = 0; i < 3; i++)
		slow[i] = open_sub(bus, "t");
	a = open_pub(bus, "t", .arena_bytes = 65536);
	b = open_pub(bus, "t", .arena_bytes = 65536);
	for (int i = 0; i < 4 * DEPTH; i++)
		CHECK_OK(shmq_publish(i % 2 ? a : b, large, i % 3 ? 400 : 20));
	CHECK_EQ(topic_info(bus, "t").head, 4 * DEPTH);
	for (int i = 0; i < 3; i++) {
		CHECK_ERROR(shmq_receive(slow[i], &msg, SHMQ_NOWAIT), SHMQ_EEVICTED);
		CHECK_GT(msg.lost, 0);
	}
	CHECK_EQ(peers_of(bus, "t", SHMQ_ROLE_SUBSCRIBER).evicted, 3);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- flush, waiting for subscribers, ends ---------------------------------------- */

struct reader {
	_Atomic int stage;
	_Atomic uint64_t read;
	uint64_t count;
};

static int read_some(void *arg)
{
	struct reader *r = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t");
	struct shmq_msg msg;

	reach(&r->stage, 1);
	while (atomic_load(&r->read) < r->count) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		/* Counted before it is given back: a flush that returns too
		 * early finds less. */
		atomic_fetch_add(&r->read, 1);
		CHECK_OK(shmq_release(sub));
	}
	await(&r->stage, 2);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

TEST(flush_waits_until_everybody_attached_has_read)
{
	struct reader *r = shared_memory(2 * sizeof(*r));
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t child[2];

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .partitions = 2);
	pub = open_pub(bus, "t");
	for (int i = 0; i < 2; i++) {
		r[i].count = 20 * 500;
		child[i] = test_spawn(read_some, &r[i]);
	}
	CHECK_OK(shmq_pub_wait_subscribers(pub, 2, PATIENCE));
	for (uint64_t round = 1; round <= 20; round++) {
		for (int i = 0; i < 500; i++)
			CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
		CHECK_OK(shmq_flush(pub, PATIENCE));
		CHECK_EQ(atomic_load(&r[0].read), round * 500);
		CHECK_EQ(atomic_load(&r[1].read), round * 500);
	}
	for (int i = 0; i < 2; i++) {
		reach(&r[i].stage, 2);
		CHECK_EQ(test_join(child[i]), 0);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(flush_of_a_lossy_topic_waits_for_nobody)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_LOSSY);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	CHECK_OK(shmq_publish(pub, "x", 1));
	CHECK_OK(shmq_flush(pub, SHMQ_FOREVER));
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int flush_evicting(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");

	(void)arg;
	CHECK_OK(shmq_publish(pub, "x", 1));
	/* Far beyond the topic's patience: flush evicts nobody. */
	CHECK_ERROR(shmq_flush(pub, 50 * MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_EQ(peers_of(bus, "t", SHMQ_ROLE_SUBSCRIBER).evicted, 0);
	shmq_bus_close(bus);
	return 0;
}

TEST(flush_evicts_nobody)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_EVICT, .evict_ns = MILLISECOND);
	sub = open_sub(bus, "t");
	CHECK_EQ(test_join(test_spawn(flush_evicting, NULL)), 0);
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int publish_when_two_are_there(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");

	reach(arg, 1);
	CHECK_OK(shmq_pub_wait_subscribers(pub, 2, PATIENCE));
	CHECK_OK(shmq_publish(pub, "welcome", 7));
	shmq_bus_close(bus);
	return 0;
}

TEST(a_publisher_waits_for_its_subscribers_to_come)
{
	_Atomic int *stage = shared_memory(sizeof(*stage));
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *first, *second;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	child = test_spawn(publish_when_two_are_there, (void *)stage);
	first = open_sub(bus, "t");
	await(stage, 1);
	CHECK_ERROR(shmq_receive(first, &msg, 5 * MILLISECOND), SHMQ_ETIMEOUT);
	second = open_sub(bus, "t");
	CHECK_OK(shmq_receive(first, &msg, PATIENCE));
	CHECK_OK(shmq_receive(second, &msg, PATIENCE));
	CHECK_EQ(test_join(child), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_stream_ends_with_its_last_publisher_once_all_is_read)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *a, *b;
	shmq_sub *sub, *late, *lasting;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	lasting = open_sub(bus, "t");
	/* Nobody was there yet: that is no end. */
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_receive(sub, &msg, MILLISECOND), SHMQ_ETIMEOUT);
	a = open_pub(bus, "t");
	b = open_pub(bus, "t");
	CHECK_OK(shmq_publish(a, "1", 1));
	CHECK_OK(shmq_publish(b, "2", 1));
	shmq_pub_close(a);
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_OK(shmq_publish(b, "3", 1));
	shmq_pub_close(b);
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_MEM(msg.data, "3", 1);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EENDED);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EENDED);
	/* Who comes after them reads what they left, then it is over too. */
	late = open_sub(bus, "t", .flags = SHMQ_SUB_END_WITH_PUBLISHERS, .from = SHMQ_FROM_OLDEST);
	for (int i = 0; i < 3; i++)
		CHECK_OK(shmq_receive(late, &msg, SHMQ_NOWAIT));
	CHECK_ERROR(shmq_receive(late, &msg, SHMQ_NOWAIT), SHMQ_EENDED);
	/* Without the flag nothing ends, and the topic lives. */
	for (int i = 0; i < 3; i++)
		CHECK_OK(shmq_receive(lasting, &msg, SHMQ_NOWAIT));
	CHECK_ERROR(shmq_receive(lasting, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- removal ------------------------------------------------------------------------ */

static int publish_until_ended(void *arg)
{
	_Atomic int *stage = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	uint64_t n = 0;
	int rc;

	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	while (!(rc = shmq_publish(pub, &n, sizeof(n))))
		if (++n == DEPTH)
			reach(stage, 1);
	CHECK_ERROR(rc, SHMQ_EENDED);
	CHECK_EQ(n, DEPTH);
	CHECK_ERROR(shmq_flush(pub, PATIENCE), SHMQ_EENDED);
	CHECK_ERROR(shmq_publish(pub, &n, sizeof(n)), SHMQ_EENDED);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

TEST(forced_removal_ends_handles_by_name_and_frees_the_memory_with_the_last)
{
	_Atomic int *stage = shared_memory(sizeof(*stage));
	struct shmq_bus_info before, during, after;
	struct shmq_topic_info info;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub, *fresh;
	uint64_t got;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "warm", .depth = DEPTH);
	CHECK_OK(shmq_bus_get_info(bus, &before));
	/* Large enough for memory of its own, outside the warm pools. */
	create(bus, "t", .depth = DEPTH, .slot_bytes = 4096);
	sub = open_sub(bus, "t");
	child = test_spawn(publish_until_ended, (void *)stage);
	await(stage, 1);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1);
	CHECK_ERROR(shmq_topic_remove(bus, "t", 0), SHMQ_EINUSE);
	CHECK_OK(shmq_topic_remove(bus, "t", SHMQ_FORCE));
	CHECK_EQ(test_join(child), 0);
	CHECK_ERROR(shmq_topic_get_info(bus, "t", &info), SHMQ_ENOTOPIC);
	CHECK_ERROR(shmq_pub_open(bus, "t", NULL, &pub), SHMQ_ENOTOPIC);
	CHECK_OK(shmq_sub_get_topic(sub, &info));
	CHECK_EQ(info.ended, 1);
	/* Its name is free, and what is made of it is another topic. */
	create(bus, "t", .depth = DEPTH);
	fresh = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "new", 3));
	CHECK_OK(shmq_bus_get_info(bus, &during));
	CHECK_EQ(during.topics, 2);
	for (uint64_t n = 0; n < DEPTH; n++) {
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		memcpy(&got, msg.data, sizeof(got));
		CHECK_EQ(got, n);
	}
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EENDED);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EENDED);
	shmq_sub_close(sub);
	CHECK_OK(shmq_receive(fresh, &msg, SHMQ_NOWAIT));
	CHECK_MEM(msg.data, "new", 3);
	shmq_pub_close(pub);
	shmq_sub_close(fresh);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_EQ(after.topics, 1);
	CHECK_LE(after.bytes, before.bytes + (1 << 20));
	CHECK_GE(during.bytes, before.bytes + 4096 * DEPTH);
	shmq_bus_close(bus);
	test_bus_stop();
}
