/* SPDX-License-Identifier: MIT
 *
 * Descriptors of subscribers, patterns and wait sets in an epoll loop, level- and
 * edge-triggered: no message and no end is waited for in vain.
 */
#include "helpers.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>

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

static int is_readable(int fd, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, timeout_ms);
}

static void check_nothing(shmq_sub *sub)
{
	struct shmq_msg msg;

	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
}

TEST(it_is_readable_until_nothing_is_found)
{
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;
	int fd;

	set_up();
	create(bus, "t");
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	CHECK_GE(fd = shmq_sub_fd(sub), 0);
	CHECK_EQ(shmq_sub_fd(sub), fd);
	check_nothing(sub);
	CHECK(!is_readable(fd, 0));
	CHECK_OK(shmq_publish(pub, "a", 1));
	CHECK_OK(shmq_publish(pub, "b", 1));
	CHECK(is_readable(fd, 60000));
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK(is_readable(fd, 0));
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	check_nothing(sub);
	CHECK(!is_readable(fd, 0));
	CHECK_ERROR(shmq_receive(sub, &msg, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK(!is_readable(fd, 0));
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	tear_down();
}

/* Whoever has no reader of that kind makes no wake. */
TEST(publishers_wake_it_once_after_each_look_that_finds_nothing)
{
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;
	uint64_t wakes;

	set_up();
	create(bus, "t");
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "a", 1));
	CHECK_EQ(pub_stats(pub).wakes, 0);
	CHECK_GE(shmq_sub_fd(sub), 0);
	CHECK_OK(shmq_publish(pub, "a", 1));
	CHECK_EQ(pub_stats(pub).wakes, 0);
	while (!shmq_receive(sub, &msg, SHMQ_NOWAIT))
		;
	wakes = pub_stats(pub).wakes;
	for (unsigned i = 0; i < 10; i++)
		CHECK_OK(shmq_publish(pub, "a", 1));
	CHECK_EQ(pub_stats(pub).wakes, wakes + 1);
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	tear_down();
}

TEST(an_end_makes_it_readable)
{
	struct shmq_msg msg;
	shmq_sub *sub;
	int fd;

	set_up();
	create(bus, "t");
	sub = open_sub(bus, "t");
	CHECK_GE(fd = shmq_sub_fd(sub), 0);
	check_nothing(sub);
	CHECK_OK(shmq_topic_remove(other, "t", SHMQ_FORCE));
	CHECK(is_readable(fd, 60000));
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EENDED);
	CHECK(is_readable(fd, 0));
	shmq_sub_close(sub);
	tear_down();
}

TEST(of_a_pattern_it_is_readable_for_topics_that_come)
{
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;
	char name[16];
	int fd;

	set_up();
	sub = open_sub(bus, "t.*");
	CHECK_GE(fd = shmq_sub_fd(sub), 0);
	for (unsigned i = 0; i < 200; i++) {
		int rc;

		check_nothing(sub);
		snprintf(name, sizeof(name), "t.%u", i);
		create(other, name, .depth = 1024);
		pub = open_pub(other, name);
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
		while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) == SHMQ_EEMPTY)
			CHECK(is_readable(fd, 60000));
		CHECK_OK(rc);
		CHECK_STR(shmq_sub_topic(sub), name);
		check_nothing(sub);
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
		CHECK(is_readable(fd, 60000));
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		shmq_pub_close(pub);
	}
	shmq_sub_close(sub);
	tear_down();
}

TEST(on_a_topic_where_nobody_may_sleep_there_is_none)
{
	shmq_waitset *set;
	shmq_sub *sub;

	set_up();
	create(bus, "spin", .flags = SHMQ_TOPIC_SPIN_ONLY);
	sub = open_sub(bus, "spin");
	CHECK_ERROR(shmq_sub_fd(sub), SHMQ_EOPTION);
	CHECK_OK(shmq_waitset_create(bus, &set));
	CHECK_OK(shmq_waitset_add(set, sub));
	CHECK_ERROR(shmq_waitset_fd(set), SHMQ_EOPTION);
	CHECK_OK(shmq_waitset_remove(set, sub));
	CHECK_GE(shmq_waitset_fd(set), 0);
	CHECK_ERROR(shmq_waitset_add(set, sub), SHMQ_EOPTION);
	shmq_waitset_destroy(set);
	shmq_sub_close(sub);
	tear_down();
}

