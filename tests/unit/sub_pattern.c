/* SPDX-License-Identifier: MIT
 *
 * Subscriptions by pattern: which topics they read, from where, in which turn,
 * and what is told of each.
 */
#include "../../libshmq/bus.h"
#include "helpers.h"

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

/* As somebody else does: create, open, publish n numbers, close. */
static void create_and_send(const char *topic, unsigned n, struct shmq_topic_options *o)
{
	shmq_pub *pub;

	create_topic(other, topic, o);
	pub = open_pub(other, topic);
	for (unsigned i = 0; i < n; i++)
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
	shmq_pub_close(pub);
}

static unsigned number(const struct shmq_msg *msg)
{
	unsigned n;

	CHECK_EQ(msg->len, sizeof(n));
	memcpy(&n, msg->data, sizeof(n));
	return n;
}

static void check_next(shmq_sub *sub, const char *topic, unsigned n)
{
	struct shmq_msg msg;

	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_STR(shmq_sub_topic(sub), topic);
	CHECK_EQ(number(&msg), n);
}

static void check_nothing(shmq_sub *sub)
{
	struct shmq_msg msg;

	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
}

TEST(topics_that_match_are_read_and_others_are_not)
{
	shmq_sub *sub;

	set_up();
	create(bus, "md.nyse.AAPL");
	create(bus, "md.nyse.MSFT");
	sub = open_sub(bus, "md.*.AAPL");
	CHECK_STR(shmq_sub_topic(sub), "");
	CHECK_EQ(topic_info(bus, "md.nyse.AAPL").subscribers, 1);
	CHECK_EQ(topic_info(bus, "md.nyse.MSFT").subscribers, 0);
	create_and_send("md.nas.AAPL", 1, TOPIC_OPTIONS());
	create_and_send("md.AAPL", 1, TOPIC_OPTIONS());
	check_next(sub, "md.nas.AAPL", 0);
	check_nothing(sub);
	CHECK_EQ(topic_info(bus, "md.AAPL").subscribers, 0);
	shmq_sub_close(sub);
	CHECK_EQ(topic_info(bus, "md.nyse.AAPL").subscribers, 0);
	CHECK_EQ(topic_info(bus, "md.nas.AAPL").subscribers, 0);
	tear_down();
}

TEST(a_topic_that_comes_later_is_read_from_its_first_message_on)
{
	enum { DEPTH = 1024 };
	shmq_sub *sub;
	shmq_pub *pub;
	unsigned i;

	set_up();
	sub = open_sub(bus, "a.#");
	create(other, "a.b", .depth = DEPTH);
	pub = open_pub(other, "a.b", .flags = SHMQ_DONTWAIT);
	/* It gates already, although its thread has not come to read. */
	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, SHMQ_NOWAIT));
	for (i = 0; i < DEPTH; i++)
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
	CHECK_ERROR(shmq_publish(pub, &i, sizeof(i)), SHMQ_EFULL);
	for (i = 0; i < DEPTH; i++)
		check_next(sub, "a.b", i);
	check_nothing(sub);
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_EQ(sub_stats(sub).received, DEPTH);
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	tear_down();
}

TEST(topics_that_were_there_start_where_the_options_say)
{
	shmq_sub *latest, *oldest;

	set_up();
	create_and_send("t.1", 3, TOPIC_OPTIONS());
	latest = open_sub(bus, "t.*");
	oldest = open_sub(bus, "t.*", .from = SHMQ_FROM_OLDEST);
	check_nothing(latest);
	for (unsigned i = 0; i < 3; i++)
		check_next(oldest, "t.1", i);
	create_and_send("t.2", 1, TOPIC_OPTIONS());
	check_next(latest, "t.2", 0);
	check_next(oldest, "t.2", 0);
	shmq_sub_close(latest);
	shmq_sub_close(oldest);
	tear_down();
}

