/* SPDX-License-Identifier: MIT
 *
 * Views, copies and handlers; and readers in threads that race with
 * publishers.
 */
#include "sub_priv.h"
#include "subscriber.h"

TEST(the_publisher_of_a_message_is_known_until_its_slot_is_written_over)
{
	struct scene c = set_up(&lossy, NULL);
	unsigned client = 9;
	struct shmq_msg m;

	CHECK_ERROR(shmq_sub_get_publisher(c.sub, &client), SHMQ_EOPTION);
	CHECK_EQ(client, 0);
	publish(&c, 2);
	check_next(&c, 0);
	CHECK_OK(shmq_sub_get_publisher(c.sub, &client));
	CHECK_EQ(client, c.pub->client);
	CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
	publish(&c, FAKE_DEPTH);
	CHECK_ERROR(shmq_sub_get_publisher(c.sub, &client), SHMQ_EOVERRUN);
	CHECK_EQ(client, 0);
	CHECK_OK(shmq_release(c.sub));
	CHECK_ERROR(shmq_sub_get_publisher(c.sub, &client), SHMQ_EOPTION);
	tear_down(&c);
}

TEST(a_view_that_was_overwritten_is_said_so_each_time_and_counted_once)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;

	CHECK_ERROR(shmq_view_check(c.sub, &m), SHMQ_EOPTION);
	publish(&c, 5);
	CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
	CHECK_OK(shmq_view_check(c.sub, &m));
	CHECK_EQ(sub_stats(c.sub).received, 1);
	publish(&c, FAKE_DEPTH);
	for (int n = 0; n < 3; n++)
		CHECK_ERROR(shmq_view_check(c.sub, &m), SHMQ_EOVERRUN);
	CHECK_EQ(sub_stats(c.sub).received, 0);
	CHECK_EQ(sub_stats(c.sub).lost, 1);
	CHECK_EQ(load_relaxed(&c.f->topic->ring[0].bells->data.word), 0);
	CHECK_OK(shmq_release(c.sub));
	CHECK_OK(shmq_release(c.sub));
	CHECK_ERROR(shmq_view_check(c.sub, &m), SHMQ_EOPTION);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(sub_stats(c.sub).lost, 1 + m.lost);
	tear_down(&c);
}

