/* SPDX-License-Identifier: MIT
 *
 * The newest message of each key: what is handed out, and what is counted.
 */
#include "helpers.h"
#include "memory.h"

#include <poll.h>
#include <pthread.h>

static shmq_bus *bus, *other;

static void set_up(void)
{
	test_bus_start();
	bus = test_bus_open();
	other = test_bus_open();
}

static void tear_down(void)
{
	shmq_bus_close(other);
	shmq_bus_close(bus);
	test_bus_stop();
}

static void send(shmq_pub *pub, const char *key, const char *data)
{
	struct shmq_msg msg = { .key = key,
				.key_len = strlen(key),
				.data = data,
				.len = strlen(data),
				.type = 3,
				.partition = SHMQ_ANY_PARTITION };

	CHECK_OK(shmq_publish_msg(pub, &msg));
}

static void check_msg(const struct shmq_msg *msg, const char *key, const char *data)
{
	CHECK_EQ(msg->key_len, strlen(key));
	CHECK_MEM(msg->key_len ? msg->key : "", key, msg->key_len);
	CHECK_EQ(msg->len, strlen(data));
	CHECK_MEM(msg->data, data, msg->len);
}

static void get(shmq_sub *sub, const char *key, const char *data)
{
	struct shmq_msg msg;

	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	check_msg(&msg, key, data);
	CHECK_OK(shmq_view_check(sub, &msg));
}

static void check_nothing(shmq_sub *sub)
{
	struct shmq_msg msg;

	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
}

TEST(the_newest_of_each_key_comes_in_turn_and_the_others_are_counted)
{
	shmq_sub *sub;
	shmq_pub *pub;

	set_up();
	create(bus, "t", .depth = 1024);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
	check_nothing(sub);
	send(pub, "a", "1");
	send(pub, "b", "1");
	send(pub, "a", "2");
	send(pub, "", "1");
	send(pub, "a", "3");
	send(pub, "", "2");
	get(sub, "a", "3");
	/* What is busy does not come before the others. */
	send(pub, "a", "4");
	send(pub, "b", "2");
	get(sub, "b", "2");
	send(pub, "a", "5");
	get(sub, "", "2");
	CHECK_EQ(sub_stats(sub).lag, 1);
	get(sub, "a", "5");
	check_nothing(sub);
	CHECK_EQ(sub_stats(sub).received, 4);
	CHECK_EQ(sub_stats(sub).conflated, 5);
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_EQ(sub_stats(sub).lag, 0);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}