TEST(a_topic_that_ended_is_read_to_its_end_and_left)
{
	shmq_sub *sub;

	set_up();
	sub = open_sub(bus, "#");
	create_and_send("gone", 2, TOPIC_OPTIONS());
	/* Only a pattern has it open: that keeps nobody from removing it. */
	CHECK_OK(shmq_topic_remove(other, "gone", 0));
	create_and_send("stays", 1, TOPIC_OPTIONS());
	for (unsigned i = 0, stays = 0; i < 3; i++) {
		struct shmq_msg msg;

		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		if (!strcmp(shmq_sub_topic(sub), "stays"))
			stays++;
		else
			CHECK_EQ(number(&msg), i - stays);
	}
	check_nothing(sub);
	check_nothing(sub);
	CHECK_EQ(sub_stats(sub).received, 3);
	CHECK_EQ(topic_info(bus, "stays").subscribers, 1);
	shmq_sub_close(sub);
	tear_down();
}

TEST(a_plain_subscriber_still_keeps_its_topic)
{
	shmq_sub *sub, *plain;

	set_up();
	sub = open_sub(bus, "#");
	create(other, "t");
	plain = open_sub(bus, "t");
	CHECK_ERROR(shmq_topic_remove(other, "t", 0), SHMQ_EINUSE);
	shmq_sub_close(plain);
	CHECK_OK(shmq_topic_remove(other, "t", 0));
	shmq_sub_close(sub);
	tear_down();
}

TEST(of_two_topics_of_one_name_the_older_is_read_first)
{
	shmq_sub *sub;
	shmq_pub *pub;
	unsigned i;

	set_up();
	sub = open_sub(bus, "#");
	create_and_send("t", 100, TOPIC_OPTIONS());
	CHECK_OK(shmq_topic_move(other, "t"));
	pub = open_pub(other, "t");
	for (i = 100; i < 200; i++)
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
	shmq_pub_close(pub);
	CHECK_OK(shmq_topic_remove(other, "t", 0));
	create_and_send("t", 2, TOPIC_OPTIONS());
	for (i = 0; i < 200; i++)
		check_next(sub, "t", i);
	for (i = 0; i < 2; i++)
		check_next(sub, "t", i);
	check_nothing(sub);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	tear_down();
}

TEST(a_busy_topic_does_not_keep_the_others_waiting)
{
	enum { TOPICS = 5, EACH = 500 };
	unsigned seen[TOPICS] = { 0 };
	struct shmq_msg msg;
	shmq_sub *sub;
	char name[16];

	set_up();
	sub = open_sub(bus, "t.*");
	for (unsigned i = 0; i < TOPICS; i++) {
		snprintf(name, sizeof(name), "t.%u", i);
		create_and_send(name, EACH, TOPIC_OPTIONS());
	}
	for (unsigned n = 0; n < TOPICS * EACH; n++) {
		unsigned i, least = EACH;

		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		i = (unsigned)(shmq_sub_topic(sub)[2] - '0');
		CHECK_EQ(number(&msg), seen[i]++);
		for (i = 0; i < TOPICS; i++)
			least = seen[i] < least ? seen[i] : least;
		for (i = 0; i < TOPICS; i++)
			CHECK_LE(seen[i], least + 32);
	}
	check_nothing(sub);
	shmq_sub_close(sub);
	tear_down();
}

struct sums {
	unsigned topics;
	uint64_t received, lost;
};

static int add_topic(void *arg, const char *topic, const struct shmq_sub_stats *stats)
{
	struct sums *s = arg;

	CHECK(!strncmp(topic, "t.", 2));
	s->topics++;
	s->received += stats->received;
	s->lost += stats->lost;
	if (!strcmp(topic, "t.lossy")) {
		CHECK_EQ(stats->lost, 2000 - stats->received);
	} else {
		CHECK_EQ(stats->lost, 0);
	}
	return 0;
}