TEST(a_message_that_gates_stays_until_it_is_given_back)
{
	struct scene c = set_up(NULL, NULL);
	shmq_au64 *pos = NULL;
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;
	struct shmq_msg msg;

	while ((m = shmq__topic_next_member(c.f->topic, &it)))
		if (load_relaxed(&m->state) == LAY_MEMBER_SUBSCRIBER)
			pos = &fake_entry(c.f, m, 0)->pos;
	CHECK(pos);
	publish(&c, 3);
	CHECK_OK(shmq_receive(c.sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(load_relaxed(pos), 0);
	CHECK_OK(shmq_view_check(c.sub, &msg));
	CHECK_OK(shmq_release(c.sub));
	CHECK_EQ(load_relaxed(pos), 1);
	CHECK_OK(shmq_receive(c.sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(load_relaxed(pos), 1);
	CHECK_OK(shmq_receive(c.sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(load_relaxed(pos), 2);
	check_none(&c);
	CHECK_EQ(load_relaxed(pos), 3);
	tear_down(&c);
}

/* ---- publishers and readers that race, in threads --------------------------- */

enum { PUBLISHERS_MAX = 2, SUBSCRIBERS = 2, LARGE = 500 };

struct race {
	struct standin *s;
	shmq_bus *bus;
	enum shmq_policy policy;
	unsigned publishers, each, len;
	enum shmq_wait wait;
	_Atomic unsigned subscribed, open; /* handles so far */
};

struct racer {
	struct race *r;
	unsigned number;
	uint64_t received, lost, next[PUBLISHERS_MAX];
};

/* Who sent it, which of its messages it is, and bytes that follow from both. */
static void compose(char *buf, unsigned len, uint64_t who, uint64_t n)
{
	memcpy(buf, &who, sizeof(who));
	memcpy(buf + 8, &n, sizeof(n));
	fill(buf + 16, len - 16, who << 32 ^ n);
}

/* Count oneself among those who are there and wait for the others. */
static void meet(_Atomic unsigned *there, unsigned all)
{
	unsigned turns = 0;

	add_relaxed(there, 1);
	while (load_relaxed(there) < all)
		fake_wait(&turns);
}

static void *publish_all(void *arg)
{
	struct racer *me = arg;
	struct race *r = me->r;
	shmq_pub *pub = open_pub(r->bus, STANDIN_TOPIC, .wait = r->wait);
	char buf[4][LARGE];
	struct shmq_msg batch[4];

	meet(&r->open, r->publishers);
	for (uint64_t n = 0; n < r->each;) {
		void *data;

		switch (n / 4 % 4) {
		case 0: /* at once */
			for (int i = 0; i < 4; i++) {
				compose(buf[0], r->len, me->number, n++);
				CHECK_OK(shmq_publish(pub, buf[0], r->len));
			}
			break;
		case 1: /* in place */
			for (int i = 0; i < 4; i++) {
				CHECK_OK(shmq_claim(pub, r->len, &data));
				compose(data, r->len, me->number, n++);
				CHECK_OK(shmq_commit(pub, NULL));
			}
			break;
		default: /* together */
			for (int i = 0; i < 4; i++) {
				compose(buf[i], r->len, me->number, n + (uint64_t)i);
				batch[i] = (struct shmq_msg){ .data = buf[i], .len = r->len };
			}
			CHECK_EQ(shmq_publish_batch(pub, batch, 4,
						    n / 4 % 4 == 2 ? SHMQ_ATOMIC : 0),
				 4);
			n += 4;
		}
	}
	shmq_pub_close(pub);
	return NULL;
}

static void check_message(const struct race *r, const struct shmq_msg *m,
			  uint64_t next[PUBLISHERS_MAX])
{
	uint64_t who, n;

	CHECK_EQ(m->len, r->len);
	memcpy(&who, m->data, sizeof(who));
	memcpy(&n, (const char *)m->data + 8, sizeof(n));
	CHECK_LT(who, r->publishers);
	CHECK(is_filled((const char *)m->data + 16, r->len - 16, who << 32 ^ n));
	if (r->policy == SHMQ_BLOCK)
		CHECK_EQ(n, next[who]);
	CHECK_GE(n, next[who]);
	next[who] = n + 1;
}

static int check_polled(void *arg, const struct shmq_msg *m)
{
	struct racer *me = arg;

	check_message(me->r, m, me->next);
	me->received++;
	return 0;
}

/* One in place where it may be, in turn with copies; the other polls. */
static void *receive_all(void *arg)
{
	struct racer *me = arg;
	struct race *r = me->r;
	shmq_sub *sub = open_sub(r->bus, STANDIN_TOPIC, .wait = r->wait,
				 .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	struct shmq_msg m;
	char copy[LARGE];
	int rc;

	meet(&r->subscribed, SUBSCRIBERS + 1);
	for (;;) {
		if (me->number) {
			rc = (int)shmq_poll(sub, check_polled, me, 100, SHMQ_FOREVER);
			me->lost = sub_stats(sub).lost; /* it is not told how many */
			if (rc > 0 || rc == SHMQ_EOVERRUN)
				continue;
		} else if (r->policy == SHMQ_BLOCK && me->received % 2)
			rc = shmq_receive(sub, &m, SHMQ_FOREVER);
		else
			rc = shmq_receive_copy(sub, copy, sizeof(copy), &m, SHMQ_FOREVER);
		if (rc == SHMQ_EENDED)
			break;
		if (rc == SHMQ_EOVERRUN) {
			me->lost += m.lost;
			continue;
		}
		CHECK_OK(rc);
		check_polled(me, &m);
	}
	CHECK_EQ(sub_stats(sub).received, me->received);
	CHECK_EQ(sub_stats(sub).lost, me->lost);
	shmq_sub_close(sub);
	return NULL;
}

static void race(enum shmq_mode mode, enum shmq_policy policy, unsigned len, enum shmq_wait wait)
{
	struct race r = { .policy = policy,
			  .publishers = mode == SHMQ_SHARED ? PUBLISHERS_MAX : 1,
			  .each = 4000,
			  .len = len,
			  .wait = wait };
	struct racer pub[PUBLISHERS_MAX], sub[SUBSCRIBERS];
	pthread_t thread[PUBLISHERS_MAX + SUBSCRIBERS];
	unsigned i;

	r.s = standin_new(&(struct fake_options){ .mode = mode,
						  .policy = policy,
						  .max_bytes = LARGE,
						  .arena_bytes = 1 << 17,
						  .base_seq = UINT64_C(0) - 1500 });
	r.bus = standin_bus(r.s);
	for (i = 0; i < SUBSCRIBERS; i++) {
		sub[i] = (struct racer){ .r = &r, .number = i };
		thread[i] = fake_thread(receive_all, &sub[i]);
	}
	meet(&r.subscribed, SUBSCRIBERS + 1);
	for (i = 0; i < r.publishers; i++) {
		pub[i] = (struct racer){ .r = &r, .number = i };
		thread[SUBSCRIBERS + i] = fake_thread(publish_all, &pub[i]);
	}
	for (i = 0; i < r.publishers; i++)
		fake_join(thread[SUBSCRIBERS + i]);
	for (i = 0; i < SUBSCRIBERS; i++) {
		uint64_t sent = (uint64_t)r.each * r.publishers;

		fake_join(thread[i]);
		/* Batches that were given back are no loss. */
		CHECK_EQ(sub[i].received + sub[i].lost, sent);
		if (policy == SHMQ_BLOCK)
			CHECK_EQ(sub[i].lost, 0);
	}
	shmq_bus_close(r.bus);
	standin_free(r.s);
}

/* Where it asks for the next payload before that is there. */
TEST(where_the_next_payload_in_an_arena_begins_is_guessed)
{
	struct standin *s =
		standin_new(&(struct fake_options){ .max_bytes = LARGE, .arena_bytes = 1 << 14 });
	shmq_bus *bus = standin_bus(s);
	shmq_pub *pub = open_pub(bus, STANDIN_TOPIC);
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC);
	char buf[LARGE] = { 0 };
	struct shmq_msg m;

	for (unsigned i = 0; i < 100; i++) {
		const char *guess = sub->guess;

		CHECK_OK(shmq_publish(pub, buf, LARGE));
		CHECK_OK(shmq_receive(sub, &m, SHMQ_NOWAIT));
		CHECK_EQ(m.len, LARGE);
		if (i > 2) /* by then it is mapped */
			CHECK(m.data == guess);
		CHECK_ERROR(shmq_receive(sub, &m, 1), SHMQ_ETIMEOUT);
	}
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	standin_free(s);
}

#define RACE(name, ...) \
	TEST(name) \
	{ \
		race(__VA_ARGS__); \
	}

RACE(one_publisher_blocks_for_racing_readers, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 24, SHMQ_WAIT_YIELD)
RACE(one_publisher_blocks_for_sleeping_readers, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 24, SHMQ_WAIT_SLEEP)
RACE(one_publisher_blocks_for_readers_of_its_arena, SHMQ_EXCLUSIVE, SHMQ_BLOCK, LARGE,
     SHMQ_WAIT_ADAPTIVE)
RACE(one_publisher_overruns_racing_readers, SHMQ_EXCLUSIVE, SHMQ_LOSSY, 24, SHMQ_WAIT_YIELD)
RACE(one_publisher_overruns_sleeping_readers, SHMQ_EXCLUSIVE, SHMQ_LOSSY, 24, SHMQ_WAIT_SLEEP)
RACE(one_publisher_overruns_readers_of_its_arena, SHMQ_EXCLUSIVE, SHMQ_LOSSY, LARGE,
     SHMQ_WAIT_ADAPTIVE)
RACE(two_publishers_block_for_racing_readers, SHMQ_SHARED, SHMQ_BLOCK, 24, SHMQ_WAIT_YIELD)
RACE(two_publishers_block_for_sleeping_readers, SHMQ_SHARED, SHMQ_BLOCK, 24, SHMQ_WAIT_SLEEP)
RACE(two_publishers_block_for_readers_of_their_arenas, SHMQ_SHARED, SHMQ_BLOCK, LARGE,
     SHMQ_WAIT_ADAPTIVE)
RACE(two_publishers_overrun_racing_readers, SHMQ_SHARED, SHMQ_LOSSY, 24, SHMQ_WAIT_YIELD)
RACE(two_publishers_overrun_sleeping_readers, SHMQ_SHARED, SHMQ_LOSSY, 24, SHMQ_WAIT_SLEEP)
RACE(two_publishers_overrun_readers_of_their_arenas, SHMQ_SHARED, SHMQ_LOSSY, LARGE,
     SHMQ_WAIT_ADAPTIVE)