TEST(what_it_hands_out_is_whole_with_all_it_had)
{
	enum { LARGE = 50000 };
	static char bytes[LARGE];
	struct shmq_msg msg = { .data = bytes,
				.len = LARGE,
				.key = "k",
				.key_len = 1,
				.properties = "p",
				.properties_len = 1,
				.type = 9,
				.tag = 7 };
	char small[10], *room = malloc(LARGE + 2);
	shmq_sub *sub;
	shmq_pub *pub;
	int i;

	set_up();
	create(bus, "t", .depth = 1024, .max_message_bytes = LARGE + 100,
	       .flags = SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
	for (i = 0; i < 5; i++) {
		fill(bytes, LARGE, (uint64_t)i);
		CHECK_OK(shmq_publish_msg(pub, &msg));
	}
	memset(&msg, 0, sizeof(msg));
	CHECK_ERROR(shmq_receive_copy(sub, small, sizeof(small), &msg, PATIENCE), SHMQ_EBUFFER);
	CHECK_EQ(sub_stats(sub).received, 0);
	CHECK_OK(shmq_receive_copy(sub, room, LARGE + 2, &msg, PATIENCE));
	CHECK_EQ(msg.len, LARGE);
	CHECK(is_filled(room, LARGE, 4));
	CHECK_EQ(msg.seq, 4);
	CHECK_EQ(msg.type, 9);
	CHECK_EQ(msg.tag, 7);
	CHECK_NE(msg.ts_ns, 0);
	CHECK_MEM(msg.properties, "p", 1);
	CHECK_EQ(sub_stats(sub).received, 1);
	CHECK_EQ(sub_stats(sub).conflated, 4);
	free(room);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}

/* Sent = received + conflated + lost, whatever the policy. */
TEST(what_is_lost_is_told_apart)
{
	uint64_t lost = 0, got = 0, sent = 10000, last[10] = { 0 }, i;
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;
	int rc;

	set_up();
	create(bus, "t", .depth = 1024, .policy = SHMQ_LOSSY, .partitions = 2);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
	for (i = 1; i <= sent; i++) {
		char key = (char)('0' + mix(i) % 10);

		msg = (struct shmq_msg){ .key = &key,
					 .key_len = 1,
					 .data = &i,
					 .len = sizeof(i),
					 .partition = SHMQ_ANY_PARTITION };
		CHECK_OK(shmq_publish_msg(pub, &msg));
		last[key - '0'] = i;
		if (i % 777 && i != sent)
			continue;
		while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
			if (rc == SHMQ_EOVERRUN) {
				lost += msg.lost;
				continue;
			}
			CHECK_OK(rc);
			CHECK_MEM(msg.data, &last[*(const char *)msg.key - '0'], sizeof(i));
			got++;
		}
	}
	for (i = 0; i < 5000; i++)
		send(pub, "x", "y");
	while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		lost += rc == SHMQ_EOVERRUN ? msg.lost : 0;
		got += rc == 0;
	}
	CHECK_GT(lost, 1000);
	CHECK_EQ(sub_stats(sub).lost, lost);
	CHECK_EQ(sub_stats(sub).received, got);
	CHECK_EQ(got + lost + sub_stats(sub).conflated, sent + 5000);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}

/* It comes before them, since no other call tells of it. */
TEST(a_loss_is_told_while_others_are_kept)
{
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;
	int i;

	set_up();
	create(bus, "t", .depth = 1024, .policy = SHMQ_LOSSY);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
	send(pub, "a", "1");
	send(pub, "b", "1");
	get(sub, "a", "1");
	for (i = 0; i < 3000; i++)
		send(pub, "c", "1");
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_GT(msg.lost, 1000);
	CHECK_EQ(msg.lost, sub_stats(sub).lost);
	get(sub, "b", "1");
	get(sub, "c", "1");
	check_nothing(sub);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}

TEST(an_end_comes_after_what_is_kept)
{
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;

	set_up();
	create(bus, "t", .depth = 1024);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE | SHMQ_SUB_END_WITH_PUBLISHERS);
	send(pub, "a", "1");
	send(pub, "b", "1");
	send(pub, "a", "2");
	shmq_pub_close(pub);
	get(sub, "a", "2");
	get(sub, "b", "1");
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EENDED);
	shmq_sub_close(sub);
	tear_down();
}

TEST(an_eviction_comes_after_what_is_kept_with_what_was_lost)
{
	struct shmq_msg msg;
	unsigned i;
	shmq_sub *sub;
	shmq_pub *pub;

	set_up();
	create(bus, "t", .depth = 1024, .policy = SHMQ_EVICT, .evict_ns = MILLISECOND);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
	send(pub, "a", "1");
	send(pub, "b", "1");
	get(sub, "a", "1");
	for (i = 0; i < 2000; i++)
		send(pub, "a", "2");
	get(sub, "b", "1");
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEVICTED);
	CHECK_GT(msg.lost, 0);
	CHECK_EQ(msg.lost, sub_stats(sub).lost);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEVICTED);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}

static int count_one(void *arg, const struct shmq_msg *msg)
{
	(void)msg;
	++*(unsigned *)arg;
	return 0;
}