TEST(that_of_a_set_is_readable_for_each_of_its_subscribers)
{
	shmq_sub *sub[3], *ready[3];
	shmq_pub *pub[3];
	struct shmq_msg msg;
	shmq_waitset *set;
	char name[8];
	int fd;

	set_up();
	CHECK_OK(shmq_waitset_create(bus, &set));
	CHECK_GE(fd = shmq_waitset_fd(set), 0);
	CHECK_ERROR(shmq_waitset_wait(set, ready, 3, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK(!is_readable(fd, 0));
	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		create(bus, name);
		pub[i] = open_pub(bus, name);
		sub[i] = open_sub(bus, name);
		CHECK_OK(shmq_waitset_add(set, sub[i]));
		CHECK(is_readable(fd, 0));
	}
	for (unsigned i = 0; i < 30; i++) {
		CHECK_ERROR(shmq_waitset_wait(set, ready, 3, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK(!is_readable(fd, 0));
		CHECK_OK(shmq_publish(pub[i % 3], "a", 1));
		CHECK(is_readable(fd, 60000));
		CHECK_EQ(shmq_waitset_wait(set, ready, 3, SHMQ_NOWAIT), 1);
		CHECK(ready[0] == sub[i % 3]);
		CHECK_OK(shmq_receive(sub[i % 3], &msg, SHMQ_NOWAIT));
	}
	for (unsigned i = 0; i < 3; i++) {
		shmq_sub_close(sub[i]);
		shmq_pub_close(pub[i]);
	}
	shmq_waitset_destroy(set);
	tear_down();
}

/* ---- under load --------------------------------------------------------------- */

enum { TOPICS = 3, EACH = 20000 };

static void *send_all(void *arg)
{
	shmq_pub **pub = arg;

	for (unsigned i = 0; i < EACH; i++) {
		CHECK_OK(shmq_publish(pub[i % TOPICS], &i, sizeof(i)));
		if (i % 7 == 0)
			sched_yield();
	}
	return NULL;
}

/* As many turns as there are events; the time-out is an edge that was lost: no wake
 * comes in ten seconds but the back-stop's. */
static void loop(uint32_t trigger, int by_set)
{
	struct epoll_event ev = { .events = EPOLLIN | trigger };
	unsigned got = 0, turns = 0, i;
	shmq_sub *sub[TOPICS], *ready[TOPICS];
	shmq_pub *pub[TOPICS];
	int ep = epoll_create1(EPOLL_CLOEXEC), n;
	shmq_waitset *set;
	struct shmq_msg msg;
	pthread_t thread;
	char name[8];

	set_up();
	CHECK_OK(shmq_waitset_create(bus, &set));
	for (i = 0; i < TOPICS; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		create(other, name, .depth = 1024);
		pub[i] = open_pub(other, name);
		sub[i] = open_sub(bus, name);
		ev.data.u32 = i;
		if (by_set)
			CHECK_OK(shmq_waitset_add(set, sub[i]));
		else
			CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, shmq_sub_fd(sub[i]), &ev), 0);
	}
	if (by_set)
		CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, shmq_waitset_fd(set), &ev), 0);
	CHECK_EQ(pthread_create(&thread, NULL, send_all, pub), 0);
	while (got < EACH) {
		CHECK_EQ(epoll_wait(ep, &ev, 1, 5000 * test_slowdown()), 1);
		turns++;
		if (!by_set) {
			while (!shmq_receive(sub[ev.data.u32], &msg, SHMQ_NOWAIT)) {
				got++;
				if (!(trigger & EPOLLET)) /* the rest is for another turn */
					break;
			}
			continue;
		}
		while ((n = shmq_waitset_wait(set, ready, TOPICS, SHMQ_NOWAIT)) > 0)
			while (n-- > 0)
				while (!shmq_receive(ready[n], &msg, SHMQ_NOWAIT))
					got++;
		CHECK_ERROR(n < 0 ? n : SHMQ_EEMPTY, SHMQ_EEMPTY);
	}
	CHECK_EQ(got, EACH);
	pthread_join(thread, NULL);
	NOTE("%u turns for %u messages", turns, got);
	for (i = 0; i < TOPICS; i++) {
		shmq_sub_close(sub[i]);
		shmq_pub_close(pub[i]);
	}
	shmq_waitset_destroy(set);
	close(ep);
	tear_down();
}

TEST_WITHIN(an_edge_triggered_loop_misses_no_edge, 120)
{
	loop(EPOLLET, 0);
}

TEST_WITHIN(a_level_triggered_loop_may_leave_something_for_the_next_turn, 120)
{
	loop(0, 0);
}

TEST_WITHIN(a_set_in_an_edge_triggered_loop_misses_no_edge, 120)
{
	loop(EPOLLET, 1);
}

static int use_in_child(void *arg)
{
	CHECK_ERROR(shmq_sub_fd(arg), SHMQ_EFORKED);
	shmq_sub_close(arg);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_forked_child_is_refused_and_closes_its_own)
{
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_pub *pub;
	int fd;

	set_up();
	create(bus, "t");
	sub = open_sub(bus, "t");
	pub = open_pub(other, "t");
	CHECK_GE(fd = shmq_sub_fd(sub), 0);
	check_nothing(sub);
	CHECK_EQ(test_join(test_spawn(use_in_child, sub)), 0);
	CHECK_OK(shmq_publish(pub, "a", 1));
	CHECK(is_readable(fd, 60000));
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	tear_down();
}