TEST(loss_is_told_and_counted_by_topic)
{
	uint64_t lost = 0, got = 0;
	struct sums sums = { 0 };
	struct shmq_msg msg;
	shmq_sub *sub;
	int rc;

	set_up();
	sub = open_sub(bus, "t.*");
	create_and_send("t.lossy", 2000, TOPIC_OPTIONS(.depth = 1024, .policy = SHMQ_LOSSY));
	create_and_send("t.block", 100, TOPIC_OPTIONS(.depth = 1024));
	while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		if (rc) {
			CHECK_ERROR(rc, SHMQ_EOVERRUN);
			CHECK_STR(shmq_sub_topic(sub), "t.lossy");
			lost += msg.lost;
		}
		got += !rc;
	}
	CHECK_GT(lost, 0);
	CHECK_EQ(lost + got, 2100);
	CHECK_EQ(sub_stats(sub).lost, lost);
	CHECK_OK(shmq_sub_topic_each(sub, add_topic, &sums));
	CHECK_EQ(sums.topics, 2);
	CHECK_EQ(sums.lost, lost);
	CHECK_EQ(sums.received, got);
	CHECK_OK(shmq_topic_remove(other, "t.lossy", 0));
	check_nothing(sub);
	check_nothing(sub);
	CHECK_EQ(sub_stats(sub).lost, lost);
	CHECK_EQ(sub_stats(sub).received, got);
	shmq_sub_close(sub);
	tear_down();
}

TEST(one_that_was_evicted_is_told_once_and_goes_on_observing)
{
	uint64_t lost = 0, got = 0;
	struct shmq_msg msg;
	unsigned evicted = 0;
	shmq_sub *sub;
	int rc;

	set_up();
	sub = open_sub(bus, "t.*");
	create_and_send("t.e", 3000,
			TOPIC_OPTIONS(.depth = 1024, .policy = SHMQ_EVICT,
				      .evict_ns = MILLISECOND));
	while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		evicted += rc == SHMQ_EEVICTED;
		lost += rc ? msg.lost : 0;
		got += !rc;
	}
	CHECK_EQ(evicted, 1);
	CHECK_EQ(lost + got, 3000);
	CHECK_GT(got, 0);
	shmq_sub_close(sub);
	tear_down();
}

TEST(it_ends_when_no_topic_has_publishers_left)
{
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;

	set_up();
	sub = open_sub(bus, "t.*", .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	check_nothing(sub);
	create(other, "t.1");
	pub = open_pub(other, "t.1");
	create_and_send("t.2", 1, TOPIC_OPTIONS());
	check_next(sub, "t.2", 0);
	check_nothing(sub);
	CHECK_OK(shmq_publish(pub, &(unsigned){ 7 }, sizeof(unsigned)));
	shmq_pub_close(pub);
	check_next(sub, "t.1", 7);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EENDED);
	shmq_sub_close(sub);
	tear_down();
}

TEST(it_ends_with_its_bus)
{
	struct shmq_msg msg;
	shmq_sub *sub;

	set_up();
	sub = open_sub(bus, "t.*");
	create_and_send("t.1", 1, TOPIC_OPTIONS());
	CHECK_OK(shmq_bus_stop(other, SHMQ_FORCE));
	check_next(sub, "t.1", 0);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EENDED);
	shmq_sub_close(sub);
	shmq_bus_close(other);
	shmq_bus_close(bus);
	test_bus_await_end();
	test_bus_stop();
}

static void *create_soon(void *arg)
{
	await_sleepers(other, "t.0", SHMQ_ROLE_SUBSCRIBER, 1);
	create_and_send(arg, 1, TOPIC_OPTIONS());
	return NULL;
}

