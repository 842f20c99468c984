/* SPDX-License-Identifier: MIT
 *
 * Several publishers, several subscribers, each in a process of its own:
 * every message once, in the order of its publisher, in one order for all;
 * and atomic batches whole or not at all.
 */
#include "helpers.h"

#include <sched.h>

enum { PUBLISHERS = 2, SUBSCRIBERS = 2, DEPTH = 1024 };

/* ---- one order for all --------------------------------------------------- */

struct item {
	uint32_t publisher;
	uint32_t n;
	char filling[];
};

struct scene {
	_Atomic int go;
	uint64_t each;      /* messages of each publisher */
	size_t least, most; /* their sizes */
	enum shmq_wait wait;
	/* What subscriber s got as its i-th: order[s * PUBLISHERS * each + i]. */
	uint64_t order[];
};

struct part {
	struct scene *scene;
	uint32_t number;
};

static size_t item_len(const struct scene *s, uint32_t publisher, uint32_t n)
{
	return s->least + mix((uint64_t)publisher << 32 | n) % (s->most - s->least + 1);
}

static int publish_items(void *arg)
{
	const struct part *part = arg;
	struct scene *s = part->scene;
	struct item *item = malloc(s->most);
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t", .wait = s->wait);

	CHECK_OK(shmq_pub_wait_subscribers(pub, SUBSCRIBERS, PATIENCE));
	await(&s->go, 1);
	for (uint32_t n = 0; n < s->each; n++) {
		size_t len = item_len(s, part->number, n);

		item->publisher = part->number;
		item->n = n;
		fill(item->filling, len - sizeof(*item), (uint64_t)n << 1 | part->number);
		CHECK_OK(shmq_publish(pub, item, len));
		if (mix(n) % 64 == 0) /* or one could send all it has at once */
			sched_yield();
	}
	CHECK_EQ(pub_stats(pub).sent, s->each);
	free(item);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static int receive_items(void *arg)
{
	const struct part *part = arg;
	struct scene *s = part->scene;
	uint64_t *order = s->order + part->number * PUBLISHERS * s->each;
	uint32_t next[PUBLISHERS] = { 0 };
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t", .wait = s->wait);
	struct shmq_msg msg;

	for (uint64_t i = 0; i < PUBLISHERS * s->each; i++) {
		const struct item *item;

		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		item = msg.data;
		CHECK_LT(item->publisher, PUBLISHERS);
		CHECK_EQ(item->n, next[item->publisher]);
		next[item->publisher]++;
		CHECK_EQ(msg.len, item_len(s, item->publisher, item->n));
		CHECK(is_filled(item->filling, msg.len - sizeof(*item),
				(uint64_t)item->n << 1 | item->publisher));
		CHECK_EQ(msg.seq, i);
		order[i] = (uint64_t)item->publisher << 32 | item->n;
	}
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(sub_stats(sub).received, PUBLISHERS * s->each);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

static void check_order(uint64_t each, size_t least, size_t most, enum shmq_wait wait)
{
	size_t run = PUBLISHERS * each * sizeof(uint64_t);
	struct scene *s = shared_memory(sizeof(*s) + SUBSCRIBERS * run);
	struct part part[PUBLISHERS + SUBSCRIBERS];
	pid_t child[PUBLISHERS + SUBSCRIBERS];
	uint64_t turns = 0;
	shmq_bus *bus;

	s->each = each;
	s->least = least;
	s->most = most;
	s->wait = wait;
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .max_message_bytes = most);
	for (uint32_t i = 0; i < PUBLISHERS + SUBSCRIBERS; i++) {
		part[i] = (struct part){ s, i < SUBSCRIBERS ? i : i - SUBSCRIBERS };
		child[i] = test_spawn(i < SUBSCRIBERS ? receive_items : publish_items, &part[i]);
	}
	while (topic_info(bus, "t").publishers < PUBLISHERS)
		test_sleep_ms(1);
	reach(&s->go, 1);
	for (int i = 0; i < PUBLISHERS + SUBSCRIBERS; i++)
		CHECK_EQ(test_join(child[i]), 0);
	CHECK_MEM(s->order, s->order + PUBLISHERS * each, run);
	for (uint64_t i = 1; i < PUBLISHERS * each; i++)
		turns += s->order[i] >> 32 != s->order[i - 1] >> 32;
	NOTE("%llu messages, the publishers took %llu turns", (unsigned long long)(2 * each),
	     (unsigned long long)turns);
	munmap(s, sizeof(*s) + SUBSCRIBERS * run);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(two_subscribers_see_two_publishers_inline_messages_in_one_order)
{
	check_order(200000, 8, 100, SHMQ_WAIT_YIELD);
}

TEST(two_subscribers_see_two_publishers_arena_messages_in_one_order)
{
	check_order(20000, 8, 10000, SHMQ_WAIT_YIELD);
}

TEST(two_subscribers_that_sleep_see_one_order)
{
	check_order(50000, 8, 200, SHMQ_WAIT_SLEEP);
}

TEST(two_subscribers_that_wait_adaptively_see_one_order)
{
	check_order(50000, 8, 200, SHMQ_WAIT_ADAPTIVE);
}

/* ---- atomic batches ---------------------------------------------------------- */

struct member {
	uint32_t publisher;
	uint32_t batch; /* the how manieth of its publisher */
	uint32_t index, count;
	char filling[];
};

enum { BATCH_MOST = 60, MEMBER_MOST = 600 };

struct batches {
	_Atomic int go;
	_Atomic uint64_t sent; /* messages of all publishers */
	uint32_t each;         /* batches of each publisher */
	size_t most;
	unsigned wanted; /* subscribers to wait for */
	int pause;       /* now and then, where readers may lose */
};

struct batch_part {
	struct batches *b;
	uint32_t number;
};

static uint32_t batch_count(uint32_t publisher, uint32_t batch)
{
	return 1 + (uint32_t)mix((uint64_t)batch << 8 | publisher) % BATCH_MOST;
}

static size_t member_len(const struct batches *b, uint32_t batch, uint32_t index)
{
	return sizeof(struct member) +
	       mix((uint64_t)batch << 32 | index) % (b->most - sizeof(struct member));
}

static uint64_t member_seed(const struct member *m)
{
	return (uint64_t)m->publisher << 60 | (uint64_t)m->batch << 16 | m->index;
}

static int publish_batches(void *arg)
{
	const struct batch_part *part = arg;
	struct batches *b = part->b;
	static char bytes[BATCH_MOST][MEMBER_MOST];
	static struct shmq_msg many[BATCH_MOST];
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");

	CHECK_OK(shmq_pub_wait_subscribers(pub, b->wanted, PATIENCE));
	await(&b->go, 1);
	for (uint32_t batch = 0; batch < b->each; batch++) {
		uint32_t count = batch_count(part->number, batch);

		for (uint32_t i = 0; i < count; i++) {
			struct member *m = (struct member *)bytes[i];

			*m = (struct member){ part->number, batch, i, count };
			many[i] = (struct shmq_msg){ .data = m, .len = member_len(b, batch, i) };
			fill(m->filling, many[i].len - sizeof(*m), member_seed(m));
		}
		CHECK_EQ(shmq_publish_batch(pub, many, count, SHMQ_ATOMIC), count);
		atomic_fetch_add(&b->sent, count);
		if (b->pause && mix(batch) % 64 == 0)
			usleep(100);
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

/* What a subscriber saw of each publisher. */
struct seen {
	struct {
		uint32_t batch, next, count; /* the one being read; next == count: none */
		int any;
	} of[PUBLISHERS];
	uint64_t received, lost, whole;
};

static void see(struct seen *s, const struct batches *b, const struct shmq_msg *msg, int gaps)
{
	const struct member *m = msg->data;

	CHECK_GE(msg->len, sizeof(*m));
	CHECK_LT(m->publisher, PUBLISHERS);
	CHECK_EQ(msg->len, member_len(b, m->batch, m->index));
	CHECK(is_filled(m->filling, msg->len - sizeof(*m), member_seed(m)));
	CHECK_EQ(m->count, batch_count(m->publisher, m->batch));
	if (s->of[m->publisher].next == s->of[m->publisher].count) { /* a new one begins */
		CHECK_EQ(m->index, 0);
		if (s->of[m->publisher].any && !gaps)
			CHECK_EQ(m->batch, s->of[m->publisher].batch + 1);
		else if (s->of[m->publisher].any)
			CHECK_GT(m->batch, s->of[m->publisher].batch);
		s->of[m->publisher].any = 1;
		s->of[m->publisher].batch = m->batch;
		s->of[m->publisher].count = m->count;
		s->of[m->publisher].next = 0;
	}
	CHECK_EQ(m->batch, s->of[m->publisher].batch);
	CHECK_EQ(m->index, s->of[m->publisher].next);
	s->of[m->publisher].next++;
	s->whole += s->of[m->publisher].next == m->count;
	s->received++;
}

static void check_nothing_half_seen(const struct seen *s)
{
	for (int p = 0; p < PUBLISHERS; p++)
		CHECK_EQ(s->of[p].next, s->of[p].count);
}

static int receive_batches(void *arg)
{
	struct batches *b = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t", .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	struct seen seen = { 0 };
	struct shmq_msg msg;
	int rc;

	while (!(rc = shmq_receive(sub, &msg, PATIENCE)))
		see(&seen, b, &msg, 0);
	CHECK_ERROR(rc, SHMQ_EENDED);
	check_nothing_half_seen(&seen);
	CHECK_EQ(seen.whole, PUBLISHERS * b->each);
	CHECK_EQ(seen.received, atomic_load(&b->sent));
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

/* Come and go, and see nothing half whenever one comes. */
static int drop_in(void *arg)
{
	struct batches *b = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *gone = open_sub(bus, "t"); /* counted by the publishers' wait */
	uint64_t visits = 0;

	shmq_sub_close(gone);
	while (topic_info(bus, "t").publishers) {
		struct seen seen = { 0 };
		struct shmq_msg msg;
		shmq_sub *sub = open_sub(bus, "t",
					 .from = visits % 2 ? SHMQ_FROM_OLDEST : SHMQ_FROM_LATEST);
		int rc = 0;

		for (int i = 0; i < 300 && !rc; i++) {
			rc = shmq_receive(sub, &msg, MILLISECOND);
			if (!rc)
				see(&seen, b, &msg, 0);
		}
		if (rc)
			CHECK_ERROR(rc, SHMQ_ETIMEOUT);
		CHECK_EQ(sub_stats(sub).lost, 0);
		shmq_sub_close(sub);
		visits++;
	}
	NOTE("dropped in %llu times", (unsigned long long)visits);
	shmq_bus_close(bus);
	return 0;
}

static void check_batches(size_t most, enum shmq_policy policy)
{
	struct batches *b = shared_memory(sizeof(*b));
	struct batch_part part[PUBLISHERS];
	pid_t publisher[PUBLISHERS], subscriber[SUBSCRIBERS], visitor;
	shmq_bus *bus;

	b->each = 3000;
	b->most = most;
	b->wanted = SUBSCRIBERS;
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .max_message_bytes = most,
	       .policy = policy, .evict_ns = PATIENCE);
	for (uint32_t i = 0; i < PUBLISHERS; i++) {
		part[i] = (struct batch_part){ b, i };
		publisher[i] = test_spawn(publish_batches, &part[i]);
	}
	for (uint32_t i = 0; i < SUBSCRIBERS; i++)
		subscriber[i] = test_spawn(receive_batches, b);
	while (topic_info(bus, "t").publishers < PUBLISHERS ||
	       topic_info(bus, "t").subscribers < SUBSCRIBERS)
		test_sleep_ms(1);
	visitor = test_spawn(drop_in, b);
	reach(&b->go, 1);
	for (int i = 0; i < PUBLISHERS; i++)
		CHECK_EQ(test_join(publisher[i]), 0);
	for (int i = 0; i < SUBSCRIBERS; i++)
		CHECK_EQ(test_join(subscriber[i]), 0);
	CHECK_EQ(test_join(visitor), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(atomic_batches_of_two_publishers_arrive_whole_inline)
{
	check_batches(90, SHMQ_BLOCK);
}

TEST(atomic_batches_of_two_publishers_arrive_whole_through_the_arena)
{
	check_batches(MEMBER_MOST, SHMQ_BLOCK);
}

TEST(atomic_batches_of_two_publishers_arrive_whole_where_laggards_are_evicted)
{
	check_batches(90, SHMQ_EVICT);
}

/* ---- atomic batches and loss ---------------------------------------------------- */

static void check_batches_with_loss(size_t most, enum shmq_mode mode)
{
	unsigned publishers = mode == SHMQ_SHARED ? PUBLISHERS : 1;
	struct batches *b = shared_memory(sizeof(*b));
	struct batch_part part[PUBLISHERS];
	static char buf[MEMBER_MOST];
	pid_t publisher[PUBLISHERS];
	struct seen seen = { 0 };
	uint64_t bursts = 0;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	int rc = 0;

	b->each = 5000;
	b->most = most;
	b->wanted = 1;
	b->pause = 1;
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = mode, .max_message_bytes = most,
	       .policy = SHMQ_LOSSY);
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	for (uint32_t i = 0; i < publishers; i++) {
		part[i] = (struct batch_part){ b, i };
		publisher[i] = test_spawn(publish_batches, &part[i]);
	}
	while (topic_info(bus, "t").publishers < publishers)
		test_sleep_ms(1);
	reach(&b->go, 1);
	while (!rc) {
		uint64_t burst = mix(bursts++) % 1000;

		for (uint64_t i = 0; i < burst && !rc; i++) {
			rc = shmq_receive_copy(sub, buf, sizeof(buf), &msg, PATIENCE);
			if (rc == SHMQ_EOVERRUN) {
				CHECK_EQ(msg.lost_is_bound, 0);
				seen.lost += msg.lost;
				rc = 0;
			} else if (!rc) {
				see(&seen, b, &msg, 1);
			}
		}
		while (sub_stats(sub).lag < mix(bursts) % 3 * DEPTH / 2 &&
		       topic_info(bus, "t").publishers)
			;
	}
	CHECK_ERROR(rc, SHMQ_EENDED);
	for (unsigned i = 0; i < publishers; i++)
		CHECK_EQ(test_join(publisher[i]), 0);
	check_nothing_half_seen(&seen);
	CHECK_EQ(seen.received + seen.lost, atomic_load(&b->sent));
	CHECK_EQ(sub_stats(sub).lost, seen.lost);
	CHECK_EQ(sub_stats(sub).received, seen.received);
	NOTE("%llu received in %llu whole batches, %llu lost", (unsigned long long)seen.received,
	     (unsigned long long)seen.whole, (unsigned long long)seen.lost);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_overrun_subscriber_gets_batches_of_one_publisher_whole_or_not_at_all)
{
	check_batches_with_loss(90, SHMQ_EXCLUSIVE);
}

TEST(an_overrun_subscriber_gets_batches_of_two_publishers_whole_or_not_at_all)
{
	check_batches_with_loss(90, SHMQ_SHARED);
}

TEST(an_overrun_subscriber_gets_arena_batches_whole_or_not_at_all)
{
	check_batches_with_loss(MEMBER_MOST, SHMQ_SHARED);
}

TEST(a_batch_that_lost_a_member_is_lost_whole_and_readers_go_on)
{
	static char large[1000];
	struct shmq_msg many[3] = { { 0 } }, msg;
	uint64_t lost = 0;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_LOSSY, .max_message_bytes = 1000);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t", .arena_bytes = 8192);
	/* The first fits its slot, the second is in the arena, which goes round. */
	many[1] = (struct shmq_msg){ .data = large, .len = sizeof(large) };
	CHECK_EQ(shmq_publish_batch(pub, many, 3, SHMQ_ATOMIC), 3);
	for (int i = 0; i < 8; i++)
		CHECK_OK(shmq_publish(pub, large, sizeof(large)));
	while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) == SHMQ_EOVERRUN)
		lost += msg.lost;
	CHECK_OK(rc);
	CHECK_EQ(lost, 3);
	CHECK_EQ(msg.seq, 3);
	shmq_bus_close(bus);
	test_bus_stop();
}