/* By poll, by wait set and by descriptor. */
TEST(who_waits_is_told_of_what_is_kept)
{
	shmq_waitset *set;
	shmq_sub *sub, *ready[1];
	shmq_pub *pub;
	struct pollfd p = { .events = POLLIN };
	unsigned n = 0;

	set_up();
	create(bus, "t", .depth = 1024);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
	CHECK_OK(shmq_waitset_create(bus, &set));
	CHECK_OK(shmq_waitset_add(set, sub));
	CHECK_GE(p.fd = shmq_sub_fd(sub), 0);
	check_nothing(sub);
	CHECK_EQ(poll(&p, 1, 0), 0);
	send(pub, "a", "1");
	send(pub, "b", "1");
	CHECK_EQ(shmq_waitset_wait(set, ready, 1, PATIENCE), 1);
	CHECK_EQ(poll(&p, 1, 60000), 1);
	get(sub, "a", "1");
	CHECK_EQ(shmq_waitset_wait(set, ready, 1, SHMQ_NOWAIT), 1);
	CHECK_EQ(poll(&p, 1, 0), 1);
	get(sub, "b", "1");
	check_nothing(sub);
	CHECK_EQ(poll(&p, 1, 0), 0);
	send(pub, "a", "1");
	send(pub, "b", "1");
	send(pub, "a", "2");
	CHECK_EQ(shmq_poll(sub, count_one, &n, 1, PATIENCE), 1);
	CHECK_EQ(shmq_poll(sub, count_one, &n, 10, PATIENCE), 1);
	CHECK_EQ(n, 2);
	CHECK_OK(shmq_release(sub));
	shmq_waitset_destroy(set);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}

TEST(of_a_pattern_keys_of_each_topic_are_its_own)
{
	shmq_pub *pub[2];
	shmq_sub *sub;

	set_up();
	sub = open_sub(bus, "t.*", .flags = SHMQ_SUB_CONFLATE);
	create(bus, "t.1", .depth = 1024);
	create(bus, "t.2", .depth = 1024);
	pub[0] = open_pub(other, "t.1");
	pub[1] = open_pub(other, "t.2");
	send(pub[0], "a", "1");
	send(pub[1], "a", "2");
	send(pub[0], "a", "3");
	get(sub, "a", "3");
	CHECK_STR(shmq_sub_topic(sub), "t.1");
	get(sub, "a", "2");
	CHECK_STR(shmq_sub_topic(sub), "t.2");
	check_nothing(sub);
	CHECK_EQ(sub_stats(sub).conflated, 1);
	CHECK_EQ(sub_stats(sub).received, 2);
	/* It is told of one that has gone by then. */
	send(pub[0], "b", "1");
	send(pub[1], "b", "1");
	shmq_pub_close(pub[0]);
	shmq_pub_close(pub[1]);
	CHECK_OK(shmq_topic_remove(other, "t.1", 0));
	CHECK_OK(shmq_topic_remove(other, "t.2", 0));
	get(sub, "b", "1");
	get(sub, "b", "1");
	check_nothing(sub);
	shmq_sub_close(sub);
	tear_down();
}

TEST(many_keys_take_memory_until_they_are_handed_out)
{
	enum { KEYS = 20000 };
	static unsigned char seen[KEYS];
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;
	unsigned i, round, n;

	set_up();
	create(bus, "t", .depth = 65536);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
	for (round = 0; round < 3; round++)
		for (i = 0; i < KEYS; i++) {
			n = (unsigned)(mix(i) % KEYS);
			msg = (struct shmq_msg){ .key = &n,
						 .key_len = sizeof(n),
						 .data = &round,
						 .len = sizeof(round) };
			CHECK_OK(shmq_publish_msg(pub, &msg));
		}
	for (i = 0; !shmq_receive(sub, &msg, SHMQ_NOWAIT); i++) {
		memcpy(&n, msg.key, sizeof(n));
		CHECK(!seen[n]++);
		memcpy(&round, msg.data, sizeof(round));
		CHECK_EQ(round, 2);
	}
	CHECK_EQ(i + sub_stats(sub).conflated, 3 * KEYS);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}