TEST(a_new_topic_wakes_who_sleeps_alone_or_in_a_set)
{
	shmq_waitset *set;
	shmq_sub *sub, *ready[2];
	pthread_t thread;

	set_up();
	create(bus, "t.0");
	sub = open_sub(bus, "t.*", .wait = SHMQ_WAIT_SLEEP);
	CHECK_EQ(pthread_create(&thread, NULL, create_soon, (void *)(uintptr_t) "t.1"), 0);
	check_next(sub, "t.1", 0);
	pthread_join(thread, NULL);
	CHECK_OK(shmq_waitset_create(bus, &set));
	CHECK_OK(shmq_waitset_add(set, sub));
	CHECK_ERROR(shmq_waitset_wait(set, ready, 2, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(pthread_create(&thread, NULL, create_soon, (void *)(uintptr_t) "t.2"), 0);
	CHECK_EQ(shmq_waitset_wait(set, ready, 2, PATIENCE), 1);
	CHECK(ready[0] == sub);
	pthread_join(thread, NULL);
	check_next(sub, "t.2", 0);
	CHECK_ERROR(shmq_waitset_wait(set, ready, 2, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_waitset_destroy(set);
	shmq_sub_close(sub);
	tear_down();
}

static int keep(void *arg, const struct shmq_msg *msg)
{
	CHECK_STR(shmq_sub_topic(*(shmq_sub **)arg), "t.1");
	CHECK_EQ(msg->seq, number(msg));
	return 0;
}

TEST(messages_are_copied_polled_checked_and_given_back_as_of_any_handle)
{
	struct shmq_topic_info info;
	struct shmq_msg msg;
	shmq_sub *sub;
	char buf[16];

	set_up();
	sub = open_sub(bus, "t.*");
	CHECK_ERROR(shmq_sub_get_topic(sub, &info), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_view_check(sub, &msg), SHMQ_EOPTION);
	create_and_send("t.1", 10, TOPIC_OPTIONS(.policy = SHMQ_LOSSY, .partitions = 1));
	CHECK_ERROR(shmq_receive_copy(sub, buf, 1, &msg, PATIENCE), SHMQ_EBUFFER);
	CHECK_OK(shmq_receive_copy(sub, buf, sizeof(buf), &msg, PATIENCE));
	CHECK_EQ(number(&msg), 0);
	CHECK(msg.data == buf);
	CHECK_OK(shmq_sub_get_topic(sub, &info));
	CHECK_STR(info.name, "t.1");
	check_next(sub, "t.1", 1);
	CHECK_OK(shmq_view_check(sub, &msg));
	CHECK_OK(shmq_release(sub));
	CHECK_ERROR(shmq_view_check(sub, &msg), SHMQ_EOPTION);
	CHECK_EQ(shmq_poll(sub, keep, &sub, 3, PATIENCE), 3);
	CHECK_EQ(shmq_poll(sub, keep, &sub, 100, PATIENCE), 5);
	CHECK_ERROR(shmq_sub_store_cursor(sub), SHMQ_EOPTION);
	shmq_sub_close(sub);
	tear_down();
}

TEST(options_of_one_topic_are_refused)
{
	shmq_sub *sub;

	set_up();
	CHECK_ERROR(shmq_sub_open(bus, "a.*", SUB_OPTIONS(.from = SHMQ_FROM_SEQ), &sub),
		    SHMQ_EOPTION);
	check_says("are of one");
	CHECK_ERROR(shmq_sub_open(bus, "a.*", SUB_OPTIONS(.cursor = "c"), &sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_open(bus, "a.*", SUB_OPTIONS(.partition_plus1 = 1), &sub),
		    SHMQ_EOPTION);
	check_says("all partitions");
	CHECK_ERROR(shmq_sub_open(bus, "a.b*", NULL, &sub), SHMQ_ENAME);
	check_says("whole words");
	CHECK(sub == NULL);
	tear_down();
}

TEST(who_would_observe_is_told_of_the_topic_where_that_cannot_be)
{
	struct shmq_msg msg;
	shmq_sub *sub;

	set_up();
	sub = open_sub(bus, "t.*", .flags = SHMQ_SUB_OBSERVE);
	create_and_send("t.block", 1, TOPIC_OPTIONS());
	create_and_send("t.lossy", 1, TOPIC_OPTIONS(.policy = SHMQ_LOSSY));
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EOPTION);
	CHECK_STR(shmq_sub_topic(sub), "t.block");
	check_next(sub, "t.lossy", 0);
	check_nothing(sub);
	CHECK_EQ(peers_of(bus, "t.lossy", SHMQ_ROLE_SUBSCRIBER).gating, 0);
	shmq_sub_close(sub);
	tear_down();
}

TEST(what_was_never_read_goes_with_the_handle)
{
	shmq_sub *sub, *again;
	shmq_pub *pub;

	set_up();
	sub = open_sub(bus, "t.*");
	create(other, "t.1", .depth = 1024);
	CHECK_EQ(topic_info(bus, "t.1").subscribers, 1);
	again = open_sub(bus, "t.*");
	CHECK_EQ(topic_info(bus, "t.1").subscribers, 2);
	shmq_sub_close(sub);
	CHECK_EQ(topic_info(bus, "t.1").subscribers, 1);
	shmq_sub_close(again);
	CHECK_EQ(topic_info(bus, "t.1").subscribers, 0);
	pub = open_pub(other, "t.1", .flags = SHMQ_DONTWAIT);
	for (unsigned i = 0; i < 3000; i++)
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
	shmq_pub_close(pub);
	create(other, "t.2");
	CHECK_EQ(topic_info(bus, "t.2").subscribers, 0);
	tear_down();
}

TEST(a_bus_that_is_closed_closes_it)
{
	set_up();
	create(other, "t.1");
	open_sub(bus, "t.*");
	open_sub(bus, "t.1");
	open_sub(bus, "#");
	CHECK_EQ(topic_info(bus, "t.1").subscribers, 3);
	shmq_bus_close(bus);
	bus = test_bus_open();
	CHECK_EQ(topic_info(bus, "t.1").subscribers, 0);
	tear_down();
}

static int use_in_child(void *arg)
{
	struct shmq_msg msg;
	shmq_sub *sub = arg;

	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EFORKED);
	CHECK_STR(shmq_sub_topic(sub), "");
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_forked_child_is_refused_and_may_close_it)
{
	shmq_sub *sub;

	set_up();
	sub = open_sub(bus, "t.*");
	create_and_send("t.1", 2, TOPIC_OPTIONS());
	check_next(sub, "t.1", 0);
	CHECK_EQ(test_join(test_spawn(use_in_child, sub)), 0);
	check_next(sub, "t.1", 1);
	shmq_sub_close(sub);
	tear_down();
}

TEST(without_a_seat_what_was_missed_is_counted_exactly)
{
	enum { DEPTH = 1024, SENT = 3000 };
	struct proto_reply reply = { 0 };
	struct proto_request req;
	struct shmq_msg msg;
	uint64_t lost = 0;
	shmq_sub *sub;
	unsigned i;

	set_up();
	req.token = bus->next_token;
	sub = open_sub(bus, "t.*");
	/* The supervisor has never heard of it: as if it had no memory for seats. */
	reply.token = req.token;
	shmq__bus_prepare(bus, &req, PROTO_CLOSE, NULL);
	req.close.handle = reply.token;
	CHECK_OK(shmq__bus_request(bus, &req, &reply, NULL));
	create_and_send("t.1", SENT, TOPIC_OPTIONS(.depth = DEPTH));
	CHECK_EQ(topic_info(bus, "t.1").subscribers, 0);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_STR(shmq_sub_topic(sub), "t.1");
	lost = msg.lost;
	CHECK_GE(lost, SENT - DEPTH);
	for (i = (unsigned)lost; i < SENT; i++)
		check_next(sub, "t.1", i);
	check_nothing(sub);
	CHECK_EQ(sub_stats(sub).lost, lost);
	create(other, "t.2");
	check_nothing(sub);
	CHECK_EQ(topic_info(bus, "t.2").subscribers, 1);
	shmq_sub_close(sub);
	CHECK_EQ(topic_info(bus, "t.2").subscribers, 0);
	tear_down();
}