TEST(without_memory_nothing_is_lost)
{
	struct shmq_msg msg;
	unsigned k;
	shmq_sub *sub;
	shmq_pub *pub;

	set_up();
	create(bus, "t", .depth = 1024);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
	/* Of a new key, and of one that is there. */
	for (k = 1;; k++) {
		int rc;

		send(pub, "a", "1");
		send(pub, "a", "twenty bytes are more");
		scarce_begin(k);
		rc = shmq_receive(sub, &msg, SHMQ_NOWAIT);
		if (!scarce_end())
			break;
		if (rc)
			CHECK_ERROR(rc, -ENOMEM);
		if (rc)
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		if (msg.len == 1) /* the next was there when there was no memory */
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		check_msg(&msg, "a", "twenty bytes are more");
	}
	CHECK_GT(k, 3);
	check_nothing(sub);
	CHECK_EQ(sub_stats(sub).received + sub_stats(sub).conflated, 2 * k);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}

static _Atomic int is_received;

static void *look_at_stats(void *sub)
{
	while (!atomic_load(&is_received))
		CHECK_LE(sub_stats(sub).received, 1);
	return NULL;
}

/* Nothing is handed out before all is read. */
TEST(another_thread_never_sees_more_received_than_was)
{
	enum { MANY = 8000, ROUNDS = 30 };
	shmq_pub *pub;
	int i, n;

	set_up();
	create(bus, "t");
	pub = open_pub(other, "t");
	for (i = 0; i < ROUNDS; i++) {
		shmq_sub *sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
		pthread_t looker;

		for (n = 0; n < MANY; n++)
			send(pub, "k", "x");
		atomic_store(&is_received, 0);
		CHECK_EQ(pthread_create(&looker, NULL, look_at_stats, sub), 0);
		get(sub, "k", "x");
		atomic_store(&is_received, 1);
		CHECK_EQ(pthread_join(looker, NULL), 0);
		CHECK_EQ(sub_stats(sub).conflated, MANY - 1);
		shmq_sub_close(sub);
	}
	shmq_pub_close(pub);
	tear_down();
}

/* Each message has a key of its own, and one in fifty is handed out. */
TEST(keys_without_end_take_no_memory_without_end)
{
	static char data[60000];
	uint64_t sent = 0, got = 0;
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;
	int rc = 0;

	set_up();
	create(bus, "t", .depth = 1024, .max_message_bytes = 1 << 16);
	pub = open_pub(other, "t", .flags = SHMQ_DONTWAIT, .arena_bytes = 8 << 20);
	sub = open_sub(bus, "t", .flags = SHMQ_SUB_CONFLATE);
	while (!rc && sent < 4000) {
		msg = (struct shmq_msg){ .key = &sent,
					 .key_len = sizeof(sent),
					 .data = data,
					 .len = sizeof(data),
					 .partition = SHMQ_ANY_PARTITION };
		rc = shmq_publish_msg(pub, &msg);
		sent += !rc;
		if (!rc && sent % 50 == 0) {
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
			CHECK_EQ(*(const uint64_t *)msg.key, got++);
		}
	}
	CHECK_ERROR(rc, SHMQ_EFULL);
	CHECK_LT(sent, 2000);
	for (; got < sent; got++) { /* in turn, and none is lost */
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_EQ(*(const uint64_t *)msg.key, got);
	}
	check_nothing(sub);
	tear_down();
}

TEST(it_names_no_cursor)
{
	shmq_sub *sub;

	set_up();
	create(bus, "t", .depth = 1024);
	CHECK_ERROR(shmq_sub_open(bus, "t", SUB_OPTIONS(.flags = SHMQ_SUB_CONFLATE, .cursor = "c"),
				  &sub),
		    SHMQ_EOPTION);
	check_says("conflated");
	tear_down();
}
